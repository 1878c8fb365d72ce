//! A registrar over a scripted provider and a store in memory.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use actix_rt::Arbiter;
use futures_util::future::{FutureExt, LocalBoxFuture, ready};
use parking_lot::Mutex;
use url::Url;

use crate::clock::{Clock, SystemEntropy, Timestamp};
use crate::connection::Reason;
use crate::flow::error::FlowError;
use crate::flow::messages::*;
use crate::flow::ports::{AuthorizationProvider, FlowStore, Providers};
use crate::flow::record::{ConnectSession, FlowRecord, StateHash};
use crate::flow::registrar::{FlowLimits, FlowRegistrar, FlowServices};
use crate::grants::Redemption;
use crate::protocol::authorization_request::AuthorizationParams;
use crate::protocol::authorization_response::{AuthorizationResponse, FurtherParams};
use crate::protocol::device_authorization::DeviceAuthorization;
use crate::protocol::identifiers::{ConnectionId, ProfileId, Subject};
use crate::protocol::scope::ScopeSet;
use crate::protocol::secret::Secret;
use crate::protocol::template::{CallContext, Template};
use crate::provider::error::TokenError;
use crate::provider::messages::{AuthorizationTarget, DevicePoll};
use crate::registration::quirks::Quirks;
use crate::registration::{ClientRegistration, ProviderDetails};
use crate::store::StoreError;
use crate::supervision::test_support::TokioClock;
use crate::supervision::{ActorKind, ActorRef, Supervisor, SupervisorHandle};
use crate::testing::profiles;

const DEADLINE: Duration = Duration::from_secs(60);

pub(super) struct World {
    pub(super) supervisor: SupervisorHandle,
    pub(super) registrar: ActorRef<FlowRegistrar>,
    pub(super) store: Arc<MemoryFlows>,
    pub(super) provider: Arc<ScriptedProvider>,
    pub(super) device: Arc<ScriptedProvider>,
    pub(super) clock: Arc<dyn Clock>,
    limits: FlowLimits,
}

impl World {
    pub(super) fn new() -> Self {
        Self::limited(FlowLimits::default())
    }

    pub(super) fn limited(limits: FlowLimits) -> Self {
        Self::with(limits, |_| {})
    }

    /// With the registration changed.
    pub(super) fn with(limits: FlowLimits, change: impl FnOnce(&mut ClientRegistration)) -> Self {
        let mut provider = ScriptedProvider::new("calendar", true);
        change(&mut provider.registration);
        let device = ScriptedProvider { device: true, ..ScriptedProvider::new("tv", true) };
        Self::over(TokioClock::shared(), Arc::default(), Arc::new(provider), Arc::new(device), limits)
    }

    /// With a profile that requires `iss`.
    pub(super) fn requiring_iss() -> Self {
        let mut provider = ScriptedProvider::new("calendar", true);
        provider.registration.authorization.require_iss = true;
        let device = Arc::new(ScriptedProvider::new("tv", true));
        Self::over(TokioClock::shared(), Arc::default(), Arc::new(provider), device, FlowLimits::default())
    }

    /// Another process over the same store and provider.
    pub(super) fn replica(&self) -> Self {
        Self::over(
            self.clock.clone(),
            self.store.clone(),
            self.provider.clone(),
            self.device.clone(),
            self.limits,
        )
    }

    fn over(
        clock: Arc<dyn Clock>,
        store: Arc<MemoryFlows>,
        provider: Arc<ScriptedProvider>,
        device: Arc<ScriptedProvider>,
        limits: FlowLimits,
    ) -> Self {
        let supervisor = Supervisor::start(clock.clone());
        let robot: Arc<dyn AuthorizationProvider> = Arc::new(ScriptedProvider::new("robot", false));
        let person: Arc<dyn AuthorizationProvider> = provider.clone();
        let on_device: Arc<dyn AuthorizationProvider> = device.clone();
        let providers =
            [person, robot, on_device].map(|provider| (provider.registration().profile.clone(), provider));
        let services = FlowServices {
            providers: Providers::new(BTreeMap::from(providers)),
            store: store.clone(),
            supervisor: supervisor.clone(),
            arbiter: Arbiter::current(),
            clock: clock.clone(),
            entropy: Arc::new(SystemEntropy),
            limits,
        };
        let registrar = supervisor.start_child(FlowRegistrar::spec(services));
        Self { supervisor, registrar, store, provider, device, clock, limits }
    }

