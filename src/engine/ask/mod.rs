//! Asking back: who waits for what becomes of an event it published.
//!
//! Each bus that asks has an inbox ([`message`]: what is in it, [`post`]: how it gets there). Whoever handles the event
//! posts the answer; here it finds its call. That a group acknowledged the event is looked for as well ([`looks`]): a
//! process that ends right after it acknowledged cannot say so.

mod looks;
pub mod message;
mod post;
mod waiting;

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::env::{Env, lock};
use super::error::{Code, Error, Result};
use super::host::{Host, Lifecycle, Token};
use super::options::Ask;
use super::store::{Partition, Store};
use crate::engine::log::failed;
use message::Answer;
pub use post::{Letters, post};
pub use waiting::Wait;
use waiting::{Answered, Waiting};

/// Longest wait of one read of the inbox.
const RECEIVE_WAIT: Duration = Duration::from_secs(5);
/// Pauses after reads that failed.
const RECEIVE_PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// All calls of a bus that wait for more than that their event is stored.
pub struct Asking {
    inbox: Arc<str>,
    store: Arc<dyn Store>,
    host: Arc<dyn Host>,
    env: Env,
    /// Publishes without an answer, these included.
    pending: Arc<AtomicUsize>,
    waiting: Mutex<Waiting>,
    /// There is a new deadline, or something to look for.
    changed: Notify,
    looks: Notify,
    task: Mutex<Option<tokio::task::JoinHandle<()>>>,
}

impl Asking {
    /// Nobody asks yet: no task runs, and nothing is read. `pending` counts down as calls are answered.
    pub fn new(env: Env, store: Arc<dyn Store>, host: Arc<dyn Host>, pending: Arc<AtomicUsize>) -> Arc<Self> {
        Arc::new(Self {
            inbox: env.hex(16).into(),
            env,
            store,
            host,
            pending,
            waiting: Mutex::default(),
            changed: Notify::new(),
            looks: Notify::new(),
            task: Mutex::default(),
        })
    }

    /// Name of the inbox.
    pub fn inbox(&self) -> &str {
        &self.inbox
    }

    /// A call that waits, before its event is on its way: the answer may be faster than that it is stored. `ERR_CLOSED`
    /// once nobody is waited for any more.
    pub fn register(self: &Arc<Self>, token: Token, wait: Wait) -> Result<()> {
        if !lock(&self.waiting).insert(token, wait) {
            return Err(Error::closed("the bus"));
        }
        self.begin();
        self.changed.notify_one();
        Ok(())
    }

    /// Reads the inbox from now on, also while nobody waits for an answer. `ERR_CLOSED` once that ended.
    pub fn listen(self: &Arc<Self>) -> Result<()> {
        if lock(&self.waiting).is_closed() {
            return Err(Error::closed("the bus"));
        }
        self.begin();
        Ok(())
    }

    fn begin(self: &Arc<Self>) {
        let mut task = lock(&self.task);
        if task.is_none() {
            *task = Some(self.env.spawn(self.clone().run()));
        }
    }

    /// The event of the call goes there.
    pub fn placed(&self, token: Token, partition: &Partition) {
        lock(&self.waiting).placed(token, partition);
    }

    /// Takes out of the results of publishes those of calls that wait on, and of calls that were answered before.
    pub fn sift(&self, results: &mut Vec<(Token, Result<Arc<str>>)>) {
        let mut waiting = lock(&self.waiting);
        if waiting.is_empty() {
            return;
        }
        let mut late = Vec::new();
        results.retain_mut(|(token, result)| match waiting.stored(*token, result) {
            // A failure of a call that waited: its answer.
            None => true,
            Some(Answered { over, error }) => {
                if let Some(error) = error {
                    late.push((*token, Err(error)));
                } else if !over {
                    self.looks.notify_one();
                }
                // Those that wait on are still counted.
                if over {
                    self.pending.fetch_sub(1, Ordering::AcqRel);
                }
                false
            }
        });
        drop(waiting);
        if !late.is_empty() {
            self.host.published(late);
        }
    }

    /// Nobody waits for this one any more: `ERR_ABORTED`. What it published stays.
    pub fn cancel(&self, token: Token) {
        let error = Error::new(Code::Aborted, "the wait for an answer was aborted; the event stays published");
        self.answer(|waiting| waiting.take(token).map(|over| (token, over, Err(error))).into_iter().collect());
    }

