//! What the bus asks of a store: operations on events and groups, never Redis commands.
//!
//! Two implementations, [`redis`] and [`memory`], answer alike; `tests/conformance.rs` holds both to the
//! rules written at the methods of [`Store`].

mod asking;
mod board;
mod commons;
mod deleting;
mod exclusive;
mod place;
mod roster;

pub mod memory;
pub mod redis;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use bytestring::ByteString;
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};

use super::error::{Code, Error, Result};
use super::event::Asked;
pub use asking::{Decision, INBOX_LIFE, INBOX_MESSAGES_MAX, Inbox, Transient, inbox_bucket};
pub use board::{Board, BoardNews, BoardWrite, BoardWritten, Lead, Table, WRITE_MAX};
pub use commons::{ChainBatch, ChainPlace, ChainRecord, Chains, Commons, Documents, Rate, Shelf, Sighting, Taken, chain_bucket};
pub use exclusive::{Exclusive, Ownership, Parked};
pub use place::{BUCKETS, Bucket, EntryId, Partition, Partitioning, StreamLayout};
pub use roster::{Errand, Listing, ListingChange, News, Place, Read, Roster, Running, Turn};

/// An event on its way into the store.
#[derive(Clone, Debug)]
pub struct NewEvent {
    /// Where it goes; its type was made known by [`Store::open_partition`].
    pub partition: Partition,
    /// `UUIDv7`, the event's id.
    pub id: Arc<str>,
    /// Packed metadata, see [`super::event`].
    pub meta: String,
    /// The data's JSON text.
    pub data: ByteString,
    /// Life in ms from the time of its entry; `None`: it never expires.
    pub ttl_ms: Option<u64>,
    /// Delay before it becomes an entry, ms.
    pub delay_ms: Option<u64>,
    /// A second event with this key within the window is not written.
    pub idempotency: Option<Idempotency>,
    /// Most entries of its stream where its type's [`StreamLayout`] names none (`limits.maxStreamLength`).
    pub length_max: Option<u64>,
    /// Set while it is not sent yet: it is given up with `ERR_ABORTED`.
    pub cancelled: Option<Arc<AtomicBool>>,
    /// Told the place of its entry where that is known when it is written: not for a delayed event, nor after a lost reply.
    pub entry: Option<Arc<OnceLock<EntryId>>>,
}

/// See `PublishOptions.idempotencyKey`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Idempotency {
    /// Chosen by the publisher; unique per partition.
    pub key: String,
    /// How long the key is remembered, ms.
    pub window_ms: u64,
}

/// What became of one appended event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Appended {
    /// It is an entry of the stream, or waits in the store until it is due.
    Stored,
    /// The idempotency key was there: the id of the event first published with it.
    Duplicate(String),
}

/// What an entry holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// Written by this bus.
    Event {
        /// Packed metadata. It may share what it was read into with the entries beside it.
        meta: Bytes,
        /// The data's JSON text.
        data: Bytes,
        /// A redriven entry is for this group alone; others acknowledge it unseen.
        only_group: Option<String>,
        /// Place of the event's first entry, where this one was redriven.
        first_entry: Option<EntryId>,
    },
    /// Written by something else: its fields as they are.
    Foreign(Vec<(Vec<u8>, Vec<u8>)>),
}

/// One entry handed to a consumer, now pending under it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its stream.
    pub partition: Partition,
    /// Its place.
    pub id: EntryId,
    /// Its content.
    pub body: Body,
    /// Deliveries that may have started, this one included: 1 the first time.
    pub deliveries: u32,
    /// How many of those ended with the death of the process.
    pub crashes: u32,
    /// Why it may not reach a handler. Set by the engine; for the store it is an entry like others.
    pub refusal: Option<Box<Refusal>>,
}

/// Why an entry may not reach a handler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What its dead letter says.
    pub reason: DeadReason,
    /// What a sender would have been told.
    pub code: Code,
    /// What is wrong with it.
    pub message: String,
}

/// A pending entry as its consumer knows it: an operation on it does nothing unless all of it holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Held {
    /// Its stream.
    pub partition: Partition,
    /// Its place.
    pub id: EntryId,
    /// Delivery count under which it is held.
    pub deliveries: u32,
}

