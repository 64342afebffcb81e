//! All agents and tasks, and what becomes of them: a machine without I/O. It is told events and the time; it answers what is to be
//! written, said and posted. Everything it decides depends on that alone.
//!
//! Here: what it is made of, and how it is kept. `hearing`: what agents say. `life`: what becomes of a task. `giving`: who gets which.
//! `upkeep`: what time brings.

use std::collections::{BTreeSet, HashMap, VecDeque};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::agent::{Agent, Standing, round};
use super::average::{Ended as Lately, LastMinute, Recent};
use super::choosing::Seat;
use super::pools::{Pool, Pools};
use super::queue::Queue;
use super::task::{Status, Task, nothing};
use super::{circuit, scaling};
use crate::engine::ask::Letters;
use crate::engine::config::Strategy;
use crate::engine::error::Error;
use crate::engine::store::{BoardWrite, Table};

/// How it is told to decide.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Who gets a task.
    pub strategy: Strategy,
    /// Share of tasks for agents whose performance is not known yet, 0 to 1.
    pub newcomer_share: f64,
    /// When an agent gets none.
    pub circuit: circuit::Rules,
    /// How large pools are.
    pub scaling: scaling::Rules,
    /// Silence after which an agent has failed, ms.
    pub agent_timeout_ms: u64,
    /// Most bytes of a task with its data: an event with all of it must still be one.
    pub task_bytes_max: usize,
}

/// What becomes of the event that was told.
#[derive(Debug)]
pub enum Outcome {
    /// It is seen to.
    Done,
    /// Whoever asked gets this.
    Reply(Value),
    /// The same with an error; without anybody who asked it is a dead letter.
    Refuse(Error),
    /// Whoever asked is told who got the task, once that is decided.
    Given(String),
    /// It is a dead letter. `is_permanent`: by its kind, not because attempts are used up.
    Dead { error: String, is_permanent: bool },
    /// It is to be told again: what it speaks of may be on its way.
    Later { after_ms: u64, error: String },
}

/// An event to be published.
#[derive(Clone, Debug)]
pub struct Saying {
    /// Its type.
    pub event_type: &'static str,
    /// What may be said once only.
    pub key: String,
    /// Its data, as JSON text.
    pub data: String,
    /// Whom it concerns.
    pub target: Option<String>,
    /// How long it is of use, seconds; `None`: as long as any event.
    pub ttl_s: Option<u32>,
    /// Of the event that led to it.
    pub correlation_id: Option<String>,
}

/// A task that ended.
#[derive(Clone, Debug)]
pub(super) struct Ended {
    pub status: Status,
    pub agent: Option<String>,
    pub at_ms: u64,
    pub given: u32,
    pub lettered: bool,
    /// What is kept of it, bytes.
    pub bytes: usize,
}

/// Counted over all agents, and kept.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Totals {
    pub lately: LastMinute,
    pub completed: u64,
    pub failed_attempts: u64,
    pub given_up: u64,
    pub cancelled: u64,
    /// What agents said of tasks that were not theirs any more.
    pub stale: u64,
}

/// Behind the view in the summary.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Saved {
    pools: Vec<Pool>,
    totals: Totals,
    kinds: HashMap<String, Recent>,
}

/// Types of tasks whose usual time is known.
pub(super) const KINDS_MAX: usize = 1_000;

/// What is kept of a task that is over beside its result and data, about, bytes.
const ENDED_BYTES: usize = 400;
/// What was decided so long ago, ms, was said by whoever led then; within it it may not have been, and what is said again is known by its key.
const SAID_AGAIN_MS: u64 = 300_000;

