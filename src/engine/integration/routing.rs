//! Events for services: each service has a consumer group of its own, and gets by POST what its capabilities name.
//!
//! Two of the bus processes read for a service, chosen by its name among those that are there: one more than is needed, so that a death
//! holds nothing up, and not all, so that connections do not multiply.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use super::Shared;
use super::delivering::{self, Flow};
use super::naming;
use crate::engine::env::lock;
use crate::engine::error::Result;
use crate::engine::host::Lifecycle;
use crate::engine::options::{Start, SubscribeOptions};
use crate::engine::services::service::Service;
use crate::engine::services::view::View;

/// Processes that read for one service.
const READERS: usize = 2;
/// What the group of a service is called.
const GROUP: &str = "service:";
/// Requests on their way when a subscription ends may take so much longer than they may anyway.
const BEHIND: Duration = Duration::from_secs(1);
/// How often, and how many times, a group that is for nobody any more is deleted until it is gone: others may still read it.
const FORGET: (Duration, usize) = (Duration::from_secs(1), 120);
/// Problems that are remembered, so that each is told once.
const TOLD_MAX: usize = 10_000;

/// What is read for one service.
pub(super) struct Route {
    pub(super) name: String,
    pub(super) group: String,
    /// Sorted. An event that several match is for the first of them.
    pub(super) patterns: Vec<String>,
    /// Ids of the subscriptions, one a pattern.
    pub(super) readings: Mutex<Vec<u32>>,
    /// How it goes; the next route of the service goes on with it.
    pub(super) flow: Arc<Flow>,
}

impl Route {
    fn to_json(&self) -> Value {
        json!({
            "service": self.name,
            "group": self.group,
            "patterns": self.patterns,
            "circuit": self.flow.circuit().as_str(),
            "paused": self.flow.is_paused(),
            "delivered": self.flow.delivered.load(Ordering::Relaxed),
            "failed": self.flow.failed.load(Ordering::Relaxed),
        })
    }

    /// Nothing is read any more.
    pub(super) fn has_ended(&self) -> bool {
        lock(&self.readings).is_empty()
    }
}

/// What a service names, and since when: ms by pattern.
type Named = BTreeMap<String, u64>;

/// What there is for all services.
#[derive(Default)]
pub(super) struct Routes {
    by_service: Mutex<BTreeMap<String, Arc<Route>>>,
    /// By service: also of those that other processes read for.
    named: Mutex<BTreeMap<String, Named>>,
    /// Problems that were told, each once.
    told: Mutex<BTreeSet<String>>,
}

impl Routes {
    pub(super) fn to_json(&self) -> Value {
        lock(&self.by_service).values().map(|route| route.to_json()).collect()
    }

    fn all(&self) -> Vec<Arc<Route>> {
        lock(&self.by_service).values().cloned().collect()
    }

    pub(super) fn get(&self, name: &str) -> Option<Arc<Route>> {
        lock(&self.by_service).get(name).cloned()
    }

    /// Notes what a service names now. Answers since when each: what it named when this process first saw it, since it is registered; what
    /// came later, since then. Answers also what it names no more.
    fn note(&self, service: &Service, patterns: &[String]) -> (Named, Vec<String>) {
        let definition = &service.definition;
        let mut named = lock(&self.named);
        let before = named.get(&definition.name);
        let since = |pattern: &String| match before {
            Some(before) => before.get(pattern).copied().unwrap_or(definition.updated_at_ms).max(definition.registered_at_ms),
            None => definition.registered_at_ms,
        };
        let now: Named = patterns.iter().map(|pattern| (pattern.clone(), since(pattern))).collect();
        let left = before.into_iter().flat_map(BTreeMap::keys).filter(|pattern| !now.contains_key(*pattern)).cloned().collect();
        named.insert(definition.name.clone(), now.clone());
        (now, left)
    }
}

/// Whether this process is one of those that read for a service: of all that are there, those with the highest hash of both names.
fn is_ours(service: &str, instance: &str, instances: &[String]) -> bool {
    let weight = |one: &str| {
        let digest = ring::digest::digest(&ring::digest::SHA256, format!("{service} {one}").as_bytes());
        digest.as_ref().first_chunk::<8>().map_or(0, |head| u64::from_be_bytes(*head))
    };
    let ours = weight(instance);
    instances.iter().filter(|one| *one != instance && weight(one) > ours).count() < READERS
}

/// What a service that was taken out was to get is for nobody: its group ends. One that expired may come back, and finds what was
/// published meanwhile.
pub(super) fn forget_all_of(shared: &Arc<Shared>, gone: &Service) {
    lock(&shared.routes.named).remove(&gone.definition.name);
    let (patterns, _) = naming::patterns(&gone.definition);
    shared.env.spawn(forget(shared.clone(), gone.definition.name.clone(), patterns));
}

/// Makes what is read for services as it has to be. Of one for which that cannot be done now the others do not suffer: the first error is
/// answered, and the next call tries again.
pub(super) async fn reconcile(shared: &Arc<Shared>, instances: &[String]) -> Result<()> {
    let view = shared.registry.view();
    let wanted = wanted(shared, &view, instances);
    for route in shared.routes.all() {
        if wanted.get(&route.name).is_none_or(|(_, named)| !named.keys().eq(&route.patterns)) {
            lock(&shared.routes.by_service).remove(&route.name);
            shared.env.spawn(end(shared.clone(), route));
        }
    }
    let mut result = Ok(());
    for (name, (service, named)) in wanted {
        if let Some(route) = shared.routes.get(&name) {
            delivering::adjust(shared, &route, &service);
        } else {
            let begun = begin(shared, &service, named).await;
            result = result.and(begun);
        }
    }
    result
}

