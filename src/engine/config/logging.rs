//! `logger` and `logLevel`, of a bus and of a service registry.

use serde_json::{Value, json};

use super::env;
use super::reader::Section;
use crate::engine::error::Result;
use crate::engine::log::Level;

/// What the program logs.
#[derive(Clone, Debug, PartialEq)]
pub struct Logging {
    /// Whether lines go to a logger of the program's.
    pub logger: bool,
    /// The least severe lines that are written.
    pub level: Level,
}

impl Logging {
    pub(super) fn read(section: &Section<'_>) -> Result<Self> {
        let logger = match section.argument("logger") {
            None => false,
            Some(_) if section.value("logger").is_some_and(|value| value["$logger"] == true) => true,
            Some(found) => return Err(found.wrong("an object with the functions debug, info, warn and error")),
        };
        let level = section.find(("logLevel", env::OSSA_LOG));
        Ok(Self { logger, level: level.map_or(Ok(Level::default()), |found| found.one_of(&Level::NAMES))? })
    }

    pub(super) fn put_into(&self, put: &mut impl FnMut(&str, Value)) {
        if self.logger {
            put("logger", json!({ "$logger": true }));
        }
        put("logLevel", json!(self.level.as_str()));
    }
}