/// The machine.
pub struct Orchestra {
    pub(super) rules: Rules,
    pub(super) agents: Vec<Agent>,
    /// Slots without an agent.
    pub(super) vacant: Vec<usize>,
    pub(super) by_id: HashMap<String, usize>,
    /// By slot.
    pub(super) seats: Vec<Seat>,
    /// Places free over all seats.
    pub(super) free: u64,
    /// Those that are not over.
    pub(super) tasks: HashMap<String, Task>,
    pub(super) ended: HashMap<String, Ended>,
    /// Bytes that are kept of them.
    pub(super) ended_bytes: usize,
    /// The oldest first.
    pub(super) ended_order: VecDeque<(u64, String)>,
    /// Tasks to be looked at because one that they wait for ended.
    pub(super) to_look_at: VecDeque<String>,
    /// By the task they wait for.
    pub(super) dependents: HashMap<String, BTreeSet<String>>,
    pub(super) queue: Queue,
    /// When tasks that have a time are taken from their agents.
    pub(super) deadlines: BTreeSet<(u64, String)>,
    /// Bytes that tasks carry along.
    pub(super) bytes: usize,
    pub(super) pools: Pools,
    /// Usual time by type of task, ms.
    pub(super) kinds: HashMap<String, Recent>,
    pub(super) totals: Totals,
    /// Assignments so far.
    pub(super) assignments: u64,
    /// Since when it hears what agents say, ms since 1970.
    pub(super) listening_ms: u64,
    pub(super) looked: super::upkeep::Looked,
    write: BoardWrite,
    dirty_tasks: BTreeSet<String>,
    /// Agents whose text is to be written at once, and those for which the next round is early enough.
    dirty_agents: BTreeSet<usize>,
    stale_agents: BTreeSet<usize>,
    summary: String,
    sayings: Vec<Saying>,
    letters: Letters,
}

/// What was found in the store.
#[derive(Default)]
pub struct Found {
    /// Texts of agents.
    pub agents: Vec<String>,
    /// Texts of tasks.
    pub tasks: Vec<String>,
    /// Data of tasks, by id.
    pub data: HashMap<String, String>,
    /// The summary.
    pub summary: Option<String>,
}

impl Orchestra {
    /// Goes on with what was found. What was decided but perhaps not said by whoever led before is said again, under the same keys.
    pub fn new(rules: Rules, found: Found, now_ms: u64) -> Self {
        let saved: Saved = found
            .summary
            .as_deref()
            .and_then(|text| text.split_once('\n'))
            .and_then(|(_, saved)| serde_json::from_str(saved).ok())
            .unwrap_or_default();
        let mut orchestra = Self {
            rules,
            agents: Vec::new(),
            vacant: Vec::new(),
            by_id: HashMap::new(),
            seats: Vec::new(),
            free: 0,
            tasks: HashMap::new(),
            ended: HashMap::new(),
            ended_bytes: 0,
            ended_order: VecDeque::new(),
            to_look_at: VecDeque::new(),
            dependents: HashMap::new(),
            queue: Queue::default(),
            deadlines: BTreeSet::new(),
            bytes: 0,
            pools: Pools::from_saved(saved.pools),
            kinds: saved.kinds,
            totals: saved.totals,
            assignments: 0,
            listening_ms: now_ms,
            looked: super::upkeep::Looked::default(),
            write: BoardWrite::default(),
            dirty_tasks: BTreeSet::new(),
            dirty_agents: BTreeSet::new(),
            stale_agents: BTreeSet::new(),
            summary: String::new(),
            sayings: Vec::new(),
            letters: Letters::new(),
        };
        let agents: Vec<Agent> = found.agents.iter().filter_map(|text| Agent::from_text(text)).collect();
        for agent in agents {
            if !orchestra.by_id.contains_key(&agent.id) {
                orchestra.assignments = orchestra.assignments.max(agent.given);
                orchestra.seat_agent(agent, now_ms);
            }
        }
        orchestra.take_up(&found, now_ms);
        orchestra.say_scaling_again();
        orchestra
    }

    /// Tasks as they were found.
    fn take_up(&mut self, found: &Found, now_ms: u64) {
        let mut over = Vec::new();
        let mut going = HashMap::new();
        for mut task in found.tasks.iter().filter_map(|text| serde_json::from_str::<Task>(text).ok()) {
            if task.status.is_end() {
                over.push(task);
            } else {
                if let Some(data) = found.data.get(&task.id) {
                    task.data = RawValue::from_string(data.clone()).unwrap_or_else(|_| nothing());
                }
                going.insert(task.id.clone(), task);
            }
        }
        over.sort_by_key(|task| task.ended_at);
        for mut task in over {
            // Whoever led may not have come to say it.
            if task.status == Status::Failed && !task.lettered {
                if let Some(data) = found.data.get(&task.id) {
                    task.data = RawValue::from_string(data.clone()).unwrap_or_else(|_| nothing());
                }
                self.say_given_up(&task);
            }
            self.count_late(&task);
            self.note_ended(&task, task.ended_at.unwrap_or(now_ms));
        }
        let mut going: Vec<Task> = going.into_values().collect();
        going.sort_by(|a, b| a.submitted_at.cmp(&b.submitted_at).then_with(|| a.id.cmp(&b.id)));
        for task in going {
            self.take_up_one(task, now_ms);
        }
        for slot in 0..self.agents.len() {
            let agent = &mut self.agents[slot];
            let running = &agent.running;
            agent.circuit.found(|task| running.contains(task));
            self.touch(slot, now_ms);
        }
        // Now that all are there: what those wait for that is over.
        let waiting: Vec<String> = self.tasks.values().filter(|task| task.status == Status::Waiting).map(|task| task.id.clone()).collect();
        for id in waiting {
            self.look_at_dependencies(&id, now_ms);
        }
    }

