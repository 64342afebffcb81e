//! Publishing: a few tasks that write, pipelines of transactions, exactly once over a lost connection.
//!
//! A batch is one MULTI for one bucket that ends with a note of the batch's number (`mark.lua`). When a reply is lost,
//! the writer connects anew, has the server close the old connection, so that nothing of it can take effect later, and
//! reads the note: batches up to the number are in, the others are sent again, in order.
//!
//! Events of a bucket keep the order of their calls, although several batches of it are on their way at once: each takes
//! effect only if the one before it did, as its note says. When one comes back (its stream is gone), so do those that
//! follow, and all are sent again once none is on its way. So it is with events that a stream is too full for (`full`).

pub mod durable;
mod full;
mod ledger;
pub mod transaction;

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesOrdered, FuturesUnordered};
use redis::{Cmd, RedisError, Value};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::super::{Appended, BUCKETS, Bucket, EntryId, NewEvent, Partition, StoreEvent};
use super::connection::Connection;
use super::failure::Failure;
use super::keys::{self, Keys};
use super::layouts::Layouts;
use super::link::Link;
use super::nodes::Node;
use super::pooled::Pooled;
use super::{Durability, reply, scripts};
use crate::engine::env::lock;
use crate::engine::error::{Code, Error, Result};
use crate::engine::log::along;
use ledger::Ledger;
use transaction::{Answer as Said, Encoder, Head};

/// Transactions in flight on one connection: enough to keep the server busy while replies travel.
const IN_FLIGHT_MAX: usize = 4;
/// With so many of them, only a whole one follows in a bucket that has some on its way: many small ones cost the server, and us, more
/// than few large ones, and what waits does so until the first of its bucket comes back.
const SMALL_IN_FLIGHT_MAX: usize = 2;
/// The most where each waits for replicas or the disk: the connection waits along.
pub const WAITS_MAX: u32 = 2;
/// Time between looks whether the server still knows what it said.
const AUDIT_EVERY: Duration = Duration::from_secs(5);
/// Most bytes a transaction, unless a single event is larger: the server does nothing else meanwhile.
const BATCH_BYTES_MAX: usize = 1024 * 1024;
/// How long the number of a publisher's last batch is kept, s: longer than any publish waits.
const PRODUCER_TTL_S: u64 = 3600;
/// First and longest pause between attempts to connect.
const RECONNECT: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));
/// Pause before a server that does not take writes now is asked again.
const REFUSED_PAUSE: Duration = Duration::from_millis(100);
/// Pause before a stream that could not be made is tried again.
const REOPEN_PAUSE: Duration = Duration::from_millis(50);

/// Bytes of a note's command beside its script, about.
const MARK_BYTES: usize = 512;

/// Opens a partition whose stream is missing.
pub type Opener = Arc<dyn Fn(Partition) -> BoxFuture<'static, Result<()>> + Send + Sync>;

/// Makes room in a full stream that may have so many entries, for so many more; answers whether any went.
pub type Roomer = Arc<dyn Fn(Partition, u64, u64) -> BoxFuture<'static, Result<bool>> + Send + Sync>;

/// What a writer has done, and asks, beside its own connection.
pub struct Makers {
    /// Makes streams.
    pub opener: Opener,
    /// Makes room in them.
    pub roomer: Roomer,
    /// How long they may be.
    pub layouts: Arc<Layouts>,
}

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
struct Ticket(std::sync::Mutex<TicketState>);

struct TicketState {
    left: usize,
    results: Vec<Option<Result<Appended>>>,
    answer: Answer,
}

impl Ticket {
    fn new(count: usize, answer: Answer) -> Arc<Self> {
        let results = (0..count).map(|_| None).collect();
        Arc::new(Self(std::sync::Mutex::new(TicketState { left: count, results, answer })))
    }

