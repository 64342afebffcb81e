//! What is sent, on which connection.

use std::time::Duration;

use ossa::engine::http::Failure;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::servers::{LONG, Server, answer, fine, get, open, policy, post, request, with};
use crate::support::wait::until;

#[tokio::test]
async fn a_get_sends_path_query_and_headers_and_nothing_of_its_own_that_tells_or_asks_too_much() {
    let server = Server::answering(|_| fine("there")).await;
    let answer = open().get(&server.url("/a/b?c=d#e"), &[("X-Tag", "t")], LONG, 10).await.unwrap();
    assert_eq!((answer.status, answer.body.as_slice(), answer.complete, answer.retry_after), (200, &b"there"[..], true, None));
    assert!(answer.took > Duration::ZERO && answer.took < LONG);
    let request = server.requests().remove(0).to_lowercase();
    assert!(request.starts_with("get /a/b?c=d http/1.1\r\n"), "{request}");
    for line in ["x-tag: t", &format!("host: {}", server.address), "accept-encoding: identity"] {
        assert!(request.contains(&format!("\r\n{line}\r\n")), "{line}: {request}");
    }
    for name in ["cookie", "referer", "authorization", "content-type"] {
        assert!(!request.contains(&format!("\r\n{name}:")), "{request}");
    }
}

#[tokio::test]
async fn a_post_sends_its_body_as_json_unless_told_otherwise() {
    let server = Server::answering(|_| answer("202 Accepted", &[], "")).await;
    let http = open();
    let body = "{\"ü\":1}";
    assert_eq!(http.post(&server.url("/in"), &[], body.to_owned(), LONG).await.unwrap().status, 202);
    http.post(&server.url(""), &[("content-type", "application/cloudevents+json")], String::new(), LONG).await.unwrap();
    let requests = server.requests();
    assert!(requests[0].starts_with("POST /in HTTP/1.1\r\n") && requests[0].ends_with(&format!("\r\n\r\n{body}")), "{requests:?}");
    assert!(requests[0].contains("content-type: application/json\r\n") && requests[0].contains("content-length: 8\r\n"), "{requests:?}");
    assert!(requests[1].contains("content-type: application/cloudevents+json\r\n"), "{requests:?}");
}

#[tokio::test]
async fn what_is_set_as_a_cookie_is_not_sent_back() {
    let server = Server::answering(|_| answer("200 OK", &["Set-Cookie: a=b; Path=/"], "")).await;
    let http = open();
    get(&http, &server.url("/")).await.unwrap();
    get(&http, &server.url("/")).await.unwrap();
    assert!(!server.requests()[1].to_lowercase().contains("cookie"), "{:?}", server.requests());
}

#[tokio::test]
async fn credentials_in_the_url_are_sent_as_a_header_alone() {
    let server = Server::answering(|_| fine("")).await;
    let url = server.url("/x").replace("http://", "http://us%40er:hunter2@");
    get(&open(), &url).await.unwrap();
    let request = server.requests().remove(0);
    assert!(request.contains("authorization: Basic dXNAZXI6aHVudGVyMg==\r\n") && request.starts_with("GET /x "), "{request}");
    assert!(!request.contains("hunter2"), "{request}");
}

#[tokio::test]
async fn credentials_are_in_no_failure() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let far = Server::answering(|_| answer("302 Found", &["Location: http://other:hunter2@127.0.0.1:1/x?hunter2"], "")).await;
    let silent = Server::raw(|stream| async move { drop(stream) }).await;
    let denying = with(&policy(None, &["private"]));
    let http = open();
    for (url, http) in [
        (format!("http://u:hunter2@{closed}/"), &http),
        (format!("https://u:hunter2@{}/?hunter2", silent.address), &http),
        (format!("http://u:hunter2@{}/?hunter2", far.address), &http),
        (format!("http://u:hunter2@{}/?hunter2", silent.address), &http),
        (format!("http://u:hunter2@{}/?hunter2", silent.address), &denying),
        ("http://u:hunter2@name.invalid/".to_owned(), &http),
        ("http://u:hunter2@/".to_owned(), &http),
        ("http://u:hunter2@h:x/".to_owned(), &http),
    ] {
        for failure in [get(http, &url).await.unwrap_err(), post(http, &url).await.unwrap_err()] {
            assert!(!format!("{failure} {failure:?}").contains("hunter2"), "{url}: {failure}");
        }
    }
}

#[tokio::test]
async fn a_header_that_would_end_the_head_is_refused_before_anything_is_sent() {
    let server = Server::answering(|_| fine("")).await;
    let http = open();
    for (name, value) in [("x", "a\r\nX-Injected: 1"), ("x", "a\r\n\r\nGET /other HTTP/1.1"), ("x\r\ny", "a"), ("content-length", "0")] {
        let headers = [("fine", "1"), (name, value)];
        let failures = [
            http.get(&server.url("/"), &headers, LONG, 10).await.unwrap_err(),
            http.post(&server.url("/"), &headers, String::new(), LONG).await.unwrap_err(),
        ];
        assert!(failures.iter().all(|failure| matches!(failure, Failure::Header(_))), "{failures:?}");
    }
    // Nor by the URL.
    for url in ["/a%0d%0aX-Injected:%201", "/?a=%0d%0aX-Injected: 1"] {
        let _ = get(&http, &server.url(url)).await;
    }
    let requests = server.requests();
    assert!(requests.iter().all(|request| !request.to_lowercase().contains("\r\nx-injected")), "{requests:?}");
}

#[tokio::test]
async fn connections_are_used_again() {
    let server =
        Server::answering(|request| if request.starts_with("GET /gone") { answer("404 Not Found", &[], "no") } else { fine("yes") }).await;
    let http = open();
    for _ in 0..20 {
        for path in ["/", "/gone"] {
            get(&http, &server.url(path)).await.unwrap();
        }
        post(&http.clone(), &server.url("/")).await.unwrap();
        // Back with the others once the task that reads on it has run.
        tokio::task::yield_now().await;
    }
    assert_eq!(server.requests().len(), 60);
    assert!(server.connections() <= 3, "{}", server.connections());
}

#[tokio::test]
async fn a_connection_that_the_server_closed_is_made_again() {
    let server = Server::answering(|_| answer("200 OK", &["Connection: close"], "")).await;
    let closing = Server::raw(|mut stream| async move {
        if request(&mut stream).await.is_some() {
            let _ = stream.write_all(fine("").as_bytes()).await;
        }
    })
    .await;
    let http = open();
    for _ in 0..5 {
        get(&http, &server.url("/")).await.unwrap();
    }
    assert_eq!(server.connections(), 5);
    // Without a word of it, it may be found out by the request that is lost.
    until("it is asked again", async || get(&http, &closing.url("/")).await.is_ok() && closing.connections() >= 5).await;
}

#[tokio::test]
async fn an_idle_connection_is_closed() {
    let (ended, mut ends) = tokio::sync::mpsc::unbounded_channel();
    let server = Server::raw(move |mut stream| {
        let ended = ended.clone();
        async move {
            request(&mut stream).await;
            let _ = stream.write_all(fine("").as_bytes()).await;
            let _ = stream.read(&mut [0]).await;
            let _ = ended.send(());
        }
    })
    .await;
    let http = open();
    get(&http, &server.url("/")).await.unwrap();
    until("the connection is closed", async || ends.try_recv().is_ok()).await;
}
