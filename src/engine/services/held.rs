//! What this process registered, and renews: until somebody takes it out.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use super::service::Service;
use super::view::{Happening, What};
use crate::engine::env::lock;

/// By their names.
#[derive(Default)]
pub(super) struct Held(Mutex<State>);

#[derive(Default)]
struct State {
    services: BTreeMap<String, Arc<Service>>,
    /// Registrations on their way: whether one of that name was taken out since they began.
    registering: BTreeMap<u64, (String, bool)>,
    last: u64,
}

/// A registration on its way.
pub(super) struct Registering<'a> {
    held: &'a Held,
    number: u64,
}

impl Held {
    /// To be called before a service is put into the store: its end may be read before the answer to that is here.
    pub(super) fn registering(&self, name: &str) -> Registering<'_> {
        let mut state = lock(&self.0);
        state.last += 1;
        let number = state.last;
        state.registering.insert(number, (name.to_owned(), false));
        Registering { held: self, number }
    }

    /// As it was known last.
    pub(super) fn get(&self, name: &str) -> Option<Arc<Service>> {
        lock(&self.0).services.get(name).cloned()
    }

    /// Of all.
    pub(super) fn names(&self) -> Vec<String> {
        lock(&self.0).services.keys().cloned().collect()
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        lock(&self.0).services.len()
    }

    /// It is not renewed any more.
    pub(super) fn remove(&self, name: &str) {
        lock(&self.0).services.remove(name);
    }

    /// What happened to a service. Answers whether it is to be registered again: it ended, though nobody took it out.
    pub(super) fn concerned(&self, Happening { what, service, .. }: &Happening) -> bool {
        let name = &service.definition.name;
        let mut state = lock(&self.0);
        if *what == What::Unregistered {
            state.registering.values_mut().filter(|(registering, _)| registering == name).for_each(|(_, ended)| *ended = true);
        }
        let Some(ours) = state.services.get_mut(name) else { return false };
        match what {
            What::Expired => return true,
            What::Unregistered => drop(state.services.remove(name)),
            What::Registered | What::Updated | What::HealthChanged { .. } => *ours = service.clone(),
        }
        false
    }
}

impl Registering<'_> {
    /// It was listed. Answers whether it still is as far as is known: then it is renewed from now on.
    pub(super) fn done(self, service: Arc<Service>) -> bool {
        let mut state = lock(&self.held.0);
        let is_listed = state.registering.get(&self.number).is_some_and(|(_, ended)| !ended);
        if is_listed {
            state.services.insert(service.definition.name.clone(), service);
        }
        is_listed
    }
}

impl Drop for Registering<'_> {
    fn drop(&mut self) {
        lock(&self.held.0).registering.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::definition::Definition;
    use super::super::health::Health;
    use super::*;

    fn happening(what: What) -> Happening {
        let given = json!({ "name": "a", "endpoint": "http://host", "version": "1.0.0", "capabilities": [] });
        let definition = Definition::read(given, 0, 1).unwrap().definition;
        Happening { what, id: "1".to_owned(), was_noted: true, service: Arc::new(Service::new(definition, Health::unknown(0))) }
    }

    fn held() -> Held {
        let held = Held::default();
        assert!(held.registering("a").done(happening(What::Registered).service));
        held
    }

    #[test]
    fn what_was_taken_out_before_the_answer_to_its_registration_came_is_not_renewed() {
        let held = Held::default();
        let (early, other) = (held.registering("a"), held.registering("b"));
        held.concerned(&happening(What::Unregistered));
        let service = happening(What::Registered).service;
        assert!(!early.done(service.clone()) && held.names().is_empty());
        assert!(held.registering("a").done(service), "a later one is");
        drop(other);
        assert!(lock(&held.0).registering.is_empty());
    }

    #[test]
    fn what_expired_is_registered_again_and_what_was_taken_out_is_not() {
        let expired = held();
        assert!(expired.concerned(&happening(What::Expired)) && expired.count() == 1);
        assert!(!expired.concerned(&happening(What::Unregistered)) && expired.count() == 0);
    }
}
