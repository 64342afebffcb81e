//! What both stores go by when a group ends.

use super::GroupSpec;
use crate::engine::error::Error;
use crate::engine::name;

impl GroupSpec {
    /// Whether the group ends with its last holder.
    pub fn is_ephemeral(&self) -> bool {
        let options: Result<serde_json::Value, _> = serde_json::from_str(&self.options);
        options.is_ok_and(|options| options["ephemeral"] == true)
    }

    /// Whether it is the group's word on that type.
    pub(super) fn covers(&self, group: &str, event_type: &str) -> bool {
        self.group == group && name::matches(&self.pattern, event_type)
    }
}

/// The error of whoever deletes a group that somebody reads.
pub(super) fn in_use(group: &str, pattern: &str, consumer: &str) -> Error {
    let message = format!(
        "group '{group}' on '{pattern}' has a live consumer, {consumer}: close its subscriptions (a process that was killed counts as \
         alive for a few seconds), then delete it"
    );
    Error::argument("group", message)
}

/// The error of whoever deletes a group from a type that it reads by the pattern of `spec` only.
pub(super) fn by_pattern(event_type: &str, spec: &GroupSpec) -> Error {
    let GroupSpec { group, pattern, .. } = spec;
    let message = format!(
        "group '{group}' reads '{event_type}' by its subscription to '{pattern}': delete it there, with '{pattern}' as the event type"
    );
    Error::argument("eventTypeOrPattern", message).with("pattern", pattern.as_str())
}
