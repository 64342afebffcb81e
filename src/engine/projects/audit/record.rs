//! What stands in a record of the audit log, and what it counts.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::engine::projects::identity::{Signer, sha256_hex};
use crate::engine::store::ChainRecord;

/// Longest reason kept, characters.
const REASON_CHARS_MAX: usize = 500;

/// `AuditOutcome` of the public contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It is in its target's stream.
    Sent,
    /// All handlers of a group succeeded.
    Delivered,
    /// A group gave it up.
    Failed,
    /// Its source may not send it.
    Denied,
    /// Its source has sent too much.
    RateLimited,
    /// Its data is not as it has to be.
    Invalid,
    /// Its signature is missing or wrong.
    Forged,
    /// It was there before, or its time is over.
    Replayed,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Self; 8] =
        [Self::Sent, Self::Delivered, Self::Failed, Self::Denied, Self::RateLimited, Self::Invalid, Self::Forged, Self::Replayed];

    /// As in the public contract.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Delivered => "delivered",
            Self::Failed => "failed",
            Self::Denied => "denied",
            Self::RateLimited => "rate-limited",
            Self::Invalid => "invalid",
            Self::Forged => "forged",
            Self::Replayed => "replayed",
        }
    }
}

/// What is to be recorded.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Who sent it, as far as is known.
    pub source: String,
    /// To whom; `*` or a list where it was refused before its targets were told apart.
    pub target: String,
    /// Its type.
    pub event_type: String,
    /// Its id, once it has one.
    pub message_id: Option<String>,
    /// What became of it.
    pub outcome: Outcome,
    /// Why, or which group.
    pub reason: Option<String>,
    /// From its sending to the end of its handlers, µs.
    pub latency_us: Option<u64>,
    /// Signs the record.
    pub signer: Option<Arc<Signer>>,
    /// It was recorded before: it is not counted once more.
    pub again: bool,
}

/// The text of a record.
#[derive(Debug, Serialize, Deserialize)]
pub struct Text<'a> {
    /// Chain.
    pub chain: &'a str,
    /// Number in it; the first has 1.
    pub n: u64,
    /// Server time, ms since 1970.
    pub at: u64,
    /// See [`Entry::source`].
    #[serde(borrow)]
    pub source: std::borrow::Cow<'a, str>,
    /// See [`Entry::target`].
    #[serde(borrow)]
    pub target: std::borrow::Cow<'a, str>,
    /// Event type.
    #[serde(rename = "type", borrow)]
    pub event_type: std::borrow::Cow<'a, str>,
    /// The message.
    #[serde(skip_serializing_if = "Option::is_none", borrow)]
    pub id: Option<std::borrow::Cow<'a, str>>,
    /// What became of it.
    pub outcome: Outcome,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none", borrow)]
    pub reason: Option<std::borrow::Cow<'a, str>>,
    /// Names the key of its signature.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<&'a str>,
    /// Hash of the record before it; of the first: nothing.
    pub prev: &'a str,
}

/// The record of an entry: number `n` of the chain, behind the one of that hash.
pub fn write(entry: &Entry, chain: &str, n: u64, at_ms: u64, prev: &str) -> ChainRecord {
    let reason = entry.reason.as_deref().map(|reason| match reason.char_indices().nth(REASON_CHARS_MAX) {
        Some((end, _)) => &reason[..end],
        None => reason,
    });
    let text = Text {
        chain,
        n,
        at: at_ms,
        source: entry.source.as_str().into(),
        target: entry.target.as_str().into(),
        event_type: entry.event_type.as_str().into(),
        id: entry.message_id.as_deref().map(Into::into),
        outcome: entry.outcome,
        reason: reason.map(Into::into),
        key: entry.signer.as_ref().map(|signer| signer.key_id()),
        prev,
    };
    let text = serde_json::to_string(&text).expect("texts and numbers always serialize");
    let hash = sha256_hex(text.as_bytes());
    let signature = entry.signer.as_ref().map(|signer| signer.sign_record(&hash));
    ChainRecord { text, hash, signature }
}

/// Reads the text of a record; `None` where it is none.
pub fn read(record: &ChainRecord) -> Option<Text<'_>> {
    serde_json::from_str(&record.text).ok()
}

/// `AuditRecord` with the time as ms.
pub fn to_json(record: &ChainRecord) -> Option<Value> {
    let text = read(record)?;
    let mut out = json!({
        "id": format!("{}:{}", text.chain, text.n), "at": text.at, "sourceProject": text.source, "targetProject": text.target,
        "eventType": text.event_type, "outcome": text.outcome, "hash": record.hash, "chain": text.chain, "sequence": text.n,
        "previousHash": text.prev,
    });
    for (key, value) in [
        ("messageId", text.id.as_deref()),
        ("reason", text.reason.as_deref()),
        ("keyId", text.key),
        ("signature", record.signature.as_deref()),
    ] {
        if let Some(value) = value {
            out[key] = value.into();
        }
    }
    Some(out)
}

/// Counters of a project.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// Messages it sent.
    Sent,
    /// Messages its handlers took.
    Received,
    /// Its messages, or messages to it, that were refused or given up.
    Failed,
    /// Its messages beyond its rate.
    Limited,
    /// Sum of the time from sending to handled, µs, over [`Count::Received`].
    Latency,
}

impl Count {
    /// What its name begins with.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Received => "received",
            Self::Failed => "failed",
            Self::Limited => "limited",
            Self::Latency => "latency",
        }
    }
}

/// The project with which an entry is counted. Of what was found in a stream, that is the target: it need not be of whom it says.
pub fn counts_for(entry: &Entry) -> &str {
    match entry.outcome {
        Outcome::Sent | Outcome::Denied | Outcome::RateLimited => &entry.source,
        // It was not sent; what cannot be read in a stream names no source.
        Outcome::Invalid if entry.message_id.is_none() && !entry.source.is_empty() => &entry.source,
        Outcome::Delivered | Outcome::Failed | Outcome::Forged | Outcome::Replayed | Outcome::Invalid => &entry.target,
    }
}

/// Adds what the entry counts.
pub fn count(entry: &Entry, at_ms: u64, counts: &mut BTreeMap<String, i64>, times: &mut BTreeMap<String, u64>) {
    if entry.again {
        return;
    }
    let project = counts_for(entry);
    let mut add = |what: Count, by: u64| {
        let total = counts.entry(format!("{} {project}", what.prefix())).or_default();
        *total = total.saturating_add(i64::try_from(by).unwrap_or(i64::MAX));
    };
    match entry.outcome {
        Outcome::Sent => add(Count::Sent, 1),
        Outcome::Delivered => {
            add(Count::Received, 1);
            add(Count::Latency, entry.latency_us.unwrap_or(0));
        }
        Outcome::RateLimited => add(Count::Limited, 1),
        Outcome::Failed | Outcome::Forged | Outcome::Replayed | Outcome::Denied | Outcome::Invalid => add(Count::Failed, 1),
    }
    times.insert(project.to_owned(), at_ms);
}
