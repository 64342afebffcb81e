//! How a bus is, in one word, and by what that is judged.

use std::collections::VecDeque;
use std::sync::Mutex;

use super::config::HealthCheck;
use super::env::lock;

/// Percent of failed deliveries over five minutes from which a bus counts as degraded.
const DEGRADED_ERROR_RATE: f64 = 5.0;
/// Percent of the pool in use from which a bus counts as degraded.
const DEGRADED_UTILIZATION: f64 = 90.0;
/// Fewer events do not make a bus unhealthy by how they went.
const EVENTS_MIN: u64 = 5;
/// Checks that are remembered.
const HISTORY_MAX: usize = 100;

/// How something is, the best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Health {
    /// Nothing is wrong.
    Healthy,
    /// It works, and somebody should look.
    Degraded,
    /// It does not do its work.
    Unhealthy,
}

impl Health {
    /// As in the public contract.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// What health is judged by.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reading {
    /// The server answers, and no defect ended a part of the bus.
    pub works: bool,
    /// Deliveries of the last five minutes.
    pub deliveries: u64,
    /// Those that failed, percent.
    pub error_rate_percent: f64,
    /// First calls of handlers in that time.
    pub calls: u64,
    /// From an event's entry in its stream to the end of its handlers, ms on average over five minutes.
    pub latency_ms: f64,
    /// Places of the connection pool in use, percent.
    pub utilization_percent: f64,
    /// Memory of the process, percent of what it may have; `None` where nobody measures it.
    pub memory_percent: Option<f64>,
}

/// From where on a bus does not do its work, though the server is there: `monitoring.healthCheck.criticalThresholds`.
#[derive(Clone, Copy, Debug)]
pub struct Critical {
    error_rate_percent: f64,
    latency_ms: f64,
    memory_percent: f64,
}

impl From<&HealthCheck> for Critical {
    fn from(config: &HealthCheck) -> Self {
        Self {
            error_rate_percent: config.critical_error_rate_percent,
            latency_ms: config.critical_latency_ms,
            memory_percent: config.critical_memory_usage_percent,
        }
    }
}

impl Critical {
    /// What is beyond its threshold, for people.
    pub fn problems(&self, reading: &Reading) -> Vec<String> {
        let memory = reading.memory_percent.unwrap_or(0.0);
        let error_rate = if reading.deliveries < EVENTS_MIN { 0.0 } else { reading.error_rate_percent };
        let latency = if reading.calls < EVENTS_MIN { 0.0 } else { reading.latency_ms };
        let figures = [
            ("of the deliveries failed", "%", error_rate, self.error_rate_percent),
            ("from an event's entry to the end of its handlers", "ms", latency, self.latency_ms),
            ("of the memory is in use", "%", memory, self.memory_percent),
        ];
        let beyond = figures.iter().filter(|(_, _, value, limit)| value > limit);
        beyond.map(|(what, unit, value, limit)| format!("{value:.1} {unit} {what}; more than {limit} {unit} is critical")).collect()
    }
}

/// One word.
pub fn grade(reading: &Reading, critical: Option<&Critical>) -> Health {
    if !reading.works || critical.is_some_and(|critical| !critical.problems(reading).is_empty()) {
        Health::Unhealthy
    } else if reading.error_rate_percent > DEGRADED_ERROR_RATE || reading.utilization_percent > DEGRADED_UTILIZATION {
        Health::Degraded
    } else {
        Health::Healthy
    }
}

/// What periodic checks found: when, ms since 1970, and what.
#[derive(Default)]
pub struct History(Mutex<VecDeque<(u64, Health)>>);

impl History {
    /// Notes a check; answers what was before where that was different. Before the first one, all was well.
    pub fn note(&self, at_ms: u64, health: Health) -> Option<Health> {
        let mut checks = lock(&self.0);
        let before = checks.back().map_or(Health::Healthy, |(_, health)| *health);
        checks.push_back((at_ms, health));
        if checks.len() > HISTORY_MAX {
            checks.pop_front();
        }
        (before != health).then_some(before)
    }

    /// The checks that are remembered, the oldest first.
    pub fn checks(&self) -> Vec<(u64, Health)> {
        lock(&self.0).iter().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: Reading = Reading {
        works: true,
        deliveries: 5,
        error_rate_percent: 0.0,
        calls: 5,
        latency_ms: 1.0,
        utilization_percent: 10.0,
        memory_percent: Some(50.0),
    };
    const CRITICAL: Critical = Critical { error_rate_percent: 25.0, latency_ms: 5000.0, memory_percent: 95.0 };

    #[test]
    fn one_word_for_all() {
        let of = |reading: Reading| grade(&reading, Some(&CRITICAL));
        assert_eq!(of(GOOD), Health::Healthy);
        assert_eq!(of(Reading { error_rate_percent: 6.0, ..GOOD }), Health::Degraded);
        assert_eq!(of(Reading { utilization_percent: 91.0, ..GOOD }), Health::Degraded);
        for bad in [
            Reading { works: false, ..GOOD },
            Reading { error_rate_percent: 26.0, ..GOOD },
            Reading { latency_ms: 5001.0, ..GOOD },
            Reading { memory_percent: Some(96.0), ..GOOD },
        ] {
            assert_eq!(of(bad), Health::Unhealthy, "{bad:?}");
        }
        assert_eq!(grade(&Reading { error_rate_percent: 26.0, ..GOOD }, None), Health::Degraded);
        assert_eq!(of(Reading { deliveries: 4, error_rate_percent: 100.0, ..GOOD }), Health::Degraded, "few say little");
        assert_eq!(of(Reading { memory_percent: None, ..GOOD }), Health::Healthy);
    }

    #[test]
    fn changes_are_told_once_and_the_history_is_bounded() {
        let history = History::default();
        assert_eq!(history.note(1, Health::Healthy), None);
        assert_eq!(history.note(1, Health::Unhealthy), Some(Health::Healthy));
        assert_eq!(history.note(1, Health::Unhealthy), None);
        for _ in 0..200 {
            history.note(1, Health::Healthy);
        }
        assert_eq!(history.checks().len(), HISTORY_MAX);
    }
}
