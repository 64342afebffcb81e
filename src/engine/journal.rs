//! The journal of debug mode: what each event went through, one line a step, for `monitoring.tracing.samplingRate`.
//!
//! Every line begins with `event=<id> type=<event type> step=<step>`; what follows are `key=value` pairs. The data of an
//! event never stands in it. Which events are taken is decided by their id alone, so that all processes with the same
//! rate write down the same events, from publishing to the last acknowledgement.

use std::fmt::{self, Write};
use std::sync::Arc;

use tokio::time::Instant;

use super::config::{BusConfig, Tracing};
use super::error::Result;
use super::host::Lifecycle;
use super::store::{Appended, DeadReason, Disposal, Held, NewEvent, Partition, Settled};

/// Longest error text in a line, characters: it comes from handlers, and a log is no place for a page.
const ERROR_MAX: usize = 500;

/// Says which events are written down. One comparison where debug mode is off.
#[derive(Clone, Copy, Debug, Default)]
pub struct Journal {
    /// Share of the events, 0 to 1.
    rate: f64,
}

/// A hash of an event's id, in `0.0..1.0`. Processes of all versions agree on it.
pub(super) fn place(id: &str) -> f64 {
    let hash = id.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    // The last bytes of an id, which differ most, reach the high bits only by more mixing.
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    let high = u32::try_from(hash >> 32).expect("half of a 64-bit number fits");
    f64::from(high) / (f64::from(u32::MAX) + 1.0)
}

impl From<&BusConfig> for Journal {
    /// Debug mode is on where a rate was given: `tracing: true` alone is not.
    fn from(config: &BusConfig) -> Self {
        let Tracing { enabled, sampling_rate } = &config.monitoring.tracing;
        Self { rate: if *enabled { sampling_rate.unwrap_or(0.0) } else { 0.0 } }
    }
}

impl Journal {
    /// Whether the event with this id is written down. What has no id never is.
    pub fn takes(self, id: &str) -> bool {
        self.rate > 0.0 && !id.is_empty() && place(id) < self.rate
    }

    /// Notes events on their way to the store; nothing where none is written down.
    pub fn begin(self, events: &[NewEvent]) -> Option<Publishing> {
        if self.rate <= 0.0 {
            return None;
        }
        let taken = events.iter().enumerate().filter(|(_, event)| self.takes(&event.id));
        let events: Vec<_> = taken
            .map(|(at, event)| Sent { at, id: event.id.clone(), partition: event.partition.clone(), delay_ms: event.delay_ms })
            .collect();
        (!events.is_empty()).then(|| Publishing { began: Instant::now(), events })
    }

    /// An entry was taken for handlers of this group.
    pub fn delivered(self, id: &str, group: &str, consumer: &str, held: &Held) -> Option<Lifecycle> {
        self.takes(id).then(|| {
            let about = format_args!("group={group} consumer={consumer} attempt={} entry={}", held.deliveries, held.id);
            line(id, &held.partition.event_type, "delivered", about)
        })
    }

    /// No filter of this group takes it: it is done with, and no handler sees it.
    pub fn filtered(self, id: &str, group: &str, held: &Held) -> Option<Lifecycle> {
        self.takes(id).then(|| Of { id, group, held }.line("filtered", format_args!("")))
    }

