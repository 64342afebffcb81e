//! The life of a task: taken in, waiting, with an agent, over.

use serde_json::json;
use serde_json::value::RawValue;

use super::hearing::too_much;
use super::orchestra::{Orchestra, Outcome, Saying};
use super::reading::Named;
use super::task::{Status, Task};
use crate::engine::error::{Code, Error, Result};
use crate::engine::moment;

/// Most tasks that are not over.
const TASKS_MAX: usize = 100_000;
/// Most bytes that they carry along.
const BYTES_MAX: usize = 256 << 20;
/// Values that make the usual time of a type of task.
const KIND_WINDOW: u32 = 100;
/// The store's clock as it is known here may be so much ahead of what it stamps, ms.
pub(super) const CLOCKS_MS: u64 = 100;

impl Orchestra {
    /// Takes a task in, once: one that is known is answered as it is. Answers its id.
    pub(super) fn submit(&mut self, task: Task, now_ms: u64) -> Result<String> {
        let id = task.id.clone();
        if self.tasks.contains_key(&id) || self.ended.contains_key(&id) {
            return Ok(id);
        }
        if self.tasks.len() >= TASKS_MAX {
            return Err(too_much(&format!("{TASKS_MAX} tasks are waiting or running")));
        }
        let (bytes, most) = (task.to_text().len() + task.data.get().len(), self.rules.task_bytes_max);
        if bytes > most {
            let problem = format!("task: is {bytes} bytes of JSON with its data; it may be {most} (limits.maxPayloadBytes, less a little)");
            return Err(Error::new(Code::PayloadTooLarge, problem).with("argument", "task"));
        }
        if self.bytes + task.data.get().len() > BYTES_MAX {
            return Err(too_much(&format!("the tasks that are waiting or running carry {BYTES_MAX} bytes")));
        }
        if let Some(circle) = self.circle(&task) {
            return Err(Error::argument("task.dependencies", format!("lead back to the task itself: {circle}")));
        }
        self.tasks.insert(id.clone(), task);
        self.new_task(&id);
        self.wait_for_dependencies(&id);
        self.look_at_dependencies(&id, now_ms);
        Ok(id)
    }

    /// The way from a task over what it depends on back to itself.
    fn circle(&self, task: &Task) -> Option<String> {
        if task.dependencies.contains(&task.id) {
            return Some(format!("{0} → {0}", task.id));
        }
        // Nobody waits for it: no way leads to it.
        self.dependents.get(&task.id)?;
        let mut ways: Vec<(&str, Option<usize>)> = task.dependencies.iter().map(|id| (id.as_str(), None)).collect();
        let mut seen = std::collections::HashSet::new();
        let mut at = 0;
        while at < ways.len() {
            let (id, _) = ways[at];
            if id == task.id {
                let mut names = vec![id];
                let mut from = ways[at].1;
                while let Some(step) = from {
                    names.push(ways[step].0);
                    from = ways[step].1;
                }
                names.push(&task.id);
                names.reverse();
                return Some(names.join(" → "));
            }
            if seen.insert(id)
                && let Some(next) = self.tasks.get(id)
            {
                ways.extend(next.dependencies.iter().map(|id| (id.as_str(), Some(at))));
            }
            at += 1;
        }
        None
    }

    /// Notes what a task waits for.
    pub(super) fn wait_for_dependencies(&mut self, id: &str) {
        let Some(task) = self.tasks.get_mut(id) else { return };
        task.waiting_for = task.dependencies.clone();
        task.status = Status::Waiting;
        self.note_waiting(id);
    }

    /// Notes for whom a task waits, and what of it is over.
    pub(super) fn note_waiting(&mut self, id: &str) {
        let Some(task) = self.tasks.get_mut(id) else { return };
        let ended = &self.ended;
        task.waiting_for.retain(|dependency| ended.get(dependency).is_none_or(|ended| ended.status != Status::Completed));
        for dependency in &task.waiting_for {
            self.dependents.entry(dependency.clone()).or_default().insert(id.to_owned());
        }
    }

