//! Publishing to Redis over faults: every event whose publish was answered with success is in its stream exactly once
//! and in the order of the calls, a failed one at most once, an aborted one not at all.

mod support;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ossa::engine::env::Env;
use ossa::engine::error::{Code, Result};
use ossa::engine::store::redis::{RedisStore, RedisStoreConfig};
use ossa::engine::store::{Appended, EntryId, Idempotency, NewEvent, Partition, ReadError, ReadFrom, StartFrom, Store};

use support::events::{event, event_ids, reader, spec, take};
use support::proxy::{Cut, Proxy, Way};
use support::redis_store::{config, config_at};
use support::server::{DURABLE, Server, programs};
use support::wait::until;

/// Places of a cut, spread over what one round sends.
const CUTS: u64 = 60;
/// Reads what was written; its streams have it from the beginning.
const GROUP: &str = "all";

/// One publish and what was answered.
struct Published {
    at: Partition,
    id: String,
    result: Result<Appended>,
}

async fn open(config: RedisStoreConfig) -> Arc<dyn Store> {
    let store = RedisStore::new(config, Env::system()).expect("the configuration is right");
    store.open().await.expect("the server answers");
    store
}

/// Small transactions, so that several are in flight.
fn in_small_batches(port: u16) -> RedisStoreConfig {
    RedisStoreConfig { pipeline_size: 16, ..config_at(port) }
}

/// Three partitions, two of them in one bucket.
async fn partitions(direct: &Arc<dyn Store>, name: &str) -> [Partition; 3] {
    let first = Partition::new(name, 0);
    let others = || (0..).map(|n| Partition::new(format!("{name}.{n}"), 0));
    let beside = others().find(|at| at.bucket() == first.bucket()).expect("types are without end");
    let elsewhere = others().find(|at| at.bucket() != first.bucket()).expect("types are without end");
    let all = [first, beside, elsewhere];
    for at in &all {
        direct.open_partition(at).await.expect("opened");
        direct.join(&spec(GROUP, &at.event_type), StartFrom::Beginning, "reader").await.expect("joined");
    }
    all
}

fn keyed(at: &Partition, id: &str, key: &str, window_ms: u64) -> NewEvent {
    NewEvent { idempotency: Some(Idempotency { key: key.into(), window_ms }), ..event(at, id) }
}

/// The events of a round: plain ones, keyed ones, and second ones with a key.
fn events(parts: &[Partition], count: usize) -> Vec<NewEvent> {
    let one = |n: usize| {
        let at = &parts[n % parts.len()];
        let id = format!("e-{n}");
        match n % 10 {
            3 => keyed(at, &id, &format!("k-{n}"), 60_000),
            // So short that it is over before a lost reply is made up for.
            5 => keyed(at, &id, &format!("k-{n}"), 1),
            9 if n > 36 => keyed(at, &id, &format!("k-{}", n - 36), 60_000),
            _ => event(at, &id),
        }
    };
    (0..count).map(one).collect()
}

/// Appends events of one bucket in a call each or in calls of a few, and waits for all answers.
async fn publish(store: &Arc<dyn Store>, events: Vec<NewEvent>) -> Vec<Published> {
    let mut calls = Vec::new();
    for (n, event) in events.into_iter().enumerate() {
        let (at, id) = (event.partition.clone(), event.id.to_string());
        calls.push((at, id, tokio::spawn(store.append(event.partition.bucket(), vec![event]))));
        if n % 32 == 31 {
            tokio::task::yield_now().await;
        }
    }
    let mut published = Vec::new();
    for (at, id, call) in calls {
        let result = call.await.expect("no panic").remove(0);
        published.push(Published { at, id, result });
    }
    published
}

/// All ids in the stream, in order.
async fn stored(direct: &Arc<dyn Store>, at: &Partition) -> Vec<String> {
    let mut ids = Vec::new();
    loop {
        let some = take(direct, at, GROUP, "reader", 1000).await;
        if some.is_empty() {
            return ids;
        }
        ids.extend(event_ids(&some));
    }
}

