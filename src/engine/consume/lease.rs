//! The lease of a bus's consumer: what the keeper renews, what the task checks.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use crate::engine::env::lock;
use crate::engine::store::Bucket;

/// How long a process that does not renew it keeps what it holds.
pub const LEASE: Duration = Duration::from_secs(8);

/// The lease of this bus's consumer.
pub struct Lease(Mutex<LeaseState>);

struct LeaseState {
    consumer: Arc<str>,
    /// Those in use, and those that were: a lease given up and taken again could be told as lapsed, or end a new one.
    buckets: Vec<Bucket>,
    /// It is let go: nothing is renewed.
    suspended: bool,
    renewed: Instant,
}

impl Lease {
    pub(super) fn new(consumer: Arc<str>) -> Self {
        Self(Mutex::new(LeaseState { consumer, buckets: Vec::new(), suspended: false, renewed: Instant::now() }))
    }

    /// What is to be renewed; no bucket while it is let go.
    pub fn current(&self) -> (Arc<str>, Vec<Bucket>) {
        let state = lock(&self.0);
        (state.consumer.clone(), if state.suspended { Vec::new() } else { state.buckets.clone() })
    }

    /// Whether it is let go.
    pub fn is_suspended(&self) -> bool {
        lock(&self.0).suspended
    }

    /// It was renewed, in all its buckets, by a call that began at `at`.
    pub fn renewed(&self, consumer: &str, at: Instant) {
        let mut state = lock(&self.0);
        if *state.consumer == *consumer {
            state.renewed = state.renewed.max(at);
        }
    }

    /// Whether what is held may have gone to others, as far as the own clock can tell: a process that was stopped
    /// finds out by this before it does anything.
    pub fn is_stale(&self) -> bool {
        let state = lock(&self.0);
        !state.suspended && state.renewed.elapsed() >= LEASE
    }

    /// From now on it holds in these buckets, too. Answers what is to be renewed.
    pub(super) fn widen(&self, buckets: impl IntoIterator<Item = Bucket>) -> (Arc<str>, Vec<Bucket>) {
        let mut state = lock(&self.0);
        for bucket in buckets {
            if !state.buckets.contains(&bucket) {
                state.buckets.push(bucket);
            }
        }
        drop(state);
        self.current()
    }

    /// Goes on under a new name.
    pub(super) fn rename(&self, consumer: Arc<str>) {
        let mut state = lock(&self.0);
        (state.consumer, state.renewed) = (consumer, Instant::now());
    }

    /// Lets go of it, or takes it up. Answers the buckets it is about.
    pub(super) fn suspend(&self, suspended: bool) -> Vec<Bucket> {
        let mut state = lock(&self.0);
        (state.suspended, state.renewed) = (suspended, Instant::now());
        state.buckets.clone()
    }
}
