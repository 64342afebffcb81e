//! Contracts that services offer: asked for by `GET {endpoint}/events/contracts`, and registered as if the service had done it itself.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::sync::Semaphore;

use super::Shared;
use crate::engine::env::lock;
use crate::engine::error::Result;
use crate::engine::host::Lifecycle;
use crate::engine::services::service::Service;
use crate::engine::store::{Errand, Running};

/// Most of an answer, bytes.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// Most contracts of one service.
const CONTRACTS_MAX: usize = 1000;
/// Most services asked at once.
const AT_ONCE: usize = 64;
/// How long asking is this process's beyond what the answer may take: contracts are registered meanwhile.
const BESIDE: Duration = Duration::from_secs(30);
/// What discovered contracts are tagged with.
const TAG: &str = "discovered";
/// Most of a reason that is told, characters: it may repeat what was offered.
const REASON_CHARS_MAX: usize = 500;
/// Refusals that are remembered, so that each is told once.
const TOLD_MAX: usize = 10_000;

/// A contract that was not registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Who offers it.
    pub service: String,
    /// Its name, as far as it has one.
    pub contract: String,
    /// Why not.
    pub reason: String,
}

impl Refusal {
    fn to_json(&self) -> Value {
        json!({ "service": self.service, "contract": self.contract, "reason": self.reason })
    }
}

/// What was found so far, by this process.
pub(super) struct Found {
    /// For asking.
    places: Arc<Semaphore>,
    registered: AtomicU64,
    refused: AtomicU64,
    told: Mutex<BTreeSet<String>>,
}

impl Default for Found {
    fn default() -> Self {
        Self {
            places: Arc::new(Semaphore::new(AT_ONCE)),
            registered: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            told: Mutex::default(),
        }
    }
}

impl Found {
    pub(super) fn to_json(&self) -> Value {
        json!({ "registered": self.registered.load(Ordering::Relaxed), "refused": self.refused.load(Ordering::Relaxed) })
    }
}

/// The errand of asking, for the processes of one bus.
fn errand(shared: &Shared) -> Errand {
    Errand::Contracts { bus: shared.bus.load(Ordering::Acquire) }
}

/// Asks those services whose turn it is.
pub(super) async fn run_due(shared: &Arc<Shared>) -> Result<()> {
    loop {
        let free = shared.found.places.available_permits();
        if free == 0 {
            return Ok(());
        }
        let errand = errand(shared);
        let (due, _) = shared.registry.store().take_errands(errand, free, shared.timeout + BESIDE).await?;
        if due.is_empty() {
            return Ok(());
        }
        for running in due {
            let Ok(place) = shared.found.places.clone().try_acquire_owned() else { break };
            let shared = shared.clone();
            shared.env.clone().spawn(async move {
                let Running { name, .. } = &running;
                if let Some(service) = shared.registry.view().get(name).filter(|service| service.is_probed()) {
                    match discover(&shared, service).await {
                        Ok((_, refused)) => tell(&shared, &refused),
                        Err(reason) => tracing::debug!(reason, service = name, "it could not be asked for contracts"),
                    }
                }
                let next = Duration::from_millis(shared.config.discovery_refresh_interval_ms);
                let _ = shared.registry.store().end_errand(errand, &running, Some(next)).await;
                drop(place);
            });
        }
    }
}

/// Those services that may offer contracts are asked from now on.
pub(super) async fn plan(shared: &Shared, services: impl Iterator<Item = &Arc<Service>>, spread: Duration) -> Result<()> {
    let names: Vec<String> =
        services.filter(|service| service.definition.is_http()).map(|service| service.definition.name.clone()).collect();
    if names.is_empty() {
        return Ok(());
    }
    shared.registry.store().plan_errands(errand(shared), &names, spread).await
}

