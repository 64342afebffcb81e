//! A reply to XREADGROUP, as a server sends it.

use std::fmt::Write as _;
use std::hint::black_box;

use ossa::engine::store::redis::bench;
use ossa::engine::store::redis::keys::Keys;
use ossa::engine::store::{Partition, ReadFrom};

use super::envelope::Envelope;
use super::{EVENT_TYPE, data};

/// A reply, and what it answers.
pub struct Reply {
    bytes: Vec<u8>,
    keys: Keys,
    from: Vec<ReadFrom>,
    entries: usize,
}

impl Reply {
    /// With so many entries of one stream.
    pub fn new(entries: usize) -> Self {
        let (keys, partition) = (Keys::new("ossa:events", None), Partition::new(EVENT_TYPE, 0));
        let (stream, envelope) = (keys.stream(&partition), Envelope::new());
        let mut text = format!("*1\r\n*2\r\n${}\r\n{stream}\r\n*{entries}\r\n", stream.len());
        for number in 0..entries {
            let (id, meta, data) = (format!("1700000000000-{number}"), envelope.pack(), data(number));
            let _ = write!(text, "*2\r\n${}\r\n{id}\r\n*4\r\n$4\r\nmeta\r\n${}\r\n{meta}\r\n", id.len(), meta.len());
            let _ = write!(text, "$4\r\ndata\r\n${}\r\n{data}\r\n", data.len());
        }
        Self { bytes: text.into_bytes(), keys, from: vec![ReadFrom::new(partition)], entries }
    }

    /// Bytes of it.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Reads it.
    pub fn read(&self) {
        let entries = bench::read_reply(black_box(&self.bytes), &self.keys, &self.from).expect("a reply to XREADGROUP");
        assert_eq!(black_box(entries).len(), self.entries);
    }
}
