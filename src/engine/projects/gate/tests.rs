//! What is read of an entry, and the times at which it is believed.

use proptest::prelude::*;

use super::*;
use crate::engine::event::{MessageMeta, NewMeta, Priority, pack};
use crate::engine::store::Partition;

fn entry(stream: &str, body: Body) -> Entry {
    let id = EntryId { ms: 1_000_000, seq: 3 };
    Entry { partition: Partition::new(stream, 0), id, body, deliveries: 1, crashes: 0, refusal: None }
}

fn event(meta: impl Into<Vec<u8>>, data: impl Into<Vec<u8>>) -> Body {
    Body::Event { meta: meta.into().into(), data: data.into().into(), only_group: None, first_entry: None }
}

fn meta(timestamp_ms: u64, ttl: f64, due: Option<u64>) -> String {
    let extras = Extras { target: Some("b".into()), due, message: Some(MessageMeta::default()), ..Extras::default() };
    let (version, priority) = ("1.0.0", Priority::Normal);
    pack(&NewMeta { id: "id", timestamp_ms, source: "a", version, priority, ttl, ttl_given: true, extras: Some(&extras) })
}

#[test]
fn what_is_no_message_is_malformed() {
    let right = meta(1, 5.0, None);
    for (stream, body) in [
        ("t", event(right.clone(), "1")),
        ("@b", event(right.clone(), "1")),
        ("@b/t", Body::Foreign(vec![(b"a".to_vec(), b"b".to_vec())])),
        ("@b/t", Body::Foreign(Vec::new())),
        ("@b/t", event("", "1")),
        ("@b/t", event("{}", "1")),
        ("@b/t", event("[]", "1")),
        ("@b/t", event(vec![0xff, 0xfe], "1")),
        ("@b/t", event(right.clone(), vec![0xff])),
        ("@b/t", event(right.replace(r#""v":1"#, r#""v":2"#), "1")),
        ("@b/t", event(right.replace(r#""timestamp":1"#, r#""timestamp":-1"#), "1")),
        ("@b/t", event(right.replace(r#""timestamp":1"#, r#""timestamp":1e300"#), "1")),
        ("@b/t", event(right.replace(r#""target":"b""#, r#""target":7"#), "1")),
        ("@b/t", event(right.replace(r#""target":"b""#, r#""target":"b","target":"c""#), "1")),
        ("@b/t", event(right.replace(r#""target":"b""#, r#""target":"b","due":"soon""#), "1")),
        (
            "@b/t",
            event(right.replace(r#""target":"b""#, r#""target":"b","message":7"#).replace(r#","message":{"from":"","to":""}"#, ""), "1"),
        ),
        ("@b/t", event(format!("{right} {right}"), "1")),
    ] {
        let entry = entry(stream, body);
        let refusal = Incoming::read(&entry).map(|_| ()).expect_err("it is no message");
        assert_eq!((refusal.reason, refusal.code), (DeadReason::Malformed, Code::InvalidArgument), "{entry:?}");
    }
    let entry = entry("@b/x.y", event(right, "not looked at yet"));
    let message = Incoming::read(&entry).map_err(|refusal| refusal.message).unwrap();
    assert_eq!((message.target, message.event_type, &*message.view.source), ("b", "x.y", "a"));
}

#[test]
fn a_message_is_of_the_time_of_its_entry() {
    let minute = 60_000;
    let day = 24 * 60 * minute;
    let at = 100 * day;
    for (signed, due, entered, is_good) in [
        (at, None, at, true),
        (at, None, at + 5 * minute, true),
        (at, None, at + 5 * minute + 1, false),
        (at, None, at - 5 * minute, true),
        (at, None, at - 5 * minute - 1, false),
        (at, None, 0, false),
        (at, None, u64::MAX, false),
        (0, None, at, false),
        (0, None, 0, true),
        (u64::MAX, None, at, false),
        (u64::MAX, None, u64::MAX, true),
        // Of one that was to wait, the time when it was due counts. It may be late, but not early.
        (at, Some(at + day), at + day, true),
        (at, Some(at + day), at, false),
        (at, Some(at + day), at + day - 5 * minute, true),
        (at, Some(at + day), at + day - 5 * minute - 1, false),
        (at, Some(at + day), at + 8 * day, true),
        (at, Some(at + day), at + 8 * day + 1, false),
        (at, Some(u64::MAX), at, false),
        (at, Some(0), at, false),
        (u64::MAX, Some(u64::MAX), 0, false),
    ] {
        let mut entry = entry("@b/t", event(meta(signed, 5.0, due), "1"));
        entry.id = EntryId { ms: entered, seq: 0 };
        let message = Incoming::read(&entry).map_err(|refusal| refusal.message).unwrap();
        let checked = message.check_time();
        assert_eq!(checked.is_ok(), is_good, "{signed} {due:?} {entered}: {checked:?}");
        assert!(checked.err().is_none_or(|refusal| (refusal.reason, refusal.code) == (DeadReason::Signature, Code::Replay)));
    }
}

#[test]
fn a_message_that_was_put_back_is_where_it_was_first() {
    let first = EntryId { ms: 1_000, seq: 7 };
    let mut again = entry("@b/t", event(meta(1_000, 5.0, None), "1"));
    let Body::Event { first_entry, only_group, .. } = &mut again.body else { panic!("an event") };
    (*first_entry, *only_group) = (Some(first), Some("g".into()));
    let sightings = |entry: &Entry| Incoming::read(entry).map_err(|refusal| refusal.message).unwrap().sightings(entry).collect::<Vec<_>>();
    let sighting = |entry: &Entry| sightings(entry).pop().unwrap();
    let mut original = entry("@b/t", event(meta(1_000, 5.0, None), "1"));
    original.id = first;
    assert_eq!(sighting(&again), sighting(&original));
    assert_eq!((sightings(&again).len(), sightings(&original).len()), (2, 1), "that it was put back is noted, too, once for its place");
    let mut beside = again.clone();
    beside.id.seq += 1;
    assert_eq!(sightings(&beside)[0].message, sightings(&again)[0].message);
    assert_ne!(sightings(&beside)[0].place, sightings(&again)[0].place);
    let mut copy = original.clone();
    copy.id.seq += 1;
    assert_ne!(sighting(&copy).place, sighting(&original).place);
    assert_eq!(sighting(&copy).message, sighting(&original).message);
    copy.id = first;
    copy.partition.lane = Priority::High;
    assert_ne!(sighting(&copy).place, sighting(&original).place);
    copy.partition = Partition::new("@b/t", 1);
    assert_ne!(sighting(&copy).place, sighting(&original).place);
    copy.partition = Partition::new("@c/t", 0);
    assert_ne!(sighting(&copy).message, sighting(&original).message);
}

#[test]
fn a_message_is_remembered_at_least_as_long_as_its_time_is_good() {
    let life = |ttl: f64, due| {
        let entry = entry("@b/t", event(meta(1_000, ttl, due), "1"));
        Incoming::read(&entry).map_err(|refusal| refusal.message).unwrap().sightings(&entry).next().unwrap().life
    };
    // It may say that it is five minutes older or younger than its entry.
    assert_eq!(life(0.5, None), Duration::from_millis(600_500));
    assert_eq!(life(86_400.0, None), Duration::from_secs(86_400 + 600));
    assert_eq!(life(0.0, None), Duration::from_secs(30 * 24 * 3600 + 600), "one that never expires");
    assert_eq!(life(1.0, Some(5_000)), Duration::from_secs(7 * 24 * 3600 + 600));
}

#[test]
fn a_violation_names_its_paths() {
    let error = Error::new(Code::ContractViolation, "wrong");
    assert_eq!(with_paths(&error), "wrong");
    let many: Vec<Value> = (0..50).map(|n| json!({ "path": format!("/{n}") })).collect();
    let told = with_paths(&error.with("paths", many));
    assert!(told.starts_with("wrong (at: /0, /1, ") && told.ends_with("/19)"), "{told}");
}

proptest! {
    /// Whatever stands in a stream, it is read or malformed.
    #[test]
    fn whatever_is_there_is_read_or_refused(
        stream in "@?[a-z/@.:-]{0,8}", meta in "\\PC*|\\{[\\x20-\\x7e]{0,80}\\}", data in proptest::collection::vec(any::<u8>(), 0..40),
        ms in any::<u64>(),
    ) {
        let mut entry = entry("x", event(meta, data));
        entry.partition = Partition::new(stream, 0);
        entry.id = EntryId { ms, seq: 0 };
        if let Ok(message) = Incoming::read(&entry) {
            let _ = (message.check_time(), message.sightings(&entry).count(), message.due_ms());
        }
    }

    #[test]
    fn no_time_is_too_large_to_be_judged(signed in any::<u64>(), due in any::<Option<u64>>(), entered in any::<u64>(), ttl in any::<f64>()) {
        let mut entry = entry("@b/t", event(meta(signed, if ttl.is_finite() { ttl.abs() } else { 1.0 }, due), "1"));
        entry.id = EntryId { ms: entered, seq: 0 };
        if let Ok(message) = Incoming::read(&entry) {
            let _ = (message.check_time(), message.sightings(&entry).count());
        }
    }
}
