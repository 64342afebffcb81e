//! `defaults`: what an event has unless its publisher says otherwise.

use serde_json::{Value, json};

use super::bounds;
use super::env::EVENTBUS_DEFAULT_TTL;
use super::reader::Section;
use crate::engine::error::{Error, Result};
use crate::engine::event::{Jitter, Priority};
use crate::engine::retry::RetryPolicy;

const PRIORITIES: [(&str, Priority); 4] =
    [("critical", Priority::Critical), ("high", Priority::High), ("normal", Priority::Normal), ("low", Priority::Low)];
const JITTERS: [(&str, Jitter); 3] = [("none", Jitter::None), ("full", Jitter::Full), ("equal", Jitter::Equal)];
const RETRY_KEYS: [&str; 5] = ["maxAttempts", "initialDelay", "backoffMultiplier", "maxDelay", "jitter"];

/// `defaults`.
#[derive(Clone, Debug, PartialEq)]
pub struct Defaults {
    /// Life of an event, seconds; 0 = never expires.
    pub ttl_s: f64,
    /// When failed deliveries are tried again.
    pub retry: RetryPolicy,
    /// Priority.
    pub priority: Priority,
}

impl Defaults {
    pub(super) fn read(parent: &Section<'_>) -> Result<Self> {
        let section = parent.child("defaults", &["ttl", "retry", "priority"])?;
        let priority = section.argument("priority").map(|found| found.one_of(&PRIORITIES)).transpose()?;
        Ok(Self {
            ttl_s: section.number(("ttl", EVENTBUS_DEFAULT_TTL), &bounds::TTL, 3_600.0)?,
            retry: read_retry(&section)?,
            priority: priority.unwrap_or_default(),
        })
    }

    pub(super) fn to_json(&self) -> Value {
        let jitter = JITTERS.iter().find(|(_, jitter)| *jitter == self.retry.jitter).map(|(name, _)| *name);
        json!({
            "ttl": number(self.ttl_s),
            "retry": {
                "maxAttempts": self.retry.max_attempts,
                "initialDelay": number(self.retry.initial_delay_ms),
                "backoffMultiplier": number(self.retry.backoff_multiplier),
                "maxDelay": number(self.retry.delay_ms_max),
                "jitter": jitter,
            },
            "priority": self.priority.as_str(),
        })
    }
}

fn read_retry(parent: &Section<'_>) -> Result<RetryPolicy> {
    let section = parent.child("retry", &RETRY_KEYS)?;
    let delay = |key: &'static str| section.argument(key).map(|found| found.number(&bounds::RETRY_DELAY)).transpose();
    // One of the two given alone moves the default of the other; only given ones contradict.
    let (initial_delay_ms, delay_ms_max) = match (delay("initialDelay")?, delay("maxDelay")?) {
        (Some(initial), Some(max)) if initial > max => {
            let problem = format!("is {initial} ms, more than maxDelay, {max} ms");
            return Err(Error::config(&section.at("initialDelay"), problem));
        }
        (Some(initial), max) => (initial, max.unwrap_or_else(|| initial.max(30_000.0))),
        (None, max) => (max.unwrap_or(1_000.0).min(1_000.0), max.unwrap_or(30_000.0)),
    };
    let jitter = section.argument("jitter").map(|found| found.one_of(&JITTERS)).transpose()?;
    Ok(RetryPolicy {
        max_attempts: section.whole("maxAttempts", &bounds::RETRY_ATTEMPTS, 3)?,
        initial_delay_ms,
        backoff_multiplier: section.number("backoffMultiplier", &bounds::RETRY_MULTIPLIER, 2.0)?,
        delay_ms_max,
        jitter: jitter.unwrap_or_default(),
    })
}

/// JSON of a number that is not negative: without `.0` where it is whole.
pub(super) fn number(value: f64) -> Value {
    if value.fract() == 0.0 && value < 9e15 {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // whole, not negative, below 2^53
        return json!(value as u64);
    }
    json!(value)
}
