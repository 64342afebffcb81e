//! How a service is: what its owner says, what probes found, and what others report, put together into one status.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::definition::{read_object, refuse};
use crate::engine::error::Result;
use crate::engine::form::Form;
use crate::engine::moment;

/// Longest error, bytes.
const ERROR_BYTES_MAX: usize = 1024;
/// Most of `details` as JSON, bytes.
pub(super) const DETAILS_BYTES_MAX: usize = 16 << 10;
/// Most reports at a time; further ones say the same.
const REPORTS_MAX: usize = 100;

const KEYS: [&str; 5] = ["status", "lastCheck", "responseTime", "details", "error"];

/// `ServiceHealthStatus`; of the first three each is worse than the one before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It answers.
    Healthy,
    /// It works, but not as it should.
    Degraded,
    /// It does not answer.
    Unhealthy,
    /// Nobody looked yet.
    #[default]
    Unknown,
    /// Its owner works on it: it is not looked at, and nothing is sent to it.
    Maintenance,
}

impl Status {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Healthy, Self::Degraded, Self::Unhealthy, Self::Unknown, Self::Maintenance];

    /// As in the public contract.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Unhealthy => "unhealthy",
            Self::Unknown => "unknown",
            Self::Maintenance => "maintenance",
        }
    }

    /// The status that [`Status::as_str`] names.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == name)
    }
}

/// What a probe found.
#[derive(Clone, Debug, PartialEq)]
pub struct Probed {
    /// What the service says of itself where it answered; else why it did not.
    pub found: Result<Status, String>,
    /// How long the answer took, ms.
    pub took_ms: Option<f64>,
    /// What it said beside.
    pub details: Option<Map<String, Value>>,
}

/// How many probes in a row change a status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// Failures that make it unhealthy.
    pub failures: u32,
    /// Successes that make it better again.
    pub successes: u32,
}

/// Why somebody holds a service for degraded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// What was seen.
    pub reason: String,
    /// It counts no longer than that, ms since 1970.
    pub until_ms: u64,
}

/// How a service is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Health {
    /// Without what others report.
    own: Status,
    /// ms since 1970.
    last_check_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<Map<String, Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// Since when it has its status, ms since 1970.
    #[serde(default)]
    since_ms: u64,
    /// Probes in a row without an answer.
    #[serde(default)]
    failures: u32,
    /// Probes in a row that found it better than it is held for.
    #[serde(default)]
    successes: u32,
    /// By who reports.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    reports: BTreeMap<String, Report>,
}

impl Health {
    /// Of a service that nobody looked at.
    pub fn unknown(now_ms: u64) -> Self {
        Self { last_check_ms: now_ms, since_ms: now_ms, ..Self::default() }
    }

    /// `health` as JavaScript gives it, over what is known: `before`. With the status `unknown`, what is known stays.
    ///
    /// `ERR_SERVICE_INVALID` with `details.path`: `service.health.status`.
    pub fn read(value: Value, path: &str, now_ms: u64, before: Option<&Self>) -> Result<Self> {
        let mut form = Form::open(value, path, refuse)?;
        let names = "one of 'healthy', 'unhealthy', 'degraded', 'unknown', 'maintenance'";
        let status = form.take("status").ok_or_else(|| form.missing("status", names))?;
        let status = status.as_str().and_then(Status::named).ok_or_else(|| form.wrong("status", &status, names))?;
        let last_check_ms = match form.take("lastCheck") {
            None => now_ms,
            Some(value) => {
                moment::read(&value).ok_or_else(|| form.wrong("lastCheck", &value, "a Date, ms since 1970 or an ISO 8601 time"))?
            }
        };
        let response_ms = match form.take("responseTime") {
            None => None,
            Some(value) => match value.as_f64().filter(|ms| *ms >= 0.0) {
                Some(ms) => Some(ms),
                None => return Err(form.wrong("responseTime", &value, "a number of ms, 0 or more")),
            },
        };
        let details = read_object(&mut form, "details")?;
        if let Some(bytes) = details.as_ref().map(|details| json!(details).to_string().len()).filter(|bytes| *bytes > DETAILS_BYTES_MAX) {
            return Err(refuse(&form.at("details"), format!("has {bytes} bytes as JSON; it may have {DETAILS_BYTES_MAX}")));
        }
        let error = form.text("error", ERROR_BYTES_MAX)?;
        form.end(&KEYS)?;
        match before {
            Some(before) if status == Status::Unknown => Ok(before.clone()),
            before => {
                let reports = before.map(|before| before.reports.clone()).unwrap_or_default();
                Ok(Self { own: status, last_check_ms, response_ms, details, error, since_ms: now_ms, failures: 0, successes: 0, reports })
            }
        }
    }

