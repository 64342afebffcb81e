//! Pausing, closing, and the end of a bus: nothing counts that was not handled, and everything ends in time.

use ossa::engine::consume::Verdict;
use ossa::engine::error::Code;
use ossa::engine::host::Kind;
use serde_json::json;
use tokio::time::Instant;

use crate::support::events::group_state;
use crate::support::events::partition;
use crate::support::faulty::Fault;
use crate::support::harness::{Place, data, failed, idle, ms};

#[tokio::test(start_paused = true)]
async fn pausing_hands_back_what_waits_and_does_not_count() {
    let place = Place::new(1);
    let bus = place.bus().await;
    let id = bus.subscribe("a", json!({ "concurrency": 1, "maxUnacknowledged": 10 })).await;
    bus.publish_many("a", 10).await;
    let running = bus.host.next().await;
    idle().await;
    assert_eq!(bus.in_flight(), 10);
    bus.bus.pause(id, true);
    idle().await;
    assert_eq!(bus.in_flight(), 1, "what runs goes on");
    let other = place.bus().await;
    other.subscribe("a", json!({})).await;
    let rest = other.host.next_many(9).await;
    assert!(rest.iter().all(|delivery| delivery.attempt == 1));
    other.all_done(&rest);
    bus.done(&running);
    bus.publish("a", "x").await;
    other.done(&other.host.next().await);
    idle().await;
    assert!(bus.host.arrived().is_empty());
    other.disconnect(ms(0)).await;
    bus.publish("a", "y").await;
    bus.bus.pause(id, false);
    assert_eq!(data(&bus.host.next().await), "y");
}