/// Asks now, whoever's turn it is: one service, or all. `{ registered, refused }`.
pub(super) async fn discover_now(shared: &Shared, name: Option<&str>) -> Result<Value> {
    let view = shared.registry.refresh().await?;
    let services: Vec<Arc<Service>> =
        view.services().filter(|service| service.is_probed() && name.is_none_or(|name| service.definition.name == name)).cloned().collect();
    let (mut registered, mut refused) = (0, Vec::new());
    for some in services.chunks(AT_ONCE) {
        let asked = some.iter().map(|service| discover(shared, service));
        for (service, found) in some.iter().zip(futures_util::future::join_all(asked).await) {
            match found {
                Ok((count, some)) => {
                    registered += count;
                    refused.extend(some);
                }
                Err(reason) => {
                    refused.push(Refusal { service: service.definition.name.clone(), contract: String::new(), reason });
                }
            }
        }
    }
    Ok(json!({ "registered": registered, "refused": refused.iter().map(Refusal::to_json).collect::<Vec<_>>() }))
}

fn tell(shared: &Shared, refused: &[Refusal]) {
    let mut told = lock(&shared.found.told);
    for Refusal { service, contract, reason } in refused {
        let text = format!("the contract '{contract}' that the service '{service}' offers is refused: {reason}");
        if told.len() < TOLD_MAX && told.insert(text.clone()) {
            shared.host.lifecycle(vec![Lifecycle::warn(text)]);
        }
    }
}

/// How many contracts of a service are registered now, and which are not. A service that has no such place offers none.
async fn discover(shared: &Shared, service: &Service) -> Result<(u64, Vec<Refusal>), String> {
    let definition = &service.definition;
    let headers = [("accept", "application/json")];
    let answer =
        shared.http.get(&definition.contracts_url(), &headers, shared.timeout, ANSWER_BYTES_MAX).await.map_err(|f| f.to_string())?;
    if matches!(answer.status, 204 | 404 | 405 | 410 | 501) {
        return Ok((0, Vec::new()));
    }
    if !(200..=299).contains(&answer.status) {
        return Err(format!("it answered with HTTP status {}", answer.status));
    }
    let offered = match serde_json::from_slice(&answer.body) {
        Ok(Value::Array(offered)) => offered,
        Ok(Value::Object(mut body)) => match body.remove("contracts") {
            Some(Value::Array(offered)) => offered,
            _ => return Err("its answer is no list of contracts, nor an object with such a list as 'contracts'".to_owned()),
        },
        Ok(_) => return Err("its answer is no list of contracts".to_owned()),
        Err(error) => return Err(format!("its answer is no JSON: {error}")),
    };
    if offered.len() > CONTRACTS_MAX {
        return Err(format!("it offers {} contracts; {CONTRACTS_MAX} are the most", offered.len()));
    }
    let (mut registered, mut refused) = (0, Vec::new());
    for contract in offered {
        let name = contract["name"].as_str().unwrap_or_default().chars().take(128).collect();
        match register(shared, &definition.name, contract).await {
            Ok(()) => registered += 1,
            Err(reason) => {
                let reason = reason.chars().take(REASON_CHARS_MAX).collect();
                refused.push(Refusal { service: definition.name.clone(), contract: name, reason });
            }
        }
    }
    shared.found.registered.fetch_add(registered, Ordering::Relaxed);
    shared.found.refused.fetch_add(refused.len() as u64, Ordering::Relaxed);
    Ok((registered, refused))
}

async fn register(shared: &Shared, service: &str, contract: Value) -> Result<(), String> {
    let Value::Object(mut contract) = contract else { return Err("it is no object".to_owned()) };
    match contract.get("sourceProject") {
        None => {}
        Some(source) if source == service => {}
        Some(source) => return Err(format!("contract.sourceProject: must be the service itself, '{service}', or left out; got {source}")),
    }
    contract.insert("sourceProject".to_owned(), service.into());
    tag(&mut contract);
    let projects = shared.projects.as_ref().ok_or("messages between projects are switched off (crossProject.enabled)")?;
    projects.register_contract(Value::Object(contract)).await.map_err(|error| error.message)
}

/// What is wrong with the tags is found when the contract is read.
fn tag(contract: &mut Map<String, Value>) {
    let Value::Object(metadata) = contract.entry("metadata").or_insert_with(|| json!({})) else { return };
    if let Value::Array(tags) = metadata.entry("tags").or_insert_with(|| json!([]))
        && !tags.iter().any(|tag| tag == TAG)
    {
        tags.push(TAG.into());
    }
}
