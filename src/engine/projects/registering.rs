//! Registering projects, contracts and routes: compared and set in the store, so that of two processes one is first.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::Projects;
use super::aside::aside;
use super::contract::Contract;
use super::directory::View;
use super::identity::Signer;
use super::project::{Key, Project, Signers};
use super::registration::{Credentials, ProjectConfig};
use super::route::Route;
use super::upkeep::ATTEND_FOR;
use crate::engine::error::{Code, Error, Result};
use crate::engine::name;
use crate::engine::store::Shelf;

/// Attempts while others change the same document.
const ATTEMPTS_MAX: usize = 50;
/// Most documents of a shelf.
const DOCUMENTS_MAX: usize = 10_000;

fn too_many(what: &str) -> Error {
    Error::argument(what, format!("there are {DOCUMENTS_MAX} of them already, as many as there may be"))
}

/// Keys that are made at once: each takes 19 MiB.
static DERIVING: Semaphore = Semaphore::const_new(2);

/// Argon2 takes its time.
async fn derive(project: &str, credentials: Option<Credentials>) -> Result<Signers> {
    let Some(credentials) = credentials else { return Ok(Signers::default()) };
    let _place = DERIVING.acquire().await.map_err(|_| Error::internal("keys cannot be made any more"))?;
    let project = project.to_owned();
    let derived = move || {
        let Credentials { api_key, secret, previous_secret } = credentials;
        let previous = previous_secret.map(|previous| Signer::derive(&project, &api_key, &previous)).transpose()?;
        Ok(Signers { current: Some(Signer::derive(&project, &api_key, &secret)?), previous })
    };
    aside(derived).await
}

impl Projects {
    /// `registerProject`.
    pub async fn register(&self, config: Value) -> Result<()> {
        let shared = &self.shared;
        let mut config = ProjectConfig::read(config)?;
        let signers = derive(&config.id, config.credentials.take()).await?;
        for _ in 0..ATTEMPTS_MAX {
            let view = shared.directory.refresh().await?;
            let before = view.known(&config.id).map(Arc::as_ref);
            if before.is_none() && view.documents().count() >= DOCUMENTS_MAX {
                return Err(too_many("config.projectId"));
            }
            let project = Project::registered(before, &config, &signers, shared.store.now_ms())?;
            let text = project.to_text();
            // It stands there in a form that this process cannot read: it is not written over.
            let stored = view.text(&config.id);
            if stored == Some(text.as_str()) || shared.store.put_document(Shelf::Projects, &config.id, stored, Some(&text)).await? {
                shared.held.hold(&config.id, signers.current.map(Arc::new), text);
                shared.store.attend(&shared.held.members(&shared.instance), ATTEND_FOR).await?;
                return shared.directory.refresh().await.map(drop);
            }
        }
        Err(busy(&config.id))
    }

    /// `unregisterProject`. `ERR_NOT_PERMITTED` unless this process registered it with its secret.
    pub async fn unregister(&self, id: &str) -> Result<bool> {
        let shared = &self.shared;
        name::check_project("projectId", id)?;
        for _ in 0..ATTEMPTS_MAX {
            let view = shared.directory.refresh().await?;
            let Some(project) = view.project(id) else { return Ok(false) };
            self.check_owner(project, "unregistered")?;
            let text = project.given_up(shared.store.now_ms()).to_text();
            if shared.store.put_document(Shelf::Projects, id, view.text(id), Some(&text)).await? {
                let member = format!("{id} {}", shared.instance);
                shared.held.let_go(id);
                if !shared.held.members(&shared.instance).contains(&member) {
                    shared.store.unattend(&[member]).await?;
                }
                shared.directory.refresh().await?;
                return Ok(true);
            }
        }
        Err(busy(id))
    }

    /// A project that signs belongs to whoever has its secret; another one to whoever registered it.
    fn check_owner(&self, project: &Project, done: &str) -> Result<()> {
        let id = project.project_id.as_str();
        let held = &self.shared.held;
        let is_owner = match project.keys.last() {
            Some(key) => held.signer(id).is_some_and(|signer| signer.public_key().to_text() == key.public),
            None => held.has(id),
        };
        if is_owner {
            return Ok(());
        }
        let message = format!(
            "the project '{id}' can be {done} only by a process that registered it with its secret: call registerProject() here first"
        );
        Err(Error::new(Code::NotPermitted, message).with("projectId", id))
    }

