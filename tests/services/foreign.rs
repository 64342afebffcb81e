//! The registry over real servers: what others write into its keys, connections that break or fall silent, and what it leaves behind.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ossa::engine::env::Env;
use ossa::engine::host::Kind;
use ossa::engine::services::Watcher;
use ossa::engine::store::Errand;
use ossa::engine::store::redis::keys::Keys;
use ossa::engine::store::redis::{RedisStore, RedisStoreConfig};
use serde_json::{Value, json};

use crate::desk::{Desk, desk_over, service, until};
use crate::support::proxy::{Cut, Proxy, Way};
use crate::support::redis_store::{KEY_PREFIX, config, config_at};
use crate::support::server::{Server, programs};

/// Scripts that a registry may call in a second while it is left alone, and something is wrong.
const QUIET: u64 = 8;

fn desk_at(config: RedisStoreConfig, with: &Value) -> Desk {
    desk_over(RedisStore::new(config, Env::system()).expect("right"), Env::system(), with)
}

async fn desk_on(server: &Server) -> Desk {
    let desk = desk_at(config(server), &json!({}));
    desk.registry.open().await.expect("open");
    desk
}

fn keys() -> [String; 5] {
    Keys::new(KEY_PREFIX, None).listings()
}

/// Scripts called so far.
async fn scripts(server: &Server) -> u64 {
    let info = server.text(&["INFO", "commandstats"]).await;
    let line = info.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:calls=")).expect("it is told");
    line.split(',').next().and_then(|count| count.parse().ok()).expect("a number")
}

