//! Groups of handlers: several of them, ordered ones, batches, filters.

use ossa::engine::consume::Verdict;
use ossa::engine::store::{Partition, StreamLayout};
use serde_json::json;

use crate::desk::{put, two};
use crate::support::harness::{failed, idle, ms};

#[tokio::test(start_paused = true)]
async fn a_message_that_is_refused_does_not_hold_up_its_key() {
    let (place, a, b) = two(21).await;
    let keyed = |key: &str| json!({ "partitionKey": key });
    for key in ["k", "l"] {
        a.send_with("t", json!(format!("{key}:0")), keyed(key)).await;
    }
    // What was sent, with other data: between the others of its key.
    let other = place.desk().await;
    other.read_messages("b", "t", json!({ "group": "other" })).await;
    let sent = other.host.next().await;
    put(&a.store, &Partition::new("@b/t", 0), &sent.text.meta, "\"k:forged\"").await;
    for key in ["k", "l"] {
        for n in 1..4 {
            a.send_with("t", json!(format!("{key}:{n}")), keyed(key)).await;
        }
    }
    b.read_messages("b", "t", json!({ "ordered": true, "retry": { "initialDelay": 5_000 } })).await;
    let (mut next_k, mut next_l) = (0, 0);
    let mut is_first = true;
    while next_k < 4 || next_l < 4 {
        let delivery = b.host.next().await;
        let data = delivery.text.data.trim_matches('"');
        let (key, n) = data.split_once(':').expect("key and number");
        let next = if key == "k" { &mut next_k } else { &mut next_l };
        assert_eq!(n, next.to_string(), "{data}");
        // The first is tried twice.
        if std::mem::take(&mut is_first) {
            b.settle(&delivery, failed("boom"));
        } else {
            *next += 1;
            b.done(&delivery);
        }
    }
    b.settles("t", "default").await;
    assert_eq!(b.refusals().await.first().expect("one"), &("signature".to_owned(), "ERR_SIGNATURE".to_owned()));
    assert_eq!(b.recorded("delivered").await.len(), 8);
    b.verified().await;
}

#[tokio::test(start_paused = true)]
async fn messages_of_a_key_keep_their_order_over_members_and_refusals() {
    let (place, a, b) = two(22).await;
    let c = place.desk().await;
    a.store.create_stream("@b/t", &StreamLayout { partitions: 4, ..StreamLayout::default() }).await.expect("made");
    let seen = std::sync::Arc::new(std::sync::Mutex::new(std::collections::HashMap::<String, u64>::new()));
    for bus in [&b, &c] {
        bus.read_messages("b", "t", json!({ "ordered": true, "retry": { "initialDelay": 20, "maxAttempts": 100 } })).await;
        let seen = seen.clone();
        let fails = std::sync::atomic::AtomicU32::new(0);
        bus.handle(move |delivery| {
            let data: serde_json::Value = serde_json::from_str(&delivery.text.data).expect("JSON");
            let (key, n) = (data["key"].as_str().expect("text").to_owned(), data["n"].as_u64().expect("a number"));
            let mut seen = seen.lock().expect("no panic under the lock");
            let next = seen.entry(key.clone()).or_default();
            assert!(n <= *next, "{key}: {n} came before {next}");
            if fails.fetch_add(1, std::sync::atomic::Ordering::Relaxed) % 7 == 3 {
                return (ms(3), failed("boom"));
            }
            if n == *next {
                *next += 1;
            }
            (ms(3), Verdict::Done)
        });
    }
    for n in 0..25 {
        for key in ["k", "l", "m", "n"] {
            a.send_with("t", json!({ "key": key, "n": n }), json!({ "partitionKey": key })).await;
            if n % 5 == 2 {
                let other = a.try_send("a", json!("nobody"), "t", json!({ "key": key, "n": 99 }), json!({ "partitionKey": key })).await;
                assert!(other.is_err());
            }
        }
    }
    for _ in 0..1000 {
        tokio::time::sleep(ms(100)).await;
        if seen.lock().expect("no panic under the lock").values().sum::<u64>() == 100 {
            break;
        }
    }
    idle().await;
    assert_eq!(seen.lock().expect("no panic under the lock").values().copied().collect::<Vec<_>>(), [25; 4]);
    assert_eq!(b.recorded("delivered").await.len(), 100);
    assert_eq!(b.recorded("denied").await.len(), 20);
    b.verified().await;
}

