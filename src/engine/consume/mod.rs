//! Consuming: one task a bus that owns every delivery in flight, a reader a group beside it.
//!
//! Reading order: [`held`] what is in flight, [`group`] a consumer group and what it reads next, [`flush`] the way back
//! to the store; then the task itself in [`actor`]. What becomes of a delivery is decided in [`super::settle`].

mod actor;
mod flush;
mod group;
mod held;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::config::BusConfig;
use super::env::{Env, lock};
use super::error::{Error, Result};
use super::host::{Host, Token};
use super::metrics::Metrics;
use super::options::SubscribeOptions;
use super::retry::RetryPolicy;
use super::settle::Failure;
use super::store::{Bucket, Store};

/// How long a process that does not renew it keeps what it holds.
pub const LEASE: Duration = Duration::from_secs(8);

/// How a handler ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// It succeeded.
    Done,
    /// It did not.
    Failed(Failure),
    /// It was not called: give the event to somebody else; the delivery does not count.
    HandBack,
}

/// What a consumer needs to know.
#[derive(Clone, Debug)]
pub struct ConsumeSettings {
    /// Group unless given.
    pub group: String,
    /// What consumer names start with.
    pub consumer_prefix: String,
    /// `performance.batchSize`.
    pub batch_size: usize,
    /// `performance.batchTimeout`.
    pub read_wait: Duration,
    /// `defaults.retry`.
    pub retry: RetryPolicy,
    /// Dead letters are written.
    pub dead_letters: bool,
}

impl From<&BusConfig> for ConsumeSettings {
    fn from(config: &BusConfig) -> Self {
        let service = config.service_name.clone();
        Self {
            group: service.clone().unwrap_or_else(|| "default".to_owned()),
            consumer_prefix: format!("{}-{}", service.as_deref().unwrap_or("ossa"), std::process::id()),
            batch_size: config.performance.batch_size,
            read_wait: Duration::from_millis(config.performance.batch_timeout_ms),
            retry: config.defaults.retry.clone(),
            dead_letters: config.dead_letter_queue.enabled,
        }
    }
}

/// The lease of this bus's consumer: what the keeper renews, what the actor checks.
pub struct Lease(Mutex<LeaseState>);

struct LeaseState {
    consumer: Arc<str>,
    buckets: Vec<Bucket>,
    renewed: Instant,
}

impl Lease {
    fn new(consumer: Arc<str>) -> Self {
        Self(Mutex::new(LeaseState { consumer, buckets: Vec::new(), renewed: Instant::now() }))
    }

    /// What is to be renewed.
    pub fn current(&self) -> (Arc<str>, Vec<Bucket>) {
        let state = lock(&self.0);
        (state.consumer.clone(), state.buckets.clone())
    }

    /// It was renewed by a call that began at `at`.
    pub fn renewed(&self, consumer: &str, at: Instant) {
        let mut state = lock(&self.0);
        if *state.consumer == *consumer {
            state.renewed = state.renewed.max(at);
        }
    }

    /// Whether what is held may have gone to others, as far as the own clock can tell: a process that was stopped
    /// finds out by this before it does anything.
    pub fn is_stale(&self) -> bool {
        lock(&self.0).renewed.elapsed() >= LEASE
    }

    /// Goes on under another name; answers the buckets of the old one.
    fn replace(&self, consumer: Arc<str>, buckets: Vec<Bucket>, at: Instant) -> Vec<Bucket> {
        let old = std::mem::replace(&mut *lock(&self.0), LeaseState { consumer, buckets, renewed: at });
        old.buckets
    }

    /// Nothing is renewed any more; answers what was.
    fn stop(&self) -> Vec<Bucket> {
        std::mem::take(&mut lock(&self.0).buckets)
    }

    /// Buckets that come into use. None goes out of it before the lease ends: one that was left to lapse and is
    /// wanted again later would look like a process that was stopped.
    fn add_buckets(&self, buckets: impl IntoIterator<Item = Bucket>) {
        let mut state = lock(&self.0);
        let all: BTreeSet<Bucket> = state.buckets.drain(..).chain(buckets).collect();
        state.buckets = all.into_iter().collect();
    }
}

