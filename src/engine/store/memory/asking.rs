//! Inboxes, what groups decided, and events that are not stored.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::super::{Decision, EntryId, INBOX_LIFE, INBOX_MESSAGES_MAX, Inbox, Partition};
use super::shared::{Session, Shared};
use super::state::State;
use crate::engine::env::lock;
use crate::engine::error::{Error, Result};

/// Messages for one user.
#[derive(Debug, Default)]
pub(super) struct Messages {
    kept: VecDeque<(u64, String)>,
    last: u64,
    /// When it goes, ms.
    end_ms: u64,
    posted: Arc<Notify>,
}

/// The owner's end.
pub(super) struct MemoryInbox {
    pub(super) name: String,
    /// Weak: an inbox that was left behind does not keep a named store alive.
    pub(super) shared: Weak<Shared>,
    pub(super) session: Arc<Session>,
    pub(super) seen: u64,
}

impl State {
    /// See [`Store::post`](super::super::Store::post).
    pub(super) fn post(&mut self, inbox: &str, messages: Vec<String>, now_ms: u64) {
        self.inboxes.retain(|_, inbox| inbox.end_ms > now_ms || Arc::strong_count(&inbox.posted) > 1);
        let inbox = self.inboxes.entry(inbox.to_owned()).or_default();
        inbox.end_ms = now_ms.saturating_add(super::ms(INBOX_LIFE));
        for message in messages {
            inbox.last += 1;
            inbox.kept.push_back((inbox.last, message));
            if inbox.kept.len() as u64 > INBOX_MESSAGES_MAX {
                inbox.kept.pop_front();
            }
        }
        inbox.posted.notify_waiters();
    }

    fn posted(&mut self, inbox: &str, now_ms: u64) -> Arc<Notify> {
        let inbox = self.inboxes.entry(inbox.to_owned()).or_default();
        inbox.end_ms = inbox.end_ms.max(now_ms.saturating_add(super::ms(INBOX_LIFE)));
        inbox.posted.clone()
    }

    fn messages(&mut self, inbox: &str, seen: &mut u64) -> Vec<String> {
        let Some(inbox) = self.inboxes.get_mut(inbox) else { return Vec::new() };
        while inbox.kept.front().is_some_and(|(number, _)| number <= seen) {
            inbox.kept.pop_front();
        }
        *seen = inbox.kept.back().map_or(*seen, |(number, _)| *number);
        inbox.kept.iter().map(|(_, message)| message.clone()).collect()
    }

    /// See [`Store::decisions`](super::super::Store::decisions).
    pub(super) fn decisions(&self, at: &Partition, entry: EntryId) -> Vec<(String, Decision)> {
        let Some(stream) = self.stream(at) else { return Vec::new() };
        let is_there = stream.entries.get(entry).is_some();
        let decision = |name: &str, group: &super::stream::Group| {
            if !is_there || group.last_delivered < entry || group.pending.contains_key(&entry) {
                return Decision::Open;
            }
            match self.death(at, name, entry) {
                Some((reason, error)) => Decision::DeadLettered { reason: reason.as_str().to_owned(), error: error.to_owned() },
                None => Decision::Acknowledged,
            }
        };
        let mut all: Vec<(String, Decision)> = stream.groups.iter().map(|(name, group)| (name.clone(), decision(name, group))).collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }
}

#[async_trait]
impl Inbox for MemoryInbox {
    async fn receive(&mut self, wait: Duration) -> Result<Vec<String>> {
        let deadline = Instant::now() + wait;
        let session = self.session.clone();
        loop {
            let mut closing = pin!(session.closing());
            closing.as_mut().enable();
            let signal = self.with(|state, name, _, now_ms| state.posted(name, now_ms))?;
            // Armed before looking: what is posted after the look wakes this.
            let mut posted = pin!(signal.notified());
            posted.as_mut().enable();
            let messages = self.with(|state, name, seen, _| state.messages(name, seen))?;
            if !messages.is_empty() || Instant::now() >= deadline {
                return Ok(messages);
            }
            tokio::select! {
                biased;
                () = posted => {}
                () = closing => {}
                () = sleep_until(deadline) => {}
            }
        }
    }
}

impl MemoryInbox {
    fn with<T>(&mut self, step: impl FnOnce(&mut State, &str, &mut u64, u64) -> T) -> Result<T> {
        let shared = self.shared.upgrade().filter(|_| !self.session.is_closed());
        let shared = shared.ok_or_else(|| Error::closed("the memory store"))?;
        let now_ms = shared.env.now_ms();
        let done = step(&mut lock(&shared.state), &self.name, &mut self.seen, now_ms);
        Ok(done)
    }
}
