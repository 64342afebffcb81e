//! Posting to inboxes, with patience while the server is away.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;

use crate::engine::error::Result;
use crate::engine::store::Store;

/// Pause before what could not be posted is tried again.
const POST_PAUSE: Duration = Duration::from_millis(100);

/// Messages by inbox.
pub type Letters = BTreeMap<String, Vec<String>>;

/// Posts all; tries again for `patience` while the server is away. Answers what became of each inbox.
pub async fn post(store: &Arc<dyn Store>, letters: Letters, patience: Duration) -> BTreeMap<String, Result<()>> {
    let end = Instant::now() + patience;
    let posts = letters.into_iter().map(|(inbox, messages)| async move {
        loop {
            match store.post(&inbox, messages.clone()).await {
                Err(error) if error.retryable && Instant::now() + POST_PAUSE < end => tokio::time::sleep(POST_PAUSE).await,
                result => return (inbox, result),
            }
        }
    });
    join_all(posts).await.into_iter().collect()
}
