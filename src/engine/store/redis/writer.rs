//! Publishing: a few tasks that write, pipelines of batches, exactly once over a lost connection.
//!
//! A batch is one call of `append.lua` for one bucket: all of it is written, with its number noted, or nothing. When a
//! reply is lost, the writer connects anew, has the server close the old connection, so that nothing of it can take
//! effect later, and reads that number: batches up to it are in, the others are sent again.
//!
//! Events of a bucket keep the order of their calls, although several of its batches are on their way at once: one is
//! written only right behind the one before it. When one comes back (its stream is gone), so do those that follow; they
//! are sent again, in order, once none is on its way.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesOrdered, FuturesUnordered};
use redis::{RedisError, Value};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::super::{Appended, BUCKETS, Bucket, NewEvent, Partition};
use super::connection::{Connection, Failure, Link, server_error};
use super::keys::{self, Keys};
use super::{reply, scripts};
use crate::engine::env::lock;
use crate::engine::error::{Code, Error, Result};

/// Batches in flight on one connection: enough to keep the server busy while replies travel.
const IN_FLIGHT_MAX: usize = 4;
/// Most bytes a batch, unless a single event is larger: the server does nothing else meanwhile.
const BATCH_BYTES_MAX: usize = 1024 * 1024;
/// How long the number of a publisher's last batch is kept, s: longer than any publish waits.
const PRODUCER_TTL_S: u64 = 3600;
/// First and longest pause between attempts to connect.
const RECONNECT: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));
/// Pause before a server that does not take writes now is asked again.
const REFUSED_PAUSE: Duration = Duration::from_millis(100);
/// Pause before a stream that could not be made is tried again.
const REOPEN_PAUSE: Duration = Duration::from_millis(50);

/// Opens a partition whose stream is missing.
pub type Opener = Arc<dyn Fn(Partition) -> BoxFuture<'static, Result<()>> + Send + Sync>;

/// Events of one `append`, answered together.
pub struct Request {
    /// Their bucket.
    pub bucket: Bucket,
    /// The events.
    pub events: Vec<NewEvent>,
    /// Where the results go.
    pub answer: Answer,
}

/// Answered with a result an event; counted until then, whether somebody waits for it or not.
pub struct Answer {
    done: Option<oneshot::Sender<Vec<Result<Appended>>>>,
    unanswered: Arc<AtomicUsize>,
}