    /// With what others report of a service that is otherwise as `other`.
    #[must_use]
    pub fn with_reports_of(self, other: &Self) -> Self {
        Self { reports: other.reports.clone(), ..self }
    }

    /// From what [`Health::to_text`] wrote. One that cannot be read is not known.
    pub fn from_text(text: &str) -> Self {
        serde_json::from_str(text).unwrap_or_default()
    }

    /// JSON; times are ms since 1970.
    pub fn to_text(&self) -> String {
        serde_json::to_string(self).expect("maps with string keys and finite numbers always serialize")
    }

    /// The status of all that is known. What others report makes a service no worse than degraded, and no better.
    pub fn status(&self) -> Status {
        match self.own {
            Status::Healthy | Status::Unknown if !self.reports.is_empty() => Status::Degraded,
            own => own,
        }
    }

    /// Since when it has its status, ms since 1970.
    pub fn since_ms(&self) -> u64 {
        self.since_ms
    }

    /// After `before`: the status is as old as it was, or new.
    #[must_use]
    pub fn behind(self, before: &Self, now_ms: u64) -> Self {
        // Later than before, by whatever clock: it tells one change from another.
        let since_ms = if self.status() == before.status() { before.since_ms } else { now_ms.max(before.since_ms + 1) };
        Self { since_ms, ..self }
    }

    /// Whether its owner works on it.
    pub fn is_in_maintenance(&self) -> bool {
        self.own == Status::Maintenance
    }

    /// After a probe. An answer counts at once where nothing is known, and where it is worse than what is known: else the status is better
    /// only after so many in a row. Without an answer it is unhealthy after so many in a row.
    #[must_use]
    pub fn after(&self, probed: Probed, thresholds: Thresholds, now_ms: u64) -> Self {
        let mut health = Self { last_check_ms: now_ms, response_ms: probed.took_ms, details: probed.details, ..self.clone() };
        match probed.found {
            Ok(found) => {
                (health.failures, health.error) = (0, None);
                let is_better = found < self.own;
                health.successes = if is_better { self.successes.saturating_add(1) } else { 0 };
                if self.own == Status::Unknown || !is_better || health.successes >= thresholds.successes {
                    (health.own, health.successes) = (found, 0);
                }
            }
            Err(error) => {
                (health.failures, health.successes) = (self.failures.saturating_add(1), 0);
                health.error = Some(shortened(error));
                if health.failures >= thresholds.failures {
                    health.own = Status::Unhealthy;
                }
            }
        }
        health
    }

    /// Whether the last probe got no answer, which takes as long as it may take.
    pub fn is_silent(&self) -> bool {
        self.failures > 0 && self.response_ms.is_none()
    }

    /// Whether the last look at it was before that time.
    pub fn is_older_than(&self, ms: u64) -> bool {
        self.last_check_ms < ms
    }

    /// Its owner says that it is well; in maintenance it stays.
    #[must_use]
    pub fn vouched(&self, now_ms: u64) -> Self {
        let own = if self.is_in_maintenance() { self.own } else { Status::Healthy };
        Self { own, last_check_ms: now_ms, error: None, ..self.clone() }
    }

    /// Somebody reports that it is degraded.
    #[must_use]
    pub fn reported(&self, by: &str, report: Report) -> Self {
        let mut health = self.clone();
        if health.reports.len() < REPORTS_MAX || health.reports.contains_key(by) {
            health.reports.insert(by.to_owned(), Report { reason: shortened(report.reason), ..report });
        }
        health
    }

