//! A bus with handlers that a test plays.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ossa::engine::bus::Bus;
use ossa::engine::config::{CrossProject, resolve_bus};
use ossa::engine::consume::Verdict;
use ossa::engine::env::Env;
use ossa::engine::error::Result;
use ossa::engine::host::Delivery;
use ossa::engine::options::{NackOptions, SubscribeOptions};
use ossa::engine::settle::Failure;
use ossa::engine::store::memory::MemoryStore;
use ossa::engine::store::{DeadLetterQuery, PartitionState, Store};
use serde_json::{Value, json};

use super::faulty::{Faults, Faulty};
use super::host::{TestHost, host};

/// Milliseconds.
pub fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// Lets everything go on that can, on a paused clock.
pub async fn idle() {
    tokio::time::sleep(ms(1)).await;
}

/// An error of a handler.
pub fn failed(error: &str) -> Verdict {
    Verdict::Failed(Failure::Error(error.into()))
}

/// The handler ran out of time.
pub fn timed_out() -> Verdict {
    Verdict::Failed(Failure::TimedOut("too slow".into()))
}

/// `nack({ delayMs })`.
pub fn nack(delay_ms: u64) -> Verdict {
    Verdict::Failed(Failure::Nack(NackOptions { delay_ms: Some(delay_ms), ..NackOptions::default() }))
}

/// The data of a delivery.
pub fn data(delivery: &Delivery) -> &str {
    delivery.text.data.trim_matches('"')
}

/// Buses over one memory store and one clock.
pub struct Place {
    env: Env,
    name: String,
}

impl Place {
    /// Empty.
    pub fn new(seed: u64) -> Self {
        // Names are shared by the tests of a process, the seeded ids are not unique there.
        let name = Env::system().new_id().to_string();
        Self { env: Env::seeded(seed), name }
    }

    /// Its clock, ids and randomness.
    pub fn env(&self) -> Env {
        self.env.clone()
    }

    /// One more user of the store.
    pub fn store(&self) -> Arc<MemoryStore> {
        MemoryStore::named(&self.name, "test", self.env.clone())
    }

    /// A bus with the configuration.
    pub async fn bus_with(&self, config: Value) -> TestBus {
        TestBus::connect(self.store(), self.env.clone(), config).await
    }

    /// A bus.
    pub async fn bus(&self) -> TestBus {
        self.bus_with(json!({})).await
    }

    /// A bus whose store fails as told.
    pub async fn faulty_bus(&self) -> (TestBus, Arc<Faults>) {
        self.faulty_bus_with(json!({})).await
    }

    /// The same with a configuration.
    pub async fn faulty_bus_with(&self, config: Value) -> (TestBus, Arc<Faults>) {
        let (store, faults) = Faulty::over(self.store());
        (TestBus::connect(store, self.env.clone(), config).await, faults)
    }
}

/// A connected bus.
pub struct TestBus {
    /// The bus.
    pub bus: Arc<Bus>,
    /// Its handlers.
    pub host: Arc<TestHost>,
    /// Its store.
    pub store: Arc<dyn Store>,
    next: AtomicU32,
}

impl TestBus {
    /// Over a store.
    pub async fn connect(store: Arc<dyn Store>, env: Env, config: Value) -> Self {
        Self::connect_with(store, env, config, None).await
    }

    /// The same, with messages between projects where they are configured.
    pub async fn connect_with(store: Arc<dyn Store>, env: Env, config: Value, cross_project: Option<CrossProject>) -> Self {
        let mut config = config;
        config["redis"] = json!({ "url": "memory://" });
        // Exact unless a test is about it.
        if config["defaults"]["retry"].is_null() {
            config["defaults"]["retry"] = json!({ "jitter": "none" });
        }
        let config = resolve_bus(&config, &|_| None).expect("a right configuration");
        let host = host();
        let bus = Bus::with_store(config, cross_project, store.clone(), host.clone(), env);
        bus.connect().await.expect("connected");
        Self { bus, host, store, next: AtomicU32::new(1) }
    }

