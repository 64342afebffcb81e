//! Consuming: one task a bus that owns every delivery in flight, a reader a group beside it.
//!
//! Reading order: [`lease`], [`confirm`], [`casts`] and [`gate`], shared with others; [`held`] what is in flight, [`turns`] whose turn it is,
//! [`waiting`] what waits for a handler, [`group`] a consumer group, [`plan`] what it
//! reads next, [`ordered`] the partitions of an ordered one, [`flush`] the way back to the store; then the task itself in [`actor`]. What becomes of a delivery is decided in [`super::settle`].

mod actor;
mod casts;
mod confirm;
mod flush;
mod gate;
mod group;
mod held;
mod lease;
mod ordered;
mod plan;
mod turns;
mod waiting;

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::ask::message::Answer;
use super::config::BusConfig;
use super::env::Env;
use super::error::{Error, Result};
use super::host::{Host, Lifecycle, Token};
use super::journal::Journal;
use super::metrics::Metrics;
use super::options::SubscribeOptions;
use super::retry::RetryPolicy;
use super::settle::Failure;
use super::store::{Partition, Store, Transient};
use super::trace::Tracer;

use casts::{Cast, Casts};
use confirm::Confirms;
pub use flush::{Note, Settlement};
pub use gate::{Gate, GivenUp, Message};
pub use lease::{LEASE, Lease};

/// How a handler ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// It succeeded.
    Done,
    /// It did not.
    Failed(Failure),
    /// It succeeded, and this is what it answers: posted before the event is acknowledged.
    Replied(Reply),
    /// It was not called: give the event to somebody else; the delivery does not count.
    HandBack,
}

/// How handlers ended.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Verdicts {
    /// Calls that succeeded: most do, and have nothing else to say.
    pub done: Vec<Token>,
    /// The others, and any.
    pub others: Vec<(Token, Verdict)>,
}

impl From<Vec<(Token, Verdict)>> for Verdicts {
    fn from(others: Vec<(Token, Verdict)>) -> Self {
        Self { done: Vec::new(), others }
    }
}

/// What a handler answers to whoever asked.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply {
    /// The inbox that waits, `replyTo` of the event's metadata.
    pub to: String,
    /// The event's id.
    pub event_id: String,
    /// What it returned, or why that cannot be sent.
    pub answer: Answer,
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
    /// Debug mode.
    pub journal: Journal,
    /// Makes spans; none unless set.
    pub tracer: Tracer,
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
            journal: config.into(),
            tracer: Tracer::default(),
        }
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
        options: Box<SubscribeOptions>,
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
    Settle(Verdicts, u32),
    /// An event for the subscribers of this moment.
    Cast(Cast),
    /// Types or groups may be new.
    TopologyChanged,
    /// The server was lost and is back.
    Reconnected,
    /// The lease of the consumer of this name had lapsed: others may hold what was held here.
    Lapsed(Arc<str>),
    /// The handlers' thread is silent (true) or answers again (false).
    Stalled(bool),
    /// Which partitions are read, and for which groups.
    Reads(oneshot::Sender<Vec<(Arc<str>, Partition)>>),
    /// Ends everything: no new deliveries, handlers may end until the deadline.
    Stop {
        /// What is unfinished then is handed back.
        deadline: Instant,
        /// Answered when nothing is left.
        reply: oneshot::Sender<()>,
    },
}

impl Command {
    /// Nobody is left to take it: whoever waits for its answer gets one.
    fn refuse(self, host: &Arc<dyn Host>, ended: Option<&Error>) {
        let error = ended.cloned().unwrap_or_else(|| Error::closed("the bus"));
        match self {
            Self::Subscribe { reply, .. } => drop(reply.send(Err(error))),
            // With the bus, its subscriptions ended.
            Self::Unsubscribe { reply, .. } => drop(reply.send(ended.map_or(Ok(()), |error| Err(error.clone())))),
            Self::Settle(_, confirm) if confirm != 0 => host.settled(vec![(confirm, Some(error))]),
            Self::Stop { reply, .. } => drop(reply.send(())),
            Self::Settle(..)
            | Self::Pause(..)
            | Self::Cast(_)
            | Self::TopologyChanged
            | Self::Reconnected
            | Self::Lapsed(_)
            | Self::Stalled(_)
            // Whoever asked sees that it was dropped.
            | Self::Reads(_) => {}
        }
    }
}

/// Consuming of one bus. Cheap to share.
pub struct Consumer {
    commands: mpsc::UnboundedSender<Command>,
    host: Arc<dyn Host>,
    /// Subscriptions open.
    pub subscriptions: Arc<AtomicUsize>,
    /// Entries in flight.
    pub in_flight: Arc<AtomicUsize>,
    /// The lease, for the keeper.
    pub lease: Arc<Lease>,
    /// What looks at messages to projects, for the keeper.
    pub gate: Option<Arc<dyn Gate>>,
    /// The defect by which the task ended.
    defect: Arc<OnceLock<Error>>,
    stopped: AtomicBool,
    casts: Casts,
}

