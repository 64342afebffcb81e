//! Which partition an event goes to. How a type is laid out is asked once, before its first event: what comes meanwhile
//! waits, so that the events of a type keep their order.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Token;
use super::courier::CopyOf;
use crate::engine::error::Result;
use crate::engine::event::Priority;
use crate::engine::name;
use crate::engine::store::{Bucket, NewEvent, Partition, Partitioning, Store, StreamLayout};
use crate::engine::trace::Open;

/// Event types remembered, their names found right and their layouts known; beyond this they are asked for anew.
const TYPES_KEPT_MAX: usize = 10_000;
/// Pause before a store that is away is asked again.
const ASK_PAUSE: Duration = Duration::from_millis(50);

/// An event whose partition is not chosen yet.
#[derive(Debug)]
pub struct Draft {
    /// Who waits for it.
    pub token: Token,
    /// The event, in partition 0.
    pub event: NewEvent,
    /// Events with the same one go to the same partition.
    pub key: Option<String>,
    /// Its lane.
    pub lane: Priority,
    /// An answer to it is awaited.
    pub asks: bool,
    /// It is a copy of a message between projects.
    pub copy: Option<CopyOf>,
    /// When it was given to the publisher.
    pub taken: Instant,
    /// The span of its publishing, where its trace is recorded.
    pub span: Option<Open>,
}

impl Draft {
    /// One to which nothing special belongs.
    pub fn new(token: Token, event: NewEvent, lane: Priority, at: Instant) -> Self {
        Self { token, event, key: None, lane, asks: false, copy: None, taken: at, span: None }
    }
}

/// What becomes of an event that is to be placed.
#[allow(clippy::large_enum_variant)] // a box would cost each event an allocation
pub enum Placed {
    /// Its partition is chosen.
    Here(Draft),
    /// It waits for the layout of its type.
    Waits,
    /// The same, and the layout of this type is to be asked for.
    Asks(Arc<str>),
}

struct Route {
    partition: Partition,
    /// Unknown until the store has answered.
    layout: Option<StreamLayout>,
    /// Events spread in turn so far.
    turn: u16,
    waiting: Vec<Draft>,
}

/// Types and their layouts.
#[derive(Default)]
pub struct Placer {
    types: HashMap<Arc<str>, Route>,
    /// Many events in a row have the same type.
    last: Option<Partition>,
    /// And most types have one partition: nothing is to be looked up then.
    single: Option<(Arc<str>, Bucket)>,
}

impl Placer {
    /// Partition 0 of the type. `ERR_INVALID_ARGUMENT` for a name that is none.
    pub fn partition(&mut self, event_type: &str) -> Result<Partition> {
        if let Some(last) = &self.last
            && *last.event_type == *event_type
        {
            return Ok(last.clone());
        }
        if let Some(route) = self.types.get(event_type) {
            return Ok(self.last.insert(route.partition.clone()).clone());
        }
        name::check_event_type(event_type)?;
        Ok(self.last.insert(Partition::new(event_type, 0)).clone())
    }

    /// The bucket of an event that needs no placing, which stays where it is: those of the normal lane of a type with one partition. All of
    /// one stream go this way, or none, so that they keep their order.
    pub fn bucket_of(&self, draft: &Draft) -> Option<Bucket> {
        let (single, bucket) = self.single.as_ref()?;
        let is_in_normal = draft.lane == Priority::Normal || draft.key.is_some();
        let is_single = is_in_normal && Arc::ptr_eq(single, &draft.event.partition.event_type);
        is_single.then_some(*bucket)
    }

    /// Chooses the partition, or keeps the event until the layout is known.
    pub fn place(&mut self, draft: Draft) -> Placed {
        let partition = &draft.event.partition;
        if self.single.as_ref().is_some_and(|(single, _)| Arc::ptr_eq(single, &partition.event_type)) {
            return Placed::Here(in_lane(draft));
        }
        if !self.types.contains_key(&partition.event_type) {
            if self.types.len() >= TYPES_KEPT_MAX {
                self.types.retain(|_, route| route.layout.is_none());
            }
            let route = Route { partition: partition.clone(), layout: None, turn: 0, waiting: vec![draft] };
            let event_type = route.partition.event_type.clone();
            self.types.insert(event_type.clone(), route);
            return Placed::Asks(event_type);
        }
        let Some(route) = self.types.get_mut(&partition.event_type) else { return Placed::Waits };
        let Some(layout) = &route.layout else {
            route.waiting.push(draft);
            return Placed::Waits;
        };
        self.single = (layout.partitions == 1).then(|| (partition.event_type.clone(), partition.bucket()));
        Placed::Here(choose(draft, layout, &mut route.turn))
    }

    /// The layout of the type is known: answers what waited for it.
    pub fn learn(&mut self, event_type: &str, layout: StreamLayout) -> Vec<Draft> {
        let Some(route) = self.types.get_mut(event_type) else { return Vec::new() };
        let waiting = std::mem::take(&mut route.waiting);
        let placed = waiting.into_iter().map(|draft| choose(draft, &layout, &mut route.turn)).collect();
        route.layout = Some(layout);
        placed
    }

    /// The layout could not be had in time: answers what waited for it. The next event asks again.
    pub fn give_up(&mut self, event_type: &str) -> Vec<Draft> {
        self.types.remove(event_type).map(|route| route.waiting).unwrap_or_default()
    }
}

/// A key keeps its events in one stream: in the normal lane, whatever their priority.
fn in_lane(mut draft: Draft) -> Draft {
    if draft.key.is_none() {
        draft.event.partition.lane = draft.lane;
    }
    draft
}

