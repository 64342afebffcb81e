//! What processes share, over a connection that breaks: what is repeated until it is answered took effect once. And over a
//! server that lost it.

use std::sync::Arc;
use std::time::Duration;

use ossa::engine::env::Env;
use ossa::engine::error::Result;
use ossa::engine::store::redis::{RedisStore, RedisStoreConfig};
use ossa::engine::store::{ChainBatch, ChainRecord, Documents, EntryId, Rate, Shelf, Sighting, Store, StoreEvent, chain_bucket};

use crate::support::proxy::{Cut, Proxy, Way};
use crate::support::redis_store::{config, config_at};
use crate::support::server::{Server, programs};

/// Places of a cut, spread over what is sent, or answered, for one round.
pub const CUTS: u64 = 30;
const LAST: EntryId = EntryId { ms: u64::MAX, seq: u64::MAX };

/// A store over that server.
pub async fn open(config: RedisStoreConfig) -> Arc<dyn Store> {
    let store = RedisStore::new(config, Env::system()).expect("the configuration is right");
    store.open().await.expect("the server answers");
    store
}

/// Until it is answered.
pub async fn repeat<T>(call: impl AsyncFn() -> Result<T>) -> T {
    for _ in 0..20 {
        if let Ok(done) = call().await {
            return done;
        }
    }
    panic!("one cut breaks one call");
}

fn batch(chain: &str, first: u64) -> ChainBatch {
    let record = |n: u64| ChainRecord { text: format!("text {n}"), hash: format!("hash-{n}"), signature: None };
    let counts = [("records".to_owned(), 3)].into();
    ChainBatch { chain: chain.into(), first, records: (first..first + 3).map(record).collect(), counts, ..ChainBatch::default() }
}

/// One of each, with a cut in between.
async fn round(proxy: &Proxy, direct: &Arc<dyn Store>, store: &Arc<dyn Store>, name: &str, cut: Option<Cut>) {
    let counted = async || direct.counts().await.expect("read").0.get("records").copied().unwrap_or(0);
    let before = counted().await;
    proxy.arm(cut);

    for first in [1, 4] {
        repeat(async || store.append_records(&batch(name, first)).await).await;
    }
    for (before, after) in [(None, Some("1")), (Some("1"), Some("2"))] {
        assert!(repeat(async || store.put_document(Shelf::Routes, name, before, after).await).await, "{name}, {cut:?}");
    }
    let seen = Sighting { message: name.into(), at_ms: 77, place: "here".into(), life: Duration::from_secs(600) };
    assert_eq!(repeat(async || store.first_sightings(vec![seen.clone()]).await).await, ["here"], "{name}, {cut:?}");
    // Nobody is granted what was taken without an answer.
    let mut granted = 0;
    for _ in 0..4 {
        granted += repeat(async || store.take_places(name, Rate { per_second: 0.001, burst: 8 }, 2).await).await.granted;
    }
    assert!((6..=8).contains(&granted) && (cut.is_some() || granted == 8), "{name}, {cut:?}: {granted}");

    let rows = direct.records(chain_bucket(name), EntryId::default(), LAST, 1000).await.expect("read");
    let texts: Vec<String> = rows.into_iter().map(|(_, record)| record.text).collect();
    assert_eq!(texts, (1..7).map(|n| format!("text {n}")).collect::<Vec<_>>(), "{name}, {cut:?}");
    assert_eq!(counted().await - before, 6, "{name}, {cut:?}");
    let documents = direct.documents(Shelf::Routes, None).await.expect("read").expect("nothing is known");
    assert_eq!(documents.by_name[name], "2", "{name}, {cut:?}");
    // Its head stays: what comes later still is known by it.
    direct.trim_records(chain_bucket(name), 0, 0).await.expect("trimmed");
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
async fn whoever_listens_again_is_told_to_read_the_documents() {
    for program in programs() {
        let server = Server::start(&program).await;
        let store = RedisStore::new(config(&server), Env::system()).expect("the configuration is right");
        let (told, mut hears) = tokio::sync::watch::channel(0);
        store.watch(Arc::new(move |event| {
            if event == StoreEvent::DocumentsChanged {
                told.send_modify(|times| *times += 1);
            }
        }));
        store.open().await.expect("the server answers");
        hears.wait_for(|times| *times == 1).await.expect("it listens");
        assert_eq!(server.text(&["CLIENT", "KILL", "TYPE", "pubsub"]).await, "1");
        hears.wait_for(|times| *times == 2).await.expect("it listens again");
        let direct = open(config(&server)).await;
        assert!(direct.put_document(Shelf::Routes, "r", None, Some("text")).await.expect("put"));
        hears.wait_for(|times| *times == 3).await.expect("it was announced");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_shared_goes_on_on_a_server_that_was_emptied() {
    for program in programs() {
        let server = Server::start(&program).await;
        let store = open(config(&server)).await;
        let documents = async |known| store.documents(Shelf::Routes, known).await.expect("read");
        assert!(store.put_document(Shelf::Routes, "r", None, Some("1")).await.expect("put"));
        store.append_records(&batch("chain", 1)).await.expect("appended");
        let before = documents(None).await.expect("nothing is known");
        server.text(&["FLUSHALL"]).await;
        assert_eq!(documents(Some(before.version)).await, Some(Documents::default()), "they are gone");
        assert!(store.put_document(Shelf::Routes, "r", None, Some("2")).await.expect("put"));
        assert!(documents(None).await.expect("nothing is known").version > before.version);
        // It begins anew, and where its beginning was is not said: that is a loss.
        store.append_records(&batch("chain", 4)).await.expect("appended");
        let chains = store.chains(chain_bucket("chain")).await.expect("read");
        assert_eq!((chains.heads["chain"].sequence, chains.anchors.len()), (6, 0));
    }
}
