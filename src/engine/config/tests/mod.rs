//! The configuration as a whole: what is accepted, what wins, what is refused and how.

mod address;
mod http;
mod precedence;
mod refused;

use std::collections::HashMap;

use serde_json::{Value, json};

use super::*;

/// Resolves `argument` as the configuration of a bus, with these variables.
fn bus(argument: &Value, variables: &[(&str, &str)]) -> Result<BusConfig> {
    let variables: HashMap<&str, &str> = variables.iter().copied().collect();
    resolve_bus(argument, &|name: &str| variables.get(name).map(|text| (*text).to_owned()))
}

fn ossa(argument: &Value, variables: &[(&str, &str)]) -> Result<OssaConfig> {
    let variables: HashMap<&str, &str> = variables.iter().copied().collect();
    resolve_ossa(argument, &|name: &str| variables.get(name).map(|text| (*text).to_owned()))
}

/// `{ "a": { "b": value } }` for `a.b`.
fn at(path: &str, value: Value) -> Value {
    path.rsplit('.').fold(value, |inner, key| json!({ key: inner }))
}

#[test]
fn the_defaults_are_those_of_the_contract() {
    let retry = json!({ "maxAttempts": 3, "initialDelay": 1000, "backoffMultiplier": 2, "maxDelay": 30000, "jitter": "equal" });
    let bus = json!({
        "redis": {
            "host": "localhost", "port": 6379, "db": 0, "keyPrefix": "ossa:eventbus",
            "connectTimeoutMs": 10000, "commandTimeoutMs": 5000,
        },
        "performance": { "batchSize": 100, "batchTimeout": 1000, "connectionPoolSize": 10, "pipelineSize": 100 },
        "monitoring": { "enabled": true, "metricsInterval": 30000, "tracing": true, "healthCheckInterval": 15000 },
        "defaults": { "ttl": 3600, "retry": retry, "priority": "normal" },
        "deadLetterQueue": { "enabled": true, "retention": 604_800 },
        "limits": {
            "maxPayloadBytes": 1_048_576, "maxPendingPublishes": 100_000, "keepAcknowledged": 100_000,
            "stallTimeoutMs": 120_000,
        },
        "logLevel": "warn",
    });
    assert_eq!(default_json("eventBus").unwrap(), bus);
    let ossa = default_json("ossa").unwrap();
    assert_eq!(ossa["eventBus"], bus);
    assert_eq!(
        ossa["serviceRegistry"],
        json!({
            "enabled": true, "autoRegister": true, "healthMonitoring": true, "contractDiscovery": true,
            "discoveryRefreshInterval": 60000,
        })
    );
    assert_eq!(
        ossa["orchestration"]["config"],
        json!({
            "maxAgentsPerPool": 50, "minAgentsPerPool": 2, "agentTimeoutMs": 60000,
            "autoScaling": { "scaleUpThreshold": 0.8, "scaleDownThreshold": 0.3, "cooldownPeriod": 60000 },
            "distributionStrategy": { "name": "performance-weighted", "parameters": {} },
            "circuitBreaker": { "failureThreshold": 0.5, "resetTimeout": 30000, "monitoringPeriod": 10000, "minimumCalls": 5 },
        })
    );
    assert_eq!(
        ossa["monitoring"],
        json!({
            "metrics": {
                "enabled": true, "collectionInterval": 10000, "retentionPeriod": 86_400_000,
                "aggregationWindows": [60, 300, 900, 3600],
            },
            "tracing": { "enabled": true, "samplingRate": 0.1, "serviceName": "ossa-event-bus" },
            "alerting": { "enabled": true, "thresholds": {
                "maxErrorRate": 5, "maxLatency": 1000, "maxQueueDepth": 1000, "minThroughput": 0,
                "maxMemoryUsage": 85, "maxConnectionUtilization": 90,
            } },
            "healthCheck": { "enabled": true, "interval": 30000, "timeout": 5000, "criticalThresholds": {
                "criticalErrorRate": 25, "criticalLatency": 5000, "criticalMemoryUsage": 95,
            } },
        })
    );
    assert_eq!(
        default_json("serviceRegistry").unwrap(),
        json!({
            "redis": {
                "host": "localhost", "port": 6379, "db": 0, "keyPrefix": "ossa:services",
                "connectTimeoutMs": 10000, "commandTimeoutMs": 5000,
            },
            "healthCheck": { "intervalMs": 30000, "timeoutMs": 5000, "failureThreshold": 3, "successThreshold": 2 },
            "serviceTtlSeconds": 300,
            "http": { "deny": [], "timeoutMs": 10000, "maxResponseBytes": 1_048_576 },
            "logLevel": "warn",
        })
    );
}

