//! What becomes of a delivery. The one place where that is decided.

use super::event::RetryOverride;
use super::options::{ErrorStrategy, NackOptions};
use super::retry::RetryPolicy;
use super::store::{DeadReason, Disposal};

/// How a handler ended without success.
#[derive(Clone, Debug, PartialEq)]
pub enum Failure {
    /// It threw.
    Error(String),
    /// It threw an error marked as permanent.
    Permanent(String),
    /// It took longer than `consumerTimeout`.
    TimedOut(String),
    /// It said `nack()`.
    Nack(NackOptions),
    /// The data is not JSON.
    Malformed(String),
}

impl Failure {
    /// The error's text.
    pub fn text(&self) -> &str {
        match self {
            Self::Error(text) | Self::Permanent(text) | Self::TimedOut(text) | Self::Malformed(text) => text,
            Self::Nack(options) => options.reason.as_deref().unwrap_or("not acknowledged (nack)"),
        }
    }
}

/// What a failed delivery is judged by.
pub struct Case<'a> {
    /// `errorStrategy` of the subscription whose handler failed.
    pub strategy: ErrorStrategy,
    /// Retry settings of that subscription over the bus's defaults.
    pub policy: &'a RetryPolicy,
    /// Retry settings of the event: they win.
    pub event_retry: Option<&'a RetryOverride>,
    /// Deliveries so far, this one included.
    pub deliveries: u32,
    /// How many of them ended with the death of a process: bounded apart.
    pub crashes: u32,
    /// In `0.0..1.0`, for the jitter.
    pub random: f64,
}

/// Judges one failed handler.
pub fn judge(failure: &Failure, case: &Case<'_>) -> Disposal {
    let error = failure.text().to_owned();
    let dead = |reason| Disposal::DeadLetter { reason, error: error.clone(), attempts: case.deliveries };
    let retry = |delay: Option<u64>| {
        let failures = case.deliveries.saturating_sub(case.crashes).max(1);
        match case.policy.with(case.event_retry).next_delay_ms(failures, case.random) {
            Some(backoff) => Disposal::Retry { delay_ms: delay.unwrap_or(backoff), error: error.clone() },
            None => dead(DeadReason::MaxAttempts),
        }
    };
    match (failure, case.strategy) {
        (Failure::Malformed(_), _) => dead(DeadReason::Malformed),
        (Failure::Nack(options), _) if options.dead_letter => dead(DeadReason::Handler),
        // 'ignore' never redelivers, whatever the handler did.
        (_, ErrorStrategy::Ignore) => Disposal::Acknowledge,
        (Failure::Nack(options), _) => retry(options.delay_ms),
        (Failure::Permanent(_), _) => dead(DeadReason::Permanent),
        (_, ErrorStrategy::DeadLetter) => dead(DeadReason::Handler),
        (Failure::Error(_) | Failure::TimedOut(_), ErrorStrategy::Retry) => retry(None),
    }
}

/// One disposal for an event that several handlers failed: again if one of them may try again, at the latest of their
/// times; else the first dead letter; else done.
pub fn combine(disposals: Vec<Disposal>) -> Disposal {
    let mut out = Disposal::Acknowledge;
    for next in disposals {
        out = match (out, next) {
            (Disposal::Retry { delay_ms: a, error }, Disposal::Retry { delay_ms: b, .. }) => Disposal::Retry { delay_ms: a.max(b), error },
            (kept @ Disposal::Retry { .. }, _)
            | (kept @ Disposal::DeadLetter { .. }, Disposal::Acknowledge | Disposal::DeadLetter { .. }) => kept,
            (_, next) => next,
        };
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::event::Jitter;

    fn policy() -> RetryPolicy {
        RetryPolicy { max_attempts: 2, initial_delay_ms: 100.0, backoff_multiplier: 2.0, delay_ms_max: 1000.0, jitter: Jitter::None }
    }

    fn case(policy: &RetryPolicy, strategy: ErrorStrategy, deliveries: u32, crashes: u32) -> Case<'_> {
        Case { strategy, policy, event_retry: None, deliveries, crashes, random: 0.0 }
    }

    fn reason(disposal: &Disposal) -> Option<DeadReason> {
        match disposal {
            Disposal::DeadLetter { reason, .. } => Some(*reason),
            _ => None,
        }
    }

    #[test]
    fn a_failure_is_retried_and_then_dead_lettered() {
        let policy = policy();
        let failed = Failure::Error("boom".into());
        for (deliveries, delay) in [(1, Some(100)), (2, Some(200)), (3, None)] {
            let disposal = judge(&failed, &case(&policy, ErrorStrategy::Retry, deliveries, 0));
            match delay {
                Some(delay_ms) => assert_eq!(disposal, Disposal::Retry { delay_ms, error: "boom".into() }),
                None => assert_eq!(reason(&disposal), Some(DeadReason::MaxAttempts)),
            }
        }
    }

    #[test]
    fn crashes_do_not_use_up_the_attempts() {
        let policy = policy();
        let disposal = judge(&Failure::Error("boom".into()), &case(&policy, ErrorStrategy::Retry, 4, 2));
        assert_eq!(disposal, Disposal::Retry { delay_ms: 200, error: "boom".into() });
    }

    #[test]
    fn the_events_own_settings_win() {
        let policy = policy();
        let own = RetryOverride { max_attempts: Some(0), ..RetryOverride::default() };
        let case = Case { event_retry: Some(&own), ..case(&policy, ErrorStrategy::Retry, 1, 0) };
        assert_eq!(reason(&judge(&Failure::TimedOut("slow".into()), &case)), Some(DeadReason::MaxAttempts));
    }

    #[test]
    fn strategies_and_nack() {
        let policy = policy();
        let error = Failure::Error("x".into());
        let nack = |delay_ms, dead_letter| Failure::Nack(NackOptions { delay_ms, dead_letter, reason: None });
        let judge = |failure: &Failure, strategy| judge(failure, &case(&policy, strategy, 1, 0));
        assert_eq!(reason(&judge(&error, ErrorStrategy::DeadLetter)), Some(DeadReason::Handler));
        assert_eq!(judge(&error, ErrorStrategy::Ignore), Disposal::Acknowledge);
        assert!(matches!(judge(&nack(Some(7), false), ErrorStrategy::DeadLetter), Disposal::Retry { delay_ms: 7, .. }));
        assert_eq!(judge(&nack(Some(7), false), ErrorStrategy::Ignore), Disposal::Acknowledge);
        assert_eq!(reason(&judge(&nack(None, true), ErrorStrategy::Ignore)), Some(DeadReason::Handler));
        assert_eq!(reason(&judge(&Failure::Permanent("p".into()), ErrorStrategy::Retry)), Some(DeadReason::Permanent));
        assert_eq!(reason(&judge(&Failure::Malformed("m".into()), ErrorStrategy::Ignore)), Some(DeadReason::Malformed));
    }

    #[test]
    fn several_failures_become_one_disposal() {
        let retry = |delay_ms| Disposal::Retry { delay_ms, error: "e".into() };
        let dead = Disposal::DeadLetter { reason: DeadReason::Handler, error: "d".into(), attempts: 1 };
        assert_eq!(combine(vec![retry(1), dead.clone(), retry(5)]), retry(5));
        assert_eq!(combine(vec![Disposal::Acknowledge, dead.clone()]), dead);
        assert_eq!(combine(vec![dead.clone(), Disposal::Acknowledge]), dead);
        assert_eq!(combine(vec![dead, retry(3)]), retry(3));
        assert_eq!(combine(vec![Disposal::Acknowledge]), Disposal::Acknowledge);
    }
}
