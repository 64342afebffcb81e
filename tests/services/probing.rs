//! Looking how services are, where they answer late, not at all, or with what they should not.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ossa::engine::env::Env;
use ossa::engine::host::Kind;
use ossa::engine::services::Watcher;
use ossa::engine::store::Errand;
use serde_json::json;
use tokio::sync::watch;

use crate::desk::{Desk, Still, breathe, desk_over, service_at, turn, turn_until, until};
use crate::machine::{Clock, SimMachine};
use crate::support::harness::Place;
use crate::web::{Server, answer, fine, request};

const STEP: Duration = Duration::from_millis(50);

/// Answers when it is told so, with what it is told.
struct Held {
    server: Server,
    asked: Arc<AtomicUsize>,
    answer: watch::Sender<Option<String>>,
}

impl Held {
    async fn start() -> Self {
        let (asked, answer) = (Arc::new(AtomicUsize::new(0)), watch::channel(None::<String>).0);
        let (counted, held) = (asked.clone(), answer.clone());
        let server = Server::raw(move |mut stream| {
            let (counted, mut held) = (counted.clone(), held.subscribe());
            async move {
                while request(&mut stream).await.is_some() {
                    counted.fetch_add(1, Ordering::SeqCst);
                    let text = held.wait_for(Option::is_some).await.expect("it lives").clone().expect("some");
                    if tokio::io::AsyncWriteExt::write_all(&mut stream, text.as_bytes()).await.is_err() {
                        return;
                    }
                }
            }
        })
        .await;
        Self { server, asked, answer }
    }

    async fn is_asked(&self, times: usize) {
        turn_until("it is asked", STEP, async || self.asked.load(Ordering::SeqCst) >= times).await;
    }

    fn say(&self, text: String) {
        self.answer.send_replace(Some(text));
    }
}

async fn watching(desk: &Desk) {
    desk.registry.watch(Watcher::Program).await.expect("watched");
}

#[tokio::test(start_paused = true)]
async fn what_a_probe_finds_says_nothing_of_a_service_that_went_elsewhere_meanwhile() {
    let _still = Still::new();
    let (place, held) = (Place::new(1), Held::start().await);
    let other = Server::answering(|_| fine("{}")).await;
    let desk = place.desk_with(&json!({ "healthCheck": { "failureThreshold": 1, "intervalMs": 600_000 } }));
    watching(&desk).await;
    desk.register_as(service_at("one", &held.server.url(""))).await;
    held.is_asked(1).await;
    desk.registry.update("one", json!({ "endpoint": other.url("") })).await.expect("updated");
    held.say(answer("500 No", &[], ""));
    turn(Duration::from_secs(1), STEP).await;
    assert_eq!(desk.status_of("one").as_deref(), Some("unknown"));
}

#[tokio::test(start_paused = true)]
async fn what_a_probe_finds_ends_no_maintenance_that_began_meanwhile() {
    let _still = Still::new();
    let (place, held) = (Place::new(1), Held::start().await);
    let desk = place.desk_with(&json!({ "healthCheck": { "intervalMs": 1000 } }));
    watching(&desk).await;
    desk.register_as(service_at("one", &held.server.url(""))).await;
    held.is_asked(1).await;
    desk.registry.update("one", json!({ "health": { "status": "maintenance" } })).await.expect("updated");
    held.say(fine("{}"));
    turn(Duration::from_secs(10), STEP).await;
    assert_eq!((desk.status_of("one").as_deref(), held.asked.load(Ordering::SeqCst)), (Some("maintenance"), 1));
    desk.registry.update("one", json!({ "health": { "status": "healthy" } })).await.expect("updated");
    held.is_asked(2).await;
}

