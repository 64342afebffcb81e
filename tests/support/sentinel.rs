//! A private master with replicas, watched over by sentinels that name another master when it is gone.

use futures_util::future::join_all;
use redis::Value;
use std::time::{Duration, Instant};

use super::server::{Server, Setup, ask_at};
use super::wait::until;

/// What the sentinels call the master.
pub const MASTER_NAME: &str = "main";
/// So many sentinels have to agree that it is gone.
const QUORUM: usize = 2;

/// How it is made.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Replicas of the master.
    pub replicas: usize,
    /// Sentinels.
    pub sentinels: usize,
    /// After so long without an answer the master is missed, ms.
    pub down_after_ms: u32,
    /// What the sentinels ask of their clients, and of each other.
    pub password: Option<String>,
}

impl Default for Shape {
    /// One replica, three sentinels, and a time that tests can wait for.
    fn default() -> Self {
        Self { replicas: 1, sentinels: 3, down_after_ms: 1000, password: None }
    }
}

/// Servers and sentinels.
pub struct Watched {
    /// The servers, the first master first. Numbers stay when roles change.
    pub servers: Vec<Server>,
    /// The sentinels.
    pub sentinels: Vec<Server>,
}

impl Watched {
    /// Starts them and waits until the sentinels know the replicas and each other.
    pub async fn start(program: &str, shape: &Shape) -> Self {
        let in_memory = || Setup::of(&["--appendonly", "no", "--repl-diskless-sync-delay", "0"]);
        let master = Server::start_as(program, in_memory).await;
        let port = master.port().to_string();
        let replica = || in_memory().with("--replicaof", &["127.0.0.1", &port]);
        let replicas = join_all((0..shape.replicas).map(|_| Server::start_as(program, replica))).await;
        let mut servers = vec![master];
        servers.extend(replicas);
        for replica in &servers[1..] {
            let is_linked = async || replica.text(&["INFO", "replication"]).await.contains("master_link_status:up");
            until("the replica has its data", is_linked).await;
        }
        let sentinels = join_all((0..shape.sentinels).map(|_| sentinel(program, servers[0].port(), shape))).await;
        let watched = Self { servers, sentinels };
        for n in 0..shape.sentinels {
            until("a sentinel knows all others", async || watched.knows_all(n, shape).await).await;
        }
        watched
    }

    async fn knows_all(&self, sentinel: usize, shape: &Shape) -> bool {
        let Ok(reply) = self.sentinels[sentinel].ask(&["SENTINEL", "MASTER", MASTER_NAME]).await else { return false };
        let fields: Vec<String> = redis::from_redis_value(reply).unwrap_or_default();
        let is = |name: &str, value: usize| fields.chunks(2).any(|field| field[0] == name && field[1] == value.to_string());
        is("num-slaves", shape.replicas) && is("num-other-sentinels", shape.sentinels - 1)
    }

    /// Ports of the sentinels.
    pub fn sentinel_ports(&self) -> Vec<u16> {
        self.sentinels.iter().map(Server::port).collect()
    }

    /// The number of the server on a port.
    pub fn server_at(&self, port: u16) -> usize {
        self.servers.iter().position(|server| server.port() == port).expect("it is one of the servers")
    }

    /// The master by the word of one sentinel.
    pub async fn master_by(&self, sentinel: usize) -> Option<usize> {
        let reply = self.sentinels[sentinel].ask(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER_NAME]).await.ok()?;
        let (_, port): (String, u16) = redis::from_redis_value(reply).ok()?;
        Some(self.server_at(port))
    }

    /// Kills a server, as a crash would.
    pub async fn kill(&mut self, server: usize) {
        self.servers[server].kill().await;
    }

    /// Waits until another server than `from` is a master by its own word: answers which, and when that was seen.
    pub async fn promoted(&self, from: usize) -> (usize, Instant) {
        let mut promoted = None;
        until("another server is promoted", async || {
            for (n, server) in self.servers.iter().enumerate() {
                if n != from && server.is_up() && is_master(server.port()).await {
                    promoted = Some((n, Instant::now()));
                }
            }
            promoted.is_some()
        })
        .await;
        promoted.expect("it was waited for")
    }

    /// Waits until every sentinel that is up names this server as the master.
    pub async fn agreed_on(&self, server: usize) {
        for n in 0..self.sentinels.len() {
            if self.sentinels[n].is_up() {
                until("the sentinels agree", async || self.master_by(n).await == Some(server)).await;
            }
        }
    }
}

/// A sentinel that watches what answers on `master`, under [`MASTER_NAME`].
pub async fn sentinel(program: &str, master: u16, shape: &Shape) -> Server {
    let mut lines = vec![
        format!("sentinel monitor {MASTER_NAME} 127.0.0.1 {master} {QUORUM}"),
        format!("sentinel down-after-milliseconds {MASTER_NAME} {}", shape.down_after_ms),
        format!("sentinel failover-timeout {MASTER_NAME} {}", shape.down_after_ms * 3),
        format!("sentinel parallel-syncs {MASTER_NAME} 1"),
    ];
    if let Some(password) = &shape.password {
        lines.extend([format!("requirepass {password}"), format!("sentinel sentinel-pass {password}")]);
    }
    let text = lines.join("\n") + "\n";
    let setup = || Setup {
        options: vec!["--sentinel".into()],
        files: vec![("sentinel.conf", text.clone())],
        config_file: Some("sentinel.conf"),
        password: shape.password.clone(),
    };
    Server::start_as(program, setup).await
}

/// Whether what answers on the port is a master by its own word.
pub async fn is_master(port: u16) -> bool {
    match ask_at(port, None, &["ROLE"]).await {
        Ok(Value::Array(parts)) => parts.first().is_some_and(|role| *role == Value::BulkString(b"master".to_vec())),
        _ => false,
    }
}

/// Time a dead master may take to be replaced: missed by the sentinels, agreed upon, a replica promoted.
pub fn failover_max(shape: &Shape) -> Duration {
    Duration::from_millis(u64::from(shape.down_after_ms) * 4) + Duration::from_secs(5)
}
