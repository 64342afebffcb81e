//! When a failed delivery is tried again.

use super::event::{Jitter, RetryOverride};

/// Complete retry settings.
#[derive(Clone, Debug, PartialEq)]
pub struct RetryPolicy {
    /// Deliveries after the first one; 0 = never retry.
    pub max_attempts: u32,
    /// Delay before the first retry, ms.
    pub initial_delay_ms: f64,
    /// Factor from one delay to the next.
    pub backoff_multiplier: f64,
    /// Longest delay, ms.
    pub delay_ms_max: f64,
    /// Spread.
    pub jitter: Jitter,
}

impl RetryPolicy {
    /// These settings with those of `over` in force, key by key.
    #[must_use]
    pub fn with(&self, over: Option<&RetryOverride>) -> Self {
        let Some(over) = over else { return self.clone() };
        Self {
            max_attempts: over.max_attempts.unwrap_or(self.max_attempts),
            initial_delay_ms: over.initial_delay.unwrap_or(self.initial_delay_ms),
            backoff_multiplier: over.backoff_multiplier.unwrap_or(self.backoff_multiplier),
            delay_ms_max: over.max_delay.unwrap_or(self.delay_ms_max),
            jitter: over.jitter.unwrap_or(self.jitter),
        }
    }

    /// Delay before the next delivery after `failures` failed ones, ms; `None` when there is no next one.
    /// `random` is in `0.0..1.0`.
    pub fn next_delay_ms(&self, failures: u32, random: f64) -> Option<u64> {
        if failures > self.max_attempts {
            return None;
        }
        let exponent = i32::try_from(failures.saturating_sub(1)).unwrap_or(i32::MAX);
        let full = (self.initial_delay_ms * self.backoff_multiplier.powi(exponent)).min(self.delay_ms_max);
        let delay = match self.jitter {
            Jitter::None => full,
            Jitter::Full => full * random,
            Jitter::Equal => full * (0.5 + random / 2.0),
        };
        // NaN (0 × infinity) and negatives become 0 in the cast, which saturates.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        Some(delay.round() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(jitter: Jitter) -> RetryPolicy {
        RetryPolicy { max_attempts: 3, initial_delay_ms: 100.0, backoff_multiplier: 2.0, delay_ms_max: 350.0, jitter }
    }

    #[test]
    fn delays_double_up_to_the_maximum_and_then_end() {
        let delays: Vec<_> = (1..=4).map(|n| policy(Jitter::None).next_delay_ms(n, 0.9)).collect();
        assert_eq!(delays, [Some(100), Some(200), Some(350), None]);
    }

    #[test]
    fn jitter_spreads_within_its_range() {
        assert_eq!(policy(Jitter::Full).next_delay_ms(2, 0.0), Some(0));
        assert_eq!(policy(Jitter::Full).next_delay_ms(2, 0.5), Some(100));
        assert_eq!(policy(Jitter::Equal).next_delay_ms(2, 0.0), Some(100));
        assert_eq!(policy(Jitter::Equal).next_delay_ms(2, 0.999), Some(200));
    }

    #[test]
    fn huge_exponents_do_not_overflow() {
        let policy = RetryPolicy { max_attempts: u32::MAX, ..policy(Jitter::None) };
        assert_eq!(policy.next_delay_ms(u32::MAX, 0.0), Some(350));
        let still = RetryPolicy { backoff_multiplier: 0.0, initial_delay_ms: 0.0, ..policy };
        assert_eq!(still.next_delay_ms(5000, 0.0), Some(0));
    }

    #[test]
    fn overrides_win_key_by_key() {
        let over = RetryOverride { max_attempts: Some(9), ..RetryOverride::default() };
        let merged = policy(Jitter::None).with(Some(&over));
        assert_eq!((merged.max_attempts, merged.initial_delay_ms), (9, 100.0));
    }
}
