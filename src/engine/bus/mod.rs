//! One bus: its parts put together, its life from connect to disconnect. How it is, and what it did: [`watching`].

mod watching;

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use serde_json::{Value, json};

use super::alarms::Alarms;
use super::config::{Address, BusConfig, CrossProject, LoadBalancing, TraceExport};
use super::consume::{Command, ConsumeSettings, Consumer, Verdict, Verdicts};
use super::env::{Env, lock};
use super::error::{Code, Error, Result};
use super::event::seconds_to_ms;
use super::explain;
use super::health::{self, Health, Reading};
use super::history::{self, Page, Period};
use super::host::{self, Host, Kind, Lifecycle, Token};
use super::inside::Switch;
use super::integration::{self, Integration};
use super::keeper::Keeper;
use super::log::Log;
use super::metrics::Metrics;
use super::monitoring::{self, Monitoring};
use super::name;
use super::opening;
use super::options::SubscribeOptions;
use super::orchestration::{self, Orchestration};
use super::projects::Projects;
use super::publish::{Beside, PublishSettings, Publisher};
use super::store::{DeadLetterQuery, Loss, Store, StoreEvent, StoredDeadLetter};
use super::streams;
use super::trace::{Server, TraceCounts, Tracer};
use super::vitals::LastVitals;

/// Drain time unless given.
pub const DRAIN_DEFAULT: Duration = Duration::from_secs(10);
/// Time for what is left to do after handlers were drained: announcing, closing connections.
const CLOSE_MAX: Duration = Duration::from_secs(2);
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
    /// Work with a service registry, where there is one.
    integration: std::sync::OnceLock<Integration>,
    /// Its part in the orchestration of agents, where that is on.
    orchestration: Option<Orchestration>,
    /// Its figures over time and its alerts, where they are on.
    monitoring: Option<Monitoring>,
    _keeper: Keeper,
    health: Vec<tokio::task::JoinHandle<()>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.health.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

/// Who hears what the store tells, once they are there. Weak: the store holds on to its listener, and the consumer to the store.
#[derive(Default)]
struct Parts {
    consumer: Mutex<Weak<Consumer>>,
    projects: Mutex<Weak<Projects>>,
    running: Mutex<Weak<Running>>,
}

/// An event bus.
pub struct Bus {
    config: BusConfig,
    /// Messages between projects, where they are on.
    cross_project: Option<CrossProject>,
    /// The service registry that it works with, and how.
    services: Mutex<Option<integration::Settings>>,
    /// How agents are orchestrated, where they are.
    orchestrating: Mutex<Option<orchestration::Settings>>,
    /// What is monitored, where it is.
    monitored: Mutex<Option<monitoring::Settings>>,
    vitals: Arc<LastVitals>,
    /// All groups, as last looked at, and until when that holds.
    groups: tokio::sync::Mutex<Option<(tokio::time::Instant, Value)>>,
    checks: Arc<health::History>,
    /// Where spans go, where they are made.
    tracing: Mutex<Option<TraceExport>>,
    /// Outlives `running`, for its counts.
    tracer: Mutex<Tracer>,
    store: Arc<dyn Store>,
    host: Arc<dyn Host>,
    /// The same, for subscriptions of the engine's own.
    switch: Arc<Switch>,
    env: Env,
    metrics: Arc<Metrics>,
    state: AtomicU8,
    running: Mutex<Option<Arc<Running>>>,
    /// Outlives `running` while handlers finish.
    consumer: Mutex<Option<Arc<Consumer>>>,
    connecting: tokio::sync::Mutex<()>,
}

