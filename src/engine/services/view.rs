//! The register as this process knows it, and what happened from one reading to the next.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::health::Status;
use super::service::Service;
use crate::engine::store::{Listing, ListingChange, News, Place, Read, Turn};

/// What happened to a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// It is new.
    Registered,
    /// It says something else of itself.
    Updated,
    /// It was taken out.
    Unregistered,
    /// Nobody renewed it in time.
    Expired,
    /// It is otherwise than it was.
    HealthChanged {
        /// What it was.
        before: Status,
    },
}

/// Something that happened, told once to every process.
#[derive(Clone, Debug)]
pub struct Happening {
    /// What.
    pub what: What,
    /// Names it among all: the same in all processes, whether they read each change or, after an outage, all that is listed.
    pub id: String,
    /// Whether it was read, and not concluded from what is missing.
    pub was_noted: bool,
    /// The service as it is now, or was last.
    pub service: Arc<Service>,
}

/// What is known at one time. Never changes.
#[derive(Clone, Debug, Default)]
pub struct View {
    services: BTreeMap<String, Arc<Service>>,
    /// What is listed and cannot be read.
    unread: BTreeMap<String, Listing>,
    /// Up to where it was read; `None`: not yet.
    place: Option<Place>,
    /// When that was, ms.
    read_at_ms: u64,
    /// Services that went when the store was emptied, or lost what it was told last: until when they are waited for, ms. Whoever
    /// registered one does so again; nothing happened then.
    lost: BTreeMap<String, u64>,
}

/// A view, how it came to be, and what in the store could not be read.
pub struct Step {
    /// The view.
    pub view: View,
    /// In order.
    pub happened: Vec<Happening>,
    /// For the log.
    pub problems: Vec<String>,
}

impl View {
    /// The service of that name.
    pub fn get(&self, name: &str) -> Option<&Arc<Service>> {
        self.services.get(name)
    }

    /// All services, by their name.
    pub fn services(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.services.values()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.services.len()
    }

    /// What stands in the store under a name, be it a service or not.
    pub fn listing(&self, name: &str) -> Option<&Listing> {
        let service = self.services.get(name).filter(|_| !self.lost.contains_key(name));
        service.map(|service| &service.listing).or_else(|| self.unread.get(name))
    }

    /// Up to where it was read.
    pub fn place(&self) -> Option<Place> {
        self.place
    }

    /// Whether it went when the store was emptied, or lost what it was told last.
    pub fn is_lost(&self, name: &str) -> bool {
        self.lost.contains_key(name)
    }

    /// When the first of what was lost is given up, ms.
    pub fn next_end_ms(&self) -> Option<u64> {
        self.lost.values().min().copied()
    }

    /// With what was read.
    pub fn after(&self, read: Read, now_ms: u64) -> Step {
        let emptied = self.place.is_some_and(|place| place.epoch != 0 && place.epoch != read.place.epoch);
        let is_first = self.place.is_none();
        let mut view = self.clone();
        (view.place, view.read_at_ms) = (Some(read.place), now_ms);
        let mut step = Step { view, happened: Vec::new(), problems: Vec::new() };
        match read.news {
            News::Since(changes) => changes.into_iter().for_each(|change| step.change(change)),
            News::All(listings) if emptied => step.replace(listings, Missing::Lost, now_ms),
            News::All(listings) => step.replace(listings, Missing::Gone { since_ms: self.read_at_ms }, now_ms),
            News::Older(listings) => step.replace(listings, Missing::Lost, now_ms),
        }
        step.give_up(now_ms);
        if is_first {
            step.happened.clear();
        }
        step
    }
}

/// What is to be thought of services that are not listed any more, where nobody tells why.
#[derive(Clone, Copy)]
enum Missing {
    /// The store has lost them.
    Lost,
    /// They were taken out, or not renewed.
    Gone {
        /// When they were read last, ms.
        since_ms: u64,
    },
}

