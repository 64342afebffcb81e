//! The entries of one partition, in order.

use std::collections::VecDeque;
use std::collections::vec_deque::Iter;

use super::super::{Body, EntryId};
use crate::engine::event::{Asked, MetaView};

/// What an entry costs beside its text, bytes; a round figure for `StreamStats.sizeBytes`.
const ENTRY_OVERHEAD_BYTES: usize = 96;

/// How long an entry lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    /// Its metadata says nothing readable of a ttl: the store's default.
    Unnamed,
    /// As its metadata say; `None`: for ever. `given`: the publisher chose it for this event.
    Named { ttl_ms: Option<u64>, given: bool },
}

impl Life {
    fn of(body: &Body) -> Self {
        let Body::Event { meta, .. } = body else { return Self::Unnamed };
        match MetaView::read(meta) {
            Ok(view) if view.names_ttl() => Self::Named { ttl_ms: view.ttl_ms(), given: view.ttl_given() },
            _ => Self::Unnamed,
        }
    }

    /// Whether the publisher chose the ttl for this event.
    pub(super) fn given(self) -> bool {
        matches!(self, Self::Named { given: true, .. })
    }
}

/// One entry as kept.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) id: EntryId,
    pub(super) body: Body,
    pub(super) life: Life,
}

impl Stored {
    /// Whether the ttl passed at `now_ms`.
    pub(super) fn expired(&self, default_ttl_ms: Option<u64>, now_ms: u64) -> bool {
        let ttl_ms = match self.life {
            Life::Unnamed => default_ttl_ms,
            Life::Named { ttl_ms, .. } => ttl_ms,
        };
        ttl_ms.is_some_and(|ttl| self.id.ms.saturating_add(ttl) <= now_ms)
    }

    /// The event's id, empty when unreadable.
    pub(super) fn event_id(&self) -> String {
        event_id(&self.body)
    }

    /// Who waits for what becomes of the event.
    pub(super) fn asked(&self) -> Option<Asked> {
        let Body::Event { meta, .. } = &self.body else { return None };
        MetaView::read(meta).ok()?.asked()
    }

    fn size_bytes(&self) -> usize {
        let text = match &self.body {
            Body::Event { meta, data, .. } => meta.len() + data.len(),
            Body::Foreign(fields) => fields.iter().map(|(name, value)| name.len() + value.len()).sum(),
        };
        text + ENTRY_OVERHEAD_BYTES
    }
}

/// The id in the metadata of `body`, empty when unreadable.
pub(super) fn event_id(body: &Body) -> String {
    match body {
        Body::Event { meta, .. } => MetaView::read(meta).map(|view| view.id.into_owned()).unwrap_or_default(),
        Body::Foreign(_) => String::new(),
    }
}

/// Entries in order of their ids. They are added at the end and mostly leave at the front.
#[derive(Debug, Default)]
pub(super) struct Entries {
    kept: VecDeque<Stored>,
    last_id: EntryId,
    size_bytes: usize,
    added: u64,
}

impl Entries {
    /// Adds an entry under an id above all before it.
    pub(super) fn add(&mut self, body: Body, now_ms: u64) -> EntryId {
        let id = next_id(self.last_id, now_ms);
        self.last_id = id;
        let stored = Stored { id, life: Life::of(&body), body };
        self.size_bytes += stored.size_bytes();
        self.added += 1;
        self.kept.push_back(stored);
        id
    }

    /// Number of entries at or below `id`.
    pub(super) fn rank(&self, id: EntryId) -> usize {
        self.kept.partition_point(|entry| entry.id <= id)
    }

    /// The entry with that id.
    pub(super) fn get(&self, id: EntryId) -> Option<&Stored> {
        self.kept.binary_search_by_key(&id, |entry| entry.id).ok().map(|at| &self.kept[at])
    }

    /// Looks at entries from the front until `keep` answers `None`, and removes those for which it answers false.
    /// Answers how many went. Nothing behind the last of them is touched.
    pub(super) fn remove_from_front(&mut self, keep: impl FnMut(&Stored) -> Option<bool>) -> u64 {
        let verdicts: Vec<bool> = self.kept.iter().map_while(keep).collect();
        let end = verdicts.iter().rposition(|stays| !stays).map_or(0, |last| last + 1);
        let mut staying = Vec::new();
        for (entry, stays) in self.kept.drain(..end).zip(verdicts) {
            if stays {
                staying.push(entry);
            } else {
                self.size_bytes -= entry.size_bytes();
            }
        }
        let removed = (end - staying.len()) as u64;
        for entry in staying.into_iter().rev() {
            self.kept.push_front(entry);
        }
        removed
    }

    /// Entries ever added.
    pub(super) fn added(&self) -> u64 {
        self.added
    }

    /// Entries kept.
    pub(super) fn len(&self) -> usize {
        self.kept.len()
    }

    /// Bytes they take.
    pub(super) fn size_bytes(&self) -> usize {
        self.size_bytes
    }

    /// The last id ever given, even if its entry is gone.
    pub(super) fn last_id(&self) -> EntryId {
        self.last_id
    }

    /// Those above `id`.
    pub(super) fn after(&self, id: EntryId) -> Iter<'_, Stored> {
        self.kept.range(self.rank(id)..)
    }

    /// Those from `from` to `to`, both included.
    pub(super) fn between(&self, from: EntryId, to: EntryId) -> Iter<'_, Stored> {
        let (start, end) = (self.kept.partition_point(|entry| entry.id < from), self.rank(to));
        self.kept.range(start..end.max(start))
    }

    /// The first and the last one kept.
    pub(super) fn ends(&self) -> (Option<EntryId>, Option<EntryId>) {
        (self.kept.front().map(|entry| entry.id), self.kept.back().map(|entry| entry.id))
    }
}

/// The id after `last`, at `now_ms` unless the clock was stepped back.
pub(super) fn next_id(last: EntryId, now_ms: u64) -> EntryId {
    if now_ms > last.ms { EntryId { ms: now_ms, seq: 0 } } else { EntryId { ms: last.ms, seq: last.seq + 1 } }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn foreign() -> Body {
        Body::Foreign(vec![(b"a".to_vec(), b"b".to_vec())])
    }

    #[test]
    fn ids_rise_while_the_clock_stands_or_steps_back() {
        let mut entries = Entries::default();
        let ids: Vec<EntryId> = [5, 5, 3, 6].into_iter().map(|now| entries.add(foreign(), now)).collect();
        let seen: Vec<String> = ids.iter().map(ToString::to_string).collect();
        assert_eq!(seen, ["5-0", "5-1", "5-2", "6-0"]);
    }

    #[test]
    fn removal_keeps_order_and_size() {
        let mut entries = Entries::default();
        for now in 1..=6 {
            entries.add(foreign(), now);
        }
        let whole = entries.size_bytes;
        let removed = entries.remove_from_front(|entry| match entry.id.ms {
            1 | 3 => Some(true),
            5 => None,
            _ => Some(false),
        });
        let left: Vec<u64> = entries.kept.iter().map(|entry| entry.id.ms).collect();
        assert_eq!((removed, left), (2, vec![1, 3, 5, 6]));
        assert_eq!(entries.size_bytes, whole / 6 * 4);
    }
}
