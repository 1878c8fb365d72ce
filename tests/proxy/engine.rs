//! A gateway whose engine is scripted: real listener, real pool, real actor under real supervision.

use std::collections::{BTreeMap, VecDeque};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use std::time::Duration;

use actix_web::dev::ServerHandle;
use arc_swap::ArcSwap;
use argon2::password_hash::{PasswordHasher as _, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};
use claviger::caller_auth::{BasicCredential, Caller, CallerDirectory, ConfiguredCaller};
use claviger::config::Limits;
use claviger::listeners::proxy::ProxyState;
use claviger::listeners::proxy::gateway::ProxyGateway;
use claviger::listeners::proxy::load::Load;
use claviger::listeners::server::{ListenerSettings, listen};
use claviger_actors::clock::{Clock as _, Entropy, SystemClock, SystemEntropy, Timestamp};
use claviger_actors::connection::{Connection, ConnectionState, OriginSet, Reason};
use claviger_actors::flow::error::FlowError;
use claviger_actors::flow::messages::{AuthorizationRedirect, ConnectLink};
use claviger_actors::protocol::identifiers::{CallerId, ConnectionId, ProfileId, RouteId, Subject};
use claviger_actors::protocol::scope::ScopeSet;
use claviger_actors::protocol::secret::Secret;
use claviger_actors::protocol::template::{CallContext, CallDigest, CallNeeds};
use claviger_actors::protocol::token::{AccessToken, Expiry, TokenFingerprint, TokenSet, TokenType};
use claviger_actors::provider::error::TokenError;
use claviger_actors::proxy::actor::TokenSource;
use claviger_actors::proxy::connect::tls_client_config_with_roots;
use claviger_actors::proxy::rate_limit::RateLimit;
use claviger_actors::proxy::resilience::Resilience;
use claviger_actors::proxy::route::{Route, RoutingTable, SubjectSource, UpstreamOrigin, UpstreamProtocol};
use claviger_actors::proxy::upstream::UpstreamSettings;
use claviger_actors::registration::policy::RefreshPolicy;
use claviger_actors::snapshot::Connections;
use claviger_actors::store::Revision;
use claviger_actors::supervision::{Supervisor, SupervisorHandle};
use claviger_actors::testing::{Answer, ScriptedTransport};
use claviger_actors::transport::Transport;
use futures_util::future::LocalBoxFuture;
use parking_lot::Mutex;
use url::Url;

/// What the engine was asked for on the slow path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    pub id: String,
    pub rejected: Option<TokenFingerprint>,
}

#[derive(Default)]
pub struct Script {
    /// Answers of the slow path, in order; none left means that consent is needed.
    pub tokens: VecDeque<Result<Arc<Connection>, TokenError>>,
    pub asked: Vec<Asked>,
    pub refreshed_ahead: Vec<String>,
    /// The browser cookies that flows were begun with.
    pub begun: Vec<Option<String>>,
}

#[derive(Clone)]
pub struct Engine {
    routes: Arc<RoutingTable>,
    connections: Connections,
    supervisor: SupervisorHandle,
    pub script: Arc<Mutex<Script>>,
}

impl Engine {
    /// Publishes a connection in the place of an earlier one.
    pub fn publish(&self, connection: Arc<Connection>) {
        self.connections.publish(connection);
    }
}

impl TokenSource for Engine {
    fn access_token(
        &self,
        id: ConnectionId,
        _: Arc<str>,
        rejected: Option<TokenFingerprint>,
        _: Arc<CallContext>,
        _: Duration,
    ) -> LocalBoxFuture<'static, Result<Arc<Connection>, TokenError>> {
        let mut script = self.script.lock();
        script.asked.push(Asked { id: id.to_string(), rejected });
        let answer = script.tokens.pop_front();
        let consent = TokenError::AuthorizationRequired { id, reason: Reason::NeverConnected };
        Box::pin(async move { answer.unwrap_or(Err(consent)) })
    }

    fn routes(&self) -> Arc<RoutingTable> {
        self.routes.clone()
    }
}

