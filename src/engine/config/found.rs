//! One value, where it came from, and its reading as a number, a flag, a text or a secret.

use std::fmt::Display;

use serde_json::Value;

use super::bounds::Range;
use super::secret::Secret;
use crate::engine::error::{Error, Result};

/// Longest text that a message repeats, characters.
const SHOWN_CHARS_MAX: usize = 64;

/// A value of the argument or of the environment.
pub(super) struct Found<'a> {
    pub path: String,
    pub origin: Origin<'a>,
}

/// Where a value came from.
pub(super) enum Origin<'a> {
    Argument(&'a Value),
    Variable { name: &'static str, text: String },
}

impl Found<'_> {
    /// The error for a value that is not `right`; it shows the value.
    pub fn wrong(&self, right: impl Display) -> Error {
        self.error(format!("must be {right}, not {}", self.shown()))
    }

    /// The error for a value that is not `right` and must not be shown.
    pub fn wrong_secret(&self, right: impl Display) -> Error {
        match &self.origin {
            Origin::Argument(value) if !value.is_string() => self.error(format!("must be {right}, not {}", kind(value))),
            _ => self.error(format!("must be {right} (what was given is not shown)")),
        }
    }

    /// An error about this value; names the environment variable it came from.
    pub fn error(&self, problem: impl Display) -> Error {
        match &self.origin {
            Origin::Argument(_) => Error::config(&self.path, problem),
            Origin::Variable { name, .. } => {
                Error::config(&self.path, format!("{problem} (from the environment variable {name})")).with("env", *name)
            }
        }
    }

    /// Whether the program gave it, not the environment.
    pub fn is_argument(&self) -> bool {
        matches!(self.origin, Origin::Argument(_))
    }

    /// A number within `range`.
    pub fn number(&self, range: &Range) -> Result<f64> {
        let number = match &self.origin {
            Origin::Argument(value) => value.as_f64(),
            Origin::Variable { text, .. } => decimal(text.trim()),
        };
        // `+ 0.0` makes 0 of -0.
        number.filter(|number| range.holds(*number)).map(|number| number + 0.0).ok_or_else(|| self.wrong(range))
    }

    /// A whole number within `range`, which `T` can hold.
    pub fn whole<T: TryFrom<u64>>(&self, range: &Range) -> Result<T> {
        debug_assert!(range.whole);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // whole and not negative, by the range
        let number = self.number(range)? as u64;
        T::try_from(number).map_err(|_| self.wrong(range))
    }

    /// `true` or `false`; in the environment also 1/0, yes/no and on/off in any case.
    pub fn flag(&self) -> Result<bool> {
        match &self.origin {
            Origin::Argument(value) => value.as_bool().ok_or_else(|| self.wrong("true or false")),
            Origin::Variable { text, .. } => match text.trim().to_ascii_lowercase().as_str() {
                "true" | "1" | "yes" | "on" => Ok(true),
                "false" | "0" | "no" | "off" => Ok(false),
                _ => Err(self.wrong("true or false (also 1 or 0, yes or no, on or off)")),
            },
        }
    }

    /// A text, whatever is in it; `right` says what it should be.
    pub fn text(&self, right: &str) -> Result<String> {
        match &self.origin {
            Origin::Argument(value) => value.as_str().map(str::to_owned).ok_or_else(|| self.wrong(right)),
            Origin::Variable { text, .. } => Ok(text.trim().to_owned()),
        }
    }

    /// A text that passes `check`.
    pub fn checked(&self, right: &str, check: impl Fn(&str) -> bool) -> Result<String> {
        let text = self.text(right)?;
        if check(&text) { Ok(text) } else { Err(self.wrong(right)) }
    }

    /// A text that no message repeats and nothing trims.
    pub fn secret(&self, right: &str) -> Result<Secret> {
        match &self.origin {
            Origin::Argument(value) => value.as_str().map(Secret::new).ok_or_else(|| self.wrong_secret(right)),
            Origin::Variable { text, .. } => Ok(Secret::new(text.clone())),
        }
    }

    /// One of the named values; in the environment in any case.
    pub fn one_of<T: Copy>(&self, choices: &[(&str, T)]) -> Result<T> {
        let names: Vec<String> = choices.iter().map(|(name, _)| format!("'{name}'")).collect();
        let right = format!("one of {}", names.join(", "));
        let text = self.text(&right)?;
        let is = |name: &str| if self.is_argument() { name == text } else { name.eq_ignore_ascii_case(&text) };
        choices.iter().find(|(name, _)| is(name)).map(|(_, choice)| *choice).ok_or_else(|| self.wrong(right))
    }

    fn shown(&self) -> String {
        match &self.origin {
            Origin::Argument(value) => match value {
                Value::String(text) => quoted(text),
                Value::Number(number) => number.to_string(),
                Value::Bool(flag) => flag.to_string(),
                other => kind(other),
            },
            Origin::Variable { text, .. } => quoted(text.trim()),
        }
    }
}

fn kind(value: &Value) -> String {
    match value {
        Value::Null => "null (leave the key out for the default)".to_owned(),
        Value::Bool(_) => "a boolean".to_owned(),
        Value::Number(_) => "a number".to_owned(),
        Value::String(_) => "a string".to_owned(),
        Value::Array(_) => "an array".to_owned(),
        Value::Object(map) if map.contains_key("$logger") => "a logger".to_owned(),
        Value::Object(_) => {
            invalid_marker(value).map_or_else(|| "an object".to_owned(), |what| what.chars().take(SHOWN_CHARS_MAX).collect())
        }
    }
}

/// `text` for a message. One that may be a URL with a password in it is not repeated.
fn quoted(text: &str) -> String {
    if text.contains('@') {
        return "what was given (not shown: it has an '@' and may hold a password)".to_owned();
    }
    let mut shown: String = text.chars().take(SHOWN_CHARS_MAX).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    format!("{shown:?}")
}

/// Digits with an optional sign, fraction and exponent: what Rust reads as a number, but not "inf" and "nan".
fn decimal(text: &str) -> Option<f64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.starts_with(|c: char| c.is_ascii_digit()) { text.parse().ok() } else { None }
}

/// What a value without JSON form was, as the façade marks it.
pub(super) fn invalid_marker(value: &Value) -> Option<&str> {
    let map = value.as_object().filter(|map| map.len() == 1)?;
    map.get("$invalid").map(|what| what.as_str().unwrap_or("a value without JSON form"))
}
