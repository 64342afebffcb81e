//! What goes wrong, by what is said of it.

use std::collections::HashMap;
use std::sync::Mutex;

use crate::engine::env::lock;

/// Errors that are told apart; further ones are counted as [`OTHER`].
const ERRORS_MAX: usize = 200;
/// Longest text of one, characters.
const CHARS_MAX: usize = 120;
/// All errors beyond [`ERRORS_MAX`].
const OTHER: &str = "other";

/// Counts errors. Those that differ in numbers and ids alone count as one.
#[derive(Default)]
pub struct Mistakes(Mutex<HashMap<String, u64>>);

impl Mistakes {
    /// One more.
    pub fn add(&self, error: &str) {
        let kind = kind_of(error);
        let mut counts = lock(&self.0);
        let kind = if counts.len() >= ERRORS_MAX && !counts.contains_key(&kind) { OTHER.to_owned() } else { kind };
        *counts.entry(kind).or_default() += 1;
    }

    /// The most frequent.
    pub fn top(&self, count: usize) -> Vec<(String, u64)> {
        let mut all: Vec<_> = lock(&self.0).iter().map(|(kind, count)| (kind.clone(), *count)).collect();
        all.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        all.truncate(count);
        all
    }
}

/// The first line, with `#` for each word that has a digit.
fn kind_of(error: &str) -> String {
    let line = error.lines().find(|line| !line.trim().is_empty()).unwrap_or("no message").trim();
    let mut out = String::new();
    let is_of_word = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_');
    let mut rest = line;
    while !rest.is_empty() && out.chars().count() < CHARS_MAX {
        let length = rest.find(|c| !is_of_word(c)).unwrap_or(rest.len());
        let (word, behind) = rest.split_at(length);
        out.push_str(if word.contains(|c: char| c.is_ascii_digit()) { "#" } else { word });
        let length = behind.find(is_of_word).unwrap_or(behind.len());
        let (between, behind) = behind.split_at(length);
        out.push_str(between);
        rest = behind;
    }
    out.chars().take(CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_ids_do_not_make_another_error() {
        assert_eq!(kind_of("user 4711 (018bcfe5-6800) has no order_2!\nat x"), "user # (#) has no #!");
        assert_eq!(kind_of(" \n boom"), "boom");
        assert_eq!(kind_of(""), "no message");
        assert!(kind_of(&"é ".repeat(1000)).chars().count() <= CHARS_MAX);
    }

    #[test]
    fn errors_beyond_the_bound_are_counted_together() {
        let mistakes = Mistakes::default();
        let letters = |n: usize| (0..3).map(|i| char::from(b'a' + u8::try_from(n / 26_usize.pow(i) % 26).unwrap())).collect::<String>();
        (0..ERRORS_MAX + 10).for_each(|n| mistakes.add(&letters(n)));
        mistakes.add("aaa");
        assert_eq!(mistakes.top(2), [(OTHER.to_owned(), 10), ("aaa".to_owned(), 2)]);
        assert_eq!(mistakes.top(1000).len(), ERRORS_MAX + 1);
    }
}
