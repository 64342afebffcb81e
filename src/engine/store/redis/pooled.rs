//! One place of the pool: a connection to each server that it is asked for, made when first used and replaced when it
//! fails. Commands find the server of their key, and follow it when the key moves.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use redis::{Cmd, RedisError, Value};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::connection::{Connection, Role};
use super::failure::{Failure, is_lost, is_on_its_way};
use super::link::Link;
use super::nodes::{Node, parse_moved};
use super::{hash_slot, reply, scripts};
use crate::engine::env::lock;
use crate::engine::error::{Error, Result};

/// How often commands follow keys that move, or come back while a slot is between two servers.
const REDIRECTIONS_MAX: usize = 10;
/// Pause before a command is sent again whose keys are between two servers.
const MOVING_PAUSE: Duration = Duration::from_millis(50);

/// A replica that could not be asked is not asked again for so long: its master is.
const REPLICA_RESTS: Duration = Duration::from_secs(10);

/// A connection to one server, where there is one.
#[derive(Default)]
struct Known {
    connection: Option<Connection>,
    /// When the last attempt to connect failed, and why: whoever waited for it need not try again.
    failed: Option<(Instant, Error)>,
    /// Has the server close the connection before, whose end it may not know of.
    kill: Option<Cmd>,
}

type Held = Arc<Mutex<Known>>;

/// One place of the pool.
pub struct Pooled {
    link: Arc<Link>,
    reply_timeout: Duration,
    role: Role,
    held: std::sync::Mutex<HashMap<Node, Held>>,
    /// Replicas that could not be asked, and when.
    resting: std::sync::Mutex<HashMap<Node, Instant>>,
}

impl Pooled {
    /// An empty place, whose replies are awaited for so long.
    pub fn new(link: Arc<Link>, reply_timeout: Duration) -> Self {
        let role = link.role();
        Self { link, reply_timeout, role, held: std::sync::Mutex::default(), resting: std::sync::Mutex::default() }
    }

    /// An empty place that asks replicas, where there are any.
    pub fn of_replicas(link: Arc<Link>, reply_timeout: Duration) -> Self {
        Self { link, reply_timeout, role: Role::Replica, held: std::sync::Mutex::default(), resting: std::sync::Mutex::default() }
    }

    fn held(&self, node: &Node) -> Held {
        let mut held = lock(&self.held);
        if let Some(known) = held.get(node) {
            return known.clone();
        }
        // Those that left the cluster, or whose place another took, are let go of.
        let map = self.link.nodes.map();
        if self.role != Role::Replica {
            held.retain(|node, _| map.masters().any(|master| master == node));
        }
        held.entry(node.clone()).or_default().clone()
    }

    /// The connection to the server, made if there is none.
    pub async fn get(&self, node: &Node) -> Result<Connection> {
        let (held, came) = (self.held(node), Instant::now());
        let mut state = held.lock().await;
        if let Some(connection) = &state.connection {
            return Ok(connection.clone());
        }
        if let Some((_, error)) = state.failed.as_ref().filter(|(at, _)| *at > came) {
            return Err(error.clone());
        }
        let kill = state.kill.clone();
        let made = async {
            let connection = self.link.connect(node, self.reply_timeout, self.role).await?;
            load_scripts(&self.link, &connection).await?;
            if let Some(kill) = kill {
                // What was sent there and is on its way is not to take effect behind what is sent from now on. Where that is not
                // permitted the connection is as good.
                let killed = connection.inner.value(&kill).await;
                if let Some(error) = killed.err().filter(is_lost) {
                    return Err(self.link.target(node).explain(&error));
                }
            }
            Ok(connection)
        };
        match made.await {
            Ok(connection) => {
                *state = Known { connection: Some(connection.clone()), ..Known::default() };
                Ok(connection)
            }
            Err(error) => {
                state.failed = Some((Instant::now(), Error::clone(&error)));
                Err(error)
            }
        }
    }

    /// The connection to the server of the slot.
    pub async fn get_for(&self, slot: u16) -> Result<Connection> {
        loop {
            let node = self.link.nodes.owner(slot).await?;
            tokio::select! {
                made = self.get(&node) => return made,
                // It may hang, when another has taken its place.
                () = self.link.nodes.left(slot, &node) => {}
            }
        }
    }

    /// Forgets the connection; a newer one stays. `error`: how it was lost, if it was.
    pub async fn forget(&self, connection: &Connection, error: Option<&Error>) {
        let held = self.held(&connection.node);
        let mut state = held.lock().await;
        if state.connection.as_ref().is_some_and(|known| known.is(connection)) {
            state.connection = None;
            state.kill = Some(connection.kill());
            if let Some(error) = error {
                self.link.down(&connection.node, error);
            }
        }
    }

    /// Ends the connections.
    pub fn close(&self) {
        lock(&self.held).clear();
    }

