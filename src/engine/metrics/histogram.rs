//! Times, counted by how long they were: one atomic addition each, percentiles when asked.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Bounds a decade, in percent of its beginning: near the preferred numbers R20 (ISO 3). Neighbours are at most 13 % apart, so an
/// estimate in the middle of two is right within 7 %.
const STEPS: [u64; 20] = [100, 112, 126, 142, 160, 180, 200, 224, 250, 280, 315, 355, 400, 450, 500, 560, 630, 710, 800, 900];
/// From 10 µs to 1000 s.
const DECADES: usize = 8;
/// Buckets: up to each bound, and beyond the last.
pub const BUCKETS: usize = STEPS.len() * DECADES + 2;

/// The upper bound of each bucket but the last, ns.
const BOUNDS: [u64; BUCKETS - 1] = bounds();

const fn bounds() -> [u64; BUCKETS - 1] {
    let mut out = [0; BUCKETS - 1];
    let (mut at, mut scale, mut decade) = (0, 100, 0);
    while decade < DECADES {
        let mut step = 0;
        while step < STEPS.len() {
            out[at] = STEPS[step] * scale;
            (at, step) = (at + 1, step + 1);
        }
        (scale, decade) = (scale * 10, decade + 1);
    }
    out[at] = STEPS[0] * scale;
    out
}

/// What Prometheus is told of, seconds; each is one of the bounds.
pub const EXPOSED_S: [f64; 18] =
    [0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0];

fn bucket_of(ns: u64) -> usize {
    BOUNDS.partition_point(|bound| *bound < ns)
}

/// Counts times.
pub struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    sum_ns: AtomicU64,
    /// The longest since it was last taken.
    max_ns: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: [const { AtomicU64::new(0) }; BUCKETS], sum_ns: AtomicU64::new(0), max_ns: AtomicU64::new(0) }
    }
}

impl Histogram {
    /// `count` times of `time` each.
    pub fn add(&self, time: Duration, count: u64) {
        let ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.buckets[bucket_of(ns)].fetch_add(count, Ordering::Relaxed);
        self.sum_ns.fetch_add(ns.saturating_mul(count), Ordering::Relaxed);
        self.max_ns.fetch_max(ns, Ordering::Relaxed);
    }

    /// All so far.
    pub fn read(&self) -> Times {
        let mut times = Times { sum_ns: self.sum_ns.load(Ordering::Relaxed), ..Times::default() };
        for (bucket, count) in self.buckets.iter().enumerate() {
            let count = count.load(Ordering::Relaxed);
            if count > 0 {
                times.buckets.push((u8::try_from(bucket).unwrap_or(u8::MAX), count));
            }
        }
        times
    }

    /// The longest since this was asked last.
    pub fn take_max_ns(&self) -> u64 {
        self.max_ns.swap(0, Ordering::Relaxed)
    }
}

const _: () = assert!(BUCKETS <= 256, "a bucket's number is a byte");

/// Times counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// Of buckets with some, in order.
    buckets: Vec<(u8, u64)>,
    /// Of all.
    pub sum_ns: u64,
    /// The longest; 0 where it was not asked for.
    pub max_ns: u64,
}

