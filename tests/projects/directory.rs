//! Who is who: what one process registers, another knows; at the latest when it matters.

use ossa::engine::error::Code;
use ossa::engine::store::Shelf;
use serde_json::json;
use tokio::time::Instant;

use crate::desk::{contract, project, project_by, secret, two};
use crate::support::faulty::Fault;
use crate::support::harness::{Place, failed, idle, ms};

#[tokio::test(start_paused = true)]
async fn news_that_were_missed_are_found_after_two_seconds() {
    let place = Place::new(71);
    let (a, faults) = place.faulty_desk().await;
    let other = place.desk().await;
    a.register("a").await;
    faults.be_deaf(true);
    other.register("b").await;
    other
        .projects()
        .register_contract(json!({
            "name": "c", "version": "1.0.0", "sourceProject": "b", "targetProjects": ["*"], "eventTypes": ["t"], "schema": true,
            "metadata": { "description": "", "author": "" },
        }))
        .await
        .expect("registered");
    assert_eq!(a.projects().contracts("b").expect_err("not known yet").code, Code::ProjectUnknown);
    tokio::time::sleep(ms(2_100)).await;
    assert_eq!(a.projects().contracts("b").expect("known").len(), 1);
    // The next news are heard at once.
    faults.be_deaf(false);
    other.register("c").await;
    idle().await;
    assert!(a.projects().contracts("c").is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_message_of_what_is_news_here_is_judged_by_the_news() {
    let (place, a, _) = two(72).await;
    let (b, faults) = place.faulty_desk().await;
    b.read_messages("b", "**", json!({})).await;
    faults.be_deaf(true);
    tokio::time::sleep(ms(50)).await;
    // A source that nobody knew, a key, a contract.
    a.register("new").await;
    a.try_send("new", json!("b"), "t", json!("source"), json!({})).await.expect("sent");
    let start = Instant::now();
    b.takes(&json!("source")).await;
    a.register_as(project_by("a", "the new secret of project a", Some(&secret("a")))).await;
    a.send("t", json!("key")).await;
    b.takes(&json!("key")).await;
    a.projects().register_contract(contract("1.0.0", 10)).await.expect("registered");
    a.send("number.one", json!({ "n": 10 })).await;
    b.takes(&json!({ "n": 10 })).await;
    a.projects().register_contract(contract("2.0.0", 5)).await.expect("registered");
    a.send("number.one", json!({ "n": 5 })).await;
    b.takes(&json!({ "n": 5 })).await;
    assert!(start.elapsed() < ms(1_900), "it did not wait for the next look: {:?}", start.elapsed());
    assert!(b.letters().await.is_empty());
}

/// What cannot be learnt is not judged: it comes again.
#[tokio::test(start_paused = true)]
async fn a_message_is_not_refused_while_its_source_cannot_be_looked_up() {
    for ordered in [false, true] {
        not_judged(ordered).await;
    }
}

async fn not_judged(ordered: bool) {
    let (place, a, _) = two(73).await;
    let (b, faults) = place.faulty_desk().await;
    b.read_messages("b", "**", json!({ "ordered": ordered, "retry": { "initialDelay": 50 } })).await;
    faults.be_deaf(true);
    tokio::time::sleep(ms(50)).await;
    a.register("new").await;
    faults.next("documents", &[Fault::NotReached; 12]);
    a.try_send("new", json!("b"), "t", json!("x"), json!({})).await.expect("sent");
    let delivery = b.takes(&json!("x")).await;
    assert_eq!(delivery.attempt, 1, "what was not judged does not count");
    // The same while it is not known whether it was seen.
    faults.next("first_sightings", &[Fault::NotReached, Fault::ReplyLost, Fault::NotReached]);
    a.send("t", json!("y")).await;
    assert_eq!(b.takes(&json!("y")).await.attempt, 1);
    // The same when it comes again, and for what waited behind it.
    for n in 0..3 {
        a.send_with("t", json!(n), json!({ "partitionKey": "k" })).await;
    }
    // Without an order all of them are there before the first one fails.
    let mut together = Vec::new();
    for _ in 0..3 * usize::from(!ordered) {
        together.push(b.host.next().await);
    }
    for n in 0..3 {
        let delivery = if ordered { b.host.next().await } else { together.remove(0) };
        assert_eq!(delivery.text.data, n.to_string());
        faults.next("first_sightings", &[Fault::NotReached, Fault::ReplyLost]);
        b.settle(&delivery, failed("boom"));
        if ordered {
            let again = b.takes(&json!(n)).await;
            assert!(again.attempt > 1);
        }
    }
    for _ in 0..3 * usize::from(!ordered) {
        let delivery = b.host.next().await;
        assert!(delivery.attempt > 1);
        b.done(&delivery);
    }
    b.settles("t", "default").await;
    assert!(b.letters().await.is_empty());
    b.verified().await;
}

#[tokio::test(start_paused = true)]
async fn documents_that_cannot_be_read_are_left_out_and_told() {
    let (_place, a, b) = two(74).await;
    let of_later = a.store.documents(Shelf::Projects, None).await.expect("read").expect("all").by_name["a"].replace(r#""v":1"#, r#""v":2"#);
    for (shelf, name, text) in [
        (Shelf::Projects, "broken", "{"),
        (Shelf::Projects, "later", of_later.as_str()),
        (Shelf::Contracts, "a/broken@1.0.0", "[]"),
        (Shelf::Routes, "broken", r#"{"name":"broken","match":{"where":{"type":"nonsense"}},"targets":["b"]}"#),
    ] {
        assert!(a.store.put_document(shelf, name, None, Some(text)).await.expect("put"));
    }
    idle().await;
    for name in ["broken: ", "later: ", "a/broken@1.0.0: "] {
        assert!(b.logged(&format!("left out: {name}")) > 0, "{name}");
    }
    b.read_messages("b", "t", json!({})).await;
    a.send("t", json!("x")).await;
    b.takes(&json!("x")).await;
    // What another version wrote is not written over.
    let error = a.projects().register(project("later")).await.expect_err("it is somebody's");
    assert!(error.retryable, "{error}");
    assert_eq!(a.try_send("later", json!("b"), "t", json!(1), json!({})).await.expect_err("unknown").code, Code::ProjectUnknown);
    tokio::time::sleep(ms(10_000)).await;
    let there = a.store.documents(Shelf::Projects, None).await.expect("read").expect("all");
    assert_eq!((there.by_name["later"].as_str(), there.by_name["broken"].as_str()), (of_later.as_str(), "{"));
}

#[tokio::test(start_paused = true)]
async fn contracts_stay_as_they_are_and_routes_are_replaced() {
    let (_place, a, b) = two(75).await;
    a.projects().register_contract(contract("1.0.0", 1)).await.expect("registered");
    a.projects().register_contract(contract("1.0.0", 1)).await.expect("the same again");
    let error = a.projects().register_contract(contract("1.0.0", 2)).await.expect_err("another");
    assert_eq!((error.code, &error.details["path"]), (Code::ContractInvalid, &json!("contract.version")));
    assert_eq!(b.projects().register_contract(contract("1.1.0", 2)).await.expect_err("not its owner").code, Code::NotPermitted);
    let route = |target: &str| json!({ "name": "r", "match": {}, "targets": [target] });
    a.register("c").await;
    a.projects().register_route(route("c")).await.expect("registered");
    b.projects().register_route(route("b")).await.expect("replaced");
    idle().await;
    let routes = a.store.documents(Shelf::Routes, None).await.expect("read").expect("all").by_name;
    assert_eq!(routes.len(), 1);
    assert!(routes["r"].contains(r#"["b"]"#));
    let error = a.projects().register_route(route("nobody")).await.expect_err("unknown");
    assert_eq!((error.code, &error.details["argument"]), (Code::ProjectUnknown, &json!("route.targets[0]")));
}

#[tokio::test(start_paused = true)]
async fn whoever_is_there_attends_and_whoever_went_does_not() {
    let (place, a, b) = two(76).await;
    let active = async || a.projects().stats(None).await.expect("asked")["activeConnections"].clone();
    assert_eq!(active().await, 2);
    let c = place.desk().await;
    c.read_messages("b", "t", json!({})).await;
    assert_eq!(active().await, 3);
    tokio::time::sleep(ms(120_000)).await;
    assert_eq!(active().await, 3);
    c.disconnect(ms(0)).await;
    assert_eq!(active().await, 2);
    assert!(b.projects().unregister("b").await.expect("unregistered"));
    assert_eq!(active().await, 1);
    assert_eq!(a.projects().stats(Some("a")).await.expect("asked")["activeConnections"], 1);
    assert_eq!(a.projects().stats(Some("nobody")).await.expect_err("unknown").code, Code::ProjectUnknown);
}

#[tokio::test(start_paused = true)]
async fn a_setup_is_looked_over() {
    let place = Place::new(77);
    let a = place.desk().await;
    let found = a.projects().validate("a").await.expect("looked");
    assert_eq!((&found["isValid"], found["errors"].as_array().map(Vec::len)), (&json!(false), Some(1)));
    let mut some = project("a");
    some["allowedTargets"] = json!(["b", "nobody"]);
    some["allowedEventTypes"] = json!(["number.*", "other"]);
    a.register_as(some).await;
    a.register("b").await;
    a.projects().register_contract(contract("1.0.0", 1)).await.expect("registered");
    let found = a.projects().validate("a").await.expect("looked");
    assert_eq!((&found["isValid"], &found["errors"]), (&json!(true), &json!([])));
    let warnings = found["warnings"].to_string();
    for text in [
        "allowedTargets names 'nobody', which is not registered",
        "no process has set up a handler for 'b'",
        "no process has set up a handler for it",
    ] {
        assert!(warnings.contains(text), "{text}: {warnings}");
    }
    let recommendations = found["recommendations"].to_string();
    assert!(recommendations.contains("contract for 'other'") && !recommendations.contains("'number.*'"), "{recommendations}");
    assert!(recommendations.contains("rateLimiting"));
    a.read_messages("b", "t", json!({})).await;
    a.read_messages("a", "t", json!({})).await;
    let found = a.projects().validate("a").await.expect("looked");
    assert!(!found["warnings"].to_string().contains("set up a handler"), "{found}");
    let other = place.desk().await;
    let found = other.projects().validate("a").await.expect("looked");
    assert!(found["warnings"].to_string().contains("this process cannot send for it"), "{found}");
    assert_eq!(a.projects().validate("no id").await.expect_err("wrong").code, Code::InvalidArgument);
}
