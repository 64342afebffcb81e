//! A connection that many share: requests go out as they are encoded, and come back as the bytes of their replies, in the
//! order in which they were made. What the bytes mean is up to whoever asked: a tree of values for each reply would cost the
//! hot paths more than all the rest.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use redis::{Cmd, ErrorKind, RedisError, Value};
use tokio::io::{AsyncReadExt, AsyncWrite};
use tokio::sync::{mpsc, oneshot};

use super::wire::Scan;
use crate::engine::net::Duplex;

/// Room for what is read at once, bytes.
const READ_BYTES: usize = 16 * 1024;
/// A reply is large beyond this, bytes.
const LARGE_BYTES: usize = 1024 * 1024;
/// Buffers that are written at once.
const SLICES_MAX: usize = 16;

/// The replies to one request, one behind the other.
type Replies = Result<Bytes, RedisError>;

struct Request {
    bytes: Vec<u8>,
    replies: usize,
    answer: oneshot::Sender<Replies>,
}

/// A way to the server. Cheap to clone; what is asked is bounded by those who ask.
#[derive(Clone)]
pub struct Pipe {
    requests: mpsc::UnboundedSender<Request>,
    reply_timeout: Duration,
}

impl Pipe {
    /// Over `stream`, and what moves its bytes: to be run until the pipe is of no more use.
    pub fn new(stream: Box<dyn Duplex>, reply_timeout: Duration) -> (Self, impl Future<Output = ()> + Send + use<>) {
        let (requests, receiver) = mpsc::unbounded_channel();
        let mut driver = Driver {
            stream,
            requests: receiver,
            out: VecDeque::new(),
            is_flushed: true,
            read: BytesMut::with_capacity(READ_BYTES),
            scan: Scan::default(),
            waiting: VecDeque::new(),
        };
        (Self { requests, reply_timeout }, async move {
            if let Err(error) = poll_fn(|cx| driver.poll(cx)).await {
                driver.fail(&error);
            }
        })
    }

    /// Sends a request at once, in the order of the calls, and waits for so many replies.
    pub fn ask(&self, bytes: Vec<u8>, replies: usize) -> impl Future<Output = Replies> + Send + use<> {
        let (answer, answered) = oneshot::channel();
        // Where nobody takes it, the answer is dropped with it.
        let _ = self.requests.send(Request { bytes, replies, answer });
        let reply_timeout = self.reply_timeout;
        async move {
            match tokio::time::timeout(reply_timeout, answered).await {
                Ok(Ok(replies)) => replies,
                Ok(Err(_)) => Err(io::Error::from(io::ErrorKind::BrokenPipe).into()),
                Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut).into()),
            }
        }
    }

    /// Sends commands; answers a value a command, with errors of single ones in their place.
    pub async fn values(&self, commands: &[Cmd]) -> Result<Vec<Value>, RedisError> {
        if commands.is_empty() {
            return Ok(Vec::new());
        }
        let mut bytes = Vec::new();
        for command in commands {
            command.write_packed_command(&mut bytes);
        }
        values(&self.ask(bytes, commands.len()).await?)
    }

    /// Sends a command; an error reply is an error.
    pub async fn value(&self, command: &Cmd) -> Result<Value, RedisError> {
        self.values(std::slice::from_ref(command)).await?.pop().unwrap_or_default().extract_error()
    }

    /// Sends commands as one transaction; answers a value a command. Refused, it fails with why its first command was.
    pub async fn transaction(&self, commands: &[Cmd]) -> Result<Value, RedisError> {
        let ends = [redis::cmd("MULTI"), redis::cmd("EXEC")];
        let all = [&ends[..1], commands, &ends[1..]].concat();
        let mut replies = self.values(&all).await?;
        let done = replies.pop().unwrap_or_default();
        match replies.into_iter().find_map(|reply| if let Value::ServerError(error) = reply { Some(error) } else { None }) {
            Some(error) => Err(error.into()),
            None => Ok(done),
        }
    }
}

/// Reads replies as values.
fn values(mut bytes: &[u8]) -> Result<Vec<Value>, RedisError> {
    let mut out = Vec::new();
    while !bytes.is_empty() {
        let (one, rest) = cut(bytes).ok_or_else(unreadable)?;
        out.push(redis::parse_redis_value(one)?);
        bytes = rest;
    }
    Ok(out)
}