impl ProxyGateway for Engine {
    fn routes(&self) -> Arc<RoutingTable> {
        self.routes.clone()
    }
    fn connections(&self) -> &Connections {
        &self.connections
    }
    fn now(&self) -> Timestamp {
        SystemClock.now()
    }
    fn entropy(&self) -> Arc<dyn Entropy> {
        Arc::new(SystemEntropy)
    }
    fn supervisor(&self) -> &SupervisorHandle {
        &self.supervisor
    }
    fn tokens(&self) -> Arc<dyn TokenSource> {
        Arc::new(self.clone())
    }
    fn refresh_ahead(&self, id: &ConnectionId, _: &Arc<CallContext>) {
        self.script.lock().refreshed_ahead.push(id.to_string());
    }
    fn create_connect_link(
        &self,
        _: ConnectionId,
        _: ScopeSet,
    ) -> LocalBoxFuture<'_, Result<ConnectLink, FlowError>> {
        Box::pin(async { Ok(ConnectLink { token: Secret::new("one-time"), expires_in: 600 }) })
    }
    fn begin_authorization(
        &self,
        _: ConnectionId,
        browser: Option<Secret>,
        _: Arc<CallContext>,
    ) -> LocalBoxFuture<'_, Result<AuthorizationRedirect, FlowError>> {
        self.script.lock().begun.push(browser.map(|secret| secret.expose().to_owned()));
        let url = Url::parse("https://id.example/authorize?state=s").unwrap();
        Box::pin(
            async move { Ok(AuthorizationRedirect { url, browser: Secret::new("bound"), expires_in: 600 }) },
        )
    }
}

/// A running gateway.
pub struct Gateway {
    pub address: SocketAddr,
    pub engine: Engine,
    server: ServerHandle,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        drop(self.server.stop(false));
    }
}

/// What a test changes of the usual.
pub struct Setup {
    pub routes: Vec<Route>,
    pub body_idle: Duration,
    pub connect: Duration,
    pub h2c: bool,
    pub limits: Limits,
    /// Of caller `billing`.
    pub rate: Option<Arc<RateLimit>>,
}

impl Setup {
    /// `/api` leads to `/v1` of `upstream`; the caller's own token, `token-billing` or `token-crm`.
    pub fn to(upstream: SocketAddr) -> Self {
        Self {
            routes: vec![route("api", "/api", upstream)],
            body_idle: Duration::from_secs(10),
            connect: Duration::from_secs(2),
            h2c: true,
            limits: Limits::default(),
            rate: None,
        }
    }

    pub fn route(mut self, change: impl FnOnce(&mut Route)) -> Self {
        change(&mut self.routes[0]);
        self
    }

    pub fn and(mut self, route: Route) -> Self {
        self.routes.push(route);
        self
    }

    pub fn body_idle(mut self, idle: Duration) -> Self {
        self.body_idle = idle;
        self
    }

    pub async fn start(self) -> Gateway {
        let origins = OriginSet::new(self.routes.iter().flat_map(Route::origins).map(ToString::to_string));
        let engine = Engine {
            routes: Arc::new(RoutingTable::new(self.routes)),
            connections: Connections::new(100),
            supervisor: Supervisor::start(Arc::new(SystemClock)),
            script: Arc::default(),
        };
        for name in ["billing", "crm"] {
            engine.connections.publish(connection(name, &format!("token-{name}"), &origins, 3600));
        }
        let tls = tls_client_config_with_roots(rustls::RootCertStore::empty()).unwrap();
        let mut settings = UpstreamSettings::new(tls);
        settings.body_idle_timeout = self.body_idle;
        settings.connect_timeout = self.connect;
        let callers = [
            caller("billing", &["api", "named", "shared"], true),
            caller("crm", &["api", "named"], false),
            caller("idle", &[], false),
            caller("new", &["api"], false),
        ];
        let callers = callers.map(|mut configured| {
            if configured.caller.id.as_str() == "billing" {
                configured.caller.rate.clone_from(&self.rate);
            }
            configured
        });
        let nobody: Arc<dyn Transport> = ScriptedTransport::new(|_| Answer::json(500, "{}"));
        let callers = Arc::new(ArcSwap::from_pointee(CallerDirectory::new(callers, &nobody)));
        let public = Url::parse("http://gw.test:8081").unwrap();
        let state =
            ProxyState::new(engine.clone(), callers, public, Arc::new(settings), CallDigest::new(&[7; 32]))
                .with_load(Load::new(&self.limits));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let settings = ListenerSettings {
            name: "proxy",
            workers: 1,
            tls: None,
            h2c: self.h2c,
            drain: Duration::from_secs(1),
            counts: Arc::default(),
        };
        let server = listen(listener, settings, move || state.handlers()).unwrap();
        let handle = server.handle();
        actix_web::rt::spawn(server);
        Gateway { address, engine, server: handle }
    }
}

