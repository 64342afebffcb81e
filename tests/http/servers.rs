//! Servers of a test, and clients of them.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use ossa::engine::config::{HostRule, HttpConfig};
use ossa::engine::http::{Answer, Failure, Http, Resolve};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Longer than anything here takes.
pub const LONG: Duration = Duration::from_secs(20);
/// Longest answer of a GET here, bytes.
pub const BYTES_MAX: usize = 4_096;

/// Bytes both ways.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// A server, until it is dropped.
pub struct Server {
    /// Where it listens.
    pub address: SocketAddr,
    notes: Arc<Notes>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Notes {
    connections: Mutex<usize>,
    requests: Mutex<Vec<Vec<u8>>>,
}

impl Server {
    /// One that does `serve` with every connection.
    pub async fn raw<F: Future<Output = ()> + Send + 'static>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> Self {
        Self::at("127.0.0.1:0", move |stream, _| serve(stream)).await
    }

    /// One that answers every request with `answer`, as it is; `answer` gets the request.
    pub async fn answering(answer: impl Fn(&str) -> String + Send + Sync + 'static) -> Self {
        Self::answering_at("127.0.0.1:0", answer).await
    }

    /// One at this address.
    pub async fn answering_at(at: &str, answer: impl Fn(&str) -> String + Send + Sync + 'static) -> Self {
        let answer = Arc::new(answer);
        Self::at(at, move |stream, notes| {
            let answer = Arc::clone(&answer);
            async move {
                converse(stream, &notes, &*answer).await;
            }
        })
        .await
    }

    /// One that answers so behind a handshake of its own.
    pub async fn encrypted(acceptor: tokio_rustls::TlsAcceptor, answer: impl Fn(&str) -> String + Send + Sync + 'static) -> Self {
        let answer = Arc::new(answer);
        Self::at("127.0.0.1:0", move |stream, notes| {
            let (answer, acceptor) = (Arc::clone(&answer), acceptor.clone());
            async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    converse(stream, &notes, &*answer).await;
                }
            }
        })
        .await
    }

    async fn at<F: Future<Output = ()> + Send + 'static>(at: &str, serve: impl Fn(TcpStream, Arc<Notes>) -> F + Send + 'static) -> Self {
        let listener = TcpListener::bind(at).await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let notes = Arc::new(Notes::default());
        let own = Arc::clone(&notes);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                *own.connections.lock().unwrap() += 1;
                tokio::spawn(serve(stream, Arc::clone(&own)));
            }
        });
        Self { address, notes, task }
    }

    /// A URL here.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Connections that were made to it.
    pub fn connections(&self) -> usize {
        *self.notes.connections.lock().unwrap()
    }

    /// What it was asked, each with head and body.
    pub fn requests(&self) -> Vec<String> {
        self.notes.requests.lock().unwrap().iter().map(|request| text(request)).collect()
    }
}

impl Server {
    /// The bodies of what it was asked.
    pub fn bodies(&self) -> Vec<Vec<u8>> {
        let body = |request: &Vec<u8>| request[memchr::memmem::find(request, b"\r\n\r\n").unwrap_or(0) + 4..].to_vec();
        self.notes.requests.lock().unwrap().iter().map(body).collect()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn converse(mut stream: impl Stream, notes: &Notes, answer: &(impl Fn(&str) -> String + ?Sized)) {
    while let Some(request) = request_bytes(&mut stream).await {
        let answer = answer(&text(&request));
        notes.requests.lock().unwrap().push(request);
        if stream.write_all(answer.as_bytes()).await.is_err() {
            break;
        }
    }
}

/// The next request on a connection, with its body; None at its end.
pub async fn request(stream: &mut impl Stream) -> Option<String> {
    Some(text(&request_bytes(stream).await?))
}

async fn request_bytes(stream: &mut impl Stream) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    let mut byte = [0];
    while !text.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).await.ok()? == 0 {
            return None;
        }
        text.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&text).to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    text.extend(body);
    Some(text)
}

/// An answer with this status line, these headers and a body of the right length.
pub fn answer(status: &str, headers: &[&str], body: &str) -> String {
    let length = format!("Content-Length: {}", body.len());
    let head = [&[&format!("HTTP/1.1 {status}") as &str], headers, &[&length]].concat().join("\r\n");
    format!("{head}\r\n\r\n{body}")
}

/// `200 OK` with this body.
pub fn fine(body: &str) -> String {
    answer("200 OK", &[], body)
}

/// Rules of `allow` and `deny`.
pub fn policy(allow: Option<&[&str]>, deny: &[&str]) -> HttpConfig {
    let rules = |texts: &[&str]| texts.iter().map(|text| HostRule::parse(text).unwrap()).collect();
    HttpConfig { allow: allow.map(rules), deny: rules(deny), timeout_ms: 20_000, ..HttpConfig::default() }
}

/// A client without rules.
pub fn open() -> Http {
    with(&policy(None, &[]))
}

/// A client with this policy.
pub fn with(policy: &HttpConfig) -> Http {
    Http::new(&[policy]).unwrap()
}

/// A GET with time for everything.
pub async fn get(http: &Http, url: &str) -> Result<Answer, Failure> {
    http.get(url, &[], LONG, BYTES_MAX).await
}

/// A POST of `{}` with time for everything.
pub async fn post(http: &Http, url: &str) -> Result<Answer, Failure> {
    http.post(url, &[], "{}".to_owned(), LONG).await
}

/// Names that have the addresses which the test says; the system is not asked.
pub struct Names(pub Vec<(&'static str, Vec<&'static str>)>);

#[async_trait]
impl Resolve for Names {
    async fn addresses(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        let found = self.0.iter().find(|(own, _)| *own == name).ok_or(io::ErrorKind::NotFound)?;
        Ok(found.1.iter().map(|address| address.parse().unwrap()).collect())
    }
}
