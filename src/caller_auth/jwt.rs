//! JWTs of an issuer that the organisation runs, as `Authorization: Bearer` (RFC 7519, RFC 9068).
//!
//! A verified token is remembered under its digest, so that it is verified once in a while only. What
//! is refused is not: refusing costs little, and nobody can push good ones out with it.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use actix_web::http::header::{AUTHORIZATION, HeaderMap};
use aws_lc_rs::digest;
use claviger_actors::clock::Timestamp;
use claviger_actors::jwk_set::{JwkSetCache, VerifyError};
use claviger_actors::protocol::identifiers::Subject;
use claviger_actors::protocol::jwk::JwkSetView;
use claviger_actors::protocol::jwt::{self, JwtError, SKEW, SignedJwt};
use claviger_actors::protocol::secret::Secret;
use claviger_actors::protocol::template::fits_a_value;
use claviger_actors::transport::Transport;
use futures_util::future::LocalBoxFuture;
use parking_lot::Mutex;
use quick_cache::sync::Cache;
use serde_json::{Map, Value};
use url::Url;

use super::{
    AuthenticatedCaller, Caller, CallerAuth, CallerAuthError, CallerToken, ConfiguredCaller, Presented,
    Recalled, Remembered, Verdicts,
};

/// What a caller without a valid token is told (RFC 6750 section 3).
pub const CHALLENGE: &str = "Bearer realm=\"claviger\"";

/// Longest token looked at, in bytes.
const MAX_TOKEN: usize = 16 * 1024;
/// How long a verified token stays known: its key may be withdrawn.
const ACCEPTED_FOR: Duration = Duration::from_secs(300);

/// Which JWTs are a caller's.
#[derive(Clone, Debug)]
pub struct JwtCredential {
    /// `iss`, compared as it is.
    pub issuer: String,
    /// What must be among `aud`.
    pub audience: String,
    /// What they are verified with.
    pub keys: KeySource,
    /// The claim that names the subject.
    pub subject_claim: String,
    /// Further claims that they must have, as texts.
    pub claims: BTreeMap<String, String>,
}

/// Where the keys of an issuer are.
#[derive(Clone, Debug)]
pub enum KeySource {
    /// At a URL; fetched when needed and kept for a while.
    Uri(Url),
    /// In a file, read with the configuration.
    File {
        /// Its path.
        path: String,
        /// Its keys.
        keys: Arc<JwkSetView>,
    },
}

impl KeySource {
    /// Whether it is the same place.
    pub fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Uri(one), Self::Uri(two)) => one == two,
            (Self::File { path: one, .. }, Self::File { path: two, .. }) => one == two,
            _ => false,
        }
    }
}

impl JwtCredential {
    /// Whether one token could be that of this caller and of another with `other`, for all that the
    /// configuration says: neither audience nor any claim tells them apart.
    pub fn is_ambiguous_with(&self, other: &Self) -> bool {
        self.issuer == other.issuer
            && self.audience == other.audience
            && self.claims.iter().all(|(name, value)| other.claims.get(name).is_none_or(|its| its == value))
    }

    fn matches(&self, audiences: &[String], claims: &Map<String, Value>) -> bool {
        audiences.contains(&self.audience)
            && self.claims.iter().all(|(name, wanted)| {
                claims.get(name).and_then(as_text).is_some_and(|found| found.expose() == wanted)
            })
    }
}

/// Sets the method up for the callers that send JWTs.
pub(super) fn build(
    callers: &[(Arc<Caller>, ConfiguredCaller)],
    transport: &Arc<dyn Transport>,
    remembered: &Arc<Remembered>,
) -> Option<Box<dyn CallerAuth>> {
    let mut issuers: HashMap<String, Issuer> = HashMap::new();
    for (caller, configured) in callers {
        if let Some(credential) = &configured.jwt {
            let issuer = issuers.entry(credential.issuer.clone()).or_insert_with(|| Issuer {
                keys: credential.keys.clone(),
                fetched: remembered.keys.of(&credential.keys),
                callers: Vec::new(),
            });
            issuer.callers.push((caller.clone(), credential.clone()));
        }
    }
    let verdicts = Cache::new(remembered.most);
    (!issuers.is_empty()).then(|| {
        Box::new(CallerJwts { issuers, transport: transport.clone(), verdicts }) as Box<dyn CallerAuth>
    })
}

/// Keys that were fetched, by where they are.
#[derive(Debug, Default)]
pub(super) struct FetchedKeys(Mutex<BTreeMap<Url, Arc<JwkSetCache>>>);

impl FetchedKeys {
    fn of(&self, source: &KeySource) -> Arc<JwkSetCache> {
        match source {
            KeySource::Uri(url) => self.0.lock().entry(url.clone()).or_default().clone(),
            KeySource::File { .. } => Arc::default(),
        }
    }
}

/// One issuer and the callers that it issues tokens to.
struct Issuer {
    keys: KeySource,
    fetched: Arc<JwkSetCache>,
    callers: Vec<(Arc<Caller>, JwtCredential)>,
}

struct CallerJwts {
    issuers: HashMap<String, Issuer>,
    transport: Arc<dyn Transport>,
    verdicts: Cache<[u8; 32], AuthenticatedCaller>,
}

