use std::time::{Duration, Instant};

use serde_json::Map;

use super::*;

fn compile(schema: &Value) -> Schema {
    Schema::compile(schema, "contract.schema").unwrap_or_else(|error| panic!("{schema}: {error}"))
}

fn refused(schema: &Value, path: &str) -> Error {
    let error = Schema::compile(schema, "contract.schema").expect_err(&schema.to_string());
    assert_eq!((error.code, error.details["path"].as_str()), (Code::ContractInvalid, Some(path)), "{error}");
    assert!(error.message.starts_with(path) && error.message.chars().count() < 600, "{error}");
    error
}

fn paths(schema: &Value, data: &Value) -> Vec<String> {
    compile(schema).check(data).into_iter().map(|violation| violation.path).collect()
}

/// `levels` references, each made of the next by `link`.
fn chain(levels: usize, end: Value, link: impl Fn(Value) -> Value) -> Value {
    let mut defs: Map<String, Value> =
        (0..levels).map(|i| (format!("d{i}"), link(json!({ "$ref": format!("#/$defs/d{}", i + 1) })))).collect();
    defs.insert(format!("d{levels}"), end);
    json!({ "$ref": "#/$defs/d0", "$defs": defs })
}

fn nested(levels: usize, inner: Value, around: impl Fn(Value) -> Value) -> Value {
    (0..levels).fold(inner, |value, _| around(value))
}

#[test]
fn each_draft_has_its_own_keywords() {
    let drafts = [
        "http://json-schema.org/draft-04/schema#",
        "http://json-schema.org/draft-06/schema#",
        "http://json-schema.org/draft-07/schema#",
        "https://json-schema.org/draft/2019-09/schema",
        "https://json-schema.org/draft/2020-12/schema",
    ];
    // What the schema says of the data by each draft: accepts, refuses, or is no schema of it.
    let (yes, no, none) = (Some(true), Some(false), None);
    for (schema, data, expected) in [
        (json!({ "maximum": 5, "exclusiveMaximum": true }), json!(5), [no, none, none, none, none]),
        (json!({ "exclusiveMaximum": 5 }), json!(5), [none, no, no, no, no]),
        (json!({ "const": 1 }), json!(2), [yes, no, no, no, no]),
        (json!({ "if": { "type": "string" }, "then": { "minLength": 2 } }), json!("a"), [yes, yes, no, no, no]),
        (json!({ "dependentRequired": { "a": ["b"] } }), json!({ "a": 1 }), [yes, yes, yes, no, no]),
        (json!({ "items": [{ "type": "string" }] }), json!([1]), [no, no, no, no, none]),
        (json!({ "prefixItems": [{ "type": "string" }] }), json!([1]), [yes, yes, yes, yes, no]),
        (json!({ "type": "integer" }), json!(1.0), [no, yes, yes, yes, yes]),
        (json!({ "required": [] }), json!({}), [none, yes, yes, yes, yes]),
    ] {
        for (draft, expected) in drafts.iter().zip(expected) {
            let mut of_draft = schema.clone();
            of_draft["$schema"] = json!(draft);
            let found = Schema::compile(&of_draft, "s").map(|schema| schema.check(&data).is_empty()).ok();
            assert_eq!(found, expected, "{of_draft} {data}");
        }
    }
}

#[test]
fn a_schema_without_draft_is_of_the_newest() {
    assert_eq!(paths(&json!({ "prefixItems": [{ "type": "string" }] }), &json!([1])), ["/0"]);
    compile(&json!({ "$schema": "https://json-schema.org/draft-07/schema", "items": [] }));
    assert!(compile(&json!(true)).accepts(&json!(1)) && !compile(&json!(false)).accepts(&json!(1)));
}

