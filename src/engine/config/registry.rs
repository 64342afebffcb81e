//! `ServiceRegistryConfig`: the argument of `ServiceRegistry`.

use serde_json::{Value, json};

use super::bounds;
use super::env;
use super::http::HttpConfig;
use super::logging::Logging;
use super::reader::{Environment, Section};
use super::redis::RedisConfig;
use crate::engine::error::Result;

const KEYS: [&str; 6] = ["redis", "healthCheck", "serviceTtlSeconds", "http", "logger", "logLevel"];
const MISPLACED: [(&str, &str); 5] = [
    ("url", "redis.url"),
    ("host", "redis.host"),
    ("port", "redis.port"),
    ("password", "redis.password"),
    ("keyPrefix", "redis.keyPrefix"),
];

/// Everything a service registry is told.
#[derive(Clone, Debug, PartialEq)]
pub struct RegistryConfig {
    /// Connection to the store; takes every key that the bus takes, as settings of an existing client may need them.
    pub redis: RedisConfig,
    /// Checks of the registered services.
    pub health_check: ServiceChecks,
    /// Time after which a service that is not renewed is forgotten, seconds.
    pub service_ttl_s: u64,
    /// What may be asked over HTTP.
    pub http: HttpConfig,
    /// What the program logs.
    pub log: Logging,
}

/// `healthCheck` of `ServiceRegistryConfig`.
#[derive(Clone, Debug, PartialEq)]
pub struct ServiceChecks {
    /// Time between two checks of a service, ms.
    pub interval_ms: u64,
    /// Longest one may take, ms.
    pub timeout_ms: u64,
    /// Failures in a row that make a service unhealthy.
    pub failure_threshold: u32,
    /// Successes in a row that make it healthy again.
    pub success_threshold: u32,
}

impl RegistryConfig {
    pub(super) fn resolve(argument: &Value, environment: &Environment<'_>) -> Result<Self> {
        let section = Section::root(argument, environment, &KEYS, &MISPLACED)?;
        let checks = section.child("healthCheck", &["intervalMs", "timeoutMs", "failureThreshold", "successThreshold"])?;
        Ok(Self {
            redis: RedisConfig::read(&section, "keyPrefix", "ossa:services")?,
            health_check: ServiceChecks {
                interval_ms: checks.whole("intervalMs", &bounds::INTERVAL, 30_000)?,
                timeout_ms: checks.whole("timeoutMs", &bounds::CHECK_TIMEOUT, 5_000)?,
                failure_threshold: checks.whole("failureThreshold", &bounds::CHECKS, 3)?,
                success_threshold: checks.whole("successThreshold", &bounds::CHECKS, 2)?,
            },
            service_ttl_s: section.whole("serviceTtlSeconds", &bounds::SERVICE_TTL, 300)?,
            http: HttpConfig::read(&section)?,
            log: Logging::read(&section)?,
        })
    }

    /// Reads what [`to_json`](Self::to_json) wrote, without an environment.
    ///
    /// # Errors
    /// `ERR_INVALID_CONFIG` with the path of the key.
    pub fn from_resolved(resolved: &Value) -> Result<Self> {
        Self::resolve(resolved, &env::none)
    }

    /// The complete configuration in the shape of `ServiceRegistryConfig`, passwords in clear.
    pub fn to_json(&self) -> Value {
        let mut out = json!({
            "redis": self.redis.to_json(),
            "healthCheck": {
                "intervalMs": self.health_check.interval_ms,
                "timeoutMs": self.health_check.timeout_ms,
                "failureThreshold": self.health_check.failure_threshold,
                "successThreshold": self.health_check.success_threshold,
            },
            "serviceTtlSeconds": self.service_ttl_s,
            "http": self.http.to_json(),
        });
        self.log.put_into(&mut |key, value| out[key] = value);
        out
    }
}