fn choose(draft: Draft, layout: &StreamLayout, turn: &mut u16) -> Draft {
    let mut draft = in_lane(draft);
    let partition = &mut draft.event.partition;
    if layout.partitions > 1 {
        // So that a key is seen by all that come with it.
        let key = draft.key.as_deref().or_else(|| draft.event.idempotency.as_ref().map(|idempotency| idempotency.key.as_str()));
        partition.index = match (key, layout.partitioning) {
            (Some(key), _) => layout.partition_of(key),
            (None, Partitioning::RoundRobin) => {
                *turn = (*turn + 1) % layout.partitions;
                *turn
            }
            (None, Partitioning::Hash | Partitioning::None) => layout.partition_of(&draft.event.id),
        };
    }
    draft
}

/// Asks the store how the type is laid out, again and again while it is away, for `timeout`.
pub async fn ask_layout(store: Arc<dyn Store>, event_type: Arc<str>, timeout: Duration) -> (Arc<str>, Result<StreamLayout>) {
    let end = Instant::now() + timeout;
    loop {
        match store.layout(&event_type).await {
            Err(error) if error.retryable && Instant::now() + ASK_PAUSE < end => tokio::time::sleep(ASK_PAUSE).await,
            result => return (event_type, result),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::store::Idempotency;

    fn draft(event_type: &str, id: &str) -> Draft {
        let event = NewEvent {
            partition: Partition::new(event_type, 0),
            id: id.into(),
            meta: String::new(),
            data: "".into(),
            ttl_ms: None,
            delay_ms: None,
            idempotency: None,
            length_max: None,
            cancelled: None,
            entry: None,
        };
        Draft::new(0, event, Priority::Normal, Instant::now())
    }

    fn placer(layout: StreamLayout) -> Placer {
        let mut placer = Placer::default();
        assert!(matches!(placer.place(draft("t", "first")), Placed::Asks(_)));
        placer.learn("t", layout);
        placer
    }

    fn place(placer: &mut Placer, draft: Draft) -> Partition {
        match placer.place(draft) {
            Placed::Here(draft) => draft.event.partition,
            Placed::Waits | Placed::Asks(_) => panic!("its layout is known"),
        }
    }

    #[test]
    fn events_wait_for_the_layout_of_their_type_and_keep_their_order() {
        let mut placer = Placer::default();
        assert!(matches!(placer.place(draft("t", "1")), Placed::Asks(_)));
        assert!(matches!(placer.place(draft("t", "2")), Placed::Waits), "it is asked for once");
        let waited = placer.learn("t", StreamLayout::default());
        assert_eq!(waited.iter().map(|draft| &*draft.event.id).collect::<Vec<_>>(), ["1", "2"]);
        assert!(matches!(placer.place(draft("t", "3")), Placed::Here(_)));
    }

    #[test]
    fn a_layout_that_could_not_be_had_is_asked_for_again() {
        let mut placer = Placer::default();
        placer.place(draft("t", "1"));
        assert_eq!(placer.give_up("t").len(), 1);
        assert!(matches!(placer.place(draft("t", "2")), Placed::Asks(_)));
    }

    #[test]
    fn priorities_choose_the_lane_and_keys_stay_in_the_normal_one() {
        let mut placer = placer(StreamLayout::default());
        assert_eq!(place(&mut placer, Draft { lane: Priority::Low, ..draft("t", "a") }).lane, Priority::Low);
        let keyed = Draft { lane: Priority::Low, key: Some("k".into()), ..draft("t", "a") };
        assert_eq!(place(&mut placer, keyed).lane, Priority::Normal);
    }

    #[test]
    fn all_events_of_a_stream_go_the_same_way() {
        let mut placer = placer(StreamLayout::default());
        let of_type = |placer: &mut Placer, id: &str| {
            let event_type = placer.partition("t").unwrap();
            let mut draft = draft("t", id);
            draft.event.partition = event_type;
            draft
        };
        let first = of_type(&mut placer, "a");
        place(&mut placer, first);
        for (lane, key, needs_none) in [
            (Priority::Normal, None, true),
            (Priority::Normal, Some("k"), true),
            (Priority::High, Some("k"), true),
            (Priority::High, None, false),
        ] {
            let draft = Draft { lane, key: key.map(Into::into), ..of_type(&mut placer, "b") };
            assert_eq!(placer.bucket_of(&draft).is_some(), needs_none, "{lane:?} {key:?}");
            assert_eq!(place(&mut placer, draft).lane == Priority::Normal, needs_none);
        }
    }

    #[test]
    fn the_same_key_goes_to_the_same_partition_and_events_without_one_are_spread() {
        for partitioning in [Partitioning::Hash, Partitioning::RoundRobin] {
            let mut placer = placer(StreamLayout { partitions: 8, partitioning, ..StreamLayout::default() });
            let keyed = |key: &str| Draft { key: Some(key.into()), ..draft("t", "a") };
            let first = place(&mut placer, keyed("k"));
            assert_eq!(place(&mut placer, keyed("k")), first);
            let mut share = [0; 8];
            for n in 0..800 {
                share[usize::from(place(&mut placer, draft("t", &format!("id-{n}"))).index)] += 1;
            }
            let even = if partitioning == Partitioning::RoundRobin { 100..=100 } else { 60..=140 };
            assert!(share.iter().all(|n| even.contains(n)), "{partitioning:?}: {share:?}");
        }
    }

    #[test]
    fn an_idempotency_key_without_a_partition_key_chooses_the_partition() {
        let mut placer = placer(StreamLayout { partitions: 8, partitioning: Partitioning::RoundRobin, ..StreamLayout::default() });
        let keyed = |id: &str| {
            let mut draft = draft("t", id);
            draft.event.idempotency = Some(Idempotency { key: "once".into(), window_ms: 1 });
            draft
        };
        assert_eq!(place(&mut placer, keyed("a")), place(&mut placer, keyed("b")));
    }
}
