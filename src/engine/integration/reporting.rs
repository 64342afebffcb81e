//! Services are held for degraded by what their agents and their performance reports say.
//!
//! The rule: an event is about the service that bears the agent's name (`agentId`, in `performance.metrics` `source`), else about the one
//! that published it. `agent.failed` marks it until `agent.started` or another event of that agent's life; `performance.metrics` beyond a
//! threshold of `monitoring.alerting.thresholds` marks it until a report is below nine tenths of all of them. A mark that nothing ends is
//! over after five minutes. A mark makes a service degraded that is healthy or unknown otherwise.
//!
//! Types are read side by side, so events may come in another order than they were published in. A process sees to one after another, and
//! leaves out what is older than what it saw of the same subject. That another process of the bus sees to the older one late is possible,
//! where they are published within the time that takes: then the mark is over after its five minutes.

use std::collections::HashMap;
use std::sync::Mutex;

use serde_json::Value;
use tokio::sync::mpsc;

use super::Shared;
use crate::engine::consume::Verdict;
use crate::engine::env::lock;
use crate::engine::error::{Code, Result};
use crate::engine::event::MetaView;
use crate::engine::host::Delivery;
use crate::engine::options::{Start, SubscribeOptions};
use crate::engine::services::health::Report;
use crate::engine::settle::Failure;

/// The group of all processes of the bus: each event is seen to by one.
pub const GROUP: &str = "ossa-service-registry";
/// What is read.
pub(super) const PATTERNS: [&str; 2] = ["agent.*", "performance.metrics"];
/// A mark that nothing ends is over after so long, ms.
const REPORT_MS: u64 = 300_000;
/// Longest name of what a report is about, bytes; what it is cut to. It is kept with the service.
const SUBJECT_BYTES_MAX: usize = 256;
/// Below this share of a threshold it is over.
const RECOVERED: f64 = 0.9;

/// The thresholds a report is held against, of `monitoring.alerting.thresholds`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Percent.
    pub error_rate: f64,
    /// ms.
    pub response_ms: f64,
    /// Percent.
    pub memory: f64,
}

/// Subjects that are remembered.
const SUBJECTS_MAX: usize = 10_000;

/// The newest event about each subject that this process saw to: ids begin with their time.
#[derive(Default)]
pub(super) struct Heard(Mutex<HashMap<String, String>>);

impl Heard {
    /// Whether there was no newer one.
    fn is_news(&self, by: &str, id: &str) -> bool {
        let mut newest = lock(&self.0);
        if newest.get(by).is_some_and(|newest| newest.as_str() > id) {
            return false;
        }
        if newest.len() >= SUBJECTS_MAX {
            newest.clear();
        }
        newest.insert(by.to_owned(), id.to_owned());
        true
    }
}

/// What an event says of a service.
#[derive(Debug, PartialEq)]
enum Said {
    Failing(String),
    Well,
    /// It is neither so bad nor so good as to change anything.
    Nothing,
}

pub(super) fn options() -> SubscribeOptions {
    SubscribeOptions {
        group: Some(GROUP.to_owned()),
        start: Start::Latest,
        auto_ack: true,
        concurrency: Some(8),
        ..SubscribeOptions::default()
    }
}

/// Sees to what comes until the subscription ends.
pub(super) async fn read(shared: std::sync::Arc<Shared>, mut inbox: mpsc::UnboundedReceiver<Delivery>) {
    while let Some(delivery) = inbox.recv().await {
        let verdict = match see_to(&shared, &delivery).await {
            Ok(()) => Verdict::Done,
            // For another process: this one reads no more of them.
            Err(error) if error.code == Code::Closed => {
                shared.hold_reports();
                Verdict::HandBack
            }
            Err(error) => Verdict::Failed(Failure::Error(error.to_string())),
        };
        shared.switch.settle(delivery.token, verdict);
    }
}

