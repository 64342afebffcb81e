//! The way back to the store: disposals gathered by bucket, group and consumer, one call of each on its way at a time;
//! what failed for want of the server is kept and tried again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::time::Instant;

use super::gate::{self, Gate, Message};

use crate::engine::error::{Error, Result};
use crate::engine::event::{Asked, EventId};
use crate::engine::name;
use crate::engine::store::{Bucket, DeadReason, Disposal, EntryId, Held, Partition, Settled, Store};

/// Most entries of one call.
const ENTRIES_A_CALL: usize = 1000;
/// Pause before what failed is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(250);

/// What is to be said when the entry is settled.
#[derive(Clone, Debug, Default)]
pub struct Note {
    /// The event's id.
    pub event_id: EventId,
    /// How long its handlers took, where they ran and that is known.
    pub took: Option<Duration>,
    /// Error of a delivery that counts as done all the same.
    pub error: Option<String>,
    /// Confirmation numbers that wait.
    pub confirmations: Vec<u32>,
    /// It expired before it was delivered.
    pub expired: bool,
    /// A handler past its time succeeded after all: the event may have been called again since.
    pub late: bool,
    /// Nothing is to be said of it: it was not for this group.
    pub quiet: bool,
    /// Who waits for what becomes of it.
    pub asked: Option<Box<Asked>>,
    /// Acknowledged for want of a dead letter queue: why it was given up.
    pub given_up: Option<Box<(DeadReason, String)>>,
    /// It is a message to a project.
    pub message: Option<Box<Message>>,
}

/// One entry on its way back.
pub struct Settlement {
    /// The entry.
    pub held: Held,
    /// What becomes of it.
    pub disposal: Disposal,
    /// What to say then.
    pub note: Note,
}

/// Where settlements go together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lane {
    /// Bucket.
    pub bucket: Bucket,
    /// Group.
    pub group: Arc<str>,
    /// Consumer under which the entries were taken.
    pub consumer: Arc<str>,
    /// Of messages to projects, which are recorded first: other events need not wait for that.
    pub is_recorded: bool,
}

/// What came of one call.
pub struct Flushed {
    /// Where.
    pub lane: Lane,
    /// What was sent.
    pub sent: Vec<Settlement>,
    /// The store's answer.
    pub result: Result<Vec<Settled>>,
}

/// Settlements that are not on their way any more.
pub struct Ended {
    /// What they were.
    pub settled: Vec<Settlement>,
    /// What became of each.
    pub results: Vec<Settled>,
    /// Why none of them was taken.
    pub refused: Option<Error>,
}

#[derive(Default)]
struct Queue {
    waiting: Vec<Settlement>,
    sending: Vec<(Partition, EntryId)>,
    busy: bool,
    not_before: Option<Instant>,
}

/// All settlements on their way.
#[derive(Default)]
pub struct Flusher {
    /// In an order of their own, which is the same in every run.
    lanes: BTreeMap<Lane, Queue>,
    count: usize,
    /// Where the last settlement went: mostly it is where the next one goes.
    recent: Option<Recent>,
}

/// The lane of a partition's entries.
struct Recent {
    partition: Partition,
    lane: Lane,
}

impl Recent {
    fn new(partition: Partition, group: Arc<str>, consumer: Arc<str>) -> Self {
        let is_recorded = name::is_addressed(&partition.event_type);
        Self { lane: Lane { bucket: partition.bucket(), group, consumer, is_recorded }, partition }
    }

    /// Whether it is surely that one: the names are not compared, only where they are.
    fn is_of(&self, partition: &Partition, group: &Arc<str>, consumer: &Arc<str>) -> bool {
        Arc::ptr_eq(&self.partition.event_type, &partition.event_type)
            && self.partition.index == partition.index
            && Arc::ptr_eq(&self.lane.group, group)
            && Arc::ptr_eq(&self.lane.consumer, consumer)
    }
}