/// Holds the streams against the answers.
async fn check(direct: &Arc<dyn Store>, published: &[Published], about: &str) {
    let mut by_partition: HashMap<&Partition, Vec<&Published>> = HashMap::new();
    for one in published {
        by_partition.entry(&one.at).or_default().push(one);
    }
    for (at, published) in by_partition {
        let stored = stored(direct, at).await;
        let mut counts: HashMap<&str, usize> = HashMap::new();
        for id in &stored {
            *counts.entry(id).or_default() += 1;
        }
        let mut expected = Vec::new();
        for one in published {
            let count = counts.remove(one.id.as_str()).unwrap_or(0);
            let holds = match &one.result {
                Ok(Appended::Stored) => count == 1,
                Ok(Appended::Duplicate(first)) => count == 0 && stored.contains(first),
                Err(error) if error.code == Code::Aborted => count == 0,
                Err(_) => count <= 1,
            };
            assert!(holds, "{about}: {} of {at} is there {count} times, but was answered {:?}", one.id, one.result);
            expected.extend((count == 1).then_some(one.id.clone()));
        }
        assert_eq!(counts, HashMap::new(), "{about}: {at} has what nobody published");
        let wrong = stored.iter().zip(&expected).position(|(stored, expected)| stored != expected);
        assert_eq!(wrong.map(|n| (&stored[n], &expected[n])), None, "{about}: {at} is in the order of the calls");
    }
}

fn succeeded(published: &[Published]) -> usize {
    published.iter().filter(|one| one.result.is_ok()).count()
}

/// One round through the proxy with a cut; `warm`: streams and connections are there before.
async fn round(proxy: &Proxy, direct: &Arc<dyn Store>, name: &str, cut: Option<Cut>, warm: bool) {
    proxy.arm(None);
    let parts = partitions(direct, name).await;
    let store = open(in_small_batches(proxy.port())).await;
    let mut published = Vec::new();
    if warm {
        published = publish(&store, parts.iter().map(|at| event(at, "first")).collect()).await;
    }
    proxy.arm(cut);
    published.extend(publish(&store, events(&parts, 240)).await);
    let about = format!("{name}, {cut:?}, warm: {warm}");
    assert_eq!(succeeded(&published), published.len(), "{about}: the server was there all the time");
    // What is still on its way to the server gets there, if it can.
    if let Some(late) = cut.and_then(|cut| cut.late) {
        tokio::time::sleep(late).await;
    }
    check(direct, &published, &about).await;
    store.close(Duration::from_secs(2)).await;
}

