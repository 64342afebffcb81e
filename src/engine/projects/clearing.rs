//! Whether a message may be sent: by its source, in its size, to its targets, with its data; and where routes take it.

use std::sync::Arc;

use serde_json::Value;

use super::Shared;
use super::audit::Entry;
use super::contract::Named;
use super::directory::View;
use super::identity::Signer;
use super::letter::{Letter, TARGETS_MAX, Target, denied, entry, unknown};
use super::nesting;
use super::project::Project;
use crate::engine::error::{Code, Error, Result};
use crate::engine::name;
use crate::engine::publish::too_large;

/// Most bytes of all copies of one message.
const COPIED_BYTES_MAX: usize = 64 << 20;

/// A message that may be sent, but for its rate.
pub(super) struct Cleared {
    pub(super) letter: Letter,
    pub(super) source: Arc<Project>,
    pub(super) signer: Option<Arc<Signer>>,
    pub(super) copies: Vec<Addressed>,
}

/// One target of a message.
pub(super) struct Addressed {
    pub(super) target: Arc<Project>,
    pub(super) contracts: Vec<Named>,
    pub(super) route: Option<String>,
}

impl Shared {
    /// Whether the message may be sent: by its source, in its size, to its targets, with its data.
    pub(super) fn clear(&self, view: &View, letter: Letter, notes: &mut Vec<Entry>) -> Result<Cleared, Box<(Letter, Error)>> {
        match self.look_at(view, &letter, notes) {
            Ok((source, signer, copies)) => Ok(Cleared { letter, source, signer, copies }),
            Err(error) => Err(Box::new((letter, error))),
        }
    }

    #[allow(clippy::type_complexity)] // the parts of `Cleared` but for the letter
    fn look_at(&self, view: &View, letter: &Letter, notes: &mut Vec<Entry>) -> Result<(Arc<Project>, Option<Arc<Signer>>, Vec<Addressed>)> {
        let source = view.project(&letter.source).ok_or_else(|| unknown("source", &letter.source))?;
        let signer = self.signer_of(source)?;
        if !letter.own && !source.may_send(&letter.event_type) {
            let message = format!(
                "the project '{}' may not send '{}': its allowedEventTypes are {:?}",
                letter.source, letter.event_type, source.allowed_event_types
            );
            return Err(denied(message).with("projectId", letter.source.as_str()).with("eventType", letter.event_type.as_str()));
        }
        let limit = self.settings.payload_bytes_max;
        if letter.data_len > limit {
            return Err(too_large(&letter.event_type, letter.data_len, limit));
        }
        nesting::check(&letter.data)?;
        let direct = targets(view, source, letter)?;
        let mut copies = Vec::with_capacity(direct.len());
        // Parsed once, and only where a contract or a route asks for it.
        let mut parsed = None;
        for target in direct {
            let contracts = if letter.own { Vec::new() } else { check_contracts(view, letter, &target.project_id, &mut parsed)? };
            copies.push(Addressed { target, contracts, route: None });
        }
        if !letter.own {
            route(view, source, letter, &mut parsed, &mut copies, notes);
        }
        check_fan_out(letter, copies.len())?;
        for copy in &copies {
            name::check_addressed(&copy.target.project_id, &letter.event_type)?;
        }
        Ok((source.clone(), signer.filter(|_| self.settings.security_enabled), copies))
    }

    /// What signs for the project in this process. `ERR_NOT_PERMITTED` where it has a key that is not here.
    fn signer_of(&self, source: &Project) -> Result<Option<Arc<Signer>>> {
        let Some(present) = source.keys.last() else { return Ok(None) };
        let id = source.project_id.as_str();
        let why = match self.held.signer(id) {
            Some(signer) if signer.public_key().to_text() == present.public => return Ok(Some(signer)),
            Some(_) => "its secret was changed: register it with the new one",
            None => "it was not registered with its secret in this process: call registerProject() with its credentials",
        };
        Err(denied(format!("messages cannot be sent as '{id}': {why}")).with("projectId", id))
    }
}

