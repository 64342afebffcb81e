//! Publishing: a writer task a pool slot, pipelines of transactions, exactly once over a lost connection.
//!
//! A batch is one MULTI for one bucket that also sets `P:{n}:producer:<instance>` to the batch's number. When a
//! reply is lost, the writer connects anew, has the server close the old connection (so that nothing of it can
//! take effect later) and reads that number: batches up to it are in, the others are sent again, in order.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesOrdered, FuturesUnordered};
use redis::{Pipeline, RedisError, Value};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::super::{Appended, Bucket, NewEvent, Partition};
use super::connection::{Connection, Link, is_lost, is_passing, load_scripts};
use super::keys::{self, Keys};
use super::{reply, scripts};
use crate::engine::env::lock;
use crate::engine::error::{Code, Error, Result};

/// Transactions in flight on one connection: enough to keep the server busy while replies travel.
const IN_FLIGHT_MAX: usize = 4;
/// How long the number of a publisher's last batch is kept, s: longer than any publish waits.
const PRODUCER_TTL_S: u64 = 3600;
/// Longest pause between attempts to connect.
const RECONNECT_MAX: Duration = Duration::from_millis(1000);

/// Opens a partition whose stream is missing.
pub type Opener = Arc<dyn Fn(Partition) -> BoxFuture<'static, Result<()>> + Send + Sync>;

/// Events of one `append`, answered together.
pub struct Request {
    /// Their bucket.
    pub bucket: Bucket,
    /// The events.
    pub events: Vec<NewEvent>,
    /// Answered with a result an event.
    pub done: oneshot::Sender<Vec<Result<Appended>>>,
}

/// Collects the results of one request.
struct Ticket {
    left: AtomicUsize,
    inner: std::sync::Mutex<TicketState>,
}

struct TicketState {
    results: Vec<Option<Result<Appended>>>,
    done: Option<oneshot::Sender<Vec<Result<Appended>>>>,
}

impl Ticket {
    fn new(count: usize, done: oneshot::Sender<Vec<Result<Appended>>>) -> Arc<Self> {
        let results = (0..count).map(|_| None).collect();
        Arc::new(Self { left: AtomicUsize::new(count), inner: std::sync::Mutex::new(TicketState { results, done: Some(done) }) })
    }

