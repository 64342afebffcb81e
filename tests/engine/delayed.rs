//! Delayed events, and retries, among which something stands that this bus did not write: each moves on its own.

use std::sync::Arc;

use ossa::engine::consume::Verdict;
use ossa::engine::env::Env;
use ossa::engine::host::Kind;
use ossa::engine::store::redis::RedisStore;
use ossa::engine::store::redis::keys::{Keys, member};
use ossa::engine::store::{NewEvent, Partition, Store};
use serde_json::json;

use crate::support::events::{dead_letters, event, event_ids, neighbour, of_type, partition, prepare, publish, take};
use crate::support::harness::{TestBus, data, failed, handle_all, ms};
use crate::support::redis_store::{KEY_PREFIX, config};
use crate::support::server::{Server, programs};
use crate::support::wait::until;

/// What stands beside the ids of events, each with what is wrong with it; `None`: nothing is there for the id.
const BAD: &[(&str, Option<&str>)] = &[
    ("nothing", None),
    ("no-json", Some("{")),
    ("empty", Some("")),
    ("no-list", Some("7")),
    ("null", Some("null")),
    ("no-data", Some(r#"["{}"]"#)),
    ("no-texts", Some(r#"[{"a":1},["b"]]"#)),
];
/// One more, too deep for the server's parser.
fn too_deep() -> String {
    "[".repeat(2000)
}

/// All of them, as due long ago: before everything else.
async fn spoil(server: &Server, at: &Partition) {
    let keys = Keys::new(KEY_PREFIX, None);
    let (delayed, bodies) = (keys.delayed(at), keys.delayed_bodies(at));
    let too_deep = too_deep();
    for (id, body) in BAD.iter().copied().chain([("too-deep", Some(too_deep.as_str()))]) {
        server.ask(&["ZADD", &delayed, "1", id]).await.expect("added");
        if let Some(body) = body {
            server.ask(&["HSET", &bodies, id, body]).await.expect("added");
        }
    }
    server.ask(&["ZADD", &keys.in_bucket(at.bucket(), "delayed"), "1", &member(at)]).await.expect("added");
}

fn delayed(at: &Partition, id: &str) -> NewEvent {
    NewEvent { delay_ms: Some(1), ..event(at, id) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_event_holds_up_no_delayed_one_and_becomes_a_dead_letter() {
    for program in programs() {
        let server = Server::start(&program).await;
        let bus = TestBus::connect(RedisStore::new(config(&server), Env::system()).expect("right"), Env::system(), json!({})).await;
        let (bad, beside) = (partition("bad"), neighbour(&partition("bad")));
        bus.subscribe(&bad.event_type, json!({})).await;
        bus.subscribe(&beside.event_type, json!({})).await;
        // The partitions are there.
        for at in [&bad, &beside] {
            bus.publish(&at.event_type, "first").await;
            bus.done(&bus.host.next().await);
        }
        spoil(&server, &bad).await;
        for at in [&bad, &beside] {
            bus.publish_with(&at.event_type, "good", &json!({ "delayMs": 1 })).await;
        }
        for call in bus.host.next_many(2).await {
            assert_eq!(data(&call), "good");
            bus.settle(&call, Verdict::Done);
        }
        // What nobody can read is kept with its reason, and by its name.
        let found = BAD.len() + 1;
        until("they are dead letters", async || bus.dead_letters().await.len() == found).await;
        let letters = bus.dead_letters().await;
        assert!(letters.iter().all(|(_, reason)| reason == "malformed"), "{letters:?}");
        assert!(letters.iter().any(|(data, _)| data.contains(r#"[\"{}\"]"#)), "it says what it was: {letters:?}");
        assert_eq!(bus.host.said(Kind::DeadLettered).len(), found);
        let keys = Keys::new(KEY_PREFIX, None);
        for key in [keys.delayed(&bad), keys.delayed_bodies(&bad), keys.in_bucket(bad.bucket(), "delayed")] {
            assert_eq!(server.ask(&["EXISTS", &key]).await.expect("answered"), redis::Value::Int(0), "{key} is empty");
        }
        until("all is settled", async || bus.pending("bad", "default").await == 0).await;
        bus.disconnect(ms(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_entry_holds_up_no_retry_and_no_group_that_is_made_again() {
    for program in programs() {
        let server = Server::start(&program).await;
        let bus = TestBus::connect(RedisStore::new(config(&server), Env::system()).expect("right"), Env::system(), json!({})).await;
        let (at, keys) = (partition("bad"), Keys::new(KEY_PREFIX, None));
        let soon = json!({ "initialDelay": 300 });
        bus.subscribe("bad", json!({ "group": "g", "retry": soon })).await;
        bus.subscribe("bad", json!({ "group": "o", "retry": soon, "ordered": true })).await;
        bus.publish("bad", "good").await;
        let first = bus.host.next_many(2).await;
        let spoil = async |group: &str| {
            for id in ["no-id", "", "1-1", "99999999999999999999-1"] {
                server.ask(&["ZADD", &keys.retry(&at, group), "1", id]).await.expect("added");
            }
            server.ask(&["ZADD", &keys.due(at.bucket(), group), "1", &member(&at)]).await.expect("added");
        };
        for group in ["g", "o"] {
            spoil(group).await;
        }
        for call in &first {
            bus.settle(call, failed("boom"));
        }
        let again = bus.host.next_many(2).await;
        assert!(again.iter().all(|call| (data(call), call.attempt) == ("good", 2)), "{again:?}");

        spoil("g").await;
        server.ask(&["XGROUP", "DESTROY", &keys.stream(&at), "g"]).await.expect("destroyed");
        let seen = handle_all(&bus);
        bus.all_done(&again);
        until("the group is there again, and reads", async || {
            bus.publish("bad", "after").await;
            let groups = bus.partition("bad").await.groups;
            seen.lock().expect("no panic").contains("after") && groups.iter().any(|group| group.name == "g")
        })
        .await;
        until("all is settled", async || (bus.pending("bad", "g").await, bus.pending("bad", "o").await) == (0, 0)).await;
        bus.disconnect(ms(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_cannot_be_written_holds_up_no_other_and_loses_nothing() {
    for program in programs() {
        let server = Server::start(&program).await;
        let store = RedisStore::new(config(&server), Env::system()).expect("right") as Arc<dyn Store>;
        store.open().await.expect("the server answers");
        let (bad, keys) = (partition("bad"), Keys::new(KEY_PREFIX, None));
        let beside = neighbour(&bad);
        for at in [&bad, &beside] {
            prepare(&store, at, "g", "c").await;
            publish(&store, vec![delayed(at, "good")]).await;
        }
        // Something else is where its stream was.
        let stream = keys.stream(&bad);
        server.ask(&["RENAME", &stream, "aside"]).await.expect("renamed");
        server.ask(&["SET", &stream, "?"]).await.expect("set");
        let mut pause = None;
        until("the one beside it moves", async || {
            let (moved, next_ms) = store.move_delayed(bad.bucket()).await.expect("moved");
            pause = next_ms.filter(|_| moved == 1);
            moved == 1
        })
        .await;
        assert_eq!(event_ids(&take(&store, &beside, "g", "c", 10).await), ["good"]);
        assert!(pause.is_some_and(|ms| ms > 100), "it is tried again after a while: {pause:?}");
        server.ask(&["RENAME", "aside", &stream]).await.expect("renamed");
        until("it moves, too", async || store.move_delayed(bad.bucket()).await.expect("moved").0 == 1).await;
        assert_eq!(event_ids(&take(&store, &bad, "g", "c", 10).await), ["good"]);
        assert!(dead_letters(&store, &of_type(&bad), 10).await.is_empty());
    }
}
