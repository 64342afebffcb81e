//! `EventBusConfig`: the argument of `RedisEventBus`, and `eventBus` of `OSSAEventBus`.

use serde_json::{Map, Value, json};

use super::bounds;
use super::defaults::{Defaults, number};
use super::env;
use super::logging::Logging;
use super::reader::{Environment, Section};
use super::redis::{RedisConfig, read_prefix};
use crate::engine::error::{Error, Result};
use crate::engine::name::check_group;

/// Keys of the public contract; in the resolved form `serviceName` joins them.
pub(super) const KEYS: [&str; 9] =
    ["redis", "performance", "monitoring", "defaults", "deadLetterQueue", "limits", "durability", "logger", "logLevel"];
pub(super) const RESOLVED_KEYS: [&str; 10] =
    ["redis", "performance", "monitoring", "defaults", "deadLetterQueue", "limits", "durability", "logger", "logLevel", "serviceName"];
const MISPLACED: [(&str, &str); 6] = [
    ("eventBus", "OSSAEventBus; RedisEventBus takes the content of eventBus itself"),
    ("url", "redis.url"),
    ("host", "redis.host"),
    ("port", "redis.port"),
    ("password", "redis.password"),
    ("keyPrefix", "redis.keyPrefix"),
];

/// Everything a bus is told.
#[derive(Clone, Debug, PartialEq)]
pub struct BusConfig {
    /// Connection to the store.
    pub redis: RedisConfig,
    /// Sizes and waits.
    pub performance: Performance,
    /// Metrics, traces and health checks of the bus.
    pub monitoring: BusMonitoring,
    /// What an event has unless its publisher says otherwise.
    pub defaults: Defaults,
    /// What becomes of events that failed for good.
    pub dead_letter_queue: DeadLetterQueue,
    /// Bounds.
    pub limits: Limits,
    /// What publish waits for beyond Redis itself; nothing when `None`.
    pub durability: Option<Durability>,
    /// `SERVICE_NAME`: default group and source.
    pub service_name: Option<String>,
    /// What the program logs.
    pub log: Logging,
}

/// `performance`.
#[derive(Clone, Debug, PartialEq)]
pub struct Performance {
    /// Most events read at once.
    pub batch_size: usize,
    /// Longest a read blocks when nothing is there, ms.
    pub batch_timeout_ms: u64,
    /// Most connections to one server beside the readers'.
    pub connection_pool_size: usize,
    /// Most commands sent in one pipeline.
    pub pipeline_size: usize,
}

/// `monitoring` of a bus.
#[derive(Clone, Debug, PartialEq)]
pub struct BusMonitoring {
    /// Whether metrics are collected.
    pub enabled: bool,
    /// Time between two collections, ms.
    pub metrics_interval_ms: u64,
    /// Traces.
    pub tracing: Tracing,
    /// Time between two health checks, ms.
    pub health_check_interval_ms: u64,
}

/// `monitoring.tracing` of a bus: `true`, `false`, or with a rate.
#[derive(Clone, Debug, PartialEq)]
pub struct Tracing {
    /// Whether events carry and make spans.
    pub enabled: bool,
    /// Share of the events that debug mode writes down, 0 to 1; `None`: not said, and debug mode is off.
    pub sampling_rate: Option<f64>,
}

/// `deadLetterQueue`.
#[derive(Clone, Debug, PartialEq)]
pub struct DeadLetterQueue {
    /// Whether dead letters are kept.
    pub enabled: bool,
    /// Stands for `<keyPrefix>:dlq` in their keys.
    pub key_pattern: Option<String>,
    /// How long they are kept, seconds.
    pub retention_s: f64,
}

/// `limits`.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Longest data of one event, bytes of JSON text.
    pub max_payload_bytes: usize,
    /// Most publishes that wait for Redis.
    pub max_pending_publishes: usize,
    /// Most acknowledged events kept in a stream.
    pub keep_acknowledged: u64,
    /// Most events in a stream; no bound when `None`.
    pub max_stream_length: Option<u64>,
    /// Silence of the JavaScript thread after which its events go to other processes, ms.
    pub stall_timeout_ms: u64,
}

/// `durability`: at least one of the first two is set.
#[derive(Clone, Debug, PartialEq)]
pub struct Durability {
    /// Replicas that must have the event.
    pub wait_replicas: u32,
    /// Whether it must be on disk.
    pub fsync: bool,
    /// Longest wait for them, ms.
    pub wait_timeout_ms: u64,
}

impl BusConfig {
    /// Argument of `RedisEventBus` over environment over defaults. Paths in errors are those within the argument.
    pub(super) fn resolve(argument: &Value, env: &Environment<'_>) -> Result<Self> {
        Self::read(&Section::root(argument, env, &KEYS, &MISPLACED)?)
    }

