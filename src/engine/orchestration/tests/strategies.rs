//! The five strategies, as whoever gives tasks sees them.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::super::reading::{Metrics, What};
use super::{Place, ids};
use crate::engine::config::Strategy;

/// Gives tasks in one after the other; each is done before the next one. Answers how many each agent got.
fn counts(place: &mut Place, prefix: &str, count: usize, duration_ms: impl Fn(&str) -> f64) -> HashMap<String, usize> {
    let mut counts = HashMap::new();
    for id in ids(prefix, count) {
        place.submit(&id, json!({ "estimatedDuration": 200 }));
        place.go_on();
        let agent = place.must_hold(&id);
        let of = place.named(&id, &agent);
        place.hear(What::TaskCompleted { of, result: None, duration_ms: Some(duration_ms(&agent)) });
        *counts.entry(agent).or_default() += 1;
    }
    counts
}

/// Gives tasks in, and answers who has each.
fn given(place: &mut Place, prefix: &str, count: usize, with: &Value) -> Vec<Option<String>> {
    let ids = ids(prefix, count);
    for id in &ids {
        place.submit(id, with.clone());
    }
    place.go_on();
    ids.iter().map(|id| place.holder(id)).collect()
}

fn uses(place: &mut Place, agent: &str, cpu: f64) {
    place.metrics(Metrics { source: agent.to_owned(), cpu: Some(cpu), ..Metrics::default() });
}

#[test]
fn round_robin_is_even_whoever_is_busy_or_fast() {
    let mut place = Place::of(Strategy::RoundRobin);
    for (n, agent) in ["a", "b", "c", "d"].iter().enumerate() {
        place.spawn(agent, &["x", "y", "z"][..n.min(3)], 1 + u32::try_from(n).unwrap() * 5);
    }
    uses(&mut place, "a", 95.0);
    let counts = counts(&mut place, "t", 400, |agent| if agent == "b" { 1_000.0 } else { 10.0 });
    assert!(counts.len() == 4 && counts.values().all(|count| *count == 100), "{counts:?}");
}

#[test]
fn least_loaded_follows_places_processor_and_who_is_said_to_be_strained() {
    let mut place = Place::of(Strategy::LeastLoaded);
    for agent in ["a", "b", "c"] {
        place.spawn(agent, &[], 4);
    }
    uses(&mut place, "b", 50.0);
    place.hear(What::Strained { who: "c".to_owned(), reason: "memory of c is over its threshold".to_owned() });
    let first = given(&mut place, "first", 2, &json!({}));
    assert!(first.iter().all(|agent| agent.as_deref() == Some("a")), "half of b is used: {first:?}");
    given(&mut place, "second", 6, &json!({}));
    assert_eq!((place.has("a").len(), place.has("b").len(), place.has("c").len()), (4, 4, 0), "the strained one comes last");
    assert_eq!(given(&mut place, "third", 1, &json!({})), [Some("c".to_owned())], "and rather than that nobody does it");
    place.wait(30_000);
    place.complete("first0", "a");
    assert_eq!(given(&mut place, "fourth", 1, &json!({})), [Some("c".to_owned())], "after a while it counts like others");
    place.complete("fourth0", "c");
    place.complete("third0", "c");
    uses(&mut place, "c", 99.0);
    assert_eq!(given(&mut place, "fifth", 1, &json!({})), [Some("a".to_owned())]);
}

#[test]
fn capability_based_takes_the_narrowest_and_keeps_generalists_free() {
    let mut place = Place::of(Strategy::CapabilityBased);
    place.spawn("all", &["text", "image", "sound"], 10);
    place.spawn("two", &["text", "image"], 2);
    place.spawn("one", &["text"], 2);
    let text = json!({ "requiredCapabilities": ["text"] });
    let who: Vec<String> = given(&mut place, "text", 4, &text).into_iter().flatten().collect();
    assert_eq!(who, ["one", "one", "two", "two"]);
    assert!(place.has("all").is_empty(), "it is free for what nobody else can do");
    assert_eq!(given(&mut place, "sound", 1, &json!({ "requiredCapabilities": ["sound"] })), [Some("all".to_owned())]);
    assert_eq!(given(&mut place, "more", 1, &text), [Some("all".to_owned())], "rather than wait");
    assert_eq!(given(&mut place, "both", 1, &json!({ "requiredCapabilities": ["video"] })), [None]);
}

