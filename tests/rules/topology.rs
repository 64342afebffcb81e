//! Types and groups: who is where from when on.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use ossa::engine::error::Code;
use ossa::engine::event::Priority;
use ossa::engine::store::{
    EntryId, GroupSpec, Partition, Partitioning, ReadError, ReadFrom, Restored, StartFrom, StoreEvent, StreamLayout,
};

use crate::support::events::{
    LONG, acknowledge, event, event_ids, events, group_state, inspect, partition, publish, reader, spec, take, take_one,
};
use crate::support::wait::until;
use crate::support::world::World;

pub async fn an_opened_partition_is_known(world: &World) {
    let store = &world.store;
    assert!(store.inspect(&partition("known.type")).await.expect("inspected").is_none());
    for _ in 0..2 {
        store.open_partition(&partition("known.type")).await.expect("opened");
        store.open_partition(&partition("known.also:this/one")).await.expect("opened");
    }
    let topology = store.topology().await.expect("topology");
    assert_eq!(topology.types, ["known.also:this/one", "known.type"]);
    assert_eq!(topology.partitions, ["known.also:this/one", "known.type"].map(partition));
    let state = inspect(store, &partition("known.type")).await;
    assert_eq!((state.length, state.first, state.last), (0, None, None));
}

pub async fn the_number_of_partitions_is_decided_once(world: &World) {
    let (store, other) = (&world.store, world.user().await);
    assert_eq!(store.layout("plain").await.expect("asked"), StreamLayout::default());
    let eight = StreamLayout { partitions: 8, partitioning: Partitioning::RoundRobin, keep_count: Some(5), ..StreamLayout::default() };
    let error = other.create_stream("plain", &eight).await.expect_err("its first event was in one partition");
    assert_eq!((error.code, error.details["argument"].as_str()), (Code::InvalidArgument, Some("config.partitions")));
    other.create_stream("wide", &eight).await.expect("made");
    assert_eq!(store.layout("wide").await.expect("asked"), eight);
    let longer = StreamLayout { keep_count: Some(9), ..eight.clone() };
    store.create_stream("wide", &longer).await.expect("what is kept may change");
    assert_eq!(other.layout("wide").await.expect("asked"), longer);
    let layouts = other.topology().await.expect("topology").layouts;
    assert_eq!(layouts.into_iter().collect::<Vec<_>>(), [("wide".to_owned(), longer)], "the default needs no word");
}

pub async fn lanes_of_a_partition_are_streams_of_their_own(world: &World) {
    let store = &world.store;
    store.join(&spec("g", "lanes"), StartFrom::Beginning, "c").await.expect("joined");
    let lanes = Priority::ALL.map(|lane| partition("lanes").in_lane(lane));
    for lane in &lanes {
        publish(store, vec![event(lane, lane.lane.as_str())]).await;
    }
    let mut known = store.topology().await.expect("topology").partitions;
    known.sort();
    assert_eq!(known, lanes);
    for lane in &lanes {
        assert_eq!(event_ids(&take(store, lane, "g", "c", 10).await), [lane.lane.as_str()]);
    }
}

