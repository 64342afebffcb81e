//! The helper that other tests rely on: a private redis-server that can crash, come back, and hang.

mod support;

use std::time::Duration;

use support::server::{Server, programs};

#[tokio::test]
async fn a_server_is_killed_restarted_paused_and_ended() {
    for program in programs() {
        let mut server = Server::start(&program).await;
        server.command(&[b"SET", b"a", b"1"]).await;

        server.pause().await;
        assert!(!server.pings(Duration::from_millis(100)).await);
        server.resume().await;
        assert!(server.pings(Duration::from_secs(5)).await);

        server.restart().await;
        assert_eq!(server.command(&[b"GET", b"a"]).await, b"$-1\r\n", "it comes back empty");
        server.kill().await;
        assert!(!server.pings(Duration::from_millis(100)).await);
        server.restart().await;

        let port = server.port();
        server.pause().await;
        drop(server);
        support::wait::until("a paused server is ended too", async || std::net::TcpListener::bind(("127.0.0.1", port)).is_ok()).await;
    }
}

#[tokio::test]
async fn servers_do_not_meet() {
    let program = programs().remove(0);
    let (one, two) = tokio::join!(Server::start(&program), Server::start(&program));
    assert_ne!(one.url(), two.url());
    one.command(&[b"SET", b"a", b"1"]).await;
    assert_eq!(two.command(&[b"EXISTS", b"a"]).await, b":0\r\n");
}

#[tokio::test]
#[should_panic(expected = "apt-get install redis-server")]
async fn a_missing_server_says_what_to_install() {
    Server::start("/no/such/redis-server").await;
}
