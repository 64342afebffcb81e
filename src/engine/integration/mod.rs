//! The bus and a service registry: what happens to services becomes events, events say how services are, services offer contracts, and
//! get the events that they can do something about.
//!
//! Reading order: [`own`] the bus as a service; [`announcing`] from services to events, [`reporting`] from events to services;
//! [`discovering`] contracts; [`breaker`], `naming`, `posting`, `routing` and `delivering` the way of an event to a service, `leftovers` what is left of it; `tally` what Prometheus reads; [`Integration`] is what the
//! bus starts and asks.

pub mod breaker;
pub mod own;
pub mod reporting;

mod announcing;
mod delivering;
mod discovering;
mod leftovers;
mod naming;
mod posting;
mod routing;
mod tally;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
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
use super::services::health::Status;
use super::services::view::{Happening, What};
use super::services::{Registry, Watcher};
use super::store::Store;
use crate::engine::log::failed;
use reporting::Limits;

/// A process that says nothing for so long is not there.
const ATTEND_FOR: Duration = Duration::from_secs(15);
/// How often what goes on beside is seen to.
const TICK: Duration = Duration::from_secs(1);
/// How often it is looked at whether what is read for services is as it has to be, where nothing happened.
const RECONCILE_EVERY: Duration = Duration::from_secs(30);
/// Processes of buses among those that attend.
const MEMBER: &str = "bus:";
/// Those, of all buses, that list themselves as a service.
const LISTER: &str = "lists:";
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
    http: Http,
    /// Longest time of a request.
    timeout: Duration,
    /// Names this process among those of the bus.
    instance: String,
    /// Names its bus among those that use the registry.
    bus: AtomicU64,
    routes: routing::Routes,
    leftovers: leftovers::Leftovers,
    heard: reporting::Heard,
    found: discovering::Found,
    is_monitoring: AtomicBool,
    /// What it adds to the rules for probes.
    restriction: Mutex<Option<u64>>,
    /// Subscriptions to what says how services are.
    reports: Mutex<Vec<u32>>,
    /// What went wrong last, until it goes right.
    trouble: Mutex<Option<String>>,
}

/// The work of one bus with a registry.
pub struct Integration {
    shared: Arc<Shared>,
    tasks: [JoinHandle<()>; 2],
}

impl Drop for Integration {
    fn drop(&mut self) {
        self.stop();
        self.shared.stop_watching();
        self.shared.routes.clear();
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
        let http = registry.client(config.http.as_ref())?;
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
            bus: AtomicU64::new(0),
            routes: routing::Routes::default(),
            leftovers: leftovers::Leftovers::default(),
            heard: reporting::Heard::default(),
            found: discovering::Found::default(),
            is_monitoring: AtomicBool::new(false),
            restriction: Mutex::default(),
            reports: Mutex::default(),
            trouble: Mutex::default(),
        });
        if let Err(error) = shared.begin().await {
            shared.stop_watching();
            shared.leave(LEAVE_MAX).await;
            return Err(error);
        }
        let tasks = [shared.env.spawn(run(shared.clone(), happenings)), shared.env.spawn(attend(shared.clone()))];
        Ok(Self { shared, tasks })
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
        self.tasks.iter().for_each(JoinHandle::abort);
    }

    /// Says that this process is not there any more; the last one takes the bus out of the registry. Within `deadline`.
    pub async fn close(&self, deadline: Duration) {
        self.shared.routes.clear();
        self.shared.leave(deadline).await;
    }
}

/// An error says of which server it speaks.
fn of_registry(mut error: Error) -> Error {
    error.message = format!("the service registry: {}", error.message);
    error
}

impl Shared {
    fn of_bus(&self) -> String {
        format!("{MEMBER}{:016x}:", self.bus.load(Ordering::Acquire))
    }

    fn members(&self) -> Vec<String> {
        let as_lister = self.config.auto_register.then(|| format!("{LISTER}{}", self.instance));
        [self.of_bus() + &self.instance].into_iter().chain(as_lister).collect()
    }

    async fn begin(self: &Arc<Self>) -> Result<()> {
        if self.config.auto_register {
            self.registry.bus_came();
        }
        self.attend().await.map_err(of_registry)?;
        if self.config.auto_register {
            own::register(self).await.map_err(of_registry)?;
        }
        if self.config.health_monitoring {
            if let Some(policy) = &self.config.http {
                *lock(&self.restriction) = Some(self.registry.restrict(policy)?);
            }
            self.registry.watch(Watcher::Bus).await.map_err(of_registry)?;
            self.is_monitoring.store(true, Ordering::Release);
            let (deliveries, inbox) = mpsc::unbounded_channel();
            self.env.spawn(reporting::read(self.clone(), inbox));
            for pattern in reporting::PATTERNS {
                let id = self.switch.subscribe(pattern, reporting::options(), deliveries.clone()).await?;
                lock(&self.reports).push(id);
            }
        }
        Ok(())
    }

    fn stop_watching(&self) {
        if let Some(restriction) = lock(&self.restriction).take() {
            self.registry.relax(restriction);
        }
        if self.is_monitoring.swap(false, Ordering::AcqRel) {
            self.registry.unwatch(Watcher::Bus);
        }
    }

    async fn leave(&self, deadline: Duration) {
        let leaving = async {
            self.registry.store().unattend(&self.members()).await?;
            if self.config.auto_register && self.there(LISTER).await?.is_empty() {
                self.registry.unregister(own::NAME).await?;
            }
            Ok::<(), Error>(())
        };
        match tokio::time::timeout(deadline, leaving).await {
            Ok(Err(error)) => tracing::debug!(%error, "the bus could not be taken out of the registry"),
            Err(_) => tracing::debug!("the registry did not answer in time"),
            Ok(Ok(())) => {}
        }
        // However that ended.
        if self.config.auto_register {
            self.registry.bus_left(own::NAME);
        }
    }

