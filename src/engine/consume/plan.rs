//! What a group reads next: as much as its subscriptions have places for, the urgent first, and none left out.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use super::group::{Group, Reading};
use crate::engine::event::Priority;
use crate::engine::store::{Partition, ReadFrom};

/// Streams read at once while there is a backlog: more make the command long, fewer make it unfair.
const STREAMS_A_READ_MAX: usize = 64;
/// Of so many reads of streams with a backlog, one looks at the others.
const READS_BEFORE_LOOKING_ROUND: u32 = 8;

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

/// Which partitions had their turn.
#[derive(Default)]
pub struct Rotation {
    reads: u32,
    /// More urgent streams were looked at since the last read of a backlog.
    looked: bool,
    /// The last partition read for its backlog, and the last one looked at: the next one is next.
    last_read: Option<Partition>,
    last_looked: Option<Partition>,
}

/// What a read is for.
#[derive(Clone, Copy, PartialEq)]
enum Purpose {
    /// Nothing waits to be read: wait for what comes.
    Wait,
    /// More of the backlog in this lane, and what is new in more urgent ones.
    Backlog(Priority),
    /// What is new in lanes more urgent than this one: there is one place, which must not go to the backlog.
    LookAhead(Priority),
    /// What is new in streams without a backlog.
    LookRound,
}

/// What could be read.
#[derive(Default)]
struct Survey {
    /// Streams with a free place.
    open: usize,
    /// Of each lane with a backlog: the fewest places of one of its streams.
    places: [Option<usize>; 4],
    /// Most urgent lane of streams without a backlog.
    idle: Option<Priority>,
}

impl Group {
    /// What to read now; `None` while there is no place, or a read is on its way. `wait` is the longest wait.
    pub fn plan(&mut self, consumer: &Arc<str>, batch_size: usize, wait: Duration) -> Option<Plan> {
        if self.reading.is_some() || self.comparison.running || self.partitions.is_empty() {
            return None;
        }
        let survey = self.survey();
        if survey.open == 0 {
            return None;
        }
        let reads = self.rotation.reads.wrapping_add(1);
        let purpose = self.purpose(&survey, reads);
        let limit = if purpose == Purpose::Wait { usize::MAX } else { STREAMS_A_READ_MAX };
        // How many of the chosen streams share a subscription's places.
        let mut sharing: HashMap<usize, usize> = HashMap::new();
        let mut chosen: Vec<Partition> = Vec::new();
        if let Purpose::Backlog(lane) = purpose {
            for (partition, reading) in after(&self.partitions, self.rotation.last_read.as_ref()) {
                if chosen.len() >= limit {
                    break;
                }
                let has_place = |i: &usize| sharing.get(i).copied().unwrap_or(0) < self.subs[*i].free();
                if self.is_open(partition, reading) && reading.backlog && partition.lane == lane && reading.subs.iter().all(has_place) {
                    reading.subs.iter().for_each(|i| *sharing.entry(*i).or_default() += 1);
                    chosen.push(partition.clone());
                }
            }
            self.rotation.last_read = chosen.last().cloned();
        }
        // A waiting read is answered by the first stream that gets something, and those looked at are mostly empty: all
        // of them may be named.
        let backlogged = chosen.len();
        for (partition, reading) in after(&self.partitions, self.rotation.last_looked.as_ref()) {
            if chosen.len() >= limit {
                break;
            }
            if self.is_open(partition, reading) && !reading.backlog && purpose.looks_at(partition.lane) {
                if backlogged == 0 {
                    reading.subs.iter().for_each(|i| *sharing.entry(*i).or_default() += 1);
                }
                chosen.push(partition.clone());
            }
        }
        if chosen.len() > backlogged {
            self.rotation.last_looked = chosen.last().cloned();
        }
        let share = sharing.iter().map(|(i, n)| self.subs[*i].free() / n).min().unwrap_or(1);
        let count = share.clamp(1, batch_size);
        self.rotation.reads = reads;
        self.rotation.looked = matches!(purpose, Purpose::LookAhead(_));
        let waits = purpose == Purpose::Wait;
        let from = chosen.iter().map(|partition| self.read_from(partition)).collect();
        self.reading = Some(InRead { waits, left_out: survey.open < self.partitions.len(), count, partitions: chosen });
        Some(Plan { consumer: consumer.clone(), from, count, wait: waits.then_some(wait) })
    }

