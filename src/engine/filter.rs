//! `SubscriptionOptions.filter`: which events a handler sees.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::event::{MetaView, Priority};

/// What an event has to have; all that is given holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Filter {
    /// One of these sources.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub source: Vec<String>,
    /// One of these tags.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// One of these priorities.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub priority: Vec<Priority>,
    /// All of these headers.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
}

/// Metadata that only filters ask for: read for groups that have one.
#[derive(Debug, Default, Deserialize)]
pub struct Labels<'a> {
    #[serde(borrow, default)]
    tags: Vec<Cow<'a, str>>,
    #[serde(borrow, default)]
    headers: BTreeMap<Cow<'a, str>, Cow<'a, str>>,
}

impl<'a> Labels<'a> {
    /// Of packed metadata; what is not readable is not there.
    pub fn read(meta: &'a str) -> Self {
        serde_json::from_str(meta).unwrap_or_default()
    }
}

impl Filter {
    /// Whether an event passes.
    pub fn takes(&self, meta: &MetaView<'_>, labels: &Labels<'_>) -> bool {
        let one_of = |wanted: &[String], is: &dyn Fn(&str) -> bool| wanted.is_empty() || wanted.iter().any(|text| is(text));
        one_of(&self.source, &|source| meta.source == source)
            && one_of(&self.tags, &|tag| labels.tags.iter().any(|has| has == tag))
            && (self.priority.is_empty() || self.priority.contains(&meta.priority))
            && self.headers.iter().all(|(name, value)| labels.headers.get(name.as_str()).is_some_and(|has| has == value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const META: &str = concat!(
        r#"{"v":1,"id":"i","timestamp":1,"source":"svc","version":"1.0.0","priority":"high","#,
        r#""tags":["a","b\"c"],"headers":{"h":"1","k":"2"}}"#
    );

    fn takes(filter: &Filter) -> bool {
        filter.takes(&MetaView::read(META.as_bytes()).unwrap(), &Labels::read(META))
    }

    #[test]
    fn one_of_each_list_and_all_headers() {
        let list = |texts: &[&str]| texts.iter().map(ToString::to_string).collect::<Vec<_>>();
        let headers = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect::<BTreeMap<_, _>>();
        for (filter, expected) in [
            (Filter::default(), true),
            (Filter { source: list(&["other", "svc"]), ..Filter::default() }, true),
            (Filter { source: list(&["other"]), ..Filter::default() }, false),
            (Filter { tags: list(&["x", "b\"c"]), ..Filter::default() }, true),
            (Filter { tags: list(&["x"]), ..Filter::default() }, false),
            (Filter { priority: vec![Priority::Low, Priority::High], ..Filter::default() }, true),
            (Filter { priority: vec![Priority::Normal], ..Filter::default() }, false),
            (Filter { headers: headers(&[("h", "1"), ("k", "2")]), ..Filter::default() }, true),
            (Filter { headers: headers(&[("h", "1"), ("k", "3")]), ..Filter::default() }, false),
            (Filter { headers: headers(&[("z", "1")]), ..Filter::default() }, false),
            (Filter { source: list(&["svc"]), tags: list(&["x"]), ..Filter::default() }, false),
        ] {
            assert_eq!(takes(&filter), expected, "{filter:?}");
        }
    }

    #[test]
    fn an_event_without_labels_has_none() {
        let meta = r#"{"v":1,"id":"i","timestamp":1,"source":"svc"}"#;
        let view = MetaView::read(meta.as_bytes()).unwrap();
        assert!(!Filter { tags: vec!["a".into()], ..Filter::default() }.takes(&view, &Labels::read(meta)));
        assert!(Filter { priority: vec![Priority::Normal], ..Filter::default() }.takes(&view, &Labels::read(meta)));
    }
}
