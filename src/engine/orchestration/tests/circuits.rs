//! Circuits of agents, with the tasks that they open and close by.

use serde_json::json;

use super::super::circuit;
use super::super::orchestra::Rules;
use super::super::reading::What;
use super::super::task::Status;
use super::{Place, ids, quiet};
use crate::engine::config::Strategy;

fn rules(strategy: Strategy) -> Rules {
    let circuit = circuit::Rules { failure_threshold: 0.5, monitoring_period_ms: 10_000, minimum_calls: 4, reset_timeout_ms: 30_000 };
    Rules { circuit, ..quiet(strategy) }
}

/// One agent whose circuit opened, and a task that waits for it.
fn opened(strategy: Strategy) -> Place {
    let mut place = Place::new(rules(strategy));
    place.spawn("a", &[], 3);
    place.submit("t", json!({ "maxAttempts": 1_000 }));
    for n in 0..4 {
        assert_eq!(place.agent("a").circuit.state().as_str(), "closed", "{n} are too few");
        place.go_on();
        place.fail("t", "a");
    }
    place.go_on();
    assert_eq!(place.seen("a")["circuit"], "open");
    place
}

/// What it has now.
fn trial(place: &Place) -> Vec<String> {
    place.orchestra.tasks.values().filter(|task| task.status.is_with_agent()).map(|task| task.id.clone()).collect()
}

#[test]
fn an_open_one_gets_nothing_then_one_task_that_decides() {
    for strategy in
        [Strategy::RoundRobin, Strategy::LeastLoaded, Strategy::CapabilityBased, Strategy::PerformanceWeighted, Strategy::Predictive]
    {
        let mut place = opened(strategy);
        assert_eq!(place.told("performance.threshold").len(), 1);
        for id in &ids("more", 5) {
            place.submit(id, json!({ "maxAttempts": 1_000 }));
        }
        place.wait(29_900);
        assert!(place.has("a").is_empty(), "{strategy:?}");
        place.wait(200);
        assert_eq!(
            (place.seen("a")["circuit"].as_str(), place.has("a").len()),
            (Some("half-open"), 1),
            "{strategy:?}: one of three places"
        );
        let first = place.has("a").remove(0);
        place.fail(&first, "a");
        place.go_on();
        assert_eq!((place.seen("a")["circuit"].as_str(), place.has("a").len()), (Some("open"), 0), "{strategy:?}");
        place.wait(30_100);
        let second = place.has("a").remove(0);
        place.complete(&second, "a");
        place.go_on();
        assert_eq!((place.seen("a")["circuit"].as_str(), place.has("a").len()), (Some("closed"), 3), "{strategy:?}");
    }
}

#[test]
fn others_get_what_an_open_one_would_have_had() {
    let mut place = opened(Strategy::LeastLoaded);
    place.spawn("b", &["more"], 10);
    for id in &ids("more", 5) {
        place.submit(id, json!({}));
    }
    place.go_on();
    assert_eq!((place.has("a").len(), place.has("b").len()), (0, 6));
}

#[test]
fn whoever_leads_next_does_not_try_it_with_one_more() {
    let mut place = opened(Strategy::LeastLoaded);
    for id in &ids("more", 5) {
        place.submit(id, json!({}));
    }
    place.now_ms += 30_000;
    place.orchestra.tick(place.now_ms);
    place.commit(true);
    // Given and written between two rounds.
    place.orchestra.give_out(place.now_ms, &mut || 0.5);
    place.commit(false);
    let given = trial(&place);
    place.take_over();
    place.go_on();
    assert_eq!((given.len(), trial(&place)), (1, given));
}

#[test]
fn a_trial_that_was_taken_back_makes_room_also_after_a_takeover() {
    let mut place = opened(Strategy::LeastLoaded);
    place.wait(30_100);
    assert_eq!(trial(&place), ["t"]);
    place.hear(What::TaskCancelled { task: "t".to_owned(), reason: "not needed".to_owned() });
    place.commit(false);
    place.take_over();
    place.submit("next", json!({}));
    place.go_on();
    assert_eq!(place.must_hold("next"), "a");
    place.complete("next", "a");
    place.go_on();
    assert_eq!(place.seen("a")["circuit"], "closed");
}

#[test]
fn an_open_circuit_stays_open_for_whoever_leads_next() {
    let mut place = opened(Strategy::LeastLoaded);
    place.wait(10_000);
    place.take_over();
    place.wait(19_900);
    assert_eq!((place.seen("a")["circuit"].as_str(), place.orchestra.tasks["t"].status), (Some("open"), Status::Queued));
    place.wait(200);
    assert_eq!(trial(&place), ["t"]);
}

#[test]
fn silence_and_spawning_anew_begin_with_a_closed_one_or_the_same() {
    let mut place = opened(Strategy::LeastLoaded);
    place.spawn("a", &[], 3);
    place.go_on();
    assert_eq!((place.seen("a")["circuit"].as_str(), place.must_hold("t")), (Some("closed"), "a".to_owned()), "another life");
}
