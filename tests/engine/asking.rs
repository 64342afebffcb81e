//! Who waits for what becomes of an event, and events that are not stored.

use std::sync::Arc;

use ossa::engine::ask::message::{Answer, Failed};
use ossa::engine::consume::{Reply, Verdict};
use ossa::engine::error::{Code, Error};
use ossa::engine::event::MetaView;
use ossa::engine::host::{Delivery, Kind};
use ossa::engine::store::{Disposal, EntryId, GroupSpec, StartFrom, Store};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::support::events::{LONG, claim, held, partition, take_one};
use crate::support::faulty::Fault;
use crate::support::harness::{Place, TestBus, data, failed, idle, ms, timed_out};

/// Where the answer to the delivery goes.
fn reply(delivery: &Delivery, answer: Answer) -> Verdict {
    let asked = MetaView::read(delivery.text.meta.as_bytes()).expect("readable").asked().expect("somebody waits");
    Verdict::Replied(Reply { to: asked.reply_to.expect("for a reply"), event_id: asked.event_id, answer })
}

fn replied(delivery: &Delivery, json: &str) -> Verdict {
    reply(delivery, Answer::Reply(json.into()))
}

/// Sends a record with options as they cross.
fn submit(bus: &TestBus, token: u32, options: &str) {
    bus.bus.publish(token, format!("a\t{options}\t\"x\"\n"));
}

fn answered(bus: &TestBus, token: u32) -> impl Future<Output = Result<String, Error>> {
    bus.host.result(token)
}

fn once() -> Value {
    json!({ "retry": { "maxAttempts": 0 } })
}

const ACK: &str = r#"{"waitForAck":true,"ackTimeoutMs":20000}"#;

#[tokio::test(start_paused = true)]
async fn waiting_for_the_acknowledgement_ends_with_it() {
    let place = Place::new(1);
    let (publisher, consumer) = (place.bus().await, place.bus().await);
    consumer.subscribe("a", json!({})).await;
    submit(&publisher, 1000, ACK);
    let delivery = consumer.host.next().await;
    assert!(!delivery.text.asks);
    idle().await;
    assert_eq!(publisher.host.said(Kind::Published).len(), 1);
    let id = MetaView::read(delivery.text.meta.as_bytes()).unwrap().id.to_string();
    consumer.done(&delivery);
    let before = Instant::now();
    assert_eq!(answered(&publisher, 1000).await.unwrap(), id);
    assert!(before.elapsed() < ms(500), "it was announced, not found by looking");
}

#[tokio::test(start_paused = true)]
async fn an_event_that_is_given_up_fails_whoever_waits() {
    let place = Place::new(2);
    let (publisher, consumer) = (place.bus().await, place.bus().await);
    consumer.subscribe("a", once()).await;
    for (token, options, code) in [(1000, ACK, Code::Remote), (1001, "?20000", Code::Remote)] {
        submit(&publisher, token, options);
        consumer.settle(&consumer.host.next().await, failed("no paper"));
        let error = answered(&publisher, token).await.unwrap_err();
        assert_eq!((error.code, error.details["error"].as_str()), (code, Some("no paper")));
        assert_eq!((error.details["reason"].as_str(), error.details["group"].as_str()), (Some("max-attempts"), Some("default")));
        assert!(error.message.contains("no paper"), "{}", error.message);
    }
}

#[tokio::test(start_paused = true)]
async fn without_dead_letters_it_is_told_all_the_same() {
    let place = Place::new(3);
    let publisher = place.bus_with(json!({ "deadLetterQueue": { "enabled": false } })).await;
    publisher.subscribe("a", once()).await;
    submit(&publisher, 1000, ACK);
    publisher.settle(&publisher.host.next().await, failed("no paper"));
    assert_eq!(answered(&publisher, 1000).await.unwrap_err().code, Code::Remote);
}