/// As it stands in the store.
async fn definition_of(server: &Server, name: &str) -> Value {
    serde_json::from_str(&server.text(&["HGET", &keys()[0], name]).await).expect("JSON")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_others_list_that_is_no_service_harms_no_service() {
    for program in programs() {
        let server = Server::start(&program).await;
        let (desk, watcher) = (desk_on(&server).await, desk_on(&server).await);
        desk.register("good").await;
        desk.register("victim").await;
        let (good, [definitions, health, ..]) = (definition_of(&server, "good").await, keys());
        let with = |key: &str, value: Value| {
            let mut changed = good.clone();
            changed[key] = value;
            changed.to_string()
        };
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
        let long = with("endpoint", json!(format!("http://{}", "x".repeat(3_000_000))));
        let bad = [
            ("json", "{".to_owned()),
            ("list", "[]".to_owned()),
            ("null", "null".to_owned()),
            ("number", "1e999".to_owned()),
            ("deep", deep),
            ("long", long),
            ("endless", with("endpoint", json!("http:host"))),
            ("future", with("name", json!("future")).replace("\"life\"", "\"new\":1,\"life\"")),
            ("times", with("registeredAt", json!("yesterday"))),
            ("negative", with("updatedAt", json!(-1))),
            ("victim-2", with("name", json!("victim"))),
            ("spoofed", good.to_string()),
            ("a b\r\nc", with("name", json!("a b\r\nc"))),
            ("__proto__", with("name", json!("constructor"))),
            ("\u{7f}", "{}".to_owned()),
        ];
        for (name, text) in &bad {
            server.text(&["HSET", &health, name, "{}"]).await;
            server.text(&["HSET", &definitions, name, text]).await;
        }
        server.command(&[b"HSET", health.as_bytes(), b"\xff\xfe", b"\xff"]).await;
        server.command(&[b"HSET", definitions.as_bytes(), b"\xff\xfe", b"\xff"]).await;
        let late = desk_on(&server).await;
        assert_eq!(late.names().await, ["good", "victim"]);
        assert_eq!(late.logged("cannot be read"), bad.len() + 1);
        let longest = late.host.said(Kind::Log).iter().map(|said| said.to_string().len()).max().expect("some");
        assert!(longest < 2_000, "{longest}");
        // They are not told twice, and nothing is done about them.
        desk.register("another").await;
        late.registry.watch(Watcher::Program).await.expect("watched");
        until("it is seen", async || late.names().await.len() == 3).await;
        assert_eq!(late.logged("cannot be read"), bad.len() + 1);
        for name in ["json", "spoofed", "future"] {
            late.register(name).await;
        }
        assert!(late.registry.unregister("list").await.expect("taken out"));
        until("all see it", async || watcher.names().await == ["another", "future", "good", "json", "spoofed", "victim"]).await;
        assert_eq!((watcher.told(Kind::ServiceUnregistered, "victim"), watcher.told(Kind::ServiceUpdated, "victim")), (0, 0));
    }
}

/// A change that says one name and holds another's definition.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_another_program_noted_speaks_for_nobody_else() {
    for program in programs() {
        let server = Server::start(&program).await;
        let (desk, watcher) = (desk_on(&server).await, desk_on(&server).await);
        desk.register("victim").await;
        until("it is seen", async || watcher.names().await == ["victim"]).await;
        let [definitions, health, _, log, state] = keys();
        let text = server.text(&["HGET", &definitions, "victim"]).await;
        let well = server.text(&["HGET", &health, "victim"]).await;
        // As a program would that knows the rules of the log.
        let note = async |name: &str, turn: &str| {
            let last = server.text(&["HGET", &state, "last"]).await;
            let fields = ["XADD", &log, "*", "name", name, "turn", turn, "health", &well, "prev", &last, "definition", &text];
            let id = server.text(&fields).await;
            server.text(&["HSET", &state, "last", &id]).await;
        };
        for turn in ["unregistered", "expired", "registered", "updated"] {
            note("other", turn).await;
            watcher.names().await;
        }
        assert_eq!(watcher.story(), ["+victim 1.0.0"]);
        assert!(desk.registry.holds("victim"));
        // One that this version does not know: all is read anew, and what follows is told.
        note("victim", "pondered").await;
        note("", "registered").await;
        desk.register("next").await;
        until("it is seen", async || watcher.names().await == ["next", "victim"]).await;
        assert_eq!(watcher.story(), ["+victim 1.0.0", "+next 1.0.0"]);
        server.text(&["XADD", &log, "*", "what", "ever"]).await;
        desk.register("last").await;
        until("it is seen", async || watcher.names().await == ["last", "next", "victim"]).await;
        assert_eq!(watcher.told(Kind::ServiceRegistered, "last"), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_of_a_wrong_kind_are_an_error_that_says_so_and_nothing_runs_hot() {
    for program in programs() {
        for (n, key) in keys().iter().enumerate() {
            let server = Server::start(&program).await;
            let desk = desk_on(&server).await;
            desk.register("one").await;
            desk.registry.watch(Watcher::Program).await.expect("watched");
            server.text(&["DEL", key]).await;
            server.text(&["SET", key, "not yours"]).await;
            server.text(&["PUBLISH", &Keys::new(KEY_PREFIX, None).global("changes"), "services"]).await;
            let late = desk_at(config(&server), &json!({}));
            let asked = [
                late.registry.discover(Value::Null).await.map(drop),
                late.registry.register(service("two")).await.map(drop),
                late.registry.stats().await.map(drop),
                desk.registry.register(service("three")).await.map(drop),
            ];
            let errors: Vec<String> = asked.into_iter().filter_map(Result::err).map(|error| error.message).collect();
            // The log is only read by who knows a place in it.
            assert!(errors.len() >= if n == 3 { 1 } else { 3 }, "{key}: {errors:?}");
            assert!(errors.iter().all(|error| error.contains("WRONGTYPE") || error.contains("wrong kind")), "{key}: {errors:?}");
            let (before, connections) = (scripts(&server).await, server.text(&["CLIENT", "LIST"]).await.lines().count());
            tokio::time::sleep(Duration::from_secs(2)).await;
            for _ in 0..20 {
                let _ = late.registry.discover(Value::Null).await;
            }
            let sent = scripts(&server).await - before;
            assert!(sent < 2 * 2 * QUIET + 20, "{key}: {sent} scripts in 2 s");
            let after = server.text(&["CLIENT", "LIST"]).await.lines().count();
            assert!(after <= connections + 4, "{key}: {connections} connections, then {after}");
            server.text(&["DEL", key]).await;
            desk.register("one").await;
            until("it goes on", async || late.names().await.contains(&"one".to_owned())).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_connection_is_left_of_a_registry_that_was_closed_or_dropped() {
    for program in programs() {
        let server = Server::start(&program).await;
        let clients = async || server.text(&["CLIENT", "LIST"]).await.lines().count();
        let before = clients().await;
        for closes in [true, false] {
            let desk = desk_on(&server).await;
            desk.registry.watch(Watcher::Program).await.expect("watched");
            desk.register("one").await;
            assert!(clients().await > before);
            let weak = Arc::downgrade(&desk.registry);
            if closes {
                desk.registry.close().await;
            }
            drop(desk);
            until("its connections end", async || clients().await == before).await;
            assert_eq!(weak.strong_count(), 0);
        }
    }
}

/// A cable is pulled.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_falls_silent_ends_calls_and_closing_in_time_and_renewing_goes_on_when_it_is_back() {
    let program = programs().remove(0);
    let server = Server::start(&program).await;
    let proxy = Proxy::start(server.port()).await;
    let patient = |port| RedisStoreConfig {
        command_timeout: Duration::from_millis(500),
        connect_timeout: Duration::from_millis(500),
        ..config_at(port)
    };
    let ttl = json!({ "serviceTtlSeconds": 6 });
    let (desk, closing) = (desk_at(patient(proxy.port()), &ttl), desk_at(patient(proxy.port()), &ttl));
    let watcher = desk_on(&server).await;
    desk.register("one").await;
    closing.registry.open().await.expect("open");
    until("it is seen", async || watcher.names().await == ["one"]).await;
    proxy.stall();
    let start = Instant::now();
    desk.registry.register(service("two")).await.expect_err("nobody answers");
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    let opening = desk_at(RedisStoreConfig { connect_timeout: Duration::from_secs(60), ..patient(proxy.port()) }, &ttl);
    let registry = opening.registry.clone();
    let opens = tokio::spawn(async move { registry.open().await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    for one in [&closing, &opening] {
        let start = Instant::now();
        one.registry.close().await;
        assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    }
    opens.await.expect("no panic").expect_err("it was closed");
    proxy.admit();
    until("it is renewed or comes back", async || desk.registry.stats().await.is_ok()).await;
    tokio::time::sleep(Duration::from_secs(7)).await;
    assert_eq!(watcher.names().await, ["one"]);
}

/// A connection breaks at every place of what is sent, or answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_breaks_anywhere_doubles_no_event_and_loses_none() {
    for program in programs() {
        for way in [Way::Up, Way::Down] {
            let server = Server::start(&program).await;
            let proxy = Proxy::start(server.port()).await;
            let (desk, watcher) =
                (desk_at(RedisStoreConfig { pool_size: 2, ..config_at(proxy.port()) }, &json!({})), desk_on(&server).await);
            desk.registry.open().await.expect("open");
            let round = async |name: &str| {
                let again = async |call: &dyn Fn() -> futures_util::future::BoxFuture<'static, bool>| {
                    for _ in 0..20 {
                        if call().await {
                            return;
                        }
                    }
                    panic!("one cut breaks one call");
                };
                let registry = || (desk.registry.clone(), name.to_owned());
                again(&|| {
                    let (registry, name) = registry();
                    Box::pin(async move { registry.register(service(&name)).await.is_ok() })
                })
                .await;
                again(&|| {
                    let (registry, name) = registry();
                    Box::pin(async move { registry.update(&name, json!({ "version": "2.0.0" })).await.is_ok() })
                })
                .await;
                again(&|| {
                    let (registry, name) = registry();
                    Box::pin(async move { registry.unregister(&name).await.is_ok() })
                })
                .await;
            };
            round("warm").await;
            proxy.arm(None);
            round("whole").await;
            let bytes = proxy.passed(way);
            let mut expected = Vec::new();
            let story = |name: &str| [format!("+{name} 1.0.0"), format!("~{name} 2.0.0"), format!("-{name}")];
            expected.extend(story("warm"));
            expected.extend(story("whole"));
            for n in 0..12 {
                let late = (n % 2 == 0).then_some(Duration::from_millis(20));
                proxy.arm(Some(Cut { way, after: 1 + bytes * n / 12, late }));
                let name = format!("cut-{n}");
                round(&name).await;
                expected.extend(story(&name));
            }
            until("all is told", async || watcher.registry.stats().await.is_ok() && watcher.story().len() >= expected.len()).await;
            assert_eq!(watcher.story(), expected, "{way:?}");
            until("all is told", async || desk.registry.stats().await.is_ok() && desk.story().len() >= expected.len()).await;
            assert_eq!(desk.story(), expected, "{way:?}");
        }
    }
}

/// A name that is no text, planned by another program, does not keep errands from the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_errand_about_a_name_that_is_no_text_does_not_hold_the_others() {
    for program in programs() {
        let server = Server::start(&program).await;
        let desk = desk_on(&server).await;
        desk.register("one").await;
        let [due, _] = Keys::new(KEY_PREFIX, None).errands(Errand::Probe);
        server.command(&[b"HSET", keys()[1].as_bytes(), b"\xff", b"{}"]).await;
        server.command(&[b"ZADD", due.as_bytes(), b"1", b"\xff"]).await;
        desk.store.plan_errands(Errand::Probe, &["one".to_owned()], Duration::ZERO).await.expect("planned");
        let (taken, _) = desk.store.take_errands(Errand::Probe, 10, Duration::from_secs(60)).await.expect("taken");
        assert!(taken.iter().any(|running| running.name == "one"), "{taken:?}");
    }
}

/// As no bus would: what its owner renews is listed again, and nobody is told of what nobody saw.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listing_of_which_a_part_was_lost_is_listed_again_by_its_owner() {
    for program in programs() {
        let server = Server::start(&program).await;
        let (desk, watcher) = (desk_at(config(&server), &json!({ "serviceTtlSeconds": 3 })), desk_on(&server).await);
        desk.register("one").await;
        until("it is seen", async || watcher.names().await == ["one"]).await;
        server.text(&["DEL", &keys()[1]]).await;
        let late = desk_on(&server).await;
        until("it is back", async || late.names().await == ["one"]).await;
        assert_eq!((watcher.names().await, watcher.story()), (vec!["one".to_owned()], vec!["+one 1.0.0".to_owned()]));
    }
}
