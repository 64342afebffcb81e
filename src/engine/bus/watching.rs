//! How a bus is, and what it did: health, figures, alerts.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::{Bus, Running};
use crate::engine::config::HealthCheck;
use crate::engine::consume::Consumer;
use crate::engine::env::lock;
use crate::engine::error::{Code, Error, Result};
use crate::engine::health::{Critical, Health, Reading, grade};
use crate::engine::host::{Kind, Lifecycle};
use crate::engine::integration::Integration;
use crate::engine::log::failed;
use crate::engine::metrics::{Exposition, RECENT_S};
use crate::engine::monitoring::{self, Around, Monitoring};
use crate::engine::store::Topology;
use crate::engine::vitals::Vitals;

/// How many times as long as it took a look at all groups holds.
const GROUPS_FRESH: u32 = 20;

/// Whether there is anything to collect for.
pub(super) fn collects(settings: &monitoring::Settings) -> bool {
    settings.config.metrics.enabled || settings.config.alerting.enabled
}

impl Bus {
    /// From the next [`Bus::connect`] on it is monitored.
    pub fn with_monitoring(&self, config: crate::engine::config::MonitoringConfig) {
        let service = self.config.service_name.clone().unwrap_or_else(|| config.tracing.service_name.clone());
        *lock(&self.monitored) = Some(monitoring::Settings { config, service });
    }

    /// How the process is now.
    pub fn set_vitals(&self, vitals: Vitals) {
        self.vitals.set(vitals);
    }

    /// `EventBusMetrics`.
    pub fn metrics(&self) -> Value {
        self.metrics.snapshot(self.store.utilization())
    }

    /// Checks of health as configured; `None` for a bus that has none of its own.
    fn health_check(&self) -> Option<HealthCheck> {
        lock(&self.monitored).as_ref().map(|settings| settings.config.health_check.clone())
    }

