//! What events change: the agents' part, and the way of those that concern tasks.

use serde_json::json;

use super::agent::{Agent, Standing};
use super::orchestra::{Orchestra, Outcome};
use super::pools::{Member, deal};
use super::reading::{Heard, Metrics, Spawned, What};
use super::task::Status;
use crate::engine::error::{Code, Error};

/// Most agents.
const AGENTS_MAX: usize = 10_000;
/// How long an agent that is said to be strained gets tasks last, ms.
const STRAINED_MS: u64 = 30_000;
/// How long what is said of an agent that is not known yet waits for it, ms.
const LATER_MS: u64 = 1_000;
/// A task that its agent does not have so long after it was told, ms, is told again.
const LOST_MS: u64 = 5_000;
/// A task that its agent does not have for so long, ms, is given to another.
const GONE_MS: u64 = 10_000;

impl Orchestra {
    /// Sees to one event.
    pub fn hear(&mut self, heard: Heard, now_ms: u64) -> Outcome {
        let Heard { place, at_ms, is_own, redriven, what } = heard;
        match what {
            What::TaskGivenUp { task, error, is_permanent } => self.given_up_heard(*task, error, is_permanent, redriven, now_ms),
            // It knows what it said.
            _ if is_own => Outcome::Done,
            What::Spawned(spawned) => self.spawned(spawned, &place, at_ms, now_ms),
            What::Started { agent } => self.started(&agent, &place, at_ms, now_ms),
            // Of another life of the agent.
            What::Stopped { ref agent, inbox: Some(ref inbox), .. } | What::Terminated { ref agent, inbox: Some(ref inbox), .. }
                if self.by_id.get(agent).is_some_and(|slot| self.agents[*slot].inbox.as_ref() != Some(inbox)) =>
            {
                Outcome::Done
            }
            What::Stopped { agent, draining: true, .. } => self.drains(&agent, &place, now_ms),
            What::Stopped { agent, reason, .. } => {
                self.ended_agent(&agent, &place, Standing::Terminated, &format!("stopped: {reason}"), at_ms, now_ms)
            }
            What::Terminated { agent, reason, .. } => {
                self.ended_agent(&agent, &place, Standing::Terminated, &format!("terminated: {reason}"), at_ms, now_ms)
            }
            What::Failed { agent, error } => self.ended_agent(&agent, &place, Standing::Failed, &format!("failed: {error}"), at_ms, now_ms),
            What::Metrics(metrics) => self.measured(metrics, at_ms, now_ms),
            What::Strained { who, reason } => self.strained(&who, &reason, at_ms, now_ms),
            What::TaskStarted(of) => self.task_started(&of, at_ms, now_ms),
            What::TaskCompleted { of, result, duration_ms } => self.task_completed(&of, result, duration_ms, at_ms, now_ms),
            What::TaskFailed { of, error, permanent, handed_back } => self.task_failed(&of, &error, permanent, handed_back, at_ms, now_ms),
            What::TaskCancelled { task, reason } => {
                self.cancel(&task, &reason, false, now_ms);
                Outcome::Done
            }
            What::Distribute(task) => match task.and_then(|task| self.submit(*task, now_ms)) {
                Ok(id) => Outcome::Given(id),
                Err(error) => Outcome::Refuse(error),
            },
            What::Cancel(task) => match task {
                Ok((task, reason)) => Outcome::Reply(json!({ "ok": self.cancel(&task, &reason, true, now_ms) })),
                Err(error) => Outcome::Refuse(error),
            },
        }
    }

    fn spawned(&mut self, spawned: Spawned, place: &str, at_ms: u64, now_ms: u64) -> Outcome {
        let known = self.by_id.get(&spawned.agent).copied();
        if known.is_some_and(|slot| self.agents[slot].spawned_by.as_str() >= place) {
            return Outcome::Done;
        }
        if known.is_none() && self.by_id.len() >= AGENTS_MAX {
            return Outcome::Dead { error: format!("there are {AGENTS_MAX} agents, more are not looked after"), is_permanent: true };
        }
        let mut agent = Agent { heard_ms: now_ms, ..Agent::new(spawned, place, at_ms) };
        if let Some(slot) = known {
            // Another life: what the one before had is done by others, what it was able to stays.
            self.take_tasks_away(slot, "its agent spawned anew", now_ms);
            let before = &mut self.agents[slot];
            agent.performance = std::mem::take(&mut before.performance);
            agent.given = before.given;
            if before.kind == agent.kind && before.standing.is_alive() {
                agent.pool = std::mem::take(&mut before.pool);
            }
            self.unseat(slot);
        }
        let slot = self.seat_agent(agent, now_ms);
        if now_ms.saturating_sub(at_ms) > self.rules.agent_timeout_ms {
            // It spawned long ago, and nobody heard it: it may be there still, or not. What it says next tells.
            let agent = &mut self.agents[slot];
            (agent.standing, agent.silent, agent.ended_ms) = (Standing::Failed, true, now_ms);
        } else {
            self.join_pool(slot, now_ms);
        }
        self.change(slot, now_ms);
        Outcome::Done
    }

