//! Settling over a connection that breaks: whatever was lost, the request or its reply, each entry ends once, in the way
//! that was asked for, when the settling is repeated.

use std::sync::Arc;
use std::time::Duration;

use ossa::engine::env::Env;
use ossa::engine::store::redis::{RedisStore, RedisStoreConfig};
use ossa::engine::store::{Disposal, Entry, Held, Partition, Settled, Store};

use crate::support::events::{
    acknowledge, claim, dead_letter, dead_letters, events, group_state, held, of_type, partition, prepare, publish, retry, take,
};
use crate::support::proxy::{Cut, Proxy, Way};
use crate::support::redis_store::{config, config_at};
use crate::support::server::{Server, programs};

/// Places of a cut, spread over what is sent, or answered, for one call.
const CUTS: u64 = 40;
/// So many entries are settled in each way by one call.
const EACH: usize = 2;

async fn open(config: RedisStoreConfig) -> Arc<dyn Store> {
    let store = RedisStore::new(config, Env::system()).expect("the configuration is right");
    store.open().await.expect("the server answers");
    store
}

/// What becomes of the entries of one round: the first few of them die, others are retried, the last are handed back.
fn disposals(entries: &[Entry]) -> Vec<(Held, Disposal)> {
    let disposal = |n: usize| match n / EACH {
        0 => dead_letter("no"),
        1 => retry(0),
        _ => Disposal::HandBack,
    };
    entries.iter().enumerate().map(|(n, entry)| (held(entry), disposal(n))).collect()
}

/// One call with a cut, repeated until it is answered.
async fn round(proxy: &Proxy, direct: &Arc<dyn Store>, store: &Arc<dyn Store>, at: &Partition, cut: Option<Cut>) {
    let about = format!("{at}, {cut:?}");
    prepare(direct, at, "g", "c").await;
    publish(direct, events(at, "e", 3 * EACH)).await;
    let entries = take(direct, at, "g", "c", 3 * EACH).await;
    proxy.arm(cut);
    let first = store.settle(at.bucket(), "g", "c", disposals(&entries)).await;
    // Whatever was answered: to say it once more changes nothing. `NotHeld` is the word for what was done before.
    let again = direct.settle(at.bucket(), "g", "c", disposals(&entries)).await.expect("settled");
    if let Ok(first) = &first {
        assert_eq!(again, vec![Settled::NotHeld; 3 * EACH], "{about}: {first:?}");
    }
    // Those of one kind share a script: it ran, or it did not.
    for kind in again.chunks(EACH) {
        assert!(kind.iter().all(|settled| *settled == kind[0]), "{about}: {again:?}");
    }

    let letters = dead_letters(direct, &of_type(at), 100).await;
    let dead: Vec<&str> = letters.iter().map(|letter| letter.data.trim_matches('"')).collect();
    assert_eq!(dead, ["e-0", "e-1"], "{about}: each is a dead letter once");
    assert_eq!(direct.pending(at, "g", "c").await.expect("pending"), [], "{about}: it holds none any more");
    assert_eq!(group_state(direct, at, "g").await.0, 2 * EACH as u64, "{about}: the dead are acknowledged, the others wait");
    let mut due = claim(direct, at, "g", "d", 2 * EACH).await;
    due.sort_by_key(|entry| entry.id);
    let due_for_the_nth_time: Vec<_> = due.iter().map(|entry| (entry.id, entry.deliveries)).collect();
    let expected: Vec<_> = entries[EACH..].iter().enumerate().map(|(n, entry)| (entry.id, if n < EACH { 2 } else { 1 })).collect();
    assert_eq!(due_for_the_nth_time, expected, "{about}: a retry counts once, a hand-back does not");
    acknowledge(direct, "g", "d", &due).await;
    let rest = direct.claim_due(at, "g", "d", 100).await.expect("claimed").entries;
    assert_eq!((rest, group_state(direct, at, "g").await.0), (vec![], 0), "{about}: nothing is left");
}

async fn cut_everywhere(way: Way, late: Option<Duration>) {
    for program in programs() {
        let server = Server::start(&program).await;
        let proxy = Proxy::start(server.port()).await;
        let direct = open(config(&server)).await;
        // The connection is there: what is cut is the settling alone.
        let store = open(config_at(proxy.port())).await;
        round(&proxy, &direct, &store, &partition("warm"), None).await;
        round(&proxy, &direct, &store, &partition("whole"), None).await;
        let bytes = proxy.passed(way);
        let cuts = proxy.cuts();
        for n in 0..CUTS {
            let cut = Cut { way, after: 1 + bytes * n / CUTS, late };
            round(&proxy, &direct, &store, &partition(&format!("cut.{n}")), Some(cut)).await;
        }
        assert!(proxy.cuts() > cuts + usize::try_from(CUTS / 2).expect("few"), "most of the cuts hit");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_settling_lost_on_its_way_up_ends_each_entry_once() {
    cut_everywhere(Way::Up, None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_settling_whose_answer_is_lost_ends_each_entry_once() {
    cut_everywhere(Way::Down, None).await;
}

/// What was sent on the lost connection reaches the server behind the repetition.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_settling_that_comes_late_ends_no_entry_twice() {
    cut_everywhere(Way::Up, Some(Duration::from_millis(20))).await;
}
