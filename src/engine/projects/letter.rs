//! A message as its sender gave it: to whom it goes, with which options, and how its refusal is recorded.

use semver::VersionReq;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::audit::{Entry, Outcome};
use crate::engine::error::{Code, Error, Result};
use crate::engine::host::Token;
use crate::engine::name;
use crate::engine::options::PublishOptions;
use crate::engine::publish::{OWN, Outgoing};

/// `options` of `sendCrossProjectMessage`.
const OPTIONS: [&str; 10] =
    ["correlationId", "causationId", "priority", "ttl", "delayMs", "partitionKey", "idempotencyKey", "tags", "headers", "contractVersion"];
/// Most targets of one message.
pub(super) const TARGETS_MAX: usize = 1_000;

/// To whom a message goes.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Target {
    One(String),
    List(Vec<String>),
}

/// See [`Outgoing::address`].
#[derive(Debug, Deserialize)]
struct Address {
    source: Value,
    target: Value,
    #[serde(default)]
    options: Map<String, Value>,
    /// Of data that was left out because it has too many.
    characters: Option<usize>,
    /// Told by the bus itself: an answer to a message that was given up. No rule for messages holds for it.
    #[serde(default)]
    own: bool,
}

/// A message that was read.
pub(super) struct Letter {
    pub(super) token: Token,
    /// Among those of its batch.
    pub(super) place: usize,
    pub(super) source: String,
    pub(super) target: Target,
    pub(super) event_type: String,
    pub(super) options: PublishOptions,
    pub(super) version: Option<VersionReq>,
    pub(super) data: String,
    /// Length of the data, bytes; of data that was left out, characters.
    pub(super) data_len: usize,
    pub(super) own: bool,
}

/// Why a message is not sent, and as whose refusal that is recorded.
pub(super) struct Refused {
    pub(super) token: Token,
    pub(super) error: Error,
    pub(super) entry: Option<Entry>,
}

impl Target {
    pub(super) fn read(value: Value) -> Result<Self> {
        match serde_json::from_value(value) {
            Ok(Self::List(list)) if list.is_empty() => {
                Err(Error::argument("target", "is an empty list; name at least one project, or '*' for all"))
            }
            Ok(Self::List(list)) if list.len() > TARGETS_MAX => {
                Err(Error::argument("target", format!("has more than {TARGETS_MAX} projects")))
            }
            Ok(target) => Ok(target),
            Err(_) => Err(Error::argument("target", "must be a project id, a list of them, or '*' for all that the source may reach")),
        }
    }

    pub(super) fn shown(&self) -> String {
        match self {
            Self::One(target) => shortened(target),
            Self::List(list) => shortened(&list.join(",")),
        }
    }
}

pub(super) fn shortened(text: &str) -> String {
    text.chars().take(256).collect()
}

pub(super) fn denied(message: String) -> Error {
    Error::new(Code::NotPermitted, message)
}

pub(super) fn unknown(role: &str, project: &str) -> Error {
    let project = shortened(project);
    let message = format!("the {role} '{project}' is not registered: call registerProject() in one of its processes first");
    Error::new(Code::ProjectUnknown, message).with("projectId", project)
}

/// As what a refusal is recorded.
pub(super) fn outcome_of(error: &Error) -> Option<Outcome> {
    match error.code {
        Code::ProjectUnknown | Code::NotPermitted => Some(Outcome::Denied),
        Code::RateLimited => Some(Outcome::RateLimited),
        Code::ContractViolation | Code::PayloadTooLarge | Code::InvalidArgument => Some(Outcome::Invalid),
        // The store was away: nothing was refused.
        _ => None,
    }
}

impl Letter {
    /// Reads what the publisher was given, as the so-and-so-many-th of its batch.
    pub(super) fn read(message: Outgoing, place: usize) -> Result<Self, Box<Refused>> {
        let Outgoing { token, event_type, address, data } = message;
        let refuse = |error, source: &str, target: &str| {
            let entry = entry(source, target, &event_type, &error);
            Box::new(Refused { token, error, entry })
        };
        let address: Address = serde_json::from_str(&address)
            .map_err(|error| refuse(Error::argument("options", format!("cannot be read: {error}")), "", ""))?;
        let Value::String(source) = address.source else {
            return Err(refuse(Error::argument("source", "must be a project id"), "", ""));
        };
        let target = Target::read(address.target).map_err(|error| refuse(error, &source, ""))?;
        let read = || {
            name::check_event_type(&event_type)?;
            read_options(address.options)
        };
        let (options, version) = read().map_err(|error| refuse(error, &source, &target.shown()))?;
        let data_len = address.characters.unwrap_or(data.len());
        Ok(Self { token, place, source, target, event_type, options, version, data, data_len, own: address.own && token == OWN })
    }
}

fn read_options(mut options: Map<String, Value>) -> Result<(PublishOptions, Option<VersionReq>)> {
    if let Some(key) = options.keys().find(|key| !OPTIONS.contains(&key.as_str())) {
        let shown = shortened(key);
        return Err(Error::argument(
            &format!("options.{shown}"),
            format!("is not an option of a message between projects; known are {}", OPTIONS.join(", ")),
        ));
    }
    let version = match options.remove("contractVersion") {
        None => None,
        Some(Value::String(text)) if VersionReq::parse(&text).is_ok() => VersionReq::parse(&text).ok(),
        Some(_) => return Err(Error::argument("options.contractVersion", "must be a semver version or range, as '^1.2.0'")),
    };
    Ok((PublishOptions::read(&Value::Object(options).to_string())?, version))
}

pub(super) fn refusal(letter: &Letter, error: Error) -> Refused {
    // What the bus says itself is nobody's message.
    let entry = if letter.own { None } else { entry(&letter.source, &letter.target.shown(), &letter.event_type, &error) };
    Refused { token: letter.token, entry, error }
}

/// The record of a refusal.
pub(super) fn entry(source: &str, target: &str, event_type: &str, error: &Error) -> Option<Entry> {
    (!source.is_empty()).then_some(())?;
    Some(Entry {
        source: shortened(source),
        target: shortened(target),
        event_type: shortened(event_type),
        message_id: None,
        outcome: outcome_of(error)?,
        reason: Some(error.to_string()),
        latency_us: None,
        signer: None,
        again: false,
    })
}

#[cfg(test)]
mod tests;
