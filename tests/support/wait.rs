//! Waiting for a condition, never for a time.

use std::time::{Duration, Instant};

/// Longest wait for a condition; far above what any of them takes.
const WAIT_MAX: Duration = Duration::from_secs(20);

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Returns once `condition` holds; fails the test when it does not in time.
pub async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !condition().await {
        assert!(start.elapsed() < WAIT_MAX, "still not so after {WAIT_MAX:?}: {what}");
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
