//! How many events a subscription takes, and in which turn.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use ossa::engine::consume::Verdict;
use serde_json::json;

use crate::support::harness::{Place, data, idle, ms};

#[tokio::test(start_paused = true)]
async fn an_event_is_delivered_and_acknowledged() {
    let bus = Place::new(1).bus().await;
    bus.subscribe("order.created", json!({})).await;
    bus.publish("order.created", "hello").await;
    let delivery = bus.host.next().await;
    assert_eq!((data(&delivery), delivery.attempt, delivery.redelivered), ("hello", 1, false));
    assert_eq!(bus.in_flight(), 1);
    bus.done(&delivery);
    idle().await;
    assert_eq!((bus.pending("order.created", "default").await, bus.in_flight()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn no_more_than_its_places_run_over_many_types() {
    let place = Place::new(2);
    let bus = place.bus_with(json!({ "performance": { "batchSize": 10 } })).await;
    bus.subscribe("many.*", json!({ "maxUnacknowledged": 3 })).await;
    for n in 0..50 {
        bus.publish_many(&format!("many.type{n}"), 4).await;
    }
    let (running, most, handled) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (sender, mut deliveries) = tokio::sync::mpsc::unbounded_channel();
    bus.host.hand_to(sender);
    let all = handled.clone();
    let (engine, top) = (bus.bus.clone(), most.clone());
    tokio::spawn(async move {
        while let Some(delivery) = deliveries.recv().await {
            top.fetch_max(running.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
            let (engine, running, handled) = (engine.clone(), running.clone(), handled.clone());
            tokio::spawn(async move {
                tokio::time::sleep(ms(10)).await;
                running.fetch_sub(1, Ordering::Relaxed);
                handled.fetch_add(1, Ordering::Relaxed);
                engine.settle(vec![(delivery.token, Verdict::Done)], 0);
            });
        }
    });
    let mut in_flight = 0;
    while all.load(Ordering::Relaxed) < 200 {
        tokio::time::sleep(ms(1)).await;
        in_flight = in_flight.max(bus.in_flight());
    }
    assert_eq!(most.load(Ordering::Relaxed), 3);
    assert!(in_flight <= 13, "places and a batch: {in_flight}");
    idle().await;
    assert_eq!(bus.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn handlers_at_once_are_bounded_by_concurrency_and_by_places() {
    let bus = Place::new(3).bus().await;
    bus.subscribe("a", json!({ "maxUnacknowledged": 10, "concurrency": 2 })).await;
    bus.subscribe("b", json!({ "maxUnacknowledged": 2, "concurrency": 10, "group": "other" })).await;
    bus.publish_many("a", 20).await;
    bus.publish_many("b", 20).await;
    idle().await;
    let arrived = bus.host.arrived();
    let of = |event_type: &str| arrived.iter().filter(|delivery| &*delivery.partition.event_type == event_type).count();
    assert_eq!((of("a"), of("b")), (2, 2));
    bus.all_done(&arrived);
    idle().await;
    assert_eq!(bus.host.arrived().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn types_with_backlogs_take_turns() {
    let place = Place::new(4);
    let publisher = place.bus().await;
    // Their names lie unevenly in the order of names.
    let types = ["fair.a0", "fair.a1", "fair.a2", "fair.z9"];
    for event_type in types {
        publisher.publish_many(event_type, 200).await;
    }
    for n in 0..60 {
        publisher.publish_many(&format!("fair.m{n}"), 1).await;
    }
    let bus = place.bus().await;
    bus.subscribe("fair.*", json!({ "maxUnacknowledged": 1 })).await;
    let counts: Arc<Mutex<HashMap<String, usize>>> = Arc::default();
    let counted = counts.clone();
    bus.handle(move |delivery| {
        *counted.lock().unwrap().entry(delivery.partition.event_type.to_string()).or_default() += 1;
        (ms(1), Verdict::Done)
    });
    let of_backlogs = || {
        let counts = counts.lock().unwrap();
        types.map(|event_type| counts.get(event_type).copied().unwrap_or(0))
    };
    while of_backlogs().iter().sum::<usize>() < 200 {
        tokio::time::sleep(ms(1)).await;
    }
    let each = of_backlogs();
    assert!(each.iter().all(|n| (40..=60).contains(n)), "{each:?}");
}

#[tokio::test(start_paused = true)]
async fn an_event_of_a_quiet_type_is_not_held_up_by_a_backlog() {
    let place = Place::new(5);
    let bus = place.bus().await;
    bus.subscribe("q.*", json!({ "maxUnacknowledged": 2 })).await;
    for n in 0..100 {
        bus.publish_many(&format!("q.quiet{n}"), 1).await;
    }
    bus.publish_many("q.busy", 5000).await;
    bus.handle(|_| (ms(5), Verdict::Done));
    tokio::time::sleep(ms(500)).await;
    let seen: Arc<Mutex<HashSet<String>>> = Arc::default();
    let marked = seen.clone();
    bus.handle(move |delivery| {
        if data(delivery) == "late" {
            marked.lock().unwrap().insert(delivery.partition.event_type.to_string());
        }
        (ms(5), Verdict::Done)
    });
    for n in 0..100 {
        bus.publish(&format!("q.quiet{n}"), "late").await;
    }
    tokio::time::sleep(ms(3000)).await;
    assert!(bus.partition("q.busy").await.groups[0].lag > Some(0), "the backlog lasts");
    assert_eq!(seen.lock().unwrap().len(), 100);
}

#[tokio::test(start_paused = true)]
async fn a_full_subscription_holds_up_no_other_of_its_group() {
    let bus = Place::new(6).bus().await;
    bus.subscribe("slow", json!({ "maxUnacknowledged": 1 })).await;
    bus.subscribe("fast", json!({})).await;
    bus.publish_many("slow", 10).await;
    idle().await;
    assert_eq!(bus.host.arrived().len(), 1);
    bus.publish_many("fast", 500).await;
    let fast = bus.host.next_many(100).await;
    bus.all_done(&fast);
    for _ in 0..400 {
        bus.done(&bus.host.next().await);
    }
    idle().await;
    assert_eq!(bus.pending("fast", "default").await, 0);
}

#[tokio::test(start_paused = true)]
async fn two_buses_share_the_events_of_a_group() {
    let place = Place::new(7);
    let (one, two) = (place.bus().await, place.bus().await);
    for bus in [&one, &two] {
        bus.subscribe("shared", json!({ "maxUnacknowledged": 5 })).await;
    }
    one.publish_many("shared", 100).await;
    let seen: Arc<Mutex<Vec<(usize, String)>>> = Arc::default();
    for (i, bus) in [&one, &two].into_iter().enumerate() {
        let seen = seen.clone();
        bus.handle(move |delivery| {
            seen.lock().unwrap().push((i, data(delivery).to_owned()));
            (ms(5), Verdict::Done)
        });
    }
    tokio::time::sleep(ms(2000)).await;
    let seen = seen.lock().unwrap();
    let different: HashSet<&str> = seen.iter().map(|(_, data)| data.as_str()).collect();
    assert_eq!((seen.len(), different.len()), (100, 100), "each once");
    assert!(seen.iter().any(|(i, _)| *i == 0) && seen.iter().any(|(i, _)| *i == 1), "both have a share");
}

#[tokio::test(start_paused = true)]
async fn a_wildcard_subscription_takes_up_new_types() {
    let place = Place::new(8);
    let bus = place.bus().await;
    bus.subscribe("new.**", json!({})).await;
    idle().await;
    place.bus().await.publish("new.type.one", "first").await;
    assert_eq!(data(&bus.host.next().await), "first");
}

#[tokio::test(start_paused = true)]
async fn a_subscription_without_types_costs_nothing() {
    let place = Place::new(9);
    let (bus, faults) = place.faulty_bus().await;
    bus.subscribe("nothing.*", json!({})).await;
    let parks = || tokio::runtime::Handle::current().metrics().worker_park_count(0);
    let before = parks();
    tokio::time::sleep(ms(60_000)).await;
    // The keeper's rhythm, and no other.
    assert!(parks() - before < 2000, "woken {} times in a minute", parks() - before);
    assert!(faults.calls("due") == 0 && faults.calls("read") == 0);
    assert!(faults.calls("topology") < 100, "{}", faults.calls("topology"));
}

#[tokio::test(start_paused = true)]
async fn a_critical_event_is_next_over_a_low_backlog_with_one_place() {
    // Where low ones are held already, the handler that gets free takes one of them while the critical one is read.
    for (options, before) in [(json!({ "maxUnacknowledged": 1 }), 0), (json!({ "maxUnacknowledged": 20, "concurrency": 1 }), 1)] {
        let bus = Place::new(11).bus().await;
        bus.subscribe("p", options.clone()).await;
        for _ in 0..100 {
            bus.publish_with("p", "low", &json!({ "priority": "low" })).await;
        }
        idle().await;
        for _ in 0..10 {
            let low = bus.host.next().await;
            assert_eq!(data(&low), "low");
            bus.done(&low);
        }
        let running = bus.host.next().await;
        bus.publish_with("p", "now", &json!({ "priority": "critical" })).await;
        idle().await;
        bus.done(&running);
        for _ in 0..before {
            let low = bus.host.next().await;
            idle().await;
            bus.done(&low);
        }
        assert_eq!(data(&bus.host.next().await), "now", "{options}");
    }
}

#[tokio::test(start_paused = true)]
async fn priorities_share_the_handlers_eight_to_four_to_two_to_one() {
    for options in [json!({ "maxUnacknowledged": 1 }), json!({ "maxUnacknowledged": 50, "concurrency": 1 })] {
        let bus = Place::new(12).bus().await;
        for _ in 0..400 {
            for priority in ["critical", "high", "normal", "low"] {
                bus.publish_with("p", priority, &json!({ "priority": priority })).await;
            }
        }
        bus.subscribe("p", options.clone()).await;
        let mut seen: HashMap<String, usize> = HashMap::new();
        for _ in 0..300 {
            let delivery = bus.host.next().await;
            *seen.entry(data(&delivery).to_owned()).or_default() += 1;
            bus.done(&delivery);
        }
        for (priority, expected) in [("critical", 160), ("high", 80), ("normal", 40), ("low", 20)] {
            let share = seen.get(priority).copied().unwrap_or(0);
            assert!(share.abs_diff(expected) <= 16, "{priority}: {share} of 300, {options}: {seen:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn low_events_are_not_starved_by_critical_ones_without_end() {
    let bus = Place::new(13).bus().await;
    bus.subscribe("p", json!({ "maxUnacknowledged": 4, "concurrency": 2 })).await;
    for _ in 0..50 {
        bus.publish_with("p", "low", &json!({ "priority": "low" })).await;
    }
    let mut low = 0;
    for _ in 0..450 {
        bus.publish_with("p", "critical", &json!({ "priority": "critical" })).await;
        let delivery = bus.host.next().await;
        low += usize::from(data(&delivery) == "low");
        bus.done(&delivery);
    }
    assert!(low >= 40, "{low} low ones in 450");
}

#[tokio::test(start_paused = true)]
async fn what_the_filter_does_not_take_is_acknowledged_unseen() {
    let bus = Place::new(14).bus().await;
    bus.subscribe("f", json!({ "filter": { "tags": ["yes"] } })).await;
    bus.publish_with("f", "no", &json!({ "tags": ["no"] })).await;
    bus.publish_with("f", "yes", &json!({ "tags": ["yes", "too"] })).await;
    bus.publish("f", "plain").await;
    let delivery = bus.host.next().await;
    assert_eq!(data(&delivery), "yes");
    bus.done(&delivery);
    idle().await;
    assert!(bus.host.arrived().is_empty());
    assert_eq!((bus.pending("f", "default").await, bus.in_flight()), (0, 0));
    assert_eq!(bus.bus.metrics()["eventsConsumed"], 1, "what was not seen is not counted");
}