impl Answer {
    /// Goes to `done`, counted in `unanswered`.
    pub fn new(done: oneshot::Sender<Vec<Result<Appended>>>, unanswered: &Arc<AtomicUsize>) -> Self {
        unanswered.fetch_add(1, Ordering::AcqRel);
        Self { done: Some(done), unanswered: unanswered.clone() }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.unanswered.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Collects the results of one request.
struct Ticket {
    left: AtomicUsize,
    inner: std::sync::Mutex<TicketState>,
}

struct TicketState {
    results: Vec<Option<Result<Appended>>>,
    answer: Answer,
}

impl Ticket {
    fn new(count: usize, answer: Answer) -> Arc<Self> {
        let results = (0..count).map(|_| None).collect();
        Arc::new(Self { left: AtomicUsize::new(count), inner: std::sync::Mutex::new(TicketState { results, answer }) })
    }

    fn fill(&self, index: usize, result: Result<Appended>) {
        let mut inner = lock(&self.inner);
        if inner.results[index].replace(result).is_none()
            && self.left.fetch_sub(1, Ordering::AcqRel) == 1
            && let Some(done) = inner.answer.done.take()
        {
            // Nobody waits any more if the bus was closed; the results have no other use.
            let _ = done.send(inner.results.drain(..).flatten().collect());
        }
    }
}

struct Pending {
    event: NewEvent,
    /// Place in the order of calls.
    order: u64,
    deadline: Instant,
    ticket: Arc<Ticket>,
    index: usize,
}

impl Pending {
    fn finish(self, result: Result<Appended>) {
        self.ticket.fill(self.index, result);
    }

    /// Delayed, or with an idempotency key.
    fn is_special(&self) -> bool {
        self.event.delay_ms.is_some() || self.event.idempotency.is_some()
    }

    fn bytes(&self) -> usize {
        self.event.meta.len() + self.event.data.len()
    }
}

struct Batch {
    bucket: Bucket,
    number: u64,
    items: Vec<Pending>,
    /// Number of the one before it, if that is on its way.
    behind: Option<u64>,
    /// Its partitions, in the order of their streams' keys.
    partitions: Vec<Partition>,
}

type Reply = (Batch, Result<Value, RedisError>);

/// What a writer needs to know.
pub struct Settings {
    /// Names this publisher, unique.
    pub instance: String,
    /// Most events a batch.
    pub pipeline_size: usize,
    /// How long an event waits for its reply, or for the server to come back.
    pub timeout: Duration,
}

/// What waits in one bucket.
#[derive(Default)]
struct Lane {
    queue: VecDeque<Pending>,
    /// Number of its last batch.
    number: u64,
    /// Batches on their way.
    in_flight: usize,
    /// One came back: those on their way will, too, and nothing is sent until they have.
    broken: bool,
    /// A stream of its is being made: what follows waits too, so that order holds.
    opening: bool,
    /// It has a turn coming.
    listed: bool,
}

/// Partitions of a bucket that were to be made, and what became of it.
type Openings = (Bucket, Vec<(Partition, Result<()>)>);

/// The task that writes for some buckets, on one connection.
pub struct Writer {
    link: Arc<Link>,
    keys: Keys,
    settings: Settings,
    opener: Opener,
    lanes: Vec<Lane>,
    /// Buckets with something to send, in turn.
    ready: VecDeque<Bucket>,
    /// Longest ttl noted for a partition by this writer, ms; `None`: "never expires" was noted.
    noted_ttl: HashMap<Partition, Option<u64>>,
    accepted: u64,
    /// The server should know the script.
    script_known: bool,
    /// Partitions whose stream was made, or found, by this writer.
    opened: HashSet<Partition>,
    openings: FuturesUnordered<BoxFuture<'static, Openings>>,
}

impl Writer {
    /// Starts the task; it ends when the sender is dropped and all is answered.
    pub fn start(link: Arc<Link>, keys: Keys, settings: Settings, opener: Opener) -> mpsc::UnboundedSender<Request> {
        // Unbounded here: limits.maxPendingPublishes bounds what the publisher lets in.
        let (sender, receiver) = mpsc::unbounded_channel();
        let writer = Self {
            link,
            keys,
            settings,
            opener,
            lanes: (0..BUCKETS).map(|_| Lane::default()).collect(),
            ready: VecDeque::new(),
            noted_ttl: HashMap::new(),
            accepted: 0,
            script_known: false,
            opened: HashSet::new(),
            openings: FuturesUnordered::new(),
        };
        tokio::spawn(writer.run(receiver));
        sender
    }

    async fn run(mut self, mut requests: mpsc::UnboundedReceiver<Request>) {
        let mut connection: Option<Connection> = None;
        let mut in_flight: FuturesOrdered<BoxFuture<'static, Reply>> = FuturesOrdered::new();
        let mut open = true;
        loop {
            if connection.is_none() && !self.is_idle() {
                connection = self.reconnect(None, Vec::new(), &mut requests).await;
            }
            if let Some(connection) = &connection {
                while in_flight.len() < IN_FLIGHT_MAX {
                    let Some(batch) = self.next_batch() else { break };
                    in_flight.push_back(self.send(connection, batch));
                }
            }
            if !open && self.is_idle() && in_flight.is_empty() {
                return;
            }
            tokio::select! {
                request = requests.recv(), if open => match request {
                    Some(request) => {
                        self.enqueue(request);
                        while let Ok(request) = requests.try_recv() {
                            self.enqueue(request);
                        }
                    }
                    None => open = false,
                },
                Some(reply) = in_flight.next(), if !in_flight.is_empty() => {
                    let mut lost = Vec::new();
                    if let Some(error) = self.land(reply, &mut lost) {
                        while let Some(reply) = in_flight.next().await {
                            self.land(reply, &mut lost);
                        }
                        if !lost.is_empty() {
                            self.link.down(&error);
                        }
                        let old = connection.take();
                        if lost.is_empty() {
                            self.expire_with(&error, self.link.is_closed());
                            self.pause(Instant::now() + REFUSED_PAUSE, &lost, &mut requests).await;
                        }
                        connection = self.reconnect(old, lost, &mut requests).await;
                    }
                },
                Some((bucket, results)) = self.openings.next(), if !self.openings.is_empty() => self.opened(bucket, results),
            }
        }
    }

    fn lane(&mut self, bucket: Bucket) -> &mut Lane {
        &mut self.lanes[usize::from(bucket.0)]
    }

    /// Whether nothing waits to be sent.
    fn is_idle(&self) -> bool {
        self.lanes.iter().all(|lane| lane.queue.is_empty())
    }

    /// Gives the bucket a turn if it has something to send.
    fn list(&mut self, bucket: Bucket) {
        let lane = self.lane(bucket);
        if !lane.listed && !lane.opening && !lane.queue.is_empty() {
            lane.listed = true;
            self.ready.push_back(bucket);
        }
    }

    fn enqueue(&mut self, request: Request) {
        let ticket = Ticket::new(request.events.len(), request.answer);
        let deadline = Instant::now() + self.settings.timeout;
        for (index, event) in request.events.into_iter().enumerate() {
            self.accepted += 1;
            let order = self.accepted;
            self.lane(request.bucket).queue.push_back(Pending { event, order, deadline, ticket: ticket.clone(), index });
        }
        self.list(request.bucket);
    }

    /// The next batch of the bucket whose turn it is. A bucket with a stream still to be made steps back until it is.
    fn next_batch(&mut self) -> Option<Batch> {
        loop {
            let bucket = self.ready.pop_front()?;
            let lane = &mut self.lanes[usize::from(bucket.0)];
            lane.listed = false;
            lane.broken &= lane.in_flight > 0;
            if lane.broken {
                continue;
            }
            let mut bytes = 0;
            let fitting = lane.queue.iter().take(self.settings.pipeline_size).take_while(|item| {
                bytes += item.bytes();
                bytes <= BATCH_BYTES_MAX
            });
            let take = fitting.count().max(1).min(lane.queue.len());
            let closed: BTreeSet<&Partition> =
                lane.queue.iter().take(take).map(|item| &item.event.partition).filter(|p| !self.opened.contains(*p)).collect();
            if !closed.is_empty() {
                // What is on its way comes first: it may have to be sent again, before what would go out then.
                if lane.in_flight == 0 {
                    let closed = closed.into_iter().cloned().collect();
                    self.open(bucket, closed, Duration::ZERO);
                }
                continue;
            }
            let mut items = Vec::with_capacity(take);
            for item in lane.queue.drain(..take) {
                if item.event.cancelled.as_ref().is_some_and(|flag| flag.load(Ordering::Acquire)) {
                    item.finish(Err(Error::new(Code::Aborted, "the publish was aborted before it was sent")));
                } else {
                    items.push(item);
                }
            }
            if items.is_empty() {
                self.list(bucket);
                continue;
            }
            let behind = (lane.in_flight > 0).then_some(lane.number);
            lane.in_flight += 1;
            lane.number += 1;
            let number = lane.number;
            self.list(bucket);
            return Some(Batch { bucket, number, items, behind, partitions: Vec::new() });
        }
    }

    /// Makes streams, after a pause; the bucket waits.
    fn open(&mut self, bucket: Bucket, partitions: Vec<Partition>, pause: Duration) {
        self.lane(bucket).opening = true;
        let opener = self.opener.clone();
        let wanted = partitions.clone();
        // A task of its own: it shares connections with others, who would wait for it while this one does not look.
        let task = tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            let mut results = Vec::with_capacity(partitions.len());
            for partition in partitions {
                let result = opener(partition.clone()).await;
                results.push((partition, result));
            }
            results
        });
        self.openings.push(Box::pin(async move {
            let failed = |_| wanted.into_iter().map(|partition| (partition, Err(Error::internal("making a stream ended early")))).collect();
            (bucket, task.await.unwrap_or_else(failed))
        }));
    }

