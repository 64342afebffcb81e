//! Ordered groups: each partition has one reader, and of each key one event runs at a time, in the order of the stream.
//!
//! What has to wait, waits in the store, under nobody: whoever takes the partition over finds it there. Here is only
//! noted what waits behind what. A [`Line`] is one partition as this bus sees it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::engine::store::{EntryId, Parked, Partition};

/// Most entries of a partition that wait behind others; at it nothing new is read there until some are done.
pub const PARKED_MAX: usize = 10_000;

/// How a partition stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Not read here; may be asked for from then on.
    Free(Instant),
    /// To be asked for, with what waits there, once nothing of it is on its way. It may have been read here before.
    Stale,
    /// The store is asked.
    Asking,
    /// Read here.
    Owned,
    /// To be given up, once nothing runs any more.
    Leaving,
    /// Being given up: the store is told. Nothing of it is held here, and it is not asked for.
    GivingUp,
}

/// Events with one key.
#[derive(Default)]
struct Key {
    running: Option<EntryId>,
    /// In the order of the stream, with the time from which each may run; `None` while it is on its way to the store.
    waiting: BTreeMap<EntryId, Option<Instant>>,
}

/// One partition of an ordered group.
pub struct Line {
    /// How it stands.
    pub state: State,
    /// A claim is on its way.
    pub claiming: bool,
    keys: HashMap<Arc<str>, Key>,
    running: HashMap<EntryId, Arc<str>>,
    /// Keys of which nothing runs and something waits, by the time from which their first may run.
    ready: BTreeSet<(Instant, Arc<str>)>,
    parked: usize,
    /// Entries on their way back to the store because they have to wait, with their keys. Until they are there nothing new
    /// is begun: were this process to die, they would count as begun.
    parking: HashMap<EntryId, Arc<str>>,
}

impl Line {
    /// One that may be asked for.
    pub fn new() -> Self {
        Self {
            state: State::Free(Instant::now()),
            claiming: false,
            keys: HashMap::new(),
            running: HashMap::new(),
            ready: BTreeSet::new(),
            parked: 0,
            parking: HashMap::new(),
        }
    }

    /// New entries may be read: not while others are on their way back, which hold up the handlers.
    pub fn reads(&self) -> bool {
        self.state == State::Owned && self.parked < PARKED_MAX && self.parking.is_empty()
    }

    /// Whether the entry is the one of its key that runs.
    pub fn runs(&self, id: EntryId) -> bool {
        self.running.contains_key(&id)
    }

    /// Handlers may be called.
    pub fn calls(&self) -> bool {
        self.parking.is_empty()
    }

    /// Whether a new entry may run now; if not, or if it is not wanted now, it waits, and is to be handed back to the store.
    pub fn admit(&mut self, id: EntryId, key: &str, wanted: bool) -> bool {
        let key: Arc<str> = key.into();
        let line = self.keys.entry(key.clone()).or_default();
        let runs = wanted && self.state == State::Owned && line.running.is_none() && line.waiting.is_empty();
        if runs {
            line.running = Some(id);
            self.running.insert(id, key);
        } else {
            self.wait(id, &key, None);
            self.parking.insert(id, key);
        }
        runs
    }

    fn wait(&mut self, id: EntryId, key: &Arc<str>, due: Option<Instant>) {
        let first = self.first(key);
        let line = self.keys.entry(key.clone()).or_default();
        if line.waiting.insert(id, due).is_none() {
            self.parked += 1;
        }
        self.index(key, first);
    }

    /// The time from which the first that waits may run, if nothing of the key runs.
    fn first(&self, key: &Arc<str>) -> Option<Instant> {
        self.keys.get(key).filter(|line| line.running.is_none()).and_then(|line| *line.waiting.values().next()?)
    }

    /// Brings the index up to date after a change of the key.
    fn index(&mut self, key: &Arc<str>, before: Option<Instant>) {
        let now = self.first(key);
        if now != before {
            if let Some(before) = before {
                self.ready.remove(&(before, key.clone()));
            }
            if let Some(now) = now {
                self.ready.insert((now, key.clone()));
            }
        }
        if self.keys.get(key).is_some_and(|line| line.running.is_none() && line.waiting.is_empty()) {
            self.keys.remove(key);
        }
    }

    /// Up to `max` entries that may run now and are to be claimed; their keys are taken.
    pub fn start(&mut self, now: Instant, max: usize) -> Vec<EntryId> {
        let mut ids = Vec::new();
        while ids.len() < max {
            let Some((_, key)) = self.ready.first().filter(|(due, _)| *due <= now).cloned() else { break };
            let before = self.first(&key);
            if let Some(line) = self.keys.get_mut(&key)
                && let Some((id, _)) = line.waiting.pop_first()
            {
                line.running = Some(id);
                self.parked -= 1;
                self.running.insert(id, key.clone());
                ids.push(id);
            }
            self.index(&key, before);
        }
        ids
    }

    /// An entry is settled in the store: its key is free. `again`: it waits there, until then.
    /// Answers whether it was known.
    pub fn settled(&mut self, id: EntryId, again: Option<Instant>) -> bool {
        if let Some(key) = self.parking.remove(&id) {
            self.wait(id, &key, again);
            return true;
        }
        let Some(key) = self.running.remove(&id) else { return false };
        let before = self.first(&key);
        if let Some(line) = self.keys.get_mut(&key) {
            line.running.take_if(|running| *running == id);
        }
        self.index(&key, before);
        if again.is_some() {
            self.wait(id, &key, again);
        }
        true
    }

    /// When the first of those that wait may run; `None` while none of them can be claimed.
    pub fn next_due(&self) -> Option<Instant> {
        if self.state != State::Owned || self.claiming {
            return None;
        }
        self.ready.first().map(|(due, _)| *due)
    }

