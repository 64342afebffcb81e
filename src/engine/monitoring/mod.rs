//! Monitoring: what was counted, over time; what is too much of it; and whoever is told so.
//!
//! Reading order: [`windows`] (what happened, by time), [`queues`] (what waits), [`alerts`] (what is too much), [`webhook`]; [`report`],
//! [`dashboard`] show it; then the task that collects.

mod alerts;
mod dashboard;
mod queues;
mod report;
mod webhook;
mod windows;

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use futures_util::FutureExt;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::config::MonitoringConfig;
use super::consume::Consumer;
use super::env::{Env, lock};
use super::error::{Code, Error, Result};
use super::host::{Host, Kind, Lifecycle};
use super::metrics::{Exposition, Metrics};
use super::publish::Publisher;
use super::store::Store;
use super::vitals::LastVitals;
use alerts::{Alerts, Change, Readings};
pub use dashboard::Around;
use queues::Queues;
pub use queues::groups;
use webhook::Webhook;
use windows::Windows;

/// How often the use of the connection pool is looked at; what is judged is the average.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What monitoring is told.
#[derive(Clone)]
pub struct Settings {
    /// `monitoring`.
    pub config: MonitoringConfig,
    /// Who speaks: the source of alerts.
    pub service: String,
}

/// What it works with.
pub struct Beside {
    /// The store of the bus.
    pub store: Arc<dyn Store>,
    /// Who is told.
    pub host: Arc<dyn Host>,
    /// Clock, ids, tasks.
    pub env: Env,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// What the process needs.
    pub vitals: Arc<LastVitals>,
    /// Whose groups are looked at.
    pub consumer: Weak<Consumer>,
    /// By which alerts are published.
    pub publisher: Weak<Publisher>,
}

struct Shared {
    settings: Settings,
    beside: Beside,
    started_ms: u64,
    windows: Mutex<Windows>,
    /// As last sampled; `None` while the server does not tell.
    queues: Mutex<Option<Queues>>,
    /// When, ms since 1970, how much waited.
    depths: Mutex<VecDeque<(u64, u64)>>,
    alerts: Mutex<Alerts>,
    webhook: Option<Webhook>,
    /// Sum of the looks at the connection pool, and how many.
    looks: Mutex<(f64, u32)>,
    collections: AtomicU64,
    totals: dashboard::Totals,
    /// A failure to sample was told.
    is_blind: AtomicBool,
}

