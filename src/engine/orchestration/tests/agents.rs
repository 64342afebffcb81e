//! Agents: coming, going, falling silent, and the pools that they are in.

use std::collections::BTreeMap;

use serde_json::json;

use super::super::orchestra::{Outcome, Rules};
use super::super::reading::{Heard, Metrics, What};
use super::super::scaling;
use super::{Place, ids, quiet};
use crate::engine::config::Strategy;

fn place() -> Place {
    Place::new(Rules { agent_timeout_ms: 10_000, ..quiet(Strategy::LeastLoaded) })
}

fn sign(place: &mut Place, agent: &str) {
    place.metrics(Metrics { source: agent.to_owned(), ..Metrics::default() });
}

#[test]
fn one_that_spawns_anew_lost_what_it_had_and_what_its_life_before_says_is_old() {
    let mut place = place();
    place.spawn("a", &["text"], 2);
    place.submit("t", json!({ "requiredCapabilities": ["text"] }));
    place.go_on();
    let of_before = place.named("t", "a");
    let older = place.next_id();
    place.spawn("a", &["text", "image"], 4);
    place.go_on();
    assert_eq!((place.must_hold("t").as_str(), place.orchestra.tasks["t"].given), ("a", 2), "it is told again");
    place.hear(What::TaskCompleted { of: of_before, result: None, duration_ms: None });
    assert_eq!(place.status("t"), Some("assigned"));
    for what in [
        What::Failed { agent: "a".to_owned(), error: "crash".to_owned() },
        What::Terminated { agent: "a".to_owned(), reason: "over".to_owned(), inbox: None },
        What::Stopped { agent: "a".to_owned(), reason: "over".to_owned(), draining: true, inbox: None },
    ] {
        place.orchestra.hear(Heard { place: older.clone(), at_ms: place.now_ms, is_own: false, redriven: false, what }, place.now_ms);
    }
    place.go_on();
    assert_eq!((&place.seen("a")["status"], &place.seen("a")["maxTasks"]), (&json!("busy"), &json!(4)));
}

#[test]
fn one_that_fails_or_is_gone_has_its_tasks_given_to_others() {
    for (standing, what) in [
        ("failed", What::Failed { agent: "a".to_owned(), error: "crash".to_owned() }),
        ("terminated", What::Terminated { agent: "a".to_owned(), reason: "over".to_owned(), inbox: None }),
        ("terminated", What::Stopped { agent: "a".to_owned(), reason: "over".to_owned(), draining: false, inbox: None }),
    ] {
        let mut place = place();
        place.spawn("a", &[], 2);
        for task in &ids("t", 2) {
            place.submit(task, json!({}));
        }
        place.go_on();
        place.start("t0", "a");
        place.spawn("b", &[], 5);
        place.hear(what);
        place.go_on();
        assert_eq!((place.must_hold("t0").as_str(), place.must_hold("t1").as_str()), ("b", "b"));
        assert_eq!(place.seen("a")["status"], standing);
        let attempts = ["t0", "t1"].map(|task| place.orchestra.tasks[task].attempts);
        assert_eq!(attempts, [1, 0], "what never began was no attempt");
        assert_eq!(place.seen("a")["runningTasks"], json!([]));
    }
}

#[test]
fn one_that_is_silent_has_failed_until_it_is_heard_again() {
    let mut place = place();
    place.spawn("a", &[], 1);
    place.submit("t", json!({}));
    place.wait(9_000);
    sign(&mut place, "a");
    place.wait(10_000);
    assert_eq!(place.must_hold("t"), "a");
    place.wait(200);
    assert_eq!((place.seen("a")["status"].as_str(), place.status("t")), (Some("failed"), Some("queued")));
    assert_eq!(place.told("agent.failed").len(), 1);
    assert!(place.told("agent.failed")[0]["error"].as_str().unwrap().contains("agentTimeoutMs"));
    sign(&mut place, "a");
    place.go_on();
    assert_eq!((place.seen("a")["status"].as_str(), place.must_hold("t").as_str()), (Some("busy"), "a"));
    assert_eq!((&place.seen("a")["poolId"], place.orchestra.tasks["t"].given), (&json!("worker"), 2));
}

