//! The client that registers itself (RFC 7591): once, whoever asks first, and on whatever replica.
//!
//! A client is used only when its record is durable: grants are bound to it, and would be lost with
//! it. Of several replicas that register at once the first to save wins (compare-and-swap); the
//! others use the winner's client and have the server forget their own, if it lets them (RFC 7592).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::records::Records;
use super::registration::{Lookup, RegistrationEndpoint, misconfigured};
use crate::authorization_server::ResolvedMetadata;
use crate::clock::{Clock, Entropy, Timestamp, unit_interval};
use crate::connection::{Failure, FailureClass, Reason};
use crate::profile::{Client, ClientSource, DynamicClient, Profile};
use crate::protocol::client_registration::RegisteredClient;
use crate::registration::dynamic::{ClientKey, ClientRecord};
use crate::store::{Expected, Revision, StoreError};
use crate::token_endpoint::failure;
use crate::token_store::messages::StoredClient;
use crate::transport::Transport;

/// A client that the provider refuses is replaced by a new registration at most this often.
const REPLACED_EVERY: Duration = Duration::from_secs(3600);

/// A refused client that has to stay is looked at again after this.
const LOOKED_AT_EVERY: Duration = Duration::from_secs(60);

/// Races lost to other replicas before we give up.
const RACES: u32 = 4;

/// Where a profile's client comes from, ready to be asked.
#[derive(Debug)]
pub(super) enum ClientPort {
    /// The configuration names it.
    Given(Arc<Client>),
    /// It registers itself.
    Registered(Arc<ClientRegistrar>),
}

/// Registers a profile's client, and gives it.
pub(super) struct ClientRegistrar {
    dynamic: Arc<DynamicClient>,
    profile: Arc<Profile>,
    key: ClientKey,
    records: Records,
    endpoint: RegistrationEndpoint,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    state: Mutex<State>,
    turn: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    current: Option<Current>,
    /// Registered, and not durable yet.
    unsaved: Option<Unsaved>,
    /// The last failure, repeated to everybody within this time.
    failure: Option<(Failure, Timestamp, Timestamp)>,
    failures: u32,
}

struct Current {
    client: Arc<Client>,
    record: ClientRecord,
    /// From when to when it is given although it is refused.
    kept: Option<(Timestamp, Timestamp)>,
}

#[derive(Clone)]
struct Unsaved {
    record: ClientRecord,
    expected: Expected,
}

impl State {
    /// The answer at hand, if there is one. A clock set back ends what is kept.
    fn at(&self, now: Timestamp) -> Option<Result<Arc<Client>, Failure>> {
        let within = |(from, until): (Timestamp, Timestamp)| (from..until).contains(&now);
        if let Some(current) = &self.current
            && !current.record.has_ended(now)
            && (!current.client.is_refused() || current.kept.is_some_and(within))
        {
            return Some(Ok(current.client.clone()));
        }
        let (failure, from, until) = self.failure.as_ref()?;
        within((*from, *until)).then(|| Err(failure.clone()))
    }
}

impl ClientPort {
    /// The client of `profile`. Nothing is registered before it is needed.
    pub(super) fn new(
        profile: &Arc<Profile>,
        records: &Records,
        transport: &Arc<dyn Transport>,
        clock: &Arc<dyn Clock>,
        entropy: &Arc<dyn Entropy>,
    ) -> Self {
        let dynamic = match &profile.client {
            ClientSource::Given(client) => return Self::Given(client.clone()),
            ClientSource::Registered(dynamic) => dynamic.clone(),
        };
        let registration = &profile.registration;
        Self::Registered(Arc::new(ClientRegistrar {
            key: dynamic.registration.key(&registration.profile, &registration.provider.identity()),
            dynamic,
            profile: profile.clone(),
            records: records.clone(),
            endpoint: RegistrationEndpoint {
                transport: transport.clone(),
                clock: clock.clone(),
                deadline: registration.retry.request_timeout,
            },
            clock: clock.clone(),
            entropy: entropy.clone(),
            state: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
        }))
    }
}

impl ClientRegistrar {
    /// The client at hand, or the failure that was met just now.
    pub(super) fn at_hand(&self) -> Option<Result<Arc<Client>, Failure>> {
        self.state.lock().at(self.clock.now())
    }

    /// The client, registered if it must be. The work goes on when whoever asked is gone: an answer
    /// that nobody keeps would leave a client behind at the provider.
    pub(super) async fn get(
        self: &Arc<Self>,
        metadata: Arc<ResolvedMetadata>,
    ) -> Result<Arc<Client>, Failure> {
        let this = self.clone();
        let working = actix::spawn(async move {
            let _turn = this.turn.lock().await;
            // Whoever had the turn before may have brought it.
            if let Some(answer) = this.at_hand() {
                return answer;
            }
            let answer = this.work(&metadata).await;
            this.note(&answer);
            answer
        });
        working.await.unwrap_or_else(|_| {
            let detail = "the registration of the client was cut off".to_owned();
            Err(failure(FailureClass::Internal, Reason::InternalError, detail))
        })
    }

