//! Who gets which task, and how it is told.

use std::collections::HashMap;

use serde_json::json;

use super::choosing::choose;
use super::circuit::State;
use super::life::assigned;
use super::orchestra::{Orchestra, Saying};
use super::planning::{AHEAD, AHEAD_ALL, Advice, Plan};
use super::task::{Status, Task};
use crate::engine::config::Strategy;

/// How long the event that an agent got a task is kept, seconds, where the agent hears of it otherwise: it is for onlookers alone.
const ASSIGNED_TTL_S: u32 = 300;
/// What a task takes of which nothing is known, ms.
const UNKNOWN_MS: f64 = 1_000.0;
/// Part of its time that a task takes longer than expected at least, once it takes longer.
const LATE: f64 = 0.25;

impl Orchestra {
    /// Gives out what can be given out. `random` gives numbers in `0.0..1.0`.
    pub fn give_out(&mut self, now_ms: u64, random: &mut dyn FnMut() -> f64) {
        if self.free == 0 || self.queue.len() == 0 {
            return;
        }
        if self.rules.strategy == Strategy::Predictive {
            return self.give_by_plan(now_ms);
        }
        let mut walk = self.queue.walk();
        while self.free > 0
            && let Some((class, id)) = walk.next(&self.queue)
        {
            match self.choose(class, &id, random) {
                Some(slot) => self.give(slot, &id, now_ms),
                None => walk.skip(),
            }
        }
    }

    fn choose(&self, class: usize, id: &str, random: &mut dyn FnMut() -> f64) -> Option<usize> {
        let fitting = &self.queue.class(class).fitting;
        let seats = fitting.iter().map(|slot| (*slot, self.seats[*slot]));
        let share = self.rules.newcomer_share;
        let avoided = self.tasks.get(id).and_then(|task| task.avoid.as_deref()).and_then(|agent| self.by_id.get(agent).copied());
        let others = seats.clone().filter(|(slot, _)| avoided != Some(*slot));
        // Whoever failed it last gets it again where there is no other.
        choose(self.rules.strategy, share, others, random).or_else(|| choose(self.rules.strategy, share, seats, random))
    }

    fn give_by_plan(&mut self, now_ms: u64) {
        let (mut plan, usual) = (Plan::default(), self.usual_pace());
        for (class, id) in self.in_order_of_planning(now_ms) {
            if self.free == 0 {
                return;
            }
            let Some(task) = self.tasks.get(&id) else { continue };
            let fitting = &self.queue.class(class).fitting;
            let avoided = task.avoid.as_deref().and_then(|agent| self.by_id.get(agent).copied());
            // Whoever failed it last, and whoever is strained, where there is another.
            let is_last = |slot: &usize| avoided == Some(*slot) || self.seats[*slot].strained;
            let is_relief = |slot: &usize| self.seats[*slot].free > 0 && !is_last(slot);
            let others: Vec<usize> = if fitting.iter().any(is_last) && fitting.iter().any(is_relief) {
                fitting.iter().copied().filter(|slot| !is_last(slot)).collect()
            } else {
                Vec::new()
            };
            let candidates = if others.is_empty() { fitting } else { &others };
            match plan.advise(candidates, |slot| self.places(slot, usual, now_ms), |slot| self.expected_ms(slot, task, usual)) {
                Advice::Now(slot) => self.give(slot, &id, now_ms),
                Advice::Wait | Advice::Nobody => {}
            }
        }
    }

    /// The first tasks of each class: by priority, then those that take long, as the short ones fill what is left between them. One that
    /// has waited longer than another by as much as it is shorter goes before it.
    #[allow(clippy::cast_precision_loss)] // times of tasks
    fn in_order_of_planning(&self, now_ms: u64) -> Vec<(usize, String)> {
        let free = usize::try_from(self.free).unwrap_or(usize::MAX).min(self.queue.len());
        let (mut walk, mut counts, mut tasks) = (self.queue.walk(), HashMap::new(), Vec::new());
        while let Some((class, id)) = walk.next(&self.queue) {
            if !self.queue.class(class).fitting.iter().any(|slot| self.seats[*slot].free > 0) {
                walk.skip();
                continue;
            }
            let count: &mut usize = counts.entry(class).or_default();
            *count += 1;
            if *count >= AHEAD + free || tasks.len() >= AHEAD_ALL + free {
                walk.skip();
            }
            if let Some(task) = self.tasks.get(&id) {
                let waited_ms = now_ms.saturating_sub(task.submitted_at) as f64;
                tasks.push((task.priority + 0.0, self.base_ms(task).unwrap_or(UNKNOWN_MS) + waited_ms, class, id));
            }
        }
        tasks.sort_by(|a, b| b.0.total_cmp(&a.0).then(b.1.total_cmp(&a.1)));
        tasks.into_iter().map(|(_, _, class, id)| (class, id)).collect()
    }

