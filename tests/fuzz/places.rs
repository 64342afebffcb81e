//! Ids, cursors and places as text that users hand back.

use futures_util::FutureExt;
use ossa::engine::ask::message;
use ossa::engine::env::Env;
use ossa::engine::error::Code;
use ossa::engine::explain::id_time_ms;
use ossa::engine::store::memory::MemoryStore;
use ossa::engine::store::{DeadLetterQuery, EntryId, Partition, Store};
use proptest::prelude::*;

use crate::corpus;
use crate::json::text;

fn place() -> impl Strategy<Value = String> {
    let parts = (any::<u16>(), any::<u64>(), any::<u64>(), text());
    prop_oneof![
        text(),
        parts.prop_map(|(bucket, ms, seq, rest)| format!("{}.{ms}-{seq}.{rest}", bucket % 20)),
        "[0-9]{0,25}[.-][0-9]{0,25}[.-][a-z.0-9-]{0,20}",
    ]
}

/// The store takes it, or refuses it with its argument.
fn hand_back(text: &str) {
    let store = MemoryStore::private(Env::system());
    let query = DeadLetterQuery::default();
    let page = store.dead_letters(&query, 10, Some(text)).now_or_never().expect("memory answers at once");
    if let Err(error) = page {
        assert_eq!((error.code, &error.details["argument"]), (Code::InvalidArgument, &"cursor".into()));
    }
    let query = DeadLetterQuery { ids: Some(vec![text.to_owned()]), ..query };
    for answer in [store.redrive(&query), store.purge(&query), store.count_dead_letters(&query)] {
        let answer = answer.now_or_never().expect("memory answers at once");
        assert!(answer.as_ref().is_ok_and(|count| *count == 0) || answer.is_err_and(|error| error.code == Code::InvalidArgument));
    }
    let _ = (text.parse::<EntryId>(), id_time_ms(text), message::read(text));
    let at = Partition::new("a", 0);
    let _ = store.noted(&at, text).now_or_never();
}

proptest! {
    #![proptest_config(corpus::cases(500))]

    #[test]
    fn any_text_is_a_place_or_is_refused(text in place()) {
        hand_back(&text);
    }

    #[test]
    fn the_id_of_an_entry_is_read_back(ms in any::<u64>(), seq in any::<u64>()) {
        let id = EntryId { ms, seq };
        prop_assert_eq!(id.to_string().parse::<EntryId>().ok(), Some(id));
        prop_assert!(id.previous() <= id && id <= id.next());
        if seq < u64::MAX {
            prop_assert_eq!(id.next().previous(), id);
        }
    }

    #[test]
    fn any_partition_has_its_bucket(event_type in any::<String>(), index in any::<u16>()) {
        let partition = Partition::new(event_type, index);
        prop_assert!(partition.bucket().0 < ossa::engine::store::BUCKETS);
    }
}

#[test]
fn the_corpus_is_taken_or_refused() {
    for (_, text) in corpus::texts("places") {
        hand_back(text.trim_end());
    }
}
