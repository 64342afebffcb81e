//! A plain connection whose replies are read where they lie. Readers use it: their replies are large and many, and a
//! tree of values for each would cost more than all the rest of reading.
//!
//! The protocol is RESP2 (<https://redis.io/docs/latest/develop/reference/protocol-spec/>), one command at a time.

use std::time::Duration;

use redis::Cmd;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout_at};

use super::connection::{Role, Target};
use super::failure::server_error;
use super::nodes::Node;
use super::reply::unexpected;
use crate::engine::error::Result;
use crate::engine::net::{Duplex, said};

/// The buffer is given back when one large reply has made it larger than this, bytes.
const BUFFER_BYTES_MAX: usize = 1024 * 1024;
const BUFFER_BYTES: usize = 64 * 1024;
/// And when so many replies in a row did with less.
const SMALL_REPLIES_MAX: u8 = 16;

/// One value of a reply, in the order in which they stand; the values of a list follow it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item<'a> {
    /// A string.
    Text(&'a [u8]),
    /// An error: its code and the rest.
    Error(&'a str),
    /// A number.
    Number(i64),
    /// Nothing.
    Nil,
    /// So many values follow.
    List(usize),
}

/// Reads a complete reply value by value.
pub struct Items<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Items<'a> {
    /// Of a whole reply.
    pub fn of(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    fn line(&mut self) -> Result<(u8, &'a [u8])> {
        let rest = &self.bytes[self.at..];
        let end = memchr::memchr(b'\r', rest).filter(|end| *end > 0 && rest.len() > end + 1).ok_or_else(|| unexpected("a command"))?;
        self.at += end + 2;
        Ok((rest[0], &rest[1..end]))
    }

    /// The next value.
    pub fn next(&mut self) -> Result<Item<'a>> {
        let (kind, line) = self.line()?;
        Ok(match kind {
            b'+' => Item::Text(line),
            b'-' => Item::Error(std::str::from_utf8(line).unwrap_or("ERR")),
            b':' => Item::Number(number(line)?),
            b'$' => match usize::try_from(number(line)?) {
                Err(_) => Item::Nil,
                Ok(length) => {
                    let text = self.bytes.get(self.at..self.at + length).ok_or_else(|| unexpected("a command"))?;
                    self.at += length + 2;
                    Item::Text(text)
                }
            },
            b'*' => usize::try_from(number(line)?).map_or(Item::Nil, Item::List),
            _ => return Err(unexpected("a command")),
        })
    }

    /// The next value, which must be a list: its length; `None` for nothing.
    pub fn list(&mut self) -> Result<Option<usize>> {
        match self.next()? {
            Item::List(length) => Ok(Some(length)),
            Item::Nil => Ok(None),
            _ => Err(unexpected("a command")),
        }
    }

    /// The next value, which must be a string.
    pub fn text(&mut self) -> Result<&'a [u8]> {
        match self.next()? {
            Item::Text(text) => Ok(text),
            _ => Err(unexpected("a command")),
        }
    }
}

fn number(line: &[u8]) -> Result<i64> {
    std::str::from_utf8(line).ok().and_then(|text| text.parse().ok()).ok_or_else(|| unexpected("a command"))
}

/// Finds the end of a reply as it arrives; goes on where it stopped.
struct Scan {
    at: usize,
    /// Values that are still to come.
    left: usize,
}

impl Scan {
    /// Whether `bytes` hold the whole reply.
    fn is_complete(&mut self, bytes: &[u8]) -> Result<bool> {
        while self.left > 0 {
            let rest = &bytes[self.at.min(bytes.len())..];
            let Some(end) = memchr::memchr(b'\r', rest).filter(|end| rest.len() > end + 1) else { return Ok(false) };
            if end == 0 {
                return Err(unexpected("a command"));
            }
            let next = self.at + end + 2;
            match rest[0] {
                b'+' | b'-' | b':' => self.at = next,
                b'$' => {
                    let length = usize::try_from(number(&rest[1..end])?).map_or(0, |length| length.saturating_add(2));
                    if bytes.len() - next < length {
                        return Ok(false);
                    }
                    self.at = next + length;
                }
                b'*' => {
                    self.left = self.left.saturating_add(usize::try_from(number(&rest[1..end])?).unwrap_or(0));
                    self.at = next;
                }
                _ => return Err(unexpected("a command")),
            }
            self.left -= 1;
        }
        Ok(true)
    }
}

