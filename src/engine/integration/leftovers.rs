//! Groups that nobody is to read any more: of services that were taken out, and of patterns that they name no more.
//!
//! A group cannot be deleted while a process reads it, and the one that read it may be another. So each process that is to see to a service
//! tries until the group is gone.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use super::Shared;
use super::naming;
use super::routing::GROUP;
use crate::engine::env::lock;
use crate::engine::error::Result;

/// For so long it is tried.
const TRIED_FOR: Duration = Duration::from_secs(600);
/// Most that is remembered; what is beyond stays, and is told as groups that nobody reads are.
const MOST: usize = 100_000;

/// What is to go: a service, and the pattern, or all of it.
type Key = (String, Option<String>);

/// What is to go, with the time from which on it is not tried any more.
#[derive(Default)]
pub(super) struct Leftovers {
    keys: Mutex<BTreeMap<Key, Instant>>,
    /// It is being tried.
    busy: AtomicBool,
}

impl Leftovers {
    fn add(&self, key: Key) {
        let mut left = lock(&self.keys);
        if left.len() < MOST {
            left.insert(key, Instant::now() + TRIED_FOR);
        }
    }

    /// A service was taken out.
    pub(super) fn service(&self, name: &str) {
        self.add((name.to_owned(), None));
    }

    /// A service names a pattern no more.
    pub(super) fn pattern(&self, service: &str, pattern: &str) {
        self.add((service.to_owned(), Some(pattern.to_owned())));
    }
}

/// Deletes what can be deleted now, beside everything else: it may have to wait for others that delete the same.
pub(super) fn clear(shared: &Arc<Shared>) {
    let keys: Vec<Key> = {
        let mut left = lock(&shared.leftovers.keys);
        left.retain(|_, until| *until > Instant::now());
        left.keys().cloned().collect()
    };
    if keys.is_empty() || shared.leftovers.busy.swap(true, Ordering::AcqRel) {
        return;
    }
    let shared = shared.clone();
    shared.env.clone().spawn(async move {
        if let Err(error) = delete(&shared, keys).await {
            tracing::debug!(%error, "groups that nobody is to read stay for now");
        }
        shared.leftovers.busy.store(false, Ordering::Release);
    });
}

async fn delete(shared: &Shared, keys: Vec<Key>) -> Result<()> {
    let groups = shared.store.topology().await?.groups;
    for key in keys {
        let (name, pattern) = &key;
        let view = shared.registry.view();
        let wanted = view.get(name).filter(|service| service.definition.is_http()).map(|service| naming::patterns(&service.definition).0);
        let is_wanted = |pattern: &String| wanted.as_ref().is_some_and(|wanted| wanted.contains(pattern));
        let group = format!("{GROUP}{name}");
        let of_it = groups.iter().filter(|spec| spec.group == group && pattern.as_ref().is_none_or(|pattern| *pattern == spec.pattern));
        let mut is_left = false;
        // Registered anew, it goes on with what it names again.
        for spec in of_it.filter(|spec| !is_wanted(&spec.pattern)) {
            if let Err(error) = shared.store.delete_group(&spec.pattern, &group).await {
                is_left = true;
                tracing::debug!(%error, service = name, pattern = spec.pattern, "its group stays for now");
            }
        }
        if !is_left {
            lock(&shared.leftovers.keys).remove(&key);
        }
    }
    Ok(())
}