/// A process that stood still with an answer in its hands: another has looked since.
#[tokio::test(start_paused = true)]
async fn what_was_found_long_ago_does_not_count_against_what_was_found_since() {
    let _still = Still::new();
    let (place, held) = (Place::new(1), Held::start().await);
    let machine = SimMachine::new(Clock::start(), 0);
    let checks = json!({ "healthCheck": { "intervalMs": 1000, "failureThreshold": 1 } });
    let (slow, quick) = (desk_over(place.store(), Env::on(machine.clone(), 7), &checks), place.desk_with(&checks));
    watching(&slow).await;
    slow.register_as(service_at("one", &held.server.url(""))).await;
    held.is_asked(1).await;
    machine.freeze();
    held.say(fine(r#"{"status":"degraded"}"#));
    breathe().await;
    held.say(fine("{}"));
    watching(&quick).await;
    turn_until("another looks", STEP, async || quick.status_of("one").as_deref() == Some("healthy")).await;
    let before = quick.story();
    quick.registry.unwatch(Watcher::Program);
    turn(Duration::from_secs(20), STEP * 10).await;
    machine.thaw();
    turn(Duration::from_secs(5), STEP).await;
    assert_eq!(quick.status_of("one").as_deref(), Some("healthy"));
    assert_eq!(quick.story(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn probes_of_one_service_never_overlap_however_many_watch() {
    let place = Place::new(1);
    let (now, most, all) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (on_way, peak, count) = (now.clone(), most.clone(), all.clone());
    let server = Server::raw(move |mut stream| {
        let (now, most, all) = (now.clone(), most.clone(), all.clone());
        async move {
            while request(&mut stream).await.is_some() {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                all.fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(15)).await;
                now.fetch_sub(1, Ordering::SeqCst);
                if tokio::io::AsyncWriteExt::write_all(&mut stream, fine("{}").as_bytes()).await.is_err() {
                    return;
                }
            }
        }
    })
    .await;
    let desks: Vec<Desk> = (0..4).map(|_| place.desk_with(&json!({ "healthCheck": { "intervalMs": 10 } }))).collect();
    for desk in &desks {
        watching(desk).await;
        desk.register_as(service_at("one", &server.url(""))).await;
    }
    until("it was looked at often", async || count.load(Ordering::SeqCst) >= 50).await;
    assert_eq!(peak.load(Ordering::SeqCst), 1);
    drop(on_way);
}

/// Half again as many as there are places do not answer at all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_that_do_not_answer_hold_up_none_that_do() {
    let place = Place::new(1);
    let silent = Server::raw(|mut stream| async move {
        let mut all = Vec::new();
        let _ = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut all).await;
    })
    .await;
    let times: Arc<Mutex<Vec<(String, Instant)>>> = Arc::default();
    let seen = times.clone();
    let good = Server::answering(move |request| {
        let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
        seen.lock().unwrap().push((path, Instant::now()));
        fine("{}")
    })
    .await;
    let checks = json!({ "healthCheck": { "intervalMs": 500, "timeoutMs": 1500, "failureThreshold": 1 } });
    let desk = place.desk_with(&checks);
    watching(&desk).await;
    for n in 0..400 {
        let endpoint = if n % 4 == 0 { good.url(&format!("/{n}")) } else { silent.url("") };
        desk.register_as(service_at(&format!("s{n}"), &endpoint)).await;
    }
    let count = |status: &str| (0..400).filter(|n| desk.status_of(&format!("s{n}")).as_deref() == Some(status)).count();
    until("all were looked at", async || count("healthy") == 100 && count("unhealthy") == 300).await;
    times.lock().unwrap().clear();
    let start = Instant::now();
    until("all were looked at again and again", async || start.elapsed() > Duration::from_secs(6)).await;
    let times = times.lock().unwrap().clone();
    let mut gaps = Vec::new();
    for n in (0..400).step_by(4) {
        let path = format!("/{n}/health");
        let of: Vec<Instant> = times.iter().filter(|(other, _)| *other == path).map(|(_, at)| *at).collect();
        assert!(of.len() > 1, "{path} was asked {} times in 6 s", of.len());
        gaps.extend(of.windows(2).map(|pair| (pair[1] - pair[0]).as_millis()));
    }
    gaps.sort_unstable();
    let (middle, longest) = (gaps[gaps.len() / 2], gaps[gaps.len() - 1]);
    println!("between two looks at a service that answers: {middle} ms in the middle, {longest} ms at most");
    assert!(middle < 700 && longest < 1500, "{middle} ms in the middle, {longest} ms at most; every 500 are wanted");
}

/// Whatever a service answers, it is noted shortly, and others are looked at.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_a_service_answers_what_is_kept_of_it_is_little_and_can_be_read() {
    let place = Place::new(1);
    let nested = |depth: usize| format!(r#"{{"status":"down","a":{}{}}}"#, "[".repeat(depth), "]".repeat(depth));
    let bodies = [
        ("deep", nested(126)),
        ("deeper", nested(30_000)),
        ("long", format!(r#"{{"a":"{}"}}"#, "x".repeat(60_000))),
        ("longer", format!(r#"{{"a":"{}"}}"#, "x".repeat(3_000_000))),
        ("number", r#"{"a":1e999}"#.to_owned()),
        ("twice", r#"{"status":"down","status":"degraded","__proto__":{"status":1}}"#.to_owned()),
        ("odd", r#"{"status":{"toString":1}}"#.to_owned()),
        ("binary", "\u{0}\u{1}\u{2}".to_owned()),
    ];
    let texts = bodies.clone();
    let server = Server::answering(move |request| {
        let name = request.split('/').nth(1).unwrap_or_default().to_owned();
        texts.iter().find(|(other, _)| *other == name).map_or_else(|| fine("{}"), |(_, body)| fine(body))
    })
    .await;
    let endless = Server::raw(|mut stream| async move {
        let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, b"HTTP/1.1 200 OK\r\n").await;
        while tokio::io::AsyncWriteExt::write_all(&mut stream, b"x-more: and more\r\n").await.is_ok() {}
    })
    .await;
    let informal = Server::raw(|mut stream| async move {
        while tokio::io::AsyncWriteExt::write_all(&mut stream, b"HTTP/1.1 103 Early\r\n\r\n").await.is_ok() {}
    })
    .await;
    let slow = Server::raw(|mut stream| async move {
        request(&mut stream).await;
        let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n").await;
        while tokio::io::AsyncWriteExt::write_all(&mut stream, b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let checks = json!({ "healthCheck": { "intervalMs": 200, "timeoutMs": 1000, "failureThreshold": 1 } });
    let (desk, other) = (place.desk_with(&checks), place.desk());
    other.registry.open().await.expect("open");
    watching(&desk).await;
    for (name, _) in &bodies {
        desk.register_as(service_at(name, &server.url(&format!("/{name}")))).await;
    }
    for (name, server) in [("endless", &endless), ("informal", &informal), ("slow", &slow)] {
        desk.register_as(service_at(name, &server.url(""))).await;
    }
    desk.register_as(service_at("plain", &server.url("/plain"))).await;
    let expected = [
        ("deep", "unhealthy"),
        ("deeper", "healthy"),
        ("long", "healthy"),
        ("longer", "unhealthy"),
        ("number", "healthy"),
        ("twice", "degraded"),
        ("odd", "healthy"),
        ("binary", "healthy"),
        ("endless", "unhealthy"),
        ("informal", "unhealthy"),
        ("slow", "unhealthy"),
        ("plain", "healthy"),
    ];
    for (name, status) in expected {
        until(&format!("{name} is {status}"), async || {
            other.registry.refresh().await.expect("read");
            other.status_of(name).as_deref() == Some(status) && desk.status_of(name).as_deref() == Some(status)
        })
        .await;
    }
    let view = other.registry.refresh().await.expect("read");
    for service in view.services() {
        assert!(service.listing.health.len() < 20_000, "{}", service.definition.name);
    }
    assert_eq!(other.logged("cannot be read"), 0);
    let turned = other.host.said(Kind::ServiceHealthChanged);
    assert!(turned.len() < 30, "nothing goes to and fro: {}", turned.len());
    let (due, _) = other.store.take_errands(Errand::Contracts { bus: 0 }, 1, STEP).await.expect("asked");
    assert!(due.is_empty());
}
