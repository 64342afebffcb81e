//! Options of publish and subscribe: read from JSON, every key known, every error with its path.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::error::{Error, Result};
use super::event::{Extras, Jitter, Priority, RetryOverride};
use super::filter::Filter;
use super::name;
use super::store::Idempotency;

/// Longest text option, bytes.
const TEXT_BYTES_MAX: usize = 1024;
/// Most tags and headers of one event.
const LABELS_MAX: usize = 100;
/// Longest header value, bytes.
const HEADER_BYTES_MAX: usize = 8192;
/// Longest time a handler or a delay may take: what a JavaScript number holds as whole ms.
const MS_MAX: f64 = 9_007_199_254_740_991.0;
/// Most events of one call of a batch handler.
const BATCH_SIZE_MAX: usize = 10_000;
/// Longest time a batch gathers, ms: an hour.
const BATCH_WAIT_MS_MAX: f64 = 3_600_000.0;
/// How long an acknowledgement is waited for unless told otherwise, ms.
const ACK_TIMEOUT_MS: u64 = 30_000;
/// Days an idempotency key may be remembered.
const DAY_MS: u64 = 86_400_000;

/// `PublishOptions`, complete but for defaults.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PublishOptions {
    /// Seconds; 0 = never expires.
    pub ttl: Option<f64>,
    /// Delay from now, ms.
    pub delay_ms: Option<u64>,
    /// Due at this wall time, ms since 1970.
    pub deliver_at_ms: Option<u64>,
    /// See `idempotencyKey`.
    pub idempotency: Option<Idempotency>,
    /// Its lane, unless it has a partition key; `None`: `defaults.priority`.
    pub priority: Option<Priority>,
    /// What the publisher waits for beyond its storing.
    pub ask: Option<Ask>,
    /// To the subscribers of this moment; nothing is stored.
    pub transient: bool,
    /// Who publishes, instead of `SERVICE_NAME`.
    pub source: Option<String>,
    /// Of the data's shape.
    pub version: Option<String>,
    /// The publisher may give it up while it was not sent.
    pub cancellable: bool,
    /// The rest of the metadata.
    pub extras: Extras,
}

/// What a publisher waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// That a group acknowledges it, for so many ms from the call.
    Acknowledgement(u64),
    /// What a handler answers, for so many ms from the call.
    Reply(u64),
}

/// What becomes of an event whose handler failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ErrorStrategy {
    /// Again, then the dead letter queue.
    #[default]
    Retry,
    /// The dead letter queue at once.
    DeadLetter,
    /// It counts as done.
    Ignore,
}

/// Where a new group starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// With what is kept.
    #[default]
    Beginning,
    /// With what comes.
    Latest,
    /// With this server time, ms since 1970.
    Time(u64),
    /// The same, where the members need not agree on the time: it is for whoever makes the group.
    Since(u64),
}

/// `SubscriptionOptions`, complete but for defaults.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(clippy::struct_excessive_bools)] // the public contract's
pub struct SubscribeOptions {
    /// Consumer group.
    pub group: Option<String>,
    /// Where a new group starts.
    pub start: Start,
    /// Acknowledge when the handler succeeds.
    pub auto_ack: bool,
    /// Most events in flight.
    pub max_unacknowledged: Option<usize>,
    /// ms a handler may take; kept by whoever calls the handler.
    pub consumer_timeout_ms: Option<u64>,
    /// Most handlers at once.
    pub concurrency: Option<usize>,
    /// Higher is called first.
    pub priority: i64,
    /// On failure.
    pub error_strategy: ErrorStrategy,
    /// Retry settings.
    pub retry: RetryOverride,
    /// Which events its handler sees; the others are acknowledged.
    pub filter: Option<Filter>,
    /// Events of one `partitionKey` are handled one at a time, in order.
    pub ordered: bool,
    /// The group ends with its last consumer.
    pub ephemeral: bool,
    /// The handler gets several events at once.
    pub batch: Option<Batch>,
    /// Of messages to a project, those that are not signed are refused.
    pub signed_only: bool,
    /// It is the engine's own: not counted among those of the program, and its beginning and end are not told.
    pub unseen: bool,
}

