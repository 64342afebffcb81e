//! Messages between projects on their way out: who checks and signs them is told here what the publisher does with them.

use std::sync::{Arc, Mutex};

use futures_util::future::BoxFuture;

use super::{Draft, Finished};
use crate::engine::env::lock;
use crate::engine::error::{Error, Result};
use crate::engine::host::Token;
use crate::engine::store::Appended;

/// A message as it was given to the publisher.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// Who waits for it.
    pub token: Token,
    /// Its event type.
    pub event_type: String,
    /// `{ source, target, options? }` as JSON text.
    pub address: String,
    /// The data's JSON text.
    pub data: String,
}

/// A message that may go out.
#[derive(Debug)]
pub struct Parcel {
    /// The project that sends it.
    pub source: Arc<str>,
    /// A copy for each target, at least one.
    pub copies: Vec<Draft>,
}

/// What became of messages that were looked at.
pub struct Prepared {
    /// Those that may go out, in the order in which they were given.
    pub parcels: Vec<(Token, Parcel)>,
    /// The answers to the others, once their refusal is noted.
    pub refused: BoxFuture<'static, Finished>,
}

impl Prepared {
    /// None of them may go out: a defect.
    pub fn none(tokens: Vec<Token>, error: &Error) -> Self {
        let answers: Finished = tokens.into_iter().map(|token| (token, Err(error.clone()))).collect();
        Self { parcels: Vec::new(), refused: Box::pin(async move { answers }) }
    }
}

/// What became of one copy.
#[derive(Clone, Debug)]
pub struct Posted {
    /// Its stream.
    pub stream: Arc<str>,
    /// The message's id.
    pub id: Arc<str>,
    /// The store's answer.
    pub result: Result<Appended>,
}

/// What became of a message.
#[derive(Clone, Debug)]
pub struct Sent {
    /// Who waits for it.
    pub token: Token,
    /// The project that sent it.
    pub source: Arc<str>,
    /// Its copies, in the order of [`Parcel::copies`].
    pub copies: Vec<Posted>,
}

/// Checks and signs messages, and notes what was sent.
pub trait Courier: Send + Sync {
    /// Checks and signs. Called with one batch at a time, so that messages keep their order.
    fn prepare(self: Arc<Self>, messages: Vec<Outgoing>) -> BoxFuture<'static, Prepared>;

    /// The answers to those who wait, once what was sent is noted.
    fn sent(self: Arc<Self>, sent: Vec<Sent>) -> BoxFuture<'static, Finished>;
}

/// One message while its copies are on their way.
#[derive(Debug)]
pub(super) struct OnItsWay {
    token: Token,
    source: Arc<str>,
    copies: Mutex<Copies>,
}

#[derive(Debug)]
struct Copies {
    posted: Vec<Option<Posted>>,
    missing: usize,
}

/// One copy on its way: the message, and which one it is.
#[derive(Clone, Debug)]
pub struct CopyOf(Arc<OnItsWay>, usize);

impl OnItsWay {
    /// The drafts of a message, each knowing whose copy it is.
    pub fn begin(token: Token, parcel: Parcel) -> Vec<Draft> {
        let copies = Mutex::new(Copies { posted: vec![None; parcel.copies.len()], missing: parcel.copies.len() });
        let message = Arc::new(Self { token, source: parcel.source, copies });
        let name = |(i, mut draft): (usize, Draft)| {
            draft.copy = Some(CopyOf(message.clone(), i));
            draft
        };
        parcel.copies.into_iter().enumerate().map(name).collect()
    }
}

impl CopyOf {
    /// Notes what became of it; of the last one, answers what became of the message.
    pub fn posted(&self, posted: Posted) -> Option<Sent> {
        let Self(message, index) = self;
        let mut copies = lock(&message.copies);
        let place = copies.posted.get_mut(*index)?;
        if place.replace(posted).is_none() {
            copies.missing -= 1;
        }
        (copies.missing == 0).then(|| {
            let copies = std::mem::take(&mut copies.posted).into_iter().flatten().collect();
            Sent { token: message.token, source: message.source.clone(), copies }
        })
    }
}
