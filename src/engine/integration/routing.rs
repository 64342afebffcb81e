//! Events for services: each service has a consumer group of its own, and gets by POST what its capabilities name.
//!
//! Two of the bus processes read for a service, chosen by its name among those that are there: one more than is needed, so that a death
//! holds nothing up, and not all, so that connections do not multiply.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::Shared;
use super::breaker::{Admission, Breaker, Circuit};
use super::naming;
use super::posting::{Outcome, Request, outcome};
use crate::engine::consume::Verdict;
use crate::engine::env::lock;
use crate::engine::error::{Error, Result};
use crate::engine::host::{Delivery, Lifecycle};
use crate::engine::inside::Reading;
use crate::engine::name;
use crate::engine::options::{Start, SubscribeOptions};
use crate::engine::services::service::Service;

/// Processes that read for one service.
const READERS: usize = 2;
/// Requests to one service at once, from one process.
const AT_ONCE: usize = 8;
/// What the group of a service is called.
const GROUP: &str = "service:";
/// How long requests on their way may take when a subscription ends.
const DRAIN: Duration = Duration::from_secs(5);

/// What is read for one service.
pub(super) struct Route {
    name: String,
    group: String,
    /// Sorted. An event that several match is for the first of them.
    patterns: Vec<String>,
    /// Ids of the subscriptions, one a pattern.
    readings: Mutex<Vec<u32>>,
    breaker: Mutex<Breaker>,
    /// The breaker changed.
    changed: Notify,
    /// Its owner works on it, or it is not there as far as is known: nothing is sent to it.
    withheld: AtomicBool,
    delivered: AtomicU64,
    failed: AtomicU64,
}

impl Route {
    fn is_paused(&self) -> bool {
        self.withheld.load(Ordering::Acquire) || matches!(lock(&self.breaker).circuit(), Circuit::Open(_))
    }

    pub(super) fn circuit(&self) -> Circuit {
        lock(&self.breaker).circuit()
    }

    pub(super) fn to_json(&self) -> Value {
        json!({
            "service": self.name,
            "group": self.group,
            "patterns": self.patterns,
            "circuit": self.circuit().as_str(),
            "paused": self.is_paused(),
            "delivered": self.delivered.load(Ordering::Relaxed),
            "failed": self.failed.load(Ordering::Relaxed),
        })
    }
}

/// What there is for all services.
#[derive(Default)]
pub(super) struct Routes {
    by_service: Mutex<BTreeMap<String, Arc<Route>>>,
    /// Problems that were told, each once.
    told: Mutex<BTreeSet<String>>,
}

impl Routes {
    pub(super) fn all(&self) -> Vec<Arc<Route>> {
        lock(&self.by_service).values().cloned().collect()
    }

