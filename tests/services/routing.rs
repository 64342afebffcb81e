//! Events for services that fail, work on themselves, or answer as they should not; and what a service can make a bus do.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ossa::engine::bus::Bus;
use ossa::engine::store::{DeadLetterQuery, Store, StoredDeadLetter};
use serde_json::{Value, json};

use crate::desk::{Desk, Still, bus_with, logged, publish, service_at, service_for, turn, turn_until, turning};
use crate::support::faulty::{Faults, Faulty};
use crate::support::harness::Place;
use crate::support::host::TestHost;
use crate::web::{Server, answer, fine};

const STEP: Duration = Duration::from_millis(100);

/// A bus with a registry, over one memory store, on a clock that is turned.
struct World {
    _still: Still,
    place: Place,
    desk: Desk,
    registers: Arc<Faults>,
    bus: Arc<Bus>,
    host: Arc<TestHost>,
    store: Arc<dyn Store>,
    faults: Arc<Faults>,
}

impl World {
    async fn new(config: Value) -> Self {
        let (still, place) = (Still::new(), Place::new(1));
        let (desk, registers) = place.faulty_desk();
        let (store, faults) = Faulty::over(place.store());
        let (bus, host) = bus_with(&desk, store.clone(), place.env(), &config, true);
        turning(bus.connect()).await.expect("connected");
        Self { _still: still, place, desk, registers, bus, host, store, faults }
    }

    /// Registers a service, and waits until it is read for.
    async fn serve(&self, name: &str, endpoint: &str, events: &[&str]) {
        self.desk.register_as(service_for(name, endpoint, events)).await;
        turn_until("it is read for it", STEP, async || self.route(name).await.is_some()).await;
    }

    async fn route(&self, name: &str) -> Option<Value> {
        let status = self.bus.services_status().await.expect("asked");
        status["routes"].as_array().expect("a list").iter().find(|route| route["service"] == name).cloned()
    }

    async fn circuit(&self, name: &str) -> String {
        self.route(name).await.expect("it is read for it")["circuit"].as_str().expect("text").to_owned()
    }

    async fn publish(&self, token: u32, event_type: &str, data: &Value) {
        turning(publish(&self.bus, &self.host, token, event_type, data)).await.expect("published");
    }

    async fn letters(&self) -> Vec<StoredDeadLetter> {
        self.store.dead_letters(&DeadLetterQuery::default(), 100, None).await.expect("listed").0
    }

    async fn end(self) {
        turning(self.bus.disconnect(Duration::ZERO)).await;
    }
}

fn posts(server: &Server) -> Vec<String> {
    server.requests().into_iter().filter(|request| request.starts_with("POST")).collect()
}

/// Answers POST with what `status` says at the time; everything else with 404.
async fn with_status(status: Arc<AtomicUsize>) -> Server {
    Server::answering(move |request| {
        let said = if request.starts_with("POST") { status.load(Ordering::SeqCst) } else { 404 };
        answer(&format!("{said} Said"), &[], "")
    })
    .await
}

