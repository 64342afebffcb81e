//! The register of services: what is listed and until when, what changed, and errands.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use ossa::engine::error::Code;
use ossa::engine::store::{EntryId, Errand, Listing, ListingChange, News, Place, Read, Running, Store, StoreEvent, Turn};

use crate::support::events::LONG;
use crate::support::wait::until;
use crate::support::world::World;

/// Stores count whole milliseconds.
const A_TICK: Duration = Duration::from_millis(1);

type Stored = Arc<dyn Store>;

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

fn listing(definition: &str, health: &str) -> Listing {
    Listing { definition: definition.into(), health: health.into() }
}

async fn put(store: &Stored, name: &str, before: Option<&Listing>, after: Option<&Listing>, turn: Turn) -> bool {
    store.put_listing(name, before, after, turn, None).await.expect("put")
}

/// A new one.
async fn register(store: &Stored, name: &str, life: Option<Duration>) -> Listing {
    let new = listing(&format!("definition of {name}"), "well");
    assert!(store.put_listing(name, None, Some(&new), Turn::Registered, life).await.expect("put"), "{name}");
    new
}

/// New ones, many at a time.
async fn register_all(store: &Stored, names: &[String], life: Option<Duration>) {
    for some in names.chunks(250) {
        join_all(some.iter().map(|name| register(store, name, life))).await;
    }
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("service-{n:05}")).collect()
}

async fn read(store: &Stored, known: Option<Place>) -> Read {
    store.news(known).await.expect("read")
}

async fn place(store: &Stored) -> Place {
    read(store, None).await.place
}

fn all(read: Read) -> BTreeMap<String, Listing> {
    match read.news {
        News::All(listings) => listings,
        other => panic!("not all, but {other:?}"),
    }
}

fn since(read: Read) -> Vec<ListingChange> {
    match read.news {
        News::Since(changes) => changes,
        News::All(listings) | News::Older(listings) => panic!("no changes, but all {} listings", listings.len()),
    }
}

async fn listed(store: &Stored) -> BTreeMap<String, Listing> {
    all(read(store, None).await)
}

/// What a change says but its place.
fn told(changes: &[ListingChange]) -> Vec<(&str, Turn, Listing)> {
    changes.iter().map(|change| (change.name.as_str(), change.turn, change.listing.clone())).collect()
}

pub async fn a_listing_changes_only_from_what_is_expected(world: &World) {
    let (store, other) = (&world.store, world.user().await);
    let (one, two, three) = (listing("{\"a\":\"€\"}\n", "well"), listing("{\"a\":\"€\"}\n", "ill"), listing("{}", "ill"));
    assert!(put(store, "a", None, Some(&one), Turn::Registered).await);
    assert!(!put(&other, "a", None, Some(&two), Turn::Registered).await);
    assert!(!put(&other, "a", Some(&two), Some(&three), Turn::Updated).await, "its health is another");
    assert!(!put(&other, "a", Some(&listing("{}", "well")), Some(&three), Turn::Updated).await, "its definition is another");
    assert!(!put(&other, "a", Some(&two), None, Turn::Unregistered).await);
    assert!(!put(&other, "b", Some(&one), Some(&two), Turn::Changed).await, "it is not there");
    assert_eq!(listed(store).await, [("a".to_owned(), one.clone())].into());
    assert!(put(&other, "a", Some(&one), Some(&two), Turn::Changed).await);
    assert!(put(&other, "a", Some(&two), Some(&three), Turn::Updated).await);
    assert_eq!(listed(store).await, [("a".to_owned(), three.clone())].into());
    assert!(put(&other, "a", Some(&three), None, Turn::Unregistered).await);
    assert_eq!(listed(store).await, BTreeMap::new());
}

pub async fn what_is_so_already_changes_no_more(world: &World) {
    let (store, one, two) = (&world.store, listing("1", "well"), listing("1", "ill"));
    let steps = [(None, Some(&one), Turn::Registered), (Some(&one), Some(&two), Turn::Changed), (Some(&two), None, Turn::Unregistered)];
    let mut places = vec![place(store).await];
    for (before, after, turn) in steps {
        for _ in 0..3 {
            assert!(put(store, "a", before, after, turn).await);
        }
        assert!(put(store, "a", Some(&listing("what", "else")), after, turn).await, "whatever was expected");
        places.push(place(store).await);
    }
    assert!(places.is_sorted_by(|a, b| a.last < b.last), "{places:?}");
    assert_eq!(since(read(store, Some(places[0])).await).len(), 3);
    assert!(put(store, "never", None, None, Turn::Unregistered).await, "it is gone");
    assert_eq!(place(store).await, places[3]);
}

