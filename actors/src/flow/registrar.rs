//! Starts, finds, caps and expires flows.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use actix::fut::{self, ActorFutureExt, LocalBoxActorFuture, wrap_future};
use actix::{Actor, AsyncContext, Context, Handler, MessageResult, ResponseActFuture, ResponseFuture};
use actix_rt::ArbiterHandle;
use serde_json::json;

use super::actor::{FlowActor, FlowParts};
use super::devices::Devices;
use super::error::FlowError;
use super::links::Links;
use super::messages::{
    AcceptAuthorizationResponse, AuthorizationRedirect, BeginAuthorization, CompleteAuthorization,
    ConnectLink, CreateConnectLink, FlowOutcome, TakeConnectLink,
};
use super::ports::{AuthorizationProvider, FlowStore, Providers};
use super::record::{ConnectSession, FlowRecord, StateHash};
use super::request::new_flow;
use crate::clock::{Clock, Entropy, Timestamp};
use crate::protocol::identifiers::ProfileId;
use crate::protocol::state::random_token;
use crate::supervision::{
    ActorKind, ActorRef, AskError, ChildSpec, ExitGuard, Observation, Observe, RestartPolicy, Supervised,
    SupervisorHandle,
};

/// How long a redirection endpoint waits for its flow: a token request with its retries.
const COMPLETE_DEADLINE: Duration = Duration::from_secs(45);

/// How often what has expired is removed.
const PURGE_INTERVAL: Duration = Duration::from_secs(60);

/// Bounds on what strangers can make the gateway remember.
#[derive(Clone, Copy, Debug)]
pub struct FlowLimits {
    /// Pending flows in all; more are refused.
    pub pending: usize,
    /// Pending flows of one browser; its oldest ends when there are more.
    pub per_browser: usize,
    /// How long a flow or a connect link lives.
    pub lifetime: Duration,
}

impl Default for FlowLimits {
    fn default() -> Self {
        Self { pending: 10_000, per_browser: 20, lifetime: Duration::from_secs(600) }
    }
}

/// What the registrar and its flows work with.
#[derive(Clone)]
pub struct FlowServices {
    /// All profiles.
    pub providers: Providers,
    /// Where flows are durable.
    pub store: Arc<dyn FlowStore>,
    /// Supervises the flows.
    pub supervisor: SupervisorHandle,
    /// The thread the flows live on.
    pub arbiter: ArbiterHandle,
    /// Wall-clock time.
    pub clock: Arc<dyn Clock>,
    /// Source of states, nonces, verifiers and tokens.
    pub entropy: Arc<dyn Entropy>,
    /// Bounds.
    pub limits: FlowLimits,
}

impl FlowServices {
    /// What one flow needs of them.
    pub(super) fn parts(&self) -> FlowParts {
        FlowParts { providers: self.providers.clone(), store: self.store.clone(), clock: self.clock.clone() }
    }
}

impl fmt::Debug for FlowServices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FlowServices").field("limits", &self.limits).finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Pending {
    actor: ActorRef<FlowActor>,
    browser: StateHash,
    expires_at: Timestamp,
}

/// Starts, finds, caps and expires flows. What it forgets by a panic is found again in the store.
#[derive(Debug)]
pub struct FlowRegistrar {
    pub(super) services: FlowServices,
    flows: BTreeMap<StateHash, Pending>,
    /// The flows of each browser, oldest first.
    browsers: BTreeMap<StateHash, VecDeque<StateHash>>,
    links: Links,
    pub(super) devices: Devices,
    /// Flows that are being begun and not yet in `flows`.
    pub(super) beginning: usize,
    pub(super) last_error: Option<String>,
    _guard: ExitGuard,
}

impl FlowRegistrar {
    /// What it is called among its kind.
    pub const ID: &str = "registrar";

    /// How the registrar is started.
    pub fn spec(services: FlowServices) -> ChildSpec<Self> {
        let devices = Devices::default();
        ChildSpec {
            id: Self::ID.to_owned(),
            policy: RestartPolicy::default(),
            arbiter: services.arbiter.clone(),
            factory: Box::new(move |guard| Self {
                services: services.clone(),
                flows: BTreeMap::new(),
                browsers: BTreeMap::new(),
                links: Links::default(),
                devices: devices.clone(),
                beginning: 0,
                last_error: None,
                _guard: guard,
            }),
        }
    }

    fn now(&self) -> Timestamp {
        self.services.clock.now()
    }

    pub(super) fn provider(&self, profile: &ProfileId) -> Result<Arc<dyn AuthorizationProvider>, FlowError> {
        let provider = self.services.providers.get(profile);
        let provider = provider.ok_or_else(|| FlowError::UnknownProfile(profile.to_string()))?;
        if !provider.needs_person() {
            return Err(FlowError::NoConsentNeeded(profile.to_string()));
        }
        Ok(provider)
    }

    /// Counts a flow that is about to begin, if there is room for it.
    pub(super) fn reserve(&mut self) -> Result<(), FlowError> {
        let is_full = |this: &Self| {
            this.flows.len() + this.devices.len() + this.beginning >= this.services.limits.pending
        };
        if is_full(self) {
            self.forget_expired();
        }
        if is_full(self) {
            return Err(FlowError::TooMany);
        }
        self.beginning += 1;
        Ok(())
    }

