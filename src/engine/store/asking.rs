//! What a store does for those who wait for an answer, and for events that are not stored.
//!
//! An *inbox* is a short stream of messages for one bus: others post to it, its owner alone reads it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::place::{BUCKETS, Bucket, fnv};
use crate::engine::error::Result;

/// An inbox without an owner goes this long after the last message.
pub const INBOX_LIFE: Duration = Duration::from_secs(3600);
/// Most messages of an inbox, about: beyond it the oldest go. Far more than a bus can be waiting for.
pub const INBOX_MESSAGES_MAX: u64 = 1_000_000;

/// Where the inbox of that name lives, part of the layout.
pub fn inbox_bucket(name: &str) -> Bucket {
    Bucket(u8::try_from(fnv(name.bytes()) % u64::from(BUCKETS)).expect("a remainder below 16 fits"))
}

/// The owner's end of an inbox. Owns what it needs to wait without disturbing others; dropped at any time, it loses
/// nothing that a new one would not get.
#[async_trait]
pub trait Inbox: Send {
    /// Messages in their order, each once unless a call before failed: then from that call on. Waits up to `wait` when there
    /// is none. Those answered by the calls before are not needed any more.
    async fn receive(&mut self, wait: Duration) -> Result<Vec<String>>;
}

/// What a group did with an entry, as far as the store can tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Not settled yet, or the entry is not there any more.
    Open,
    /// Acknowledged, or passed over.
    Acknowledged,
    /// Given up.
    DeadLettered {
        /// A [`super::DeadReason`] as text.
        reason: String,
        /// Last error.
        error: String,
    },
}

/// An event for the subscribers of this moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transient {
    /// Its type, which says by its partition 0 in which bucket it is sent.
    pub event_type: Arc<str>,
    /// Packed metadata.
    pub meta: String,
    /// The data's JSON text.
    pub data: String,
}

impl Transient {
    /// As it is sent: no JSON text that this bus writes holds a tab.
    pub fn to_text(&self) -> String {
        format!("{}\t{}\t{}", self.event_type, self.meta, self.data)
    }

    /// Reads what [`Transient::to_text`] wrote; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, '\t');
        let (event_type, meta, data) = (parts.next()?, parts.next()?, parts.next()?);
        Some(Self { event_type: event_type.into(), meta: meta.to_owned(), data: data.to_owned() })
    }
}
