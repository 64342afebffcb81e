//! Anything in any order, whoever leads dying anywhere in between: what must always be so is so.

use std::collections::{HashMap, HashSet};

use proptest::prelude::{Just, ProptestConfig, any, prop, prop_oneof, proptest};
use proptest::strategy::Strategy as _;
use rand::Rng;
use serde_json::{Value, json};

use super::super::orchestra::{Outcome, Rules};
use super::super::reading::{Heard, Metrics, Named, What};
use super::super::task::{Status, Task};
use super::super::{circuit, scaling};
use super::{Place, quiet};
use crate::engine::config::Strategy;
use crate::engine::store::Table;

const AGENTS: u8 = 5;
const TASKS: u8 = 24;
const CAPABILITIES: [&str; 3] = ["x", "y", "z"];

#[derive(Clone, Debug)]
enum Step {
    Spawn {
        agent: u8,
        places: u8,
        can: u8,
    },
    Submit {
        task: u8,
        needs: u8,
        depends: u8,
        attempts: u8,
        timeout: bool,
    },
    /// Of any assignment that was ever said: `which` counts from the last.
    Says {
        which: u8,
        what: u8,
    },
    Ends {
        agent: u8,
        how: u8,
    },
    Lives,
    Cancel {
        task: u8,
    },
    Letter {
        which: u8,
        redriven: bool,
    },
    Wait {
        ms: u16,
    },
    Commit {
        all: bool,
    },
    /// Whoever led dies: before it wrote, before it said what it wrote, or behind that.
    TakeOver {
        at: u8,
    },
    Flushed,
}

fn step() -> impl proptest::strategy::Strategy<Value = Step> {
    prop_oneof![
        3 => (0..AGENTS, 1..4_u8, 0..8_u8).prop_map(|(agent, places, can)| Step::Spawn { agent, places, can }),
        8 => (0..TASKS, 0..8_u8, 0..6_u8, 1..4_u8, any::<bool>())
            .prop_map(|(task, needs, depends, attempts, timeout)| Step::Submit { task, needs, depends, attempts, timeout }),
        12 => (0..12_u8, 0..6_u8).prop_map(|(which, what)| Step::Says { which, what }),
        2 => (0..AGENTS, 0..3_u8).prop_map(|(agent, how)| Step::Ends { agent, how }),
        3 => Just(Step::Lives),
        1 => (0..TASKS).prop_map(|task| Step::Cancel { task }),
        2 => (0..4_u8, any::<bool>()).prop_map(|(which, redriven)| Step::Letter { which, redriven }),
        6 => (1..4_000_u16).prop_map(|ms| Step::Wait { ms }),
        6 => any::<bool>().prop_map(|all| Step::Commit { all }),
        2 => (0..3_u8).prop_map(|at| Step::TakeOver { at }),
        1 => Just(Step::Flushed),
    ]
}

/// A world in which events are given again to whoever leads next, until what they led to was written.
struct World {
    place: Place,
    /// Heard since the last write.
    unsettled: Vec<(String, Event)>,
    /// Of tasks: how often the end was written, by the number of lives.
    over: HashMap<String, (Status, u32)>,
    redriven: HashSet<String>,
}

#[derive(Clone, Debug)]
enum Event {
    Spawn(u8, u8, u8),
    Submit(u8, u8, u8, u8, bool),
    Said(String, String, u32, u8),
    Ends(u8, u8),
    Lives(u8),
    Cancel(u8),
}

fn some_of(bits: u8) -> Vec<String> {
    CAPABILITIES.iter().enumerate().filter(|(n, _)| bits >> n & 1 == 1).map(|(_, name)| (*name).to_owned()).collect()
}

impl World {
    fn new(strategy: Strategy) -> Self {
        let rules = Rules {
            circuit: circuit::Rules { failure_threshold: 0.6, monitoring_period_ms: 10_000, minimum_calls: 3, reset_timeout_ms: 1_000 },
            scaling: scaling::Rules { min: 1, max: 3, up: 0.8, down: 0.3, cooldown_ms: 5_000 },
            agent_timeout_ms: 12_000,
            ..quiet(strategy)
        };
        Self { place: Place::new(rules), unsettled: Vec::new(), over: HashMap::new(), redriven: HashSet::new() }
    }