/// The connection. After an error it is of no more use.
pub struct Wire {
    stream: Box<dyn Duplex>,
    buffer: Vec<u8>,
    /// Replies in a row that would have had room in a buffer as it was at first.
    small_replies: u8,
    target: Target,
    /// `CLIENT ID`.
    pub id: i64,
}

impl Wire {
    /// Connects, and says who we are.
    pub async fn connect(target: Target, role: Role) -> Result<Self> {
        target.clone().in_time(Self::open(target, role)).await
    }

    async fn open(target: Target, role: Role) -> Result<Self> {
        let stream = target.dial().await?;
        let settings = target.settings.clone();
        let mut wire = Self { stream, buffer: Vec::with_capacity(BUFFER_BYTES), small_replies: 0, target, id: 0 };
        if let Some(password) = &settings.password {
            let mut auth = redis::cmd("AUTH");
            if let Some(username) = &settings.username {
                auth.arg(username);
            }
            auth.arg(password);
            wire.expect_done(&auth).await?;
        }
        if settings.db != 0 {
            let mut select = redis::cmd("SELECT");
            select.arg(settings.db);
            wire.expect_done(&select).await?;
        }
        let mut id = redis::cmd("CLIENT");
        id.arg("ID");
        let wait = settings.connect_timeout;
        wire.id = match wire.ask(&id, wait).await?.next()? {
            Item::Number(id) => id,
            Item::Error(error) => return Err(explain(error)),
            _ => return Err(unexpected("CLIENT ID")),
        };
        if role == Role::Master {
            let mut items = wire.ask(&redis::cmd("ROLE"), wait).await?;
            items.list()?;
            if items.text()? != b"master" {
                return Err(wire.target.unreachable("it is no master, as the Sentinels said"));
            }
        }
        Ok(wire)
    }

    /// The server at the other end.
    pub fn node(&self) -> &Node {
        &self.target.node
    }

    async fn expect_done(&mut self, command: &Cmd) -> Result<()> {
        let wait = self.target.settings.connect_timeout;
        match self.ask(command, wait).await?.next()? {
            Item::Error(error) => Err(explain(error)),
            _ => Ok(()),
        }
    }

    /// Sends a command and waits for the whole reply.
    pub async fn ask(&mut self, command: &Cmd, wait: Duration) -> Result<Items<'_>> {
        self.small_replies = if self.buffer.len() > BUFFER_BYTES { 0 } else { self.small_replies.saturating_add(1) };
        let capacity = self.buffer.capacity();
        if capacity > BUFFER_BYTES_MAX || (capacity > BUFFER_BYTES && self.small_replies > SMALL_REPLIES_MAX) {
            self.buffer = Vec::with_capacity(BUFFER_BYTES);
        }
        self.buffer.clear();
        let deadline = Instant::now() + wait;
        let late = |_| self.target.unreachable("no reply in time");
        let failed = |error: std::io::Error| self.target.unreachable(&said(&error));
        let command = command.get_packed_command();
        let sending = async {
            self.stream.write_all(&command).await?;
            // What is encrypted may wait for more to come.
            self.stream.flush().await
        };
        timeout_at(deadline, sending).await.map_err(late)?.map_err(failed)?;
        let mut scan = Scan { at: 0, left: 1 };
        loop {
            let read = timeout_at(deadline, self.stream.read_buf(&mut self.buffer)).await.map_err(late)?.map_err(failed)?;
            if read == 0 {
                return Err(self.target.unreachable("the connection was closed"));
            }
            if scan.is_complete(&self.buffer)? {
                return Ok(Items::of(&self.buffer[..scan.at]));
            }
        }
    }
}

