//! When the delayed events of this process are due: told by the publisher, heeded by the keeper.

use std::sync::Mutex;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::env::lock;
use super::store::{BUCKETS, Bucket};

/// When delayed events of this process are due, so that they are moved to the millisecond.
#[derive(Default)]
pub struct Alarms {
    next: Mutex<[Option<Instant>; BUCKETS as usize]>,
    /// Notified when the earliest may have changed.
    pub changed: Notify,
}

impl Alarms {
    /// An event of `bucket` is due in `delay`.
    pub fn set(&self, bucket: Bucket, delay: Duration) {
        let at = Instant::now() + delay;
        let mut next = lock(&self.next);
        let slot = &mut next[usize::from(bucket.0)];
        if slot.is_none_or(|known| at < known) {
            *slot = Some(at);
            self.changed.notify_one();
        }
    }

    /// The earliest.
    pub fn next(&self) -> Option<Instant> {
        lock(&self.next).iter().flatten().min().copied()
    }

    /// Buckets whose time has come; each is answered once.
    pub fn take_due(&self) -> Vec<Bucket> {
        let now = Instant::now();
        let mut next = lock(&self.next);
        Bucket::all().filter(|bucket| next[usize::from(bucket.0)].take_if(|at| *at <= now).is_some()).collect()
    }
}
