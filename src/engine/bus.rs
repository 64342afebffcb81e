//! One bus: its parts put together, its life from connect to disconnect.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use serde_json::{Value, json};

use super::alarms::Alarms;
use super::config::{Address, BusConfig, CrossProject, Secret};
use super::consume::{Command, Consumer, Verdict};
use super::env::{Env, lock};
use super::error::{Code, Error, Result};
use super::event::seconds_to_ms;
use super::explain;
use super::history::{self, Page, Period};
use super::host::{Host, Kind, Lifecycle, Token};
use super::keeper::Keeper;
use super::metrics::Metrics;
use super::name;
use super::options::SubscribeOptions;
use super::projects::Projects;
use super::publish::{Beside, Publisher};
use super::store::memory::MemoryStore;
use super::store::redis::{Durability, Endpoint, Location, RedisStore, RedisStoreConfig, TlsOptions};
use super::store::{DeadLetterQuery, Loss, Store, StoreEvent, StoredDeadLetter};
use super::streams;

/// Drain time unless given.
pub const DRAIN_DEFAULT: Duration = Duration::from_secs(10);
/// Time for what is left to do after handlers were drained: announcing, closing connections.
const CLOSE_MAX: Duration = Duration::from_secs(2);
/// Percent of failed deliveries over five minutes from which a bus counts as degraded.
const DEGRADED_ERROR_RATE: f64 = 5.0;
/// Percent of the pool in use from which a bus counts as degraded.
const DEGRADED_UTILIZATION: f64 = 90.0;
/// Most dead letters a page.
const PAGE_MAX: usize = 1000;

const NEW: u8 = 0;
const CONNECTED: u8 = 1;
const CLOSED: u8 = 2;

/// What exists while a bus is connected.
struct Running {
    publisher: Arc<Publisher>,
    consumer: Arc<Consumer>,
    projects: Option<Arc<Projects>>,
    _keeper: Keeper,
    health: tokio::task::JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.health.abort();
    }
}

/// An event bus.
pub struct Bus {
    config: BusConfig,
    /// Messages between projects, where they are on.
    cross_project: Option<CrossProject>,
    store: Arc<dyn Store>,
    host: Arc<dyn Host>,
    env: Env,
    metrics: Arc<Metrics>,
    state: AtomicU8,
    running: Mutex<Option<Arc<Running>>>,
    /// Outlives `running` while handlers finish.
    consumer: Mutex<Option<Arc<Consumer>>>,
    connecting: tokio::sync::Mutex<()>,
}

/// The store that `config` names.
fn open_store(config: &BusConfig, env: &Env) -> Result<Arc<dyn Store>> {
    let redis = &config.redis;
    let endpoints = |nodes: &[(String, u16)]| nodes.iter().map(|(host, port)| Endpoint::tcp(host.as_str(), *port)).collect();
    let password = |secret: &Option<Secret>| secret.as_ref().map(|password| password.expose().to_owned());
    let location = match &redis.address {
        Address::Memory { name: None } => return Ok(MemoryStore::private(env.clone())),
        Address::Memory { name: Some(name) } => return Ok(MemoryStore::named(name, &redis.key_prefix, env.clone())),
        Address::Single { host, port } => Location::Server(Endpoint::tcp(host.as_str(), *port)),
        Address::Socket { path } => Location::Server(Endpoint::Unix { path: path.clone() }),
        Address::Sentinel { master_name, nodes, username, password: secret } => Location::Sentinel {
            master_name: master_name.clone(),
            nodes: endpoints(nodes),
            username: username.clone(),
            password: password(secret),
        },
        Address::Cluster { nodes, read_from_replicas, enable_ready_check } => {
            Location::Cluster { nodes: endpoints(nodes), read_from_replicas: *read_from_replicas, enable_ready_check: *enable_ready_check }
        }
    };
    let store = RedisStoreConfig {
        location,
        username: redis.username.clone(),
        password: password(&redis.password),
        db: redis.db,
        tls: redis.tls.as_ref().map(|tls| TlsOptions {
            ca: tls.ca.clone(),
            cert: tls.cert.clone(),
            key: password(&tls.key),
            server_name: tls.server_name.clone(),
            reject_unauthorized: tls.reject_unauthorized,
        }),
        key_prefix: redis.key_prefix.clone(),
        dead_letter_pattern: config.dead_letter_queue.key_pattern.clone(),
        connect_timeout: Duration::from_millis(redis.connect_timeout_ms),
        command_timeout: Duration::from_millis(redis.command_timeout_ms),
        pool_size: config.performance.connection_pool_size,
        pipeline_size: config.performance.pipeline_size,
        durability: config.durability.as_ref().map(|durability| Durability {
            wait_replicas: durability.wait_replicas,
            fsync: durability.fsync,
            wait_timeout: Duration::from_millis(durability.wait_timeout_ms),
        }),
    };
    let store = RedisStore::new(store, env.clone())?;
    Ok(store)
}

