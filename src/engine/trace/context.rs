//! W3C Trace Context in the headers of an event: which trace it belongs to, and which span it came from.

use std::fmt;
use std::ops::Range;
use std::sync::LazyLock;

use memchr::memmem::Finder;

/// Header of the context.
pub const TRACEPARENT: &str = "traceparent";
/// Header of what other systems keep about the trace; passed on as it is.
pub const TRACESTATE: &str = "tracestate";

/// Length of a header of version 00.
const CHARS: usize = 55;
/// Longest `tracestate` that goes into a span, bytes: what every system has to take.
const STATE_BYTES_MAX: usize = 512;
/// The bit that says whether somebody records the trace.
const SAMPLED: u8 = 1;
/// The bits that version 00 and its successor know: sampled, and that the trace id is random.
const FLAGS: u8 = 3;

/// A span, as others refer to it. Shown as the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context {
    /// Trace id, never 0.
    pub trace: u128,
    /// Span id, never 0.
    pub span: u64,
    /// `trace-flags`.
    pub flags: u8,
}

impl Context {
    /// From the text of a `traceparent`; `None` for one that is malformed: then there is no trace, as the standard has it.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        let is_long_enough = match bytes.get(..3)? {
            b"00-" => bytes.len() == CHARS,
            // Of a later version, what is known stands at the same place.
            _ => bytes.len() == CHARS || bytes.get(CHARS) == Some(&b'-'),
        };
        let version = hex(bytes.get(..2)?)?;
        let separated = [2, 35, 52].iter().all(|at| bytes.get(*at) == Some(&b'-'));
        if version == 0xff || !is_long_enough || !separated {
            return None;
        }
        let trace = hex(&bytes[3..35])?;
        let span = u64::try_from(hex(&bytes[36..52])?).ok()?;
        let flags = u8::try_from(hex(&bytes[53..CHARS])?).ok()? & FLAGS;
        (trace != 0 && span != 0).then_some(Self { trace, span, flags })
    }

    /// Whether its trace is recorded: whoever began it decided that for all.
    pub fn is_sampled(self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// A recorded trace's first span.
    pub fn root(trace: u128, span: u64) -> Self {
        Self { trace, span, flags: SAMPLED }
    }

    /// Another span of the same trace.
    #[must_use]
    pub fn at(self, span: u64) -> Self {
        Self { span, ..self }
    }
}

impl fmt::Display for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        digits(&mut text[3..35], self.trace);
        digits(&mut text[36..52], self.span.into());
        digits(&mut text[53..], self.flags.into());
        f.write_str(std::str::from_utf8(&text).unwrap_or_default())
    }
}

/// Writes a number in hex over all of `out`: for each event of a recorded trace, in a fraction of the formatter's time.
fn digits(out: &mut [u8], mut number: u128) {
    for digit in out.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(number & 15) as usize];
        number >>= 4;
    }
}

/// A number in small hex digits, at most 32 of them; the standard allows no others.
fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |number, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(value))
    })
}

