//! Levels that no log of the process wants cost one comparison. A process of its own: every log counts.

use ossa::engine::log::{Level, Log};
use tracing::level_filters::LevelFilter;

#[test]
fn the_macros_know_the_lowest_level_of_all_logs_there_are() {
    assert_eq!(LevelFilter::current(), LevelFilter::OFF);
    let log = |level| Log::new(level, |_| {});
    let warn = log(Level::Warn);
    assert_eq!(LevelFilter::current(), LevelFilter::WARN);
    let (debug, again) = (log(Level::Debug), log(Level::Debug));
    assert_eq!(LevelFilter::current(), LevelFilter::DEBUG);
    drop(debug);
    assert_eq!(LevelFilter::current(), LevelFilter::DEBUG);
    drop(again);
    assert_eq!(LevelFilter::current(), LevelFilter::WARN);
    let info = log(Level::Info);
    drop(warn);
    assert_eq!(LevelFilter::current(), LevelFilter::INFO);
    drop(info);
    assert_eq!(LevelFilter::current(), LevelFilter::OFF);
}
