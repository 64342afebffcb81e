//! What stands between the store and the handlers of messages to a project: who may come in, and what is written down of how
//! they ended. Other events pass by it.

use std::sync::Arc;

use async_trait::async_trait;

use super::flush::Settlement;
use crate::engine::error::Result;
use crate::engine::host::EventText;
use crate::engine::name;
use crate::engine::store::{DeadReason, Entry, Refusal};

/// A message on its way back to the store.
#[derive(Clone, Debug)]
pub struct Message {
    /// As it stands in the store; empty where that is not readable.
    pub text: EventText,
    /// Why no handler saw it.
    pub refusal: Option<Refusal>,
    /// How it ends is recorded.
    pub recorded: bool,
}

impl Message {
    /// A message that was not refused.
    pub fn new(text: EventText) -> Self {
        Self { text, refusal: None, recorded: false }
    }
}

/// A message that was given up.
#[derive(Clone, Copy, Debug)]
pub struct GivenUp<'a> {
    /// Its stream.
    pub stream: &'a str,
    /// The group that gave it up.
    pub group: &'a str,
    /// As it stands in the store.
    pub text: &'a EventText,
    /// Why.
    pub reason: DeadReason,
    /// The last error.
    pub error: &'a str,
    /// Attempts it had.
    pub attempts: u32,
}

/// Looks at messages to projects.
#[async_trait]
pub trait Gate: Send + Sync {
    /// The same entries, in the same order; those that may not reach a handler with a [`Refusal`]. An error is retryable: then
    /// the entries are handed back.
    async fn admit(&self, entries: Vec<Entry>) -> Result<Vec<Entry>>;

    /// Records how messages end for the group, before the store is told. An error is retryable: then nothing of them is settled
    /// yet.
    async fn record(&self, group: &str, endings: &[&Settlement]) -> Result<()>;

    /// A handler's failure was its last: the source is to hear of it.
    fn gave_up(&self, message: GivenUp<'_>);
}

/// Entries as the gate lets them pass.
pub async fn admit(gate: Option<&Arc<dyn Gate>>, entries: Vec<Entry>) -> Result<Vec<Entry>> {
    match gate {
        Some(gate) if entries.iter().any(|entry| name::is_addressed(&entry.partition.event_type)) => gate.admit(entries).await,
        _ => Ok(entries),
    }
}

/// Records how messages end, those that are not recorded yet.
pub async fn record(gate: Option<&Arc<dyn Gate>>, group: &str, settlements: &mut [Settlement]) -> Result<()> {
    let Some(gate) = gate else { return Ok(()) };
    let is_new = |settlement: &&Settlement| settlement.note.message.as_ref().is_some_and(|message| !message.recorded);
    let endings: Vec<&Settlement> = settlements.iter().filter(is_new).collect();
    if endings.is_empty() {
        return Ok(());
    }
    gate.record(group, &endings).await?;
    for message in settlements.iter_mut().filter_map(|settlement| settlement.note.message.as_mut()) {
        message.recorded = true;
    }
    Ok(())
}