    fn fill(&self, index: usize, result: Result<Appended>) {
        let mut inner = lock(&self.inner);
        if inner.results[index].replace(result).is_none()
            && self.left.fetch_sub(1, Ordering::AcqRel) == 1
            && let Some(done) = inner.done.take()
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
    /// It may be in the stream already: sent once, the reply was lost.
    uncertain: bool,
}

impl Pending {
    fn finish(self, result: Result<Appended>) {
        self.ticket.fill(self.index, result);
    }
}

struct Batch {
    bucket: Bucket,
    number: u64,
    items: Vec<Pending>,
    /// Index of each event's reply in the transaction's.
    replies: Vec<usize>,
}

type Reply = (Batch, Result<Vec<Value>, RedisError>);

/// What a writer needs to know.
pub struct Settings {
    /// Names this publisher, unique.
    pub instance: String,
    /// Most events a transaction.
    pub pipeline_size: usize,
    /// How long an event waits for its reply, or for the server to come back.
    pub timeout: Duration,
}

/// The task that writes for some buckets, on one connection.
pub struct Writer {
    link: Arc<Link>,
    keys: Keys,
    settings: Settings,
    opener: Opener,
    queues: HashMap<Bucket, VecDeque<Pending>>,
    /// Buckets with something queued, in turn.
    ready: VecDeque<Bucket>,
    numbers: HashMap<Bucket, u64>,
    /// Longest ttl noted for a partition by this writer, ms; `None`: "never expires" was noted.
    noted_ttl: HashMap<Partition, Option<u64>>,
    queued: usize,
    /// The server forgot the scripts (SCRIPT FLUSH): they are loaded before more is sent.
    scripts_gone: bool,
    accepted: u64,
    /// Partitions whose stream was made, or found, by this writer.
    opened: HashSet<Partition>,
    /// Buckets that wait for a stream of theirs to be made: what follows in them waits too, so that order holds.
    opening: HashSet<Bucket>,
    openings: FuturesUnordered<BoxFuture<'static, (Bucket, Vec<(Partition, Result<()>)>)>>,
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
            queues: HashMap::new(),
            ready: VecDeque::new(),
            numbers: HashMap::new(),
            noted_ttl: HashMap::new(),
            queued: 0,
            scripts_gone: false,
            accepted: 0,
            opened: HashSet::new(),
            opening: HashSet::new(),
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
            if connection.is_none() && self.queued > 0 {
                connection = self.reconnect(None, Vec::new(), &mut requests).await;
            }
            if let Some(connection) = &mut connection
                && self.scripts_gone
            {
                // Should this fail, the next transaction says so again.
                let _ = load_scripts(&self.link, connection).await;
                self.noted_ttl.clear();
                self.scripts_gone = false;
            }
            if let Some(connection) = &connection {
                while in_flight.len() < IN_FLIGHT_MAX {
                    let Some(batch) = self.next_batch() else { break };
                    in_flight.push_back(self.send(connection, batch));
                }
            }
            if !open && self.queued == 0 && in_flight.is_empty() {
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
                Some((batch, result)) = in_flight.next(), if !in_flight.is_empty() => match result {
                    Ok(values) => self.answer(batch, values),
                    Err(error) if is_lost(&error) || is_passing(&error) => {
                        let mut unanswered = vec![batch];
                        while let Some((batch, result)) = in_flight.next().await {
                            match result {
                                Ok(values) => self.answer(batch, values),
                                Err(_) => unanswered.push(batch),
                            }
                        }
                        self.link.down(&self.link.target.explain(&error));
                        let old = connection.take().map(|c| c.id);
                        connection = self.reconnect(old, unanswered, &mut requests).await;
                    }
                    Err(error) => {
                        let error = self.link.target.explain(&error);
                        for item in batch.items {
                            item.finish(Err(error.clone()));
                        }
                    }
                },
                Some((bucket, results)) = self.openings.next(), if !self.openings.is_empty() => self.opened(bucket, results),
            }
        }
    }

    fn enqueue(&mut self, request: Request) {
        let ticket = Ticket::new(request.events.len(), request.done);
        let deadline = Instant::now() + self.settings.timeout;
        let queue = self.queues.entry(request.bucket).or_default();
        if queue.is_empty() && !request.events.is_empty() && !self.opening.contains(&request.bucket) {
            self.ready.push_back(request.bucket);
        }
        for (index, event) in request.events.into_iter().enumerate() {
            self.queued += 1;
            self.accepted += 1;
            queue.push_back(Pending { event, order: self.accepted, deadline, ticket: ticket.clone(), index, uncertain: false });
        }
    }

    /// The next batch of the bucket whose turn it is. A bucket with a stream still to be made steps back until it is.
    fn next_batch(&mut self) -> Option<Batch> {
        loop {
            let bucket = self.ready.pop_front()?;
            let queue = self.queues.get_mut(&bucket)?;
            let take = queue.len().min(self.settings.pipeline_size);
            let mut known: Option<&Partition> = None;
            let mut closed: BTreeSet<&Partition> = BTreeSet::new();
            for partition in queue.iter().take(take).map(|item| &item.event.partition) {
                if known == Some(partition) {
                    continue;
                }
                known = Some(partition);
                if !self.opened.contains(partition) {
                    closed.insert(partition);
                }
            }
            if !closed.is_empty() {
                let closed = closed.into_iter().cloned().collect();
                self.open(bucket, closed, Duration::ZERO);
                continue;
            }
            let mut items = Vec::with_capacity(take);
            for item in queue.drain(..take) {
                self.queued -= 1;
                if item.event.cancelled.as_ref().is_some_and(|flag| flag.load(Ordering::Acquire)) {
                    item.finish(Err(Error::new(Code::Aborted, "the publish was aborted before it was sent")));
                } else {
                    items.push(item);
                }
            }
            if !queue.is_empty() {
                self.ready.push_back(bucket);
            }
            if items.is_empty() {
                continue;
            }
            let number = self.numbers.entry(bucket).or_insert(0);
            *number += 1;
            return Some(Batch { bucket, number: *number, items, replies: Vec::new() });
        }
    }

    /// Makes streams, after a pause; the bucket waits.
    fn open(&mut self, bucket: Bucket, partitions: Vec<Partition>, pause: Duration) {
        self.opening.insert(bucket);
        let opener = self.opener.clone();
        self.openings.push(Box::pin(async move {
            tokio::time::sleep(pause).await;
            let mut results = Vec::with_capacity(partitions.len());
            for partition in partitions {
                let result = opener(partition.clone()).await;
                results.push((partition, result));
            }
            (bucket, results)
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
                    let queue = self.queues.entry(bucket).or_default();
                    let (refused, kept): (VecDeque<_>, VecDeque<_>) = queue.drain(..).partition(|item| item.event.partition == partition);
                    *queue = kept;
                    self.queued -= refused.len();
                    refused.into_iter().for_each(|item| item.finish(Err(error.clone())));
                }
            }
        }
        let queue = self.queues.entry(bucket).or_default();
        again.retain(|partition| queue.iter().any(|item| item.event.partition == *partition));
        if again.is_empty() {
            self.opening.remove(&bucket);
            if !queue.is_empty() {
                self.ready.push_back(bucket);
            }
        } else {
            self.open(bucket, again, Duration::from_millis(50));
        }
    }

    /// Puts unsent events back to where the order of calls wants them.
    fn requeue(&mut self, bucket: Bucket, items: Vec<Pending>) {
        if items.is_empty() {
            return;
        }
        let queue = self.queues.entry(bucket).or_default();
        if queue.is_empty() && !self.opening.contains(&bucket) {
            self.ready.push_front(bucket);
        }
        self.queued += items.len();
        for item in items.into_iter().rev() {
            queue.push_front(item);
        }
        if !queue.iter().is_sorted_by_key(|item| item.order) {
            queue.make_contiguous().sort_by_key(|item| item.order);
        }
    }

    fn producer_key(&self, bucket: Bucket) -> String {
        self.keys.in_bucket(bucket, &format!("producer:{}", self.settings.instance))
    }

    /// Sends the batch; the future must be polled at once, what is sent first is done first.
    fn send(&mut self, connection: &Connection, mut batch: Batch) -> BoxFuture<'static, Reply> {
        let mut pipeline = Pipeline::with_capacity(batch.items.len() + 2);
        pipeline.atomic();
        // What events in a row share is made once.
        let mut last: Option<&NewEvent> = None;
        let mut stream = String::new();
        for item in &batch.items {
            let event = &item.event;
            let same = last.is_some_and(|last| last.partition == event.partition);
            if !same {
                stream = self.keys.stream(&event.partition);
            }
            if !same || last.is_some_and(|last| last.ttl_ms != event.ttl_ms) {
                self.note_ttl(&mut pipeline, event);
            }
            last = Some(event);
            batch.replies.push(pipeline.len());
            if event.delay_ms.is_none() && event.idempotency.is_none() {
                let mut append = redis::Cmd::with_capacity(8, 32 + stream.len() + event.meta.len() + event.data.len());
                append.arg("XADD").arg(&stream).arg("NOMKSTREAM").arg("*").arg("meta").arg(&event.meta).arg("data").arg(&event.data);
                pipeline.add_command(append);
            } else {
                pipeline.add_command(self.append_script(&stream, event));
            }
        }
        pipeline.cmd("SET").arg(self.producer_key(batch.bucket)).arg(batch.number).arg("EX").arg(PRODUCER_TTL_S);
        let mut connection = connection.inner.clone();
        let link = self.link.clone();
        Box::pin(async move {
            let _places = link.occupy(pipeline.len());
            let result = connection.send_packed_commands(&pipeline, pipeline.len() + 1, 1).await;
            (batch, result)
        })
    }

    fn append_script(&self, stream: &str, event: &NewEvent) -> redis::Cmd {
        let bucket = event.partition.bucket();
        let member = keys::member(&event.partition);
        let optional = |n: Option<u64>| n.map(|n| n.to_string()).unwrap_or_default();
        let idempotency = event.idempotency.as_ref();
        let mut cmd = scripts::call(
            &scripts::APPEND,
            &[
                stream,
                &self.keys.idempotency(&event.partition, idempotency.map_or("", |i| &i.key)),
                &self.keys.in_bucket(bucket, &format!("delayed:{member}")),
                &self.keys.in_bucket(bucket, &format!("delayed-body:{member}")),
                &self.keys.in_bucket(bucket, "delayed"),
            ],
        );
        cmd.arg(&*event.id)
            .arg(&event.meta)
            .arg(&event.data)
            .arg(optional(event.delay_ms))
            .arg(optional(idempotency.map(|i| i.window_ms)))
            .arg(member);
        cmd
    }

    /// Upkeep removes by the longest ttl of a partition: note one that is longer than any noted.
    fn note_ttl(&mut self, pipeline: &mut Pipeline, event: &NewEvent) {
        let longer = match (self.noted_ttl.get(&event.partition), event.ttl_ms) {
            (None, _) | (Some(Some(_)), None) => true,
            (Some(Some(noted)), Some(ttl)) => ttl > *noted,
            (Some(None), _) => false,
        };
        if longer {
            self.noted_ttl.insert(event.partition.clone(), event.ttl_ms);
            let mut cmd = scripts::call(&scripts::FACTS, &[&self.keys.facts(&event.partition)]);
            cmd.arg(event.ttl_ms.map_or_else(|| "-1".to_owned(), |ms| ms.to_string()));
            pipeline.add_command(cmd);
        }
    }

    /// Answers the events of a batch that the server has executed; sends again what it could not take.
    fn answer(&mut self, batch: Batch, values: Vec<Value>) {
        let Some(Ok(mut values)) = values.into_iter().next().map(reply::list) else {
            for item in batch.items {
                item.finish(Err(reply::unexpected("EXEC")));
            }
            return;
        };
        self.link.up();
        let mut again = Vec::new();
        let mut missing: Vec<Partition> = Vec::new();
        for (item, at) in batch.items.into_iter().zip(batch.replies) {
            match values.get_mut(at).map(std::mem::take) {
                Some(Value::BulkString(_)) => item.finish(Ok(Appended::Stored)),
                Some(Value::Nil) => {
                    missing.push(item.event.partition.clone());
                    again.push(item);
                }
                Some(Value::Array(parts)) => match script_reply(parts) {
                    Ok(Some(appended)) => {
                        let uncertain_self = item.uncertain && appended == Appended::Duplicate(item.event.id.to_string());
                        item.finish(Ok(if uncertain_self { Appended::Stored } else { appended }));
                    }
                    Ok(None) => {
                        missing.push(item.event.partition.clone());
                        again.push(item);
                    }
                    Err(error) => item.finish(Err(error)),
                },
                Some(Value::ServerError(error)) if error.code() == "NOSCRIPT" => {
                    self.scripts_gone = true;
                    again.push(item);
                }
                Some(Value::ServerError(error)) => item.finish(Err(reply::server_error(&error))),
                _ => item.finish(Err(reply::unexpected("XADD"))),
            }
        }
        self.scripts_gone |= values.iter().any(|value| matches!(value, Value::ServerError(error) if error.code() == "NOSCRIPT"));
        // Streams that went (FLUSHALL) come back with their groups; the script comes with the new connection.
        for partition in missing {
            self.opened.remove(&partition);
            self.noted_ttl.remove(&partition);
        }
        if !again.is_empty() {
            self.requeue(batch.bucket, again);
            self.expire();
        }
    }

    /// Connects anew, as often as it takes until nothing waits any more, and settles what was unanswered.
    async fn reconnect(
        &mut self,
        old: Option<i64>,
        mut unanswered: Vec<Batch>,
        requests: &mut mpsc::UnboundedReceiver<Request>,
    ) -> Option<Connection> {
        let mut pause = Duration::from_millis(20);
        loop {
            match self.try_reconnect(old, &mut unanswered).await {
                Ok(connection) => return Some(connection),
                Err(error) => {
                    tracing::debug!(%error, "publishing waits for Redis");
                    let closed = self.link.is_closed();
                    let now = Instant::now();
                    for batch in &mut unanswered {
                        for item in batch.items.extract_if(.., |item| closed || item.deadline <= now) {
                            item.finish(Err(error.clone().with("maybeStored", true)));
                        }
                    }
                    unanswered.retain(|batch| !batch.items.is_empty());
                    self.expire_with(&error, closed);
                    if self.queued == 0 && unanswered.is_empty() {
                        return None;
                    }
                }
            }
            let wake = Instant::now() + pause;
            pause = (pause * 2).min(RECONNECT_MAX);
            // Requests are taken in meanwhile, so that their time starts when they were made.
            while let Ok(Some(request)) = tokio::time::timeout_at(self.next_deadline(&unanswered).min(wake), requests.recv()).await {
                self.enqueue(request);
            }
            tokio::time::sleep_until(self.next_deadline(&unanswered).min(wake)).await;
        }
    }

    fn next_deadline(&self, unanswered: &[Batch]) -> Instant {
        let queued = self.queues.values().filter_map(|q| q.front()).map(|item| item.deadline);
        let sent = unanswered.iter().flat_map(|b| &b.items).map(|item| item.deadline);
        queued.chain(sent).min().unwrap_or_else(|| Instant::now() + RECONNECT_MAX)
    }

    async fn try_reconnect(&mut self, old: Option<i64>, unanswered: &mut Vec<Batch>) -> Result<Connection> {
        let mut connection = self.link.connect(self.link.target.command_timeout).await?;
        let explain = |error: RedisError| self.link.target.explain(&error);
        load_scripts(&self.link, &mut connection).await?;
        if let Some(id) = old {
            // After this nothing sent on the old connection can take effect: it is closed, or was.
            let _: i64 = redis::cmd("CLIENT").arg("KILL").arg("ID").arg(id).query_async(&mut connection.inner).await.map_err(explain)?;
        }
        let mut done: HashMap<Bucket, u64> = HashMap::new();
        for bucket in unanswered.iter().map(|batch| batch.bucket) {
            if !done.contains_key(&bucket) {
                let number: Option<u64> =
                    redis::cmd("GET").arg(self.producer_key(bucket)).query_async(&mut connection.inner).await.map_err(explain)?;
                done.insert(bucket, number.unwrap_or(0));
            }
        }
        for mut batch in std::mem::take(unanswered).into_iter().rev() {
            let executed = batch.number <= done[&batch.bucket];
            // Plain events of an executed batch are in. Others tell when asked again: their key is there.
            let (plain, keyed): (Vec<_>, Vec<_>) = batch.items.drain(..).partition(|item| executed && item.event.idempotency.is_none());
            for item in plain {
                item.finish(Ok(Appended::Stored));
            }
            let again = keyed.into_iter().map(|item| Pending { uncertain: executed || item.uncertain, ..item }).collect();
            self.requeue(batch.bucket, again);
        }
        Ok(connection)
    }

    fn expire(&mut self) {
        let error = self.link.target.unreachable("the event could not be written in time");
        self.expire_with(&error, self.link.is_closed());
    }

    /// Refuses events whose time is over.
    fn expire_with(&mut self, error: &Error, all: bool) {
        let now = Instant::now();
        for queue in self.queues.values_mut() {
            while queue.front().is_some_and(|item| all || item.deadline <= now) {
                let Some(item) = queue.pop_front() else { break };
                self.queued -= 1;
                let error = if item.uncertain { error.clone().with("maybeStored", true) } else { error.clone() };
                item.finish(Err(error));
            }
        }
        self.ready.retain(|bucket| self.queues.get(bucket).is_some_and(|q| !q.is_empty()));
    }
}

/// `None`: the stream must be opened first.
fn script_reply(parts: Vec<Value>) -> Result<Option<Appended>> {
    let mut parts = parts.into_iter();
    match parts.next().map(reply::text).transpose()?.as_deref() {
        Some("stored") => Ok(Some(Appended::Stored)),
        Some("duplicate") => Ok(Some(Appended::Duplicate(reply::text(parts.next().unwrap_or_default())?))),
        Some("missing") => Ok(None),
        _ => Err(Error::new(Code::Redis, "the server's reply to a publish has an unexpected form")),
    }
}