    /// Nothing was heard of it for longer than agents may be silent, by one who listened.
    pub(super) fn is_silent(&self, slot: usize, now_ms: u64) -> bool {
        let agent = &self.agents[slot];
        let heard_ms = agent.active_ms.max(agent.heard_ms).max(self.listening_ms);
        now_ms.saturating_sub(heard_ms) > self.rules.agent_timeout_ms
    }

    /// Puts an agent into a pool of its type: the one with room that is worth least; where none has room, a new one, for which the agents
    /// of the type are dealt anew.
    pub(super) fn join_pool(&mut self, slot: usize, now_ms: u64) {
        if !self.agents[slot].pool.is_empty() {
            return;
        }
        let kind = self.agents[slot].kind.clone();
        let most = usize::try_from(self.rules.scaling.max).unwrap_or(usize::MAX);
        let mut pools = self.pools.of(&kind);
        if pools.is_empty() {
            pools.push(self.pools.add(&kind, now_ms));
        }
        // Pools that are left over from a time of more agents are to become empty.
        let members = self.living().filter(|(_, agent)| agent.kind == kind).count();
        pools.truncate(members.div_ceil(most).max(1));
        let mut figures = vec![(0_usize, 0.0_f64); pools.len()];
        for (other, agent) in self.living() {
            if let Some(at) = pools.iter().position(|pool| other != slot && *pool == agent.pool) {
                figures[at].0 += 1;
                figures[at].1 += worth(agent);
            }
        }
        let with_room = (0..pools.len()).filter(|at| figures[*at].0 < most);
        if let Some(at) = with_room.min_by(|a, b| figures[*a].1.total_cmp(&figures[*b].1)) {
            self.agents[slot].pool.clone_from(&pools[at]);
            return;
        }
        if self.pools.of(&kind).len() == pools.len() {
            self.pools.add(&kind, now_ms);
        }
        self.deal_pools(&kind, now_ms);
    }

    /// Deals the agents of a type out to its pools.
    pub(super) fn deal_pools(&mut self, kind: &str, now_ms: u64) {
        let mut pools = self.pools.of(kind);
        let members: Vec<Member> =
            self.living().filter(|(_, agent)| agent.kind == kind).map(|(slot, agent)| Member { slot, worth: worth(agent) }).collect();
        let most = usize::try_from(self.rules.scaling.max).unwrap_or(usize::MAX);
        pools.truncate(members.len().div_ceil(most).max(1));
        for (slot, at) in deal(&members, pools.len(), most) {
            if self.agents[slot].pool != pools[at] {
                self.agents[slot].pool.clone_from(&pools[at]);
                self.change(slot, now_ms);
            }
        }
    }

    /// The agent that an event speaks of, unless what it says is of a life before the present one.
    fn agent_in(&self, agent: &str, place: &str) -> Option<usize> {
        self.by_id.get(agent).copied().filter(|slot| self.agents[*slot].spawned_by.as_str() < place)
    }

    fn started(&mut self, agent: &str, place: &str, at_ms: u64, now_ms: u64) -> Outcome {
        if !self.by_id.contains_key(agent) {
            let error = format!("the agent '{agent}' is not known: publish 'agent.spawned' with its id, type and capabilities first");
            return Outcome::Later { after_ms: LATER_MS, error };
        }
        if let Some(slot) = self.agent_in(agent, place) {
            let is_back = at_ms >= self.agents[slot].ended_ms;
            self.sign_of_life(slot, at_ms, is_back, now_ms);
        }
        Outcome::Done
    }

    /// It was heard of. One that was given up because it was silent is back; so is one that says that it is.
    pub(super) fn sign_of_life(&mut self, slot: usize, at_ms: u64, says_so: bool, now_ms: u64) {
        let agent = &mut self.agents[slot];
        agent.active_ms = agent.active_ms.max(at_ms.min(now_ms));
        agent.heard_ms = now_ms;
        // Not by what it said before, and was heard of late.
        let is_back = agent.silent && agent.standing == Standing::Failed && at_ms >= agent.ended_ms;
        if !agent.standing.is_alive() && (says_so || is_back) {
            (agent.standing, agent.silent, agent.ended_ms) = (Standing::Active, false, 0);
            self.join_pool(slot, now_ms);
            self.change(slot, now_ms);
        } else {
            self.touch(slot, now_ms);
        }
    }

    fn drains(&mut self, agent: &str, place: &str, now_ms: u64) -> Outcome {
        if let Some(slot) = self.agent_in(agent, place)
            && self.agents[slot].standing == Standing::Active
        {
            self.agents[slot].standing = Standing::Draining;
            self.change(slot, now_ms);
        }
        Outcome::Done
    }

