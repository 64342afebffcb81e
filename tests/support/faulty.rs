//! A store that fails as told: by switch, by count, or at random by a seed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use ossa::engine::error::{Code, Error, Result};
use ossa::engine::store::{
    Appended, Backlog, Board, BoardNews, BoardWrite, BoardWritten, Bucket, ChainBatch, ChainRecord, Chains, Commons, DeadLetterQuery,
    Decision, Disposal, Documents, Due, DueIndex, Entry, EntryId, Errand, Exclusive, GroupSpec, Held, Inbox, Keeping, Kept, Lead, Listing,
    NewEvent, Noted, Ownership, Parked, Partition, PartitionState, Place, Rate, Read, ReadError, ReadFrom, Reader, Reaped, Restored,
    Roster, Running, Search, Searched, Settled, Shelf, Sighting, Standing, StartFrom, Store, StoreEvent, StoreStatus, StoredDeadLetter,
    StreamLayout, Swept, Table, Taken, Topology, Transient, Turn, Waker,
};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::sync::watch;

/// How a call fails.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    /// Not at all: the one behind it is for the next call.
    Passes,
    /// The server never got it.
    NotReached,
    /// The server did it; its reply was lost.
    ReplyLost,
    /// The server answers an error that will not go away.
    Refused,
    /// The store has a defect.
    Panics,
}

/// What is to go wrong.
pub struct Faults {
    state: Mutex<State>,
    hangs: watch::Sender<bool>,
    renews: watch::Sender<bool>,
    deaf: watch::Sender<bool>,
}

struct State {
    next: HashMap<&'static str, Vec<Fault>>,
    /// Share of calls that fail, and the longest delay of any.
    random: Option<(SmallRng, f64, Duration)>,
    /// No call reaches the server.
    away: bool,
    calls: HashMap<&'static str, usize>,
    settled: Vec<(Held, Disposal, Settled)>,
}

impl Faults {
    fn new() -> Arc<Self> {
        let state = State { next: HashMap::new(), random: None, away: false, calls: HashMap::new(), settled: Vec::new() };
        Arc::new(Self {
            state: Mutex::new(state),
            hangs: watch::channel(false).0,
            renews: watch::channel(true).0,
            deaf: watch::channel(false).0,
        })
    }

    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.state.lock().expect("no panic while it is locked"))
    }

    /// The next calls of `operation` fail so, one after the other.
    pub fn next(&self, operation: &'static str, faults: &[Fault]) {
        self.with(|state| state.next.entry(operation).or_default().extend(faults.iter().rev()));
    }

    /// From now on this share of the calls fails, and each takes up to `delay`.
    pub fn at_random(&self, seed: u64, share: f64, delay: Duration) {
        self.with(|state| state.random = Some((SmallRng::seed_from_u64(seed), share, delay)));
    }

    /// Nothing fails at random any more.
    pub fn end(&self) {
        self.with(|state| state.random = None);
    }

    /// No call reaches the server, until it is back.
    pub fn be_away(&self, away: bool) {
        self.with(|state| state.away = away);
    }

    /// No call is answered, until it goes on.
    pub fn hang(&self, hangs: bool) {
        self.hangs.send_replace(hangs);
    }

    /// Leases are not renewed: the calls fail.
    pub fn renew(&self, renews: bool) {
        self.renews.send_replace(renews);
    }

    /// That documents or services changed is not heard.
    pub fn be_deaf(&self, deaf: bool) {
        self.deaf.send_replace(deaf);
    }

    /// Those that are told and did not happen yet, are not to happen any more.
    pub fn heal(&self, operation: &'static str) {
        self.with(|state| state.next.remove(operation));
    }

    fn told(&self, operation: &'static str) -> Option<Fault> {
        self.with(|state| state.next.get_mut(operation).and_then(Vec::pop))
    }

    /// Calls of `operation` so far.
    pub fn calls(&self, operation: &'static str) -> usize {
        self.with(|state| state.calls.get(operation).copied().unwrap_or(0))
    }

    /// What was settled, as the store did it.
    pub fn settled(&self) -> Vec<(Held, Disposal, Settled)> {
        self.with(|state| state.settled.clone())
    }

    async fn around<T>(&self, operation: &'static str, call: impl Future<Output = Result<T>>) -> Result<T> {
        let (fault, delay) = self.with(|state| {
            *state.calls.entry(operation).or_default() += 1;
            let told = state.next.get_mut(operation).and_then(Vec::pop).or(state.away.then_some(Fault::NotReached));
            let Some((random, share, longest)) = &mut state.random else { return (told, Duration::ZERO) };
            let fails = random.random_bool(*share);
            let fault = if random.random_bool(0.5) { Fault::NotReached } else { Fault::ReplyLost };
            (told.or(fails.then_some(fault)), longest.mul_f64(random.random()))
        });
        let mut hangs = self.hangs.subscribe();
        let _ = hangs.wait_for(|hangs| !hangs).await;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        match fault {
            None | Some(Fault::Passes) => call.await,
            Some(Fault::NotReached) => Err(Error::new(Code::Connection, "not reached")),
            Some(Fault::ReplyLost) => call.await.and(Err(Error::new(Code::Connection, "the reply was lost"))),
            Some(Fault::Refused) => Err(Error::new(Code::Redis, "refused for good")),
            Some(Fault::Panics) => panic!("a defect on purpose"),
        }
    }
}