    /// The server to ask for a slot.
    async fn node(&self, slot: u16) -> Result<Node> {
        if self.role == Role::Replica {
            let map = self.link.nodes.map();
            let mut resting = lock(&self.resting);
            resting.retain(|_, since| since.elapsed() < REPLICA_RESTS);
            let replicas: Vec<&Node> = map.replicas(slot).iter().filter(|node| !resting.contains_key(*node)).collect();
            if !replicas.is_empty() {
                return Ok(replicas[rand::random_range(0..replicas.len())].clone());
            }
        }
        self.link.nodes.owner(slot).await
    }

    /// Sends commands; answers a value a command, errors of single ones in their place. Those for one server go in one
    /// pipeline, in order; there is no order among servers. All must be safe to repeat: they are sent once more when a
    /// connection turns out to be dead, or a script is unknown.
    pub async fn run(&self, commands: &[Cmd]) -> Result<Vec<Value>> {
        if !self.link.nodes.is_cluster() {
            return if commands.is_empty() { Ok(Vec::new()) } else { self.run_at(0, commands).await };
        }
        self.run_each(commands, Duration::MAX).await.into_iter().collect()
    }

    /// The same, where a server that cannot be reached is an error of its own commands alone, and so is one that does not
    /// answer within `patience`.
    pub async fn run_each(&self, commands: &[Cmd], patience: Duration) -> Vec<Result<Value>> {
        let slots: Vec<Option<u16>> = commands.iter().map(hash_slot::of_command).collect();
        // What has no key goes along with what has.
        let anywhere = slots.iter().flatten().next().copied().unwrap_or(0);
        let mut out: Vec<Result<Value>> = commands.iter().map(|_| Ok(Value::Nil)).collect();
        let mut left: Vec<usize> = (0..commands.len()).collect();
        for attempt in 1.. {
            let mut groups: BTreeMap<Node, (u16, Vec<usize>)> = BTreeMap::new();
            for i in std::mem::take(&mut left) {
                let slot = slots[i].unwrap_or(anywhere);
                match self.node(slot).await {
                    Ok(node) => groups.entry(node).or_insert_with(|| (slot, Vec::new())).1.push(i),
                    Err(error) => out[i] = Err(error),
                }
            }
            let sent = join_all(groups.iter().map(|(node, (slot, indexes))| async move {
                let some: Vec<Cmd>;
                let commands = if indexes.len() == commands.len() {
                    commands
                } else {
                    some = indexes.iter().map(|i| commands[*i].clone()).collect();
                    &some
                };
                let late = |_| Err(self.link.target(node).unreachable("no reply in time"));
                tokio::time::timeout(patience, self.run_at(*slot, commands)).await.unwrap_or_else(late)
            }))
            .await;
            let mut is_moving = false;
            for ((node, (_, indexes)), replies) in groups.iter().zip(sent) {
                match replies {
                    Ok(replies) => {
                        for (i, reply) in indexes.iter().zip(replies) {
                            let reply = self.follow(&commands[*i], reply, node).await;
                            if let Value::ServerError(error) = &reply {
                                let waits =
                                    matches!(error.code(), "TRYAGAIN" | "ASK") || is_on_its_way(error.details().unwrap_or_default());
                                if waits || error.code() == "MOVED" {
                                    is_moving |= waits;
                                    left.push(*i);
                                }
                            }
                            out[*i] = Ok(reply);
                        }
                    }
                    Err(error) => indexes.iter().for_each(|i| out[*i] = Err(error.clone())),
                }
            }
            if left.is_empty() || attempt == REDIRECTIONS_MAX {
                break;
            }
            if is_moving {
                tokio::time::sleep(MOVING_PAUSE).await;
            }
        }
        out
    }

    /// Takes in where a key went to; asks there where that is for this one command only.
    async fn follow(&self, command: &Cmd, reply: Value, by: &Node) -> Value {
        let Value::ServerError(error) = &reply else { return reply };
        let details = error.details().unwrap_or_default();
        match error.code() {
            "MOVED" => {
                self.link.nodes.moved(details, by);
                reply
            }
            // A script may use keys that it does not name, and would take those still at the other server for missing.
            "ASK" if !hash_slot::is_script(command) => {
                let Some((_, node)) = parse_moved(details, by) else { return reply };
                let asked = async {
                    let connection = self.get(&node).await.ok()?;
                    self.link.send(&connection, &[redis::cmd("ASKING"), command.clone()]).await.ok()?.pop()
                };
                match asked.await {
                    Some(Value::ServerError(error)) if error.code() == "NOSCRIPT" => reply,
                    Some(answer) => answer,
                    None => reply,
                }
            }
            _ => reply,
        }
    }

