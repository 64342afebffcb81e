//! What a bus knows of its cluster, and how many connections it makes there.

use std::collections::BTreeSet;
use std::time::Instant;

use ossa::engine::store::redis::{Location, RedisStoreConfig};
use ossa::engine::store::{BUCKETS, Partition, ReadFrom};
use serde_json::json;

use crate::load::{Load, failure, stored};
use crate::reach::{bus, carries_an_event, in_cluster, one_a_bucket, open, refusal};
use crate::support::cluster::{Cluster, Shape};
use crate::support::events::{event, prepare, publish, reader};
use crate::support::harness::{handle_all, ms};
use crate::support::wait::until;

on_every_server!(
    one_node_is_enough_to_know_all_and_may_go_then,
    a_bus_makes_no_more_connections_than_promised,
    a_closed_store_keeps_no_connection,
    status_lists_every_node_with_its_state,
    a_single_server_is_no_cluster_and_says_so,
    a_read_waits_longer_than_a_command_may_take,
    reading_from_replicas_loses_nothing_and_works_without_them,
);

/// Connections of clients to all nodes that are up, without that which asks.
async fn connections(cluster: &Cluster) -> usize {
    let mut count = 0;
    for node in cluster.up() {
        for kind in ["normal", "pubsub"] {
            let list = cluster.command(node, &["CLIENT", "LIST", "TYPE", kind]).await;
            let list: String = redis::from_redis_value(list).expect("a list");
            count += list.lines().filter(|line| !line.contains("cmd=client|list")).count();
        }
    }
    count
}

/// Ends all connections of clients.
async fn disconnect_all(cluster: &Cluster) {
    for node in cluster.up() {
        for kind in ["normal", "pubsub"] {
            cluster.command(node, &["CLIENT", "KILL", "TYPE", kind]).await;
        }
    }
}

mod cases {
    use super::*;

    pub async fn one_node_is_enough_to_know_all_and_may_go_then(program: &str) {
        let mut cluster = Cluster::start(program, Shape::default()).await;
        let store = open(in_cluster(&[cluster.port(0)])).await;
        let parts = one_a_bucket(&store, "seed").await;
        for at in &parts {
            publish(&store, vec![event(at, "before")]).await;
        }
        cluster.kill(0).await;
        cluster.taken_over(0, 0).await;
        cluster.settles().await;
        disconnect_all(&cluster).await;
        let load = Load::start(&store, &parts);
        load.goes_on(&parts, Instant::now()).await;
        let sent = load.end().await;
        assert!(failure(&sent).is_none(), "{:?}", failure(&sent));
        assert!(store.status().await.connected);
    }

    pub async fn a_bus_makes_no_more_connections_than_promised(program: &str) {
        const GROUPS: usize = 2;
        let cluster = Cluster::start(program, Shape::default()).await;
        let config = RedisStoreConfig { pool_size: 4, ..in_cluster(&cluster.ports()) };
        let bus = bus(config.clone()).await;
        let parts = one_a_bucket(&bus.store, "counted").await;
        for group in 0..GROUPS {
            bus.subscribe("counted.*", json!({ "group": format!("g{group}") })).await;
        }
        let seen = handle_all(&bus);
        let load = Load::start(&bus.store, &parts);
        let mut most = 0;
        until("a lot was handled", async || {
            most = most.max(connections(&cluster).await);
            seen.lock().expect("no panic").len() > 1000
        })
        .await;
        // Masters × pool, a reader a group and bucket, topology and Pub/Sub, and the inbox.
        let bound = 3 * config.pool_size + GROUPS * usize::from(BUCKETS) + 2 + 1;
        assert!(most > 0 && most <= bound, "{most} connections, promised are {bound}");
        load.end().await;
        bus.disconnect(ms(2000)).await;
    }

    pub async fn a_closed_store_keeps_no_connection(program: &str) {
        let cluster = Cluster::start(program, Shape { replicas: 0, ..Shape::default() }).await;
        let store = open(in_cluster(&cluster.ports())).await;
        carries_an_event(&store, "closed").await;
        assert!(connections(&cluster).await > 0);
        store.close(ms(2000)).await;
        // The store itself is still there, as it is where a program keeps a bus that it disconnected.
        until("all are closed", async || connections(&cluster).await == 0).await;
        drop(store);
    }

    pub async fn status_lists_every_node_with_its_state(program: &str) {
        let mut cluster = Cluster::start(program, Shape::default()).await;
        let store = open(in_cluster(&[cluster.port(1)])).await;
        let status = store.status().await;
        assert!(status.connected && status.cluster);
        let ports: BTreeSet<u16> = status.nodes.iter().map(|(_, port, _)| *port).collect();
        assert_eq!(ports, cluster.ports().into_iter().collect());
        assert!(status.nodes.iter().all(|(host, _, state)| host == "127.0.0.1" && !state.is_empty()), "{:?}", status.nodes);

        let gone = cluster.port(5);
        let of_gone = |nodes: &[(String, u16, String)]| nodes.iter().find(|(_, port, _)| *port == gone).map(|(_, _, state)| state.clone());
        let before = of_gone(&status.nodes);
        cluster.kill(5).await;
        until("it is told that a node is gone", async || {
            let status = store.status().await;
            status.connected && of_gone(&status.nodes) != before
        })
        .await;
        carries_an_event(&store, "status.replica").await;
    }

    pub async fn a_single_server_is_no_cluster_and_says_so(program: &str) {
        let server = crate::support::server::Server::start(program).await;
        let error = refusal(in_cluster(&[server.port()])).await;
        assert!(error.message.contains("Cluster") && error.message.contains(&server.port().to_string()), "{error}");
    }

    pub async fn a_read_waits_longer_than_a_command_may_take(program: &str) {
        let server = crate::support::server::Server::start(program).await;
        let config = RedisStoreConfig { command_timeout: ms(200), ..crate::support::redis_store::config(&server) };
        let store = open(config).await;
        let at = Partition::new("patient", 0);
        prepare(&store, &at, "g", "c").await;
        let mut reader = reader(&store, "g");
        let start = Instant::now();
        let read = reader.read("c", &[ReadFrom::new(at.clone())], 10, Some(ms(1200))).await;
        assert!(read.expect("nothing came, and nothing failed").is_empty());
        assert!(start.elapsed() >= ms(1150), "{:?}", start.elapsed());
        carries_an_event(&store, "patient.still").await;
    }

    pub async fn reading_from_replicas_loses_nothing_and_works_without_them(program: &str) {
        let mut cluster = Cluster::start(program, Shape::default()).await;
        let mut config = in_cluster(&cluster.ports());
        let Location::Cluster { read_from_replicas, .. } = &mut config.location else { unreachable!("it is a cluster") };
        *read_from_replicas = true;
        let store = open(config).await;
        let parts = one_a_bucket(&store, "replicas").await;
        for at in &parts {
            publish(&store, vec![event(at, "e")]).await;
        }
        for at in &parts {
            // They may lag behind.
            until("a replica has it", async || stored(&store, at).await == ["e"]).await;
        }
        for replica in 3..6 {
            cluster.kill(replica).await;
        }
        for at in &parts {
            assert_eq!(stored(&store, at).await, ["e"]);
        }
        carries_an_event(&store, "replicas.none").await;
    }
}
