//! What processes share beside events: documents, limits, where messages were found, chains of records, and who is here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use ossa::engine::error::Code;
use ossa::engine::store::{
    Bucket, ChainBatch, ChainPlace, ChainRecord, EntryId, Rate, Shelf, Sighting, Store, StoreEvent, Taken, chain_bucket,
};

use crate::support::events::LONG;
use crate::support::wait::until;
use crate::support::world::World;

const LAST: EntryId = EntryId { ms: u64::MAX, seq: u64::MAX };

type Stored = Arc<dyn Store>;

async fn put(store: &Stored, shelf: Shelf, name: &str, before: Option<&str>, after: Option<&str>) -> bool {
    store.put_document(shelf, name, before, after).await.expect("put")
}

async fn version(store: &Stored, shelf: Shelf) -> u64 {
    store.documents(shelf, None).await.expect("read").expect("nothing is known").version
}

async fn texts(store: &Stored, shelf: Shelf) -> Vec<(String, String)> {
    let documents = store.documents(shelf, None).await.expect("read").expect("nothing is known");
    documents.by_name.into_iter().collect()
}

fn text(name: &str, text: &str) -> (String, String) {
    (name.into(), text.into())
}

pub async fn a_store_has_one_name_for_all_that_use_it(world: &World) {
    let (store, other) = (&world.store, world.user().await);
    let names = join_all((0..8).map(|n| {
        let store = if n % 2 == 0 { store.clone() } else { other.clone() };
        async move { store.identity(&format!("name {n}")).await.expect("ask") }
    }));
    let names = names.await;
    assert!(names[0].starts_with("name ") && names.iter().all(|name| *name == names[0]), "{names:?}");
    assert_eq!(other.identity("later").await.expect("ask"), names[0]);
}

pub async fn a_document_changes_only_from_what_is_expected(world: &World) {
    let (store, other) = (&world.store, world.user().await);
    let shelf = Shelf::Contracts;
    assert!(put(store, shelf, "a:1", None, Some("=\n€")).await);
    assert!(put(store, shelf, "a:1", None, Some("=\n€")).await, "it is so already");
    assert!(!put(&other, shelf, "a:1", None, Some("other")).await);
    assert!(!put(&other, shelf, "a:1", Some("what"), Some("other")).await);
    assert!(!put(&other, shelf, "a:1", Some("what"), None).await);
    assert!(put(&other, shelf, "empty", None, Some("")).await);
    assert!(!put(&other, shelf, "empty", None, Some("full")).await, "an empty document is one");
    assert_eq!(texts(store, shelf).await, [text("a:1", "=\n€"), text("empty", "")]);
    assert!(put(&other, shelf, "a:1", Some("=\n€"), Some("2")).await);
    assert!(put(&other, shelf, "empty", Some(""), None).await);
    assert!(put(&other, shelf, "empty", Some(""), None).await, "it is gone already");
    assert_eq!(texts(store, shelf).await, [text("a:1", "2")]);
    for another in [Shelf::Projects, Shelf::Routes] {
        assert_eq!(texts(store, another).await, [], "shelves are apart");
    }
    let nameless = store.put_document(shelf, "", None, Some("text")).await;
    assert_eq!(nameless.expect_err("it has no name").code, Code::Internal);
}

pub async fn of_racing_changes_to_a_document_one_wins(world: &World) {
    let users = [world.user().await, world.user().await];
    for round in 0..10 {
        let (name, before) = (format!("d-{}", round / 2), (round % 2 == 1).then_some("0"));
        if let Some(before) = before {
            assert!(put(&world.store, Shelf::Routes, &name, None, Some(before)).await);
        }
        let changes = (1..9).map(|n| {
            let (store, name) = (users[n % 2].clone(), name.clone());
            tokio::spawn(async move { put(&store, Shelf::Routes, &name, before, Some(&n.to_string())).await.then_some(n) })
        });
        let won: Vec<usize> = join_all(changes).await.into_iter().filter_map(|change| change.expect("no panic")).collect();
        assert_eq!(won.len(), 1, "{won:?}");
        let kept = store_text(&world.store, &name).await;
        assert_eq!(kept, won[0].to_string());
        assert!(put(&world.store, Shelf::Routes, &name, Some(&kept), None).await);
    }
}

