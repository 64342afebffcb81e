//! Metrics in the text format of Prometheus. The names are those of docs/monitoring.md, which a test compares.

use prometheus::TextEncoder;
use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};

use super::histogram::Times;
use crate::engine::error::{Error, Result};

/// Metrics, one after the other.
#[derive(Default)]
pub struct Exposition(Vec<MetricFamily>);

fn labels(pairs: &[(&str, &str)]) -> Vec<LabelPair> {
    let label = |(name, value): &(&str, &str)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    };
    pairs.iter().map(label).collect()
}

impl Exposition {
    fn family(&mut self, name: &str, help: &str, kind: MetricType, metrics: Vec<Metric>) {
        // The format has no metric without a sample.
        if metrics.is_empty() {
            return;
        }
        let mut family = MetricFamily::default();
        family.set_name(name.to_owned());
        family.set_help(help.to_owned());
        family.set_field_type(kind);
        family.set_metric(metrics);
        self.0.push(family);
    }

    /// A figure that rises and falls.
    pub fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.gauges(name, help, "", [("", value)]);
    }

    /// The same by a label.
    pub fn gauges<'a>(&mut self, name: &str, help: &str, label: &str, values: impl IntoIterator<Item = (&'a str, f64)>) {
        let metric = |(of, value): (&str, f64)| {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            let mut metric = Metric::from_gauge(gauge);
            if !label.is_empty() {
                metric.set_label(labels(&[(label, of)]));
            }
            metric
        };
        self.family(name, help, MetricType::GAUGE, values.into_iter().map(metric).collect());
    }

    /// A count that only rises.
    pub fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.counters(name, help, "", [("", value)]);
    }

    /// The same by a label.
    pub fn counters<'a>(&mut self, name: &str, help: &str, label: &str, values: impl IntoIterator<Item = (&'a str, u64)>) {
        let metric = |(of, value): (&str, u64)| {
            let mut counter = Counter::default();
            #[allow(clippy::cast_precision_loss)] // the format's numbers
            counter.set_value(value as f64);
            let mut metric = Metric::from_label(if label.is_empty() { Vec::new() } else { labels(&[(label, of)]) });
            metric.set_counter(counter);
            metric
        };
        self.family(name, help, MetricType::COUNTER, values.into_iter().map(metric).collect());
    }

    /// Times by a label, in seconds; those without any are left out.
    pub fn histograms<'a>(&mut self, name: &str, help: &str, label: &str, values: impl IntoIterator<Item = (&'a str, &'a Times)>) {
        let metric = |(of, times): (&str, &Times)| {
            let bucket = |(bound, count): (f64, u64)| {
                let mut bucket = Bucket::default();
                bucket.set_upper_bound(bound);
                bucket.set_cumulative_count(count);
                bucket
            };
            let mut histogram = Histogram::default();
            histogram.set_bucket(times.cumulated().into_iter().map(bucket).collect());
            histogram.set_sample_count(times.count());
            #[allow(clippy::cast_precision_loss)] // the format's numbers
            histogram.set_sample_sum(times.sum_ns as f64 / 1e9);
            let mut metric = Metric::from_label(labels(&[(label, of)]));
            metric.set_histogram(histogram);
            metric
        };
        let values = values.into_iter().filter(|(_, times)| times.count() > 0);
        self.family(name, help, MetricType::HISTOGRAM, values.map(metric).collect());
    }

    /// In the text format 0.0.4.
    pub fn text(&self) -> Result<String> {
        TextEncoder::new().encode_to_string(&self.0).map_err(|error| Error::internal(format!("metrics: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::histogram;
    use super::*;

    #[test]
    fn texts_as_prometheus_reads_them() {
        let mut out = Exposition::default();
        out.gauge("depth", "Events that wait.", 3.5);
        out.counters("events_total", "Events.", "event_type", [("a\"b\n", 2), ("other", 0)]);
        out.gauges("nothing", "Without a sample it is not there.", "of", []);
        let times = histogram::Histogram::default();
        times.add(Duration::from_millis(2), 3);
        out.histograms("time_seconds", "Times.", "event_type", [("a", &times.read()), ("b", &Times::default())]);
        let text = out.text().unwrap();
        assert!(text.starts_with("# HELP depth Events that wait.\n# TYPE depth gauge\ndepth 3.5\n"), "{text}");
        assert!(
            text.contains("# TYPE events_total counter\nevents_total{event_type=\"a\\\"b\\n\"} 2\nevents_total{event_type=\"other\"} 0\n")
        );
        assert!(text.contains("time_seconds_bucket{event_type=\"a\",le=\"0.001\"} 0\n"));
        assert!(text.contains("time_seconds_bucket{event_type=\"a\",le=\"0.0025\"} 3\n"));
        assert!(text.contains("time_seconds_bucket{event_type=\"a\",le=\"+Inf\"} 3\n"));
        assert!(text.contains("time_seconds_sum{event_type=\"a\"} 0.006\ntime_seconds_count{event_type=\"a\"} 3\n"));
        assert!(!text.contains("event_type=\"b\"") && !text.contains("nothing"));
    }
}
