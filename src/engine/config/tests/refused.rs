//! Every key: wrong types, values outside its range, unknown neighbours, contradictions.

use super::*;

/// Wrong for every key.
fn never_right() -> [Value; 2] {
    [Value::Null, json!({ "$invalid": "NaN" })]
}

/// Number keys of the bus: the ends of their range, and a value outside (a fraction where only whole ones count).
const BUS_NUMBERS: [(&str, f64, f64, f64); 20] = [
    ("redis.port", 1.0, 65_535.0, 6379.5),
    ("redis.db", 0.0, 2_147_483_647.0, 0.5),
    ("redis.connectTimeoutMs", 1.0, 3_600_000.0, 1.5),
    ("redis.commandTimeoutMs", 1.0, 3_600_000.0, 1.5),
    ("performance.batchSize", 1.0, 10_000.0, 1.5),
    ("performance.batchTimeout", 1.0, 60_000.0, 1.5),
    ("performance.connectionPoolSize", 1.0, 1_000.0, 1.5),
    ("performance.pipelineSize", 1.0, 10_000.0, 1.5),
    ("monitoring.metricsInterval", 10.0, 86_400_000.0, 10.5),
    ("monitoring.healthCheckInterval", 10.0, 86_400_000.0, 10.5),
    ("monitoring.tracing.samplingRate", 0.0, 1.0, 1.01),
    ("defaults.ttl", 0.0, 3_153_600_000.0, -0.1),
    ("defaults.retry.maxAttempts", 0.0, 1_000_000.0, 0.5),
    ("defaults.retry.initialDelay", 0.0, 3_153_600_000_000.0, -0.1),
    ("defaults.retry.maxDelay", 0.0, 3_153_600_000_000.0, -0.1),
    ("defaults.retry.backoffMultiplier", 1.0, 1_000.0, 0.9),
    ("deadLetterQueue.retention", 0.001, 3_153_600_000.0, 0.0),
    ("limits.maxPayloadBytes", 1.0, 536_870_912.0, 1.5),
    ("limits.maxPendingPublishes", 1.0, 10_000_000.0, 1.5),
    ("limits.stallTimeoutMs", 1_000.0, 86_400_000.0, 1_000.5),
];
const OSSA_NUMBERS: [(&str, f64, f64, f64); 29] = [
    ("serviceRegistry.discoveryRefreshInterval", 10.0, 86_400_000.0, 10.5),
    ("serviceRegistry.http.timeoutMs", 1.0, 3_600_000.0, 1.5),
    ("serviceRegistry.http.maxResponseBytes", 1_024.0, 67_108_864.0, 1_024.5),
    ("orchestration.config.maxAgentsPerPool", 1.0, 100_000.0, 1.5),
    ("orchestration.config.minAgentsPerPool", 0.0, 100_000.0, 1.5),
    ("orchestration.config.agentTimeoutMs", 10.0, 86_400_000.0, 10.5),
    ("orchestration.config.autoScaling.scaleUpThreshold", 0.001, 1.0, 1.01),
    ("orchestration.config.autoScaling.scaleDownThreshold", 0.0, 0.999, -0.1),
    ("orchestration.config.autoScaling.cooldownPeriod", 0.0, 86_400_000.0, 0.5),
    ("orchestration.config.circuitBreaker.failureThreshold", 0.001, 1.0, 0.0),
    ("orchestration.config.circuitBreaker.resetTimeout", 0.0, 86_400_000.0, 0.5),
    ("orchestration.config.circuitBreaker.minimumCalls", 1.0, 1_000.0, 1.5),
    ("orchestration.config.distributionStrategy.parameters.newcomerShare", 0.0, 1.0, 1.01),
    ("orchestration.config.circuitBreaker.monitoringPeriod", 10.0, 86_400_000.0, 10.5),
    ("monitoring.metrics.collectionInterval", 10.0, 86_400_000.0, 10.5),
    ("monitoring.metrics.retentionPeriod", 10_000.0, 31_622_400_000.0, 10_000.5),
    ("monitoring.tracing.samplingRate", 0.0, 1.0, 1.01),
    ("monitoring.alerting.thresholds.maxErrorRate", 0.0, 100.0, 100.1),
    ("monitoring.alerting.thresholds.maxLatency", 0.0, 86_400_000.0, -0.1),
    ("monitoring.alerting.thresholds.maxQueueDepth", 0.0, 1e12, 0.5),
    ("monitoring.alerting.thresholds.minThroughput", 0.0, 1e9, -0.1),
    ("monitoring.alerting.thresholds.maxMemoryUsage", 0.0, 100.0, 100.1),
    ("monitoring.alerting.thresholds.maxConnectionUtilization", 0.0, 100.0, 100.1),
    ("monitoring.healthCheck.interval", 10.0, 86_400_000.0, 10.5),
    ("monitoring.healthCheck.timeout", 1.0, 86_400_000.0, 1.5),
    ("monitoring.healthCheck.criticalThresholds.criticalErrorRate", 0.0, 100.0, 100.1),
    ("monitoring.healthCheck.criticalThresholds.criticalLatency", 0.0, 86_400_000.0, -0.1),
    ("monitoring.healthCheck.criticalThresholds.criticalMemoryUsage", 0.0, 100.0, 100.1),
    ("eventBus.redis.port", 1.0, 65_535.0, 1.5),
];
const REGISTRY_NUMBERS: [(&str, f64, f64, f64); 8] = [
    ("redis.port", 1.0, 65_535.0, 1.5),
    ("healthCheck.intervalMs", 10.0, 86_400_000.0, 10.5),
    ("healthCheck.timeoutMs", 1.0, 86_400_000.0, 1.5),
    ("healthCheck.failureThreshold", 1.0, 1_000.0, 1.5),
    ("healthCheck.successThreshold", 1.0, 1_000.0, 1.5),
    ("serviceTtlSeconds", 1.0, 31_622_400.0, 1.5),
    ("http.timeoutMs", 1.0, 3_600_000.0, 1.5),
    ("http.maxResponseBytes", 1_024.0, 67_108_864.0, 1_024.5),
];