impl Drop for Bus {
    fn drop(&mut self) {
        // What reads for the engine holds on to it until nothing more comes.
        self.switch.close();
    }
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
        let env = host::logging(env, &host, config.log.level);
        let store = opening::open_bus(&config, &env)?;
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
        let env = host::logging(env, &host, config.log.level);
        let switch = Arc::new(Switch::before(host));
        Arc::new(Self {
            services: Mutex::default(),
            orchestrating: Mutex::default(),
            monitored: Mutex::default(),
            vitals: Arc::default(),
            groups: tokio::sync::Mutex::default(),
            checks: Arc::default(),
            tracing: Mutex::default(),
            tracer: Mutex::default(),
            cross_project: cross_project.filter(|cross_project| cross_project.enabled),
            metrics: Arc::new(Metrics::new(env.clone())),
            config,
            store,
            host: switch.clone(),
            switch,
            env,
            state: AtomicU8::new(NEW),
            running: Mutex::default(),
            consumer: Mutex::default(),
            connecting: tokio::sync::Mutex::default(),
        })
    }

    /// Where what it says goes. Whoever calls it does so along with this.
    pub fn log(&self) -> &Log {
        self.env.log()
    }

    /// Connects; idempotent. After a failure to reach a server it may be called again; after [`Bus::disconnect`], and where work with the
    /// service registry could not begin though it was reached, it is `ERR_CLOSED`.
    pub async fn connect(&self) -> Result<()> {
        let _one = self.connecting.lock().await;
        match self.state.load(Ordering::Acquire) {
            CONNECTED => return Ok(()),
            CLOSED => return Err(Error::new(Code::Closed, "the bus was disconnected; make a new one")),
            _ => {}
        }
        let settings = lock(&self.services).clone();
        if let Some(settings) = &settings {
            // First, so that it can be tried again.
            integration::open(settings).await?;
        }
        self.start().await?;
        if let Some(settings) = settings
            && let Err(error) = self.integrate(settings).await
        {
            self.end(Duration::ZERO).await;
            return Err(error);
        }
        tracing::info!(redis = self.config.redis.shown(), keyPrefix = self.config.redis.key_prefix, "connected");
        Ok(())
    }

    /// From the next [`Bus::connect`] on it works with a service registry.
    pub fn with_services(&self, settings: integration::Settings) {
        *lock(&self.services) = Some(settings);
    }

    /// From the next [`Bus::connect`] on it takes part in the orchestration of agents.
    pub fn with_orchestration(&self, config: LoadBalancing) {
        let payload_bytes_max = self.config.limits.max_payload_bytes;
        *lock(&self.orchestrating) = Some(orchestration::Settings { config, payload_bytes_max });
    }

    /// From the next [`Bus::connect`] on it makes spans, where an endpoint is configured and `monitoring.tracing` of the bus is on.
    ///
    /// # Errors
    /// `ERR_INVALID_CONFIG` where an endpoint cannot be used.
    pub fn with_tracing(&self, config: TraceExport) -> Result<()> {
        if self.config.monitoring.tracing.enabled {
            Tracer::check(&config)?;
            *lock(&self.tracing) = Some(config);
        }
        Ok(())
    }

    /// What became of spans, also after [`Bus::disconnect`]; `None`: none are made.
    pub fn trace_counts(&self) -> Option<TraceCounts> {
        lock(&self.tracer).counts()
    }

    /// Makes spans from now on, where that was asked for.
    fn start_tracing(&self) -> Result<Tracer> {
        let Some(config) = lock(&self.tracing).clone() else { return Ok(Tracer::default()) };
        let server = match &self.config.redis.address {
            Address::Single { host, port } => Some(Server { address: host.clone(), port: Some(*port) }),
            Address::Socket { path } => Some(Server { address: path.clone(), port: None }),
            // None, or several of which any may serve an event.
            Address::Memory { .. } | Address::Cluster { .. } | Address::Sentinel { .. } => None,
        };
        let tracer = Tracer::start(&config, server, &self.host, &self.env)?;
        *lock(&self.tracer) = tracer.clone();
        Ok(tracer)
    }

    /// Answers by its part in the orchestration of agents. `ERR_DISABLED` without one.
    fn orchestration_of(running: &Running) -> Result<&Orchestration> {
        let off = || Error::new(Code::Disabled, "the orchestration of agents is switched off (orchestration.enabled)");
        running.orchestration.as_ref().ok_or_else(off)
    }

    /// `AgentView[]`, `PoolView[]` or `OrchestrationStats` as JSON text, by what is known here.
    pub fn orchestration(&self, what: &str) -> Result<String> {
        let running = self.running()?;
        let orchestration = Self::orchestration_of(&running)?;
        match what {
            "agents" => Ok(orchestration.agents()),
            "pools" => Ok(orchestration.pools()),
            "stats" => Ok(orchestration.stats()),
            _ => Err(Error::internal(format!("'{what}' is not known of an orchestration"))),
        }
    }

    /// `TaskView` with times as ms, or null.
    pub async fn task(&self, id: &str) -> Result<Value> {
        let running = self.running()?;
        Self::orchestration_of(&running)?.task(id).await
    }

    /// Reads the inbox of the bus, for letters to agents. Its name.
    pub fn listen_for_agents(&self) -> Result<String> {
        self.running()?.publisher.listen()
    }

    async fn integrate(&self, settings: integration::Settings) -> Result<()> {
        let running = self.running()?;
        let look = self.look_at_health();
        let problem = move || {
            let (health, reading) = look(true);
            (health != Health::Healthy).then(|| {
                let Reading { error_rate_percent, utilization_percent, .. } = reading;
                format!("{error_rate_percent:.1} % of deliveries fail, {utilization_percent:.1} % of the connections are in use")
            })
        };
        let beside = integration::Beside {
            store: self.store.clone(),
            host: self.host.clone(),
            env: self.env.clone(),
            switch: self.switch.clone(),
            publisher: Arc::downgrade(&running.publisher),
            projects: running.projects.clone(),
            endpoint: self.config.redis.shown(),
            problem: Box::new(problem),
        };
        let integration = Integration::start(settings, beside).await?;
        let _ = running.integration.set(integration);
        Ok(())
    }

    /// Work with a service registry. `ERR_DISABLED` without one.
    pub async fn services_status(&self) -> Result<Value> {
        let running = self.running()?;
        Ok(Self::integration_of(&running)?.status().await)
    }

    /// Asks services for their contracts now: one, or all.
    pub async fn discover_contracts(&self, service: Option<&str>) -> Result<Value> {
        let running = self.running()?;
        if running.projects.is_none() {
            let off = "contracts are for messages between projects, which are switched off (crossProject.enabled)";
            return Err(Error::new(Code::Disabled, off));
        }
        Self::integration_of(&running)?.discover_contracts(service).await
    }

    fn integration_of(running: &Running) -> Result<&Integration> {
        let none = "there is no service registry: pass one to the constructor, and leave serviceRegistry.enabled on";
        running.integration.get().ok_or_else(|| Error::new(Code::Disabled, none))
    }

    /// Tells the parts what the store tells.
    fn listen_to_store(&self, parts: &Arc<Parts>) {
        let (host, metrics, parts) = (self.host.clone(), self.metrics.clone(), parts.clone());
        self.store.watch(Arc::new(move |event| {
            let reading = || lock(&parts.consumer).upgrade();
            let tell = |command| {
                if let Some(consumer) = reading() {
                    consumer.tell(command);
                }
            };
            let look = |anew| {
                let running = lock(&parts.running).upgrade();
                if let Some(orchestration) = running.as_ref().and_then(|running| running.orchestration.as_ref()) {
                    orchestration.look(anew);
                }
            };
            match event {
                StoreEvent::ConnectionLost(reason) => {
                    metrics.connected.store(false, Ordering::Relaxed);
                    host.lifecycle(vec![Lifecycle(Kind::ConnectionLost, json!({ "error": reason }))]);
                }
                StoreEvent::ConnectionRestored => {
                    metrics.connected.store(true, Ordering::Relaxed);
                    metrics.reconnects.fetch_add(1, Ordering::Relaxed);
                    host.lifecycle(vec![Lifecycle(Kind::ConnectionRestored, json!({}))]);
                    tell(Command::Reconnected);
                    look(true);
                }
                StoreEvent::TopologyChanged => tell(Command::TopologyChanged),
                StoreEvent::DocumentsChanged => {
                    if let Some(projects) = lock(&parts.projects).upgrade() {
                        projects.look();
                    }
                }
                // The bus keeps no register of its own.
                StoreEvent::ServicesChanged => {}
                StoreEvent::BoardChanged => look(false),
                StoreEvent::DataLoss(losses) => {
                    metrics.lost.fetch_add(losses.iter().map(|loss| loss.events).sum(), Ordering::Relaxed);
                    host.lifecycle(losses.iter().map(published_loss).collect());
                }
                StoreEvent::Transient(event) => {
                    if let Some(consumer) = reading() {
                        consumer.cast(event);
                    }
                }
            }
        }));
    }

    async fn start(&self) -> Result<()> {
        let parts = Arc::<Parts>::default();
        self.listen_to_store(&parts);
        self.store.open().await?;
        self.metrics.connected.store(true, Ordering::Relaxed);
        let tracer = self.start_tracing()?;
        let alarms = Arc::new(Alarms::default());
        let (store, host, env, metrics) = (self.store.clone(), self.host.clone(), self.env.clone(), self.metrics.clone());
        let projects = match &self.cross_project {
            Some(cross) => Some(Arc::new(Projects::start(&self.config, cross, store.clone(), host.clone(), env.clone(), tracer.clone())?)),
            None => None,
        };
        let beside =
            Beside { metrics: metrics.clone(), alarms: alarms.clone(), courier: projects.as_ref().map(|projects| projects.courier()) };
        let publishing = PublishSettings { tracer: tracer.clone(), ..(&self.config).into() };
        let publisher = Arc::new(Publisher::start(publishing, store.clone(), host.clone(), env.clone(), beside));
        let gate = projects.as_ref().map(|projects| projects.gate());
        let consuming = ConsumeSettings { tracer, ..(&self.config).into() };
        let consumer = Arc::new(Consumer::start(consuming, store.clone(), host.clone(), env.clone(), metrics.clone(), gate));
        self.switch.subscribe_by(&consumer);
        if let Some(projects) = &projects {
            projects.speak_by(&publisher);
            *lock(&parts.projects) = Arc::downgrade(projects);
            // Also what was announced before anybody heard it here. Known to all who ask from now on, if it can be had.
            projects.read().await;
        }
        *lock(&parts.consumer) = Arc::downgrade(&consumer);
        *lock(&self.consumer) = Some(consumer.clone());
        let keeper = Keeper::start(&(&self.config).into(), store, host, &env, metrics, &consumer, alarms);
        let health = self.watch_health(&consumer);
        let monitoring = lock(&self.monitored).clone().filter(watching::collects).map(|settings| {
            let beside = monitoring::Beside {
                store: self.store.clone(),
                host: self.host.clone(),
                env: self.env.clone(),
                metrics: self.metrics.clone(),
                vitals: self.vitals.clone(),
                consumer: Arc::downgrade(&consumer),
                publisher: Arc::downgrade(&publisher),
            };
            Monitoring::start(settings, beside)
        });
        let monitoring = monitoring.transpose()?;
        let orchestration = lock(&self.orchestrating).clone().map(|settings| {
            let beside = orchestration::Beside {
                store: self.store.clone(),
                host: self.host.clone(),
                env: self.env.clone(),
                switch: self.switch.clone(),
                publisher: Arc::downgrade(&publisher),
            };
            Orchestration::start(&settings, beside)
        });
        let running = Arc::new(Running {
            publisher,
            consumer,
            projects,
            integration: std::sync::OnceLock::new(),
            orchestration,
            monitoring,
            _keeper: keeper,
            health,
        });
        *lock(&parts.running) = Arc::downgrade(&running);
        *lock(&self.running) = Some(running);
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
        self.end(drain).await;
    }

    async fn end(&self, drain: Duration) {
        self.state.store(CLOSED, Ordering::Release);
        let Some(running) = lock(&self.running).clone() else { return };
        if let Some(integration) = running.integration.get() {
            integration.stop();
        }
        if let Some(orchestration) = &running.orchestration {
            orchestration.close(CLOSE_MAX).await;
        }
        // Handlers that finish may still publish.
        running.consumer.stop(drain).await;
        self.switch.close();
        if let Some(integration) = running.integration.get() {
            integration.close(CLOSE_MAX).await;
        }
        running.publisher.stop_asking();
        lock(&self.running).take();
        lock(&self.consumer).take();
        running.publisher.say("system.shutdown", &self.shutdown_notice());
        running.publisher.close(CLOSE_MAX).await;
        if let Some(monitoring) = &running.monitoring {
            monitoring.close(CLOSE_MAX).await;
        }
        if let Some(projects) = &running.projects {
            projects.close(CLOSE_MAX).await;
        }
        let tracer = lock(&self.tracer).clone();
        tracer.close(CLOSE_MAX).await;
        drop(running);
        self.store.close(CLOSE_MAX).await;
        tracing::info!("disconnected");
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
        self.settle_all(verdicts.into(), confirm);
    }

    /// The same for what is sorted already.
    pub fn settle_all(&self, verdicts: Verdicts, confirm: u32) {
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
            tracing::debug!(
                "replay of '{event_type}' left out {count} entries that this bus did not write, from {first} of {partition} on"
            );
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