    /// The identifier, if the client is registered by now. Registers nothing.
    pub(super) async fn client_id(&self) -> Option<String> {
        if let Some(current) = &self.state.lock().current {
            return Some(current.record.client_id.clone());
        }
        self.records.load_client(&self.key).await.ok()?.map(|stored| stored.record.client_id)
    }

    fn note(&self, answer: &Result<Arc<Client>, Failure>) {
        let mut state = self.state.lock();
        let Err(failure) = answer else {
            (state.failure, state.failures) = (None, 0);
            return;
        };
        let (profile, now) = (&self.profile.registration.profile, self.clock.now());
        tracing::warn!(%profile, detail = failure.detail, "there is no registered client");
        state.failures = state.failures.saturating_add(1);
        let retry = &self.profile.registration.retry;
        let pause = retry.backoff(state.failures, unit_interval(self.entropy.as_ref()));
        let pause = pause.max(failure.retry_after.unwrap_or_default()).min(retry.longest_wait);
        state.failure = Some((failure.clone(), now, now.after(pause)));
    }

    async fn work(&self, metadata: &ResolvedMetadata) -> Result<Arc<Client>, Failure> {
        if let Some(unsaved) = self.unsaved() {
            return self.keep(unsaved).await;
        }
        let now = self.clock.now();
        let expected = match self.records.load_client(&self.key).await {
            Ok(Some(stored)) => return self.take(metadata, stored, now).await,
            Ok(None) => Expected::Absent,
            Err(StoreError::Damaged { .. }) => Expected::Anything,
            Err(error) => return Err(unavailable(&error)),
        };
        match self.register(metadata, expected, None).await {
            // Another replica may have used up what lets us register.
            Err(failure) => match self.records.load_client(&self.key).await {
                Ok(Some(stored)) if !stored.record.has_ended(now) => self.adopt(stored.record),
                _ => Err(failure),
            },
            registered => registered,
        }
    }

    /// Takes a client that is stored into use, or another one in its place.
    async fn take(
        &self,
        metadata: &ResolvedMetadata,
        stored: StoredClient,
        now: Timestamp,
    ) -> Result<Arc<Client>, Failure> {
        let refused = self.state.lock().current.as_ref().is_some_and(|current| {
            current.client.is_refused() && current.record.is_same_client(&stored.record)
        });
        if !refused && !stored.record.has_ended(now) {
            return self.adopt(stored.record);
        }
        self.renew(metadata, stored, refused).await
    }

    /// The client at hand is refused, or its secret has ended. Its registration is looked up first:
    /// grants live on with the same client and a new secret, but not with a new client.
    async fn renew(
        &self,
        metadata: &ResolvedMetadata,
        stored: StoredClient,
        refused: bool,
    ) -> Result<Arc<Client>, Failure> {
        let StoredClient { revision, record } = stored;
        let (expected, now) = (Expected::Revision(revision), self.clock.now());
        if let Some(found) = self.look_up(&record, now).await? {
            // The server knows it just as we do: a new one would fare no better.
            let stays = refused && found.is_same_client(&record);
            if found != record {
                let client = self.keep(Unsaved { record: found, expected }).await?;
                if !stays {
                    return Ok(client);
                }
            }
            return self.stay(record);
        }
        let young = |at: Timestamp| at <= now && now.since(at) < REPLACED_EVERY;
        if refused && record.replaced_at.is_some_and(young) {
            return self.stay(record);
        }
        let profile = &self.profile.registration.profile;
        tracing::warn!(%profile, refused, "the registered client is no longer good; registering another");
        let replaced_at = if refused { Some(now) } else { record.replaced_at };
        self.register(metadata, expected, replaced_at).await
    }

    /// What the server knows of a client (RFC 7592), asked for another secret if this one has ended.
    /// `None` if it does not know the client, or has no other secret for it.
    async fn look_up(&self, record: &ClientRecord, now: Timestamp) -> Result<Option<ClientRecord>, Failure> {
        let Some(management) = record.management() else { return Ok(None) };
        let of = |answer: Result<RegisteredClient, Lookup>, before: &ClientRecord| match answer {
            Ok(client) if client.client_id == before.client_id => Ok(Some(before.updated(client, now))),
            Ok(_) | Err(Lookup::Gone) => Ok(None),
            Err(Lookup::Unwell(failure)) => Err(failure),
        };
        let Some(found) = of(self.endpoint.read(&management).await, record)? else { return Ok(None) };
        if !found.has_ended(now) {
            return Ok(Some(found));
        }
        let management = found.management().unwrap_or(management);
        let updated = self.endpoint.update(&management, &self.dynamic.registration, &found).await;
        Ok(of(updated, &found)?.filter(|updated| !updated.has_ended(now)))
    }

