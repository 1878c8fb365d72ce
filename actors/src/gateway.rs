//! Starts the tree of actors in order, gives handles on it, inspects and drains it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use actix_rt::Arbiter;
use arc_swap::ArcSwap;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::future::LocalBoxFuture;
use serde::Serialize;

use crate::clock::{Clock, Entropy, Timestamp};
use crate::connection::{Connection, ConnectionView};
use crate::flow::error::FlowError;
use crate::flow::messages::{
    AcceptAuthorizationResponse, AuthorizationRedirect, BeginAuthorization, ConnectLink, CreateConnectLink,
    FlowOutcome,
};
use crate::flow::registrar::FlowRegistrar;
use crate::profile::Profile;
use crate::protocol::authorization_response::AuthorizationResponse;
use crate::protocol::identifiers::{ConnectionId, ProfileId, Subject};
use crate::protocol::scope::ScopeSet;
use crate::protocol::secret::Secret;
use crate::protocol::template::CallContext;
use crate::protocol::token::{TokenFingerprint, TokenSet};
use crate::provider::context::ProviderDeps;
use crate::provider::error::TokenError;
use crate::provider::messages::{
    GetAccessToken, GetConnection, ImportConnection, RefreshAhead, RefreshNow, RevokeConnection,
};
use crate::proxy::actor::TokenSource;
use crate::proxy::route::RoutingTable;
use crate::registration::signing_keys::{self, SigningKeys};
use crate::snapshot::Connections;
use crate::store::sealed::Vault;
use crate::store::{StoreError, TokenStore};
use crate::supervision::{
    ActorKind, ActorRef, ActorReport, AskError, ChildSpec, RestartPolicy, Supervisor, SupervisorHandle,
};
use crate::token_store::actor::TokenStoreActor;
use crate::token_store::messages::{ConnectionPage, ListConnections, StoredConnection};
use crate::transport::Transport;
use profiles::{RunningProfile, RunningProfiles};

/// Deadline of what a person or an operator waits for: two requests to a provider, and the store.
const ASK_DEADLINE: Duration = Duration::from_secs(30);

/// Deadline of a callback, beyond that of the flow it is for.
const CALLBACK_DEADLINE: Duration = Duration::from_secs(50);

/// How often draining looks whether the work is done.
const DRAIN_POLL: Duration = Duration::from_millis(20);

/// What the engine is made of. Everything that touches the outside is injected.
pub struct GatewayParts {
    /// All profiles; each gets a `ProviderActor`.
    pub profiles: Vec<Arc<Profile>>,
    /// All routes.
    pub routing: RoutingTable,
    /// The backend.
    pub store: Arc<dyn TokenStore>,
    /// Seals what the backend keeps.
    pub vault: Vault,
    /// The way to providers.
    pub transport: Arc<dyn Transport>,
    /// Wall clock.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// Connections kept in memory, at most.
    pub cached_connections: usize,
}

mod device;
mod operator;
pub mod people;
mod ports;
mod profiles;
pub mod reload;

struct Engine {
    routing: ArcSwap<RoutingTable>,
    connections: Connections,
    profiles: Arc<RunningProfiles>,
    store: ActorRef<TokenStoreActor>,
    registrar: ActorRef<FlowRegistrar>,
    supervisor: SupervisorHandle,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    unsaved: Arc<AtomicUsize>,
    draining: AtomicBool,
    late_requests: AtomicUsize,
}

/// The way into the engine for listeners. Cheap to clone, usable from any thread. Listeners reach
/// actors only through its methods.
#[derive(Clone)]
pub struct GatewayHandle(Arc<Engine>);

impl fmt::Debug for GatewayHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GatewayHandle").field("profiles", &self.0.profiles).finish_non_exhaustive()
    }
}

/// A page of connections, as the admin API shows it.
#[derive(Clone, Debug)]
pub struct ConnectionViews {
    /// The connections, in the order of profile and subject.
    pub connections: Vec<ConnectionView>,
    /// Where the next page begins.
    pub next: Option<ConnectionId>,
}

/// Whether the gateway can do its job.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Readiness {
    /// Whether calls should be sent here.
    pub ready: bool,
    /// What is wrong, one line each.
    pub problems: Vec<String>,
}

