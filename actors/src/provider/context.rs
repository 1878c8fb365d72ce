//! What a `ProviderActor` and its exchanges share, and what outlives a crash of the actor.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use super::breaker::Breaker;
use super::client::ClientPort;
use super::error::TokenError;
use super::flights::FlightTable;
use super::records::Records;
use super::scopes::ScopeRefusals;
use crate::clock::{Clock, Entropy, Timestamp, unit_interval};
use crate::connection::{
    Connection, ConnectionRecord, ConnectionState, ConnectionView, Failure, FailureClass, Held, InFlight,
    Reason, Trouble,
};
use crate::discovery::Discovery;
use crate::jwk_set::JwkSetCache;
use crate::profile::{Client, Profile};
use crate::protocol::identifiers::{ConnectionId, Subject};
use crate::protocol::token::{RefreshToken, TokenSet};
use crate::snapshot::Connections;
use crate::store::{Revision, StoreError};
use crate::supervision::ActorRef;
use crate::token_endpoint::{TokenEndpoint, failure};
use crate::token_store::actor::TokenStoreActor;
use crate::token_store::messages::StoredConnection;
use crate::transport::{Transport, Via};

/// Everything one profile's exchanges work with.
pub struct ProviderContext {
    /// The profile.
    pub profile: Arc<Profile>,
    /// Names this process in journals.
    pub owner: Arc<str>,
    /// Whether no other process can write to the store.
    pub exclusive_store: bool,
    /// Wall clock.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// The way to the provider.
    pub transport: Arc<dyn Transport>,
    /// Where readers see connections.
    pub connections: Connections,
    /// The provider's metadata.
    pub discovery: Discovery,
    /// The provider's token endpoint.
    pub token_endpoint: TokenEndpoint,
    /// The provider's keys for ID tokens.
    pub keys: JwkSetCache,
    /// Work in progress.
    pub flights: FlightTable,
    /// Holds back while the provider fails.
    pub breaker: Breaker,
    /// Token sets that are not durable yet, over all profiles; readiness looks at it.
    pub unsaved: Arc<AtomicUsize>,
    /// What happened so far.
    pub counters: Counters,
    pub(super) records: Records,
    pub(super) scope_refusals: ScopeRefusals,
    client: ClientPort,
    /// When an earlier configuration of the profile was replaced by this one, if one was.
    replaced_at: Option<Timestamp>,
    /// Whether there is a later configuration, or the profile is gone. Held while publishing.
    retired: Mutex<bool>,
    last_error: Mutex<Option<String>>,
    attention: Mutex<BTreeMap<Subject, ConnectionView>>,
}

/// What a profile's actor works with today. Another configuration of the profile puts another context
/// here; what is under way goes on with the one that it began with.
#[derive(Clone, Debug)]
pub struct CurrentContext(Arc<ArcSwap<ProviderContext>>);

impl CurrentContext {
    /// Begins with `context`.
    pub fn new(context: Arc<ProviderContext>) -> Self {
        Self(Arc::new(ArcSwap::new(context)))
    }

    /// The context of today.
    pub fn get(&self) -> Arc<ProviderContext> {
        self.0.load_full()
    }

    /// Puts `next` in its place. Whoever asked before sees to it that nothing of the old one is
    /// published any more.
    pub(crate) fn replace(&self, next: Arc<ProviderContext>) {
        self.0.swap(next).retire();
    }
}

/// Connections that are not well and that the debug endpoint shows, at most.
const ATTENTION: usize = 50;

/// What happened so far, for the debug endpoint.
#[derive(Debug, Default)]
pub struct Counters {
    /// Requests sent to the token endpoint.
    pub token_requests: AtomicU64,
    /// Of them, those that brought a token.
    pub granted: AtomicU64,
    /// Those that failed, also before they were sent.
    pub failures: AtomicU64,
    /// Calls that joined a flight instead of starting one.
    pub joins: AtomicU64,
}

/// What all profiles have in common.
#[derive(Clone)]
pub struct ProviderDeps {
    /// Names this process in journals.
    pub owner: Arc<str>,
    /// Whether no other process can write to the store.
    pub exclusive_store: bool,
    /// Wall clock.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// The way to providers.
    pub transport: Arc<dyn Transport>,
    /// The store's actor.
    pub store: ActorRef<TokenStoreActor>,
    /// Where readers see connections.
    pub connections: Connections,
    /// Token sets that are not durable yet.
    pub unsaved: Arc<AtomicUsize>,
}

impl fmt::Debug for ProviderContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProviderContext")
            .field("profile", &self.profile.registration.profile)
            .finish_non_exhaustive()
    }
}

