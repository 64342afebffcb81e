//! What time brings: agents that are silent, tasks that take too long, circuits to be tried, pools to be scaled, what may be forgotten.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::agent::Standing;
use super::circuit::State;
use super::hearing::worth;
use super::orchestra::{Orchestra, Saying};
use super::pools::{Announcement, is_uneven};
use super::scaling::{Decision, Facts, decide};
use crate::engine::moment;

/// Agents that are gone are shown for so long, ms, and so many of them.
const GONE_KEPT: (u64, usize) = (300_000, 1_000);
/// What is known of tasks that are over is kept for so long, ms, and for so many of them.
const ENDED_KEPT: (u64, usize) = (3_600_000, 100_000);
/// Most bytes that are kept of them.
const ENDED_BYTES_MAX: usize = 256 << 20;
/// Tasks that are forgotten in one step.
const FORGOTTEN_A_STEP: usize = 1_000;
/// An agent is given so much longer than a task's timeout, ms, so that it can say itself that it took too long.
const GRACE_MS: u64 = 2_000;
/// How often bottlenecks are looked for and pools dealt anew, ms.
const LOOK_MS: u64 = 10_000;
/// How often the same bottleneck is told, ms.
const TOLD_MS: u64 = 300_000;
/// Tasks that nobody can do are told after so long, ms: an agent may be about to come.
const LONELY_MS: u64 = 5_000;
/// An agent that takes so many times as long as the others of its pool is a bottleneck.
const SLOW: f64 = 3.0;
/// Agents with a known pace by which others are judged.
const JUDGES: usize = 3;

const SCALE_UP: &str = "orchestration.scale_up";
const SCALE_DOWN: &str = "orchestration.scale_down";

/// When something was looked at last, ms since 1970.
#[derive(Debug, Default)]
pub struct Looked {
    bottlenecks_ms: u64,
    /// By agent: when it was told to be slow.
    slow: HashMap<String, u64>,
}

impl Orchestra {
    /// Time passed.
    pub fn tick(&mut self, now_ms: u64) {
        self.look_at_agents(now_ms);
        self.look_at_deadlines(now_ms);
        self.forget(now_ms);
        self.scale(now_ms);
        if now_ms.saturating_sub(self.looked.bottlenecks_ms) >= LOOK_MS {
            self.looked.bottlenecks_ms = now_ms;
            self.even_out(now_ms);
            self.tell_slow(now_ms);
        }
        self.tell_lonely(now_ms);
    }

    fn look_at_agents(&mut self, now_ms: u64) {
        for slot in 0..self.agents.len() {
            let agent = &mut self.agents[slot];
            if agent.id.is_empty() || !agent.standing.is_alive() {
                continue;
            }
            let before = agent.circuit.state();
            agent.circuit.look(now_ms);
            let has_turned = before != agent.circuit.state();
            let was_strained = agent.strained_until_ms > 0 && now_ms >= agent.strained_until_ms;
            if was_strained {
                agent.strained_until_ms = 0;
            }
            if has_turned {
                self.change(slot, now_ms);
            } else if was_strained {
                self.touch(slot, now_ms);
            }
            if self.is_silent(slot, now_ms) {
                let agent = &self.agents[slot];
                let error = format!("silent for longer than agentTimeoutMs ({} ms)", self.rules.agent_timeout_ms);
                let data = json!({ "agentId": agent.id, "error": error, "timestamp": moment::write(now_ms) });
                let key = format!("silent:{}:{}", agent.id, agent.active_ms);
                self.say(Saying {
                    event_type: "agent.failed",
                    key,
                    data: data.to_string(),
                    target: None,
                    ttl_s: None,
                    correlation_id: None,
                });
                self.end_agent(slot, Standing::Failed, true, &format!("was {error}"), now_ms);
            }
        }
    }

    fn look_at_deadlines(&mut self, now_ms: u64) {
        while let Some((due_ms, id)) = self.deadlines.first().cloned() {
            if due_ms.saturating_add(GRACE_MS) > now_ms {
                return;
            }
            self.deadlines.pop_first();
            let Some(task) = self.tasks.get(&id).filter(|task| task.status.is_with_agent()) else { continue };
            let error = format!("its agent did not end it within timeoutMs ({} ms)", task.timeout_ms.unwrap_or_default());
            let (given, slot) = (task.given, task.agent_id.as_ref().and_then(|agent| self.by_id.get(agent).copied()));
            if let Some(slot) = slot {
                let agent = &self.agents[slot];
                if let Some(inbox) = agent.inbox.clone() {
                    let cancel = json!({ "taskId": id, "attempt": given, "reason": error });
                    let letter = json!({ "agent": agent.id, "cancel": cancel }).to_string();
                    self.post(&inbox, letter);
                }
                self.agents[slot].failed(now_ms);
                self.rate(slot, &id, true, now_ms);
            }
            self.totals.failed_attempts += 1;
            self.totals.lately.failed(now_ms);
            self.take_away(&id, &error, true, now_ms);
        }
    }