/// Monitoring of one bus.
pub struct Monitoring {
    shared: Arc<Shared>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Monitoring {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Monitoring {
    /// Starts to collect. `ERR_INVALID_CONFIG` where the webhook cannot be made.
    pub fn start(settings: Settings, beside: Beside) -> Result<Self> {
        let MonitoringConfig { metrics, alerting, health_check, .. } = &settings.config;
        let now_ms = beside.env.now_ms();
        let hook = |url| Webhook::start(url, alerting.webhook_secret.as_ref(), beside.host.clone(), &beside.env);
        let webhook = alerting.webhook_url.clone().filter(|_| alerting.enabled).map(hook).transpose()?;
        let shared = Arc::new(Shared {
            started_ms: now_ms,
            windows: Mutex::new(Windows::new(&metrics.aggregation_windows_s, metrics.retention_period_ms, now_ms)),
            queues: Mutex::default(),
            depths: Mutex::default(),
            alerts: Mutex::new(Alerts::new(alerting, health_check)),
            webhook,
            looks: Mutex::default(),
            collections: AtomicU64::new(0),
            totals: dashboard::Totals::default(),
            is_blind: AtomicBool::new(false),
            settings,
            beside,
        });
        let (env, collecting) = (shared.beside.env.clone(), shared.clone());
        let task = env.spawn(async move {
            let host = collecting.beside.host.clone();
            if let Err(panic) = AssertUnwindSafe(collecting.collect()).catch_unwind().await {
                host.lifecycle(vec![Lifecycle::error(&Error::panicked(panic.as_ref()).with("task", "monitoring"))]);
            }
        });
        Ok(Self { shared, task })
    }

    /// `ERR_DISABLED` where metrics are off.
    fn measures(&self) -> Result<()> {
        if self.shared.settings.config.metrics.enabled {
            return Ok(());
        }
        let off = "metrics are switched off (monitoring.metrics.enabled)";
        Err(Error::new(Code::Disabled, off).with("path", "monitoring.metrics.enabled"))
    }

    /// `Analytics` with times as ms, of the shortest window where none is named.
    pub fn analytics(&self, seconds: Option<f64>) -> Result<Value> {
        self.measures()?;
        let shared = &self.shared;
        let mut windows = lock(&shared.windows);
        windows.collect(&shared.beside.metrics.types, shared.beside.env.now_ms());
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // compared with what there is
        let seconds = seconds.map_or_else(|| windows.shortest_s(), |seconds| if seconds.fract() == 0.0 { seconds as u64 } else { 0 });
        let analysis = windows.read(seconds).ok_or_else(|| {
            let there: Vec<String> = windows.lengths_s().iter().map(ToString::to_string).collect();
            let right = format!("must be one of monitoring.metrics.aggregationWindows, {}", there.join(", "));
            Error::argument("windowSeconds", right)
        })?;
        Ok(report::analytics(seconds, &analysis))
    }

    /// `AlertEvent[]` with times as ms.
    pub fn active_alerts(&self) -> Value {
        let context = self.shared.context();
        lock(&self.shared.alerts).active().iter().map(|alert| alert.view(&context)).collect()
    }

    /// What `MonitoringStats` says of this part.
    pub fn stats(&self) -> Value {
        let shared = &self.shared;
        json!({
            "metricsCollected": shared.collections.load(Ordering::Relaxed),
            "activeAlerts": lock(&shared.alerts).active().len(),
            "uptimeSeconds": shared.uptime_s(),
        })
    }

    /// `DashboardData` with times as ms.
    pub async fn dashboard(&self, around: Around) -> Result<Value> {
        self.measures()?;
        Ok(self.shared.dashboard(around).await)
    }

    /// Metrics of this part.
    pub fn expose(&self, out: &mut Exposition) -> Result<()> {
        self.measures()?;
        self.shared.expose(out);
        Ok(())
    }

    /// What waits, as last sampled; `None` while it is not known.
    pub fn queue_depth(&self) -> Option<u64> {
        lock(&self.shared.queues).as_ref().map(Queues::depth)
    }

    /// Has told what is to be told, within `deadline`.
    pub async fn close(&self, deadline: Duration) {
        self.task.abort();
        if let Some(webhook) = &self.shared.webhook {
            webhook.close(deadline).await;
        }
    }
}

impl Shared {
    #[allow(clippy::cast_precision_loss)] // s
    fn uptime_s(&self) -> f64 {
        self.beside.env.now_ms().saturating_sub(self.started_ms) as f64 / 1000.0
    }

    /// Where an alert is raised.
    fn context(&self) -> Value {
        json!({ "service": self.settings.service, "pid": std::process::id() })
    }

    async fn collect(&self) {
        let every = Duration::from_millis(self.settings.config.metrics.collection_interval_ms);
        let mut due = Instant::now();
        loop {
            {
                let mut looks = lock(&self.looks);
                *looks = (looks.0 + self.beside.store.utilization(), looks.1 + 1);
            }
            let now = Instant::now();
            if now >= due {
                // What a standstill left out is not made up for.
                due = if now >= due + every { now + every } else { due + every };
                self.round().await;
            }
            tokio::time::sleep_until(due.min(now + LOOK_EVERY)).await;
        }
    }

    async fn round(&self) {
        let Beside { store, env, metrics, consumer, .. } = &self.beside;
        let Some(consumer) = consumer.upgrade() else { return };
        let sampled = queues::sample(store, &consumer).await;
        if let Err(error) = &sampled
            && !self.is_blind.swap(true, Ordering::Relaxed)
        {
            tracing::debug!(%error, "what waits cannot be counted");
        }
        self.is_blind.store(sampled.is_err(), Ordering::Relaxed);
        if let Ok(queues) = &sampled {
            self.note_depth(queues.depth());
        }
        *lock(&self.queues) = sampled.ok();
        lock(&self.windows).collect(&metrics.types, env.now_ms());
        self.collections.fetch_add(1, Ordering::Relaxed);
        let utilization = std::mem::take(&mut *lock(&self.looks));
        if self.settings.config.alerting.enabled {
            self.judge(utilization.0 / f64::from(utilization.1.max(1)));
        }
    }

    fn judge(&self, utilization_percent: f64) {
        let now_ms = self.beside.env.now_ms();
        let readings = {
            let windows = lock(&self.windows);
            let seconds = windows.shortest_s();
            let Some(analysis) = windows.read(seconds) else { return };
            let total = &analysis.span.total;
            let length_ms = analysis.span.to_ms.saturating_sub(analysis.span.from_ms);
            #[allow(clippy::cast_precision_loss)] // a rate
            let throughput = total.published.max(total.deliveries()) as f64 * 1000.0 / length_ms.max(1) as f64;
            Readings {
                deliveries: total.deliveries(),
                error_rate_percent: total.error_rate_percent(),
                latency_ms: total.latency_ms(),
                queue_depth: lock(&self.queues).as_ref().map(Queues::depth),
                // Not before a whole window was measured.
                throughput: (length_ms >= seconds * 1000).then_some(throughput),
                memory_percent: self.beside.vitals.get().map(|vitals| vitals.memory_percent()),
                utilization_percent,
            }
        };
        let changes = lock(&self.alerts).evaluate(&readings, now_ms, || self.beside.env.new_id());
        self.tell(changes, now_ms);
    }

    fn tell(&self, changes: Vec<Change>, now_ms: u64) {
        if changes.is_empty() {
            return;
        }
        let context = self.context();
        let mut said = Vec::new();
        for change in changes {
            match change {
                Change::Triggered(alert) => {
                    let view = alert.view(&context);
                    tracing::warn!(
                        metric = alert.watched.as_str(),
                        value = alert.value,
                        threshold = alert.threshold,
                        "an alert was raised"
                    );
                    if let Some(publisher) = self.beside.publisher.upgrade() {
                        let breached = json!({
                            "metric": alert.watched.as_str(), "threshold": alert.threshold, "currentValue": alert.value,
                            "severity": alert.severity.as_str(), "source": self.settings.service, "timestamp": now_ms,
                        });
                        publisher.say("performance.threshold", &breached);
                    }
                    self.post("triggered", &view, now_ms);
                    said.push(Lifecycle(Kind::AlertTriggered, view));
                }
                Change::Resolved(alert) => {
                    let mut view = alert.view(&context);
                    view["resolvedAt"] = now_ms.into();
                    tracing::info!(metric = alert.watched.as_str(), value = alert.value, "an alert is over");
                    self.post("resolved", &view, now_ms);
                    said.push(Lifecycle(Kind::AlertResolved, view));
                }
            }
        }
        self.beside.host.lifecycle(said);
    }

    fn post(&self, what: &str, alert: &Value, now_ms: u64) {
        if let Some(webhook) = &self.webhook {
            webhook.send(what, alert, now_ms);
        }
    }
}
