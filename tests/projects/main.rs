//! Messages between projects, by whole buses: in memory on a clock turned by hand, and against real servers where it is about
//! the server.

mod answers;
mod desk;
mod directory;
mod groups;
mod keys;
mod recording;
mod replays;
mod sending;
mod servers;
#[path = "../support/mod.rs"]
mod support;
