//! `MonitoringConfig`: `monitoring` of `OSSAEventBus`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::bounds;
use super::defaults::number;
use super::env::{HEALTH_CHECK_INTERVAL, METRICS_COLLECTION_INTERVAL, MONITORING_ENABLED};
use super::found::Found;
use super::reader::Section;
use super::secret::Secret;
use crate::engine::error::{Error, Result};

const WINDOWS_MAX: usize = 32;
/// Name in traces where nothing is said.
const SERVICE_NAME_DEFAULT: &str = "ossa-event-bus";

/// `MonitoringConfig`.
#[derive(Clone, Debug, PartialEq)]
pub struct MonitoringConfig {
    /// `metrics`.
    pub metrics: Metrics,
    /// `tracing`.
    pub tracing: TraceExport,
    /// `alerting`.
    pub alerting: Alerting,
    /// `healthCheck`.
    pub health_check: HealthCheck,
}

/// `monitoring.metrics`.
#[derive(Clone, Debug, PartialEq)]
pub struct Metrics {
    /// Whether metrics are collected.
    pub enabled: bool,
    /// Time between two collections, ms.
    pub collection_interval_ms: u64,
    /// How long they are kept, ms.
    pub retention_period_ms: u64,
    /// Windows of the aggregates, seconds, as given.
    pub aggregation_windows_s: Vec<u64>,
}

/// `monitoring.tracing`.
#[derive(Clone, Debug, PartialEq)]
pub struct TraceExport {
    /// Whether spans are made.
    pub enabled: bool,
    /// Share of traces that are recorded, 0 to 1.
    pub sampling_rate: f64,
    /// `service.name` of the spans.
    pub service_name: String,
    /// Where Jaeger takes spans. A secret: such URLs hold tokens.
    pub jaeger_endpoint: Option<Secret>,
    /// Where an OTLP collector takes spans. A secret too.
    pub otlp_endpoint: Option<Secret>,
}

/// `monitoring.alerting`.
#[derive(Clone, Debug, PartialEq)]
pub struct Alerting {
    /// Whether alerts are raised.
    pub enabled: bool,
    /// Where they are posted. A secret: who knows it can post.
    pub webhook_url: Option<Secret>,
    /// Signs what is posted, see [`webhook_key`].
    pub webhook_secret: Option<Secret>,
    /// Failed deliveries, percent.
    pub error_rate_max_percent: f64,
    /// ms.
    pub latency_ms_max: f64,
    /// Events that wait.
    pub queue_depth_max: u64,
    /// Events a second; 0 = off.
    pub throughput_min: f64,
    /// Percent.
    pub memory_usage_max_percent: f64,
    /// Percent.
    pub connection_utilization_max_percent: f64,
}

/// `monitoring.healthCheck`.
#[derive(Clone, Debug, PartialEq)]
pub struct HealthCheck {
    /// Whether checks run by themselves.
    pub enabled: bool,
    /// Time between two, ms.
    pub interval_ms: u64,
    /// Longest one may take, ms.
    pub timeout_ms: u64,
    /// Failed deliveries that make the bus unhealthy, percent.
    pub critical_error_rate_percent: f64,
    /// ms.
    pub critical_latency_ms: f64,
    /// Percent.
    pub critical_memory_usage_percent: f64,
}

impl MonitoringConfig {
    pub(super) fn read(parent: &Section<'_>, service_name: Option<&str>) -> Result<Self> {
        let section = parent.child("monitoring", &["metrics", "tracing", "alerting", "healthCheck"])?;
        Ok(Self {
            metrics: Metrics::read(&section)?,
            tracing: TraceExport::read(&section, service_name)?,
            alerting: Alerting::read(&section)?,
            health_check: HealthCheck::read(&section)?,
        })
    }

    pub(super) fn to_json(&self) -> Value {
        json!({
            "metrics": self.metrics.to_json(),
            "tracing": self.tracing.to_json(),
            "alerting": self.alerting.to_json(),
            "healthCheck": self.health_check.to_json(),
        })
    }
}

impl Metrics {
    fn read(parent: &Section<'_>) -> Result<Self> {
        let section = parent.child("metrics", &["enabled", "collectionInterval", "retentionPeriod", "aggregationWindows"])?;
        let interval = ("collectionInterval", METRICS_COLLECTION_INTERVAL);
        let collection_interval_ms = section.whole(interval, &bounds::INTERVAL, 10_000)?;
        let retention_period_ms = section.whole("retentionPeriod", &bounds::METRICS_RETENTION, 86_400_000)?;
        if retention_period_ms < collection_interval_ms {
            let problem = format!("is {retention_period_ms} ms, less than collectionInterval, {collection_interval_ms} ms");
            return Err(Error::config(&section.at("retentionPeriod"), problem));
        }
        Ok(Self {
            enabled: section.flag(("enabled", MONITORING_ENABLED), true)?,
            collection_interval_ms,
            retention_period_ms,
            aggregation_windows_s: read_windows(&section)?,
        })
    }

