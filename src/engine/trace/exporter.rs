//! Spans on their way to one endpoint: a bounded queue, batches, and a request that is made again where that may help. Nobody waits
//! for it: what does not fit is dropped and counted, and said once until spans go out again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hyper::body::Bytes;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};
use url::Url;

use super::Counts;
use super::otlp::{self, Encoder, Resource};
use super::span::Span;
use crate::engine::config::{HttpConfig, Secret};
use crate::engine::env::{Env, lock};
use crate::engine::error::{Error, Result};
use crate::engine::host::{Host, Lifecycle};
use crate::engine::http::{Answer, Failure, Http};

/// Most spans that wait for an endpoint.
const QUEUE_MAX: usize = 8_192;
/// Most spans of a request.
const BATCH_MAX: usize = 512;
/// Pause between two looks at the queue while a batch is gathered: to be woken by each span would cost more than the span.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Longest wait that an endpoint may ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);
/// Time for what is left when a bus is gone without having been closed.
const ORPHANED: Duration = Duration::from_secs(2);
/// Most of what an endpoint says that is repeated, characters.
const SAID_CHARS_MAX: usize = 200;

/// How often and how long it is tried.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Longest that the first span of a batch waits for others.
    pub every: Duration,
    /// Longest that a request may take.
    pub timeout: Duration,
    /// First and longest pause before a request is made again.
    pub pauses: (Duration, Duration),
    /// How long a batch is tried to be sent, pauses included.
    pub patience: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            every: Duration::from_secs(1),
            timeout: Duration::from_secs(10),
            pauses: (Duration::from_millis(500), Duration::from_secs(30)),
            patience: Duration::from_secs(60),
        }
    }
}

/// Where spans go.
pub(super) struct Endpoint {
    /// `monitoring.tracing.<key>`: how messages call it.
    key: &'static str,
    /// With tokens in it, perhaps.
    url: Secret,
    http: Http,
}

impl Endpoint {
    /// A URL without a path is the base of the one that OTLP says.
    pub fn new(key: &'static str, url: &Secret) -> Result<Self> {
        let http = Http::new(&[&HttpConfig::default()])?;
        let wrong = |problem: String| Error::config(&format!("monitoring.tracing.{key}"), problem);
        http.check(url.expose()).map_err(|failure| wrong(failure.to_string()))?;
        let mut url = Url::parse(url.expose()).map_err(|_| wrong("is no URL".to_owned()))?;
        if matches!(url.path(), "" | "/") {
            url.set_path("/v1/traces");
        }
        Ok(Self { key, url: Secret::new(url), http })
    }
}

/// One endpoint and the task that serves it.
pub(super) struct Exporter {
    spans: mpsc::Sender<Span>,
    counts: Arc<Counts>,
    /// When it is over, once it is closed.
    closing: watch::Sender<Option<Instant>>,
    task: std::sync::Mutex<Option<JoinHandle<()>>>,
}

impl Exporter {
    /// Starts the task, which ends when this is dropped.
    pub fn start(endpoint: Endpoint, pace: Pace, resource: &Resource, counts: &Arc<Counts>, host: &Arc<dyn Host>, env: &Env) -> Self {
        let (spans, waiting) = mpsc::channel(QUEUE_MAX);
        let (closing, is_closing) = watch::channel(None);
        let task = Task {
            endpoint,
            pace,
            encoder: Encoder::new(resource),
            counts: counts.clone(),
            host: host.clone(),
            env: env.clone(),
            waiting,
            closing: is_closing,
            told: false,
            overflowed: 0,
            told_overflow: false,
            gave_up: false,
        };
        let task = std::sync::Mutex::new(Some(env.spawn(task.run())));
        Self { spans, counts: counts.clone(), closing, task }
    }

    /// Never waits.
    pub fn push(&self, span: Span) {
        let dropped = match self.spans.try_send(span) {
            Ok(()) => return,
            Err(mpsc::error::TrySendError::Full(_)) => &self.counts.queue_full,
            Err(mpsc::error::TrySendError::Closed(_)) => &self.counts.unreachable,
        };
        dropped.fetch_add(1, Ordering::Relaxed);
    }

