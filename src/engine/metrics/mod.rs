//! Counters of a bus: atomics on the hot path, figures when asked.
//!
//! Reading order: [`histogram`], [`types`], [`mistakes`], [`exposition`] (how Prometheus is told); then what holds them together, and the
//! last five minutes by the second.

mod exposition;
pub mod histogram;
mod mistakes;
pub mod types;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use super::env::{Env, lock};
use super::error::{Code, Error};
use super::store::{Appended, DeadReason, NewEvent};
pub use exposition::Exposition;
use mistakes::Mistakes;
use types::{LastType, OfType, Types};

/// Seconds over which the throughput is shown, and peaks are found.
const THROUGHPUT_S: u64 = 10;
/// Seconds over which the error rate is shown, and that are kept.
pub const RECENT_S: u64 = 300;
/// The present one is beside those.
const KEPT_S: u64 = RECENT_S + 1;
/// Points in which they are shown.
pub const POINTS: u64 = 30;

/// Counts of one second.
#[derive(Clone, Copy, Default)]
struct Second {
    at: u64,
    published: u64,
    deliveries: u64,
    failed: u64,
    processed: u64,
    processing_ns: u64,
    waited: u64,
    waited_ns: u64,
}

impl Second {
    fn add(&mut self, other: &Self) {
        self.published += other.published;
        self.deliveries += other.deliveries;
        self.failed += other.failed;
        self.processed += other.processed;
        self.processing_ns += other.processing_ns;
        self.waited += other.waited;
        self.waited_ns += other.waited_ns;
    }

    /// Published and handled in the same process, an event is one.
    fn events(&self) -> u64 {
        self.published.max(self.deliveries)
    }
}

/// What happened in a few seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Point {
    /// Events published, or deliveries that ended if they were more, a second.
    pub events_per_second: f64,
    /// From an event's entry in its stream to the end of its handlers, ms on average.
    pub latency_ms: f64,
    /// Deliveries that failed, percent.
    pub error_rate_percent: f64,
}

#[allow(clippy::cast_precision_loss)] // figures shown
impl Point {
    fn of(sum: &Second, seconds: f64) -> Self {
        let ms = |ns: u64, count: u64| if count == 0 { 0.0 } else { ns as f64 / 1e6 / count as f64 };
        Self {
            events_per_second: sum.events() as f64 / seconds.max(1.0),
            latency_ms: ms(sum.waited_ns, sum.waited) + ms(sum.processing_ns, sum.processed),
            error_rate_percent: if sum.deliveries == 0 { 0.0 } else { sum.failed as f64 * 100.0 / sum.deliveries as f64 },
        }
    }
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
    processing_ns: AtomicU64,
    processed: AtomicU64,
    /// By event type.
    pub types: Types,
    /// Errors of handlers.
    pub mistakes: Mistakes,
    publish_errors: Mutex<BTreeMap<&'static str, u64>>,
    dead_lettered: Mutex<BTreeMap<&'static str, u64>>,
    /// Whether the server is there, as far as is known.
    pub connected: AtomicBool,
    /// Times that the server was there again.
    pub reconnects: AtomicU64,
    /// Stored events that Redis lost.
    pub lost: AtomicU64,
    recent: Mutex<Recent>,
}

struct Recent {
    seconds: Box<[Second]>,
    peak: f64,
}

impl Metrics {
    /// All zero.
    pub fn new(env: Env) -> Self {
        let seconds = vec![Second::default(); usize::try_from(KEPT_S).expect("a small constant")].into_boxed_slice();
        Self {
            env,
            published: AtomicU64::new(0),
            consumed: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            in_flight: AtomicUsize::new(0),
            dead_letters: AtomicU64::new(0),
            processing_ns: AtomicU64::new(0),
            processed: AtomicU64::new(0),
            types: Types::default(),
            mistakes: Mistakes::default(),
            publish_errors: Mutex::default(),
            dead_lettered: Mutex::default(),
            connected: AtomicBool::new(false),
            reconnects: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            recent: Mutex::new(Recent { seconds, peak: 0.0 }),
        }
    }

    fn count(&self, more: &Second) {
        let now = self.env.now_ms() / 1000;
        let mut recent = lock(&self.recent);
        let index = usize::try_from(now % KEPT_S).expect("below a small constant");
        if recent.seconds[index].at != now {
            recent.seconds[index] = Second { at: now, ..Second::default() };
        }
        recent.seconds[index].add(more);
        #[allow(clippy::cast_precision_loss)] // counts
        let rate = recent.seconds[index].events() as f64;
        recent.peak = recent.peak.max(rate);
    }