#[test]
fn other_drafts_are_refused_and_the_known_ones_named() {
    for draft in [
        json!("http://json-schema.org/draft-03/schema#"),
        json!("https://example.com/mine"),
        json!("http://json-schema.org/schema#"),
        json!(7),
    ] {
        let error = refused(&json!({ "$schema": draft }), "contract.schema/$schema");
        assert!(error.message.contains("draft-04/schema") && error.message.contains("2020-12/schema"), "{error}");
    }
    refused(&json!({ "$defs": { "a": { "$id": "https://h/a", "$schema": "https://example.com/x" } } }), "contract.schema/$defs/a/$schema");
    compile(&json!({ "const": { "$schema": "https://example.com/mine" } }));
}

#[test]
fn formats_are_checked() {
    for (format, right, wrong) in [
        ("email", "a@example.com", "a.example.com"),
        ("date-time", "2026-01-31T12:00:00Z", "2026-01-31 12:00"),
        ("date", "2026-02-28", "2026-02-30"),
        ("uuid", "019c0000-0000-7000-8000-000000000000", "019c0000"),
        ("uri", "https://example.com/a?b", "/a"),
        ("ipv4", "192.0.2.1", "192.0.2.256"),
        ("ipv6", "2001:db8::1", "2001:db8::g"),
        ("hostname", "example.com", "-example.com"),
        ("idn-hostname", "bücher.example", "-bücher.example"),
        ("json-pointer", "/a/b", "a/b"),
        ("regex", "^a+$", "("),
    ] {
        let schema = compile(&json!({ "format": format }));
        assert!(schema.check(&json!(right)).is_empty(), "{format} {right}");
        assert_eq!(schema.check(&json!(wrong)).len(), 1, "{format} {wrong}");
        assert!(schema.accepts(&json!(7)), "a format is of strings");
    }
    let old = compile(&json!({ "$schema": "http://json-schema.org/draft-04/schema#", "format": "email" }));
    assert!(!old.accepts(&json!("no")));
}

#[test]
fn what_is_no_schema_is_refused_at_its_place() {
    for (schema, path) in [
        (json!(7), ""),
        (json!("x"), ""),
        (json!([]), ""),
        (json!(null), ""),
        (json!({ "$invalid": "Symbol()" }), ""),
        (json!({ "type": "text" }), "/type"),
        (json!({ "properties": { "age": { "maximum": "1" } } }), "/properties/age/maximum"),
        (json!({ "properties": { "a/b": { "type": 1 } } }), "/properties/a~1b/type"),
        (json!({ "items": [{}] }), "/items"),
        (json!({ "required": "a" }), "/required"),
        (json!({ "$schema": "http://json-schema.org/draft-04/schema#", "exclusiveMaximum": 3 }), "/exclusiveMaximum"),
        (json!({ "$schema": "http://json-schema.org/draft-07/schema#", "definitions": { "a": { "items": 1 } } }), "/definitions/a/items"),
    ] {
        refused(&schema, &format!("contract.schema{path}"));
    }
}

#[test]
fn other_documents_are_never_fetched() {
    for (schema, path) in [
        (json!({ "$ref": "https://example.com/a.json" }), "/$ref"),
        (json!({ "$ref": "file:///etc/passwd" }), "/$ref"),
        (json!({ "properties": { "a": { "$ref": "http://127.0.0.1:1/" } } }), "/properties/a/$ref"),
        (json!({ "$id": "https://example.com/root", "items": { "$ref": "other#/$defs/a" } }), "/items/$ref"),
        (json!({ "allOf": [{}, { "$dynamicRef": "https://example.com/a#b" }] }), "/allOf/1/$dynamicRef"),
        (json!({ "$schema": "http://json-schema.org/draft-04/schema#", "not": { "$ref": "a.json" } }), "/not/$ref"),
        (json!({ "$ref": "#/free/a", "free": { "a": { "$ref": "https://example.com/b" } } }), "/$ref/$ref"),
    ] {
        let error = refused(&schema, &format!("contract.schema{path}"));
        assert!(error.message.contains("never fetched"), "{error}");
    }
    for (schema, path) in [(json!({ "items": { "$ref": "#/$defs/none" } }), "/items/$ref"), (json!({ "$ref": "#none" }), "/$ref")] {
        let error = refused(&schema, &format!("contract.schema{path}"));
        assert!(error.message.contains("leads nowhere"), "{error}");
    }
    // Words that look like references are none.
    compile(&json!({ "enum": [{ "$ref": "https://example.com" }], "properties": { "$ref": { "type": "string" } } }));
}

