//! The envelope: metadata as a publish packs them, and as a delivery reads them.

use std::hint::black_box;

use ossa::engine::env::Env;
use ossa::engine::event::{Extras, MetaView, NewMeta, Priority, pack, pack_tail, pack_with};

/// What the metadata of an event are made of.
pub struct Envelope {
    env: Env,
    tail: String,
    extras: Extras,
}

impl Envelope {
    /// Of a publisher, under a seed.
    pub fn new() -> Self {
        let extras = Extras {
            correlation_id: Some("order-4711".into()),
            partition_key: Some("customer-12".into()),
            tags: Some(vec!["alpha".into(), "beta".into()]),
            ..Extras::default()
        };
        let env = Env::seeded(1);
        Self { tail: pack_tail(&meta("", 0, None)), env, extras }
    }

    /// Packs those of an event without options.
    pub fn pack(&self) -> String {
        pack_with(&self.env.new_id(), self.env.now_ms(), &self.tail)
    }

    /// Packs those of an event with options.
    pub fn pack_with_options(&self) -> String {
        pack(&meta(&self.env.new_id(), self.env.now_ms(), Some(&self.extras)))
    }
}

fn meta<'a>(id: &'a str, timestamp_ms: u64, extras: Option<&'a Extras>) -> NewMeta<'a> {
    NewMeta {
        id,
        timestamp_ms,
        source: "orders",
        version: "1.0.0",
        priority: Priority::Normal,
        ttl: 3600.0,
        ttl_given: extras.is_some(),
        extras,
    }
}

/// Reads them.
pub fn read(meta: &str) {
    black_box(MetaView::read(black_box(meta).as_bytes()).expect("metadata of this bus"));
}