async fn store_text(store: &Stored, name: &str) -> String {
    store.documents(Shelf::Routes, None).await.expect("read").expect("nothing is known").by_name[name].clone()
}

pub async fn versions_rise_whatever_becomes_of_the_documents(world: &World) {
    let (store, shelf) = (&world.store, Shelf::Projects);
    let mut versions = vec![version(store, shelf).await];
    assert_eq!(versions, [0], "nothing was ever written");
    let steps = [(None, Some("1")), (Some("1"), Some("2")), (Some("2"), None), (None, Some("1")), (Some("1"), None)];
    for (before, after) in steps {
        assert!(put(store, shelf, "p", before, after).await);
        versions.push(version(store, shelf).await);
        assert!(put(store, shelf, "p", before, after).await);
        assert!(!put(store, shelf, "p", Some("no"), Some("never")).await);
        assert_eq!(version(store, shelf).await, versions[versions.len() - 1], "nothing changed");
    }
    assert!(versions.is_sorted_by(|a, b| a < b), "{versions:?}");
    assert_eq!(texts(store, shelf).await, []);
    assert_eq!(version(store, Shelf::Routes).await, 0);
}

pub async fn what_is_known_is_not_read_again(world: &World) {
    let (store, shelf) = (&world.store, Shelf::Projects);
    assert_eq!(store.documents(shelf, Some(0)).await.expect("read"), None);
    assert!(put(store, shelf, "p", None, Some("1")).await);
    let first = store.documents(shelf, Some(0)).await.expect("read").expect("there is news");
    assert_eq!(store.documents(shelf, Some(first.version)).await.expect("read"), None);
    assert!(put(store, shelf, "p", Some("1"), None).await);
    let second = store.documents(shelf, Some(first.version)).await.expect("read").expect("there is news");
    assert!(second.by_name.is_empty() && second.version > first.version);
    assert_eq!(store.documents(shelf, Some(second.version)).await.expect("read"), None);
}

pub async fn changed_documents_are_announced_to_all(world: &World) {
    let heard: Vec<Arc<AtomicU32>> = (0..2).map(|_| Arc::default()).collect();
    let mut watchers = Vec::new();
    for count in &heard {
        let (watcher, count) = (world.closed_user(), count.clone());
        watcher.watch(Arc::new(move |event| {
            if event == StoreEvent::DocumentsChanged {
                count.fetch_add(1, Ordering::SeqCst);
            }
        }));
        watcher.open().await.expect("opened");
        watchers.push(watcher);
    }
    let counts = || heard.iter().map(|count| count.load(Ordering::SeqCst)).collect::<Vec<_>>();
    // One that has only just opened may hear that it may have missed something.
    let before = counts();
    let mut n = 0;
    until("all listen", async || {
        n += 1;
        assert!(put(&watchers[0], Shelf::Contracts, &format!("c-{n}"), None, Some("text")).await);
        counts().iter().zip(&before).all(|(now, before)| now > before)
    })
    .await;
    for (before, after) in [(None, Some("1")), (Some("1"), Some("2")), (Some("2"), None)] {
        let heard = counts();
        assert!(put(&watchers[0], Shelf::Routes, "r", before, after).await);
        until("the change was announced", async || counts().iter().zip(&heard).all(|(now, before)| now > before)).await;
    }
}

fn rate(per_second: f64, burst: u32) -> Rate {
    Rate { per_second, burst }
}

async fn take(store: &Stored, name: &str, rate: Rate, wanted: u32) -> Taken {
    store.take_places(name, rate, wanted).await.expect("asked")
}

