//! Spans as the messages of OTLP, named by OpenTelemetry's conventions for messaging.

use hyper::body::Bytes;
use prost::Message;

use super::context::Context;
use super::messages::{
    AnyValue, Attributes, Event, KeyValue, Kind, Link as LinkMessage, Request, Resource as ResourceMessage, ResourceSpans, Response,
    SPANS_KEY, Scope, Scoped, Span as SpanMessage, Status, StatusCode, Value,
};
use super::span::{Link, Operation, Outcome, Span};

/// What makes the spans.
const LIBRARY: &str = "@bluefly/ossa";
/// `messaging.system`.
const SYSTEM: &str = "ossa";

/// What most spans take, bytes.
const SPAN_BYTES: usize = 768;

/// Bits of the flags of a span or link: whether it is known if its parent is of another process, and if it is.
const HAS_IS_REMOTE: u32 = 0x100;
const IS_REMOTE: u32 = 0x200;

/// Who makes the spans.
#[derive(Clone, Debug)]
pub struct Resource {
    /// `service.name`.
    pub service_name: String,
    /// Tells this bus from others of the same name.
    pub instance: String,
    /// The store's server.
    pub server: Option<Server>,
}

/// A server, or the path of its socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// `server.address`.
    pub address: String,
    /// `server.port`.
    pub port: Option<u16>,
}

/// Makes bodies of requests.
pub struct Encoder {
    /// A message of its own, always the same.
    resource: Bytes,
    /// The library, to which spans are added.
    scoped: Vec<u8>,
    /// Attributes that all spans of an operation have.
    fixed: [Vec<u8>; 3],
}

impl Encoder {
    /// Of spans that `resource` makes.
    pub fn new(resource: &Resource) -> Self {
        let attributes = vec![
            text("service.name", &resource.service_name),
            text("service.instance.id", &resource.instance),
            number("process.pid", std::process::id()),
            text("telemetry.sdk.name", LIBRARY),
            text("telemetry.sdk.language", "rust"),
            text("telemetry.sdk.version", env!("CARGO_PKG_VERSION")),
        ];
        let scope = Scope { name: LIBRARY.to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() };
        let fixed = |operation| Attributes { attributes: fixed(operation, resource.server.as_ref()) }.encode_to_vec();
        Self {
            resource: ResourceMessage { attributes }.encode_to_vec().into(),
            scoped: Scoped { scope: Some(scope) }.encode_to_vec(),
            fixed: [Operation::Publish, Operation::Receive, Operation::Process].map(fixed),
        }
    }

    /// The body of a request.
    pub fn encode(&self, spans: &[Span]) -> Vec<u8> {
        let mut scoped = Vec::with_capacity(self.scoped.len() + spans.len() * SPAN_BYTES);
        scoped.extend_from_slice(&self.scoped);
        let mut bytes = Vec::with_capacity(SPAN_BYTES);
        for span in spans {
            bytes.clear();
            // A vector has room for everything: nothing here fails.
            let _ = message(span).encode(&mut bytes);
            bytes.extend_from_slice(&self.fixed[span.operation as usize]);
            let _ = Attributes { attributes: attributes(span) }.encode(&mut bytes);
            scoped.push(SPANS_KEY);
            let _ = prost::encode_length_delimiter(bytes.len(), &mut scoped);
            scoped.extend_from_slice(&bytes);
        }
        let resource_spans = vec![ResourceSpans { resource: self.resource.clone(), scope_spans: vec![scoped] }];
        Request { resource_spans }.encode_to_vec()
    }
}

/// How many of the spans the endpoint did not take, and why, by the body of its answer; what cannot be read says nothing.
pub fn rejected(body: &[u8]) -> Option<(u64, String)> {
    let partial = Response::decode(body).ok()?.partial_success?;
    let count = u64::try_from(partial.rejected_spans).ok().filter(|count| *count > 0)?;
    Some((count, partial.error_message))
}

