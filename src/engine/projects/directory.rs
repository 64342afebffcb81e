//! Who is who: projects, contracts and routes as this process knows them. Read anew when another process announces a change,
//! after each reconnect, when somebody asks for what is not there, and every few seconds.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::try_join3;
use tokio::sync::{mpsc, oneshot};

use super::contracts::Contracts;
use super::identity::PublicKey;
use super::project::Project;
use super::route::Route;
use crate::engine::env::{Env, lock};
use crate::engine::error::{Error, Result};
use crate::engine::host::{Host, Lifecycle};
use crate::engine::log::failed;
use crate::engine::store::{Documents, Shelf, Store};

/// How often it is looked whether an announcement was missed.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// What is known at one time. Never changes.
#[derive(Debug, Default)]
pub struct View {
    projects: BTreeMap<String, (String, Arc<Project>)>,
    contracts: Arc<Contracts>,
    routes: BTreeMap<String, (String, Arc<Route>)>,
    /// `crossProject.trustedKeys`.
    pins: Arc<BTreeMap<String, PublicKey>>,
    versions: [u64; Shelf::ALL.len()],
}

impl View {
    /// A project that is registered.
    pub fn project(&self, id: &str) -> Option<&Arc<Project>> {
        self.known(id).filter(|project| project.is_there())
    }

    /// A project that is registered or was.
    pub fn known(&self, id: &str) -> Option<&Arc<Project>> {
        self.projects.get(id).map(|(_, project)| project)
    }

    /// All projects of which something is stored.
    pub fn documents(&self) -> impl Iterator<Item = &Arc<Project>> {
        self.projects.values().map(|(_, project)| project)
    }

    /// A project's document as it is stored.
    pub fn text(&self, id: &str) -> Option<&str> {
        self.projects.get(id).map(|(text, _)| text.as_str())
    }

    /// All projects that are registered.
    pub fn projects(&self) -> impl Iterator<Item = &Arc<Project>> {
        self.projects.values().map(|(_, project)| project).filter(|project| project.is_there())
    }

    /// All contracts.
    pub fn contracts(&self) -> &Contracts {
        &self.contracts
    }

    /// All routes, by their name.
    pub fn routes(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.routes.values().map(|(_, route)| route)
    }

    /// The route of that name.
    pub fn route(&self, name: &str) -> Option<&Arc<Route>> {
        self.routes.get(name).map(|(_, route)| route)
    }

    /// A route's document as it is stored.
    pub fn route_text(&self, name: &str) -> Option<&str> {
        self.routes.get(name).map(|(text, _)| text.as_str())
    }

    /// Whether the configuration names the key of the project.
    pub fn is_pinned(&self, project: &str) -> bool {
        self.pins.contains_key(project)
    }

    /// The keys of that name that the project had at that time and that are believed.
    pub fn keys(&self, project: &Project, key_id: &str, ms: u64) -> Vec<PublicKey> {
        project.keys_at(key_id, ms, self.pins.get(&project.project_id).copied())
    }
}

type Request = Option<oneshot::Sender<Result<Arc<View>>>>;

/// Keeps the view.
pub struct Directory {
    view: Arc<Mutex<Arc<View>>>,
    requests: mpsc::UnboundedSender<Request>,
}

impl Directory {
    /// Nothing is known before the first [`Directory::refresh`].
    pub fn start(env: &Env, store: Arc<dyn Store>, host: Arc<dyn Host>, pins: BTreeMap<String, PublicKey>) -> Self {
        let view = Arc::new(Mutex::new(Arc::new(View { pins: Arc::new(pins), ..View::default() })));
        // Unbounded: one for each batch that waits for an answer.
        let (requests, inbox) = mpsc::unbounded_channel();
        env.spawn(Looker { view: view.clone(), store, host }.run(inbox));
        Self { view, requests }
    }

    /// What is known.
    pub fn view(&self) -> Arc<View> {
        lock(&self.view).clone()
    }

    /// Looks for news without waiting for them.
    pub fn look(&self) {
        let _ = self.requests.send(None);
    }

    /// Reads what changed before this call, or later.
    pub async fn refresh(&self) -> Result<Arc<View>> {
        let (answer, view) = oneshot::channel();
        let _ = self.requests.send(Some(answer));
        view.await.unwrap_or_else(|_| Err(Error::closed("the bus")))
    }
}

