//! A message is taken once. That it comes again, by a retry, another process, or from the dead letters, is no replay.

use std::time::Duration;

use ossa::engine::host::{Delivery, Kind};
use ossa::engine::store::{Body, DeadLetterQuery, EntryId, Partition, Store};
use serde_json::json;

use crate::desk::{put, two};
use crate::support::harness::{TestBus, failed, idle, ms};

const LAST: EntryId = EntryId { ms: u64::MAX, seq: u64::MAX };
const HOUR: Duration = Duration::from_secs(3600);

/// A copy of the entry is refused, and nothing else is.
async fn refuses_a_copy(bus: &TestBus, of: &Delivery) {
    let before = bus.letters().await.len();
    put(&bus.store, &of.partition, &of.text.meta, &of.text.data).await;
    bus.settles("t", "default").await;
    assert!(bus.host.arrived().is_empty(), "a copy reached a handler");
    let letters = bus.letters().await;
    assert_eq!(letters.len(), before + 1);
    let last = letters.last().expect("there is one");
    assert!(last.reason == "signature" && last.error.starts_with("ERR_REPLAY"), "{}: {}", last.reason, last.error);
}

/// The row of the list of what went wrong elsewhere.
#[tokio::test(start_paused = true)]
async fn a_signature_check_that_treats_every_redelivery_as_a_replay() {
    let (place, a, _b) = two(1).await;
    let (b, faults) = place.faulty_desk().await;
    let other = place.desk().await;
    let retry = json!({ "retry": { "maxAttempts": 2, "initialDelay": 1000 } });
    b.read_messages("b", "t", retry.clone()).await;
    let id = a.send("t", json!("x")).await;
    // It fails, and fails again.
    for attempt in 1..=2 {
        let delivery = b.host.next().await;
        assert_eq!(delivery.attempt, attempt);
        b.settle(&delivery, failed("boom"));
    }
    // The process that has it the third time dies.
    assert_eq!(b.host.next().await.attempt, 3);
    faults.renew(false);
    other.read_messages("b", "t", retry).await;
    let third = other.host.next().await;
    assert_eq!((&*third.text.data, third.redelivered), ("\"x\"", true));
    // Its last attempt; it becomes a dead letter, and is put back.
    other.settle(&third, failed("boom"));
    idle().await;
    let mut last = third;
    while other.letters().await.is_empty() {
        last = other.host.next().await;
        other.settle(&last, failed("boom"));
        idle().await;
    }
    assert_eq!(
        other
            .bus
            .redrive(&DeadLetterQuery { ids: Some(vec![other.letters().await[0].id.clone()]), ..DeadLetterQuery::default() })
            .await
            .expect("put back"),
        1
    );
    let again = other.takes(&json!("x")).await;
    assert!(again.id != last.id && again.attempt == 1, "another entry of the same message");
    other.settles("t", "default").await;
    assert!(other.letters().await.is_empty());
    assert_eq!(other.outcomes(&id).await, ["delivered", "failed", "sent"]);
    refuses_a_copy(&other, &again).await;
    refuses_a_copy(&other, &last).await;
    assert_eq!(other.outcomes(&id).await, ["delivered", "failed", "replayed", "replayed", "sent"]);
    other.verified().await;
}

#[tokio::test(start_paused = true)]
async fn a_copy_is_refused_whenever_it_comes() {
    let (_place, a, b) = two(2).await;
    b.read_messages("b", "t", json!({})).await;
    a.send_with("t", json!("x"), json!({ "ttl": 60 })).await;
    let first = b.takes(&json!("x")).await;
    for wait in [1, 60, 290, 600, 86_400] {
        tokio::time::advance(Duration::from_secs(wait)).await;
        refuses_a_copy(&b, &first).await;
    }
    b.verified().await;
}

