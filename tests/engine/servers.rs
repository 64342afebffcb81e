//! Faults of real servers: lost groups, flushed data, servers that stop, hang or come back empty.

use std::collections::HashSet;

use std::time::Duration;

use ossa::engine::consume::Verdict;
use ossa::engine::env::Env;
use ossa::engine::host::Kind;
use ossa::engine::store::redis::RedisStore;
use ossa::engine::store::redis::keys::Keys;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::support::events::partition;
use crate::support::harness::{TestBus, data, failed, handle_all, ms};
use crate::support::redis_store::{KEY_PREFIX, config};
use crate::support::server::{Server, programs};
use crate::support::wait::until;

async fn bus_with(server: &Server, settings: Value) -> TestBus {
    let mut redis = config(server);
    redis.command_timeout = Duration::from_secs(2);
    TestBus::connect(RedisStore::new(redis, Env::system()).expect("the configuration is right"), Env::system(), settings).await
}

async fn bus(server: &Server) -> TestBus {
    bus_with(server, json!({})).await
}

fn stream(event_type: &str) -> String {
    Keys::new(KEY_PREFIX, None).stream(&partition(event_type))
}

macro_rules! on_every_server {
    ($($name:ident),+) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            for program in programs() {
                println!("server: {program}"); // shown when the test fails
                rules::$name(Server::start(&program).await).await;
            }
        })+
    };
}

on_every_server!(
    events_are_handled_retried_and_dead_lettered,
    a_lost_group_is_made_again_without_a_skip,
    what_waits_for_its_retry_outlives_its_group,
    after_a_flush_it_goes_on_and_says_what_is_gone,
    a_server_that_restarts_empty_is_taken_up_again,
    a_server_that_stops_for_long_loses_nothing,
    a_disconnect_while_the_server_hangs_is_done_in_time,
    a_consumer_that_ended_is_gone_from_the_server,
    two_buses_share_a_wildcard_and_lose_nothing
);

mod rules {
    use super::*;

    pub async fn events_are_handled_retried_and_dead_lettered(server: Server) {
        let bus = bus(&server).await;
        bus.subscribe("a", json!({ "retry": { "maxAttempts": 1, "initialDelay": 20 } })).await;
        bus.publish_many("a", 3).await;
        let calls = bus.host.next_many(3).await;
        bus.done(&calls[0]);
        bus.settle(&calls[1], Verdict::HandBack);
        bus.settle(&calls[2], failed("boom"));
        let mut again = bus.host.next_many(2).await;
        again.sort_by_key(|call| call.attempt);
        assert_eq!((again[0].attempt, again[1].attempt), (1, 2));
        bus.done(&again[0]);
        bus.settle(&again[1], failed("boom"));
        bus.host.hears(Kind::DeadLettered, |about| about["reason"] == "max-attempts").await;
        assert_eq!(bus.dead_letters().await.len(), 1);
        until("all are settled", async || (bus.pending("a", "default").await, bus.in_flight()) == (0, 0)).await;
        bus.disconnect(ms(100)).await;
    }

    pub async fn a_lost_group_is_made_again_without_a_skip(server: Server) {
        let bus = bus(&server).await;
        bus.subscribe("a", json!({ "maxUnacknowledged": 10 })).await;
        bus.subscribe("quiet", json!({})).await;
        bus.publish_many("a", 30).await;
        let calls = bus.host.next_many(10).await;
        bus.all_done(&calls[..5]);
        // Five are held, five acknowledged, more to come.
        until("five are settled", async || bus.pending("a", "default").await <= 10).await;
        server.command(&[b"XGROUP", b"DESTROY", stream("a").as_bytes(), b"default"]).await;
        let seen = handle_all(&bus);
        bus.all_done(&calls[5..]);
        let is_missing = |n: &u32| !seen.lock().unwrap().contains(&n.to_string());
        until("none is skipped", async || !(10..30).any(|n| is_missing(&n))).await;
        bus.publish("a", "after").await;
        until("the next one comes", async || seen.lock().unwrap().contains("after")).await;
        let said = bus.host.said(Kind::DataLoss);
        assert!(said.iter().all(|about| about["eventType"] != "quiet"), "{said:?}");
        bus.disconnect(ms(100)).await;
    }

    pub async fn what_waits_for_its_retry_outlives_its_group(server: Server) {
        let bus = bus(&server).await;
        bus.subscribe("a", json!({ "retry": { "initialDelay": 60_000, "maxDelay": 60_000 } })).await;
        bus.publish_many("a", 3).await;
        let calls = bus.host.next_many(3).await;
        let waiting = data(&calls[1]).to_owned();
        bus.done(&calls[0]);
        bus.settle(&calls[1], failed("boom"));
        bus.done(&calls[2]);
        until("one waits", async || bus.pending("a", "default").await == 1).await;
        server.command(&[b"XGROUP", b"DESTROY", stream("a").as_bytes(), b"default"]).await;
        let seen = handle_all(&bus);
        until("it comes again", async || seen.lock().unwrap().contains(&waiting)).await;
        until("it is settled", async || bus.pending("a", "default").await == 0).await;
        bus.disconnect(ms(100)).await;
    }