#[test]
fn references_within_the_schema_are_followed() {
    let embedded = json!({
        "$id": "https://example.com/order",
        "properties": { "to": { "$ref": "address" }, "by": { "$ref": "#person" } },
        "$defs": {
            "address": { "$id": "address", "required": ["city"] },
            "person": { "$anchor": "person", "required": ["name"] },
        },
    });
    assert_eq!(paths(&embedded, &json!({ "to": {}, "by": {} })), ["/to", "/by"]);
    let old = json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "properties": { "a": { "$ref": "#/definitions/b%20c" } },
        "definitions": { "b c": { "type": "string" } },
    });
    assert_eq!(paths(&old, &json!({ "a": 1 })), ["/a"]);
    let meta = compile(&json!({ "$ref": "https://json-schema.org/draft/2020-12/schema" }));
    assert!(meta.accepts(&json!({ "type": "string" })) && !meta.accepts(&json!({ "type": 1 })));
}

#[test]
fn schemas_that_refer_to_themselves_work() {
    let tree = compile(
        &json!({ "type": "object", "required": ["n"], "additionalProperties": { "$ref": "#" }, "properties": { "n": { "type": "integer" } } }),
    );
    let deep = |leaf: Value| nested(60, json!({ "n": leaf }), |inner| json!({ "n": 1, "c": inner }));
    assert!(tree.check(&deep(json!(1))).is_empty());
    assert_eq!(tree.check(&deep(json!("x")))[0].path, format!("{}/n", "/c".repeat(60)));
    let list = compile(
        &json!({ "$schema": "https://json-schema.org/draft/2019-09/schema", "$recursiveAnchor": true, "items": { "$recursiveRef": "#" }, "type": ["array", "null"] }),
    );
    assert!(list.accepts(&nested(DEPTH_MAX, json!(null), |inner| json!([inner]))));
    assert!(!list.accepts(&nested(DEPTH_MAX - 1, json!(1), |inner| json!([inner, []]))));
    let dynamic = compile(&json!({ "$dynamicAnchor": "node", "type": "array", "items": { "$dynamicRef": "#node" } }));
    assert!(dynamic.accepts(&json!([[], [[]]])) && !dynamic.accepts(&json!([[1]])));
    // A reference to itself and nothing else says nothing.
    assert!(compile(&json!({ "allOf": [{ "$ref": "#" }] })).accepts(&json!(1)));
    assert!(
        compile(&json!({ "$defs": { "a": { "$ref": "#/$defs/b" }, "b": { "$ref": "#/$defs/a" } }, "$ref": "#/$defs/a" }))
            .accepts(&json!(1))
    );
}

#[test]
fn data_of_any_depth_is_answered_or_given_up() {
    let schema = compile(
        &json!({ "anyOf": [{ "type": "null" }, { "type": "array", "items": { "$ref": "#" } }, { "allOf": [{ "properties": { "a": { "$ref": "#" } } }, { "type": "object" }] }] }),
    );
    for around in [|inner| json!([inner]), |inner| json!({ "a": inner })] {
        let (right, wrong) = (nested(DEPTH_MAX, json!(null), around), nested(DEPTH_MAX, json!(1), around));
        assert!(schema.accepts(&right));
        assert!(!schema.check(&wrong).is_empty());
        // Deeper than what a message may have: no answer, but no overflow of the stack.
        let too_deep = nested(20_000, json!(null), around);
        assert_eq!(schema.check(&too_deep), [Violation::whole("is too large or too deep to be checked by this schema")]);
        // Dropping it recursively would overflow the stack of this test.
        std::mem::forget(too_deep);
    }
}

