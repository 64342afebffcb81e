//! The engine as a whole: buses over a store, with handlers that the test plays (`support::harness`). What is about time
//! runs in memory on a clock turned by hand; what is about the server runs against real ones.

mod asking;
mod board_faults;
mod commons_faults;
mod delayed;
mod ending;
mod failing;
mod faults;
mod ordered;
mod places;
mod property;
mod roster_faults;
mod servers;
mod settling_faults;
mod silence;
mod streams;
#[path = "../support/mod.rs"]
mod support;
mod unattended;