/// What is to become of a held entry. Decided in one place, `engine::settle`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Disposal {
    /// Done, whoever holds it, also when it went to somebody else in the meantime. To be repeated at will: it is
    /// always [`Settled::Done`].
    Acknowledge,
    /// Deliver again after the delay; `error` is kept to be shown.
    Retry {
        /// Delay from now, ms.
        delay_ms: u64,
        /// Last error, shown by `explain` and the dead letter.
        error: String,
    },
    /// Write a dead letter and acknowledge, or neither.
    DeadLetter {
        /// One of `DeadLetter.reason`.
        reason: DeadReason,
        /// The error's text.
        error: String,
        /// Attempts it had.
        attempts: u32,
    },
    /// Give it back unhandled: deliverable at once, this delivery does not count.
    HandBack,
}

/// `DeadLetter.reason` of the public contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeadReason {
    /// Failed more often than `retry.maxAttempts` allows.
    MaxAttempts,
    /// `errorStrategy: 'dlq'` or `nack({ deadLetter: true })`.
    Handler,
    /// Its ttl passed before it was delivered.
    Expired,
    /// Its process died too often while handling it.
    Crashed,
    /// Not an event of this bus.
    Malformed,
    /// Violates a contract.
    Contract,
    /// Signature missing or wrong.
    Signature,
    /// The error was marked as permanent.
    Permanent,
}

impl DeadReason {
    /// As it stands in `DeadLetter.reason`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MaxAttempts => "max-attempts",
            Self::Handler => "handler",
            Self::Expired => "expired",
            Self::Crashed => "crashed",
            Self::Malformed => "malformed",
            Self::Contract => "contract",
            Self::Signature => "signature",
            Self::Permanent => "permanent",
        }
    }
}

/// What became of one [`Disposal`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// Done as asked; for [`Disposal::Acknowledge`]: it is acknowledged, by this call or an earlier one, or gone.
    Done,
    /// The entry is no longer held as said (given to another, acknowledged, trimmed): nothing was changed.
    NotHeld,
}

/// Which entries of a partition a read may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadFrom {
    /// The stream.
    pub partition: Partition,
    /// For an ordered group: only while the partition is the consumer's, see [`Exclusive`]; new entries come after this one.
    /// All partitions of one read are read so, or none.
    pub owned_after: Option<EntryId>,
}

impl ReadFrom {
    /// New entries, whoever else reads them.
    pub fn new(partition: Partition) -> Self {
        Self { partition, owned_after: None }
    }
}

/// New entries for one group on one bus. Owns what it needs to wait without disturbing others.
#[async_trait]
pub trait Reader: Send {
    /// Takes up to `count` new entries of each partition for the consumer; waits up to `wait` when there is
    /// none (`None`: answers at once). An error [`ReadError::NoGroup`] names partitions whose group is gone.
    /// Entries taken are pending under the consumer until settled. A read that is dropped before it is done takes nothing
    /// from then on.
    async fn read(&mut self, consumer: &str, from: &[ReadFrom], count: usize, wait: Option<Duration>) -> Result<Vec<Entry>, ReadError>;
}

/// Ends a waiting [`Reader::read`] early, from another task; the read then answers with what there is.
pub trait Waker: Send + Sync {
    /// Safe to call at any time, whether a read waits or not.
    fn wake(&self);
}

/// Why a read failed.
#[derive(Clone, Debug)]
pub enum ReadError {
    /// The group is missing on at least one of the partitions (flush, failover): make it again.
    NoGroup,
    /// At least one partition is not the consumer's any more: nothing was taken.
    NotOwner,
    /// The connection is lost or the server refuses; the reader reconnects at the next call.
    Store(Error),
}

/// What [`Store::restore_group`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restored {
    /// Nothing: the group is there.
    There,
    /// It goes on in the stream that it had read.
    Continued,
    /// It begins anew: nothing shows that the stream is the one that it had read.
    Anew,
}