impl GatewayHandle {
    /// Checks the store's keys, then starts all actors on the current arbiter, from the bottom up.
    /// Must be called within an actix `System`.
    ///
    /// # Errors
    /// [`StoreError::Keys`] if the encryption keys do not fit the store, before anything is changed;
    /// others if managed signing keys cannot be had from it.
    pub async fn start(parts: GatewayParts) -> Result<Self, StoreError> {
        let GatewayParts { profiles, routing, store, vault, transport, clock, entropy, cached_connections } =
            parts;
        vault.verify(store.as_ref()).await?;
        let exclusive_store = store.is_exclusive();
        let supervisor = Supervisor::start(clock.clone());
        let arbiter = Arbiter::current();

        let (vault, store_clock) = (Arc::new(vault), clock.clone());
        let store = supervisor.start_child(ChildSpec {
            id: "store".to_owned(),
            policy: RestartPolicy::default(),
            arbiter: arbiter.clone(),
            factory: Box::new(move |guard| {
                TokenStoreActor::new(store.clone(), vault.clone(), store_clock.clone(), guard)
            }),
        });

        let connections = Connections::new(cached_connections);
        let unsaved = Arc::new(AtomicUsize::new(0));
        let deps = ProviderDeps {
            owner: process_name(entropy.as_ref()),
            exclusive_store,
            clock: clock.clone(),
            entropy: entropy.clone(),
            transport,
            store: store.clone(),
            connections: connections.clone(),
            unsaved: unsaved.clone(),
        };
        let profiles =
            Arc::new(RunningProfiles::start(profiles, deps, supervisor.clone(), arbiter.clone()).await?);
        let flow_profiles = profiles.for_flows();
        let registrar = ports::start_registrar(&supervisor, arbiter, flow_profiles, &store, &clock, &entropy);
        let routing = ArcSwap::from_pointee(routing);
        Ok(Self(Arc::new(Engine {
            routing,
            connections,
            profiles,
            store,
            registrar,
            supervisor,
            clock,
            entropy,
            unsaved,
            draining: AtomicBool::new(false),
            late_requests: AtomicUsize::new(0),
        })))
    }

    /// All routes, as published.
    pub fn routes(&self) -> Arc<RoutingTable> {
        self.0.routing.load_full()
    }

    /// The published connections: the hot path's source of tokens.
    pub fn connections(&self) -> &Connections {
        &self.0.connections
    }

    /// One profile.
    pub fn profile(&self, id: &ProfileId) -> Option<Arc<Profile>> {
        self.0.profiles.get(id).map(|running| running.profile())
    }

    /// All profiles, in order of their names.
    pub fn profiles(&self) -> Vec<Arc<Profile>> {
        self.0.profiles.all().values().map(RunningProfile::profile).collect()
    }

    /// The public keys that profiles sign with, each once, in the order of the profiles (RFC 7517).
    pub fn published_keys(&self) -> Vec<serde_json::Value> {
        let profiles = self.profiles();
        let keys =
            profiles.iter().flat_map(|profile| profile.signing_keys()).flat_map(SigningKeys::published);
        signing_keys::public_set(keys)
    }

    /// The current moment.
    pub fn now(&self) -> Timestamp {
        self.0.clock.now()
    }

    /// Randomness for request ids and cookies.
    pub fn entropy(&self) -> Arc<dyn Entropy> {
        self.0.entropy.clone()
    }

    /// The supervisor, for the `ProxyActor`s that workers start.
    pub fn supervisor(&self) -> &SupervisorHandle {
        &self.0.supervisor
    }

    /// Slow path of a call: obtains or awaits a usable token that may be sent to `origin`.
    ///
    /// # Errors
    /// [`TokenError`], each variant saying who must act.
    pub async fn access_token(
        &self,
        id: &ConnectionId,
        origin: Arc<str>,
        rejected: Option<TokenFingerprint>,
        call: Arc<CallContext>,
        deadline: Duration,
    ) -> Result<Arc<Connection>, TokenError> {
        let message = GetAccessToken { subject: id.subject.clone(), origin, rejected, call };
        let running = self.0.profiles.get_or_leaving(&id.profile);
        let running = running.ok_or_else(|| ask_error(&id.profile, AskError::Stopped))?;
        let answer = running.actor.ask_idempotent(message, deadline).await;
        answer.map_err(|error| ask_error(&id.profile, error))?
    }

    /// Has a token that is in use refreshed before it ends; never waits. Of many calls at a time one
    /// is passed on. A full mailbox loses nothing: the next call asks again.
    pub fn refresh_ahead(&self, id: &ConnectionId, call: &Arc<CallContext>) {
        let claimed =
            self.0.connections.get(id).is_none_or(|connection| connection.claim_refresh(self.now()));
        if claimed && let Some(running) = self.0.profiles.get(&id.profile) {
            let _ = running.actor.tell(RefreshAhead { subject: id.subject.clone(), call: call.clone() });
        }
    }

