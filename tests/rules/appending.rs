//! Events come in: in order, once, at once or later.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use futures_util::future::join_all;
use ossa::engine::error::Code;
use ossa::engine::store::{Appended, Body, Entry, Idempotency, NewEvent, Partition, Store};

use crate::support::events::{
    Ttl, event, event_ids, event_with_ttl, events, inspect, keeping, neighbour, partition, prepare, publish, stranger, take, take_one,
};
use crate::support::wait::until;
use crate::support::world::World;

const HOUR_MS: u64 = 3_600_000;

fn with_key(at: &Partition, id: &str, key: &str, window_ms: u64) -> NewEvent {
    NewEvent { idempotency: Some(Idempotency { key: key.into(), window_ms }), ..event(at, id) }
}

async fn append_one(store: &Arc<dyn Store>, event: NewEvent) -> Appended {
    let mut results = store.append(event.partition.bucket(), vec![event]).await;
    assert_eq!(results.len(), 1);
    results.remove(0).expect("appended")
}

pub async fn ten_thousand_events_are_read_in_the_order_of_the_calls(world: &World) {
    let (store, at) = (&world.store, partition("orders.created"));
    prepare(store, &at, "g", "c").await;
    let calls = (0..100).map(|call| store.append(at.bucket(), events(&at, &format!("{call:02}"), 100)));
    // Polled from the last to the first: the order of the calls decides, not that of the polling.
    let mut calls: Vec<_> = calls.collect();
    calls.reverse();
    for results in join_all(calls).await {
        assert!(results.into_iter().all(|result| result.expect("appended") == Appended::Stored));
    }
    let mut seen: Vec<Entry> = Vec::new();
    while seen.len() < 10_000 {
        let some = take(store, &at, "g", "c", 999).await;
        assert!(!some.is_empty() && some.len() <= 999);
        seen.extend(some);
    }
    assert!(seen.windows(2).all(|pair| pair[0].id < pair[1].id));
    let expected: Vec<String> = (0..100).flat_map(|call| (0..100).map(move |n| format!("{call:02}-{n}"))).collect();
    assert_eq!(event_ids(&seen), expected);
}

pub async fn partitions_of_one_bucket_keep_their_order_in_mixed_calls(world: &World) {
    let (store, a) = (&world.store, partition("mixed.a"));
    let b = neighbour(&a);
    prepare(store, &a, "g", "c").await;
    prepare(store, &b, "g", "c").await;
    let mixed = (0..200).map(|n| event(if n % 3 == 0 { &b } else { &a }, &format!("{n:03}")));
    publish(store, mixed.collect()).await;
    for at in [&a, &b] {
        let ids = event_ids(&take(store, at, "g", "c", 1000).await);
        let wanted: Vec<String> = (0..200).filter(|n| (n % 3 == 0) == (at == &b)).map(|n| format!("{n:03}")).collect();
        assert_eq!(ids, wanted);
    }
}

pub async fn nothing_to_append_has_no_results(world: &World) {
    assert!(world.store.append(partition("empty.call").bucket(), Vec::new()).await.is_empty());
}

pub async fn an_event_cancelled_before_it_was_sent_is_given_up(world: &World) {
    let (store, at) = (&world.store, partition("append.cancelled"));
    prepare(store, &at, "g", "c").await;
    let flag = |set: bool| Some(Arc::new(AtomicBool::new(set)));
    let batch = vec![
        NewEvent { cancelled: flag(false), ..event(&at, "kept") },
        NewEvent { cancelled: flag(true), ..with_key(&at, "cancelled", "k", HOUR_MS) },
        NewEvent { cancelled: flag(false), ..with_key(&at, "same key", "k", HOUR_MS) },
    ];
    let results = store.append(at.bucket(), batch).await;
    let codes: Vec<Option<Code>> = results.iter().map(|result| result.as_ref().err().map(|error| error.code)).collect();
    assert_eq!(codes, [None, Some(Code::Aborted), None]);
    assert_eq!(event_ids(&take(store, &at, "g", "c", 10).await), ["kept", "same key"]);
}

