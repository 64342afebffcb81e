//! The way of one event to a service: what holds it up, and what its answer changes.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::Shared;
use super::breaker::{Admission, Circuit};
use super::posting::{Outcome, Request, outcome};
use super::routing::Route;
use crate::engine::consume::Verdict;
use crate::engine::env::lock;
use crate::engine::host::{Delivery, Lifecycle};

/// There is reason to believe that it answers again.
pub(super) fn hope(shared: &Shared, name: &str) {
    let Some(route) = shared.routes.get(name) else { return };
    lock(&route.breaker).hope();
    pause(shared, &route);
    route.changed.notify_waiters();
}

/// Reads on, or not, as the route says.
pub(super) fn pause(shared: &Shared, route: &Route) {
    let readings = lock(&route.readings);
    // Under the lock: who comes last has the last word, and says how it is then.
    let paused = route.is_paused();
    for id in readings.values() {
        shared.switch.pause(*id, paused);
    }
}

pub(super) async fn read(shared: Arc<Shared>, route: Weak<Route>, mut inbox: mpsc::UnboundedReceiver<Delivery>) {
    while let Some(delivery) = inbox.recv().await {
        let Some(route) = route.upgrade() else {
            shared.switch.settle(delivery.token, Verdict::HandBack);
            continue;
        };
        let key = (delivery.partition.clone(), delivery.id);
        let mut on_their_way = lock(&route.on_their_way);
        let tokens = on_their_way.entry(key.clone()).or_default();
        tokens.push(delivery.token);
        let is_first = tokens.len() == 1;
        drop(on_their_way);
        if !is_first {
            continue;
        }
        let shared = shared.clone();
        shared.env.clone().spawn(async move {
            let verdict = deliver(&shared, &route, &delivery).await;
            let tokens = lock(&route.on_their_way).remove(&key).unwrap_or_default();
            for (i, token) in tokens.into_iter().enumerate() {
                // One answer is enough for whoever asked.
                let verdict = match &verdict {
                    Verdict::Replied(_) if i > 0 => Verdict::Done,
                    verdict => verdict.clone(),
                };
                shared.switch.settle(token, verdict);
            }
        });
    }
}

async fn deliver(shared: &Arc<Shared>, route: &Arc<Route>, delivery: &Delivery) -> Verdict {
    let Ok(_place) = route.places.acquire().await else { return Verdict::HandBack };
    let call = loop {
        let changed = route.changed.notified();
        if route.has_ended() {
            return Verdict::HandBack;
        }
        let admission = lock(&route.breaker).admit(Instant::now());
        match admission {
            Admission::Go(call) => break call,
            Admission::No => return Verdict::HandBack,
            Admission::Wait => changed.await,
        }
    };
    // Taken out meanwhile: it is for another process, or for nobody.
    let Some(service) = shared.registry.view().get(&route.name).cloned().filter(|service| !service.health.is_in_maintenance()) else {
        lock(&route.breaker).given_up(call);
        route.changed.notify_waiters();
        // Until it is looked at again: what is handed back would come again at once.
        route.withheld.store(true, Ordering::Release);
        pause(shared, route);
        return Verdict::HandBack;
    };
    let Request { headers, body } = Request::of(delivery, &route.group);
    let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let answered = shared.http.post(&service.definition.events_url(), &headers, body, shared.timeout).await;
    let Outcome { verdict, alive } = outcome(delivery, answered);
    let counter = if matches!(verdict, Verdict::Failed(_)) { &route.failed } else { &route.delivered };
    counter.fetch_add(1, Ordering::Relaxed);
    let has_turned = if let Some(alive) = alive {
        lock(&route.breaker).ended(call, alive, Instant::now())
    } else {
        lock(&route.breaker).given_up(call);
        false
    };
    if has_turned {
        turned(shared, route);
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
    pause(shared, route);
    if let Circuit::Open(until) = circuit {
        let (inner, route) = (shared.clone(), Arc::downgrade(route));
        shared.env.spawn(async move {
            tokio::time::sleep_until(until).await;
            let Some(route) = route.upgrade() else { return };
            if route.circuit() == Circuit::Open(until) {
                lock(&route.breaker).hope();
            }
            // Also where a delivery was quicker, and is the trial.
            pause(&inner, &route);
            route.changed.notify_waiters();
        });
    }
}
