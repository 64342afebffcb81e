//! Which server serves what: fixed for one server, asked of the Sentinels, or of the nodes of a cluster.
//!
//! What is known is a [`Map`], replaced as a whole when it turns out to be wrong: a server says so (MOVED), cannot be
//! reached, or the regular look finds another. Whoever waits for a server hears of it by [`Nodes::left`], so that one
//! which hangs is not waited for once another has taken its place.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use redis::{Cmd, Value};
use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, sleep_until};

use super::connection::{Connection, Settings, Target};
use super::endpoint::Endpoint;
use super::hash_slot::SLOTS;
use super::reply;
use crate::engine::error::{Code, Error, Result};

/// A server.
pub type Node = Arc<Endpoint>;

/// Time between regular looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Shortest time between looks for a reason.
const LOOK_PAUSE: Duration = Duration::from_millis(100);
/// How long an answer is waited for: others know as much.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);
/// Nodes asked together.
const ASKED_AT_ONCE: usize = 8;
/// Nodes remembered, so that a cluster is found again whose first nodes are gone.
const SEEN_MAX: usize = 1_000;

/// Nodes named in an error that none of them answered.
const ASKED_TOLD_MAX: usize = 5;

/// Nobody serves the slot.
const NOBODY: u16 = u16::MAX;

/// Who serves which slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Map {
    /// Masters, each with its replicas.
    masters: Vec<(Node, Vec<Node>)>,
    /// Place in `masters` for each slot.
    owners: Vec<u16>,
}

impl Map {
    fn empty() -> Self {
        Self { masters: Vec::new(), owners: vec![NOBODY; usize::from(SLOTS)] }
    }

    fn of_one(node: Node) -> Self {
        Self { masters: vec![(node, Vec::new())], owners: vec![0; usize::from(SLOTS)] }
    }

    fn entry(&self, slot: u16) -> Option<&(Node, Vec<Node>)> {
        self.masters.get(usize::from(*self.owners.get(usize::from(slot))?))
    }

    /// The master of the slot.
    pub fn owner(&self, slot: u16) -> Option<&Node> {
        self.entry(slot).map(|(master, _)| master)
    }

    /// Its replicas.
    pub fn replicas(&self, slot: u16) -> &[Node] {
        self.entry(slot).map_or(&[], |(_, replicas)| replicas)
    }

    /// All masters.
    pub fn masters(&self) -> impl Iterator<Item = &Node> {
        self.masters.iter().map(|(master, _)| master)
    }

    fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.masters.iter().flat_map(|(master, replicas)| std::iter::once(master).chain(replicas))
    }

    fn give(&mut self, slots: std::ops::RangeInclusive<usize>, master: Node, replicas: Vec<Node>) {
        let known = self.masters.iter().position(|(node, _)| *node == master);
        let at = known.unwrap_or_else(|| {
            self.masters.push((master, replicas));
            self.masters.len() - 1
        });
        let at = u16::try_from(at).unwrap_or(NOBODY);
        for slot in slots {
            if let Some(owner) = self.owners.get_mut(slot) {
                *owner = at;
            }
        }
    }

    fn is_complete(&self) -> bool {
        !self.owners.contains(&NOBODY)
    }
}

/// Where to look.
pub enum Place {
    /// One server.
    Server(Endpoint),
    /// Sentinels that know the master of that name.
    Sentinel {
        /// The name.
        master_name: String,
        /// Some of them.
        nodes: Vec<Endpoint>,
        /// How to connect to them.
        settings: Arc<Settings>,
    },
    /// Some nodes of a cluster.
    Cluster(Vec<Endpoint>),
}

enum How {
    Fixed,
    Sentinel { master_name: String, settings: Arc<Settings> },
    Cluster,
}

/// What looking around needs.
#[derive(Default)]
struct Look {
    last: Option<Instant>,
    /// Who answered last.
    asked: Option<Connection>,
    /// Nodes to ask, whoever answered last first.
    seen: VecDeque<Node>,
}