/// How events are gathered for a handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Most events of one call.
    pub size_max: usize,
    /// How long the first of them waits for others, ms.
    pub wait_ms_max: u64,
}

impl SubscribeOptions {
    /// Options on which all members of a group must agree, as text.
    pub fn of_the_group(&self) -> String {
        let start = match self.start {
            Start::Beginning => "beginning".to_owned(),
            Start::Latest => "latest".to_owned(),
            Start::Time(ms) => ms.to_string(),
            Start::Since(_) => "since".to_owned(),
        };
        let mut options = json!({ "startFrom": start, "autoAck": self.auto_ack });
        if let Some(filter) = &self.filter {
            options["filter"] = json!(filter);
        }
        if self.ordered {
            options["ordered"] = true.into();
        }
        if self.ephemeral {
            options["ephemeral"] = true.into();
        }
        if self.signed_only {
            options["requireSignatureValidation"] = true.into();
        }
        if let Some(batch) = self.batch {
            options["batch"] = json!({ "maxSize": batch.size_max, "maxWaitMs": batch.wait_ms_max });
        }
        options.to_string()
    }
}

/// Keys of an object, taken one by one; what is left over is unknown.
/// The options of a call, each to be asked for by its key and rule.
pub(super) struct Fields {
    map: Map<String, Value>,
    path: &'static str,
}

/// A value as it is told in an error: its beginning.
pub(super) fn shown(value: &Value) -> String {
    if let Some(invalid) = value.get("$invalid").and_then(Value::as_str) {
        return invalid.to_owned();
    }
    let text = value.to_string();
    if text.len() > 60 { format!("{}…", text.chars().take(60).collect::<String>()) } else { text }
}

impl Fields {
    pub(super) fn read(value: Value, path: &'static str) -> Result<Self> {
        match value {
            Value::Object(map) if !map.contains_key("$invalid") => Ok(Self { map, path }),
            other => Err(Error::argument(path, format!("must be an object, got {}", shown(&other)))),
        }
    }

    fn wrong(&self, key: &str, value: &Value, right: &str) -> Error {
        Error::argument(&format!("{}.{key}", self.path), format!("must be {right}, got {}", shown(value)))
    }

