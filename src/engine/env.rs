//! Time, ids, randomness, and where tasks run: the one source of each, so that tests control all of them.

use std::future::poll_fn;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rand::{Rng, RngCore, SeedableRng, rngs::SmallRng};
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::Instant;

use super::log::Log;

/// Wall clock, ids and random numbers of one bus, and the log of its tasks. Cheap to clone.
#[derive(Clone)]
pub struct Env(Arc<Inner>, Log);

struct Inner {
    /// Wall time at `start`, where the wall clock runs on tokio's, which tests pause and turn.
    epoch: Duration,
    start: Instant,
    clock: Clock,
    random: Mutex<SmallRng>,
    ids: Mutex<IdState>,
}

/// What tells the wall time.
enum Clock {
    /// The system's (production): it may be stepped, ids follow it.
    System,
    /// tokio's.
    Turned,
    /// A simulated machine's.
    Of(Arc<dyn Machine>),
}

/// A machine that is simulated: its wall clock may be stepped, and all tasks on it may stand still for a while, or end at
/// once, as those of a process that is stopped or killed.
pub trait Machine: Send + Sync {
    /// Its wall time, ms since 1970.
    fn now_ms(&self) -> u64;
    /// Ready while tasks run; else the task is woken when they go on.
    fn poll_runs(&self, cx: &mut Context<'_>) -> Poll<()>;
    /// One more task runs on it.
    fn spawned(&self, task: AbortHandle);
}

#[derive(Default)]
struct IdState {
    last_ms: u64,
    counter: u16,
}

impl Env {
    /// The system's clock and randomness.
    pub fn system() -> Self {
        Self::build(SmallRng::from_os_rng(), Clock::System)
    }

    /// Seeded, with a wall clock that follows tokio's (paused) time.
    pub fn seeded(seed: u64) -> Self {
        Self::build(SmallRng::seed_from_u64(seed), Clock::Turned)
    }

    /// Seeded, on a simulated machine.
    pub fn on(machine: Arc<dyn Machine>, seed: u64) -> Self {
        Self::build(SmallRng::seed_from_u64(seed), Clock::Of(machine))
    }

    fn build(random: SmallRng, clock: Clock) -> Self {
        let epoch = Duration::from_secs(1_700_000_000);
        Self(Arc::new(Inner { epoch, start: Instant::now(), clock, random: Mutex::new(random), ids: Mutex::default() }), Log::default())
    }

    /// The same, but what its tasks say goes to `log`.
    #[must_use]
    pub fn logging(&self, log: Log) -> Self {
        Self(self.0.clone(), log)
    }

    /// Where what its tasks say goes.
    pub fn log(&self) -> &Log {
        &self.1
    }

    /// Wall time, ms since 1970.
    pub fn now_ms(&self) -> u64 {
        let now = match &self.0.clock {
            Clock::System => wall(),
            Clock::Turned => self.0.epoch + self.0.start.elapsed(),
            Clock::Of(machine) => return machine.now_ms(),
        };
        u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
    }

    /// The same in ns, as fine as the clock is.
    pub fn now_ns(&self) -> u64 {
        let now = match &self.0.clock {
            Clock::System => wall(),
            Clock::Turned => self.0.epoch + self.0.start.elapsed(),
            Clock::Of(machine) => return machine.now_ms().saturating_mul(1_000_000),
        };
        u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
    }

    /// Runs a task beside the caller's, on the machine of this bus, under its log.
    pub fn spawn<T: Send + 'static>(&self, task: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        let task = self.1.along(task);
        let Clock::Of(machine) = &self.0.clock else { return tokio::spawn(task) };
        let (runs_on, mut task) = (machine.clone(), Box::pin(task));
        let handle = tokio::spawn(poll_fn(move |cx| {
            ready!(runs_on.poll_runs(cx));
            task.as_mut().poll(cx)
        }));
        machine.spawned(handle.abort_handle());
        handle
    }

    /// A random number in `0.0..1.0`.
    pub fn random(&self) -> f64 {
        lock(&self.0.random).random()
    }

    /// 64 random bits.
    pub fn bits(&self) -> u64 {
        lock(&self.0.random).next_u64()
    }

    /// A `UUIDv7` (RFC 9562): ms of the wall clock, a counter within the millisecond, 62 random bits. Ids of one
    /// bus rise even when the wall clock steps back.
    pub fn new_id(&self) -> Arc<str> {
        self.new_id_at(self.now_ms())
    }

    /// The same, where the time is known.
    pub fn new_id_at(&self, now: u64) -> Arc<str> {
        let (ms, counter) = {
            let mut ids = lock(&self.0.ids);
            if now > ids.last_ms {
                *ids = IdState { last_ms: now, counter: 0 };
            } else if ids.counter == 0xfff {
                ids.last_ms += 1;
                ids.counter = 0;
            } else {
                ids.counter += 1;
            }
            (ids.last_ms, ids.counter)
        };
        let random = lock(&self.0.random).next_u64();
        format_uuid(u128::from(ms) << 80 | 0x7 << 76 | u128::from(counter) << 64 | 0b10 << 62 | u128::from(random >> 2))
    }

    /// `count` random hex digits, for names.
    pub fn hex(&self, count: usize) -> String {
        let mut random = lock(&self.0.random);
        (0..count).map(|_| char::from(HEX[usize::from(random.random::<u8>() & 15)])).collect()
    }
}

const HEX: &[u8; 16] = b"0123456789abcdef";

fn format_uuid(value: u128) -> Arc<str> {
    let mut out = [b'-'; 36];
    let mut at = 0;
    for (i, byte) in value.to_be_bytes().into_iter().enumerate() {
        at += usize::from(matches!(i, 4 | 6 | 8 | 10));
        out[at] = HEX[usize::from(byte >> 4)];
        out[at + 1] = HEX[usize::from(byte & 15)];
        at += 2;
    }
    str::from_utf8(&out).expect("hex digits").into()
}

fn wall() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Locks; a panic elsewhere does not spread: what the mutex guards is valid at every step.
pub fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn ids_are_uuid_v7_and_rise_within_a_millisecond() {
        let env = Env::seeded(1);
        let ids: Vec<Arc<str>> = (0..10_000).map(|_| env.new_id()).collect();
        assert!(ids.windows(2).all(|pair| pair[0] < pair[1]));
        assert_eq!(ids[0].as_bytes()[14], b'7');
        assert!(matches!(ids[0].as_bytes()[19], b'8' | b'9' | b'a' | b'b'));
        assert_eq!(ids[0].len(), 36);
        assert_eq!(u64::from_str_radix(&ids[0].replace('-', "")[..12], 16).unwrap(), 1_700_000_000_000);
    }

    #[tokio::test(start_paused = true)]
    async fn the_seeded_wall_clock_follows_turned_time() {
        let env = Env::seeded(1);
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(env.now_ms(), 1_700_000_005_000);
    }
}
