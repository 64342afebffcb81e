//! Where things live: buckets, partitions with their lanes, places in a stream; and how a type is laid out over them.

use std::sync::Arc;
use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::engine::error::{Code, Error, Result};
use crate::engine::event::Priority;

/// Number of buckets: units of placement. All keys of one partition of a type live in one bucket.
pub const BUCKETS: u8 = 16;

/// One of [`BUCKETS`] units of placement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Bucket(pub u8);

impl Bucket {
    /// All buckets.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..BUCKETS).map(Self)
    }
}

/// One lane of one partition of an event type: a stream of its own. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Partition {
    /// The event type, valid by [`super::name::check_event_type`].
    pub event_type: Arc<str>,
    /// 0 unless the type was created with several partitions.
    pub index: u16,
    /// Priority of its events; those with a `partitionKey` are all in the normal lane.
    pub lane: Priority,
}

/// FNV-1a, its high bits folded in: the low ones mix poorly over short inputs. Part of the layout, never to change.
pub(super) fn fnv(bytes: impl Iterator<Item = u8>) -> u64 {
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    hash ^ (hash >> 32)
}

impl Partition {
    /// The normal lane of partition `index` of `event_type`.
    pub fn new(event_type: impl Into<Arc<str>>, index: u16) -> Self {
        Self { event_type: event_type.into(), index, lane: Priority::Normal }
    }

    /// The same partition's lane for events of this priority.
    #[must_use]
    pub fn in_lane(self, lane: Priority) -> Self {
        Self { lane, ..self }
    }

    /// Where the partition lives, all its lanes together: a hash of type and index, part of the layout.
    pub fn bucket(&self) -> Bucket {
        let hash = fnv(self.event_type.bytes().chain(self.index.to_le_bytes()));
        Bucket(u8::try_from(hash % u64::from(BUCKETS)).expect("a remainder below 16 fits"))
    }
}

/// How events of a type are spread over partitions when they have no `partitionKey`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Partitioning {
    /// There is one partition.
    #[default]
    None,
    /// By their id.
    Hash,
    /// In turn.
    RoundRobin,
}

/// What is noted of an event type, see `createStream`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StreamLayout {
    /// Partitions, 1 or more: it never changes.
    pub partitions: u16,
    /// How events without a key are spread.
    pub partitioning: Partitioning,
    /// Most entries of a partition's lane; `None`: `limits.maxStreamLength`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub length_max: Option<u64>,
    /// Acknowledged entries kept at most; `None`: `limits.keepAcknowledged`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_count: Option<u64>,
    /// How long acknowledged entries are kept, ms; `None`: until their ttl is over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_ms: Option<u64>,
}

impl Default for StreamLayout {
    fn default() -> Self {
        Self { partitions: 1, partitioning: Partitioning::None, length_max: None, keep_count: None, keep_ms: None }
    }
}

impl StreamLayout {
    /// The error of whoever asks for another number of partitions than the type has.
    pub fn other_partitions(event_type: &str, noted: impl fmt::Display, asked: u16) -> Error {
        let message = format!(
            "is {asked}, but '{event_type}' has {noted} since its first event or createStream(): the number stays, because events \
             with the same partitionKey have to stay in one partition. Use {noted}, or a new event type"
        );
        Error::argument("config.partitions", message)
    }

    /// The error of whoever publishes to a stream that is full: it has `limit` entries.
    pub fn full(partition: &Partition, limit: u64) -> Error {
        let message = format!(
            "the stream of '{}' has {limit} events, as many as it may (maxLength of createStream, or limits.maxStreamLength), and not one \
             of them is acknowledged by every group: publish again when consumers have caught up, add consumers, or raise the bound",
            partition.event_type
        );
        Error::new(Code::StreamFull, message).with("eventType", &*partition.event_type).with("limit", limit)
    }

    /// To how many entries a full stream is brought down where acknowledged ones can go, so that `count` more fit: by a
    /// part of it at least, so that it need not be done for each event.
    pub fn length_with_room(length_max: u64, count: u64) -> u64 {
        length_max.saturating_sub(count.max((length_max / 20).clamp(1, 1000)))
    }

    /// The partition of events with this key, part of the layout.
    pub fn partition_of(&self, key: &str) -> u16 {
        u16::try_from(fnv(key.bytes()) % u64::from(self.partitions.max(1))).expect("a remainder below 65536 fits")
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.event_type, self.index)?;
        if self.lane == Priority::Normal { Ok(()) } else { write!(f, ":{}", self.lane.as_str()) }
    }
}

/// Place of an entry in a stream: the server's milliseconds and a sequence number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct EntryId {
    /// Server time, ms since 1970.
    pub ms: u64,
    /// Sequence within the millisecond.
    pub seq: u64,
}

impl EntryId {
    /// The id just before this one; `0-0` stays.
    #[must_use]
    pub fn previous(self) -> Self {
        match (self.ms, self.seq) {
            (0, 0) => self,
            (ms, 0) => Self { ms: ms - 1, seq: u64::MAX },
            (ms, seq) => Self { ms, seq: seq - 1 },
        }
    }

    /// The id just after this one; the greatest one stays.
    #[must_use]
    pub fn next(self) -> Self {
        match (self.ms, self.seq) {
            (u64::MAX, u64::MAX) => self,
            (ms, u64::MAX) => Self { ms: ms + 1, seq: 0 },
            (ms, seq) => Self { ms, seq: seq + 1 },
        }
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.seq)
    }
}

impl FromStr for EntryId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        text.split_once('-')
            .and_then(|(ms, seq)| Some(Self { ms: ms.parse().ok()?, seq: seq.parse().ok()? }))
            .ok_or_else(|| Error::argument("id", format!("'{text}' is not a stream id (<ms>-<seq>)")))
    }
}
