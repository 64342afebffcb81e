//! Leases that lapse, threads that fall silent, replies that are lost: nothing is lost, and nobody is held up.

use std::collections::HashSet;

use ossa::engine::consume::Verdict;
use ossa::engine::host::Kind;
use ossa::engine::store::{Disposal, ReadFrom, Settled, Store};
use serde_json::json;

use crate::support::events::{event, group_state, partition};
use crate::support::faulty::Fault;
use crate::support::harness::{Place, TestBus, data, failed, idle, ms};

async fn consumers(bus: &TestBus, event_type: &str) -> Vec<String> {
    group_state(&bus.store, &partition(event_type), "default").await.2
}

#[tokio::test(start_paused = true)]
async fn a_lapsed_lease_gives_everything_to_others_and_goes_on_under_a_new_name() {
    let place = Place::new(1);
    let (bus, faults) = place.faulty_bus().await;
    let keeper = place.bus().await;
    bus.subscribe("a", json!({ "concurrency": 2, "maxUnacknowledged": 10 })).await;
    bus.publish_many("a", 10).await;
    let calls = bus.host.next_many(2).await;
    let before = consumers(&bus, "a").await;
    faults.renew(false);
    tokio::time::sleep(ms(12_000)).await;
    // Somebody else has all ten now.
    keeper.subscribe("a", json!({})).await;
    let taken = keeper.host.next_many(10).await;
    // The first holder says how its handlers ended: a failure changes nothing, a success is one.
    bus.settle(&calls[0], failed("boom"));
    bus.done(&calls[1]);
    idle().await;
    assert_eq!(bus.pending("a", "default").await, 9);
    keeper.all_done(&taken);
    idle().await;
    assert_eq!((bus.pending("a", "default").await, keeper.in_flight(), bus.in_flight()), (0, 0, 0));
    assert!(keeper.dead_letters().await.is_empty());

    faults.renew(true);
    tokio::time::sleep(ms(3000)).await;
    keeper.disconnect(ms(0)).await;
    bus.publish("a", "after").await;
    let next = bus.host.next().await;
    assert_eq!(data(&next), "after");
    let after = consumers(&bus, "a").await;
    assert!(after.len() == 1 && after != before, "{before:?} {after:?}");
    assert!(bus.host.said(Kind::Log).iter().any(|said| said.to_string().contains(&after[0])));
}

