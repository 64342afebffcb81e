//! Text that is a piece of a longer one: what crossed for many events is not copied for each of them.

use std::fmt;
use std::ops::{Deref, Range};
use std::sync::Arc;

/// A piece of text. Keeps all of what it is cut from; cheap to clone.
#[derive(Clone)]
pub struct Text {
    whole: Arc<String>,
    piece: Range<u32>,
}

impl Text {
    /// What stands there; nothing where that is no piece of it.
    pub fn of(whole: &Arc<String>, piece: Range<usize>) -> Self {
        let (Ok(start), Ok(end)) = (u32::try_from(piece.start), u32::try_from(piece.end)) else {
            // Further than numbers here reach: a text of its own.
            return whole.get(piece).unwrap_or_default().into();
        };
        Self { whole: whole.clone(), piece: start..end }
    }
}

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        self.whole.get(self.piece.start as usize..self.piece.end as usize).unwrap_or_default()
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        let end = text.len();
        // A text longer than this is refused long before (limits.maxPayloadBytes).
        Self { whole: Arc::new(text), piece: 0..u32::try_from(end).unwrap_or(u32::MAX) }
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_is_what_stands_there() {
        let whole = Arc::new("one\ttwo\n".to_owned());
        assert_eq!((&*Text::of(&whole, 0..3), &*Text::of(&whole, 4..7)), ("one", "two"));
        assert_eq!((&*Text::of(&whole, 5..99), &*Text::from("whole")), ("", "whole"));
    }
}
