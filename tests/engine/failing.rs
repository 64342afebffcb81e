//! What becomes of deliveries that fail, come too late, or cannot be read.

use ossa::engine::consume::Verdict;
use ossa::engine::host::{Delivery, Kind};
use ossa::engine::options::NackOptions;
use ossa::engine::settle::Failure;
use ossa::engine::store::DeadLetterQuery;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::support::events::partition;
use crate::support::harness::{Place, TestBus, data, failed, idle, ms, nack, timed_out};

/// The next delivery, and how long after `since` it came, ms.
async fn next_after(bus: &TestBus, since: Instant) -> (Delivery, u128) {
    let delivery = bus.host.next().await;
    (delivery, since.elapsed().as_millis())
}

fn retry(max_attempts: u32, initial_delay: u32) -> Value {
    json!({ "retry": { "maxAttempts": max_attempts, "initialDelay": initial_delay, "backoffMultiplier": 2 } })
}

#[tokio::test(start_paused = true)]
async fn a_failed_event_comes_again_to_the_millisecond_until_its_attempts_are_over() {
    let bus = Place::new(1).bus().await;
    bus.subscribe("a", retry(3, 100)).await;
    bus.publish("a", "x").await;
    let mut times = Vec::new();
    let mut since = Instant::now();
    for attempt in 1..=4 {
        let (delivery, after) = next_after(&bus, since).await;
        assert_eq!((delivery.attempt, delivery.redelivered), (attempt, attempt > 1));
        times.push(after);
        since = Instant::now();
        bus.settle(&delivery, failed("boom"));
    }
    for (after, delay) in times.iter().zip([0, 100, 200, 400]) {
        assert!((delay..=delay + 2).contains(after), "{times:?}");
    }
    idle().await;
    assert_eq!(bus.dead_letters().await, [("x".into(), "max-attempts".into())]);
    assert_eq!((bus.pending("a", "default").await, bus.in_flight()), (0, 0));
    let retried = bus.host.said(Kind::Retried);
    assert_eq!(retried.iter().map(|about| about["delayMs"].as_u64().unwrap()).collect::<Vec<_>>(), [100, 200, 400]);
    let dead = &bus.host.said(Kind::DeadLettered)[0];
    assert_eq!((dead["reason"].as_str(), dead["attempt"].as_u64(), dead["error"].as_str()), (Some("max-attempts"), Some(4), Some("boom")));
    assert_eq!(bus.bus.metrics()["eventsFailed"], 4);
}

#[tokio::test(start_paused = true)]
async fn jitter_spreads_retries_over_their_range() {
    let place = Place::new(2);
    let bus = place.bus_with(json!({ "defaults": { "retry": { "initialDelay": 1000, "jitter": "equal" } } })).await;
    bus.subscribe("a", json!({})).await;
    bus.publish_many("a", 100).await;
    for delivery in bus.host.next_many(100).await {
        bus.settle(&delivery, failed("boom"));
    }
    let since = Instant::now();
    let mut times = Vec::new();
    while times.len() < 100 {
        let (delivery, after) = next_after(&bus, since).await;
        bus.done(&delivery);
        times.push(after);
    }
    assert!(times.iter().all(|after| (500..=1002).contains(after)), "{times:?}");
    assert!(times[0] < 600 && times[99] > 900, "{times:?}");
}

#[tokio::test(start_paused = true)]
async fn the_events_own_retry_settings_win() {
    let bus = Place::new(3).bus().await;
    bus.subscribe("a", retry(3, 100)).await;
    bus.publish_with("a", "once", &retry(0, 100)).await;
    bus.publish_with("a", "later", &json!({ "retry": { "initialDelay": 5000 } })).await;
    for delivery in bus.host.next_many(2).await {
        bus.settle(&delivery, failed("boom"));
    }
    let (delivery, after) = next_after(&bus, Instant::now()).await;
    assert_eq!((data(&delivery), after / 10), ("later", 500));
    assert_eq!(bus.dead_letters().await, [("once".into(), "max-attempts".into())]);
}

#[tokio::test(start_paused = true)]
async fn a_waiting_retry_takes_no_place() {
    let bus = Place::new(4).bus().await;
    bus.subscribe("a", json!({ "maxUnacknowledged": 1, "retry": { "initialDelay": 10_000 } })).await;
    bus.publish_many("a", 2).await;
    let first = bus.host.next().await;
    bus.settle(&first, failed("boom"));
    let second = bus.host.next().await;
    assert_eq!((data(&second), second.attempt), ("1", 1));
    // The place is taken when the retry falls due: it comes next.
    tokio::time::sleep(ms(20_000)).await;
    bus.publish("a", "third").await;
    bus.done(&second);
    let next = bus.host.next().await;
    assert_eq!((data(&next), next.attempt), ("0", 2));
}

