//! Publishing: records in, entries out. One task a bus turns the text of many publishes into events, a call to the
//! store for each bucket, and the answers into one call to the host.

mod casting;
mod courier;
mod drafting;
mod placing;

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytestring::ByteString;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::alarms::Alarms;
use super::ask::Asking;
use super::config::BusConfig;
use super::env::{Env, lock};
use super::error::{Code, Error, Result};
use super::event::Priority;
use super::host::{Host, Kind, Lifecycle, Token};
use super::journal::Journal;
use super::metrics::Metrics;
use super::name::ADDRESSED;
use super::options::PublishOptions;
use super::store::{Appended, Bucket, NewEvent, Store, StreamLayout};
use super::trace::{self, Open, Tracer};
use casting::{CastOut, Casts, cast};
use courier::{CopyOf, OnItsWay};
pub use courier::{Courier, Outgoing, Parcel, Posted, Prepared, Sent};
pub use drafting::too_large;
pub use placing::Draft;
use placing::{Placed, Placer, ask_layout};

/// What a publisher needs to know.
#[derive(Clone, Debug)]
pub struct PublishSettings {
    /// `defaults.ttl`, seconds.
    pub ttl_s: f64,
    /// `defaults.priority`.
    pub priority: Priority,
    /// `redis.commandTimeoutMs`: how long an event waits to learn where it goes.
    pub timeout: Duration,
    /// Source unless given.
    pub source: String,
    /// `limits.maxPayloadBytes`.
    pub payload_bytes_max: usize,
    /// `limits.maxStreamLength`.
    pub length_max: Option<u64>,
    /// `limits.maxPendingPublishes`.
    pub pending_max: usize,
    /// Debug mode.
    pub journal: Journal,
    /// Makes spans; none unless set.
    pub tracer: Tracer,
}

impl From<&BusConfig> for PublishSettings {
    fn from(config: &BusConfig) -> Self {
        Self {
            ttl_s: config.defaults.ttl_s,
            priority: config.defaults.priority,
            timeout: Duration::from_millis(config.redis.command_timeout_ms),
            source: config.service_name.clone().unwrap_or_else(|| "ossa-event-bus".to_owned()),
            length_max: config.limits.max_stream_length,
            payload_bytes_max: config.limits.max_payload_bytes,
            pending_max: config.limits.max_pending_publishes,
            journal: config.into(),
            tracer: Tracer::default(),
        }
    }
}

/// Token of events that the bus itself publishes: their results go nowhere.
pub const OWN: Token = Token::MAX;

/// From here on up to [`OWN`] are tokens of events that the bus itself publishes and wants to hear of.
const NOTED: Token = Token::MAX - 0xffff;

/// Where it hears of them: under which number, and what became of it.
pub type Noted = mpsc::UnboundedSender<(u64, Result<String>)>;

/// Those that are on their way.
#[derive(Default)]
struct Own {
    last: u16,
    waiting: HashMap<Token, (u64, Noted)>,
}

/// Longest wait for an answer, where more is asked for: a clock cannot count further.
const WAIT_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

enum Input {
    Records(Submission),
    /// Gives up the publish with that token.
    Cancel(Token),
}

struct Submission {
    first: Token,
    text: ByteString,
    count: usize,
    /// Records beyond this number are refused: too many are waiting.
    accepted: usize,
    at: Instant,
}

/// By token, what makes the store leave out an event that is not sent yet.
type Cancels = std::sync::Mutex<HashMap<Token, Arc<AtomicBool>>>;

fn give_up(cancels: &Cancels, asking: &Asking, token: Token) {
    if let Some(flag) = lock(cancels).remove(&token) {
        flag.store(true, Ordering::Release);
    }
    asking.cancel(token);
}

/// Who waited, and the id of what was published.
pub type Finished = Vec<(Token, Result<Arc<str>>)>;

