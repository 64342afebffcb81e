//! A private Redis Cluster for one test: nodes on loopback that can be killed, paused and started again, and whose slots
//! can be moved step by step.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::process::Stdio;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use redis::{RedisResult, Value};

use super::server::{Server, Setup, ask_at, free_port, programs};
use super::wait::until;

/// Slots of every cluster.
pub const SLOTS: u16 = 16_384;
/// Keys moved by one MIGRATE.
const MOVED_AT_ONCE: usize = 50;

/// How a cluster is made.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Nodes with slots.
    pub masters: usize,
    /// Replicas of each.
    pub replicas: usize,
    /// After so long without an answer a node is taken for dead, ms.
    pub node_timeout_ms: u32,
    /// More options of every node.
    pub options: Vec<String>,
}

impl Default for Shape {
    /// Three masters with a replica each, and a timeout that tests can wait for.
    fn default() -> Self {
        Self { masters: 3, replicas: 1, node_timeout_ms: 1500, options: Vec::new() }
    }
}

/// A running cluster. Nodes are named by their number: the masters first, then the replicas in the order of their
/// masters. Numbers stay when roles change.
pub struct Cluster {
    nodes: Vec<Server>,
    ids: Vec<String>,
    shape: Shape,
}

/// A slot on its way.
pub struct Migration {
    /// The slot.
    pub slot: u16,
    /// Who has it.
    pub from: usize,
    /// Who gets it.
    pub to: usize,
}

impl Cluster {
    /// Starts the nodes and waits until all of them know all slots and the replicas have their data.
    pub async fn start(program: &str, shape: Shape) -> Self {
        let setup = || {
            let mut setup = Setup::of(&["--cluster-enabled", "yes", "--appendonly", "no", "--repl-diskless-sync-delay", "0"])
                .with("--cluster-port", &[&free_port().to_string()])
                .with("--cluster-node-timeout", &[&shape.node_timeout_ms.to_string()])
                // Replicas are shown once something was replicated: a ping will do.
                .with("--repl-ping-replica-period", &["1"])
                // A replica is a candidate at once, however long its master has been away.
                .with("--cluster-replica-validity-factor", &["0"]);
            setup.options.extend(shape.options.iter().cloned());
            setup
        };
        let count = shape.masters * (1 + shape.replicas);
        let nodes = join_all((0..count).map(|_| Server::start_as(program, setup))).await;
        let ids = join_all(nodes.iter().map(|node| node.text(&["CLUSTER", "MYID"]))).await;
        let cluster = Self { nodes, ids, shape };
        cluster.share_out_slots().await;
        cluster.introduce().await;
        cluster.attach_replicas().await;
        until("the cluster is whole", async || cluster.is_whole().await).await;
        cluster
    }

    async fn share_out_slots(&self) {
        let masters = u16::try_from(self.shape.masters).expect("few");
        for n in 0..masters {
            let bound = |n: u16| u32::from(SLOTS) * u32::from(n) / u32::from(masters);
            let (first, last) = (bound(n).to_string(), (bound(n + 1) - 1).to_string());
            self.say(n.into(), &["CLUSTER", "ADDSLOTSRANGE", &first, &last]).await;
            // Each has an epoch of its own from the start; else they fight over it first.
            self.say(n.into(), &["CLUSTER", "SET-CONFIG-EPOCH", &(n + 1).to_string()]).await;
        }
    }

    async fn introduce(&self) {
        for node in &self.nodes[1..] {
            let (port, bus) = (node.port().to_string(), node.setup().port_of("--cluster-port").to_string());
            self.say(0, &["CLUSTER", "MEET", "127.0.0.1", &port, &bus]).await;
        }
        let known = format!("cluster_known_nodes:{}\r\n", self.nodes.len());
        for n in 0..self.nodes.len() {
            until("a node knows all others", async || self.info(n, &["CLUSTER", "INFO"]).await.contains(&known)).await;
        }
    }

    async fn attach_replicas(&self) {
        for n in self.shape.masters..self.nodes.len() {
            let master = (n - self.shape.masters) / self.shape.replicas;
            let command = ["CLUSTER", "REPLICATE", self.ids[master].as_str()];
            // Refused until it has shaken hands with its master.
            until("a replica takes its master", async || self.ask(n, &command).await.is_ok()).await;
        }
    }

