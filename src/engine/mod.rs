//! The bus in Rust. Modules in reading order; each imports only from those above it.

pub mod error;

pub mod name;

pub mod log;

pub mod env;

pub mod numbers;

pub mod event;

pub mod filter;

pub mod retry;

pub mod net;
pub mod tls;

pub mod config;

pub mod http;

pub mod store;

pub mod opening;

pub mod host;

pub mod journal;

pub mod trace;

pub mod metrics;

pub mod options;

pub mod form;

pub mod moment;

pub mod alarms;

pub mod ask;

pub mod publish;

pub mod settle;

pub mod consume;

pub mod inside;

pub mod unattended;

pub mod keeper;

pub mod history;

pub mod explain;
pub mod streams;

pub mod projects;

pub mod services;

pub mod integration;

pub mod orchestration;

pub mod health;
pub mod vitals;

pub mod monitoring;

pub mod bus;
