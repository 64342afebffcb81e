//! Reading: a plain connection of its own for each group, because a blocking read stops everything behind it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use redis::{Cmd, Value};
use tokio::time::Instant;

use super::super::{Body, Bucket, Entry, EntryId, Partition, ReadError, ReadFrom, Reader, Waker};
use super::connection::{Link, Slot};
use super::keys::Keys;
use super::wire::{self, Item, Items, Wire};
use super::{reply, scripts};
use crate::engine::error::{Error, Result};

/// Reads new entries for one group.
pub struct RedisReader {
    link: Arc<Link>,
    keys: Keys,
    group: String,
    wire: Option<Wire>,
    shared: Arc<Shared>,
}

/// What reader and waker share.
struct Shared {
    control: Arc<Slot>,
    /// `CLIENT ID` of the reader's connection, 0 without one.
    client_id: AtomicI64,
    /// Somebody wants the read to end.
    wanted: AtomicBool,
}

/// Ends a blocking read by `CLIENT UNBLOCK`: a read is never dropped half-way, it would swallow entries.
struct RedisWaker(Arc<Shared>);

impl RedisReader {
    /// A reader that connects at its first read; `control` is where its waker speaks to the server.
    pub fn open(link: Arc<Link>, keys: Keys, group: &str, control: Arc<Slot>) -> (Box<dyn Reader>, Arc<dyn Waker>) {
        let shared = Arc::new(Shared { control, client_id: AtomicI64::new(0), wanted: AtomicBool::new(false) });
        let reader = Self { link, keys, group: group.to_owned(), wire: None, shared: shared.clone() };
        (Box::new(reader), Arc::new(RedisWaker(shared)))
    }

    /// The connection, made if there is none.
    async fn wire(&mut self) -> Result<&mut Wire> {
        if self.wire.is_none() {
            let wire = self.link.connect_wire().await?;
            self.shared.client_id.store(wire.id, Ordering::Release);
            self.wire = Some(wire);
        }
        self.wire.as_mut().ok_or_else(|| Error::internal("a connection that was just made"))
    }

    fn drop_connection(&mut self, error: &Error) {
        self.shared.client_id.store(0, Ordering::Release);
        self.wire = None;
        self.link.down(error);
    }

    fn command(&self, consumer: &str, from: &[ReadFrom], count: usize, wait: Option<Duration>) -> Cmd {
        let mut cmd = redis::cmd("XREADGROUP");
        cmd.arg("GROUP").arg(&self.group).arg(consumer).arg("COUNT").arg(count);
        if let Some(wait) = wait {
            // BLOCK 0 would wait for ever.
            cmd.arg("BLOCK").arg(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).max(1));
        }
        cmd.arg("STREAMS");
        for from in from {
            cmd.arg(self.keys.stream(&from.partition));
        }
        for _ in from {
            cmd.arg(">");
        }
        cmd
    }
}

#[async_trait]
impl Reader for RedisReader {
    async fn read(&mut self, consumer: &str, from: &[ReadFrom], count: usize, wait: Option<Duration>) -> Result<Vec<Entry>, ReadError> {
        let (shared, link) = (self.shared.clone(), self.link.clone());
        self.wire().await.map_err(ReadError::Store)?;
        // Not before the connection is there: a wake from here on knows which read to end.
        let woken = self.shared.wanted.swap(false, Ordering::AcqRel);
        let wait = wait.filter(|_| !woken);
        let is_owned = from.iter().any(|from| from.owned_after.is_some());
        let result = tokio::select! {
            result = async {
                if is_owned { self.read_owned(consumer, from, count, wait).await } else { self.read_shared(consumer, from, count, wait).await }
            } => result,
            // The connection is thrown away with what the read may still bring; the end of the lease gives it back.
            () = link.closed() => Err(ReadError::Store(Error::closed("the store"))),
        };
        shared.wanted.store(false, Ordering::Release);
        match &result {
            Ok(_) => self.link.up(),
            Err(ReadError::NoGroup | ReadError::NotOwner) => {}
            // Whatever it was: a read that failed half-way must not be mixed up with the next.
            Err(ReadError::Store(error)) => self.drop_connection(error),
        }
        result
    }
}

