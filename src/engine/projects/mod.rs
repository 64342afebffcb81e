//! Projects that send each other messages. Modules in reading order; each imports only from those above it.

pub mod nesting;

mod metered;

mod places;

pub mod schema;
