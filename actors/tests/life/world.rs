//! An engine, a scripted authorization server that rotates refresh tokens, and a store with faults.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
pub use claviger_actors::clock::{Clock, Timestamp};
pub use claviger_actors::connection::{Connection, Reason};
pub use claviger_actors::gateway::GatewayHandle;
use claviger_actors::gateway::GatewayParts;
use claviger_actors::profile::Profile;
use claviger_actors::protocol::identifiers::{ConnectionId, ProfileId, Subject};
pub use claviger_actors::protocol::scope::ScopeSet;
use claviger_actors::protocol::secret::Secret;
pub use claviger_actors::protocol::template::CallContext;
use claviger_actors::protocol::token::{AccessToken, Expiry, RefreshToken, TokenSet, TokenType};
pub use claviger_actors::provider::error::TokenError;
use claviger_actors::proxy::route::RoutingTable;
use claviger_actors::registration::ClientRegistration;
use claviger_actors::store::keyring::{Keyring, SealingKey};
use claviger_actors::store::memory::{MemoryFaults, MemoryStore};
use claviger_actors::store::sealed::Vault;
use claviger_actors::testing::profiles::{profile, registration};
pub use claviger_actors::testing::{Answer, ScriptedTransport, SeededEntropy, SentRequest};
use parking_lot::Mutex;
use serde_json::{Value, json};

pub const ORIGIN: &str = "https://api.example";

/// Runs `test` on a system whose time moves only when everything waits.
pub fn run<F: Future<Output = ()>>(test: F) {
    actix_rt::System::with_tokio_rt(|| {
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap()
    })
    .block_on(test);
}

pub async fn pass(seconds: f64) {
    tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
}

/// The wall clock: follows tokio's, and can be set.
#[derive(Debug)]
pub struct TestClock {
    origin: tokio::time::Instant,
    step: AtomicI64,
}

impl TestClock {
    pub fn step(&self, seconds: i64) {
        self.step.fetch_add(seconds * 1000, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        let millis = 1_700_000_000_000
            + i64::try_from(self.origin.elapsed().as_millis()).unwrap()
            + self.step.load(Ordering::SeqCst);
        Timestamp::from_millis(u64::try_from(millis).unwrap())
    }
}

type Extra = Box<dyn Fn(u64, &mut Value) + Send + Sync>;

/// An authorization server: each refresh token is good once.
pub struct Server {
    state: Mutex<State>,
}

struct State {
    issued: u64,
    current: Option<String>,
    planned: VecDeque<Answer>,
    expires_in: Value,
    rotate: bool,
    delay: Duration,
    extra: Extra,
    documents: BTreeMap<&'static str, Value>,
    planned_documents: BTreeMap<&'static str, VecDeque<Answer>>,
}

impl Server {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                issued: 0,
                current: Some("refresh-0".to_owned()),
                planned: VecDeque::new(),
                expires_in: json!(3600),
                rotate: true,
                delay: Duration::from_millis(50),
                extra: Box::new(|_, _| {}),
                documents: BTreeMap::new(),
                planned_documents: BTreeMap::new(),
            }),
        })
    }

    /// The next token request is answered so, without being looked at.
    pub fn plan(&self, answer: Answer) {
        self.state.lock().planned.push_back(answer);
    }

    /// What answers say of the lifetime; null says nothing.
    pub fn expires_in(&self, value: Value) {
        self.state.lock().expires_in = value;
    }

    pub fn delay(&self, delay: Duration) {
        self.state.lock().delay = delay;
    }

    /// Whether answers to a refresh bring a new refresh token.
    pub fn rotate(&self, rotate: bool) {
        self.state.lock().rotate = rotate;
    }

    pub fn revoke(&self) {
        self.state.lock().current = None;
    }

    /// Changes every good answer; the number is that of its access token.
    pub fn answers(&self, extra: impl Fn(u64, &mut Value) + Send + Sync + 'static) {
        self.state.lock().extra = Box::new(extra);
    }

    pub fn document(&self, path: &'static str, document: Value) {
        self.state.lock().documents.insert(path, document);
    }

    /// The next request for this document is answered so.
    pub fn plan_document(&self, path: &'static str, answer: Answer) {
        self.state.lock().planned_documents.entry(path).or_default().push_back(answer);
    }

    fn answer(&self, request: &SentRequest) -> Answer {
        let mut state = self.state.lock();
        match request.url.path() {
            "/token" => {}
            "/revoke" => return Answer::json(200, "{}"),
            "/par" => {
                let planned = state.planned.pop_front();
                let pushed = json!({ "request_uri": "urn:example:pushed", "expires_in": 60 });
                return planned.unwrap_or_else(|| Answer::json(201, pushed));
            }
            path => {
                let planned = state.planned_documents.get_mut(path).and_then(VecDeque::pop_front);
                if let Some(planned) = planned {
                    return planned;
                }
                return match state.documents.get(path) {
                    Some(document) => Answer::json(200, document),
                    None => Answer::json(404, "{}"),
                };
            }
        }
        if let Some(planned) = state.planned.pop_front() {
            return planned;
        }
        let delay = state.delay;
        let refreshes = request.param("grant_type") == "refresh_token";
        if refreshes && state.current.as_deref() != Some(request.param("refresh_token")) {
            return Answer::json(400, json!({ "error": "invalid_grant" })).delayed(delay);
        }
        state.issued += 1;
        let mut answer =
            json!({ "access_token": format!("access-{}", state.issued), "token_type": "Bearer" });
        if !state.expires_in.is_null() {
            answer["expires_in"] = state.expires_in.clone();
        }
        if refreshes && state.rotate {
            let next = format!("refresh-{}", state.issued);
            answer["refresh_token"] = next.clone().into();
            state.current = Some(next);
        }
        (state.extra)(state.issued, &mut answer);
        Answer::json(200, answer).delayed(delay)
    }
}

