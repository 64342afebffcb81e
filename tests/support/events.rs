//! Short words for what most rules do: publish, join, read, settle.

use std::sync::Arc;
use std::time::Duration;

use ossa::engine::event::{MetaView, NewMeta, Priority, pack};
use ossa::engine::store::{
    Appended, Body, Bucket, DeadLetterQuery, DeadReason, Disposal, Entry, EntryId, GroupSpec, Held, Keeping, NewEvent, Partition,
    PartitionState, ReadFrom, Reader, Settled, StartFrom, Store, StoredDeadLetter,
};

/// A lease that outlasts every test.
pub const LONG: Duration = Duration::from_secs(600);

/// Partition 0 of a type.
pub fn partition(event_type: &str) -> Partition {
    Partition::new(event_type, 0)
}

/// A partition in the same bucket as `other`, of another type.
pub fn neighbour(other: &Partition) -> Partition {
    let mut candidates = (0..).map(|n| partition(&format!("neighbour.{n}")));
    candidates.find(|at| at.bucket() == other.bucket()).expect("types are without end")
}

/// A partition in another bucket than `other`.
pub fn stranger(other: &Partition) -> Partition {
    let mut candidates = (0..).map(|n| partition(&format!("stranger.{n}")));
    candidates.find(|at| at.bucket() != other.bucket()).expect("types are without end")
}

/// How long an event lives.
#[derive(Clone, Copy)]
pub enum Ttl {
    /// By the publisher's default, seconds.
    Default(f64),
    /// By the publisher's choice for this event, seconds.
    Given(f64),
}

/// An event `id` that lives for an hour by default; its data are its id.
pub fn event(at: &Partition, id: &str) -> NewEvent {
    event_with_ttl(at, id, Ttl::Default(3600.0))
}

/// An event `id` with a ttl.
pub fn event_with_ttl(at: &Partition, id: &str, ttl: Ttl) -> NewEvent {
    let (ttl, ttl_given) = match ttl {
        Ttl::Default(seconds) => (seconds, false),
        Ttl::Given(seconds) => (seconds, true),
    };
    let priority = Priority::Normal;
    let meta = pack(&NewMeta { id, timestamp_ms: 1, source: "test", version: "1.0.0", priority, ttl, ttl_given, extras: None });
    let ttl_ms = MetaView::read(meta.as_bytes()).expect("what was packed is read back").ttl_ms();
    NewEvent {
        partition: at.clone(),
        id: id.into(),
        meta,
        data: format!("\"{id}\"").into(),
        ttl_ms,
        delay_ms: None,
        idempotency: None,
        length_max: None,
        cancelled: None,
        entry: None,
    }
}

/// `count` events with the ids `<name>-0`, `<name>-1`, ….
pub fn events(at: &Partition, name: &str, count: usize) -> Vec<NewEvent> {
    (0..count).map(|n| event(at, &format!("{name}-{n}"))).collect()
}

/// Appends events of one partition; all must be stored.
pub async fn publish(store: &Arc<dyn Store>, events: Vec<NewEvent>) {
    let bucket = events[0].partition.bucket();
    for result in store.append(bucket, events).await {
        assert_eq!(result.expect("appended"), Appended::Stored);
    }
}

/// A spec without options.
pub fn spec(group: &str, pattern: &str) -> GroupSpec {
    GroupSpec { group: group.into(), pattern: pattern.into(), options: "{}".into() }
}

/// Makes the partition and `group` on it, from the beginning, held by `consumer` with a long lease.
pub async fn prepare(store: &Arc<dyn Store>, at: &Partition, group: &str, consumer: &str) {
    store.open_partition(at).await.expect("opened");
    store.join(&spec(group, &at.event_type), StartFrom::Beginning, consumer).await.expect("joined");
    assert!(store.renew(consumer, &[at.bucket()], LONG).await.expect("renewed"));
}

/// A reader of `group`.
pub fn reader(store: &Arc<dyn Store>, group: &str) -> Box<dyn Reader> {
    store.reader(group).0
}

/// Takes up to `count` new entries of the partition, without waiting.
pub async fn take(store: &Arc<dyn Store>, at: &Partition, group: &str, consumer: &str, count: usize) -> Vec<Entry> {
    let from = [ReadFrom::new(at.clone())];
    reader(store, group).read(consumer, &from, count, None).await.expect("read")
}

/// Takes one new entry.
pub async fn take_one(store: &Arc<dyn Store>, at: &Partition, group: &str, consumer: &str) -> Entry {
    take(store, at, group, consumer, 1).await.pop().expect("an entry is there")
}

