//! One consumer group on one bus: its subscriptions, the partitions it reads, and what to read next.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::held::Key;
use crate::engine::name;
use crate::engine::options::SubscribeOptions;
use crate::engine::retry::RetryPolicy;
use crate::engine::store::{Bucket, EntryId, GroupSpec, Partition, ReadFrom, Waker};

/// Streams read at once while there is a backlog: more make the command long, fewer make it unfair.
const STREAMS_A_READ_MAX: usize = 64;
/// Of so many reads of streams with a backlog, one looks at the others.
const READS_BEFORE_LOOKING_ROUND: u32 = 8;
/// Events whose handlers succeeded in part, remembered for their retry.
const PARTIAL_MAX: usize = 10_000;

/// A subscription.
pub struct Sub {
    /// Its owner's name for it.
    pub id: u32,
    /// Event type or pattern.
    pub pattern: String,
    /// As given.
    pub options: SubscribeOptions,
    /// Its retry settings over the defaults.
    pub policy: RetryPolicy,
    /// Most entries in flight.
    pub in_flight_max: usize,
    /// Most handlers at once.
    pub concurrency: usize,
    /// Entries in flight, waiting for a place or running.
    pub in_flight: usize,
    /// Handlers running.
    pub running: usize,
    /// Handlers past their time that still run.
    pub overdue: usize,
    /// Places kept for entries on their way from the store.
    pub reserved: usize,
    /// It wants nothing for now.
    pub paused: bool,
    /// It ends: nothing new, until its handlers are done.
    pub closing: Option<Instant>,
}

impl Sub {
    /// Whether it takes events at all.
    pub fn wants(&self) -> bool {
        !self.paused && self.closing.is_none() && !self.is_stuck()
    }

    /// So many handlers hang that no further one is called: one that hangs for ever must not take its place with it,
    /// nor may such handlers pile up.
    pub fn is_stuck(&self) -> bool {
        self.overdue >= self.overdue_max()
    }

    /// Most handlers past their time.
    pub fn overdue_max(&self) -> usize {
        2 * self.concurrency
    }

    /// Entries it can take more.
    pub fn free(&self) -> usize {
        if self.wants() { self.in_flight_max.saturating_sub(self.in_flight + self.reserved) } else { 0 }
    }

    /// Whether a handler can be called now: all that run may yet be late.
    pub fn can_run(&self) -> bool {
        self.wants() && self.running < self.concurrency && self.running + self.overdue < self.overdue_max()
    }

    /// What the store keeps of it.
    pub fn spec(&self, group: &str) -> GroupSpec {
        GroupSpec { group: group.to_owned(), pattern: self.pattern.clone(), options: self.options.of_the_group() }
    }
}

/// A partition as its reader sees it.
#[derive(Default)]
pub struct Reading {
    /// The last read found as much as it asked for: there may be more.
    pub backlog: bool,
    /// Redeliveries are due and wait for a place: they go first.
    pub due: bool,
    /// Highest entry seen.
    pub last_seen: EntryId,
    /// Indexes of the subscriptions that match, highest priority first.
    subs: Vec<usize>,
}

/// What a reader is asked for.
pub struct Plan {
    /// Under this name.
    pub consumer: Arc<str>,
    /// From these.
    pub from: Vec<ReadFrom>,
    /// Most entries of each.
    pub count: usize,
    /// Longest wait.
    pub wait: Option<Duration>,
}

/// Names a [`Group`]: what was begun for one of the same name that ended is not taken for this one's.
#[derive(Clone, Debug)]
pub struct GroupId {
    /// Its name.
    pub name: Arc<str>,
    /// Unique on a bus.
    pub serial: u64,
}

/// Comparing what is pending in the store with what is held here.
#[derive(Default)]
pub struct Comparison {
    /// It is due, also while another one runs.
    pub wanted: bool,
    /// It runs: nothing else is read or claimed.
    pub running: bool,
}

