//! The bus and a service registry: what happens to services becomes events, events say how services are, services offer contracts, and
//! get the events that they can do something about.
//!
//! Reading order: [`own`] the bus as a service; [`announcing`] from services to events, [`reporting`] from events to services;
//! [`discovering`] contracts; [`breaker`], `naming`, `posting`, `routing` and `delivering` the way of an event to a service; `tally` what Prometheus reads; [`Integration`] is what the
//! bus starts and asks.

pub mod breaker;
pub mod own;
pub mod reporting;

mod announcing;
mod delivering;
mod discovering;
mod naming;
mod posting;
mod routing;
mod tally;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::config::RegistryIntegration;
use super::env::{Env, lock};
use super::error::{Error, Result};
use super::host::{Host, Lifecycle};
use super::http::Http;
use super::inside::Switch;
use super::projects::Projects;
use super::publish::Publisher;
use super::services::Registry;
use super::services::health::Status;
use super::services::view::{Happening, What};
use super::store::Store;
use reporting::Limits;

/// A process that says nothing for so long is not there.
const ATTEND_FOR: Duration = Duration::from_secs(15);
/// How often what goes on beside is seen to.
const TICK: Duration = Duration::from_secs(1);
/// Processes of the bus among those that attend.
const MEMBER: &str = "bus:";
/// Those of them that list the bus as a service.
const LISTER: &str = "lists:";
/// Services known already are asked for contracts over so long.
const SPREAD: Duration = Duration::from_secs(5);
/// How long it may take to undo what was begun.
const UNDO: Duration = Duration::from_secs(2);

/// What a bus is told to do with a registry.
#[derive(Clone)]
pub struct Settings {
    /// Which.
    pub registry: Arc<Registry>,
    /// `serviceRegistry` of the configuration.
    pub config: RegistryIntegration,
    /// From what on a performance report is bad.
    pub limits: Limits,
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
    /// Says what happens.
    pub publisher: Weak<Publisher>,
    /// Takes contracts.
    pub projects: Option<Arc<Projects>>,
    /// Where the bus is, without credentials.
    pub endpoint: String,
    /// What is wrong with the bus here, if anything is.
    pub problem: Box<dyn Fn() -> Option<String> + Send + Sync>,
}

/// What the parts of this module share.
struct Shared {
    registry: Arc<Registry>,
    config: RegistryIntegration,
    limits: Limits,
    store: Arc<dyn Store>,
    host: Arc<dyn Host>,
    env: Env,
    switch: Arc<Switch>,
    publisher: Weak<Publisher>,
    projects: Option<Arc<Projects>>,
    endpoint: String,
    problem: Box<dyn Fn() -> Option<String> + Send + Sync>,
    http: Arc<Http>,
    /// Longest time of a request.
    timeout: Duration,
    /// Names this process among those of the bus.
    instance: String,
    routes: routing::Routes,
    /// By service; they outlive routes.
    flows: Mutex<BTreeMap<String, Arc<delivering::Flow>>>,
    heard: reporting::Heard,
    found: discovering::Found,
    is_monitoring: AtomicBool,
    /// Processes of the bus that were there when that was asked last.
    instances: Mutex<Vec<String>>,
    /// What went wrong last, until it goes right.
    trouble: Mutex<Option<String>>,
}

/// The work of one bus with a registry.
pub struct Integration {
    shared: Arc<Shared>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Drop for Integration {
    fn drop(&mut self) {
        self.stop();
        if self.shared.is_monitoring.swap(false, Ordering::AcqRel) {
            self.shared.registry.unwatch();
        }
    }
}

impl Integration {
    /// Connects the registry and starts. `ERR_CLOSED` for a registry that was closed; `ERR_CONNECTION` where its store is away.
    pub async fn start(settings: Settings, beside: Beside) -> Result<Self> {
        let Settings { registry, config, limits } = settings;
        let Beside { store, host, env, switch, publisher, projects, endpoint, problem } = beside;
        registry.open().await.map_err(of_registry)?;
        let http = registry.restrict(config.http.as_ref())?;
        let happenings = registry.listen();
        let shared = Arc::new(Shared {
            timeout: http.timeout(),
            instance: env.hex(16),
            registry,
            config,
            limits,
            store,
            host,
            env,
            switch,
            publisher,
            projects,
            endpoint,
            problem,
            http,
            routes: routing::Routes::default(),
            flows: Mutex::default(),
            heard: reporting::Heard::default(),
            found: discovering::Found::default(),
            is_monitoring: AtomicBool::new(false),
            instances: Mutex::default(),
            trouble: Mutex::default(),
        });
        let integration = Self { shared, task: Mutex::default() };
        if let Err(error) = integration.begin(happenings).await {
            integration.close(UNDO).await;
            return Err(error);
        }
        Ok(integration)
    }

