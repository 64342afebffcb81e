//! A circuit breaker for one agent: while too many of its tasks fail it gets none, then one to try it with.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// Calls that are remembered.
const CALLS_MAX: usize = 1_000;

/// `circuitBreaker` of the configuration.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rules {
    /// Share of failures that opens it, 0 to 1.
    pub failure_threshold: f64,
    /// Time over which they are counted, ms.
    pub monitoring_period_ms: u64,
    /// Fewest tasks in that time by which it is judged.
    pub minimum_calls: u32,
    /// How long it stays open, ms.
    pub reset_timeout_ms: u64,
}

/// Whether an agent gets tasks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It does.
    #[default]
    Closed,
    /// It gets none.
    Open,
    /// It gets one: how that ends decides.
    HalfOpen,
}

impl State {
    /// As in the public contract.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half-open",
        }
    }
}

/// The circuit of one agent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Circuit {
    state: State,
    /// When an open one is tried, ms since 1970.
    #[serde(default)]
    until_ms: u64,
    /// The task that tries it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    trial: Option<String>,
    /// When tasks ended, and whether they failed; the oldest first. Not kept beyond this process.
    #[serde(skip)]
    calls: VecDeque<(u64, bool)>,
    #[serde(skip)]
    failures: u32,
}

impl Circuit {
    /// As it is.
    pub fn state(&self) -> State {
        self.state
    }

    /// Whether one more task may be given.
    pub fn admits(&self) -> bool {
        match self.state {
            State::Closed => true,
            State::Open => false,
            State::HalfOpen => self.trial.is_none(),
        }
    }

    /// A task is given.
    pub fn given(&mut self, task: &str) {
        if self.state == State::HalfOpen {
            self.trial = Some(task.to_owned());
        }
    }

    /// A task ended. What was given before it opened says nothing of how it is now.
    pub fn ended(&mut self, task: &str, failed: bool, now_ms: u64, rules: &Rules) {
        match self.state {
            State::Closed => {
                self.note(failed, now_ms, rules);
                if failed && self.is_too_much(rules) {
                    self.open(now_ms, rules);
                }
            }
            State::HalfOpen if self.trial.as_deref() == Some(task) => {
                if failed {
                    self.open(now_ms, rules);
                } else {
                    *self = Self::default();
                }
            }
            State::Open | State::HalfOpen => {}
        }
    }

    /// A task was taken away without saying anything of the agent.
    pub fn given_up(&mut self, task: &str) {
        if self.trial.as_deref() == Some(task) {
            self.trial = None;
        }
    }

    /// As it was found in the store. What tried it is perhaps not with it any more.
    pub fn found(&mut self, has: impl Fn(&str) -> bool) {
        self.trial.take_if(|task| !has(task));
    }

    /// Time passed.
    pub fn look(&mut self, now_ms: u64) {
        if self.state == State::Open && now_ms >= self.until_ms {
            (self.state, self.trial) = (State::HalfOpen, None);
        }
    }

    fn open(&mut self, now_ms: u64, rules: &Rules) {
        *self = Self { state: State::Open, until_ms: now_ms.saturating_add(rules.reset_timeout_ms), ..Self::default() };
    }

    fn note(&mut self, failed: bool, now_ms: u64, rules: &Rules) {
        let since = now_ms.saturating_sub(rules.monitoring_period_ms);
        while self.calls.front().is_some_and(|(at_ms, _)| *at_ms < since) || self.calls.len() >= CALLS_MAX {
            self.failures -= u32::from(self.calls.pop_front().is_some_and(|(_, failed)| failed));
        }
        self.calls.push_back((now_ms, failed));
        self.failures += u32::from(failed);
    }

    #[allow(clippy::cast_precision_loss)] // at most CALLS_MAX
    fn is_too_much(&self, rules: &Rules) -> bool {
        self.calls.len() as u64 >= u64::from(rules.minimum_calls)
            && f64::from(self.failures) / self.calls.len() as f64 >= rules.failure_threshold
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Rules = Rules { failure_threshold: 0.5, monitoring_period_ms: 10_000, minimum_calls: 4, reset_timeout_ms: 30_000 };

    fn after(ended: &[(u64, bool)]) -> Circuit {
        let mut circuit = Circuit::default();
        for (at_ms, failed) in ended {
            circuit.ended("t", *failed, *at_ms, &RULES);
        }
        circuit
    }

    #[test]
    fn it_opens_at_the_share_of_failures_and_not_before_there_are_enough_calls() {
        assert_eq!(after(&[(0, true), (1, true), (2, true)]).state(), State::Closed, "three are too few");
        assert_eq!(after(&[(0, false), (1, false), (2, true), (3, true)]).state(), State::Open);
        assert_eq!(after(&[(0, false), (1, false), (2, false), (3, true), (4, true)]).state(), State::Closed);
    }

    #[test]
    fn what_is_older_than_the_period_does_not_count() {
        assert_eq!(after(&[(0, true), (1, true), (2, true), (10_500, true)]).state(), State::Closed);
        assert_eq!(after(&[(501, true), (502, true), (503, true), (10_500, true)]).state(), State::Open);
    }

    #[test]
    fn one_task_tries_it_and_decides() {
        let mut circuit = after(&[(0, true); 4]);
        assert!(!circuit.admits());
        circuit.look(29_999);
        assert_eq!(circuit.state(), State::Open);
        circuit.look(30_000);
        assert!(circuit.state() == State::HalfOpen && circuit.admits());
        circuit.given("trial");
        assert!(!circuit.admits(), "one at a time");
        circuit.ended("another, from before", false, 30_001, &RULES);
        assert_eq!(circuit.state(), State::HalfOpen);
        let mut failed = circuit.clone();
        failed.ended("trial", true, 31_000, &RULES);
        failed.look(60_999);
        assert_eq!(failed.state(), State::Open);
        circuit.ended("trial", false, 31_000, &RULES);
        assert_eq!(circuit, Circuit::default());
    }

    #[test]
    fn a_trial_that_was_taken_away_makes_room_for_another() {
        let mut circuit = after(&[(0, true); 4]);
        circuit.look(30_000);
        circuit.given("trial");
        circuit.given_up("another");
        assert!(!circuit.admits());
        circuit.given_up("trial");
        assert!(circuit.admits());
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut circuit = Circuit::default();
        (0..10_000).for_each(|_| circuit.ended("t", false, 5, &RULES));
        assert!(circuit.calls.len() <= CALLS_MAX && circuit.failures == 0);
    }
}
