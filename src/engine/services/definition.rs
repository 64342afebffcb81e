//! What a service says of itself: `ServiceDefinition` of the public contract, checked when it is given.

use semver::Version;
use serde_json::{Map, Value, json};
use url::Url;

use crate::engine::error::{Code, Error, Result};
use crate::engine::form::Form;

/// Longest endpoint, bytes.
const ENDPOINT_BYTES_MAX: usize = 2048;
/// Longest version, bytes.
const VERSION_BYTES_MAX: usize = 128;
/// Longest description, author and documentation, bytes.
const TEXT_BYTES_MAX: usize = 4096;
/// Most capabilities.
const CAPABILITIES_MAX: usize = 100;
/// Most tags, and the longest one, bytes.
const TAGS_MAX: (usize, usize) = (100, 256);
/// Longest environment, bytes.
const ENVIRONMENT_BYTES_MAX: usize = 128;
/// Longest path at an endpoint, bytes.
const PATH_BYTES_MAX: usize = 1024;
/// Most of a whole definition as JSON, bytes.
const BYTES_MAX: usize = 64 << 10;

const KEYS: [&str; 8] = ["name", "endpoint", "capabilities", "version", "health", "metadata", "registeredAt", "updatedAt"];
const CAPABILITY_KEYS: [&str; 5] = ["name", "version", "inputs", "outputs", "description"];
const METADATA_KEYS: [&str; 7] = ["description", "tags", "author", "documentation", "environment", "healthPath", "eventsPath"];
const UPDATE_KEYS: [&str; 5] = ["endpoint", "capabilities", "version", "health", "metadata"];

/// Where its health is asked for unless its metadata says otherwise.
const HEALTH_PATH: &str = "/health";
/// Where events are sent to, and contracts asked for below, unless its metadata says otherwise.
const EVENTS_PATH: &str = "/events";

/// `ERR_SERVICE_INVALID` at a path.
pub fn refuse(path: &str, problem: String) -> Error {
    Error::new(Code::ServiceInvalid, format!("{path}: {problem}")).with("path", path)
}

/// What a service can do.
#[derive(Clone, Debug, PartialEq)]
pub struct Capability {
    /// Its name; some are known to the bus, see `integration`.
    pub name: String,
    /// Semantic version.
    pub version: String,
    /// Free, but for `events`, which the bus reads.
    pub inputs: Option<Map<String, Value>>,
    outputs: Option<Map<String, Value>>,
    description: Option<String>,
}

/// What is said about a service.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metadata {
    description: Option<String>,
    /// Labels to find it by.
    pub tags: Option<Vec<String>>,
    author: Option<String>,
    documentation: Option<String>,
    /// Where it runs, `production` and the like.
    pub environment: Option<String>,
    health_path: Option<String>,
    events_path: Option<String>,
}

/// A service without how it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Definition {
    /// Unique in the registry.
    pub name: String,
    /// Its address, an absolute URL.
    pub endpoint: String,
    /// What it can do.
    pub capabilities: Vec<Capability>,
    /// Semantic version.
    pub version: String,
    /// What else is said.
    pub metadata: Option<Metadata>,
    /// ms since 1970.
    pub registered_at_ms: u64,
    /// Of the last change of anything but its health, ms since 1970.
    pub updated_at_ms: u64,
    /// How long it is listed without being renewed, ms.
    pub life_ms: u64,
}

/// A definition as it is given, with what it says about its health.
pub struct Given {
    /// The rest.
    pub definition: Definition,
    /// `health`, unread.
    pub health: Option<Value>,
}

