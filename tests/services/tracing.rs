//! Spans of buses in one process: handlers of one group, handlers that nobody waits for any more, and services.

use std::sync::Arc;
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Attribute;
use opentelemetry_proto::tonic::trace::v1::Span;
use ossa::engine::bus::Bus;
use ossa::engine::config::{Secret, TraceExport, resolve_bus};
use ossa::engine::consume::Verdict;
use ossa::engine::host::Delivery;
use ossa::engine::options::SubscribeOptions;
use ossa::engine::trace::TraceCounts;
use prost::Message;
use serde_json::json;

use crate::desk::{bus_with, publish, service_for, until};
use crate::support::harness::Place;
use crate::support::host::{TestHost, host};
use crate::web::{Server, fine};

fn tracing_to(receiver: &Server) -> TraceExport {
    TraceExport {
        enabled: true,
        sampling_rate: 1.0,
        service_name: "tests".to_owned(),
        jaeger_endpoint: None,
        otlp_endpoint: Some(Secret::new(receiver.url(""))),
    }
}

async fn receiver() -> Server {
    Server::answering(|_| fine("")).await
}

/// A connected bus that records everything.
async fn bus(place: &Place, receiver: &Server) -> (Arc<Bus>, Arc<TestHost>) {
    let config = resolve_bus(&json!({ "redis": { "url": "memory://" } }), &|_| None).expect("a right configuration");
    let host = host();
    let bus = Bus::with_store(config, None, place.store(), host.clone(), place.env());
    bus.with_tracing(tracing_to(receiver)).expect("a right endpoint");
    bus.connect().await.expect("connected");
    (bus, host)
}

async fn subscribe(bus: &Bus, id: u32, pattern: &str) {
    bus.subscribe(id, pattern, SubscribeOptions::read(json!({ "group": "g" })).expect("right")).await.expect("subscribed");
}

/// Disconnects, and answers what was sent by then.
async fn sent(bus: &Bus, receiver: &Server) -> Vec<Span> {
    bus.disconnect(Duration::ZERO).await;
    let read = |body: Vec<u8>| {
        let mut request = ExportTraceServiceRequest::decode(&*body).expect("OTLP");
        request.resource_spans.remove(0).scope_spans.remove(0).spans
    };
    receiver.bodies().into_iter().flat_map(read).collect()
}

fn named<'a>(spans: &'a [Span], name: &str) -> Vec<&'a Span> {
    spans.iter().filter(|span| span.name == name).collect()
}

fn attribute<'a>(span: &'a Span, key: &str) -> Option<&'a str> {
    let value = span.attributes.iter().find(|attribute| attribute.key == key)?.value.as_ref()?.value.as_ref()?;
    if let Attribute::StringValue(text) = value { Some(text) } else { None }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

fn traceparent(span: &Span) -> String {
    format!("00-{}-{}-01", hex(&span.trace_id), hex(&span.span_id))
}

fn header(delivery: &Delivery) -> String {
    let meta: serde_json::Value = serde_json::from_str(&delivery.text.meta).expect("JSON");
    meta["headers"]["traceparent"].as_str().expect("it has one").to_owned()
}

#[tokio::test]
async fn handlers_of_one_group_share_what_was_received_and_each_has_a_span() {
    let (place, receiver) = (Place::new(1), receiver().await);
    let (bus, host) = bus(&place, &receiver).await;
    subscribe(&bus, 1, "t").await;
    subscribe(&bus, 2, "*").await;
    publish(&bus, &host, 1, "t", &json!(1)).await.expect("published");
    let deliveries = host.next_many(2).await;
    bus.settle(deliveries.iter().map(|delivery| (delivery.token, Verdict::Done)).collect(), 0);
    until("all have ended", async || bus.trace_counts().is_some_and(|counts| counts.active == 0)).await;
    let spans = sent(&bus, &receiver).await;
    let (arrivals, calls) = (named(&spans, "receive t"), named(&spans, "process t"));
    assert_eq!((arrivals.len(), calls.len()), (1, 2));
    assert!(calls.iter().all(|span| span.parent_span_id == arrivals[0].span_id));
    let mut named: Vec<String> = calls.iter().map(|span| traceparent(span)).collect();
    let mut given: Vec<String> = deliveries.iter().map(header).collect();
    named.sort();
    given.sort();
    assert_eq!(named, given, "each is told of its own");
}

