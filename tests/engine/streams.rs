//! Streams with limits of their own, and groups that end with their last consumer.

use ossa::engine::consume::LEASE;
use ossa::engine::error::Code;
use ossa::engine::store::{GroupSpec, StartFrom, Store};
use serde_json::json;
use tokio::time::Instant;

use crate::support::harness::{Place, TestBus, data, idle, ms};

async fn groups(bus: &TestBus, event_type: &str) -> Vec<String> {
    bus.partition(event_type).await.groups.into_iter().map(|group| group.name).collect()
}

#[tokio::test(start_paused = true)]
async fn the_keeper_ends_an_ephemeral_group_whose_process_died() {
    let place = Place::new(1);
    let bus = place.bus().await;
    bus.publish("t", "before").await;
    // A process that joins, and is not heard of any more.
    let dead = place.store();
    let spec = GroupSpec { group: "e".into(), pattern: "t".into(), options: json!({ "ephemeral": true }).to_string() };
    let partitions = dead.join(&spec, StartFrom::Latest, "dead").await.expect("joined");
    let buckets: Vec<_> = partitions.iter().map(ossa::engine::store::Partition::bucket).collect();
    assert!(dead.renew("dead", &buckets, LEASE).await.expect("renewed"));
    let died = Instant::now();
    assert_eq!(groups(&bus, "t").await, ["e"]);
    while !groups(&bus, "t").await.is_empty() {
        tokio::time::sleep(ms(100)).await;
        assert!(died.elapsed() < ms(30_000), "it is there for {:?}", died.elapsed());
    }
    assert!(died.elapsed() >= LEASE, "not before its lease was over: {:?}", died.elapsed());
    bus.disconnect(ms(0)).await;
}

#[tokio::test(start_paused = true)]
async fn an_ephemeral_group_that_waits_for_its_first_type_stays() {
    let place = Place::new(2);
    let (bus, other) = (place.bus().await, place.bus().await);
    bus.subscribe("later.*", json!({ "group": "e", "ephemeral": true })).await;
    tokio::time::sleep(ms(300_000)).await;
    assert_eq!(other.store.topology().await.expect("topology").groups.len(), 1, "its process is alive");
    other.publish("later.first", "one").await;
    let delivery = bus.host.next().await;
    assert_eq!(data(&delivery), "one");
    bus.done(&delivery);
    idle().await;
    bus.disconnect(ms(1000)).await;
    assert_eq!(groups(&other, "later.first").await, [] as [&str; 0]);
    other.disconnect(ms(0)).await;
}

#[tokio::test(start_paused = true)]
async fn a_subscription_that_comes_while_the_last_one_goes_has_a_group() {
    let bus = Place::new(3).bus().await;
    let options = json!({ "group": "e", "ephemeral": true });
    for round in 0..10 {
        let id = bus.subscribe("t", options.clone()).await;
        let (closed, (next, joined)) = tokio::join!(bus.bus.unsubscribe(id, ms(1000)), bus.try_subscribe("t", options.clone()));
        closed.expect("closed");
        joined.expect("subscribed");
        bus.publish("t", &round.to_string()).await;
        let delivery = bus.host.next().await;
        assert_eq!(data(&delivery), round.to_string());
        bus.done(&delivery);
        idle().await;
        bus.bus.unsubscribe(next, ms(1000)).await.expect("closed");
        assert_eq!(groups(&bus, "t").await, [] as [&str; 0], "gone when it is closed");
    }
}

#[tokio::test(start_paused = true)]
async fn the_keeper_goes_by_the_retention_of_each_type() {
    let bus = Place::new(4).bus_with(json!({ "defaults": { "ttl": 60 } })).await;
    let created = bus.bus.create_stream("few", json!({ "maxLength": 100, "retention": "count", "retentionValue": 2 })).await;
    assert_eq!(created.expect("created")["config"]["retentionValue"], 2);
    let long = json!({ "maxLength": 100, "retention": "time", "retentionValue": 600 });
    bus.bus.create_stream("long", long).await.expect("created");
    for event_type in ["few", "long", "plain"] {
        bus.subscribe(event_type, json!({})).await;
        bus.publish_many(event_type, 10).await;
        let deliveries = bus.host.next_many(10).await;
        bus.all_done(&deliveries);
    }
    let left = async || {
        let mut left = Vec::new();
        for event_type in ["few", "long", "plain"] {
            left.push(bus.partition(event_type).await.length);
        }
        left
    };
    tokio::time::sleep(ms(20_000)).await;
    assert_eq!(left().await, [2, 10, 10]);
    tokio::time::sleep(ms(80_000)).await;
    assert_eq!(left().await, [0, 10, 0], "their ttl is over");
    tokio::time::sleep(ms(540_000)).await;
    assert_eq!(left().await, [0, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_group_is_deleted_by_name_only() {
    let bus = Place::new(5).bus().await;
    for (pattern, group, argument) in [("a b", "g", "eventTypeOrPattern"), ("t", "~retry", "group")] {
        let error = bus.bus.delete_group(pattern, group).await.expect_err("no such name");
        assert_eq!((error.code, error.details["argument"].as_str()), (Code::InvalidArgument, Some(argument)));
    }
    assert!(!bus.bus.delete_group("t", "g").await.expect("asked"));
}
