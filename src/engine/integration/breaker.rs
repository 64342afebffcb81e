//! A circuit breaker: what fails again and again is left alone for a while, then tried with one call.

use std::time::Duration;

use tokio::time::Instant;

/// Failures in a row that open the circuit.
const FAILURES: u32 = 5;
/// How long it stays open the first time, and at most; each time it opens again without a success between, it is twice as long.
const OPEN: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60));

/// Whether calls go through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Circuit {
    /// They do.
    Closed,
    /// None does before that time.
    Open(Instant),
    /// One does; the others wait for how it ends.
    HalfOpen,
}

impl Circuit {
    /// As `getServiceRegistryIntegration().getStatus()` names it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open(_) => "open",
            Self::HalfOpen => "half-open",
        }
    }
}

/// Whether one call may be made now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Yes.
    Go,
    /// Not before the call that tries ended.
    Wait,
    /// Not now.
    No,
}

/// The state of one circuit.
#[derive(Debug)]
pub struct Breaker {
    circuit: Circuit,
    /// In a row.
    failures: u32,
    open_for: Duration,
    /// A call tries, while it is half-open.
    trying: bool,
}

impl Default for Breaker {
    fn default() -> Self {
        Self { circuit: Circuit::Closed, failures: 0, open_for: OPEN.0, trying: false }
    }
}

impl Breaker {
    /// As it is.
    pub fn circuit(&self) -> Circuit {
        self.circuit
    }

    /// Asks for one call. One that was let through is answered by [`Breaker::ended`] or [`Breaker::given_up`].
    pub fn admit(&mut self, now: Instant) -> Admission {
        match self.circuit {
            Circuit::Closed => Admission::Go,
            Circuit::Open(until) if now < until => Admission::No,
            Circuit::HalfOpen if self.trying => Admission::Wait,
            Circuit::Open(_) | Circuit::HalfOpen => {
                (self.circuit, self.trying) = (Circuit::HalfOpen, true);
                Admission::Go
            }
        }
    }

    /// A call ended. Answers whether the circuit changed.
    pub fn ended(&mut self, succeeded: bool, now: Instant) -> bool {
        let before = self.circuit;
        if succeeded {
            *self = Self::default();
        } else {
            self.failures = self.failures.saturating_add(1);
            match self.circuit {
                Circuit::HalfOpen if self.trying => {
                    self.open_for = (self.open_for * 2).min(OPEN.1);
                    self.open(now);
                }
                Circuit::Closed if self.failures >= FAILURES => self.open(now),
                // Of calls that were on their way when it opened.
                Circuit::Closed | Circuit::Open(_) | Circuit::HalfOpen => {}
            }
        }
        before != self.circuit
    }

    /// A call that was let through was not made after all.
    pub fn given_up(&mut self) {
        self.trying = false;
    }

    /// There is reason to try now: half-open, if it was open.
    pub fn hope(&mut self) {
        if let Circuit::Open(_) = self.circuit {
            (self.circuit, self.trying) = (Circuit::HalfOpen, false);
        }
    }

    fn open(&mut self, now: Instant) {
        (self.circuit, self.trying) = (Circuit::Open(now + self.open_for), false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after_failures(count: u32, now: Instant) -> Breaker {
        let mut breaker = Breaker::default();
        for _ in 0..count {
            assert_eq!(breaker.admit(now), Admission::Go);
            breaker.ended(false, now);
        }
        breaker
    }

    #[tokio::test(start_paused = true)]
    async fn failures_in_a_row_open_it_and_a_success_between_them_does_not() {
        let now = Instant::now();
        assert_eq!(after_failures(FAILURES - 1, now).circuit(), Circuit::Closed);
        assert_eq!(after_failures(FAILURES, now).circuit(), Circuit::Open(now + OPEN.0));
        let mut breaker = after_failures(FAILURES - 1, now);
        breaker.ended(true, now);
        breaker.ended(false, now);
        assert_eq!(breaker.circuit(), Circuit::Closed);
    }

    #[tokio::test(start_paused = true)]
    async fn an_open_one_lets_nothing_through_and_then_one_call() {
        let now = Instant::now();
        let mut breaker = after_failures(FAILURES, now);
        assert_eq!(breaker.admit(now + OPEN.0 - Duration::from_millis(1)), Admission::No);
        let later = now + OPEN.0;
        assert_eq!((breaker.admit(later), breaker.admit(later)), (Admission::Go, Admission::Wait));
        assert!(breaker.ended(true, later));
        assert_eq!((breaker.circuit(), breaker.admit(later)), (Circuit::Closed, Admission::Go));
    }

    #[tokio::test(start_paused = true)]
    async fn each_failed_trial_keeps_it_open_for_twice_as_long_up_to_a_bound() {
        let mut now = Instant::now();
        let mut breaker = after_failures(FAILURES, now);
        let mut waits = Vec::new();
        for _ in 0..8 {
            let Circuit::Open(until) = breaker.circuit() else { panic!("{breaker:?}") };
            waits.push((until - now).as_secs());
            now = until;
            assert_eq!(breaker.admit(now), Admission::Go);
            breaker.ended(false, now);
        }
        assert_eq!(waits, [2, 4, 8, 16, 32, 60, 60, 60]);
        breaker.admit(now + OPEN.1);
        breaker.ended(true, now);
        assert_eq!(after_failures(FAILURES, now).circuit(), Circuit::Open(now + OPEN.0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_trial_that_was_not_made_leaves_its_turn_to_another() {
        let now = Instant::now();
        let mut breaker = after_failures(FAILURES, now);
        breaker.hope();
        assert_eq!(breaker.admit(now), Admission::Go);
        breaker.given_up();
        assert_eq!((breaker.admit(now), breaker.admit(now)), (Admission::Go, Admission::Wait));
    }

    #[tokio::test(start_paused = true)]
    async fn late_failures_do_not_open_it_again() {
        let now = Instant::now();
        let mut breaker = after_failures(FAILURES, now);
        let until = breaker.circuit();
        assert!(!breaker.ended(false, now + Duration::from_secs(1)));
        assert_eq!(breaker.circuit(), until);
    }
}
