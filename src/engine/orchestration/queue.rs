//! Tasks that wait for an agent. Those that need the same are of one class: whether there is an agent for one of them is the same
//! question for all.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;

/// Classes that are kept though nothing of them waits.
const CLASSES_KEPT: usize = 1_000;

/// Place in the queue: higher priorities first, then who came first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rank {
    /// Lower for higher priorities.
    urgency: u64,
    submitted_ms: u64,
    number: u64,
}

impl Rank {
    fn new(priority: f64, submitted_ms: u64, number: u64) -> Self {
        // The bits of floating-point numbers are in order, but for the sign.
        let bits = (priority + 0.0).to_bits();
        let ascending = if bits >> 63 == 1 { !bits } else { bits | 1 << 63 };
        Self { urgency: !ascending, submitted_ms, number }
    }
}

/// Tasks that need the same.
#[derive(Debug, Default)]
pub struct Class {
    /// What they need, in order.
    pub required: Vec<String>,
    /// Agents that can do it, by their slot.
    pub fitting: Vec<usize>,
    /// Since when there is none though something waits, ms since 1970.
    pub lonely_since_ms: Option<u64>,
    /// When that was told last.
    pub lonely_told_ms: u64,
    waiting: BTreeMap<Rank, String>,
}

impl Class {
    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }
}

/// All that waits.
#[derive(Debug, Default)]
pub struct Queue {
    classes: Vec<Class>,
    unused: Vec<usize>,
    by_required: HashMap<Vec<String>, usize>,
    places: HashMap<String, (usize, Rank)>,
    /// Classes of which nothing waits.
    empty: usize,
    number: u64,
}

impl Queue {
    /// How many wait.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Adds a task; `fitting` answers who can do what is needed, where that is not known yet.
    pub fn push(&mut self, id: &str, required: &[String], priority: f64, submitted_ms: u64, fitting: impl FnOnce() -> Vec<usize>) {
        let class = match self.by_required.get(required) {
            Some(class) => *class,
            None => self.open(required, fitting()),
        };
        self.empty -= usize::from(self.classes[class].waiting.is_empty());
        self.number += 1;
        let rank = Rank::new(priority, submitted_ms, self.number);
        self.classes[class].waiting.insert(rank, id.to_owned());
        self.places.insert(id.to_owned(), (class, rank));
    }

    fn open(&mut self, required: &[String], fitting: Vec<usize>) -> usize {
        if self.empty >= CLASSES_KEPT {
            self.forget_empty();
        }
        self.empty += 1;
        let class = Class { required: required.to_vec(), fitting, ..Class::default() };
        let at = self.unused.pop().unwrap_or_else(|| {
            self.classes.push(Class::default());
            self.classes.len() - 1
        });
        self.classes[at] = class;
        self.by_required.insert(required.to_vec(), at);
        at
    }

    fn forget_empty(&mut self) {
        let (classes, unused) = (&mut self.classes, &mut self.unused);
        self.by_required.retain(|_, at| {
            let keeps = !classes[*at].waiting.is_empty();
            if !keeps {
                classes[*at] = Class::default();
                unused.push(*at);
            }
            keeps
        });
        self.empty = 0;
    }

    /// Takes a task out; answers whether it was there.
    pub fn remove(&mut self, id: &str) -> bool {
        let Some((class, rank)) = self.places.remove(id) else { return false };
        self.classes[class].waiting.remove(&rank);
        self.empty += usize::from(self.classes[class].waiting.is_empty());
        true
    }

    /// An agent came.
    pub fn joined(&mut self, slot: usize, can: impl Fn(&[String]) -> bool) {
        for at in self.by_required.values() {
            let class = &mut self.classes[*at];
            if can(&class.required) {
                class.fitting.push(slot);
            }
        }
    }

    /// An agent went.
    pub fn left(&mut self, slot: usize) {
        for class in &mut self.classes {
            class.fitting.retain(|one| *one != slot);
        }
    }

    /// A class.
    pub fn class(&self, at: usize) -> &Class {
        &self.classes[at]
    }

    /// All of which something waits.
    pub fn classes_mut(&mut self) -> impl Iterator<Item = &mut Class> {
        self.classes.iter_mut().filter(|class| !class.waiting.is_empty())
    }