    /// A task that was done after its agent was written last is not among those that the agent's text counts.
    fn count_late(&mut self, task: &Task) {
        let (Some(ended_ms), Some(slot)) = (task.ended_at, task.agent_id.as_ref().and_then(|agent| self.by_id.get(agent).copied())) else {
            return;
        };
        let agent = &mut self.agents[slot];
        if task.status == Status::Completed && ended_ms > agent.written_ms {
            agent.performance.completed += 1;
            agent.performance.lately.completed(0.0, ended_ms);
        }
    }

    fn take_up_one(&mut self, mut task: Task, now_ms: u64) {
        self.bytes += task.data.get().len();
        let id = task.id.clone();
        match task.agent_id.as_ref().filter(|_| task.status.is_with_agent()).and_then(|agent| self.by_id.get(agent).copied()) {
            Some(slot) if self.agents[slot].standing.is_alive() => {
                self.agents[slot].running.insert(id.clone());
                if let (Some(timeout_ms), Some(at_ms)) = (task.timeout_ms, task.assigned_at) {
                    self.deadlines.insert((at_ms.saturating_add(timeout_ms), id.clone()));
                }
                let is_begun = task.status == Status::Running;
                self.tasks.insert(id.clone(), task);
                // Longer ago it was said, or the key by which it is said once is forgotten.
                let is_recent = self.tasks.get(&id).and_then(|task| task.assigned_at).is_some_and(|at_ms| at_ms + SAID_AGAIN_MS > now_ms);
                if !is_begun && is_recent {
                    self.tell_agent(slot, &id);
                }
                self.touch(slot, now_ms);
            }
            _ => {
                // Its agent is gone, and nobody came to take it away.
                if task.status.is_with_agent() {
                    task.status = Status::Queued;
                    self.dirty_tasks.insert(id.clone());
                }
                let queued = task.status == Status::Queued;
                self.tasks.insert(id.clone(), task);
                if queued {
                    self.enqueue(&id);
                } else {
                    self.note_waiting(&id);
                }
            }
        }
    }

    /// Puts an agent on a slot.
    pub(super) fn seat_agent(&mut self, agent: Agent, now_ms: u64) -> usize {
        let slot = self.vacant.pop().unwrap_or_else(|| {
            self.agents.push(Agent::default());
            self.seats.push(Seat::default());
            self.agents.len() - 1
        });
        self.by_id.insert(agent.id.clone(), slot);
        self.write.removed.retain(|(table, id)| *table != Table::Agents || *id != agent.id);
        self.queue.joined(slot, |required| agent.can(required));
        self.agents[slot] = agent;
        self.touch(slot, now_ms);
        slot
    }

    /// Nothing is known of it any more.
    pub(super) fn unseat(&mut self, slot: usize) {
        let agent = std::mem::take(&mut self.agents[slot]);
        self.by_id.remove(&agent.id);
        self.queue.left(slot);
        self.set_seat(slot, Seat::default());
        self.vacant.push(slot);
        self.dirty_agents.remove(&slot);
        self.stale_agents.remove(&slot);
        self.write.put.retain(|(table, id, _)| *table != Table::Agents || *id != agent.id);
        self.write.removed.push((Table::Agents, agent.id));
    }

    fn set_seat(&mut self, slot: usize, seat: Seat) {
        self.free = self.free - u64::from(self.seats[slot].free) + u64::from(seat.free);
        self.seats[slot] = seat;
    }

    /// An agent is otherwise than it was: written in the next round.
    pub(super) fn touch(&mut self, slot: usize, now_ms: u64) {
        let seat = self.agents[slot].seat(now_ms);
        self.set_seat(slot, seat);
        self.stale_agents.insert(slot);
    }

    /// The same, and it must not be forgotten by a crash: written at once.
    pub(super) fn change(&mut self, slot: usize, now_ms: u64) {
        self.touch(slot, now_ms);
        self.dirty_agents.insert(slot);
    }