impl ProviderContext {
    /// Puts together what `profile` needs.
    pub fn new(profile: Arc<Profile>, deps: &ProviderDeps) -> Self {
        Self::over(profile, deps, FlightTable::default())
    }

    /// As [`ProviderContext::new`], in place of an earlier configuration of the profile, of which only
    /// the `flights` live on: all else begins as it does in a new process.
    pub(crate) fn succeeding(profile: Arc<Profile>, deps: &ProviderDeps, flights: FlightTable) -> Self {
        let replaced_at = Some(deps.clock.now());
        Self { replaced_at, ..Self::over(profile, deps, flights) }
    }

    fn over(profile: Arc<Profile>, deps: &ProviderDeps, flights: FlightTable) -> Self {
        let ProviderDeps { owner, exclusive_store, clock, entropy, transport, store, connections, unsaved } =
            deps.clone();
        let provider = profile.registration.provider.clone();
        let transport: Arc<dyn Transport> = Arc::new(Via::new(transport, provider.outbound.clone()));
        let records = Records::new(store);
        Self {
            client: ClientPort::new(&profile, &records, &transport, &clock, &entropy),
            discovery: Discovery::new(provider, transport.clone(), clock.clone()),
            token_endpoint: TokenEndpoint::new(transport.clone(), clock.clone(), entropy.clone()),
            keys: JwkSetCache::default(),
            flights,
            breaker: Breaker::default(),
            counters: Counters::default(),
            records,
            scope_refusals: ScopeRefusals::default(),
            replaced_at: None,
            retired: Mutex::new(false),
            last_error: Mutex::new(None),
            attention: Mutex::new(BTreeMap::new()),
            profile,
            owner,
            exclusive_store,
            clock,
            entropy,
            transport,
            connections,
            unsaved,
        }
    }

    /// The profile's client, registered by now if it must be. One that the configuration names costs
    /// nothing.
    ///
    /// # Errors
    /// Why it cannot be registered; the failure of whoever asked just before is repeated.
    pub async fn client(&self) -> Result<Arc<Client>, Failure> {
        match &self.client {
            ClientPort::Given(client) => Ok(client.clone()),
            ClientPort::Registered(registered) => match registered.at_hand() {
                Some(answer) => answer,
                None => registered.get(self.discovery.metadata().await?).await,
            },
        }
    }

    /// The client's identifier, if there is one by now. Registers nothing.
    pub async fn client_id(&self) -> Option<String> {
        match &self.client {
            ClientPort::Given(client) => Some(client.client_id.clone()),
            ClientPort::Registered(registered) => registered.client_id().await,
        }
    }

