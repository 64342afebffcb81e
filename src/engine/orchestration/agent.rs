//! An agent: what it can do, what it has, and how well it does it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::average::{LastMinute, Recent};
use super::choosing::Seat;
use super::circuit::Circuit;
use super::reading::Spawned;

/// Tasks that make `avgCompletionTime` and the pace.
const TASKS: u32 = 20;
/// Tasks that make `successRate`.
const OUTCOMES: u32 = 50;
/// Shortest time that tells fast agents from slow ones, ms.
const SHORT_MS: f64 = 0.5;
/// Types of tasks whose pace is known apart.
const KINDS_MAX: usize = 64;
/// Tasks by which an agent's performance is known; before, it is a newcomer.
pub const NEWCOMER_TASKS: u32 = 5;

/// Whether an agent is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    /// It takes tasks.
    #[default]
    Active,
    /// It finishes what it has.
    Draining,
    /// It said so, or was silent for too long.
    Failed,
    /// It is gone.
    Terminated,
}

impl Standing {
    /// It may have tasks.
    pub fn is_alive(self) -> bool {
        matches!(self, Self::Active | Self::Draining)
    }
}

/// `AgentView.performance`, but for what is figured out from other fields.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Performance {
    /// ms a task, of the last [`TASKS`].
    pub duration: Recent,
    /// 1 for a success, 0 for a failure, of the last [`OUTCOMES`].
    pub success: Recent,
    /// Time taken over time expected, of the last [`TASKS`]: 2 is half as fast.
    pub pace: Recent,
    /// The same by type of task.
    pub pace_by_kind: BTreeMap<String, Recent>,
    /// Ever.
    pub completed: u64,
    /// Ever.
    pub failed: u64,
    /// What ended lately.
    pub lately: LastMinute,
}

/// `AgentView.resources`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Resources {
    /// Percent.
    pub cpu: f64,
    /// Percent.
    pub memory: f64,
    /// As the agent says.
    pub network_io: f64,
    /// As the agent says.
    pub disk_io: f64,
}

/// An agent, as it stands in the store behind its view.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Agent {
    /// Names it among all.
    pub id: String,
    /// Its type: agents of one type make pools.
    pub kind: String,
    /// In order, each once.
    pub capabilities: Vec<String>,
    /// Tasks at once.
    pub max_tasks: u32,
    /// Where it reads, if the library made it.
    pub inbox: Option<String>,
    /// Whose it says it is.
    pub orchestrator: Option<String>,
    /// Where the event stands with which it spawned: what is older is of its life before.
    pub spawned_by: String,
    /// Whether it is there.
    pub standing: Standing,
    /// It was given up because it was silent: a sign of life brings it back.
    pub silent: bool,
    /// When it heard of last, ms since 1970.
    pub active_ms: u64,
    /// When it was told of that, ms since 1970: later, where much waits to be heard.
    #[serde(skip)]
    pub heard_ms: u64,
    /// When its text was written last, ms since 1970.
    pub written_ms: u64,
    /// When it was given up, or is gone, ms since 1970.
    pub ended_ms: u64,
    /// Its pool.
    pub pool: String,
    /// Whether it gets tasks, by how they went.
    pub circuit: Circuit,
    /// How well it does.
    pub performance: Performance,
    /// What it uses.
    pub resources: Resources,
    /// It is said to be overloaded until then, ms since 1970.
    pub strained_until_ms: u64,
    /// Number of the last assignment to it, among all.
    pub given: u64,
    /// It says when it begins a task: what it did not begin was no attempt.
    pub tells_starts: bool,
    /// Tasks it has; from the tasks, not the text.
    #[serde(skip)]
    pub running: BTreeSet<String>,
}

impl Agent {
    /// One that just spawned.
    pub fn new(spawned: Spawned, place: &str, now_ms: u64) -> Self {
        let Spawned { agent, kind, capabilities, orchestrator, max_tasks, inbox } = spawned;
        Self {
            id: agent,
            kind,
            capabilities,
            max_tasks,
            inbox,
            orchestrator,
            spawned_by: place.to_owned(),
            active_ms: now_ms,
            ..Self::default()
        }
    }

    /// Whether it can do what needs these, which are in order.
    pub fn can(&self, required: &[String]) -> bool {
        required.iter().all(|name| self.capabilities.binary_search(name).is_ok())
    }