struct Looker {
    view: Arc<Mutex<Arc<View>>>,
    store: Arc<dyn Store>,
    host: Arc<dyn Host>,
}

impl Looker {
    /// Answers all that asked with one look: one that asks while it is on its way waits for the next.
    async fn run(self, mut inbox: mpsc::UnboundedReceiver<Request>) {
        loop {
            let mut asking = Vec::new();
            match tokio::time::timeout(LOOK_EVERY, inbox.recv()).await {
                Ok(None) => return,
                Ok(Some(request)) => asking.push(request),
                Err(_) => {}
            }
            while let Ok(request) = inbox.try_recv() {
                asking.push(request);
            }
            let result = self.look().await;
            if let Err(error) = &result {
                failed!(error, "reading projects, contracts and routes");
            }
            for answer in asking.into_iter().flatten() {
                let _ = answer.send(result.clone());
            }
        }
    }

    async fn look(&self) -> Result<Arc<View>> {
        let before = lock(&self.view).clone();
        let read = |of: Shelf| self.store.documents(of, Some(before.versions[of as usize]));
        let (projects, contracts, routes) = try_join3(read(Shelf::Projects), read(Shelf::Contracts), read(Shelf::Routes)).await?;
        if projects.is_none() && contracts.is_none() && routes.is_none() {
            return Ok(before);
        }
        let mut problems = Vec::new();
        let mut versions = before.versions;
        let mut note = |shelf: Shelf, documents: &Option<Documents>| {
            if let Some(documents) = documents {
                versions[shelf as usize] = documents.version;
            }
        };
        note(Shelf::Projects, &projects);
        note(Shelf::Contracts, &contracts);
        note(Shelf::Routes, &routes);
        let view = View {
            projects: match projects {
                Some(documents) => {
                    read_all(documents, &before.projects, &mut problems, |text| Project::from_text(text).map_err(|e| e.message))
                }
                None => before.projects.clone(),
            },
            contracts: match contracts {
                Some(documents) => {
                    // On a thread where nobody waits for it.
                    let known = before.contracts.clone();
                    let compiled = tokio::task::spawn_blocking(move || Contracts::new(&documents.by_name, &known));
                    let contracts = compiled.await.map_err(|error| Error::internal(format!("compiling contracts: {error}")))?;
                    problems.extend(contracts.faults().map(|fault| format!("{}: {}", fault.id, fault.error.message)));
                    Arc::new(contracts)
                }
                None => before.contracts.clone(),
            },
            routes: match routes {
                Some(documents) => read_all(documents, &before.routes, &mut problems, |text| Route::from_text(text).map_err(|e| e.message)),
                None => before.routes.clone(),
            },
            pins: before.pins.clone(),
            versions,
        };
        if !problems.is_empty() {
            let told = problems.iter().map(|problem| Lifecycle::warn(format!("crossProject: left out: {problem}")));
            self.host.lifecycle(told.collect());
        }
        let view = Arc::new(view);
        *lock(&self.view) = view.clone();
        Ok(view)
    }
}

/// What is known of these documents, for tests.
#[cfg(test)]
pub async fn view_of(documents: &[(Shelf, &str, String)]) -> Arc<View> {
    let env = Env::seeded(1);
    let store = crate::engine::store::memory::MemoryStore::private(env.clone());
    store.open().await.unwrap();
    for (shelf, name, text) in documents {
        assert!(crate::engine::store::Commons::put_document(&*store, *shelf, name, None, Some(text)).await.unwrap());
    }
    Directory::start(&env, store, Arc::new(crate::engine::host::Nobody), BTreeMap::new()).refresh().await.unwrap()
}

type Shelved<T> = BTreeMap<String, (String, Arc<T>)>;

/// What did not change is taken over; what cannot be read is left out, and told.
fn read_all<T>(
    documents: Documents,
    before: &Shelved<T>,
    problems: &mut Vec<String>,
    read: impl Fn(&str) -> Result<T, String>,
) -> Shelved<T> {
    let mut all = Shelved::new();
    for (name, text) in documents.by_name {
        match before.get(&name).filter(|(before, _)| *before == text) {
            Some(same) => {
                all.insert(name, same.clone());
            }
            None => match read(&text) {
                Ok(document) => {
                    all.insert(name, (text, Arc::new(document)));
                }
                Err(problem) => problems.push(format!("{name}: {problem}")),
            },
        }
    }
    all
}
