//! Sends token and revocation requests, reads the answers, names the faults. The only part of the
//! engine that shows the client's credentials to an authorization server.

use std::sync::Arc;
use std::time::Duration;

use http::header::{ACCEPT, AUTHORIZATION, HeaderValue};
use http::{HeaderMap, Method};
use url::Url;

use crate::client_auth::ClientAuthContext;
use crate::clock::Clock;
use crate::connection::{Failure, FailureClass, Reason};
use crate::profile::Profile;
use crate::protocol::metadata::is_allowed_endpoint;
use crate::protocol::secret::Secret;
use crate::protocol::token_error::{CodeMeaning, TokenAnswerError};
use crate::protocol::token_request::{CLIENT_AUTH_PARAMS, TokenRequest};
use crate::protocol::token_response::{MAX_ANSWER, TokenResponse, parse_token_answer};
use crate::transport::{IncomingResponse, OutgoingRequest, Transport, TransportError};

/// Where token requests are sent from.
#[derive(Clone)]
pub struct TokenEndpoint {
    transport: Arc<dyn Transport>,
    clock: Arc<dyn Clock>,
}

impl TokenEndpoint {
    /// Sends through `transport`; `clock` reads a `Retry-After` that is a date.
    pub fn new(transport: Arc<dyn Transport>, clock: Arc<dyn Clock>) -> Self {
        Self { transport, clock }
    }

    /// Sends `request` once, with the profile's parameters and its proof of the client. Redirects
    /// are never followed, and nothing is tried again here.
    pub async fn request(
        &self,
        profile: &Profile,
        endpoint: &Url,
        mut request: TokenRequest,
    ) -> Result<TokenResponse, Failure> {
        for (name, value) in &profile.registration.token_params {
            // Neither the grant's own parameters nor the proof of the client can be overridden.
            if request.get(name).is_none() && !CLIENT_AUTH_PARAMS.contains(&name.as_str()) {
                request.param(name, value.as_str());
            }
        }
        let (answer, secrets) = self.send(profile, endpoint, request).await?;
        parse_token_answer(answer.status, &answer.headers, &answer.body, self.clock.now())
            .map_err(|fault| fault.without(secrets.iter().map(Secret::expose)).into_failure())
    }

    /// Revokes `token` (RFC 7009); `hint` is `refresh_token` or `access_token`. A token that the
    /// server does not know, or no longer, counts as revoked (section 2.2).
    pub async fn revoke(
        &self,
        profile: &Profile,
        endpoint: &Url,
        token: &str,
        hint: &str,
    ) -> Result<(), Failure> {
        let mut request = TokenRequest::default();
        request.param("token", token);
        request.param("token_type_hint", hint);
        let (answer, secrets) = self.send(profile, endpoint, request).await?;
        if answer.status.is_success() {
            return Ok(());
        }
        let fault = TokenAnswerError::of_status(
            answer.status.as_u16(),
            &answer.headers,
            &answer.body,
            self.clock.now(),
        );
        let dead = matches!(&fault, TokenAnswerError::Refused { code, .. } if code == "invalid_token");
        if dead || fault.meaning() == Some(CodeMeaning::GrantDead) {
            return Ok(());
        }
        Err(fault.without(secrets.iter().map(Secret::expose)).into_failure())
    }

    /// The answer, and every value that was sent, so that none is repeated in an error.
    async fn send(
        &self,
        profile: &Profile,
        endpoint: &Url,
        mut request: TokenRequest,
    ) -> Result<(IncomingResponse, Vec<Secret>), Failure> {
        let registration = &profile.registration;
        if !is_allowed_endpoint(endpoint) {
            let host = endpoint.host_str().unwrap_or_default();
            let detail = format!("no secret is sent to {host}: its endpoint is not an https URL");
            return Err(failure(FailureClass::ClientMisconfigured, Reason::RequestRefused, detail));
        }
        profile
            .client_auth
            .authenticate(&ClientAuthContext { client_id: &registration.client_id }, &mut request)
            .map_err(|fault| failure(FailureClass::Internal, Reason::InternalError, fault.to_string()))?;
        let secrets = secrets_of(&request);
        let outgoing =
            request.into_outgoing(endpoint.clone(), registration.retry.request_timeout, MAX_ANSWER);
        let answer = self.transport.send(outgoing).await.map_err(|fault| failure_of_transport(&fault))?;
        Ok((answer, secrets))
    }
}