fn refuses(resolve: &dyn Fn(&Value) -> Result<()>, path: &str, value: &Value) {
    let Err(error) = resolve(&at(path, value.clone())) else { panic!("{path}: {value} was accepted") };
    assert_eq!((error.code, &error.details["path"]), (Code::InvalidConfig, &json!(path)), "{value}: {error}");
    assert!(error.message.starts_with(&format!("{path}: ")), "{error}");
    // What may hold a secret is told by its kind alone.
    let by_kind = ["not a number", "not a boolean"].iter().any(|kind| error.message.ends_with(kind));
    let shown = !by_kind && matches!(value, Value::Number(_) | Value::Bool(_));
    assert!(!shown || error.message.contains(&value.to_string()), "what was given is not told: {error}");
}

fn number_table(resolve: &dyn Fn(&Value) -> Result<()>, table: &[(&str, f64, f64, f64)]) {
    for (path, min, max, outside) in table {
        for end in [min, max] {
            assert!(resolve(&at(path, json!(end))).is_ok(), "{path}: {end} {:?}", resolve(&at(path, json!(end))));
        }
        let wrong = [json!(outside), json!(-1), json!(1e300), json!("5"), json!(true), json!([]), json!({})];
        for value in wrong.iter().chain(&never_right()) {
            refuses(resolve, path, value);
        }
    }
}

fn as_bus(argument: &Value) -> Result<()> {
    bus(argument, &[]).map(drop)
}

fn as_ossa(argument: &Value) -> Result<()> {
    ossa(argument, &[]).map(drop)
}

fn as_registry(argument: &Value) -> Result<()> {
    resolve_registry(argument, &env::none).map(drop)
}

#[test]
fn numbers_outside_their_range_or_of_another_type() {
    number_table(&as_bus, &BUS_NUMBERS);
    number_table(
        &as_bus,
        &[
            ("limits.keepAcknowledged", 0.0, 1e12, 0.5),
            ("limits.maxStreamLength", 1.0, 1e12, 0.5),
            ("durability.waitReplicas", 0.0, 1_000.0, 0.5),
        ],
    );
    number_table(&as_ossa, &OSSA_NUMBERS);
    number_table(&as_registry, &REGISTRY_NUMBERS);
    let timeout = |ms: Value| json!({ "durability": { "fsync": true, "waitTimeoutMs": ms } });
    assert!(as_bus(&timeout(json!(1))).is_ok() && as_bus(&timeout(json!(0))).is_err());
    let error = as_bus(&at("performance.batchTimeout", json!(0))).unwrap_err();
    assert_eq!(error.message, "performance.batchTimeout: must be a whole number from 1 to 60000 ms, not 0");
}

