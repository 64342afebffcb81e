//! The life of tasks, and of those that wait for others.

use serde_json::{Value, json};

use super::super::orchestra::{Orchestra, Outcome};
use super::super::reading::{Named, What};
use super::{Place, ids};
use crate::engine::config::Strategy;
use crate::engine::error::Code;
use crate::engine::store::Table;

fn place() -> Place {
    let mut place = Place::of(Strategy::LeastLoaded);
    place.spawn("a", &[], 10);
    place
}

fn refused(outcome: Outcome) -> (Code, String) {
    match outcome {
        Outcome::Refuse(error) => (error.code, error.message),
        other => panic!("it is refused, not {other:?}"),
    }
}

#[test]
fn a_task_goes_from_given_to_begun_to_done_and_says_so_to_its_readers() {
    let mut place = place();
    place.submit("t", json!({ "data": { "x": [1] }, "priority": 3 }));
    place.now_ms += 5;
    place.go_on();
    assert_eq!((place.stored("t")["status"].as_str(), &place.stored("t")["agentId"]), (Some("assigned"), &json!("a")));
    assert_eq!(place.told("task.assigned")[0]["data"], json!({ "x": [1] }));
    assert_eq!((place.said[0].target.as_deref(), place.posted("a", "assign")), (Some("a"), 1));
    place.now_ms += 5;
    place.start("t", "a");
    place.go_on();
    assert_eq!(place.stored("t")["status"], "running");
    place.now_ms += 90;
    let of = place.named("t", "a");
    let result = serde_json::value::RawValue::from_string("[42]".to_owned()).ok();
    place.hear(What::TaskCompleted { of, result, duration_ms: None });
    place.go_on();
    let stored = place.stored("t");
    let at = |key: &str| stored[key].as_u64().unwrap() - super::START_MS;
    assert_eq!([at("submittedAt"), at("assignedAt"), at("startedAt"), at("endedAt")], [0, 5, 10, 100]);
    assert_eq!((&stored["status"], &stored["result"], &stored["attempts"]), (&json!("completed"), &json!([42]), &json!(1)));
    assert!(!place.store.tables.contains_key(&(Table::Data, "t".to_owned())), "what it carried goes");
    assert_eq!(place.seen("a")["performance"]["avgCompletionTime"], json!(90.0));
}

#[test]
fn the_same_task_again_changes_nothing_whatever_became_of_it() {
    let mut place = place();
    place.submit("t", json!({}));
    place.submit("t", json!({ "priority": 9, "data": 1 }));
    place.go_on();
    place.submit("t", json!({}));
    place.go_on();
    assert_eq!((place.told("task.assigned").len(), place.orchestra.holder("t")), (1, Some("a")));
    place.complete("t", "a");
    place.submit("t", json!({}));
    place.go_on();
    assert_eq!((place.told("task.assigned").len(), place.orchestra.holder("t")), (1, Some("a")), "who did it");
}

#[test]
fn what_is_said_of_a_task_by_others_or_of_an_attempt_before_is_fenced_off() {
    let mut place = place();
    place.spawn("b", &[], 10);
    place.submit("t", json!({ "maxAttempts": 10 }));
    place.go_on();
    let first = place.must_hold("t");
    let other = if first == "a" { "b" } else { "a" };
    let named = |agent: &str, attempt| Named { task: "t".to_owned(), agent: agent.to_owned(), attempt };
    let complete = |place: &mut Place, of| {
        place.hear(What::TaskCompleted { of, result: None, duration_ms: None });
        place.go_on();
    };
    complete(&mut place, named(other, Some(1)));
    complete(&mut place, named(&first, Some(2)));
    place.hear(What::TaskFailed { of: named(other, None), error: "boom".to_owned(), permanent: true, handed_back: false });
    place.hear(What::TaskStarted(named(other, None)));
    assert_eq!((place.status("t"), place.holder("t")), (Some("assigned"), Some(first.clone())));
    place.fail("t", &first);
    place.go_on();
    complete(&mut place, named(&first, Some(1)));
    assert_eq!((place.must_hold("t").as_str(), place.orchestra.totals.stale), (other, 5));
    complete(&mut place, named(other, Some(2)));
    complete(&mut place, named(other, Some(2)));
    assert_eq!((place.status("t"), place.orchestra.totals.completed), (Some("completed"), 1), "once");
}

