//! Ten thousand events, handlers that do anything, a store that fails: every event ends once, and no place is lost.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ossa::engine::consume::Verdict;
use ossa::engine::host::Delivery;
use ossa::engine::options::NackOptions;
use ossa::engine::settle::Failure;
use ossa::engine::store::{DeadLetterQuery, Disposal, EntryId, Partition, Settled};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde_json::json;
use tokio::sync::mpsc;

use crate::support::faulty::Faults;
use crate::support::harness::{Place, TestBus, failed, ms, nack, timed_out};

const EVENTS: u32 = 10_000;
const TYPES: u32 = 20;
const CONCURRENCY: usize = 16;
const PLACES: usize = 24;
const BATCH: usize = 50;

/// What the handlers of all buses did.
#[derive(Default)]
struct Seen {
    handled: usize,
    running_max: usize,
    /// Types and data of events that a handler succeeded with.
    succeeded: HashSet<(String, String)>,
}

fn verdict(random: &mut SmallRng) -> Verdict {
    match random.random_range(0..100) {
        0..70 => Verdict::Done,
        70..82 => failed("boom"),
        82..86 => nack(random.random_range(0..500)),
        86..90 => Verdict::HandBack,
        90..94 => timed_out(),
        94..96 => Verdict::Failed(Failure::Permanent("never".into())),
        96..98 => Verdict::Failed(Failure::Nack(NackOptions { dead_letter: true, ..NackOptions::default() })),
        _ => Verdict::Failed(Failure::Malformed("not JSON".into())),
    }
}

/// Handlers at random, each call of up to 20 ms; some that ran out of time end later after all.
fn play(bus: &TestBus, seed: u64, handling: &Arc<Mutex<Seen>>) {
    let (sender, mut deliveries) = mpsc::unbounded_channel::<Delivery>();
    bus.host.hand_to(sender);
    let (engine, handling) = (bus.bus.clone(), handling.clone());
    let mut random = SmallRng::seed_from_u64(seed);
    let running = Arc::new(Mutex::new(0_usize));
    tokio::spawn(async move {
        while let Some(delivery) = deliveries.recv().await {
            let now = {
                let mut running = running.lock().unwrap();
                *running += 1;
                *running
            };
            let mut all = handling.lock().unwrap();
            all.handled += 1;
            all.running_max = all.running_max.max(now);
            drop(all);
            let (verdict, time, late) = (verdict(&mut random), ms(random.random_range(0..20)), random.random_range(0..4));
            let (engine, running, handling) = (engine.clone(), running.clone(), handling.clone());
            tokio::spawn(async move {
                tokio::time::sleep(time).await;
                *running.lock().unwrap() -= 1;
                let settle = |verdict: Verdict| {
                    if verdict == Verdict::Done {
                        let event = (delivery.partition.event_type.to_string(), delivery.text.data.to_string());
                        handling.lock().unwrap().succeeded.insert(event);
                    }
                    engine.settle(vec![(delivery.token, verdict)], 0);
                };
                let timed_out = matches!(verdict, Verdict::Failed(Failure::TimedOut(_)));
                settle(verdict);
                if timed_out {
                    tokio::time::sleep(time * late).await;
                    settle(if late % 2 == 0 { Verdict::Done } else { failed("late") });
                }
            });
        }
    });
}

/// Entries that ended in the store, and how many dead letters each has.
fn ends(faults: &[Arc<Faults>]) -> HashMap<(Partition, EntryId), usize> {
    let mut ends = HashMap::new();
    for (held, disposal, settled) in faults.iter().flat_map(|faults| faults.settled()) {
        let letters = match disposal {
            _ if settled != Settled::Done => continue,
            Disposal::Acknowledge => 0,
            Disposal::DeadLetter { .. } => 1,
            Disposal::Retry { .. } | Disposal::HandBack => continue,
        };
        *ends.entry((held.partition, held.id)).or_default() += letters;
    }
    ends
}