#[test]
fn flags_texts_and_objects_of_another_type() {
    let flags = [
        "redis.cluster.options.enableReadyCheck",
        "monitoring.enabled",
        "monitoring.tracing.enabled",
        "deadLetterQueue.enabled",
        "durability.fsync",
    ];
    for path in &flags[1..] {
        for value in [json!(1), json!("true"), json!([]), json!({})].iter().chain(&never_right()) {
            refuses(&as_bus, path, value);
        }
    }
    for path in [
        "serviceRegistry.enabled",
        "serviceRegistry.autoRegister",
        "serviceRegistry.healthMonitoring",
        "serviceRegistry.contractDiscovery",
        "crossProject.enabled",
        "crossProject.securityEnabled",
        "crossProject.rateLimitingEnabled",
        "orchestration.enabled",
        "monitoring.metrics.enabled",
        "monitoring.tracing.enabled",
        "monitoring.alerting.enabled",
        "monitoring.healthCheck.enabled",
    ] {
        for value in [json!(0), json!("no")].iter().chain(&never_right()) {
            refuses(&as_ossa, path, value);
        }
    }
    let objects = ["redis", "performance", "monitoring", "defaults", "defaults.retry", "deadLetterQueue", "limits"];
    for path in objects.iter().chain(&["durability", "redis.cluster", "redis.sentinel", "logger"]) {
        for value in [json!(1), json!("x"), json!(true), json!([])].iter().chain(&never_right()) {
            refuses(&as_bus, path, value);
        }
    }
    let long = "x".repeat(257);
    for (path, values) in [
        ("redis.host", vec![json!(""), json!("a b"), json!("h:1"), json!("redis://h"), json!("[::1]"), json!(1)]),
        ("redis.url", vec![json!(""), json!("h"), json!("http://h"), json!(1), json!("memory://a b")]),
        ("redis.username", vec![json!(1)]),
        ("redis.password", vec![json!(true), json!([])]),
        ("redis.keyPrefix", vec![json!(""), json!("a b"), json!("{a}"), json!("ü"), json!("a\n"), json!(long)]),
        ("deadLetterQueue.keyPattern", vec![json!(""), json!("{n}"), json!("ossa:eventbus"), json!(1)]),
        ("defaults.priority", vec![json!("urgent"), json!("HIGH"), json!(1)]),
        ("defaults.retry.jitter", vec![json!("some"), json!(true)]),
        ("monitoring.tracing", vec![json!("yes"), json!(1), json!([])]),
        ("redis.tls", vec![json!("yes"), json!(1), json!([])]),
        ("redis.tls.ca", vec![json!("/etc/ca.pem"), json!(1)]),
        ("redis.tls.serverName", vec![json!("a b"), json!(1)]),
        ("redis.tls.rejectUnauthorized", vec![json!(0)]),
        ("redis.tls.cert", vec![json!("x"), json!(PEM)]),
        ("redis.tls.key", vec![json!("x"), json!(PEM_KEY)]),
        ("redis.cluster.nodes", vec![json!([]), json!({}), json!("h:1"), Value::Array(vec![json!({}); 1_001])]),
        ("logger", vec![json!({}), json!({ "$logger": false })]),
        ("logLevel", vec![json!("WARN"), json!("trace"), json!(""), json!(1), json!({})]),
    ] {
        for value in values.iter().chain(&never_right()) {
            refuses(&as_bus, path, value);
        }
    }
    for (path, values) in [
        ("orchestration.config.distributionStrategy.name", vec![json!("random"), json!(1)]),
        ("orchestration.config.distributionStrategy.parameters", vec![json!([]), json!(1)]),
        ("crossProject.trustedKeys", vec![json!([]), json!("x")]),
        ("crossProject.trustedKeys.user-service", vec![json!("x"), json!(1), json!("z".repeat(64))]),
        ("crossProject.trustedKeys.user service", vec![json!("ab".repeat(32))]),
        ("crossProject.trustedKeys.team/service", vec![json!("ab".repeat(32))]),
        ("monitoring.metrics.aggregationWindows", vec![json!([]), json!(60), Value::Array(vec![json!(1); 33])]),
        ("monitoring.tracing.serviceName", vec![json!(""), json!(" "), json!("a\nb"), json!(1), json!("x".repeat(257))]),
        ("monitoring.alerting.webhookUrl", vec![json!(""), json!("ftp://h"), json!("https://"), json!("https://a b"), json!(1)]),
        ("monitoring.tracing.otlpEndpoint", vec![json!("localhost:4318"), json!(1)]),
        (
            "monitoring.tracing.jaegerEndpoint",
            vec![json!("http:///x"), json!(1), json!("http://j:14268/api/traces"), json!("https://j/x/api/traces/?format=jaeger.thrift")],
        ),
    ] {
        for value in values.iter().chain(&never_right()) {
            refuses(&as_ossa, path, value);
        }
    }
    let error = as_ossa(&at("monitoring.metrics.aggregationWindows", json!([60, 60]))).unwrap_err();
    assert_eq!(error.details["path"], "monitoring.metrics.aggregationWindows[1]");
}

