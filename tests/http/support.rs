//! What is used here of that which tests share.
#![allow(dead_code)] // each test program uses its part

#[path = "../support/certificates.rs"]
pub mod certificates;
#[path = "../support/host.rs"]
pub mod host;
#[path = "../support/server.rs"]
pub mod server;
#[path = "../support/wait.rs"]
pub mod wait;
