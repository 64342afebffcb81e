//! What is announced about pools: more agents, fewer, none to be had.

use serde_json::json;

use super::super::orchestra::Rules;
use super::super::reading::What;
use super::super::scaling;
use super::{Place, ids, quiet};
use crate::engine::config::Strategy;

fn rules(min: u32, max: u32) -> Rules {
    Rules { scaling: scaling::Rules { min, max, up: 0.8, down: 0.3, cooldown_ms: 60_000 }, ..quiet(Strategy::LeastLoaded) }
}

/// Agents of two places, all of them busy where there are `tasks` enough.
fn place(agents: usize, tasks: usize, rules: Rules) -> Place {
    let mut place = Place::new(rules);
    for agent in &ids("agent", agents) {
        place.spawn(agent, &[], 2);
    }
    for task in &ids("t", tasks) {
        place.submit(task, json!({}));
    }
    place.go_on();
    place
}

#[test]
fn more_are_asked_for_once_a_cooldown_whoever_leads() {
    let mut place = place(2, 10, rules(1, 8));
    place.wait(4_900);
    assert!(place.told("orchestration.scale_up").is_empty(), "agents come one after the other");
    place.wait(300);
    let told = place.told("orchestration.scale_up");
    assert_eq!(told.len(), 1);
    assert_eq!((&told[0]["poolId"], &told[0]["current"], &told[0]["desired"]), (&json!("worker"), &json!(2), &json!(4)));
    assert!(told[0]["reason"].as_str().unwrap().contains("wait"), "{told:?}");
    for round in 1..4 {
        // The next one to lead may go on from before it was said, or from behind it.
        place.wait(30_000);
        place.take_over();
        place.wait(28_500);
        assert_eq!(place.told("orchestration.scale_up").len(), round, "not within the cooldown");
        place.wait(1_600);
        assert_eq!(place.told("orchestration.scale_up").len(), round + 1, "nor is one swallowed");
    }
    assert_eq!(place.told("performance.threshold").len(), 4);
}

#[test]
fn an_announcement_that_was_perhaps_not_made_is_made_under_the_same_key() {
    let mut place = place(2, 10, rules(1, 8));
    place.wait(4_900);
    let before = place.store.clone();
    place.wait(300);
    place.store = before;
    place.take_over();
    place.wait(1_000);
    assert_eq!(place.told("orchestration.scale_up").len(), 1);
}

#[test]
fn a_pool_that_may_not_grow_says_so_once_a_cooldown() {
    let mut place = place(4, 20, rules(1, 4));
    place.wait(50_000);
    assert!(place.told("orchestration.scale_up").is_empty());
    assert_eq!(place.told("resource.exhausted").len(), 1);
    assert_eq!(place.told("resource.exhausted")[0]["resourceType"], "agents:worker");
    place.take_over();
    place.wait(30_000);
    assert_eq!(place.told("resource.exhausted").len(), 2);
}

#[test]
fn idle_agents_are_named_drain_and_are_waited_for() {
    let mut place = place(5, 0, rules(2, 8));
    place.submit("t", json!({}));
    place.go_on();
    let busy = place.must_hold("t");
    place.wait(6_000);
    let told = place.told("orchestration.scale_down");
    assert_eq!((told.len(), &told[0]["current"], &told[0]["desired"]), (1, &json!(5), &json!(2)));
    let going: Vec<String> = serde_json::from_value(told[0]["agentIds"].clone()).unwrap();
    assert!(going.len() == 3 && !going.contains(&busy), "{going:?}");
    for agent in &going {
        assert_eq!((place.seen(agent)["status"].as_str(), place.posted(agent, "drain")), (Some("draining"), 1));
    }
    // Nothing is given to those that go, and no more is asked before they are gone.
    for task in &ids("more", 10) {
        place.submit(task, json!({}));
    }
    place.go_on();
    assert!(going.iter().all(|agent| place.has(agent).is_empty()));
    for task in ids("more", 3).iter().chain(&["t".to_owned()]) {
        let agent = place.must_hold(task);
        place.complete(task, &agent);
    }
    place.take_over();
    for task in ids("more", 10) {
        place.hear(What::TaskCancelled { task, reason: "over".to_owned() });
    }
    place.wait(200_000);
    assert_eq!(place.told("orchestration.scale_down").len(), 1);
    for agent in &going {
        place.hear(What::Terminated { agent: agent.clone(), reason: "scale-down".to_owned(), inbox: None });
    }
    place.wait(200_000);
    assert_eq!(place.told("orchestration.scale_down").len(), 1, "two are the fewest");
    assert!(place.told("orchestration.scale_up").is_empty());
    assert_eq!(place.orchestra.living().count(), 2);
}

#[test]
fn between_the_thresholds_nothing_is_announced_however_often_it_changes() {
    let mut place = place(4, 0, rules(1, 8));
    for round in 0..200 {
        // Between three and six of eight places.
        for id in ids(&format!("{round} "), if round % 2 == 0 { 3 } else { 6 }) {
            place.submit(&id, json!({}));
        }
        place.go_on();
        place.wait(2_000);
        let mine: Vec<(String, String)> =
            place.orchestra.tasks.values().map(|task| (task.id.clone(), task.agent_id.clone().unwrap())).collect();
        for (task, agent) in &mine {
            place.complete(task, agent);
        }
    }
    assert!(place.told("orchestration.scale_up").is_empty() && place.told("orchestration.scale_down").is_empty());
}

#[test]
fn a_pool_that_is_said_to_be_strained_is_given_more() {
    let mut place = place(2, 2, rules(1, 8));
    place.wait(6_000);
    place.hear(What::Strained { who: "worker".to_owned(), reason: "memory is exhausted".to_owned() });
    place.wait(200);
    let told = place.told("orchestration.scale_up");
    assert_eq!((told.len(), told[0]["reason"].as_str()), (1, Some("memory is exhausted")));
    place.wait(120_000);
    assert_eq!(place.told("orchestration.scale_up").len(), 1, "it was said once");
}

#[test]
fn fewer_than_the_minimum_are_filled_up() {
    let mut place = place(1, 0, rules(3, 8));
    place.wait(6_000);
    let told = place.told("orchestration.scale_up");
    assert_eq!((told.len(), &told[0]["current"], &told[0]["desired"]), (1, &json!(1), &json!(3)));
}

#[test]
fn an_agent_that_is_slow_and_tasks_that_nobody_can_do_are_bottlenecks() {
    let mut place = Place::new(Rules { scaling: scaling::Rules { max: 10, ..rules(0, 10).scaling }, ..quiet(Strategy::RoundRobin) });
    for agent in &ids("agent", 4) {
        place.spawn(agent, &[agent], 1);
    }
    for (agent, ms) in ids("agent", 4).iter().zip([100, 100, 100, 500]) {
        for task in ids(agent, 5) {
            place.submit(&task, json!({ "requiredCapabilities": [agent], "estimatedDuration": 100 }));
            place.go_on();
            place.now_ms += ms;
            place.complete(&task, agent);
        }
    }
    place.submit("lonely", json!({ "requiredCapabilities": ["gpu"] }));
    place.wait(20_000);
    place.take_over();
    place.wait(20_000);
    let told = place.told("performance.bottleneck");
    let of = |kind: &str| told.iter().filter(|data| data["bottleneckType"] == kind).collect::<Vec<_>>();
    assert_eq!((of("slow-agent").len(), of("no-agent").len()), (1, 1), "{told:?}");
    assert_eq!(of("slow-agent")[0]["component"], "agent3");
    assert!(of("no-agent")[0]["impact"].as_str().unwrap().contains("gpu"));
}
