//! How long a stream may be, and how long what is acknowledged is kept.

use std::sync::Arc;

use ossa::engine::error::Code;
use ossa::engine::event::Priority;
use ossa::engine::store::{Appended, Entry, Idempotency, Keeping, NewEvent, Partition, StartFrom, Store, StreamLayout};

use crate::support::events::{
    Ttl, acknowledge, event, event_ids, event_with_ttl, events, group_state, inspect, keeping, partition, prepare, publish, retry, settle,
    spec, take, take_one,
};
use crate::support::wait::until;
use crate::support::world::World;

fn bounded(length_max: u64) -> StreamLayout {
    StreamLayout { length_max: Some(length_max), keep_count: Some(length_max), ..StreamLayout::default() }
}

/// Appends; for each event whether it is in, or the code of its error.
async fn append(store: &Arc<dyn Store>, events: Vec<NewEvent>) -> Vec<Result<Appended, Code>> {
    let bucket = events[0].partition.bucket();
    store.append(bucket, events).await.into_iter().map(|result| result.map_err(|error| error.code)).collect()
}

fn stored(count: usize, refused: usize) -> Vec<Result<Appended, Code>> {
    let mut results = vec![Ok(Appended::Stored); count];
    results.resize(count + refused, Err(Code::StreamFull));
    results
}

fn keyed(at: &Partition, id: &str, key: &str) -> NewEvent {
    NewEvent { idempotency: Some(Idempotency { key: key.into(), window_ms: 3_600_000 }), ..event(at, id) }
}

async fn take_and_acknowledge(store: &Arc<dyn Store>, at: &Partition, count: usize) -> Vec<Entry> {
    let entries = take(store, at, "g", "c", count).await;
    acknowledge(store, "g", "c", &entries).await;
    entries
}

pub async fn a_full_stream_takes_no_more_and_says_so(world: &World) {
    let (store, at) = (&world.store, partition("full"));
    prepare(store, &at, "g", "c").await;
    store.create_stream("full", &bounded(10)).await.expect("made");
    assert_eq!(append(store, events(&at, "a", 4)).await, stored(4, 0));
    assert_eq!(append(store, events(&at, "b", 20)).await, stored(6, 14), "the first ones find a place");
    let error = store.append(at.bucket(), vec![event(&at, "c")]).await.remove(0).expect_err("it is full");
    assert_eq!((error.code, error.retryable), (Code::StreamFull, true));
    assert_eq!((error.details["eventType"].as_str(), error.details["limit"].as_u64()), (Some("full"), Some(10)));
    let entries = take(store, &at, "g", "c", 100).await;
    let expected: Vec<String> = (0..4).map(|n| format!("a-{n}")).chain((0..6).map(|n| format!("b-{n}"))).collect();
    assert_eq!(event_ids(&entries), expected, "nobody saw what was refused");
    assert_eq!(append(store, vec![event(&at, "d")]).await, stored(0, 1), "delivered is not acknowledged");
}

pub async fn acknowledged_entries_make_room_in_a_full_stream(world: &World) {
    let (store, at) = (&world.store, partition("room"));
    prepare(store, &at, "g", "c").await;
    prepare(store, &at, "slow", "s").await;
    store.create_stream("room", &bounded(40)).await.expect("made");
    assert_eq!(append(store, events(&at, "a", 40)).await, stored(40, 0));
    take_and_acknowledge(store, &at, 30).await;
    assert_eq!(append(store, vec![event(&at, "no")]).await, stored(0, 1), "the other group has seen none of them");
    let slow = take(store, &at, "slow", "s", 20).await;
    acknowledge(store, "slow", "s", &slow[1..]).await;
    assert_eq!(append(store, events(&at, "b", 50)).await, stored(19, 31), "all that both are done with, and no other");
    let left: Vec<String> = (30..40).map(|n| format!("a-{n}")).chain((0..19).map(|n| format!("b-{n}"))).collect();
    assert_eq!(event_ids(&take(store, &at, "g", "c", 100).await), left);
    settle(store, "slow", "s", &slow[0], retry(0)).await;
    assert_eq!(inspect(store, &at).await.length, 40, "the one that is pending is there, too");
}

pub async fn room_is_found_behind_many_pending_entries(world: &World) {
    let (store, at) = (&world.store, partition("behind"));
    prepare(store, &at, "g", "c").await;
    store.create_stream("behind", &bounded(3000)).await.expect("made");
    publish(store, events(&at, "a", 3000)).await;
    let entries = take(store, &at, "g", "c", 3000).await;
    acknowledge(store, "g", "c", &entries[2000..2005]).await;
    assert_eq!(append(store, events(&at, "b", 10)).await, stored(5, 5));
    acknowledge(store, "g", "c", &entries[500..501]).await;
    assert_eq!(append(store, events(&at, "c", 2)).await, stored(1, 1), "before the last place looked at, too");
}

