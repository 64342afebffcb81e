//! Hot paths of this module that have no public way in: benches/ measures them.

use super::super::{Entry, ReadError, ReadFrom};
use super::hash_slot;
use super::keys::Keys;
use super::reader;

/// Entries of a whole reply to XREADGROUP for `from`.
pub fn read_reply(reply: &[u8], keys: &Keys, from: &[ReadFrom]) -> Result<Vec<Entry>, ReadError> {
    reader::read_reply(reply, keys, from)
}

/// The slot of a key in a cluster.
pub fn slot_of(key: &[u8]) -> u16 {
    hash_slot::of_key(key)
}