pub async fn of_racing_changes_to_a_listing_one_wins(world: &World) {
    let users = [world.user().await, world.user().await];
    let mut known = place(&world.store).await;
    for round in 0..10 {
        let before = match round % 2 {
            0 => None,
            _ => Some(register(&world.store, "a", None).await),
        };
        let turn = if before.is_some() { Turn::Updated } else { Turn::Registered };
        known = if before.is_some() { place(&world.store).await } else { known };
        let changes = (1..9_usize).map(|n| {
            let (store, before) = (users[n % 2].clone(), before.clone());
            tokio::spawn(async move {
                let mine = listing(&n.to_string(), "well");
                put(&store, "a", before.as_ref(), Some(&mine), turn).await.then_some(mine)
            })
        });
        let won: Vec<Listing> = join_all(changes).await.into_iter().filter_map(|change| change.expect("no panic")).collect();
        assert_eq!(won.len(), 1, "{won:?}");
        let news = read(&world.store, Some(known)).await;
        known = news.place;
        assert_eq!(told(&since(news)), [("a", turn, won[0].clone())], "noted once");
        assert!(put(&world.store, "a", Some(&won[0]), None, Turn::Unregistered).await);
        known = read(&world.store, Some(known)).await.place;
    }
}

pub async fn what_does_not_fit_is_refused(world: &World) {
    let (store, one) = (&world.store, listing("1", "well"));
    let (nothing, no_health) = (listing("", "well"), listing("1", ""));
    let mut wrong = vec![
        ("", None, Some(&one), Turn::Registered),
        ("", Some(&one), None, Turn::Unregistered),
        ("a", None, Some(&nothing), Turn::Registered),
        ("a", None, Some(&no_health), Turn::Registered),
        ("a", Some(&nothing), Some(&one), Turn::Updated),
        ("a", Some(&no_health), None, Turn::Unregistered),
    ];
    for turn in Turn::ALL {
        let after = turn.is_end().then_some(&one);
        wrong.push(("a", None, after, turn));
        wrong.push(("a", Some(&one), after, turn));
    }
    for (name, before, after, turn) in wrong {
        let refused = store.put_listing(name, before, after, turn, None).await;
        assert_eq!(refused.expect_err("it does not fit").code, Code::Internal, "{name}, {before:?}, {after:?}, {turn:?}");
    }
    assert_eq!(read(store, None).await, Read { place: Place::default(), news: News::All(BTreeMap::new()), next_end_ms: None });
}

pub async fn whoever_knows_that_nothing_was_listed_is_told_what_comes(world: &World) {
    let store = &world.store;
    let begin = Place::default();
    assert_eq!(read(store, None).await, Read { place: begin, news: News::All(BTreeMap::new()), next_end_ms: None });
    assert_eq!(read(store, Some(begin)).await, Read { place: begin, news: News::Since(Vec::new()), next_end_ms: None });
    let one = register(store, "a", None).await;
    let news = read(store, Some(begin)).await;
    assert!(news.place.epoch > 0);
    let changes = since(news.clone());
    assert_eq!((told(&changes), changes[0].at), (vec![("a", Turn::Registered, one)], news.place.last));
}

