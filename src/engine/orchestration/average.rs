//! Moving figures, each with its window.

use serde::{Deserialize, Serialize};

/// Mean of about the last so many values: each new one counts for as much once there are that many, and for more before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Recent {
    mean: f64,
    count: u32,
}

impl Recent {
    /// One more value, of which the last `window` count.
    pub fn add(&mut self, value: f64, window: u32) {
        self.count = (self.count + 1).min(window);
        self.mean += (value - self.mean) / f64::from(self.count);
    }

    /// `None` before the first value.
    pub fn mean(&self) -> Option<f64> {
        (self.count > 0).then_some(self.mean)
    }

    /// Values in the window.
    pub fn count(&self) -> u32 {
        self.count
    }
}

/// Slots of the last minute, and how long each is, ms.
const SLOTS: usize = 12;
const SLOT_MS: u64 = 60_000 / SLOTS as u64;

/// What ended in the last minute, in steps of five seconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LastMinute {
    /// Number of the newest slot.
    newest: u64,
    /// The newest first; those that are missing are empty.
    slots: Vec<Ended>,
}

/// What ended in some time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Ended {
    /// Tasks that succeeded.
    #[serde(rename = "c")]
    pub completed: u32,
    /// Attempts that failed.
    #[serde(rename = "f")]
    pub failed: u32,
    /// ms from being given to an agent to success, of all that succeeded.
    #[serde(rename = "t")]
    pub total_ms: f64,
}

impl Ended {
    /// Mean time of what succeeded, ms; 0 without any.
    pub fn mean_ms(&self) -> f64 {
        if self.completed == 0 { 0.0 } else { self.total_ms / f64::from(self.completed) }
    }

    /// Percent that failed; 0 where nothing ended.
    pub fn error_rate(&self) -> f64 {
        let all = self.completed + self.failed;
        if all == 0 { 0.0 } else { f64::from(self.failed) / f64::from(all) * 100.0 }
    }

    /// This and that.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { completed: self.completed + other.completed, failed: self.failed + other.failed, total_ms: self.total_ms + other.total_ms }
    }
}

impl LastMinute {
    /// One that succeeded, `took_ms` after it was given to an agent.
    pub fn completed(&mut self, took_ms: f64, now_ms: u64) {
        let slot = self.now(now_ms);
        slot.completed += 1;
        slot.total_ms += took_ms;
    }

    /// One that failed.
    pub fn failed(&mut self, now_ms: u64) {
        self.now(now_ms).failed += 1;
    }

    /// All of it.
    pub fn sum(&self, now_ms: u64) -> Ended {
        let gone = usize::try_from((now_ms / SLOT_MS).saturating_sub(self.newest)).unwrap_or(usize::MAX);
        self.slots.iter().take(SLOTS.saturating_sub(gone)).fold(Ended::default(), |sum, slot| sum.and(*slot))
    }

    fn now(&mut self, now_ms: u64) -> &mut Ended {
        let slot = now_ms / SLOT_MS;
        let gone = usize::try_from(slot.saturating_sub(self.newest)).unwrap_or(usize::MAX).min(SLOTS);
        if gone > 0 || self.slots.is_empty() {
            let kept = if self.slots.is_empty() { 1 } else { gone };
            self.slots.splice(0..0, std::iter::repeat_n(Ended::default(), kept));
            self.slots.truncate(SLOTS);
            self.newest = slot.max(self.newest);
        }
        &mut self.slots[0]
    }
}

/// Mean over time of a figure that stands still between changes: what is older than the window counts for a third.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Smooth {
    value: f64,
    at_ms: u64,
}

impl Smooth {
    /// It has been `value` since the last look.
    #[allow(clippy::cast_precision_loss)] // times within a window
    pub fn look(&mut self, value: f64, now_ms: u64, window_ms: u64) -> f64 {
        if self.at_ms == 0 {
            self.value = value;
        } else {
            let passed = now_ms.saturating_sub(self.at_ms) as f64;
            self.value += (value - self.value) * (1.0 - (-passed / window_ms.max(1) as f64).exp());
        }
        self.at_ms = now_ms;
        self.value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-9
    }

    #[test]
    fn the_last_values_make_the_mean() {
        let mut recent = Recent::default();
        assert_eq!(recent.mean(), None);
        for value in [10.0, 20.0, 30.0] {
            recent.add(value, 4);
        }
        assert!(near(recent.mean().unwrap(), 20.0) && recent.count() == 3);
        for _ in 0..100 {
            recent.add(7.0, 4);
        }
        assert!(near(recent.mean().unwrap(), 7.0) && recent.count() == 4);
    }

    #[test]
    fn a_minute_later_nothing_is_left() {
        let mut last = LastMinute::default();
        let start = 1_700_000_000_000;
        last.completed(100.0, start);
        last.completed(300.0, start + 20_000);
        last.failed(start + 20_001);
        let sum = last.sum(start + 30_000);
        assert_eq!((sum.completed, sum.failed), (2, 1));
        assert!(near(sum.mean_ms(), 200.0) && near(sum.error_rate(), 100.0 / 3.0));
        assert_eq!(last.sum(start + 62_000).completed, 1, "the first one is older than a minute");
        assert_eq!(last.sum(start + 90_000), Ended::default());
        last.completed(5.0, start + 900_000);
        assert_eq!(last.sum(start + 900_000).completed, 1);
        assert_eq!(last.sum(0).completed, 1, "a clock that was put back forgets nothing");
    }

    #[test]
    fn it_is_read_back_as_it_was_written() {
        let mut last = LastMinute::default();
        (0..20_u32).for_each(|n| last.completed(f64::from(n), 1_700_000_000_000 + u64::from(n) * 5_000));
        assert_eq!(serde_json::from_str::<LastMinute>(&serde_json::to_string(&last).unwrap()).unwrap(), last);
        assert_eq!(last.slots.len(), SLOTS);
    }

    #[test]
    fn a_jump_counts_more_the_longer_it_lasts() {
        let mut smooth = Smooth::default();
        assert!(near(smooth.look(1.0, 1_000, 10_000), 1.0));
        assert!(smooth.look(0.0, 2_000, 10_000) > 0.85);
        assert!(smooth.look(0.0, 60_000, 10_000) < 0.01);
    }
}
