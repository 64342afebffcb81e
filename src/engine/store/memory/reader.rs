//! Reads that wait without spinning: an append wakes the readers of the groups it concerns.

use std::pin::pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::super::{Entry, ReadError, ReadFrom, Reader, Waker};
use super::shared::{Session, Shared};
use super::state::State;
use crate::engine::env::lock;
use crate::engine::error::Error;

/// Longest wait of one read, where more is asked for: a clock cannot count further.
const WAIT_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

pub(super) struct MemoryReader {
    pub(super) group: String,
    /// Weak: a reader that was left behind does not keep a named store alive.
    pub(super) shared: Weak<Shared>,
    pub(super) session: Arc<Session>,
    pub(super) grown: Arc<Notify>,
    pub(super) wake: Arc<MemoryWaker>,
}

/// Ends one read; a wake while none waits ends the next one's wait.
#[derive(Default)]
pub(super) struct MemoryWaker(Notify);

impl Waker for MemoryWaker {
    fn wake(&self) {
        self.0.notify_one();
    }
}

#[async_trait]
impl Reader for MemoryReader {
    async fn read(&mut self, consumer: &str, from: &[ReadFrom], count: usize, wait: Option<Duration>) -> Result<Vec<Entry>, ReadError> {
        let deadline = wait.map(|wait| Instant::now() + wait.min(WAIT_MAX));
        loop {
            // Both are armed before looking: what comes after the look wakes this read.
            let mut grown = pin!(self.grown.notified());
            grown.as_mut().enable();
            let mut closing = pin!(self.session.closing());
            closing.as_mut().enable();
            let entries = self.take(consumer, from, count)?;
            let Some(deadline) = deadline.filter(|_| entries.is_empty()) else { return Ok(entries) };
            tokio::select! {
                biased;
                () = grown => {}
                () = closing => {}
                () = self.wake.0.notified() => return self.take(consumer, from, count),
                () = sleep_until(deadline) => return self.take(consumer, from, count),
            }
        }
    }
}

impl MemoryReader {
    fn take(&self, consumer: &str, from: &[ReadFrom], count: usize) -> Result<Vec<Entry>, ReadError> {
        let shared = self.shared.upgrade().filter(|_| !self.session.is_closed());
        let shared = shared.ok_or_else(|| ReadError::Store(Error::closed("the memory store")))?;
        take_all(&mut lock(&shared.state), &self.group, consumer, from, count)
    }
}

/// Nothing is taken anywhere when the group is missing somewhere.
fn take_all(state: &mut State, group: &str, consumer: &str, from: &[ReadFrom], count: usize) -> Result<Vec<Entry>, ReadError> {
    let has_group = |read: &ReadFrom| state.stream(&read.partition).is_some_and(|stream| stream.groups.contains_key(group));
    if !from.iter().all(has_group) {
        return Err(ReadError::NoGroup);
    }
    let mut taken = Vec::new();
    if from.iter().any(|read| read.owned_after.is_some() && !state.is_owner(&read.partition, group, consumer)) {
        return Err(ReadError::NotOwner);
    }
    for ReadFrom { partition, .. } in from {
        let stream = state.stream_mut(partition).ok_or(ReadError::NoGroup)?;
        taken.extend(stream.take(partition, group, consumer, count).ok_or(ReadError::NoGroup)?);
    }
    Ok(taken)
}
