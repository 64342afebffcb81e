//! Where a redirect may lead.

use ossa::engine::http::Failure;
use tokio::io::AsyncWriteExt;

use crate::servers::{Server, answer, fine, get, open, post, request};

/// Redirects `/a` to `to`, and has something everywhere else.
async fn redirecting(status: u16, to: String) -> Server {
    Server::answering(move |request| {
        if request.contains(" /a ") {
            answer(&format!("{status} Over There"), &[&format!("Location: {to}")], "elsewhere")
        } else {
            fine("here")
        }
    })
    .await
}

#[tokio::test]
async fn a_get_follows_to_the_same_server() {
    for status in [301, 302, 303, 307, 308] {
        for to in ["/b", "b", "?c", "//127.0.0.1:PORT/b#c"] {
            // The port is known when it listens, so it tells itself where it is.
            let server = Server::answering(move |request| {
                let host = request.lines().find_map(|line| line.strip_prefix("host: ")).unwrap().to_owned();
                let to = to.replace("127.0.0.1:PORT", &host);
                if request.contains(" /a ") {
                    answer(&format!("{status} X"), &[&format!("Location: {to}")], "elsewhere")
                } else {
                    fine("here")
                }
            })
            .await;
            let answer = get(&open(), &server.url("/a")).await.unwrap_or_else(|failure| panic!("{status} {to}: {failure}"));
            assert_eq!((answer.status, answer.body.as_slice()), (200, &b"here"[..]), "{status} {to}");
            assert!(server.requests().iter().all(|request| request.starts_with("GET ")), "{status} {to}");
        }
    }
}

#[tokio::test]
async fn credentials_and_headers_go_along_and_those_of_the_location_do_not_count() {
    let server = redirecting(302, "/b".to_owned()).await;
    let url = server.url("/a").replace("http://", "http://u:p@");
    open().get(&url, &[("x-tag", "t")], crate::servers::LONG, 100).await.unwrap();
    let requests = server.requests();
    assert_eq!(requests.len(), 2);
    assert!(
        requests.iter().all(|request| request.contains("x-tag: t\r\n") && request.contains("authorization: Basic dTpw\r\n")),
        "{requests:?}"
    );
}

#[tokio::test]
async fn another_host_port_or_scheme_is_told_and_not_asked() {
    let other = Server::answering(|_| fine("other")).await;
    let port = other.address.port();
    for to in [
        other.url("/x"),
        format!("http://localhost:{port}/x"),
        format!("//127.0.0.1:{port}/x"),
        format!("http://u:hunter2@127.0.0.1:{port}/x?hunter2"),
        "http://169.254.169.254/latest/meta-data/".to_owned(),
        "file:///etc/passwd".to_owned(),
        "gopher://127.0.0.1:6379/_FLUSHALL".to_owned(),
        "http://[::1".to_owned(),
    ] {
        let server = redirecting(302, to.clone()).await;
        let http = open();
        for failure in [get(&http, &server.url("/a")).await, post(&http, &server.url("/a")).await].map(Result::unwrap_err) {
            let Failure::Redirected(shown) = &failure else { panic!("{to}: {failure:?}") };
            assert!(!shown.contains("hunter2") && failure.to_string().contains(shown), "{failure}");
        }
    }
    let server = Server::answering(|request| {
        let host = request.lines().find_map(|line| line.strip_prefix("host: ")).unwrap().to_owned();
        let to = if request.contains(" /tls ") {
            format!("https://{host}/")
        } else {
            format!("http://{}/", host.replace("127.0.0.1", "localhost"))
        };
        answer("301 Moved", &[&format!("Location: {to}")], "")
    })
    .await;
    for path in ["/tls", "/name"] {
        let failure = get(&open(), &server.url(path)).await.unwrap_err();
        assert!(matches!(failure, Failure::Redirected(_)), "{path}: {failure:?}");
    }
    assert_eq!((server.requests().len(), other.connections()), (2, 0));
}

#[tokio::test]
async fn a_loop_ends_after_three() {
    let server = redirecting(302, "/a".to_owned()).await;
    let failure = get(&open(), &server.url("/a")).await.unwrap_err();
    assert!(matches!(&failure, Failure::Redirected(to) if to.contains(&server.url("/a"))), "{failure:?}");
    assert_eq!(server.requests().len(), 4);
}

#[tokio::test]
async fn three_in_a_row_are_followed() {
    let server = Server::answering(|request| match request.chars().nth(5) {
        Some(digit @ '1'..='3') => answer("302 Found", &[&format!("Location: /{}", digit as u8 - b'1')], ""),
        _ => fine("there"),
    })
    .await;
    assert_eq!(get(&open(), &server.url("/3")).await.unwrap().body, b"there");
    assert_eq!(server.requests().len(), 4);
}

#[tokio::test]
async fn a_post_follows_none_not_even_to_the_same_server() {
    for status in [301, 302, 303, 307, 308] {
        let server = redirecting(status, "/b".to_owned()).await;
        let failure = post(&open(), &server.url("/a")).await.unwrap_err();
        assert_eq!(failure, Failure::Redirected(server.url("/b")), "{status}");
        assert_eq!(server.requests().len(), 1, "{status}");
    }
}

#[tokio::test]
async fn a_redirect_to_nowhere_is_an_answer() {
    let server = Server::answering(|_| answer("302 Found", &[], "where?")).await;
    let http = open();
    assert_eq!(get(&http, &server.url("/")).await.unwrap().status, 302);
    assert_eq!(post(&http, &server.url("/")).await.unwrap().status, 302);
}

#[tokio::test]
async fn what_comes_with_a_redirect_is_read_only_so_far() {
    let server = Server::raw(|mut stream| async move {
        while let Some(request) = request(&mut stream).await {
            if request.contains(" /b ") {
                let _ = stream.write_all(fine("there").as_bytes()).await;
                continue;
            }
            let _ = stream.write_all(b"HTTP/1.1 302 Found\r\nLocation: /b\r\n\r\n").await;
            while stream.write_all(&[b'x'; 1_000]).await.is_ok() {}
            return;
        }
    })
    .await;
    assert_eq!(get(&open(), &server.url("/a")).await.unwrap().body, b"there");
}
