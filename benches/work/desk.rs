//! A bus over the memory store in one thread, and a host whose handlers do nothing but count.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use ossa::engine::bus::Bus;
use ossa::engine::config::{BusConfig, CrossProject};
use ossa::engine::consume::Verdict;
use ossa::engine::env::Env;
use ossa::engine::error::{Error, Result};
use ossa::engine::host::{Delivery, Host, Kind, Lifecycle, Token};
use ossa::engine::options::SubscribeOptions;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::sync::Notify;

use super::{EVENT_TYPE, data};

/// Records that cross in one call.
pub const RECORDS: usize = 1_000;

/// Counts, and acknowledges what it is given.
#[derive(Default)]
struct Counter {
    bus: OnceLock<Weak<Bus>>,
    published: AtomicUsize,
    handled: AtomicUsize,
    /// How many are to be published, or handled.
    wanted: AtomicUsize,
    reached: Notify,
}

impl Host for Counter {
    fn published(&self, results: Vec<(Token, Result<Arc<str>>)>) {
        if let Some((_, Err(error))) = results.iter().find(|(_, result)| result.is_err()) {
            panic!("an event was not published: {error}");
        }
        let before = self.published.fetch_add(results.len(), Ordering::Relaxed);
        if before + results.len() == self.wanted.load(Ordering::Relaxed) {
            self.reached.notify_one();
        }
    }

    fn deliver(&self, batch: Vec<Delivery>) {
        let handled = self.handled.fetch_add(batch.len(), Ordering::Relaxed) + batch.len();
        let bus = self.bus.get().and_then(Weak::upgrade).expect("the bus is there while it delivers");
        // The last ones are waited for until they are settled in the store.
        let confirm = u32::from(handled == self.wanted.load(Ordering::Relaxed));
        bus.settle(batch.iter().map(|delivery| (delivery.token, Verdict::Done)).collect(), confirm);
    }

    fn settled(&self, confirmations: Vec<(u32, Option<Error>)>) {
        if let Some((_, Some(error))) = confirmations.first() {
            panic!("an event was not settled: {error}");
        }
        self.reached.notify_one();
    }

    fn lifecycle(&self, events: Vec<Lifecycle>) {
        if let Some(Lifecycle(_, about)) = events.iter().find(|event| event.0 == Kind::Error) {
            panic!("something failed: {about}");
        }
    }

    // As where a program listens to nothing.
    fn listens(&self, kind: Kind) -> bool {
        !matches!(kind, Kind::Published | Kind::Consumed | Kind::Failed | Kind::Retried)
    }

    fn silent_for(&self) -> Duration {
        Duration::ZERO
    }
}

/// The bus.
pub struct Desk {
    runtime: Runtime,
    bus: Arc<Bus>,
    host: Arc<Counter>,
    next_token: Token,
    next_subscription: u32,
}

/// Records of a publish, as they cross: so many calls with [`RECORDS`] each.
pub fn records(calls: usize) -> Vec<String> {
    records_with("", calls)
}

/// The same of messages between the projects of [`Desk::between_projects`].
pub fn messages(calls: usize) -> Vec<String> {
    records_with(&format!("@{}", json!({ "source": "shop", "target": "billing" })), calls)
}

fn records_with(options: &str, calls: usize) -> Vec<String> {
    let call = |call: usize| {
        (call * RECORDS..(call + 1) * RECORDS).fold(String::new(), |mut text, number| {
            let _ = writeln!(text, "{EVENT_TYPE}\t{options}\t{}", data(number));
            text
        })
    };
    (0..calls).map(call).collect()
}

impl Desk {
    /// On the system's clock.
    pub fn open() -> Self {
        Self::connect(false, None)
    }

    /// On a clock that stands while there is work, with everything that is random from a seed: what the engine does is the same each time.
    pub fn repeatable() -> Self {
        Self::connect(true, None)
    }

