//! Answers that are none, and answers that end too soon.

use std::time::Duration;

use ossa::engine::http::Failure;
use tokio::io::AsyncWriteExt;

use crate::servers::{Server, answer, fine, get, open, post, request};

/// A server that says this to every request and closes the connection.
async fn saying(text: &'static str) -> Server {
    Server::raw(move |mut stream| async move {
        request(&mut stream).await;
        let _ = stream.write_all(text.as_bytes()).await;
    })
    .await
}

#[tokio::test]
async fn every_status_is_an_answer() {
    for status in [200, 204, 226, 300, 304, 400, 401, 404, 429, 500, 503, 599, 999] {
        let server = Server::answering(move |_| {
            if [204, 304].contains(&status) { format!("HTTP/1.1 {status} X\r\n\r\n") } else { answer(&format!("{status} X"), &[], "b") }
        })
        .await;
        let http = open();
        assert_eq!(get(&http, &server.url("/")).await.unwrap().status, status);
        assert_eq!(post(&http, &server.url("/")).await.unwrap().status, status);
    }
}

#[tokio::test]
async fn bodies_come_whole_however_they_are_sent() {
    for text in [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nthere",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nth\r\n3;x=y\r\nere\r\n0\r\nTrailer: x\r\n\r\n",
        "HTTP/1.1 200 OK\r\n\r\nthere",
        "HTTP/1.0 200 OK\r\n\r\nthere",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nthere",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nthere and more than was said",
    ] {
        let server = saying(text).await;
        let http = open();
        for answer in [get(&http, &server.url("/")).await, post(&http, &server.url("/")).await] {
            let answer = answer.unwrap_or_else(|failure| panic!("{text}: {failure}"));
            assert_eq!((answer.status, answer.body.as_slice(), answer.complete), (200, &b"there"[..], true), "{text}");
        }
    }
}

#[tokio::test]
async fn nothing_is_unpacked() {
    let server = Server::answering(|_| answer("200 OK", &["Content-Encoding: gzip"], "as it is")).await;
    assert_eq!(get(&open(), &server.url("/")).await.unwrap().body, b"as it is");
}

#[tokio::test]
async fn what_is_no_http_is_told() {
    let long_head: &'static str = Box::leak(format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(1 << 20)).into_boxed_str());
    let many_headers: &'static str = Box::leak(format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: y\r\n".repeat(1_000)).into_boxed_str());
    for text in [
        "",
        "SSH-2.0-OpenSSH_9.6\r\n",
        "-ERR unknown command\r\n",
        "HTTP/2.0 200 OK\r\n\r\n",
        "HTTP/1.1 abc OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
        "HTTP/1.1 200 OK\r\nContent-",
        "\0\0\0\0\r\n\r\n",
        long_head,
        many_headers,
    ] {
        let server = saying(text).await;
        let http = open();
        for failure in [get(&http, &server.url("/")).await, post(&http, &server.url("/")).await].map(Result::unwrap_err) {
            let Failure::Broken(said) = &failure else { panic!("{text:?}: {failure:?}") };
            assert!(said.contains(&server.address.to_string()), "{said}");
        }
    }
}

const CUT: [&str; 4] = [
    "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n8\r\nand",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nzz\r\n",
];

#[tokio::test]
async fn an_answer_that_breaks_off_is_none_to_a_get() {
    for text in CUT {
        let server = saying(text).await;
        let failure = get(&open(), &server.url("/")).await.unwrap_err();
        assert!(matches!(failure, Failure::Broken(_)), "{text}: {failure:?}");
    }
}

#[tokio::test]
async fn a_server_that_took_a_post_has_taken_it_however_its_answer_ends() {
    for text in CUT {
        let server = saying(text).await;
        let answer = post(&open(), &server.url("/")).await.unwrap_or_else(|failure| panic!("{text}: {failure}"));
        assert_eq!((answer.status, answer.complete), (200, false), "{text}");
        assert!(answer.body.starts_with(b"half"), "{text}");
    }
}

#[tokio::test]
async fn a_server_asks_for_time() {
    for (header, seconds) in [
        ("Retry-After: 7", Some(7)),
        ("Retry-After: Wed, 21 Oct 2015 07:28:30 GMT", Some(30)),
        ("Retry-After: never", None),
        ("X-Retry-After: 7", None),
    ] {
        let server = Server::answering(move |_| answer("503 Busy", &["Date: Wed, 21 Oct 2015 07:28:00 GMT", header], "")).await;
        let http = open();
        for answer in [get(&http, &server.url("/")).await.unwrap(), post(&http, &server.url("/")).await.unwrap()] {
            assert_eq!((answer.status, answer.retry_after), (503, seconds.map(Duration::from_secs)), "{header}");
        }
    }
}

#[tokio::test]
async fn where_nothing_listens_is_told() {
    let server = Server::answering(|_| fine("")).await;
    let url = server.url("/secret-path");
    let http = open();
    drop(server);
    crate::support::wait::until("nothing listens", async || matches!(get(&http, &url).await, Err(Failure::Unreachable(_)))).await;
    let said = get(&http, &url).await.unwrap_err().to_string();
    assert!(said.contains("127.0.0.1:") && said.contains("refused") && !said.contains("secret-path"), "{said}");
    let unknown = get(&http, "http://name.invalid:81/").await.unwrap_err();
    let Failure::Unreachable(said) = &unknown else { panic!("{unknown:?}") };
    assert!(said.contains("name.invalid:81"), "{said}");
}