    pub(super) async fn begin(
        &self,
        subject: &str,
        browser: Option<Secret>,
    ) -> Result<AuthorizationRedirect, FlowError> {
        self.begin_at("calendar", subject, browser).await
    }

    pub(super) async fn begin_at(
        &self,
        profile: &str,
        subject: &str,
        browser: Option<Secret>,
    ) -> Result<AuthorizationRedirect, FlowError> {
        self.begin_for(connection(profile, subject), browser, ScopeSet::default()).await
    }

    pub(super) async fn begin_for(
        &self,
        connection: ConnectionId,
        browser: Option<Secret>,
        scopes: ScopeSet,
    ) -> Result<AuthorizationRedirect, FlowError> {
        let call = Arc::new(CallContext { scopes, ..CallContext::default() });
        let begin = BeginAuthorization { connection, return_to: Some("/home".into()), browser, call };
        self.registrar.ask(begin, DEADLINE).await?
    }

    pub(super) async fn accept(
        &self,
        response: AuthorizationResponse,
        browser: Option<&Secret>,
    ) -> Result<FlowOutcome, FlowError> {
        let accept = AcceptAuthorizationResponse { response, browser: browser.cloned() };
        self.registrar.ask(accept, DEADLINE).await?
    }

    pub(super) async fn link(&self, subject: &str) -> Result<ConnectLink, FlowError> {
        let connection = connection("calendar", subject);
        let create =
            CreateConnectLink { connection, return_to: Some("/home".into()), scopes: ScopeSet::default() };
        self.registrar.ask(create, DEADLINE).await?
    }

    pub(super) async fn take_link(&self, link: &ConnectLink) -> Result<ConnectSession, FlowError> {
        self.registrar.ask(TakeConnectLink { token: link.token.clone() }, DEADLINE).await?
    }

    /// Starts an authorization of profile `tv` on another device.
    pub(super) async fn begin_device(&self, subject: &str, page: &str) -> Result<DeviceView, FlowError> {
        let begin = BeginDeviceAuthorization {
            page: page.into(),
            connection: connection("tv", subject),
            return_to: Some("/home".into()),
            call: CallContext::none(),
        };
        self.registrar.ask(begin, DEADLINE).await?
    }

    pub(super) async fn device(&self, page: &str) -> Option<DeviceView> {
        self.registrar.ask(FindDevice { page: page.into() }, DEADLINE).await.unwrap().unwrap()
    }

    /// Lets everything that is under way come to rest.
    pub(super) async fn settle(&self) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }

    pub(super) async fn flows_running(&self) -> usize {
        let is_flow = |kind, id: &str| kind == ActorKind::Flow && id != "registrar";
        self.supervisor.inspect().await.iter().filter(|report| is_flow(report.kind, &report.id)).count()
    }
}

pub(super) fn connection(profile: &str, subject: &str) -> ConnectionId {
    ConnectionId { profile: ProfileId::new(profile).unwrap(), subject: Subject::new(subject).unwrap() }
}

pub(super) fn param(url: &Url, name: &str) -> String {
    let found = url.query_pairs().find(|(known, _)| known == name);
    found.unwrap_or_else(|| panic!("{name} in {url}")).1.into_owned()
}

pub(super) fn code(state: &str) -> AuthorizationResponse {
    AuthorizationResponse {
        state: state.into(),
        iss: None,
        result: Ok("the-code".into()),
        further: FurtherParams::default(),
    }
}

pub(super) fn error(state: &str, code: &str) -> AuthorizationResponse {
    AuthorizationResponse {
        state: state.into(),
        iss: None,
        result: Err(code.into()),
        further: FurtherParams::default(),
    }
}

pub(super) fn with_iss(response: AuthorizationResponse, iss: &str) -> AuthorizationResponse {
    AuthorizationResponse { iss: Some(iss.into()), ..response }
}

/// Answers as told, and counts what it was asked.
#[derive(Debug)]
pub(super) struct ScriptedProvider {
    registration: ClientRegistration,
    needs_person: bool,
    device: bool,
    script: Mutex<Script>,
}

