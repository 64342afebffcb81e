//! Plays a schedule: processes that come and go over one store, until all is well and everything is done.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use futures_util::FutureExt;
use ossa::engine::env::{Env, lock};
use ossa::engine::store::memory::MemoryStore;
use ossa::engine::store::{Partition, Partitioning, Store, StreamLayout};
use rand::rngs::SmallRng;
use rand::{RngCore, SeedableRng};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::checker;
use crate::ledger::{Ledger, Life};
use crate::machine::{Clock, SimMachine, ms};
use crate::plan::{Action, PROCESSES, Plan, Weather};
use crate::process::{Process, Start};

/// What came of a schedule.
pub struct Report {
    /// Of this seed.
    pub seed: u64,
    /// What happened, in words.
    pub history: Vec<String>,
    /// Statements that did not hold.
    pub violations: Vec<String>,
    /// How often what was seen.
    pub counts: BTreeMap<String, u64>,
}

/// Longest time from the end of all trouble until everything is done, ms: leases run out, three deaths of a process are
/// waited for, retries back off.
const DRAIN_MS_MAX: u64 = 90_000;
/// Between two looks whether everything is done, ms.
const LOOK_EVERY_MS: u64 = 250;
/// A process that its handler killed is back after so long, ms.
const BACK_MS: u64 = 400;

/// Something to be undone or done later.
enum Later {
    Start(usize),
    Thaw(Life),
    Clear(Life),
    Resume(Life),
    Answer(Life),
    Subscribe(Life, usize),
}

struct World {
    plan: Arc<Plan>,
    clock: Clock,
    random: SmallRng,
    /// The store's machine.
    server: Arc<SimMachine>,
    store_name: String,
    server_env: Env,
    ledger: Arc<Mutex<Ledger>>,
    slots: [Option<Process>; PROCESSES],
    /// By time, in the order in which they were put there.
    later: BTreeMap<(u64, u64), Later>,
    put: u64,
    token: u32,
    healed: bool,
    killed: (mpsc::UnboundedSender<Life>, mpsc::UnboundedReceiver<Life>),
}

/// Plays the schedule of the seed.
pub fn play(seed: u64) -> Report {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime can be made").block_on(World::play(seed))
}

impl World {
    async fn play(seed: u64) -> Report {
        let plan = Arc::new(Plan::new(seed));
        let clock = Clock::start();
        let server = SimMachine::new(clock, 0);
        let server_env = Env::on(server.clone(), seed);
        // Stores are found by their name in all of the test program.
        let store_name = format!("simulation {}", Env::system().new_id());
        let store = MemoryStore::named(&store_name, "sim", server_env.clone());
        for (event_type, partitions) in &plan.partitions {
            let layout = StreamLayout { partitions: *partitions, partitioning: Partitioning::RoundRobin, ..StreamLayout::default() };
            store.create_stream(event_type, &layout).await.expect("made");
        }
        let ledger = Arc::new(Mutex::new(Ledger::new(clock, plan.clone(), store)));
        let random = SmallRng::seed_from_u64(seed.wrapping_add(1));
        let mut world = Self {
            plan,
            clock,
            random,
            server,
            store_name,
            server_env,
            ledger,
            slots: std::array::from_fn(|_| None),
            later: BTreeMap::new(),
            put: 0,
            token: 1,
            healed: false,
            killed: mpsc::unbounded_channel(),
        };
        world.run().await;
        let mut ledger = lock(&world.ledger);
        Report {
            seed,
            history: std::mem::take(&mut ledger.history),
            violations: std::mem::take(&mut ledger.violations),
            counts: std::mem::take(&mut ledger.counts),
        }
    }

    async fn run(&mut self) {
        for slot in 0..PROCESSES {
            self.start(slot);
        }
        let plan = self.plan.clone();
        for (at, slot, action) in &plan.actions {
            self.until(*at).await;
            self.act(*slot, action);
        }
        self.until(plan.heal_ms).await;
        self.heal();
        let end = self.clock.ms() + DRAIN_MS_MAX;
        let mut done = 0;
        while done < 2 && self.clock.ms() < end {
            self.until(self.clock.ms() + LOOK_EVERY_MS).await;
            done = if checker::is_done(&lock(&self.ledger), &self.slots) { done + 1 } else { 0 };
        }
        checker::check(&mut lock(&self.ledger), &self.slots);
    }

    /// Lets time pass, and does what is to be done meanwhile.
    async fn until(&mut self, at_ms: u64) {
        loop {
            let now = self.clock.ms();
            let due = self.later.first_key_value().map(|((at, _), _)| *at).filter(|at| *at <= at_ms);
            if let Some(due) = due
                && due <= now
            {
                if let Some((_, later)) = self.later.pop_first() {
                    self.later(later);
                }
                continue;
            }
            if now >= at_ms {
                return;
            }
            let wake = Instant::now() + ms(due.unwrap_or(at_ms) - now);
            tokio::select! {
                biased;
                Some(life) = self.killed.1.recv() => self.killed_by_handler(life),
                () = tokio::time::sleep_until(wake) => {}
            }
        }
    }

    fn put(&mut self, after_ms: u64, later: Later) {
        self.put += 1;
        self.later.insert((self.clock.ms() + after_ms, self.put), later);
    }

    fn note(&self, line: &str) {
        lock(&self.ledger).note(line);
    }

