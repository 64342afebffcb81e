//! The way from a process to the store: calls are slow, do not arrive, or their replies do not; and those of a process that
//! was killed never come back. What the store did is written into the ledger, whatever the process hears of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use ossa::engine::env::lock;
use ossa::engine::error::{Code, Error, Result};
use ossa::engine::store::memory::MemoryStore;
use ossa::engine::store::{
    Appended, Backlog, Board, BoardNews, BoardWrite, BoardWritten, Bucket, ChainBatch, ChainRecord, Chains, Commons, DeadLetterQuery,
    Decision, Disposal, Documents, Due, DueIndex, Entry, EntryId, Errand, Exclusive, GroupSpec, Held, Inbox, Keeping, Kept, Lead, Listing,
    NewEvent, Noted, Ownership, Parked, Partition, PartitionState, Place, Rate, Read, ReadError, ReadFrom, Reader, Reaped, Restored,
    Roster, Running, Search, Searched, Settled, Shelf, Sighting, Standing, StartFrom, Store, StoreEvent, StoreStatus, StoredDeadLetter,
    StreamLayout, Swept, Table, Taken, Topology, Transient, Turn, Waker,
};
use rand::Rng;
use rand::rngs::SmallRng;

use crate::ledger::{Ledger, Life};
use crate::machine::{SimMachine, ms};
use crate::plan::Weather;

/// What happens to one call.
#[derive(Clone, Copy, Debug)]
enum Fault {
    NotReached,
    ReplyLost,
    Refused,
}

/// What holds for the calls of one process.
pub struct Way {
    machine: Arc<SimMachine>,
    /// Written into by all.
    pub ledger: Arc<Mutex<Ledger>>,
    /// Whose it is.
    pub life: Life,
    weather: Mutex<(Weather, SmallRng)>,
}

impl Way {
    /// Without any fault so far.
    pub fn new(machine: Arc<SimMachine>, ledger: Arc<Mutex<Ledger>>, life: Life, random: SmallRng) -> Arc<Self> {
        let calm = Weather { latency_ms_max: 3, slow: 10, ..Weather::default() };
        Arc::new(Self { machine, ledger, life, weather: Mutex::new((calm, random)) })
    }

    /// From now on it is so.
    pub fn set(&self, weather: Weather) {
        lock(&self.weather).0 = weather;
    }

    /// The fault of one call, and how long it takes there and back.
    fn chance(&self) -> (Option<Fault>, Duration, Duration) {
        let (weather, random) = &mut *lock(&self.weather);
        let mut percent = |share: u32| share > 0 && random.random_range(0..100) < share;
        let fault = if percent(weather.not_reached) {
            Some(Fault::NotReached)
        } else if percent(weather.reply_lost) {
            Some(Fault::ReplyLost)
        } else if percent(weather.refused) {
            Some(Fault::Refused)
        } else {
            None
        };
        if !percent(weather.slow) {
            return (fault, Duration::ZERO, Duration::ZERO);
        }
        let mut time = || ms(random.random_range(0..=weather.latency_ms_max));
        (fault, time(), time())
    }

    /// A call that arrives, or does not, and whose reply does, or does not.
    async fn around<T>(&self, operation: &str, call: impl Future<Output = Result<T>>) -> Result<T> {
        let (fault, there, back) = self.chance();
        if let Some(fault) = fault {
            let mut ledger = lock(&self.ledger);
            let name = ledger.name(self.life);
            ledger.note(format!("{name}: {operation}: {fault:?}"));
        }
        if !there.is_zero() {
            tokio::time::sleep(there).await;
        }
        self.alive().await;
        let result = match fault {
            Some(Fault::NotReached) => Err(Error::new(Code::Connection, "not reached")),
            Some(Fault::Refused) => Err(Error::new(Code::Redis, "refused for good")),
            Some(Fault::ReplyLost) => call.await.and(Err(Error::new(Code::Connection, "the reply was lost"))),
            None => call.await,
        };
        if !back.is_zero() {
            tokio::time::sleep(back).await;
        }
        result
    }

    /// Never, once the process was killed: what it still does in the same breath does not count.
    async fn alive(&self) {
        if self.machine.is_dead() {
            std::future::pending::<()>().await;
        }
    }
}

/// The store as one process sees it.
pub struct Wire {
    inner: Arc<MemoryStore>,
    way: Arc<Way>,
}

impl Wire {
    /// Over the process's own connection to the store.
    pub fn over(inner: Arc<MemoryStore>, way: Arc<Way>) -> Arc<Self> {
        Arc::new(Self { inner, way })
    }
}