/// What a publisher works with, beside the store.
pub struct Beside {
    /// Counters of the bus.
    pub metrics: Arc<Metrics>,
    /// Told when delayed events are due.
    pub alarms: Arc<Alarms>,
    /// Checks and signs messages between projects; without it none are sent.
    pub courier: Option<Arc<dyn Courier>>,
}

/// Takes publishes from any thread.
pub struct Publisher {
    sender: std::sync::Mutex<Option<mpsc::UnboundedSender<Input>>>,
    pending: Arc<AtomicUsize>,
    pending_max: usize,
    cancel: Arc<Cancels>,
    host: Arc<dyn Host>,
    asking: Arc<Asking>,
    own: Arc<std::sync::Mutex<Own>>,
}

impl Drop for Publisher {
    /// Whoever waits still is told, and nothing of it runs on.
    fn drop(&mut self) {
        self.asking.close(&Error::closed("the bus"));
    }
}

/// One record of a submission.
struct Record<'a> {
    text: &'a ByteString,
    place: Range<usize>,
}

/// What a record says is to be done.
#[allow(clippy::large_enum_variant)] // a box would cost each event an allocation
enum Drafted {
    /// Stored.
    Event(Draft),
    /// Sent to the subscribers of this moment.
    Cast(CastOut),
    /// To be checked and signed first.
    Message(Outgoing),
}

impl Publisher {
    /// Starts the task.
    pub fn start(settings: PublishSettings, store: Arc<dyn Store>, host: Arc<dyn Host>, env: Env, beside: Beside) -> Self {
        let Beside { metrics, alarms, courier } = beside;
        // Unbounded here: pending_max bounds the events in it.
        let (sender, receiver) = mpsc::unbounded_channel();
        let pending = Arc::new(AtomicUsize::new(0));
        let cancel = Arc::default();
        let pending_max = settings.pending_max;
        let asking = Asking::new(env.clone(), store.clone(), host.clone(), pending.clone());
        let spawner = env.clone();
        let own = Arc::<std::sync::Mutex<Own>>::default();
        let task = Task {
            answers: asking.clone(),
            own: own.clone(),
            settings,
            store,
            host: host.clone(),
            env,
            metrics,
            alarms,
            pending: pending.clone(),
            cancel: Arc::clone(&cancel),
            placer: Placer::default(),
            plain_tail: None,
            last_options: (String::new(), Arc::default()),
            taken: Instant::now(),
            now_ms: 0,
            in_flight: FuturesUnordered::new(),
            casts: Casts::new(),
            casting: FuturesUnordered::new(),
            asking: FuturesUnordered::new(),
            courier,
            messages: Vec::new(),
            preparing: None,
            posting: FuturesUnordered::new(),
            noting: FuturesUnordered::new(),
        };
        spawner.spawn(task.run(receiver));
        Self { sender: std::sync::Mutex::new(Some(sender)), pending, pending_max, cancel, host, asking, own }
    }

    /// Publishes records `<type>\t<options JSON or nothing>\t<data JSON>\n`; the first has token `first`, the next one
    /// more. Never waits; answers by [`Host::published`].
    pub fn submit(&self, first: Token, text: String) {
        let count = memchr::memchr_iter(b'\n', text.as_bytes()).count();
        let before = self.pending.fetch_add(count, Ordering::AcqRel);
        let accepted = self.pending_max.saturating_sub(before).min(count);
        let sent = match &*lock(&self.sender) {
            Some(sender) => {
                sender.send(Input::Records(Submission { first, text: text.into(), count, accepted, at: Instant::now() })).is_ok()
            }
            None => false,
        };
        if !sent {
            self.pending.fetch_sub(count, Ordering::AcqRel);
            let refused = (0..count).map(|i| (token(first, i), Err(Error::closed("the bus")))).collect();
            self.host.published(refused);
        }
    }

    /// Gives up a publish that was marked with the option `signal` and is not sent yet, or a wait for an answer.
    pub fn cancel(&self, token: Token) {
        if let Some(sender) = &*lock(&self.sender) {
            // Behind its record, which may not be read yet.
            let _ = sender.send(Input::Cancel(token));
        }
        give_up(&self.cancel, &self.asking, token);
    }

