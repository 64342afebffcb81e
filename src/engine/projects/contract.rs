//! `CrossProjectEventContract`: what the data of events from one project to others looks like, in one version.

use std::fmt;

use semver::Version;
use serde_json::{Value, json};

use super::schema::Schema;
use crate::engine::error::{Code, Error, Result};
use crate::engine::form::Form;
use crate::engine::moment;
use crate::engine::name;

/// Longest version, bytes.
const VERSION_BYTES_MAX: usize = 128;
/// Longest description, author and tag, bytes.
const TEXT_BYTES_MAX: usize = 4096;

const KEYS: [&str; 7] = ["name", "version", "sourceProject", "targetProjects", "eventTypes", "schema", "metadata"];
const METADATA_KEYS: [&str; 5] = ["description", "author", "createdAt", "updatedAt", "tags"];

/// A contract by name and version, as a message names those that it keeps to: `orders@1.2.0`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Named {
    /// Within its source project.
    pub name: String,
    /// Of the contract.
    pub version: Version,
}

impl Named {
    /// From `name@version`.
    pub fn read(text: &str) -> Option<Self> {
        let (name, version) = text.rsplit_once('@')?;
        Some(Self { name: name.to_owned(), version: Version::parse(version).ok()? })
    }
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.name, self.version)
    }
}

/// What is said about a contract.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// What it is for; may be empty.
    pub description: String,
    /// Who wrote it; may be empty.
    pub author: String,
    /// ms since 1970.
    pub created_at_ms: u64,
    /// ms since 1970.
    pub updated_at_ms: u64,
    /// Free.
    pub tags: Option<Vec<String>>,
}

/// A contract with its compiled schema.
#[derive(Debug)]
pub struct Contract {
    /// Name and version.
    pub named: Named,
    /// The project that sends.
    pub source: String,
    /// The projects that receive; `*`: all.
    pub targets: Vec<String>,
    /// Types and patterns that it is about.
    pub event_types: Vec<String>,
    /// As given.
    pub schema: Value,
    /// As given, with defaults.
    pub about: About,
    compiled: Schema,
}

fn refuse(path: &str, problem: String) -> Error {
    Error::new(Code::ContractInvalid, format!("{path}: {problem}")).with("path", path)
}

impl Contract {
    /// From JSON as JavaScript sends it; `now_ms` where it gives no times.
    ///
    /// `ERR_CONTRACT_INVALID` with `details.path`: `contract.eventTypes[1]`.
    pub fn read(value: Value, now_ms: u64) -> Result<Self> {
        let mut form = Form::open(value, "contract", refuse)?;
        let name = form.name("name")?;
        let version = read_version(&mut form)?;
        let source = form.project("sourceProject")?.ok_or_else(|| form.missing("sourceProject", "a project id"))?;
        let targets = form.projects("targetProjects")?;
        let right = "a list of event types or patterns, at least one";
        let event_types = form.list("eventTypes", 1, right, name::check_pattern)?.ok_or_else(|| form.missing("eventTypes", right))?;
        let schema = form.take("schema").ok_or_else(|| form.missing("schema", "a JSON Schema"))?;
        let about = read_about(form.inner("metadata")?, now_ms)?;
        form.end(&KEYS)?;
        let compiled = Schema::compile(&schema, "contract.schema")?;
        Ok(Self { named: Named { name, version }, source, targets, event_types, schema, about, compiled })
    }

    /// From what [`Contract::to_text`] wrote, perhaps in another process.
    pub fn from_text(text: &str) -> Result<Self> {
        let value = serde_json::from_str(text).map_err(|e| refuse("contract", format!("is no JSON: {e}")))?;
        Self::read(value, 0)
    }

    /// JSON; times are ms since 1970.
    pub fn to_text(&self) -> String {
        self.to_json().to_string()
    }

    /// The contract as it was given, with defaults; times are ms since 1970.
    pub fn to_json(&self) -> Value {
        let mut metadata = json!({
            "description": self.about.description,
            "author": self.about.author,
            "createdAt": self.about.created_at_ms,
            "updatedAt": self.about.updated_at_ms,
        });
        if let Some(tags) = &self.about.tags {
            metadata["tags"] = json!(tags);
        }
        json!({
            "name": self.named.name,
            "version": self.named.version.to_string(),
            "sourceProject": self.source,
            "targetProjects": self.targets,
            "eventTypes": self.event_types,
            "schema": self.schema,
            "metadata": metadata,
        })
    }

    /// Whether it asks the same of the same events: what is said about it does not count.
    pub fn is_same_as(&self, other: &Self) -> bool {
        self.schema == other.schema && self.targets == other.targets && self.event_types == other.event_types
    }

    /// Names it among all contracts: `<source>/<name>@<version>`.
    pub fn id(&self) -> String {
        format!("{}/{}", self.source, self.named)
    }

    /// Whether it is about events of a type from one project to another.
    pub fn applies(&self, source: &str, target: &str, event_type: &str) -> bool {
        self.source == source && self.is_for(target) && self.event_types.iter().any(|pattern| name::matches(pattern, event_type))
    }

    /// Whether a project is among those that receive.
    pub fn is_for(&self, target: &str) -> bool {
        self.targets.iter().any(|project| project == "*" || project == target)
    }

    /// Its schema, compiled.
    pub fn compiled(&self) -> &Schema {
        &self.compiled
    }
}

fn read_version(form: &mut Form) -> Result<Version> {
    let right = "a semantic version, such as '1.0.0'";
    let value = form.take("version").ok_or_else(|| form.missing("version", right))?;
    let text = value.as_str().filter(|text| text.len() <= VERSION_BYTES_MAX);
    text.and_then(|text| Version::parse(text).ok()).ok_or_else(|| form.wrong("version", &value, right))
}

fn read_about(form: Option<Form>, now_ms: u64) -> Result<About> {
    let Some(mut form) = form else {
        return Ok(About { description: String::new(), author: String::new(), created_at_ms: now_ms, updated_at_ms: now_ms, tags: None });
    };
    let time = |form: &mut Form, key: &str| match form.take(key) {
        None => Ok(now_ms),
        Some(value) => moment::read(&value).ok_or_else(|| form.wrong(key, &value, "a Date, ms since 1970 or an ISO 8601 time")),
    };
    let tag = |text: &str| match text.len() {
        0..=TEXT_BYTES_MAX => Ok(()),
        bytes => Err(Error::argument("tag", format!("has {bytes} bytes; it may have {TEXT_BYTES_MAX}"))),
    };
    let about = About {
        description: form.text("description", TEXT_BYTES_MAX)?.unwrap_or_default(),
        author: form.text("author", TEXT_BYTES_MAX)?.unwrap_or_default(),
        created_at_ms: time(&mut form, "createdAt")?,
        updated_at_ms: time(&mut form, "updatedAt")?,
        tags: form.list("tags", 0, "a list of strings", tag)?,
    };
    form.end(&METADATA_KEYS)?;
    Ok(about)
}