    fn read_from(&self, partition: &Partition) -> ReadFrom {
        let last_seen = self.partitions.get(partition).map(|reading| reading.last_seen);
        ReadFrom { partition: partition.clone(), owned_after: last_seen.filter(|_| self.lines.is_some()) }
    }

    /// Due redeliveries take the next place, so that a backlog of new events cannot hold them off.
    fn is_open(&self, partition: &Partition, reading: &Reading) -> bool {
        !reading.due && self.free_for(reading) > 0 && self.reads(partition)
    }

    fn survey(&self) -> Survey {
        let mut survey = Survey::default();
        for (partition, reading) in &self.partitions {
            let free = self.free_for(reading);
            if !self.is_open(partition, reading) {
                continue;
            }
            survey.open += 1;
            if reading.backlog {
                let places = &mut survey.places[partition.lane as usize];
                *places = places.map_or(Some(free), |least| Some(least.min(free)));
            } else {
                survey.idle = Some(survey.idle.map_or(partition.lane, |lane| lane.min(partition.lane)));
            }
        }
        survey
    }

    fn purpose(&self, survey: &Survey, reads: u32) -> Purpose {
        let Some(lane) = self.turns.next(|lane| survey.places[lane as usize].is_some()) else { return Purpose::Wait };
        if reads.is_multiple_of(READS_BEFORE_LOOKING_ROUND) && survey.idle.is_some() {
            return Purpose::LookRound;
        }
        let urgent = survey.idle.is_some_and(|idle| idle < lane);
        let is_last_place = survey.places[lane as usize] == Some(1);
        if is_last_place && urgent && !self.rotation.looked { Purpose::LookAhead(lane) } else { Purpose::Backlog(lane) }
    }

    /// Ends a waiting read when it no longer asks for what it could.
    pub fn wake_if_better(&self) {
        let Some(reading) = self.reading.as_ref().filter(|reading| reading.waits && reading.left_out) else { return };
        let asked: HashSet<&Partition> = reading.partitions.iter().collect();
        if self.partitions.iter().any(|(p, r)| self.is_open(p, r) && !asked.contains(p)) {
            self.waker.wake();
        }
    }

    /// Lanes whose due redeliveries may be claimed now: the one whose turn it is, and those more urgent.
    pub fn claimable(&self) -> Option<Priority> {
        self.turns.next(|lane| {
            let mut of_lane = self.partitions.iter().filter(|(partition, _)| partition.lane == lane);
            of_lane.any(|(_, reading)| (reading.due || reading.backlog) && self.free_for(reading) > 0)
        })
    }
}

impl Purpose {
    /// Whether streams of this lane without a backlog are read along.
    fn looks_at(self, lane: Priority) -> bool {
        match self {
            Self::Wait | Self::LookRound => true,
            Self::Backlog(turn) | Self::LookAhead(turn) => lane < turn,
        }
    }
}

/// All partitions in turn, beginning after `last`.
fn after<'a>(all: &'a BTreeMap<Partition, Reading>, last: Option<&Partition>) -> impl Iterator<Item = (&'a Partition, &'a Reading)> {
    let start = last.map_or(Bound::Unbounded, Bound::Excluded);
    let end = last.map(|last| (Bound::Unbounded, Bound::Included(last)));
    all.range::<Partition, _>((start, Bound::Unbounded)).chain(end.into_iter().flat_map(|end| all.range::<Partition, _>(end)))
}
