//! `security_profile = "fapi2"`: what the FAPI 2.0 Security Profile asks of a client (section 5.3.3).
//! What is on by it need not be written; what contradicts it is a fault.

use std::sync::Arc;

use claviger_actors::profile::Profile;
use claviger_actors::registration::ProviderDetails;
use claviger_actors::registration::authorization::FAPI_ALGORITHMS;
use claviger_actors::registration::quirks::AssertionAudience;

use super::error::{Faults, Place};
use super::file::ProfileFile;
use super::reader::Located;

const NAME: &str = "fapi2";
const AUDIENCE: &str = "client_assertion_audience";
const CLIENT_AUTH: [&str; 3] = ["private_key_jwt", "tls_client_auth", "self_signed_tls_client_auth"];

/// Whether the profile asks for it.
pub(super) fn is_wanted(file: &ProfileFile) -> bool {
    file.security_profile.as_ref().is_some_and(|name| name.value == NAME)
}

/// Whether access tokens are bound to the client's certificate (RFC 8705 section 3).
pub(super) fn is_certificate_bound(file: &ProfileFile) -> bool {
    file.certificate_bound_tokens.as_ref().is_some_and(|bound| bound.value)
}

/// The audience of client assertions is the issuer, whatever the provider takes of other clients (section
/// 5.3.3.1).
pub(super) fn settle(provider: &mut ProviderDetails) {
    Arc::make_mut(&mut provider.quirks).client_assertion_audience = AssertionAudience::Issuer;
}

/// Notes what is wrong with the name, and what the file contradicts it with. This needs no checked
/// profile, so that it is told beside all other faults.
pub(super) fn check_file(file: &ProfileFile, faults: &mut Faults) {
    let Some(name) = &file.security_profile else { return };
    if name.value != NAME {
        faults.push(&name.at, format!("must be \"{NAME}\", or left out"));
        return;
    }
    let must_be_on = |flag: &Option<Located<bool>>, why: &str, faults: &mut Faults| {
        if let Some(flag) = flag.as_ref().filter(|flag| !flag.value) {
            faults.push(&flag.at, format!("contradicts security_profile = \"{NAME}\", {why}; take it out"));
        }
    };
    must_be_on(&file.par, "which pushes every authorization request", faults);
    must_be_on(&file.require_iss, "which wants `iss` in every response", faults);
    if !is_certificate_bound(file) {
        let why =
            "which binds tokens to a key, unless `certificate_bound_tokens` binds them to a certificate";
        must_be_on(&file.dpop, why, faults);
    }
    if let Some(pkce) = file.pkce.as_ref().filter(|pkce| pkce.value != "S256") {
        faults.push(&pkce.at, format!("contradicts security_profile = \"{NAME}\", which wants \"S256\""));
    }
    if let Some(audience) = file.settings.get(AUDIENCE)
        && !audience.value.is_text("issuer")
    {
        let problem =
            format!("contradicts security_profile = \"{NAME}\", which wants \"issuer\"; take it out");
        faults.push(&audience.at, problem);
    }
    let method = file.client_auth.as_ref();
    if method.is_none_or(|method| !CLIENT_AUTH.contains(&method.value.as_str())) {
        let place = method.map_or_else(|| file.at.join("client_auth"), |method| method.at.clone());
        let remedy = CLIENT_AUTH.join(", ");
        faults.push(&place, format!("must be one of {remedy} for security_profile = \"{NAME}\""));
    }
}

/// Notes which algorithms of a profile that is otherwise good are too weak. (Addresses are https in any
/// configuration, unless they never leave the machine.)
pub(super) fn check(file: &ProfileFile, profile: &Profile, faults: &mut Faults) {
    if !is_wanted(file) {
        return;
    }
    let registration = &profile.registration;
    let signs = profile.client.auth().is_some_and(|auth| auth.signing_keys().is_some());
    if let (true, None, Some(name)) = (signs, &registration.provider.issuer, &file.security_profile) {
        let provider = &registration.provider.name;
        let problem = format!(
            "makes the issuer the audience of client assertions, and provider `{provider}` has no `issuer`"
        );
        faults.unless_noted(&name.at, problem);
    }
    let allowed = FAPI_ALGORITHMS.join(", ");
    let mut weak = |place: &Place, name: &str| {
        let problem = format!("`{name}` is not allowed by security_profile = \"{NAME}\"; use {allowed}");
        faults.unless_noted(place, problem);
    };
    let is_weak = |name: &str| !FAPI_ALGORITHMS.contains(&name);
    if let Some(name) = registration.id_token_signing_alg.as_deref().filter(|name| is_weak(name)) {
        weak(&file.at.join("id_token_signing_alg"), name);
    }
    if let Some(algorithm) = registration.dpop.filter(|algorithm| is_weak(algorithm.name())) {
        weak(&file.at.join("dpop_signing_alg"), algorithm.name());
    }
    let of_client = profile.client.auth().and_then(|auth| auth.signing_keys());
    for keys in of_client.into_iter().chain(profile.grant.signing_keys()) {
        let algorithm = keys.current().algorithm();
        if is_weak(algorithm.name()) {
            weak(&file.at.join("signing_alg"), algorithm.name());
        }
    }
    if let Some(keys) = &registration.authorization.request_object
        && is_weak(keys.current().algorithm().name())
    {
        let own = file.settings.contains_key("request_object_signing_key");
        let key = if own { "request_object_signing_alg" } else { "signing_alg" };
        weak(&file.at.join(key), keys.current().algorithm().name());
    }
}