    /// Sends what is left, until `deadline`.
    pub async fn close(&self, deadline: Instant) {
        self.closing.send_replace(Some(deadline));
        let task = lock(&self.task).take();
        if let Some(task) = task {
            let _ = task.await;
        }
    }
}

struct Task {
    endpoint: Endpoint,
    pace: Pace,
    encoder: Encoder,
    counts: Arc<Counts>,
    host: Arc<dyn Host>,
    env: Env,
    waiting: mpsc::Receiver<Span>,
    closing: watch::Receiver<Option<Instant>>,
    /// That spans are lost was said, and none went out since.
    told: bool,
    /// Spans that did not fit into the queue, as far as they were looked at.
    overflowed: u64,
    /// The same of those.
    told_overflow: bool,
    /// It is closing, and a request failed: no more are made.
    gave_up: bool,
}

/// What came of a request.
enum Came {
    Taken,
    /// Some of them were not.
    Partly(u64, String),
    /// To be made again, after so long if the endpoint said.
    Again(String, Option<Duration>),
    /// The same, and something is wrong that may stay so.
    Unreachable(String),
    Refused(String),
}

/// When it is over, once it is closed or nobody has it any more.
async fn end_of(closing: &mut watch::Receiver<Option<Instant>>) -> Instant {
    let end = closing.wait_for(Option::is_some).await.ok().and_then(|end| *end);
    end.unwrap_or_else(|| Instant::now() + ORPHANED)
}

impl Task {
    async fn run(mut self) {
        while let Some(batch) = self.gather().await {
            self.deliver(batch).await;
            self.look_at_overflow();
        }
    }

    /// The next batch, full or as old as it may become; `None`: it is closed, and nothing is left.
    async fn gather(&mut self) -> Option<Vec<Span>> {
        let mut batch = Vec::new();
        tokio::select! {
            biased;
            span = self.waiting.recv() => batch.push(span?),
            _ = end_of(&mut self.closing) => {
                self.waiting.close();
                batch.push(self.waiting.recv().await?);
            }
        }
        let until = Instant::now() + self.pace.every;
        loop {
            while batch.len() < BATCH_MAX
                && let Ok(span) = self.waiting.try_recv()
            {
                batch.push(span);
            }
            let now = Instant::now();
            if batch.len() == BATCH_MAX || now >= until || self.waiting.is_closed() {
                return Some(batch);
            }
            tokio::select! {
                biased;
                () = sleep_until(until.min(now + LOOK_EVERY)) => {}
                // What is there is taken along once more.
                _ = end_of(&mut self.closing) => self.waiting.close(),
            }
        }
    }

    async fn deliver(&mut self, batch: Vec<Span>) {
        let count = batch.len() as u64;
        let body = Bytes::from(self.encoder.encode(&batch));
        let began = Instant::now();
        for tries in 0.. {
            if self.gave_up {
                return lose(&self.counts.unreachable, count);
            }
            let (why, after) = match self.post(body.clone()).await {
                Came::Taken => return self.took(count, 0),
                Came::Partly(rejected, why) => {
                    self.took(count, rejected.min(count));
                    return self.warn(&format!("did not take {rejected} of {count} spans: {why}"));
                }
                Came::Refused(why) => {
                    lose(&self.counts.refused, count);
                    return self.warn(&why);
                }
                Came::Again(why, after) => (why, after),
                Came::Unreachable(why) => {
                    self.warn(&why);
                    (why, None)
                }
            };
            if self.closing.borrow().is_some() {
                // What is left would fare no better in the time that is left.
                self.gave_up = true;
            } else if began.elapsed() < self.pace.patience {
                let pause = after.map_or_else(|| self.pause_after(tries), |after| after.min(RETRY_AFTER_MAX));
                tokio::select! {
                    biased;
                    () = sleep(pause) => {}
                    _ = end_of(&mut self.closing) => {}
                }
                continue;
            }
            lose(&self.counts.unreachable, count);
            return self.warn(&why);
        }
    }

