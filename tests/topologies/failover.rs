//! Masters of a cluster that die or hang under load.

use std::time::{Duration, Instant};

use ossa::engine::error::Code;
use ossa::engine::store::Partition;
use ossa::engine::store::redis::RedisStoreConfig;
use serde_json::json;

use crate::load::{Failover, Load, check, failure, nothing, stored};
use crate::reach::{bus, in_cluster, one_a_bucket, open, replicated, slot};
use crate::support::cluster::{Cluster, Shape};
use crate::support::harness::{handle_all, ms};
use crate::support::wait::until;

/// Longest time from a promotion until publishing goes on.
const RESUMED_MAX: Duration = Duration::from_secs(2);

on_every_server!(
    each_master_is_killed_under_load_and_only_the_failover_loses,
    events_that_a_replica_has_outlive_every_master,
    a_master_that_stands_still_is_left_for_its_replica,
    subscriptions_go_on_after_a_failover,
);

/// Waits out a failover: longer than any takes.
fn patient(cluster: &Cluster) -> RedisStoreConfig {
    RedisStoreConfig { command_timeout: Duration::from_secs(20), ..in_cluster(&cluster.ports()) }
}

/// The partitions on a master.
async fn on_master(cluster: &Cluster, parts: &[Partition], master: usize) -> Vec<Partition> {
    let mut theirs = Vec::new();
    for at in parts {
        if cluster.owner(slot(at)).await == master {
            theirs.push(at.clone());
        }
    }
    assert!(!theirs.is_empty(), "every master has buckets");
    theirs
}

mod cases {
    use super::*;

    pub async fn each_master_is_killed_under_load_and_only_the_failover_loses(program: &str) {
        let mut cluster = Cluster::start(program, Shape::default()).await;
        let store = open(patient(&cluster)).await;
        let parts = one_a_bucket(&store, "killed").await;
        let load = Load::start(&store, &parts);
        let mut failovers = Vec::new();
        for master in 0..3 {
            load.goes_on(&parts, Instant::now()).await;
            let theirs = on_master(&cluster, &parts, master).await;
            let killed = Instant::now();
            cluster.kill(master).await;
            let (_, promoted) = cluster.taken_over(slot(&theirs[0]), master).await;
            let resumed = load.goes_on(&theirs, promoted).await;
            println!("master {master}: replaced after {:?}, publishing {:?} later", promoted - killed, resumed - promoted);
            assert!(resumed - promoted < RESUMED_MAX, "{:?}", resumed - promoted);
            failovers.push(Failover { began: killed, ended: promoted });
            cluster.restart(master).await;
            cluster.settles().await;
        }
        load.goes_on(&parts, Instant::now()).await;
        let sent = load.end().await;
        assert!(sent.len() > 3000, "{}", sent.len());
        assert!(failure(&sent).is_none(), "another master was there in time: {:?}", failure(&sent));
        let lost = check(&open(patient(&cluster)).await, &sent, |one| failovers.iter().any(|failover| failover.may_lose(one))).await;
        println!("{lost} of {} lost by failovers", sent.len());
    }

    pub async fn events_that_a_replica_has_outlive_every_master(program: &str) {
        let mut cluster = Cluster::start(program, Shape::default()).await;
        let config = RedisStoreConfig { durability: Some(replicated(1, 1000)), ..patient(&cluster) };
        let store = open(config.clone()).await;
        let parts = one_a_bucket(&store, "durable").await;
        let load = Load::start(&store, &parts);
        for master in 0..3 {
            load.goes_on(&parts, Instant::now()).await;
            let theirs = on_master(&cluster, &parts, master).await;
            cluster.kill(master).await;
            cluster.taken_over(slot(&theirs[0]), master).await;
            // Until it is back as a replica nobody else can have what is published there.
            cluster.restart(master).await;
            cluster.settles().await;
            load.goes_on(&theirs, Instant::now()).await;
        }
        let sent = load.end().await;
        for error in sent.iter().filter_map(|one| one.result.as_ref().err()) {
            assert_eq!((error.code, error.retryable), (Code::NotReplicated, true), "{error}");
        }
        assert!(sent.iter().filter(|one| one.result.is_ok()).count() > 1000);
        assert_eq!(check(&open(in_cluster(&cluster.ports())).await, &sent, nothing).await, 0);
    }

    pub async fn a_master_that_stands_still_is_left_for_its_replica(program: &str) {
        let mut cluster = Cluster::start(program, Shape::default()).await;
        let timeout = Duration::from_secs(2);
        let config = RedisStoreConfig { command_timeout: timeout, connect_timeout: timeout, ..in_cluster(&cluster.ports()) };
        let store = open(config).await;
        let parts = one_a_bucket(&store, "still").await;
        let load = Load::start(&store, &parts);
        load.goes_on(&parts, Instant::now()).await;
        let theirs = on_master(&cluster, &parts, 1).await;
        let began = Instant::now();
        cluster.pause(1).await;
        let (_, promoted) = cluster.taken_over(slot(&theirs[0]), 1).await;
        let resumed = load.goes_on(&theirs, promoted).await;
        // What was under way to the one that hangs is waited for first.
        assert!(resumed - promoted < RESUMED_MAX + timeout, "{:?}", resumed - promoted);
        cluster.resume(1).await;
        cluster.settles().await;
        load.goes_on(&parts, Instant::now()).await;
        let sent = load.end().await;
        for error in sent.iter().filter_map(|one| one.result.as_ref().err()) {
            assert!(error.retryable, "{error}");
        }
        let failover = Failover { began, ended: promoted };
        check(&open(in_cluster(&cluster.ports())).await, &sent, |one| failover.may_lose(one)).await;
    }

    pub async fn subscriptions_go_on_after_a_failover(program: &str) {
        let mut cluster = Cluster::start(program, Shape::default()).await;
        let publisher = open(patient(&cluster)).await;
        let parts = one_a_bucket(&publisher, "read").await;
        let reading = bus(patient(&cluster)).await;
        reading.subscribe("read.*", json!({})).await;
        let seen = handle_all(&reading);
        let load = Load::start(&publisher, &parts);
        for master in [2, 0] {
            load.goes_on(&parts, Instant::now()).await;
            let theirs = on_master(&cluster, &parts, master).await;
            cluster.kill(master).await;
            let (_, promoted) = cluster.taken_over(slot(&theirs[0]), master).await;
            load.goes_on(&parts, promoted).await;
        }
        let sent = load.end().await;
        let mut there = Vec::new();
        for at in &parts {
            there.extend(stored(&publisher, at).await);
        }
        assert!(sent.len() > 1000);
        until("every event that is there is handled", async || {
            let seen = seen.lock().expect("no panic");
            there.iter().all(|id| seen.contains(id))
        })
        .await;
        reading.disconnect(ms(1000)).await;
    }
}