/// Events that this bus published and that are gone.
fn published_loss(loss: &Loss) -> Lifecycle {
    let about = json!({
        "eventType": &*loss.partition.event_type, "partition": loss.partition.index, "published": loss.events,
        "lastSeen": loss.last.map(|id| id.to_string()),
    });
    Lifecycle(Kind::DataLoss, about)
}

impl Bus {
    /// A bus that is not connected yet; without `cross_project` it knows no messages between projects. `ERR_INVALID_CONFIG` where a
    /// certificate or key cannot be used.
    pub fn new(config: BusConfig, cross_project: Option<CrossProject>, host: Arc<dyn Host>, env: Env) -> Result<Arc<Self>> {
        let store = open_store(&config, &env)?;
        Ok(Self::with_store(config, cross_project, store, host, env))
    }

    /// A bus over a store of the caller's.
    pub fn with_store(
        config: BusConfig,
        cross_project: Option<CrossProject>,
        store: Arc<dyn Store>,
        host: Arc<dyn Host>,
        env: Env,
    ) -> Arc<Self> {
        Arc::new(Self {
            cross_project: cross_project.filter(|cross_project| cross_project.enabled),
            metrics: Arc::new(Metrics::new(env.clone())),
            config,
            store,
            host,
            env,
            state: AtomicU8::new(NEW),
            running: Mutex::default(),
            consumer: Mutex::default(),
            connecting: tokio::sync::Mutex::default(),
        })
    }

