//! JSON that is made up, and JSON that is right but for one place.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

/// A number as it may stand in JSON, bounds and fractions among them.
fn number() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (-3_i64..70_000).prop_map(Value::from),
        any::<f64>().prop_map(|n| serde_json::Number::from_f64(n).map_or(Value::Null, Value::Number)),
        prop_oneof![Just(0.0), Just(-0.0), Just(1e308), Just(5e-324), Just(0.5), Just(9_007_199_254_740_993.0)].prop_map(Value::from),
    ]
}

/// Text that means something somewhere.
const KNOWN: &[&str] = &[
    "",
    " ",
    "a",
    "a.b",
    "a.*",
    "**",
    "*",
    ".",
    "true",
    "6379",
    "localhost",
    "::1",
    "redis://localhost:6379/0",
    "rediss://u:p@h",
    "redis+unix:///tmp/x",
    "memory://",
    "memory://a",
    "redis://",
    "redis://:@",
    "redis://%",
    "redis://[::1",
    "redis://h:99999",
    "none",
    "hash",
    "critical",
    "latest",
    "2024-01-01T00:00:00Z",
    "\u{0}",
    "\u{feff}",
    "é",
    "💥",
    "a\tb",
    "a\nb",
    "{}",
    "$invalid",
];

/// Text: anything, and what means something somewhere.
pub fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        proptest::sample::select(KNOWN).prop_map(str::to_owned),
        any::<String>(),
        "[a-zA-Z0-9_.:/*@%?#\\[\\]-]{0,40}",
        (1_usize..2000).prop_map(|length| "x".repeat(length)),
    ]
}

/// Any JSON of some depth.
pub fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![Just(Value::Null), any::<bool>().prop_map(Value::from), number(), text().prop_map(Value::from)];
    leaf.prop_recursive(4, 24, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            proptest::collection::vec((text(), inner.clone()), 0..6).prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
            inner.prop_map(|value| json!({ "$invalid": value })),
        ]
    })
}

/// The places of all values within one.
fn places(value: &Value, at: &str, out: &mut Vec<String>) {
    out.push(at.to_owned());
    let escaped = |key: &str| key.replace('~', "~0").replace('/', "~1");
    match value {
        Value::Object(map) => map.iter().for_each(|(key, value)| places(value, &format!("{at}/{}", escaped(key)), out)),
        Value::Array(list) => list.iter().enumerate().for_each(|(i, value)| places(value, &format!("{at}/{i}"), out)),
        _ => {}
    }
}

/// `right`, with up to three places changed: another value, an unknown key, or nothing.
pub fn nearly(right: Value) -> impl Strategy<Value = Value> {
    let change = (any::<proptest::sample::Index>(), any_json(), 0..4_u8, text());
    proptest::collection::vec(change, 1..4).prop_map(move |changes| {
        let mut value = right.clone();
        for (index, other, kind, key) in changes {
            let mut all = Vec::new();
            places(&value, "", &mut all);
            let Some(place) = value.pointer_mut(&all[index.index(all.len())]) else { continue };
            match (kind, place) {
                (0, Value::Object(map)) => drop(map.insert(key, other)),
                (1, Value::Object(map)) => {
                    let gone = map.keys().nth(index.index(map.len().max(1))).cloned();
                    gone.map(|key| map.shift_remove(&key));
                }
                (_, place) => *place = other,
            }
        }
        value
    })
}

/// An object of these keys, some of them, with any values.
pub fn with_keys(keys: &'static [&'static str]) -> impl Strategy<Value = Value> {
    let pair = (proptest::sample::select(keys), any_json());
    proptest::collection::vec(pair, 0..8)
        .prop_map(|pairs| Value::Object(pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect::<Map<_, _>>()))
}
