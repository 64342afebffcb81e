//! The rules, with servers that must not be reached.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use ossa::engine::config::HttpConfig;
use ossa::engine::http::{Failure, Http, Resolve};

use crate::servers::{Names, Server, fine, get, open, policy, post, with};

fn forbidden<T: std::fmt::Debug>(result: Result<T, Failure>, what: &str) {
    match result {
        Err(Failure::Forbidden(said)) => assert!(said.contains("http.deny") || said.contains("http.allow"), "{what}: {said}"),
        other => panic!("{what}: {other:?}"),
    }
}

#[tokio::test]
async fn private_addresses_are_asked_unless_a_rule_forbids_it() {
    let server = Server::answering(|_| fine("")).await;
    for url in [server.url("/"), server.url("/").replace("127.0.0.1", "localhost")] {
        assert_eq!(get(&open(), &url).await.unwrap().status, 200, "{url}");
    }
}

#[tokio::test]
async fn a_denied_server_is_not_connected_to_however_its_address_is_written() {
    let server = Server::answering(|_| fine("")).await;
    let port = server.address.port();
    for deny in ["private", "127.0.0.0/8", "127.0.0.1", "::ffff:127.0.0.1", &format!("private:{port}")] {
        let http = with(&policy(None, &[deny]));
        for host in [
            "127.0.0.1",
            "2130706433",
            "0x7f.1",
            "0177.0.0.1",
            "127.1",
            "[::ffff:127.0.0.1]",
            "[::ffff:7f00:1]",
            "127.0.0.1.",
            "u:p@127.0.0.1",
        ] {
            let url = format!("http://{host}:{port}/");
            let what = format!("{deny}: {url}");
            forbidden(http.check(&url), &what);
            forbidden(get(&http, &url).await, &what);
            forbidden(post(&http, &url).await, &what);
        }
    }
    let private = with(&policy(None, &["private"]));
    forbidden(get(&private, &format!("http://0.0.0.0:{port}/")).await, "0.0.0.0");
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn a_name_is_held_to_the_address_that_it_has() {
    let server = Server::answering(|_| fine("")).await;
    let url = server.url("/").replace("127.0.0.1", "localhost");
    let private = with(&policy(None, &["private"]));
    // What a name resolves to is not known before.
    assert_eq!(private.check(&url), Ok(()));
    forbidden(get(&private, &url).await, "localhost");
    forbidden(get(&with(&policy(Some(&["localhost"]), &["private"])), &url).await, "deny wins");
    forbidden(get(&with(&policy(Some(&["203.0.113.0/24"]), &[])), &url).await, "an address that is not allowed");
    assert_eq!(server.connections(), 0);
    for allow in ["localhost", "LOCALHOST.", "private"] {
        assert_eq!(get(&with(&policy(Some(&[allow]), &[])), &url).await.unwrap().status, 200, "{allow}");
    }
}

#[tokio::test]
async fn by_names_alone_a_stranger_is_refused_without_looking_its_name_up() {
    let http = Http::with_names(&[&policy(Some(&["*.example.com", "api.test:8443"]), &[])], Arc::new(Names(Vec::new()))).unwrap();
    for url in ["http://example.com", "http://api.test", "https://evil.test", "http://127.0.0.1", "http://a.example.com.evil.test"] {
        forbidden(http.check(url), url);
        forbidden(get(&http, url).await, url);
    }
    // These are allowed; that these names have no address is another matter.
    for url in ["http://a.example.com", "https://api.test:8443"] {
        assert_eq!(http.check(url), Ok(()), "{url}");
        assert!(matches!(get(&http, url).await, Err(Failure::Unreachable(_))), "{url}");
    }
}

/// Systems other than Linux have no second address on loopback.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn of_several_addresses_only_those_that_passed_are_connected_to() {
    let good = Server::answering_at("127.0.0.2:0", |_| fine("good")).await;
    let port = good.address.port();
    let bad = Server::answering_at(&format!("127.0.0.1:{port}"), |_| fine("bad")).await;
    let names = || Arc::new(Names(vec![("two.test", vec!["127.0.0.1", "127.0.0.2"])]));
    for policy in [policy(None, &["127.0.0.1"]), policy(Some(&["127.0.0.2"]), &[])] {
        let http = Http::with_names(&[&policy], names()).unwrap();
        for _ in 0..5 {
            assert_eq!(get(&http, &format!("http://two.test:{port}/")).await.unwrap().body, b"good");
        }
    }
    assert_eq!(bad.connections(), 0);
}

/// Has another address at each look.
struct Rebinding(AtomicUsize);

#[async_trait]
impl Resolve for Rebinding {
    async fn addresses(&self, _: &str) -> io::Result<Vec<IpAddr>> {
        let first = self.0.fetch_add(1, Ordering::Relaxed) == 0;
        Ok(vec![if first { "203.0.113.7" } else { "127.0.0.1" }.parse().unwrap()])
    }
}

#[tokio::test]
async fn a_name_that_changes_its_address_after_it_was_checked_gains_nothing() {
    let server = Server::answering(|_| fine("")).await;
    let names = Arc::new(Rebinding(AtomicUsize::new(0)));
    let http = Http::with_names(&[&policy(None, &["private"])], Arc::clone(&names) as Arc<dyn Resolve>).unwrap();
    let url = format!("http://rebinding.test:{}/", server.address.port());
    // The address that was checked is the one that is connected to, and there is nothing at it.
    let short = std::time::Duration::from_millis(200);
    let failure = http.get(&url, &[], short, 10).await.unwrap_err();
    assert!(matches!(failure, Failure::TimedOut(_) | Failure::Unreachable(_)), "{failure:?}");
    assert_eq!(names.0.load(Ordering::Relaxed), 1);
    forbidden(get(&http, &url).await, "the second look");
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn every_policy_counts() {
    let server = Server::answering(|_| fine("")).await;
    let (all, none, local) = (policy(None, &[]), policy(Some(&[]), &[]), policy(Some(&["localhost"]), &[]));
    let asks =
        async |policies: &[&HttpConfig]| get(&Http::new(policies).unwrap(), &server.url("/").replace("127.0.0.1", "localhost")).await;
    assert_eq!(asks(&[]).await.unwrap().status, 200);
    assert_eq!(asks(&[&all, &local]).await.unwrap().status, 200);
    forbidden(asks(&[&all, &none]).await, "nothing is allowed");
    forbidden(asks(&[&local, &policy(Some(&["other"]), &[])]).await, "each allows another");
    forbidden(asks(&[&all, &policy(None, &["private"])]).await, "one denies");
}

#[tokio::test]
async fn what_is_no_url_is_told_before_anything_else() {
    let http = with(&policy(Some(&[]), &[]));
    for url in ["", "localhost", "localhost:80", "ftp://localhost", "http://", "redis://localhost", "http://a b", "http://h/\n"] {
        assert!(matches!(http.check(url), Err(Failure::NoUrl(_))), "{url}");
        assert!(matches!(get(&http, url).await, Err(Failure::NoUrl(_))), "{url}");
        assert!(matches!(post(&http, url).await, Err(Failure::NoUrl(_))), "{url}");
    }
}
