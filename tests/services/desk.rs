//! Registries, and buses that work with them, in few words.

use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use ossa::engine::bus::Bus;
use ossa::engine::config::{CrossProject, RegistryConfig, resolve_bus, resolve_ossa, resolve_registry};
use ossa::engine::env::Env;
use ossa::engine::error::Result;
use ossa::engine::host::Kind;
use ossa::engine::integration::Settings;
use ossa::engine::integration::reporting::Limits;
use ossa::engine::services::Registry;
use ossa::engine::store::Store;
use serde_json::{Value, json};

use crate::support::faulty::{Faults, Faulty};
use crate::support::harness::Place;
use crate::support::host::{TestHost, host};
use crate::support::wait;

/// Longest wait for anything, of real time.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// A registry and what it told.
pub struct Desk {
    pub registry: Arc<Registry>,
    pub host: Arc<TestHost>,
    pub store: Arc<dyn Store>,
}

/// A configuration of a registry.
pub fn config(with: &Value) -> RegistryConfig {
    let mut config = with.clone();
    config["redis"] = json!({ "url": "memory://" });
    resolve_registry(&config, &|_| None).expect("a right configuration")
}

/// One over a store.
pub fn desk_over(store: Arc<dyn Store>, env: Env, with: &Value) -> Desk {
    let host = host();
    let registry = Registry::with_store(&config(with), store.clone(), host.clone(), env).expect("made");
    Desk { registry, host, store }
}

/// What registers a service.
pub fn service(name: &str) -> Value {
    service_at(name, "http://127.0.0.1:1")
}

/// The same, at an endpoint.
pub fn service_at(name: &str, endpoint: &str) -> Value {
    json!({ "name": name, "endpoint": endpoint, "version": "1.0.0", "capabilities": [] })
}

/// The same, for events.
pub fn service_for(name: &str, endpoint: &str, events: &[&str]) -> Value {
    let mut service = service_at(name, endpoint);
    service["capabilities"] = json!([{ "name": "work", "version": "1.0.0", "inputs": { "events": events } }]);
    service
}

impl Place {
    /// A registry over its store.
    pub fn desk(&self) -> Desk {
        self.desk_with(&json!({}))
    }

    /// The same, with a configuration.
    pub fn desk_with(&self, with: &Value) -> Desk {
        desk_over(self.store(), self.env(), with)
    }

    /// One whose store fails as told.
    pub fn faulty_desk(&self) -> (Desk, Arc<Faults>) {
        self.faulty_desk_with(&json!({}))
    }

    /// The same, with a configuration.
    pub fn faulty_desk_with(&self, with: &Value) -> (Desk, Arc<Faults>) {
        let (store, faults) = Faulty::over(self.store());
        (desk_over(store, self.env(), with), faults)
    }
}

impl Desk {
    /// Must succeed.
    pub async fn register(&self, name: &str) {
        self.register_as(service(name)).await;
    }

    /// Must succeed.
    pub async fn register_as(&self, service: Value) {
        self.registry.register(service).await.expect("registered");
    }

    /// What is listed: names and versions.
    pub async fn listed(&self) -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().expect("text").to_owned();
        let all = self.registry.discover(Value::Null).await.expect("discovered");
        all.iter().map(|service| (text(&service["name"]), text(&service["version"]))).collect()
    }

    /// Names of what is listed.
    pub async fn names(&self) -> Vec<String> {
        self.listed().await.into_iter().map(|(name, _)| name).collect()
    }

    /// How a service is, as it was known last.
    pub fn status_of(&self, name: &str) -> Option<String> {
        self.registry.view().get(name).map(|service| service.health.status().as_str().to_owned())
    }

    /// How often something was told of a name.
    pub fn told(&self, kind: Kind, name: &str) -> usize {
        self.host.said(kind).iter().filter(|said| said["name"] == name).count()
    }

    /// What was told of services, in order, in short.
    pub fn story(&self) -> Vec<String> {
        let of = |(kind, about): &(Kind, Value)| {
            let (name, version) = (about["name"].as_str().unwrap_or_default(), about["version"].as_str().unwrap_or_default());
            match kind {
                Kind::ServiceRegistered => Some(format!("+{name} {version}")),
                Kind::ServiceUpdated => Some(format!("~{name} {version}")),
                Kind::ServiceUnregistered => Some(format!("-{name}")),
                Kind::ServiceExpired => Some(format!("!{name}")),
                Kind::ServiceHealthChanged => Some(format!(
                    "{name}: {} -> {}",
                    about["oldStatus"].as_str().unwrap_or("?"),
                    about["newStatus"].as_str().unwrap_or("?")
                )),
                _ => None,
            }
        };
        self.host.all_said().iter().filter_map(of).collect()
    }

    /// Log lines with this text.
    pub fn logged(&self, text: &str) -> usize {
        logged(&self.host, text)
    }
}

