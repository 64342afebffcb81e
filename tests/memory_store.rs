//! What only the store in memory has: names, and a clock that tests turn by hand.

mod support;

use std::sync::Arc;
use std::time::Duration;

use ossa::engine::env::Env;
use ossa::engine::store::memory::MemoryStore;
use ossa::engine::store::{
    Appended, Disposal, Errand, GroupSpec, Idempotency, Keeping, Listing, NewEvent, News, ReadError, ReadFrom, StartFrom, Store, Turn,
};
use support::events::{
    LONG, Ttl, acknowledge, event, event_ids, event_with_ttl, group_state, inspect, keeping, partition, prepare, publish, reader, retry,
    settle, spec, take, take_one,
};
use tokio::time::{Instant, advance};

fn private() -> Arc<dyn Store> {
    MemoryStore::private(Env::seeded(1))
}

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

#[tokio::test]
async fn private_stores_share_nothing() {
    let (one, two) = (private(), private());
    one.open_partition(&partition("a")).await.unwrap();
    assert!(two.topology().await.unwrap().types.is_empty());
}

#[tokio::test]
async fn a_private_store_keeps_its_events_over_a_close() {
    let (store, at) = (private(), partition("a"));
    prepare(&store, &at, "g", "c").await;
    publish(&store, vec![event(&at, "e")]).await;
    store.close(ms(1)).await;
    assert!(store.topology().await.is_err());
    store.open().await.unwrap();
    assert_eq!(event_ids(&take(&store, &at, "g", "c", 10).await), ["e"]);
}

#[tokio::test]
async fn a_name_and_prefix_are_one_store_until_its_last_user_closes() {
    let env = Env::seeded(1);
    let user = |prefix: &str| -> Arc<dyn Store> { MemoryStore::named("names", prefix, env.clone()) };
    let (one, two, other) = (user("p"), user("p"), user("q"));
    let at = partition("a");
    one.open_partition(&at).await.unwrap();
    assert!(two.inspect(&at).await.unwrap().is_some());
    assert!(other.inspect(&at).await.unwrap().is_none());

    let left_behind = one.reader("g");
    one.close(ms(1)).await;
    assert!(two.inspect(&at).await.unwrap().is_some(), "the other user goes on");
    two.close(ms(1)).await;
    assert!(user("p").inspect(&at).await.unwrap().is_none(), "a new one begins empty");
    one.open().await.unwrap();
    assert!(one.inspect(&at).await.unwrap().is_none());
    drop(left_behind);
}

#[tokio::test(start_paused = true)]
async fn a_waiting_read_ends_at_its_time_and_not_before() {
    let (store, at) = (private(), partition("a"));
    prepare(&store, &at, "g", "c").await;
    let start = Instant::now();
    let hour = Duration::from_secs(3600);
    let read = reader(&store, "g").read("c", &[ReadFrom::new(at)], 1, Some(hour)).await;
    assert!(read.unwrap().is_empty());
    assert_eq!(start.elapsed(), hour);
}

