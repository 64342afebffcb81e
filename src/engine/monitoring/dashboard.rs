//! What the dashboard shows, and what Prometheus is told: figures that were measured, and no others.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::Shared;
use super::alerts::Watched;
use crate::engine::env::lock;
use crate::engine::error::Result;
use crate::engine::health::Health;
use crate::engine::log::failed;
use crate::engine::metrics::types::Figures;
use crate::engine::metrics::{Exposition, POINTS, RECENT_S};
use crate::engine::store::Partition;

/// Rows of each list.
const TOP: usize = 10;
/// What the store said of all processes holds for so many times as long as it took to ask: many may look at once.
const TOTALS_FRESH: u32 = 20;

/// What others know, who are not asked here.
pub struct Around {
    /// How the bus is.
    pub health: Health,
    /// Projects and the messages that they sent, over all processes.
    pub projects: Vec<(String, u64)>,
}

/// Events ever stored, by type, over all processes, and until when that holds.
#[derive(Default)]
pub(super) struct Totals(tokio::sync::Mutex<Option<(Instant, BTreeMap<String, u64>)>>);

impl Shared {
    /// Events by type over all processes, as the store counts them; what this process published while the store cannot say and never
    /// did.
    async fn totals(&self) -> BTreeMap<String, u64> {
        let mut known = self.totals.0.lock().await;
        let began = Instant::now();
        if let Some((at, totals)) = &*known
            && Instant::now() < *at
        {
            return totals.clone();
        }
        match self.count_added().await {
            Ok(totals) => *known = Some((Instant::now() + began.elapsed() * TOTALS_FRESH, totals)),
            Err(error) => failed!(error, "events of all processes cannot be counted"),
        }
        let here = || self.beside.metrics.types.all().iter().map(|kind| (kind.name.to_string(), kind.read().published)).collect();
        known.as_ref().map_or_else(here, |(_, totals)| totals.clone())
    }

    async fn count_added(&self) -> Result<BTreeMap<String, u64>> {
        let store = &self.beside.store;
        let partitions: Vec<Partition> = store.topology().await?.partitions;
        let mut totals = BTreeMap::new();
        for (partition, added) in partitions.iter().zip(store.added(&partitions).await?) {
            *totals.entry(partition.event_type.to_string()).or_default() += added;
        }
        Ok(totals)
    }

    /// `DashboardData` with times as ms.
    pub(super) async fn dashboard(&self, around: Around) -> Value {
        let metrics = &self.beside.metrics;
        let totals = self.totals().await;
        let lately = metrics.recent(10);
        let points = metrics.points();
        let depths = self.depths(&points.iter().map(|(end_s, _)| end_s * 1000).collect::<Vec<_>>());
        let column = |of: fn(&crate::engine::metrics::Point) -> f64| points.iter().map(|(_, point)| of(point)).collect::<Vec<_>>();
        let mut types: Vec<(&String, &u64)> = totals.iter().filter(|(_, count)| **count > 0).collect();
        types.sort_by(|a, b| b.1.cmp(a.1).then_with(|| a.0.cmp(b.0)));
        let mut projects = around.projects;
        projects.retain(|(_, events)| *events > 0);
        projects.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        json!({
            "overview": {
                "status": around.health.as_str(),
                "uptime": self.uptime_s(),
                "totalEvents": totals.values().sum::<u64>(),
                "currentTPS": lately.events_per_second,
                "errorRate": metrics.recent(RECENT_S).error_rate_percent,
            },
            "realtime": {
                "eventsPerSecond": column(|point| point.events_per_second),
                "latency": column(|point| point.latency_ms),
                "errorRate": column(|point| point.error_rate_percent),
                "queueDepth": depths,
                "timestamp": points.iter().map(|(end_s, _)| end_s * 1000).collect::<Vec<_>>(),
            },
            "topMetrics": {
                "topEventTypes": types.iter().take(TOP).map(|(name, count)| json!({ "type": name, "count": count })).collect::<Vec<_>>(),
                "topProjects": projects.iter().take(TOP).map(|(project, events)| json!({ "project": project, "events": events })).collect::<Vec<_>>(),
                "slowestOperations": self.slowest(),
                "errorsByType": self.errors(),
            },
            "activeAlerts": lock(&self.alerts).active().iter().map(|alert| alert.view(&self.context())).collect::<Vec<_>>(),
        })
    }