#[tokio::test(start_paused = true)]
async fn a_copy_in_another_lane_or_for_another_project_is_refused() {
    let (_place, a, b) = two(3).await;
    a.register("c").await;
    for to in ["b", "c"] {
        b.read_messages(to, "**", json!({})).await;
    }
    a.send("t", json!("x")).await;
    let first = b.takes(&json!("x")).await;
    let mut lane = first.partition.clone();
    lane.lane = ossa::engine::event::Priority::Critical;
    for (at, code) in [(lane, "ERR_REPLAY"), (Partition::new("@c/t", 0), "ERR_SIGNATURE"), (Partition::new("@b/u", 0), "ERR_SIGNATURE")] {
        b.store.open_partition(&at).await.expect("opened");
        tokio::time::sleep(ms(100)).await;
        put(&b.store, &at, &first.text.meta, &first.text.data).await;
        let told = b
            .host
            .hears(Kind::DeadLettered, |about| {
                about["error"].as_str().is_some_and(|e| e.starts_with(code)) && about["eventType"] == *at.event_type
            })
            .await;
        assert_eq!(told["reason"], "signature");
    }
    assert!(b.host.arrived().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_message_that_is_delayed_is_delivered_when_it_is_due() {
    let (_place, a, b) = two(4).await;
    b.read_messages("b", "t", json!({})).await;
    let id = a.send_with("t", json!("x"), json!({ "delayMs": 7_200_000 })).await;
    tokio::time::sleep(ms(7_190_000)).await;
    assert!(b.host.arrived().is_empty());
    let delivery = b.takes(&json!("x")).await;
    b.settles("t", "default").await;
    assert_eq!(b.outcomes(&id).await, ["delivered", "sent"]);
    refuses_a_copy(&b, &delivery).await;
    let latency = b.projects().stats(Some("b")).await.expect("asked")["averageLatency"].as_f64().expect("a number");
    assert!(latency < 5_000.0, "the delay is not counted: {latency}");
}

#[tokio::test(start_paused = true)]
async fn a_message_that_becomes_an_entry_hours_after_it_was_due_is_delivered() {
    let (place, a, b) = two(5).await;
    let store = place.store();
    store.open().await.expect("opened");
    b.read_messages("b", "t", json!({})).await;
    a.send_with("t", json!("x"), json!({ "delayMs": 60_000 })).await;
    a.disconnect(ms(0)).await;
    b.disconnect(ms(0)).await;
    tokio::time::advance(3 * HOUR).await;
    let b = place.desk().await;
    b.read_messages("b", "t", json!({})).await;
    let delivery = b.takes(&json!("x")).await;
    b.settles("t", "default").await;
    assert!(b.letters().await.is_empty());
    refuses_a_copy(&b, &delivery).await;
}

#[tokio::test(start_paused = true)]
async fn a_backlog_is_as_good_hours_later() {
    let (place, a, _b) = two(6).await;
    for n in 0..20 {
        a.send_with("t", json!(n), json!({ "ttl": 100_000 })).await;
    }
    tokio::time::advance(12 * HOUR).await;
    let b = place.desk().await;
    b.read_messages("b", "t", json!({})).await;
    for n in 0..20 {
        b.takes(&json!(n)).await;
    }
    b.settles("t", "default").await;
    assert!(b.letters().await.is_empty());
    assert_eq!(b.recorded("delivered").await.len(), 20);
    assert_eq!(b.verified().await, 40);
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_is_as_good_days_later() {
    let (_place, a, b) = two(7).await;
    b.read_messages("b", "t", json!({ "errorStrategy": "dlq" })).await;
    a.send_with("t", json!("x"), json!({ "ttl": 60 })).await;
    let delivery = b.host.next().await;
    b.settle(&delivery, failed("boom"));
    idle().await;
    for _ in 0..2 {
        tokio::time::advance(36 * HOUR).await;
        let all = DeadLetterQuery { event_type: Some("@b/t".into()), ..DeadLetterQuery::default() };
        assert_eq!(b.bus.redrive(&all).await.expect("put back"), 1);
        let again = b.host.next().await;
        assert_eq!(again.text.data, "\"x\"");
        b.settle(&again, failed("boom"));
        idle().await;
    }
    assert_eq!(b.refusals().await, [("handler".to_owned(), "boom".to_owned())]);
    b.verified().await;
}

#[tokio::test(start_paused = true)]
async fn a_copy_is_told_by_where_the_first_was_found_and_later_by_its_time() {
    for (wait, told) in [(299, "was found before"), (301, "became an entry at"), (100_000, "became an entry at")] {
        let (_place, a, b) = two(8).await;
        b.read_messages("b", "t", json!({})).await;
        a.send_with("t", json!("x"), json!({ "ttl": 1 })).await;
        let first = b.takes(&json!("x")).await;
        tokio::time::advance(Duration::from_secs(wait)).await;
        refuses_a_copy(&b, &first).await;
        let why = b.letters().await[0].error.clone();
        assert!(why.contains(told), "{wait}: {why}");
    }
}

/// Whoever keeps a message back and lets it in later changed nothing of it.
#[tokio::test(start_paused = true)]
async fn a_message_that_nobody_saw_is_taken_in_its_time_only() {
    for (wait, is_taken) in [(299, true), (301, false)] {
        let (_place, a, b) = two(9).await;
        // Its group does not get the first one: it is not asked what was seen.
        b.read_messages("b", "other", json!({})).await;
        a.send("t", json!("x")).await;
        let kept = b.store.history(&Partition::new("@b/t", 0), EntryId::default(), LAST, 1).await.expect("read").remove(0);
        let Body::Event { meta, data, .. } = kept.body else { panic!("an event") };
        tokio::time::advance(Duration::from_secs(wait)).await;
        b.read_messages("b", "t", json!({ "startFrom": "latest" })).await;
        put(&b.store, &Partition::new("@b/t", 0), str::from_utf8(&meta).expect("text"), str::from_utf8(&data).expect("text")).await;
        tokio::time::sleep(ms(1000)).await;
        assert_eq!((b.host.arrived().len(), b.letters().await.len()), (usize::from(is_taken), usize::from(!is_taken)), "{wait}");
    }
}
