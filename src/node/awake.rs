//! Keeps the engine's thread from going to sleep while something is about to come: being woken takes a thread longer than a
//! server on the same machine needs for its answer.
//!
//! Only a single publish is waited for so, as a program makes that awaits each one: where many are on their way, all CPUs have
//! something better to do. What did not come in time a few times is waited for ever more seldom, so that a server that is further
//! away, or a program that publishes now and then, costs next to nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::task::yield_now;

/// How long something is waited for. Being woken takes 30 to 60 µs on the machines that this was measured on.
const WAIT_MAX: Duration = Duration::from_micros(100);
/// Most times in a row that something is not waited for after it did not come.
const SKIPS_MAX: u32 = 1023;

/// Whether it pays to wait for something: every miss doubles the number of times that it is not.
#[derive(Default)]
struct Luck {
    penalty: AtomicU32,
    skips: AtomicU32,
}

impl Luck {
    fn tries(&self) -> bool {
        let less = |skips: u32| skips.checked_sub(1);
        self.skips.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_err()
    }

    fn came(&self, in_time: bool) {
        let penalty = if in_time { 0 } else { (self.penalty.load(Ordering::Relaxed) * 2 + 1).min(SKIPS_MAX) };
        self.penalty.store(penalty, Ordering::Relaxed);
        self.skips.store(penalty, Ordering::Relaxed);
    }
}

/// Of one bus.
#[derive(Default)]
pub struct Awake {
    /// Results that are awaited.
    waiting: AtomicUsize,
    /// Publishes so far.
    published: AtomicUsize,
    is_waiting: AtomicBool,
    results: Luck,
    publishes: Luck,
}

impl Awake {
    /// So many publishes were handed over.
    pub fn published(self: &Arc<Self>, count: usize, runtime: &Handle) {
        let others = self.waiting.fetch_add(count, Ordering::Relaxed);
        self.published.fetch_add(count, Ordering::Relaxed);
        let is_alone = others == 0 && count == 1;
        if is_alone && !self.is_waiting.load(Ordering::Relaxed) && self.results.tries() && !self.is_waiting.swap(true, Ordering::AcqRel) {
            runtime.spawn(self.clone().wait());
        }
    }

    /// So many of them were answered.
    pub fn answered(&self, count: usize) {
        let less = |waiting: usize| Some(waiting.saturating_sub(count));
        let _ = self.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    async fn wait(self: Arc<Self>) {
        loop {
            let is_answered = in_time(|| self.waiting.load(Ordering::Relaxed) == 0).await;
            self.results.came(is_answered);
            if !is_answered || !self.publishes.tries() {
                break;
            }
            let before = self.published.load(Ordering::Relaxed);
            let is_followed = in_time(|| self.published.load(Ordering::Relaxed) != before).await;
            self.publishes.came(is_followed);
            if !is_followed || self.waiting.load(Ordering::Relaxed) > 1 {
                break;
            }
        }
        self.is_waiting.store(false, Ordering::Release);
    }
}

/// Lets everything else run until it is so, or the time is over.
async fn in_time(is_so: impl Fn() -> bool) -> bool {
    let began = Instant::now();
    while !is_so() {
        if began.elapsed() > WAIT_MAX {
            return false;
        }
        yield_now().await;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_never_comes_is_waited_for_ever_more_seldom_and_what_came_again_always() {
        let luck = Luck::default();
        let mut tries = 0;
        for _ in 0..10_000 {
            if luck.tries() {
                tries += 1;
                luck.came(false);
            }
        }
        assert!((10..25).contains(&tries), "{tries}");
        luck.came(true);
        assert!((0..100).all(|_| luck.tries()));
    }

    #[tokio::test]
    async fn it_waits_for_a_single_publish_and_not_for_many() {
        let awake = Arc::new(Awake::default());
        awake.published(2, &Handle::current());
        assert!(!awake.is_waiting.load(Ordering::Relaxed));
        awake.answered(2);
        awake.published(1, &Handle::current());
        assert!(awake.is_waiting.load(Ordering::Relaxed));
        awake.answered(1);
        while awake.is_waiting.load(Ordering::Relaxed) {
            yield_now().await;
        }
        // The next one did not come.
        assert_eq!((awake.results.penalty.load(Ordering::Relaxed), awake.publishes.penalty.load(Ordering::Relaxed)), (0, 1));
    }
}
