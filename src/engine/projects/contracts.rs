//! All contracts that a process knows, and what they say about an event that is sent or came.

use std::collections::BTreeMap;
use std::sync::Arc;

use semver::VersionReq;
use serde_json::{Value, json};

use super::contract::{Contract, Named};
use super::schema::Violation;
use crate::engine::error::{Code, Error, Result};

/// Most failures that the message of an error tells; its details have all.
const TOLD_MAX: usize = 3;

/// A text that is no contract.
#[derive(Clone, Debug)]
pub struct Fault {
    /// The name under which it was found.
    pub id: String,
    /// Why it is none.
    pub error: Error,
}

#[derive(Debug)]
struct Known {
    text: String,
    read: Result<Arc<Contract>>,
}

/// Versions of one contract in the order in which they are tried: from the newest to the oldest, pre-releases last.
#[derive(Debug, Default)]
struct Versions(Vec<Arc<Contract>>);

/// Compiled contracts.
#[derive(Debug, Default)]
pub struct Contracts {
    by_id: BTreeMap<String, Arc<Known>>,
    /// By source project and name.
    by_source: BTreeMap<String, BTreeMap<String, Versions>>,
}

impl Contracts {
    /// Of texts by id. What is the same in `before` is not compiled again. Compiling takes up to some ms a contract.
    pub fn new(texts: &BTreeMap<String, String>, before: &Self) -> Self {
        let mut contracts = Self::default();
        for (id, text) in texts {
            let known = before.by_id.get(id).filter(|known| known.text == *text);
            let known = known.map_or_else(|| Arc::new(Known { text: text.clone(), read: read(id, text) }), Arc::clone);
            if let Ok(contract) = &known.read {
                let names = contracts.by_source.entry(contract.source.clone()).or_default();
                names.entry(contract.named.name.clone()).or_default().0.push(Arc::clone(contract));
            }
            contracts.by_id.insert(id.clone(), known);
        }
        for versions in contracts.by_source.values_mut().flat_map(BTreeMap::values_mut) {
            versions.0.sort_by(|a, b| {
                let (a, b) = (&a.named.version, &b.named.version);
                a.pre.is_empty().cmp(&b.pre.is_empty()).then(a.cmp(b)).reverse()
            });
        }
        contracts
    }

    /// Texts that are no contracts.
    pub fn faults(&self) -> impl Iterator<Item = Fault> {
        self.by_id.iter().filter_map(|(id, known)| known.read.as_ref().err().map(|error| Fault { id: id.clone(), error: error.clone() }))
    }

    /// The contract of an id.
    pub fn get(&self, id: &str) -> Option<&Arc<Contract>> {
        self.by_id.get(id)?.read.as_ref().ok()
    }

    /// All of them, by id.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Contract>> {
        self.by_id.values().filter_map(|known| known.read.as_ref().ok())
    }

    /// Those that a project sends or receives by, by id.
    pub fn available(&self, project: &str) -> impl Iterator<Item = &Arc<Contract>> {
        self.all().filter(move |contract| contract.source == project || contract.is_for(project))
    }

    /// Whether any contract is about an event: where none is, its data need not be parsed.
    pub fn applies_any(&self, source: &str, target: &str, event_type: &str) -> bool {
        let mut contracts = self.by_source.get(source).into_iter().flat_map(BTreeMap::values).flat_map(|versions| &versions.0);
        contracts.any(|contract| contract.applies(source, target, event_type))
    }

    /// Versions that apply, by name.
    fn applying(&self, source: &str, target: &str, event_type: &str) -> impl Iterator<Item = (&str, Vec<&Contract>)> {
        self.by_source.get(source).into_iter().flatten().filter_map(move |(name, versions)| {
            let applying = versions.0.iter().map(Arc::as_ref).filter(|contract| contract.applies(source, target, event_type));
            let applying: Vec<_> = applying.collect();
            (!applying.is_empty()).then_some((name.as_str(), applying))
        })
    }

    /// Checks an event before it is sent. Answers the contracts that it keeps to: of each name that applies the newest version
    /// that accepts the data, among those that `wanted` takes.
    ///
    /// `ERR_CONTRACT_VIOLATION` with `details.contract`, `.version`, `.tried`, and `.paths`: all failures by the newest version;
    /// also where `wanted` takes none.
    pub fn check_outgoing(
        &self,
        source: &str,
        target: &str,
        event_type: &str,
        data: &Value,
        wanted: Option<&VersionReq>,
    ) -> Result<Vec<Named>> {
        let (mut kept, mut breaches) = (Vec::new(), Vec::new());
        for (name, versions) in self.applying(source, target, event_type) {
            let fitting = versions.iter().filter(|contract| wanted.is_none_or(|wanted| wanted.matches(&contract.named.version)));
            let fitting: Vec<_> = fitting.copied().collect();
            if let (true, Some(wanted)) = (fitting.is_empty(), wanted) {
                return Err(no_such_version(name, wanted, &versions));
            }
            match first_that_accepts(&fitting, data) {
                Ok(named) => kept.push(named),
                Err(breach) => breaches.push(breach),
            }
        }
        if breaches.is_empty() { Ok(kept) } else { Err(violation(&breaches)) }
    }

    /// Checks an event that came and names the contracts that it keeps to. Each that is known here and applies must accept the
    /// data in the version named; what is named in a version that is not known, or not named by a sender that did not know it,
    /// is checked like [`Contracts::check_outgoing`].
    ///
    /// `ERR_CONTRACT_VIOLATION` with the same details.
    pub fn check_incoming(&self, source: &str, target: &str, event_type: &str, data: &Value, named: &[Named]) -> Result<()> {
        let mut breaches = Vec::new();
        for (name, versions) in self.applying(source, target, event_type) {
            let is_named = |contract: &Contract| named.contains(&contract.named);
            let exact: Vec<_> = versions.iter().filter(|contract| is_named(contract)).copied().collect();
            if exact.is_empty() {
                debug_assert!(versions.iter().all(|contract| contract.named.name == name));
                breaches.extend(first_that_accepts(&versions, data).err());
            }
            breaches.extend(exact.iter().filter_map(|contract| first_that_accepts(&[*contract], data).err()));
        }
        if breaches.is_empty() { Ok(()) } else { Err(violation(&breaches)) }
    }
}

