//! The rules of the `Store` trait, a function each; `tests/conformance.rs` runs them against every store.

pub mod appending;
pub mod asking;
pub mod dead_letters;
pub mod leases;
pub mod reading;
pub mod settling;
pub mod sweeping;
pub mod topology;
pub mod users;