/// Entries whose retry is due, now pending under the consumer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Due {
    /// The entries.
    pub entries: Vec<Entry>,
    /// Pending entries whose content no longer exists (trimmed or deleted by others).
    pub lost: Vec<EntryId>,
}

/// Work that waits for its time in a bucket.
#[derive(Clone, Debug, Default)]
pub struct DueIndex {
    /// Partitions of the group with a retry due now.
    pub partitions: Vec<Partition>,
    /// ms until the next one is due, where one is known.
    pub next_in_ms: Option<u64>,
}

/// How a group starts on partitions that exist when it subscribes; on later ones it starts at the beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartFrom {
    /// All that is kept.
    Beginning,
    /// Only what comes.
    Latest,
    /// From this server time on, ms since 1970.
    Time(u64),
}

/// A durable subscription of a group: what publishers need to make it on new partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupSpec {
    /// The group.
    pub group: String,
    /// Event type or pattern, valid by [`super::name::check_pattern`].
    pub pattern: String,
    /// Options on which all members must agree, as JSON text.
    pub options: String,
}

/// What the store knows of types and groups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Topology {
    /// Event types seen.
    pub types: Vec<String>,
    /// Their partitions. One may be known a moment before its stream is there.
    pub partitions: Vec<Partition>,
    /// Groups with their patterns.
    pub groups: Vec<GroupSpec>,
    /// What is noted of types; the rest have the default.
    pub layouts: BTreeMap<String, StreamLayout>,
}

/// State of one group on one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupState {
    /// Its name.
    pub name: String,
    /// Delivered, not acknowledged; waiting retries included.
    pub pending: u64,
    /// Not delivered yet; `None` where the server cannot tell and they are too many to be counted.
    pub lag: Option<u64>,
    /// Consumers known, without the store's own.
    pub consumers: Vec<String>,
    /// Last entry handed out.
    pub last_delivered: EntryId,
}

/// State of one partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartitionState {
    /// Entries kept.
    pub length: u64,
    /// Memory it takes, bytes.
    pub size_bytes: u64,
    /// First entry kept.
    pub first: Option<EntryId>,
    /// Last entry kept.
    pub last: Option<EntryId>,
    /// Its groups.
    pub groups: Vec<GroupState>,
    /// Those of the groups' consumers whose lease runs, each once.
    pub live: BTreeSet<String>,
}

/// What waits in a group on one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backlog {
    /// The group.
    pub group: String,
    /// Entries that somebody holds, or that wait for a retry.
    pub pending: u64,
    /// Entries that it has not read: at least so many, where the server cannot tell.
    pub lag: u64,
}

/// What keeps and what ends an entry, see design "Keeping and trimming".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keeping {
    /// Acknowledged entries kept at most.
    pub keep_acknowledged: u64,
    /// How long acknowledged entries are kept, ms, whatever their ttl; `None`: until their ttl is over.
    pub keep_ms: Option<u64>,
    /// Without any group all entries count as acknowledged; else they stay until their ttl is over.
    pub without_group: bool,
    /// ttl of events that do not name one, ms; `None`: they never expire.
    pub default_ttl_ms: Option<u64>,
    /// Dead letters older than this go, ms.
    pub dead_letter_retention_ms: u64,
    /// Whether an expired event becomes a dead letter.
    pub dead_letters: bool,
}

impl Keeping {
    /// The same for a type that is laid out so, see `createStream`.
    #[must_use]
    pub fn of(self, layout: Option<&StreamLayout>) -> Self {
        let Some(layout) = layout.filter(|layout| layout.keep_count.is_some() || layout.keep_ms.is_some()) else { return self };
        // Kept by time alone, their number is bounded by the stream's length.
        let by_time = || layout.keep_ms.and(layout.length_max).unwrap_or(self.keep_acknowledged);
        Self { keep_acknowledged: layout.keep_count.unwrap_or_else(by_time), keep_ms: layout.keep_ms, without_group: true, ..self }
    }
}

/// What one [`Store::sweep`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Acknowledged or expired entries removed.
    pub removed: u64,
    /// Events that expired undelivered, a row for each group that existed.
    pub expired: Vec<Expired>,
    /// More is to be done now: call again.
    pub more: bool,
}