/// The key as it stands in packed metadata, whose headers are the only object with keys of others' choice. Inside a string a
/// quote is escaped: what is found is a key, or the end of one.
static KEY: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(br#""traceparent":""#));
static STATE_KEY: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(br#""tracestate":""#));

/// The `traceparent` of packed metadata, and where its text stands between the quotes.
pub fn find_in(meta: &str) -> Option<(Context, Range<usize>)> {
    let bytes = meta.as_bytes();
    let start = KEY.find_iter(bytes).find(|at| is_a_key(bytes, *at))? + KEY.needle().len();
    let end = start + memchr::memchr(b'"', &bytes[start..])?;
    Some((Context::parse(meta.get(start..end)?)?, start..end))
}

/// The `tracestate` of packed metadata.
pub fn state_in(meta: &str) -> Option<&str> {
    let bytes = meta.as_bytes();
    let at = STATE_KEY.find(bytes).filter(|at| is_a_key(bytes, *at))?;
    let start = at + STATE_KEY.needle().len();
    let end = start + memchr::memchr(b'"', &bytes[start..])?;
    checked_state(meta.get(start..end)?)
}

/// A `tracestate` that may go into a span as it is.
pub fn checked_state(text: &str) -> Option<&str> {
    let fits = !text.is_empty() && text.len() <= STATE_BYTES_MAX;
    (fits && text.bytes().all(|b| matches!(b, b' '..=b'~') && b != b'\\' && b != b'"')).then_some(text)
}

/// Whether the quote at `at` begins a key, and does not stand inside one.
fn is_a_key(bytes: &[u8], at: usize) -> bool {
    at > 0 && matches!(bytes[at - 1], b'{' | b',')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::event::{self, Extras, NewMeta, Priority};

    const TEXT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    const CONTEXT: Context = Context { trace: 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736, span: 0x00f0_67aa_0ba9_02b7, flags: 1 };

    fn packed(headers: &[(&str, &str)]) -> String {
        let headers = headers.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let extras = Extras { headers: Some(headers), tags: Some(vec![r#""traceparent":"x""#.to_owned()]), ..Extras::default() };
        event::pack(&NewMeta {
            id: "e",
            timestamp_ms: 5,
            source: r#","traceparent":""#,
            version: "1.0.0",
            priority: Priority::Normal,
            ttl: 1.0,
            ttl_given: false,
            extras: Some(&extras),
        })
    }

    #[test]
    fn what_is_written_is_read_back() {
        assert_eq!(Context::parse(TEXT), Some(CONTEXT));
        assert_eq!(CONTEXT.to_string(), TEXT);
        assert!(CONTEXT.is_sampled() && !Context { flags: 2, ..CONTEXT }.is_sampled());
        assert_eq!(CONTEXT.at(1).to_string(), "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000001-01");
        assert_eq!(Context::parse(&TEXT.replace("-01", "-00")), Some(Context { flags: 0, ..CONTEXT }));
        // What other bits will mean is not known.
        assert_eq!(Context::parse(&TEXT.replace("-01", "-fd")), Some(CONTEXT));
    }

    #[test]
    fn a_later_version_is_read_as_far_as_it_is_known() {
        assert_eq!(Context::parse(&TEXT.replacen("00", "cc", 1)), Some(CONTEXT));
        assert_eq!(Context::parse(&format!("{}-what-comes", TEXT.replacen("00", "01", 1))), Some(CONTEXT));
        assert_eq!(Context::parse(&format!("{}.what-comes", TEXT.replacen("00", "01", 1))), None);
    }

    #[test]
    fn what_is_malformed_is_no_context() {
        for wrong in [
            "",
            "00",
            "00-",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-011",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "0g-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0x",
            "00-4bf92f3577b34da6a3ce929d0e0e473-600f067aa0ba902b7-01",
            " 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00_4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7_01",
            "00-4bf92f3577b34da6a3ce929d0e0e47é-00f067aa0ba902b7-01",
            "éé-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(Context::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_header_is_found_in_metadata_and_nothing_is_taken_for_it() {
        let meta = packed(&[("a", "b"), (TRACEPARENT, TEXT), (TRACESTATE, "vendor=1,other=2")]);
        let (context, at) = find_in(&meta).unwrap();
        assert_eq!((context, &meta[at]), (CONTEXT, TEXT));
        assert_eq!(state_in(&meta), Some("vendor=1,other=2"));
        for headers in [
            &[] as &[(&str, &str)],
            &[("x", TEXT)],
            &[("Traceparent", TEXT)],
            &[(r#"x"traceparent"#, TEXT)],
            &[("x", r#"{"traceparent":"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}"#)],
            &[(TRACEPARENT, "")],
            &[(TRACEPARENT, "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\"")],
        ] {
            assert_eq!(find_in(&packed(headers)), None, "{headers:?}");
        }
        assert!(find_in(&packed(&[(r#"a"traceparent"#, "x"), (TRACEPARENT, TEXT)])).is_some(), "behind a key that ends so");
    }

    #[test]
    fn a_state_that_cannot_go_into_a_span_is_left_out() {
        for wrong in ["", "a=\u{e9}", "a=\"b\"", "a=\\", &"x".repeat(513)] {
            assert_eq!(state_in(&packed(&[(TRACESTATE, wrong)])), None, "{wrong}");
        }
        assert_eq!(state_in(&packed(&[])), None);
    }
}
