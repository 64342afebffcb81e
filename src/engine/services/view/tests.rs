use serde_json::json;

use super::super::definition::Definition;
use super::super::health::Health;
use super::*;
use crate::engine::store::EntryId;

fn service(name: &str, version: &str, status: &str) -> Listing {
    let given = json!({ "name": name, "endpoint": "http://host", "version": version, "capabilities": [] });
    let definition = Definition::read(given, 1000, 30_000).unwrap().definition;
    let health = Health::read(json!({ "status": status }), "health", 1000, None).unwrap();
    Service::new(definition, health).listing
}

fn place(epoch: u64, last: u64) -> Place {
    Place { epoch, last: EntryId { ms: last, seq: 0 } }
}

fn since(epoch: u64, last: u64, changes: Vec<(Turn, &str, Listing)>) -> Read {
    let change = |(i, (turn, name, listing)): (usize, (Turn, &str, Listing))| ListingChange {
        at: EntryId { ms: last, seq: i as u64 },
        name: name.to_owned(),
        turn,
        listing,
    };
    Read { place: place(epoch, last), news: News::Since(changes.into_iter().enumerate().map(change).collect()), next_end_ms: None }
}

fn all(epoch: u64, last: u64, listings: Vec<(&str, Listing)>) -> Read {
    let listings = listings.into_iter().map(|(name, listing)| (name.to_owned(), listing)).collect();
    Read { place: place(epoch, last), news: News::All(listings), next_end_ms: None }
}

/// What happened, in short.
fn told(step: &Step) -> Vec<String> {
    let short = |one: &Happening| {
        let name = &one.service.definition.name;
        match &one.what {
            What::Registered => format!("+{name}"),
            What::Updated => format!("~{name}"),
            What::Unregistered => format!("-{name}"),
            What::Expired => format!("!{name}"),
            What::HealthChanged { before } => format!("{name} {} -> {}", before.as_str(), one.service.health.status().as_str()),
        }
    };
    step.happened.iter().map(short).collect()
}

fn first() -> View {
    View::default().after(all(7, 1, vec![("a", service("a", "1.0.0", "healthy"))]), 0).view
}

#[test]
fn what_is_there_at_first_is_no_news() {
    let step = View::default().after(all(7, 1, vec![("a", service("a", "1.0.0", "healthy"))]), 0);
    assert!(step.happened.is_empty());
    assert_eq!(step.view.count(), 1);
}

#[test]
fn each_change_is_told_once_and_in_order() {
    let step = first().after(
        since(
            7,
            2,
            vec![
                (Turn::Registered, "b", service("b", "1.0.0", "unknown")),
                (Turn::Checked, "a", service("a", "1.0.0", "healthy")),
                (Turn::Changed, "b", service("b", "1.0.0", "healthy")),
                (Turn::Updated, "a", service("a", "1.1.0", "degraded")),
                (Turn::Unregistered, "b", service("b", "1.0.0", "healthy")),
                (Turn::Expired, "a", service("a", "1.1.0", "degraded")),
            ],
        ),
        0,
    );
    assert_eq!(told(&step), ["+b", "b unknown -> healthy", "~a", "a healthy -> degraded", "-b", "!a"]);
    assert_eq!(step.view.count(), 0);
    let ids: std::collections::BTreeSet<&str> = step.happened.iter().map(|one| one.id.as_str()).collect();
    assert_eq!(ids.len(), 6);
}

#[test]
fn whoever_missed_changes_is_told_the_difference() {
    let view = first().after(since(7, 2, vec![(Turn::Registered, "b", service("b", "1.0.0", "healthy"))]), 0).view;
    let step = view.after(all(7, 9, vec![("b", service("b", "2.0.0", "unhealthy")), ("c", service("c", "1.0.0", "healthy"))]), 0);
    assert_eq!(told(&step), ["~b", "b healthy -> unhealthy", "+c", "-a"]);
    let noted: Vec<bool> = step.happened.iter().map(|one| one.was_noted).collect();
    assert_eq!(noted, [true, true, true, false], "that it was taken out is only concluded");
}

#[test]
fn whoever_reads_each_change_and_whoever_reads_all_name_them_alike() {
    let (b, c) = (service("b", "1.0.0", "healthy"), service("c", "1.0.0", "healthy"));
    let changed = service("a", "2.0.0", "degraded");
    let each = first().after(
        since(7, 5, vec![(Turn::Registered, "b", b.clone()), (Turn::Updated, "a", changed.clone()), (Turn::Registered, "c", c.clone())]),
        0,
    );
    let all = first().after(all(7, 5, vec![("a", changed), ("b", b), ("c", c)]), 0);
    let ids = |step: &Step| step.happened.iter().map(|one| one.id.clone()).collect::<std::collections::BTreeSet<_>>();
    assert_eq!((ids(&each), ids(&each).len()), (ids(&all), 4));
}

