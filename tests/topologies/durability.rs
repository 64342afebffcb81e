//! Publishes that are resolved only when others, or the disk, have the event.

use std::time::{Duration, Instant};

use ossa::engine::error::{Code, Error};
use ossa::engine::store::redis::{Durability, RedisStoreConfig};
use ossa::engine::store::{Appended, Partition};

use crate::load::stored;
use crate::reach::{carries_an_event, open, refusal, replicated};
use crate::support::events::{event, events, publish};
use crate::support::harness::ms;
use crate::support::redis_store::config;
use crate::support::server::{DURABLE, Server, programs};
use crate::support::wait::until;

/// Longest wait for the replicas, ms.
const WAIT_MS: u64 = 500;
/// The same where they have it in the end, however slow the machine is.
const PATIENT_MS: u64 = 10_000;
/// What a slow machine may take beside it.
const MARGIN: Duration = Duration::from_secs(2);

on_every_server!(
    an_event_is_resolved_once_a_replica_has_it,
    a_replica_that_hangs_is_told_and_the_event_is_there_once,
    a_replica_that_is_gone_is_told_with_what_was_reached,
    one_wait_serves_a_whole_batch,
);

/// A master with a replica that follows it.
async fn pair(program: &str) -> (Server, Server) {
    let master = Server::start_with(program, &["--appendonly", "no", "--repl-diskless-sync-delay", "0"]).await;
    let port = master.port().to_string();
    let replica = Server::start_with(program, &["--replicaof", "127.0.0.1", &port]).await;
    until("the replica is known", async || master.text(&["INFO", "replication"]).await.contains("state=online")).await;
    master.text(&["SET", "followed", "1"]).await;
    // It has read what was there before, and takes what comes: only then it answers for it in time.
    let followed = redis::Value::BulkString(b"1".to_vec());
    until("the replica follows", async || replica.ask(&["GET", "followed"]).await.is_ok_and(|value| value == followed)).await;
    (master, replica)
}

fn waiting(master: &Server, replicas: u32, wait_ms: u64) -> RedisStoreConfig {
    let command_timeout = ms(2 * PATIENT_MS);
    RedisStoreConfig { durability: Some(replicated(replicas, wait_ms)), command_timeout, ..config(master) }
}

fn is_not_replicated(error: &Error, wanted: u32, reached: u32) {
    assert_eq!((error.code, error.retryable), (Code::NotReplicated, true), "{error}");
    let details = &error.details;
    assert_eq!((&details["waitReplicas"], &details["replicas"]), (&wanted.into(), &reached.into()), "{details:?}");
    assert_eq!(details["fsync"], false, "{details:?}");
    // It is on the master, whatever becomes of it.
    assert!(["stored", "maybeStored"].iter().any(|name| details.get(*name) == Some(&true.into())), "{details:?}");
}

/// Calls of a command so far.
async fn calls(server: &Server, command: &str) -> u64 {
    let stats = server.text(&["INFO", "commandstats"]).await;
    let line = stats.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")));
    line.and_then(|rest| rest.split(',').next()).map_or(0, |count| count.parse().expect("a number"))
}

mod cases {
    use super::*;

    pub async fn an_event_is_resolved_once_a_replica_has_it(program: &str) {
        let (master, replica) = pair(program).await;
        let store = open(waiting(&master, 1, PATIENT_MS)).await;
        let at = Partition::new("replicated", 0);
        store.open_partition(&at).await.expect("opened");
        for n in 0..50 {
            publish(&store, vec![event(&at, &n.to_string())]).await;
            let length = replica.ask(&["XLEN", &crate::reach::stream(&at)]).await.expect("answered");
            assert_eq!(length, redis::Value::Int(n + 1), "the replica has it before it is resolved");
        }
    }

