//! What this process registered: it can send in the name of these projects, and registers them anew when Redis was emptied.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use super::directory::View;
use super::identity::Signer;
use crate::engine::env::lock;
use crate::engine::store::Shelf;

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
    /// What signed for projects that were unregistered here: records of what they sent may still be to be written.
    former: BTreeMap<String, Arc<Signer>>,
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
        let mut all = lock(&self.0);
        if let Some(signer) = all.projects.remove(project).and_then(|held| held.signer) {
            all.former.insert(project.to_owned(), signer);
        }
    }

    /// What signs records of what the project sent.
    pub fn signer_of_records(&self, project: &str) -> Option<Arc<Signer>> {
        self.signer(project).or_else(|| lock(&self.0).former.get(project).cloned())
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

    /// Others changed what was registered here since: a secret, a route. That is what holds.
    pub fn follow(&self, view: &View) {
        let mut all = lock(&self.0);
        for (id, held) in &mut all.projects {
            if let Some(text) = view.text(id).filter(|text| *text != held.document) {
                held.document = text.to_owned();
            }
        }
        for (name, held) in &mut all.routes {
            if let Some(text) = view.route_text(name).filter(|text| text != held) {
                *held = text.to_owned();
            }
        }
    }

    /// Documents that are not there: shelf, name and text.
    pub fn missing(&self, view: &View) -> Vec<(Shelf, String, String)> {
        let all = lock(&self.0);
        let projects = all.projects.iter().filter(|(id, _)| view.text(id).is_none());
        let contracts = all.contracts.iter().filter(|(id, _)| view.contracts().get(id).is_none());
        let routes = all.routes.iter().filter(|(name, _)| view.route_text(name).is_none());
        let projects = projects.map(|(id, held)| (Shelf::Projects, id.clone(), held.document.clone()));
        let contracts = contracts.map(|(id, text)| (Shelf::Contracts, id.clone(), text.clone()));
        let routes = routes.map(|(name, text)| (Shelf::Routes, name.clone(), text.clone()));
        projects.chain(contracts).chain(routes).collect()
    }

    /// This bus in each of its projects, as one who attends: `<project> <instance>`.
    pub fn members(&self, instance: &str) -> Vec<String> {
        let all = lock(&self.0);
        let projects: BTreeSet<&String> = all.projects.keys().chain(&all.handled).collect();
        projects.into_iter().map(|project| format!("{project} {instance}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::engine::projects::contract::Contract;
    use crate::engine::projects::directory::view_of;
    use crate::engine::projects::project::{Project, Signers};
    use crate::engine::projects::registration::ProjectConfig;
    use crate::engine::projects::route::Route;

    fn project(id: &str, name: &str) -> String {
        let config = json!({ "projectId": id, "name": name, "namespace": "n", "allowedEventTypes": ["**"], "allowedTargets": ["*"] });
        Project::registered(None, &ProjectConfig::read(config).unwrap(), &Signers::default(), 5).unwrap().to_text()
    }

    fn route(target: &str) -> String {
        Route::read(json!({ "name": "r", "match": {}, "targets": [target] })).unwrap().to_text()
    }

    fn contract() -> Contract {
        let contract = json!({
            "name": "c", "version": "1.0.0", "sourceProject": "a", "targetProjects": ["*"], "eventTypes": ["t"], "schema": true,
            "metadata": { "description": "", "author": "" },
        });
        Contract::read(contract, 5).unwrap()
    }

    #[test]
    fn a_bus_attends_what_it_registered_or_reads() {
        let held = Held::default();
        held.hold("a", None, "document".into());
        held.handle("b");
        held.handle("a");
        assert_eq!(held.members("bus"), ["a bus", "b bus"]);
        assert!(held.has("a") && !held.has("b") && held.signer("a").is_none());
        held.let_go("a");
        assert_eq!(held.members("bus"), ["a bus", "b bus"], "it is read still");
        held.let_go("b");
        assert!(!held.has("a"));
    }

    #[tokio::test]
    async fn what_is_missing_is_what_was_registered_here_as_others_left_it() {
        let held = Held::default();
        let contract = contract();
        for id in ["a", "b"] {
            held.hold(id, None, project(id, "old"));
        }
        held.hold_contract(contract.id(), contract.to_text());
        held.hold_route("r".into(), route("a"));
        let empty = view_of(&[]).await;
        assert_eq!(held.missing(&empty).len(), 4);
        let (newer, gone) = (project("a", "new"), Project::from_text(&project("b", "old")).unwrap().given_up(9).to_text());
        let full = view_of(&[
            (Shelf::Projects, "a", newer.clone()),
            (Shelf::Projects, "b", gone.clone()),
            (Shelf::Projects, "c", project("c", "of others")),
            (Shelf::Contracts, &contract.id(), contract.to_text()),
            (Shelf::Routes, "r", route("b")),
        ])
        .await;
        assert!(held.missing(&full).is_empty());
        held.follow(&full);
        held.follow(&empty);
        let missing = held.missing(&empty);
        let texts: Vec<&str> = missing.iter().map(|(_, _, text)| text.as_str()).collect();
        assert_eq!(texts, [newer.as_str(), gone.as_str(), contract.to_text().as_str(), route("b").as_str()]);
        let part = view_of(&[(Shelf::Projects, "a", newer)]).await;
        assert_eq!(held.missing(&part).iter().map(|(_, name, _)| name.as_str()).collect::<Vec<_>>(), ["b", &contract.id(), "r"]);
    }
}