    /// Connects; idempotent. After a failure it may be called again; after [`Bus::disconnect`] it is `ERR_CLOSED`.
    pub async fn connect(&self) -> Result<()> {
        let _one = self.connecting.lock().await;
        match self.state.load(Ordering::Acquire) {
            CONNECTED => return Ok(()),
            CLOSED => return Err(Error::new(Code::Closed, "the bus was disconnected; make a new one")),
            _ => {}
        }
        let consumer_of = Arc::new(Mutex::new(None::<Arc<Consumer>>));
        let projects_of = Arc::new(Mutex::new(None::<Weak<Projects>>));
        {
            let (host, consumer, projects) = (self.host.clone(), consumer_of.clone(), projects_of.clone());
            self.store.watch(Arc::new(move |event| {
                let tell = |command| {
                    if let Some(consumer) = &*lock(&consumer) {
                        consumer.tell(command);
                    }
                };
                match event {
                    StoreEvent::ConnectionLost(reason) => host.lifecycle(vec![Lifecycle(Kind::ConnectionLost, json!({ "error": reason }))]),
                    StoreEvent::ConnectionRestored => {
                        host.lifecycle(vec![Lifecycle(Kind::ConnectionRestored, json!({}))]);
                        tell(Command::Reconnected);
                    }
                    StoreEvent::TopologyChanged => tell(Command::TopologyChanged),
                    StoreEvent::DocumentsChanged => {
                        if let Some(projects) = lock(&projects).as_ref().and_then(Weak::upgrade) {
                            projects.look();
                        }
                    }
                    // The bus keeps no register of its own.
                    StoreEvent::ServicesChanged => {}
                    StoreEvent::DataLoss(losses) => host.lifecycle(losses.iter().map(published_loss).collect()),
                    StoreEvent::Transient(event) => {
                        if let Some(consumer) = &*lock(&consumer) {
                            consumer.cast(event);
                        }
                    }
                }
            }));
        }
        self.store.open().await?;
        let alarms = Arc::new(Alarms::default());
        let (store, host, env, metrics) = (self.store.clone(), self.host.clone(), self.env.clone(), self.metrics.clone());
        let projects = match &self.cross_project {
            Some(cross) => Some(Arc::new(Projects::start(&self.config, cross, store.clone(), host.clone(), env.clone())?)),
            None => None,
        };
        let beside =
            Beside { metrics: metrics.clone(), alarms: alarms.clone(), courier: projects.as_ref().map(|projects| projects.courier()) };
        let publisher = Arc::new(Publisher::start((&self.config).into(), store.clone(), host.clone(), env.clone(), beside));
        let gate = projects.as_ref().map(|projects| projects.gate());
        let consumer = Arc::new(Consumer::start((&self.config).into(), store.clone(), host.clone(), env.clone(), metrics.clone(), gate));
        if let Some(projects) = &projects {
            projects.speak_by(&publisher);
            *lock(&projects_of) = Some(Arc::downgrade(projects));
            // Also what was announced before anybody heard it here. Known to all who ask from now on, if it can be had.
            projects.read().await;
        }
        *lock(&consumer_of) = Some(consumer.clone());
        *lock(&self.consumer) = Some(consumer.clone());
        let keeper = Keeper::start(&(&self.config).into(), store, host.clone(), &env, metrics, &consumer, alarms);
        let health = self.env.spawn(watch_health(
            self.store.clone(),
            host,
            self.metrics.clone(),
            Duration::from_millis(self.config.monitoring.health_check_interval_ms),
        ));
        *lock(&self.running) = Some(Arc::new(Running { publisher, consumer, projects, _keeper: keeper, health }));
        self.state.store(CONNECTED, Ordering::Release);
        Ok(())
    }

    /// It is connected, and no defect ended a part of it.
    fn is_well(&self) -> bool {
        self.running().is_ok_and(|running| running.consumer.defect().is_none())
    }

    fn running(&self) -> Result<Arc<Running>> {
        match (self.state.load(Ordering::Acquire), &*lock(&self.running)) {
            (CONNECTED, Some(running)) => Ok(running.clone()),
            (CLOSED, _) => Err(Error::new(Code::Closed, "the bus is disconnected")),
            _ => Err(Error::new(Code::NotInitialized, "the bus is not connected; await connect() first")),
        }
    }

    /// Lets handlers finish up to `drain`, hands back what is unfinished, says `system.shutdown`, closes. Idempotent,
    /// and done within `drain` and a few seconds whether the server is there or not.
    pub async fn disconnect(&self, drain: Duration) {
        let _one = self.connecting.lock().await;
        self.state.store(CLOSED, Ordering::Release);
        let Some(running) = lock(&self.running).clone() else { return };
        // Handlers that finish may still publish.
        running.consumer.stop(drain).await;
        running.publisher.stop_asking();
        lock(&self.running).take();
        lock(&self.consumer).take();
        running.publisher.say("system.shutdown", &self.shutdown_notice());
        running.publisher.close(CLOSE_MAX).await;
        if let Some(projects) = &running.projects {
            projects.close(CLOSE_MAX).await;
        }
        drop(running);
        self.store.close(CLOSE_MAX).await;
    }

    fn shutdown_notice(&self) -> Value {
        json!({ "service": self.config.service_name, "pid": std::process::id(), "reason": "disconnect", "timestamp": self.env.now_ms() })
    }

    /// See [`Publisher::submit`].
    pub fn publish(&self, first: Token, text: String) {
        let running = lock(&self.running).clone();
        match running.ok_or_else(|| Error::new(Code::Closed, "the bus is not connected")) {
            Ok(running) => running.publisher.submit(first, text),
            Err(error) => {
                let count = memchr::memchr_iter(b'\n', text.as_bytes()).count();
                let tokens = (0..count).map(|i| first.wrapping_add(u32::try_from(i).unwrap_or(u32::MAX)));
                self.host.published(tokens.map(|token| (token, Err(error.clone()))).collect());
            }
        }
    }

