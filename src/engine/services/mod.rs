//! The registry of services: who is there, what they can do, and how they are.
//!
//! Reading order: [`definition`] and [`health`] what is given and stored, [`service`] both together, [`filter`] who is looked for; [`view`]
//! what this process knows and what happened, `held` what it registered; `asking` and `shared` what the parts work with; then what goes on
//! beside: `looking` reads the news, `renewing` keeps listed what is held, `probing` looks how services are. [`Registry`] is what users
//! call, `life` how it is opened and closed.

pub mod definition;
pub mod filter;
pub mod health;
pub mod service;
pub mod view;

mod asking;
mod held;
mod life;
mod looking;
mod probing;
mod registry;
mod renewing;
mod shared;

pub use registry::{Registry, Watcher};
