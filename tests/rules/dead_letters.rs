//! Dead letters: listed in pages, put back for the group that failed them, deleted.

use std::collections::BTreeSet;

use ossa::engine::error::Code;
use ossa::engine::store::{Body, DeadLetterQuery, EntryId, Settled};

use crate::support::events::{
    acknowledge, bury, dead_letter, dead_letters, event, event_ids, group_state, inspect, neighbour, of_type, partition, prepare, publish,
    settle, stranger, take, take_one,
};
use crate::support::wait::until;
use crate::support::world::World;

fn by_group(group: &str) -> DeadLetterQuery {
    DeadLetterQuery { group: Some(group.into()), ..DeadLetterQuery::default() }
}

fn by_ids(ids: &[&str]) -> DeadLetterQuery {
    DeadLetterQuery { ids: Some(ids.iter().map(ToString::to_string).collect()), ..DeadLetterQuery::default() }
}

pub async fn pages_hold_each_once_while_new_ones_arrive(world: &World) {
    let (store, a) = (&world.store, partition("dead.pages"));
    let (b, c) = (neighbour(&a), stranger(&a));
    for at in [&a, &b, &c] {
        prepare(store, at, "g", "c").await;
        bury(store, at, "g", "c", "old", 40).await;
    }
    let before: BTreeSet<String> =
        dead_letters(store, &DeadLetterQuery::default(), 1000).await.into_iter().map(|letter| letter.id).collect();
    assert_eq!(before.len(), 120);
    let mut seen = Vec::new();
    let mut cursor: Option<String> = None;
    for page in 0.. {
        assert!(page < 1000, "the list does not end");
        let (letters, next) = store.dead_letters(&DeadLetterQuery::default(), 7, cursor.as_deref()).await.expect("listed");
        assert!(letters.len() <= 7);
        seen.extend(letters.into_iter().map(|letter| letter.id));
        if page < 20 {
            for at in [&a, &b, &c] {
                bury(store, at, "g", "c", &format!("new{page}"), 1).await;
            }
        }
        cursor = next;
        if cursor.is_none() {
            break;
        }
    }
    let unique: BTreeSet<String> = seen.iter().cloned().collect();
    assert_eq!(unique.len(), seen.len(), "none twice");
    assert!(before.is_subset(&unique), "none left out");
}

pub async fn letters_of_a_type_come_oldest_first(world: &World) {
    let (store, at) = (&world.store, partition("dead.order"));
    prepare(store, &at, "g", "c").await;
    bury(store, &at, "g", "c", "e", 250).await;
    for limit in [1, 50, 249, 250, 251] {
        let data: Vec<String> = dead_letters(store, &of_type(&at), limit).await.into_iter().map(|letter| letter.data).collect();
        let expected: Vec<String> = (0..250).map(|n| format!("\"e-{n}\"")).collect();
        assert_eq!(data, expected, "pages of {limit}");
    }
}

pub async fn queries_narrow_by_type_group_time_and_id(world: &World) {
    let (store, a) = (&world.store, partition("dead.query"));
    let b = stranger(&a);
    for (at, group) in [(&a, "g"), (&a, "h"), (&b, "g")] {
        prepare(store, at, group, "c").await;
    }
    bury(store, &a, "g", "c", "first", 2).await;
    let entries = take(store, &a, "h", "c", 1).await;
    settle(store, "h", "c", &entries[0], dead_letter("h")).await;
    let last_ms = dead_letters(store, &of_type(&a), 10).await.iter().map(|letter| letter.failed_at_ms).max().expect("three");
    until("the clock went on", async || store.now_ms() > last_ms + 5).await;
    bury(store, &b, "g", "c", "second", 1).await;

    let all = DeadLetterQuery::default();
    let from = DeadLetterQuery { from_ms: Some(last_ms + 1), ..all.clone() };
    let to = DeadLetterQuery { to_ms: Some(last_ms), ..all.clone() };
    let until_first = DeadLetterQuery { from_ms: Some(0), to_ms: Some(1), ..all.clone() };
    let both = DeadLetterQuery { group: Some("g".into()), ..of_type(&a) };
    let listed = dead_letters(store, &of_type(&a), 10).await;
    let ids = by_ids(&[&listed[0].id, &listed[2].id]);
    let ids_of_h = DeadLetterQuery { group: Some("h".into()), ..ids.clone() };
    for (query, count) in [
        (all, 4),
        (of_type(&a), 3),
        (of_type(&b), 1),
        (of_type(&partition("dead.none")), 0),
        (by_group("g"), 3),
        (by_group("h"), 1),
        (by_group("nobody"), 0),
        (both, 2),
        (from, 1),
        (to, 3),
        (until_first, 0),
        (ids, 2),
        (ids_of_h, 1),
        (by_ids(&[]), 0),
        (by_ids(&["3.1-1.dead.query"]), 0),
    ] {
        assert_eq!(dead_letters(store, &query, 10).await.len(), count, "{query:?}");
        assert_eq!(dead_letters(store, &query, 1).await.len(), count, "{query:?}");
        assert_eq!(store.count_dead_letters(&query).await.expect("counted"), count as u64, "{query:?}");
    }
}

