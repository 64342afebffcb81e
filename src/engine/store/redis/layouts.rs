//! How types are laid out: noted once a type, remembered by each process.

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use redis::{Cmd, Value};

use super::super::StreamLayout;
use super::{Shared, reply, scripts};
use crate::engine::env::lock;
use crate::engine::error::{Error, Result};

/// Layouts that this process knows. Only those other than the default: that is what every other type has.
#[derive(Default)]
pub struct Layouts {
    known: Mutex<HashMap<String, StreamLayout>>,
    /// Some type's length is bounded: else nothing is to be looked up for an event.
    bounded: AtomicBool,
}

impl Layouts {
    /// What is known of the type.
    pub fn get(&self, event_type: &str) -> StreamLayout {
        lock(&self.known).get(event_type).cloned().unwrap_or_default()
    }

    /// How many entries a stream of the type may have.
    pub fn length_max(&self, event_type: &str) -> Option<u64> {
        if !self.bounded.load(Ordering::Acquire) {
            return None;
        }
        lock(&self.known).get(event_type)?.length_max
    }

    fn learn(&self, event_type: &str, layout: &StreamLayout) {
        if *layout != StreamLayout::default() {
            lock(&self.known).insert(event_type.to_owned(), layout.clone());
            self.bounded.fetch_or(layout.length_max.is_some(), Ordering::AcqRel);
        }
    }
}

/// What the news of a type's layout begin with.
const NEWS: &str = "stream ";

/// What this version cannot read is of a later one, which can only have added to it.
fn parse(text: &str) -> StreamLayout {
    serde_json::from_str(text).unwrap_or_default()
}

fn to_text(layout: &StreamLayout) -> Result<String> {
    serde_json::to_string(layout).map_err(|error| Error::internal(format!("a layout cannot be written: {error}")))
}

impl Shared {
    fn layout_key(&self) -> String {
        self.keys.global("streams")
    }

    /// Reads all layouts.
    pub fn read_layouts(&self) -> Cmd {
        let mut layouts = redis::cmd("HGETALL");
        layouts.arg(self.layout_key());
        layouts
    }

    /// What [`Shared::read_layouts`] answered.
    pub fn layouts(&self, value: Value) -> Result<BTreeMap<String, StreamLayout>> {
        let mut layouts = BTreeMap::new();
        let mut pairs = reply::list(value)?.into_iter();
        while let (Some(event_type), Some(layout)) = (pairs.next(), pairs.next()) {
            let layout = parse(&reply::text(layout)?);
            if layout != StreamLayout::default() {
                let event_type = reply::text(event_type)?;
                self.layouts.learn(&event_type, &layout);
                layouts.insert(event_type, layout);
            }
        }
        Ok(layouts)
    }

    /// Notes a layout again that this process knows, where it is gone (FLUSHALL): `None` for one that needs no note.
    pub fn note_layout(&self, event_type: &str) -> Result<Option<Cmd>> {
        let layout = self.layouts.get(event_type);
        if layout == StreamLayout::default() {
            return Ok(None);
        }
        let mut note = redis::cmd("HSETNX");
        note.arg(self.layout_key()).arg(event_type).arg(to_text(&layout)?);
        Ok(Some(note))
    }

    /// See `Store::layout`.
    pub async fn layout(&self, event_type: &str) -> Result<StreamLayout> {
        let mut note = redis::cmd("HSETNX");
        note.arg(self.layout_key()).arg(event_type).arg(to_text(&self.layouts.get(event_type))?);
        let mut get = redis::cmd("HGET");
        get.arg(self.layout_key()).arg(event_type);
        let mut values = self.control.run(&[note, get]).await?.into_iter();
        reply::int(&values.next().unwrap_or_default())?;
        let layout = parse(&reply::text(values.next().unwrap_or_default())?);
        self.layouts.learn(event_type, &layout);
        Ok(layout)
    }

    /// See `Store::create_stream`.
    pub async fn create_stream(&self, event_type: &str, layout: &StreamLayout) -> Result<()> {
        let mut create = scripts::call(&scripts::CREATE_STREAM, &[&self.layout_key()]);
        create.arg(event_type).arg(to_text(layout)?).arg(layout.partitions);
        let noted = reply::int(&self.control.query(create).await?)?;
        if noted != i64::from(layout.partitions) {
            return Err(StreamLayout::other_partitions(event_type, noted, layout.partitions));
        }
        self.layouts.learn(event_type, layout);
        self.announce(&format!("{NEWS}{event_type}")).await;
        Ok(())
    }

    /// Takes in an announcement; `None`: some may have been missed. How long a stream may be, publishers hear by this.
    pub async fn heard(&self, news: Option<&str>) -> Result<()> {
        match news.map(|news| news.strip_prefix(NEWS)) {
            None => self.layouts(self.control.query(self.read_layouts()).await?).map(drop),
            Some(None) => Ok(()),
            Some(Some(event_type)) => {
                let mut get = redis::cmd("HGET");
                get.arg(self.layout_key()).arg(event_type);
                let value = self.control.query(get).await?;
                if value != Value::Nil {
                    self.layouts.learn(event_type, &parse(&reply::text(value)?));
                }
                Ok(())
            }
        }
    }
}
