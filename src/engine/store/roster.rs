//! The register of services, as all processes that use the store share it: what is listed, until when, what changed, and whose
//! turn it is to do something about one of them. What a listing says is its writer's matter.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;

use super::EntryId;
use crate::engine::error::{Error, Result};

/// Changes kept, and told by one call of [`Roster::news`]. Whoever missed more reads all listings anew, which is about as much.
pub(super) const CHANGES_MAX: usize = 2_000;
/// Listings that end in one call of [`Roster::news`], and overdue errands that one call looks at, at most.
pub(super) const A_CALL_MAX: usize = 500;

/// What is listed under a name: two texts, neither empty, so that one may change often and the other seldom.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// What was given.
    pub definition: String,
    /// How it is.
    pub health: String,
}

/// Why a listing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It is new.
    Registered,
    /// What is said of it is different.
    Updated,
    /// How it is was looked at. Not announced, but a change like others in [`Roster::news`].
    Checked,
    /// How it is became different.
    Changed,
    /// It was taken out.
    Unregistered,
    /// Nobody renewed it in time. The store says so itself.
    Expired,
}

impl Turn {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Registered, Self::Updated, Self::Checked, Self::Changed, Self::Unregistered, Self::Expired];

    /// As it stands in the store.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Registered => "registered",
            Self::Updated => "updated",
            Self::Checked => "checked",
            Self::Changed => "changed",
            Self::Unregistered => "unregistered",
            Self::Expired => "expired",
        }
    }

    /// The turn that [`Turn::as_str`] names.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|turn| turn.as_str() == name)
    }

    /// Whether the listing is gone by it.
    pub fn is_end(self) -> bool {
        matches!(self, Self::Unregistered | Self::Expired)
    }
}

/// One change of one listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListingChange {
    /// Its place among all changes.
    pub at: EntryId,
    /// What changed.
    pub name: String,
    /// Why.
    pub turn: Turn,
    /// As it is from now on; of one that is gone, as it was last.
    pub listing: Listing,
}

/// Up to where the changes are known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Which register: another one after the store was emptied. 0: nothing was ever listed, and whatever comes is news.
    pub epoch: u64,
    /// Place of the last change.
    pub last: EntryId,
}

/// What became different since a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// Every change, in order; perhaps none.
    Since(Vec<ListingChange>),
    /// All that is listed: no place was known, or it lies too far back, or in a register that is gone.
    All(BTreeMap<String, Listing>),
    /// All that is listed in a store that has lost changes which were told before: a replica took over that had not got them, or the
    /// server was started with older data. So what is missing need not have been taken out.
    Older(BTreeMap<String, Listing>),
}

/// Answer of [`Roster::news`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// Where the reader is now.
    pub place: Place,
    /// What it did not know.
    pub news: News,
    /// ms until the next listing ends unless it is renewed, where there is one; 0: more have to end than one call ends.
    pub next_end_ms: Option<u64>,
}

/// Something that one process at a time does about a listing, now and then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Errand {
    /// Looking how it is.
    Probe,
    /// Asking for its contracts, for one of the buses that use the register.
    Contracts {
        /// Which.
        bus: u64,
    },
}

impl Errand {
    /// As it stands in the store.
    pub fn name(self) -> String {
        match self {
            Self::Probe => "probe".to_owned(),
            Self::Contracts { bus } => format!("contracts:{bus:016x}"),
        }
    }
}

/// An errand that is this process's for some time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Running {
    /// About which listing.
    pub name: String,
    /// Names this turn of it: given back with [`Roster::end_errand`]. It never comes again, not even after the store was emptied.
    pub turn: u64,
}

/// `ERR_INTERNAL` for what [`Roster::put_listing`] refuses.
pub(super) fn check(name: &str, before: Option<&Listing>, after: Option<&Listing>, turn: Turn) -> Result<()> {
    if name.is_empty() {
        return Err(Error::internal("a listing needs a name"));
    }
    if turn.is_end() != after.is_none() {
        let what = if after.is_some() { "is there afterwards" } else { "is gone afterwards" };
        return Err(Error::internal(format!("'{name}' {what}: that is not '{}'", turn.as_str())));
    }
    if [before, after].into_iter().flatten().any(|listing| listing.definition.is_empty() || listing.health.is_empty()) {
        return Err(Error::internal(format!("a text of '{name}' is empty")));
    }
    Ok(())
}

/// What processes share about services. Times are those of the store's clock.
#[async_trait]
pub trait Roster: Send + Sync {
    /// Makes the listing `name` `after` if it is `before` (`None`: it is not there, or is to be removed), notes the change as
    /// `turn` and announces it by [`super::StoreEvent::ServicesChanged`] to every open user of the store, this one included, unless
    /// `turn` is [`Turn::Checked`].
    ///
    /// With a `life` it ends after so long unless renewed; without one, when it would have ended anyway; a new one without a life
    /// never ends. Answers whether it now is `after`: to be repeated at will, one that is so already changes nothing but its end,
    /// and that by a `life` alone.
    ///
    /// `ERR_INTERNAL` for an empty name or text, and for a `turn` that does not fit: ends have no `after`, others have one.
    async fn put_listing(
        &self,
        name: &str,
        before: Option<&Listing>,
        after: Option<&Listing>,
        turn: Turn,
        life: Option<Duration>,
    ) -> Result<bool>;

    /// The listings end `life` from now, those too that would never have ended. Answers the names of those that are not there.
    /// One whose time is over is there until [`Roster::news`] has ended it: it is renewed like others.
    async fn renew_listings(&self, names: &[String], life: Duration) -> Result<Vec<String>>;

    /// What changed since `known`, after ending the listings whose time is over ([`Turn::Expired`], announced). Read by any number of
    /// processes: each change is told to each of them once.
    async fn news(&self, known: Option<Place>) -> Result<Read>;

    /// From now on errands are to be run for those of the names for which none is planned: for the i-th of `names`, counted from 0,
    /// the first after `spread` × i / number of names. Others stay as they are.
    async fn plan_errands(&self, errand: Errand, names: &[String], spread: Duration) -> Result<()>;

    /// Takes up to `most` errands that are due: each is this process's for `lease`, then due again, and still this process's
    /// until another takes it. Those of what is not listed any more are dropped. Answers ms until the next one is due, where there
    /// is one; 0: now. What a lost reply took is due again after the lease.
    async fn take_errands(&self, errand: Errand, most: usize, lease: Duration) -> Result<(Vec<Running>, Option<u64>)>;

    /// It is done, and due again after `next`; `None`: never, unless planned. Answers whether it was still this process's: if not,
    /// nothing changed. So whoever repeats it after a lost reply may be told `false` for what is done.
    async fn end_errand(&self, errand: Errand, running: &Running, next: Option<Duration>) -> Result<bool>;
}
