//! Names and wildcard patterns, against the rule in its plainest form.

use ossa::engine::name::{check_event_type, check_group, check_pattern, is_pattern, matches, overlap};
use proptest::prelude::*;

use crate::corpus;

/// `*` stands for one part between dots, `**` for any number of them: said as simply as possible.
fn matches_by_the_rule(pattern: &[&str], parts: &[&str]) -> bool {
    match (pattern.split_first(), parts.split_first()) {
        (None, None) => true,
        (Some((&"**", rest)), _) => (0..=parts.len()).any(|count| matches_by_the_rule(rest, &parts[count..])),
        (Some((&"*", rest)), Some((_, others))) => matches_by_the_rule(rest, others),
        (Some((part, rest)), Some((other, others))) => part == other && matches_by_the_rule(rest, others),
        _ => false,
    }
}

fn parts(text: &str) -> Vec<&str> {
    text.split('.').collect()
}

fn pattern() -> impl Strategy<Value = String> {
    let part = prop_oneof![Just("*"), Just("**"), Just("a"), Just("b"), Just("ab"), Just("")];
    proptest::collection::vec(part, 1..7).prop_map(|parts| parts.join("."))
}

fn event_type() -> impl Strategy<Value = String> {
    let part = prop_oneof![Just("a"), Just("b"), Just("ab"), Just("c"), Just("")];
    proptest::collection::vec(part, 1..7).prop_map(|parts| parts.join("."))
}

/// The rule takes ever longer with every `**`: patterns with more of them are not asked about.
const STARS_MAX: usize = 6;

fn check(pattern: &str, event_type: &str) {
    let found = matches(pattern, event_type);
    if pattern.matches("**").count() <= STARS_MAX {
        assert_eq!(found, matches_by_the_rule(&parts(pattern), &parts(event_type)), "{pattern:?} on {event_type:?}");
    }
}

proptest! {
    #![proptest_config(corpus::cases(2000))]

    #[test]
    fn a_pattern_matches_by_the_rule(pattern in pattern(), event_type in event_type()) {
        check(&pattern, &event_type);
    }

    #[test]
    fn patterns_that_match_one_type_overlap(a in pattern(), b in pattern(), event_type in event_type()) {
        prop_assert_eq!(overlap(&a, &b), overlap(&b, &a));
        if matches(&a, &event_type) && matches(&b, &event_type) {
            prop_assert!(overlap(&a, &b), "{} and {} both match {}", a, b, event_type);
        }
        prop_assert_eq!(overlap(&a, &event_type), matches(&a, &event_type));
    }

    #[test]
    fn any_text_is_a_name_or_is_refused_with_its_argument(text in crate::json::text()) {
        for (result, argument) in [(check_event_type(&text), "eventType"), (check_pattern(&text), "eventType"), (check_group(&text), "group")] {
            if let Err(error) = result {
                prop_assert_eq!(&error.details["argument"], argument);
                prop_assert!(error.message.len() < 2000);
            }
        }
        if check_event_type(&text).is_ok() {
            prop_assert!(!is_pattern(&text) && check_pattern(&text).is_ok() && matches(&text, &text) && matches("**", &text));
        }
    }
}

#[test]
fn the_corpus_matches_by_the_rule() {
    for (name, text) in corpus::texts("patterns") {
        let (pattern, event_type) = text.trim_end().split_once(' ').unwrap_or_else(|| panic!("{name}: pattern, blank, type"));
        check(pattern, event_type);
        let _ = (check_pattern(pattern), check_event_type(event_type), overlap(pattern, event_type));
    }
}