/// What a server must not get to repeat in our errors: every value sent, but for the public ones.
fn secrets_of(request: &TokenRequest) -> Vec<Secret> {
    const PUBLIC: [&str; 7] =
        ["grant_type", "client_id", "redirect_uri", "scope", "token_type_hint", "resource", "audience"];
    let params = request.params.iter().filter(|(name, _)| !PUBLIC.contains(&name.as_str()));
    let basic = request.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let basic = basic.and_then(|value| value.split_once(' ')).map(|(_, proof)| Secret::from(proof));
    params.map(|(_, value)| value.clone()).chain(basic).collect()
}

impl std::fmt::Debug for TokenEndpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenEndpoint").finish_non_exhaustive()
    }
}

impl TokenRequest {
    /// The request as a `POST` to `endpoint` (RFC 6749 section 3.2), allowed `deadline` in all and
    /// an answer of `max_body` bytes.
    pub fn into_outgoing(self, endpoint: Url, deadline: Duration, max_body: usize) -> OutgoingRequest {
        let (headers, body) = self.into_form();
        OutgoingRequest { method: Method::POST, url: endpoint, headers, body, deadline, max_body }
    }
}

/// A `GET` for a JSON document.
pub(crate) fn get_json(url: Url, deadline: Duration, max_body: usize) -> OutgoingRequest {
    let headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static("application/json"))]);
    let body = bytes::Bytes::new();
    OutgoingRequest { method: Method::GET, url, headers, body, deadline, max_body }
}

/// A failure without a wish of the server's.
pub(crate) fn failure(class: FailureClass, reason: Reason, detail: impl Into<String>) -> Failure {
    Failure { class, reason, detail: detail.into(), retry_after: None }
}

impl TokenAnswerError {
    /// What the answer means for the connection. Only a dead grant ends one.
    pub fn into_failure(self) -> Failure {
        let detail = self.to_string();
        let (class, reason) = match (&self, self.meaning()) {
            (_, Some(CodeMeaning::GrantDead)) => (FailureClass::GrantDead, Reason::GrantRevoked),
            (_, Some(CodeMeaning::ClientRefused)) => {
                (FailureClass::ClientMisconfigured, Reason::ClientRefused)
            }
            (_, Some(CodeMeaning::RequestRefused)) => {
                (FailureClass::ClientMisconfigured, Reason::RequestRefused)
            }
            (_, Some(CodeMeaning::ServerUnwell)) | (Self::ServerError { .. }, _) => {
                (FailureClass::ProviderUnavailable, Reason::ProviderError)
            }
            (Self::Throttled { .. }, _) => (FailureClass::ProviderUnavailable, Reason::ProviderThrottled),
            _ => (FailureClass::ProviderUnavailable, Reason::MalformedAnswer),
        };
        let retry_after = match self {
            Self::ServerError { retry_after, .. } | Self::Throttled { retry_after } => retry_after,
            _ => None,
        };
        Failure { class, reason, detail, retry_after }
    }
}

/// What a request that got no usable answer means for the connection: it keeps what it has.
pub fn failure_of_transport(fault: &TransportError) -> Failure {
    let reason = match fault {
        TransportError::Connect { .. } | TransportError::Tls { .. } => Reason::ProviderUnreachable,
        TransportError::Timeout { .. } => Reason::ProviderTimeout,
        TransportError::Broken { .. } | TransportError::TooLarge { .. } => Reason::MalformedAnswer,
    };
    failure(FailureClass::ProviderUnavailable, reason, fault.to_string())
}

#[cfg(test)]
mod tests;
