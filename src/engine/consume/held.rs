//! Deliveries in flight: what was taken from the store and is not settled yet, and who works on it.

use std::sync::Arc;

use smallvec::SmallVec;
use tokio::time::Instant;

use super::casts::InTransit;
use super::group::GroupName;
use crate::engine::event::{Asked, EventId, RetryOverride};
use crate::engine::host::{EventText, Token};
use crate::engine::numbers::{ByNumber, InTurn};
use crate::engine::store::{Disposal, EntryId, Held, Partition};
use crate::engine::trace::{Arrival, Open};

/// Names an entry in flight, unique on a bus.
pub type Key = u64;

/// Subscriptions, by id: mostly it is one.
pub type Subscriptions = SmallVec<[u32; 4]>;

/// An entry in flight.
pub struct InFlight {
    /// As the store knows it.
    pub held: Held,
    /// Its group.
    pub group: GroupName,
    /// The consumer name under which it was taken: it may have changed since.
    pub consumer: Arc<str>,
    /// The event's id.
    pub event_id: EventId,
    /// Its text, for the handlers; empty once they have it, but for that of a message to a project, which is recorded.
    pub text: EventText,
    /// Its own retry settings.
    pub retry: Option<Box<RetryOverride>>,
    /// Deliveries that ended with the death of a process.
    pub crashes: u32,
    /// Subscriptions that count it as in flight.
    pub subscriptions: Subscriptions,
    /// Handlers that have not ended, with their subscription; empty while it waits for a place.
    pub running: SmallVec<[(Token, u32); 2]>,
    /// Handlers that failed.
    pub failures: Vec<Failed>,
    /// Subscriptions that gave it back unhandled.
    pub handed_back: Vec<u32>,
    /// Confirmation numbers that wait for its settlement.
    pub confirmations: Vec<u32>,
    /// Who waits for what becomes of it.
    pub asked: Option<Box<Asked>>,
    /// When its handlers were called.
    pub started: Instant,
    /// Where its trace is recorded.
    pub trace: Option<Box<Arrival>>,
}

/// A handler that failed, judged when it did: its subscription may be gone when the others end.
pub struct Failed {
    /// Its subscription.
    pub subscription: u32,
    /// Its call.
    pub token: Token,
    /// What it said.
    pub error: String,
    /// What would become of the event if it were the only handler.
    pub disposal: Disposal,
}

impl InFlight {
    /// Subscriptions that need not see the event again.
    pub fn succeeded(&self) -> impl Iterator<Item = u32> {
        let again = |id: &u32| {
            let failed = self.failures.iter().any(|failed| failed.subscription == *id && failed.disposal != Disposal::Acknowledge);
            failed || self.handed_back.contains(id)
        };
        self.subscriptions.iter().filter(move |id| !again(id)).copied()
    }

    /// Whether it is done when this call succeeded: it was the only one, and none failed.
    pub fn is_done_with(&self, token: Token) -> bool {
        matches!(self.running[..], [(running, _)] if running == token) && self.failures.is_empty() && self.handed_back.is_empty()
    }

    /// The call whose late success would complete the event: all others succeeded.
    pub fn late_success_is_all(&self) -> Option<Token> {
        let open: Vec<&Failed> = self.failures.iter().filter(|failed| failed.disposal != Disposal::Acknowledge).collect();
        match open[..] {
            [failed] if self.handed_back.is_empty() => Some(failed.token),
            _ => None,
        }
    }
}

/// A handler that ran out of time and still runs. A late success may still acknowledge.
pub struct Overdue {
    /// Its subscription.
    pub subscription: u32,
    /// It takes one of the subscription's places for such; of a batch, one of its deliveries does.
    pub takes_place: bool,
    /// The delivery, which may have ended since.
    pub key: Key,
    /// What its success would mean.
    pub late: Late,
    /// The entry, as it was held.
    pub held: Held,
    /// Its group.
    pub group: GroupName,
    /// The consumer then.
    pub consumer: Arc<str>,
    /// The event's id.
    pub event_id: EventId,
    /// Its text, as far as it is still of use.
    pub text: EventText,
}

/// What the success of a handler past its time would mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Late {
    /// Its delivery has not ended: it counts.
    Counts,
    /// All others succeeded: the event, which waits for its retry, is done.
    Completes,
    /// Others are to see the event again, this one is not.
    Spares,
    /// The event is done with.
    Nothing,
}

/// A delivery that a handler was called with.
struct Called {
    key: Key,
    subscription: u32,
    batch: Option<BatchId>,
    /// Of a call of its own; that of a batch is with the batch.
    span: Option<Open>,
}

/// Names one call of a batch handler.
pub type BatchId = u64;

/// One call of a batch handler.
struct Batch {
    /// Deliveries that wait for their verdict.
    left: usize,
    span: Option<Open>,
}

/// A delivery whose verdict came.
pub struct Redeemed {
    /// Its entry.
    pub key: Key,
    /// Its subscription.
    pub subscription: u32,
    /// The call of the handler ended with it.
    pub call_ended: bool,
}

/// All deliveries in flight on a bus.
#[derive(Default)]
pub struct Deliveries {
    entries: InTurn<InFlight>,
    tokens: InTurn<Called>,
    /// Calls with several deliveries.
    batches: ByNumber<BatchId, Batch>,
    last_batch: BatchId,
    /// Handlers past their time, by token.
    pub overdue: ByNumber<Token, Overdue>,
    /// Handlers that have an event that is not stored, by token.
    pub in_transit: ByNumber<Token, InTransit>,
    last_key: Key,
    last_token: Token,
    /// There were more calls than tokens: one may still be somebody's.
    tokens_recur: bool,
}