    fn watch_over(&mut self, record: FlowRecord) -> ActorRef<FlowActor> {
        let services = &self.services;
        let (state, browser, expires_at) = (record.state, record.browser, record.expires_at);
        let parts = services.parts();
        let spec = FlowActor::spec(parts, record, services.arbiter.clone());
        let actor = services.supervisor.start_child(spec);
        self.flows.insert(state, Pending { actor: actor.clone(), browser, expires_at });
        self.browsers.entry(browser).or_default().push_back(state);
        actor
    }

    /// Ends the oldest flows of a browser that has begun too many.
    fn cap_browser(&mut self, browser: StateHash, ctx: &mut Context<Self>) {
        let most = self.services.limits.per_browser.max(1);
        while let Some(oldest) = self
            .browsers
            .get(&browser)
            .filter(|flows| flows.len() > most)
            .and_then(|flows| flows.front().copied())
        {
            if let Some(pending) = self.forget(oldest) {
                self.services.supervisor.stop_child(&pending.actor);
            }
            let removing = self.services.store.take(oldest);
            ctx.spawn(wrap_future(removing).map(|removed, this: &mut Self, _| {
                if let Err(error) = removed {
                    this.last_error = Some(error.to_string());
                }
            }));
        }
    }

    fn forget(&mut self, state: StateHash) -> Option<Pending> {
        let pending = self.flows.remove(&state)?;
        if let Some(flows) = self.browsers.get_mut(&pending.browser) {
            flows.retain(|flow| *flow != state);
            if flows.is_empty() {
                self.browsers.remove(&pending.browser);
            }
        }
        Some(pending)
    }

    fn forget_expired(&mut self) {
        let now = self.now();
        let expired: Vec<_> = self
            .flows
            .iter()
            .filter(|(_, pending)| now >= pending.expires_at)
            .map(|(state, _)| *state)
            .collect();
        for state in expired {
            self.forget(state);
        }
        self.links.forget_expired(now);
        self.devices.forget_ended();
    }

    fn purge(&mut self, ctx: &mut Context<Self>) {
        self.forget_expired();
        let purging = self.services.store.purge(self.now());
        ctx.spawn(wrap_future(purging).map(|purged, this: &mut Self, _| match purged {
            Ok(0) => {}
            Ok(count) => tracing::debug!(count, "expired flows and connect links removed"),
            Err(error) => {
                tracing::warn!(%error, "expired flows and connect links could not be removed");
                this.last_error = Some(error.to_string());
            }
        }));
    }

    /// The flow's actor, if it has one. One that was given up after many panics is let go: its
    /// record may still be good.
    fn running(&mut self, state: StateHash) -> Option<ActorRef<FlowActor>> {
        let actor = self.flows.get(&state)?.actor.clone();
        if actor.has_ended() {
            self.forget(state);
            return None;
        }
        Some(actor)
    }

    /// Finds the actor of a flow, here or, after a restart or on another replica, by its record.
    /// An unknown state starts nothing.
    fn find(
        &mut self,
        state: StateHash,
    ) -> LocalBoxActorFuture<Self, Result<ActorRef<FlowActor>, FlowError>> {
        if let Some(actor) = self.running(state) {
            return Box::pin(fut::ready(Ok(actor)));
        }
        let loading = self.services.store.load(state);
        Box::pin(wrap_future::<_, Self>(loading).map(move |loaded, this, _| {
            if let Some(actor) = this.running(state) {
                return Ok(actor);
            }
            let record = loaded?.ok_or_else(|| invalid("the state is unknown or was used before"))?;
            if record.device.is_some() {
                return Err(invalid("no browser comes back to this flow"));
            }
            if this.now() >= record.expires_at {
                return Err(invalid("the flow has expired"));
            }
            this.provider(&record.connection.profile)
                .map_err(|_| invalid("the flow's profile is no longer configured for consent"))?;
            Ok(this.watch_over(record))
        }))
    }

    fn settle(
        &mut self,
        state: StateHash,
        answer: Result<Result<FlowOutcome, FlowError>, AskError>,
    ) -> Result<FlowOutcome, FlowError> {
        match answer {
            Ok(outcome) => {
                if matches!(outcome, Ok(_) | Err(FlowError::Refused { .. } | FlowError::Token { .. })) {
                    self.forget(state);
                }
                outcome
            }
            Err(AskError::Stopped) => {
                self.forget(state);
                Err(invalid("the flow has ended"))
            }
            Err(error) => Err(error.into()),
        }
    }
}

fn invalid(why: &'static str) -> FlowError {
    FlowError::Invalid { why, connection: None }
}

impl Actor for FlowRegistrar {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(256);
        ctx.run_interval(PURGE_INTERVAL, Self::purge);
        self.revive_devices(ctx);
    }
}

impl Supervised for FlowRegistrar {
    const KIND: ActorKind = ActorKind::Flow;
}