/// Whatever place is known, what follows it is told, each change with the listing as it was then.
pub async fn changes_are_told_in_order_each_with_the_whole_listing(world: &World) {
    let store = &world.store;
    let mut expected: Vec<(&str, Turn, Listing)> = Vec::new();
    let mut places = vec![place(store).await];
    let steps = [
        ("a", Turn::Registered, "a1", "well"),
        ("b", Turn::Registered, "b1", "well"),
        ("a", Turn::Checked, "a1", "well, looked at"),
        ("a", Turn::Changed, "a1", "ill"),
        ("a", Turn::Updated, "a2", "ill"),
        ("b", Turn::Checked, "b1", "well, looked at"),
        ("a", Turn::Checked, "a2", "ill, looked at"),
        ("a", Turn::Updated, "a2", "another version"),
        ("a", Turn::Checked, "a3", "both at once"),
        ("a", Turn::Unregistered, "a3", "both at once"),
        ("a", Turn::Registered, "a1", "well"),
        ("b", Turn::Updated, "b2", "well"),
        ("a", Turn::Checked, "a1", "well again"),
        ("b", Turn::Unregistered, "b2", "well"),
    ];
    let mut now: BTreeMap<&str, Listing> = BTreeMap::new();
    for (name, turn, definition, health) in steps {
        let after = listing(definition, health);
        assert!(put(store, name, now.get(name), (!turn.is_end()).then_some(&after), turn).await, "{name} {turn:?}");
        if turn.is_end() {
            now.remove(name);
        } else {
            now.insert(name, after.clone());
        }
        expected.push((name, turn, after));
        places.push(place(store).await);
    }
    for (known, place) in places.iter().enumerate() {
        let news = read(store, Some(*place)).await;
        assert_eq!(news.place, places[expected.len()]);
        let changes = since(news);
        assert_eq!(told(&changes), expected[known..], "after {known}");
        let at: Vec<EntryId> = changes.iter().map(|change| change.at).collect();
        assert_eq!(at, places[known + 1..].iter().map(|place| place.last).collect::<Vec<_>>());
    }
    assert_eq!(listed(store).await, [("a".to_owned(), listing("a1", "well again"))].into());
}

pub async fn a_place_that_is_none_of_the_register_is_answered_with_all(world: &World) {
    let store = &world.store;
    register_all(store, &names(3), None).await;
    let here = place(store).await;
    // Whether what was before it is there: then the change that is known was lost.
    let nowhere = [
        (Place { epoch: here.epoch + 1, ..here }, false),
        (Place { epoch: u64::MAX, last: EntryId { ms: u64::MAX, seq: u64::MAX } }, false),
        (Place { last: here.last.next(), ..here }, true),
        (Place { last: here.last.previous(), ..here }, true),
        (Place { last: EntryId { ms: 1, seq: 1 }, ..here }, false),
        (Place { last: EntryId { ms: u64::MAX, seq: u64::MAX }, ..here }, true),
    ];
    for (known, is_lost) in nowhere {
        let news = read(store, Some(known)).await;
        // The change just before the last one may be that one.
        if let News::Since(changes) = &news.news {
            assert!(known.last == here.last.previous() && changes.len() == 1, "{known:?}: {changes:?}");
            continue;
        }
        let place = news.place;
        let listings = match news.news {
            News::Older(listings) if is_lost => listings,
            News::All(listings) if !is_lost => listings,
            other => panic!("{known:?}: {other:?}"),
        };
        assert_eq!((place, listings.len()), (here, 3), "{known:?}");
    }
}

/// Two write, three read; one of those reads seldom. All see the same, and it adds up to what is listed.
pub async fn each_reader_is_told_each_change_once(world: &World) {
    const ROUNDS: u32 = 60;
    let done = Arc::new(AtomicBool::new(false));
    let readers = join_all((0..3).map(async |n| (n, world.user().await))).await.into_iter().map(|(n, store)| {
        let done = done.clone();
        tokio::spawn(async move {
            let (mut known, mut changes) = (Place::default(), Vec::new());
            loop {
                let is_last = done.load(Ordering::SeqCst);
                let news = read(&store, Some(known)).await;
                known = news.place;
                changes.extend(since(news));
                if is_last {
                    return changes;
                }
                tokio::time::sleep(ms(n * 25)).await;
            }
        })
    });
    let readers: Vec<_> = readers.collect();
    let writers = join_all((0..2).map(async |n| (n, world.user().await))).await.into_iter().map(|(n, store)| {
        tokio::spawn(async move {
            for round in 0..ROUNDS {
                let name = format!("service-{n}-{}", round % 7);
                let before = listed(&store).await.remove(&name);
                let definition = format!("definition {}", round / 20);
                let health = format!("looked at {round} times");
                let after = (round % 11 != 10).then(|| listing(&definition, &health));
                let turn = match (&before, &after) {
                    (_, None) => Turn::Unregistered,
                    (None, Some(_)) => Turn::Registered,
                    (Some(before), _) if before.definition != definition => Turn::Updated,
                    _ => Turn::Checked,
                };
                assert!(put(&store, &name, before.as_ref(), after.as_ref(), turn).await, "its own");
            }
        })
    });
    for written in join_all(writers).await {
        written.expect("no panic");
    }
    done.store(true, Ordering::SeqCst);
    let mut all_read = join_all(readers).await.into_iter().map(|changes| changes.expect("no panic"));
    let first = all_read.next().expect("there is one");
    assert!(first.len() > 100 && first.is_sorted_by(|a, b| a.at < b.at), "{} changes", first.len());
    for changes in all_read {
        assert_eq!(changes, first);
    }
    let mut view = BTreeMap::new();
    for change in first {
        let before = view.get(&change.name);
        match change.turn {
            Turn::Registered => assert_eq!(before, None, "{change:?}"),
            Turn::Unregistered => assert_eq!(before, Some(&change.listing), "{change:?}"),
            Turn::Checked => assert_eq!(before.map(|before: &Listing| &before.definition), Some(&change.listing.definition), "{change:?}"),
            _ => assert_ne!(before, None, "{change:?}"),
        }
        if change.turn.is_end() {
            view.remove(&change.name);
        } else {
            view.insert(change.name, change.listing);
        }
    }
    assert_eq!(listed(&world.store).await, view);
}