/// The servers of a bus.
pub struct Nodes {
    how: How,
    settings: Arc<Settings>,
    map: watch::Sender<Arc<Map>>,
    look: Mutex<Look>,
    /// Who answered last says that all is well.
    sound: AtomicBool,
    /// Of the cluster, as the best informed knew it.
    epoch: AtomicU64,
    /// Who answered last was wrong.
    doubted: AtomicBool,
}

impl Nodes {
    /// Nobody was asked yet.
    pub fn new(place: Place, settings: Arc<Settings>) -> Self {
        let (how, seen, map) = match place {
            Place::Server(node) => (How::Fixed, Vec::new(), Map::of_one(Arc::new(node))),
            Place::Sentinel { master_name, nodes, settings } => (How::Sentinel { master_name, settings }, nodes, Map::empty()),
            Place::Cluster(nodes) => (How::Cluster, nodes, Map::empty()),
        };
        let seen = seen.into_iter().map(Arc::new).collect();
        Self {
            how,
            settings,
            map: watch::Sender::new(Arc::new(map)),
            look: Mutex::new(Look { seen, ..Look::default() }),
            sound: AtomicBool::new(false),
            epoch: AtomicU64::new(0),
            doubted: AtomicBool::new(false),
        }
    }

    /// Whether keys are spread over several servers.
    pub fn is_cluster(&self) -> bool {
        matches!(self.how, How::Cluster)
    }

    /// Whether it may ever be another server.
    pub fn is_fixed(&self) -> bool {
        matches!(self.how, How::Fixed)
    }

    /// Whether a server is to be asked for its role.
    pub fn is_named_by_others(&self) -> bool {
        matches!(self.how, How::Sentinel { .. })
    }

    /// Whether a cluster served all slots when it was asked last.
    pub fn is_ready(&self) -> bool {
        self.sound.load(Ordering::Acquire)
    }

    /// What is known.
    pub fn map(&self) -> Arc<Map> {
        self.map.borrow().clone()
    }

    /// The server of the slot; looks around where none is known.
    pub async fn owner(&self, slot: u16) -> Result<Node> {
        let map = self.map();
        if let Some(node) = map.owner(slot) {
            return Ok(node.clone());
        }
        self.refresh(&map).await?;
        self.map().owner(slot).cloned().ok_or_else(|| {
            let mut error =
                Error::new(Code::Connection, format!("no node of the Redis Cluster serves slot {slot} now (CLUSTER INFO says more)"));
            error.retryable = true;
            error
        })
    }

    /// Returns once the node is not the one to ask for the slot any more.
    pub async fn left(&self, slot: u16, node: &Node) {
        if self.is_fixed() {
            return std::future::pending().await;
        }
        // The sender is ours: waiting cannot fail.
        let _ = self.map.subscribe().wait_for(|map| map.owner(slot) != Some(node)).await;
    }

    /// Takes in that the slot is served elsewhere: the rest of a MOVED reply, "<slot> <host>:<port>", said by `by`.
    pub fn moved(&self, text: &str, by: &Node) {
        let Some((slot, node)) = parse_moved(text, by) else { return };
        self.map.send_if_modified(|map| {
            if map.owner(slot) == Some(&node) {
                return false;
            }
            let mut corrected = Map::clone(map);
            corrected.give(usize::from(slot)..=usize::from(slot), node, Vec::new());
            *map = Arc::new(corrected);
            true
        });
    }

    /// Looks around, unless what is known is already another than `known`.
    pub async fn refresh(&self, known: &Arc<Map>) -> Result<()> {
        if self.is_fixed() {
            return Ok(());
        }
        let came = Instant::now();
        let mut look = self.look.lock().await;
        // Somebody else looked meanwhile, or found another map.
        if !Arc::ptr_eq(&self.map(), known) || look.last.is_some_and(|last| last > came) {
            return Ok(());
        }
        if let Some(last) = look.last {
            sleep_until(last + LOOK_PAUSE).await;
        }
        let found = self.ask_around(&mut look).await?;
        self.learn(&mut look, found);
        Ok(())
    }

