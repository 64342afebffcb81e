//! One suite for every store: each test states a rule of the `Store` trait (`tests/rules`), and each store keeps it.
//!
//! The Redis column runs against every server of [`support::server::programs`], one private server a test.

#[macro_use]
mod rules;
mod support;

use support::redis_store::Redis;
use support::server::programs;
use support::world::{Memory, World};

macro_rules! conformance {
    ($($part:ident: $($rule:ident),+;)+) => {
        mod memory {
            $(mod $part {
                $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $rule() {
                    crate::rules::$part::$rule(&crate::in_memory().await).await;
                })+
            })+
        }

        mod redis {
            $(mod $part {
                $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $rule() {
                    for world in crate::in_redis() {
                        crate::rules::$part::$rule(&world.await).await;
                    }
                })+
            })+
        }
    };
}

async fn in_memory() -> World {
    World::new(Memory::new()).await
}

/// A world in each server program.
fn in_redis() -> impl Iterator<Item = impl Future<Output = World>> {
    programs().into_iter().map(|program| async move {
        println!("server: {program}"); // shown when the test fails
        World::new(Redis::start(&program).await).await
    })
}

every_rule!(conformance);
