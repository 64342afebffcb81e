//! Entries in the streams of a project: whoever writes them, what no project sent reaches no handler, is a dead letter with its
//! record, and holds up nothing.

use std::sync::Arc;
use std::time::Duration;

use ossa::engine::bus::Bus;
use ossa::engine::config::{CrossProject, Secret, resolve_bus};
use ossa::engine::consume::Verdict;
use ossa::engine::env::Env;
use ossa::engine::event;
use ossa::engine::options::SubscribeOptions;
use ossa::engine::projects::audit::log::Query;
use ossa::engine::projects::identity::Signer;
use ossa::engine::store::memory::MemoryStore;
use ossa::engine::store::{DeadLetterQuery, NewEvent, Partition, Store};
use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::sync::mpsc::unbounded_channel;

use crate::corpus;
use crate::foreign::Handlers;
use crate::json::{nearly, text};

/// What somebody put into the stream.
#[derive(Clone, Debug)]
enum Crafted {
    Fields(Vec<(Vec<u8>, Vec<u8>)>),
    /// Metadata and data; signed so, if at all.
    Event {
        meta: Value,
        data: String,
        by: Signed,
    },
    /// Metadata that are no JSON, perhaps.
    Text(String, String),
}

#[derive(Clone, Copy, Debug)]
enum Signed {
    /// Not at all.
    No,
    /// By the key of the project, over what stands there: then it is right if the rest is.
    Right,
    /// By somebody else.
    Wrong,
    /// The end of it cut off, or something behind it.
    Broken,
    /// Over other data.
    OfOther,
}

const NOW: u64 = 1_700_000_000_000;

fn right() -> Value {
    json!({
        "v": 1, "id": "018bcfe5-6800-7000-8000-000000000000", "timestamp": NOW, "source": "a", "version": "1.0.0", "priority": "normal",
        "dttl": 3600, "target": "b", "message": { "from": "n", "to": "n", "keyId": key_id() },
    })
}

fn key_id() -> String {
    ossa::engine::projects::identity::key_id(&Secret::new("key"))
}

fn metadata() -> impl Strategy<Value = Value> {
    let field = |name: &'static str, value: Value| {
        let mut meta = right();
        meta[name] = value;
        Just(meta)
    };
    prop_oneof![
        4 => nearly(right()),
        1 => field("source", json!("nobody")),
        1 => field("source", json!("open")),
        1 => field("target", json!("c")),
        1 => field("timestamp", json!(u64::MAX)),
        1 => field("timestamp", json!(0)),
        1 => field("due", json!(0)),
        1 => field("due", json!(u64::MAX)),
        1 => field("message", json!({ "keyId": "another", "contracts": ["x@1.0.0", "@", ""] })),
        1 => field("message", json!(null)),
        1 => Just(right()),
    ]
}

fn crafted() -> impl Strategy<Value = Crafted> {
    let name = prop_oneof![Just("meta".to_owned()), Just("data".to_owned()), Just("to".to_owned()), Just("first".to_owned()), text()];
    let bytes = || prop_oneof![proptest::collection::vec(any::<u8>(), 0..40), text().prop_map(String::into_bytes)];
    let fields = proptest::collection::vec((name.prop_map(String::into_bytes), bytes()), 0..5);
    let by = prop_oneof![Just(Signed::No), Just(Signed::Wrong), Just(Signed::Broken), Just(Signed::OfOther)];
    let data = prop_oneof![text(), Just("1".to_owned()), Just("[".repeat(100_000)), Just("{\"a\":".repeat(50))];
    prop_oneof![
        fields.prop_map(Crafted::Fields),
        (metadata(), data, by).prop_map(|(meta, data, by)| Crafted::Event { meta, data, by }),
        (text(), text()).prop_map(|(meta, data)| Crafted::Text(meta, data)),
    ]
}

fn signer(secret: &str) -> &'static Signer {
    use std::sync::LazyLock;
    static RIGHT: LazyLock<Signer> = LazyLock::new(|| derive("the secret of project a"));
    static WRONG: LazyLock<Signer> = LazyLock::new(|| derive("a secret of somebody"));
    if secret == "right" { &RIGHT } else { &WRONG }
}

fn derive(secret: &str) -> Signer {
    Signer::derive("a", &Secret::new("key"), &Secret::new(secret)).expect("derived")
}

/// Metadata with the signature that it is to have.
fn sealed(meta: &Value, data: &str, by: Signed) -> String {
    let meta = meta.to_string();
    let Some(open) = meta.strip_suffix('}') else { return meta };
    let sign = |secret: &str, data: &str| event::with_signature(&meta, &signer(secret).sign_message("@b/t", open, data.as_bytes()));
    match by {
        Signed::No => meta,
        Signed::Right => sign("right", data),
        Signed::Wrong => sign("wrong", data),
        Signed::OfOther => sign("right", "\"other\""),
        Signed::Broken => sign("right", data).replace("\"sig\":\"", "\"sig\":\"A"),
    }
}