type Redeemed = (Subject, Redemption, Option<Secret>);

#[derive(Debug, Default)]
struct Script {
    iss_announced: bool,
    fail: bool,
    delay: Duration,
    redeemed: Vec<Redeemed>,
    targets_asked: usize,
    granted: ScopeSet,
    devices: Vec<Vec<(String, String)>>,
    polls: Vec<(tokio::time::Instant, String)>,
    answers: VecDeque<Result<DevicePoll, ()>>,
}

impl ScriptedProvider {
    fn new(profile: &str, needs_person: bool) -> Self {
        let registration = ClientRegistration {
            provider: ProviderDetails {
                name: "id".into(),
                issuer: Some("https://id.example".into()),
                quirks: Arc::new(Quirks {
                    callback_params: vec!["realmId".into(), "absent".into()],
                    ..Quirks::default()
                }),
                ..ProviderDetails::default()
            },
            scopes: ScopeSet::from_tokens(["openid", "calendar"]).unwrap(),
            redirect_uri: "https://gw.example/callback".parse().unwrap(),
            authorize_params: vec![("access_type".into(), Template::parse("offline").unwrap())],
            ..profiles::registration(profile)
        };
        Self { registration, needs_person, device: false, script: Mutex::default() }
    }

    /// What the next polls bring; `Err` stands for a dead code.
    pub(super) fn polls_bring(&self, answers: impl IntoIterator<Item = Result<DevicePoll, ()>>) {
        self.script.lock().answers.extend(answers);
    }

    /// When it was polled, in seconds from now backwards, and with which code.
    pub(super) fn polls(&self) -> Vec<(tokio::time::Instant, String)> {
        self.script.lock().polls.clone()
    }

    pub(super) fn devices(&self) -> Vec<Vec<(String, String)>> {
        self.script.lock().devices.clone()
    }

    pub(super) fn announce_iss(&self, announced: bool) {
        self.script.lock().iss_announced = announced;
    }

    pub(super) fn grant(&self, scopes: &str) {
        self.script.lock().granted = ScopeSet::parse(scopes).unwrap();
    }

    pub(super) fn fail_redemption(&self, fail: bool) {
        self.script.lock().fail = fail;
    }

    pub(super) fn redeem_slowly(&self, delay: Duration) {
        self.script.lock().delay = delay;
    }

    pub(super) fn redeemed(&self) -> Vec<Redeemed> {
        self.script.lock().redeemed.clone()
    }

    pub(super) fn targets_asked(&self) -> usize {
        self.script.lock().targets_asked
    }
}

impl AuthorizationProvider for ScriptedProvider {
    fn registration(&self) -> &ClientRegistration {
        &self.registration
    }

    fn needs_person(&self) -> bool {
        self.needs_person
    }

    fn uses_device(&self) -> bool {
        self.device
    }

    fn authorize_device(
        &self,
        params: Vec<(String, String)>,
    ) -> LocalBoxFuture<'static, Result<DeviceAuthorization, TokenError>> {
        let mut script = self.script.lock();
        script.devices.push(params);
        let number = script.devices.len();
        ready(Ok(DeviceAuthorization {
            device_code: format!("device-code-{number}").into(),
            user_code: format!("WDJB-{number}"),
            verification_uri: "https://id.example/device".parse().unwrap(),
            verification_uri_complete: None,
            expires_in: Duration::from_secs(300),
            interval: Duration::from_secs(5),
        }))
        .boxed_local()
    }

    fn poll_device(
        &self,
        subject: Subject,
        redemption: Redemption,
    ) -> LocalBoxFuture<'static, Result<DevicePoll, TokenError>> {
        let mut script = self.script.lock();
        script.polls.push((tokio::time::Instant::now(), redemption.code.expose().to_owned()));
        let id = ConnectionId { profile: self.registration.profile.clone(), subject };
        let answer = script.answers.pop_front().unwrap_or(Ok(DevicePoll::Pending));
        ready(answer.map_err(|()| TokenError::AuthorizationRequired { id, reason: Reason::GrantRevoked }))
            .boxed_local()
    }

    fn granted_scopes(&self, _: Subject) -> LocalBoxFuture<'static, Result<ScopeSet, TokenError>> {
        ready(Ok(self.script.lock().granted.clone())).boxed_local()
    }

    fn authorization_url(
        &self,
        params: AuthorizationParams,
    ) -> LocalBoxFuture<'static, Result<AuthorizationTarget, TokenError>> {
        let mut script = self.script.lock();
        script.targets_asked += 1;
        let target = AuthorizationTarget {
            url: params
                .of_client("client_id", "client")
                .url(&"https://id.example/authorize".parse().unwrap()),
            issuer: Some("https://id.example".into()),
            iss_announced: script.iss_announced,
        };
        async move {
            tokio::task::yield_now().await;
            Ok(target)
        }
        .boxed_local()
    }

    fn redeem(
        &self,
        subject: Subject,
        redemption: Redemption,
        nonce: Option<Secret>,
    ) -> LocalBoxFuture<'static, Result<(), TokenError>> {
        let mut script = self.script.lock();
        let id = ConnectionId { profile: self.registration.profile.clone(), subject: subject.clone() };
        script.redeemed.push((subject, redemption, nonce));
        let (fail, delay) = (script.fail, script.delay);
        async move {
            tokio::time::sleep(delay).await;
            if fail { Err(TokenError::Aborted { id }) } else { Ok(()) }
        }
        .boxed_local()
    }
}

