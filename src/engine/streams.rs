//! Streams as users see them: an event type with all its partitions and lanes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt};
use serde_json::{Value, json};

use super::config::BusConfig;
use super::error::{Error, Result};
use super::options::Fields;
use super::store::{GroupState, Partition, PartitionState, Partitioning, Store, StreamLayout};

/// Most partitions of a type: each lane of one is a stream, which readers ask for and upkeep looks at.
const PARTITIONS_MAX: u16 = 256;
/// Most entries a stream may be given, and most acknowledged ones kept.
const LENGTH_MAX: f64 = 1e12;
/// Longest retention, s: a hundred years.
const RETENTION_S_MAX: f64 = 3_153_600_000.0;
/// Partitions looked at, or made, at once.
const AT_ONCE: usize = 32;

/// What ends the life of an acknowledged event.
#[derive(Clone, Copy, PartialEq)]
enum Retention {
    Time,
    Count,
    Both,
}

/// `StreamConfig` from its JSON value. `ERR_INVALID_ARGUMENT` with the key (`config.maxLength`).
pub fn read_config(value: Value) -> Result<StreamLayout> {
    let mut fields = Fields::read(value, "config")?;
    let missing = |key: &str, what: &str| Error::argument(&format!("config.{key}"), format!("is missing; it must be {what}"));
    let length = "a whole number of events from 1 to 1000000000000";
    let length_max = fields.number("maxLength", 1.0, LENGTH_MAX, true, length)?.ok_or_else(|| missing("maxLength", length))?;
    let kinds = [("time", Retention::Time), ("count", Retention::Count), ("both", Retention::Both)];
    let retention = fields.choice("retention", &kinds)?.ok_or_else(|| missing("retention", "'time', 'count' or 'both'"))?;
    let (least, most, whole, right) = match retention {
        Retention::Count => (0.0, LENGTH_MAX, true, "a whole number of events from 0 to 1000000000000, as retention is 'count'"),
        Retention::Time => (0.001, RETENTION_S_MAX, false, "a number of seconds from 0.001 to 3153600000, as retention is 'time'"),
        Retention::Both => (0.001, RETENTION_S_MAX, false, "a number of seconds from 0.001 to 3153600000, as retention is 'both'"),
    };
    let value = fields.number("retentionValue", least, most, whole, right)?.ok_or_else(|| missing("retentionValue", right))?;
    let spread = [("none", Partitioning::None), ("hash", Partitioning::Hash), ("round-robin", Partitioning::RoundRobin)];
    let partitioning = fields.choice("partitioning", &spread)?.unwrap_or_default();
    let count = format!("a whole number from 1 to {PARTITIONS_MAX}");
    let partitions = fields.number("partitions", 1.0, f64::from(PARTITIONS_MAX), true, &count)?.unwrap_or(1.0);
    fields.end(&["maxLength", "retention", "retentionValue", "partitioning", "partitions"])?;
    if partitions > 1.0 && partitioning == Partitioning::None {
        let message = format!("is {partitions}, which needs partitioning 'hash' or 'round-robin'; with 'none' there is one");
        return Err(Error::argument("config.partitions", message));
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // in range by the checks
    let (length_max, partitions, count, ms) = (length_max as u64, partitions as u16, value as u64, (value * 1000.0).ceil() as u64);
    Ok(StreamLayout {
        partitions,
        partitioning,
        length_max: Some(length_max),
        keep_count: match retention {
            Retention::Time => None,
            Retention::Count => Some(count),
            Retention::Both => Some(length_max),
        },
        keep_ms: (retention != Retention::Count).then_some(ms),
    })
}

/// `StreamConfig` of what is noted; `None` where `createStream` was not called.
fn noted_config(layout: &StreamLayout) -> Option<Value> {
    let (retention, value) = match (layout.keep_ms, layout.keep_count) {
        (Some(ms), None) => ("time", seconds(ms)),
        (Some(ms), Some(_)) => ("both", seconds(ms)),
        (None, Some(count)) => ("count", count.into()),
        (None, None) => return None,
    };
    Some(json!({
        "maxLength": layout.length_max,
        "retention": retention,
        "retentionValue": value,
        "partitioning": layout.partitioning,
        "partitions": layout.partitions,
    }))
}

fn seconds(ms: u64) -> Value {
    #[allow(clippy::cast_precision_loss)] // a hundred years in ms are exact
    if ms.is_multiple_of(1000) { (ms / 1000).into() } else { (ms as f64 / 1000.0).into() }
}

/// Notes the layout, then makes the stream of each partition with the groups that are there to get its events.
pub async fn create(store: &Arc<dyn Store>, event_type: &str, layout: &StreamLayout) -> Result<()> {
    store.create_stream(event_type, layout).await?;
    let partitions: Vec<Partition> = (0..layout.partitions).map(|index| Partition::new(event_type, index)).collect();
    let opening = futures_util::stream::iter(partitions).map(|partition| async move { store.open_partition(&partition).await });
    opening.buffer_unordered(AT_ONCE).try_collect::<Vec<()>>().await?;
    Ok(())
}

/// `EventStream` with times as ms; null where the type has no stream.
pub async fn describe(store: &Arc<dyn Store>, event_type: &str, config: &BusConfig) -> Result<Value> {
    let topology = store.topology().await?;
    let of_type = topology.partitions.into_iter().filter(|partition| *partition.event_type == *event_type);
    let looks = futures_util::stream::iter(of_type).map(|partition| async move { store.inspect(&partition).await });
    let states: Vec<PartitionState> =
        looks.buffer_unordered(AT_ONCE).try_filter_map(|state| async move { Ok(state) }).try_collect().await?;
    if states.is_empty() {
        return Ok(Value::Null);
    }
    let layout = topology.layouts.get(event_type).cloned().unwrap_or_default();
    let defaults = || {
        json!({
            "maxLength": config.limits.max_stream_length.unwrap_or(config.limits.keep_acknowledged),
            "retention": "both",
            "retentionValue": config.defaults.ttl_s,
            "partitioning": layout.partitioning,
            "partitions": layout.partitions,
        })
    };
    Ok(json!({ "name": event_type, "config": noted_config(&layout).unwrap_or_else(defaults), "stats": stats(&states) }))
}

/// `StreamStats` over all partitions and lanes.
fn stats(states: &[PartitionState]) -> Value {
    let mut groups: BTreeMap<&str, Vec<&GroupState>> = BTreeMap::new();
    for group in states.iter().flat_map(|state| &state.groups) {
        groups.entry(&group.name).or_default().push(group);
    }
    let live: BTreeSet<&String> = states.iter().flat_map(|state| &state.live).collect();
    let groups: Vec<Value> = groups
        .into_iter()
        .map(|(name, parts)| {
            let consumers: BTreeSet<&String> = parts.iter().flat_map(|part| &part.consumers).collect();
            json!({
                "name": name,
                "pending": parts.iter().map(|part| part.pending).sum::<u64>(),
                // One part that cannot tell leaves the sum unknown.
                "lag": parts.iter().map(|part| part.lag).sum::<Option<u64>>(),
                "consumers": consumers.len(),
            })
        })
        .collect();
    json!({
        "messageCount": states.iter().map(|state| state.length).sum::<u64>(),
        "sizeBytes": states.iter().map(|state| state.size_bytes).sum::<u64>(),
        "firstMessage": states.iter().filter_map(|state| state.first).min().map(|id| id.ms),
        "lastMessage": states.iter().filter_map(|state| state.last).max().map(|id| id.ms),
        "consumerGroups": groups.len(),
        "activeConsumers": live.len(),
        "groups": groups,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(over: &Value) -> Value {
        let mut config = json!({ "maxLength": 100, "retention": "count", "retentionValue": 10 });
        for (key, value) in over.as_object().unwrap() {
            config[key] = value.clone();
        }
        config
    }

    #[test]
    fn what_is_noted_comes_back_as_it_was_given() {
        for over in [
            json!({}),
            json!({ "retentionValue": 0, "partitioning": "none", "partitions": 1 }),
            json!({ "retention": "time", "retentionValue": 0.25, "partitioning": "hash", "partitions": 256 }),
            json!({ "retention": "both", "retentionValue": 60, "partitioning": "round-robin", "partitions": 3, "maxLength": 1 }),
        ] {
            let given = config(&over);
            let back = noted_config(&read_config(given.clone()).unwrap()).unwrap();
            let complete = config(&json!({ "partitioning": "none", "partitions": 1 }));
            for key in complete.as_object().unwrap().keys() {
                assert_eq!(back[key], *given.get(key).unwrap_or(&complete[key]), "{key} of {given}");
            }
        }
        assert_eq!(noted_config(&StreamLayout::default()), None);
    }

    #[test]
    fn wrong_keys_and_values_are_refused_by_name() {
        for (over, argument) in [
            (json!({ "maxLength": 0 }), "config.maxLength"),
            (json!({ "maxLength": 1.5 }), "config.maxLength"),
            (json!({ "maxLength": "5" }), "config.maxLength"),
            (json!({ "retention": "forever" }), "config.retention"),
            (json!({ "retentionValue": -1 }), "config.retentionValue"),
            (json!({ "retentionValue": 0.5 }), "config.retentionValue"),
            (json!({ "retention": "time", "retentionValue": 0 }), "config.retentionValue"),
            (json!({ "retention": "both", "retentionValue": 4e9 }), "config.retentionValue"),
            (json!({ "partitioning": "random" }), "config.partitioning"),
            (json!({ "partitioning": "hash", "partitions": 0 }), "config.partitions"),
            (json!({ "partitioning": "hash", "partitions": 257 }), "config.partitions"),
            (json!({ "partitions": 2 }), "config.partitions"),
            (json!({ "maxlength": 2 }), "config.maxlength"),
        ] {
            assert_eq!(read_config(config(&over)).unwrap_err().details["argument"], argument, "{over}");
        }
        for key in ["maxLength", "retention", "retentionValue"] {
            let mut config = config(&json!({}));
            config.as_object_mut().unwrap().remove(key);
            assert_eq!(read_config(config).unwrap_err().details["argument"], format!("config.{key}"));
        }
        for no_object in [json!(null), json!([]), json!("x")] {
            assert_eq!(read_config(no_object).unwrap_err().details["argument"], "config");
        }
    }
}
