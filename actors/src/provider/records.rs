//! One profile's view of the store: loads and saves with deadlines, and with an answer even when
//! the `TokenStoreActor` restarts in between.

use std::time::Duration;

use crate::connection::ConnectionRecord;
use crate::protocol::identifiers::{ConnectionId, ProfileId};
use crate::registration::signing_keys::ManagedKeyRecord;
use crate::store::{Expected, Revision, StoreError};
use crate::supervision::{ActorRef, AskError};
use crate::token_store::actor::TokenStoreActor;
use crate::token_store::messages::{
    LoadConnection, LoadSigningKeys, RemoveConnection, SaveConnection, SaveSigningKeys, StoredConnection,
};

/// Longest wait for the store, restarts included.
const STORE_DEADLINE: Duration = Duration::from_secs(5);

/// How often a save is tried again when the store's actor ended while it had it.
const SAVE_ATTEMPTS: u32 = 3;

/// Reads and writes connection records.
#[derive(Clone, Debug)]
pub(super) struct Records {
    store: ActorRef<TokenStoreActor>,
}

impl Records {
    pub(super) fn new(store: ActorRef<TokenStoreActor>) -> Self {
        Self { store }
    }

    pub(super) async fn load(&self, id: &ConnectionId) -> Result<Option<StoredConnection>, StoreError> {
        self.store.ask_idempotent(LoadConnection(id.clone()), STORE_DEADLINE).await.map_err(unavailable)?
    }

    /// Saves; the answer means durable. If the actor ended while it had the message, what is stored
    /// tells whether the write was made.
    pub(super) async fn save(
        &self,
        id: &ConnectionId,
        record: &ConnectionRecord,
        expected: Expected,
    ) -> Result<Revision, StoreError> {
        let mut attempt = 1;
        loop {
            let message = SaveConnection { id: id.clone(), record: record.clone(), expected };
            match self.store.ask(message, STORE_DEADLINE).await {
                Ok(answer) => return answer,
                Err(error) => {
                    if let Some(stored) = self.load(id).await?
                        && stored.record == *record
                    {
                        return Ok(stored.revision);
                    }
                    if error != AskError::Restarting || attempt == SAVE_ATTEMPTS {
                        return Err(unavailable(error));
                    }
                    attempt += 1;
                }
            }
        }
    }

    pub(super) async fn remove(&self, id: &ConnectionId, expected: Expected) -> Result<(), StoreError> {
        let message = RemoveConnection { id: id.clone(), expected };
        match self.store.ask_idempotent(message, STORE_DEADLINE).await.map_err(unavailable)? {
            // Repeated after a restart, it finds its own work done.
            Err(StoreError::Conflict { .. }) if self.load(id).await?.is_none() => Ok(()),
            answer => answer,
        }
    }

    pub(super) async fn load_signing_keys(
        &self,
        profile: &ProfileId,
    ) -> Result<Option<(Revision, ManagedKeyRecord)>, StoreError> {
        let message = LoadSigningKeys(profile.clone());
        self.store.ask_idempotent(message, STORE_DEADLINE).await.map_err(unavailable)?
    }

    /// Saves once; whoever asks reads again afterwards, whatever the answer.
    pub(super) async fn save_signing_keys(
        &self,
        profile: &ProfileId,
        record: ManagedKeyRecord,
        expected: Expected,
    ) -> Result<(), StoreError> {
        let message = SaveSigningKeys { profile: profile.clone(), record, expected };
        self.store.ask(message, STORE_DEADLINE).await.map_err(unavailable)?
    }
}

fn unavailable(error: AskError) -> StoreError {
    StoreError::Unavailable(error.to_string())
}
