//! The embedded store of `memory://`: the semantics of the Redis store, within the process.
//!
//! Reading order: `entries` and `stream` (one partition), `append` (how events come in), `reader` (how they go out),
//! `settle` (what becomes of them), `lease` (who is alive), `deleting` (how groups
//! end), `dead_letters`, `sweep` (what goes), `chains`, `commons`, `roster` and `board` (what is beside events), `state` (all of it
//! under one lock), `shared` (who shares it).

mod append;
mod asking;
mod board;
mod chains;
mod commons;
mod dead_letters;
mod deleting;
mod entries;
mod exclusive;
mod history;
mod lease;
mod reader;
mod roster;
mod settle;
mod shared;
mod state;
mod stream;
mod sweep;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::BoxFuture;

use self::asking::MemoryInbox;
use self::lease::KnownLeases;
use self::reader::{MemoryReader, MemoryWaker};
use self::shared::{Listener, Name, Session, Shared};
use self::state::State;
use super::{
    Appended, Backlog, Body, Bucket, DeadLetterQuery, Decision, Disposal, Due, DueIndex, EntryId, GroupSpec, Held, Inbox, Keeping, Kept,
    NewEvent, Noted, Partition, PartitionState, Reader, Reaped, Restored, Search, Searched, Settled, Standing, StartFrom, Store,
    StoreEvent, StoreStatus, StoredDeadLetter, StreamLayout, Swept, Topology, Transient, Waker,
};
use crate::engine::env::{Env, lock};
use crate::engine::error::{Error, Result};

/// One user of a store in memory. What it holds lives as long as its users.
pub struct MemoryStore {
    env: Env,
    name: Option<Name>,
    link: Mutex<Link>,
    listener: Mutex<Option<Listener>>,
    leases: Mutex<KnownLeases>,
}

/// What connects a user to the store. A private store stays with its user over a close; a named one is let go.
struct Link {
    shared: Option<Arc<Shared>>,
    session: Arc<Session>,
}

impl MemoryStore {
    /// A store that no one else sees.
    pub fn private(env: Env) -> Arc<Self> {
        let shared = Shared::private(env.clone());
        Self::over(shared, env, None)
    }

    /// The store of that name and key prefix in this process; it is gone when its last user closed it or was
    /// dropped. Its clock is that of its first user.
    pub fn named(name: &str, key_prefix: &str, env: Env) -> Arc<Self> {
        let name = (name.to_owned(), key_prefix.to_owned());
        let shared = Shared::named(&name, env.clone());
        Self::over(shared, env, Some(name))
    }

    fn over(shared: Arc<Shared>, env: Env, name: Option<Name>) -> Arc<Self> {
        let session = Arc::new(Session::default());
        shared.admit(&session);
        Arc::new(Self {
            env,
            name,
            link: Mutex::new(Link { shared: Some(shared), session }),
            listener: Mutex::default(),
            leases: Mutex::default(),
        })
    }

    /// Adds an entry that this bus did not write, as any program can add one to a stream in Redis: for tests of
    /// what becomes of such entries.
    ///
    /// # Errors
    /// `ERR_INVALID_ARGUMENT` when the partition is not known.
    pub fn add_foreign(&self, partition: &Partition, fields: Vec<(Vec<u8>, Vec<u8>)>) -> Result<()> {
        self.with(|state, now_ms| {
            let stream = state.stream_mut(partition);
            let stream = stream.ok_or_else(|| Error::argument("partition", format!("{partition} is not known")))?;
            stream.entries.add(Body::Foreign(fields), now_ms);
            state.signal(partition);
            Ok(())
        })?
    }

    fn shared(&self) -> Result<Arc<Shared>> {
        let link = lock(&self.link);
        let shared = link.shared.clone().filter(|_| !link.session.is_closed());
        shared.ok_or_else(|| Error::closed("the memory store"))
    }

    /// One step on the state, at one time.
    fn with<T>(&self, step: impl FnOnce(&mut State, u64) -> T) -> Result<T> {
        let shared = self.shared()?;
        let now_ms = shared.env.now_ms();
        let done = step(&mut lock(&shared.state), now_ms);
        Ok(done)
    }

    /// A step that may change the topology, which it says.
    fn with_news<T>(&self, step: impl FnOnce(&mut State, u64) -> (T, bool)) -> Result<T> {
        let shared = self.shared()?;
        let now_ms = shared.env.now_ms();
        let (done, changed) = step(&mut lock(&shared.state), now_ms);
        if changed {
            shared.announce(&StoreEvent::TopologyChanged);
        }
        Ok(done)
    }
}