    /// Looks around regularly, for ever.
    pub async fn watch(&self) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            if let Err(error) = self.refresh(&self.map()).await {
                tracing::debug!(%error, "nobody says which server serves what");
            }
        }
    }

    fn learn(&self, look: &mut Look, found: Map) {
        if self.is_cluster() {
            // Those that are part of it now come first, and those that are long gone go.
            let answered = look.asked.as_ref().map(|connection| connection.node.clone());
            let mut seen: VecDeque<Node> = VecDeque::with_capacity(look.seen.len());
            for node in answered.iter().chain(found.nodes()).chain(&look.seen) {
                if !seen.contains(node) && seen.len() < SEEN_MAX {
                    seen.push_back(node.clone());
                }
            }
            look.seen = seen;
        }
        self.map.send_if_modified(|map| {
            let is_new = **map != found;
            if is_new {
                let masters: Vec<String> = found.masters().map(ToString::to_string).collect();
                tracing::info!(masters = masters.join(","), "these servers hold the data now");
                *map = Arc::new(found);
            }
            is_new
        });
    }

    async fn ask_around(&self, look: &mut Look) -> Result<Map> {
        let asked = self.ask_each(look).await;
        look.last = Some(Instant::now());
        let answer = asked?;
        self.sound.store(answer.is_sound, Ordering::Release);
        // Not the highest ever: a cluster that was made anew begins again.
        self.epoch.store(answer.epoch, Ordering::Release);
        remember(look, answer.others);
        Ok(answer.map)
    }

    /// Until one is well informed; else what the best informed says.
    async fn ask_each(&self, look: &mut Look) -> Result<Answer> {
        let mut best: Option<Answer> = None;
        let mut better = |answer: Answer| {
            if best.as_ref().is_none_or(|best| answer.epoch > best.epoch) {
                best = Some(answer);
            }
        };
        let mut errors: Vec<(Node, Error)> = Vec::new();
        let mut asked_last = 0;
        if self.doubted.swap(false, Ordering::AcqRel) {
            // Whoever answered last did not know better: others are asked first, and it only when none of them knows.
            look.asked = None;
            let doubted = look.seen.len().min(1);
            look.seen.rotate_left(doubted);
            asked_last = doubted;
        }
        if let Some(connection) = look.asked.take() {
            match self.ask(&connection).await {
                Ok(answer) if answer.is_sound => {
                    look.asked = Some(connection);
                    return Ok(answer);
                }
                Ok(answer) => better(answer),
                Err(error) => tracing::debug!(%error, "a node does not say any more which server serves what"),
            }
        }
        let seen: Vec<Node> = look.seen.iter().cloned().collect();
        let (first, last) = seen.split_at(seen.len() - asked_last);
        for some in first.chunks(ASKED_AT_ONCE).chain(last.chunks(ASKED_AT_ONCE)) {
            // Together: one that hangs is not waited for when another knows.
            let mut asked: FuturesUnordered<_> = some.iter().map(|node| async move { (node, self.ask_anew(node).await) }).collect();
            while let Some((node, said)) = asked.next().await {
                match said {
                    Ok((connection, answer)) if answer.is_sound => {
                        look.asked = Some(connection);
                        look.seen.retain(|other| other != node);
                        look.seen.push_front(node.clone());
                        return Ok(answer);
                    }
                    Ok((_, answer)) => better(answer),
                    Err(error) => {
                        tracing::debug!(%error, "a node does not say which server serves what");
                        errors.push((node.clone(), error));
                    }
                }
            }
        }
        best.ok_or_else(|| self.nobody(errors))
    }

    async fn ask_anew(&self, node: &Node) -> Result<(Connection, Answer)> {
        let target = self.asking(node);
        let connection = target.in_time(target.open(ASK_TIMEOUT)).await?;
        let answer = self.ask(&connection).await?;
        Ok((connection, answer))
    }

    /// What to tell where none of those asked said which server serves what.
    fn nobody(&self, errors: Vec<(Node, Error)>) -> Error {
        // One that answers and refuses says more than one that is away.
        let first = errors.iter().position(|(_, error)| error.code != Code::Connection).unwrap_or(0);
        let Some((node, error)) = errors.get(first) else { return Error::internal("no node to ask") };
        let mut error = error.clone();
        if error.code == Code::Auth && matches!(self.how, How::Sentinel { .. }) {
            error.message =
                format!("the Sentinel at {node} refused the credentials; check redis.sentinel.username and redis.sentinel.password");
        }
        let others: Vec<String> =
            errors.iter().filter(|(other, _)| other != node).take(ASKED_TOLD_MAX).map(|(node, _)| node.to_string()).collect();
        if !others.is_empty() {
            error.message = format!("{} Asked in vain, too: {}", error.message, others.join(", "));
        }
        error
    }

    /// What was said last turned out to be wrong: others are asked first.
    pub fn doubt(&self) {
        self.doubted.store(true, Ordering::Release);
    }

    /// Ends the connection on which is asked.
    pub async fn close(&self) {
        self.look.lock().await.asked = None;
    }

    /// How to reach a node that is asked who serves what.
    fn asking(&self, node: &Node) -> Target {
        let settings = match &self.how {
            How::Sentinel { settings, .. } => settings,
            How::Fixed | How::Cluster => &self.settings,
        };
        Target { node: node.clone(), settings: settings.clone() }
    }

    async fn ask(&self, connection: &Connection) -> Result<Answer> {
        match &self.how {
            How::Sentinel { master_name, .. } => self.ask_sentinel(connection, master_name).await,
            How::Fixed | How::Cluster => self.ask_node(connection).await,
        }
    }

    async fn send(&self, connection: &Connection, commands: [&[&str]; 2]) -> Result<[Value; 2]> {
        let replies = connection.inner.values(&commands.map(command)).await;
        let replies = replies.map_err(|error| self.asking(&connection.node).explain(&error))?;
        replies.try_into().map_err(|_| reply::unexpected("a pipeline"))
    }

    async fn ask_node(&self, connection: &Connection) -> Result<Answer> {
        let [slots, info] = self.send(connection, [&["CLUSTER", "SLOTS"], &["CLUSTER", "INFO"]]).await?;
        if let Value::ServerError(error) = &slots
            && error.details().unwrap_or_default().contains("cluster support disabled")
        {
            let message = format!("the server at {} is not in cluster mode; give its address as redis.host or redis.url", connection.node);
            return Err(Error::new(Code::UnsupportedServer, message));
        }
        let map = read_slots(reply::list(slots)?, &connection.node)?;
        let info = reply::text(info)?;
        let epoch = info.lines().find_map(|line| line.strip_prefix("cluster_current_epoch:"));
        let epoch = epoch.and_then(|epoch| epoch.trim().parse().ok()).unwrap_or(0);
        // One that was cut off has not heard yet that another took its place, or somebody else's.
        let is_current = epoch >= self.epoch.load(Ordering::Acquire);
        let is_sound = is_current && info.contains("cluster_state:ok") && map.is_complete();
        Ok(Answer { map, is_sound, epoch, others: Vec::new() })
    }

    async fn ask_sentinel(&self, connection: &Connection, master_name: &str) -> Result<Answer> {
        let commands: [&[&str]; 2] = [&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", master_name], &["SENTINEL", "SENTINELS", master_name]];
        let [address, others] = self.send(connection, commands).await?;
        if address == Value::Nil {
            let message =
                format!("the Sentinel at {} knows no master named '{master_name}'; check redis.sentinel.masterName", connection.node);
            return Err(Error::new(Code::Connection, message).with("masterName", master_name));
        }
        let mut address = reply::list(address)?.into_iter().map(reply::text);
        let (Some(host), Some(port)) = (address.next().transpose()?, address.next().transpose()?) else {
            return Err(reply::unexpected("SENTINEL GET-MASTER-ADDR-BY-NAME"));
        };
        let port = port.parse().map_err(|_| reply::unexpected("SENTINEL GET-MASTER-ADDR-BY-NAME"))?;
        let others = reply::list(others).unwrap_or_default().into_iter().filter_map(sentinel).collect();
        Ok(Answer { map: Map::of_one(Arc::new(Endpoint::tcp(host, port))), is_sound: true, epoch: 0, others })
    }

    /// The servers there are, each with what is known of its state: nothing where we have to find out ourselves.
    pub async fn states(&self) -> Vec<(Node, Option<String>)> {
        if self.is_cluster()
            && let Ok(states) = self.cluster_states().await
            && !states.is_empty()
        {
            return states;
        }
        self.map().masters().map(|node| (node.clone(), None)).collect()
    }

    async fn cluster_states(&self) -> Result<Vec<(Node, Option<String>)>> {
        let known = self.map();
        let mut look = self.look.lock().await;
        if look.asked.is_none() {
            let found = self.ask_around(&mut look).await?;
            if Arc::ptr_eq(&self.map(), &known) {
                self.learn(&mut look, found);
            }
        }
        let connection = look.asked.clone().ok_or_else(|| Error::internal("no node to ask"))?;
        drop(look);
        let [nodes, _] = self.send(&connection, [&["CLUSTER", "NODES"], &["PING"]]).await?;
        Ok(read_nodes(&reply::text(nodes)?, &connection.node))
    }
}

