//! What the connections of a bus share: where the servers are, counters, and the news of losing and finding them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use redis::{Cmd, RedisError, Value};
use tokio::sync::watch;

use super::super::StoreEvent;
use super::connection::{Connection, Role, Settings, Target};
use super::nodes::{Node, Nodes};
use super::wire::Wire;
use crate::engine::env::lock;
use crate::engine::error::{Code, Error, Result};

/// Where news go.
pub type Listener = Arc<dyn Fn(StoreEvent) + Send + Sync>;

#[derive(Default)]
struct Reach {
    /// Servers whose connection failed last.
    down: BTreeSet<Node>,
    /// Some server answered once.
    ever: bool,
}

/// The way to the servers.
pub struct Link {
    /// How to connect.
    pub settings: Arc<Settings>,
    /// Which servers there are.
    pub nodes: Nodes,
    reach: std::sync::Mutex<Reach>,
    connected: AtomicBool,
    /// Commands in flight.
    pub in_flight: AtomicUsize,
    closed: watch::Sender<bool>,
    listener: std::sync::Mutex<Option<Listener>>,
}

impl Link {
    /// Not connected yet.
    pub fn new(settings: Arc<Settings>, nodes: Nodes) -> Self {
        Self {
            settings,
            nodes,
            reach: std::sync::Mutex::default(),
            connected: AtomicBool::new(false),
            in_flight: AtomicUsize::new(0),
            closed: watch::Sender::new(false),
            listener: std::sync::Mutex::default(),
        }
    }

    /// Where news go.
    pub fn watch(&self, listener: Listener) {
        *lock(&self.listener) = Some(listener);
    }

    /// Tells the listener.
    pub fn tell(&self, event: StoreEvent) {
        let listener = lock(&self.listener).clone();
        if let Some(listener) = listener {
            listener(event);
        }
    }

    /// The server answers.
    pub fn up(&self, node: &Node) {
        if self.connected.load(Ordering::Acquire) {
            return;
        }
        let restored = {
            let mut reach = lock(&self.reach);
            reach.down.remove(node);
            // One whose place another has taken is not waited for.
            let map = self.nodes.map();
            reach.down.retain(|node| map.masters().any(|master| master == node));
            reach.down.is_empty() && !self.connected.swap(true, Ordering::AcqRel) && std::mem::replace(&mut reach.ever, true)
        };
        if restored {
            tracing::warn!("the connection to Redis is back");
            self.tell(StoreEvent::ConnectionRestored);
        }
    }

    /// A connection to the server failed.
    pub fn down(&self, node: &Node, error: &Error) {
        if self.is_closed() {
            return;
        }
        let lost = {
            let mut reach = lock(&self.reach);
            reach.down.insert(node.clone());
            self.connected.swap(false, Ordering::AcqRel)
        };
        if lost {
            tracing::warn!(%error, "the connection to Redis was lost");
            self.tell(StoreEvent::ConnectionLost(error.message.clone()));
        }
    }

    /// Whether all servers answered last.
    pub fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Acquire)
    }

    /// No new connections from here on.
    pub fn close(&self) {
        self.closed.send_replace(true);
    }

    /// Whether [`Link::close`] was called.
    pub fn is_closed(&self) -> bool {
        *self.closed.borrow()
    }

    /// Returns once [`Link::close`] was called.
    pub async fn closed(&self) {
        // The sender is ours: waiting cannot fail.
        let _ = self.closed.subscribe().wait_for(|closed| *closed).await;
    }

    /// How to connect to a server.
    pub fn target(&self, node: &Node) -> Target {
        Target { node: node.clone(), settings: self.settings.clone() }
    }

    /// `ERR_CONNECTION` of whichever server it is.
    pub fn unreachable(&self, why: &str) -> Error {
        let map = self.nodes.map();
        let first = map.masters().next();
        first.map_or_else(
            || Error::new(Code::Connection, format!("Redis cannot be reached: {why}")),
            |node| self.target(node).unreachable(why),
        )
    }

    /// Sends commands in one pipeline, counted as in flight.
    pub async fn send(&self, connection: &Connection, commands: &[Cmd]) -> Result<Vec<Value>, RedisError> {
        let _places = self.occupy(commands.len());
        connection.inner.values(commands).await
    }

    /// Counts commands as in flight until dropped.
    pub fn occupy(&self, commands: usize) -> Places<'_> {
        self.in_flight.fetch_add(commands, Ordering::Relaxed);
        Places { link: self, commands }
    }

    /// A new plain connection to the server of the slot, with the news told.
    pub async fn connect_wire(&self, slot: u16) -> Result<Wire> {
        let role = self.role();
        let node = self.nodes.owner(slot).await?;
        self.heard(&node, Wire::connect(self.target(&node), role), true).await
    }

    /// A new connection to the server, with the news told.
    pub async fn connect(&self, node: &Node, reply_timeout: Duration, role: Role) -> Result<Connection> {
        let target = self.target(node);
        self.heard(node, target.connect(reply_timeout, role), role != Role::Replica).await
    }

    /// A new connection that hears what is announced.
    pub async fn subscriber(&self, node: &Node) -> Result<redis::aio::PubSub> {
        let target = self.target(node);
        self.heard(node, target.subscriber(), true).await
    }

    /// What a server must be that was named as the one to ask.
    pub fn role(&self) -> Role {
        if self.nodes.is_named_by_others() { Role::Master } else { Role::Any }
    }

    /// `counts`: the server is needed; a replica that is away is no news.
    async fn heard<T>(&self, node: &Node, connecting: impl Future<Output = Result<T>>, counts: bool) -> Result<T> {
        if self.is_closed() {
            return Err(Error::closed("the connection to Redis"));
        }
        let map = self.nodes.map();
        let made = connecting.await;
        match &made {
            _ if !counts => {}
            Ok(_) => self.up(node),
            Err(error) => {
                self.down(node, error);
                if self.nodes.is_named_by_others() {
                    self.nodes.doubt();
                }
                // Where another takes its place, the next attempt finds it.
                if let Err(error) = self.nodes.refresh(&map).await {
                    tracing::debug!(%error, "nobody says which server serves what");
                }
            }
        }
        made
    }
}

/// Commands in flight, until dropped.
pub struct Places<'a> {
    link: &'a Link,
    commands: usize,
}

impl Drop for Places<'_> {
    fn drop(&mut self) {
        self.link.in_flight.fetch_sub(self.commands, Ordering::Relaxed);
    }
}
