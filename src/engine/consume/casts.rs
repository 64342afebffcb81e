//! Events for the subscribers of this moment on their way to the task, bounded: whoever sends them waits for nobody.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::time::Instant;

use super::group::GroupName;
use crate::engine::store::Transient;
use crate::engine::trace::Open;

/// Most that the task has not looked at.
const CASTS_MAX: usize = 10_000;

/// How many are on their way.
#[derive(Default)]
pub struct Casts {
    count: Arc<AtomicUsize>,
    overflows: AtomicBool,
}

/// One on its way, counted until it is dropped.
pub struct Cast {
    /// The event.
    pub event: Arc<Transient>,
    count: Arc<AtomicUsize>,
}

impl Drop for Cast {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Casts {
    /// Lets one more in, or drops it, and says so once until there is room again.
    pub fn admit(&self, event: Arc<Transient>) -> Option<Cast> {
        if self.count.load(Ordering::Acquire) < CASTS_MAX {
            self.overflows.store(false, Ordering::Release);
            self.count.fetch_add(1, Ordering::AcqRel);
            return Some(Cast { event, count: self.count.clone() });
        }
        if !self.overflows.swap(true, Ordering::AcqRel) {
            tracing::warn!("transient events come faster than this bus can look at them: those beyond {CASTS_MAX} are dropped");
        }
        None
    }
}

/// A handler that has such an event.
pub struct InTransit {
    /// Its subscription.
    pub subscription: u32,
    /// Its group.
    pub group: GroupName,
    /// The event's type.
    pub event_type: Arc<str>,
    /// The event's id.
    pub event_id: String,
    /// When it was called.
    pub started: Instant,
    /// Its time was over, and it still runs.
    pub overdue: bool,
    /// Of its call, where its trace is recorded.
    pub span: Option<Open>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::log::{Level, Log};

    #[test]
    fn what_is_too_much_is_refused_and_said_once_an_episode() {
        let said = Arc::new(AtomicUsize::new(0));
        let count = said.clone();
        let log = Log::new(Level::Warn, move |_| {
            count.fetch_add(1, Ordering::AcqRel);
        });
        let casts = Casts::default();
        let event = || Arc::new(Transient { event_type: "t".into(), meta: String::new(), data: String::new() });
        let admit = || log.within(|| casts.admit(event()));
        let mut held: Vec<Cast> = (0..CASTS_MAX).map(|_| admit().unwrap()).collect();
        assert_eq!(said.load(Ordering::Acquire), 0);
        assert!(admit().is_none());
        assert_eq!(said.load(Ordering::Acquire), 1);
        assert!(admit().is_none());
        assert_eq!(said.load(Ordering::Acquire), 1);
        held.pop();
        held.push(admit().unwrap());
        assert!(admit().is_none());
        assert_eq!(said.load(Ordering::Acquire), 2);
    }
}