    /// It is over though not all that it waits for is. It may be given again.
    fn wait_no_more(&mut self, task: &Task) {
        for dependency in &task.waiting_for {
            if let Some(dependents) = self.dependents.get_mut(dependency) {
                dependents.remove(&task.id);
                if dependents.is_empty() {
                    self.dependents.remove(dependency);
                }
            }
        }
    }

    /// What a task waits for may be over: then it is its turn, or it never will be.
    pub(super) fn look_at_dependencies(&mut self, id: &str, now_ms: u64) {
        let Some(task) = self.tasks.get(id).filter(|task| task.status == Status::Waiting) else { return };
        let over = task.waiting_for.iter().find_map(|dependency| match self.ended.get(dependency) {
            Some(ended) if ended.status != Status::Completed => Some((dependency.clone(), ended.status)),
            _ => None,
        });
        match over {
            Some((dependency, Status::Cancelled)) => {
                self.cancel(id, &format!("'{dependency}', on which it depends, was cancelled"), true, now_ms);
            }
            Some((dependency, _)) => self.give_up(id, &format!("'{dependency}', on which it depends, failed"), true, now_ms),
            None if task.waiting_for.is_empty() => {
                if let Some(task) = self.tasks.get_mut(id) {
                    task.status = Status::Queued;
                }
                self.changed_task(id);
                self.enqueue(id);
            }
            None => {}
        }
    }

    /// Puts a task into the queue.
    pub(super) fn enqueue(&mut self, id: &str) {
        let Some(task) = self.tasks.get(id) else { return };
        let (agents, required) = (&self.agents, &task.required_capabilities);
        let fitting = || {
            let able = agents.iter().enumerate().filter(|(_, agent)| !agent.id.is_empty() && agent.can(required));
            able.map(|(slot, _)| slot).collect()
        };
        self.queue.push(id, required, task.priority, task.submitted_at, fitting);
    }

    /// Whether what an agent says is of a task that it has. If not, the task was given to somebody else, or is over.
    fn is_theirs(&mut self, of: &Named, at_ms: u64) -> bool {
        let is_theirs = self.tasks.get(&of.task).is_some_and(|task| {
            let is_this_time = match of.attempt {
                Some(attempt) => attempt == task.given,
                // Said before it was given: of the time before.
                None => task.assigned_at.is_none_or(|told_ms| at_ms + CLOCKS_MS >= told_ms),
            };
            task.status.is_with_agent() && task.agent_id.as_deref() == Some(&of.agent) && is_this_time
        });
        if !is_theirs && (self.tasks.contains_key(&of.task) || self.ended.contains_key(&of.task)) {
            self.totals.stale += 1;
        }
        is_theirs
    }

    fn heard_of(&mut self, of: &Named, at_ms: u64, now_ms: u64) {
        if let Some(slot) = self.by_id.get(&of.agent).copied() {
            self.sign_of_life(slot, at_ms, false, now_ms);
        }
    }

    pub(super) fn task_started(&mut self, of: &Named, at_ms: u64, now_ms: u64) -> Outcome {
        self.heard_of(of, at_ms, now_ms);
        if let Some(slot) = self.by_id.get(&of.agent).copied()
            && !self.agents[slot].tells_starts
        {
            self.agents[slot].tells_starts = true;
            self.change(slot, now_ms);
        }
        if self.is_theirs(of, at_ms)
            && let Some(task) = self.tasks.get_mut(&of.task)
        {
            task.status = Status::Running;
            task.started_at.get_or_insert(at_ms);
            self.changed_task(&of.task);
        }
        Outcome::Done
    }