    /// Answers with `ERR_CLOSED` whoever waits for an answer to an event.
    pub fn stop_asking(&self) {
        self.asking.close(&Error::new(Code::Closed, "the bus was closed while an answer was awaited; the event stays published"));
    }

    /// Publishes an event of the bus's own; nobody waits for its answer but [`Publisher::close`].
    pub fn say(&self, event_type: &str, data: &serde_json::Value) {
        self.submit_own(OWN, format!("{event_type}\t\t{data}\n"));
    }

    /// The same with `PublishOptions`.
    pub fn say_with(&self, event_type: &str, options: &serde_json::Value, data: &serde_json::Value) {
        self.submit_own(OWN, format!("{event_type}\t{options}\t{data}\n"));
    }

    /// The same with data as text; what became of it is told to `noted` under `number`. `ERR_BACKPRESSURE` where too many are on their way,
    /// `ERR_CLOSED` once nothing is taken any more.
    pub fn say_noted(&self, event_type: &str, options: &serde_json::Value, data: &str, number: u64, noted: &Noted) {
        let token = lock(&self.own).enter(number, noted);
        let refused = match token {
            None => Some(Error::new(Code::Backpressure, "too many events of the bus itself are on their way")),
            Some(token) if self.submit_own(token, format!("{event_type}\t{options}\t{data}\n")) => None,
            Some(token) => {
                lock(&self.own).waiting.remove(&token);
                Some(Error::closed("the bus"))
            }
        };
        if let Some(error) = refused {
            let _ = noted.send((number, Err(error)));
        }
    }

    /// Answers whether it was taken.
    fn submit_own(&self, token: Token, text: String) -> bool {
        self.pending.fetch_add(1, Ordering::AcqRel);
        let submission = Submission { first: token, text: text.into(), count: 1, accepted: 1, at: Instant::now() };
        let is_taken = lock(&self.sender).as_ref().is_some_and(|sender| sender.send(Input::Records(submission)).is_ok());
        if !is_taken {
            self.pending.fetch_sub(1, Ordering::AcqRel);
        }
        is_taken
    }

    /// Reads the inbox of the bus from now on, whoever asks or not: what is posted to it beside answers goes to the program. Its name.
    pub fn listen(&self) -> Result<String> {
        self.asking.listen()?;
        Ok(self.asking.inbox().to_owned())
    }

    /// Sends a message between projects in the bus's own name: `address` as in [`Outgoing`].
    pub fn say_to(&self, event_type: &str, address: &serde_json::Value, data: &serde_json::Value) {
        self.submit_own(OWN, format!("{event_type}\t{ADDRESSED}{address}\t{data}\n"));
    }

    /// Publishes waiting for their answer.
    pub fn pending(&self) -> usize {
        self.pending.load(Ordering::Acquire)
    }

    /// Takes no more, and waits for the answers of what is in, up to `deadline`.
    pub async fn close(&self, deadline: Duration) {
        lock(&self.sender).take();
        let end = Instant::now() + deadline;
        while self.pending() > 0 && Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let _ = tokio::time::timeout_at(end, self.asking.remove_inbox()).await;
    }
}

fn token(first: Token, index: usize) -> Token {
    #[allow(clippy::cast_possible_truncation)] // tokens wrap by contract
    first.wrapping_add(index as u32)
}

impl Own {
    /// A token for one more; `None`: all are in use.
    fn enter(&mut self, number: u64, noted: &Noted) -> Option<Token> {
        if self.waiting.len() >= usize::from(u16::MAX) {
            return None;
        }
        loop {
            self.last = if self.last == u16::MAX - 1 { 0 } else { self.last + 1 };
            let token = NOTED + Token::from(self.last);
            if let std::collections::hash_map::Entry::Vacant(free) = self.waiting.entry(token) {
                free.insert((number, noted.clone()));
                return Some(token);
            }
        }
    }

