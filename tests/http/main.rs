//! The HTTP client for endpoints that others give, against servers that answer as they should, as they should not, and not at all.

mod answers;
mod asking;
mod bounds;
mod encryption;
mod proxies;
mod reach;
mod redirects;
mod servers;
mod spans;
mod support;
