//! Profiles and the store's actor, as flows see them.

use std::sync::Arc;
use std::time::Duration;

use actix::{Handler, Message};
use actix_rt::ArbiterHandle;
use futures_util::future::LocalBoxFuture;

use super::{ASK_DEADLINE, ask_error};
use crate::clock::{Clock, Entropy, Timestamp};
use crate::flow::ports::{AuthorizationProvider, FlowStore, Providers};
use crate::flow::record::{ConnectSession, FlowRecord, StateHash};
use crate::flow::registrar::{FlowLimits, FlowRegistrar, FlowServices};
use crate::grants::Redemption;
use crate::profile::Profile;
use crate::protocol::authorization_request::AuthorizationParams;
use crate::protocol::device_authorization::DeviceAuthorization;
use crate::protocol::identifiers::Subject;
use crate::protocol::scope::ScopeSet;
use crate::protocol::secret::Secret;
use crate::protocol::token::TokenSet;
use crate::provider::actor::ProviderActor;
use crate::provider::error::TokenError;
use crate::provider::messages::{
    AuthorizationTarget, AuthorizeDevice, DevicePoll, GetConnection, PollDevice, PrepareAuthorization,
    RedeemAuthorizationCode,
};
use crate::registration::ClientRegistration;
use crate::store::StoreError;
use crate::supervision::{ActorRef, AskError, SupervisorHandle};
use crate::token_store::actor::TokenStoreActor;
use crate::token_store::messages::{
    LoadFlow, LoadFlows, PurgeExpired, SaveConnectSession, SaveFlow, TakeConnectSession, TakeFlow,
};

/// Deadline of a code's redemption: a wait for the connection, a request to the provider, the save.
const REDEEM_DEADLINE: Duration = Duration::from_secs(40);

/// Longest wait for the store, restarts included.
const STORE_DEADLINE: Duration = Duration::from_secs(5);

/// A profile's actor, as flows see it.
#[derive(Debug)]
pub(super) struct ProfilePort {
    pub(super) profile: Arc<Profile>,
    pub(super) actor: ActorRef<ProviderActor>,
}

impl AuthorizationProvider for ProfilePort {
    fn registration(&self) -> &ClientRegistration {
        &self.profile.registration
    }

    fn needs_person(&self) -> bool {
        self.profile.grant.needs_person()
    }

    fn authorization_url(
        &self,
        params: AuthorizationParams,
    ) -> LocalBoxFuture<'static, Result<AuthorizationTarget, TokenError>> {
        let (actor, profile) = (self.actor.clone(), self.profile.registration.profile.clone());
        Box::pin(async move {
            let answer = actor.ask_idempotent(PrepareAuthorization { params }, ASK_DEADLINE).await;
            answer.map_err(|error| ask_error(&profile, error))?
        })
    }

    fn uses_device(&self) -> bool {
        self.profile.grant.uses_device()
    }

    fn authorize_device(
        &self,
        params: Vec<(String, String)>,
    ) -> LocalBoxFuture<'static, Result<DeviceAuthorization, TokenError>> {
        let (actor, profile) = (self.actor.clone(), self.profile.registration.profile.clone());
        Box::pin(async move {
            let answer = actor.ask_idempotent(AuthorizeDevice { params }, ASK_DEADLINE).await;
            answer.map_err(|error| ask_error(&profile, error))?
        })
    }

    fn poll_device(
        &self,
        subject: Subject,
        redemption: Redemption,
    ) -> LocalBoxFuture<'static, Result<DevicePoll, TokenError>> {
        let (actor, profile) = (self.actor.clone(), self.profile.registration.profile.clone());
        Box::pin(async move {
            // Asked once: the answer may have been a token set, which is given once.
            let answer = actor.ask(PollDevice { subject, redemption }, REDEEM_DEADLINE).await;
            answer.map_err(|error| ask_error(&profile, error))?
        })
    }

    fn granted_scopes(&self, subject: Subject) -> LocalBoxFuture<'static, Result<ScopeSet, TokenError>> {
        let (actor, profile) = (self.actor.clone(), self.profile.registration.profile.clone());
        Box::pin(async move {
            let answer = actor.ask_idempotent(GetConnection { subject }, ASK_DEADLINE).await;
            let connection = answer.map_err(|error| ask_error(&profile, error))??;
            let tokens = connection.as_ref().and_then(|connection| connection.state.tokens());
            Ok(tokens.map(TokenSet::kept_scopes).unwrap_or_default())
        })
    }

    fn redeem(
        &self,
        subject: Subject,
        redemption: Redemption,
        nonce: Option<Secret>,
    ) -> LocalBoxFuture<'static, Result<(), TokenError>> {
        let (actor, profile) = (self.actor.clone(), self.profile.registration.profile.clone());
        Box::pin(async move {
            // Asked once: a code is single-use.
            let answer =
                actor.ask(RedeemAuthorizationCode { subject, redemption, nonce }, REDEEM_DEADLINE).await;
            answer.map_err(|error| ask_error(&profile, error))?.map(drop)
        })
    }
}