pub async fn metadata_and_data_come_back_byte_for_byte(world: &World) {
    let (store, at) = (&world.store, partition("exact.bytes"));
    prepare(store, &at, "g", "c").await;
    let long = format!("\"{}\"", "é\u{1F980}\\u0000 ".repeat(20_000));
    for data in ["null", "{\"__proto__\":{\"a\":1},\"b\":[ 1.0 , -0]}", "\"line\\r\\n$3\\r\\n\"", long.as_str()] {
        let sent = NewEvent { data: data.into(), ..event(&at, "x") };
        let meta = sent.meta.clone();
        publish(store, vec![sent]).await;
        let entry = take_one(store, &at, "g", "c").await;
        let expected = Body::Event { meta: meta.into(), data: data.as_bytes().to_vec().into(), only_group: None, first_entry: None };
        assert!(entry.body == expected, "{} bytes changed", data.len());
    }
}

pub async fn a_second_event_with_the_key_is_answered_with_the_first_id(world: &World) {
    let (store, at) = (&world.store, partition("keyed.events"));
    prepare(store, &at, "g", "c").await;
    assert_eq!(append_one(store, with_key(&at, "first", "k", HOUR_MS)).await, Appended::Stored);
    assert_eq!(append_one(store, with_key(&at, "second", "k", HOUR_MS)).await, Appended::Duplicate("first".into()));
    assert_eq!(append_one(store, with_key(&at, "third", "other", HOUR_MS)).await, Appended::Stored);
    assert_eq!(event_ids(&take(store, &at, "g", "c", 10).await), ["first", "third"]);
    // Handled and acknowledged or not: the key is remembered.
    assert_eq!(append_one(store, with_key(&at, "fourth", "k", HOUR_MS)).await, Appended::Duplicate("first".into()));
}

pub async fn one_call_with_the_same_key_twice_writes_once(world: &World) {
    let (store, at) = (&world.store, partition("keyed.batch"));
    prepare(store, &at, "g", "c").await;
    let batch = vec![with_key(&at, "a", "k", HOUR_MS), event(&at, "b"), with_key(&at, "c", "k", HOUR_MS)];
    let results: Vec<Appended> = store.append(at.bucket(), batch).await.into_iter().map(|r| r.expect("appended")).collect();
    assert_eq!(results, [Appended::Stored, Appended::Stored, Appended::Duplicate("a".into())]);
    assert_eq!(event_ids(&take(store, &at, "g", "c", 10).await), ["a", "b"]);
}

pub async fn idempotency_keys_belong_to_a_partition(world: &World) {
    let (store, a) = (&world.store, partition("keyed.a"));
    for at in [&a, &neighbour(&a), &stranger(&a), &Partition::new("keyed.a", 1)] {
        store.open_partition(at).await.expect("opened");
        assert_eq!(append_one(store, with_key(at, "x", "k", HOUR_MS)).await, Appended::Stored, "{at}");
    }
}

pub async fn a_key_is_free_again_after_its_window(world: &World) {
    let (store, at) = (&world.store, partition("keyed.window"));
    prepare(store, &at, "g", "c").await;
    assert_eq!(append_one(store, with_key(&at, "first", "k", 1_000)).await, Appended::Stored);
    assert_eq!(append_one(store, with_key(&at, "second", "k", 1_000)).await, Appended::Duplicate("first".into()));
    until("the window ended", async || append_one(store, with_key(&at, "third", "k", 1_000)).await == Appended::Stored).await;
    assert_eq!(event_ids(&take(store, &at, "g", "c", 10).await), ["first", "third"]);
}

