//! The rules of the `Store` trait, a function each; `tests/conformance.rs` runs them against every store.

pub mod appending;
pub mod asking;
pub mod dead_letters;
pub mod exclusive;
pub mod groups;
pub mod history;
pub mod leases;
pub mod looking_back;
pub mod reading;
pub mod settling;
pub mod streams;
pub mod sweeping;
pub mod topology;
pub mod users;