    pub async fn a_replica_that_hangs_is_told_and_the_event_is_there_once(program: &str) {
        let (master, mut replica) = pair(program).await;
        let store = open(waiting(&master, 1, WAIT_MS)).await;
        let at = Partition::new("hangs", 0);
        store.open_partition(&at).await.expect("opened");
        publish(&store, vec![event(&at, "before")]).await;
        replica.pause().await;
        let start = Instant::now();
        let result = store.append(at.bucket(), vec![event(&at, "meanwhile")]).await.remove(0);
        is_not_replicated(&result.expect_err("nobody has it"), 1, 0);
        assert!(start.elapsed() >= ms(WAIT_MS) && start.elapsed() < ms(WAIT_MS) + MARGIN, "{:?}", start.elapsed());
        replica.resume().await;
        until("it is replicated again", async || {
            let id = format!("after-{:?}", start.elapsed());
            store.append(at.bucket(), vec![event(&at, &id)]).await.remove(0).is_ok()
        })
        .await;
        let there = stored(&store, &at).await;
        assert_eq!(there[..2], ["before", "meanwhile"]);
        assert_eq!(there.iter().filter(|id| *id == "meanwhile").count(), 1);
    }

    pub async fn a_replica_that_is_gone_is_told_with_what_was_reached(program: &str) {
        let (master, mut replica) = pair(program).await;
        let store = open(waiting(&master, 2, WAIT_MS)).await;
        let at = Partition::new("gone", 0);
        store.open_partition(&at).await.expect("opened");
        let one = async |id: &str| store.append(at.bucket(), vec![event(&at, id)]).await.remove(0);
        is_not_replicated(&one("one of two").await.expect_err("there is one"), 2, 1);
        replica.kill().await;
        is_not_replicated(&one("none of two").await.expect_err("there is none"), 2, 0);
        assert_eq!(stored(&store, &at).await, ["one of two", "none of two"]);
    }

    pub async fn one_wait_serves_a_whole_batch(program: &str) {
        const COUNT: usize = 2000;
        let (master, _replica) = pair(program).await;
        let store = open(waiting(&master, 1, PATIENT_MS)).await;
        let at = Partition::new("batch", 0);
        store.open_partition(&at).await.expect("opened");
        let before = calls(&master, "wait").await;
        for result in store.append(at.bucket(), events(&at, "e", COUNT)).await {
            assert_eq!(result.expect("replicated"), Appended::Stored);
        }
        let waits = calls(&master, "wait").await - before;
        let batches = (COUNT / config(&master).pipeline_size) as u64;
        assert!(waits >= 1 && waits <= batches * 2, "{waits} waits for {batches} batches");
    }
}

fn to_disk(server: &Server) -> RedisStoreConfig {
    let durability = Some(Durability { wait_replicas: 0, fsync: true, wait_timeout: ms(WAIT_MS * 4) });
    RedisStoreConfig { durability, ..config(server) }
}

/// Whether the server has WAITAOF (7.2).
async fn can_wait_for_its_disk(server: &Server) -> bool {
    let info = server.ask(&["COMMAND", "INFO", "WAITAOF"]).await.expect("answered");
    info != redis::Value::Array(vec![redis::Value::Nil])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_disk_is_waited_for_where_the_server_can() {
    for program in programs() {
        let mut server = Server::start_with(&program, DURABLE).await;
        if !can_wait_for_its_disk(&server).await {
            let error = refusal(to_disk(&server)).await;
            assert_eq!(error.code, Code::InvalidConfig, "{error}");
            assert!(error.message.contains("fsync") && error.message.contains("7.2"), "{error}");
            continue;
        }
        let store = open(to_disk(&server)).await;
        carries_an_event(&store, "disk").await;
        assert!(calls(&server, "waitaof").await > 0);
        let at = Partition::new("disk.kept", 0);
        store.open_partition(&at).await.expect("opened");
        publish(&store, events(&at, "e", 100)).await;
        server.restart().await;
        let store = open(config(&server)).await;
        assert_eq!(stored(&store, &at).await.len(), 100);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_does_not_write_to_disk_is_told() {
    for program in programs() {
        let server = Server::start(&program).await;
        if !can_wait_for_its_disk(&server).await {
            continue;
        }
        // Some servers refuse to wait for a file that they do not write: either way it is never a success.
        match crate::reach::try_open(to_disk(&server)).await {
            Err(error) => assert!(error.message.contains("appendonly"), "{error}"),
            Ok(store) => {
                let at = Partition::new("no.disk", 0);
                store.open_partition(&at).await.expect("opened");
                let result = store.append(at.bucket(), vec![event(&at, "e")]).await.remove(0);
                let error = result.expect_err("nothing was written to disk");
                assert_eq!(error.code, Code::NotReplicated, "{error}");
            }
        }
    }
}
