//! What the `TokenStoreActor` is asked.

use actix::Message;

use crate::clock::Timestamp;
use crate::connection::{Connection, ConnectionRecord, ConnectionState, ConnectionView, Held, Reason};
use crate::flow::record::{ConnectSession, FlowRecord, StateHash};
use crate::protocol::identifiers::{ConnectionId, ProfileId, Subject};
use crate::registration::dynamic::{ClientKey, ClientRecord};
use crate::registration::policy::RefreshPolicy;
use crate::registration::signing_keys::ManagedKeyRecord;
use crate::store::{Expected, Revision, StoreError};

/// Reads one connection's record.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<Option<StoredConnection>, StoreError>")]
pub struct LoadConnection(pub ConnectionId);

/// A record as it was read.
#[derive(Clone, Debug)]
pub struct StoredConnection {
    /// Profile and subject.
    pub id: ConnectionId,
    /// Its revision.
    pub revision: Revision,
    /// The opened record.
    pub record: ConnectionRecord,
}

impl StoredConnection {
    /// What can be said of a connection whose profile is no longer configured.
    pub fn view_without_profile(&self, now: Timestamp) -> ConnectionView {
        let record = &self.record;
        let lost = Err(Reason::NoRefreshToken);
        let (state, renewal) = match &record.held {
            Held::Tokens(tokens) => (
                ConnectionState::obtained((**tokens).clone()),
                tokens.refresh_token.as_ref().map(|_| ()).ok_or(Reason::NoRefreshToken),
            ),
            Held::Nothing => {
                let reason = Reason::NeverConnected;
                (ConnectionState::NeedsConsent { reason, since: record.created_at }, lost)
            }
            Held::NeedsConsent { reason, since } => {
                (ConnectionState::NeedsConsent { reason: *reason, since: *since }, lost)
            }
        };
        let policy = RefreshPolicy::default();
        let (id, origins) = (self.id.clone(), record.origins.clone());
        Connection::new(id, self.revision, origins, record.created_at, state, renewal, &policy)
            .view(now, false)
    }
}

/// Writes one connection's record if `expected` holds; answers once it is durable.
/// [`StoreError::Conflict`] if it does not hold.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<Revision, StoreError>")]
pub struct SaveConnection {
    /// Profile and subject.
    pub id: ConnectionId,
    /// What to write.
    pub record: ConnectionRecord,
    /// What must be true.
    pub expected: Expected,
}

/// Removes one connection's record if `expected` holds. Removing what is absent is no error.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<(), StoreError>")]
pub struct RemoveConnection {
    /// Profile and subject.
    pub id: ConnectionId,
    /// What must be true.
    pub expected: Expected,
}

/// Lists connections in the order of profile and subject.
#[derive(Clone, Debug, Default, Message)]
#[rtype(result = "Result<ConnectionPage, StoreError>")]
pub struct ListConnections {
    /// Only this profile's.
    pub profile: Option<ProfileId>,
    /// Only this subject's.
    pub subject: Option<Subject>,
    /// Only those after this one: the last of the page before.
    pub after: Option<ConnectionId>,
    /// At most so many.
    pub limit: usize,
}

/// A page of connections.
#[derive(Clone, Debug)]
pub struct ConnectionPage {
    /// The records, in order.
    pub connections: Vec<StoredConnection>,
    /// Where the next page begins, if there is one.
    pub next: Option<ConnectionId>,
    /// Records that could not be opened; they are named in the log and left as they are.
    pub damaged: usize,
    /// Those of them that can be named.
    pub unreadable: Vec<ConnectionId>,
}

/// Keeps a pending flow, sealed, before the browser is sent away.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<(), StoreError>")]
pub struct SaveFlow(pub FlowRecord);

/// Reads a pending flow without using it up.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<Option<FlowRecord>, StoreError>")]
pub struct LoadFlow(pub StateHash);

/// Uses a pending flow up: of all who ask, on all replicas, just one gets `true`.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<bool, StoreError>")]
pub struct TakeFlow(pub StateHash);

/// Reads all pending flows, to revive their actors after a restart.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<Vec<FlowRecord>, StoreError>")]
pub struct LoadFlows {
    /// At most so many.
    pub limit: usize,
}

/// Keeps a one-time connect link.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<(), StoreError>")]
pub struct SaveConnectSession(pub ConnectSession);

/// Uses a connect link up: of all who ask, just one gets it.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<Option<ConnectSession>, StoreError>")]
pub struct TakeConnectSession(pub StateHash);

/// Removes flows and connect links that have expired.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<usize, StoreError>")]
pub struct PurgeExpired {
    /// What counts as now.
    pub now: Timestamp,
}

/// Reads a registered client's record.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<Option<StoredClient>, StoreError>")]
pub struct LoadClient(pub ClientKey);

/// A registered client's record as it was read.
#[derive(Clone, Debug)]
pub struct StoredClient {
    /// Its revision.
    pub revision: Revision,
    /// The opened record.
    pub record: ClientRecord,
}

/// Writes a registered client's record if `expected` holds; answers once it is durable.
/// [`StoreError::Conflict`] if it does not hold.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<Revision, StoreError>")]
pub struct SaveClient {
    /// Which client.
    pub key: ClientKey,
    /// What to write.
    pub record: ClientRecord,
    /// What must be true.
    pub expected: Expected,
}

/// Reads the signing keys that the gateway made for a profile.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<Option<(Revision, ManagedKeyRecord)>, StoreError>")]
pub struct LoadSigningKeys(pub ProfileId);

/// Writes the signing keys of a profile if `expected` holds; answers once they are durable.
/// [`StoreError::Conflict`] if it does not hold.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<(), StoreError>")]
pub struct SaveSigningKeys {
    /// Whose keys.
    pub profile: ProfileId,
    /// What to write.
    pub record: ManagedKeyRecord,
    /// What must be true.
    pub expected: Expected,
}
