//! The rules of the `Store` trait over a Redis Cluster: one cluster for all of them, a key prefix for each.

use std::sync::Arc;

use async_trait::async_trait;
use ossa::engine::env::Env;
use ossa::engine::store::redis::keys::Keys;
use ossa::engine::store::redis::{RedisStore, RedisStoreConfig};
use ossa::engine::store::{Partition, Store};

use crate::reach::in_cluster;
use crate::support::cluster::{command_for, shared};
use crate::support::server::programs;
use crate::support::world::{Backend, World};

/// Stores over the shared cluster.
struct InCluster {
    ports: Vec<u16>,
    prefix: String,
}

impl InCluster {
    async fn new(program: &str) -> Self {
        Self { ports: shared(program).await, prefix: format!("test:{}", Env::system().new_id()) }
    }
}

#[async_trait]
impl Backend for InCluster {
    async fn user(&self) -> Arc<dyn Store> {
        let store = self.closed_user();
        store.open().await.expect("the cluster answers");
        store
    }

    fn closed_user(&self) -> Arc<dyn Store> {
        let config = RedisStoreConfig { key_prefix: self.prefix.clone(), ..in_cluster(&self.ports) };
        RedisStore::new(config, Env::system()).expect("the configuration is right")
    }

    async fn add_foreign(&self, at: &Partition, fields: &[(&str, &[u8])]) {
        let key = Keys::new(&self.prefix, None).stream(at);
        let mut command: Vec<&[u8]> = vec![b"XADD", key.as_bytes(), b"*"];
        command.extend(fields.iter().flat_map(|(name, value)| [name.as_bytes(), value]));
        command_for(&self.ports, &key, &command).await;
    }

    fn is_cluster(&self) -> bool {
        true
    }
}

macro_rules! conformance {
    ($($part:ident: $($rule:ident),+;)+) => {
        $(mod $part {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $rule() {
                for world in super::in_clusters() {
                    crate::rules::$part::$rule(&world.await).await;
                }
            })+
        })+
    };
}

/// A world in a cluster of each server program.
fn in_clusters() -> impl Iterator<Item = impl Future<Output = World>> {
    programs().into_iter().map(|program| async move {
        println!("server: {program}"); // shown when the test fails
        World::new(InCluster::new(&program).await).await
    })
}

every_rule!(conformance);
