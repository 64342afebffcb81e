//! Text that must not be seen.

use std::fmt;

/// A password or another secret. `Debug` prints `***`, there is no `Display` and no `Serialize`: it leaves only by
/// [`expose`](Self::expose).
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes `text` into keeping.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text in clear, for the connection that needs it. Never for a message.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_nothing_of_it() {
        assert_eq!(format!("{:?} {:#?}", Secret::new("hunter2"), Some(Secret::new("hunter2"))).matches("hunter2").count(), 0);
        assert_eq!(Secret::new("hunter2").expose(), "hunter2");
    }
}
