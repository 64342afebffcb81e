//! Asking.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue, LOCATION};
use hyper::{HeaderMap, Method, Request, Response};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::{Instant, timeout_at};

use super::answer::{Answer, read, retry_after};
use super::failure::Failure;
use super::headers::headers;
use super::names::{Resolve, SystemNames};
use super::reach::Reach;
use super::target::Target;
use super::wire::{Trust, Wires};
use crate::engine::config::HttpConfig;
use crate::engine::error::Result;

/// Redirects that a GET follows.
const REDIRECTS_MAX: usize = 3;
/// How long a connection is kept for the next request: less than the 5 s after which servers of Node.js close it.
const IDLE_MAX: Duration = Duration::from_secs(4);
/// Most connections to a host that are kept.
const IDLE_PER_HOST_MAX: usize = 8;
/// Longest head of an answer, bytes.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// Asks endpoints that others give. Clones share their connections.
#[derive(Clone)]
pub struct Http {
    client: Client<Wires, Full<Bytes>>,
    reach: Arc<Reach>,
    timeout: Duration,
    response_bytes_max: usize,
}

impl Http {
    /// One to which all `policies` apply at once: what any denies is denied, what is allowed each allows, and of times and sizes the
    /// smallest counts. The authorities of all are trusted.
    ///
    /// # Errors
    /// `ERR_INVALID_CONFIG` where a certificate in `ca` cannot be used.
    pub fn new(policies: &[&HttpConfig]) -> Result<Self> {
        Self::with_names(policies, Arc::new(SystemNames::default()))
    }

    /// One that learns the addresses of names from `names`, for tests.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_names(policies: &[&HttpConfig], names: Arc<dyn Resolve>) -> Result<Self> {
        let own = HttpConfig::default();
        let timeout_ms = policies.iter().map(|policy| policy.timeout_ms).min().unwrap_or(own.timeout_ms);
        let bytes_max = policies.iter().map(|policy| policy.response_bytes_max).min().unwrap_or(own.response_bytes_max);
        let timeout = Duration::from_millis(timeout_ms);
        let reach = Arc::new(Reach::new(policies));
        let wires = Wires::new(Arc::clone(&reach), names, Trust::new(policies)?, timeout);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_MAX)
            .pool_max_idle_per_host(IDLE_PER_HOST_MAX)
            .http1_max_buf_size(HEAD_BYTES_MAX)
            .build(wires);
        Ok(Self { client, reach, timeout, response_bytes_max: usize::try_from(bytes_max).unwrap_or(usize::MAX) })
    }

    /// The longest that a request may take.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Why `url` cannot or may not be asked, as far as that is known without looking its name up: `NoUrl` or `Forbidden`.
    pub fn check(&self, url: &str) -> Result<(), Failure> {
        self.target(url).map(drop)
    }

    /// Asks for what is at `url`, with `headers`, within the smaller of `timeout` and the policies', for an answer of at most the smaller
    /// of `bytes_max` and the policies'. At most three redirects are followed, and only to the same scheme, host and port.
    pub async fn get(&self, url: &str, headers: &[(&str, &str)], timeout: Duration, bytes_max: usize) -> Result<Answer, Failure> {
        let asked = Asked::new(timeout.min(self.timeout));
        let bytes_max = bytes_max.min(self.response_bytes_max);
        let mut target = self.target(url)?;
        let headers = self::headers(&target, headers)?;
        for _ in 0..=REDIRECTS_MAX {
            let response = self.send(&asked, Method::GET, &target, headers.clone(), Bytes::new()).await?;
            let mut body = Vec::new();
            let Some(location) = redirects_to(&response) else {
                let (head, incoming) = response.into_parts();
                asked.within(read(&target.place, incoming, bytes_max, &mut body)).await?;
                return Ok(asked.answer(head.status.as_u16(), body, true, &head.headers));
            };
            let next = target.redirected(&location).map_err(Failure::Redirected)?;
            // Read, if it can be, so that the connection can be used again.
            let rest = asked.within(read(&target.place, response.into_body(), bytes_max, &mut body)).await;
            if let Err(failure @ Failure::TimedOut(_)) = rest {
                return Err(failure);
            }
            target = next;
        }
        Err(Failure::Redirected(format!("{} after {REDIRECTS_MAX} others", target.shown())))
    }

    /// Sends `body` to `url`, as JSON unless `headers` say otherwise, within the smaller of `timeout` and the policies'. No redirect is
    /// followed: it would turn the POST into a GET, and what was lost would look delivered.
    ///
    /// The server's word is the status. If the rest of its answer is too long, late or broken off, that does not take the word back: the
    /// answer has what came of it, and is not `complete`.
    pub async fn post(&self, url: &str, headers: &[(&str, &str)], body: impl Into<Bytes>, timeout: Duration) -> Result<Answer, Failure> {
        let asked = Asked::new(timeout.min(self.timeout));
        let target = self.target(url)?;
        let mut headers = self::headers(&target, headers)?;
        if !headers.contains_key(CONTENT_TYPE) {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        let response = self.send(&asked, Method::POST, &target, headers, body.into()).await?;
        if let Some(location) = redirects_to(&response) {
            let to = target.redirected(&location).map_or_else(|shown| shown, |next| next.shown());
            return Err(Failure::Redirected(to));
        }
        let (head, incoming) = response.into_parts();
        let mut body = Vec::new();
        let complete = asked.within(read(&target.place, incoming, self.response_bytes_max, &mut body)).await.is_ok();
        Ok(asked.answer(head.status.as_u16(), body, complete, &head.headers))
    }

    fn target(&self, url: &str) -> Result<Target, Failure> {
        let target = Target::parse(url)?;
        self.reach.host(&target.place)?;
        Ok(target)
    }

    async fn send(
        &self,
        asked: &Asked,
        method: Method,
        target: &Target,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Response<Incoming>, Failure> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = target.uri.clone();
        *request.headers_mut() = headers;
        let sent = self.client.request(request);
        asked.within(async { sent.await.map_err(|error| Failure::of_client(&target.place, &error)) }).await
    }
}

/// Where the answer says that it is to be had elsewhere.
fn redirects_to(response: &Response<Incoming>) -> Option<HeaderValue> {
    let redirect = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
    response.headers().get(LOCATION).filter(|_| redirect).cloned()
}

/// One request and its time, redirects included.
struct Asked {
    at: Instant,
    allowed: Duration,
}

impl Asked {
    fn new(allowed: Duration) -> Self {
        Self { at: Instant::now(), allowed }
    }

    async fn within<T>(&self, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        timeout_at(self.at + self.allowed, work).await.unwrap_or(Err(Failure::TimedOut(self.allowed)))
    }

    fn answer(&self, status: u16, body: Vec<u8>, complete: bool, headers: &HeaderMap) -> Answer {
        let retry_after = retry_after(headers, SystemTime::now());
        Answer { status, body, complete, retry_after, took: self.at.elapsed() }
    }
}
