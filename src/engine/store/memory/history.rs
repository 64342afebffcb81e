//! Looking back: entries that nobody takes, and what became of one event.

use std::collections::{BTreeSet, HashMap};

use super::super::{Body, Copy, Delayed, EntryId, Kept, Noted, Partition, Search, Searched, Standing};
use super::entries::Stored;
use super::state::State;
use super::stream::Group;

/// Most entries one step of a search looks at.
const SEARCH_ENTRIES: usize = 500;

/// Events whose entries are younger than their ids: those that waited to be due, and redriven ones with their group.
#[derive(Debug, Default)]
pub(super) struct Moved {
    entry_ms: HashMap<(String, Option<String>), u64>,
    by_ms: BTreeSet<(u64, String, Option<String>)>,
}

impl Moved {
    /// Notes the time of the event's entry; of two for one group the later stays.
    pub(super) fn note(&mut self, event_id: String, group: Option<String>, ms: u64) {
        if let Some(before) = self.entry_ms.insert((event_id.clone(), group.clone()), ms) {
            self.by_ms.remove(&(before, event_id.clone(), group.clone()));
        }
        self.by_ms.insert((ms, event_id, group));
    }

    fn get(&self, event_id: &str, group: Option<&str>) -> Option<u64> {
        self.entry_ms.get(&(event_id.to_owned(), group.map(ToOwned::to_owned))).copied()
    }

    /// Forgets notes on entries older than `ms`.
    pub(super) fn forget_before(&mut self, ms: u64) {
        while self.by_ms.first().is_some_and(|(entry_ms, ..)| *entry_ms < ms) {
            if let Some((_, event_id, group)) = self.by_ms.pop_first() {
                self.entry_ms.remove(&(event_id, group));
            }
        }
    }
}

fn kept(stored: &Stored) -> Kept {
    Kept { id: stored.id, body: stored.body.clone() }
}

fn is_copy(body: &Body, copy: &Copy) -> bool {
    let Body::Event { only_group, .. } = body else { return false };
    match copy {
        Copy::Published => only_group.is_none(),
        Copy::RedrivenFor(group) => only_group.as_ref() == Some(group),
    }
}

impl State {
    /// See [`Store::history`](super::super::Store::history).
    pub(super) fn history(&self, at: &Partition, after: EntryId, to: EntryId, count: usize) -> Vec<Kept> {
        let Some(stream) = self.stream(at) else { return Vec::new() };
        stream.entries.between(after.next(), to).take(count).map(kept).collect()
    }

    /// See [`Store::last_entry`](super::super::Store::last_entry).
    pub(super) fn last_entry(&self, at: &Partition) -> Option<EntryId> {
        self.stream(at)?.entries.ends().1
    }

    /// See [`Store::noted`](super::super::Store::noted).
    pub(super) fn noted(&self, at: &Partition, event_id: &str) -> Noted {
        let Some(stream) = self.stream(at) else { return Noted::default() };
        let mut groups: Vec<_> = stream.groups.keys().map(|name| (name.clone(), stream.moved.get(event_id, Some(name)))).collect();
        groups.sort();
        let delayed = stream.delayed.find(event_id);
        let delayed = delayed.map(|(due_ms, event)| Delayed { meta: event.meta.clone(), data: event.data.to_string(), due_ms });
        Noted { delayed, moved_ms: stream.moved.get(event_id, None), groups }
    }

    /// See [`Store::search`](super::super::Store::search).
    pub(super) fn search(&self, at: &Partition, search: &Search) -> Searched {
        let Some(stream) = self.stream(at) else { return Searched::Nowhere };
        if search.from <= search.to {
            look(stream.entries.between(search.from, search.to), search)
        } else {
            look(stream.entries.between(search.to, search.from).rev(), search)
        }
    }

    /// See [`Store::standing`](super::super::Store::standing).
    pub(super) fn standing(&self, at: &Partition, entries: &[(String, EntryId)]) -> Vec<(String, Standing)> {
        let Some(stream) = self.stream(at) else { return Vec::new() };
        let there = entries.iter().filter_map(|(name, id)| stream.groups.get(name).map(|group| (name, group, *id)));
        there.map(|(name, group, id)| (name.clone(), stand(group, id))).collect()
    }
}

fn look<'a>(entries: impl Iterator<Item = &'a Stored>, search: &Search) -> Searched {
    let mut looked = 0;
    for entry in entries {
        looked += 1;
        if is_copy(&entry.body, &search.copy) && entry.event_id() == search.event_id {
            return Searched::Found(kept(entry));
        }
        if looked == SEARCH_ENTRIES {
            return Searched::NotUpTo(entry.id, looked);
        }
    }
    Searched::Nowhere
}

fn stand(group: &Group, id: EntryId) -> Standing {
    let Some(pending) = group.pending.get(&id) else {
        return if group.last_delivered < id { Standing::NotDelivered } else { Standing::Settled };
    };
    let error = (!pending.error.is_empty()).then(|| pending.error.clone());
    match &pending.owner {
        Some(consumer) => Standing::Held { consumer: consumer.to_string(), deliveries: pending.deliveries, error },
        None => Standing::Waiting { deliveries: pending.deliveries, due_ms: pending.due_ms, error },
    }
}
