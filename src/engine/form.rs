//! What a caller describes, such as a project or a service, as it comes: objects of which every key is known and every value is
//! what it must be.

use serde_json::{Map, Value};

use crate::engine::error::{Error, Result};
use crate::engine::name::{PROJECT_RULE, check_project};
use crate::engine::options::shown;

/// Longest name of a contract or route, bytes.
const NAME_BYTES_MAX: usize = 128;
/// Most entries of a list.
const ENTRIES_MAX: usize = 1000;

/// Makes the error for what is wrong at a path.
pub type Refuse = fn(&str, String) -> Error;

/// Keys of an object, taken one by one; what is left over is unknown.
pub struct Form {
    map: Map<String, Value>,
    path: String,
    refuse: Refuse,
    /// Whether errors show what was given. Not where secrets are near: one may be in the wrong place.
    shows: bool,
}

impl Form {
    /// An object, found at `path`.
    pub fn open(value: Value, path: &str, refuse: Refuse) -> Result<Self> {
        Self::read(value, path, refuse, true)
    }

    /// One whose errors show nothing of what was given.
    pub fn open_beside_secrets(value: Value, path: &str, refuse: Refuse) -> Result<Self> {
        Self::read(value, path, refuse, false)
    }

    fn read(value: Value, path: &str, refuse: Refuse, shows: bool) -> Result<Self> {
        match value {
            Value::Object(map) if !map.contains_key("$invalid") => Ok(Self { map, path: path.to_owned(), refuse, shows }),
            other => Err(refuse(path, Self::problem("an object", &other, shows))),
        }
    }

    fn problem(right: &str, value: &Value, shows: bool) -> String {
        if shows { format!("must be {right}, got {}", shown(value)) } else { format!("must be {right}") }
    }

    /// An object within; `None`: it is not there.
    pub fn inner(&mut self, key: &str) -> Result<Option<Self>> {
        self.take(key).map(|value| Self::read(value, &self.at(key), self.refuse, self.shows)).transpose()
    }

    /// The path of a key.
    pub fn at(&self, key: &str) -> String {
        format!("{}.{key}", self.path)
    }

    /// What is given for a key.
    pub fn take(&mut self, key: &str) -> Option<Value> {
        self.map.remove(key)
    }

    /// The error for a key that is not there.
    pub fn missing(&self, key: &str, right: &str) -> Error {
        (self.refuse)(&self.at(key), format!("is missing; it must be {right}"))
    }

    /// The error for what is given for a key.
    pub fn wrong(&self, key: &str, value: &Value, right: &str) -> Error {
        (self.refuse)(&self.at(key), Self::problem(right, value, self.shows))
    }

    /// A name: 1 to 128 of a few characters, none of them '@'.
    pub fn name(&mut self, key: &str) -> Result<String> {
        let right = "1 to 128 of the characters A-Z a-z 0-9 _ . : / -";
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b':' | b'/' | b'-');
        match self.take(key) {
            None => Err(self.missing(key, right)),
            Some(Value::String(name)) if !name.is_empty() && name.len() <= NAME_BYTES_MAX && name.bytes().all(allowed) => Ok(name),
            Some(other) => Err(self.wrong(key, &other, right)),
        }
    }

    /// A text of at most so many bytes, perhaps none.
    pub fn text(&mut self, key: &str, bytes_max: usize) -> Result<Option<String>> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::String(text)) if text.len() <= bytes_max => Ok(Some(text)),
            Some(other) => Err(self.wrong(key, &other, &format!("a string of at most {bytes_max} bytes"))),
        }
    }

    /// A project id.
    pub fn project(&mut self, key: &str) -> Result<Option<String>> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::String(id)) => match check_project("project", &id) {
                Ok(()) => Ok(Some(id)),
                Err(error) if self.shows => Err((self.refuse)(&self.at(key), problem_of(&error))),
                Err(_) => Err((self.refuse)(&self.at(key), format!("must be a project id: {PROJECT_RULE}"))),
            },
            Some(other) => Err(self.wrong(key, &other, "a project id")),
        }
    }

    /// Project ids, at least one; `*` stands for all.
    pub fn projects(&mut self, key: &str) -> Result<Vec<String>> {
        let right = "a list of project ids, or of '*' for all; at least one";
        let check = |id: &str| if id == "*" { Ok(()) } else { check_project("project", id) };
        self.list(key, 1, right, check)?.ok_or_else(|| self.missing(key, right))
    }

    /// A list of texts that are right by `check`, at least so many; `None`: it is not there.
    pub fn list(&mut self, key: &str, least: usize, right: &str, check: impl Fn(&str) -> Result<()>) -> Result<Option<Vec<String>>> {
        let items = match self.take(key) {
            None => return Ok(None),
            Some(Value::Array(items)) if items.len() > ENTRIES_MAX => {
                let problem = format!("has {} entries; it may have {ENTRIES_MAX}", items.len());
                return Err((self.refuse)(&self.at(key), problem));
            }
            Some(Value::Array(items)) if items.len() >= least => items,
            Some(other) => return Err(self.wrong(key, &other, right)),
        };
        let mut texts = Vec::with_capacity(items.len());
        for (i, item) in items.into_iter().enumerate() {
            let entry = format!("{key}[{i}]");
            match item {
                Value::String(text) => match check(&text) {
                    Ok(()) => texts.push(text),
                    Err(error) => return Err((self.refuse)(&self.at(&entry), problem_of(&error))),
                },
                other => return Err(self.wrong(&entry, &other, "a string")),
            }
        }
        Ok(Some(texts))
    }

    /// Nothing else may be there.
    pub fn end(self, known: &[&str]) -> Result<()> {
        match self.map.keys().next() {
            None => Ok(()),
            Some(key) => {
                let shown: String = key.chars().take(64).collect();
                Err((self.refuse)(&self.at(&shown), format!("is not known here; known are {}", known.join(", "))))
            }
        }
    }
}

/// What an error says, without the argument that its message begins with.
fn problem_of(error: &Error) -> String {
    let argument = error.details.get("argument").and_then(Value::as_str).unwrap_or_default();
    error.message.strip_prefix(argument).and_then(|rest| rest.strip_prefix(": ")).unwrap_or(&error.message).to_owned()
}
