//! Options of calls as JSON.

use ossa::engine::error::{Code, Error};
use ossa::engine::options::{PublishOptions, SubscribeOptions};
use ossa::engine::streams::read_config;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::corpus;
use crate::json::{any_json, nearly, with_keys};

const PUBLISH: &[&str] = &[
    "ttl",
    "retry",
    "priority",
    "waitForAck",
    "ackTimeoutMs",
    "partitionKey",
    "delayMs",
    "deliverAt",
    "idempotencyKey",
    "idempotencyWindowMs",
    "transient",
    "correlationId",
    "causationId",
    "source",
    "target",
    "version",
    "tags",
    "headers",
    "signal",
    "other",
];
const SUBSCRIBE: &[&str] = &[
    "group",
    "startFrom",
    "autoAck",
    "maxUnacknowledged",
    "consumerTimeout",
    "concurrency",
    "priority",
    "errorStrategy",
    "retry",
    "filter",
    "ordered",
    "ephemeral",
    "batch",
    "other",
];
const STREAM: &[&str] = &["partitions", "partitioning", "retention", "retentionValue", "maxLength", "other"];

/// It says what is wrong, and where.
fn is_told(error: &Error) {
    assert_eq!(error.code, Code::InvalidArgument, "{error}");
    assert!(error.details["argument"].is_string(), "{error}");
    assert!(error.message.chars().count() < 4000, "{error}");
}

fn publish(text: &str) {
    let answer = PublishOptions::read(text);
    // What the façade puts before the options of a request is its own: a defect, if it is wrong.
    if let Err(error) = answer
        && (!text.starts_with('?') || error.code != Code::Internal)
    {
        is_told(&error);
    }
}

fn subscribe(value: Value) {
    match SubscribeOptions::read(value) {
        Ok(options) => {
            let agreed: Value = serde_json::from_str(&options.of_the_group()).expect("it is JSON");
            assert!(agreed.is_object());
        }
        Err(error) => is_told(&error),
    }
}

fn stream(value: Value) {
    match read_config(value) {
        Ok(layout) => {
            assert!(layout.partitions >= 1);
            let text = serde_json::to_string(&layout).expect("it is JSON");
            assert_eq!(serde_json::from_str::<ossa::engine::store::StreamLayout>(&text).expect("just written"), layout);
            assert!(layout.partition_of("key") < layout.partitions);
        }
        Err(error) => is_told(&error),
    }
}

fn right_publish() -> Value {
    json!({
        "ttl": 1.5, "retry": { "maxAttempts": 2, "initialDelay": 1, "jitter": "full" }, "priority": "high", "partitionKey": "k",
        "delayMs": 5, "idempotencyKey": "once", "idempotencyWindowMs": 5, "correlationId": "c", "tags": ["a"], "headers": { "h": "v" },
    })
}

fn right_subscribe() -> Value {
    json!({
        "group": "g", "startFrom": "latest", "autoAck": true, "maxUnacknowledged": 9, "concurrency": 3, "priority": -2,
        "errorStrategy": "dlq", "retry": { "maxAttempts": 1 }, "filter": { "source": "s", "tags": ["t"], "priority": ["low"] },
        "batch": { "maxSize": 3, "maxWaitMs": 5 },
    })
}

fn right_stream() -> Value {
    json!({ "partitions": 3, "partitioning": "hash", "retention": "both", "retentionValue": 60, "maxLength": 1000 })
}

proptest! {
    #![proptest_config(corpus::cases(400))]

    #[test]
    fn any_text_is_options_of_a_publish_or_is_refused(text in any::<String>(), value in any_json(), ms in any::<i64>()) {
        publish(&text);
        publish(&value.to_string());
        publish(&format!("?{ms}{value}"));
    }

    #[test]
    fn options_of_a_publish_are_read_or_refused(some in with_keys(PUBLISH), nearly in nearly(right_publish()), ms in 1..100_000_u32) {
        publish(&some.to_string());
        publish(&nearly.to_string());
        publish(&format!("?{ms}{}", if nearly.is_object() { nearly } else { json!({}) }));
    }

    #[test]
    fn options_of_a_subscription_are_read_or_refused(any in any_json(), some in with_keys(SUBSCRIBE), nearly in nearly(right_subscribe())) {
        subscribe(any);
        subscribe(some);
        subscribe(nearly);
    }

    #[test]
    fn settings_of_a_stream_are_read_or_refused(any in any_json(), some in with_keys(STREAM), nearly in nearly(right_stream())) {
        stream(any);
        stream(some);
        stream(nearly);
    }

    #[test]
    fn a_layout_that_others_noted_is_read_or_refused(any in any_json(), nearly in nearly(json!({ "partitions": 3, "partitioning": "hash", "lengthMax": 4 }))) {
        for value in [any, nearly] {
            if let Ok(layout) = serde_json::from_value::<ossa::engine::store::StreamLayout>(value) {
                let _ = layout.partition_of("key");
            }
        }
    }
}

#[test]
fn what_is_right_is_taken() {
    assert!(PublishOptions::read(&right_publish().to_string()).is_ok());
    assert!(SubscribeOptions::read(right_subscribe()).is_ok());
}

#[test]
fn the_corpus_is_read_or_refused() {
    for (_, text) in corpus::texts("options") {
        publish(&text);
        if let Ok(value) = serde_json::from_str::<Value>(&text) {
            subscribe(value.clone());
            stream(value);
        }
    }
}