impl Drop for MemoryStore {
    /// Reads that still wait end.
    fn drop(&mut self) {
        lock(&self.link).session.close();
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn open(&self) -> Result<()> {
        let mut link = lock(&self.link);
        if !link.session.is_closed() {
            return Ok(());
        }
        let shared = link.shared.take().unwrap_or_else(|| match &self.name {
            Some(name) => Shared::named(name, self.env.clone()),
            None => Shared::private(self.env.clone()),
        });
        let session = Arc::new(Session::default());
        lock(&session.listener).clone_from(&lock(&self.listener));
        shared.admit(&session);
        *link = Link { shared: Some(shared), session };
        Ok(())
    }

    async fn close(&self, _deadline: Duration) {
        {
            let mut link = lock(&self.link);
            link.session.close();
            if self.name.is_some() {
                link.shared = None;
            }
        }
        lock(&self.leases).clear();
    }

    fn watch(&self, listener: Listener) {
        *lock(&lock(&self.link).session.listener) = Some(listener.clone());
        *lock(&self.listener) = Some(listener);
    }

    fn now_ms(&self) -> u64 {
        self.shared().map_or_else(|_| self.env.now_ms(), |shared| shared.env.now_ms())
    }

    fn utilization(&self) -> f64 {
        0.0
    }

    async fn status(&self) -> StoreStatus {
        StoreStatus { connected: self.shared().is_ok(), ..StoreStatus::default() }
    }

    async fn topology(&self) -> Result<Topology> {
        self.with(|state, _| state.topology())
    }

    async fn layout(&self, event_type: &str) -> Result<StreamLayout> {
        self.with(|state, _| state.layout(event_type))
    }

    async fn create_stream(&self, event_type: &str, layout: &StreamLayout) -> Result<()> {
        self.with_news(|state, _| (state.create_stream(event_type, layout), true))?
    }

    async fn open_partition(&self, partition: &Partition) -> Result<()> {
        self.with_news(|state, _| ((), state.open_partition(partition)))
    }

    async fn join(&self, spec: &GroupSpec, start: StartFrom, consumer: &str) -> Result<Vec<Partition>> {
        self.with_news(|state, now_ms| match state.join(spec, start, consumer, now_ms) {
            Ok((partitions, changed)) => (Ok(partitions), changed),
            Err(error) => (Err(error), false),
        })?
    }

    async fn leave(&self, spec: &GroupSpec, consumer: &str) -> Result<()> {
        self.with_news(|state, now_ms| {
            state.leave(spec, consumer, now_ms);
            ((), spec.is_ephemeral())
        })
    }

    async fn delete_group(&self, pattern: &str, group: &str) -> Result<bool> {
        self.with_news(|state, now_ms| {
            let deleted = state.delete_group(pattern, group, now_ms);
            let changed = matches!(deleted, Ok(true));
            (deleted, changed)
        })?
    }

    async fn end_groups(&self) -> Result<Vec<GroupSpec>> {
        self.with_news(|state, now_ms| {
            let ended = state.end_groups(now_ms);
            let changed = !ended.is_empty();
            (ended, changed)
        })
    }

    async fn unattended(&self) -> Result<Vec<GroupSpec>> {
        self.with(|state, now_ms| state.unattended(now_ms))
    }

    async fn restore_group(&self, partition: &Partition, group: &str, after: EntryId, seen: EntryId) -> Result<Restored> {
        self.with(|state, _| state.restore_group(partition, group, after, seen))
    }

    fn append(&self, bucket: Bucket, events: Vec<NewEvent>) -> BoxFuture<'static, Vec<Result<Appended>>> {
        let count = events.len();
        let results = self.with_news(|state, now_ms| state.append(bucket, events, now_ms));
        let results = results.unwrap_or_else(|error| (0..count).map(|_| Err(error.clone())).collect());
        Box::pin(std::future::ready(results))
    }

    fn reader(&self, group: &str) -> (Box<dyn Reader>, Arc<dyn Waker>) {
        let link = lock(&self.link);
        let grown = link.shared.as_ref().map(|shared| lock(&shared.state).reader_signal(group));
        let wake = Arc::new(MemoryWaker::default());
        let reader = MemoryReader {
            group: group.to_owned(),
            shared: link.shared.as_ref().map(Arc::downgrade).unwrap_or_default(),
            session: link.session.clone(),
            grown: grown.unwrap_or_default(),
            wake: wake.clone(),
        };
        (Box::new(reader), wake)
    }

    async fn settle(&self, bucket: Bucket, group: &str, consumer: &str, entries: Vec<(Held, Disposal)>) -> Result<Vec<Settled>> {
        self.with(|state, now_ms| state.settle(bucket, group, consumer, entries, now_ms))?
    }

    async fn due(&self, bucket: Bucket, group: &str) -> Result<DueIndex> {
        self.with(|state, now_ms| state.due(bucket, group, now_ms))
    }

    async fn claim_due(&self, partition: &Partition, group: &str, consumer: &str, max: usize) -> Result<Due> {
        self.with(|state, now_ms| state.claim_due(partition, group, consumer, max, now_ms))
    }

    async fn renew(&self, consumer: &str, buckets: &[Bucket], lease: Duration) -> Result<bool> {
        let mut known = lock(&self.leases);
        self.with(|state, now_ms| state.renew(&mut known, consumer, buckets, ms(lease), now_ms))
    }

    async fn release(&self, consumer: &str, buckets: &[Bucket]) -> Result<()> {
        let mut known = lock(&self.leases);
        self.with(|state, _| state.release(&mut known, consumer, buckets))
    }

