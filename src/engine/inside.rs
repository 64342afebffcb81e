//! Subscriptions of the engine itself: their deliveries go to tasks of it, those of the program's to the program.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tokio::sync::mpsc;

use super::consume::{Command, Consumer, Verdict};
use super::env::lock;
use super::error::{Error, Result};
use super::host::{Delivery, Host, Kind, Lifecycle, Token};
use super::options::SubscribeOptions;

/// Ids of subscriptions from here on are the engine's own; a program chooses smaller ones.
pub const FIRST: u32 = 1 << 31;

/// Where deliveries arrive; bounded by the places of their subscriptions.
pub type Sender = mpsc::UnboundedSender<Delivery>;

/// Between the engine and the program.
pub struct Switch {
    outside: Arc<dyn Host>,
    /// By the id of the subscription; `None`: the bus ended.
    inside: Mutex<Option<HashMap<u32, Sender>>>,
    last: AtomicU32,
    /// Weak: its task tells this of deliveries.
    consumer: Mutex<Weak<Consumer>>,
}

impl Switch {
    /// Before the program.
    pub fn before(outside: Arc<dyn Host>) -> Self {
        Self { outside, inside: Mutex::new(Some(HashMap::new())), last: AtomicU32::new(FIRST), consumer: Mutex::default() }
    }

    /// By what is subscribed from now on.
    pub fn subscribe_by(&self, consumer: &Arc<Consumer>) {
        *lock(&self.consumer) = Arc::downgrade(consumer);
    }

    fn consumer(&self) -> Result<Arc<Consumer>> {
        lock(&self.consumer).upgrade().ok_or_else(|| Error::closed("the bus"))
    }

    /// Subscribes for the engine itself. What comes is for `deliveries`, which several subscriptions may share: those of one entry then
    /// come one after the other. Each is to be settled by [`Switch::settle`]. Answers its id.
    pub async fn subscribe(&self, pattern: &str, options: SubscribeOptions, deliveries: Sender) -> Result<u32> {
        let consumer = self.consumer()?;
        let id = FIRST | self.last.fetch_add(1, Ordering::Relaxed);
        lock(&self.inside).as_mut().ok_or_else(|| Error::closed("the bus"))?.insert(id, deliveries);
        let mut entered = Entered { switch: self, id, stays: false };
        consumer.subscribe(id, pattern.to_owned(), SubscribeOptions { unseen: true, ..options }).await?;
        entered.stays = true;
        Ok(id)
    }

    fn remove(&self, id: u32) {
        if let Some(inside) = lock(&self.inside).as_mut() {
            inside.remove(&id);
        }
    }

    /// Ends a subscription; what is unfinished after `drain` is handed back.
    pub async fn unsubscribe(&self, id: u32, drain: Duration) -> Result<()> {
        let ended = self.consumer()?.unsubscribe(id, drain).await;
        self.remove(id);
        ended
    }

    /// Stops or resumes a subscription.
    pub fn pause(&self, id: u32, paused: bool) {
        if let Ok(consumer) = self.consumer() {
            consumer.tell(Command::Pause(id, paused));
        }
    }

    /// Nothing more comes to any of them.
    pub fn close(&self) {
        lock(&self.inside).take();
    }

    /// Ends a delivery.
    pub fn settle(&self, token: Token, verdict: Verdict) {
        self.settle_all(vec![(token, verdict)]);
    }

    /// Ends deliveries.
    pub fn settle_all(&self, verdicts: Vec<(Token, Verdict)>) {
        if let Ok(consumer) = self.consumer() {
            consumer.tell(Command::Settle(verdicts.into(), 0));
        }
    }
}

/// A subscription on its way: where it comes to nothing, whoever waits for its deliveries must not wait for ever.
struct Entered<'a> {
    switch: &'a Switch,
    id: u32,
    stays: bool,
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        if !self.stays {
            self.switch.remove(self.id);
        }
    }
}

impl Host for Switch {
    fn published(&self, results: Vec<(Token, Result<Arc<str>>)>) {
        self.outside.published(results);
    }

    fn deliver(&self, batch: Vec<Delivery>) {
        if !batch.iter().any(|delivery| delivery.subscription >= FIRST) {
            return self.outside.deliver(batch);
        }
        let (inside, outside): (Vec<_>, Vec<_>) = batch.into_iter().partition(|delivery| delivery.subscription >= FIRST);
        for delivery in inside {
            let (id, token) = (delivery.subscription, delivery.token);
            let is_there =
                lock(&self.inside).as_ref().and_then(|inside| inside.get(&id)).is_some_and(|receiver| receiver.send(delivery).is_ok());
            if !is_there {
                self.settle(token, Verdict::HandBack);
            }
        }
        if !outside.is_empty() {
            self.outside.deliver(outside);
        }
    }

    fn settled(&self, confirmations: Vec<(u32, Option<Error>)>) {
        self.outside.settled(confirmations);
    }

    fn posted(&self, letters: Vec<String>) {
        self.outside.posted(letters);
    }

    fn lifecycle(&self, events: Vec<Lifecycle>) {
        self.outside.lifecycle(events);
    }

    fn listens(&self, kind: Kind) -> bool {
        self.outside.listens(kind)
    }

    fn silent_for(&self) -> Duration {
        self.outside.silent_for()
    }
}
