//! JSON Schema, compiled once. Schemas and data come from other projects, so all that either could make slow, deep or large has
//! a bound, and nothing is fetched.

use std::fmt::{self, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use jsonschema::error::ValidationErrorKind;
use jsonschema::{Draft, PatternOptions, ValidationError, Validator};
use serde_json::{Value, json};

use super::metered::{Metered, within_bounds};
use super::nesting::{DEPTH_MAX, depth};
use super::pattern::{PATTERN_BYTES_MAX, Patterns};
use super::places::{self, Flaw, children, escaped};
use crate::engine::error::{Code, Error, Result};
use crate::engine::options::shown;

/// Longest schema, bytes of JSON.
pub const SCHEMA_BYTES_MAX: usize = 256 << 10;
/// Most failures that are told.
const VIOLATIONS_MAX: usize = 100;
/// Longest message of a failure, characters.
const MESSAGE_CHARS_MAX: usize = 200;

/// `$schema` of the drafts that are known, without "http://", "https://" and '#'.
const DRAFTS: [(&str, Draft); 5] = [
    ("json-schema.org/draft-04/schema", Draft::Draft4),
    ("json-schema.org/draft-06/schema", Draft::Draft6),
    ("json-schema.org/draft-07/schema", Draft::Draft7),
    ("json-schema.org/draft/2019-09/schema", Draft::Draft201909),
    ("json-schema.org/draft/2020-12/schema", Draft::Draft202012),
];

/// One place where data is not as a schema says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// JSON pointer into the data; empty: the whole.
    pub path: String,
    /// What is wrong, without the data itself; short.
    pub message: String,
    /// JSON pointer into the schema; empty where no single keyword is to blame.
    pub keyword: String,
}

impl Violation {
    fn whole(message: impl Into<String>) -> Self {
        Self { path: String::new(), message: message.into(), keyword: String::new() }
    }

    fn of(error: &ValidationError<'_>) -> Self {
        let message = short(&error.masked_with("the value"));
        Self { path: error.instance_path().to_string(), message, keyword: error.schema_path().to_string() }
    }

    /// As it stands in `details`.
    pub fn to_json(&self) -> Value {
        json!({ "path": self.path, "message": self.message })
    }
}

/// A compiled schema.
pub struct Schema {
    validator: Validator<Metered>,
    /// States of the regular expressions under `patternProperties`.
    name_states: usize,
}

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Schema").field("draft", &self.validator.draft()).finish_non_exhaustive()
    }
}

impl Schema {
    /// Of drafts 4, 6, 7, 2019-09 or 2020-12, as `$schema` says; without one, 2020-12. Formats are checked. `path` is where it
    /// stands in an argument.
    ///
    /// `ERR_CONTRACT_INVALID` with the place below `path` in `details.path`: it is no schema of its draft, refers to another
    /// document, has a regular expression that takes more than linear time, or is too large.
    pub fn compile(value: &Value, path: &str) -> Result<Self> {
        Self::compile_within(value).map_err(|flaw| {
            let path = format!("{path}{}", flaw.at);
            Error::new(Code::ContractInvalid, format!("{path}: {}", flaw.problem)).with("path", path)
        })
    }

    fn compile_within(value: &Value) -> Result<Self, Flaw> {
        let flaw = |problem: String| Flaw { at: String::new(), problem };
        let text = value.to_string();
        if text.len() > SCHEMA_BYTES_MAX {
            return Err(flaw(format!("has {} bytes; a schema may have {SCHEMA_BYTES_MAX}", text.len())));
        }
        let levels = depth(&text);
        if levels > DEPTH_MAX {
            return Err(flaw(format!("is nested {levels} levels deep; a schema may be {DEPTH_MAX}")));
        }
        if !(value.is_object() || value.is_boolean()) || value.get("$invalid").is_some() {
            return Err(flaw(format!("must be a JSON Schema, an object or a boolean, got {}", shown(value))));
        }
        let draft = draft_of(value, "")?.unwrap_or_default();
        look_through(value, "")?;
        let patterns = Arc::new(Patterns::of(value)?);
        let by_keyword = Arc::clone(&patterns);
        let options = jsonschema::options_for::<Metered>()
            .with_draft(draft)
            .should_validate_formats(true)
            .with_pattern_options(PatternOptions::regex().size_limit(PATTERN_BYTES_MAX).dfa_size_limit(PATTERN_BYTES_MAX))
            .with_keyword("pattern", move |_, value, at| by_keyword.keyword(value, &at))
            .offline();
        match catch_unwind(AssertUnwindSafe(|| options.build(value))) {
            Ok(Ok(validator)) => places::check(value, draft).map(|()| Self { validator, name_states: patterns.name_states() }),
            Ok(Err(error)) => Err(flaw_of(&error, value, draft, &patterns)),
            Err(_) => Err(flaw("cannot be compiled: a defect of this library. Please report it".to_owned())),
        }
    }

    fn within_bounds<T>(&self, check: impl FnOnce() -> T) -> Option<T> {
        within_bounds(self.name_states, check)
    }

    /// Whether data is as the schema says; not, when that costs too much to find out.
    pub fn accepts(&self, data: &Value) -> bool {
        self.within_bounds(|| self.validator.is_valid(data)) == Some(true)
    }

