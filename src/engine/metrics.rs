//! Counters of a bus: atomics on the hot path, figures when asked.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use serde_json::{Value, json};

use super::env::{Env, lock};

/// Seconds over which the throughput is shown, and peaks are found.
const THROUGHPUT_S: u64 = 10;
/// Seconds over which the error rate is shown.
const ERROR_RATE_S: u64 = 300;

/// Counts of one second.
#[derive(Clone, Copy, Default)]
struct Second {
    at: u64,
    published: u64,
    deliveries: u64,
    failed: u64,
}

/// Counters of one bus.
pub struct Metrics {
    env: Env,
    published: AtomicU64,
    consumed: AtomicU64,
    failed: AtomicU64,
    /// Handlers running.
    pub in_flight: AtomicUsize,
    dead_letters: AtomicU64,
    processing_us: AtomicU64,
    processed: AtomicU64,
    recent: Mutex<Recent>,
}

struct Recent {
    seconds: Box<[Second]>,
    peak: f64,
}

impl Metrics {
    /// All zero.
    pub fn new(env: Env) -> Self {
        let seconds = vec![Second::default(); usize::try_from(ERROR_RATE_S).expect("a small constant")].into_boxed_slice();
        Self {
            env,
            published: AtomicU64::new(0),
            consumed: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            in_flight: AtomicUsize::new(0),
            dead_letters: AtomicU64::new(0),
            processing_us: AtomicU64::new(0),
            processed: AtomicU64::new(0),
            recent: Mutex::new(Recent { seconds, peak: 0.0 }),
        }
    }

    fn count(&self, add: impl FnOnce(&mut Second)) {
        let now = self.env.now_ms() / 1000;
        let mut recent = lock(&self.recent);
        let index = usize::try_from(now % ERROR_RATE_S).expect("below a small constant");
        if recent.seconds[index].at != now {
            recent.seconds[index] = Second { at: now, ..Second::default() };
        }
        add(&mut recent.seconds[index]);
        #[allow(clippy::cast_precision_loss)] // counts
        let rate = (recent.seconds[index].published.max(recent.seconds[index].deliveries)) as f64;
        recent.peak = recent.peak.max(rate);
    }

    /// Events published, once a batch.
    pub fn add_published(&self, count: u64) {
        self.published.fetch_add(count, Ordering::Relaxed);
        self.count(|second| second.published += count);
    }

    /// Deliveries settled, once a batch: how many were acknowledged, how many failed, and their handlers' time.
    pub fn add_settled(&self, acknowledged: u64, failed: u64, processing_us: u64) {
        self.consumed.fetch_add(acknowledged, Ordering::Relaxed);
        self.failed.fetch_add(failed, Ordering::Relaxed);
        self.processing_us.fetch_add(processing_us, Ordering::Relaxed);
        self.processed.fetch_add(acknowledged + failed, Ordering::Relaxed);
        self.count(|second| {
            second.deliveries += acknowledged + failed;
            second.failed += failed;
        });
    }

    /// Dead letters in the store, as last sampled.
    pub fn set_dead_letters(&self, count: u64) {
        self.dead_letters.store(count, Ordering::Relaxed);
    }

    /// A dead letter more than when last sampled.
    pub fn add_dead_letter(&self) {
        self.dead_letters.fetch_add(1, Ordering::Relaxed);
    }

    /// `EventBusMetrics`; `utilization` of the connection pool in percent.
    #[allow(clippy::cast_precision_loss)] // counts shown
    pub fn snapshot(&self, utilization: f64) -> Value {
        let now = self.env.now_ms() / 1000;
        let recent = lock(&self.recent);
        let sum = |seconds: u64, of: fn(&Second) -> u64| -> u64 {
            recent.seconds.iter().filter(|s| s.at + seconds > now && s.at <= now).map(of).sum()
        };
        let deliveries = sum(ERROR_RATE_S, |s| s.deliveries);
        let failed = sum(ERROR_RATE_S, |s| s.failed);
        let processed = self.processed.load(Ordering::Relaxed).max(1);
        let moved = sum(THROUGHPUT_S, |s| s.published).max(sum(THROUGHPUT_S, |s| s.deliveries));
        json!({
            "eventsPublished": self.published.load(Ordering::Relaxed),
            "eventsConsumed": self.consumed.load(Ordering::Relaxed),
            "eventsInFlight": self.in_flight.load(Ordering::Relaxed),
            "eventsFailed": self.failed.load(Ordering::Relaxed),
            "eventsInDLQ": self.dead_letters.load(Ordering::Relaxed),
            "avgProcessingTime": self.processing_us.load(Ordering::Relaxed) as f64 / 1000.0 / processed as f64,
            "peakEventsPerSecond": recent.peak,
            "currentThroughput": moved as f64 / THROUGHPUT_S as f64,
            "errorRate": if deliveries == 0 { 0.0 } else { failed as f64 * 100.0 / deliveries as f64 },
            "connectionPoolUtilization": utilization,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn rates_look_back_over_their_windows_only() {
        let metrics = Metrics::new(Env::seeded(1));
        metrics.add_published(100);
        metrics.add_settled(3, 1, 4000);
        let now = metrics.snapshot(0.0);
        assert_eq!((now["currentThroughput"].as_f64(), now["errorRate"].as_f64()), (Some(10.0), Some(25.0)));
        assert_eq!((now["avgProcessingTime"].as_f64(), now["peakEventsPerSecond"].as_f64()), (Some(1.0), Some(100.0)));
        tokio::time::advance(Duration::from_secs(11)).await;
        let later = metrics.snapshot(0.0);
        assert_eq!((later["currentThroughput"].as_f64(), later["errorRate"].as_f64()), (Some(0.0), Some(25.0)));
        tokio::time::advance(Duration::from_secs(300)).await;
        assert_eq!(metrics.snapshot(0.0)["errorRate"].as_f64(), Some(0.0));
        assert_eq!(metrics.snapshot(0.0)["eventsPublished"], 100);
    }
}
