//! What is read of a message that is to be sent, and as what its refusal is recorded.

use serde_json::json;

use super::*;
use crate::engine::event::Priority;

fn read(address: &Value) -> Result<Letter, Box<Refused>> {
    let (token, event_type) = (7, "t".to_owned());
    Letter::read(Outgoing { token, event_type, address: address.to_string(), data: "1".into() }, 0)
}

#[test]
fn targets_are_one_several_or_all() {
    let target = |value: Value| Target::read(value).map(|target| target.shown()).map_err(|error| error.details["argument"].clone());
    for (value, shown) in [(json!("b"), "b"), (json!("*"), "*"), (json!(["b"]), "b"), (json!(["b", "c"]), "b,c")] {
        assert_eq!(target(value), Ok(shown.to_owned()));
    }
    let many = |count: usize| json!(vec!["b"; count]);
    assert!(target(many(1000)).is_ok());
    for value in [json!(null), json!(1), json!([]), json!({}), json!([1]), json!([["b"]]), json!(["b", null]), many(1001)] {
        assert_eq!(target(value.clone()), Err(json!("target")), "{value}");
    }
    assert_eq!(shortened(&"é".repeat(300)).chars().count(), 256);
}

#[test]
fn options_are_those_of_a_message_and_no_others() {
    let all = json!({
        "correlationId": "c", "causationId": "d", "priority": "high", "ttl": 5, "delayMs": 6, "partitionKey": "k", "idempotencyKey": "i",
        "tags": ["t"], "headers": { "h": "1" }, "contractVersion": "^1.2",
    });
    let letter = read(&json!({ "source": "a", "target": "b", "options": all })).map_err(|refused| refused.error).unwrap();
    assert_eq!((letter.token, letter.source.as_str(), letter.own), (7, "a", false));
    assert_eq!((letter.options.priority, letter.options.ttl, letter.options.delay_ms), (Some(Priority::High), Some(5.0), Some(6)));
    assert_eq!(letter.version, VersionReq::parse("^1.2").ok());
    assert_eq!(OPTIONS.len(), all.as_object().unwrap().len(), "all of them are played");
    for (options, path) in [
        (json!({ "waitForAck": true }), "options.waitForAck"),
        (json!({ "source": "x" }), "options.source"),
        (json!({ "version": "1.0.0" }), "options.version"),
        (json!({ "target": "x" }), "options.target"),
        (json!({ "transient": true }), "options.transient"),
        (json!({ "deliverAt": 5 }), "options.deliverAt"),
        (json!({ "retry": {} }), "options.retry"),
        (json!({ "ttl": "5" }), "options.ttl"),
        (json!({ "delayMs": -1 }), "options.delayMs"),
        (json!({ "priority": "urgent" }), "options.priority"),
        (json!({ "tags": "t" }), "options.tags"),
        (json!({ "headers": { "h": 1 } }), "options.headers"),
        (json!({ "idempotencyKey": "" }), "options.idempotencyKey"),
        (json!({ "contractVersion": "latest" }), "options.contractVersion"),
        (json!({ "contractVersion": 1 }), "options.contractVersion"),
        (json!({ "__proto__": 1 }), "options.__proto__"),
    ] {
        let refused = read(&json!({ "source": "a", "target": "b", "options": options })).map(|_| ()).unwrap_err();
        assert_eq!((refused.error.code, &refused.error.details["argument"]), (Code::InvalidArgument, &json!(path)), "{}", refused.error);
        let entry = refused.entry.expect("it is recorded");
        assert_eq!((entry.source.as_str(), entry.target.as_str(), entry.outcome), ("a", "b", Outcome::Invalid));
    }
}

#[test]
fn what_cannot_be_read_is_refused_and_recorded_where_its_source_is_known() {
    for (address, argument, is_recorded) in [
        (json!(null), "options", false),
        (json!({}), "options", false),
        (json!({ "source": "a" }), "options", false),
        (json!({ "source": 1, "target": "b" }), "source", false),
        (json!({ "source": "a", "target": 1 }), "target", true),
        (json!({ "source": "a", "target": "b", "options": 1 }), "options", false),
        (json!({ "source": "a", "target": "b", "own": 1 }), "options", false),
    ] {
        let refused = read(&address).map(|_| ()).unwrap_err();
        assert_eq!(refused.error.details["argument"], argument, "{address}");
        assert_eq!((refused.token, refused.entry.is_some()), (7, is_recorded), "{address}");
    }
    for event_type in ["", "a b", "a.*", "@b/t"] {
        let address = json!({ "source": "a", "target": "b" }).to_string();
        let refused =
            Letter::read(Outgoing { token: 1, event_type: event_type.into(), address, data: "1".into() }, 0).map(|_| ()).unwrap_err();
        assert_eq!(refused.error.details["argument"], "eventType", "{event_type}");
    }
}

#[test]
fn only_the_bus_speaks_for_itself() {
    let address = json!({ "source": "a", "target": "b", "own": true }).to_string();
    let own = |token| {
        let letter = Letter::read(Outgoing { token, event_type: "t".into(), address: address.clone(), data: "1".into() }, 0);
        letter.map_err(|refused| refused.error).unwrap().own
    };
    assert!(own(OWN) && !own(1));
}

#[test]
fn what_was_away_was_not_refused() {
    for (code, outcome) in [
        (Code::ProjectUnknown, Some(Outcome::Denied)),
        (Code::NotPermitted, Some(Outcome::Denied)),
        (Code::RateLimited, Some(Outcome::RateLimited)),
        (Code::ContractViolation, Some(Outcome::Invalid)),
        (Code::PayloadTooLarge, Some(Outcome::Invalid)),
        (Code::InvalidArgument, Some(Outcome::Invalid)),
        (Code::Connection, None),
        (Code::Timeout, None),
        (Code::Closed, None),
        (Code::Internal, None),
    ] {
        assert_eq!(outcome_of(&Error::new(code, "why")), outcome, "{code:?}");
        assert_eq!(entry("a", "b", "t", &Error::new(code, "why")).is_some(), outcome.is_some());
        assert!(entry("", "b", "t", &Error::new(code, "why")).is_none());
    }
}
