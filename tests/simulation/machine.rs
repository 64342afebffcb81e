//! What a process runs on: its tasks stop all at once and go on, or end at once; its wall clock may be wrong.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use ossa::engine::env::{Machine, lock};
use tokio::task::AbortHandle;
use tokio::time::Instant;

/// Wall time at the beginning of every schedule, ms.
pub const EPOCH_MS: u64 = 1_700_000_000_000;

/// The time that is turned, and the one from which all machines have theirs.
#[derive(Clone, Copy)]
pub struct Clock(Instant);

impl Clock {
    /// From now on.
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// ms since the beginning of the schedule.
    pub fn ms(&self) -> u64 {
        u64::try_from(self.0.elapsed().as_millis()).expect("a schedule is short")
    }
}

/// How a machine stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Runs,
    /// SIGSTOP: no task is polled.
    Frozen,
    /// SIGKILL: no task is polled any more, and all of them are dropped.
    Dead,
}

/// One process's.
pub struct SimMachine {
    clock: Clock,
    /// Its wall clock is ahead by so much, ms.
    ahead_ms: AtomicI64,
    tasks: Mutex<Tasks>,
}

struct Tasks {
    state: State,
    stopped: Vec<Waker>,
    all: Vec<AbortHandle>,
    /// Ended ones are forgotten when there are so many.
    forget_at: usize,
}

impl SimMachine {
    /// A machine whose wall clock is ahead by so much.
    pub fn new(clock: Clock, ahead_ms: i64) -> Arc<Self> {
        let tasks = Tasks { state: State::Runs, stopped: Vec::new(), all: Vec::new(), forget_at: 64 };
        Arc::new(Self { clock, ahead_ms: AtomicI64::new(ahead_ms), tasks: Mutex::new(tasks) })
    }

    /// Steps its wall clock.
    pub fn step(&self, by_ms: i64) {
        self.ahead_ms.fetch_add(by_ms, Ordering::Relaxed);
    }

    /// Its tasks stand still, until [`SimMachine::thaw`].
    pub fn freeze(&self) {
        let mut tasks = lock(&self.tasks);
        if tasks.state == State::Runs {
            tasks.state = State::Frozen;
        }
    }

    /// They go on.
    pub fn thaw(&self) {
        let stopped = {
            let mut tasks = lock(&self.tasks);
            if tasks.state != State::Frozen {
                return;
            }
            tasks.state = State::Runs;
            std::mem::take(&mut tasks.stopped)
        };
        stopped.into_iter().for_each(Waker::wake);
    }

    /// All of its tasks end, without a goodbye.
    pub fn kill(&self) {
        let all = {
            let mut tasks = lock(&self.tasks);
            tasks.state = State::Dead;
            tasks.stopped.clear();
            std::mem::take(&mut tasks.all)
        };
        all.iter().for_each(AbortHandle::abort);
    }

    /// Whether it was killed.
    pub fn is_dead(&self) -> bool {
        lock(&self.tasks).state == State::Dead
    }

    /// Whether its tasks run.
    pub fn runs(&self) -> bool {
        lock(&self.tasks).state == State::Runs
    }
}

impl Machine for SimMachine {
    fn now_ms(&self) -> u64 {
        (EPOCH_MS + self.clock.ms()).saturating_add_signed(self.ahead_ms.load(Ordering::Relaxed))
    }

    fn poll_runs(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut tasks = lock(&self.tasks);
        match tasks.state {
            State::Runs => Poll::Ready(()),
            State::Frozen => {
                tasks.stopped.push(cx.waker().clone());
                Poll::Pending
            }
            State::Dead => Poll::Pending,
        }
    }

    fn spawned(&self, task: AbortHandle) {
        let mut tasks = lock(&self.tasks);
        if tasks.state == State::Dead {
            task.abort();
            return;
        }
        tasks.all.push(task);
        if tasks.all.len() >= tasks.forget_at {
            tasks.all.retain(|task| !task.is_finished());
            tasks.forget_at = 2 * tasks.all.len().max(32);
        }
    }
}

/// Milliseconds.
pub fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}
