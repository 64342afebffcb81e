//! Keys: handed over, given up, pinned, and for which messages they are believed.

use std::time::Duration;

use ossa::engine::config::Secret;
use ossa::engine::error::Code;
use ossa::engine::event::{self, Extras, MessageMeta, NewMeta, Priority};
use ossa::engine::projects::identity::Signer;
use ossa::engine::store::Partition;
use serde_json::{Value, json};

use crate::desk::{project, project_by, put, secret, two};
use crate::support::harness::{Place, TestBus, idle, ms};

const NEW: &str = "the new secret of project a";
const OTHER: &str = "a secret of somebody else";

fn signer(secret: &str) -> Signer {
    Signer::derive("a", &Secret::new("key of a"), &Secret::new(secret)).expect("derived")
}

/// A message from `a` to `b`, signed now.
async fn let_in(bus: &TestBus, by: Option<&Signer>, data: &Value) {
    let extras = Extras {
        target: Some("b".into()),
        message: Some(MessageMeta {
            from: "test".into(),
            to: "test".into(),
            key_id: by.map(|signer| signer.key_id().to_owned()),
            ..MessageMeta::default()
        }),
        ..Extras::default()
    };
    let id = bus.store.now_ms().to_string();
    let meta = event::pack(&NewMeta {
        id: &id,
        timestamp_ms: bus.store.now_ms(),
        source: "a",
        version: "1.0.0",
        priority: Priority::Normal,
        ttl: 3600.0,
        ttl_given: false,
        extras: Some(&extras),
    });
    let data = data.to_string();
    let meta = match by {
        Some(signer) => event::with_signature(&meta, &signer.sign_message("@b/t", &meta[..meta.len() - 1], data.as_bytes())),
        None => meta,
    };
    put(&bus.store, &Partition::new("@b/t", 0), &meta, &data).await;
}

/// The next message is taken.
async fn is_taken(b: &TestBus, data: Value) {
    b.takes(&data).await;
    b.settles("t", "default").await;
}

/// So many messages were refused by now, the last one because of its signature.
async fn are_refused(b: &TestBus, count: usize) {
    idle().await;
    b.settles("t", "default").await;
    assert!(b.host.arrived().is_empty(), "a handler got one");
    assert_eq!(b.refusals().await, vec![("signature".to_owned(), "ERR_SIGNATURE".to_owned()); count]);
}

#[tokio::test(start_paused = true)]
async fn a_backlog_stays_good_when_the_secret_is_changed() {
    let (_place, a, b) = two(11).await;
    let slow = json!({ "ttl": 10_000 });
    for n in 0..5 {
        a.send_with("t", json!(n), slow.clone()).await;
    }
    tokio::time::advance(Duration::from_secs(60)).await;
    a.register_as(project_by("a", NEW, Some(&secret("a")))).await;
    for n in 5..10 {
        a.send_with("t", json!(n), slow.clone()).await;
    }
    tokio::time::advance(Duration::from_secs(3600)).await;
    b.read_messages("b", "t", json!({})).await;
    for n in 0..10 {
        b.takes(&json!(n)).await;
    }
    b.settles("t", "default").await;
    assert!(b.letters().await.is_empty());
    b.verified().await;
}

#[tokio::test(start_paused = true)]
async fn an_old_key_is_believed_for_ten_seconds_after_it_was_handed_over() {
    let (_place, a, b) = two(12).await;
    b.read_messages("b", "t", json!({})).await;
    a.send("t", json!("first")).await;
    is_taken(&b, json!("first")).await;
    a.register_as(project_by("a", NEW, Some(&secret("a")))).await;
    let (old, new) = (signer(&secret("a")), signer(NEW));
    tokio::time::sleep(ms(9_500)).await;
    let_in(&b, Some(&old), &json!("in time")).await;
    is_taken(&b, json!("in time")).await;
    tokio::time::sleep(ms(1_000)).await;
    let_in(&b, Some(&old), &json!("too late")).await;
    are_refused(&b, 1).await;
    let_in(&b, Some(&new), &json!("by the new one")).await;
    is_taken(&b, json!("by the new one")).await;
    let_in(&b, Some(&signer(OTHER)), &json!("by another")).await;
    are_refused(&b, 2).await;
    let_in(&b, None, &json!("by nobody")).await;
    are_refused(&b, 3).await;
    b.verified().await;
}

