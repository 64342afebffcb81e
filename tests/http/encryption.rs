//! Whose certificates are taken.

use std::sync::Arc;

use ossa::engine::config::HttpConfig;
use ossa::engine::error::Code;
use ossa::engine::http::{Failure, Http, Resolve};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::servers::{Names, Server, fine, get, open, policy, post, with};
use crate::support::certificates::{Authority, Identity};

async fn server(identity: &Identity) -> Server {
    let certificate = CertificateDer::from_pem_slice(identity.cert.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).unwrap();
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Server::encrypted(TlsAcceptor::from(Arc::new(config)), |_| fine("sealed")).await
}

fn trusting(pem: &str) -> HttpConfig {
    HttpConfig { ca: Some(pem.to_owned()), ..policy(None, &[]) }
}

fn url(server: &Server, host: &str) -> String {
    format!("https://{host}:{}/", server.address.port())
}

/// Refused by its certificate, and told what to do.
async fn refuses(http: &Http, url: &str) {
    for failure in [get(http, url).await.unwrap_err(), post(http, url).await.unwrap_err()] {
        let Failure::Tls(said) = &failure else { panic!("{url}: {failure:?}") };
        assert!(said.contains("certificate") && said.contains("http.ca"), "{said}");
    }
}

#[tokio::test]
async fn a_server_signed_by_a_given_authority_is_asked_by_name_and_by_address() {
    let (authority, other) = (Authority::new("own"), Authority::new("other"));
    let server = server(&authority.local_server()).await;
    // Not every system knows localhost with a dot behind it.
    let names = Arc::new(Names(["localhost", "localhost."].map(|name| (name, vec!["127.0.0.1"])).into()));
    for pem in [authority.cert.clone(), format!("{}{}", other.cert, authority.cert)] {
        let http = Http::with_names(&[&trusting(&pem)], Arc::clone(&names) as Arc<dyn Resolve>).unwrap();
        for host in ["localhost", "LOCALHOST", "localhost.", "127.0.0.1"] {
            assert_eq!(get(&http, &url(&server, host)).await.unwrap().body, b"sealed", "{host}");
            assert_eq!(post(&http, &url(&server, host)).await.unwrap().status, 200, "{host}");
        }
    }
    // The authorities of all policies are trusted, each for what its owner asks.
    let http = Http::new(&[&trusting(&other.cert), &trusting(&authority.cert)]).unwrap();
    assert_eq!(get(&http, &url(&server, "localhost")).await.unwrap().status, 200);
}

#[tokio::test]
async fn an_unknown_authority_is_refused() {
    let server = server(&Authority::new("own").local_server()).await;
    refuses(&with(&trusting(&Authority::new("own").cert)), &url(&server, "localhost")).await;
    let failure = get(&open(), &url(&server, "localhost")).await.unwrap_err();
    assert!(matches!(failure, Failure::Tls(_)), "{failure:?}");
    assert!(server.requests().is_empty());
}

#[tokio::test]
async fn the_name_of_another_is_refused() {
    let authority = Authority::new("own");
    let server = server(&authority.server(&["api.test"])).await;
    let names = Arc::new(Names(vec![("api.test", vec!["127.0.0.1"]), ("other.test", vec!["127.0.0.1"])]));
    let http = Http::with_names(&[&trusting(&authority.cert)], names).unwrap();
    assert_eq!(get(&http, &url(&server, "api.test")).await.unwrap().status, 200);
    for host in ["other.test", "127.0.0.1"] {
        refuses(&http, &url(&server, host)).await;
    }
}

#[tokio::test]
async fn a_certificate_whose_time_is_over_is_refused() {
    let authority = Authority::new("own");
    let server = server(&authority.expired_server()).await;
    refuses(&with(&trusting(&authority.cert)), &url(&server, "localhost")).await;
}

#[tokio::test]
async fn encryption_on_one_side_alone_is_told() {
    let authority = Authority::new("own");
    let http = with(&trusting(&authority.cert));
    let plain = Server::raw(|mut stream| async move {
        let _ = stream.read(&mut [0; 16]).await;
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
    })
    .await;
    let failure = get(&http, &url(&plain, "127.0.0.1")).await.unwrap_err();
    assert!(matches!(&failure, Failure::Tls(said) if said.contains("http://")), "{failure:?}");
    let sealed = server(&authority.local_server()).await;
    let failure = get(&http, &sealed.url("/")).await.unwrap_err();
    assert!(matches!(failure, Failure::Broken(_)), "{failure:?}");
}

#[test]
fn an_authority_that_cannot_be_used_is_refused_at_once() {
    for pem in
        ["-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n", "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----", "x"]
    {
        let Err(error) = Http::new(&[&policy(None, &[]), &trusting(pem)]) else { panic!("{pem}") };
        assert_eq!((error.code, &error.details["path"]), (Code::InvalidConfig, &serde_json::json!("http.ca")), "{error}");
    }
}
