//! Looking how services are, by HTTP. Whose turn it is to ask one is decided in the store, so that each is asked once an interval,
//! however many processes watch.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::Instant;

use super::health::{DETAILS_BYTES_MAX, Probed, Status};
use super::service::Service;
use super::shared::Shared;
use crate::engine::env::lock;
use crate::engine::error::Result;
use crate::engine::http::{Answer, Failure};
use crate::engine::log::failed;
use crate::engine::store::{Errand, Running, Turn};

/// Most probes at once.
const AT_ONCE_MAX: usize = 200;
/// Most of them of services that did not answer the last time: those that answer are not to wait for those that do not.
const SILENT_AT_ONCE_MAX: usize = 150;
/// Most of an answer, bytes.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// How deep an answer may be nested to become details: what is written has to be read again.
const DEPTH_MAX: usize = 32;
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

/// Places for probes on their way.
struct Places {
    all: Arc<Semaphore>,
    silent: Arc<Semaphore>,
}

/// Probes until it is told to end, and not in between: what it took and did not begin would be nobody's until the lease is over. Probes
/// on their way end by themselves, or with the registry.
pub(super) async fn run(shared: Arc<Shared>, mut ends: oneshot::Receiver<Infallible>) {
    let places = Places { all: Arc::new(Semaphore::new(AT_ONCE_MAX)), silent: Arc::new(Semaphore::new(SILENT_AT_ONCE_MAX)) };
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
            () = shared.came.notified() => plan_new(&shared).await,
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
            // What is on its way is due again an interval after its end.
            Ok(next) => next.map_or(LOOK_EVERY, Duration::from_millis).min(LOOK_EVERY).min(interval),
            Err(error) => {
                failed!(error, "probes could not be begun");
                LOOK_EVERY
            }
        };
        let now = Instant::now();
        (not_before, next) = (now + pause, now + wait);
    }
}

async fn plan_all(shared: &Shared, spread: Duration) {
    let view = lock(&shared.view).clone();
    plan(shared, view.services(), spread).await;
}

/// Those alone that came or changed: there may be many others.
async fn plan_new(shared: &Shared) {
    let names = std::mem::take(&mut *lock(&shared.unplanned));
    let view = lock(&shared.view).clone();
    plan(shared, names.iter().filter_map(|name| view.get(name)), Duration::ZERO).await;
}

async fn plan(shared: &Shared, services: impl Iterator<Item = &Arc<Service>>, spread: Duration) {
    let names: Vec<String> =
        services.filter(|service| service.definition.is_http()).map(|service| service.definition.name.clone()).collect();
    if names.is_empty() {
        return;
    }
    if let Err(error) = shared.store.plan_errands(Errand::Probe, &names, spread).await {
        failed!(error, "probes could not be planned");
    }
}

/// Begins what is due; answers ms until the next is. Tells `ended` when what ends meanwhile is due again.
async fn begin(shared: &Arc<Shared>, places: &Places, interval: Duration, ended: &mpsc::UnboundedSender<Instant>) -> Result<Option<u64>> {
    let free = places.all.available_permits();
    if free == 0 {
        drop(places.all.acquire().await);
        return Ok(Some(0));
    }
    let timeout = Duration::from_millis(shared.checks.timeout_ms);
    // By this process's clock it is over no later than by the store's.
    let until = Instant::now() + timeout + BESIDE;
    let (due, next_ms) = shared.store.take_errands(Errand::Probe, free, timeout + BESIDE).await?;
    for running in due {
        let Ok(place) = places.all.clone().try_acquire_owned() else { break };
        let next = interval.mul_f64(1.0 - JITTER + 2.0 * JITTER * shared.env.random());
        let is_silent = lock(&shared.view).get(&running.name).is_some_and(|service| service.health.is_silent());
        let silent = if is_silent { places.silent.clone().try_acquire_owned().map(Some) } else { Ok(None) };
        let (inner, ended) = (shared.clone(), ended.clone());
        shared.env.spawn(async move {
            let work = async {
                // Without a place it is left out this time.
                if silent.is_ok()
                    && let Err(error) = probe(&inner, &running, timeout, until).await
                {
                    tracing::debug!(%error, service = running.name, "what a probe found could not be noted");
                }
                let _ = inner.store.end_errand(Errand::Probe, &running, Some(next)).await;
                // Nobody hears it where this process watches no longer.
                let _ = ended.send(Instant::now() + next);
            };
            tokio::select! {
                biased;
                () = inner.closed() => {}
                () = work => {}
            }
            drop((place, silent));
        });
    }
    Ok(next_ms)
}

