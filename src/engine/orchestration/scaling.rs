//! When a pool needs more agents, or has too many.

/// `minAgentsPerPool`, `maxAgentsPerPool` and `autoScaling` of the configuration.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rules {
    /// Fewest agents.
    pub min: u32,
    /// Most agents.
    pub max: u32,
    /// Utilisation from which more are asked for, 0 to 1.
    pub up: f64,
    /// Utilisation to which fewer are.
    pub down: f64,
    /// Least time between two announcements, ms.
    pub cooldown_ms: u64,
}

/// Utilisation is smoothed over a sixth of the cooldown, within these bounds, ms.
const WINDOW_MS: (u64, u64) = (100, 10_000);
/// Longest time for which a pool that was just made is left alone, ms: its agents come one after the other.
const SETTLING_MS_MAX: u64 = 5_000;

impl Rules {
    /// Time over which utilisation is smoothed, ms.
    pub fn window_ms(&self) -> u64 {
        (self.cooldown_ms / 6).clamp(WINDOW_MS.0, WINDOW_MS.1)
    }
}

/// How a pool is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts {
    /// Agents that take tasks.
    pub current: u32,
    /// Those that finish what they have.
    pub draining: u32,
    /// Those that have nothing.
    pub idle: u32,
    /// Places of all that take tasks.
    pub capacity: u32,
    /// Places in use.
    pub running: u32,
    /// Tasks that wait and that its agents could do.
    pub queued: u32,
    /// Share of places in use over some time, 0 to 1.
    pub utilization: f64,
    /// Why it is said to be strained.
    pub strained: Option<String>,
    /// ms since it was made.
    pub age_ms: u64,
    /// ms since it was asked for more or fewer agents.
    pub since_scaled_ms: u64,
}

/// What is to be said.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// So many agents, and why.
    Up(u32, String),
    /// So many agents, and why.
    Down(u32, String),
    /// It needs more and may not have them.
    Exhausted,
}

/// Decides for one pool. Between the two thresholds nothing changes, and what is asked for leads to the middle between them, so that it
/// does not swing.
pub fn decide(facts: &Facts, rules: &Rules) -> Option<Decision> {
    if facts.since_scaled_ms < rules.cooldown_ms || facts.age_ms < rules.cooldown_ms.min(SETTLING_MS_MAX) {
        return None;
    }
    if facts.current < rules.min {
        return Some(Decision::Up(rules.min, format!("{} agents are fewer than minAgentsPerPool, {}", facts.current, rules.min)));
    }
    let percent = |share: f64| (share * 100.0).round();
    let is_full = facts.queued > 0 && f64::from(facts.running) >= f64::from(facts.capacity) * rules.up;
    if facts.utilization >= rules.up || is_full || facts.strained.is_some() {
        let reason = match &facts.strained {
            Some(reason) if facts.utilization < rules.up && !is_full => reason.clone(),
            _ => format!(
                "{} % of the places were in use lately, {} tasks wait; scaleUpThreshold is {} %",
                percent(facts.utilization),
                facts.queued,
                percent(rules.up)
            ),
        };
        if facts.current >= rules.max {
            return Some(Decision::Exhausted);
        }
        // At most twice as many at a time: what waits now may be over soon.
        let desired = needed(facts, rules, facts.running + facts.queued).clamp(facts.current + 1, facts.current.max(1) * 2);
        return Some(Decision::Up(desired.min(rules.max), reason));
    }
    let may_shrink = facts.utilization <= rules.down && facts.queued == 0 && facts.draining == 0 && facts.current > rules.min;
    if may_shrink {
        let desired = needed(facts, rules, facts.running).max(rules.min).max(facts.current - facts.idle.min(facts.current));
        if desired < facts.current {
            let reason = format!(
                "{} % of the places were in use lately; scaleDownThreshold is {} %",
                percent(facts.utilization),
                percent(rules.down)
            );
            return Some(Decision::Down(desired, reason));
        }
    }
    None
}