pub async fn five_thousand_listings_are_read_at_once_by_whoever_is_far_behind(world: &World) {
    let (store, names) = (&world.store, names(5_000));
    let begin = register(store, "first", None).await;
    let before = place(store).await;
    register_all(store, &names, Some(LONG)).await;
    let recent = place(store).await;
    assert!(put(store, "first", Some(&begin), None, Turn::Unregistered).await);
    for known in [None, Some(before), Some(Place::default())] {
        let listings = all(read(store, known).await);
        assert!(listings.keys().eq(&names), "{} listings", listings.len());
        assert_eq!(listings[&names[77]].definition, format!("definition of {}", names[77]));
    }
    assert_eq!(told(&since(read(store, Some(recent)).await)), [("first", Turn::Unregistered, begin)]);
    let (mut some, missing) = (names.clone(), ["zero".to_owned(), "last".to_owned()]);
    some.insert(0, missing[0].clone());
    some.push(missing[1].clone());
    assert_eq!(store.renew_listings(&some, LONG).await.expect("renewed"), missing);
    store.plan_errands(Errand::Probe, &names, Duration::ZERO).await.expect("planned");
    let mut taken = BTreeSet::new();
    while taken.len() < names.len() {
        let (some, next_ms) = store.take_errands(Errand::Probe, 400, LONG).await.expect("taken");
        assert!(some.len() == 400 || taken.len() + some.len() == names.len(), "{} after {}", some.len(), taken.len());
        taken.extend(some.into_iter().map(|running| running.name));
        assert_eq!(next_ms == Some(0), taken.len() < names.len());
    }
}

/// Users that count what is announced.
async fn watchers(world: &World, count: usize) -> (Vec<Stored>, impl Fn(StoreEvent) -> Vec<u32>) {
    let heard: Vec<Arc<[AtomicU32; 2]>> = (0..count).map(|_| Arc::default()).collect();
    let mut watchers = Vec::new();
    for counts in &heard {
        let (watcher, counts) = (world.closed_user(), counts.clone());
        watcher.watch(Arc::new(move |event| match event {
            StoreEvent::ServicesChanged => drop(counts[0].fetch_add(1, Ordering::SeqCst)),
            StoreEvent::DocumentsChanged => drop(counts[1].fetch_add(1, Ordering::SeqCst)),
            _ => {}
        }));
        watcher.open().await.expect("opened");
        watchers.push(watcher);
    }
    let counts = move |of: StoreEvent| {
        let at = usize::from(of == StoreEvent::DocumentsChanged);
        heard.iter().map(|counts| counts[at].load(Ordering::SeqCst)).collect::<Vec<_>>()
    };
    // One that has only just opened may hear that it may have missed something.
    let (before, mut n) = (counts(StoreEvent::ServicesChanged), 0);
    until("all listen", async || {
        n += 1;
        register(&watchers[0], &format!("heard-{n}"), None).await;
        more(&counts(StoreEvent::ServicesChanged), &before)
    })
    .await;
    (watchers, counts)
}

fn more(now: &[u32], before: &[u32]) -> bool {
    now.iter().zip(before).all(|(now, before)| now > before)
}