    /// Twice as long each time, at random between half of that and all of it.
    fn pause_after(&self, tries: u32) -> Duration {
        let (first, longest) = self.pace.pauses;
        first.saturating_mul(2_u32.saturating_pow(tries)).min(longest).mul_f64(self.env.random().mul_add(0.5, 0.5))
    }

    async fn post(&mut self, body: Bytes) -> Came {
        let Self { endpoint, pace, closing, .. } = self;
        let headers = [("content-type", "application/x-protobuf")];
        let answered = endpoint.http.post(endpoint.url.expose(), &headers, body, pace.timeout);
        let over = async {
            let end = end_of(closing).await;
            sleep_until(end).await;
        };
        tokio::select! {
            biased;
            answered = answered => came(answered),
            () = over => Came::Unreachable("gave no answer before the bus was closed".to_owned()),
        }
    }

    fn took(&mut self, count: u64, rejected: u64) {
        self.counts.exported.fetch_add(count - rejected, Ordering::Relaxed);
        lose(&self.counts.refused, rejected);
        if rejected == 0 {
            self.told = false;
        }
    }

    /// Once, until spans go out again.
    fn warn(&mut self, why: &str) {
        if !std::mem::replace(&mut self.told, true) {
            self.say(&format!("spans are lost: monitoring.tracing.{} {why}", self.endpoint.key));
        }
    }

    /// The queue is the same for all that has to wait; it overflows where more spans come than go.
    fn look_at_overflow(&mut self) {
        let lost = self.counts.queue_full.load(Ordering::Relaxed);
        let is_more = lost > std::mem::replace(&mut self.overflowed, lost);
        if is_more && !self.told_overflow && !self.told {
            self.say(&format!(
                "spans are lost: more come than monitoring.tracing.{} takes, and {QUEUE_MAX} wait already; lower monitoring.tracing.samplingRate",
                self.endpoint.key
            ));
        }
        self.told_overflow = is_more;
    }

    fn say(&self, message: &str) {
        self.host.lifecycle(vec![Lifecycle::warn(message)]);
    }
}

fn lose(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}

/// What an answer means. Only what OTLP says so is tried again, and what no answer came to.
fn came(answered: Result<Answer, Failure>) -> Came {
    let answer = match answered {
        Ok(answer) => answer,
        Err(Failure::Redirected(_)) => {
            return Came::Refused("redirects elsewhere, which is not followed; give the URL it leads to".to_owned());
        }
        Err(failure @ (Failure::Unreachable(_) | Failure::Tls(_) | Failure::Broken(_))) => {
            return Came::Unreachable(format!("cannot be used: {failure}"));
        }
        Err(Failure::TimedOut(allowed)) => return Came::Unreachable(format!("gave no answer within {} ms", allowed.as_millis())),
        Err(failure) => return Came::Refused(format!("cannot be used: {failure}")),
    };
    match answer.status {
        200..=299 => match otlp::rejected(&answer.body) {
            Some((count, why)) => Came::Partly(count, shown(&why)),
            None => Came::Taken,
        },
        status @ (429 | 502 | 503 | 504) => Came::Again(format!("answers with HTTP status {status}"), answer.retry_after),
        status => Came::Refused(format!("answers with HTTP status {status}{}", hint(status))),
    }
}

fn hint(status: u16) -> &'static str {
    match status {
        401 | 403 => "; are its credentials right?",
        404 | 405 => "; is its path right? That of OTLP over HTTP is mostly /v1/traces, on port 4318",
        415 => "; it must take OTLP as http/protobuf",
        _ => "",
    }
}

/// The beginning of what an endpoint said, on one line.
fn shown(text: &str) -> String {
    text.chars().take(SAID_CHARS_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect()
}
