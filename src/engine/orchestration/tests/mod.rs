//! The machine by itself: events, a clock turned by hand, and a store that is a map.

mod agents;
mod circuits;
mod kept;
mod makespan;
mod random;
mod scaling;
mod strategies;
mod tasks;

use std::collections::{BTreeMap, HashMap};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::orchestra::{Found, Orchestra, Outcome, Rules, Saying};
use super::reading::{Heard, Metrics, Named, Spawned, What};
use super::task::Task;
use super::{circuit, scaling as scaling_rules};
use crate::engine::ask::Letters;
use crate::engine::config::Strategy;
use crate::engine::store::{BoardWrite, Table};

const START_MS: u64 = 1_700_000_000_000;
/// Far above all that a test waits for.
const LONG_MS: u64 = 3_600_000_000;

/// Nothing happens by itself: agents may be silent, pools are of any size, circuits stay closed.
fn quiet(strategy: Strategy) -> Rules {
    Rules {
        strategy,
        newcomer_share: 0.1,
        circuit: circuit::Rules { failure_threshold: 1.0, monitoring_period_ms: 10_000, minimum_calls: 1_000, reset_timeout_ms: 30_000 },
        scaling: scaling_rules::Rules { min: 0, max: 1_000, up: 2.0, down: -1.0, cooldown_ms: LONG_MS },
        agent_timeout_ms: LONG_MS,
        task_bytes_max: 1 << 20,
    }
}

/// What a store keeps of what is written.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    tables: BTreeMap<(Table, String), String>,
    summary: Option<String>,
}

impl Model {
    fn apply(&mut self, write: &BoardWrite) {
        if write.whole {
            self.tables.clear();
        }
        for (table, id) in &write.removed {
            self.tables.remove(&(*table, id.clone()));
        }
        for (table, id, text) in &write.put {
            self.tables.insert((*table, id.clone()), text.clone());
        }
        if write.summary.is_some() {
            self.summary.clone_from(&write.summary);
        }
    }

    fn texts(&self, of: Table) -> impl Iterator<Item = (&String, &String)> {
        self.tables.iter().filter(move |((table, _), _)| *table == of).map(|((_, id), text)| (id, text))
    }

    fn found(&self) -> Found {
        let texts = |of| self.texts(of).map(|(_, text)| text.clone()).collect();
        let data: HashMap<String, String> = self.texts(Table::Data).map(|(id, text)| (id.clone(), text.clone())).collect();
        Found { agents: texts(Table::Agents), tasks: texts(Table::Tasks), data, summary: self.summary.clone() }
    }
}

/// The machine, its clock, and its store.
struct Place {
    orchestra: Orchestra,
    rules: Rules,
    now_ms: u64,
    events: u64,
    random: SmallRng,
    store: Model,
    /// What was said, each key once.
    said: Vec<Saying>,
    letters: Letters,
}

impl Place {
    fn new(rules: Rules) -> Self {
        Self {
            orchestra: Orchestra::new(rules.clone(), Found::default(), START_MS),
            rules,
            now_ms: START_MS,
            events: 0,
            random: SmallRng::seed_from_u64(7),
            store: Model::default(),
            said: Vec::new(),
            letters: Letters::new(),
        }
    }

    fn of(strategy: Strategy) -> Self {
        Self::new(quiet(strategy))
    }

    fn next_id(&mut self) -> String {
        self.events += 1;
        format!("{:020}", self.events)
    }

    /// An event that was published now.
    fn hear(&mut self, what: What) -> Outcome {
        let place = self.next_id();
        self.orchestra.hear(Heard { place, at_ms: self.now_ms, is_own: false, redriven: false, what }, self.now_ms)
    }

    /// An event as the orchestration itself said it.
    fn hear_own(&mut self, what: What, redriven: bool) -> Outcome {
        let place = self.next_id();
        self.orchestra.hear(Heard { place, at_ms: self.now_ms, is_own: true, redriven, what }, self.now_ms)
    }

    fn spawn(&mut self, agent: &str, capabilities: &[&str], max_tasks: u32) {
        self.spawn_as(agent, "worker", capabilities, max_tasks);
    }

    fn spawn_as(&mut self, agent: &str, kind: &str, capabilities: &[&str], max_tasks: u32) {
        let mut capabilities: Vec<String> = capabilities.iter().map(|name| (*name).to_owned()).collect();
        capabilities.sort_unstable();
        let inbox = Some(format!("inbox of {agent}"));
        let spawned = Spawned { agent: agent.to_owned(), kind: kind.to_owned(), capabilities, orchestrator: None, max_tasks, inbox };
        assert!(matches!(self.hear(What::Spawned(spawned)), Outcome::Done));
    }

    /// Gives a task in; `with` is put over what is usual.
    fn submit(&mut self, id: &str, with: Value) {
        assert!(matches!(self.try_submit(id, with), Outcome::Given(_)), "{id}");
    }

