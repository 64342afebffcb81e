//! Orchestration of agents: who is there, who gets which task, what becomes of it, and when there are too few of them or too many.
//!
//! Any number of processes take part; one of them *leads*. It alone reads what agents say, decides, and writes what it decided to the store,
//! so that nothing is decided twice; the others are ready to go on from there. All keep a `view` for those who ask.
//!
//! Reading order: `reading` what events say; `task`, `agent` with `average` and `circuit`, `pools`; `queue` what waits; `choosing` and
//! `planning` the strategies; `scaling`; `orchestra` the machine that decides, with `hearing`, `life`, `giving` and `upkeep` its parts;
//! `leading` its way to the world; `view` what everybody sees of it.

mod agent;
mod average;
mod choosing;
mod circuit;
mod giving;
mod hearing;
mod leading;
mod life;
mod orchestra;
mod planning;
mod pools;
mod queue;
mod reading;
mod scaling;
mod task;
#[cfg(test)]
mod tests;
mod upkeep;
mod view;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::config::LoadBalancing;
use super::env::{Env, lock};
use super::error::{Error, Result};
use super::host::{Host, Kind, Lifecycle};
use super::inside::Switch;
use super::metrics::Exposition;
use super::publish::Publisher;
use super::store::{Store, Table};
use crate::engine::log::failed;
use orchestra::Rules;
use task::Task;
use view::View;

/// Least time between two looks at what is new.
const LOOK_PAUSE: Duration = Duration::from_millis(30);
/// A look is due after so long, whether anything was told or not: news may be lost with a connection.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How a bus orchestrates.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `orchestration.config` of the configuration.
    pub config: LoadBalancing,
    /// Most bytes of an event's data.
    pub payload_bytes_max: usize,
}

impl From<&Settings> for Rules {
    fn from(Settings { config, payload_bytes_max }: &Settings) -> Self {
        Self {
            strategy: config.strategy,
            newcomer_share: config.newcomer_share,
            circuit: circuit::Rules {
                failure_threshold: config.failure_threshold,
                monitoring_period_ms: config.monitoring_period_ms,
                minimum_calls: config.minimum_calls,
                reset_timeout_ms: config.reset_timeout_ms,
            },
            scaling: scaling::Rules {
                min: config.min_agents_per_pool,
                max: config.max_agents_per_pool,
                up: config.scale_up_threshold,
                down: config.scale_down_threshold,
                cooldown_ms: config.cooldown_period_ms,
            },
            agent_timeout_ms: config.agent_timeout_ms,
            task_bytes_max: payload_bytes_max.saturating_sub(task::ENVELOPE_BYTES),
        }
    }
}

/// What the bus gives to it.
pub struct Beside {
    /// Of the bus.
    pub store: Arc<dyn Store>,
    /// Of the bus.
    pub host: Arc<dyn Host>,
    /// Of the bus.
    pub env: Env,
    /// Subscribes for the engine.
    pub switch: Arc<Switch>,
    /// Says what is decided.
    pub publisher: Weak<Publisher>,
}

/// What the parts of this module share.
struct Shared {
    rules: Rules,
    store: Arc<dyn Store>,
    host: Arc<dyn Host>,
    env: Env,
    switch: Arc<Switch>,
    publisher: Weak<Publisher>,
    /// Names this process among those that could lead.
    who: String,
    view: Mutex<View>,
    news: Notify,
    /// Nothing that is known counts.
    anew: AtomicBool,
    /// Number of the highest write that was seen.
    highest: AtomicU64,
    /// It is to end.
    ends: AtomicBool,
    ending: Notify,
}

/// The part of one bus in the orchestration.
pub struct Orchestration {
    shared: Arc<Shared>,
    following: JoinHandle<()>,
    leading: Mutex<Option<JoinHandle<()>>>,
}

impl Drop for Orchestration {
    fn drop(&mut self) {
        self.following.abort();
        if let Some(leading) = lock(&self.leading).take() {
            leading.abort();
        }
    }
}