/// The store.
pub struct Faulty {
    inner: Arc<dyn Store>,
    faults: Arc<Faults>,
}

impl Faulty {
    /// Over another store.
    pub fn over(inner: Arc<dyn Store>) -> (Arc<dyn Store>, Arc<Faults>) {
        let faults = Faults::new();
        (Arc::new(Self { inner, faults: faults.clone() }), faults)
    }
}

struct FaultyReader {
    inner: Box<dyn Reader>,
    faults: Arc<Faults>,
}

#[async_trait]
impl Reader for FaultyReader {
    async fn read(&mut self, consumer: &str, from: &[ReadFrom], count: usize, wait: Option<Duration>) -> Result<Vec<Entry>, ReadError> {
        let (mut other, inner) = (None, &mut self.inner);
        let call = async {
            match inner.read(consumer, from, count, wait).await {
                Ok(entries) => Ok(entries),
                Err(ReadError::Store(error)) => Err(error),
                Err(error) => {
                    other = Some(error);
                    Err(Error::internal("another one"))
                }
            }
        };
        let result = self.faults.around("read", call).await;
        result.map_err(|error| other.unwrap_or(ReadError::Store(error)))
    }
}

#[async_trait]
impl Exclusive for Faulty {
    async fn own(&self, partition: &Partition, group: &str, consumer: &str, held: &[EntryId]) -> Result<Ownership> {
        self.faults.around("own", self.inner.own(partition, group, consumer, held)).await
    }

    async fn disown(&self, partition: &Partition, group: &str, consumer: &str) -> Result<()> {
        self.faults.around("disown", self.inner.disown(partition, group, consumer)).await
    }

    async fn parked(&self, partition: &Partition, group: &str) -> Result<Vec<Parked>> {
        self.faults.around("parked", self.inner.parked(partition, group)).await
    }

    async fn claim_parked(&self, partition: &Partition, group: &str, consumer: &str, ids: &[EntryId]) -> Result<Option<Due>> {
        self.faults.around("claim_parked", self.inner.claim_parked(partition, group, consumer, ids)).await
    }

    async fn members(&self, spec: &GroupSpec) -> Result<usize> {
        self.inner.members(spec).await
    }
}

#[async_trait]
impl Commons for Faulty {
    async fn identity(&self, ours: &str) -> Result<String> {
        self.faults.around("identity", self.inner.identity(ours)).await
    }

    async fn compare_clocks(&self) -> Result<()> {
        self.faults.around("compare_clocks", self.inner.compare_clocks()).await
    }

    async fn documents(&self, on: Shelf, known: Option<u64>) -> Result<Option<Documents>> {
        self.faults.around("documents", self.inner.documents(on, known)).await
    }

    async fn put_document(&self, on: Shelf, name: &str, before: Option<&str>, after: Option<&str>) -> Result<bool> {
        self.faults.around("put_document", self.inner.put_document(on, name, before, after)).await
    }

    async fn take_places(&self, name: &str, rate: Rate, wanted: u32) -> Result<Taken> {
        self.faults.around("take_places", self.inner.take_places(name, rate, wanted)).await
    }

    async fn first_sightings(&self, sightings: Vec<Sighting>) -> Result<Vec<String>> {
        self.faults.around("first_sightings", self.inner.first_sightings(sightings)).await
    }

