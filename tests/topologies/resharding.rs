//! Slots that move from master to master while they are used.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use ossa::engine::store::redis::RedisStoreConfig;
use ossa::engine::store::{Appended, Partition};
use serde_json::json;

use crate::load::{Load, check, failure, nothing, stored};
use crate::reach::{bus, in_cluster, one_a_bucket, open, slot, stream};
use crate::support::cluster::{Cluster, Shape};
use crate::support::events::{event, publish};
use crate::support::harness::{handle_all, ms};
use crate::support::wait::until;

/// Longest time of a publish that is sent on to another master.
const SENT_ON_MAX: Duration = Duration::from_secs(2);

on_every_server!(
    every_bucket_moves_under_load_and_nothing_is_lost_or_doubled,
    a_publish_waits_while_its_slot_is_half_moved,
    a_slot_that_moved_unseen_is_found,
);

async fn start(program: &str) -> Cluster {
    Cluster::start(program, Shape { replicas: 0, ..Shape::default() }).await
}

fn patient(cluster: &Cluster) -> RedisStoreConfig {
    RedisStoreConfig { command_timeout: Duration::from_secs(20), ..in_cluster(&cluster.ports()) }
}

mod cases {
    use super::*;

    pub async fn every_bucket_moves_under_load_and_nothing_is_lost_or_doubled(program: &str) {
        let cluster = start(program).await;
        let store = open(patient(&cluster)).await;
        let parts = one_a_bucket(&store, "moved").await;
        let reading = bus(patient(&cluster)).await;
        reading.subscribe("moved.*", json!({})).await;
        let seen = handle_all(&reading);
        let load = Load::start(&store, &parts);
        load.goes_on(&parts, Instant::now()).await;
        for at in &parts {
            let to = (cluster.owner(slot(at)).await + 1) % 3;
            cluster.migrate_slot(slot(at), to).await;
            let moved = Instant::now();
            let handled = seen.lock().expect("no panic").len();
            let resumed = load.goes_on(std::slice::from_ref(at), moved).await;
            assert!(resumed - moved < SENT_ON_MAX, "{:?}", resumed - moved);
            until("readers go on", async || seen.lock().expect("no panic").len() > handled).await;
        }
        let sent = load.end().await;
        assert!(failure(&sent).is_none(), "{:?}", failure(&sent));
        check(&store, &sent, nothing).await;
        let all: BTreeSet<&String> = sent.iter().map(|one| &one.id).collect();
        until("all are handled", async || {
            let seen = seen.lock().expect("no panic");
            all.iter().all(|id| seen.contains(*id))
        })
        .await;
        reading.disconnect(ms(1000)).await;
    }

    pub async fn a_publish_waits_while_its_slot_is_half_moved(program: &str) {
        let cluster = start(program).await;
        let store = open(patient(&cluster)).await;
        let at = Partition::new("half", 0);
        store.open_partition(&at).await.expect("opened");
        publish(&store, vec![event(&at, "before")]).await;
        let to = (cluster.owner(slot(&at)).await + 1) % 3;
        let migration = cluster.begin_migration(slot(&at), to).await;
        // The stream is there, what else belongs to a publish is here: no server can do it as a whole.
        cluster.move_named(&migration, &[stream(&at)]).await;
        let waits = tokio::spawn(store.append(at.bucket(), vec![event(&at, "meanwhile")]));
        tokio::time::sleep(ms(300)).await;
        assert!(!waits.is_finished());
        cluster.finish_migration(&migration).await;
        let finished = Instant::now();
        let answer = waits.await.expect("no panic").remove(0).expect("it goes on");
        assert_eq!(answer, Appended::Stored);
        assert!(finished.elapsed() < SENT_ON_MAX, "{:?}", finished.elapsed());
        assert_eq!(stored(&store, &at).await, ["before", "meanwhile"]);
    }

    pub async fn a_slot_that_moved_unseen_is_found(program: &str) {
        let cluster = start(program).await;
        let store = open(patient(&cluster)).await;
        let parts = one_a_bucket(&store, "unseen").await;
        for at in &parts {
            publish(&store, vec![event(at, "before")]).await;
        }
        for at in &parts {
            let to = (cluster.owner(slot(at)).await + 1) % 3;
            cluster.migrate_slot(slot(at), to).await;
        }
        let start = Instant::now();
        for at in &parts {
            publish(&store, vec![event(at, "after")]).await;
        }
        assert!(start.elapsed() < SENT_ON_MAX, "{:?}", start.elapsed());
        for at in &parts {
            assert_eq!(stored(&store, at).await, ["before", "after"]);
        }
    }
}
