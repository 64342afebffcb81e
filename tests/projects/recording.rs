//! The audit log: everything is recorded before it is done with, whatever the store does meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use ossa::engine::consume::Verdict;
use ossa::engine::error::Code;
use ossa::engine::host::Kind;
use ossa::engine::projects::audit::log::Query;
use ossa::engine::projects::audit::{Audit, Entry, Outcome};
use ossa::engine::store::{Bucket, ChainBatch, ChainRecord, EntryId, Store};
use serde_json::{Value, json};

use crate::desk::{project, two};
use crate::support::faulty::{Fault, Faulty};
use crate::support::harness::{Place, failed, idle, ms};
use crate::support::host::host;

#[tokio::test(start_paused = true)]
async fn nothing_is_acknowledged_before_its_record_is_there() {
    let (place, a, _) = two(31).await;
    let (b, faults) = place.faulty_desk().await;
    b.read_messages("b", "t", json!({ "retry": { "maxAttempts": 0 } })).await;
    let taken = a.send("t", json!("taken")).await;
    let given_up = a.send("t", json!("given up")).await;
    let calls = b.host.next_many(2).await;
    faults.next("append_records", &[Fault::NotReached; 40]);
    b.done(&calls[0]);
    b.settle(&calls[1], failed("boom"));
    for _ in 0..9 {
        tokio::time::sleep(ms(1000)).await;
        assert_eq!((b.pending_messages("t").await, b.letters().await.len()), (2, 0));
        assert_eq!((a.outcomes(&taken).await.len(), a.outcomes(&given_up).await.len()), (1, 1));
    }
    b.settles("t", "default").await;
    assert_eq!(a.outcomes(&taken).await, ["delivered", "sent"]);
    assert_eq!(a.outcomes(&given_up).await, ["failed", "sent"]);
    assert_eq!((b.letters().await.len(), b.in_flight()), (1, 0));
    assert_eq!(b.verified().await, 4);
}

#[tokio::test(start_paused = true)]
async fn replies_that_are_lost_leave_no_gap_and_nothing_twice() {
    let (place, _, _) = two(32).await;
    let (a, of_a) = place.faulty_desk().await;
    let (b, of_b) = place.faulty_desk().await;
    a.register("a").await;
    b.read_messages("b", "t", json!({})).await;
    for (faults, lost) in [(&of_a, [Fault::ReplyLost, Fault::NotReached, Fault::ReplyLost]), (&of_b, [Fault::ReplyLost; 3])] {
        faults.next("append_records", &lost);
    }
    for n in 0..6 {
        let id = a.send("t", json!(n)).await;
        b.takes(&json!(n)).await;
        b.settles("t", "default").await;
        assert_eq!(a.outcomes(&id).await, ["delivered", "sent"]);
    }
    assert_eq!(a.verified().await, 12);
    let stats = a.projects().stats(None).await.expect("asked");
    assert_eq!((&stats["messagesSent"], &stats["messagesReceived"]), (&json!(6), &json!(6)));
}

