//! Which events a service is sent: those that its capabilities name.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::engine::name;
use crate::engine::services::definition::Definition;

/// Capabilities that the bus knows, and the events they are about.
const KNOWN: [(&str, &[&str]); 4] = [
    ("agent-orchestration", &["agent.*", "orchestration.*"]),
    ("task-management", &["task.*"]),
    ("performance-monitoring", &["performance.*"]),
    ("resource-management", &["resource.*"]),
];

/// Most patterns of one service.
const PATTERNS_MAX: usize = 100;

/// The patterns of events that a service is sent, each once, and what among them cannot be used.
pub fn patterns(definition: &Definition) -> (Vec<String>, Vec<String>) {
    let (mut patterns, mut problems) = (BTreeSet::new(), Vec::new());
    for (i, capability) in definition.capabilities.iter().enumerate() {
        let known = KNOWN.iter().find(|(name, _)| *name == capability.name).map_or(&[][..], |(_, patterns)| *patterns);
        patterns.extend(known.iter().map(|pattern| (*pattern).to_owned()));
        let Some(events) = capability.inputs.as_ref().and_then(|inputs| inputs.get("events")) else { continue };
        let path = format!("capabilities[{i}].inputs.events");
        let Value::Array(events) = events else {
            problems.push(format!("{path} is no list of event types or patterns"));
            continue;
        };
        for (j, event) in events.iter().enumerate() {
            match event.as_str().map(|pattern| name::check_pattern(pattern).map(|()| pattern.to_owned())) {
                Some(Ok(pattern)) => drop(patterns.insert(pattern)),
                Some(Err(error)) => problems.push(format!("{path}[{j}]: {}", error.message)),
                None => problems.push(format!("{path}[{j}] is no event type or pattern")),
            }
        }
    }
    if patterns.len() > PATTERNS_MAX {
        problems.push(format!("names {} patterns of events, of which the first {PATTERNS_MAX} are used", patterns.len()));
    }
    (patterns.into_iter().take(PATTERNS_MAX).collect(), problems)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(capabilities: Value) -> (Vec<String>, Vec<String>) {
        let given = json!({ "name": "s", "endpoint": "http://host", "version": "1.0.0", "capabilities": capabilities });
        patterns(&Definition::read(given, 0, 1).unwrap().definition)
    }

    #[test]
    fn known_capabilities_name_events_and_any_may_name_its_own() {
        let (patterns, problems) = of(json!([
            { "name": "agent-orchestration", "version": "1.0.0" },
            { "name": "task-management", "version": "1.0.0", "inputs": { "events": ["task.*", "order.**"] } },
            { "name": "performance-monitoring", "version": "1.0.0", "inputs": { "other": 1 } },
            { "name": "resource-management", "version": "1.0.0", "inputs": { "events": [] } },
            { "name": "billing", "version": "1.0.0", "inputs": { "events": ["invoice.paid"] } },
            { "name": "idle", "version": "1.0.0" },
        ]));
        assert_eq!(patterns, ["agent.*", "invoice.paid", "orchestration.*", "order.**", "performance.*", "resource.*", "task.*"]);
        assert!(problems.is_empty());
    }

    #[test]
    fn what_is_no_pattern_is_a_problem_and_leaves_the_others() {
        let (patterns, problems) = of(json!([
            { "name": "a", "version": "1.0.0", "inputs": { "events": "order.*" } },
            { "name": "b", "version": "1.0.0", "inputs": { "events": ["a.b*", 5, "@p/x", "order.placed"] } },
        ]));
        assert_eq!(patterns, ["order.placed"]);
        assert_eq!(problems.len(), 4, "{problems:?}");
    }

    #[test]
    fn there_is_a_most() {
        let events: Vec<String> = (0..150).map(|n| format!("e{n}.x")).collect();
        let (patterns, problems) = of(json!([{ "name": "a", "version": "1.0.0", "inputs": { "events": events } }]));
        assert_eq!((patterns.len(), problems.len()), (PATTERNS_MAX, 1));
    }
}