pub async fn nonsense_is_refused(world: &World) {
    let store = &world.store;
    for cursor in ["", "nonsense", "1.2", "-1-0"] {
        let error = store.dead_letters(&DeadLetterQuery::default(), 10, Some(cursor)).await.expect_err(cursor);
        assert_eq!((error.code, &error.details["argument"]), (Code::InvalidArgument, &"cursor".into()));
    }
    for id in ["", "nonsense", "1.2.x", "99.1-1.x"] {
        let error = store.redrive(&by_ids(&[id])).await.expect_err(id);
        assert_eq!((error.code, &error.details["argument"]), (Code::InvalidArgument, &"ids".into()));
    }
}

pub async fn redrive_and_purge_refuse_an_empty_query(world: &World) {
    let (store, at) = (&world.store, partition("dead.empty"));
    prepare(store, &at, "g", "c").await;
    bury(store, &at, "g", "c", "e", 1).await;
    let empty = DeadLetterQuery::default();
    for error in [store.redrive(&empty).await.expect_err("refused"), store.purge(&empty).await.expect_err("refused")] {
        assert_eq!((error.code, &error.details["argument"]), (Code::InvalidArgument, &"query".into()));
        assert!(error.message.contains("event type"), "{}", error.message);
    }
    assert_eq!(store.count_dead_letters(&empty).await.expect("counted"), 1);
}

pub async fn a_redriven_event_is_for_the_group_that_failed_it(world: &World) {
    let (store, at) = (&world.store, partition("dead.redrive"));
    for group in ["failed", "other"] {
        prepare(store, &at, group, "c").await;
    }
    publish(store, vec![event(&at, "e")]).await;
    let first = take_one(store, &at, "failed", "c").await;
    let others = take(store, &at, "other", "c", 10).await;
    acknowledge(store, "other", "c", &others).await;
    let mut entry = first.clone();
    for _ in 0..3 {
        assert_eq!(settle(store, "failed", "c", &entry, dead_letter("no")).await, Settled::Done);
        assert_eq!(store.redrive(&of_type(&at)).await.expect("redriven"), 1);
        assert_eq!(store.count_dead_letters(&of_type(&at)).await.expect("counted"), 0);
        entry = take_one(store, &at, "failed", "c").await;
        assert!(entry.id > first.id);
        assert_eq!((entry.deliveries, entry.crashes), (1, 0), "attempts from 1");
        let (Body::Event { meta, data, only_group, first_entry }, Body::Event { meta: m, data: d, .. }) = (&entry.body, &first.body) else {
            panic!("{entry:?}")
        };
        assert_eq!((meta, data), (m, d));
        assert_eq!((only_group.as_deref(), *first_entry), (Some("failed"), Some(first.id)), "the first entry is kept");
    }
    // The other group gets it too, marked: the engine acknowledges it unseen.
    let others = take(store, &at, "other", "c", 10).await;
    assert_eq!(event_ids(&others), ["e", "e", "e"]);
    let is_marked = |body: &Body| matches!(body, Body::Event { only_group: Some(group), .. } if group == "failed");
    assert!(others.iter().all(|entry| is_marked(&entry.body)));
    acknowledge(store, "other", "c", &others).await;
    acknowledge(store, "failed", "c", &[entry]).await;
    assert_eq!((group_state(store, &at, "failed").await.0, group_state(store, &at, "other").await.0), (0, 0));
}

