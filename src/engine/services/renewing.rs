//! What this process registered stays listed for as long as it lives.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::definition::Definition;
use super::service::Service;
use super::shared::Shared;
use crate::engine::error::Result;
use crate::engine::log::failed;
use crate::engine::store::Turn;

/// Renewals within the life of a service: one that fails is made up for by the next.
const A_LIFE: u32 = 3;
/// After a failure it is tried again so soon.
const AGAIN: Duration = Duration::from_secs(1);

/// Renews, until the registry ends.
pub(super) async fn run(shared: Arc<Shared>) {
    let every = shared.life / A_LIFE;
    let mut wait = every;
    loop {
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = shared.renewal.notified() => {}
        }
        wait = match renew(&shared).await {
            Ok(()) => every,
            Err(error) => {
                failed!(error, "services could not be renewed");
                every.min(AGAIN)
            }
        };
    }
}

/// Those that are not listed any more, though nobody took them out, are registered again: they ended while this process stood still, or
/// went when the store was emptied.
async fn renew(shared: &Shared) -> Result<()> {
    // Times that are noted are the server's; clocks drift apart.
    shared.store.compare_clocks().await?;
    let names = shared.held.names();
    if names.is_empty() {
        return Ok(());
    }
    let gone: BTreeSet<String> = shared.store.renew_listings(&names, shared.life).await?.into_iter().collect();
    if gone.is_empty() {
        return Ok(());
    }
    // Also learns which of them somebody took out.
    let view = shared.asking.refresh().await?;
    for name in gone {
        let Some(held) = shared.held.get(&name) else { continue };
        // As it was known last. If it came back meanwhile this changes nothing; if only it was lost, nobody is told. Where it ended, this is
        // another registration.
        let service = view.get(&name).cloned().unwrap_or_else(|| {
            let now_ms = shared.store.now_ms().max(held.definition.registered_at_ms + 1);
            let definition = Definition { registered_at_ms: now_ms, updated_at_ms: now_ms, ..held.definition.clone() };
            Arc::new(Service::new(definition, held.health.clone()))
        });
        shared.store.put_listing(&name, None, Some(&service.listing), Turn::Registered, Some(shared.life)).await?;
    }
    shared.asking.refresh().await.map(drop)
}
