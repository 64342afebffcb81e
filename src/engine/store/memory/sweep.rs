//! What need not be kept goes.

use std::collections::HashSet;

use super::super::{Body, DeadReason, EntryId, Expired, Keeping, Partition, Swept};
use super::dead_letters::{DeadLetters, Death};
use super::entries::{Entries, Stored};
use super::state::State;
use super::stream::{Group, Stream};

/// Entries removed, and rows announced, by one call at most.
const SWEEP_MAX: u64 = 10_000;

impl State {
    /// See [`Store::sweep`](super::super::Store::sweep).
    pub(super) fn sweep(&mut self, at: &Partition, keeping: &Keeping, now_ms: u64) -> Swept {
        let mut swept = Swept::default();
        let bucket = self.bucket_mut(at.bucket());
        bucket.dead.forget(&at.event_type, now_ms.saturating_sub(keeping.dead_letter_retention_ms));
        let Some(stream) = bucket.streams.get_mut(at) else { return swept };
        for (name, group) in &mut stream.groups {
            let mut expiry = Expiry { at, keeping, now_ms, dead_letters: &mut bucket.dead, swept: &mut swept };
            expiry.pass(name, group, &stream.entries);
        }
        remove_done(stream, keeping, now_ms, &mut swept);
        stream.moved.forget_before(stream.entries.ends().0.map_or(u64::MAX, |first| first.ms));
        swept
    }
}

/// Moves groups past what expired before it was delivered.
struct Expiry<'a> {
    at: &'a Partition,
    keeping: &'a Keeping,
    now_ms: u64,
    dead_letters: &'a mut DeadLetters,
    swept: &'a mut Swept,
}

impl Expiry<'_> {
    fn pass(&mut self, name: &str, group: &mut Group, entries: &Entries) {
        for entry in entries.after(group.last_delivered) {
            if !entry.expired(self.keeping.default_ttl_ms, self.now_ms) {
                return;
            }
            if self.swept.expired.len() as u64 >= SWEEP_MAX {
                self.swept.more = true;
                return;
            }
            group.last_delivered = entry.id;
            self.announce(name, entry);
        }
    }

    fn announce(&mut self, group: &str, entry: &Stored) {
        if matches!(&entry.body, Body::Event { only_group: Some(only), .. } if only != group) {
            return; // redriven for another group: this one would have acknowledged it unseen
        }
        let dead_lettered = self.keeping.dead_letters && !entry.life.given();
        if dead_lettered {
            let error = "its ttl was over before it was delivered".to_owned();
            let death = Death { group, reason: DeadReason::Expired, error, attempts: 0 };
            self.dead_letters.add(self.at, entry, death, self.now_ms);
        }
        self.swept.expired.push(Expired {
            event_type: self.at.event_type.clone(),
            event_id: entry.event_id(),
            group: group.to_owned(),
            dead_lettered,
        });
    }
}

/// What every group is done with.
struct Done {
    pending: HashSet<EntryId>,
    /// Up to here all groups have come; `None`: there is no group.
    delivered: Option<EntryId>,
    /// How many entries that are.
    count: u64,
}

impl Done {
    fn of(stream: &Stream, without_group: bool) -> Self {
        let pending: HashSet<EntryId> = stream.groups.values().flat_map(|group| group.pending.keys().copied()).collect();
        let delivered = stream.groups.values().map(|group| group.last_delivered).min();
        let count = match delivered {
            Some(floor) => stream.entries.rank(floor) - pending.iter().filter(|id| **id <= floor).count(),
            None if without_group => stream.entries.len(),
            None => 0,
        };
        Self { pending, delivered, count: count as u64 }
    }

    /// Removes the first `too_many` of them, and those that are `old`. Pending entries stay where they are and hold up
    /// nothing behind them.
    fn remove(&self, stream: &mut Stream, mut too_many: u64, old: impl Fn(&Stored) -> bool, swept: &mut Swept) {
        let mut removed = 0;
        swept.removed = stream.entries.remove_from_front(|entry| {
            if self.delivered.is_some_and(|floor| entry.id > floor) {
                return None;
            }
            if self.pending.contains(&entry.id) || (too_many == 0 && !old(entry)) {
                return Some(true);
            }
            if removed == SWEEP_MAX {
                swept.more = true;
                return None;
            }
            removed += 1;
            too_many = too_many.saturating_sub(1);
            Some(false)
        });
    }
}

/// Removes what every group is done with and what is too much or too old.
fn remove_done(stream: &mut Stream, keeping: &Keeping, now_ms: u64, swept: &mut Swept) {
    let done = Done::of(stream, keeping.without_group);
    let too_many = done.count.saturating_sub(keeping.keep_acknowledged);
    let old = |entry: &Stored| match keeping.keep_ms {
        Some(keep_ms) => entry.id.ms.saturating_add(keep_ms) <= now_ms,
        None => entry.expired(keeping.default_ttl_ms, now_ms),
    };
    done.remove(stream, too_many, old, swept);
}

impl Stream {
    /// Removes entries that every group is done with, until `length` are left or there are no more of them.
    pub(super) fn make_room(&mut self, length: u64, without_group: bool) {
        let done = Done::of(self, without_group);
        let too_many = done.count.min((self.entries.len() as u64).saturating_sub(length));
        if too_many > 0 {
            done.remove(self, too_many, |_| false, &mut Swept::default());
        }
    }
}