/// An event that a group will not see because its ttl passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expired {
    /// Its type.
    pub event_type: Arc<str>,
    /// Its id.
    pub event_id: String,
    /// The group that did not get it.
    pub group: String,
    /// It is now a dead letter (its ttl was the default, not the publisher's own).
    pub dead_lettered: bool,
}

/// What [`Store::reap`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reaped {
    /// Dead consumers removed.
    pub consumers: u64,
    /// Entries taken from them and made due for redelivery.
    pub taken: u64,
    /// Entries dead-lettered because their process died too often: partition, group, entry, event id.
    pub crashed: Vec<Crashed>,
}

/// An entry given up because its processes died.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crashed {
    /// Its stream.
    pub partition: Partition,
    /// The group.
    pub group: String,
    /// The event's id, empty when unreadable.
    pub event_id: String,
    /// Attempts it had.
    pub attempts: u32,
    /// Its packed metadata, empty where this bus did not write it.
    pub meta: String,
    /// Who waits for what becomes of it.
    pub asked: Option<Asked>,
}

/// A dead letter as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredDeadLetter {
    /// `<bucket>.<entry id>.<event type>`.
    pub id: String,
    /// Event type.
    pub event_type: String,
    /// The group that failed it.
    pub group: String,
    /// A [`DeadReason`] as text.
    pub reason: String,
    /// Last error.
    pub error: String,
    /// Attempts it had.
    pub attempts: u32,
    /// Server time of its death, ms.
    pub failed_at_ms: u64,
    /// Packed metadata; empty for an entry that this bus did not write.
    pub meta: String,
    /// The data's JSON text; for a foreign entry its fields as a JSON object of strings.
    pub data: String,
}

/// Which dead letters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeadLetterQuery {
    /// These alone.
    pub ids: Option<Vec<String>>,
    /// Of this event type.
    pub event_type: Option<String>,
    /// Failed by this group.
    pub group: Option<String>,
    /// Died at or after, ms.
    pub from_ms: Option<u64>,
    /// Died at or before, ms.
    pub to_ms: Option<u64>,
}

/// An entry looked at where it lies: nobody takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Its place.
    pub id: EntryId,
    /// Its content.
    pub body: Body,
}

/// Which copy of an event is looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Copy {
    /// The entry that was published.
    Published,
    /// The entry made for this group when its dead letter was redriven.
    RedrivenFor(String),
}

/// A way along a stream on which an event is looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Search {
    /// The event's id.
    pub event_id: String,
    /// Which entry of it.
    pub copy: Copy,
    /// First place looked at.
    pub from: EntryId,
    /// Last place looked at; before `from` where the way goes towards older entries.
    pub to: EntryId,
}

/// How far one step of a [`Search`] came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Searched {
    /// Here it is.
    Found(Kept),
    /// Not up to this place, with how many entries were looked at: go on behind it.
    NotUpTo(EntryId, usize),
    /// Nowhere on the way.
    Nowhere,
}

/// What a partition has of an event beside its entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Noted {
    /// It waits to be due.
    pub delayed: Option<Delayed>,
    /// It waited, and became an entry at this time, ms.
    pub moved_ms: Option<u64>,
    /// Groups of the partition, each with the time, in ms, at which the event was last redriven for it.
    pub groups: Vec<(String, Option<u64>)>,
}

/// An event that waits to be due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delayed {
    /// Packed metadata.
    pub meta: String,
    /// The data's JSON text.
    pub data: String,
    /// When it is due, ms since 1970.
    pub due_ms: u64,
}

/// Where a group stands on an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is still to come.
    NotDelivered,
    /// A consumer has it, at so many deliveries; what failed before.
    Held {
        /// The consumer.
        consumer: String,
        /// Deliveries, this one included.
        deliveries: u32,
        /// Error of the delivery before, where one failed.
        error: Option<String>,
    },
    /// It waits for its redelivery under nobody.
    Waiting {
        /// Deliveries so far.
        deliveries: u32,
        /// When it is due, ms since 1970.
        due_ms: u64,
        /// Last error, where one failed.
        error: Option<String>,
    },
    /// The group is past it: acknowledged, given up, or passed over.
    Settled,
}

