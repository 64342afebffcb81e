//! Sending: in order, all or nothing, once, and with an answer whatever happens.

use std::collections::BTreeMap;
use std::time::Duration;

use ossa::engine::error::{Code, Error};
use ossa::engine::store::{Body, EntryId, Store};
use serde_json::{Value, json};

use crate::desk::{contract, project, two};
use crate::support::faulty::Fault;
use crate::support::harness::{Place, TestBus, idle, ms};

/// What the streams of `b` and `c` hold, in their order.
async fn stored(bus: &TestBus, streams: &[&str]) -> Vec<Vec<Value>> {
    let mut all = Vec::new();
    for stream in streams {
        let mut data = Vec::new();
        let last = EntryId { ms: u64::MAX, seq: u64::MAX };
        for kept in
            bus.store.history(&crate::support::events::partition(stream), EntryId::default(), last, 100_000).await.unwrap_or_default()
        {
            if let Body::Event { data: text, .. } = kept.body {
                data.push(serde_json::from_slice(&text).expect("JSON"));
            }
        }
        all.push(data);
    }
    all
}

fn to(target: &str) -> Value {
    json!({ "source": "a", "target": target })
}

#[tokio::test(start_paused = true)]
async fn messages_keep_their_order_among_those_that_are_refused() {
    let place = Place::new(51);
    let (a, faults) = place.faulty_desk().await;
    let mut limited = project("l");
    limited["rateLimiting"] = json!({ "eventsPerSecond": 1, "burstLimit": 20 });
    let mut narrow = project("a");
    narrow["allowedEventTypes"] = json!(["t", "number.*"]);
    a.register_as(narrow).await;
    a.register_as(limited).await;
    for id in ["b", "c"] {
        a.register(id).await;
    }
    a.projects().register_contract(contract("1.0.0", 0)).await.expect("registered");
    // Directory and answers are slow, each in its own way: whoever overtakes shows.
    faults.at_random(51, 0.0, ms(30));
    let mut tokens = Vec::new();
    let mut expected = BTreeMap::<(&str, &str), Vec<Value>>::new();
    for n in 0..200_u32 {
        let (event_type, address, data, is_sent) = match n % 8 {
            0 | 1 => ("t", to("b"), json!(n), true),
            2 => ("t", to("c"), json!(n), true),
            3 => ("t", to("nobody"), json!(n), false),
            4 => ("forbidden", to("b"), json!(n), false),
            5 => ("number.one", to("b"), json!({ "n": n }), true),
            6 => ("number.one", to("b"), json!({ "n": "no" }), false),
            _ => ("t", json!({ "source": "l", "target": "b" }), json!(n), n / 8 < 20),
        };
        if is_sent {
            let target = if address["target"] == "c" { "c" } else { "b" };
            expected.entry((target, event_type)).or_default().push(data.clone());
        }
        tokens.push((a.post(event_type, &address, &data), is_sent));
        if n % 10 == 0 {
            idle().await;
        }
    }
    for (token, is_sent) in tokens {
        assert_eq!(a.host.result(token).await.is_ok(), is_sent);
    }
    let found = stored(&a, &["@b/t", "@c/t", "@b/number.one"]).await;
    assert_eq!(found, [("b", "t"), ("c", "t"), ("b", "number.one")].map(|key| expected[&key].clone()));
    assert_eq!(a.recorded("rate-limited").await.len(), 5);
    assert_eq!(a.recorded("denied").await.len(), 50);
    assert_eq!(a.recorded("invalid").await.len(), 25);
    assert_eq!(a.recorded("sent").await.len(), 120);
    a.verified().await;
}