    /// What became of a delivery, once the store has it: one line, or two where a failure led to it.
    pub fn ended(self, id: &str, group: &str, held: &Held, end: &End<'_>) -> Vec<Lifecycle> {
        if !self.takes(id) {
            return Vec::new();
        }
        let of = Of { id, group, held };
        if end.settled == Settled::NotHeld {
            let why = end.refused.unwrap_or("it is not held here any more");
            return vec![of.line("not-settled", format_args!(" error={}", Quoted(why)))];
        }
        let ms = end.duration_ms;
        let mut lines = Vec::new();
        if let Some(error) = end.error {
            lines.push(of.line("failed", format_args!(" ms={ms:.1} error={}", Quoted(error))));
        }
        match end.disposal {
            _ if end.expired => {
                let dead = matches!(end.disposal, Disposal::DeadLetter { .. });
                lines.push(of.line("expired", format_args!(" dead-lettered={dead}")));
            }
            Disposal::Acknowledge => lines.push(of.line("acknowledged", format_args!(" ms={ms:.1}"))),
            Disposal::Retry { delay_ms, .. } => lines.push(of.line("retried", format_args!(" in-ms={delay_ms}"))),
            Disposal::HandBack => lines.push(of.line("handed-back", format_args!(""))),
            Disposal::DeadLetter { reason, error, .. } => lines.push(of.dead_lettered(*reason, error)),
        }
        lines
    }

    /// An event that its process did not survive became a dead letter, found by the upkeep.
    pub fn crashed(self, id: &str, event_type: &str, group: &str, attempts: u32) -> Option<Lifecycle> {
        let reason = DeadReason::Crashed.as_str();
        self.takes(id).then(|| line(id, event_type, "dead-lettered", format_args!("group={group} attempt={attempts} reason={reason}")))
    }

    /// An event expired before the group got it, found by the upkeep.
    pub fn expired(self, id: &str, event_type: &str, group: &str, dead_lettered: bool) -> Option<Lifecycle> {
        self.takes(id).then(|| line(id, event_type, "expired", format_args!("group={group} dead-lettered={dead_lettered}")))
    }
}

/// How a delivery ended.
pub struct End<'a> {
    /// What became of it.
    pub disposal: &'a Disposal,
    /// Whether the store did it.
    pub settled: Settled,
    /// Why the store refused, if it did.
    pub refused: Option<&'a str>,
    /// Error of a handler.
    pub error: Option<&'a str>,
    /// ms its handlers took.
    pub duration_ms: f64,
    /// It expired before it was delivered.
    pub expired: bool,
}

/// Events on their way to the store that are written down.
pub struct Publishing {
    began: Instant,
    events: Vec<Sent>,
}

struct Sent {
    /// Its place among the results.
    at: usize,
    id: Arc<str>,
    partition: Partition,
    delay_ms: Option<u64>,
}

impl Publishing {
    /// The store's answers, in the order of the events.
    pub fn stored(self, results: &[Result<Appended>]) -> Vec<Lifecycle> {
        let ms = self.began.elapsed().as_secs_f64() * 1000.0;
        let said = self.events.into_iter().filter_map(|sent| {
            let about = |step, more: fmt::Arguments<'_>| {
                let Partition { event_type, .. } = &sent.partition;
                let where_to = format_args!("stream={} bucket={} ms={ms:.1}{more}", sent.partition, sent.partition.bucket().0);
                line(&sent.id, event_type, step, where_to)
            };
            Some(match (results.get(sent.at)?, sent.delay_ms) {
                (Ok(Appended::Stored), None) => about("published", format_args!("")),
                (Ok(Appended::Stored), Some(delay)) => about("published", format_args!(" delay-ms={delay}")),
                (Ok(Appended::Duplicate(first)), _) => about("published", format_args!(" duplicate-of={}", Plain(first))),
                (Err(error), _) => about("not-published", format_args!(" error={}", Quoted(&error.message))),
            })
        });
        said.collect()
    }
}

/// A delivery that lines speak of.
struct Of<'a> {
    id: &'a str,
    group: &'a str,
    held: &'a Held,
}

impl Of<'_> {
    fn line(&self, step: &str, more: fmt::Arguments<'_>) -> Lifecycle {
        let Held { partition, id, deliveries } = self.held;
        let about = format_args!("group={} attempt={deliveries} entry={id}{more}", self.group);
        line(self.id, &partition.event_type, step, about)
    }

    fn dead_lettered(&self, reason: DeadReason, error: &str) -> Lifecycle {
        self.line("dead-lettered", format_args!(" reason={} error={}", reason.as_str(), Quoted(error)))
    }
}

