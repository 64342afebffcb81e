//! Asking endpoints that others give: probes, discovery, deliveries.
//!
//! Whoever gives an endpoint has this process ask it, from where this process stands in the network. So everything here is bounded and
//! checked: which hosts may be asked, by name and by the very addresses that are connected to; how long it may take; how much is
//! read; that a redirect leads nowhere else; that certificates are verified. Proxies of the environment are not used, as they would
//! be told names that were never checked. There are no cookies, and nothing is unpacked.
//!
//! Reading order: `failure`; `target` (URLs), `reach` (the rules), `names` (looking up), `wire` (connections), `headers`, `answer`,
//! `client`.

mod answer;
mod client;
mod failure;
mod headers;
mod names;
mod reach;
mod target;
mod wire;

pub use answer::Answer;
pub use client::Http;
pub use failure::Failure;
pub use names::Resolve;
