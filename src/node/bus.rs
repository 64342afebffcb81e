//! The class that JavaScript holds, see `NativeBus` in ts/native.ts.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use napi::bindgen_prelude::{Uint32Array, Utf16String};
use napi_derive::napi;
use serde_json::Value;

use super::host::{Listener, NodeHost};
use super::runtime::Threads;
use super::text::utf8;
use super::{answer, calls, guarded, registry, verdicts};
use crate::engine::bus::Bus;
use crate::engine::config::{BusConfig, OssaConfig};
use crate::engine::env::Env;
use crate::engine::error::{Error, Result};
use crate::engine::host::{Host, Lifecycle};
use crate::engine::integration::Settings;
use crate::engine::integration::reporting::Limits;
use crate::engine::vitals::Vitals;

/// A bus and the threads it runs on.
struct Engine {
    bus: Arc<Bus>,
    threads: Arc<Threads>,
}

/// One bus of the engine.
#[napi]
pub struct NativeBus {
    host: Arc<NodeHost>,
    /// An error made at construction is told when the bus is used.
    engine: Result<Engine>,
}

fn build(config: &str, host: &Arc<NodeHost>) -> Result<Engine> {
    let mut config: Value = serde_json::from_str(config).map_err(|e| Error::internal(format!("the configuration cannot be read: {e}")))?;
    let registry = config.get_mut("serviceRegistry").and_then(Value::as_object_mut).and_then(|section| section.remove("handle"));
    let threads = Threads::acquire()?;
    let entered = threads.handle();
    let _runtime = entered.enter();
    if config.get("crossProject").is_none() {
        let bus = Bus::new(BusConfig::from_resolved(&config["eventBus"])?, None, host.clone(), Env::system())?;
        return Ok(Engine { bus, threads });
    }
    let OssaConfig { event_bus, service_registry, cross_project, orchestration, monitoring } = OssaConfig::from_resolved(&config)?;
    let bus = Bus::new(event_bus, Some(cross_project), host.clone(), Env::system())?;
    bus.with_monitoring(monitoring.clone());
    bus.with_tracing(monitoring.tracing.clone())?;
    if orchestration.enabled {
        bus.with_orchestration(orchestration.config);
    }
    if let Some(handle) = registry.and_then(|handle| handle.as_u64()) {
        let thresholds = &monitoring.alerting;
        let limits = Limits {
            error_rate: thresholds.error_rate_max_percent,
            response_ms: thresholds.latency_ms_max,
            memory: thresholds.memory_usage_max_percent,
        };
        bus.with_services(Settings { registry: registry::of_handle(handle)?, config: service_registry, limits });
    }
    Ok(Engine { bus, threads })
}

#[napi]
impl NativeBus {
    /// `listener` is told everything, see `Message` in ts/native.ts.
    #[napi(constructor)]
    pub fn new(env: napi::Env, config: String, listener: Listener<'_>) -> napi::Result<Self> {
        let host = Arc::new(NodeHost::new(&listener)?);
        let engine = guarded(|| build(&config, &host)).and_then(|built| built);
        if let Ok(Engine { bus, threads }) = &engine {
            // A worker that ends without disconnect leaves nothing running behind.
            let (bus, threads) = (Arc::downgrade(bus), Arc::downgrade(threads));
            env.add_env_cleanup_hook((), move |()| {
                if let (Some(bus), Some(threads)) = (bus.upgrade(), threads.upgrade()) {
                    let log = bus.log().clone();
                    threads.handle().spawn(log.along(async move { bus.disconnect(Duration::ZERO).await }));
                }
            })?;
        }
        Ok(Self { host, engine })
    }

    /// Answered under `id`.
    #[napi]
    pub fn call(&self, id: u32, method: String, args: String) {
        let host = self.host.clone();
        match &self.engine {
            Ok(Engine { bus, threads }) => {
                // The threads stay until the answer is out.
                let (bus, kept) = (bus.clone(), threads.clone());
                threads.handle().spawn(bus.log().clone().along(async move {
                    let result = AssertUnwindSafe(calls::call(&bus, &method, &args)).catch_unwind().await;
                    host.answer(id, answer(result.unwrap_or_else(|panic| Err(Error::panicked(panic.as_ref())))));
                    drop(bus);
                    drop(kept);
                }));
            }
            // Closing what never was is done.
            Err(_) if method == "disconnect" => host.answer(id, answer(Ok(serde_json::json!({})))),
            Err(error) => host.answer(id, answer(Err(error.clone()))),
        }
    }

    /// Answered by the listener.
    #[napi]
    pub fn publish(&self, first_token: u32, text: Utf16String) {
        self.with(|bus| {
            let text = utf8(&text);
            let count = memchr::memchr_iter(b'\n', text.as_bytes()).count();
            // Before: an answer may be there at once.
            if let Ok(Engine { threads, .. }) = &self.engine {
                threads.keep_awake(&self.host.awake, count);
            }
            bus.publish(first_token, text);
        });
    }