impl Consumer {
    /// Starts the task. Without a `gate` messages to projects are taken as they come.
    pub fn start(
        settings: ConsumeSettings,
        store: Arc<dyn Store>,
        host: Arc<dyn Host>,
        env: Env,
        metrics: Arc<Metrics>,
        gate: Option<Arc<dyn Gate>>,
    ) -> Self {
        // Unbounded: what comes in is bounded by subscriptions and their places, and no caller may wait.
        let (commands, mut inbox) = mpsc::unbounded_channel();
        let lease = Arc::new(Lease::new(actor::consumer_name(&settings, &env)));
        let (subscriptions, in_flight) = (Arc::default(), Arc::default());
        let counters = actor::Counters { subscriptions: Arc::clone(&subscriptions), in_flight: Arc::clone(&in_flight), metrics };
        let confirms = Arc::<Confirms>::default();
        let defect = Arc::<OnceLock<Error>>::default();
        let beside = actor::Beside { lease: lease.clone(), confirms: confirms.clone(), gate: gate.clone() };
        let actor = actor::Actor::new(settings, store, host.clone(), env.clone(), counters.clone(), beside);
        let end = End { host: host.clone(), lease: lease.clone(), counters, confirms, defect: defect.clone() };
        env.spawn(async move {
            if let Err(panic) = AssertUnwindSafe(actor.run(&mut inbox)).catch_unwind().await {
                end.panicked(Error::panicked(panic.as_ref()));
            }
            end.answer(&mut inbox);
        });
        Self { commands, host, subscriptions, in_flight, lease, gate, defect, stopped: AtomicBool::new(false), casts: Casts::default() }
    }

    /// Tells the task; refused once it has ended.
    pub fn tell(&self, command: Command) {
        if let Err(mpsc::error::SendError(command)) = self.commands.send(command) {
            command.refuse(&self.host, self.defect.get());
        }
    }

    /// Tells the task of an event for the subscribers of this moment, unless it has too many to look at already.
    pub fn cast(&self, event: Arc<Transient>) {
        if let Some(cast) = self.casts.admit(event) {
            self.tell(Command::Cast(cast));
        }
    }

    /// The defect by which the task ended, if it did.
    pub fn defect(&self) -> Option<&Error> {
        self.defect.get()
    }

    /// What a call is answered with that the task dropped.
    fn dropped(&self) -> Error {
        self.defect.get().cloned().unwrap_or_else(|| Error::internal("the consumer task ended"))
    }

    /// Makes a subscription.
    ///
    /// # Errors
    /// `ERR_INVALID_ARGUMENT` where other members of the group have other options; those of the store; `ERR_CLOSED`.
    pub async fn subscribe(&self, id: u32, pattern: String, options: SubscribeOptions) -> Subscribed {
        let (reply, answer) = oneshot::channel();
        self.tell(Command::Subscribe { id, pattern, options: Box::new(options), reply });
        answer.await.unwrap_or_else(|_| Err(self.dropped()))
    }

    /// Partitions that subscriptions match, with their groups; none once the task has ended.
    pub async fn reads(&self) -> Vec<(Arc<str>, Partition)> {
        let (reply, answer) = oneshot::channel();
        self.tell(Command::Reads(reply));
        answer.await.unwrap_or_default()
    }

    /// Ends a subscription.
    ///
    /// # Errors
    /// `ERR_INTERNAL` when the task ended by a defect.
    pub async fn unsubscribe(&self, id: u32, drain: Duration) -> Result<()> {
        let (reply, answer) = oneshot::channel();
        self.tell(Command::Unsubscribe { id, deadline: Instant::now() + drain, reply });
        answer.await.unwrap_or_else(|_| Err(self.dropped()))
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

/// What is left to do when the task ended, by its own will or by a defect.
struct End {
    host: Arc<dyn Host>,
    lease: Arc<Lease>,
    counters: actor::Counters,
    confirms: Arc<Confirms>,
    defect: Arc<OnceLock<Error>>,
}

impl End {
    /// What was held goes to others when the lease ends, which nobody renews now.
    fn panicked(&self, error: Error) {
        tracing::error!(%error, "the consumer task ended");
        self.lease.suspend(true);
        self.counters.clear();
        let told = Lifecycle::error(&error);
        // Before anybody is answered: the answers name it.
        let _ = self.defect.set(error);
        self.host.lifecycle(vec![told]);
    }

    /// Nobody waits for ever: neither for what was told too late, nor for settlements that were not answered.
    fn answer(self, inbox: &mut mpsc::UnboundedReceiver<Command>) {
        inbox.close();
        while let Ok(command) = inbox.try_recv() {
            command.refuse(&self.host, self.defect.get());
        }
        let error = self.defect.get().cloned().unwrap_or_else(|| Error::closed("the bus"));
        let left = self.confirms.give_up(&error);
        if !left.is_empty() {
            self.host.settled(left);
        }
    }
}
