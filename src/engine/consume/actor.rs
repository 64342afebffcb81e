//! The task that owns all deliveries of a bus: entries in from readers and claims, out to handlers, their verdicts in,
//! settlements out. Everything in it happens one after the other; everything slow happens beside it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::{BoxFuture, join_all};
use futures_util::stream::FuturesUnordered;
use serde_json::json;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::flush::{Flushed, Flusher, Lane, Note, Settlement};
use super::group::{Group, Plan, Sub};
use super::held::{Deliveries, InFlight, Key, Overdue};
use super::{Command, ConsumeSettings, LEASE, Lease, Subscribed, Verdict};
use crate::engine::env::Env;
use crate::engine::error::{Error, Result};
use crate::engine::event::MetaView;
use crate::engine::host::{Delivery, EventText, Host, Kind, Lifecycle, Token};
use crate::engine::metrics::Metrics;
use crate::engine::name;
use crate::engine::options::{Start, SubscribeOptions};
use crate::engine::settle::{self, Case, Failure};
use crate::engine::store::{
    Body, Bucket, DeadReason, Disposal, Due, DueIndex, Entry, EntryId, GroupSpec, Held, Partition, ReadError, Reader, Settled, StartFrom,
    Store,
};

/// How often due redeliveries of others are looked for. Own ones are known to the millisecond.
const DUE_POLL: Duration = Duration::from_millis(500);
/// How often what is pending is compared with what is held, and the topology is read again.
const COMPARE_EVERY: Duration = Duration::from_secs(5);
/// Settlements that may wait for the server before nothing more is read.
const UNSETTLED_MAX: usize = 10_000;
/// Time for handing back and removing consumers when a bus stops.
const HAND_BACK_MAX: Duration = Duration::from_secs(2);
/// Pauses of a reader after failures.
const READ_PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// What others look at.
pub struct Counters {
    /// Subscriptions open.
    pub subscriptions: Arc<AtomicUsize>,
    /// Entries in flight.
    pub in_flight: Arc<AtomicUsize>,
    /// Counters of the bus.
    pub metrics: Arc<Metrics>,
}

/// `<service>-<pid>-<random>`, new for each life of a consumer.
pub fn consumer_name(settings: &ConsumeSettings, env: &Env) -> Arc<str> {
    format!("{}-{}", settings.consumer_prefix, env.hex(8)).into()
}

/// What comes back from work beside the task.
enum Done {
    Read(Arc<str>, ReadResult, mpsc::Receiver<ReadResult>),
    Leased(Vec<Arc<str>>),
    Looked(Arc<str>, Result<DueIndex>),
    Claimed { group: Arc<str>, consumer: Arc<str>, partition: Partition, reserved: Vec<(u32, usize)>, asked: usize, result: Result<Due> },
    Flushed(Flushed),
    Joined { id: u32, group: Arc<str>, result: Result<Vec<Partition>> },
    Types(Result<Vec<Partition>>),
    Ready { group: Arc<str>, partitions: Vec<Partition> },
    Compared { group: Arc<str>, consumer: Arc<str>, pending: Vec<(Partition, Vec<(EntryId, u32)>)> },
    Nothing,
}

/// Under which consumer was read, and what came.
type ReadResult = (Arc<str>, Result<Vec<Entry>, ReadError>);
type Work = BoxFuture<'static, Done>;

struct Joining {
    sub: Sub,
    reply: oneshot::Sender<Subscribed>,
}

struct Closing {
    id: u32,
    group: Arc<str>,
    deadline: Instant,
    reply: oneshot::Sender<Result<()>>,
}

/// The task.
pub struct Actor {
    settings: ConsumeSettings,
    store: Arc<dyn Store>,
    host: Arc<dyn Host>,
    env: Env,
    counters: Counters,
    lease: Arc<Lease>,
    consumer: Arc<str>,
    groups: BTreeMap<Arc<str>, Group>,
    deliveries: Deliveries,
    flusher: Flusher,
    joining: HashMap<u32, Joining>,
    closing: Vec<Closing>,
    stopping: Option<(Instant, oneshot::Sender<()>)>,
    stalled: bool,
    work: FuturesUnordered<Work>,
    out: Vec<Delivery>,
    said: Vec<Lifecycle>,
    confirmed: Vec<(u32, Option<Error>)>,
    compare_at: Instant,
}

impl Actor {
    /// Nothing subscribed yet.
    pub fn new(
        settings: ConsumeSettings,
        store: Arc<dyn Store>,
        host: Arc<dyn Host>,
        env: Env,
        counters: Counters,
        lease: Arc<Lease>,
    ) -> Self {
        let consumer = lease.current().0;
        Self {
            settings,
            store,
            host,
            env,
            counters,
            lease,
            consumer,
            groups: BTreeMap::new(),
            deliveries: Deliveries::default(),
            flusher: Flusher::default(),
            joining: HashMap::new(),
            closing: Vec::new(),
            stopping: None,
            stalled: false,
            work: FuturesUnordered::new(),
            out: Vec::new(),
            said: Vec::new(),
            confirmed: Vec::new(),
            compare_at: Instant::now() + COMPARE_EVERY,
        }
    }