/// Plays the entries with a right message behind each; answers the dead letters' reasons and how many records there are.
async fn play(entries: &[Crafted], ordered: bool) -> Vec<String> {
    let env = Env::seeded(1);
    let store = MemoryStore::private(env.clone());
    let (to, mut deliveries) = unbounded_channel();
    let host = Arc::new(Handlers::new(to));
    let config = json!({ "redis": { "url": "memory://" }, "defaults": { "retry": { "maxAttempts": 0 } } });
    let cross = CrossProject::from_resolved(&json!({})).expect("defaults");
    let bus = Bus::with_store(resolve_bus(&config, &|_| None).expect("right"), Some(cross), store.clone(), host.clone(), env);
    bus.connect().await.expect("connected");
    let project = |id: &str| json!({ "projectId": id, "name": id, "namespace": "n", "allowedEventTypes": ["**"], "allowedTargets": ["*"] });
    let projects = bus.projects().expect("they are on");
    let mut a = project("a");
    a["credentials"] = json!({ "apiKey": "key", "secret": "the secret of project a" });
    projects.register(a).await.expect("registered");
    projects.register(project("b")).await.expect("registered");
    let at = Partition::new("@b/t", 0);
    store.open_partition(&at).await.expect("opened");
    let put = async |meta: String, data: String| {
        let event = NewEvent {
            partition: at.clone(),
            id: "e".into(),
            meta,
            data: data.into(),
            ttl_ms: None,
            delay_ms: None,
            idempotency: None,
            length_max: None,
            cancelled: None,
            entry: None,
        };
        assert!(store.append(at.bucket(), vec![event]).await[0].is_ok());
    };
    for (n, entry) in entries.iter().cloned().enumerate() {
        match entry {
            Crafted::Fields(fields) => store.add_foreign(&at, fields).expect("the partition is there"),
            Crafted::Event { meta, data, by } => put(sealed(&meta, &data, by), data).await,
            Crafted::Text(meta, data) => put(meta, data).await,
        }
        let mut meta = right();
        meta["id"] = format!("good-{n}").into();
        put(sealed(&meta, &format!("\"good {n}\""), Signed::Right), format!("\"good {n}\"")).await;
    }
    let options = SubscribeOptions::read_of_project(json!({ "group": "g", "ordered": ordered })).expect("right");
    bus.handle_messages(1, "b", "t", options).await.expect("subscribed");
    for n in 0..entries.len() {
        let delivery =
            tokio::time::timeout(Duration::from_secs(60), deliveries.recv()).await.expect("what is good is handled").expect("more");
        assert_eq!(delivery.text.data, format!("\"good {n}\""), "a handler got what no project sent");
        bus.settle(vec![(delivery.token, Verdict::Done)], 0);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(deliveries.try_recv().is_err(), "a handler got what no project sent");
    assert!(host.defects().is_empty(), "{:?}", host.defects());
    let state = store.inspect(&at).await.expect("asked").expect("there");
    assert!(state.groups.iter().all(|group| group.pending == 0 && group.lag == Some(0)), "{state:?}");
    let letters = store.dead_letters(&DeadLetterQuery::default(), 1000, None).await.expect("listed").0;
    assert_eq!(letters.len(), entries.len(), "{letters:?}");
    assert!(letters.iter().all(|letter| ["malformed", "signature", "contract"].contains(&letter.reason.as_str())), "{letters:?}");
    // Each is recorded, and the log holds.
    let records = projects.audit_log(&Query::default(), 1000, None).await.expect("read");
    assert_eq!(records["items"].as_array().map(Vec::len), Some(2 * entries.len()));
    let verified = projects.verify_audit().await.expect("verified");
    assert_eq!((&verified["ok"], &verified["checked"]), (&json!(true), &json!(2 * entries.len())));
    bus.disconnect(Duration::ZERO).await;
    letters.into_iter().map(|letter| letter.reason).collect()
}

fn run(entries: &[Crafted], ordered: bool) -> Vec<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime can be made").block_on(play(entries, ordered))
}

proptest! {
    #![proptest_config(corpus::cases(40))]

    #[test]
    fn what_no_project_sent_reaches_no_handler(entries in proptest::collection::vec(crafted(), 1..8), ordered in any::<bool>()) {
        run(&entries, ordered);
    }
}

#[test]
fn what_is_right_but_for_one_thing_is_refused_for_that() {
    let with = |name: &str, value: Value, by| {
        let mut meta = right();
        meta[name] = value;
        Crafted::Event { meta, data: "1".into(), by }
    };
    let entries = [
        with("v", json!(1), Signed::No),
        with("v", json!(1), Signed::Wrong),
        with("v", json!(1), Signed::Broken),
        with("v", json!(1), Signed::OfOther),
        with("source", json!("nobody"), Signed::Right),
        with("source", json!("b"), Signed::Right),
        with("target", json!("c"), Signed::Right),
        with("timestamp", json!(NOW - 400_000), Signed::Right),
        with("timestamp", json!(NOW + 400_000), Signed::Right),
        with("due", json!(NOW + 400_000), Signed::Right),
        with("message", json!({ "keyId": "another" }), Signed::Right),
        with("message", json!(null), Signed::Right),
        Crafted::Event { meta: right(), data: "[".repeat(65) + &"]".repeat(65), by: Signed::Right },
        with("v", json!(2), Signed::Right),
        Crafted::Fields(Vec::new()),
    ];
    let mut expected = vec!["signature"; 12];
    expected.extend(["malformed"; 3]);
    for ordered in [false, true] {
        for (entry, expected) in entries.iter().zip(&expected) {
            assert_eq!(run(std::slice::from_ref(entry), ordered), [*expected], "{entry:?}");
        }
    }
}