    /// Sends commands to the server of the slot.
    async fn run_at(&self, slot: u16, commands: &[Cmd]) -> Result<Vec<Value>> {
        let mut tried = false;
        loop {
            let map = self.link.nodes.map();
            let node = self.node(slot).await?;
            let made = tokio::select! {
                made = self.get(&node) => made,
                () = self.left(slot, &node) => continue,
            };
            let connection = match made {
                Ok(connection) => connection,
                // Another may have taken its place meanwhile: connecting has looked.
                Err(_) if !tried && self.role != Role::Replica && self.link.nodes.map().owner(slot) != Some(&node) => {
                    tried = true;
                    continue;
                }
                Err(error) => {
                    if self.role == Role::Replica {
                        lock(&self.resting).insert(node, Instant::now());
                    }
                    return Err(error);
                }
            };
            let sent = tokio::select! {
                sent = self.link.send(&connection, commands) => sent,
                () = self.left(slot, &node) => Err(RedisError::from(std::io::Error::from(std::io::ErrorKind::ConnectionAborted))),
            };
            match sent {
                Ok(mut values) => {
                    if !tried && !self.link.nodes.is_fixed() && values.iter().any(is_readonly) {
                        tried = true;
                        self.forget(&connection, None).await;
                        self.link.nodes.refresh(&map).await?;
                        continue;
                    }
                    self.make_scripts_known(&connection, commands, &mut values).await?;
                    return Ok(values);
                }
                Err(error) => {
                    let explained = self.link.target(&node).explain(&error);
                    if is_lost(&error) {
                        // Where another took its place nothing need be wrong with it.
                        let is_home = self.role == Role::Replica || self.link.nodes.map().owner(slot) == Some(&node);
                        self.forget(&connection, is_home.then_some(&explained)).await;
                        // A timeout is not repeated: the caller has waited as long as it was ready to.
                        if !tried && !error.is_timeout() {
                            tried = true;
                            continue;
                        }
                    }
                    return Err(explained);
                }
            }
        }
    }

    async fn left(&self, slot: u16, node: &Node) {
        if self.role == Role::Replica {
            return std::future::pending().await;
        }
        self.link.nodes.left(slot, node).await;
    }

    /// Sends commands to that very server. They must be safe to repeat, as for [`Pooled::run`].
    pub async fn run_on(&self, node: &Node, commands: &[Cmd]) -> Result<Vec<Value>> {
        let connection = self.get(node).await?;
        match self.link.send(&connection, commands).await {
            Err(error) if is_lost(&error) && !error.is_timeout() => {
                self.forget(&connection, Some(&self.link.target(node).explain(&error))).await;
                let connection = self.get(node).await?;
                self.sent(&connection, commands).await
            }
            Err(error) => Err(self.link.target(node).explain(&error)),
            Ok(values) => Ok(values),
        }
    }

    /// Sends commands in one pipeline that must not be repeated: when the connection is lost, their fate is unknown.
    pub async fn once(&self, commands: &[Cmd]) -> Result<Vec<Value>> {
        let Some(first) = commands.first() else { return Ok(Vec::new()) };
        let slot = hash_slot::of_command(first).unwrap_or(0);
        // One that died while nothing was sent is found out, and replaced, by something harmless.
        self.run_at(slot, &[redis::cmd("PING")]).await?;
        let connection = self.get_for(slot).await?;
        self.sent(&connection, commands).await
    }

    async fn sent(&self, connection: &Connection, commands: &[Cmd]) -> Result<Vec<Value>> {
        match self.link.send(connection, commands).await {
            Ok(values) => Ok(values),
            Err(error) => {
                let explained = self.link.target(&connection.node).explain(&error);
                if is_lost(&error) {
                    self.forget(connection, Some(&explained)).await;
                }
                Err(explained)
            }
        }
    }

    /// Sends commands whose scripts the server had forgotten again, each in one transaction with the scripts: nobody can
    /// have it forget them in between.
    async fn make_scripts_known(&self, connection: &Connection, commands: &[Cmd], values: &mut [Value]) -> Result<()> {
        for (command, value) in commands.iter().zip(values).filter(|(_, value)| is_no_script(value)) {
            let mut commands = scripts::load_all();
            commands.push(command.clone());
            let _places = self.link.occupy(commands.len());
            match connection.inner.transaction(&commands).await {
                Ok(replies) => *value = reply::list(replies)?.pop().unwrap_or_default(),
                Err(error) => return Err(Failure::of(error, &self.link.target(&connection.node)).into_error()),
            }
        }
        Ok(())
    }

    /// One command; an error reply is an error.
    pub async fn query(&self, command: Cmd) -> Result<Value> {
        match self.run(&[command]).await?.pop() {
            Some(Value::ServerError(error)) => Err(reply::server_error(&error)),
            Some(value) => Ok(value),
            None => Err(reply::unexpected("a command")),
        }
    }
}

fn is_no_script(value: &Value) -> bool {
    matches!(value, Value::ServerError(error) if error.code() == "NOSCRIPT")
}

fn is_readonly(value: &Value) -> bool {
    matches!(value, Value::ServerError(error) if error.code() == "READONLY")
}

/// Makes the scripts known to the server.
async fn load_scripts(link: &Link, connection: &Connection) -> Result<()> {
    let values = connection.inner.values(&scripts::load_all()).await;
    let values = values.map_err(|error| link.target(&connection.node).explain(&error))?;
    match values.into_iter().find_map(|value| if let Value::ServerError(error) = value { Some(error) } else { None }) {
        Some(error) => Err(reply::server_error(&error)),
        None => Ok(()),
    }
}
