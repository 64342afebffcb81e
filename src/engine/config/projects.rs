//! `crossProject`: messages between projects.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::reader::Section;
use crate::engine::error::{Error, Result};
use crate::engine::name::{PROJECT_RULE, check_project};

const TRUSTED_KEYS_MAX: usize = 10_000;

/// `crossProject` of `OSSAEventBusConfig`.
#[derive(Clone, Debug, PartialEq)]
pub struct CrossProject {
    /// Whether projects can be registered and written to.
    pub enabled: bool,
    /// Whether messages are signed and signatures verified.
    pub security_enabled: bool,
    /// Whether the projects' rate limits hold.
    pub rate_limiting_enabled: bool,
    /// Public keys by project id, as given, that are believed before those in Redis.
    pub trusted_keys: BTreeMap<String, String>,
}

impl CrossProject {
    pub(super) fn read(parent: &Section<'_>) -> Result<Self> {
        let section = parent.child("crossProject", &["enabled", "securityEnabled", "rateLimitingEnabled", "trustedKeys"])?;
        Ok(Self {
            enabled: section.flag("enabled", true)?,
            security_enabled: section.flag("securityEnabled", true)?,
            rate_limiting_enabled: section.flag("rateLimitingEnabled", true)?,
            trusted_keys: read_keys(&section)?,
        })
    }

    pub(super) fn to_json(&self) -> Value {
        json!({
            "enabled": self.enabled,
            "securityEnabled": self.security_enabled,
            "rateLimitingEnabled": self.rate_limiting_enabled,
            "trustedKeys": self.trusted_keys,
        })
    }
}

fn read_keys(parent: &Section<'_>) -> Result<BTreeMap<String, String>> {
    let Some(found) = parent.argument("trustedKeys") else { return Ok(BTreeMap::new()) };
    let right = format!("an object of at most {TRUSTED_KEYS_MAX} public keys by project id");
    let section = match parent.value("trustedKeys") {
        Some(Value::Object(map)) if map.len() <= TRUSTED_KEYS_MAX && !map.contains_key("$invalid") => parent.open("trustedKeys", map),
        _ => return Err(found.wrong(right)),
    };
    let mut keys = BTreeMap::new();
    for (project, _) in section.entries() {
        let shown: String = project.chars().take(64).collect();
        if check_project("trustedKeys", project).is_err() {
            return Err(Error::config(&section.at(&shown), format!("is no project id: {PROJECT_RULE}")));
        }
        let Some(found) = section.argument(project) else { continue };
        // Not shown: the likeliest mistake is a secret in its place.
        let right = "an Ed25519 public key: 32 bytes as 64 hex digits or as base64";
        let key = found.secret(right)?;
        if !is_public_key(key.expose()) {
            return Err(found.wrong_secret(right));
        }
        keys.insert(project.clone(), key.expose().to_owned());
    }
    Ok(keys)
}

fn is_public_key(text: &str) -> bool {
    let hex = text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
    let digits = text.strip_suffix('=').unwrap_or(text);
    let base64 = digits.len() == 43 && digits.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'-' | b'_'));
    hex || base64
}