const PEM: &str = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n";
const PEM_KEY: &str = "-----BEGIN EC PRIVATE KEY-----\nAA==\n-----END EC PRIVATE KEY-----\n";

fn full_bus(redis: &Value) -> Value {
    json!({
        "redis": redis,
        "performance": { "batchSize": 1, "batchTimeout": 2, "connectionPoolSize": 3, "pipelineSize": 4 },
        "monitoring": {
            "enabled": false, "metricsInterval": 50, "tracing": { "enabled": false, "samplingRate": 1.0 },
            "healthCheckInterval": 60,
        },
        "defaults": { "ttl": 0.5, "priority": "high", "retry": {
            "maxAttempts": 0, "initialDelay": 0.5, "backoffMultiplier": 1.5, "maxDelay": 7, "jitter": "none",
        } },
        "deadLetterQueue": { "enabled": false, "keyPattern": "dead:letters", "retention": 1.5 },
        "limits": {
            "maxPayloadBytes": 1, "maxPendingPublishes": 2, "keepAcknowledged": 0, "maxStreamLength": 4,
            "stallTimeoutMs": 1000,
        },
        "durability": { "waitReplicas": 1, "fsync": true, "waitTimeoutMs": 3 },
        "logger": { "$logger": true },
        "logLevel": "silent",
    })
}

#[test]
fn what_is_resolved_can_be_fed_back() {
    let nodes = json!([{ "host": "redis-1", "port": 1 }, { "host": "::1", "port": 2 }]);
    let tls = json!({ "ca": PEM, "cert": PEM, "key": PEM_KEY, "serverName": "redis", "rejectUnauthorized": false });
    for redis in [
        json!({ "url": "memory://" }),
        json!({ "url": "memory://shared", "keyPrefix": "p" }),
        json!({ "url": "rediss://user:p%40ss@[::1]:7000/3" }),
        json!({ "url": "redis+unix://user:p%40ss@/run/redis.sock?db=3" }),
        json!({ "host": "h", "port": 1, "username": "u", "password": "p", "db": 5, "tls": tls }),
        json!({ "cluster": { "nodes": nodes, "options": {
            "enableReadyCheck": false, "readFromReplicas": true,
            "redisOptions": { "username": "u", "password": "p", "tls": tls },
        } } }),
        json!({ "sentinel": { "masterName": "my master", "nodes": nodes, "username": "s", "password": "t" }, "db": 2 }),
    ] {
        let mut argument = full_bus(&redis);
        if redis["url"].as_str().is_some_and(|url| url.starts_with("memory:")) {
            argument.as_object_mut().unwrap().remove("durability");
        }
        let config = bus(&argument, &[("SERVICE_NAME", "svc")]).unwrap();
        assert_eq!(config.service_name.as_deref(), Some("svc"));
        assert_eq!(BusConfig::from_resolved(&config.to_json()).unwrap(), config, "{redis}");
        let text = config.to_json().to_string();
        assert_eq!(BusConfig::from_resolved(&serde_json::from_str(&text).unwrap()).unwrap(), config, "{redis}");

        let registry = resolve_registry(&json!({ "redis": redis, "serviceTtlSeconds": 5 }), &env::none).unwrap();
        assert_eq!(RegistryConfig::from_resolved(&registry.to_json()).unwrap(), registry, "{redis}");
    }
    let argument = json!({
        "eventBus": full_bus(&json!({ "url": "redis://h" })),
        "serviceRegistry": { "enabled": false, "autoRegister": false, "discoveryRefreshInterval": 10 },
        "crossProject": { "enabled": false, "trustedKeys": { "user-service": "ab".repeat(32) } },
        "orchestration": { "config": {
            "maxAgentsPerPool": 1, "distributionStrategy": { "name": "performance-weighted", "parameters": { "newcomerShare": 0.25 } },
        } },
        "monitoring": {
            "metrics": { "aggregationWindows": [5, 1] },
            "tracing": { "serviceName": "a b", "jaegerEndpoint": "http://j", "otlpEndpoint": "HTTPS://o:4318/v1" },
            "alerting": { "webhookUrl": "https://hooks/T0" },
        },
    });
    let config = ossa(&argument, &[("SERVICE_NAME", "svc")]).unwrap();
    assert_eq!(OssaConfig::from_resolved(&config.to_json()).unwrap(), config);
    assert_eq!(BusConfig::from_resolved(&config.to_json()["eventBus"]).unwrap(), config.event_bus);
}

