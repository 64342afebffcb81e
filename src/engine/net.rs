//! Streams of bytes over the network, and what is said where there is none.

use std::io;
use std::net::SocketAddr;

use futures_util::future::select_ok;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// Bytes both ways.
pub trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Duplex for T {}

/// Why there is no stream, in words that end a sentence on the server that cannot be reached.
pub type Unreachable = String;

/// A TCP connection to whichever of `addresses` answers first; it is up to the caller to bound the time.
pub async fn connect(addresses: impl IntoIterator<Item = SocketAddr>) -> Result<TcpStream, Unreachable> {
    // All at once: one that swallows what is sent to it must not keep the others from being tried.
    let attempts: Vec<_> = addresses.into_iter().map(|address| Box::pin(TcpStream::connect(address))).collect();
    if attempts.is_empty() {
        return Err("the name has no address".to_owned());
    }
    let (stream, _) = select_ok(attempts).await.map_err(|error| said(&error))?;
    stream.set_nodelay(true).map_err(|error| said(&error))?;
    Ok(stream)
}

/// An error of the system in few words.
pub fn said(error: &io::Error) -> Unreachable {
    // What the system adds to a kind that has a name is its number.
    match error.kind() {
        io::ErrorKind::Other => error.to_string(),
        io::ErrorKind::UnexpectedEof => "the connection was closed".to_owned(),
        kind => kind.to_string(),
    }
}
