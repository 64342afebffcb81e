//! Time and size.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use ossa::engine::config::HttpConfig;
use ossa::engine::http::{Failure, Http, Resolve};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::servers::{BYTES_MAX, LONG, Server, answer, fine, get, open, policy, post, request, with};
use crate::support::wait::until;

const SHORT: Duration = Duration::from_millis(200);

/// A request without an end was given up in time.
fn gave_up<T: std::fmt::Debug>(result: Result<T, Failure>, since: Instant) {
    assert_eq!(result.unwrap_err(), Failure::TimedOut(SHORT));
    assert!(since.elapsed() >= SHORT && since.elapsed() < LONG / 2, "{:?}", since.elapsed());
}

async fn both_give_up(http: &Http, url: &str) {
    let since = Instant::now();
    gave_up(http.get(url, &[], SHORT, BYTES_MAX).await, since);
    let since = Instant::now();
    gave_up(http.post(url, &[], "{}".to_owned(), SHORT).await, since);
}

/// Writes `text` once, and `again` for ever.
async fn trickle(mut stream: TcpStream, text: &str, again: &str) {
    request(&mut stream).await;
    let _ = stream.write_all(text.as_bytes()).await;
    while stream.write_all(again.as_bytes()).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Looks for ever.
struct Silence;

#[async_trait]
impl Resolve for Silence {
    async fn addresses(&self, _: &str) -> io::Result<Vec<IpAddr>> {
        std::future::pending().await
    }
}

#[tokio::test]
async fn looking_a_name_up_counts() {
    let http = Http::with_names(&[&policy(None, &[])], Arc::new(Silence)).unwrap();
    both_give_up(&http, "http://slow.example/").await;
}

/// A full queue of connections takes no more; how systems do that differs.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn connecting_counts() {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut queued = Vec::new();
    while let Ok(stream) = tokio::time::timeout(SHORT, TcpStream::connect(address)).await {
        queued.push(stream.unwrap());
    }
    both_give_up(&open(), &format!("http://{address}/")).await;
}

#[tokio::test]
async fn shaking_hands_counts() {
    let server = Server::raw(|mut stream| async move { while stream.read(&mut [0; 64]).await.is_ok_and(|count| count > 0) {} }).await;
    both_give_up(&open(), &format!("https://{}/", server.address)).await;
}

#[tokio::test]
async fn waiting_for_a_head_counts_also_where_it_never_ends() {
    for (text, again) in [("", ""), ("HTTP/1.1 200 OK\r\n", "X: y\r\n"), ("", "HTTP/1.1 100 Continue\r\n\r\n")] {
        let server = Server::raw(move |stream| trickle(stream, text, again)).await;
        both_give_up(&open(), &server.url("/")).await;
    }
}

#[tokio::test]
async fn a_body_that_trickles_counts() {
    for (text, again) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 4000\r\n\r\n", "x"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "1\r\nx\r\n"),
        ("HTTP/1.1 200 OK\r\n\r\n", ""),
    ] {
        let server = Server::raw(move |stream| trickle(stream, text, again)).await;
        let http = open();
        let since = Instant::now();
        gave_up(http.get(&server.url("/"), &[], SHORT, BYTES_MAX).await, since);
        // The server's word has come; only the rest of the answer has not.
        let since = Instant::now();
        let answer = http.post(&server.url("/"), &[], "{}".to_owned(), SHORT).await.unwrap();
        assert_eq!((answer.status, answer.complete), (200, false));
        assert!(answer.took >= SHORT && since.elapsed() < LONG / 2, "{answer:?}");
    }
}

#[tokio::test]
async fn redirects_share_the_time() {
    let server = Server::raw(|mut stream| async move {
        while request(&mut stream).await.is_some() {
            tokio::time::sleep(SHORT * 2 / 3).await;
            let _ = stream.write_all(answer("302 Found", &["Location: /"], "").as_bytes()).await;
        }
    })
    .await;
    let since = Instant::now();
    gave_up(open().get(&server.url("/"), &[], SHORT, BYTES_MAX).await, since);
}