/// Every object of the resolved forms refuses a stranger among its keys, except those whose keys are free.
#[test]
fn unknown_keys_anywhere() {
    fn objects(value: &Value, path: &str, found: &mut Vec<String>) {
        let Value::Object(map) = value else { return };
        found.push(path.to_owned());
        for (key, inner) in map {
            objects(inner, format!("{path}.{key}").trim_start_matches('.'), found);
        }
    }
    let free = ["eventBus.logger", "crossProject.trustedKeys"];
    let mut paths = Vec::new();
    objects(&default_json("ossa").unwrap(), "", &mut paths);
    for path in ["serviceRegistry.http", "eventBus.durability", "eventBus.redis.tls", "eventBus.redis.cluster.options.redisOptions"] {
        paths.push(path.to_owned());
    }
    paths.extend(["eventBus.redis.cluster.options", "eventBus.redis.sentinel", "eventBus.monitoring.tracing"].map(str::to_owned));
    paths.retain(|path| !free.contains(&path.as_str()));
    assert!(paths.len() > 20, "{paths:?}");
    for path in paths {
        let stranger = format!("{path}.zzzzzz").trim_start_matches('.').to_owned();
        let mut argument = at(&stranger, json!("hunter2"));
        if path.starts_with("eventBus.redis.cluster") {
            argument["eventBus"]["redis"]["cluster"]["nodes"] = json!([{ "host": "a" }]);
        }
        let error = as_ossa(&argument).expect_err(&stranger);
        assert_eq!((error.code, &error.details["path"]), (Code::InvalidConfig, &json!(stranger)), "{error}");
        assert!(error.message.contains("known here: ") && !error.message.contains("hunter2"), "{error}");
    }
    for key in ["serviceName", "__proto__", "constructor", ""] {
        assert_eq!(as_bus(&json!({ key: "x" })).unwrap_err().code, Code::InvalidConfig, "{key}");
    }
}

#[test]
fn a_misspelt_or_misplaced_key_is_told_what_was_meant() {
    for (argument, path, meant) in [
        (at("redis.hots", json!("x")), "redis.hots", "redis.host"),
        (at("redis.keyprefix", json!("x")), "redis.keyprefix", "redis.keyPrefix"),
        (at("defaults.retry.maxAttempt", json!(1)), "defaults.retry.maxAttempt", "defaults.retry.maxAttempts"),
        (at("host", json!("x")), "host", "redis.host"),
        (at("perfomance", json!({})), "perfomance", "performance"),
    ] {
        let error = as_bus(&argument).unwrap_err();
        assert_eq!((&error.details["path"], &error.details["suggestion"]), (&json!(path), &json!(meant)), "{error}");
        assert!(error.message.contains(meant), "{error}");
    }
    let error = as_ossa(&at("redis.port", json!(1))).unwrap_err();
    assert_eq!(error.details["suggestion"], "eventBus.redis");
    assert!(as_bus(&at("eventBus.redis.port", json!(1))).unwrap_err().message.contains("OSSAEventBus"));
}

