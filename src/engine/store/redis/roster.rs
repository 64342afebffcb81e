//! The register of services.

use std::time::Duration;

use async_trait::async_trait;

use super::super::{Errand, Listing, Place, Read, Roster, Running, Turn};
use super::RedisStore;
use crate::engine::error::{Error, Result};

#[async_trait]
impl Roster for RedisStore {
    async fn put_listing(&self, _: &str, _: Option<&Listing>, _: Option<&Listing>, _: Turn, _: Option<Duration>) -> Result<bool> {
        Err(Error::internal("roster"))
    }

    async fn renew_listings(&self, _: &[String], _: Duration) -> Result<Vec<String>> {
        Err(Error::internal("roster"))
    }

    async fn news(&self, _: Option<Place>) -> Result<Read> {
        Err(Error::internal("roster"))
    }

    async fn plan_errands(&self, _: Errand, _: &[String], _: Duration) -> Result<()> {
        Err(Error::internal("roster"))
    }

    async fn take_errands(&self, _: Errand, _: usize, _: Duration) -> Result<(Vec<Running>, Option<u64>)> {
        Err(Error::internal("roster"))
    }

    async fn end_errand(&self, _: Errand, _: &Running, _: Option<Duration>) -> Result<bool> {
        Err(Error::internal("roster"))
    }
}
