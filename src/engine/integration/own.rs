//! The bus itself as a service, `ossa-event-bus`: one for all processes of it.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::Shared;
use crate::engine::error::Result;
use crate::engine::services::health::Report;

/// What it is called.
pub const NAME: &str = "ossa-event-bus";
/// How often a process says how it is.
pub(super) const EVERY: Duration = Duration::from_secs(5);
/// What a process says of the bus counts for so long, ms.
const REPORT_MS: u64 = 30_000;

/// As it is registered.
fn definition(endpoint: &str, has_projects: bool) -> Value {
    let version = env!("CARGO_PKG_VERSION");
    let mut capabilities = vec![json!({ "name": "event-bus", "version": version })];
    if has_projects {
        capabilities.push(json!({ "name": "cross-project-messages", "version": version }));
    }
    json!({
        "name": NAME,
        "endpoint": endpoint,
        "version": version,
        "capabilities": capabilities,
        "metadata": { "description": "Event bus for agents and services over Redis Streams", "tags": ["ossa", "event-bus"] },
    })
}

/// Registers it, from now on renewed by this process too.
pub(super) async fn register(shared: &Arc<Shared>) -> Result<()> {
    let mut service = definition(&shared.endpoint, shared.projects.is_some());
    service["health"] = json!({ "status": "healthy", "lastCheck": shared.registry.store().now_ms() });
    shared.registry.register(service).await.map(drop)
}

/// Says how the bus is in this process: what is wrong here makes it degraded for all. `problem`: what, if anything is.
pub(super) async fn tell(shared: &Arc<Shared>, problem: Option<&str>) -> Result<()> {
    let by = format!("process:{}", shared.instance);
    let known = shared.registry.view();
    let Some(service) = known.get(NAME) else { return Ok(()) };
    let now_ms = shared.registry.store().now_ms();
    let report = problem.map(|problem| Report { reason: problem.to_owned(), until_ms: now_ms.saturating_add(REPORT_MS) });
    if report.is_some() || service.health.is_reported_by(&by) {
        shared.registry.report(NAME, &by, report).await?;
    }
    shared.registry.vouch(NAME, u64::try_from(EVERY.as_millis()).unwrap_or(u64::MAX)).await
}