pub struct World {
    pub clock: Arc<TestClock>,
    pub server: Arc<Server>,
    pub transport: Arc<ScriptedTransport>,
    pub faults: MemoryFaults,
    pub store: Arc<MemoryStore>,
    pub profiles: Vec<Profile>,
    seed: Mutex<u64>,
}

impl World {
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    /// With the registration of `person` changed.
    pub fn with(change: impl FnOnce(&mut ClientRegistration)) -> Self {
        let mut person = registration("person");
        change(&mut person);
        Self::of(vec![
            profile(person, "authorization_code", "client_secret_basic"),
            profile(registration("robot"), "client_credentials", "client_secret_basic"),
        ])
    }

    /// With the profile `exchange`, which exchanges callers' tokens.
    pub fn exchange() -> Self {
        Self::of(vec![profile(registration("exchange"), "token_exchange", "client_secret_basic")])
    }

    fn of(profiles: Vec<Profile>) -> Self {
        let server = Server::new();
        let scripted = server.clone();
        let faults = MemoryFaults::default();
        Self {
            clock: Arc::new(TestClock { origin: tokio::time::Instant::now(), step: AtomicI64::new(0) }),
            transport: ScriptedTransport::new(move |request| scripted.answer(request)),
            server,
            store: Arc::new(MemoryStore::new(faults.clone())),
            faults,
            profiles,
            seed: Mutex::new(0),
        }
    }

    /// The store may be written to by several engines.
    pub fn shared(mut self) -> Self {
        self.store = Arc::new(MemoryStore::shared(self.faults.clone()));
        self
    }

    /// Starts an engine over the store: another process, as far as the others know.
    pub async fn start(&self) -> GatewayHandle {
        self.start_with(self.profiles.clone()).await
    }

