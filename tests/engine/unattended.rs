//! Groups that nobody reads while events wait for them: said once, by one process, with what can be done.

use ossa::engine::host::Kind;
use serde_json::json;

use crate::support::harness::{Place, TestBus, handle_all, ms};

const MINUTE: u64 = 60_000;

async fn minutes(count: u64) {
    tokio::time::sleep(ms(count * MINUTE)).await;
}

/// The warnings about groups without consumers.
fn warnings(buses: &[&TestBus]) -> Vec<String> {
    let said = buses.iter().flat_map(|bus| bus.host.said(Kind::Log));
    let messages = said.map(|said| said["message"].as_str().unwrap_or_default().to_owned());
    messages.filter(|message| message.contains("no live consumer")).collect()
}

/// A bus that keeps what is published.
async fn lasting(place: &Place) -> TestBus {
    place.bus_with(json!({ "defaults": { "ttl": 86_400 } })).await
}

#[tokio::test(start_paused = true)]
async fn a_group_without_consumers_for_long_is_told_once_an_episode_while_events_wait() {
    let place = Place::new(1);
    let (one, two, consumer) = (lasting(&place).await, lasting(&place).await, lasting(&place).await);
    consumer.subscribe("order.*", json!({ "group": "mailer" })).await;
    one.publish("order.paid", "seen").await;
    // It is held, and not settled, when its process goes.
    consumer.host.next().await;
    consumer.disconnect(ms(0)).await;
    one.publish("order.paid", "missed").await;
    two.publish("order.sent", "missed").await;
    minutes(15).await;
    assert_eq!(warnings(&[&one, &two]), [""; 0], "a deployment may take as long");
    minutes(3).await;
    let said = warnings(&[&one, &two]);
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains("group 'mailer' on 'order.*'") && said[0].contains("3 events wait"), "{said:?}");
    assert!(said[0].contains("deleteGroup('order.*', 'mailer')"), "{said:?}");
    minutes(20).await;
    assert_eq!(warnings(&[&one, &two]).len(), 1, "once is enough");

    // Somebody reads it again, and goes again.
    let back = lasting(&place).await;
    let seen = handle_all(&back);
    back.subscribe("order.*", json!({ "group": "mailer" })).await;
    minutes(1).await;
    assert_eq!(seen.lock().unwrap().len(), 2);
    back.disconnect(ms(100)).await;
    minutes(20).await;
    assert_eq!(warnings(&[&one, &two]).len(), 1, "nothing waits");
    one.publish("order.paid", "missed").await;
    minutes(2).await;
    let said = warnings(&[&one, &two]);
    assert!(said.len() == 2 && said[1].contains("1 event waits"), "{said:?}");

    assert!(one.bus.delete_group("order.*", "mailer").await.unwrap());
    minutes(20).await;
    assert_eq!(warnings(&[&one, &two]).len(), 2);
}

#[tokio::test(start_paused = true)]
async fn groups_that_are_read_or_have_nothing_to_read_are_not_told() {
    let place = Place::new(2);
    let (bus, gone) = (lasting(&place).await, lasting(&place).await);
    // Slow, but alive; waiting for its first event; and one that goes with nothing left, or ends with its consumer.
    bus.subscribe("slow.it", json!({ "group": "slow", "maxUnacknowledged": 1 })).await;
    bus.subscribe("quiet", json!({ "group": "quiet" })).await;
    gone.subscribe("nothing", json!({ "group": "gone" })).await;
    gone.subscribe("slow.it", json!({ "group": "brief", "ephemeral": true })).await;
    // Another subscription of the group covers all that this one did.
    gone.subscribe("slow.it", json!({ "group": "both" })).await;
    bus.subscribe("slow.*", json!({ "group": "both" })).await;
    gone.disconnect(ms(0)).await;
    bus.publish_many("slow.it", 10).await;
    minutes(20).await;
    assert_eq!(warnings(&[&bus]), [""; 0]);
}