impl Definition {
    /// From JSON as JavaScript sends it. What a registered service has beside (`registeredAt`, `updatedAt`) is taken and means nothing,
    /// so that what was found can be registered again.
    ///
    /// `ERR_SERVICE_INVALID` with `details.path`: `service.capabilities[0].version`.
    pub fn read(value: Value, now_ms: u64, life_ms: u64) -> Result<Given> {
        let mut form = Form::open(value, "service", refuse)?;
        let name = form.name("name")?;
        let right = "an absolute URL, such as 'http://10.0.0.7:8080'";
        let endpoint = read_endpoint(&mut form)?.ok_or_else(|| form.missing("endpoint", right))?;
        let capabilities = read_capabilities(&mut form)?.ok_or_else(|| form.missing("capabilities", "a list, perhaps empty"))?;
        let version = read_version(&mut form)?.ok_or_else(|| form.missing("version", VERSION))?;
        let metadata = read_metadata(&mut form, None)?;
        let health = form.take("health");
        for ours in ["registeredAt", "updatedAt"] {
            form.take(ours);
        }
        form.end(&KEYS)?;
        let definition = Self { name, endpoint, capabilities, version, metadata, registered_at_ms: now_ms, updated_at_ms: now_ms, life_ms };
        definition.check_size("service")?;
        Ok(Given { definition, health })
    }

    /// The definition with `updates`: of metadata key by key, everything else as a whole. Answers also what they say about its health.
    pub fn updated(&self, updates: Value, now_ms: u64) -> Result<Given> {
        let mut form = Form::open(updates, "updates", refuse)?;
        if form.take("name").is_some_and(|name| name.as_str() != Some(&self.name)) {
            return Err(refuse("updates.name", "cannot be changed: register a service of that name, and unregister this one".to_owned()));
        }
        for ours in ["registeredAt", "updatedAt"] {
            if form.take(ours).is_some() {
                return Err(refuse(&format!("updates.{ours}"), "is noted by the registry itself; leave it out".to_owned()));
            }
        }
        let mut definition = self.clone();
        if let Some(endpoint) = read_endpoint(&mut form)? {
            definition.endpoint = endpoint;
        }
        if let Some(capabilities) = read_capabilities(&mut form)? {
            definition.capabilities = capabilities;
        }
        if let Some(version) = read_version(&mut form)? {
            definition.version = version;
        }
        definition.metadata = read_metadata(&mut form, self.metadata.as_ref())?;
        let health = form.take("health");
        form.end(&UPDATE_KEYS)?;
        definition.check_size("updates")?;
        if definition != *self {
            // Later than before, by whatever clock: it tells one update from another.
            definition.updated_at_ms = now_ms.max(self.updated_at_ms + 1);
        }
        Ok(Given { definition, health })
    }

    fn check_size(&self, path: &str) -> Result<()> {
        let bytes = self.to_text().len();
        if bytes <= BYTES_MAX {
            return Ok(());
        }
        Err(refuse(path, format!("has {bytes} bytes as JSON; a definition may have {BYTES_MAX}")))
    }

    /// From what [`Definition::to_text`] wrote, perhaps in another process, and what is listed as `name`.
    pub fn from_text(name: &str, text: &str) -> Result<Self> {
        let mut value: Value = serde_json::from_str(text).map_err(|error| refuse("service", format!("is no JSON: {error}")))?;
        let number = |value: &Value, key: &str| {
            value[key].as_u64().ok_or_else(|| refuse(&format!("service.{key}"), "is missing; it must be a number of ms".to_owned()))
        };
        let (registered_at_ms, updated_at_ms, life_ms) =
            (number(&value, "registeredAt")?, number(&value, "updatedAt")?, number(&value, "life")?);
        if let Value::Object(map) = &mut value {
            map.remove("life");
        }
        let definition = Self::read(value, registered_at_ms, life_ms)?.definition;
        // Else whoever writes one listing could speak for another.
        if definition.name != name {
            return Err(refuse("service.name", format!("is '{}'", definition.name)));
        }
        Ok(Self { updated_at_ms, ..definition })
    }

    /// JSON; times are ms since 1970.
    pub fn to_text(&self) -> String {
        let mut out = self.to_json();
        out["life"] = self.life_ms.into();
        out.to_string()
    }

    /// As in the public contract but for its health; times are ms since 1970.
    pub fn to_json(&self) -> Value {
        let mut out = json!({
            "name": self.name,
            "endpoint": self.endpoint,
            "capabilities": self.capabilities.iter().map(Capability::to_json).collect::<Vec<_>>(),
            "version": self.version,
        });
        if let Some(metadata) = &self.metadata {
            out["metadata"] = metadata.to_json();
        }
        out["registeredAt"] = self.registered_at_ms.into();
        out["updatedAt"] = self.updated_at_ms.into();
        out
    }

