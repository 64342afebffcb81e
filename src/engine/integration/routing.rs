//! Events for services: each service has a consumer group of its own, and gets by POST what its capabilities name.
//!
//! Two of the bus processes read for a service, chosen by its name among those that are there: one more than is needed, so that a death
//! holds nothing up, and not all, so that connections do not multiply.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::{Notify, Semaphore, mpsc};

use super::Shared;
use super::breaker::{Breaker, Circuit};
use super::{delivering, naming};
use crate::engine::env::lock;
use crate::engine::error::{Error, Result};
use crate::engine::host::{Lifecycle, Token};
use crate::engine::inside::Sender;
use crate::engine::options::{Start, SubscribeOptions};
use crate::engine::services::service::Service;
use crate::engine::store::{EntryId, Partition};

/// Processes that read for one service.
const READERS: usize = 2;
/// Requests to one service at once, from one process.
const AT_ONCE: usize = 8;
/// What the group of a service is called.
pub(super) const GROUP: &str = "service:";
/// Requests on their way when a subscription ends may take so much longer than they may anyway.
const BEHIND: Duration = Duration::from_secs(1);
/// Events so much older than what made them a service's may be among those that it gets, ms: clocks are known with some doubt, and better
/// one too many than one too few.
const SLACK_MS: u64 = 20;
/// Problems that are remembered, so that each is told once.
const TOLD_MAX: usize = 10_000;

/// What is read for one service.
pub(super) struct Route {
    pub(super) name: String,
    pub(super) group: String,
    /// When the service was registered, ms since 1970.
    pub(super) since_ms: u64,
    /// Patterns, each with the id of its subscription.
    pub(super) readings: Mutex<BTreeMap<String, u32>>,
    /// Where all their deliveries go.
    pub(super) deliveries: Sender,
    /// Entries that are being sent, with the deliveries of each: several patterns may match one event, which is sent once.
    pub(super) on_their_way: Mutex<HashMap<(Partition, EntryId), Vec<Token>>>,
    pub(super) places: Semaphore,
    pub(super) breaker: Mutex<Breaker>,
    /// The breaker changed.
    pub(super) changed: Notify,
    /// It ends: what is not being sent goes back.
    pub(super) ended: AtomicBool,
    /// Its owner works on it, or it is not there as far as is known: nothing is sent to it.
    pub(super) withheld: AtomicBool,
    pub(super) delivered: AtomicU64,
    pub(super) failed: AtomicU64,
}

impl Route {
    pub(super) fn is_paused(&self) -> bool {
        self.withheld.load(Ordering::Acquire) || matches!(self.circuit(), Circuit::Open(_))
    }

    pub(super) fn circuit(&self) -> Circuit {
        lock(&self.breaker).circuit()
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    pub(super) fn to_json(&self) -> Value {
        json!({
            "service": self.name,
            "group": self.group,
            "patterns": lock(&self.readings).keys().collect::<Vec<_>>(),
            "circuit": self.circuit().as_str(),
            "paused": self.is_paused(),
            "delivered": self.delivered.load(Ordering::Relaxed),
            "failed": self.failed.load(Ordering::Relaxed),
        })
    }
}

/// Since when, by pattern, ms.
type Since = BTreeMap<String, u64>;

/// What there is for all services.
#[derive(Default)]
pub(super) struct Routes {
    by_service: Mutex<BTreeMap<String, Arc<Route>>>,
    /// The bus ended.
    closed: AtomicBool,
    /// By service and pattern, also for those that other processes read for: since when events are for it, ms since 1970.
    since: Mutex<BTreeMap<String, Since>>,
    /// Problems that were told.
    told: Mutex<BTreeSet<String>>,
}

impl Routes {
    pub(super) fn all(&self) -> Vec<Arc<Route>> {
        lock(&self.by_service).values().cloned().collect()
    }

    /// Nothing is read for anybody: what is subscribed ended with the bus.
    pub(super) fn clear(&self) {
        self.closed.store(true, Ordering::Release);
        lock(&self.by_service).clear();
    }