    fn ended_agent(&mut self, agent: &str, place: &str, standing: Standing, why: &str, at_ms: u64, now_ms: u64) -> Outcome {
        if let Some(slot) = self.agent_in(agent, place)
            && self.agents[slot].standing != Standing::Terminated
        {
            self.end_agent(slot, standing, false, why, now_ms);
            // By the clock of what it says next.
            self.agents[slot].ended_ms = at_ms.min(now_ms);
        }
        Outcome::Done
    }

    /// It is there no more: what it had is done by others.
    pub(super) fn end_agent(&mut self, slot: usize, standing: Standing, silent: bool, why: &str, now_ms: u64) {
        let agent = &mut self.agents[slot];
        (agent.standing, agent.silent, agent.ended_ms) = (standing, silent, now_ms);
        agent.pool = String::new();
        self.take_tasks_away(slot, &format!("its agent {why}"), now_ms);
        self.change(slot, now_ms);
    }

    fn measured(&mut self, metrics: Metrics, at_ms: u64, now_ms: u64) -> Outcome {
        let Some(slot) = self.by_id.get(&metrics.source).copied() else {
            // One of ours that this store does not know: it may have been emptied.
            if let Some(inbox) = &metrics.inbox {
                self.post(inbox, json!({ "agent": metrics.source, "respawn": {} }).to_string());
            }
            return Outcome::Done;
        };
        let agent = &self.agents[slot];
        let is_other_life = metrics.inbox.is_some() && metrics.inbox != agent.inbox;
        match (&metrics.inbox, agent.standing) {
            _ if is_other_life => return Outcome::Done,
            // It works on, and was taken for gone.
            (Some(inbox), Standing::Terminated) => {
                let (inbox, letter) = (inbox.clone(), json!({ "agent": agent.id, "respawn": {} }).to_string());
                self.post(&inbox, letter);
                return Outcome::Done;
            }
            // It may not have heard that it is to go.
            (Some(inbox), Standing::Draining) => {
                let (inbox, letter) = (inbox.clone(), json!({ "agent": agent.id, "drain": { "reason": "scale-down" } }).to_string());
                self.post(&inbox, letter);
            }
            _ => {}
        }
        let resources = &mut self.agents[slot].resources;
        for (value, to) in [
            (metrics.cpu, &mut resources.cpu),
            (metrics.memory, &mut resources.memory),
            (metrics.network_io, &mut resources.network_io),
            (metrics.disk_io, &mut resources.disk_io),
        ] {
            if let Some(value) = value {
                *to = value;
            }
        }
        self.sign_of_life(slot, at_ms, false, now_ms);
        if let Some(running) = metrics.running {
            self.tell_lost(slot, &running, at_ms, now_ms);
        }
        Outcome::Done
    }

    /// Tells an agent again of tasks that it should have heard of and does not have. What it does not have for long is given to others: what
    /// it said of it may have been lost.
    fn tell_lost(&mut self, slot: usize, running: &[(String, u32)], at_ms: u64, now_ms: u64) {
        let (mut lost, mut gone) = (Vec::new(), Vec::new());
        for id in &self.agents[slot].running {
            let Some(task) = self.tasks.get_mut(id) else { continue };
            let has = running.iter().any(|(known, attempt)| known == id && *attempt == task.given);
            let is_early = task.assigned_at.is_none_or(|told_ms| told_ms + LOST_MS > at_ms);
            if has || is_early {
                task.missing_since_ms = None;
                continue;
            }
            let since_ms = *task.missing_since_ms.get_or_insert(at_ms);
            if at_ms.saturating_sub(since_ms) >= GONE_MS {
                gone.push(id.clone());
            } else if task.status == Status::Assigned {
                lost.push(id.clone());
            }
        }
        for id in lost {
            self.post_task(slot, &id);
        }
        for id in gone {
            self.take_away(&id, "its agent does not have it", true, now_ms);
        }
    }

    fn strained(&mut self, who: &str, reason: &str, at_ms: u64, now_ms: u64) -> Outcome {
        if now_ms.saturating_sub(at_ms) >= STRAINED_MS {
            return Outcome::Done;
        }
        if let Some(slot) = self.by_id.get(who).copied() {
            self.agents[slot].strained_until_ms = at_ms + STRAINED_MS;
            self.touch(slot, now_ms);
        }
        for pool in self.pools.iter_mut().filter(|pool| pool.id == who || pool.kind == who) {
            pool.strained = Some(reason.to_owned());
        }
        Outcome::Done
    }
}

/// What an agent counts for in its pool: tasks at once by what each is worth.
pub(super) fn worth(agent: &Agent) -> f64 {
    f64::from(agent.max_tasks) * agent.weight().unwrap_or(1.0)
}

/// `ERR_BACKPRESSURE`: no more is taken.
pub(super) fn too_much(what: &str) -> Error {
    Error::new(Code::Backpressure, format!("{what}; let agents finish, or start more of them, and try again"))
}