    /// Runs until stopped, or until nobody can tell it anything any more.
    pub async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Command>) {
        loop {
            let wake = self.next_timer();
            tokio::select! {
                command = inbox.recv() => match command {
                    Some(command) => {
                        self.command(command);
                        while let Ok(command) = inbox.try_recv() {
                            self.command(command);
                        }
                    }
                    None => return,
                },
                Some(done) = self.work.next(), if !self.work.is_empty() => self.done(done),
                () = tokio::time::sleep_until(wake) => {}
            }
            self.timers();
            self.pump();
            if let Some((deadline, _)) = &self.stopping
                && (self.deliveries.len() == 0 || Instant::now() >= *deadline)
            {
                self.finish().await;
                return;
            }
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Subscribe { id, pattern, options, reply } => self.subscribe(id, pattern, options, reply),
            Command::Unsubscribe { id, deadline, reply } => self.unsubscribe(id, deadline, reply),
            Command::Pause(id, paused) => self.pause(id, paused),
            Command::Settle(verdicts, confirm) => self.verdicts(verdicts, confirm),
            Command::TopologyChanged => self.read_types(),
            Command::Reconnected => {
                self.read_types();
                self.groups.values_mut().for_each(|group| group.compare_wanted = true);
            }
            Command::Lapsed => self.lapsed(),
            Command::Stalled(stalled) => self.set_stalled(stalled),
            Command::Stop { deadline, reply } => {
                for group in self.groups.values_mut() {
                    group.subs.iter_mut().for_each(|sub| sub.closing = Some(deadline));
                    group.waker.wake();
                }
                for (_, joining) in self.joining.drain() {
                    let _ = joining.reply.send(Err(Error::closed("the bus")));
                }
                self.hand_back_waiting();
                self.stopping = Some((deadline, reply));
            }
        }
    }

    fn done(&mut self, done: Done) {
        match done {
            Done::Read(group, (consumer, result), results) => {
                self.await_read(group.clone(), results);
                self.read(&group, &consumer, result);
            }
            Done::Leased(groups) => {
                for name in groups {
                    if let Some(group) = self.groups.get_mut(&name) {
                        group.comparing = false;
                    }
                }
            }
            Done::Looked(group, result) => self.looked(&group, result),
            Done::Claimed { group, consumer, partition, reserved, asked, result } => {
                self.claimed(&group, &consumer, &partition, &reserved, asked, result);
            }
            Done::Flushed(flushed) => self.flushed(flushed),
            Done::Joined { id, group, result } => self.joined(id, &group, result),
            Done::Types(result) => self.types(result),
            Done::Ready { group, partitions } => self.add_partitions(&group, partitions),
            Done::Compared { group, consumer, pending } => self.compared(&group, &consumer, pending),
            Done::Nothing => {}
        }
    }

    // ── subscriptions ──

    fn subscribe(&mut self, id: u32, pattern: String, options: SubscribeOptions, reply: oneshot::Sender<Subscribed>) {
        if self.stopping.is_some() {
            let _ = reply.send(Err(Error::closed("the bus")));
            return;
        }
        let group_name: Arc<str> = options.group.clone().unwrap_or_else(|| self.settings.group.clone()).into();
        let policy = self.settings.retry.with(Some(&options.retry));
        let in_flight_max = options.max_unacknowledged.unwrap_or(self.settings.batch_size);
        let concurrency = options.concurrency.unwrap_or(in_flight_max);
        let start = match options.start {
            Start::Beginning => StartFrom::Beginning,
            Start::Latest => StartFrom::Latest,
            Start::Time(ms) => StartFrom::Time(ms),
        };
        let sub = Sub {
            id,
            pattern,
            options,
            policy,
            in_flight_max,
            concurrency,
            in_flight: 0,
            running: 0,
            overdue: 0,
            reserved: 0,
            paused: false,
            closing: None,
        };
        let spec = sub.spec(&group_name);
        let others = self.groups.get(&group_name).into_iter().flat_map(|group| &group.subs).filter(|other| other.closing.is_none());
        let coming = self.joining.values().map(|joining| &joining.sub).filter(|other| self.group_of(other) == group_name);
        for other in others.chain(coming) {
            let other = other.spec(&group_name);
            if other.pattern == spec.pattern && other.options != spec.options {
                let message = format!(
                    "group '{group_name}' on '{}' is subscribed on this bus with other options: {}, here {}. All members of a group must agree; \
                     use the same options or another group",
                    spec.pattern, other.options, spec.options
                );
                let _ = reply.send(Err(Error::argument("options", message)));
                return;
            }
        }
        self.joining.insert(id, Joining { sub, reply });
        let (store, consumer) = (self.store.clone(), self.consumer.clone());
        let lease = self.lease.clone();
        self.work.push(Box::pin(async move {
            let result = join(&store, &lease, &spec, start, &consumer).await;
            Done::Joined { id, group: group_name, result }
        }));
    }

    fn group_of(&self, sub: &Sub) -> Arc<str> {
        sub.options.group.as_deref().unwrap_or(&self.settings.group).into()
    }

    fn joined(&mut self, id: u32, group_name: &Arc<str>, result: Result<Vec<Partition>>) {
        // Gone when the bus was stopped or the subscription closed in the meantime.
        let Some(Joining { sub, reply }) = self.joining.remove(&id) else { return };
        let partitions = match result {
            Ok(partitions) => partitions,
            Err(error) => {
                let _ = reply.send(Err(error));
                return;
            }
        };
        let event_type = sub.pattern.clone();
        if !self.groups.contains_key(group_name) {
            let group = self.open_group(group_name.clone());
            self.groups.insert(group_name.clone(), group);
        }
        if let Some(group) = self.groups.get_mut(group_name) {
            group.add(sub);
        }
        self.counters.subscriptions.fetch_add(1, Ordering::Relaxed);
        self.add_partitions(group_name, partitions);
        // Types that appeared while this was joining.
        self.read_types();
        let about = json!({ "eventType": event_type, "group": &**group_name, "consumer": &*self.consumer });
        self.said.push(Lifecycle(Kind::SubscriptionCreated, about));
        let _ = reply.send(Ok((group_name.to_string(), self.consumer.to_string())));
    }

    fn open_group(&mut self, name: Arc<str>) -> Group {
        let (reader, waker) = self.store.reader(&name);
        let (plans, orders) = mpsc::channel(1);
        let results = read_loop(reader, orders);
        self.await_read(name.clone(), results);
        Group::new(name, plans, waker)
    }

    fn await_read(&mut self, group: Arc<str>, mut results: mpsc::Receiver<ReadResult>) {
        self.work.push(Box::pin(async move {
            match results.recv().await {
                Some(result) => Done::Read(group, result, results),
                None => Done::Nothing,
            }
        }));
    }

    fn unsubscribe(&mut self, id: u32, deadline: Instant, reply: oneshot::Sender<Result<()>>) {
        if let Some(joining) = self.joining.remove(&id) {
            let _ = joining.reply.send(Err(Error::closed("the subscription")));
        }
        let found = self.groups.iter_mut().find_map(|(name, group)| group.sub_mut(id).map(|sub| (name.clone(), sub)));
        let Some((group, sub)) = found else {
            let _ = reply.send(Ok(()));
            return;
        };
        sub.closing = Some(deadline);
        self.closing.push(Closing { id, group, deadline, reply });
        self.hand_back_waiting();
    }

    /// Ends subscriptions whose handlers are done or whose time is over.
    fn close_finished(&mut self) {
        let now = Instant::now();
        for i in (0..self.closing.len()).rev() {
            let (id, deadline) = (self.closing[i].id, self.closing[i].deadline);
            let group = self.closing[i].group.clone();
            let running = self.groups.get_mut(&group).and_then(|g| g.sub_mut(id)).map_or(0, |sub| sub.running);
            if running > 0 && now < deadline {
                continue;
            }
            let Closing { reply, .. } = self.closing.swap_remove(i);
            self.abandon(id);
            if let Some(found) = self.groups.get_mut(&group)
                && let Some(at) = found.subs.iter().position(|sub| sub.id == id)
            {
                let sub = found.subs.remove(at);
                self.counters.subscriptions.fetch_sub(1, Ordering::Relaxed);
                let about = json!({ "eventType": sub.pattern, "group": &*group, "consumer": &*self.consumer });
                self.said.push(Lifecycle(Kind::SubscriptionCancelled, about));
                self.leave(&group, &sub);
            }
            let _ = reply.send(Ok(()));
        }
    }

    /// Hands back what the subscription's handlers have not finished.
    fn abandon(&mut self, id: u32) {
        let unfinished: Vec<Key> =
            self.deliveries.iter().filter(|(_, entry)| entry.subscriptions.contains(&id)).map(|(key, _)| key).collect();
        for key in unfinished {
            self.settle_entry(key, Disposal::HandBack);
        }
        self.deliveries.overdue.retain(|_, overdue| overdue.subscription != id);
    }

    /// What the group does not read any more is given up, in the store too.
    fn leave(&mut self, group_name: &Arc<str>, sub: &Sub) {
        let Some(group) = self.groups.get_mut(group_name) else { return };
        let spec = sub.spec(group_name);
        let same = group.subs.iter().any(|other| other.pattern == sub.pattern);
        let unread: Vec<Partition> = group.partitions.keys().filter(|p| group.matching(p).next().is_none()).cloned().collect();
        for partition in &unread {
            group.partitions.remove(partition);
        }
        group.waker.wake();
        if group.subs.is_empty() {
            // Its reader ends with the channel.
            self.groups.remove(group_name);
        }
        self.renew_buckets();
        let (store, consumer, name) = (self.store.clone(), self.consumer.clone(), group_name.clone());
        self.work.push(Box::pin(async move {
            // Housekeeping: should the server be away, the end of the lease does the same.
            if !same && let Err(error) = store.leave(&spec, &consumer).await {
                tracing::debug!(%error, "leaving a group");
            }
            for partition in unread {
                if let Err(error) = store.remove_consumer(&partition, &name, &consumer).await {
                    tracing::debug!(%error, "removing a consumer");
                }
            }
            Done::Nothing
        }));
    }

    fn pause(&mut self, id: u32, paused: bool) {
        for group in self.groups.values_mut() {
            if let Some(sub) = group.sub_mut(id) {
                sub.paused = paused;
                group.waker.wake();
            }
        }
        if paused {
            self.hand_back_waiting();
        }
    }

    /// Gives back waiting entries that no subscription wants any more.
    fn hand_back_waiting(&mut self) {
        let mut back = Vec::new();
        for group in self.groups.values_mut() {
            let waiting = std::mem::take(&mut group.waiting);
            for key in waiting {
                let Some(entry) = self.deliveries.get(key) else { continue };
                let wanted =
                    entry.subscriptions.iter().all(|id| group.subs.iter().any(|s| s.id == *id && !s.paused && s.closing.is_none()));
                if wanted {
                    group.waiting.push_back(key);
                } else {
                    back.push(key);
                }
            }
        }
        for key in back {
            self.settle_entry(key, Disposal::HandBack);
        }
    }

    // ── partitions ──

    fn read_types(&mut self) {
        if self.stopping.is_some() || self.groups.is_empty() {
            return;
        }
        let store = self.store.clone();
        self.work.push(Box::pin(async move { Done::Types(store.topology().await.map(|topology| topology.partitions)) }));
    }

    fn types(&mut self, result: Result<Vec<Partition>>) {
        // Not reached: the regular look, and the reconnection, make up for it.
        let Ok(known) = result else { return };
        let mut new: Vec<(Arc<str>, Vec<Partition>)> = Vec::new();
        for (name, group) in &self.groups {
            let partitions: Vec<Partition> = known
                .iter()
                .filter(|at| group.subs.iter().any(|sub| sub.closing.is_none() && name::matches(&sub.pattern, &at.event_type)))
                .filter(|partition| !group.partitions.contains_key(partition))
                .cloned()
                .collect();
            if !partitions.is_empty() {
                new.push((name.clone(), partitions));
            }
        }
        for (group, partitions) in new {
            // The lease first: an entry taken without one could be taken away at once.
            let (store, consumer, lease) = (self.store.clone(), self.consumer.clone(), self.lease.clone());
            let buckets: BTreeSet<Bucket> = partitions.iter().map(Partition::bucket).collect();
            self.work.push(Box::pin(async move {
                let buckets: Vec<Bucket> = buckets.into_iter().collect();
                let at = Instant::now();
                match store.renew(&consumer, &buckets, LEASE).await {
                    Ok(held) => {
                        // The next renewal says so again to the one who acts on it.
                        if held {
                            lease.renewed(&consumer, at);
                        }
                        Done::Ready { group, partitions }
                    }
                    Err(error) => {
                        tracing::debug!(%error, "new types wait for the server");
                        Done::Nothing
                    }
                }
            }));
        }
    }

    fn add_partitions(&mut self, group: &Arc<str>, partitions: Vec<Partition>) {
        let Some(group) = self.groups.get_mut(group) else { return };
        let mut new = false;
        for partition in partitions {
            new |= !group.partitions.contains_key(&partition);
            group.partitions.entry(partition).or_default();
        }
        if new {
            group.due_at = Instant::now();
            group.waker.wake();
            self.renew_buckets();
        }
    }

    fn renew_buckets(&self) {
        if !self.stalled {
            self.lease.add_buckets(self.groups.values().flat_map(Group::buckets));
        }
    }

    // ── entries in ──

    fn read(&mut self, group_name: &Arc<str>, consumer: &Arc<str>, result: Result<Vec<Entry>, ReadError>) {
        let Some(group) = self.groups.get_mut(group_name) else { return };
        let Some(asked) = group.reading.take() else { return };
        match result {
            Ok(entries) => {
                let mut found: HashMap<&Partition, usize> = HashMap::new();
                for entry in &entries {
                    *found.entry(&entry.partition).or_default() += 1;
                }
                for partition in &asked.partitions {
                    if let Some(reading) = group.partitions.get_mut(partition) {
                        reading.backlog = found.get(partition).is_some_and(|n| *n >= asked.count);
                    }
                }
                for entry in &entries {
                    if let Some(reading) = group.partitions.get_mut(&entry.partition) {
                        reading.last_seen = reading.last_seen.max(entry.id);
                    }
                }
                self.take(group_name, consumer, entries);
            }
            Err(ReadError::NoGroup) => self.restore(group_name, asked.partitions),
            Err(ReadError::Store(error)) => {
                group.compare_wanted = true;
                tracing::debug!(%error, "a read failed");
            }
        }
    }

    /// Makes lost groups again, from where this bus knows everything before to be settled.
    fn restore(&mut self, group_name: &Arc<str>, partitions: Vec<Partition>) {
        let Some(group) = self.groups.get_mut(group_name) else { return };
        group.comparing = true;
        let specs: Vec<GroupSpec> = group.subs.iter().map(|sub| sub.spec(group_name)).collect();
        // Those that were not asked may be gone as well.
        let partitions: BTreeSet<Partition> = group.partitions.keys().cloned().chain(partitions).collect();
        let mut work = Vec::with_capacity(partitions.len());
        for partition in partitions {
            let last_seen = group.partitions.get(&partition).map_or(EntryId::default(), |reading| reading.last_seen);
            let held =
                self.deliveries.iter().filter(|(_, e)| e.group == *group_name && e.held.partition == partition).map(|(_, e)| e.held.id);
            let lowest = held.chain(self.flusher.ids(group_name, &partition)).min();
            work.push((partition, lowest.map_or(last_seen, EntryId::previous), last_seen));
        }
        let (store, consumer, name, host) = (self.store.clone(), self.consumer.clone(), group_name.clone(), self.host.clone());
        self.work.push(Box::pin(async move {
            for (partition, after, last_seen) in work {
                match store.restore_group(&partition, &name, after).await {
                    Ok(false) => {}
                    Ok(true) => {
                        let state = store.inspect(&partition).await.ok().flatten().unwrap_or_default();
                        let about = json!({
                            "eventType": &*partition.event_type, "group": &*name, "after": after.to_string(), "lastSeen": last_seen.to_string(),
                            "firstLeft": state.first.map(|id| id.to_string()),
                        });
                        if state.first.is_none_or(|first| first > after) && last_seen != EntryId::default() {
                            host.lifecycle(vec![Lifecycle(Kind::DataLoss, about)]);
                        }
                    }
                    Err(error) => tracing::debug!(%error, "making a lost group again"),
                }
            }
            for spec in &specs {
                // Types and groups may be lost with the streams: note them again. Not before: joining would begin at
                // the beginning where it finds the group missing.
                if let Err(error) = store.join(spec, StartFrom::Beginning, &consumer).await {
                    tracing::debug!(%error, "joining again");
                }
            }
            Done::Compared { group: name, consumer, pending: Vec::new() }
        }));
    }

    fn take(&mut self, group_name: &Arc<str>, consumer: &Arc<str>, entries: Vec<Entry>) {
        if self.lease.is_stale() {
            // This process was stopped for so long that others may have these by now: theirs, not ours.
            self.lapsed();
            return;
        }
        let now = self.store.now_ms();
        for entry in entries {
            self.take_one(group_name, consumer, entry, now);
        }
    }

    fn take_one(&mut self, group_name: &Arc<str>, consumer: &Arc<str>, entry: Entry, now_ms: u64) {
        let held = Held { partition: entry.partition, id: entry.id, deliveries: entry.deliveries };
        let (meta, data) = match entry.body {
            Body::Event { only_group: Some(group), .. } if *group != **group_name => {
                return self.settle_untouched(group_name, consumer, held, Disposal::Acknowledge, Note::default());
            }
            Body::Event { meta, data, .. } => (meta, data),
            Body::Foreign(fields) => {
                let names: Vec<_> = fields.iter().take(8).map(|(key, _)| String::from_utf8_lossy(key)).collect();
                let error = format!("not written by this bus: it has the fields {}, not 'meta' and 'data'", names.join(", "));
                return self.bury_untouched(group_name, consumer, held, DeadReason::Malformed, error, Note::default());
            }
        };
        let (Ok(meta), Ok(data)) = (String::from_utf8(meta), String::from_utf8(data)) else {
            let error = "the entry's text is not UTF-8".to_owned();
            return self.bury_untouched(group_name, consumer, held, DeadReason::Malformed, error, Note::default());
        };
        let view = match MetaView::read(meta.as_bytes()) {
            Ok(view) => view,
            Err(error) => {
                return self.bury_untouched(group_name, consumer, held, DeadReason::Malformed, error.message, Note::default());
            }
        };
        let event_id = view.id.to_string();
        if held.deliveries <= 1 && view.ttl_ms().is_some_and(|ttl| held.id.ms.saturating_add(ttl) <= now_ms) {
            let note = Note { event_id, expired: true, ..Note::default() };
            return if view.ttl_given() {
                self.settle_untouched(group_name, consumer, held, Disposal::Acknowledge, note)
            } else {
                let error = "its ttl was over before it was delivered".to_owned();
                self.bury_untouched(group_name, consumer, held, DeadReason::Expired, error, note)
            };
        }
        let retry = view.retry.clone();
        let Some(group) = self.groups.get_mut(group_name) else {
            return self.settle_untouched(group_name, consumer, held, Disposal::HandBack, Note { event_id, ..Note::default() });
        };
        let done = group.partial.get(&(held.partition.clone(), held.id));
        let subscriptions: Vec<u32> =
            group.matching(&held.partition).map(|i| group.subs[i].id).filter(|id| done.is_none_or(|done| !done.contains(id))).collect();
        if subscriptions.is_empty() {
            return self.settle_untouched(group_name, consumer, held, Disposal::HandBack, Note { event_id, ..Note::default() });
        }
        for sub in group.subs.iter_mut().filter(|sub| subscriptions.contains(&sub.id)) {
            sub.in_flight += 1;
        }
        let key = self.deliveries.insert(InFlight {
            held,
            group: group_name.clone(),
            consumer: consumer.clone(),
            event_id,
            text: Arc::new(EventText { meta, data }),
            retry,
            crashes: entry.crashes,
            subscriptions,
            running: Vec::new(),
            failures: Vec::new(),
            handed_back: false,
            confirmations: Vec::new(),
            started: Instant::now(),
        });
        group.waiting.push_back(key);
    }

    fn settle_untouched(&mut self, group: &Arc<str>, consumer: &Arc<str>, held: Held, disposal: Disposal, note: Note) {
        let lane = Lane { bucket: held.partition.bucket(), group: group.clone(), consumer: consumer.clone() };
        self.flusher.push(lane, Settlement { held, disposal, note });
    }

    fn bury_untouched(&mut self, group: &Arc<str>, consumer: &Arc<str>, held: Held, reason: DeadReason, error: String, note: Note) {
        let attempts = held.deliveries.saturating_sub(u32::from(reason == DeadReason::Expired));
        let disposal = self.or_drop(Disposal::DeadLetter { reason, error, attempts }, &held);
        self.settle_untouched(group, consumer, held, disposal, note);
    }

    /// Without a dead letter queue, what would go there is acknowledged, and said.
    fn or_drop(&mut self, disposal: Disposal, held: &Held) -> Disposal {
        match disposal {
            Disposal::DeadLetter { reason, error, .. } if !self.settings.dead_letters => {
                self.said.push(Lifecycle::warn(format!(
                    "an event of '{}' was dropped ({}: {error}): deadLetterQueue.enabled is false",
                    held.partition.event_type,
                    reason.as_str()
                )));
                Disposal::Acknowledge
            }
            other => other,
        }
    }

    // ── redeliveries ──

    fn look_for_due(&mut self) {
        let now = Instant::now();
        let mut work: Vec<Work> = Vec::new();
        for (name, group) in &mut self.groups {
            if group.looking || group.due_at > now || group.partitions.is_empty() {
                continue;
            }
            group.looking = true;
            group.due_at = now + DUE_POLL;
            let (store, name, buckets) = (self.store.clone(), name.clone(), group.buckets());
            work.push(Box::pin(async move {
                let looks = join_all(buckets.iter().map(|bucket| store.due(*bucket, &name))).await;
                let mut all = DueIndex::default();
                for look in looks {
                    match look {
                        Ok(mut index) => {
                            all.partitions.append(&mut index.partitions);
                            all.next_in_ms = [all.next_in_ms, index.next_in_ms].into_iter().flatten().min();
                        }
                        Err(error) => return Done::Looked(name, Err(error)),
                    }
                }
                Done::Looked(name, Ok(all))
            }));
        }
        self.work.extend(work);
    }

    fn looked(&mut self, group_name: &Arc<str>, result: Result<DueIndex>) {
        let Some(group) = self.groups.get_mut(group_name) else { return };
        group.looking = false;
        let Ok(index) = result else { return };
        if let Some(next) = index.next_in_ms {
            group.due_at = group.due_at.min(Instant::now() + Duration::from_millis(next));
        }
        for partition in index.partitions {
            if let Some(reading) = group.partitions.get_mut(&partition) {
                reading.due = true;
            }
        }
    }

    /// Takes due redeliveries as places allow.
    fn claim(&mut self) {
        if self.stalled || self.stopping.is_some() {
            return;
        }
        let mut work: Vec<Work> = Vec::new();
        for (name, group) in &mut self.groups {
            if group.comparing {
                continue;
            }
            let due: Vec<Partition> = group.partitions.iter().filter(|(_, r)| r.due).map(|(p, _)| p.clone()).collect();
            for partition in due {
                if group.matching(&partition).next().is_none() {
                    if let Some(reading) = group.partitions.get_mut(&partition) {
                        reading.due = false;
                    }
                    continue;
                }
                let asked = group.free(&partition).min(self.settings.batch_size);
                if asked == 0 {
                    continue;
                }
                let reserved: Vec<(u32, usize)> = group.matching(&partition).map(|i| (group.subs[i].id, asked)).collect();
                for (id, n) in &reserved {
                    if let Some(sub) = group.sub_mut(*id) {
                        sub.reserved += n;
                    }
                }
                if let Some(reading) = group.partitions.get_mut(&partition) {
                    reading.due = false;
                }
                group.claiming += 1;
                let (store, group, consumer) = (self.store.clone(), name.clone(), self.consumer.clone());
                work.push(Box::pin(async move {
                    let result = store.claim_due(&partition, &group, &consumer, asked).await;
                    Done::Claimed { group, consumer, partition, reserved, asked, result }
                }));
            }
        }
        self.work.extend(work);
    }

    fn claimed(
        &mut self,
        group_name: &Arc<str>,
        consumer: &Arc<str>,
        partition: &Partition,
        reserved: &[(u32, usize)],
        asked: usize,
        result: Result<Due>,
    ) {
        if let Some(group) = self.groups.get_mut(group_name) {
            group.claiming -= 1;
            for (id, n) in reserved {
                if let Some(sub) = group.sub_mut(*id) {
                    sub.reserved -= n;
                }
            }
            match &result {
                // As many as asked for: there may be more, after the others had their turn.
                Ok(due) if due.entries.len() >= asked => group.due_at = Instant::now(),
                Ok(_) => {}
                // Some may be ours without our knowing.
                Err(_) => group.compare_wanted = true,
            }
        }
        let Ok(due) = result else { return };
        if !due.lost.is_empty() {
            let ids: Vec<String> = due.lost.iter().take(100).map(EntryId::to_string).collect();
            let about = json!({ "eventType": &*partition.event_type, "group": &**group_name, "count": due.lost.len(), "streamIds": ids });
            self.said.push(Lifecycle(Kind::DataLoss, about));
        }
        self.take(group_name, consumer, due.entries);
    }

    // ── out to handlers ──

    /// Calls handlers for waiting entries, in order, as places allow.
    fn dispatch(&mut self) {
        for group in self.groups.values_mut() {
            if group.waiting.is_empty() {
                continue;
            }
            let mut stay = std::collections::VecDeque::new();
            while let Some(key) = group.waiting.pop_front() {
                let Some(entry) = self.deliveries.get(key) else { continue };
                let ids = entry.subscriptions.clone();
                if !group.subs.iter().filter(|sub| ids.contains(&sub.id)).all(Sub::can_run) {
                    stay.push_back(key);
                    // With one subscription the others behind it cannot run either.
                    if group.subs.len() == 1 {
                        stay.append(&mut group.waiting);
                    }
                    continue;
                }
                for sub in group.subs.iter_mut().filter(|sub| ids.contains(&sub.id)) {
                    sub.running += 1;
                    let token = self.deliveries.issue(key, sub.id);
                    let Some(entry) = self.deliveries.get_mut(key) else { continue };
                    entry.running.push((token, sub.id));
                    entry.started = Instant::now();
                    self.out.push(Delivery {
                        subscription: sub.id,
                        token,
                        attempt: entry.held.deliveries,
                        redelivered: entry.held.deliveries > 1,
                        partition: entry.held.partition.clone(),
                        id: entry.held.id,
                        text: entry.text.clone(),
                    });
                }
            }
            group.waiting = stay;
        }
    }

    // ── verdicts ──

    fn verdicts(&mut self, verdicts: Vec<(Token, Verdict)>, confirm: u32) {
        let mut waits_for = None;
        for (token, verdict) in verdicts {
            match self.deliveries.redeem(token) {
                Some((key, subscription)) => {
                    if confirm != 0 {
                        waits_for = Some(key);
                        if let Some(entry) = self.deliveries.get_mut(key) {
                            entry.confirmations.push(confirm);
                        }
                    }
                    self.verdict(key, subscription, token, verdict);
                }
                None => self.late(token, &verdict),
            }
        }
        if confirm != 0 && waits_for.is_none() {
            self.confirmed.push((confirm, None));
        }
    }

    fn verdict(&mut self, key: Key, subscription: u32, token: Token, verdict: Verdict) {
        let Some(entry) = self.deliveries.get_mut(key) else { return };
        entry.running.retain(|(running, _)| *running != token);
        let timed_out = matches!(verdict, Verdict::Failed(Failure::TimedOut(_)));
        match verdict {
            Verdict::Done => {}
            Verdict::Failed(failure) => entry.failures.push((subscription, failure)),
            Verdict::HandBack => entry.handed_back = true,
        }
        let ended = entry.running.is_empty();
        let overdue = timed_out.then(|| Overdue {
            subscription,
            held: entry.held.clone(),
            group: entry.group.clone(),
            consumer: entry.consumer.clone(),
            event_id: entry.event_id.clone(),
        });
        let group = entry.group.clone();
        if let Some(sub) = self.groups.get_mut(&group).and_then(|group| group.sub_mut(subscription)) {
            sub.running -= 1;
            sub.overdue += usize::from(timed_out);
        }
        if let Some(overdue) = overdue {
            self.deliveries.overdue.insert(token, overdue);
        }
        if ended {
            self.ended(key);
        }
    }

    /// All handlers of an event ended: what becomes of it?
    fn ended(&mut self, key: Key) {
        let Some(entry) = self.deliveries.get(key) else { return };
        if entry.failures.is_empty() {
            let disposal = if entry.handed_back { Disposal::HandBack } else { Disposal::Acknowledge };
            self.settle_entry(key, disposal);
            return;
        }
        let mut disposals = Vec::with_capacity(entry.failures.len());
        if let Some(group) = self.groups.get(&entry.group) {
            for (id, failure) in &entry.failures {
                let Some(sub) = group.subs.iter().find(|sub| sub.id == *id) else { continue };
                let case = Case {
                    strategy: sub.options.error_strategy,
                    policy: &sub.policy,
                    event_retry: entry.retry.as_ref(),
                    deliveries: entry.held.deliveries,
                    crashes: entry.crashes,
                    random: self.env.random(),
                };
                disposals.push(settle::judge(failure, &case));
            }
        }
        let mut disposal = settle::combine(disposals);
        if entry.handed_back && disposal == Disposal::Acknowledge {
            disposal = Disposal::HandBack;
        }
        if matches!(disposal, Disposal::Retry { .. } | Disposal::HandBack) && entry.subscriptions.len() > entry.failures.len() {
            let failed: HashSet<u32> = entry.failures.iter().map(|(id, _)| *id).collect();
            let succeeded: HashSet<u32> = entry.subscriptions.iter().filter(|id| !failed.contains(id)).copied().collect();
            let (group, partition, id) = (entry.group.clone(), entry.held.partition.clone(), entry.held.id);
            if let Some(group) = self.groups.get_mut(&group) {
                let mut all = group.partial.remove(&(partition.clone(), id)).unwrap_or_default();
                all.extend(succeeded);
                group.remember(partition, id, all);
            }
        }
        self.settle_entry(key, disposal);
    }

    /// Sends an entry back to the store and frees its places.
    fn settle_entry(&mut self, key: Key, disposal: Disposal) {
        let Some(entry) = self.deliveries.remove(key) else { return };
        let disposal = self.or_drop(disposal, &entry.held);
        if let Some(group) = self.groups.get_mut(&entry.group) {
            for sub in group.subs.iter_mut().filter(|sub| entry.subscriptions.contains(&sub.id)) {
                sub.in_flight -= 1;
                // Handlers that are not waited for any more (close): their places go with the subscription.
                sub.running -= entry.running.iter().filter(|(_, id)| *id == sub.id).count();
            }
            if matches!(disposal, Disposal::Acknowledge | Disposal::DeadLetter { .. }) {
                group.partial.remove(&(entry.held.partition.clone(), entry.held.id));
            }
            if let Disposal::Retry { delay_ms, .. } = &disposal {
                group.due_at = group.due_at.min(Instant::now() + Duration::from_millis(*delay_ms));
            }
        }
        let note = Note {
            event_id: entry.event_id,
            duration_ms: entry.started.elapsed().as_secs_f64() * 1000.0,
            error: entry.failures.first().map(|(_, failure)| failure.text().to_owned()),
            confirmations: entry.confirmations,
            expired: false,
        };
        self.settle_untouched(&entry.group, &entry.consumer, entry.held, disposal, note);
    }

    /// A verdict on a delivery that is not waited for any more: a late success may still acknowledge.
    fn late(&mut self, token: Token, verdict: &Verdict) {
        let Some(overdue) = self.deliveries.overdue.remove(&token) else { return };
        if let Some(sub) = self.groups.get_mut(&overdue.group).and_then(|group| group.sub_mut(overdue.subscription)) {
            sub.overdue -= 1;
        }
        if *verdict == Verdict::Done {
            let note = Note { event_id: overdue.event_id, ..Note::default() };
            // Held.deliveries above 1 has the store forget the noted failure, too.
            let held = Held { deliveries: overdue.held.deliveries.max(2), ..overdue.held };
            self.settle_untouched(&overdue.group, &overdue.consumer, held, Disposal::Acknowledge, note);
        }
    }

    fn flushed(&mut self, flushed: Flushed) {
        let group = flushed.lane.group.clone();
        let settled = self.flusher.finish(flushed);
        if let Some(error) = self.flusher.refused.take() {
            self.said.push(Lifecycle::error(&error));
        }
        let (mut acknowledged, mut failed, mut time_us) = (0, 0, 0.0);
        for (settlement, result) in settled {
            let Settlement { held, disposal, note } = settlement;
            self.confirmed.extend(note.confirmations.iter().map(|confirm| (*confirm, None)));
            if result == Settled::Done {
                let counts = !note.expired && !matches!(disposal, Disposal::HandBack);
                let success = disposal == Disposal::Acknowledge && note.error.is_none();
                if counts {
                    acknowledged += u64::from(success);
                    failed += u64::from(!success);
                    time_us += note.duration_ms * 1000.0;
                }
                self.say(&group, &held, &disposal, note);
            }
        }
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // µs
        self.counters.metrics.add_settled(acknowledged, failed, time_us as u64);
    }

    /// Lifecycle events of one settled entry.
    fn say(&mut self, group: &Arc<str>, held: &Held, disposal: &Disposal, note: Note) {
        let mut say = |kind: Kind, extra: serde_json::Value| {
            if self.host.listens(kind) {
                let mut about = json!({
                    "eventType": &*held.partition.event_type, "eventId": note.event_id, "group": &**group, "attempt": held.deliveries,
                    "streamId": held.id.to_string(),
                });
                if let (Some(about), serde_json::Value::Object(extra)) = (about.as_object_mut(), extra) {
                    about.extend(extra);
                }
                self.said.push(Lifecycle(kind, about));
            }
        };
        if note.expired {
            say(Kind::Expired, json!({ "deadLettered": matches!(disposal, Disposal::DeadLetter { .. }) }));
        } else if let Some(error) = &note.error {
            say(Kind::Failed, json!({ "error": error, "durationMs": note.duration_ms }));
        }
        match disposal {
            Disposal::Acknowledge if note.error.is_none() && !note.expired => {
                say(Kind::Consumed, json!({ "durationMs": note.duration_ms }))
            }
            Disposal::Retry { delay_ms, error } => say(Kind::Retried, json!({ "delayMs": delay_ms, "error": error })),
            Disposal::DeadLetter { reason, error, .. } => {
                self.counters.metrics.add_dead_letter();
                say(Kind::DeadLettered, json!({ "reason": reason.as_str(), "error": error }));
            }
            _ => {}
        }
    }

    // ── faults ──

    /// Others may hold what was held here: go on under a new name. Handlers that run may still succeed.
    fn lapsed(&mut self) {
        let old = self.consumer.clone();
        self.consumer = consumer_name(&self.settings, &self.env);
        let buckets: BTreeSet<Bucket> = self.groups.values().flat_map(Group::buckets).collect();
        let buckets: Vec<Bucket> = buckets.into_iter().collect();
        let left = self.lease.replace(self.consumer.clone(), buckets.clone(), Instant::now());
        for group in self.groups.values_mut() {
            for key in std::mem::take(&mut group.waiting) {
                if let Some(entry) = self.deliveries.remove(key) {
                    for sub in group.subs.iter_mut().filter(|sub| entry.subscriptions.contains(&sub.id)) {
                        sub.in_flight -= 1;
                    }
                }
            }
            group.waker.wake();
        }
        self.said.push(Lifecycle::warn(format!(
            "the lease of consumer {old} had lapsed (this process or Redis was stopped for more than {} s): what it held goes to others, it goes on as {}",
            LEASE.as_secs(),
            self.consumer
        )));
        let (store, lease, consumer) = (self.store.clone(), self.lease.clone(), self.consumer.clone());
        // Nothing is read before the new lease is there.
        let names: Vec<Arc<str>> = self.groups.keys().cloned().collect();
        self.groups.values_mut().for_each(|group| group.comparing = true);
        self.work.push(Box::pin(async move {
            if let Err(error) = store.release(&old, &left).await {
                tracing::debug!(%error, "ending a lapsed lease");
            }
            loop {
                let at = Instant::now();
                match store.renew(&consumer, &buckets, LEASE).await {
                    Ok(_) => {
                        lease.renewed(&consumer, at);
                        return Done::Leased(names);
                    }
                    Err(error) => {
                        tracing::debug!(%error, "a new lease waits for the server");
                        tokio::time::sleep(READ_PAUSE.1).await;
                    }
                }
            }
        }));
    }

    fn set_stalled(&mut self, stalled: bool) {
        if stalled && !self.stalled {
            self.said
                .push(Lifecycle::warn("the JavaScript thread has been silent for limits.stallTimeoutMs: its events go to other processes"));
            let buckets = self.lease.stop();
            let (store, consumer) = (self.store.clone(), self.consumer.clone());
            self.work.push(Box::pin(async move {
                if let Err(error) = store.release(&consumer, &buckets).await {
                    tracing::debug!(%error, "letting go of the lease");
                }
                Done::Nothing
            }));
        } else if !stalled && self.stalled {
            self.lapsed();
        }
        self.stalled = stalled;
    }

    /// Compares what is pending in the store with what is held here: a reply lost on the wire leaves entries that
    /// nobody knows of.
    fn compare(&mut self) {
        let mut work: Vec<Work> = Vec::new();
        for (name, group) in &mut self.groups {
            if !group.compare_wanted || group.comparing || group.claiming > 0 {
                continue;
            }
            if group.reading.is_some() {
                group.waker.wake();
                continue;
            }
            (group.compare_wanted, group.comparing) = (false, true);
            let partitions: Vec<Partition> = group.partitions.keys().cloned().collect();
            let (store, name, consumer) = (self.store.clone(), name.clone(), self.consumer.clone());
            work.push(Box::pin(async move {
                let mut pending = Vec::new();
                for chunk in partitions.chunks(100) {
                    let answers = join_all(chunk.iter().map(|partition| store.pending(partition, &name, &consumer))).await;
                    pending.extend(chunk.iter().cloned().zip(answers.into_iter().map(Result::unwrap_or_default)));
                }
                Done::Compared { group: name, consumer, pending }
            }));
        }
        self.work.extend(work);
    }

    fn compared(&mut self, group_name: &Arc<str>, consumer: &Arc<str>, pending: Vec<(Partition, Vec<(EntryId, u32)>)>) {
        if let Some(group) = self.groups.get_mut(group_name) {
            group.comparing = false;
        }
        for (partition, entries) in pending.into_iter().filter(|(_, entries)| !entries.is_empty()) {
            let held =
                self.deliveries.iter().filter(|(_, e)| e.group == *group_name && e.held.partition == partition).map(|(_, e)| e.held.id);
            let known: HashSet<EntryId> = held.chain(self.flusher.ids(group_name, &partition)).collect();
            for (id, deliveries) in entries {
                if !known.contains(&id) {
                    let held = Held { partition: partition.clone(), id, deliveries };
                    self.settle_untouched(group_name, consumer, held, Disposal::HandBack, Note::default());
                }
            }
            if let Some(group) = self.groups.get_mut(group_name) {
                group.due_at = group.due_at.min(Instant::now() + Duration::from_millis(20));
            }
        }
    }

    // ── the task's own rhythm ──

    fn next_timer(&self) -> Instant {
        let mut next = self.compare_at;
        for group in self.groups.values() {
            if !group.looking {
                next = next.min(group.due_at.max(Instant::now() + Duration::from_millis(1)));
            }
        }
        let deadlines = self.closing.iter().map(|closing| closing.deadline);
        let stop = self.stopping.as_ref().map(|(deadline, _)| *deadline);
        next = deadlines.chain(stop).fold(next, Instant::min);
        if self.flusher.len() > 0 { next.min(Instant::now() + Duration::from_millis(100)) } else { next }
    }

    fn timers(&mut self) {
        let now = Instant::now();
        if now >= self.compare_at {
            self.compare_at = now + COMPARE_EVERY;
            self.groups.values_mut().for_each(|group| group.compare_wanted = true);
            self.read_types();
        }
    }

    /// Moves everything on that can move.
    fn pump(&mut self) {
        self.dispatch();
        if !self.out.is_empty() {
            self.host.deliver(std::mem::take(&mut self.out));
        }
        for call in self.flusher.start(&self.store) {
            self.work.push(Box::pin(async move { Done::Flushed(call.await) }));
        }
        if !self.stalled && self.stopping.is_none() {
            self.look_for_due();
            self.claim();
            self.compare();
            if self.flusher.len() < UNSETTLED_MAX {
                self.plan_reads();
            }
        }
        self.close_finished();
        self.counters.in_flight.store(self.deliveries.len(), Ordering::Relaxed);
        self.counters.metrics.in_flight.store(self.deliveries.len(), Ordering::Relaxed);
        if !self.confirmed.is_empty() {
            self.host.settled(std::mem::take(&mut self.confirmed));
        }
        if !self.said.is_empty() {
            self.host.lifecycle(std::mem::take(&mut self.said));
        }
    }

    fn plan_reads(&mut self) {
        for group in self.groups.values_mut() {
            if group.compare_wanted {
                continue;
            }
            if let Some(plan) = group.plan(&self.consumer, self.settings.batch_size, self.settings.read_wait) {
                if group.plans.try_send(plan).is_err() {
                    group.reading = None;
                }
            } else {
                group.wake_if_better();
            }
        }
    }

    /// Hands back what is left, leaves the groups, lets go of the lease: as far as time allows.
    async fn finish(&mut self) {
        let keys: Vec<Key> = self.deliveries.iter().map(|(key, _)| key).collect();
        for key in keys {
            self.settle_entry(key, Disposal::HandBack);
        }
        let end = Instant::now() + HAND_BACK_MAX;
        // Readers end first: what a read still brings is handed back too.
        for group in self.groups.values_mut() {
            group.waker.wake();
            group.plans = mpsc::channel(1).0;
        }
        while Instant::now() < end && (self.flusher.len() > 0 || self.groups.values().any(|g| g.reading.is_some() || g.claiming > 0)) {
            for call in self.flusher.start(&self.store) {
                self.work.push(Box::pin(async move { Done::Flushed(call.await) }));
            }
            let next = end.min(Instant::now() + Duration::from_millis(100));
            if let Ok(Some(done)) = tokio::time::timeout_at(next, self.work.next()).await {
                self.done(done);
                self.hand_back_waiting();
            }
        }
        let (store, consumer) = (self.store.clone(), self.consumer.clone());
        let (_, buckets) = self.lease.current();
        let left = tokio::time::timeout_at(end, async {
            for (name, group) in &self.groups {
                let removals = group.partitions.keys().map(|partition| store.remove_consumer(partition, name, &consumer));
                join_all(removals).await;
                for sub in &group.subs {
                    let _ = store.leave(&sub.spec(name), &consumer).await;
                }
            }
            store.release(&consumer, &buckets).await
        });
        if left.await.is_err() {
            tracing::debug!("the server did not hear that this consumer ends; its lease ends by itself");
        }
        for group in self.groups.values() {
            for sub in &group.subs {
                let about = json!({ "eventType": sub.pattern, "group": &*group.name, "consumer": &*self.consumer });
                self.said.push(Lifecycle(Kind::SubscriptionCancelled, about));
            }
        }
        self.counters.subscriptions.store(0, Ordering::Relaxed);
        self.counters.in_flight.store(0, Ordering::Relaxed);
        self.host.settled(std::mem::take(&mut self.confirmed));
        self.host.lifecycle(std::mem::take(&mut self.said));
        for closing in self.closing.drain(..) {
            let _ = closing.reply.send(Ok(()));
        }
        if let Some((_, reply)) = self.stopping.take() {
            let _ = reply.send(());
        }
    }
}