    /// Answers all that wait with `error`, and whoever comes later. Idempotent.
    pub fn close(&self, error: &Error) {
        self.answer(|waiting| {
            let all = waiting.close();
            all.into_iter().map(|(token, over)| (token, over, Err(error.clone()))).collect()
        });
        if let Some(task) = &*lock(&self.task) {
            task.abort();
        }
    }

    /// Deletes the inbox, if there was one.
    pub async fn remove_inbox(&self) {
        if lock(&self.task).is_none() {
            return;
        }
        if let Err(error) = self.store.remove_inbox(&self.inbox).await {
            tracing::debug!(%error, "an inbox stays until its time is over");
        }
    }

    /// Answers calls; those that are over are not counted any more.
    fn answer(&self, take: impl FnOnce(&mut Waiting) -> Vec<(Token, bool, Result<String>)>) {
        let taken = take(&mut lock(&self.waiting));
        let over = taken.iter().filter(|(_, over, _)| *over).count();
        self.pending.fetch_sub(over, Ordering::AcqRel);
        let answers: Vec<(Token, Result<Arc<str>>)> = taken.into_iter().map(|(token, _, result)| (token, result.map(Into::into))).collect();
        if !answers.is_empty() {
            self.host.published(answers);
        }
    }

    async fn run(self: Arc<Self>) {
        let all = async { tokio::join!(self.receive(), self.watch_deadlines(), self.look_for_decisions()) };
        if let Err(panic) = AssertUnwindSafe(all).catch_unwind().await {
            let error = Error::panicked(panic.as_ref());
            tracing::error!(%error, "the task that waits for answers ended");
            self.host.lifecycle(vec![Lifecycle::error(&error)]);
            self.close(&error);
        }
    }

    async fn receive(&self) {
        let mut inbox = self.store.inbox(&self.inbox);
        let mut pause = RECEIVE_PAUSE.0;
        let mut refused = false;
        loop {
            match inbox.receive(RECEIVE_WAIT).await {
                Ok(messages) => {
                    (pause, refused) = (RECEIVE_PAUSE.0, false);
                    self.received(&messages);
                }
                Err(error) => {
                    // A server that is away is told by `connection:lost`; one that refuses would go unnoticed.
                    if !error.retryable && error.code != Code::Closed && !refused {
                        refused = true;
                        self.host.lifecycle(vec![Lifecycle::error(&error)]);
                    }
                    failed!(error, "reading the inbox");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(RECEIVE_PAUSE.1);
                }
            }
        }
    }

    fn received(&self, messages: &[String]) {
        let (letters, messages): (Vec<&String>, Vec<&String>) = messages.iter().partition(|message| message.starts_with(message::LETTER));
        if !letters.is_empty() {
            self.host.posted(letters.into_iter().cloned().collect());
        }
        let answers: Vec<(String, Answer)> = messages.into_iter().filter_map(|message| message::read(message)).collect();
        if !answers.is_empty() {
            self.answer(|waiting| answers.into_iter().flat_map(|(event_id, answer)| waiting.decided(&event_id, &answer)).collect());
        }
    }

    async fn watch_deadlines(&self) {
        loop {
            let changed = self.changed.notified();
            let next = lock(&self.waiting).next_deadline();
            match next {
                Some(at) => tokio::select! {
                    biased;
                    () = tokio::time::sleep_until(at) => {}
                    () = changed => {}
                },
                None => changed.await,
            }
            self.answer(|waiting| waiting.expired(Instant::now()));
        }
    }
}

/// What a call is told when its time is over.
fn timed_out(ask: Ask, event_type: &str, event_id: &str) -> Error {
    let (code, ms, message) = match ask {
        Ask::Acknowledgement(ms) => {
            (Code::AckTimeout, ms, format!("no group acknowledged '{event_type}' within ackTimeoutMs ({ms} ms); the event stays published"))
        }
        Ask::Reply(ms) => (
            Code::RequestTimeout,
            ms,
            format!(
                "nobody answered '{event_type}' within timeoutMs ({ms} ms). Is there a subscription, and does its handler return in time?"
            ),
        ),
    };
    Error::new(code, message).with("timeoutMs", ms).with("eventId", event_id)
}