    pub(super) fn number(&mut self, key: &str, min: f64, max: f64, whole: bool, right: &str) -> Result<Option<f64>> {
        let Some(value) = self.map.remove(key) else { return Ok(None) };
        match value.as_f64() {
            Some(n) if n >= min && n <= max && (!whole || n.fract() == 0.0) => Ok(Some(n)),
            _ => Err(self.wrong(key, &value, right)),
        }
    }

    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // in range by the check
    fn ms(&mut self, key: &str, min: f64) -> Result<Option<u64>> {
        let right = if min > 0.0 { "a number of milliseconds, at least 1" } else { "a number of milliseconds, 0 or more" };
        Ok(self.number(key, min, MS_MAX, false, right)?.map(|n| n.ceil() as u64))
    }

    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)] // in range by the check
    fn count(&mut self, key: &str, max: usize) -> Result<Option<usize>> {
        let right = format!("a whole number from 1 to {max}");
        Ok(self.number(key, 1.0, max as f64, true, &right)?.map(|n| n as usize))
    }

    fn text(&mut self, key: &str) -> Result<Option<String>> {
        match self.map.remove(key) {
            None => Ok(None),
            Some(Value::String(text)) if !text.is_empty() && text.len() <= TEXT_BYTES_MAX => Ok(Some(text)),
            Some(other) => Err(self.wrong(key, &other, "a string of 1 to 1024 bytes")),
        }
    }

    fn flag(&mut self, key: &str) -> Result<Option<bool>> {
        match self.map.remove(key) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(flag)),
            Some(other) => Err(self.wrong(key, &other, "true or false")),
        }
    }

    pub(super) fn choice<T: Copy>(&mut self, key: &str, choices: &[(&str, T)]) -> Result<Option<T>> {
        let Some(value) = self.map.remove(key) else { return Ok(None) };
        let found = choices.iter().find(|(name, _)| value.as_str() == Some(name));
        if let Some((_, choice)) = found {
            Ok(Some(*choice))
        } else {
            let names: Vec<_> = choices.iter().map(|(name, _)| format!("'{name}'")).collect();
            Err(self.wrong(key, &value, &format!("one of {}", names.join(", "))))
        }
    }

    fn tags(&mut self, key: &str) -> Result<Option<Vec<String>>> {
        let Some(value) = self.map.remove(key) else { return Ok(None) };
        let tags: Option<Vec<String>> = value.as_array().and_then(|items| {
            items.iter().map(|item| item.as_str().filter(|t| t.len() <= TEXT_BYTES_MAX).map(ToOwned::to_owned)).collect()
        });
        match tags {
            Some(tags) if tags.len() <= LABELS_MAX => Ok(Some(tags)),
            _ => Err(self.wrong(key, &value, "an array of at most 100 strings of at most 1024 bytes")),
        }
    }

    fn headers(&mut self, key: &str) -> Result<Option<BTreeMap<String, String>>> {
        let Some(value) = self.map.remove(key) else { return Ok(None) };
        let headers: Option<BTreeMap<String, String>> = value.as_object().filter(|map| !map.contains_key("$invalid")).and_then(|map| {
            map.iter()
                .map(|(name, value)| {
                    let value = value.as_str().filter(|v| v.len() <= HEADER_BYTES_MAX && name.len() <= TEXT_BYTES_MAX)?;
                    Some((name.clone(), value.to_owned()))
                })
                .collect()
        });
        match headers {
            Some(headers) if headers.len() <= LABELS_MAX => Ok(Some(headers)),
            _ => Err(self.wrong(key, &value, "an object of at most 100 strings of at most 8192 bytes")),
        }
    }

    fn retry(&mut self, key: &str) -> Result<Option<RetryOverride>> {
        let Some(value) = self.map.remove(key) else { return Ok(None) };
        let path = match self.path {
            "options" => "options.retry",
            _ => "retry",
        };
        let mut fields = Self::read(value, path)?;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // in range by the check
        let retry = RetryOverride {
            max_attempts: fields.number("maxAttempts", 0.0, 1_000_000.0, true, "a whole number from 0 to 1000000")?.map(|n| n as u32),
            initial_delay: fields.number("initialDelay", 0.0, MS_MAX, false, "a number of milliseconds, 0 or more")?,
            backoff_multiplier: fields.number("backoffMultiplier", 0.0, 1000.0, false, "a number from 0 to 1000")?,
            max_delay: fields.number("maxDelay", 0.0, MS_MAX, false, "a number of milliseconds, 0 or more")?,
            jitter: fields.choice("jitter", &[("none", Jitter::None), ("full", Jitter::Full), ("equal", Jitter::Equal)])?,
        };
        fields.end(&["maxAttempts", "initialDelay", "backoffMultiplier", "maxDelay", "jitter"])?;
        Ok(Some(retry))
    }

    /// `None` also for a filter that everything passes.
    fn filter(&mut self, key: &str) -> Result<Option<Filter>> {
        let Some(value) = self.map.remove(key) else { return Ok(None) };
        let mut fields = Self::read(value, "options.filter")?;
        if let Some(Value::String(source)) = fields.map.get("source") {
            let sources = vec![Value::String(source.clone())];
            fields.map.insert("source".to_owned(), sources.into());
        }
        let filter = Filter {
            source: fields.tags("source")?.unwrap_or_default(),
            tags: fields.tags("tags")?.unwrap_or_default(),
            priority: fields.priorities("priority")?,
            headers: fields.headers("headers")?.unwrap_or_default(),
        };
        fields.end(&["source", "tags", "priority", "headers"])?;
        Ok((filter != Filter::default()).then_some(filter))
    }

    fn priorities(&mut self, key: &str) -> Result<Vec<Priority>> {
        let Some(value) = self.map.remove(key) else { return Ok(Vec::new()) };
        let named = |value: &Value| value.as_str().and_then(Priority::named);
        let priorities: Option<Vec<Priority>> = value.as_array().and_then(|list| list.iter().map(named).collect());
        priorities.ok_or_else(|| self.wrong(key, &value, "an array of 'critical', 'high', 'normal', 'low'"))
    }

    fn batch(&mut self, key: &str) -> Result<Option<Batch>> {
        let Some(value) = self.map.remove(key) else { return Ok(None) };
        let mut fields = Self::read(value, "options.batch")?;
        let Some(size_max) = fields.count("maxSize", BATCH_SIZE_MAX)? else {
            return Err(Error::argument(
                "options.batch.maxSize",
                format!("is missing; it must be a whole number from 1 to {BATCH_SIZE_MAX}"),
            ));
        };
        let right = "a number of milliseconds from 0 to 3600000";
        let wait = fields.number("maxWaitMs", 0.0, BATCH_WAIT_MS_MAX, false, right)?.unwrap_or(0.0);
        fields.end(&["maxSize", "maxWaitMs"])?;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // in range by the check
        Ok(Some(Batch { size_max, wait_ms_max: wait.ceil() as u64 }))
    }

    /// What is waited for; `reply_ms`: it is a request.
    fn ask(&mut self, reply_ms: Option<u64>) -> Result<Option<Ask>> {
        let waits = self.flag("waitForAck")?.unwrap_or(false);
        let ms = self.ms("ackTimeoutMs", 1.0)?;
        match reply_ms {
            Some(_) if waits => Err(Error::argument("options.waitForAck", "has no meaning for request(): its answer says more")),
            Some(_) if ms.is_some() => Err(Error::argument("options.ackTimeoutMs", "is not for request(); give timeoutMs")),
            Some(reply_ms) => Ok(Some(Ask::Reply(reply_ms))),
            None if waits => Ok(Some(Ask::Acknowledgement(ms.unwrap_or(ACK_TIMEOUT_MS)))),
            None if ms.is_some() => Err(Error::argument("options.ackTimeoutMs", "has no meaning without waitForAck: true")),
            None => Ok(None),
        }
    }

    pub(super) fn end(self, known: &[&str]) -> Result<()> {
        match self.map.into_iter().next() {
            None => Ok(()),
            Some((key, _)) => {
                Err(Error::argument(&format!("{}.{key}", self.path), format!("is not an option; known are {}", known.join(", "))))
            }
        }
    }
}

