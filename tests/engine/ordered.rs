//! Ordered groups: of each key one event at a time, in the order of publishing, over retries, faults and handovers.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use ossa::engine::consume::Verdict;
use ossa::engine::host::Delivery;
use ossa::engine::store::{Partitioning, StreamLayout};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde_json::json;
use tokio::sync::mpsc;

use crate::support::faulty::Fault;
use crate::support::harness::{Place, TestBus, data, failed, idle, ms, timed_out};
use crate::support::wait::until;

/// What the handlers of all buses saw.
#[derive(Default)]
struct Course {
    running: HashSet<String>,
    /// The number that is next, by key.
    next: HashMap<String, u32>,
    done: usize,
    by_bus: HashMap<usize, usize>,
    wrong: Vec<String>,
}

impl Course {
    fn begin(&mut self, key: &str, n: u32) {
        if !self.running.insert(key.to_owned()) {
            self.wrong.push(format!("two of {key} at once, one of them {n}"));
        }
        let next = self.next.get(key).copied().unwrap_or(0);
        if n > next {
            self.wrong.push(format!("{key} {n} before {next}"));
        }
    }

    fn end(&mut self, bus: usize, key: &str, n: u32, is_done: bool) {
        self.running.remove(key);
        let next = self.next.entry(key.to_owned()).or_default();
        if is_done && n == *next {
            *next += 1;
            self.done += 1;
            *self.by_bus.entry(bus).or_default() += 1;
        }
    }
}

fn parts(delivery: &Delivery) -> (String, u32) {
    let (key, n) = data(delivery).split_once(':').expect("key and number");
    (key.to_owned(), n.parse().expect("a number"))
}

/// Handlers that take up to 10 ms and fail now and then.
fn play(bus: &TestBus, number: usize, seed: u64, course: &Arc<Mutex<Course>>) {
    let (sender, mut deliveries) = mpsc::unbounded_channel::<Delivery>();
    bus.host.hand_to(sender);
    let (engine, course) = (bus.bus.clone(), course.clone());
    let mut random = SmallRng::seed_from_u64(seed);
    tokio::spawn(async move {
        while let Some(delivery) = deliveries.recv().await {
            let (key, n) = parts(&delivery);
            course.lock().unwrap().begin(&key, n);
            let (time, fails) = (ms(random.random_range(0..10)), random.random_bool(0.1));
            let (engine, course) = (engine.clone(), course.clone());
            tokio::spawn(async move {
                tokio::time::sleep(time).await;
                course.lock().unwrap().end(number, &key, n, !fails);
                engine.settle(vec![(delivery.token, if fails { failed("boom") } else { Verdict::Done })], 0);
            });
        }
    });
}

async fn publish_all(bus: &TestBus, keys: u32, each: u32) {
    for n in 0..each {
        for key in 0..keys {
            bus.publish_with("o", &format!("k{key}:{n}"), &json!({ "partitionKey": format!("k{key}") })).await;
        }
    }
}

fn options() -> serde_json::Value {
    json!({ "ordered": true, "maxUnacknowledged": 16, "retry": { "initialDelay": 30, "maxAttempts": 1000, "backoffMultiplier": 1.0 } })
}

async fn finished(course: &Arc<Mutex<Course>>, count: usize) {
    for _ in 0..600 {
        tokio::time::sleep(ms(1000)).await;
        if course.lock().unwrap().done >= count {
            break;
        }
    }
    let course = course.lock().unwrap();
    assert_eq!((course.done, &course.wrong), (count, &Vec::new()));
}

#[tokio::test(start_paused = true)]
async fn keys_keep_their_order_over_retries() {
    let bus = Place::new(31).bus().await;
    let course: Arc<Mutex<Course>> = Arc::default();
    publish_all(&bus, 20, 20).await;
    bus.subscribe("o", options()).await;
    play(&bus, 0, 31, &course);
    publish_all_from(&bus, 20, 20, 40).await;
    finished(&course, 800).await;
    idle().await;
    assert_eq!((bus.pending("o", "default").await, bus.in_flight()), (0, 0));
}

