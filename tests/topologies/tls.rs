//! Encrypted connections, and what is said when they cannot be had.

use std::time::Instant;

use ossa::engine::error::{Code, Error};
use ossa::engine::store::redis::{Location, RedisStoreConfig, TlsOptions};

use crate::reach::{at, carries_an_event, local, open, refusal, trusting};
use crate::support::certificates::{Authority, Clients, EXTRA_NAME, TlsServer};
use crate::support::harness::ms;
use crate::support::wait::until;

on_every_server!(
    a_server_signed_by_the_given_authority_is_trusted,
    an_unknown_authority_is_refused_and_the_error_says_what_to_do,
    the_name_in_the_certificate_counts_and_can_be_given,
    a_client_certificate_is_sent_where_asked_for,
    without_verification_any_certificate_will_do,
    one_side_alone_with_tls_is_told_in_time,
    texts_that_are_no_certificates_are_refused,
    connections_are_made_again,
);

fn over(port: u16, tls: TlsOptions) -> RedisStoreConfig {
    RedisStoreConfig { tls: Some(tls), connect_timeout: ms(3000), ..at(Location::Server(local(port))) }
}

/// Says where it failed and one of the words.
fn says(error: &Error, port: u16, words: &[&str]) {
    assert_eq!(error.code, Code::Connection, "{error}");
    assert!(error.message.contains(&port.to_string()), "where: {error}");
    assert!(words.iter().all(|word| error.message.contains(word)), "{words:?}: {error}");
    assert!(!error.message.contains("PRIVATE KEY"), "{error}");
}

mod cases {
    use super::*;

    pub async fn a_server_signed_by_the_given_authority_is_trusted(program: &str) {
        let authority = Authority::new("own");
        let Some(server) = TlsServer::start(program, &authority, &authority.local_server(), Clients::Any).await else { return };
        let store = open(over(server.tls_port(), trusting(&authority.cert))).await;
        carries_an_event(&store, "tls").await;
        assert!(store.status().await.connected);
        // Others in the list do no harm.
        let both = format!("{}{}", Authority::new("other").cert, authority.cert);
        carries_an_event(&open(over(server.tls_port(), trusting(&both))).await, "tls.both").await;
    }

    pub async fn an_unknown_authority_is_refused_and_the_error_says_what_to_do(program: &str) {
        let authority = Authority::new("own");
        let Some(server) = TlsServer::start(program, &authority, &authority.local_server(), Clients::Any).await else { return };
        let other = trusting(&Authority::new("other").cert);
        for tls in [other.clone(), TlsOptions { ca: None, ..other }] {
            let error = refusal(over(server.tls_port(), tls)).await;
            says(&error, server.tls_port(), &["ca", "rejectUnauthorized"]);
        }
    }

    pub async fn the_name_in_the_certificate_counts_and_can_be_given(program: &str) {
        let authority = Authority::new("own");
        let Some(server) = TlsServer::start(program, &authority, &authority.server(&[EXTRA_NAME]), Clients::Any).await else { return };
        let error = refusal(over(server.tls_port(), trusting(&authority.cert))).await;
        says(&error, server.tls_port(), &["serverName"]);
        let named = |name: &str| TlsOptions { server_name: Some(name.into()), ..trusting(&authority.cert) };
        carries_an_event(&open(over(server.tls_port(), named(EXTRA_NAME))).await, "named").await;
        says(&refusal(over(server.tls_port(), named("other.ossa.test"))).await, server.tls_port(), &["serverName"]);
    }

    pub async fn a_client_certificate_is_sent_where_asked_for(program: &str) {
        let authority = Authority::new("own");
        let Some(server) = TlsServer::start(program, &authority, &authority.local_server(), Clients::Certified).await else { return };
        let with = |by: &Authority| {
            let client = by.client("a bus");
            TlsOptions { cert: Some(client.cert), key: Some(client.key), ..trusting(&authority.cert) }
        };
        carries_an_event(&open(over(server.tls_port(), with(&authority))).await, "certified").await;
        says(&refusal(over(server.tls_port(), trusting(&authority.cert))).await, server.tls_port(), &["cert"]);
        says(&refusal(over(server.tls_port(), with(&Authority::new("other")))).await, server.tls_port(), &["cert"]);
    }

    pub async fn without_verification_any_certificate_will_do(program: &str) {
        let authority = Authority::new("own");
        let Some(server) = TlsServer::start(program, &authority, &authority.server(&["other.test"]), Clients::Any).await else { return };
        let tls = TlsOptions { ca: None, reject_unauthorized: false, ..trusting("") };
        carries_an_event(&open(over(server.tls_port(), tls)).await, "any").await;
    }

    pub async fn one_side_alone_with_tls_is_told_in_time(program: &str) {
        let authority = Authority::new("own");
        let Some(server) = TlsServer::start(program, &authority, &authority.local_server(), Clients::Any).await else { return };
        let encrypted = over(server.tls_port(), trusting(&authority.cert));
        let plain = |port| RedisStoreConfig { tls: None, ..over(port, trusting("")) };
        for (config, port) in
            [(plain(server.tls_port()), server.tls_port()), (over(server.server.port(), trusting(&authority.cert)), server.server.port())]
        {
            let start = Instant::now();
            let error = refusal(config).await;
            says(&error, port, &[]);
            assert!(error.message.to_lowercase().contains("tls"), "{error}");
            assert!(start.elapsed() < encrypted.connect_timeout + ms(1000), "{:?}", start.elapsed());
        }
    }

    pub async fn texts_that_are_no_certificates_are_refused(program: &str) {
        let authority = Authority::new("own");
        let Some(server) = TlsServer::start(program, &authority, &authority.local_server(), Clients::Any).await else { return };
        let broken = "-----BEGIN CERTIFICATE-----\nbm8=\n-----END CERTIFICATE-----\n";
        let error = refusal(over(server.tls_port(), trusting(broken))).await;
        assert!(error.message.contains("ca"), "{error}");
        assert!(!error.retryable || error.code == Code::Connection, "{error}");
    }

    pub async fn connections_are_made_again(program: &str) {
        let authority = Authority::new("own");
        let Some(mut server) = TlsServer::start(program, &authority, &authority.local_server(), Clients::Any).await else { return };
        let store = open(over(server.tls_port(), trusting(&authority.cert))).await;
        server.server.restart().await;
        until("it is connected again", async || store.status().await.connected).await;
        carries_an_event(&store, "again").await;
    }
}
