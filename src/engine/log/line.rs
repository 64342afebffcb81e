//! One line: of bounded length, and without line breaks, whatever is in it.

use std::fmt::{self, Write};

use tracing::field::{Field, Visit};
use tracing::{Event, Metadata};

use super::rate::Turn;

/// Where the targets of the engine begin; what follows is told.
const OWN: &str = concat!(env!("CARGO_CRATE_NAME"), "::engine::");
/// Longest message and longest value of a field, characters: errors may hold what others said.
const TEXT_MAX: usize = 500;

/// One line of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// `debug`, `info`, `warn` or `error`.
    pub level: &'static str,
    /// The part of the engine that says it, as `consume::flush`.
    pub target: &'static str,
    /// What happened.
    pub message: String,
    /// What it happened to, and why.
    pub fields: Vec<(&'static str, String)>,
}

impl Line {
    pub(super) fn new(event: &Event<'_>, turn: Turn) -> Self {
        let metadata = event.metadata();
        let level = match *metadata.level() {
            tracing::Level::ERROR => "error",
            tracing::Level::WARN => "warn",
            tracing::Level::INFO => "info",
            _ => "debug",
        };
        let target = metadata.target().strip_prefix(OWN).unwrap_or_default();
        let mut line = Self { level, target, message: String::new(), fields: Vec::new() };
        event.record(&mut line);
        if turn.left_out > 0 {
            line.fields.push(("leftOut", turn.left_out.to_string()));
        }
        if let Some(rest) = turn.silent_for {
            line.fields.push(("silentForSeconds", rest.as_secs().max(1).to_string()));
        }
        line
    }
}

/// Whether the engine says it.
pub(super) fn is_own(metadata: &Metadata<'_>) -> bool {
    metadata.target().starts_with(OWN)
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let mut text = Bounded { text: String::new(), left: TEXT_MAX };
        if write!(text, "{value:?}").is_err() {
            text.text.push('…');
        }
        match field.name() {
            "message" => self.message = text.text,
            name => self.fields.push((name, text.text)),
        }
    }
}

/// Takes the first characters only.
struct Bounded {
    text: String,
    left: usize,
}

impl fmt::Write for Bounded {
    fn write_str(&mut self, more: &str) -> fmt::Result {
        for c in more.chars() {
            self.left = self.left.checked_sub(1).ok_or(fmt::Error)?;
            if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') {
                write!(self.text, "{}", c.escape_unicode())?;
            } else {
                self.text.push(c);
            }
        }
        Ok(())
    }
}
