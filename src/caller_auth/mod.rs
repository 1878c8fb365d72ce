//! Who is calling us: one file a credential.
//!
//! To add a credential: one new file here, one `mod` line and one row in [`CALLER_AUTH_METHODS`].

pub mod api_key;
pub mod http_basic;
pub mod jwt;
pub mod known;
pub mod mtls;
pub mod peer_certificate;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use actix_web::http::header::{AUTHORIZATION, HeaderMap};
use claviger_actors::clock::Timestamp;
use claviger_actors::protocol::identifiers::{CallerId, RouteId, Subject};
use claviger_actors::protocol::secret::Secret;
use claviger_actors::proxy::rate_limit::RateLimit;
use claviger_actors::proxy::route::RoutingTable;
use claviger_actors::transport::Transport;
use futures_util::future::LocalBoxFuture;
use parking_lot::Mutex;
use thiserror::Error;

pub use api_key::{ApiKeyHash, X_API_KEY, hash_api_key};
pub use http_basic::{BasicCredential, check_password_hash, hash_secret};
pub use jwt::{JwtCredential, KeySource};
pub use known::KnownCaller;
pub use peer_certificate::{PeerCertificate, SubjectAltName};

/// An internal application that may call the gateway, as configured.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Its key in the configuration.
    pub id: CallerId,
    /// What it may call; empty means nothing.
    pub routes: BTreeSet<RouteId>,
    /// Whether it may send `Claviger-Subject`.
    pub may_name_subject: bool,
    /// How many calls it may make per time.
    pub rate: Option<Arc<RateLimit>>,
}

/// A caller and the credentials by which it is known.
#[derive(Clone, Debug)]
pub struct ConfiguredCaller {
    /// Who it is and what it may do.
    pub caller: Caller,
    /// Its HTTP Basic credential.
    pub basic: Option<BasicCredential>,
    /// The hash of its API key.
    pub api_key: Option<ApiKeyHash>,
    /// Which JWTs are its own.
    pub jwt: Option<JwtCredential>,
    /// Names of its client certificates; one of them is enough.
    pub mtls: Vec<SubjectAltName>,
}

impl ConfiguredCaller {
    /// A caller that has no credential yet.
    pub fn new(caller: Caller) -> Self {
        Self { caller, basic: None, api_key: None, jwt: None, mtls: Vec::new() }
    }
}

/// What a caller's own JWT says, verified.
#[derive(Clone, Debug)]
pub struct CallerToken {
    /// Who issued it.
    pub issuer: String,
    /// Whom it is about, by the claim that the caller's configuration names.
    pub subject: Option<Subject>,
    /// Its claims that are texts, numbers or booleans of moderate length, as texts.
    pub claims: BTreeMap<String, Secret>,
}

/// What a request shows of its caller.
#[derive(Clone, Copy, Debug)]
pub struct Presented<'a> {
    /// Its headers.
    pub headers: &'a HeaderMap,
    /// The client certificate of its connection, verified.
    pub certificate: Option<&'a PeerCertificate>,
}

impl<'a> From<&'a HeaderMap> for Presented<'a> {
    fn from(headers: &'a HeaderMap) -> Self {
        Self { headers, certificate: None }
    }
}

/// Who sent a request.
#[derive(Clone, Debug)]
pub struct AuthenticatedCaller {
    /// The caller.
    pub caller: Arc<Caller>,
    /// What its JWT says, if it sent one.
    pub token: Option<Arc<CallerToken>>,
    /// When its credential has to be looked at anew.
    pub until: Timestamp,
}

impl From<Arc<Caller>> for AuthenticatedCaller {
    fn from(caller: Arc<Caller>) -> Self {
        Self { caller, token: None, until: Timestamp::from_millis(u64::MAX) }
    }
}

/// Why a caller is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CallerAuthError {
    /// It presented nothing that any method understands.
    #[error("no credential was sent; send that of a configured caller")]
    Absent,
    /// Its credential is wrong. Whether the name or the password is stays untold.
    #[error("the credential is not that of any configured caller")]
    Refused,
    /// Which of two credentials counts could be argued about.
    #[error("more than one credential was sent; send one")]
    Ambiguous,
    /// The connection's certificate is that of another caller than the credential, or of several.
    #[error("the client certificate and the credential must be of one and the same caller")]
    Conflicting,
    /// Too many credentials are being verified at once.
    #[error("too many new credentials are being verified; try again in a moment")]
    Overloaded,
    /// It is a JWT, and the keys of its issuer cannot be had.
    #[error("the keys that the token has to be verified with cannot be fetched; try again in a moment")]
    KeysUnavailable,
}

