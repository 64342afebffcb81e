//! Reading: plain connections of its own for each group, because a blocking read stops everything behind it. One, or in a
//! cluster one for each bucket in use: a read names streams of one slot only.

mod lane;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use redis::{Cmd, Value};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::super::{Bucket, Entry, ReadError, ReadFrom, Reader, Waker};
use super::keys::Keys;
use super::link::Link;
use super::nodes::Node;
use super::pooled::Pooled;
use super::wire::Wire;
use crate::engine::env::lock;
use crate::engine::error::{Error, Result};
use crate::engine::log::along;
use lane::LaneRead;
pub use lane::read_reply;

/// First and longest pause before a server that could not be read from is tried again, while others are read.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// How long a server is waited for that is to end a read.
const WAKE_TIMEOUT: Duration = Duration::from_secs(1);
/// How long servers are waited for that are late when others have answered.
const LATE_MAX: Duration = Duration::from_millis(500);

/// Reads new entries for one group.
pub struct RedisReader {
    place: Arc<Place>,
    /// By slot of a bucket; a single one where all are with one server. Those that read are not here, but in `reading`.
    lanes: BTreeMap<u16, Lane>,
    reading: Reading,
    /// A failure of one server that is not told yet: what others gave came first.
    failed: Option<ReadError>,
    /// The last read found something: there may be more.
    is_hot: bool,
    /// Counts the reads.
    call: u64,
}

/// Reads of several servers under way. Each is a task of its own: connecting shares locks with others, who would wait for it
/// while nobody reads.
#[derive(Default)]
struct Reading {
    reads: JoinSet<LaneEnded>,
    /// The slots that they read.
    busy: BTreeSet<u16>,
}

/// What all reads of a group need.
struct Place {
    link: Arc<Link>,
    keys: Keys,
    group: String,
    shared: Arc<Shared>,
}

/// A read of one server that ended.
struct LaneEnded {
    /// The read for which it was begun.
    call: u64,
    slot: u16,
    lane: Lane,
    consumer: Arc<str>,
    result: Result<Vec<Entry>, ReadError>,
}

/// A connection, and when to try for another.
#[derive(Default)]
struct Lane {
    wire: Option<Wire>,
    retry_at: Option<Instant>,
    pause: Duration,
}

impl Lane {
    fn failed(&mut self) {
        self.wire = None;
        self.pause = (self.pause * 2).clamp(RETRY.0, RETRY.1);
        self.retry_at = Some(Instant::now() + self.pause);
    }

    fn worked(&mut self) {
        self.retry_at = None;
        self.pause = Duration::ZERO;
    }
}

/// What reader and waker share.
struct Shared {
    control: Arc<Pooled>,
    /// Reads that wait on the server, by slot: where, and `CLIENT ID` of their connection.
    blocked: std::sync::Mutex<BTreeMap<u16, (Node, i64)>>,
    /// Somebody wants the read to end.
    wanted: AtomicBool,
}

/// Ends blocking reads by `CLIENT UNBLOCK`: one that is dropped half-way costs its connection.
struct RedisWaker(Arc<Shared>);

/// What one read asks for.
#[derive(Clone)]
struct Ask {
    consumer: Arc<str>,
    count: usize,
    wait: Option<Duration>,
}

impl RedisReader {
    /// A reader that connects at its first read; `control` is where its waker speaks to the server.
    pub fn open(link: Arc<Link>, keys: Keys, group: &str, control: Arc<Pooled>) -> (Box<dyn Reader>, Arc<dyn Waker>) {
        let shared = Arc::new(Shared { control, blocked: std::sync::Mutex::default(), wanted: AtomicBool::new(false) });
        let reader = Self {
            place: Arc::new(Place { link, keys, group: group.to_owned(), shared: shared.clone() }),
            lanes: BTreeMap::new(),
            reading: Reading::default(),
            failed: None,
            is_hot: false,
            call: 0,
        };
        (Box::new(reader), Arc::new(RedisWaker(shared)))
    }

    fn is_cluster(&self) -> bool {
        self.place.link.nodes.is_cluster()
    }

    /// The slot whose server is asked for the bucket.
    fn slot(&self, bucket: Bucket) -> u16 {
        if self.is_cluster() { Keys::slot(bucket) } else { 0 }
    }