    fn forget(&mut self, now_ms: u64) {
        let mut gone: Vec<(u64, usize)> = self
            .agents
            .iter()
            .enumerate()
            .filter(|(_, agent)| !agent.id.is_empty() && !agent.standing.is_alive())
            .map(|(slot, agent)| (agent.ended_ms, slot))
            .collect();
        gone.sort_unstable();
        let beyond = gone.len().saturating_sub(GONE_KEPT.1);
        for (n, (ended_ms, slot)) in gone.into_iter().enumerate() {
            if n < beyond || now_ms.saturating_sub(ended_ms) >= GONE_KEPT.0 {
                self.unseat(slot);
            }
        }
        for _ in 0..FORGOTTEN_A_STEP {
            let is_much = self.ended_order.len() > ENDED_KEPT.1 || self.ended_bytes > ENDED_BYTES_MAX;
            let is_over = self.ended_order.front().is_some_and(|(at_ms, _)| is_much || now_ms.saturating_sub(*at_ms) >= ENDED_KEPT.0);
            if !is_over {
                break;
            }
            // A task that began anew since is another one.
            if let Some((at_ms, id)) = self.ended_order.pop_front()
                && self.ended.get(&id).is_some_and(|ended| ended.at_ms == at_ms)
            {
                self.forget_task(&id);
            }
        }
    }

    /// Tasks that wait and that agents of a pool could do, by pool.
    pub(super) fn queued_by_pool(&self) -> HashMap<String, usize> {
        let mut queued = HashMap::new();
        for class in self.queue.classes() {
            let mut pools: Vec<&str> = class.fitting.iter().map(|slot| self.agents[*slot].pool.as_str()).collect();
            pools.sort_unstable();
            pools.dedup();
            for pool in pools.into_iter().filter(|pool| !pool.is_empty()) {
                *queued.entry(pool.to_owned()).or_insert(0) += class.waiting();
            }
        }
        queued
    }

    fn facts(&self) -> HashMap<String, Facts> {
        let mut facts: HashMap<String, Facts> = HashMap::new();
        for (_, agent) in self.living() {
            let facts = facts.entry(agent.pool.clone()).or_default();
            if agent.standing == Standing::Draining {
                facts.draining += 1;
                continue;
            }
            facts.current += 1;
            facts.idle += u32::from(agent.running.is_empty());
            // One whose circuit is open is no help.
            if agent.circuit.state() != State::Open {
                facts.capacity += agent.max_tasks;
                facts.running += agent.max_tasks - agent.free();
            }
        }
        facts
    }

    fn scale(&mut self, now_ms: u64) {
        let (rules, queued, mut by_pool) = (self.rules.scaling, self.queued_by_pool(), self.facts());
        let mut decided = Vec::new();
        for pool in self.pools.iter_mut() {
            let mut facts = by_pool.remove(&pool.id).unwrap_or_default();
            let share = f64::from(facts.running) / f64::from(facts.capacity.max(1));
            facts.utilization = pool.utilization.look(share, now_ms, rules.window_ms());
            facts.queued = queued.get(&pool.id).copied().and_then(|queued| u32::try_from(queued).ok()).unwrap_or(0);
            facts.strained.clone_from(&pool.strained);
            (facts.age_ms, facts.since_scaled_ms) = (now_ms.saturating_sub(pool.created_ms), now_ms.saturating_sub(pool.scaled_ms));
            // Further pools of a type come and go with what the first one cannot hold.
            let may_be_empty = pool.id != pool.kind && facts.current == 0;
            if let Some(decision) = decide(&facts, &rules).filter(|_| !may_be_empty) {
                pool.strained = None;
                decided.push((pool.id.clone(), facts, decision));
            }
        }
        for (pool, facts, decision) in decided {
            self.announce(&pool, &facts, decision, now_ms);
        }
        let members: HashMap<String, usize> =
            self.facts().into_iter().map(|(id, facts)| (id, (facts.current + facts.draining) as usize)).collect();
        self.pools.forget_empty(now_ms, |id| members.get(id).copied().unwrap_or(0));
    }