async fn join(store: &Arc<dyn Store>, lease: &Lease, spec: &GroupSpec, start: StartFrom, consumer: &str) -> Result<Vec<Partition>> {
    let partitions = store.join(spec, start, consumer).await?;
    let buckets: BTreeSet<Bucket> = partitions.iter().map(Partition::bucket).collect();
    let buckets: Vec<Bucket> = buckets.into_iter().collect();
    let at = Instant::now();
    // The lease first: an entry taken without one could be taken away at once.
    if store.renew(consumer, &buckets, LEASE).await? {
        lease.renewed(consumer, at);
    }
    Ok(partitions)
}

/// The task beside: reads as it is told, one read at a time, and pauses after failures.
fn read_loop(mut reader: Box<dyn Reader>, mut plans: mpsc::Receiver<Plan>) -> mpsc::Receiver<ReadResult> {
    let (sender, results) = mpsc::channel(1);
    tokio::spawn(async move {
        let mut pause = READ_PAUSE.0;
        while let Some(plan) = plans.recv().await {
            let result = reader.read(&plan.consumer, &plan.from, plan.count, plan.wait).await;
            if result.is_err() {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(READ_PAUSE.1);
            } else {
                pause = READ_PAUSE.0;
            }
            if sender.send((plan.consumer, result)).await.is_err() {
                return;
            }
        }
    });
    results
}
