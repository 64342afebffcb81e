//! `validateProjectSetup`: whether a project can do its work, and what would make it better.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::Projects;
use crate::engine::error::Result;
use crate::engine::name;
use crate::engine::store::Topology;

/// What was found.
#[derive(Default)]
struct Findings {
    errors: Vec<String>,
    warnings: Vec<String>,
    recommendations: Vec<String>,
}

impl Projects {
    /// `{ isValid, errors, warnings, recommendations }`.
    pub async fn validate(&self, id: &str) -> Result<Value> {
        name::check_project("projectId", id)?;
        let view = self.shared.directory.refresh().await?;
        let mut found = Findings::default();
        match view.project(id) {
            None => found.errors.push(format!("the project '{id}' is not registered: call registerProject()")),
            Some(_) => self.look_over(&view, id, &self.shared.store.topology().await?, &mut found),
        }
        let Findings { errors, warnings, recommendations } = found;
        Ok(json!({ "isValid": errors.is_empty(), "errors": errors, "warnings": warnings, "recommendations": recommendations }))
    }

    fn look_over(&self, view: &super::directory::View, id: &str, topology: &Topology, found: &mut Findings) {
        let Some(project) = view.project(id) else { return };
        let secured = self.shared.settings.security_enabled;
        if let Some(key) = project.keys.last() {
            match self.shared.held.signer(id) {
                Some(signer) if signer.public_key().to_text() != key.public => {
                    found.errors.push("its secret was changed since this process registered it: register it with the new one".to_owned());
                }
                Some(_) => {}
                None => found.warnings.push("this process cannot send for it: it did not register it with its secret".to_owned()),
            }
            let believed = view.keys(project, &key.id, self.shared.store.now_ms());
            if secured && !believed.iter().any(|believed| believed.to_text() == key.public) {
                found
                    .errors
                    .push("its key does not follow from the one in crossProject.trustedKeys: its messages are refused here".to_owned());
            }
        } else {
            found.warnings.push("it has no credentials: its messages are not signed, and anybody can send as it".to_owned());
            found.recommendations.push("register it with credentials { apiKey, secret }".to_owned());
        }
        if !secured {
            found.warnings.push("crossProject.securityEnabled is false in this process: it neither signs nor verifies".to_owned());
        }
        if project.allowed_event_types.is_empty() {
            found.warnings.push("allowedEventTypes is empty: it cannot send anything".to_owned());
        }
        if project.allowed_targets.is_empty() {
            found.warnings.push("allowedTargets is empty: it cannot send to anybody".to_owned());
        }
        for target in project.allowed_targets.iter().filter(|target| !target.contains('*')) {
            if view.project(target).is_none() {
                found.warnings.push(format!("allowedTargets names '{target}', which is not registered"));
            } else if !reads(topology, target) {
                found.warnings.push(format!("no process has set up a handler for '{target}', which it may send to"));
            }
        }
        for contract in view.contracts().available(id) {
            for other in contract.targets.iter().chain([&contract.source]) {
                if other != "*" && view.project(other).is_none() {
                    found.warnings.push(format!("the contract '{}' names '{other}', which is not registered", contract.id()));
                }
            }
        }
        let bound: BTreeSet<&str> = view
            .contracts()
            .available(id)
            .filter(|contract| contract.source == id)
            .flat_map(|contract| contract.event_types.iter().map(String::as_str))
            .collect();
        for event_type in &project.allowed_event_types {
            if !bound.iter().any(|pattern| name::overlap(pattern, event_type)) {
                found.recommendations.push(format!("register a contract for '{event_type}': its data is not checked"));
            }
        }
        if project.rate_limiting.is_none() {
            found.recommendations.push("give it rateLimiting { eventsPerSecond, burstLimit }: it may send without bound".to_owned());
        }
        if !reads(topology, id) {
            found.warnings.push("no process has set up a handler for it: what is sent to it waits until its ttl is over".to_owned());
        }
    }
}

/// Whether some group reads messages to the project.
fn reads(topology: &Topology, project: &str) -> bool {
    topology.groups.iter().any(|group| name::address(&group.pattern).is_some_and(|(to, _)| to == project))
}