    /// The same, to look at.
    pub fn classes(&self) -> impl Iterator<Item = &Class> {
        self.classes.iter().filter(|class| !class.waiting.is_empty())
    }

    /// The first of each class, to be walked in order.
    pub fn walk(&self) -> Walk {
        let first = |(at, class): (usize, &Class)| class.waiting.keys().next().map(|rank| (*rank, at));
        Walk { heads: self.classes.iter().enumerate().filter_map(first).collect(), last: None }
    }
}

/// A way through what waits, in order.
#[derive(Debug)]
pub struct Walk {
    heads: BTreeSet<(Rank, usize)>,
    /// The one that was told last: what is behind it in its class comes next.
    last: Option<(Rank, usize)>,
}

impl Walk {
    /// The next task, and its class.
    pub fn next(&mut self, queue: &Queue) -> Option<(usize, String)> {
        if let Some((rank, class)) = self.last.take()
            && let Some((next, _)) = queue.classes[class].waiting.range((Bound::Excluded(rank), Bound::Unbounded)).next()
        {
            self.heads.insert((*next, class));
        }
        let (rank, class) = self.heads.pop_first()?;
        self.last = Some((rank, class));
        Some((class, queue.classes[class].waiting.get(&rank)?.clone()))
    }

    /// None of the class of the last one is looked at any more.
    pub fn skip(&mut self) {
        self.last = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(queue: &Queue) -> Vec<String> {
        let mut walk = queue.walk();
        std::iter::from_fn(|| walk.next(queue)).map(|(_, id)| id).collect()
    }

    fn push(queue: &mut Queue, id: &str, required: &[&str], priority: f64, at_ms: u64) {
        let required: Vec<String> = required.iter().map(|name| (*name).to_owned()).collect();
        queue.push(id, &required, priority, at_ms, Vec::new);
    }

    #[test]
    fn priority_goes_first_then_who_came_first_over_all_classes() {
        let mut queue = Queue::default();
        for (id, required, priority, at_ms) in
            [("low", "a", -2.5, 1), ("late", "a", 1.0, 9), ("early", "b", 1.0, 3), ("zero", "b", -0.0, 2), ("high", "b", 1e6, 20)]
        {
            push(&mut queue, id, &[required], priority, at_ms);
        }
        push(&mut queue, "zero too", &["c"], 0.0, 2);
        assert_eq!(order(&queue), ["high", "early", "late", "zero", "zero too", "low"]);
        assert!(queue.remove("late") && !queue.remove("late"));
        assert_eq!((order(&queue).len(), queue.len()), (5, 5));
    }

    #[test]
    fn a_class_that_is_skipped_holds_up_no_other() {
        let mut queue = Queue::default();
        for n in 0..3 {
            push(&mut queue, &format!("a{n}"), &["a"], 5.0, n);
            push(&mut queue, &format!("b{n}"), &["b"], 1.0, n);
        }
        let mut walk = queue.walk();
        let (class, id) = walk.next(&queue).unwrap();
        assert_eq!((id.as_str(), queue.class(class).waiting()), ("a0", 3));
        walk.skip();
        assert_eq!(std::iter::from_fn(|| walk.next(&queue)).map(|(_, id)| id).collect::<Vec<_>>(), ["b0", "b1", "b2"]);
    }

    #[test]
    fn agents_belong_to_the_classes_they_can_do() {
        let mut queue = Queue::default();
        queue.push("t", &["a".to_owned()], 0.0, 0, || vec![7]);
        queue.push("u", &["a".to_owned()], 0.0, 0, || panic!("it is known"));
        queue.joined(8, |required| required == ["a"]);
        queue.joined(9, |_| false);
        let class = queue.walk().next(&queue).unwrap().0;
        assert_eq!(queue.class(class).fitting, [7, 8]);
        queue.left(7);
        assert_eq!(queue.class(class).fitting, [8]);
    }

    #[test]
    fn classes_of_which_nothing_waits_are_forgotten_in_the_end() {
        let mut queue = Queue::default();
        for n in 0..CLASSES_KEPT * 3 {
            let id = n.to_string();
            push(&mut queue, &id, &[&id], 0.0, 0);
            if n != 5 {
                queue.remove(&id);
            }
        }
        assert!(queue.classes.len() <= CLASSES_KEPT + 1);
        assert_eq!(order(&queue), ["5"]);
    }
}