/// Everything fails now and then, and is slow.
#[tokio::test(start_paused = true)]
async fn over_a_store_that_fails_at_random_everything_ends_and_is_recorded() {
    for seed in 0..5 {
        let place = Place::new(330 + seed);
        let (a, of_a) = place.faulty_desk().await;
        let (b, of_b) = place.faulty_desk().await;
        a.register("a").await;
        b.register("b").await;
        b.read_messages("b", "t", json!({ "retry": { "initialDelay": 50, "maxAttempts": 2 } })).await;
        let fails = AtomicU64::new(seed);
        b.handle(move |_| {
            let fails = fails.fetch_add(1, Ordering::Relaxed).is_multiple_of(5);
            (ms(2), if fails { failed("boom") } else { Verdict::Done })
        });
        of_a.at_random(seed, 0.3, ms(20));
        of_b.at_random(seed + 100, 0.3, ms(20));
        let mut sent = Vec::new();
        for n in 0..60 {
            // The store may be away for a send; then it did not happen.
            if let Ok(id) = a.try_send("a", json!("b"), "t", json!(n), json!({})).await {
                sent.push(id);
            }
        }
        assert!(sent.len() > 30, "{}", sent.len());
        tokio::time::sleep(Duration::from_secs(60)).await;
        of_a.end();
        of_b.end();
        tokio::time::sleep(Duration::from_secs(60)).await;
        b.settles("t", "default").await;
        for id in &sent {
            let outcomes = a.outcomes(id).await;
            let ended = outcomes.iter().filter(|outcome| *outcome != "sent").count();
            assert!(outcomes.iter().filter(|outcome| *outcome == "sent").count() == 1 && ended >= 1, "seed {seed}, {id}: {outcomes:?}");
        }
        assert!(b.recorded("replayed").await.is_empty() && b.recorded("forged").await.is_empty(), "seed {seed}");
        b.verified().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_process_that_dies_between_record_and_acknowledgement_leaves_a_record_too_many_at_most() {
    let (place, a, _) = two(34).await;
    let (b, faults) = place.faulty_desk().await;
    b.read_messages("b", "t", json!({})).await;
    let id = a.send("t", json!("x")).await;
    let delivery = b.host.next().await;
    faults.next("settle", &[Fault::NotReached; 1000]);
    faults.renew(false);
    b.done(&delivery);
    idle().await;
    assert_eq!(a.outcomes(&id).await, ["delivered", "sent"], "recorded, and not acknowledged");
    let other = place.desk().await;
    other.read_messages("b", "t", json!({})).await;
    other.takes(&json!("x")).await;
    other.settles("t", "default").await;
    assert_eq!(a.outcomes(&id).await, ["delivered", "delivered", "sent"]);
    a.verified().await;
}

#[tokio::test(start_paused = true)]
async fn a_log_that_refuses_for_good_holds_up_nothing_and_is_told_once() {
    let (place, _, _) = two(35).await;
    let (a, of_a) = place.faulty_desk().await;
    let (b, of_b) = place.faulty_desk().await;
    a.register("a").await;
    b.read_messages("b", "t", json!({})).await;
    for faults in [&of_a, &of_b] {
        faults.next("append_records", &[Fault::Refused; 1000]);
    }
    for n in 0..5 {
        a.send("t", json!(n)).await;
        b.takes(&json!(n)).await;
    }
    b.settles("t", "default").await;
    assert_eq!((a.logged("audit records could not be written"), b.logged("audit records could not be written")), (1, 1));
    for faults in [&of_a, &of_b] {
        faults.heal("append_records");
    }
    let id = a.send("t", json!("x")).await;
    b.takes(&json!("x")).await;
    b.settles("t", "default").await;
    assert_eq!(a.outcomes(&id).await, ["delivered", "sent"], "it goes on by itself");
    assert_eq!(a.verified().await, 2);
}

#[tokio::test(start_paused = true)]
async fn sends_do_not_wait_for_a_record_longer_than_for_a_command() {
    let (place, _, b) = two(36).await;
    let (a, faults) = place.faulty_desk().await;
    a.register("a").await;
    faults.next("append_records", &[Fault::NotReached; 100]);
    let start = tokio::time::Instant::now();
    let id = a.send("t", json!("x")).await;
    assert!((4_900..5_500).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
    assert!(b.outcomes(&id).await.is_empty());
    let error = a.try_send("a", json!("nobody"), "t", json!(1), json!({})).await.expect_err("refused");
    assert_eq!(error.code, Code::ProjectUnknown);
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(b.outcomes(&id).await, ["sent"], "it comes when it can");
    assert_eq!(b.recorded("denied").await.len(), 1);
    b.verified().await;
}

const LAST: EntryId = EntryId { ms: u64::MAX, seq: u64::MAX };

/// How many records each bucket has.
async fn stored(store: &Arc<dyn Store>) -> Vec<usize> {
    let mut counts = Vec::new();
    for bucket in Bucket::all() {
        counts.push(store.records(bucket, EntryId::default(), LAST, 1_000_000).await.expect("read").len());
    }
    counts
}

#[tokio::test(start_paused = true)]
async fn records_go_when_their_time_is_over_and_the_rest_is_verified() {
    let place = Place::new(37);
    let a = place.desk_with(json!({}), json!({ "audit": { "retention": 300 } })).await;
    a.register("a").await;
    a.register("b").await;
    let mut checked = Vec::new();
    for n in 0..30 {
        a.send("t", json!(n)).await;
        tokio::time::sleep(ms(20_000)).await;
        checked.push(a.verified().await);
    }
    assert!(checked[10] == 11 && (14..=18).contains(&checked[29]), "{checked:?}");
    let chains = |records: Vec<Value>| records.iter().map(|r| r["chain"].to_string()).collect::<std::collections::BTreeSet<_>>().len();
    assert_eq!(chains(a.records().await), 1);
    // After a silence of which nothing is left, another chain begins.
    tokio::time::sleep(Duration::from_secs(160)).await;
    a.send("t", json!("x")).await;
    assert_eq!(chains(a.records().await), 2);
    a.verified().await;
    tokio::time::sleep(Duration::from_secs(1000)).await;
    assert_eq!(a.verified().await, 0);
    a.send("t", json!("y")).await;
    assert_eq!(a.verified().await, 1);
    assert_eq!(a.records().await[0]["sequence"], 1);
}

#[tokio::test(start_paused = true)]
async fn as_many_records_are_kept_as_may_be_and_the_rest_is_verified() {
    let place = Place::new(38);
    let buses = [place.desk().await, place.desk().await, place.desk_with(json!({}), json!({ "audit": { "maxRecords": 60 } })).await];
    for bus in &buses {
        bus.register("a").await;
    }
    buses[0].register("b").await;
    for n in 0..40 {
        for bus in &buses {
            bus.send("t", json!(n)).await;
        }
        if n % 10 == 0 {
            tokio::time::sleep(Duration::from_secs(40)).await;
            buses[0].verified().await;
        }
    }
    tokio::time::sleep(Duration::from_secs(40)).await;
    let counts = stored(&buses[0].store).await;
    // Whichever buckets they are in: the last ones of all, but for what is rounded.
    assert!((55..=60).contains(&counts.iter().sum::<usize>()), "{counts:?}");
    assert!(buses[0].verified().await > 0);
}

#[tokio::test(start_paused = true)]
async fn a_chain_whose_end_the_store_lost_is_not_the_end_of_the_log() {
    let (_place, a, b) = two(39).await;
    for n in 0..3 {
        a.send("t", json!(n)).await;
    }
    let chain = a.records().await[0]["chain"].as_str().expect("text").to_owned();
    // As if two records more had been there before a failover: what the store has does not follow.
    let lost = ChainBatch {
        chain: chain.clone(),
        first: 4,
        records: vec![ChainRecord { text: "{}".into(), hash: "h".into(), signature: None }],
        ..ChainBatch::default()
    };
    a.store.append_records(&lost).await.expect("appended");
    let id = a.send("t", json!("x")).await;
    b.read_messages("b", "t", json!({})).await;
    for n in [json!(0), json!(1), json!(2), json!("x")] {
        b.takes(&n).await;
    }
    assert_eq!(a.outcomes(&id).await, ["delivered", "sent"]);
    assert!(a.recorded("sent").await.iter().any(|record| record["messageId"] == id && record["chain"] != chain && record["sequence"] == 1));
    assert_eq!(a.logged("audit records could not be written"), 0);
}

fn entry(n: usize) -> Entry {
    Entry {
        source: "a".into(),
        target: "b".into(),
        event_type: "t".into(),
        message_id: Some(n.to_string()),
        outcome: Outcome::Sent,
        reason: None,
        latency_us: None,
        signer: None,
        again: false,
    }
}

#[tokio::test(start_paused = true)]
async fn more_records_than_can_wait_are_refused_and_that_is_said_once() {
    let place = Place::new(40);
    let (store, faults) = Faulty::over(place.store());
    store.open().await.expect("opened");
    let host = host();
    let audit = Arc::new(Audit::start(&place.env(), store.clone(), host.clone(), 1_000_000));
    faults.hang(true);
    let waits = Arc::new(AtomicBool::new(true));
    let (log, waiting) = (audit.clone(), waits.clone());
    let first = tokio::spawn(async move {
        let result = log.record((0..100_000).map(entry).collect()).await;
        waiting.store(false, Ordering::Release);
        result
    });
    idle().await;
    for _ in 0..3 {
        let error = audit.record(vec![entry(0)]).await.expect_err("too many wait");
        assert_eq!((error.code, error.retryable), (Code::Backpressure, true));
    }
    assert!(audit.record(Vec::new()).await.is_ok());
    assert!(waits.load(Ordering::Acquire));
    assert_eq!(host.said(Kind::Log).len(), 1);
    faults.hang(false);
    first.await.expect("no panic").expect("recorded");
    audit.record(vec![entry(1)]).await.expect("there is room again");
    assert_eq!(stored(&store).await.iter().sum::<usize>(), 100_001);
}

#[tokio::test(start_paused = true)]
async fn records_are_found_by_project_outcome_and_time_in_pages_of_any_size() {
    let place = Place::new(41);
    let buses = [place.desk().await, place.desk().await, place.desk().await];
    for bus in &buses {
        bus.register("a").await;
    }
    buses[0].register("b").await;
    buses[0].register("c").await;
    let begin = place.env().now_ms();
    for n in 0..20 {
        for (i, bus) in buses.iter().enumerate() {
            // Many of one time, in different buckets.
            bus.try_send("a", json!(if i == 2 { "c" } else { "b" }), "t", json!(n), json!({})).await.expect("sent");
        }
        buses[n % 3].try_send("a", json!("nobody"), "t", json!(n), json!({})).await.expect_err("refused");
        tokio::time::sleep(ms(10)).await;
    }
    let all = buses[0].records().await;
    assert_eq!(all.len(), 80);
    let query = |project: Option<&str>, outcome, from_ms, to_ms| Query { project: project.map(str::to_owned), outcome, from_ms, to_ms };
    for (query, expected) in [
        (query(None, None, None, None), 80),
        (query(Some("a"), None, None, None), 80),
        (query(Some("b"), None, None, None), 40),
        (query(Some("c"), Some(Outcome::Sent), None, None), 20),
        (query(None, Some(Outcome::Denied), None, None), 20),
        (query(Some("nobody"), None, None, None), 20),
        (query(Some("x"), None, None, None), 0),
        (query(None, None, Some(begin + 100), None), all.iter().filter(|r| r["at"].as_u64() >= Some(begin + 100)).count()),
        (query(None, None, None, Some(begin + 99)), all.iter().filter(|r| r["at"].as_u64() < Some(begin + 100)).count()),
        (query(None, None, Some(begin + 1_000_000), None), 0),
    ] {
        for limit in [1, 3, 7, 1000] {
            let (mut ids, mut times, mut cursor) = (std::collections::BTreeSet::new(), Vec::new(), None::<String>);
            loop {
                let page = buses[1].projects().audit_log(&query, limit, cursor.as_deref()).await.expect("read");
                let items = page["items"].as_array().expect("a list");
                assert!(items.len() <= limit);
                for item in items {
                    assert!(ids.insert(item["id"].to_string()), "twice: {item}");
                    times.push(item["at"].as_u64());
                }
                cursor = page["cursor"].as_str().map(str::to_owned);
                if cursor.is_none() {
                    break;
                }
            }
            assert_eq!(ids.len(), expected, "{query:?} by {limit}");
            assert!(times.is_sorted(), "{query:?}");
        }
    }
    for cursor in ["", "x", "1-0", "1-0.", "1-0.x", "1-0.300", "-.1"] {
        let error = buses[0].projects().audit_log(&Query::default(), 5, Some(cursor)).await.expect_err("no cursor");
        assert_eq!((error.code, &error.details["argument"]), (Code::InvalidArgument, &json!("query.cursor")), "{cursor}");
    }
    assert!(project("a")["credentials"]["secret"].as_str().is_some_and(|secret| !json!(all).to_string().contains(secret)));
}
