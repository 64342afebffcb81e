//! Looking how services are, by HTTP. Whose turn it is to ask one is decided in the store, so that each is asked once an interval,
//! however many processes watch.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::Instant;

use super::health::{Probed, Status};
use super::registry::Shared;
use super::service::Service;
use crate::engine::env::lock;
use crate::engine::error::Result;
use crate::engine::http::{Answer, Failure};
use crate::engine::store::{Errand, Running, Turn};

/// Most probes at once.
const AT_ONCE_MAX: usize = 200;
/// Most of an answer, bytes.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// How long a probe is this process's beyond what its answer may take.
const BESIDE: Duration = Duration::from_secs(5);
/// Services that are known already are asked for the first time over so long, not all at once.
const SPREAD: Duration = Duration::from_secs(5);
/// How often it is looked whose turn it is, at least.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Longest pause between two looks where more is due: what falls due meanwhile is taken at once, by one command. It is a fiftieth of the
/// interval where that is shorter.
const PAUSE_MAX: Duration = Duration::from_millis(100);
/// A failure that comes so much later than it should is of this process, which stood still, and says nothing of the service.
const LATE: Duration = Duration::from_secs(1);
/// Attempts to note what was found while others change the same service.
const ATTEMPTS_MAX: usize = 10;
/// An interval is up to so much shorter or longer, as a share: what was registered together is not asked together for ever.
const JITTER: f64 = 0.1;

/// Probes until it is told to end, and not in between: what it took and did not begin would be nobody's until the lease is over. Probes
/// on their way end by themselves.
pub(super) async fn run(shared: Arc<Shared>, mut ends: oneshot::Receiver<Infallible>) {
    let places = Arc::new(Semaphore::new(AT_ONCE_MAX));
    let interval = Duration::from_millis(shared.checks.interval_ms);
    plan_all(&shared, SPREAD.min(interval)).await;
    let pause = PAUSE_MAX.min(interval / 50);
    // When those are due again whose probes are over: as many as were under way at once.
    let (ended, mut due) = mpsc::unbounded_channel();
    let mut planned_at = Instant::now();
    let (mut not_before, mut next) = (planned_at, planned_at);
    loop {
        tokio::select! {
            _ = &mut ends => return,
            () = tokio::time::sleep_until(next.max(not_before)) => {}
            () = shared.unplanned.notified() => plan_all(&shared, Duration::ZERO).await,
            Some(at) = due.recv() => {
                next = next.min(at);
                continue;
            }
        }
        // What the store forgot when it was emptied.
        if planned_at.elapsed() > interval {
            plan_all(&shared, SPREAD.min(interval)).await;
            planned_at = Instant::now();
        }
        let wait = match begin(&shared, &places, interval, &ended).await {
            Ok(next) => next.map_or(LOOK_EVERY, |ms| Duration::from_millis(ms).min(LOOK_EVERY)),
            Err(error) => {
                tracing::debug!(%error, "probes could not be begun");
                LOOK_EVERY
            }
        };
        let now = Instant::now();
        (not_before, next) = (now + pause, now + wait);
    }
}

async fn plan_all(shared: &Shared, spread: Duration) {
    let names: Vec<String> = {
        let view = lock(&shared.view).clone();
        view.services().filter(|service| service.definition.is_http()).map(|service| service.definition.name.clone()).collect()
    };
    if names.is_empty() {
        return;
    }
    if let Err(error) = shared.store.plan_errands(Errand::Probe, &names, spread).await {
        tracing::debug!(%error, "probes could not be planned");
    }
}

/// Begins what is due; answers ms until the next is. Tells `ended` when what ends meanwhile is due again.
async fn begin(
    shared: &Arc<Shared>,
    places: &Arc<Semaphore>,
    interval: Duration,
    ended: &mpsc::UnboundedSender<Instant>,
) -> Result<Option<u64>> {
    let free = places.available_permits();
    if free == 0 {
        drop(places.acquire().await);
        return Ok(Some(0));
    }
    let timeout = Duration::from_millis(shared.checks.timeout_ms);
    let (due, next_ms) = shared.store.take_errands(Errand::Probe, free, timeout + BESIDE).await?;
    for running in due {
        let Ok(place) = places.clone().try_acquire_owned() else { break };
        let shared = shared.clone();
        let (env, jitter, ended) = (shared.env.clone(), shared.env.random(), ended.clone());
        env.spawn(async move {
            if let Err(error) = probe(&shared, &running, timeout).await {
                tracing::debug!(%error, service = running.name, "what a probe found could not be noted");
            }
            let next = interval.mul_f64(1.0 - JITTER + 2.0 * JITTER * jitter);
            let _ = shared.store.end_errand(Errand::Probe, &running, Some(next)).await;
            // Nobody hears it where this process watches no longer.
            let _ = ended.send(Instant::now() + next);
            drop(place);
        });
    }
    Ok(next_ms)
}

async fn probe(shared: &Shared, running: &Running, timeout: Duration) -> Result<()> {
    let Some(service) = shared.known(&running.name).await? else { return Ok(()) };
    if !service.is_probed() {
        return Ok(());
    }
    let url = service.definition.health_url();
    let http = lock(&shared.http).clone();
    let began = Instant::now();
    let probed = found(http.get(&url, &[("accept", "application/json")], timeout, ANSWER_BYTES_MAX).await);
    if probed.found.is_err() && began.elapsed() > timeout + LATE {
        return Ok(());
    }
    for _ in 0..ATTEMPTS_MAX {
        let Some(service) = shared.known(&running.name).await? else { return Ok(()) };
        // Meanwhile it went elsewhere, or its owner works on it: this says nothing.
        if !service.is_probed() || service.definition.health_url() != url {
            return Ok(());
        }
        let now_ms = shared.store.now_ms();
        let health = service.health.at(now_ms).after(probed.clone(), shared.thresholds(), now_ms);
        if note(shared, &service, service.being(health)).await? {
            return Ok(());
        }
        shared.asking.refresh().await?;
    }
    Ok(())
}

/// Notes how a service is; answers whether it still was as it is known here.
pub(super) async fn note(shared: &Shared, before: &Service, after: Service) -> Result<bool> {
    if before.listing == after.listing {
        return Ok(true);
    }
    let turn = if before.health.status() == after.health.status() { Turn::Checked } else { Turn::Changed };
    shared.store.put_listing(&before.definition.name, Some(&before.listing), Some(&after.listing), turn, None).await
}

/// What an answer says. Any success is healthy, unless its body is a JSON object whose `status` says otherwise.
fn found(answer: std::result::Result<Answer, Failure>) -> Probed {
    let answer = match answer {
        Ok(answer) => answer,
        Err(failure) => return Probed { found: Err(failure.to_string()), took_ms: None, details: None },
    };
    let took_ms = Some((answer.took.as_secs_f64() * 1e5).round() / 100.0);
    let details: Option<Map<String, Value>> = serde_json::from_slice(&answer.body).ok();
    let said = details.as_ref().and_then(|details| details.get("status")).and_then(Value::as_str).map(str::to_ascii_lowercase);
    let found = match (answer.status, said.as_deref()) {
        (200..=299, Some("degraded" | "warn" | "warning")) => Ok(Status::Degraded),
        (200..=299, Some(said @ ("unhealthy" | "down" | "fail" | "failed" | "error"))) => Err(format!("it says that it is {said}")),
        (200..=299, _) => Ok(Status::Healthy),
        (status, _) => Err(format!("it answered with HTTP status {status}")),
    };
    Probed { found, took_ms, details: details.filter(|details| !details.is_empty()) }
}