    pub(super) fn id(&self, subject: &Subject) -> ConnectionId {
        ConnectionId { profile: self.profile.registration.profile.clone(), subject: subject.clone() }
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(super) fn jitter(&self) -> f64 {
        unit_interval(self.entropy.as_ref())
    }

    pub(super) fn aborted(&self, subject: &Subject) -> TokenError {
        TokenError::Aborted { id: self.id(subject) }
    }

    pub(super) fn store_error(&self, subject: &Subject, error: &StoreError) -> TokenError {
        self.note_error(error);
        TokenError::StoreUnavailable { id: self.id(subject), detail: error.to_string() }
    }

    pub(super) fn note_error(&self, error: &dyn fmt::Display) {
        *self.last_error.lock() = Some(format!("{}: {error}", self.now()));
    }

    /// The last thing that went wrong, and when.
    pub fn last_error(&self) -> Option<String> {
        self.last_error.lock().clone()
    }

    pub(super) fn count(&self, counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// The published form of a stored record. Trouble lives in memory only: it is carried over as
    /// long as the record is the one it was met with.
    pub(crate) fn present(&self, stored: &StoredConnection) -> Connection {
        let before = self.connections.get(&stored.id);
        let kept =
            before.as_deref().filter(|c| c.revision == stored.revision || self.is_own_mark(&stored.record));
        let trouble = kept.and_then(|connection| connection.state.trouble().cloned());
        let state = match &stored.record.held {
            Held::NeedsConsent { reason, since } => {
                ConnectionState::NeedsConsent { reason: *reason, since: *since }
            }
            Held::Tokens(tokens) => match trouble {
                Some(trouble) => with_trouble(Some((**tokens).clone()), trouble),
                None => ConnectionState::obtained((**tokens).clone()),
            },
            Held::Nothing => {
                let never = || Trouble {
                    reason: Reason::NeverConnected,
                    detail: "the first token request has not been answered".to_owned(),
                    since: stored.record.created_at,
                    attempts: 0,
                    noted_at: stored.record.created_at,
                    next_attempt: stored.record.created_at,
                };
                with_trouble(None, trouble.unwrap_or_else(never))
            }
        };
        let doubtful = kept.is_some_and(|kept| kept.is_doubtful());
        self.connection(stored.id.clone(), stored.revision, &stored.record, state).in_doubt(doubtful)
    }

    /// What is shown of a stored record: the newer token set that waits to be saved, if there is one.
    pub(crate) fn shown(&self, stored: &StoredConnection) -> Arc<Connection> {
        let published = self.connections.get(&stored.id);
        let unsaved = published.filter(|connection| connection.is_unsaved());
        unsaved.unwrap_or_else(|| Arc::new(self.present(stored)))
    }

    /// Whether `mark` was written by another process, or with an earlier configuration of the profile:
    /// nothing is known here of what came of it.
    pub(super) fn is_earlier_mark(&self, mark: &InFlight) -> bool {
        mark.owner != *self.owner || self.replaced_at.is_some_and(|at| mark.since < at)
    }

    fn is_own_mark(&self, record: &ConnectionRecord) -> bool {
        record.in_flight.as_ref().is_some_and(|mark| mark.owner == *self.owner)
    }

    /// `connection`, whose token set had ended before it could be used: the provider fails, as far
    /// as its callers can tell, and it is not asked again by every one of them.
    pub(super) fn stillborn(
        &self,
        connection: &Connection,
        earlier: Option<Trouble>,
    ) -> (Connection, TokenError) {
        let failure = failure(
            FailureClass::ProviderUnavailable,
            Reason::MalformedAnswer,
            "the token it gave had already ended; compare the clocks and `expires_in`",
        );
        let tokens = connection.state.tokens().cloned();
        let state = match (earlier, tokens) {
            (Some(trouble), tokens) => ConnectionState::Retrying { tokens, trouble },
            (None, Some(tokens)) => ConnectionState::obtained(tokens),
            (None, None) => connection.state.clone(),
        };
        let retry = &self.profile.registration.retry;
        let state = state.failed(&failure, self.now(), retry, self.jitter());
        let policy = &self.profile.registration.refresh;
        let (id, origins) = (connection.id.clone(), connection.origins.clone());
        let (revision, created_at, renewal) =
            (connection.revision, connection.created_at, connection.renewal);
        let held_back = Connection::new(id, revision, origins, created_at, state, renewal, policy)
            .presented_as(&self.profile.registration.provider.quirks.presentation);
        (held_back, self.failure_error(&connection.id.subject, &failure, None))
    }

    /// A published connection in `state`.
    pub(super) fn connection(
        &self,
        id: ConnectionId,
        revision: Revision,
        record: &ConnectionRecord,
        state: ConnectionState,
    ) -> Connection {
        let live = |tokens| self.live_refresh_token(tokens, self.now()).is_some();
        let renewal = match state.tokens() {
            _ if !self.profile.grant.needs_person() => Ok(()),
            Some(tokens) if !live(tokens) => Err(Reason::NoRefreshToken),
            Some(_) if !self.issued(record) => Err(Reason::ProviderChanged),
            Some(_) => Ok(()),
            None => Err(Reason::NoRefreshToken),
        };
        let policy = &self.profile.registration.refresh;
        let before =
            state.tokens().and_then(|tokens| tokens.dpop_key.as_ref()).and(self.connections.get(&id));
        Connection::new(id, revision, record.origins.clone(), record.created_at, state, renewal, policy)
            .presented_as(&self.profile.registration.provider.quirks.presentation)
            .following(before.as_deref())
    }

    /// The refresh token of `tokens`, unless it has ended as far as the profile knows.
    pub(super) fn live_refresh_token<'t>(
        &self,
        tokens: &'t TokenSet,
        now: Timestamp,
    ) -> Option<&'t RefreshToken> {
        tokens.live_refresh_token(self.profile.registration.default_refresh_token_lifetime, now)
    }

    /// Whether what `record` holds is from the authorization server that the profile names today.
    pub(super) fn issued(&self, record: &ConnectionRecord) -> bool {
        record.issued_by == self.profile.registration.provider.identity()
    }

    /// Whether what `record` holds was obtained with the credential of today. What a person granted
    /// outlives the client's secrets.
    pub(super) fn is_current(&self, record: &ConnectionRecord) -> bool {
        record.obtained_with == self.credential()
    }

    fn credential(&self) -> &str {
        if self.profile.grant.needs_person() { "" } else { &self.profile.registration.credential }
    }

    /// What is published for a subject that was never connected, so that the next call need not
    /// look into the store again.
    pub(super) fn never_connected(&self, subject: &Subject) -> Connection {
        let now = self.now();
        let state = ConnectionState::NeedsConsent { reason: Reason::NeverConnected, since: now };
        let record = self.new_record();
        self.connection(self.id(subject), Revision(0), &record, state)
    }