/// What is known of a credential without verifying it anew.
#[derive(Clone, Debug)]
pub enum Recalled {
    /// The request has no credential of this method.
    NotPresented,
    /// It was verified before and is right.
    Accepted(AuthenticatedCaller),
    /// It was verified before and is wrong, or is malformed.
    Refused,
    /// It is that of several callers.
    Ambiguous,
    /// It has to be verified.
    Unknown,
}

/// What a method remembers of credentials that it has verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdicts {
    /// Verdicts in memory.
    pub kept: usize,
    /// How many are kept at most.
    pub most: usize,
}

impl Verdicts {
    fn of(kept: usize, most: u64) -> Self {
        Self { kept, most: usize::try_from(most).unwrap_or(usize::MAX) }
    }
}

/// A way to tell who is calling.
pub trait CallerAuth: Send + Sync {
    /// What to answer with in `WWW-Authenticate` (RFC 9110 section 11.6.1).
    fn challenge(&self) -> &'static str;

    /// Whether its challenge is only of use where no other can be made: its scheme is none of HTTP's.
    fn is_last_resort(&self) -> bool {
        false
    }

    /// Whether its credential is that of the connection: then it may stand beside one that a request
    /// brings, if both are of one caller.
    fn is_of_connection(&self) -> bool {
        false
    }

    /// What it remembers; `None` if verifying costs so little that it need not.
    fn verdicts(&self) -> Option<Verdicts> {
        None
    }

    /// Looks at a request's credential without waiting.
    fn recall(&self, presented: Presented<'_>, now: Timestamp) -> Recalled;

    /// Verifies a credential that [`CallerAuth::recall`] does not know, off the thread. A method that
    /// settles everything there has nothing left to verify.
    fn verify<'a>(
        &'a self,
        _presented: Presented<'a>,
        _now: Timestamp,
    ) -> LocalBoxFuture<'a, Result<AuthenticatedCaller, CallerAuthError>> {
        Box::pin(async { Err(CallerAuthError::Refused) })
    }
}

/// Sets a method up for the callers that have its credential; `None` if none has. Keys that are
/// somewhere else are fetched through the transport.
pub type BuildMethod = fn(
    &[(Arc<Caller>, ConfiguredCaller)],
    &Arc<dyn Transport>,
    &Arc<Remembered>,
) -> Option<Box<dyn CallerAuth>>;

/// Credentials of each kind that are kept as verified, unless configured.
pub const VERIFIED_CREDENTIALS: usize = 10_000;

/// What is costly to find out, and outlives the callers' configuration: none of it says who anybody is.
#[derive(Debug)]
pub struct Remembered {
    /// Credentials of each kind that are kept as verified.
    most: usize,
    passwords: http_basic::RightPasswords,
    keys: jwt::FetchedKeys,
    /// What callers with a rate have had of it: another configuration fills no bucket.
    rates: Mutex<BTreeMap<CallerId, Arc<RateLimit>>>,
}

impl Remembered {
    fn holding(most: usize) -> Arc<Self> {
        let passwords = http_basic::RightPasswords::holding(most);
        Arc::new(Self { most, passwords, keys: jwt::FetchedKeys::default(), rates: Mutex::default() })
    }

    /// Lets callers whose rate is as before go on with what they have had.
    fn go_on_with_rates(&self, callers: &mut [ConfiguredCaller]) {
        let mut rates = self.rates.lock();
        let before = std::mem::take(&mut *rates);
        for ConfiguredCaller { caller, .. } in callers {
            let Some(rate) = &mut caller.rate else { continue };
            if let Some(known) = before.get(&caller.id).filter(|known| known.rate() == rate.rate()) {
                rate.clone_from(known);
            }
            rates.insert(caller.id.clone(), rate.clone());
        }
    }
}

/// One way to tell who is calling, and how it is set up.
#[derive(Clone, Copy, Debug)]
pub struct CallerAuthMethod {
    /// Its name in the configuration.
    pub name: &'static str,
    /// Sets it up.
    pub build: BuildMethod,
}

/// Every method.
pub const CALLER_AUTH_METHODS: &[CallerAuthMethod] = &[
    CallerAuthMethod { name: "basic", build: http_basic::build },
    CallerAuthMethod { name: "jwt", build: jwt::build },
    CallerAuthMethod { name: "api_key_hash", build: api_key::build },
    CallerAuthMethod { name: "mtls", build: mtls::build },
];

static NUMBERS: AtomicU64 = AtomicU64::new(0);

/// All callers, and how each is told.
pub struct CallerDirectory {
    /// Tells it from all others of this process.
    number: u64,
    remembered: Arc<Remembered>,
    routes: Option<Arc<RoutingTable>>,
    methods: Vec<Box<dyn CallerAuth>>,
    /// Their names, in the same order.
    names: Vec<&'static str>,
    challenges: Vec<&'static str>,
}