    fn fill(&self, index: usize, result: Result<Appended>) {
        let mut inner = lock(&self.0);
        if inner.results[index].replace(result).is_some() {
            return;
        }
        inner.left -= 1;
        if inner.left == 0
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
    /// It was sent to a server that forgot what it did, or was replaced: it may have been stored, and even handled.
    doubtful: bool,
}

impl Pending {
    fn finish(self, result: Result<Appended>) {
        let doubtful = self.doubtful;
        self.ticket.fill(self.index, result.map_err(|error| if doubtful { error.with("maybeStored", true) } else { error }));
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
    /// Its partitions, in the order of their note.
    partitions: Vec<Partition>,
    /// How many entries each may have.
    bounds: Vec<Option<u64>>,
    /// Index of each event's partition.
    places: Vec<usize>,
    /// Commands of its transaction, and which of them does not add an event.
    commands: usize,
    beside: Vec<usize>,
    /// The server it is sent to.
    node: Node,
}

/// What came of a batch.
struct Reply {
    batch: Batch,
    /// To its transaction, and of its replicas and disks, where that was asked.
    result: Result<Bytes, RedisError>,
}

/// Why nothing more is sent on a connection.
enum Useless {
    /// It is lost, or its server does not serve now: another one is made.
    Connection(Error),
    /// What is written is with another server, or on its way there.
    Elsewhere(Error),
}

/// What became of a lost batch, as far as the server knows.
struct Fate {
    /// It was executed.
    done: bool,
    /// The server cannot know: it lost what came before, too, or it is not the one that it was sent to.
    forgot: bool,
    /// Streams that were not there.
    missing: Vec<usize>,
    /// How many events of others were refused.
    refusals: full::Refusals,
    /// How much less safe it is than asked.
    shortfall: Option<Error>,
}

/// For each bucket asked about: the batch it was told to have, and the one that it knows of.
type Audit = Vec<(Bucket, u64, u64)>;

/// What a writer needs to know.
pub struct Settings {
    /// Names this publisher, unique.
    pub instance: String,
    /// Most events a transaction.
    pub pipeline_size: usize,
    /// How long an event waits for its reply, or for the server to come back.
    pub timeout: Duration,
    /// What it waits for beyond the server's word.
    pub durability: Option<Durability>,
    /// The slot of its bucket; any, where all are with one server.
    pub slot: u16,
}

/// What waits in one bucket.
#[derive(Default)]
struct Lane {
    queue: VecDeque<Pending>,
    /// Of their texts; what was given up may still be in it, until the queue is empty.
    bytes: usize,
    /// Number of its last batch.
    number: u64,
    /// Batches on their way.
    in_flight: usize,
    /// One came back: those on their way will, too, and nothing is sent until they have.
    broken: bool,
    /// A stream of its is being made, or room in it: what follows waits too, so that order holds.
    opening: bool,
    /// It has a turn coming.
    listed: bool,
    /// What the server said it has.
    ledger: Ledger,
}

/// Partitions of a bucket that were to be made, and what became of it.
type Openings = (Bucket, Vec<(Partition, Result<()>)>);

/// The task that writes for some buckets, on one connection.
pub struct Writer {
    link: Arc<Link>,
    pool: Arc<Pooled>,
    keys: Keys,
    settings: Settings,
    makers: Makers,
    lanes: Vec<Lane>,
    /// Buckets with something to send, in turn.
    ready: VecDeque<Bucket>,
    /// Longest ttl noted for a partition by this writer, ms; `None`: "never expires" was noted.
    noted_ttl: HashMap<Partition, Option<u64>>,
    accepted: u64,
    /// Partitions whose stream was made, or found, by this writer.
    opened: HashSet<Partition>,
    openings: FuturesUnordered<BoxFuture<'static, Openings>>,
    /// Streams in which room is being made.
    rooms: FuturesUnordered<BoxFuture<'static, full::Rooms>>,
    /// Full streams without anything that could go, and the last event accepted before that was looked at.
    full: HashMap<Partition, u64>,
    audits: FuturesUnordered<BoxFuture<'static, Result<Audit>>>,
    /// A connection that was given up, and that the server may still have: it is closed before anything else is sent.
    given_up: Option<Connection>,
}

impl Writer {
    /// Starts the task; it ends when the sender is dropped and all is answered.
    pub fn start(link: Arc<Link>, pool: Arc<Pooled>, keys: Keys, settings: Settings, makers: Makers) -> mpsc::UnboundedSender<Request> {
        // Unbounded here: limits.maxPendingPublishes bounds what the publisher lets in.
        let (sender, receiver) = mpsc::unbounded_channel();
        let writer = Self {
            link,
            pool,
            keys,
            settings,
            makers,
            lanes: (0..BUCKETS).map(|_| Lane::default()).collect(),
            ready: VecDeque::new(),
            noted_ttl: HashMap::new(),
            accepted: 0,
            opened: HashSet::new(),
            openings: FuturesUnordered::new(),
            rooms: FuturesUnordered::new(),
            full: HashMap::new(),
            audits: FuturesUnordered::new(),
            given_up: None,
        };
        tokio::spawn(along(writer.run(receiver)));
        sender
    }

