//! Data as the validator sees it, with a meter. What a check costs is decided by schema and data together, and both come from
//! others: a union that refers to itself can be wrong in 2 to the power of its nesting ways, and the validator would list them
//! all. It cannot be told to give up, so what it asks of the data is counted, and past the bound it is unwound.

use std::borrow::Cow;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use jsonschema::JsonType;
use jsonschema::json::{Array, Json, Node, NodeIdentity, Object, SerdeJson, unique};
use serde_json::{Map, Number, Value};

/// Most that one check costs: questions about the data. About 0.2 s.
const COST_MAX: u64 = 20_000_000;
/// What a failure costs, which is kept with its paths.
const FAILURE_COST: u64 = 10_000;
/// What each part of the failing data costs, of which a union keeps a copy.
const COPY_COST: u64 = 40;
/// Bytes of a string that cost as much as a question; also bytes times the states of a regular expression, all of which each byte
/// may have to be tried in.
pub(super) const BYTES_A_COST: usize = 8;
/// Most stack that a check takes, bytes. A thread has 2 MiB.
const STACK_BYTES_MAX: usize = 768 << 10;

/// The meter of a check.
#[derive(Clone, Copy)]
struct Meter {
    left: u64,
    stack_start: usize,
    /// States of all regular expressions that names of members are matched with.
    name_states: usize,
}

thread_local! {
    /// `None`: nothing is counted.
    static METER: Cell<Option<Meter>> = const { Cell::new(None) };
}

/// What is thrown past the bound.
struct Spent;

/// What `check` returns; `None` when it costs too much, or when the validator has a defect and panics.
/// `name_states`: states of all regular expressions that names of members are matched with.
pub(super) fn within_bounds<T>(name_states: usize, check: impl FnOnce() -> T) -> Option<T> {
    METER.set(Some(Meter { left: COST_MAX, stack_start: stack_address(), name_states }));
    let result = catch_unwind(AssertUnwindSafe(check));
    METER.set(None);
    result.ok()
}

#[inline(never)]
fn stack_address() -> usize {
    let here = 0_u8;
    std::ptr::from_ref(&here).addr()
}

fn spend(cost: u64) {
    let Some(meter) = METER.get() else { return };
    if meter.left < cost || meter.stack_start.abs_diff(stack_address()) > STACK_BYTES_MAX {
        // Unlike a panic, this is not reported on standard error.
        resume_unwind(Box::new(Spent));
    }
    METER.set(Some(Meter { left: meter.left - cost, ..meter }));
}

/// One more than `count`.
pub(super) fn spend_many(count: usize) {
    spend(count as u64 + 1);
}

/// What it costs to read all of a value.
fn size(value: &Value) -> usize {
    match value {
        Value::String(text) => 1 + text.len() / BYTES_A_COST,
        Value::Array(items) => 1 + items.iter().map(size).sum::<usize>(),
        Value::Object(members) => 1 + members.values().map(|value| 1 + size(value)).sum::<usize>(),
        _ => 1,
    }
}

/// `serde_json::Value`, with a meter.
pub(super) struct Metered;

impl Json for Metered {
    type Node<'a> = &'a Value;
    type PreparedKey = String;
    type StringBuffer = ();

    const KEYS_PER_LOOKUP: usize = SerdeJson::KEYS_PER_LOOKUP;
    const ACYCLIC: bool = true;

    fn prepare_key(key: &str) -> String {
        key.to_owned()
    }

    fn with_string_node<T>((): &mut (), string: &str, f: impl FnOnce(&Value) -> T) -> T {
        spend_many(string.len() / BYTES_A_COST);
        SerdeJson::with_string_node(&mut (), string, f)
    }
}

/// A value as the crate itself sees it.
fn plain<'a, 'n>(node: &'n &'a Value) -> &'n impl Node<'a, SerdeJson> {
    node
}

