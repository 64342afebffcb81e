//! Buses that work with a registry: beginning, ending, and what fails in between.

use std::sync::Arc;
use std::time::Duration;

use ossa::engine::consume::Verdict;
use ossa::engine::error::Code;
use ossa::engine::host::Kind;
use ossa::engine::options::SubscribeOptions;
use ossa::engine::store::DeadLetterQuery;
use serde_json::json;
use tokio::time::Instant;

use crate::desk::{Desk, Still, bus_with, logged, publish, service_for, turn, turn_until, turning};
use crate::support::faulty::{Fault, Faulty};
use crate::support::harness::{Place, idle};
use crate::web::{Server, fine};

const STEP: Duration = Duration::from_millis(100);
/// What a bus is listed as.
const BUS: &str = "ossa-event-bus";

/// Everything that a bus of its own may hold.
async fn nothing_runs(desk: &Desk) {
    let status = desk.registry.status().await;
    assert_eq!((&status["monitoring"], &status["registeredHere"]), (&json!(false), &json!(0)), "{status}");
    assert!(desk.store.attending().await.expect("asked").is_empty());
}

#[tokio::test(start_paused = true)]
async fn nothing_is_left_of_a_bus_that_was_disconnected_or_let_go() {
    for disconnects in [true, false] {
        let place = Place::new(1);
        let desk = place.desk();
        desk.registry.open().await.expect("open");
        let store: Arc<dyn ossa::engine::store::Store> = place.store();
        let (bus, host) = bus_with(&desk, store.clone(), place.env(), &json!({}), true);
        bus.connect().await.expect("connected");
        desk.register_as(service_for("one", "http://127.0.0.1:1", &["order.*"])).await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!(bus.services_status().await.expect("asked")["routes"].as_array().map(Vec::len), Some(1));
        if disconnects {
            bus.disconnect(Duration::from_secs(1)).await;
            nothing_of_it(&desk).await;
        }
        let (weak, weak_host, weak_store) = (Arc::downgrade(&bus), Arc::downgrade(&host), Arc::downgrade(&store));
        let (registry, register) = (Arc::downgrade(&desk.registry), Arc::downgrade(&desk.store));
        drop((bus, host, store));
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert_eq!((weak.strong_count(), weak_host.strong_count(), weak_store.strong_count()), (0, 0, 0), "disconnected: {disconnects}");
        assert_eq!(Arc::strong_count(&desk.registry), 1, "disconnected: {disconnects}");
        desk.registry.close().await;
        drop(desk);
        idle().await;
        assert_eq!((registry.strong_count(), register.strong_count()), (0, 0));
    }
}

async fn nothing_of_it(desk: &Desk) {
    assert!(!desk.names().await.contains(&BUS.to_owned()));
    assert_eq!(desk.registry.status().await["monitoring"], json!(false));
    assert!(!desk.registry.holds(BUS));
}