    /// One read of every server that is to be asked now. Answers what they gave in time.
    async fn read_lanes(&mut self, reading: &mut Reading, shares: &BTreeMap<u16, Vec<ReadFrom>>, ask: &Ask) -> Vec<Entry> {
        if !self.is_cluster() {
            let mut lane = self.lanes.remove(&0).unwrap_or_default();
            let share = shares.get(&0).map_or(&[][..], Vec::as_slice);
            let result = lane_read(&self.place, 0, &mut lane, share, ask).await;
            return self.ended(LaneEnded { call: self.call, slot: 0, lane, consumer: ask.consumer.clone(), result }, ask);
        }
        let wait = self.begin(reading, shares, ask);
        // A server that hangs holds up nobody but itself: there is a time when the others are heard without it.
        let mut end = Instant::now() + wait.unwrap_or_default() + LATE_MAX;
        let mut out = Vec::new();
        let mut ending = false;
        while let Ok(Some(ended)) = tokio::time::timeout_at(end, reading.reads.join_next()).await {
            let Ok(ended) = ended else {
                // A defect: what it had read is pending, and found when that is compared.
                *reading = Reading::default();
                self.failed = Some(ReadError::Store(Error::internal("a read ended early")));
                break;
            };
            reading.busy.remove(&ended.slot);
            let ends = !matches!(&ended.result, Ok(entries) if entries.is_empty());
            out.append(&mut self.ended(ended, ask));
            // There is something to tell: the others need not wait any longer.
            if ends && !ending && !reading.reads.is_empty() {
                ending = true;
                wake(&self.place.shared);
                end = end.min(Instant::now() + LATE_MAX);
            }
        }
        out
    }

    /// Takes in what came of the read of one server.
    fn ended(&mut self, LaneEnded { call, slot, mut lane, consumer, result }: LaneEnded, ask: &Ask) -> Vec<Entry> {
        let entries = match result {
            Ok(entries) => {
                lane.worked();
                if call == self.call && consumer == ask.consumer {
                    entries
                } else {
                    // It comes after its read was answered: what is pending may have been compared with what is held since,
                    // and handed back. So that is done with it, too. What was read under a name that was given up goes where
                    // all goes that was its.
                    if !entries.is_empty() && consumer == ask.consumer {
                        self.failed = Some(ReadError::Store(self.place.link.unreachable("a server answered late")));
                    }
                    Vec::new()
                }
            }
            Err(error) => {
                match &error {
                    // Whatever it was: a read that failed half-way must not be mixed up with the next.
                    ReadError::Store(_) => lane.failed(),
                    ReadError::NoGroup | ReadError::NotOwner => lane.worked(),
                }
                self.failed = Some(error);
                Vec::new()
            }
        };
        self.lanes.insert(slot, lane);
        entries
    }

    /// Begins to read from all servers that are not late, nor rest after a failure. Answers how long they wait.
    fn begin(&mut self, reading: &mut Reading, shares: &BTreeMap<u16, Vec<ReadFrom>>, ask: &Ask) -> Option<Duration> {
        let now = Instant::now();
        let idle: Vec<u16> = shares.keys().filter(|slot| !reading.busy.contains(slot)).copied().collect();
        // Where none can be read whoever asks pauses; while others are read, one that failed is left out for a while, and
        // tried again in time however long the others have nothing.
        let retry_at = |slot: &u16| self.lanes.get(slot).and_then(|lane| lane.retry_at).filter(|at| *at > now);
        let some_work = !reading.busy.is_empty() || idle.iter().any(|slot| retry_at(slot).is_none());
        let first_retry = idle.iter().filter_map(retry_at).min().filter(|_| some_work);
        let wait = ask.wait.map(|wait| first_retry.map_or(wait, |first| wait.min(first - now)));
        let begun: Vec<u16> = idle.into_iter().filter(|slot| !some_work || retry_at(slot).is_none()).collect();
        for slot in begun {
            let mut lane = self.lanes.remove(&slot).unwrap_or_default();
            let share = shares.get(&slot).cloned().unwrap_or_default();
            let (place, ask, call) = (self.place.clone(), Ask { wait, ..ask.clone() }, self.call);
            reading.busy.insert(slot);
            reading.reads.spawn(along(async move {
                let result = lane_read(&place, slot, &mut lane, &share, &ask).await;
                LaneEnded { call, slot, lane, consumer: ask.consumer, result }
            }));
        }
        wait
    }
}

/// Takes the note on a read that may wait away, also of one that is dropped: nobody is to wake it then.
struct Blocked<'a> {
    shared: &'a Shared,
    slot: u16,
}

impl Drop for Blocked<'_> {
    fn drop(&mut self) {
        lock(&self.shared.blocked).remove(&self.slot);
    }
}

