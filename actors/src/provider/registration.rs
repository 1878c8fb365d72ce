//! The requests of dynamic client registration (RFC 7591) and its management (RFC 7592).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, Method, StatusCode};
use url::Url;

use crate::clock::Clock;
use crate::connection::{Failure, FailureClass, Reason};
use crate::protocol::client_registration::{Management, RegisteredClient};
use crate::protocol::metadata::is_allowed_endpoint;
use crate::protocol::secret::{Secret, wiped_bytes};
use crate::protocol::token_error::TokenAnswerError;
use crate::protocol::token_response::MAX_ANSWER;
use crate::registration::dynamic::{ClientRecord, DynamicRegistration};
use crate::token_endpoint::{failure, failure_of_transport};
use crate::transport::{IncomingResponse, OutgoingRequest, Transport};

/// Registers, reads, updates and deletes clients.
pub(super) struct RegistrationEndpoint {
    pub(super) transport: Arc<dyn Transport>,
    pub(super) clock: Arc<dyn Clock>,
    /// Total time of one request.
    pub(super) deadline: Duration,
}

/// Why nothing is known of a registration that was made before.
pub(super) enum Lookup {
    /// The server does not know it, or cannot say: register anew.
    Gone,
    /// The server is not well; nothing follows from that.
    Unwell(Failure),
}

impl RegistrationEndpoint {
    /// Registers a client (RFC 7591 section 3).
    pub(super) async fn register(
        &self,
        endpoint: &Url,
        registration: &DynamicRegistration,
    ) -> Result<RegisteredClient, Failure> {
        let token = registration.initial_access_token.as_ref();
        let body = registration.metadata.registration_body();
        let answer = self.send(Method::POST, endpoint, token, Some(body)).await?;
        let shown = [token, registration.metadata.software_statement.as_ref()];
        self.read_answer(&answer).map_err(|fault| {
            let fault = fault.without(shown.into_iter().flatten().map(Secret::expose));
            let TokenAnswerError::Refused { status, .. } = &fault else { return fault.into_failure() };
            let remedy = match (status, token.is_some()) {
                (401 | 403, false) => "give `registration.initial_access_token`",
                (401, true) => "give a newer `registration.initial_access_token`",
                // The token may be good, and what it was shown for against a rule of the server's.
                (403, true) => {
                    "mend the profile's `registration` or its `scopes` as the provider's policy says, or \
                     give another `registration.initial_access_token`"
                }
                _ => "mend the profile's `registration`, or register by hand and give `client_id`",
            };
            misconfigured(format!("the provider does not register the client: {fault}; {remedy}"))
        })
    }

    /// Reads what the server knows of a client (RFC 7592 section 2.1).
    pub(super) async fn read(&self, management: &Management) -> Result<RegisteredClient, Lookup> {
        self.manage(Method::GET, management, None).await
    }

    /// Sends the client's metadata again (RFC 7592 section 2.2), so that the server may give it a new
    /// secret.
    pub(super) async fn update(
        &self,
        management: &Management,
        registration: &DynamicRegistration,
        record: &ClientRecord,
    ) -> Result<RegisteredClient, Lookup> {
        let body = registration.metadata.update_body(&record.client_id, record.secret());
        self.manage(Method::PUT, management, Some(body)).await
    }

    /// Has the server forget a client (RFC 7592 section 2.3), if it lets us.
    pub(super) async fn delete(&self, management: &Management) -> Result<(), Failure> {
        let answer = self.send(Method::DELETE, &management.uri, Some(&management.token), None).await?;
        let status = answer.status;
        if status.is_success() || matches!(status, StatusCode::NOT_FOUND | StatusCode::UNAUTHORIZED) {
            return Ok(());
        }
        Err(misconfigured(format!("the provider does not delete the client: status {status}")))
    }

    async fn manage(
        &self,
        method: Method,
        management: &Management,
        body: Option<Bytes>,
    ) -> Result<RegisteredClient, Lookup> {
        let answer = self.send(method, &management.uri, Some(&management.token), body).await;
        let answer = answer.map_err(|failure| match failure.class {
            FailureClass::ProviderUnavailable => Lookup::Unwell(failure),
            _ => Lookup::Gone,
        })?;
        self.read_answer(&answer).map_err(|fault| match fault {
            TokenAnswerError::ServerError { .. } | TokenAnswerError::Throttled { .. } => {
                Lookup::Unwell(fault.into_failure())
            }
            _ => Lookup::Gone,
        })
    }

    fn read_answer(&self, answer: &IncomingResponse) -> Result<RegisteredClient, TokenAnswerError> {
        RegisteredClient::parse(answer.status, &answer.headers, &answer.body, self.clock.now())
    }

    async fn send(
        &self,
        method: Method,
        url: &Url,
        token: Option<&Secret>,
        body: Option<Bytes>,
    ) -> Result<IncomingResponse, Failure> {
        if !is_allowed_endpoint(url) {
            let host = url.host_str().unwrap_or_default();
            return Err(misconfigured(format!("no client is registered at {host}: it is not an https URL")));
        }
        let mut headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static("application/json"))]);
        if let Some(token) = token {
            headers.insert(AUTHORIZATION, bearer(token)?);
        }
        if body.is_some() {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        let request = OutgoingRequest {
            method,
            url: url.clone(),
            headers,
            body: body.unwrap_or_default(),
            deadline: self.deadline,
            max_body: MAX_ANSWER,
            outbound: Arc::default(),
        };
        self.transport.send(request).await.map_err(|fault| failure_of_transport(&fault))
    }
}

fn bearer(token: &Secret) -> Result<HeaderValue, Failure> {
    let bytes = wiped_bytes([b"Bearer ", token.expose().as_bytes()].concat());
    let mut value = HeaderValue::from_maybe_shared(bytes).map_err(|_| {
        misconfigured(
            "`registration.initial_access_token` has characters that no header can carry".to_owned(),
        )
    })?;
    value.set_sensitive(true);
    Ok(value)
}

pub(super) fn misconfigured(detail: String) -> Failure {
    failure(FailureClass::ClientMisconfigured, Reason::RequestRefused, detail)
}
