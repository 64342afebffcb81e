//! The store over a Redis server. Modules in reading order: names of keys, endpoints, connections, which server serves
//! what, scripts, replies; then one a concern of the [`Store`] trait.

pub mod keys;

mod endpoint;
mod tls;

mod failure;
mod reply;

mod connection;
mod hash_slot;
mod link;
mod nodes;
mod pipe;
mod pooled;
mod scripts;
mod wire;

mod board;
mod chains;
mod channels;
mod commons;
mod dead_letters;
mod decisions;
mod deleting;
mod exclusive;
mod groups;
mod history;
mod inbox;
mod inspect;
mod layouts;
mod reader;
mod roster;
mod settle;
mod upkeep;
mod writer;

#[doc(hidden)]
pub mod bench;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use redis::Value;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::{
    Appended, Backlog, Bucket, DeadLetterQuery, Decision, Disposal, Due, DueIndex, EntryId, GroupSpec, Held, Inbox, Keeping, Kept,
    NewEvent, Noted, Partition, PartitionState, Reader, Reaped, Restored, Search, Searched, Settled, Standing, StartFrom, Store,
    StoreEvent, StoreStatus, StoredDeadLetter, StreamLayout, Swept, Topology, Transient, Waker,
};
use crate::engine::env::{Env, lock};
use crate::engine::error::{Code, Error, Result};
use crate::engine::log::along;
use connection::Settings;
pub use endpoint::Endpoint;
use keys::Keys;
use link::Link;
use nodes::{Nodes, Place};
use pooled::Pooled;
use tls::Tls;
pub use tls::TlsOptions;

/// Where the server is, or the servers are.
#[derive(Clone)]
pub enum Location {
    /// One server.
    Server(Endpoint),
    /// The master that Sentinels name.
    Sentinel {
        /// Its name in their configuration.
        master_name: String,
        /// Some of them; they name the others.
        nodes: Vec<Endpoint>,
        /// ACL user of the Sentinels themselves.
        username: Option<String>,
        /// Its password.
        password: Option<String>,
    },
    /// Redis Cluster.
    Cluster {
        /// Some of its nodes; they name the others.
        nodes: Vec<Endpoint>,
        /// Whether what need not be current is read from replicas.
        read_from_replicas: bool,
        /// Whether opening waits until the cluster serves all slots.
        enable_ready_check: bool,
    },
}

/// What a publish waits for beyond the server's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Durability {
    /// So many replicas have it.
    pub wait_replicas: u32,
    /// It is on the disk of the server, and of so many replicas.
    pub fsync: bool,
    /// Longest wait.
    pub wait_timeout: Duration,
}

/// How to reach Redis and how much to ask of it at once.
#[derive(Clone)]
pub struct RedisStoreConfig {
    /// Where it is.
    pub location: Location,
    /// ACL user.
    pub username: Option<String>,
    /// Its password.
    pub password: Option<String>,
    /// Database number; 0 in a cluster.
    pub db: u32,
    /// Encryption, of the Sentinels' connections too.
    pub tls: Option<TlsOptions>,
    /// What every key starts with.
    pub key_prefix: String,
    /// `deadLetterQueue.keyPattern`.
    pub dead_letter_pattern: Option<String>,
    /// Longest time to connect.
    pub connect_timeout: Duration,
    /// Longest time to wait for a reply, and for the server to come back.
    pub command_timeout: Duration,
    /// Connections to a server beside those of readers, at least 2.
    pub pool_size: usize,
    /// Most commands a pipeline.
    pub pipeline_size: usize,
    /// What a publish waits for.
    pub durability: Option<Durability>,
}

/// How often the server is asked for its time when it is connected to.
const CLOCK_LOOKS: usize = 4;
/// Clocks drift apart by no more than one part of so many.
const DRIFT: u32 = 10_000;
/// Connections that are written on; at most half of the pool, more do not make one server faster.
const WRITERS_MAX: usize = 4;
/// First version that can wait for its disk: <https://redis.io/docs/latest/commands/waitaof/>.
const FSYNC_MIN: (u32, u32) = (7, 2);