#[tokio::test(start_paused = true)]
async fn a_rate_holds_over_all_processes_and_says_when_to_try_again() {
    let place = Place::new(52);
    let buses = [place.desk().await, place.desk().await];
    let mut limited = project("a");
    limited["rateLimiting"] = json!({ "eventsPerSecond": 10, "burstLimit": 5 });
    for bus in &buses {
        bus.register_as(limited.clone()).await;
    }
    buses[0].register("b").await;
    let (mut sent, mut wait) = (0, 0);
    for n in 0..20 {
        match buses[n % 2].try_send("a", json!("b"), "t", json!(n), json!({})).await {
            Ok(_) => sent += 1,
            Err(error) => {
                assert_eq!((error.code, error.retryable), (Code::RateLimited, true));
                wait = error.details["retryAfterMs"].as_u64().expect("a number");
            }
        }
    }
    assert_eq!(sent, 5);
    assert!((1..=100).contains(&wait), "{wait}");
    tokio::time::sleep(ms(wait)).await;
    buses[1].send("t", json!("x")).await;
    let stats = buses[0].projects().stats(Some("a")).await.expect("asked");
    assert_eq!((&stats["rateLimitHits"], &stats["messagesSent"]), (&json!(15), &json!(6)));
}

#[tokio::test(start_paused = true)]
async fn an_idempotency_key_is_sent_once_and_counted_once() {
    let (_place, a, b) = two(53).await;
    b.register("c").await;
    let once = json!({ "idempotencyKey": "k" });
    let first = a.send_with("t", json!(1), once.clone()).await;
    for _ in 0..3 {
        assert_eq!(a.send_with("t", json!(2), once.clone()).await, first);
    }
    assert_eq!(stored(&a, &["@b/t"]).await, [[json!(1)]]);
    let stats = a.projects().stats(Some("a")).await.expect("asked");
    assert_eq!(stats["messagesSent"], 1);
    let metrics = a.projects().metrics().expect("text");
    assert!(metrics.contains(r#"ossa_cross_project_messages_total{outcome="sent",source="a",target="b"} 1"#), "{metrics}");
    // Of several targets each has its own.
    let both = a.try_send("a", json!(["b", "c"]), "t", json!(3), once).await.expect("sent");
    assert_eq!(both, first);
    assert_eq!(stored(&a, &["@b/t", "@c/t"]).await, [[json!(1)], [json!(3)]]);
    b.read_messages("b", "t", json!({})).await;
    b.takes(&json!(1)).await;
    b.settles("t", "default").await;
    a.verified().await;
}

#[tokio::test(start_paused = true)]
async fn a_send_to_several_targets_tells_which_of_them_it_did_not_reach() {
    let place = Place::new(54);
    let a = place.desk_with(json!({ "limits": { "maxStreamLength": 2 } }), json!({})).await;
    for id in ["a", "b", "c"] {
        a.register(id).await;
    }
    // Somebody has to get those to c: they stay.
    let id = a.read_messages("c", "**", json!({})).await;
    a.bus.pause(id, true);
    for n in 0..2 {
        a.try_send("a", json!("c"), "t", json!(n), json!({})).await.expect("sent");
    }
    let error = a.try_send("a", json!(["b", "c"]), "t", json!("x"), json!({})).await.expect_err("c is full");
    assert_eq!((error.code, error.retryable), (Code::StreamFull, true), "{error}");
    let results = error.details["results"].as_array().expect("a list");
    assert_eq!((&results[0]["target"], &results[1]["target"]), (&json!("b"), &json!("c")));
    let id = results[0]["id"].as_str().expect("it reached b");
    assert_eq!(results[1]["error"]["code"], "ERR_STREAM_FULL");
    assert_eq!(a.outcomes(id).await, ["failed", "sent"]);
    assert_eq!(stored(&a, &["@b/t"]).await, [[json!("x")]]);
    // One target more or less: the error is its own.
    let error = a.try_send("a", json!("c"), "t", json!("x"), json!({})).await.expect_err("c is full");
    assert!(error.code == Code::StreamFull && !error.details.contains_key("results"), "{error}");
    a.verified().await;
}

#[tokio::test(start_paused = true)]
async fn targets_are_told_apart_before_anything_is_sent() {
    let place = Place::new(55);
    let a = place.desk().await;
    let mut some = project("a");
    some["allowedTargets"] = json!(["b", "c", "away"]);
    a.register_as(some).await;
    for id in ["b", "c", "d"] {
        a.register(id).await;
    }
    for (target, code) in [
        (json!(["b", "d"]), Code::NotPermitted),
        (json!(["b", "away"]), Code::ProjectUnknown),
        (json!([]), Code::InvalidArgument),
        (json!(7), Code::InvalidArgument),
        (json!(["b", 7]), Code::InvalidArgument),
        (json!(""), Code::ProjectUnknown),
    ] {
        let error = a.try_send("a", target.clone(), "t", json!("x"), json!({})).await.expect_err("refused");
        assert_eq!(error.code, code, "{target}: {error}");
    }
    assert_eq!(stored(&a, &["@b/t", "@c/t", "@d/t"]).await, [vec![], vec![], Vec::<Value>::new()]);
    a.try_send("a", json!("*"), "t", json!("all"), json!({})).await.expect("sent");
    a.try_send("a", json!(["c", "b", "c"]), "t", json!("each once"), json!({})).await.expect("sent");
    assert_eq!(
        stored(&a, &["@b/t", "@c/t", "@d/t"]).await,
        [vec![json!("all"), json!("each once")], vec![json!("all"), json!("each once")], vec![]]
    );
    assert_eq!(a.recorded("sent").await.len(), 4);
    a.verified().await;
}

#[tokio::test(start_paused = true)]
async fn routes_bring_messages_to_others_whom_the_source_may_reach() {
    let place = Place::new(56);
    let a = place.desk().await;
    let mut some = project("a");
    some["allowedTargets"] = json!(["b", "c"]);
    a.register_as(some).await;
    for id in ["b", "c", "d"] {
        a.register(id).await;
    }
    let route = json!({ "name": "r", "match": { "eventTypes": ["t"], "where": { "minimum": 5 } }, "targets": ["c", "d", "b"] });
    a.projects().register_route(route).await.expect("registered");
    for n in [1, 5] {
        a.send("t", json!(n)).await;
    }
    assert_eq!(stored(&a, &["@b/t", "@c/t", "@d/t"]).await, [vec![json!(1), json!(5)], vec![json!(5)], vec![]]);
    let denied = a.recorded("denied").await;
    assert_eq!((denied.len(), &denied[0]["targetProject"]), (1, &json!("d")), "{denied:?}");
    a.verified().await;
}

fn is_away(error: &Error) -> bool {
    error.retryable && error.code == Code::Connection
}

#[tokio::test(start_paused = true)]
async fn nothing_is_sent_while_it_cannot_be_told_whether_it_may_be() {
    let place = Place::new(57);
    let (a, faults) = place.faulty_desk().await;
    let other = place.desk().await;
    let mut limited = project("a");
    limited["rateLimiting"] = json!({ "eventsPerSecond": 100, "burstLimit": 100 });
    a.register_as(limited).await;
    a.register("b").await;
    a.register("c").await;
    // Its rate is not known.
    faults.next("take_places", &[Fault::NotReached]);
    let error = a.try_send("a", json!(["b", "c"]), "t", json!(1), json!({})).await.expect_err("refused");
    assert!(is_away(&error), "{error}");
    // Whether its target was registered a moment ago is not known.
    faults.be_deaf(true);
    other.register("d").await;
    faults.next("documents", &[Fault::NotReached; 3]);
    let error = a.try_send("a", json!(["b", "d"]), "t", json!(2), json!({})).await.expect_err("refused");
    assert!(is_away(&error), "{error}");
    faults.heal("documents");
    assert_eq!(stored(&a, &["@b/t", "@c/t", "@d/t"]).await, [vec![], vec![], Vec::<Value>::new()]);
    assert!(a.records().await.is_empty(), "nothing was refused");
    a.try_send("a", json!(["b", "d"]), "t", json!(3), json!({})).await.expect("sent");
    // In part.
    faults.next("append", &[Fault::NotReached]);
    let error = a.try_send("a", json!(["b", "c"]), "t", json!(4), json!({})).await.expect_err("one is not reached");
    assert!(is_away(&error), "{error}");
    let reached = error.details["results"].as_array().expect("a list").iter().filter(|result| result["id"].is_string()).count();
    let found = stored(&a, &["@b/t", "@c/t"]).await.concat().iter().filter(|data| **data == json!(4)).count();
    assert_eq!((reached, found), (1, 1));
    a.verified().await;
}

#[tokio::test(start_paused = true)]
async fn a_defect_while_a_message_is_looked_at_is_answered_and_the_next_is_sent() {
    let place = Place::new(58);
    let (a, faults) = place.faulty_desk().await;
    let mut limited = project("a");
    limited["rateLimiting"] = json!({ "eventsPerSecond": 100, "burstLimit": 100 });
    a.register_as(limited).await;
    a.register("b").await;
    faults.next("take_places", &[Fault::Panics]);
    let tokens: Vec<u32> = (0..3).map(|n| a.post("t", &to("b"), &json!(n))).collect();
    let mut failed = 0;
    for token in tokens {
        match a.host.result(token).await {
            Ok(_) => {}
            Err(error) => {
                assert_eq!(error.code, Code::Internal, "{error}");
                failed += 1;
            }
        }
    }
    assert!(failed > 0);
    a.send("t", json!("x")).await;
    faults.next("append", &[Fault::Panics]);
    let result = a.try_send("a", json!("b"), "t", json!("y"), json!({})).await;
    assert_eq!(result.expect_err("a defect").code, Code::Internal);
    a.send("t", json!("z")).await;
}

#[tokio::test(start_paused = true)]
async fn every_message_that_is_on_its_way_at_shutdown_is_answered_and_no_answer_lies() {
    for wait in [0, 1, 3] {
        let place = Place::new(59 + wait);
        let store = place.store();
        store.open().await.expect("opened");
        let (a, faults) = place.faulty_desk().await;
        a.register("a").await;
        a.register("b").await;
        faults.at_random(wait, 0.0, ms(2));
        let tokens: Vec<(u32, u32)> = (0..50).map(|n| (n, a.post("t", &to(if n % 10 == 9 { "nobody" } else { "b" }), &json!(n)))).collect();
        if wait > 0 {
            tokio::time::sleep(ms(wait)).await;
        }
        a.disconnect(Duration::from_secs(1)).await;
        let mut sent = Vec::new();
        for (n, token) in tokens {
            match a.host.result(token).await {
                Ok(_) => sent.push(json!(n)),
                Err(error) => assert!(matches!(error.code, Code::Closed | Code::ProjectUnknown | Code::Connection), "{error}"),
            }
        }
        let other = place.desk().await;
        assert_eq!(stored(&other, &["@b/t"]).await, [sent.clone()], "{wait}");
        assert_eq!(other.recorded("sent").await.len(), sent.len());
        other.verified().await;
    }
}

#[tokio::test(start_paused = true)]
async fn where_it_is_switched_off_it_says_so() {
    let place = Place::new(63);
    let off = place.bus().await;
    let error = off.try_send("a", json!("b"), "t", json!(1), json!({})).await.expect_err("off");
    assert_eq!(error.code, Code::Disabled);
    assert_eq!(off.bus.projects().map(drop).expect_err("off").code, Code::Disabled);
    let disabled = place.desk_with(json!({}), json!({ "enabled": false })).await;
    assert_eq!(disabled.bus.projects().map(drop).expect_err("off").code, Code::Disabled);
}