    /// A service came, or says something else of itself. What it names is for it from then on: what was published before is none of its
    /// business.
    pub(super) fn note(&self, service: &Service) {
        let definition = &service.definition;
        let mut since = lock(&self.since);
        // Registered anew it is another one.
        let before = since.remove(&definition.name).filter(|_| definition.registered_at_ms < definition.updated_at_ms).unwrap_or_default();
        let (patterns, _) = naming::patterns(definition);
        let now = patterns.into_iter().map(|pattern| {
            let at = before.get(&pattern).copied().unwrap_or(definition.updated_at_ms);
            (pattern, at)
        });
        since.insert(definition.name.clone(), now.collect());
    }

    /// Since when events are for a service: since its registration, where this process did not see it come.
    fn since(&self, service: &Service) -> Since {
        let definition = &service.definition;
        let all = || naming::patterns(definition).0.into_iter().map(|pattern| (pattern, definition.registered_at_ms)).collect();
        lock(&self.since).entry(definition.name.clone()).or_insert_with(all).clone()
    }

    fn forget(&self, is_there: impl Fn(&str) -> bool) {
        lock(&self.since).retain(|name, _| is_there(name));
    }

    /// Whether some are on their way out.
    pub(super) fn are_ending(&self) -> bool {
        lock(&self.by_service).values().any(|route| route.has_ended())
    }

    pub(super) fn get(&self, name: &str) -> Option<Arc<Route>> {
        lock(&self.by_service).get(name).cloned()
    }