pub async fn a_limit_grants_its_burst_and_then_by_its_rate(world: &World) {
    // So slow that none comes free while this runs.
    let (store, slow) = (&world.store, rate(0.001, 5));
    assert_eq!(take(store, "slow", slow, 0).await, Taken { granted: 0, retry_after_ms: 0 });
    assert_eq!(take(store, "slow", slow, 3).await, Taken { granted: 3, retry_after_ms: 0 });
    let taken = take(&world.user().await, "slow", slow, 3).await;
    assert_eq!(taken.granted, 2);
    assert!((900_000..=1_000_000).contains(&taken.retry_after_ms), "{taken:?}");
    assert_eq!(take(store, "slow", slow, 1).await.granted, 0);
    // Whoever comes when told gets one.
    let quick = rate(20.0, 1);
    assert_eq!(take(store, "quick", quick, 2).await.granted, 1);
    let Taken { granted: 0, retry_after_ms } = take(store, "quick", quick, 1).await else { return };
    assert!((1..=50).contains(&retry_after_ms), "{retry_after_ms}");
    tokio::time::sleep(Duration::from_millis(retry_after_ms)).await;
    assert_eq!(take(store, "quick", quick, 1).await, Taken { granted: 1, retry_after_ms: 0 });
}

pub async fn a_limit_holds_for_all_who_take_together(world: &World) {
    const TIME: Duration = Duration::from_secs(2);
    let (limit, begun) = (rate(200.0, 20), Instant::now());
    let users = [world.user().await, world.user().await];
    let tasks = (0..8_usize).map(|n| {
        let (store, wanted) = (users[n % 2].clone(), 1 + u32::try_from(n % 3).expect("small"));
        tokio::spawn(async move {
            let mut calls = Vec::new();
            while begun.elapsed() < TIME {
                let asked = Instant::now();
                let taken = take(&store, "all", limit, wanted).await;
                calls.push((asked, Instant::now(), taken.granted));
                assert_eq!(taken.retry_after_ms > 0, taken.granted < wanted, "{taken:?}");
                tokio::time::sleep(Duration::from_millis(taken.retry_after_ms.min(10))).await;
            }
            calls
        })
    });
    let calls = join_all(tasks).await.into_iter().flat_map(|calls| calls.expect("no panic"));
    let mut calls: Vec<(Instant, Instant, u32)> = calls.collect();
    calls.sort_unstable();
    let granted: f64 = calls.iter().map(|(.., granted)| f64::from(*granted)).sum();
    let places = |time: Duration| 20.0 + 200.0 * time.as_secs_f64();
    let (first, end) = (calls[0], calls[calls.len() - 1]);
    // Over any time, so over all of it: from the first question to the last answer.
    let answered = calls.iter().map(|(_, answered, _)| *answered).max().expect("there are some");
    let at_most = places(answered.duration_since(first.0));
    assert!(granted <= at_most, "{granted} of {at_most}");
    // Where nobody asked for a while, on a machine that had other things to do, more came free than places there are.
    let idle = |pair: &[(Instant, Instant, u32)]| pair[1].1.duration_since(pair[0].0).saturating_sub(Duration::from_millis(100));
    let unused: Duration = calls.windows(2).map(idle).sum();
    let at_least = places(end.0.duration_since(first.1).saturating_sub(unused)) * 0.97;
    assert!(granted >= at_least, "{granted} of {at_least}");
}

pub async fn limits_are_told_apart_by_their_names(world: &World) {
    let (store, slow) = (&world.store, rate(0.001, 1));
    for name in ["a", "a:b", "a%3Ab", "", "{b9}", "€"] {
        assert_eq!(take(store, name, slow, 1).await.granted, 1, "{name}");
        assert_eq!(take(store, name, slow, 1).await.granted, 0, "{name}");
    }
}

