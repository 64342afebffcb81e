//! What happens to services as events of the bus. Every process of the bus says it, under an idempotency key that they share, so that it is
//! there once, whichever of them lives.

use serde_json::{Value, json};

use super::Shared;
use crate::engine::moment;
use crate::engine::services::view::{Happening, What};

/// Services that came, changed or went.
const CONFIGURATION: &str = "system.configuration_changed";
/// How a service is.
const HEALTH: &str = "system.health_check";
/// What said it.
const COMPONENT: &str = "service-registry";

/// Publishes it.
pub(super) fn announce(shared: &Shared, happening: &Happening) {
    let definition = &happening.service.definition;
    let timestamp = moment::write(shared.store.now_ms());
    let change = match &happening.what {
        What::Registered => "registered",
        What::Updated => "updated",
        What::Unregistered => "unregistered",
        What::Expired => "expired",
        What::HealthChanged { before } => {
            if shared.config.health_monitoring {
                let health = happening.service.health_json();
                let mut data = json!({
                    "component": COMPONENT, "service": definition.name, "status": health["status"], "previousStatus": before.as_str(),
                    "timestamp": timestamp,
                });
                for key in ["responseTime", "error"] {
                    if let Some(value) = health.get(key) {
                        data[key] = value.clone();
                    }
                }
                say(shared, HEALTH, &happening.id, &data);
            }
            return;
        }
    };
    let capabilities: Vec<&str> = definition.capabilities.iter().map(|capability| capability.name.as_str()).collect();
    let service =
        json!({ "name": definition.name, "endpoint": definition.endpoint, "version": definition.version, "capabilities": capabilities });
    let data = json!({ "component": COMPONENT, "change": change, "service": service, "timestamp": timestamp });
    say(shared, CONFIGURATION, &happening.id, &data);
}

fn say(shared: &Shared, event_type: &str, id: &str, data: &Value) {
    // One change may be both: the key is for its type as well.
    let options = json!({ "idempotencyKey": format!("{COMPONENT}:{event_type}:{id}") });
    if let Some(publisher) = shared.publisher.upgrade() {
        publisher.say_with(event_type, &options, data);
    }
}
