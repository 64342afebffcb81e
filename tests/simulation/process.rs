//! A process: a machine, a bus on it, and its handlers.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::Duration;

use ossa::engine::bus::Bus;
use ossa::engine::config::resolve_bus;
use ossa::engine::consume::Verdict;
use ossa::engine::env::{Env, lock};
use ossa::engine::error::{Code, Error, Result};
use ossa::engine::host::{Delivery, Host, Kind, Lifecycle, Token};
use ossa::engine::options::{NackOptions, SubscribeOptions};
use ossa::engine::settle::Failure;
use ossa::engine::store::memory::MemoryStore;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde_json::json;
use tokio::sync::Notify;
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::Instant;

use crate::ledger::{Ledger, Life};
use crate::machine::{SimMachine, ms};
use crate::plan::{GroupPlan, Plan};
use crate::wire::{Way, Wire};

/// Pause before what failed is tried again, as users' programs do.
const AGAIN: Duration = Duration::from_millis(300);

/// One life of a process.
pub struct Process {
    /// What it runs on.
    pub machine: Arc<SimMachine>,
    /// Its way to the store.
    pub way: Arc<Way>,
    /// Its handlers.
    pub app: Arc<App>,
    bus: Arc<Bus>,
    env: Env,
    plan: Arc<Plan>,
    subscriptions: Arc<Mutex<Subscriptions>>,
    stopping: AtomicBool,
}

/// Ids of subscriptions: each is used once, and says by its remainder of which group it is.
struct Subscriptions {
    open: Vec<Option<u32>>,
    count: u32,
}

impl Subscriptions {
    fn next(&mut self, group: usize) -> u32 {
        let groups = u32::try_from(self.open.len()).expect("few");
        let id = u32::try_from(group).expect("few") + self.count * groups;
        self.count += 1;
        self.open[group] = Some(id);
        id
    }
}

/// What a life begins with.
pub struct Start {
    /// Its slot.
    pub slot: usize,
    /// Groups it subscribes to.
    pub groups: Vec<usize>,
    /// What it runs on.
    pub machine: Arc<SimMachine>,
    /// Its connection to the store.
    pub store: Arc<MemoryStore>,
    /// Of its ids, handlers and faults.
    pub seed: u64,
}

/// The program of its user.
pub struct App {
    machine: Arc<SimMachine>,
    ledger: Arc<Mutex<Ledger>>,
    life: Life,
    plan: Arc<Plan>,
    env: Env,
    random: Mutex<SmallRng>,
    bus: OnceLock<Weak<Bus>>,
    /// Publishes on their way: event by token.
    publishing: Mutex<BTreeMap<Token, usize>>,
    silent_since: Mutex<Option<Instant>>,
    /// All is well: handlers succeed.
    healed: AtomicBool,
    /// Told then. Not a `watch`, which wakes in an order of chance.
    heals: Notify,
    /// Told when a handler kills its process.
    killed: UnboundedSender<Life>,
}

/// How a handler behaves.
struct Behaviour {
    time: Duration,
    verdict: Verdict,
    /// After it was too slow: when it ends after all, and whether well.
    late: Option<(Duration, bool)>,
}

impl App {
    fn group(&self, subscription: u32) -> &GroupPlan {
        // Each subscription made has an id of its own, by group.
        &self.plan.groups[subscription as usize % self.plan.groups.len()]
    }

    fn behaviour(&self, group: &GroupPlan) -> Behaviour {
        let random = &mut *lock(&self.random);
        let time = ms(if random.random_range(0..10) == 0 { random.random_range(0..400) } else { random.random_range(0..20) });
        let plain = |verdict| Behaviour { time, verdict, late: None };
        if self.healed.load(Ordering::Relaxed) || random.random_range(0..100) >= self.plan.trouble {
            return plain(Verdict::Done);
        }
        match random.random_range(0..20) {
            0..8 => plain(Verdict::Failed(Failure::Error("boom".into()))),
            8 => plain(Verdict::Failed(Failure::Permanent("never".into()))),
            9 => {
                let delay_ms = random.random_bool(0.5).then(|| random.random_range(0..800));
                plain(Verdict::Failed(Failure::Nack(NackOptions { delay_ms, ..NackOptions::default() })))
            }
            10 => plain(Verdict::Failed(Failure::Nack(NackOptions { dead_letter: true, ..NackOptions::default() }))),
            11 => plain(Verdict::HandBack),
            12..15 => Behaviour { time: ms(random.random_range(500..12_000)), verdict: Verdict::Done, late: None },
            _ => {
                // None hangs for ever: a subscription of which too many do gets nothing more, and that is right.
                let late = ms(if random.random_bool(0.8) { random.random_range(0..4000) } else { 60_000 });
                let late = Some((late, random.random_bool(0.7)));
                Behaviour { time: ms(group.timeout_ms), verdict: Verdict::Failed(Failure::TimedOut("too slow".into())), late }
            }
        }
    }