#[test]
fn whoever_begins_to_lead_gives_agents_their_time_to_be_heard() {
    let mut place = place();
    place.spawn("a", &[], 1);
    place.go_on();
    place.now_ms += 600_000; // Nobody led.
    place.take_over();
    place.wait(9_900);
    assert_eq!(place.seen("a")["status"], "idle");
    place.wait(300);
    assert_eq!(place.seen("a")["status"], "failed");
}

#[test]
fn one_that_said_that_it_failed_is_back_only_when_it_says_so() {
    let mut place = place();
    place.spawn("a", &[], 1);
    place.hear(What::Failed { agent: "a".to_owned(), error: "crash".to_owned() });
    place.now_ms += 1_000;
    sign(&mut place, "a");
    place.go_on();
    assert_eq!(place.seen("a")["status"], "failed");
    place.hear(What::Started { agent: "a".to_owned() });
    place.go_on();
    assert_eq!(place.seen("a")["status"], "idle");
}

#[test]
fn one_that_drains_finishes_what_it_has_and_gets_no_more() {
    let mut place = place();
    place.spawn("a", &[], 5);
    place.submit("t", json!({}));
    place.go_on();
    place.hear(What::Stopped { agent: "a".to_owned(), reason: "maintenance".to_owned(), draining: true, inbox: None });
    place.submit("u", json!({}));
    place.go_on();
    place.take_over();
    place.go_on();
    assert_eq!(
        (place.seen("a")["status"].as_str(), place.must_hold("t").as_str(), place.status("u")),
        (Some("draining"), "a", Some("queued"))
    );
    place.complete("t", "a");
    place.go_on();
    assert_eq!((place.status("t"), place.holder("u")), (Some("completed"), None));
}

#[test]
fn of_one_that_is_not_known_no_event_makes_one() {
    let mut place = place();
    assert!(matches!(place.hear(What::Started { agent: "a".to_owned() }), Outcome::Later { .. }));
    for what in [
        What::Failed { agent: "a".to_owned(), error: "crash".to_owned() },
        What::Terminated { agent: "a".to_owned(), reason: "over".to_owned(), inbox: None },
        What::Stopped { agent: "a".to_owned(), reason: "over".to_owned(), draining: true, inbox: None },
        What::Strained { who: "a".to_owned(), reason: "used up".to_owned() },
    ] {
        assert!(matches!(place.hear(what), Outcome::Done));
    }
    place.metrics(Metrics { source: "a".to_owned(), inbox: Some("inbox of a".to_owned()), ..Metrics::default() });
    let of = place.named("t", "a");
    place.hear(What::TaskCompleted { of, result: None, duration_ms: None });
    place.go_on();
    assert!(place.orchestra.by_id.is_empty());
    assert_eq!(place.posted("a", "respawn"), 1, "one made by the library is asked to spawn");
}

#[test]
fn one_that_did_not_get_its_letter_is_told_again() {
    let mut place = Place::of(Strategy::LeastLoaded);
    place.spawn("a", &[], 5);
    for task in &ids("t", 2) {
        place.submit(task, json!({}));
    }
    place.go_on();
    let has = |running: &[(&str, u32)]| Metrics {
        source: "a".to_owned(),
        running: Some(running.iter().map(|(task, attempt)| ((*task).to_owned(), *attempt)).collect()),
        ..Metrics::default()
    };
    place.now_ms += 4_000;
    place.metrics(has(&[]));
    place.go_on();
    assert_eq!(place.posted("a", "assign"), 2, "it may be on its way");
    place.now_ms += 1_000;
    place.metrics(has(&[("t0", 1)]));
    place.go_on();
    assert_eq!(place.posted("a", "assign"), 3);
    place.start("t0", "a");
    place.start("t1", "a");
    place.metrics(has(&[]));
    place.go_on();
    assert_eq!(place.posted("a", "assign"), 3, "it has said that it began");
}