/// No attempts go to a service whose circuit is open; one tries; then all that waited arrive, each once.
#[tokio::test(start_paused = true)]
async fn a_circuit_opens_waits_without_attempts_tries_once_and_closes() {
    let status = Arc::new(AtomicUsize::new(500));
    let server = with_status(status.clone()).await;
    let retry = json!({ "jitter": "none", "maxAttempts": 20, "initialDelay": 100, "backoffMultiplier": 1 });
    let world = World::new(json!({ "healthMonitoring": false, "retry": retry })).await;
    world.serve("one", &server.url(""), &["order.*"]).await;
    for n in 0..40 {
        world.publish(n, "order.placed", &json!(n)).await;
    }
    turn_until("it opens", STEP, async || world.circuit("one").await == "open").await;
    let (asked, settled, calls) = (posts(&server).len(), world.faults.settled().len(), world.faults.calls("claim_due"));
    assert!(asked <= 13, "those on their way, and no more: {asked}");
    turn(Duration::from_millis(1500), STEP).await;
    assert_eq!(posts(&server).len(), asked, "none while it is open");
    assert!(world.faults.settled().len() - settled <= 40, "each goes back once: {}", world.faults.settled().len() - settled);
    assert!(world.faults.calls("claim_due") - calls < 40, "{}", world.faults.calls("claim_due") - calls);
    // Each trial fails: twice as long each time.
    turn(Duration::from_secs(20), STEP).await;
    let trials = posts(&server).len() - asked;
    assert!((2..=5).contains(&trials), "after 2, 4, 8 and 16 s: {trials}");
    let back = world.faults.settled().len() - settled;
    assert!(back < 200, "nothing goes to and fro: {back} settled in 20 s");
    status.store(200, Ordering::SeqCst);
    turn_until("all arrive", STEP, async || world.route("one").await.is_some_and(|route| route["delivered"] == 40)).await;
    assert_eq!(world.circuit("one").await, "closed");
    let attempts: Vec<usize> = posts(&server)
        .iter()
        .filter_map(|request| request.to_lowercase().lines().find_map(|line| line.strip_prefix("x-event-attempt: ")?.trim().parse().ok()))
        .collect();
    assert!(attempts.iter().max() <= Some(&8), "waiting uses no attempts: {attempts:?}");
    assert!(world.letters().await.is_empty());
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_service_in_maintenance_gets_nothing_and_nothing_goes_to_and_fro_though_its_register_is_away() {
    for away in [false, true] {
        let server = with_status(Arc::new(AtomicUsize::new(200))).await;
        let world = World::new(json!({ "healthMonitoring": false })).await;
        world.serve("one", &server.url(""), &["order.*"]).await;
        if away {
            world.registers.next("attending", &[crate::support::faulty::Fault::NotReached; 1000]);
        }
        let other = world.place.desk();
        other.registry.update("one", json!({ "health": { "status": "maintenance" } })).await.expect("updated");
        turn_until("it is known", STEP, async || world.desk.status_of("one").as_deref() == Some("maintenance")).await;
        for n in 0..20 {
            world.publish(n, "order.placed", &json!(n)).await;
        }
        let before = world.faults.settled().len();
        turn(Duration::from_secs(30), STEP).await;
        let settled = world.faults.settled().len() - before;
        assert_eq!(posts(&server).len(), 0);
        assert!(settled <= 60, "away: {away}: {settled} settled in 30 s");
        world.registers.heal("attending");
        other.registry.update("one", json!({ "health": { "status": "healthy" } })).await.expect("updated");
        turn_until("all arrive", STEP, async || posts(&server).len() == 20).await;
        world.end().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_event_that_always_fails_becomes_a_dead_letter_and_holds_up_no_other() {
    let server = Server::answering(|request| match (request.starts_with("POST"), request.ends_with("\"data\":\"poison\"}")) {
        (true, true) => answer("500 No", &[], "\u{1b}[31mno\u{0}\r\nX: y"),
        (true, false) => fine(""),
        _ => answer("404 None", &[], ""),
    })
    .await;
    let retry = json!({ "jitter": "none", "maxAttempts": 3, "initialDelay": 200 });
    let world = World::new(json!({ "healthMonitoring": false, "retry": retry })).await;
    world.serve("one", &server.url(""), &["order.*"]).await;
    for n in 0..30 {
        world.publish(n, "order.placed", &if n % 10 == 0 { json!("poison") } else { json!(n) }).await;
    }
    turn_until("the others arrive", STEP, async || world.route("one").await.is_some_and(|route| route["delivered"] == 27)).await;
    turn_until("they are given up", STEP, async || world.letters().await.len() == 3).await;
    for letter in world.letters().await {
        assert_eq!((letter.reason.as_str(), letter.group.as_str()), ("max-attempts", "service:one"));
        assert!(!letter.error.contains(['\r', '\n', '\0', '\u{1b}']), "{:?}", letter.error);
    }
    world.end().await;
}

/// Whatever the metadata of an event are, the request stays one request, with one host.
#[tokio::test(start_paused = true)]
async fn nothing_of_an_event_becomes_a_header_of_its_own() {
    let server = with_status(Arc::new(AtomicUsize::new(200))).await;
    let world = World::new(json!({ "healthMonitoring": false })).await;
    world.serve("one", &server.url("/base"), &["order.*"]).await;
    let nasty = "x\r\nX-Evil: 1\r\n\r\nGET /evil HTTP/1.1\r\nHost: evil\r\n\r\n";
    let options = json!({
        "correlationId": nasty, "causationId": nasty, "source": nasty,
        "headers": { "traceparent": nasty, "tracestate": nasty, "baggage": nasty, "host": "evil", "content-length": "0", "x-evil\r\ny": "1" },
    });
    world.bus.publish(1, format!("order.placed\t{options}\t{}\n", json!({ "evil": nasty })));
    let published = turning(world.host.result(1)).await;
    if published.is_ok() {
        turn_until("it arrives", STEP, async || !posts(&server).is_empty()).await;
    }
    world.publish(2, "order.placed", &json!(2)).await;
    turn_until("they arrive", STEP, async || posts(&server).iter().any(|request| request.ends_with("\"data\":2}"))).await;
    for request in server.requests() {
        let head = request.split("\r\n\r\n").next().expect("a head").to_lowercase();
        assert!(!head.contains("\r\nx-evil") && !head.contains("\r\nhost: evil"), "{head}");
        assert_eq!(head.matches("\r\nhost:").count(), 1, "{head}");
        assert!(head.starts_with("post /base/events http/1.1\r\n") || head.starts_with("get /base/"), "{head}");
    }
    world.end().await;
}

/// What answers a POST can be anything; it ends in time, and the next service is none the worse.
#[tokio::test(start_paused = true)]
async fn whatever_a_service_answers_to_an_event_it_ends_in_time_and_others_get_theirs() {
    use tokio::io::AsyncWriteExt;
    let world = World::new(json!({
        "healthMonitoring": false, "http": { "timeoutMs": 1000, "maxResponseBytes": 4096 }, "retry": { "jitter": "none", "maxAttempts": 1 },
    }))
    .await;
    let endless = Server::raw(|mut stream| async move {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n").await;
        while stream.write_all(b"x-more: and more\r\n").await.is_ok() {}
    })
    .await;
    let informal = Server::raw(|mut stream| async move { while stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.is_ok() {} }).await;
    let silent = Server::raw(|mut stream| async move {
        let mut all = Vec::new();
        let _ = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut all).await;
    })
    .await;
    let garbage = Server::raw(|mut stream| async move {
        let _ = stream.write_all(b"SSH-2.0-nobody\r\n").await;
    })
    .await;
    let much = Server::answering(|_| fine(&"x".repeat(1_000_000))).await;
    let elsewhere = Server::answering(|_| fine("")).await;
    let to = elsewhere.url("/events");
    let redirecting = Server::answering(move |_| answer("307 Elsewhere", &[&format!("Location: {to}")], "")).await;
    let good = Server::answering(|_| fine("")).await;
    let all = [
        ("endless", &endless),
        ("informal", &informal),
        ("silent", &silent),
        ("garbage", &garbage),
        ("much", &much),
        ("redirecting", &redirecting),
        ("good", &good),
    ];
    for (name, server) in all {
        world.serve(name, &server.url(""), &["order.*"]).await;
    }
    world.publish(1, "order.placed", &json!({ "secret": 1 })).await;
    turn_until("the others are given up", STEP, async || world.letters().await.len() == 5).await;
    let mut groups: Vec<String> = world.letters().await.into_iter().map(|letter| letter.group).collect();
    groups.sort();
    assert_eq!(groups, ["service:endless", "service:garbage", "service:informal", "service:redirecting", "service:silent"]);
    for name in ["much", "good"] {
        assert_eq!(world.route(name).await.expect("there")["delivered"], 1, "the status is the answer");
    }
    assert_eq!(posts(&good).len(), 1);
    assert!(elsewhere.requests().is_empty(), "no event goes where its service did not say it is");
    world.end().await;
}

/// What is denied is asked by nobody: not for health, not for contracts, not with events, by name or by address.
#[tokio::test(start_paused = true)]
async fn what_is_denied_is_not_connected_to_for_any_purpose() {
    for deny in [json!(["127.0.0.0/8", "::1"]), json!(["private"]), json!(["localhost", "127.0.0.1"])] {
        let still = Still::new();
        let place = Place::new(1);
        let server = Server::answering(|_| fine("[]")).await;
        let registry = json!({ "http": { "timeoutMs": 1000 }, "healthCheck": { "intervalMs": 500, "failureThreshold": 1 } });
        let desk = place.desk_with(&registry);
        let (bus, host) = bus_with(&desk, place.store(), place.env(), &json!({ "http": { "deny": deny } }), true);
        turning(bus.connect()).await.expect("connected");
        let port = server.address.port();
        for (n, host) in ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]", "127.1", "LOCALHOST."].iter().enumerate()
        {
            desk.register_as(service_for(&format!("s{n}"), &format!("http://{host}:{port}"), &["order.*"])).await;
        }
        turning(publish(&bus, &host, 1, "order.placed", &json!(1))).await.expect("published");
        turn(Duration::from_secs(10), STEP).await;
        turning(bus.discover_contracts(None)).await.expect("asked");
        assert_eq!(server.connections(), 0, "{deny}");
        let checked = desk.registry.view().services().filter(|service| service.health.is_silent()).count();
        assert_eq!(checked, 7, "{deny}");
        turning(bus.disconnect(Duration::ZERO)).await;
        drop(still);
    }
}

/// A service that is allowed leads elsewhere, by what it answers.
#[tokio::test(start_paused = true)]
async fn no_answer_leads_to_where_the_service_did_not_say_it_is() {
    let inner = Server::answering(|_| fine(r#"{"status":"healthy"}"#)).await;
    let to = inner.url("/secret");
    let outer = Server::answering(move |_| answer("302 Elsewhere", &[&format!("Location: {to}")], "")).await;
    let world = World::new(json!({ "retry": { "jitter": "none", "maxAttempts": 1 } })).await;
    world.serve("one", &outer.url(""), &["order.*"]).await;
    world.publish(1, "order.placed", &json!(1)).await;
    turn_until("it is given up", STEP, async || world.letters().await.len() == 1).await;
    let found = turning(world.bus.discover_contracts(Some("one"))).await.expect("asked");
    assert_eq!(found["registered"], 0);
    turn(Duration::from_secs(10), STEP).await;
    assert!(outer.requests().iter().any(|request| request.starts_with("GET /health")));
    assert_eq!(inner.connections(), 0);
    world.end().await;
}

fn contract(name: &str) -> Value {
    json!({
        "name": name, "version": "1.0.0", "targetProjects": ["*"], "eventTypes": ["number.*"],
        "schema": { "type": "object", "properties": { "n": { "type": "number" } } }, "metadata": { "description": "", "author": "" },
    })
}

async fn found(world: &World, name: &str) -> Value {
    turning(world.bus.discover_contracts(Some(name))).await.expect("asked")
}

#[tokio::test(start_paused = true)]
async fn what_a_service_offers_as_contracts_is_bounded_and_refused_with_short_reasons() {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let mut deep = json!({});
    for _ in 0..60 {
        deep = json!({ "properties": { "a": deep } });
    }
    let (mut schema, mut foreign) = (contract("deep"), contract("foreign"));
    schema["schema"] = deep;
    foreign["sourceProject"] = json!("x".repeat(500_000));
    let mut regex = contract("regex");
    regex["schema"] = json!({ "type": "string", "pattern": "^(([a-z])+.)+[A-Z]([a-z])+$" });
    let mut remote = contract("remote");
    remote["schema"] = json!({ "$ref": "http://127.0.0.1:1/schema" });
    let offers = [
        ("many", json!((0..1001).map(|n| contract(&format!("c{n}"))).collect::<Vec<_>>()).to_string()),
        ("nested", nested(100_000)),
        ("huge", format!("[\"{}\"]", "x".repeat(2_000_000))),
        ("number", "[1e999]".to_owned()),
        ("odd", json!([1, null, "x", [], {}, { "name": 5 }, { "name": "x".repeat(200_000) }]).to_string()),
        ("foreign", json!([foreign, schema, regex, remote]).to_string()),
        ("fine", json!({ "contracts": [contract("fine")] }).to_string()),
    ];
    let texts = offers.clone();
    let server = Server::answering(move |request| {
        let name = request.split('/').nth(1).unwrap_or_default().to_owned();
        texts
            .iter()
            .find(|(other, _)| *other == name && request.contains("/contracts"))
            .map_or_else(|| answer("404 No", &[], ""), |(_, body)| fine(body))
    })
    .await;
    let world = World::new(json!({ "healthMonitoring": false })).await;
    for (name, _) in &offers {
        world.desk.register_as(service_at(name, &server.url(&format!("/{name}")))).await;
    }
    for (name, registered) in [("many", 0), ("nested", 0), ("huge", 0), ("number", 0), ("odd", 0), ("fine", 1)] {
        let found = found(&world, name).await;
        assert_eq!(found["registered"], registered, "{name}: {found}");
        assert!(found.to_string().len() < 6_000, "{name}: {} bytes", found.to_string().len());
    }
    let mixed = found(&world, "foreign").await;
    assert!(mixed.to_string().len() < 6_000, "{} bytes", mixed.to_string().len());
    assert!(mixed["refused"].as_array().expect("a list").iter().any(|refused| refused["contract"] == "foreign"));
    assert!(mixed["refused"].as_array().expect("a list").iter().any(|refused| refused["contract"] == "remote"), "{mixed}");
    turn(Duration::from_secs(10), STEP).await;
    let longest = world.host.said(ossa::engine::host::Kind::Log).iter().map(|said| said.to_string().len()).max().unwrap_or(0);
    assert!(longest < 2_000, "{longest}");
    world.end().await;
}

/// A service bears the name of a project that has credentials, in a process that does not have them, and in one that does.
#[tokio::test(start_paused = true)]
async fn a_service_with_the_name_of_a_project_binds_it_by_contracts_only_where_its_secret_is() {
    let server = Server::answering(|request| {
        if request.contains("/contracts") { fine(&json!([contract("theirs")]).to_string()) } else { answer("404 No", &[], "") }
    })
    .await;
    let world = World::new(json!({ "healthMonitoring": false, "contractDiscovery": false })).await;
    let (owner, _host) = bus_with(&world.place.desk(), world.place.store(), world.place.env(), &json!({ "enabled": false }), true);
    turning(owner.connect()).await.expect("connected");
    let project = json!({
        "projectId": "billing", "name": "billing", "namespace": "test", "allowedEventTypes": ["**"], "allowedTargets": ["*"],
        "credentials": { "apiKey": "key", "secret": "a secret that is long enough" },
    });
    turning(owner.projects().expect("on").register(project)).await.expect("registered");
    world.desk.register_as(service_at("billing", &server.url(""))).await;
    let refused = found(&world, "billing").await;
    assert_eq!(refused["registered"], 0);
    assert!(refused["refused"][0]["reason"].as_str().is_some_and(|reason| reason.contains("secret")), "{refused}");
    // By agents' events it can be said to be ill, and nothing else.
    turning(owner.disconnect(Duration::ZERO)).await;
    world.end().await;
}

/// Who is told about an agent with an endless name keeps little of it.
#[tokio::test(start_paused = true)]
async fn what_an_event_says_of_a_service_is_kept_shortened() {
    let world = World::new(json!({})).await;
    world.desk.register_as(service_at("one", "redis://host")).await;
    for n in 0..150 {
        let data = json!({ "agentId": format!("{n}{}", "é".repeat(20_000)), "error": "x".repeat(50_000) });
        world.bus.publish(n, format!("agent.failed\t{}\t{data}\n", json!({ "source": "one" })));
        let _ = turning(world.host.result(n)).await;
    }
    turn(Duration::from_secs(20), STEP).await;
    let view = world.desk.registry.view();
    let kept = view.get("one").expect("there").listing.health.len();
    assert!(kept < 200_000, "{kept} bytes");
    assert!(logged(&world.host, "cannot") == 0);
    world.end().await;
}
