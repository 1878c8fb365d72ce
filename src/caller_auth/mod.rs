//! Who is calling us: one file a credential.
//!
//! To add a credential: one new file here, one `mod` line and one row in [`CALLER_AUTH_METHODS`].

pub mod http_basic;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use actix_web::http::header::{AUTHORIZATION, HeaderMap};
use claviger_actors::clock::Timestamp;
use claviger_actors::protocol::identifiers::{CallerId, RouteId};
use futures_util::future::LocalBoxFuture;
use thiserror::Error;

pub use http_basic::{BasicCredential, check_password_hash, hash_secret};

/// An internal application that may call the gateway, as configured.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Its key in the configuration.
    pub id: CallerId,
    /// What it may call; empty means nothing.
    pub routes: BTreeSet<RouteId>,
    /// Whether it may send `Claviger-Subject`.
    pub may_name_subject: bool,
}

/// A caller and the credentials by which it is known.
#[derive(Clone, Debug)]
pub struct ConfiguredCaller {
    /// Who it is and what it may do.
    pub caller: Caller,
    /// Its HTTP Basic credential.
    pub basic: Option<BasicCredential>,
}

/// Why a caller is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CallerAuthError {
    /// It presented nothing that any method understands.
    #[error("no credential was sent; send HTTP Basic credentials of a configured caller")]
    Absent,
    /// Its credential is wrong. Whether the name or the password is stays untold.
    #[error("the credential is not that of any configured caller")]
    Refused,
    /// Which of two credentials counts could be argued about.
    #[error("Authorization was sent more than once")]
    Ambiguous,
    /// Too many credentials are being verified at once.
    #[error("too many new credentials are being verified; try again in a moment")]
    Overloaded,
}

/// What is known of a credential without verifying it anew.
#[derive(Clone, Debug)]
pub enum Recalled {
    /// The request has no credential of this method.
    NotPresented,
    /// It was verified before and is right.
    Accepted(Arc<Caller>),
    /// It was verified before and is wrong, or is malformed.
    Refused,
    /// It has to be verified.
    Unknown,
}

/// A way to tell who is calling.
pub trait CallerAuth: Send + Sync {
    /// What to answer with in `WWW-Authenticate` (RFC 9110 section 11.6.1).
    fn challenge(&self) -> &'static str;

    /// Looks at a request's credential without waiting.
    fn recall(&self, headers: &HeaderMap, now: Timestamp) -> Recalled;

    /// Verifies a credential that [`CallerAuth::recall`] does not know, off the thread.
    fn verify<'a>(
        &'a self,
        headers: &'a HeaderMap,
        now: Timestamp,
    ) -> LocalBoxFuture<'a, Result<Arc<Caller>, CallerAuthError>>;
}

/// Sets a method up for the callers that have its credential; `None` if none has.
pub type BuildMethod = fn(&[(Arc<Caller>, ConfiguredCaller)]) -> Option<Box<dyn CallerAuth>>;

/// One way to tell who is calling, and how it is set up.
#[derive(Clone, Copy, Debug)]
pub struct CallerAuthMethod {
    /// Its name in the configuration.
    pub name: &'static str,
    /// Sets it up.
    pub build: BuildMethod,
}

/// Every method.
pub const CALLER_AUTH_METHODS: &[CallerAuthMethod] =
    &[CallerAuthMethod { name: "basic", build: http_basic::build }];

/// All callers, and how each is told.
pub struct CallerDirectory {
    methods: Vec<Box<dyn CallerAuth>>,
}

impl CallerDirectory {
    /// Gathers callers. Two with the same user name are a configuration error found before.
    pub fn new(callers: impl IntoIterator<Item = ConfiguredCaller>) -> Self {
        let callers: Vec<_> =
            callers.into_iter().map(|configured| (Arc::new(configured.caller.clone()), configured)).collect();
        let methods = CALLER_AUTH_METHODS.iter().filter_map(|method| (method.build)(&callers)).collect();
        Self { methods }
    }

    /// Tells who sent a request with these headers. A credential that was verified lately costs a
    /// digest and a look-up.
    pub async fn authenticate(
        &self,
        headers: &HeaderMap,
        now: Timestamp,
    ) -> Result<Arc<Caller>, CallerAuthError> {
        if headers.get_all(AUTHORIZATION).nth(1).is_some() {
            return Err(CallerAuthError::Ambiguous);
        }
        for method in &self.methods {
            return match method.recall(headers, now) {
                Recalled::NotPresented => continue,
                Recalled::Accepted(caller) => Ok(caller),
                Recalled::Refused => Err(CallerAuthError::Refused),
                Recalled::Unknown => method.verify(headers, now).await,
            };
        }
        let presented = headers.contains_key(AUTHORIZATION);
        Err(if presented { CallerAuthError::Refused } else { CallerAuthError::Absent })
    }

    /// What to answer with in `WWW-Authenticate`.
    pub fn challenge(&self) -> &'static str {
        self.methods.first().map_or(http_basic::CHALLENGE, |method| method.challenge())
    }
}

impl fmt::Debug for CallerDirectory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallerDirectory").field("methods", &self.methods.len()).finish()
    }
}