    /// Forgets a route, unless another one took its place.
    fn remove(&self, route: &Arc<Route>) {
        let mut routes = lock(&self.by_service);
        if routes.get(&route.name).is_some_and(|found| Arc::ptr_eq(found, route)) {
            routes.remove(&route.name);
        }
    }
}

/// Whether this process is one of those that see to a service: of all that are there, those with the highest hash of both names.
pub(super) fn is_ours(service: &str, instance: &str, instances: &[String]) -> bool {
    let weight = |one: &str| {
        let digest = ring::digest::digest(&ring::digest::SHA256, format!("{service} {one}").as_bytes());
        digest.as_ref().first_chunk::<8>().map_or(0, |head| u64::from_be_bytes(*head))
    };
    let ours = weight(instance);
    instances.iter().filter(|one| *one != instance && weight(one) > ours).count() < READERS
}

/// Makes what is read for services as it has to be. Where one cannot be read for, the others are seen to all the same.
pub(super) async fn reconcile(shared: &Arc<Shared>, instances: &[String]) -> Result<()> {
    let view = shared.registry.view();
    shared.routes.forget(|name| view.get(name).is_some());
    let mut wanted: BTreeMap<String, (Arc<Service>, Vec<String>)> = BTreeMap::new();
    for service in view.services().filter(|service| service.definition.is_http()) {
        // Also of those that other processes read for now.
        shared.routes.since(service);
        let (patterns, problems) = naming::patterns(&service.definition);
        for problem in problems {
            warn_once(shared, &service.definition.name, &problem);
        }
        if patterns.is_empty() || !is_ours(&service.definition.name, &shared.instance, instances) {
            continue;
        }
        if let Err(failure) = shared.http.check(&service.definition.events_url()) {
            warn_once(shared, &service.definition.name, &format!("gets no events: {failure}"));
            continue;
        }
        wanted.insert(service.definition.name.clone(), (service.clone(), patterns));
    }
    for route in shared.routes.all() {
        // One that was taken out and registered anew begins anew, once the old one is done.
        let is_wanted = wanted.get(&route.name).is_some_and(|(service, _)| service.definition.registered_at_ms == route.since_ms);
        if !is_wanted && !route.ended.swap(true, Ordering::AcqRel) {
            shared.env.spawn(end(shared.clone(), route));
        }
    }
    let mut result = Ok(());
    for (name, (service, patterns)) in wanted {
        let route = shared.routes.get(&name);
        // The store is away: it would be for the others, too, and each would take its time.
        let is_away = result.as_ref().is_err_and(|error: &Error| error.retryable);
        if is_away || route.as_ref().is_some_and(|route| route.has_ended()) {
            continue;
        }
        let route = route.unwrap_or_else(|| begin(shared, &service));
        let adjusted = adjust(shared, &route, &service, patterns).await;
        result = result.and(adjusted);
    }
    result
}

/// Nothing is read for any service from now on; what waits for them stays.
pub(super) fn end_all(shared: &Arc<Shared>) {
    for route in shared.routes.all() {
        if !route.ended.swap(true, Ordering::AcqRel) {
            shared.env.spawn(end(shared.clone(), route));
        }
    }
}

fn warn_once(shared: &Shared, service: &str, problem: &str) {
    let text = format!("the service '{service}' {problem}");
    let mut told = lock(&shared.routes.told);
    if told.len() < TOLD_MAX && told.insert(text.clone()) {
        shared.host.lifecycle(vec![Lifecycle::warn(text)]);
    }
}

/// A route that nothing is read for yet.
fn begin(shared: &Arc<Shared>, service: &Service) -> Arc<Route> {
    let name = service.definition.name.clone();
    let (deliveries, inbox) = mpsc::unbounded_channel();
    let route = Arc::new(Route {
        group: format!("{GROUP}{name}"),
        since_ms: service.definition.registered_at_ms,
        readings: Mutex::default(),
        deliveries,
        on_their_way: Mutex::default(),
        places: Semaphore::new(AT_ONCE),
        breaker: Mutex::default(),
        changed: Notify::new(),
        ended: AtomicBool::new(false),
        withheld: service.health.is_in_maintenance().into(),
        delivered: AtomicU64::new(0),
        failed: AtomicU64::new(0),
        name: name.clone(),
    });
    shared.env.spawn(delivering::read(shared.clone(), Arc::downgrade(&route), inbox));
    if !shared.routes.closed.load(Ordering::Acquire) {
        lock(&shared.routes.by_service).insert(name, route.clone());
    }
    route
}

/// Makes a route as the service wants it: subscriptions to patterns that stay are left alone.
async fn adjust(shared: &Arc<Shared>, route: &Arc<Route>, service: &Service, patterns: Vec<String>) -> Result<()> {
    route.withheld.store(service.health.is_in_maintenance(), Ordering::Release);
    let known: Vec<String> = lock(&route.readings).keys().cloned().collect();
    let since = shared.routes.since(service);
    for pattern in patterns.iter().filter(|pattern| !known.contains(pattern)) {
        let options = SubscribeOptions {
            group: Some(route.group.clone()),
            start: Start::Since(since.get(pattern).copied().unwrap_or(route.since_ms).saturating_sub(SLACK_MS)),
            auto_ack: true,
            concurrency: Some(AT_ONCE),
            ..SubscribeOptions::default()
        };
        let id = shared.switch.subscribe(pattern, options, route.deliveries.clone()).await?;
        lock(&route.readings).insert(pattern.clone(), id);
    }
    // Also where it should be so already.
    delivering::pause(shared, route);
    for pattern in known.into_iter().filter(|pattern| !patterns.contains(pattern)) {
        let Some(id) = lock(&route.readings).remove(&pattern) else { continue };
        shared.leftovers.pattern(&route.name, &pattern);
        let shared = shared.clone();
        shared.env.clone().spawn(async move {
            if let Err(error) = shared.switch.unsubscribe(id, shared.timeout + BEHIND).await {
                tracing::debug!(%error, pattern, "a subscription could not be ended");
            }
        });
    }
    Ok(())
}

async fn end(shared: Arc<Shared>, route: Arc<Route>) {
    // Those that wait for the circuit or a place go back.
    route.changed.notify_waiters();
    route.places.close();
    let readings = std::mem::take(&mut *lock(&route.readings));
    let ends = readings.into_values().map(|id| shared.switch.unsubscribe(id, shared.timeout + BEHIND));
    for ended in futures_util::future::join_all(ends).await {
        if let Err(error) = ended {
            tracing::debug!(%error, service = route.name, "a subscription could not be ended");
        }
    }
    shared.routes.remove(&route);
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