    /// Where data is not as the schema says: up to 100 places, then how many there are beside them. Empty: it is.
    pub fn check(&self, data: &Value) -> Vec<Violation> {
        match self.within_bounds(|| self.validator.is_valid(data)) {
            Some(true) => return Vec::new(),
            Some(false) => {}
            None => return vec![Violation::whole("is too large or too deep to be checked by this schema")],
        }
        self.within_bounds(|| told(self.validator.iter_errors(data)))
            .or_else(|| {
                let first = self.within_bounds(|| self.validator.validate(data).err().map(|error| Violation::of(&error)))??;
                Some(vec![first, Violation::whole("and more, too many to list")])
            })
            .unwrap_or_else(|| vec![Violation::whole("is not as the schema says, in more ways than can be listed")])
    }
}

/// The draft that `$schema` names; `None`: there is no `$schema`.
fn draft_of(schema: &Value, at: &str) -> Result<Option<Draft>, Flaw> {
    let Some(named) = schema.get("$schema") else { return Ok(None) };
    let text = named.as_str().unwrap_or_default();
    let bare = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).map(|rest| rest.strip_suffix('#').unwrap_or(rest));
    if let Some((_, draft)) = DRAFTS.iter().find(|(uri, _)| bare == Some(*uri)) {
        return Ok(Some(*draft));
    }
    let known: Vec<_> = DRAFTS.iter().map(|(uri, _)| format!("'https://{uri}'")).collect();
    Err(Flaw { at: format!("{at}/$schema"), problem: format!("must be one of {}, got {}", known.join(", "), shown(named)) })
}

/// Refuses unknown drafts of subschemas.
fn look_through(schema: &Value, at: &str) -> Result<(), Flaw> {
    draft_of(schema, at)?;
    children(schema, at).into_iter().try_for_each(|child| look_through(child.schema, &child.at))
}

/// What the compiler refused, and where.
fn flaw_of(error: &ValidationError<'_>, schema: &Value, draft: Draft, patterns: &Patterns) -> Flaw {
    let at = error.instance_path().to_string();
    if let Some(flaw) = patterns.refused() {
        return flaw;
    }
    let pattern_of = |error: &ValidationError<'_>| match error.kind() {
        ValidationErrorKind::Format { format } if format == "regex" => error.instance().as_str().map(ToOwned::to_owned),
        _ => None,
    };
    match error.kind() {
        // It does not say where the reference stands.
        ValidationErrorKind::Referencing(_) => match places::check(schema, draft) {
            Err(flaw) => flaw,
            Ok(()) => Flaw { at, problem: short(error) },
        },
        ValidationErrorKind::PropertyNames { error: of_name } if pattern_of(of_name).is_some() => {
            let name = pattern_of(of_name).unwrap_or_default();
            Flaw { at: format!("{at}/{}", escaped(&name)), problem: patterns.problem_of(&name) }
        }
        _ => match pattern_of(error) {
            Some(pattern) => Flaw { at, problem: patterns.problem_of(&pattern) },
            None => Flaw { at, problem: short(error) },
        },
    }
}

fn told<'a>(errors: impl Iterator<Item = ValidationError<'a>>) -> Vec<Violation> {
    let (mut out, mut more) = (Vec::new(), 0_usize);
    for error in errors {
        tell(&error, &mut out, &mut more);
    }
    if more > 0 {
        out.push(Violation::whole(format!("and {more} more")));
    }
    out
}

/// Adds a failure, and of a union that took none of its branches also why the nearest did not fit.
fn tell(error: &ValidationError<'_>, out: &mut Vec<Violation>, more: &mut usize) {
    if out.len() >= VIOLATIONS_MAX {
        *more += 1;
        return;
    }
    let violation = Violation::of(error);
    if !out.contains(&violation) {
        out.push(violation);
    }
    let (ValidationErrorKind::AnyOf { context } | ValidationErrorKind::OneOfNotValid { context }) = error.kind() else { return };
    let here = error.instance_path();
    // The fewest failures of the value itself, those of its type before others, then the fewest in all.
    let distance = |branch: &&Vec<ValidationError<'_>>| {
        let own = branch.iter().filter(|e| e.instance_path() == here);
        let of_type = own.clone().filter(|e| matches!(e.kind(), ValidationErrorKind::Type { .. })).count();
        (of_type, own.count(), branch.len())
    };
    for error in context.iter().filter(|branch| !branch.is_empty()).min_by_key(distance).into_iter().flatten() {
        tell(error, out, more);
    }
}

/// The beginning of what is said.
fn short(what: &dyn fmt::Display) -> String {
    struct Short {
        text: String,
        left: usize,
    }
    impl fmt::Write for Short {
        fn write_str(&mut self, part: &str) -> fmt::Result {
            for char in part.chars() {
                if self.left == 0 {
                    self.text.push('…');
                    return Err(fmt::Error);
                }
                self.text.push(char);
                self.left -= 1;
            }
            Ok(())
        }
    }
    let mut out = Short { text: String::new(), left: MESSAGE_CHARS_MAX };
    // An error says that it was cut.
    let _ = write!(out, "{what}");
    out.text
}

#[cfg(test)]
mod tests;