pub async fn topology_lists_specs_with_their_options(world: &World) {
    let (store, other) = (&world.store, world.user().await);
    let specs = [
        GroupSpec { options: r#"{"ordered":true}"#.into(), ..spec("billing", "orders.*") },
        spec("billing:eu", "orders.**"),
        spec("mail", "orders.created"),
    ];
    for one in &specs {
        store.join(one, StartFrom::Beginning, "c").await.expect("joined");
    }
    let mut seen = other.topology().await.expect("topology").groups;
    seen.sort_by(|a, b| a.group.cmp(&b.group));
    assert_eq!(seen, specs);
}

pub async fn a_new_partition_has_every_durable_group_that_matches_at_its_beginning(world: &World) {
    let (store, at) = (&world.store, partition("orders.eu.created"));
    for (group, pattern) in [("one", "orders.*.created"), ("any", "orders.**"), ("no", "orders.*")] {
        // 'Latest' concerns what exists at the join.
        store.join(&spec(group, pattern), StartFrom::Latest, "c").await.expect("joined");
        store.leave(&spec(group, pattern), "c").await.expect("left");
    }
    store.open_partition(&at).await.expect("opened");
    publish(store, vec![event(&at, "e")]).await;
    let mut groups: Vec<String> = inspect(store, &at).await.groups.into_iter().map(|group| group.name).collect();
    groups.sort();
    assert_eq!(groups, ["any", "one"]);
    for group in groups {
        assert_eq!(event_ids(&take(store, &at, &group, "c", 10).await), ["e"], "{group}");
    }
}

pub async fn a_join_answers_the_partitions_its_pattern_matches(world: &World) {
    let store = &world.store;
    for name in ["a.b", "a.c", "a.b.c", "b"] {
        store.open_partition(&partition(name)).await.expect("opened");
    }
    for (pattern, expected) in [("a.*", vec!["a.b", "a.c"]), ("a.**", vec!["a.b", "a.b.c", "a.c"]), ("b", vec!["b"]), ("c.*", vec![])] {
        let mut joined = store.join(&spec("g", pattern), StartFrom::Beginning, "c").await.expect("joined");
        joined.sort();
        assert_eq!(joined, expected.into_iter().map(partition).collect::<Vec<_>>(), "{pattern}");
    }
    assert!(inspect(store, &partition("a.b")).await.groups.iter().any(|group| group.name == "g"));
}

pub async fn a_join_reaches_every_partition_of_a_type(world: &World) {
    let store = &world.store;
    let parts: Vec<Partition> = (0..4).map(|index| Partition::new("parted", index)).collect();
    for at in &parts {
        store.open_partition(at).await.expect("opened");
        publish(store, vec![event(at, &at.to_string())]).await;
    }
    for pattern in ["parted", "*"] {
        let mut joined = store.join(&spec("g", pattern), StartFrom::Beginning, "c").await.expect("joined");
        joined.sort();
        assert_eq!(joined, parts, "{pattern}");
    }
    for at in &parts {
        assert_eq!(event_ids(&take(store, at, "g", "c", 10).await), [at.to_string()]);
    }
    let topology = store.topology().await.expect("topology");
    assert_eq!((topology.types, topology.partitions), (vec!["parted".to_owned()], parts));
}

pub async fn joining_an_exact_type_makes_it_known(world: &World) {
    let (store, at) = (&world.store, partition("not.yet.published"));
    let joined = store.join(&spec("g", "not.yet.published"), StartFrom::Latest, "c").await.expect("joined");
    assert_eq!(joined, std::slice::from_ref(&at));
    publish(store, vec![event(&at, "e")]).await;
    assert_eq!(event_ids(&take(store, &at, "g", "c", 10).await), ["e"]);
}

pub async fn a_group_starts_at_the_beginning_at_latest_or_at_a_time(world: &World) {
    let (store, at) = (&world.store, partition("starts.here"));
    store.open_partition(&at).await.expect("opened");
    publish(store, events(&at, "old", 3)).await;
    let old_ms = inspect(store, &at).await.last.expect("it has entries").ms;
    until("the clock went on", async || store.now_ms() > old_ms + 5).await;
    publish(store, vec![event(&at, "newer")]).await;
    let newer_ms = inspect(store, &at).await.last.expect("it has entries").ms;
    assert!(newer_ms > old_ms);

    for (group, start) in [
        ("beginning", StartFrom::Beginning),
        ("latest", StartFrom::Latest),
        ("between", StartFrom::Time(old_ms + 1)),
        ("exactly", StartFrom::Time(newer_ms)),
        ("ever", StartFrom::Time(0)),
        ("future", StartFrom::Time(newer_ms + 1)),
    ] {
        store.join(&spec(group, "starts.*"), start, "c").await.expect("joined");
    }
    until("the clock went on", async || store.now_ms() > newer_ms + 5).await;
    publish(store, vec![event(&at, "last")]).await;
    let all = vec!["old-0", "old-1", "old-2", "newer", "last"];
    for (group, expected) in [
        ("beginning", all.clone()),
        ("latest", vec!["last"]),
        ("between", vec!["newer", "last"]),
        ("exactly", vec!["newer", "last"]),
        ("ever", all),
        ("future", vec!["last"]),
    ] {
        assert_eq!(event_ids(&take(store, &at, group, "c", 10).await), expected, "{group}");
    }
}

pub async fn latest_comes_after_what_was_removed_too(world: &World) {
    let (store, at) = (&world.store, partition("starts.empty"));
    store.open_partition(&at).await.expect("opened");
    store.join(&spec("g", "starts.empty"), StartFrom::Latest, "c").await.expect("joined");
    assert!(take(store, &at, "g", "c", 10).await.is_empty());
    publish(store, vec![event(&at, "e")]).await;
    assert_eq!(event_ids(&take(store, &at, "g", "c", 10).await), ["e"]);
}

pub async fn joining_again_does_not_move_the_group(world: &World) {
    let (store, at) = (&world.store, partition("joined.twice"));
    store.open_partition(&at).await.expect("opened");
    store.join(&spec("g", "joined.twice"), StartFrom::Beginning, "c").await.expect("joined");
    publish(store, events(&at, "e", 3)).await;
    let first = take_one(store, &at, "g", "c").await;
    acknowledge(store, "g", "c", &[first]).await;
    for (consumer, start) in [("c", StartFrom::Latest), ("d", StartFrom::Beginning), ("d", StartFrom::Time(0))] {
        store.join(&spec("g", "joined.twice"), start, consumer).await.expect("joined");
    }
    assert_eq!(event_ids(&take(store, &at, "g", "d", 10).await), ["e-1", "e-2"]);
}

pub async fn other_options_of_a_live_member_are_refused(world: &World) {
    let (store, other) = (&world.store, world.user().await);
    let ordered = GroupSpec { options: r#"{"ordered":true}"#.into(), ..spec("g", "refused.*") };
    store.join(&ordered, StartFrom::Beginning, "first").await.expect("joined");
    store.join(&ordered, StartFrom::Beginning, "second").await.expect("the same options agree");
    let error = other.join(&spec("g", "refused.*"), StartFrom::Beginning, "third").await.expect_err("they differ");
    assert_eq!(error.code, Code::InvalidArgument);
    assert_eq!(error.details["argument"], "options");
    assert!(error.message.contains(r#"{"ordered":true}"#) && error.message.contains("{}"), "{}", error.message);
    assert_eq!(store.topology().await.expect("topology").groups, std::slice::from_ref(&ordered));

    // Another pattern or group is another matter.
    other.join(&spec("g", "refused.**"), StartFrom::Beginning, "third").await.expect("joined");
    other.join(&spec("h", "refused.*"), StartFrom::Beginning, "third").await.expect("joined");

    store.leave(&ordered, "first").await.expect("left");
    let error = other.join(&spec("g", "refused.*"), StartFrom::Beginning, "third").await;
    assert!(error.is_err(), "the second member is still there");
    store.leave(&ordered, "second").await.expect("left");
    store.leave(&ordered, "second").await.expect("leaving twice is no error");
    other.join(&spec("g", "refused.*"), StartFrom::Beginning, "third").await.expect("nobody holds it");
    assert!(store.topology().await.expect("topology").groups.contains(&spec("g", "refused.*")));
}

pub async fn the_only_member_may_change_the_options(world: &World) {
    let store = &world.store;
    store.join(&spec("g", "changed"), StartFrom::Beginning, "c").await.expect("joined");
    let changed = GroupSpec { options: r#"{"filter":{}}"#.into(), ..spec("g", "changed") };
    store.join(&changed, StartFrom::Beginning, "c").await.expect("no other member");
    assert_eq!(store.topology().await.expect("topology").groups, [changed]);
}

pub async fn changes_are_announced_to_others(world: &World) {
    let watcher = world.closed_user();
    let heard = Arc::new(AtomicU32::new(0));
    let count = heard.clone();
    watcher.watch(Arc::new(move |event| {
        if event == StoreEvent::TopologyChanged {
            count.fetch_add(1, Ordering::SeqCst);
        }
    }));
    watcher.open().await.expect("opened");
    // A watcher that has only just opened may hear one more time than there is something new: what counts is that
    // it hears again after each change.
    for (step, name) in ["announced.a", "announced.b"].into_iter().enumerate() {
        let before = heard.load(Ordering::SeqCst);
        until("the type was announced", async || {
            world.store.open_partition(&partition(&format!("{name}.{}", world.store.now_ms()))).await.expect("opened");
            heard.load(Ordering::SeqCst) > before
        })
        .await;
        let before = heard.load(Ordering::SeqCst);
        world.store.join(&spec(&format!("g{step}"), "announced.**"), StartFrom::Beginning, "c").await.expect("joined");
        until("the group was announced", async || heard.load(Ordering::SeqCst) > before).await;
    }
}

pub async fn reading_without_the_group_says_so(world: &World) {
    let (store, at) = (&world.store, partition("no.group"));
    let from = [ReadFrom::new(at.clone())];
    let missing = reader(store, "g").read("c", &from, 1, None).await;
    assert!(matches!(missing, Err(ReadError::NoGroup)), "{missing:?}");
    store.open_partition(&at).await.expect("opened");
    let missing = reader(store, "g").read("c", &from, 1, Some(LONG)).await;
    assert!(matches!(missing, Err(ReadError::NoGroup)), "{missing:?}");
}

pub async fn one_missing_group_takes_nothing_from_the_others(world: &World) {
    let (store, at) = (&world.store, partition("group.here"));
    store.open_partition(&at).await.expect("opened");
    store.join(&spec("g", "group.here"), StartFrom::Beginning, "c").await.expect("joined");
    publish(store, vec![event(&at, "e")]).await;
    let missing = crate::support::events::neighbour(&at);
    let from = [ReadFrom::new(at.clone()), ReadFrom::new(missing)];
    let read = reader(store, "g").read("c", &from, 1, None).await;
    assert!(matches!(read, Err(ReadError::NoGroup)), "{read:?}");
    assert_eq!(event_ids(&take(store, &at, "g", "c", 10).await), ["e"]);
}

pub async fn a_lost_group_comes_back_after_what_it_had(world: &World) {
    let (store, at) = (&world.store, partition("restored.here"));
    store.open_partition(&at).await.expect("opened");
    store.join(&spec("reader", "restored.here"), StartFrom::Beginning, "c").await.expect("joined");
    publish(store, events(&at, "e", 4)).await;
    let entries = take(store, &at, "reader", "c", 10).await;
    let (after, seen) = (entries[1].id, entries[3].id);
    assert_eq!(store.restore_group(&at, "lost", after, seen).await.expect("restored"), Restored::Continued);
    let none = EntryId::default();
    assert_eq!(store.restore_group(&at, "lost", none, none).await.expect("it is there"), Restored::There);
    assert_eq!(event_ids(&take(store, &at, "lost", "c", 10).await), ["e-2", "e-3"]);
}

pub async fn a_lost_group_of_a_new_stream_comes_back_at_the_beginning(world: &World) {
    let (store, at) = (&world.store, partition("restored.new"));
    let once = EntryId { ms: store.now_ms() + 60_000, seq: 0 };
    assert_eq!(store.restore_group(&at, "lost", once, once).await.expect("restored"), Restored::Anew);
    publish(store, events(&at, "e", 2)).await;
    assert_eq!(event_ids(&take(store, &at, "lost", "c", 10).await), ["e-0", "e-1"]);
    // Entries came before it was noticed.
    assert_eq!(store.restore_group(&at, "late", once, once).await.expect("restored"), Restored::Anew);
    let late = take(store, &at, "late", "c", 10).await;
    assert_eq!(event_ids(&late), ["e-0", "e-1"]);
    // The place where it was has been passed, as where a clock was set back: it is another stream for all that.
    let between = EntryId { seq: late[0].id.seq + 1_000_000, ..late[0].id };
    publish(store, events(&at, "f", 1)).await;
    assert_eq!(store.restore_group(&at, "passed", between, between).await.expect("restored"), Restored::Anew);
    assert_eq!(event_ids(&take(store, &at, "passed", "c", 10).await), ["e-0", "e-1", "f-0"]);
    assert!(store.topology().await.expect("topology").types.contains(&"restored.new".to_owned()));
    let (pending, lag, ..) = group_state(store, &at, "late").await;
    assert_eq!((pending, lag.unwrap_or(0)), (2, 1));
}