    async fn append_records(&self, batch: &ChainBatch) -> Result<()> {
        self.faults.around("append_records", self.inner.append_records(batch)).await
    }

    async fn records(&self, bucket: Bucket, after: EntryId, to: EntryId, count: usize) -> Result<Vec<(EntryId, ChainRecord)>> {
        self.faults.around("records", self.inner.records(bucket, after, to, count)).await
    }

    async fn chains(&self, bucket: Bucket) -> Result<Chains> {
        self.faults.around("chains", self.inner.chains(bucket)).await
    }

    async fn trim_records(&self, bucket: Bucket, before_ms: u64, most: u64) -> Result<(u64, bool)> {
        self.faults.around("trim_records", self.inner.trim_records(bucket, before_ms, most)).await
    }

    async fn record_counts(&self) -> Result<BTreeMap<Bucket, u64>> {
        self.faults.around("record_counts", self.inner.record_counts()).await
    }

    async fn counts(&self) -> Result<(BTreeMap<String, i64>, BTreeMap<String, u64>)> {
        self.faults.around("counts", self.inner.counts()).await
    }

    async fn attend(&self, members: &[String], life: Duration) -> Result<()> {
        self.faults.around("attend", self.inner.attend(members, life)).await
    }

    async fn unattend(&self, members: &[String]) -> Result<()> {
        self.faults.around("unattend", self.inner.unattend(members)).await
    }

    async fn attending(&self) -> Result<Vec<String>> {
        self.faults.around("attending", self.inner.attending()).await
    }
}

#[async_trait]
impl Roster for Faulty {
    async fn put_listing(
        &self,
        name: &str,
        before: Option<&Listing>,
        after: Option<&Listing>,
        turn: Turn,
        life: Option<Duration>,
    ) -> Result<bool> {
        self.faults.around("put_listing", self.inner.put_listing(name, before, after, turn, life)).await
    }

    async fn renew_listings(&self, names: &[String], life: Duration) -> Result<Vec<String>> {
        self.faults.around("renew_listings", self.inner.renew_listings(names, life)).await
    }

    async fn news(&self, known: Option<Place>) -> Result<Read> {
        self.faults.around("news", self.inner.news(known)).await
    }

    async fn plan_errands(&self, errand: Errand, names: &[String], spread: Duration) -> Result<()> {
        self.faults.around("plan_errands", self.inner.plan_errands(errand, names, spread)).await
    }

    async fn take_errands(&self, errand: Errand, most: usize, lease: Duration) -> Result<(Vec<Running>, Option<u64>)> {
        self.faults.around("take_errands", self.inner.take_errands(errand, most, lease)).await
    }

    async fn end_errand(&self, errand: Errand, running: &Running, next: Option<Duration>) -> Result<bool> {
        self.faults.around("end_errand", self.inner.end_errand(errand, running, next)).await
    }
}

#[async_trait]
impl Board for Faulty {
    async fn lead(&self, who: &str, life: Duration) -> Result<Option<Lead>> {
        self.faults.around("lead", self.inner.lead(who, life)).await
    }

    async fn resign(&self, turn: u64) -> Result<()> {
        self.faults.around("resign", self.inner.resign(turn)).await
    }

    async fn write_board(&self, lead: Lead, write: &BoardWrite) -> Result<BoardWritten> {
        self.faults.around("write_board", self.inner.write_board(lead, write)).await
    }

    async fn page(&self, table: Table, cursor: u64) -> Result<(Vec<(String, String)>, u64)> {
        self.faults.around("page", self.inner.page(table, cursor)).await
    }

    async fn card(&self, table: Table, id: &str) -> Result<Option<String>> {
        self.faults.around("card", self.inner.card(table, id)).await
    }

    async fn board_news(&self, known: u64) -> Result<BoardNews> {
        self.faults.around("board_news", self.inner.board_news(known)).await
    }
}

#[async_trait]
impl Store for Faulty {
    async fn open(&self) -> Result<()> {
        self.inner.open().await
    }

    async fn close(&self, deadline: Duration) {
        self.inner.close(deadline).await;
    }