    /// Events on their way to the store, by type: to be told by [`Metrics::stored`] what became of them.
    pub fn storing(&self, events: &[NewEvent]) -> Runs {
        self.runs(events.iter().map(|event| &event.partition.event_type))
    }

    fn runs<'a>(&self, event_types: impl Iterator<Item = &'a Arc<str>>) -> Runs {
        let mut runs: Vec<(Arc<OfType>, usize)> = Vec::new();
        let mut last: Option<&Arc<str>> = None;
        for event_type in event_types {
            match runs.last_mut() {
                Some((_, count)) if last.is_some_and(|last| Arc::ptr_eq(last, event_type) || last == event_type) => *count += 1,
                _ => runs.push((self.types.of(event_type), 1)),
            }
            last = Some(event_type);
        }
        Runs(runs)
    }

    /// The store answered after `took`; one result an event, in their order.
    pub fn stored(&self, Runs(runs): Runs, results: &[Result<Appended, Error>], took: Duration) {
        let (mut at, mut published) = (0, 0);
        for (kind, count) in runs {
            let of_type = results.get(at..(at + count).min(results.len())).unwrap_or_default();
            at += count;
            let stored = of_type.iter().filter(|result| matches!(result, Ok(Appended::Stored))).count() as u64;
            kind.published.fetch_add(stored, Ordering::Relaxed);
            kind.publish_time.add(took, stored);
            published += stored;
        }
        self.published.fetch_add(published, Ordering::Relaxed);
        self.count(&Second { published, ..Second::default() });
    }

    /// Events were sent to the subscribers of the moment.
    pub fn cast<'a>(&self, event_types: impl Iterator<Item = &'a Arc<str>>, took: Duration) {
        let mut published = 0;
        for (kind, count) in self.runs(event_types).0 {
            kind.published.fetch_add(count as u64, Ordering::Relaxed);
            kind.publish_time.add(took, count as u64);
            published += count as u64;
        }
        self.published.fetch_add(published, Ordering::Relaxed);
        self.count(&Second { published, ..Second::default() });
    }

    /// A publish failed.
    pub fn refused(&self, error: &Error) {
        // Whoever gave it up knows.
        if error.code != Code::Aborted {
            *lock(&self.publish_errors).entry(error.code.as_str()).or_default() += 1;
        }
    }

    /// Handlers are called with so many events, which were in their streams for that long together; once a round.
    pub fn waited(&self, waited: u64, sum: Duration) {
        if waited > 0 {
            self.count(&Second { waited, waited_ns: u64::try_from(sum.as_nanos()).unwrap_or(u64::MAX), ..Second::default() });
        }
    }

    /// Takes in deliveries that are settled.
    pub fn settling(&self) -> Settling<'_> {
        Settling { metrics: self, last: LastType::default(), sum: Second::default() }
    }

    /// Dead letters in the store, as last sampled.
    pub fn set_dead_letters(&self, count: u64) {
        self.dead_letters.store(count, Ordering::Relaxed);
    }

    /// As last sampled, and what came since.
    pub fn dead_letters(&self) -> u64 {
        self.dead_letters.load(Ordering::Relaxed)
    }

    /// A dead letter more than when last sampled.
    pub fn add_dead_letter(&self, event_type: &Arc<str>, reason: DeadReason) {
        self.dead_letters.fetch_add(1, Ordering::Relaxed);
        self.types.of(event_type).dead_lettered.fetch_add(1, Ordering::Relaxed);
        *lock(&self.dead_lettered).entry(reason.as_str()).or_default() += 1;
    }

    /// A group did not get an event before its ttl was over.
    pub fn add_expired(&self, event_type: &Arc<str>) {
        self.types.of(event_type).expired.fetch_add(1, Ordering::Relaxed);
    }

    /// Failed publishes by code, and dead letters by reason.
    pub fn mishaps(&self) -> (BTreeMap<&'static str, u64>, BTreeMap<&'static str, u64>) {
        (lock(&self.publish_errors).clone(), lock(&self.dead_lettered).clone())
    }

    /// The last seconds, up to [`RECENT_S`] of them, of which the present one is the last.
    fn last(&self, seconds: u64) -> Second {
        let now = self.env.now_ms() / 1000;
        let recent = lock(&self.recent);
        let mut sum = Second::default();
        recent.seconds.iter().filter(|s| s.at + seconds > now && s.at <= now).for_each(|s| sum.add(s));
        sum
    }

    /// What happened in the last seconds, up to [`RECENT_S`] of them.
    pub fn recent(&self, seconds: u64) -> Point {
        Point::of(&self.last(seconds), self.length_s(seconds))
    }

    /// How long they are: the present one is not over.
    #[allow(clippy::cast_precision_loss)] // s
    fn length_s(&self, seconds: u64) -> f64 {
        (seconds - 1) as f64 + (self.env.now_ms() % 1000) as f64 / 1000.0
    }

    /// The last five minutes in [`POINTS`] of the same length, each with its end, seconds since 1970; the last second is the one
    /// before this, which is whole.
    pub fn points(&self) -> Vec<(u64, Point)> {
        let end = self.env.now_ms() / 1000;
        let length = RECENT_S / POINTS;
        let mut sums = vec![Second::default(); usize::try_from(POINTS).expect("a small constant")];
        let recent = lock(&self.recent);
        for second in recent.seconds.iter().filter(|s| s.at < end && s.at + RECENT_S >= end) {
            let back = usize::try_from((end - 1 - second.at) / length).expect("below a small constant");
            if let Some(at) = sums.len().checked_sub(back + 1) {
                sums[at].add(second);
            }
        }
        let ends = (1..=POINTS).map(|n| end - RECENT_S + n * length);
        #[allow(clippy::cast_precision_loss)] // s
        let length = length as f64;
        ends.zip(sums.iter().map(|sum| Point::of(sum, length))).collect()
    }

    /// How many handlers were called for the first time with an event in the last `seconds`.
    pub fn first_calls(&self, seconds: u64) -> u64 {
        self.last(seconds).waited
    }

    /// Deliveries in the last `seconds`.
    pub fn deliveries(&self, seconds: u64) -> u64 {
        self.last(seconds).deliveries
    }

    /// Time of handlers, ms on average over the last [`RECENT_S`] seconds.
    pub fn processing_ms(&self) -> f64 {
        let sum = self.last(RECENT_S);
        #[allow(clippy::cast_precision_loss)] // an average
        let average = sum.processing_ns as f64 / 1e6 / sum.processed.max(1) as f64;
        average
    }

    /// `EventBusMetrics`; `utilization` of the connection pool in percent.
    #[allow(clippy::cast_precision_loss)] // counts shown
    pub fn snapshot(&self, utilization: f64) -> Value {
        let processed = self.processed.load(Ordering::Relaxed).max(1);
        json!({
            "eventsPublished": self.published.load(Ordering::Relaxed),
            "eventsConsumed": self.consumed.load(Ordering::Relaxed),
            "eventsInFlight": self.in_flight.load(Ordering::Relaxed),
            "eventsFailed": self.failed.load(Ordering::Relaxed),
            "eventsInDLQ": self.dead_letters(),
            "avgProcessingTime": self.processing_ns.load(Ordering::Relaxed) as f64 / 1e6 / processed as f64,
            "peakEventsPerSecond": lock(&self.recent).peak,
            "currentThroughput": self.recent(THROUGHPUT_S).events_per_second,
            "errorRate": self.recent(RECENT_S).error_rate_percent,
            "connectionPoolUtilization": utilization,
        })
    }
}

