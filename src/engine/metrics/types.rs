//! Counters by event type, of which there is a bound: further types are counted together.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use super::histogram::{Histogram, Times};

/// Types that are told apart; further ones are counted as [`OTHER`].
pub const TYPES_MAX: usize = 100;
/// All types beyond [`TYPES_MAX`].
pub const OTHER: &str = "other";

/// Counters of one event type. Each only rises.
pub struct OfType {
    /// Its name.
    pub name: Arc<str>,
    /// Events stored, or sent to the subscribers of the moment.
    pub published: AtomicU64,
    /// Events acknowledged.
    pub consumed: AtomicU64,
    /// Deliveries that failed.
    pub failed: AtomicU64,
    /// Failed deliveries that wait, or waited, for a retry.
    pub retried: AtomicU64,
    /// Dead letters.
    pub dead_lettered: AtomicU64,
    /// Events that a group did not get before their ttl was over.
    pub expired: AtomicU64,
    /// From a publish to the store's word.
    pub publish_time: Histogram,
    /// Of handlers.
    pub processing_time: Histogram,
    /// From an event's entry in its stream to the call of its handlers.
    pub end_to_end_time: Histogram,
}

impl OfType {
    fn new(name: Arc<str>) -> Self {
        Self {
            name,
            published: AtomicU64::new(0),
            consumed: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            retried: AtomicU64::new(0),
            dead_lettered: AtomicU64::new(0),
            expired: AtomicU64::new(0),
            publish_time: Histogram::default(),
            processing_time: Histogram::default(),
            end_to_end_time: Histogram::default(),
        }
    }

    /// All so far.
    pub fn read(&self) -> Figures {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Figures {
            published: of(&self.published),
            consumed: of(&self.consumed),
            failed: of(&self.failed),
            retried: of(&self.retried),
            dead_lettered: of(&self.dead_lettered),
            expired: of(&self.expired),
            publish_time: self.publish_time.read(),
            processing_time: self.processing_time.read(),
            end_to_end_time: self.end_to_end_time.read(),
        }
    }
}

/// What was counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)] // as in [`OfType`]
pub struct Figures {
    pub published: u64,
    pub consumed: u64,
    pub failed: u64,
    pub retried: u64,
    pub dead_lettered: u64,
    pub expired: u64,
    pub publish_time: Times,
    pub processing_time: Times,
    pub end_to_end_time: Times,
}

impl Figures {
    /// What came since `before`, which was read earlier.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        Self {
            published: self.published.saturating_sub(before.published),
            consumed: self.consumed.saturating_sub(before.consumed),
            failed: self.failed.saturating_sub(before.failed),
            retried: self.retried.saturating_sub(before.retried),
            dead_lettered: self.dead_lettered.saturating_sub(before.dead_lettered),
            expired: self.expired.saturating_sub(before.expired),
            publish_time: self.publish_time.since(&before.publish_time),
            processing_time: self.processing_time.since(&before.processing_time),
            end_to_end_time: self.end_to_end_time.since(&before.end_to_end_time),
        }
    }

    /// These, too.
    pub fn merge(&mut self, other: &Self) {
        self.published += other.published;
        self.consumed += other.consumed;
        self.failed += other.failed;
        self.retried += other.retried;
        self.dead_lettered += other.dead_lettered;
        self.expired += other.expired;
        self.publish_time.merge(&other.publish_time);
        self.processing_time.merge(&other.processing_time);
        self.end_to_end_time.merge(&other.end_to_end_time);
    }

    /// Whether nothing happened.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Deliveries that ended.
    pub fn deliveries(&self) -> u64 {
        self.consumed + self.failed
    }

    /// Failed deliveries, percent of all.
    pub fn error_rate_percent(&self) -> f64 {
        #[allow(clippy::cast_precision_loss)] // a percentage
        let percent = |deliveries: u64| self.failed as f64 * 100.0 / deliveries as f64;
        if self.deliveries() == 0 { 0.0 } else { percent(self.deliveries()) }
    }

    /// From an event's entry in its stream to the end of its handlers, ms on average.
    pub fn latency_ms(&self) -> f64 {
        self.end_to_end_time.average_ms() + self.processing_time.average_ms()
    }
}

/// All types.
pub struct Types {
    known: RwLock<HashMap<Arc<str>, Arc<OfType>>>,
    other: Arc<OfType>,
}

impl Default for Types {
    fn default() -> Self {
        Self { known: RwLock::default(), other: Arc::new(OfType::new(OTHER.into())) }
    }
}

impl Types {
    /// Where events of the type are counted.
    pub fn of(&self, event_type: &Arc<str>) -> Arc<OfType> {
        if let Some(known) = self.known.read().unwrap_or_else(PoisonError::into_inner).get(event_type) {
            return known.clone();
        }
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= TYPES_MAX && !known.contains_key(event_type) {
            return self.other.clone();
        }
        known.entry(event_type.clone()).or_insert_with(|| Arc::new(OfType::new(event_type.clone()))).clone()
    }

    /// All, by name; [`OTHER`] is the last, whether there were such or not.
    pub fn all(&self) -> Vec<Arc<OfType>> {
        let mut all: Vec<_> = self.known.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        if !all.iter().any(|kind| &*kind.name == OTHER) {
            all.push(self.other.clone());
        }
        all
    }
}

/// Looks a type up once where many events in a row are of it.
#[derive(Default)]
pub struct LastType(Option<(Arc<str>, Arc<OfType>)>);

impl LastType {
    /// Where events of the type are counted.
    pub fn of(&mut self, types: &Types, event_type: &Arc<str>) -> &OfType {
        let is_same = |(name, _): &(Arc<str>, Arc<OfType>)| Arc::ptr_eq(name, event_type) || name == event_type;
        if !self.0.as_ref().is_some_and(is_same) {
            self.0 = None;
        }
        &self.0.get_or_insert_with(|| (event_type.clone(), types.of(event_type))).1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_beyond_the_bound_are_counted_together() {
        let types = Types::default();
        for n in 0..TYPES_MAX + 50 {
            types.of(&format!("type.{n}").into()).published.fetch_add(1, Ordering::Relaxed);
        }
        let all = types.all();
        assert_eq!(all.len(), TYPES_MAX + 1);
        assert_eq!((&*all[TYPES_MAX].name, all[TYPES_MAX].read().published), (OTHER, 50));
        // What was told apart stays so.
        types.of(&"type.3".into()).published.fetch_add(1, Ordering::Relaxed);
        assert_eq!(types.of(&"type.3".into()).read().published, 2);
    }

    #[test]
    fn a_type_that_is_called_other_is_not_there_twice() {
        let types = Types::default();
        types.of(&OTHER.into()).published.fetch_add(1, Ordering::Relaxed);
        assert_eq!(types.all().len(), 1);
    }

    #[test]
    fn the_last_type_is_looked_up_when_it_changes() {
        let (types, mut last) = (Types::default(), LastType::default());
        for name in ["a", "a", "b", "a"] {
            last.of(&types, &name.into()).consumed.fetch_add(1, Ordering::Relaxed);
        }
        assert_eq!((types.of(&"a".into()).read().consumed, types.of(&"b".into()).read().consumed), (3, 1));
    }
}
