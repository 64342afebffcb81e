//! A batch on its way to the server, and the replies to it.

use std::fmt::Write as _;
use std::hint::black_box;

use ossa::engine::store::Partition;
use ossa::engine::store::redis::bench;
use ossa::engine::store::redis::keys::Keys;

use super::envelope::Envelope;
use super::{EVENT_TYPE, data};

/// Events of one batch, and what a server answers when it has them.
pub struct Batch {
    stream: String,
    events: Vec<(String, String)>,
    replies: String,
}

impl Batch {
    /// Of so many events of one stream.
    pub fn new(events: usize) -> Self {
        let envelope = Envelope::new();
        let mut replies = format!("+OK\r\n{}*{events}\r\n", "+QUEUED\r\n".repeat(events));
        for number in 0..events {
            let id = format!("1700000000000-{number}");
            let _ = write!(replies, "${}\r\n{id}\r\n", id.len());
        }
        Self {
            stream: Keys::new("ossa:events", None).stream(&Partition::new(EVENT_TYPE, 0)),
            events: (0..events).map(|number| (envelope.pack(), data(number))).collect(),
            replies,
        }
    }

    /// Writes it, and reads what is answered.
    pub fn send(&self) {
        black_box(bench::write_batch(&self.stream, black_box(&self.events)));
        assert_eq!(bench::read_batch(black_box(self.replies.as_bytes()), self.events.len()), Some(self.events.len()));
    }
}