impl Orchestration {
    /// Takes part from now on.
    pub fn start(settings: &Settings, beside: Beside) -> Self {
        let Beside { store, host, env, switch, publisher } = beside;
        let shared = Arc::new(Shared {
            rules: settings.into(),
            store,
            host,
            who: env.hex(16),
            env,
            switch,
            publisher,
            view: Mutex::default(),
            news: Notify::new(),
            anew: AtomicBool::new(false),
            highest: AtomicU64::new(0),
            ends: AtomicBool::new(false),
            ending: Notify::new(),
        });
        let following = shared.env.spawn(follow(shared.clone()));
        let leading = shared.env.spawn(leading::run(shared.clone()));
        Self { shared, following, leading: Mutex::new(Some(leading)) }
    }

    /// Something is new. `anew`: the store may be another one, or one that lost what was told before, so that all of it is.
    pub fn look(&self, anew: bool) {
        if anew {
            self.shared.anew.store(true, Ordering::Release);
        }
        self.shared.news.notify_one();
    }

    /// `AgentView[]` as JSON text, with times as ms.
    pub fn agents(&self) -> String {
        lock(&self.shared.view).agents()
    }

    /// `PoolView[]` as JSON text.
    pub fn pools(&self) -> String {
        lock(&self.shared.view).pools()
    }

    /// `OrchestrationStats` as JSON text.
    pub fn stats(&self) -> String {
        lock(&self.shared.view).stats()
    }

    /// `TaskView` with times as ms, or null for one of which nothing is known.
    pub async fn task(&self, id: &str) -> Result<Value> {
        if !reading::is_id(id) {
            return Err(Error::argument("id", format!("must be {}", reading::ID_RULE)));
        }
        let store = &self.shared.store;
        let Some(text) = store.card(Table::Tasks, id).await? else { return Ok(Value::Null) };
        let data = store.card(Table::Data, id).await?;
        Task::view(&text, data.as_deref())
    }

    /// Metrics of agents and tasks, as this process knows them.
    pub fn expose(&self, out: &mut Exposition) {
        let view = lock(&self.shared.view);
        #[allow(clippy::cast_precision_loss)] // a count shown
        out.gauge("ossa_agent_orchestration_pools_total", "Pools of agents there are now.", view.pool_count() as f64);
        let stats: Value = serde_json::from_str(&view.stats()).unwrap_or_default();
        let figure = |key: &str| stats[key].as_f64().unwrap_or(0.0);
        out.gauge("ossa_agent_orchestration_agents", "Agents there are now.", figure("totalAgents"));
        out.gauge("ossa_agent_orchestration_queue_depth", "Tasks that wait for an agent.", figure("queueDepth"));
        let help = "Share of the agents' places in use.";
        out.gauge("ossa_agent_orchestration_utilization_ratio", help, figure("averageUtilization") / 100.0);
    }

    /// Leads no more, so that another process can at once, and takes no more part. Within `deadline`.
    pub async fn close(&self, deadline: Duration) {
        self.shared.ends.store(true, Ordering::Release);
        self.shared.ending.notify_one();
        let leading = lock(&self.leading).take();
        if let Some(mut leading) = leading
            && tokio::time::timeout(deadline, &mut leading).await.is_err()
        {
            leading.abort();
        }
        self.following.abort();
    }
}

/// Keeps the view up to date.
async fn follow(shared: Arc<Shared>) {
    loop {
        let anew = shared.anew.swap(false, Ordering::AcqRel);
        let known = if anew { 0 } else { lock(&shared.view).version() };
        match shared.store.board_news(known).await {
            Ok(news) => {
                shared.highest.fetch_max(news.version, Ordering::AcqRel);
                let turned = lock(&shared.view).take(news);
                let tell = |view::Turned { agent, from, to }| {
                    Lifecycle(Kind::AgentCircuitChanged, json!({ "agentId": agent, "from": from, "to": to }))
                };
                if !turned.is_empty() {
                    shared.host.lifecycle(turned.into_iter().map(tell).collect());
                }
            }
            Err(error) => {
                shared.anew.fetch_or(anew, Ordering::AcqRel);
                failed!(error, "agents could not be looked at");
            }
        }
        tokio::time::sleep(LOOK_PAUSE).await;
        let _ = tokio::time::timeout(LOOK_EVERY, shared.news.notified()).await;
    }
}
