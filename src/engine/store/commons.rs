//! What processes share beside events: documents that say who is who, limits that hold for all of them together, and the
//! records of what was done.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use async_trait::async_trait;

use super::place::fnv;
use super::{BUCKETS, Bucket, EntryId};
use crate::engine::error::{Error, Result};

/// Records that one call of [`Commons::trim_records`] removes, and chains that it forgets, at most.
pub(super) const TRIMMED_A_CALL: usize = 500;

/// A collection of documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Shelf {
    /// Projects, by their id.
    Projects,
    /// Contracts of projects.
    Contracts,
    /// Routes of messages.
    Routes,
}

impl Shelf {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Projects, Self::Contracts, Self::Routes];

    /// Last part of its key.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Projects => "projects",
            Self::Contracts => "contracts",
            Self::Routes => "routes",
        }
    }
}

/// All documents of a shelf.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Documents {
    /// Another one after each change, also when the store was emptied in between; 0: nothing was ever written.
    pub version: u64,
    /// Texts by name.
    pub by_name: BTreeMap<String, String>,
}

/// A limit over all processes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// Places that come free a second: finite, above 0.
    pub per_second: f64,
    /// Most places at once, at least 1.
    pub burst: u32,
}

impl Rate {
    /// `ERR_INTERNAL` for one by which nobody could ever take a place again.
    pub(super) fn check(self) -> Result<()> {
        if self.per_second.is_finite() && self.per_second > 0.0 && self.burst > 0 {
            return Ok(());
        }
        Err(Error::internal(format!("{self:?} is no limit: nothing would come free")))
    }
}

/// What [`Commons::take_places`] granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Places taken, at most as many as were wanted.
    pub granted: u32,
    /// ms until there is one more; 0 where all were granted.
    pub retry_after_ms: u64,
}

/// A message that was found at some place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// Names the message among all of about the same time; at most 64 bytes.
    pub message: String,
    /// The time that the message itself gives, ms since 1970: the same wherever it is found.
    pub at_ms: u64,
    /// Where it was found; at most 64 bytes.
    pub place: String,
    /// How long it is to be remembered from now, at least; zero: it is looked for, and what is known of it does not change.
    pub life: Duration,
}

impl Sighting {
    /// Messages of the same so many ms are kept together: they share a life.
    const TOGETHER_MS: u64 = 20;

    /// With which others it is kept.
    pub(super) fn time(&self) -> u64 {
        self.at_ms / Self::TOGETHER_MS
    }
}

/// One record of a chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChainRecord {
    /// What it says; holds the hash of the record before it.
    pub text: String,
    /// Hash of the text.
    pub hash: String,
    /// Signature of the hash, not empty, where there is one.
    pub signature: Option<String>,
}

/// A place in a chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChainPlace {
    /// Number of the record; the first has 1.
    pub sequence: u64,
    /// Its hash.
    pub hash: String,
}

/// Records that follow each other in one chain, and what they count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChainBatch {
    /// The chain; one process writes it.
    pub chain: String,
    /// Number of the first record.
    pub first: u64,
    /// At least one.
    pub records: Vec<ChainRecord>,
    /// Counters to be raised with them.
    pub counts: BTreeMap<String, i64>,
    /// Times to be noted with them, ms since 1970; the latest counts.
    pub times: BTreeMap<String, u64>,
}

impl ChainBatch {
    /// Number of its last record. `ERR_INTERNAL` for a batch without any, or that begins before the first.
    pub(super) fn last(&self) -> Result<u64> {
        match (self.first, self.records.len() as u64) {
            (0, _) | (_, 0) => {
                Err(Error::internal(format!("a batch of chain '{}' has no records, or none that can be numbered", self.chain)))
            }
            (first, count) => Ok(first + count - 1),
        }
    }

    /// The error of whoever appends what does not follow the chain as it is.
    pub(super) fn refused(&self, head: impl fmt::Display) -> Error {
        let message = format!(
            "chain '{}' ends with record {head}: records from {} on do not follow it, or others are in their place",
            self.chain, self.first
        );
        Error::internal(message)
    }
}