    /// Whether every node that is up knows every slot served and its replicas, and every replica has its master's data.
    pub async fn is_whole(&self) -> bool {
        for n in self.up() {
            let (state, replication) = (self.info(n, &["CLUSTER", "INFO"]).await, self.info(n, &["INFO", "replication"]).await);
            let is_linked = replication.contains("role:master") || replication.contains("master_link_status:up");
            let sees_replicas = self.served_by(n).await.iter().all(|served| served.nodes.len() == 1 + self.shape.replicas);
            if !(state.contains("cluster_state:ok") && is_linked && (sees_replicas || self.up().len() < self.nodes.len())) {
                return false;
            }
        }
        true
    }

    /// The nodes.
    pub fn nodes(&self) -> &[Server] {
        &self.nodes
    }

    /// Port of a node.
    pub fn port(&self, node: usize) -> u16 {
        self.nodes[node].port()
    }

    /// Ports of all.
    pub fn ports(&self) -> Vec<u16> {
        self.nodes.iter().map(Server::port).collect()
    }

    /// The number of the node on a port.
    pub fn node_at(&self, port: u16) -> usize {
        self.nodes.iter().position(|node| node.port() == port).expect("it is one of the nodes")
    }

    /// Nodes that run and are not paused.
    pub fn up(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|&n| self.nodes[n].is_up()).collect()
    }

    /// Nodes that take themselves for masters with slots, of those that are up.
    pub async fn masters(&self) -> Vec<usize> {
        let mut masters = Vec::new();
        for n in self.up() {
            let own = self.own_view(n).await;
            if own.is_master && own.has_slots {
                masters.push(n);
            }
        }
        masters
    }

    /// One command to one node, whatever the answer; a redirection is an error.
    pub async fn ask(&self, node: usize, arguments: &[&str]) -> RedisResult<Value> {
        self.nodes[node].ask(arguments).await
    }

    /// One command to one node; must succeed.
    pub async fn command(&self, node: usize, arguments: &[&str]) -> Value {
        self.ask(node, arguments).await.unwrap_or_else(|error| panic!("{arguments:?} to node {node}: {error}"))
    }

    async fn say(&self, node: usize, arguments: &[&str]) {
        self.command(node, arguments).await;
    }

    /// A text reply, empty where there is none.
    async fn info(&self, node: usize, arguments: &[&str]) -> String {
        let reply = self.ask(node, arguments).await.unwrap_or(Value::Nil);
        redis::from_redis_value(reply).unwrap_or_default()
    }

    /// Kills a node, as a crash would.
    pub async fn kill(&mut self, node: usize) {
        self.nodes[node].kill().await;
    }

    /// Kills a node and starts it again, with its place in the cluster and without its data.
    pub async fn restart(&mut self, node: usize) {
        self.nodes[node].restart().await;
    }

    /// SIGSTOP.
    pub async fn pause(&mut self, node: usize) {
        self.nodes[node].pause().await;
    }

    /// SIGCONT.
    pub async fn resume(&mut self, node: usize) {
        self.nodes[node].resume().await;
    }

    /// Waits until another node has taken over the slots of one that is down, by its own word: answers which, and when
    /// that was seen. Others may learn it a little later; [`Cluster::is_whole`] tells.
    pub async fn taken_over(&self, slot: u16, from: usize) -> (usize, Instant) {
        let mut taken = None;
        until("another node takes over", async || {
            for n in self.up() {
                let own = self.own_view(n).await;
                if n != from && own.is_master && self.owner_by(n, slot).await == Some(n) {
                    taken = Some((n, Instant::now()));
                }
            }
            taken.is_some()
        })
        .await;
        taken.expect("it was waited for")
    }

    /// Waits until all nodes that are up serve all slots and agree on who has them.
    pub async fn settles(&self) {
        until("the nodes agree", async || {
            let up = self.up();
            let mut views = Vec::new();
            for &n in &up {
                let mut view: Vec<_> =
                    self.served_by(n).await.into_iter().map(|served| (served.first, served.last, served.nodes[0])).collect();
                view.sort_unstable();
                views.push(view);
            }
            let owners_are_up = views[0].iter().all(|(_, _, port)| up.contains(&self.node_at(*port)));
            owners_are_up && views.iter().all(|view| *view == views[0]) && self.is_whole().await
        })
        .await;
    }

    /// Who has the slot, as the nodes that are up say.
    pub async fn owner(&self, slot: u16) -> usize {
        let mut owner = None;
        until("the slot is served", async || {
            for n in self.up() {
                owner = owner.or(self.owner_by(n, slot).await.filter(|&owner| self.nodes[owner].is_up()));
            }
            owner.is_some()
        })
        .await;
        owner.expect("it was waited for")
    }

    async fn owner_by(&self, asked: usize, slot: u16) -> Option<usize> {
        let served = self.served_by(asked).await;
        served.iter().find(|served| (served.first..=served.last).contains(&slot)).map(|served| self.node_at(served.nodes[0]))
    }

    /// `CLUSTER SLOTS` of one node; empty where it does not answer.
    async fn served_by(&self, node: usize) -> Vec<Served> {
        slots_at(self.port(node)).await.unwrap_or_default()
    }

    async fn own_view(&self, node: usize) -> OwnView {
        let nodes = self.info(node, &["CLUSTER", "NODES"]).await;
        let own = nodes.lines().find(|line| line.contains("myself")).unwrap_or_default();
        let fields: Vec<&str> = own.split(' ').collect();
        OwnView { is_master: fields.get(2).is_some_and(|flags| flags.contains("master")), has_slots: fields.len() > 8 }
    }

    /// Moves a slot with all its keys, as an operator would: clients may use it all the time.
    pub async fn migrate_slot(&self, slot: u16, to: usize) {
        let migration = self.begin_migration(slot, to).await;
        self.finish_migration(&migration).await;
    }

    /// Marks the slot as being on its way; nothing is moved yet. None of the keys is unreachable: a client is sent on by
    /// ASK for those that are not there any more, and by TRYAGAIN while a command needs keys of both sides.
    pub async fn begin_migration(&self, slot: u16, to: usize) -> Migration {
        let from = self.owner(slot).await;
        assert_ne!(from, to, "the slot is there already");
        self.say(to, &["CLUSTER", "SETSLOT", &slot.to_string(), "IMPORTING", &self.ids[from]]).await;
        self.say(from, &["CLUSTER", "SETSLOT", &slot.to_string(), "MIGRATING", &self.ids[to]]).await;
        Migration { slot, from, to }
    }

    /// Moves up to `count` keys of the slot; answers how many.
    pub async fn move_keys(&self, migration: &Migration, count: usize) -> usize {
        let slot = migration.slot.to_string();
        let keys = self.command(migration.from, &["CLUSTER", "GETKEYSINSLOT", &slot, &count.to_string()]).await;
        let keys: Vec<String> = redis::from_redis_value(keys).expect("keys of tests are text");
        self.move_named(migration, &keys).await;
        keys.len()
    }

    /// Moves these keys.
    pub async fn move_named(&self, migration: &Migration, keys: &[String]) {
        if keys.is_empty() {
            return;
        }
        let port = self.port(migration.to).to_string();
        let mut command = vec!["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "REPLACE", "KEYS"];
        command.extend(keys.iter().map(String::as_str));
        self.say(migration.from, &command).await;
    }

    /// Moves what is left of the slot and gives it to its new owner.
    pub async fn finish_migration(&self, migration: &Migration) {
        let slot = migration.slot.to_string();
        while self.move_keys(migration, MOVED_AT_ONCE).await > 0 {}
        let command = ["CLUSTER", "SETSLOT", slot.as_str(), "NODE", self.ids[migration.to].as_str()];
        // The new owner first: nobody may be sent to one that does not know yet.
        self.say(migration.to, &command).await;
        self.say(migration.from, &command).await;
        for n in self.masters().await {
            if n != migration.to && n != migration.from {
                self.say(n, &command).await;
            }
        }
        until("all nodes know who has the slot", async || {
            let mut all = true;
            for n in self.up() {
                all = all && self.owner_by(n, migration.slot).await == Some(migration.to);
            }
            all
        })
        .await;
    }

    /// One command for `key`, to whoever has it; must succeed.
    pub async fn command_for(&self, key: &str, arguments: &[&str]) -> Value {
        command_for(&self.ports(), key, arguments).await
    }
}