/// `until`: as long it is this process's. What was found is worth nothing later, as another may have looked meanwhile.
async fn probe(shared: &Shared, running: &Running, timeout: Duration, until: Instant) -> Result<()> {
    let Some(service) = shared.known(&running.name).await? else { return Ok(()) };
    if !service.is_probed() || Instant::now() + timeout > until {
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
        if !service.is_probed() || service.definition.health_url() != url || Instant::now() > until {
            return Ok(());
        }
        let now_ms = shared.store.now_ms();
        let health = service.health.at(now_ms).after(probed.clone(), shared.thresholds(), now_ms);
        if note(shared, &service, service.being(health, now_ms)).await? {
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
    // Every look is noted with them, and told to all: of what is much, nothing.
    let is_little = |details: &Map<String, Value>| {
        answer.body.len() <= DETAILS_BYTES_MAX && details.values().all(|value| is_flatter_than(value, DEPTH_MAX))
    };
    Probed { found, took_ms, details: details.filter(|details| !details.is_empty() && is_little(details)) }
}

fn is_flatter_than(value: &Value, depth: usize) -> bool {
    match value {
        Value::Array(items) => depth > 0 && items.iter().all(|item| is_flatter_than(item, depth - 1)),
        Value::Object(map) => depth > 0 && map.values().all(|item| is_flatter_than(item, depth - 1)),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(status: u16, body: &str) -> Probed {
        found(Ok(Answer { status, body: body.as_bytes().to_vec(), retry_after: None, complete: true, took: Duration::from_millis(3) }))
    }

    #[test]
    fn an_answer_is_what_its_status_says_whatever_its_body_is() {
        for body in [
            "",
            "ok",
            "[1]",
            "null",
            "{",
            r#"{"status":5}"#,
            r#"{"status":["down"]}"#,
            r#"{"status":{"status":"down"}}"#,
            r#"{"status":null}"#,
            r#"{"x":1e999,"status":"down"}"#,
            r#"{"status":"down","status":"up"}"#,
            r#"{"__proto__":{"status":"down"}}"#,
            "\u{0}\u{ffff}",
        ] {
            assert_eq!(of(200, body).found, Ok(Status::Healthy), "{body}");
            assert!(of(500, body).found.is_err(), "{body}");
        }
        for body in [r#"{"status":"DOWN"}"#, r#"{"status":"up","status":"fail"}"#] {
            assert!(of(200, body).found.is_err(), "{body}");
        }
        assert_eq!(of(204, r#"{"status":"Warning"}"#).found, Ok(Status::Degraded));
    }

    #[test]
    fn details_that_are_much_are_left_out_and_all_others_can_be_read_again() {
        let nested = |depth: usize| format!(r#"{{"status":"degraded","a":{}{}}}"#, "[".repeat(depth), "]".repeat(depth));
        let thresholds = super::super::health::Thresholds { failures: 1, successes: 1 };
        for (body, has_details) in [
            (nested(DEPTH_MAX), true),
            (nested(DEPTH_MAX + 1), false),
            (nested(126), false),
            (format!(r#"{{"status":"degraded","a":"{}"}}"#, "x".repeat(DETAILS_BYTES_MAX)), false),
        ] {
            let probed = of(200, &body);
            assert_eq!((&probed.found, probed.details.is_some()), (&Ok(Status::Degraded), has_details));
            let health = super::super::health::Health::unknown(1).after(probed, thresholds, 2);
            assert_eq!(super::super::health::Health::from_text(&health.to_text()), health);
        }
        // Deeper than can be read at all.
        assert_eq!(of(200, &nested(100_000)).found, Ok(Status::Healthy));
    }
}