fn line(id: &str, event_type: &str, step: &str, about: fmt::Arguments<'_>) -> Lifecycle {
    Lifecycle::journal(format!("event={} type={event_type} step={step} {about}", Plain(id)))
}

/// A text in quotes that stays on its line, cut where it is long.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        for c in self.0.chars().take(ERROR_MAX) {
            match c {
                '"' | '\\' => write!(f, "\\{c}")?,
                c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') => write!(f, "{}", c.escape_unicode())?,
                c => f.write_char(c)?,
            }
        }
        f.write_str(if self.0.chars().nth(ERROR_MAX).is_some() { "…\"" } else { "\"" })
    }
}

/// An id as it is; in quotes where somebody else chose it and it could pass for more than one value.
struct Plain<'a>(&'a str);

impl fmt::Display for Plain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain =
            self.0.len() <= ERROR_MAX && self.0.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b':'));
        if plain { f.write_str(self.0) } else { Quoted(self.0).fmt(f) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::env::Env;
    use crate::engine::error::{Code, Error};
    use crate::engine::store::EntryId;

    const ID: &str = "018bcfe5-6800-7000-8000-000000000001";

    fn text(line: &Lifecycle) -> String {
        assert_eq!(line.1["level"], "debug");
        line.1["message"].as_str().unwrap().to_owned()
    }

    fn texts(lines: &[Lifecycle]) -> Vec<String> {
        lines.iter().map(text).collect()
    }

    fn held() -> Held {
        Held { partition: Partition::new("a.b", 0), id: EntryId { ms: 7, seq: 1 }, deliveries: 2 }
    }

    fn end<'a>(disposal: &'a Disposal, error: Option<&'a str>) -> End<'a> {
        End { disposal, settled: Settled::Done, refused: None, error, duration_ms: 1.26, expired: false }
    }

    fn event(id: &str, delay_ms: Option<u64>) -> NewEvent {
        NewEvent {
            partition: Partition::new("a.b", 0),
            id: id.into(),
            meta: String::new(),
            data: "\"secret\"".into(),
            ttl_ms: None,
            delay_ms,
            idempotency: None,
            length_max: None,
            entry: None,
            cancelled: None,
        }
    }

    const ALL: Journal = Journal { rate: 1.0 };

    #[tokio::test(start_paused = true)]
    async fn the_rate_is_the_share_of_events_and_a_lower_one_takes_a_part_of_them() {
        let env = Env::seeded(1);
        let ids: Vec<std::sync::Arc<str>> = (0..20_000).map(|_| env.new_id()).collect();
        let share = |rate: f64| ids.iter().filter(|id| Journal { rate }.takes(id)).count();
        assert_eq!((share(0.0), share(1.0)), (0, ids.len()));
        for (rate, least, most) in [(0.5, 9_700, 10_300), (0.1, 1_850, 2_150), (0.01, 140, 260)] {
            let count = share(rate);
            assert!((least..=most).contains(&count), "{count} of {} at {rate}", ids.len());
        }
        assert!(ids.iter().all(|id| !Journal { rate: 0.1 }.takes(id) || Journal { rate: 0.5 }.takes(id)));
    }

    #[test]
    fn the_choice_is_the_same_in_every_version() {
        let near = |id: &str, at: f64| assert!((place(id) - at).abs() < 1e-6, "{id}: {}", place(id));
        near(ID, 0.284_327);
        near("a", 0.510_295);
    }

    #[test]
    fn what_has_no_id_is_not_written_down() {
        assert!(!ALL.takes(""));
        assert!(ALL.delivered("", "g", "c", &held()).is_none());
    }

    #[test]
    fn lines_of_a_delivery() {
        let start = format!("event={ID} type=a.b step=");
        let delivered = ALL.delivered(ID, "g", "c-1", &held()).unwrap();
        assert_eq!(text(&delivered), format!("{start}delivered group=g consumer=c-1 attempt=2 entry=7-1"));

        let about = "group=g attempt=2 entry=7-1";
        assert_eq!(text(&ALL.filtered(ID, "g", &held()).unwrap()), format!("{start}filtered {about}"));
        let said = |disposal: &Disposal, error| texts(&ALL.ended(ID, "g", &held(), &end(disposal, error)));
        assert_eq!(said(&Disposal::Acknowledge, None), [format!("{start}acknowledged {about} ms=1.3")]);
        assert_eq!(said(&Disposal::HandBack, None), [format!("{start}handed-back {about}")]);
        let retry = Disposal::Retry { delay_ms: 20, error: "no".into() };
        assert_eq!(
            said(&retry, Some("no")),
            [format!("{start}failed {about} ms=1.3 error=\"no\""), format!("{start}retried {about} in-ms=20")]
        );
        let dead = Disposal::DeadLetter { reason: DeadReason::MaxAttempts, error: "no".into(), attempts: 2 };
        assert_eq!(said(&dead, Some("no"))[1], format!("{start}dead-lettered {about} reason=max-attempts error=\"no\""));

        let expired = End { expired: true, ..end(&dead, None) };
        assert_eq!(texts(&ALL.ended(ID, "g", &held(), &expired)), [format!("{start}expired {about} dead-lettered=true")]);
        let lost = End { settled: Settled::NotHeld, ..end(&dead, Some("no")) };
        assert_eq!(
            texts(&ALL.ended(ID, "g", &held(), &lost)),
            [format!("{start}not-settled {about} error=\"it is not held here any more\"")]
        );
        let refused = End { refused: Some("NOPERM"), ..lost };
        assert_eq!(texts(&ALL.ended(ID, "g", &held(), &refused)), [format!("{start}not-settled {about} error=\"NOPERM\"")]);
        assert!(Journal::default().ended(ID, "g", &held(), &end(&dead, Some("no"))).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn lines_of_publishes_name_the_place_and_never_the_data() {
        assert!(Journal::default().begin(&[event(ID, None)]).is_none());
        let publishing = ALL.begin(&[event(ID, None), event("d", Some(50)), event("e", None), event("f", None)]).unwrap();
        tokio::time::advance(std::time::Duration::from_millis(3)).await;
        let refused = Err(Error::new(Code::Connection, "gone"));
        let said = texts(&publishing.stored(&[Ok(Appended::Stored), Ok(Appended::Stored), Ok(Appended::Duplicate("d".into())), refused]));
        let place = format!("stream=a.b:0 bucket={} ms=3.0", Partition::new("a.b", 0).bucket().0);
        assert_eq!(
            said,
            [
                format!("event={ID} type=a.b step=published {place}"),
                format!("event=d type=a.b step=published {place} delay-ms=50"),
                format!("event=e type=a.b step=published {place} duplicate-of=d"),
                format!("event=f type=a.b step=not-published {place} error=\"gone\""),
            ]
        );
    }

    #[test]
    fn a_line_stays_one_line_and_its_texts_are_bounded() {
        let error = format!("a \"b\"\\\n\u{2028}{}", "x".repeat(1000));
        let ignored = texts(&ALL.ended("1 step=forged\n", "g", &held(), &end(&Disposal::Acknowledge, Some(&error))));
        assert!(ignored[0].starts_with(r#"event="1 step=forged\u{a}" type=a.b step=failed"#), "{ignored:?}");
        assert!(ignored[0].contains(r#"error="a \"b\"\\\u{a}\u{2028}xxx"#) && ignored[0].ends_with("x…\""), "{ignored:?}");
        assert!(ignored.iter().all(|line| line.lines().count() == 1 && line.len() < 700));
    }
}