fn parse(text: &str) -> Result<Value> {
    serde_json::from_str(text).map_err(|e| Error::argument("options", format!("cannot be read: {e}")))
}

const PUBLISH_KEYS: [&str; 19] = [
    "ttl",
    "retry",
    "priority",
    "waitForAck",
    "ackTimeoutMs",
    "partitionKey",
    "delayMs",
    "deliverAt",
    "idempotencyKey",
    "idempotencyWindowMs",
    "transient",
    "correlationId",
    "causationId",
    "source",
    "target",
    "version",
    "tags",
    "headers",
    "signal",
];

impl PublishOptions {
    /// From their JSON text; those of a request begin with `?` and its time, ms.
    pub fn read(text: &str) -> Result<Self> {
        let (reply_ms, text) = cut_request(text)?;
        let mut fields = Fields::read(parse(text)?, "options")?;
        let ttl = fields.number("ttl", 0.0, MS_MAX / 1000.0, false, "a number of seconds, 0 (never expires) or more")?;
        let delay_ms = fields.ms("delayMs", 0.0)?;
        let deliver_at_ms = fields.ms("deliverAt", 0.0)?;
        if delay_ms.is_some() && deliver_at_ms.is_some() {
            return Err(Error::argument("options.deliverAt", "stands beside delayMs; give one of them"));
        }
        let key = fields.text("idempotencyKey")?;
        let window = fields.ms("idempotencyWindowMs", 1.0)?;
        if key.is_none() && window.is_some() {
            return Err(Error::argument("options.idempotencyWindowMs", "has no meaning without idempotencyKey"));
        }
        let ask = fields.ask(reply_ms)?;
        let transient = fields.flag("transient")?.unwrap_or(false);
        let mut options = Self {
            ttl,
            delay_ms,
            deliver_at_ms,
            idempotency: key.map(|key| Idempotency { key, window_ms: window.unwrap_or(DAY_MS) }),
            priority: fields.choice("priority", &Priority::ALL.map(|priority| (priority.as_str(), priority)))?,
            ask,
            transient,
            cancellable: fields.flag("signal")?.unwrap_or(false),
            source: fields.text("source")?,
            version: fields.text("version")?,
            extras: Extras {
                target: fields.text("target")?,
                correlation_id: fields.text("correlationId")?,
                causation_id: fields.text("causationId")?,
                partition_key: fields.text("partitionKey")?,
                tags: fields.tags("tags")?,
                headers: fields.headers("headers")?,
                retry: fields.retry("retry")?,
                ..Extras::default()
            },
        };
        fields.end(&PUBLISH_KEYS)?;
        options.check_together()?;
        if let Some(ms) = reply_ms {
            #[allow(clippy::cast_precision_loss)] // in range by the check
            let seconds = ms as f64 / 1000.0;
            options.ttl = Some(seconds);
        }
        Ok(options)
    }