/// Where the chains of a bucket begin and end, by chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chains {
    /// The last record written, kept apart from the records.
    pub heads: BTreeMap<String, ChainPlace>,
    /// The last record that was trimmed; none where the first is still there.
    pub anchors: BTreeMap<String, ChainPlace>,
}

impl fmt::Display for ChainPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.sequence, self.hash)
    }
}

/// What all buses that use the store have in common beside types, groups and events.
#[async_trait]
pub trait Commons: Send + Sync {
    /// Learns the server's time anew, see [`super::Store::now_ms`]: what is signed names it.
    async fn compare_clocks(&self) -> Result<()>;

    /// What the store is called, the same for all that use it: the first to ask gives the name `ours`. Another one after the store was
    /// emptied, unless those that know it ask again.
    async fn identity(&self, ours: &str) -> Result<String>;

    /// All documents of the shelf; `None` where its version is `known`.
    async fn documents(&self, on: Shelf, known: Option<u64>) -> Result<Option<Documents>>;

    /// Replaces the document `name`, which is not empty, by `after` if it is `before` (`None`: it is not there, or is to be
    /// removed), and announces that by [`super::StoreEvent::DocumentsChanged`] to every open bus, this one included. Answers
    /// whether it now is `after`: to be repeated at will.
    async fn put_document(&self, on: Shelf, name: &str, before: Option<&str>, after: Option<&str>) -> Result<bool>;

    /// Takes up to `wanted` places of the limit `name`, by the server's clock (generic cell rate algorithm): over any time,
    /// no more than `burst` + `per_second` × seconds are granted, to all processes together. What was taken by another rate
    /// before comes free by this one, and counts for no more than its burst. A lost reply takes places and grants none.
    async fn take_places(&self, name: &str, rate: Rate, wanted: u32) -> Result<Taken>;

    /// Notes where messages are found, and answers where each was found first: its own place, if it was not known. Safe
    /// against the same call elsewhere: all get the same answer. To be repeated at will.
    async fn first_sightings(&self, sightings: Vec<Sighting>) -> Result<Vec<String>>;

    /// Adds records to a chain in one step with its head, counters and times: all of that, or nothing. A batch that is there
    /// already changes nothing, so that it may be repeated after a lost reply. A chain of which nothing is known begins with
    /// whatever comes first. `ERR_INTERNAL` where a record before `first` is missing, or others are in their place.
    async fn append_records(&self, batch: &ChainBatch) -> Result<()>;

    /// Up to `count` records of a bucket behind `after`, up to `to`, in the order written; fewer: there are no more. One that
    /// is not readable has an empty text and hash.
    async fn records(&self, bucket: Bucket, after: EntryId, to: EntryId, count: usize) -> Result<Vec<(EntryId, ChainRecord)>>;

    /// How many records each bucket has; those without are left out.
    async fn record_counts(&self) -> Result<BTreeMap<Bucket, u64>>;

    /// Heads and anchors of the chains of a bucket, all at one time.
    async fn chains(&self, bucket: Bucket) -> Result<Chains>;

    /// Removes the oldest records of a bucket: those written before `before_ms`, and beyond the last `most`. Notes anchors, and
    /// forgets chains of which nothing is left but those written to since `before_ms`: one that is written to again after that
    /// begins anew. A bounded piece of work: answers how many it removed, and whether there is more to do.
    async fn trim_records(&self, bucket: Bucket, before_ms: u64, most: u64) -> Result<(u64, bool)>;

    /// All counters and times written with records, summed over the buckets (times: the latest).
    async fn counts(&self) -> Result<(BTreeMap<String, i64>, BTreeMap<String, u64>)>;

    /// `members` are here for `life` from now.
    async fn attend(&self, members: &[String], life: Duration) -> Result<()>;

    /// `members` are gone.
    async fn unattend(&self, members: &[String]) -> Result<()>;

    /// All that are here, in order.
    async fn attending(&self) -> Result<Vec<String>>;
}

/// The bucket of a chain.
pub fn chain_bucket(chain: &str) -> Bucket {
    Bucket(u8::try_from(fnv(chain.bytes()) % u64::from(BUCKETS)).expect("a remainder below 16 fits"))
}
