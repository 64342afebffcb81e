//! The packed metadata of an entry: one line of JSON, readable in redis-cli, written without a serializer on the
//! hot path and read without copies.
//!
//! `{"v":1,"id":…,"timestamp":<ms>,"source":…,"version":…,"priority":…}` and, where given, `ttl` (seconds, chosen by
//! the publisher) or `dttl` (the publisher's default), `target`, `correlationId`, `causationId`, `partitionKey`,
//! `tags`, `headers`, `retry`; for the bus alone `due`, `ackTo`, `replyTo`, `message`, and as the last one `sig`, the signature of
//! a message between projects. The others are those of `EventMetadata`; the type is the stream's.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write;

use serde::{Deserialize, Serialize};

use super::error::{Error, Result};

/// Version of the packed form.
pub const META_VERSION: u8 = 1;

/// Longest part of an error that says why metadata cannot be read.
const ERROR_CHARS_MAX: usize = 200;

/// `EventPriority`, the most urgent first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// Before everything else.
    Critical,
    /// Before normal.
    High,
    /// The default.
    #[default]
    Normal,
    /// After the others, with a share kept.
    Low,
}

impl Priority {
    /// All of them, the most urgent first.
    pub const ALL: [Self; 4] = [Self::Critical, Self::High, Self::Normal, Self::Low];

    /// The priority that [`Priority::as_str`] names.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|priority| priority.as_str() == name)
    }

    /// As in the public contract.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::High => "high",
            Self::Normal => "normal",
            Self::Low => "low",
        }
    }
}

/// How jitter spreads retries: none, over all of the delay, or over its second half.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Jitter {
    /// The delay as it is.
    None,
    /// 0 to the delay.
    Full,
    /// Half the delay to the delay.
    #[default]
    Equal,
}

/// `Partial<EventRetryConfig>`: what is absent is decided by the next level.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RetryOverride {
    /// Deliveries after the first one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_attempts: Option<u32>,
    /// ms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub initial_delay: Option<f64>,
    /// Factor from one delay to the next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backoff_multiplier: Option<f64>,
    /// ms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_delay: Option<f64>,
    /// Spread.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jitter: Option<Jitter>,
}

/// Everything of the metadata that most events do not have.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Extras {
    /// For whom.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Groups events of one matter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<String>,
    /// The event that led to this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub causation_id: Option<String>,
    /// Same key, same partition.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partition_key: Option<String>,
    /// Free labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tags: Option<Vec<String>>,
    /// Free headers; trace context too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub headers: Option<BTreeMap<String, String>>,
    /// Retry settings of this event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry: Option<RetryOverride>,
    /// When it is due, ms since 1970, where it was published for later.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub due: Option<u64>,
    /// Inbox that waits for the acknowledgement.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ack_to: Option<String>,
    /// Inbox that waits for what the handler answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<String>,
    /// Of a message between projects.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<MessageMeta>,
}

/// What the metadata of a message between projects say beside those of an event, whose `source` and `target` name the projects.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MessageMeta {
    /// Namespace of the source.
    pub from: String,
    /// Namespace of the target.
    pub to: String,
    /// Contracts that the data was checked against, `<name>@<version>`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub contracts: Vec<String>,
    /// Route that brought it, where it was not sent to this target.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    /// Names the key of its signature.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_id: Option<String>,
}

impl Extras {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What [`pack`] writes.
#[derive(Clone, Debug)]
pub struct NewMeta<'a> {
    /// `UUIDv7`.
    pub id: &'a str,
    /// ms since 1970.
    pub timestamp_ms: u64,
    /// Publisher.
    pub source: &'a str,
    /// Of the data's shape.
    pub version: &'a str,
    /// Its priority.
    pub priority: Priority,
    /// Seconds; 0 = never expires.
    pub ttl: f64,
    /// Whether the publisher named the ttl for this event.
    pub ttl_given: bool,
    /// The rest.
    pub extras: Option<&'a Extras>,
}

/// Writes the packed form.
pub fn pack(meta: &NewMeta<'_>) -> String {
    pack_with(meta.id, meta.timestamp_ms, &pack_tail(meta))
}

