//! Schedules of crashes, frozen processes, slow handlers, lapsed leases, lost replies and stepped clocks, chosen by a seed
//! and played against whole buses over the memory store on a turned clock: days of trouble in seconds, the same each time.
//!
//! Reading order: [`machine`] is what a process runs on, and can be killed or stopped; [`wire`] the way from a process to
//! the store, with the faults on it; [`ledger`] notes what really happened, and judges what can be judged at once;
//! [`process`] is a process with its handlers; [`plan`] makes a schedule of a seed; [`world`] plays it; [`checker`] says what
//! must hold at its end.
//!
//! `OSSA_SIM_SEED=<n>` plays one schedule and prints its history, `OSSA_SIM_SEEDS=<count>` more or fewer of them.

mod checker;
mod ledger;
mod machine;
mod plan;
mod process;
mod wire;
mod world;

use std::collections::BTreeMap;

use world::Report;

/// Schedules played unless told otherwise: what a debug build plays in about half a minute on one core.
const SEEDS: u64 = 2_000;

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a whole number, not '{text}'")))
}

/// Fails with the history where a statement does not hold.
fn judge(report: &Report) {
    let found = report.violations.join("\n  ");
    assert!(
        report.violations.is_empty(),
        "{}\nseed {}: {} violations (the history is above; OSSA_SIM_SEED={} plays it again)\n  {found}",
        report.history.join("\n"),
        report.seed,
        report.violations.len(),
        report.seed
    );
}

#[test]
fn whatever_happens_nothing_is_lost_doubled_out_of_order_or_stuck() {
    if let Some(seed) = setting("OSSA_SIM_SEED") {
        let report = world::play(seed);
        println!("{}\nseed {seed}: {:?}", report.history.join("\n"), report.counts);
        return judge(&report);
    }
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for seed in 0..setting("OSSA_SIM_SEEDS").unwrap_or(SEEDS) {
        let report = world::play(seed);
        judge(&report);
        for (what, count) in report.counts {
            *counts.entry(what).or_default() += count;
        }
    }
    for (what, count) in counts {
        println!("{count:>10} {what}");
    }
}

#[test]
fn the_same_seed_gives_the_same_history() {
    for seed in 0..20 {
        let (first, second) = (world::play(seed), world::play(seed));
        let differs = first.history.iter().zip(&second.history).position(|(a, b)| a != b);
        assert_eq!(differs.map(|at| (&first.history[at], &second.history[at])), None, "seed {seed}");
        assert_eq!(first.history.len(), second.history.len(), "seed {seed}");
    }
}