    fn watch(&self, listener: Arc<dyn Fn(StoreEvent) + Send + Sync>) {
        let deaf = self.faults.deaf.subscribe();
        self.inner.watch(Arc::new(move |event| {
            if !matches!(event, StoreEvent::DocumentsChanged | StoreEvent::ServicesChanged | StoreEvent::BoardChanged) || !*deaf.borrow() {
                listener(event);
            }
        }));
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
        self.faults.around("topology", self.inner.topology()).await
    }

    async fn layout(&self, event_type: &str) -> Result<StreamLayout> {
        self.faults.around("layout", self.inner.layout(event_type)).await
    }

    async fn create_stream(&self, event_type: &str, layout: &StreamLayout) -> Result<()> {
        self.faults.around("create_stream", self.inner.create_stream(event_type, layout)).await
    }

    async fn open_partition(&self, partition: &Partition) -> Result<()> {
        self.inner.open_partition(partition).await
    }

    async fn join(&self, spec: &GroupSpec, start: StartFrom, consumer: &str) -> Result<Vec<Partition>> {
        self.faults.around("join", self.inner.join(spec, start, consumer)).await
    }

    async fn leave(&self, spec: &GroupSpec, consumer: &str) -> Result<()> {
        self.faults.around("leave", self.inner.leave(spec, consumer)).await
    }

    async fn delete_group(&self, pattern: &str, group: &str) -> Result<bool> {
        self.faults.around("delete_group", self.inner.delete_group(pattern, group)).await
    }

    async fn end_groups(&self) -> Result<Vec<GroupSpec>> {
        self.faults.around("end_groups", self.inner.end_groups()).await
    }

    async fn unattended(&self) -> Result<Vec<GroupSpec>> {
        self.faults.around("unattended", self.inner.unattended()).await
    }

    async fn restore_group(&self, partition: &Partition, group: &str, after: EntryId, seen: EntryId) -> Result<Restored> {
        self.faults.around("restore_group", self.inner.restore_group(partition, group, after, seen)).await
    }