#[derive(Debug, Default)]
struct Kept {
    flows: BTreeMap<StateHash, FlowRecord>,
    links: BTreeMap<StateHash, ConnectSession>,
    fail: bool,
}

/// A store in memory whose answers take a turn, as real ones do.
#[derive(Debug, Default)]
pub(super) struct MemoryFlows(Mutex<Kept>);

impl MemoryFlows {
    pub(super) fn flow(&self, state: StateHash) -> Option<FlowRecord> {
        self.0.lock().flows.get(&state).cloned()
    }

    pub(super) fn put(&self, record: FlowRecord) {
        self.0.lock().flows.insert(record.state, record);
    }

    pub(super) fn len(&self) -> usize {
        self.0.lock().flows.len()
    }

    pub(super) fn fail(&self, fail: bool) {
        self.0.lock().fail = fail;
    }

    fn answer<T: 'static>(
        &self,
        work: impl FnOnce(&mut Kept) -> T,
    ) -> LocalBoxFuture<'static, Result<T, StoreError>> {
        let mut kept = self.0.lock();
        if kept.fail {
            return ready(Err(StoreError::Unavailable("as told".into()))).boxed_local();
        }
        let result = work(&mut kept);
        async move {
            tokio::task::yield_now().await;
            Ok(result)
        }
        .boxed_local()
    }
}

impl FlowStore for MemoryFlows {
    fn save(&self, record: FlowRecord) -> LocalBoxFuture<'static, Result<(), StoreError>> {
        self.answer(|kept| drop(kept.flows.insert(record.state, record)))
    }

    fn load(&self, state: StateHash) -> LocalBoxFuture<'static, Result<Option<FlowRecord>, StoreError>> {
        self.answer(|kept| kept.flows.get(&state).cloned())
    }

    fn take(&self, state: StateHash) -> LocalBoxFuture<'static, Result<bool, StoreError>> {
        self.answer(|kept| kept.flows.remove(&state).is_some())
    }

    fn load_all(&self, limit: usize) -> LocalBoxFuture<'static, Result<Vec<FlowRecord>, StoreError>> {
        self.answer(|kept| kept.flows.values().take(limit).cloned().collect())
    }

    fn save_link(&self, link: ConnectSession) -> LocalBoxFuture<'static, Result<(), StoreError>> {
        self.answer(|kept| drop(kept.links.insert(link.token, link)))
    }

    fn take_link(
        &self,
        token: StateHash,
    ) -> LocalBoxFuture<'static, Result<Option<ConnectSession>, StoreError>> {
        self.answer(|kept| kept.links.remove(&token))
    }

    fn purge(&self, now: Timestamp) -> LocalBoxFuture<'static, Result<usize, StoreError>> {
        self.answer(|kept| {
            let before = kept.flows.len() + kept.links.len();
            kept.flows.retain(|_, flow| now < flow.expires_at);
            kept.links.retain(|_, link| now < link.expires_at);
            before - kept.flows.len() - kept.links.len()
        })
    }
}