    async fn pending(&self, partition: &Partition, group: &str, consumer: &str) -> Result<Vec<(EntryId, u32)>> {
        self.with(|state, _| state.pending(partition, group, consumer))
    }

    async fn remove_consumer(&self, partition: &Partition, group: &str, consumer: &str) -> Result<bool> {
        self.with(|state, _| state.remove_consumer(partition, group, consumer))
    }

    async fn look_after(&self, bucket: Bucket, holder: &str, lease: Duration) -> Result<bool> {
        self.with(|state, now_ms| state.look_after(bucket, holder, ms(lease), now_ms))
    }

    async fn reap(&self, bucket: Bucket, max_crashes: u32) -> Result<Reaped> {
        self.with(|state, now_ms| state.reap(bucket, max_crashes, now_ms))
    }

    async fn move_delayed(&self, bucket: Bucket) -> Result<(u64, Option<u64>)> {
        self.with(|state, now_ms| state.move_delayed(bucket, now_ms))
    }

    async fn sweep(&self, partition: &Partition, keeping: &Keeping) -> Result<Swept> {
        self.with(|state, now_ms| state.sweep(partition, keeping, now_ms))
    }

    async fn inspect(&self, partition: &Partition) -> Result<Option<PartitionState>> {
        self.with(|state, now_ms| state.inspect(partition, now_ms))
    }

    async fn backlogs(&self, reads: &[(Partition, BTreeSet<String>)]) -> Result<Vec<Vec<Backlog>>> {
        self.with(|state, _| reads.iter().map(|(partition, groups)| state.backlogs(partition, groups)).collect())
    }

    async fn added(&self, partitions: &[Partition]) -> Result<Vec<u64>> {
        self.with(|state, _| partitions.iter().map(|partition| state.added(partition)).collect())
    }

    async fn dead_letters(
        &self,
        query: &DeadLetterQuery,
        limit: usize,
        cursor: Option<&str>,
    ) -> Result<(Vec<StoredDeadLetter>, Option<String>)> {
        self.with(|state, _| state.dead_letters(query, limit, cursor))?
    }

    async fn count_dead_letters(&self, query: &DeadLetterQuery) -> Result<u64> {
        self.with(|state, _| state.count_dead_letters(query))?
    }

    async fn redrive(&self, query: &DeadLetterQuery) -> Result<u64> {
        self.with(|state, now_ms| state.redrive(query, now_ms))?
    }

    async fn purge(&self, query: &DeadLetterQuery) -> Result<u64> {
        self.with(|state, _| state.purge(query))?
    }

    async fn history(&self, partition: &Partition, after: EntryId, to: EntryId, count: usize) -> Result<Vec<Kept>> {
        self.with(|state, _| state.history(partition, after, to, count))
    }

    async fn last_entry(&self, partition: &Partition) -> Result<Option<EntryId>> {
        self.with(|state, _| state.last_entry(partition))
    }

    async fn noted(&self, partition: &Partition, event_id: &str) -> Result<Noted> {
        self.with(|state, _| state.noted(partition, event_id))
    }

    async fn search(&self, partition: &Partition, search: &Search) -> Result<Searched> {
        self.with(|state, _| state.search(partition, search))
    }

    async fn search_dead_letters(
        &self,
        partition: &Partition,
        event_id: &str,
        from: EntryId,
    ) -> Result<(Vec<StoredDeadLetter>, Option<EntryId>, usize)> {
        self.with(|state, _| state.search_dead_letters(partition, event_id, from))
    }

    async fn standing(&self, partition: &Partition, entries: &[(String, EntryId)]) -> Result<Vec<(String, Standing)>> {
        self.with(|state, _| state.standing(partition, entries))
    }

    async fn post(&self, inbox: &str, messages: Vec<String>) -> Result<()> {
        self.with(|state, now_ms| state.post(inbox, messages, now_ms))
    }

    fn inbox(&self, name: &str) -> Box<dyn Inbox> {
        let link = lock(&self.link);
        let shared = link.shared.as_ref().map(Arc::downgrade).unwrap_or_default();
        Box::new(MemoryInbox { name: name.to_owned(), shared, session: link.session.clone(), seen: 0 })
    }

    async fn remove_inbox(&self, name: &str) -> Result<()> {
        self.with(|state, _| drop(state.inboxes.remove(name)))
    }

    async fn decisions(&self, partition: &Partition, entry: EntryId) -> Result<Vec<(String, Decision)>> {
        self.with(|state, _| state.decisions(partition, entry))
    }

    fn cast(&self, _bucket: Bucket, events: Vec<Transient>) -> BoxFuture<'static, Result<()>> {
        let cast = self.shared().map(|shared| {
            for event in events {
                shared.announce(&StoreEvent::Transient(Arc::new(event)));
            }
        });
        Box::pin(std::future::ready(cast))
    }

    async fn hear(&self, buckets: &BTreeSet<Bucket>) -> Result<()> {
        self.shared()?;
        lock(&lock(&self.link).session.hears).clone_from(buckets);
        Ok(())
    }
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