/// Reads from one server.
async fn lane_read(place: &Place, slot: u16, lane: &mut Lane, from: &[ReadFrom], ask: &Ask) -> Result<Vec<Entry>, ReadError> {
    let Place { link, keys, group, shared } = place;
    let wire = match &mut lane.wire {
        Some(wire) => wire,
        none => none.insert(tokio::select! {
            made = link.connect_wire(slot) => made.map_err(ReadError::Store)?,
            () = link.closed() => return Err(ReadError::Store(Error::closed("the store"))),
        }),
    };
    let node = wire.node().clone();
    let blocked = Blocked { shared, slot };
    // Noted before it is asked whether somebody wants the read to end: whoever does, looks in the opposite order.
    let mut wait = ask.wait;
    if wait.is_some() {
        lock(&shared.blocked).insert(slot, (node.clone(), wire.id));
        if shared.wanted.load(Ordering::SeqCst) {
            wait = None;
        }
    }
    let read = LaneRead { link, keys, group, consumer: &ask.consumer, from, count: ask.count, wire };
    let result = tokio::select! {
        result = read.run(wait) => result,
        // The connection is thrown away with what the read may still bring; the end of the lease gives it back.
        () = link.closed() => Err(ReadError::Store(Error::closed("the store"))),
        () = link.nodes.left(slot, &node) => Err(ReadError::Store(link.target(&node).unreachable("another took its place"))),
    };
    drop(blocked);
    // Where another took its place nothing need be wrong with it.
    let is_home = link.nodes.map().owner(slot) == Some(&node);
    match &result {
        Ok(_) => link.up(&node),
        Err(ReadError::NoGroup | ReadError::NotOwner) => {}
        Err(ReadError::Store(error)) => match error.details.get("reply").and_then(|reply| reply.as_str()) {
            // What it serves is elsewhere, or on its way there: nothing is wrong with the server.
            Some("MOVED") => link.nodes.moved(error.details.get("moved").and_then(|to| to.as_str()).unwrap_or_default(), &node),
            Some("ASK" | "TRYAGAIN" | "UNBLOCKED") => {}
            _ if is_home => link.down(&node, error),
            _ => {}
        },
    }
    result
}

#[async_trait]
impl Reader for RedisReader {
    async fn read(&mut self, consumer: &str, from: &[ReadFrom], count: usize, wait: Option<Duration>) -> Result<Vec<Entry>, ReadError> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        self.call += 1;
        let woken = self.place.shared.wanted.swap(false, Ordering::SeqCst);
        let mut ask = Ask { consumer: consumer.into(), count, wait: wait.filter(|_| !woken) };
        let mut shares: BTreeMap<u16, Vec<ReadFrom>> = BTreeMap::new();
        for from in from {
            shares.entry(self.slot(from.partition.bucket())).or_default().push(from.clone());
        }
        // Not in its place meanwhile: when this read is dropped half-way, those of the servers go with it, and with their
        // connections. A server would go on with them, and give them what comes next.
        let mut reading = std::mem::take(&mut self.reading);
        // To end reads that wait on several servers costs more than to ask once more while there is much to read.
        let mut entries = Vec::new();
        if shares.len() > 1 && self.is_hot && ask.wait.is_some() {
            let wait = ask.wait.take();
            entries = self.read_lanes(&mut reading, &shares, &ask).await;
            ask.wait = wait;
        }
        if entries.is_empty() && self.failed.is_none() {
            entries = self.read_lanes(&mut reading, &shares, &ask).await;
        }
        self.reading = reading;
        self.place.shared.wanted.store(false, Ordering::SeqCst);
        self.is_hot = !entries.is_empty();
        match self.failed.take() {
            Some(error) if entries.is_empty() => Err(error),
            // What was taken is this consumer's; the failure is told next.
            failed => {
                self.failed = failed;
                Ok(entries)
            }
        }
    }
}

impl Waker for RedisWaker {
    fn wake(&self) {
        wake(&self.0);
    }
}

/// What waits, with all behind it, while a server holds up writes (CLIENT PAUSE, a failover by hand). Redis 7.0 ends by an
/// assertion when a read is unblocked that it holds up so.
fn held_up_by_a_pause() -> Vec<Cmd> {
    let mut cmd = redis::cmd("EVAL");
    cmd.arg("return 1").arg(0);
    vec![cmd]
}

fn wake(shared: &Arc<Shared>) {
    if shared.wanted.swap(true, Ordering::SeqCst) {
        return;
    }
    let shared = shared.clone();
    let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
    runtime.spawn(along(async move {
        // A read may be on its way to the server and not block yet: ask again until it took notice.
        while shared.wanted.load(Ordering::SeqCst) {
            let blocked = lock(&shared.blocked).clone();
            if blocked.is_empty() {
                // Whichever read comes next sees that it is not to wait.
                return;
            }
            let mut by_node: BTreeMap<Node, Vec<Cmd>> = BTreeMap::new();
            for (node, id) in blocked.into_values() {
                let mut unblock = redis::cmd("CLIENT");
                unblock.arg("UNBLOCK").arg(id);
                by_node.entry(node).or_insert_with(held_up_by_a_pause).push(unblock);
            }
            let asked = join_all(by_node.iter().map(|(node, commands)| async {
                // One that hangs does not keep the others from being asked again.
                let asked = tokio::time::timeout(WAKE_TIMEOUT, shared.control.run_on(node, commands)).await;
                asked.ok().and_then(Result::ok).and_then(|mut replies| replies.pop())
            }));
            // A read whose server is away fails, too, or ends by itself.
            for answer in asked.await.into_iter().flatten() {
                if let Value::ServerError(error) = answer {
                    tracing::debug!(?error, "a read could not be woken");
                    return;
                }
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }));
}
