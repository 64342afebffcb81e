//! Argument over environment over defaults, key by key.

use super::*;
use crate::engine::log::Level;

#[test]
fn every_variable_sets_its_key_and_yields_to_the_argument() {
    for (variable, text, key, value, other) in [
        ("REDIS_HOST", "redis.internal", "redis.host", json!("redis.internal"), json!("other")),
        ("REDIS_PORT", "7000", "redis.port", json!(7000), json!(7001)),
        ("REDIS_PASSWORD", " p w ", "redis.password", json!(" p w "), json!("other")),
        ("REDIS_DB", " 3 ", "redis.db", json!(3), json!(4)),
        ("EVENTBUS_KEY_PREFIX", "my:bus", "redis.keyPrefix", json!("my:bus"), json!("other")),
        ("EVENTBUS_BATCH_SIZE", "7", "performance.batchSize", json!(7), json!(8)),
        ("EVENTBUS_BATCH_TIMEOUT", "70", "performance.batchTimeout", json!(70), json!(8)),
        ("EVENTBUS_CONNECTION_POOL_SIZE", "7", "performance.connectionPoolSize", json!(7), json!(8)),
        ("EVENTBUS_PIPELINE_SIZE", "7", "performance.pipelineSize", json!(7), json!(8)),
        ("EVENTBUS_DEFAULT_TTL", "0.5", "defaults.ttl", json!(0.5), json!(8)),
        ("MONITORING_ENABLED", "Off", "monitoring.enabled", json!(false), json!(true)),
        ("METRICS_COLLECTION_INTERVAL", "700", "monitoring.metricsInterval", json!(700), json!(800)),
        ("HEALTH_CHECK_INTERVAL", "700", "monitoring.healthCheckInterval", json!(700), json!(800)),
        ("OSSA_LOG", " Debug ", "logLevel", json!("debug"), json!("silent")),
    ] {
        let pointer = format!("/{}", key.replace('.', "/"));
        let resolved = bus(&json!({}), &[(variable, text)]).unwrap().to_json();
        assert_eq!(resolved.pointer(&pointer), Some(&value), "{variable}");
        let resolved = bus(&at(key, other.clone()), &[(variable, text)]).unwrap().to_json();
        assert_eq!(resolved.pointer(&pointer), Some(&other), "{variable}");
        for empty in ["", "  "] {
            assert_eq!(bus(&json!({}), &[(variable, empty)]).unwrap().to_json(), default_json("eventBus").unwrap());
        }
    }
}

#[test]
fn some_variables_set_two_keys_of_the_orchestrating_bus() {
    let variables =
        [("MONITORING_ENABLED", "no"), ("METRICS_COLLECTION_INTERVAL", "700"), ("HEALTH_CHECK_INTERVAL", "800"), ("SERVICE_NAME", "svc-1")];
    let config = ossa(&json!({}), &variables).unwrap();
    assert!(!config.event_bus.monitoring.enabled && !config.monitoring.metrics.enabled);
    assert_eq!((config.event_bus.monitoring.metrics_interval_ms, config.monitoring.metrics.collection_interval_ms), (700, 700));
    assert_eq!((config.event_bus.monitoring.health_check_interval_ms, config.monitoring.health_check.interval_ms), (800, 800));
    assert_eq!(config.event_bus.service_name.as_deref(), Some("svc-1"));
    assert_eq!(config.monitoring.tracing.service_name, "svc-1");
    assert_eq!(config.to_json()["eventBus"]["serviceName"], "svc-1");
}

#[test]
fn the_registry_takes_the_address_of_the_environment_but_not_the_key_prefix_of_the_bus() {
    let variables = r#"{"REDIS_HOST":"h","REDIS_PORT":"7","REDIS_DB":"2","EVENTBUS_KEY_PREFIX":"x"}"#;
    let redis = &resolve("serviceRegistry", "{}", variables)["ok"]["redis"];
    assert_eq!((&redis["host"], &redis["port"], &redis["db"]), (&json!("h"), &json!(7), &json!(2)));
    assert_eq!(redis["keyPrefix"], "ossa:services");
}

#[test]
fn one_variable_sets_the_level_of_buses_and_registries() {
    assert_eq!(ossa(&json!({}), &[("OSSA_LOG", "ERROR")]).unwrap().event_bus.log.level, Level::Error);
    let level = |argument: &str, text: &str| resolve("serviceRegistry", argument, &json!({ "OSSA_LOG": text }).to_string());
    assert_eq!(level("{}", "info")["ok"]["logLevel"], "info");
    assert_eq!(level(r#"{"logLevel":"silent","logger":{"$logger":true}}"#, "info")["ok"]["logLevel"], "silent");
    let error = &level("{}", "loud")["err"];
    assert_eq!((&error["code"], &error["details"]["path"]), (&json!("ERR_INVALID_CONFIG"), &json!("logLevel")));
    assert!(error["message"].as_str().unwrap().contains("OSSA_LOG"), "{error}");
}

#[test]
fn a_wrong_variable_is_named_with_its_key() {
    for (variable, text, path) in [
        ("REDIS_HOST", "a b", "redis.host"),
        ("REDIS_PORT", "0", "redis.port"),
        ("REDIS_PORT", "6379x", "redis.port"),
        ("REDIS_PORT", "inf", "redis.port"),
        ("REDIS_PORT", "tcp://10.0.0.1:6379", "redis.port"),
        ("REDIS_DB", "-1", "redis.db"),
        ("REDIS_URL", "localhost", "redis.url"),
        ("EVENTBUS_KEY_PREFIX", "a b", "redis.keyPrefix"),
        ("EVENTBUS_BATCH_SIZE", "1.5", "performance.batchSize"),
        ("EVENTBUS_BATCH_TIMEOUT", "1s", "performance.batchTimeout"),
        ("EVENTBUS_CONNECTION_POOL_SIZE", "NaN", "performance.connectionPoolSize"),
        ("EVENTBUS_PIPELINE_SIZE", "0x10", "performance.pipelineSize"),
        ("EVENTBUS_DEFAULT_TTL", "1h", "defaults.ttl"),
        ("MONITORING_ENABLED", "maybe", "monitoring.enabled"),
        ("METRICS_COLLECTION_INTERVAL", "0", "monitoring.metricsInterval"),
        ("HEALTH_CHECK_INTERVAL", "0", "monitoring.healthCheckInterval"),
        ("SERVICE_NAME", "my service", "serviceName"),
        ("OSSA_LOG", "trace", "logLevel"),
    ] {
        let error = bus(&json!({}), &[(variable, text)]).expect_err(variable);
        assert_eq!((error.code, &error.details["path"]), (Code::InvalidConfig, &json!(path)), "{error}");
        assert_eq!(error.details["env"], variable);
        assert!(error.message.contains(variable), "{error}");
        let error = ossa(&json!({}), &[(variable, text)]).expect_err(variable);
        assert_eq!(error.details["path"], format!("eventBus.{path}"));
    }
    let error = bus(&json!({}), &[("REDIS_PORT", "tcp://10.0.0.1:6379")]).unwrap_err();
    assert!(error.message.contains("enableServiceLinks"), "{error}");
}

#[test]
fn flags_of_the_environment_have_many_spellings() {
    for (texts, flag) in [(["true", "1", "YES", " on "], true), (["False", "0", "no", "off"], false)] {
        for text in texts {
            assert_eq!(bus(&json!({}), &[("MONITORING_ENABLED", text)]).unwrap().monitoring.enabled, flag, "{text}");
        }
    }
}
