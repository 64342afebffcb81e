//! Who sent a message hears when it was given up.

use ossa::engine::host::Delivery;
use serde_json::{Value, json};

use crate::desk::{put, secret, two};
use crate::support::harness::{Place, TestBus, failed, idle, ms};

fn give_up() -> Value {
    json!({ "errorStrategy": "dlq" })
}

async fn fails(bus: &TestBus) -> Delivery {
    let delivery = bus.host.next().await;
    bus.settle(&delivery, failed("boom"));
    idle().await;
    delivery
}

fn parsed(delivery: &Delivery) -> (Value, Value) {
    let json = |text: &str| serde_json::from_str::<Value>(text).expect("JSON");
    (json(&delivery.text.meta), json(&delivery.text.data))
}

#[tokio::test(start_paused = true)]
async fn each_group_that_gives_a_message_up_answers_once() {
    let (_place, a, b) = two(81).await;
    a.read_messages("a", "system.error", json!({})).await;
    for group in ["g1", "g2"] {
        let mut options = give_up();
        options["group"] = group.into();
        b.read_messages("b", "t", options).await;
    }
    let id = a.send_with("t", json!("x"), json!({ "correlationId": "c" })).await;
    fails(&b).await;
    fails(&b).await;
    let mut groups = Vec::new();
    for answer in a.host.next_many(2).await {
        let (meta, data) = parsed(&answer);
        assert_eq!(
            (&meta["source"], &meta["target"], &meta["correlationId"], &meta["causationId"]),
            (&json!("b"), &json!("a"), &json!("c"), &json!(id))
        );
        assert_eq!(
            (&data["error"], &data["reason"], &data["messageId"], &data["eventType"]),
            (&json!("boom"), &json!("handler"), &json!(id), &json!("t"))
        );
        assert_eq!((&data["sourceProject"], &data["targetProject"], &data["attempts"]), (&json!("a"), &json!("b"), &json!(1)));
        groups.push(data["group"].as_str().expect("text").to_owned());
        a.done(&answer);
    }
    groups.sort();
    assert_eq!(groups, ["g1", "g2"]);
    // Put back, and given up again: the source knows.
    b.bus.redrive(&ossa::engine::store::DeadLetterQuery { group: Some("g1".into()), ..Default::default() }).await.expect("put back");
    fails(&b).await;
    tokio::time::sleep(ms(10_000)).await;
    assert!(a.host.arrived().is_empty());
    a.verified().await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_fails_is_not_answered() {
    let (_place, a, b) = two(82).await;
    a.read_messages("a", "system.error", give_up()).await;
    b.read_messages("b", "**", give_up()).await;
    a.send("t", json!("x")).await;
    fails(&b).await;
    let answer = fails(&a).await;
    assert_eq!(&*answer.partition.event_type, "@a/system.error");
    tokio::time::sleep(ms(10_000)).await;
    assert!(a.host.arrived().is_empty() && b.host.arrived().is_empty());
    let mut letters: Vec<String> = a.letters().await.into_iter().map(|letter| letter.event_type).collect();
    letters.sort();
    assert_eq!(letters, ["@a/system.error", "@b/t"]);
}

#[tokio::test(start_paused = true)]
async fn a_message_that_was_refused_or_is_done_is_not_answered() {
    let (_place, a, b) = two(83).await;
    a.read_messages("a", "**", json!({})).await;
    b.read_messages("b", "t", json!({ "retry": { "maxAttempts": 1, "initialDelay": 10 } })).await;
    a.send("t", json!("x")).await;
    fails(&b).await;
    let delivery = b.takes(&json!("x")).await;
    put(&b.store, &delivery.partition, &delivery.text.meta, "\"forged\"").await;
    put(&b.store, &delivery.partition, &delivery.text.meta, &delivery.text.data).await;
    put(&b.store, &delivery.partition, "nonsense", "{}").await;
    tokio::time::sleep(ms(10_000)).await;
    assert_eq!(b.letters().await.len(), 3);
    assert!(a.host.arrived().is_empty());
    assert!(a.recorded("sent").await.len() == 1);
}

#[tokio::test(start_paused = true)]
async fn it_is_answered_where_there_are_no_dead_letters() {
    let place = Place::new(84);
    let a = place.desk().await;
    let b = place.desk_with(json!({ "deadLetterQueue": { "enabled": false } }), json!({})).await;
    a.register("a").await;
    b.register("b").await;
    a.read_messages("a", "system.*", json!({})).await;
    b.read_messages("b", "t", give_up()).await;
    let id = a.send("t", json!("x")).await;
    fails(&b).await;
    let (_, data) = parsed(&a.host.next().await);
    assert_eq!((&data["reason"], &data["error"]), (&json!("handler"), &json!("boom")));
    assert_eq!(a.outcomes(&id).await, ["failed", "sent"]);
    assert!(b.letters().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_process_without_the_secret_of_the_target_answers_nothing() {
    let (place, a, _b) = two(85).await;
    let worker = place.desk().await;
    a.read_messages("a", "**", json!({})).await;
    worker.read_messages("b", "t", give_up()).await;
    let id = a.send("t", json!("x")).await;
    fails(&worker).await;
    tokio::time::sleep(ms(10_000)).await;
    assert!(a.host.arrived().is_empty());
    assert_eq!(a.outcomes(&id).await, ["failed", "sent"]);
    assert_eq!(a.records().await.len(), 2, "no noise");
    assert!(secret("b").len() >= 16);
}

#[tokio::test(start_paused = true)]
async fn where_nobody_reads_answers_none_is_sent() {
    let (_place, a, b) = two(86).await;
    b.read_messages("b", "t", give_up()).await;
    a.send("t", json!("x")).await;
    fails(&b).await;
    tokio::time::sleep(ms(10_000)).await;
    assert_eq!(a.records().await.len(), 2);
    assert!(a.store.topology().await.expect("read").types.iter().all(|name| !name.contains("system.error")));
}

/// Its rules are those of messages that people send.
#[tokio::test(start_paused = true)]
async fn an_answer_needs_no_permission_of_the_target() {
    let place = Place::new(87);
    let (a, b) = (place.desk().await, place.desk().await);
    a.register("a").await;
    let mut mute = crate::desk::project("b");
    mute["allowedEventTypes"] = json!([]);
    mute["allowedTargets"] = json!([]);
    mute["rateLimiting"] = json!({ "eventsPerSecond": 0.001, "burstLimit": 1 });
    b.register_as(mute).await;
    a.read_messages("a", "system.error", json!({})).await;
    b.read_messages("b", "t", give_up()).await;
    for n in 0..5 {
        a.send("t", json!(n)).await;
        fails(&b).await;
        let answer = a.host.next().await;
        a.done(&answer);
    }
    // Nobody else may say that.
    let error = b.try_send("b", json!("a"), "system.error", json!({}), json!({})).await.expect_err("refused");
    assert_eq!(error.code.as_str(), "ERR_NOT_PERMITTED");
    let token = b.post("system.error", &json!({ "source": "b", "target": "a", "own": true }), &json!({}));
    assert_eq!(b.host.result(token).await.expect_err("refused").code.as_str(), "ERR_NOT_PERMITTED");
    a.verified().await;
}
