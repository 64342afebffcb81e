//! The registry of services, and buses that work with it, by somebody who means it no good: in memory on a clock turned by hand, over
//! stores that fail, over real servers behind connections that break, and with services that do as they should not.

mod bus;
mod closing;
mod desk;
mod foreign;
#[path = "../simulation/machine.rs"]
#[allow(dead_code)] // each test program uses its part
mod machine;
mod outages;
mod probing;
mod registering;
mod routing;
#[path = "../support/mod.rs"]
mod support;
mod tracing;
#[path = "../http/servers.rs"]
#[allow(dead_code)] // each test program uses its part
mod web;