impl Step {
    fn tell(&mut self, what: What, id: String, service: Arc<Service>) {
        self.happened.push(Happening { what, id, was_noted: true, service });
    }

    fn tell_end(&mut self, what: What, service: Arc<Service>, was_noted: bool) {
        // It ends once, whatever it is taken for.
        let id = format!("ended:{}:{}", service.definition.name, service.definition.registered_at_ms);
        self.happened.push(Happening { what, id, was_noted, service });
    }

    fn change(&mut self, ListingChange { name, turn, listing, .. }: ListingChange) {
        if turn.is_end() {
            self.view.lost.remove(&name);
            self.view.unread.remove(&name);
            let Some(service) = self.view.services.remove(&name) else { return };
            return self.tell_end(if turn == Turn::Expired { What::Expired } else { What::Unregistered }, service, true);
        }
        self.put(name, listing);
    }

    /// Tells what is different.
    fn put(&mut self, name: String, listing: Listing) {
        let before = self.view.services.get(&name).cloned();
        if before.as_ref().is_some_and(|before| before.listing == listing) {
            self.view.lost.remove(&name);
            return;
        }
        self.view.lost.remove(&name);
        let service = match Service::read(&name, listing.clone()) {
            Ok(service) => Arc::new(service),
            Err(error) => {
                // What it was is not what is listed: nobody is to act by that.
                self.view.services.remove(&name);
                if self.view.unread.insert(name.clone(), listing.clone()).is_none_or(|before| before.definition != listing.definition) {
                    self.problems.push(format!("what is listed as the service '{}' cannot be read: {error}", shown(&name)));
                }
                return;
            }
        };
        self.view.unread.remove(&name);
        self.view.services.insert(name, service.clone());
        let definition = &service.definition;
        let Some(before) = before else {
            let id = format!("registered:{}:{}", definition.name, definition.registered_at_ms);
            return self.tell(What::Registered, id, service);
        };
        if !before.definition.is_same_as(definition) {
            let id = format!("updated:{}:{}", definition.name, definition.updated_at_ms);
            self.tell(What::Updated, id, service.clone());
        }
        let (was, is) = (before.health.status(), service.health.status());
        if was != is {
            let id = format!("health:{}:{}:{}", definition.name, is.as_str(), service.health.since_ms());
            self.tell(What::HealthChanged { before: was }, id, service);
        }
    }

    fn replace(&mut self, listings: BTreeMap<String, Listing>, gone: Missing, now_ms: u64) {
        let missing: Vec<Arc<Service>> =
            self.view.services.iter().filter(|(name, _)| !listings.contains_key(*name)).map(|(_, service)| service.clone()).collect();
        self.view.unread.retain(|name, _| listings.contains_key(name));
        for (name, listing) in listings {
            self.put(name, listing);
        }
        for service in missing {
            let name = &service.definition.name;
            match gone {
                Missing::Lost => {
                    self.view.lost.entry(name.clone()).or_insert_with(|| now_ms.saturating_add(service.definition.life_ms));
                }
                Missing::Gone { .. } if self.view.lost.contains_key(name) => {}
                Missing::Gone { since_ms } => {
                    // Whoever did not look for so long could not renew it either, if it was to: then it must not be held for taken out.
                    let may_have_ended = now_ms.saturating_sub(since_ms) >= service.definition.life_ms;
                    self.view.services.remove(name);
                    self.tell_end(if may_have_ended { What::Expired } else { What::Unregistered }, service.clone(), false);
                }
            }
        }
    }

    fn give_up(&mut self, now_ms: u64) {
        let over: Vec<String> = self.view.lost.iter().filter(|(_, until)| **until <= now_ms).map(|(name, _)| name.clone()).collect();
        for name in over {
            self.view.lost.remove(&name);
            if let Some(service) = self.view.services.remove(&name) {
                self.tell_end(What::Expired, service, false);
            }
        }
    }
}

/// The beginning of a name that anybody may have written.
fn shown(name: &str) -> String {
    name.chars().take(128).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests;
