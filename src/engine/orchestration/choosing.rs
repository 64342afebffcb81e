//! Who gets a task: the strategies. Each is told who could take it, and names one.
//!
//! `predictive` looks further than one task, see [`super::planning`].

use super::super::config::Strategy;

/// What a choice needs to know of an agent. Small, and side by side in memory: a choice looks at all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Seat {
    /// Tasks it may get now.
    pub free: u32,
    /// 0 to 1.
    pub load: f64,
    /// Number of the last assignment to it.
    pub given: u64,
    /// What its performance is worth; `None`: it is not known yet.
    pub weight: Option<f64>,
    /// How much it can do.
    pub capabilities: u32,
    /// It is said to be overloaded: it gets tasks last.
    pub strained: bool,
}

/// Chooses among those that have a place free. `random` gives numbers in `0.0..1.0`.
pub fn choose(
    strategy: Strategy,
    newcomer_share: f64,
    seats: impl Iterator<Item = (usize, Seat)> + Clone,
    random: &mut dyn FnMut() -> f64,
) -> Option<usize> {
    let is_relief = seats.clone().any(|(_, seat)| seat.free > 0 && !seat.strained);
    let free = seats.filter(move |(_, seat)| seat.free > 0 && !(is_relief && seat.strained));
    let least = |key: fn(&Seat) -> (f64, f64)| {
        let order = |a: &(usize, Seat), b: &(usize, Seat)| {
            let (x, y) = (key(&a.1), key(&b.1));
            x.0.total_cmp(&y.0).then(x.1.total_cmp(&y.1)).then(a.1.given.cmp(&b.1.given)).then(a.0.cmp(&b.0))
        };
        free.clone().min_by(order).map(|(at, _)| at)
    };
    match strategy {
        // Whose last turn is longest ago.
        Strategy::RoundRobin => least(|_| (0.0, 0.0)),
        Strategy::LeastLoaded => least(|seat| (seat.load, 0.0)),
        // The narrowest: whoever can do more is kept for what needs more.
        Strategy::CapabilityBased => least(|seat| (f64::from(seat.capabilities), seat.load)),
        Strategy::PerformanceWeighted => by_weight(newcomer_share, free, random),
        // Without a plan: whoever is least busy.
        Strategy::Predictive => least(|seat| (seat.load, 0.0)),
    }
}

/// At random, each as likely as its performance is good. Those that are not known yet share `newcomer_share` of the tasks, evenly.
fn by_weight(newcomer_share: f64, free: impl Iterator<Item = (usize, Seat)> + Clone, random: &mut dyn FnMut() -> f64) -> Option<usize> {
    let known: f64 = free.clone().filter_map(|(_, seat)| seat.weight).sum();
    let newcomers = free.clone().filter(|(_, seat)| seat.weight.is_none());
    let oldest_turn = newcomers.min_by_key(|(at, seat)| (seat.given, *at)).map(|(at, _)| at);
    if let Some(newcomer) = oldest_turn
        && (known <= 0.0 || random() < newcomer_share)
    {
        return Some(newcomer);
    }
    let mut left = random() * known;
    let mut last = None;
    for (at, weight) in free.filter_map(|(at, seat)| Some((at, seat.weight?))) {
        last = Some(at);
        left -= weight;
        if left < 0.0 {
            break;
        }
    }
    last
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng, rngs::SmallRng};

    use super::*;

    fn seat() -> Seat {
        Seat { free: 1, weight: Some(1.0), capabilities: 1, ..Seat::default() }
    }

    fn choose_of(strategy: Strategy, seats: &[Seat]) -> Option<usize> {
        choose(strategy, 0.1, seats.iter().copied().enumerate(), &mut || 0.5)
    }

    /// How often each is chosen of `count` times, without ever being full.
    fn counts(strategy: Strategy, seats: &mut [Seat], count: u64) -> Vec<u32> {
        let mut random = SmallRng::seed_from_u64(7);
        let mut chosen = vec![0; seats.len()];
        for n in 1..=count {
            let at = choose(strategy, 0.1, seats.iter().copied().enumerate(), &mut || random.random()).unwrap();
            seats[at].given = n;
            chosen[at] += 1;
        }
        chosen
    }

    #[test]
    fn nobody_is_chosen_that_has_no_place() {
        for strategy in
            [Strategy::RoundRobin, Strategy::LeastLoaded, Strategy::CapabilityBased, Strategy::PerformanceWeighted, Strategy::Predictive]
        {
            assert_eq!(choose_of(strategy, &[]), None);
            assert_eq!(choose_of(strategy, &[Seat { free: 0, ..seat() }]), None);
            assert_eq!(choose_of(strategy, &[Seat { free: 0, weight: None, ..seat() }, seat()]), Some(1));
        }
    }

    #[test]
    fn who_is_strained_gets_tasks_last() {
        for strategy in
            [Strategy::RoundRobin, Strategy::LeastLoaded, Strategy::CapabilityBased, Strategy::PerformanceWeighted, Strategy::Predictive]
        {
            let strained = Seat { strained: true, ..seat() };
            let busy = Seat { load: 0.9, given: 9, weight: Some(0.1), capabilities: 9, ..seat() };
            assert_eq!(choose_of(strategy, &[strained, busy]), Some(1));
            assert_eq!(choose_of(strategy, &[strained, Seat { free: 0, ..busy }]), Some(0));
        }
    }

    #[test]
    fn round_robin_is_even_whatever_the_load() {
        let mut seats = [Seat { load: 0.9, ..seat() }, seat(), Seat { weight: Some(9.0), ..seat() }, Seat { capabilities: 7, ..seat() }];
        assert_eq!(counts(Strategy::RoundRobin, &mut seats, 400), [100; 4]);
    }

    #[test]
    fn least_loaded_follows_load() {
        let loaded = |load| Seat { load, ..seat() };
        assert_eq!(choose_of(Strategy::LeastLoaded, &[loaded(0.5), loaded(0.2), loaded(0.3)]), Some(1));
        // Among equals in turn.
        let mut seats = [loaded(0.2), loaded(0.2), loaded(0.3)];
        assert_eq!(counts(Strategy::LeastLoaded, &mut seats, 100), [50, 50, 0]);
    }

    #[test]
    fn capability_based_keeps_generalists_free() {
        let able = |capabilities, free| Seat { free, capabilities, ..seat() };
        assert_eq!(choose_of(Strategy::CapabilityBased, &[able(9, 5), able(2, 1), able(3, 1)]), Some(1));
        assert_eq!(choose_of(Strategy::CapabilityBased, &[able(9, 5), able(2, 0)]), Some(0), "rather than wait");
    }

    #[test]
    fn performance_weighted_is_proportional_and_leaves_a_share_for_newcomers() {
        let worth = |weight| Seat { weight, ..seat() };
        let mut seats = [worth(Some(4.0)), worth(Some(2.0)), worth(Some(1.0)), worth(Some(1.0)), worth(None), worth(None)];
        let chosen = counts(Strategy::PerformanceWeighted, &mut seats, 80_000);
        for (chosen, expected) in chosen.iter().zip([36_000.0, 18_000.0, 9_000.0, 9_000.0, 4_000.0, 4_000.0]) {
            assert!((f64::from(*chosen) / expected - 1.0).abs() < 0.05, "{chosen} of {expected}");
        }
        let mut newcomers = [worth(None), worth(None)];
        assert_eq!(counts(Strategy::PerformanceWeighted, &mut newcomers, 10), [5, 5]);
    }
}