    /// What somebody reported is over.
    #[must_use]
    pub fn recovered(&self, by: &str) -> Self {
        let mut health = self.clone();
        health.reports.remove(by);
        health
    }

    /// Without the reports whose time is over.
    #[must_use]
    pub fn at(&self, now_ms: u64) -> Self {
        let mut health = self.clone();
        health.reports.retain(|_, report| report.until_ms > now_ms);
        health
    }

    /// When the first of the reports is over, ms since 1970.
    pub fn next_end_ms(&self) -> Option<u64> {
        self.reports.values().map(|report| report.until_ms).min()
    }

    /// Whether somebody reports it.
    pub fn is_reported_by(&self, by: &str) -> bool {
        self.reports.contains_key(by)
    }

    /// As in the public contract; times are ms since 1970. `unprobed`: why nobody looks at it, where nobody does.
    pub fn to_json(&self, unprobed: Option<String>) -> Value {
        let mut out = json!({ "status": self.status().as_str(), "lastCheck": self.last_check_ms });
        if let Some(ms) = self.response_ms {
            out["responseTime"] = json!(ms);
        }
        let mut details = self.details.clone().unwrap_or_default();
        if !self.reports.is_empty() {
            let reasons: Map<String, Value> = self.reports.iter().map(|(by, report)| (by.clone(), report.reason.as_str().into())).collect();
            details.insert("reported".to_owned(), reasons.into());
        }
        if let Some(why) = unprobed {
            details.insert("notProbed".to_owned(), why.into());
        }
        if !details.is_empty() {
            out["details"] = details.into();
        }
        if let Some(error) = &self.error {
            out["error"] = error.as_str().into();
        }
        out
    }
}