/// The packed form from the id, the time, and what [`pack_tail`] made of the rest: most events of a publisher share it.
pub fn pack_with(id: &str, timestamp_ms: u64, tail: &str) -> String {
    let mut out = String::with_capacity(80 + tail.len());
    let _ = write!(out, r#"{{"v":{META_VERSION},"id":"{id}","timestamp":{timestamp_ms},"source":"#);
    out.push_str(tail);
    out
}

/// The packed form from the source on.
pub fn pack_tail(meta: &NewMeta<'_>) -> String {
    let mut out = String::with_capacity(80 + meta.source.len());
    push_json_string(&mut out, meta.source);
    out.push_str(r#","version":"#);
    push_json_string(&mut out, meta.version);
    let _ = write!(out, r#","priority":"{}""#, meta.priority.as_str());
    let _ = write!(out, r#","{}":{}"#, if meta.ttl_given { "ttl" } else { "dttl" }, meta.ttl);
    if let Some(extras) = meta.extras.filter(|extras| !extras.is_empty()) {
        let text = serde_json::to_string(extras).expect("maps with string keys always serialize");
        out.push(',');
        out.push_str(&text[1..text.len() - 1]);
    }
    out.push('}');
    out
}

/// Length of an Ed25519 signature as base64url without padding.
const SIGNATURE_CHARS: usize = 86;
const SIGNATURE_KEY: &str = r#","sig":""#;

/// Packed metadata with their signature behind them.
pub fn with_signature(meta: &str, signature: &str) -> String {
    debug_assert!(signature.len() == SIGNATURE_CHARS && meta.ends_with('}'));
    format!("{}{SIGNATURE_KEY}{signature}\"}}", &meta[..meta.len() - 1])
}

/// Takes the signature from signed metadata: what was signed, without its closing brace, and the signature.
pub fn cut_signature(meta: &str) -> Option<(&str, &str)> {
    let rest = meta.strip_suffix("\"}")?;
    let (signed, signature) = rest.split_at_checked(rest.len().checked_sub(SIGNATURE_CHARS)?)?;
    Some((signed.strip_suffix(SIGNATURE_KEY)?, signature))
}

/// `"text"`, by the plain copy when nothing needs escaping.
fn push_json_string(out: &mut String, text: &str) {
    if text.bytes().all(|b| b >= 0x20 && b != b'"' && b != b'\\') {
        out.push('"');
        out.push_str(text);
        out.push('"');
    } else {
        out.push_str(&serde_json::to_string(text).expect("a string always serializes"));
    }
}

/// What the engine reads of the packed form on delivery. The rest goes to JavaScript as text.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MetaView<'a> {
    v: u8,
    /// The event's id.
    #[serde(borrow)]
    pub id: Cow<'a, str>,
    /// Publisher.
    #[serde(borrow)]
    pub source: Cow<'a, str>,
    /// ms since 1970.
    pub timestamp: u64,
    /// Its priority.
    #[serde(default)]
    pub priority: Priority,
    /// Same key, same partition.
    #[serde(borrow, default)]
    pub partition_key: Option<Cow<'a, str>>,
    ttl: Option<f64>,
    dttl: Option<f64>,
    /// Retry settings of this event.
    pub retry: Option<RetryOverride>,
    ack_to: Option<String>,
    reply_to: Option<String>,
}

/// Who waits for what becomes of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The event's id.
    pub event_id: String,
    /// Inbox that waits for the acknowledgement.
    pub ack_to: Option<String>,
    /// Inbox that waits for what the handler answers.
    pub reply_to: Option<String>,
}

impl<'a> MetaView<'a> {
    /// Reads packed metadata; the error says why the entry is not an event of this bus.
    pub fn read(meta: &'a [u8]) -> Result<Self> {
        // Anything else of as many values would be read as one.
        if meta.first() != Some(&b'{') {
            return Err(Error::argument("meta", "not the metadata of an event: no JSON object"));
        }
        let view: Self = serde_json::from_slice(meta).map_err(|error| {
            // It may repeat a text of any length that somebody wrote; the error is kept with the dead letter.
            let why: String = error.to_string().chars().take(ERROR_CHARS_MAX).collect();
            Error::argument("meta", format!("not the metadata of an event: {why}"))
        })?;
        if view.v != META_VERSION {
            return Err(Error::argument("meta", format!("version {} is not known; this process reads {META_VERSION}", view.v)));
        }
        Ok(view)
    }

    /// Life in ms; `None`: never expires.
    pub fn ttl_ms(&self) -> Option<u64> {
        self.ttl.or(self.dttl).and_then(seconds_to_ms)
    }

    /// Whether the metadata says anything of a ttl; if not, the store's default holds.
    pub fn names_ttl(&self) -> bool {
        self.ttl.or(self.dttl).is_some()
    }

    /// Who waits for what becomes of it.
    pub fn asked(&self) -> Option<Asked> {
        let (ack_to, reply_to) = (self.ack_to.clone(), self.reply_to.clone());
        (ack_to.is_some() || reply_to.is_some()).then(|| Asked { event_id: self.id.to_string(), ack_to, reply_to })
    }

    /// Whether the publisher named the ttl for this event.
    pub fn ttl_given(&self) -> bool {
        self.ttl.is_some()
    }
}

/// Seconds as ms; 0 and less mean "never" and are `None`.
pub fn seconds_to_ms(seconds: f64) -> Option<u64> {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // the cast saturates
    (seconds > 0.0).then(|| (seconds * 1000.0).ceil() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain<'a>() -> NewMeta<'a> {
        NewMeta {
            id: "0190-x",
            timestamp_ms: 5,
            source: "svc",
            version: "1.0.0",
            priority: Priority::Normal,
            ttl: 3600.0,
            ttl_given: false,
            extras: None,
        }
    }

    #[test]
    fn what_is_packed_is_read_back() {
        let extras = Extras {
            tags: Some(vec!["a\"b".into()]),
            retry: Some(RetryOverride { max_attempts: Some(0), ..RetryOverride::default() }),
            ..Extras::default()
        };
        let text = pack(&NewMeta { source: "a\"\n\\b", ttl: 1.5, ttl_given: true, extras: Some(&extras), ..plain() });
        let view = MetaView::read(text.as_bytes()).unwrap();
        assert_eq!((view.id.as_ref(), view.source.as_ref()), ("0190-x", "a\"\n\\b"));
        assert_eq!((view.ttl_ms(), view.ttl_given()), (Some(1500), true));
        assert_eq!(view.retry, extras.retry);
        let all: Extras = serde_json::from_str(&text).unwrap();
        assert_eq!(all.tags, extras.tags);
    }

    #[test]
    fn the_default_ttl_is_told_apart_and_zero_means_never() {
        let text = pack(&plain());
        let view = MetaView::read(text.as_bytes()).unwrap();
        assert_eq!((view.ttl_ms(), view.ttl_given()), (Some(3_600_000), false));
        let text = pack(&NewMeta { ttl: 0.0, ttl_given: true, ..plain() });
        assert_eq!(MetaView::read(text.as_bytes()).unwrap().ttl_ms(), None);
    }

    #[test]
    fn a_signature_is_the_last_key_and_nothing_else_is_taken_for_one() {
        let (plain, signature) = (pack(&plain()), "s".repeat(SIGNATURE_CHARS));
        let signed = with_signature(&plain, &signature);
        assert!(serde_json::from_str::<serde_json::Value>(&signed).is_ok_and(|meta| meta["sig"] == *signature));
        assert_eq!(cut_signature(&signed), Some((&plain[..plain.len() - 1], signature.as_str())));
        assert!(MetaView::read(signed.as_bytes()).is_ok());
        for other in [plain.clone(), signed.replace('}', ",\"a\":1}"), signed.replace("sig", "sign"), format!("é{}\"}}", "s".repeat(85))] {
            assert_eq!(cut_signature(&other), None, "{other}");
        }
    }

    #[test]
    fn an_error_repeats_no_long_text_of_others() {
        let text = format!("\"{}\"", "x".repeat(1_000_000));
        assert!(MetaView::read(text.as_bytes()).unwrap_err().message.len() < 300);
    }

    #[test]
    fn foreign_metadata_is_refused_not_fatal() {
        for text in [
            "",
            "null",
            "[]",
            "{",
            r#"{"v":2,"id":"a","source":"b","timestamp":1}"#,
            r#"{"v":1}"#,
            "\u{0}\u{1}",
            r#"[1,"id","src",5,"normal",null,null,3600,null,null,null]"#,
        ] {
            assert!(MetaView::read(text.as_bytes()).is_err(), "{text:?}");
        }
    }
}