/// Log lines with this text.
pub fn logged(host: &TestHost, text: &str) -> usize {
    host.said(Kind::Log).iter().filter(|said| said["message"].as_str().is_some_and(|message| message.contains(text))).count()
}

/// A bus that works with a registry, not connected yet.
pub fn bus_with(registry: &Desk, store: Arc<dyn Store>, env: Env, services: &Value, projects: bool) -> (Arc<Bus>, Arc<TestHost>) {
    let mut config = json!({ "redis": { "url": "memory://" }, "defaults": { "retry": { "jitter": "none" } } });
    if let Some(retry) = services.get("retry") {
        config["defaults"]["retry"] = retry.clone();
    }
    let mut own = services.clone();
    own.as_object_mut().expect("an object").remove("retry");
    let integration = resolve_ossa(&json!({ "eventBus": config, "serviceRegistry": own }), &|_| None).expect("right").service_registry;
    let config = resolve_bus(&config, &|_| None).expect("a right configuration");
    let host = host();
    let cross = projects.then(|| CrossProject::from_resolved(&json!({ "crossProject": {} })).expect("right"));
    let bus = Bus::with_store(config, cross, store, host.clone(), env);
    let limits = Limits { error_rate: 5.0, response_ms: 1000.0, memory: 85.0 };
    bus.with_services(Settings { registry: registry.registry.clone(), config: integration, limits });
    (bus, host)
}

/// Publishes; must succeed.
pub async fn publish(bus: &Bus, host: &TestHost, token: u32, event_type: &str, data: &Value) -> Result<String> {
    bus.publish(token, format!("{event_type}\t\t{data}\n"));
    host.result(token).await
}

/// While it lives, a paused clock moves by [`turn`] alone, and not because everybody waits for a connection.
pub struct Still(#[allow(dead_code)] mpsc::Sender<()>); // held, not used

impl Still {
    pub fn new() -> Self {
        let (held, waits) = mpsc::channel::<()>();
        // tokio does not advance a paused clock by itself while something blocks.
        tokio::task::spawn_blocking(move || waits.recv());
        Self(held)
    }
}

/// Lets connections go on while the clock stands still.
pub async fn breathe() {
    tokio::task::spawn_blocking(|| std::thread::sleep(Duration::from_millis(1))).await.expect("it only sleeps");
}

/// Turns the clock in steps, with connections going on between them, until something is so.
pub async fn turn_until(what: &str, step: Duration, mut is: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !is().await {
        assert!(start.elapsed() < WAIT_MAX, "still not so: {what}");
        tokio::time::advance(step).await;
        breathe().await;
        breathe().await;
    }
}

/// Does something that may wait for the clock, which is turned meanwhile.
pub async fn turning<T>(what: impl Future<Output = T>) -> T {
    let clock = async {
        loop {
            turn(Duration::from_millis(10), Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        done = what => done,
        () = clock => unreachable!("it is turned for ever"),
    }
}

/// Turns the clock by so much in steps.
pub async fn turn(time: Duration, step: Duration) {
    let mut turned = Duration::ZERO;
    while turned < time {
        tokio::time::advance(step).await;
        turned += step;
        breathe().await;
        breathe().await;
    }
}

/// By the real clock.
pub async fn until(what: &str, condition: impl AsyncFnMut() -> bool) {
    wait::until(what, condition).await;
}