struct OwnView {
    is_master: bool,
    has_slots: bool,
}

/// A range of slots.
#[derive(Clone, Debug)]
struct Served {
    first: u16,
    last: u16,
    /// Ports of its nodes, the master's first.
    nodes: Vec<u16>,
}

async fn slots_at(port: u16) -> RedisResult<Vec<Served>> {
    let Value::Array(ranges) = ask_at(port, None, &["CLUSTER", "SLOTS"]).await? else { return Ok(Vec::new()) };
    let number = |value: &Value| redis::from_redis_value_ref::<u16>(value).expect("a number");
    let ranges = ranges.iter().filter_map(|range| match range {
        Value::Array(parts) if parts.len() > 2 => {
            let nodes = parts[2..].iter().filter_map(|node| if let Value::Array(node) = node { Some(number(&node[1])) } else { None });
            Some(Served { first: number(&parts[0]), last: number(&parts[1]), nodes: nodes.collect() })
        }
        _ => None,
    });
    Ok(ranges.collect())
}

/// One command for `key` to whoever of the cluster with these ports has it; must succeed.
pub async fn command_for<A: AsRef<[u8]> + Debug + ?Sized>(ports: &[u16], key: &str, arguments: &[&A]) -> Value {
    let slot = slot_of(key);
    let mut owner = None;
    for &port in ports {
        let served = slots_at(port).await.unwrap_or_default();
        owner = owner.or(served.iter().find(|served| (served.first..=served.last).contains(&slot)).map(|served| served.nodes[0]));
    }
    let owner = owner.expect("a node says who has the slot");
    ask_at(owner, None, arguments).await.unwrap_or_else(|error| panic!("{arguments:?} to port {owner}: {error}"))
}

