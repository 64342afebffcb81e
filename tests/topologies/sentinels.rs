//! A master that sentinels name.

use std::time::{Duration, Instant};

use ossa::engine::error::Code;
use ossa::engine::store::Partition;
use ossa::engine::store::redis::{Location, RedisStoreConfig};
use serde_json::json;

use crate::load::{Failover, Load, check, failure, stored};
use crate::reach::{bus, by_sentinels, carries_an_event, local, one_a_bucket, open, refusal};
use crate::support::harness::{handle_all, ms};
use crate::support::sentinel::{Shape, Watched, sentinel};
use crate::support::server::free_port;
use crate::support::wait::until;

/// Longest time from a promotion until publishing goes on: the sentinels tell it, and the connection is made again.
const RESUMED_MAX: Duration = Duration::from_secs(3);

on_every_server!(
    a_switch_under_load_loses_only_what_the_failover_loses,
    sentinels_with_a_password,
    a_master_that_no_sentinel_knows_is_named_in_the_error,
    sentinels_that_are_dead_are_passed_over,
    a_sentinel_that_names_a_replica_is_not_believed,
);

fn patient(watched: &Watched) -> RedisStoreConfig {
    RedisStoreConfig { command_timeout: Duration::from_secs(20), ..by_sentinels(&watched.sentinel_ports(), None) }
}

mod cases {
    use super::*;

    pub async fn a_switch_under_load_loses_only_what_the_failover_loses(program: &str) {
        let mut watched = Watched::start(program, &Shape { replicas: 2, ..Shape::default() }).await;
        let store = open(patient(&watched)).await;
        let parts: Vec<Partition> = one_a_bucket(&store, "switched").await;
        let reading = bus(patient(&watched)).await;
        reading.subscribe("switched.*", json!({})).await;
        let seen = handle_all(&reading);
        let load = Load::start(&store, &parts);
        load.goes_on(&parts, Instant::now()).await;
        let killed = Instant::now();
        watched.kill(0).await;
        let (next, promoted) = watched.promoted(0).await;
        let resumed = load.goes_on(&parts, promoted).await;
        println!("replaced after {:?}, publishing {:?} later", promoted - killed, resumed - promoted);
        assert!(resumed - promoted < RESUMED_MAX, "{:?}", resumed - promoted);
        watched.agreed_on(next).await;
        let handled = seen.lock().expect("no panic").len();
        until("the subscription goes on", async || seen.lock().expect("no panic").len() > handled + 100).await;
        let sent = load.end().await;
        assert!(failure(&sent).is_none(), "another master was there in time: {:?}", failure(&sent));
        let failover = Failover { began: killed, ended: promoted };
        check(&store, &sent, |one| failover.may_lose(one)).await;
        let mut there = Vec::new();
        for at in &parts {
            there.extend(stored(&store, at).await);
        }
        until("every event that is there is handled", async || {
            let seen = seen.lock().expect("no panic");
            there.iter().all(|id| seen.contains(id))
        })
        .await;
        reading.disconnect(ms(1000)).await;
    }

    pub async fn sentinels_with_a_password(program: &str) {
        let shape = Shape { password: Some("guarded".into()), ..Shape::default() };
        let watched = Watched::start(program, &shape).await;
        let ports = watched.sentinel_ports();
        carries_an_event(&open(by_sentinels(&ports, Some("guarded"))).await, "with").await;
        for wrong in [None, Some("wr0ng-secret")] {
            let error = refusal(by_sentinels(&ports, wrong)).await;
            assert_eq!(error.code, Code::Auth, "{error}");
            assert!(error.message.contains("entinel") && !error.message.contains("wr0ng-secret"), "{error}");
        }
    }

    pub async fn a_master_that_no_sentinel_knows_is_named_in_the_error(program: &str) {
        let watched = Watched::start(program, &Shape::default()).await;
        let mut config = by_sentinels(&watched.sentinel_ports(), None);
        let Location::Sentinel { master_name, .. } = &mut config.location else { unreachable!("it is by sentinels") };
        "mistaken".clone_into(master_name);
        let start = Instant::now();
        let error = refusal(config.clone()).await;
        assert_eq!(error.code, Code::Connection, "{error}");
        assert!(error.message.contains("mistaken"), "{error}");
        assert!(start.elapsed() < config.connect_timeout * 2, "{:?}", start.elapsed());
    }

    pub async fn sentinels_that_are_dead_are_passed_over(program: &str) {
        let mut watched = Watched::start(program, &Shape::default()).await;
        watched.sentinels[0].kill().await;
        let ports = [&[free_port()][..], &watched.sentinel_ports()].concat();
        carries_an_event(&open(by_sentinels(&ports, None)).await, "passed").await;
        for sentinel in &mut watched.sentinels[1..] {
            sentinel.kill().await;
        }
        let error = refusal(by_sentinels(&watched.sentinel_ports(), None)).await;
        assert_eq!(error.code, Code::Connection, "{error}");
        assert!(watched.sentinel_ports().iter().any(|port| error.message.contains(&port.to_string())), "it says where: {error}");
    }

    pub async fn a_sentinel_that_names_a_replica_is_not_believed(program: &str) {
        let shape = Shape::default();
        let watched = Watched::start(program, &shape).await;
        // It was told long ago, and has heard from nobody since.
        let stale = sentinel(program, watched.servers[1].port(), &Shape { down_after_ms: 600_000, ..shape }).await;
        let mut config = by_sentinels(&watched.sentinel_ports(), None);
        let Location::Sentinel { nodes, .. } = &mut config.location else { unreachable!("it is by sentinels") };
        nodes.insert(0, local(stale.port()));
        let store = open(config).await;
        carries_an_event(&store, "stale").await;
        let keys = watched.servers[0].text(&["INFO", "commandstats"]).await;
        assert!(keys.contains("cmdstat_xadd"), "the master has it");
    }
}