    /// Refuses options that make no sense beside each other.
    fn check_together(&self) -> Result<()> {
        let refuse = |found: &[(&str, bool)], why: &str| match found.iter().find(|(_, is_there)| *is_there) {
            Some((key, _)) => Err(Error::argument(&format!("options.{key}"), why)),
            None => Ok(()),
        };
        let stored = [
            ("ttl", self.ttl.is_some()),
            ("delayMs", self.delay_ms.is_some()),
            ("deliverAt", self.deliver_at_ms.is_some()),
            ("idempotencyKey", self.idempotency.is_some()),
        ];
        match self.ask {
            Some(Ask::Reply(_)) => {
                refuse(&stored, "has no meaning for request(): its event is handled once it is there, and lives for timeoutMs")?;
                refuse(&[("transient", self.transient)], "cannot be asked of request(): its event has to survive until it is answered")
            }
            ask if self.transient => {
                let why = "has no meaning with transient: the event goes to the subscribers of this moment, and nothing is stored";
                refuse(&stored, why)?;
                let rest = [
                    ("waitForAck", ask.is_some()),
                    ("partitionKey", self.extras.partition_key.is_some()),
                    ("retry", self.extras.retry.is_some()),
                ];
                refuse(&rest, why)
            }
            _ => Ok(()),
        }
    }
}

/// The time a request waits, before the options' JSON text: `?<ms>`. JSON text never begins so.
fn cut_request(text: &str) -> Result<(Option<u64>, &str)> {
    let Some(rest) = text.strip_prefix('?') else { return Ok((None, text)) };
    let (ms, options) = rest.split_at(rest.find('{').unwrap_or(rest.len()));
    let ms = ms.parse().ok().filter(|ms| *ms >= 1).ok_or_else(|| Error::internal("the time of a request cannot be read"))?;
    Ok((Some(ms), if options.is_empty() { "{}" } else { options }))
}

const SUBSCRIBE_KEYS: [&str; 15] = [
    "group",
    "startFrom",
    "startTimestamp",
    "autoAck",
    "maxUnacknowledged",
    "consumerTimeout",
    "concurrency",
    "priority",
    "errorStrategy",
    "retry",
    "filter",
    "ordered",
    "ephemeral",
    "batch",
    "signal",
];
/// Most events in flight in one subscription.
const IN_FLIGHT_MAX: usize = 100_000;

/// `startFrom` as it is written.
#[derive(Clone, Copy, PartialEq)]
enum From {
    Beginning,
    Latest,
    Timestamp,
}

