//! What users call.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use super::asking::{Asked, Asking};
use super::definition::{Definition, Given, refuse};
use super::filter::Filter;
use super::health::{Health, Report, Status};
use super::held::Held;
use super::probing;
use super::service::Service;
use super::shared::Shared;
use super::view::{Happening, View};
use crate::engine::config::{HttpConfig, RegistryConfig};
use crate::engine::env::{Env, lock};
use crate::engine::error::{Code, Error, Result};
use crate::engine::host::{self, Host};
use crate::engine::http::Http;
use crate::engine::log::Log;
use crate::engine::name::check_service;
use crate::engine::store::{Listing, Store, Turn};

/// Attempts while others change the same service.
const ATTEMPTS_MAX: usize = 50;
/// Attempt from which on all is read anew.
const DOUBTFUL_FROM: usize = 8;
/// Most services.
const SERVICES_MAX: usize = 10_000;
/// Happenings that wait for one listener in the engine; one that is so far behind misses the rest.
const WAITING_MAX: usize = 100_000;

/// What goes on while it is open.
#[derive(Default)]
pub(super) struct Tasks {
    pub(super) beside: Vec<JoinHandle<()>>,
    /// Dropped, it ends.
    pub(super) probing: Option<oneshot::Sender<Infallible>>,
    /// Whether the program wants services to be probed here, and how many buses do.
    pub(super) wanted: (bool, usize),
    /// Buses of this process that registered themselves.
    pub(super) buses: usize,
}

impl Tasks {
    pub(super) fn are_probes_wanted(&self) -> bool {
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
pub(super) struct Opening {
    /// The store is.
    pub(super) store: bool,
    /// What is there is known.
    pub(super) all: bool,
    /// The last attempt that failed, and why.
    pub(super) failed: Option<(u64, Error)>,
    /// Closing has ended.
    pub(super) closed: bool,
}

/// A registry of services over a store.
pub struct Registry {
    pub(super) shared: Arc<Shared>,
    pub(super) tasks: Mutex<Tasks>,
    /// Requests for a look, until they are looked at.
    pub(super) asked: Mutex<Option<Asked>>,
    pub(super) opening: tokio::sync::Mutex<Opening>,
    /// Attempts to open that were begun.
    pub(super) attempts: AtomicU64,
    pub(super) reopening: AtomicBool,
    pub(super) policy: HttpConfig,
    /// The store's address, without credentials.
    pub(super) shown: String,
    /// What buses add to it for probes.
    pub(super) restrictions: Mutex<BTreeMap<u64, HttpConfig>>,
    /// What is there is known, and it was not closed.
    pub(super) is_open: AtomicBool,
}

impl Registry {
    /// One that is not connected yet. `ERR_INVALID_CONFIG` where a certificate or key cannot be used.
    pub fn new(config: &RegistryConfig, host: Arc<dyn Host>, env: Env) -> Result<Arc<Self>> {
        let env = host::logging(env, &host, config.log.level);
        let store = crate::engine::opening::open_registry(config, &env)?;
        Self::with_store(config, store, host, env)
    }

    /// One over a store of the caller's.
    pub fn with_store(config: &RegistryConfig, store: Arc<dyn Store>, host: Arc<dyn Host>, env: Env) -> Result<Arc<Self>> {
        let env = host::logging(env, &host, config.log.level);
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
            shown: config.redis.shown(),
            restrictions: Mutex::default(),
            is_open: AtomicBool::new(false),
        }))
    }

    /// Where what it says goes. Whoever calls it does so along with this.
    pub fn log(&self) -> &Log {
        self.shared.env.log()
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
