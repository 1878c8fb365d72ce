//! What readers see without a mailbox: the published connections.
//!
//! Writers are the provider's exchange task and loads from the store. A reader may see a token
//! that was just replaced; the upstream-401 path covers that. The cache is bounded: what falls
//! out is read again from the store.

use std::fmt;
use std::sync::Arc;

use quick_cache::sync::Cache;

use crate::connection::Connection;
use crate::protocol::identifiers::ConnectionId;

/// Published connections, by profile and subject. Cheap to clone; reads take no global lock.
#[derive(Clone)]
pub struct Connections(Arc<Cache<ConnectionId, Arc<Connection>>>);

impl Connections {
    /// Keeps at most about `capacity` connections in memory.
    pub fn new(capacity: usize) -> Self {
        Self(Arc::new(Cache::new(capacity)))
    }

    /// The published connection, if it is in memory.
    pub fn get(&self, id: &ConnectionId) -> Option<Arc<Connection>> {
        self.0.get(id)
    }

    /// How many are in memory.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// How many are kept in memory at most.
    pub fn capacity(&self) -> usize {
        usize::try_from(self.0.capacity()).unwrap_or(usize::MAX)
    }

    /// Whether none is in memory.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Publishes `connection`.
    pub fn publish(&self, connection: Arc<Connection>) {
        self.0.insert(connection.id.clone(), connection);
    }

    /// Forgets a connection, unless `keep` says otherwise.
    pub(crate) fn remove_unless(&self, id: &ConnectionId, keep: impl FnOnce(&Connection) -> bool) {
        self.0.remove_if(id, |connection| !keep(connection));
    }

    /// Forgets all connections that `which` tells. Takes as long as looking at each of them once.
    pub(crate) fn withdraw(&self, which: impl Fn(&Connection) -> bool) {
        self.0.retain(|_, connection| !which(connection));
    }

    /// Forgets a connection.
    pub fn remove(&self, id: &ConnectionId) {
        self.0.remove(id);
    }
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connections").field("len", &self.len()).finish()
    }
}