#[test]
fn regular_expressions_take_linear_time() {
    for pattern in ["^(a+)+$", "^(a|aa)+$", "^(a*)*b?$", "(x+x+)+y"] {
        let schema = compile(&json!({ "pattern": pattern }));
        let start = Instant::now();
        assert_eq!(schema.check(&json!("a".repeat(100_000) + "!")).len(), 1, "{pattern}");
        assert!(start.elapsed() < Duration::from_secs(2), "{pattern} took {:?}", start.elapsed());
    }
    let schema = compile(&json!({ "patternProperties": { "^(a+)+$": { "type": "string" } }, "additionalProperties": false }));
    assert!(schema.accepts(&json!({ "aaa": "x" })));
    assert_eq!(schema.check(&json!({ "a".repeat(100_000) + "!": 1 })).len(), 1);
}

#[test]
fn regular_expressions_that_cannot_are_refused_at_their_place() {
    for pattern in ["(?<=a)b", "(?<!a)b", "(?=a)b", "a(?!b)", r"(a)\1", r"(?<n>a)\k<n>", "(", "a{1000}{1000}", "[z-a]"] {
        refused(&json!({ "properties": { "age": { "pattern": pattern } } }), "contract.schema/properties/age/pattern");
        let escaped = escaped(pattern);
        refused(
            &json!({ "items": { "patternProperties": { pattern: {} } } }),
            &format!("contract.schema/items/patternProperties/{escaped}"),
        );
        refused(
            &json!({ "$schema": "http://json-schema.org/draft-07/schema#", "not": { "patternProperties": { pattern: {} } } }),
            &format!("contract.schema/not/patternProperties/{escaped}"),
        );
    }
    for pattern in
        [r"^\d{4}-\d{2}$", r"^[A-Z]{2,3}$", r"^\p{L}[\p{L}\p{N} .'-]{0,63}$", r"^[\w.+-]+@[\w-]+\.[\w.]+$", r"^(?:a|b)*?c$", r"^\S+$"]
    {
        compile(&json!({ "pattern": pattern }));
    }
}

#[test]
fn a_schema_has_bounds() {
    let long = |bytes: usize| json!({ "description": "x".repeat(bytes) });
    compile(&long(SCHEMA_BYTES_MAX - 100));
    refused(&long(SCHEMA_BYTES_MAX), "contract.schema");

    compile(&nested(DEPTH_MAX - 1, json!({}), |inner| json!({ "not": inner })));
    refused(&nested(DEPTH_MAX, json!({}), |inner| json!({ "not": inner })), "contract.schema");
    let deep = nested(10_000, json!({}), |inner| json!({ "not": inner }));
    std::mem::forget(deep);

    let patterns = |count: usize| json!({ "anyOf": (0..count).map(|i| json!({ "pattern": format!("^{i}") })).collect::<Vec<_>>() });
    compile(&patterns(PATTERNS_MAX));
    refused(&patterns(PATTERNS_MAX + 1), &format!("contract.schema/anyOf/{PATTERNS_MAX}"));
}

#[test]
fn references_that_multiply_are_refused() {
    let links: [fn(Value) -> Value; 5] = [
        |next| json!({ "allOf": [next.clone(), next] }),
        |next| json!({ "anyOf": [next.clone(), next] }),
        |next| json!({ "oneOf": [next.clone(), next] }),
        |next| json!({ "if": next.clone(), "then": next }),
        |next| json!({ "dependentSchemas": { "a": next.clone(), "b": next } }),
    ];
    for link in links {
        for end in [json!({}), json!(true), json!({ "type": "object" })] {
            compile(&chain(10, end.clone(), link));
            refused(&chain(40, end, link), "contract.schema");
        }
    }
    compile(&chain(40, json!({}), |next| next));
    refused(&chain(4000, json!({}), |next| next), "contract.schema");
    // One level of data each: no place meets many.
    let schema = compile(&chain(3000, json!({ "type": "null" }), |next| json!({ "items": next })));
    assert!(!schema.check(&nested(DEPTH_MAX, json!(1), |inner| json!([inner]))).iter().any(|violation| violation.path.len() > 128));
}