    pub(super) fn task_completed(
        &mut self,
        of: &Named,
        result: Option<Box<RawValue>>,
        duration_ms: Option<f64>,
        at_ms: u64,
        now_ms: u64,
    ) -> Outcome {
        self.heard_of(of, at_ms, now_ms);
        if !self.is_theirs(of, at_ms) {
            return Outcome::Done;
        }
        let Some(mut task) = self.tasks.remove(&of.task) else { return Outcome::Done };
        let since = |from: Option<u64>| from.map_or(0, |from| at_ms.saturating_sub(from));
        #[allow(clippy::cast_precision_loss)] // times of tasks
        let (response_ms, took_ms) = (since(task.assigned_at) as f64, since(task.started_at.or(task.assigned_at)) as f64);
        if let (None, Some(duration_ms)) = (task.started_at, duration_ms) {
            // That it began is said by an event of another type, which may be heard later, or never.
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // not negative; too long a time is cut
            let began_ms = at_ms.saturating_sub(duration_ms as u64);
            task.started_at = Some(began_ms.max(task.assigned_at.unwrap_or(0)));
        }
        let duration_ms = duration_ms.unwrap_or(took_ms);
        // What it takes an agent like others: as its giver thinks, or as it was for all so far.
        let base_ms = self.base_ms(&task).unwrap_or(duration_ms);
        if self.kinds.len() < super::orchestra::KINDS_MAX || self.kinds.contains_key(&task.kind) {
            self.kinds.entry(task.kind.clone()).or_default().add(duration_ms, KIND_WINDOW);
        }
        if let Some(slot) = self.release(&task) {
            self.agents[slot].succeeded(&task.kind, duration_ms, base_ms, response_ms, now_ms);
            self.rate(slot, &task.id, false, now_ms);
        }
        self.totals.completed += 1;
        self.totals.lately.completed(response_ms, now_ms);
        task.attempts += 1;
        task.result = result;
        self.end(task, Status::Completed, now_ms);
        Outcome::Done
    }

    /// What a task takes an agent like others, ms.
    pub(super) fn base_ms(&self, task: &Task) -> Option<f64> {
        task.estimated_duration.or_else(|| self.kinds.get(&task.kind)?.mean())
    }

    pub(super) fn task_failed(&mut self, of: &Named, error: &str, permanent: bool, handed_back: bool, at_ms: u64, now_ms: u64) -> Outcome {
        self.heard_of(of, at_ms, now_ms);
        if !self.is_theirs(of, at_ms) {
            return Outcome::Done;
        }
        if handed_back {
            self.take_away(&of.task, error, false, now_ms);
            return Outcome::Done;
        }
        if let Some(slot) = self.by_id.get(&of.agent).copied() {
            self.agents[slot].failed(now_ms);
            self.rate(slot, &of.task, true, now_ms);
        }
        self.totals.failed_attempts += 1;
        self.totals.lately.failed(now_ms);
        if permanent {
            self.count_attempt(&of.task);
            self.give_up(&of.task, error, true, now_ms);
        } else {
            self.take_away(&of.task, error, true, now_ms);
        }
        Outcome::Done
    }

    fn count_attempt(&mut self, id: &str) {
        if let Some(task) = self.tasks.get_mut(id) {
            task.attempts += 1;
        }
    }

    /// A task is not its agent's any more: another gets it, unless its attempts are used up.
    pub(super) fn take_away(&mut self, id: &str, error: &str, counts: bool, now_ms: u64) {
        let Some(task) = self.tasks.get_mut(id) else { return };
        task.error = Some(error.to_owned());
        task.attempts += u32::from(counts);
        if task.attempts >= task.max_attempts {
            return self.give_up(id, error, false, now_ms);
        }
        let Some(mut task) = self.tasks.remove(id) else { return };
        if let Some(slot) = self.release(&task) {
            self.agents[slot].circuit.given_up(id);
            self.touch(slot, now_ms);
        }
        task.avoid = task.agent_id.take();
        (task.assigned_at, task.started_at, task.status) = (None, None, Status::Queued);
        self.tasks.insert(id.to_owned(), task);
        self.changed_task(id);
        self.enqueue(id);
    }

    /// All that an agent has is for others.
    pub(super) fn take_tasks_away(&mut self, slot: usize, error: &str, now_ms: u64) {
        let tells_starts = self.agents[slot].tells_starts;
        for id in self.agents[slot].running.clone() {
            // What never began was no attempt, where that is known.
            let counts = self.tasks.get(&id).is_some_and(|task| task.status == Status::Running || !tells_starts);
            self.take_away(&id, error, counts, now_ms);
        }
    }