/// Agents by which so many tasks at once would use the middle between the thresholds.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // within the number of agents
fn needed(facts: &Facts, rules: &Rules, tasks: u32) -> u32 {
    let places_an_agent = if facts.current == 0 { 1.0 } else { f64::from(facts.capacity.max(1)) / f64::from(facts.current) };
    let aimed_at = f64::midpoint(rules.up, rules.down).max(0.01);
    (f64::from(tasks) / (places_an_agent * aimed_at)).ceil().min(f64::from(u32::MAX)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Rules = Rules { min: 2, max: 10, up: 0.8, down: 0.3, cooldown_ms: 60_000 };

    fn facts(current: u32, running: u32, queued: u32) -> Facts {
        let capacity = current * 4;
        Facts {
            current,
            draining: 0,
            idle: current,
            capacity,
            running,
            queued,
            utilization: f64::from(running) / f64::from(capacity.max(1)),
            strained: None,
            age_ms: 1_000_000,
            since_scaled_ms: 1_000_000,
        }
    }

    fn desired(facts: &Facts) -> Option<i64> {
        match decide(facts, &RULES)? {
            Decision::Up(desired, _) => Some(i64::from(desired)),
            Decision::Down(desired, _) => Some(-i64::from(desired)),
            Decision::Exhausted => Some(0),
        }
    }

    #[test]
    fn between_the_thresholds_nothing_is_said() {
        assert_eq!(desired(&facts(4, 8, 0)), None);
        assert_eq!(desired(&facts(4, 12, 0)), None, "75 %");
        assert_eq!(desired(&facts(4, 13, 0)), Some(6), "81 %: by six of them 54 % are used");
        assert_eq!(desired(&facts(4, 4, 0)), Some(-2), "25 %: two are at least to be left");
    }

    #[test]
    fn what_waits_asks_for_more_up_to_twice_as_many_and_the_maximum() {
        assert_eq!(desired(&facts(2, 8, 100)), Some(4));
        assert_eq!(desired(&facts(8, 32, 100)), Some(10));
        assert_eq!(desired(&facts(10, 40, 100)), Some(0));
        assert_eq!(desired(&facts(4, 8, 5)), None, "there are places for what waits");
    }

    #[test]
    fn fewer_than_the_minimum_are_filled_up_and_never_gone_below() {
        assert_eq!(desired(&facts(0, 0, 0)), Some(2));
        assert_eq!(desired(&facts(1, 0, 0)), Some(2));
        assert_eq!(desired(&facts(2, 0, 0)), None);
        assert_eq!(desired(&facts(9, 0, 0)), Some(-2));
    }

    #[test]
    fn only_idle_ones_can_go_and_those_that_go_are_waited_for() {
        assert_eq!(desired(&Facts { idle: 1, ..facts(9, 3, 0) }), Some(-8));
        assert_eq!(desired(&Facts { idle: 0, ..facts(9, 3, 0) }), None);
        assert_eq!(desired(&Facts { draining: 1, ..facts(9, 3, 0) }), None);
        assert_eq!(desired(&Facts { queued: 1, ..facts(9, 3, 0) }), None);
    }

    #[test]
    fn it_takes_its_time_between_two_and_at_the_beginning() {
        assert_eq!(desired(&Facts { since_scaled_ms: 59_999, ..facts(9, 0, 0) }), None);
        assert_eq!(desired(&Facts { age_ms: 4_999, ..facts(1, 0, 0) }), None);
        assert_eq!(desired(&Facts { age_ms: 5_000, ..facts(1, 0, 0) }), Some(2));
    }

    #[test]
    fn who_is_said_to_be_strained_gets_more() {
        let strained = Facts { strained: Some("memory is exhausted".to_owned()), ..facts(4, 8, 0) };
        assert_eq!(decide(&strained, &RULES), Some(Decision::Up(5, "memory is exhausted".to_owned())));
    }
}