pub async fn of_two_racing_events_with_one_key_one_is_written(world: &World) {
    let at = partition("keyed.race");
    let (one, two) = (&world.store, world.user().await);
    prepare(one, &at, "g", "c").await;
    for round in 0..50 {
        let key = format!("k{round}");
        let race = tokio::join!(
            append_one(one, with_key(&at, &format!("one-{round}"), &key, HOUR_MS)),
            append_one(&two, with_key(&at, &format!("two-{round}"), &key, HOUR_MS)),
        );
        match race {
            (Appended::Stored, Appended::Duplicate(first)) => assert_eq!(first, format!("one-{round}")),
            (Appended::Duplicate(first), Appended::Stored) => assert_eq!(first, format!("two-{round}")),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(take(one, &at, "g", "c", 1000).await.len(), 50);
}

pub async fn a_delayed_event_is_no_entry_before_it_is_due(world: &World) {
    let (store, at) = (&world.store, partition("delayed.event"));
    prepare(store, &at, "g", "c").await;
    let before_ms = store.now_ms();
    let later = |id: &str, delay_ms| NewEvent { delay_ms: Some(delay_ms), ..event(&at, id) };
    publish(store, vec![later("late", 60_000), later("second", 1550), later("first", 1500), event(&at, "now")]).await;
    let (moved, next_in_ms) = store.move_delayed(at.bucket()).await.expect("moved");
    assert_eq!(moved, 0);
    assert!(next_in_ms.is_some_and(|ms| ms <= 1550), "{next_in_ms:?}");
    assert_eq!(event_ids(&take(store, &at, "g", "c", 10).await), ["now"]);

    let mut moved = 0;
    until("two events are due", async || {
        moved += store.move_delayed(at.bucket()).await.expect("moved").0;
        moved == 2
    })
    .await;
    let entries = take(store, &at, "g", "c", 10).await;
    assert_eq!(event_ids(&entries), ["first", "second"]);
    // ttl counts from then.
    assert!(entries[0].id.ms >= before_ms + 1495, "{} before {before_ms} + 1500", entries[0].id);
    let (moved, next_in_ms) = store.move_delayed(at.bucket()).await.expect("moved");
    assert_eq!(moved, 0);
    assert!(next_in_ms.is_some_and(|ms| ms > 10_000 && ms <= 60_000), "{next_in_ms:?}");
}

pub async fn a_delayed_event_holds_its_idempotency_key_while_it_waits(world: &World) {
    let (store, at) = (&world.store, partition("delayed.keyed"));
    prepare(store, &at, "g", "c").await;
    let waiting = NewEvent { delay_ms: Some(100), ..with_key(&at, "waiting", "k", HOUR_MS) };
    assert_eq!(append_one(store, waiting).await, Appended::Stored);
    assert_eq!(append_one(store, with_key(&at, "other", "k", HOUR_MS)).await, Appended::Duplicate("waiting".into()));
    until("it moved", async || store.move_delayed(at.bucket()).await.expect("moved").0 == 1).await;
    assert_eq!(event_ids(&take(store, &at, "g", "c", 10).await), ["waiting"]);
}

pub async fn the_ttl_of_a_delayed_event_counts_from_when_it_is_due(world: &World) {
    let (store, at) = (&world.store, partition("delayed.ttl"));
    prepare(store, &at, "g", "c").await;
    let ttl = Ttl::Default(30.0);
    publish(store, vec![NewEvent { delay_ms: Some(100), ..event_with_ttl(&at, "x", ttl) }]).await;
    until("it moved", async || store.move_delayed(at.bucket()).await.expect("moved").0 == 1).await;
    assert_eq!(store.sweep(&at, &keeping()).await.expect("swept").removed, 0);
    assert_eq!(inspect(store, &at).await.length, 1);
}

pub async fn two_processes_that_move_delayed_events_move_each_once(world: &World) {
    let (store, other, at) = (&world.store, world.user().await, partition("delayed.race"));
    prepare(store, &at, "g", "c").await;
    // Ids rise, as UUIDs of version 7 do.
    let ids: Vec<String> = (0..300).map(|n| format!("e-{n:03}")).collect();
    publish(store, ids.iter().map(|id| NewEvent { delay_ms: Some(1), ..event(&at, id) }).collect()).await;
    let mut moved = 0;
    until("all are due", async || {
        let (one, two) = tokio::join!(store.move_delayed(at.bucket()), other.move_delayed(at.bucket()));
        moved += one.expect("moved").0 + two.expect("moved").0;
        moved >= 300
    })
    .await;
    let entries = take(store, &at, "g", "c", 1000).await;
    assert_eq!((moved, entries.len()), (300, 300));
    assert_eq!(event_ids(&entries), ids, "events with one due time keep their order");
}
