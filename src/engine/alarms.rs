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
        if self.note(bucket, delay) {
            self.changed.notify_one();
        }
    }

    /// The same without a notice, for whoever heeds the alarms anyway. Answers whether it is earlier than what was known.
    pub fn note(&self, bucket: Bucket, delay: Duration) -> bool {
        let at = Instant::now().checked_add(delay);
        let mut next = lock(&self.next);
        let slot = &mut next[usize::from(bucket.0)];
        let is_earlier = at.is_some_and(|at| slot.is_none_or(|known| at < known));
        if is_earlier {
            *slot = at;
        }
        is_earlier
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