fn read(id: &str, text: &str) -> Result<Arc<Contract>> {
    let contract = Contract::from_text(text)?;
    if contract.id() != id {
        let problem = format!("contract: {} stands under another name, {id}", contract.id());
        return Err(Error::new(Code::ContractInvalid, problem).with("path", "contract"));
    }
    Ok(Arc::new(contract))
}

/// How data breaks all versions of a contract that were tried.
struct Breach<'a> {
    newest: &'a Contract,
    violations: Vec<Violation>,
    tried: Vec<&'a Contract>,
}

fn first_that_accepts<'a>(versions: &[&'a Contract], data: &Value) -> Result<Named, Breach<'a>> {
    let (newest, older) = (versions[0], &versions[1..]);
    let violations = newest.compiled().check(data);
    if violations.is_empty() {
        return Ok(newest.named.clone());
    }
    match older.iter().find(|contract| contract.compiled().accepts(data)) {
        Some(contract) => Ok(contract.named.clone()),
        None => Err(Breach { newest, violations, tried: versions.to_vec() }),
    }
}

fn list_of(versions: &[&Contract]) -> Vec<String> {
    versions.iter().map(|contract| contract.named.version.to_string()).collect()
}

fn no_such_version(name: &str, wanted: &VersionReq, there: &[&Contract]) -> Error {
    let there = list_of(there);
    let message = format!("contract '{name}' has no version that is {wanted}; there are {}", there.join(", "));
    Error::new(Code::ContractViolation, message).with("contract", name).with("wanted", wanted.to_string()).with("versions", there)
}

fn violation(breaches: &[Breach<'_>]) -> Error {
    let all = || breaches.iter().flat_map(|breach| breach.violations.iter().map(move |violation| (violation, &breach.newest.named)));
    let mut told: Vec<_> = all()
        .take(TOLD_MAX)
        .map(|(violation, _)| match violation.path.as_str() {
            "" => violation.message.clone(),
            path => format!("{path}: {}", violation.message),
        })
        .collect();
    if let more @ 1.. = all().count().saturating_sub(TOLD_MAX) {
        told.push(format!("and {more} more in details.paths"));
    }
    let told = told.join("; ");
    let paths = all().map(|(violation, named)| {
        let mut path = violation.to_json();
        path["contract"] = named.name.clone().into();
        path["version"] = named.version.to_string().into();
        path
    });
    let Breach { newest, tried, .. } = &breaches[0];
    let also = match list_of(&tried[1..]).join(", ") {
        older if older.is_empty() => older,
        older => format!(", also {older}"),
    };
    let Named { name, version } = &newest.named;
    Error::new(Code::ContractViolation, format!("the data breaks contract '{name}' {version}{also}: {told}"))
        .with("contract", name.as_str())
        .with("version", version.to_string())
        .with("paths", paths.collect::<Vec<_>>())
        .with("tried", json!(list_of(tried)))
}

#[cfg(test)]
mod tests;