#[tokio::test(start_paused = true)]
async fn strategies_and_nack_decide_at_once() {
    let bus = Place::new(5).bus().await;
    bus.subscribe("retry", json!({})).await;
    bus.subscribe("dlq", json!({ "errorStrategy": "dlq" })).await;
    bus.subscribe("ignore", json!({ "errorStrategy": "ignore" })).await;
    for event_type in ["retry", "dlq", "ignore"] {
        bus.publish_many(event_type, 3).await;
    }
    let buried = Verdict::Failed(Failure::Nack(NackOptions { dead_letter: true, ..NackOptions::default() }));
    for delivery in bus.host.next_many(9).await {
        let verdict = match data(&delivery) {
            "0" => failed("boom"),
            "1" => nack(60_000),
            _ => buried.clone(),
        };
        bus.settle(&delivery, verdict);
    }
    idle().await;
    let mut dead = bus.dead_letters().await;
    dead.sort();
    let letters = [("0", "handler"), ("2", "handler"), ("2", "handler"), ("2", "handler")];
    assert_eq!(dead, letters.map(|(data, reason)| (data.to_owned(), reason.to_owned())));
    let mut pending = Vec::new();
    for event_type in ["retry", "dlq", "ignore"] {
        pending.push(bus.pending(event_type, "default").await);
    }
    assert_eq!(pending, [2, 1, 0], "an error and a nack wait, a nack waits, nothing waits");
}