#[test]
fn performance_weighted_is_proportional_to_what_was_measured_and_leaves_a_share_for_newcomers() {
    let mut place = Place::of(Strategy::PerformanceWeighted);
    for agent in ["fast", "middle", "slow"] {
        place.spawn(agent, &[], 5_000);
    }
    let duration_ms = |agent: &str| match agent {
        "fast" => 100.0,
        "middle" => 200.0,
        _ => 400.0,
    };
    counts(&mut place, "learn", 60, duration_ms);
    let counted = counts(&mut place, "t", 4_200, duration_ms);
    for (agent, expected) in [("fast", 2_400.0), ("middle", 1_200.0), ("slow", 600.0)] {
        let count = f64::from(u32::try_from(counted[agent]).unwrap());
        assert!((count / expected - 1.0).abs() < 0.12, "{agent}: {count} of {expected}");
    }
    // Of whom nothing is known as long as none of its tasks ends.
    place.spawn("newcomer", &[], 5_000);
    given(&mut place, "more", 3_000, &json!({ "estimatedDuration": 200 }));
    let share = place.has("newcomer").len();
    assert!((240..=360).contains(&share), "{share} of 3000");
    // One that fails half of its tasks is worth half as much.
    for n in 0..120 {
        let Some(task) = place.has("fast").first().cloned() else { break };
        if n % 2 == 0 {
            place.fail(&task, "fast");
        } else {
            let of = place.named(&task, "fast");
            place.hear(What::TaskCompleted { of, result: None, duration_ms: Some(100.0) });
        }
    }
    let worth = |agent: &str| place.agent(agent).weight().unwrap();
    let share = worth("fast") / worth("middle");
    assert!((0.85..1.15).contains(&share), "{share}");
}

/// One task each, one after the other, so that it is known how fast they are; the clock is turned meanwhile.
fn teach(place: &mut Place, times: &[(&str, u64)], capability: bool) {
    for (agent, ms) in times {
        for id in ids(&format!("teach {agent} "), 5) {
            let needs = if capability { json!([agent]) } else { json!([]) };
            place.submit(&id, json!({ "requiredCapabilities": needs, "estimatedDuration": 1_000 }));
            place.go_on();
            assert_eq!(place.must_hold(&id), *agent);
            place.now_ms += ms;
            place.complete(&id, agent);
        }
    }
}

#[test]
fn predictive_waits_for_a_fast_agent_as_long_as_that_is_earlier() {
    let mut place = Place::of(Strategy::Predictive);
    place.spawn("fast", &["fast"], 1);
    place.spawn("slow", &["slow"], 1);
    teach(&mut place, &[("fast", 100), ("slow", 1_000)], true);
    let work = json!({ "estimatedDuration": 1_000 });
    assert_eq!(given(&mut place, "a", 2, &work), [Some("fast".to_owned()), None], "a tenth of a second is waited for");
    assert!(place.has("slow").is_empty());
    let more = given(&mut place, "b", 12, &work);
    let slow = more.iter().position(|agent| agent.as_deref() == Some("slow"));
    assert!((6..=9).contains(&slow.expect("behind so many the slow one is earlier")), "{more:?}");
    place.now_ms += 100;
    place.complete("a0", "fast");
    place.go_on();
    assert_eq!(place.must_hold("a1"), "fast");
}

