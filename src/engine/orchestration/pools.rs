//! Pools: agents of one type, at most so many in each. More of them make further pools, so that those are of about the same strength.

use serde::{Deserialize, Serialize};

use super::average::Smooth;

/// A pool that nobody is in is forgotten after so long.
const EMPTY_KEPT_MS: u64 = 600_000;
/// Part by which the strongest pool of a type may be stronger than the weakest one.
const UNEVEN: f64 = 1.25;

/// Agents of one type.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Pool {
    /// Its type, and a number from the second one on.
    pub id: String,
    /// Type of its agents.
    pub kind: String,
    /// When it was made, ms since 1970, like the others.
    pub created_ms: u64,
    /// When it was asked for more or fewer agents last.
    pub scaled_ms: u64,
    /// How often.
    pub scalings: u64,
    /// Since when nobody is in it; 0: somebody is.
    pub empty_since_ms: u64,
    /// Share of its places in use, over some time.
    pub utilization: Smooth,
    /// Why it is said to be strained.
    pub strained: Option<String>,
    /// When it was said that it may have no more agents.
    pub exhausted_ms: u64,
    /// An announcement that may not have been made yet.
    #[serde(default)]
    pub saying: Option<Announcement>,
}

/// That a pool is to have more agents, or fewer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announcement {
    /// Fewer.
    pub is_down: bool,
    /// By which it is made once.
    pub key: String,
    /// JSON text.
    pub data: String,
}

/// All of them, by type and number.
#[derive(Debug, Default)]
pub struct Pools {
    all: Vec<Pool>,
}

/// A member, for whoever deals them out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Member {
    /// Its slot.
    pub slot: usize,
    /// What it is worth.
    pub worth: f64,
}

impl Pools {
    /// As they stood in the store.
    pub fn from_saved(all: Vec<Pool>) -> Self {
        Self { all }
    }

    /// All.
    pub fn iter(&self) -> impl Iterator<Item = &Pool> {
        self.all.iter()
    }

    /// All, to change.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Pool> {
        self.all.iter_mut()
    }

    /// One.
    pub fn get_mut(&mut self, id: &str) -> Option<&mut Pool> {
        self.all.iter_mut().find(|pool| pool.id == id)
    }

    /// Ids of the pools of a type.
    pub fn of(&self, kind: &str) -> Vec<String> {
        self.all.iter().filter(|pool| pool.kind == kind).map(|pool| pool.id.clone()).collect()
    }

    /// One more of a type.
    pub fn add(&mut self, kind: &str, now_ms: u64) -> String {
        // One of so many is free.
        let numbers = 1..=self.all.len() + 1;
        let mut ids = numbers.map(|number| if number == 1 { kind.to_owned() } else { format!("{kind}-{number}") });
        let id = ids.find(|id| self.all.iter().all(|pool| pool.id != *id)).unwrap_or_default();
        self.all.push(Pool { id: id.clone(), kind: kind.to_owned(), created_ms: now_ms, ..Pool::default() });
        id
    }

    /// Forgets those that nobody was in for long; `members` counts.
    pub fn forget_empty(&mut self, now_ms: u64, members: impl Fn(&str) -> usize) {
        for pool in &mut self.all {
            match (members(&pool.id), pool.empty_since_ms) {
                (0, 0) => pool.empty_since_ms = now_ms,
                (0, _) => {}
                _ => pool.empty_since_ms = 0,
            }
        }
        self.all.retain(|pool| pool.empty_since_ms == 0 || now_ms.saturating_sub(pool.empty_since_ms) < EMPTY_KEPT_MS);
    }
}

/// Deals members out to `count` pools of at most `most`, so that the pools are of about the same worth: the best first, each to the pool
/// that has least so far. Answers a pool for each, by its number.
pub fn deal(members: &[Member], count: usize, most: usize) -> Vec<(usize, usize)> {
    let mut order = members.to_vec();
    order.sort_by(|a, b| b.worth.total_cmp(&a.worth).then(a.slot.cmp(&b.slot)));
    let mut pools = vec![(0.0_f64, 0_usize); count];
    let choose = |pools: &[(f64, usize)]| {
        let with_room = (0..count).filter(|at| pools[*at].1 < most);
        with_room.min_by(|a, b| pools[*a].0.total_cmp(&pools[*b].0).then(pools[*a].1.cmp(&pools[*b].1)))
    };
    let mut dealt = Vec::with_capacity(order.len());
    for Member { slot, worth } in order {
        let Some(at) = choose(&pools) else { break };
        pools[at].0 += worth;
        pools[at].1 += 1;
        dealt.push((slot, at));
    }
    dealt
}

/// Whether pools of such worth should be dealt anew.
pub fn is_uneven(worths: &[f64]) -> bool {
    let (least, most) = worths.iter().fold((f64::INFINITY, 0.0_f64), |(least, most), worth| (least.min(*worth), most.max(*worth)));
    worths.len() > 1 && most > least * UNEVEN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pools_of_a_type_are_numbered_and_empty_ones_forgotten() {
        let mut pools = Pools::default();
        assert_eq!([pools.add("worker", 0), pools.add("worker", 0), pools.add("coder", 0)], ["worker", "worker-2", "coder"]);
        assert_eq!(pools.of("worker"), ["worker", "worker-2"]);
        pools.forget_empty(1_000, |_| 0);
        pools.forget_empty(1_000 + EMPTY_KEPT_MS - 1, |_| 0);
        assert_eq!(pools.iter().count(), 3);
        pools.forget_empty(1_000 + EMPTY_KEPT_MS, |id| usize::from(id == "coder"));
        assert_eq!((pools.of("worker"), pools.of("coder")), (Vec::new(), vec!["coder".to_owned()]));
        assert_eq!(pools.add("worker", 0), "worker");
    }

    #[test]
    fn members_of_unequal_worth_are_dealt_evenly_and_no_pool_is_overfull() {
        let members: Vec<Member> = (0..10_usize).map(|slot| Member { slot, worth: if slot < 2 { 8.0 } else { 1.0 } }).collect();
        let dealt = deal(&members, 2, 6);
        let mut sums = [0.0; 2];
        let mut counts = [0; 2];
        for (slot, at) in &dealt {
            sums[*at] += members[*slot].worth;
            counts[*at] += 1;
        }
        assert_eq!((dealt.len(), counts, sums), (10, [5, 5], [12.0, 12.0]));
        assert_eq!(deal(&members, 2, 3).len(), 6, "no more than there is room for");
    }

    #[test]
    fn a_quarter_of_difference_is_even_enough() {
        assert!(!is_uneven(&[10.0, 8.0]) && is_uneven(&[10.0, 7.9]) && !is_uneven(&[5.0]) && !is_uneven(&[]));
    }
}