impl RedisReader {
    async fn read_shared(
        &mut self,
        consumer: &str,
        from: &[ReadFrom],
        count: usize,
        wait: Option<Duration>,
    ) -> Result<Vec<Entry>, ReadError> {
        let command = self.command(consumer, from, count, wait);
        self.entries(&command, from, wait.unwrap_or_default()).await
    }

    /// A script that checks the owner cannot block: what is to be waited for is waited for by a plain XREAD, of which only
    /// the news is used that something is there.
    async fn read_owned(
        &mut self,
        consumer: &str,
        from: &[ReadFrom],
        count: usize,
        wait: Option<Duration>,
    ) -> Result<Vec<Entry>, ReadError> {
        let entries = self.take(consumer, from, count).await?;
        let Some(wait) = wait.filter(|_| entries.is_empty()) else { return Ok(entries) };
        let deadline = Instant::now() + wait;
        let mut from = from.to_vec();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let mut news = redis::cmd("XREAD");
            news.arg("COUNT").arg(1).arg("BLOCK").arg(u64::try_from(left.as_millis()).unwrap_or(u64::MAX).max(1)).arg("STREAMS");
            for from in &from {
                news.arg(self.keys.stream(&from.partition));
            }
            for from in &from {
                news.arg(from.owned_after.unwrap_or_default().to_string());
            }
            let grown = self.entries(&news, &from, left).await?;
            if grown.is_empty() {
                return Ok(grown);
            }
            let is_grown = |from: &ReadFrom| grown.iter().any(|entry| entry.partition == from.partition);
            let places: Vec<ReadFrom> = from.iter().filter(|from| is_grown(from)).cloned().collect();
            let entries = self.take(consumer, &places, count).await?;
            if !entries.is_empty() || Instant::now() >= deadline {
                return Ok(entries);
            }
            // The group has that one behind it already (it expired): wait for what comes after all that it has behind it.
            for entry in grown {
                let read = self.position(&entry.partition).await?;
                for from in from.iter_mut().filter(|from| from.partition == entry.partition) {
                    from.owned_after = from.owned_after.max(Some(entry.id)).max(read);
                }
            }
        }
    }

    /// The last entry that the group was given, of a partition that it reads.
    async fn position(&mut self, partition: &Partition) -> Result<Option<EntryId>, ReadError> {
        let mut info = redis::cmd("XINFO");
        info.arg("GROUPS").arg(self.keys.stream(partition));
        let (timeout, group) = (self.link.target.command_timeout, self.group.clone());
        let wire = self.wire().await.map_err(ReadError::Store)?;
        let mut items = wire.ask(&info, timeout).await.map_err(ReadError::Store)?;
        position(&mut items, &group)
    }

    /// New entries of partitions that are the consumer's, a call for each bucket.
    async fn take(&mut self, consumer: &str, from: &[ReadFrom], count: usize) -> Result<Vec<Entry>, ReadError> {
        let mut buckets: BTreeMap<Bucket, Vec<ReadFrom>> = BTreeMap::new();
        for from in from {
            buckets.entry(from.partition.bucket()).or_default().push(from.clone());
        }
        let mut entries = Vec::new();
        for from in buckets.values() {
            let streams = from.iter().map(|from| self.keys.stream(&from.partition));
            let keys: Vec<String> = streams.chain(from.iter().map(|from| self.keys.owner(&from.partition, &self.group))).collect();
            let mut take = scripts::eval(&scripts::TAKE, &keys.iter().map(String::as_str).collect::<Vec<_>>());
            take.arg(&self.group).arg(consumer).arg(count);
            match self.entries(&take, from, Duration::ZERO).await {
                Ok(mut taken) => entries.append(&mut taken),
                // What was taken before is this consumer's; that another bucket is not is told by the next read.
                Err(ReadError::NotOwner | ReadError::NoGroup) if !entries.is_empty() => break,
                Err(error) => return Err(error),
            }
        }
        Ok(entries)
    }

    /// Entries that a command answers, waiting `wait` longer than for other commands.
    async fn entries(&mut self, command: &Cmd, from: &[ReadFrom], wait: Duration) -> Result<Vec<Entry>, ReadError> {
        let timeout = self.link.target.command_timeout + wait;
        let keys = self.keys.clone();
        let wire = self.wire().await.map_err(ReadError::Store)?;
        let mut items = wire.ask(command, timeout).await.map_err(ReadError::Store)?;
        entries(&mut items, &keys, from)
    }
}

