//! `MessageRoute`: which messages go to other projects by themselves.

use serde_json::{Map, Value, json};

use super::schema::Schema;
use crate::engine::error::{Code, Error, Result};
use crate::engine::form::Form;
use crate::engine::name;

/// Longest tag, bytes.
const TAG_BYTES_MAX: usize = 1024;

/// A route: all that its `match` gives must hold.
#[derive(Debug)]
pub struct Route {
    /// Among all routes.
    pub name: String,
    /// The project that sends; `None`: any.
    pub source: Option<String>,
    /// Types and patterns, of which one must match; `None`: any.
    pub event_types: Option<Vec<String>>,
    /// Tags, of which the event must have one; `None`: any or none.
    pub tags: Option<Vec<String>>,
    /// What the data must be like, as given and compiled.
    pub data: Option<(Value, Schema)>,
    /// The projects that get the message; `*`: all.
    pub targets: Vec<String>,
}

fn refuse(path: &str, problem: String) -> Error {
    Error::argument(path, problem)
}

impl Route {
    /// From JSON as JavaScript sends it. `ERR_INVALID_ARGUMENT` with `details.argument`: `route.match.eventTypes[0]`.
    pub fn read(value: Value) -> Result<Self> {
        let mut form = Form::open(value, "route", refuse)?;
        let name = form.name("name")?;
        let mut matching = form.inner("match")?.ok_or_else(|| form.missing("match", "an object, empty for all messages"))?;
        let tag = |tag: &str| match tag.len() {
            1..=TAG_BYTES_MAX => Ok(()),
            bytes => Err(Error::argument("tag", format!("has {bytes} bytes; it must have 1 to {TAG_BYTES_MAX}"))),
        };
        let route = Self {
            name,
            source: matching.project("sourceProject")?,
            event_types: matching.list("eventTypes", 1, "a list of event types or patterns, at least one", name::check_pattern)?,
            tags: matching.list("tags", 1, "a list of tags, at least one", tag)?,
            data: matching.take("where").map(|schema| compile(schema, &matching.at("where"))).transpose()?,
            targets: form.projects("targets")?,
        };
        matching.end(&["sourceProject", "eventTypes", "tags", "where"])?;
        form.end(&["name", "match", "targets"])?;
        Ok(route)
    }

    /// From what [`Route::to_text`] wrote, perhaps in another process.
    pub fn from_text(text: &str) -> Result<Self> {
        Self::read(serde_json::from_str(text).map_err(|e| refuse("route", format!("is no JSON: {e}")))?)
    }

    /// JSON, as it was given.
    pub fn to_text(&self) -> String {
        let mut matching = Map::new();
        let given = [
            ("sourceProject", self.source.as_ref().map(|source| json!(source))),
            ("eventTypes", self.event_types.as_ref().map(|types| json!(types))),
            ("tags", self.tags.as_ref().map(|tags| json!(tags))),
            ("where", self.data.as_ref().map(|(schema, _)| schema.clone())),
        ];
        matching.extend(given.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))));
        json!({ "name": self.name, "match": matching, "targets": self.targets }).to_string()
    }

    /// Whether a message takes this route. `data` is asked for only where all else holds and the route says what it must be like;
    /// `None`: it cannot be read.
    pub fn takes<'a>(&self, source: &str, event_type: &str, tags: &[String], data: impl FnOnce() -> Option<&'a Value>) -> bool {
        self.source.as_ref().is_none_or(|wanted| wanted == source)
            && self.event_types.as_ref().is_none_or(|patterns| patterns.iter().any(|pattern| name::matches(pattern, event_type)))
            && self.tags.as_ref().is_none_or(|wanted| wanted.iter().any(|tag| tags.contains(tag)))
            && self.data.as_ref().is_none_or(|(_, schema)| data().is_some_and(|data| schema.accepts(data)))
    }
}