#[tokio::test(start_paused = true)]
async fn whoever_has_the_old_secret_sends_no_more() {
    let (place, a, b) = two(13).await;
    let colleague = place.desk().await;
    colleague.register("a").await;
    b.read_messages("b", "t", json!({})).await;
    colleague.send("t", json!("by the old secret")).await;
    a.register_as(project_by("a", NEW, Some(&secret("a")))).await;
    idle().await;
    let error = colleague.try_send("a", json!("b"), "t", json!(1), json!({})).await.expect_err("refused");
    assert_eq!((error.code, error.retryable), (Code::NotPermitted, false), "{error}");
    assert!(error.message.contains("changed"), "{error}");
    let conflict = colleague.projects().register(project("a")).await.expect_err("refused");
    assert_eq!(conflict.code, Code::ProjectConflict);
    colleague.register_as(project_by("a", NEW, None)).await;
    colleague.send("t", json!("by the new secret")).await;
    for data in ["by the old secret", "by the new secret"] {
        b.takes(&json!(data)).await;
    }
    assert_eq!(b.recorded("denied").await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn only_the_owner_unregisters_a_project_and_its_backlog_stays_good() {
    let (_place, a, b) = two(14).await;
    for n in 0..3 {
        a.send_with("t", json!(n), json!({ "ttl": 10_000 })).await;
    }
    assert_eq!(b.projects().unregister("a").await.expect_err("refused").code, Code::NotPermitted);
    assert!(a.projects().unregister("a").await.expect("unregistered"));
    assert!(!a.projects().unregister("a").await.expect("it is gone"));
    let error = a.try_send("a", json!("b"), "t", json!(9), json!({})).await.expect_err("refused");
    assert_eq!(error.code, Code::ProjectUnknown);
    assert_eq!(b.try_send("b", json!("a"), "t", json!(9), json!({})).await.expect_err("refused").code, Code::ProjectUnknown);
    tokio::time::advance(Duration::from_secs(3600)).await;
    b.read_messages("b", "t", json!({})).await;
    for n in 0..3 {
        b.takes(&json!(n)).await;
    }
    let_in(&b, Some(&signer(&secret("a"))), &json!("after the end")).await;
    are_refused(&b, 1).await;
    b.verified().await;
}

#[tokio::test(start_paused = true)]
async fn what_was_sent_before_somebody_else_took_the_name_is_refused() {
    let (place, a, b) = two(15).await;
    let heir = place.desk().await;
    for n in 0..3 {
        a.send_with("t", json!(n), json!({ "ttl": 10_000 })).await;
    }
    assert!(a.projects().unregister("a").await.expect("unregistered"));
    // At once: the name is free, the messages are not the heir's.
    heir.register_as(project_by("a", OTHER, None)).await;
    assert_eq!(a.projects().register(project("a")).await.expect_err("refused").code, Code::ProjectConflict);
    let error = a.try_send("a", json!("b"), "t", json!(9), json!({})).await.expect_err("refused");
    assert_eq!(error.code, Code::NotPermitted);
    heir.send_with("t", json!("of the heir"), json!({ "ttl": 10_000 })).await;
    // What was recorded before is as it was written, though its signatures are nobody's any more.
    b.verified().await;
    tokio::time::advance(Duration::from_secs(60)).await;
    b.read_messages("b", "t", json!({})).await;
    is_taken(&b, json!("of the heir")).await;
    are_refused(&b, 3).await;
    assert_eq!(b.recorded("forged").await.len(), 3);
    b.verified().await;
}

#[tokio::test(start_paused = true)]
async fn a_pinned_key_is_believed_and_those_that_follow_from_it() {
    let place = Place::new(16);
    let a = place.desk().await;
    a.register("a").await;
    a.register("b").await;
    let old = signer(&secret("a")).public_key();
    let b = place.desk_with(json!({}), json!({ "trustedKeys": { "a": old.to_text() } })).await;
    b.read_messages("b", "t", json!({})).await;
    a.send("t", json!("by the pinned key")).await;
    is_taken(&b, json!("by the pinned key")).await;
    a.register_as(project_by("a", NEW, Some(&secret("a")))).await;
    a.send("t", json!("by one that follows")).await;
    is_taken(&b, json!("by one that follows")).await;
    // Somebody writes the projects as he likes.
    assert!(a.projects().unregister("a").await.expect("unregistered"));
    a.register_as(project_by("a", OTHER, None)).await;
    a.send("t", json!("by one that does not")).await;
    are_refused(&b, 1).await;
    let found = b.projects().validate("a").await.expect("looked");
    assert_eq!(found["isValid"], false, "{found}");
    assert!(found["errors"].to_string().contains("trustedKeys"), "{found}");
}

#[tokio::test(start_paused = true)]
async fn a_pinned_project_without_a_key_sends_nothing() {
    let place = Place::new(17);
    let a = place.desk().await;
    let mut open = project("a");
    open.as_object_mut().expect("an object").remove("credentials");
    a.register_as(open).await;
    a.register("b").await;
    let b = place.desk_with(json!({}), json!({ "trustedKeys": { "a": signer(NEW).public_key().to_text() } })).await;
    b.read_messages("b", "t", json!({})).await;
    a.send("t", json!("unsigned")).await;
    are_refused(&b, 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_project_that_begins_to_sign_has_a_backlog_without_signatures() {
    let place = Place::new(18);
    let (a, b) = (place.desk().await, place.desk().await);
    let mut open = project("a");
    open.as_object_mut().expect("an object").remove("credentials");
    a.register_as(open).await;
    b.register("b").await;
    a.send("t", json!("unsigned")).await;
    tokio::time::sleep(ms(1000)).await;
    a.register("a").await;
    a.send("t", json!("signed")).await;
    b.read_messages("b", "t", json!({})).await;
    b.takes(&json!("unsigned")).await;
    b.takes(&json!("signed")).await;
    // Other processes have that long to hear of the key.
    tokio::time::sleep(ms(10_000)).await;
    let_in(&b, None, &json!("unsigned, later")).await;
    are_refused(&b, 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_handler_may_want_signed_messages_only() {
    let place = Place::new(19);
    let (a, b) = (place.desk().await, place.desk().await);
    let mut open = project("a");
    open.as_object_mut().expect("an object").remove("credentials");
    a.register_as(open).await;
    b.register("b").await;
    b.read_messages("b", "t", json!({ "requireSignatureValidation": true })).await;
    a.send("t", json!("unsigned")).await;
    are_refused(&b, 1).await;
    a.register("a").await;
    a.send("t", json!("signed")).await;
    is_taken(&b, json!("signed")).await;
}

#[tokio::test(start_paused = true)]
async fn without_security_nothing_is_signed_or_verified() {
    let place = Place::new(20);
    let off = json!({ "securityEnabled": false });
    let (a, b) = (place.desk_with(json!({}), off.clone()).await, place.desk_with(json!({}), off).await);
    let strict = place.desk().await;
    a.register("a").await;
    b.register("b").await;
    b.read_messages("b", "t", json!({})).await;
    strict.read_messages("b", "t", json!({ "group": "strict" })).await;
    a.send("t", json!("x")).await;
    let delivery = b.takes(&json!("x")).await;
    assert!(!delivery.text.meta.contains("\"sig\""));
    strict.settles("t", "strict").await;
    assert!(strict.host.arrived().is_empty());
    assert_eq!(strict.refusals().await, [("signature".to_owned(), "ERR_SIGNATURE".to_owned())]);
}
