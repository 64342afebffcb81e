//! Publishing over the memory store: drafting, placing, appending, answering.

use std::time::{Duration, Instant};

use criterion::{Criterion, SamplingMode, Throughput};

use crate::work::desk::{Desk, RECORDS, records};

pub fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("publish");
    group.throughput(Throughput::Elements(RECORDS as u64)).sampling_mode(SamplingMode::Flat).sample_size(20);
    group.bench_function("1,000 events a call", |bench| {
        bench.iter_custom(|calls| timed(Desk::open(), &records(1)[0], calls));
    });
    group.finish();
}

/// How long calls with these records take. The store of `desk` keeps them: each sample has one of its own.
pub fn timed(mut desk: Desk, records: &str, calls: u64) -> Duration {
    (0..calls)
        .map(|_| {
            let call = vec![records.to_owned()];
            let start = Instant::now();
            desk.publish(call);
            start.elapsed()
        })
        .sum()
}