    async fn begin(&self, happenings: mpsc::Receiver<Happening>) -> Result<()> {
        let shared = &self.shared;
        shared.attend().await.map_err(of_registry)?;
        if shared.config.auto_register {
            own::register(shared).await.map_err(of_registry)?;
        }
        if shared.config.health_monitoring {
            shared.registry.watch().await.map_err(of_registry)?;
            shared.is_monitoring.store(true, Ordering::Release);
            for pattern in reporting::PATTERNS {
                let reading = shared.switch.subscribe(pattern, reporting::options()).await?;
                shared.env.spawn(reporting::read(shared.clone(), reading));
            }
        }
        *lock(&self.task) = Some(shared.env.spawn(run(shared.clone(), happenings)));
        Ok(())
    }

    /// `ServiceRegistryIntegrationStatus`. Never fails.
    pub async fn status(&self) -> Value {
        let shared = &self.shared;
        let mut status = shared.registry.status().await;
        status["registeredAs"] = if shared.config.auto_register { own::NAME.into() } else { Value::Null };
        status["routes"] = shared.routes.to_json();
        status["contracts"] = shared.found.to_json();
        if let Some(trouble) = &*lock(&shared.trouble) {
            status["problem"] = trouble.as_str().into();
        }
        status
    }

    /// Asks for contracts now: one service, or all.
    pub async fn discover_contracts(&self, name: Option<&str>) -> Result<Value> {
        if let Some(name) = name
            && self.shared.registry.refresh().await?.get(name).is_none()
        {
            let name: String = name.chars().take(128).collect();
            return Err(Error::argument("service", format!("there is no service '{name}'")));
        }
        discovering::discover_now(&self.shared, name).await
    }

    /// Metrics of this process in the text format 0.0.4.
    pub fn metrics(&self) -> Result<String> {
        tally::export(&self.shared.registry.counts())
    }

    /// No more is begun. What is on its way to services ends with the bus's subscriptions.
    pub fn stop(&self) {
        if let Some(task) = &*lock(&self.task) {
            task.abort();
        }
    }

    /// Says that this process is not there any more; the last one takes the bus out of the registry. Within `deadline`.
    pub async fn close(&self, deadline: Duration) {
        let shared = &self.shared;
        self.stop();
        let task = lock(&self.task).take();
        let leaving = async {
            if let Some(task) = task {
                // It listens until then.
                let _ = task.await;
            }
            shared.registry.store().unattend(&shared.members()).await?;
            if !shared.config.auto_register {
                return Ok(());
            }
            if shared.there(LISTER).await?.is_empty() {
                shared.registry.unregister(own::NAME).await?;
            } else if !shared.registry.is_listened_to() {
                // Another bus over the same registry would go on renewing it.
                shared.registry.let_go(own::NAME);
            }
            Ok::<(), Error>(())
        };
        match tokio::time::timeout(deadline, leaving).await {
            Ok(Err(error)) => tracing::debug!(%error, "the bus could not be taken out of the registry"),
            Err(_) => tracing::debug!("the registry did not answer in time"),
            Ok(Ok(())) => {}
        }
    }
}

/// An error says of which server it speaks.
fn of_registry(mut error: Error) -> Error {
    error.message = format!("the service registry: {}", error.message);
    error
}

impl Shared {
    fn members(&self) -> Vec<String> {
        let as_lister = self.config.auto_register.then(|| format!("{LISTER}{}", self.instance));
        [format!("{MEMBER}{}", self.instance)].into_iter().chain(as_lister).collect()
    }

