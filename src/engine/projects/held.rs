//! What this process registered: it can send in the name of these projects, and registers them anew when Redis was emptied.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use super::identity::Signer;
use crate::engine::env::lock;

/// A project that was registered here.
#[derive(Clone, Debug)]
struct Holding {
    /// What signs for it.
    signer: Option<Arc<Signer>>,
    /// As it was stored.
    document: String,
}

#[derive(Default)]
struct All {
    projects: BTreeMap<String, Holding>,
    /// Contracts and routes: name and text.
    contracts: BTreeMap<String, String>,
    routes: BTreeMap<String, String>,
    /// Projects whose messages are read here.
    handled: BTreeSet<String>,
}

/// Everything that this process registered.
#[derive(Default)]
pub struct Held(Mutex<All>);

impl Held {
    /// What signs for the project.
    pub fn signer(&self, project: &str) -> Option<Arc<Signer>> {
        lock(&self.0).projects.get(project)?.signer.clone()
    }

    /// Whether the project was registered here.
    pub fn has(&self, project: &str) -> bool {
        lock(&self.0).projects.contains_key(project)
    }

    /// The project was registered here.
    pub fn hold(&self, project: &str, signer: Option<Arc<Signer>>, document: String) {
        lock(&self.0).projects.insert(project.to_owned(), Holding { signer, document });
    }

    /// It was unregistered.
    pub fn let_go(&self, project: &str) {
        lock(&self.0).projects.remove(project);
    }

    /// A contract was registered here.
    pub fn hold_contract(&self, id: String, text: String) {
        lock(&self.0).contracts.insert(id, text);
    }

    /// A route was registered here.
    pub fn hold_route(&self, name: String, text: String) {
        lock(&self.0).routes.insert(name, text);
    }

    /// Its messages are read here.
    pub fn handle(&self, project: &str) {
        lock(&self.0).handled.insert(project.to_owned());
    }

    /// Documents of the projects, by id.
    pub fn documents(&self) -> Vec<(String, String)> {
        lock(&self.0).projects.iter().map(|(id, held)| (id.clone(), held.document.clone())).collect()
    }

    /// Documents of the contracts, by id.
    pub fn contracts(&self) -> Vec<(String, String)> {
        lock(&self.0).contracts.clone().into_iter().collect()
    }

    /// Documents of the routes, by name.
    pub fn routes(&self) -> Vec<(String, String)> {
        lock(&self.0).routes.clone().into_iter().collect()
    }

    /// This bus in each of its projects, as one who attends: `<project> <instance>`.
    pub fn members(&self, instance: &str) -> Vec<String> {
        let all = lock(&self.0);
        let projects: BTreeSet<&String> = all.projects.keys().chain(&all.handled).collect();
        projects.into_iter().map(|project| format!("{project} {instance}")).collect()
    }
}
