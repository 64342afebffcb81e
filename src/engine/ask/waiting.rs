//! The calls that wait: by token, by event, by deadline. A plain structure; time comes in as an argument.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::time::Instant;

use super::looks::{LOOK_EVERY, Look};
use super::message::Answer;
use super::timed_out;
use crate::engine::error::Result;
use crate::engine::host::Token;
use crate::engine::options::Ask;
use crate::engine::store::{EntryId, Partition};

/// A call that waits.
pub struct Wait {
    /// For what.
    pub ask: Ask,
    /// Its event.
    pub event_id: Arc<str>,
    /// Where the event goes; told again by [`Waiting::placed`].
    pub partition: Partition,
    /// When its time is over.
    pub deadline: Instant,
    /// Told where the entry is.
    pub entry: Arc<OnceLock<EntryId>>,
    /// When the event becomes an entry, about, by the server's clock.
    pub entry_ms: u64,
    /// How long from now on the entry lives.
    pub life: Option<Duration>,
    /// Set to give the event up while it is not sent.
    pub cancelled: Option<Arc<AtomicBool>>,
}

struct Call {
    wait: Wait,
    /// The event is in the store.
    stored: bool,
    /// The call was answered before the event was stored: only that is waited for.
    answered: bool,
    /// Its time was over before the event was stored.
    late: bool,
    look: Look,
}

/// What the result of a publish means for a call that waits.
pub struct Answered {
    /// Nothing more is to come for it.
    pub over: bool,
    /// What it is to be told.
    pub error: Option<crate::engine::error::Error>,
}

/// Answers to calls: the token, whether nothing more is to come for it, and what it is told.
pub type Answers = Vec<(Token, bool, Result<String>)>;

/// All of them.
#[derive(Default)]
pub struct Waiting {
    calls: HashMap<Token, Call>,
    by_event: HashMap<Arc<str>, Vec<Token>>,
    deadlines: BTreeSet<(Instant, Token)>,
    /// When to look for which; calls that are over are found out then.
    looks: BTreeSet<(Instant, Token)>,
    closed: bool,
}

impl Waiting {
    /// Whether none is there.
    pub fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    /// Nobody is waited for any more.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Adds a call; false once it is closed.
    pub fn insert(&mut self, token: Token, wait: Wait) -> bool {
        if self.closed {
            return false;
        }
        self.deadlines.insert((wait.deadline, token));
        self.by_event.entry(wait.event_id.clone()).or_default().push(token);
        let look = Look::new(&wait);
        self.calls.insert(token, Call { wait, stored: false, answered: false, late: false, look });
        true
    }

    /// The event goes there.
    pub fn placed(&mut self, token: Token, partition: &Partition) {
        if let Some(call) = self.calls.get_mut(&token) {
            call.wait.partition = partition.clone();
        }
    }

    /// The result of its publish. `None`: it is no call that waits, or the result is its answer.
    pub fn stored(&mut self, token: Token, result: &Result<Arc<str>>) -> Option<Answered> {
        let call = self.calls.get_mut(&token)?;
        if call.answered {
            self.calls.remove(&token);
            return Some(Answered { over: true, error: None });
        }
        let Ok(id) = result else {
            self.forget(token);
            return None;
        };
        if call.late {
            let error = timed_out(call.wait.ask, &call.wait.partition.event_type, &call.wait.event_id);
            self.forget(token);
            return Some(Answered { over: true, error: Some(error) });
        }
        call.stored = true;
        if matches!(call.wait.ask, Ask::Acknowledgement(_)) {
            self.looks.insert((Instant::now(), token));
        }
        if **id != *call.wait.event_id {
            // Published before under the same idempotency key: that event is waited for.
            let first = id.clone();
            let own = std::mem::replace(&mut call.wait.event_id, first.clone());
            call.look.is_of_another(&first);
            self.unlist(&own, token);
            self.by_event.entry(first).or_default().push(token);
        }
        Some(Answered { over: false, error: None })
    }