    fn try_submit(&mut self, id: &str, with: Value) -> Outcome {
        let mut task = json!({ "id": id, "type": "work", "priority": 0, "requiredCapabilities": [] });
        let mut data = super::task::nothing();
        if let Value::Object(with) = with {
            for (key, value) in with {
                if key == "data" {
                    data = RawValue::from_string(value.to_string()).unwrap();
                } else {
                    task[key] = value;
                }
            }
        }
        let task = Task::read(task, data, None, self.now_ms).map(Box::new);
        self.hear(What::Distribute(task))
    }

    fn named(&self, task: &str, agent: &str) -> Named {
        let attempt = self.orchestra.tasks.get(task).map(|task| task.given);
        Named { task: task.to_owned(), agent: agent.to_owned(), attempt }
    }

    fn start(&mut self, task: &str, agent: &str) {
        let of = self.named(task, agent);
        self.hear(What::TaskStarted(of));
    }

    fn complete(&mut self, task: &str, agent: &str) {
        let of = self.named(task, agent);
        self.hear(What::TaskCompleted { of, result: None, duration_ms: None });
    }

    fn fail(&mut self, task: &str, agent: &str) {
        let of = self.named(task, agent);
        self.hear(What::TaskFailed { of, error: "boom".to_owned(), permanent: false, handed_back: false });
    }

    fn metrics(&mut self, metrics: Metrics) {
        self.hear(What::Metrics(metrics));
    }

    /// Gives out, writes all, says and posts.
    fn go_on(&mut self) {
        self.orchestra.give_out(self.now_ms, &mut || self.random.random());
        self.commit(true);
    }

    fn commit(&mut self, all: bool) {
        if let Some(write) = self.orchestra.take_write(all, self.now_ms) {
            self.store.apply(&write);
        }
        self.speak();
    }

    fn speak(&mut self) {
        for saying in self.orchestra.take_sayings() {
            if self.said.iter().all(|one| one.key != saying.key) {
                self.said.push(saying);
            }
        }
        for (inbox, letters) in self.orchestra.take_letters() {
            self.letters.entry(inbox).or_default().extend(letters);
        }
    }

    /// Time passes, and is looked at every 100 ms, or less often where there is much of it.
    fn wait(&mut self, ms: u64) {
        let until_ms = self.now_ms + ms;
        let step_ms = (ms / 1_000).max(100);
        while self.now_ms < until_ms {
            self.now_ms = (self.now_ms + step_ms).min(until_ms);
            self.orchestra.tick(self.now_ms);
            self.go_on();
        }
    }

    /// Whoever led is gone; another goes on with what is in the store.
    fn take_over(&mut self) {
        self.orchestra = Orchestra::new(self.rules.clone(), self.store.found(), self.now_ms);
    }

    /// Who has a task.
    fn holder(&self, task: &str) -> Option<String> {
        self.orchestra.tasks.get(task).filter(|task| task.status.is_with_agent()).and_then(|task| task.agent_id.clone())
    }

    fn must_hold(&self, task: &str) -> String {
        self.holder(task).unwrap_or_else(|| panic!("'{task}' is with nobody: {:?}", self.status(task)))
    }

    /// As in the public contract.
    fn status(&self, task: &str) -> Option<&'static str> {
        let going = self.orchestra.tasks.get(task).map(|task| task.status);
        going.or(self.orchestra.ended.get(task).map(|ended| ended.status)).map(super::task::Status::as_str)
    }

    /// A task as it is in the store.
    fn stored(&self, task: &str) -> Value {
        let text = &self.store.tables[&(Table::Tasks, task.to_owned())];
        serde_json::from_str(text).unwrap()
    }

    /// An agent as readers see it.
    fn seen(&self, agent: &str) -> Value {
        let text = &self.store.tables[&(Table::Agents, agent.to_owned())];
        serde_json::from_str(text.lines().next().unwrap()).unwrap()
    }

    fn agent(&self, agent: &str) -> &super::agent::Agent {
        &self.orchestra.agents[self.orchestra.by_id[agent]]
    }

    /// What was said under a type, so far.
    fn told(&self, event_type: &str) -> Vec<Value> {
        let said = self.said.iter().filter(|saying| saying.event_type == event_type);
        said.map(|saying| serde_json::from_str(&saying.data).unwrap()).collect()
    }

    /// How many letters an agent got of a kind.
    fn posted(&self, agent: &str, kind: &str) -> usize {
        let letters = self.letters.get(&format!("inbox of {agent}")).into_iter().flatten();
        letters.filter(|letter| serde_json::from_str::<Value>(letter).unwrap()[kind].is_object()).count()
    }

    /// Ids of tasks that an agent has.
    fn has(&self, agent: &str) -> Vec<String> {
        self.agent(agent).running.iter().cloned().collect()
    }

    /// What the orchestration said last of the final failure of a task, as it reads it again.
    fn given_up(&self, task: &str) -> What {
        let data = self.told("task.failed").into_iter().rfind(|data| data["taskId"] == task).expect("it was said");
        let mut of: Task = serde_json::from_value(data["task"].clone()).unwrap();
        of.data = RawValue::from_string(data["task"]["data"].to_string()).unwrap();
        let text = |key: &str| data[key].as_str().unwrap().to_owned();
        What::TaskGivenUp { task: Box::new(of), error: text("error"), is_permanent: data["permanent"] == true }
    }
}

fn ids(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{prefix}{n}")).collect()
}