/// As its consumer knows it.
pub fn held(entry: &Entry) -> Held {
    Held { partition: entry.partition.clone(), id: entry.id, deliveries: entry.deliveries }
}

/// Settles one entry.
pub async fn settle(store: &Arc<dyn Store>, group: &str, consumer: &str, entry: &Entry, disposal: Disposal) -> Settled {
    let settled = store.settle(entry.partition.bucket(), group, consumer, vec![(held(entry), disposal)]).await;
    settled.expect("settled")[0]
}

/// Acknowledges entries of one partition; all must be done.
pub async fn acknowledge(store: &Arc<dyn Store>, group: &str, consumer: &str, entries: &[Entry]) {
    let bucket = entries[0].partition.bucket();
    let all = entries.iter().map(|entry| (held(entry), Disposal::Acknowledge)).collect();
    for settled in store.settle(bucket, group, consumer, all).await.expect("settled") {
        assert_eq!(settled, Settled::Done);
    }
}

/// Deliver again after a delay.
pub fn retry(delay_ms: u64) -> Disposal {
    Disposal::Retry { delay_ms, error: "it failed".into() }
}

/// Give up.
pub fn dead_letter(error: &str) -> Disposal {
    Disposal::DeadLetter { reason: DeadReason::MaxAttempts, error: error.into(), attempts: 4 }
}

/// Publishes and gives up `count` events `<name>-0`, …; the group must have nothing else to read.
pub async fn bury(store: &Arc<dyn Store>, at: &Partition, group: &str, consumer: &str, name: &str, count: usize) {
    publish(store, events(at, name, count)).await;
    for entry in take(store, at, group, consumer, count).await {
        assert_eq!(settle(store, group, consumer, &entry, dead_letter("no")).await, Settled::Done);
    }
}

/// The event's id; empty when unreadable.
pub fn event_id(entry: &Entry) -> String {
    match &entry.body {
        Body::Event { meta, .. } => MetaView::read(meta).map(|meta| meta.id.into_owned()).unwrap_or_default(),
        Body::Foreign(_) => String::new(),
    }
}

/// The ids of events.
pub fn event_ids(entries: &[Entry]) -> Vec<String> {
    entries.iter().map(event_id).collect()
}

/// State of a partition that exists.
pub async fn inspect(store: &Arc<dyn Store>, at: &Partition) -> PartitionState {
    store.inspect(at).await.expect("inspected").expect("the partition exists")
}

/// Pending, lag, consumers and last delivered of the group.
pub async fn group_state(store: &Arc<dyn Store>, at: &Partition, group: &str) -> (u64, Option<u64>, Vec<String>, EntryId) {
    let state = inspect(store, at).await;
    let group = state.groups.into_iter().find(|state| state.name == group).expect("the group exists");
    (group.pending, group.lag, group.consumers, group.last_delivered)
}

/// Claims due entries until `count` came.
pub async fn claim(store: &Arc<dyn Store>, at: &Partition, group: &str, consumer: &str, count: usize) -> Vec<Entry> {
    let mut claimed = Vec::new();
    super::wait::until("entries are due", async || {
        let due = store.claim_due(at, group, consumer, count - claimed.len()).await.expect("claimed");
        assert_eq!(due.lost, []);
        claimed.extend(due.entries);
        claimed.len() >= count
    })
    .await;
    claimed
}

/// All dead letters that match, in pages of `limit`.
pub async fn dead_letters(store: &Arc<dyn Store>, query: &DeadLetterQuery, limit: usize) -> Vec<StoredDeadLetter> {
    let mut all = Vec::new();
    let mut cursor = None;
    loop {
        let (page, next) = store.dead_letters(query, limit, cursor.as_deref()).await.expect("listed");
        assert!(page.len() <= limit);
        all.extend(page);
        cursor = next;
        if cursor.is_none() {
            return all;
        }
    }
}

/// Dead letters of a type.
pub fn of_type(at: &Partition) -> DeadLetterQuery {
    DeadLetterQuery { event_type: Some(at.event_type.to_string()), ..DeadLetterQuery::default() }
}

/// Keeps everything for long.
pub fn keeping() -> Keeping {
    Keeping {
        keep_acknowledged: 1_000_000,
        keep_ms: None,
        without_group: false,
        default_ttl_ms: Some(3_600_000),
        dead_letter_retention_ms: 604_800_000,
        dead_letters: true,
    }
}

/// Lets the lease of `consumer` end.
pub async fn die(store: &Arc<dyn Store>, consumer: &str, bucket: Bucket) {
    store.release(consumer, &[bucket]).await.expect("released");
}
