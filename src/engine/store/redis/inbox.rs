//! Inboxes: a stream each, read by its owner on a connection of its own.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use redis::Cmd;

use super::super::{EntryId, INBOX_LIFE, INBOX_MESSAGES_MAX, Inbox, inbox_bucket};
use super::Shared;
use super::link::Link;
use super::pooled::Pooled;
use super::wire::{self, Item, Items, Wire};
use super::{keys::Keys, reply};
use crate::engine::error::{Error, Result};
use crate::engine::log::along;

/// Most messages of one read.
const MESSAGES_A_READ: usize = 100;

impl Shared {
    /// See `Store::post`.
    pub async fn post(&self, inbox: &str, messages: Vec<String>) -> Result<()> {
        let key = self.keys.inbox(inbox);
        let mut commands: Vec<Cmd> = Vec::with_capacity(messages.len() + 1);
        for message in messages {
            let mut add = redis::cmd("XADD");
            add.arg(&key).arg("MAXLEN").arg("~").arg(INBOX_MESSAGES_MAX).arg("*").arg("m").arg(message);
            commands.push(add);
        }
        let mut expire = redis::cmd("EXPIRE");
        expire.arg(&key).arg(INBOX_LIFE.as_secs());
        commands.push(expire);
        for value in self.settler(inbox_bucket(inbox)).run(&commands).await? {
            reply::bytes(value)?;
        }
        Ok(())
    }

    /// See `Store::remove_inbox`.
    pub async fn remove_inbox(&self, name: &str) -> Result<()> {
        let mut del = redis::cmd("DEL");
        del.arg(self.keys.inbox(name));
        self.at(inbox_bucket(name)).query(del).await.map(drop)
    }
}

/// The owner's end.
pub struct RedisInbox {
    link: Arc<Link>,
    slot: u16,
    key: String,
    /// Where it is trimmed.
    control: Arc<Pooled>,
    wire: Option<Wire>,
    seen: EntryId,
    /// Messages read since the stream was trimmed.
    untrimmed: usize,
}

impl RedisInbox {
    /// An inbox that connects at its first read.
    pub fn open(link: Arc<Link>, keys: &Keys, name: &str, control: Arc<Pooled>) -> Box<dyn Inbox> {
        Box::new(Self {
            link,
            slot: Keys::slot(inbox_bucket(name)),
            key: keys.inbox(name),
            control,
            wire: None,
            seen: EntryId::default(),
            untrimmed: 0,
        })
    }

    async fn read(&mut self, wait: Duration) -> Result<Vec<String>> {
        let mut cmd = redis::cmd("XREAD");
        // BLOCK 0 would wait for ever.
        let block = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).max(1);
        cmd.arg("COUNT").arg(MESSAGES_A_READ).arg("BLOCK").arg(block).arg("STREAMS").arg(&self.key).arg(self.seen.to_string());
        let timeout = self.link.settings.command_timeout + wait;
        let wire = match &mut self.wire {
            Some(wire) => wire,
            none => none.insert(self.link.connect_wire(self.slot).await?),
        };
        let node = wire.node().clone();
        let (messages, last) = tokio::select! {
            reply = wire.ask(&cmd, timeout) => messages(&mut reply?)?,
            () = self.link.nodes.left(self.slot, &node) => return Err(self.link.target(&node).unreachable("another took its place")),
            () = self.link.closed() => return Err(Error::closed("the store")),
        };
        // A reply that was lost on the way is read again.
        self.seen = last.unwrap_or(self.seen);
        Ok(messages)
    }

    /// Takes out what was read, on another connection: reading goes on meanwhile.
    fn trim(&mut self) {
        self.untrimmed = 0;
        let (control, mut cmd) = (self.control.clone(), redis::cmd("XTRIM"));
        cmd.arg(&self.key).arg("MINID").arg(EntryId { seq: self.seen.seq.saturating_add(1), ..self.seen }.to_string());
        tokio::spawn(along(async move {
            if let Err(error) = control.query(cmd).await {
                tracing::debug!(%error, "an inbox could not be trimmed");
            }
        }));
    }
}

#[async_trait]
impl Inbox for RedisInbox {
    async fn receive(&mut self, wait: Duration) -> Result<Vec<String>> {
        match self.read(wait).await {
            Ok(messages) => {
                if let Some(wire) = &self.wire {
                    self.link.up(wire.node());
                }
                self.untrimmed += messages.len();
                if self.untrimmed >= MESSAGES_A_READ || (messages.is_empty() && self.untrimmed > 0) {
                    self.trim();
                }
                Ok(messages)
            }
            Err(error) => {
                // Whatever it was: a read that failed half-way must not be mixed up with the next.
                if let Some(wire) = self.wire.take() {
                    let detail = |name: &str| error.details.get(name).and_then(|value| value.as_str());
                    match (detail("moved"), detail("reply")) {
                        (Some(to), _) => self.link.nodes.moved(to, wire.node()),
                        // It is on its way to another server: nothing is wrong with this one.
                        (None, Some("ASK" | "TRYAGAIN" | "UNBLOCKED")) => {}
                        _ if self.link.nodes.map().owner(self.slot) != Some(wire.node()) => {}
                        _ => self.link.down(wire.node(), &error),
                    }
                }
                Err(error)
            }
        }
    }
}

/// Messages of a reply to XREAD, and the place of the last one.
fn messages(items: &mut Items<'_>) -> Result<(Vec<String>, Option<EntryId>)> {
    let unexpected = || reply::unexpected("XREAD");
    match items.next()? {
        Item::Error(error) => return Err(wire::explain(error)),
        Item::Nil => return Ok((Vec::new(), None)),
        Item::List(1) => {}
        _ => return Err(unexpected()),
    }
    items.list()?;
    items.text()?;
    let rows = items.list()?.unwrap_or(0);
    let (mut out, mut last) = (Vec::with_capacity(rows), None);
    for _ in 0..rows {
        items.list()?;
        let id: EntryId = std::str::from_utf8(items.text()?).ok().and_then(|id| id.parse().ok()).ok_or_else(unexpected)?;
        last = Some(id);
        for _ in 0..items.list()?.unwrap_or(0) / 2 {
            let (name, value) = (items.text()?, items.text()?);
            if name == b"m" {
                out.push(String::from_utf8_lossy(value).into_owned());
            }
        }
    }
    Ok((out, last))
}