/// What a node said.
struct Answer {
    map: Map,
    /// Whether the one who says so is well informed.
    is_sound: bool,
    /// Of the cluster, as that one knows it:
    /// <https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/#cluster-current-epoch>.
    epoch: u64,
    /// Others to ask.
    others: Vec<Node>,
}

fn remember(look: &mut Look, others: Vec<Node>) {
    for node in others {
        if !look.seen.contains(&node) && look.seen.len() < SEEN_MAX {
            look.seen.push_back(node);
        }
    }
}

fn command(words: &[&str]) -> Cmd {
    let mut cmd = redis::cmd(words[0]);
    cmd.arg(&words[1..]);
    cmd
}

/// A host that a node names; `None`: it does not know its own address.
fn host(named: &str, by: &Node) -> Option<String> {
    match named {
        "?" => None,
        // As the documentation of CLUSTER SLOTS has it: the address under which it was asked.
        "" => Some(by.parts().0.to_owned()),
        host => Some(host.to_owned()),
    }
}

fn endpoint(host_port: &str, by: &Node) -> Option<Node> {
    let (named, port) = host_port.rsplit_once(':')?;
    Some(Arc::new(Endpoint::tcp(host(named, by)?, port.parse().ok()?)))
}

/// "<slot> <host>:<port>".
pub fn parse_moved(text: &str, by: &Node) -> Option<(u16, Node)> {
    let (slot, address) = text.trim().split_once(' ')?;
    Some((slot.parse().ok().filter(|slot| *slot < SLOTS)?, endpoint(address, by)?))
}

