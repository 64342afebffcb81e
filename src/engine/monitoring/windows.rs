//! What happened, by time: the windows of `getAnalytics()`, in bounded memory.
//!
//! At each collection what the counters gained goes into the slot that is open in every window. A window is a ring of slots, so that
//! it slides by a thirtieth of its length; what leaves it was added to its history, total by total.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::engine::metrics::types::{Figures, Types};

/// Slots of a window.
const SLOTS: u64 = 30;
/// Most totals of one window's history; where the retention would need more, each is of a longer time.
const HISTORY_MAX: u64 = 1_500;

/// What happened in a time.
#[derive(Clone, Debug, Default)]
pub struct Span {
    /// Its beginning, ms since monitoring began.
    pub from_ms: u64,
    /// Its end.
    pub to_ms: u64,
    /// Of all types.
    pub total: Figures,
}

#[derive(Default)]
struct Slot {
    span: Span,
    by_type: HashMap<Arc<str>, Figures>,
}

impl Slot {
    fn add(&mut self, gained: &Gained) {
        self.span.to_ms = gained.span.to_ms;
        self.span.total.merge(&gained.span.total);
        for (name, figures) in &gained.by_type {
            self.by_type.entry(name.clone()).or_default().merge(figures);
        }
    }
}

/// What the counters gained since the collection before.
struct Gained {
    span: Span,
    by_type: Vec<(Arc<str>, Figures)>,
}

struct Window {
    length_ms: u64,
    slot_ms: u64,
    /// Oldest first; the last one is open.
    slots: VecDeque<Slot>,
    /// How long a total of the history is.
    point_ms: u64,
    points_max: usize,
    history: VecDeque<Span>,
    /// The total that is not complete.
    open: Span,
}

impl Window {
    fn new(seconds: u64, retention_ms: u64) -> Self {
        let length_ms = seconds * 1000;
        let point_ms = length_ms.max(retention_ms.div_ceil(HISTORY_MAX));
        let begin = Span::default();
        Self {
            length_ms,
            slot_ms: length_ms.div_ceil(SLOTS),
            slots: VecDeque::from([Slot { span: begin.clone(), by_type: HashMap::new() }]),
            point_ms,
            points_max: usize::try_from(retention_ms / point_ms).unwrap_or(usize::MAX).max(1),
            history: VecDeque::new(),
            open: begin,
        }
    }

    fn add(&mut self, gained: &Gained) {
        let now_ms = gained.span.to_ms;
        if self.slots.back().is_none_or(|slot| slot.span.to_ms.saturating_sub(slot.span.from_ms) >= self.slot_ms) {
            let span = Span { from_ms: gained.span.from_ms, ..Span::default() };
            self.slots.push_back(Slot { span, by_type: HashMap::new() });
        }
        if let Some(open) = self.slots.back_mut() {
            open.add(gained);
        }
        while self.slots.len() > 1 && self.slots.front().is_some_and(|slot| slot.span.to_ms + self.length_ms <= now_ms) {
            self.slots.pop_front();
        }
        self.open.to_ms = now_ms;
        self.open.total.merge(&gained.span.total);
        if now_ms.saturating_sub(self.open.from_ms) >= self.point_ms {
            let begin = Span { from_ms: now_ms, to_ms: now_ms, total: Figures::default() };
            self.history.push_back(std::mem::replace(&mut self.open, begin));
            while self.history.len() > self.points_max {
                self.history.pop_front();
            }
        }
    }

    fn read(&self) -> Analysis {
        let mut by_type: HashMap<Arc<str>, Figures> = HashMap::new();
        let mut span = Span::default();
        for slot in &self.slots {
            for (name, figures) in &slot.by_type {
                by_type.entry(name.clone()).or_default().merge(figures);
            }
            span.total.merge(&slot.span.total);
        }
        span.from_ms = self.slots.front().map_or(0, |slot| slot.span.from_ms);
        span.to_ms = self.slots.back().map_or(0, |slot| slot.span.to_ms);
        let mut by_type: Vec<_> = by_type.into_iter().collect();
        let weight = |figures: &Figures| figures.published.max(figures.deliveries());
        by_type.sort_by(|(a_name, a), (b_name, b)| weight(b).cmp(&weight(a)).then_with(|| a_name.cmp(b_name)));
        Analysis { span, by_type, history: self.history.iter().cloned().collect() }
    }
}

/// What a window shows.
pub struct Analysis {
    /// All of it: at most the window's length and a thirtieth more.
    pub span: Span,
    /// By type, the busiest first.
    pub by_type: Vec<(Arc<str>, Figures)>,
    /// Before, in pieces that follow each other, oldest first. The last one may reach into the window.
    pub history: Vec<Span>,
}

/// All windows.
pub struct Windows {
    /// As last read, by type.
    before: HashMap<Arc<str>, Figures>,
    read_ms: u64,
    by_length_s: Vec<(u64, Window)>,
}

