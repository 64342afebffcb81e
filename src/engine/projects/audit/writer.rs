//! How records come into the chain of this bus: gathered, hashed one after the other, appended in one step with the chain's head.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::record::{self, Entry};
use crate::engine::env::Env;
use crate::engine::error::{Code, Error, Result};
use crate::engine::host::{Host, Lifecycle};
use crate::engine::store::{ChainBatch, Store};

/// Records of one step, about.
const RECORDS_A_STEP: usize = 500;
/// Records that may wait for Redis.
const WAITING_MAX: usize = 100_000;
/// Pause before what could not be appended is appended again.
const RETRY_PAUSE: Duration = Duration::from_millis(250);

struct Job {
    entries: Vec<Entry>,
    done: oneshot::Sender<Result<()>>,
}

/// The audit log of a bus, for writing.
pub struct Audit {
    jobs: mpsc::UnboundedSender<Job>,
    waiting: Arc<AtomicUsize>,
    host: Arc<dyn Host>,
    /// More had to be recorded than can wait; said once.
    is_full: AtomicBool,
}

impl Audit {
    /// Begins a chain; another one after a silence of half the retention, because of what is older nothing may be left.
    pub fn start(env: &Env, store: Arc<dyn Store>, host: Arc<dyn Host>, retention_ms: u64) -> Self {
        // Unbounded: WAITING_MAX bounds the entries in it.
        let (jobs, inbox) = mpsc::unbounded_channel();
        let waiting = Arc::<AtomicUsize>::default();
        let writer = Writer {
            store,
            env: env.clone(),
            chain: env.hex(16),
            last: 0,
            hash: String::new(),
            written_ms: 0,
            silence_ms_max: retention_ms / 2,
            waiting: waiting.clone(),
        };
        env.spawn(writer.run(inbox));
        Self { jobs, waiting, host, is_full: AtomicBool::new(false) }
    }

    /// Records the entries, in order; done when they are in the store. While Redis is away they wait for it.
    ///
    /// # Errors
    /// `ERR_BACKPRESSURE` where too many wait: these are not recorded. Those of the store that stay.
    pub async fn record(&self, entries: Vec<Entry>) -> Result<()> {
        if entries.is_empty() {
            return Ok(());
        }
        let count = entries.len();
        if self.waiting.fetch_add(count, Ordering::AcqRel) + count > WAITING_MAX {
            self.waiting.fetch_sub(count, Ordering::AcqRel);
            let message = format!("{WAITING_MAX} audit records wait for Redis: more cannot be kept");
            if !self.is_full.swap(true, Ordering::AcqRel) {
                self.host.lifecycle(vec![Lifecycle::warn(format!("{message}. What is refused meanwhile is not recorded"))]);
            }
            return Err(Error::new(Code::Backpressure, message));
        }
        self.is_full.store(false, Ordering::Release);
        let (done, answer) = oneshot::channel();
        if self.jobs.send(Job { entries, done }).is_err() {
            return Err(Error::closed("the audit log"));
        }
        answer.await.unwrap_or_else(|_| Err(Error::closed("the audit log")))
    }
}

struct Writer {
    store: Arc<dyn Store>,
    env: Env,
    chain: String,
    /// Number and hash of the last record.
    last: u64,
    hash: String,
    /// When it was written, by the server's time.
    written_ms: u64,
    silence_ms_max: u64,
    waiting: Arc<AtomicUsize>,
}

impl Writer {
    async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Job>) {
        while let Some(first) = inbox.recv().await {
            let mut count = first.entries.len();
            let mut jobs = vec![first];
            while count < RECORDS_A_STEP
                && let Ok(job) = inbox.try_recv()
            {
                count += job.entries.len();
                jobs.push(job);
            }
            let result = self.append(&jobs).await;
            self.waiting.fetch_sub(count, Ordering::AcqRel);
            for job in jobs {
                let _ = job.done.send(result.clone());
            }
        }
    }

    async fn append(&mut self, jobs: &[Job]) -> Result<()> {
        let at_ms = self.store.now_ms();
        if self.last > 0 && at_ms.saturating_sub(self.written_ms) > self.silence_ms_max {
            self.begin_anew();
        }
        match self.try_append(jobs, at_ms).await {
            Err(error) if self.last > 0 => {
                // The store knows of another end of the chain: it lost the last records, as by a failover. They cannot be made up
                // for, and nothing would ever follow them.
                tracing::warn!(%error, "a new chain of audit records begins");
                self.begin_anew();
                self.try_append(jobs, at_ms).await
            }
            result => result,
        }
    }

    fn begin_anew(&mut self) {
        (self.chain, self.last, self.hash) = (self.env.hex(16), 0, String::new());
    }

    /// A chain has no gap: what was sent once is sent again until the store says yes or no.
    async fn try_append(&mut self, jobs: &[Job], at_ms: u64) -> Result<()> {
        let (mut last, mut hash) = (self.last, self.hash.clone());
        let mut batch = ChainBatch { chain: self.chain.clone(), first: last + 1, ..ChainBatch::default() };
        let (mut counts, mut times) = (BTreeMap::new(), BTreeMap::new());
        for entry in jobs.iter().flat_map(|job| &job.entries) {
            last += 1;
            let record = record::write(entry, &self.chain, last, at_ms, &hash);
            hash.clone_from(&record.hash);
            batch.records.push(record);
            record::count(entry, at_ms, &mut counts, &mut times);
        }
        (batch.counts, batch.times) = (counts, times);
        loop {
            match self.store.append_records(&batch).await {
                Ok(()) => break,
                Err(error) if error.retryable => {
                    tracing::debug!(%error, "audit records wait for the server");
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
                Err(error) => return Err(error),
            }
        }
        (self.last, self.hash, self.written_ms) = (last, hash, at_ms);
        Ok(())
    }
}