    fn settle(&self, delivery: &Delivery, called: Option<(usize, usize)>, verdict: Verdict, is_late: bool) {
        if let Some((n, index)) = called {
            let group = self.group(delivery.subscription).name;
            let mut ledger = lock(&self.ledger);
            let now = ledger.ms();
            let name = ledger.name(self.life);
            ledger.note(format!("{name}: {group}: handler of event {n}{} {verdict:?}", if is_late { ", late:" } else { "" }));
            let call = &mut ledger.course(group, n).calls[index];
            match verdict {
                Verdict::Done => (call.succeeded_ms, call.ended_ms) = (Some(now), Some(now)),
                Verdict::Failed(Failure::TimedOut(_)) => call.timed_out_ms = Some(now),
                _ => call.ended_ms = Some(now),
            }
        }
        if let Some(bus) = self.bus.get().and_then(Weak::upgrade) {
            bus.settle(vec![(delivery.token, verdict)], 0);
        }
    }

    /// A handler takes its time, no longer than until all is well.
    async fn pass(&self, time: Duration) {
        if self.healed.load(Ordering::Relaxed) {
            return tokio::time::sleep(time).await;
        }
        let _ = tokio::time::timeout(time, self.heals.notified()).await;
    }

    /// A handler runs.
    fn run(self: &Arc<Self>, delivery: Delivery) {
        let group = self.group(delivery.subscription).clone();
        let called = lock(&self.ledger).called(self.life, group.name, &delivery);
        let poison = called.is_some_and(|(n, _)| self.plan.events[n].poison);
        let behaviour = self.behaviour(&group);
        let app = self.clone();
        self.env.spawn(async move {
            app.pass(behaviour.time).await;
            if poison {
                let _ = app.killed.send(app.life);
                std::future::pending::<()>().await;
            }
            app.settle(&delivery, called, behaviour.verdict, false);
            if let Some((time, well)) = behaviour.late {
                app.pass(time).await;
                let verdict = if well { Verdict::Done } else { Verdict::Failed(Failure::Error("late".into())) };
                app.settle(&delivery, called, verdict, true);
            }
        });
    }

    /// Publishes the event, and again while that fails and it is safe.
    pub fn publish(&self, token: Token, n: usize) {
        let Some(bus) = self.bus.get().and_then(Weak::upgrade) else { return };
        let event = &self.plan.events[n];
        lock(&self.publishing).insert(token, n);
        bus.publish(token, format!("{}\t{}\t{n}\n", event.event_type, event.options));
    }

    /// Publishes that were not answered.
    pub fn publishing(&self) -> usize {
        lock(&self.publishing).len()
    }

    /// Its thread falls silent, or answers again.
    pub fn be_silent(&self, silent: bool) {
        *lock(&self.silent_since) = silent.then(Instant::now);
    }

    /// From now on handlers succeed.
    pub fn heal(&self) {
        self.healed.store(true, Ordering::Relaxed);
        self.heals.notify_waiters();
        self.be_silent(false);
    }
}

/// What the bus calls; a strong reference would be a circle.
struct Ears(Arc<App>);

impl Host for Ears {
    fn published(&self, results: Vec<(Token, Result<Arc<str>>)>) {
        let app = &self.0;
        if app.machine.is_dead() {
            return;
        }
        for (token, result) in results {
            let Some(n) = lock(&app.publishing).remove(&token) else { continue };
            let result = result.map(|id| id.to_string()).map_err(|error| error.to_string());
            let mut ledger = lock(&app.ledger);
            let name = ledger.name(app.life);
            ledger.note(format!("{name}: publishing event {n}: {result:?}"));
            let again = result.is_err() && app.plan.events[n].idempotent;
            ledger.published.entry(n).or_default().push(result);
            drop(ledger);
            if again {
                let app = app.clone();
                app.env.clone().spawn(async move {
                    tokio::time::sleep(AGAIN).await;
                    // Its old name is free again.
                    app.publish(token, n);
                });
            }
        }
    }

    fn deliver(&self, batch: Vec<Delivery>) {
        if self.0.machine.is_dead() {
            return;
        }
        for delivery in batch {
            self.0.run(delivery);
        }
    }

    fn settled(&self, _: Vec<(u32, Option<Error>)>) {}

    fn lifecycle(&self, events: Vec<Lifecycle>) {
        let app = &self.0;
        for Lifecycle(kind, about) in events {
            let mut ledger = lock(&app.ledger);
            let name = ledger.name(app.life);
            match kind {
                Kind::DataLoss => ledger.violated(format!("{name}: data loss: {about}")),
                Kind::Error if about["code"] == "ERR_INTERNAL" => ledger.violated(format!("{name}: a defect: {about}")),
                // What it says of consumers has names in it that differ from process to process.
                Kind::Log if about.to_string().contains("had lapsed") => ledger.note(format!("{name}: the lease had lapsed")),
                _ => {}
            }
        }
    }

    fn listens(&self, kind: Kind) -> bool {
        matches!(kind, Kind::DataLoss | Kind::Error | Kind::Log)
    }

    fn silent_for(&self) -> Duration {
        lock(&self.0.silent_since).map_or(Duration::ZERO, |since| since.elapsed())
    }
}

