//! `@bluefly/ossa`: an event bus for agents and services over Redis Streams.
//!
//! Reading order: [`engine`] is the whole bus and knows nothing of Node.js; `node` turns engine calls into
//! JavaScript calls and back, and is the only code that names napi. `ARCHITECTURE.md` follows one event
//! through the files.

pub mod engine;

#[cfg(feature = "node")]
mod node;
