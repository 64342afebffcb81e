//! How events come in: at once, or later when they are due, and only once where they have an idempotency key.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::super::{Appended, Body, Bucket, Idempotency, NewEvent};
use super::state::State;
use super::stream::Stream;

/// Events published for later, in the order in which they fall due.
#[derive(Debug, Default)]
pub(super) struct Delayed {
    by_due: BTreeMap<(u64, u64), NewEvent>,
    count: u64,
}

impl Delayed {
    /// Keeps the event until `due_ms`; of two with the same time the first added moves first.
    pub(super) fn add(&mut self, event: NewEvent, due_ms: u64) {
        self.count += 1;
        self.by_due.insert((due_ms, self.count), event);
    }

    fn next_due_ms(&self) -> Option<u64> {
        self.by_due.first_key_value().map(|((due_ms, _), _)| *due_ms)
    }

    fn pop_due(&mut self, now_ms: u64) -> Option<NewEvent> {
        if self.next_due_ms()? > now_ms {
            return None;
        }
        self.by_due.pop_first().map(|(_, event)| event)
    }
}

/// Keys seen in one partition, until their windows end.
#[derive(Debug, Default)]
pub(super) struct IdempotencyKeys {
    seen: HashMap<String, String>,
    by_end: BTreeSet<(u64, String)>,
}

impl IdempotencyKeys {
    /// The id of the event first published with the key, if its window has not ended; else remembers this one.
    pub(super) fn check(&mut self, key: &Idempotency, event_id: &str, now_ms: u64) -> Option<String> {
        while self.by_end.first().is_some_and(|(end_ms, _)| *end_ms <= now_ms) {
            if let Some((_, ended)) = self.by_end.pop_first() {
                self.seen.remove(&ended);
            }
        }
        if let Some(first) = self.seen.get(&key.key) {
            return Some(first.clone());
        }
        let end_ms = now_ms.saturating_add(key.window_ms);
        self.seen.insert(key.key.clone(), event_id.to_owned());
        self.by_end.insert((end_ms, key.key.clone()));
        None
    }
}

impl Stream {
    /// Adds the event, now or when it is due, unless its idempotency key was seen.
    pub(super) fn append(&mut self, event: NewEvent, now_ms: u64) -> Appended {
        if let Some(key) = &event.idempotency
            && let Some(first) = self.keys.check(key, &event.id, now_ms)
        {
            return Appended::Duplicate(first);
        }
        match event.delay_ms {
            Some(delay_ms) if delay_ms > 0 => self.delayed.add(event, now_ms.saturating_add(delay_ms)),
            _ => {
                let told = event.entry.clone();
                let id = self.entries.add(Self::body(event), now_ms);
                if let Some(told) = told {
                    let _ = told.set(id);
                }
            }
        }
        Appended::Stored
    }

    /// The body of a plain new event.
    fn body(event: NewEvent) -> Body {
        Body::Event { meta: event.meta.into(), data: event.data.into(), only_group: None, first_entry: None }
    }
}

impl State {
    /// See [`Store::move_delayed`](super::super::Store::move_delayed).
    pub(super) fn move_delayed(&mut self, bucket: Bucket, now_ms: u64) -> (u64, Option<u64>) {
        let mut moved = 0;
        let mut next_ms: Option<u64> = None;
        let mut grown = Vec::new();
        for (partition, stream) in &mut self.bucket_mut(bucket).streams {
            let before = moved;
            while let Some(event) = stream.delayed.pop_due(now_ms) {
                stream.entries.add(Stream::body(event), now_ms);
                moved += 1;
            }
            if moved > before {
                grown.push(partition.clone());
            }
            next_ms = [next_ms, stream.delayed.next_due_ms()].into_iter().flatten().min();
        }
        for partition in grown {
            self.signal(&partition);
        }
        (moved, next_ms.map(|due_ms| due_ms - now_ms))
    }
}
