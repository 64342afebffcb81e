//! What really happened, as the store did it and the handlers saw it; and the judgement of what can be judged at once.
//!
//! The wires and the hosts of all processes write into it. It goes by nothing that an engine says of itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::FutureExt;
use ossa::engine::event::MetaView;
use ossa::engine::host::Delivery;
use ossa::engine::name;
use ossa::engine::store::memory::MemoryStore;
use ossa::engine::store::{Body, Bucket, Disposal, Entry, EntryId, Held, Partition, Settled, Store, Swept};

use crate::machine::Clock;
use crate::plan::Plan;

/// One life of one process.
pub type Life = usize;

/// How an entry ended for a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// After a handler succeeded.
    Handled,
    /// Its own ttl was over.
    Expired,
    /// A dead letter was written.
    DeadLettered,
}

/// One call of a handler.
#[derive(Debug)]
pub struct Call {
    /// Where it ran.
    pub life: Life,
    /// Whose handler it was, of that life.
    pub subscription: u32,
    /// The consumer that held the entry.
    pub consumer: Arc<str>,
    /// When the store gave the entry out for it, ms.
    pub taken_ms: u64,
    /// It was told to be too slow.
    pub timed_out_ms: Option<u64>,
    /// It ended.
    pub ended_ms: Option<u64>,
    /// It succeeded.
    pub succeeded_ms: Option<u64>,
}

/// An event and a group.
#[derive(Debug, Default)]
pub struct Course {
    /// Calls in the order of their beginning.
    pub calls: Vec<Call>,
    /// How it ended.
    pub end: Option<End>,
    /// The store would not take its settlement, at these times.
    pub refused_ms: Vec<u64>,
    /// Dead letters.
    pub letters: u32,
}

/// A life.
#[derive(Debug, Default)]
pub struct LifeFacts {
    /// Its slot.
    pub process: usize,
    /// It was killed then.
    pub crashed_ms: Option<u64>,
    /// It gave up handlers that still ran, then: at its end, or that of a subscription.
    pub gave_up_ms: Vec<u64>,
}

/// A consumer's lease in a bucket.
#[derive(Debug)]
struct LeaseFacts {
    end_ms: u64,
    /// It is or was over: released, or seen to have run out.
    lost: bool,
}

/// An entry given out to a consumer.
#[derive(Clone, Debug)]
struct Taken {
    consumer: Arc<str>,
    deliveries: u32,
    at_ms: u64,
}

/// Where an event is.
#[derive(Clone, Debug)]
pub struct Place {
    /// Its number in the plan.
    pub n: usize,
    /// Its id.
    pub event_id: String,
}

/// All of it.
pub struct Ledger {
    clock: Clock,
    plan: Arc<Plan>,
    /// A user of the store, without any fault.
    pub store: Arc<MemoryStore>,
    /// In words.
    pub history: Vec<String>,
    /// Statements that did not hold.
    pub violations: Vec<String>,
    /// How often what was seen.
    pub counts: BTreeMap<String, u64>,
    /// Lives in the order of their beginning.
    pub lives: Vec<LifeFacts>,
    /// Entries by their place.
    pub entries: BTreeMap<(Partition, EntryId), Place>,
    /// Ids of events that are entries.
    pub event_ids: BTreeSet<String>,
    /// Events by number that are entries.
    pub stored: BTreeMap<usize, (Partition, EntryId)>,
    /// By group, and event by number.
    pub courses: BTreeMap<(&'static str, usize), Course>,
    /// Publishes that were answered: id, by number.
    pub published: BTreeMap<usize, Vec<Result<String, String>>>,
    seen: BTreeMap<Partition, EntryId>,
    /// Entries of a partition and key in order, for ordered groups.
    lines: BTreeMap<(Partition, String), Vec<(EntryId, usize)>>,
    leases: BTreeMap<(Arc<str>, Bucket), LeaseFacts>,
    /// Entries given out: by life, group and entry.
    taken: BTreeMap<(Life, String, Partition, EntryId), Taken>,
    /// The latest time the store had.
    store_ms_max: u64,
}

impl Ledger {
    /// Nothing happened yet.
    pub fn new(clock: Clock, plan: Arc<Plan>, store: Arc<MemoryStore>) -> Self {
        Self {
            clock,
            plan,
            store,
            history: Vec::new(),
            violations: Vec::new(),
            counts: BTreeMap::new(),
            lives: Vec::new(),
            entries: BTreeMap::new(),
            event_ids: BTreeSet::new(),
            stored: BTreeMap::new(),
            courses: BTreeMap::new(),
            published: BTreeMap::new(),
            seen: BTreeMap::new(),
            lines: BTreeMap::new(),
            leases: BTreeMap::new(),
            taken: BTreeMap::new(),
            store_ms_max: 0,
        }
    }