    /// Gives the refused client for a while, for want of a better one.
    fn stay(&self, record: ClientRecord) -> Result<Arc<Client>, Failure> {
        let now = self.clock.now();
        if let Some(current) = self.state.lock().current.as_mut() {
            current.kept = Some((now, now.after(LOOKED_AT_EVERY)));
            return Ok(current.client.clone());
        }
        self.adopt(record)
    }

    async fn register(
        &self,
        metadata: &ResolvedMetadata,
        expected: Expected,
        replaced_at: Option<Timestamp>,
    ) -> Result<Arc<Client>, Failure> {
        let endpoint = metadata.endpoints.registration_endpoint.as_ref().ok_or_else(|| {
            misconfigured(
                "the provider's registration_endpoint is unknown, so `registration` cannot be carried out; \
                 configure it, or register by hand and give `client_id`"
                    .to_owned(),
            )
        })?;
        let registered = self.endpoint.register(endpoint, &self.dynamic.registration).await?;
        let now = self.clock.now();
        let record = ClientRecord::new(registered, now, replaced_at);
        let unfit = match self.client(&record) {
            Ok(_) if !record.has_ended(now) => None,
            Ok(_) => Some("the secret of the registered client had ended when it came".to_owned()),
            Err(why) => Some(why),
        };
        if let Some(why) = unfit {
            self.forget(&record).await;
            return Err(misconfigured(why));
        }
        tracing::info!(
            profile = %self.profile.registration.profile, client_id = record.client_id, "client registered"
        );
        self.keep(Unsaved { record, expected }).await
    }

    /// Makes a registration durable, then gives the client. What cannot be saved is kept, and saved
    /// when the client is wanted next.
    async fn keep(&self, unsaved: Unsaved) -> Result<Arc<Client>, Failure> {
        self.state.lock().unsaved = Some(unsaved.clone());
        let Unsaved { record, mut expected } = unsaved;
        for _ in 0..RACES {
            match self.records.save_client(&self.key, &record, expected).await {
                Ok(Revision(_)) => return self.adopt(record),
                Err(StoreError::Conflict { .. }) => {}
                Err(error) => return Err(unavailable(&error)),
            }
            match self.records.load_client(&self.key).await {
                Ok(Some(stored)) if stored.record == record => return self.adopt(record),
                Ok(Some(winner)) => {
                    if winner.record.client_id != record.client_id {
                        self.forget(&record).await;
                    }
                    return self.adopt(winner.record);
                }
                Ok(None) => expected = Expected::Absent,
                Err(StoreError::Damaged { .. }) => expected = Expected::Anything,
                Err(error) => return Err(unavailable(&error)),
            }
        }
        Err(unavailable(&StoreError::Conflict { key: self.key.fingerprint.clone() }))
    }

    /// Has the server forget a client that is not used.
    async fn forget(&self, record: &ClientRecord) {
        let profile = &self.profile.registration.profile;
        let deleted = match record.management() {
            Some(management) => self.endpoint.delete(&management).await.map_err(|failure| failure.detail),
            None => Err("the provider does not offer RFC 7592".to_owned()),
        };
        if let Err(detail) = deleted {
            let client_id = &record.client_id;
            tracing::warn!(%profile, client_id, detail, "an unused client stays behind at the provider");
        }
    }

    /// Takes `record`, which is durable, into use.
    fn adopt(&self, record: ClientRecord) -> Result<Arc<Client>, Failure> {
        let client = Arc::new(self.client(&record).map_err(misconfigured)?);
        let mut state = self.state.lock();
        state.unsaved = None;
        state.current = Some(Current { client: client.clone(), record, kept: None });
        Ok(client)
    }

    fn client(&self, record: &ClientRecord) -> Result<Client, String> {
        let decided = record.token_endpoint_auth_method.as_deref();
        let auth = self.dynamic.auth.with(record.secret(), decided)?;
        Ok(Client::new(record.client_id.clone(), auth))
    }

    fn unsaved(&self) -> Option<Unsaved> {
        self.state.lock().unsaved.clone()
    }
}

impl fmt::Debug for ClientRegistrar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientRegistrar").field("key", &self.key).finish_non_exhaustive()
    }
}

fn unavailable(error: &StoreError) -> Failure {
    failure(FailureClass::Internal, Reason::StoreUnavailable, error.to_string())
}
