//! What users call.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use super::definition::{Definition, Given, refuse};
use super::filter::Filter;
use super::health::{Health, Report, Status, Thresholds};
use super::held::Held;
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
use crate::engine::store::{Listing, Store, StoreEvent, Turn};

/// Attempts while others change the same service.
const ATTEMPTS_MAX: usize = 50;
/// Attempt from which on all is read anew.
const DOUBTFUL_FROM: usize = 8;
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
    pub(super) held: Held,
    /// The next look is to read all: what is known may be wrong.
    doubt: AtomicBool,
    /// Something that is held may not be listed.
    pub(super) renewal: Notify,
    /// What came or changed, and may have no probe planned.
    pub(super) unplanned: Mutex<BTreeSet<String>>,
    /// There is something of that.
    pub(super) came: Notify,
    /// Whether the registry ended, and everything is to end with it.
    closed: watch::Sender<bool>,
    /// For probes.
    pub(super) http: Mutex<Http>,
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

    /// As the store takes it, ms.
    pub(super) fn life_ms(&self) -> u64 {
        u64::try_from(self.life.as_millis()).unwrap_or(u64::MAX)
    }

    /// The next look reads all.
    pub(super) fn doubt(&self) {
        self.doubt.store(true, Ordering::Release);
    }

    /// Whether this look is to read all.
    pub(super) fn is_in_doubt(&self) -> bool {
        self.doubt.swap(false, Ordering::AcqRel)
    }

    /// Whether the registry ended.
    pub(super) fn is_closed(&self) -> bool {
        *self.closed.borrow()
    }

    /// Returns once the registry ended.
    pub(super) async fn closed(&self) {
        // The sender is ours: waiting cannot fail.
        let _ = self.closed.subscribe().wait_for(|closed| *closed).await;
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
    /// Dropped, it ends.
    probing: Option<oneshot::Sender<Infallible>>,
    /// Whether the program wants services to be probed here, and how many buses do.
    wanted: (bool, usize),
    /// Buses of this process that registered themselves.
    buses: usize,
}

impl Tasks {
    fn are_probes_wanted(&self) -> bool {
        self.wanted.0 || self.wanted.1 > 0
    }
}

/// Who wants services to be probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watcher {
    /// The program, once.
    Program,
    /// A bus, of which there may be several.
    Bus,
}

/// How far it is open.
#[derive(Default)]
struct Opening {
    /// The store is.
    store: bool,
    /// What is there is known.
    all: bool,
    /// The last attempt that failed, and why.
    failed: Option<(u64, Error)>,
    /// Closing has ended.
    closed: bool,
}

