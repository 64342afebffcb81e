//! What users call.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;

use super::definition::{Definition, Given, refuse};
use super::filter::Filter;
use super::health::{Health, Report, Status, Thresholds};
use super::looking::{self, Asking};
use super::probing;
use super::renewing;
use super::service::Service;
use super::view::{Happening, View, What};
use crate::engine::config::{HttpConfig, RegistryConfig, ServiceChecks};
use crate::engine::env::{Env, lock};
use crate::engine::error::{Code, Error, Result};
use crate::engine::host::{Host, Kind, Lifecycle};
use crate::engine::http::Http;
use crate::engine::name::check_service;
use crate::engine::store::{Store, StoreEvent, Turn};

/// Attempts while others change the same service.
const ATTEMPTS_MAX: usize = 50;
/// Most services.
const SERVICES_MAX: usize = 10_000;
/// Happenings that wait for one listener in the engine; one that is so far behind misses the rest.
const WAITING_MAX: usize = 100_000;
/// First and longest pause between attempts to connect.
const RECONNECT: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// Longest time that closing takes.
const CLOSE_MAX: Duration = Duration::from_secs(2);

/// What the parts of this module share.
pub(super) struct Shared {
    pub(super) store: Arc<dyn Store>,
    pub(super) host: Arc<dyn Host>,
    pub(super) env: Env,
    pub(super) checks: ServiceChecks,
    /// How long what is registered here is listed without a renewal.
    pub(super) life: Duration,
    pub(super) view: Mutex<Arc<View>>,
    pub(super) asking: Asking,
    /// What this process registered, and renews.
    pub(super) held: Mutex<BTreeMap<String, Arc<Service>>>,
    /// Something that is held may not be listed.
    pub(super) renewal: Notify,
    /// Something may have no probe planned.
    pub(super) unplanned: Notify,
    pub(super) http: Mutex<Arc<Http>>,
    listeners: Mutex<Vec<mpsc::Sender<Happening>>>,
}

impl Shared {
    pub(super) fn thresholds(&self) -> Thresholds {
        Thresholds { failures: self.checks.failure_threshold, successes: self.checks.success_threshold }
    }

    /// A problem that no call can report.
    #[allow(clippy::unused_self)] // said of this registry
    pub(super) fn problem(&self, error: &Error) -> Lifecycle {
        Lifecycle(Kind::RegistryError, error.to_json())
    }

    /// A service as it is known here; asks where it is not.
    pub(super) async fn known(&self, name: &str) -> Result<Option<Arc<Service>>> {
        let view = lock(&self.view).clone();
        if let Some(service) = view.get(name) {
            return Ok(Some(service.clone()));
        }
        Ok(self.asking.refresh().await?.get(name).cloned())
    }

    /// What happened to what is held here.
    pub(super) fn held_concerned(&self, Happening { what, service, .. }: &Happening) {
        let name = &service.definition.name;
        let mut held = lock(&self.held);
        let Some(ours) = held.get_mut(name) else { return };
        match what {
            What::Unregistered => drop(held.remove(name)),
            What::Expired => self.renewal.notify_one(),
            _ => *ours = service.clone(),
        }
    }

    /// Tells the program, and whoever listens in the engine.
    pub(super) fn tell(&self, happened: Vec<Happening>) {
        if happened.is_empty() {
            return;
        }
        let mut listeners = lock(&self.listeners);
        for happening in &happened {
            listeners.retain(|listener| !listener.is_closed());
            for listener in &*listeners {
                if listener.try_send(happening.clone()).is_err() {
                    self.host.lifecycle(vec![Lifecycle::warn("changes of services come faster than they are seen to; some were left out")]);
                }
            }
        }
        drop(listeners);
        self.host.lifecycle(happened.iter().map(lifecycle).collect());
    }
}

