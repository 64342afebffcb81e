//! What becomes of held entries, and how waiting ones are taken up again.

use super::super::{Bucket, Disposal, Due, DueIndex, EntryId, Held, Partition, Settled};
use super::dead_letters::Death;
use super::state::{BucketState, State};
use super::stream::{Group, entry};
use crate::engine::error::{Error, Result};

impl State {
    /// See [`Store::settle`](super::super::Store::settle).
    pub(super) fn settle(
        &mut self,
        bucket: Bucket,
        group: &str,
        consumer: &str,
        entries: Vec<(Held, Disposal)>,
        now_ms: u64,
    ) -> Result<Vec<Settled>> {
        if let Some((held, _)) = entries.iter().find(|(held, _)| held.partition.bucket() != bucket) {
            return Err(Error::internal(format!("{} does not belong to bucket {}", held.partition, bucket.0)));
        }
        let state = self.bucket_mut(bucket);
        Ok(entries.into_iter().map(|(held, disposal)| settle_one(state, group, consumer, &held, disposal, now_ms)).collect())
    }

    /// See [`Store::due`](super::super::Store::due).
    pub(super) fn due(&mut self, bucket: Bucket, group: &str, now_ms: u64) -> DueIndex {
        let mut index = DueIndex::default();
        for (at, stream) in &self.bucket_mut(bucket).streams {
            let Some(group) = stream.groups.get(group) else { continue };
            if group.waiting.first().is_some_and(|(due_ms, _)| *due_ms <= now_ms) {
                index.partitions.push(at.clone());
            }
            let later = group.waiting.range((now_ms + 1, EntryId::default())..).next();
            index.next_in_ms = [index.next_in_ms, later.map(|(due_ms, _)| due_ms - now_ms)].into_iter().flatten().min();
        }
        index
    }

    /// See [`Store::claim_due`](super::super::Store::claim_due).
    pub(super) fn claim_due(&mut self, at: &Partition, group: &str, consumer: &str, max: usize, now_ms: u64) -> Due {
        let mut due = Due::default();
        let Some(stream) = self.stream_mut(at) else { return due };
        let Some(state) = stream.groups.get_mut(group) else { return due };
        while due.entries.len() < max
            && let Some(&(due_ms, id)) = state.waiting.first()
            && due_ms <= now_ms
        {
            state.waiting.pop_first();
            let owner = state.consumer(consumer);
            if let (Some(stored), Some(pending)) = (stream.entries.get(id), state.pending.get_mut(&id)) {
                pending.owner = Some(owner);
                pending.deliveries += 1;
                due.entries.push(entry(at, stored, pending));
            } else {
                state.pending.remove(&id);
                due.lost.push(id);
            }
        }
        due
    }

    /// See [`Store::pending`](super::super::Store::pending).
    pub(super) fn pending(&self, at: &Partition, group: &str, consumer: &str) -> Vec<(EntryId, u32)> {
        let Some(group) = self.stream(at).and_then(|stream| stream.groups.get(group)) else { return Vec::new() };
        let held = group.pending.iter().filter(|(_, pending)| pending.owner.as_deref() == Some(consumer));
        held.map(|(id, pending)| (*id, pending.deliveries)).collect()
    }

    /// See [`Store::remove_consumer`](super::super::Store::remove_consumer).
    pub(super) fn remove_consumer(&mut self, at: &Partition, group: &str, consumer: &str) -> bool {
        if !self.pending(at, group, consumer).is_empty() {
            return false;
        }
        if let Some(group) = self.stream_mut(at).and_then(|stream| stream.groups.get_mut(group)) {
            group.consumers.remove(consumer);
        }
        true
    }
}

/// Whether the entry is pending under this consumer with this delivery count.
fn is_held(group: &Group, consumer: &str, held: &Held) -> bool {
    group.pending.get(&held.id).is_some_and(|pending| pending.owner.as_deref() == Some(consumer) && pending.deliveries == held.deliveries)
}

fn settle_one(bucket: &mut BucketState, group_name: &str, consumer: &str, held: &Held, disposal: Disposal, now_ms: u64) -> Settled {
    // Acknowledging can be repeated: the entry is done with, now or before.
    let without_group = if disposal == Disposal::Acknowledge { Settled::Done } else { Settled::NotHeld };
    let Some(stream) = bucket.streams.get_mut(&held.partition) else { return without_group };
    let Some(group) = stream.groups.get_mut(group_name) else { return without_group };
    let settled = match disposal {
        Disposal::Acknowledge => {
            group.acknowledge(held.id);
            true
        }
        _ if !is_held(group, consumer, held) => false,
        Disposal::Retry { delay_ms, error } => {
            if let Some(pending) = group.let_wait(held.id, now_ms.saturating_add(delay_ms)) {
                pending.error = error;
            }
            true
        }
        Disposal::HandBack => {
            if let Some(pending) = group.let_wait(held.id, now_ms) {
                pending.deliveries -= 1;
            }
            true
        }
        Disposal::DeadLetter { reason, error, attempts } => {
            if let Some(stored) = stream.entries.get(held.id) {
                bucket.dead.add(&held.partition, stored, Death { group: group_name, reason, error, attempts }, now_ms);
            }
            group.acknowledge(held.id);
            true
        }
    };
    if settled { Settled::Done } else { Settled::NotHeld }
}
