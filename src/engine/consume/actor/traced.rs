//! Spans of consuming: what was received and is handled now, and how that ended.

use crate::engine::consume::Verdict;
use crate::engine::consume::held::{Deliveries, InFlight, Key};
use crate::engine::event::Priority;
use crate::engine::host::{Delivery, EventText};
use crate::engine::settle::Failure;
use crate::engine::trace::{About, Arrival, Open, Tracer};

/// A handler is called with `entries`; `out` are the deliveries of that call, in the same order. What those are told that are recorded
/// names the span which whoever goes on from there is below.
pub fn call(tracer: &Tracer, deliveries: &mut Deliveries, entries: &[(Priority, Key)], is_batch: bool, out: &mut [Delivery]) {
    if entries.len() != out.len() {
        return;
    }
    let mut links = Vec::new();
    for ((_, key), delivery) in entries.iter().zip(out.iter_mut()) {
        let Some(entry) = deliveries.get_mut(*key).filter(|entry| entry.trace.is_some()) else { continue };
        let about = about(entry);
        let text = entry.text.clone();
        let Some(arrival) = &mut entry.trace else { continue };
        let received = tracer.receive(arrival, about.clone());
        if is_batch {
            links.push(arrival.link());
            delivery.text = arrival.text(&text, received);
        } else if let Some(span) = tracer.process(received, arrival.state(), about) {
            delivery.text = arrival.text(&text, span.context());
            keep(deliveries, delivery, span);
        }
    }
    let (Some(first), false) = (out.first(), links.is_empty()) else { return };
    let Some((_, key)) = entries.first() else { return };
    let Some(entry) = deliveries.get(*key) else { return };
    let is_of_one_type = out.iter().all(|delivery| delivery.partition.event_type == first.partition.event_type);
    let about = About {
        partition: is_of_one_type.then(|| first.partition.clone()),
        batch_count: Some(out.len()),
        attempt: out.iter().map(|delivery| delivery.attempt).max(),
        message_id: None,
        body_bytes: None,
        ..about(entry)
    };
    if let Some(span) = tracer.process_batch(links, about) {
        keep(deliveries, first, span);
    }
}

/// A handler is called with an event that is not stored: the text that it gets, and the span of the call.
pub fn call_transient(tracer: &Tracer, arrival: &Arrival, text: &EventText, about: About) -> (EventText, Option<Open>) {
    let mut arrival = arrival.clone();
    let received = tracer.receive(&mut arrival, about.clone());
    match tracer.process(received, arrival.state(), about) {
        Some(span) => (arrival.text(text, span.context()), Some(span)),
        None => (text.clone(), None),
    }
}

fn keep(deliveries: &mut Deliveries, delivery: &Delivery, span: Open) {
    if let Some(place) = deliveries.span_of(delivery.token) {
        *place = Some(span);
    }
}

fn about(entry: &InFlight) -> About {
    About {
        partition: Some(entry.held.partition.clone()),
        message_id: Some((*entry.event_id).into()),
        body_bytes: Some(entry.text.data.len()),
        group: Some((*entry.group).clone()),
        consumer: Some(entry.consumer.clone()),
        attempt: Some(entry.held.deliveries),
        ..About::default()
    }
}

/// A handler ended so; its span ends when it is let go of.
pub fn ended(span: Option<&mut Option<Open>>, verdict: &Verdict) {
    let Some(Some(span)) = span else { return };
    match verdict {
        Verdict::Done | Verdict::Replied(_) => span.done(),
        Verdict::HandBack => span.handed_back(),
        Verdict::Failed(failure) => span.fail(kind(failure), failure.text()),
    }
}

/// `error.type`.
fn kind(failure: &Failure) -> &'static str {
    match failure {
        Failure::Error(_) => "handler_error",
        Failure::Permanent(_) => "permanent_error",
        Failure::TimedOut(_) => "timeout",
        Failure::Nack(_) => "nack",
        Failure::Malformed(_) => "malformed",
    }
}