pub async fn what_follows_a_refused_event_keeps_its_order(world: &World) {
    let (store, at, other) = (&world.store, partition("order"), partition("order").in_lane(Priority::High));
    prepare(store, &at, "g", "c").await;
    store.join(&spec("g", "order"), StartFrom::Beginning, "c").await.expect("joined");
    store.create_stream("order", &bounded(100)).await.expect("made");
    publish(store, events(&at, "old", 100)).await;
    take_and_acknowledge(store, &at, 100).await;
    // Many calls on their way at once, of which each finds the stream full.
    let calls = (0..60).map(|call| {
        let mixed = (0..5).flat_map(|n| {
            let plain = event(&at, &format!("{call}-{n}"));
            let with_key = keyed(&at, &format!("{call}-{n}k"), &format!("{call}-{n}"));
            [plain, with_key, event(&other, &format!("{call}-{n}h"))]
        });
        store.append(at.bucket(), mixed.collect())
    });
    let results = futures_util::future::join_all(calls).await.into_iter().flatten().collect::<Vec<_>>();
    let ids = |lane: fn(usize) -> bool| {
        let all = (0..60).flat_map(|call| (0..5).flat_map(move |n| ["", "k", "h"].map(|kind| format!("{call}-{n}{kind}"))));
        let of_lane = all.zip(&results).enumerate().filter(move |(i, _)| lane(i % 3));
        of_lane.filter(|(_, (_, result))| result.is_ok()).map(|(_, (id, _))| id).collect::<Vec<String>>()
    };
    let (normal, high) = (ids(|kind| kind < 2), ids(|kind| kind == 2));
    assert_eq!((normal.len(), high.len()), (100, 100), "each stream has a bound of its own");
    assert_eq!(event_ids(&take(store, &at, "g", "c", 1000).await), normal);
    assert_eq!(event_ids(&take(store, &other, "g", "c", 1000).await), high);
    let refused = results.iter().filter_map(|result| result.as_ref().err());
    assert!(refused.into_iter().all(|error| error.code == Code::StreamFull));
}

pub async fn a_refused_event_does_not_use_up_its_idempotency_key(world: &World) {
    let (store, at) = (&world.store, partition("keys"));
    prepare(store, &at, "g", "c").await;
    store.create_stream("keys", &bounded(2)).await.expect("made");
    assert_eq!(append(store, vec![keyed(&at, "a", "one"), event(&at, "b"), keyed(&at, "c", "two")]).await, stored(2, 1));
    assert_eq!(append(store, vec![keyed(&at, "d", "one")]).await, [Ok(Appended::Duplicate("a".into()))], "known, full or not");
    take_and_acknowledge(store, &at, 2).await;
    assert_eq!(append(store, vec![keyed(&at, "e", "two")]).await, stored(1, 0));
    assert_eq!(append(store, vec![keyed(&at, "f", "two")]).await, [Ok(Appended::Duplicate("e".into()))]);
}

pub async fn delayed_events_are_never_refused(world: &World) {
    let (store, at) = (&world.store, partition("delayed.full"));
    prepare(store, &at, "g", "c").await;
    store.create_stream("delayed.full", &bounded(1)).await.expect("made");
    let later = |id: &str| NewEvent { delay_ms: Some(1), ..event(&at, id) };
    assert_eq!(append(store, vec![event(&at, "a"), later("b"), later("c")]).await, stored(3, 0));
    until("they were moved", async || {
        store.move_delayed(at.bucket()).await.expect("moved");
        inspect(store, &at).await.length == 3
    })
    .await;
    assert_eq!(append(store, vec![event(&at, "d")]).await, stored(0, 1));
}

pub async fn the_publishers_bound_holds_where_the_type_has_none(world: &World) {
    let (store, at, named) = (&world.store, partition("own"), partition("named"));
    let most = |at: &Partition, count: usize| -> Vec<NewEvent> {
        events(at, "e", count).into_iter().map(|event| NewEvent { length_max: Some(3), ..event }).collect()
    };
    prepare(store, &at, "g", "c").await;
    assert_eq!(append(store, most(&at, 5)).await, stored(3, 2));
    assert_eq!(append(store, events(&at, "free", 5)).await, stored(5, 0), "another publisher has no bound");
    prepare(store, &named, "g", "c").await;
    store.create_stream("named", &bounded(4)).await.expect("made");
    assert_eq!(append(store, most(&named, 6)).await, stored(4, 2));
}

pub async fn without_a_group_only_a_retention_makes_room(world: &World) {
    let (store, plain, created) = (&world.store, partition("nobody.plain"), partition("nobody.created"));
    let most = |id: &str| NewEvent { length_max: Some(2), ..event(&plain, id) };
    assert_eq!(append(store, vec![most("a"), most("b"), most("c")]).await, stored(2, 1), "for a group that may come");
    store.create_stream("nobody.created", &bounded(20)).await.expect("made");
    assert_eq!(append(store, events(&created, "e", 20)).await, stored(20, 0));
    assert_eq!(append(store, events(&created, "f", 3)).await, stored(3, 0));
    store.join(&spec("late", "nobody.created"), StartFrom::Beginning, "l").await.expect("joined");
    let kept = event_ids(&take(store, &created, "late", "l", 100).await);
    assert_eq!((kept.len(), kept.last().map(String::as_str)), (20, Some("f-2")), "as few as were needed went");
}