    /// Whether it says the same, whenever that was.
    pub fn is_same_as(&self, other: &Self) -> bool {
        let untimed = |one: &Self| Self { registered_at_ms: 0, updated_at_ms: 0, life_ms: 0, ..one.clone() };
        untimed(self) == untimed(other)
    }

    /// Whether it can be asked by HTTP.
    pub fn is_http(&self) -> bool {
        let scheme = self.scheme();
        scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https")
    }

    /// Of its endpoint.
    pub fn scheme(&self) -> &str {
        self.endpoint.split(':').next().unwrap_or_default()
    }

    /// Where its health is asked for.
    pub fn health_url(&self) -> String {
        self.url(self.metadata.as_ref().and_then(|metadata| metadata.health_path.as_deref()).unwrap_or(HEALTH_PATH))
    }

    /// Where events are sent to.
    pub fn events_url(&self) -> String {
        self.url(self.metadata.as_ref().and_then(|metadata| metadata.events_path.as_deref()).unwrap_or(EVENTS_PATH))
    }

    /// Where its contracts are asked for.
    pub fn contracts_url(&self) -> String {
        format!("{}/contracts", self.events_url())
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.endpoint.trim_end_matches('/'))
    }
}

impl Capability {
    fn to_json(&self) -> Value {
        let mut out = json!({ "name": self.name, "version": self.version });
        for (key, value) in [("inputs", &self.inputs), ("outputs", &self.outputs)] {
            if let Some(map) = value {
                out[key] = Value::Object(map.clone());
            }
        }
        if let Some(description) = &self.description {
            out["description"] = description.as_str().into();
        }
        out
    }
}

impl Metadata {
    fn to_json(&self) -> Value {
        let mut out = Map::new();
        let mut put = |key: &str, value: Option<Value>| {
            if let Some(value) = value {
                out.insert(key.to_owned(), value);
            }
        };
        let text = |text: &Option<String>| text.clone().map(Value::from);
        put("description", text(&self.description));
        put("tags", self.tags.clone().map(Value::from));
        put("author", text(&self.author));
        put("documentation", text(&self.documentation));
        put("environment", text(&self.environment));
        put("healthPath", text(&self.health_path));
        put("eventsPath", text(&self.events_path));
        Value::Object(out)
    }
}

/// What a version must be.
const VERSION: &str = "a semantic version, such as '1.0.0'";

fn read_version(form: &mut Form) -> Result<Option<String>> {
    let Some(value) = form.take("version") else { return Ok(None) };
    let text = value.as_str().filter(|text| text.len() <= VERSION_BYTES_MAX && Version::parse(text).is_ok());
    text.map(|text| Some(text.to_owned())).ok_or_else(|| form.wrong("version", &value, VERSION))
}

/// With a host, without a user: everybody who finds the service sees its endpoint.
fn read_endpoint(form: &mut Form) -> Result<Option<String>> {
    let right = format!("an absolute URL of at most {ENDPOINT_BYTES_MAX} bytes, such as 'http://10.0.0.7:8080'");
    let Some(value) = form.take("endpoint") else { return Ok(None) };
    let Some(text) = value.as_str().filter(|text| text.len() <= ENDPOINT_BYTES_MAX) else {
        return Err(form.wrong("endpoint", &value, &right));
    };
    let url = Url::parse(text).ok().filter(Url::has_host).filter(|url| is_plain(text, url));
    let url = url.ok_or_else(|| form.wrong("endpoint", &value, &right))?;
    if !url.username().is_empty() || url.password().is_some() {
        let problem = "holds a user name or password, which everybody who discovers the service would see; leave them out".to_owned();
        return Err(refuse(&form.at("endpoint"), problem));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(refuse(
            &form.at("endpoint"),
            "has a query or a fragment; paths are added to it, so it must end before them".to_owned(),
        ));
    }
    Ok(Some(text.to_owned()))
}