fn message(span: &Span) -> SpanMessage {
    let Context { trace, span: id, flags } = span.context;
    // That of a publish may be of another process, that of a process never is.
    let remote = match (span.parent, span.operation) {
        (None, _) | (_, Operation::Process) => HAS_IS_REMOTE,
        (Some(_), Operation::Publish) => 0,
        (Some(_), Operation::Receive) => HAS_IS_REMOTE | IS_REMOTE,
    };
    let (events, status) = ending(&span.outcome);
    SpanMessage {
        trace_id: trace.to_be_bytes().to_vec(),
        span_id: id.to_be_bytes().to_vec(),
        trace_state: span.state.as_deref().unwrap_or_default().to_owned(),
        parent_span_id: span.parent.map(|parent| parent.to_be_bytes().to_vec()).unwrap_or_default(),
        flags: u32::from(flags) | remote,
        name: name(span),
        kind: kind(span.operation).into(),
        start_time_unix_nano: span.start_ns,
        end_time_unix_nano: span.end_ns,
        links: span.links.iter().map(link).collect(),
        events,
        status,
    }
}

/// An operation and where it is done: of few different values, for statistics.
fn name(span: &Span) -> String {
    let operation = operation(span.operation);
    match &span.about.partition {
        Some(partition) => format!("{operation} {}", partition.event_type),
        None => operation.to_owned(),
    }
}

/// Both halves of consuming are CONSUMER: what shows who talks to whom looks for one right below a PRODUCER.
fn kind(operation: Operation) -> Kind {
    match operation {
        Operation::Publish => Kind::Producer,
        Operation::Receive | Operation::Process => Kind::Consumer,
    }
}

fn operation(operation: Operation) -> &'static str {
    match operation {
        Operation::Publish => "publish",
        Operation::Receive => "receive",
        Operation::Process => "process",
    }
}

/// Attributes of all spans of an operation.
fn fixed(operation: Operation, server: Option<&Server>) -> Vec<KeyValue> {
    let name = self::operation(operation);
    let mut out = vec![
        text("messaging.system", SYSTEM),
        text("messaging.operation.name", name),
        text("messaging.operation.type", if operation == Operation::Publish { "send" } else { name }),
    ];
    if let Some(Server { address, port }) = server.filter(|_| operation != Operation::Process) {
        out.push(text("server.address", address));
        out.extend(port.map(|port| number("server.port", port)));
    }
    out
}

/// Those of this one.
fn attributes(span: &Span) -> Vec<KeyValue> {
    let about = &span.about;
    let mut out = Vec::with_capacity(8);
    if let Some(partition) = &about.partition {
        out.push(text("messaging.destination.name", &partition.event_type));
        if about.batch_count.is_none() {
            out.push(text("messaging.destination.partition.id", &partition.index.to_string()));
        }
    }
    let texts = [
        ("messaging.message.id", &about.message_id),
        ("messaging.message.conversation_id", &about.correlation_id),
        ("messaging.consumer.group.name", &about.group),
        ("messaging.client.id", &about.consumer),
        ("ossa.duplicate_of", &about.duplicate_of),
    ];
    out.extend(texts.into_iter().filter_map(|(key, value)| Some(text(key, value.as_ref()?))));
    out.extend(about.body_bytes.map(|bytes| number("messaging.message.body.size", clamped(bytes))));
    out.extend(about.batch_count.map(|count| number("messaging.batch.message_count", clamped(count))));
    out.extend(about.attempt.map(|attempt| number("ossa.delivery.attempt", attempt)));
    match &span.outcome {
        Outcome::Failed { kind, .. } => out.push(text("error.type", kind)),
        Outcome::HandedBack => out.push(text("ossa.outcome", "handed-back")),
        Outcome::Open | Outcome::Done => {}
    }
    out
}

