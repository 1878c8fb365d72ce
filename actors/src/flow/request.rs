//! What a new flow asks for: draws what makes it unguessable, and makes its request and its record.

use super::error::FlowError;
use super::messages::{AuthorizationRedirect, BeginAuthorization};
use super::ports::AuthorizationProvider;
use super::record::{FlowRecord, StateHash};
use super::registrar::FlowServices;
use crate::protocol::authorization_request::AuthorizationRequest;
use crate::protocol::dpop::DpopKey;
use crate::protocol::identifiers::ConnectionId;
use crate::protocol::pkce::CodeVerifier;
use crate::protocol::scope::ScopeSet;
use crate::protocol::secret::Secret;
use crate::protocol::state::{Nonce, State, random_token};
use crate::protocol::template::CallContext;
use crate::registration::Pkce;

/// A flow's record, which is not saved yet, and where to send the browser once it is.
pub(super) async fn new_flow(
    begin: BeginAuthorization,
    provider: &dyn AuthorizationProvider,
    services: &FlowServices,
) -> Result<(FlowRecord, AuthorizationRedirect), FlowError> {
    let BeginAuthorization { connection, return_to, browser, call } = begin;
    let entropy = &*services.entropy;
    let registration = provider.registration();
    let quirks = &registration.provider.quirks;
    let mut own = own_params(&connection, provider, &call)?;
    // Binds the code to the key, too. Should none be had now, the redemption makes one.
    let dpop_key = registration.dpop.and_then(|algorithm| DpopKey::generate(algorithm).ok());
    own.extend(dpop_key.as_ref().map(|key| ("dpop_jkt", key.thumbprint().to_owned())));
    let scopes = scopes(provider, &connection, &call.scopes).await?;
    let state = State::generate(entropy);
    let verifier = (registration.pkce == Pkce::S256).then(|| CodeVerifier::generate(entropy));
    let nonce = scopes.contains("openid").then(|| Nonce::generate(entropy));
    let browser = browser.filter(is_binding).unwrap_or_else(|| random_token(entropy));
    let challenge = verifier.as_ref().map(CodeVerifier::challenge);
    let params = AuthorizationRequest {
        client_id: (quirks.parameter("client_id"), &registration.client_id),
        redirect_uri: &registration.redirect_uri,
        scope: (quirks.parameter("scope"), &quirks.scope_text(&scopes)),
        state: &state,
        challenge: challenge.as_deref(),
        nonce: nonce.as_ref(),
        own: &own,
        extra: &registration.authorize_params,
    }
    .params();
    let target = provider.authorization_url(params).await.map_err(FlowError::Provider)?;
    let created_at = services.clock.now();
    let record = FlowRecord {
        state: StateHash::of(state.0.expose()),
        connection,
        code_verifier: verifier.map(|verifier| verifier.secret().clone()),
        nonce: nonce.map(|nonce| nonce.0),
        dpop_key,
        scopes,
        issuer: target.issuer,
        iss_required: target.iss_announced || registration.authorization.require_iss,
        redirect_uri: registration.redirect_uri.to_string(),
        browser: StateHash::of(browser.expose()),
        return_to,
        device: None,
        created_at,
        expires_at: created_at.after(services.limits.lifetime),
    };
    let expires_in = services.limits.lifetime.as_secs();
    Ok((record, AuthorizationRedirect { url: target.url, browser, expires_in }))
}

/// A browser's binding is used again only if it can be one of ours.
fn is_binding(browser: &Secret) -> bool {
    let text = browser.expose().as_bytes();
    text.len() == 43 && text.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
}

/// The parameters that have a key of their own in the profile.
pub(super) fn own_params(
    connection: &ConnectionId,
    provider: &dyn AuthorizationProvider,
    call: &CallContext,
) -> Result<Vec<(&'static str, String)>, FlowError> {
    provider
        .registration()
        .authorization
        .params(&connection.subject, call)
        .map_err(|source| FlowError::Call { connection: connection.clone(), source })
}

/// The profile's scopes and, if `further` ones are needed, those and what was granted before: a
/// person who allows more loses nothing.
pub(super) async fn scopes(
    provider: &dyn AuthorizationProvider,
    connection: &ConnectionId,
    further: &ScopeSet,
) -> Result<ScopeSet, FlowError> {
    let scopes = provider.registration().scopes.union(further);
    if provider.registration().scopes.covers(further) {
        return Ok(scopes);
    }
    let granted = provider.granted_scopes(connection.subject.clone()).await.map_err(FlowError::Provider)?;
    Ok(scopes.union(&granted))
}