    /// ms since the beginning.
    pub fn ms(&self) -> u64 {
        self.clock.ms()
    }

    /// Writes a line of the history.
    pub fn note(&mut self, line: impl AsRef<str>) {
        self.history.push(format!("{:>7} {}", self.ms(), line.as_ref()));
    }

    /// A statement does not hold.
    pub fn violated(&mut self, statement: impl Into<String>) {
        let statement = statement.into();
        self.note(format!("VIOLATION {statement}"));
        self.violations.push(statement);
    }

    /// Counts.
    pub fn count(&mut self, what: impl Into<String>) {
        *self.counts.entry(what.into()).or_default() += 1;
    }

    /// A process begins.
    pub fn begins(&mut self, process: usize) -> Life {
        self.lives.push(LifeFacts { process, ..LifeFacts::default() });
        self.lives.len() - 1
    }

    fn group(&self, name: &str) -> Option<&'static str> {
        self.plan.groups.iter().find(|group| group.name == name).map(|group| group.name)
    }

    /// Groups that are to get events of that type.
    pub fn groups_of(&self, event_type: &str) -> Vec<&'static str> {
        self.plan.groups.iter().filter(|group| name::matches(group.pattern, event_type)).map(|group| group.name).collect()
    }

    /// Looks at what is new in the partitions.
    pub fn look(&mut self, partitions: impl IntoIterator<Item = Partition>) {
        for partition in partitions {
            let after = self.seen.get(&partition).copied().unwrap_or_default();
            let last = EntryId { ms: u64::MAX, seq: u64::MAX };
            let kept = self.store.history(&partition, after, last, usize::MAX).now_or_never();
            for entry in kept.expect("memory answers at once").expect("it is open") {
                self.seen.insert(partition.clone(), entry.id);
                if let Body::Event { meta, data, .. } = &entry.body {
                    self.found(&partition, entry.id, meta, data);
                }
            }
            self.seen.entry(partition).or_default();
        }
    }

    /// Looks at what is new everywhere in the bucket.
    pub fn look_at_bucket(&mut self, bucket: Bucket) {
        let partitions: Vec<Partition> = self.seen.keys().filter(|partition| partition.bucket() == bucket).cloned().collect();
        self.look(partitions);
    }

    fn found(&mut self, partition: &Partition, id: EntryId, meta: &[u8], data: &[u8]) {
        // What the bus itself says has no number.
        let Some(n) = std::str::from_utf8(data).ok().and_then(|text| text.parse::<usize>().ok()) else { return };
        let event_id = MetaView::read(meta).expect("written by a bus").id.into_owned();
        self.note(format!("store: {partition} {id} is event {n}"));
        if !self.event_ids.insert(event_id.clone()) {
            self.violated(format!("event {n} ({event_id}) is twice in the stream"));
        }
        if let Some((other, before)) = self.stored.insert(n, (partition.clone(), id))
            && self.plan.events[n].idempotent
        {
            self.violated(format!("idempotent event {n} is an entry at {other} {before} and at {partition} {id}"));
        }
        let key = self.plan.events[n].key.clone().unwrap_or_default();
        self.lines.entry((partition.clone(), key)).or_default().push((id, n));
        self.entries.insert((partition.clone(), id), Place { n, event_id });
    }

    /// The store gave entries to a consumer.
    pub fn took(&mut self, life: Life, group: &str, consumer: &str, entries: &[Entry]) {
        let now = self.ms();
        let consumer: Arc<str> = consumer.into();
        for entry in entries {
            let at = (life, group.to_owned(), entry.partition.clone(), entry.id);
            self.taken.insert(at, Taken { consumer: consumer.clone(), deliveries: entry.deliveries, at_ms: now });
        }
    }

    /// A lease was renewed in these buckets, as the store does it.
    pub fn renewed(&mut self, consumer: &str, buckets: &[Bucket], lease_ms: u64) {
        let now = self.store.now_ms();
        for bucket in buckets {
            let lease = self.leases.entry((consumer.into(), *bucket)).or_insert(LeaseFacts { end_ms: now + lease_ms, lost: false });
            if lease.end_ms <= now {
                lease.lost = true;
            } else {
                lease.end_ms = now + lease_ms;
            }
        }
    }

    /// Leases were given up.
    pub fn released(&mut self, consumer: &str, buckets: &[Bucket]) {
        for bucket in buckets {
            if let Some(lease) = self.leases.get_mut(&(consumer.into(), *bucket)) {
                lease.lost = true;
            }
        }
    }

    /// Somebody looked for the dead.
    pub fn looked_for_dead(&mut self) {
        let now = self.store.now_ms();
        self.store_ms_max = self.store_ms_max.max(now);
        self.leases.values_mut().filter(|lease| lease.end_ms <= now).for_each(|lease| lease.lost = true);
    }

    /// Whether others may have what this consumer held in the bucket.
    pub fn lost_lease(&self, consumer: &Arc<str>, bucket: Bucket) -> bool {
        let now = self.store.now_ms();
        self.leases.get(&(consumer.clone(), bucket)).is_none_or(|lease| lease.lost || lease.end_ms <= now)
    }

    /// The store settled entries so.
    pub fn settled(&mut self, life: Life, group: &str, settled: Vec<(Held, Disposal, Settled)>) {
        let Some(group) = self.group(group) else { return };
        self.store_ms_max = self.store_ms_max.max(self.store.now_ms());
        for (held, disposal, result) in settled {
            let Some(place) = self.entries.get(&(held.partition.clone(), held.id)).cloned() else { continue };
            self.note(format!("{}: {group}: event {} {disposal:?}: {result:?}", self.name(life), place.n));
            if result == Settled::NotHeld {
                continue;
            }
            match disposal {
                Disposal::Acknowledge => self.acknowledged(group, &held, place.n),
                Disposal::DeadLetter { reason, .. } => {
                    self.count(format!("dead letters: {}", reason.as_str()));
                    self.dead_lettered(group, place.n);
                }
                Disposal::Retry { .. } | Disposal::HandBack => {
                    if self.course(group, place.n).end.is_some() {
                        self.violated(format!("{group}: event {} waits again, though it had ended", place.n));
                    }
                }
            }
        }
    }

    /// Whether the own ttl of the event at that place was over at some time.
    fn is_expired(&self, n: usize, id: EntryId) -> bool {
        let now = self.store.now_ms().max(self.store_ms_max);
        self.plan.events[n].ttl_ms.is_some_and(|ttl| id.ms + ttl <= now)
    }

    fn acknowledged(&mut self, group: &'static str, held: &Held, n: usize) {
        let expired = self.is_expired(n, held.id);
        let course = self.course(group, n);
        if course.end.is_some() {
            return;
        }
        if course.calls.iter().any(|call| call.succeeded_ms.is_some()) {
            course.end = Some(End::Handled);
        } else if expired {
            // A handler may have had it, and have given it back: that does not count.
            course.end = Some(End::Expired);
            self.count("expired when read");
        } else {
            course.end = Some(End::Handled);
            self.violated(format!("{group}: event {n} was acknowledged, but no handler had succeeded with it"));
        }
    }

    /// A dead letter was written.
    pub fn dead_lettered(&mut self, group: &'static str, n: usize) {
        let course = self.course(group, n);
        course.letters += 1;
        let ended = course.end.replace(End::DeadLettered);
        if let Some(end) = ended {
            self.violated(format!("{group}: event {n} got a dead letter after it had ended: {end:?}"));
        }
    }

    /// Entries were given up because their processes died.
    pub fn crashed(&mut self, group: &str, event_id: &str) {
        let place = self.entries.values().find(|place| place.event_id == event_id).map(|place| place.n);
        if let (Some(group), Some(n)) = (self.group(group), place) {
            self.note(format!("store: {group}: event {n} is given up, its processes died"));
            self.count("dead letters: crashed");
            self.dead_lettered(group, n);
        }
    }

    /// Entries expired.
    pub fn swept(&mut self, swept: &Swept) {
        for expired in &swept.expired {
            let place = self.entries.values().find(|place| place.event_id == expired.event_id).map(|place| place.n);
            let (Some(group), Some(n)) = (self.group(&expired.group), place) else { continue };
            self.note(format!("store: {group}: event {n} expired"));
            self.count("expired when swept");
            if self.plan.events[n].ttl_ms.is_none() {
                self.violated(format!("{group}: event {n} expired, though it lives for an hour"));
            }
            self.course(group, n).end = Some(End::Expired);
        }
    }

    /// The store would not take the settlement of these.
    pub fn refused(&mut self, group: &str, entries: &[(Held, Disposal)]) {
        let Some(group) = self.group(group) else { return };
        let now = self.ms();
        for (held, _) in entries {
            if let Some(place) = self.entries.get(&(held.partition.clone(), held.id)).cloned() {
                self.course(group, place.n).refused_ms.push(now);
            }
        }
    }

    /// The course of an event in a group.
    pub fn course(&mut self, group: &'static str, n: usize) -> &mut Course {
        self.courses.entry((group, n)).or_default()
    }

    /// Process and life.
    pub fn name(&self, life: Life) -> String {
        format!("process {} (life {life})", self.lives[life].process)
    }

    /// A handler is called. Answers the event's number and the place of the call.
    pub fn called(&mut self, life: Life, group: &'static str, delivery: &Delivery) -> Option<(usize, usize)> {
        let Delivery { partition, subscription, attempt, .. } = delivery;
        let (id, subscription, attempt) = (delivery.id, *subscription, *attempt);
        let n = self.entries.get(&(partition.clone(), id))?.n;
        self.note(format!("{}: {group}: handler of event {n}, attempt {attempt}", self.name(life)));
        let Some(Taken { consumer, deliveries, at_ms: taken_ms }) =
            self.taken.get(&(life, group.to_owned(), partition.clone(), id)).cloned()
        else {
            self.violated(format!("{group}: event {n} came to a handler of a process that the store did not give it to"));
            return None;
        };
        // Taken from it and come again, without its knowing, where the store's clock was stepped.
        if deliveries != attempt && !self.lost_lease(&consumer, partition.bucket()) {
            self.violated(format!("{group}: event {n} came as attempt {attempt}, but the store counts {deliveries}"));
        }
        if self.plan.groups.iter().any(|plan| plan.name == group && plan.ordered) {
            self.check_order(group, partition, id, n, &consumer);
        }
        self.count("handlers called");
        let course = self.course(group, n);
        let ended = course.end;
        course.calls.push(Call { life, subscription, consumer, taken_ms, timed_out_ms: None, ended_ms: None, succeeded_ms: None });
        let index = course.calls.len() - 1;
        if ended == Some(End::DeadLettered) && index == 0 {
            self.violated(format!("{group}: event {n} is a dead letter, and came to a handler for the first time"));
        }
        Some((n, index))
    }

    /// Whether the call still is one that counts: it runs, in a process that lives and holds the entry.
    fn holds(&self, call: &Call, partition: &Partition, now: u64) -> bool {
        call.ended_ms.is_none()
            && call.timed_out_ms.is_none()
            && self.lives[call.life].crashed_ms.is_none()
            && !self.lives[call.life].gave_up_ms.iter().any(|at| *at >= call.taken_ms && *at <= now)
            && !self.lost_lease(&call.consumer, partition.bucket())
    }

    /// Everything of the key before this one has ended, and nothing of the key runs.
    fn check_order(&mut self, group: &'static str, partition: &Partition, id: EntryId, n: usize, consumer: &Arc<str>) {
        let now = self.ms();
        let key = self.plan.events[n].key.clone().unwrap_or_default();
        let line = self.lines.get(&(partition.clone(), key.clone())).cloned().unwrap_or_default();
        let mut found = Vec::new();
        for (other_id, other) in &line {
            let course = self.courses.get(&(group, *other));
            // What expired comes to no handler: nothing need wait until the store knows.
            if *other_id < id && course.is_none_or(|course| course.end.is_none()) && !self.is_expired(*other, *other_id) {
                found.push(format!("{group}: event {n} of key '{key}' came before event {other}, which has not ended"));
            }
            if let Some(course) = course
                && course.calls.iter().any(|call| self.holds(call, partition, now))
            {
                found.push(format!("{group}: event {n} of key '{key}' came while a handler of event {other} runs"));
            }
            if let Some(course) = course
                && *other_id > id
                && !course.calls.is_empty()
            {
                found.push(format!("{group}: event {n} of key '{key}' came after event {other}, which is behind it"));
            }
        }
        if found.is_empty() {
            return;
        }
        if self.lost_lease(consumer, partition.bucket()) {
            // Only a step of the store's clock ends a lease unseen by whoever has it.
            self.count("out of order: by the store's clock the lease was over");
            if self.plan.steps_store() {
                return;
            }
        }
        for what in found {
            self.violated(what);
        }
    }
}
