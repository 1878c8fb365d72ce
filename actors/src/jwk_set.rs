//! Verification keys of one issuer, fetched when needed and kept (OpenID Connect Core section
//! 10.1.1).

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use url::Url;

use crate::clock::Timestamp;
use crate::connection::{Failure, FailureClass, Reason};
use crate::protocol::id_token::IdTokenError;
use crate::protocol::jwk::JwkSetView;
use crate::protocol::jwt::JwtError;
use crate::protocol::metadata::is_allowed_endpoint;
use crate::protocol::token_error::TokenAnswerError;
use crate::token_endpoint::{failure, failure_of_transport, get_json};
use crate::transport::Transport;

/// Keys are believed for this long.
const KEPT: Duration = Duration::from_secs(3600);
/// Tokens with unknown keys cause at most one request in this time.
const FORCED_INTERVAL: Duration = Duration::from_secs(60);
/// Keys of this age are as new as a request could make them.
const JUST_FETCHED: Duration = Duration::from_secs(5);
/// A failure is repeated to everybody who asks within this time.
const FAILURE_KEPT: Duration = Duration::from_secs(5);
const DEADLINE: Duration = Duration::from_secs(10);
const MAX_BODY: usize = 512 * 1024;

/// Why a token could not be verified.
#[derive(Debug, Clone, thiserror::Error)]
pub enum VerifyError<E> {
    /// The keys could not be had.
    #[error("the issuer's keys could not be fetched: {}", .0.detail)]
    Keys(Failure),
    /// The token is not to be believed.
    #[error(transparent)]
    Token(#[from] E),
}

/// A fault of a token that newer keys may mend.
pub trait UnknownKey {
    /// Whether no key of the set suits.
    fn is_unknown_key(&self) -> bool;
}

impl UnknownKey for IdTokenError {
    fn is_unknown_key(&self) -> bool {
        *self == Self::UnknownKey
    }
}

impl UnknownKey for JwtError {
    fn is_unknown_key(&self) -> bool {
        *self == Self::UnknownKey
    }
}

/// The key set of one issuer. One request is in flight at most; whoever comes meanwhile waits for
/// it.
#[derive(Debug, Default)]
pub struct JwkSetCache(Mutex<Cached>);

#[derive(Debug, Default)]
struct Cached {
    uri: Option<Url>,
    keys: Option<(Arc<JwkSetView>, Timestamp)>,
    failure: Option<(Failure, Timestamp)>,
    /// When keys were last asked for because a token's key was unknown.
    forced_at: Option<Timestamp>,
}

impl JwkSetCache {
    /// Holds nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The keys at `uri`. With `force` they are fetched anew, at most once a minute. If that fails,
    /// keys that are still believed are given instead.
    pub async fn keys(
        &self,
        transport: &Arc<dyn Transport>,
        uri: &Url,
        now: Timestamp,
        force: bool,
    ) -> Result<Arc<JwkSetView>, Failure> {
        let mut cached = self.0.lock().await;
        if cached.uri.as_ref() != Some(uri) {
            *cached = Cached { uri: Some(uri.clone()), ..Cached::default() };
        }
        let held = cached.keys.clone().filter(|(_, at)| is_within(*at, now, KEPT));
        if let Some((keys, fetched_at)) = &held {
            let forced = cached.forced_at.is_some_and(|at| is_within(at, now, FORCED_INTERVAL));
            if !force || forced || is_within(*fetched_at, now, JUST_FETCHED) {
                return Ok(keys.clone());
            }
        }
        if let Some((failure, at)) = &cached.failure
            && is_within(*at, now, FAILURE_KEPT)
        {
            return held.map(|(keys, _)| keys).ok_or_else(|| failure.clone());
        }
        if held.is_some() {
            cached.forced_at = Some(now);
        }
        match fetch(transport, uri, now).await {
            Ok(keys) => {
                let keys = Arc::new(keys);
                cached.keys = Some((keys.clone(), now));
                cached.failure = None;
                Ok(keys)
            }
            Err(failure) => {
                cached.failure = Some((failure.clone(), now));
                held.map(|(keys, _)| keys).ok_or(failure)
            }
        }
    }

    /// Verifies a token with the keys at `uri`, which are fetched anew once if the token's is not
    /// among them.
    ///
    /// # Errors
    /// [`VerifyError`].
    pub async fn verify<T, E: UnknownKey>(
        &self,
        transport: &Arc<dyn Transport>,
        uri: &Url,
        now: Timestamp,
        check: impl Fn(&JwkSetView) -> Result<T, E>,
    ) -> Result<T, VerifyError<E>> {
        let keys = self.keys(transport, uri, now, false).await.map_err(VerifyError::Keys)?;
        match check(&keys) {
            Err(error) if error.is_unknown_key() => {
                let newer = self.keys(transport, uri, now, true).await.map_err(VerifyError::Keys)?;
                Ok(check(&newer)?)
            }
            verdict => Ok(verdict?),
        }
    }
}

/// Whether `now` is less than `span` after `at`. A clock set back ends the span: nothing may be
/// kept for ever.
fn is_within(at: Timestamp, now: Timestamp, span: Duration) -> bool {
    at <= now && now.since(at) < span
}

async fn fetch(transport: &Arc<dyn Transport>, uri: &Url, now: Timestamp) -> Result<JwkSetView, Failure> {
    if !is_allowed_endpoint(uri) {
        let detail = "jwks_uri is no https URL (http is allowed on loopback only)";
        return Err(failure(FailureClass::ClientMisconfigured, Reason::RequestRefused, detail));
    }
    let request = get_json(uri.clone(), DEADLINE, MAX_BODY);
    let answer = transport.send(request).await.map_err(|fault| failure_of_transport(&fault))?;
    if !answer.status.is_success() {
        let status = answer.status.as_u16();
        return Err(match TokenAnswerError::of_status(status, &answer.headers, &[], now) {
            // Key sets need no credentials, so no refusal is about the client.
            TokenAnswerError::Refused { .. } => malformed(format!("jwks_uri answers with status {status}")),
            other => other.into_failure(),
        });
    }
    JwkSetView::parse(&answer.body).map_err(|fault| malformed(fault.to_string()))
}

fn malformed(detail: String) -> Failure {
    failure(FailureClass::ProviderUnavailable, Reason::MalformedAnswer, detail)
}

#[cfg(test)]
mod tests;
