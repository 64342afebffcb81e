//! A schedule of a seed: what is published, who subscribes to what, and what goes wrong when.

use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use crate::machine::EPOCH_MS;

/// Processes side by side.
pub const PROCESSES: usize = 3;

/// A consumer group, and what it reads.
#[derive(Clone, Debug)]
pub struct GroupPlan {
    /// Its name.
    pub name: &'static str,
    /// Its pattern.
    pub pattern: &'static str,
    /// One event of a key at a time, in order.
    pub ordered: bool,
    /// As JSON.
    pub options: Value,
    /// After how many ms a handler counts as timed out.
    pub timeout_ms: u64,
}

/// An event.
#[derive(Clone, Debug)]
pub struct EventPlan {
    /// Its type.
    pub event_type: &'static str,
    /// Its `partitionKey`.
    pub key: Option<String>,
    /// Published once only, however often it is tried.
    pub idempotent: bool,
    /// Its own ttl, ms.
    pub ttl_ms: Option<u64>,
    /// Its handlers kill their process.
    pub poison: bool,
    /// For `publish()`.
    pub options: Value,
}

/// What goes wrong on the way to the store, and back.
#[derive(Clone, Copy, Debug, Default)]
pub struct Weather {
    /// Longest time each way, ms.
    pub latency_ms_max: u64,
    /// Of 100 calls, so many are slowed.
    pub slow: u32,
    /// … do not arrive.
    pub not_reached: u32,
    /// … are done, and reported as failed.
    pub reply_lost: u32,
    /// … are refused for good.
    pub refused: u32,
}

/// One thing that is done to the buses.
#[derive(Clone, Debug)]
pub enum Action {
    /// Publishes the event with that number.
    Publish(usize),
    /// The process ends at once; another one takes its place after so many ms.
    Crash(u64),
    /// The process stands still for so many ms.
    Freeze(u64),
    /// The process is told to end, with so many ms for its handlers; another one takes its place after so many ms.
    Stop(u64, u64),
    /// Its way to the store is so for so many ms.
    Weather(Weather, u64),
    /// Its wall clock is stepped.
    Step(i64),
    /// The store's wall clock is stepped.
    StepStore(i64),
    /// Its subscriptions are paused for so many ms.
    Pause(u64),
    /// The thread of its handlers is silent for so many ms.
    Silence(u64),
    /// One of its subscriptions is closed, with so many ms for its handlers, and made again after so many ms.
    Resubscribe(usize, u64, u64),
}

/// A schedule.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Groups.
    pub groups: Vec<GroupPlan>,
    /// Indexes of the groups that each process subscribes to.
    pub members: [Vec<usize>; PROCESSES],
    /// Partitions by type, where there are several.
    pub partitions: Vec<(&'static str, u16)>,
    /// Of all buses.
    pub config: Value,
    /// Events by number.
    pub events: Vec<EventPlan>,
    /// What happens, to whom, and when, ms; in order of time.
    pub actions: Vec<(u64, usize, Action)>,
    /// From here on all is well.
    pub heal_ms: u64,
    /// Of 100 calls of handlers, so many go wrong in some way.
    pub trouble: u32,
}

/// Types, the keyed ones last.
const TYPES: [&str; 5] = ["work.a", "work.b", "work.c.d", "keyed.a", "keyed.b"];

fn groups(random: &mut SmallRng) -> Vec<GroupPlan> {
    let mut groups = Vec::new();
    let patterns = [("plain", "work.a", false), ("wild", "work.**", false), ("second", "keyed.a", false), ("ordered", "keyed.*", true)];
    for (name, pattern, ordered) in patterns {
        let concurrency = random.random_range(1..5);
        let mut options =
            json!({ "group": name, "concurrency": concurrency, "maxUnacknowledged": concurrency + random.random_range(0..6) });
        if ordered {
            options["ordered"] = true.into();
        } else if random.random_range(0..5) == 0 {
            let size_max = random.random_range(1..5);
            options["batch"] = json!({ "maxSize": size_max, "maxWaitMs": random.random_range(0..50) });
            options["maxUnacknowledged"] = (size_max + random.random_range(0..6)).into();
        }
        groups.push(GroupPlan { name, pattern, ordered, options, timeout_ms: random.random_range(50..1500) });
    }
    groups
}