    pub(super) fn new_record(&self) -> ConnectionRecord {
        ConnectionRecord {
            created_at: self.now(),
            origins: self.profile.origins.clone(),
            issued_by: self.profile.registration.provider.identity(),
            obtained_with: self.credential().to_owned(),
            held: Held::Nothing,
            in_flight: None,
            learned_lifetime: None,
            unchecked_id_token: None,
            moving_to: None,
            moved_by: None,
        }
    }

    pub(super) fn publish(&self, connection: Connection) -> Arc<Connection> {
        let connection = Arc::new(connection);
        let retired = self.retired.lock();
        if *retired && !connection.is_unsaved() {
            // It was made by the rules of an earlier configuration. Today's makes its own of the record.
            self.connections.remove_unless(&connection.id, |published| {
                published.is_unsaved() && published.revision >= connection.revision
            });
        } else {
            self.note_attention(&connection);
            self.connections.publish(connection.clone());
        }
        connection
    }

    /// There is a later configuration of the profile, or none any more: what this one published is
    /// withdrawn, except for token sets that are nowhere else, and it publishes no more.
    pub(crate) fn retire(&self) {
        let mut retired = self.retired.lock();
        *retired = true;
        let profile = &self.profile.registration.profile;
        self.connections.withdraw(|connection| connection.id.profile == *profile && !connection.is_unsaved());
    }

    /// Keeps what is not well at hand for the debug endpoint.
    fn note_attention(&self, connection: &Connection) {
        let subject = &connection.id.subject;
        let well = matches!(connection.state, ConnectionState::Active { .. });
        let mut attention = self.attention.lock();
        if well || connection.revision == Revision(0) && connection.state.tokens().is_none() {
            attention.remove(subject);
        } else if attention.len() < ATTENTION || attention.contains_key(subject) {
            attention.insert(subject.clone(), connection.view(self.now(), false));
        }
    }

    /// Forgets a connection, wherever readers might see it.
    pub(super) fn forget(&self, id: &ConnectionId) {
        self.attention.lock().remove(&id.subject);
        self.connections.remove(id);
    }

    /// Connections that are not well, at most [`ATTENTION`] of them.
    pub fn attention(&self) -> Vec<ConnectionView> {
        self.attention.lock().values().cloned().collect()
    }

    /// The error that callers get for `failure`.
    pub(super) fn failure_error(
        &self,
        subject: &Subject,
        failure: &Failure,
        hold: Option<Duration>,
    ) -> TokenError {
        let profile = self.profile.registration.profile.clone();
        let (reason, detail) = (failure.reason, failure.detail.clone());
        match failure.class {
            FailureClass::GrantDead => TokenError::AuthorizationRequired { id: self.id(subject), reason },
            FailureClass::ClientMisconfigured => {
                TokenError::ClientMisconfigured { profile, reason, detail, retry_after: hold }
            }
            FailureClass::Call => TokenError::CallIncomplete { profile, detail },
            FailureClass::Internal if reason == Reason::StoreUnavailable => {
                TokenError::StoreUnavailable { id: self.id(subject), detail }
            }
            FailureClass::ProviderUnavailable | FailureClass::Internal => {
                TokenError::ProviderUnavailable { profile, reason, detail, retry_after: hold }
            }
        }
    }

    /// The error that callers get while a new token set is not durable yet.
    pub(super) fn unsaved_error(&self, subject: &Subject) -> TokenError {
        TokenError::StoreUnavailable {
            id: self.id(subject),
            detail: "a new token set is not durable yet; saving is tried again".to_owned(),
        }
    }

    /// The error that callers get while `trouble` holds us back.
    pub(super) fn trouble_error(
        &self,
        state: &ConnectionState,
        trouble: &Trouble,
        now: Timestamp,
    ) -> TokenError {
        let profile = self.profile.registration.profile.clone();
        let (reason, detail) = (trouble.reason, trouble.detail.clone());
        let retry_after = trouble.holds_for(now);
        match state {
            ConnectionState::Misconfigured { .. } => {
                TokenError::ClientMisconfigured { profile, reason, detail, retry_after }
            }
            _ => TokenError::ProviderUnavailable { profile, reason, detail, retry_after },
        }
    }
}

fn with_trouble(tokens: Option<TokenSet>, trouble: Trouble) -> ConnectionState {
    match trouble.reason {
        Reason::ClientRefused | Reason::RequestRefused => ConnectionState::Misconfigured { tokens, trouble },
        _ => ConnectionState::Retrying { tokens, trouble },
    }
}
