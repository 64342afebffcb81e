//! What the engine needs of whoever runs handlers: Node.js behind the binding, plain Rust in tests.

use std::sync::Arc;
use std::time::Duration;

use bytestring::ByteString;
use serde_json::{Map, Value, json};

use super::env::Env;
use super::error::{Error, Result};
use super::log::{Level, Line, Log};
use super::store::{EntryId, Partition};

/// Names one call of one handler. Unique among the deliveries in flight on a bus.
pub type Token = u32;

/// One event for one handler.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The subscription, by the id its owner chose.
    pub subscription: u32,
    /// Answered by [`super::consume::Verdict`] under this token.
    pub token: Token,
    /// 1 at the first delivery.
    pub attempt: u32,
    /// It, or a part of it, was delivered before.
    pub redelivered: bool,
    /// Its stream.
    pub partition: Partition,
    /// Its place.
    pub id: EntryId,
    /// It belongs to the call of the delivery before it: a batch.
    pub joined: bool,
    /// What it says.
    pub text: EventText,
}

/// The text of an event as it stands in the store.
#[derive(Clone, Debug, Default)]
pub struct EventText {
    /// Packed metadata. Shared by the handlers of one event, and with others that came in the same reply.
    pub meta: ByteString,
    /// The data's JSON text, shared likewise.
    pub data: ByteString,
    /// Somebody waits for what the handler answers: its verdict is [`super::consume::Verdict::Replied`].
    pub asks: bool,
    /// It was a dead letter of the group, and is delivered anew.
    pub redriven: bool,
}

/// Lifecycle events, as their listeners name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An event is in the store.
    Published,
    /// An event was acknowledged.
    Consumed,
    /// A delivery failed.
    Failed,
    /// A failed delivery waits for its retry.
    Retried,
    /// A dead letter was written.
    DeadLettered,
    /// An event's ttl was over before a group got it.
    Expired,
    /// Entries are gone that a group had not settled.
    DataLoss,
    /// Redis was lost.
    ConnectionLost,
    /// Redis is back.
    ConnectionRestored,
    /// A subscription was made.
    SubscriptionCreated,
    /// A subscription ended.
    SubscriptionCancelled,
    /// New figures.
    MetricsUpdated,
    /// The status changed.
    HealthChanged,
    /// A service was registered.
    ServiceRegistered,
    /// A service says something else of itself.
    ServiceUpdated,
    /// A service was taken out.
    ServiceUnregistered,
    /// A service was not renewed in time.
    ServiceExpired,
    /// A service is otherwise than it was.
    ServiceHealthChanged,
    /// Something failed in a service registry that no call can report.
    RegistryError,
    /// An agent gets tasks, or gets none any more, by how they went.
    AgentCircuitChanged,
    /// A figure passed its threshold.
    AlertTriggered,
    /// It came back.
    AlertResolved,
    /// Something failed that no call can report.
    Error,
    /// A line for the program's log.
    Log,
}

impl Kind {
    /// Name for listeners.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Published => "event:published",
            Self::Consumed => "event:consumed",
            Self::Failed => "event:failed",
            Self::Retried => "event:retried",
            Self::DeadLettered => "event:dead-lettered",
            Self::Expired => "event:expired",
            Self::DataLoss => "data:loss",
            Self::ConnectionLost => "connection:lost",
            Self::ConnectionRestored => "connection:restored",
            Self::SubscriptionCreated => "subscription:created",
            Self::SubscriptionCancelled => "subscription:cancelled",
            Self::MetricsUpdated => "metrics:updated",
            Self::HealthChanged => "health:status:changed",
            Self::ServiceRegistered => "service:registered",
            Self::ServiceUpdated => "service:updated",
            Self::ServiceUnregistered => "service:unregistered",
            Self::ServiceExpired => "service:expired",
            Self::ServiceHealthChanged => "service:health:changed",
            Self::RegistryError => "registry:error",
            Self::AgentCircuitChanged => "agent:circuit:changed",
            Self::AlertTriggered => "alert:triggered",
            Self::AlertResolved => "alert:resolved",
            Self::Error => "error",
            Self::Log => "log",
        }
    }
}

/// A lifecycle event: its kind and one object that names what happened.
#[derive(Clone, Debug, PartialEq)]
pub struct Lifecycle(pub Kind, pub Value);

impl Lifecycle {
    /// An error that no call can report.
    pub fn error(error: &Error) -> Self {
        Self(Kind::Error, error.to_json())
    }

    /// A line of debug mode, which is written at every level: it was asked for.
    pub fn journal(message: impl Into<String>) -> Self {
        Self(Kind::Log, json!({ "level": "debug", "message": message.into(), "asked": true }))
    }

    /// A warning for the program's log that is said once, or once an episode: unlike those of `tracing::warn!`, none is left out.
    pub fn warn(message: impl Into<String>) -> Self {
        Self(Kind::Log, json!({ "level": "warn", "message": message.into() }))
    }

    fn line(Line { level, target, message, fields }: Line, at_ms: u64) -> Self {
        let fields: Map<String, Value> = fields.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
        Self(Kind::Log, json!({ "level": level, "target": target, "message": message, "fields": fields, "timestamp": at_ms }))
    }
}

/// An environment in which what is said goes to the host, as [`Kind::Log`]; one that has a log stays as it is.
pub fn logging(env: Env, host: &Arc<dyn Host>, level: Level) -> Env {
    if env.log().is_there() {
        return env;
    }
    let (host, clock) = (host.clone(), env.clone());
    env.logging(Log::new(level, move |line| host.lifecycle(vec![Lifecycle::line(line, clock.now_ms())])))
}

/// A host without handlers, for tests.
#[cfg(test)]
pub struct Nobody;

#[cfg(test)]
impl Host for Nobody {
    fn published(&self, _: Vec<(Token, Result<Arc<str>>)>) {}

    fn deliver(&self, _: Vec<Delivery>) {}

    fn settled(&self, _: Vec<(u32, Option<Error>)>) {}

    fn lifecycle(&self, _: Vec<Lifecycle>) {}

    fn listens(&self, _: Kind) -> bool {
        false
    }

    fn silent_for(&self) -> Duration {
        Duration::ZERO
    }
}

/// Runs handlers and hears what happens. Called seldom, for many at once; no call may wait.
pub trait Host: Send + Sync + 'static {
    /// Results of publishes by their token: the event's id.
    fn published(&self, results: Vec<(Token, Result<Arc<str>>)>);
    /// Events for handlers; each is answered by a verdict.
    fn deliver(&self, batch: Vec<Delivery>);
    /// Settlements with these confirmation numbers are in the store, or failed.
    fn settled(&self, confirmations: Vec<(u32, Option<Error>)>);
    /// Letters to agents of the program, each a JSON text; where there are none, nobody posts any.
    fn posted(&self, _letters: Vec<String>) {}
    /// What happened.
    fn lifecycle(&self, events: Vec<Lifecycle>);
    /// Whether somebody wants events of this kind: those that cost something on the hot path are made only then.
    fn listens(&self, kind: Kind) -> bool;
    /// How long the thread of the handlers has not answered; zero when it is well.
    fn silent_for(&self) -> Duration;
}