    async fn run(mut self, mut requests: mpsc::UnboundedReceiver<Request>) {
        let mut connection: Option<Connection> = None;
        let mut in_flight: FuturesOrdered<BoxFuture<'static, Reply>> = FuturesOrdered::new();
        let mut open = true;
        let in_flight_max = if self.settings.durability.is_some() { WAITS_MAX as usize } else { IN_FLIGHT_MAX };
        let mut next_audit = Instant::now() + AUDIT_EVERY;
        loop {
            // What is on its way there comes back by itself.
            if in_flight.is_empty() && connection.as_ref().is_some_and(|connection| !self.is_home(connection)) {
                connection = None;
            }
            if connection.is_none() && !self.is_idle() {
                let given_up = self.given_up.take();
                connection = self.reconnect(given_up, Vec::new(), &mut requests).await;
            }
            if let Some(connection) = &connection {
                while in_flight.len() < in_flight_max {
                    let Some(batch) = self.next_batch(&connection.node, in_flight.len() < SMALL_IN_FLIGHT_MAX) else { break };
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
                    if let Some(mut useless) = self.land(reply, &mut lost) {
                        while let Some(reply) = in_flight.next().await {
                            if let Some(Useless::Connection(error)) = self.land(reply, &mut lost) {
                                useless = Useless::Connection(error);
                            }
                        }
                        let old = connection.take();
                        let old = self.give_up(old, &useless, !lost.is_empty()).await;
                        if lost.is_empty() {
                            let (Useless::Connection(error) | Useless::Elsewhere(error)) = &useless;
                            self.expire_with(error, self.link.is_closed());
                            self.pause(Instant::now() + REFUSED_PAUSE, &lost, &mut requests).await;
                        }
                        connection = self.reconnect(old, lost, &mut requests).await;
                    }
                },
                Some(audit) = self.audits.next(), if !self.audits.is_empty() => self.audited(audit),
                () = tokio::time::sleep_until(next_audit) => {
                    next_audit = Instant::now() + AUDIT_EVERY;
                    self.audit();
                },
                Some((bucket, results)) = self.openings.next(), if !self.openings.is_empty() => self.opened(bucket, results),
                Some(rooms) = self.rooms.next(), if !self.rooms.is_empty() => self.room_made(rooms),
            }
        }
    }

    /// Whether the connection leads to the server that is to be written to.
    fn is_home(&self, connection: &Connection) -> bool {
        self.link.nodes.is_fixed() || self.link.nodes.map().owner(self.settings.slot) == Some(&connection.node)
    }

    /// Sends nothing more on a connection. Answers it if what was sent on it may still take effect.
    async fn give_up(&mut self, old: Option<Connection>, useless: &Useless, lost: bool) -> Option<Connection> {
        let old = old?;
        match useless {
            Useless::Elsewhere(_) if !lost => return None,
            // Where another took its place nothing need be wrong with it.
            Useless::Elsewhere(error) | Useless::Connection(error) => {
                let error = (lost && self.is_home(&old)).then_some(error);
                self.pool.forget(&old, error).await;
            }
        }
        Some(old)
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
            let item = Pending { event, order, deadline, ticket: ticket.clone(), index, doubtful: false };
            let lane = self.lane(request.bucket);
            lane.bytes += item.bytes();
            lane.queue.push_back(item);
        }
        self.list(request.bucket);
    }

    /// The next batch of the bucket whose turn it is. A bucket with a stream still to be made steps back until it is; one with too
    /// little for a whole batch keeps its turn until it has, or small ones may go.
    fn next_batch(&mut self, node: &Node, may_be_small: bool) -> Option<Batch> {
        let mut passed = Vec::new();
        let mut found = None;
        while found.is_none()
            && let Some(bucket) = self.ready.pop_front()
        {
            let lane = &self.lanes[usize::from(bucket.0)];
            // One with nothing on its way waits for nobody: others may keep the connection busy for ever.
            let is_whole = lane.queue.len() >= self.settings.pipeline_size || lane.bytes >= BATCH_BYTES_MAX;
            if may_be_small || is_whole || lane.in_flight == 0 {
                found = self.batch_of(bucket, node);
            } else {
                passed.push(bucket);
            }
        }
        for bucket in passed.into_iter().rev() {
            self.ready.push_front(bucket);
        }
        found
    }

