//! The bus and a service registry: what happens to services becomes events, events say how services are, services offer contracts, and
//! get the events that they can do something about.
//!
//! Reading order: [`own`] the bus as a service; [`announcing`] from services to events, [`reporting`] from events to services;
//! [`discovering`] contracts; [`breaker`], `naming`, `posting` and `routing` the way of an event to a service; `tally` what Prometheus reads; [`Integration`] is what the
//! bus starts and asks.

pub mod breaker;
pub mod own;
pub mod reporting;

mod announcing;
mod discovering;
mod naming;
mod posting;
mod routing;
mod tally;

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
use super::services::service::Service;
use super::services::view::{Happening, What};
use super::store::Store;
use reporting::Limits;

/// A process that says nothing for so long is not there.
const ATTEND_FOR: Duration = Duration::from_secs(15);
/// How often what goes on beside is seen to.
const TICK: Duration = Duration::from_secs(1);
/// Processes of the bus among those that attend.
const MEMBER: &str = "bus:";
/// Longest time that leaving the registry takes, where starting failed.
const LEAVE_MAX: Duration = Duration::from_secs(2);
/// Services known already are asked for contracts over so long.
const SPREAD: Duration = Duration::from_secs(5);

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
    found: discovering::Found,
    is_monitoring: AtomicBool,
    /// Subscriptions to what says how services are.
    reports: Mutex<Vec<u32>>,
    /// What went wrong last, until it goes right.
    trouble: Mutex<Option<String>>,
}

/// The work of one bus with a registry.
pub struct Integration {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

impl Drop for Integration {
    fn drop(&mut self) {
        self.task.abort();
        self.shared.stop_watching();
    }
}

/// Connects the registry. `ERR_CLOSED` for one that was closed; `ERR_CONNECTION` where its store is away.
pub async fn open(settings: &Settings) -> Result<()> {
    settings.registry.open().await.map_err(of_registry)
}

impl Integration {
    /// Connects the registry and starts. `ERR_CLOSED` for a registry that was closed; `ERR_CONNECTION` where its store is away.
    pub async fn start(settings: Settings, beside: Beside) -> Result<Self> {
        let Settings { registry, config, limits } = settings;
        let Beside { store, host, env, switch, publisher, projects, endpoint, problem } = beside;
        // Closed meanwhile, perhaps.
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
            found: discovering::Found::default(),
            is_monitoring: AtomicBool::new(false),
            reports: Mutex::default(),
            trouble: Mutex::default(),
        });
        if let Err(error) = shared.begin().await {
            shared.stop_watching();
            shared.leave(LEAVE_MAX).await;
            return Err(error);
        }
        let task = shared.env.spawn(run(shared.clone(), happenings));
        Ok(Self { shared, task })
    }

    /// `ServiceRegistryIntegrationStatus`. Never fails.
    pub async fn status(&self) -> Value {
        let shared = &self.shared;
        let mut status = shared.registry.status().await;
        status["registeredAs"] = if shared.config.auto_register { own::NAME.into() } else { Value::Null };
        status["routes"] = shared.routes.all().iter().map(|route| route.to_json()).collect();
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
        self.task.abort();
    }

    /// Says that this process is not there any more; the last one takes the bus out of the registry. Within `deadline`.
    pub async fn close(&self, deadline: Duration) {
        self.shared.leave(deadline).await;
    }
}

/// An error says of which server it speaks.
fn of_registry(mut error: Error) -> Error {
    error.message = format!("the service registry: {}", error.message);
    error
}

impl Shared {
    fn member(&self) -> String {
        format!("{MEMBER}{}", self.instance)
    }

    async fn begin(self: &Arc<Self>) -> Result<()> {
        self.attend().await?;
        if self.config.auto_register {
            own::register(self).await?;
        }
        if self.config.health_monitoring {
            self.registry.watch().await?;
            self.is_monitoring.store(true, Ordering::Release);
            for pattern in reporting::PATTERNS {
                let reading = self.switch.subscribe(pattern, reporting::options()).await?;
                lock(&self.reports).push(reading.id);
                self.env.spawn(reporting::read(self.clone(), reading));
            }
        }
        Ok(())
    }

    fn stop_watching(&self) {
        if self.is_monitoring.swap(false, Ordering::AcqRel) {
            self.registry.unwatch();
        }
    }