    /// A task is otherwise than it was.
    pub(super) fn changed_task(&mut self, id: &str) {
        self.dirty_tasks.insert(id.to_owned());
    }

    /// A task is new, and so is what it carries.
    pub(super) fn new_task(&mut self, id: &str) {
        self.changed_task(id);
        let Some(task) = self.tasks.get(id) else { return };
        self.bytes += task.data.get().len();
        if task.data.get() != "null" {
            self.write.put.push((Table::Data, id.to_owned(), task.data.get().to_owned()));
        }
    }

    /// A task is over: its text is written, and what it carries goes, unless it failed.
    pub(super) fn ended_task(&mut self, task: &Task, at_ms: u64) {
        self.dirty_tasks.remove(&task.id);
        self.bytes = self.bytes.saturating_sub(task.data.get().len());
        self.write_ended(task);
        if task.status != Status::Failed && task.data.get() != "null" {
            self.write.put.retain(|(table, id, _)| *table != Table::Data || *id != task.id);
            self.write.removed.push((Table::Data, task.id.clone()));
        }
        self.note_ended(task, at_ms);
    }

    /// The text of a task that is over.
    pub(super) fn write_ended(&mut self, task: &Task) {
        self.write.put.push((Table::Tasks, task.id.clone(), task.to_text()));
    }

    pub(super) fn note_ended(&mut self, task: &Task, at_ms: u64) {
        let bytes = task.result.as_ref().map_or(0, |result| result.get().len()) + task.data.get().len() + ENDED_BYTES;
        let ended = Ended { status: task.status, agent: task.agent_id.clone(), at_ms, given: task.given, lettered: task.lettered, bytes };
        self.ended_bytes += bytes;
        self.ended.insert(task.id.clone(), ended);
        self.ended_order.push_back((at_ms, task.id.clone()));
    }

    /// Nothing is known of a task any more.
    pub(super) fn forget_task(&mut self, id: &str) {
        if let Some(ended) = self.ended.remove(id) {
            self.ended_bytes = self.ended_bytes.saturating_sub(ended.bytes);
        }
        self.write.put.retain(|(_, known, _)| known != id);
        self.write.removed.extend([(Table::Tasks, id.to_owned()), (Table::Data, id.to_owned())]);
    }

    /// To be published once what is decided is written.
    pub(super) fn say(&mut self, saying: Saying) {
        self.sayings.push(saying);
    }

    /// To be posted then.
    pub(super) fn post(&mut self, inbox: &str, letter: String) {
        self.letters.entry(inbox.to_owned()).or_default().push(letter);
    }

    /// The summary is to be written, whether readers see a difference or not.
    pub(super) fn renew_summary(&mut self) {
        self.summary.clear();
    }

    /// It was not heard what agents said before.
    pub fn listens_from(&mut self, now_ms: u64) {
        self.listening_ms = now_ms;
    }

    /// What is to be written. With `all`, what would have waited for the next round too.
    pub fn take_write(&mut self, all: bool, now_ms: u64) -> Option<BoardWrite> {
        let mut write = std::mem::take(&mut self.write);
        for id in std::mem::take(&mut self.dirty_tasks) {
            if let Some(task) = self.tasks.get(&id) {
                write.put.push((Table::Tasks, id, task.to_text()));
            }
        }
        let mut agents = std::mem::take(&mut self.dirty_agents);
        if all {
            agents.append(&mut std::mem::take(&mut self.stale_agents));
            let summary = self.summary(now_ms);
            if summary.split('\n').next() != self.summary.split('\n').next() {
                write.summary = Some(summary.clone());
                self.summary = summary;
            }
        }
        for slot in agents {
            self.stale_agents.remove(&slot);
            let agent = &mut self.agents[slot];
            if !agent.id.is_empty() {
                agent.written_ms = now_ms;
                write.put.push((Table::Agents, agent.id.clone(), agent.to_text(now_ms)));
            }
        }
        (write != BoardWrite::default()).then_some(write)
    }