#[tokio::test]
async fn of_all_times_the_smallest_counts() {
    let server = Server::raw(|stream| trickle(stream, "", "")).await;
    let patient = policy(None, &[]);
    let hasty = HttpConfig { timeout_ms: 200, ..patient.clone() };
    let http = Http::new(&[&patient, &hasty]).unwrap();
    let since = Instant::now();
    gave_up(get(&http, &server.url("/")).await, since);
    let since = Instant::now();
    gave_up(post(&http, &server.url("/")).await, since);
    assert_eq!(open().get(&server.url("/"), &[], Duration::ZERO, 1).await, Err(Failure::TimedOut(Duration::ZERO)));
}

#[tokio::test]
async fn an_answer_may_be_as_long_as_allowed_and_no_longer() {
    let server = Server::answering(|request| {
        let size = request.split(['/', ' ']).nth(2).unwrap().parse().unwrap();
        fine(&"x".repeat(size))
    })
    .await;
    let http = open();
    assert_eq!(get(&http, &server.url(&format!("/{BYTES_MAX}"))).await.unwrap().body.len(), BYTES_MAX);
    assert_eq!(get(&http, &server.url(&format!("/{}", BYTES_MAX + 1))).await, Err(Failure::TooLarge(BYTES_MAX)));
    assert_eq!(http.get(&server.url("/0"), &[], LONG, 0).await.unwrap().body, b"");
    assert_eq!(http.get(&server.url("/1"), &[], LONG, 0).await, Err(Failure::TooLarge(0)));
}

#[tokio::test]
async fn of_all_sizes_the_smallest_counts() {
    let server = Server::answering(|_| fine(&"x".repeat(3_000))).await;
    let wide = policy(None, &[]);
    let narrow = HttpConfig { response_bytes_max: 2_000, ..wide.clone() };
    let http = Http::new(&[&wide, &narrow]).unwrap();
    assert_eq!(get(&http, &server.url("/")).await, Err(Failure::TooLarge(2_000)));
    // What a server says behind its word does not take it back.
    let answer = post(&http, &server.url("/")).await.unwrap();
    assert_eq!((answer.status, answer.complete, answer.body.len() <= 2_000), (200, false, true));
    assert_eq!(with(&wide).get(&server.url("/"), &[], LONG, usize::MAX).await.unwrap().body.len(), 3_000);
}

#[tokio::test]
async fn an_endless_answer_is_cut_off_and_its_connection_closed() {
    let piece = "x".repeat(1_000);
    let chunk: &'static str = Box::leak(format!("3e8\r\n{piece}\r\n").into_boxed_str());
    let plain: &'static str = Box::leak(piece.into_boxed_str());
    for (text, again) in [
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", chunk),
        ("HTTP/1.1 200 OK\r\n\r\n", plain),
        // These say how much is to come, and that is too much already.
        ("HTTP/1.1 200 OK\r\nContent-Length: 9999999\r\n\r\n", plain),
        ("HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551615\r\n\r\n", ""),
    ] {
        let (ended, mut ends) = tokio::sync::mpsc::unbounded_channel();
        let server = Server::raw(move |mut stream| {
            let ended = ended.clone();
            async move {
                request(&mut stream).await;
                let _ = stream.write_all(text.as_bytes()).await;
                if again.is_empty() {
                    let _ = stream.read(&mut [0]).await;
                }
                while !again.is_empty() && stream.write_all(again.as_bytes()).await.is_ok() {}
                let _ = ended.send(());
            }
        })
        .await;
        let http = open();
        let failure = get(&http, &server.url("/")).await.unwrap_err();
        assert!(matches!(failure, Failure::TooLarge(BYTES_MAX) | Failure::Broken(_)), "{text}: {failure:?}");
        if !text.contains("1844") {
            assert_eq!(failure, Failure::TooLarge(BYTES_MAX), "{text}");
        }
        until("the connection is closed", async || ends.try_recv().is_ok()).await;
        let narrow = with(&HttpConfig { response_bytes_max: 2_000, ..policy(None, &[]) });
        if let Ok(answer) = post(&narrow, &server.url("/")).await {
            assert_eq!((answer.status, answer.complete, answer.body.len() <= 2_000), (200, false, true), "{text}");
        }
        until("the connection is closed", async || ends.try_recv().is_ok()).await;
    }
}
