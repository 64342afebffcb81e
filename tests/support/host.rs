//! A [`Host`] that records what it is told and lets a test play the handlers.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ossa::engine::error::{Error, Result};
use ossa::engine::host::{Delivery, Host, Kind, Lifecycle, Token};
use serde_json::Value;
use tokio::sync::Notify;
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::Instant;

/// What it was told.
#[derive(Default)]
pub struct TestHost {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    arrived: VecDeque<Delivery>,
    /// Handlers that take deliveries from here on.
    handlers: Option<UnboundedSender<Delivery>>,
    tokens: HashSet<Token>,
    published: HashMap<Token, Result<String>>,
    settled: HashMap<u32, Option<Error>>,
    events: Vec<(Instant, Lifecycle)>,
    silent_since: Option<Instant>,
    panics: bool,
}

impl TestHost {
    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        let done = work(&mut self.state.lock().expect("no panic while it is locked"));
        self.changed.notify_waiters();
        done
    }

    /// Waits until `look` finds something.
    async fn find<T>(&self, what: &str, mut look: impl FnMut(&mut State) -> Option<T>) -> T {
        let search = async {
            loop {
                let mut changed = std::pin::pin!(self.changed.notified());
                changed.as_mut().enable();
                if let Some(found) = look(&mut self.state.lock().expect("no panic while it is locked")) {
                    return found;
                }
                changed.await;
            }
        };
        // Long enough for every retry on the turned clock, and for real servers.
        let found = tokio::time::timeout(Duration::from_secs(60), search).await;
        found.unwrap_or_else(|_| panic!("waited in vain: {what}"))
    }

    /// The next delivery.
    pub async fn next(&self) -> Delivery {
        self.find("a delivery", |state| state.arrived.pop_front()).await
    }

    /// The next `count` deliveries.
    pub async fn next_many(&self, count: usize) -> Vec<Delivery> {
        let mut all = Vec::new();
        while all.len() < count {
            all.push(self.next().await);
        }
        all
    }

    /// Deliveries that nobody took yet.
    pub fn arrived(&self) -> Vec<Delivery> {
        self.with(|state| state.arrived.drain(..).collect())
    }

    /// From now on deliveries go there.
    pub fn hand_to(&self, handlers: UnboundedSender<Delivery>) {
        self.with(|state| {
            state.arrived.drain(..).for_each(|delivery| drop(handlers.send(delivery)));
            state.handlers = Some(handlers);
        });
    }

    /// Result of a publish.
    pub async fn result(&self, token: Token) -> Result<String> {
        self.find("the result of a publish", |state| state.published.remove(&token)).await
    }

    /// Answer to a confirmation number.
    pub async fn confirmed(&self, number: u32) -> Option<Error> {
        self.find("a confirmation", |state| state.settled.remove(&number)).await
    }

    /// Whether the number was answered.
    pub fn is_confirmed(&self, number: u32) -> bool {
        self.with(|state| state.settled.contains_key(&number))
    }

    /// Lifecycle events of one kind, so far.
    pub fn said(&self, kind: Kind) -> Vec<Value> {
        self.with(|state| state.events.iter().filter(|(_, event)| event.0 == kind).map(|(_, event)| event.1.clone()).collect())
    }

    /// All lifecycle events so far, in order.
    pub fn all_said(&self) -> Vec<(Kind, Value)> {
        self.with(|state| state.events.iter().map(|(_, event)| (event.0, event.1.clone())).collect())
    }

    /// The first lifecycle event of one kind that `is` so.
    pub async fn hears(&self, kind: Kind, is: impl Fn(&Value) -> bool) -> Value {
        let look = |state: &mut State| state.events.iter().find(|(_, event)| event.0 == kind && is(&event.1)).map(|(_, e)| e.1.clone());
        self.find(kind.as_str(), look).await
    }

    /// The thread of the handlers falls silent, or answers again.
    pub fn be_silent(&self, silent: bool) {
        self.with(|state| state.silent_since = silent.then(Instant::now));
    }

    /// The next deliveries meet a defect.
    pub fn panic_at_delivery(&self) {
        self.with(|state| state.panics = true);
    }
}

impl Host for TestHost {
    fn published(&self, results: Vec<(Token, Result<Arc<str>>)>) {
        let results = results.into_iter().map(|(token, result)| (token, result.map(|id| id.to_string())));
        self.with(|state| state.published.extend(results));
    }

    fn deliver(&self, batch: Vec<Delivery>) {
        let panics = self.with(|state| {
            for delivery in batch {
                assert!(state.tokens.insert(delivery.token), "token {} was given twice", delivery.token);
                match &state.handlers {
                    Some(handlers) => drop(handlers.send(delivery)),
                    None => state.arrived.push_back(delivery),
                }
            }
            state.panics
        });
        assert!(!panics, "a defect on purpose");
    }

    fn settled(&self, confirmations: Vec<(u32, Option<Error>)>) {
        self.with(|state| {
            for (number, error) in confirmations {
                assert!(state.settled.insert(number, error).is_none(), "confirmation {number} was answered twice");
            }
        });
    }

    fn lifecycle(&self, events: Vec<Lifecycle>) {
        self.with(|state| state.events.extend(events.into_iter().map(|event| (Instant::now(), event))));
    }

    fn listens(&self, _: Kind) -> bool {
        true
    }

    fn silent_for(&self) -> Duration {
        self.with(|state| state.silent_since.map_or(Duration::ZERO, |since| since.elapsed()))
    }
}

/// One host.
pub fn host() -> Arc<TestHost> {
    Arc::default()
}