/// Reads a reply to CLUSTER SLOTS.
fn read_slots(ranges: Vec<Value>, by: &Node) -> Result<Map> {
    let wrong = || reply::unexpected("CLUSTER SLOTS");
    let mut map = Map::empty();
    for range in ranges {
        let mut parts = reply::list(range)?.into_iter();
        let mut bound = || parts.next().map(|value| reply::count(&value)).transpose();
        let (Some(first), Some(last)) = (bound()?, bound()?) else { return Err(wrong()) };
        let mut nodes = Vec::new();
        for node in parts {
            let mut node = reply::list(node)?.into_iter();
            let (Some(named), Some(port)) = (node.next(), node.next()) else { return Err(wrong()) };
            let named = if named == Value::Nil { String::new() } else { reply::text(named)? };
            let port = u16::try_from(reply::count(&port)?).map_err(|_| wrong())?;
            nodes.push(host(&named, by).map(|host| Arc::new(Endpoint::tcp(host, port))));
        }
        let mut nodes = nodes.into_iter();
        let (Ok(first), Ok(last)) = (usize::try_from(first), usize::try_from(last)) else { return Err(wrong()) };
        // A master whose place is not known cannot be asked, and its replicas do not stand in for it.
        if let Some(Some(master)) = nodes.next() {
            map.give(first..=last.min(usize::from(SLOTS) - 1), master, nodes.flatten().collect());
        }
    }
    Ok(map)
}