/// A route to `/v1` of `upstream`.
pub fn route(name: &str, path: &str, upstream: SocketAddr) -> Route {
    Route {
        id: RouteId::new(name).unwrap(),
        path: path.to_owned(),
        origin: Arc::new(UpstreamOrigin {
            tls: false,
            host: upstream.ip().to_string(),
            port: upstream.port(),
            serialized: Arc::from(format!("http://{upstream}")),
        }),
        tls: None,
        protocol: UpstreamProtocol::Auto,
        upstream_path: "/v1".to_owned(),
        template: None,
        profile: ProfileId::new("p").unwrap(),
        subject: SubjectSource::Caller,
        context: CallContext::none(),
        needs: CallNeeds::default(),
        subject_names_jwt: false,
        methods: None,
        timeout: Duration::from_secs(3),
        max_body: None,
        resilience: Resilience::default(),
    }
}

/// A connection with a token that was obtained just now and lives for `lifetime` seconds.
pub fn connection(subject: &str, token: &str, origins: &OriginSet, lifetime: u64) -> Arc<Connection> {
    aged_connection(subject, token, origins, lifetime, 0)
}

/// As [`connection`], obtained `age` seconds ago.
pub fn aged_connection(
    subject: &str,
    token: &str,
    origins: &OriginSet,
    lifetime: u64,
    age: u64,
) -> Arc<Connection> {
    let now = SystemClock.now().before(Duration::from_secs(age));
    let tokens = TokenSet {
        access_token: AccessToken::new(token).unwrap(),
        dpop_key: None,
        token_type: TokenType::Bearer,
        obtained_at: now,
        expiry: Expiry::Stated { at: now.after(Duration::from_secs(lifetime)) },
        refresh_token: None,
        refresh_token_obtained_at: None,
        requested_scope: None,
        scope: None,
        identity: None,
        extra: BTreeMap::new(),
    };
    let id = ConnectionId { profile: ProfileId::new("p").unwrap(), subject: Subject::new(subject).unwrap() };
    let state = ConnectionState::obtained(tokens);
    Arc::new(Connection::new(id, Revision(1), origins.clone(), now, state, Ok(()), &RefreshPolicy::default()))
}

/// A caller whose password is its name, hashed at little cost.
fn caller(name: &str, routes: &[&str], may_name_subject: bool) -> ConfiguredCaller {
    let params = Params::new(64, 1, 1, None).unwrap();
    let salt = SaltString::encode_b64(b"0123456789abcdef").unwrap();
    let hash = Argon2::new(Algorithm::Argon2id, Version::V0x13, params).hash_password(name.as_bytes(), &salt);
    let caller = Caller {
        id: CallerId::new(name).unwrap(),
        routes: routes.iter().map(|route| RouteId::new(route).unwrap()).collect(),
        may_name_subject,
        rate: None,
    };
    let password_hash = Secret::new(hash.unwrap().to_string());
    let basic = BasicCredential { username: name.to_owned(), password_hash };
    ConfiguredCaller { basic: Some(basic), ..ConfiguredCaller::new(caller) }
}
