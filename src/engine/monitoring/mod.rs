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
use std::sync::atomic::{AtomicU64, Ordering};
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
use super::log::failed;
use super::metrics::{Exposition, Metrics};
use super::publish::Publisher;
use super::store::{DeadLetterQuery, Store};
use super::vitals::LastVitals;
use alerts::{Alerts, Change, Readings, Watched};
pub use dashboard::Around;
use queues::Queues;
pub use queues::groups;
use webhook::Webhook;
use windows::Windows;

/// The store is waited for at least so long.
const PATIENCE_MIN: Duration = Duration::from_secs(1);
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
    started: Instant,
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
}

/// Monitoring of one bus.
pub struct Monitoring {
    shared: Arc<Shared>,
    tasks: [tokio::task::JoinHandle<()>; 2],
}

impl Drop for Monitoring {
    fn drop(&mut self) {
        self.tasks.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

impl Monitoring {
    /// Starts to collect. `ERR_INVALID_CONFIG` where the webhook cannot be made.
    pub fn start(settings: Settings, beside: Beside) -> Result<Self> {
        let MonitoringConfig { metrics, alerting, health_check, .. } = &settings.config;
        let hook = |url| Webhook::start(url, alerting.webhook_secret.as_ref(), beside.host.clone(), &beside.env);
        let webhook = alerting.webhook_url.clone().filter(|_| alerting.enabled).map(hook).transpose()?;
        let shared = Arc::new(Shared {
            started: Instant::now(),
            windows: Mutex::new(Windows::new(&metrics.aggregation_windows_s, metrics.retention_period_ms)),
            queues: Mutex::default(),
            depths: Mutex::default(),
            alerts: Mutex::new(Alerts::new(alerting, health_check)),
            webhook,
            looks: Mutex::default(),
            collections: AtomicU64::new(0),
            totals: dashboard::Totals::default(),
            settings,
            beside,
        });
        // Apart: figures of this process do not wait for a server that hangs.
        let tasks =
            [shared.clone().told(Shared::collect_forever(shared.clone())), shared.clone().told(Shared::sample_forever(shared.clone()))];
        Ok(Self { shared, tasks })
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
        windows.collect(&shared.beside.metrics.types, shared.clock_ms());
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // compared with what there is
        let seconds = seconds.map_or_else(|| windows.shortest_s(), |seconds| if seconds.fract() == 0.0 { seconds as u64 } else { 0 });
        let analysis = windows.read(seconds).ok_or_else(|| {
            let there: Vec<String> = windows.lengths_s().iter().map(ToString::to_string).collect();
            let right = format!("must be one of monitoring.metrics.aggregationWindows, {}", there.join(", "));
            Error::argument("windowSeconds", right)
        })?;
        let began_ms = shared.beside.env.now_ms().saturating_sub(shared.clock_ms());
        Ok(report::analytics(seconds, &analysis, began_ms))
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

    /// Has told what is to be told, within `deadline`.
    pub async fn close(&self, deadline: Duration) {
        self.tasks.iter().for_each(tokio::task::JoinHandle::abort);
        if let Some(webhook) = &self.shared.webhook {
            webhook.close(deadline).await;
        }
    }
}

impl Shared {
    fn uptime_s(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }

    /// Time since it began, ms: that of the wall may be set.
    fn clock_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Where an alert is raised.
    fn context(&self) -> Value {
        json!({ "service": self.settings.service, "pid": std::process::id() })
    }

    /// A panic ends the task, but not unnoticed.
    fn told(self: Arc<Self>, task: impl Future<Output = ()> + Send + 'static) -> tokio::task::JoinHandle<()> {
        let host = self.beside.host.clone();
        self.beside.env.spawn(async move {
            if let Err(panic) = AssertUnwindSafe(task).catch_unwind().await {
                host.lifecycle(vec![Lifecycle::error(&Error::panicked(panic.as_ref()).with("task", "monitoring"))]);
            }
        })
    }

    fn every(&self) -> Duration {
        Duration::from_millis(self.settings.config.metrics.collection_interval_ms)
    }

    /// Looks at what this process counted.
    async fn collect_forever(self: Arc<Self>) {
        let every = self.every();
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
                lock(&self.windows).collect(&self.beside.metrics.types, self.clock_ms());
                self.collections.fetch_add(1, Ordering::Relaxed);
                let utilization = std::mem::take(&mut *lock(&self.looks));
                if self.settings.config.alerting.enabled {
                    self.judge(utilization.0 / f64::from(utilization.1.max(1)));
                }
            }
            tokio::time::sleep_until(due.min(now + LOOK_EVERY)).await;
        }
    }

    /// Asks the store what it counts.
    async fn sample_forever(self: Arc<Self>) {
        let every = self.every();
        loop {
            let next = Instant::now() + every;
            let patience = every.max(PATIENCE_MIN);
            let sampled = tokio::time::timeout(patience, self.sample()).await.unwrap_or_else(|_| {
                let late = format!("what waits was not told within {} ms", patience.as_millis());
                Err(Error::new(Code::Timeout, late))
            });
            if let Err(error) = &sampled {
                failed!(error, "what waits in the groups of this process cannot be counted");
            }
            if let Ok(queues) = &sampled {
                self.note_depth(queues.depth());
            }
            *lock(&self.queues) = sampled.ok();
            tokio::time::sleep_until(next).await;
        }
    }

    async fn sample(&self) -> Result<Queues> {
        let Beside { store, metrics, consumer, .. } = &self.beside;
        let Some(consumer) = consumer.upgrade() else { return Ok(Queues::default()) };
        metrics.set_dead_letters(store.count_dead_letters(&DeadLetterQuery::default()).await?);
        queues::sample(store, &consumer).await
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
                calls: total.end_to_end_time.count(),
                latency_ms: total.latency_ms(),
                queue_depth: lock(&self.queues).as_ref().map(Queues::depth),
                // Not before a whole window was measured.
                throughput: (length_ms >= seconds * 1000).then_some(throughput),
                memory_percent: self.beside.vitals.get().map(|vitals| vitals.memory_percent()),
                utilization_percent,
            }
        };
        let changes = lock(&self.alerts).evaluate(&readings, now_ms, || self.beside.env.new_id().to_string());
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
                    self.post("triggered", alert.watched, &view, now_ms);
                    said.push(Lifecycle(Kind::AlertTriggered, view));
                }
                Change::Resolved(alert) => {
                    let mut view = alert.view(&context);
                    view["resolvedAt"] = now_ms.into();
                    tracing::info!(metric = alert.watched.as_str(), value = alert.value, "an alert is over");
                    self.post("resolved", alert.watched, &view, now_ms);
                    said.push(Lifecycle(Kind::AlertResolved, view));
                }
            }
        }
        self.beside.host.lifecycle(said);
    }

    fn post(&self, what: &str, watched: Watched, alert: &Value, now_ms: u64) {
        if let Some(webhook) = &self.webhook {
            webhook.send(what, watched, alert, now_ms);
        }
    }
}
