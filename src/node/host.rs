//! From the engine to JavaScript: everything goes through one weak threadsafe function, one call for many events.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use napi::bindgen_prelude::{FnArgs, Function, Uint32Array, Unknown};
use napi::threadsafe_function::{ThreadsafeFunction, ThreadsafeFunctionCallMode};
use serde_json::{Value, json};

use super::awake::Awake;
use crate::engine::env::lock;
use crate::engine::error::{Error, Result};
use crate::engine::event;
use crate::engine::host::{Delivery, EventText, Host, Kind, Lifecycle, Token};
use crate::engine::name;

/// Numbers of one delivery, see `Row` in ts/native.ts.
const ROW_STRIDE: usize = 13;
/// So many texts beside that of the events, and metadata cross as a whole instead of by their tails.
const TEXTS_MAX: usize = 64;

/// Characters of an id, see `ID_CHARS` in ts/native.ts.
const ID_CHARS: usize = 36;

/// What is told, see `Message` in ts/native.ts.
#[derive(Clone, Copy)]
#[repr(u32)]
enum Topic {
    Published = 0,
    Deliveries = 1,
    Settled = 2,
    Lifecycle = 3,
    Answer = 4,
    /// Nothing: only to see whether the thread answers.
    Ping = 5,
    Posted = 6,
    Refused = 7,
}

/// One call: topic, numbers, texts, text.
pub struct Message {
    topic: Topic,
    numbers: Vec<u32>,
    texts: Vec<String>,
    text: String,
}

type Arguments = FnArgs<(u32, Uint32Array, Vec<String>, String)>;
type Callback = ThreadsafeFunction<Message, Unknown<'static>, Arguments, napi::Status, false, true>;

/// The JavaScript function that is told.
pub type Listener<'a> = Function<'a, Arguments, Unknown<'static>>;

/// [`Host`] over a JavaScript function.
pub struct NodeHost {
    /// Released at the end: an open function counts as an open handle.
    callback: Mutex<Option<Arc<Callback>>>,
    listening: AtomicU32,
    pulse: Arc<Pulse>,
    /// Of the engine's thread, for the results of publishes.
    pub awake: Arc<Awake>,
}

/// Whether the JavaScript thread takes calls.
struct Pulse {
    /// Calls it has not taken yet.
    waiting: AtomicUsize,
    /// When it took the last one, or the first of those waiting was made.
    since: Mutex<Instant>,
}

impl NodeHost {
    /// `listener` is called on the thread that makes this.
    pub fn new(listener: &Listener<'_>) -> napi::Result<Self> {
        let pulse = Arc::new(Pulse { waiting: AtomicUsize::new(0), since: Mutex::new(Instant::now()) });
        let taken = pulse.clone();
        let callback = listener.build_threadsafe_function::<Message>().callee_handled::<false>().weak::<true>().build_callback(
            move |context: napi::threadsafe_function::ThreadsafeCallContext<Message>| {
                taken.waiting.fetch_sub(1, Ordering::AcqRel);
                *lock(&taken.since) = Instant::now();
                let Message { topic, numbers, texts, text } = context.value;
                Ok(FnArgs::from((topic as u32, Uint32Array::new(numbers), texts, text)))
            },
        )?;
        Ok(Self { callback: Mutex::new(Some(Arc::new(callback))), listening: AtomicU32::new(0), pulse, awake: Arc::default() })
    }

    /// Which lifecycle events are wanted, see `Listening` in ts/native.ts.
    pub fn listen(&self, mask: u32) {
        self.listening.store(mask, Ordering::Relaxed);
    }

    /// Nothing more is told.
    pub fn close(&self) {
        lock(&self.callback).take();
    }

    /// Answers a call.
    pub fn answer(&self, call: u32, answer: String) {
        self.tell(Topic::Answer, vec![call], Vec::new(), answer);
    }