impl Deliveries {
    /// Takes an entry in.
    pub fn insert(&mut self, entry: InFlight) -> Key {
        self.last_key += 1;
        self.entries.insert(self.last_key, entry);
        self.last_key
    }

    /// The entry.
    pub fn get_mut(&mut self, key: Key) -> Option<&mut InFlight> {
        self.entries.get_mut(key)
    }

    /// The entry.
    pub fn get(&self, key: Key) -> Option<&InFlight> {
        self.entries.get(key)
    }

    /// Waits no more for the calls of one subscription. Answers whether none was made for the entry yet, whether one was
    /// given up, and how many calls ended with it.
    pub fn abandon(&mut self, key: Key, subscription: u32) -> (bool, bool, usize) {
        let Some(entry) = self.entries.get_mut(key) else { return (false, false, 0) };
        if entry.running.is_empty() {
            return (true, false, 0);
        }
        let (given_up, running) = entry.running.drain(..).partition::<SmallVec<_>, _>(|(_, id)| *id == subscription);
        entry.running = running;
        if !given_up.is_empty() {
            entry.handed_back.push(subscription);
        }
        let ended = given_up.iter().filter(|(token, _)| self.redeem(*token).is_some_and(|redeemed| redeemed.call_ended)).count();
        (false, !given_up.is_empty(), ended)
    }

    /// Takes an entry out of which no call is left to be redeemed.
    pub fn remove_ended(&mut self, key: Key) -> Option<InFlight> {
        self.entries.remove(key)
    }

    /// Takes it out, with the tokens of handlers that still run: their verdicts will not be known any more. Answers the
    /// subscription of each call that ended with it.
    pub fn remove(&mut self, key: Key) -> Option<(InFlight, Vec<u32>)> {
        let entry = self.entries.remove(key)?;
        let redeemed: Vec<Redeemed> = entry.running.iter().filter_map(|(token, _)| self.redeem(*token)).collect();
        let ended = redeemed.iter().filter(|redeemed| redeemed.call_ended).map(|redeemed| redeemed.subscription).collect();
        Some((entry, ended))
    }

    /// A name for a call of several deliveries; a single one needs none.
    pub fn begin_batch(&mut self, deliveries: usize) -> Option<BatchId> {
        if deliveries < 2 {
            return None;
        }
        self.last_batch += 1;
        self.batches.insert(self.last_batch, Batch { left: deliveries, span: None });
        Some(self.last_batch)
    }

    /// A token for a call of a handler of `subscription` for the entry, one of those of `batch`.
    pub fn call(&mut self, key: Key, subscription: u32, batch: Option<BatchId>, now: Instant) -> Option<(Token, &mut InFlight)> {
        let token = self.free_token();
        let entry = self.entries.get_mut(key)?;
        self.tokens.insert(token.into(), Called { key, subscription, batch, span: None });
        entry.running.push((token, subscription));
        entry.started = now;
        Some((token, entry))
    }

    /// Where the span of the call is kept in which the token's delivery was made.
    pub fn span_of(&mut self, token: Token) -> Option<&mut Option<Open>> {
        let called = self.tokens.get_mut(token.into())?;
        match called.batch {
            Some(batch) => Some(&mut self.batches.get_mut(&batch)?.span),
            None => Some(&mut called.span),
        }
    }

    /// A token that nobody has.
    pub fn free_token(&mut self) -> Token {
        loop {
            self.last_token = self.last_token.wrapping_add(1);
            self.tokens_recur |= self.last_token == 0;
            if !self.tokens_recur {
                return self.last_token;
            }
            let token = &self.last_token;
            if self.tokens.get((*token).into()).is_none() && !self.overdue.contains_key(token) && !self.in_transit.contains_key(token) {
                return self.last_token;
            }
        }
    }

    /// Ends a token: its entry and subscription.
    pub fn redeem(&mut self, token: Token) -> Option<Redeemed> {
        // Its span ends with it.
        let Called { key, subscription, batch, span: _ } = self.tokens.remove(token.into())?;
        let call_ended = batch.is_none_or(|batch| {
            let left = self.batches.get_mut(&batch).map_or(0, |batch| {
                batch.left -= 1;
                batch.left
            });
            if left == 0 {
                self.batches.remove(&batch);
            }
            left == 0
        });
        Some(Redeemed { key, subscription, call_ended })
    }

    /// The event of this entry is done with: no late success has anything to add.
    pub fn done_with(&mut self, partition: &Partition, id: EntryId) {
        if self.overdue.is_empty() {
            return;
        }
        for overdue in self.overdue.values_mut().filter(|overdue| overdue.held.id == id && overdue.held.partition == *partition) {
            overdue.late = Late::Nothing;
        }
    }

    /// Entries in flight.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Calls of handlers that have not ended, those of one batch each.
    pub fn calls(&self) -> usize {
        self.tokens.len()
    }

    /// Whether no handler is waited for.
    pub fn is_idle(&self) -> bool {
        self.entries.is_empty() && self.in_transit.values().all(|call| call.overdue)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (Key, &InFlight)> {
        self.entries.iter()
    }
}
