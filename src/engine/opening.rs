//! From configuration to store.

use std::sync::Arc;
use std::time::Duration;

use super::config::{Address, BusConfig, RedisConfig, RegistryConfig, Secret};
use super::env::Env;
use super::error::Result;
use super::store::Store;
use super::store::memory::MemoryStore;
use super::store::redis::{Durability, Endpoint, Location, RedisStore, RedisStoreConfig, TlsOptions};

/// Connections of a registry beside the one that listens: its calls are few and small.
const REGISTRY_POOL: usize = 2;
/// Commands at once on each.
const REGISTRY_PIPELINE: usize = 100;

/// What there is to say beside where the server is.
struct Beside {
    dead_letter_pattern: Option<String>,
    pool_size: usize,
    pipeline_size: usize,
    durability: Option<Durability>,
}

/// The store of a bus, not connected yet.
pub fn open_bus(config: &BusConfig, env: &Env) -> Result<Arc<dyn Store>> {
    let beside = Beside {
        dead_letter_pattern: config.dead_letter_queue.key_pattern.clone(),
        pool_size: config.performance.connection_pool_size,
        pipeline_size: config.performance.pipeline_size,
        durability: config.durability.as_ref().map(|durability| Durability {
            wait_replicas: durability.wait_replicas,
            fsync: durability.fsync,
            wait_timeout: Duration::from_millis(durability.wait_timeout_ms),
        }),
    };
    open(&config.redis, beside, env)
}

/// The store of a service registry, not connected yet.
pub fn open_registry(config: &RegistryConfig, env: &Env) -> Result<Arc<dyn Store>> {
    let beside = Beside { dead_letter_pattern: None, pool_size: REGISTRY_POOL, pipeline_size: REGISTRY_PIPELINE, durability: None };
    open(&config.redis, beside, env)
}

fn open(redis: &RedisConfig, beside: Beside, env: &Env) -> Result<Arc<dyn Store>> {
    let endpoints = |nodes: &[(String, u16)]| nodes.iter().map(|(host, port)| Endpoint::tcp(host.as_str(), *port)).collect();
    let password = |secret: &Option<Secret>| secret.as_ref().map(|password| password.expose().to_owned());
    let location = match &redis.address {
        Address::Memory { name: None } => return Ok(MemoryStore::private(env.clone())),
        Address::Memory { name: Some(name) } => return Ok(MemoryStore::named(name, &redis.key_prefix, env.clone())),
        Address::Single { host, port } => Location::Server(Endpoint::tcp(host.as_str(), *port)),
        Address::Socket { path } => Location::Server(Endpoint::Unix { path: path.clone() }),
        Address::Sentinel { master_name, nodes, username, password: secret } => Location::Sentinel {
            master_name: master_name.clone(),
            nodes: endpoints(nodes),
            username: username.clone(),
            password: password(secret),
        },
        Address::Cluster { nodes, read_from_replicas, enable_ready_check } => {
            Location::Cluster { nodes: endpoints(nodes), read_from_replicas: *read_from_replicas, enable_ready_check: *enable_ready_check }
        }
    };
    let store = RedisStoreConfig {
        location,
        username: redis.username.clone(),
        password: password(&redis.password),
        db: redis.db,
        tls: redis.tls.as_ref().map(|tls| TlsOptions {
            ca: tls.ca.clone(),
            cert: tls.cert.clone(),
            key: password(&tls.key),
            server_name: tls.server_name.clone(),
            reject_unauthorized: tls.reject_unauthorized,
        }),
        key_prefix: redis.key_prefix.clone(),
        dead_letter_pattern: beside.dead_letter_pattern,
        connect_timeout: Duration::from_millis(redis.connect_timeout_ms),
        command_timeout: Duration::from_millis(redis.command_timeout_ms),
        pool_size: beside.pool_size,
        pipeline_size: beside.pipeline_size,
        durability: beside.durability,
    };
    let store = RedisStore::new(store, env.clone())?;
    Ok(store)
}