    /// Everything there is, for a store that has lost some of it.
    pub fn whole(&mut self, now_ms: u64) -> BoardWrite {
        self.take_write(true, now_ms);
        let mut put = Vec::new();
        for agent in self.agents.iter().filter(|agent| !agent.id.is_empty()) {
            put.push((Table::Agents, agent.id.clone(), agent.to_text(now_ms)));
        }
        for task in self.tasks.values() {
            put.push((Table::Tasks, task.id.clone(), task.to_text()));
            if task.data.get() != "null" {
                put.push((Table::Data, task.id.clone(), task.data.get().to_owned()));
            }
        }
        for (id, ended) in &self.ended {
            // No more is known here than how it ended.
            let text = json!({
                "id": id, "type": "", "priority": 0, "requiredCapabilities": [], "dependencies": [], "maxAttempts": 1, "attempts": 0,
                "submittedAt": ended.at_ms, "endedAt": ended.at_ms, "status": ended.status.as_str(), "agentId": ended.agent,
                "given": ended.given, "lettered": ended.lettered,
            });
            put.push((Table::Tasks, id.clone(), text.to_string()));
        }
        self.summary = self.summary(now_ms);
        BoardWrite { whole: true, put, removed: Vec::new(), summary: Some(self.summary.clone()) }
    }

    /// What is to be said.
    pub fn take_sayings(&mut self) -> Vec<Saying> {
        std::mem::take(&mut self.sayings)
    }

    /// What is to be posted.
    pub fn take_letters(&mut self) -> Letters {
        std::mem::take(&mut self.letters)
    }

    /// Agents that are there.
    pub(super) fn living(&self) -> impl Iterator<Item = (usize, &Agent)> {
        self.agents.iter().enumerate().filter(|(_, agent)| !agent.id.is_empty() && agent.standing.is_alive())
    }

    /// Who has the task, if anybody has.
    pub fn holder(&self, id: &str) -> Option<&str> {
        match (self.tasks.get(id), self.ended.get(id)) {
            (Some(task), _) if task.status.is_with_agent() => task.agent_id.as_deref(),
            (None, Some(ended)) if ended.status == Status::Completed => ended.agent.as_deref(),
            _ => None,
        }
    }

    /// Two lines: `{ stats, pools }` for readers, and what whoever leads next goes on with.
    fn summary(&self, now_ms: u64) -> String {
        let queued = self.queued_by_pool();
        let mut all = PoolFigures::default();
        let mut figures: HashMap<&str, PoolFigures> = HashMap::new();
        for (_, agent) in self.living() {
            let figure = figures.entry(agent.pool.as_str()).or_default();
            figure.agents.push(&agent.id);
            figure.count(agent, now_ms);
            all.count(agent, now_ms);
        }
        let pools: Vec<Value> = self
            .pools
            .iter()
            .map(|pool| {
                let figure = figures.remove(pool.id.as_str()).unwrap_or_default();
                figure.view(pool, queued.get(&pool.id).copied().unwrap_or(0))
            })
            .collect();
        let lately = self.totals.lately.sum(now_ms);
        let stats = json!({
            "totalAgents": self.living().count(), "totalPools": pools.len(), "averageUtilization": all.utilization(),
            "totalThroughput": lately.completed, "averageResponseTime": round(lately.mean_ms()), "errorRate": round(lately.error_rate()),
            "queueDepth": self.tasks.len() - usize::try_from(all.running).unwrap_or(0).min(self.tasks.len()),
        });
        let saved = Saved { pools: self.pools.iter().cloned().collect(), totals: self.totals.clone(), kinds: self.kinds.clone() };
        format!("{}\n{}", json!({ "stats": stats, "pools": pools }), serde_json::to_string(&saved).unwrap_or_default())
    }
}

/// Figures of the agents of a pool.
#[derive(Default)]
struct PoolFigures<'a> {
    agents: Vec<&'a str>,
    /// Places of those that take tasks, and of all.
    capacity: u32,
    places: u32,
    running: u32,
    lately: Lately,
}

impl PoolFigures<'_> {
    fn count(&mut self, agent: &Agent, now_ms: u64) {
        if agent.standing == Standing::Active {
            self.capacity += agent.max_tasks;
        }
        self.places += agent.max_tasks;
        self.running += agent.max_tasks - agent.free();
        self.lately = self.lately.and(agent.performance.lately.sum(now_ms));
    }

    fn utilization(&self) -> f64 {
        if self.places == 0 { 0.0 } else { round(f64::from(self.running) / f64::from(self.places) * 100.0) }
    }

    fn view(&self, pool: &Pool, queued: usize) -> Value {
        json!({
            "id": pool.id, "agentType": pool.kind, "agents": self.agents, "capacity": self.capacity,
            "metrics": {
                "utilization": self.utilization(), "avgResponseTime": round(self.lately.mean_ms()), "queueDepth": queued,
                "throughput": self.lately.completed, "errorRate": round(self.lately.error_rate()),
            },
        })
    }
}
