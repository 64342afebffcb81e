//! The register of services over a connection that breaks: what is repeated until it is answered took effect once. And over a
//! server that lost it, or a part of it.

use std::sync::Arc;
use std::time::Duration;

use ossa::engine::env::Env;
use ossa::engine::store::redis::keys::Keys;
use ossa::engine::store::redis::{RedisStore, RedisStoreConfig};
use ossa::engine::store::{Errand, Listing, ListingChange, News, Place, Read, Running, Store, StoreEvent, Turn};

use crate::commons_faults::{CUTS, open, repeat};
use crate::support::events::LONG;
use crate::support::proxy::{Cut, Proxy, Way};
use crate::support::redis_store::{KEY_PREFIX, config, config_at};
use crate::support::server::{Server, programs};
use crate::support::wait::until;

type Stored = Arc<dyn Store>;

fn listing(definition: &str, health: &str) -> Listing {
    Listing { definition: definition.into(), health: health.into() }
}

async fn register(store: &Stored, name: &str) -> Listing {
    let new = listing(name, "well");
    assert!(store.put_listing(name, None, Some(&new), Turn::Registered, None).await.expect("put"));
    new
}

async fn read(store: &Stored, known: Place) -> Read {
    store.news(Some(known)).await.expect("read")
}

fn told(read: Read) -> Vec<(String, Turn, Listing)> {
    let News::Since(changes) = read.news else { panic!("no changes, but all: {:?}", read.news) };
    changes.into_iter().map(|ListingChange { name, turn, listing, .. }| (name, turn, listing)).collect()
}

fn all(read: Read) -> Vec<String> {
    let News::All(listings) = read.news else { panic!("not all, but {:?}", read.news) };
    listings.into_keys().collect()
}

fn older(read: Read) -> Vec<String> {
    let News::Older(listings) = read.news else { panic!("not what is older, but {:?}", read.news) };
    listings.into_keys().collect()
}

async fn take_one(store: &Stored, lease: Duration) -> Running {
    let mut taken = Vec::new();
    // What a lost reply took is due again after its lease.
    until("it is due", async || {
        taken = repeat(async || store.take_errands(Errand::Probe, 1, lease).await).await.0;
        !taken.is_empty()
    })
    .await;
    taken.remove(0)
}

/// One of each, with a cut in between.
async fn round(proxy: &Proxy, direct: &Stored, store: &Stored, name: &str, cut: Option<Cut>) {
    let old = format!("old-{name}");
    let gone = register(direct, &old).await;
    let known = direct.news(None).await.expect("read").place;
    proxy.arm(cut);

    let (one, two, three) = (listing("1", "well"), listing("1", "ill"), listing("2", "ill"));
    let steps = [
        (name, None, Some(&one), Turn::Registered),
        (name, Some(&one), Some(&two), Turn::Checked),
        (&old, Some(&gone), None, Turn::Unregistered),
        (name, Some(&two), Some(&three), Turn::Updated),
    ];
    for (name, before, after, turn) in steps {
        let put = async || store.put_listing(name, before, after, turn, Some(LONG)).await;
        assert!(repeat(put).await, "{name}, {turn:?}, {cut:?}");
    }
    let names = [name.to_owned(), "nobody".to_owned()];
    assert_eq!(repeat(async || store.renew_listings(&names, LONG).await).await, ["nobody"], "{name}, {cut:?}");
    let expected = steps.map(|(name, before, after, turn)| (name.to_owned(), turn, after.or(before).expect("one of them").clone()));
    assert_eq!(told(repeat(async || store.news(Some(known)).await).await), expected, "{name}, {cut:?}");
    assert_eq!(told(read(direct, known).await), expected, "{name}, {cut:?}");

    repeat(async || store.plan_errands(Errand::Probe, &names[..1], Duration::ZERO).await).await;
    let running = take_one(store, Duration::from_millis(50)).await;
    assert_eq!(running.name, name, "{cut:?}");
    // Whoever repeats it may be told that it is not its own any more.
    let ended = repeat(async || store.end_errand(Errand::Probe, &running, Some(LONG)).await).await;
    assert!(ended || cut.is_some(), "{name}, {cut:?}");
    let (none, next_ms) = direct.take_errands(Errand::Probe, 9, LONG).await.expect("taken");
    assert!(none.is_empty() && next_ms.is_some_and(|next_ms| next_ms > 60_000), "{name}, {cut:?}: {none:?}, {next_ms:?}");
}

