//! Events that are not stored: sent to the subscribers of this moment.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use serde_json::json;
use tokio::time::Instant;

use super::Finished;
use crate::engine::env::Env;
use crate::engine::host::{Host, Kind, Lifecycle, Token};
use crate::engine::metrics::Metrics;
use crate::engine::store::{Appended, Bucket, Partition, Store, Transient};
use crate::engine::trace::{self, Open};

/// Who waits, the event's id, the event, and the span of its publishing.
pub type CastOut = (Token, Arc<str>, Transient, Option<Open>);

/// Those that are not sent yet.
pub type Casts = Vec<CastOut>;

/// Sends them, a call for each bucket.
pub fn cast(
    env: &Env,
    store: &Arc<dyn Store>,
    host: &Arc<dyn Host>,
    metrics: &Arc<Metrics>,
    casts: Casts,
) -> Vec<BoxFuture<'static, Finished>> {
    let mut buckets: BTreeMap<Bucket, Casts> = BTreeMap::new();
    for cast in casts {
        buckets.entry(Partition::new(cast.2.event_type.clone(), 0).bucket()).or_default().push(cast);
    }
    let send = |(bucket, casts): (Bucket, Casts)| -> BoxFuture<'static, Finished> {
        let mut events = Vec::with_capacity(casts.len());
        let mut waiting = Vec::with_capacity(casts.len());
        let mut spans = Vec::new();
        for (token, id, event, span) in casts {
            waiting.push((token, id, event.event_type.clone()));
            spans.extend(span);
            events.push(event);
        }
        // A defect of the store costs these events, not the publisher.
        let sent = env.spawn(store.cast(bucket, events));
        let (host, metrics) = (host.clone(), metrics.clone());
        let began = Instant::now();
        Box::pin(async move {
            let result = sent.await.unwrap_or_else(|error| Err(crate::engine::error::Error::internal(error.to_string())));
            for span in spans {
                trace::stored(span, &result.clone().map(|()| Appended::Stored));
            }
            if result.is_ok() {
                metrics.cast(waiting.iter().map(|(_, _, event_type)| event_type), began.elapsed());
                if host.listens(Kind::Published) {
                    let about = |(_, id, event_type): &(Token, Arc<str>, Arc<str>)| {
                        Lifecycle(Kind::Published, json!({ "eventType": &**event_type, "eventId": &**id }))
                    };
                    host.lifecycle(waiting.iter().map(about).collect());
                }
            }
            waiting.into_iter().map(|(token, id, _)| (token, result.clone().map(|()| id.clone()))).collect()
        })
    };
    buckets.into_iter().map(send).collect()
}
