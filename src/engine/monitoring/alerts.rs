//! When an alert is raised and when it is over: no I/O, no clock.

use serde_json::{Value, json};

use crate::engine::config::{Alerting, HealthCheck};

/// An alert is over when its figure came back from the threshold by this share of it …
const BACK: f64 = 0.1;
/// … in so many evaluations in a row.
const CALM: u32 = 2;
/// Fewer events in the window say nothing of all.
const EVENTS_MIN: u64 = 5;

/// What is watched. The order is that in which alerts are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Watched {
    /// Failed deliveries over the window, percent.
    ErrorRate,
    /// From an event's entry in its stream to the end of its handlers, ms on average over the window.
    Latency,
    /// Events that wait in this process's groups.
    QueueDepth,
    /// Events a second over the window.
    Throughput,
    /// Memory of the process, percent of what it may have.
    MemoryUsage,
    /// Places of the connection pool in use, percent, on average since the evaluation before.
    ConnectionUtilization,
}

impl Watched {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::ErrorRate, Self::Latency, Self::QueueDepth, Self::Throughput, Self::MemoryUsage, Self::ConnectionUtilization];

    /// `metric` of the alert.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ErrorRate => "errorRate",
            Self::Latency => "latency",
            Self::QueueDepth => "queueDepth",
            Self::Throughput => "throughput",
            Self::MemoryUsage => "memoryUsage",
            Self::ConnectionUtilization => "connectionUtilization",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::ErrorRate => "Many deliveries fail",
            Self::Latency => "Events are handled late",
            Self::QueueDepth => "Many events wait",
            Self::Throughput => "Few events pass",
            Self::MemoryUsage => "Memory runs short",
            Self::ConnectionUtilization => "The connection pool runs short",
        }
    }

    fn describe(self, value: f64, threshold: f64) -> String {
        let value = (value * 10.0).round() / 10.0;
        match self {
            Self::ErrorRate => format!("{value} % of the deliveries failed, more than {threshold} %"),
            Self::Latency => format!("Events are done {value} ms after they were stored, on average; that is more than {threshold} ms"),
            Self::QueueDepth => format!("{value} events wait for the groups of this process, more than {threshold}"),
            Self::Throughput => format!("{value} events a second pass, fewer than {threshold}"),
            Self::MemoryUsage => format!("The process uses {value} % of the memory it may have, more than {threshold} %"),
            Self::ConnectionUtilization => format!("{value} % of the places for commands are in use, more than {threshold} %"),
        }
    }

    fn describe_end(self, value: f64, threshold: f64) -> String {
        let value = (value * 10.0).round() / 10.0;
        let (what, unit) = match self {
            Self::ErrorRate => ("Failed deliveries", " %"),
            Self::Latency => ("The time until events are done", " ms on average"),
            Self::QueueDepth => ("Events that wait", ""),
            Self::Throughput => ("Events that pass", " a second"),
            Self::MemoryUsage => ("Memory in use", " %"),
            Self::ConnectionUtilization => ("Places for commands in use", " %"),
        };
        format!("{what}: {value}{unit} again; the threshold is {threshold}{unit}")
    }

    /// Less is worse.
    fn is_minimum(self) -> bool {
        self == Self::Throughput
    }
}

/// Figures of one evaluation; `None`: there is none to judge by.
#[derive(Clone, Copy, Debug, Default)]
#[allow(missing_docs)] // as in [`Watched`]
pub struct Readings {
    /// Deliveries in the window, and how many of them failed.
    pub deliveries: u64,
    pub error_rate_percent: f64,
    /// First calls of handlers in the window, from which the latency is.
    pub calls: u64,
    pub latency_ms: f64,
    pub queue_depth: Option<u64>,
    pub throughput: Option<f64>,
    pub memory_percent: Option<f64>,
    pub utilization_percent: f64,
}

impl Readings {
    /// A figure of so many events. A few say little. None at all are calm, unless there is something that waits to be handled.
    fn judged(&self, events: u64, figure: f64) -> Option<f64> {
        match events {
            0 => self.queue_depth.is_some_and(|depth| depth == 0).then_some(0.0),
            1..EVENTS_MIN => None,
            _ => Some(figure),
        }
    }

    fn of(&self, watched: Watched) -> Option<f64> {
        match watched {
            Watched::ErrorRate => self.judged(self.deliveries, self.error_rate_percent),
            Watched::Latency => self.judged(self.calls, self.latency_ms),
            #[allow(clippy::cast_precision_loss)] // a count to compare
            Watched::QueueDepth => self.queue_depth.map(|depth| depth as f64),
            Watched::Throughput => self.throughput,
            Watched::MemoryUsage => self.memory_percent,
            Watched::ConnectionUtilization => Some(self.utilization_percent),
        }
    }
}

/// How severe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// To be looked at.
    Warning,
    /// Beyond what health calls critical.
    Critical,
}