    /// Takes a call that nobody waits for any more. Answers whether nothing more is to come for it.
    pub fn take(&mut self, token: Token) -> Option<bool> {
        let call = self.calls.get_mut(&token).filter(|call| !call.answered)?;
        let (id, deadline) = (call.wait.event_id.clone(), call.wait.deadline);
        self.deadlines.remove(&(deadline, token));
        if call.stored {
            self.calls.remove(&token);
            self.unlist(&id, token);
            return Some(true);
        }
        call.answered = true;
        self.unlist(&id, token);
        Some(false)
    }

    /// Takes all, and lets nobody in any more.
    pub fn close(&mut self) -> Vec<(Token, bool)> {
        self.closed = true;
        let tokens: Vec<Token> = self.calls.keys().copied().collect();
        tokens.into_iter().filter_map(|token| self.take(token).map(|over| (token, over))).collect()
    }

    /// An answer came: the calls that it ends.
    pub fn decided(&mut self, event_id: &str, answer: &Answer) -> Answers {
        let tokens = self.by_event.get(event_id).cloned().unwrap_or_default();
        let mut out = Answers::new();
        for token in tokens {
            let Some(call) = self.calls.get(&token) else { continue };
            let result = match (answer, call.wait.ask) {
                (Answer::Acknowledged, Ask::Acknowledgement(_)) => Ok(event_id.to_owned()),
                (Answer::Reply(json), Ask::Reply(_)) => Ok(json.clone()),
                (Answer::Failed(failed), _) => Err(failed.to_error(&call.wait.partition.event_type, event_id)),
                _ => continue,
            };
            out.extend(self.take(token).map(|over| (token, over, result)));
        }
        out
    }

    /// When the next call's time is over.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// Calls whose time is over.
    pub fn expired(&mut self, now: Instant) -> Answers {
        let mut out = Answers::new();
        while let Some((_, token)) = self.deadlines.first().copied().filter(|(at, _)| *at <= now) {
            self.deadlines.pop_first();
            let Some(call) = self.calls.get_mut(&token) else { continue };
            if !call.stored && matches!(call.wait.ask, Ask::Acknowledgement(_)) {
                // Whether it stays published is known when the store has answered.
                call.late = true;
                continue;
            }
            if let Some(flag) = &call.wait.cancelled {
                flag.store(true, Ordering::Release);
            }
            let error = timed_out(call.wait.ask, &call.wait.partition.event_type, &call.wait.event_id);
            out.extend(self.take(token).map(|over| (token, over, Err(error))));
        }
        out
    }

    /// Calls to look for now, at most `max` of them, and when the next ones are.
    pub fn looks(&mut self, now: Instant, max: usize) -> (Vec<(Token, Partition, Look)>, Option<Instant>) {
        let mut due = Vec::new();
        while let Some((at, token)) = self.looks.first().copied().filter(|(at, _)| *at <= now && due.len() < max) {
            self.looks.remove(&(at, token));
            let Some(call) = self.calls.get(&token).filter(|call| call.stored && !call.look.is_over(now)) else { continue };
            due.push((token, call.wait.partition.clone(), call.look.clone()));
            self.looks.insert((now + LOOK_EVERY, token));
        }
        (due, self.looks.first().map(|(at, _)| *at))
    }

    /// What came of a look.
    pub fn looked(&mut self, token: Token, look: Look, answer: Option<&Answer>) -> Answers {
        let Some(call) = self.calls.get_mut(&token) else { return Answers::new() };
        call.look.learn(look);
        let id = call.wait.event_id.clone();
        answer.map(|answer| self.decided(&id, answer)).unwrap_or_default()
    }

    fn forget(&mut self, token: Token) {
        if let Some(call) = self.calls.remove(&token) {
            self.deadlines.remove(&(call.wait.deadline, token));
            self.unlist(&call.wait.event_id, token);
        }
    }

    fn unlist(&mut self, event_id: &str, token: Token) {
        if let Some(tokens) = self.by_event.get_mut(event_id) {
            tokens.retain(|other| *other != token);
            if tokens.is_empty() {
                self.by_event.remove(event_id);
            }
        }
    }
}
