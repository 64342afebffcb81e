//! A store to test, seen as its users see it: any number of them over the same data.

use std::sync::Arc;

use async_trait::async_trait;
use ossa::engine::env::Env;
use ossa::engine::store::memory::MemoryStore;
use ossa::engine::store::{Partition, Store};

/// A kind of store.
#[async_trait]
pub trait Backend: Send + Sync {
    /// One more user of the same data, open.
    async fn user(&self) -> Arc<dyn Store>;

    /// One more user of the same data, not open yet.
    fn closed_user(&self) -> Arc<dyn Store>;

    /// Adds an entry that this bus did not write.
    async fn add_foreign(&self, at: &Partition, fields: &[(&str, &[u8])]);

    /// Whether it is a Redis Cluster.
    fn is_cluster(&self) -> bool {
        false
    }
}

/// What a rule is tested in.
pub struct World {
    backend: Box<dyn Backend>,
    /// The first user.
    pub store: Arc<dyn Store>,
}

impl World {
    /// Over the data of `backend`.
    pub async fn new(backend: impl Backend + 'static) -> Self {
        let store = backend.user().await;
        Self { backend: Box::new(backend), store }
    }

    /// One more user of the same data.
    pub async fn user(&self) -> Arc<dyn Store> {
        self.backend.user().await
    }

    /// One more user of the same data, not open yet.
    pub fn closed_user(&self) -> Arc<dyn Store> {
        self.backend.closed_user()
    }

    /// Adds an entry that this bus did not write.
    pub async fn add_foreign(&self, at: &Partition, fields: &[(&str, &[u8])]) {
        self.backend.add_foreign(at, fields).await;
    }

    /// Whether it is a Redis Cluster.
    pub fn is_cluster(&self) -> bool {
        self.backend.is_cluster()
    }
}

/// Stores in memory under a name of their own.
pub struct Memory {
    name: String,
    env: Env,
}

impl Memory {
    /// Empty.
    pub fn new() -> Self {
        let env = Env::system();
        Self { name: env.new_id().to_string(), env }
    }

    fn store(&self) -> Arc<MemoryStore> {
        MemoryStore::named(&self.name, "test", self.env.clone())
    }
}

#[async_trait]
impl Backend for Memory {
    async fn user(&self) -> Arc<dyn Store> {
        let store = self.closed_user();
        store.open().await.expect("memory opens");
        store
    }

    fn closed_user(&self) -> Arc<dyn Store> {
        self.store()
    }

    async fn add_foreign(&self, at: &Partition, fields: &[(&str, &[u8])]) {
        let fields = fields.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.to_vec())).collect();
        self.store().add_foreign(at, fields).expect("the partition is known");
    }
}