pub async fn a_redriven_foreign_entry_stays_with_its_group(world: &World) {
    let (store, at) = (&world.store, partition("dead.foreign"));
    prepare(store, &at, "g", "c").await;
    world.add_foreign(&at, &[("hello", b"world")]).await;
    let entry = take_one(store, &at, "g", "c").await;
    settle(store, "g", "c", &entry, dead_letter("no event")).await;
    let before = dead_letters(store, &of_type(&at), 10).await;
    assert_eq!(store.redrive(&of_type(&at)).await.expect("redriven"), 1);
    let entry = take_one(store, &at, "g", "c").await;
    settle(store, "g", "c", &entry, dead_letter("no event")).await;
    let after = dead_letters(store, &of_type(&at), 10).await;
    assert_eq!((after.len(), &after[0].meta, &after[0].data), (1, &before[0].meta, &before[0].data));
}

pub async fn redriving_keeps_the_order_of_death(world: &World) {
    let (store, at) = (&world.store, partition("dead.reorder"));
    prepare(store, &at, "g", "c").await;
    bury(store, &at, "g", "c", "e", 300).await;
    assert_eq!(store.redrive(&by_group("g")).await.expect("redriven"), 300);
    let expected: Vec<String> = (0..300).map(|n| format!("e-{n}")).collect();
    assert_eq!(event_ids(&take(store, &at, "g", "c", 1000).await), expected);
}

pub async fn redrive_by_id_moves_these_alone(world: &World) {
    let (store, at) = (&world.store, partition("dead.some"));
    prepare(store, &at, "g", "c").await;
    bury(store, &at, "g", "c", "e", 4).await;
    let ids: Vec<String> = dead_letters(store, &of_type(&at), 10).await.into_iter().map(|letter| letter.id).collect();
    assert_eq!(store.redrive(&by_ids(&[&ids[1], &ids[3], &ids[3]])).await.expect("redriven"), 2);
    assert_eq!(event_ids(&take(store, &at, "g", "c", 10).await), ["e-1", "e-3"]);
    assert_eq!(store.redrive(&by_ids(&[&ids[1]])).await.expect("none left"), 0);
    assert_eq!(store.purge(&by_ids(&[&ids[0], &ids[1]])).await.expect("purged"), 1);
    let left: Vec<String> = dead_letters(store, &of_type(&at), 10).await.into_iter().map(|letter| letter.id).collect();
    assert_eq!(left, [ids[2].clone()]);
}

pub async fn two_redrives_at_once_move_each_once(world: &World) {
    let (store, other, at) = (&world.store, world.user().await, partition("dead.race"));
    prepare(store, &at, "g", "c").await;
    bury(store, &at, "g", "c", "e", 250).await;
    let query = of_type(&at);
    let (one, two) = tokio::join!(store.redrive(&query), other.redrive(&query));
    assert_eq!(one.expect("redriven") + two.expect("redriven"), 250);
    assert_eq!(take(store, &at, "g", "c", 1000).await.len(), 250);
}

pub async fn purge_deletes_what_matches(world: &World) {
    let (store, a) = (&world.store, partition("dead.purge"));
    let b = stranger(&a);
    for (at, group) in [(&a, "g"), (&b, "h")] {
        prepare(store, at, group, "c").await;
        bury(store, at, group, "c", "e", 120).await;
    }
    let length = inspect(store, &a).await.length;
    assert_eq!(store.purge(&by_group("nobody")).await.expect("purged"), 0);
    assert_eq!(store.purge(&by_group("g")).await.expect("purged"), 120);
    assert_eq!(dead_letters(store, &DeadLetterQuery::default(), 1000).await.len(), 120);
    assert_eq!(inspect(store, &a).await.length, length, "entries are another matter");
    assert_eq!(store.purge(&of_type(&b)).await.expect("purged"), 120);
    assert_eq!(store.count_dead_letters(&DeadLetterQuery::default()).await.expect("counted"), 0);
}

pub async fn letters_of_every_partition_of_a_type_are_found(world: &World) {
    let store = &world.store;
    let parts: Vec<_> = (0..4).map(|index| ossa::engine::store::Partition::new("dead.parted", index)).collect();
    for at in &parts {
        store.open_partition(at).await.expect("opened");
        store.restore_group(at, "g", EntryId::default(), EntryId::default()).await.expect("made");
        bury(store, at, "g", "c", &at.to_string(), 1).await;
    }
    assert_eq!(dead_letters(store, &of_type(&parts[0]), 10).await.len(), 4);
    assert_eq!(store.redrive(&of_type(&parts[0])).await.expect("redriven"), 4);
    for at in &parts {
        assert_eq!(event_ids(&take(store, at, "g", "c", 10).await), [format!("{at}-0")], "back where it was");
    }
}