impl Process {
    /// A new life. It connects and subscribes to these groups by itself.
    pub fn start(at: Start, plan: &Arc<Plan>, ledger: &Arc<Mutex<Ledger>>, killed: UnboundedSender<Life>) -> Self {
        let Start { slot, groups, machine, store, seed } = at;
        let life = lock(ledger).begins(slot);
        let env = Env::on(machine.clone(), seed);
        let way = Way::new(machine.clone(), ledger.clone(), life, SmallRng::seed_from_u64(seed ^ 1));
        let app = Arc::new(App {
            machine: machine.clone(),
            ledger: ledger.clone(),
            life,
            plan: plan.clone(),
            env: env.clone(),
            random: Mutex::new(SmallRng::seed_from_u64(seed ^ 2)),
            bus: OnceLock::new(),
            publishing: Mutex::default(),
            silent_since: Mutex::default(),
            healed: AtomicBool::new(false),
            heals: Notify::new(),
            killed,
        });
        let mut config = plan.config.clone();
        config["redis"] = json!({ "url": "memory://" });
        let config = resolve_bus(&config, &|_| None).expect("a right configuration");
        let bus = Bus::with_store(config, None, Wire::over(store, way.clone()), Arc::new(Ears(app.clone())), env.clone());
        let _ = app.bus.set(Arc::downgrade(&bus));
        let subscriptions = Subscriptions { open: vec![None; plan.groups.len()], count: 0 };
        let subscriptions = Arc::new(Mutex::new(subscriptions));
        let process =
            Self { machine, way, app, bus: bus.clone(), env, plan: plan.clone(), subscriptions, stopping: AtomicBool::new(false) };
        {
            let mut ledger = lock(ledger);
            let name = ledger.name(life);
            ledger.note(format!("{name} starts with {groups:?}"));
        }
        let subscribing: Vec<_> = groups.iter().map(|group| process.subscribing(*group)).collect();
        process.env.spawn(async move {
            bus.connect().await.expect("memory opens");
            for subscribing in subscribing {
                subscribing.await;
            }
        });
        process
    }

    /// Whose it is.
    pub fn life(&self) -> Life {
        self.way.life
    }

    /// Subscribes to the group, and again while that fails.
    fn subscribing(&self, group: usize) -> impl Future<Output = ()> + Send + 'static {
        let (bus, plan, subscriptions) = (self.bus.clone(), self.plan.groups[group].clone(), self.subscriptions.clone());
        let (ledger, life) = (self.app.ledger.clone(), self.life());
        let options = SubscribeOptions::read(plan.options.clone()).expect("right options");
        async move {
            loop {
                let id = lock(&subscriptions).next(group);
                match bus.subscribe(id, plan.pattern, options.clone()).await {
                    Ok(_) => return,
                    // It was closed in the meantime.
                    Err(error) if error.code == Code::Closed => return,
                    Err(error) => {
                        {
                            let mut ledger = lock(&ledger);
                            let name = ledger.name(life);
                            ledger.note(format!("{name}: subscribing to {}: {error}", plan.name));
                        }
                        tokio::time::sleep(AGAIN).await;
                    }
                }
            }
        }
    }

    /// Subscribes to the group, unless it is subscribed to.
    pub fn subscribe(&self, group: usize) {
        if lock(&self.subscriptions).open[group].is_none() {
            self.env.spawn(self.subscribing(group));
        }
    }

    /// Closes the subscription to the group. Answers whether there was one.
    pub fn unsubscribe(&self, group: usize, drain: Duration) -> bool {
        let Some(id) = lock(&self.subscriptions).open[group].take() else { return false };
        self.gives_up_after(drain);
        let bus = self.bus.clone();
        self.env.spawn(async move { drop(bus.unsubscribe(id, drain).await) });
        true
    }

    /// Pauses all of its subscriptions, or resumes them.
    pub fn pause(&self, paused: bool) {
        for id in lock(&self.subscriptions).open.iter().flatten() {
            self.bus.pause(*id, paused);
        }
    }

    /// Ends it in good order, within `drain`.
    pub fn stop(&self, drain: Duration) {
        if self.stopping.swap(true, Ordering::Relaxed) {
            return;
        }
        self.gives_up_after(drain);
        let (bus, ledger, life, machine) = (self.bus.clone(), self.app.ledger.clone(), self.life(), self.machine.clone());
        self.env.spawn(async move {
            bus.disconnect(drain).await;
            {
                let mut ledger = lock(&ledger);
                let name = ledger.name(life);
                ledger.note(format!("{name} has ended"));
            }
            // exit()
            machine.kill();
        });
    }

    /// Whether it was told to end, and has not.
    pub fn is_ending(&self) -> bool {
        self.stopping.load(Ordering::Relaxed) && !self.machine.is_dead()
    }

    /// Handlers that run longer are not waited for.
    fn gives_up_after(&self, drain: Duration) {
        let mut ledger = lock(&self.app.ledger);
        let at = ledger.ms() + u64::try_from(drain.as_millis()).expect("short");
        let life = self.life();
        ledger.lives[life].gave_up_ms.push(at);
    }

    /// Events in flight.
    pub fn in_flight(&self) -> u64 {
        self.bus.metrics()["eventsInFlight"].as_u64().expect("a number")
    }
}