impl Severity {
    /// As in the public contract.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// One episode.
#[derive(Clone, Debug, PartialEq)]
pub struct Alert {
    /// Names the episode.
    pub id: String,
    /// What is watched.
    pub watched: Watched,
    /// The worst it was.
    pub severity: Severity,
    /// When it was raised, ms since 1970.
    pub at_ms: u64,
    /// As last evaluated.
    pub value: f64,
    /// What it must not pass.
    pub threshold: f64,
    calm: u32,
    is_over: bool,
}

impl Alert {
    fn description(&self) -> String {
        if self.is_over { self.watched.describe_end(self.value, self.threshold) } else { self.watched.describe(self.value, self.threshold) }
    }

    /// `AlertEvent` with times as ms; `context` is where it is so.
    pub fn view(&self, context: &Value) -> Value {
        json!({
            "id": self.id,
            "severity": self.severity.as_str(),
            "title": self.watched.title(),
            "description": self.description(),
            "timestamp": self.at_ms,
            "metric": self.watched.as_str(),
            "currentValue": self.value,
            "threshold": self.threshold,
            "context": context,
        })
    }
}

/// What an evaluation found.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// An episode began.
    Triggered(Alert),
    /// It is over.
    Resolved(Alert),
}

/// A threshold, and from where on it is critical.
struct Threshold {
    watched: Watched,
    limit: f64,
    critical: Option<f64>,
}

/// All thresholds and the alerts that are raised.
pub struct Alerts {
    thresholds: Vec<Threshold>,
    active: Vec<Alert>,
}

impl Alerts {
    /// None raised.
    #[allow(clippy::cast_precision_loss)] // a threshold to compare with
    pub fn new(alerting: &Alerting, health: &HealthCheck) -> Self {
        let of = |watched, limit: f64, critical| Threshold { watched, limit, critical };
        let thresholds = vec![
            of(Watched::ErrorRate, alerting.error_rate_max_percent, Some(health.critical_error_rate_percent)),
            of(Watched::Latency, alerting.latency_ms_max, Some(health.critical_latency_ms)),
            of(Watched::QueueDepth, alerting.queue_depth_max as f64, None),
            of(Watched::Throughput, alerting.throughput_min, None),
            of(Watched::MemoryUsage, alerting.memory_usage_max_percent, Some(health.critical_memory_usage_percent)),
            of(Watched::ConnectionUtilization, alerting.connection_utilization_max_percent, None),
        ];
        // Without a minimum none can be missed.
        let thresholds = thresholds.into_iter().filter(|threshold| !threshold.watched.is_minimum() || threshold.limit > 0.0).collect();
        Self { thresholds, active: Vec::new() }
    }

    /// Those that are raised, oldest first.
    pub fn active(&self) -> &[Alert] {
        &self.active
    }

