//! The owner of the store: an answer means durable.
//!
//! Each message is worked on by a task of its own, so the mailbox stays free, and a task that has
//! begun ends with an answer even if the actor does not live to see it. A new actor made on the same
//! backend after a panic therefore finds everything that was ever answered.

use std::rc::Rc;
use std::sync::Arc;

use actix::{Actor, Context, Handler, Message, MessageResult, ResponseFuture};

use super::messages::{
    ListConnections, LoadConnection, LoadFlow, LoadFlows, LoadSigningKeys, PurgeExpired, RemoveConnection,
    SaveConnectSession, SaveConnection, SaveFlow, SaveSigningKeys, TakeConnectSession, TakeFlow,
};
use super::operations::Operations;
use crate::clock::Clock;
use crate::store::TokenStore;
use crate::store::sealed::Vault;
use crate::supervision::{ActorKind, ExitGuard, Observation, Observe, Supervised};

/// Messages that may wait for their turn; a turn is short, since tasks do the work.
const MAILBOX: usize = 1024;

/// The one that reads and writes the store.
pub struct TokenStoreActor {
    operations: Rc<Operations>,
    _guard: ExitGuard,
}

impl TokenStoreActor {
    /// An actor over `store`, whose keys [`Vault::verify`] has found to be right. After a panic it
    /// is made anew on the same `store`.
    pub fn new(
        store: Arc<dyn TokenStore>,
        vault: Arc<Vault>,
        clock: Arc<dyn Clock>,
        guard: ExitGuard,
    ) -> Self {
        Self { operations: Rc::new(Operations::new(store, vault, clock)), _guard: guard }
    }
}

impl Actor for TokenStoreActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
    }
}

impl Supervised for TokenStoreActor {
    const KIND: ActorKind = ActorKind::TokenStore;
}

impl Handler<Observe> for TokenStoreActor {
    type Result = MessageResult<Observe>;

    fn handle(&mut self, _: Observe, _: &mut Self::Context) -> Self::Result {
        let observation: Observation = self.operations.observe();
        MessageResult(observation)
    }
}

macro_rules! answered_by {
    ($($message:ident => $operation:ident;)*) => {$(
        impl Handler<$message> for TokenStoreActor {
            type Result = ResponseFuture<<$message as Message>::Result>;

            fn handle(&mut self, message: $message, _: &mut Self::Context) -> Self::Result {
                let operations = self.operations.clone();
                Box::pin(async move { operations.$operation(message).await })
            }
        }
    )*};
}

answered_by! {
    LoadConnection => load_connection;
    SaveConnection => save_connection;
    RemoveConnection => remove_connection;
    ListConnections => list_connections;
    SaveFlow => save_flow;
    LoadFlow => load_flow;
    LoadFlows => load_flows;
    TakeFlow => take_flow;
    SaveConnectSession => save_connect_session;
    TakeConnectSession => take_connect_session;
    PurgeExpired => purge_expired;
    LoadSigningKeys => load_signing_keys;
    SaveSigningKeys => save_signing_keys;
}