/// Whether it is written as it is meant. What the standard for URLs would leave out or turn round in silence (`http:host`, blanks,
/// backslashes) is refused when it is asked, so it is refused here already.
fn is_plain(text: &str, url: &Url) -> bool {
    let begins = |scheme: &str| text.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme));
    let is_odd = |c: char| c.is_control() || c.is_whitespace() || c == '\\';
    begins(&format!("{}://", url.scheme())) && !text.contains(is_odd)
}

fn read_capabilities(form: &mut Form) -> Result<Option<Vec<Capability>>> {
    let items = match form.take("capabilities") {
        None => return Ok(None),
        Some(Value::Array(items)) if items.len() <= CAPABILITIES_MAX => items,
        Some(other) => return Err(form.wrong("capabilities", &other, &format!("a list of at most {CAPABILITIES_MAX} capabilities"))),
    };
    let path = form.at("capabilities");
    let read = |(i, item)| read_capability(Form::open(item, &format!("{path}[{i}]"), refuse)?);
    items.into_iter().enumerate().map(read).collect::<Result<_>>().map(Some)
}

fn read_capability(mut form: Form) -> Result<Capability> {
    let capability = Capability {
        name: form.name("name")?,
        version: read_version(&mut form)?.ok_or_else(|| form.missing("version", VERSION))?,
        inputs: read_object(&mut form, "inputs")?,
        outputs: read_object(&mut form, "outputs")?,
        description: form.text("description", TEXT_BYTES_MAX)?,
    };
    form.end(&CAPABILITY_KEYS)?;
    Ok(capability)
}

pub(super) fn read_object(form: &mut Form, key: &str) -> Result<Option<Map<String, Value>>> {
    match form.take(key) {
        None => Ok(None),
        Some(Value::Object(map)) if !map.contains_key("$invalid") => Ok(Some(map)),
        Some(other) => Err(form.wrong(key, &other, "an object")),
    }
}

fn read_path(form: &mut Form, key: &str) -> Result<Option<String>> {
    let right = format!("a path that begins with '/', of at most {PATH_BYTES_MAX} bytes, without a query");
    let Some(value) = form.take(key) else { return Ok(None) };
    let is_right = |path: &&str| {
        path.starts_with('/')
            && path.len() <= PATH_BYTES_MAX
            && path.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'?' | b'#' | b'\\'))
    };
    let path = value.as_str().filter(is_right);
    path.map(|path| Some(path.to_owned())).ok_or_else(|| form.wrong(key, &value, &right))
}

/// `before` where a key is not given.
fn read_metadata(form: &mut Form, before: Option<&Metadata>) -> Result<Option<Metadata>> {
    let Some(mut form) = form.inner("metadata")? else { return Ok(before.cloned()) };
    let before = before.cloned().unwrap_or_default();
    let tag = |text: &str| match text.len() {
        bytes if bytes <= TAGS_MAX.1 => Ok(()),
        bytes => Err(Error::argument("tag", format!("has {bytes} bytes; it may have {}", TAGS_MAX.1))),
    };
    let tags = form.list("tags", 0, "a list of strings", tag)?;
    if let Some(count) = tags.as_ref().map(Vec::len).filter(|count| *count > TAGS_MAX.0) {
        return Err(refuse(&form.at("tags"), format!("has {count} entries; it may have {}", TAGS_MAX.0)));
    }
    let metadata = Metadata {
        description: form.text("description", TEXT_BYTES_MAX)?.or(before.description),
        tags: tags.or(before.tags),
        author: form.text("author", TEXT_BYTES_MAX)?.or(before.author),
        documentation: form.text("documentation", TEXT_BYTES_MAX)?.or(before.documentation),
        environment: form.text("environment", ENVIRONMENT_BYTES_MAX)?.or(before.environment),
        health_path: read_path(&mut form, "healthPath")?.or(before.health_path),
        events_path: read_path(&mut form, "eventsPath")?.or(before.events_path),
    };
    form.end(&METADATA_KEYS)?;
    Ok(Some(metadata))
}

#[cfg(test)]
mod tests;