/// News from the store, to whoever called [`Store::watch`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreEvent {
    /// The server was lost.
    ConnectionLost(String),
    /// The server is back; anything announced meanwhile was missed.
    ConnectionRestored,
    /// A type or group came or went: read [`Store::topology`] again.
    TopologyChanged,
    /// A document of a shelf came, changed or went, or that may have been missed: the shelves are to be read again, see
    /// [`Commons::documents`].
    DocumentsChanged,
    /// A listing of the register of services came, changed or went, or that may have been missed: see [`Roster::news`].
    ServicesChanged,
    /// What readers see of agents changed, or that may have been missed: see [`Board::board_news`].
    BoardChanged,
    /// An event for the subscribers of this moment, see [`Store::hear`].
    Transient(Arc<Transient>),
    /// Events that this bus was told are stored are gone: the server was emptied, or another took its place before it had
    /// them. Whether they were handled before is not known.
    DataLoss(Vec<Loss>),
}

/// Events of one partition that are gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// Where they were.
    pub partition: Partition,
    /// How many; of more than a few hundred batches the last ones.
    pub events: u64,
    /// The place of the last one, where it is known.
    pub last: Option<EntryId>,
}

/// The store's health.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StoreStatus {
    /// The server answers.
    pub connected: bool,
    /// A Redis Cluster.
    pub cluster: bool,
    /// Servers, `host`, `port`, state.
    pub nodes: Vec<(String, u16, String)>,
    /// Requests in flight over places there are, percent.
    pub utilization: f64,
}

