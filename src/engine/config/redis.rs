//! `redis`: where the events are kept, and as whom.

use serde_json::{Map, Value, json};

use super::address::{Address, Located};
use super::bounds::{DB, TIMEOUT};
use super::credentials::Credentials;
use super::env::REDIS_DB;
use super::found::Found;
use super::reader::{Key, Section};
use super::secret::Secret;
use super::tls::Tls;
use super::url::Url;
use crate::engine::error::{Error, Result};

const KEYS: [&str; 12] = [
    "url",
    "host",
    "port",
    "username",
    "password",
    "db",
    "keyPrefix",
    "tls",
    "cluster",
    "sentinel",
    "connectTimeoutMs",
    "commandTimeoutMs",
];
const PREFIX_RULE: &str = "1 to 256 printable ASCII characters without blanks, '{' and '}' (braces decide on the slot in Redis Cluster)";

/// Connection to the store.
#[derive(Clone, Debug, PartialEq)]
pub struct RedisConfig {
    /// Where it is.
    pub address: Address,
    /// ACL user.
    pub username: Option<String>,
    /// Its password, or the server's.
    pub password: Option<Secret>,
    /// Number of the database; 0 in a cluster.
    pub db: u32,
    /// What every key begins with.
    pub key_prefix: String,
    /// Encryption; none unless given.
    pub tls: Option<Tls>,
    /// Longest wait for a connection, ms.
    pub connect_timeout_ms: u64,
    /// Longest wait for the answer to a command, ms.
    pub command_timeout_ms: u64,
}

impl RedisConfig {
    /// The address as a URL to be shown, without credentials.
    pub fn shown(&self) -> String {
        let s = if self.tls.is_some() { "s" } else { "" };
        let at = |(host, port): &(String, u16)| if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        let first = |nodes: &[(String, u16)]| nodes.first().map(at).unwrap_or_default();
        match &self.address {
            Address::Memory { name } => format!("memory://{}", name.as_deref().unwrap_or("private")),
            Address::Single { host, port } => format!("redis{s}://{}/{}", at(&(host.clone(), *port)), self.db),
            Address::Socket { path } => format!("redis+unix://localhost{path}"),
            Address::Cluster { nodes, .. } => format!("redis{s}+cluster://{}", first(nodes)),
            Address::Sentinel { master_name, nodes, .. } => format!("redis{s}+sentinel://{}/{master_name}", first(nodes)),
        }
    }

    /// Reads `redis` of `parent`.
    pub(super) fn read(parent: &Section<'_>, prefix: impl Into<Key>, prefix_default: &str) -> Result<Self> {
        let section = parent.child("redis", &KEYS)?;
        let located = Located::read(&section)?;
        let credentials = Credentials::read(&section, &located)?;
        let own_tls = Tls::read(&section)?;
        let tls = located.merge_tls(&section, own_tls)?;
        let db = read_db(&section, &located)?;
        let config = Self {
            username: credentials.username,
            password: credentials.password,
            db,
            key_prefix: match section.find(prefix) {
                Some(found) => read_prefix(&found)?,
                None => prefix_default.to_owned(),
            },
            tls,
            connect_timeout_ms: section.whole("connectTimeoutMs", &TIMEOUT, 10_000)?,
            command_timeout_ms: section.whole("commandTimeoutMs", &TIMEOUT, 5_000)?,
            address: located.address,
        };
        match config.address {
            Address::Memory { .. } => config.in_memory(&section),
            Address::Socket { .. } if config.tls.is_some() => {
                Err(Error::config(&section.at("tls"), "has no meaning with a Unix socket: nothing of it leaves the machine"))
            }
            _ => Ok(config),
        }
    }

    /// The embedded bus has no database, credentials or encryption: the environment's do not concern it, and those
    /// of the argument contradict it.
    fn in_memory(self, section: &Section<'_>) -> Result<Self> {
        let given = [
            ("username", self.username.is_some()),
            ("password", self.password.is_some()),
            ("db", self.db != 0),
            ("tls", self.tls.is_some()),
        ];
        for (key, set) in given {
            if set && section.value(key).is_some() {
                return Err(Error::config(&section.at(key), "has no meaning with memory://; leave it out"));
            }
        }
        Ok(Self { username: None, password: None, db: 0, tls: None, ..self })
    }

    /// The resolved form, passwords in clear: for [`from_resolved`](super::BusConfig::from_resolved) only.
    pub(super) fn to_json(&self) -> Value {
        let mut out = Map::new();
        self.address.write(&mut out);
        if let Some(username) = &self.username {
            out.insert("username".to_owned(), json!(username));
        }
        if let Some(password) = &self.password {
            out.insert("password".to_owned(), json!(password.expose()));
        }
        out.insert("db".to_owned(), json!(self.db));
        out.insert("keyPrefix".to_owned(), json!(self.key_prefix));
        if let Some(tls) = &self.tls {
            out.insert("tls".to_owned(), tls.to_json());
        }
        out.insert("connectTimeoutMs".to_owned(), json!(self.connect_timeout_ms));
        out.insert("commandTimeoutMs".to_owned(), json!(self.command_timeout_ms));
        Value::Object(out)
    }
}

/// What keys in Redis begin with.
pub(super) fn read_prefix(found: &Found<'_>) -> Result<String> {
    found.checked(PREFIX_RULE, is_prefix)
}

fn is_prefix(text: &str) -> bool {
    (1..=256).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'{' | b'}'))
}

fn read_db(section: &Section<'_>, located: &Located<'_>) -> Result<u32> {
    let in_url = match &located.url {
        Some((Url::Redis { db: Some(db), .. }, found)) => Some((*db, found)),
        _ => None,
    };
    let found = match (section.argument("db"), in_url) {
        (Some(found), _) => found,
        (None, Some((db, _))) => return Ok(db),
        // A variable left over from another server is not even read for the embedded bus.
        (None, None) if located.address.is_memory() => return Ok(0),
        (None, None) => match section.variable("db", REDIS_DB) {
            Some(found) => found,
            None => return Ok(0),
        },
    };
    let db: u32 = found.whole(&DB)?;
    match in_url {
        Some((in_url, url)) if in_url != db && url.is_argument() => {
            Err(found.error(format!("is {db}, but the URL in {} says {in_url}; give it once", url.path)))
        }
        _ if db != 0 && matches!(located.address, Address::Cluster { .. }) => {
            Err(found.error("must be 0 together with cluster: a Redis Cluster has one database"))
        }
        _ => Ok(db),
    }
}
