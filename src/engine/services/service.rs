//! A service as it is listed: what it says of itself, and how it is.

use serde_json::Value;

use super::definition::Definition;
use super::health::Health;
use crate::engine::error::Result;
use crate::engine::store::Listing;

/// Never changes: another one takes its place.
#[derive(Clone, Debug)]
pub struct Service {
    /// What it says of itself.
    pub definition: Definition,
    /// How it is.
    pub health: Health,
    /// As it stands in the store.
    pub listing: Listing,
}

impl Service {
    /// One to be listed.
    pub fn new(definition: Definition, health: Health) -> Self {
        let listing = Listing { definition: definition.to_text(), health: health.to_text() };
        Self { definition, health, listing }
    }

    /// From what is listed under `name`. `ERR_SERVICE_INVALID` for what another version or program wrote there.
    pub fn read(name: &str, listing: Listing) -> Result<Self> {
        Ok(Self { definition: Definition::from_text(name, &listing.definition)?, health: Health::from_text(&listing.health), listing })
    }

    /// The same service, being otherwise now.
    #[must_use]
    pub fn being(&self, health: Health, now_ms: u64) -> Self {
        let health = health.behind(&self.health, now_ms);
        let listing = Listing { definition: self.listing.definition.clone(), health: health.to_text() };
        Self { definition: self.definition.clone(), health, listing }
    }

    /// Whether it is to be probed: it can be, and its owner does not work on it.
    pub fn is_probed(&self) -> bool {
        self.definition.is_http() && !self.health.is_in_maintenance()
    }

    /// Its health as in the public contract; times are ms since 1970.
    pub fn health_json(&self) -> Value {
        let scheme = self.definition.scheme();
        let unprobed = (!self.definition.is_http()).then(|| format!("its endpoint is {scheme}:, and only http: and https: can be asked"));
        self.health.to_json(unprobed)
    }

    /// As in the public contract; times are ms since 1970.
    pub fn to_json(&self) -> Value {
        let mut out = self.definition.to_json();
        out["health"] = self.health_json();
        out
    }
}