/// The services that this process reads for, each with what it names.
fn wanted(shared: &Arc<Shared>, view: &View, instances: &[String]) -> BTreeMap<String, (Arc<Service>, Named)> {
    let mut wanted = BTreeMap::new();
    lock(&shared.routes.named).retain(|name, _| view.get(name).is_some());
    lock(&shared.flows).retain(|name, _| view.get(name).is_some());
    for service in view.services().filter(|service| service.definition.is_http()) {
        let name = &service.definition.name;
        let (patterns, problems) = naming::patterns(&service.definition);
        for problem in problems {
            warn_once(shared, name, &problem);
        }
        let (named, left) = shared.routes.note(service, &patterns);
        if !left.is_empty() {
            shared.env.spawn(forget(shared.clone(), name.clone(), left));
        }
        if patterns.is_empty() || !is_ours(name, &shared.instance, instances) {
            continue;
        }
        if let Err(failure) = shared.http.check(&service.definition.events_url()) {
            warn_once(shared, name, &format!("gets no events: {failure}"));
            continue;
        }
        wanted.insert(name.clone(), (service.clone(), named));
    }
    wanted
}

fn warn_once(shared: &Shared, service: &str, problem: &str) {
    let text = format!("the service '{service}' {problem}");
    let mut told = lock(&shared.routes.told);
    if told.len() < TOLD_MAX && told.insert(text.clone()) {
        shared.host.lifecycle(vec![Lifecycle::warn(text)]);
    }
}

async fn begin(shared: &Arc<Shared>, service: &Service, named: Named) -> Result<()> {
    let name = service.definition.name.clone();
    let flow = lock(&shared.flows).entry(name.clone()).or_default().clone();
    flow.in_maintenance.store(service.health.is_in_maintenance(), Ordering::Release);
    let route = Arc::new(Route {
        group: format!("{GROUP}{name}"),
        patterns: named.keys().cloned().collect(),
        readings: Mutex::default(),
        flow,
        name: name.clone(),
    });
    for (i, (pattern, since_ms)) in named.iter().enumerate() {
        let options = SubscribeOptions {
            group: Some(route.group.clone()),
            // What was published before it was there is none of its business.
            start: Start::Since(*since_ms),
            auto_ack: true,
            concurrency: Some(delivering::AT_ONCE),
            ..SubscribeOptions::default()
        };
        match shared.switch.subscribe(pattern, options).await {
            Ok(reading) => {
                lock(&route.readings).push(reading.id);
                shared.env.spawn(delivering::read(shared.clone(), route.clone(), i, reading));
            }
            Err(error) => {
                shared.env.spawn(end(shared.clone(), route));
                return Err(error);
            }
        }
    }
    if route.flow.is_paused() {
        delivering::pause(shared, &route, true);
    }
    lock(&shared.routes.by_service).insert(name, route);
    Ok(())
}

/// Ends what is read.
async fn end(shared: Arc<Shared>, route: Arc<Route>) {
    let readings = std::mem::take(&mut *lock(&route.readings));
    // Those that wait for the circuit go back.
    route.flow.changed.notify_waiters();
    let all = readings.into_iter().map(|id| shared.switch.unsubscribe(id, shared.timeout + BEHIND));
    for ended in futures_util::future::join_all(all).await {
        if let Err(error) = ended {
            tracing::debug!(%error, service = route.name, "a subscription could not be ended");
        }
    }
}

/// Deletes the group of a service on these patterns, unless it names them again. That is refused while others still read: it is tried until
/// the last of them ended.
async fn forget(shared: Arc<Shared>, name: String, mut patterns: Vec<String>) {
    let group = format!("{GROUP}{name}");
    for _ in 0..FORGET.1 {
        let named = lock(&shared.routes.named).get(&name).cloned().unwrap_or_default();
        patterns.retain(|pattern| !named.contains_key(pattern));
        let mut left = Vec::new();
        for pattern in patterns {
            if let Err(error) = shared.store.delete_group(&pattern, &group).await {
                tracing::debug!(%error, service = name, pattern, "its group stays for now");
                left.push(pattern);
            }
        }
        if left.is_empty() {
            return;
        }
        patterns = left;
        tokio::time::sleep(FORGET.0).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_of_the_processes_read_for_a_service_and_each_for_its_share() {
        let instances: Vec<String> = (0..6).map(|n| format!("instance{n}")).collect();
        let mut share = vec![0; instances.len()];
        for n in 0..600 {
            let service = format!("service{n}");
            let ours: Vec<usize> = (0..instances.len()).filter(|i| is_ours(&service, &instances[*i], &instances)).collect();
            assert_eq!(ours.len(), READERS);
            for i in ours {
                share[i] += 1;
            }
        }
        assert!(share.iter().all(|count| (140..260).contains(count)), "{share:?}");
    }

    #[test]
    fn one_that_goes_is_replaced_and_the_others_stay() {
        let instances: Vec<String> = (0..6).map(|n| format!("instance{n}")).collect();
        for n in 0..100 {
            let service = format!("service{n}");
            let of = |instances: &[String]| -> Vec<String> {
                instances.iter().filter(|one| is_ours(&service, one, instances)).cloned().collect()
            };
            let (before, after) = (of(&instances), of(&instances[1..]));
            assert!(before.iter().filter(|one| **one != instances[0]).all(|one| after.contains(one)));
        }
        assert!(is_ours("s", "alone", &["alone".to_owned()]) && is_ours("s", "alone", &[]));
    }
}
