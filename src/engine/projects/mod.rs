//! Messages between projects: who a project is, what it may send, that a message is what its source sent, and a record of all.
//!
//! Reading order: [`identity`] keys and signatures, [`registration`] and [`project`] what is given and stored of a project; [`nesting`], [`schema`], [`contract`],
//! [`contracts`], [`route`] what messages have to be like and where else they go; [`audit`] and [`tally`] what is written down; [`directory`] what
//! this process knows; then the way of a message: out by [`letter`], [`clearing`] and [`courier`], in by [`gate`], and back by [`answers`] where it was given up; [`Projects`] is what the bus calls.

pub mod audit;
pub mod contract;
pub mod contracts;
pub mod directory;
pub mod identity;
pub mod nesting;
pub mod project;
pub mod registration;
pub mod route;
pub mod schema;
pub mod tally;

mod answers;
mod aside;
mod clearing;
mod courier;
mod gate;
mod held;
mod letter;
mod metered;
mod pattern;
mod places;
mod registering;
mod setup;
mod stats;
mod upkeep;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::config::{BusConfig, CrossProject};
use super::consume::Gate;
use super::env::{Env, lock};
use super::error::{Error, Result};
use super::event::{Priority, seconds_to_ms};
use super::host::{Host, Lifecycle};
use super::publish::{Courier, Publisher};
use super::store::Store;
use super::trace::Tracer;
use answers::Answer;
use audit::Audit;
use audit::log::Query;
use directory::Directory;
use held::Held;
use identity::PublicKey;
use tally::Tally;

/// Most audit records a page.
const PAGE_MAX: usize = 1000;

/// What messages between projects depend on.
#[derive(Clone, Debug)]
struct Settings {
    security_enabled: bool,
    rate_limiting_enabled: bool,
    /// How long audit records are kept, ms.
    audit_retention_ms: u64,
    /// Most audit records kept.
    audit_records_max: u64,
    payload_bytes_max: usize,
    length_max: Option<u64>,
    /// Seconds.
    ttl_s: f64,
    priority: Priority,
    /// How long what was done waits for its record.
    patience: Duration,
}

/// What the parts of this module share.
struct Shared {
    settings: Settings,
    store: Arc<dyn Store>,
    host: Arc<dyn Host>,
    env: Env,
    tracer: Tracer,
    directory: Directory,
    held: Held,
    audit: Audit,
    tally: Tally,
    /// Names this bus among those that attend.
    instance: String,
    /// For what the bus itself says; there while it is connected.
    publisher: Mutex<Weak<Publisher>>,
    unrecorded: AtomicBool,
    /// Answers to messages that were given up.
    answers: mpsc::Sender<Answer>,
}

impl Shared {
    fn say(&self, event_type: &str, address: &Value, data: &Value) {
        if let Some(publisher) = lock(&self.publisher).upgrade() {
            publisher.say_to(event_type, address, data);
        }
    }

    /// Those of projects that are not registered are not counted in the store, where each name costs a place.
    fn named(&self, mut entries: Vec<audit::Entry>) -> Vec<audit::Entry> {
        let view = self.directory.view();
        for entry in &mut entries {
            let uncounted = view.known(audit::record::counts_for(entry)).is_none();
            entry.again |= uncounted;
        }
        entries
    }

    /// Counts them here.
    fn tally(&self, entries: &[audit::Entry]) {
        let view = self.directory.view();
        let known = |id: &str| view.known(id).map(|project| project.project_id.as_str());
        for entry in entries.iter().filter(|entry| !entry.again) {
            self.tally.count(entry.outcome, known(&entry.source), known(&entry.target));
        }
    }

    /// Said once, until records are written again: each that follows would say the same.
    fn warn_unrecorded(&self, error: &Error) {
        if !self.unrecorded.swap(true, Ordering::AcqRel) {
            self.host.lifecycle(vec![Lifecycle::warn(format!("audit records could not be written: {error}"))]);
        }
    }

    fn recorded(&self) {
        self.unrecorded.store(false, Ordering::Release);
    }
}

/// Messages between projects, of one bus.
pub struct Projects {
    shared: Arc<Shared>,
    beside: [tokio::task::JoinHandle<()>; 2],
}

