//! What the tests of the store and the engine share.
#![allow(dead_code)] // each test program uses its part

pub mod certificates;
pub mod cluster;
pub mod events;
pub mod faulty;
pub mod harness;
pub mod host;
pub mod proxy;
pub mod redis_store;
pub mod sentinel;
pub mod server;
pub mod wait;
pub mod world;
