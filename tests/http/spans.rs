//! Spans on their way to an endpoint: which takes them, refuses them, is busy, silent or away.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::{ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::trace::v1::Span;
use ossa::engine::config::{Secret, TraceExport};
use ossa::engine::env::Env;
use ossa::engine::error::{Code, Error};
use ossa::engine::host::{Host, Kind};
use ossa::engine::store::Appended;
use ossa::engine::trace::{About, Pace, TraceCounts, Tracer, stored};
use prost::Message;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::time::Instant;

use crate::servers::{Server, answer, fine};
use crate::support::host::{TestHost, host};
use crate::support::wait::until;

/// Waits until it is so.
macro_rules! reached {
    ($condition:expr) => {
        until(stringify!($condition), async || $condition).await
    };
}

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// Quick enough for tests.
const PACE: Pace = Pace {
    every: Duration::from_millis(20),
    timeout: Duration::from_secs(5),
    pauses: (Duration::from_millis(5), Duration::from_millis(20)),
    patience: Duration::from_secs(30),
};

fn config(url: &str) -> TraceExport {
    TraceExport {
        enabled: true,
        sampling_rate: 1.0,
        service_name: "spans".to_owned(),
        jaeger_endpoint: None,
        otlp_endpoint: Some(Secret::new(url)),
    }
}

/// A tracer, and what is said of it.
struct Tracing {
    tracer: Tracer,
    host: Arc<TestHost>,
}

impl Tracing {
    fn to(url: &str) -> Self {
        Self::at(PACE, &config(url))
    }

    fn at(pace: Pace, config: &TraceExport) -> Self {
        let host = host();
        let told: Arc<dyn Host> = host.clone();
        let tracer = Tracer::start_at(pace, config, None, &told, &Env::system()).unwrap();
        Self { tracer, host }
    }

    fn make(&self, count: usize) {
        for n in 0..count {
            let about = || About { message_id: Some(n.to_string().into()), ..About::default() };
            stored(self.tracer.publish(None, "e", false, about).expect("everything is recorded"), &Ok(Appended::Stored));
        }
    }

    fn counts(&self) -> TraceCounts {
        self.tracer.counts().unwrap()
    }

    fn warnings(&self) -> Vec<String> {
        self.host.said(Kind::Log).iter().map(|line| line["message"].as_str().unwrap().to_owned()).collect()
    }
}

fn spans(server: &Server) -> Vec<Vec<Span>> {
    let read = |body: &Vec<u8>| {
        let mut request = ExportTraceServiceRequest::decode(&**body).unwrap();
        request.resource_spans.remove(0).scope_spans.remove(0).spans
    };
    server.bodies().iter().map(read).collect()
}

/// One that gives these answers, then `last`.
async fn answering(answers: &[String], last: String) -> Server {
    let answers = Mutex::new(answers.iter().cloned().collect::<VecDeque<_>>());
    Server::answering(move |_| answers.lock().unwrap().pop_front().unwrap_or_else(|| last.clone())).await
}

fn status(code: u16) -> String {
    answer(&format!("{code} As Told"), &[], "")
}

#[tokio::test]
async fn spans_go_out_in_batches_to_the_path_of_otlp() {
    let server = Server::answering(|_| fine("")).await;
    let tracing = Tracing::to(&server.url(""));
    tracing.make(1_300);
    reached!(tracing.counts().exported == 1_300);
    let head = server.requests().remove(0).to_lowercase();
    assert!(head.starts_with("post /v1/traces http/1.1\r\n") && head.contains("content-type: application/x-protobuf\r\n"), "{head}");
    let sizes: Vec<usize> = spans(&server).iter().map(Vec::len).collect();
    assert_eq!(sizes, [512, 512, 276]);
    assert_eq!(tracing.counts(), TraceCounts { exported: 1_300, ..TraceCounts::default() });
    assert!(tracing.warnings().is_empty());
}

#[tokio::test]
async fn a_path_is_kept_and_credentials_become_a_header() {
    let server = Server::answering(|_| fine("")).await;
    let url = server.url("/custom/path?key=hunter2").replace("//", "//user:hunter2@");
    let tracing = Tracing::to(&url);
    tracing.make(1);
    reached!(tracing.counts().exported == 1);
    let head = server.requests().remove(0);
    assert!(head.starts_with("POST /custom/path?key=hunter2 HTTP/1.1\r\n") && head.contains("authorization: Basic "), "{head}");
}