/// Events in order, as runs of one type.
pub struct Runs(Vec<(Arc<OfType>, usize)>);

/// Deliveries that are settled together; counted for good when it is dropped.
pub struct Settling<'a> {
    metrics: &'a Metrics,
    last: LastType,
    sum: Second,
}

impl Settling<'_> {
    /// A delivery was acknowledged after its handlers took so long, where that is known.
    pub fn consumed(&mut self, event_type: &Arc<str>, took: Option<Duration>) {
        let kind = self.last.of(&self.metrics.types, event_type);
        kind.consumed.fetch_add(1, Ordering::Relaxed);
        if let Some(took) = took {
            kind.processing_time.add(took, 1);
        }
        self.ended(took);
    }

    /// A delivery failed after so long, where handlers ran; `retried`: it comes again.
    pub fn failed(&mut self, event_type: &Arc<str>, took: Option<Duration>, error: Option<&str>, retried: bool) {
        let kind = self.last.of(&self.metrics.types, event_type);
        kind.failed.fetch_add(1, Ordering::Relaxed);
        kind.retried.fetch_add(u64::from(retried), Ordering::Relaxed);
        if let Some(took) = took {
            kind.processing_time.add(took, 1);
        }
        if let Some(error) = error {
            self.metrics.mistakes.add(error);
        }
        self.sum.failed += 1;
        self.ended(took);
    }

    fn ended(&mut self, took: Option<Duration>) {
        self.sum.deliveries += 1;
        if let Some(took) = took {
            self.sum.processed += 1;
            self.sum.processing_ns += u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        }
    }
}