#[tokio::test(start_paused = true)]
async fn all_handlers_of_a_type_are_called_and_only_the_failed_again() {
    let bus = Place::new(6).bus().await;
    let low = bus.subscribe("a", json!({ "priority": -1 })).await;
    let high = bus.subscribe("a", json!({ "priority": 5 })).await;
    let ignoring = bus.subscribe("**", json!({ "errorStrategy": "ignore" })).await;
    bus.publish("a", "x").await;
    let calls = bus.host.next_many(3).await;
    assert_eq!(calls.iter().map(|call| call.subscription).collect::<Vec<_>>(), [high, ignoring, low]);
    bus.done(&calls[0]);
    bus.settle(&calls[1], failed("not important"));
    idle().await;
    assert_eq!(bus.in_flight(), 1, "one handler still runs");
    bus.settle(&calls[2], failed("boom"));
    let again = bus.host.next().await;
    assert_eq!((again.subscription, again.attempt), (low, 2));
    bus.done(&again);
    idle().await;
    assert!(bus.host.arrived().is_empty());
    assert_eq!((bus.pending("a", "default").await, bus.in_flight()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_gave_an_event_back_gets_it_again_whatever_the_others_did() {
    for (verdict, calls_after) in [(Verdict::Done, 1), (failed("boom"), 2)] {
        let bus = Place::new(7).bus().await;
        let one = bus.subscribe("a", json!({})).await;
        let two = bus.subscribe("a", json!({})).await;
        bus.publish("a", "x").await;
        let calls = bus.host.next_many(2).await;
        assert_eq!((calls[0].subscription, calls[1].subscription), (one, two));
        bus.settle(&calls[0], verdict);
        bus.settle(&calls[1], Verdict::HandBack);
        let again = bus.host.next_many(calls_after).await;
        assert_eq!(again.last().unwrap().subscription, two);
        bus.all_done(&again);
        idle().await;
        assert!(bus.host.arrived().is_empty());
        assert_eq!(bus.pending("a", "default").await, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_retry_for_a_handler_that_has_gone_is_done() {
    let (bus, faults) = Place::new(8).faulty_bus().await;
    bus.subscribe("a", json!({})).await;
    let failing = bus.subscribe("a", retry(3, 1000)).await;
    bus.publish("a", "x").await;
    let calls = bus.host.next_many(2).await;
    bus.done(&calls[0]);
    bus.settle(&calls[1], failed("boom"));
    bus.bus.unsubscribe(failing, ms(100)).await.unwrap();
    tokio::time::sleep(ms(5000)).await;
    assert!(bus.host.arrived().is_empty());
    assert_eq!(bus.pending("a", "default").await, 0);
    assert!(faults.calls("claim_due") < 5, "{}", faults.calls("claim_due"));
}

#[tokio::test(start_paused = true)]
async fn a_late_success_acknowledges() {
    let bus = Place::new(9).bus().await;
    bus.subscribe("a", retry(3, 10_000)).await;
    bus.publish("a", "x").await;
    let delivery = bus.host.next().await;
    bus.settle(&delivery, timed_out());
    idle().await;
    assert_eq!((bus.in_flight(), bus.pending("a", "default").await), (0, 1));
    bus.bus.settle(vec![(delivery.token, Verdict::Done)], 77);
    assert!(bus.host.confirmed(77).await.is_none());
    assert_eq!(bus.pending("a", "default").await, 0);
    tokio::time::sleep(ms(20_000)).await;
    assert!(bus.host.arrived().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_late_success_changes_nothing_where_all_is_over() {
    let bus = Place::new(19).bus().await;
    bus.subscribe("dead", retry(0, 1)).await;
    bus.subscribe("retried", retry(3, 1)).await;
    bus.publish("dead", "x").await;
    bus.publish("retried", "y").await;
    let calls = bus.host.next_many(2).await;
    for call in &calls {
        bus.settle(call, timed_out());
    }
    bus.done(&bus.host.next().await);
    idle().await;
    bus.all_done(&calls);
    idle().await;
    assert_eq!(bus.dead_letters().await, [("x".into(), "max-attempts".into())]);
    assert_eq!((bus.host.said(Kind::Consumed).len(), bus.host.said(Kind::DeadLettered).len()), (1, 1));
    assert_eq!(bus.bus.metrics()["eventsConsumed"], 1);
}

#[tokio::test(start_paused = true)]
async fn a_late_success_is_not_the_success_of_others() {
    let bus = Place::new(10).bus().await;
    bus.subscribe("a", retry(3, 1000)).await;
    let second = bus.subscribe("a", retry(3, 1000)).await;
    bus.publish("a", "x").await;
    let calls = bus.host.next_many(2).await;
    bus.settle(&calls[0], timed_out());
    bus.settle(&calls[1], failed("boom"));
    idle().await;
    bus.done(&calls[0]);
    idle().await;
    assert_eq!(bus.pending("a", "default").await, 1);
    let again = bus.host.next().await;
    assert_eq!(again.subscription, second);
    bus.done(&again);
    idle().await;
    assert!(bus.host.arrived().is_empty(), "the late one is not called again");
    assert_eq!(bus.pending("a", "default").await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_late_success_while_others_run_counts() {
    let bus = Place::new(11).bus().await;
    bus.subscribe("a", retry(3, 1000)).await;
    bus.subscribe("a", retry(3, 1000)).await;
    bus.publish("a", "x").await;
    let calls = bus.host.next_many(2).await;
    bus.settle(&calls[0], timed_out());
    bus.done(&calls[0]);
    bus.done(&calls[1]);
    idle().await;
    assert_eq!((bus.pending("a", "default").await, bus.in_flight()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn handlers_past_their_time_are_bounded_and_what_waits_goes_to_others() {
    let place = Place::new(12);
    let bus = place.bus().await;
    bus.subscribe("a", json!({ "concurrency": 3, "maxUnacknowledged": 20, "retry": { "maxAttempts": 0 } })).await;
    bus.publish_many("a", 30).await;
    let mut hanging = Vec::new();
    loop {
        idle().await;
        let calls = bus.host.arrived();
        if calls.is_empty() {
            break;
        }
        for call in &calls {
            bus.settle(call, timed_out());
        }
        hanging.extend(calls);
    }
    assert_eq!(hanging.len(), 6, "twice its concurrency");
    assert_eq!(bus.host.said(Kind::Log).iter().filter(|said| said.to_string().contains("consumerTimeout")).count(), 1);
    let other = place.bus().await;
    other.subscribe("a", json!({})).await;
    let rest = other.host.next_many(24).await;
    assert!(rest.iter().all(|delivery| delivery.attempt == 1), "what waited was handed back, and does not count");
    other.all_done(&rest);
    // One ends: there is room for one.
    bus.settle(&hanging[0], failed("at last"));
    other.disconnect(ms(0)).await;
    bus.publish_many("a", 5).await;
    idle().await;
    assert_eq!(bus.host.arrived().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_expired_event_is_not_delivered() {
    let place = Place::new(13);
    // No process looks after the streams: the reader meets what expired.
    let (store, faults) = crate::support::faulty::Faulty::over(place.store());
    let bus = TestBus::connect(store, place.env(), json!({ "defaults": { "ttl": 10 } })).await;
    faults.next("sweep", &[crate::support::faulty::Fault::NotReached; 100]);
    let id = bus.subscribe("a", json!({})).await;
    bus.bus.pause(id, true);
    idle().await;
    bus.publish("a", "default").await;
    bus.publish_with("a", "given", &json!({ "ttl": 10 })).await;
    bus.publish_with("a", "lives", &json!({ "ttl": 60 })).await;
    tokio::time::sleep(ms(10_000)).await;
    bus.bus.pause(id, false);
    let delivery = bus.host.next().await;
    assert_eq!(data(&delivery), "lives");
    bus.done(&delivery);
    idle().await;
    assert_eq!(bus.dead_letters().await, [("default".into(), "expired".into())]);
    let said = bus.host.said(Kind::Expired);
    assert_eq!(said.iter().map(|about| about["deadLettered"].as_bool().unwrap()).collect::<Vec<_>>(), [true, false]);
    assert_eq!(bus.pending("a", "default").await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_retry_is_not_expired_by_its_ttl() {
    let bus = Place::new(14).bus().await;
    bus.subscribe("a", retry(3, 5000)).await;
    bus.publish_with("a", "x", &json!({ "ttl": 2 })).await;
    let first = bus.host.next().await;
    bus.settle(&first, failed("boom"));
    assert_eq!(bus.host.next().await.attempt, 2);
}

#[tokio::test(start_paused = true)]
async fn what_this_bus_did_not_write_becomes_a_dead_letter_with_the_reason() {
    let place = Place::new(15);
    let bus = place.bus().await;
    bus.subscribe("a", json!({})).await;
    let store = place.store();
    store.add_foreign(&partition("a"), vec![(b"key".to_vec(), b"value".to_vec())]).unwrap();
    idle().await;
    bus.publish("a", "x").await;
    bus.settle(&bus.host.next().await, Verdict::Failed(Failure::Malformed("not JSON".into())));
    idle().await;
    let reasons: Vec<String> = bus.dead_letters().await.into_iter().map(|(_, reason)| reason).collect();
    assert_eq!(reasons, ["malformed", "malformed"]);
    assert!(bus.host.arrived().is_empty());
    assert_eq!(bus.pending("a", "default").await, 0);
    assert!(bus.host.said(Kind::DeadLettered)[0]["error"].as_str().unwrap().contains("key"));
}

#[tokio::test(start_paused = true)]
async fn without_a_dead_letter_queue_it_is_said_and_dropped() {
    let place = Place::new(16);
    let bus = place.bus_with(json!({ "deadLetterQueue": { "enabled": false } })).await;
    bus.subscribe("a", retry(0, 1)).await;
    bus.publish("a", "x").await;
    bus.settle(&bus.host.next().await, failed("boom"));
    idle().await;
    assert!(bus.dead_letters().await.is_empty());
    assert_eq!(bus.pending("a", "default").await, 0);
    assert!(bus.host.said(Kind::Log)[0]["message"].as_str().unwrap().contains("dropped"));
}

#[tokio::test(start_paused = true)]
async fn a_redriven_event_goes_to_the_group_that_failed_it_only() {
    let bus = Place::new(17).bus().await;
    let one = bus.subscribe("a", json!({ "group": "one", "errorStrategy": "dlq" })).await;
    bus.subscribe("a", json!({ "group": "two" })).await;
    bus.publish("a", "x").await;
    for delivery in bus.host.next_many(2).await {
        let fails = delivery.subscription == one;
        bus.settle(&delivery, if fails { failed("boom") } else { Verdict::Done });
    }
    idle().await;
    let consumed = bus.host.said(Kind::Consumed).len();
    let query = DeadLetterQuery { event_type: Some("a".into()), ..DeadLetterQuery::default() };
    assert_eq!(bus.bus.redrive(&query).await.unwrap(), 1);
    let again = bus.host.next().await;
    assert_eq!((again.subscription, again.attempt), (one, 1));
    bus.done(&again);
    idle().await;
    assert!(bus.host.arrived().is_empty());
    assert_eq!((bus.pending("a", "one").await, bus.pending("a", "two").await), (0, 0));
    assert_eq!(bus.host.said(Kind::Consumed).len(), consumed + 1, "the other group says nothing");
}

#[tokio::test(start_paused = true)]
async fn a_confirmation_answers_once_all_verdicts_of_its_call_are_stored() {
    let (bus, faults) = Place::new(18).faulty_bus().await;
    bus.subscribe("a", json!({})).await;
    bus.subscribe("b", json!({})).await;
    bus.publish_many("a", 3).await;
    bus.publish_many("b", 3).await;
    let calls = bus.host.next_many(6).await;
    faults.next("settle", &[crate::support::faulty::Fault::NotReached]);
    bus.bus.settle(calls.iter().map(|call| (call.token, Verdict::Done)).collect(), 5);
    idle().await;
    assert!(!bus.host.is_confirmed(5), "a part waits for the server");
    assert!(bus.host.confirmed(5).await.is_none());
    assert_eq!((bus.pending("a", "default").await, bus.pending("b", "default").await), (0, 0));

    bus.publish("a", "x").await;
    let call = bus.host.next().await;
    faults.next("settle", &[crate::support::faulty::Fault::Refused]);
    bus.bus.settle(vec![(call.token, Verdict::Done)], 6);
    assert!(bus.host.confirmed(6).await.is_some(), "the server refused");
    bus.bus.settle(vec![(call.token, Verdict::Done)], 7);
    assert!(bus.host.confirmed(7).await.is_none(), "of what is over nothing is left to store");
}