fn lifecycle(Happening { what, service, .. }: &Happening) -> Lifecycle {
    let kind = match what {
        What::Registered => Kind::ServiceRegistered,
        What::Updated => Kind::ServiceUpdated,
        What::Unregistered => Kind::ServiceUnregistered,
        What::Expired => Kind::ServiceExpired,
        What::HealthChanged { before } => {
            let about = json!({
                "name": service.definition.name, "oldStatus": before.as_str(), "newStatus": service.health.status().as_str(),
                "health": service.health_json(), "service": service.to_json(),
            });
            return Lifecycle(Kind::ServiceHealthChanged, about);
        }
    };
    Lifecycle(kind, service.to_json())
}

/// What goes on while it is open.
#[derive(Default)]
struct Tasks {
    beside: Vec<JoinHandle<()>>,
    probing: Option<JoinHandle<()>>,
}

/// A registry of services over a store.
pub struct Registry {
    shared: Arc<Shared>,
    tasks: Mutex<Tasks>,
    /// Requests for a look, until they are looked at.
    asked: Mutex<Option<looking::Asked>>,
    opening: tokio::sync::Mutex<bool>,
    reopening: AtomicBool,
    closed: AtomicBool,
    /// How many want services to be probed.
    watchers: Mutex<usize>,
    policies: Mutex<Vec<HttpConfig>>,
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Registry {
    /// One that is not connected yet. `ERR_INVALID_CONFIG` where a certificate or key cannot be used.
    pub fn new(config: &RegistryConfig, host: Arc<dyn Host>, env: Env) -> Result<Arc<Self>> {
        let store = crate::engine::opening::open_registry(config, &env)?;
        Self::with_store(config, store, host, env)
    }

    /// One over a store of the caller's.
    pub fn with_store(config: &RegistryConfig, store: Arc<dyn Store>, host: Arc<dyn Host>, env: Env) -> Result<Arc<Self>> {
        let (asking, asked) = Asking::channel();
        let http = Http::new(&[&config.http])?;
        let shared = Arc::new(Shared {
            store,
            host,
            env,
            checks: config.health_check.clone(),
            life: Duration::from_secs(config.service_ttl_s),
            view: Mutex::default(),
            asking,
            held: Mutex::default(),
            renewal: Notify::new(),
            unplanned: Notify::new(),
            http: Mutex::new(Arc::new(http)),
            listeners: Mutex::default(),
        });
        Ok(Arc::new(Self {
            shared,
            tasks: Mutex::default(),
            asked: Mutex::new(Some(asked)),
            opening: tokio::sync::Mutex::default(),
            reopening: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            watchers: Mutex::default(),
            policies: Mutex::new(vec![config.http.clone()]),
        }))
    }

    /// Connects; idempotent. After a failure it is tried again beside, for those who wait for events only.
    pub async fn open(self: &Arc<Self>) -> Result<()> {
        let opened = self.open_once().await;
        if opened.as_ref().is_err_and(|error| error.retryable) && !self.reopening.swap(true, Ordering::AcqRel) {
            let weak = Arc::downgrade(self);
            self.shared.env.spawn(async move {
                let mut pause = RECONNECT.0;
                loop {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(RECONNECT.1);
                    let Some(registry) = weak.upgrade() else { return };
                    match registry.open_once().await {
                        Err(error) if error.retryable => {}
                        _ => return registry.reopening.store(false, Ordering::Release),
                    }
                }
            });
        }
        opened
    }

    async fn open_once(&self) -> Result<()> {
        let mut is_open = self.opening.lock().await;
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::closed("the service registry"));
        }
        if *is_open {
            return Ok(());
        }
        let asking = self.shared.asking.clone();
        let shared = Arc::downgrade(&self.shared);
        self.shared.store.watch(Arc::new(move |event| match event {
            StoreEvent::ServicesChanged => asking.look(),
            StoreEvent::ConnectionRestored => {
                asking.look();
                if let Some(shared) = shared.upgrade() {
                    shared.renewal.notify_one();
                }
            }
            _ => {}
        }));
        self.shared.store.open().await?;
        if let Some(asked) = lock(&self.asked).take() {
            let env = &self.shared.env;
            lock(&self.tasks).beside =
                vec![env.spawn(looking::run(self.shared.clone(), asked)), env.spawn(renewing::run(self.shared.clone()))];
        }
        // What is there is no news.
        self.shared.asking.refresh().await?;
        *is_open = true;
        drop(is_open);
        self.probe_if_wanted();
        Ok(())
    }

    fn stop(&self) {
        self.closed.store(true, Ordering::Release);
        let Tasks { beside, probing } = std::mem::take(&mut *lock(&self.tasks));
        beside.iter().chain(&probing).for_each(JoinHandle::abort);
        lock(&self.shared.listeners).clear();
    }

    /// Ends everything; what is registered stays listed until its time is over. Idempotent.
    pub async fn close(&self) {
        let _one = self.opening.lock().await;
        if self.closed.load(Ordering::Acquire) {
            return;
        }
        self.stop();
        // Whoever waits for a look is told that there is none.
        lock(&self.asked).take();
        self.shared.store.close(CLOSE_MAX).await;
    }

    /// Whether it was closed.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// The services at this moment.
    pub async fn refresh(self: &Arc<Self>) -> Result<Arc<View>> {
        self.open().await?;
        self.shared.asking.refresh().await
    }

    /// The services as they were known last, without asking.
    pub fn view(&self) -> Arc<View> {
        lock(&self.shared.view).clone()
    }

    /// What happens from now on, in order.
    pub fn listen(&self) -> mpsc::Receiver<Happening> {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        lock(&self.shared.listeners).push(sender);
        receiver
    }

    /// Whether anybody in the engine listens.
    pub fn is_listened_to(&self) -> bool {
        lock(&self.shared.listeners).iter().any(|listener| !listener.is_closed())
    }

    /// What is asked by HTTP is also to hold to `policy`, in this process. Answers the client for that.
    pub fn restrict(&self, policy: Option<&HttpConfig>) -> Result<Arc<Http>> {
        let mut policies = lock(&self.policies);
        if let Some(policy) = policy
            && !policies.contains(policy)
        {
            let all: Vec<&HttpConfig> = policies.iter().chain([policy]).collect();
            *lock(&self.shared.http) = Arc::new(Http::new(&all)?);
            policies.push(policy.clone());
        }
        Ok(lock(&self.shared.http).clone())
    }

    /// The store of the register, for what goes along with it.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.shared.store
    }

    /// Registers a service, or what it now says of itself; it is renewed from now on. Answers it as it is listed.
    ///
    /// `ERR_SERVICE_INVALID` with `details.path`.
    pub async fn register(self: &Arc<Self>, service: Value) -> Result<Value> {
        let now_ms = self.shared.store.now_ms();
        let life_ms = u64::try_from(self.shared.life.as_millis()).unwrap_or(u64::MAX);
        let Given { definition, health } = Definition::read(service, now_ms, life_ms)?;
        if let Some(health) = &health {
            Health::read(health.clone(), "service.health", now_ms, None)?;
        }
        let name = definition.name.clone();
        for _ in 0..ATTEMPTS_MAX {
            let view = self.refresh().await?;
            // What went with the store is not there to be changed.
            let before = view.get(&name).filter(|_| !view.is_lost(&name));
            if before.is_none() && view.count() >= SERVICES_MAX {
                return Err(refuse("service", format!("there are {SERVICES_MAX} services already, as many as there may be")));
            }
            let now_ms = self.shared.store.now_ms();
            let mut definition = definition.clone();
            (definition.registered_at_ms, definition.updated_at_ms) = (now_ms, now_ms);
            if let Some(before) = before {
                definition.registered_at_ms = before.definition.registered_at_ms;
                if definition.is_same_as(&before.definition) {
                    definition.updated_at_ms = before.definition.updated_at_ms;
                }
            }
            let known = before.map(|before| before.health.at(now_ms));
            let health = match &health {
                Some(health) => Health::read(health.clone(), "service.health", now_ms, known.as_ref())?,
                None => known.unwrap_or_else(|| Health::unknown(now_ms)),
            };
            let service = Service::new(definition, health);
            if self.put(before.map(Arc::as_ref), &service, Some(self.shared.life)).await? {
                lock(&self.shared.held).insert(name.clone(), Arc::new(service.clone()));
                self.shared.asking.refresh().await?;
                return Ok(service.to_json());
            }
        }
        Err(busy(&name))
    }

    /// Changes what is listed as `before`; answers whether it was so.
    async fn put(&self, before: Option<&Service>, after: &Service, life: Option<Duration>) -> Result<bool> {
        let turn = match before {
            None => Turn::Registered,
            Some(before) if !before.definition.is_same_as(&after.definition) => Turn::Updated,
            Some(before) if before.health.status() != after.health.status() => Turn::Changed,
            Some(_) => Turn::Checked,
        };
        let listing = before.map(|before| &before.listing);
        self.shared.store.put_listing(&after.definition.name, listing, Some(&after.listing), turn, life).await
    }

    /// Changes what is said of a service, whoever registered it; `None`: there is none of that name.
    ///
    /// `ERR_SERVICE_INVALID` with `details.path`.
    pub async fn update(self: &Arc<Self>, name: &str, updates: Value) -> Result<Option<Value>> {
        check_service("serviceName", name)?;
        for _ in 0..ATTEMPTS_MAX {
            let view = self.refresh().await?;
            let Some(before) = view.get(name).filter(|_| !view.is_lost(name)) else { return Ok(None) };
            let now_ms = self.shared.store.now_ms();
            let Given { definition, health } = before.definition.updated(updates.clone(), now_ms)?;
            let known = before.health.at(now_ms);
            let health = match health {
                Some(health) => Health::read(health, "updates.health", now_ms, None)?.with_reports_of(&known),
                None => known,
            };
            let service = Service::new(definition, health);
            if self.put(Some(before), &service, None).await? {
                self.shared.asking.refresh().await?;
                return Ok(Some(service.to_json()));
            }
        }
        Err(busy(name))
    }

    /// Takes a service out, whoever registered it; answers whether it was there.
    pub async fn unregister(self: &Arc<Self>, name: &str) -> Result<bool> {
        check_service("serviceName", name)?;
        for _ in 0..ATTEMPTS_MAX {
            let view = self.refresh().await?;
            lock(&self.shared.held).remove(name);
            let Some(before) = view.get(name).filter(|_| !view.is_lost(name)) else { return Ok(false) };
            if self.shared.store.put_listing(name, Some(&before.listing), None, Turn::Unregistered, None).await? {
                self.shared.asking.refresh().await?;
                return Ok(true);
            }
        }
        Err(busy(name))
    }

    /// Services that pass the filter, by their name, times as ms.
    pub async fn discover(self: &Arc<Self>, filter: Value) -> Result<Vec<Value>> {
        let filter = Filter::read(filter)?;
        let view = self.refresh().await?;
        Ok(view.services().filter(|service| filter.passes(service)).map(|service| service.to_json()).collect())
    }

    /// How a service is, times as ms; `None`: there is none of that name.
    pub async fn health(self: &Arc<Self>, name: &str) -> Result<Option<Value>> {
        check_service("serviceName", name)?;
        Ok(self.refresh().await?.get(name).map(|service| service.health_json()))
    }

    /// How many services there are of each status.
    pub async fn stats(self: &Arc<Self>) -> Result<Value> {
        self.refresh().await?;
        Ok(self.counts_json())
    }

    /// How many services there are of each status, as known last.
    pub fn counts(&self) -> BTreeMap<Status, u64> {
        let mut counts: BTreeMap<Status, u64> = Status::ALL.into_iter().map(|status| (status, 0)).collect();
        for service in self.view().services() {
            *counts.entry(service.health.status()).or_default() += 1;
        }
        counts
    }

    /// The same as in the public contract.
    pub fn counts_json(&self) -> Value {
        let counts = self.counts();
        json!({
            "totalServices": counts.values().sum::<u64>(),
            "healthyServices": counts[&Status::Healthy],
            "unhealthyServices": counts[&Status::Unhealthy],
            "degradedServices": counts[&Status::Degraded],
            "unknownServices": counts[&Status::Unknown],
            "maintenanceServices": counts[&Status::Maintenance],
        })
    }

    /// Whether its store answers, and what is known. Never fails.
    pub async fn status(&self) -> Value {
        let is_open = self.opening.try_lock().is_ok_and(|is_open| *is_open);
        let connected = is_open && self.shared.store.status().await.connected;
        json!({
            "connected": connected,
            "monitoring": *lock(&self.watchers) > 0,
            "registeredHere": lock(&self.shared.held).len(),
            "services": self.counts_json(),
        })
    }

    /// From now on this process takes part in probing, until [`Registry::unwatch`] was called as often.
    pub async fn watch(self: &Arc<Self>) -> Result<()> {
        self.open().await?;
        *lock(&self.watchers) += 1;
        self.probe_if_wanted();
        Ok(())
    }

    /// The opposite of [`Registry::watch`].
    pub fn unwatch(&self) {
        let mut watchers = lock(&self.watchers);
        *watchers = watchers.saturating_sub(1);
        if *watchers == 0
            && let Some(probing) = lock(&self.tasks).probing.take()
        {
            probing.abort();
        }
    }

    fn probe_if_wanted(&self) {
        let mut tasks = lock(&self.tasks);
        if *lock(&self.watchers) > 0 && tasks.probing.is_none() && !self.is_closed() {
            tasks.probing = Some(self.shared.env.spawn(probing::run(self.shared.clone())));
        }
    }

    /// `by` reports that a service is degraded, or, with `None`, that this is over. Answers whether there is such a service.
    pub async fn report(self: &Arc<Self>, name: &str, by: &str, report: Option<Report>) -> Result<bool> {
        for _ in 0..ATTEMPTS_MAX {
            let view = self.refresh().await?;
            let Some(service) = view.get(name).filter(|_| !view.is_lost(name)) else { return Ok(false) };
            let health = service.health.at(self.shared.store.now_ms());
            let health = match &report {
                Some(report) => health.reported(by, report.clone()),
                None => health.recovered(by),
            };
            if probing::note(&self.shared, service, service.being(health)).await? {
                return Ok(true);
            }
        }
        Err(busy(name))
    }

    /// What this process registered under that name it renews no more.
    pub fn let_go(&self, name: &str) {
        lock(&self.shared.held).remove(name);
    }

    /// Its owner says that a service is well, unless somebody looked at it within the last `fresh_ms`.
    pub async fn vouch(self: &Arc<Self>, name: &str, fresh_ms: u64) -> Result<()> {
        let now_ms = self.shared.store.now_ms();
        let view = self.view();
        let Some(service) = view.get(name).filter(|service| service.health.is_older_than(now_ms.saturating_sub(fresh_ms))) else {
            return Ok(());
        };
        // Another process may be saying so, too: then it is done.
        probing::note(&self.shared, service, service.being(service.health.at(now_ms).vouched(now_ms))).await.map(drop)
    }

    /// Ends the reports whose time is over.
    pub async fn end_reports(self: &Arc<Self>) -> Result<()> {
        let now_ms = self.shared.store.now_ms();
        for service in self.view().services() {
            if service.health.next_end_ms().is_some_and(|end_ms| end_ms <= now_ms) {
                // Another process may be ending them, too: then it is done.
                probing::note(&self.shared, service, service.being(service.health.at(now_ms))).await?;
            }
        }
        Ok(())
    }
}

fn busy(name: &str) -> Error {
    let mut error = Error::new(Code::Redis, format!("the service '{name}' is changed by other processes all the time; try again"));
    error.retryable = true;
    error
}