#[test]
fn a_task_whose_attempts_are_used_up_is_a_dead_letter_and_can_be_redriven() {
    let mut place = place();
    place.submit("t", json!({ "maxAttempts": 2, "data": { "x": 1 } }));
    for _ in 0..2 {
        assert!(place.told("task.failed").is_empty());
        place.go_on();
        place.fail("t", "a");
    }
    place.go_on();
    let told = place.told("task.failed");
    assert_eq!((told.len(), &told[0]["reason"], &told[0]["attempts"]), (1, &json!("max-attempts"), &json!(2)));
    assert_eq!((&told[0]["error"], &told[0]["final"], &told[0]["task"]["data"]), (&json!("boom"), &json!(true), &json!({ "x": 1 })));
    let letter = place.given_up("t");
    assert!(matches!(place.hear_own(letter, false), Outcome::Dead { is_permanent: false, .. }));
    place.go_on();
    // The same delivery once more, as after a crash: it is the same dead letter.
    place.take_over();
    let letter = place.given_up("t");
    assert!(matches!(place.hear_own(letter, false), Outcome::Dead { .. }));
    assert_eq!(place.status("t"), Some("failed"));
    // Redriven it begins anew, with what it carried.
    let letter = place.given_up("t");
    assert!(matches!(place.hear_own(letter, true), Outcome::Done));
    place.go_on();
    let task = &place.orchestra.tasks["t"];
    assert_eq!((task.attempts, task.given, task.data.get()), (0, 3, r#"{"x":1}"#));
    assert_eq!(place.told("task.assigned").len(), 3);
    place.complete("t", "a");
    let letter = place.given_up("t");
    assert!(matches!(place.hear_own(letter, true), Outcome::Done), "it is done since");
    assert_eq!(place.status("t"), Some("completed"));
}

#[test]
fn what_can_never_be_done_is_given_up_at_once_and_what_is_handed_back_is_no_attempt() {
    let mut place = place();
    place.submit("t", json!({ "maxAttempts": 2 }));
    for _ in 0..5 {
        place.go_on();
        let of = place.named("t", "a");
        place.hear(What::TaskFailed { of, error: "busy".to_owned(), permanent: false, handed_back: true });
    }
    place.go_on();
    assert_eq!((place.status("t"), place.orchestra.tasks["t"].attempts), (Some("assigned"), 0));
    let of = place.named("t", "a");
    place.hear(What::TaskFailed { of, error: "no such file".to_owned(), permanent: true, handed_back: false });
    place.go_on();
    assert_eq!((place.status("t"), &place.told("task.failed")[0]["reason"]), (Some("failed"), &json!("permanent")));
}

#[test]
fn a_task_that_takes_longer_than_it_may_is_taken_away() {
    let mut place = place();
    place.submit("t", json!({ "timeoutMs": 1_000, "maxAttempts": 2 }));
    place.go_on();
    place.start("t", "a");
    place.wait(2_900);
    assert_eq!(place.orchestra.tasks["t"].given, 1, "the agent may say it itself");
    place.take_over();
    place.wait(200);
    assert_eq!((place.orchestra.tasks["t"].given, place.posted("a", "cancel")), (2, 1));
    assert!(place.stored("t")["error"].is_string() || place.orchestra.tasks["t"].error.is_some());
    place.wait(3_100);
    assert_eq!((place.status("t"), place.told("task.failed").len()), (Some("failed"), 1));
    assert!(place.told("task.failed")[0]["error"].as_str().unwrap().contains("timeoutMs"));
    assert_eq!(place.seen("a")["runningTasks"], json!([]));
    assert!(place.orchestra.deadlines.is_empty());
}

#[test]
fn a_task_that_is_cancelled_is_over_wherever_it_was() {
    let mut place = place();
    place.submit("running", json!({}));
    place.go_on();
    place.submit("queued", json!({ "requiredCapabilities": ["none"] }));
    place.submit("waiting", json!({ "dependencies": ["nothing"] }));
    for task in ["running", "queued", "waiting"] {
        let cancel = |place: &mut Place| match place.hear(What::Cancel(Ok((task.to_owned(), "not needed".to_owned())))) {
            Outcome::Reply(value) => value,
            other => panic!("{other:?}"),
        };
        assert_eq!(cancel(&mut place), json!({ "ok": true }));
        assert_eq!(cancel(&mut place), json!({ "ok": false }));
    }
    place.go_on();
    assert_eq!((place.told("task.cancelled").len(), place.posted("a", "cancel")), (3, 1));
    assert!(place.orchestra.tasks.is_empty() && place.orchestra.dependents.is_empty());
    assert_eq!((place.orchestra.queue.len(), place.has("a").len()), (0, 0));
}

#[test]
fn a_task_waits_for_all_that_it_depends_on_known_or_not() {
    let mut place = place();
    place.submit("last", json!({ "dependencies": ["one", "two", "one"] }));
    place.submit("one", json!({}));
    place.go_on();
    place.complete("one", "a");
    place.go_on();
    assert_eq!(place.status("last"), Some("waiting"));
    place.take_over();
    place.submit("two", json!({}));
    place.go_on();
    place.complete("two", "a");
    place.go_on();
    assert_eq!(place.status("last"), Some("assigned"));
    place.submit("after", json!({ "dependencies": ["one", "two"] }));
    place.go_on();
    assert_eq!(place.status("after"), Some("assigned"), "they are done");
}

#[test]
fn what_depends_on_something_that_fails_or_is_cancelled_ends_with_it() {
    let mut place = place();
    place.submit("bad", json!({ "maxAttempts": 1 }));
    place.submit("unwanted", json!({}));
    for (id, on) in [("of bad", "bad"), ("of that", "of bad"), ("of unwanted", "unwanted")] {
        place.submit(id, json!({ "dependencies": [on] }));
    }
    place.go_on();
    place.fail("bad", "a");
    place.hear(What::TaskCancelled { task: "unwanted".to_owned(), reason: "over".to_owned() });
    place.go_on();
    let status = ["bad", "of bad", "of that", "of unwanted"].map(|task| place.status(task).unwrap());
    assert_eq!(status, ["failed", "failed", "failed", "cancelled"]);
    assert!(place.stored("of that")["error"].as_str().unwrap().contains("'of bad'"));
    place.submit("late", json!({ "dependencies": ["bad"] }));
    assert_eq!(place.status("late"), Some("failed"));
    let reasons: Vec<Value> = place.told("task.failed").iter().map(|data| data["reason"].clone()).collect();
    assert_eq!(reasons, ["max-attempts", "permanent", "permanent"]);
}

/// A task that failed with what it depended on is given again: it counts once for each that it waits for.
#[test]
fn a_task_that_begins_anew_waits_for_all_once_more() {
    let mut place = place();
    place.submit("bad", json!({ "maxAttempts": 1 }));
    place.submit("long", json!({}));
    place.submit("t", json!({ "dependencies": ["bad", "long"] }));
    place.go_on();
    place.fail("bad", "a");
    place.go_on();
    for task in ["bad", "t"] {
        let letter = place.given_up(task);
        assert!(matches!(place.hear_own(letter, false), Outcome::Dead { .. }));
    }
    for task in ["bad", "t"] {
        let letter = place.given_up(task);
        assert!(matches!(place.hear_own(letter, true), Outcome::Done));
    }
    place.go_on();
    assert_eq!((place.status("bad"), place.status("t")), (Some("assigned"), Some("waiting")));
    place.complete("long", "a");
    place.go_on();
    assert_eq!(place.status("t"), Some("waiting"), "'bad' is not done");
    place.complete("bad", "a");
    place.go_on();
    assert_eq!(place.status("t"), Some("assigned"));
}

#[test]
fn a_long_chain_that_fails_at_its_beginning_fails_to_its_end() {
    const LENGTH: usize = 20_000;
    let run = || {
        let mut place = place();
        let all = ids("t", LENGTH);
        // The last ones first: each waits for one that is not known yet.
        for n in (0..LENGTH).rev() {
            let with = if n == 0 { json!({ "maxAttempts": 1 }) } else { json!({ "dependencies": [all[n - 1]] }) };
            place.submit(&all[n], with);
        }
        place.orchestra.give_out(place.now_ms, &mut || 0.5);
        place.fail("t0", "a");
        assert!(place.orchestra.tasks.is_empty() && place.orchestra.dependents.is_empty() && place.orchestra.to_look_at.is_empty());
        assert_eq!((place.orchestra.ended.len(), place.orchestra.totals.given_up), (LENGTH, LENGTH as u64));
        let write = place.orchestra.take_write(true, place.now_ms).unwrap();
        place.store.apply(&write);
        assert_eq!(place.store.texts(Table::Tasks).count(), LENGTH);
        // Whoever leads next finds half of the chain undone.
        let undone: Vec<String> = all[1..].to_vec();
        for (id, n) in undone.iter().zip(1..) {
            let mut text = place.stored(id);
            (text["status"], text["endedAt"], text["dependencies"]) = (json!("waiting"), Value::Null, json!([all[n - 1]]));
            place.store.tables.insert((Table::Tasks, id.clone()), text.to_string());
        }
        let orchestra = Orchestra::new(place.rules.clone(), place.store.found(), place.now_ms);
        assert!(orchestra.tasks.is_empty());
        assert_eq!(orchestra.ended.len(), LENGTH);
    };
    // A stack on which a call for each would not fit.
    std::thread::Builder::new().stack_size(1 << 20).spawn(run).unwrap().join().unwrap();
}

#[test]
fn what_leads_back_to_itself_is_refused_with_the_way() {
    let mut place = place();
    let (code, problem) = refused(place.try_submit("self", json!({ "dependencies": ["self"] })));
    assert!(code == Code::InvalidArgument && problem.contains("self → self"), "{problem}");
    place.submit("a", json!({ "dependencies": ["b"] }));
    place.submit("b", json!({ "dependencies": ["x", "c"] }));
    let (_, problem) = refused(place.try_submit("c", json!({ "dependencies": ["a"] })));
    assert!(problem.contains("c → a → b → c"), "{problem}");
    assert_eq!(place.status("c"), None);
    place.submit("c", json!({}));
    place.submit("x", json!({}));
    for task in ["c", "x", "b", "a"] {
        place.go_on();
        place.complete(task, "a");
    }
    assert!(place.orchestra.tasks.is_empty());
}

#[test]
fn what_is_too_large_or_wrong_is_refused() {
    let mut place = place();
    let (code, _) = refused(place.try_submit("t", json!({ "data": "x".repeat(2 << 20) })));
    assert_eq!(code, Code::PayloadTooLarge);
    let (code, problem) = refused(place.try_submit("t", json!({ "priority": "high" })));
    assert!(code == Code::InvalidArgument && problem.contains("priority"), "{problem}");
    assert_eq!(place.orchestra.bytes, 0);
}

#[test]
fn tasks_that_are_over_are_known_for_an_hour() {
    let mut place = place();
    place.submit("t", json!({ "data": 1, "maxAttempts": 1 }));
    place.submit("u", json!({}));
    place.go_on();
    place.fail("t", "a");
    place.complete("u", "a");
    place.wait(3_590_000);
    assert_eq!((place.status("t"), place.store.texts(Table::Tasks).count()), (Some("failed"), 2));
    place.wait(20_000);
    assert!(place.status("t").is_none() && place.orchestra.ended.is_empty() && place.orchestra.ended_order.is_empty());
    assert_eq!((place.store.texts(Table::Tasks).count(), place.store.texts(Table::Data).count()), (0, 0));
}

#[test]
fn one_that_began_anew_is_not_forgotten_by_the_time_of_its_first_end() {
    let mut place = place();
    place.submit("t", json!({ "maxAttempts": 1 }));
    place.go_on();
    place.fail("t", "a");
    place.go_on();
    for redriven in [false, true] {
        let letter = place.given_up("t");
        place.hear_own(letter, redriven);
    }
    place.go_on();
    place.wait(3_000_000);
    place.complete("t", "a");
    place.wait(1_000_000);
    assert_eq!((place.status("t"), place.stored("t")["status"].as_str()), (Some("completed"), Some("completed")));
}