/// The store's actor, as flows see it.
#[derive(Debug)]
struct StorePort(ActorRef<TokenStoreActor>);

impl StorePort {
    fn once<M, T>(&self, message: M) -> LocalBoxFuture<'static, Result<T, StoreError>>
    where
        M: Message<Result = Result<T, StoreError>> + Send + 'static,
        T: Send + 'static,
        TokenStoreActor: Handler<M>,
    {
        let store = self.0.clone();
        Box::pin(async move { store.ask(message, STORE_DEADLINE).await.map_err(unavailable)? })
    }

    fn idempotent<M, T>(&self, message: M) -> LocalBoxFuture<'static, Result<T, StoreError>>
    where
        M: Message<Result = Result<T, StoreError>> + Clone + Send + 'static,
        T: Send + 'static,
        TokenStoreActor: Handler<M>,
    {
        let store = self.0.clone();
        Box::pin(async move { store.ask_idempotent(message, STORE_DEADLINE).await.map_err(unavailable)? })
    }
}

impl FlowStore for StorePort {
    fn save(&self, record: FlowRecord) -> LocalBoxFuture<'static, Result<(), StoreError>> {
        self.idempotent(SaveFlow(record))
    }

    fn load(&self, state: StateHash) -> LocalBoxFuture<'static, Result<Option<FlowRecord>, StoreError>> {
        self.idempotent(LoadFlow(state))
    }

    fn load_all(&self, limit: usize) -> LocalBoxFuture<'static, Result<Vec<FlowRecord>, StoreError>> {
        self.idempotent(LoadFlows { limit })
    }

    // Asked once: repeated, it would find its own work done and report that another was faster.
    fn take(&self, state: StateHash) -> LocalBoxFuture<'static, Result<bool, StoreError>> {
        self.once(TakeFlow(state))
    }

    fn save_link(&self, link: ConnectSession) -> LocalBoxFuture<'static, Result<(), StoreError>> {
        self.idempotent(SaveConnectSession(link))
    }

    fn take_link(
        &self,
        token: StateHash,
    ) -> LocalBoxFuture<'static, Result<Option<ConnectSession>, StoreError>> {
        self.once(TakeConnectSession(token))
    }

    fn purge(&self, now: Timestamp) -> LocalBoxFuture<'static, Result<usize, StoreError>> {
        self.idempotent(PurgeExpired { now })
    }
}

fn unavailable(error: AskError) -> StoreError {
    StoreError::Unavailable(error.to_string())
}

/// Starts the flows' registrar over the profiles and the store.
pub(super) fn start_registrar(
    supervisor: &SupervisorHandle,
    arbiter: ArbiterHandle,
    providers: Providers,
    store: &ActorRef<TokenStoreActor>,
    clock: &Arc<dyn Clock>,
    entropy: &Arc<dyn Entropy>,
) -> ActorRef<FlowRegistrar> {
    let services = FlowServices {
        providers,
        store: Arc::new(StorePort(store.clone())),
        supervisor: supervisor.clone(),
        arbiter,
        clock: clock.clone(),
        entropy: entropy.clone(),
        limits: FlowLimits::default(),
    };
    supervisor.start_child(FlowRegistrar::spec(services))
}
