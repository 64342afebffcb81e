//! Events for the subscribers of this moment on their way to the task, bounded: whoever sends them waits for nobody.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::time::Instant;

use super::group::GroupName;
use crate::engine::host::Lifecycle;
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
    /// Lets one more in. A refusal says so once, until there is room again.
    pub fn admit(&self, event: Arc<Transient>) -> Result<Cast, Option<Lifecycle>> {
        if self.count.load(Ordering::Acquire) < CASTS_MAX {
            self.overflows.store(false, Ordering::Release);
            self.count.fetch_add(1, Ordering::AcqRel);
            return Ok(Cast { event, count: self.count.clone() });
        }
        let first = !self.overflows.swap(true, Ordering::AcqRel);
        Err(first.then(|| {
            Lifecycle::warn(format!("transient events come faster than this bus can look at them: those beyond {CASTS_MAX} are dropped"))
        }))
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

    #[test]
    fn what_is_too_much_is_refused_and_said_once_an_episode() {
        let casts = Casts::default();
        let event = || Arc::new(Transient { event_type: "t".into(), meta: String::new(), data: String::new() });
        let mut held: Vec<Cast> = (0..CASTS_MAX).map(|_| casts.admit(event()).ok().unwrap()).collect();
        assert!(matches!(casts.admit(event()), Err(Some(_))));
        assert!(matches!(casts.admit(event()), Err(None)));
        held.pop();
        held.push(casts.admit(event()).ok().unwrap());
        assert!(matches!(casts.admit(event()), Err(Some(_))));
    }
}