fn event(random: &mut SmallRng, n: usize, keys: u32) -> EventPlan {
    let event_type = *TYPES.choose(random).expect("there are types");
    let mut options = json!({});
    let key = event_type.starts_with("keyed").then(|| format!("k{}", random.random_range(0..keys))).filter(|_| random.random_bool(0.9));
    if let Some(key) = &key {
        options["partitionKey"] = key.as_str().into();
    }
    if random.random_bool(0.3) {
        options["priority"] = (*["critical", "high", "low"].choose(random).expect("some")).into();
    }
    let idempotent = random.random_bool(0.3);
    if idempotent {
        options["idempotencyKey"] = format!("once-{n}").into();
    }
    match random.random_range(0..10) {
        0 => options["delayMs"] = random.random_range(1..3000).into(),
        1 => options["deliverAt"] = (EPOCH_MS + random.random_range(0..9000_u64)).into(),
        _ => {}
    }
    let ttl_ms = random.random_bool(0.05).then(|| random.random_range(1..8000_u32));
    if let Some(ttl_ms) = ttl_ms {
        options["ttl"] = (f64::from(ttl_ms) / 1000.0).into();
    }
    if random.random_bool(0.1) {
        options["retry"] = json!({ "maxAttempts": random.random_range(0..3) });
    }
    EventPlan { event_type, key, idempotent, ttl_ms: ttl_ms.map(u64::from), poison: random.random_bool(0.002), options }
}

fn weather(random: &mut SmallRng) -> Weather {
    let mut weather = Weather { latency_ms_max: random.random_range(1..20), slow: random.random_range(0..60), ..Weather::default() };
    match random.random_range(0..7) {
        0 => (weather.latency_ms_max, weather.slow) = (random.random_range(100..15_000), random.random_range(10..100)),
        1 => weather.not_reached = 100,
        2 => weather.not_reached = random.random_range(5..60),
        3 => weather.reply_lost = random.random_range(5..60),
        4 => weather.reply_lost = 100,
        5 => (weather.not_reached, weather.reply_lost) = (random.random_range(0..30), random.random_range(0..30)),
        _ => weather.refused = random.random_range(5..60),
    }
    weather
}

fn fault(random: &mut SmallRng) -> Action {
    let down = random.random_range(0..6000);
    match random.random_range(0..20) {
        0..4 => Action::Crash(down),
        4..8 => Action::Freeze(if random.random_bool(0.7) { random.random_range(6000..16_000) } else { random.random_range(1..6000) }),
        8..10 => Action::Stop(random.random_range(0..1500), down),
        10..15 => Action::Weather(weather(random), random.random_range(100..14_000)),
        15 => Action::Step(random.random_range(-6000..3_600_000)),
        16 => Action::StepStore(random.random_range(-4000..4000)),
        17 => Action::Pause(random.random_range(1..5000)),
        18 => Action::Silence(random.random_range(500..9000)),
        _ => Action::Resubscribe(random.random_range(0..4), random.random_range(0..800), random.random_range(0..3000)),
    }
}

impl Plan {
    /// The schedule of the seed.
    pub fn new(seed: u64) -> Self {
        let random = &mut SmallRng::seed_from_u64(seed);
        let groups = groups(random);
        let mut members: [Vec<usize>; PROCESSES] = std::array::from_fn(|_| (0..groups.len()).filter(|_| random.random_bool(0.7)).collect());
        for group in 0..groups.len() {
            if !members.iter().any(|of| of.contains(&group)) {
                members[group % PROCESSES].push(group);
            }
        }
        let keys = random.random_range(1..6);
        let events: Vec<EventPlan> = (0..random.random_range(8..60)).map(|n| event(random, n, keys)).collect();
        let length = random.random_range(1000..8000);
        let mut actions: Vec<(u64, usize, Action)> = Vec::new();
        let burst = random.random_bool(0.3);
        for n in 0..events.len() {
            let at = if burst { random.random_range(0..length / 8) } else { random.random_range(0..length) };
            actions.push((at, random.random_range(0..PROCESSES), Action::Publish(n)));
        }
        for _ in 0..random.random_range(0..6) {
            actions.push((random.random_range(0..length), random.random_range(0..PROCESSES), fault(random)));
        }
        actions.sort_by_key(|(at, _, _)| *at);
        let partitions = TYPES.into_iter().map(|name| (name, random.random_range(1..4))).filter(|(_, count)| *count > 1).collect();
        let jitter = *["none", "full", "equal"].choose(random).expect("some");
        let config = json!({
            "performance": { "batchSize": random.random_range(1..20), "batchTimeout": random.random_range(200..1000) },
            "defaults": { "retry": { "maxAttempts": random.random_range(0..5), "initialDelay": random.random_range(1..200), "jitter": jitter } },
            "limits": { "stallTimeoutMs": 3000 },
            "monitoring": { "enabled": false },
        });
        let heal_ms = length + random.random_range(0..6000);
        Self { groups, members, partitions, config, events, actions, heal_ms, trouble: random.random_range(0..40) }
    }
}

impl Plan {
    /// Whether the store's clock is stepped.
    pub fn steps_store(&self) -> bool {
        self.actions.iter().any(|(_, _, action)| matches!(action, Action::StepStore(_)))
    }
}