impl CallerDirectory {
    /// Gathers callers. Two with the same credential are a configuration error found before.
    pub fn new(callers: impl IntoIterator<Item = ConfiguredCaller>, transport: &Arc<dyn Transport>) -> Self {
        Self::remembering(VERIFIED_CREDENTIALS, callers, transport)
    }

    /// As [`CallerDirectory::new`]; at most so many credentials of each kind are kept as verified.
    pub fn remembering(
        most: usize,
        callers: impl IntoIterator<Item = ConfiguredCaller>,
        transport: &Arc<dyn Transport>,
    ) -> Self {
        Self::over(callers, transport, Remembered::holding(most))
    }

    /// With the routes that were configured together with the callers: who is let in by the one is led by
    /// the other, and both are exchanged at once.
    #[must_use]
    pub fn with_routes(self, routes: Arc<RoutingTable>) -> Self {
        Self { routes: Some(routes), ..self }
    }

    /// The routes that go with the callers, if any do.
    pub fn routes(&self) -> Option<&RoutingTable> {
        self.routes.as_deref()
    }

    /// Other callers in the place of these. A credential of one who stays is not verified anew.
    #[must_use]
    pub fn succeeded_by(
        &self,
        callers: impl IntoIterator<Item = ConfiguredCaller>,
        transport: &Arc<dyn Transport>,
    ) -> Self {
        Self::over(callers, transport, self.remembered.clone())
    }

    fn over(
        callers: impl IntoIterator<Item = ConfiguredCaller>,
        transport: &Arc<dyn Transport>,
        remembered: Arc<Remembered>,
    ) -> Self {
        let mut callers: Vec<_> = callers.into_iter().collect();
        remembered.go_on_with_rates(&mut callers);
        let callers: Vec<_> =
            callers.into_iter().map(|configured| (Arc::new(configured.caller.clone()), configured)).collect();
        let set_up = |method: &CallerAuthMethod| {
            Some(((method.build)(&callers, transport, &remembered)?, method.name))
        };
        let (methods, names): (Vec<_>, Vec<_>) = CALLER_AUTH_METHODS.iter().filter_map(set_up).unzip();
        let mut challenges: Vec<_> = methods
            .iter()
            .filter(|method| !method.is_last_resort())
            .map(|method| method.challenge())
            .collect();
        if challenges.is_empty() {
            challenges.push(methods.first().map_or(http_basic::CHALLENGE, |method| method.challenge()));
        }
        let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
        Self { number, remembered, routes: None, methods, names, challenges }
    }

    /// Tells who sent a request that shows this. A credential that was verified lately costs a
    /// digest and a look-up. One that the connection shows is enough, and no harm where it is nobody's
    /// and the request brings another.
    ///
    /// # Errors
    /// [`CallerAuthError`].
    pub async fn authenticate(
        &self,
        presented: Presented<'_>,
        now: Timestamp,
    ) -> Result<AuthenticatedCaller, CallerAuthError> {
        let headers = presented.headers;
        if headers.get_all(AUTHORIZATION).nth(1).is_some() {
            return Err(CallerAuthError::Ambiguous);
        }
        let (mut found, mut shown) = (None, None);
        for method in &self.methods {
            match method.recall(presented, now) {
                Recalled::NotPresented => {}
                Recalled::Ambiguous => return Err(CallerAuthError::Conflicting),
                recalled if method.is_of_connection() => shown = Some(recalled),
                _ if found.is_some() => return Err(CallerAuthError::Ambiguous),
                recalled => found = Some((method, recalled)),
            }
        }
        let caller = match found {
            Some((_, Recalled::Accepted(caller))) => caller,
            Some((method, Recalled::Unknown)) => method.verify(presented, now).await?,
            Some(_) => return Err(CallerAuthError::Refused),
            None if headers.contains_key(AUTHORIZATION) || headers.contains_key(X_API_KEY) => {
                return Err(CallerAuthError::Refused);
            }
            None => {
                return match shown {
                    Some(Recalled::Accepted(caller)) => Ok(caller),
                    Some(_) => Err(CallerAuthError::Refused),
                    None => Err(CallerAuthError::Absent),
                };
            }
        };
        match shown {
            Some(Recalled::Accepted(other)) if other.caller.id != caller.caller.id => {
                Err(CallerAuthError::Conflicting)
            }
            _ => Ok(caller),
        }
    }

    /// What methods remember, by their names.
    pub fn verdicts(&self) -> impl Iterator<Item = (&'static str, Verdicts)> {
        let methods = self.names.iter().zip(&self.methods);
        methods.filter_map(|(name, method)| Some((*name, method.verdicts()?)))
    }

    /// What to answer with in `WWW-Authenticate`, one challenge a method.
    pub fn challenges(&self) -> &[&'static str] {
        &self.challenges
    }
}

impl fmt::Debug for CallerDirectory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallerDirectory").field("methods", &self.methods.len()).finish()
    }
}
