//! The engine's threads: one tokio runtime for all buses of the process, in whatever environment (main thread, worker,
//! jest) they were made; it ends with the last of them.

use std::sync::{Arc, Mutex, Weak};
use std::thread::available_parallelism;

use tokio::runtime::{Builder, Handle, Runtime};

use super::awake::Awake;
use crate::engine::env::lock;
use crate::engine::error::{Error, Result};

/// One: every hand-over stays within it. Measured with 1 and 2 on two cores: throughput and latency the same within the
/// noise, 4 to 6 % less CPU time with 1.
const THREADS: usize = 1;

/// What JavaScript hands over is looked for before every so many tasks. The default, some sixty, is half the time that a publish takes.
const LOOK_EVERY: u32 = 2;

static SHARED: Mutex<Weak<Threads>> = Mutex::new(Weak::new());

/// Keeps the runtime alive.
pub struct Threads {
    runtime: Option<Runtime>,
    /// Where the only CPU is that of the program, nothing is gained by staying awake.
    stays_awake: bool,
}

impl Threads {
    /// The runtime of the process, started if there is none.
    pub fn acquire() -> Result<Arc<Self>> {
        let mut shared = lock(&SHARED);
        if let Some(threads) = shared.upgrade() {
            return Ok(threads);
        }
        let runtime = Builder::new_multi_thread()
            .worker_threads(THREADS)
            .global_queue_interval(LOOK_EVERY)
            .thread_name("ossa")
            .enable_all()
            .build()
            .map_err(|e| Error::internal(format!("the engine's threads could not be started: {e}")))?;
        let stays_awake = available_parallelism().is_ok_and(|cpus| cpus.get() > THREADS);
        let threads = Arc::new(Self { runtime: Some(runtime), stays_awake });
        *shared = Arc::downgrade(&threads);
        Ok(threads)
    }

    /// Where to run things.
    pub fn handle(&self) -> Handle {
        self.runtime.as_ref().expect("the runtime is taken out in drop alone").handle().clone()
    }

    /// So many publishes were handed over, see [`Awake`].
    pub fn keep_awake(&self, awake: &Arc<Awake>, count: usize) {
        if self.stays_awake
            && let Some(runtime) = &self.runtime
        {
            awake.published(count, runtime.handle());
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // The last user may be one of its own tasks, which must not wait for itself.
            runtime.shutdown_background();
        }
    }
}
