//! Whether the authorization server's metadata has what the profile wants of it, so that a call is told
//! what to configure before anything is sent and before any person is asked.
//!
//! What the configuration says wins: a provider whose `token_endpoint` is given by hand is not measured
//! by what its metadata says of another one, and nothing follows from a list that is not there.

use std::time::Duration;

use super::context::ProviderContext;
use super::error::TokenError;
use crate::authorization_server::{ResolvedMetadata, unknown};
use crate::connection::{Failure, FailureClass, Reason};
use crate::profile::{ClientSource, Profile};
use crate::protocol::identifiers::Subject;
use crate::protocol::metadata::AuthorizationServerMetadata;
use crate::registration::dynamic::grant_types;
use crate::token_endpoint::failure;

/// A call that a person has to consent for waits no longer for metadata: it is told so in any case.
const PATIENCE: Duration = Duration::from_secs(2);

/// What to configure, if `metadata` lacks what a new token of `profile` needs.
pub(super) fn check(profile: &Profile, metadata: &ResolvedMetadata) -> Result<(), Failure> {
    let browser = profile.grant.needs_person() && !profile.grant.uses_device();
    let endpoints = &metadata.endpoints;
    if browser {
        metadata.authorization_endpoint()?;
    }
    if browser
        && profile.registration.authorization.pushed
        && endpoints.pushed_authorization_request_endpoint.is_none()
    {
        return Err(no_par_endpoint());
    }
    if profile.grant.uses_device() && endpoints.device_authorization_endpoint.is_none() {
        return Err(unknown("device_authorization_endpoint"));
    }
    if let Some(algorithm) = profile.registration.dpop {
        metadata.check_dpop(algorithm)?;
    }
    match metadata.document.as_deref().filter(|_| endpoint_is_announced(profile)) {
        Some(document) => check_announced(profile, document),
        None => Ok(()),
    }
}

fn endpoint_is_announced(profile: &Profile) -> bool {
    profile.registration.provider.endpoints.token_endpoint.is_none()
}

/// What the announced token endpoint takes (RFC 8414 section 2). That nothing is said of DPoP means
/// little: whoever does not know it answers with a bearer token, and is told so then.
fn check_announced(profile: &Profile, document: &AuthorizationServerMetadata) -> Result<(), Failure> {
    let provider = &profile.registration.provider;
    let (types, _) = grant_types(profile.grant_name);
    if let (Some(known), Some(wanted)) = (&document.grant_types_supported, types.first())
        && !provider.grants_given
        && !known.iter().any(|known| known == wanted)
    {
        let detail = format!(
            "its grant_types_supported are {}, without {wanted}; set `grant` to one of them, or, if it takes \
             grant = \"{}\" all the same, give the provider's `grants`",
            known.join(", "),
            profile.grant_name
        );
        return Err(refused(detail));
    }
    // Public clients are seldom announced, and one that registers itself is told by its registration.
    let method = profile.client_auth_name;
    if let (Some(known), ClientSource::Given(_)) =
        (&document.token_endpoint_auth_methods_supported, &profile.client)
        && method != "none"
        && !known.iter().any(|known| known == method)
    {
        let detail = format!(
            "its token_endpoint_auth_methods_supported are {}, without {method}; set `client_auth` to one of \
             them, or, if it takes {method} all the same, give the provider's `token_endpoint`",
            known.join(", ")
        );
        return Err(refused(detail));
    }
    Ok(())
}

/// As [`check`], for a call that is about to be told that a person must consent. Trouble that passes is
/// no reason to tell it anything else.
pub(super) async fn check_before_consent(context: &ProviderContext) -> Result<(), TokenError> {
    let Ok(metadata) = tokio::time::timeout(PATIENCE, context.discovery.metadata()).await else {
        return Ok(());
    };
    match metadata.and_then(|metadata| check(&context.profile, &metadata)) {
        Err(failure) if failure.class == FailureClass::ClientMisconfigured => {
            context.note_error(&failure.detail);
            Err(context.failure_error(&Subject::shared(), &failure, None))
        }
        _ => Ok(()),
    }
}

/// What to say when requests are to be pushed (RFC 9126) and nobody knows where.
pub(super) fn no_par_endpoint() -> Failure {
    refused(
        "`par` needs the provider's pushed_authorization_request_endpoint, which is unknown; configure it, \
         or an issuer that names it, or take `par` out",
    )
}

/// A request that the server, by its metadata, would not take.
pub(super) fn refused(detail: impl Into<String>) -> Failure {
    failure(FailureClass::ClientMisconfigured, Reason::RequestRefused, detail)
}