    /// Judges health, where the bus works or not; asks nobody.
    pub(super) fn look_at_health(&self) -> impl Fn(bool) -> (Health, Reading) + Send + Sync + 'static {
        let (store, metrics, vitals) = (self.store.clone(), self.metrics.clone(), self.vitals.clone());
        let critical = self.health_check().as_ref().map(Critical::from);
        move |works| {
            let lately = metrics.recent(RECENT_S);
            let reading = Reading {
                works,
                deliveries: metrics.deliveries(RECENT_S),
                error_rate_percent: lately.error_rate_percent,
                calls: metrics.first_calls(RECENT_S),
                latency_ms: lately.latency_ms,
                utilization_percent: store.utilization(),
                memory_percent: vitals.get().map(|vitals| vitals.memory_percent()),
            };
            (grade(&reading, critical.as_ref()), reading)
        }
    }

    /// Says when the health changes: looks at it as often as `eventBus.monitoring` says, and as `monitoring.healthCheck` does.
    pub(super) fn watch_health(&self, consumer: &Arc<Consumer>) -> Vec<tokio::task::JoinHandle<()>> {
        let own = self.health_check().filter(|check| check.enabled).map(|check| check.interval_ms);
        let look = Arc::new(self.look_at_health());
        let watch = |every_ms| {
            let (look, consumer) = (look.clone(), Arc::downgrade(consumer));
            let (store, host, env, checks) = (self.store.clone(), self.host.clone(), self.env.clone(), self.checks.clone());
            self.env.spawn(async move {
                loop {
                    tokio::time::sleep(Duration::from_millis(every_ms)).await;
                    let connected = store.status().await.connected;
                    let Some(consumer) = consumer.upgrade() else { return };
                    let (health, _) = look(connected && consumer.defect().is_none());
                    if let Some(before) = checks.note(env.now_ms(), health) {
                        let about = json!({ "status": health.as_str(), "previous": before.as_str() });
                        host.lifecycle(vec![Lifecycle(Kind::HealthChanged, about)]);
                    }
                }
            })
        };
        own.into_iter().chain([self.config.monitoring.health_check_interval_ms]).map(watch).collect()
    }

    /// `EventBusStatus`, with times as ms. Never fails: that the server is away is what it says.
    pub async fn status(&self) -> Value {
        let status = self.store.status().await;
        let topology = if status.connected { self.store.topology().await.unwrap_or_default() } else { Topology::default() };
        let metrics = self.metrics.snapshot(status.utilization);
        let subscriptions = self.running().map_or(0, |running| running.consumer.subscriptions.load(Ordering::Relaxed));
        let (health, _) = self.look_at_health()(status.connected && self.is_well());
        json!({
            "status": health.as_str(),
            "redis": {
                "connected": status.connected,
                "cluster": status.cluster,
                "nodes": status.nodes.iter().map(|(host, port, state)| json!({ "host": host, "port": port, "status": state })).collect::<Vec<_>>(),
            },
            "subscriptions": subscriptions,
            "streams": topology.types.len(),
            "metrics": metrics,
            "lastHealthCheck": self.env.now_ms(),
        })
    }

    /// What `healthCheck()` says of the process: figures, and what is beyond its critical threshold.
    pub fn process_health(&self) -> Value {
        let (_, reading) = self.look_at_health()(true);
        let critical = self.health_check().as_ref().map(Critical::from);
        let problems = critical.map(|critical| critical.problems(&reading)).unwrap_or_default();
        let vitals = self.vitals.get();
        json!({
            "problems": problems,
            "errorRate": reading.error_rate_percent,
            "latencyMs": reading.latency_ms,
            "memoryPercent": reading.memory_percent,
            "cpuPercent": vitals.map(|vitals| vitals.cpu_percent),
            "eventLoopLagMs": vitals.map(|vitals| vitals.event_loop_lag_s * 1000.0),
            "checks": self.checks.checks().iter().map(|(at, health)| json!({ "at": at, "status": health.as_str() })).collect::<Vec<_>>(),
        })
    }

    /// Metrics of this process in the text format 0.0.4.
    pub fn prometheus(&self) -> Result<String> {
        let running = self.running()?;
        let mut own = Exposition::default();
        Self::monitoring_of(&running)?.expose(&mut own)?;
        if let Some(orchestration) = &running.orchestration {
            orchestration.expose(&mut own);
        }
        let spans = self.trace_counts().unwrap_or_default();
        own.counter("ossa_tracing_spans_exported_total", "Spans that an endpoint took.", spans.exported);
        own.counters("ossa_tracing_spans_dropped_total", "Spans that no endpoint took.", "reason", spans.dropped());
        let projects = running.projects.as_ref().map(|projects| projects.metrics());
        let services = running.integration.get().map(Integration::metrics);
        [own.text()].into_iter().chain(projects).chain(services).collect()
    }

    /// `Analytics` with times as ms.
    pub fn analytics(&self, window_s: Option<f64>) -> Result<Value> {
        Self::monitoring_of(&*self.running()?)?.analytics(window_s)
    }

    /// `AlertEvent[]` with times as ms; none where there is no monitoring.
    pub fn active_alerts(&self) -> Result<Value> {
        Ok(self.running()?.monitoring.as_ref().map_or_else(|| json!([]), Monitoring::active_alerts))
    }

    /// `MonitoringStats`.
    pub fn monitoring_stats(&self) -> Result<Value> {
        let mut stats = Self::monitoring_of(&*self.running()?)?.stats();
        stats["healthHistorySize"] = self.checks.checks().len().into();
        stats["activeTraces"] = self.trace_counts().map_or(0, |counts| counts.active).into();
        Ok(stats)
    }

    /// `GroupView[]`. Looking at many streams takes the server's time: it is not asked again before twenty times as much has passed.
    pub async fn groups(&self) -> Result<Value> {
        self.running()?;
        let mut known = self.groups.lock().await;
        if let Some((until, groups)) = &*known
            && Instant::now() < *until
        {
            return Ok(groups.clone());
        }
        let began = Instant::now();
        let groups = monitoring::groups(&self.store).await?;
        *known = Some((Instant::now() + began.elapsed() * GROUPS_FRESH, groups.clone()));
        Ok(groups)
    }

    /// `DashboardData` with times as ms.
    pub async fn dashboard(&self) -> Result<Value> {
        let running = self.running()?;
        let monitoring = Self::monitoring_of(&running)?;
        let works = self.metrics.connected.load(Ordering::Relaxed) && self.is_well();
        let (health, _) = self.look_at_health()(works);
        let projects = match &running.projects {
            Some(projects) => projects.sent().await.unwrap_or_else(|error| {
                failed!(error, "messages between projects cannot be counted");
                Vec::new()
            }),
            None => Vec::new(),
        };
        monitoring.dashboard(Around { health, projects }).await
    }

    fn monitoring_of(running: &Running) -> Result<&Monitoring> {
        let off = || {
            let why = "metrics and alerts are switched off (monitoring.metrics.enabled, monitoring.alerting.enabled)";
            Error::new(Code::Disabled, why).with("path", "monitoring.metrics.enabled")
        };
        running.monitoring.as_ref().ok_or_else(off)
    }
}