fn refused(error: &str) -> ReadError {
    match error.split(' ').next() {
        // UNBLOCKED: the key was deleted while the read waited on it.
        Some("NOGROUP" | "UNBLOCKED") => ReadError::NoGroup,
        Some("NOTOWNER") => ReadError::NotOwner,
        _ => ReadError::Store(wire::explain(error)),
    }
}

/// Entries of a reply to XREADGROUP, stream by stream as they were asked for.
fn entries(items: &mut Items<'_>, keys: &Keys, from: &[ReadFrom]) -> Result<Vec<Entry>, ReadError> {
    let streams = match items.next().map_err(ReadError::Store)? {
        Item::Error(error) => return Err(refused(error)),
        Item::List(streams) => streams,
        Item::Nil => 0,
        _ => return Err(ReadError::Store(reply::unexpected("XREADGROUP"))),
    };
    read_streams(items, streams, keys, from).map_err(ReadError::Store)
}

/// The position of a group, of a reply to XINFO GROUPS.
fn position(items: &mut Items<'_>, group: &str) -> Result<Option<EntryId>, ReadError> {
    let unexpected = || ReadError::Store(reply::unexpected("XINFO GROUPS"));
    let groups = match items.next().map_err(ReadError::Store)? {
        Item::Error(error) => return Err(refused(error)),
        Item::List(groups) => groups,
        _ => return Err(unexpected()),
    };
    for _ in 0..groups {
        let fields = items.list().map_err(ReadError::Store)?.unwrap_or(0);
        let (mut is_it, mut last) = (false, None);
        for _ in 0..fields / 2 {
            let name = items.text().map_err(ReadError::Store)?;
            match (name, items.next().map_err(ReadError::Store)?) {
                (b"name", Item::Text(name)) => is_it = name == group.as_bytes(),
                (b"last-delivered-id", Item::Text(id)) => last = std::str::from_utf8(id).ok().and_then(|id| id.parse().ok()),
                _ => {}
            }
        }
        if is_it {
            return last.map(Some).ok_or_else(unexpected);
        }
    }
    Ok(None)
}

fn read_streams(items: &mut Items<'_>, streams: usize, keys: &Keys, from: &[ReadFrom]) -> Result<Vec<Entry>> {
    let mut out = Vec::new();
    let mut asked = from.iter();
    for _ in 0..streams {
        items.list()?;
        let key = items.text()?;
        let partition = asked.find(|from| keys.stream(&from.partition).as_bytes() == key).map(|from| &from.partition);
        let partition = partition.ok_or_else(|| reply::unexpected("XREADGROUP"))?;
        let rows = items.list()?.unwrap_or(0);
        out.reserve(rows);
        for _ in 0..rows {
            items.list()?;
            let id =
                std::str::from_utf8(items.text()?).ok().and_then(|id| id.parse().ok()).ok_or_else(|| reply::unexpected("XREADGROUP"))?;
            if let Some(fields) = items.list()? {
                out.push(Entry { partition: partition.clone(), id, body: read_body(items, fields)?, deliveries: 1, crashes: 0 });
            }
        }
    }
    Ok(out)
}

fn read_body(items: &mut Items<'_>, fields: usize) -> Result<Body> {
    let mut raw = Vec::with_capacity(fields / 2);
    for _ in 0..fields / 2 {
        raw.push((items.text()?, items.text()?));
    }
    Ok(reply::body_of(&raw))
}

impl Waker for RedisWaker {
    fn wake(&self) {
        if self.0.wanted.swap(true, Ordering::AcqRel) {
            return;
        }
        let shared = self.0.clone();
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move {
            // The read may be on its way to the server and not block yet: ask again until it took notice.
            while shared.wanted.load(Ordering::Acquire) {
                let id = shared.client_id.load(Ordering::Acquire);
                if id == 0 {
                    return;
                }
                let mut cmd = redis::cmd("CLIENT");
                cmd.arg("UNBLOCK").arg(id);
                match shared.control.query(cmd).await {
                    Ok(Value::Int(1)) => return,
                    Err(error) => {
                        tracing::debug!(%error, "a read could not be woken");
                        // The next wake tries again.
                        shared.wanted.store(false, Ordering::Release);
                        return;
                    }
                    Ok(_) => tokio::time::sleep(Duration::from_millis(1)).await,
                }
            }
        });
    }
}