impl<'a> Node<'a, Metered> for &'a Value {
    type Object = &'a Map<String, Value>;
    type Array = &'a [Value];
    type Number = &'a Number;

    fn as_object(&self) -> Option<Self::Object> {
        spend(1);
        Value::as_object(self)
    }

    fn as_array(&self) -> Option<Self::Array> {
        spend(1);
        Value::as_array(self).map(Vec::as_slice)
    }

    fn as_string(&self) -> Option<Cow<'a, str>> {
        let text = Value::as_str(self);
        spend_many(text.map_or(0, str::len) / BYTES_A_COST);
        text.map(Cow::Borrowed)
    }

    fn as_number(&self) -> Option<Self::Number> {
        spend(1);
        Value::as_number(self)
    }

    fn as_boolean(&self) -> Option<bool> {
        spend(1);
        Value::as_bool(self)
    }

    fn is_null(&self) -> bool {
        spend(1);
        Value::is_null(self)
    }

    fn json_type(&self) -> JsonType {
        spend(1);
        plain(self).json_type()
    }

    fn string_length(&self) -> Option<u64> {
        spend(1);
        plain(self).string_length()
    }

    fn string_length_within(&self, min: u64, max: u64) -> Option<bool> {
        spend(1);
        plain(self).string_length_within(min, max)
    }

    fn equals_value(&self, expected: &Value) -> bool {
        spend(1);
        plain(self).equals_value(expected)
    }

    fn to_value(&self) -> Cow<'a, Value> {
        spend(FAILURE_COST + COPY_COST * size(self) as u64);
        Cow::Borrowed(self)
    }

    fn identity(&self) -> Option<NodeIdentity> {
        spend(1);
        plain(self).identity()
    }
}

impl<'a> Object<'a, Metered> for &'a Map<String, Value> {
    type Node = &'a Value;
    type MemberName = &'a str;
    type MembersIter = <Self as Object<'a, SerdeJson>>::MembersIter;

    fn len(&self) -> usize {
        Map::len(self)
    }

    fn get(&self, key: &String) -> Option<&'a Value> {
        Object::<SerdeJson>::get(self, key)
    }

    fn members(&self) -> Self::MembersIter {
        let name_states = METER.get().map_or(0, |meter| meter.name_states);
        spend_many(match name_states {
            0 => Map::len(self),
            _ => self.keys().map(|name| 1 + (name.len() * name_states) / BYTES_A_COST).sum(),
        });
        Object::<SerdeJson>::members(self)
    }
}

impl<'a> Array<'a, Metered> for &'a [Value] {
    type Node = &'a Value;
    type ElementsIter = std::slice::Iter<'a, Value>;

    fn len(&self) -> usize {
        <[Value]>::len(self)
    }

    fn elements(&self) -> Self::ElementsIter {
        self.iter()
    }

    fn is_unique(&self) -> bool {
        spend_many(self.iter().map(size).sum());
        unique::is_unique(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_costs_too_much_is_given_up() {
        let text = Value::String("x".repeat(1 << 20));
        let ask = |times: usize| within_bounds(0, || (0..times).filter(|_| Node::<Metered>::as_string(&&text).is_some()).count());
        assert_eq!(ask(100), Some(100));
        assert_eq!(ask(1000), None);
        assert_eq!(ask(100), Some(100), "each check has its own bounds");
    }

    #[test]
    fn what_takes_too_much_stack_is_given_up() {
        fn down(levels: u32) -> u32 {
            let room = [levels; 64];
            spend(1);
            if levels == 0 { 0 } else { down(levels - 1) + u32::from(std::hint::black_box(room)[0] > 0) }
        }
        assert_eq!(within_bounds(0, || down(100)), Some(100));
        assert_eq!(within_bounds(0, || down(1_000_000)), None);
    }

    #[test]
    fn a_panic_within_is_kept_within() {
        assert_eq!(within_bounds(0, || -> u32 { resume_unwind(Box::new("a defect")) }), None);
        assert!(METER.get().is_none());
    }
}
