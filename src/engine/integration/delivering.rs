//! The way of one event to a service: what holds it up, and what its answer changes.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

use super::Shared;
use super::breaker::{Admission, Breaker, Circuit};
use super::posting::{Outcome, Request, outcome};
use super::routing::Route;
use crate::engine::consume::Verdict;
use crate::engine::env::lock;
use crate::engine::host::{Delivery, Lifecycle};
use crate::engine::inside::Reading;
use crate::engine::name;
use crate::engine::services::service::Service;

/// Requests to one service at once, from one process.
pub(super) const AT_ONCE: usize = 8;

/// How requests to one service go, in this process.
pub(super) struct Flow {
    breaker: Mutex<Breaker>,
    /// The breaker changed, or what waits for it is to go back.
    pub(super) changed: Notify,
    /// Its owner works on it.
    pub(super) in_maintenance: AtomicBool,
    /// A subscription each pattern, and an event may match several: what is on its way is counted here.
    places: Semaphore,
    pub(super) delivered: AtomicU64,
    pub(super) failed: AtomicU64,
}

impl Default for Flow {
    fn default() -> Self {
        Self {
            breaker: Mutex::default(),
            changed: Notify::new(),
            in_maintenance: AtomicBool::new(false),
            places: Semaphore::new(AT_ONCE),
            delivered: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        }
    }
}

impl Flow {
    /// Nothing is to be read now.
    pub(super) fn is_paused(&self) -> bool {
        self.in_maintenance.load(Ordering::Acquire) || matches!(self.circuit(), Circuit::Open(_))
    }

    pub(super) fn circuit(&self) -> Circuit {
        lock(&self.breaker).circuit()
    }
}

/// Its health changed, or where it is.
pub(super) fn adjust(shared: &Shared, route: &Route, service: &Service) {
    let now = service.health.is_in_maintenance();
    if route.flow.in_maintenance.swap(now, Ordering::AcqRel) != now {
        pause(shared, route, route.flow.is_paused());
    }
}

/// There is reason to believe that it answers again.
pub(super) fn hope(shared: &Shared, name: &str) {
    let Some(route) = shared.routes.get(name) else { return };
    lock(&route.flow.breaker).hope();
    pause(shared, &route, route.flow.is_paused());
    route.flow.changed.notify_waiters();
}

pub(super) fn pause(shared: &Shared, route: &Route, paused: bool) {
    for id in &*lock(&route.readings) {
        shared.switch.pause(*id, paused);
    }
}

/// Sees to what comes for the pattern of that index until the subscription ends.
pub(super) async fn read(shared: Arc<Shared>, route: Arc<Route>, index: usize, mut reading: Reading) {
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
    let flow = &route.flow;
    let Ok(_place) = flow.places.acquire().await else { return Verdict::HandBack };
    loop {
        let changed = flow.changed.notified();
        if route.has_ended() {
            return Verdict::HandBack;
        }
        let admission = lock(&flow.breaker).admit(Instant::now());
        match admission {
            Admission::Go => break,
            Admission::No => return Verdict::HandBack,
            Admission::Wait => changed.await,
        }
    }
    // Taken out meanwhile: it is for another process, or for nobody.
    let Some(service) = shared.registry.view().get(&route.name).cloned().filter(|service| !service.health.is_in_maintenance()) else {
        lock(&flow.breaker).given_up();
        flow.changed.notify_waiters();
        return Verdict::HandBack;
    };
    let Request { headers, body } = Request::of(&delivery, &route.group);
    let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let answered = shared.http.post(&service.definition.events_url(), &headers, body, shared.timeout).await;
    let Outcome { verdict, alive } = outcome(&delivery, answered);
    let counter = if matches!(verdict, Verdict::Failed(_)) { &flow.failed } else { &flow.delivered };
    counter.fetch_add(1, Ordering::Relaxed);
    match alive {
        Some(alive) => {
            if lock(&flow.breaker).ended(alive, Instant::now()) {
                turned(shared, route);
            }
        }
        None => lock(&flow.breaker).given_up(),
    }
    flow.changed.notify_waiters();
    verdict
}

/// The circuit changed: while it is open nothing is read.
fn turned(shared: &Arc<Shared>, route: &Arc<Route>) {
    let circuit = route.flow.circuit();
    let name = &route.name;
    let text = match circuit {
        Circuit::Open(_) => format!("the service '{name}' fails again and again: events for it wait"),
        _ => format!("the service '{name}' answers again"),
    };
    shared.host.lifecycle(vec![Lifecycle::warn(text)]);
    // Another route may have taken the place of this one.
    let route = shared.routes.get(name).unwrap_or_else(|| route.clone());
    pause(shared, &route, route.flow.is_paused());
    if let Circuit::Open(until) = circuit {
        let (inner, flow, name) = (shared.clone(), Arc::downgrade(&route.flow), name.clone());
        shared.env.spawn(async move {
            tokio::time::sleep_until(until).await;
            if flow.upgrade().is_some_and(|flow| flow.circuit() == Circuit::Open(until)) {
                hope(&inner, &name);
            }
        });
    }
}
