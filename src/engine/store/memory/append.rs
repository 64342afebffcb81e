//! How events come in: at once, or later when they are due, and only once where they have an idempotency key.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;

use super::super::{Appended, Body, Bucket, Idempotency, NewEvent, StreamLayout};
use super::state::State;
use super::stream::Stream;
use crate::engine::error::Result;

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

    /// The event with that id, and when it is due.
    pub(super) fn find(&self, event_id: &str) -> Option<(u64, &NewEvent)> {
        self.by_due.iter().find(|(_, event)| *event.id == *event_id).map(|((due_ms, _), event)| (*due_ms, event))
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
    /// The id of the event first published with the key, if its window has not ended.
    fn first(&mut self, key: &Idempotency, now_ms: u64) -> Option<String> {
        while self.by_end.first().is_some_and(|(end_ms, _)| *end_ms <= now_ms) {
            if let Some((_, ended)) = self.by_end.pop_first() {
                self.seen.remove(&ended);
            }
        }
        self.seen.get(&key.key).cloned()
    }

    /// Remembers the event as the first with the key.
    fn remember(&mut self, key: &Idempotency, event_id: &str, now_ms: u64) {
        let end_ms = now_ms.saturating_add(key.window_ms);
        self.seen.insert(key.key.clone(), event_id.to_owned());
        self.by_end.insert((end_ms, key.key.clone()));
    }
}

/// How many entries a stream may have.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bound {
    /// At this number an event is refused, unless acknowledged entries can go.
    pub(super) length_max: Option<u64>,
    /// Without any group all of them can.
    pub(super) without_group: bool,
}

impl Stream {
    /// Adds the event, now or when it is due, unless its idempotency key was seen. `ERR_STREAM_FULL`: see [`Bound`].
    /// `keys` are those of all lanes of its partition, for an event that has one.
    pub(super) fn append(
        &mut self,
        event: NewEvent,
        mut keys: Option<&mut IdempotencyKeys>,
        bound: Bound,
        now_ms: u64,
    ) -> Result<Appended> {
        if let (Some(key), Some(keys)) = (&event.idempotency, &mut keys)
            && let Some(first) = keys.first(key, now_ms)
        {
            return Ok(Appended::Duplicate(first));
        }
        let delay_ms = event.delay_ms.filter(|delay_ms| *delay_ms > 0);
        if let Some(length_max) = bound.length_max
            && delay_ms.is_none()
            && self.entries.len() as u64 >= length_max
        {
            self.make_room(StreamLayout::length_with_room(length_max, 1), bound.without_group);
            if self.entries.len() as u64 >= length_max {
                return Err(StreamLayout::full(&event.partition, length_max));
            }
        }
        if let (Some(key), Some(keys)) = (&event.idempotency, &mut keys) {
            keys.remember(key, &event.id, now_ms);
        }
        if let Some(delay_ms) = delay_ms {
            self.delayed.add(event, now_ms.saturating_add(delay_ms));
        } else {
            let told = event.entry.clone();
            let id = self.entries.add(Self::body(event), now_ms);
            if let Some(told) = told {
                let _ = told.set(id);
            }
        }
        Ok(Appended::Stored)
    }

    /// The body of a plain new event. Its data are a piece of what crossed, and stay longer than the rest of that should.
    fn body(event: NewEvent) -> Body {
        Body::Event { meta: event.meta.into(), data: Bytes::copy_from_slice(event.data.as_bytes()), only_group: None, first_entry: None }
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
                let id = event.id.to_string();
                let entry = stream.entries.add(Stream::body(event), now_ms);
                stream.moved.note(id, None, entry.ms);
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