/// What can be wrong in 2^60 ways is told to be wrong at once.
#[test]
fn failures_that_multiply_are_not_all_listed() {
    let branch =
        |op: &str| json!({ "type": "object", "required": ["op", "l"], "properties": { "op": { "const": op }, "l": { "$ref": "#" } } });
    let unions = [
        json!({ "oneOf": [branch("add"), branch("sub"), { "type": "number" }] }),
        json!({ "anyOf": [branch("add"), branch("sub"), { "type": "number" }] }),
        json!({ "allOf": [{ "properties": { "l": { "$ref": "#" } } }, { "properties": { "l": { "$ref": "#" } } }], "type": ["object", "number"] }),
    ];
    for schema in unions.iter().map(compile) {
        let deep = |leaf: Value| nested(60, leaf, |inner| json!({ "op": "add", "l": inner }));
        let start = Instant::now();
        assert!(schema.accepts(&deep(json!(1))));
        assert!(!schema.check(&deep(json!("x"))).is_empty());
        assert!(start.elapsed() < Duration::from_secs(20), "took {:?}", start.elapsed());
    }
    let doubled =
        compile(&chain(60, json!({ "type": "object" }), |next| json!({ "properties": { "a": { "allOf": [next.clone(), next] } } })));
    let start = Instant::now();
    assert!(!doubled.check(&nested(60, json!(1), |inner| json!({ "a": inner }))).is_empty());
    assert!(start.elapsed() < Duration::from_secs(20), "took {:?}", start.elapsed());
}

#[test]
fn all_failing_places_are_told() {
    let schema = json!({
        "type": "object",
        "required": ["id", "email"],
        "properties": {
            "id": { "type": "string", "format": "uuid" },
            "age": { "type": "integer", "minimum": 0 },
            "tags": { "type": "array", "items": { "type": "string" }, "uniqueItems": true },
            "a/b": { "type": "null" },
        },
        "additionalProperties": false,
    });
    let data = json!({ "id": "x", "age": -1, "tags": ["a", 1, "a", 2], "a/b": 0, "extra": true });
    let violations = compile(&schema).check(&data);
    let mut found: Vec<_> = violations.iter().map(|v| (v.path.as_str(), v.keyword.as_str())).collect();
    found.sort_unstable();
    let expected = [
        ("", "/additionalProperties"),
        ("", "/required"),
        ("/age", "/properties/age/minimum"),
        ("/a~1b", "/properties/a~1b/type"),
        ("/id", "/properties/id/format"),
        ("/tags", "/properties/tags/uniqueItems"),
        ("/tags/1", "/properties/tags/items/type"),
        ("/tags/3", "/properties/tags/items/type"),
    ];
    assert_eq!(found, expected);
    assert!(violations.iter().any(|v| v.message == "the value is not of type \"string\""), "{violations:?}");
}

#[test]
fn a_union_tells_why_its_nearest_branch_did_not_fit() {
    let schema = json!({ "oneOf": [
        { "type": "string" },
        { "type": "object", "required": ["kind", "size"], "properties": { "kind": { "const": "box" }, "size": { "type": "integer" } } },
        { "type": "object", "required": ["kind"], "properties": { "kind": { "const": "none" } }, "additionalProperties": false },
    ] });
    assert_eq!(paths(&schema, &json!({ "kind": "box", "size": "big" })), ["", "/size"]);
    assert_eq!(paths(&schema, &json!("text")), [""; 0]);
}

