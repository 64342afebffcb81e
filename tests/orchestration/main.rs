//! Buses that orchestrate agents together over a real server: one leads, and it may die, be cut off, stand still or lose its server.

mod bus;
mod leading;
#[path = "../simulation/machine.rs"]
#[allow(dead_code)] // each test program uses its part
mod machine;
mod storage;
#[path = "../support/mod.rs"]
mod support;
