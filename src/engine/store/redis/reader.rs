//! Reading: a plain connection of its own for each group, because a blocking read stops everything behind it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use redis::Value;

use super::super::{Entry, Partition, ReadError, ReadFrom, Reader, Waker};
use super::connection::{Connection, Link, Slot, is_lost};
use super::keys::Keys;
use super::reply;
use crate::engine::error::{Code, Error, Result};

/// Reads new entries for one group.
pub struct RedisReader {
    link: Arc<Link>,
    keys: Keys,
    group: String,
    connection: Option<Connection>,
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
        let reader = Self { link, keys, group: group.to_owned(), connection: None, shared: shared.clone() };
        (Box::new(reader), Arc::new(RedisWaker(shared)))
    }

    async fn connection(&mut self, wait: Option<Duration>) -> Result<Connection> {
        let timeout = self.link.target.command_timeout + wait.unwrap_or_default();
        if let Some(connection) = &mut self.connection {
            connection.inner.set_response_timeout(timeout);
            return Ok(connection.clone());
        }
        let connection = self.link.connect(timeout).await?;
        self.shared.client_id.store(connection.id, Ordering::Release);
        self.connection = Some(connection.clone());
        Ok(connection)
    }

    fn drop_connection(&mut self) {
        self.shared.client_id.store(0, Ordering::Release);
        self.connection = None;
    }
}

#[async_trait]
impl Reader for RedisReader {
    async fn read(&mut self, consumer: &str, from: &[ReadFrom], count: usize, wait: Option<Duration>) -> Result<Vec<Entry>, ReadError> {
        let mut connection = self.connection(wait).await.map_err(ReadError::Store)?;
        let woken = self.shared.wanted.swap(false, Ordering::AcqRel);
        let by_key: HashMap<Vec<u8>, &Partition> =
            from.iter().map(|from| (self.keys.stream(&from.partition).into_bytes(), &from.partition)).collect();
        let mut cmd = redis::cmd("XREADGROUP");
        cmd.arg("GROUP").arg(&self.group).arg(consumer).arg("COUNT").arg(count);
        if let (Some(wait), false) = (wait, woken) {
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
        let result = connection.inner.send_packed_command(&cmd).await;
        self.shared.wanted.store(false, Ordering::Release);
        match result {
            Ok(Value::ServerError(error)) => Err(refused(error.code(), || reply::server_error(&error))),
            Ok(value) => {
                self.link.up();
                entries(value, &by_key).map_err(ReadError::Store)
            }
            Err(error) => {
                let explained = self.link.target.explain(&error);
                if is_lost(&error) {
                    self.drop_connection();
                    self.link.down(&explained);
                    return Err(ReadError::Store(explained));
                }
                Err(refused(error.code().unwrap_or_default(), || explained))
            }
        }
    }
}

fn refused(code: &str, explain: impl FnOnce() -> Error) -> ReadError {
    match code {
        // UNBLOCKED: the key was deleted while the read waited on it.
        "NOGROUP" | "UNBLOCKED" => ReadError::NoGroup,
        _ => ReadError::Store(explain()),
    }
}

fn entries(value: Value, by_key: &HashMap<Vec<u8>, &Partition>) -> Result<Vec<Entry>> {
    let mut out = Vec::new();
    for stream in reply::list(value)? {
        let mut parts = reply::list(stream)?.into_iter();
        let (Some(key), Some(rows)) = (parts.next(), parts.next()) else {
            return Err(reply::unexpected("XREADGROUP"));
        };
        let key = reply::bytes(key)?;
        let partition = by_key.get(&key).ok_or_else(|| Error::new(Code::Redis, "XREADGROUP answered a stream that was not asked for"))?;
        let rows = reply::list(rows)?;
        out.reserve(rows.len());
        for row in rows {
            out.extend(reply::entry(partition, row, 1, 0)?);
        }
    }
    Ok(out)
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