#[test]
fn failures_are_short_and_never_many() {
    let long = "secret".repeat(10_000);
    for (schema, data) in [
        (json!({ "type": "integer" }), json!(long)),
        (json!({ "maxLength": 5 }), json!(long)),
        (json!({ "pattern": "^x" }), json!(long)),
        (json!({ "enum": [1, 2] }), json!({ "a": long })),
        (json!({ "not": {} }), json!([long])),
        (json!({ "anyOf": [{ "type": "null" }, false] }), json!(long)),
        (json!({ "contains": { "type": "null" } }), json!([long])),
        (json!({ "additionalProperties": false }), json!({ (long.clone()): 1 })),
        (json!({ "propertyNames": { "maxLength": 5 } }), json!({ (long.clone()): 1 })),
        (json!({ "unevaluatedProperties": false }), json!({ (long.clone()): 1 })),
        (json!({ "enum": [long] }), json!(1)),
    ] {
        let violations = compile(&schema).check(&data);
        assert!(!violations.is_empty(), "{schema}");
        for violation in violations {
            assert!(violation.message.chars().count() <= MESSAGE_CHARS_MAX + 1, "{violation:?}");
        }
    }
    assert!(!compile(&json!({ "type": "integer" })).check(&json!(long))[0].message.contains("secret"));

    let numbers = compile(&json!({ "items": { "type": "string" } }));
    let violations = numbers.check(&json!(vec![1; 1000]));
    assert_eq!((violations.len(), violations[99].path.as_str()), (VIOLATIONS_MAX + 1, "/99"));
    assert_eq!(violations[VIOLATIONS_MAX].message, "and 900 more");
    let violations = numbers.check(&json!(vec![1; 100_000]));
    assert_eq!(violations.iter().map(|v| v.path.as_str()).collect::<Vec<_>>(), ["/0", ""]);
    assert!(numbers.accepts(&json!(vec!["x"; 100_000])));
}

/// Not a test: `cargo test --release --no-default-features --lib cost_of_a_check -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn cost_of_a_check() {
    let schema = compile(&json!({
        "type": "object",
        "required": ["orderId", "customer", "items", "total", "at"],
        "properties": {
            "orderId": { "type": "string", "format": "uuid" },
            "customer": { "type": "object", "required": ["email"], "properties": { "email": { "type": "string", "format": "email" }, "country": { "type": "string", "pattern": "^[A-Z]{2}$" } } },
            "items": { "type": "array", "minItems": 1, "items": { "type": "object", "required": ["sku", "count"], "properties": { "sku": { "type": "string" }, "count": { "type": "integer", "minimum": 1 } } } },
            "total": { "type": "number", "minimum": 0 },
            "at": { "type": "string", "format": "date-time" },
        },
        "additionalProperties": false,
    }));
    let mut data = json!({ "orderId": "019c0000-0000-7000-8000-000000000000", "customer": { "email": "ada@example.com", "country": "GB" }, "items": [{ "sku": "A-1", "count": 2 }], "total": 41.5, "at": "2026-01-31T12:00:00Z" });
    let text = data.to_string();
    let time = |what: &str, run: &dyn Fn()| {
        (0..10_000).for_each(|_| run());
        let start = Instant::now();
        (0..100_000).for_each(|_| run());
        println!("{what}: {:.3} µs", start.elapsed().as_secs_f64() * 10.0);
    };
    time(&format!("parse {} bytes", text.len()), &|| drop(std::hint::black_box(crate::engine::projects::nesting::parse(&text))));
    time("depth", &|| {
        std::hint::black_box(depth(&text));
    });
    time("check", &|| drop(std::hint::black_box(schema.check(&data))));
    data["customer"]["email"] = json!(1);
    data["total"] = json!(-1);
    time("check of wrong data", &|| drop(std::hint::black_box(schema.check(&data))));
}