pub async fn changes_are_announced_to_all_but_not_that_one_was_looked_at(world: &World) {
    let (watchers, counts) = watchers(world, 2).await;
    let services = || counts(StoreEvent::ServicesChanged);
    let (one, two, three) = (listing("1", "well"), listing("1", "ill"), listing("2", "ill"));
    let steps = [
        (None, Some(&one), Turn::Registered),
        (Some(&one), Some(&two), Turn::Changed),
        (Some(&two), Some(&three), Turn::Updated),
        (Some(&three), None, Turn::Unregistered),
    ];
    for (before, after, turn) in steps {
        let heard = services();
        assert!(put(&watchers[0], "a", before, after, turn).await);
        until("the change was announced", async || more(&services(), &heard)).await;
    }
    let heard = services();
    register(&watchers[0], "short", Some(Duration::ZERO)).await;
    until("it was announced", async || more(&services(), &heard)).await;
    let heard = services();
    until("it ends", async || !listed(&watchers[1]).await.contains_key("short")).await;
    until("that was announced", async || more(&services(), &heard)).await;

    let heard = services();
    let mut before = register(&watchers[0], "b", None).await;
    for n in 0..50 {
        let after = listing(&before.definition, &format!("looked at {n} times"));
        assert!(put(&watchers[0], "b", Some(&before), Some(&after), Turn::Checked).await);
        before = after;
    }
    assert!(put(&watchers[0], "b", Some(&before), Some(&one), Turn::Updated).await);
    until("the last change was announced", async || more(&services(), &heard)).await;
    let documents = counts(StoreEvent::DocumentsChanged);
    assert!(watchers[0].put_document(ossa::engine::store::Shelf::Routes, "r", None, Some("text")).await.expect("put"));
    until("what came behind it, too", async || more(&counts(StoreEvent::DocumentsChanged), &documents)).await;
    let looked = services().iter().zip(&heard).map(|(now, before)| now - before).max().expect("there are two");
    assert!(looked < 20, "{looked} announced: that it was looked at is not");
}

pub async fn a_listing_ends_when_its_life_says_unless_it_is_renewed(world: &World) {
    const LIFE: Duration = Duration::from_millis(600);
    let (store, other) = (&world.store, world.user().await);
    let (begun, for_ever) = (Instant::now(), register(store, "for ever", None).await);
    assert_eq!(read(store, None).await.next_end_ms, None);
    let short = register(store, "short", Some(LIFE)).await;
    let (renewed, known) = (register(store, "renewed", Some(LIFE)).await, place(store).await);
    let next_end_ms = read(store, Some(known)).await.next_end_ms.expect("two end");
    assert!((1..=600).contains(&next_end_ms) || begun.elapsed() > LIFE, "{next_end_ms}");
    assert_eq!(other.renew_listings(&["renewed".to_owned()], LONG).await.expect("renewed"), Vec::<String>::new());
    until("it is gone", async || !listed(&other).await.contains_key("short")).await;
    assert!(begun.elapsed() + A_TICK >= LIFE);
    assert_eq!(listed(store).await, [("for ever".to_owned(), for_ever), ("renewed".to_owned(), renewed)].into());
    assert_eq!(told(&since(read(store, Some(known)).await)), [("short", Turn::Expired, short)]);
    let next_end_ms = read(store, None).await.next_end_ms.expect("one ends");
    assert!((LONG.as_millis() - 30_000..=LONG.as_millis()).contains(&u128::from(next_end_ms)), "{next_end_ms}");
    // There is room for another of its name.
    assert_eq!(other.renew_listings(&["short".to_owned()], LONG).await.expect("renewed"), ["short"]);
    register(&other, "short", None).await;
}

