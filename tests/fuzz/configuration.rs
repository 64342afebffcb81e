//! Configurations and environments: read, or refused with the place, and no secret in what is said.

use std::collections::HashMap;

use ossa::engine::config::{env, resolve, resolve_bus, resolve_ossa, resolve_registry};
use ossa::engine::error::{Code, Error, Result};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::corpus;
use crate::json::{any_json, nearly, text};

/// Stands for every password; nothing else looks like it.
const SECRET: &str = "Tr0ub4dor-correct-horse";

fn right_redis() -> Value {
    json!({
        "host": "h", "port": 6380, "username": "u", "password": SECRET, "db": 2, "keyPrefix": "a:b", "connectTimeoutMs": 5,
        "commandTimeoutMs": 6,
    })
}

fn right_bus() -> Value {
    json!({
        "redis": right_redis(),
        "performance": { "batchSize": 1, "batchTimeout": 2, "connectionPoolSize": 3, "pipelineSize": 4 },
        "monitoring": { "enabled": false, "metricsInterval": 50, "tracing": { "enabled": false, "samplingRate": 1.0 } },
        "defaults": { "ttl": 0.5, "priority": "high", "retry": { "maxAttempts": 0, "initialDelay": 0.5, "jitter": "none" } },
        "deadLetterQueue": { "enabled": false, "keyPattern": "dead:letters", "retention": 1.5 },
        "limits": { "maxPayloadBytes": 1, "maxPendingPublishes": 2, "maxStreamLength": 4, "stallTimeoutMs": 1000 },
        "durability": { "waitReplicas": 1, "fsync": true, "waitTimeoutMs": 3 },
    })
}

fn right_ossa() -> Value {
    json!({
        "eventBus": right_bus(),
        "serviceRegistry": { "enabled": true, "autoRegister": false },
        "monitoring": { "metrics": { "enabled": true, "collectionInterval": 1000 }, "alerting": { "thresholds": { "maxErrorRate": 5 } } },
    })
}

/// Says where, and shows nothing that must not be seen.
fn is_told(error: &Error) {
    assert!(matches!(error.code, Code::InvalidConfig | Code::Disabled), "{error}");
    let is_placed = error.details.get("path").is_some_and(Value::is_string);
    assert!(is_placed || error.code == Code::Disabled, "{error} says no place");
    shows_no_secret(&error.to_json().to_string());
}

fn shows_no_secret(said: &str) {
    assert!(!said.contains(SECRET), "a secret is shown: {said}");
}

fn check(argument: &Value, variables: &HashMap<&str, String>) {
    let lookup = |name: &str| variables.get(name).cloned();
    let bus = resolve_bus(argument, &lookup);
    if let Ok(config) = &bus {
        shows_no_secret(&format!("{config:?}"));
        config.unsupported().iter().for_each(|error| shows_no_secret(&error.to_json().to_string()));
    }
    let results: [Result<Value>; 3] = [
        bus.map(|config| config.to_json()),
        resolve_ossa(argument, &lookup).map(|config| config.to_json()),
        resolve_registry(argument, &lookup).map(|config| config.to_json()),
    ];
    results.iter().filter_map(|result| result.as_ref().err()).for_each(is_told);
}

fn variables() -> impl Strategy<Value = HashMap<&'static str, String>> {
    let secret = prop_oneof![
        text().prop_map(|host| format!("redis://:{SECRET}@{host}")),
        text().prop_map(|rest| format!("redis://u:{SECRET}@h{rest}")),
        text(),
    ];
    let plain = prop_oneof![text(), any::<i32>().prop_map(|n| n.to_string())];
    let all = proptest::collection::hash_map(proptest::sample::select(env::ALL.as_slice()), plain, 0..6);
    // Secrets stand where secrets belong: elsewhere they are none.
    (all, proptest::option::of(secret), any::<bool>()).prop_map(|(mut all, url, password)| {
        all.extend(url.map(|url| (env::REDIS_URL, url)));
        all.extend(password.then(|| (env::REDIS_PASSWORD, SECRET.to_owned())));
        all
    })
}

/// A URL with a password, right but for some characters.
fn url() -> impl Strategy<Value = String> {
    let scheme = prop_oneof![Just("redis"), Just("rediss"), Just("memory"), Just("redis+tls"), Just("http"), Just("")];
    let separator = prop_oneof![Just("://"), Just(":/"), Just("")];
    let user = prop_oneof![Just(""), Just("u"), Just("u%40"), Just("%"), Just("ü")];
    (scheme, separator, user, text(), text())
        .prop_map(|(scheme, separator, user, host, rest)| format!("{scheme}{separator}{user}:{SECRET}@{host}/{rest}"))
}

proptest! {
    #![proptest_config(corpus::cases(250))]

    #[test]
    fn any_json_is_a_configuration_or_is_refused(value in any_json(), variables in variables()) {
        check(&value, &variables);
    }

    #[test]
    fn a_configuration_with_something_wrong_is_read_or_refused(
        bus in nearly(right_bus()), ossa in nearly(right_ossa()), variables in variables()
    ) {
        check(&bus, &variables);
        check(&ossa, &variables);
    }

    #[test]
    fn any_url_is_read_or_refused_without_its_password(url in url(), other in text()) {
        for url in [url, other] {
            check(&json!({ "redis": { "url": url } }), &HashMap::new());
            check(&json!({ "redis": { "url": url, "password": SECRET, "host": "h" } }), &HashMap::new());
            check(&json!({ "redis": { "cluster": [url], "sentinel": { "nodes": [url] } } }), &HashMap::new());
            check(&json!({}), &HashMap::from([(env::REDIS_URL, url.clone()), (env::REDIS_PASSWORD, SECRET.to_owned())]));
        }
    }

    #[test]
    fn any_text_crosses_and_is_answered(kind in prop_oneof![Just("eventBus"), Just("ossa"), Just("serviceRegistry")], argument in any::<String>(), nearly in nearly(right_bus())) {
        for argument in [argument, nearly.to_string(), format!("{nearly},")] {
            let answer = resolve(kind, &argument, "{}");
            prop_assert!(answer.get("ok").is_some() != answer.get("err").is_some());
            if let Some(error) = answer.get("err") {
                shows_no_secret(&error.to_string());
            }
        }
    }
}

#[test]
fn what_is_right_is_taken() {
    assert!(resolve_bus(&right_bus(), &|_| None).is_ok(), "{:?}", resolve_bus(&right_bus(), &|_| None));
    assert!(resolve_ossa(&right_ossa(), &|_| None).is_ok(), "{:?}", resolve_ossa(&right_ossa(), &|_| None));
}

#[test]
fn the_corpus_is_read_or_refused() {
    for (_, text) in corpus::texts("configuration") {
        let text = text.replace("SECRET", SECRET);
        for kind in ["eventBus", "ossa", "serviceRegistry"] {
            shows_no_secret(&resolve(kind, &text, "{}").get("err").map(Value::to_string).unwrap_or_default());
        }
        if let Ok(value) = serde_json::from_str(&text) {
            check(&value, &HashMap::new());
        }
    }
}