    async fn attend(&self) -> Result<()> {
        self.registry.store().attend(&self.members(), ATTEND_FOR).await
    }

    /// Instances that attend as that.
    async fn there(&self, what: &str) -> Result<Vec<String>> {
        let members = self.registry.store().attending().await?;
        Ok(members.iter().filter_map(|member| member.strip_prefix(what)).map(ToOwned::to_owned).collect())
    }

    /// Told once until it goes right again.
    fn note(&self, result: &Result<()>) {
        let mut trouble = lock(&self.trouble);
        match result {
            Ok(()) => *trouble = None,
            Err(error) => {
                if trouble.replace(error.message.clone()).is_none() {
                    self.host.lifecycle(vec![Lifecycle::warn(format!("work with the service registry: {error}"))]);
                }
            }
        }
    }
}

async fn run(shared: Arc<Shared>, mut happenings: mpsc::Receiver<Happening>) {
    let (mut told_at, mut planned_at) = (Instant::now(), None::<Instant>);
    loop {
        let happened = tokio::time::timeout(TICK, happenings.recv()).await;
        let mut some = Vec::new();
        match happened {
            // The registry was closed: what it was used for ends.
            Ok(None) => {
                shared.note(&Err(Error::closed("the service registry")));
                return;
            }
            Ok(Some(happening)) => some.push(happening),
            Err(_) => {}
        }
        while let Ok(happening) = happenings.try_recv() {
            some.push(happening);
        }
        // Of what fails the rest does not suffer.
        let mut result = see_to(&shared, &some).await;
        if told_at.elapsed() >= own::EVERY {
            told_at = Instant::now();
            result = result.and(upkeep(&shared).await);
        }
        if shared.config.contract_discovery && shared.projects.is_some() {
            let is_new = some.iter().any(|happening| matches!(happening.what, What::Registered | What::Updated));
            result = result.and(discover(&shared, is_new, &mut planned_at).await);
        }
        shared.note(&result);
    }
}

/// Asks for contracts whom it is time to ask.
async fn discover(shared: &Arc<Shared>, is_new: bool, planned_at: &mut Option<Instant>) -> Result<()> {
    let interval = Duration::from_millis(shared.config.discovery_refresh_interval_ms);
    if is_new || planned_at.is_none_or(|at| at.elapsed() >= interval) {
        let spread = if planned_at.is_none() { SPREAD.min(interval) } else { Duration::ZERO };
        discovering::plan(shared, spread).await?;
        *planned_at = Some(Instant::now());
    }
    discovering::run_due(shared).await
}

/// What happened, and what is to be as a consequence. What only a happening tells is seen to first, as it cannot fail; the rest goes by
/// what is there, and is done by the next call where this one failed.
async fn see_to(shared: &Arc<Shared>, happened: &[Happening]) -> Result<()> {
    let view = shared.registry.view();
    for happening in happened {
        announcing::announce(shared, happening);
        let name = &happening.service.definition.name;
        let is_well = happening.service.health.status() == Status::Healthy;
        match happening.what {
            What::Updated => delivering::hope(shared, name),
            What::HealthChanged { .. } if is_well => delivering::hope(shared, name),
            What::Unregistered if view.get(name).is_none() => routing::forget_all_of(shared, &happening.service),
            _ => {}
        }
    }
    if shared.config.auto_register && view.get(own::NAME).is_none() {
        own::register(shared).await?;
    }
    let instances = shared.there(MEMBER).await;
    if let Ok(instances) = &instances {
        lock(&shared.instances).clone_from(instances);
    }
    // Who is there is known from before, where that cannot be asked.
    let known = lock(&shared.instances).clone();
    let reconciled = routing::reconcile(shared, &known).await;
    instances?;
    shared.registry.end_reports().await.and(reconciled)
}

async fn upkeep(shared: &Arc<Shared>) -> Result<()> {
    shared.attend().await?;
    if shared.config.auto_register {
        own::tell(shared, (shared.problem)().as_deref()).await?;
    }
    Ok(())
}
