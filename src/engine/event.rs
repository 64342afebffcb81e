//! The packed metadata of an entry: one line of JSON, readable in redis-cli, written without a serializer on the
//! hot path and read without copies.
//!
//! `{"v":1,"id":…,"timestamp":<ms>,"source":…,"version":…,"priority":…}` and, where given, `ttl` (seconds, chosen by
//! the publisher) or `dttl` (the publisher's default), `target`, `correlationId`, `causationId`, `partitionKey`,
//! `tags`, `headers`, `retry`; for the bus alone `due`, `ackTo`, `replyTo`, `message`, and as the last one `sig`, the signature of
//! a message between projects. The others are those of `EventMetadata`; the type is the stream's.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::ops::Deref;

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

/// An event's id. That of most is kept in place: one is made for every event that is delivered.
#[derive(Clone)]
pub enum EventId {
    /// ASCII of the usual length.
    Usual([u8; ID_CHARS]),
    /// Any other.
    Other(Box<str>),
}

impl From<&str> for EventId {
    fn from(id: &str) -> Self {
        match id.as_bytes().try_into() {
            Ok(usual) => Self::Usual(usual),
            Err(_) => Self::Other(id.into()),
        }
    }
}

impl Default for EventId {
    fn default() -> Self {
        Self::from("")
    }
}

impl Deref for EventId {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            // Made of text.
            Self::Usual(id) => str::from_utf8(id).unwrap_or_default(),
            Self::Other(id) => id,
        }
    }
}

impl fmt::Debug for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

/// Characters of the ids that this bus gives.
const ID_CHARS: usize = 36;
const ID_START: usize = HEAD.len();
const ID_END: usize = ID_START + ID_CHARS;
const TIME_START: usize = ID_END + TIME.len();
/// For some centuries.
const TIME_CHARS: usize = 13;
const TIME_END: usize = TIME_START + TIME_CHARS;
const HEAD: &[u8] = br#"{"v":1,"id":""#;
const TIME: &[u8] = br#"","timestamp":"#;

/// Packed metadata cut by position, as [`pack_with`] writes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut<'a> {
    /// The event's id.
    pub id: &'a str,
    /// ms since 1970.
    pub timestamp_ms: u64,
    /// All behind the time, with its comma: most events of a publisher share it.
    pub tail: &'a str,
}

/// Cuts packed metadata with an id and a time of the usual length. It looks at nothing else: the rest may be anything.
pub fn cut(meta: &str) -> Option<Cut<'_>> {
    let bytes = meta.as_bytes();
    let is_plain = |b: &u8| (0x20..0x7f).contains(b) && *b != b'"' && *b != b'\\';
    let is_cut = bytes.len() > TIME_END
        && bytes.starts_with(HEAD)
        && bytes[ID_END..TIME_START] == *TIME
        && bytes[TIME_END] == b','
        && bytes[TIME_START] != b'0'
        && bytes[ID_START..ID_END].iter().all(is_plain);
    if !is_cut {
        return None;
    }
    let timestamp_ms = bytes[TIME_START..TIME_END]
        .iter()
        .try_fold(0, |number, digit| digit.is_ascii_digit().then(|| number * 10 + u64::from(digit - b'0')))?;
    Some(Cut { id: &meta[ID_START..ID_END], timestamp_ms, tail: &meta[TIME_END..] })
}

/// What most metadata say for delivery: an id, perhaps a ttl, and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Glance<'a> {
    /// The event's id.
    pub id: &'a str,
    /// Life in ms; `None`: never expires.
    pub ttl_ms: Option<u64>,
    /// Whether the publisher named the ttl for this event.
    pub ttl_given: bool,
}

/// Tails of metadata that were read, so that the next ones like them need not be: the same text means the same behind another id
/// and another time.
#[derive(Default)]
pub struct Tails {
    known: Vec<Tail>,
    /// Which one makes room next.
    oldest: usize,
}

struct Tail {
    text: Box<str>,
    ttl_ms: Option<u64>,
    ttl_given: bool,
}

/// Most tails known, and the longest one, bytes: those with headers, a signature or tags of their own are longer, and come once.
const TAILS_MAX: usize = 16;
const TAIL_BYTES_MAX: usize = 256;

