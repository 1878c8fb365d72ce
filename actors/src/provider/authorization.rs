//! Turns an authorization request into the URL that a browser is sent to: its parameters in the
//! query, or pushed before (RFC 9126).

use super::context::ProviderContext;
use super::error::TokenError;
use super::messages::AuthorizationTarget;
use crate::authorization_server::ResolvedMetadata;
use crate::connection::{Failure, FailureClass, Reason};
use crate::profile::Client;
use crate::protocol::authorization_request::AuthorizationParams;
use crate::protocol::identifiers::Subject;
use crate::protocol::pushed_request::{PushedRequest, parse_pushed_answer};
use crate::protocol::token_request::TokenRequest;
use crate::token_endpoint::{Addressee, failure};
use crate::transport::IncomingResponse;

/// Where to send a browser that asks for `params`.
pub(super) async fn prepare(
    context: &ProviderContext,
    params: &AuthorizationParams,
) -> Result<AuthorizationTarget, TokenError> {
    target(context, params).await.map_err(|failure| {
        context.note_error(&failure.detail);
        context.failure_error(&Subject::shared(), &failure, None)
    })
}

async fn target(
    context: &ProviderContext,
    params: &AuthorizationParams,
) -> Result<AuthorizationTarget, Failure> {
    let metadata = context.discovery.metadata().await?;
    let endpoint = metadata.authorization_endpoint()?;
    let client = context.client().await?;
    let registration = &context.profile.registration;
    let name = registration.provider.quirks.parameter("client_id");
    let params = &params.clone().of_client(name, &client.client_id);
    let required = metadata.document.as_ref().is_some_and(|d| d.require_pushed_authorization_requests);
    let url = if registration.authorization.pushed || required {
        let pushed = push(context, &client, &metadata, params).await?;
        tracing::debug!(
            profile = %registration.profile,
            expires_in_s = pushed.expires_in.as_secs(),
            "authorization request pushed"
        );
        params.pushed_url(endpoint, &client.client_id, &pushed.request_uri)
    } else {
        params.url(endpoint)
    };
    Ok(AuthorizationTarget { url, issuer: metadata.issuer.clone(), iss_announced: metadata.iss_announced })
}

/// Pushes the request in the name of the client. The browser is sent away at once, so the
/// reference is used long before it ends.
async fn push(
    context: &ProviderContext,
    client: &Client,
    metadata: &ResolvedMetadata,
    params: &AuthorizationParams,
) -> Result<PushedRequest, Failure> {
    let endpoint = metadata.endpoints.pushed_authorization_request_endpoint.as_ref().ok_or_else(|| {
        refused(
            "`par` needs the provider's pushed_authorization_request_endpoint, which is unknown; configure it, \
             or an issuer that names it, or take `par` out",
        )
    })?;
    let mut request = TokenRequest::default();
    for (name, value) in params.iter() {
        match name {
            "resource" => request.add_resource(value),
            _ => request.param(name, value),
        }
    }
    let to = Addressee { profile: &context.profile, client, metadata, endpoint };
    let read = |answer: &IncomingResponse| {
        parse_pushed_answer(answer.status, &answer.headers, &answer.body, context.now())
    };
    context.token_endpoint.ask(to, request, read).await.map_err(|failure| match failure.class {
        // No grant is at stake yet.
        FailureClass::GrantDead => refused(failure.detail),
        _ => Failure { detail: format!("pushed authorization request: {}", failure.detail), ..failure },
    })
}

fn refused(detail: impl Into<String>) -> Failure {
    failure(FailureClass::ClientMisconfigured, Reason::RequestRefused, detail)
}