/// Reads a reply to CLUSTER NODES: where each node is, and "<role>, <state>".
fn read_nodes(text: &str, by: &Node) -> Vec<(Node, Option<String>)> {
    let mut out = Vec::new();
    for line in text.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        let [_, address, flags, _, _, _, _, link, ..] = fields[..] else { continue };
        let flags: Vec<&str> = flags.split(',').collect();
        // "<ip>:<port>@<bus port>[,<host name>]"
        let Some(node) = address.split('@').next().and_then(|address| endpoint(address, by)) else { continue };
        let state = if flags.contains(&"fail") {
            "failed"
        } else if flags.contains(&"fail?") {
            "suspected"
        } else if flags.contains(&"handshake") || flags.contains(&"noaddr") || link != "connected" {
            "disconnected"
        } else {
            "connected"
        };
        out.push((node, Some(state.to_owned())));
    }
    out
}

/// A sentinel as another one names it: fields in pairs.
fn sentinel(fields: Value) -> Option<Node> {
    let fields = reply::list(fields).ok()?;
    let text = |name: &str| reply::field(&fields, name).cloned().and_then(|value| reply::text(value).ok());
    Some(Arc::new(Endpoint::tcp(text("ip")?, text("port")?.parse().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(port: u16) -> Node {
        Arc::new(Endpoint::tcp("h", port))
    }

    fn text(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    fn range(first: i64, last: i64, nodes: &[(&str, i64)]) -> Value {
        let nodes = nodes.iter().map(|(host, port)| Value::Array(vec![text(host), Value::Int(*port), text("id"), Value::Array(vec![])]));
        Value::Array([Value::Int(first), Value::Int(last)].into_iter().chain(nodes).collect())
    }

    #[test]
    fn slots_are_read_with_their_masters_and_replicas() {
        let by = node(9);
        let map = read_slots(vec![range(0, 99, &[("a", 1), ("b", 2)]), range(100, 16383, &[("", 3)])], &by).unwrap();
        assert_eq!(map.owner(99), Some(&Arc::new(Endpoint::tcp("a", 1))));
        assert_eq!(map.replicas(0), [Arc::new(Endpoint::tcp("b", 2))]);
        assert_eq!(map.owner(100), Some(&node(3)), "a node that does not know its host is where it was asked");
        assert!(map.is_complete());
        assert!(!read_slots(vec![range(0, 99, &[("a", 1)])], &by).unwrap().is_complete());
        assert!(read_slots(vec![Value::Int(1)], &by).is_err());
        assert_eq!(read_slots(vec![range(0, 5, &[("?", 1), ("b", 2)])], &by).unwrap().owner(0), None, "a replica is no master");
        assert!(read_slots(vec![range(0, i64::MAX, &[("a", 1)])], &by).is_ok());
    }

    #[test]
    fn moved_corrects_one_slot() {
        let nodes = Nodes::new(
            Place::Cluster(vec![Endpoint::tcp("h", 1)]),
            Arc::new(Settings {
                username: None,
                password: None,
                db: 0,
                tls: None,
                connect_timeout: ASK_TIMEOUT,
                command_timeout: ASK_TIMEOUT,
            }),
        );
        nodes.moved("3999 h:2", &node(1));
        assert_eq!(nodes.map().owner(3999), Some(&node(2)));
        assert_eq!(nodes.map().owner(4000), None);
        for wrong in ["", "x h:1", "16384 h:1", "1 h", "1 ?:1", "1 h:99999"] {
            nodes.moved(wrong, &node(1));
        }
        assert_eq!(nodes.map().masters().count(), 1);
        assert_eq!(parse_moved("1 :7000", &node(1)), Some((1, node(7000))));
    }

    #[test]
    fn the_state_of_each_node_is_told() {
        let text = "a 127.0.0.1:1@11,name myself,master - 0 0 1 connected 0-5\nb 127.0.0.1:2@12 slave,fail? a 0 0 1 connected\n\
                    c 127.0.0.1:3@13 master,fail - 0 0 1 disconnected\nd :0@0 slave,noaddr a 0 0 1 disconnected\nnonsense\n";
        let states: Vec<_> = read_nodes(text, &node(1)).into_iter().map(|(node, state)| (node.parts().1, state.unwrap())).collect();
        assert_eq!(states, [(1, "connected".into()), (2, "suspected".into()), (3, "failed".into()), (0, "disconnected".to_owned())]);
    }
}