async fn publish_all_from(bus: &TestBus, keys: u32, from: u32, to: u32) {
    for n in from..to {
        for key in 0..keys {
            bus.publish_with("o", &format!("k{key}:{n}"), &json!({ "partitionKey": format!("k{key}") })).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_retry_holds_back_its_key_only() {
    let bus = Place::new(32).bus().await;
    bus.subscribe("o", json!({ "ordered": true, "retry": { "initialDelay": 30_000, "maxDelay": 30_000 } })).await;
    publish_all(&bus, 2, 3).await;
    let first = bus.host.next().await;
    let (held_back, _) = parts(&first);
    bus.settle(&first, failed("later"));
    let mut others = Vec::new();
    for _ in 0..3 {
        let delivery = bus.host.next().await;
        others.push(data(&delivery).to_owned());
        bus.done(&delivery);
    }
    let other = if held_back == "k0" { "k1" } else { "k0" };
    assert_eq!(others, [0, 1, 2].map(|n| format!("{other}:{n}")));
    assert!(bus.host.arrived().is_empty());
    for n in 0..3 {
        let delivery = bus.host.next().await;
        assert_eq!(parts(&delivery), (held_back.clone(), n));
        bus.done(&delivery);
    }
}

#[tokio::test(start_paused = true)]
async fn events_without_a_key_are_handled_one_at_a_time_in_order() {
    let bus = Place::new(33).bus().await;
    bus.subscribe("o", json!({ "ordered": true })).await;
    bus.publish_many("o", 10).await;
    for n in 0..10 {
        let delivery = bus.host.next().await;
        idle().await;
        assert!(bus.host.arrived().is_empty(), "one at a time");
        assert_eq!(data(&delivery), n.to_string());
        bus.done(&delivery);
    }
}

#[tokio::test(start_paused = true)]
async fn what_waits_behind_a_slow_key_takes_no_place() {
    let bus = Place::new(34).bus().await;
    bus.subscribe("o", json!({ "ordered": true, "maxUnacknowledged": 4 })).await;
    for n in 0..200 {
        bus.publish_with("o", &format!("slow:{n}"), &json!({ "partitionKey": "slow" })).await;
    }
    bus.publish_with("o", "quick:0", &json!({ "partitionKey": "quick" })).await;
    let slow = bus.host.next().await;
    assert_eq!(data(&slow), "slow:0");
    let quick = bus.host.next().await;
    assert_eq!(data(&quick), "quick:0");
    assert_eq!(bus.in_flight(), 2);
}

#[tokio::test(start_paused = true)]
async fn partitions_are_shared_by_the_members_and_handed_over() {
    let place = Place::new(35);
    let publisher = place.bus().await;
    let layout = StreamLayout { partitions: 8, partitioning: Partitioning::Hash, ..StreamLayout::default() };
    publisher.store.create_stream("o", &layout).await.expect("made");
    let course: Arc<Mutex<Course>> = Arc::default();
    let mut buses = Vec::new();
    for n in 0..3 {
        let bus = place.bus().await;
        play(&bus, n, 35 + n as u64, &course);
        bus.subscribe("o", options()).await;
        buses.push(bus);
    }
    // The first has all partitions until it hears of the others.
    publish_all(&publisher, 100, 1).await;
    tokio::time::sleep(ms(5000)).await;
    publish_all_from(&publisher, 100, 1, 4).await;
    finished(&course, 400).await;
    assert_eq!(course.lock().unwrap().by_bus.len(), 3, "each member works");
    // One leaves with events in its hands, one comes.
    publish_all_from(&publisher, 100, 4, 6).await;
    buses.remove(0).disconnect(ms(1000)).await;
    let bus = place.bus().await;
    play(&bus, 3, 40, &course);
    bus.subscribe("o", options()).await;
    publish_all_from(&publisher, 100, 6, 10).await;
    finished(&course, 1000).await;
    assert!(course.lock().unwrap().by_bus.get(&3).is_some_and(|count| *count > 0), "the new one took its share");
}

#[tokio::test(start_paused = true)]
async fn order_holds_over_lost_replies_and_unreachable_stores() {
    for seed in 0..8 {
        let place = Place::new(50 + seed);
        let publisher = place.bus().await;
        let layout = StreamLayout { partitions: 4, partitioning: Partitioning::Hash, ..StreamLayout::default() };
        publisher.store.create_stream("o", &layout).await.expect("made");
        let course: Arc<Mutex<Course>> = Arc::default();
        let mut buses = Vec::new();
        for n in 0..2 {
            let (bus, faults) = place.faulty_bus_with(json!({ "performance": { "batchSize": 20 } })).await;
            bus.subscribe("o", options()).await;
            play(&bus, n, seed * 10 + n as u64, &course);
            faults.at_random(seed * 100 + n as u64, 0.1, ms(20));
            buses.push((bus, faults));
        }
        publish_all(&publisher, 20, 20).await;
        finished(&course, 400).await;
        for (bus, faults) in &buses {
            faults.end();
            bus.disconnect(ms(1000)).await;
        }
        let pending: u64 = {
            let mut all = 0;
            for index in 0..4 {
                let at = ossa::engine::store::Partition::new("o", index);
                let state = publisher.store.inspect(&at).await.expect("inspected").unwrap_or_default();
                all += state.groups.iter().map(|group| group.pending).sum::<u64>();
            }
            all
        };
        assert_eq!(pending, 0, "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_claim_whose_reply_was_lost_is_found_again() {
    let (bus, faults) = Place::new(36).faulty_bus().await;
    bus.subscribe("o", json!({ "ordered": true, "retry": { "initialDelay": 100 } })).await;
    publish_all(&bus, 1, 3).await;
    let first = bus.host.next().await;
    faults.next("claim_parked", &[Fault::ReplyLost]);
    bus.settle(&first, failed("again"));
    for n in 0..3 {
        let delivery = bus.host.next().await;
        assert_eq!(parts(&delivery), ("k0".to_owned(), n));
        bus.done(&delivery);
    }
}

#[tokio::test(start_paused = true)]
async fn a_member_that_lapsed_is_fenced_off_and_comes_back() {
    let place = Place::new(37);
    let (lapsing, faults) = place.faulty_bus().await;
    lapsing.subscribe("o", options()).await;
    let publisher = place.bus().await;
    publish_all(&publisher, 3, 1).await;
    let taken = lapsing.host.next_many(3).await;
    let other = place.bus().await;
    other.subscribe("o", options()).await;
    faults.renew(false);
    // Its lease ends, and the other takes what it held, in order.
    let again = other.host.next_many(3).await;
    let keys = |deliveries: &[Delivery]| deliveries.iter().map(|delivery| data(delivery).to_owned()).collect::<HashSet<_>>();
    assert_eq!(keys(&taken), keys(&again));
    publish_all_from(&publisher, 3, 1, 2).await;
    idle().await;
    assert!(other.host.arrived().is_empty(), "their keys are taken");
    other.all_done(&again);
    other.all_done(&other.host.next_many(3).await);
    faults.renew(true);
    other.disconnect(ms(0)).await;
    publish_all_from(&publisher, 3, 2, 3).await;
    let back = lapsing.host.next_many(3).await;
    assert!(back.iter().all(|delivery| parts(delivery).1 == 2));
    lapsing.all_done(&back);
}

#[tokio::test(start_paused = true)]
async fn a_closed_subscription_gives_its_partitions_up() {
    let place = Place::new(38);
    let (first, second) = (place.bus().await, place.bus().await);
    let id = first.subscribe("o", options()).await;
    publish_all(&first, 1, 1).await;
    let delivery = first.host.next().await;
    first.done(&delivery);
    first.bus.unsubscribe(id, ms(1000)).await.expect("closed");
    // Its bus lives on.
    second.subscribe("o", options()).await;
    publish_all_from(&first, 1, 1, 2).await;
    let delivery = second.host.next().await;
    assert_eq!(parts(&delivery), ("k0".to_owned(), 1));
    second.done(&delivery);
}

#[tokio::test(start_paused = true)]
async fn paused_events_keep_their_order() {
    let bus = Place::new(39).bus().await;
    let id = bus.subscribe("o", json!({ "ordered": true, "concurrency": 1 })).await;
    publish_all(&bus, 3, 3).await;
    let running = bus.host.next().await;
    bus.bus.pause(id, true);
    bus.done(&running);
    idle().await;
    assert!(bus.host.arrived().is_empty());
    bus.bus.pause(id, false);
    let mut next: HashMap<String, u32> = HashMap::from([(parts(&running).0, 1)]);
    for _ in 0..8 {
        let delivery = bus.host.next().await;
        let (key, n) = parts(&delivery);
        let due = next.entry(key).or_default();
        assert_eq!(n, *due);
        *due += 1;
        bus.done(&delivery);
    }
    until("nothing is pending", async || bus.pending("o", "default").await == 0).await;
}

#[tokio::test(start_paused = true)]
async fn a_late_success_frees_the_key_only_when_the_call_made_since_has_ended() {
    let place = Place::new(8);
    let bus = place.bus().await;
    let options = json!({ "ordered": true, "concurrency": 4, "retry": { "initialDelay": 50, "jitter": "none" } });
    bus.subscribe("o", options).await;
    publish_all(&bus, 1, 2).await;
    let slow = bus.host.next().await;
    bus.settle(&slow, timed_out());
    let again = bus.host.next().await;
    assert_eq!((parts(&again), again.attempt), (("k0".to_owned(), 0), 2));
    bus.done(&slow);
    tokio::time::sleep(ms(1000)).await;
    assert_eq!(bus.pending("o", "default").await, 1, "it is acknowledged");
    assert!(bus.host.arrived().is_empty(), "but a handler of the key runs");
    bus.settle(&again, failed("too late to matter"));
    assert_eq!(parts(&bus.host.next().await), ("k0".to_owned(), 1));
    assert!(bus.dead_letters().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_partition_is_not_given_up_with_something_pending_that_nobody_knows_of() {
    let place = Place::new(11);
    let (giver, faults) = place.faulty_bus().await;
    let layout = StreamLayout { partitions: 2, partitioning: Partitioning::Hash, ..StreamLayout::default() };
    giver.store.create_stream("o", &layout).await.unwrap();
    giver.subscribe("o", options()).await;
    let mut last = None;
    // A key of the partition that is given up when there are two members.
    for n in 0..20 {
        giver.publish_with("o", &format!("k{n}:0"), &json!({ "partitionKey": format!("k{n}") })).await;
        let delivery = giver.host.next().await;
        if delivery.partition.index == 1 {
            last = Some(delivery);
            break;
        }
        giver.done(&delivery);
    }
    let last = last.expect("keys are spread");
    let taker = place.bus().await;
    taker.subscribe("o", options()).await;
    tokio::time::sleep(ms(3000)).await;
    assert!(taker.host.arrived().is_empty(), "its handler runs");
    faults.next("settle", &[Fault::Refused]);
    giver.done(&last);
    assert_eq!(data(&taker.host.next().await), data(&last));
}
