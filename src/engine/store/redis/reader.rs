//! Reading: plain connections of its own for each group, because a blocking read stops everything behind it. One, or in a
//! cluster one for each bucket in use: a read names streams of one slot only.

mod lane;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use redis::Value;
use tokio::time::Instant;

use super::super::{Bucket, Entry, ReadError, ReadFrom, Reader, Waker};
use super::keys::Keys;
use super::link::Link;
use super::nodes::Node;
use super::pooled::Pooled;
use super::wire::Wire;
use crate::engine::env::lock;
use crate::engine::error::{Error, Result};
use lane::LaneRead;

/// First and longest pause before a server that could not be read from is tried again, while others are read.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// Reads new entries for one group.
pub struct RedisReader {
    link: Arc<Link>,
    keys: Keys,
    group: String,
    /// By slot of a bucket; a single one where all are with one server.
    lanes: BTreeMap<u16, Lane>,
    shared: Arc<Shared>,
    /// A failure of one server that is not told yet: what others gave came first.
    failed: Option<ReadError>,
    /// The last read found something: there may be more.
    is_hot: bool,
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
#[derive(Clone, Copy)]
struct Ask<'a> {
    consumer: &'a str,
    count: usize,
    wait: Option<Duration>,
}

impl RedisReader {
    /// A reader that connects at its first read; `control` is where its waker speaks to the server.
    pub fn open(link: Arc<Link>, keys: Keys, group: &str, control: Arc<Pooled>) -> (Box<dyn Reader>, Arc<dyn Waker>) {
        let shared = Arc::new(Shared { control, blocked: std::sync::Mutex::default(), wanted: AtomicBool::new(false) });
        let reader =
            Self { link, keys, group: group.to_owned(), lanes: BTreeMap::new(), shared: shared.clone(), failed: None, is_hot: false };
        (Box::new(reader), Arc::new(RedisWaker(shared)))
    }

    /// The slot whose server is asked for the bucket.
    fn slot(&self, bucket: Bucket) -> u16 {
        if self.link.nodes.is_cluster() { Keys::slot(bucket) } else { 0 }
    }