    fn to_json(&self) -> Value {
        json!({
            "enabled": self.enabled,
            "collectionInterval": self.collection_interval_ms,
            "retentionPeriod": self.retention_period_ms,
            "aggregationWindows": self.aggregation_windows_s,
        })
    }
}

impl TraceExport {
    fn read(parent: &Section<'_>, service_name: Option<&str>) -> Result<Self> {
        let section = parent.child("tracing", &["enabled", "samplingRate", "serviceName", "jaegerEndpoint", "otlpEndpoint"])?;
        let named = |name: &str| !name.trim().is_empty() && name.len() <= 256 && !name.contains(char::is_control);
        let endpoint = |key: &'static str| section.argument(key).map(|found| read_endpoint(&found)).transpose();
        Ok(Self {
            enabled: section.flag("enabled", true)?,
            sampling_rate: section.number("samplingRate", &bounds::SAMPLING_RATE, 0.1)?,
            service_name: match section.argument("serviceName") {
                Some(found) => found.checked("1 to 256 bytes of printable text", named)?,
                None => service_name.unwrap_or(SERVICE_NAME_DEFAULT).to_owned(),
            },
            jaeger_endpoint: endpoint("jaegerEndpoint")?,
            otlp_endpoint: endpoint("otlpEndpoint")?,
        })
    }

    fn to_json(&self) -> Value {
        let mut out = Map::new();
        out.insert("enabled".to_owned(), json!(self.enabled));
        out.insert("samplingRate".to_owned(), number(self.sampling_rate));
        out.insert("serviceName".to_owned(), json!(self.service_name));
        put_secret(&mut out, "jaegerEndpoint", self.jaeger_endpoint.as_ref());
        put_secret(&mut out, "otlpEndpoint", self.otlp_endpoint.as_ref());
        Value::Object(out)
    }
}

impl Alerting {
    fn read(parent: &Section<'_>) -> Result<Self> {
        let section = parent.child("alerting", &["enabled", "webhookUrl", "webhookSecret", "thresholds"])?;
        let limits = section.child(
            "thresholds",
            &["maxErrorRate", "maxLatency", "maxQueueDepth", "minThroughput", "maxMemoryUsage", "maxConnectionUtilization"],
        )?;
        let webhook_url = section.argument("webhookUrl").map(|found| read_http_url(&found)).transpose()?;
        let webhook_secret = section.argument("webhookSecret").map(|found| read_webhook_secret(&found)).transpose()?;
        if webhook_secret.is_some() && webhook_url.is_none() {
            return Err(Error::config(&section.at("webhookSecret"), "signs what is posted to webhookUrl, which is missing"));
        }
        Ok(Self {
            enabled: section.flag("enabled", true)?,
            webhook_url,
            webhook_secret,
            error_rate_max_percent: limits.number("maxErrorRate", &bounds::PERCENT, 5.0)?,
            latency_ms_max: limits.number("maxLatency", &bounds::LATENCY, 1_000.0)?,
            queue_depth_max: limits.whole("maxQueueDepth", &bounds::QUEUE_DEPTH, 1_000)?,
            throughput_min: limits.number("minThroughput", &bounds::THROUGHPUT, 0.0)?,
            memory_usage_max_percent: limits.number("maxMemoryUsage", &bounds::PERCENT, 85.0)?,
            connection_utilization_max_percent: limits.number("maxConnectionUtilization", &bounds::PERCENT, 90.0)?,
        })
    }

    fn to_json(&self) -> Value {
        let mut out = Map::new();
        out.insert("enabled".to_owned(), json!(self.enabled));
        put_secret(&mut out, "webhookUrl", self.webhook_url.as_ref());
        put_secret(&mut out, "webhookSecret", self.webhook_secret.as_ref());
        let thresholds = json!({
            "maxErrorRate": number(self.error_rate_max_percent),
            "maxLatency": number(self.latency_ms_max),
            "maxQueueDepth": self.queue_depth_max,
            "minThroughput": number(self.throughput_min),
            "maxMemoryUsage": number(self.memory_usage_max_percent),
            "maxConnectionUtilization": number(self.connection_utilization_max_percent),
        });
        out.insert("thresholds".to_owned(), thresholds);
        Value::Object(out)
    }
}