pub async fn what_is_put_without_a_life_keeps_its_end(world: &World) {
    let (store, week) = (&world.store, LONG * 1000);
    let ends_ms = async || read(store, None).await.next_end_ms;
    let near = |ends_ms: Option<u64>, life: Duration| {
        ends_ms.is_some_and(|ends_ms| (life.as_millis() - 30_000..=life.as_millis()).contains(&u128::from(ends_ms)))
    };
    let one = register(store, "a", Some(LONG)).await;
    let two = listing("2", "well");
    let put = async |before: Option<&Listing>, after: Option<&Listing>, turn, life| {
        assert!(store.put_listing("a", before, after, turn, life).await.expect("put"));
    };
    put(Some(&one), Some(&two), Turn::Updated, None).await;
    assert!(near(ends_ms().await, LONG));
    put(Some(&one), Some(&two), Turn::Updated, None).await;
    assert!(near(ends_ms().await, LONG), "it is so already");
    put(Some(&one), Some(&two), Turn::Updated, Some(week)).await;
    assert!(near(ends_ms().await, week), "it is so already, and lives on");
    put(Some(&two), Some(&one), Turn::Updated, Some(LONG)).await;
    assert!(near(ends_ms().await, LONG));
    // What is refused renews nothing.
    assert!(!store.put_listing("a", Some(&two), Some(&listing("3", "ill")), Turn::Updated, Some(week)).await.expect("put"));
    assert!(near(ends_ms().await, LONG));
    for _ in 0..2 {
        put(Some(&one), None, Turn::Unregistered, Some(LONG)).await;
        assert_eq!(ends_ms().await, None, "what is gone does not end");
    }
    put(None, Some(&one), Turn::Registered, None).await;
    assert_eq!(ends_ms().await, None, "a new one without a life never ends");
    store.renew_listings(&["a".to_owned(), "b".to_owned()], LONG).await.expect("renewed");
    assert!(near(ends_ms().await, LONG), "unless it is renewed");
    put(Some(&one), Some(&two), Turn::Updated, Some(Duration::MAX)).await;
    assert!(ends_ms().await.is_some_and(|ends_ms| u128::from(ends_ms) > week.as_millis()));
}

pub async fn that_a_listing_ended_is_told_to_each_once(world: &World) {
    let users = [world.user().await, world.user().await, world.user().await];
    let names = names(20);
    for round in 0..5 {
        let known = place(&world.store).await;
        register_all(&world.store, &names, Some(Duration::ZERO)).await;
        let reads = users.iter().map(async |store| {
            let (mut known, mut changes) = (known, Vec::new());
            until("all ended", async || {
                let news = read(store, Some(known)).await;
                known = news.place;
                changes.extend(since(news));
                changes.iter().filter(|change: &&ListingChange| change.turn == Turn::Expired).count() >= 20
            })
            .await;
            assert_eq!(since(read(store, Some(known)).await), []);
            changes
        });
        let reads = join_all(reads).await;
        assert!(reads.iter().all(|read| *read == reads[0]), "round {round}");
        let ended = reads[0].iter().filter(|change| change.turn == Turn::Expired);
        let ended: BTreeSet<(&String, &str)> = ended.map(|change| (&change.name, change.listing.health.as_str())).collect();
        assert_eq!((reads[0].len(), ended), (40, names.iter().map(|name| (name, "well")).collect()), "round {round}");
    }
}

pub async fn many_listings_end_in_bounded_steps(world: &World) {
    const COUNT: usize = 1_200;
    let store = &world.store;
    register_all(store, &names(COUNT), Some(ms(60_000))).await;
    let mut news = read(store, None).await;
    store.renew_listings(&names(COUNT), Duration::ZERO).await.expect("renewed");
    let mut steps = Vec::new();
    until("all ended", async || {
        news = read(store, Some(news.place)).await;
        steps.push(since(news.clone()).len());
        assert_eq!(news.next_end_ms, (steps.iter().sum::<usize>() < COUNT).then_some(0), "{steps:?}");
        news.next_end_ms.is_none()
    })
    .await;
    assert!(steps.len() > 2 && steps.iter().all(|step| (1..COUNT / 2).contains(step)), "{steps:?}");
    assert_eq!(listed(store).await, BTreeMap::new());
}

