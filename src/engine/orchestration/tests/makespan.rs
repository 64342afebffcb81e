//! How long it takes by each strategy until all is done: agents of unequal speed, tasks of unequal length, on a clock that is turned.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde_json::json;

use super::{Place, START_MS};
use crate::engine::config::Strategy;

const STRATEGIES: [Strategy; 5] =
    [Strategy::RoundRobin, Strategy::LeastLoaded, Strategy::CapabilityBased, Strategy::PerformanceWeighted, Strategy::Predictive];
const TASKS: usize = 600;
/// Types of tasks, the capability that each needs, and what its giver thinks it takes, ms.
const KINDS: [(&str, &str, f64); 4] =
    [("parse", "text", 400.0), ("index", "text", 1_500.0), ("render", "image", 2_500.0), ("train", "gpu", 8_000.0)];

struct Worker {
    id: String,
    capabilities: Vec<&'static str>,
    speed: f64,
    places: u32,
}

/// Twelve of them: slow and fast ones, that can do one thing or all.
fn workers(random: &mut SmallRng) -> Vec<Worker> {
    let abilities: [&[&str]; 4] = [&["text"], &["text", "image"], &["image", "gpu"], &["text", "image", "gpu"]];
    let of = |n: usize| Worker {
        id: format!("agent-{n}"),
        capabilities: abilities[n % 4].to_vec(),
        speed: random.random_range(1.0..8.0),
        places: 1 + u32::try_from(n % 3).unwrap(),
    };
    (0..12).map(of).collect()
}

/// ms until all is done.
fn makespan(strategy: Strategy, seed: u64) -> u64 {
    let mut random = SmallRng::seed_from_u64(seed);
    let workers = workers(&mut random);
    let mut place = Place::of(strategy);
    for worker in &workers {
        place.spawn(&worker.id, &worker.capabilities, worker.places);
    }
    let mut lengths = std::collections::HashMap::new();
    let mut arriving: Vec<(u64, usize, String)> = Vec::new();
    for n in 0..TASKS {
        let kind = [0, 0, 0, 0, 1, 1, 1, 2, 2, 3][random.random_range(0..10)];
        let id = format!("task-{n}");
        // Nobody knows how long it really is.
        lengths.insert(id.clone(), KINDS[kind].2 * random.random_range(0.6..1.4));
        // A third is there at the beginning, the others come faster than they can be done.
        let at_ms = if n < TASKS / 3 { 0 } else { random.random_range(0..5_000) };
        arriving.push((START_MS + at_ms, kind, id));
    }
    arriving.sort();
    let mut arriving = arriving.into_iter().peekable();
    let mut busy: BinaryHeap<Reverse<(u64, String, String)>> = BinaryHeap::new();
    let (mut done, mut told) = (0, 0);
    while done < TASKS {
        let next_ms = arriving.peek().map(|(at_ms, ..)| *at_ms).into_iter().chain(busy.peek().map(|Reverse((at_ms, ..))| *at_ms)).min();
        place.now_ms = next_ms.expect("somebody works as long as not all is done");
        while let Some((_, kind, id)) = arriving.next_if(|(at_ms, ..)| *at_ms <= place.now_ms) {
            let (name, needs, estimate) = KINDS[kind];
            place.submit(&id, json!({ "type": name, "requiredCapabilities": [needs], "estimatedDuration": estimate }));
        }
        while busy.peek().is_some_and(|Reverse((at_ms, ..))| *at_ms <= place.now_ms) {
            let Some(Reverse((_, task, agent))) = busy.pop() else { break };
            place.complete(&task, &agent);
            done += 1;
        }
        place.orchestra.give_out(place.now_ms, &mut || random.random());
        place.orchestra.take_write(false, place.now_ms);
        for saying in place.orchestra.take_sayings().into_iter().filter(|saying| saying.event_type == "task.assigned") {
            let assigned: serde_json::Value = serde_json::from_str(&saying.data).unwrap();
            let (task, agent) = (assigned["taskId"].as_str().unwrap(), assigned["agentId"].as_str().unwrap());
            let worker = workers.iter().find(|worker| worker.id == agent).unwrap();
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // a few seconds
            busy.push(Reverse((place.now_ms + (lengths[task] / worker.speed).ceil() as u64, task.to_owned(), agent.to_owned())));
            told += 1;
        }
    }
    assert_eq!(told, TASKS, "each is given once");
    place.now_ms - START_MS
}

#[test]
fn predictive_is_done_first() {
    let seeds = [1, 2, 3, 5, 8, 13];
    println!("ms until all is done:");
    println!("{:>22} {}", "seed", seeds.map(|seed| format!("{seed:>7}")).join(" "));
    let table = STRATEGIES.map(|strategy| seeds.map(|seed| makespan(strategy, seed)));
    for (strategy, row) in STRATEGIES.iter().zip(&table) {
        println!("{:>22} {}", strategy.as_str(), row.map(|ms| format!("{ms:>7}")).join(" "));
    }
    let [others @ .., predictive] = &table;
    for (n, seed) in seeds.iter().enumerate() {
        let best = others.iter().map(|row| row[n]).min().unwrap();
        assert!(predictive[n] < best, "seed {seed}: {} ms, and {best} ms by another", predictive[n]);
    }
}
