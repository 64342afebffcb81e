//! A schema as a graph of subschemas: where a reference leads nowhere, and how many subschemas one place of the data meets at
//! once. References let few lines name more of them than could ever be checked.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use jsonschema::{Draft, ReferencingError, Registry, RegistryBuilder, Retrieve, Uri, uri};
use serde_json::{Map, Value};

/// The URI of a schema that has none.
const HOME: &str = "json-schema:///";
/// Most subschemas that one place of the data meets, one within the other's `allOf`, `$ref` and the like, and beside each other.
const AT_ONCE_MAX: u64 = 10_000;
/// Most of them that lead from one to the next.
const IN_A_ROW_MAX: u64 = 100;

const REFERENCES: [&str; 3] = ["$ref", "$dynamicRef", "$recursiveRef"];

/// Something wrong at a place below the schema: `/properties/age`.
pub(super) struct Flaw {
    pub(super) at: String,
    pub(super) problem: String,
}

/// A subschema right below another.
pub(super) struct Child<'a> {
    pub(super) at: String,
    pub(super) schema: &'a Value,
    /// It is about the same place of the data.
    pub(super) in_place: bool,
}

/// Subschemas right below `schema`, by the keywords of all drafts.
pub(super) fn children<'a>(schema: &'a Value, at: &str) -> Vec<Child<'a>> {
    let mut out = Vec::new();
    let Value::Object(keywords) = schema else { return out };
    for (keyword, value) in keywords {
        let in_place =
            matches!(keyword.as_str(), "allOf" | "anyOf" | "oneOf" | "not" | "if" | "then" | "else" | "dependentSchemas" | "dependencies");
        let mut add = |at: String, schema| out.push(Child { at, schema, in_place });
        match (keyword.as_str(), value) {
            ("allOf" | "anyOf" | "oneOf" | "prefixItems" | "items", Value::Array(list)) => {
                list.iter().enumerate().for_each(|(i, schema)| add(format!("{at}/{keyword}/{i}"), schema));
            }
            ("$defs" | "definitions" | "properties" | "patternProperties" | "dependentSchemas" | "dependencies", Value::Object(map)) => {
                map.iter().for_each(|(name, schema)| add(format!("{at}/{keyword}/{}", escaped(name)), schema));
            }
            (
                "not"
                | "if"
                | "then"
                | "else"
                | "items"
                | "additionalItems"
                | "additionalProperties"
                | "contains"
                | "contentSchema"
                | "propertyNames"
                | "unevaluatedItems"
                | "unevaluatedProperties",
                _,
            ) => add(format!("{at}/{keyword}"), value),
            _ => {}
        }
    }
    out
}

/// A key as part of a JSON pointer.
pub(super) fn escaped(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

/// Answers every question for another document, and notes that it was asked.
#[derive(Default)]
struct Elsewhere(Arc<Mutex<Vec<String>>>);

impl Retrieve for Elsewhere {
    fn retrieve(&self, uri: &Uri<String>) -> Result<Value, Box<dyn std::error::Error + Send + Sync>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(uri.as_str().to_owned());
        Ok(Value::Object(Map::new()))
    }
}