impl Drop for Settling<'_> {
    fn drop(&mut self) {
        let Second { deliveries, failed, processed, processing_ns, .. } = self.sum;
        if deliveries == 0 {
            return;
        }
        self.metrics.consumed.fetch_add(deliveries - failed, Ordering::Relaxed);
        self.metrics.failed.fetch_add(failed, Ordering::Relaxed);
        self.metrics.processing_ns.fetch_add(processing_ns, Ordering::Relaxed);
        self.metrics.processed.fetch_add(processed, Ordering::Relaxed);
        self.metrics.count(&self.sum);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settle(metrics: &Metrics, consumed: usize, failed: usize, ms: u64) {
        let (event_type, took) = ("a".into(), Some(Duration::from_millis(ms)));
        let mut settling = metrics.settling();
        for _ in 0..consumed {
            settling.consumed(&event_type, took);
        }
        for _ in 0..failed {
            settling.failed(&event_type, took, Some("no"), true);
        }
    }

    fn publish(metrics: &Metrics, count: usize) {
        let event_types: Vec<Arc<str>> = vec!["a".into(); count];
        metrics.cast(event_types.iter(), Duration::from_millis(2));
    }

    #[tokio::test(start_paused = true)]
    async fn rates_look_back_over_their_windows_only() {
        let metrics = Metrics::new(Env::seeded(1));
        publish(&metrics, 100);
        settle(&metrics, 3, 1, 1);
        let now = metrics.snapshot(0.0);
        // Nine seconds and the beginning of this one.
        assert_eq!((now["currentThroughput"].as_f64(), now["errorRate"].as_f64()), (Some(100.0 / 9.0), Some(25.0)));
        assert_eq!((now["avgProcessingTime"].as_f64(), now["peakEventsPerSecond"].as_f64()), (Some(1.0), Some(100.0)));
        tokio::time::advance(Duration::from_secs(11)).await;
        let later = metrics.snapshot(0.0);
        assert_eq!((later["currentThroughput"].as_f64(), later["errorRate"].as_f64()), (Some(0.0), Some(25.0)));
        tokio::time::advance(Duration::from_secs(300)).await;
        assert_eq!(metrics.snapshot(0.0)["errorRate"].as_f64(), Some(0.0));
        assert_eq!(metrics.snapshot(0.0)["eventsPublished"], 100);
    }

    #[tokio::test(start_paused = true)]
    async fn five_minutes_are_thirty_points_that_hold_all_of_them_once() {
        let metrics = Metrics::new(Env::seeded(1));
        for _ in 0..310 {
            publish(&metrics, 5);
            settle(&metrics, 1, 1, 4);
            metrics.waited(2, Duration::from_millis(12));
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        // What happens in the present second pushes nothing out.
        publish(&metrics, 5);
        let points = metrics.points();
        assert_eq!(points.len(), 30);
        assert!(points.windows(2).all(|pair| pair[1].0 - pair[0].0 == 10));
        let same = Point { events_per_second: 5.0, latency_ms: 10.0, error_rate_percent: 50.0 };
        assert!(points.iter().all(|(_, point)| *point == same), "{points:?}");
        tokio::time::advance(Duration::from_secs(20)).await;
        let points = metrics.points();
        let once = Point { events_per_second: 0.5, ..Point::default() };
        assert_eq!((points[29].1, points[28].1, points[27].1), (Point::default(), once, same));
    }

    #[tokio::test(start_paused = true)]
    async fn publishes_are_counted_by_type_and_failed_ones_by_code() {
        let metrics = Metrics::new(Env::seeded(1));
        let types: Vec<Arc<str>> = vec!["a".into(), "a".into(), "b".into()];
        let runs = metrics.runs(types.iter());
        let results = [Ok(Appended::Stored), Err(Error::closed("the bus")), Ok(Appended::Duplicate("first".into()))];
        metrics.stored(runs, &results, Duration::from_millis(3));
        let of = |name: &str| metrics.types.of(&name.into()).read();
        assert_eq!((of("a").published, of("b").published), (1, 0));
        assert_eq!((of("a").publish_time.count(), of("b").publish_time.count()), (1, 0));
        metrics.refused(&Error::closed("the bus"));
        metrics.refused(&Error::new(Code::Aborted, "given up"));
        metrics.add_dead_letter(&"b".into(), DeadReason::Expired);
        let (errors, dead) = metrics.mishaps();
        assert_eq!((errors, dead), (BTreeMap::from([("ERR_CLOSED", 1)]), BTreeMap::from([("expired", 1)])));
        assert_eq!((metrics.snapshot(0.0)["eventsInDLQ"].as_u64(), of("b").dead_lettered), (Some(1), 1));
    }
}