/// A registry of services over a store.
pub struct Registry {
    shared: Arc<Shared>,
    tasks: Mutex<Tasks>,
    /// Requests for a look, until they are looked at.
    asked: Mutex<Option<looking::Asked>>,
    opening: tokio::sync::Mutex<Opening>,
    /// Attempts to open that were begun.
    attempts: AtomicU64,
    reopening: AtomicBool,
    policy: HttpConfig,
    /// What buses add to it for probes.
    restrictions: Mutex<BTreeMap<u64, HttpConfig>>,
    /// What is there is known, and it was not closed.
    is_open: AtomicBool,
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.stop();
        // Connections end by closing alone.
        if !self.opening.get_mut().closed
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let store = self.shared.store.clone();
            runtime.spawn(async move { store.close(CLOSE_MAX).await });
        }
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
            held: Held::default(),
            doubt: AtomicBool::new(false),
            renewal: Notify::new(),
            unplanned: Mutex::default(),
            came: Notify::new(),
            closed: watch::channel(false).0,
            http: Mutex::new(http),
            listeners: Mutex::default(),
        });
        Ok(Arc::new(Self {
            shared,
            tasks: Mutex::default(),
            asked: Mutex::new(Some(asked)),
            opening: tokio::sync::Mutex::default(),
            attempts: AtomicU64::new(0),
            reopening: AtomicBool::new(false),
            policy: config.http.clone(),
            restrictions: Mutex::default(),
            is_open: AtomicBool::new(false),
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
        let seen = self.attempts.load(Ordering::Acquire);
        // Closing does not wait for a store that does not answer.
        tokio::select! {
            biased;
            () = self.shared.closed() => Err(Error::closed("the service registry")),
            opened = self.open_in_turn(seen) => opened,
        }
    }

    async fn open_in_turn(&self, seen: u64) -> Result<()> {
        let mut opening = self.opening.lock().await;
        if opening.all {
            return Ok(());
        }
        // Of those that wait for the same, each would else wait for the failures of all before it.
        if let Some((attempt, error)) = &opening.failed
            && *attempt > seen
        {
            return Err(error.clone());
        }
        let attempt = self.attempts.fetch_add(1, Ordering::AcqRel) + 1;
        let connected = self.connect(&mut opening).await;
        if let Err(error) = &connected {
            opening.failed = Some((attempt, error.clone()));
        }
        drop(opening);
        self.probe_if_wanted();
        connected
    }

    async fn connect(&self, opening: &mut Opening) -> Result<()> {
        if !opening.store {
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
            opening.store = true;
        }
        self.begin();
        // What is there is no news.
        self.shared.asking.refresh().await?;
        opening.all = true;
        self.is_open.store(true, Ordering::Release);
        Ok(())
    }

    fn begin(&self) {
        let mut tasks = lock(&self.tasks);
        if !self.is_closed()
            && let Some(asked) = lock(&self.asked).take()
        {
            let env = &self.shared.env;
            tasks.beside = vec![env.spawn(looking::run(self.shared.clone(), asked)), env.spawn(renewing::run(self.shared.clone()))];
        }
    }

    fn stop(&self) {
        self.shared.closed.send_replace(true);
        self.is_open.store(false, Ordering::Release);
        let Tasks { beside, probing: _, .. } = std::mem::take(&mut *lock(&self.tasks));
        beside.iter().for_each(JoinHandle::abort);
        lock(&self.shared.listeners).clear();
    }

    /// Ends everything; what is registered stays listed until its time is over. Idempotent.
    pub async fn close(&self) {
        self.stop();
        let mut opening = self.opening.lock().await;
        if std::mem::replace(&mut opening.closed, true) {
            return;
        }
        // Whoever waits for a look is told that there is none.
        lock(&self.asked).take();
        self.shared.store.close(CLOSE_MAX).await;
    }

    /// Whether it was closed.
    pub fn is_closed(&self) -> bool {
        self.shared.is_closed()
    }

    /// The services at this moment.
    pub async fn refresh(self: &Arc<Self>) -> Result<Arc<View>> {
        self.open().await?;
        self.shared.asking.refresh().await
    }

    /// The services to try to change. Where that fails again and again, what is known may be wrong: part of the store was lost.
    async fn at_attempt(self: &Arc<Self>, attempt: usize) -> Result<Arc<View>> {
        if attempt == DOUBTFUL_FROM {
            self.shared.doubt();
        }
        self.refresh().await
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

    /// A client for what a bus asks of services: what this registry may ask, and `policy` allows as well.
    pub fn client(&self, policy: Option<&HttpConfig>) -> Result<Http> {
        match policy {
            Some(policy) => Http::new(&[&self.policy, policy]),
            None => Http::new(&[&self.policy]),
        }
    }

    /// Until [`Registry::relax`] probes of this process hold to `policy` as well. Answers what names that.
    pub fn restrict(&self, policy: &HttpConfig) -> Result<u64> {
        let mut restrictions = lock(&self.restrictions);
        let number = restrictions.last_key_value().map_or(0, |(last, _)| last + 1);
        restrictions.insert(number, policy.clone());
        self.probe_by(&restrictions).inspect_err(|_| drop(restrictions.remove(&number)))?;
        Ok(number)
    }

    /// The opposite of [`Registry::restrict`].
    pub fn relax(&self, restriction: u64) {
        let mut restrictions = lock(&self.restrictions);
        restrictions.remove(&restriction);
        // It could be made with more of them.
        let _ = self.probe_by(&restrictions);
    }

    fn probe_by(&self, restrictions: &BTreeMap<u64, HttpConfig>) -> Result<()> {
        let policies: Vec<&HttpConfig> = restrictions.values().chain([&self.policy]).collect();
        *lock(&self.shared.http) = Http::new(&policies)?;
        Ok(())
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
        let Given { definition, health } = Definition::read(service, now_ms, self.shared.life_ms())?;
        if let Some(health) = &health {
            Health::read(health.clone(), "service.health", now_ms, None)?;
        }
        let name = definition.name.clone();
        for attempt in 0..ATTEMPTS_MAX {
            let view = self.at_attempt(attempt).await?;
            // What is missing is not there to be changed, but still the same service.
            let known = view.get(&name);
            let before = known.filter(|_| !view.is_lost(&name));
            if known.is_none() && view.count() >= SERVICES_MAX {
                return Err(refuse("service", format!("there are {SERVICES_MAX} services already, as many as there may be")));
            }
            let now_ms = self.shared.store.now_ms();
            let mut definition = definition.clone();
            (definition.registered_at_ms, definition.updated_at_ms) = (now_ms, now_ms);
            if let Some(known) = known {
                definition.registered_at_ms = known.definition.registered_at_ms;
                // Later than before, by whatever clock: it tells one update from another.
                definition.updated_at_ms = if definition.is_same_as(&known.definition) {
                    known.definition.updated_at_ms
                } else {
                    now_ms.max(known.definition.updated_at_ms + 1)
                };
            }
            let was = known.map(|known| known.health.at(now_ms));
            let health = match &health {
                Some(health) => Health::read(health.clone(), "service.health", now_ms, was.as_ref())?,
                None => was.unwrap_or_else(|| Health::unknown(now_ms)),
            };
            let health = match known {
                Some(known) => health.behind(&known.health, now_ms),
                None => health,
            };
            let service = Service::new(definition, health);
            let registering = self.shared.held.registering(&name);
            if self.put(view.listing(&name), before.map(Arc::as_ref), &service, Some(self.shared.life)).await? {
                registering.done(Arc::new(service.clone()));
                self.see().await;
                return Ok(service.to_json());
            }
        }
        Err(busy(&name))
    }

    /// Looks at what this process changed. If that cannot be seen now it is changed all the same, and seen later.
    async fn see(&self) {
        if let Err(error) = self.shared.asking.refresh().await {
            tracing::debug!(%error, "what was changed could not be read again");
        }
    }

    /// Changes `listing`, as it stands there, which is `before` if it can be read; answers whether it was so.
    async fn put(&self, listing: Option<&Listing>, before: Option<&Service>, after: &Service, life: Option<Duration>) -> Result<bool> {
        let turn = match before {
            None => Turn::Registered,
            Some(before) if !before.definition.is_same_as(&after.definition) => Turn::Updated,
            Some(before) if before.health.status() != after.health.status() => Turn::Changed,
            Some(_) => Turn::Checked,
        };
        self.shared.store.put_listing(&after.definition.name, listing, Some(&after.listing), turn, life).await
    }

    /// Changes what is said of a service, whoever registered it; `None`: there is none of that name.
    ///
    /// `ERR_SERVICE_INVALID` with `details.path`.
    pub async fn update(self: &Arc<Self>, name: &str, updates: Value) -> Result<Option<Value>> {
        check_service("serviceName", name)?;
        for attempt in 0..ATTEMPTS_MAX {
            let view = self.at_attempt(attempt).await?;
            let Some(before) = view.get(name).filter(|_| !view.is_lost(name)) else { return Ok(None) };
            let now_ms = self.shared.store.now_ms();
            let Given { definition, health } = before.definition.updated(updates.clone(), now_ms)?;
            let known = before.health.at(now_ms);
            let health = match health {
                Some(health) => Health::read(health, "updates.health", now_ms, None)?.with_reports_of(&known),
                None => known,
            };
            let service = Service::new(definition, health.behind(&before.health, now_ms));
            if self.put(Some(&before.listing), Some(before), &service, None).await? {
                self.see().await;
                return Ok(Some(service.to_json()));
            }
        }
        Err(busy(name))
    }

    /// Takes a service out, whoever registered it; answers whether it was there.
    pub async fn unregister(self: &Arc<Self>, name: &str) -> Result<bool> {
        check_service("serviceName", name)?;
        for attempt in 0..ATTEMPTS_MAX {
            let view = self.at_attempt(attempt).await?;
            self.shared.held.remove(name);
            // Also what nobody can read.
            let Some(before) = view.listing(name) else { return Ok(false) };
            if self.shared.store.put_listing(name, Some(before), None, Turn::Unregistered, None).await? {
                self.see().await;
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
        let connected = self.is_open.load(Ordering::Acquire) && self.shared.store.status().await.connected;
        json!({
            "connected": connected,
            "monitoring": lock(&self.tasks).are_probes_wanted(),
            "registeredHere": self.shared.held.count(),
            "services": self.counts_json(),
        })
    }

    /// From now on this process takes part in probing, until [`Registry::unwatch`].
    pub async fn watch(self: &Arc<Self>, watcher: Watcher) -> Result<()> {
        self.open().await?;
        {
            let mut tasks = lock(&self.tasks);
            match watcher {
                Watcher::Program => tasks.wanted.0 = true,
                Watcher::Bus => tasks.wanted.1 += 1,
            }
        }
        self.probe_if_wanted();
        Ok(())
    }

    /// The opposite of [`Registry::watch`].
    pub fn unwatch(&self, watcher: Watcher) {
        let mut tasks = lock(&self.tasks);
        match watcher {
            Watcher::Program => tasks.wanted.0 = false,
            Watcher::Bus => tasks.wanted.1 = tasks.wanted.1.saturating_sub(1),
        }
        if !tasks.are_probes_wanted() {
            tasks.probing = None;
        }
    }

    fn probe_if_wanted(&self) {
        let mut tasks = lock(&self.tasks);
        if tasks.are_probes_wanted() && tasks.probing.is_none() && !self.is_closed() {
            let (probing, ends) = oneshot::channel();
            self.shared.env.spawn(probing::run(self.shared.clone(), ends));
            tasks.probing = Some(probing);
        }
    }

    /// `by` reports that a service is degraded, or, with `None`, that this is over. Answers whether there is such a service.
    pub async fn report(self: &Arc<Self>, name: &str, by: &str, report: Option<Report>) -> Result<bool> {
        for attempt in 0..ATTEMPTS_MAX {
            let view = self.at_attempt(attempt).await?;
            let Some(service) = view.get(name).filter(|_| !view.is_lost(name)) else { return Ok(false) };
            let now_ms = self.shared.store.now_ms();
            let health = service.health.at(now_ms);
            let health = match &report {
                Some(report) => health.reported(by, report.clone()),
                None => health.recovered(by),
            };
            if probing::note(&self.shared, service, service.being(health, now_ms)).await? {
                return Ok(true);
            }
        }
        Err(busy(name))
    }

    /// A bus registers itself: what it registers is renewed at least until [`Registry::bus_left`].
    pub fn bus_came(&self) {
        lock(&self.tasks).buses += 1;
    }

    /// The opposite of [`Registry::bus_came`]. What the last bus of this process registered under that name is renewed no more.
    pub fn bus_left(&self, name: &str) {
        let mut tasks = lock(&self.tasks);
        tasks.buses = tasks.buses.saturating_sub(1);
        if tasks.buses == 0 {
            self.shared.held.remove(name);
        }
    }

    /// Whether this process registered that name, and renews it.
    pub fn holds(&self, name: &str) -> bool {
        self.shared.held.get(name).is_some()
    }

    /// Its owner says that a service is well, unless somebody looked at it within the last `fresh_ms`.
    pub async fn vouch(self: &Arc<Self>, name: &str, fresh_ms: u64) -> Result<()> {
        let now_ms = self.shared.store.now_ms();
        let view = self.view();
        let Some(service) = view.get(name).filter(|service| service.health.is_older_than(now_ms.saturating_sub(fresh_ms))) else {
            return Ok(());
        };
        // Another process may be saying so, too: then it is done.
        probing::note(&self.shared, service, service.being(service.health.at(now_ms).vouched(now_ms), now_ms)).await.map(drop)
    }

    /// Ends the reports whose time is over.
    pub async fn end_reports(self: &Arc<Self>) -> Result<()> {
        let now_ms = self.shared.store.now_ms();
        for service in self.view().services() {
            if service.health.next_end_ms().is_some_and(|end_ms| end_ms <= now_ms) {
                // Another process may be ending them, too: then it is done.
                probing::note(&self.shared, service, service.being(service.health.at(now_ms), now_ms)).await?;
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