/// An error reply in the words of this library.
pub fn explain(error: &str) -> crate::engine::error::Error {
    server_error(error.split(' ').next().unwrap_or("ERR"), error)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Whole replies, broken ones, and what is none.
    fn reply() -> impl Strategy<Value = Vec<u8>> {
        let length = prop_oneof![(-2_i64..6).prop_map(|n| n.to_string()), any::<i64>().prop_map(|n| n.to_string()), "[0-9-]{0,20}"];
        let head = (proptest::sample::select(b"+-:$*_!".as_slice()), length).prop_map(|(kind, length)| {
            let mut out = vec![kind];
            out.extend(length.into_bytes());
            out.extend(b"\r\n");
            out
        });
        let text = proptest::collection::vec(any::<u8>(), 0..6).prop_map(|text| {
            let mut out = format!("${}\r\n", text.len()).into_bytes();
            out.extend(text);
            out.extend(b"\r\n");
            out
        });
        let part = prop_oneof![head, text, proptest::collection::vec(any::<u8>(), 0..6), Just(b"*2\r\n".to_vec())];
        proptest::collection::vec(part, 0..8).prop_map(|parts| parts.concat())
    }

    proptest! {
        #![proptest_config(proptest::test_runner::Config { failure_persistence: None, ..proptest::test_runner::Config::default() })]

        #[test]
        fn any_bytes_are_a_reply_or_an_error_however_they_arrive(bytes in reply(), step in 1..5_usize) {
            let whole = Scan { at: 0, left: 1 }.is_complete(&bytes);
            let mut scan = Scan { at: 0, left: 1 };
            let ends = (0..bytes.len()).step_by(step).chain([bytes.len()]);
            let found = ends.map(|end| scan.is_complete(&bytes[..end])).find(|found| !matches!(found, Ok(false))).unwrap_or(Ok(false));
            prop_assert_eq!(whole.as_ref().ok(), found.as_ref().ok());
            if let Ok(true) = found {
                // All of its values are there.
                let mut items = Items { bytes: &bytes, at: 0 };
                let mut left = 1_usize;
                while left > 0 {
                    left -= 1;
                    match items.next() {
                        Ok(Item::List(count)) => left += count,
                        Ok(_) => {}
                        Err(_) => break,
                    }
                }
            }
        }
    }

    fn complete_at(bytes: &[u8]) -> Option<usize> {
        let mut scan = Scan { at: 0, left: 1 };
        (0..=bytes.len()).find(|end| scan.is_complete(&bytes[..*end]).unwrap())
    }

    #[test]
    fn a_reply_is_complete_with_its_last_byte_and_not_before() {
        for reply in [
            "+OK\r\n",
            ":12\r\n",
            "$-1\r\n",
            "$0\r\n\r\n",
            "$4\r\na\r\nb\r\n",
            "*-1\r\n",
            "*0\r\n",
            "*2\r\n*1\r\n$1\r\nx\r\n*-1\r\n",
            "-ERR no\r\n",
        ] {
            assert_eq!(complete_at(reply.as_bytes()), Some(reply.len()), "{reply:?}");
        }
    }

    #[test]
    fn values_are_read_in_their_order() {
        let bytes = b"*3\r\n$4\r\na\r\nb\r\n*-1\r\n:-7\r\n";
        let mut items = Items { bytes, at: 0 };
        assert_eq!(items.next().unwrap(), Item::List(3));
        assert_eq!(items.next().unwrap(), Item::Text(b"a\r\nb"));
        assert_eq!(items.next().unwrap(), Item::Nil);
        assert_eq!(items.next().unwrap(), Item::Number(-7));
        assert!(items.next().is_err());
    }

    #[test]
    fn what_is_not_the_protocol_is_an_error() {
        for text in ["HTTP/1.1 400 Bad Request\r\n", "$x\r\n", "\r\n\r\n", "*9999999999999999999999\r\n"] {
            assert!(Scan { at: 0, left: 1 }.is_complete(text.as_bytes()).is_err(), "{text:?}");
        }
    }
}