/// Refuses references that lead out of the schema or nowhere, and more subschemas at once than can be checked.
pub(super) fn check(schema: &Value, draft: Draft) -> Result<(), Flaw> {
    let root = |error: ReferencingError| Flaw { at: String::new(), problem: error.to_string() };
    let elsewhere = Elsewhere::default();
    let asked = Arc::clone(&elsewhere.0);
    let resource = draft.create_resource_ref(schema);
    let home = uri::from_str(HOME).map_err(root)?;
    let base = uri::resolve_against(&home.borrow(), resource.id().unwrap_or("")).map_err(root)?;
    let registry = Registry::new()
        .retriever(elsewhere)
        .draft(draft)
        .retrieve_known_draft_meta_schemas(false)
        .add(base.as_str(), resource)
        .and_then(RegistryBuilder::prepare)
        .map_err(root)?;
    let asked = asked.lock().unwrap_or_else(PoisonError::into_inner).clone();

    let mut graph = Graph::default();
    let mut queue = VecDeque::from([(schema, String::new(), registry.resolver(base), draft)]);
    let mut references = VecDeque::new();
    while let Some((schema, at, resolver, draft)) = queue.pop_front().or_else(|| references.pop_front()) {
        let Some(node) = graph.enter(schema) else { continue };
        let draft = draft.detect(schema);
        let resolver =
            resolver.in_subresource(draft.create_resource_ref(schema)).map_err(|e| Flaw { at: at.clone(), problem: e.to_string() })?;
        for child in children(schema, &at) {
            if child.in_place {
                graph.lead(node, child.schema);
            }
            queue.push_back((child.schema, child.at, resolver.clone(), draft));
        }
        for keyword in REFERENCES {
            let Some(reference) = schema.get(keyword).and_then(Value::as_str) else { continue };
            let at = format!("{at}/{keyword}");
            let refuse = |problem: String| Flaw { at: at.clone(), problem };
            let document = reference.split('#').next().unwrap_or_default();
            let document = uri::resolve_against(&resolver.base_uri().borrow(), document).map_err(|e| refuse(e.to_string()))?;
            let target = resolver.lookup(reference);
            if matches!(target, Err(ReferencingError::Unretrievable { .. })) || asked.iter().any(|uri| uri == document.as_str()) {
                return Err(refuse(format!("{document} is another document, which is never fetched; put it under $defs, with its $id")));
            }
            let (target, resolver, draft) = target.map_err(|e| refuse(format!("leads nowhere: {e}")))?.into_inner();
            graph.lead(node, target);
            references.push_back((target, at, resolver, draft));
        }
    }
    graph.check().map_err(|problem| Flaw { at: String::new(), problem })
}

/// Which subschemas meet the same place of the data, by their address.
#[derive(Default)]
struct Graph {
    numbers: HashMap<usize, usize>,
    leads: Vec<Vec<usize>>,
}

impl Graph {
    /// The number of a subschema that was not looked at yet.
    fn enter(&mut self, schema: &Value) -> Option<usize> {
        let next = self.leads.len();
        let number = *self.numbers.entry(std::ptr::from_ref(schema).addr()).or_insert(next);
        (number == next).then(|| {
            self.leads.push(Vec::new());
            number
        })
    }

    fn lead(&mut self, from: usize, to: &Value) {
        self.leads[from].push(std::ptr::from_ref(to).addr());
    }

    /// Adds up, from the last to the first, how many subschemas each leads to. One that leads back to itself is met once: the
    /// validator notices.
    fn check(&self) -> Result<(), String> {
        let mut sums: Vec<Option<(u64, u64)>> = vec![None; self.leads.len()];
        let mut open = vec![false; self.leads.len()];
        for start in 0..self.leads.len() {
            let mut stack = vec![(start, 0)];
            while let Some((node, next)) = stack.pop() {
                if next == 0 && (sums[node].is_some() || std::mem::replace(&mut open[node], true)) {
                    continue;
                }
                if let Some(to) = self.leads[node].get(next) {
                    stack.push((node, next + 1));
                    stack.extend(self.numbers.get(to).map(|number| (*number, 0)));
                    continue;
                }
                let of = |to: &usize| self.numbers.get(to).and_then(|number| sums[*number]).unwrap_or((1, 1));
                let (count, row) = self.leads[node]
                    .iter()
                    .map(of)
                    .fold((1_u64, 0), |(count, row), (more, below)| (count.saturating_add(more), row.max(below)));
                if count > AT_ONCE_MAX || row >= IN_A_ROW_MAX {
                    return Err(format!(
                        "its references make one value meet more than {AT_ONCE_MAX} subschemas, or more than {IN_A_ROW_MAX} one within \
                         the other; it could not be checked in time"
                    ));
                }
                sums[node] = Some((count, row + 1));
            }
        }
        Ok(())
    }
}