    fn hear(&mut self, id: String, event: &Event) {
        let agent = |n: &u8| format!("a{n}");
        let what = match event {
            Event::Spawn(n, places, can) => What::Spawned(super::Spawned {
                agent: agent(n),
                kind: "worker".to_owned(),
                capabilities: some_of(*can),
                orchestrator: None,
                max_tasks: u32::from(*places),
                inbox: None,
            }),
            Event::Submit(task, needs, depends, attempts, timeout) => {
                // On tasks with lower numbers only: no circles.
                let on: Vec<String> = (0..*depends).filter_map(|n| task.checked_sub(1 + n * 3)).map(|n| format!("t{n}")).collect();
                let mut task = json!({
                    "id": format!("t{task}"), "type": "work", "priority": needs, "requiredCapabilities": some_of(*needs),
                    "dependencies": on, "maxAttempts": attempts, "estimatedDuration": 500,
                });
                if *timeout {
                    task["timeoutMs"] = json!(1_500);
                }
                let data = serde_json::value::RawValue::from_string(format!("[{attempts}]")).unwrap();
                What::Distribute(Task::read(task, data, None, self.place.now_ms).map(Box::new))
            }
            Event::Said(task, agent, attempt, what) => {
                let of = Named { task: task.clone(), agent: agent.clone(), attempt: Some(*attempt) };
                match what {
                    0 => What::TaskStarted(of),
                    1..=2 => What::TaskCompleted { of, result: None, duration_ms: None },
                    3 => What::TaskFailed { of, error: "permanent".to_owned(), permanent: true, handed_back: false },
                    4 => What::TaskFailed { of, error: "back".to_owned(), permanent: false, handed_back: true },
                    _ => What::TaskFailed { of, error: "boom".to_owned(), permanent: false, handed_back: false },
                }
            }
            Event::Ends(n, 0) => What::Failed { agent: agent(n), error: "crash".to_owned() },
            Event::Ends(n, 1) => What::Terminated { agent: agent(n), reason: "over".to_owned(), inbox: None },
            Event::Ends(n, _) => What::Stopped { agent: agent(n), reason: "over".to_owned(), draining: true, inbox: None },
            Event::Lives(n) => What::Metrics(Metrics { source: agent(n), ..Metrics::default() }),
            Event::Cancel(task) => What::TaskCancelled { task: format!("t{task}"), reason: "over".to_owned() },
        };
        let now_ms = self.place.now_ms;
        let outcome = self.place.orchestra.hear(Heard { place: id, at_ms: now_ms, is_own: false, redriven: false, what }, now_ms);
        assert!(!matches!(outcome, Outcome::Refuse(_)), "{event:?}: {outcome:?}");
    }

    fn event(&mut self, event: Event) {
        let id = self.place.next_id();
        self.hear(id.clone(), &event);
        self.unsettled.push((id, event));
    }

    fn give_out(&mut self) {
        let place = &mut self.place;
        place.orchestra.give_out(place.now_ms, &mut || place.random.random());
    }

    fn commit(&mut self, all: bool) {
        self.give_out();
        self.place.commit(all);
        self.unsettled.clear();
        self.check_ends();
    }

    fn take_over(&mut self, at: u8) {
        self.give_out();
        if at > 0 {
            let write = self.place.orchestra.take_write(at > 1, self.place.now_ms);
            if let Some(write) = write {
                self.place.store.apply(&write);
            }
        }
        if at > 1 {
            self.place.speak();
        }
        self.place.take_over();
        // Nobody told the server that they are seen to.
        for (id, event) in std::mem::take(&mut self.unsettled) {
            self.hear(id.clone(), &event);
            self.unsettled.push((id, event));
        }
        self.check_ends();
    }

    fn assignment(&self, which: u8) -> Option<(String, String, u32)> {
        let mut said = self.place.said.iter().rev().filter(|saying| saying.event_type == "task.assigned");
        let data: Value = serde_json::from_str(&said.nth(usize::from(which))?.data).unwrap();
        let text = |key: &str| data[key].as_str().unwrap().to_owned();
        Some((text("taskId"), text("agentId"), u32::try_from(data["attempt"].as_u64().unwrap()).unwrap()))
    }

    fn take(&mut self, step: &Step) {
        match step.clone() {
            Step::Spawn { agent, places, can } => self.event(Event::Spawn(agent, places, can)),
            Step::Submit { task, needs, depends, attempts, timeout } => self.event(Event::Submit(task, needs, depends, attempts, timeout)),
            Step::Says { which, what } => {
                if let Some((task, agent, attempt)) = self.assignment(which) {
                    self.event(Event::Said(task, agent, attempt, what));
                }
            }
            Step::Ends { agent, how } => self.event(Event::Ends(agent, how)),
            Step::Lives => (0..AGENTS).for_each(|agent| self.event(Event::Lives(agent))),
            Step::Cancel { task } => self.event(Event::Cancel(task)),
            Step::Letter { which, redriven } => self.letter(which, redriven),
            Step::Wait { ms } => {
                self.place.now_ms += u64::from(ms);
                self.place.orchestra.tick(self.place.now_ms);
                self.commit(true);
            }
            Step::Commit { all } => self.commit(all),
            Step::TakeOver { at } => self.take_over(at),
            Step::Flushed => {
                self.commit(true);
                self.place.write_whole();
            }
        }
    }

