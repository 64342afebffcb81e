//! The user of docs/reliability.md: a bus lives its whole life with no more permissions than are written there.

use std::time::Duration;

use ossa::engine::consume::Verdict;
use ossa::engine::store::redis::{Durability, Location, RedisStoreConfig};
use ossa::engine::store::{
    ChainBatch, ChainRecord, DeadLetterQuery, Errand, Listing, News, Partition, Rate, Shelf, Sighting, Store, Turn, chain_bucket,
};
use redis::Value;
use serde_json::json;

use crate::reach::{bus, by_sentinels, carries_an_event, in_cluster, open};
use crate::support::cluster::{Cluster, Shape};
use crate::support::events::partition;
use crate::support::harness::{TestBus, failed, ms};
use crate::support::redis_store::config;
use crate::support::sentinel::{self, Watched};
use crate::support::server::{DURABLE, Server};
use crate::support::wait::until;

on_every_server!(
    a_bus_needs_no_more_than_is_written_on_a_single_server,
    a_bus_needs_no_more_than_is_written_in_a_cluster,
    a_bus_needs_no_more_than_is_written_behind_sentinels,
    a_user_of_the_sentinels_needs_no_more_than_is_written,
    publishes_that_wait_for_replicas_need_no_more_than_is_written,
    publishes_that_wait_for_the_disk_need_no_more_than_is_written,
);

const DOCUMENT: &str = include_str!("../../docs/reliability.md");
/// What the keys of the document begin with.
const PREFIX: &str = "ossa:eventbus";
const USER: &str = "ossa";
const PASSWORD: &str = "password";

/// What a user is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum For {
    /// A single server.
    Server,
    /// A server of a cluster or behind Sentinels, or one whose replicas are waited for.
    Topology,
    /// A server whose disk is waited for.
    Disk,
    /// The Sentinels themselves.
    Sentinels,
}

/// The rules of the document's section on permissions: those of its `ACL SETUSER`, those of the block behind it, which a
/// cluster, Sentinel or durability need, and those for Sentinels.
fn rules(purpose: For) -> Vec<&'static str> {
    let section = DOCUMENT.split("### Permissions").nth(1).expect("the document has the section");
    let section = section.split("\n#").next().expect("the first part is there");
    let blocks: Vec<&str> = section.split("```").skip(1).step_by(2).collect();
    for block in [blocks[0], blocks[2]] {
        assert!(block.trim().starts_with("ACL SETUSER ossa on >password"), "{block}");
    }
    assert!(section.contains("with `durability.fsync` it is `+waitaof`"), "{section}");
    let blocks = match purpose {
        For::Server => &blocks[..1],
        For::Topology | For::Disk => &blocks[..2],
        For::Sentinels => &blocks[2..],
    };
    let disk: &[&str] = if purpose == For::Disk { &["+waitaof"] } else { &[] };
    // A language may be named behind the opening marks, and a block may begin as the first one does.
    let words = blocks.iter().flat_map(|block| block.split_once('\n').map_or("", |(_, text)| text).split_whitespace());
    // It is in place of WAIT: a user who waits for the disk alone needs but that one.
    let words = words.filter(|word| match *word {
        "ACL" | "SETUSER" | "ossa" => false,
        "+wait" => purpose != For::Disk,
        _ => true,
    });
    words.chain(disk.iter().copied()).collect()
}

/// Makes the user.
async fn set_user(server: &Server, purpose: For) {
    for rule in rules(purpose) {
        let set = server.ask(&["ACL", "SETUSER", USER, rule]).await;
        // A server that does not know the command yet cannot be told of it, and needs not.
        assert!(set.is_ok() || !is_known(server, rule).await, "{rule}: {set:?}");
    }
    server.text(&["ACL", "LOG", "RESET"]).await;
}

async fn is_known(server: &Server, rule: &str) -> bool {
    let command = rule.trim_start_matches('+');
    server.ask(&["COMMAND", "INFO", command]).await.expect("answered") != Value::Array(vec![Value::Nil])
}

/// The user was refused nothing but what the document says does no harm.
async fn was_refused_nothing(server: &Server) {
    let Ok(Value::Array(log)) = server.ask(&["ACL", "LOG"]).await else { panic!("there is a log") };
    for entry in log {
        let Value::Array(fields) = entry else { panic!("{entry:?}") };
        let texts: Vec<String> = fields.into_iter().map(|field| redis::from_redis_value(field).unwrap_or_default()).collect();
        let object = texts.chunks(2).find(|field| field[0] == "object").map(|field| field[1].as_str());
        assert_eq!(object, Some("client|setinfo"), "{texts:?}");
    }
}

fn as_user(config: RedisStoreConfig) -> RedisStoreConfig {
    RedisStoreConfig { username: Some(USER.into()), password: Some(PASSWORD.into()), key_prefix: PREFIX.into(), ..config }
}

