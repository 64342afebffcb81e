//! Benchmarks of the hot paths by criterion: `cargo bench --no-default-features`, of some by name
//! `cargo bench --no-default-features -- publish`.

mod consuming;
mod envelope;
mod projects;
mod publishing;
mod redis;
#[path = "../work/mod.rs"]
mod work;

use criterion::{criterion_group, criterion_main};

criterion_group!(hot_paths, envelope::bench, publishing::bench, consuming::bench, redis::bench, projects::bench);
criterion_main!(hot_paths);
