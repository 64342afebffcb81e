//! The bus in Rust. Modules in reading order; each imports only from those above it.

pub mod error;

pub mod name;

pub mod env;

pub mod config;

pub mod event;

pub mod retry;

pub mod store;