    /// Its agent has a place more. Answers its slot.
    fn release(&mut self, task: &Task) -> Option<usize> {
        if let (Some(timeout_ms), Some(at_ms)) = (task.timeout_ms, task.assigned_at) {
            self.deadlines.remove(&(at_ms.saturating_add(timeout_ms), task.id.clone()));
        }
        let slot = self.by_id.get(task.agent_id.as_ref()?).copied()?;
        self.agents[slot].running.remove(&task.id);
        Some(slot)
    }

    /// A task said something of its agent: how its circuit takes it.
    pub(super) fn rate(&mut self, slot: usize, id: &str, failed: bool, now_ms: u64) {
        let rules = self.rules.circuit;
        let agent = &mut self.agents[slot];
        let before = agent.circuit.state();
        agent.circuit.ended(id, failed, now_ms, &rules);
        if before == agent.circuit.state() {
            return self.touch(slot, now_ms);
        }
        if agent.circuit.state() == super::circuit::State::Open {
            let data = json!({
                "metric": "errorRate", "threshold": rules.failure_threshold * 100.0,
                "currentValue": agent.performance.lately.sum(now_ms).error_rate(), "severity": "critical", "source": agent.id,
                "timestamp": moment::write(now_ms),
            });
            let key = format!("circuit:{}:{now_ms}", agent.id);
            self.say(Saying {
                event_type: "performance.threshold",
                key,
                data: data.to_string(),
                target: None,
                ttl_s: None,
                correlation_id: None,
            });
        }
        self.change(slot, now_ms);
    }

    /// Nobody is to do it any more. Answers whether it was not over.
    pub(super) fn cancel(&mut self, id: &str, reason: &str, says_so: bool, now_ms: u64) -> bool {
        let Some(mut task) = self.tasks.remove(id) else { return false };
        self.queue.remove(id);
        if task.status.is_with_agent()
            && let Some(slot) = self.release(&task)
        {
            let agent = &mut self.agents[slot];
            agent.circuit.given_up(id);
            if let Some(inbox) = agent.inbox.clone() {
                let cancel = json!({ "taskId": id, "attempt": task.given, "reason": reason });
                let letter = json!({ "agent": agent.id, "cancel": cancel }).to_string();
                self.post(&inbox, letter);
            }
            self.touch(slot, now_ms);
        }
        self.totals.cancelled += 1;
        task.error = Some(reason.to_owned());
        if says_so {
            self.say_cancelled(&task, reason, now_ms);
        }
        self.end(task, Status::Cancelled, now_ms);
        true
    }

    fn say_cancelled(&mut self, task: &Task, reason: &str, now_ms: u64) {
        let data = json!({ "taskId": task.id, "agentId": task.agent_id, "reason": reason, "timestamp": moment::write(now_ms) });
        self.say(Saying {
            event_type: "task.cancelled",
            key: format!("cancelled:{}:{}", task.id, task.submitted_at),
            data: data.to_string(),
            target: task.agent_id.clone(),
            ttl_s: None,
            correlation_id: task.correlation_id.clone(),
        });
    }

    /// It cannot be done.
    pub(super) fn give_up(&mut self, id: &str, error: &str, is_permanent: bool, now_ms: u64) {
        let Some(mut task) = self.tasks.remove(id) else { return };
        self.queue.remove(id);
        if task.status.is_with_agent()
            && let Some(slot) = self.release(&task)
        {
            self.agents[slot].circuit.given_up(id);
            self.touch(slot, now_ms);
        }
        self.totals.given_up += 1;
        (task.error, task.ended_at, task.permanent) = (Some(error.to_owned()), Some(now_ms), is_permanent);
        self.say_given_up(&task);
        self.end(task, Status::Failed, now_ms);
    }