#[tokio::test(start_paused = true)]
async fn a_handler_gets_messages_in_batches() {
    let (_place, a, b) = two(23).await;
    a.send_many("t", 7).await;
    b.read_messages("b", "t", json!({ "batch": { "maxSize": 3, "maxWaitMs": 50 } })).await;
    let all = b.host.next_many(7).await;
    assert_eq!(all.iter().map(|delivery| delivery.joined).collect::<Vec<_>>(), [false, true, true, false, true, true, false]);
    for delivery in &all[..6] {
        b.done(delivery);
    }
    b.settle(&all[6], failed("boom"));
    assert_eq!(b.host.next().await.attempt, 2);
    idle().await;
    assert_eq!(b.recorded("delivered").await.len(), 6);
    b.verified().await;
}

#[tokio::test(start_paused = true)]
async fn what_no_filter_takes_is_acknowledged_without_a_record() {
    let (_place, a, b) = two(24).await;
    b.read_messages("b", "t", json!({ "filter": { "tags": ["wanted"] } })).await;
    let unseen = a.send("t", json!("unwanted")).await;
    let seen = a.send_with("t", json!("wanted"), json!({ "tags": ["wanted"] })).await;
    b.takes(&json!("wanted")).await;
    b.settles("t", "default").await;
    assert_eq!((b.outcomes(&unseen).await, b.outcomes(&seen).await), (vec!["sent".to_owned()], vec!["delivered".into(), "sent".into()]));
    let stats = b.projects().stats(None).await.expect("asked");
    assert_eq!((&stats["messagesSent"], &stats["messagesReceived"], &stats["messagesFailed"]), (&json!(2), &json!(1), &json!(0)));
}

#[tokio::test(start_paused = true)]
async fn each_group_of_a_project_gets_each_message_and_records_it() {
    let (place, a, b) = two(25).await;
    let other = place.desk().await;
    b.read_messages("b", "**", json!({ "group": "g1" })).await;
    b.read_messages("b", "t", json!({ "group": "g2" })).await;
    other.read_messages("b", "t", json!({ "group": "g3", "errorStrategy": "dlq" })).await;
    let id = a.send("t", json!("x")).await;
    b.all_done(&b.host.next_many(2).await);
    let delivery = other.host.next().await;
    other.settle(&delivery, failed("boom"));
    for group in ["g1", "g2", "g3"] {
        b.settles("t", group).await;
    }
    assert_eq!(b.outcomes(&id).await, ["delivered", "delivered", "failed", "sent"]);
    let mut reasons: Vec<String> = b.records().await.iter().filter_map(|record| record["reason"].as_str().map(str::to_owned)).collect();
    reasons.sort();
    assert_eq!(reasons, ["group 'g1'", "group 'g2'", "group 'g3': handler: boom"]);
    b.verified().await;
}

#[tokio::test(start_paused = true)]
async fn of_two_handlers_only_the_failed_one_is_called_again_and_one_delivery_is_recorded() {
    let (_place, a, b) = two(26).await;
    let one = b.read_messages("b", "t", json!({})).await;
    let two = b.read_messages("b", "t", json!({})).await;
    let id = a.send("t", json!("x")).await;
    let calls = b.host.next_many(2).await;
    assert_eq!([calls[0].subscription, calls[1].subscription], [one, two]);
    b.done(&calls[0]);
    b.settle(&calls[1], failed("boom"));
    idle().await;
    assert_eq!(b.outcomes(&id).await, ["sent"], "nothing ended yet");
    let again = b.host.next().await;
    assert_eq!((again.subscription, again.attempt), (two, 2));
    b.done(&again);
    b.settles("t", "default").await;
    assert!(b.host.arrived().is_empty());
    assert_eq!(b.outcomes(&id).await, ["delivered", "sent"]);
}

#[tokio::test(start_paused = true)]
async fn an_error_that_is_ignored_and_a_message_that_expired_are_recorded_as_such() {
    let (_place, a, b) = two(27).await;
    b.read_messages("b", "i", json!({ "errorStrategy": "ignore" })).await;
    let ignored = a.send("i", json!("x")).await;
    let delivery = b.host.next().await;
    b.settle(&delivery, failed("boom"));
    b.settles("i", "default").await;
    assert_eq!(b.outcomes(&ignored).await, ["delivered", "sent"]);
    let id = b.read_messages("b", "t", json!({})).await;
    b.bus.pause(id, true);
    idle().await;
    let expired = a.send_with("t", json!("x"), json!({ "ttl": 1 })).await;
    tokio::time::advance(ms(1001)).await;
    b.bus.pause(id, false);
    b.settles("t", "default").await;
    assert!(b.host.arrived().is_empty());
    let outcomes = b.outcomes(&expired).await;
    // Whoever looks after the stream may be first; then nothing is recorded by the group.
    assert!(outcomes == ["failed", "sent"] || outcomes == ["sent"], "{outcomes:?}");
}
