//! Figures as JavaScript is told them.

use serde_json::{Map, Value, json};

use super::windows::{Analysis, Span};
use crate::engine::metrics::histogram::Times;
use crate::engine::metrics::types::Figures;

/// `LatencyFigures`.
fn times(times: &Times) -> Value {
    #[allow(clippy::cast_precision_loss)] // ms shown
    let max = times.max_ns as f64 / 1e6;
    json!({
        "count": times.count(),
        "average": times.average_ms(),
        "p50": times.percentile_ms(0.5),
        "p95": times.percentile_ms(0.95),
        "p99": times.percentile_ms(0.99),
        "max": max,
    })
}

/// `AnalyticsFigures` of a time of that length.
fn figures(figures: &Figures, length_ms: u64) -> Map<String, Value> {
    #[allow(clippy::cast_precision_loss)] // a rate
    let rate = |count: u64| if length_ms == 0 { 0.0 } else { count as f64 * 1000.0 / length_ms as f64 };
    let Figures { published, consumed, failed, retried, dead_lettered, expired, .. } = figures;
    let value = json!({
        "published": published,
        "consumed": consumed,
        "failed": failed,
        "retried": retried,
        "deadLettered": dead_lettered,
        "expired": expired,
        "publishedPerSecond": rate(*published),
        "consumedPerSecond": rate(*consumed),
        "errorRate": figures.error_rate_percent(),
        "publishTime": times(&figures.publish_time),
        "processingTime": times(&figures.processing_time),
        "endToEndTime": times(&figures.end_to_end_time),
    });
    let Value::Object(map) = value else { return Map::new() };
    map
}

fn length_ms(span: &Span) -> u64 {
    span.to_ms.saturating_sub(span.from_ms)
}

/// `Analytics` with times as ms; `began_ms`: when monitoring began, ms since 1970.
pub fn analytics(window_s: u64, analysis: &Analysis, began_ms: u64) -> Value {
    let length = length_ms(&analysis.span);
    let of_type = |(name, of_type): &(std::sync::Arc<str>, Figures)| {
        let mut out = Map::from_iter([("eventType".to_owned(), Value::from(&**name))]);
        out.append(&mut figures(of_type, length));
        Value::Object(out)
    };
    let point = |span: &Span| json!({ "from": began_ms + span.from_ms, "to": began_ms + span.to_ms, "total": figures(&span.total, length_ms(span)) });
    json!({
        "windowSeconds": window_s,
        "from": began_ms + analysis.span.from_ms,
        "to": began_ms + analysis.span.to_ms,
        "total": figures(&analysis.span.total, length),
        "byEventType": analysis.by_type.iter().map(of_type).collect::<Vec<_>>(),
        "history": analysis.history.iter().map(point).collect::<Vec<_>>(),
    })
}
