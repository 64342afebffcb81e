//! Reading: a plain connection of its own for each group, because a blocking read stops everything behind it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use redis::{Cmd, Value};

use super::super::{Body, Entry, ReadError, ReadFrom, Reader, Waker};
use super::connection::{Link, Slot};
use super::keys::Keys;
use super::reply;
use super::wire::{self, Item, Items, Wire};
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
        let timeout = self.link.target.command_timeout + wait.unwrap_or_default();
        let woken = self.shared.wanted.swap(false, Ordering::AcqRel);
        let command = self.command(consumer, from, count, wait.filter(|_| !woken));
        let shared = self.shared.clone();
        let keys = self.keys.clone();
        let wire = self.wire().await.map_err(ReadError::Store)?;
        let result = match wire.ask(&command, timeout).await {
            Ok(mut items) => entries(&mut items, &keys, from),
            Err(error) => Err(ReadError::Store(error)),
        };
        shared.wanted.store(false, Ordering::Release);
        match &result {
            Ok(_) => self.link.up(),
            Err(ReadError::NoGroup) => {}
            // Whatever it was: a read that failed half-way must not be mixed up with the next.
            Err(ReadError::Store(error)) => self.drop_connection(error),
        }
        result
    }
}

fn refused(error: &str) -> ReadError {
    match error.split(' ').next() {
        // UNBLOCKED: the key was deleted while the read waited on it.
        Some("NOGROUP" | "UNBLOCKED") => ReadError::NoGroup,
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
                    Ok(Value::Int(1)) | Err(_) => return,
                    Ok(_) => tokio::time::sleep(Duration::from_millis(1)).await,
                }
            }
        });
    }
}
