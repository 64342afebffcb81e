//! Where a server listens, and the stream of bytes to it: TCP or a Unix socket, encrypted or not.

use std::fmt::{self, Display, Formatter};

use futures_util::future::select_ok;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::tls::Tls;

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Endpoint {
    /// A host and its TCP port.
    Tcp {
        /// Name or IP address; IPv6 without brackets.
        host: String,
        /// The port.
        port: u16,
    },
    /// A socket in the file system.
    Unix {
        /// Its path.
        path: String,
    },
}

impl Endpoint {
    /// A host and port.
    pub fn tcp(host: impl Into<String>, port: u16) -> Self {
        Self::Tcp { host: host.into(), port }
    }

    /// Host and port; the path and 0 of a Unix socket.
    pub fn parts(&self) -> (&str, u16) {
        match self {
            Self::Tcp { host, port } => (host, *port),
            Self::Unix { path } => (path, 0),
        }
    }
}

impl Display for Endpoint {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix { path } => f.write_str(path),
        }
    }
}

/// Bytes both ways.
pub trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Duplex for T {}

/// Why there is no stream, in words that end a sentence on the server that cannot be reached.
pub type Unreachable = String;

/// Opens a stream; it is up to the caller to bound the time.
pub async fn dial(endpoint: &Endpoint, tls: Option<&Tls>) -> Result<Box<dyn Duplex>, Unreachable> {
    match endpoint {
        Endpoint::Tcp { host, port } => {
            let addresses = tokio::net::lookup_host((host.as_str(), *port)).await.map_err(|error| said(&error))?;
            // All at once: one that swallows what is sent to it must not keep the others from being tried.
            let attempts: Vec<_> = addresses.map(|address| Box::pin(TcpStream::connect(address))).collect();
            if attempts.is_empty() {
                return Err("the name has no address".to_owned());
            }
            let (stream, _) = select_ok(attempts).await.map_err(|error| said(&error))?;
            stream.set_nodelay(true).map_err(|error| said(&error))?;
            match tls {
                Some(tls) => Ok(Box::new(tls.wrap(host, stream).await?)),
                None => Ok(Box::new(stream)),
            }
        }
        #[cfg(unix)]
        Endpoint::Unix { path } => Ok(Box::new(tokio::net::UnixStream::connect(path).await.map_err(|error| said(&error))?)),
        #[cfg(not(unix))]
        Endpoint::Unix { .. } => Err("this system has no Unix sockets".to_owned()),
    }
}

/// An error of the system in few words.
pub fn said(error: &std::io::Error) -> Unreachable {
    // What the system adds to a kind that has a name is its number.
    match error.kind() {
        std::io::ErrorKind::Other => error.to_string(),
        std::io::ErrorKind::UnexpectedEof => "the connection was closed".to_owned(),
        kind => kind.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_shown_as_it_is_written_in_urls() {
        assert_eq!(Endpoint::tcp("a.example", 1).to_string(), "a.example:1");
        assert_eq!(Endpoint::tcp("::1", 6379).to_string(), "[::1]:6379");
        assert_eq!(Endpoint::Unix { path: "/run/redis.sock".into() }.to_string(), "/run/redis.sock");
    }
}
