//! Runs one hot path under callgrind, for `scripts/instructions.mjs`: `instructions <path>`. Only what is called inside of [`measured`]
//! counts; the printed number says how many events that were.
//!
//! All that could differ from run to run is fixed: one thread, a clock that stands, ids and randomness from a seed.

mod work;

use std::hint::black_box;

use work::batch::Batch;
use work::desk::{Desk, RECORDS, records};
use work::envelope::{self, Envelope};
use work::reply::Reply;

/// Calls of 1,000 records before it counts: buffers have grown, and what is made once is there.
const WARM_UP: usize = 5;
/// Calls that count.
const CALLS: usize = 20;
/// Events that count.
const EVENTS: usize = CALLS * RECORDS;

/// What callgrind looks for by its name.
#[inline(never)]
fn measured<T>(work: impl FnOnce() -> T) -> T {
    // What is left to do here keeps it from being jumped out of.
    black_box(work())
}

/// Metadata packed and read.
fn envelope() {
    let envelope = Envelope::new();
    let once = || {
        envelope::read(&envelope.pack());
        envelope::read(&envelope.pack_with_options());
    };
    (0..100).for_each(|_| once());
    measured(|| (0..EVENTS / 2).for_each(|_| once()));
}

/// From the text of a call to entries of the store, and the results.
fn publish() {
    let mut desk = Desk::repeatable();
    desk.publish(records(WARM_UP));
    let calls = records(CALLS);
    measured(|| desk.publish(calls));
}

/// From entries of the store through handlers to their settlement.
fn consume() {
    let mut desk = Desk::repeatable();
    desk.publish(records(WARM_UP));
    desk.consume(WARM_UP * RECORDS);
    desk.unsubscribe();
    desk.publish(records(CALLS));
    measured(|| desk.consume(EVENTS));
}

/// From the bytes of a reply to XREADGROUP to entries.
fn reply() {
    let reply = Reply::new(100);
    reply.read();
    measured(|| (0..EVENTS / 100).for_each(|_| reply.read()));
}

/// From a batch to the bytes that are sent, and from the bytes of the replies to what became of it.
fn batch() {
    let batch = Batch::new(100);
    batch.send();
    measured(|| (0..EVENTS / 100).for_each(|_| batch.send()));
}

fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("envelope") => envelope(),
        Some("publish") => publish(),
        Some("consume") => consume(),
        Some("reply") => reply(),
        Some("batch") => batch(),
        other => panic!("one of envelope, publish, consume, reply, batch, got {other:?}"),
    }
    println!("{EVENTS}");
}