/// All that a bus does in its life.
async fn lives(config: RedisStoreConfig) {
    let bus = bus(config.clone()).await;
    let id = bus.subscribe("life.*", json!({ "group": "g", "retry": { "maxAttempts": 1, "initialDelay": 10 } })).await;
    bus.publish_many("life.one", 3).await;
    let calls = bus.host.next_many(3).await;
    bus.done(&calls[0]);
    bus.settle(&calls[1], Verdict::HandBack);
    bus.settle(&calls[2], failed("boom"));
    for again in bus.host.next_many(2).await {
        bus.settle(&again, failed("boom"));
    }
    // The one that was handed back has its retry still before it.
    let last = bus.host.next().await;
    bus.settle(&last, failed("boom"));
    until("the dead letters are there", async || bus.dead_letters().await.len() == 2).await;

    bus.publish_with("life.one", "delayed", &json!({ "delayMs": 20 })).await;
    bus.publish_with("life.two", "keyed", &json!({ "idempotencyKey": "k" })).await;
    bus.publish_with("life.two", "keyed", &json!({ "idempotencyKey": "k" })).await;
    bus.publish_with("life.two", "urgent", &json!({ "priority": "critical" })).await;
    bus.all_done(&bus.host.next_many(3).await);
    bus.publish_with("life.two", "now", &json!({ "transient": true })).await;

    let everything = DeadLetterQuery { group: Some("g".into()), ..DeadLetterQuery::default() };
    assert_eq!(bus.store.count_dead_letters(&everything).await.expect("counted"), 2);
    assert_eq!(bus.store.redrive(&everything).await.expect("put back"), 2);
    for redriven in bus.host.next_many(3).await {
        bus.done(&redriven);
    }
    assert_eq!(bus.store.purge(&everything).await.expect("purged"), 0);
    ordered(&bus).await;
    until("all is settled", async || bus.in_flight() == 0).await;
    bus.bus.unsubscribe(id, ms(1000)).await.expect("unsubscribed");
    assert!(bus.partition("life.one").await.length > 0);
    bus.disconnect(ms(1000)).await;
    looks_after(config).await;
}

/// One partition at a time, one event a key at a time.
async fn ordered(bus: &TestBus) {
    bus.subscribe("line", json!({ "group": "o", "ordered": true })).await;
    for text in ["1", "2"] {
        bus.publish_with("line", text, &json!({ "partitionKey": "k" })).await;
    }
    for text in ["1", "2"] {
        let call = bus.host.next().await;
        assert_eq!(crate::support::harness::data(&call), text);
        bus.done(&call);
    }
}

/// What processes do beside their events.
async fn looks_after(config: RedisStoreConfig) {
    let store = open(config).await;
    let at: Partition = partition("life.one");
    // Another may look after it still: to be allowed to ask is enough.
    store.look_after(at.bucket(), "keeper", Duration::from_secs(5)).await.expect("asked");
    store.reap(at.bucket(), 3).await.expect("reaped");
    store.move_delayed(at.bucket()).await.expect("moved");
    store.sweep(&at, &crate::support::events::keeping()).await.expect("swept");
    store.end_groups().await.expect("ended");
    shares(&*store).await;
    assert!(store.delete_group("life.*", "g").await.expect("deleted"));
    assert!(store.status().await.connected);
    store.close(Duration::from_secs(2)).await;
}

/// What processes have in common beside their events.
async fn shares(store: &dyn Store) {
    for (before, after) in [(None, Some("text")), (Some("text"), None)] {
        assert!(store.put_document(Shelf::Routes, "r", before, after).await.expect("put"));
    }
    assert!(store.documents(Shelf::Routes, None).await.expect("read").expect("nothing is known").version > 0);
    assert_eq!(store.take_places("all", Rate { per_second: 1.0, burst: 1 }, 1).await.expect("taken").granted, 1);
    let seen = Sighting { message: "m".into(), at_ms: 1, place: "here".into(), life: Duration::from_secs(9) };
    assert_eq!(store.first_sightings(vec![seen]).await.expect("noted"), ["here"]);
    let record = ChainRecord { text: "text".into(), hash: "hash".into(), signature: Some("signature".into()) };
    let (counts, times) = ([("n".to_owned(), 1)].into(), [("last".to_owned(), 1)].into());
    store.append_records(&ChainBatch { chain: "c".into(), first: 1, records: vec![record], counts, times }).await.expect("appended");
    let bucket = chain_bucket("c");
    assert_eq!(store.chains(bucket).await.expect("read").heads.len(), 1);
    assert_eq!(store.counts().await.expect("read").0.len(), 1);
    assert_eq!(store.trim_records(bucket, u64::MAX, 0).await.expect("trimmed"), (1, false));
    let members = ["member".to_owned()];
    store.attend(&members, Duration::from_secs(9)).await.expect("noted");
    assert_eq!(store.attending().await.expect("read"), members);
    store.unattend(&members).await.expect("gone");
    lists(store).await;
}

