//! What replay and explain make of a store: over all streams of a type, in their order.

use ossa::engine::event::Priority;
use ossa::engine::explain::explain;
use ossa::engine::history::{self, Period};
use ossa::engine::store::{Body, EntryId, Partition, Store, StreamLayout};
use serde_json::{Value, json};

use crate::support::events::{
    acknowledge, bury, claim, dead_letter, event, events, of_type, partition, prepare, publish, retry, settle, take, take_one,
};
use crate::support::wait::until;
use crate::support::world::World;

const START: EntryId = EntryId { ms: 0, seq: 0 };
const END: EntryId = EntryId { ms: u64::MAX, seq: u64::MAX };

/// Lanes and partitions of one type.
fn streams(event_type: &str) -> Vec<Partition> {
    let lanes = |index| [Priority::Critical, Priority::Normal, Priority::Low].map(|lane| Partition::new(event_type, index).in_lane(lane));
    (0..3).flat_map(lanes).collect()
}

/// All pages of a replay, with at most `count` events each.
async fn replay(store: &dyn Store, event_type: &str, count: Option<usize>) -> (Vec<String>, usize) {
    let (mut data, mut foreign, mut cursor) = (Vec::new(), 0, None::<String>);
    for _ in 0..10_000 {
        let page = history::page(store, event_type, &Period::default(), cursor.as_deref(), count).await.expect("a page");
        assert!(count.is_none_or(|count| page.events.len() <= count));
        data.extend(page.events.into_iter().map(|event| event.data));
        foreign += page.foreign.map_or(0, |(count, ..)| count);
        cursor = page.cursor;
        if cursor.is_none() {
            return (data, foreign);
        }
    }
    panic!("the replay does not end")
}

pub async fn a_replay_merges_all_streams_of_a_type_in_the_order_of_their_entries(world: &World) {
    let (store, streams) = (&world.store, streams("history.merged"));
    let layout = StreamLayout { partitions: 3, ..StreamLayout::default() };
    store.create_stream("history.merged", &layout).await.expect("created");
    for at in &streams {
        store.open_partition(at).await.expect("opened");
    }
    // Uneven: most are in one stream, some streams have few or none.
    for round in 0..120 {
        for (nth, at) in streams.iter().enumerate().skip(1) {
            let count = if nth == 4 { 10 } else { usize::from(round % (nth + 3) == 0) };
            if count > 0 {
                publish(store, events(at, &format!("{nth}.{round}"), count)).await;
            }
        }
    }
    world.add_foreign(&streams[4], &[("a", b"1")]).await;
    let mut expected = Vec::new();
    for at in &streams {
        for kept in store.history(at, START, END, 100_000).await.expect("read") {
            if let Body::Event { data, .. } = kept.body {
                expected.push((kept.id, at.clone(), String::from_utf8(data.into()).expect("text")));
            }
        }
    }
    expected.sort();
    let expected: Vec<String> = expected.into_iter().map(|(.., data)| data).collect();
    assert!(expected.len() > 1200, "{}", expected.len());
    for count in [None, Some(1000), Some(7)] {
        assert_eq!(replay(&**store, "history.merged", count).await, (expected.clone(), 1), "pages of {count:?}");
    }
    assert_eq!(replay(&**store, "history.nothing", None).await, (Vec::new(), 0));
}

pub async fn a_replay_leaves_out_copies_of_redriven_events(world: &World) {
    let (store, at) = (&world.store, partition("history.copies"));
    prepare(store, &at, "g", "c").await;
    bury(store, &at, "g", "c", "e", 40).await;
    assert_eq!(store.redrive(&of_type(&at)).await.expect("redriven"), 40);
    publish(store, vec![event(&at, "last")]).await;
    let expected: Vec<String> = (0..40).map(|n| format!("\"e-{n}\"")).chain(["\"last\"".into()]).collect();
    for count in [None, Some(1)] {
        assert_eq!(replay(&**store, &at.event_type, count).await, (expected.clone(), 0));
    }
}

/// The id of an event whose publisher's clock said `ms`.
fn id_at(ms: u64, n: u64) -> String {
    format!("{:08x}-{:04x}-7000-8000-{n:012x}", ms >> 16, ms & 0xffff)
}

async fn told(store: &dyn Store, event_type: &str, event_id: &str) -> Value {
    explain(store, event_type, event_id, Some(3_600_000)).await.expect("explained")
}