#[tokio::test(start_paused = true)]
async fn the_first_group_to_decide_counts() {
    let place = Place::new(4);
    let (publisher, a, b) = (place.bus().await, place.bus().await, place.bus().await);
    a.subscribe("a", json!({ "group": "a" })).await;
    b.subscribe("a", json!({ "group": "b" })).await;
    submit(&publisher, 1000, ACK);
    let (of_a, of_b) = (a.host.next().await, b.host.next().await);
    a.settle(&of_a, failed("later"));
    b.done(&of_b);
    assert!(answered(&publisher, 1000).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn time_is_over_to_the_millisecond_and_the_event_stays() {
    let bus = Place::new(5).bus().await;
    let start = Instant::now();
    submit(&bus, 1000, r#"{"waitForAck":true,"ackTimeoutMs":1500}"#);
    submit(&bus, 1001, "?700");
    let error = answered(&bus, 1001).await.unwrap_err();
    assert_eq!((error.code, error.details["timeoutMs"].as_u64()), (Code::RequestTimeout, Some(700)));
    assert!((700..705).contains(&start.elapsed().as_millis()));
    assert_eq!(answered(&bus, 1000).await.unwrap_err().code, Code::AckTimeout);
    assert!((1500..1505).contains(&start.elapsed().as_millis()));
    assert_eq!(bus.partition("a").await.length, 2);
}

#[tokio::test(start_paused = true)]
async fn an_acknowledgement_that_nobody_could_announce_is_found() {
    let place = Place::new(6);
    let (publisher, store) = (place.bus().await, place.store() as Arc<dyn Store>);
    let at = partition("a");
    crate::support::events::prepare(&store, &at, "g", "c").await;
    submit(&publisher, 1000, ACK);
    submit(&publisher, 1001, ACK);
    idle().await;
    let (first, second) = (take_one(&store, &at, "g", "c").await, take_one(&store, &at, "g", "c").await);
    store.settle(at.bucket(), "g", "c", vec![(held(&first), Disposal::Acknowledge)]).await.unwrap();
    assert!(answered(&publisher, 1000).await.is_ok());
    let dead = crate::support::events::dead_letter("no paper");
    store.settle(at.bucket(), "g", "c", vec![(held(&second), dead)]).await.unwrap();
    assert_eq!(answered(&publisher, 1001).await.unwrap_err().code, Code::Remote);
}

#[tokio::test(start_paused = true)]
async fn an_acknowledgement_of_a_delayed_or_repeated_event_is_found_too() {
    let place = Place::new(7);
    let (publisher, store) = (place.bus().await, place.store() as Arc<dyn Store>);
    let at = partition("a");
    crate::support::events::prepare(&store, &at, "g", "c").await;
    submit(&publisher, 1000, r#"{"waitForAck":true,"delayMs":3000}"#);
    submit(&publisher, 1001, r#"{"idempotencyKey":"k"}"#);
    submit(&publisher, 1002, r#"{"idempotencyKey":"k","waitForAck":true}"#);
    let first = answered(&publisher, 1001).await.unwrap();
    let entry = take_one(&store, &at, "g", "c").await;
    store.settle(at.bucket(), "g", "c", vec![(held(&entry), Disposal::Acknowledge)]).await.unwrap();
    assert_eq!(answered(&publisher, 1002).await.unwrap(), first, "the event first published is waited for");
    tokio::time::sleep(ms(3500)).await;
    let entry = take_one(&store, &at, "g", "c").await;
    store.settle(at.bucket(), "g", "c", vec![(held(&entry), Disposal::Acknowledge)]).await.unwrap();
    assert!(answered(&publisher, 1000).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_request_is_answered_with_what_the_handler_returned() {
    let place = Place::new(8);
    let (asker, answerer) = (place.bus().await, place.bus().await);
    answerer.subscribe("a", json!({})).await;
    submit(&asker, 1000, r#"?20000{"correlationId":"c"}"#);
    let delivery = answerer.host.next().await;
    assert!(delivery.text.asks);
    assert_eq!(MetaView::read(delivery.text.meta.as_bytes()).unwrap().ttl_ms(), Some(20_000));
    answerer.settle(&delivery, replied(&delivery, r#"{"sum":3,"__proto__":1}"#));
    assert_eq!(answered(&asker, 1000).await.unwrap(), r#"{"sum":3,"__proto__":1}"#);
    idle().await;
    assert_eq!(answerer.pending("a", "default").await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_retry_answers_what_the_first_attempt_could_not() {
    let bus = Place::new(9).bus().await;
    bus.subscribe("a", json!({ "retry": { "initialDelay": 100 } })).await;
    submit(&bus, 1000, "?20000");
    bus.settle(&bus.host.next().await, failed("not yet"));
    let again = bus.host.next().await;
    assert_eq!(again.attempt, 2);
    bus.settle(&again, replied(&again, "7"));
    assert_eq!(answered(&bus, 1000).await.unwrap(), "7");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_cannot_be_sent_and_an_ignored_failure_are_told() {
    let bus = Place::new(10).bus().await;
    bus.subscribe("a", json!({ "errorStrategy": "ignore" })).await;
    submit(&bus, 1000, "?20000");
    let delivery = bus.host.next().await;
    bus.settle(&delivery, reply(&delivery, Answer::Failed(Failed { error: "it is a BigInt".into(), ..Failed::default() })));
    let error = answered(&bus, 1000).await.unwrap_err();
    assert_eq!((error.code, error.details["error"].as_str()), (Code::Remote, Some("it is a BigInt")));
    submit(&bus, 1001, "?20000");
    bus.settle(&bus.host.next().await, failed("boom"));
    assert_eq!(answered(&bus, 1001).await.unwrap_err().details["error"], "boom");
    idle().await;
    assert_eq!((bus.dead_letters().await.len(), bus.pending("a", "default").await), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_reply_is_posted_before_its_event_is_acknowledged() {
    let (bus, faults) = Place::new(11).faulty_bus().await;
    bus.subscribe("a", json!({ "retry": { "initialDelay": 100 } })).await;
    submit(&bus, 1000, "?20000");
    let delivery = bus.host.next().await;
    faults.next("post", &[Fault::Refused]);
    bus.settle(&delivery, replied(&delivery, "1"));
    // The delivery failed with its reply, and comes again.
    let again = bus.host.next().await;
    assert_eq!((again.attempt, faults.settled().len()), (2, 1));
    assert!(matches!(faults.settled()[0].1, Disposal::Retry { .. }));
    // While the server is away, the reply waits.
    faults.next("post", &[Fault::NotReached, Fault::ReplyLost]);
    bus.settle(&again, replied(&again, "2"));
    assert_eq!(answered(&bus, 1000).await.unwrap(), "2");
    // Once it knows that the reply is there.
    tokio::time::sleep(ms(200)).await;
    assert_eq!(bus.pending("a", "default").await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_late_answer_is_an_answer() {
    let bus = Place::new(12).bus().await;
    bus.subscribe("a", json!({ "retry": { "initialDelay": 5000 } })).await;
    submit(&bus, 1000, "?20000");
    let delivery = bus.host.next().await;
    bus.settle(&delivery, timed_out());
    bus.settle(&delivery, replied(&delivery, "1"));
    assert_eq!(answered(&bus, 1000).await.unwrap(), "1");
    idle().await;
    assert_eq!(bus.pending("a", "default").await, 0, "the late success acknowledged it");
}

#[tokio::test(start_paused = true)]
async fn confirmations_come_when_the_answered_event_is_settled() {
    let bus = Place::new(13).bus().await;
    bus.subscribe("a", json!({})).await;
    submit(&bus, 1000, "?20000");
    let delivery = bus.host.next().await;
    bus.bus.settle(vec![(delivery.token, replied(&delivery, "1"))], 77);
    assert!(bus.host.confirmed(77).await.is_none());
    assert_eq!(bus.pending("a", "default").await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_failed_publish_answers_at_once_and_cancelling_ends_the_wait() {
    let (bus, faults) = Place::new(14).faulty_bus().await;
    faults.next("layout", &[Fault::Refused]);
    submit(&bus, 1000, "?20000");
    assert_eq!(answered(&bus, 1000).await.unwrap_err().code, Code::Redis);
    submit(&bus, 1001, ACK);
    idle().await;
    bus.bus.cancel(1001);
    assert_eq!(answered(&bus, 1001).await.unwrap_err().code, Code::Aborted);
    assert_eq!(bus.partition("a").await.length, 1);
}

#[tokio::test(start_paused = true)]
async fn calls_that_wait_are_bounded_and_end_with_the_bus() {
    let bus = Place::new(15).bus_with(json!({ "limits": { "maxPendingPublishes": 2 } })).await;
    submit(&bus, 1000, ACK);
    submit(&bus, 1001, "?20000");
    idle().await;
    submit(&bus, 1002, ACK);
    assert_eq!(answered(&bus, 1002).await.unwrap_err().code, Code::Backpressure);
    bus.disconnect(ms(0)).await;
    assert_eq!(answered(&bus, 1000).await.unwrap_err().code, Code::Closed);
    assert_eq!(answered(&bus, 1001).await.unwrap_err().code, Code::Closed);
}

/// A member of the group 'default' that lives until it is released.
async fn member(store: &Arc<dyn Store>, name: &str) {
    let options = r#"{"startFrom":"beginning","autoAck":true}"#.to_owned();
    let spec = GroupSpec { group: "default".into(), pattern: "a".into(), options };
    store.join(&spec, StartFrom::Beginning, name).await.unwrap();
    assert!(store.renew(name, &[partition("a").bucket()], LONG).await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_responder_that_dies_is_replaced() {
    let place = Place::new(16);
    let (asker, store, at) = (place.bus().await, place.store() as Arc<dyn Store>, partition("a"));
    member(&store, "dies").await;
    submit(&asker, 1000, "?60000");
    idle().await;
    take_one(&store, &at, "default", "dies").await;
    store.release("dies", &[at.bucket()]).await.unwrap();
    asker.subscribe("a", json!({})).await;
    let again = asker.host.next().await;
    assert!(again.text.asks && again.redelivered);
    asker.settle(&again, replied(&again, "\"alive\""));
    assert_eq!(answered(&asker, 1000).await.unwrap(), "\"alive\"");
}

#[tokio::test(start_paused = true)]
async fn an_event_that_kills_its_processes_is_told() {
    let place = Place::new(21);
    let (asker, store, at) = (place.bus().await, place.store() as Arc<dyn Store>, partition("a"));
    member(&store, "0").await;
    submit(&asker, 1000, "?60000");
    idle().await;
    for name in ["0", "1", "2"] {
        member(&store, name).await;
        if name == "0" {
            take_one(&store, &at, "default", name).await;
        } else {
            claim(&store, &at, "default", name, 1).await;
        }
        store.release(name, &[at.bucket()]).await.unwrap();
    }
    let error = answered(&asker, 1000).await.unwrap_err();
    assert_eq!((error.code, error.details["reason"].as_str()), (Code::Remote, Some("crashed")));
}

// Events that are not stored.

const TRANSIENT: &str = r#"{"transient":true}"#;

#[tokio::test(start_paused = true)]
async fn transient_events_reach_every_subscription_of_this_moment_and_no_store() {
    let place = Place::new(17);
    let (publisher, other) = (place.bus().await, place.bus().await);
    submit(&publisher, 999, TRANSIENT);
    assert_eq!(answered(&publisher, 999).await.unwrap().len(), 36);
    publisher.subscribe("a", json!({})).await;
    publisher.subscribe("a", json!({ "group": "g" })).await;
    other.subscribe("*", json!({})).await;
    other.subscribe("b", json!({})).await;
    submit(&publisher, 1000, TRANSIENT);
    let id = answered(&publisher, 1000).await.unwrap();
    let mut deliveries = publisher.host.next_many(2).await;
    deliveries.push(other.host.next().await);
    for delivery in &deliveries {
        assert_eq!((data(delivery), delivery.attempt, delivery.redelivered), ("x", 1, false));
        assert_eq!(delivery.id, EntryId::default());
        assert!(delivery.text.meta.contains(&id));
    }
    idle().await;
    assert!(publisher.host.arrived().is_empty() && other.host.arrived().is_empty());
    // Nothing is tried again, nothing is kept.
    publisher.settle(&deliveries[0], failed("boom"));
    publisher.done(&deliveries[1]);
    tokio::time::sleep(ms(60_000)).await;
    assert!(publisher.host.arrived().is_empty());
    assert_eq!(publisher.partition("a").await.length, 0);
    assert_eq!(publisher.dead_letters().await, []);
    assert_eq!(publisher.host.said(Kind::Failed)[0]["streamId"], "0-0");
}

#[tokio::test(start_paused = true)]
async fn transient_events_wait_for_places_and_too_many_are_dropped_and_said_once() {
    let bus = Place::new(18).bus().await;
    let id = bus.subscribe("a", json!({ "concurrency": 1 })).await;
    let records = format!("a\t{TRANSIENT}\t\"x\"\n").repeat(1100);
    bus.bus.publish(1000, records);
    for n in 0..1100 {
        answered(&bus, 1000 + n).await.unwrap();
    }
    let mut count = 1;
    let mut delivery = bus.host.next().await;
    assert!(bus.host.arrived().is_empty(), "one at a time");
    let said = |bus: &TestBus| bus.host.said(Kind::Log).iter().filter(|said| said["message"].as_str().unwrap().contains("dropped")).count();
    idle().await;
    assert_eq!(said(&bus), 1);
    loop {
        bus.done(&delivery);
        idle().await;
        match bus.host.arrived().pop() {
            Some(next) => (delivery, count) = (next, count + 1),
            None => break,
        }
    }
    assert!((1000..1100).contains(&count), "{count}");
    assert_eq!(said(&bus), 2, "how many, when it was over");
    // A paused subscription is not there for them.
    bus.bus.pause(id, true);
    submit(&bus, 5000, TRANSIENT);
    answered(&bus, 5000).await.unwrap();
    idle().await;
    bus.bus.pause(id, false);
    idle().await;
    assert!(bus.host.arrived().is_empty());
}

#[tokio::test(start_paused = true)]
async fn closing_waits_for_handlers_of_transient_events_until_its_deadline() {
    let bus = Place::new(19).bus().await;
    let id = bus.subscribe("a", json!({})).await;
    submit(&bus, 1000, TRANSIENT);
    let delivery = bus.host.next().await;
    let start = Instant::now();
    bus.bus.unsubscribe(id, ms(300)).await.unwrap();
    assert!((300..450).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
    bus.done(&delivery);
    bus.subscribe("a", json!({})).await;
    submit(&bus, 1001, TRANSIENT);
    let delivery = bus.host.next().await;
    bus.settle(&delivery, timed_out());
    let start = Instant::now();
    bus.disconnect(ms(5000)).await;
    assert!(start.elapsed() < ms(4000), "a handler past its time is not waited for: {:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_sent_is_an_error() {
    let (bus, faults) = Place::new(20).faulty_bus().await;
    faults.next("cast", &[Fault::NotReached]);
    submit(&bus, 1000, TRANSIENT);
    assert_eq!(answered(&bus, 1000).await.unwrap_err().code, Code::Connection);
    submit(&bus, 1001, r#"{"transient":true,"waitForAck":true}"#);
    assert_eq!(answered(&bus, 1001).await.unwrap_err().code, Code::InvalidArgument);
}
