//! The register of services: what is listed, what changed, and errands. All of it is in one bucket.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use redis::{Cmd, Value};

use super::super::roster::{A_CALL_MAX, CHANGES_MAX, check};
use super::super::{Errand, Listing, ListingChange, News, Place, Read, Roster, Running, Turn};
use super::commons::LIFE_MAX_SECONDS;
use super::{RedisStore, Shared, reply, scripts};
use crate::engine::error::Result;

/// The news that a listing came, changed or went.
pub(super) const SERVICES: &str = "services";

/// As scripts take it: longer times are as good as for ever.
pub(super) fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).min(LIFE_MAX_SECONDS * 1000)
}

/// A time that may be missing, as scripts take it.
fn optional_ms(time: Option<Duration>) -> String {
    time.map_or_else(String::new, |time| ms(time).to_string())
}

pub(super) fn call(script: &scripts::Lua, keys: &[String]) -> Cmd {
    scripts::call(script, &keys.iter().map(String::as_str).collect::<Vec<_>>())
}

/// Name → text.
fn texts(pairs: Value) -> Result<BTreeMap<String, String>> {
    let mut items = reply::list(pairs)?.into_iter();
    let mut texts = BTreeMap::new();
    while let (Some(name), Some(text)) = (items.next(), items.next()) {
        texts.insert(reply::text(name)?, reply::text(text)?);
    }
    Ok(texts)
}

/// ms until something; -1: there is nothing.
fn until(value: &Value) -> Result<Option<u64>> {
    Ok(u64::try_from(reply::int(value)?).ok())
}

fn change(value: Value) -> Result<ListingChange> {
    let unexpected = || reply::unexpected("services_news.lua");
    let parts: [Value; 5] = reply::list(value)?.try_into().map_err(|_| unexpected())?;
    let [at, name, turn, definition, health] = parts;
    Ok(ListingChange {
        at: reply::entry_id(&at)?,
        name: reply::text(name)?,
        turn: Turn::named(&reply::text(turn)?).ok_or_else(unexpected)?,
        listing: Listing { definition: reply::text(definition)?, health: reply::text(health)? },
    })
}

impl Shared {
    async fn put_listing(
        &self,
        name: &str,
        before: Option<&Listing>,
        after: Option<&Listing>,
        turn: Turn,
        life: Option<Duration>,
    ) -> Result<bool> {
        check(name, before, after, turn)?;
        let mut put = call(&scripts::PUT_LISTING, &self.keys.listings());
        put.arg(name);
        for listing in [before, after] {
            match listing {
                Some(listing) => put.arg(&listing.definition).arg(&listing.health),
                None => put.arg("").arg(""),
            };
        }
        let news = if turn == Turn::Checked { "" } else { SERVICES };
        put.arg(turn.as_str()).arg(optional_ms(life)).arg(CHANGES_MAX).arg(self.keys.global("changes")).arg(news);
        Ok(reply::int(&self.control.query(put).await?)? == 1)
    }

    async fn renew_listings(&self, names: &[String], life: Duration) -> Result<Vec<String>> {
        let keys = [self.keys.listed_health(), self.keys.listing_ends()];
        let renew = |names: &[String]| {
            let mut renew = call(&scripts::RENEW_LISTINGS, &keys);
            renew.arg(ms(life)).arg(names);
            renew
        };
        let renewals: Vec<Cmd> = names.chunks(A_CALL_MAX).map(renew).collect();
        let mut missing = Vec::new();
        for reply in self.control.run(&renewals).await? {
            missing.append(&mut reply::list(reply)?);
        }
        missing.into_iter().map(reply::text).collect()
    }

    /// Where a change cannot be read, as another version or program may have written it, all is read anew.
    async fn services_news(&self, known: Option<Place>) -> Result<Read> {
        match self.services_news_since(known).await? {
            Some(read) => Ok(read),
            None => self.services_news_since(None).await?.ok_or_else(|| reply::unexpected("services_news.lua")),
        }
    }