async fn cut_everywhere(way: Way, late: Option<Duration>) {
    for program in programs() {
        let server = Server::start(&program).await;
        let proxy = Proxy::start(server.port()).await;
        let direct = open(config(&server)).await;
        for warm in [true, false] {
            round(&proxy, &direct, &format!("whole.{warm}"), None, warm).await;
            let bytes = proxy.passed(way);
            let cuts = proxy.cuts();
            for n in 0..CUTS {
                let cut = Cut { way, after: 1 + bytes * n / CUTS, late };
                round(&proxy, &direct, &format!("cut.{warm}.{n}"), Some(cut), warm).await;
            }
            assert!(proxy.cuts() > cuts + usize::try_from(CUTS / 2).expect("few"), "most of the cuts hit");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_lost_while_events_are_sent() {
    cut_everywhere(Way::Up, None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_lost_while_replies_come() {
    cut_everywhere(Way::Down, None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_sent_on_a_lost_connection_does_not_take_effect_later() {
    cut_everywhere(Way::Up, Some(Duration::from_millis(60))).await;
}

/// Places of a silence, spread over what one round sends.
const SILENCES: u64 = 6;
/// Longest time for a command, and for a connection, where there is silence.
const PATIENCE: Duration = Duration::from_millis(400);

/// One round through a proxy of its own that falls silent once `after` bytes have passed, and answers how many did in all.
async fn silent_round(server: &Server, direct: &Arc<dyn Store>, name: &str, after: Option<u64>, admits_at_once: bool) -> u64 {
    let proxy = Proxy::start(server.port()).await;
    let parts = partitions(direct, name).await;
    let impatient = RedisStoreConfig { command_timeout: PATIENCE, connect_timeout: PATIENCE, ..in_small_batches(proxy.port()) };
    let store = open(impatient).await;
    let mut published = publish(&store, parts.iter().map(|at| event(at, "first")).collect()).await;
    proxy.arm(None);
    let silence = async {
        let Some(after) = after else { return };
        until("so much is sent", async || proxy.passed(Way::Up) >= after).await;
        proxy.stall();
        if admits_at_once {
            proxy.admit();
        }
    };
    let start = std::time::Instant::now();
    let (then, ()) = tokio::join!(publish(&store, events(&parts, 240)), silence);
    published.extend(then);
    let took = start.elapsed();
    assert!(took < PATIENCE * 2 + Duration::from_secs(3), "{name}: all are answered in time, not after {took:?}");
    let passed = proxy.passed(Way::Up);
    proxy.admit();
    until("events are stored again", async || {
        let id = format!("again-{}", published.len());
        published.extend(publish(&store, vec![event(&parts[0], &id)]).await);
        published.last().expect("one").result.is_ok()
    })
    .await;
    check(direct, &published, &format!("{name}, silent after {after:?}")).await;
    store.close(Duration::from_secs(2)).await;
    passed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_falls_silent_while_events_are_sent() {
    for program in programs() {
        let server = Server::start(&program).await;
        let direct = open(config(&server)).await;
        let bytes = silent_round(&server, &direct, "heard", None, true).await;
        // Side by side: most of it is waiting.
        let rounds = (0..SILENCES).flat_map(|n| [true, false].map(|at_once| (n, at_once)));
        futures_util::future::join_all(rounds.map(async |(n, at_once)| {
            let name = format!("silent.{n}.{at_once}");
            silent_round(&server, &direct, &name, Some(1 + bytes * n / SILENCES), at_once).await
        }))
        .await;
    }
}

/// Most entries of each stream while it is full.
const BOUND: u64 = 50;

/// One round of events for streams that have no place for all of them.
async fn full_round(proxy: &Proxy, direct: &Arc<dyn Store>, name: &str, cut: Option<Cut>) {
    proxy.arm(None);
    let parts = partitions(direct, name).await;
    let store = open(in_small_batches(proxy.port())).await;
    let events = |name: &str, count| {
        let bounded = |event: NewEvent| NewEvent { length_max: Some(BOUND), id: format!("{name}-{}", event.id).into(), ..event };
        let renamed = events(&parts, count).into_iter().map(bounded);
        renamed.map(|event| NewEvent { meta: support::events::event(&event.partition, &event.id).meta, ..event }).collect::<Vec<_>>()
    };
    publish(&store, events("first", 30)).await;
    proxy.arm(cut);
    let published = publish(&store, events("then", 240)).await;
    let about = format!("{name}, {cut:?}");
    for one in &published {
        let code = one.result.as_ref().err().map(|error| error.code);
        assert!(code.is_none_or(|code| code == Code::StreamFull), "{about}: {} was answered {:?}", one.id, one.result);
    }
    for at in &parts {
        let stored: Vec<String> = stored(direct, at).await.into_iter().filter(|id| id.starts_with("then")).collect();
        let of_at = || published.iter().filter(|one| one.at == *at);
        let accepted: Vec<&String> = of_at().filter(|one| matches!(one.result, Ok(Appended::Stored))).map(|one| &one.id).collect();
        assert_eq!(stored.iter().collect::<Vec<_>>(), accepted, "{about}: {at} has what was answered as stored, in order, and no other");
        let length = support::events::inspect(direct, at).await.length;
        assert_eq!(length, BOUND, "{about}: {at} is full to the last place");
    }
    store.close(Duration::from_secs(2)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_lost_while_streams_are_full() {
    for program in programs() {
        let server = Server::start(&program).await;
        let proxy = Proxy::start(server.port()).await;
        let direct = open(config(&server)).await;
        full_round(&proxy, &direct, "full", None).await;
        for way in [Way::Up, Way::Down] {
            let (bytes, cuts) = (proxy.passed(way), proxy.cuts());
            for n in 0..CUTS {
                let cut = Cut { way, after: 1 + bytes * n / CUTS, late: None };
                full_round(&proxy, &direct, &format!("full.{way:?}.{n}"), Some(cut)).await;
            }
            assert!(proxy.cuts() > cuts + usize::try_from(CUTS / 2).expect("few"), "most of the cuts hit");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_calls_keep_their_order() {
    for program in programs() {
        let server = Server::start(&program).await;
        let direct = open(config(&server)).await;
        let store = open(RedisStoreConfig { pipeline_size: 3, pool_size: 2, ..config(&server) }).await;
        let parts = partitions(&direct, "many").await;
        let published = publish(&store, events(&parts, 6000)).await;
        assert_eq!(succeeded(&published), 6000);
        check(&direct, &published, "many").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn aborted_events_are_not_there() {
    for program in programs() {
        let server = Server::start(&program).await;
        let proxy = Proxy::start(server.port()).await;
        let direct = open(config(&server)).await;
        for n in 0..20_u64 {
            proxy.arm(None);
            let parts = partitions(&direct, &format!("aborted.{n}")).await;
            let store = open(in_small_batches(proxy.port())).await;
            proxy.arm(Some(Cut { way: if n % 2 == 0 { Way::Up } else { Way::Down }, after: 4000 + 2000 * n, late: None }));
            let mut events = events(&parts, 240);
            let flags: Vec<Arc<AtomicBool>> = events.iter().map(|_| Arc::default()).collect();
            for (event, flag) in events.iter_mut().zip(&flags) {
                event.cancelled = Some(flag.clone());
            }
            let abort = tokio::spawn(async move {
                for flag in flags.iter().rev() {
                    flag.store(true, Ordering::Release);
                    tokio::task::yield_now().await;
                }
            });
            let published = publish(&store, events).await;
            abort.await.expect("no panic");
            check(&direct, &published, &format!("aborted {n}")).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_nobody_waits_for_takes_effect_and_does_not_hold_up_the_end() {
    for program in programs() {
        let server = Server::start(&program).await;
        let direct = open(config(&server)).await;
        let [at, ..] = partitions(&direct, "dropped").await;
        let store = open(config(&server)).await;
        drop(store.append(at.bucket(), vec![event(&at, "e")]));
        let start = std::time::Instant::now();
        store.close(Duration::from_secs(15)).await;
        assert!(start.elapsed() < Duration::from_secs(10));
        assert_eq!(stored(&direct, &at).await, ["e"]);
    }
}

/// Publishes in rounds until told to stop; answers all.
fn keep_publishing(store: Arc<dyn Store>, parts: [Partition; 3], stop: Arc<AtomicBool>) -> tokio::task::JoinHandle<Vec<Published>> {
    tokio::spawn(async move {
        let mut published = Vec::new();
        for round in 0.. {
            if stop.load(Ordering::Acquire) {
                break;
            }
            let mut events = events(&parts, 120);
            for event in &mut events {
                let id = format!("{round}-{}", event.id);
                *event = NewEvent { idempotency: event.idempotency.take(), ..support::events::event(&event.partition, &id) };
                if let Some(idempotency) = &mut event.idempotency {
                    idempotency.key = format!("{round}-{}", idempotency.key);
                }
            }
            published.extend(publish(&store, events).await);
        }
        published
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_killed_and_started_again() {
    for program in programs() {
        let mut server = Server::start_with(&program, DURABLE).await;
        let store = open(RedisStoreConfig { command_timeout: Duration::from_secs(20), ..in_small_batches(server.port()) }).await;
        let parts = partitions(&store, "killed").await;
        let stop = Arc::new(AtomicBool::new(false));
        let publishing = keep_publishing(store.clone(), parts, stop.clone());
        for pause_ms in [30, 55, 90, 140] {
            tokio::time::sleep(Duration::from_millis(pause_ms)).await;
            server.restart().await;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        stop.store(true, Ordering::Release);
        let published = publishing.await.expect("no panic");
        assert_eq!(succeeded(&published), published.len(), "it was back in time");
        check(&open(config(&server)).await, &published, "killed").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stands_still() {
    for program in programs() {
        for (timeout_ms, all) in [(10_000, true), (250, false)] {
            let mut server = Server::start(&program).await;
            let direct = open(config(&server)).await;
            let timeout = Duration::from_millis(timeout_ms);
            let store =
                open(RedisStoreConfig { command_timeout: timeout, connect_timeout: timeout, ..in_small_batches(server.port()) }).await;
            let parts = partitions(&direct, "stopped").await;
            let stop = Arc::new(AtomicBool::new(false));
            let publishing = keep_publishing(store.clone(), parts.clone(), stop.clone());
            for _ in 0..2 {
                tokio::time::sleep(Duration::from_millis(60)).await;
                server.pause().await;
                tokio::time::sleep(Duration::from_secs(1)).await;
                server.resume().await;
            }
            tokio::time::sleep(Duration::from_millis(600)).await;
            stop.store(true, Ordering::Release);
            let mut published = publishing.await.expect("no panic");
            assert_eq!(succeeded(&published) == published.len(), all, "{timeout:?}");
            until("it goes on by itself", async || {
                let one = publish(&store, vec![event(&parts[0], &format!("after-{}", published.len()))]).await;
                let succeeded = one[0].result.is_ok();
                published.extend(one);
                succeeded
            })
            .await;
            for error in published.iter().filter_map(|one| one.result.as_ref().err()) {
                assert_eq!((error.code, error.retryable), (Code::Connection, true));
            }
            check(&direct, &published, &format!("stopped, {timeout:?}")).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scripts_forgotten_by_the_server() {
    for program in programs() {
        let server = Server::start(&program).await;
        let direct = open(config(&server)).await;
        let store = open(in_small_batches(server.port())).await;
        let parts = partitions(&direct, "flushed").await;
        let stop = Arc::new(AtomicBool::new(false));
        let publishing = keep_publishing(store, parts, stop.clone());
        for _ in 0..100 {
            server.command(&[b"SCRIPT", b"FLUSH"]).await;
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        stop.store(true, Ordering::Release);
        let published = publishing.await.expect("no panic");
        let failed = published.iter().find_map(|one| one.result.as_ref().err());
        assert!(failed.is_none(), "{failed:?}");
        check(&direct, &published, "script flush").await;
    }
}

/// Reads on as a member of the group does, and makes it again where it is gone, until `last` of each partition came.
async fn consume(store: Arc<dyn Store>, parts: [Partition; 3], last: &str) -> HashMap<Partition, Vec<String>> {
    let from: Vec<ReadFrom> = parts.iter().map(|partition| ReadFrom::new(partition.clone())).collect();
    let mut reader = reader(&store, GROUP);
    let mut got: HashMap<Partition, Vec<String>> = HashMap::new();
    let mut seen: HashMap<Partition, EntryId> = HashMap::new();
    while !parts.iter().all(|at| got.get(at).is_some_and(|ids| ids.iter().any(|id| id == last))) {
        match reader.read("reader", &from, 100, Some(Duration::from_millis(50))).await {
            Ok(entries) => {
                for entry in entries {
                    seen.insert(entry.partition.clone(), entry.id);
                    got.entry(entry.partition.clone()).or_default().extend(event_ids(&[entry]));
                }
            }
            Err(ReadError::NotOwner) => unreachable!("the group is not an ordered one"),
            Err(ReadError::NoGroup) => {
                for at in &parts {
                    {
                        let last = seen.get(at).copied().unwrap_or_default();
                        store.restore_group(at, GROUP, last, last).await
                    }
                    .expect("restored");
                    store.join(&spec(GROUP, &at.event_type), StartFrom::Beginning, "reader").await.expect("joined");
                }
            }
            Err(ReadError::Store(error)) => panic!("{error}"),
        }
    }
    got
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_data_deleted_meanwhile() {
    for program in programs() {
        let server = Server::start(&program).await;
        let direct = open(config(&server)).await;
        let store = open(in_small_batches(server.port())).await;
        for turn in 0..5 {
            let parts = partitions(&direct, &format!("emptied.{turn}")).await;
            let reading = tokio::spawn(consume(direct.clone(), parts.clone(), "last"));
            let stop = Arc::new(AtomicBool::new(false));
            let publishing = keep_publishing(store.clone(), parts.clone(), stop.clone());
            tokio::time::sleep(Duration::from_millis(40)).await;
            server.command(&[b"FLUSHALL"]).await;
            let after = publish(&store, parts.iter().map(|at| event(at, "after")).collect()).await;
            tokio::time::sleep(Duration::from_millis(40)).await;
            stop.store(true, Ordering::Release);
            let published = publishing.await.expect("no panic");
            let last = publish(&store, parts.iter().map(|at| event(at, "last")).collect()).await;
            for some in [&published, &after, &last] {
                assert_eq!(succeeded(some), some.len());
            }
            let mut got = tokio::time::timeout(Duration::from_secs(20), reading).await.expect("the last one comes").expect("no panic");
            for at in &parts {
                let got = got.remove(at).unwrap_or_default();
                let order: HashMap<&str, usize> = published.iter().enumerate().map(|(n, one)| (one.id.as_str(), n)).collect();
                let places: Vec<usize> = got.iter().filter_map(|id| order.get(id.as_str()).copied()).collect();
                assert!(places.is_sorted_by(|a, b| a < b), "each once, in the order of the calls");
                // What came after the deletion is all there, without a gap.
                let from = got.iter().position(|id| id == "after").expect("it was published after the deletion");
                let next = got[from..].iter().find_map(|id| order.get(id.as_str()).copied());
                if let Some(next) = next {
                    let due = published[next..].iter().filter(|one| one.at == *at && matches!(one.result, Ok(Appended::Stored)));
                    let due: Vec<&str> = due.map(|one| one.id.as_str()).collect();
                    let came: Vec<&str> =
                        got[from..].iter().map(String::as_str).filter(|id| order.get(id).is_some_and(|n| *n >= next)).collect();
                    assert_eq!(came, due, "turn {turn}, {at}");
                }
                let groups = direct.inspect(at).await.expect("inspected").expect("it is there again").groups;
                assert!(groups.iter().any(|group| group.name == GROUP), "the group is there again");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_deleted_and_the_reply_that_says_so_lost() {
    for program in programs() {
        let server = Server::start(&program).await;
        let proxy = Proxy::start(server.port()).await;
        let direct = open(config(&server)).await;
        for n in 0..CUTS / 2 {
            proxy.arm(None);
            let store = open(in_small_batches(proxy.port())).await;
            let parts = partitions(&direct, &format!("gone.{n}")).await;
            let first = publish(&store, parts.iter().map(|at| event(at, "first")).collect()).await;
            assert_eq!(succeeded(&first), 3);
            server.command(&[b"FLUSHALL"]).await;
            // Others make one of the streams again before the events come.
            direct.restore_group(&parts[0], GROUP, EntryId::default(), EntryId::default()).await.expect("made");
            proxy.arm(Some(Cut { way: Way::Down, after: 1 + n * 12, late: None }));
            let published = publish(&store, events(&parts, 120)).await;
            assert_eq!(succeeded(&published), 120);
            for at in &parts {
                direct.restore_group(at, GROUP, EntryId::default(), EntryId::default()).await.expect("made");
            }
            check(&direct, &published, &format!("gone {n}")).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_memory_or_for_reading_only() {
    for program in programs() {
        let server = Server::start(&program).await;
        let direct = open(config(&server)).await;
        // Long beside what the tests do meanwhile, on a slow machine too.
        let timeout = Duration::from_secs(2);
        let store = open(RedisStoreConfig { command_timeout: timeout, ..in_small_batches(server.port()) }).await;
        let parts = partitions(&direct, "refused").await;
        let mut published = publish(&store, events(&parts, 30)).await;

        server.command(&[b"CONFIG", b"SET", b"maxmemory", b"1"]).await;
        let refused = publish(&store, parts.iter().map(|at| event(at, "oom")).collect()).await;
        server.command(&[b"CONFIG", b"SET", b"maxmemory", b"0"]).await;
        for one in &refused {
            let error = one.result.as_ref().expect_err("no memory");
            assert_eq!((error.code, error.retryable, &error.details["reply"]), (Code::Redis, true, &"OOM".into()), "{error}");
        }
        published.extend(refused);

        // A server that becomes a replica for a while: the events wait, as long as they may.
        server.command(&[b"REPLICAOF", b"127.0.0.1", b"1"]).await;
        let waits = tokio::spawn({
            let (store, parts) = (store.clone(), parts.clone());
            async move { publish(&store, parts.iter().map(|at| event(at, "waited")).collect()).await }
        });
        tokio::time::sleep(Duration::from_millis(150)).await;
        assert!(!waits.is_finished());
        server.command(&[b"REPLICAOF", b"NO", b"ONE"]).await;
        let waited = waits.await.expect("no panic");
        assert_eq!(succeeded(&waited), 3, "{:?}", waited[0].result);
        published.extend(waited);

        server.command(&[b"REPLICAOF", b"127.0.0.1", b"1"]).await;
        let start = std::time::Instant::now();
        let refused = publish(&store, parts.iter().map(|at| event(at, "read-only")).collect()).await;
        assert!(start.elapsed() >= timeout && start.elapsed() < timeout * 4, "{:?}", start.elapsed());
        for one in &refused {
            assert!(one.result.as_ref().expect_err("for reading only").retryable);
        }
        published.extend(refused);
        server.command(&[b"REPLICAOF", b"NO", b"ONE"]).await;
        until("it writes again", async || {
            let id = format!("again-{}", published.len());
            published.extend(publish(&store, vec![event(&parts[0], &id)]).await);
            published.last().expect("one").result.is_ok()
        })
        .await;
        check(&direct, &published, "refused").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_that_is_always_full_holds_up_no_other_on_its_connection() {
    for program in programs() {
        let server = Server::start(&program).await;
        // One connection to write on.
        let config =
            RedisStoreConfig { pool_size: 2, pipeline_size: 10, command_timeout: Duration::from_secs(60), ..config_at(server.port()) };
        let store = open(config).await;
        let parts = partitions(&store, "busy").await;
        let (busy, other) = (&parts[0], &parts[2]);
        let stopped = Arc::new(AtomicBool::new(false));
        // So many at once that whole batches always wait.
        let load: Vec<_> = (0..40)
            .map(|flow| {
                let (store, busy, stopped) = (store.clone(), busy.clone(), stopped.clone());
                tokio::spawn(async move {
                    let mut round = 0;
                    while !stopped.load(Ordering::Relaxed) {
                        let some = (0..10).map(|n| event(&busy, &format!("{flow}-{round}-{n}"))).collect();
                        assert!(store.append(busy.bucket(), some).await.iter().all(Result::is_ok));
                        round += 1;
                    }
                })
            })
            .collect();
        for n in 0..20 {
            let lonely = store.append(other.bucket(), vec![event(other, &format!("lonely-{n}"))]);
            let answered = tokio::time::timeout(Duration::from_secs(10), lonely).await.expect("it is sent among the others");
            assert!(answered[0].is_ok());
        }
        stopped.store(true, Ordering::Relaxed);
        for flow in load {
            flow.await.expect("no panic");
        }
    }
}