    /// `registerContract`. `ERR_NOT_PERMITTED` where its source is a project with credentials that are not here.
    pub async fn register_contract(&self, contract: Value) -> Result<()> {
        let shared = &self.shared;
        let now_ms = shared.store.now_ms();
        let contract = aside(move || Contract::read(contract, now_ms)).await?;
        let (id, text) = (contract.id(), contract.to_text());
        for _ in 0..ATTEMPTS_MAX {
            let view = shared.directory.refresh().await?;
            if let Some(source) = view.project(&contract.source).filter(|source| source.signs()) {
                self.check_owner(source, "bound by contracts")?;
            }
            let stored = view.contracts().get(&id);
            if let Some(stored) = stored
                && !stored.is_same_as(&contract)
            {
                let message = format!(
                    "contract.version: version {} of '{}' is registered with another schema, event types or targets; what was checked against it \
                     stays so: register a new version",
                    contract.named.version, contract.named.name
                );
                return Err(Error::new(Code::ContractInvalid, message).with("path", "contract.version"));
            }
            if stored.is_none() && view.contracts().all().count() >= DOCUMENTS_MAX {
                return Err(too_many("contract"));
            }
            if stored.is_some() || shared.store.put_document(Shelf::Contracts, &id, None, Some(&text)).await? {
                shared.held.hold_contract(id, text);
                return shared.directory.refresh().await.map(drop);
            }
        }
        Err(busy(&id))
    }

    /// `registerRoute`. One of the same name is replaced.
    pub async fn register_route(&self, route: Value) -> Result<()> {
        let shared = &self.shared;
        let route = aside(move || Route::read(route)).await?;
        for _ in 0..ATTEMPTS_MAX {
            let view = shared.directory.refresh().await?;
            for (i, target) in route.targets.iter().enumerate().filter(|(_, target)| *target != "*") {
                if view.project(target).is_none() {
                    return Err(Self::unknown(target).with("argument", format!("route.targets[{i}]")));
                }
            }
            if let Some(source) = &route.source {
                let project = view.project(source).ok_or_else(|| Self::unknown(source).with("argument", "route.match.sourceProject"))?;
                if project.signs() {
                    self.check_owner(project, "routed")?;
                }
            }
            // One that is replaced belongs to whoever owns its source.
            let replaced = view.route(&route.name).and_then(|route| view.project(route.source.as_ref()?)).filter(|project| project.signs());
            if let Some(project) = replaced {
                self.check_owner(project, "routed")?;
            }
            let (text, stored) = (route.to_text(), view.route_text(&route.name));
            if stored.is_none() && view.routes().count() >= DOCUMENTS_MAX {
                return Err(too_many("route"));
            }
            if stored == Some(text.as_str()) || shared.store.put_document(Shelf::Routes, &route.name, stored, Some(&text)).await? {
                shared.held.hold_route(route.name.clone(), text);
                return shared.directory.refresh().await.map(drop);
            }
        }
        Err(busy(&route.name))
    }

    /// `getAvailableContracts`, times as ms: from what is known, without asking.
    pub fn contracts(&self, id: &str) -> Result<Vec<Value>> {
        name::check_project("projectId", id)?;
        let view: Arc<View> = self.shared.directory.view();
        if view.project(id).is_none() {
            return Err(Self::unknown(id));
        }
        Ok(view.contracts().available(id).map(|contract| contract.to_json()).collect())
    }

    /// `getProjectKeys`, times as ms.
    pub async fn keys(&self, id: &str) -> Result<Value> {
        name::check_project("projectId", id)?;
        let view = self.shared.directory.refresh().await?;
        let project = view.project(id).ok_or_else(|| Self::unknown(id))?;
        let of_key = |key: &Key| {
            let mut out = json!({ "keyId": key.id, "publicKey": key.public, "from": key.from_ms });
            if let Some(until) = key.until_ms {
                out["until"] = until.into();
            }
            out
        };
        Ok(project.keys.iter().map(of_key).collect())
    }

    /// Its messages are to be read here. Answers the name of their streams.
    pub async fn handle(&self, id: &str, pattern: &str) -> Result<String> {
        let shared = &self.shared;
        let streams = name::check_addressed(id, pattern)?;
        if shared.directory.view().project(id).is_none() && shared.directory.refresh().await?.project(id).is_none() {
            return Err(Self::unknown(id));
        }
        shared.held.handle(id);
        shared.store.attend(&shared.held.members(&shared.instance), ATTEND_FOR).await?;
        Ok(streams)
    }
}

fn busy(name: &str) -> Error {
    let mut error = Error::new(Code::Redis, format!("'{name}' is changed by other processes all the time; try again"));
    error.retryable = true;
    error
}