#[tokio::test(start_paused = true)]
async fn dropping_the_store_ends_waiting_reads() {
    let (store, at) = (private(), partition("a"));
    prepare(&store, &at, "g", "c").await;
    let mut reader = reader(&store, "g");
    let waits = tokio::spawn(async move { reader.read("c", &[ReadFrom::new(at)], 1, Some(LONG)).await });
    tokio::task::yield_now().await;
    drop(store);
    let start = Instant::now();
    assert!(matches!(waits.await.unwrap(), Err(ReadError::Store(_))));
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_read_for_a_very_long_time_is_no_overflow() {
    let (store, at) = (private(), partition("a"));
    prepare(&store, &at, "g", "c").await;
    let (mut reader, waker) = store.reader("g");
    waker.wake();
    let read = reader.read("c", &[ReadFrom::new(at)], 1, Some(Duration::MAX)).await;
    assert!(read.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_member_counts_as_live_for_ten_seconds_or_as_long_as_its_lease() {
    let store = private();
    let (plain, other) = (spec("g", "a.*"), GroupSpec { options: r#"{"ordered":true}"#.into(), ..spec("g", "a.*") });
    let try_other = async || store.join(&other, StartFrom::Beginning, "second").await.is_ok();
    store.join(&plain, StartFrom::Beginning, "first").await.unwrap();
    advance(ms(9_999)).await;
    assert!(!try_other().await);
    store.renew("first", &[partition("x").bucket()], ms(5_000)).await.unwrap();
    advance(ms(4_999)).await;
    assert!(!try_other().await, "it has a lease in some bucket");
    advance(ms(1)).await;
    assert!(try_other().await);
    let error = store.join(&plain, StartFrom::Beginning, "first").await.unwrap_err();
    assert!(error.message.contains("ordered"), "the dead member finds others in its place: {error}");
}

#[tokio::test(start_paused = true)]
async fn a_retry_is_due_to_the_millisecond() {
    let (store, at) = (private(), partition("a"));
    prepare(&store, &at, "g", "c").await;
    publish(&store, vec![event(&at, "e")]).await;
    let entry = take_one(&store, &at, "g", "c").await;
    settle(&store, "g", "c", &entry, retry(30_000)).await;
    assert_eq!(store.due(at.bucket(), "g").await.unwrap().next_in_ms, Some(30_000));
    advance(ms(29_999)).await;
    assert!(store.claim_due(&at, "g", "c", 1).await.unwrap().entries.is_empty());
    advance(ms(1)).await;
    assert_eq!(store.due(at.bucket(), "g").await.unwrap().partitions, std::slice::from_ref(&at));
    assert_eq!(store.claim_due(&at, "g", "c", 1).await.unwrap().entries.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_delayed_event_moves_to_the_millisecond() {
    let (store, at) = (private(), partition("a"));
    prepare(&store, &at, "g", "c").await;
    let sent_ms = store.now_ms();
    publish(&store, vec![NewEvent { delay_ms: Some(5_000), ..event(&at, "e") }]).await;
    assert_eq!(store.move_delayed(at.bucket()).await.unwrap(), (0, Some(5_000)));
    advance(ms(4_999)).await;
    assert_eq!(store.move_delayed(at.bucket()).await.unwrap(), (0, Some(1)));
    advance(ms(1)).await;
    assert_eq!(store.move_delayed(at.bucket()).await.unwrap(), (1, None));
    assert_eq!(take_one(&store, &at, "g", "c").await.id.ms, sent_ms + 5_000);
}

#[tokio::test(start_paused = true)]
async fn an_idempotency_key_is_free_when_its_window_ends() {
    let (store, at) = (private(), partition("a"));
    store.open_partition(&at).await.unwrap();
    let append = async |id: &str| {
        let idempotency = Some(Idempotency { key: "k".into(), window_ms: 1_000 });
        store.append(at.bucket(), vec![NewEvent { idempotency, ..event(&at, id) }]).await.remove(0).unwrap()
    };
    assert_eq!(append("first").await, Appended::Stored);
    advance(ms(999)).await;
    assert_eq!(append("second").await, Appended::Duplicate("first".into()));
    advance(ms(1)).await;
    assert_eq!(append("third").await, Appended::Stored);
}

#[tokio::test(start_paused = true)]
async fn a_lease_ends_to_the_millisecond() {
    let (store, at) = (private(), partition("a"));
    prepare(&store, &at, "g", "c").await;
    store.renew("c", &[at.bucket()], ms(1_000)).await.unwrap();
    publish(&store, vec![event(&at, "e")]).await;
    take_one(&store, &at, "g", "c").await;
    advance(ms(999)).await;
    assert_eq!(store.reap(at.bucket(), 3).await.unwrap().taken, 0);
    advance(ms(1)).await;
    assert_eq!(store.reap(at.bucket(), 3).await.unwrap().taken, 1);
    assert!(!store.renew("c", &[at.bucket()], ms(1_000)).await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn short_lived_entries_go_though_long_lived_ones_are_before_them() {
    let (store, at) = (private(), partition("a"));
    prepare(&store, &at, "g", "c").await;
    for (id, seconds) in [("hour", 3600.0), ("second", 1.0), ("never", 0.0), ("minute", 60.0)] {
        publish(&store, vec![event_with_ttl(&at, id, Ttl::Given(seconds))]).await;
    }
    let entries = take(&store, &at, "g", "c", 10).await;
    acknowledge(&store, "g", "c", &entries).await;
    for (after_s, left) in [(0, 4), (1, 3), (60, 2), (3600, 1), (1_000_000, 1)] {
        advance(Duration::from_secs(after_s)).await;
        store.sweep(&at, &keeping()).await.unwrap();
        assert_eq!(inspect(&store, &at).await.length, left, "after {after_s} s more");
    }
}

#[tokio::test(start_paused = true)]
async fn an_entry_expires_at_its_ttl_and_not_before() {
    let (store, at) = (private(), partition("a"));
    prepare(&store, &at, "g", "c").await;
    publish(&store, vec![event_with_ttl(&at, "e", Ttl::Default(10.0))]).await;
    advance(ms(9_999)).await;
    assert!(store.sweep(&at, &keeping()).await.unwrap().expired.is_empty());
    advance(ms(1)).await;
    let swept = store.sweep(&at, &keeping()).await.unwrap();
    assert_eq!((swept.expired.len(), swept.removed), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn one_sweep_is_a_bounded_piece_of_work() {
    let (store, at) = (private(), partition("a"));
    prepare(&store, &at, "g", "c").await;
    publish(&store, (0..25_000).map(|n| event_with_ttl(&at, &n.to_string(), Ttl::Default(1.0))).collect()).await;
    advance(Duration::from_secs(2)).await;
    let off = Keeping { dead_letters: false, ..keeping() };
    let mut steps = Vec::new();
    loop {
        let swept = store.sweep(&at, &off).await.unwrap();
        steps.push(swept.expired.len());
        if !swept.more {
            break;
        }
    }
    assert_eq!(steps.iter().sum::<usize>(), 25_000);
    assert!(steps.iter().all(|step| *step <= 10_000), "{steps:?}");
    assert_eq!(group_state(&store, &at, "g").await.1, Some(0));
}

#[tokio::test(start_paused = true)]
async fn an_entry_of_another_bucket_is_a_defect_of_the_caller() {
    let (store, at) = (private(), partition("a"));
    prepare(&store, &at, "g", "c").await;
    let wrong = support::events::stranger(&at).bucket();
    assert!(store.append(wrong, vec![event(&at, "e")]).await.remove(0).is_err());
    publish(&store, vec![event(&at, "e")]).await;
    let entry = take_one(&store, &at, "g", "c").await;
    let settled = store.settle(wrong, "g", "c", vec![(support::events::held(&entry), Disposal::Acknowledge)]).await;
    assert!(settled.is_err());
}

async fn list(store: &Arc<dyn Store>, name: &str, life: Option<Duration>) {
    let listing = Listing { definition: "definition".into(), health: "health".into() };
    assert!(store.put_listing(name, None, Some(&listing), Turn::Registered, life).await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_listing_ends_to_the_millisecond() {
    let store = private();
    list(&store, "a", Some(ms(1_000))).await;
    list(&store, "b", Some(ms(3_000))).await;
    let mut known = store.news(None).await.unwrap().place;
    advance(ms(500)).await;
    assert!(store.renew_listings(&["a".into()], ms(1_500)).await.unwrap().is_empty());
    let mut news = async || {
        let read = store.news(Some(known)).await.unwrap();
        known = read.place;
        let News::Since(changes) = read.news else { panic!("the place is known") };
        let told: Vec<_> = changes.into_iter().map(|change| (change.name, change.turn, change.at.ms)).collect();
        (told, read.next_end_ms)
    };
    advance(ms(1_499)).await;
    assert_eq!(news().await, (vec![], Some(1)));
    advance(ms(1)).await;
    assert_eq!(news().await, (vec![("a".into(), Turn::Expired, store.now_ms())], Some(1_000)));
    // Whoever comes too late for it, but before anybody else looked, keeps it.
    advance(ms(1_000)).await;
    assert!(store.renew_listings(&["b".into()], ms(10)).await.unwrap().is_empty());
    assert_eq!(news().await, (vec![], Some(10)));
    advance(ms(1_000_000)).await;
    assert_eq!(news().await, (vec![("b".into(), Turn::Expired, store.now_ms())], None));
}

#[tokio::test(start_paused = true)]
async fn errands_are_spread_to_the_millisecond_and_leased_so() {
    let store = private();
    let names: Vec<String> = ["a", "b", "c", "d"].map(Into::into).into();
    for name in &names {
        list(&store, name, None).await;
    }
    store.plan_errands(Errand::Probe, &names, ms(1_000)).await.unwrap();
    let take = async || {
        let (taken, next_ms) = store.take_errands(Errand::Probe, 10, ms(600)).await.unwrap();
        (taken.into_iter().map(|running| running.name).collect::<String>(), next_ms)
    };
    assert_eq!(take().await, ("a".into(), Some(250)));
    advance(ms(249)).await;
    assert_eq!(take().await, (String::new(), Some(1)));
    advance(ms(1)).await;
    assert_eq!(take().await, ("b".into(), Some(250)));
    advance(ms(350)).await;
    assert_eq!(take().await, ("ca".into(), Some(150)), "the first is due again, in the order of their times");
    advance(ms(10_000)).await;
    assert_eq!(take().await, ("dbac".into(), Some(600)));
}

#[tokio::test(start_paused = true)]
async fn a_store_made_anew_under_its_name_has_another_register() {
    let env = Env::seeded(1);
    let user = || -> Arc<dyn Store> { MemoryStore::named("registers", "p", env.clone()) };
    let one = user();
    list(&one, "a", None).await;
    let known = one.news(None).await.unwrap().place;
    one.close(ms(1)).await;
    assert!(one.news(None).await.is_err());
    drop(one);
    let two = user();
    list(&two, "a", None).await;
    let read = two.news(Some(known)).await.unwrap();
    assert_eq!(read.place.last, known.last, "no time has passed");
    assert!(matches!(read.news, News::All(listings) if listings.len() == 1));
}
