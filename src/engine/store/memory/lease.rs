//! Who is alive, and what happens to the entries of those who are not.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::super::{Body, Bucket, Crashed, DeadReason, EntryId, Partition, Reaped};
use super::dead_letters::{DeadLetters, Death};
use super::entries::Entries;
use super::state::State;
use super::stream::Group;

/// Leases of consumers in one bucket, and of the process that looks after it: until when, ms.
#[derive(Debug, Default)]
pub(super) struct Leases {
    consumers: HashMap<String, u64>,
    caretaker: Option<(String, u64)>,
}

impl Leases {
    /// Whether the consumer's lease runs.
    pub(super) fn is_live(&self, consumer: &str, now_ms: u64) -> bool {
        self.consumers.get(consumer).is_some_and(|end_ms| *end_ms > now_ms)
    }
}

/// Leases a process knows to have, until it releases them: one that is gone nevertheless has lapsed.
pub(super) type KnownLeases = HashSet<(Bucket, String)>;

impl State {
    /// See [`Store::renew`](super::super::Store::renew). A lapsed lease is not taken up again before its release.
    pub(super) fn renew(&mut self, known: &mut KnownLeases, consumer: &str, buckets: &[Bucket], lease_ms: u64, now_ms: u64) -> bool {
        let mut all_ran = true;
        self.present.retain(|_, end_ms| *end_ms > now_ms);
        self.present.insert(consumer.to_owned(), now_ms.saturating_add(lease_ms));
        for bucket in buckets {
            let leases = &mut self.bucket_mut(*bucket).leases;
            let key = (*bucket, consumer.to_owned());
            if known.contains(&key) && !leases.is_live(consumer, now_ms) {
                all_ran = false;
            } else {
                leases.consumers.insert(consumer.to_owned(), now_ms.saturating_add(lease_ms));
                known.insert(key);
            }
        }
        all_ran
    }

    /// See [`Store::release`](super::super::Store::release).
    pub(super) fn release(&mut self, known: &mut KnownLeases, consumer: &str, buckets: &[Bucket]) {
        self.present.remove(consumer);
        for bucket in buckets {
            self.bucket_mut(*bucket).leases.consumers.remove(consumer);
            known.remove(&(*bucket, consumer.to_owned()));
        }
    }

    /// See [`Store::look_after`](super::super::Store::look_after).
    pub(super) fn look_after(&mut self, bucket: Bucket, holder: &str, lease_ms: u64, now_ms: u64) -> bool {
        let caretaker = &mut self.bucket_mut(bucket).leases.caretaker;
        let is_taken = caretaker.as_ref().is_some_and(|(other, end_ms)| other != holder && *end_ms > now_ms);
        if !is_taken {
            *caretaker = Some((holder.to_owned(), now_ms.saturating_add(lease_ms)));
        }
        !is_taken
    }

    /// See [`Store::reap`](super::super::Store::reap).
    pub(super) fn reap(&mut self, bucket: Bucket, max_crashes: u32, now_ms: u64) -> Reaped {
        let mut reaped = Reaped::default();
        let state = self.bucket_mut(bucket);
        state.leases.consumers.retain(|_, end_ms| *end_ms > now_ms);
        for (at, stream) in &mut state.streams {
            for (name, group) in &mut stream.groups {
                let dead: BTreeSet<Arc<str>> = group.consumers.iter().filter(|name| !state.leases.is_live(name, now_ms)).cloned().collect();
                if dead.is_empty() {
                    continue;
                }
                let orphans: Vec<EntryId> = group
                    .pending
                    .iter()
                    .filter(|(_, entry)| entry.owner.as_ref().is_some_and(|o| dead.contains(o)))
                    .map(|(id, _)| *id)
                    .collect();
                let mut mourner = Mourner { at, entries: &stream.entries, dead_letters: &mut state.dead, max_crashes, now_ms };
                for id in orphans {
                    mourner.take(name, group, id, &mut reaped);
                }
                group.consumers.retain(|name| !dead.contains(name));
                reaped.consumers += dead.len() as u64;
            }
        }
        reaped
    }
}

/// What one partition needs to settle the entries of a dead consumer.
struct Mourner<'a> {
    at: &'a Partition,
    entries: &'a Entries,
    dead_letters: &'a mut DeadLetters,
    max_crashes: u32,
    now_ms: u64,
}

impl Mourner<'_> {
    /// Makes the entry due at once, or gives it up.
    fn take(&mut self, group_name: &str, group: &mut Group, id: EntryId, reaped: &mut Reaped) {
        let Some(pending) = group.let_wait(id, self.now_ms) else { return };
        pending.crashes += 1;
        if pending.crashes < self.max_crashes {
            reaped.taken += 1;
            return;
        }
        let attempts = pending.deliveries;
        let last = if pending.error.is_empty() { String::new() } else { format!("; last error: {}", pending.error) };
        let error = format!("its process died {} times while it held the event{last}", pending.crashes);
        let (mut event_id, mut meta, mut asked) = (String::new(), String::new(), None);
        if let Some(stored) = self.entries.get(id) {
            event_id = stored.event_id();
            asked = stored.asked();
            if let Body::Event { meta: bytes, .. } = &stored.body {
                meta = String::from_utf8_lossy(bytes).into_owned();
            }
            let death = Death { group: group_name, reason: DeadReason::Crashed, error, attempts };
            self.dead_letters.add(self.at, stored, death, self.now_ms);
        }
        group.acknowledge(id);
        reaped.crashed.push(Crashed { partition: self.at.clone(), group: group_name.to_owned(), event_id, attempts, meta, asked });
    }
}