pub async fn a_changed_rate_holds_from_then_on(world: &World) {
    let store = &world.store;
    assert_eq!(take(store, "more", rate(0.001, 5), 9).await.granted, 5);
    assert_eq!(take(store, "more", rate(0.001, 8), 9).await.granted, 3, "the burst is larger");
    // Many taken by a slow rate hold up a quick one no longer than its own burst does.
    assert_eq!(take(store, "quick", rate(0.001, 1000), 1000).await.granted, 1000);
    let taken = take(store, "quick", rate(10.0, 2), 1).await;
    assert!(taken.granted == 1 || (1..=100).contains(&taken.retry_after_ms), "{taken:?}");
}

pub async fn what_is_no_limit_is_refused(world: &World) {
    for limit in [rate(0.0, 1), rate(-1.0, 1), rate(f64::NAN, 1), rate(f64::INFINITY, 1), rate(1.0, 0)] {
        let refused = world.store.take_places("a", limit, 1).await;
        assert_eq!(refused.expect_err("nothing would come free").code, Code::Internal);
    }
}

fn sighting(message: &str, at_ms: u64, place: &str) -> Sighting {
    Sighting { message: message.into(), at_ms, place: place.into(), life: LONG }
}

async fn see(store: &Stored, sightings: &[(&str, u64, &str)]) -> Vec<String> {
    let sightings = sightings.iter().map(|(message, at_ms, place)| sighting(message, *at_ms, place)).collect();
    store.first_sightings(sightings).await.expect("noted")
}

pub async fn a_message_stays_where_it_was_found_first(world: &World) {
    let (store, other) = (&world.store, world.user().await);
    let found = see(store, &[("m", 1_000_000, "a"), ("n", 2_000_000, "b"), ("m", 1_000_000, "c"), ("o", 1_000_001, "d")]).await;
    assert_eq!(found, ["a", "b", "a", "d"]);
    let found = see(&other, &[("o", 1_000_001, "x"), ("n", 2_000_000, "x"), ("new", 3, "x"), ("m", 1_000_000, "x")]).await;
    assert_eq!(found, ["d", "b", "x", "a"]);
    assert_eq!(see(store, &[("m", 9_000_000, "e")]).await, ["e"], "another message of that name");
    assert_eq!(see(store, &[]).await, Vec::<String>::new());
}

pub async fn all_who_find_a_message_at_once_get_one_answer(world: &World) {
    let users = [world.user().await, world.user().await];
    let names: Vec<String> = (0..40).map(|n| format!("message-{n}")).collect();
    let looks = (0..8_usize).map(|n| {
        let (store, place) = (users[n % 2].clone(), format!("place-{n}"));
        let seen = names.iter().zip(0..).map(|(name, at_ms)| sighting(name, 1_000_000 + at_ms * 7, &place)).collect();
        tokio::spawn(async move { store.first_sightings(seen).await.expect("noted") })
    });
    let found: BTreeSet<Vec<String>> = join_all(looks).await.into_iter().map(|found| found.expect("no panic")).collect();
    assert_eq!(found.len(), 1, "{found:?}");
}

pub async fn where_a_message_was_found_is_forgotten_after_its_life(world: &World) {
    let store = &world.store;
    let see = async |message: &str, place: &str, life: Duration| {
        let seen = Sighting { life, ..sighting(message, 5_000, place) };
        store.first_sightings(vec![seen]).await.expect("noted").remove(0)
    };
    let begun = Instant::now();
    assert_eq!(see("m", "a", Duration::from_millis(900)).await, "a");
    until("it is forgotten", async || see("m", "b", Duration::ZERO).await == "b").await;
    // The store counts whole ms: the first and the last may be parts of one.
    assert!(begun.elapsed() >= Duration::from_millis(898), "{:?}", begun.elapsed());
    // The longest life counts.
    for life in [Duration::from_millis(1), LONG, Duration::from_millis(1)] {
        assert_eq!(see("n", "a", life).await, "a");
    }
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(see("n", "b", Duration::ZERO).await, "a");
}