    /// What waited at these times, ms since 1970, as far as it was sampled; before, nothing is known to have waited.
    fn depths(&self, at_ms: &[u64]) -> Vec<u64> {
        let samples = lock(&self.depths);
        at_ms.iter().map(|at| samples.iter().rev().find(|(sampled, _)| sampled <= at).map_or(0, |(_, depth)| *depth)).collect()
    }

    /// Publishing and handling by type, by their average in the longest window of at most five minutes.
    fn slowest(&self) -> Vec<Value> {
        let mut windows = lock(&self.windows);
        windows.collect(&self.beside.metrics.types, self.clock_ms());
        let seconds = windows.lengths_s().into_iter().filter(|length| *length <= RECENT_S).max().unwrap_or_else(|| windows.shortest_s());
        let by_type = windows.read(seconds).map(|analysis| analysis.by_type).unwrap_or_default();
        let operations = |(name, figures): &(std::sync::Arc<str>, Figures)| {
            let of = |what: &str, times: &crate::engine::metrics::histogram::Times| (format!("{what} {name}"), times.average_ms());
            [of("publish", &figures.publish_time), of("process", &figures.processing_time)]
        };
        let mut all: Vec<(String, f64)> = by_type.iter().flat_map(operations).filter(|(_, average)| *average > 0.0).collect();
        all.sort_by(|a, b| b.1.total_cmp(&a.1));
        all.into_iter().take(TOP).map(|(operation, average)| json!({ "operation": operation, "avgTime": average })).collect()
    }

    /// Errors of handlers by what they say, and of publishes by code.
    fn errors(&self) -> Vec<Value> {
        let metrics = &self.beside.metrics;
        let mut all = metrics.mistakes.top(TOP);
        all.extend(metrics.mishaps().0.into_iter().map(|(code, count)| (code.to_owned(), count)));
        all.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        all.into_iter().take(TOP).map(|(error, count)| json!({ "error": error, "count": count })).collect()
    }

    /// Notes what waits now, for as long as it is shown.
    pub(super) fn note_depth(&self, depth: u64) {
        let now_ms = self.beside.env.now_ms();
        let mut samples = lock(&self.depths);
        // One more than is shown: the last one before the first point is what it begins with.
        let length_ms = RECENT_S * 1000 / POINTS;
        if samples.back().is_some_and(|(at, _)| at / length_ms == now_ms / length_ms) {
            samples.pop_back();
        }
        samples.push_back((now_ms, depth));
        while samples.len() > usize::try_from(POINTS).unwrap_or(usize::MAX) + 1 {
            samples.pop_front();
        }
    }

    /// Metrics of events, queues, the process and alerts.
    pub(super) fn expose(&self, out: &mut Exposition) {
        let metrics = &self.beside.metrics;
        let figures: Vec<(std::sync::Arc<str>, Figures)> =
            metrics.types.all().into_iter().map(|kind| (kind.name.clone(), kind.read())).collect();
        let counts = |of: fn(&Figures) -> u64| figures.iter().map(move |(name, figures)| (&**name, of(figures))).collect::<Vec<_>>();
        let by_type = "event_type";
        out.counters(
            "ossa_eventbus_events_published_total",
            "Events that this process published: stored, or sent to the subscribers of the moment.",
            by_type,
            counts(|figures| figures.published),
        );
        let help = "Events that handlers of this process handled, and that are acknowledged.";
        out.counters("ossa_eventbus_events_consumed_total", help, by_type, counts(|figures| figures.consumed));
        out.counters(
            "ossa_eventbus_events_failed_total",
            "Deliveries that failed in this process.",
            by_type,
            counts(|figures| figures.failed),
        );
        let help = "Failed deliveries of this process that are tried again.";
        out.counters("ossa_eventbus_events_retried_total", help, by_type, counts(|figures| figures.retried));
        let (publish_errors, dead_lettered) = metrics.mishaps();
        let help = "Dead letters that this process wrote.";
        out.counters("ossa_eventbus_events_dead_lettered_total", help, "reason", dead_lettered);
        let expired = figures.iter().map(|(_, figures)| figures.expired).sum();
        out.counter("ossa_eventbus_events_expired_total", "Events whose ttl was over before a group got them.", expired);
        out.counters("ossa_eventbus_publish_errors_total", "Publishes of this process that failed.", "code", publish_errors);
        let times = |of: fn(&Figures) -> &crate::engine::metrics::histogram::Times| {
            figures.iter().map(move |(name, figures)| (&**name, of(figures))).collect::<Vec<_>>()
        };
        let help = "From a publish to the store's word that the event is stored.";
        out.histograms("ossa_eventbus_publish_seconds", help, by_type, times(|figures| &figures.publish_time));
        out.histograms("ossa_eventbus_processing_seconds", "Time of handlers.", by_type, times(|figures| &figures.processing_time));
        let help = "From an event's entry in its stream to the first call of its handlers.";
        out.histograms("ossa_eventbus_end_to_end_seconds", help, by_type, times(|figures| &figures.end_to_end_time));
        let help = "Time of handlers, on average over the last five minutes.";
        out.gauge("ossa_eventbus_avg_processing_time_seconds", help, metrics.processing_ms() / 1000.0);
        self.expose_queues(out);
        self.expose_process(out);
    }

