//! The register of services: what is listed, what changed, and errands.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;

use super::super::roster::{A_CALL_MAX, CHANGES_MAX, check};
use super::super::{EntryId, Errand, Listing, ListingChange, News, Place, Read, Roster, Running, StoreEvent, Turn};
use super::{MemoryStore, ms};
use crate::engine::env::lock;
use crate::engine::error::Result;

/// Epochs given in this process, so that a store that is made anew under its name has another one.
static EPOCHS: AtomicU64 = AtomicU64::new(0);

/// All of it.
#[derive(Debug, Default)]
pub(super) struct Register {
    listings: BTreeMap<String, Listing>,
    /// When they end; those that never do are not in it.
    ends: Times,
    /// The last changes, in order.
    changes: VecDeque<ListingChange>,
    /// The change before those.
    forgotten: EntryId,
    place: Place,
    errands: BTreeMap<Errand, Errands>,
    last_turn: u64,
}

/// When something is due about names.
#[derive(Debug, Default)]
struct Times {
    by_name: BTreeMap<String, u64>,
    by_time: BTreeSet<(u64, String)>,
}

impl Times {
    fn set(&mut self, name: &str, at_ms: u64) {
        self.remove(name);
        self.by_name.insert(name.to_owned(), at_ms);
        self.by_time.insert((at_ms, name.to_owned()));
    }

    fn remove(&mut self, name: &str) {
        if let Some(entry) = self.by_name.remove_entry(name) {
            self.by_time.remove(&(entry.1, entry.0));
        }
    }

    /// Up to [`A_CALL_MAX`] names whose time has come.
    fn due(&self, now_ms: u64) -> Vec<String> {
        let due = self.by_time.iter().take_while(|(at_ms, _)| *at_ms <= now_ms);
        due.take(A_CALL_MAX).map(|(_, name)| name.clone()).collect()
    }

    /// ms until the next one.
    fn next_ms(&self, now_ms: u64) -> Option<u64> {
        self.by_time.first().map(|(at_ms, _)| at_ms.saturating_sub(now_ms))
    }
}

/// Errands of one kind.
#[derive(Debug, Default)]
struct Errands {
    due: Times,
    /// The turns that run.
    turns: BTreeMap<String, u64>,
}

impl Register {
    /// Answers whether it is `after` now, and whether that is a change.
    fn put(
        &mut self,
        name: &str,
        before: Option<&Listing>,
        after: Option<&Listing>,
        turn: Turn,
        life: Option<Duration>,
        now_ms: u64,
    ) -> (bool, bool) {
        let found = self.listings.get(name);
        let is_so = found == after;
        if !is_so && found != before {
            return (false, false);
        }
        if let (Some(_), Some(life)) = (after, life) {
            self.ends.set(name, now_ms.saturating_add(ms(life)));
        }
        if is_so {
            return (true, false);
        }
        let listing = match after {
            Some(listing) => {
                self.listings.insert(name.to_owned(), listing.clone());
                listing.clone()
            }
            None => self.take_out(name).unwrap_or_default(),
        };
        self.note(name, turn, listing, now_ms);
        (true, true)
    }

    fn take_out(&mut self, name: &str) -> Option<Listing> {
        self.ends.remove(name);
        self.listings.remove(name)
    }

    fn note(&mut self, name: &str, turn: Turn, listing: Listing, now_ms: u64) {
        if self.place.epoch == 0 {
            self.place.epoch = EPOCHS.fetch_add(1, Ordering::Relaxed) + 1;
        }
        self.place.last = self.place.last.next().max(EntryId { ms: now_ms, seq: 0 });
        self.changes.push_back(ListingChange { at: self.place.last, name: name.to_owned(), turn, listing });
        if self.changes.len() > CHANGES_MAX
            && let Some(oldest) = self.changes.pop_front()
        {
            self.forgotten = oldest.at;
        }
    }

    /// Answers the names that are not there.
    fn renew(&mut self, names: &[String], life: Duration, now_ms: u64) -> Vec<String> {
        let (there, missing): (Vec<_>, Vec<_>) = names.iter().partition(|name| self.listings.contains_key(*name));
        for name in there {
            self.ends.set(name, now_ms.saturating_add(ms(life)));
        }
        missing.into_iter().cloned().collect()
    }

    /// Ends those whose time is over; answers whether there are any.
    fn expire(&mut self, now_ms: u64) -> bool {
        let ended = self.ends.due(now_ms);
        for name in &ended {
            if let Some(listing) = self.take_out(name) {
                self.note(name, Turn::Expired, listing, now_ms);
            }
        }
        !ended.is_empty()
    }

    fn read(&self, known: Option<Place>, now_ms: u64) -> Read {
        let since = known.and_then(|place| match place.epoch {
            0 => self.since(EntryId::default()),
            epoch if epoch == self.place.epoch => self.since(place.last),
            _ => None,
        });
        // A place that this register never had, though what was before it is there.
        let is_lost = |place: Place| place.epoch == self.place.epoch && self.changes.front().is_some_and(|first| first.at <= place.last);
        let news = match since {
            Some(changes) => News::Since(changes),
            None if known.is_some_and(is_lost) => News::Older(self.listings.clone()),
            None => News::All(self.listings.clone()),
        };
        Read { place: self.place, news, next_end_ms: self.ends.next_ms(now_ms) }
    }

    /// `None`: some are missing, or the place is none.
    fn since(&self, last: EntryId) -> Option<Vec<ListingChange>> {
        let behind = match self.changes.binary_search_by_key(&last, |change| change.at) {
            Ok(at) => at + 1,
            Err(_) if last == self.forgotten => 0,
            Err(_) => return None,
        };
        Some(self.changes.range(behind..).cloned().collect())
    }

