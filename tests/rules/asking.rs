//! For those who wait to hear what becomes of an event, and for events that are not stored.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use ossa::engine::error::Code;
use ossa::engine::store::{Decision, Disposal, EntryId, NewEvent, Partition, Settled, Store, StoreEvent, Transient};

use crate::support::events::{
    acknowledge, claim, dead_letter, event, events, held, neighbour, partition, prepare, publish, retry, settle, spec, stranger, take,
    take_one,
};
use crate::support::wait::until;
use crate::support::world::World;

const LONG_WAIT: Duration = Duration::from_secs(30);

fn texts(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|n| format!(r#"{{"id":"{n}","reply":"\t\n €"}}"#)).collect()
}

pub async fn an_inbox_holds_what_was_posted_before_and_after_it_was_opened(world: &World) {
    let (owner, other) = (&world.store, world.user().await);
    other.post("mine", texts(0..3)).await.expect("posted");
    let mut inbox = owner.inbox("mine");
    assert_eq!(inbox.receive(LONG_WAIT).await.expect("received"), texts(0..3));
    assert_eq!(inbox.receive(Duration::ZERO).await.expect("received"), Vec::<String>::new());
    owner.post("mine", texts(3..4)).await.expect("posted");
    other.post("mine", texts(4..6)).await.expect("posted");
    assert_eq!(inbox.receive(LONG_WAIT).await.expect("received"), texts(3..6));
}

pub async fn a_waiting_inbox_gets_what_is_posted_meanwhile(world: &World) {
    let (mut inbox, other) = (world.store.inbox("mine"), world.user().await);
    let waits = tokio::spawn(async move { inbox.receive(LONG_WAIT).await });
    tokio::task::yield_now().await;
    other.post("another", texts(0..1)).await.expect("posted");
    other.post("mine", texts(1..2)).await.expect("posted");
    assert_eq!(waits.await.expect("no panic").expect("received"), texts(1..2));
}

pub async fn many_messages_come_in_their_order_and_once(world: &World) {
    let (mut inbox, other) = (world.store.inbox("mine"), world.user().await);
    for n in 0..50 {
        other.post("mine", texts(n * 100..(n + 1) * 100)).await.expect("posted");
    }
    let mut seen = Vec::new();
    while seen.len() < 5000 {
        seen.extend(inbox.receive(LONG_WAIT).await.expect("received"));
    }
    assert_eq!(seen, texts(0..5000));
}

pub async fn what_an_inbox_has_received_is_not_kept(world: &World) {
    let store = &world.store;
    store.post("mine", texts(0..10)).await.expect("posted");
    let mut inbox = store.inbox("mine");
    assert_eq!(inbox.receive(LONG_WAIT).await.expect("received").len(), 10);
    assert_eq!(inbox.receive(Duration::from_millis(1)).await.expect("received").len(), 0);
    until("what was received is gone", async || {
        let mut fresh = store.inbox("mine");
        fresh.receive(Duration::from_millis(1)).await.expect("received").is_empty()
    })
    .await;
}

pub async fn a_removed_inbox_is_empty(world: &World) {
    let store = &world.store;
    store.post("mine", texts(0..2)).await.expect("posted");
    store.remove_inbox("mine").await.expect("removed");
    store.remove_inbox("mine").await.expect("removed again");
    store.post("mine", texts(2..3)).await.expect("posted");
    assert_eq!(store.inbox("mine").receive(LONG_WAIT).await.expect("received"), texts(2..3));
}

pub async fn a_closed_store_has_no_inbox(world: &World) {
    let store = world.user().await;
    let mut inbox = store.inbox("mine");
    let waits = tokio::spawn(async move { inbox.receive(LONG_WAIT).await });
    tokio::task::yield_now().await;
    store.close(Duration::from_secs(2)).await;
    assert!(waits.await.expect("no panic").is_err());
    assert_eq!(store.post("mine", texts(0..1)).await.expect_err("closed").code, Code::Closed);
}

/// Publishes one event; answers where its entry is.
async fn publish_told(store: &Arc<dyn Store>, new: NewEvent) -> EntryId {
    let entry = Arc::new(OnceLock::new());
    publish(store, vec![NewEvent { entry: Some(entry.clone()), ..new }]).await;
    *entry.get().expect("the entry was told")
}

pub async fn a_publisher_is_told_where_its_entry_is(world: &World) {
    let (store, at) = (&world.store, partition("asking.told"));
    prepare(store, &at, "g", "c").await;
    publish(store, events(&at, "before", 3)).await;
    let told = publish_told(store, event(&at, "x")).await;
    assert_eq!(take(store, &at, "g", "c", 10).await[3].id, told);
    // One that is no entry yet is nowhere.
    let entry = Arc::new(OnceLock::new());
    publish(store, vec![NewEvent { entry: Some(entry.clone()), delay_ms: Some(60_000), ..event(&at, "later") }]).await;
    assert_eq!(entry.get(), None);
}

async fn decisions(store: &Arc<dyn Store>, at: &Partition, entry: EntryId) -> Vec<(String, Decision)> {
    let mut decisions = store.decisions(at, entry).await.expect("looked");
    decisions.sort_by(|a, b| a.0.cmp(&b.0));
    decisions
}

pub async fn decisions_tell_what_each_group_did(world: &World) {
    let (store, at) = (&world.store, partition("asking:decisions"));
    for group in ["a:1", "b", "c"] {
        prepare(store, &at, group, group).await;
    }
    publish(store, events(&at, "before", 2)).await;
    let entry = publish_told(store, event(&at, "x")).await;
    let states = async || decisions(store, &at, entry).await.into_iter().map(|(_, decision)| decision).collect::<Vec<_>>();
    let open = || Decision::Open;
    assert_eq!(states().await, [open(), open(), open()]);
    // Delivered, then acknowledged.
    let mut taken = take(store, &at, "a:1", "a:1", 10).await;
    assert_eq!(states().await, [open(), open(), open()]);
    let last = taken.pop().expect("the third");
    acknowledge(store, "a:1", "a:1", &[last]).await;
    assert_eq!(states().await, [Decision::Acknowledged, open(), open()]);
    // Waiting for a retry, then dead.
    let last = take(store, &at, "b", "b", 10).await.pop().expect("the third");
    assert_eq!(settle(store, "b", "b", &last, retry(0)).await, Settled::Done);
    assert_eq!(states().await, [Decision::Acknowledged, open(), open()]);
    let again = claim(store, &at, "b", "b", 1).await.pop().expect("due");
    assert_eq!(held(&again).id, entry);
    assert_eq!(settle(store, "b", "b", &again, dead_letter("no \"paper\"")).await, Settled::Done);
    let dead = Decision::DeadLettered { reason: "max-attempts".into(), error: "no \"paper\"".into() };
    assert_eq!(states().await, [Decision::Acknowledged, dead.clone(), open()]);
    // The death of another event is not this one's.
    let other = take(store, &at, "c", "c", 1).await.pop().expect("the first");
    assert_eq!(settle(store, "c", "c", &other, dead_letter("no")).await, Settled::Done);
    assert_eq!(states().await, [Decision::Acknowledged, dead, open()]);
    let names: Vec<String> = decisions(store, &at, entry).await.into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["a:1", "b", "c"]);
}