impl Handler<BeginAuthorization> for FlowRegistrar {
    type Result = ResponseActFuture<Self, Result<AuthorizationRedirect, FlowError>>;

    fn handle(&mut self, begin: BeginAuthorization, _: &mut Self::Context) -> Self::Result {
        let provider = match self.provider(&begin.connection.profile) {
            Ok(provider) if provider.uses_device() => {
                let profile = begin.connection.profile.to_string();
                return Box::pin(fut::ready(Err(FlowError::OtherConsent(profile))));
            }
            Ok(provider) => provider,
            Err(error) => return Box::pin(fut::ready(Err(error))),
        };
        if let Err(error) = self.reserve() {
            return Box::pin(fut::ready(Err(error)));
        }
        let services = self.services.clone();
        let beginning = async move {
            let (record, redirect) = new_flow(begin, &*provider, &services).await?;
            services.store.save(record.clone()).await?;
            Ok::<_, FlowError>((record, redirect))
        };
        Box::pin(wrap_future::<_, Self>(beginning).map(|begun, this, ctx| {
            this.beginning -= 1;
            let (record, redirect) = begun?;
            let browser = record.browser;
            this.watch_over(record);
            this.cap_browser(browser, ctx);
            Ok(redirect)
        }))
    }
}

impl Handler<AcceptAuthorizationResponse> for FlowRegistrar {
    type Result = ResponseActFuture<Self, Result<FlowOutcome, FlowError>>;

    fn handle(&mut self, message: AcceptAuthorizationResponse, _: &mut Self::Context) -> Self::Result {
        let AcceptAuthorizationResponse { response, browser } = message;
        let state = StateHash::of(response.state.expose());
        let complete = CompleteAuthorization { response, browser };
        Box::pin(self.find(state).then(move |found, _, _| {
            let answering = async move {
                let actor = found?;
                Ok::<_, FlowError>(actor.ask(complete, COMPLETE_DEADLINE).await)
            };
            wrap_future::<_, Self>(answering)
                .map(move |answer, this, _| answer.and_then(|answer| this.settle(state, answer)))
        }))
    }
}

impl Handler<CreateConnectLink> for FlowRegistrar {
    type Result = ResponseActFuture<Self, Result<ConnectLink, FlowError>>;

    fn handle(&mut self, create: CreateConnectLink, _: &mut Self::Context) -> Self::Result {
        if let Err(error) = self.provider(&create.connection.profile) {
            return Box::pin(fut::ready(Err(error)));
        }
        let (now, lifetime) = (self.now(), self.services.limits.lifetime);
        if let Some((token, left)) =
            self.links.again(&create.connection, &create.destination(), now, lifetime)
        {
            return Box::pin(fut::ready(Ok(ConnectLink { token, expires_in: left.as_secs() })));
        }
        let is_full = |this: &Self| {
            this.links.connections() >= this.services.limits.pending && !this.links.has(&create.connection)
        };
        if is_full(self) {
            self.forget_expired();
        }
        if is_full(self) {
            return Box::pin(fut::ready(Err(FlowError::TooMany)));
        }
        let token = random_token(&*self.services.entropy);
        let destination = create.destination();
        let link = ConnectSession {
            token: StateHash::of(token.expose()),
            connection: create.connection,
            return_to: create.return_to,
            scopes: create.scopes,
            expires_at: now.after(lifetime),
        };
        let store = self.services.store.clone();
        let saving = async move {
            store.save_link(link.clone()).await?;
            Ok::<_, FlowError>(link)
        };
        Box::pin(wrap_future::<_, Self>(saving).map(move |saved, this, ctx| {
            let ConnectSession { connection, expires_at, .. } = saved?;
            for surplus in this.links.add(connection, token.clone(), destination, expires_at) {
                let removing = this.services.store.take_link(surplus);
                // One that stays behind ends by itself.
                ctx.spawn(wrap_future(removing).map(|_, _: &mut Self, _| ()));
            }
            Ok(ConnectLink { token, expires_in: lifetime.as_secs() })
        }))
    }
}

impl Handler<TakeConnectLink> for FlowRegistrar {
    type Result = ResponseFuture<Result<ConnectSession, FlowError>>;

    fn handle(&mut self, TakeConnectLink { token }: TakeConnectLink, _: &mut Self::Context) -> Self::Result {
        self.links.forget(StateHash::of(token.expose()));
        let (store, clock) = (self.services.store.clone(), self.services.clock.clone());
        Box::pin(async move {
            let link = store.take_link(StateHash::of(token.expose())).await?;
            let link = link.ok_or_else(|| invalid("the connect link is unknown or was used before"))?;
            if clock.now() >= link.expires_at {
                return Err(invalid("the connect link has expired"));
            }
            Ok(link)
        })
    }
}

impl Handler<Observe> for FlowRegistrar {
    type Result = MessageResult<Observe>;

    fn handle(&mut self, _: Observe, _: &mut Self::Context) -> Self::Result {
        MessageResult(Observation {
            state: "idle".to_owned(),
            last_error: self.last_error.clone(),
            detail: json!({ "pending": self.flows.len(), "devices": self.devices.len(), "browsers": self.browsers.len() }),
        })
    }
}