    /// Tasks it may still get, if it gets any.
    pub fn free(&self) -> u32 {
        self.max_tasks.saturating_sub(u32::try_from(self.running.len()).unwrap_or(u32::MAX))
    }

    /// Share of its places in use, 0 to 1.
    pub fn occupancy(&self) -> f64 {
        f64::from(self.max_tasks - self.free()) / f64::from(self.max_tasks.max(1))
    }

    /// How busy it is, 0 to 1: what is left of its places, of its processor and of its memory, each for itself, makes what is left of it.
    pub fn load(&self, now_ms: u64) -> f64 {
        if now_ms < self.strained_until_ms {
            return 1.0;
        }
        let left = |percent: f64| 1.0 - (percent / 100.0).clamp(0.0, 1.0);
        1.0 - (1.0 - self.occupancy()) * left(self.resources.cpu) * left(self.resources.memory)
    }

    /// What it is worth: successes by pace; `None` before that is known.
    pub fn weight(&self) -> Option<f64> {
        let Performance { success, pace, .. } = &self.performance;
        if success.count() < NEWCOMER_TASKS {
            return None;
        }
        // One that only fails has no pace, and keeps a little, so that it can show to be better.
        Some((success.mean()? / pace.mean().unwrap_or(1.0).max(1e-3)).max(1e-3))
    }

    /// What a choice needs to know of it.
    pub fn seat(&self, now_ms: u64) -> Seat {
        let open = self.standing == Standing::Active && self.circuit.admits();
        // A circuit that is tried is tried by one.
        let free = if open { self.free() } else { 0 };
        Seat {
            free,
            load: self.load(now_ms),
            given: self.given,
            weight: self.weight(),
            capabilities: u32::try_from(self.capabilities.len()).unwrap_or(u32::MAX),
            strained: now_ms < self.strained_until_ms,
        }
    }

    /// A task ended well after `duration_ms`; `base_ms` was expected of an agent like others.
    pub fn succeeded(&mut self, kind: &str, duration_ms: f64, base_ms: f64, response_ms: f64, now_ms: u64) {
        let performance = &mut self.performance;
        performance.duration.add(duration_ms, TASKS);
        performance.success.add(1.0, OUTCOMES);
        // Times that are too short to be measured say little.
        let pace = (duration_ms.max(SHORT_MS) / base_ms.max(SHORT_MS)).clamp(1e-6, 1e6);
        performance.pace.add(pace, TASKS);
        if performance.pace_by_kind.len() < KINDS_MAX || performance.pace_by_kind.contains_key(kind) {
            performance.pace_by_kind.entry(kind.to_owned()).or_default().add(pace, TASKS);
        }
        performance.completed += 1;
        performance.lately.completed(response_ms, now_ms);
    }

    /// A task failed.
    pub fn failed(&mut self, now_ms: u64) {
        self.performance.success.add(0.0, OUTCOMES);
        self.performance.failed += 1;
        self.performance.lately.failed(now_ms);
    }

    /// How long it will take for what takes an agent like others `base_ms`; one of whom nothing is known is as fast as is usual.
    pub fn expected_ms(&self, kind: &str, base_ms: f64, usual_pace: f64) -> f64 {
        let Performance { pace, pace_by_kind, .. } = &self.performance;
        base_ms * pace_by_kind.get(kind).and_then(Recent::mean).or(pace.mean()).unwrap_or(usual_pace)
    }

    /// As in the public contract.
    pub fn status(&self) -> &'static str {
        match self.standing {
            Standing::Active if self.running.is_empty() => "idle",
            Standing::Active => "busy",
            Standing::Draining => "draining",
            Standing::Failed => "failed",
            Standing::Terminated => "terminated",
        }
    }

    /// `AgentView`, with times as ms.
    pub fn view(&self, now_ms: u64) -> Value {
        let Performance { duration, success, completed, lately, .. } = &self.performance;
        let mut view = json!({
            "id": self.id, "type": self.kind, "capabilities": self.capabilities, "status": self.status(), "poolId": self.pool,
            "circuit": self.circuit.state().as_str(), "runningTasks": self.running, "maxTasks": self.max_tasks,
            "performance": {
                "avgCompletionTime": round(duration.mean().unwrap_or(0.0)), "successRate": round(success.mean().unwrap_or(1.0)),
                "tasksCompleted": completed, "loadFactor": round(self.load(now_ms)), "throughput": lately.sum(now_ms).completed,
            },
            "resources": {
                "cpu": self.resources.cpu, "memory": self.resources.memory,
                "networkIO": self.resources.network_io, "diskIO": self.resources.disk_io,
            },
            "lastActivity": self.active_ms,
        });
        if let Some(orchestrator) = &self.orchestrator {
            view["orchestratorId"] = orchestrator.as_str().into();
        }
        view
    }

    /// Its text: the view, and behind it all of it.
    pub fn to_text(&self, now_ms: u64) -> String {
        format!("{}\n{}", self.view(now_ms), serde_json::to_string(self).unwrap_or_default())
    }

    /// Reads what [`Agent::to_text`] wrote; `None` for anything else.
    pub fn from_text(text: &str) -> Option<Self> {
        serde_json::from_str(text.split_once('\n')?.1).ok()
    }
}