    /// Pace of those of whom it is known, as it is expected of one who just came.
    fn usual_pace(&self) -> f64 {
        let paces = self.living().filter_map(|(_, agent)| agent.performance.pace.mean());
        let (sum, count) = paces.fold((0.0, 0.0), |(sum, count), pace| (sum + pace, count + 1.0));
        if count > 0.0 { sum / count } else { 1.0 }
    }

    /// How long a task takes an agent.
    fn expected_ms(&self, slot: usize, task: &Task, usual_pace: f64) -> f64 {
        self.agents[slot].expected_ms(&task.kind, self.base_ms(task).unwrap_or(UNKNOWN_MS), usual_pace)
    }

    /// When the places of an agent are free, ms from now.
    fn places(&self, slot: usize, usual_pace: f64, now_ms: u64) -> Vec<f64> {
        let agent = &self.agents[slot];
        if agent.standing != super::agent::Standing::Active || agent.circuit.state() != State::Closed {
            // One that is tried gets what it may get now, and nothing is planned for it.
            return if self.seats[slot].free > 0 { vec![0.0] } else { Vec::new() };
        }
        let busy = agent.running.iter().filter_map(|id| self.tasks.get(id)).map(|task| self.left_ms(slot, task, usual_pace, now_ms));
        let free = usize::try_from(agent.free()).unwrap_or(usize::MAX).min(AHEAD);
        busy.chain(std::iter::repeat_n(0.0, free)).collect()
    }

    /// How long a task will run on.
    #[allow(clippy::cast_precision_loss)] // times of tasks
    fn left_ms(&self, slot: usize, task: &Task, usual_pace: f64, now_ms: u64) -> f64 {
        let takes = self.expected_ms(slot, task, usual_pace);
        let passed = now_ms.saturating_sub(task.assigned_at.unwrap_or(now_ms)) as f64;
        // One that is late will probably be later still.
        (takes - passed).max(takes * LATE).max(passed - takes)
    }

    fn give(&mut self, slot: usize, id: &str, now_ms: u64) {
        self.queue.remove(id);
        self.assignments += 1;
        let agent = &mut self.agents[slot];
        agent.running.insert(id.to_owned());
        agent.circuit.given(id);
        agent.given = self.assignments;
        let (agent_id, is_tried) = (agent.id.clone(), agent.circuit.state() == State::HalfOpen);
        let Some(task) = self.tasks.get_mut(id) else { return };
        task.status = Status::Assigned;
        task.given += 1;
        task.agent_id = Some(agent_id);
        (task.assigned_at, task.started_at, task.avoid) = (Some(now_ms), None, None);
        if let Some(timeout_ms) = task.timeout_ms {
            self.deadlines.insert((now_ms.saturating_add(timeout_ms), id.to_owned()));
        }
        self.changed_task(id);
        if is_tried {
            // Whoever leads next must not try it with one more.
            self.change(slot, now_ms);
        } else {
            self.touch(slot, now_ms);
        }
        self.tell_agent(slot, id);
    }

    /// Tells an agent of a task that it has: everybody by the event, and one made by the library where it reads.
    pub(super) fn tell_agent(&mut self, slot: usize, id: &str) {
        let Some(task) = self.tasks.get(id) else { return };
        let saying = Saying {
            event_type: "task.assigned",
            // Of this life of the task: one that was given up may be given anew.
            key: format!("assigned:{id}:{}:{}", task.submitted_at, task.given),
            data: assigned(task),
            target: task.agent_id.clone(),
            ttl_s: self.agents[slot].inbox.as_ref().map(|_| ASSIGNED_TTL_S),
            correlation_id: task.correlation_id.clone(),
        };
        self.say(saying);
        self.post_task(slot, id);
    }

    /// Posts a task to where its agent reads, if it does.
    pub(super) fn post_task(&mut self, slot: usize, id: &str) {
        let (Some(task), agent) = (self.tasks.get(id), &self.agents[slot]) else { return };
        if let Some(inbox) = agent.inbox.clone() {
            let letter = format!("{{\"agent\":{},\"assign\":{}}}", json!(agent.id), assigned(task));
            self.post(&inbox, letter);
        }
    }
}