    /// Reads what [`to_json`](Self::to_json) wrote (or any complete or partial configuration), without an environment.
    ///
    /// # Errors
    /// `ERR_INVALID_CONFIG` with the path of the key.
    pub fn from_resolved(resolved: &Value) -> Result<Self> {
        Self::read(&Section::root(resolved, &env::none, &RESOLVED_KEYS, &MISPLACED)?)
    }

    /// Reads a section whose keys were checked.
    pub(super) fn read(section: &Section<'_>) -> Result<Self> {
        let redis = RedisConfig::read(section, ("keyPrefix", env::EVENTBUS_KEY_PREFIX), "ossa:eventbus")?;
        Ok(Self {
            performance: Performance::read(section)?,
            monitoring: BusMonitoring::read(section)?,
            defaults: Defaults::read(section)?,
            dead_letter_queue: DeadLetterQueue::read(section, &redis.key_prefix)?,
            limits: Limits::read(section)?,
            durability: Durability::read(section, redis.address.is_memory())?,
            service_name: read_service_name(section)?,
            log: Logging::read(section)?,
            redis,
        })
    }

    /// The complete configuration in the shape of `EventBusConfig`, and `serviceName`. Passwords stand in it in clear,
    /// as it goes back into [`from_resolved`](Self::from_resolved): it is not for logs.
    pub fn to_json(&self) -> Value {
        let mut out = Map::new();
        let mut put = |key: &str, value: Value| {
            out.insert(key.to_owned(), value);
        };
        put("redis", self.redis.to_json());
        put("performance", self.performance.to_json());
        put("monitoring", self.monitoring.to_json());
        put("defaults", self.defaults.to_json());
        put("deadLetterQueue", self.dead_letter_queue.to_json());
        put("limits", self.limits.to_json());
        if let Some(durability) = &self.durability {
            put("durability", durability.to_json());
        }
        self.log.put_into(&mut put);
        if let Some(name) = &self.service_name {
            put("serviceName", json!(name));
        }
        Value::Object(out)
    }
}

impl Performance {
    fn read(parent: &Section<'_>) -> Result<Self> {
        let section = parent.child("performance", &["batchSize", "batchTimeout", "connectionPoolSize", "pipelineSize"])?;
        let pool = ("connectionPoolSize", env::EVENTBUS_CONNECTION_POOL_SIZE);
        Ok(Self {
            batch_size: section.whole(("batchSize", env::EVENTBUS_BATCH_SIZE), &bounds::BATCH_SIZE, 100)?,
            batch_timeout_ms: section.whole(("batchTimeout", env::EVENTBUS_BATCH_TIMEOUT), &bounds::BATCH_TIMEOUT, 1_000)?,
            connection_pool_size: section.whole(pool, &bounds::POOL_SIZE, 10)?,
            pipeline_size: section.whole(("pipelineSize", env::EVENTBUS_PIPELINE_SIZE), &bounds::PIPELINE_SIZE, 100)?,
        })
    }

    fn to_json(&self) -> Value {
        json!({
            "batchSize": self.batch_size,
            "batchTimeout": self.batch_timeout_ms,
            "connectionPoolSize": self.connection_pool_size,
            "pipelineSize": self.pipeline_size,
        })
    }
}

impl BusMonitoring {
    fn read(parent: &Section<'_>) -> Result<Self> {
        let section = parent.child("monitoring", &["enabled", "metricsInterval", "tracing", "healthCheckInterval"])?;
        let metrics = ("metricsInterval", env::METRICS_COLLECTION_INTERVAL);
        let health = ("healthCheckInterval", env::HEALTH_CHECK_INTERVAL);
        Ok(Self {
            enabled: section.flag(("enabled", env::MONITORING_ENABLED), true)?,
            metrics_interval_ms: section.whole(metrics, &bounds::INTERVAL, 30_000)?,
            tracing: Tracing::read(&section)?,
            health_check_interval_ms: section.whole(health, &bounds::INTERVAL, 15_000)?,
        })
    }

    fn to_json(&self) -> Value {
        json!({
            "enabled": self.enabled,
            "metricsInterval": self.metrics_interval_ms,
            "tracing": self.tracing.to_json(),
            "healthCheckInterval": self.health_check_interval_ms,
        })
    }
}