/// The first reply, and those behind it.
pub fn cut(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut scan = Scan::of(1);
    scan.is_complete(bytes).ok().filter(|complete| *complete)?;
    Some(bytes.split_at(scan.at()))
}

fn unreadable() -> RedisError {
    (ErrorKind::Parse, "what answers there does not speak the protocol of Redis").into()
}

/// Moves the bytes.
struct Driver {
    stream: Box<dyn Duplex>,
    requests: mpsc::UnboundedReceiver<Request>,
    out: VecDeque<io::Cursor<Vec<u8>>>,
    /// What is encrypted may wait for more to come.
    is_flushed: bool,
    read: BytesMut,
    /// How much of the first waiting request's replies is there.
    scan: Scan,
    waiting: VecDeque<(usize, oneshot::Sender<Replies>)>,
}

impl Driver {
    /// Ends when nobody can ask any more and all is answered, or when the connection is lost.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), RedisError>> {
        let is_open = self.poll_requests(cx);
        // Both ways before waiting for either: a server whose replies are not read reads no more.
        if let Poll::Ready(written) = self.poll_write(cx) {
            written?;
        }
        match self.poll_read(cx) {
            Poll::Ready(error) => Poll::Ready(Err(error)),
            Poll::Pending if !is_open && self.waiting.is_empty() => Poll::Ready(Ok(())),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Takes requests in; answers whether more can come.
    fn poll_requests(&mut self, cx: &mut Context<'_>) -> bool {
        while let Poll::Ready(request) = self.requests.poll_recv(cx) {
            let Some(Request { bytes, replies, answer }) = request else { return false };
            if self.waiting.is_empty() {
                self.scan = Scan::of(replies);
            }
            self.out.push_back(io::Cursor::new(bytes));
            self.waiting.push_back((replies, answer));
        }
        true
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), RedisError>> {
        while !self.out.is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let mut count = 0;
            for (slice, buffer) in slices.iter_mut().zip(&self.out) {
                *slice = IoSlice::new(buffer.chunk());
                count += 1;
            }
            let mut written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, &slices[..count]))?;
            if written == 0 {
                return Poll::Ready(Err(io::Error::from(io::ErrorKind::WriteZero).into()));
            }
            self.is_flushed = false;
            while let Some(buffer) = self.out.front_mut() {
                let some = written.min(buffer.remaining());
                buffer.advance(some);
                written -= some;
                if buffer.has_remaining() {
                    break;
                }
                self.out.pop_front();
            }
        }
        if !self.is_flushed {
            ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            self.is_flushed = true;
        }
        Poll::Ready(Ok(()))
    }

    /// Reads until nothing is there; ready when nothing will come any more.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<RedisError> {
        loop {
            self.read.reserve(READ_BYTES);
            match ready!(pin!(self.stream.read_buf(&mut self.read)).poll(cx)) {
                Ok(0) => return Poll::Ready(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                Ok(_) => {}
                Err(error) => return Poll::Ready(error.into()),
            }
            if let Err(error) = self.answer() {
                return Poll::Ready(error);
            }
        }
    }

    /// Answers the requests whose replies are there.
    fn answer(&mut self) -> Result<(), RedisError> {
        while !self.waiting.is_empty() {
            if !self.scan.is_complete(&self.read).map_err(|_| unreadable())? {
                return Ok(());
            }
            let replies = self.read.split_to(self.scan.at()).freeze();
            if let Some((_, answer)) = self.waiting.pop_front() {
                // Whoever asked may have given up.
                let _ = answer.send(Ok(replies));
            }
            // The buffer of a large reply goes with it.
            if self.read.is_empty() && self.scan.at() > LARGE_BYTES {
                self.read = BytesMut::with_capacity(READ_BYTES);
            }
            self.scan = Scan::of(self.waiting.front().map_or(0, |(replies, _)| *replies));
        }
        // Nothing was asked.
        if self.read.is_empty() { Ok(()) } else { Err(unreadable()) }
    }

    /// Whoever waits is told; so is whoever asks later, by the end of the channel.
    fn fail(&mut self, error: &RedisError) {
        self.requests.close();
        while let Ok(request) = self.requests.try_recv() {
            let _ = request.answer.send(Err(error.clone()));
        }
        for (_, answer) in self.waiting.drain(..) {
            let _ = answer.send(Err(error.clone()));
        }
    }
}