    fn get(&self, name: &str) -> Option<Arc<Route>> {
        lock(&self.by_service).get(name).cloned()
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

/// Makes what is read for services as it has to be. A service that was taken out has its group deleted; one that expired may come back,
/// and finds what was published meanwhile.
pub(super) async fn reconcile(shared: &Arc<Shared>, instances: &[String], gone: &[Arc<Service>]) -> Result<()> {
    let view = shared.registry.view();
    let mut wanted: BTreeMap<String, (Arc<Service>, Vec<String>)> = BTreeMap::new();
    for service in view.services().filter(|service| service.definition.is_http()) {
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
        let patterns = wanted.get(&route.name).map(|(_, patterns)| patterns);
        if patterns != Some(&route.patterns) {
            lock(&shared.routes.by_service).remove(&route.name);
            // What waits for a service that was taken out is for nobody, nor what it names no more.
            let is_gone = gone.iter().any(|service| service.definition.name == route.name) && view.get(&route.name).is_none();
            let left = |pattern: &&String| is_gone || patterns.is_some_and(|patterns| !patterns.contains(pattern));
            let forgotten = route.patterns.iter().filter(left).cloned().collect();
            shared.env.spawn(end(shared.clone(), route, forgotten));
        }
    }
    let mut result = Ok(());
    for (name, (service, patterns)) in wanted {
        match shared.routes.get(&name) {
            Some(route) => adjust(shared, &route, &service),
            // The store is away: it would be for the others, too, and each would take its time.
            None if result.as_ref().is_err_and(|error: &Error| error.retryable) => {}
            None => {
                let begun = begin(shared, &service, patterns).await;
                result = result.and(begun);
            }
        }
    }
    result
}

/// Nothing is read for any service from now on; what waits for them stays.
pub(super) fn end_all(shared: &Arc<Shared>) {
    for route in std::mem::take(&mut *lock(&shared.routes.by_service)).into_values() {
        shared.env.spawn(end(shared.clone(), route, Vec::new()));
    }
}

fn warn_once(shared: &Shared, service: &str, problem: &str) {
    let text = format!("the service '{service}' {problem}");
    let mut told = lock(&shared.routes.told);
    if told.len() < 10_000 && told.insert(text.clone()) {
        shared.host.lifecycle(vec![Lifecycle::warn(text)]);
    }
}

async fn begin(shared: &Arc<Shared>, service: &Service, patterns: Vec<String>) -> Result<()> {
    let name = service.definition.name.clone();
    let route = Arc::new(Route {
        group: format!("{GROUP}{name}"),
        patterns,
        readings: Mutex::default(),
        breaker: Mutex::default(),
        changed: Notify::new(),
        withheld: service.health.is_in_maintenance().into(),
        delivered: AtomicU64::new(0),
        failed: AtomicU64::new(0),
        name: name.clone(),
    });
    for (i, pattern) in route.patterns.iter().enumerate() {
        let options = SubscribeOptions {
            group: Some(route.group.clone()),
            // What was published before it was there is none of its business.
            start: Start::Time(service.definition.registered_at_ms),
            auto_ack: true,
            concurrency: Some(AT_ONCE),
            ..SubscribeOptions::default()
        };
        match shared.switch.subscribe(pattern, options).await {
            Ok(reading) => {
                lock(&route.readings).push(reading.id);
                shared.env.spawn(read(shared.clone(), route.clone(), i, reading));
            }
            Err(error) => {
                end(shared.clone(), route, Vec::new()).await;
                return Err(error);
            }
        }
    }
    if route.is_paused() {
        pause(shared, &route, true);
    }
    lock(&shared.routes.by_service).insert(name, route);
    Ok(())
}

/// Ends what is read, and deletes the group of those patterns. That is refused while other processes still read, of which the last one
/// does it.
async fn end(shared: Arc<Shared>, route: Arc<Route>, forgotten: Vec<String>) {
    let readings = std::mem::take(&mut *lock(&route.readings));
    // Those that wait for the circuit go back.
    route.changed.notify_waiters();
    for id in readings {
        if let Err(error) = shared.switch.unsubscribe(id, DRAIN).await {
            tracing::debug!(%error, service = route.name, "a subscription could not be ended");
        }
    }
    for pattern in forgotten {
        if let Err(error) = shared.store.delete_group(&pattern, &route.group).await {
            tracing::debug!(%error, service = route.name, pattern, "its group stays for now");
        }
    }
}

/// Its health changed, or where it is.
fn adjust(shared: &Shared, route: &Route, service: &Service) {
    let now = service.health.is_in_maintenance();
    if route.withheld.swap(now, Ordering::AcqRel) != now {
        pause(shared, route, route.is_paused());
    }
}

/// There is reason to believe that it answers again.
pub(super) fn hope(shared: &Shared, name: &str) {
    let Some(route) = shared.routes.get(name) else { return };
    lock(&route.breaker).hope();
    pause(shared, &route, route.is_paused());
    route.changed.notify_waiters();
}

fn pause(shared: &Shared, route: &Route, paused: bool) {
    for id in &*lock(&route.readings) {
        shared.switch.pause(*id, paused);
    }
}

async fn read(shared: Arc<Shared>, route: Arc<Route>, index: usize, mut reading: Reading) {
    while let Some(delivery) = reading.deliveries.recv().await {
        let is_first = !route.patterns[..index].iter().any(|pattern| name::matches(pattern, &delivery.partition.event_type));
        if is_first {
            let (inner, route) = (shared.clone(), route.clone());
            shared.env.spawn(async move {
                let token = delivery.token;
                let verdict = deliver(&inner, &route, delivery).await;
                inner.switch.settle(token, verdict);
            });
        } else {
            shared.switch.settle(delivery.token, Verdict::Done);
        }
    }
}

async fn deliver(shared: &Arc<Shared>, route: &Arc<Route>, delivery: Delivery) -> Verdict {
    loop {
        let changed = route.changed.notified();
        let admission = lock(&route.breaker).admit(Instant::now());
        match admission {
            Admission::Go => break,
            Admission::No => return Verdict::HandBack,
            Admission::Wait if lock(&route.readings).is_empty() => return Verdict::HandBack,
            Admission::Wait => changed.await,
        }
    }
    // Taken out meanwhile: it is for another process, or for nobody.
    let Some(service) = shared.registry.view().get(&route.name).cloned().filter(|service| !service.health.is_in_maintenance()) else {
        lock(&route.breaker).given_up();
        route.changed.notify_waiters();
        // Until it is looked at again: what is handed back would come again at once.
        route.withheld.store(true, Ordering::Release);
        pause(shared, route, true);
        return Verdict::HandBack;
    };
    let Request { headers, body } = Request::of(&delivery, &route.group);
    let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let answered = shared.http.post(&service.definition.events_url(), &headers, body, shared.timeout).await;
    let Outcome { verdict, alive } = outcome(&delivery, answered);
    let counter = if matches!(verdict, Verdict::Failed(_)) { &route.failed } else { &route.delivered };
    counter.fetch_add(1, Ordering::Relaxed);
    match alive {
        Some(alive) => {
            if lock(&route.breaker).ended(alive, Instant::now()) {
                turned(shared, route);
            }
        }
        None => lock(&route.breaker).given_up(),
    }
    route.changed.notify_waiters();
    verdict
}

/// The circuit changed: while it is open nothing is read.
fn turned(shared: &Arc<Shared>, route: &Arc<Route>) {
    let circuit = route.circuit();
    let name = &route.name;
    let text = match circuit {
        Circuit::Open(_) => format!("the service '{name}' fails again and again: events for it wait"),
        _ => format!("the service '{name}' answers again"),
    };
    shared.host.lifecycle(vec![Lifecycle::warn(text)]);
    pause(shared, route, route.is_paused());
    if let Circuit::Open(until) = circuit {
        let (inner, route) = (shared.clone(), Arc::downgrade(route));
        shared.env.spawn(async move {
            tokio::time::sleep_until(until).await;
            if let Some(route) = route.upgrade()
                && route.circuit() == Circuit::Open(until)
            {
                hope(&inner, &route.name);
            }
        });
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
