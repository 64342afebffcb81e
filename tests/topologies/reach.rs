//! How to reach each kind of server, and what a store under test is asked first.

use std::sync::Arc;
use std::time::Duration;

use ossa::engine::env::Env;
use ossa::engine::error::{Error, Result};
use ossa::engine::store::redis::keys::Keys;
use ossa::engine::store::redis::{Durability, Endpoint, Location, RedisStore, RedisStoreConfig, TlsOptions};
use ossa::engine::store::{Bucket, Partition, Store};
use serde_json::json;

use crate::support::cluster::slot_of;
use crate::support::events::{event, event_ids, prepare, publish, take};
use crate::support::harness::TestBus;
use crate::support::redis_store::{KEY_PREFIX, config_at};
use crate::support::sentinel::MASTER_NAME;

/// A node on loopback.
pub fn local(port: u16) -> Endpoint {
    Endpoint::Tcp { host: "127.0.0.1".into(), port }
}

/// A server somewhere.
pub fn at(location: Location) -> RedisStoreConfig {
    RedisStoreConfig { location, ..config_at(0) }
}

/// A cluster, of which these nodes are told.
pub fn in_cluster(ports: &[u16]) -> RedisStoreConfig {
    let nodes = ports.iter().map(|&port| local(port)).collect();
    at(Location::Cluster { nodes, read_from_replicas: false, enable_ready_check: true })
}

/// The master that these sentinels name.
pub fn by_sentinels(ports: &[u16], password: Option<&str>) -> RedisStoreConfig {
    let (nodes, password) = (ports.iter().map(|&port| local(port)).collect(), password.map(str::to_owned));
    at(Location::Sentinel { master_name: MASTER_NAME.into(), nodes, username: None, password })
}

/// TLS that trusts the authority.
pub fn trusting(ca: &str) -> TlsOptions {
    TlsOptions { ca: Some(ca.into()), cert: None, key: None, server_name: None, reject_unauthorized: true }
}

/// Resolved once so many replicas have the event.
pub fn replicated(wait_replicas: u32, wait_timeout_ms: u64) -> Durability {
    Durability { wait_replicas, fsync: false, wait_timeout: Duration::from_millis(wait_timeout_ms) }
}

/// A store that is to open.
pub async fn open(config: RedisStoreConfig) -> Arc<dyn Store> {
    try_open(config).await.unwrap_or_else(|error| panic!("{error}"))
}

/// A store that may refuse.
pub async fn try_open(config: RedisStoreConfig) -> Result<Arc<dyn Store>> {
    let store = RedisStore::new(config, Env::system())?;
    store.open().await?;
    Ok(store)
}

/// Why a store does not open.
pub async fn refusal(config: RedisStoreConfig) -> Error {
    match try_open(config).await {
        Ok(_) => panic!("it should be refused"),
        Err(error) => error,
    }
}

/// A bus over a store of its own.
pub async fn bus(config: RedisStoreConfig) -> TestBus {
    TestBus::connect(RedisStore::new(config, Env::system()).expect("the configuration is right"), Env::system(), json!({})).await
}

/// An event goes through the store and comes back.
pub async fn carries_an_event(store: &Arc<dyn Store>, name: &str) {
    let at = Partition::new(name, 0);
    prepare(store, &at, "g", "c").await;
    publish(store, vec![event(&at, "e")]).await;
    assert_eq!(event_ids(&take(store, &at, "g", "c", 10).await), ["e"]);
}

/// One partition in each bucket, opened; their types are `<name>.…`.
pub async fn one_a_bucket(store: &Arc<dyn Store>, name: &str) -> Vec<Partition> {
    let find = |bucket| {
        let mut candidates = (0..).map(|n| Partition::new(format!("{name}.{n}"), 0));
        candidates.find(|at| at.bucket() == bucket).expect("types are without end")
    };
    let parts: Vec<Partition> = Bucket::all().map(find).collect();
    for at in &parts {
        store.open_partition(at).await.expect("opened");
    }
    parts
}

/// The stream's key.
pub fn stream(at: &Partition) -> String {
    Keys::new(KEY_PREFIX, None).stream(at)
}

/// The slot of all that belongs to the partition.
pub fn slot(at: &Partition) -> u16 {
    slot_of(&stream(at))
}
