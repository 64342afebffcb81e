//! New entries go out: each to one consumer of a group, without spinning.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use ossa::engine::event::Priority;
use ossa::engine::store::{Backlog, Body, EntryId, NewEvent, Partition, ReadFrom};

use crate::support::events::dead_letter;
use crate::support::events::{
    LONG, acknowledge, event, event_ids, events, group_state, held, inspect, neighbour, partition, prepare, publish, reader, settle,
    stranger, take, take_one,
};
use crate::support::wait::until;
use crate::support::world::World;

pub async fn a_new_entry_is_delivered_for_the_first_time(world: &World) {
    let (store, at) = (&world.store, partition("read.first"));
    prepare(store, &at, "g", "c").await;
    publish(store, vec![event(&at, "e")]).await;
    let entry = take_one(store, &at, "g", "c").await;
    assert_eq!((&entry.partition, entry.deliveries, entry.crashes), (&at, 1, 0));
    assert!(entry.id > EntryId::default());
    assert_eq!(store.pending(&at, "g", "c").await.expect("pending"), [(entry.id, 1)]);
    assert!(take(store, &at, "g", "c", 10).await.is_empty(), "what was handed out is not new");
}

pub async fn a_read_takes_at_most_count_of_each_partition(world: &World) {
    let (store, a) = (&world.store, partition("read.count"));
    let (b, c) = (neighbour(&a), stranger(&a));
    let mut from = Vec::new();
    for at in [&a, &b, &c] {
        prepare(store, at, "g", "me").await;
        publish(store, events(at, "e", 5)).await;
        from.push(ReadFrom::new(at.clone()));
    }
    let entries = reader(store, "g").read("me", &from, 2, Some(LONG)).await.expect("read");
    for at in [&a, &b, &c] {
        let ids: Vec<_> = entries.iter().filter(|entry| entry.partition == *at).cloned().collect();
        assert_eq!(event_ids(&ids), ["e-0", "e-1"], "{at}");
    }
}

pub async fn a_read_without_wait_answers_at_once(world: &World) {
    let (store, at) = (&world.store, partition("read.nothing"));
    prepare(store, &at, "g", "c").await;
    let start = Instant::now();
    assert!(take(store, &at, "g", "c", 10).await.is_empty());
    assert!(start.elapsed() < Duration::from_secs(2));
}

pub async fn a_read_that_waits_in_vain_ends_empty(world: &World) {
    let (store, at) = (&world.store, partition("read.vain"));
    prepare(store, &at, "g", "c").await;
    let mut reader = reader(store, "g");
    for _ in 0..3 {
        let start = Instant::now();
        let read = reader.read("c", &[ReadFrom::new(at.clone())], 10, Some(Duration::from_millis(60))).await;
        assert!(read.expect("read").is_empty());
        assert!(start.elapsed() >= Duration::from_millis(55) && start.elapsed() < Duration::from_secs(5));
    }
}

pub async fn a_waiting_read_gets_what_is_published_meanwhile(world: &World) {
    let (store, at, other) = (&world.store, partition("read.waits"), partition("read.idle"));
    prepare(store, &at, "g", "c").await;
    prepare(store, &other, "g", "c").await;
    let mut reader = reader(store, "g");
    let from: Vec<ReadFrom> = [&other, &at].map(|at| ReadFrom::new(at.clone())).into();
    let waits = tokio::spawn(async move { reader.read("c", &from, 10, Some(LONG)).await });
    let publisher = world.user().await;
    let mut count = 0;
    until("the read ends", async || {
        publish(&publisher, vec![event(&at, &format!("e-{count}"))]).await;
        count += 1;
        waits.is_finished()
    })
    .await;
    let entries = waits.await.expect("no panic").expect("read");
    assert_eq!(event_ids(&entries)[0], "e-0");
}

pub async fn a_delayed_event_wakes_a_waiting_read_when_it_moves(world: &World) {
    let (store, at) = (&world.store, partition("read.delayed"));
    prepare(store, &at, "g", "c").await;
    let mut reader = reader(store, "g");
    let from = [ReadFrom::new(at.clone())];
    let waits = tokio::spawn(async move { reader.read("c", &from, 10, Some(LONG)).await });
    publish(store, vec![NewEvent { delay_ms: Some(50), ..event(&at, "e") }]).await;
    until("the read ends", async || {
        store.move_delayed(at.bucket()).await.expect("moved");
        waits.is_finished()
    })
    .await;
    assert_eq!(event_ids(&waits.await.expect("no panic").expect("read")), ["e"]);
}

