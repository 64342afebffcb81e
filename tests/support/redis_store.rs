//! The Redis column of the suite: each test has a server of its own.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use ossa::engine::env::Env;
use ossa::engine::store::redis::keys::Keys;
use ossa::engine::store::redis::{Endpoint, Location, RedisStore, RedisStoreConfig};
use ossa::engine::store::{Partition, Store};

use super::server::Server;
use super::world::Backend;

/// What their keys begin with.
pub const KEY_PREFIX: &str = "test:bus";

/// How to reach `server`.
pub fn config(server: &Server) -> RedisStoreConfig {
    config_at(server.port())
}

/// How to reach what answers on that loopback port.
pub fn config_at(port: u16) -> RedisStoreConfig {
    RedisStoreConfig {
        location: Location::Server(Endpoint::tcp("127.0.0.1", port)),
        username: None,
        password: None,
        db: 0,
        tls: None,
        key_prefix: KEY_PREFIX.into(),
        dead_letter_pattern: None,
        connect_timeout: Duration::from_secs(5),
        command_timeout: Duration::from_secs(5),
        pool_size: 4,
        pipeline_size: 100,
        durability: None,
    }
}

/// Stores over one server.
pub struct Redis(Server);

impl Redis {
    /// Over an empty server.
    pub async fn start(program: &str) -> Self {
        Self(Server::start(program).await)
    }
}

#[async_trait]
impl Backend for Redis {
    async fn user(&self) -> Arc<dyn Store> {
        let store = self.closed_user();
        store.open().await.expect("the server answers");
        store
    }

    fn closed_user(&self) -> Arc<dyn Store> {
        RedisStore::new(config(&self.0), Env::system()).expect("the configuration is right")
    }

    async fn add_foreign(&self, at: &Partition, fields: &[(&str, &[u8])]) {
        let key = Keys::new(KEY_PREFIX, None).stream(at);
        let mut command: Vec<&[u8]> = vec![b"XADD", key.as_bytes(), b"*"];
        command.extend(fields.iter().flat_map(|(name, value)| [name.as_bytes(), value]));
        self.0.command(&command).await;
    }
}