    /// `None`: a change among the news cannot be read.
    async fn services_news_since(&self, known: Option<Place>) -> Result<Option<Read>> {
        let mut read = call(&scripts::SERVICES_NEWS, &self.keys.listings());
        match known {
            Some(place) => read.arg(place.epoch).arg(place.last.to_string()),
            None => read.arg("").arg(""),
        };
        read.arg(A_CALL_MAX).arg(CHANGES_MAX).arg(self.keys.global("changes")).arg(SERVICES);
        let unexpected = || reply::unexpected("services_news.lua");
        let mut parts = reply::list(self.control.query(read).await?)?.into_iter();
        let mut next = || parts.next().ok_or_else(unexpected);
        let place = Place { epoch: reply::count(&next()?)?, last: reply::entry_id(&next()?)? };
        let next_end_ms = until(&next()?)?;
        let kind = reply::int(&next()?)?;
        let news = if kind == 0 {
            let Ok(changes) = reply::list(next()?)?.into_iter().map(change).collect() else { return Ok(None) };
            News::Since(changes)
        } else {
            let (definitions, mut health) = (texts(next()?)?, texts(next()?)?);
            let listing = |(name, definition)| health.remove(&name).map(|health| (name, Listing { definition, health }));
            let listings = definitions.into_iter().filter_map(listing).collect();
            if kind == 2 { News::Older(listings) } else { News::All(listings) }
        };
        Ok(Some(Read { place, news, next_end_ms }))
    }

    async fn plan_errands(&self, errand: Errand, names: &[String], spread: Duration) -> Result<()> {
        let [due, _] = self.keys.errands(errand);
        let (spread_ms, count) = (u128::from(ms(spread)), names.len() as u128);
        let planned: Vec<(&String, u128)> = names.iter().zip(0_u128..).map(|(name, i)| (name, spread_ms * i / count)).collect();
        let plan = |some: &[(&String, u128)]| {
            let mut plan = scripts::call(&scripts::PLAN_ERRANDS, &[&due]);
            for (name, after_ms) in some {
                plan.arg(name).arg(after_ms.to_string());
            }
            plan
        };
        let plans: Vec<Cmd> = planned.chunks(A_CALL_MAX).map(plan).collect();
        for reply in self.control.run(&plans).await? {
            reply::list(reply)?;
        }
        Ok(())
    }

    async fn take_errands(&self, errand: Errand, most: usize, lease: Duration) -> Result<(Vec<Running>, Option<u64>)> {
        let [due, turns] = self.keys.errands(errand);
        let mut take = call(&scripts::TAKE_ERRANDS, &[due, turns, self.keys.listed_health(), self.keys.register_state()]);
        take.arg(most).arg(ms(lease)).arg(A_CALL_MAX);
        let mut items = reply::list(self.control.query(take).await?)?.into_iter();
        let next_ms = until(&items.next().ok_or_else(|| reply::unexpected("take_errands.lua"))?)?;
        let mut taken = Vec::with_capacity(items.len() / 2);
        while let (Some(name), Some(turn)) = (items.next(), items.next()) {
            taken.push(Running { name: reply::text(name)?, turn: reply::count(&turn)? });
        }
        Ok((taken, next_ms))
    }

    async fn end_errand(&self, errand: Errand, running: &Running, next: Option<Duration>) -> Result<bool> {
        let mut end = call(&scripts::END_ERRAND, &self.keys.errands(errand));
        end.arg(&running.name).arg(running.turn).arg(optional_ms(next));
        Ok(reply::int(&self.control.query(end).await?)? == 1)
    }
}

#[async_trait]
impl Roster for RedisStore {
    async fn put_listing(
        &self,
        name: &str,
        before: Option<&Listing>,
        after: Option<&Listing>,
        turn: Turn,
        life: Option<Duration>,
    ) -> Result<bool> {
        self.shared.put_listing(name, before, after, turn, life).await
    }

    async fn renew_listings(&self, names: &[String], life: Duration) -> Result<Vec<String>> {
        self.shared.renew_listings(names, life).await
    }

    async fn news(&self, known: Option<Place>) -> Result<Read> {
        self.shared.services_news(known).await
    }

    async fn plan_errands(&self, errand: Errand, names: &[String], spread: Duration) -> Result<()> {
        self.shared.plan_errands(errand, names, spread).await
    }

    async fn take_errands(&self, errand: Errand, most: usize, lease: Duration) -> Result<(Vec<Running>, Option<u64>)> {
        self.shared.take_errands(errand, most, lease).await
    }

    async fn end_errand(&self, errand: Errand, running: &Running, next: Option<Duration>) -> Result<bool> {
        self.shared.end_errand(errand, running, next).await
    }
}
