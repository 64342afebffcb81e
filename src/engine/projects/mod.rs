//! Projects that send each other messages. Modules in reading order; each imports only from those above it.

pub mod nesting;

pub mod moment;

mod form;

mod metered;

mod places;

mod pattern;

pub mod schema;

pub mod contract;

pub mod contracts;

pub mod route;
