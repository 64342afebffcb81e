//! Deliveries in flight: what was taken from the store and is not settled yet, and who works on it.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::time::Instant;

use crate::engine::event::RetryOverride;
use crate::engine::host::{EventText, Token};
use crate::engine::settle::Failure;
use crate::engine::store::Held;

/// Names an entry in flight, unique on a bus.
pub type Key = u64;

/// An entry in flight.
pub struct InFlight {
    /// As the store knows it.
    pub held: Held,
    /// Its group.
    pub group: Arc<str>,
    /// The consumer name under which it was taken: it may have changed since.
    pub consumer: Arc<str>,
    /// The event's id.
    pub event_id: String,
    /// Its text, for the handlers.
    pub text: Arc<EventText>,
    /// Its own retry settings.
    pub retry: Option<RetryOverride>,
    /// Deliveries that ended with the death of a process.
    pub crashes: u32,
    /// Subscriptions that count it as in flight.
    pub subscriptions: Vec<u32>,
    /// Handlers that have not ended, with their subscription; empty while it waits for a place.
    pub running: Vec<(Token, u32)>,
    /// Handlers that failed, with their subscription.
    pub failures: Vec<(u32, Failure)>,
    /// A handler gave it back unhandled.
    pub handed_back: bool,
    /// Confirmation numbers that wait for its settlement.
    pub confirmations: Vec<u32>,
    /// When its handlers were called.
    pub started: Instant,
}

/// A handler that ran out of time and still runs. A late success may still acknowledge.
pub struct Overdue {
    /// Its subscription: it takes one of the places for such.
    pub subscription: u32,
    /// The entry, as it was held.
    pub held: Held,
    /// Its group.
    pub group: Arc<str>,
    /// The consumer then.
    pub consumer: Arc<str>,
    /// The event's id.
    pub event_id: String,
}

/// All deliveries in flight on a bus.
#[derive(Default)]
pub struct Deliveries {
    entries: HashMap<Key, InFlight>,
    tokens: HashMap<Token, (Key, u32)>,
    /// Handlers past their time, by token.
    pub overdue: HashMap<Token, Overdue>,
    last_key: Key,
    last_token: Token,
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
        self.entries.get_mut(&key)
    }

    /// The entry.
    pub fn get(&self, key: Key) -> Option<&InFlight> {
        self.entries.get(&key)
    }

    /// Takes it out, with the tokens of handlers that still run: their verdicts will not be known any more.
    pub fn remove(&mut self, key: Key) -> Option<InFlight> {
        let entry = self.entries.remove(&key)?;
        for (token, _) in &entry.running {
            self.tokens.remove(token);
        }
        Some(entry)
    }

    /// A token for a call of a handler.
    pub fn issue(&mut self, key: Key, subscription: u32) -> Token {
        loop {
            self.last_token = self.last_token.wrapping_add(1);
            if !self.tokens.contains_key(&self.last_token) && !self.overdue.contains_key(&self.last_token) {
                self.tokens.insert(self.last_token, (key, subscription));
                return self.last_token;
            }
        }
    }

    /// Ends a token: its entry and subscription.
    pub fn redeem(&mut self, token: Token) -> Option<(Key, u32)> {
        self.tokens.remove(&token)
    }

    /// Entries in flight.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (Key, &InFlight)> {
        self.entries.iter().map(|(key, entry)| (*key, entry))
    }
}