    /// What says how services are waits for another process.
    fn hold_reports(&self) {
        for id in &*lock(&self.reports) {
            self.switch.pause(*id, true);
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

    /// Says that this process is there, as one of its bus: known by the name of the bus's store, as several buses may use one registry.
    async fn attend(&self) -> Result<()> {
        let name = self.store.identity(&self.instance).await?;
        let digest = ring::digest::digest(&ring::digest::SHA256, name.as_bytes());
        let bus = digest.as_ref().first_chunk::<8>().map_or(0, |head| u64::from_be_bytes(*head));
        self.bus.store(bus, Ordering::Release);
        self.registry.store().attend(&self.members(), ATTEND_FOR).await
    }

    /// Processes of the bus that are there.
    async fn instances(&self) -> Result<Vec<String>> {
        self.there(&self.of_bus()).await
    }

    /// Processes that attend as that.
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

/// Says that this process is there, whatever else takes its time.
async fn attend(shared: Arc<Shared>) {
    while !shared.registry.is_closed() {
        tokio::time::sleep(own::EVERY).await;
        if let Err(error) = shared.attend().await {
            failed!(error, "the bus could not say that it is there");
        }
    }
}

async fn run(shared: Arc<Shared>, mut happenings: mpsc::Receiver<Happening>) {
    let mut work = Work::new(shared.clone());
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
        let result = work.see_to(&some).await;
        shared.note(&result);
    }
}

/// What is done over and over, with what is kept from one time to the next.
struct Work {
    shared: Arc<Shared>,
    /// Processes of the bus, as they were known last.
    instances: Vec<String>,
    /// When what is read for services was made as it has to be; `None`: it is to be looked at.
    reconciled_at: Option<Instant>,
    /// When the bus was seen to as a service; `None`: it is to be now.
    told_at: Option<Instant>,
    planned_at: Option<Instant>,
}

impl Work {
    fn new(shared: Arc<Shared>) -> Self {
        Self { shared, instances: Vec::new(), reconciled_at: None, told_at: Some(Instant::now()), planned_at: None }
    }

    /// What happened, and what is to be as a consequence. Where one thing fails the others are seen to all the same; the first failure is
    /// answered.
    async fn see_to(&mut self, happened: &[Happening]) -> Result<()> {
        for happening in happened {
            announcing::announce(&self.shared, happening);
            self.notice(happening);
        }
        leftovers::clear(&self.shared);
        let results =
            [self.route().await, self.tell_of_itself().await, self.discover(happened).await, self.shared.registry.end_reports().await];
        results.into_iter().collect()
    }

    fn notice(&mut self, Happening { what, service, was_noted, .. }: &Happening) {
        let name = &service.definition.name;
        let status = service.health.status();
        if name == own::NAME && *what == What::Unregistered {
            self.told_at = None;
        }
        match what {
            What::HealthChanged { before } => {
                if [*before, status].contains(&Status::Maintenance) {
                    self.reconciled_at = None;
                }
                if status == Status::Healthy {
                    delivering::hope(&self.shared, name);
                }
                return;
            }
            What::Updated => {
                self.shared.routes.note(service);
                delivering::hope(&self.shared, name);
            }
            // Not where it is only missing: it may come back, and wants what waits for it.
            What::Unregistered if *was_noted => self.shared.leftovers.service(name),
            What::Registered => self.shared.routes.note(service),
            What::Unregistered | What::Expired => {}
        }
        self.reconciled_at = None;
    }

    async fn route(&mut self) -> Result<()> {
        let instances = self.shared.instances().await?;
        if instances != self.instances {
            self.instances = instances;
            self.reconciled_at = None;
        }
        if self.reconciled_at.is_some_and(|at| at.elapsed() < RECONCILE_EVERY) {
            return Ok(());
        }
        let result = routing::reconcile(&self.shared, &self.instances).await;
        // One that ends takes its time, and may have to begin anew then.
        self.reconciled_at = (result.is_ok() && !self.shared.routes.are_ending()).then(Instant::now);
        result
    }

    async fn tell_of_itself(&mut self) -> Result<()> {
        let shared = &self.shared;
        if !shared.config.auto_register || self.told_at.is_some_and(|at| at.elapsed() < own::EVERY) {
            return Ok(());
        }
        self.told_at = Some(Instant::now());
        // Somebody took it out.
        if !shared.registry.holds(own::NAME) {
            own::register(shared).await?;
        }
        own::tell(shared, (shared.problem)().as_deref()).await
    }

    async fn discover(&mut self, happened: &[Happening]) -> Result<()> {
        let shared = &self.shared;
        if !shared.config.contract_discovery || shared.projects.is_none() {
            return Ok(());
        }
        let interval = Duration::from_millis(shared.config.discovery_refresh_interval_ms);
        if self.planned_at.is_none_or(|at| at.elapsed() >= interval) {
            let spread = if self.planned_at.is_none() { SPREAD.min(interval) } else { Duration::ZERO };
            discovering::plan(shared, shared.registry.view().services(), spread).await?;
            self.planned_at = Some(Instant::now());
        } else {
            // Those alone that came or changed: there may be many others.
            let new = happened.iter().filter(|one| matches!(one.what, What::Registered | What::Updated)).map(|one| &one.service);
            discovering::plan(shared, new, Duration::ZERO).await?;
        }
        discovering::run_due(shared).await
    }
}