impl Drop for Projects {
    fn drop(&mut self) {
        self.beside.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

impl Projects {
    /// Starts what goes on beside. Nothing is known before the first [`Projects::read`].
    pub fn start(
        config: &BusConfig,
        cross: &CrossProject,
        store: Arc<dyn Store>,
        host: Arc<dyn Host>,
        env: Env,
        tracer: Tracer,
    ) -> Result<Self> {
        let settings = Settings {
            security_enabled: cross.security_enabled,
            rate_limiting_enabled: cross.rate_limiting_enabled,
            audit_retention_ms: seconds_to_ms(cross.audit_retention_s).unwrap_or(u64::MAX),
            audit_records_max: cross.audit_records_max,
            payload_bytes_max: config.limits.max_payload_bytes,
            length_max: config.limits.max_stream_length,
            ttl_s: config.defaults.ttl_s,
            priority: config.defaults.priority,
            patience: Duration::from_millis(config.redis.command_timeout_ms),
        };
        let pins: BTreeMap<String, PublicKey> =
            cross.trusted_keys.iter().filter_map(|(id, key)| Some((id.clone(), PublicKey::read(key)?))).collect();
        let tally = Tally::new()?;
        let (answers, answering) = mpsc::channel(answers::WAITING_MAX);
        let shared = Arc::new(Shared {
            directory: Directory::start(&env, store.clone(), host.clone(), pins),
            audit: Audit::start(&env, store.clone(), host.clone(), settings.audit_retention_ms),
            held: Held::default(),
            instance: env.hex(16),
            publisher: Mutex::default(),
            unrecorded: AtomicBool::new(false),
            settings,
            store,
            host,
            env,
            tracer,
            tally,
            answers,
        });
        let beside = [shared.env.spawn(upkeep::run(shared.clone())), shared.env.spawn(answers::tell(shared.clone(), answering))];
        Ok(Self { shared, beside })
    }

    /// By what the bus's own messages are published.
    pub fn speak_by(&self, publisher: &Arc<Publisher>) {
        *lock(&self.shared.publisher) = Arc::downgrade(publisher);
    }

    /// What checks and signs messages.
    pub fn courier(&self) -> Arc<dyn Courier> {
        self.shared.clone()
    }

    /// What looks at messages before handlers do.
    pub fn gate(&self) -> Arc<dyn Gate> {
        self.shared.clone()
    }

    /// Reads what there is; a store that is away is asked again later.
    pub async fn read(&self) {
        // Whoever reads says why it failed.
        let _ = self.shared.directory.refresh().await;
    }

    /// Something may have changed.
    pub fn look(&self) {
        self.shared.directory.look();
    }

    /// Metrics of this process in the text format 0.0.4.
    pub fn metrics(&self) -> Result<String> {
        self.shared.tally.export()
    }

    /// One page of audit records as `{ items, cursor? }`, times as ms.
    pub async fn audit_log(&self, query: &Query, limit: usize, cursor: Option<&str>) -> Result<Value> {
        let page = audit::log::page(&self.shared.store, query, limit.clamp(1, PAGE_MAX), cursor).await?;
        let items: Vec<Value> = page.records.iter().filter_map(audit::record::to_json).collect();
        let mut out = json!({ "items": items });
        if let Some(cursor) = page.cursor {
            out["cursor"] = cursor.into();
        }
        Ok(out)
    }

    /// `{ ok, checked, firstBroken? }`.
    pub async fn verify_audit(&self) -> Result<Value> {
        let view = self.shared.directory.refresh().await?;
        let found = audit::check::verify(&self.shared.store, &view).await?;
        let mut out = json!({ "ok": found.first_broken.is_none(), "checked": found.checked });
        if let Some(broken) = found.first_broken {
            out["firstBroken"] = broken.into();
        }
        Ok(out)
    }

    /// Gives up what it attends to; within `deadline`.
    pub async fn close(&self, deadline: Duration) {
        let members = self.shared.held.members(&self.shared.instance);
        if !members.is_empty() {
            let _ = tokio::time::timeout(deadline, self.shared.store.unattend(&members)).await;
        }
    }

    fn unknown(id: &str) -> Error {
        use super::error::Code;
        let id: String = id.chars().take(64).collect();
        Error::new(Code::ProjectUnknown, format!("the project '{id}' is not registered: call registerProject() first"))
            .with("projectId", id)
    }
}