fn ending(outcome: &Outcome) -> (Vec<Event>, Option<Status>) {
    let Outcome::Failed { kind, message, at_ns } = outcome else { return (Vec::new(), None) };
    let exception = Event {
        time_unix_nano: *at_ns,
        name: "exception".to_owned(),
        attributes: vec![text("exception.type", kind), text("exception.message", message)],
    };
    (vec![exception], Some(Status { message: message.clone(), code: StatusCode::Error.into() }))
}

fn link(Link(context, state): &Link) -> LinkMessage {
    LinkMessage {
        trace_id: context.trace.to_be_bytes().to_vec(),
        span_id: context.span.to_be_bytes().to_vec(),
        trace_state: state.as_deref().unwrap_or_default().to_owned(),
        flags: u32::from(context.flags) | HAS_IS_REMOTE | IS_REMOTE,
    }
}

fn attribute(key: &'static str, value: Value) -> KeyValue {
    KeyValue { key: Bytes::from_static(key.as_bytes()), value: Some(AnyValue { value: Some(value) }) }
}

fn text(key: &'static str, value: &str) -> KeyValue {
    attribute(key, Value::Text(value.to_owned()))
}

fn number(key: &'static str, value: impl Into<i64>) -> KeyValue {
    attribute(key, Value::Number(value.into()))
}

