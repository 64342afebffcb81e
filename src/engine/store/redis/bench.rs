//! Hot paths of this module that have no public way in: benches/ measures them.

use super::super::{Entry, ReadError, ReadFrom};
use super::hash_slot;
use super::keys::Keys;
use super::reader;
use super::writer::transaction::{Encoder, Head, read};

/// Entries of a whole reply to XREADGROUP for `from`.
pub fn read_reply(reply: &[u8], keys: &Keys, from: &[ReadFrom]) -> Result<Vec<Entry>, ReadError> {
    reader::read_reply(reply, keys, from, false)
}

/// The transaction that adds events to a stream, as it is sent.
pub fn write_batch(stream: &str, events: &[(String, String)]) -> Vec<u8> {
    let head = Head::new(stream);
    let bytes = events.iter().map(|(meta, data)| head.bytes_with(meta.len() + data.len())).sum();
    let mut encoder = Encoder::new(bytes);
    for (meta, data) in events {
        encoder.append(&head, meta, data);
    }
    encoder.finish(None).0
}

/// How many of its commands were answered, of the replies to a transaction of so many; `None` where it was refused.
pub fn read_batch(replies: &[u8], commands: usize) -> Option<usize> {
    read(replies, commands).ok().map(|(answers, _)| answers.len())
}

/// The slot of a key in a cluster.
pub fn slot_of(key: &[u8]) -> u16 {
    hash_slot::of_key(key)
}