    /// With two projects, of which one sends to the other, signed, by a contract and within a rate.
    pub fn between_projects() -> Self {
        let cross = CrossProject::from_resolved(&json!({ "crossProject": {} })).expect("a right configuration");
        let desk = Self::connect(false, Some(cross));
        desk.runtime.block_on(async {
            let projects = desk.bus.projects().expect("they are on");
            for id in ["shop", "billing"] {
                projects.register(project(id)).await.expect("registered");
            }
            projects.register_contract(contract()).await.expect("registered");
        });
        desk
    }

    fn connect(repeatable: bool, cross_project: Option<CrossProject>) -> Self {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_time().start_paused(repeatable).build().expect("a runtime");
        let host = Arc::<Counter>::default();
        let config = BusConfig::from_resolved(&json!({ "redis": { "url": "memory://" } })).expect("a right configuration");
        let bus = runtime.block_on(async {
            let env = if repeatable { Env::seeded(1) } else { Env::system() };
            let bus = Bus::new(config, cross_project, host.clone(), env).expect("memory needs nothing");
            host.bus.set(Arc::downgrade(&bus)).expect("set once");
            bus.connect().await.expect("memory opens");
            bus
        });
        Self { runtime, bus, host, next_token: 1, next_subscription: 1 }
    }

    /// Publishes records; returns when all are in the store.
    pub fn publish(&mut self, calls: Vec<String>) {
        let (bus, host, token) = (&self.bus, &self.host, &mut self.next_token);
        self.runtime.block_on(async {
            for records in calls {
                host.wanted.store(host.published.load(Ordering::Relaxed) + RECORDS, Ordering::Relaxed);
                bus.publish(*token, records);
                *token += u32::try_from(RECORDS).expect("few");
                host.reached.notified().await;
            }
        });
    }

    /// Subscribes; returns when so many events more were handled, and are settled in the store.
    pub fn consume(&mut self, events: usize) {
        let (bus, host, id) = (&self.bus, &self.host, self.next_subscription);
        self.runtime.block_on(async {
            host.wanted.store(host.handled.load(Ordering::Relaxed) + events, Ordering::Relaxed);
            let options = SubscribeOptions::read(json!({ "startFrom": "beginning" })).expect("right options");
            bus.subscribe(id, EVENT_TYPE, options).await.expect("subscribed");
            host.reached.notified().await;
        });
    }

    /// Ends the subscription; its group stays.
    pub fn unsubscribe(&mut self) {
        let (bus, id) = (&self.bus, self.next_subscription);
        self.runtime.block_on(bus.unsubscribe(id, Duration::ZERO)).expect("unsubscribed");
        self.next_subscription += 1;
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        self.runtime.block_on(self.bus.disconnect(Duration::ZERO));
    }
}

/// A project that may do anything, at a rate that nothing reaches here.
fn project(id: &str) -> Value {
    json!({
        "projectId": id, "name": id, "namespace": "bench", "allowedEventTypes": ["**"], "allowedTargets": ["*"],
        "credentials": { "apiKey": format!("key of {id}"), "secret": format!("the secret of project {id}") },
        "rateLimiting": { "eventsPerSecond": 1_000_000, "burstLimit": 1_000_000 },
    })
}

/// What data has to be.
pub fn contract() -> Value {
    json!({
        "name": "orders", "version": "1.0.0", "sourceProject": "shop", "targetProjects": ["*"], "eventTypes": ["order.*"],
        "schema": {
            "type": "object", "required": ["userId", "email", "number"],
            "properties": {
                "userId": { "type": "string" },
                "email": { "type": "string", "format": "email" },
                "number": { "type": "integer", "minimum": 0 },
                "tags": { "type": "array", "items": { "type": "string", "maxLength": 64 } },
                "nested": { "type": "object", "properties": { "ok": { "type": "boolean" }, "score": { "type": "number" } } },
            },
        },
        "metadata": { "description": "", "author": "" },
    })
}
