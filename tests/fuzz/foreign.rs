//! Entries that others wrote into a stream: dead letters with their fields, each of them, and nothing behind them is held up.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use ossa::engine::bus::Bus;
use ossa::engine::config::resolve_bus;
use ossa::engine::consume::Verdict;
use ossa::engine::env::{Env, lock};
use ossa::engine::error::{Error, Result};
use ossa::engine::event::MetaView;
use ossa::engine::host::{Delivery, Host, Kind, Lifecycle, Token};
use ossa::engine::options::SubscribeOptions;
use ossa::engine::store::memory::MemoryStore;
use ossa::engine::store::{DeadLetterQuery, NewEvent, Partition, Store, StoredDeadLetter};
use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use crate::corpus;
use crate::json::text;

/// Handlers that hand on what they get.
pub struct Handlers {
    to: UnboundedSender<Delivery>,
    defects: Mutex<Vec<Value>>,
}

impl Handlers {
    /// To be handed there.
    pub fn new(to: UnboundedSender<Delivery>) -> Self {
        Self { to, defects: Mutex::default() }
    }

    /// Errors that were told.
    pub fn defects(&self) -> Vec<Value> {
        lock(&self.defects).clone()
    }
}

impl Host for Handlers {
    fn published(&self, _: Vec<(Token, Result<Arc<str>>)>) {}

    fn deliver(&self, batch: Vec<Delivery>) {
        for delivery in batch {
            let _ = self.to.send(delivery);
        }
    }

    fn settled(&self, _: Vec<(u32, Option<Error>)>) {}

    fn lifecycle(&self, events: Vec<Lifecycle>) {
        let defects = events.into_iter().filter(|event| event.0 == Kind::Error).map(|event| event.1);
        lock(&self.defects).extend(defects);
    }

    fn listens(&self, _: Kind) -> bool {
        true
    }

    fn silent_for(&self) -> Duration {
        Duration::ZERO
    }
}

/// What somebody put into the stream.
#[derive(Clone, Debug)]
enum Entry {
    /// Fields that are not an event's.
    Fields(Vec<(Vec<u8>, Vec<u8>)>),
    /// The fields of an event, with anything in them.
    Event(String, String),
}

fn entry() -> impl Strategy<Value = Entry> {
    let name = prop_oneof![Just("meta".to_owned()), Just("data".to_owned()), Just("to".to_owned()), text()].prop_map(String::into_bytes);
    let bytes = || prop_oneof![proptest::collection::vec(any::<u8>(), 0..40), text().prop_map(String::into_bytes)];
    let fields = proptest::collection::vec((prop_oneof![name, bytes()], bytes()), 0..5);
    prop_oneof![fields.prop_map(Entry::Fields), (metadata(), text()).prop_map(|(meta, data)| Entry::Event(meta, data))]
}

/// Metadata of an event, right or nearly so.
fn metadata() -> impl Strategy<Value = String> {
    let right = json!({
        "v": 1, "id": "018bcfe5-6800-7000-8000-000000000000", "timestamp": 1, "source": "s", "version": "1", "priority": "normal",
        "ttl": 5, "partitionKey": "k", "tags": ["t"], "retry": { "maxAttempts": 1 }, "replyTo": "r",
    });
    prop_oneof![text(), crate::json::nearly(right.clone()).prop_map(|value| value.to_string()), Just(right.to_string())]
}

/// Plays the entries, and a right event behind them; answers the dead letters.
async fn play(entries: &[Entry], ordered: bool) -> Vec<StoredDeadLetter> {
    let env = Env::seeded(1);
    let store = MemoryStore::private(env.clone());
    let (to, mut deliveries) = unbounded_channel();
    let host = Arc::new(Handlers::new(to));
    let config = json!({ "redis": { "url": "memory://" }, "defaults": { "retry": { "maxAttempts": 0 } } });
    let bus = Bus::with_store(resolve_bus(&config, &|_| None).expect("right"), None, store.clone(), host.clone(), env);
    bus.connect().await.expect("connected");
    let at = Partition::new("a", 0);
    store.open_partition(&at).await.expect("opened");
    let mut malformed = 0;
    for entry in entries {
        match entry.clone() {
            Entry::Fields(fields) => {
                malformed += 1;
                store.add_foreign(&at, fields).expect("the partition is there");
            }
            Entry::Event(meta, data) => {
                malformed += usize::from(MetaView::read(meta.as_bytes()).is_err());
                let event = NewEvent {
                    partition: at.clone(),
                    id: "e".into(),
                    meta,
                    data: data.into(),
                    ttl_ms: None,
                    delay_ms: None,
                    idempotency: None,
                    length_max: None,
                    cancelled: None,
                    entry: None,
                };
                assert!(store.append(at.bucket(), vec![event]).await[0].is_ok());
            }
        }
    }
    let options = SubscribeOptions::read(json!({ "group": "g", "ordered": ordered })).expect("right");
    bus.subscribe(1, "a", options).await.expect("subscribed");
    bus.publish(1, "a\t\t\"last\"\n".to_owned());
    let (handled, mut last) = unbounded_channel();
    let handlers = bus.clone();
    let handlers = tokio::spawn(async move {
        while let Some(delivery) = deliveries.recv().await {
            handlers.settle(vec![(delivery.token, Verdict::Done)], 0);
            if delivery.text.data == "\"last\"" {
                let _ = handled.send(());
            }
        }
    });
    tokio::time::timeout(Duration::from_secs(60), last.recv()).await.expect("what is behind them is handled");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(host.defects().is_empty(), "{:?}", host.defects());
    let state = store.inspect(&at).await.expect("asked").expect("there");
    assert!(state.groups.iter().all(|group| group.pending == 0 && group.lag == Some(0)), "{state:?}");
    let letters = store.dead_letters(&DeadLetterQuery::default(), 1000, None).await.expect("listed").0;
    assert_eq!(letters.iter().filter(|letter| letter.reason == "malformed").count(), malformed, "{letters:?}");
    bus.disconnect(Duration::ZERO).await;
    handlers.abort();
    letters
}

fn run(entries: &[Entry], ordered: bool) -> Vec<StoredDeadLetter> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime can be made").block_on(play(entries, ordered))
}

proptest! {
    #![proptest_config(corpus::cases(60))]

    #[test]
    fn what_others_wrote_is_a_dead_letter_and_holds_up_nothing(entries in proptest::collection::vec(entry(), 1..8), ordered in any::<bool>()) {
        run(&entries, ordered);
    }

    #[test]
    fn fields_of_others_are_kept_in_the_dead_letter(
        fields in proptest::collection::btree_map("[a-z]{1,8}", text(), 1..5), ordered in any::<bool>()
    ) {
        let entry = Entry::Fields(fields.iter().map(|(name, value)| (name.clone().into_bytes(), value.clone().into_bytes())).collect());
        let letters = run(&[entry], ordered);
        let kept: Value = serde_json::from_str(&letters[0].data).expect("they are JSON");
        prop_assert_eq!(kept, json!(fields));
    }
}

#[test]
fn the_corpus_is_dead_letters() {
    let entries: Vec<Entry> = corpus::files("foreign")
        .into_iter()
        .map(|(_, bytes)| {
            // A line a field, its name before the first blank.
            let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
            Entry::Fields(
                lines
                    .map(|line| {
                        let cut = line.iter().position(|byte| *byte == b' ').unwrap_or(line.len());
                        (line[..cut].to_vec(), line[cut..].to_vec())
                    })
                    .collect(),
            )
        })
        .collect();
    assert_eq!(run(&entries, false).len(), entries.len());
    assert_eq!(run(&entries, true).len(), entries.len());
}