impl Windows {
    /// Nothing happened yet.
    pub fn new(lengths_s: &[u64], retention_ms: u64) -> Self {
        let windows = lengths_s.iter().map(|length_s| (*length_s, Window::new(*length_s, retention_ms))).collect();
        Self { before: HashMap::new(), read_ms: 0, by_length_s: windows }
    }

    /// Takes in what the counters gained, `now_ms` after monitoring began. May be called at any time.
    pub fn collect(&mut self, types: &Types, now_ms: u64) {
        // Of two that ask at once, the later may come first.
        let now_ms = now_ms.max(self.read_ms);
        let mut gained = Gained { span: Span { from_ms: self.read_ms, to_ms: now_ms, total: Figures::default() }, by_type: Vec::new() };
        for kind in types.all() {
            let figures = kind.read();
            let mut since = self.before.get(&kind.name).map_or_else(|| figures.clone(), |before| figures.since(before));
            if since.is_empty() {
                continue;
            }
            since.publish_time.max_ns = kind.publish_time.take_max_ns();
            since.processing_time.max_ns = kind.processing_time.take_max_ns();
            since.end_to_end_time.max_ns = kind.end_to_end_time.take_max_ns();
            gained.span.total.merge(&since);
            gained.by_type.push((kind.name.clone(), since));
            self.before.insert(kind.name.clone(), figures);
        }
        self.read_ms = now_ms;
        self.by_length_s.iter_mut().for_each(|(_, window)| window.add(&gained));
    }

    /// The shortest window, s.
    pub fn shortest_s(&self) -> u64 {
        self.by_length_s.iter().map(|(length_s, _)| *length_s).min().unwrap_or_default()
    }

    /// Their lengths, s, as configured.
    pub fn lengths_s(&self) -> Vec<u64> {
        self.by_length_s.iter().map(|(length_s, _)| *length_s).collect()
    }

    /// What that one shows; `None`: there is none of that length.
    pub fn read(&self, length_s: u64) -> Option<Analysis> {
        self.by_length_s.iter().find(|(length, _)| *length == length_s).map(|(_, window)| window.read())
    }

    /// Points and slots that are kept.
    #[cfg(test)]
    fn kept(&self) -> usize {
        self.by_length_s.iter().map(|(_, window)| window.slots.len() + window.history.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;
    use std::time::Duration;

    use super::*;

    fn publish(types: &Types, name: &str, count: u64) {
        let kind = types.of(&name.into());
        kind.published.fetch_add(count, Ordering::Relaxed);
        kind.publish_time.add(Duration::from_millis(count), count);
    }

    #[test]
    fn a_window_slides_and_its_history_holds_what_left_it() {
        let (types, mut windows) = (Types::default(), Windows::new(&[60, 300], 3_600_000));
        // An event a second for ten minutes, collected every ten.
        for step in 1..=60 {
            publish(&types, "a", 10);
            windows.collect(&types, step * 10_000);
        }
        let minute = windows.read(60).unwrap();
        assert!((60..=70).contains(&minute.span.total.published), "{}", minute.span.total.published);
        assert_eq!(minute.span.total.published * 1000, minute.span.to_ms - minute.span.from_ms);
        let five = windows.read(300).unwrap();
        assert!((300..=310).contains(&five.span.total.published));
        assert_eq!(minute.history.len(), 10);
        assert!(minute.history.iter().all(|span| span.total.published == 60 && span.to_ms - span.from_ms == 60_000));
        assert!(minute.history.windows(2).all(|pair| pair[0].to_ms == pair[1].from_ms));
        // Nothing more comes: the window empties.
        for step in 61..=70 {
            windows.collect(&types, step * 10_000);
        }
        assert_eq!(windows.read(60).unwrap().span.total, Figures::default());
    }

    #[test]
    fn types_are_told_apart_the_busiest_first() {
        let (types, mut windows) = (Types::default(), Windows::new(&[60], 3_600_000));
        publish(&types, "a", 3);
        publish(&types, "b", 7);
        windows.collect(&types, 1000);
        publish(&types, "a", 1);
        windows.collect(&types, 1500);
        let read = windows.read(60).unwrap();
        let counts: Vec<_> = read.by_type.iter().map(|(name, figures)| (name.as_ref(), figures.published)).collect();
        assert_eq!(counts, [("b", 7), ("a", 4)]);
        assert_eq!(read.span.total.publish_time.max_ns, 7_000_000);
    }

    #[test]
    fn however_long_it_is_kept_memory_is_bounded() {
        let (types, mut windows) = (Types::default(), Windows::new(&[1, 60, 3600], 30 * 86_400_000));
        for step in 1..200_000_u64 {
            windows.collect(&types, step * 10_000);
        }
        assert!(windows.kept() <= 3 * 1_532, "{}", windows.kept());
    }
}