    /// Takes the bus's own out of what is finished.
    fn sift(&mut self, finished: &mut Finished) {
        finished.retain_mut(|(token, result)| {
            if *token < NOTED {
                return true;
            }
            if let Some((number, noted)) = self.waiting.remove(token) {
                // Whoever wanted to know may be gone.
                let _ = noted.send((number, result.clone().map(|id| id.to_string())));
            }
            false
        });
    }
}

struct Task {
    /// Calls that wait for more than that their event is stored.
    answers: Arc<Asking>,
    own: Arc<std::sync::Mutex<Own>>,
    settings: PublishSettings,
    store: Arc<dyn Store>,
    host: Arc<dyn Host>,
    env: Env,
    metrics: Arc<Metrics>,
    alarms: Arc<Alarms>,
    pending: Arc<AtomicUsize>,
    cancel: Arc<Cancels>,
    placer: Placer,
    /// The end of the metadata of events without options.
    plain_tail: Option<String>,
    /// Many events in a row come with the same options.
    last_options: (String, Arc<PublishOptions>),
    /// When the records that are being read were given to the publisher, and the wall time of their events.
    taken: Instant,
    now_ms: u64,
    in_flight: FuturesUnordered<BoxFuture<'static, Finished>>,
    /// Events that are not stored, not sent yet, and on their way.
    casts: Casts,
    casting: FuturesUnordered<BoxFuture<'static, Finished>>,
    /// Types whose layout is asked for.
    asking: FuturesUnordered<BoxFuture<'static, (Arc<str>, Result<StreamLayout>)>>,
    courier: Option<Arc<dyn Courier>>,
    /// Messages between projects: not looked at yet, looked at, on their way to the store, being noted.
    messages: Vec<Outgoing>,
    preparing: Option<BoxFuture<'static, Prepared>>,
    posting: FuturesUnordered<BoxFuture<'static, Vec<Sent>>>,
    noting: FuturesUnordered<BoxFuture<'static, Finished>>,
}

/// Events on their way to the store, by bucket.
type Drafts = BTreeMap<Bucket, Vec<Draft>>;

/// When the first of them was given to the publisher.
fn earliest(drafts: &[Draft]) -> Instant {
    drafts.iter().map(|draft| draft.taken).min().unwrap_or_else(Instant::now)
}

fn by_bucket(drafts: Vec<Draft>) -> Drafts {
    let mut buckets = Drafts::new();
    for draft in drafts {
        buckets.entry(draft.event.partition.bucket()).or_default().push(draft);
    }
    buckets
}

impl Task {
    async fn run(mut self, mut submissions: mpsc::UnboundedReceiver<Input>) {
        let mut open = true;
        while open || self.has_work() {
            tokio::select! {
                // Answers first: they end with what is on its way, so that nobody waits for ever. Not by chance, which no
                // test could repeat.
                biased;
                Some(mut finished) = self.in_flight.next(), if !self.in_flight.is_empty() => {
                    while let Some(Some(more)) = self.in_flight.next().now_or_never() {
                        finished.extend(more);
                    }
                    self.answer(finished);
                }
                Some(finished) = self.casting.next(), if !self.casting.is_empty() => {
                    self.answer(finished);
                    self.cast();
                }
                Some((event_type, layout)) = self.asking.next(), if !self.asking.is_empty() => self.asked(&event_type, layout),
                Some(finished) = self.noting.next(), if !self.noting.is_empty() => self.answer(finished),
                Some(sent) = self.posting.next(), if !self.posting.is_empty() => self.note(sent),
                Some(prepared) = next_of(&mut self.preparing), if self.preparing.is_some() => self.prepared(prepared),
                submission = submissions.recv(), if open => match submission {
                    Some(Input::Records(submission)) => self.accept_guarded(submission),
                    Some(Input::Cancel(token)) => give_up(&self.cancel, &self.answers, token),
                    None => open = false,
                },
            }
        }
    }

