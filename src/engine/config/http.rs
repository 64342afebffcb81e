//! `http`: what may be asked of endpoints that others give, and within which bounds.

use serde_json::{Map, Value, json};

use super::bounds;
use super::host_rule::HostRule;
use super::reader::Section;
use super::tls::read_pem;
use crate::engine::error::Result;

const KEYS: [&str; 5] = ["allow", "deny", "timeoutMs", "maxResponseBytes", "ca"];
/// Most rules in a list.
const RULES_MAX: usize = 1_000;
const TIMEOUT_MS: u64 = 10_000;
const RESPONSE_BYTES: u64 = 1 << 20;

/// `http` of `ServiceRegistryConfig`, and of `serviceRegistry` in `OSSAEventBusConfig`.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpConfig {
    /// What may be asked; without it, everything that is not denied, private addresses included. An empty list allows nothing.
    pub allow: Option<Vec<HostRule>>,
    /// What may not be asked, whatever `allow` says.
    pub deny: Vec<HostRule>,
    /// Longest a request may take, from the look-up of the name to the last byte of the answer, ms.
    pub timeout_ms: u64,
    /// Longest answer that is taken, bytes.
    pub response_bytes_max: u64,
    /// Certificates that are trusted beside those that the system trusts, PEM.
    pub ca: Option<String>,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self { allow: None, deny: Vec::new(), timeout_ms: TIMEOUT_MS, response_bytes_max: RESPONSE_BYTES, ca: None }
    }
}

impl HttpConfig {
    pub(super) fn read(parent: &Section<'_>) -> Result<Self> {
        let section = parent.child("http", &KEYS)?;
        let ca = section.argument("ca").map(|found| read_pem(&found, "CERTIFICATE")).transpose()?;
        Ok(Self {
            allow: read_rules(&section, "allow")?,
            deny: read_rules(&section, "deny")?.unwrap_or_default(),
            timeout_ms: section.whole("timeoutMs", &bounds::TIMEOUT, TIMEOUT_MS)?,
            response_bytes_max: section.whole("maxResponseBytes", &bounds::RESPONSE_BYTES, RESPONSE_BYTES)?,
            ca: ca.map(|pem| pem.expose().to_owned()),
        })
    }

    pub(super) fn to_json(&self) -> Value {
        let texts = |rules: &[HostRule]| -> Value { rules.iter().map(|rule| json!(rule.to_string())).collect() };
        let mut out = Map::new();
        if let Some(allow) = &self.allow {
            out.insert("allow".to_owned(), texts(allow));
        }
        out.insert("deny".to_owned(), texts(&self.deny));
        out.insert("timeoutMs".to_owned(), json!(self.timeout_ms));
        out.insert("maxResponseBytes".to_owned(), json!(self.response_bytes_max));
        if let Some(ca) = &self.ca {
            out.insert("ca".to_owned(), json!(ca));
        }
        Value::Object(out)
    }
}

fn read_rules(section: &Section<'_>, key: &str) -> Result<Option<Vec<HostRule>>> {
    let Some(found) = section.argument(key) else { return Ok(None) };
    let right = format!("an array of at most {RULES_MAX} rules: host names, addresses, networks, or 'private'");
    let Some(Value::Array(items)) = section.value(key) else { return Err(found.wrong(right)) };
    if items.len() > RULES_MAX {
        return Err(found.error(format!("must be {right}, not of {}", items.len())));
    }
    let read = |(index, item)| {
        let found = section.item(key, index, item);
        let text = found.text("a string: a host name, an address, a network, or 'private'")?;
        HostRule::parse(&text).map_err(|right| found.wrong(right))
    };
    items.iter().enumerate().map(read).collect::<Result<_>>().map(Some)
}
