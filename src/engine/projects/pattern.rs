//! Regular expressions of schemas. The engine is linear in the text, but each byte may have to be tried in every state of the
//! expression, so both are counted.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use jsonschema::json::Node;
use jsonschema::paths::Location;
use jsonschema::{Keyword, ValidationError};
use jsonschema_regex::{RepeatedClass, Search};
use regex::Regex;
use regex_syntax::hir::{Class, Hir, HirKind};
use serde_json::Value;

use super::metered::{BYTES_A_COST, Metered, spend_many};
use super::places::{Flaw, escaped};

/// Largest compiled regular expression, bytes; also of what matching it keeps.
pub(super) const PATTERN_BYTES_MAX: usize = 8 << 20;
/// Most ranges of characters in all regular expressions of a schema, each as often as it is repeated; one takes about 80 bytes.
const RANGES_MAX: usize = 200_000;
/// Longest pattern that a failure tells, characters.
const TOLD_CHARS_MAX: usize = 100;

/// What compiling a regular expression takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Weight {
    /// Characters or classes of them that a text is matched with, one after or beside the other.
    states: usize,
    /// Ranges of characters in them.
    ranges: usize,
}

impl Weight {
    fn plus(self, other: Self) -> Self {
        Self { states: self.states.saturating_add(other.states), ranges: self.ranges.saturating_add(other.ranges) }
    }

    fn of(hir: &Hir) -> Self {
        match hir.kind() {
            HirKind::Empty | HirKind::Look(_) => Self::default(),
            HirKind::Literal(literal) => Self { states: literal.0.len(), ranges: literal.0.len() },
            HirKind::Class(Class::Unicode(class)) => Self { states: 1, ranges: class.ranges().len() },
            HirKind::Class(Class::Bytes(class)) => Self { states: 1, ranges: class.ranges().len() },
            HirKind::Repetition(repetition) => {
                let times = repetition.max.unwrap_or(repetition.min.saturating_add(1)).max(1) as usize;
                let once = Self::of(&repetition.sub);
                Self { states: once.states.saturating_mul(times), ranges: once.ranges.saturating_mul(times) }
            }
            HirKind::Capture(capture) => Self::of(&capture.sub),
            HirKind::Concat(parts) | HirKind::Alternation(parts) => parts.iter().map(Self::of).fold(Self::default(), Self::plus),
        }
    }
}

#[derive(Clone, Debug)]
enum Matcher {
    /// One class, so many times: its characters are counted.
    Repeated(RepeatedClass),
    Regex(Regex),
}

/// A compiled pattern.
#[derive(Clone, Debug)]
struct Pattern {
    text: String,
    matcher: Matcher,
    weight: Weight,
}

impl Pattern {
    /// As ECMA-262 means it. The error says why it is none that can be matched in linear time.
    fn compile(text: &str) -> Result<Self, String> {
        let why = |problem: &str| format!("is no regular expression that is matched in linear time: {problem}");
        let translated = jsonschema_regex::to_rust_regex(text).map_err(|()| match Regex::new(text) {
            Err(error) => why(&last_line(&error.to_string())),
            Ok(_) => why("its syntax is not that of ECMA-262"),
        })?;
        let searched = match jsonschema_regex::search_form(text, &translated) {
            Some(Search::RepeatedClass(class)) => {
                let weight = Weight { states: 1, ranges: 1 };
                return Ok(Self { text: text.to_owned(), matcher: Matcher::Repeated(class), weight });
            }
            Some(Search::Collapsed(collapsed)) => collapsed,
            None => translated.into_owned(),
        };
        let hir = regex_syntax::parse(&searched).map_err(|e| why(&last_line(&e.to_string())))?;
        let weight = Weight::of(&hir);
        if weight.ranges > RANGES_MAX {
            return Err("is too large: of counted repetitions, each counts as many times as it may repeat".to_owned());
        }
        let builder = regex::RegexBuilder::new(&searched).size_limit(PATTERN_BYTES_MAX).dfa_size_limit(PATTERN_BYTES_MAX).build();
        let regex = builder.map_err(|e| why(&last_line(&e.to_string())))?;
        Ok(Self { text: text.to_owned(), matcher: Matcher::Regex(regex), weight })
    }

    /// Whether it is found in a text.
    fn is_in(&self, text: &str) -> bool {
        spend_many(text.len().saturating_mul(self.weight.states.max(1)) / BYTES_A_COST);
        match &self.matcher {
            Matcher::Repeated(class) => class.is_match(text),
            Matcher::Regex(regex) => regex.is_match(text),
        }
    }
}

/// The engine shows the expression and points into it; what is wrong stands in the last line.
fn last_line(text: &str) -> String {
    text.lines().last().unwrap_or_default().trim().trim_start_matches("error: ").to_owned()
}

