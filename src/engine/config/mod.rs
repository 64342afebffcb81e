//! Configuration: the program's argument over the environment over defaults, key by key, all of it checked.
//!
//! Pure: the environment comes in as a function. An unknown key, a wrong type or an impossible value is
//! `ERR_INVALID_CONFIG` with the path of its key (`details.path`), the environment variable it came from
//! (`details.env`) and, for a misspelt key, the right one (`details.suggestion`). Two given values that contradict each
//! other are refused; a default yields to a given value instead. No secret is in any error.
//!
//! Reading order: `secret`, `bounds`, `suggest`, `env`; `found` and `reader` (values and objects); `host`, `url`,
//! `tls`, `address`, `credentials`, `redis`; `defaults`, `logging`, `event_bus`; `host_rule`, `http`, `registry`; `projects`,
//! `orchestration`, `telemetry`, `ossa`.

pub mod bounds;
pub mod env;

mod address;
mod credentials;
mod defaults;
mod event_bus;
mod found;
mod host;
mod host_rule;
mod http;
mod logging;
mod orchestration;
mod ossa;
mod projects;
mod reader;
mod redis;
mod registry;
mod secret;
mod suggest;
mod telemetry;
#[cfg(test)]
mod tests;
mod tls;
mod url;

use serde_json::{Map, Value, json};

use super::error::{Code, Error, Result};

pub use address::Address;
pub use defaults::Defaults;
pub use event_bus::{BusConfig, BusMonitoring, DeadLetterQueue, Durability, Limits, Performance, Tracing};
pub use host_rule::{HostRule, Network, Whom};
pub use http::HttpConfig;
pub use logging::Logging;
pub use orchestration::{LoadBalancing, Orchestration, Strategy};
pub use ossa::{OssaConfig, RegistryIntegration};
pub use projects::CrossProject;
pub use reader::Environment;
pub use redis::RedisConfig;
pub use registry::{RegistryConfig, ServiceChecks};
pub use secret::Secret;
pub use telemetry::{Alerting, HealthCheck, Metrics, MonitoringConfig, TraceExport, webhook_key};
pub use tls::Tls;

/// Resolves the argument of `RedisEventBus`. Paths in errors are relative to it (`redis.port`).
///
/// # Errors
/// `ERR_INVALID_CONFIG` with the path of the key; `ERR_DISABLED` for a URL of a Unix socket.
pub fn resolve_bus(argument: &Value, env: &Environment<'_>) -> Result<BusConfig> {
    BusConfig::resolve(argument, env)
}

/// Resolves the argument of `OSSAEventBus` (`eventBus.redis.port`).
///
/// # Errors
/// `ERR_INVALID_CONFIG` with the path of the key; `ERR_DISABLED` for a URL of a Unix socket.
pub fn resolve_ossa(argument: &Value, env: &Environment<'_>) -> Result<OssaConfig> {
    OssaConfig::resolve(argument, env)
}

/// Resolves the argument of `ServiceRegistry` (`redis.port`).
///
/// # Errors
/// `ERR_INVALID_CONFIG` with the path of the key; `ERR_DISABLED` for a URL of a Unix socket.
pub fn resolve_registry(argument: &Value, env: &Environment<'_>) -> Result<RegistryConfig> {
    RegistryConfig::resolve(argument, env)
}

/// The defaults of a kind (`eventBus`, `ossa`, `serviceRegistry`), untouched by any environment.
///
/// # Errors
/// `ERR_INTERNAL` for another kind.
pub fn default_json(kind: &str) -> Result<Value> {
    resolve_kind(kind, &Value::Object(Map::new()), &env::none)
}

/// The crossing form of the three: texts in, `{"ok":…}` or `{"err":…}` out. `env_json` is an object of strings.
pub fn resolve(kind: &str, argument_json: &str, env_json: &str) -> Value {
    let answer = parse_environment(env_json).and_then(|variables| {
        let argument = parse_argument(argument_json)?;
        let env = |name: &str| variables.get(name).and_then(Value::as_str).map(str::to_owned);
        resolve_kind(kind, &argument, &env)
    });
    match answer {
        Ok(resolved) => json!({ "ok": resolved }),
        Err(error) => json!({ "err": error.to_json() }),
    }
}

fn resolve_kind(kind: &str, argument: &Value, env: &Environment<'_>) -> Result<Value> {
    match kind {
        "eventBus" => resolve_bus(argument, env).map(|config| config.to_json()),
        "ossa" => resolve_ossa(argument, env).map(|config| config.to_json()),
        "serviceRegistry" => resolve_registry(argument, env).map(|config| config.to_json()),
        _ => Err(Error::internal("unknown kind of configuration; known are 'eventBus', 'ossa' and 'serviceRegistry'")),
    }
}

/// Neither error repeats the text: it may hold passwords.
fn parse_argument(text: &str) -> Result<Value> {
    serde_json::from_str(text).map_err(|error| {
        let place = format!("line {}, column {}", error.line(), error.column());
        let problem = "the configuration is not JSON (broken text, half of a surrogate pair, or nested too deeply)";
        Error::new(Code::InvalidConfig, format!("{problem}, at {place}"))
    })
}

fn parse_environment(text: &str) -> Result<Map<String, Value>> {
    match serde_json::from_str(text) {
        Ok(Value::Object(variables)) if variables.values().all(Value::is_string) => Ok(variables),
        _ => Err(Error::internal("the environment did not arrive as a JSON object of strings")),
    }
}
