//! A server on a Unix socket.

use std::os::unix::fs::PermissionsExt;
use std::time::Instant;

use ossa::engine::error::Code;
use ossa::engine::store::redis::{Endpoint, Location, RedisStoreConfig};

use crate::reach::{at, carries_an_event, open, refusal};
use crate::support::server::Server;
use crate::support::wait::until;

on_every_server!(
    events_go_through_a_socket,
    a_socket_takes_user_password_and_database,
    a_socket_that_is_not_there_is_named,
    a_socket_that_may_not_be_opened_says_so,
    a_server_that_comes_back_is_found_again,
);

const SOCKET: &[&str] = &["--unixsocket", "redis.sock"];

fn through(server: &Server) -> RedisStoreConfig {
    at(Location::Server(Endpoint::Unix { path: server.path("redis.sock").to_string_lossy().into_owned() }))
}

mod cases {
    use super::*;

    pub async fn events_go_through_a_socket(program: &str) {
        let server = Server::start_with(program, SOCKET).await;
        let store = open(through(&server)).await;
        carries_an_event(&store, "socket").await;
        let status = store.status().await;
        assert!(status.connected && !status.cluster);
    }

    pub async fn a_socket_takes_user_password_and_database(program: &str) {
        let server = Server::start_with(program, SOCKET).await;
        server.command(&[b"ACL", b"SETUSER", b"ossa", b"on", b">s3cret", b"~*", b"&*", b"+@all"]).await;
        let config = RedisStoreConfig { username: Some("ossa".into()), password: Some("s3cret".into()), db: 3, ..through(&server) };
        carries_an_event(&open(config.clone()).await, "socket").await;
        assert!(server.text(&["INFO", "keyspace"]).await.contains("db3:"));
        let error = refusal(RedisStoreConfig { password: Some("wr0ng".into()), ..config }).await;
        assert_eq!(error.code, Code::Auth, "{error}");
    }

    pub async fn a_socket_that_is_not_there_is_named(program: &str) {
        let server = Server::start(program).await;
        let (start, config) = (Instant::now(), through(&server));
        let error = refusal(config.clone()).await;
        assert_eq!(error.code, Code::Connection, "{error}");
        assert!(error.message.contains("redis.sock"), "{error}");
        assert!(start.elapsed() < config.connect_timeout * 2);
    }

    pub async fn a_socket_that_may_not_be_opened_says_so(program: &str) {
        let server = Server::start_with(program, SOCKET).await;
        let path = server.path("redis.sock");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o000)).expect("it is ours");
        if tokio::net::UnixStream::connect(&path).await.is_ok() {
            println!("this user may open everything: skipped");
            return;
        }
        let error = refusal(through(&server)).await;
        assert_eq!(error.code, Code::Connection, "{error}");
        assert!(error.message.contains("redis.sock") && error.message.to_lowercase().contains("permission"), "{error}");
    }

    pub async fn a_server_that_comes_back_is_found_again(program: &str) {
        let mut server = Server::start_with(program, SOCKET).await;
        let store = open(through(&server)).await;
        server.restart().await;
        until("it is connected again", async || store.status().await.connected).await;
        carries_an_event(&store, "again").await;
    }
}