pub async fn names_may_have_any_characters(world: &World) {
    let (store, long) = (&world.store, "ü".repeat(128));
    let odd = ["a:b", "a%3Ab", "a", "{b367}", "{}", "a b\n\tc", "services", "*", "€uro 🦀", "0", "-1", "\"'\\", long.as_str()];
    let mut known = place(store).await;
    for name in odd {
        let new = register(store, name, Some(LONG)).await;
        let news = read(store, Some(known)).await;
        known = news.place;
        assert_eq!(told(&since(news)), [(name, Turn::Registered, new)]);
    }
    let mut owned: Vec<String> = odd.iter().map(|&name| name.to_owned()).collect();
    assert_eq!(store.renew_listings(&owned, LONG).await.expect("renewed"), Vec::<String>::new());
    store.plan_errands(Errand::Contracts { bus: 7 }, &owned, Duration::ZERO).await.expect("planned");
    let (taken, _) = store.take_errands(Errand::Contracts { bus: 7 }, 100, LONG).await.expect("taken");
    owned.sort();
    assert_eq!(sorted(&taken), owned);
    for running in &taken {
        assert!(store.end_errand(Errand::Contracts { bus: 7 }, running, None).await.expect("ended"), "{}", running.name);
    }
    for (name, one) in listed(store).await {
        assert!(put(store, &name, Some(&one), None, Turn::Unregistered).await, "{name}");
        assert_eq!(store.renew_listings(std::slice::from_ref(&name), LONG).await.expect("renewed"), [name]);
    }
    assert_eq!(listed(store).await, BTreeMap::new());
}

async fn plan(store: &Stored, names: &[String], spread: Duration) {
    store.plan_errands(Errand::Probe, names, spread).await.expect("planned");
}

async fn take(store: &Stored, most: usize, lease: Duration) -> (Vec<Running>, Option<u64>) {
    store.take_errands(Errand::Probe, most, lease).await.expect("taken")
}

async fn end(store: &Stored, running: &Running, next: Option<Duration>) -> bool {
    store.end_errand(Errand::Probe, running, next).await.expect("ended")
}

/// Takes the one errand that comes to be due.
async fn take_one(store: &Stored, lease: Duration) -> Running {
    let mut one = None;
    until("it is due", async || {
        one = take(store, 1, lease).await.0.pop();
        one.is_some()
    })
    .await;
    one.expect("it was waited for")
}

fn sorted(taken: &[Running]) -> Vec<String> {
    let mut names: Vec<String> = taken.iter().map(|running| running.name.clone()).collect();
    names.sort();
    names
}

pub async fn errands_are_planned_once_and_spread(world: &World) {
    let (store, names) = (&world.store, names(4));
    let other = world.user().await;
    register_all(store, &names, None).await;
    let near = |next_ms: Option<u64>, time: Duration| {
        next_ms.is_some_and(|next_ms| (time.as_millis() - 30_000..=time.as_millis()).contains(&u128::from(next_ms)))
    };
    assert_eq!(take(store, 10, LONG).await, (vec![], None), "none is planned");
    plan(store, &[], LONG).await;
    plan(store, &names, LONG * 4).await;
    assert_eq!(take(store, 0, LONG).await, (vec![], Some(0)), "nothing was wanted");
    let (taken, next_ms) = take(store, 10, LONG * 8).await;
    assert_eq!(sorted(&taken), names[..1]);
    assert!(near(next_ms, LONG), "{next_ms:?}");
    // All are planned, one of them runs: nothing becomes different.
    plan(&other, &names, Duration::ZERO).await;
    let (none, next_ms) = take(&other, 10, LONG).await;
    assert!(none.is_empty() && near(next_ms, LONG), "{none:?}, {next_ms:?}");
    assert!(end(store, &taken[0], Some(LONG / 2)).await);
    let next_ms = take(store, 10, LONG).await.1;
    assert!(near(next_ms, LONG / 2), "{next_ms:?}");
    // Errands of another kind are others.
    assert_eq!(store.take_errands(Errand::Contracts { bus: 7 }, 10, LONG).await.expect("taken"), (vec![], None));
    store.plan_errands(Errand::Contracts { bus: 7 }, &names[1..2], LONG).await.expect("planned");
    let (contracts, _) = store.take_errands(Errand::Contracts { bus: 7 }, 10, LONG).await.expect("taken");
    assert_eq!(sorted(&contracts), names[1..2]);
    assert!(!end(store, &contracts[0], None).await, "it is of the other kind");
    // One that is to be done no more can be planned anew.
    assert!(store.end_errand(Errand::Contracts { bus: 7 }, &contracts[0], None).await.expect("ended"));
    assert_eq!(store.take_errands(Errand::Contracts { bus: 7 }, 10, LONG).await.expect("taken"), (vec![], None));
    store.plan_errands(Errand::Contracts { bus: 7 }, &names[1..2], LONG).await.expect("planned");
    assert_eq!(sorted(&store.take_errands(Errand::Contracts { bus: 7 }, 10, LONG).await.expect("taken").0), names[1..2]);
}