async fn cut_everywhere(way: Way, late: Option<Duration>) {
    for program in programs() {
        let server = Server::start(&program).await;
        let proxy = Proxy::start(server.port()).await;
        let direct = open(config(&server)).await;
        // All of one connection: what is cut is what it carries.
        let store = open(RedisStoreConfig { pool_size: 2, ..config_at(proxy.port()) }).await;
        round(&proxy, &direct, &store, "warm", None).await;
        round(&proxy, &direct, &store, "whole", None).await;
        let bytes = proxy.passed(way);
        let cuts = proxy.cuts();
        for n in 0..CUTS {
            let cut = Cut { way, after: 1 + bytes * n / CUTS, late };
            round(&proxy, &direct, &store, &format!("cut-{n}"), Some(cut)).await;
        }
        // What is announced is counted, too, and may come behind the round.
        assert!(proxy.cuts() > cuts + usize::try_from(CUTS / 3).expect("few"), "many of the cuts hit");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_lost_on_its_way_up_takes_effect_once() {
    cut_everywhere(Way::Up, None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_answered_takes_effect_once() {
    cut_everywhere(Way::Down, None).await;
}

/// What was sent on the lost connection reaches the server behind the repetition.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_late_takes_effect_once() {
    cut_everywhere(Way::Up, Some(Duration::from_millis(5))).await;
}

/// What was announced meanwhile was missed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_listens_again_is_told_to_read_the_register() {
    for program in programs() {
        let server = Server::start(&program).await;
        let store = RedisStore::new(config(&server), Env::system()).expect("the configuration is right");
        let (told, mut hears) = tokio::sync::watch::channel((0, 0));
        store.watch(Arc::new(move |event| match event {
            StoreEvent::ServicesChanged => told.send_modify(|times| times.0 += 1),
            StoreEvent::DocumentsChanged | StoreEvent::TopologyChanged => told.send_modify(|times| times.1 += 1),
            _ => {}
        }));
        store.open().await.expect("the server answers");
        hears.wait_for(|times| times.0 == 1).await.expect("it listens");
        assert_eq!(server.text(&["CLIENT", "KILL", "TYPE", "pubsub"]).await, "1");
        hears.wait_for(|times| times.0 == 2).await.expect("it listens again");
        let direct = open(config(&server)).await;
        let others = hears.borrow().1;
        register(&direct, "a").await;
        let since = hears.wait_for(|times| times.0 == 3).await.expect("it was announced").1;
        assert_eq!(since, others, "nothing else is said to have changed");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_register_of_a_server_that_was_emptied_is_another_one() {
    for program in programs() {
        let server = Server::start(&program).await;
        let store = open(config(&server)).await;
        let one = register(&store, "a").await;
        let known = store.news(None).await.expect("read").place;
        let take = async || {
            store.plan_errands(Errand::Probe, &["a".to_owned()], Duration::ZERO).await.expect("planned");
            take_one(&store, LONG).await
        };
        let before = take().await;
        server.text(&["FLUSHALL"]).await;
        let news = read(&store, known).await;
        assert_eq!((news.place, all(news)), (Place::default(), Vec::new()), "they are gone");
        assert!(!store.end_errand(Errand::Probe, &before, Some(LONG)).await.expect("asked"));
        // It is as it was, and one change was made, as before.
        assert_eq!(register(&store, "a").await, one);
        let after = store.news(None).await.expect("read").place;
        assert_ne!(after.epoch, known.epoch);
        assert_eq!(all(read(&store, known).await), ["a"]);
        assert_eq!(told(read(&store, Place::default()).await), [("a".to_owned(), Turn::Registered, one)]);
        let again = take().await;
        assert_ne!(again.turn, before.turn);
        assert!(!store.end_errand(Errand::Probe, &before, None).await.expect("asked"), "it is another's");
        assert!(store.end_errand(Errand::Probe, &again, None).await.expect("ended"));
    }
}

/// A replica that takes over before it has the last changes: whoever was told of them reads all anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_that_a_failover_lost_are_noticed() {
    for program in programs() {
        let server = Server::start(&program).await;
        let replica = Server::start_with(&program, &["--replicaof", "127.0.0.1", &server.port().to_string()]).await;
        let store = open(config(&server)).await;
        register(&store, "kept").await;
        let kept = store.news(None).await.expect("read").place;
        let [.., state] = Keys::new(KEY_PREFIX, None).listings();
        let noted = kept.last.to_string();
        until("the replica has it", async || {
            replica.ask(&["HGET", &state, "last"]).await.is_ok_and(|last| last == redis::Value::BulkString(noted.clone().into()))
        })
        .await;
        replica.text(&["REPLICAOF", "NO", "ONE"]).await;
        register(&store, "lost").await;
        let lost = store.news(None).await.expect("read").place;

        let other = open(config(&replica)).await;
        assert_eq!(told(read(&other, kept).await), []);
        assert_eq!(older(read(&other, lost).await), ["kept"]);
        let new = register(&other, "new").await;
        assert_eq!(older(read(&other, lost).await), ["kept", "new"], "changes go on there, but one is missing before them");
        assert_eq!(told(read(&other, kept).await), [("new".to_owned(), Turn::Registered, new)]);
    }
}

/// Part of what is stored went, as no bus would have it: what is left is read, and nothing is told that is not so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_cannot_be_told_the_changes_gets_all() {
    for program in programs() {
        let server = Server::start(&program).await;
        let store = open(config(&server)).await;
        let [definitions, health, _, log, _] = Keys::new(KEY_PREFIX, None).listings();
        let one = register(&store, "a").await;
        let known = store.news(None).await.expect("read").place;
        let two = listing("a", "ill");
        assert!(store.put_listing("a", Some(&one), Some(&two), Turn::Checked, None).await.expect("put"));
        let here = store.news(None).await.expect("read").place;
        let foreign = server.text(&["XADD", &log, "*", "what", "ever"]).await;
        assert_eq!(all(read(&store, known).await), ["a"], "something else is among them");
        server.ask(&["XDEL", &log, &foreign]).await.expect("deleted");
        assert_eq!(told(read(&store, known).await), [("a".to_owned(), Turn::Checked, two.clone())]);
        server.ask(&["XDEL", &log, &here.last.to_string()]).await.expect("deleted");
        assert_eq!(all(read(&store, known).await), ["a"], "one is missing");
        server.ask(&["DEL", &log]).await.expect("deleted");
        assert_eq!(all(read(&store, known).await), ["a"], "all are missing");
        assert_eq!(told(read(&store, here).await), [], "but not for those who know them");
        server.ask(&["HDEL", &health, "a"]).await.expect("deleted");
        assert_eq!(all(read(&store, known).await), Vec::<String>::new(), "half of a listing is none");
        assert!(!store.put_listing("a", Some(&two), Some(&one), Turn::Changed, None).await.expect("asked"));
        assert_eq!(store.renew_listings(&["a".to_owned()], LONG).await.expect("asked"), ["a"]);
        assert_eq!(register(&store, "a").await, one, "it can be listed anew");
        server.ask(&["DEL", &definitions]).await.expect("deleted");
        assert_eq!(all(store.news(None).await.expect("read")), Vec::<String>::new());
    }
}

/// Whatever a server without memory refuses, it refuses as a whole; and what only frees memory goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_memory_takes_no_listings_and_ends_them_all_the_same() {
    for program in programs() {
        let server = Server::start(&program).await;
        let store = open(config(&server)).await;
        let (one, two) = (register(&store, "a").await, register(&store, "b").await);
        let known = store.news(None).await.expect("read").place;
        assert_eq!(server.text(&["CONFIG", "SET", "maxmemory", "1"]).await, "OK");
        for (before, after, turn) in [(None, &one, Turn::Registered), (Some(&one), &two, Turn::Updated)] {
            let name = if before.is_none() { "new" } else { "a" };
            let refused = store.put_listing(name, before, Some(after), turn, Some(LONG)).await.expect_err("there is no memory");
            assert!(refused.retryable, "{refused}");
        }
        let unchanged = Read { place: known, news: News::Since(Vec::new()), next_end_ms: None };
        assert_eq!(read(&store, known).await, unchanged);
        assert!(store.put_listing("a", Some(&one), None, Turn::Unregistered, None).await.expect("put"));
        assert_eq!(told(read(&store, known).await), [("a".to_owned(), Turn::Unregistered, one.clone())]);
        let [_, _, ends, ..] = Keys::new(KEY_PREFIX, None).listings();
        assert_eq!(server.text(&["CONFIG", "SET", "maxmemory", "0"]).await, "OK");
        assert_eq!(server.text(&["ZADD", &ends, "1", "b"]).await, "1");
        assert_eq!(server.text(&["CONFIG", "SET", "maxmemory", "1"]).await, "OK");
        let changes = told(read(&store, known).await);
        assert_eq!(changes, [("a".to_owned(), Turn::Unregistered, one), ("b".to_owned(), Turn::Expired, two)]);
    }
}
