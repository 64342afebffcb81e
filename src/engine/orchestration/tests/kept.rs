//! What is written is what is known, and whoever leads next goes on from there.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use super::super::orchestra::{Orchestra, Outcome};
use super::super::task::Status;
use super::{Model, Place, ids};
use crate::engine::config::Strategy;
use crate::engine::store::Table;

/// All of it that counts, in words that can be compared.
#[derive(Debug, PartialEq)]
pub(super) struct Known {
    agents: BTreeMap<String, (String, BTreeSet<String>)>,
    tasks: BTreeMap<String, (String, String, Vec<String>)>,
    ended: BTreeMap<String, (Status, Option<String>, u64, u32, bool)>,
    queue: Vec<String>,
    deadlines: BTreeSet<(u64, String)>,
    dependents: BTreeMap<String, BTreeSet<String>>,
    pools: Vec<(String, u64, u64, u64)>,
    bytes: usize,
    free: u64,
}

pub(super) fn known(orchestra: &Orchestra, now_ms: u64) -> Known {
    let agents = orchestra.agents.iter().filter(|agent| !agent.id.is_empty());
    let mut walk = orchestra.queue.walk();
    Known {
        agents: agents.map(|agent| (agent.id.clone(), (agent.to_text(now_ms), agent.running.clone()))).collect(),
        tasks: orchestra
            .tasks
            .values()
            .map(|task| (task.id.clone(), (task.to_text(), task.data.get().to_owned(), task.waiting_for.clone())))
            .collect(),
        ended: orchestra
            .ended
            .iter()
            .map(|(id, ended)| (id.clone(), (ended.status, ended.agent.clone(), ended.at_ms, ended.given, ended.lettered)))
            .collect(),
        // Those of one priority that came at once may change places.
        queue: std::iter::from_fn(|| walk.next(&orchestra.queue)).map(|(_, id)| id).collect::<BTreeSet<_>>().into_iter().collect(),
        deadlines: orchestra.deadlines.clone(),
        dependents: orchestra.dependents.iter().map(|(id, who)| (id.clone(), who.clone())).collect(),
        pools: orchestra.pools.iter().map(|pool| (pool.id.clone(), pool.created_ms, pool.scaled_ms, pool.scalings)).collect(),
        bytes: orchestra.bytes,
        free: orchestra.free,
    }
}

impl Place {
    /// What is in the store, read by somebody else, is what is known here.
    pub(super) fn must_be_kept(&self) {
        let other = Orchestra::new(self.rules.clone(), self.store.found(), self.now_ms);
        assert_eq!(known(&other, self.now_ms), known(&self.orchestra, self.now_ms));
    }

    /// The store is emptied, and written to anew.
    pub(super) fn write_whole(&mut self) {
        let write = self.orchestra.whole(self.now_ms);
        assert!(write.whole && write.removed.is_empty());
        self.store = Model::default();
        self.store.apply(&write);
    }
}

/// One of everything.
fn full() -> Place {
    let mut place = Place::of(Strategy::LeastLoaded);
    place.spawn("a", &["text"], 4);
    place.spawn("b", &["image"], 4);
    for task in ["running", "done", "failing", "timed"] {
        let with = json!({ "requiredCapabilities": ["text"], "data": [task], "maxAttempts": 1, "timeoutMs": 60_000 });
        place.submit(task, with);
    }
    place.go_on();
    for task in ["running", "done", "failing"] {
        place.start(task, "a");
    }
    place.now_ms += 10;
    place.complete("done", "a");
    place.fail("failing", "a");
    place.submit("queued", json!({ "requiredCapabilities": ["gpu"], "data": "q", "priority": 2 }));
    place.submit("waiting", json!({ "dependencies": ["running", "done", "unknown"] }));
    place.submit("over", json!({}));
    place.hear(super::What::TaskCancelled { task: "over".to_owned(), reason: "over".to_owned() });
    place.hear(super::What::Terminated { agent: "b".to_owned(), reason: "over".to_owned(), inbox: None });
    place.go_on();
    place
}

#[test]
fn what_is_written_is_what_is_known() {
    let place = full();
    place.must_be_kept();
    assert_eq!(place.store.texts(Table::Data).count(), 4, "of those that are not over, and of the one that failed");
}