    /// A batch of the bucket, if one can go now.
    fn batch_of(&mut self, bucket: Bucket, node: &Node) -> Option<Batch> {
        let lane = &mut self.lanes[usize::from(bucket.0)];
        lane.listed = false;
        lane.broken &= lane.in_flight > 0;
        if lane.broken || lane.opening {
            return None;
        }
        let mut bytes = 0;
        let fitting = lane.queue.iter().take(self.settings.pipeline_size).take_while(|item| {
            bytes += item.bytes();
            bytes <= BATCH_BYTES_MAX
        });
        let take = fitting.count().max(1).min(lane.queue.len());
        // Events in a row are mostly of one partition.
        let mut known: Option<&Partition> = None;
        let mut closed: BTreeSet<&Partition> = BTreeSet::new();
        for partition in lane.queue.iter().take(take).map(|item| &item.event.partition) {
            if known != Some(partition) {
                known = Some(partition);
                if !self.opened.contains(partition) {
                    closed.insert(partition);
                }
            }
        }
        if !closed.is_empty() {
            // What is on its way comes first: it may have to be sent again, before what would go out then.
            if lane.in_flight == 0 {
                let closed = closed.into_iter().cloned().collect();
                self.open(bucket, closed, Duration::ZERO);
            }
            return None;
        }
        let mut items = Vec::with_capacity(take);
        for item in lane.queue.drain(..take) {
            lane.bytes = lane.bytes.saturating_sub(item.bytes());
            if item.event.cancelled.as_ref().is_some_and(|flag| flag.load(Ordering::Acquire)) {
                item.finish(Err(Error::new(Code::Aborted, "the publish was aborted before it was sent")));
            } else {
                items.push(item);
            }
        }
        if items.is_empty() {
            self.list(bucket);
            return None;
        }
        if lane.queue.is_empty() {
            lane.bytes = 0;
        }
        let behind = (lane.in_flight > 0).then_some(lane.number);
        lane.in_flight += 1;
        lane.number += 1;
        let number = lane.number;
        self.list(bucket);
        Some(Batch {
            bucket,
            number,
            items,
            behind,
            partitions: Vec::new(),
            bounds: Vec::new(),
            places: Vec::new(),
            commands: 0,
            beside: Vec::new(),
            node: node.clone(),
        })
    }

