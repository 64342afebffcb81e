//! Metadata of entries, and events that are not stored, as anybody may send them.

use std::collections::BTreeMap;

use ossa::engine::event::{Extras, Jitter, MetaView, NewMeta, Priority, RetryOverride, pack};
use ossa::engine::filter::{Filter, Labels};
use ossa::engine::store::Transient;
use proptest::prelude::*;

use crate::corpus;
use crate::json::text;

/// Whatever is read, can be asked all that the engine asks.
fn read(bytes: &[u8]) -> bool {
    let labels = std::str::from_utf8(bytes).map(Labels::read).unwrap_or_default();
    match MetaView::read(bytes) {
        Ok(view) => {
            let filter = Filter {
                source: vec![view.source.to_string()],
                tags: vec!["t".into()],
                priority: Priority::ALL.to_vec(),
                headers: BTreeMap::from([("h".to_owned(), "v".to_owned())]),
            };
            let _ = (view.ttl_ms(), view.names_ttl(), view.ttl_given(), view.asked(), filter.takes(&view, &labels));
            true
        }
        Err(error) => {
            assert!(!error.message.is_empty() && error.message.len() < 1000, "{}", error.message);
            false
        }
    }
}

/// A number that its text gives back to the last bit.
fn whole() -> impl Strategy<Value = f64> {
    any::<u32>().prop_map(f64::from)
}

fn extras() -> impl Strategy<Value = Extras> {
    let retry = (any::<Option<u32>>(), proptest::option::of(whole()), proptest::option::of(whole()));
    let retry = retry.prop_map(|(max_attempts, initial_delay, backoff_multiplier)| RetryOverride {
        max_attempts,
        initial_delay,
        backoff_multiplier,
        max_delay: initial_delay,
        jitter: Some(Jitter::Full),
    });
    let texts = (proptest::option::of(text()), proptest::option::of(text()), proptest::option::of(text()));
    let tags = proptest::option::of(proptest::collection::vec(text(), 0..4));
    let headers = proptest::option::of(proptest::collection::btree_map(text(), text(), 0..4));
    (texts, tags, headers, proptest::option::of(retry), any::<Option<u64>>()).prop_map(|(texts, tags, headers, retry, due)| Extras {
        target: texts.0,
        correlation_id: texts.1,
        partition_key: texts.2.clone(),
        ack_to: texts.2,
        tags,
        headers,
        retry,
        due,
        ..Extras::default()
    })
}

fn packed() -> impl Strategy<Value = (String, u64, Extras, String)> {
    let times = (any::<u64>(), 0.0..1e13_f64, any::<bool>(), 0..4_usize);
    (text(), text(), times, extras()).prop_map(|(source, version, (timestamp_ms, ttl, ttl_given, priority), extras)| {
        let meta = NewMeta {
            id: "018bcfe5-6800-7000-8000-000000000000",
            timestamp_ms,
            source: &source,
            version: &version,
            priority: Priority::ALL[priority],
            ttl,
            ttl_given,
            extras: Some(&extras),
        };
        let packed = pack(&meta);
        (source, timestamp_ms, extras, packed)
    })
}

proptest! {
    #![proptest_config(corpus::cases(600))]

    #[test]
    fn bytes_are_metadata_or_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        read(&bytes);
    }

    #[test]
    fn json_is_metadata_or_is_refused(value in crate::json::any_json()) {
        read(value.to_string().as_bytes());
    }

    #[test]
    fn what_is_packed_is_read_back((source, timestamp_ms, extras, packed) in packed()) {
        prop_assert!(!packed.contains(['\t', '\n']), "it stands in a line");
        let view = MetaView::read(packed.as_bytes()).expect("just packed");
        prop_assert_eq!((&*view.source, view.timestamp), (&*source, timestamp_ms));
        prop_assert_eq!(view.partition_key.as_deref(), extras.partition_key.as_deref());
        prop_assert_eq!(&view.retry, &extras.retry);
        let all: Extras = serde_json::from_str(&packed).expect("just packed");
        prop_assert_eq!(all, extras);
    }

    #[test]
    fn damaged_metadata_is_read_or_refused((_, _, _, packed) in packed(), cuts in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>(), 0..3_u8), 1..5)) {
        let mut bytes = packed.into_bytes();
        for (index, byte, kind) in cuts {
            let at = index.index(bytes.len().max(1));
            match kind {
                0 => bytes.truncate(at),
                1 if at < bytes.len() => bytes[at] = byte,
                _ => bytes.insert(at.min(bytes.len()), byte),
            }
        }
        read(&bytes);
    }

    #[test]
    fn a_transient_event_is_read_back_and_anything_else_is_refused(
        event_type in "[A-Za-z0-9_.:/-]{1,40}", (_, _, _, meta) in packed(), data in crate::json::any_json(), other in any::<String>()
    ) {
        let event = Transient { event_type: event_type.into(), meta, data: data.to_string() };
        prop_assert_eq!(Transient::parse(&event.to_text()), Some(event));
        if let Some(event) = Transient::parse(&other) {
            prop_assert_eq!(event.to_text(), other);
        }
    }
}

#[test]
fn the_corpus_is_read_or_refused() {
    for (name, bytes) in corpus::files("envelope") {
        let is_valid = read(&bytes);
        assert_eq!(is_valid, name.contains("valid-"), "{name}");
        let _ = Transient::parse(&String::from_utf8_lossy(&bytes));
    }
}
