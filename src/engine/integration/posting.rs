//! One event as an HTTP request, and what its answer means.

use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::engine::ask::message::{Answer as Reply, Failed};
use crate::engine::consume::{self, Verdict};
use crate::engine::host::Delivery;
use crate::engine::http::{Answer, Failure};
use crate::engine::moment;
use crate::engine::options::NackOptions;
use crate::engine::settle;

/// Longest wait that a service may ask for by `Retry-After`.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);
/// Most of an answer that is shown in an error, bytes.
const SHOWN_BYTES_MAX: usize = 300;

/// Keys of packed metadata that are the bus's own matter.
const OURS: [&str; 7] = ["v", "dttl", "due", "ackTo", "replyTo", "message", "sig"];

/// What is sent.
pub struct Request {
    /// Names and values; values are visible ASCII.
    pub headers: Vec<(&'static str, String)>,
    /// `{ "metadata": EventMetadata, "data": … }`.
    pub body: String,
}

impl Request {
    /// The event of a delivery to a group.
    pub fn of(delivery: &Delivery, group: &str) -> Self {
        let mut metadata: Map<String, Value> = serde_json::from_str(&delivery.text.meta).unwrap_or_default();
        if let Some(ttl) = metadata.remove("dttl") {
            metadata.entry("ttl").or_insert(ttl);
        }
        for key in OURS {
            metadata.remove(key);
        }
        let ms = metadata.get("timestamp").and_then(Value::as_u64).unwrap_or_default();
        metadata.insert("type".to_owned(), (*delivery.partition.event_type).into());
        metadata.insert("timestamp".to_owned(), moment::write(ms).into());
        metadata.insert("attempt".to_owned(), delivery.attempt.into());
        let mut headers = vec![("content-type", "application/json".to_owned())];
        let mut put = |name: &'static str, value: Option<&str>| {
            if let Some(value) = value {
                headers.push((name, visible(value)));
            }
        };
        let text = |key: &str| metadata.get(key).and_then(Value::as_str);
        put("x-event-type", Some(&delivery.partition.event_type));
        put("x-event-id", text("id"));
        put("idempotency-key", text("id"));
        put("x-event-source", text("source"));
        put("x-event-group", Some(group));
        put("x-event-attempt", Some(&delivery.attempt.to_string()));
        put("x-correlation-id", text("correlationId"));
        put("x-causation-id", text("causationId"));
        let given = |name: &str| metadata.get("headers").and_then(|headers| headers.get(name)).and_then(Value::as_str);
        for name in ["traceparent", "tracestate", "baggage"] {
            put(name, given(name));
        }
        // The data goes as it came, unread.
        let body = format!(r#"{{"metadata":{},"data":{}}}"#, Value::Object(metadata), delivery.text.data);
        Self { headers, body }
    }
}

/// As it may stand in a header: everything but visible ASCII is percent-encoded, and `%` where that would be read so.
fn visible(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if (byte.is_ascii_graphic() || byte == b' ') && byte != b'%' {
            out.push(char::from(byte));
        } else {
            use std::fmt::Write;
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// How a request ended.
pub struct Outcome {
    /// What becomes of the delivery.
    pub verdict: Verdict,
    /// Whether the service is there, for its circuit; `None`: that cannot be told by it.
    pub alive: Option<bool>,
}

/// What an answer means: a success is one; what the service cannot take now comes again, after the time it asks for; what it will never
/// take (any other 4xx) goes to the dead letters at once.
pub fn outcome(delivery: &Delivery, answered: Result<Answer, Failure>) -> Outcome {
    let answer = match answered {
        Ok(answer) => answer,
        Err(failure) => return Outcome { verdict: failed(failure.to_string()), alive: Some(false) },
    };
    let status = answer.status;
    let problem = || format!("the service answered with HTTP status {status}{}", said(&answer.body));
    match status {
        200..=299 => Outcome { verdict: done(delivery, &answer), alive: Some(true) },
        408 | 425 | 429 => Outcome { verdict: again(problem(), answer.retry_after), alive: None },
        400..=499 => Outcome { verdict: Verdict::Failed(settle::Failure::Permanent(problem())), alive: Some(true) },
        _ => Outcome { verdict: again(problem(), answer.retry_after), alive: Some(false) },
    }
}

fn again(problem: String, after: Option<Duration>) -> Verdict {
    let Some(after) = after else { return failed(problem) };
    let delay_ms = u64::try_from(after.min(RETRY_AFTER_MAX).as_millis()).unwrap_or(u64::MAX);
    let options = NackOptions { delay_ms: Some(delay_ms), dead_letter: false, reason: Some(problem) };
    Verdict::Failed(settle::Failure::Nack(options))
}

fn failed(problem: String) -> Verdict {
    Verdict::Failed(settle::Failure::Error(problem))
}

/// Whoever asked by the event gets the body as the answer: null where it has none.
fn done(delivery: &Delivery, answer: &Answer) -> Verdict {
    if !delivery.text.asks {
        return Verdict::Done;
    }
    let metadata: Value = serde_json::from_str(&delivery.text.meta).unwrap_or_default();
    let text = |key: &str| metadata[key].as_str().map(ToOwned::to_owned);
    let (Some(to), Some(event_id)) = (text("replyTo"), text("id")) else { return Verdict::Done };
    let body = std::str::from_utf8(&answer.body).ok().filter(|_| answer.complete).map(str::trim);
    let reply = match body {
        Some("") => Reply::Reply("null".to_owned()),
        Some(body) if serde_json::from_str::<serde::de::IgnoredAny>(body).is_ok() => Reply::Reply(body.to_owned()),
        _ => Reply::Failed(Failed {
            error: "the service did the work, and answered with something that is no JSON, is too long, or broke off".to_owned(),
            ..Failed::default()
        }),
    };
    Verdict::Replied(consume::Reply { to, event_id, answer: reply })
}

/// The beginning of what a service says of a failure.
fn said(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(&body[..body.len().min(SHOWN_BYTES_MAX)]);
    let text = text.trim_end_matches('\u{fffd}').trim();
    if text.is_empty() {
        return String::new();
    }
    // As JSON has it, so that it stays on its line.
    let quoted = json!(text).to_string();
    format!(": {}", &quoted[1..quoted.len() - 1])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::host::EventText;
    use crate::engine::store::{EntryId, Partition};

    fn delivery(meta: &str, data: &str, asks: bool) -> Delivery {
        Delivery {
            subscription: 1,
            token: 1,
            attempt: 2,
            redelivered: true,
            partition: Partition::new("order.placed", 0),
            id: EntryId { ms: 1, seq: 0 },
            joined: false,
            text: EventText { meta: meta.into(), data: data.into(), asks, redriven: false },
        }
    }

    const META: &str = r#"{"v":1,"id":"e1","timestamp":1769860800123,"source":"shöp","version":"1.0.0","priority":"normal","dttl":60,"correlationId":"c\r\nx: y","headers":{"traceparent":"00-ab-cd-01","other":"o"},"replyTo":"inbox","sig":"s"}"#;

    #[allow(clippy::unnecessary_wraps)] // as a client answers
    fn answer(status: u16, body: &str) -> Result<Answer, Failure> {
        Ok(Answer { status, body: body.as_bytes().to_vec(), retry_after: None, complete: true, took: Duration::ZERO })
    }

    #[test]
    fn a_request_holds_the_event_as_handlers_know_it() {
        let request = Request::of(&delivery(META, r#"{"n": 1.50}"#, false), "service:orders");
        assert!(request.body.ends_with(r#","data":{"n": 1.50}}"#), "the data goes as it came: {}", request.body);
        let body: Value = serde_json::from_str(&request.body).unwrap();
        assert_eq!(
            body["metadata"],
            json!({
                "id": "e1", "timestamp": "2026-01-31T12:00:00.123Z", "source": "shöp", "version": "1.0.0", "priority": "normal", "ttl": 60,
                "correlationId": "c\r\nx: y", "headers": { "traceparent": "00-ab-cd-01", "other": "o" }, "type": "order.placed", "attempt": 2,
            })
        );
    }

    #[test]
    fn headers_name_the_event_and_carry_the_trace_but_nothing_that_could_end_a_line() {
        let request = Request::of(&delivery(META, "1", false), "service:orders");
        let header = |name: &str| request.headers.iter().find(|(key, _)| *key == name).map(|(_, value)| value.as_str());
        assert_eq!(header("x-event-type"), Some("order.placed"));
        assert_eq!((header("x-event-id"), header("idempotency-key")), (Some("e1"), Some("e1")));
        assert_eq!(header("x-event-attempt"), Some("2"));
        assert_eq!(header("x-event-source"), Some("sh%C3%B6p"));
        assert_eq!(header("x-correlation-id"), Some("c%0D%0Ax: y"));
        assert_eq!((header("traceparent"), header("tracestate"), header("x-causation-id")), (Some("00-ab-cd-01"), None, None));
    }

    #[test]
    fn what_an_answer_means() {
        let of = |answered| {
            let Outcome { verdict, alive } = outcome(&delivery(META, "1", false), answered);
            let what = match verdict {
                Verdict::Done => "done",
                Verdict::Failed(settle::Failure::Permanent(_)) => "dead",
                Verdict::Failed(_) => "again",
                _ => "other",
            };
            (what, alive)
        };
        assert_eq!(of(answer(200, "")), ("done", Some(true)));
        assert_eq!(of(answer(204, "")), ("done", Some(true)));
        for status in [400, 401, 403, 404, 409, 410, 413, 422, 451] {
            assert_eq!(of(answer(status, "no")), ("dead", Some(true)), "{status}");
        }
        for status in [408, 425, 429] {
            assert_eq!(of(answer(status, "")), ("again", None), "{status}");
        }
        for status in [500, 502, 503, 504, 302, 199] {
            assert_eq!(of(answer(status, "")), ("again", Some(false)), "{status}");
        }
        assert_eq!(of(Err(Failure::TimedOut(Duration::from_secs(1)))), ("again", Some(false)));
    }

    #[test]
    fn a_service_says_when_it_wants_the_event_again_within_reason() {
        for (status, asked, waits_ms) in [(429, 2, 2000), (503, 1, 1000), (500, 1, 1000), (408, 1_000_000, 3_600_000)] {
            let busy =
                Answer { status, body: Vec::new(), retry_after: Some(Duration::from_secs(asked)), complete: true, took: Duration::ZERO };
            let Verdict::Failed(settle::Failure::Nack(options)) = outcome(&delivery(META, "1", false), Ok(busy)).verdict else { panic!() };
            assert_eq!(options.delay_ms, Some(waits_ms));
            assert!(options.reason.unwrap().contains(&status.to_string()));
        }
    }

    #[test]
    fn whoever_asked_gets_the_body_as_the_answer() {
        let of = |body| outcome(&delivery(META, "1", true), answer(200, body)).verdict;
        let replied = |answer| Verdict::Replied(consume::Reply { to: "inbox".to_owned(), event_id: "e1".to_owned(), answer });
        assert_eq!(of(r#" {"ok":true} "#), replied(Reply::Reply(r#"{"ok":true}"#.to_owned())));
        assert_eq!(of(""), replied(Reply::Reply("null".to_owned())));
        assert!(matches!(of("<html>"), Verdict::Replied(consume::Reply { answer: Reply::Failed(_), .. })));
    }

    #[test]
    fn an_error_shows_the_beginning_of_what_the_service_said() {
        let Verdict::Failed(settle::Failure::Permanent(text)) = outcome(&delivery(META, "1", false), answer(400, "no \"x\"\n")).verdict
        else {
            panic!()
        };
        assert_eq!(text, r#"the service answered with HTTP status 400: no \"x\""#);
        let long = "é".repeat(1000);
        let Verdict::Failed(failure) = outcome(&delivery(META, "1", false), answer(500, &long)).verdict else { panic!() };
        assert!(failure.text().len() < 400 && !failure.text().contains('\u{fffd}'));
    }
}