pub async fn nothing_is_decided_on_what_is_not_there(world: &World) {
    let (store, at) = (&world.store, partition("asking.nothing"));
    assert_eq!(decisions(store, &at, EntryId { ms: 5, seq: 0 }).await, []);
    prepare(store, &at, "g", "c").await;
    publish(store, events(&at, "e", 1)).await;
    let entry = take_one(store, &at, "g", "c").await;
    acknowledge(store, "g", "c", std::slice::from_ref(&entry)).await;
    assert_eq!(decisions(store, &at, EntryId { ms: 5, seq: 0 }).await, [("g".into(), Decision::Open)]);
    assert_eq!(decisions(store, &at, entry.id).await, [("g".into(), Decision::Acknowledged)]);
}

/// Transient events that a user hears.
fn heard_by(store: &Arc<dyn Store>) -> Arc<Mutex<Vec<Transient>>> {
    let heard = Arc::<Mutex<Vec<Transient>>>::default();
    let to = heard.clone();
    store.watch(Arc::new(move |event| {
        if let StoreEvent::Transient(event) = event {
            to.lock().expect("no panic").push((*event).clone());
        }
    }));
    heard
}

fn transient(at: &Partition, n: u32) -> Transient {
    Transient { event_type: at.event_type.clone(), meta: format!(r#"{{"n":{n}}}"#), data: "\"\\t€\"".into() }
}

async fn hears(store: &Arc<dyn Store>, at: &[&Partition]) {
    let buckets: BTreeSet<_> = at.iter().map(|at| at.bucket()).collect();
    store.hear(&buckets).await.expect("heard");
}

pub async fn transient_events_reach_all_who_hear_their_bucket_now(world: &World) {
    let at = partition("asking.cast");
    let (near, far) = (neighbour(&at), stranger(&at));
    let (a, b, c) = (world.user().await, world.user().await, world.user().await);
    let (of_a, of_b, of_c) = (heard_by(&a), heard_by(&b), heard_by(&c));
    a.cast(at.bucket(), vec![transient(&at, 0)]).await.expect("cast");
    hears(&a, &[&at]).await;
    hears(&b, &[&at, &far]).await;
    hears(&c, &[&far]).await;
    let both = vec![transient(&at, 1), transient(&at, 2), transient(&near, 3)];
    a.cast(at.bucket(), both.clone()).await.expect("cast");
    c.cast(far.bucket(), vec![transient(&far, 4)]).await.expect("cast");
    until("all have heard theirs", async || {
        let count = |heard: &Arc<Mutex<Vec<Transient>>>| heard.lock().expect("no panic").len();
        (count(&of_a), count(&of_b), count(&of_c)) == (3, 4, 1)
    })
    .await;
    assert_eq!(*of_a.lock().expect("no panic"), both);
    // Events of one bucket keep their order; among buckets there is none.
    let of_b = of_b.lock().expect("no panic");
    assert_eq!(of_b.iter().filter(|event| event.event_type != far.event_type).cloned().collect::<Vec<_>>(), both);
    assert!(of_b.contains(&transient(&far, 4)));
    assert_eq!(*of_c.lock().expect("no panic"), [transient(&far, 4)]);
}

pub async fn who_hears_no_more_is_told_nothing(world: &World) {
    let at = partition("asking.silent");
    let far = stranger(&at);
    let store = world.user().await;
    let heard = heard_by(&store);
    hears(&store, &[&at]).await;
    hears(&store, &[&far]).await;
    // Heard after what was cast before, were that heard.
    until("the other is heard", async || {
        store.cast(at.bucket(), vec![transient(&at, 1)]).await.expect("cast");
        store.cast(far.bucket(), vec![transient(&far, 2)]).await.expect("cast");
        heard.lock().expect("no panic").iter().any(|event| event.event_type == far.event_type)
    })
    .await;
    heard.lock().expect("no panic").clear();
    store.cast(at.bucket(), vec![transient(&at, 3)]).await.expect("cast");
    store.cast(far.bucket(), vec![transient(&far, 4)]).await.expect("cast");
    until("the last is heard", async || heard.lock().expect("no panic").contains(&transient(&far, 4))).await;
    assert!(!heard.lock().expect("no panic").contains(&transient(&at, 3)));
}

pub async fn transient_events_leave_nothing_behind(world: &World) {
    let (store, at) = (&world.store, partition("asking.nowhere"));
    store.join(&spec("g", "asking.**"), ossa::engine::store::StartFrom::Beginning, "c").await.expect("joined");
    store.cast(at.bucket(), vec![transient(&at, 1)]).await.expect("cast");
    assert_eq!(store.topology().await.expect("read").types, Vec::<String>::new());
    let nothing: Vec<(ossa::engine::store::Held, Disposal)> = Vec::new();
    assert!(store.settle(at.bucket(), "g", "c", nothing).await.expect("settled").is_empty());
}
