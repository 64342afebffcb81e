//! Consuming from the memory store: reading, delivering, settling.

use std::time::{Duration, Instant};

use criterion::{Criterion, SamplingMode, Throughput};

use crate::work::desk::{Desk, RECORDS, records};

/// Calls of publishes that make a backlog.
const CALLS: usize = 10;

pub fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("consume");
    group.throughput(Throughput::Elements((CALLS * RECORDS) as u64)).sampling_mode(SamplingMode::Flat).sample_size(20);
    group.bench_function("a backlog of 10,000 events", |bench| {
        bench.iter_custom(|times| {
            let mut desk = Desk::open();
            (0..times).map(|_| once(&mut desk)).sum()
        });
    });
    group.finish();
}

fn once(desk: &mut Desk) -> Duration {
    desk.publish(records(CALLS));
    let start = Instant::now();
    desk.consume(CALLS * RECORDS);
    let took = start.elapsed();
    desk.unsubscribe();
    took
}