/// Records `first..` of a chain, `count` of them.
fn batch(chain: &str, first: u64, count: u64) -> ChainBatch {
    let record = |n: u64| ChainRecord {
        text: format!(r#"{{"chain":"{chain}","n":{n},"text":"€"}}"#),
        hash: format!("hash-{n}"),
        signature: n.is_multiple_of(2).then(|| format!("signature-{n}")),
    };
    ChainBatch { chain: chain.into(), first, records: (first..first + count).map(record).collect(), ..ChainBatch::default() }
}

async fn append(store: &Stored, batch: &ChainBatch) {
    store.append_records(batch).await.expect("appended");
}

/// Everything of a bucket.
async fn records(store: &Stored, bucket: Bucket) -> Vec<(EntryId, ChainRecord)> {
    store.records(bucket, EntryId::default(), LAST, 100_000).await.expect("read")
}

async fn count(store: &Stored, bucket: Bucket) -> usize {
    let count = records(store, bucket).await.len();
    let counted = store.record_counts().await.expect("counted").get(&bucket).copied();
    assert_eq!(counted.unwrap_or(0), count as u64, "none is told as nothing");
    assert_ne!(counted, Some(0));
    count
}

/// The place of a record; there is none for 0.
fn place(sequence: u64) -> Option<ChainPlace> {
    (sequence > 0).then(|| ChainPlace { sequence, hash: format!("hash-{sequence}") })
}

/// Head and anchor of a chain.
async fn ends(store: &Stored, chain: &str) -> (Option<ChainPlace>, Option<ChainPlace>) {
    let chains = store.chains(chain_bucket(chain)).await.expect("read");
    (chains.heads.get(chain).cloned(), chains.anchors.get(chain).cloned())
}

/// A chain in the same bucket as another.
fn beside(chain: &str) -> String {
    let mut names = (0..).map(|n| format!("{chain} beside {n}"));
    names.find(|name| chain_bucket(name) == chain_bucket(chain)).expect("names are without end")
}

fn counted(name: &str, amount: i64) -> BTreeMap<String, i64> {
    BTreeMap::from([(name.to_owned(), amount)])
}

pub async fn records_come_with_their_head_counters_and_times(world: &World) {
    let (store, bucket) = (&world.store, chain_bucket("c:1"));
    let first = ChainBatch {
        counts: BTreeMap::from([("events".into(), 3), ("bytes".into(), -5)]),
        times: BTreeMap::from([("last".into(), 50), ("other".into(), 7)]),
        ..batch("c:1", 1, 3)
    };
    let second = ChainBatch {
        counts: counted("events", 2),
        times: BTreeMap::from([("last".into(), 40), ("other".into(), 9)]),
        ..batch("c:1", 4, 2)
    };
    append(store, &first).await;
    append(&world.user().await, &second).await;
    let rows = records(store, bucket).await;
    let read: Vec<&ChainRecord> = rows.iter().map(|(_, record)| record).collect();
    assert_eq!(read, first.records.iter().chain(&second.records).collect::<Vec<_>>());
    assert!(rows.is_sorted_by(|a, b| a.0 < b.0));
    assert!(rows[0].0.ms.abs_diff(store.now_ms()) < 60_000, "written by the server's clock");
    let page = store.records(bucket, rows[0].0, rows[3].0, 2).await.expect("read");
    assert_eq!(page, rows[1..3]);
    assert_eq!(store.records(bucket, rows[2].0, rows[3].0, 2).await.expect("read"), rows[3..4]);
    assert_eq!(ends(store, "c:1").await, (place(5), None));
    let (counts, times) = store.counts().await.expect("read");
    assert_eq!(counts, BTreeMap::from([("events".into(), 5), ("bytes".into(), -5)]));
    assert_eq!(times, BTreeMap::from([("last".into(), 50), ("other".into(), 9)]));
}

pub async fn a_batch_that_is_there_changes_nothing(world: &World) {
    let (store, bucket) = (&world.store, chain_bucket("again"));
    let first = ChainBatch { counts: counted("events", 2), ..batch("again", 1, 2) };
    let second = ChainBatch { counts: counted("events", 1), ..batch("again", 3, 1) };
    for again in [&first, &first, &second, &first, &second] {
        append(store, again).await;
    }
    assert_eq!((count(store, bucket).await, ends(store, "again").await), (3, (place(3), None)));
    assert_eq!(store.counts().await.expect("read").0, counted("events", 3));
    // Also when all of it was removed since.
    assert_eq!(store.trim_records(bucket, 0, 0).await.expect("trimmed"), (3, false));
    append(store, &second).await;
    assert_eq!((count(store, bucket).await, ends(store, "again").await), (0, (place(3), place(3))));
}

pub async fn records_that_do_not_follow_their_chain_are_refused(world: &World) {
    let (store, bucket) = (&world.store, chain_bucket("gap"));
    append(store, &batch("gap", 1, 2)).await;
    let mut others = batch("gap", 2, 1);
    others.records[0].hash = "another".into();
    let nothing = ChainBatch { chain: "gap".into(), first: 3, ..ChainBatch::default() };
    for wrong in [batch("gap", 4, 1), batch("gap", 2, 2), others, nothing, batch("gap", 0, 1)] {
        let wrong = ChainBatch { counts: counted("events", 1), ..wrong };
        let refused = store.append_records(&wrong).await;
        assert_eq!(refused.expect_err("it does not follow").code, Code::Internal, "{wrong:?}");
    }
    assert_eq!((count(store, bucket).await, ends(store, "gap").await), (2, (place(2), None)));
    assert!(store.counts().await.expect("read").0.is_empty());
    append(store, &batch("gap", 3, 1)).await;
}

pub async fn a_chain_of_which_nothing_is_known_begins_anywhere(world: &World) {
    let (store, bucket) = (&world.store, chain_bucket("late"));
    append(store, &batch("late", 7, 2)).await;
    append(store, &batch("late", 7, 2)).await;
    append(store, &batch("late", 9, 1)).await;
    assert_eq!((count(store, bucket).await, ends(store, "late").await), (3, (place(9), None)));
}

pub async fn chains_written_at_once_are_whole(world: &World) {
    let (users, second) = ([world.user().await, world.user().await], beside("one"));
    let chains = ["one", &second, "elsewhere", "somewhere"];
    let writes = (0..4).map(|n| {
        let (store, chain) = (users[n % 2].clone(), chains[n].to_owned());
        tokio::spawn(async move {
            for first in [1, 4, 7, 10] {
                append(&store, &ChainBatch { counts: counted("n", 3), ..batch(&chain, first, 3) }).await;
            }
        })
    });
    for written in join_all(writes).await {
        written.expect("no panic");
    }
    let store = &world.store;
    for chain in chains {
        assert_eq!(ends(store, chain).await, (place(12), None));
        let written: Vec<ChainRecord> = records(store, chain_bucket(chain)).await.into_iter().map(|(_, record)| record).collect();
        let own: Vec<&ChainRecord> = written.iter().filter(|record| record.text.contains(&format!("\"{chain}\""))).collect();
        assert_eq!(own, batch(chain, 1, 12).records.iter().collect::<Vec<_>>());
    }
    assert_eq!(store.counts().await.expect("read").0, counted("n", 48));
}

pub async fn records_beyond_the_last_ones_are_trimmed(world: &World) {
    let (store, bucket, second) = (&world.store, chain_bucket("long"), beside("long"));
    append(store, &batch("long", 1, 6)).await;
    append(store, &batch(&second, 1, 2)).await;
    append(store, &batch("long", 7, 2)).await;
    assert_eq!(store.trim_records(bucket, 0, 10).await.expect("trimmed"), (0, false));
    assert_eq!(store.trim_records(bucket, 0, 8).await.expect("trimmed"), (2, false));
    assert_eq!(ends(store, "long").await, (place(8), place(2)));
    assert_eq!(ends(store, &second).await, (place(2), None));
    assert_eq!(records(store, bucket).await[0].1, batch("long", 3, 1).records[0]);
    assert_eq!(store.trim_records(bucket, 0, 1).await.expect("trimmed"), (7, false));
    assert_eq!(ends(store, "long").await, (place(8), place(7)));
    // Nothing is left of it, and what it would go on with is known.
    assert_eq!(ends(store, &second).await, (place(2), place(2)));
    append(store, &batch(&second, 3, 1)).await;
    assert_eq!(ends(store, &second).await, (place(3), place(2)));
}

/// Waits until the store's clock is past the last record of the bucket; answers a time between it and what comes.
async fn after_the_last(store: &Stored, bucket: Bucket) -> u64 {
    let last = records(store, bucket).await.last().expect("there are some").0.ms;
    tokio::time::sleep(Duration::from_millis(20)).await;
    last + 1
}

pub async fn old_records_are_trimmed_and_their_chains_forgotten(world: &World) {
    let (store, bucket, second) = (&world.store, chain_bucket("old"), beside("old"));
    append(store, &ChainBatch { counts: counted("n", 4), ..batch("old", 1, 4) }).await;
    append(store, &batch(&second, 1, 3)).await;
    let before_ms = after_the_last(store, bucket).await;
    append(store, &batch(&second, 4, 1)).await;
    assert_eq!(store.trim_records(bucket, before_ms, 100).await.expect("trimmed"), (7, false));
    assert_eq!(ends(store, "old").await, (None, None), "nothing is left of it");
    assert_eq!(ends(store, &second).await, (place(4), place(3)), "it goes on");
    assert_eq!(count(store, bucket).await, 1);
    assert_eq!(store.trim_records(bucket, before_ms, 100).await.expect("trimmed"), (0, false));
    assert_eq!(store.counts().await.expect("read").0, counted("n", 4), "what was counted stays");
    append(store, &batch("old", 5, 1)).await;
    assert_eq!(ends(store, "old").await, (place(5), None), "it begins anew");
}

pub async fn chains_without_records_are_forgotten_when_they_are_old(world: &World) {
    let (store, bucket, second) = (&world.store, chain_bucket("gone"), beside("gone"));
    append(store, &batch("gone", 1, 2)).await;
    append(store, &batch(&second, 1, 2)).await;
    let before_ms = after_the_last(store, bucket).await;
    assert_eq!(store.trim_records(bucket, 0, 0).await.expect("trimmed"), (4, false));
    append(store, &batch(&second, 3, 1)).await;
    assert_eq!(store.trim_records(bucket, 0, 0).await.expect("trimmed"), (1, false));
    assert_eq!(ends(store, "gone").await, (place(2), place(2)));
    assert_eq!(ends(store, &second).await, (place(3), place(3)));
    assert_eq!(store.trim_records(bucket, before_ms, 0).await.expect("trimmed"), (0, false));
    assert_eq!(ends(store, "gone").await, (None, None));
    assert_eq!(ends(store, &second).await, (place(3), place(3)), "it was written to since");
}

pub async fn many_records_are_trimmed_in_bounded_steps(world: &World) {
    let (store, bucket) = (&world.store, chain_bucket("many"));
    for first in 0..12 {
        append(store, &batch("many", 1 + first * 100, 100)).await;
    }
    let mut removed = 0;
    for step in 1.. {
        let (some, more) = store.trim_records(bucket, u64::MAX, 100).await.expect("trimmed");
        removed += some;
        let expected = place(removed).filter(|_| more);
        let (head, anchor) = ends(store, "many").await;
        assert_eq!((head, anchor), (place(1200).filter(|_| more), expected), "after {removed}");
        if !more {
            assert!(step > 1, "it was one step");
            break;
        }
    }
    assert_eq!((removed, count(store, bucket).await), (1200, 0));
    // Large ones are fewer a step.
    let mut large = batch("many", 1, 20);
    large.records.iter_mut().for_each(|record| record.text = "x".repeat(200_000));
    append(store, &large).await;
    let (mut removed, mut more) = (0, true);
    while more {
        let step = store.trim_records(bucket, 0, 0).await.expect("trimmed");
        assert!(step.0 > 0, "each step removes something");
        (removed, more) = (removed + step.0, step.1);
    }
    assert_eq!(removed, 20);
}

pub async fn trimming_at_once_removes_each_record_once(world: &World) {
    let (users, bucket, second) = ([world.user().await, world.user().await], chain_bucket("both"), beside("both"));
    for first in 0..10 {
        append(&world.store, &batch("both", 1 + first * 50, 50)).await;
        append(&world.store, &batch(&second, 1 + first * 50, 50)).await;
    }
    let trims = (0..4_usize).map(|n| {
        let store = users[n % 2].clone();
        tokio::spawn(async move {
            let (mut removed, mut more) = (0, true);
            while more {
                let step = store.trim_records(bucket, 0, 70).await.expect("trimmed");
                (removed, more) = (removed + step.0, step.1);
            }
            removed
        })
    });
    let removed: u64 = join_all(trims).await.into_iter().map(|removed| removed.expect("no panic")).sum();
    assert_eq!((removed, count(&world.store, bucket).await), (930, 70));
    assert_eq!(ends(&world.store, "both").await, (place(500), place(480)));
    assert_eq!(ends(&world.store, &second).await, (place(500), place(450)));
}

pub async fn counters_and_times_are_those_of_all_buckets(world: &World) {
    let store = &world.store;
    let (mut sum, mut buckets) = (0, BTreeSet::new());
    for n in 1..=30_u32 {
        let chain = format!("chain-{n}");
        let times = BTreeMap::from([("last".to_owned(), 1000 - u64::from(n))]);
        append(store, &ChainBatch { counts: counted("all", n.into()), times, ..batch(&chain, 1, 1) }).await;
        sum += i64::from(n);
        buckets.insert(chain_bucket(&chain));
    }
    assert!(buckets.len() > 8, "they are spread");
    append(store, &ChainBatch { counts: counted("all", i64::MIN + 1000), ..batch("chain-1", 2, 1) }).await;
    let (counts, times) = world.user().await.counts().await.expect("read");
    assert_eq!(counts, counted("all", i64::MIN + 1000 + sum));
    assert_eq!(times, BTreeMap::from([("last".into(), 999)]));
}

pub async fn members_are_here_as_long_as_they_say(world: &World) {
    let (store, other) = (&world.store, world.user().await);
    let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<String>>();
    assert_eq!(store.attending().await.expect("read"), names(&[]));
    store.attend(&names(&["c", "a"]), LONG).await.expect("noted");
    store.attend(&names(&[]), LONG).await.expect("nobody");
    other.attend(&names(&["b", "a"]), LONG).await.expect("noted");
    assert_eq!(store.attending().await.expect("read"), names(&["a", "b", "c"]));
    other.unattend(&names(&["a", "nobody"])).await.expect("gone");
    other.unattend(&names(&[])).await.expect("nobody");
    assert_eq!(store.attending().await.expect("read"), names(&["b", "c"]));
    let life = Duration::from_millis(300);
    let begun = Instant::now();
    store.attend(&names(&["short"]), life).await.expect("noted");
    until("its time is over", async || !other.attending().await.expect("read").contains(&"short".to_owned())).await;
    // Both clocks count whole ms.
    assert!(begun.elapsed() + Duration::from_millis(2) >= life);
    assert_eq!(other.attending().await.expect("read"), names(&["b", "c"]));
}