pub async fn a_read_that_is_dropped_swallows_nothing(world: &World) {
    /// After so long without an event the reads are given up.
    const PATIENCE: Duration = Duration::from_millis(40);
    /// A server learns that somebody left by a closed socket, and may hear of an event on another before it: so many
    /// rounds may be lost to that. A read that goes on without its reader loses every one.
    const RACES_MAX: usize = 4;
    let (store, at) = (&world.store, partition("read.dropped"));
    for consumer in ["impatient", "other"] {
        prepare(store, &at, "g", consumer).await;
    }
    let from = [ReadFrom::new(at.clone())];
    let mut kept = reader(store, "g");
    let (mut left_alone, mut races) = (0_usize, 0_usize);
    while left_alone < 6 {
        let n = left_alone + races;
        if n.is_multiple_of(2) {
            // The reader stays, as after a `timeout`.
            let read = tokio::time::timeout(PATIENCE, kept.read("impatient", &from, 10, Some(LONG))).await;
            assert!(read.is_err(), "there was nothing to read: {read:?}");
        } else {
            // The reader goes, too.
            let (mut lost, from) = (reader(store, "g"), from.clone());
            let mut reads = tokio::spawn(async move { lost.read("impatient", &from, 10, Some(LONG)).await });
            assert!(tokio::time::timeout(PATIENCE, &mut reads).await.is_err(), "there was nothing to read");
            reads.abort();
            assert!(reads.await.is_err_and(|error| error.is_cancelled()));
        }
        inspect(store, &at).await;
        publish(store, vec![event(&at, &format!("e-{n}"))]).await;
        let entries = take(store, &at, "g", "other", 10).await;
        if entries.is_empty() {
            races += 1;
            let pending = store.pending(&at, "g", "impatient").await;
            assert!(pending.as_ref().is_ok_and(|pending| pending.len() == races), "it is lost: {pending:?}");
            assert!(races <= RACES_MAX, "it is swallowed: {pending:?}");
            continue;
        }
        assert_eq!(event_ids(&entries), [format!("e-{n}")]);
        acknowledge(store, "g", "other", &entries).await;
        left_alone += 1;
    }
    // The reader that stayed reads on as if nothing had been.
    for n in 0..2 {
        publish(store, vec![event(&at, &format!("after-{n}"))]).await;
        let entries = kept.read("impatient", &from, 10, Some(LONG)).await.expect("read");
        assert_eq!(event_ids(&entries), [format!("after-{n}")]);
    }
}

pub async fn a_wake_ends_a_waiting_read(world: &World) {
    let (store, at) = (&world.store, partition("read.woken"));
    prepare(store, &at, "g", "c").await;
    let (mut reader, waker) = store.reader("g");
    waker.wake(); // nobody reads yet: harmless
    let from = [ReadFrom::new(at.clone())];
    let waits = tokio::spawn(async move {
        let read = reader.read("c", &from, 10, Some(LONG)).await;
        (reader, read)
    });
    until("the read ends", async || {
        waker.wake();
        waits.is_finished()
    })
    .await;
    let (mut reader, read) = waits.await.expect("no panic");
    assert!(read.expect("read").is_empty());
    // It reads on as if nothing had been.
    publish(store, vec![event(&at, "e")]).await;
    let from = [ReadFrom::new(at.clone())];
    let mut entries = Vec::new();
    until("the event is read", async || {
        entries = reader.read("c", &from, 10, Some(LONG)).await.expect("read");
        !entries.is_empty()
    })
    .await;
    assert_eq!(event_ids(&entries), ["e"]);
    drop(reader);
    waker.wake(); // nobody reads any more: harmless
}

pub async fn two_consumers_of_a_group_share_its_entries(world: &World) {
    let (store, other, at) = (&world.store, world.user().await, partition("read.shared"));
    prepare(store, &at, "g", "one").await;
    prepare(&other, &at, "g", "two").await;
    publish(store, events(&at, "e", 1000)).await;
    let drain = async |user: &_, consumer| {
        let mut all = Vec::new();
        loop {
            let some = take(user, &at, "g", consumer, 7).await;
            if some.is_empty() {
                return all;
            }
            all.extend(some);
        }
    };
    let (one, two) = tokio::join!(drain(store, "one"), drain(&other, "two"));
    let all: BTreeSet<EntryId> = one.iter().chain(&two).map(|entry| entry.id).collect();
    assert_eq!((one.len() + two.len(), all.len()), (1000, 1000));
    for (consumer, entries) in [("one", one), ("two", two)] {
        let mut expected: Vec<(EntryId, u32)> = entries.iter().map(|entry| (entry.id, 1)).collect();
        expected.sort_unstable();
        assert_eq!(store.pending(&at, "g", consumer).await.expect("pending"), expected);
    }
}

