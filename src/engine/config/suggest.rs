//! "Did you mean …": the known key that a misspelt one is closest to.

/// Longer keys are not compared: nobody misspells a key that long, and the work stays bounded.
const KEY_CHARS_MAX: usize = 64;

/// The closest of `known`, when it is close enough to be what was meant: a third of the letters at most may differ.
pub(super) fn closest<'k>(key: &str, known: &[&'k str]) -> Option<&'k str> {
    let typed: Vec<char> = key.chars().take(KEY_CHARS_MAX + 1).map(|c| c.to_ascii_lowercase()).collect();
    if typed.len() > KEY_CHARS_MAX {
        return None;
    }
    known
        .iter()
        .map(|candidate| {
            let letters: Vec<char> = candidate.chars().map(|c| c.to_ascii_lowercase()).collect();
            (distance(&typed, &letters), *candidate)
        })
        .filter(|(distance, candidate)| *distance <= (candidate.len() / 3).max(1) && *distance < typed.len())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Edits between the two: letters put in, left out, exchanged, or swapped with their neighbour.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before_last = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let differs = usize::from(a[i - 1] != b[j - 1]);
            row[j] = (last[j] + 1).min(row[j - 1] + 1).min(last[j - 1] + differs);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before_last[j - 2] + 1);
            }
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_meant_key_is_found_and_strangers_are_not() {
        let known = ["host", "port", "password", "keyPrefix", "db"];
        for (typed, meant) in [
            ("hots", Some("host")),
            ("Port", Some("port")),
            ("pasword", Some("password")),
            ("key_prefix", Some("keyPrefix")),
            ("keyprefix", Some("keyPrefix")),
            ("dbb", Some("db")),
            ("x", None),
            ("", None),
            ("retries", None),
        ] {
            assert_eq!(closest(typed, &known), meant, "{typed}");
        }
        assert_eq!(closest(&"host".repeat(100_000), &known), None);
    }
}