    /// One that nothing else of this bus has.
    pub fn number(&self) -> u32 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Subscribes; must succeed.
    pub async fn subscribe(&self, pattern: &str, options: Value) -> u32 {
        let (id, result) = self.try_subscribe(pattern, options).await;
        result.expect("subscribed");
        id
    }

    /// Subscribes.
    pub async fn try_subscribe(&self, pattern: &str, options: Value) -> (u32, Result<(String, String)>) {
        let id = self.number();
        let options = SubscribeOptions::read(options).expect("right options");
        (id, self.bus.subscribe(id, pattern, options).await)
    }

    /// Publishes text; must succeed. Answers the event's id.
    pub async fn publish(&self, event_type: &str, text: &str) -> String {
        self.publish_with(event_type, text, &json!({})).await
    }

    /// Publishes text with options.
    pub async fn publish_with(&self, event_type: &str, text: &str, options: &Value) -> String {
        let token = self.number();
        self.bus.publish(token, format!("{event_type}\t{options}\t\"{text}\"\n"));
        self.host.result(token).await.expect("published")
    }

    /// Publishes `count` events with the data 0, 1, ….
    pub async fn publish_many(&self, event_type: &str, count: u32) {
        let first = self.next.fetch_add(count, Ordering::Relaxed);
        let records: Vec<String> = (0..count).map(|n| format!("{event_type}\t\t\"{n}\"\n")).collect();
        self.bus.publish(first, records.concat());
        for n in 0..count {
            self.host.result(first + n).await.expect("published");
        }
    }

    /// Ends one delivery.
    pub fn settle(&self, delivery: &Delivery, verdict: Verdict) {
        self.bus.settle(vec![(delivery.token, verdict)], 0);
    }

    /// The handler succeeded.
    pub fn done(&self, delivery: &Delivery) {
        self.settle(delivery, Verdict::Done);
    }

    /// The handlers succeeded.
    pub fn all_done(&self, deliveries: &[Delivery]) {
        self.bus.settle(deliveries.iter().map(|delivery| (delivery.token, Verdict::Done)).collect(), 0);
    }

    /// Handlers that each take their time from `handle`, and its verdict. They live as long as the test.
    pub fn handle(&self, handle: impl Fn(&Delivery) -> (Duration, Verdict) + Send + 'static) {
        let (sender, mut deliveries) = tokio::sync::mpsc::unbounded_channel();
        self.host.hand_to(sender);
        let bus = self.bus.clone();
        tokio::spawn(async move {
            while let Some(delivery) = deliveries.recv().await {
                let ((time, verdict), bus) = (handle(&delivery), bus.clone());
                tokio::spawn(async move {
                    tokio::time::sleep(time).await;
                    bus.settle(vec![(delivery.token, verdict)], 0);
                });
            }
        });
    }

    /// Events in flight.
    pub fn in_flight(&self) -> u64 {
        self.bus.metrics()["eventsInFlight"].as_u64().expect("a number")
    }

    /// Dead letters: data and reason.
    pub async fn dead_letters(&self) -> Vec<(String, String)> {
        let (letters, _) = self.store.dead_letters(&DeadLetterQuery::default(), 100_000, None).await.expect("listed");
        letters.into_iter().map(|letter| (letter.data.trim_matches('"').to_owned(), letter.reason)).collect()
    }

    /// The partition of a type.
    pub async fn partition(&self, event_type: &str) -> PartitionState {
        super::events::inspect(&self.store, &super::events::partition(event_type)).await
    }

    /// Pending in the group.
    pub async fn pending(&self, event_type: &str, group: &str) -> u64 {
        super::events::group_state(&self.store, &super::events::partition(event_type), group).await.0
    }

    /// Disconnects with time for the handlers.
    pub async fn disconnect(&self, drain: Duration) {
        self.bus.disconnect(drain).await;
    }
}

/// Acknowledges all; answers what was seen.
pub fn handle_all(bus: &TestBus) -> Arc<Mutex<HashSet<String>>> {
    let seen: Arc<Mutex<HashSet<String>>> = Arc::default();
    let seeing = seen.clone();
    bus.handle(move |delivery| {
        seeing.lock().expect("no panic under the lock").insert(data(delivery).to_owned());
        (ms(0), Verdict::Done)
    });
    seen
}
