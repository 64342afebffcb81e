//! The metadata of an event.

use criterion::{Criterion, Throughput};

use crate::work::envelope::{Envelope, read};

pub fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("envelope");
    group.throughput(Throughput::Elements(1));
    let envelope = Envelope::new();
    group.bench_function("pack", |bench| bench.iter(|| envelope.pack()));
    group.bench_function("pack with options", |bench| bench.iter(|| envelope.pack_with_options()));
    let (plain, with_options) = (envelope.pack(), envelope.pack_with_options());
    group.bench_function("read", |bench| bench.iter(|| read(&plain)));
    group.bench_function("read with options", |bench| bench.iter(|| read(&with_options)));
    group.finish();
}