/// A consumer group on this bus.
pub struct Group {
    /// Who it is.
    pub id: GroupId,
    /// Its subscriptions, highest priority first.
    pub subs: Vec<Sub>,
    /// Partitions that some subscription's pattern matches.
    pub partitions: BTreeMap<Partition, Reading>,
    /// Entries that wait for a place.
    pub waiting: VecDeque<Key>,
    /// Subscriptions that succeeded with an event another one failed.
    pub partial: BTreeMap<(EntryId, Partition), HashSet<u32>>,
    /// To the reader.
    pub plans: mpsc::Sender<Plan>,
    /// Ends a waiting read.
    pub waker: Arc<dyn Waker>,
    /// What is being read.
    pub reading: Option<InRead>,
    /// Claims on their way.
    pub claiming: usize,
    /// Of what is pending with what is held.
    pub comparison: Comparison,
    /// When to look for due redeliveries.
    pub due_at: Instant,
    /// A look is on its way.
    pub looking: bool,
    /// The server refuses its reads for good, and that was said.
    pub refused: bool,
    turn: u32,
    /// The last partition read for its backlog, and the last one looked at: the next one is next.
    last_read: Option<Partition>,
    last_looked: Option<Partition>,
}

/// A read on its way.
pub struct InRead {
    /// It waits when nothing is there.
    pub waits: bool,
    /// Partitions had to be left out for want of places.
    pub left_out: bool,
    /// Most entries of each partition.
    pub count: usize,
    /// What was asked.
    pub partitions: Vec<Partition>,
}

impl Group {
    /// A group without subscriptions yet.
    pub fn new(id: GroupId, plans: mpsc::Sender<Plan>, waker: Arc<dyn Waker>) -> Self {
        Self {
            id,
            subs: Vec::new(),
            partitions: BTreeMap::new(),
            waiting: VecDeque::new(),
            partial: BTreeMap::new(),
            plans,
            waker,
            reading: None,
            claiming: 0,
            comparison: Comparison::default(),
            due_at: Instant::now(),
            looking: false,
            refused: false,
            turn: 0,
            last_read: None,
            last_looked: None,
        }
    }

    /// Buckets in use.
    pub fn buckets(&self) -> BTreeSet<Bucket> {
        self.partitions.keys().map(Partition::bucket).collect()
    }

    /// Adds a subscription in the order of priorities.
    pub fn add(&mut self, sub: Sub) {
        let at = self.subs.partition_point(|other| other.options.priority >= sub.options.priority);
        self.subs.insert(at, sub);
        self.match_all();
    }

    /// Takes a subscription out.
    pub fn remove(&mut self, id: u32) -> Option<Sub> {
        let at = self.subs.iter().position(|sub| sub.id == id)?;
        let sub = self.subs.remove(at);
        self.match_all();
        Some(sub)
    }

    /// From now on the subscription gets nothing new. Answers whether it is there.
    pub fn close(&mut self, id: u32, deadline: Instant) -> bool {
        let Some(sub) = self.sub_mut(id) else { return false };
        sub.closing = Some(deadline);
        self.match_all();
        true
    }

    /// From now on nobody gets anything new.
    pub fn close_all(&mut self, deadline: Instant) {
        self.subs.iter_mut().for_each(|sub| sub.closing = Some(deadline));
        self.match_all();
    }

    /// Whether it can look for due redeliveries.
    pub fn looks(&self) -> bool {
        !self.looking && !self.partitions.is_empty()
    }

    /// Adds a partition, unless no subscription wants it. Answers whether it is new.
    pub fn open(&mut self, partition: Partition) -> bool {
        if self.partitions.contains_key(&partition) {
            return false;
        }
        let subs = matching(&self.subs, &partition);
        if subs.is_empty() {
            return false;
        }
        self.partitions.insert(partition, Reading { subs, ..Reading::default() });
        true
    }

    /// Patterns are matched when subscriptions change, not at every read.
    fn match_all(&mut self) {
        for (partition, reading) in &mut self.partitions {
            reading.subs = matching(&self.subs, partition);
        }
    }

    /// The subscription.
    pub fn sub_mut(&mut self, id: u32) -> Option<&mut Sub> {
        self.subs.iter_mut().find(|sub| sub.id == id)
    }

    /// Subscriptions that match and stay, highest priority first.
    pub fn matching(&self, partition: &Partition) -> impl Iterator<Item = &Sub> {
        self.partitions.get(partition).into_iter().flat_map(|reading| &reading.subs).map(|i| &self.subs[*i])
    }

    /// Entries of the partition that can be taken: what the fullest of its subscriptions can take.
    pub fn free(&self, partition: &Partition) -> usize {
        self.partitions.get(partition).map_or(0, |reading| self.free_for(reading))
    }

