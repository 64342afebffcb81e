//! Messages between projects: the contract, the signature, and all of sending one, which takes a place in the rate, too.

use std::collections::BTreeMap;
use std::hint::black_box;

use criterion::{Criterion, SamplingMode, Throughput};
use ossa::engine::config::Secret;
use ossa::engine::projects::contracts::Contracts;
use ossa::engine::projects::identity::Signer;
use ossa::engine::projects::nesting;

use super::publishing::timed;
use crate::work::desk::{Desk, RECORDS, contract, messages};
use crate::work::envelope::Envelope;
use crate::work::{EVENT_TYPE, data};

/// Where messages to the project lie.
const STREAM: &str = "@billing/order.created";

pub fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("projects");
    group.throughput(Throughput::Elements(1));
    let (meta, data) = (Envelope::new().pack_with_options(), data(4711));

    let known = BTreeMap::from([("shop/orders@1.0.0".to_owned(), contract().to_string())]);
    let contracts = Contracts::new(&known, &Contracts::default());
    group.bench_function("a contract, parsing the data", |bench| {
        bench.iter(|| {
            let data = nesting::parse(black_box(&data)).expect("JSON");
            let kept = contracts.check_outgoing("shop", "billing", EVENT_TYPE, &data, None).expect("as the contract says");
            assert_eq!(kept.len(), 1);
        });
    });

    let signer = Signer::derive("shop", &Secret::new("key of shop"), &Secret::new("the secret of project shop")).expect("a secret");
    group.bench_function("sign", |bench| bench.iter(|| signer.sign_message(STREAM, black_box(&meta), data.as_bytes())));
    let (key, signature) = (signer.public_key(), signer.sign_message(STREAM, &meta, data.as_bytes()));
    group.bench_function("verify", |bench| {
        bench.iter(|| assert!(key.verifies_message(STREAM, black_box(&meta), data.as_bytes(), &signature)));
    });

    group.throughput(Throughput::Elements(RECORDS as u64)).sampling_mode(SamplingMode::Flat).sample_size(10);
    group.bench_function("1,000 messages a call", |bench| {
        bench.iter_custom(|calls| timed(Desk::between_projects(), &messages(1)[0], calls));
    });
    group.finish();
}
