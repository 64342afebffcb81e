//! The audit log: one record of every send, delivery and refusal. Each bus writes a chain of its own, in which every record
//! holds the hash of the one before it: what is removed, changed or reordered shows.
//!
//! Reading order: [`record`] what stands in a record, [`writer`] how records come into the chain, [`log`] how they are looked up,
//! [`check`] how chains are verified.

pub mod check;
pub mod log;
pub mod record;
pub mod writer;

pub use record::{Entry, Outcome};
pub use writer::Audit;
