//! Schedules of crashes, frozen processes, slow handlers, lapsed leases, lost replies and stepped clocks, chosen by a seed
//! and played against whole buses over the memory store on a turned clock: days of trouble in seconds, the same each time.
//!
//! Reading order: [`machine`] is what a process runs on, and can be killed or stopped; [`wire`] the way from a process to
//! the store, with the faults on it; [`ledger`] notes what really happened, and judges what can be judged at once;
//! [`process`] is a process with its handlers; [`plan`] makes a schedule of a seed; [`world`] plays it; [`checker`] says what
//! must hold at its end.
//!
//! `OSSA_SIM_SEED=<n>` plays one schedule and prints its history; `OSSA_SIM_SEEDS=<count>` plays more or fewer of them,
//! `OSSA_SIM_FROM=<n>` from another one on.

mod checker;
mod ledger;
mod machine;
mod plan;
mod process;
mod wire;
mod world;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use world::Report;

/// Schedules played unless told otherwise: what an unoptimised build plays in ten seconds. `.ci/run` plays many more in an
/// optimised one.
const SEEDS: u64 = 150;

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a whole number, not '{text}'")))
}

/// Fails with the history where a statement does not hold.
fn judge(report: &Report) {
    if report.violations.is_empty() {
        return;
    }
    let (seed, found) = (report.seed, report.violations.join("\n  "));
    panic!("{}\nseed {seed} (OSSA_SIM_SEED={seed} plays it again):\n  {found}", report.history.join("\n"));
}

/// Plays the seeds, as many at a time as there are cores: each on a thread and a runtime of its own.
fn play_all(seeds: Range<u64>) -> BTreeMap<String, u64> {
    let next = AtomicU64::new(seeds.start);
    let counts: Mutex<BTreeMap<String, u64>> = Mutex::default();
    let failed = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        for _ in 0..threads {
            scope.spawn(|| {
                while !failed.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    let report = world::play(seed);
                    // One history is enough to read.
                    if report.violations.is_empty() || !failed.swap(true, Ordering::Relaxed) {
                        judge(&report);
                    }
                    let mut counts = counts.lock().expect("whoever panicked did not hold it");
                    for (what, count) in report.counts {
                        *counts.entry(what).or_default() += count;
                    }
                }
            });
        }
    });
    counts.into_inner().expect("whoever panicked did not hold it")
}

#[test]
fn whatever_happens_nothing_is_lost_doubled_out_of_order_or_stuck() {
    if let Some(seed) = setting("OSSA_SIM_SEED") {
        let report = world::play(seed);
        println!("{}\nseed {seed}: {:?}", report.history.join("\n"), report.counts);
        return judge(&report);
    }
    let first = setting("OSSA_SIM_FROM").unwrap_or(0);
    let count = setting("OSSA_SIM_SEEDS").unwrap_or(SEEDS);
    let start = Instant::now();
    for (what, count) in play_all(first..first + count) {
        println!("{count:>10} {what}");
    }
    println!("{count} schedules in {:.1} s", start.elapsed().as_secs_f64());
}

#[test]
fn the_same_seed_gives_the_same_history() {
    for seed in 0..10 {
        let (first, second) = (world::play(seed), world::play(seed));
        let differs = first.history.iter().zip(&second.history).position(|(a, b)| a != b);
        assert_eq!(differs.map(|at| (&first.history[at], &second.history[at])), None, "seed {seed}");
        assert_eq!(first.history.len(), second.history.len(), "seed {seed}");
    }
}
