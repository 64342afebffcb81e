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
    /// Yes. It is answered by [`Breaker::ended`] or [`Breaker::given_up`].
    Go(Call),
    /// Not before the call that tries ended.
    Wait,
    /// Not now.
    No,
}

/// A call that was let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// Which time the circuit was open it tries to end; 0: it was closed.
    trial: u64,
}

/// The state of one circuit.
#[derive(Debug)]
pub struct Breaker {
    circuit: Circuit,
    /// In a row.
    failures: u32,
    open_for: Duration,
    /// The trial that is on its way, while it is half-open.
    trying: Option<u64>,
    /// Trials so far.
    trials: u64,
}

impl Default for Breaker {
    fn default() -> Self {
        Self { circuit: Circuit::Closed, failures: 0, open_for: OPEN.0, trying: None, trials: 0 }
    }
}

impl Breaker {
    /// As it is.
    pub fn circuit(&self) -> Circuit {
        self.circuit
    }

    /// Asks for one call.
    pub fn admit(&mut self, now: Instant) -> Admission {
        match self.circuit {
            Circuit::Closed => Admission::Go(Call { trial: 0 }),
            Circuit::Open(until) if now < until => Admission::No,
            Circuit::HalfOpen if self.trying.is_some() => Admission::Wait,
            Circuit::Open(_) | Circuit::HalfOpen => {
                self.trials += 1;
                (self.circuit, self.trying) = (Circuit::HalfOpen, Some(self.trials));
                Admission::Go(Call { trial: self.trials })
            }
        }
    }

    /// A call ended. Answers whether the circuit changed. Of calls from before it opened only a closed circuit learns something.
    pub fn ended(&mut self, call: Call, succeeded: bool, now: Instant) -> bool {
        let before = self.circuit;
        let is_trial = self.trying.is_some_and(|trial| trial == call.trial);
        match (succeeded, self.circuit) {
            (true, Circuit::Closed) => self.failures = 0,
            (true, Circuit::HalfOpen) if is_trial => *self = Self { trials: self.trials, ..Self::default() },
            (false, Circuit::HalfOpen) if is_trial => {
                self.open_for = (self.open_for * 2).min(OPEN.1);
                self.open(now);
            }
            (false, Circuit::Closed) if call.trial == 0 => {
                self.failures = self.failures.saturating_add(1);
                if self.failures >= FAILURES {
                    self.open(now);
                }
            }
            _ => {}
        }
        before != self.circuit
    }

    /// A call that was let through says nothing after all: another one tries.
    pub fn given_up(&mut self, call: Call) {
        if self.trying == Some(call.trial) {
            self.trying = None;
        }
    }

    /// There is reason to try now: half-open, if it was open.
    pub fn hope(&mut self) {
        if let Circuit::Open(_) = self.circuit {
            (self.circuit, self.trying) = (Circuit::HalfOpen, None);
        }
    }

    fn open(&mut self, now: Instant) {
        (self.circuit, self.trying, self.failures) = (Circuit::Open(now + self.open_for), None, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn go(breaker: &mut Breaker, now: Instant) -> Call {
        match breaker.admit(now) {
            Admission::Go(call) => call,
            other => panic!("{other:?}, {breaker:?}"),
        }
    }

    fn after_failures(count: u32, now: Instant) -> Breaker {
        let mut breaker = Breaker::default();
        for _ in 0..count {
            let call = go(&mut breaker, now);
            breaker.ended(call, false, now);
        }
        breaker
    }

    #[tokio::test(start_paused = true)]
    async fn failures_in_a_row_open_it_and_a_success_between_them_does_not() {
        let now = Instant::now();
        assert_eq!(after_failures(FAILURES - 1, now).circuit(), Circuit::Closed);
        assert_eq!(after_failures(FAILURES, now).circuit(), Circuit::Open(now + OPEN.0));
        let mut breaker = after_failures(FAILURES - 1, now);
        for succeeded in [true, false] {
            let call = go(&mut breaker, now);
            breaker.ended(call, succeeded, now);
        }
        assert_eq!(breaker.circuit(), Circuit::Closed);
    }

    #[tokio::test(start_paused = true)]
    async fn an_open_one_lets_nothing_through_and_then_one_call() {
        let now = Instant::now();
        let mut breaker = after_failures(FAILURES, now);
        assert_eq!(breaker.admit(now + OPEN.0 - Duration::from_millis(1)), Admission::No);
        let later = now + OPEN.0;
        let call = go(&mut breaker, later);
        assert_eq!(breaker.admit(later), Admission::Wait);
        assert!(breaker.ended(call, true, later));
        assert_eq!(breaker.circuit(), Circuit::Closed);
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
            let call = go(&mut breaker, now);
            breaker.ended(call, false, now);
        }
        assert_eq!(waits, [2, 4, 8, 16, 32, 60, 60, 60]);
        let call = go(&mut breaker, now + OPEN.1);
        breaker.ended(call, true, now);
        assert_eq!(after_failures(FAILURES, now).circuit(), Circuit::Open(now + OPEN.0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_trial_that_says_nothing_leaves_its_turn_to_another() {
        let now = Instant::now();
        let mut breaker = after_failures(FAILURES, now);
        breaker.hope();
        let first = go(&mut breaker, now);
        breaker.given_up(first);
        let second = go(&mut breaker, now);
        breaker.given_up(first);
        assert_eq!(breaker.admit(now), Admission::Wait, "the first is no trial any more");
        assert!(breaker.ended(second, true, now));
    }

    #[tokio::test(start_paused = true)]
    async fn calls_from_before_it_opened_decide_nothing() {
        let now = Instant::now();
        let mut breaker = Breaker::default();
        let (early, other) = (go(&mut breaker, now), go(&mut breaker, now));
        for _ in 0..FAILURES {
            let call = go(&mut breaker, now);
            breaker.ended(call, false, now);
        }
        let open = breaker.circuit();
        assert!(!breaker.ended(early, false, now + Duration::from_secs(1)) && breaker.circuit() == open);
        let trial = go(&mut breaker, now + OPEN.0);
        assert!(!breaker.ended(other, false, now) && !breaker.ended(other, true, now));
        breaker.given_up(other);
        assert_eq!((breaker.circuit(), breaker.admit(now)), (Circuit::HalfOpen, Admission::Wait));
        assert!(breaker.ended(trial, true, now));
    }
}