pub async fn of_many_processes_one_takes_an_errand(world: &World) {
    let names = names(300);
    register_all(&world.store, &names, None).await;
    plan(&world.store, &names, Duration::ZERO).await;
    let users = [world.user().await, world.user().await];
    let takers = (0..6_usize).map(|n| {
        let store = users[n % 2].clone();
        tokio::spawn(async move {
            let mut mine = Vec::new();
            loop {
                let (taken, next_ms) = take(&store, 1 + n, LONG).await;
                assert!(taken.len() <= 1 + n);
                mine.extend(taken);
                if next_ms != Some(0) {
                    return mine;
                }
            }
        })
    });
    let taken = join_all(takers.collect::<Vec<_>>()).await.into_iter().flat_map(|mine| mine.expect("no panic"));
    let taken: Vec<Running> = taken.collect();
    assert_eq!(sorted(&taken), names);
    let turns: BTreeSet<u64> = taken.iter().map(|running| running.turn).collect();
    assert_eq!(turns.len(), names.len(), "each has a turn of its own");
}

pub async fn an_errand_whose_lease_is_over_is_due_again(world: &World) {
    const LEASE: Duration = Duration::from_millis(400);
    let (store, other, names) = (&world.store, world.user().await, names(1));
    register_all(store, &names, None).await;
    plan(store, &names, LONG).await;
    let begun = Instant::now();
    let first = take_one(store, LEASE).await;
    let second = take_one(&other, LONG).await;
    assert!(begun.elapsed() + A_TICK >= LEASE);
    assert!(first.name == second.name && first.turn != second.turn, "{first:?}, {second:?}");
    for next in [None, Some(Duration::ZERO)] {
        assert!(!end(store, &first, next).await, "it is another's");
        assert_eq!(take(store, 1, LEASE).await.0, [], "nothing changed");
    }
    assert!(end(&other, &second, Some(Duration::ZERO)).await);
    assert!(!end(&other, &second, Some(LONG)).await, "it is done already");
    let third = take_one(store, Duration::ZERO).await;
    assert!(third.turn != first.turn && third.turn != second.turn);
    // Late, but nobody took it meanwhile.
    until("the lease is over", async || take(store, 0, LEASE).await.1 == Some(0)).await;
    assert!(end(store, &third, Some(LONG)).await);
    assert!(take(store, 1, LEASE).await.1.is_some_and(|next_ms| next_ms > 60_000));
    for running in [Running { turn: 0, ..third.clone() }, Running { name: "nobody".into(), ..third }] {
        assert!(!end(store, &running, None).await, "{running:?} never was");
    }
}

pub async fn errands_of_what_is_not_listed_are_dropped(world: &World) {
    let (store, names) = (&world.store, names(3));
    register_all(store, &names[..2], None).await;
    plan(store, &names, Duration::ZERO).await;
    let (taken, next_ms) = take(store, 10, Duration::ZERO).await;
    assert_eq!(sorted(&taken), names[..2]);
    assert!(next_ms.is_some());
    for (name, one) in listed(store).await {
        assert!(put(store, &name, Some(&one), None, Turn::Unregistered).await);
    }
    until("they are dropped", async || take(store, 10, Duration::ZERO).await == (vec![], None)).await;
    assert!(!end(store, &taken[0], Some(Duration::ZERO)).await, "it was dropped");
    register_all(store, &names, None).await;
    assert_eq!(take(store, 10, LONG).await, (vec![], None), "none is planned for the new ones");
}

pub async fn many_dropped_errands_hold_up_none_behind_them(world: &World) {
    let (store, mut names) = (&world.store, names(1_200));
    plan(store, &names, Duration::ZERO).await;
    register(store, "zuletzt", None).await;
    names = vec!["zuletzt".to_owned()];
    plan(store, &names, Duration::ZERO).await;
    let mut steps = 0;
    until("the one behind them was taken", async || {
        steps += 1;
        let (taken, next_ms) = take(store, 10, LONG).await;
        assert!(taken.len() == 1 || next_ms == Some(0), "{taken:?}, {next_ms:?}");
        sorted(&taken) == names
    })
    .await;
    assert!(steps > 1, "so many are not looked at in one call");
    assert!(take(store, 10, LONG).await.1.is_some_and(|next_ms| next_ms > 60_000), "it alone is left");
}