#[test]
fn the_samples_of_the_documentation_are_valid() {
    let cluster = json!({ "nodes": [{ "host": "redis-1", "port": 6379 }, { "host": "redis-2", "port": 6379 }] });
    let advanced = json!({
        "eventBus": {
            "redis": { "host": "redis-cluster.example.com", "port": 6379, "cluster": cluster },
            "performance": { "batchSize": 100, "batchTimeout": 1000, "connectionPoolSize": 20 },
        },
        "monitoring": {
            "metrics": { "enabled": true, "collectionInterval": 10000 },
            "alerting": { "enabled": true, "thresholds": { "maxErrorRate": 5.0, "maxLatency": 1000 } },
        },
    });
    let config = ossa(&advanced, &[]).unwrap();
    assert!(matches!(config.event_bus.redis.address, Address::Cluster { .. }));
    assert_eq!(config.event_bus.performance.connection_pool_size, 20);

    let debug = json!({ "monitoring": { "tracing": { "enabled": true, "samplingRate": 1.0 } } });
    let tracing = bus(&debug, &[]).unwrap().monitoring.tracing;
    assert_eq!(tracing, Tracing { enabled: true, sampling_rate: Some(1.0) });
    // Without a rate there is no debug mode, and none comes of the way through the resolved form.
    let without = bus(&json!({ "monitoring": { "tracing": { "enabled": true } } }), &[]).unwrap();
    assert_eq!(BusConfig::from_resolved(&without.to_json()).unwrap().monitoring.tracing, Tracing { enabled: true, sampling_rate: None });
}

#[test]
fn the_crossing_form_answers_ok_or_err_and_never_panics() {
    assert_eq!(resolve("eventBus", "{}", "{}"), json!({ "ok": default_json("eventBus").unwrap() }));
    let env = r#"{"REDIS_PORT":"abc"}"#;
    let error = &resolve("ossa", "{}", env)["err"];
    assert_eq!(error["code"], "ERR_INVALID_CONFIG");
    assert_eq!(error["details"], json!({ "path": "eventBus.redis.port", "env": "REDIS_PORT" }));
    let deep = "[".repeat(100_000);
    let half = r#"{"redis":{"password":"hunter2\ud800"}}"#;
    for argument in ["", "{", "hunter2", half, deep.as_str(), "1e999"] {
        let error = &resolve("eventBus", argument, "{}")["err"];
        assert_eq!(error["code"], "ERR_INVALID_CONFIG", "{error}");
        assert!(!error.to_string().contains("hunter2"));
    }
    for argument in ["null", "[]", "5", r#"{"$invalid":"function"}"#] {
        assert_eq!(resolve("eventBus", argument, "{}")["err"]["details"]["path"], "config", "{argument}");
    }
    for (kind, env) in [("nonsense", "{}"), ("eventBus", ""), ("eventBus", "[]"), ("eventBus", r#"{"A":1}"#)] {
        assert_eq!(resolve(kind, "{}", env)["err"]["code"], "ERR_INTERNAL", "{kind} {env}");
    }
    assert_eq!(default_json("nonsense").unwrap_err().code, Code::Internal);
}
