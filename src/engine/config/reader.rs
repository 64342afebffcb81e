//! Reading one object of the configuration: known keys only, and every error with the path of its key.

use serde_json::{Map, Value};

use super::bounds::Range;
use super::found::{Found, Origin, invalid_marker};
use super::suggest::closest;
use crate::engine::error::{Error, Result};

/// Looks up an environment variable.
pub type Environment<'e> = dyn Fn(&str) -> Option<String> + 'e;

/// A key, and the environment variable that stands in for it.
#[derive(Clone, Copy)]
pub(super) struct Key {
    name: &'static str,
    variable: Option<&'static str>,
}

impl From<&'static str> for Key {
    fn from(name: &'static str) -> Self {
        Self { name, variable: None }
    }
}

impl From<(&'static str, &'static str)> for Key {
    fn from((name, variable): (&'static str, &'static str)) -> Self {
        Self { name, variable: Some(variable) }
    }
}

/// One object of the argument, where it stands, and the environment behind it.
pub(super) struct Section<'a> {
    path: String,
    map: Option<&'a Map<String, Value>>,
    env: &'a Environment<'a>,
}

impl<'a> Section<'a> {
    /// The argument itself. `misplaced`: keys that belong elsewhere, with the place.
    pub fn root(argument: &'a Value, env: &'a Environment<'a>, known: &[&'static str], misplaced: &[(&str, &str)]) -> Result<Self> {
        let found = Found { path: "config".to_owned(), origin: Origin::Argument(argument) };
        let map = match argument {
            Value::Object(map) if invalid_marker(argument).is_none() => map,
            _ => return Err(found.wrong("an object")),
        };
        if let Some((key, place)) = misplaced.iter().find(|(key, _)| map.contains_key(*key) && !known.iter().any(|k| k == key)) {
            return Err(Error::config(key, format!("is not known here; it belongs to {place}")).with("suggestion", *place));
        }
        let section = Self { path: String::new(), map: Some(map), env };
        section.refuse_unknown(known)?;
        Ok(section)
    }

    /// The object at `key`; an absent one reads like `{}`.
    pub fn child(&self, key: &'static str, known: &[&'static str]) -> Result<Self> {
        self.part(key, self.value(key), known)
    }

    /// `value`, found at `key`, as an object with `known` keys.
    pub fn part(&self, key: &str, value: Option<&'a Value>, known: &[&'static str]) -> Result<Self> {
        let path = self.at(key);
        let map = match value {
            None => None,
            Some(Value::Object(map)) if value.and_then(invalid_marker).is_none() => Some(map),
            Some(other) => return Err(Found { path, origin: Origin::Argument(other) }.wrong("an object")),
        };
        let section = Self { path, map, env: self.env };
        section.refuse_unknown(known)?;
        Ok(section)
    }

    /// `map`, found at `key`, whose keys are free.
    pub fn open(&self, key: &str, map: &'a Map<String, Value>) -> Self {
        Self { path: self.at(key), map: Some(map), env: self.env }
    }

    /// An element of the array at `key`.
    pub fn item(&self, key: &str, index: usize, item: &'a Value) -> Found<'a> {
        Found { path: self.at(&format!("{key}[{index}]")), origin: Origin::Argument(item) }
    }

    /// Path of `key` here.
    pub fn at(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// What the argument says at `key`.
    pub fn value(&self, key: &str) -> Option<&'a Value> {
        self.map.and_then(|map| map.get(key))
    }

    /// All that the argument has here.
    pub fn entries(&self) -> impl Iterator<Item = (&'a String, &'a Value)> + use<'a> {
        self.map.into_iter().flatten()
    }

    /// The argument's value at `key`, else the environment's.
    pub fn find(&self, key: impl Into<Key>) -> Option<Found<'a>> {
        let key = key.into();
        self.argument(key.name).or_else(|| self.variable(key.name, key.variable?))
    }

    /// The argument's value at `key`.
    pub fn argument(&self, key: &str) -> Option<Found<'a>> {
        self.value(key).map(|value| Found { path: self.at(key), origin: Origin::Argument(value) })
    }

    /// The value of the environment variable `name` for `key`, unless it is empty.
    pub fn variable(&self, key: &str, name: &'static str) -> Option<Found<'a>> {
        let text = (self.env)(name).filter(|text| !text.trim().is_empty())?;
        Some(Found { path: self.at(key), origin: Origin::Variable { name, text } })
    }

    fn refuse_unknown(&self, known: &[&'static str]) -> Result<()> {
        let Some((key, _)) = self.entries().find(|(key, _)| !known.contains(&key.as_str())) else {
            return Ok(());
        };
        let shown: String = key.chars().take(64).collect();
        let path = self.at(&shown);
        Err(match closest(key, known) {
            Some(meant) => {
                let meant = self.at(meant);
                Error::config(&path, format!("is not a known key; did you mean {meant}?")).with("suggestion", meant)
            }
            None => Error::config(&path, format!("is not a known key; known here: {}", known.join(", "))),
        })
    }
}

/// Typed reading with a default.
impl Section<'_> {
    /// A whole number.
    pub fn whole<T: TryFrom<u64>>(&self, key: impl Into<Key>, range: &Range, default: T) -> Result<T> {
        self.find(key).map_or(Ok(default), |found| found.whole(range))
    }

    /// A number.
    pub fn number(&self, key: impl Into<Key>, range: &Range, default: f64) -> Result<f64> {
        self.find(key).map_or(Ok(default), |found| found.number(range))
    }

    /// A flag.
    pub fn flag(&self, key: impl Into<Key>, default: bool) -> Result<bool> {
        self.find(key).map_or(Ok(default), |found| found.flag())
    }
}