#[tokio::test(start_paused = true)]
async fn where_working_with_the_registry_cannot_begin_nothing_of_it_runs_on() {
    for call in ["attend", "put_listing", "join", "layout"] {
        for later in [0, 1] {
            let place = Place::new(1);
            let (desk, faults) = place.faulty_desk();
            desk.registry.open().await.expect("open");
            let (store, own) = Faulty::over(place.store());
            let (bus, host) = bus_with(&desk, store.clone(), place.env(), &json!({}), false);
            let faults = if call == "join" || call == "layout" { own } else { faults };
            faults.next(call, &[vec![Fault::Passes; later], vec![Fault::Refused; 10]].concat());
            if bus.connect().await.is_ok() {
                assert!(call == "layout" || later == 1, "{call}");
                bus.disconnect(Duration::ZERO).await;
            }
            faults.heal(call);
            nothing_runs(&desk).await;
            let weak = (Arc::downgrade(&bus), Arc::downgrade(&store), Arc::downgrade(&host));
            drop((bus, store, host));
            tokio::time::sleep(Duration::from_secs(60)).await;
            assert_eq!((weak.0.strong_count(), weak.1.strong_count(), weak.2.strong_count()), (0, 0, 0), "{call} {later}");
            nothing_runs(&desk).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_bus_whose_registry_is_away_says_so_and_can_be_connected_when_it_is_back() {
    let place = Place::new(1);
    let (desk, faults) = place.faulty_desk();
    faults.be_away(true);
    let (bus, host) = bus_with(&desk, place.store(), place.env(), &json!({}), false);
    let error = bus.connect().await.expect_err("it is away");
    assert_eq!(error.code, Code::Connection);
    assert!(error.message.starts_with("the service registry: "), "{error}");
    faults.be_away(false);
    bus.connect().await.expect("connected");
    assert_eq!(desk.names().await, [BUS]);
    publish(&bus, &host, 1, "a.b", &json!(1)).await.expect("published");
    bus.disconnect(Duration::ZERO).await;
    let closed = place.desk();
    closed.registry.close().await;
    let (bus, _host) = bus_with(&closed, place.store(), place.env(), &json!({}), false);
    assert_eq!(bus.connect().await.expect_err("closed").code, Code::Closed);
}

#[tokio::test(start_paused = true)]
async fn disconnecting_takes_its_time_and_no_more_while_the_store_of_the_registry_hangs() {
    let place = Place::new(1);
    let (desk, faults) = place.faulty_desk();
    let (bus, _host) = bus_with(&desk, place.store(), place.env(), &json!({}), false);
    bus.connect().await.expect("connected");
    idle().await;
    faults.hang(true);
    let start = Instant::now();
    bus.disconnect(Duration::from_secs(1)).await;
    assert!(start.elapsed() <= Duration::from_secs(4), "{:?}", start.elapsed());
    assert!(!desk.registry.holds(BUS), "it is not renewed for nobody");
    faults.hang(false);
    tokio::time::sleep(Duration::from_secs(400)).await;
    assert!(!desk.names().await.contains(&BUS.to_owned()));
}

#[tokio::test(start_paused = true)]
async fn of_two_buses_with_one_registry_one_ends_and_the_bus_stays_listed() {
    let place = Place::new(1);
    let desk = place.desk_with(&json!({ "serviceTtlSeconds": 30 }));
    let (one, _one) = bus_with(&desk, place.store(), place.env(), &json!({}), false);
    let (other, _other) = bus_with(&desk, place.store(), place.env(), &json!({}), false);
    one.connect().await.expect("connected");
    other.connect().await.expect("connected");
    one.disconnect(Duration::ZERO).await;
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!((desk.names().await, desk.told(Kind::ServiceExpired, BUS)), (vec![BUS.to_owned()], 0));
    other.disconnect(Duration::ZERO).await;
    assert!(desk.names().await.is_empty());
}

/// Nothing is read for services that nobody knows any more, nor given up for want of a registry.
#[tokio::test(start_paused = true)]
async fn a_registry_that_is_closed_under_a_bus_ends_what_it_was_for_and_the_bus_goes_on() {
    let _still = Still::new();
    let place = Place::new(1);
    let server = Server::answering(|_| fine("")).await;
    let (desk, store) = (place.desk(), place.store());
    let (bus, host) = bus_with(&desk, store.clone(), place.env(), &json!({}), false);
    turning(bus.connect()).await.expect("connected");
    turning(desk.register_as(service_for("one", &server.url(""), &["order.*"]))).await;
    let routes = async || bus.services_status().await.expect("asked")["routes"].as_array().map_or(0, Vec::len);
    turn_until("it is read for it", STEP, async || routes().await == 1).await;
    turning(desk.registry.close()).await;
    turn_until("it ends", STEP, async || routes().await == 0).await;
    turn(Duration::from_secs(6), STEP).await;
    let posts = || server.requests().iter().filter(|request| request.starts_with("POST")).count();
    let before = posts();
    for (n, event_type) in ["order.placed", "agent.failed", "performance.metrics"].into_iter().enumerate() {
        let data = json!({ "agentId": "one", "source": "one", "metrics": { "errorRate": 90 } });
        turning(publish(&bus, &host, u32::try_from(n).expect("few") + 1, event_type, &data)).await.expect("published");
    }
    turn(Duration::from_secs(60), STEP * 10).await;
    assert_eq!(posts(), before, "nobody knows whether it is there");
    let (letters, _) = ossa::engine::store::Store::dead_letters(&*store, &DeadLetterQuery::default(), 10, None).await.expect("listed");
    assert!(letters.is_empty(), "{letters:?}");
    assert!(logged(&host, "work with the service registry") == 1);
    turning(bus.subscribe(9, "order.*", SubscribeOptions::default())).await.expect("subscribed");
    turning(publish(&bus, &host, 10, "order.placed", &json!("x"))).await.expect("published");
    let delivery = turning(host.next()).await;
    bus.settle(vec![(delivery.token, Verdict::Done)], 0);
    let start = Instant::now();
    turning(bus.disconnect(Duration::from_secs(1))).await;
    assert!(start.elapsed() < Duration::from_secs(5));
}

/// A program reads the same events as the engine does.
#[tokio::test(start_paused = true)]
async fn what_a_program_reads_and_what_the_engine_reads_are_apart() {
    let _still = Still::new();
    let place = Place::new(1);
    let server = Server::answering(|_| fine("")).await;
    let desk = place.desk();
    let (bus, host) = bus_with(&desk, place.store(), place.env(), &json!({}), false);
    turning(bus.connect()).await.expect("connected");
    turning(desk.register_as(service_for("one", &server.url(""), &["order.*", "agent.*"]))).await;
    let routes = async || bus.services_status().await.expect("asked")["routes"].as_array().map_or(0, Vec::len);
    turn_until("it is read for it", STEP, async || routes().await == 1).await;
    let group = |group: &str| SubscribeOptions { group: Some(group.to_owned()), ..SubscribeOptions::default() };
    turning(bus.subscribe(1, "order.*", group("mine"))).await.expect("subscribed");
    turning(bus.subscribe(2, "agent.*", group("mine"))).await.expect("subscribed");
    for n in 0..50_u32 {
        let event_type = if n % 2 == 0 { "order.placed" } else { "agent.started" };
        turning(publish(&bus, &host, n + 10, event_type, &json!({ "agentId": n }))).await.expect("published");
    }
    let (mut program, mut seen) = (Vec::new(), 0);
    turn_until("all have all", STEP, async || {
        for delivery in host.arrived() {
            assert!(delivery.subscription == 1 && &*delivery.partition.event_type == "order.placed" || delivery.subscription == 2);
            bus.settle(vec![(delivery.token, Verdict::Done)], 0);
            program.push(delivery);
        }
        seen = server.requests().iter().filter(|request| request.starts_with("POST")).count();
        program.len() >= 50 && seen >= 50
    })
    .await;
    turn(Duration::from_secs(5), STEP).await;
    assert_eq!((program.len() + host.arrived().len(), server.requests().iter().filter(|r| r.starts_with("POST")).count()), (50, 50));
    // The program's own subscription ends, and nothing of the engine's.
    turning(bus.unsubscribe(1, Duration::ZERO)).await.expect("ended");
    turning(publish(&bus, &host, 100, "order.placed", &json!("last"))).await.expect("published");
    turn_until("it is sent", STEP, async || server.requests().iter().filter(|r| r.starts_with("POST")).count() == 51).await;
    turning(bus.disconnect(Duration::ZERO)).await;
}

/// One service cannot be subscribed for: the others are, and it is tried again.
#[tokio::test(start_paused = true)]
async fn a_service_that_cannot_be_read_for_holds_up_no_other_and_is_tried_again() {
    for fault in [Fault::Refused, Fault::NotReached, Fault::ReplyLost] {
        let place = Place::new(1);
        let desk = place.desk();
        let (store, faults) = Faulty::over(place.store());
        let (bus, host) = bus_with(&desk, store, place.env(), &json!({}), false);
        bus.connect().await.expect("connected");
        faults.next("join", &[fault; 3]);
        for name in ["a", "b", "c"] {
            desk.register_as(service_for(name, "http://127.0.0.1:1", &["order.*"])).await;
        }
        tokio::time::sleep(Duration::from_secs(20)).await;
        let status = bus.services_status().await.expect("asked");
        assert_eq!(status["routes"].as_array().map(Vec::len), Some(3), "{status}");
        assert!(status.get("problem").is_none(), "{status}");
        assert!(logged(&host, "work with the service registry") <= 2);
        bus.disconnect(Duration::ZERO).await;
    }
}

/// That it was taken out is remembered while the store of the registry cannot be asked.
#[tokio::test(start_paused = true)]
async fn the_group_of_a_service_that_was_taken_out_during_trouble_is_deleted_after_it() {
    let place = Place::new(1);
    let (desk, faults) = place.faulty_desk();
    let (bus, _host) = bus_with(&desk, place.store(), place.env(), &json!({}), false);
    bus.connect().await.expect("connected");
    desk.register_as(service_for("one", "http://127.0.0.1:1", &["order.*"])).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let groups = async || {
        let topology = ossa::engine::store::Store::topology(&*place.store()).await.expect("asked");
        topology.groups.iter().filter(|group| group.group == "service:one").count()
    };
    assert_eq!(groups().await, 1);
    faults.next("attending", &[Fault::NotReached; 5]);
    assert!(desk.registry.unregister("one").await.expect("taken out"));
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(groups().await, 0);
    bus.disconnect(Duration::ZERO).await;
}