pub async fn an_event_is_explained_in_whatever_stream_it_is(world: &World) {
    let (store, streams) = (&world.store, streams("history.explained"));
    store.create_stream("history.explained", &StreamLayout { partitions: 3, ..StreamLayout::default() }).await.expect("created");
    for (at, group) in streams.iter().zip(["g", "h"].into_iter().cycle()) {
        prepare(store, at, group, "c").await;
    }
    let now = store.now_ms();
    for (nth, at) in (0..).zip(&streams) {
        publish(store, vec![event(at, &id_at(now, nth))]).await;
        let told = told(&**store, "history.explained", &id_at(now, nth)).await;
        let last = store.last_entry(at).await.expect("read").expect("an entry");
        assert_eq!((&told["state"], &told["streamId"]), (&json!("stored"), &json!(last.to_string())), "{at}");
        let states: Vec<&Value> = told["groups"].as_array().expect("groups").iter().map(|group| &group["state"]).collect();
        assert_eq!(states, ["not-delivered", "not-delivered"], "{at}");
    }
    assert_eq!(told(&**store, "history.explained", &id_at(now, 99)).await, Value::Null);
}

pub async fn an_event_is_found_while_its_publishers_clock_is_not_too_wrong(world: &World) {
    let (store, at) = (&world.store, partition("history.skewed"));
    store.open_partition(&at).await.expect("opened");
    let now = store.now_ms();
    let skews = [
        ("behind", now - 50_000, true),
        ("ahead", now + 50_000, true),
        ("far behind", now - 300_000, false),
        ("far ahead", now + 300_000, false),
    ];
    for (nth, (what, ms, found)) in (0..).zip(skews) {
        publish(store, vec![event(&at, &id_at(ms, nth))]).await;
        assert_eq!(told(&**store, &at.event_type, &id_at(ms, nth)).await != Value::Null, found, "{what}");
    }
    // What is noted is found wherever it is.
    let mut delayed = event(&at, &id_at(now - 300_000, 77));
    delayed.delay_ms = Some(1);
    publish(store, vec![delayed]).await;
    until("it moved", async || store.move_delayed(at.bucket()).await.expect("moved").0 == 1).await;
    let found = told(&**store, &at.event_type, &id_at(now - 300_000, 77)).await;
    assert_eq!(found["state"], "stored");
}

pub async fn an_explanation_follows_a_redriven_event(world: &World) {
    let (store, at) = (&world.store, partition("history.again"));
    for group in ["g", "h"] {
        prepare(store, &at, group, "c").await;
    }
    let id = id_at(store.now_ms(), 1);
    publish(store, vec![event(&at, &id)]).await;
    let state = async |group: usize| told(&**store, &at.event_type, &id).await["groups"][group].clone();
    let others = take(store, &at, "h", "c", 10).await;
    acknowledge(store, "h", "c", &others).await;
    for _ in 0..2 {
        let entry = take_one(store, &at, "g", "c").await;
        assert_eq!(state(0).await, json!({ "name": "g", "state": "held", "consumer": "c", "attempts": 1 }));
        settle(store, "g", "c", &entry, retry(0)).await;
        let waiting = state(0).await;
        assert_eq!((&waiting["state"], &waiting["lastError"]), (&json!("retry-due"), &json!("it failed")));
        assert!(waiting["nextRetryAt"].as_u64().expect("a time").abs_diff(store.now_ms()) < 60_000);
        let entry = claim(store, &at, "g", "c", 1).await.remove(0);
        settle(store, "g", "c", &entry, dead_letter("no")).await;
        assert_eq!(state(0).await, json!({ "name": "g", "state": "dead-lettered", "attempts": 4, "lastError": "no" }));
        assert_eq!(store.redrive(&of_type(&at)).await.expect("redriven"), 1);
        assert_eq!(state(0).await, json!({ "name": "g", "state": "not-delivered", "attempts": 0 }));
        assert_eq!(state(1).await, json!({ "name": "h", "state": "acknowledged", "attempts": 0 }));
    }
    let entry = take_one(store, &at, "g", "c").await;
    acknowledge(store, "g", "c", &[entry]).await;
    assert_eq!(state(0).await, json!({ "name": "g", "state": "acknowledged", "attempts": 0 }));
}
