//! `ProjectConfig`: what a program registers a project with.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::identity::SECRET_BYTES_MIN;
use crate::engine::config::Secret;
use crate::engine::error::{Error, Result};
use crate::engine::form::Form;
use crate::engine::name;
use crate::engine::store::Rate;

/// Longest name and namespace, bytes.
const TEXT_BYTES_MAX: usize = 256;
/// Longest apiKey and secret, bytes.
const SECRET_BYTES_MAX: usize = 4096;
/// Most events a second and at once.
const RATE_MAX: f64 = 1_000_000.0;

/// `ProjectConfig.credentials`.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// Names the key.
    pub api_key: Secret,
    /// The key is made of it.
    pub secret: Secret,
    /// The secret before, whose key hands over to this one.
    pub previous_secret: Option<Secret>,
}

/// `ProjectConfig`.
#[derive(Clone, Debug)]
pub struct ProjectConfig {
    /// Who it is.
    pub id: String,
    /// For people.
    pub name: String,
    /// What it belongs to.
    pub namespace: String,
    /// Event types and patterns that it may send.
    pub allowed_event_types: Vec<String>,
    /// Projects that it may send to; `*`: all.
    pub allowed_targets: Vec<String>,
    /// By which it signs.
    pub credentials: Option<Credentials>,
    /// How much it may send.
    pub rate_limiting: Option<RateLimiting>,
}

/// `ProjectConfig.rateLimiting`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RateLimiting {
    /// In the long run.
    pub events_per_second: f64,
    /// At once.
    pub burst_limit: u32,
}

impl From<RateLimiting> for Rate {
    fn from(limits: RateLimiting) -> Self {
        Self { per_second: limits.events_per_second, burst: limits.burst_limit }
    }
}

fn refuse(path: &str, problem: String) -> Error {
    Error::argument(path, problem)
}

impl ProjectConfig {
    /// From what the program gave. `ERR_INVALID_ARGUMENT` with the path of the key; no secret is in it.
    pub fn read(value: Value) -> Result<Self> {
        let mut form = Form::open_beside_secrets(value, "config", refuse)?;
        let credentials = form.take("credentials").map(read_credentials).transpose()?;
        let id = form.project("projectId")?.ok_or_else(|| form.missing("projectId", name::PROJECT_RULE))?;
        let mut text = |key: &str| {
            let right = format!("a string of 1 to {TEXT_BYTES_MAX} bytes");
            let text = form.text(key, TEXT_BYTES_MAX)?.ok_or_else(|| form.missing(key, &right))?;
            if text.is_empty() { Err(form.wrong(key, &text.into(), &right)) } else { Ok(text) }
        };
        let (name, namespace) = (text("name")?, text("namespace")?);
        let target = |id: &str| if id == "*" || id == "**" { Ok(()) } else { name::check_project("target", id) };
        let (types, targets) = ("a list of event types or patterns", "a list of project ids, or of '*' for all");
        let config = Self {
            id,
            name,
            namespace,
            allowed_event_types: form
                .list("allowedEventTypes", 0, types, name::check_pattern)?
                .ok_or_else(|| form.missing("allowedEventTypes", types))?,
            allowed_targets: form.list("allowedTargets", 0, targets, target)?.ok_or_else(|| form.missing("allowedTargets", targets))?,
            credentials,
            rate_limiting: form.inner("rateLimiting")?.map(read_rate).transpose()?,
        };
        form.end(&["projectId", "name", "namespace", "allowedEventTypes", "allowedTargets", "credentials", "rateLimiting"])?;
        Ok(config)
    }
}

/// No value is in an error here, nor an unknown key: each may be a secret that was put in the wrong place.
fn read_credentials(value: Value) -> Result<Credentials> {
    let Value::Object(mut map) = value else { return Err(Error::argument("config.credentials", "must be an object")) };
    let mut secret = |key: &str, bytes_min: usize| match map.remove(key) {
        None => Ok(None),
        Some(Value::String(text)) if (bytes_min..=SECRET_BYTES_MAX).contains(&text.len()) => Ok(Some(Secret::new(text))),
        Some(_) => {
            let problem = format!("must be a string of {bytes_min} to {SECRET_BYTES_MAX} bytes");
            Err(Error::argument(&format!("config.credentials.{key}"), problem))
        }
    };
    let missing = |key: &str| Error::argument(&format!("config.credentials.{key}"), "is missing");
    let credentials = Credentials {
        api_key: secret("apiKey", 1)?.ok_or_else(|| missing("apiKey"))?,
        secret: secret("secret", SECRET_BYTES_MIN)?.ok_or_else(|| missing("secret"))?,
        previous_secret: secret("previousSecret", SECRET_BYTES_MIN)?,
    };
    if map.is_empty() {
        return Ok(credentials);
    }
    Err(Error::argument("config.credentials", "has an unknown key; known are apiKey, secret, previousSecret"))
}

