//! Sends token and revocation requests, reads the answers, names the faults. The only part of the
//! engine that shows the client's credentials to an authorization server.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::header::{ACCEPT, AUTHORIZATION, HeaderValue};
use http::{HeaderMap, Method};
use url::Url;

use crate::authorization_server::ResolvedMetadata;
use crate::client_auth::ClientAuthContext;
use crate::clock::{Clock, Entropy, Timestamp};
use crate::connection::{Failure, FailureClass, Reason};
use crate::profile::{Client, Profile};
use crate::protocol::device_authorization::DeviceAnswer;
use crate::protocol::dpop::{self, DPOP, DpopKey, Nonces, Proof, wants_nonce};
use crate::protocol::metadata::is_allowed_endpoint;
use crate::protocol::secret::Secret;
use crate::protocol::token::TokenType;
use crate::protocol::token_error::{CodeMeaning, TokenAnswerError, retry_after};
use crate::protocol::token_request::{CLIENT_AUTH_PARAMS, TokenRequest};
use crate::protocol::token_response::{MAX_ANSWER, TokenResponse, parse_token_answer};
use crate::registration::outbound::RetryStatuses;
use crate::transport::{IncomingResponse, OutgoingRequest, Transport, TransportError};

/// Sends requests in the name of one profile's client.
pub struct TokenEndpoint {
    transport: Arc<dyn Transport>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    /// The credential that was taken last, counted from 0.
    credential: AtomicUsize,
    /// The newest DPoP nonce of each server.
    nonces: Nonces,
}

/// Where a request goes and in whose name.
#[derive(Clone, Copy)]
pub struct Addressee<'a> {
    /// The profile, in whose name it is sent.
    pub profile: &'a Profile,
    /// The profile's client.
    pub client: &'a Client,
    /// What is known of the authorization server.
    pub metadata: &'a ResolvedMetadata,
    /// The endpoint itself.
    pub endpoint: &'a Url,
}

/// The answer to a request, and every value that was sent, so that none is repeated in an error.
struct Answer {
    response: IncomingResponse,
    sent: Vec<Secret>,
}