    /// Judges figures. Once an episode it is told that it began, and that it is over; what lies between changes the alert only.
    pub fn evaluate(&mut self, readings: &Readings, now_ms: u64, mut new_id: impl FnMut() -> String) -> Vec<Change> {
        let mut changes = Vec::new();
        for Threshold { watched, limit, critical } in &self.thresholds {
            let Some(value) = readings.of(*watched) else { continue };
            let (is_beyond, is_back) = if watched.is_minimum() {
                (value < *limit, value >= limit * (1.0 + BACK))
            } else {
                (value > *limit, value <= limit * (1.0 - BACK))
            };
            let severity = if critical.is_some_and(|critical| value > critical) { Severity::Critical } else { Severity::Warning };
            let Some(at) = self.active.iter().position(|alert| alert.watched == *watched) else {
                if is_beyond {
                    let alert = Alert {
                        id: new_id(),
                        watched: *watched,
                        severity,
                        at_ms: now_ms,
                        value,
                        threshold: *limit,
                        calm: 0,
                        is_over: false,
                    };
                    self.active.push(alert.clone());
                    changes.push(Change::Triggered(alert));
                }
                continue;
            };
            let alert = &mut self.active[at];
            alert.value = value;
            if severity == Severity::Critical {
                alert.severity = severity;
            }
            alert.calm = if is_back { alert.calm + 1 } else { 0 };
            if alert.calm >= CALM {
                let over = self.active.remove(at);
                changes.push(Change::Resolved(Alert { is_over: true, ..over }));
            }
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::engine::config::OssaConfig;

    fn alerts(thresholds: &Value) -> Alerts {
        let config = json!({ "monitoring": { "alerting": { "thresholds": thresholds } } });
        let monitoring = OssaConfig::from_resolved(&config).unwrap().monitoring;
        Alerts::new(&monitoring.alerting, &monitoring.health_check)
    }

    fn told(alerts: &mut Alerts, readings: Readings) -> Vec<String> {
        let changes = alerts.evaluate(&readings, 7, || "id".to_owned());
        let word = |change: &Change| match change {
            Change::Triggered(alert) => format!("+{} {}", alert.watched.as_str(), alert.severity.as_str()),
            Change::Resolved(alert) => format!("-{}", alert.watched.as_str()),
        };
        changes.iter().map(word).collect()
    }

    fn failing(percent: f64) -> Readings {
        Readings { deliveries: 100, error_rate_percent: percent, ..Readings::default() }
    }

    #[test]
    fn each_threshold_raises_its_own_alert() {
        let mut alerts = alerts(&json!({ "minThroughput": 10 }));
        let bad = Readings {
            deliveries: 100,
            error_rate_percent: 5.1,
            calls: 100,
            latency_ms: 1001.0,
            queue_depth: Some(1001),
            throughput: Some(9.9),
            memory_percent: Some(85.1),
            utilization_percent: 90.1,
        };
        let all = Watched::ALL.map(|watched| format!("+{} warning", watched.as_str()));
        assert_eq!(told(&mut alerts, bad), all);
        assert_eq!(told(&mut alerts, bad), Vec::<String>::new(), "once an episode");
        let good = Readings { throughput: Some(11.0), queue_depth: Some(0), memory_percent: Some(10.0), ..Readings::default() };
        assert_eq!(told(&mut alerts, good), Vec::<String>::new(), "once may be chance");
        assert_eq!(told(&mut alerts, good), Watched::ALL.map(|watched| format!("-{}", watched.as_str())));
        assert!(alerts.active().is_empty());
    }

    #[test]
    fn at_the_threshold_nothing_is_wrong() {
        let mut alerts = alerts(&json!({ "minThroughput": 10 }));
        let edge = Readings {
            deliveries: 100,
            error_rate_percent: 5.0,
            calls: 100,
            latency_ms: 1000.0,
            queue_depth: Some(1000),
            throughput: Some(10.0),
            memory_percent: Some(85.0),
            utilization_percent: 90.0,
        };
        assert_eq!(told(&mut alerts, edge), Vec::<String>::new());
    }

    #[test]
    fn a_figure_that_swings_around_the_threshold_is_one_episode() {
        let mut alerts = alerts(&json!({}));
        assert_eq!(told(&mut alerts, failing(6.0)), ["+errorRate warning"]);
        for percent in [4.9, 5.1, 4.6, 4.9, 4.0, 4.9, 4.0] {
            assert_eq!(told(&mut alerts, failing(percent)), Vec::<String>::new(), "{percent}");
        }
        assert_eq!(told(&mut alerts, failing(4.0)), ["-errorRate"]);
        assert_eq!(told(&mut alerts, failing(30.0)), ["+errorRate critical"]);
    }

    #[test]
    fn an_alert_that_gets_worse_becomes_critical() {
        let mut alerts = alerts(&json!({}));
        told(&mut alerts, failing(6.0));
        told(&mut alerts, failing(40.0));
        told(&mut alerts, failing(6.0));
        let view = alerts.active()[0].view(&json!({ "service": "s" }));
        assert_eq!((view["severity"].as_str(), view["currentValue"].as_f64()), (Some("critical"), Some(6.0)));
        assert_eq!(view["description"], "6 % of the deliveries failed, more than 5 %");
    }

    #[test]
    fn what_is_not_known_raises_nothing_and_ends_nothing() {
        let mut alerts = alerts(&json!({ "minThroughput": 1 }));
        assert_eq!(told(&mut alerts, Readings::default()), Vec::<String>::new());
        let deep = Readings { queue_depth: Some(5000), ..Readings::default() };
        assert_eq!(told(&mut alerts, deep), ["+queueDepth warning"]);
        for _ in 0..5 {
            assert_eq!(told(&mut alerts, Readings::default()), Vec::<String>::new());
        }
    }

    #[test]
    fn few_events_say_nothing_and_none_at_all_are_calm_where_nothing_waits() {
        let mut alerts = alerts(&json!({}));
        let few = Readings { deliveries: 4, error_rate_percent: 100.0, queue_depth: Some(0), ..Readings::default() };
        assert_eq!(told(&mut alerts, few), Vec::<String>::new());
        assert_eq!(told(&mut alerts, failing(100.0)), ["+errorRate critical"]);
        let hangs = Readings { deliveries: 0, queue_depth: Some(7), ..Readings::default() };
        for readings in [few, hangs, few, hangs] {
            assert_eq!(told(&mut alerts, readings), Vec::<String>::new());
        }
        let idle = Readings { queue_depth: Some(0), ..Readings::default() };
        assert_eq!(told(&mut alerts, idle), Vec::<String>::new());
        assert_eq!(told(&mut alerts, idle), ["-errorRate"]);
    }

    #[test]
    fn what_is_over_is_described_so() {
        let mut alerts = alerts(&json!({}));
        told(&mut alerts, failing(40.0));
        alerts.evaluate(&failing(1.0), 7, String::new);
        let [Change::Resolved(over)] = &alerts.evaluate(&failing(1.0), 7, String::new)[..] else { panic!("it is over") };
        assert_eq!(over.view(&json!({}))["description"], "Failed deliveries: 1 % again; the threshold is 5 %");
    }

    proptest! {
        #[test]
        fn beginnings_and_ends_take_turns(percents in prop::collection::vec(0.0..20.0_f64, 0..200)) {
            let mut alerts = alerts(&json!({}));
            let mut raised = false;
            for percent in percents {
                for change in told(&mut alerts, failing(percent)) {
                    prop_assert_eq!(change.starts_with('+'), !raised);
                    raised = !raised;
                }
                prop_assert!(raised || percent <= 5.0);
            }
        }
    }
}