/// Answer to subscribing: group and consumer.
pub type Subscribed = Result<(String, String)>;

/// What the task is told from outside.
pub enum Command {
    /// Makes a subscription.
    Subscribe {
        /// Its owner's name for it, unique on the bus.
        id: u32,
        /// Event type or pattern, checked.
        pattern: String,
        /// Checked.
        options: SubscribeOptions,
        /// Answered once the group exists and reading begins.
        reply: oneshot::Sender<Subscribed>,
    },
    /// Ends a subscription once its handlers are done, or the time is over.
    Unsubscribe {
        /// Which.
        id: u32,
        /// What is unfinished then is handed back.
        deadline: Instant,
        /// Answered at its end.
        reply: oneshot::Sender<Result<()>>,
    },
    /// Stops or resumes a subscription.
    Pause(u32, bool),
    /// Handlers ended.
    Settle(Vec<(Token, Verdict)>, u32),
    /// Types or groups may be new.
    TopologyChanged,
    /// The server was lost and is back.
    Reconnected,
    /// The lease had lapsed: others may hold what was held here.
    Lapsed,
    /// The handlers' thread is silent (true) or answers again (false).
    Stalled(bool),
    /// Ends everything: no new deliveries, handlers may end until the deadline.
    Stop {
        /// What is unfinished then is handed back.
        deadline: Instant,
        /// Answered when nothing is left.
        reply: oneshot::Sender<()>,
    },
}

/// Consuming of one bus. Cheap to share.
pub struct Consumer {
    commands: mpsc::UnboundedSender<Command>,
    /// Subscriptions open.
    pub subscriptions: Arc<AtomicUsize>,
    /// Entries in flight.
    pub in_flight: Arc<AtomicUsize>,
    /// The lease, for the keeper.
    pub lease: Arc<Lease>,
    stopped: AtomicBool,
}

impl Consumer {
    /// Starts the task.
    pub fn start(settings: ConsumeSettings, store: Arc<dyn Store>, host: Arc<dyn Host>, env: Env, metrics: Arc<Metrics>) -> Self {
        // Unbounded: what comes in is bounded by subscriptions and their places, and no caller may wait.
        let (commands, inbox) = mpsc::unbounded_channel();
        let lease = Arc::new(Lease::new(actor::consumer_name(&settings, &env)));
        let (subscriptions, in_flight) = (Arc::default(), Arc::default());
        let counters = actor::Counters { subscriptions: Arc::clone(&subscriptions), in_flight: Arc::clone(&in_flight), metrics };
        tokio::spawn(actor::Actor::new(settings, store, host, env, counters, lease.clone()).run(inbox));
        Self { commands, subscriptions, in_flight, lease, stopped: AtomicBool::new(false) }
    }

    /// Tells the task; dropped once it has stopped.
    pub fn tell(&self, command: Command) {
        // The receiver is gone only after Stop: then there is nothing left that the command could be about.
        let _ = self.commands.send(command);
    }

    /// Makes a subscription.
    pub async fn subscribe(&self, id: u32, pattern: String, options: SubscribeOptions) -> Subscribed {
        let (reply, answer) = oneshot::channel();
        self.tell(Command::Subscribe { id, pattern, options, reply });
        answer.await.unwrap_or_else(|_| Err(Error::closed("the bus")))
    }

    /// Ends a subscription.
    pub async fn unsubscribe(&self, id: u32, drain: Duration) -> Result<()> {
        let (reply, answer) = oneshot::channel();
        self.tell(Command::Unsubscribe { id, deadline: Instant::now() + drain, reply });
        answer.await.unwrap_or(Ok(()))
    }

    /// Ends everything, within `drain` and what handing back takes. Idempotent.
    pub async fn stop(&self, drain: Duration) {
        if self.stopped.swap(true, Ordering::AcqRel) {
            return;
        }
        let (reply, answer) = oneshot::channel();
        self.tell(Command::Stop { deadline: Instant::now() + drain, reply });
        let _ = answer.await;
    }
}