struct WireReader {
    group: String,
    inner: Box<dyn Reader>,
    way: Arc<Way>,
}

#[async_trait]
impl Reader for WireReader {
    async fn read(&mut self, consumer: &str, from: &[ReadFrom], count: usize, wait: Option<Duration>) -> Result<Vec<Entry>, ReadError> {
        let (mut other, inner) = (None, &mut self.inner);
        let (way, group) = (&self.way, &self.group);
        let call = async {
            match inner.read(consumer, from, count, wait).await {
                Ok(entries) => {
                    lock(&way.ledger).took(way.life, group, consumer, &entries);
                    Ok(entries)
                }
                Err(ReadError::Store(error)) => Err(error),
                Err(error) => {
                    other = Some(error);
                    Err(Error::internal("another one"))
                }
            }
        };
        let result = self.way.around("read", call).await;
        result.map_err(|error| other.unwrap_or(ReadError::Store(error)))
    }
}

#[async_trait]
impl Exclusive for Wire {
    async fn own(&self, partition: &Partition, group: &str, consumer: &str, held: &[EntryId]) -> Result<Ownership> {
        let call = async {
            lock(&self.way.ledger).looked_for_dead();
            self.inner.own(partition, group, consumer, held).await
        };
        self.way.around("own", call).await
    }

    async fn disown(&self, partition: &Partition, group: &str, consumer: &str) -> Result<()> {
        self.way.around("disown", self.inner.disown(partition, group, consumer)).await
    }

    async fn parked(&self, partition: &Partition, group: &str) -> Result<Vec<Parked>> {
        self.way.around("parked", self.inner.parked(partition, group)).await
    }

    async fn claim_parked(&self, partition: &Partition, group: &str, consumer: &str, ids: &[EntryId]) -> Result<Option<Due>> {
        let call = async {
            let due = self.inner.claim_parked(partition, group, consumer, ids).await?;
            if let Some(due) = &due {
                lock(&self.way.ledger).took(self.way.life, group, consumer, &due.entries);
            }
            Ok(due)
        };
        self.way.around("claim_parked", call).await
    }

    async fn members(&self, spec: &GroupSpec) -> Result<usize> {
        self.way.around("members", self.inner.members(spec)).await
    }
}

#[async_trait]
impl Commons for Wire {
    async fn identity(&self, ours: &str) -> Result<String> {
        self.way.around("identity", self.inner.identity(ours)).await
    }

    async fn compare_clocks(&self) -> Result<()> {
        self.way.around("compare_clocks", self.inner.compare_clocks()).await
    }

    async fn documents(&self, on: Shelf, known: Option<u64>) -> Result<Option<Documents>> {
        self.way.around("documents", self.inner.documents(on, known)).await
    }

    async fn put_document(&self, on: Shelf, name: &str, before: Option<&str>, after: Option<&str>) -> Result<bool> {
        self.way.around("put_document", self.inner.put_document(on, name, before, after)).await
    }

    async fn take_places(&self, name: &str, rate: Rate, wanted: u32) -> Result<Taken> {
        self.way.around("take_places", self.inner.take_places(name, rate, wanted)).await
    }

    async fn first_sightings(&self, sightings: Vec<Sighting>) -> Result<Vec<String>> {
        self.way.around("first_sightings", self.inner.first_sightings(sightings)).await
    }

    async fn append_records(&self, batch: &ChainBatch) -> Result<()> {
        self.way.around("append_records", self.inner.append_records(batch)).await
    }

    async fn records(&self, bucket: Bucket, after: EntryId, to: EntryId, count: usize) -> Result<Vec<(EntryId, ChainRecord)>> {
        self.way.around("records", self.inner.records(bucket, after, to, count)).await
    }

    async fn chains(&self, bucket: Bucket) -> Result<Chains> {
        self.way.around("chains", self.inner.chains(bucket)).await
    }

    async fn trim_records(&self, bucket: Bucket, before_ms: u64, most: u64) -> Result<(u64, bool)> {
        self.way.around("trim_records", self.inner.trim_records(bucket, before_ms, most)).await
    }

    async fn record_counts(&self) -> Result<BTreeMap<Bucket, u64>> {
        self.way.around("record_counts", self.inner.record_counts()).await
    }

    async fn counts(&self) -> Result<(BTreeMap<String, i64>, BTreeMap<String, u64>)> {
        self.way.around("counts", self.inner.counts()).await
    }

    async fn attend(&self, members: &[String], life: Duration) -> Result<()> {
        self.way.around("attend", self.inner.attend(members, life)).await
    }