/// What all parts of the store use.
struct Shared {
    env: Env,
    link: Arc<Link>,
    keys: Keys,
    control: Arc<Pooled>,
    pool: Vec<Arc<Pooled>>,
    /// Where what need not be current is read, if not where it is written.
    replicas: Option<Pooled>,
    places: usize,
    /// When the server's clock was read, what it said, ms, and by how much that may be wrong: from there on time is counted by a clock
    /// that nobody sets.
    server_time: std::sync::Mutex<Option<(Instant, u64, Duration)>>,
    leases: std::sync::Mutex<upkeep::Leases>,
    layouts: Arc<layouts::Layouts>,
    reaps: upkeep::Reaps,
    channels: channels::Channels,
}

impl Shared {
    /// The connections for commands of `bucket`.
    fn at(&self, bucket: Bucket) -> &Pooled {
        &self.pool[usize::from(bucket.0) % self.pool.len()]
    }

    /// The connections for settling in `bucket`: others than for the rest where there are several.
    fn settler(&self, bucket: Bucket) -> &Pooled {
        &self.pool[(usize::from(bucket.0) + 1) % self.pool.len()]
    }

    fn now_ms(&self) -> u64 {
        match *lock(&self.server_time) {
            Some((at, ms, _)) => ms.saturating_add(u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX)),
            None => self.env.now_ms(),
        }
    }

    /// See `Commons::compare_clocks`.
    async fn learn_time(&self) -> Result<()> {
        let sent = Instant::now();
        let time = self.control.run(&[redis::cmd("TIME")]).await?.into_iter().next().unwrap_or_default();
        self.compare_clocks(sent, time).map(drop)
    }

    /// Takes the server's clock from a reply to TIME sent at `sent`. Answers its time, ms.
    fn compare_clocks(&self, sent: Instant, time: Value) -> Result<u64> {
        let server = reply::time_ms(time)?;
        let mut known = lock(&self.server_time);
        let (at, doubt) = (sent + sent.elapsed() / 2, sent.elapsed() / 2);
        // A reply that took long says little: it counts where it says more than what is known, or that the clock was set.
        let is_better = known.is_none_or(|(known_at, ms, known_doubt)| {
            let age = at.saturating_duration_since(known_at);
            let known_doubt = known_doubt + age / DRIFT;
            let expected_ms = ms.saturating_add(u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
            doubt <= known_doubt || u128::from(expected_ms.abs_diff(server)) > (doubt + known_doubt).as_millis() + 1
        });
        if is_better {
            *known = Some((at, server, doubt));
        }
        Ok(server)
    }

    fn utilization(&self) -> f64 {
        let in_flight = self.link.in_flight.load(Ordering::Relaxed);
        #[allow(clippy::cast_precision_loss)] // counts
        let share = in_flight as f64 / self.places as f64;
        (share * 100.0).min(100.0)
    }

    /// Whether all servers are such as the bus needs.
    async fn check_servers(&self, durability: Option<Durability>) -> Result<()> {
        let mut info = redis::cmd("INFO");
        info.arg("server");
        let map = self.link.nodes.map();
        let (mut answered, mut away) = (false, None);
        for node in map.masters() {
            let replies = match self.control.run_on(node, std::slice::from_ref(&info)).await {
                Ok(replies) => replies,
                // In a cluster one may be away: who takes its place is as the others are.
                Err(error) if error.code == Code::Connection && map.masters().count() > 1 => {
                    away = Some(error);
                    continue;
                }
                Err(error) => return Err(error),
            };
            answered = true;
            let info = reply::text(replies.into_iter().next().unwrap_or_default())?;
            if let Some(error) = self.link.target(node).unsupported(&info) {
                return Err(error);
            }
            let Some(durability) = durability else { continue };
            let version = connection::version(&info);
            if durability.fsync && connection::parsed(version) < FSYNC_MIN {
                let problem = format!(
                    "needs WAITAOF, which the server at {node} does not have: it is version {version}, 7.2 or newer is needed; use \
                     durability.waitReplicas, or `appendfsync always` on the server"
                );
                return Err(Error::config("durability.fsync", problem).with("version", version));
            }
            // Whether the user may is to be found out now, not with the first event.
            let probe = [writer::durable::probe(durability)];
            if let Some(Value::ServerError(error)) = self.control.run_on(node, &probe).await?.first()
                && error.code() == "NOPERM"
            {
                return Err(reply::server_error(error));
            }
        }
        if answered { Ok(()) } else { away.map_or(Ok(()), Err) }
    }

    /// Waits until the cluster serves all slots, as long as connecting may take.
    async fn wait_until_ready(&self) -> Result<()> {
        let deadline = Instant::now() + self.link.settings.connect_timeout;
        loop {
            let looked = self.link.nodes.refresh(&self.link.nodes.map()).await;
            if self.link.nodes.is_ready() {
                return Ok(());
            }
            if Instant::now() >= deadline {
                looked?;
                let message = "the Redis Cluster does not serve all slots (CLUSTER INFO says why); \
                               with redis.cluster.options.enableReadyCheck: false that is not waited for";
                return Err(Error::new(Code::Connection, message));
            }
        }
    }

    /// Writes the layout's version once, and refuses another.
    async fn check_layout(&self) -> Result<()> {
        let ours = format!(r#"{{"version":{},"buckets":{}}}"#, keys::LAYOUT_VERSION, super::BUCKETS);
        let mut set = redis::cmd("SET");
        set.arg(self.keys.global("layout")).arg(&ours).arg("NX").arg("GET");
        let found = self.control.query(set).await?;
        if found != Value::Nil {
            let found = reply::text(found)?;
            if found != ours {
                return Err(Error::new(
                    Code::Layout,
                    format!(
                        "the keys under '{}' have layout {found}, this version writes {ours}; use another redis.keyPrefix, or the version of the package that wrote them",
                        self.keys.global("")
                    ),
                ));
            }
        }
        Ok(())
    }
}

/// [`Store`] over Redis.
pub struct RedisStore {
    shared: Arc<Shared>,
    writers: std::sync::Mutex<Option<Vec<mpsc::UnboundedSender<writer::Request>>>>,
    writer_count: usize,
    settings: RedisStoreConfig,
    tasks: std::sync::Mutex<Vec<tokio::task::JoinHandle<()>>>,
    /// Calls of `append` whose events are not settled yet, whether somebody waits for them or not.
    unanswered: Arc<AtomicUsize>,
}

impl RedisStore {
    /// A store that is not connected yet.
    ///
    /// # Errors
    /// `ERR_INVALID_CONFIG` where a certificate or key cannot be used.
    pub fn new(config: RedisStoreConfig, env: Env) -> Result<Arc<Self>> {
        let settings = Arc::new(Settings {
            username: config.username.clone(),
            password: config.password.clone(),
            db: config.db,
            tls: config.tls.as_ref().map(Tls::new).transpose()?,
            connect_timeout: config.connect_timeout,
            command_timeout: config.command_timeout,
        });
        let place = match &config.location {
            Location::Server(endpoint) => Place::Server(endpoint.clone()),
            Location::Sentinel { master_name, nodes, username, password } => Place::Sentinel {
                master_name: master_name.clone(),
                nodes: nodes.clone(),
                settings: Arc::new(Settings {
                    username: username.clone(),
                    password: password.clone(),
                    db: 0,
                    ..Settings::clone(&settings)
                }),
            },
            Location::Cluster { nodes, .. } => Place::Cluster(nodes.clone()),
        };
        let link = Arc::new(Link::new(settings.clone(), Nodes::new(place, settings)));
        let writer_count = (config.pool_size / 2).clamp(1, WRITERS_MAX);
        let timeout = config.command_timeout;
        let pool: Vec<_> = (0..config.pool_size.saturating_sub(writer_count).clamp(1, usize::from(super::BUCKETS)))
            .map(|_| Arc::new(Pooled::new(link.clone(), timeout)))
            .collect();
        let from_replicas = matches!(config.location, Location::Cluster { read_from_replicas: true, .. });
        let shared = Arc::new(Shared {
            env,
            control: pool[0].clone(),
            places: config.pool_size * config.pipeline_size,
            pool,
            replicas: from_replicas.then(|| Pooled::of_replicas(link.clone(), timeout)),
            keys: Keys::new(&config.key_prefix, config.dead_letter_pattern.as_deref()),
            link,
            server_time: std::sync::Mutex::default(),
            leases: std::sync::Mutex::default(),
            layouts: Arc::default(),
            reaps: upkeep::Reaps::default(),
            channels: channels::Channels::default(),
        });
        Ok(Arc::new(Self {
            shared,
            writers: std::sync::Mutex::default(),
            writer_count,
            settings: config,
            tasks: std::sync::Mutex::default(),
            unanswered: Arc::default(),
        }))
    }

    /// A task for each connection that is written on; in a cluster one for each bucket, as each may be with another
    /// server. They share connections.
    fn start_writers(&self) -> Vec<mpsc::UnboundedSender<writer::Request>> {
        let shared = &self.shared;
        let opener: writer::Opener = {
            let shared = shared.clone();
            Arc::new(move |partition| {
                let shared = shared.clone();
                Box::pin(async move { shared.open_partition(&partition).await })
            })
        };
        let roomer: writer::Roomer = {
            let shared = shared.clone();
            Arc::new(move |partition, length_max, count| {
                let shared = shared.clone();
                Box::pin(async move { shared.make_room(&partition, length_max, count).await })
            })
        };
        let buckets = if shared.link.nodes.is_cluster() { usize::from(super::BUCKETS) } else { self.writer_count };
        // Waits queue behind one another on a connection.
        let waits = u32::try_from(buckets.div_ceil(self.writer_count)).unwrap_or(u32::MAX).saturating_mul(writer::WAITS_MAX);
        let wait = self.settings.durability.map_or(Duration::ZERO, |durability| durability.wait_timeout);
        let reply_timeout = self.settings.command_timeout + wait.saturating_mul(waits);
        let pool: Vec<_> = (0..self.writer_count).map(|_| Arc::new(Pooled::new(shared.link.clone(), reply_timeout))).collect();
        let writers = Bucket::all().take(buckets).map(|bucket| {
            let settings = writer::Settings {
                instance: shared.env.hex(16),
                pipeline_size: self.settings.pipeline_size,
                timeout: self.settings.command_timeout,
                durability: self.settings.durability,
                slot: Keys::slot(bucket),
            };
            let makers = writer::Makers { opener: opener.clone(), roomer: roomer.clone(), layouts: shared.layouts.clone() };
            let pooled = pool[usize::from(bucket.0) % pool.len()].clone();
            writer::Writer::start(shared.link.clone(), pooled, shared.keys.clone(), settings, makers)
        });
        writers.collect()
    }
}

#[async_trait]
impl Store for RedisStore {
    async fn open(&self) -> Result<()> {
        let shared = &self.shared;
        shared.link.nodes.refresh(&shared.link.nodes.map()).await?;
        if matches!(self.settings.location, Location::Cluster { enable_ready_check: true, .. }) {
            shared.wait_until_ready().await?;
        }
        // The quickest of some answers says most.
        for _ in 0..CLOCK_LOOKS {
            shared.learn_time().await?;
        }
        shared.check_servers(self.settings.durability).await?;
        shared.check_layout().await?;
        *lock(&self.writers) = Some(self.start_writers());
        let mut tasks = lock(&self.tasks);
        tasks.push(tokio::spawn(along(shared.clone().listen())));
        if !shared.link.nodes.is_fixed() {
            let link = shared.link.clone();
            tasks.push(tokio::spawn(along(async move { link.nodes.watch().await })));
        }
        Ok(())
    }

    async fn close(&self, deadline: Duration) {
        lock(&self.writers).take();
        // What was accepted is written first, as far as time allows.
        let written = async {
            while self.unanswered.load(Ordering::Acquire) > 0 {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        let _ = tokio::time::timeout(deadline, written).await;
        self.shared.link.close();
        for task in lock(&self.tasks).drain(..) {
            task.abort();
        }
        let _ = tokio::time::timeout(deadline, self.shared.link.nodes.close()).await;
        self.shared.pool.iter().map(AsRef::as_ref).chain(&self.shared.replicas).for_each(Pooled::close);
    }

    fn watch(&self, listener: Arc<dyn Fn(StoreEvent) + Send + Sync>) {
        self.shared.link.watch(listener);
    }

    fn now_ms(&self) -> u64 {
        self.shared.now_ms()
    }

    fn utilization(&self) -> f64 {
        self.shared.utilization()
    }

    async fn status(&self) -> StoreStatus {
        self.shared.status().await
    }

    async fn topology(&self) -> Result<Topology> {
        self.shared.topology().await
    }

    async fn layout(&self, event_type: &str) -> Result<StreamLayout> {
        self.shared.layout(event_type).await
    }

    async fn create_stream(&self, event_type: &str, layout: &StreamLayout) -> Result<()> {
        self.shared.create_stream(event_type, layout).await
    }

    async fn open_partition(&self, partition: &Partition) -> Result<()> {
        self.shared.open_partition(partition).await
    }

    async fn join(&self, spec: &GroupSpec, start: StartFrom, consumer: &str) -> Result<Vec<Partition>> {
        self.shared.join(spec, start, consumer).await
    }

    async fn leave(&self, spec: &GroupSpec, consumer: &str) -> Result<()> {
        self.shared.leave(spec, consumer).await
    }

    async fn delete_group(&self, pattern: &str, group: &str) -> Result<bool> {
        self.shared.delete_group(pattern, group).await
    }

    async fn end_groups(&self) -> Result<Vec<GroupSpec>> {
        self.shared.end_groups().await
    }

    async fn unattended(&self) -> Result<Vec<GroupSpec>> {
        self.shared.unattended().await
    }

    async fn restore_group(&self, partition: &Partition, group: &str, after: EntryId, seen: EntryId) -> Result<Restored> {
        self.shared.restore_group(partition, group, after, seen).await
    }

    fn append(&self, bucket: Bucket, events: Vec<NewEvent>) -> BoxFuture<'static, Vec<Result<Appended>>> {
        let count = events.len();
        let (done, results) = oneshot::channel();
        let request = writer::Request { bucket, events, answer: writer::Answer::new(done, &self.unanswered) };
        if let Some(writers) = &*lock(&self.writers) {
            // A writer that is gone drops the request, which is an answer too.
            let _ = writers[usize::from(bucket.0) % writers.len()].send(request);
        }
        Box::pin(async move {
            let results = results.await.ok();
            results.unwrap_or_else(|| (0..count).map(|_| Err(Error::closed("the bus"))).collect())
        })
    }

    fn reader(&self, group: &str) -> (Box<dyn Reader>, Arc<dyn Waker>) {
        reader::RedisReader::open(self.shared.link.clone(), self.shared.keys.clone(), group, self.shared.control.clone())
    }

    async fn settle(&self, bucket: Bucket, group: &str, consumer: &str, entries: Vec<(Held, Disposal)>) -> Result<Vec<Settled>> {
        self.shared.settle(bucket, group, consumer, entries).await
    }

    async fn due(&self, bucket: Bucket, group: &str) -> Result<DueIndex> {
        self.shared.due(bucket, group).await
    }

    async fn claim_due(&self, partition: &Partition, group: &str, consumer: &str, max: usize) -> Result<Due> {
        self.shared.claim_due(partition, group, consumer, max).await
    }

    async fn renew(&self, consumer: &str, buckets: &[Bucket], lease: Duration) -> Result<bool> {
        self.shared.renew(consumer, buckets, lease).await
    }

    async fn release(&self, consumer: &str, buckets: &[Bucket]) -> Result<()> {
        self.shared.release(consumer, buckets).await
    }

    async fn pending(&self, partition: &Partition, group: &str, consumer: &str) -> Result<Vec<(EntryId, u32)>> {
        self.shared.pending(partition, group, consumer).await
    }

    async fn remove_consumer(&self, partition: &Partition, group: &str, consumer: &str) -> Result<bool> {
        self.shared.remove_consumer(partition, group, consumer).await
    }

    async fn look_after(&self, bucket: Bucket, holder: &str, lease: Duration) -> Result<bool> {
        self.shared.look_after(bucket, holder, lease).await
    }

    async fn reap(&self, bucket: Bucket, max_crashes: u32) -> Result<Reaped> {
        self.shared.reap(bucket, max_crashes).await
    }

    async fn move_delayed(&self, bucket: Bucket) -> Result<(u64, Option<u64>)> {
        self.shared.move_delayed(bucket).await
    }

    async fn sweep(&self, partition: &Partition, keeping: &Keeping) -> Result<Swept> {
        self.shared.sweep(partition, keeping).await
    }

    async fn inspect(&self, partition: &Partition) -> Result<Option<PartitionState>> {
        self.shared.inspect(partition).await
    }

    async fn backlogs(&self, reads: &[(Partition, BTreeSet<String>)]) -> Result<Vec<Vec<Backlog>>> {
        self.shared.backlogs(reads).await
    }

    async fn added(&self, partitions: &[Partition]) -> Result<Vec<u64>> {
        self.shared.added(partitions).await
    }

    async fn dead_letters(
        &self,
        query: &DeadLetterQuery,
        limit: usize,
        cursor: Option<&str>,
    ) -> Result<(Vec<StoredDeadLetter>, Option<String>)> {
        self.shared.dead_letters(query, limit, cursor).await
    }

    async fn count_dead_letters(&self, query: &DeadLetterQuery) -> Result<u64> {
        self.shared.count_dead_letters(query).await
    }

    async fn redrive(&self, query: &DeadLetterQuery) -> Result<u64> {
        self.shared.redrive(query).await
    }

    async fn purge(&self, query: &DeadLetterQuery) -> Result<u64> {
        self.shared.purge(query).await
    }

    async fn history(&self, partition: &Partition, after: EntryId, to: EntryId, count: usize) -> Result<Vec<Kept>> {
        self.shared.history(partition, after, to, count).await
    }

    async fn last_entry(&self, partition: &Partition) -> Result<Option<EntryId>> {
        self.shared.last_entry(partition).await
    }

    async fn noted(&self, partition: &Partition, event_id: &str) -> Result<Noted> {
        self.shared.noted(partition, event_id).await
    }

    async fn search(&self, partition: &Partition, search: &Search) -> Result<Searched> {
        self.shared.search(partition, search).await
    }

    async fn search_dead_letters(
        &self,
        partition: &Partition,
        event_id: &str,
        from: EntryId,
    ) -> Result<(Vec<StoredDeadLetter>, Option<EntryId>, usize)> {
        self.shared.search_dead_letters(partition, event_id, from).await
    }

    async fn standing(&self, partition: &Partition, entries: &[(String, EntryId)]) -> Result<Vec<(String, Standing)>> {
        self.shared.standing(partition, entries).await
    }

    async fn post(&self, inbox: &str, messages: Vec<String>) -> Result<()> {
        self.shared.post(inbox, messages).await
    }

    fn inbox(&self, name: &str) -> Box<dyn Inbox> {
        inbox::RedisInbox::open(self.shared.link.clone(), &self.shared.keys, name, self.shared.control.clone())
    }

    async fn remove_inbox(&self, name: &str) -> Result<()> {
        self.shared.remove_inbox(name).await
    }

    async fn decisions(&self, partition: &Partition, entry: EntryId) -> Result<Vec<(String, Decision)>> {
        self.shared.decisions(partition, entry).await
    }

    fn cast(&self, bucket: Bucket, events: Vec<Transient>) -> BoxFuture<'static, Result<()>> {
        let shared = self.shared.clone();
        Box::pin(async move { shared.cast(bucket, events).await })
    }

    async fn hear(&self, buckets: &BTreeSet<Bucket>) -> Result<()> {
        self.shared.hear(buckets).await
    }
}