    fn has_work(&self) -> bool {
        let stored = !self.in_flight.is_empty() || !self.casting.is_empty() || !self.asking.is_empty();
        stored || self.preparing.is_some() || !self.posting.is_empty() || !self.noting.is_empty()
    }

    fn asked(&mut self, event_type: &str, layout: Result<StreamLayout>) {
        match layout {
            Ok(layout) => {
                let placed = self.placer.learn(event_type, layout);
                self.send(by_bucket(placed));
            }
            Err(error) => {
                let mut given_up = self.placer.give_up(event_type);
                for span in given_up.iter_mut().filter_map(|draft| draft.span.take()) {
                    trace::stored(span, &Err(error.clone()));
                }
                let (copies, others): (Vec<_>, Vec<_>) = given_up.into_iter().partition(|draft| draft.copy.is_some());
                self.answer(others.into_iter().map(|draft| (draft.token, Err(error.clone()))).collect());
                let sent = copies.into_iter().filter_map(|draft| posted(draft.copy.as_ref()?, &draft.event, Err(error.clone()))).collect();
                self.note(sent);
            }
        }
    }

    fn answer(&self, mut finished: Finished) {
        let mut cancels = lock(&self.cancel);
        if !cancels.is_empty() {
            for (token, _) in &finished {
                cancels.remove(token);
            }
        }
        drop(cancels);
        finished.iter().filter_map(|(_, result)| result.as_ref().err()).for_each(|error| self.metrics.refused(error));
        self.answers.sift(&mut finished);
        self.pending.fetch_sub(finished.len(), Ordering::AcqRel);
        lock(&self.own).sift(&mut finished);
        if !finished.is_empty() {
            self.host.published(finished);
        }
    }