    /// Announces that a task failed, with all of it: read again by whoever leads, it becomes the dead letter.
    pub(super) fn say_given_up(&mut self, task: &Task) {
        let is_permanent = task.permanent;
        let error = task.error.as_deref().unwrap_or("no error is given");
        let reason = if is_permanent { "permanent" } else { "max-attempts" };
        let data = json!({
            "taskId": task.id, "agentId": task.agent_id, "error": error, "timestamp": moment::write(task.ended_at.unwrap_or_default()),
            "final": true, "attempts": task.attempts, "reason": reason, "permanent": is_permanent,
            "task": task.to_whole(),
        });
        self.say(Saying {
            event_type: "task.failed",
            key: format!("failed:{}:{}", task.id, task.ended_at.unwrap_or_default()),
            data: data.to_string(),
            target: None,
            ttl_s: None,
            correlation_id: task.correlation_id.clone(),
        });
    }

    fn end(&mut self, mut task: Task, status: Status, now_ms: u64) {
        if task.status == Status::Waiting {
            self.wait_no_more(&task);
        }
        task.status = status;
        task.ended_at = Some(now_ms);
        self.ended_task(&task, now_ms);
        let is_outermost = self.to_look_at.is_empty();
        self.to_look_at.extend(self.dependents.remove(&task.id).unwrap_or_default());
        // Those that end by it are looked at here, too: a long chain must not be a deep one.
        while is_outermost && let Some(dependent) = self.to_look_at.front().cloned() {
            self.note_waiting_less(&dependent);
            self.look_at_dependencies(&dependent, now_ms);
            self.to_look_at.pop_front();
        }
    }

    /// What it waited for may be done.
    fn note_waiting_less(&mut self, id: &str) {
        let Some(task) = self.tasks.get_mut(id) else { return };
        let (before, ended) = (task.waiting_for.len(), &self.ended);
        task.waiting_for.retain(|dependency| ended.get(dependency).is_none_or(|ended| ended.status != Status::Completed));
        if task.waiting_for.len() < before {
            self.changed_task(id);
        }
    }

    /// What it said of a task that it gave up becomes the dead letter; when that is redriven, the task begins anew.
    pub(super) fn given_up_heard(&mut self, task: Task, error: String, is_permanent: bool, redriven: bool, now_ms: u64) -> Outcome {
        let is_failed = self.ended.get(&task.id).is_none_or(|ended| ended.status == Status::Failed);
        // Else it began anew since, or came to another end.
        if self.tasks.contains_key(&task.id) || !is_failed {
            return Outcome::Done;
        }
        if !redriven {
            if let Some(ended) = self.ended.get_mut(&task.id) {
                ended.lettered = true;
                self.write_ended(&Task { status: Status::Failed, lettered: true, ..task });
            }
            return Outcome::Dead { error, is_permanent };
        }
        let (id, before) = (task.id.clone(), self.ended.remove(&task.id));
        self.ended_bytes = self.ended_bytes.saturating_sub(before.as_ref().map_or(0, |ended| ended.bytes));
        match self.submit(task.anew(now_ms), now_ms) {
            Ok(_) => Outcome::Done,
            Err(refused) => {
                self.ended_bytes += before.as_ref().map_or(0, |ended| ended.bytes);
                self.ended.extend(before.map(|ended| (id, ended)));
                Outcome::Dead { error: refused.message, is_permanent: true }
            }
        }
    }
}

/// How an event of the orchestration speaks of a task that an agent gets.
pub(super) fn assigned(task: &Task) -> String {
    let mut told = json!({
        "taskId": task.id, "agentId": task.agent_id, "taskType": task.kind, "priority": task.priority,
        "estimatedDuration": task.estimated_duration, "dependencies": task.dependencies,
        "requiredCapabilities": task.required_capabilities, "attempt": task.given, "timeoutMs": task.timeout_ms,
        "correlationId": task.correlation_id, "submittedAt": task.submitted_at,
    });
    if let Some(map) = told.as_object_mut() {
        map.retain(|_, value| !value.is_null());
    }
    let mut text = told.to_string();
    text.pop();
    text.push_str(",\"data\":");
    text.push_str(task.data.get());
    text.push('}');
    text
}