impl Tails {
    /// What the metadata say, if their tail is known.
    pub fn glance<'a>(&self, meta: &'a str) -> Option<Glance<'a>> {
        let Cut { id, tail, .. } = cut(meta)?;
        let known = self.known.iter().find(|known| *known.text == *tail)?;
        Some(Glance { id, ttl_ms: known.ttl_ms, ttl_given: known.ttl_given })
    }

    /// Remembers the tail of metadata that say `view`, if that is nothing beside what a [`Glance`] tells.
    pub fn learn(&mut self, meta: &str, view: &MetaView<'_>) {
        let says_more = view.partition_key.is_some() || view.retry.is_some() || view.ack_to.is_some() || view.reply_to.is_some();
        let Some(Cut { tail, .. }) = cut(meta).filter(|cut| !says_more && cut.tail.len() <= TAIL_BYTES_MAX) else { return };
        let tail = Tail { text: tail.into(), ttl_ms: view.ttl_ms(), ttl_given: view.ttl_given() };
        if self.known.len() < TAILS_MAX {
            self.known.push(tail);
        } else {
            self.known[self.oldest] = tail;
            self.oldest = (self.oldest + 1) % TAILS_MAX;
        }
    }
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
    use proptest::prelude::*;

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

    /// Metadata as this bus writes them and close to it: what a position, a key or a number less would mean is read by serde.
    fn near_metadata() -> impl Strategy<Value = String> {
        let head = prop_oneof![4 => Just(r#"{"v":1,"id":""#), 1 => Just(r#"{"v":2,"id":""#), 1 => Just(r#"{ "v":1,"id":""#)];
        let id = prop_oneof![4 => "[0-9a-f-]{36}", 1 => "[ -~]{36}", 1 => ".{34,37}", 1 => r#"[\\"u0-9]{36}"#];
        let time = prop_oneof![4 => "[1-9][0-9]{12}", 1 => "[0-9-]{12,15}", 1 => "[0-9]{11}[.e][0-9]", 1 => "[0-9]{19,21}"];
        let part = prop_oneof![
            8 => Just(r#","source":"svc""#),
            4 => Just(r#","priority":"high""#),
            2 => Just(r#","dttl":3600"#),
            2 => Just(r#","ttl":1.5"#),
            1 => Just(r#","ttl":null"#),
            1 => Just(r#","ttl":-1"#),
            1 => Just(r#","partitionKey":"k""#),
            1 => Just(r#","ackTo":"a""#),
            1 => Just(r#","replyTo":"r""#),
            1 => Just(r#","retry":{"maxAttempts":1}"#),
            1 => Just(r#","id":"x""#),
            1 => Just(r#","timestamp":1"#),
            1 => Just(r#","tags":["a"]"#),
            1 => Just(r#","x":"\u12"#),
            1 => Just(r#"5,"source":"s""#),
        ];
        let end = prop_oneof![6 => Just("}"), 1 => Just(""), 1 => Just("}}"), 1 => Just(" }\n")];
        let rest = (proptest::collection::vec(part, 0..4), end).prop_map(|(parts, end)| parts.concat() + end);
        (head, id, prop_oneof![8 => Just(r#"","timestamp":"#), 1 => Just(r#"", "timestamp":"#)], time, rest)
            .prop_map(|(head, id, name, time, rest)| format!("{head}{id}{name}{time}{rest}"))
    }

    proptest! {
        #![proptest_config(proptest::test_runner::Config { failure_persistence: None, cases: 2000, ..proptest::test_runner::Config::default() })]

        #[test]
        fn a_glance_says_what_reading_says(texts in proptest::collection::vec(near_metadata(), 1..40)) {
            let mut tails = Tails::default();
            // Each text is looked at when others were read before it, and once more with another id and time.
            let again = texts.iter().filter_map(|text| Some(format!(r#"{{"v":1,"id":"{}","timestamp":1{:012}{}"#, "f".repeat(36), 7, cut(text)?.tail)));
            for text in texts.iter().cloned().chain(again.collect::<Vec<_>>()) {
                let read = MetaView::read(text.as_bytes());
                if let Some(glance) = tails.glance(&text) {
                    let view = read.as_ref().expect("a text that can be read");
                    prop_assert_eq!(glance, Glance { id: &view.id, ttl_ms: view.ttl_ms(), ttl_given: view.ttl_given() });
                    prop_assert!(view.partition_key.is_none() && view.retry.is_none() && view.asked().is_none());
                    prop_assert_eq!(cut(&text).map(|cut| cut.timestamp_ms), Some(view.timestamp));
                }
                if let Ok(view) = &read {
                    tails.learn(&text, view);
                    let says_more = view.partition_key.is_some() || view.retry.is_some() || view.asked().is_some();
                    prop_assert_eq!(tails.glance(&text).is_some(), cut(&text).is_some() && !says_more);
                }
            }
        }
    }

    #[test]
    fn what_is_packed_is_known_at_a_glance_the_second_time() {
        let (first, second) = ("1".repeat(ID_CHARS), "2".repeat(ID_CHARS));
        let text = |id: &str, ms| pack_with(id, ms, &pack_tail(&plain()));
        let mut tails = Tails::default();
        let text_of_first = text(&first, 1_700_000_000_000);
        assert_eq!(tails.glance(&text_of_first), None);
        tails.learn(&text_of_first, &MetaView::read(text_of_first.as_bytes()).unwrap());
        let text_of_second = text(&second, 1_800_000_000_000);
        assert_eq!(tails.glance(&text_of_second), Some(Glance { id: &second, ttl_ms: Some(3_600_000), ttl_given: false }));
        for n in 0..TAILS_MAX {
            let other = pack_with(&first, 1_700_000_000_000, &pack_tail(&NewMeta { source: &n.to_string(), ..plain() }));
            tails.learn(&other, &MetaView::read(other.as_bytes()).unwrap());
        }
        assert_eq!(tails.known.len(), TAILS_MAX);
        assert_eq!(tails.glance(&text_of_second), None, "it made room");
    }

    #[test]
    fn ids_are_kept_whatever_they_are() {
        for id in ["", "a", &"é".repeat(18), &"x".repeat(36), &"y".repeat(37)] {
            assert_eq!(&*EventId::from(id), id);
        }
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