    /// See [`Publisher::cancel`].
    pub fn cancel(&self, token: Token) {
        if let Ok(running) = self.running() {
            running.publisher.cancel(token);
        }
    }

    /// Ends deliveries. Also while the bus disconnects: handlers are finishing then.
    pub fn settle(&self, verdicts: Vec<(Token, Verdict)>, confirm: u32) {
        let consumer = lock(&self.consumer).clone();
        match consumer {
            Some(consumer) => consumer.tell(Command::Settle(verdicts, confirm)),
            None if confirm != 0 => self.host.settled(vec![(confirm, Some(Error::closed("the bus")))]),
            None => {}
        }
    }

    /// Makes a subscription; `id` is the caller's name for it. Answers group and consumer.
    pub async fn subscribe(&self, id: u32, pattern: &str, options: SubscribeOptions) -> Result<(String, String)> {
        name::check_pattern(pattern)?;
        self.running()?.consumer.subscribe(id, pattern.to_owned(), options).await
    }

    /// Reads messages to a project; `id` is the caller's name for it. Answers group and consumer.
    pub async fn handle_messages(&self, id: u32, project: &str, pattern: &str, options: SubscribeOptions) -> Result<(String, String)> {
        let running = self.running()?;
        if options.signed_only && self.cross_project.as_ref().is_some_and(|cross_project| !cross_project.security_enabled) {
            let problem = "cannot hold where crossProject.securityEnabled is false: no signature is verified here";
            return Err(Error::argument("options.requireSignatureValidation", problem));
        }
        let streams = Self::projects_of(&running)?.handle(project, pattern).await?;
        running.consumer.subscribe(id, streams, options).await
    }

    /// Messages between projects. `ERR_DISABLED` where they are off.
    pub fn projects(&self) -> Result<Arc<Projects>> {
        Self::projects_of(&*self.running()?)
    }

    fn projects_of(running: &Running) -> Result<Arc<Projects>> {
        let off = || Error::new(Code::Disabled, "messages between projects are switched off (crossProject.enabled)");
        running.projects.clone().ok_or_else(off)
    }

    /// Ends a subscription.
    pub async fn unsubscribe(&self, id: u32, drain: Duration) -> Result<()> {
        match self.running() {
            Ok(running) => running.consumer.unsubscribe(id, drain).await,
            // With the bus, its subscriptions ended.
            Err(_) => Ok(()),
        }
    }

    /// Stops or resumes a subscription.
    pub fn pause(&self, id: u32, paused: bool) {
        if let Ok(running) = self.running() {
            running.consumer.tell(Command::Pause(id, paused));
        }
    }

    /// `EventBusMetrics`.
    pub fn metrics(&self) -> Value {
        self.metrics.snapshot(self.store.utilization())
    }

    /// `EventBusStatus`, with times as ms. Never fails: that the server is away is what it says.
    pub async fn status(&self) -> Value {
        let status = self.store.status().await;
        let topology = if status.connected { self.store.topology().await.unwrap_or_default() } else { super::store::Topology::default() };
        let metrics = self.metrics.snapshot(status.utilization);
        let subscriptions = self.running().map_or(0, |running| running.consumer.subscriptions.load(Ordering::Relaxed));
        json!({
            "status": grade(status.connected && self.is_well(), &metrics),
            "redis": {
                "connected": status.connected,
                "cluster": status.cluster,
                "nodes": status.nodes.iter().map(|(host, port, state)| json!({ "host": host, "port": port, "status": state })).collect::<Vec<_>>(),
            },
            "subscriptions": subscriptions,
            "streams": topology.types.len(),
            "metrics": metrics,
            "lastHealthCheck": self.env.now_ms(),
        })
    }

    /// `EventStream` with times as ms, or null for a type never seen.
    pub async fn stream(&self, event_type: &str) -> Result<Value> {
        self.running()?;
        name::check_stream(event_type).map_err(|error| error.with("argument", "name"))?;
        streams::describe(&self.store, event_type, &self.config).await
    }

