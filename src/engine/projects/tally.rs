//! What this process did with messages, as counters that Prometheus reads.

use std::collections::HashSet;
use std::sync::Mutex;

use prometheus::{IntCounterVec, Opts, Registry, TextEncoder};

use super::audit::Outcome;
use crate::engine::env::lock;
use crate::engine::error::{Error, Result};

/// Label of projects that are not registered: their names are anybody's.
const OTHER: &str = "other";

/// Most pairs of projects that are told apart; further ones fall into `other`.
const PAIRS_MAX: usize = 1_000;

/// `ossa_cross_project_messages_total`.
pub struct Tally {
    registry: Registry,
    messages: IntCounterVec,
    pairs: Mutex<HashSet<(String, String)>>,
}

impl Tally {
    /// Nothing counted yet.
    pub fn new() -> Result<Self> {
        let options = Opts::new("ossa_cross_project_messages_total", "Messages between projects, by what became of them in this process.");
        let defect = |error: prometheus::Error| Error::internal(format!("metrics: {error}"));
        let messages = IntCounterVec::new(options, &["outcome", "source", "target"]).map_err(defect)?;
        let registry = Registry::new();
        registry.register(Box::new(messages.clone())).map_err(defect)?;
        Ok(Self { registry, messages, pairs: Mutex::default() })
    }

    /// One more. `source` and `target` where they are registered projects.
    pub fn count(&self, outcome: Outcome, source: Option<&str>, target: Option<&str>) {
        let (mut source, mut target) = (source.unwrap_or(OTHER), target.unwrap_or(OTHER));
        let mut pairs = lock(&self.pairs);
        let pair = (source.to_owned(), target.to_owned());
        if !pairs.contains(&pair) {
            if pairs.len() < PAIRS_MAX {
                pairs.insert(pair);
            } else {
                (source, target) = (OTHER, OTHER);
            }
        }
        drop(pairs);
        self.messages.with_label_values(&[outcome.as_str(), source, target]).inc();
    }

    /// In the text format 0.0.4.
    pub fn export(&self) -> Result<String> {
        TextEncoder::new().encode_to_string(&self.registry.gather()).map_err(|error| Error::internal(format!("metrics: {error}")))
    }
}
