//! The store and the bus over what users run in production: Redis Cluster, Sentinel, TLS, Unix sockets, replicas that are
//! waited for, and a user who may do no more than docs/reliability.md says.

#[macro_use]
#[path = "../rules/mod.rs"]
mod rules;
#[path = "../support/mod.rs"]
mod support;

/// A test for each of the named functions of `cases` in the same file, run against every server program in turn.
macro_rules! on_every_server {
    ($($name:ident),+ $(,)?) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            for program in crate::support::server::programs() {
                println!("server: {program}"); // shown when the test fails
                cases::$name(&program).await;
            }
        })+
    };
}

mod conformance;
mod connections;
mod durability;
mod failover;
mod load;
mod permissions;
mod reach;
mod resharding;
mod sentinels;
mod sockets;
mod tls;