impl<'i> Keyword<'i, Metered> for Pattern {
    fn validate(&self, data: &'i Value) -> Result<(), ValidationError<'i>> {
        if Keyword::is_valid(self, data) {
            return Ok(());
        }
        let told: String = self.text.chars().take(TOLD_CHARS_MAX).collect();
        Err(ValidationError::custom(format!("the value does not match \"{told}\"")))
    }

    fn is_valid(&self, data: &'i Value) -> bool {
        Node::<Metered>::as_string(&data).is_none_or(|text| self.is_in(&text))
    }
}

/// All patterns of a schema, by their text.
pub(super) struct Patterns {
    compiled: HashMap<String, Result<Pattern, String>>,
    name_states: usize,
    refused: Mutex<Option<Flaw>>,
}

impl Patterns {
    /// Compiles all that may be a pattern, wherever it stands: references can make a schema of any part.
    pub(super) fn of(schema: &Value) -> Result<Self, Flaw> {
        let mut patterns = Self { compiled: HashMap::new(), name_states: 0, refused: Mutex::new(None) };
        let mut ranges = 0;
        patterns.gather(schema, "", &mut ranges)?;
        Ok(patterns)
    }

    fn gather(&mut self, value: &Value, at: &str, ranges: &mut usize) -> Result<(), Flaw> {
        match value {
            Value::Array(items) => items.iter().enumerate().try_for_each(|(i, item)| self.gather(item, &format!("{at}/{i}"), ranges)),
            Value::Object(members) => {
                if let Some(Value::String(text)) = members.get("pattern") {
                    self.add(text, &format!("{at}/pattern"), ranges)?;
                }
                if let Some(Value::Object(by_pattern)) = members.get("patternProperties") {
                    for text in by_pattern.keys() {
                        let states = self.add(text, &format!("{at}/patternProperties/{}", escaped(text)), ranges)?;
                        self.name_states = self.name_states.saturating_add(states);
                    }
                }
                members.iter().try_for_each(|(name, inner)| self.gather(inner, &format!("{at}/{}", escaped(name)), ranges))
            }
            _ => Ok(()),
        }
    }

    /// States of a pattern. What is none is refused when it turns out to be used as one.
    fn add(&mut self, text: &str, at: &str, ranges: &mut usize) -> Result<usize, Flaw> {
        if !self.compiled.contains_key(text) {
            let pattern = Pattern::compile(text);
            *ranges += pattern.as_ref().map_or(0, |pattern| pattern.weight.ranges);
            if *ranges > RANGES_MAX {
                return Err(Flaw { at: at.to_owned(), problem: "is where the patterns become too large together".to_owned() });
            }
            self.compiled.insert(text.to_owned(), pattern);
        }
        Ok(self.compiled.get(text).and_then(|pattern| pattern.as_ref().ok()).map_or(0, |pattern| pattern.weight.states.max(1)))
    }

    /// States of all patterns that names of members are matched with.
    pub(super) fn name_states(&self) -> usize {
        self.name_states
    }

    /// The keyword `pattern`, which stands at a place of the schema.
    pub(super) fn keyword<'a>(&self, value: &Value, at: &Location) -> Result<Box<dyn for<'i> Keyword<'i, Metered>>, ValidationError<'a>> {
        let text = value.as_str().unwrap_or_default();
        // One of the meta-schema, when a schema refers to it, was not seen before.
        match self.compiled.get(text).cloned().unwrap_or_else(|| Pattern::compile(text)) {
            Ok(pattern) => Ok(Box::new(pattern)),
            Err(problem) => {
                let flaw = Flaw { at: at.to_string(), problem: problem.clone() };
                self.refused.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(flaw);
                Err(ValidationError::schema(problem))
            }
        }
    }

    /// What [`Patterns::keyword`] refused.
    pub(super) fn refused(&self) -> Option<Flaw> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Why a text is no pattern.
    pub(super) fn problem_of(&self, text: &str) -> String {
        match self.compiled.get(text) {
            Some(Err(problem)) => problem.clone(),
            _ => "is no regular expression of ECMA-262".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::metered::within_bounds;
    use super::*;

    #[test]
    fn states_are_what_a_byte_may_be_tried_in() {
        for (pattern, states) in [
            ("abc", 3),
            ("a|b|cd", 4),
            ("[a-z]", 1),
            ("[a-z]{5}x", 6),
            ("a{2,7}b", 3),
            ("x(ab{3}){10}y", 42),
            ("(?:a+)+$", 4),
            ("^[a-z]{1,100000}$", 1),
            ("^$", 0),
        ] {
            assert_eq!(Pattern::compile(pattern).unwrap().weight.states, states, "{pattern}");
        }
    }

    #[test]
    fn what_is_no_pattern_says_why() {
        for (pattern, why) in [
            ("(?<=a)b", "look-around"),
            (r"(a)\1", "backreference"),
            ("(", "unclosed"),
            ("x[a-z]{1000}{1000}x", "too large"),
            (r"x\p{L}{2000}x", "too large"),
        ] {
            let problem = Pattern::compile(pattern).unwrap_err();
            assert!(problem.contains(why), "{pattern}: {problem}");
        }
    }

    #[test]
    fn long_texts_in_large_patterns_are_given_up() {
        let pattern = Pattern::compile("^[ab]*a[ab]{5000}c").unwrap();
        let text = |bytes: usize| "ab".repeat(bytes / 2);
        assert_eq!(within_bounds(0, || pattern.is_in(&text(10_000))), Some(false));
        assert_eq!(within_bounds(0, || pattern.is_in(&text(1 << 20))), None);
        let small = Pattern::compile("^[ab]*c").unwrap();
        assert_eq!(within_bounds(0, || small.is_in(&text(1 << 20))), Some(false));
    }
}