    fn tell(&self, topic: Topic, numbers: Vec<u32>, texts: Vec<String>, text: String) {
        if self.pulse.waiting.fetch_add(1, Ordering::AcqRel) == 0 {
            *lock(&self.pulse.since) = Instant::now();
        }
        let callback = lock(&self.callback).clone();
        let message = Message { topic, numbers, texts, text };
        let told = callback.is_some_and(|callback| callback.call(message, ThreadsafeFunctionCallMode::NonBlocking) == napi::Status::Ok);
        if !told {
            // Closed, or the environment is going: nobody is left to be told.
            self.pulse.waiting.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

/// JSON array of `[number, error]`, or nothing.
fn failures(failed: Vec<(u32, Error)>) -> String {
    if failed.is_empty() {
        return String::new();
    }
    Value::Array(failed.into_iter().map(|(number, error)| json!([number, error.to_json()])).collect()).to_string()
}

/// Length as JavaScript counts it.
fn utf16_len(text: &str) -> u32 {
    let length = if text.is_ascii() { text.len() } else { text.chars().map(char::len_utf16).sum() };
    u32::try_from(length).unwrap_or(u32::MAX)
}

/// The index of the text, which is added if it is not there and there is room: the last one first, as one after the other is the same.
fn index_of(texts: &mut Vec<String>, text: &str, max: usize) -> Option<u32> {
    let at = match texts.iter().rposition(|known| known == text) {
        Some(at) => at,
        None if texts.len() >= max => return None,
        None => {
            texts.push(text.to_owned());
            texts.len() - 1
        }
    };
    u32::try_from(at).ok()
}

impl Host for NodeHost {
    fn published(&self, results: Vec<(Token, Result<Arc<str>>)>) {
        self.awake.answered(results.len());
        let (mut tokens, mut ids) = (Vec::with_capacity(results.len()), String::with_capacity(results.len() * ID_CHARS));
        let (mut answers, mut failed) = (Vec::new(), Vec::new());
        for (token, result) in results {
            match result {
                Ok(id) if id.len() == ID_CHARS && id.is_ascii() => {
                    tokens.push(token);
                    ids.push_str(&id);
                }
                Ok(answer) => answers.push((token, answer)),
                Err(error) => failed.push((token, error)),
            }
        }
        // An id found by its key may be anything, and what a handler answers is no id.
        let (others, texts): (Vec<Token>, Vec<String>) = answers.iter().map(|(token, answer)| (*token, answer.to_string())).unzip();
        tokens.extend(others);
        if !tokens.is_empty() {
            self.tell(Topic::Published, tokens, texts, ids);
        }
        if !failed.is_empty() {
            self.tell(Topic::Refused, Vec::new(), Vec::new(), failures(failed));
        }
    }

    fn deliver(&self, batch: Vec<Delivery>) {
        let bytes = batch.iter().map(|delivery| delivery.text.meta.len() + delivery.text.data.len()).sum();
        let mut text = String::with_capacity(bytes);
        let mut rows: Vec<u32> = Vec::with_capacity(batch.len() * ROW_STRIDE);
        let (mut texts, mut ids) = (vec![String::new()], String::new());
        for delivery in batch {
            let event_type = &*delivery.partition.event_type;
            let EventText { meta, data, asks, .. } = &delivery.text;
            let type_index = index_of(&mut texts, event_type, usize::MAX).unwrap_or_default();
            // What has an address or is waited for is read by other code, from all of the metadata.
            let is_plain = !asks && !name::is_addressed(event_type);
            let cut = if is_plain { event::cut(meta) } else { None };
            let cut = cut.and_then(|cut| Some((cut, index_of(&mut texts, cut.tail, TEXTS_MAX)?)));
            let meta_length = if let Some((cut, _)) = &cut {
                ids.push(if ids.is_empty() { '[' } else { ',' });
                ids.push('"');
                ids.push_str(cut.id);
                ids.push('"');
                0
            } else {
                text.push_str(meta);
                utf16_len(meta)
            };
            text.push_str(data);
            let timestamp_ms = cut.map_or(0, |(cut, _)| cut.timestamp_ms);
            #[allow(clippy::cast_possible_truncation)] // halves of 64-bit numbers; a sequence far below 2^32
            rows.extend([
                delivery.subscription,
                delivery.token,
                delivery.attempt,
                u32::from(delivery.redelivered) | u32::from(*asks) << 1 | u32::from(delivery.joined) << 2,
                (delivery.id.ms >> 32) as u32,
                delivery.id.ms as u32,
                delivery.id.seq as u32,
                type_index,
                meta_length,
                utf16_len(data),
                cut.map_or(0, |(_, tail)| tail),
                (timestamp_ms >> 32) as u32,
                timestamp_ms as u32,
            ]);
        }
        if !ids.is_empty() {
            ids.push(']');
        }
        texts[0] = ids;
        self.tell(Topic::Deliveries, rows, texts, text);
    }

    fn settled(&self, confirmations: Vec<(u32, Option<Error>)>) {
        let (mut stored, mut failed) = (Vec::new(), Vec::new());
        for (confirmation, error) in confirmations {
            match error {
                None => stored.push(confirmation),
                Some(error) => failed.push((confirmation, error)),
            }
        }
        if !stored.is_empty() || !failed.is_empty() {
            self.tell(Topic::Settled, stored, Vec::new(), failures(failed));
        }
    }

    fn posted(&self, letters: Vec<String>) {
        self.tell(Topic::Posted, Vec::new(), Vec::new(), format!("[{}]", letters.join(",")));
    }

    fn lifecycle(&self, events: Vec<Lifecycle>) {
        if events.is_empty() {
            return;
        }
        let events: Vec<Value> = events.into_iter().map(|Lifecycle(kind, about)| json!([kind.as_str(), about])).collect();
        self.tell(Topic::Lifecycle, Vec::new(), Vec::new(), Value::Array(events).to_string());
    }

    fn listens(&self, kind: Kind) -> bool {
        let bit = match kind {
            Kind::Published => 1,
            Kind::Consumed => 2,
            Kind::Failed => 4,
            Kind::Retried => 8,
            _ => return true,
        };
        self.listening.load(Ordering::Relaxed) & bit != 0
    }

    fn silent_for(&self) -> Duration {
        if self.pulse.waiting.load(Ordering::Acquire) == 0 {
            self.tell(Topic::Ping, Vec::new(), Vec::new(), String::new());
            return Duration::ZERO;
        }
        lock(&self.pulse.since).elapsed()
    }
}