/// The register of services.
async fn lists(store: &dyn Store) {
    let (names, life) = (["a".to_owned(), "b".to_owned()], Some(Duration::from_secs(9)));
    let listing = Listing { definition: "definition".into(), health: "health".into() };
    for name in &names {
        assert!(store.put_listing(name, None, Some(&listing), Turn::Registered, life).await.expect("put"));
    }
    assert!(store.renew_listings(&names[1..], Duration::ZERO).await.expect("renewed").is_empty());
    for errand in [Errand::Probe, Errand::Contracts { bus: 7 }] {
        store.plan_errands(errand, &names, Duration::ZERO).await.expect("planned");
    }
    let mut known = None;
    until("one of them ended", async || {
        let read = store.news(known).await.expect("read");
        known = Some(read.place);
        matches!(&read.news, News::All(listings) if listings.len() == 1)
            || matches!(&read.news, News::Since(changes) if changes.iter().any(|change| change.turn == Turn::Expired))
    })
    .await;
    let (taken, _) = store.take_errands(Errand::Probe, 9, Duration::from_secs(9)).await.expect("taken");
    assert_eq!(taken.len(), 1);
    assert!(store.end_errand(Errand::Probe, &taken[0], None).await.expect("ended"));
    assert!(store.put_listing("a", Some(&listing), None, Turn::Unregistered, None).await.expect("put"));
    assert!(matches!(store.news(known).await.expect("read").news, News::Since(changes) if changes.len() == 1));
}

mod cases {
    use super::*;

    pub async fn a_bus_needs_no_more_than_is_written_on_a_single_server(program: &str) {
        let server = Server::start(program).await;
        set_user(&server, For::Server).await;
        lives(as_user(config(&server))).await;
        was_refused_nothing(&server).await;
    }

    pub async fn a_bus_needs_no_more_than_is_written_in_a_cluster(program: &str) {
        let cluster = Cluster::start(program, Shape::default()).await;
        for node in cluster.nodes() {
            set_user(node, For::Topology).await;
        }
        lives(as_user(in_cluster(&cluster.ports()))).await;
        for node in cluster.nodes() {
            was_refused_nothing(node).await;
        }
    }

    pub async fn a_bus_needs_no_more_than_is_written_behind_sentinels(program: &str) {
        let watched = Watched::start(program, &sentinel::Shape::default()).await;
        for server in &watched.servers {
            set_user(server, For::Topology).await;
        }
        lives(as_user(by_sentinels(&watched.sentinel_ports(), None))).await;
        for server in &watched.servers {
            was_refused_nothing(server).await;
        }
    }

    pub async fn publishes_that_wait_for_replicas_need_no_more_than_is_written(program: &str) {
        let watched = Watched::start(program, &sentinel::Shape::default()).await;
        set_user(&watched.servers[0], For::Topology).await;
        let durability = Some(crate::reach::replicated(1, 2000));
        lives(RedisStoreConfig { durability, ..as_user(config(&watched.servers[0])) }).await;
        was_refused_nothing(&watched.servers[0]).await;
    }

    pub async fn a_user_of_the_sentinels_needs_no_more_than_is_written(program: &str) {
        let mut watched = Watched::start(program, &sentinel::Shape::default()).await;
        for sentinel in &watched.sentinels {
            set_user(sentinel, For::Sentinels).await;
        }
        let mut config = by_sentinels(&watched.sentinel_ports()[..1], Some(PASSWORD));
        let Location::Sentinel { username, .. } = &mut config.location else { unreachable!("it is by sentinels") };
        *username = Some(USER.into());
        let store = open(config).await;
        carries_an_event(&store, "guarded").await;
        was_refused_nothing(&watched.sentinels[0]).await;
        // The others are known by what the one that was named said of them.
        watched.sentinels[0].kill().await;
        let others = &watched.sentinels[1..];
        let asks = async |sentinel: &Server| sentinel.text(&["CLIENT", "LIST"]).await.contains("user=ossa");
        until("another is asked", async || asks(&others[0]).await || asks(&others[1]).await).await;
        carries_an_event(&store, "guarded.still").await;
        store.close(ms(1000)).await;
        for sentinel in others {
            was_refused_nothing(sentinel).await;
        }
    }

    pub async fn publishes_that_wait_for_the_disk_need_no_more_than_is_written(program: &str) {
        let server = Server::start_with(program, DURABLE).await;
        if !is_known(&server, "+waitaof").await {
            return; // refused when the bus connects: `topologies::durability` has that
        }
        set_user(&server, For::Disk).await;
        let durability = Some(Durability { wait_replicas: 0, fsync: true, wait_timeout: Duration::from_secs(5) });
        lives(RedisStoreConfig { durability, ..as_user(config(&server)) }).await;
        was_refused_nothing(&server).await;
    }
}
