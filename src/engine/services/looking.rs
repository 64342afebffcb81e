//! Reading what changed: when it is announced, when somebody asks, when something is to end, and every second. Whoever reads ends what
//! was not renewed, so that it needs no process of its own.

use std::sync::Arc;
use std::time::Duration;

use super::asking::Asked;
use super::shared::Shared;
use super::view::{Step, View, What};
use crate::engine::env::lock;
use crate::engine::error::Result;
use crate::engine::host::Lifecycle;

/// How often it is looked whether an announcement was missed.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// So much later than something is to end: it has ended then.
const BEHIND: Duration = Duration::from_millis(5);

/// Answers all that asked with one look: one that asks while it is on its way waits for the next.
pub(super) async fn run(shared: Arc<Shared>, mut inbox: Asked) {
    let mut wait = LOOK_EVERY;
    let mut failing = false;
    loop {
        let mut asking = Vec::new();
        match tokio::time::timeout(wait, inbox.recv()).await {
            Ok(None) => return,
            Ok(Some(request)) => asking.push(request),
            Err(_) => {}
        }
        while let Ok(request) = inbox.try_recv() {
            asking.push(request);
        }
        let result = look(&shared).await;
        // Said once an outage: each look that follows would say the same.
        match &result {
            Ok((_, next)) => {
                failing = false;
                wait = *next;
            }
            Err(error) => {
                wait = LOOK_EVERY;
                if !std::mem::replace(&mut failing, true) {
                    shared.host.lifecycle(vec![shared.problem(error)]);
                }
            }
        }
        let result = result.map(|(view, _)| view);
        for answer in asking.into_iter().flatten() {
            let _ = answer.send(result.clone());
        }
    }
}

/// The view now, and how long until something is to be seen to.
async fn look(shared: &Shared) -> Result<(Arc<View>, Duration)> {
    let before = lock(&shared.view).clone();
    let known = if shared.is_in_doubt() { None } else { before.place() };
    let read = shared.store.news(known).await?;
    let now_ms = shared.store.now_ms();
    let next_end_ms = read.next_end_ms;
    let Step { view, happened, problems } = before.after(read, now_ms);
    let lost_ends_ms = view.next_end_ms().map(|at| at.saturating_sub(now_ms));
    let next = next_end_ms.into_iter().chain(lost_ends_ms).min().map(|ms| Duration::from_millis(ms) + BEHIND);
    let view = Arc::new(view);
    *lock(&shared.view) = view.clone();
    if !problems.is_empty() {
        shared.host.lifecycle(problems.into_iter().map(Lifecycle::warn).collect());
    }
    let mut is_gone = shared.held.names().iter().any(|name| view.is_lost(name));
    for happening in &happened {
        is_gone |= shared.held.concerned(happening);
        if matches!(happening.what, What::Registered | What::Updated) {
            lock(&shared.unplanned).insert(happening.service.definition.name.clone());
            shared.came.notify_one();
        }
    }
    if is_gone {
        shared.renewal.notify_one();
    }
    shared.tell(happened);
    Ok((view, next.unwrap_or(LOOK_EVERY).min(LOOK_EVERY)))
}
