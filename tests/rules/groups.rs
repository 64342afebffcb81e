//! How groups end.

use std::sync::Arc;
use std::time::Duration;

use ossa::engine::error::Code;
use ossa::engine::store::{GroupSpec, Keeping, Partition, ReadError, ReadFrom, StartFrom, Store};

use crate::support::events::{
    LONG, acknowledge, event, event_ids, events, inspect, keeping, partition, prepare, publish, reader, retry, settle, spec, take, take_one,
};
use crate::support::wait::until;
use crate::support::world::World;

fn ephemeral(group: &str, pattern: &str) -> GroupSpec {
    GroupSpec { options: r#"{"ephemeral":true}"#.into(), ..spec(group, pattern) }
}

async fn groups(store: &Arc<dyn Store>, at: &Partition) -> Vec<String> {
    let mut names: Vec<String> = inspect(store, at).await.groups.into_iter().map(|group| group.name).collect();
    names.sort();
    names
}

async fn specs(store: &Arc<dyn Store>) -> Vec<(String, String)> {
    store.topology().await.expect("topology").groups.into_iter().map(|spec| (spec.group, spec.pattern)).collect()
}

/// The consumer leaves what it holds, and its lease ends.
async fn go(store: &Arc<dyn Store>, spec: &GroupSpec, consumer: &str, at: &Partition) {
    store.leave(spec, consumer).await.expect("left");
    store.release(consumer, &[at.bucket()]).await.expect("released");
}

pub async fn a_deleted_group_is_gone_with_all_that_waited_in_it(world: &World) {
    let (store, at) = (&world.store, partition("deleted"));
    prepare(store, &at, "g", "c").await;
    prepare(store, &at, "stays", "s").await;
    publish(store, events(&at, "e", 5)).await;
    let entries = take(store, &at, "g", "c", 3).await;
    settle(store, "g", "c", &entries[0], retry(0)).await;
    let seen = take(store, &at, "stays", "s", 5).await;
    acknowledge(store, "stays", "s", &seen).await;
    go(store, &spec("g", "deleted"), "c", &at).await;
    assert!(store.delete_group("deleted", "g").await.expect("deleted"));
    assert_eq!(groups(store, &at).await, ["stays"]);
    assert_eq!(specs(store).await, [("stays".to_owned(), "deleted".to_owned())]);
    assert_eq!(store.due(at.bucket(), "g").await.expect("asked").partitions, []);
    assert!(!store.delete_group("deleted", "g").await.expect("asked"), "there is none any more");
    // It does not hold the stream any more.
    until("the stream has shrunk", async || {
        store.sweep(&at, &Keeping { keep_acknowledged: 0, ..keeping() }).await.expect("swept");
        inspect(store, &at).await.length == 0
    })
    .await;
    // Made again, it begins anew.
    prepare(store, &at, "g", "c2").await;
    publish(store, vec![event(&at, "new")]).await;
    assert_eq!(event_ids(&take(store, &at, "g", "c2", 10).await), ["new"]);
    assert!(store.claim_due(&at, "g", "c2", 10).await.expect("claimed").entries.is_empty());
}

pub async fn publishers_do_not_make_a_deleted_group_again(world: &World) {
    let (store, other) = (&world.store, world.user().await);
    store.join(&spec("g", "made.*"), StartFrom::Beginning, "c").await.expect("joined");
    publish(&other, vec![event(&partition("made.one"), "e")]).await;
    store.leave(&spec("g", "made.*"), "c").await.expect("left");
    assert!(store.delete_group("made.*", "g").await.expect("deleted"));
    for name in ["made.one", "made.two"] {
        publish(&other, vec![event(&partition(name), "e")]).await;
        assert_eq!(groups(store, &partition(name)).await, [] as [&str; 0], "{name}");
    }
}

pub async fn a_group_with_a_live_consumer_is_not_deleted(world: &World) {
    let (store, at) = (&world.store, partition("in.use"));
    prepare(store, &at, "g", "c").await;
    publish(store, vec![event(&at, "e")]).await;
    let refused = async |why: &str| {
        let error = store.delete_group("in.use", "g").await.expect_err(why);
        assert_eq!((error.code, error.details["argument"].as_str()), (Code::InvalidArgument, Some("group")), "{why}");
        assert!(error.message.contains('c'), "{why}: {}", error.message);
    };
    refused("it holds the group").await;
    take_one(store, &at, "g", "c").await;
    store.leave(&spec("g", "in.use"), "c").await.expect("left");
    refused("it reads, with a lease, under a name that is not noted").await;
    assert_eq!(groups(store, &at).await, ["g"]);
    assert_eq!(specs(store).await.len(), 1);
    store.release("c", &[at.bucket()]).await.expect("released");
    assert!(store.delete_group("in.use", "g").await.expect("deleted"));
}

pub async fn what_another_pattern_covers_stays(world: &World) {
    let (store, at, other) = (&world.store, partition("many.a"), partition("many.b"));
    for at in [&at, &other] {
        store.open_partition(at).await.expect("opened");
    }
    for pattern in ["many.a", "many.*"] {
        store.join(&spec("g", pattern), StartFrom::Beginning, "c").await.expect("joined");
    }
    store.leave(&spec("g", "many.*"), "c").await.expect("left");
    store.leave(&spec("g", "many.a"), "c").await.expect("left");
    let error = store.delete_group("many.b", "g").await.expect_err("it is read by a pattern");
    assert_eq!((error.code, error.details["pattern"].as_str()), (Code::InvalidArgument, Some("many.*")));
    assert!(!store.delete_group("other.*", "g").await.expect("asked"));
    assert!(store.delete_group("many.*", "g").await.expect("deleted"));
    assert_eq!((groups(store, &at).await, groups(store, &other).await), (vec!["g".to_owned()], vec![]));
    assert!(store.delete_group("many.a", "g").await.expect("deleted"));
    assert_eq!(groups(store, &at).await, [] as [&str; 0]);
}

pub async fn an_ephemeral_group_ends_with_its_last_holder(world: &World) {
    let (store, other, at) = (&world.store, world.user().await, partition("passing"));
    let spec = ephemeral("e", "passing");
    for (store, consumer) in [(store, "one"), (&other, "two")] {
        store.join(&spec, StartFrom::Beginning, consumer).await.expect("joined");
        assert!(store.renew(consumer, &[at.bucket()], LONG).await.expect("renewed"));
    }
    publish(store, events(&at, "e", 3)).await;
    assert_eq!(take(store, &at, "e", "one", 1).await.len(), 1);
    go(store, &spec, "one", &at).await;
    assert_eq!((groups(store, &at).await, specs(store).await.len()), (vec!["e".to_owned()], 1), "the other is there");
    assert_eq!(take(&other, &at, "e", "two", 1).await.len(), 1);
    // Its lease still runs when it leaves.
    other.leave(&spec, "two").await.expect("left");
    assert_eq!((groups(store, &at).await, specs(store).await), (vec![], vec![]));
    let read = reader(store, "e").read("two", &[ReadFrom::new(at.clone())], 1, None).await;
    assert!(matches!(read, Err(ReadError::NoGroup)));
}

pub async fn durable_groups_without_a_holder_are_named(world: &World) {
    let (store, at) = (&world.store, partition("alone"));
    let named = async || store.unattended().await.expect("named");
    assert_eq!(named().await, []);
    let (by_name, by_pattern) = (spec("g", "alone"), spec("g", "alone.**"));
    prepare(store, &at, "g", "c").await;
    for consumer in ["c", "d"] {
        store.join(&by_pattern, StartFrom::Beginning, consumer).await.expect("joined");
    }
    store.join(&ephemeral("e", "alone"), StartFrom::Beginning, "c").await.expect("joined");
    assert_eq!(named().await, []);
    go(store, &by_name, "c", &at).await;
    store.leave(&by_pattern, "c").await.expect("left");
    assert_eq!(named().await, std::slice::from_ref(&by_name), "the other one has a holder still");
    store.leave(&by_pattern, "d").await.expect("left");
    assert_eq!(named().await, [by_name.clone(), by_pattern.clone()]);
    store.join(&by_name, StartFrom::Beginning, "back").await.expect("joined");
    assert_eq!(named().await, std::slice::from_ref(&by_pattern));
    assert!(store.delete_group("alone.**", "g").await.expect("deleted"));
    assert_eq!(named().await, []);
}

pub async fn groups_that_are_not_ephemeral_outlast_their_holders(world: &World) {
    let (store, at) = (&world.store, partition("durable"));
    prepare(store, &at, "g", "c").await;
    go(store, &spec("g", "durable"), "c", &at).await;
    assert_eq!(store.end_groups().await.expect("looked"), []);
    assert_eq!(groups(store, &at).await, ["g"]);
}

pub async fn an_ephemeral_group_of_the_living_stays(world: &World) {
    let (store, at) = (&world.store, partition("passing.by"));
    store.join(&ephemeral("e", "passing.by"), StartFrom::Beginning, "c").await.expect("joined");
    assert_eq!(store.end_groups().await.expect("looked"), [], "it has just joined");
    assert!(store.renew("c", &[], LONG).await.expect("renewed"), "alive, without any bucket yet");
    assert_eq!(store.end_groups().await.expect("looked"), []);
    assert_eq!(groups(store, &at).await, ["e"]);
}

pub async fn of_a_member_that_joins_while_the_last_one_leaves_nothing_is_lost(world: &World) {
    let (store, other, at) = (&world.store, world.user().await, partition("race"));
    let spec = ephemeral("e", "race");
    for round in 0..20 {
        let (one, two) = (format!("one-{round}"), format!("two-{round}"));
        store.join(&spec, StartFrom::Latest, &one).await.expect("joined");
        let (left, joined) = tokio::join!(store.leave(&spec, &one), other.join(&spec, StartFrom::Latest, &two));
        left.expect("left");
        joined.expect("joined");
        assert_eq!((groups(store, &at).await, specs(store).await.len()), (vec!["e".to_owned()], 1), "round {round}");
        publish(store, vec![event(&at, &format!("e-{round}"))]).await;
        let entries = take(&other, &at, "e", &two, 10).await;
        assert_eq!(event_ids(&entries), [format!("e-{round}")], "round {round}");
        other.leave(&spec, &two).await.expect("left");
        assert_eq!(specs(store).await, []);
    }
}

pub async fn deletions_at_once_agree(world: &World) {
    let (store, at) = (&world.store, partition("twice"));
    prepare(store, &at, "g", "c").await;
    go(store, &spec("g", "twice"), "c", &at).await;
    let others = [world.user().await, world.user().await, world.user().await];
    let deletions = others.iter().map(|other| other.delete_group("twice", "g"));
    let deleted = tokio::time::timeout(Duration::from_secs(20), futures_util::future::join_all(deletions)).await.expect("in time");
    let deleted: Vec<bool> = deleted.into_iter().map(|deleted| deleted.expect("deleted")).collect();
    assert_eq!(deleted.iter().filter(|deleted| **deleted).count(), 1, "{deleted:?}");
    assert_eq!((groups(store, &at).await, specs(store).await), (vec![], vec![]));
}