#[tokio::test]
async fn what_nobody_waits_for_any_more_was_abandoned_and_comes_again_in_its_trace() {
    let (place, receiver) = (Place::new(2), receiver().await);
    let (bus, host) = bus(&place, &receiver).await;
    subscribe(&bus, 1, "t").await;
    publish(&bus, &host, 1, "t", &json!(1)).await.expect("published");
    host.next().await;
    assert_eq!(bus.trace_counts().expect("it traces").active, 1);
    bus.unsubscribe(1, Duration::ZERO).await.expect("ended");
    assert_eq!(bus.trace_counts().expect("it traces").active, 0);
    subscribe(&bus, 2, "t").await;
    let again = host.next().await;
    bus.settle(vec![(again.token, Verdict::Done)], 0);
    until("it has ended", async || bus.trace_counts().is_some_and(|counts| counts.active == 0)).await;
    let spans = sent(&bus, &receiver).await;
    let processed = named(&spans, "process t");
    assert_eq!(processed.iter().map(|span| attribute(span, "error.type")).collect::<Vec<_>>(), [Some("abandoned"), None]);
    assert_eq!(processed[0].trace_id, processed[1].trace_id);
    let counts = TraceCounts { exported: spans.len() as u64, ..TraceCounts::default() };
    assert_eq!(bus.trace_counts(), Some(counts), "also when it is disconnected");
}

#[tokio::test]
async fn what_is_handed_back_before_its_handler_is_called_was_not_received() {
    let (place, receiver) = (Place::new(3), receiver().await);
    let (bus, host) = bus(&place, &receiver).await;
    let options = SubscribeOptions::read(json!({ "group": "g", "concurrency": 1, "maxUnacknowledged": 2 })).expect("right");
    bus.subscribe(1, "t", options).await.expect("subscribed");
    for token in [1, 2] {
        publish(&bus, &host, token, "t", &json!(1)).await.expect("published");
    }
    let first = host.next().await;
    until("the other waits", async || bus.metrics()["eventsInFlight"] == 2).await;
    bus.pause(1, true);
    bus.settle(vec![(first.token, Verdict::HandBack)], 0);
    until("none is left", async || bus.metrics()["eventsInFlight"] == 0).await;
    let spans = sent(&bus, &receiver).await;
    assert_eq!((named(&spans, "receive t").len(), named(&spans, "process t").len()), (1, 1));
    let process = named(&spans, "process t")[0];
    assert_eq!((attribute(process, "ossa.outcome"), &process.status), (Some("handed-back"), &None));
}

#[tokio::test]
async fn a_service_is_asked_below_the_span_of_its_delivery() {
    let (place, receiver) = (Place::new(4), receiver().await);
    let service = receiver_of_events().await;
    let desk = place.desk();
    let (bus, host) = bus_with(&desk, place.store(), place.env(), &json!({}), false);
    bus.with_tracing(tracing_to(&receiver)).expect("a right endpoint");
    bus.connect().await.expect("connected");
    desk.register_as(service_for("orders", &service.url(""), &["order.placed"])).await;
    let routes = async || bus.services_status().await.expect("asked")["routes"].as_array().map_or(0, Vec::len);
    until("it is read for it", async || routes().await == 1).await;
    publish(&bus, &host, 1, "order.placed", &json!(1)).await.expect("published");
    let posts = || service.requests().into_iter().filter(|request| request.starts_with("POST")).collect::<Vec<_>>();
    until("it was told", async || posts().len() == 1).await;
    let spans = async || bus.trace_counts().is_some_and(|counts| counts.active == 0);
    until("its delivery ended", spans).await;
    let spans = sent(&bus, &receiver).await;
    let process = named(&spans, "process order.placed")[0];
    assert!(posts()[0].contains(&format!("traceparent: {}\r\n", traceparent(process))), "{}", posts()[0]);
    assert_eq!(process.trace_id, named(&spans, "publish order.placed")[0].trace_id);
    let own: Vec<&str> = spans.iter().map(|span| span.name.as_str()).filter(|name| !name.ends_with(" order.placed")).collect();
    assert!(own.is_empty(), "what the bus says by itself begins no trace: {own:?}");
}

async fn receiver_of_events() -> Server {
    Server::answering(|_| fine("{}")).await
}
