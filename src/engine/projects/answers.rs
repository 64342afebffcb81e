//! Answers to messages that were given up: told to those sources that read them.

use std::sync::Arc;

use serde_json::Value;
use tokio::sync::mpsc;

use super::Shared;
use crate::engine::name;

/// Type of an answer.
pub const ERROR: &str = "system.error";
/// Answers that may wait to be told.
pub const WAITING_MAX: usize = 10_000;
/// Answers that are told by one look at who reads.
const TOLD_AT_ONCE: usize = 1_000;

/// What is to be told.
pub struct Answer {
    /// The stream that its reader reads.
    pub stream: String,
    /// What happened.
    pub data: Value,
    /// From whom and to whom, see [`crate::engine::publish::Outgoing::address`].
    pub address: Value,
}

/// Tells them, for as long as the bus is connected.
pub async fn tell(shared: Arc<Shared>, mut waiting: mpsc::Receiver<Answer>) {
    let mut answers = Vec::new();
    while waiting.recv_many(&mut answers, TOLD_AT_ONCE).await > 0 {
        match shared.store.topology().await {
            Ok(topology) => {
                let is_read = |answer: &Answer| topology.groups.iter().any(|group| name::matches(&group.pattern, &answer.stream));
                for answer in answers.drain(..).filter(is_read) {
                    shared.say(ERROR, &answer.address, &answer.data);
                }
            }
            Err(error) => {
                tracing::debug!(%error, "whether sources read errors could not be learnt");
                answers.clear();
            }
        }
    }
}