impl Tracing {
    fn read(parent: &Section<'_>) -> Result<Self> {
        let Some(found) = parent.argument("tracing") else {
            return Ok(Self { enabled: true, sampling_rate: None });
        };
        match parent.value("tracing") {
            Some(Value::Object(_)) => {
                let section = parent.child("tracing", &["enabled", "samplingRate"])?;
                let rate = section.argument("samplingRate");
                Ok(Self {
                    enabled: section.flag("enabled", true)?,
                    sampling_rate: rate.map(|found| found.number(&bounds::SAMPLING_RATE)).transpose()?,
                })
            }
            Some(Value::Bool(enabled)) => Ok(Self { enabled: *enabled, sampling_rate: None }),
            _ => Err(found.wrong("true, false, or an object with enabled and samplingRate")),
        }
    }

    /// A plain flag where nothing else was said, as in the public defaults.
    fn to_json(&self) -> Value {
        self.sampling_rate.map_or(Value::Bool(self.enabled), |rate| json!({ "enabled": self.enabled, "samplingRate": number(rate) }))
    }
}

impl DeadLetterQueue {
    fn read(parent: &Section<'_>, key_prefix: &str) -> Result<Self> {
        let section = parent.child("deadLetterQueue", &["enabled", "keyPattern", "retention"])?;
        let key_pattern = match section.argument("keyPattern") {
            Some(found) => {
                let pattern = read_prefix(&found)?;
                if pattern == key_prefix {
                    return Err(found.error("is the same as redis.keyPrefix; dead letters need keys of their own"));
                }
                Some(pattern)
            }
            None => None,
        };
        Ok(Self {
            enabled: section.flag("enabled", true)?,
            key_pattern,
            retention_s: section.number("retention", &bounds::RETENTION, 604_800.0)?,
        })
    }

    fn to_json(&self) -> Value {
        let mut out = json!({ "enabled": self.enabled, "retention": number(self.retention_s) });
        if let Some(pattern) = &self.key_pattern {
            out["keyPattern"] = json!(pattern);
        }
        out
    }
}

impl Limits {
    fn read(parent: &Section<'_>) -> Result<Self> {
        let section =
            parent.child("limits", &["maxPayloadBytes", "maxPendingPublishes", "keepAcknowledged", "maxStreamLength", "stallTimeoutMs"])?;
        let length = section.argument("maxStreamLength");
        Ok(Self {
            max_payload_bytes: section.whole("maxPayloadBytes", &bounds::PAYLOAD_BYTES, 1 << 20)?,
            max_pending_publishes: section.whole("maxPendingPublishes", &bounds::PENDING_PUBLISHES, 100_000)?,
            keep_acknowledged: section.whole("keepAcknowledged", &bounds::KEEP_ACKNOWLEDGED, 100_000)?,
            max_stream_length: length.map(|found| found.whole(&bounds::STREAM_LENGTH)).transpose()?,
            stall_timeout_ms: section.whole("stallTimeoutMs", &bounds::STALL_TIMEOUT, 120_000)?,
        })
    }

    fn to_json(&self) -> Value {
        let mut out = json!({
            "maxPayloadBytes": self.max_payload_bytes,
            "maxPendingPublishes": self.max_pending_publishes,
            "keepAcknowledged": self.keep_acknowledged,
            "stallTimeoutMs": self.stall_timeout_ms,
        });
        if let Some(length) = self.max_stream_length {
            out["maxStreamLength"] = json!(length);
        }
        out
    }
}

impl Durability {
    fn read(parent: &Section<'_>, in_memory: bool) -> Result<Option<Self>> {
        let section = parent.child("durability", &["waitReplicas", "fsync", "waitTimeoutMs"])?;
        let wait_replicas = section.whole("waitReplicas", &bounds::REPLICAS, 0)?;
        let fsync = section.flag("fsync", false)?;
        let wait_timeout_ms = section.whole("waitTimeoutMs", &bounds::TIMEOUT, 1_000)?;
        if wait_replicas > 0 || fsync {
            if in_memory {
                return Err(Error::config(&parent.at("durability"), "has no meaning with memory://; leave it out"));
            }
            return Ok(Some(Self { wait_replicas, fsync, wait_timeout_ms }));
        }
        match section.argument("waitTimeoutMs") {
            Some(found) => Err(found.error("waits for nothing: give waitReplicas of 1 or more, or fsync: true")),
            None => Ok(None),
        }
    }

    fn to_json(&self) -> Value {
        json!({ "waitReplicas": self.wait_replicas, "fsync": self.fsync, "waitTimeoutMs": self.wait_timeout_ms })
    }
}

fn read_service_name(section: &Section<'_>) -> Result<Option<String>> {
    let right = "1 to 256 of the characters A-Z a-z 0-9 _ . : / -";
    let found = section.find(("serviceName", env::SERVICE_NAME));
    found.map(|found| found.checked(right, |name| check_group(name).is_ok())).transpose()
}