fn read_rate(mut form: Form) -> Result<RateLimiting> {
    let mut number = |key: &str, right: &str, is_right: &dyn Fn(f64) -> bool| {
        let value = form.take(key).ok_or_else(|| form.missing(key, right))?;
        value.as_f64().filter(|n| is_right(*n)).ok_or_else(|| form.wrong(key, &value, right))
    };
    let events_per_second =
        number("eventsPerSecond", "a number of events a second, above 0 and at most 1000000", &|n| n > 0.0 && n <= RATE_MAX)?;
    let burst = number("burstLimit", "a whole number of events from 1 to 1000000", &|n| (1.0..=RATE_MAX).contains(&n) && n.fract() == 0.0)?;
    form.end(&["eventsPerSecond", "burstLimit"])?;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // in range by the check
    Ok(RateLimiting { events_per_second, burst_limit: burst as u32 })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::engine::error::Code;

    #[test]
    fn wrong_configurations_name_their_path_and_show_no_secret() {
        let right = json!({
            "projectId": "a", "name": "A", "namespace": "n", "allowedEventTypes": [], "allowedTargets": [],
            "credentials": { "apiKey": "k", "secret": "sixteen bytes ok" }, "rateLimiting": { "eventsPerSecond": 0.5, "burstLimit": 1 },
        });
        assert!(ProjectConfig::read(right.clone()).is_ok());
        let secret = "hunter2-hunter2";
        for (pointer, value, path) in [
            ("/projectId", json!("a b"), "config.projectId"),
            ("/projectId", json!(7), "config.projectId"),
            ("/name", json!(""), "config.name"),
            ("/namespace", json!(null), "config.namespace"),
            ("/allowedEventTypes", json!("a"), "config.allowedEventTypes"),
            ("/allowedEventTypes", json!(["a", "b*c"]), "config.allowedEventTypes[1]"),
            ("/allowedEventTypes", json!([1]), "config.allowedEventTypes[0]"),
            ("/allowedTargets", json!(["a/b"]), "config.allowedTargets[0]"),
            ("/credentials", json!(secret), "config.credentials"),
            ("/name", json!([secret]), "config.name"),
            ("/projectId", json!(format!("{secret}!")), "config.projectId"),
            ("/rateLimiting", json!(secret), "config.rateLimiting"),
            ("/rateLimiting/burstLimit", json!(secret), "config.rateLimiting.burstLimit"),
            ("/allowedTargets", json!([[secret]]), "config.allowedTargets[0]"),
            ("/credentials/secret", json!(secret), "config.credentials.secret"),
            ("/credentials/apiKey", json!(""), "config.credentials.apiKey"),
            ("/credentials", json!({ "apiKey": "k" }), "config.credentials.secret"),
            (
                "/credentials",
                json!({ "apiKey": "k", "secret": "sixteen bytes ok", "previousSecret": secret }),
                "config.credentials.previousSecret",
            ),
            ("/credentials", json!({ "apiKey": "k", "secret": "sixteen bytes ok", secret: 1 }), "config.credentials"),
            ("/rateLimiting", json!(5), "config.rateLimiting"),
            ("/rateLimiting/eventsPerSecond", json!(0), "config.rateLimiting.eventsPerSecond"),
            ("/rateLimiting/burstLimit", json!(1.5), "config.rateLimiting.burstLimit"),
            ("/rateLimiting", json!({ "eventsPerSecond": 1, "burstLimit": 1, "burst": 1 }), "config.rateLimiting.burst"),
        ] {
            let mut wrong = right.clone();
            *wrong.pointer_mut(pointer).unwrap() = value;
            let error = ProjectConfig::read(wrong).unwrap_err();
            assert_eq!((error.code, error.details["argument"].as_str()), (Code::InvalidArgument, Some(path)));
            assert!(!error.to_json().to_string().contains(secret), "{error}");
        }
        let mut unknown = right.clone();
        unknown["secret"] = json!(secret);
        assert_eq!(ProjectConfig::read(unknown).unwrap_err().details["argument"], "config.secret");
        assert!(ProjectConfig::read(json!("x")).is_err());
    }
}