    fn of_life(&self, life: Life) -> Option<&Process> {
        self.slots.iter().flatten().find(|process| process.life() == life)
    }

    fn start(&mut self, slot: usize) {
        if let Some(process) = self.slots[slot].as_ref().filter(|process| !process.machine.is_dead()) {
            if process.is_ending() {
                self.put(BACK_MS, Later::Start(slot));
            }
            return;
        }
        let machine = SimMachine::new(self.clock, 0);
        let store = MemoryStore::named(&self.store_name, "sim", self.server_env.clone());
        let seed = self.random.next_u64();
        let groups = self.plan.members[slot].clone();
        let process = Process::start(Start { slot, groups, machine, store, seed }, &self.plan, &self.ledger, self.killed.0.clone());
        if self.healed {
            process.app.heal();
        }
        self.slots[slot] = Some(process);
    }

    fn crash(&mut self, slot: usize, down_ms: u64) {
        let Some(process) = self.slots[slot].take() else { return };
        if !process.machine.is_dead() {
            process.machine.kill();
            let mut ledger = lock(&self.ledger);
            let (name, now) = (ledger.name(process.life()), ledger.ms());
            ledger.note(format!("{name} crashes"));
            ledger.lives[process.life()].crashed_ms = Some(now);
        }
        self.put(down_ms, Later::Start(slot));
    }

    fn killed_by_handler(&mut self, life: Life) {
        let slot = self.slots.iter().position(|process| process.as_ref().is_some_and(|process| process.life() == life));
        if let Some(slot) = slot {
            self.crash(slot, BACK_MS);
        }
    }

    fn act(&mut self, slot: usize, action: &Action) {
        if let Action::Publish(n) = action {
            return self.publish(slot, *n);
        }
        self.note(&format!("process {slot}: {action:?}"));
        if let Action::StepStore(by_ms) = action {
            return self.server.step(*by_ms);
        }
        let Some(process) = self.slots[slot].as_ref().filter(|process| !process.machine.is_dead()) else { return };
        let life = process.life();
        match *action {
            Action::Crash(down_ms) => self.crash(slot, down_ms),
            Action::Freeze(for_ms) => {
                process.machine.freeze();
                self.put(for_ms, Later::Thaw(life));
            }
            Action::Stop(drain_ms, down_ms) => {
                process.stop(ms(drain_ms));
                self.put(drain_ms + down_ms, Later::Start(slot));
            }
            Action::Weather(weather, for_ms) => {
                process.way.set(weather);
                self.put(for_ms, Later::Clear(life));
            }
            Action::Step(by_ms) => process.machine.step(by_ms),
            Action::Pause(for_ms) => {
                process.pause(true);
                self.put(for_ms, Later::Resume(life));
            }
            Action::Silence(for_ms) => {
                process.app.be_silent(true);
                self.put(for_ms, Later::Answer(life));
            }
            Action::Resubscribe(group, drain_ms, after_ms) => {
                if process.unsubscribe(group, ms(drain_ms)) {
                    self.put(after_ms, Later::Subscribe(life, group));
                }
            }
            Action::Publish(_) | Action::StepStore(_) => {}
        }
    }

    /// By this process, or the next one that is there.
    fn publish(&mut self, slot: usize, n: usize) {
        let mut slots = (0..PROCESSES).map(|i| &self.slots[(slot + i) % PROCESSES]);
        let Some(process) = slots.find_map(|process| process.as_ref().filter(|process| process.machine.runs())) else { return };
        self.token += 1;
        let mut ledger = lock(&self.ledger);
        let name = ledger.name(process.life());
        ledger.note(format!("{name}: publishes event {n}: {:?}", self.plan.events[n]));
        drop(ledger);
        process.app.publish(self.token, n);
    }

    fn later(&mut self, later: Later) {
        let calm = Weather { latency_ms_max: 3, slow: 10, ..Weather::default() };
        match later {
            Later::Start(slot) => self.start(slot),
            Later::Thaw(life) => {
                self.note(&format!("life {life} goes on"));
                if let Some(process) = self.of_life(life) {
                    process.machine.thaw();
                }
            }
            Later::Clear(life) => {
                self.note(&format!("life {life} has a calm way"));
                if let Some(process) = self.of_life(life) {
                    process.way.set(calm);
                }
            }
            Later::Resume(life) => {
                if let Some(process) = self.of_life(life) {
                    process.pause(false);
                }
            }
            Later::Answer(life) => {
                if let Some(process) = self.of_life(life) {
                    process.app.be_silent(false);
                }
            }
            Later::Subscribe(life, group) => {
                if let Some(process) = self.of_life(life) {
                    process.subscribe(group);
                }
            }
        }
    }

    /// All trouble ends: what was to be undone is undone, and every process runs.
    fn heal(&mut self) {
        self.note("all is well from here on");
        for (_, later) in std::mem::take(&mut self.later) {
            self.later(later);
        }
        for slot in 0..PROCESSES {
            self.start(slot);
            if let Some(process) = &self.slots[slot] {
                process.app.heal();
            }
        }
        self.healed = true;
    }
}

/// Partitions that the store knows.
pub fn partitions(store: &MemoryStore) -> Vec<Partition> {
    store.topology().now_or_never().expect("memory answers at once").expect("it is open").partitions
}