#[test]
fn those_that_are_gone_are_shown_for_a_while_and_then_forgotten() {
    let mut place = Place::of(Strategy::LeastLoaded);
    place.spawn("a", &[], 1);
    place.spawn("b", &[], 1);
    place.hear(What::Terminated { agent: "a".to_owned(), reason: "over".to_owned(), inbox: None });
    place.wait(299_000);
    assert_eq!(place.seen("a")["status"], "terminated");
    place.wait(2_000);
    assert!(place.store.texts(crate::engine::store::Table::Agents).map(|(id, _)| id).eq(["b"]));
    place.take_over();
    assert_eq!(place.orchestra.by_id.len(), 1);
    for agent in ids("many", 1_500) {
        place.spawn(&agent, &[], 1);
        place.hear(What::Terminated { agent, reason: "over".to_owned(), inbox: None });
    }
    place.wait(100);
    assert_eq!(place.orchestra.by_id.len(), 1_001, "so many at most");
}

fn pools(place: &Place) -> BTreeMap<String, Vec<String>> {
    let mut pools: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (_, agent) in place.orchestra.living() {
        pools.entry(agent.pool.clone()).or_default().push(agent.id.clone());
    }
    pools
}

fn of_at_most(max: u32) -> Place {
    let rules = quiet(Strategy::LeastLoaded);
    Place::new(Rules { scaling: scaling::Rules { max, ..rules.scaling }, ..rules })
}

#[test]
fn what_a_pool_cannot_hold_goes_into_further_ones_each_type_for_itself() {
    let mut place = of_at_most(4);
    for agent in &ids("agent", 10) {
        place.spawn(agent, &[], 1);
    }
    for agent in &ids("coder", 3) {
        place.spawn_as(agent, "coder", &[], 1);
    }
    place.go_on();
    let pools = pools(&place);
    assert!(pools.keys().eq(["coder", "worker", "worker-2", "worker-3"]), "{pools:?}");
    assert!(pools.values().all(|agents| (3..=4).contains(&agents.len())), "{pools:?}");
    let summary: serde_json::Value = serde_json::from_str(place.store.summary.as_deref().unwrap().lines().next().unwrap()).unwrap();
    assert_eq!((&summary["stats"]["totalPools"], &summary["stats"]["totalAgents"]), (&json!(4), &json!(13)));
}

#[test]
fn pools_are_about_as_strong_as_each_other_also_when_agents_prove_fast_or_slow() {
    let mut place = of_at_most(2);
    for (agent, places) in [("a", 8), ("b", 8), ("c", 1), ("d", 1)] {
        place.spawn(agent, &[agent], places);
    }
    let strength = |place: &Place| {
        let worth = |agent: &String| super::super::hearing::worth(place.agent(agent));
        pools(place).values().map(|agents| agents.iter().map(worth).sum::<f64>()).collect::<Vec<_>>()
    };
    assert_eq!(strength(&place), [9.0, 9.0]);
    let mut place = of_at_most(2);
    for agent in ["a", "b", "c", "d"] {
        place.spawn(agent, &[agent], 1);
    }
    // Whoever shares a pool is as fast as the other.
    for agents in pools(&place).into_values().collect::<Vec<_>>() {
        let duration_ms = if agents.contains(&"a".to_owned()) { 50.0 } else { 400.0 };
        for (agent, n) in agents.iter().flat_map(|agent| (0..6).map(move |n| (agent, n))) {
            let task = format!("{agent} {n}");
            place.submit(&task, json!({ "requiredCapabilities": [agent], "estimatedDuration": 200 }));
            place.go_on();
            let of = place.named(&task, agent);
            place.hear(What::TaskCompleted { of, result: None, duration_ms: Some(duration_ms) });
        }
    }
    assert!(strength(&place).iter().any(|worth| (worth - 8.0).abs() < 1e-9), "one of them is fast");
    place.wait(10_100);
    let evened = strength(&place);
    assert!((evened[0] - evened[1]).abs() < 1e-9 && pools(&place).len() == 2, "{evened:?}");
}
