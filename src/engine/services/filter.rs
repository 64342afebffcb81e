//! `ServiceDiscoveryFilter`: which services are looked for.

use globset::{GlobBuilder, GlobMatcher};
use nodejs_semver::{Range, Version};
use serde_json::Value;

use super::health::Status;
use super::service::Service;
use crate::engine::error::{Error, Result};
use crate::engine::form::Form;

/// Longest glob, range and name, bytes.
const TEXT_BYTES_MAX: usize = 1024;

const KEYS: [&str; 6] = ["namePattern", "capability", "healthStatus", "tags", "version", "environment"];

/// All that is given must hold.
#[derive(Debug, Default)]
pub struct Filter {
    name: Option<GlobMatcher>,
    capability: Option<String>,
    status: Option<Status>,
    tags: Option<Vec<String>>,
    version: Option<Range>,
    environment: Option<String>,
}

fn refuse(path: &str, problem: String) -> Error {
    Error::argument(path, problem)
}

impl Filter {
    /// From JSON as JavaScript sends it; null: everything.
    ///
    /// `ERR_INVALID_ARGUMENT` with `details.argument`: `filter.version`.
    pub fn read(value: Value) -> Result<Self> {
        if value.is_null() {
            return Ok(Self::default());
        }
        let mut form = Form::open(value, "filter", refuse)?;
        let name = form.text("namePattern", TEXT_BYTES_MAX)?.map(|pattern| {
            let glob = GlobBuilder::new(&pattern).backslash_escape(true).build();
            let problem = |error: globset::Error| {
                refuse("filter.namePattern", format!("{pattern:?} is no glob ({}); use * ? [ab] {{a,b}}", error.kind()))
            };
            glob.map(|glob| glob.compile_matcher()).map_err(problem)
        });
        let version = form.text("version", TEXT_BYTES_MAX)?.map(|range| {
            let problem = |_| {
                refuse("filter.version", format!("{range:?} is no range of versions; write one as npm does: '^1.2.0', '>=1 <3', '1.x'"))
            };
            range.parse::<Range>().map_err(problem)
        });
        let names = "one of 'healthy', 'unhealthy', 'degraded', 'unknown', 'maintenance'";
        let status = form
            .take("healthStatus")
            .map(|value| value.as_str().and_then(Status::named).ok_or_else(|| form.wrong("healthStatus", &value, names)));
        let filter = Self {
            name: name.transpose()?,
            capability: form.text("capability", TEXT_BYTES_MAX)?,
            status: status.transpose()?,
            tags: form.list("tags", 0, "a list of strings", |_| Ok(()))?.filter(|tags| !tags.is_empty()),
            version: version.transpose()?,
            environment: form.text("environment", TEXT_BYTES_MAX)?,
        };
        form.end(&KEYS)?;
        Ok(filter)
    }

    /// Whether a service is one of those looked for.
    pub fn passes(&self, service: &Service) -> bool {
        let definition = &service.definition;
        let metadata = definition.metadata.as_ref();
        let has_tag = |wanted: &Vec<String>| {
            let tags = metadata.and_then(|metadata| metadata.tags.as_ref());
            tags.is_some_and(|tags| wanted.iter().any(|tag| tags.contains(tag)))
        };
        let is_in = |range: &Range| definition.version.parse::<Version>().is_ok_and(|version| range.satisfies(&version));
        self.name.as_ref().is_none_or(|glob| glob.is_match(&definition.name))
            && self.capability.as_ref().is_none_or(|name| definition.capabilities.iter().any(|capability| capability.name == *name))
            && self.status.is_none_or(|status| service.health.status() == status)
            && self.tags.as_ref().is_none_or(has_tag)
            && self.version.as_ref().is_none_or(is_in)
            && self.environment.as_ref().is_none_or(|name| metadata.and_then(|metadata| metadata.environment.as_ref()) == Some(name))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::definition::Definition;
    use super::super::health::Health;
    use super::*;

    fn service() -> Service {
        let given = json!({
            "name": "orders-eu.v2", "endpoint": "http://host", "version": "1.4.2",
            "capabilities": [{ "name": "billing", "version": "1.0.0" }],
            "metadata": { "tags": ["eu", "paid"], "environment": "production" },
        });
        let health = Health::read(json!({ "status": "degraded" }), "health", 0, None).unwrap();
        Service::new(Definition::read(given, 0, 1).unwrap().definition, health)
    }

    #[test]
    fn each_condition_holds_or_not() {
        for (filter, passes) in [
            (json!(null), true),
            (json!({}), true),
            (json!({ "namePattern": "orders-*" }), true),
            (json!({ "namePattern": "orders" }), false),
            (json!({ "namePattern": "*.v?" }), true),
            (json!({ "namePattern": "{orders,users}-[a-e]u.*" }), true),
            (json!({ "capability": "billing" }), true),
            (json!({ "capability": "bill" }), false),
            (json!({ "healthStatus": "degraded" }), true),
            (json!({ "healthStatus": "healthy" }), false),
            (json!({ "tags": ["us", "eu"] }), true),
            (json!({ "tags": ["us"] }), false),
            (json!({ "tags": [] }), true),
            (json!({ "version": "^1.2.0" }), true),
            (json!({ "version": ">=1 <1.4" }), false),
            (json!({ "version": "1.x || 3.x" }), true),
            (json!({ "version": "1.4.2" }), true),
            (json!({ "version": "1.4.1" }), false),
            (json!({ "version": "*" }), true),
            (json!({ "environment": "production" }), true),
            (json!({ "environment": "Production" }), false),
            (json!({ "namePattern": "orders-*", "tags": ["eu"], "version": "~1.4", "capability": "billing" }), true),
            (json!({ "namePattern": "orders-*", "tags": ["us"] }), false),
        ] {
            assert_eq!(Filter::read(filter.clone()).unwrap().passes(&service()), passes, "{filter}");
        }
    }

    #[test]
    fn a_prerelease_is_in_a_range_only_where_the_range_names_one() {
        let mut service = service();
        service.definition.version = "2.0.0-beta.1".to_owned();
        let passes = |range: &str| Filter::read(json!({ "version": range })).unwrap().passes(&service);
        assert_eq!([passes(">=1.0.0"), passes("^2.0.0-alpha"), passes("2.0.0-beta.1")], [false, true, true]);
    }

    #[test]
    fn a_filter_that_is_wrong_is_refused_with_its_key() {
        for (filter, argument) in [
            (json!("orders"), "filter"),
            (json!({ "namePattern": "[" }), "filter.namePattern"),
            (json!({ "namePattern": 5 }), "filter.namePattern"),
            (json!({ "healthStatus": "ok" }), "filter.healthStatus"),
            (json!({ "tags": "eu" }), "filter.tags"),
            (json!({ "version": "newest" }), "filter.version"),
            (json!({ "name": "orders" }), "filter.name"),
        ] {
            assert_eq!(Filter::read(filter.clone()).unwrap_err().details["argument"], argument, "{filter}");
        }
    }
}