impl HealthCheck {
    fn read(parent: &Section<'_>) -> Result<Self> {
        let section = parent.child("healthCheck", &["enabled", "interval", "timeout", "criticalThresholds"])?;
        let critical = section.child("criticalThresholds", &["criticalErrorRate", "criticalLatency", "criticalMemoryUsage"])?;
        Ok(Self {
            enabled: section.flag("enabled", true)?,
            interval_ms: section.whole(("interval", HEALTH_CHECK_INTERVAL), &bounds::INTERVAL, 30_000)?,
            timeout_ms: section.whole("timeout", &bounds::CHECK_TIMEOUT, 5_000)?,
            critical_error_rate_percent: critical.number("criticalErrorRate", &bounds::PERCENT, 25.0)?,
            critical_latency_ms: critical.number("criticalLatency", &bounds::LATENCY, 5_000.0)?,
            critical_memory_usage_percent: critical.number("criticalMemoryUsage", &bounds::PERCENT, 95.0)?,
        })
    }

    fn to_json(&self) -> Value {
        json!({
            "enabled": self.enabled,
            "interval": self.interval_ms,
            "timeout": self.timeout_ms,
            "criticalThresholds": {
                "criticalErrorRate": number(self.critical_error_rate_percent),
                "criticalLatency": number(self.critical_latency_ms),
                "criticalMemoryUsage": number(self.critical_memory_usage_percent),
            },
        })
    }
}

fn put_secret(out: &mut Map<String, Value>, key: &str, secret: Option<&Secret>) {
    if let Some(secret) = secret {
        out.insert(key.to_owned(), json!(secret.expose()));
    }
}

/// The bytes of a secret of a webhook: 24 to 64, as base64 behind `whsec_` (<https://www.standardwebhooks.com>).
pub fn webhook_key(secret: &str) -> Option<Vec<u8>> {
    let key = STANDARD.decode(secret.strip_prefix("whsec_")?).ok()?;
    (24..=64).contains(&key.len()).then_some(key)
}

fn read_webhook_secret(found: &Found<'_>) -> Result<Secret> {
    let right = "whsec_ and 24 to 64 random bytes as base64 (openssl rand -base64 32)";
    let secret = found.secret(right)?;
    if webhook_key(secret.expose()).is_some() { Ok(secret) } else { Err(found.wrong_secret(right)) }
}

/// Where OTLP is taken. What is found at Jaeger's own path takes another format.
fn read_endpoint(found: &Found<'_>) -> Result<Secret> {
    let url = read_http_url(found)?;
    let path = url.expose().split(['?', '#']).next().unwrap_or_default();
    if path.trim_end_matches('/').ends_with("/api/traces") {
        return Err(found.error(
            "is where Jaeger takes its own format (Thrift), which is not spoken here. Jaeger takes OTLP since 1.35: give its OTLP endpoint, \
             as http://<host>:4318, or the whole URL with /v1/traces",
        ));
    }
    Ok(url)
}

/// An HTTP URL, of which no message repeats anything.
fn read_http_url(found: &Found<'_>) -> Result<Secret> {
    let right = "a URL that begins with http:// or https://, with a host and without blanks";
    let url = found.secret(right)?;
    let text = url.expose();
    let rest = ["http://", "https://"]
        .iter()
        .find_map(|scheme| text.get(..scheme.len()).filter(|start| start.eq_ignore_ascii_case(scheme)).map(|_| &text[scheme.len()..]));
    let valid = rest
        .is_some_and(|rest| !rest.is_empty() && !rest.starts_with(['/', '?', '#', ':', '@']) && rest.bytes().all(|b| b.is_ascii_graphic()));
    if valid && text.len() <= 4_096 { Ok(url) } else { Err(found.wrong_secret(right)) }
}

fn read_windows(section: &Section<'_>) -> Result<Vec<u64>> {
    let Some(found) = section.argument("aggregationWindows") else { return Ok(vec![60, 300, 900, 3_600]) };
    let right = format!("an array of 1 to {WINDOWS_MAX} different windows in seconds");
    let Some(Value::Array(items)) = section.value("aggregationWindows") else { return Err(found.wrong(right)) };
    if items.is_empty() || items.len() > WINDOWS_MAX {
        return Err(found.error(format!("must be {right}, not of {}", items.len())));
    }
    let mut windows = Vec::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        let found = section.item("aggregationWindows", index, item);
        let window = found.whole(&bounds::WINDOW)?;
        if windows.contains(&window) {
            return Err(found.error(format!("{window} stands there twice")));
        }
        windows.push(window);
    }
    Ok(windows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_webhook_s_secret_is_base64_behind_its_prefix() {
        assert_eq!(webhook_key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap().len(), 24);
        for wrong in ["", "whsec_", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_c2hvcnQ=", "whsec_%%%%"] {
            assert_eq!(webhook_key(wrong), None, "{wrong}");
        }
        assert_eq!(webhook_key(&format!("whsec_{}", STANDARD.encode([1; 65]))), None);
    }
}