impl Times {
    /// How many.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|(_, count)| count).sum()
    }

    /// Average, ms; 0 of none.
    pub fn average_ms(&self) -> f64 {
        let count = self.count();
        #[allow(clippy::cast_precision_loss)] // an average
        let average = |count: u64| self.sum_ns as f64 / 1e6 / count as f64;
        if count == 0 { 0.0 } else { average(count) }
    }

    /// The time, ms, that the share `rank` (0 to 1) of them did not exceed: the middle of its bucket. 0 of none.
    pub fn percentile_ms(&self, rank: f64) -> f64 {
        #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)] // a share of a count
        let wanted = ((self.count() as f64 * rank).ceil() as u64).max(1);
        let mut seen = 0;
        for (bucket, count) in &self.buckets {
            seen += count;
            if seen >= wanted {
                let bucket = usize::from(*bucket);
                let upper = BOUNDS.get(bucket).copied().unwrap_or(self.max_ns.max(BOUNDS[BOUNDS.len() - 1]));
                let lower = bucket.checked_sub(1).map_or(0, |below| BOUNDS[below]);
                let middle = lower.midpoint(upper);
                // None was longer than the longest.
                let ns = if self.max_ns > 0 { middle.min(self.max_ns) } else { middle };
                #[allow(clippy::cast_precision_loss)] // an estimate
                return ns as f64 / 1e6;
            }
        }
        0.0
    }

    /// How many took at most so many seconds, for each of [`EXPOSED_S`].
    pub fn cumulated(&self) -> Vec<(f64, u64)> {
        let mut rest = self.buckets.iter().peekable();
        let mut sum = 0;
        let up_to = |bound_s: f64| {
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // one of the bounds
            let bound = bucket_of((bound_s * 1e9).round() as u64);
            while let Some((_, count)) = rest.next_if(|(bucket, _)| usize::from(*bucket) <= bound) {
                sum += count;
            }
            (bound_s, sum)
        };
        EXPOSED_S.into_iter().map(up_to).collect()
    }

    /// What came since `before`, which was read earlier.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let mut earlier = before.buckets.iter().peekable();
        let mut buckets = Vec::new();
        for (bucket, count) in &self.buckets {
            while earlier.next_if(|(other, _)| other < bucket).is_some() {}
            let known = earlier.next_if(|(other, _)| other == bucket).map_or(0, |(_, known)| *known);
            if *count > known {
                buckets.push((*bucket, count - known));
            }
        }
        Self { buckets, sum_ns: self.sum_ns.saturating_sub(before.sum_ns), max_ns: self.max_ns }
    }

    /// These, too.
    pub fn merge(&mut self, other: &Self) {
        for (bucket, count) in &other.buckets {
            match self.buckets.binary_search_by_key(bucket, |(bucket, _)| *bucket) {
                Ok(at) => self.buckets[at].1 += count,
                Err(at) => self.buckets.insert(at, (*bucket, *count)),
            }
        }
        self.sum_ns = self.sum_ns.saturating_add(other.sum_ns);
        self.max_ns = self.max_ns.max(other.max_ns);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(times_us: &[u64]) -> Histogram {
        let histogram = Histogram::default();
        for us in times_us {
            histogram.add(Duration::from_micros(*us), 1);
        }
        histogram
    }

    #[test]
    fn bounds_rise_and_hold_all_that_prometheus_is_told() {
        assert!(BOUNDS.windows(2).all(|pair| pair[0] < pair[1]));
        assert_eq!((BOUNDS[0], BOUNDS[BOUNDS.len() - 1]), (10_000, 1_000_000_000_000));
        for seconds in EXPOSED_S {
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // one of the bounds
            let ns = (seconds * 1e9).round() as u64;
            assert!(BOUNDS.contains(&ns), "{seconds}");
        }
    }

    #[test]
    fn what_is_told_is_cumulated_and_a_bound_counts_as_below() {
        let times = of(&[100, 1000, 1001, 30_000, 200_000_000]).read();
        let told = times.cumulated();
        let up_to = |seconds: f64| told.iter().find(|(bound, _)| (bound - seconds).abs() < 1e-9).unwrap().1;
        assert_eq!((up_to(0.000_25), up_to(0.001), up_to(0.002_5), up_to(0.05), up_to(100.0)), (1, 2, 3, 4, 4));
        assert_eq!((times.count(), times.sum_ns), (5, 200_032_101_000));
    }

    #[test]
    fn none_have_no_figures() {
        let none = Times::default();
        assert_eq!((none.count(), none.average_ms(), none.percentile_ms(0.5)), (0, 0.0, 0.0));
    }

    proptest! {
        #[test]
        fn percentiles_are_right_within_seven_percent(mut times in prop::collection::vec(20_u64..900_000_000, 1..300), rank in 0.0..=1.0_f64) {
            let read = of(&times).read();
            times.sort_unstable();
            #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            let exact = times[((times.len() as f64 * rank).ceil() as usize).max(1) - 1] as f64 / 1000.0;
            let estimate = read.percentile_ms(rank);
            prop_assert!((estimate - exact).abs() <= exact * 0.07, "{estimate} for {exact}");
        }

        #[test]
        fn what_came_since_and_what_was_before_are_all(a in prop::collection::vec(1_u64..10_000_000, 0..50), b in prop::collection::vec(1_u64..10_000_000, 0..50)) {
            let histogram = of(&a);
            let before = histogram.read();
            for us in &b {
                histogram.add(Duration::from_micros(*us), 1);
            }
            let all = histogram.read();
            let since = all.since(&before);
            prop_assert_eq!(&since, &of(&b).read());
            let mut sum = before;
            sum.merge(&since);
            prop_assert_eq!(sum, all);
        }
    }
}