impl CallerJwts {
    async fn decide(&self, token: &str, now: Timestamp) -> Result<AuthenticatedCaller, Refusal> {
        let jwt = SignedJwt::parse(token, MAX_TOKEN)?;
        let issuer = jwt.unverified("iss").and_then(|iss| self.issuers.get(iss)).ok_or(Refusal::Issuer)?;
        let algorithm = jwt.algorithm(|_| true)?;
        // RFC 8725 section 3.11: a logout token or proof of the same issuer is no access token.
        if !matches!(jwt.typ().as_str(), "jwt" | "at+jwt") {
            return Err(Refusal::Token(JwtError::Malformed("its typ is that of another kind of token")));
        }
        let claims = match &issuer.keys {
            KeySource::File { keys, .. } => jwt.verify(algorithm, keys)?.clone(),
            KeySource::Uri(uri) => {
                let check = |keys: &JwkSetView| jwt.verify(algorithm, keys).cloned();
                issuer.fetched.verify(&self.transport, uri, now, check).await?
            }
        };
        let exp = jwt::moment(&claims, "exp")?.ok_or(JwtError::Claim("exp"))?.after(SKEW);
        if exp <= now {
            return Err(Refusal::Expired);
        }
        if jwt::moment(&claims, "nbf")?.is_some_and(|nbf| nbf > now.after(SKEW)) {
            return Err(Refusal::NotYet);
        }
        let audiences = jwt::audiences(&claims)?;
        let mut matching =
            issuer.callers.iter().filter(|(_, credential)| credential.matches(&audiences, &claims));
        let (caller, credential) = match (matching.next(), matching.next()) {
            (Some(one), None) => one,
            (None, _) => return Err(Refusal::Audience),
            (Some(_), Some(_)) => return Err(Refusal::Several),
        };
        let token = CallerToken {
            issuer: credential.issuer.clone(),
            subject: claims
                .get(&credential.subject_claim)
                .and_then(Value::as_str)
                .and_then(|text| Subject::new(text).ok()),
            claims: claims.iter().filter_map(|(name, value)| Some((name.clone(), as_text(value)?))).collect(),
        };
        let until = exp.min(now.after(ACCEPTED_FOR));
        Ok(AuthenticatedCaller { caller: caller.clone(), token: Some(Arc::new(token)), until })
    }
}

/// A claim as a text that a template can take.
fn as_text(value: &Value) -> Option<Secret> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Bool(flag) => flag.to_string(),
        _ => return None,
    };
    fits_a_value(&text).then(|| Secret::new(text))
}

/// Why a token is not a caller's.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error(transparent)]
    Token(#[from] JwtError),
    #[error("its issuer is none of those configured")]
    Issuer,
    #[error("it has expired")]
    Expired,
    #[error("it is not valid yet")]
    NotYet,
    #[error("its audience and claims are those of no caller")]
    Audience,
    #[error("its audiences and claims are those of several callers")]
    Several,
    #[error("the issuer's keys could not be fetched: {0}")]
    Keys(String),
}

impl From<VerifyError<JwtError>> for Refusal {
    fn from(error: VerifyError<JwtError>) -> Self {
        match error {
            VerifyError::Token(error) => Self::Token(error),
            VerifyError::Keys(failure) => Self::Keys(failure.detail),
        }
    }
}

impl CallerAuth for CallerJwts {
    fn challenge(&self) -> &'static str {
        CHALLENGE
    }

    fn verdicts(&self) -> Option<Verdicts> {
        Some(Verdicts::of(self.verdicts.len(), self.verdicts.capacity()))
    }

    fn recall(&self, presented: Presented<'_>, now: Timestamp) -> Recalled {
        let Some(token) = bearer_token(presented.headers) else { return Recalled::NotPresented };
        if token.len() > MAX_TOKEN {
            return Recalled::Refused;
        }
        match self.verdicts.get(&digest_of(token)) {
            Some(caller) if now < caller.until => Recalled::Accepted(caller),
            _ => Recalled::Unknown,
        }
    }

    fn verify<'a>(
        &'a self,
        presented: Presented<'a>,
        now: Timestamp,
    ) -> LocalBoxFuture<'a, Result<AuthenticatedCaller, CallerAuthError>> {
        Box::pin(async move {
            let token = bearer_token(presented.headers).unwrap_or_default();
            let text = std::str::from_utf8(token).map_err(|_| CallerAuthError::Refused)?;
            match self.decide(text, now).await {
                Ok(caller) => {
                    self.verdicts.insert(digest_of(token), caller.clone());
                    Ok(caller)
                }
                Err(refusal @ Refusal::Keys(_)) => {
                    tracing::warn!(%refusal, "a caller's token cannot be verified");
                    Err(CallerAuthError::KeysUnavailable)
                }
                Err(refusal) => {
                    tracing::debug!(%refusal, "a caller's token is refused");
                    Err(CallerAuthError::Refused)
                }
            }
        })
    }
}

impl fmt::Debug for CallerJwts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallerJwts").field("issuers", &self.issuers.keys()).finish_non_exhaustive()
    }
}

/// What follows `Bearer `, whose case does not matter (RFC 9110 section 11.1).
pub fn bearer_token(headers: &HeaderMap) -> Option<&[u8]> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.as_bytes().split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

fn digest_of(token: &[u8]) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest::digest(&digest::SHA256, token).as_ref());
    bytes
}

#[cfg(test)]
pub(crate) mod tests;