/// All that the bus asks of a store. Operations on several entries are one round trip a bucket.
///
/// A *consumer* is one bus in one process, alive while its lease is renewed. An entry is *pending* under one
/// consumer of a group, or waits for its retry under nobody. Every change of owner happens in the store.
#[async_trait]
pub trait Store: Exclusive + Commons + Roster + Board + Send + Sync + 'static {
    /// Connects and checks the server's version and layout. `ERR_CONNECTION` names the address.
    async fn open(&self) -> Result<()>;

    /// Ends all connections. Never waits longer than `deadline`.
    async fn close(&self, deadline: Duration);

    /// Where news go; called once, before [`Store::open`].
    fn watch(&self, listener: Arc<dyn Fn(StoreEvent) + Send + Sync>);

    /// The server's time, ms since 1970, as last compared; no round trip.
    fn now_ms(&self) -> u64;

    /// Requests in flight over places there are, percent; no round trip.
    fn utilization(&self) -> f64;

    /// Health; asks the server, bounded by its command timeout.
    async fn status(&self) -> StoreStatus;

    /// All types, their partitions, and all groups.
    async fn topology(&self) -> Result<Topology>;

    /// What is noted of the type, and the default where nothing was: it is noted then, so that the number of its
    /// partitions stays, whoever asks next.
    async fn layout(&self, event_type: &str) -> Result<StreamLayout>;

    /// Notes how the type is kept, and its partitions if nothing is noted yet. `ERR_INVALID_ARGUMENT` for another number
    /// of partitions than that noted.
    async fn create_stream(&self, event_type: &str, layout: &StreamLayout) -> Result<()>;

    /// Makes the partition's type known and its stream with every group whose pattern matches, at the
    /// beginning. Idempotent, safe against a [`Store::join`] at the same time: one of the two sees the other.
    async fn open_partition(&self, partition: &Partition) -> Result<()>;

    /// Makes `spec` known (a type named without wildcards too, with its partition 0), then the group on every
    /// existing partition that its pattern matches, where missing. Answers the partitions. `ERR_INVALID_ARGUMENT` when a live consumer other than `consumer` holds the same
    /// group and pattern with other options.
    async fn join(&self, spec: &GroupSpec, start: StartFrom, consumer: &str) -> Result<Vec<Partition>>;

    /// `consumer` no longer holds `spec`. The group stays, unless it is ephemeral and this was its last holder: then it
    /// ends as by [`Store::delete_group`], in the same step as far as a [`Store::join`] can see.
    async fn leave(&self, spec: &GroupSpec, consumer: &str) -> Result<()>;

    /// Removes the group's subscription to `pattern`, and the group with all that waits in it from every matching
    /// partition that no other pattern of the group covers. Answers whether there was any of it. `ERR_INVALID_ARGUMENT`
    /// while a holder or a consumer of it is alive, and for an event type that the group reads by a pattern only.
    async fn delete_group(&self, pattern: &str, group: &str) -> Result<bool>;

    /// Ends ephemeral groups of which no holder is alive, and finishes deletions whose process ended midway. Answers the
    /// subscriptions removed.
    async fn end_groups(&self) -> Result<Vec<GroupSpec>>;

    /// Subscriptions of durable groups of which no holder is alive.
    async fn unattended(&self) -> Result<Vec<GroupSpec>>;

    /// Makes the group again where it is missing: after `after` where the stream is the one that had the entry `seen`,
    /// else from the beginning.
    async fn restore_group(&self, partition: &Partition, group: &str, after: EntryId, seen: EntryId) -> Result<Restored>;

    /// Writes events of one bucket, in order; calls for one bucket take effect in the order of the calls (the
    /// call, not the polling of the future, decides). Exactly once over lost connections. One result an event.
    /// `ERR_STREAM_FULL` where the stream has as many entries as it may and none of them can go; a delayed event is
    /// never refused so, nor is it when it is due.
    fn append(&self, bucket: Bucket, events: Vec<NewEvent>) -> BoxFuture<'static, Vec<Result<Appended>>>;

    /// A reader for `group`, and what wakes it.
    fn reader(&self, group: &str) -> (Box<dyn Reader>, Arc<dyn Waker>);

    /// Settles held entries of one group and consumer, in one bucket. Each on its own: one that is not held as
    /// said changes nothing and spoils nothing. One result an entry.
    async fn settle(&self, bucket: Bucket, group: &str, consumer: &str, entries: Vec<(Held, Disposal)>) -> Result<Vec<Settled>>;

    /// Partitions of `group` in `bucket` with redeliveries due.
    async fn due(&self, bucket: Bucket, group: &str) -> Result<DueIndex>;

    /// Takes up to `max` due redeliveries of one partition for `consumer`; each counts as a delivery.
    async fn claim_due(&self, partition: &Partition, group: &str, consumer: &str, max: usize) -> Result<Due>;

    /// Renews the consumer's lease in `buckets` for `lease`. Answers `false` if one had lapsed and [`Store::reap`] came
    /// since: its entries may have gone to others, go on under a new name. Where nobody came it may be taken up again. So it stays until [`Store::release`]; what was released, or is
    /// asked for the first time, starts afresh.
    async fn renew(&self, consumer: &str, buckets: &[Bucket], lease: Duration) -> Result<bool>;

    /// Ends the leases at once: others may take what is pending.
    async fn release(&self, consumer: &str, buckets: &[Bucket]) -> Result<()>;

    /// Ids pending under `consumer`, with their delivery counts.
    async fn pending(&self, partition: &Partition, group: &str, consumer: &str) -> Result<Vec<(EntryId, u32)>>;

    /// Removes the consumer from the group on the partition if nothing is pending under it, in one step.
    async fn remove_consumer(&self, partition: &Partition, group: &str, consumer: &str) -> Result<bool>;

    /// Tries to be the one process that looks after `bucket` for `lease`; renews it for its holder.
    async fn look_after(&self, bucket: Bucket, holder: &str, lease: Duration) -> Result<bool>;

    /// Takes the entries of consumers in `bucket` whose lease is gone, makes them due at once (dead-lettered when
    /// they crashed `max_crashes` times), and removes those consumers.
    async fn reap(&self, bucket: Bucket, max_crashes: u32) -> Result<Reaped>;

    /// Turns delayed events that are due into entries, ttl counting from then; answers how many, and ms until
    /// the next.
    async fn move_delayed(&self, bucket: Bucket) -> Result<(u64, Option<u64>)>;

    /// Removes what need not be kept from one partition and moves groups past expired entries. Never removes a
    /// pending entry, nor an undelivered one before its ttl. A bounded piece of work a call.
    async fn sweep(&self, partition: &Partition, keeping: &Keeping) -> Result<Swept>;

    /// State of a partition; `None` when it has no stream.
    async fn inspect(&self, partition: &Partition) -> Result<Option<PartitionState>>;

    /// What waits in these groups of partitions, in their order; nothing for one without a stream. Cheaper than [`Store::inspect`]: where
    /// the server cannot tell what is not read, some of it is counted, and no more than a bound for all together.
    async fn backlogs(&self, reads: &[(Partition, BTreeSet<String>)]) -> Result<Vec<Vec<Backlog>>>;

    /// How many entries were ever added to each of these, in their order; 0 for one without a stream.
    async fn added(&self, partitions: &[Partition]) -> Result<Vec<u64>>;

    /// One page of dead letters, oldest first within a bucket and type; the cursor of the next page.
    async fn dead_letters(
        &self,
        query: &DeadLetterQuery,
        limit: usize,
        cursor: Option<&str>,
    ) -> Result<(Vec<StoredDeadLetter>, Option<String>)>;

    /// How many dead letters match. Without a group or time it costs one command a type.
    async fn count_dead_letters(&self, query: &DeadLetterQuery) -> Result<u64>;

    /// Puts matching dead letters back as entries for the group that failed them; each moves or stays, whole.
    async fn redrive(&self, query: &DeadLetterQuery) -> Result<u64>;

    /// Deletes matching dead letters.
    async fn purge(&self, query: &DeadLetterQuery) -> Result<u64>;

    /// Up to `count` entries behind `after`, up to `to`, in order; nobody takes them. Fewer: there are no more.
    async fn history(&self, partition: &Partition, after: EntryId, to: EntryId, count: usize) -> Result<Vec<Kept>>;

    /// The last entry kept of the partition.
    async fn last_entry(&self, partition: &Partition) -> Result<Option<EntryId>>;

    /// What the partition has of an event beside its entries. A note on an entry goes when the stream has none as old.
    async fn noted(&self, partition: &Partition, event_id: &str) -> Result<Noted>;

    /// Looks for an event among the entries of the partition: one step, a bounded piece of work.
    async fn search(&self, partition: &Partition, search: &Search) -> Result<Searched>;

    /// Dead letters of an event in the bucket of the partition, from a place on, oldest first: one step, a bounded piece
    /// of work. Answers where to go on, and how many letters were looked at.
    async fn search_dead_letters(
        &self,
        partition: &Partition,
        event_id: &str,
        from: EntryId,
    ) -> Result<(Vec<StoredDeadLetter>, Option<EntryId>, usize)>;

    /// Where each of these groups stands on an entry of the partition, all at one time. A group that is gone is left out.
    async fn standing(&self, partition: &Partition, entries: &[(String, EntryId)]) -> Result<Vec<(String, Standing)>>;
    /// Adds messages to an inbox, in order, whether its owner is there or not. May add them twice when a reply is lost.
    async fn post(&self, inbox: &str, messages: Vec<String>) -> Result<()>;

    /// The owner's end of an inbox: everything that is in it, and what comes.
    fn inbox(&self, name: &str) -> Box<dyn Inbox>;

    /// Deletes an inbox.
    async fn remove_inbox(&self, name: &str) -> Result<()>;

    /// What each group of the partition did with the entry. A group that never was to get it counts as having
    /// acknowledged it: ask about those that were there when it was written.
    async fn decisions(&self, partition: &Partition, entry: EntryId) -> Result<Vec<(String, Decision)>>;

    /// Sends events to all users that [`Store::hear`] their bucket now. At most once: one result for all, and after an
    /// error they may or may not have been sent.
    fn cast(&self, bucket: Bucket, events: Vec<Transient>) -> BoxFuture<'static, Result<()>>;

    /// From now on [`StoreEvent::Transient`] tells of the events cast in these buckets, and in no others. Answers once
    /// that is so; while the server is away, it is so again when it is back.
    async fn hear(&self, buckets: &BTreeSet<Bucket>) -> Result<()>;
}
