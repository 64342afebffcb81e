//! The class of a service registry that JavaScript holds, see `NativeRegistry` in ts/native.ts.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, Weak};

use futures_util::FutureExt;
use napi_derive::napi;
use serde::Deserialize;
use serde_json::{Value, json};

use super::calls::read;
use super::host::{Listener, NodeHost};
use super::runtime::Threads;
use super::{answer, guarded};
use crate::engine::config::RegistryConfig;
use crate::engine::env::{Env, lock};
use crate::engine::error::{Error, Result};
use crate::engine::services::{Registry, Watcher};

/// Registries of the process by their handles, by which a bus finds the one that it is given.
static HANDLES: Mutex<(u32, BTreeMap<u32, Weak<Registry>>)> = Mutex::new((0, BTreeMap::new()));

fn handle_of(registry: &Arc<Registry>) -> u32 {
    let mut handles = lock(&HANDLES);
    let (last, registries) = &mut *handles;
    registries.retain(|_, registry| registry.strong_count() > 0);
    *last = last.wrapping_add(1);
    registries.insert(*last, Arc::downgrade(registry));
    *last
}

/// The registry of that handle.
pub fn of_handle(handle: u64) -> Result<Arc<Registry>> {
    let found = u32::try_from(handle).ok().and_then(|handle| lock(&HANDLES).1.get(&handle).and_then(Weak::upgrade));
    found.filter(|registry| !registry.is_closed()).ok_or_else(|| Error::closed("the service registry"))
}

/// A registry and the threads it runs on.
struct Engine {
    registry: Arc<Registry>,
    threads: Arc<Threads>,
}

/// One service registry of the engine.
#[napi]
pub struct NativeRegistry {
    host: Arc<NodeHost>,
    /// An error made at construction is told when it is used.
    engine: Result<Engine>,
    handle: u32,
}

fn build(config: &str, host: &Arc<NodeHost>) -> Result<Engine> {
    let config: Value = serde_json::from_str(config).map_err(|e| Error::internal(format!("the configuration cannot be read: {e}")))?;
    let config = RegistryConfig::from_resolved(&config)?;
    let threads = Threads::acquire()?;
    let entered = threads.handle();
    let _runtime = entered.enter();
    Ok(Engine { registry: Registry::new(&config, host.clone(), Env::system())?, threads })
}

#[derive(Deserialize)]
struct Name {
    name: String,
}

#[derive(Deserialize)]
struct Update {
    name: String,
    updates: Value,
}

#[derive(Deserialize)]
struct Monitor {
    on: bool,
}

async fn call(registry: &Arc<Registry>, method: &str, args: &str) -> Result<Value> {
    let optional = |found: Option<Value>| found.unwrap_or(Value::Null);
    match method {
        "open" => registry.open().await.map(|()| json!({})),
        "register" => registry.register(read(args)?).await,
        "update" => {
            let Update { name, updates } = read(args)?;
            registry.update(&name, updates).await.map(optional)
        }
        "unregister" => Ok(registry.unregister(&read::<Name>(args)?.name).await?.into()),
        "discover" => registry.discover(read(args)?).await.map(Value::Array),
        "all" => registry.discover(Value::Null).await.map(Value::Array),
        "health" => registry.health(&read::<Name>(args)?.name).await.map(optional),
        "stats" => registry.stats().await,
        "monitor" => {
            if read::<Monitor>(args)?.on {
                registry.watch(Watcher::Program).await?;
            } else {
                registry.unwatch(Watcher::Program);
            }
            Ok(json!({}))
        }
        "status" => Ok(registry.status().await),
        "close" => {
            registry.close().await;
            Ok(json!({}))
        }
        _ => Err(Error::internal(format!("{method} is not known"))),
    }
}

#[napi]
impl NativeRegistry {
    /// `listener` is told everything, see `Message` in ts/native.ts.
    #[napi(constructor)]
    pub fn new(env: napi::Env, config: String, listener: Listener<'_>) -> napi::Result<Self> {
        let host = Arc::new(NodeHost::new(&listener)?);
        let engine = guarded(|| build(&config, &host)).and_then(|built| built);
        let mut handle = 0;
        if let Ok(Engine { registry, threads }) = &engine {
            handle = handle_of(registry);
            // A worker that ends without close leaves nothing running behind.
            let (registry, threads) = (Arc::downgrade(registry), Arc::downgrade(threads));
            env.add_env_cleanup_hook((), move |()| {
                if let (Some(registry), Some(threads)) = (registry.upgrade(), threads.upgrade()) {
                    let log = registry.log().clone();
                    threads.handle().spawn(log.along(async move { registry.close().await }));
                }
            })?;
        }
        Ok(Self { host, engine, handle })
    }

    /// Names it for a bus of the same process.
    #[napi(getter)]
    pub fn handle(&self) -> u32 {
        self.handle
    }

    /// Answered under `id`.
    #[napi]
    pub fn call(&self, id: u32, method: String, args: String) {
        let host = self.host.clone();
        match &self.engine {
            Ok(Engine { registry, threads }) => {
                // The threads stay until the answer is out.
                let (registry, kept) = (registry.clone(), threads.clone());
                threads.handle().spawn(registry.log().clone().along(async move {
                    let result = AssertUnwindSafe(call(&registry, &method, &args)).catch_unwind().await;
                    host.answer(id, answer(result.unwrap_or_else(|panic| Err(Error::panicked(panic.as_ref())))));
                    drop(registry);
                    drop(kept);
                }));
            }
            // Closing what never was is done.
            Err(_) if method == "close" => host.answer(id, answer(Ok(json!({})))),
            Err(error) => host.answer(id, answer(Err(error.clone()))),
        }
    }

    /// Nothing more is told: it is closed, and leaves no handle open.
    #[napi]
    pub fn close(&self) {
        self.host.close();
    }
}

impl Drop for NativeRegistry {
    fn drop(&mut self) {
        if let Ok(Engine { registry, threads }) = &self.engine {
            // Collected without close: nothing may run on for nobody.
            let (registry, kept) = (registry.clone(), threads.clone());
            threads.handle().spawn(registry.log().clone().along(async move {
                registry.close().await;
                drop(kept);
            }));
        }
    }
}