#[tokio::test]
async fn an_endpoint_that_is_busy_is_asked_again_until_it_takes_them() {
    let server = answering(&[429, 502, 503, 504].map(status), fine("")).await;
    let tracing = Tracing::to(&server.url(""));
    tracing.make(3);
    reached!(tracing.counts().exported == 3);
    let sent = spans(&server);
    assert!(sent.len() == 5 && sent.iter().all(|batch| *batch == sent[0]), "the same each time");
    assert!(tracing.warnings().is_empty(), "nothing was lost");
}

#[tokio::test]
async fn an_endpoint_says_when_it_wants_to_be_asked_again() {
    let server = answering(&[answer("503 Busy", &["Retry-After: 1"], "")], fine("")).await;
    let tracing = Tracing::to(&server.url(""));
    tracing.make(1);
    reached!(server.requests().len() == 1);
    let asked = Instant::now();
    reached!(tracing.counts().exported == 1);
    assert!(asked.elapsed() > ms(900), "{:?}", asked.elapsed());
}

#[tokio::test]
async fn one_that_stays_busy_loses_them_when_patience_ends_and_that_is_said_once() {
    let server = answering(&[], status(503)).await;
    let tracing = Tracing::at(Pace { patience: ms(50), ..PACE }, &config(&server.url("")));
    for round in 1..=3 {
        tracing.make(2);
        reached!(tracing.counts().unreachable == 2 * round);
    }
    assert_eq!(tracing.warnings(), ["spans are lost: monitoring.tracing.otlpEndpoint answers with HTTP status 503"]);
}

#[tokio::test]
async fn what_is_refused_is_not_sent_again_and_said_once_an_episode() {
    let server = answering(&[400, 404, 400].map(status), fine("")).await;
    let tracing = Tracing::to(&server.url(""));
    for round in 1..=3 {
        tracing.make(2);
        reached!(tracing.counts().refused == 2 * round);
    }
    assert_eq!((server.requests().len(), tracing.warnings().len()), (3, 1));
    tracing.make(1);
    reached!(tracing.counts().exported == 1);
    assert_eq!(tracing.warnings(), ["spans are lost: monitoring.tracing.otlpEndpoint answers with HTTP status 400"]);
    assert_eq!(tracing.counts(), TraceCounts { exported: 1, refused: 6, ..TraceCounts::default() });
}

#[tokio::test]
async fn a_new_episode_is_told_again() {
    let server = answering(&[status(400), fine(""), status(415)], fine("")).await;
    let tracing = Tracing::to(&server.url(""));
    for (refused, exported) in [(1, 0), (1, 1), (2, 1)] {
        tracing.make(1);
        reached!((tracing.counts().refused, tracing.counts().exported) == (refused, exported));
    }
    assert_eq!(tracing.warnings().len(), 2);
}

#[tokio::test]
async fn of_a_batch_that_is_taken_in_part_the_rest_counts_as_refused() {
    let partial = ExportTracePartialSuccess { rejected_spans: 2, error_message: "too\nold".to_owned() };
    let body = ExportTraceServiceResponse { partial_success: Some(partial) }.encode_to_vec();
    let server = answering(&[], fine(std::str::from_utf8(&body).unwrap())).await;
    let tracing = Tracing::to(&server.url(""));
    tracing.make(5);
    reached!(tracing.counts().refused == 2);
    assert_eq!(tracing.counts().exported, 3);
    assert_eq!(tracing.warnings(), ["spans are lost: monitoring.tracing.otlpEndpoint did not take 2 of 5 spans: too old"]);
}

#[tokio::test]
async fn no_redirect_is_followed_and_no_secret_told() {
    let server = answering(&[], answer("301 Moved", &["Location: http://elsewhere.example/hunter2"], "")).await;
    let tracing = Tracing::to(&server.url("/hunter2?hunter2").replace("//", "//hunter2:hunter2@"));
    tracing.make(1);
    reached!(tracing.counts().refused == 1);
    let warnings = tracing.warnings();
    assert!(warnings.len() == 1 && !warnings[0].contains("hunter2"), "{warnings:?}");
    let refused = Tracer::check(&config("http://hunter2 x")).unwrap_err();
    assert!(refused.code == Code::InvalidConfig && !refused.message.contains("hunter2"), "{refused}");
}

#[tokio::test]
async fn what_does_not_fit_is_dropped_and_nobody_waits_for_it() {
    // It reads, and never answers.
    let server = Server::raw(|mut stream| async move {
        let mut read = [0; 1024];
        while stream.read(&mut read).await.is_ok_and(|count| count > 0) {}
    })
    .await;
    let tracing = Tracing::to(&server.url(""));
    tracing.make(1);
    reached!(server.connections() == 1);
    let began = Instant::now();
    tracing.make(10_000);
    assert!(began.elapsed() < Duration::from_secs(5));
    assert_eq!(tracing.counts().queue_full, 10_000 - 8_192);
    assert_eq!(tracing.counts().dropped()[0], ("queue-full", 1_808));
}