    /// Makes a one-time connect link that asks for `scopes` beyond the profile's. `return_to` must
    /// have been checked.
    ///
    /// # Errors
    /// [`FlowError::UnknownProfile`], [`FlowError::NoConsentNeeded`], or the store's fault.
    pub async fn create_connect_link(
        &self,
        connection: ConnectionId,
        return_to: Option<String>,
        scopes: ScopeSet,
    ) -> Result<ConnectLink, FlowError> {
        self.0.registrar.ask(CreateConnectLink { connection, return_to, scopes }, ASK_DEADLINE).await?
    }

    /// Starts a flow without a link, for a browser that calls a route; `call` is what it brings along.
    ///
    /// # Errors
    /// [`FlowError`], if the provider's metadata or the store cannot be had.
    pub async fn begin_authorization(
        &self,
        connection: ConnectionId,
        return_to: Option<String>,
        browser: Option<Secret>,
        call: Arc<CallContext>,
    ) -> Result<AuthorizationRedirect, FlowError> {
        let message = BeginAuthorization { connection, return_to, browser, call };
        self.0.registrar.ask(message, ASK_DEADLINE).await?
    }

    /// Finishes a flow with what came to the redirection endpoint.
    ///
    /// # Errors
    /// [`FlowError::Invalid`] leaves any flow unharmed; the others end it.
    pub async fn accept_authorization_response(
        &self,
        response: AuthorizationResponse,
        browser: Option<Secret>,
    ) -> Result<FlowOutcome, FlowError> {
        let message = AcceptAuthorizationResponse { response, browser };
        self.0.registrar.ask(message, CALLBACK_DEADLINE).await?
    }

    /// Lists connections in the order of profile and subject.
    ///
    /// # Errors
    /// The store's.
    pub async fn list_connections(
        &self,
        profile: Option<ProfileId>,
        subject: Option<Subject>,
        after: Option<ConnectionId>,
        limit: usize,
    ) -> Result<ConnectionViews, StoreError> {
        let message = ListConnections { profile, subject, after, limit };
        let answer = self.0.store.ask_idempotent(message, ASK_DEADLINE).await;
        let ConnectionPage { connections, next, .. } =
            answer.map_err(|error| StoreError::Unavailable(error.to_string()))??;
        Ok(ConnectionViews {
            connections: connections.iter().map(|stored| self.view_stored(stored)).collect(),
            next,
        })
    }

    /// One connection, or `None` if it was never made.
    ///
    /// # Errors
    /// [`TokenError::StoreUnavailable`], or that the profile's actor did not answer.
    pub async fn connection(&self, id: &ConnectionId) -> Result<Option<ConnectionView>, TokenError> {
        let provider = self.provider(&id.profile)?;
        let message = GetConnection { subject: id.subject.clone() };
        let answer = provider.actor.ask_idempotent(message, ASK_DEADLINE).await;
        let connection = answer.map_err(|error| ask_error(&id.profile, error))??;
        Ok(connection.map(|connection| self.view(&provider, &connection)))
    }

    /// Refreshes now, whatever the token's age.
    ///
    /// # Errors
    /// [`TokenError`].
    pub async fn refresh_connection(&self, id: &ConnectionId) -> Result<ConnectionView, TokenError> {
        let provider = self.provider(&id.profile)?;
        let answer = provider.actor.ask(RefreshNow { subject: id.subject.clone() }, ASK_DEADLINE).await;
        let connection = answer.map_err(|error| ask_error(&id.profile, error))??;
        Ok(self.view(&provider, &connection))
    }

    /// Revokes at the provider and forgets. `Ok(false)` if there was none.
    ///
    /// # Errors
    /// [`TokenError`], if the store did not forget it.
    pub async fn delete_connection(&self, id: &ConnectionId) -> Result<bool, TokenError> {
        let provider = self.provider(&id.profile)?;
        let answer = provider.actor.ask(RevokeConnection { subject: id.subject.clone() }, ASK_DEADLINE).await;
        answer.map_err(|error| ask_error(&id.profile, error))?
    }

