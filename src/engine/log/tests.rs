//! Levels, fields, bounds, and whose line it is.

use super::rate::{LINES_MAX, WINDOW};
use super::*;
use crate::engine::env::{Env, lock};

/// A log and what it wrote.
fn log(level: Level) -> (Log, Arc<Mutex<Vec<Line>>>) {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let written = lines.clone();
    (Log::new(level, move |line| lock(&written).push(line)), lines)
}

fn messages(lines: &Mutex<Vec<Line>>) -> Vec<String> {
    lock(lines).iter().map(|line| line.message.clone()).collect()
}

fn all_levels() {
    tracing::debug!("d");
    tracing::info!("i");
    tracing::warn!("w");
    tracing::error!("e");
}

#[test]
fn a_log_takes_lines_of_its_level_and_above() {
    for (level, expected) in [
        (Level::Debug, vec!["d", "i", "w", "e"]),
        (Level::Info, vec!["i", "w", "e"]),
        (Level::Warn, vec!["w", "e"]),
        (Level::Error, vec!["e"]),
        (Level::Silent, vec![]),
    ] {
        // Beside it there is one that takes everything: that must change nothing.
        let (beside, _) = log(Level::Debug);
        let (log, lines) = log(level);
        log.within(all_levels);
        assert_eq!(messages(&lines), expected, "{level:?}");
        drop(beside);
        log.within(all_levels);
        assert_eq!(messages(&lines), [&expected[..], &expected[..]].concat(), "{level:?}");
    }
}

#[test]
fn a_line_names_its_level_its_place_and_its_fields() {
    let (log, lines) = log(Level::Debug);
    let error = "no\nroute\u{2028}to host";
    log.within(|| tracing::info!(count = 3, group = "g", %error, shown = ?"s", on = true, "it {}", "happened"));
    let expected = Line {
        level: "info",
        target: "log::tests",
        message: "it happened".to_owned(),
        fields: [("count", "3"), ("group", "g"), ("error", "no\\u{a}route\\u{2028}to host"), ("shown", "\"s\""), ("on", "true")]
            .map(|(name, value)| (name, value.to_owned()))
            .to_vec(),
    };
    assert_eq!(*lock(&lines), [expected]);
}

#[test]
fn a_line_has_a_bound() {
    let (log, lines) = log(Level::Debug);
    let (fits, endless) = ("ü".repeat(500), "ü".repeat(1_000_000));
    log.within(|| tracing::info!(fits, endless, "{endless}"));
    let line = lock(&lines).pop().unwrap();
    let cut = format!("{fits}…");
    assert_eq!((line.message, line.fields), (cut.clone(), vec![("fits", fits), ("endless", cut)]));
}

#[test]
fn what_others_say_goes_nowhere() {
    let (log, lines) = log(Level::Debug);
    all_levels();
    log.within(|| {
        tracing::error!(target: "hyper", "e");
        tracing::error!(target: "ossa::enginery", "e");
        tracing::error_span!("s").in_scope(|| ());
    });
    assert_eq!(messages(&lines), Vec::<String>::new());
}

#[tokio::test]
async fn lines_of_two_buses_that_share_a_thread_stay_apart() {
    let (first, first_lines) = log(Level::Debug);
    let (second, second_lines) = log(Level::Warn);
    let (first, second) = (Env::seeded(1).logging(first), Env::seeded(2).logging(second));
    let work = |env: &Env, name: &'static str| {
        let inner = env.clone();
        env.spawn(async move {
            for n in 0..3 {
                tracing::debug!("{name} {n}");
                tracing::warn!("{name} {n}");
                tokio::task::yield_now().await;
            }
            // Tasks of tasks, with and without an environment at hand.
            let below = inner.spawn(async move { tracing::warn!("{name} below") });
            let along = tokio::spawn(along(async move { tracing::warn!("{name} along") }));
            below.await.unwrap();
            along.await.unwrap();
        })
    };
    let (a, b, bare) = (work(&first, "a"), work(&second, "b"), work(&Env::seeded(3), "c"));
    for task in [a, b, bare] {
        task.await.unwrap();
    }
    let twice: Vec<String> = (0..3).flat_map(|n| [format!("a {n}"), format!("a {n}")]).collect();
    assert_eq!(messages(&first_lines), [twice, vec!["a below".to_owned(), "a along".to_owned()]].concat());
    assert_eq!(messages(&second_lines), ["b 0", "b 1", "b 2", "b below", "b along"]);
    assert!(!Log::current().is_there());
}

#[test]
fn a_log_within_another_gives_the_place_back_also_when_it_panics() {
    let ((outer, outer_lines), (inner, inner_lines)) = (log(Level::Warn), log(Level::Warn));
    outer.within(|| {
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            inner.within(|| {
                tracing::warn!("inner");
                panic!("a defect")
            })
        }));
        assert!(panicked.is_err());
        tracing::warn!("outer");
    });
    assert_eq!((messages(&outer_lines), messages(&inner_lines)), (vec!["outer".to_owned()], vec!["inner".to_owned()]));
}

#[tokio::test(start_paused = true)]
async fn a_place_that_repeats_itself_is_silenced_and_says_how_much_was_left_out() {
    let (log, lines) = log(Level::Debug);
    let fail = |n: u32| log.within(|| tracing::debug!(n, "a read failed"));
    (0..1_000).for_each(fail);
    let field = |name: &str| lock(&lines).last().and_then(|line| line.fields.iter().find(|field| field.0 == name).cloned());
    let max = LINES_MAX as usize;
    assert_eq!(lock(&lines).len(), max);
    assert_eq!(field("silentForSeconds"), Some(("silentForSeconds", "60".to_owned())));
    log.within(|| tracing::debug!("another place"));
    assert_eq!(lock(&lines).len(), max + 1);

    tokio::time::advance(WINDOW / 2).await;
    fail(1_000);
    assert_eq!(lock(&lines).len(), max + 1);
    tokio::time::advance(WINDOW / 2).await;
    fail(1_001);
    assert_eq!(lock(&lines).len(), max + 2);
    assert_eq!(field("leftOut"), Some(("leftOut", (1_001 - max).to_string())));
    fail(1_002);
    assert_eq!((field("leftOut"), field("silentForSeconds")), (None, None));
    assert_eq!(lock(&lines).len(), max + 3);
}