    fn free_for(&self, reading: &Reading) -> usize {
        reading.subs.iter().map(|i| self.subs[*i].free()).min().unwrap_or(0)
    }

    /// Remembers who succeeded with an event that is to be delivered again.
    pub fn remember(&mut self, partition: Partition, id: EntryId, succeeded: impl IntoIterator<Item = u32>) {
        self.partial.entry((id, partition)).or_default().extend(succeeded);
        if self.partial.len() > PARTIAL_MAX {
            self.partial.pop_first();
        }
    }

    /// What to read now; `None` while there is no place, or a read is on its way. `wait` is the longest wait.
    pub fn plan(&mut self, consumer: &Arc<str>, batch_size: usize, wait: Duration) -> Option<Plan> {
        if self.reading.is_some() || self.comparison.running || self.partitions.is_empty() {
            return None;
        }
        // Due redeliveries take the next place, so that a backlog of new events cannot hold them off.
        let turn = self.turn.wrapping_add(1);
        let is_open = |reading: &Reading| !reading.due && self.free_for(reading) > 0;
        let (mut open, mut backlogs) = (0, 0);
        for reading in self.partitions.values().filter(|reading| is_open(reading)) {
            open += 1;
            backlogs += usize::from(reading.backlog);
        }
        if open == 0 {
            return None;
        }
        let waits = backlogs == 0;
        let looks_round = !waits && backlogs < open && turn.is_multiple_of(READS_BEFORE_LOOKING_ROUND);
        let last = if looks_round { &self.last_looked } else { &self.last_read };
        // How many of the chosen streams share a subscription's places.
        let mut sharing: HashMap<usize, usize> = HashMap::new();
        let mut chosen: Vec<Partition> = Vec::new();
        for (partition, reading) in after(&self.partitions, last.as_ref()) {
            if !is_open(reading) || (!waits && reading.backlog == looks_round) {
                continue;
            }
            // A waiting read is answered by the first stream that gets something: it may name them all. Those looked at
            // are mostly empty.
            let names_all = waits || looks_round;
            if names_all || reading.subs.iter().all(|i| sharing.get(i).copied().unwrap_or(0) < self.subs[*i].free()) {
                reading.subs.iter().for_each(|i| *sharing.entry(*i).or_default() += 1);
                chosen.push(partition.clone());
            }
            if !waits && chosen.len() >= STREAMS_A_READ_MAX {
                break;
            }
        }
        let share = sharing.iter().map(|(i, n)| self.subs[*i].free() / n).min().unwrap_or(1);
        let count = share.clamp(1, batch_size);
        self.turn = turn;
        let left_out = open < self.partitions.len();
        let last = if looks_round { &mut self.last_looked } else { &mut self.last_read };
        last.clone_from(&chosen.last().cloned());
        let from = chosen.iter().map(|partition| ReadFrom { partition: partition.clone() }).collect();
        self.reading = Some(InRead { waits, left_out, count, partitions: chosen });
        Some(Plan { consumer: consumer.clone(), from, count, wait: waits.then_some(wait) })
    }

    /// Ends a waiting read when it no longer asks for what it could.
    pub fn wake_if_better(&self) {
        let Some(reading) = self.reading.as_ref().filter(|reading| reading.waits && reading.left_out) else { return };
        let asked: HashSet<&Partition> = reading.partitions.iter().collect();
        if self.partitions.iter().any(|(p, r)| !r.due && self.free_for(r) > 0 && !asked.contains(p)) {
            self.waker.wake();
        }
    }
}

fn matching(subs: &[Sub], partition: &Partition) -> Vec<usize> {
    let matches = |sub: &Sub| sub.closing.is_none() && name::matches(&sub.pattern, &partition.event_type);
    subs.iter().enumerate().filter(|(_, sub)| matches(sub)).map(|(i, _)| i).collect()
}

/// All partitions in turn, beginning after `last`.
fn after<'a>(all: &'a BTreeMap<Partition, Reading>, last: Option<&Partition>) -> impl Iterator<Item = (&'a Partition, &'a Reading)> {
    let start = last.map_or(Bound::Unbounded, Bound::Excluded);
    let end = last.map(|last| (Bound::Unbounded, Bound::Included(last)));
    all.range::<Partition, _>((start, Bound::Unbounded)).chain(end.into_iter().flat_map(|end| all.range::<Partition, _>(end)))
}
