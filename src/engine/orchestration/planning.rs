//! The strategy `predictive`: a task goes where it is expected to be finished first, and may wait for that. What waits for an agent is
//! booked there for the tasks behind it, so that they are not promised the same place.

use std::collections::HashMap;

/// Tasks that need the same and are looked at beside those for which there are places, at most: the others wait in any case.
pub const AHEAD: usize = 64;
/// The same over all; beyond it the first one of each kind is looked at.
pub const AHEAD_ALL: usize = 1_024;
/// A place that is free now is taken though another promises more, if that is no more than this part of the time.
const WORTH_WAITING: f64 = 1.1;

/// One look ahead.
#[derive(Debug, Default)]
pub struct Plan {
    /// By agent: when each of its places is free, ms from now.
    places: HashMap<usize, Vec<f64>>,
}

/// Where a task is to be done.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Advice {
    /// Here, now.
    Now(usize),
    /// It waits for a place that is not free yet.
    Wait,
    /// Nobody can do it.
    Nobody,
}

impl Plan {
    /// Decides for one task and books its place. `places` answers when the places of an agent are free, none for one that takes nothing;
    /// `takes` how long it takes there, ms.
    pub fn advise(&mut self, fitting: &[usize], places: impl Fn(usize) -> Vec<f64>, takes: impl Fn(usize) -> f64) -> Advice {
        // When it would be done, and where: of all, and of those that can begin now.
        let (mut best, mut best_now) = (None::<(f64, usize)>, None::<(f64, usize)>);
        let is_earlier = |than: Option<(f64, usize)>, done: f64| than.is_none_or(|(at, _)| done < at);
        for agent in fitting {
            let free_at = self.places.entry(*agent).or_insert_with(|| places(*agent)).iter().copied().min_by(f64::total_cmp);
            let Some(free_at) = free_at else { continue };
            let done = free_at + takes(*agent);
            if is_earlier(best, done) {
                best = Some((done, *agent));
            }
            if free_at <= 0.0 && is_earlier(best_now, done) {
                best_now = Some((done, *agent));
            }
        }
        let Some((done, agent)) = best else { return Advice::Nobody };
        let (agent, advice) = match best_now {
            Some((done_now, now)) if done_now <= done * WORTH_WAITING => (now, Advice::Now(now)),
            _ => (agent, Advice::Wait),
        };
        let takes = takes(agent);
        if let Some(place) = self.places.get_mut(&agent).and_then(|places| places.iter_mut().min_by(|a, b| a.total_cmp(b))) {
            *place += takes;
        }
        advice
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_waits_for_a_fast_agent_rather_than_for_a_slow_one_to_finish() {
        let places = |agent: usize| if agent == 0 { vec![50.0] } else { vec![0.0] };
        let takes = |agent: usize| if agent == 0 { 100.0 } else { 1_000.0 };
        let mut plan = Plan::default();
        let advice: Vec<Advice> = (0..11).map(|_| plan.advise(&[0, 1], places, takes)).collect();
        // Eight of them are done by the fast one before the slow one would have done its first; the ninth not much earlier.
        assert_eq!(advice.iter().position(|advice| *advice == Advice::Now(1)), Some(8));
        assert_eq!(advice.iter().filter(|advice| **advice == Advice::Wait).count(), 10);
    }

    #[test]
    fn little_to_gain_is_not_waited_for() {
        let places = |agent: usize| if agent == 0 { vec![5.0] } else { vec![0.0] };
        let mut plan = Plan::default();
        assert_eq!(plan.advise(&[0, 1], places, |agent| if agent == 0 { 90.0 } else { 100.0 }), Advice::Now(1));
    }

    #[test]
    fn who_takes_nothing_is_nobody() {
        assert_eq!(Plan::default().advise(&[0], |_| Vec::new(), |_| 1.0), Advice::Nobody);
        assert_eq!(Plan::default().advise(&[], |_| vec![0.0], |_| 1.0), Advice::Nobody);
    }
}