/// Figures for people: four digits behind the point.
pub fn round(value: f64) -> f64 {
    (value * 10_000.0).round() / 10_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent(max_tasks: u32) -> Agent {
        let spawned = Spawned {
            agent: "a".to_owned(),
            kind: "worker".to_owned(),
            capabilities: vec!["cut".to_owned(), "glue".to_owned()],
            orchestrator: None,
            max_tasks,
            inbox: None,
        };
        Agent::new(spawned, "e1", 1_000)
    }

    #[test]
    fn it_can_do_what_needs_no_more_than_it_has() {
        let can = |required: &[&str]| agent(1).can(&required.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        assert!(can(&[]) && can(&["glue"]) && can(&["cut", "glue"]));
        assert!(!can(&["cut", "paint"]));
    }

    #[test]
    fn load_is_places_processor_and_memory_together() {
        let mut agent = agent(4);
        assert!(agent.load(0) < 1e-9);
        agent.running.insert("t1".to_owned());
        assert!((agent.load(0) - 0.25).abs() < 1e-9);
        agent.resources.cpu = 50.0;
        assert!((agent.load(0) - 0.625).abs() < 1e-9);
        agent.resources.cpu = 250.0;
        assert!((agent.load(0) - 1.0).abs() < 1e-9);
        agent.resources.cpu = 0.0;
        agent.strained_until_ms = 10;
        assert!((agent.load(9) - 1.0).abs() < 1e-9 && agent.load(10) < 0.3);
    }

    #[test]
    fn pace_is_known_by_type_first() {
        let mut agent = agent(1);
        assert!((agent.expected_ms("k", 80.0, 0.5) - 40.0).abs() < 1e-9);
        agent.succeeded("k", 200.0, 100.0, 210.0, 5);
        agent.succeeded("other", 50.0, 100.0, 60.0, 5);
        assert!((agent.expected_ms("k", 80.0, 0.5) - 160.0).abs() < 1e-9);
        assert!((agent.expected_ms("never seen", 80.0, 0.5) - 100.0).abs() < 1e-9);
    }

    #[test]
    fn what_it_is_worth_is_known_after_some_tasks() {
        let mut agent = agent(1);
        for _ in 0..NEWCOMER_TASKS {
            assert_eq!(agent.weight(), None);
            agent.succeeded("k", 200.0, 100.0, 1.0, 5);
        }
        assert!((agent.weight().unwrap() - 0.5).abs() < 1e-9);
        (0..NEWCOMER_TASKS).for_each(|_| agent.failed(5));
        assert!((agent.weight().unwrap() - 0.25).abs() < 1e-9);
    }

    #[test]
    fn an_agent_is_read_back_as_it_was_written() {
        let mut agent = agent(3);
        agent.succeeded("k", 200.0, 100.0, 210.0, 7_000);
        agent.pool = "worker-2".to_owned();
        let text = agent.to_text(7_000);
        assert_eq!(Agent::from_text(&text).unwrap(), agent);
        let view: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        assert_eq!((&view["status"], &view["poolId"], &view["performance"]["throughput"]), (&json!("idle"), &json!("worker-2"), &json!(1)));
        assert_eq!(Agent::from_text("{}"), None);
    }

    #[test]
    fn kinds_known_apart_are_bounded() {
        let mut agent = agent(1);
        (0..500).for_each(|n| agent.succeeded(&format!("k{n}"), 1.0, 1.0, 1.0, 5));
        assert_eq!(agent.performance.pace_by_kind.len(), KINDS_MAX);
    }
}
