//! What a bus knows of its cluster, and how many connections it makes there.

use std::collections::BTreeSet;
use std::time::Instant;

use ossa::engine::store::BUCKETS;
use ossa::engine::store::redis::RedisStoreConfig;
use serde_json::json;

use crate::load::{Load, failure};
use crate::reach::{bus, carries_an_event, in_cluster, one_a_bucket, open, refusal};
use crate::support::cluster::{Cluster, Shape};
use crate::support::events::{event, publish};
use crate::support::harness::{handle_all, ms};
use crate::support::wait::until;

on_every_server!(
    one_node_is_enough_to_know_all_and_may_go_then,
    a_bus_makes_no_more_connections_than_promised,
    status_lists_every_node_with_its_state,
    a_single_server_is_no_cluster_and_says_so,
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
        let publisher = open(config.clone()).await;
        let parts = one_a_bucket(&publisher, "counted").await;
        publisher.close(ms(2000)).await;
        until("only the cluster is there", async || connections(&cluster).await == 0).await;

        let bus = bus(config.clone()).await;
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
        until("all are closed", async || connections(&cluster).await == 0).await;
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
        assert!(error.message.contains("cluster") && error.message.contains(&server.port().to_string()), "{error}");
    }
}