    /// As [`World::start`], with profiles that no other engine shares.
    pub async fn start_with(&self, profiles: Vec<Profile>) -> GatewayHandle {
        let seed = {
            let mut seed = self.seed.lock();
            *seed += 1;
            *seed
        };
        let entropy = SeededEntropy::new(seed);
        let key = SealingKey::from_base64(&Secret::new(STANDARD.encode([7u8; 32]))).unwrap();
        let keyring = Keyring::new("k1", BTreeMap::from([("k1".to_owned(), key)])).unwrap();
        let parts = GatewayParts {
            profiles: profiles.into_iter().map(Arc::new).collect(),
            routing: RoutingTable::default(),
            store: self.store.clone(),
            vault: Vault::new(keyring, entropy.clone()),
            transport: self.transport.clone(),
            clock: self.clock.clone(),
            entropy,
            cached_connections: 1000,
        };
        GatewayHandle::start(parts).await.unwrap()
    }

    /// A token set that ends in `seconds`, with the server's first refresh token.
    pub fn tokens(&self, seconds: u64) -> TokenSet {
        let now = self.clock.now();
        TokenSet {
            access_token: AccessToken::new("access-0").unwrap(),
            dpop_key: None,
            token_type: TokenType::Bearer,
            obtained_at: now,
            expiry: Expiry::Stated { at: now.after(Duration::from_secs(seconds)) },
            refresh_token: Some(RefreshToken::new("refresh-0").unwrap()),
            refresh_token_obtained_at: None,
            requested_scope: None,
            scope: None,
            identity: None,
            extra: BTreeMap::new(),
        }
    }

    /// An engine in which alice is connected with a token set that ends in `seconds`.
    pub async fn connected(&self, seconds: u64) -> GatewayHandle {
        let gateway = self.start().await;
        gateway.import_connection(&alice(), self.tokens(seconds)).await.unwrap();
        gateway
    }

    pub fn token_requests(&self) -> usize {
        self.transport.sent().iter().filter(|request| request.url.path() == "/token").count()
    }
}

pub fn id(profile: &str, subject: &str) -> ConnectionId {
    ConnectionId { profile: ProfileId::new(profile).unwrap(), subject: Subject::new(subject).unwrap() }
}

pub fn alice() -> ConnectionId {
    id("person", "alice")
}

pub async fn call(gateway: &GatewayHandle, id: &ConnectionId) -> Result<Arc<Connection>, TokenError> {
    gateway.access_token(id, Arc::from(ORIGIN), None, CallContext::none(), Duration::from_secs(30)).await
}

/// As `call`, on a route that needs `scopes`.
pub async fn call_for(
    gateway: &GatewayHandle,
    id: &ConnectionId,
    scopes: &str,
) -> Result<Arc<Connection>, TokenError> {
    let call = CallContext { scopes: ScopeSet::parse(scopes).unwrap(), ..CallContext::default() };
    gateway.access_token(id, Arc::from(ORIGIN), None, Arc::new(call), Duration::from_secs(30)).await
}

/// As `call`, after an upstream refused the token of `refused`.
pub async fn call_again(
    gateway: &GatewayHandle,
    id: &ConnectionId,
    refused: &Connection,
) -> Result<Arc<Connection>, TokenError> {
    gateway
        .access_token(
            id,
            Arc::from(ORIGIN),
            refused.fingerprint(),
            CallContext::none(),
            Duration::from_secs(30),
        )
        .await
}

pub fn access_token(connection: &Connection) -> &str {
    connection.state.tokens().unwrap().access_token.expose()
}

pub fn refresh_token(connection: &Connection) -> &str {
    connection.state.tokens().unwrap().refresh_token.as_ref().unwrap().expose()
}

/// What the admin API says: the state, and why.
pub async fn shown(gateway: &GatewayHandle, id: &ConnectionId) -> (&'static str, Reason) {
    let view = gateway.connection(id).await.unwrap().unwrap();
    (view.state, view.reason)
}

pub fn needs_consent(answer: &Result<Arc<Connection>, TokenError>) -> Option<Reason> {
    match answer {
        Err(TokenError::AuthorizationRequired { reason, .. }) => Some(*reason),
        _ => None,
    }
}
