//! `orchestration`: distribution of tasks to agents.

use serde_json::{Value, json};

use super::bounds;
use super::defaults::number;
use super::reader::Section;
use crate::engine::error::{Error, Result};

/// `newcomerShare` unless given.
const NEWCOMER_SHARE: f64 = 0.1;

const STRATEGIES: [(&str, Strategy); 5] = [
    ("round-robin", Strategy::RoundRobin),
    ("least-loaded", Strategy::LeastLoaded),
    ("capability-based", Strategy::CapabilityBased),
    ("performance-weighted", Strategy::PerformanceWeighted),
    ("predictive", Strategy::Predictive),
];

/// `orchestration` of `OSSAEventBusConfig`.
#[derive(Clone, Debug, PartialEq)]
pub struct Orchestration {
    /// Whether agents are followed and tasks given out.
    pub enabled: bool,
    /// How.
    pub config: LoadBalancing,
}

/// `LoadBalancingConfig`.
#[derive(Clone, Debug, PartialEq)]
pub struct LoadBalancing {
    /// Most agents in a pool.
    pub max_agents_per_pool: u32,
    /// Fewest agents that scaling down leaves.
    pub min_agents_per_pool: u32,
    /// Utilisation above which more agents are asked for, 0 to 1.
    pub scale_up_threshold: f64,
    /// Utilisation below which fewer are, 0 to 1.
    pub scale_down_threshold: f64,
    /// Least time between two such announcements of a pool, ms.
    pub cooldown_period_ms: u64,
    /// Who gets a task.
    pub strategy: Strategy,
    /// Share of tasks that `performance-weighted` gives to agents whose performance is not known yet, 0 to 1.
    pub newcomer_share: f64,
    /// Share of failures that opens an agent's circuit, 0 to 1.
    pub failure_threshold: f64,
    /// Time after which an open circuit lets one task through, ms.
    pub reset_timeout_ms: u64,
    /// Time over which failures are counted, ms.
    pub monitoring_period_ms: u64,
    /// Fewest tasks over that time by which an agent is judged.
    pub minimum_calls: u32,
    /// Silence after which an agent has failed, ms.
    pub agent_timeout_ms: u64,
}

/// `distributionStrategy.name`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// In turn.
    RoundRobin,
    /// The one with the fewest running tasks.
    LeastLoaded,
    /// The one whose capabilities fit most closely.
    CapabilityBased,
    /// The one that did best so far.
    PerformanceWeighted,
    /// The one that will probably finish first.
    Predictive,
}

impl Strategy {
    /// As in the public contract.
    pub fn as_str(self) -> &'static str {
        STRATEGIES.iter().find(|(_, strategy)| *strategy == self).map_or("performance-weighted", |(name, _)| name)
    }
}

impl Orchestration {
    pub(super) fn read(parent: &Section<'_>) -> Result<Self> {
        let section = parent.child("orchestration", &["enabled", "config"])?;
        let config = section.child(
            "config",
            &["maxAgentsPerPool", "minAgentsPerPool", "autoScaling", "distributionStrategy", "circuitBreaker", "agentTimeoutMs"],
        )?;
        Ok(Self { enabled: section.flag("enabled", true)?, config: LoadBalancing::read(&config)? })
    }

    pub(super) fn to_json(&self) -> Value {
        json!({ "enabled": self.enabled, "config": self.config.to_json() })
    }
}

impl LoadBalancing {
    fn read(section: &Section<'_>) -> Result<Self> {
        let scaling = section.child("autoScaling", &["scaleUpThreshold", "scaleDownThreshold", "cooldownPeriod"])?;
        let breaker = section.child("circuitBreaker", &["failureThreshold", "resetTimeout", "monitoringPeriod", "minimumCalls"])?;
        let (min_agents_per_pool, max_agents_per_pool) = read_pool_size(section)?;
        let (scale_down_threshold, scale_up_threshold) = read_thresholds(&scaling)?;
        let (strategy, newcomer_share) = read_strategy(section)?;
        Ok(Self {
            max_agents_per_pool,
            min_agents_per_pool,
            scale_up_threshold,
            scale_down_threshold,
            cooldown_period_ms: scaling.whole("cooldownPeriod", &bounds::PAUSE, 60_000)?,
            strategy,
            newcomer_share,
            failure_threshold: breaker.number("failureThreshold", &bounds::FAILURE_SHARE, 0.5)?,
            reset_timeout_ms: breaker.whole("resetTimeout", &bounds::PAUSE, 30_000)?,
            monitoring_period_ms: breaker.whole("monitoringPeriod", &bounds::INTERVAL, 10_000)?,
            minimum_calls: breaker.whole("minimumCalls", &bounds::CALLS, 5)?,
            agent_timeout_ms: section.whole("agentTimeoutMs", &bounds::INTERVAL, 60_000)?,
        })
    }