pub async fn a_bound_set_by_one_process_holds_in_others(world: &World) {
    let (store, other, at) = (&world.store, world.user().await, partition("told"));
    prepare(store, &at, "g", "c").await;
    assert_eq!(append(&other, events(&at, "a", 5)).await, stored(5, 0));
    store.create_stream("told", &bounded(3)).await.expect("made");
    until("the other has heard of it", async || append(&other, vec![event(&at, "b")]).await == stored(0, 1)).await;
    store.create_stream("told", &bounded(1000)).await.expect("changed");
    until("the other has heard of it", async || append(&other, vec![event(&at, "b")]).await == stored(1, 0)).await;
}

async fn sweep(store: &Arc<dyn Store>, at: &Partition, keeping: &Keeping) -> u64 {
    let mut removed = 0;
    for _ in 0..100 {
        let swept = store.sweep(at, keeping).await.expect("swept");
        removed += swept.removed;
        if !swept.more {
            return removed;
        }
    }
    panic!("sweeping does not end");
}

pub async fn retention_by_time_outlasts_the_ttl_or_ends_before_it(world: &World) {
    let (store, at) = (&world.store, partition("kept.time"));
    prepare(store, &at, "g", "c").await;
    let short = |id: &str| event_with_ttl(&at, id, Ttl::Default(0.05));
    publish(store, vec![short("a"), short("b"), event_with_ttl(&at, "ever", Ttl::Default(0.0)), event(&at, "c")]).await;
    take_and_acknowledge(store, &at, 4).await;
    let first = inspect(store, &at).await.first.expect("it is there").ms;
    until("the ttl is over", async || store.now_ms() > first + 100).await;
    let keep = |ms| keeping().of(Some(&StreamLayout { keep_ms: Some(ms), ..bounded(1000) }));
    assert_eq!(sweep(store, &at, &keep(3_600_000)).await, 0, "kept longer than the ttl");
    publish(store, vec![event(&at, "undelivered")]).await;
    until("the last is old enough", async || store.now_ms() > inspect(store, &at).await.last.expect("it is there").ms + 100).await;
    assert_eq!(sweep(store, &at, &keep(20)).await, 4, "and no longer, whatever the ttl");
    assert_eq!(event_ids(&[take_one(store, &at, "g", "c").await]), ["undelivered"]);
}

pub async fn retention_by_count_keeps_that_many_acknowledged_ones(world: &World) {
    let (store, at) = (&world.store, partition("kept.count"));
    prepare(store, &at, "g", "c").await;
    publish(store, events(&at, "e", 50)).await;
    take_and_acknowledge(store, &at, 40).await;
    let layout = StreamLayout { length_max: Some(1000), keep_count: Some(7), ..StreamLayout::default() };
    assert_eq!(sweep(store, &at, &keeping().of(Some(&layout))).await, 33);
    assert_eq!(inspect(store, &at).await.length, 17);
}

pub async fn without_a_group_retention_is_for_all_entries(world: &World) {
    let (store, at) = (&world.store, partition("kept.alone"));
    store.open_partition(&at).await.expect("opened");
    publish(store, events(&at, "e", 50)).await;
    let by_count = StreamLayout { length_max: Some(1000), keep_count: Some(7), ..StreamLayout::default() };
    assert_eq!(sweep(store, &at, &keeping().of(Some(&by_count))).await, 43);
    let last = inspect(store, &at).await.last.expect("seven are left").ms;
    // The server's clock is known to a few ms only.
    until("they are old enough", async || store.now_ms() > last + 100).await;
    let by_time = StreamLayout { length_max: Some(1000), keep_ms: Some(20), ..StreamLayout::default() };
    assert_eq!(sweep(store, &at, &keeping().of(Some(&by_time))).await, 7);
}

pub async fn what_is_not_read_is_counted_over_what_was_taken_out(world: &World) {
    let (store, at) = (&world.store, partition("counted"));
    prepare(store, &at, "g", "c").await;
    store.create_stream("counted", &bounded(1200)).await.expect("made");
    publish(store, events(&at, "e", 1200)).await;
    assert_eq!(append(store, events(&at, "f", 3)).await, stored(0, 3));
    take_and_acknowledge(store, &at, 100).await;
    assert_eq!(group_state(store, &at, "g").await.1, Some(1100));
}

pub async fn live_consumers_are_those_with_a_lease(world: &World) {
    let (store, at) = (&world.store, partition("living"));
    prepare(store, &at, "g", "c").await;
    prepare(store, &at, "h", "d").await;
    publish(store, events(&at, "e", 2)).await;
    take(store, &at, "g", "c", 1).await;
    take(store, &at, "g", "no lease", 1).await;
    take(store, &at, "h", "d", 1).await;
    let state = inspect(store, &at).await;
    assert_eq!(state.live.into_iter().collect::<Vec<_>>(), ["c", "d"]);
}