    fn announce(&mut self, pool: &str, facts: &Facts, decision: Decision, now_ms: u64) {
        let timestamp = moment::write(now_ms);
        let rules = self.rules.scaling;
        let Some(known) = self.pools.get_mut(pool) else { return };
        let kind = known.kind.clone();
        let percent = |share: f64| (share * 1_000.0).round() / 10.0;
        let (desired, reason, going) = match decision {
            Decision::Exhausted => {
                if now_ms.saturating_sub(known.exhausted_ms) < rules.cooldown_ms {
                    return;
                }
                known.exhausted_ms = now_ms;
                self.renew_summary();
                let data = json!({ "resourceType": format!("agents:{pool}"), "threshold": rules.max, "current": facts.current, "timestamp": timestamp });
                return self.say_plain("resource.exhausted", format!("exhausted:{pool}:{now_ms}"), &data);
            }
            Decision::Up(desired, reason) => (desired, reason, None),
            Decision::Down(desired, reason) => (desired, reason, Some(self.let_go(pool, facts.current - desired, now_ms))),
        };
        let Some(known) = self.pools.get_mut(pool) else { return };
        known.scaled_ms = now_ms;
        known.scalings += 1;
        let number = format!("{}:{}", known.created_ms, known.scalings);
        self.renew_summary();
        if going.is_none() && facts.utilization >= rules.up {
            let data = json!({
                "metric": "utilization", "threshold": percent(rules.up), "currentValue": percent(facts.utilization), "severity": "warning",
                "source": pool, "timestamp": timestamp,
            });
            self.say_plain("performance.threshold", format!("utilization:{pool}:{number}"), &data);
        }
        let mut data = json!({ "poolId": pool, "agentType": kind, "current": facts.current, "desired": desired, "reason": reason });
        let event_type = if let Some(agents) = going {
            data["agentIds"] = agents.into();
            SCALE_DOWN
        } else {
            SCALE_UP
        };
        let key = format!("scale:{pool}:{number}");
        if let Some(known) = self.pools.get_mut(pool) {
            known.saying = Some(Announcement { is_down: event_type == SCALE_DOWN, key: key.clone(), data: data.to_string() });
        }
        self.say_plain(event_type, key, &data);
    }

    /// Announcements of scaling of which it is not known whether they were made.
    pub(super) fn say_scaling_again(&mut self) {
        let unsaid: Vec<Announcement> = self.pools.iter().filter_map(|pool| pool.saying.clone()).collect();
        for Announcement { is_down, key, data } in unsaid {
            let event_type = if is_down { SCALE_DOWN } else { SCALE_UP };
            self.say(Saying { event_type, key, data, target: None, ttl_s: None, correlation_id: None });
        }
    }

    /// Something was said.
    pub fn was_said(&mut self, saying: &Saying) {
        if !matches!(saying.event_type, SCALE_UP | SCALE_DOWN) {
            return;
        }
        for pool in self.pools.iter_mut() {
            pool.saying.take_if(|announced| announced.key == saying.key);
        }
        self.renew_summary();
    }

    fn say_plain(&mut self, event_type: &'static str, key: String, data: &Value) {
        self.say(Saying { event_type, key, data: data.to_string(), target: None, ttl_s: None, correlation_id: None });
    }

    /// The idle agents of a pool that are worth least get no more tasks. Answers who.
    fn let_go(&mut self, pool: &str, count: u32, now_ms: u64) -> Vec<String> {
        let idle = |agent: &super::agent::Agent| agent.pool == pool && agent.standing == Standing::Active && agent.running.is_empty();
        let mut idle: Vec<(f64, usize)> =
            self.living().filter(|(_, agent)| idle(agent)).map(|(slot, agent)| (worth(agent), slot)).collect();
        idle.sort_by(|a, b| a.0.total_cmp(&b.0).then(b.1.cmp(&a.1)));
        idle.truncate(count as usize);
        let mut going = Vec::with_capacity(idle.len());
        for (_, slot) in idle {
            let agent = &mut self.agents[slot];
            agent.standing = Standing::Draining;
            going.push(agent.id.clone());
            if let Some(inbox) = agent.inbox.clone() {
                let letter = json!({ "agent": agent.id, "drain": { "reason": "scale-down" } }).to_string();
                self.post(&inbox, letter);
            }
            self.change(slot, now_ms);
        }
        going
    }