async fn see_to(shared: &Shared, delivery: &Delivery) -> Result<()> {
    let Ok(data) = serde_json::from_str::<Value>(&delivery.text.data) else { return Ok(()) };
    let event_type = &*delivery.partition.event_type;
    let subject = if event_type.starts_with("agent.") { &data["agentId"] } else { &data["source"] };
    let Some(subject) = subject.as_str() else { return Ok(()) };
    let said = what(event_type, &data, subject, shared.limits);
    if said == Said::Nothing {
        return Ok(());
    }
    let Ok(meta) = serde_json::from_str::<MetaView<'_>>(&delivery.text.meta) else { return Ok(()) };
    let end = (0..=subject.len().min(SUBJECT_BYTES_MAX)).rev().find(|i| subject.is_char_boundary(*i)).unwrap_or(0);
    let (subject, whole) = (&subject[..end], subject);
    let by = if event_type.starts_with("agent.") { format!("agent:{subject}") } else { format!("performance:{subject}") };
    if !shared.heard.is_news(&by, &meta.id) {
        return Ok(());
    }
    // What another process registered or noted a moment ago counts.
    let view = shared.registry.refresh().await?;
    let Some(service) = view.get(whole).or_else(|| view.get(&meta.source)) else { return Ok(()) };
    let report = match said {
        Said::Failing(reason) => Some(Report { reason, until_ms: shared.registry.store().now_ms().saturating_add(REPORT_MS) }),
        _ if service.health.is_reported_by(&by) => None,
        _ => return Ok(()),
    };
    shared.registry.report(&service.definition.name, &by, report).await.map(drop)
}

fn what(event_type: &str, data: &Value, subject: &str, limits: Limits) -> Said {
    match event_type {
        "agent.failed" => {
            let error = data["error"].as_str().or_else(|| data["error"]["message"].as_str()).unwrap_or("no error is given");
            Said::Failing(format!("agent {subject} failed: {error}"))
        }
        "performance.metrics" => judged(&data["metrics"], limits),
        "agent.spawned" | "agent.started" | "agent.stopped" | "agent.terminated" => Said::Well,
        _ => Said::Nothing,
    }
}

fn judged(metrics: &Value, limits: Limits) -> Said {
    let values = [("errorRate", limits.error_rate, " %"), ("responseTime", limits.response_ms, " ms"), ("memory", limits.memory, " %")];
    let given = || values.iter().filter_map(|(name, limit, unit)| Some((*name, metrics[*name].as_f64()?, *limit, *unit)));
    let beyond: Vec<String> = given()
        .filter(|(_, value, limit, _)| value > limit)
        .map(|(name, value, limit, unit)| format!("{name} is {value}{unit}, above {limit}{unit}"))
        .collect();
    if !beyond.is_empty() {
        return Said::Failing(beyond.join("; "));
    }
    let is_well = given().next().is_some() && given().all(|(_, value, limit, _)| value <= limit * RECOVERED);
    if is_well { Said::Well } else { Said::Nothing }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_older_than_what_was_heard_of_a_subject_is_no_news() {
        let heard = Heard::default();
        assert!(heard.is_news("agent:a", "2") && !heard.is_news("agent:a", "1") && heard.is_news("agent:b", "1"));
        assert!(heard.is_news("agent:a", "2"), "a redelivery is seen to again");
        assert!((0..20_000).all(|n| heard.is_news(&format!("agent:{n}"), "3")));
        assert!(lock(&heard.0).len() <= SUBJECTS_MAX);
    }

    const LIMITS: Limits = Limits { error_rate: 5.0, response_ms: 1000.0, memory: 85.0 };

    #[test]
    fn a_report_beyond_a_threshold_names_it_and_one_below_all_of_them_ends_it() {
        let judge = |metrics| judged(&metrics, LIMITS);
        assert_eq!(judge(json!({ "errorRate": 5.0, "responseTime": 1000 })), Said::Nothing);
        assert_eq!(judge(json!({ "errorRate": 4.5, "responseTime": 900, "memory": 76.5 })), Said::Well);
        assert_eq!(judge(json!({ "errorRate": 4.5, "responseTime": 901 })), Said::Nothing);
        let failing = "errorRate is 7.5 %, above 5 %; memory is 90 %, above 85 %";
        assert_eq!(judge(json!({ "errorRate": 7.5, "responseTime": 1, "memory": 90 })), Said::Failing(failing.to_owned()));
        for nothing in [json!(null), json!({}), json!({ "errorRate": "high" }), json!([9])] {
            assert_eq!(judge(nothing), Said::Nothing);
        }
    }

    #[test]
    fn events_of_an_agents_life_end_its_failure() {
        let says = |event_type| what(event_type, &json!({ "agentId": "a", "error": "out of memory" }), "a", LIMITS);
        assert_eq!(says("agent.failed"), Said::Failing("agent a failed: out of memory".to_owned()));
        for event_type in ["agent.spawned", "agent.started", "agent.stopped", "agent.terminated"] {
            assert_eq!(says(event_type), Said::Well);
        }
        assert_eq!(says("agent.paused"), Said::Nothing);
    }
}