    /// Notes how a type is kept and makes its streams. Answers the `EventStream`.
    pub async fn create_stream(&self, event_type: &str, config: Value) -> Result<Value> {
        self.running()?;
        name::check_stream(event_type).map_err(|error| error.with("argument", "name"))?;
        streams::create(&self.store, event_type, &streams::read_config(config)?).await?;
        streams::describe(&self.store, event_type, &self.config).await
    }

    /// Deletes a group that nobody reads; answers whether it existed.
    pub async fn delete_group(&self, pattern: &str, group: &str) -> Result<bool> {
        self.running()?;
        name::check_streams(pattern).map_err(|error| error.with("argument", "eventTypeOrPattern"))?;
        name::check_group(group)?;
        self.store.delete_group(pattern, group).await
    }

    /// One page of dead letters as `{ items, cursor? }`.
    pub async fn dead_letters(&self, query: &DeadLetterQuery, limit: usize, cursor: Option<&str>) -> Result<Value> {
        self.running()?;
        let (letters, cursor) = self.store.dead_letters(query, limit.clamp(1, PAGE_MAX), cursor).await?;
        let mut page = json!({ "items": letters.iter().map(letter).collect::<Vec<_>>() });
        if let Some(cursor) = cursor {
            page["cursor"] = cursor.into();
        }
        Ok(page)
    }

    /// How many dead letters match.
    pub async fn count_dead_letters(&self, query: &DeadLetterQuery) -> Result<u64> {
        self.running()?;
        self.store.count_dead_letters(query).await
    }

    /// Puts dead letters back for the group that failed them.
    pub async fn redrive(&self, query: &DeadLetterQuery) -> Result<u64> {
        self.running()?;
        self.store.redrive(query).await
    }

    /// Deletes dead letters.
    pub async fn purge(&self, query: &DeadLetterQuery) -> Result<u64> {
        self.running()?;
        self.store.purge(query).await
    }

    /// One page of the history of a type, see [`history::page`].
    pub async fn replay(&self, event_type: &str, period: &Period, cursor: Option<&str>, count: Option<usize>) -> Result<Page> {
        self.running()?;
        name::check_stream(event_type)?;
        let page = history::page(&*self.store, event_type, period, cursor, count).await?;
        if let Some((count, partition, first)) = &page.foreign {
            let message =
                format!("replay of '{event_type}' left out {count} entries that this bus did not write, from {first} of {partition} on");
            self.host.lifecycle(vec![Lifecycle::debug(message)]);
        }
        Ok(page)
    }

    /// `EventExplanation` of an event with times as ms, or null, see [`explain::explain`].
    pub async fn explain(&self, event_type: &str, event_id: &str) -> Result<Value> {
        self.running()?;
        name::check_stream(event_type)?;
        explain::explain(&*self.store, event_type, event_id, seconds_to_ms(self.config.defaults.ttl_s)).await
    }
}

fn letter(letter: &StoredDeadLetter) -> Value {
    json!({
        "id": letter.id,
        "eventType": letter.event_type,
        "group": letter.group,
        "reason": letter.reason,
        "error": letter.error,
        "attempts": letter.attempts,
        "failedAt": letter.failed_at_ms,
        "meta": letter.meta,
        "data": letter.data,
    })
}

fn grade(connected: bool, metrics: &Value) -> &'static str {
    let number = |key: &str| metrics[key].as_f64().unwrap_or(0.0);
    if !connected {
        "unhealthy"
    } else if number("errorRate") > DEGRADED_ERROR_RATE || number("connectionPoolUtilization") > DEGRADED_UTILIZATION {
        "degraded"
    } else {
        "healthy"
    }
}

/// Says when the health changes.
async fn watch_health(store: Arc<dyn Store>, host: Arc<dyn Host>, metrics: Arc<Metrics>, every: Duration) {
    let mut before = "healthy";
    loop {
        tokio::time::sleep(every).await;
        let status = store.status().await;
        let now = grade(status.connected, &metrics.snapshot(status.utilization));
        if now != before {
            host.lifecycle(vec![Lifecycle(Kind::HealthChanged, json!({ "status": now, "previous": before }))]);
            before = now;
        }
    }
}
