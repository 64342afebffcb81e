//! Ordered groups: one reader a partition, and what waits is handed out in order.

use std::sync::Arc;
use std::time::Duration;

use ossa::engine::store::{Disposal, Entry, EntryId, NewEvent, Ownership, Partition, ReadError, ReadFrom, Settled, StartFrom, Store};

use crate::support::events::{
    LONG, die, event, event_id, event_ids, events, held, prepare, publish, reader, retry, settle, spec, take_one,
};
use crate::support::wait::until;
use crate::support::world::World;

fn at(name: &str) -> Partition {
    Partition::new(name, 0)
}

fn keyed(at: &Partition, id: &str, key: &str) -> NewEvent {
    let plain = event(at, id);
    let meta = format!(r#"{},"partitionKey":"{key}"}}"#, plain.meta.trim_end_matches('}'));
    NewEvent { meta, ..plain }
}

async fn own(store: &Arc<dyn Store>, at: &Partition, consumer: &str) -> Ownership {
    store.own(at, "g", consumer, &[]).await.expect("asked")
}

async fn read(
    store: &Arc<dyn Store>,
    at: &Partition,
    consumer: &str,
    after: EntryId,
    wait: Option<Duration>,
) -> Result<Vec<Entry>, ReadError> {
    let from = [ReadFrom { partition: at.clone(), owned_after: Some(after) }];
    reader(store, "g").read(consumer, &from, 10, wait).await
}

/// Partition and group are there, and `consumers` have a lease.
async fn ready(world: &World, name: &str, consumers: &[&str]) -> (Arc<dyn Store>, Partition) {
    let (store, at) = (world.store.clone(), at(name));
    for consumer in consumers {
        prepare(&store, &at, "g", consumer).await;
    }
    (store, at)
}

pub async fn one_living_consumer_owns_a_partition(world: &World) {
    let (store, at) = ready(world, "owned", &["a", "b"]).await;
    assert!(matches!(own(&store, &at, "a").await, Ownership::Mine { .. }));
    assert!(matches!(own(&store, &at, "a").await, Ownership::Mine { .. }), "asking again changes nothing");
    assert_eq!(own(&store, &at, "b").await, Ownership::Others);
    store.disown(&at, "g", "b").await.expect("answered");
    assert_eq!(own(&store, &at, "b").await, Ownership::Others, "only its owner gives it up");
    store.disown(&at, "g", "a").await.expect("given up");
    assert!(matches!(own(&store, &at, "b").await, Ownership::Mine { .. }));
    die(&store, "b", at.bucket()).await;
    assert!(matches!(own(&store, &at, "a").await, Ownership::Mine { .. }), "it ends with the lease");
    assert_eq!(store.own(&at, "other", "a", &[]).await.expect("asked"), Ownership::NoGroup);
}

pub async fn only_the_owner_reads(world: &World) {
    let (store, at) = ready(world, "fenced", &["a", "b"]).await;
    publish(&store, events(&at, "e", 3)).await;
    let none = EntryId::default();
    assert!(matches!(read(&store, &at, "a", none, None).await, Err(ReadError::NotOwner)), "nobody owns it yet");
    assert_eq!(own(&store, &at, "a").await, Ownership::Mine { last: none });
    assert_eq!(event_ids(&read(&store, &at, "a", none, None).await.expect("read")), ["e-0", "e-1", "e-2"]);
    // Whoever takes it over fences the one before off, however late it reads.
    die(&store, "a", at.bucket()).await;
    store.reap(at.bucket(), 3).await.expect("reaped");
    assert!(matches!(own(&store, &at, "b").await, Ownership::Mine { .. }));
    publish(&store, events(&at, "late", 1)).await;
    assert!(matches!(read(&store, &at, "a", none, None).await, Err(ReadError::NotOwner)));
    assert_eq!(store.claim_parked(&at, "g", "a", &[none]).await.expect("answered"), None);
    assert_eq!(event_ids(&read(&store, &at, "b", none, None).await.expect("read")), ["late-0"]);
}

pub async fn an_owned_read_waits_for_what_comes(world: &World) {
    let (store, at) = ready(world, "owned.wait", &["a"]).await;
    assert!(matches!(own(&store, &at, "a").await, Ownership::Mine { .. }));
    let (user, place) = (store.clone(), at.clone());
    let waiting = tokio::spawn(async move { read(&user, &place, "a", EntryId::default(), Some(LONG)).await });
    publish(&store, events(&at, "e", 1)).await;
    assert_eq!(event_ids(&waiting.await.expect("ended").expect("read")), ["e-0"]);
    let last = store.inspect(&at).await.expect("inspected").and_then(|state| state.last).expect("an entry");
    let empty = read(&store, &at, "a", last, Some(Duration::from_millis(30))).await;
    assert_eq!(empty.expect("read"), [], "in vain");
}

pub async fn an_owned_read_waits_past_what_the_group_has_behind_it(world: &World) {
    let (store, at) = ready(world, "owned.past", &["a"]).await;
    publish(&store, events(&at, "old", 3)).await;
    assert!(matches!(own(&store, &at, "a").await, Ownership::Mine { .. }));
    assert_eq!(read(&store, &at, "a", EntryId::default(), None).await.expect("read").len(), 3);
    // As if expired entries had been passed by since: the reader's place is older than the group's.
    let (user, place) = (store.clone(), at.clone());
    let waiting = tokio::spawn(async move { read(&user, &place, "a", EntryId::default(), Some(LONG)).await });
    publish(&store, events(&at, "new", 1)).await;
    assert_eq!(event_ids(&waiting.await.expect("ended").expect("read")), ["new-0"]);
}

pub async fn a_partition_is_not_owned_before_nothing_is_pending_under_others(world: &World) {
    let (store, at) = ready(world, "owned.pending", &["a", "b"]).await;
    publish(&store, events(&at, "e", 1)).await;
    assert!(matches!(own(&store, &at, "a").await, Ownership::Mine { .. }));
    let taken = read(&store, &at, "a", EntryId::default(), None).await.expect("read");
    store.disown(&at, "g", "a").await.expect("given up");
    assert_eq!(own(&store, &at, "b").await, Ownership::Others, "it is still being handled");
    assert_eq!(settle(&store, "g", "a", &taken[0], Disposal::Acknowledge).await, Settled::Done);
    assert_eq!(own(&store, &at, "b").await, Ownership::Mine { last: taken[0].id });
}

pub async fn what_waits_is_known_with_its_key_and_claimed_by_id(world: &World) {
    let (store, at) = ready(world, "parked", &["a"]).await;
    publish(&store, vec![keyed(&at, "one", "k"), keyed(&at, "two", "k"), event(&at, "three")]).await;
    assert!(matches!(own(&store, &at, "a").await, Ownership::Mine { .. }));
    let taken = read(&store, &at, "a", EntryId::default(), None).await.expect("read");
    for (entry, disposal) in taken.iter().zip([retry(60_000), Disposal::HandBack, Disposal::HandBack]) {
        assert_eq!(settle(&store, "g", "a", entry, disposal).await, Settled::Done);
    }
    let mut parked = store.parked(&at, "g").await.expect("read");
    parked.sort_by_key(|parked| parked.id);
    assert_eq!(
        parked.iter().map(|parked| (parked.id, parked.key.as_str())).collect::<Vec<_>>(),
        [(taken[0].id, "k"), (taken[1].id, "k"), (taken[2].id, "")]
    );
    assert!(parked[0].due_in_ms > 50_000 && parked[1].due_in_ms == 0, "{parked:?}");
    let ids = [taken[0].id, taken[2].id];
    let due = store.claim_parked(&at, "g", "a", &ids).await.expect("claimed").expect("it is the owner");
    assert_eq!(
        due.entries.iter().map(|entry| (event_id(entry), entry.deliveries)).collect::<Vec<_>>(),
        [("one".to_owned(), 2), ("three".to_owned(), 1)]
    );
    assert_eq!(store.parked(&at, "g").await.expect("read").len(), 1);
    let again = store.claim_parked(&at, "g", "a", &[EntryId { ms: 1, seq: 1 }]).await.expect("claimed").expect("it is the owner");
    assert_eq!((again.entries, again.lost), (vec![], vec![]), "what does not wait is left out");
}

pub async fn entries_of_lost_replies_wait_again_when_the_partition_is_asked_for(world: &World) {
    let (store, at) = ready(world, "owned.lost", &["a"]).await;
    publish(&store, events(&at, "e", 2)).await;
    assert!(matches!(own(&store, &at, "a").await, Ownership::Mine { .. }));
    let known = take_one(&store, &at, "g", "a").await;
    let lost = take_one(&store, &at, "g", "a").await;
    let owned = store.own(&at, "g", "a", &[held(&known).id]).await.expect("asked");
    assert_eq!(owned, Ownership::Mine { last: lost.id });
    let parked = store.parked(&at, "g").await.expect("read");
    assert_eq!(parked.iter().map(|parked| parked.id).collect::<Vec<_>>(), [lost.id]);
    let due = store.claim_parked(&at, "g", "a", &[lost.id]).await.expect("claimed").expect("it is the owner");
    assert_eq!(due.entries[0].deliveries, 1, "it was never seen");
    assert_eq!(store.pending(&at, "g", "a").await.expect("read").len(), 2);
}

pub async fn members_are_the_living_holders(world: &World) {
    let (store, at) = ready(world, "members", &["a", "b"]).await;
    let spec = spec("g", &at.event_type);
    assert_eq!(store.members(&spec).await.expect("counted"), 2);
    store.leave(&spec, "b").await.expect("left");
    until("it is one", async || store.members(&spec).await.expect("counted") == 1).await;
    store.join(&spec, StartFrom::Beginning, "c").await.expect("joined");
    assert_eq!(store.members(&spec).await.expect("counted"), 2, "one that has just joined has no lease yet");
    assert_eq!(store.members(&crate::support::events::spec("none", "members")).await.expect("counted"), 0);
}