    fn plan(&mut self, errand: Errand, names: &[String], spread: Duration, now_ms: u64) {
        let due = &mut self.errands.entry(errand).or_default().due;
        let (spread_ms, count) = (u128::from(ms(spread)), names.len() as u128);
        for (name, i) in names.iter().zip(0_u128..) {
            if !due.by_name.contains_key(name) {
                // A part of a number of 64 bits is one.
                let after_ms = u64::try_from(spread_ms * i / count).unwrap_or(u64::MAX);
                due.set(name, now_ms.saturating_add(after_ms));
            }
        }
    }

    fn take(&mut self, errand: Errand, most: usize, lease: Duration, now_ms: u64) -> (Vec<Running>, Option<u64>) {
        let errands = self.errands.entry(errand).or_default();
        let mut taken = Vec::new();
        for name in errands.due.due(now_ms) {
            if !self.listings.contains_key(&name) {
                errands.due.remove(&name);
                errands.turns.remove(&name);
            } else if taken.len() < most {
                // By the clock, as those of a store of that name that was there before.
                self.last_turn = now_ms.saturating_mul(1000).max(self.last_turn + 1);
                errands.turns.insert(name.clone(), self.last_turn);
                errands.due.set(&name, now_ms.saturating_add(ms(lease)));
                taken.push(Running { name, turn: self.last_turn });
            }
        }
        (taken, errands.due.next_ms(now_ms))
    }

    fn end(&mut self, errand: Errand, running: &Running, next: Option<Duration>, now_ms: u64) -> bool {
        let errands = self.errands.entry(errand).or_default();
        if errands.turns.get(&running.name) != Some(&running.turn) {
            return false;
        }
        errands.turns.remove(&running.name);
        match next {
            Some(next) => errands.due.set(&running.name, now_ms.saturating_add(ms(next))),
            None => errands.due.remove(&running.name),
        }
        true
    }
}

#[async_trait]
impl Roster for MemoryStore {
    async fn put_listing(
        &self,
        name: &str,
        before: Option<&Listing>,
        after: Option<&Listing>,
        turn: Turn,
        life: Option<Duration>,
    ) -> Result<bool> {
        check(name, before, after, turn)?;
        let shared = self.shared()?;
        let now_ms = shared.env.now_ms();
        let (is_after, changed) = lock(&shared.state).register.put(name, before, after, turn, life, now_ms);
        if changed && turn != Turn::Checked {
            shared.announce(&StoreEvent::ServicesChanged);
        }
        Ok(is_after)
    }

    async fn renew_listings(&self, names: &[String], life: Duration) -> Result<Vec<String>> {
        self.with(|state, now_ms| state.register.renew(names, life, now_ms))
    }

    async fn news(&self, known: Option<Place>) -> Result<Read> {
        let shared = self.shared()?;
        let now_ms = shared.env.now_ms();
        let (read, changed) = {
            let register = &mut lock(&shared.state).register;
            let changed = register.expire(now_ms);
            (register.read(known, now_ms), changed)
        };
        if changed {
            shared.announce(&StoreEvent::ServicesChanged);
        }
        Ok(read)
    }

    async fn plan_errands(&self, errand: Errand, names: &[String], spread: Duration) -> Result<()> {
        self.with(|state, now_ms| state.register.plan(errand, names, spread, now_ms))
    }

    async fn take_errands(&self, errand: Errand, most: usize, lease: Duration) -> Result<(Vec<Running>, Option<u64>)> {
        self.with(|state, now_ms| state.register.take(errand, most, lease, now_ms))
    }

    async fn end_errand(&self, errand: Errand, running: &Running, next: Option<Duration>) -> Result<bool> {
        self.with(|state, now_ms| state.register.end(errand, running, next, now_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_changes_as_are_kept_are_told_and_no_more() {
        let (mut register, well) = (Register::default(), Listing { definition: "d".into(), health: "well".into() });
        let ill = Listing { health: "ill".into(), ..well.clone() };
        register.put("a", None, Some(&well), Turn::Registered, None, 5);
        let first = register.place;
        let (mut now, mut other) = (well, ill);
        for n in 0..CHANGES_MAX {
            let missed = register.read(Some(first), 5).news;
            assert!(matches!(missed, News::Since(changes) if changes.len() == n));
            assert_eq!(register.put("a", Some(&now), Some(&other), Turn::Checked, None, 5), (true, true));
            std::mem::swap(&mut now, &mut other);
        }
        assert!(matches!(register.read(Some(first), 5).news, News::Since(changes) if changes.len() == CHANGES_MAX));
        assert!(matches!(register.read(Some(Place::default()), 5).news, News::All(listings) if listings.len() == 1));
        assert_eq!(register.put("a", Some(&now), None, Turn::Unregistered, None, 5), (true, true));
        assert!(matches!(register.read(Some(first), 5).news, News::All(listings) if listings.is_empty()));
        assert_eq!(register.changes.len(), CHANGES_MAX);
    }

    #[test]
    fn places_rise_when_the_clock_is_set_back() {
        let mut register = Register::default();
        for (name, now_ms) in [("a", 100), ("b", 7), ("c", 100), ("d", 101)] {
            register.note(name, Turn::Registered, Listing::default(), now_ms);
        }
        let at: Vec<String> = register.changes.iter().map(|change| change.at.to_string()).collect();
        assert_eq!(at, ["100-0", "100-1", "100-2", "101-0"]);
    }
}