#[tokio::test(start_paused = true)]
async fn what_arrives_after_a_pause_is_handed_back() {
    for seed in 0..20 {
        let place = Place::new(seed);
        let (bus, faults) = place.faulty_bus().await;
        let id = bus.subscribe("a", json!({ "retry": { "initialDelay": 50 } })).await;
        bus.publish_many("a", 20).await;
        for delivery in bus.host.next_many(20).await {
            bus.settle(&delivery, failed("boom"));
        }
        // A claim is on its way when the pause comes.
        faults.at_random(seed, 0.0, ms(60));
        tokio::time::sleep(ms(60 + 5 * seed)).await;
        bus.bus.pause(id, true);
        tokio::time::sleep(ms(500)).await;
        let called = bus.host.arrived();
        assert_eq!(bus.in_flight(), called.len() as u64, "seed {seed}: nothing waits");
        let other = place.bus().await;
        other.subscribe("a", json!({})).await;
        other.all_done(&other.host.next_many(20 - called.len()).await);
        bus.all_done(&called);
        tokio::time::sleep(ms(500)).await;
        assert_eq!((bus.pending("a", "default").await, bus.in_flight()), (0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn closing_waits_for_handlers_and_no_longer_than_its_time() {
    let place = Place::new(3);
    let bus = place.bus().await;
    let id = bus.subscribe("a", json!({})).await;
    bus.publish_many("a", 2).await;
    let calls = bus.host.next_many(2).await;
    let start = Instant::now();
    let (closed, ()) = tokio::join!(bus.bus.unsubscribe(id, ms(5000)), async {
        tokio::time::sleep(ms(1000)).await;
        bus.done(&calls[0]);
    });
    closed.unwrap();
    assert_eq!(start.elapsed().as_millis() / 10, 500);
    idle().await;
    let (pending, _, consumers, _) = group_state(&bus.store, &partition("a"), "default").await;
    assert_eq!((pending, consumers.len(), bus.in_flight()), (1, 0, 0), "handed back, and the consumer is gone");
    // Too late: it is somebody else's.
    bus.settle(&calls[1], failed("boom"));
    let other = place.bus().await;
    other.subscribe("a", json!({})).await;
    assert_eq!(other.host.next().await.attempt, 1);

    let id = bus.subscribe("b", json!({})).await;
    bus.publish("b", "x").await;
    let call = bus.host.next().await;
    let start = Instant::now();
    let (closed, ()) = tokio::join!(bus.bus.unsubscribe(id, ms(60_000)), async {
        tokio::time::sleep(ms(200)).await;
        bus.done(&call);
    });
    closed.unwrap();
    assert!(start.elapsed() < ms(300), "it ends with its handlers");
    idle().await;
    assert_eq!(bus.pending("b", "default").await, 0);
    assert_eq!(bus.host.said(Kind::SubscriptionCancelled).len(), 2);
}

#[tokio::test(start_paused = true)]
async fn closing_one_handler_of_a_type_leaves_the_others_theirs() {
    let bus = Place::new(4).bus().await;
    let closing = bus.subscribe("a", json!({})).await;
    let staying = bus.subscribe("a", json!({})).await;
    bus.publish_many("a", 2).await;
    let calls = bus.host.next_many(4).await;
    let of = |id, n: &str| calls.iter().find(|call| call.subscription == id && data(call) == n).unwrap();
    bus.done(of(closing, "0"));
    bus.bus.unsubscribe(closing, ms(1000)).await.unwrap();
    bus.done(of(staying, "0"));
    bus.done(of(staying, "1"));
    idle().await;
    tokio::time::sleep(ms(600)).await;
    assert!(bus.host.arrived().is_empty(), "who stays handled both");
    assert_eq!((bus.pending("a", "default").await, bus.in_flight()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_failure_counts_though_its_subscription_closed() {
    let bus = Place::new(5).bus().await;
    let closing = bus.subscribe("a", json!({ "errorStrategy": "dlq" })).await;
    let staying = bus.subscribe("a", json!({})).await;
    bus.publish("a", "x").await;
    let calls = bus.host.next_many(2).await;
    bus.settle(calls.iter().find(|call| call.subscription == closing).unwrap(), failed("boom"));
    bus.bus.unsubscribe(closing, ms(1000)).await.unwrap();
    bus.done(calls.iter().find(|call| call.subscription == staying).unwrap());
    idle().await;
    assert_eq!(bus.dead_letters().await, [("x".into(), "handler".into())]);
}

#[tokio::test(start_paused = true)]
async fn a_subscription_made_again_at_once_gets_everything_once() {
    // Reads and claims of the one that ended come in while the next one is there.
    for seed in 0..20 {
        let place = Place::new(seed);
        let (bus, faults) = place.faulty_bus().await;
        faults.at_random(seed, 0.0, ms(30));
        bus.publish_many("a", 200).await;
        let mut done = 0;
        for _ in 0..30 {
            let id = bus.subscribe("a", json!({ "maxUnacknowledged": 7 })).await;
            tokio::time::sleep(ms(seed * 3)).await;
            for (i, delivery) in bus.host.arrived().iter().enumerate() {
                assert_eq!((delivery.attempt, delivery.subscription), (1, id));
                if i % 3 != 0 {
                    bus.done(delivery);
                    done += 1;
                }
            }
            bus.bus.unsubscribe(id, ms(0)).await.unwrap();
            // What was called in between was given up with the subscription.
            bus.host.arrived();
        }
        faults.end();
        bus.subscribe("a", json!({})).await;
        while done < 200 {
            let delivery = bus.host.next().await;
            bus.done(&delivery);
            done += 1;
        }
        tokio::time::sleep(ms(100)).await;
        assert!(bus.host.arrived().is_empty());
        assert_eq!((bus.pending("a", "default").await, bus.in_flight()), (0, 0), "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_unsubscribe_while_joining_ends_the_join() {
    let place = Place::new(6);
    let (bus, faults) = place.faulty_bus().await;
    faults.hang(true);
    let subscribing = bus.try_subscribe("a", json!({}));
    let ((id, result), ()) = tokio::join!(subscribing, async {
        idle().await;
        bus.bus.unsubscribe(1, ms(1000)).await.unwrap();
    });
    assert_eq!((id, result.unwrap_err().code), (1, Code::Closed));
    faults.hang(false);
    idle().await;
    assert_eq!(bus.bus.status().await["subscriptions"], 0);
    // Nothing of it is left: others may have other options.
    tokio::time::sleep(ms(10_000)).await;
    place.bus().await.subscribe("a", json!({ "autoAck": false })).await;
}

#[tokio::test(start_paused = true)]
async fn a_disconnect_while_joining_ends_the_join() {
    let (bus, faults) = Place::new(7).faulty_bus().await;
    faults.hang(true);
    let start = Instant::now();
    let ((_, result), ()) = tokio::join!(bus.try_subscribe("a", json!({})), async {
        idle().await;
        bus.disconnect(ms(60_000)).await;
    });
    assert_eq!(result.unwrap_err().code, Code::Closed);
    assert!(start.elapsed() < ms(5000));
}

#[tokio::test(start_paused = true)]
async fn a_disconnect_drains_hands_back_and_says_so() {
    let place = Place::new(8);
    let bus = place.bus().await;
    bus.subscribe("a", json!({ "concurrency": 2 })).await;
    bus.publish_many("a", 10).await;
    let calls = bus.host.next_many(2).await;
    let watcher = place.bus().await;
    watcher.subscribe("system.shutdown", json!({ "group": "watcher" })).await;
    let start = Instant::now();
    tokio::join!(bus.disconnect(ms(2000)), async {
        tokio::time::sleep(ms(500)).await;
        bus.bus.settle(vec![(calls[0].token, Verdict::Done)], 3);
    });
    assert!(bus.host.confirmed(3).await.is_none(), "handlers that finish may still settle");
    assert!((2000..2100).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
    assert!(watcher.host.next().await.text.data.contains("disconnect"));
    let (pending, _, consumers, _) = group_state(&watcher.store, &partition("a"), "default").await;
    assert_eq!((pending, consumers.len()), (9, 0));
    watcher.subscribe("a", json!({})).await;
    let rest = watcher.host.next_many(9).await;
    assert!(rest.iter().all(|delivery| delivery.attempt == 1));
    // What comes after the end is answered, too.
    bus.bus.settle(vec![(calls[1].token, Verdict::Done)], 4);
    assert_eq!(bus.host.confirmed(4).await.unwrap().code, Code::Closed);
    assert_eq!(bus.try_subscribe("a", json!({})).await.1.unwrap_err().code, Code::Closed);
    bus.disconnect(ms(0)).await;
}

#[tokio::test(start_paused = true)]
async fn a_disconnect_while_the_store_hangs_is_done_in_time() {
    let (bus, faults) = Place::new(9).faulty_bus().await;
    bus.subscribe("a", json!({})).await;
    bus.publish_many("a", 50).await;
    let calls = bus.host.next_many(50).await;
    faults.hang(true);
    bus.bus.settle(calls[..20].iter().map(|call| (call.token, Verdict::Done)).collect(), 9);
    let start = Instant::now();
    bus.disconnect(ms(1000)).await;
    assert!(start.elapsed() < ms(1000 + 5000), "{:?}", start.elapsed());
    assert_eq!(bus.host.confirmed(9).await.unwrap().code, Code::Closed, "nobody waits for ever");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_asked_of_the_store_during_a_long_drain() {
    let (bus, faults) = Place::new(10).faulty_bus().await;
    bus.subscribe("a", json!({})).await;
    bus.publish("a", "x").await;
    let call = bus.host.next().await;
    let parks = || tokio::runtime::Handle::current().metrics().worker_park_count(0);
    let (calls, before) = (faults.calls("due") + faults.calls("read"), parks());
    tokio::join!(bus.disconnect(ms(60_000)), async {
        tokio::time::sleep(ms(30_000)).await;
        assert!(parks() - before < 1500, "woken {} times", parks() - before);
        bus.done(&call);
    });
    assert!(faults.calls("due") + faults.calls("read") - calls <= 1);
}

#[tokio::test(start_paused = true)]
async fn options_of_a_group_must_agree() {
    let place = Place::new(11);
    let (one, two) = (place.bus().await, place.bus().await);
    let id = one.subscribe("a.*", json!({})).await;
    let other = || json!({ "autoAck": false });
    for bus in [&one, &two] {
        let error = bus.try_subscribe("a.*", other()).await.1.unwrap_err();
        assert_eq!(error.code, Code::InvalidArgument);
        assert!(error.message.contains("autoAck"), "{error}");
    }
    // Another pattern of the group is another matter, and so is another group.
    one.subscribe("a.b", other()).await;
    two.subscribe("a.*", json!({ "autoAck": false, "group": "second" })).await;
    one.bus.unsubscribe(id, ms(0)).await.unwrap();
    idle().await;
    two.subscribe("a.*", other()).await;
}

#[tokio::test(start_paused = true)]
async fn a_join_that_fails_leaves_nothing_behind() {
    let place = Place::new(12);
    let (bus, faults) = place.faulty_bus().await;
    faults.next("join", &[Fault::ReplyLost]);
    assert_eq!(bus.try_subscribe("a", json!({})).await.1.unwrap_err().code, Code::Connection);
    faults.next("renew", &[Fault::NotReached]);
    assert_eq!(bus.try_subscribe("a", json!({})).await.1.unwrap_err().code, Code::Connection);
    idle().await;
    place.bus().await.subscribe("a", json!({ "autoAck": false })).await;
    assert_eq!(bus.bus.status().await["subscriptions"], 0);
}

#[tokio::test(start_paused = true)]
async fn a_defect_in_the_task_is_told_and_nobody_waits_for_ever() {
    let place = Place::new(13);
    let bus = place.bus().await;
    let id = bus.subscribe("a", json!({})).await;
    bus.publish("a", "x").await;
    let call = bus.host.next().await;
    bus.host.panic_at_delivery();
    bus.publish("a", "y").await;
    let told = bus.host.hears(Kind::Error, |_| true).await;
    assert_eq!(told["code"], "ERR_INTERNAL");
    assert!(told["message"].as_str().unwrap().contains("a defect on purpose"));
    assert_eq!(bus.try_subscribe("b", json!({})).await.1.unwrap_err().code, Code::Internal);
    assert_eq!(bus.bus.unsubscribe(id, ms(1000)).await.unwrap_err().code, Code::Internal);
    bus.bus.settle(vec![(call.token, Verdict::Done)], 2);
    assert_eq!(bus.host.confirmed(2).await.unwrap().code, Code::Internal);
    assert_eq!(bus.bus.status().await["status"], "unhealthy");
    assert_eq!(bus.in_flight(), 0);
    // Publishing goes on, and what it held goes to others.
    bus.publish("a", "z").await;
    let other = place.bus().await;
    other.subscribe("a", json!({})).await;
    let rest = other.host.next_many(3).await;
    assert!(rest.iter().any(|delivery| data(delivery) == "x"));
    let start = Instant::now();
    bus.disconnect(ms(10_000)).await;
    assert!(start.elapsed() < ms(1000));
}
