//! The live connect links of each connection, bounded: a caller that asks again and again without
//! consent must not fill the store, nor make a durable write with every refused call.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::messages::CreateConnectLink;
use super::record::StateHash;
use crate::clock::Timestamp;
use crate::protocol::identifiers::ConnectionId;
use crate::protocol::scope::ScopeSet;
use crate::protocol::secret::Secret;

/// Live links of one connection. Whoever asks for more gets the newest again while it is young.
const PER_CONNECTION: usize = 5;

#[derive(Debug)]
struct Live {
    token: Secret,
    hash: StateHash,
    destination: Destination,
    expires_at: Timestamp,
}

/// What a link is for: one that has the same serves as well.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Destination {
    /// Where the browser goes afterwards.
    pub(super) return_to: Option<String>,
    /// Scopes to ask for beyond the profile's.
    pub(super) scopes: ScopeSet,
}

impl CreateConnectLink {
    pub(super) fn destination(&self) -> Destination {
        Destination { return_to: self.return_to.clone(), scopes: self.scopes.clone() }
    }
}

/// The live links that this process has made. What it forgets by a panic ends by itself.
#[derive(Debug, Default)]
pub(super) struct Links {
    live: BTreeMap<ConnectionId, VecDeque<Live>>,
    /// Whose each link is: strangers may ask for any token, and cause no walk through all.
    owners: BTreeMap<StateHash, ConnectionId>,
}

impl Links {
    /// A link that serves as well as a new one: the connection has many, and its newest leads to the
    /// same place and lives for at least another half of `lifetime`.
    pub(super) fn again(
        &self,
        connection: &ConnectionId,
        destination: &Destination,
        now: Timestamp,
        lifetime: Duration,
    ) -> Option<(Secret, Duration)> {
        let live = self.live.get(connection).filter(|live| live.len() >= PER_CONNECTION)?;
        let newest = live.back().filter(|link| link.destination == *destination)?;
        let left = newest.expires_at.since(now).min(lifetime);
        (left >= lifetime / 2).then(|| (newest.token.clone(), left))
    }

    /// Notes a new link; gives those that must go for it, the oldest first.
    pub(super) fn add(
        &mut self,
        connection: ConnectionId,
        token: Secret,
        destination: Destination,
        expires_at: Timestamp,
    ) -> Vec<StateHash> {
        let hash = StateHash::of(token.expose());
        self.owners.insert(hash, connection.clone());
        let live = self.live.entry(connection).or_default();
        live.push_back(Live { hash, token, destination, expires_at });
        let surplus = live.len().saturating_sub(PER_CONNECTION);
        let gone: Vec<_> = live.drain(..surplus).map(|link| link.hash).collect();
        gone.iter().for_each(|hash| drop(self.owners.remove(hash)));
        gone
    }

    /// A link was used.
    pub(super) fn forget(&mut self, hash: StateHash) {
        let Some(connection) = self.owners.remove(&hash) else { return };
        let Some(live) = self.live.get_mut(&connection) else { return };
        live.retain(|link| link.hash != hash);
        if live.is_empty() {
            self.live.remove(&connection);
        }
    }

    /// Lets go of what has expired.
    pub(super) fn forget_expired(&mut self, now: Timestamp) {
        let owners = &mut self.owners;
        self.live.retain(|_, live| {
            live.retain(|link| {
                let lives = now < link.expires_at;
                if !lives {
                    owners.remove(&link.hash);
                }
                lives
            });
            !live.is_empty()
        });
    }

    /// Connections with live links.
    pub(super) fn connections(&self) -> usize {
        self.live.len()
    }

    /// Whether `connection` has live links.
    pub(super) fn has(&self, connection: &ConnectionId) -> bool {
        self.live.contains_key(connection)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::protocol::identifiers::{ProfileId, Subject};

    const LIFETIME: Duration = Duration::from_secs(600);
    const NOW: Timestamp = Timestamp::from_secs(1000);

    fn alice() -> ConnectionId {
        ConnectionId { profile: ProfileId::new("p").unwrap(), subject: Subject::new("alice").unwrap() }
    }

    fn add(links: &mut Links, token: &str) -> Vec<StateHash> {
        links.add(alice(), token.into(), Destination::default(), NOW.after(LIFETIME))
    }

    #[test]
    fn a_caller_in_a_loop_gets_the_newest_link_again_until_it_ages_or_is_used() {
        let mut links = Links::default();
        for n in 0..5 {
            assert!(
                links.again(&alice(), &Destination::default(), NOW, LIFETIME).is_none(),
                "link {n} is a new one"
            );
            assert!(add(&mut links, &n.to_string()).is_empty());
        }
        let (newest, left) = links.again(&alice(), &Destination::default(), NOW, LIFETIME).unwrap();
        assert_eq!((newest.expose(), left), ("4", LIFETIME));
        let elsewhere = Destination { return_to: Some("https://app".into()), ..Destination::default() };
        assert!(links.again(&alice(), &elsewhere, NOW, LIFETIME).is_none(), "leads elsewhere");
        let scopes = ScopeSet::parse("more").unwrap();
        let wider = Destination { scopes, ..Destination::default() };
        assert!(links.again(&alice(), &wider, NOW, LIFETIME).is_none(), "asks for more");
        assert!(
            links.again(&alice(), &Destination::default(), NOW.after(LIFETIME * 2 / 3), LIFETIME).is_none(),
            "too old"
        );
        assert_eq!(add(&mut links, "5"), [StateHash::of("0")], "the oldest goes");
        links.forget(StateHash::of("5"));
        assert!(links.again(&alice(), &Destination::default(), NOW, LIFETIME).is_none(), "used up");
        links.forget_expired(NOW.after(LIFETIME));
        assert_eq!((links.connections(), links.owners.len()), (0, 0));
    }
}
