//! Connections: to addresses that passed the rules and to no others, encrypted where the URL says so.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{Error as TlsError, RootCertStore};
use tower_service::Service;
use url::Host;

use super::failure::Failure;
use super::names::Resolve;
use super::reach::Reach;
use super::target::Place;
use crate::engine::config::HttpConfig;
use crate::engine::error::{Error, Result};
use crate::engine::net::{self, Duplex, said};
use crate::engine::tls;

/// Addresses of a name that are tried: all are tried at once, and a name may have as many as its owner likes.
const ADDRESSES_MAX: usize = 8;

/// Makes connections.
#[derive(Clone)]
pub struct Wires(Arc<Maker>);

struct Maker {
    reach: Arc<Reach>,
    names: Arc<dyn Resolve>,
    trust: Trust,
    timeout: Duration,
}

impl Wires {
    /// `timeout`: longest that making one may take, also where nobody waits for it any more.
    pub fn new(reach: Arc<Reach>, names: Arc<dyn Resolve>, trust: Trust, timeout: Duration) -> Self {
        Self(Arc::new(Maker { reach, names, trust, timeout }))
    }
}

impl Service<Uri> for Wires {
    type Response = Wire;
    type Error = Failure;
    type Future = Pin<Box<dyn Future<Output = Result<Wire, Failure>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let maker = Arc::clone(&self.0);
        Box::pin(async move { timeout(maker.timeout, maker.open(&uri)).await.unwrap_or(Err(Failure::TimedOut(maker.timeout))) })
    }
}

impl Maker {
    async fn open(&self, uri: &Uri) -> Result<Wire, Failure> {
        let place = Place::of_uri(uri).ok_or_else(|| Failure::NoUrl("the endpoint cannot be asked".to_owned()))?;
        let addresses = self.addresses(&place).await?;
        let targets = addresses.into_iter().map(|address| SocketAddr::new(address, place.port));
        let stream = net::connect(targets).await.map_err(|why| Failure::Unreachable(format!("{place} cannot be reached: {why}")))?;
        let stream: Box<dyn Duplex> = if place.tls { Box::new(self.trust.wrap(&place, stream).await?) } else { Box::new(stream) };
        Ok(Wire(TokioIo::new(stream)))
    }

    /// The addresses of `place` that may be asked, at least one.
    async fn addresses(&self, place: &Place) -> Result<Vec<IpAddr>, Failure> {
        self.reach.host(place)?;
        let found = match &place.host {
            Host::Ipv4(address) => vec![IpAddr::V4(*address)],
            Host::Ipv6(address) => vec![IpAddr::V6(*address)],
            Host::Domain(name) => self
                .names
                .addresses(name)
                .await
                .map_err(|error| Failure::Unreachable(format!("the name of {place} cannot be looked up: {error}")))?,
        };
        let mut passed = Vec::new();
        let mut refused = None;
        for address in found {
            match self.reach.address(place, address) {
                Ok(()) if passed.len() < ADDRESSES_MAX && !passed.contains(&address) => passed.push(address),
                Ok(()) => {}
                Err(failure) => refused = Some(failure),
            }
        }
        match (passed.is_empty(), refused) {
            (false, _) => Ok(passed),
            (true, Some(failure)) => Err(failure),
            (true, None) => Err(Failure::Unreachable(format!("the name of {place} has no address"))),
        }
    }
}

/// Whose certificates are taken: the system's authorities and the given ones.
pub struct Trust {
    /// PEM.
    given: Vec<String>,
    /// Made when first needed: reading what the system trusts takes its time.
    connector: OnceCell<TlsConnector>,
}

impl Trust {
    /// `ERR_INVALID_CONFIG` where a given certificate cannot be used.
    pub fn new(policies: &[&HttpConfig]) -> Result<Self> {
        let given: Vec<String> = policies.iter().filter_map(|policy| policy.ca.clone()).collect();
        for pem in &given {
            tls::trust(&mut RootCertStore::empty(), pem).map_err(|problem| Error::config("http.ca", problem))?;
        }
        Ok(Self { given, connector: OnceCell::new() })
    }

    async fn wrap(&self, place: &Place, stream: TcpStream) -> Result<TlsStream<TcpStream>, Failure> {
        let connector = self.connector.get_or_try_init(|| connector(self.given.clone())).await?;
        let name = match &place.host {
            Host::Domain(name) => ServerName::try_from(name.trim_end_matches('.').to_owned())
                .map_err(|_| Failure::Tls(format!("the name of {place} is none that a certificate can bear")))?,
            Host::Ipv4(address) => ServerName::from(IpAddr::V4(*address)),
            Host::Ipv6(address) => ServerName::from(IpAddr::V6(*address)),
        };
        connector.connect(name, stream).await.map_err(|error| {
            Failure::Tls(match tls::problem(&error) {
                Some(TlsError::InvalidCertificate(problem)) => format!(
                    "the certificate of {place} is refused ({problem}); it must be of its name, in its time, and signed by an authority \
                     that this system trusts or that is given as http.ca"
                ),
                Some(TlsError::InvalidMessage(_)) => format!("what answers at {place} does not speak TLS; is it http://?"),
                Some(problem) => format!("the TLS handshake with {place} failed: {problem}"),
                None => format!("the TLS handshake with {place} failed: {}", said(&error)),
            })
        })
    }
}

async fn connector(given: Vec<String>) -> Result<TlsConnector, Failure> {
    let make = move || {
        let mut roots = RootCertStore::empty();
        tls::trust_system(&mut roots);
        for pem in &given {
            tls::trust(&mut roots, pem)?;
        }
        if roots.is_empty() {
            return Err(
                "this system trusts no certificates of its own; install ca-certificates, or give an authority as http.ca".to_owned()
            );
        }
        let builder = tls::client(tls::provider()).map_err(|error| error.message)?;
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(TlsConnector::from(Arc::new(config)))
    };
    let connector = tokio::task::spawn_blocking(make).await.unwrap_or_else(|error| Err(format!("TLS cannot be set up: {error}")));
    connector.map_err(Failure::Tls)
}

/// A connection, as the HTTP client takes it.
pub struct Wire(TokioIo<Box<dyn Duplex>>);

impl Connection for Wire {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Read for Wire {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl Write for Wire {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
