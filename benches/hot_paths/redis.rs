//! What the store over Redis does beside waiting: writing batches, reading replies, and finding the slots of keys in a cluster.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use ossa::engine::store::Partition;
use ossa::engine::store::redis::bench::slot_of;
use ossa::engine::store::redis::keys::Keys;

use crate::work::EVENT_TYPE;
use crate::work::batch::Batch;
use crate::work::reply::Reply;

pub fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("redis");
    for entries in [1, 100] {
        let reply = Reply::new(entries);
        group.throughput(Throughput::Bytes(reply.len() as u64));
        group.bench_function(format!("a reply with entries: {entries}"), |bench| bench.iter(|| reply.read()));
    }
    let batch = Batch::new(100);
    group.throughput(Throughput::Elements(100));
    group.bench_function("a batch of 100, written, and its replies read", |bench| bench.iter(|| batch.send()));
    let key = Keys::new("ossa:events", None).stream(&Partition::new(EVENT_TYPE, 0));
    group.throughput(Throughput::Elements(1));
    group.bench_function("the slot of a key", |bench| bench.iter(|| slot_of(black_box(key.as_bytes()))));
    group.finish();
}