impl SubscribeOptions {
    /// From their JSON value.
    pub fn read(value: Value) -> Result<Self> {
        let mut fields = Fields::read(value, "options")?;
        let group = fields.text("group")?;
        if let Some(group) = &group {
            name::check_group(group)?;
        }
        let ephemeral = fields.flag("ephemeral")?.unwrap_or(false);
        let from =
            fields.choice("startFrom", &[("beginning", From::Beginning), ("latest", From::Latest), ("timestamp", From::Timestamp)])?;
        let at = fields.ms("startTimestamp", 0.0)?;
        let start = match (from, at) {
            (Some(From::Timestamp), Some(ms)) => Start::Time(ms),
            (Some(From::Timestamp), None) => {
                return Err(Error::argument("options.startTimestamp", "is missing; startFrom 'timestamp' needs a Date"));
            }
            (_, Some(_)) => return Err(Error::argument("options.startTimestamp", "has no meaning unless startFrom is 'timestamp'")),
            (Some(From::Latest), None) => Start::Latest,
            (None, None) if ephemeral => Start::Latest,
            (Some(From::Beginning) | None, None) => Start::Beginning,
        };
        let batch = fields.batch("batch")?;
        let max_unacknowledged = fields.count("maxUnacknowledged", IN_FLIGHT_MAX)?;
        if let (Some(batch), Some(most)) = (batch, max_unacknowledged)
            && most < batch.size_max
        {
            let message = format!("is {most}, less than batch.maxSize ({}): a batch could never be full", batch.size_max);
            return Err(Error::argument("options.maxUnacknowledged", message));
        }
        #[allow(clippy::cast_possible_truncation)] // in range by the check
        let options = Self {
            group,
            start,
            auto_ack: fields.flag("autoAck")?.unwrap_or(true),
            max_unacknowledged,
            consumer_timeout_ms: fields.ms("consumerTimeout", 1.0)?,
            concurrency: fields.count("concurrency", IN_FLIGHT_MAX)?,
            priority: fields.number("priority", -1e9, 1e9, true, "a whole number; higher is called first")?.map_or(0, |n| n as i64),
            error_strategy: fields
                .choice(
                    "errorStrategy",
                    &[("retry", ErrorStrategy::Retry), ("dlq", ErrorStrategy::DeadLetter), ("ignore", ErrorStrategy::Ignore)],
                )?
                .unwrap_or_default(),
            retry: fields.retry("retry")?.unwrap_or_default(),
            filter: fields.filter("filter")?,
            ordered: fields.flag("ordered")?.unwrap_or(false),
            ephemeral,
            batch,
            signed_only: false,
            unseen: false,
        };
        fields.end(&SUBSCRIBE_KEYS)?;
        Ok(options)
    }

    /// Those of a handler of messages to a project, which has one more.
    pub fn read_of_project(mut value: Value) -> Result<Self> {
        let signed_only = match value.as_object_mut().and_then(|options| options.remove("requireSignatureValidation")) {
            None => false,
            Some(Value::Bool(flag)) => flag,
            Some(other) => {
                let problem = format!("must be true or false, got {}", shown(&other));
                return Err(Error::argument("options.requireSignatureValidation", problem));
            }
        };
        Ok(Self { signed_only, ..Self::read(value)? })
    }
}

/// `nack(options)`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NackOptions {
    /// Instead of the retry settings' delay, ms.
    pub delay_ms: Option<u64>,
    /// To the dead letters at once.
    pub dead_letter: bool,
    /// Kept as the error.
    pub reason: Option<String>,
}