    fn opened(&mut self, bucket: Bucket, results: Vec<(Partition, Result<()>)>) {
        let mut again = Vec::new();
        for (partition, result) in results {
            match result {
                Ok(()) => {
                    self.opened.insert(partition);
                }
                Err(error) if error.retryable => {
                    self.expire_with(&error, self.link.is_closed());
                    again.push(partition);
                }
                Err(error) => {
                    let queue = &mut self.lane(bucket).queue;
                    let (refused, kept): (VecDeque<_>, VecDeque<_>) = queue.drain(..).partition(|item| item.event.partition == partition);
                    *queue = kept;
                    for item in refused {
                        item.finish(Err(error.clone()));
                    }
                }
            }
        }
        let lane = self.lane(bucket);
        again.retain(|partition| lane.queue.iter().any(|item| item.event.partition == *partition));
        if again.is_empty() {
            lane.opening = false;
            self.list(bucket);
        } else {
            self.open(bucket, again, REOPEN_PAUSE);
        }
    }

    /// Puts events back to where the order of calls wants them.
    fn requeue(&mut self, bucket: Bucket, items: Vec<Pending>) {
        let queue = &mut self.lane(bucket).queue;
        for item in items.into_iter().rev() {
            queue.push_front(item);
        }
        if !queue.iter().is_sorted_by_key(|item| item.order) {
            queue.make_contiguous().sort_by_key(|item| item.order);
        }
        self.list(bucket);
    }