    async fn leave(&self, deadline: Duration) {
        let leaving = async {
            self.registry.store().unattend(&[self.member()]).await?;
            if self.config.auto_register && self.instances().await?.is_empty() {
                self.registry.unregister(own::NAME).await?;
            }
            Ok::<(), Error>(())
        };
        match tokio::time::timeout(deadline, leaving).await {
            Ok(Err(error)) => tracing::debug!(%error, "the bus could not be taken out of the registry"),
            Err(_) => tracing::debug!("the registry did not answer in time"),
            Ok(Ok(())) => {}
        }
        // However that ended. Another bus of this process takes it up again.
        if self.config.auto_register {
            self.registry.let_go(own::NAME);
        }
    }

    /// Without a registry nothing is known any more: nothing is read for services, or about them.
    async fn retire(self: &Arc<Self>) {
        routing::end_all(self);
        let reports = std::mem::take(&mut *lock(&self.reports));
        for id in reports {
            if let Err(error) = self.switch.unsubscribe(id, Duration::ZERO).await {
                tracing::debug!(%error, "a subscription could not be ended");
            }
        }
    }

    async fn attend(&self) -> Result<()> {
        self.registry.store().attend(&[self.member()], ATTEND_FOR).await
    }

    /// Processes of the bus that are there.
    async fn instances(&self) -> Result<Vec<String>> {
        let members = self.registry.store().attending().await?;
        Ok(members.iter().filter_map(|member| member.strip_prefix(MEMBER)).map(ToOwned::to_owned).collect())
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
    let mut known = Known::default();
    loop {
        let happened = tokio::time::timeout(TICK, happenings.recv()).await;
        let mut some = Vec::new();
        match happened {
            // The registry was closed: what it was used for ends.
            Ok(None) => {
                shared.note(&Err(Error::closed("the service registry")));
                return shared.retire().await;
            }
            Ok(Some(happening)) => some.push(happening),
            Err(_) => {}
        }
        while let Ok(happening) = happenings.try_recv() {
            some.push(happening);
        }
        tell(&shared, &some);
        known.gone.extend(some.iter().filter(|one| one.what == What::Unregistered { guessed: false }).map(|one| one.service.clone()));
        let mut result = see_to(&shared, &mut known).await;
        if result.is_ok() && told_at.elapsed() >= own::EVERY {
            told_at = Instant::now();
            result = upkeep(&shared).await;
        }
        if result.is_ok() && shared.config.contract_discovery && shared.projects.is_some() {
            let interval = Duration::from_millis(shared.config.discovery_refresh_interval_ms);
            if planned_at.is_none_or(|at| at.elapsed() >= interval) {
                let spread = if planned_at.is_none() { SPREAD.min(interval) } else { Duration::ZERO };
                result = discovering::plan(&shared, shared.registry.view().services(), spread).await;
                planned_at = Some(Instant::now());
            } else {
                // Those alone that came or changed: there may be many others.
                let new = some.iter().filter(|one| matches!(one.what, What::Registered | What::Updated)).map(|one| &one.service);
                result = discovering::plan(&shared, new, Duration::ZERO).await;
            }
            if result.is_ok() {
                result = discovering::run_due(&shared).await;
            }
        }
        shared.note(&result);
    }
}

/// What is kept from one look to the next.
#[derive(Default)]
struct Known {
    /// Processes of the bus, as they were known last.
    instances: Vec<String>,
    /// Services that were taken out, and not seen to yet.
    gone: Vec<Arc<Service>>,
}

/// What happened, as events; and who may be well again.
fn tell(shared: &Arc<Shared>, happened: &[Happening]) {
    for happening in happened {
        announcing::announce(shared, happening);
        let is_well = happening.service.health.status() == Status::Healthy;
        if happening.what == What::Updated || matches!(happening.what, What::HealthChanged { .. }) && is_well {
            routing::hope(shared, &happening.service.definition.name);
        }
    }
}

/// What is to be as a consequence. Where one thing fails the others are seen to all the same.
async fn see_to(shared: &Arc<Shared>, known: &mut Known) -> Result<()> {
    let found = shared.instances().await;
    let asked = found.map(|instances| known.instances = instances);
    if known.instances.is_empty() && asked.is_err() {
        return asked;
    }
    let is_taken_out = known.gone.iter().any(|service| service.definition.name == own::NAME);
    let reconciled = routing::reconcile(shared, &known.instances, &known.gone).await;
    known.gone.clear();
    if shared.config.auto_register && is_taken_out {
        own::register(shared).await?;
    }
    asked.and(reconciled)?;
    shared.registry.end_reports().await
}

async fn upkeep(shared: &Arc<Shared>) -> Result<()> {
    shared.attend().await?;
    if shared.config.auto_register {
        // Another bus of this process may have let it go with its end, or somebody took it out while the store was away.
        if !shared.registry.holds(own::NAME) {
            own::register(shared).await?;
        }
        own::tell(shared, (shared.problem)().as_deref()).await?;
    }
    Ok(())
}