fn shortened(mut text: String) -> String {
    if text.len() > ERROR_BYTES_MAX {
        let end = (0..=ERROR_BYTES_MAX).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
        text.truncate(end);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::error::Code;

    const THRESHOLDS: Thresholds = Thresholds { failures: 3, successes: 2 };

    fn after(health: &Health, found: Result<Status, &str>) -> Health {
        health.after(Probed { found: found.map_err(str::to_owned), took_ms: Some(1.5), details: None }, THRESHOLDS, 2000)
    }

    fn statuses(start: Status, found: &[Result<Status, &str>]) -> Vec<&'static str> {
        let mut health = Health { own: start, ..Health::unknown(1000) };
        let each = |found: &Result<Status, &str>| {
            health = after(&health, *found);
            health.status().as_str()
        };
        found.iter().map(each).collect()
    }

    #[test]
    fn a_service_is_unhealthy_after_so_many_failures_in_a_row_and_better_after_so_many_successes() {
        let (ok, no) = (Ok(Status::Healthy), Err("no"));
        assert_eq!(
            statuses(Status::Healthy, &[no, no, ok, no, no, no]),
            ["healthy", "healthy", "healthy", "healthy", "healthy", "unhealthy"]
        );
        assert_eq!(statuses(Status::Unhealthy, &[ok, no, ok, ok]), ["unhealthy", "unhealthy", "unhealthy", "healthy"]);
        assert_eq!(statuses(Status::Unknown, &[ok]), ["healthy"]);
        assert_eq!(statuses(Status::Unknown, &[no, no, no]), ["unknown", "unknown", "unhealthy"]);
    }

    #[test]
    fn what_a_service_says_of_itself_counts_at_once_where_it_is_worse() {
        let (ok, meh) = (Ok(Status::Healthy), Ok(Status::Degraded));
        assert_eq!(statuses(Status::Healthy, &[meh, meh, meh, ok, ok]), ["degraded", "degraded", "degraded", "degraded", "healthy"]);
        assert_eq!(statuses(Status::Degraded, &[ok, meh, ok, ok]), ["degraded", "degraded", "degraded", "healthy"]);
        assert_eq!(statuses(Status::Unhealthy, &[meh, meh]), ["unhealthy", "degraded"]);
    }

    #[test]
    fn a_failure_is_told_with_its_error_until_the_next_success() {
        let failing = after(&Health::unknown(1000), Err("HTTP status 500"));
        assert_eq!(
            failing.to_json(None),
            json!({ "status": "unknown", "lastCheck": 2000, "responseTime": 1.5, "error": "HTTP status 500" })
        );
        assert_eq!(after(&failing, Ok(Status::Healthy)).to_json(None)["error"], Value::Null);
    }

    #[test]
    fn reports_make_a_service_degraded_until_they_are_over() {
        let healthy = after(&Health::unknown(1000), Ok(Status::Healthy));
        let report = |until_ms| Report { reason: "agent a failed".to_owned(), until_ms };
        let reported = healthy.reported("agent:a", report(5000)).reported("agent:b", report(6000));
        assert_eq!((reported.status(), reported.next_end_ms()), (Status::Degraded, Some(5000)));
        assert_eq!(reported.to_json(None)["details"]["reported"], json!({ "agent:a": "agent a failed", "agent:b": "agent a failed" }));
        assert_eq!(reported.at(5000).status(), Status::Degraded);
        assert_eq!(reported.at(6000).status(), Status::Healthy);
        assert_eq!(reported.recovered("agent:a").recovered("agent:b"), healthy);
        let own = |own| Health { own, ..reported.clone() }.status();
        assert_eq!(
            [own(Status::Unhealthy), own(Status::Maintenance), own(Status::Unknown)],
            [Status::Unhealthy, Status::Maintenance, Status::Degraded]
        );
        let many = (0..200).fold(healthy, |health, n| health.reported(&format!("agent:{n}"), report(9000)));
        assert_eq!(many.reports.len(), REPORTS_MAX);
    }

    #[test]
    fn its_owner_says_how_it_is_and_unknown_leaves_what_is_known() {
        let before =
            after(&Health::unknown(1000), Ok(Status::Healthy)).reported("agent:a", Report { reason: String::new(), until_ms: 9000 });
        let read = |value| Health::read(value, "service.health", 3000, Some(&before)).unwrap();
        assert_eq!(read(json!({ "status": "unknown" })), before);
        let own = read(json!({ "status": "maintenance", "lastCheck": "2026-01-31T12:00:00Z", "error": "disk" }));
        assert_eq!((own.status(), own.is_reported_by("agent:a")), (Status::Maintenance, true));
        assert_eq!(own.to_json(None)["lastCheck"], 1_769_860_800_000_u64);
    }

    #[test]
    fn a_health_that_is_wrong_is_refused_with_its_path() {
        for (value, path) in [
            (json!("healthy"), "h"),
            (json!({}), "h.status"),
            (json!({ "status": "fine" }), "h.status"),
            (json!({ "status": "healthy", "lastCheck": "today" }), "h.lastCheck"),
            (json!({ "status": "healthy", "responseTime": -1 }), "h.responseTime"),
            (json!({ "status": "healthy", "details": [] }), "h.details"),
            (json!({ "status": "healthy", "details": { "text": "x".repeat(17_000) } }), "h.details"),
            (json!({ "status": "healthy", "error": 5 }), "h.error"),
            (json!({ "status": "healthy", "colour": 5 }), "h.colour"),
        ] {
            let error = Health::read(value.clone(), "h", 0, None).unwrap_err();
            assert_eq!((error.code, error.details["path"].as_str()), (Code::ServiceInvalid, Some(path)), "{value}");
        }
    }

    #[test]
    fn a_health_stays_the_same_over_the_store_and_one_that_cannot_be_read_is_unknown() {
        let health = after(&Health::unknown(1000), Err("no")).reported("a", Report { reason: "r".to_owned(), until_ms: 1 });
        assert_eq!(Health::from_text(&health.to_text()), health);
        for text in ["", "null", "{}", "[1]", r#"{"own":"fine"}"#] {
            assert_eq!(Health::from_text(text).status(), Status::Unknown, "{text}");
        }
    }

    #[test]
    fn long_errors_are_cut_between_characters() {
        let failing = after(&Health::unknown(0), Err(&"é".repeat(2000)));
        assert_eq!(failing.error.map(|error| error.len()), Some(ERROR_BYTES_MAX));
    }
}