    fn producer_key(&self, bucket: Bucket) -> String {
        self.keys.in_bucket(bucket, &format!("producer:{}", self.settings.instance))
    }

    /// Sends the batch; the future must be polled at once, what is sent first is done first.
    fn send(&mut self, connection: &Connection, mut batch: Batch) -> BoxFuture<'static, Reply> {
        let mut keys = vec![self.producer_key(batch.bucket)];
        for item in &batch.items {
            if !batch.partitions.contains(&item.event.partition) {
                keys.push(self.keys.stream(&item.event.partition));
                batch.partitions.push(item.event.partition.clone());
            }
        }
        let longer: Vec<bool> = batch.items.iter().map(|item| self.notes_ttl(&item.event)).collect();
        for (item, longer) in batch.items.iter().zip(&longer) {
            if *longer {
                keys.push(self.keys.facts(&item.event.partition));
            }
            if item.is_special() {
                keys.extend(self.special_keys(&item.event));
            }
        }
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        let mut cmd = if self.script_known { scripts::call(&scripts::APPEND, &keys) } else { scripts::eval(&scripts::APPEND, &keys) };
        self.script_known = true;
        cmd.arg(batch.number).arg(PRODUCER_TTL_S).arg(optional(batch.behind)).arg(batch.partitions.len());
        for (item, longer) in batch.items.iter().zip(longer) {
            let event = &item.event;
            if longer {
                cmd.arg("t").arg(event.ttl_ms.map_or_else(|| "-1".to_owned(), |ms| ms.to_string()));
            }
            let at = batch.partitions.iter().position(|partition| *partition == event.partition).unwrap_or_default();
            // Streams come after the producer's key; the server counts from 1.
            let key = at + 2;
            if item.is_special() {
                let window = event.idempotency.as_ref().map(|idempotency| idempotency.window_ms);
                cmd.arg("k").arg(key).arg(&event.meta).arg(&event.data).arg(&*event.id);
                cmd.arg(optional(event.delay_ms)).arg(optional(window)).arg(keys::member(&event.partition));
            } else {
                cmd.arg(key).arg(&event.meta).arg(&event.data);
            }
        }
        let mut connection = connection.inner.clone();
        let link = self.link.clone();
        // Unconstrained: were it put off by the scheduler, a later batch could overtake it.
        Box::pin(tokio::task::unconstrained(async move {
            let _places = link.occupy(batch.items.len());
            let result = connection.send_packed_command(&cmd).await;
            (batch, result)
        }))
    }

    /// Keys of an event that is delayed or has an idempotency key.
    fn special_keys(&self, event: &NewEvent) -> [String; 4] {
        let bucket = event.partition.bucket();
        let member = keys::member(&event.partition);
        [
            self.keys.idempotency(&event.partition, event.idempotency.as_ref().map_or("", |idempotency| &idempotency.key)),
            self.keys.in_bucket(bucket, &format!("delayed:{member}")),
            self.keys.in_bucket(bucket, &format!("delayed-body:{member}")),
            self.keys.in_bucket(bucket, "delayed"),
        ]
    }

    /// Whether its ttl is to be noted: upkeep removes by the longest of a partition.
    fn notes_ttl(&mut self, event: &NewEvent) -> bool {
        let longer = match (self.noted_ttl.get(&event.partition), event.ttl_ms) {
            (None, _) | (Some(Some(_)), None) => true,
            (Some(Some(noted)), Some(ttl)) => ttl > *noted,
            (Some(None), _) => false,
        };
        if longer {
            self.noted_ttl.insert(event.partition.clone(), event.ttl_ms);
        }
        longer
    }

    /// Takes in what came of a batch: answers its events, or puts them back, or adds it to the lost. Answers an error
    /// after which the connection is of no use.
    fn land(&mut self, (batch, result): Reply, lost: &mut Vec<Batch>) -> Option<Error> {
        let bucket = batch.bucket;
        self.lane(bucket).in_flight -= 1;
        let outcome = match result {
            Ok(Value::ServerError(error)) => Err(Failure::said(&error)),
            Ok(value) => outcome(value).map_err(Failure::Refused),
            Err(error) => Err(Failure::of(error, &self.link.target)),
        };
        self.lane(bucket).broken |= !matches!(outcome, Ok(Outcome::Written(_)));
        let mut useless = None;
        match outcome {
            Ok(Outcome::Written(others)) => {
                self.link.up();
                answer(batch, others);
            }
            Ok(Outcome::Behind) => self.put_back(bucket, batch.items),
            Ok(Outcome::Missing(keys)) => {
                for partition in keys.into_iter().filter_map(|key| batch.partitions.get(key.checked_sub(2)?)) {
                    self.opened.remove(partition);
                }
                self.put_back(bucket, batch.items);
            }
            Err(Failure::Unknown) => {
                self.script_known = false;
                self.put_back(bucket, batch.items);
            }
            Err(Failure::Refused(error)) => {
                self.forget_ttls(&batch.items);
                for item in batch.items {
                    item.finish(Err(error.clone()));
                }
            }
            Err(Failure::Later(error)) => {
                self.put_back(bucket, batch.items);
                useless = Some(error);
            }
            Err(Failure::Lost(error)) => {
                lost.push(batch);
                useless = Some(error);
            }
        }
        self.list(bucket);
        useless
    }

    /// Events that were not written wait to be sent again, unless their time is over.
    fn put_back(&mut self, bucket: Bucket, items: Vec<Pending>) {
        self.forget_ttls(&items);
        self.requeue(bucket, items);
        let late = self.link.target.unreachable("the event could not be written in time");
        self.expire_with(&late, self.link.is_closed());
    }

    /// What was to be noted with them was not.
    fn forget_ttls(&mut self, items: &[Pending]) {
        for item in items {
            self.noted_ttl.remove(&item.event.partition);
        }
    }

    /// Connects anew, as often as it takes until nothing waits any more, and finds out what became of what is lost.
    async fn reconnect(
        &mut self,
        old: Option<Connection>,
        mut lost: Vec<Batch>,
        requests: &mut mpsc::UnboundedReceiver<Request>,
    ) -> Option<Connection> {
        let mut pause = RECONNECT.0;
        loop {
            match self.try_reconnect(old.as_ref(), &mut lost).await {
                Ok(connection) => return Some(connection),
                Err(error) => {
                    tracing::debug!(%error, "publishing waits for Redis");
                    let closed = self.link.is_closed();
                    let now = Instant::now();
                    for batch in &mut lost {
                        for item in batch.items.extract_if(.., |item| closed || item.deadline <= now) {
                            item.finish(Err(error.clone().with("maybeStored", true)));
                        }
                    }
                    lost.retain(|batch| !batch.items.is_empty());
                    self.expire_with(&error, closed);
                    if self.is_idle() && lost.is_empty() {
                        return None;
                    }
                }
            }
            self.pause(Instant::now() + pause, &lost, requests).await;
            pause = (pause * 2).min(RECONNECT.1);
        }
    }

    /// Waits until then, or until the time of an event is over. Requests are taken in meanwhile, so that their time
    /// starts when they were made.
    async fn pause(&mut self, end: Instant, lost: &[Batch], requests: &mut mpsc::UnboundedReceiver<Request>) {
        let next_deadline = |lanes: &[Lane]| {
            let queued = lanes.iter().filter_map(|lane| lane.queue.front()).map(|item| item.deadline);
            queued.chain(lost.iter().flat_map(|batch| &batch.items).map(|item| item.deadline)).min()
        };
        let wake = |lanes: &[Lane]| next_deadline(lanes).map_or(end, |deadline| deadline.min(end));
        while let Ok(Some(request)) = tokio::time::timeout_at(wake(&self.lanes), requests.recv()).await {
            self.enqueue(request);
        }
        tokio::time::sleep_until(wake(&self.lanes)).await;
    }

    async fn try_reconnect(&mut self, old: Option<&Connection>, lost: &mut Vec<Batch>) -> Result<Connection> {
        let mut connection = self.link.connect(self.link.target.command_timeout).await?;
        let mut commands = Vec::new();
        if let Some(old) = old {
            // After this nothing sent on the old connection can take effect: it is closed, or was.
            commands.push(old.kill());
        }
        let get = |key: String| {
            let mut cmd = redis::cmd("GET");
            cmd.arg(key);
            cmd
        };
        for batch in lost.iter() {
            commands.push(get(self.producer_key(batch.bucket)));
            let keyed = batch.items.iter().filter_map(|item| item.event.idempotency.as_ref().map(|i| (&item.event.partition, &i.key)));
            commands.extend(keyed.map(|(partition, key)| get(self.keys.idempotency(partition, key))));
        }
        let mut values = Vec::new();
        if !commands.is_empty() {
            values = self.link.send(&mut connection, &commands).await.map_err(|e| self.link.target.explain(&e))?;
        }
        if let Some(Value::ServerError(error)) = values.iter().find(|value| matches!(value, Value::ServerError(_))) {
            return Err(reply::server_error(error));
        }
        let mut values = values.into_iter().skip(usize::from(old.is_some()));
        let mut next = || values.next().filter(|value| *value != Value::Nil).map(reply::text).transpose();
        let mut found = Vec::with_capacity(lost.len());
        for batch in lost.iter() {
            let done = next()?.and_then(|number| number.parse::<u64>().ok()).is_some_and(|number| batch.number <= number);
            let keys = batch.items.iter().filter(|item| item.event.idempotency.is_some()).map(|_| next()).collect::<Result<Vec<_>>>()?;
            found.push((done, keys));
        }
        for (batch, (done, keys)) in lost.drain(..).zip(found) {
            self.recover(batch, done, keys);
        }
        self.script_known = false;
        Ok(connection)
    }

    /// Answers the events of a lost batch if it was written, puts them back otherwise. `keys`: what the idempotency keys
    /// of its events are now.
    fn recover(&mut self, batch: Batch, done: bool, keys: Vec<Option<String>>) {
        if !done {
            self.forget_ttls(&batch.items);
            self.requeue(batch.bucket, batch.items);
            return;
        }
        let mut keys = keys.into_iter();
        for item in batch.items {
            let first = if item.event.idempotency.is_some() { keys.next().flatten() } else { None };
            // Without a key, its window is over: sent again it would be written again.
            let other = first.filter(|first| **first != *item.event.id);
            item.finish(Ok(other.map_or(Appended::Stored, Appended::Duplicate)));
        }
    }

    /// Refuses events whose time is over.
    fn expire_with(&mut self, error: &Error, all: bool) {
        let now = Instant::now();
        for lane in &mut self.lanes {
            while lane.queue.front().is_some_and(|item| all || item.deadline <= now) {
                let Some(item) = lane.queue.pop_front() else { break };
                item.finish(Err(error.clone()));
            }
        }
    }
}