    /// Gives up a publish that is not sent yet.
    #[napi]
    pub fn cancel(&self, token: u32) {
        self.with(|bus| bus.cancel(token));
    }

    /// Ends deliveries.
    #[napi]
    pub fn settle(&self, done: Uint32Array, failed: String, confirm: u32) {
        self.with(|bus| match verdicts::read(&done, &failed) {
            Ok(verdicts) => bus.settle_all(verdicts, confirm),
            Err(error) => {
                self.host.lifecycle(vec![Lifecycle::error(&error)]);
                if confirm != 0 {
                    self.host.settled(vec![(confirm, Some(error))]);
                }
            }
        });
    }

    /// Nothing more is told: the bus is disconnected, and leaves no handle open.
    #[napi]
    pub fn close(&self) {
        self.host.close();
    }

    /// Which lifecycle events are wanted.
    #[napi]
    pub fn listen(&self, mask: u32) {
        self.host.listen(mask);
    }

    /// `getAvailableContracts`: JSON text of `NativeAnswer`, from what is known, without I/O.
    #[napi]
    pub fn contracts(&self, project_id: String) -> String {
        self.ask(|bus| Ok(Value::Array(bus.projects()?.contracts(&project_id)?)))
    }

    /// `getAgents`, `getPools` or `getOrchestrationStats`: JSON text of `NativeAnswer`, from what is known, without I/O.
    #[napi]
    pub fn orchestration(&self, what: String) -> String {
        let known = |bus: &Arc<Bus>| bus.orchestration(&what);
        let asked = self
            .engine
            .as_ref()
            .map_err(Clone::clone)
            .and_then(|engine| guarded(|| engine.bus.log().within(|| known(&engine.bus))).and_then(|answer| answer));
        match asked {
            // Text that is JSON already.
            Ok(text) => format!("{{\"ok\":{text}}}"),
            Err(error) => answer(Err(error)),
        }
    }

    /// Metrics in the text format of Prometheus: JSON text of `NativeAnswer<string>`.
    #[napi]
    pub fn prometheus(&self) -> String {
        self.ask(|bus| Ok(bus.prometheus()?.into()))
    }

    /// How the process is: CPU in percent of one core, memory used and allowed in bytes, lateness of the event loop in s.
    #[napi]
    pub fn vitals(&self, cpu_percent: f64, memory_bytes: f64, memory_limit_bytes: f64, event_loop_lag_s: f64) {
        self.with(|bus| bus.set_vitals(Vitals { cpu_percent, memory_bytes, memory_limit_bytes, event_loop_lag_s }));
    }

    /// What is known of monitoring, without I/O, see `NativeBus.monitoring` in ts/native.ts: JSON text of `NativeAnswer`.
    #[napi]
    pub fn monitoring(&self, what: String, window_seconds: Option<f64>) -> String {
        self.ask(|bus| match what.as_str() {
            "analytics" => bus.analytics(window_seconds),
            "alerts" => bus.active_alerts(),
            "stats" => bus.monitoring_stats(),
            "process" => Ok(bus.process_health()),
            _ => Err(Error::internal(format!("'{what}' is not known of monitoring"))),
        })
    }

    /// `EventBusMetrics` as JSON text.
    #[napi]
    pub fn metrics(&self) -> String {
        match &self.engine {
            Ok(engine) => guarded(|| engine.bus.log().within(|| engine.bus.metrics().to_string())).unwrap_or_else(|_| "{}".to_owned()),
            Err(_) => "{}".to_owned(),
        }
    }
}

impl NativeBus {
    fn ask(&self, question: impl FnOnce(&Arc<Bus>) -> Result<Value>) -> String {
        let asked = |engine: &Engine| guarded(|| engine.bus.log().within(|| question(&engine.bus))).and_then(|answer| answer);
        answer(self.engine.as_ref().map_err(Clone::clone).and_then(asked))
    }

    fn with(&self, work: impl FnOnce(&Arc<Bus>)) {
        let Ok(engine) = &self.engine else { return };
        if let Err(error) = guarded(|| engine.bus.log().within(|| work(&engine.bus))) {
            self.host.lifecycle(vec![Lifecycle::error(&error)]);
        }
    }
}

impl Drop for NativeBus {
    fn drop(&mut self) {
        if let Ok(Engine { bus, threads }) = &self.engine {
            // Collected without disconnect: nothing may run on for nobody.
            let (bus, kept) = (bus.clone(), threads.clone());
            threads.handle().spawn(bus.log().clone().along(async move {
                bus.disconnect(Duration::ZERO).await;
                drop(kept);
            }));
        }
    }
}