#[test]
fn a_store_that_was_emptied_is_written_anew_with_all_of_it() {
    let mut place = full();
    place.write_whole();
    place.must_be_kept();
    assert!(place.orchestra.take_write(false, place.now_ms).is_none(), "nothing is left to write");
}

#[test]
fn what_is_written_is_not_written_again() {
    let mut place = full();
    assert!(place.orchestra.take_write(true, place.now_ms).is_none());
    place.take_over();
    place.go_on();
    assert!(place.orchestra.take_write(true, place.now_ms).is_none());
}

#[test]
fn what_was_given_and_perhaps_not_said_is_said_again_under_the_same_key() {
    let mut place = full();
    let before: Vec<String> = place.said.iter().map(|saying| saying.key.clone()).collect();
    place.take_over();
    let again: Vec<String> = place.orchestra.take_sayings().into_iter().map(|saying| saying.key).collect();
    // Of what had begun it was heard; the one that failed is no dead letter yet.
    assert!(again.len() == 2 && again.iter().all(|key| before.contains(key)), "{again:?}");
    assert!(again.iter().any(|key| key.starts_with("assigned:timed:")) && again.iter().any(|key| key.starts_with("failed:failing:")));
    let letters = place.orchestra.take_letters();
    assert_eq!(letters["inbox of a"].len(), 1);
}

#[test]
fn the_reason_of_a_failure_outlives_whoever_led() {
    for (permanent, reason) in [(true, "permanent"), (false, "max-attempts")] {
        let mut place = Place::of(Strategy::LeastLoaded);
        place.spawn("a", &[], 1);
        place.submit("t", json!({ "maxAttempts": if permanent { 5 } else { 1 }, "data": { "x": 1 } }));
        place.go_on();
        let of = place.named("t", "a");
        place.hear(super::What::TaskFailed { of, error: "boom".to_owned(), permanent, handed_back: false });
        // Written, and nothing of it said.
        let write = place.orchestra.take_write(true, place.now_ms).unwrap();
        place.store.apply(&write);
        place.take_over();
        place.go_on();
        let told = place.told("task.failed");
        assert_eq!((told.len(), &told[0]["reason"], &told[0]["error"]), (1, &json!(reason), &json!("boom")));
        assert_eq!(told[0]["task"]["data"], json!({ "x": 1 }));
        let letter = place.given_up("t");
        assert!(matches!(place.hear_own(letter, false), Outcome::Dead { is_permanent, .. } if is_permanent == permanent));
        place.go_on();
        place.said.clear();
        place.take_over();
        place.go_on();
        assert!(place.said.is_empty(), "a dead letter is not announced again");
    }
}

#[test]
fn tasks_of_an_agent_that_is_not_there_any_more_are_for_others() {
    let mut place = full();
    place.store.tables.remove(&(Table::Agents, "a".to_owned()));
    place.take_over();
    assert_eq!((place.status("running"), place.status("timed")), (Some("queued"), Some("queued")));
    place.go_on();
    place.must_be_kept();
}

#[test]
fn texts_that_nobody_wrote_are_passed_over() {
    let mut place = full();
    for table in Table::ALL {
        for (id, text) in ["", "{", "[]", "{}\n{", "null\nnull", "\n"].iter().enumerate() {
            place.store.tables.insert((table, format!("wrong {id}")), (*text).to_owned());
        }
    }
    place.store.tables.insert((Table::Data, "queued".to_owned()), "{".to_owned());
    place.store.summary = Some("nothing\nof use".to_owned());
    place.take_over();
    assert_eq!((place.orchestra.by_id.len(), place.orchestra.tasks.len()), (2, 4));
    assert_eq!(place.orchestra.tasks["queued"].data.get(), "null");
}

#[test]
fn many_tasks_are_written_once_each() {
    let mut place = Place::of(Strategy::LeastLoaded);
    place.spawn("a", &[], 1_000);
    for task in &ids("t", 500) {
        place.submit(task, json!({ "data": 1 }));
    }
    place.orchestra.give_out(place.now_ms, &mut || 0.5);
    let write = place.orchestra.take_write(true, place.now_ms).unwrap();
    let unique: BTreeSet<(Table, &String)> = write.put.iter().map(|(table, id, _)| (*table, id)).collect();
    assert_eq!((write.put.len(), unique.len()), (1_001, 1_001));
}