    fn append(&self, bucket: Bucket, events: Vec<NewEvent>) -> BoxFuture<'static, Vec<Result<Appended>>> {
        let count = events.len();
        let all = move |error: Error| (0..count).map(|_| Err(error.clone())).collect();
        match self.faults.told("append") {
            None | Some(Fault::Passes) => self.inner.append(bucket, events),
            Some(Fault::NotReached) => Box::pin(async move { all(Error::new(Code::Connection, "not reached")) }),
            Some(Fault::Refused) => Box::pin(async move { all(Error::new(Code::Redis, "refused for good")) }),
            Some(Fault::Panics) => Box::pin(async { panic!("a defect on purpose") }),
            Some(Fault::ReplyLost) => {
                let appended = self.inner.append(bucket, events);
                Box::pin(async move {
                    appended.await;
                    all(Error::new(Code::Connection, "the reply was lost"))
                })
            }
        }
    }

    fn reader(&self, group: &str) -> (Box<dyn Reader>, Arc<dyn Waker>) {
        let (inner, waker) = self.inner.reader(group);
        (Box::new(FaultyReader { inner, faults: self.faults.clone() }), waker)
    }

    async fn settle(&self, bucket: Bucket, group: &str, consumer: &str, entries: Vec<(Held, Disposal)>) -> Result<Vec<Settled>> {
        let call = async {
            let results = self.inner.settle(bucket, group, consumer, entries.clone()).await?;
            let done = entries.into_iter().zip(&results).map(|((held, disposal), result)| (held, disposal, *result));
            self.faults.with(|state| state.settled.extend(done));
            Ok(results)
        };
        self.faults.around("settle", call).await
    }

    async fn due(&self, bucket: Bucket, group: &str) -> Result<DueIndex> {
        self.faults.around("due", self.inner.due(bucket, group)).await
    }

    async fn claim_due(&self, partition: &Partition, group: &str, consumer: &str, max: usize) -> Result<Due> {
        self.faults.around("claim_due", self.inner.claim_due(partition, group, consumer, max)).await
    }

    async fn renew(&self, consumer: &str, buckets: &[Bucket], lease: Duration) -> Result<bool> {
        if !*self.faults.renews.borrow() {
            return Err(Error::new(Code::Connection, "no lease is renewed"));
        }
        self.faults.around("renew", self.inner.renew(consumer, buckets, lease)).await
    }

    async fn release(&self, consumer: &str, buckets: &[Bucket]) -> Result<()> {
        self.faults.around("release", self.inner.release(consumer, buckets)).await
    }

    async fn pending(&self, partition: &Partition, group: &str, consumer: &str) -> Result<Vec<(EntryId, u32)>> {
        self.faults.around("pending", self.inner.pending(partition, group, consumer)).await
    }

    async fn remove_consumer(&self, partition: &Partition, group: &str, consumer: &str) -> Result<bool> {
        self.faults.around("remove_consumer", self.inner.remove_consumer(partition, group, consumer)).await
    }

    async fn look_after(&self, bucket: Bucket, holder: &str, lease: Duration) -> Result<bool> {
        self.faults.around("look_after", self.inner.look_after(bucket, holder, lease)).await
    }

    async fn reap(&self, bucket: Bucket, max_crashes: u32) -> Result<Reaped> {
        self.faults.around("reap", self.inner.reap(bucket, max_crashes)).await
    }

    async fn move_delayed(&self, bucket: Bucket) -> Result<(u64, Option<u64>)> {
        self.faults.around("move_delayed", self.inner.move_delayed(bucket)).await
    }

    async fn sweep(&self, partition: &Partition, keeping: &Keeping) -> Result<Swept> {
        self.faults.around("sweep", self.inner.sweep(partition, keeping)).await
    }

    async fn inspect(&self, partition: &Partition) -> Result<Option<PartitionState>> {
        self.inner.inspect(partition).await
    }

    async fn backlogs(&self, reads: &[(Partition, BTreeSet<String>)]) -> Result<Vec<Vec<Backlog>>> {
        self.faults.around("backlogs", self.inner.backlogs(reads)).await
    }

    async fn added(&self, partitions: &[Partition]) -> Result<Vec<u64>> {
        self.inner.added(partitions).await
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
        self.faults.around("history", self.inner.history(partition, after, to, count)).await
    }

    async fn last_entry(&self, partition: &Partition) -> Result<Option<EntryId>> {
        self.faults.around("last_entry", self.inner.last_entry(partition)).await
    }

    async fn noted(&self, partition: &Partition, event_id: &str) -> Result<Noted> {
        self.faults.around("noted", self.inner.noted(partition, event_id)).await
    }

    async fn search(&self, partition: &Partition, search: &Search) -> Result<Searched> {
        self.faults.around("search", self.inner.search(partition, search)).await
    }

    async fn search_dead_letters(
        &self,
        partition: &Partition,
        event_id: &str,
        from: EntryId,
    ) -> Result<(Vec<StoredDeadLetter>, Option<EntryId>, usize)> {
        self.faults.around("search_dead_letters", self.inner.search_dead_letters(partition, event_id, from)).await
    }

    async fn standing(&self, partition: &Partition, entries: &[(String, EntryId)]) -> Result<Vec<(String, Standing)>> {
        self.faults.around("standing", self.inner.standing(partition, entries)).await
    }

    async fn post(&self, inbox: &str, messages: Vec<String>) -> Result<()> {
        self.faults.around("post", self.inner.post(inbox, messages)).await
    }

    fn inbox(&self, name: &str) -> Box<dyn Inbox> {
        Box::new(FaultyInbox { inner: self.inner.inbox(name), faults: self.faults.clone() })
    }

    async fn remove_inbox(&self, name: &str) -> Result<()> {
        self.faults.around("remove_inbox", self.inner.remove_inbox(name)).await
    }

    async fn decisions(&self, partition: &Partition, entry: EntryId) -> Result<Vec<(String, Decision)>> {
        self.faults.around("decisions", self.inner.decisions(partition, entry)).await
    }

    fn cast(&self, bucket: Bucket, events: Vec<Transient>) -> BoxFuture<'static, Result<()>> {
        let (inner, faults) = (self.inner.clone(), self.faults.clone());
        Box::pin(async move { faults.around("cast", inner.cast(bucket, events)).await })
    }

    async fn hear(&self, buckets: &BTreeSet<Bucket>) -> Result<()> {
        self.faults.around("hear", self.inner.hear(buckets)).await
    }
}

struct FaultyInbox {
    inner: Box<dyn Inbox>,
    faults: Arc<Faults>,
}

#[async_trait]
impl Inbox for FaultyInbox {
    async fn receive(&mut self, wait: Duration) -> Result<Vec<String>> {
        self.faults.around("receive", self.inner.receive(wait)).await
    }
}