    #[allow(clippy::cast_precision_loss)] // the format's numbers
    fn expose_queues(&self, out: &mut Exposition) {
        let metrics = &self.beside.metrics;
        if let Some(queues) = &*lock(&self.queues) {
            let help = "Events that wait for the groups of this process: pending and not read yet, as last sampled.";
            out.gauge("ossa_eventbus_queue_depth", help, queues.depth() as f64);
            let of =
                |of: fn(&super::queues::Waiting) -> u64| queues.groups.iter().map(move |(name, waiting)| (&**name, of(waiting) as f64));
            let help = "Events of a group that are held, or wait for a retry.";
            out.gauges("ossa_eventbus_group_pending", help, "group", of(|waiting| waiting.pending));
            out.gauges("ossa_eventbus_group_lag", "Events that a group has not read.", "group", of(|waiting| waiting.lag));
        }
        out.gauge("ossa_eventbus_dead_letters", "Dead letters there are, of all processes.", metrics.dead_letters() as f64);
        let in_flight = metrics.in_flight.load(Ordering::Relaxed);
        out.gauge("ossa_eventbus_events_in_flight", "Events that handlers of this process have, or that wait for one.", in_flight as f64);
        let pending = self.beside.publisher.upgrade().map_or(0, |publisher| publisher.pending());
        out.gauge("ossa_eventbus_publishes_pending", "Publishes that wait for their answer.", pending as f64);
        let subscriptions = self.beside.consumer.upgrade().map_or(0, |consumer| consumer.subscriptions.load(Ordering::Relaxed));
        out.gauge("ossa_eventbus_subscriptions", "Subscriptions of this process.", subscriptions as f64);
        let help = "Places for commands in use, percent of those there are.";
        out.gauge("ossa_eventbus_connection_pool_utilization", help, self.beside.store.utilization());
        let connected = metrics.connected.load(Ordering::Relaxed);
        out.gauge("ossa_eventbus_connected", "Whether the store is there (1) or was lost (0).", if connected { 1.0 } else { 0.0 });
        let reconnects = metrics.reconnects.load(Ordering::Relaxed);
        out.counter("ossa_eventbus_reconnects_total", "Times that the store was there again after it was lost.", reconnects);
        let lost = metrics.lost.load(Ordering::Relaxed);
        out.counter("ossa_eventbus_lost_events_total", "Events of this process that the store had and lost.", lost);
    }

    #[allow(clippy::cast_precision_loss)] // the format's numbers
    fn expose_process(&self, out: &mut Exposition) {
        let active: Vec<Watched> = lock(&self.alerts).active().iter().map(|alert| alert.watched).collect();
        let raised = Watched::ALL.map(|watched| (watched.as_str(), if active.contains(&watched) { 1.0 } else { 0.0 }));
        out.gauges("ossa_eventbus_alerts_active", "Whether the bus's own alert is raised.", "metric", raised);
        if let Some(vitals) = self.beside.vitals.get() {
            let help = "CPU of the process since the measurement before, percent of one core.";
            out.gauge("ossa_system_cpu_usage_percent", help, vitals.cpu_percent);
            out.gauge("ossa_system_memory_used_bytes", "Resident memory of the process.", vitals.memory_bytes);
            let help = "Memory that the process may have: the machine's, or its container's.";
            out.gauge("ossa_system_memory_limit_bytes", help, vitals.memory_limit_bytes);
            let help = "By how much JavaScript's event loop was late since the measurement before, 99th percentile.";
            out.gauge("ossa_system_event_loop_lag_seconds", help, vitals.event_loop_lag_s);
        }
        out.gauge("ossa_system_uptime_seconds", "Time since the bus was connected.", self.uptime_s());
    }
}
