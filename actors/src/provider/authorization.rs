//! Turns an authorization request into the URL that a browser is sent to: its parameters in the
//! query, in a signed request object (RFC 9101), or pushed before (RFC 9126).

use std::time::Duration;

use super::capabilities::{self, no_par_endpoint, refused};
use super::context::ProviderContext;
use super::error::TokenError;
use super::grant_request::before_any_grant;
use super::messages::AuthorizationTarget;
use crate::authorization_server::ResolvedMetadata;
use crate::connection::{Failure, FailureClass, Reason};
use crate::profile::Client;
use crate::protocol::authorization_request::AuthorizationParams;
use crate::protocol::identifiers::Subject;
use crate::protocol::jws::{Jwt, Signer, numeric_date, unique_id};
use crate::protocol::metadata::AuthorizationServerMetadata;
use crate::protocol::pushed_request::{PushedRequest, parse_pushed_answer};
use crate::protocol::secret::Secret;
use crate::protocol::signing_key::SigningKey;
use crate::protocol::token_request::TokenRequest;
use crate::token_endpoint::{Addressee, failure};
use crate::transport::IncomingResponse;

/// How long a request object lives: one that is pushed is read at once, another travels with the
/// browser, and perhaps waits for a login.
const PUSHED_LIFETIME: Duration = Duration::from_secs(60);
const CARRIED_LIFETIME: Duration = Duration::from_secs(300);
/// A server's clock may be behind ours by this much.
const CLOCK_SKEW: Duration = Duration::from_secs(10);

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
    capabilities::check(&context.profile, &metadata)?;
    let endpoint = metadata.authorization_endpoint()?;
    let client = context.client().await?;
    let registration = &context.profile.registration;
    let name = registration.provider.quirks.parameter("client_id");
    let params = &params.clone().of_client(name, &client.client_id);
    let requires =
        |flag: fn(&AuthorizationServerMetadata) -> bool| metadata.document.as_deref().is_some_and(flag);
    let pushes = registration.authorization.pushed || requires(|d| d.require_pushed_authorization_requests);
    let signed = match &registration.authorization.request_object {
        Some(keys) => {
            let lifetime = if pushes { PUSHED_LIFETIME } else { CARRIED_LIFETIME };
            Some(sign(context, &client, &metadata, params, &keys.current(), lifetime)?)
        }
        None if requires(|d| d.require_signed_request_object) => {
            return Err(refused("the provider takes signed requests only; set `request_object = true`"));
        }
        None => None,
    };
    let url = if pushes {
        let request = pushed_form(params, signed, &client.client_id);
        let pushed = push(context, &client, &metadata, request).await?;
        tracing::debug!(
            profile = %registration.profile,
            expires_in_s = pushed.expires_in.as_secs(),
            "authorization request pushed"
        );
        params.pushed_url(endpoint, &client.client_id, &pushed.request_uri)
    } else if let Some(object) = signed {
        params.signed_url(endpoint, &client.client_id, object.expose())
    } else {
        params.url(endpoint)
    };
    Ok(AuthorizationTarget { url, issuer: metadata.issuer.clone(), iss_announced: metadata.iss_announced })
}

/// The request as one signed object. It is for this server alone, for a short time, and once.
fn sign(
    context: &ProviderContext,
    client: &Client,
    metadata: &ResolvedMetadata,
    params: &AuthorizationParams,
    key: &SigningKey,
    lifetime: Duration,
) -> Result<Secret, Failure> {
    let Some(issuer) = &metadata.issuer else {
        return Err(refused("`request_object` needs the provider's `issuer`, whom the object is for"));
    };
    let now = context.now();
    let mut claims = params.claims();
    for (name, value) in [
        ("iss", client.client_id.as_str().into()),
        ("aud", issuer.as_str().into()),
        ("iat", numeric_date(now)),
        ("nbf", numeric_date(now.before(CLOCK_SKEW))),
        ("exp", numeric_date(now.after(lifetime))),
        ("jti", unique_id(context.entropy.as_ref()).into()),
    ] {
        claims.insert(name.to_owned(), value);
    }
    Jwt::new(claims)
        .typ("oauth-authz-req+jwt")
        .sign(Signer::Key(key))
        .map_err(|error| failure(FailureClass::Internal, Reason::InternalError, error.to_string()))
}

/// What is pushed: the parameters, or the object that has them (RFC 9126 section 3).
fn pushed_form(params: &AuthorizationParams, signed: Option<Secret>, client_id: &str) -> TokenRequest {
    let mut request = TokenRequest::default();
    if let Some(object) = signed {
        request.param("client_id", client_id);
        request.param("request", object);
        return request;
    }
    request.add_all(params.iter());
    request
}

/// Pushes the request in the name of the client. The browser is sent away at once, so the
/// reference is used long before it ends.
async fn push(
    context: &ProviderContext,
    client: &Client,
    metadata: &ResolvedMetadata,
    request: TokenRequest,
) -> Result<PushedRequest, Failure> {
    let endpoint =
        metadata.endpoints.pushed_authorization_request_endpoint.as_ref().ok_or_else(no_par_endpoint)?;
    let to = Addressee { profile: &context.profile, client, metadata, endpoint };
    let read = |answer: &IncomingResponse| {
        let read = parse_pushed_answer(answer.status, &answer.headers, &answer.body, context.now());
        client.note(&read);
        read
    };
    context.token_endpoint.ask(to, request, read).await.map_err(|failure| {
        let failure = before_any_grant(failure);
        Failure { detail: format!("pushed authorization request: {}", failure.detail), ..failure }
    })
}