    /// Takes in a token set obtained elsewhere.
    ///
    /// # Errors
    /// [`TokenError`], if the store did not take it.
    pub async fn import_connection(
        &self,
        id: &ConnectionId,
        tokens: TokenSet,
    ) -> Result<ConnectionView, TokenError> {
        let provider = self.provider(&id.profile)?;
        let message = ImportConnection { subject: id.subject.clone(), tokens };
        let answer = provider.actor.ask(message, ASK_DEADLINE).await;
        let connection = answer.map_err(|error| ask_error(&id.profile, error))??;
        Ok(self.view(&provider, &connection))
    }

    /// One report for every actor. The flows' registrar is no flow, so that it has a row only while
    /// something is to be told of it.
    pub async fn inspect(&self) -> Vec<ActorReport> {
        let mut reports = self.0.supervisor.inspect().await;
        reports.retain(|report| match report.kind {
            ActorKind::Flow => report.id != FlowRegistrar::ID || report.is_troubled(),
            ActorKind::Provider => self.0.profiles.all().keys().any(|id| id.as_str() == report.id),
            _ => true,
        });
        reports
    }

    /// Whether calls should be sent here.
    pub async fn readiness(&self) -> Readiness {
        let mut problems = Vec::new();
        if self.0.draining.load(Ordering::Relaxed) {
            problems.push("the gateway is draining: it was told to end".to_owned());
        }
        let unsaved = self.0.unsaved.load(Ordering::Relaxed);
        if unsaved > 0 {
            problems.push(format!("{unsaved} token sets are not durable yet: the token store fails"));
        }
        for report in self.inspect().await {
            let store_fails = report.kind == ActorKind::TokenStore && report.state == "failing";
            if report.kind != ActorKind::Flow && (report.is_down() || store_fails) {
                problems.push(format!("{:?} {} is {}", report.kind, report.id, report.state));
            }
        }
        Readiness { ready: problems.is_empty(), problems }
    }

    /// From now on the gateway is not ready: it is about to end.
    pub fn begin_draining(&self) {
        self.0.draining.store(true, Ordering::Relaxed);
    }

    /// Whether the gateway is about to end.
    pub fn is_draining(&self) -> bool {
        self.0.draining.load(Ordering::Relaxed)
    }

    /// Counts a request that came since [`GatewayHandle::begin_draining`].
    pub fn note_late_request(&self) {
        self.0.late_requests.fetch_add(1, Ordering::Relaxed);
    }

    /// Requests so far that came since [`GatewayHandle::begin_draining`].
    pub fn late_requests(&self) -> usize {
        self.0.late_requests.load(Ordering::Relaxed)
    }

    /// Waits until no exchange is under way and every token set is durable, at most `deadline`.
    /// Returns whether that was reached.
    pub async fn drain(&self, deadline: Duration) -> bool {
        let idle = async {
            while self.0.profiles.has_flights() {
                tokio::time::sleep(DRAIN_POLL).await;
            }
        };
        tokio::time::timeout(deadline, idle).await.is_ok()
    }

    fn provider(&self, id: &ProfileId) -> Result<RunningProfile, TokenError> {
        self.0.profiles.get(id).ok_or_else(|| ask_error(id, AskError::Stopped))
    }

    fn view(&self, running: &RunningProfile, connection: &Connection) -> ConnectionView {
        let context = running.current.get();
        connection.view(self.now(), context.flights.is_running(&connection.id.subject))
    }

    fn view_stored(&self, stored: &StoredConnection) -> ConnectionView {
        match self.0.profiles.get(&stored.id.profile) {
            Some(running) => self.view(&running, &running.current.get().shown(stored)),
            None => stored.view_without_profile(self.now()),
        }
    }
}

impl TokenSource for GatewayHandle {
    fn access_token(
        &self,
        id: ConnectionId,
        origin: Arc<str>,
        rejected: Option<TokenFingerprint>,
        call: Arc<CallContext>,
        deadline: Duration,
    ) -> LocalBoxFuture<'static, Result<Arc<Connection>, TokenError>> {
        let gateway = self.clone();
        Box::pin(async move { gateway.access_token(&id, origin, rejected, call, deadline).await })
    }

    fn routes(&self) -> Arc<RoutingTable> {
        self.routes()
    }
}

pub(crate) fn ask_error(profile: &ProfileId, source: AskError) -> TokenError {
    TokenError::Ask { profile: profile.clone(), source }
}

/// Names this process in journals; another start has another name.
fn process_name(entropy: &dyn Entropy) -> Arc<str> {
    let mut bytes = [0u8; 9];
    entropy.fill(&mut bytes);
    Arc::from(URL_SAFE_NO_PAD.encode(bytes))
}
