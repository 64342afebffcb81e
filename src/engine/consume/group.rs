//! One consumer group on one bus: its subscriptions, and the partitions it reads.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::ordered::{Line, Lines};
use super::plan::{InRead, Plan, Rotation};
use super::turns::Turns;
use super::waiting::Waiting;
use crate::engine::name;
use crate::engine::options::SubscribeOptions;
use crate::engine::retry::RetryPolicy;
use crate::engine::store::{Bucket, EntryId, GroupSpec, Held, Partition, Waker};

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
    /// The group was there when it was read last.
    pub was_there: bool,
    /// Indexes of the subscriptions that match, highest priority first.
    pub(super) subs: Vec<usize>,
}

/// A consumer group on this bus: its ordered subscriptions and the others read apart, they have no type in common.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupName {
    name: Arc<str>,
    ordered: bool,
}

impl GroupName {
    /// Of subscriptions that are ordered, or are not.
    pub fn new(name: Arc<str>, ordered: bool) -> Self {
        Self { name, ordered }
    }

    /// Whether these are the ordered subscriptions of the group.
    pub fn is_ordered(&self) -> bool {
        self.ordered
    }
}

impl Deref for GroupName {
    type Target = Arc<str>;

    fn deref(&self) -> &Arc<str> {
        &self.name
    }
}

impl fmt::Display for GroupName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// Names a [`Group`]: what was begun for one of the same name that ended is not taken for this one's.
#[derive(Clone, Debug)]
pub struct GroupId {
    /// Its name.
    pub name: GroupName,
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
    /// When it was first read here, by the store's clock, ms since 1970.
    pub since_ms: u64,
    /// Its subscriptions, highest priority first.
    pub subs: Vec<Sub>,
    /// Some subscription has a filter.
    pub filters: bool,
    /// Partitions that some subscription's pattern matches.
    pub partitions: BTreeMap<Partition, Reading>,
    /// Of an ordered group: which of its partitions are read here, and what waits there.
    pub lines: Option<Lines>,
    /// Entries that wait for a handler.
    pub waiting: Waiting,
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
    /// When a batch that is not full is due.
    pub gathered_at: Option<Instant>,
    /// When to look for due redeliveries.
    pub due_at: Instant,
    /// A look is on its way.
    pub looking: bool,
    /// The server refuses its reads for good, and that was said.
    pub refused: bool,
    /// Whose turn it is to be read and claimed.
    pub turns: Turns,
    pub(super) rotation: Rotation,
}

impl Group {
    /// A group without subscriptions yet.
    pub fn new(id: GroupId, since_ms: u64, plans: mpsc::Sender<Plan>, waker: Arc<dyn Waker>) -> Self {
        let lines = id.name.is_ordered().then(Lines::default);
        Self {
            id,
            since_ms,
            lines,
            subs: Vec::new(),
            filters: false,
            partitions: BTreeMap::new(),
            waiting: Waiting::default(),
            partial: BTreeMap::new(),
            plans,
            waker,
            reading: None,
            claiming: 0,
            comparison: Comparison::default(),
            gathered_at: None,
            due_at: Instant::now(),
            looking: false,
            refused: false,
            turns: Turns::default(),
            rotation: Rotation::default(),
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
        // What waits in an ordered group is known to whoever reads the partition.
        !self.looking && self.lines.is_none() && !self.partitions.is_empty()
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
        if let Some(lines) = &mut self.lines {
            lines.by_partition.insert(partition.clone(), Line::new());
        }
        self.partitions.insert(partition, Reading { subs, ..Reading::default() });
        true
    }

    /// The partition is not read any more.
    pub fn shut(&mut self, partition: &Partition) {
        self.partitions.remove(partition);
        if let Some(lines) = &mut self.lines {
            lines.by_partition.remove(partition);
        }
    }

    /// Whether new entries of the partition may be read, as far as order goes.
    pub fn reads(&self, partition: &Partition) -> bool {
        self.lines.as_ref().is_none_or(|lines| lines.by_partition.get(partition).is_some_and(Line::reads))
    }

    /// Whether handlers may be called for entries of the partition.
    pub fn calls(&self, partition: &Partition) -> bool {
        self.lines.as_ref().is_none_or(|lines| lines.by_partition.get(partition).is_none_or(Line::calls))
    }

    /// What is pending in the store may not be what is held here.
    pub fn doubt(&mut self) {
        match &mut self.lines {
            Some(lines) => lines.doubt_all(),
            None => self.comparison.wanted = true,
        }
    }

    /// Patterns are matched when subscriptions change, not at every read.
    fn match_all(&mut self) {
        self.filters = self.subs.iter().any(|sub| sub.options.filter.is_some());
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

    pub(super) fn free_for(&self, reading: &Reading) -> usize {
        reading.subs.iter().map(|i| self.subs[*i].free()).min().unwrap_or(0)
    }

    /// The event is done with: who succeeded with it is of no interest any more.
    pub fn forget(&mut self, held: &Held) {
        if !self.partial.is_empty() {
            self.partial.remove(&(held.id, held.partition.clone()));
        }
    }

    /// Remembers who succeeded with an event that is to be delivered again.
    pub fn remember(&mut self, partition: Partition, id: EntryId, succeeded: impl IntoIterator<Item = u32>) {
        self.partial.entry((id, partition)).or_default().extend(succeeded);
        if self.partial.len() > PARTIAL_MAX {
            self.partial.pop_first();
        }
    }
}

fn matching(subs: &[Sub], partition: &Partition) -> Vec<usize> {
    let matches = |sub: &Sub| sub.closing.is_none() && name::matches(&sub.pattern, &partition.event_type);
    subs.iter().enumerate().filter(|(_, sub)| matches(sub)).map(|(i, _)| i).collect()
}
