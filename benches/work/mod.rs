//! The work that is measured: the same for criterion (`hot_paths/`) and for the count of instructions (`instructions.rs`).
#![allow(dead_code)] // each of the two programs uses its part

pub mod batch;
pub mod desk;
pub mod envelope;
pub mod reply;

/// The type of all events.
pub const EVENT_TYPE: &str = "order.created";

/// The data of an event, some 190 bytes as `npm run bench` publishes it.
pub fn data(number: usize) -> String {
    format!(
        r#"{{"userId":"user-{number}","email":"user{number}@example.com","number":{number},"tags":["alpha","beta","gamma"],"nested":{{"ok":true,"score":{number}.5,"note":"the quick brown fox jumps over the lazy dog"}}}}"#
    )
}
