//! How deep JSON is nested. What other projects send is walked by recursion, so its depth is bounded before it is parsed.

use memchr::memchr2;
use serde_json::Value;

use crate::engine::error::{Code, Error};

/// Most levels of arrays and objects inside each other.
pub const DEPTH_MAX: usize = 64;

/// Why a text was not parsed.
#[derive(Debug)]
pub enum Unreadable {
    /// It has so many levels, more than [`DEPTH_MAX`].
    TooDeep(usize),
    /// It is no JSON.
    NotJson(serde_json::Error),
}

impl From<Unreadable> for Error {
    /// `ERR_PAYLOAD_TOO_LARGE` with `depth` and `limit`, or `ERR_NOT_SERIALIZABLE`.
    fn from(problem: Unreadable) -> Self {
        match problem {
            Unreadable::TooDeep(depth) => {
                let message = format!("the data is nested {depth} levels deep; between projects at most {DEPTH_MAX} are sent");
                Self::new(Code::PayloadTooLarge, message).with("depth", depth).with("limit", DEPTH_MAX)
            }
            Unreadable::NotJson(error) => Self::new(Code::NotSerializable, format!("the data is no JSON: {error}")),
        }
    }
}

/// Levels of arrays and objects in a JSON text; 0 for a lone string, number, boolean or null. Of a text that is no JSON, at
/// least as many as a parser would enter.
pub fn depth(text: &str) -> usize {
    let bytes = text.as_bytes();
    let (mut level, mut deepest, mut at) = (0_usize, 0, 0);
    while let Some(byte) = bytes.get(at) {
        at += 1;
        match byte {
            b'[' | b'{' => {
                level += 1;
                deepest = deepest.max(level);
            }
            b']' | b'}' => level = level.saturating_sub(1),
            b'"' => at = end_of_string(bytes, at),
            _ => {}
        }
    }
    deepest
}

/// Where a string that began before `at` is over.
fn end_of_string(bytes: &[u8], mut at: usize) -> usize {
    while let Some(found) = bytes.get(at..).and_then(|rest| memchr2(b'"', b'\\', rest)) {
        if bytes[at + found] == b'"' {
            return at + found + 1;
        }
        at += found + 2;
    }
    bytes.len()
}

/// A JSON text of at most [`DEPTH_MAX`] levels.
pub fn parse(text: &str) -> Result<Value, Unreadable> {
    match depth(text) {
        deep if deep > DEPTH_MAX => Err(Unreadable::TooDeep(deep)),
        _ => serde_json::from_str(text).map_err(Unreadable::NotJson),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nested(levels: usize) -> String {
        format!("{}{}", "[".repeat(levels), "]".repeat(levels))
    }

    #[test]
    fn levels_are_those_of_arrays_and_objects() {
        for (text, expected) in [
            ("1", 0),
            (r#""[[{{""#, 0),
            ("[]", 1),
            (r#"{"a":[1,[2]],"b":{}}"#, 3),
            (r#"["\"[[",[]]"#, 2),
            (r#"["\\",[[]]]"#, 3),
            (r#"{"[":"{\\\"{"}"#, 1),
            ("[],[]", 1),
            ("]]][", 1),
            (r#"["\"#, 1),
            (r#"["[["#, 1),
            ("", 0),
        ] {
            assert_eq!(depth(text), expected, "{text}");
        }
    }

    #[test]
    fn sixty_four_levels_are_read_and_one_more_is_not() {
        assert!(parse(&nested(DEPTH_MAX)).is_ok());
        let error = Error::from(parse(&nested(DEPTH_MAX + 1)).unwrap_err());
        assert_eq!((error.code, &error.details["depth"], &error.details["limit"]), (Code::PayloadTooLarge, &65.into(), &64.into()));
        let error = Error::from(parse(&nested(1_000_000)).unwrap_err());
        assert_eq!(error.details["depth"], 1_000_000);
    }

    #[test]
    fn what_is_no_json_is_refused() {
        for text in ["", "{", "[1,]", "nul", "[]]", r#""\x""#] {
            assert_eq!(Error::from(parse(text).unwrap_err()).code, Code::NotSerializable, "{text}");
        }
        assert_eq!(parse(r#"{"a":[1,"b"]}"#).unwrap(), serde_json::json!({"a": [1, "b"]}));
    }
}