impl TokenEndpoint {
    /// Sends through `transport`; `clock` reads a `Retry-After` that is a date.
    pub fn new(transport: Arc<dyn Transport>, clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> Self {
        Self { transport, clock, entropy, credential: AtomicUsize::new(0), nonces: Nonces::default() }
    }

    /// Sends a token request, with `further` parameters and the profile's proof of the client. Of
    /// parameters with one name the first counts. Redirects are never followed, and nothing is tried
    /// again here but with the client's next credential.
    pub async fn request(
        &self,
        to: Addressee<'_>,
        request: TokenRequest,
        further: &[(String, Secret)],
    ) -> Result<TokenResponse, Failure> {
        let bound = request.dpop_key.is_some();
        let read = |answer: &IncomingResponse| self.read_token(to, answer, bound);
        self.ask(to, completed(to.profile, request, further), read).await
    }

    /// As [`request`](Self::request), with a device code whose person may not have decided yet
    /// (RFC 8628 section 3.5).
    pub async fn poll(
        &self,
        to: Addressee<'_>,
        request: TokenRequest,
        further: &[(String, Secret)],
    ) -> Result<DeviceAnswer, Failure> {
        let bound = request.dpop_key.is_some();
        let read = |answer: &IncomingResponse| DeviceAnswer::of(self.read_token(to, answer, bound));
        self.ask(to, completed(to.profile, request, further), read).await
    }

    fn read_token(
        &self,
        to: Addressee<'_>,
        answer: &IncomingResponse,
        bound: bool,
    ) -> Result<TokenResponse, TokenAnswerError> {
        let format = to.profile.registration.provider.quirks.answer_format();
        let now = self.clock.now();
        let read = parse_token_answer(answer.status, &answer.headers, &answer.body, now, format);
        // Only here: other endpoints may refuse the same client for reasons of their own.
        to.client.note(&read);
        let read = read?;
        check_binding(&read, bound).map(|()| read)
    }

    /// Revokes `token` (RFC 7009); `hint` is `refresh_token` or `access_token`. A token that the
    /// server does not know, or no longer, counts as revoked (section 2.2). A token that is bound to
    /// `dpop_key` is revoked with a proof: RFC 9449 does not ask for it, but servers may.
    pub async fn revoke(
        &self,
        to: Addressee<'_>,
        token: &str,
        hint: &str,
        dpop_key: Option<&DpopKey>,
    ) -> Result<(), Failure> {
        let mut request = TokenRequest { dpop_key: dpop_key.cloned(), ..TokenRequest::default() };
        request.param("token", token);
        request.param("token_type_hint", hint);
        let read = |answer: &IncomingResponse| {
            if answer.status.is_success() {
                return Ok(());
            }
            let status = answer.status.as_u16();
            let format = to.profile.registration.provider.quirks.answer_format();
            let now = self.clock.now();
            let fault = TokenAnswerError::of_answer(status, &answer.headers, &answer.body, now, format);
            let dead = matches!(&fault, TokenAnswerError::Refused { code, .. } if code == "invalid_token");
            if dead || fault.meaning() == Some(CodeMeaning::GrantDead) { Ok(()) } else { Err(fault) }
        };
        self.ask(to, request, read).await
    }

    /// Sends `request` in the name of the client and reads the answer. While the client itself is
    /// refused, its next credential is tried, if it has several.
    pub async fn ask<T>(
        &self,
        to: Addressee<'_>,
        request: TokenRequest,
        read: impl Fn(&IncomingResponse) -> Result<T, TokenAnswerError>,
    ) -> Result<T, Failure> {
        let count = to.client.auth.credentials().max(1);
        let first = self.credential.load(Ordering::Relaxed);
        let (mut turn, mut challenged) = (0, false);
        loop {
            let credential = (first + turn) % count;
            let Answer { response, sent } = self.send(to, request.clone(), credential).await?;
            // RFC 9449 section 8: refused before anything was done with it, so even a code is still good.
            if request.dpop_key.is_some()
                && !challenged
                && wants_nonce(response.status, &response.headers, &response.body)
            {
                challenged = true;
                continue;
            }
            turn += 1;
            let statuses = &to.profile.registration.provider.outbound.retry_statuses;
            let read =
                read(&response).map_err(|fault| by_status(fault, &response, statuses, self.clock.now()));
            match read {
                Ok(answer) => {
                    self.credential.store(credential, Ordering::Relaxed);
                    return Ok(answer);
                }
                Err(fault) if fault.meaning() == Some(CodeMeaning::ClientRefused) && turn < count => {}
                Err(fault) => return Err(fault.without(sent.iter().map(Secret::expose)).into_failure()),
            }
        }
    }

    async fn send(
        &self,
        to: Addressee<'_>,
        mut request: TokenRequest,
        credential: usize,
    ) -> Result<Answer, Failure> {
        let registration = &to.profile.registration;
        if !is_allowed_endpoint(to.endpoint) {
            let host = to.endpoint.host_str().unwrap_or_default();
            let detail = format!("no secret is sent to {host}: its endpoint is not an https URL");
            return Err(failure(FailureClass::ClientMisconfigured, Reason::RequestRefused, detail));
        }
        let context = ClientAuthContext {
            client_id: &to.client.client_id,
            quirks: &registration.provider.quirks,
            credential,
            issuer: to.metadata.issuer.as_deref(),
            token_endpoint: to.metadata.endpoints.token_endpoint.as_ref(),
            now: self.clock.now(),
            entropy: self.entropy.as_ref(),
        };
        to.client
            .auth
            .authenticate(&context, &mut request)
            .map_err(|fault| failure(FailureClass::Internal, Reason::InternalError, fault.to_string()))?;
        let prover = request.dpop_key.take().map(|key| (key, to.endpoint.origin().ascii_serialization()));
        if let Some((key, origin)) = &prover {
            let nonce = self.nonces.get(origin);
            let url = dpop::htu(to.endpoint);
            let proof = Proof { method: "POST", url, nonce: nonce.as_deref(), access_token: None };
            let proof = key
                .prove(proof, self.clock.now(), self.entropy.as_ref())
                .map_err(|fault| failure(FailureClass::Internal, Reason::InternalError, fault.to_string()))?;
            request.headers.insert(DPOP, proof);
        }
        for name in ["client_id", "client_secret"] {
            request.rename(name, registration.provider.quirks.parameter(name));
        }
        let sent = secrets_of(&request, registration.provider.quirks.parameter("client_id"));
        let deadline = registration.retry.request_timeout;
        let outgoing = request.into_outgoing(to.endpoint.clone(), deadline, MAX_ANSWER);
        let response = self.transport.send(outgoing).await.map_err(|fault| failure_of_transport(&fault))?;
        if let Some((_, origin)) = &prover {
            self.nonces.remember(origin, &response.headers);
        }
        Ok(Answer { response, sent })
    }
}

/// The request with the profile's own parameters.
fn completed(profile: &Profile, mut request: TokenRequest, further: &[(String, Secret)]) -> TokenRequest {
    let registration = &profile.registration;
    let quirks = &*registration.provider.quirks;
    if request.get("resource").is_none() {
        let resources = &registration.authorization.resources;
        resources.iter().for_each(|resource| request.add_resource(resource));
    }
    for (name, value) in further {
        // Neither the grant's own parameters nor the proof of the client can be overridden.
        if request.get(name).is_none() && !CLIENT_AUTH_PARAMS.contains(&name.as_str()) {
            request.param(name, value);
        }
    }
    if let (Some(separator), Some(scope)) = (quirks.scope_separator, request.get("scope")) {
        // No scope has a space in it, so each is a separator.
        let scope = scope.expose().replace(' ', separator.encode_utf8(&mut [0; 4]));
        request.param("scope", scope);
    }
    request.rename("scope", quirks.parameter("scope"));
    request.format = quirks.token_request_format;
    for (name, value) in &quirks.token_request_headers {
        request.headers.insert(name, value.clone());
    }
    request
}

/// Whether the tokens are bound to the key that the request was proven with, if it was
/// (RFC 9449 section 5). Taking a bearer token instead would be a downgrade that nobody asked for.
fn check_binding(answer: &TokenResponse, bound: bool) -> Result<(), TokenAnswerError> {
    let why = match (bound, answer.token_type) {
        (true, TokenType::Dpop) | (false, TokenType::Bearer) => return Ok(()),
        (true, TokenType::Bearer) => {
            "has the token_type Bearer although DPoP was asked for, so the token is bound to no key; \
             have the provider bind this client's tokens, or leave `dpop` out"
        }
        (false, TokenType::Dpop) => {
            "has the token_type DPoP, which was not asked for; set `dpop = true` for it"
        }
    };
    Err(TokenAnswerError::Malformed { why: why.to_owned() })
}

/// What the answer's status means to this provider's operator: trouble that passes, or a refusal.
fn by_status(
    fault: TokenAnswerError,
    response: &IncomingResponse,
    statuses: &RetryStatuses,
    now: Timestamp,
) -> TokenAnswerError {
    let status = response.status.as_u16();
    if status < 400 {
        return fault;
    }
    match (statuses.contains(status), fault) {
        (true, TokenAnswerError::Refused { .. }) => {
            TokenAnswerError::ServerError { status, retry_after: retry_after(&response.headers, now) }
        }
        // The body of a failing server is not believed: no grant ends on its word.
        (false, TokenAnswerError::ServerError { .. } | TokenAnswerError::Throttled { .. }) => {
            TokenAnswerError::Refused { code: String::new(), description: None, status, own: None }
        }
        (_, fault) => fault,
    }
}

/// What a server must not get to repeat in our errors: every value sent, but for the public ones.
fn secrets_of(request: &TokenRequest, client_id: &str) -> Vec<Secret> {
    const PUBLIC: [&str; 6] =
        ["grant_type", "redirect_uri", "scope", "token_type_hint", "resource", "audience"];
    let public = |name: &str| name == client_id || PUBLIC.contains(&name);
    let params = request.params.iter().chain(&request.query).filter(|(name, _)| !public(name));
    let basic = request.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let basic = basic.and_then(|value| value.split_once(' ')).map(|(_, proof)| Secret::from(proof));
    // A server that repeats its URL repeats what is in the query in its encoded form.
    let encoded = request.query.iter().filter(|(name, _)| !public(name)).map(|(_, value)| {
        Secret::new(url::form_urlencoded::byte_serialize(value.expose().as_bytes()).collect::<String>())
    });
    params.map(|(_, value)| value.clone()).chain(basic).chain(encoded).collect()
}

impl std::fmt::Debug for TokenEndpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenEndpoint").finish_non_exhaustive()
    }
}

impl TokenRequest {
    /// The request as a `POST` to `endpoint` (RFC 6749 section 3.2), allowed `deadline` in all and
    /// an answer of `max_body` bytes.
    pub fn into_outgoing(self, mut endpoint: Url, deadline: Duration, max_body: usize) -> OutgoingRequest {
        if !self.query.is_empty() {
            let pairs = self.query.iter().map(|(name, value)| (name.as_str(), value.expose()));
            endpoint.query_pairs_mut().extend_pairs(pairs);
        }
        let (headers, body) = self.into_body();
        let outbound = Arc::default();
        OutgoingRequest { method: Method::POST, url: endpoint, headers, body, deadline, max_body, outbound }
    }
}

/// A `GET` for a JSON document.
pub(crate) fn get_json(url: Url, deadline: Duration, max_body: usize) -> OutgoingRequest {
    let headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static("application/json"))]);
    let (body, outbound) = (bytes::Bytes::new(), Arc::default());
    OutgoingRequest { method: Method::GET, url, headers, body, deadline, max_body, outbound }
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