pub async fn groups_get_all_entries_each(world: &World) {
    let (store, at) = (&world.store, partition("read.groups"));
    for group in ["g", "h:with/all.chars_-"] {
        prepare(store, &at, group, "c").await;
    }
    publish(store, events(&at, "e", 3)).await;
    let first = take(store, &at, "g", "c", 10).await;
    acknowledge(store, "g", "c", &first).await;
    let second = take(store, &at, "h:with/all.chars_-", "c", 10).await;
    assert_eq!(first, second);
}

pub async fn inspect_tells_pending_lag_and_place(world: &World) {
    let (store, at) = (&world.store, partition("read.inspected"));
    prepare(store, &at, "g", "c").await;
    publish(store, events(&at, "e", 5)).await;
    let entries = take(store, &at, "g", "c", 3).await;
    acknowledge(store, "g", "c", &entries[..1]).await;
    let (pending, lag, consumers, last) = group_state(store, &at, "g").await;
    assert_eq!((pending, consumers, last), (2, vec!["c".to_owned()], entries[2].id));
    assert!(lag.is_none_or(|lag| lag == 2), "{lag:?}");
    let state = inspect(store, &at).await;
    assert_eq!((state.length, state.first), (5, Some(entries[0].id)));
    assert!(state.size_bytes > 100 && state.last > state.first);
}

pub async fn what_waits_is_told_of_many_partitions_at_once(world: &World) {
    let (store, at, other) = (&world.store, partition("read.waiting"), partition("read.waiting.too"));
    prepare(store, &at, "g", "c").await;
    prepare(store, &at, "idle", "c").await;
    prepare(store, &other, "g", "c").await;
    publish(store, events(&at, "e", 5)).await;
    publish(store, events(&other, "e", 2)).await;
    let entries = take(store, &at, "g", "c", 3).await;
    acknowledge(store, "g", "c", &entries[..1]).await;
    let none = Partition { lane: Priority::Low, ..at.clone() };
    let asked = [at.clone(), none, other];
    // A third group of the first is not asked about.
    prepare(store, &at, "of others", "c").await;
    let both = BTreeSet::from(["g".to_owned(), "idle".to_owned()]);
    let reads: Vec<_> = asked.iter().map(|partition| (partition.clone(), both.clone())).collect();
    let waiting: Vec<Vec<(String, u64, u64)>> = store
        .backlogs(&reads)
        .await
        .expect("told")
        .into_iter()
        .map(|groups| groups.into_iter().map(|Backlog { group, pending, lag }| (group, pending, lag)).collect())
        .collect();
    let of = |group: &str, pending, lag| (group.to_owned(), pending, lag);
    assert_eq!(waiting, [vec![of("g", 2, 2), of("idle", 0, 5)], vec![], vec![of("g", 0, 2)]]);
    // What is gone was added all the same.
    acknowledge(store, "g", "c", &take(store, &at, "g", "c", 10).await).await;
    assert_eq!(store.added(&asked).await.expect("told"), [5, 0, 2]);
}

pub async fn foreign_entries_are_delivered_as_they_are(world: &World) {
    let (store, at) = (&world.store, partition("read.foreign"));
    prepare(store, &at, "g", "c").await;
    world.add_foreign(&at, &[("hello", b"world"), ("bin", &[0, 255, 10])]).await;
    publish(store, vec![event(&at, "e")]).await;
    let entries = take(store, &at, "g", "c", 10).await;
    let fields = vec![(b"hello".to_vec(), b"world".to_vec()), (b"bin".to_vec(), vec![0, 255, 10])];
    assert_eq!(entries[0].body, Body::Foreign(fields));
    assert_eq!(event_ids(&entries), ["", "e"]);

    let disposal = dead_letter("not an event");
    assert_eq!(settle(store, "g", "c", &entries[0], disposal).await, ossa::engine::store::Settled::Done);
    let letters = crate::support::events::dead_letters(store, &crate::support::events::of_type(&at), 10).await;
    let data: serde_json::Value = serde_json::from_str(&letters[0].data).expect("a JSON object");
    assert_eq!((letters[0].meta.as_str(), &data["hello"]), ("", &serde_json::json!("world")));
}

pub async fn unreadable_metadata_is_delivered_as_it_is(world: &World) {
    let (store, at) = (&world.store, partition("read.unreadable"));
    prepare(store, &at, "g", "c").await;
    for meta in ["", "{", "null", r#"{"v":99,"id":"x","source":"y","timestamp":1}"#, "\u{0}"] {
        publish(store, vec![NewEvent { meta: meta.into(), data: "not json".into(), ..event(&at, "x") }]).await;
        let entry = take_one(store, &at, "g", "c").await;
        let Body::Event { meta: seen, data, .. } = &entry.body else { panic!("{entry:?}") };
        assert_eq!((&seen[..], &data[..]), (meta.as_bytes(), b"not json".as_slice()));
        let _ = held(&entry);
    }
}