    /// Makes streams, after a pause; the bucket waits.
    fn open(&mut self, bucket: Bucket, partitions: Vec<Partition>, pause: Duration) {
        self.lane(bucket).opening = true;
        let opener = self.makers.opener.clone();
        let wanted = partitions.clone();
        // A task of its own: it shares connections with others, who would wait for it while this one does not look.
        let task = tokio::spawn(along(async move {
            tokio::time::sleep(pause).await;
            let mut results = Vec::with_capacity(partitions.len());
            for partition in partitions {
                let result = opener(partition.clone()).await;
                results.push((partition, result));
            }
            results
        }));
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
        let Lane { queue, bytes, .. } = self.lane(bucket);
        for item in items.into_iter().rev() {
            *bytes += item.bytes();
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

    /// Sends the batch.
    fn send(&mut self, connection: &Connection, mut batch: Batch) -> BoxFuture<'static, Reply> {
        let producer = self.producer_key(batch.bucket);
        let mut encoder = Encoder::new(self.bytes_of(&batch));
        let mut streams: Vec<(String, Head)> = Vec::new();
        // How many entries of each stream are plain XADDs.
        let mut plain: Vec<usize> = Vec::new();
        let mut script_known = false;
        let mut places: HashMap<&Partition, usize> = HashMap::new();
        // What events in a row share is made once.
        let mut last: Option<(&NewEvent, usize)> = None;
        for item in &batch.items {
            let event = &item.event;
            let same = last.filter(|(last, _)| last.partition == event.partition);
            let at = same.map(|(_, at)| at).or_else(|| places.get(&event.partition).copied());
            let at = at.unwrap_or_else(|| {
                places.insert(&event.partition, streams.len());
                let stream = self.keys.stream(&event.partition);
                let head = Head::new(&stream);
                streams.push((stream, head));
                plain.push(0);
                batch.bounds.push(self.makers.layouts.length_max(&event.partition.event_type).or(event.length_max));
                batch.partitions.push(event.partition.clone());
                streams.len() - 1
            });
            if same.is_none_or(|(last, _)| last.ttl_ms != event.ttl_ms)
                && let Some(note) = self.note_ttl(event)
            {
                batch.beside.push(encoder.len());
                encoder.add(&note);
            }
            last = Some((event, at));
            batch.places.push(at);
            let (stream, head) = &streams[at];
            if is_plain(event) {
                encoder.append(head, &event.meta, &event.data);
                plain[at] += 1;
            } else {
                let full = batch.bounds[at].map(|_| full_key(&producer));
                let mut append = self.append_script(stream, &producer, full.as_deref(), event, script_known);
                append.arg(optional(batch.behind)).arg(optional(batch.bounds[at]));
                encoder.add(&append);
                script_known = true;
            }
        }
        let is_bounded = batch.bounds.iter().any(Option::is_some);
        let full = is_bounded.then(|| full_key(&producer));
        let streams = streams.iter().map(|(stream, _)| stream);
        let keys: Vec<&str> = std::iter::once(&producer).chain(streams).chain(&full).map(String::as_str).collect();
        let mut mark = scripts::eval(&scripts::MARK, &keys);
        let before =
            batch.behind.map_or_else(|| format!("={}", self.lanes[usize::from(batch.bucket.0)].ledger.answered), |n| n.to_string());
        mark.arg(batch.number).arg(PRODUCER_TTL_S).arg(before).arg(plain.len()).arg(plain);
        if is_bounded {
            mark.arg(batch.bounds.iter().map(|bound| optional(*bound)).collect::<Vec<_>>());
        }
        encoder.add(&mark);
        batch.commands = encoder.len();
        let (bytes, replies) = encoder.finish(self.settings.durability.map(durable::wait).as_ref());
        let (link, slot, node) = (self.link.clone(), self.settings.slot, connection.node.clone());
        // On its way from here on: what is sent first is done first.
        let asked = connection.inner.ask(bytes, replies);
        Box::pin(async move {
            let _places = link.occupy(batch.commands);
            let result = tokio::select! {
                biased;
                result = asked => result,
                // One that hangs is not waited for when another has taken its place.
                () = link.nodes.left(slot, &node) => Err(std::io::Error::from(std::io::ErrorKind::ConnectionAborted).into()),
            };
            Reply { batch, result }
        })
    }

    /// About how many its transaction has.
    fn bytes_of(&self, batch: &Batch) -> usize {
        let Some(first) = batch.items.first() else { return 0 };
        let texts: usize = batch.items.iter().map(Pending::bytes).sum();
        let around = Head::new(&self.keys.stream(&first.event.partition)).bytes_with(0);
        scripts::MARK.source().len() + texts + batch.items.len() * around + MARK_BYTES
    }

    /// The last arguments, the number of the batch before and the stream's bound, are still to be added. `known`: the transaction made the script
    /// known before.
    fn append_script(&self, stream: &str, producer: &str, full: Option<&str>, event: &NewEvent, known: bool) -> Cmd {
        let bucket = event.partition.bucket();
        let member = keys::member(&event.partition);
        let idempotency = event.idempotency.as_ref();
        let keys = [
            stream,
            &self.keys.idempotency(&event.partition, idempotency.map_or("", |i| &i.key)),
            &self.keys.in_bucket(bucket, &format!("delayed:{member}")),
            &self.keys.in_bucket(bucket, &format!("delayed-body:{member}")),
            &self.keys.in_bucket(bucket, "delayed"),
            producer,
        ];
        let keys: Vec<&str> = keys.into_iter().chain(full).collect();
        let mut cmd = if known { scripts::call(&scripts::APPEND, &keys) } else { scripts::eval(&scripts::APPEND, &keys) };
        cmd.arg(&*event.id)
            .arg(&event.meta)
            .arg(&*event.data)
            .arg(optional(event.delay_ms))
            .arg(optional(idempotency.map(|i| i.window_ms)))
            .arg(member);
        cmd
    }

    /// Upkeep removes by the longest ttl of a partition: note one that is longer than any noted.
    fn note_ttl(&mut self, event: &NewEvent) -> Option<Cmd> {
        let longer = match (self.noted_ttl.get(&event.partition), event.ttl_ms) {
            (None, _) | (Some(Some(_)), None) => true,
            (Some(Some(noted)), Some(ttl)) => ttl > *noted,
            (Some(None), _) => false,
        };
        longer.then(|| {
            self.noted_ttl.insert(event.partition.clone(), event.ttl_ms);
            let mut cmd = scripts::eval(&scripts::FACTS, &[&self.keys.facts(&event.partition)]);
            cmd.arg(event.ttl_ms.map_or_else(|| "-1".to_owned(), |ms| ms.to_string()));
            cmd
        })
    }

    /// Takes in what came of a batch: answers its events, or puts them back, or adds it to the lost. Answers why nothing
    /// more is sent on the connection, if so.
    fn land(&mut self, Reply { batch, result }: Reply, lost: &mut Vec<Batch>) -> Option<Useless> {
        let bucket = batch.bucket;
        self.lane(bucket).in_flight -= 1;
        let replies = match &result {
            Ok(bytes) => transaction::read(bytes, batch.commands),
            Err(error) => Err(Failure::of(error.clone(), &self.link.target(&batch.node))),
        };
        let mut shortfall = None;
        let replies = replies.map(|(replies, waited)| {
            shortfall = self.settings.durability.zip(waited).and_then(|(durability, answer)| durable::shortfall(durability, &answer));
            replies
        });
        let mut useless = None;
        let mark = replies.as_ref().ok().and_then(|replies| match replies.last() {
            Some(Said::Text(mark)) => Some(String::from_utf8_lossy(mark).into_owned()),
            _ => None,
        });
        // What the server does not know of any more, and what became of this batch.
        let mark = mark.map(|mark| match mark.strip_prefix('!') {
            Some(rest) => {
                let (noted, rest) = rest.split_once(' ').unwrap_or((rest, ""));
                self.lost(bucket, noted.parse().unwrap_or(0));
                if rest.is_empty() { String::new() } else { format!(" {rest}") }
            }
            None => mark,
        });
        self.lane(bucket).broken |= mark.as_deref() != Some("");
        match replies {
            Ok(_) if mark.as_deref() == Some("behind") => self.put_back(bucket, batch.items),
            Ok(replies) => {
                self.link.up(&batch.node);
                self.answer(batch, &replies, &mark.unwrap_or_default(), shortfall.as_ref());
            }
            Err(Failure::Refused(error)) => {
                for item in batch.items {
                    self.noted_ttl.remove(&item.event.partition);
                    item.finish(Err(error.clone()));
                }
            }
            Err(Failure::Later(error)) => {
                self.put_back(bucket, batch.items);
                useless = Some(Useless::Connection(error));
            }
            Err(Failure::Elsewhere(error, moved)) => {
                if let Some(moved) = moved {
                    self.link.nodes.moved(&moved, &batch.node);
                }
                self.put_back(bucket, batch.items);
                useless = Some(Useless::Elsewhere(error));
            }
            Err(Failure::Lost(error)) => {
                lost.push(batch);
                useless = Some(Useless::Connection(error));
            }
        }
        self.list(bucket);
        useless
    }

    /// Answers the events of a batch that the server has executed; puts back those whose stream is gone, or full.
    fn answer(&mut self, batch: Batch, said: &[Said<'_>], mark: &str, shortfall: Option<&Error>) {
        let (mut again, mut refused) = (Vec::new(), Vec::new());
        let taken_out = full::taken_out(&batch, &full::Refusals::read(mark.split(' ')));
        // How many entries each partition got, and the last of them.
        let mut written: Vec<(u64, Option<&[u8]>)> = vec![(0, None); batch.partitions.len()];
        let done = |appended| shortfall.map_or(Ok(appended), |error| Err(error.clone()));
        let mut beside = batch.beside.iter().copied().peekable();
        let of_events = said.iter().enumerate().filter(|(at, _)| beside.next_if_eq(at).is_none()).map(|(_, said)| *said);
        let mut of_events = of_events.take(batch.items.len());
        for (i, (item, at)) in batch.items.into_iter().zip(batch.places).enumerate() {
            match of_events.next() {
                Some(Said::Text(_)) if !taken_out.is_empty() && taken_out.contains(&i) => refused.push(item),
                Some(Said::Text(id)) => {
                    if let Some(told) = &item.event.entry
                        && let Some(id) = entry_id(id)
                    {
                        let _ = told.set(id);
                    }
                    if let Some(written) = written.get_mut(at) {
                        *written = (written.0 + 1, Some(id));
                    }
                    item.finish(done(Appended::Stored));
                }
                Some(Said::Nil) => again.push(item),
                Some(other) => match other.value() {
                    Value::Array(parts) => match script_reply(parts) {
                        Ok(Scripted::Done(appended)) => {
                            if appended == Appended::Stored
                                && let Some(written) = written.get_mut(at)
                            {
                                written.0 += 1;
                            }
                            item.finish(done(appended));
                        }
                        Ok(Scripted::Missing) => again.push(item),
                        Ok(Scripted::Full) => refused.push(item),
                        Err(error) => item.finish(Err(error)),
                    },
                    Value::ServerError(error) => item.finish(Err(reply::server_error(&error))),
                    _ => item.finish(Err(reply::unexpected("XADD"))),
                },
                None => item.finish(Err(reply::unexpected("EXEC"))),
            }
        }
        let written = written.into_iter().map(|(events, last)| (events, last.and_then(entry_id)));
        let ledger = &mut self.lane(batch.bucket).ledger;
        ledger.answered = ledger.answered.max(batch.number);
        for (partition, (events, last)) in batch.partitions.iter().zip(written).filter(|(_, (events, _))| *events > 0) {
            ledger.note(batch.number, partition, events, last);
        }
        if !again.is_empty() {
            self.close_streams(&again);
            self.put_back(batch.bucket, again);
        }
        self.refused(batch.bucket, &batch.partitions, &batch.bounds, refused);
    }

    /// Events that were not written wait to be sent again, unless their time is over.
    fn put_back(&mut self, bucket: Bucket, items: Vec<Pending>) {
        for item in &items {
            // What was to be noted with it may not have been.
            self.noted_ttl.remove(&item.event.partition);
        }
        self.requeue(bucket, items);
        let late = self.link.unreachable("the event could not be written in time");
        self.expire_with(&late, self.link.is_closed());
    }

    /// Streams that went (FLUSHALL) come back with their groups before their events are sent again.
    fn close_streams(&mut self, of: &[Pending]) {
        for item in of {
            self.opened.remove(&item.event.partition);
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
                        self.given_up = old;
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
        let connection = self.pool.get_for(self.settings.slot).await?;
        let mut commands = Vec::new();
        // After this nothing sent on the old connection can take effect: it is closed, or was. Where the server is another
        // one, what the old one may still do does not count: it serves these keys no longer, or forgets what it did.
        let kill = old.filter(|old| old.node == connection.node);
        commands.extend(kill.map(Connection::kill));
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
        let durability = self.settings.durability.filter(|_| !lost.is_empty());
        if let Some(durability) = durability {
            // Something has to be written here that comes after what was: the wait is for that.
            for batch in lost.iter() {
                let mut touch = redis::cmd("EXPIRE");
                touch.arg(self.producer_key(batch.bucket)).arg(PRODUCER_TTL_S);
                commands.push(touch);
            }
            commands.push(durable::wait(durability));
        }
        let mut values = Vec::new();
        if !commands.is_empty() {
            let node = connection.node.clone();
            let sent = tokio::select! {
                sent = self.link.send(&connection, &commands) => sent,
                () = self.link.nodes.left(self.settings.slot, &node) => Err(std::io::Error::from(std::io::ErrorKind::ConnectionAborted).into()),
            };
            values = match sent {
                Ok(values) => values,
                Err(error) => {
                    let error = self.link.target(&connection.node).explain(&error);
                    self.pool.forget(&connection, Some(&error)).await;
                    return Err(error);
                }
            };
        }
        let shortfall = durability.and_then(|durability| durable::shortfall(durability, &values.pop().unwrap_or_default()));
        if let Some(Value::ServerError(error)) = values.iter().find(|value| matches!(value, Value::ServerError(_))) {
            if error.code() == "MOVED" {
                self.link.nodes.moved(error.details().unwrap_or_default(), &connection.node);
            }
            return Err(reply::server_error(error));
        }
        let mut values = values.into_iter().skip(usize::from(kill.is_some()));
        let mut next = || values.next().filter(|value| *value != Value::Nil).map(reply::text).transpose();
        let mut found = Vec::with_capacity(lost.len());
        for batch in lost.iter() {
            let note = next()?.unwrap_or_default();
            let mut note = note.split(' ');
            let noted: Option<u64> = note.next().and_then(|number| number.parse().ok());
            let done = noted.is_some_and(|noted| batch.number <= noted);
            // A batch that was not whole is the last: none behind it took effect.
            let broken: Vec<&str> = note.filter(|_| noted == Some(batch.number)).collect();
            let missing: Vec<usize> = broken.iter().filter_map(|index| index.parse().ok()).collect();
            let refusals = full::Refusals::read(broken);
            let keys = batch.items.iter().filter(|item| item.event.idempotency.is_some()).map(|_| next()).collect::<Result<Vec<_>>>()?;
            // A note that is behind what was answered says nothing of this batch: the server lost it. And one that was
            // replaced while it hung may still do, and hand out, what was sent to it, before it hears that it was.
            let is_behind = noted.unwrap_or(0) < self.lanes[usize::from(batch.bucket.0)].ledger.answered;
            let forgot = !done && (is_behind || kill.is_none());
            found.push((done, forgot, missing, refusals, keys));
        }
        for (batch, (done, forgot, missing, refusals, keys)) in lost.drain(..).zip(found) {
            let fate = Fate { done, forgot, missing, refusals, shortfall: shortfall.clone() };
            self.recover(batch, &fate, keys);
        }
        Ok(connection)
    }

    /// Answers the events of a lost batch if it was executed; puts them back otherwise. `keys`: what the idempotency keys of
    /// its events are now.
    fn recover(&mut self, batch: Batch, fate: &Fate, keys: Vec<Option<String>>) {
        let Fate { done: is_done, forgot, missing, refusals, shortfall } = fate;
        let (mut again, mut refused) = (Vec::new(), Vec::new());
        let done = |appended| shortfall.as_ref().map_or(Ok(appended), |error| Err(error.clone()));
        let mut written = vec![0; batch.partitions.len()];
        let mut out = full::taken_out(&batch, refusals);
        out.extend(full::scripted_out(&batch, refusals, &keys));
        let mut keys = keys.into_iter();
        for (i, item) in batch.items.into_iter().enumerate() {
            let first = if item.event.idempotency.is_some() { keys.next().flatten() } else { None };
            let was_missing = missing.iter().any(|at| batch.partitions.get(*at) == Some(&item.event.partition));
            match first {
                _ if !*is_done => again.push(Pending { doubtful: item.doubtful || *forgot, ..item }),
                _ if out.contains(&i) => refused.push(item),
                _ if was_missing => {
                    self.close_streams(std::slice::from_ref(&item));
                    again.push(item);
                }
                Some(first) if *first != *item.event.id => item.finish(done(Appended::Duplicate(first))),
                // Also when its window is over: sent again it would be written again.
                _ => {
                    if let Some(at) = batch.partitions.iter().position(|partition| *partition == item.event.partition) {
                        written[at] += 1;
                    }
                    item.finish(done(Appended::Stored));
                }
            }
        }
        if *is_done {
            let ledger = &mut self.lane(batch.bucket).ledger;
            ledger.answered = ledger.answered.max(batch.number);
            for (partition, events) in batch.partitions.iter().zip(written).filter(|(_, events)| *events > 0) {
                ledger.note(batch.number, partition, events, None);
            }
        }
        self.put_back(batch.bucket, again);
        self.refused(batch.bucket, &batch.partitions, &batch.bounds, refused);
    }

    /// Asks whether the server still knows of what it said it has: one that took another's place may not.
    fn audit(&mut self) {
        if !self.audits.is_empty() {
            return;
        }
        let mut asked = Vec::new();
        for bucket in Bucket::all() {
            let ledger = &mut self.lane(bucket).ledger;
            if ledger.is_open() {
                asked.push((bucket, ledger.answered));
            }
        }
        if asked.is_empty() {
            return;
        }
        let commands: Vec<Cmd> = asked
            .iter()
            .map(|(bucket, _)| {
                let mut get = redis::cmd("GET");
                get.arg(self.producer_key(*bucket));
                get
            })
            .collect();
        let pool = self.pool.clone();
        // A task of its own, as for streams that are made.
        let task = tokio::spawn(along(async move {
            let mut known = Vec::with_capacity(asked.len());
            for ((bucket, answered), note) in asked.into_iter().zip(pool.run(&commands).await?) {
                let note = if note == Value::Nil { String::new() } else { reply::text(note)? };
                known.push((bucket, answered, note.split(' ').next().and_then(|number| number.parse().ok()).unwrap_or(0)));
            }
            Ok(known)
        }));
        self.audits.push(Box::pin(async move { task.await.unwrap_or_else(|_| Err(Error::internal("an audit ended early"))) }));
    }

    fn audited(&mut self, audit: Result<Audit>) {
        match audit {
            Ok(known) => {
                for (bucket, answered, noted) in known {
                    // Of what was written meanwhile, its own reply told.
                    if noted < answered && self.lane(bucket).ledger.answered == answered {
                        self.lost(bucket, noted);
                    }
                }
            }
            Err(error) => tracing::debug!(%error, "whether what was written is still there could not be asked"),
        }
    }

    /// The server knows of the batches up to `noted` only.
    fn lost(&mut self, bucket: Bucket, noted: u64) {
        let losses = self.lane(bucket).ledger.lost_after(noted);
        if !losses.is_empty() {
            self.link.tell(StoreEvent::DataLoss(losses));
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

fn entry_id(text: &[u8]) -> Option<EntryId> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Counts, within a transaction, the events that a script refused because their stream is full.
fn full_key(producer: &str) -> String {
    format!("{producer}:full")
}

fn optional(number: Option<u64>) -> String {
    number.map(|number| number.to_string()).unwrap_or_default()
}

/// Whether the event is written by a command, not by a script.
fn is_plain(event: &NewEvent) -> bool {
    event.delay_ms.is_none() && event.idempotency.is_none()
}

/// What `append.lua` did.
enum Scripted {
    /// As asked.
    Done(Appended),
    /// Nothing: the stream must be opened first.
    Missing,
    /// Nothing: the stream has as many entries as it may.
    Full,
}

fn script_reply(parts: Vec<Value>) -> Result<Scripted> {
    let mut parts = parts.into_iter();
    match parts.next().map(reply::text).transpose()?.as_deref() {
        Some("stored") => Ok(Scripted::Done(Appended::Stored)),
        Some("duplicate") => Ok(Scripted::Done(Appended::Duplicate(reply::text(parts.next().unwrap_or_default())?))),
        Some("missing") => Ok(Scripted::Missing),
        Some("full") => Ok(Scripted::Full),
        _ => Err(Error::new(Code::Redis, "the server's reply to a publish has an unexpected form")),
    }
}