    /// A defect costs the events it met, not the publisher: nobody waits for ever.
    fn accept_guarded(&mut self, submission: Submission) {
        let Submission { first, count, .. } = submission;
        let before = self.in_flight.len() + self.casts.len() + self.messages.len();
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.accept(&submission))) {
            let error = Error::panicked(panic.as_ref());
            self.host.lifecycle(vec![Lifecycle::error(&error)]);
            // Nothing was sent before all records were read.
            if self.in_flight.len() + self.casts.len() + self.messages.len() == before {
                self.answer((0..count).map(|i| (token(first, i), Err(error.clone()))).collect());
            }
        }
    }

    fn accept(&mut self, submission: &Submission) {
        (self.taken, self.now_ms) = (submission.at, self.env.now_ms());
        let mut refused = Vec::new();
        let mut drafts = Vec::new();
        let mut placed = Drafts::new();
        let mut messages = Vec::new();
        let mut start = 0;
        for (i, end) in memchr::memchr_iter(b'\n', submission.text.as_bytes()).enumerate() {
            let token = token(submission.first, i);
            let record = Record { text: &submission.text, place: start..end };
            start = end + 1;
            match if i < submission.accepted { self.draft(token, &record) } else { Err(self.too_many()) } {
                Ok(Drafted::Event(draft)) => match self.placer.bucket_of(&draft) {
                    Some(bucket) => placed.entry(bucket).or_default().push(draft),
                    None => drafts.push(draft),
                },
                Ok(Drafted::Cast(cast)) => self.casts.push(cast),
                Ok(Drafted::Message(message)) => messages.push(message),
                Err(error) => refused.push((token, Err(error))),
            }
        }
        // From here on nothing is read any more: each of them is sent, waits, or is refused.
        self.place(drafts, placed);
        self.cast();
        self.messages.append(&mut messages);
        self.prepare();
        if !refused.is_empty() {
            self.answer(refused);
        }
    }

    /// Sends those whose partition can be chosen now.
    fn place(&mut self, drafts: Vec<Draft>, mut placed: Drafts) {
        for draft in drafts {
            match self.placer.place(draft) {
                Placed::Here(draft) => placed.entry(draft.event.partition.bucket()).or_default().push(draft),
                Placed::Waits => {}
                Placed::Asks(event_type) => {
                    self.asking.push(Box::pin(ask_layout(self.store.clone(), event_type, self.settings.timeout)));
                }
            }
        }
        self.send(placed);
    }

    /// Has messages between projects checked and signed, one batch at a time: they keep their order.
    fn prepare(&mut self) {
        if self.preparing.is_some() || self.messages.is_empty() {
            return;
        }
        let messages = std::mem::take(&mut self.messages);
        let Some(courier) = self.courier.clone() else {
            let error = Error::new(Code::Disabled, "messages between projects are switched off (crossProject.enabled)");
            return self.answer(messages.into_iter().map(|message| (message.token, Err(error.clone()))).collect());
        };
        let tokens: Vec<Token> = messages.iter().map(|message| message.token).collect();
        // On a task of its own: hashing and signing take time that events need not wait for.
        let prepared = self.env.spawn(courier.prepare(messages));
        self.preparing = Some(Box::pin(async move { prepared.await.unwrap_or_else(|error| Prepared::none(tokens, &defect(&error))) }));
    }

    fn prepared(&mut self, prepared: Prepared) {
        let drafts = prepared.parcels.into_iter().flat_map(|(token, parcel)| OnItsWay::begin(token, parcel)).collect();
        self.place(drafts, Drafts::new());
        self.noting.push(prepared.refused);
        self.prepare();
    }

    /// Has noted what was sent.
    fn note(&mut self, sent: Vec<Sent>) {
        if let Some(courier) = self.courier.clone().filter(|_| !sent.is_empty()) {
            let tokens: Vec<Token> = sent.iter().map(|sent| sent.token).collect();
            let noting = self.env.spawn(courier.sent(sent));
            self.noting.push(Box::pin(async move {
                let unknown = |error: tokio::task::JoinError| tokens.into_iter().map(|token| (token, Err(defect(&error)))).collect();
                noting.await.unwrap_or_else(unknown)
            }));
        }
    }

    /// Sends what is not stored, when nothing of it is on its way: a type's events keep their order.
    fn cast(&mut self) {
        if self.casting.is_empty() && !self.casts.is_empty() {
            self.casting.extend(cast(&self.env, &self.store, &self.host, &self.metrics, std::mem::take(&mut self.casts)));
        }
    }

    fn send(&mut self, buckets: Drafts) {
        for (bucket, mut drafts) in buckets {
            if self.courier.is_some() && drafts.iter().any(|draft| draft.copy.is_some()) {
                let (copies, others): (Vec<_>, Vec<_>) = drafts.into_iter().partition(|draft| draft.copy.is_some());
                self.post(bucket, copies);
                drafts = others;
                if drafts.is_empty() {
                    continue;
                }
            }
            for draft in drafts.iter().filter(|draft| draft.asks) {
                self.answers.placed(draft.token, &draft.event.partition);
            }
            let taken = earliest(&drafts);
            let spans = self.spans_of(&mut drafts);
            let (tokens, events): (Vec<Token>, Vec<NewEvent>) = drafts.into_iter().map(|draft| (draft.token, draft.event)).unzip();
            let ids: Vec<Arc<str>> = events.iter().map(|event| event.id.clone()).collect();
            let appended = self.append(bucket, events, taken);
            self.in_flight.push(Box::pin(async move {
                let id = |(result, id): (Result<Appended>, Arc<str>)| match result? {
                    Appended::Stored => Ok(id),
                    Appended::Duplicate(first) => Ok(first.into()),
                };
                let appended = appended.await;
                end_spans(spans, &appended);
                tokens.into_iter().zip(appended.into_iter().zip(ids).map(id)).collect()
            }));
        }
    }

    /// Sends copies of messages between projects.
    fn post(&mut self, bucket: Bucket, mut drafts: Vec<Draft>) {
        let spans = self.spans_of(&mut drafts);
        let copies: Vec<(Option<CopyOf>, Arc<str>, Arc<str>)> =
            drafts.iter().map(|draft| (draft.copy.clone(), draft.event.partition.event_type.clone(), draft.event.id.clone())).collect();
        let taken = earliest(&drafts);
        let appended = self.append(bucket, drafts.into_iter().map(|draft| draft.event).collect(), taken);
        self.posting.push(Box::pin(async move {
            let appended = appended.await;
            end_spans(spans, &appended);
            let results = appended.into_iter().zip(copies);
            results.filter_map(|(result, (copy, stream, id))| copy?.posted(Posted { stream, id, result })).collect()
        }));
    }

    /// The spans of events that are sent now, by their place among them.
    fn spans_of(&self, drafts: &mut [Draft]) -> Spans {
        if !self.settings.tracer.is_on() {
            return Spans::new();
        }
        let take = |(place, draft): (usize, &mut Draft)| {
            let mut span = draft.span.take()?;
            span.tell(|about| about.partition = Some(draft.event.partition.clone()));
            Some((place, span))
        };
        drafts.iter_mut().enumerate().filter_map(take).collect()
    }

    /// Has the store take events of a bucket, the first of which was taken then; tells those who listen.
    fn append(
        &mut self,
        bucket: Bucket,
        events: Vec<NewEvent>,
        taken: Instant,
    ) -> impl Future<Output = Vec<Result<Appended>>> + Send + 'static + use<> {
        let count = events.len();
        let alarm = events.iter().filter_map(|event| event.delay_ms).min();
        // Told only to those who listen: it costs an object an event.
        let told: Option<Vec<(Arc<str>, Arc<str>)>> = self
            .host
            .listens(Kind::Published)
            .then(|| events.iter().map(|event| (event.id.clone(), event.partition.event_type.clone())).collect());
        let journaled = self.settings.journal.begin(&events);
        let kinds = self.metrics.storing(&events);
        let host = self.host.clone();
        let appended = self.store.append(bucket, events);
        let (metrics, alarms) = (self.metrics.clone(), self.alarms.clone());
        async move {
            let results = AssertUnwindSafe(appended).catch_unwind().await.unwrap_or_else(|panic| {
                let error = Error::panicked(panic.as_ref());
                (0..count).map(|_| Err(error.clone())).collect()
            });
            if let Some(delay_ms) = alarm {
                alarms.set(bucket, Duration::from_millis(delay_ms));
            }
            metrics.stored(kinds, &results, taken.elapsed());
            if let Some(told) = told {
                let stored = results.iter().zip(told).filter(|(result, _)| matches!(result, Ok(Appended::Stored)));
                let about = |(id, event_type): (Arc<str>, Arc<str>)| json!({ "eventType": &*event_type, "eventId": &*id });
                host.lifecycle(stored.map(|(_, event)| Lifecycle(Kind::Published, about(event))).collect());
            }
            if let Some(journaled) = journaled {
                host.lifecycle(journaled.stored(&results));
            }
            results
        }
    }
}

fn defect(error: &tokio::task::JoinError) -> Error {
    Error::internal(format!("a defect of this library: {error}. Please report it"))
}

/// Spans of publishes, by the place of the event.
type Spans = Vec<(usize, Open)>;

fn end_spans(spans: Spans, results: &[Result<Appended>]) {
    for (place, span) in spans {
        if let Some(result) = results.get(place) {
            trace::stored(span, result);
        }
    }
}

/// What became of the message, if this is the last of its copies.
fn posted(copy: &CopyOf, event: &NewEvent, result: Result<Appended>) -> Option<Sent> {
    copy.posted(Posted { stream: event.partition.event_type.clone(), id: event.id.clone(), result })
}

/// Its answer, once; never while there is none.
async fn next_of<T>(work: &mut Option<BoxFuture<'static, T>>) -> Option<T> {
    let answer = work.as_mut()?.await;
    *work = None;
    Some(answer)
}