    /// One read of every server that is to be asked now. Answers what they gave.
    async fn read_lanes(&mut self, all: &BTreeMap<u16, Vec<ReadFrom>>, ask: Ask<'_>) -> Vec<Entry> {
        let now = Instant::now();
        for slot in all.keys() {
            self.lanes.entry(*slot).or_default();
        }
        // Where none can be read whoever asks pauses; while others are read, one that failed is left out for a while, and
        // tried again in time however long the others have nothing.
        let rests = |lane: &Lane| lane.retry_at.is_some_and(|at| at > now);
        let asked = self.lanes.iter().filter(|(slot, _)| all.contains_key(slot)).map(|(_, lane)| lane);
        let (mut some_work, mut first_retry) = (false, None::<Instant>);
        for lane in asked {
            some_work |= !rests(lane);
            first_retry = lane.retry_at.filter(|at| *at > now && first_retry.is_none_or(|first| *at < first)).or(first_retry);
        }
        let mut ask = ask;
        if let Some(first) = first_retry.filter(|_| some_work) {
            ask.wait = ask.wait.map(|wait| wait.min(first - now));
        }
        let (link, keys, name, shared) = (&self.link, &self.keys, &self.group, &self.shared);
        let mut reads: FuturesUnordered<_> = self
            .lanes
            .iter_mut()
            .filter_map(|(slot, lane)| all.get(slot).map(|share| (slot, lane, share)))
            .filter(|(_, lane, _)| !(some_work && rests(lane)))
            .map(|(slot, lane, share)| async move { (lane_read(link, keys, name, shared, (*slot, lane), share, ask).await, lane) })
            .collect();
        let mut out = Vec::new();
        let mut ending = false;
        while let Some((result, lane)) = reads.next().await {
            let ends = !matches!(&result, Ok(entries) if entries.is_empty());
            match result {
                Ok(mut entries) => {
                    lane.worked();
                    out.append(&mut entries);
                }
                Err(error) => {
                    match &error {
                        // Whatever it was: a read that failed half-way must not be mixed up with the next.
                        ReadError::Store(_) => lane.failed(),
                        ReadError::NoGroup | ReadError::NotOwner => lane.worked(),
                    }
                    self.failed = Some(error);
                }
            }
            // There is something to tell: the others need not wait any longer.
            if ends && !ending && !reads.is_empty() {
                ending = true;
                wake(&self.shared);
            }
        }
        out
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
async fn lane_read(
    link: &Arc<Link>,
    keys: &Keys,
    group: &str,
    shared: &Arc<Shared>,
    (slot, lane): (u16, &mut Lane),
    from: &[ReadFrom],
    ask: Ask<'_>,
) -> Result<Vec<Entry>, ReadError> {
    // Not in its place meanwhile: a read that is dropped half-way takes the connection with it. The server would go on with
    // it, and give it what comes next.
    let mut wire = match lane.wire.take() {
        Some(wire) => wire,
        None => link.connect_wire(slot).await.map_err(ReadError::Store)?,
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
    let read = LaneRead { link, keys, group, consumer: ask.consumer, from, count: ask.count, wire: &mut wire };
    let result = tokio::select! {
        result = read.run(wait) => result,
        // The connection is thrown away with what the read may still bring; the end of the lease gives it back.
        () = link.closed() => Err(ReadError::Store(Error::closed("the store"))),
        () = link.nodes.left(slot, &node) => Err(ReadError::Store(link.target(&node).unreachable("another took its place"))),
    };
    drop(blocked);
    lane.wire = Some(wire);
    match &result {
        Ok(_) => link.up(&node),
        Err(ReadError::NoGroup | ReadError::NotOwner) => {}
        Err(ReadError::Store(error)) => match error.details.get("reply").and_then(|reply| reply.as_str()) {
            // What it serves is elsewhere, or on its way there: nothing is wrong with the server.
            Some("MOVED") => link.nodes.moved(error.details.get("moved").and_then(|to| to.as_str()).unwrap_or_default(), &node),
            Some("ASK" | "TRYAGAIN" | "UNBLOCKED") => {}
            _ => link.down(&node, error),
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
        let woken = self.shared.wanted.swap(false, Ordering::SeqCst);
        let wait = wait.filter(|_| !woken);
        let mut shares: BTreeMap<u16, Vec<ReadFrom>> = BTreeMap::new();
        for from in from {
            shares.entry(self.slot(from.partition.bucket())).or_default().push(from.clone());
        }
        // To end reads that wait on several servers costs more than to ask once more while there is much to read.
        let mut entries = Vec::new();
        if shares.len() > 1 && self.is_hot && wait.is_some() {
            entries = self.read_lanes(&shares, Ask { consumer, count, wait: None }).await;
        }
        if entries.is_empty() && self.failed.is_none() {
            entries = self.read_lanes(&shares, Ask { consumer, count, wait }).await;
        }
        self.shared.wanted.store(false, Ordering::SeqCst);
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

fn wake(shared: &Arc<Shared>) {
    if shared.wanted.swap(true, Ordering::SeqCst) {
        return;
    }
    let shared = shared.clone();
    let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
    runtime.spawn(async move {
        // A read may be on its way to the server and not block yet: ask again until it took notice.
        while shared.wanted.load(Ordering::SeqCst) {
            let blocked = lock(&shared.blocked).clone();
            if blocked.is_empty() {
                // Whichever read comes next sees that it is not to wait.
                return;
            }
            for (node, id) in blocked.into_values() {
                let mut cmd = redis::cmd("CLIENT");
                cmd.arg("UNBLOCK").arg(id);
                match shared.control.run_on(&node, &[cmd]).await.map(|mut replies| replies.pop()) {
                    Ok(Some(Value::ServerError(error))) => {
                        tracing::debug!(?error, "a read could not be woken");
                        return;
                    }
                    Ok(_) => {}
                    // Its read fails, too, or ends by itself.
                    Err(error) => tracing::debug!(%error, "a read could not be woken"),
                }
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
}
