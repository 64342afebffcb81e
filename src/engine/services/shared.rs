//! What the parts of a registry work with, each in its way.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use tokio::sync::{Notify, mpsc, watch};

use super::asking::Asking;
use super::health::Thresholds;
use super::held::Held;
use super::service::Service;
use super::view::{Happening, View, What};
use crate::engine::config::ServiceChecks;
use crate::engine::env::{Env, lock};
use crate::engine::error::{Error, Result};
use crate::engine::host::{Host, Kind, Lifecycle};
use crate::engine::http::Http;
use crate::engine::store::Store;

/// What the parts of this module share.
pub(super) struct Shared {
    pub(super) store: Arc<dyn Store>,
    pub(super) host: Arc<dyn Host>,
    pub(super) env: Env,
    pub(super) checks: ServiceChecks,
    /// How long what is registered here is listed without a renewal.
    pub(super) life: Duration,
    pub(super) view: Mutex<Arc<View>>,
    pub(super) asking: Asking,
    /// What this process registered, and renews.
    pub(super) held: Held,
    /// The next look is to read all: what is known may be wrong.
    pub(super) doubt: AtomicBool,
    /// Something that is held may not be listed.
    pub(super) renewal: Notify,
    /// What came or changed, and may have no probe planned.
    pub(super) unplanned: Mutex<BTreeSet<String>>,
    /// There is something of that.
    pub(super) came: Notify,
    /// Whether the registry ended, and everything is to end with it.
    pub(super) closed: watch::Sender<bool>,
    /// For probes.
    pub(super) http: Mutex<Http>,
    pub(super) listeners: Mutex<Vec<mpsc::Sender<Happening>>>,
}

impl Shared {
    pub(super) fn thresholds(&self) -> Thresholds {
        Thresholds { failures: self.checks.failure_threshold, successes: self.checks.success_threshold }
    }

    /// A problem that no call can report.
    #[allow(clippy::unused_self)] // said of this registry
    pub(super) fn problem(&self, error: &Error) -> Lifecycle {
        Lifecycle(Kind::RegistryError, error.to_json())
    }

    /// A service as it is known here; asks where it is not.
    pub(super) async fn known(&self, name: &str) -> Result<Option<Arc<Service>>> {
        let view = lock(&self.view).clone();
        if let Some(service) = view.get(name) {
            return Ok(Some(service.clone()));
        }
        Ok(self.asking.refresh().await?.get(name).cloned())
    }

    /// As the store takes it, ms.
    pub(super) fn life_ms(&self) -> u64 {
        u64::try_from(self.life.as_millis()).unwrap_or(u64::MAX)
    }

    /// The next look reads all.
    pub(super) fn doubt(&self) {
        self.doubt.store(true, Ordering::Release);
    }

    /// Whether this look is to read all.
    pub(super) fn is_in_doubt(&self) -> bool {
        self.doubt.swap(false, Ordering::AcqRel)
    }

    /// Whether the registry ended.
    pub(super) fn is_closed(&self) -> bool {
        *self.closed.borrow()
    }

    /// Returns once the registry ended.
    pub(super) async fn closed(&self) {
        // The sender is ours: waiting cannot fail.
        let _ = self.closed.subscribe().wait_for(|closed| *closed).await;
    }

    /// Tells the program, and whoever listens in the engine.
    pub(super) fn tell(&self, happened: Vec<Happening>) {
        if happened.is_empty() {
            return;
        }
        let mut listeners = lock(&self.listeners);
        for happening in &happened {
            listeners.retain(|listener| !listener.is_closed());
            for listener in &*listeners {
                if listener.try_send(happening.clone()).is_err() {
                    tracing::warn!("changes of services come faster than they are seen to; some were left out");
                }
            }
        }
        drop(listeners);
        self.host.lifecycle(happened.iter().map(lifecycle).collect());
    }
}

fn lifecycle(Happening { what, service, .. }: &Happening) -> Lifecycle {
    let kind = match what {
        What::Registered => Kind::ServiceRegistered,
        What::Updated => Kind::ServiceUpdated,
        What::Unregistered => Kind::ServiceUnregistered,
        What::Expired => Kind::ServiceExpired,
        What::HealthChanged { before } => {
            let about = json!({
                "name": service.definition.name, "oldStatus": before.as_str(), "newStatus": service.health.status().as_str(),
                "health": service.health_json(), "service": service.to_json(),
            });
            return Lifecycle(Kind::ServiceHealthChanged, about);
        }
    };
    Lifecycle(kind, service.to_json())
}