#[tokio::test]
async fn spans_wait_for_an_endpoint_that_is_away_and_that_is_said_once() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let tracing = Tracing::to(&format!("http://{address}"));
    tracing.make(5);
    reached!(tracing.warnings().len() == 1);
    let server = Server::answering_at(&address.to_string(), |_| fine("")).await;
    reached!(tracing.counts().exported == 5);
    assert_eq!(spans(&server).len(), 1);
    assert!(tracing.warnings().len() == 1 && tracing.warnings()[0].contains("cannot be reached"), "{:?}", tracing.warnings());
}

#[tokio::test]
async fn closing_sends_what_is_there_and_takes_no_more() {
    let server = Server::answering(|_| fine("")).await;
    let tracing = Tracing::at(Pace { every: Duration::from_secs(3600), ..PACE }, &config(&server.url("")));
    tracing.make(700);
    tracing.tracer.close(Duration::from_secs(10)).await;
    assert_eq!(tracing.counts().exported, 700);
    tracing.make(1);
    assert_eq!(tracing.counts(), TraceCounts { exported: 700, unreachable: 1, ..TraceCounts::default() });
}

#[tokio::test]
async fn closing_takes_no_longer_than_it_may() {
    let server = Server::raw(|mut stream| async move {
        let mut read = [0; 1024];
        while stream.read(&mut read).await.is_ok_and(|count| count > 0) {}
    })
    .await;
    let tracing = Tracing::to(&server.url(""));
    tracing.make(2_000);
    let began = Instant::now();
    tracing.tracer.close(ms(200)).await;
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    assert_eq!((tracing.counts().exported, tracing.counts().unreachable), (0, 2_000));
}

#[tokio::test]
async fn a_pause_is_cut_short_by_closing() {
    let server = answering(&[answer("503 Busy", &["Retry-After: 300"], "")], fine("")).await;
    let tracing = Tracing::to(&server.url(""));
    tracing.make(1);
    reached!(server.requests().len() == 1);
    let began = Instant::now();
    tracing.tracer.close(Duration::from_secs(20)).await;
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert_eq!(tracing.counts().exported, 1);
}

#[tokio::test]
async fn a_tracer_that_is_let_go_of_ends_by_itself() {
    let server = Server::answering(|_| fine("")).await;
    let tracing = Tracing::at(Pace { every: Duration::from_secs(3600), ..PACE }, &config(&server.url("")));
    tracing.make(2);
    drop(tracing.tracer);
    reached!(spans(&server).iter().map(Vec::len).sum::<usize>() == 2);
}

#[tokio::test]
async fn a_span_that_has_begun_is_active_until_it_ends_and_says_how() {
    let server = Server::answering(|_| fine("")).await;
    let tracing = Tracing::to(&server.url(""));
    let begin = || tracing.tracer.publish(None, "e", false, About::default).unwrap();
    let (done, failed, given_up) = (begin(), begin(), begin());
    assert_eq!(tracing.counts().active, 3);
    stored(done, &Ok(Appended::Duplicate("first".to_owned())));
    stored(failed, &Err(Error::new(Code::Connection, "away")));
    drop(given_up);
    assert_eq!(tracing.counts().active, 0);
    reached!(tracing.counts().exported == 3);
    let sent: Vec<Span> = spans(&server).concat();
    let said = |span: &Span| span.status.as_ref().map(|status| status.message.clone());
    assert_eq!(sent.iter().map(said).collect::<Vec<_>>()[..2], [None, Some("away".to_owned())]);
    assert!(said(&sent[2]).is_some_and(|message| message.contains("nobody waited")));
    assert!(sent[0].attributes.iter().any(|attribute| attribute.key == "ossa.duplicate_of"));
}

#[tokio::test]
async fn without_an_endpoint_or_where_it_is_off_no_spans_are_made() {
    let told: Arc<dyn Host> = host();
    for config in [TraceExport { otlp_endpoint: None, ..config("http://h") }, TraceExport { enabled: false, ..config("http://h") }] {
        let tracer = Tracer::start(&config, None, &told, &Env::system()).unwrap();
        assert!(!tracer.is_on() && tracer.counts().is_none());
        assert!(tracer.publish(None, "e", false, About::default).is_none());
    }
}