    /// The store is asked what waits: what was known of it does not count any more, but what is put back from here on does.
    pub fn ask(&mut self) {
        self.state = State::Asking;
        (self.ready, self.parked, self.parking) = (BTreeSet::new(), 0, HashMap::new());
        self.keys.retain(|_, line| {
            line.waiting.clear();
            line.running.is_some()
        });
    }

    /// What the store says that waits. What runs still does only if it is `held`.
    pub fn load(&mut self, parked: Vec<Parked>, held: impl Fn(EntryId) -> bool) {
        let now = Instant::now();
        let ended: Vec<EntryId> = self.running.keys().filter(|id| !held(**id)).copied().collect();
        for id in ended {
            self.settled(id, None);
        }
        for Parked { id, due_in_ms, key } in parked {
            self.wait(id, &key.into(), Some(now + Duration::from_millis(due_in_ms)));
        }
        self.state = State::Owned;
    }

    /// Nothing that was known holds any more: others may have it.
    pub fn forget(&mut self) {
        *self = Self::new();
    }

    /// What waits has to be read again.
    pub fn doubt(&mut self) {
        if self.state == State::Owned {
            self.state = State::Stale;
        }
    }
}

/// The lines of an ordered group.
#[derive(Default)]
pub struct Lines {
    /// One a partition.
    pub by_partition: BTreeMap<Partition, Line>,
    /// Living members of the group, by pattern; asked for now and then.
    pub members: HashMap<String, usize>,
    /// When to ask for them next.
    pub survey_at: Option<Instant>,
    /// They are being asked for.
    pub surveying: bool,
    /// The shares may have changed.
    pub to_share: bool,
}

impl Lines {
    /// What waits has to be read again, everywhere.
    pub fn doubt_all(&mut self) {
        self.by_partition.values_mut().for_each(Line::doubt);
    }

    /// When something can be done next.
    pub fn next_timer(&self) -> Option<Instant> {
        let due = self.by_partition.values().filter_map(|line| match line.state {
            State::Free(at) => Some(at),
            _ => line.next_due(),
        });
        due.chain(self.survey_at.filter(|_| !self.surveying)).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(seq: u64) -> EntryId {
        EntryId { ms: 1, seq }
    }

    fn owned() -> Line {
        let mut line = Line::new();
        line.load(Vec::new(), |_| false);
        line
    }

    #[tokio::test(start_paused = true)]
    async fn of_a_key_one_runs_and_the_others_wait_in_order() {
        let mut line = owned();
        assert!(line.admit(id(1), "a", true) && line.admit(id(2), "b", true));
        assert!(!line.admit(id(3), "a", true) && !line.admit(id(4), "a", true));
        assert!(!line.calls(), "until they are back in the store");
        line.settled(id(1), None);
        assert!(line.start(Instant::now(), 10).is_empty(), "what is not there cannot be claimed");
        for waiting in [3, 4] {
            line.settled(id(waiting), Some(Instant::now()));
        }
        assert!(line.calls());
        assert_eq!(line.start(Instant::now(), 10), [id(3)]);
        assert!(line.start(Instant::now(), 10).is_empty(), "the key is taken");
        line.settled(id(3), None);
        assert_eq!(line.start(Instant::now(), 10), [id(4)]);
        line.settled(id(4), None);
        assert!(line.admit(id(5), "a", true));
    }

    #[tokio::test(start_paused = true)]
    async fn a_retry_holds_back_its_key_only() {
        let mut line = owned();
        assert!(line.admit(id(1), "a", true));
        assert!(!line.admit(id(2), "a", true));
        let later = Instant::now() + Duration::from_secs(5);
        line.settled(id(2), Some(Instant::now()));
        line.settled(id(1), Some(later));
        assert!(line.admit(id(3), "b", true));
        assert!(line.start(Instant::now(), 10).is_empty());
        assert_eq!(line.next_due(), Some(later));
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(line.start(Instant::now(), 10), [id(1)], "the one that failed comes before those behind it");
    }

    #[tokio::test(start_paused = true)]
    async fn what_waits_is_taken_from_the_store_and_what_runs_is_kept() {
        let mut line = owned();
        assert!(line.admit(id(1), "a", true) && line.admit(id(2), "b", true));
        line.doubt();
        assert!(!line.reads());
        line.ask();
        let parked = |seq, key: &str| Parked { id: id(seq), due_in_ms: 0, key: key.into() };
        line.load(vec![parked(4, "b"), parked(3, "a"), parked(2, "b")], |held| held == id(1));
        assert_eq!(line.start(Instant::now(), 10), [id(2)]);
        line.settled(id(1), None);
        assert_eq!(line.start(Instant::now(), 10), [id(3)]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_fails_while_the_store_is_asked_is_not_forgotten() {
        let mut line = owned();
        assert!(line.admit(id(1), "a", true));
        line.doubt();
        line.ask();
        line.settled(id(1), Some(Instant::now()));
        line.load(vec![Parked { id: id(2), due_in_ms: 0, key: "a".into() }], |_| false);
        assert_eq!(line.start(Instant::now(), 10), [id(1)]);
    }

    #[tokio::test(start_paused = true)]
    async fn reading_stops_at_the_bound_of_what_waits() {
        let mut line = owned();
        assert!(line.admit(id(0), "a", true));
        for seq in 1..=PARKED_MAX as u64 {
            assert!(line.reads());
            line.admit(id(seq), "a", true);
            assert!(!line.reads(), "while it is on its way back");
            line.settled(id(seq), Some(Instant::now()));
        }
        assert!(!line.reads());
    }
}