    /// Those that are not the default, so that another strategy may be put in the place of this one.
    fn parameters(&self) -> Value {
        let is_default = (self.newcomer_share - NEWCOMER_SHARE).abs() < f64::EPSILON;
        if is_default { json!({}) } else { json!({ "newcomerShare": number(self.newcomer_share) }) }
    }

    fn to_json(&self) -> Value {
        json!({
            "maxAgentsPerPool": self.max_agents_per_pool,
            "minAgentsPerPool": self.min_agents_per_pool,
            "autoScaling": {
                "scaleUpThreshold": number(self.scale_up_threshold),
                "scaleDownThreshold": number(self.scale_down_threshold),
                "cooldownPeriod": self.cooldown_period_ms,
            },
            "distributionStrategy": { "name": self.strategy.as_str(), "parameters": self.parameters() },
            "circuitBreaker": {
                "failureThreshold": number(self.failure_threshold),
                "resetTimeout": self.reset_timeout_ms,
                "monitoringPeriod": self.monitoring_period_ms,
                "minimumCalls": self.minimum_calls,
            },
            "agentTimeoutMs": self.agent_timeout_ms,
        })
    }
}

/// Least and most agents. One given alone moves the default of the other; only given ones contradict.
fn read_pool_size(section: &Section<'_>) -> Result<(u32, u32)> {
    let min = section.argument("minAgentsPerPool").map(|found| found.whole(&bounds::AGENTS_MIN)).transpose()?;
    let max = section.argument("maxAgentsPerPool").map(|found| found.whole(&bounds::AGENTS_MAX)).transpose()?;
    match (min, max) {
        (Some(min), Some(max)) if min > max => {
            let problem = format!("is {min}, more than maxAgentsPerPool, {max}");
            Err(Error::config(&section.at("minAgentsPerPool"), problem))
        }
        (Some(min), max) => Ok((min, max.unwrap_or(min.max(50)))),
        (None, max) => Ok((max.unwrap_or(2).min(2), max.unwrap_or(50))),
    }
}

/// Thresholds to scale down and up, by the same rule. Equal ones would scale up and down in turn.
fn read_thresholds(section: &Section<'_>) -> Result<(f64, f64)> {
    let read = |key: &'static str| section.argument(key).map(|found| found.number(&bounds::SHARE)).transpose();
    match (read("scaleDownThreshold")?, read("scaleUpThreshold")?) {
        (Some(down), Some(up)) if down >= up => {
            let problem = format!("is {down}; it must be less than scaleUpThreshold, {up}");
            Err(Error::config(&section.at("scaleDownThreshold"), problem))
        }
        (Some(down), Some(up)) => Ok((down, up)),
        (Some(down), None) if down >= 1.0 => {
            Err(Error::config(&section.at("scaleDownThreshold"), "is 1; it must be less than scaleUpThreshold"))
        }
        (Some(down), None) => Ok((down, if down < 0.8 { 0.8 } else { f64::midpoint(down, 1.0) })),
        (None, Some(0.0)) => Err(Error::config(&section.at("scaleUpThreshold"), "is 0; it must be more than scaleDownThreshold")),
        (None, Some(up)) => Ok((if up > 0.3 { 0.3 } else { up / 2.0 }, up)),
        (None, None) => Ok((0.3, 0.8)),
    }
}

/// The strategy, and the share of newcomers: the one parameter that there is, of `performance-weighted`.
fn read_strategy(parent: &Section<'_>) -> Result<(Strategy, f64)> {
    let section = parent.child("distributionStrategy", &["name", "parameters"])?;
    let strategy = match section.argument("name") {
        Some(found) => found.one_of(&STRATEGIES)?,
        None => Strategy::PerformanceWeighted,
    };
    let known: &[&'static str] = if strategy == Strategy::PerformanceWeighted { &["newcomerShare"] } else { &[] };
    let parameters = section.child("parameters", known)?;
    Ok((strategy, parameters.number("newcomerShare", &bounds::SHARE, NEWCOMER_SHARE)?))
}