#[test]
fn contradictions() {
    let nodes = json!([{ "host": "a" }]);
    let cluster = json!({ "nodes": nodes });
    let sentinel = json!({ "masterName": "m", "nodes": nodes });
    for (argument, path) in [
        (json!({ "redis": { "cluster": cluster, "sentinel": sentinel } }), "redis.sentinel"),
        (json!({ "redis": { "url": "memory://", "cluster": cluster } }), "redis.cluster"),
        (json!({ "redis": { "url": "redis://h", "sentinel": sentinel } }), "redis.sentinel"),
        (json!({ "redis": { "cluster": cluster, "db": 1 } }), "redis.db"),
        (json!({ "redis": { "url": "redis://h/1", "db": 2 } }), "redis.db"),
        (json!({ "redis": { "url": "redis://:a@h", "password": "b" } }), "redis.password"),
        (json!({ "redis": { "url": "redis://a@h", "username": "b" } }), "redis.username"),
        (json!({ "redis": { "url": "rediss://h", "tls": false } }), "redis.url"),
        (json!({ "redis": { "url": "memory://", "password": "x" } }), "redis.password"),
        (json!({ "redis": { "url": "memory://", "tls": true } }), "redis.tls"),
        (json!({ "redis": { "url": "memory://", "db": 1 } }), "redis.db"),
        (json!({ "redis": { "sentinel": { "nodes": nodes } } }), "redis.sentinel.masterName"),
        (json!({ "redis": { "sentinel": { "masterName": "m" } } }), "redis.sentinel.nodes"),
        (json!({ "redis": { "cluster": {} } }), "redis.cluster.nodes"),
        (json!({ "redis": { "cluster": { "nodes": [{ "host": "a" }, { "port": 1 }] } } }), "redis.cluster.nodes[1].host"),
        (json!({ "redis": { "cluster": { "nodes": [{ "host": "a", "port": 0 }] } } }), "redis.cluster.nodes[0].port"),
        (json!({ "redis": { "cluster": { "nodes": ["a:1"] } } }), "redis.cluster.nodes[0]"),
        (json!({ "defaults": { "retry": { "initialDelay": 2, "maxDelay": 1 } } }), "defaults.retry.initialDelay"),
        (json!({ "durability": { "waitTimeoutMs": 5 } }), "durability.waitTimeoutMs"),
    ] {
        let error = as_bus(&argument).expect_err(path);
        assert_eq!((error.code, &error.details["path"]), (Code::InvalidConfig, &json!(path)), "{error}");
    }
    let pool = json!({ "minAgentsPerPool": 5, "maxAgentsPerPool": 4 });
    let scaling = json!({ "scaleUpThreshold": 0.5, "scaleDownThreshold": 0.5 });
    let metrics = json!({ "collectionInterval": 5000, "retentionPeriod": 1000 });
    for (argument, path) in [
        (at("orchestration.config", pool), "orchestration.config.minAgentsPerPool"),
        (at("orchestration.config.autoScaling", scaling), "orchestration.config.autoScaling.scaleDownThreshold"),
        (at("monitoring.metrics", metrics), "monitoring.metrics.retentionPeriod"),
    ] {
        assert_eq!(as_ossa(&argument).unwrap_err().details["path"], path);
    }
}

#[test]
fn a_default_yields_to_what_was_given() {
    let retry = |key: &str, ms: u32| bus(&at(&format!("defaults.retry.{key}"), json!(ms)), &[]).unwrap().defaults.retry;
    assert_eq!((retry("initialDelay", 60_000).initial_delay_ms, retry("initialDelay", 60_000).delay_ms_max), (6e4, 6e4));
    assert_eq!((retry("maxDelay", 10).initial_delay_ms, retry("maxDelay", 10).delay_ms_max), (10.0, 10.0));
    let pool = |key: &str, agents: u32| {
        let config = ossa(&at(&format!("orchestration.config.{key}"), json!(agents)), &[]).unwrap().orchestration.config;
        (config.min_agents_per_pool, config.max_agents_per_pool)
    };
    assert_eq!((pool("maxAgentsPerPool", 1), pool("minAgentsPerPool", 60)), ((1, 1), (60, 60)));
}