/// The projects that it is sent to, each once.
fn targets(view: &View, source: &Project, letter: &Letter) -> Result<Vec<Arc<Project>>> {
    let one = |target: &String| {
        let project = view.project(target).ok_or_else(|| unknown("target", target))?;
        if !letter.own && !source.may_reach(target) {
            let message =
                format!("the project '{}' may not send to '{target}': its allowedTargets are {:?}", letter.source, source.allowed_targets);
            return Err(denied(message).with("projectId", letter.source.as_str()).with("target", target.as_str()));
        }
        Ok(project.clone())
    };
    match &letter.target {
        Target::One(all) if all == "*" => {
            let reached: Vec<_> = reachable(view, source).collect();
            if reached.is_empty() {
                let message = format!("there is no project that '{}' may reach: none of its allowedTargets is registered", letter.source);
                return Err(denied(message).with("projectId", letter.source.as_str()).with("target", "*"));
            }
            Ok(reached)
        }
        Target::One(target) => Ok(vec![one(target)?]),
        Target::List(list) => {
            let mut all: Vec<Arc<Project>> = Vec::with_capacity(list.len());
            for target in list {
                let project = one(target)?;
                if !all.iter().any(|other| other.project_id == project.project_id) {
                    all.push(project);
                }
            }
            Ok(all)
        }
    }
}

/// Each copy is stored for itself.
fn check_fan_out(letter: &Letter, copies: usize) -> Result<()> {
    if copies > TARGETS_MAX {
        let problem = format!("reaches {copies} projects with its routes; a message may go to {TARGETS_MAX}: send it to lists of them");
        return Err(Error::argument("target", problem).with("targets", copies).with("limit", TARGETS_MAX));
    }
    let bytes = copies.saturating_mul(letter.data.len());
    if copies > 1 && bytes > COPIED_BYTES_MAX {
        let message = format!(
            "the data of '{}' has {} bytes and goes to {copies} projects: {bytes} bytes, more than {COPIED_BYTES_MAX} in one call; send it to \
             fewer at a time, or a reference to it",
            letter.event_type,
            letter.data.len()
        );
        return Err(Error::new(Code::PayloadTooLarge, message).with("bytes", bytes).with("limit", COPIED_BYTES_MAX));
    }
    Ok(())
}

/// All other projects that the source may send to.
fn reachable<'a>(view: &'a View, source: &'a Project) -> impl Iterator<Item = Arc<Project>> + 'a {
    view.projects().filter(|project| project.project_id != source.project_id && source.may_reach(&project.project_id)).cloned()
}

/// The contracts that the data fulfils. `ERR_CONTRACT_VIOLATION` names every path that does not.
fn check_contracts(view: &View, letter: &Letter, target: &str, parsed: &mut Option<Value>) -> Result<Vec<Named>> {
    if !view.contracts().applies_any(&letter.source, target, &letter.event_type) {
        return match &letter.version {
            None => Ok(Vec::new()),
            Some(version) => {
                let message = format!(
                    "options.contractVersion asks for {version}, but there is no contract for '{}' from '{}' to '{target}'",
                    letter.event_type, letter.source
                );
                Err(Error::new(Code::ContractViolation, message))
            }
        };
    }
    let data = parse(&letter.data, parsed)?;
    view.contracts().check_outgoing(&letter.source, target, &letter.event_type, data, letter.version.as_ref())
}

fn parse<'a>(text: &str, parsed: &'a mut Option<Value>) -> Result<&'a Value> {
    if parsed.is_none() {
        *parsed = Some(nesting::parse(text)?);
    }
    parsed.as_ref().ok_or_else(|| Error::internal("data that was parsed is gone"))
}

/// Adds the targets of the routes that take the message. What a route brings is not routed again, and no route lets a project
/// reach one that it may not.
fn route(view: &View, source: &Project, letter: &Letter, parsed: &mut Option<Value>, copies: &mut Vec<Addressed>, notes: &mut Vec<Entry>) {
    let no_tags = Vec::new();
    let tags = letter.options.extras.tags.as_ref().unwrap_or(&no_tags);
    for route in view.routes() {
        if !route.takes(&letter.source, &letter.event_type, tags, || parse(&letter.data, parsed).ok()) {
            continue;
        }
        let mut deny = |target: &str, error: Error| {
            let error = Error { message: format!("by the route '{}': {}", route.name, error.message), ..error };
            notes.extend(entry(&letter.source, target, &letter.event_type, &error));
        };
        let mut found: Vec<Arc<Project>> = Vec::new();
        for target in &route.targets {
            if target == "*" {
                found.extend(reachable(view, source));
            } else {
                match view.project(target) {
                    None => deny(target, unknown("target", target)),
                    Some(_) if !source.may_reach(target) => deny(target, denied(format!("'{}' may not send to '{target}'", letter.source))),
                    Some(project) => found.push(project.clone()),
                }
            }
        }
        for target in found {
            if copies.iter().any(|copy| copy.target.project_id == target.project_id) {
                continue;
            }
            match check_contracts(view, letter, &target.project_id, parsed) {
                Ok(contracts) => copies.push(Addressed { target, contracts, route: Some(route.name.clone()) }),
                Err(error) => deny(&target.project_id, error),
            }
        }
    }
}