#[tokio::test(start_paused = true)]
async fn a_process_that_was_stopped_calls_no_handler_for_what_it_held() {
    let place = Place::new(2);
    let bus = place.bus().await;
    bus.subscribe("a", json!({ "concurrency": 1, "maxUnacknowledged": 5 })).await;
    bus.publish_many("a", 5).await;
    let call = bus.host.next().await;
    idle().await;
    // The clock jumps: nothing ran in between.
    tokio::time::advance(ms(20_000)).await;
    bus.done(&call);
    let rest = bus.host.next_many(1).await;
    assert_eq!(rest[0].attempt, 1, "what waited was handed back");
    let mut seen = HashSet::new();
    let mut next = rest[0].clone();
    loop {
        assert!(seen.insert(data(&next).to_owned()));
        bus.done(&next);
        if seen.len() == 4 {
            break;
        }
        next = bus.host.next().await;
    }
    tokio::time::sleep(ms(3000)).await;
    assert!(bus.host.arrived().is_empty());
    assert_eq!((bus.pending("a", "default").await, consumers(&bus, "a").await.len()), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn what_is_read_under_the_old_name_is_handed_back() {
    let place = Place::new(13);
    let bus = place.bus().await;
    bus.subscribe("a", json!({})).await;
    idle().await;
    tokio::time::advance(ms(20_000)).await;
    // Before anything else runs: the read that waits gets it, under a name whose lease is over.
    drop(place.store().append(partition("a").bucket(), vec![event(&partition("a"), "e")]));
    let call = bus.host.next().await;
    assert_eq!(call.attempt, 1);
    tokio::time::sleep(ms(10_000)).await;
    assert!(bus.host.arrived().is_empty(), "nobody took it from the one who handles it");
    bus.done(&call);
    idle().await;
    assert_eq!(bus.pending("a", "default").await, 0);
}

#[tokio::test(start_paused = true)]
async fn leases_of_buckets_left_and_used_again_do_not_lapse() {
    let place = Place::new(3);
    let bus = place.bus().await;
    bus.subscribe("stays", json!({})).await;
    for _ in 0..3 {
        let id = bus.subscribe("a", json!({})).await;
        bus.bus.unsubscribe(id, ms(0)).await.unwrap();
        tokio::time::sleep(ms(20_000)).await;
    }
    bus.subscribe("a", json!({})).await;
    bus.publish("a", "x").await;
    let call = bus.host.next().await;
    tokio::time::sleep(ms(30_000)).await;
    bus.done(&call);
    idle().await;
    assert_eq!((bus.pending("a", "default").await, bus.host.arrived().len()), (0, 0));
    assert!(bus.host.said(Kind::Log).is_empty(), "{:?}", bus.host.said(Kind::Log));
}

#[tokio::test(start_paused = true)]
async fn events_of_a_silent_thread_go_to_others() {
    let place = Place::new(4);
    let bus = place.bus_with(json!({ "limits": { "stallTimeoutMs": 5000 } })).await;
    let other = place.bus().await;
    bus.subscribe("a", json!({ "concurrency": 2, "maxUnacknowledged": 6 })).await;
    bus.publish_many("a", 6).await;
    let calls = bus.host.next_many(2).await;
    bus.host.be_silent(true);
    tokio::time::sleep(ms(3000)).await;
    other.subscribe("a", json!({})).await;
    idle().await;
    assert!(other.host.arrived().is_empty(), "not yet");
    tokio::time::sleep(ms(6000)).await;
    let taken = other.host.next_many(6).await;
    let untouched = taken.iter().filter(|delivery| delivery.attempt == 1).count();
    assert_eq!(untouched, 4, "what only waited does not count");
    bus.publish_many("b", 1).await;
    bus.publish_many("a", 4).await;
    other.all_done(&taken);
    other.all_done(&other.host.next_many(4).await);
    assert!(bus.host.arrived().is_empty());
    // It answers again: what it did is over, it takes part again.
    bus.host.be_silent(false);
    bus.settle(&calls[0], failed("boom"));
    tokio::time::sleep(ms(4000)).await;
    other.disconnect(ms(0)).await;
    bus.publish("a", "again").await;
    let next = bus.host.next().await;
    assert_eq!(data(&next), "again");
    bus.done(&next);
    idle().await;
    assert_eq!(bus.pending("a", "default").await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_long_silence_wakes_nobody() {
    let place = Place::new(5);
    let bus = place.bus_with(json!({ "limits": { "stallTimeoutMs": 1000 } })).await;
    bus.subscribe("a", json!({})).await;
    bus.host.be_silent(true);
    tokio::time::sleep(ms(10_000)).await;
    let parks = || tokio::runtime::Handle::current().metrics().worker_park_count(0);
    let before = parks();
    tokio::time::sleep(ms(60_000)).await;
    assert!(parks() - before < 2000, "woken {} times in a minute", parks() - before);
}

#[tokio::test(start_paused = true)]
async fn entries_whose_reply_was_lost_are_handed_back_and_come_again() {
    let place = Place::new(6);
    let (bus, faults) = place.faulty_bus().await;
    bus.subscribe("a", json!({})).await;
    idle().await;
    faults.next("read", &[Fault::ReplyLost]);
    bus.publish_many("lost.other", 1).await;
    tokio::time::sleep(ms(2000)).await;
    bus.publish_many("a", 3).await;
    let calls = bus.host.next_many(3).await;
    assert!(calls.iter().all(|call| call.attempt == 1), "no handler saw them before");
    faults.next("claim_due", &[Fault::ReplyLost]);
    for call in &calls {
        bus.settle(call, failed("boom"));
    }
    let again = bus.host.next_many(3).await;
    assert!(again.iter().all(|call| call.attempt == 2));
    bus.all_done(&again);
    idle().await;
    assert_eq!(bus.pending("a", "default").await, 0);
}

#[tokio::test(start_paused = true)]
async fn what_somebody_read_in_our_name_is_found_within_seconds() {
    let place = Place::new(7);
    let bus = place.bus().await;
    let id = bus.subscribe("a", json!({})).await;
    bus.publish("a", "first").await;
    bus.done(&bus.host.next().await);
    bus.bus.pause(id, true);
    idle().await;
    bus.publish("a", "lost").await;
    // Exactly what a reply lost on the wire looks like: pending under a name that never saw it.
    let name = consumers(&bus, "a").await.remove(0);
    let from = [ReadFrom::new(partition("a"))];
    let read = place.store().reader("default").0.read(&name, &from, 1, None).await.unwrap();
    assert_eq!(read.len(), 1);
    bus.bus.pause(id, false);
    let found = bus.host.next().await;
    assert_eq!((data(&found), found.attempt), ("lost", 1));
}

#[tokio::test(start_paused = true)]
async fn settling_goes_on_until_the_store_took_it() {
    let (bus, faults) = Place::new(8).faulty_bus().await;
    bus.subscribe("a", json!({ "retry": { "initialDelay": 100 } })).await;
    bus.publish_many("a", 4).await;
    let calls = bus.host.next_many(4).await;
    faults.next("settle", &[Fault::NotReached, Fault::ReplyLost, Fault::NotReached]);
    bus.settle(&calls[0], Verdict::Done);
    bus.settle(&calls[1], failed("boom"));
    bus.settle(&calls[2], Verdict::HandBack);
    bus.settle(&calls[3], Verdict::Done);
    let mut again = bus.host.next_many(2).await;
    again.sort_by(|a, b| data(a).cmp(data(b)));
    assert_eq!(again.iter().map(|call| (data(call), call.attempt)).collect::<Vec<_>>(), [("1", 2), ("2", 1)]);
    bus.all_done(&again);
    tokio::time::sleep(ms(20_000)).await;
    assert!(bus.host.arrived().is_empty());
    assert_eq!((bus.pending("a", "default").await, bus.in_flight()), (0, 0));
    let acknowledged = faults.settled().into_iter().filter(|(_, d, s)| *d == Disposal::Acknowledge && *s == Settled::Done);
    assert_eq!(acknowledged.map(|(held, ..)| held.id).collect::<HashSet<_>>().len(), 4);
    assert_eq!(bus.bus.metrics()["eventsConsumed"], 4, "each is counted once");
}

#[tokio::test(start_paused = true)]
async fn what_the_store_refuses_for_good_is_said_and_comes_again() {
    let (bus, faults) = Place::new(9).faulty_bus().await;
    bus.subscribe("a", json!({})).await;
    bus.publish("a", "x").await;
    faults.next("settle", &[Fault::Refused]);
    bus.done(&bus.host.next().await);
    assert_eq!(bus.host.hears(Kind::Error, |_| true).await["code"], "ERR_REDIS");
    let again = bus.host.next().await;
    assert_eq!(again.attempt, 1);
    bus.done(&again);
    idle().await;
    assert_eq!(bus.pending("a", "default").await, 0);
}

#[tokio::test(start_paused = true)]
async fn reads_that_are_refused_are_said_once_and_go_on() {
    let (bus, faults) = Place::new(11).faulty_bus().await;
    faults.next("read", &[Fault::Refused, Fault::Refused, Fault::Refused]);
    bus.subscribe("a", json!({})).await;
    let said = bus.host.hears(Kind::Error, |_| true).await;
    assert_eq!((said["code"].as_str(), said["details"]["group"].as_str()), (Some("ERR_REDIS"), Some("default")));
    bus.publish("a", "x").await;
    bus.done(&bus.host.next().await);
    assert_eq!(bus.host.said(Kind::Error).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn comparing_and_reading_go_on_though_claims_never_end() {
    let (bus, faults) = Place::new(10).faulty_bus().await;
    let again = json!({ "maxAttempts": 100_000, "initialDelay": 1, "backoffMultiplier": 1 });
    bus.subscribe("again.*", json!({ "maxUnacknowledged": 500, "retry": again })).await;
    for n in 0..20 {
        bus.publish_many(&format!("again.{n}"), 5).await;
    }
    bus.handle(|delivery| if data(delivery) == "new" { (ms(0), Verdict::Done) } else { (ms(20), failed("boom")) });
    // Claims take their time: there always is one on its way.
    faults.at_random(1, 0.0, ms(20));
    tokio::time::sleep(ms(3000)).await;
    let before = faults.calls("pending");
    bus.publish("again.0", "new").await;
    tokio::time::sleep(ms(11_000)).await;
    assert!(faults.calls("pending") >= before + 40, "compared twice: {}", faults.calls("pending") - before);
    let (.., last) = group_state(&bus.store, &partition("again.0"), "default").await;
    assert_eq!(Some(last), bus.partition("again.0").await.last, "read");
}

#[tokio::test(start_paused = true)]
async fn an_event_whose_process_dies_each_time_becomes_a_dead_letter() {
    let place = Place::new(11);
    let keeper = place.bus().await;
    let mut attempts = Vec::new();
    for n in 0..3 {
        let (bus, faults) = place.faulty_bus().await;
        bus.subscribe("a", json!({})).await;
        if n == 0 {
            bus.publish("a", "killer").await;
        }
        attempts.push(bus.host.next().await.attempt);
        // It does not come back.
        faults.hang(true);
        tokio::time::sleep(ms(12_000)).await;
    }
    assert_eq!(attempts, [1, 2, 3]);
    assert_eq!(keeper.dead_letters().await, [("killer".into(), "crashed".into())]);
    assert_eq!(keeper.pending("a", "default").await, 0);
}

#[tokio::test(start_paused = true)]
async fn crashes_do_not_use_up_the_attempts() {
    let place = Place::new(12);
    let (dying, faults) = place.faulty_bus().await;
    dying.subscribe("a", json!({})).await;
    dying.publish("a", "x").await;
    dying.host.next().await;
    faults.hang(true);
    let bus = place.bus().await;
    bus.subscribe("a", json!({ "retry": { "maxAttempts": 1, "initialDelay": 10 } })).await;
    let second = bus.host.next().await;
    assert_eq!(second.attempt, 2);
    bus.settle(&second, failed("boom"));
    let third = bus.host.next().await;
    assert_eq!(third.attempt, 3);
    bus.settle(&third, failed("boom"));
    idle().await;
    assert_eq!(bus.dead_letters().await, [("x".into(), "max-attempts".into())]);
}

#[tokio::test(start_paused = true)]
async fn a_hand_back_whose_reply_was_lost_does_not_take_the_event_from_its_next_handler() {
    let place = Place::new(9);
    let (bus, faults) = place.faulty_bus().await;
    bus.subscribe("a", json!({})).await;
    bus.publish("a", "1").await;
    let first = bus.host.next().await;
    // Just before what is due is looked for.
    tokio::time::sleep(ms(400)).await;
    faults.next("settle", &[Fault::ReplyLost]);
    bus.settle(&first, Verdict::HandBack);
    let again = bus.host.next().await;
    assert_eq!(again.attempt, 1, "that delivery did not count");
    tokio::time::sleep(ms(3000)).await;
    assert!(bus.host.arrived().is_empty(), "its handler runs");
    bus.done(&again);
    idle().await;
    assert_eq!((bus.pending("a", "default").await, bus.in_flight()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_hand_back_that_did_not_arrive_is_made_up_for() {
    let place = Place::new(10);
    let (bus, faults) = place.faulty_bus().await;
    bus.subscribe("a", json!({})).await;
    bus.publish("a", "1").await;
    let first = bus.host.next().await;
    faults.next("settle", &[Fault::NotReached, Fault::NotReached]);
    bus.settle(&first, Verdict::HandBack);
    let again = bus.host.next().await;
    assert_eq!(again.attempt, 1);
    bus.done(&again);
    idle().await;
    assert_eq!((bus.pending("a", "default").await, bus.in_flight()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn what_a_closed_subscription_left_pending_unknown_goes_to_others() {
    let place = Place::new(12);
    let (bus, faults) = place.faulty_bus().await;
    // It lives on with another subscription.
    bus.subscribe("b", json!({})).await;
    let id = bus.subscribe("a", json!({})).await;
    bus.publish("a", "1").await;
    let first = bus.host.next().await;
    faults.next("settle", &[Fault::Refused]);
    bus.done(&first);
    idle().await;
    bus.bus.unsubscribe(id, ms(0)).await.unwrap();
    let other = place.bus().await;
    other.subscribe("a", json!({})).await;
    assert_eq!(data(&other.host.next().await), "1");
}
