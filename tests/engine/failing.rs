//! What becomes of deliveries that fail.
use crate::support::harness::Place;
#[tokio::test(start_paused = true)]
async fn x() {
    Place::new(1).bus().await;
}