/// The slot of a key: CRC-16 (XMODEM) of what stands in its first `{}`, or of all.
pub fn slot_of(key: &str) -> u16 {
    let tag = key.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map(|(tag, _)| tag).filter(|tag| !tag.is_empty());
    let crc = tag.unwrap_or(key).bytes().fold(0_u16, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(byte) << 8), |crc, _| if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 })
    });
    crc % SLOTS
}

/// Time a dead master may take to be replaced: it has to be missed, then elected; what is left is for slow machines.
pub fn failover_max(shape: &Shape) -> Duration {
    Duration::from_millis(u64::from(shape.node_timeout_ms) * 2) + Duration::from_secs(5)
}

/// Ports of a cluster of three masters that the tests of this process share, each under a key prefix of its own; they must
/// leave its nodes alone. That of `OSSA_TEST_CLUSTER`, where it is of this program; else it ends with the process.
pub async fn shared(program: &str) -> Vec<u16> {
    static SHARED: tokio::sync::Mutex<BTreeMap<String, Vec<u16>>> = tokio::sync::Mutex::const_new(BTreeMap::new());
    let given = std::env::var("OSSA_TEST_CLUSTER").unwrap_or_default();
    if !given.is_empty() && programs()[0] == program {
        let port = |node: &str| node.rsplit(':').next().and_then(|port| port.parse().ok()).expect("host:port,… in OSSA_TEST_CLUSTER");
        return given.split(',').map(port).collect();
    }
    let mut shared = SHARED.lock().await;
    if !shared.contains_key(program) {
        // Nobody takes its nodes down: one that the machine leaves no time for need not be missed.
        let cluster = Cluster::start(program, Shape { replicas: 0, node_timeout_ms: 15_000, ..Shape::default() }).await;
        shared.insert(program.to_owned(), cluster.ports());
        end_with_this_process(cluster);
    }
    shared[program].clone()
}

/// The owner of what tests share would be a static, which nothing drops: a shell that waits for the end of its input, and
/// so of this process, however that comes, ends the servers.
fn end_with_this_process(cluster: Cluster) {
    const GUARD: &str = r#"ids=$1; shift; cat > /dev/null; kill -KILL $ids; rm -rf -- "$@""#;
    let ids: Vec<String> = cluster.nodes.iter().filter_map(Server::process_id).map(|id| id.to_string()).collect();
    let mut guard = std::process::Command::new("sh");
    guard.args(["-c", GUARD, "sh", &ids.join(" ")]).args(cluster.nodes.iter().map(|node| node.path("")));
    guard.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    std::mem::forget(guard.spawn().expect("there is a shell"));
    std::mem::forget(cluster);
}