    /// The announcement of a final failure comes back, and is redriven later.
    fn letter(&mut self, which: u8, redriven: bool) {
        self.commit(true);
        let failed = self.place.told("task.failed");
        let Some(task) = failed.iter().rev().nth(usize::from(which)).and_then(|data| data["taskId"].as_str()) else { return };
        let task = task.to_owned();
        let letter = self.place.given_up(&task);
        let before = self.place.orchestra.ended.get(&task).map(|ended| (ended.status, ended.lettered));
        // Only what is a dead letter can be.
        let redriven = redriven && before.is_none_or(|(_, lettered)| lettered);
        let outcome = self.place.hear_own(letter, redriven);
        match before {
            Some((Status::Failed, true)) if redriven => {
                assert!(matches!(outcome, Outcome::Done));
                self.redriven.insert(task);
            }
            Some((Status::Failed, _)) => assert!(matches!(outcome, Outcome::Dead { .. })),
            _ => assert!(matches!(outcome, Outcome::Done)),
        }
        self.commit(true);
    }

    /// What is over in the store stays so, unless it is redriven.
    fn check_ends(&mut self) {
        for (id, text) in self.place.store.texts(Table::Tasks) {
            let task: Task = serde_json::from_str(text).unwrap();
            match self.over.get(id).copied() {
                Some(_) if self.redriven.remove(id) => drop(self.over.remove(id)),
                Some((status, given)) => assert_eq!((task.status, task.given), (status, given), "{id} ended twice"),
                None => {}
            }
            if task.status.is_end() {
                self.over.insert(id.clone(), (task.status, task.given));
            }
        }
    }

    fn check(&self) {
        let orchestra = &self.place.orchestra;
        let mut with_agents = 0;
        for task in orchestra.tasks.values() {
            assert!(!orchestra.ended.contains_key(&task.id) && !task.status.is_end(), "{task:?}");
            let who: Vec<&str> =
                orchestra.agents.iter().filter(|agent| agent.running.contains(&task.id)).map(|agent| agent.id.as_str()).collect();
            if task.status.is_with_agent() {
                with_agents += 1;
                assert_eq!(who, [task.agent_id.as_deref().unwrap()], "{task:?}");
            } else {
                assert!(who.is_empty(), "{task:?}");
            }
            let open = task.dependencies.iter().filter(|id| orchestra.ended.get(*id).is_none_or(|ended| ended.status != Status::Completed));
            if task.status == Status::Waiting {
                assert!(open.count() == task.waiting_for.len() && !task.waiting_for.is_empty(), "{task:?}");
            }
        }
        let queued = orchestra.tasks.values().filter(|task| task.status == Status::Queued).count();
        assert_eq!(queued, orchestra.queue.len());
        let mut free = 0;
        for (agent, seat) in orchestra.agents.iter().zip(&orchestra.seats) {
            with_agents -= agent.running.len();
            assert!(agent.running.is_empty() || agent.standing.is_alive(), "{agent:?}");
            let running = u32::try_from(agent.running.len()).unwrap();
            assert!(running + seat.free <= agent.max_tasks, "{agent:?} {seat:?}");
            free += u64::from(seat.free);
        }
        assert_eq!((with_agents, free), (0, orchestra.free));
        assert!(orchestra.to_look_at.is_empty());
        let bytes: usize = orchestra.tasks.values().map(|task| task.data.get().len()).sum();
        assert_eq!(orchestra.bytes, bytes);
        for pool in orchestra.pools.iter() {
            assert!(orchestra.living().filter(|(_, agent)| agent.pool == pool.id).count() <= 3, "{pool:?}");
        }
    }

    /// Agents that can do all come and work on: then all is done.
    fn finish(&mut self) {
        (0..TASKS).for_each(|task| self.event(Event::Submit(task, 0, 0, 1, false)));
        for round in 0..2_000 {
            if self.place.orchestra.tasks.is_empty() {
                return;
            }
            if round % 50 == 0 {
                (0..AGENTS).for_each(|agent| self.event(Event::Spawn(agent, 3, 7)));
            }
            self.commit(round % 3 == 0);
            let mine: Vec<(String, String, u32)> = (0..15).filter_map(|which| self.assignment(which)).collect();
            for (task, agent, attempt) in mine {
                self.event(Event::Said(task, agent, attempt, 1));
            }
            if round % 7 == 0 {
                self.take_over(u8::try_from(round % 3).unwrap());
            }
            self.place.now_ms += 200;
            self.place.orchestra.tick(self.place.now_ms);
            self.check();
        }
        panic!("not over: {:?}", self.place.orchestra.tasks.values().collect::<Vec<_>>());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens(steps in prop::collection::vec(step(), 1..150), strategy in 0..5_usize) {
        let strategy = [
            Strategy::RoundRobin, Strategy::LeastLoaded, Strategy::CapabilityBased, Strategy::PerformanceWeighted, Strategy::Predictive,
        ][strategy];
        let mut world = World::new(strategy);
        for step in &steps {
            world.take(step);
            world.check();
        }
        world.commit(true);
        world.place.must_be_kept();
        world.place.write_whole();
        world.place.must_be_kept();
        world.finish();
    }
}
