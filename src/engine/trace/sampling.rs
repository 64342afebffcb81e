//! Which traces are recorded: whoever began one decided it, and for one that begins here a hash of the event's id does.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::context::{Context, TRACEPARENT, TRACESTATE, checked_state};
use crate::engine::journal::place;

/// Where a span that is recorded belongs.
#[derive(Clone, Debug, PartialEq)]
pub enum Origin {
    /// In a trace that began elsewhere.
    In(Context, Option<Arc<str>>),
    /// It begins one.
    New,
}

/// Where the span of an event with these headers belongs; `None`: it is not recorded. What `begins_none` has no trace of its own.
pub fn origin(headers: Option<&BTreeMap<String, String>>, id: &str, rate: f64, begins_none: bool) -> Option<Origin> {
    let header = |name: &str| headers.and_then(|headers| headers.get(name)).map(String::as_str);
    match header(TRACEPARENT).and_then(Context::parse) {
        Some(parent) => parent.is_sampled().then(|| Origin::In(parent, header(TRACESTATE).and_then(checked_state).map(Into::into))),
        None if begins_none => None,
        None => (place(id) < rate).then_some(Origin::New),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::env::Env;

    const SAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    const NOT_SAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";

    fn headers(traceparent: &str) -> BTreeMap<String, String> {
        [(TRACEPARENT, traceparent), (TRACESTATE, "a=b")].map(|(key, value)| (key.to_owned(), value.to_owned())).into()
    }

    #[tokio::test(start_paused = true)]
    async fn the_rate_is_the_share_of_traces_that_begin() {
        let env = Env::seeded(1);
        let ids: Vec<std::sync::Arc<str>> = (0..20_000).map(|_| env.new_id()).collect();
        let share = |rate: f64| ids.iter().filter(|id| origin(None, id, rate, false) == Some(Origin::New)).count();
        assert_eq!((share(0.0), share(1.0)), (0, ids.len()));
        for (rate, least, most) in [(0.5, 9_700, 10_300), (0.1, 1_850, 2_150), (0.01, 140, 260)] {
            let count = share(rate);
            assert!((least..=most).contains(&count), "{count} of {} at {rate}", ids.len());
        }
        assert!(ids.iter().all(|id| origin(None, id, 1.0, true).is_none()));
    }

    #[test]
    fn what_the_parent_decided_holds_whatever_the_rate() {
        let parent = Context::parse(SAMPLED).unwrap();
        for begins_none in [false, true] {
            let of = |text: &str, rate| origin(Some(&headers(text)), "e", rate, begins_none);
            assert_eq!(of(SAMPLED, 0.0), Some(Origin::In(parent, Some("a=b".into()))));
            assert_eq!(of(NOT_SAMPLED, 1.0), None);
        }
    }

    #[test]
    fn a_malformed_parent_is_none() {
        assert_eq!(origin(Some(&headers("nonsense")), "e", 1.0, false), Some(Origin::New));
        assert_eq!(origin(Some(&headers("nonsense")), "e", 0.0, false), None);
    }
}