/// What `append.lua` did with a batch.
enum Outcome {
    /// It is in, but for these events, by their place.
    Written(HashMap<usize, Result<Appended>>),
    /// The one before it is not: nothing was done.
    Behind,
    /// Streams that must be made first, by the place of their key: nothing was done.
    Missing(Vec<usize>),
}

fn outcome(value: Value) -> Result<Outcome> {
    let mut parts = reply::list(value)?.into_iter();
    let what = parts.next().map(reply::text).transpose()?.unwrap_or_default();
    let place = |value: &Value| Ok::<_, Error>(usize::try_from(reply::count(value)?).unwrap_or(usize::MAX));
    match what.as_str() {
        "ok" => {
            let mut others = HashMap::new();
            while let (Some(at), Some(what), Some(text)) = (parts.next(), parts.next(), parts.next()) {
                let text = reply::text(text)?;
                let result = if reply::text(what)? == "duplicate" {
                    Ok(Appended::Duplicate(text))
                } else {
                    Err(server_error(text.split(' ').next().unwrap_or_default(), &text))
                };
                others.insert(place(&at)?, result);
            }
            Ok(Outcome::Written(others))
        }
        "behind" => Ok(Outcome::Behind),
        "missing" => Ok(Outcome::Missing(parts.map(|part| place(&part)).collect::<Result<_>>()?)),
        _ => Err(reply::unexpected("append.lua")),
    }
}

fn answer(batch: Batch, mut others: HashMap<usize, Result<Appended>>) {
    for (at, item) in batch.items.into_iter().enumerate() {
        item.finish(others.remove(&at).unwrap_or(Ok(Appended::Stored)));
    }
}

fn optional(number: Option<u64>) -> String {
    number.map(|number| number.to_string()).unwrap_or_default()
}
