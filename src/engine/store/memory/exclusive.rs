//! Ordered groups: who reads a partition, and what waits there.

use std::borrow::Cow;

use async_trait::async_trait;

use super::super::{Body, Due, EntryId, Exclusive, GroupSpec, Ownership, Parked, Partition};
use super::MemoryStore;
use super::state::State;
use super::stream::entry;
use crate::engine::error::Result;
use crate::engine::event::MetaView;

/// The key of an event, empty without one.
fn key_of(body: &Body) -> String {
    let Body::Event { meta, .. } = body else { return String::new() };
    MetaView::read(meta).ok().and_then(|view| view.partition_key.map(Cow::into_owned)).unwrap_or_default()
}

impl State {
    /// Whether the partition is the consumer's, for an ordered group.
    pub(super) fn is_owner(&self, at: &Partition, group: &str, consumer: &str) -> bool {
        self.stream(at).and_then(|stream| stream.groups.get(group)).is_some_and(|group| group.reader.as_deref() == Some(consumer))
    }

    fn own(&mut self, at: &Partition, group: &str, consumer: &str, held: &[EntryId], now_ms: u64) -> Ownership {
        let bucket = self.bucket_mut(at.bucket());
        let Some(group) = bucket.streams.get_mut(at).and_then(|stream| stream.groups.get_mut(group)) else { return Ownership::NoGroup };
        let others_read = group.reader.as_deref().is_some_and(|reader| reader != consumer && bucket.leases.is_live(reader, now_ms));
        if others_read || group.pending.values().any(|pending| pending.owner.as_deref().is_some_and(|owner| owner != consumer)) {
            return Ownership::Others;
        }
        let lost: Vec<EntryId> =
            group.pending.iter().filter(|(id, pending)| pending.owner.is_some() && !held.contains(id)).map(|(id, _)| *id).collect();
        for id in lost {
            if let Some(pending) = group.let_wait(id, now_ms) {
                pending.deliveries -= 1;
            }
        }
        group.reader = Some(group.consumer(consumer));
        Ownership::Mine { last: group.last_delivered }
    }

    fn disown(&mut self, at: &Partition, group: &str, consumer: &str) {
        if let Some(group) = self.stream_mut(at).and_then(|stream| stream.groups.get_mut(group)) {
            group.reader.take_if(|reader| **reader == *consumer);
        }
    }

    fn parked(&self, at: &Partition, group: &str, now_ms: u64) -> Vec<Parked> {
        let Some(stream) = self.stream(at) else { return Vec::new() };
        let waiting = stream.groups.get(group).into_iter().flat_map(|group| &group.waiting);
        let parked = waiting.map(|(due_ms, id)| Parked {
            id: *id,
            due_in_ms: due_ms.saturating_sub(now_ms),
            key: stream.entries.get(*id).map(|stored| key_of(&stored.body)).unwrap_or_default(),
        });
        parked.collect()
    }

    fn claim_parked(&mut self, at: &Partition, group: &str, consumer: &str, ids: &[EntryId]) -> Option<Due> {
        if !self.is_owner(at, group, consumer) {
            return None;
        }
        let mut due = Due::default();
        let stream = self.stream_mut(at)?;
        let state = stream.groups.get_mut(group)?;
        for id in ids {
            let Some(due_ms) = state.pending.get(id).filter(|pending| pending.owner.is_none()).map(|pending| pending.due_ms) else {
                continue;
            };
            state.waiting.remove(&(due_ms, *id));
            let owner = state.consumer(consumer);
            if let (Some(stored), Some(pending)) = (stream.entries.get(*id), state.pending.get_mut(id)) {
                pending.owner = Some(owner);
                pending.deliveries += 1;
                due.entries.push(entry(at, stored, pending));
            } else {
                state.pending.remove(id);
                due.lost.push(*id);
            }
        }
        Some(due)
    }
}

#[async_trait]
impl Exclusive for MemoryStore {
    async fn own(&self, partition: &Partition, group: &str, consumer: &str, held: &[EntryId]) -> Result<Ownership> {
        self.with(|state, now_ms| state.own(partition, group, consumer, held, now_ms))
    }

    async fn disown(&self, partition: &Partition, group: &str, consumer: &str) -> Result<()> {
        self.with(|state, _| state.disown(partition, group, consumer))
    }

    async fn parked(&self, partition: &Partition, group: &str) -> Result<Vec<Parked>> {
        self.with(|state, now_ms| state.parked(partition, group, now_ms))
    }

    async fn claim_parked(&self, partition: &Partition, group: &str, consumer: &str, ids: &[EntryId]) -> Result<Option<Due>> {
        self.with(|state, _| state.claim_parked(partition, group, consumer, ids))
    }

    async fn members(&self, spec: &GroupSpec) -> Result<usize> {
        self.with(|state, now_ms| state.members(spec, now_ms))
    }
}