    pub async fn after_a_flush_it_goes_on_and_says_what_is_gone(server: Server) {
        let bus = bus(&server).await;
        bus.subscribe("a", json!({})).await;
        bus.publish_many("a", 5).await;
        bus.all_done(&bus.host.next_many(5).await);
        until("all are settled", async || bus.pending("a", "default").await == 0).await;
        server.command(&[b"FLUSHALL"]).await;
        let said = bus.host.hears(Kind::DataLoss, |about| about["eventType"] == "a").await;
        assert_eq!((said["group"].as_str(), said["firstLeft"].is_null()), (Some("default"), true));
        bus.publish("a", "after").await;
        let next = bus.host.next().await;
        assert_eq!(data(&next), "after");
        bus.done(&next);
        until("it is settled", async || bus.pending("a", "default").await == 0).await;
        // The group is known again to those who publish new types.
        assert!(!bus.store.topology().await.unwrap().groups.is_empty());
        bus.disconnect(ms(100)).await;
    }

    pub async fn a_server_that_restarts_empty_is_taken_up_again(mut server: Server) {
        let bus = bus(&server).await;
        bus.subscribe("a", json!({})).await;
        bus.publish("a", "before").await;
        bus.done(&bus.host.next().await);
        server.restart().await;
        bus.host.hears(Kind::ConnectionRestored, |_| true).await;
        bus.publish("a", "after").await;
        let mut next = bus.host.next().await;
        while data(&next) != "after" {
            next = bus.host.next().await;
        }
        bus.done(&next);
        until("it is settled", async || bus.pending("a", "default").await == 0).await;
        bus.disconnect(ms(100)).await;
    }

    pub async fn a_server_that_stops_for_long_loses_nothing(mut server: Server) {
        let bus = bus(&server).await;
        bus.subscribe("a", json!({ "concurrency": 2 })).await;
        bus.publish_many("a", 20).await;
        let calls = bus.host.next_many(2).await;
        server.pause().await;
        // The lease is over before it goes on.
        tokio::time::sleep(Duration::from_secs(9)).await;
        bus.settle(&calls[0], failed("boom"));
        server.resume().await;
        let seen = handle_all(&bus);
        bus.done(&calls[1]);
        let all = || seen.lock().unwrap().len();
        until("all are handled", async || all() >= 19).await;
        until("all are settled", async || bus.pending("a", "default").await == 0).await;
        assert!(bus.dead_letters().await.is_empty());
        assert_eq!(bus.in_flight(), 0);
        bus.disconnect(ms(100)).await;
    }

    pub async fn a_disconnect_while_the_server_hangs_is_done_in_time(mut server: Server) {
        let bus = bus(&server).await;
        bus.subscribe("a", json!({})).await;
        bus.publish_many("a", 10).await;
        let calls = bus.host.next_many(10).await;
        server.pause().await;
        bus.bus.settle(vec![(calls[0].token, Verdict::Done)], 1);
        let start = Instant::now();
        bus.disconnect(ms(500)).await;
        assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
        assert!(bus.host.confirmed(1).await.is_some());
        server.resume().await;
    }

    pub async fn a_consumer_that_ended_is_gone_from_the_server(server: Server) {
        let watcher = bus(&server).await;
        let bus = bus(&server).await;
        let id = bus.subscribe("a", json!({})).await;
        bus.subscribe("b", json!({})).await;
        bus.publish_many("a", 5).await;
        bus.publish_many("b", 5).await;
        bus.host.next_many(10).await;
        bus.bus.unsubscribe(id, ms(0)).await.unwrap();
        let gone = async |event_type| watcher.partition(event_type).await.groups[0].consumers.is_empty();
        until("the consumer of a is gone", async || gone("a").await).await;
        bus.disconnect(ms(0)).await;
        assert!(gone("b").await, "{:?}", watcher.partition("b").await.groups);
        watcher.disconnect(ms(0)).await;
    }

    pub async fn two_buses_share_a_wildcard_and_lose_nothing(server: Server) {
        let (one, two) = (bus(&server).await, bus(&server).await);
        let mut seen = Vec::new();
        for bus in [&one, &two] {
            bus.subscribe("w.*", json!({ "maxUnacknowledged": 20 })).await;
            seen.push(handle_all(bus));
        }
        let publisher = bus(&server).await;
        for n in 0..30 {
            let first = n * 20;
            for i in first..first + 20 {
                publisher.bus.publish(i + 1_000_000, format!("w.type{n}\t\t\"{i}\"\n"));
            }
            if n == 15 {
                // One leaves in the middle, with what it holds.
                two.disconnect(ms(0)).await;
            }
        }
        let all = || seen.iter().flat_map(|seen| seen.lock().unwrap().clone()).collect::<HashSet<_>>().len();
        until("all are handled", async || all() == 600).await;
        one.disconnect(ms(1000)).await;
        publisher.disconnect(ms(0)).await;
    }
}