#[test]
fn what_went_with_the_store_is_waited_for_and_nothing_happened_if_it_comes_back() {
    let emptied = first().after(all(8, 20, Vec::new()), 5000);
    assert!(emptied.happened.is_empty() && emptied.view.is_lost("a") && emptied.view.get("a").is_some());
    assert_eq!(emptied.view.next_end_ms(), Some(35_000));
    let back = emptied.view.after(since(8, 21, vec![(Turn::Registered, "a", service("a", "1.0.0", "healthy"))]), 6000);
    assert!(back.happened.is_empty() && !back.view.is_lost("a"));
    let changed = emptied.view.after(since(8, 21, vec![(Turn::Registered, "a", service("a", "2.0.0", "healthy"))]), 6000);
    assert_eq!(told(&changed), ["~a"]);
    let never = emptied.view.after(since(8, 21, Vec::new()), 35_000);
    assert_eq!((told(&never), never.view.count()), (vec!["!a".to_owned()], 0));
}

#[test]
fn what_a_store_with_older_data_has_not_is_waited_for_like_what_went_with_all() {
    let older = Read { news: News::Older([("b".to_owned(), service("b", "1.0.0", "healthy"))].into()), ..all(7, 9, Vec::new()) };
    let step = first().after(older, 5000);
    assert_eq!((told(&step), step.view.is_lost("a")), (vec!["+b".to_owned()], true));
    let back = step.view.after(since(7, 21, vec![(Turn::Registered, "a", service("a", "1.0.0", "healthy"))]), 6000);
    assert!(back.happened.is_empty() && !back.view.is_lost("a"));
}

#[test]
fn what_is_missing_after_longer_than_it_lives_unrenewed_has_expired() {
    for (now_ms, expected) in [(29_999, "-a"), (30_000, "!a")] {
        assert_eq!(told(&first().after(all(7, 9, Vec::new()), now_ms)), [expected]);
    }
}

#[test]
fn a_store_emptied_twice_does_not_prolong_the_wait() {
    let once = first().after(all(8, 20, Vec::new()), 5000).view;
    let twice = once.after(all(9, 30, Vec::new()), 30_000).view;
    assert_eq!(twice.next_end_ms(), Some(35_000));
}

#[test]
fn the_first_service_of_a_register_that_was_empty_is_news() {
    let empty = View::default().after(all(0, 0, Vec::new()), 0).view;
    assert_eq!(told(&empty.after(all(7, 1, vec![("a", service("a", "1.0.0", "healthy"))]), 0)), ["+a"]);
}

#[test]
fn a_listing_that_cannot_be_read_is_a_problem_and_leaves_the_others() {
    let broken = Listing { definition: "{".to_owned(), health: "{}".to_owned() };
    let step =
        first().after(since(7, 2, vec![(Turn::Registered, "x", broken), (Turn::Registered, "b", service("b", "1.0.0", "healthy"))]), 0);
    assert_eq!((told(&step), step.problems.len()), (vec!["+b".to_owned()], 1));
    assert_eq!(
        told(&step.view.after(since(7, 3, vec![(Turn::Unregistered, "x", service("x", "1.0.0", "healthy"))]), 0)),
        Vec::<String>::new()
    );
}

/// Somebody wrote over a service: what it was is not acted upon, and what is there can be replaced.
#[test]
fn a_service_that_cannot_be_read_any_more_is_none_and_is_known_by_what_is_listed() {
    let other_name = service("b", "1.0.0", "healthy");
    let step = first().after(since(7, 2, vec![(Turn::Updated, "a", other_name.clone())]), 0);
    assert_eq!((told(&step), step.problems.len()), (Vec::new(), 1));
    assert!(step.view.get("a").is_none() && step.view.get("b").is_none());
    assert_eq!(step.view.listing("a"), Some(&other_name));
    let checked = Listing { health: "{}".to_owned(), ..other_name };
    let again = step.view.after(since(7, 3, vec![(Turn::Checked, "a", checked.clone())]), 0);
    assert_eq!((again.problems.len(), again.view.listing("a")), (0, Some(&checked)), "it is said once");
    assert!(again.view.after(all(7, 9, Vec::new()), 0).view.listing("a").is_none());
    let repaired = again.view.after(since(7, 4, vec![(Turn::Registered, "a", service("a", "2.0.0", "healthy"))]), 0);
    assert_eq!((told(&repaired), repaired.view.count()), (vec!["+a".to_owned()], 1));
}