impl Flusher {
    /// Takes a settlement of the group, of an entry that was taken under the name `consumer`.
    pub fn push(&mut self, group: &Arc<str>, consumer: &Arc<str>, settlement: Settlement) {
        self.count += 1;
        let partition = &settlement.held.partition;
        let is_recent = |recent: &Recent| recent.is_of(partition, group, consumer);
        let recent = match self.recent.take() {
            Some(recent) if is_recent(&recent) => recent,
            _ => Recent::new(partition.clone(), group.clone(), consumer.clone()),
        };
        match self.lanes.get_mut(&recent.lane) {
            Some(queue) => queue.waiting.push(settlement),
            None => self.lanes.entry(recent.lane.clone()).or_default().waiting.push(settlement),
        }
        self.recent = Some(recent);
    }

    /// Settlements not yet answered.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Entries of the group on their way.
    pub fn entries(&self, group: &str) -> impl Iterator<Item = (&Partition, EntryId)> {
        self.lanes.iter().filter(move |(lane, _)| *lane.group == *group).flat_map(|(_, queue)| {
            let waiting = queue.waiting.iter().map(|settlement| (&settlement.held.partition, settlement.held.id));
            waiting.chain(queue.sending.iter().map(|(partition, id)| (partition, *id)))
        })
    }

    /// Calls that can start now.
    pub fn start(&mut self, store: &Arc<dyn Store>, gate: Option<&Arc<dyn Gate>>) -> Vec<BoxFuture<'static, Flushed>> {
        let now = Instant::now();
        let mut calls: Vec<BoxFuture<'static, Flushed>> = Vec::new();
        for (lane, queue) in &mut self.lanes {
            if queue.busy || queue.waiting.is_empty() || queue.not_before.is_some_and(|at| at > now) {
                continue;
            }
            let take = queue.waiting.len().min(ENTRIES_A_CALL);
            let mut sent: Vec<Settlement> = queue.waiting.drain(..take).collect();
            queue.sending = sent.iter().map(|s| (s.held.partition.clone(), s.held.id)).collect();
            queue.busy = true;
            let (store, lane, gate) = (store.clone(), lane.clone(), gate.cloned());
            calls.push(Box::pin(async move {
                if let Err(error) = gate::record(gate.as_ref(), &lane.group, &mut sent).await {
                    return Flushed { lane, sent, result: Err(error) };
                }
                let entries = sent.iter().map(|s| (s.held.clone(), s.disposal.clone())).collect();
                let result = store.settle(lane.bucket, &lane.group, &lane.consumer, entries).await;
                Flushed { lane, sent, result }
            }));
        }
        calls
    }

    /// Takes the answer in; answers what is settled, or refused for good. What the server could not be told is kept, but for
    /// entries handed back that are `compared` with the store then: the hand-back may have been done, and the entry have come
    /// again under the same delivery count, as that one did not count. Said again, it would take it from its handler.
    pub fn finish(&mut self, flushed: Flushed, compared: impl Fn(&Held) -> bool) -> Ended {
        let queue = self.lanes.entry(flushed.lane.clone()).or_default();
        queue.busy = false;
        queue.sending.clear();
        let error = match flushed.result {
            Ok(results) => {
                self.gone(&flushed.lane, flushed.sent.len());
                return Ended { settled: flushed.sent, results, refused: None };
            }
            Err(error) if !error.retryable => {
                // The server will not take these however often it is asked. Those still pending are found again when
                // the pending entries are compared with what is held.
                self.gone(&flushed.lane, flushed.sent.len());
                let results = vec![Settled::NotHeld; flushed.sent.len()];
                return Ended { settled: flushed.sent, results, refused: Some(error) };
            }
            Err(error) => error,
        };
        tracing::debug!(%error, "settling waits for the server");
        queue.not_before = Some(Instant::now() + RETRY_PAUSE);
        let in_doubt = |settlement: &Settlement| settlement.disposal == Disposal::HandBack && compared(&settlement.held);
        let (doubtful, mut waiting): (Vec<_>, Vec<_>) = flushed.sent.into_iter().partition(in_doubt);
        waiting.append(&mut queue.waiting);
        queue.waiting = waiting;
        self.gone(&flushed.lane, doubtful.len());
        let results = vec![Settled::Done; doubtful.len()];
        Ended { settled: doubtful, results, refused: None }
    }

    fn gone(&mut self, lane: &Lane, count: usize) {
        self.count -= count;
        if self.lanes.get(lane).is_some_and(|queue| queue.waiting.is_empty()) {
            self.lanes.remove(lane);
        }
    }
}