    async fn unattend(&self, members: &[String]) -> Result<()> {
        self.way.around("unattend", self.inner.unattend(members)).await
    }

    async fn attending(&self) -> Result<Vec<String>> {
        self.way.around("attending", self.inner.attending()).await
    }
}

#[async_trait]
impl Roster for Wire {
    async fn put_listing(
        &self,
        name: &str,
        before: Option<&Listing>,
        after: Option<&Listing>,
        turn: Turn,
        life: Option<Duration>,
    ) -> Result<bool> {
        self.way.around("put_listing", self.inner.put_listing(name, before, after, turn, life)).await
    }

    async fn renew_listings(&self, names: &[String], life: Duration) -> Result<Vec<String>> {
        self.way.around("renew_listings", self.inner.renew_listings(names, life)).await
    }

    async fn news(&self, known: Option<Place>) -> Result<Read> {
        self.way.around("news", self.inner.news(known)).await
    }

    async fn plan_errands(&self, errand: Errand, names: &[String], spread: Duration) -> Result<()> {
        self.way.around("plan_errands", self.inner.plan_errands(errand, names, spread)).await
    }

    async fn take_errands(&self, errand: Errand, most: usize, lease: Duration) -> Result<(Vec<Running>, Option<u64>)> {
        self.way.around("take_errands", self.inner.take_errands(errand, most, lease)).await
    }

    async fn end_errand(&self, errand: Errand, running: &Running, next: Option<Duration>) -> Result<bool> {
        self.way.around("end_errand", self.inner.end_errand(errand, running, next)).await
    }
}

#[async_trait]
impl Board for Wire {
    async fn lead(&self, who: &str, life: Duration) -> Result<Option<Lead>> {
        self.way.around("lead", self.inner.lead(who, life)).await
    }

    async fn resign(&self, turn: u64) -> Result<()> {
        self.way.around("resign", self.inner.resign(turn)).await
    }

    async fn write_board(&self, lead: Lead, write: &BoardWrite) -> Result<BoardWritten> {
        self.way.around("write_board", self.inner.write_board(lead, write)).await
    }

    async fn page(&self, table: Table, cursor: u64) -> Result<(Vec<(String, String)>, u64)> {
        self.way.around("page", self.inner.page(table, cursor)).await
    }

    async fn card(&self, table: Table, id: &str) -> Result<Option<String>> {
        self.way.around("card", self.inner.card(table, id)).await
    }

    async fn board_news(&self, known: u64) -> Result<BoardNews> {
        self.way.around("board_news", self.inner.board_news(known)).await
    }
}

#[async_trait]
impl Store for Wire {
    async fn open(&self) -> Result<()> {
        self.inner.open().await
    }

    async fn close(&self, deadline: Duration) {
        self.inner.close(deadline).await;
    }

    fn watch(&self, listener: Arc<dyn Fn(StoreEvent) + Send + Sync>) {
        self.inner.watch(listener);
    }

    fn now_ms(&self) -> u64 {
        self.inner.now_ms()
    }

    fn utilization(&self) -> f64 {
        self.inner.utilization()
    }

    async fn status(&self) -> StoreStatus {
        self.inner.status().await
    }

    async fn topology(&self) -> Result<Topology> {
        self.way.around("topology", self.inner.topology()).await
    }

    async fn layout(&self, event_type: &str) -> Result<StreamLayout> {
        self.way.around("layout", self.inner.layout(event_type)).await
    }

    async fn create_stream(&self, event_type: &str, layout: &StreamLayout) -> Result<()> {
        self.way.around("create_stream", self.inner.create_stream(event_type, layout)).await
    }

    async fn open_partition(&self, partition: &Partition) -> Result<()> {
        self.way.around("open_partition", self.inner.open_partition(partition)).await
    }

    async fn join(&self, spec: &GroupSpec, start: StartFrom, consumer: &str) -> Result<Vec<Partition>> {
        self.way.around("join", self.inner.join(spec, start, consumer)).await
    }

    async fn leave(&self, spec: &GroupSpec, consumer: &str) -> Result<()> {
        self.way.around("leave", self.inner.leave(spec, consumer)).await
    }

    async fn delete_group(&self, pattern: &str, group: &str) -> Result<bool> {
        self.way.around("delete_group", self.inner.delete_group(pattern, group)).await
    }

    async fn end_groups(&self) -> Result<Vec<GroupSpec>> {
        self.way.around("end_groups", self.inner.end_groups()).await
    }

    async fn unattended(&self) -> Result<Vec<GroupSpec>> {
        self.way.around("unattended", self.inner.unattended()).await
    }

