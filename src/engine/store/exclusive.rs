//! What ordered groups ask of a store: one consumer at a time reads a partition, and what waits is taken up in order.

use async_trait::async_trait;

use super::{Due, EntryId, GroupSpec, Partition};
use crate::engine::error::Result;

/// Answer to [`Exclusive::own`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// The partition is this consumer's, and nothing is pending under anybody else. `last` is the last entry handed out.
    Mine {
        /// New entries come after it.
        last: EntryId,
    },
    /// Another consumer reads it, or still holds entries of it.
    Others,
    /// The group is missing: make it again.
    NoGroup,
}

/// An entry that was handed out and waits for its turn, under nobody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parked {
    /// Its place.
    pub id: EntryId,
    /// ms until it may be taken up; 0: now.
    pub due_in_ms: u64,
    /// Its `partitionKey`, empty where it has none.
    pub key: String,
}

/// One reader a partition of an ordered group. Ownership lasts as long as the consumer's lease in the bucket, unless it is
/// given up; whoever lost it can neither read nor claim, however late its call arrives.
#[async_trait]
pub trait Exclusive: Send + Sync {
    /// Makes `consumer` the one that reads the partition for the group, if no other living consumer is and nothing is
    /// pending under another one. Entries pending under `consumer` that are not in `held` (replies that were lost) wait
    /// again; that delivery of theirs does not count. To be repeated at will.
    async fn own(&self, partition: &Partition, group: &str, consumer: &str, held: &[EntryId]) -> Result<Ownership>;

    /// Gives the partition up, if it is the consumer's.
    async fn disown(&self, partition: &Partition, group: &str, consumer: &str) -> Result<()>;

    /// All entries of the group that wait, in no particular order.
    async fn parked(&self, partition: &Partition, group: &str) -> Result<Vec<Parked>>;

    /// Takes waiting entries for the consumer, whether due or not; each counts as a delivery. Those that wait no more
    /// (acknowledged late) are left out. `None`, and nothing is taken, when the partition is not the consumer's, or the
    /// group is gone.
    async fn claim_parked(&self, partition: &Partition, group: &str, consumer: &str, ids: &[EntryId]) -> Result<Option<Due>>;

    /// How many living consumers hold the group on that pattern.
    async fn members(&self, spec: &GroupSpec) -> Result<usize>;
}