impl NackOptions {
    /// From their JSON value.
    pub fn read(value: Value) -> Result<Self> {
        let mut fields = Fields::read(value, "options")?;
        let options = Self {
            delay_ms: fields.ms("delayMs", 0.0)?,
            dead_letter: fields.flag("deadLetter")?.unwrap_or(false),
            reason: fields.text("reason")?,
        };
        fields.end(&["delayMs", "deadLetter", "reason"])?;
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::engine::error::Code;

    #[test]
    fn right_publish_options_are_read() {
        let options = PublishOptions::read(
            r#"{"ttl":1.5,"delayMs":10,"idempotencyKey":"k","tags":["a"],"headers":{"h":"1"},"retry":{"maxAttempts":0},"priority":"normal","waitForAck":false}"#,
        )
        .unwrap();
        assert_eq!((options.ttl, options.delay_ms), (Some(1.5), Some(10)));
        assert_eq!(options.idempotency, Some(Idempotency { key: "k".into(), window_ms: DAY_MS }));
        assert_eq!(options.extras.retry.unwrap().max_attempts, Some(0));
    }

    #[test]
    fn what_is_waited_for_is_read() {
        let ask = |text| PublishOptions::read(text).unwrap().ask;
        assert_eq!(ask("{}"), None);
        assert_eq!(ask(r#"{"waitForAck":false}"#), None);
        assert_eq!(ask(r#"{"waitForAck":true}"#), Some(Ask::Acknowledgement(30_000)));
        assert_eq!(ask(r#"{"waitForAck":true,"ackTimeoutMs":5}"#), Some(Ask::Acknowledgement(5)));
        assert_eq!(ask("?1500"), Some(Ask::Reply(1500)));
        let request = PublishOptions::read(r#"?1500{"source":"s"}"#).unwrap();
        assert_eq!((request.ask, request.ttl, request.source.as_deref()), (Some(Ask::Reply(1500)), Some(1.5), Some("s")));
        assert_eq!(PublishOptions::read("?x{}").unwrap_err().code, Code::Internal);
    }

    #[test]
    fn wrong_publish_options_name_their_path() {
        for (text, path, code) in [
            (r#"{"ttl":-1}"#, "options.ttl", Code::InvalidArgument),
            (r#"{"ttl":"1"}"#, "options.ttl", Code::InvalidArgument),
            (r#"{"ttl":{"$invalid":"NaN"}}"#, "options.ttl", Code::InvalidArgument),
            (r#"{"delayMs":null}"#, "options.delayMs", Code::InvalidArgument),
            (r#"{"delayMs":1,"deliverAt":2}"#, "options.deliverAt", Code::InvalidArgument),
            (r#"{"tags":"a"}"#, "options.tags", Code::InvalidArgument),
            (r#"{"tags":[1]}"#, "options.tags", Code::InvalidArgument),
            (r#"{"headers":{"a":1}}"#, "options.headers", Code::InvalidArgument),
            (r#"{"headers":[]}"#, "options.headers", Code::InvalidArgument),
            (r#"{"source":""}"#, "options.source", Code::InvalidArgument),
            (r#"{"idempotencyKey":7}"#, "options.idempotencyKey", Code::InvalidArgument),
            (r#"{"idempotencyWindowMs":7}"#, "options.idempotencyWindowMs", Code::InvalidArgument),
            (r#"{"idempotencyKey":"k","idempotencyWindowMs":0}"#, "options.idempotencyWindowMs", Code::InvalidArgument),
            (r#"{"retry":{"maxAttempts":1.5}}"#, "options.retry.maxAttempts", Code::InvalidArgument),
            (r#"{"retry":{"jitter":"some"}}"#, "options.retry.jitter", Code::InvalidArgument),
            (r#"{"retry":{"tries":1}}"#, "options.retry.tries", Code::InvalidArgument),
            (r#"{"retry":3}"#, "options.retry", Code::InvalidArgument),
            (r#"{"priority":"urgent"}"#, "options.priority", Code::InvalidArgument),
            (r#"{"waitForAck":1}"#, "options.waitForAck", Code::InvalidArgument),
            (r#"{"ackTimeoutMs":5}"#, "options.ackTimeoutMs", Code::InvalidArgument),
            (r#"{"waitForAck":false,"ackTimeoutMs":5}"#, "options.ackTimeoutMs", Code::InvalidArgument),
            (r#"{"waitForAck":true,"ackTimeoutMs":0}"#, "options.ackTimeoutMs", Code::InvalidArgument),
            (r#"{"transient":"yes"}"#, "options.transient", Code::InvalidArgument),
            (r#"{"transient":true,"delayMs":1}"#, "options.delayMs", Code::InvalidArgument),
            (r#"{"transient":true,"deliverAt":1}"#, "options.deliverAt", Code::InvalidArgument),
            (r#"{"transient":true,"idempotencyKey":"k"}"#, "options.idempotencyKey", Code::InvalidArgument),
            (r#"{"transient":true,"waitForAck":true}"#, "options.waitForAck", Code::InvalidArgument),
            (r#"{"transient":true,"partitionKey":"k"}"#, "options.partitionKey", Code::InvalidArgument),
            (r#"{"transient":true,"ttl":5}"#, "options.ttl", Code::InvalidArgument),
            (r#"{"transient":true,"retry":{"maxAttempts":1}}"#, "options.retry", Code::InvalidArgument),
            (r#"?5{"ttl":1}"#, "options.ttl", Code::InvalidArgument),
            (r#"?5{"delayMs":1}"#, "options.delayMs", Code::InvalidArgument),
            (r#"?5{"deliverAt":1}"#, "options.deliverAt", Code::InvalidArgument),
            (r#"?5{"idempotencyKey":"k"}"#, "options.idempotencyKey", Code::InvalidArgument),
            (r#"?5{"waitForAck":true}"#, "options.waitForAck", Code::InvalidArgument),
            (r#"?5{"ackTimeoutMs":1}"#, "options.ackTimeoutMs", Code::InvalidArgument),
            (r#"?5{"transient":true}"#, "options.transient", Code::InvalidArgument),
            (r#"?5{"timeoutMs":1}"#, "options.timeoutMs", Code::InvalidArgument),
            (r#"{"toString":1}"#, "options.toString", Code::InvalidArgument),
            ("[]", "options", Code::InvalidArgument),
            ("7", "options", Code::InvalidArgument),
        ] {
            let error = PublishOptions::read(text).unwrap_err();
            assert_eq!((error.details["argument"].as_str(), error.code), (Some(path), code), "{text}");
        }
    }

    #[test]
    fn wrong_subscribe_options_name_their_path() {
        for (value, path) in [
            (json!({"group": ""}), "options.group"),
            (json!({"group": "a b"}), "group"),
            (json!({"startFrom": "end"}), "options.startFrom"),
            (json!({"startFrom": "timestamp"}), "options.startTimestamp"),
            (json!({"startTimestamp": 5}), "options.startTimestamp"),
            (json!({"autoAck": 1}), "options.autoAck"),
            (json!({"maxUnacknowledged": 0}), "options.maxUnacknowledged"),
            (json!({"maxUnacknowledged": 1.5}), "options.maxUnacknowledged"),
            (json!({"consumerTimeout": 0}), "options.consumerTimeout"),
            (json!({"concurrency": -1}), "options.concurrency"),
            (json!({"priority": 0.5}), "options.priority"),
            (json!({"errorStrategy": "panic"}), "options.errorStrategy"),
            (json!({"retry": {"maxDelay": -1}}), "options.retry.maxDelay"),
            (json!({"qos": 1}), "options.qos"),
            (json!({"filter": "a"}), "options.filter"),
            (json!({"filter": {"tags": "a"}}), "options.filter.tags"),
            (json!({"filter": {"source": 1}}), "options.filter.source"),
            (json!({"filter": {"priority": ["urgent"]}}), "options.filter.priority"),
            (json!({"filter": {"headers": {"a": 1}}}), "options.filter.headers"),
            (json!({"filter": {"type": "a"}}), "options.filter.type"),
            (json!({"ordered": "yes"}), "options.ordered"),
            (json!({"ephemeral": 1}), "options.ephemeral"),
            (json!({"batch": 10}), "options.batch"),
            (json!({"batch": {}}), "options.batch.maxSize"),
            (json!({"batch": {"maxSize": 0}}), "options.batch.maxSize"),
            (json!({"batch": {"maxSize": 5, "maxWaitMs": -1}}), "options.batch.maxWaitMs"),
            (json!({"batch": {"maxSize": 5, "size": 1}}), "options.batch.size"),
            (json!({"batch": {"maxSize": 5}, "maxUnacknowledged": 4}), "options.maxUnacknowledged"),
        ] {
            let error = SubscribeOptions::read(value.clone()).unwrap_err();
            assert_eq!(error.details["argument"], path, "{value}");
        }
        assert!(SubscribeOptions::read(json!({})).unwrap().auto_ack);
    }

    #[test]
    fn options_of_the_group_name_what_its_members_must_agree_on() {
        let of = |value| SubscribeOptions::read(value).unwrap().of_the_group();
        assert_eq!(of(json!({})), r#"{"startFrom":"beginning","autoAck":true}"#);
        assert_eq!(of(json!({"filter": {}, "ordered": false, "concurrency": 3})), of(json!({})));
        assert_eq!(of(json!({"ephemeral": true})), r#"{"startFrom":"latest","autoAck":true,"ephemeral":true}"#);
        assert_eq!(
            of(json!({"filter": {"source": "a", "priority": ["low"], "headers": {"h": "1"}}, "ordered": true, "batch": {"maxSize": 3}})),
            concat!(
                r#"{"startFrom":"beginning","autoAck":true,"filter":{"source":["a"],"priority":["low"],"headers":{"h":"1"}},"#,
                r#""ordered":true,"batch":{"maxSize":3,"maxWaitMs":0}}"#
            )
        );
    }
}