    async fn restore_group(&self, partition: &Partition, group: &str, after: EntryId, seen: EntryId) -> Result<Restored> {
        self.way.around("restore_group", self.inner.restore_group(partition, group, after, seen)).await
    }

    fn append(&self, bucket: Bucket, events: Vec<NewEvent>) -> BoxFuture<'static, Vec<Result<Appended>>> {
        if self.way.machine.is_dead() {
            return Box::pin(std::future::pending());
        }
        let count = events.len();
        let partitions: BTreeSet<Partition> = events.iter().map(|event| event.partition.clone()).collect();
        let (fault, there, back) = self.way.chance();
        let failed = |code, what: &str| (0..count).map(|_| Err(Error::new(code, what))).collect();
        // Calls take effect in their order: it is the reply that is late.
        let results: Vec<Result<Appended>> = match fault {
            Some(Fault::NotReached) => failed(Code::Connection, "not reached"),
            Some(Fault::Refused) => failed(Code::Redis, "refused for good"),
            Some(Fault::ReplyLost) | None => {
                let results = self.inner.append(bucket, events).now_or_never().expect("memory answers at once");
                lock(&self.way.ledger).look(partitions);
                // What became of it is asked again; when that fails, too, the publisher does not know.
                if fault.is_some() { failed(Code::Timeout, "no answer in time") } else { results }
            }
        };
        Box::pin(async move {
            tokio::time::sleep(there + back).await;
            results
        })
    }

    fn reader(&self, group: &str) -> (Box<dyn Reader>, Arc<dyn Waker>) {
        let (inner, waker) = self.inner.reader(group);
        (Box::new(WireReader { group: group.to_owned(), inner, way: self.way.clone() }), waker)
    }

    async fn settle(&self, bucket: Bucket, group: &str, consumer: &str, entries: Vec<(Held, Disposal)>) -> Result<Vec<Settled>> {
        let sent = entries.clone();
        let call = async {
            let results = self.inner.settle(bucket, group, consumer, entries.clone()).await?;
            let done = entries.into_iter().zip(&results).map(|((held, disposal), result)| (held, disposal, *result));
            lock(&self.way.ledger).settled(self.way.life, group, done.collect());
            Ok(results)
        };
        let result = self.way.around("settle", call).await;
        if result.as_ref().is_err_and(|error| !error.retryable) {
            lock(&self.way.ledger).refused(group, &sent);
        }
        result
    }

    async fn due(&self, bucket: Bucket, group: &str) -> Result<DueIndex> {
        self.way.around("due", self.inner.due(bucket, group)).await
    }

    async fn claim_due(&self, partition: &Partition, group: &str, consumer: &str, max: usize) -> Result<Due> {
        let call = async {
            let due = self.inner.claim_due(partition, group, consumer, max).await?;
            lock(&self.way.ledger).took(self.way.life, group, consumer, &due.entries);
            Ok(due)
        };
        self.way.around("claim_due", call).await
    }

    async fn renew(&self, consumer: &str, buckets: &[Bucket], lease: Duration) -> Result<bool> {
        let call = async {
            let lease_ms = u64::try_from(lease.as_millis()).expect("short");
            lock(&self.way.ledger).renewed(consumer, buckets, lease_ms);
            self.inner.renew(consumer, buckets, lease).await
        };
        self.way.around("renew", call).await
    }

    async fn release(&self, consumer: &str, buckets: &[Bucket]) -> Result<()> {
        let call = async {
            lock(&self.way.ledger).released(consumer, buckets);
            self.inner.release(consumer, buckets).await
        };
        self.way.around("release", call).await
    }

    async fn pending(&self, partition: &Partition, group: &str, consumer: &str) -> Result<Vec<(EntryId, u32)>> {
        self.way.around("pending", self.inner.pending(partition, group, consumer)).await
    }

    async fn remove_consumer(&self, partition: &Partition, group: &str, consumer: &str) -> Result<bool> {
        self.way.around("remove_consumer", self.inner.remove_consumer(partition, group, consumer)).await
    }

    async fn look_after(&self, bucket: Bucket, holder: &str, lease: Duration) -> Result<bool> {
        self.way.around("look_after", self.inner.look_after(bucket, holder, lease)).await
    }

    async fn reap(&self, bucket: Bucket, max_crashes: u32) -> Result<Reaped> {
        let call = async {
            lock(&self.way.ledger).looked_for_dead();
            let reaped = self.inner.reap(bucket, max_crashes).await?;
            for crashed in &reaped.crashed {
                lock(&self.way.ledger).crashed(&crashed.group, &crashed.event_id);
            }
            Ok(reaped)
        };
        self.way.around("reap", call).await
    }

    async fn move_delayed(&self, bucket: Bucket) -> Result<(u64, Option<u64>)> {
        let call = async {
            let moved = self.inner.move_delayed(bucket).await?;
            if moved.0 > 0 {
                lock(&self.way.ledger).look_at_bucket(bucket);
            }
            Ok(moved)
        };
        self.way.around("move_delayed", call).await
    }

    async fn sweep(&self, partition: &Partition, keeping: &Keeping) -> Result<Swept> {
        let call = async {
            let swept = self.inner.sweep(partition, keeping).await?;
            lock(&self.way.ledger).swept(&swept);
            Ok(swept)
        };
        self.way.around("sweep", call).await
    }

    async fn inspect(&self, partition: &Partition) -> Result<Option<PartitionState>> {
        self.way.around("inspect", self.inner.inspect(partition)).await
    }

    async fn backlogs(&self, reads: &[(Partition, BTreeSet<String>)]) -> Result<Vec<Vec<Backlog>>> {
        self.way.around("backlogs", self.inner.backlogs(reads)).await
    }

    async fn added(&self, partitions: &[Partition]) -> Result<Vec<u64>> {
        self.way.around("added", self.inner.added(partitions)).await
    }

    async fn dead_letters(
        &self,
        query: &DeadLetterQuery,
        limit: usize,
        cursor: Option<&str>,
    ) -> Result<(Vec<StoredDeadLetter>, Option<String>)> {
        self.inner.dead_letters(query, limit, cursor).await
    }

    async fn count_dead_letters(&self, query: &DeadLetterQuery) -> Result<u64> {
        self.inner.count_dead_letters(query).await
    }

    async fn redrive(&self, query: &DeadLetterQuery) -> Result<u64> {
        self.inner.redrive(query).await
    }

    async fn purge(&self, query: &DeadLetterQuery) -> Result<u64> {
        self.inner.purge(query).await
    }

    async fn history(&self, partition: &Partition, after: EntryId, to: EntryId, count: usize) -> Result<Vec<Kept>> {
        self.way.around("history", self.inner.history(partition, after, to, count)).await
    }

    async fn last_entry(&self, partition: &Partition) -> Result<Option<EntryId>> {
        self.way.around("last_entry", self.inner.last_entry(partition)).await
    }

    async fn noted(&self, partition: &Partition, event_id: &str) -> Result<Noted> {
        self.way.around("noted", self.inner.noted(partition, event_id)).await
    }

    async fn search(&self, partition: &Partition, search: &Search) -> Result<Searched> {
        self.way.around("search", self.inner.search(partition, search)).await
    }

    async fn search_dead_letters(
        &self,
        partition: &Partition,
        event_id: &str,
        from: EntryId,
    ) -> Result<(Vec<StoredDeadLetter>, Option<EntryId>, usize)> {
        self.way.around("search_dead_letters", self.inner.search_dead_letters(partition, event_id, from)).await
    }

    async fn standing(&self, partition: &Partition, entries: &[(String, EntryId)]) -> Result<Vec<(String, Standing)>> {
        self.way.around("standing", self.inner.standing(partition, entries)).await
    }

    async fn post(&self, inbox: &str, messages: Vec<String>) -> Result<()> {
        self.way.around("post", self.inner.post(inbox, messages)).await
    }

    fn inbox(&self, name: &str) -> Box<dyn Inbox> {
        Box::new(WireInbox { inner: self.inner.inbox(name), way: self.way.clone() })
    }

    async fn remove_inbox(&self, name: &str) -> Result<()> {
        self.way.around("remove_inbox", self.inner.remove_inbox(name)).await
    }

    async fn decisions(&self, partition: &Partition, entry: EntryId) -> Result<Vec<(String, Decision)>> {
        self.way.around("decisions", self.inner.decisions(partition, entry)).await
    }

    fn cast(&self, bucket: Bucket, events: Vec<Transient>) -> BoxFuture<'static, Result<()>> {
        let (inner, way) = (self.inner.clone(), self.way.clone());
        Box::pin(async move { way.around("cast", inner.cast(bucket, events)).await })
    }

    async fn hear(&self, buckets: &BTreeSet<Bucket>) -> Result<()> {
        self.way.around("hear", self.inner.hear(buckets)).await
    }
}

struct WireInbox {
    inner: Box<dyn Inbox>,
    way: Arc<Way>,
}

#[async_trait]
impl Inbox for WireInbox {
    async fn receive(&mut self, wait: Duration) -> Result<Vec<String>> {
        self.way.around("receive", self.inner.receive(wait)).await
    }
}