    /// Pools of a type whose strength drifted apart are dealt anew.
    fn even_out(&mut self, now_ms: u64) {
        let mut worths: HashMap<&str, HashMap<&str, f64>> = HashMap::new();
        for pool in self.pools.iter() {
            worths.entry(&pool.kind).or_default().insert(&pool.id, 0.0);
        }
        for (_, agent) in self.living() {
            if let Some(sum) = worths.get_mut(agent.kind.as_str()).and_then(|pools| pools.get_mut(agent.pool.as_str())) {
                *sum += worth(agent);
            }
        }
        let most = usize::try_from(self.rules.scaling.max).unwrap_or(usize::MAX);
        let mut members: HashMap<&str, usize> = HashMap::new();
        self.living().for_each(|(_, agent)| *members.entry(agent.kind.as_str()).or_default() += 1);
        let is_to_be_dealt = |kind: &str, pools: &HashMap<&str, f64>| {
            // Those behind the ones that are needed are to become empty.
            let needed = self.pools.of(kind).into_iter().take(members.get(kind).copied().unwrap_or(0).div_ceil(most).max(1));
            let of_needed: Vec<f64> = needed.map(|id| pools.get(id.as_str()).copied().unwrap_or(0.0)).collect();
            is_uneven(&of_needed) || of_needed.iter().sum::<f64>() + 1e-9 < pools.values().sum::<f64>()
        };
        let kinds: Vec<String> =
            worths.iter().filter(|(kind, pools)| is_to_be_dealt(kind, pools)).map(|(kind, _)| (*kind).to_owned()).collect();
        for kind in kinds {
            self.deal_pools(&kind, now_ms);
        }
    }

    fn tell_slow(&mut self, now_ms: u64) {
        let mut paces: HashMap<&str, Vec<f64>> = HashMap::new();
        let known = || self.living().filter_map(|(_, agent)| Some((agent, agent.weight().and(agent.performance.pace.mean())?)));
        for (agent, pace) in known() {
            paces.entry(&agent.pool).or_default().push(pace);
        }
        for paces in paces.values_mut() {
            paces.sort_by(f64::total_cmp);
        }
        let usual = |pool: &str| paces.get(pool).filter(|paces| paces.len() >= JUDGES).map(|paces| paces[paces.len() / 2]);
        let slow: Vec<(String, String, f64)> = known()
            .filter_map(|(agent, pace)| Some((agent, pace / usual(&agent.pool)?)))
            .filter(|(_, times)| *times >= SLOW)
            .map(|(agent, times)| (agent.id.clone(), agent.pool.clone(), times))
            .collect();
        self.looked.slow.retain(|_, told_ms| now_ms.saturating_sub(*told_ms) < TOLD_MS);
        for (agent, pool, times) in slow {
            if self.looked.slow.contains_key(&agent) {
                continue;
            }
            let data = json!({
                "component": agent, "bottleneckType": "slow-agent",
                "impact": format!("its tasks take {times:.1} times as long as those of others in pool '{pool}'"),
                "recommendations": ["look at the machine of the agent", "use the strategy 'performance-weighted' or 'predictive'"],
                "timestamp": moment::write(now_ms),
            });
            self.say_plain("performance.bottleneck", format!("slow:{agent}:{}", now_ms / TOLD_MS), &data);
            self.looked.slow.insert(agent, now_ms);
        }
    }

    fn tell_lonely(&mut self, now_ms: u64) {
        let (agents, mut told) = (&self.agents, Vec::new());
        for class in self.queue.classes_mut() {
            if class.fitting.iter().any(|slot| agents[*slot].standing == Standing::Active) {
                class.lonely_since_ms = None;
                continue;
            }
            let since_ms = *class.lonely_since_ms.get_or_insert(now_ms);
            if now_ms.saturating_sub(since_ms) >= LONELY_MS && now_ms.saturating_sub(class.lonely_told_ms) >= TOLD_MS {
                class.lonely_told_ms = now_ms;
                told.push((class.required.clone(), class.waiting()));
            }
        }
        for (required, waiting) in told {
            let needed = required.join(", ");
            let data = json!({
                "component": "task-queue", "bottleneckType": "no-agent",
                "impact": format!("{waiting} tasks wait for an agent that can do: {needed}"),
                "recommendations": [format!("start an agent with the capabilities {needed}")],
                "timestamp": moment::write(now_ms),
            });
            let head: String = needed.chars().take(100).collect();
            self.say_plain("performance.bottleneck", format!("lonely:{head}:{}:{}", required.len(), now_ms / TOLD_MS), &data);
        }
    }
}
