//! The environment variables that count, by name. An empty one counts as absent; blanks around a value do not count,
//! except in a password.

/// Sets `redis.host`.
pub const REDIS_HOST: &str = "REDIS_HOST";
/// Sets `redis.port`.
pub const REDIS_PORT: &str = "REDIS_PORT";
/// Sets `redis.password`.
pub const REDIS_PASSWORD: &str = "REDIS_PASSWORD";
/// Sets `redis.db`.
pub const REDIS_DB: &str = "REDIS_DB";
/// Sets `redis.url`, unless the argument says where Redis is.
pub const REDIS_URL: &str = "REDIS_URL";
/// Sets `redis.keyPrefix` of the bus.
pub const EVENTBUS_KEY_PREFIX: &str = "EVENTBUS_KEY_PREFIX";
/// Sets `performance.batchSize`.
pub const EVENTBUS_BATCH_SIZE: &str = "EVENTBUS_BATCH_SIZE";
/// Sets `performance.batchTimeout`, ms.
pub const EVENTBUS_BATCH_TIMEOUT: &str = "EVENTBUS_BATCH_TIMEOUT";
/// Sets `performance.connectionPoolSize`.
pub const EVENTBUS_CONNECTION_POOL_SIZE: &str = "EVENTBUS_CONNECTION_POOL_SIZE";
/// Sets `performance.pipelineSize`.
pub const EVENTBUS_PIPELINE_SIZE: &str = "EVENTBUS_PIPELINE_SIZE";
/// Sets `defaults.ttl`, seconds.
pub const EVENTBUS_DEFAULT_TTL: &str = "EVENTBUS_DEFAULT_TTL";
/// Sets `eventBus.monitoring.enabled` and `monitoring.metrics.enabled`.
pub const MONITORING_ENABLED: &str = "MONITORING_ENABLED";
/// Sets `eventBus.monitoring.metricsInterval` and `monitoring.metrics.collectionInterval`, ms.
pub const METRICS_COLLECTION_INTERVAL: &str = "METRICS_COLLECTION_INTERVAL";
/// Sets `eventBus.monitoring.healthCheckInterval` and `monitoring.healthCheck.interval`, ms.
pub const HEALTH_CHECK_INTERVAL: &str = "HEALTH_CHECK_INTERVAL";
/// Name of this service: default group, source of events, service of traces.
pub const SERVICE_NAME: &str = "SERVICE_NAME";
/// Sets `logLevel`, of buses and registries.
pub const OSSA_LOG: &str = "OSSA_LOG";

/// All of them.
pub const ALL: [&str; 16] = [
    REDIS_HOST,
    REDIS_PORT,
    REDIS_PASSWORD,
    REDIS_DB,
    REDIS_URL,
    EVENTBUS_KEY_PREFIX,
    EVENTBUS_BATCH_SIZE,
    EVENTBUS_BATCH_TIMEOUT,
    EVENTBUS_CONNECTION_POOL_SIZE,
    EVENTBUS_PIPELINE_SIZE,
    EVENTBUS_DEFAULT_TTL,
    MONITORING_ENABLED,
    METRICS_COLLECTION_INTERVAL,
    HEALTH_CHECK_INTERVAL,
    SERVICE_NAME,
    OSSA_LOG,
];

/// An environment in which nothing is set.
pub(super) fn none(_: &str) -> Option<String> {
    None
}