fn clamped(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::collector::trace::v1::{
        ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
    };
    use opentelemetry_proto::tonic::common::v1::any_value::Value;
    use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
    use opentelemetry_proto::tonic::resource::v1::Resource as ResourceMessage;
    use opentelemetry_proto::tonic::trace::v1::Span as SpanMessage;
    use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
    use opentelemetry_proto::tonic::trace::v1::status::StatusCode;

    use super::super::span::About;
    use super::{Context, Link, Message, Operation, Outcome, Resource, Server, Span, rejected};
    use crate::engine::event::Priority;
    use crate::engine::store::Partition;
    use crate::engine::trace::otlp::Encoder;

    fn resource() -> Resource {
        let server = Some(Server { address: "redis.example".to_owned(), port: Some(6380) });
        Resource { service_name: "orders".to_owned(), instance: "i-1".to_owned(), server }
    }

    fn span(operation: Operation, outcome: Outcome) -> Span {
        Span {
            operation,
            context: Context::root(7, 8),
            state: Some("a=b".into()),
            parent: Some(9),
            start_ns: 1_000,
            end_ns: 3_000,
            about: About {
                partition: Some(Partition::new("order.placed", 2).in_lane(Priority::High)),
                message_id: Some("e1".into()),
                body_bytes: Some(12),
                ..About::default()
            },
            links: Vec::new(),
            outcome,
        }
    }

    fn decoded(spans: Vec<Span>) -> (ResourceMessage, Vec<SpanMessage>) {
        let mut request = ExportTraceServiceRequest::decode(&*Encoder::new(&resource()).encode(&spans)).unwrap();
        let mut of_resource = request.resource_spans.remove(0);
        let of_scope = of_resource.scope_spans.remove(0);
        assert_eq!(of_scope.scope.unwrap().name, "@bluefly/ossa");
        (of_resource.resource.unwrap(), of_scope.spans)
    }

    fn shown(attributes: &[KeyValue]) -> Vec<String> {
        let value = |value: &AnyValue| match value.value.as_ref().unwrap() {
            Value::StringValue(text) => text.clone(),
            Value::IntValue(number) => number.to_string(),
            other => format!("{other:?}"),
        };
        attributes.iter().map(|pair| format!("{}={}", pair.key, value(pair.value.as_ref().unwrap()))).collect()
    }

    #[test]
    fn a_publish_is_read_back_with_its_conventional_names() {
        let (resource, spans) = decoded(vec![span(Operation::Publish, Outcome::Done)]);
        let of_resource = shown(&resource.attributes);
        assert!(of_resource.contains(&"service.name=orders".to_owned()) && of_resource.contains(&"service.instance.id=i-1".to_owned()));
        let [span] = &spans[..] else { panic!("{spans:?}") };
        assert_eq!((span.trace_id.len(), span.trace_id[15], span.span_id.clone()), (16, 7, vec![0, 0, 0, 0, 0, 0, 0, 8]));
        assert_eq!((span.parent_span_id.clone(), span.trace_state.as_str()), (vec![0, 0, 0, 0, 0, 0, 0, 9], "a=b"));
        assert_eq!((span.name.as_str(), span.kind(), span.flags), ("publish order.placed", SpanKind::Producer, 1));
        assert_eq!((span.start_time_unix_nano, span.end_time_unix_nano), (1_000, 3_000));
        assert!(span.status.is_none() && span.events.is_empty());
        assert_eq!(
            shown(&span.attributes),
            [
                "messaging.system=ossa",
                "messaging.operation.name=publish",
                "messaging.operation.type=send",
                "server.address=redis.example",
                "server.port=6380",
                "messaging.destination.name=order.placed",
                "messaging.destination.partition.id=2",
                "messaging.message.id=e1",
                "messaging.message.body.size=12",
            ]
        );
    }

    #[test]
    fn a_failure_has_a_status_a_type_and_an_exception() {
        let failed = Outcome::Failed { kind: "timeout", message: "too long".to_owned(), at_ns: 2_000 };
        let mut process = span(Operation::Process, failed);
        process.about.attempt = Some(3);
        process.about.group = Some("g".into());
        let (_, spans) = decoded(vec![process]);
        let span = &spans[0];
        assert_eq!((span.name.as_str(), span.kind(), span.flags), ("process order.placed", SpanKind::Consumer, 0x101));
        let status = span.status.as_ref().unwrap();
        assert_eq!((status.code(), status.message.as_str()), (StatusCode::Error, "too long"));
        assert_eq!((span.events[0].name.as_str(), span.events[0].time_unix_nano), ("exception", 2_000));
        assert_eq!(shown(&span.events[0].attributes), ["exception.type=timeout", "exception.message=too long"]);
        let attributes = shown(&span.attributes);
        for wanted in
            ["error.type=timeout", "ossa.delivery.attempt=3", "messaging.consumer.group.name=g", "messaging.operation.type=process"]
        {
            assert!(attributes.contains(&wanted.to_owned()), "{wanted} in {attributes:?}");
        }
    }

    #[test]
    fn a_batch_has_a_link_to_each_of_its_events() {
        let links = (1..=3).map(|n| Link(Context::root(n, 1), (n == 2).then(|| "x=y".into()))).collect();
        let about = About { batch_count: Some(3), ..About::default() };
        let batch = Span { about, links, parent: None, state: None, ..span(Operation::Process, Outcome::HandedBack) };
        let (_, spans) = decoded(vec![batch]);
        let span = &spans[0];
        assert_eq!((span.name.as_str(), span.parent_span_id.len(), span.links.len()), ("process", 0, 3));
        assert_eq!((span.links[1].trace_id[15], span.links[1].trace_state.as_str(), span.links[1].flags), (2, "x=y", 0x301));
        let attributes = shown(&span.attributes);
        assert!(attributes.contains(&"messaging.batch.message_count=3".to_owned()), "{attributes:?}");
        assert!(attributes.contains(&"ossa.outcome=handed-back".to_owned()), "{attributes:?}");
    }

    #[test]
    fn what_an_endpoint_did_not_take_is_read_from_its_answer() {
        let answer = |count| {
            let partial_success = Some(ExportTracePartialSuccess { rejected_spans: count, error_message: "why".to_owned() });
            ExportTraceServiceResponse { partial_success }.encode_to_vec()
        };
        assert_eq!(rejected(&answer(2)), Some((2, "why".to_owned())));
        for body in [&answer(0)[..], &answer(-1), b"", b"<html>", b"{}"] {
            assert_eq!(rejected(body), None);
        }
    }
}