async fn every_event_ends_once(seed: u64, share: f64, delay: Duration) {
    let place = Place::new(seed);
    let handling: Arc<Mutex<Seen>> = Arc::default();
    let (mut buses, mut faults) = (Vec::new(), Vec::new());
    for n in 0..2 {
        let config = json!({ "performance": { "batchSize": BATCH }, "defaults": { "retry": { "initialDelay": 50, "maxAttempts": 2 } } });
        let (bus, fault) = place.faulty_bus_with(config).await;
        for pattern in ["all.**", "all.even.*"] {
            bus.subscribe(pattern, json!({ "concurrency": CONCURRENCY, "maxUnacknowledged": PLACES })).await;
        }
        play(&bus, seed * 10 + n, &handling);
        fault.at_random(seed + n, share, delay);
        buses.push(bus);
        faults.push(fault);
    }
    let publisher = place.bus().await;
    for n in 0..TYPES {
        let kind = if n % 2 == 0 { "even" } else { "odd" };
        publisher.publish_many(&format!("all.{kind}.{n}"), EVENTS / TYPES).await;
    }
    let mut most = 0;
    for tick in 0..200_000 {
        tokio::time::sleep(ms(10)).await;
        most = buses.iter().map(TestBus::in_flight).max().unwrap_or(0).max(most);
        if tick % 200 == 0 && ends(&faults).len() == EVENTS as usize {
            break;
        }
    }
    let all = ends(&faults);
    assert_eq!(all.len(), EVENTS as usize, "seed {seed}: every event ends");
    assert!(all.values().all(|letters| *letters <= 1), "seed {seed}: and is buried once");
    for fault in &faults {
        fault.end();
    }
    tokio::time::sleep(ms(10_000)).await;
    let mut letters: HashSet<(String, String)> = HashSet::new();
    for letter in publisher.store.dead_letters(&DeadLetterQuery::default(), 100_000, None).await.unwrap().0 {
        assert!(letters.insert((letter.event_type, letter.data)), "seed {seed}: one dead letter an event");
    }
    for bus in &buses {
        assert_eq!(bus.in_flight(), 0, "seed {seed}");
        // All places are free: as many run as before.
        bus.host.arrived();
    }
    for n in 0..TYPES {
        let kind = if n % 2 == 0 { "even" } else { "odd" };
        assert_eq!(publisher.pending(&format!("all.{kind}.{n}"), "default").await, 0);
    }
    let (handled, running_max) = {
        let all = handling.lock().unwrap();
        let ended = letters.union(&all.succeeded).count();
        assert_eq!(ended, EVENTS as usize, "seed {seed}: a handler succeeded, or there is a dead letter");
        (all.handled, all.running_max)
    };
    assert!(handled >= EVENTS as usize);
    assert!(running_max <= 2 * CONCURRENCY, "seed {seed}: two subscriptions a bus: {running_max}");
    assert!(most <= 2 * (PLACES + BATCH) as u64, "seed {seed}: {most} in flight");
    // The places are all there: the buses can take as many as ever.
    let (sender, mut deliveries) = mpsc::unbounded_channel();
    buses[0].host.hand_to(sender);
    buses[1].disconnect(ms(0)).await;
    publisher.publish_many("all.odd.1", 100).await;
    let mut held = Vec::new();
    while let Ok(Some(delivery)) = tokio::time::timeout(ms(3000), deliveries.recv()).await {
        held.push(delivery);
    }
    assert_eq!(held.len(), CONCURRENCY, "seed {seed}");
}

#[tokio::test(start_paused = true)]
async fn every_event_ends_once_whatever_handlers_do() {
    every_event_ends_once(1, 0.0, Duration::ZERO).await;
}

#[tokio::test(start_paused = true)]
async fn every_event_ends_once_though_the_store_fails() {
    for seed in [2, 3] {
        every_event_ends_once(seed, 0.05, ms(10)).await;
    }
}
