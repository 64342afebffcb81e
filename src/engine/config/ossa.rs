//! `OSSAEventBusConfig`: the argument of `OSSAEventBus`.

use serde_json::{Value, json};

use super::bounds;
use super::env;
use super::event_bus::{self, BusConfig};
use super::http::HttpConfig;
use super::orchestration::Orchestration;
use super::projects::CrossProject;
use super::reader::{Environment, Section};
use super::telemetry::MonitoringConfig;
use crate::engine::error::Result;

const KEYS: [&str; 5] = ["eventBus", "serviceRegistry", "crossProject", "orchestration", "monitoring"];
const MISPLACED: [(&str, &str); 13] = [
    ("redis", "eventBus.redis"),
    ("performance", "eventBus.performance"),
    ("defaults", "eventBus.defaults"),
    ("deadLetterQueue", "eventBus.deadLetterQueue"),
    ("limits", "eventBus.limits"),
    ("durability", "eventBus.durability"),
    ("logger", "eventBus.logger"),
    ("logLevel", "eventBus.logLevel"),
    ("url", "eventBus.redis.url"),
    ("host", "eventBus.redis.host"),
    ("port", "eventBus.redis.port"),
    ("password", "eventBus.redis.password"),
    ("keyPrefix", "eventBus.redis.keyPrefix"),
];

const REGISTRY_KEYS: [&str; 6] = ["enabled", "autoRegister", "healthMonitoring", "contractDiscovery", "discoveryRefreshInterval", "http"];

/// Everything the orchestrating bus is told.
#[derive(Clone, Debug, PartialEq)]
pub struct OssaConfig {
    /// The bus below.
    pub event_bus: BusConfig,
    /// Its work with a service registry.
    pub service_registry: RegistryIntegration,
    /// Messages between projects.
    pub cross_project: CrossProject,
    /// Distribution of tasks to agents.
    pub orchestration: Orchestration,
    /// Metrics, traces, alerts and health.
    pub monitoring: MonitoringConfig,
}

/// `serviceRegistry` of `OSSAEventBusConfig`.
#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::struct_excessive_bools)] // the public contract's
pub struct RegistryIntegration {
    /// Whether the registry is used at all.
    pub enabled: bool,
    /// Whether this bus registers itself.
    pub auto_register: bool,
    /// Whether health changes become events.
    pub health_monitoring: bool,
    /// Whether contracts are learnt from services.
    pub contract_discovery: bool,
    /// Time between two looks at the registry, ms.
    pub discovery_refresh_interval_ms: u64,
    /// What may be asked over HTTP, beside what the registry itself is told; without it, what the registry is told alone.
    pub http: Option<HttpConfig>,
}

impl OssaConfig {
    pub(super) fn resolve(argument: &Value, environment: &Environment<'_>) -> Result<Self> {
        Self::read(argument, environment, &event_bus::KEYS)
    }

    /// Reads what [`to_json`](Self::to_json) wrote, without an environment.
    ///
    /// # Errors
    /// `ERR_INVALID_CONFIG` with the path of the key.
    pub fn from_resolved(resolved: &Value) -> Result<Self> {
        Self::read(resolved, &env::none, &event_bus::RESOLVED_KEYS)
    }

    fn read(argument: &Value, environment: &Environment<'_>, bus_keys: &[&'static str]) -> Result<Self> {
        let section = Section::root(argument, environment, &KEYS, &MISPLACED)?;
        let event_bus = BusConfig::read(&section.child("eventBus", bus_keys)?)?;
        Ok(Self {
            service_registry: RegistryIntegration::read(&section)?,
            cross_project: CrossProject::read(&section)?,
            orchestration: Orchestration::read(&section)?,
            monitoring: MonitoringConfig::read(&section, event_bus.service_name.as_deref())?,
            event_bus,
        })
    }

    /// The complete configuration in the shape of `OSSAEventBusConfig`; its `eventBus` is what
    /// [`BusConfig::to_json`] gives, `serviceName` and passwords in clear included.
    pub fn to_json(&self) -> Value {
        json!({
            "eventBus": self.event_bus.to_json(),
            "serviceRegistry": self.service_registry.to_json(),
            "crossProject": self.cross_project.to_json(),
            "orchestration": self.orchestration.to_json(),
            "monitoring": self.monitoring.to_json(),
        })
    }
}

impl RegistryIntegration {
    fn read(parent: &Section<'_>) -> Result<Self> {
        let section = parent.child("serviceRegistry", &REGISTRY_KEYS)?;
        Ok(Self {
            enabled: section.flag("enabled", true)?,
            auto_register: section.flag("autoRegister", true)?,
            health_monitoring: section.flag("healthMonitoring", true)?,
            contract_discovery: section.flag("contractDiscovery", true)?,
            discovery_refresh_interval_ms: section.whole("discoveryRefreshInterval", &bounds::INTERVAL, 60_000)?,
            http: if section.value("http").is_some() { Some(HttpConfig::read(&section)?) } else { None },
        })
    }

    fn to_json(&self) -> Value {
        let mut out = json!({
            "enabled": self.enabled,
            "autoRegister": self.auto_register,
            "healthMonitoring": self.health_monitoring,
            "contractDiscovery": self.contract_discovery,
            "discoveryRefreshInterval": self.discovery_refresh_interval_ms,
        });
        if let Some(http) = &self.http {
            out["http"] = http.to_json();
        }
        out
    }
}
