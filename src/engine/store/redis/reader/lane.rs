//! Reading from one server: what it is asked, and what it answers.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use redis::Cmd;
use tokio::time::Instant;

use super::super::super::{Body, Bucket, Entry, EntryId, Partition, ReadError, ReadFrom};
use super::super::keys::Keys;
use super::super::link::Link;
use super::super::wire::{self, Item, Items, Wire};
use super::super::{reply, scripts};
use crate::engine::error::Result;

/// Longest reply that its entries share, bytes: each of them keeps all of it while it waits for its handler. Of longer ones each entry has a
/// copy of its own, which costs little beside what else is done with so much text.
const SHARED_BYTES_MAX: usize = 64 * 1024;

/// A read under way on one connection.
pub struct LaneRead<'a> {
    pub link: &'a Link,
    pub keys: &'a Keys,
    pub group: &'a str,
    pub consumer: &'a str,
    pub from: &'a [ReadFrom],
    pub count: usize,
    pub wire: &'a mut Wire,
}

impl LaneRead<'_> {
    /// New entries; waits where there is none.
    pub async fn run(mut self, wait: Option<Duration>) -> Result<Vec<Entry>, ReadError> {
        if self.from.iter().any(|from| from.owned_after.is_some()) { self.read_owned(wait).await } else { self.read_shared(wait).await }
    }

    async fn read_shared(&mut self, wait: Option<Duration>) -> Result<Vec<Entry>, ReadError> {
        let mut cmd = redis::cmd("XREADGROUP");
        cmd.arg("GROUP").arg(self.group).arg(self.consumer).arg("COUNT").arg(self.count);
        if let Some(wait) = wait {
            // BLOCK 0 would wait for ever.
            cmd.arg("BLOCK").arg(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).max(1));
        }
        cmd.arg("STREAMS");
        for from in self.from {
            cmd.arg(self.keys.stream(&from.partition));
        }
        for _ in self.from {
            cmd.arg(">");
        }
        self.entries(&cmd, self.from, wait.unwrap_or_default()).await
    }

    /// A script that checks the owner cannot block: what is to be waited for is waited for by a plain XREAD, of which only
    /// the news is used that something is there.
    async fn read_owned(&mut self, wait: Option<Duration>) -> Result<Vec<Entry>, ReadError> {
        let entries = self.take(self.from).await?;
        let Some(wait) = wait.filter(|_| entries.is_empty()) else { return Ok(entries) };
        let deadline = Instant::now() + wait;
        let mut from = self.from.to_vec();
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
            let entries = self.take(&places).await?;
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
        let mut items = self.wire.ask(&info, self.link.settings.command_timeout).await.map_err(ReadError::Store)?;
        position(&mut items, self.group)
    }

    /// New entries of partitions that are the consumer's, a call for each bucket.
    async fn take(&mut self, from: &[ReadFrom]) -> Result<Vec<Entry>, ReadError> {
        let mut buckets: BTreeMap<Bucket, Vec<ReadFrom>> = BTreeMap::new();
        for from in from {
            buckets.entry(from.partition.bucket()).or_default().push(from.clone());
        }
        let mut entries = Vec::new();
        for from in buckets.values() {
            let streams = from.iter().map(|from| self.keys.stream(&from.partition));
            let keys: Vec<String> = streams.chain(from.iter().map(|from| self.keys.owner(&from.partition, self.group))).collect();
            let mut take = scripts::eval(&scripts::TAKE, &keys.iter().map(String::as_str).collect::<Vec<_>>());
            take.arg(self.group).arg(self.consumer).arg(self.count);
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
        let timeout = self.link.settings.command_timeout + wait;
        let reply = self.wire.ask(command, timeout).await.map_err(ReadError::Store)?.bytes();
        read_reply(reply, self.keys, from, self.link.nodes.is_cluster())
    }
}

/// Entries of a whole reply to XREADGROUP. `moves`: a key that is gone may be with another server.
pub fn read_reply(reply: &[u8], keys: &Keys, from: &[ReadFrom], moves: bool) -> Result<Vec<Entry>, ReadError> {
    if reply.len() > SHARED_BYTES_MAX {
        return entries(reply, &Keeping::Apart, keys, from, moves);
    }
    let shared = Bytes::copy_from_slice(reply);
    entries(&shared, &Keeping::Shared(shared.clone()), keys, from, moves)
}

fn refused(error: &str) -> ReadError {
    match error.split(' ').next() {
        Some("NOGROUP") => ReadError::NoGroup,
        Some("NOTOWNER") => ReadError::NotOwner,
        _ => ReadError::Store(wire::explain(error)),
    }
}

/// Its entries, stream by stream as they were asked for.
fn entries(reply: &[u8], texts: &Keeping, keys: &Keys, from: &[ReadFrom], moves: bool) -> Result<Vec<Entry>, ReadError> {
    let mut items = Items::of(reply);
    let streams = match items.next().map_err(ReadError::Store)? {
        // The key was deleted while the read waited on it.
        Item::Error(error) if !moves && error.starts_with("UNBLOCKED") => return Err(ReadError::NoGroup),
        Item::Error(error) => return Err(refused(error)),
        Item::List(streams) => streams,
        Item::Nil => 0,
        _ => return Err(ReadError::Store(reply::unexpected("XREADGROUP"))),
    };
    read_streams(&mut items, streams, texts, keys, from).map_err(ReadError::Store)
}

/// What becomes of the texts of a reply when its buffer is used for the next one.
enum Keeping {
    Shared(Bytes),
    Apart,
}

impl Keeping {
    fn keep(&self, text: &[u8]) -> Bytes {
        match self {
            Self::Shared(reply) => reply.slice_ref(text),
            Self::Apart => Bytes::copy_from_slice(text),
        }
    }
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

fn read_streams(items: &mut Items<'_>, streams: usize, texts: &Keeping, keys: &Keys, from: &[ReadFrom]) -> Result<Vec<Entry>> {
    let (mut out, mut raw) = (Vec::new(), Vec::new());
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
            let id = entry_id(items.text()?).ok_or_else(|| reply::unexpected("XREADGROUP"))?;
            if let Some(fields) = items.list()? {
                out.push(Entry {
                    partition: partition.clone(),
                    id,
                    body: read_body(items, fields, &mut raw, texts)?,
                    deliveries: 1,
                    crashes: 0,
                    refusal: None,
                });
            }
        }
    }
    Ok(out)
}

fn entry_id(text: &[u8]) -> Option<EntryId> {
    let dash = memchr::memchr(b'-', text)?;
    match (wire::digits(&text[..dash]), wire::digits(&text[dash + 1..])) {
        (Some(ms), Some(seq)) => Some(EntryId { ms, seq }),
        _ => std::str::from_utf8(text).ok()?.parse().ok(),
    }
}

/// `raw` is of no interest but to be used again.
fn read_body<'a>(items: &mut Items<'a>, fields: usize, raw: &mut Vec<(&'a [u8], &'a [u8])>, texts: &Keeping) -> Result<Body> {
    raw.clear();
    for _ in 0..fields / 2 {
        raw.push((items.text()?, items.text()?));
    }
    Ok(reply::body_of(raw, |text| texts.keep(text)))
}
