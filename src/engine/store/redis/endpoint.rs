//! Where a server listens, and the stream of bytes to it: TCP or a Unix socket, encrypted or not.

use std::fmt::{self, Display, Formatter};

use super::tls::Tls;
use crate::engine::net::{Duplex, Unreachable, connect, said};

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

/// Opens a stream; it is up to the caller to bound the time.
pub async fn dial(endpoint: &Endpoint, tls: Option<&Tls>) -> Result<Box<dyn Duplex>, Unreachable> {
    match endpoint {
        Endpoint::Tcp { host, port } => {
            let addresses = tokio::net::lookup_host((host.as_str(), *port)).await.map_err(|error| said(&error))?;
            let stream = connect(addresses).await?;
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
