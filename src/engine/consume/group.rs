//! One consumer group on one bus: its subscriptions, the partitions it reads, and what to read next.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
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
    fn wants(&self) -> bool {
        // A handler that hangs for ever must not take its place with it, nor may such handlers pile up.
        !self.paused && self.closing.is_none() && self.overdue < 2 * self.concurrency
    }

    /// Entries it can take more.
    pub fn free(&self) -> usize {
        if self.wants() { self.in_flight_max.saturating_sub(self.in_flight + self.reserved) } else { 0 }
    }

    /// Whether a handler can be called now.
    pub fn can_run(&self) -> bool {
        self.wants() && self.running < self.concurrency
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

/// A consumer group on this bus.
pub struct Group {
    /// Its name.
    pub name: Arc<str>,
    /// Its subscriptions, highest priority first.
    pub subs: Vec<Sub>,
    /// Partitions that some subscription's pattern matches.
    pub partitions: BTreeMap<Partition, Reading>,
    /// Entries that wait for a place.
    pub waiting: VecDeque<Key>,
    /// Subscriptions that succeeded with an event another one failed.
    pub partial: HashMap<(Partition, EntryId), HashSet<u32>>,
    /// To the reader.
    pub plans: mpsc::Sender<Plan>,
    /// Ends a waiting read.
    pub waker: Arc<dyn Waker>,
    /// What is being read.
    pub reading: Option<InRead>,
    /// Claims on their way.
    pub claiming: usize,
    /// Pending entries are being compared: nothing else is read or claimed.
    pub comparing: bool,
    /// The pending entries are to be compared with what is held.
    pub compare_wanted: bool,
    /// When to look for due redeliveries.
    pub due_at: Instant,
    /// A look is on its way.
    pub looking: bool,
    turn: u32,
    rotation: usize,
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
    pub fn new(name: Arc<str>, plans: mpsc::Sender<Plan>, waker: Arc<dyn Waker>) -> Self {
        Self {
            name,
            subs: Vec::new(),
            partitions: BTreeMap::new(),
            waiting: VecDeque::new(),
            partial: HashMap::new(),
            plans,
            waker,
            reading: None,
            claiming: 0,
            comparing: false,
            compare_wanted: false,
            due_at: Instant::now(),
            looking: false,
            turn: 0,
            rotation: 0,
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
    }

    /// The subscription.
    pub fn sub_mut(&mut self, id: u32) -> Option<&mut Sub> {
        self.subs.iter_mut().find(|sub| sub.id == id)
    }

    /// Indexes of subscriptions that match, highest priority first.
    pub fn matching<'a>(&'a self, partition: &'a Partition) -> impl Iterator<Item = usize> + 'a {
        self.subs
            .iter()
            .enumerate()
            .filter(|(_, sub)| sub.closing.is_none() && name::matches(&sub.pattern, &partition.event_type))
            .map(|(i, _)| i)
    }

    /// Entries of the partition that can be taken: what the fullest of its subscriptions can take.
    pub fn free(&self, partition: &Partition) -> usize {
        self.matching(partition).map(|i| self.subs[i].free()).min().unwrap_or(0)
    }

    /// Remembers who succeeded with an event that is to be retried.
    pub fn remember(&mut self, partition: Partition, id: EntryId, succeeded: HashSet<u32>) {
        if self.partial.len() >= PARTIAL_MAX
            && let Some(oldest) = self.partial.keys().min_by_key(|(_, id)| *id).cloned()
        {
            self.partial.remove(&oldest);
        }
        self.partial.insert((partition, id), succeeded);
    }

    /// What to read now; `None` while there is no place, or a read is on its way. `wait` is the longest wait.
    pub fn plan(&mut self, consumer: &Arc<str>, batch_size: usize, wait: Duration) -> Option<Plan> {
        if self.reading.is_some() || self.comparing || self.partitions.is_empty() {
            return None;
        }
        let all: Vec<(&Partition, &Reading)> = self.partitions.iter().collect();
        let start = self.rotation % all.len();
        let in_turn = all[start..].iter().chain(&all[..start]);
        let open: Vec<(&Partition, bool)> = in_turn
            // Due redeliveries take the next place, so that a backlog of new events cannot hold them off.
            .filter(|(partition, reading)| !reading.due && self.free(partition) > 0)
            .map(|(partition, reading)| (*partition, reading.backlog))
            .collect();
        if open.is_empty() {
            return None;
        }
        let left_out = open.len() < all.len();
        self.turn = self.turn.wrapping_add(1);
        let any_backlog = open.iter().any(|(_, backlog)| *backlog);
        let look_round = self.turn % READS_BEFORE_LOOKING_ROUND == 0 && open.iter().any(|(_, backlog)| !backlog);
        let waits = !any_backlog;
        let wanted = open.iter().filter(|(_, backlog)| waits || *backlog != look_round).map(|(partition, _)| *partition);
        // How many of the chosen streams share a subscription's places.
        let mut sharing: HashMap<u32, usize> = HashMap::new();
        let mut chosen: Vec<Partition> = Vec::new();
        for partition in wanted {
            if !waits && chosen.len() >= STREAMS_A_READ_MAX {
                break;
            }
            let subs: Vec<usize> = self.matching(partition).collect();
            let room = subs.iter().all(|i| sharing.get(&self.subs[*i].id).copied().unwrap_or(0) < self.subs[*i].free());
            // A waiting read is answered by the first stream that gets something: it may name them all.
            if waits || room {
                subs.iter().for_each(|i| *sharing.entry(self.subs[*i].id).or_default() += 1);
                chosen.push(partition.clone());
            }
        }
        let share = self.subs.iter().filter_map(|sub| sharing.get(&sub.id).map(|n| sub.free() / n)).min().unwrap_or(1);
        let count = share.clamp(1, batch_size);
        self.rotation = self.rotation.wrapping_add(chosen.len());
        let from = chosen.iter().map(|partition| ReadFrom { partition: partition.clone() }).collect();
        self.reading = Some(InRead { waits, left_out, count, partitions: chosen });
        Some(Plan { consumer: consumer.clone(), from, count, wait: waits.then_some(wait) })
    }

    /// Ends a waiting read when it no longer asks for what it could.
    pub fn wake_if_better(&self) {
        if let Some(reading) = &self.reading
            && reading.waits
            && reading.left_out
        {
            let asked: HashSet<&Partition> = reading.partitions.iter().collect();
            if self.partitions.iter().any(|(p, r)| !r.due && !asked.contains(p) && self.free(p) > 0) {
                self.waker.wake();
            }
        }
    }
}