fn compile(schema: Value, path: &str) -> Result<(Value, Schema)> {
    match Schema::compile(&schema, path) {
        Ok(compiled) => Ok((schema, compiled)),
        Err(error) => {
            let at = error.details.get("path").cloned().unwrap_or_default();
            Err(Error::new(Code::InvalidArgument, error.message).with("argument", at))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(matching: Value) -> Route {
        Route::read(json!({ "name": "r", "match": matching, "targets": ["b"] })).unwrap()
    }

    fn tags(tags: &[&str]) -> Vec<String> {
        tags.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn all_that_is_given_must_hold() {
        let data = json!({ "amount": 5 });
        for (matching, expected) in [
            (json!({}), true),
            (json!({ "sourceProject": "a" }), true),
            (json!({ "sourceProject": "b" }), false),
            (json!({ "eventTypes": ["x.y", "order.*"] }), true),
            (json!({ "eventTypes": ["order"] }), false),
            (json!({ "tags": ["no", "eu"] }), true),
            (json!({ "tags": ["no"] }), false),
            (json!({ "where": { "properties": { "amount": { "minimum": 5 } } } }), true),
            (json!({ "where": { "properties": { "amount": { "minimum": 6 } } } }), false),
            (json!({ "sourceProject": "a", "eventTypes": ["order.*"], "tags": ["eu"], "where": { "required": ["amount"] } }), true),
            (json!({ "sourceProject": "a", "eventTypes": ["order.*"], "tags": ["us"], "where": { "required": ["amount"] } }), false),
        ] {
            let takes = route(matching.clone()).takes("a", "order.made", &tags(&["eu", "new"]), || Some(&data));
            assert_eq!(takes, expected, "{matching}");
        }
    }

    #[test]
    fn data_is_asked_for_last_and_only_where_it_matters() {
        let unasked = || -> Option<&Value> { panic!("not needed") };
        assert!(route(json!({})).takes("a", "t", &[], unasked));
        assert!(!route(json!({ "tags": ["x"], "where": true })).takes("a", "t", &[], unasked));
        assert!(!route(json!({ "where": true })).takes("a", "t", &[], || None), "data that cannot be read");
    }

    #[test]
    fn wrong_routes_name_their_path() {
        let with = |matching: Value| json!({ "name": "r", "match": matching, "targets": ["b"] });
        for (value, path) in [
            (json!(1), "route"),
            (json!({ "match": {}, "targets": ["b"] }), "route.name"),
            (json!({ "name": "a b", "match": {}, "targets": ["b"] }), "route.name"),
            (json!({ "name": "r", "targets": ["b"] }), "route.match"),
            (json!({ "name": "r", "match": [], "targets": ["b"] }), "route.match"),
            (json!({ "name": "r", "match": {} }), "route.targets"),
            (json!({ "name": "r", "match": {}, "targets": [] }), "route.targets"),
            (json!({ "name": "r", "match": {}, "targets": "b" }), "route.targets"),
            (json!({ "name": "r", "match": {}, "targets": ["b", "c/d"] }), "route.targets[1]"),
            (json!({ "name": "r", "match": {}, "targets": ["b"], "priority": 1 }), "route.priority"),
            (with(json!({ "sourceProject": "a:b" })), "route.match.sourceProject"),
            (with(json!({ "sourceProject": "*" })), "route.match.sourceProject"),
            (with(json!({ "eventTypes": ["a b"] })), "route.match.eventTypes[0]"),
            (with(json!({ "eventTypes": [] })), "route.match.eventTypes"),
            (with(json!({ "tags": ["a", 1] })), "route.match.tags[1]"),
            (with(json!({ "tags": [""] })), "route.match.tags[0]"),
            (with(json!({ "where": 1 })), "route.match.where"),
            (with(json!({ "where": { "properties": { "a": { "type": "text" } } } })), "route.match.where/properties/a/type"),
            (with(json!({ "target": "b" })), "route.match.target"),
        ] {
            let error = Route::read(value.clone()).unwrap_err();
            assert_eq!((error.code, &error.details["argument"]), (Code::InvalidArgument, &json!(path)), "{value}: {error}");
            assert!(error.message.starts_with(path), "{error}");
        }
    }

    #[test]
    fn a_route_survives_being_stored() {
        for matching in [json!({}), json!({ "sourceProject": "a", "eventTypes": ["**"], "tags": ["t"], "where": { "type": "object" } })] {
            let stored = json!({ "name": "team/r:1", "match": matching, "targets": ["*", "b"] });
            let text = Route::read(stored.clone()).unwrap().to_text();
            assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), stored);
            assert_eq!(Route::from_text(&text).unwrap().to_text(), text);
        }
        assert_eq!(Route::from_text("{").unwrap_err().details["argument"], "route");
    }
}