#[test]
fn predictive_begins_with_what_takes_long_but_lets_nothing_short_wait_for_ever() {
    let mut place = Place::of(Strategy::Predictive);
    place.submit("short", json!({ "estimatedDuration": 100 }));
    place.now_ms += 500;
    place.submit("long", json!({ "estimatedDuration": 5_000 }));
    place.submit("urgent", json!({ "estimatedDuration": 10, "priority": 1 }));
    place.spawn("a", &[], 1);
    let mut order = Vec::new();
    for wait_ms in [0, 0, 0, 5_000, 0] {
        place.now_ms += wait_ms;
        place.go_on();
        let task = place.has("a").pop().unwrap();
        place.complete(&task, "a");
        order.push(task);
        if order.len() == 2 {
            // Shorter by less than it has waited longer.
            place.now_ms += 4_500;
            place.submit("another", json!({ "estimatedDuration": 5_000 }));
            place.submit("last", json!({ "estimatedDuration": 5_000 }));
        }
    }
    assert_eq!(order, ["urgent", "long", "short", "another", "last"]);
}

#[test]
fn predictive_expects_of_a_newcomer_what_is_usual() {
    let mut place = Place::of(Strategy::Predictive);
    place.spawn("known", &[], 1);
    // Whoever gives tasks thinks that all of them take ten times as long as they do.
    teach(&mut place, &[("known", 100)], false);
    place.spawn("new", &[], 1);
    let who = given(&mut place, "t", 2, &json!({ "estimatedDuration": 1_000 }));
    assert_eq!(who.iter().flatten().count(), 2, "it does not wait for the one that is known: {who:?}");
}

#[test]
fn predictive_lets_no_agent_idle_behind_others_tasks() {
    let mut place = Place::of(Strategy::Predictive);
    place.spawn("image", &["image"], 1);
    place.spawn("text", &["text"], 1);
    given(&mut place, "image", 500, &json!({ "requiredCapabilities": ["image"], "priority": 9 }));
    assert_eq!(given(&mut place, "text", 1, &json!({ "requiredCapabilities": ["text"] })), [Some("text".to_owned())]);
}

#[test]
fn every_strategy_fills_all_places_at_once() {
    for strategy in
        [Strategy::RoundRobin, Strategy::LeastLoaded, Strategy::CapabilityBased, Strategy::PerformanceWeighted, Strategy::Predictive]
    {
        let mut place = Place::of(strategy);
        for agent in &ids("agent", 20) {
            place.spawn(agent, &[], 10);
        }
        assert_eq!(given(&mut place, "t", 300, &json!({})).iter().flatten().count(), 200, "{strategy:?}");
    }
}

#[test]
fn higher_priorities_go_first_then_who_came_first() {
    let mut place = Place::of(Strategy::LeastLoaded);
    for (id, priority) in [("low", -1), ("first", 5), ("second", 5), ("high", 9)] {
        place.submit(id, json!({ "priority": priority }));
        place.now_ms += 1;
    }
    place.spawn("a", &[], 1);
    let mut order = Vec::new();
    for _ in 0..4 {
        place.go_on();
        let task = place.has("a").pop().unwrap();
        place.complete(&task, "a");
        order.push(task);
    }
    assert_eq!(order, ["high", "first", "second", "low"]);
}

#[test]
fn who_failed_a_task_gets_it_again_only_where_there_is_no_other() {
    for strategy in [Strategy::RoundRobin, Strategy::LeastLoaded, Strategy::CapabilityBased, Strategy::PerformanceWeighted] {
        let mut place = Place::of(strategy);
        place.spawn("a", &[], 5);
        place.submit("t", json!({}));
        place.go_on();
        place.spawn("b", &["more"], 5);
        place.fail("t", "a");
        place.go_on();
        assert_eq!(place.must_hold("t"), "b", "{strategy:?}");
        place.hear(What::Terminated { agent: "a".to_owned(), reason: "over".to_owned(), inbox: None });
        place.fail("t", "b");
        place.go_on();
        assert_eq!(place.status("t"), Some("assigned"), "{strategy:?}");
        assert_eq!(place.must_hold("t"), "b");
    }
}
