//! A batch as bytes: what is sent, written behind one another without a value for each part, and what comes back, read where
//! it lies.

use redis::{Cmd, Value};

use super::super::failure::Failure;
use super::super::pipe;
use super::super::reply;
use super::super::wire::{Item, Items};
use crate::engine::error::Result;

/// What stands around an event's texts.
const AROUND_TEXTS: usize = 40;

/// Writes a transaction.
pub struct Encoder {
    bytes: Vec<u8>,
    commands: usize,
}

impl Encoder {
    /// Begins one with room for so many bytes.
    pub fn new(capacity: usize) -> Self {
        let mut bytes = Vec::with_capacity(capacity);
        bytes.extend_from_slice(b"*1\r\n$5\r\nMULTI\r\n");
        Self { bytes, commands: 0 }
    }

    /// Commands so far: the place of the next one's reply.
    pub fn len(&self) -> usize {
        self.commands
    }

    /// Any command.
    pub fn add(&mut self, command: &Cmd) {
        command.write_packed_command(&mut self.bytes);
        self.commands += 1;
    }

    /// Adds an event to a stream, see [`Head`].
    pub fn append(&mut self, head: &Head, meta: &str, data: &str) {
        self.bytes.reserve(head.0.len() + meta.len() + data.len() + AROUND_TEXTS);
        self.bytes.extend_from_slice(&head.0);
        push_text(&mut self.bytes, meta);
        self.bytes.extend_from_slice(b"$4\r\ndata\r\n");
        push_text(&mut self.bytes, data);
        self.commands += 1;
    }

    /// The whole, with a command behind it that is not part of it; and how many replies come.
    pub fn finish(mut self, behind: Option<&Cmd>) -> (Vec<u8>, usize) {
        self.bytes.extend_from_slice(b"*1\r\n$4\r\nEXEC\r\n");
        if let Some(behind) = behind {
            behind.write_packed_command(&mut self.bytes);
        }
        // MULTI and EXEC are answered, too.
        (self.bytes, self.commands + 2 + usize::from(behind.is_some()))
    }
}

/// How every XADD to a stream begins, up to the metadata.
pub struct Head(Vec<u8>);

impl Head {
    /// To a stream that is there.
    pub fn new(stream: &str) -> Self {
        let mut bytes = b"*8\r\n$4\r\nXADD\r\n".to_vec();
        push_text(&mut bytes, stream);
        bytes.extend_from_slice(b"$10\r\nNOMKSTREAM\r\n$1\r\n*\r\n$4\r\nmeta\r\n");
        Self(bytes)
    }

    /// Bytes of an event with it.
    pub fn bytes_with(&self, texts: usize) -> usize {
        self.0.len() + texts + AROUND_TEXTS
    }
}

fn push_text(bytes: &mut Vec<u8>, text: &str) {
    bytes.push(b'$');
    bytes.extend_from_slice(itoa::Buffer::new().format(text.len()).as_bytes());
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(text.as_bytes());
    bytes.extend_from_slice(b"\r\n");
}

/// What a command of a transaction answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer<'a> {
    /// A string.
    Text(&'a [u8]),
    /// Nothing.
    Nil,
    /// Something else, as it stands.
    Other(&'a [u8]),
}

impl Answer<'_> {
    /// As a value.
    pub fn value(self) -> Value {
        match self {
            Self::Text(text) => Value::BulkString(text.to_vec()),
            Self::Nil => Value::Nil,
            Self::Other(bytes) => redis::parse_redis_value(bytes).unwrap_or_default(),
        }
    }
}

/// What the server says of a transaction of so many commands: their answers, and the reply to what was behind it.
pub fn read(bytes: &[u8], commands: usize) -> Result<(Vec<Answer<'_>>, Option<Value>), Failure> {
    let mut items = Items::of(bytes);
    let mut reason = None;
    for _ in 0..=commands {
        let reply = items.skip().map_err(Failure::Refused)?;
        if reply.first() == Some(&b'-') {
            // EXEC says only that a command was refused: why stands at the command.
            reason = reason.or_else(|| Some(said(reply)));
        }
    }
    let at = items.rest();
    let answers = match items.next().map_err(Failure::Refused)? {
        Item::List(length) if reason.is_none() => answers(&mut items, length).map_err(Failure::Refused)?,
        Item::Error(_) => return Err(reason.unwrap_or_else(|| said(at))),
        _ => return Err(reason.unwrap_or_else(|| Failure::Refused(reply::unexpected("EXEC")))),
    };
    let rest = items.rest();
    let behind = (!rest.is_empty()).then(|| redis::parse_redis_value(rest).unwrap_or_default());
    Ok((answers, behind))
}

fn answers<'a>(items: &mut Items<'a>, length: usize) -> Result<Vec<Answer<'a>>> {
    let mut out = Vec::with_capacity(length);
    for _ in 0..length {
        out.push(match items.rest().first() {
            Some(b'$') => match items.next()? {
                Item::Text(text) => Answer::Text(text),
                _ => Answer::Nil,
            },
            _ => Answer::Other(items.skip()?),
        });
    }
    Ok(out)
}

/// The error reply at the beginning of `bytes`.
fn said(bytes: &[u8]) -> Failure {
    match pipe::cut(bytes).and_then(|(line, _)| redis::parse_redis_value(line).ok()) {
        Some(Value::ServerError(error)) => Failure::said(&error),
        _ => Failure::Refused(reply::unexpected("a transaction")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_is_what_the_client_library_would_send() {
        let mut encoder = Encoder::new(0);
        let mut pipeline = redis::Pipeline::new();
        pipeline.atomic();
        let note = redis::cmd("SET").arg("p:note").arg(1).to_owned();
        for n in 0..3 {
            let (meta, data) = (format!("{{\"id\":\"ü{n}\"}}"), "x".repeat(n * 1000));
            encoder.append(&Head::new("p:{b}:stream:t:0"), &meta, &data);
            pipeline.cmd("XADD").arg("p:{b}:stream:t:0").arg("NOMKSTREAM").arg("*").arg("meta").arg(meta).arg("data").arg(data);
        }
        encoder.add(&note);
        pipeline.add_command(note);
        assert_eq!(encoder.len(), 4);
        assert_eq!(encoder.finish(None), (pipeline.get_packed_pipeline(), 6));
    }

    #[test]
    fn answers_are_told_apart() {
        let bytes = b"+OK\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n*3\r\n$3\r\n1-1\r\n$-1\r\n*2\r\n$6\r\nstored\r\n:5\r\n:1\r\n";
        let (answers, behind) = read(bytes, 3).ok().unwrap();
        assert_eq!(answers[..2], [Answer::Text(b"1-1"), Answer::Nil]);
        assert_eq!(answers[2].value(), Value::Array(vec![Value::BulkString(b"stored".to_vec()), Value::Int(5)]));
        assert_eq!(behind, Some(Value::Int(1)));
        let Err(Failure::Later(error)) = read(b"+OK\r\n-LOADING later\r\n-EXECABORT no\r\n", 1) else { panic!("it says when") };
        assert!(error.message.contains("LOADING") || error.details["reply"] == "LOADING", "{error}");
        assert!(matches!(read(b"+OK\r\n+QUEUED\r\n-OOM full\r\n", 1), Err(Failure::Refused(_))));
        assert!(matches!(read(b"+OK\r\n+QUEUED\r\n*-1\r\n", 1), Err(Failure::Refused(_))));
        assert!(matches!(read(b"+OK\r\n", 1), Err(Failure::Refused(_))));
    }
}
