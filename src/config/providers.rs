//! Checks `[providers]` and the catalogue's entries.

use std::sync::Arc;

use claviger_actors::registration::outbound::Outbound;
use claviger_actors::registration::quirks::Quirks;
use claviger_actors::registration::{Endpoints, ProviderDetails};

use super::error::Faults;
use super::file::ProviderFile;
use super::reader::Located;
use super::urls;

/// Checks a provider, whether or not a profile uses it.
pub(super) fn provider(name: &str, file: &ProviderFile, faults: &mut Faults) -> Option<ProviderDetails> {
    // RFC 8414 section 2: no query. It is compared byte for byte, so the text itself is kept.
    let issuer =
        file.issuer.as_ref().map(|text| Some((urls::secure_base(text, faults)?, text.value.clone())));
    let endpoints = endpoints(file, faults);
    if file.issuer.is_none() && file.token_endpoint.is_none() {
        if !faults.noted(&file.at.join("issuer")) && !faults.noted(&file.at.join("token_endpoint")) {
            faults.push(&file.at, "needs an `issuer` to discover its endpoints from, or a `token_endpoint`");
        }
        return None;
    }
    let issuer = match issuer {
        Some(issuer) => Some(issuer?.1),
        None => None,
    };
    Some(ProviderDetails {
        name: name.to_owned(),
        issuer,
        endpoints: endpoints?,
        outbound: Arc::new(Outbound::default()),
        quirks: Arc::new(Quirks::default()),
    })
}

/// Reads all of them, so that every fault is told, and gives them only if all are good.
fn endpoints(file: &ProviderFile, faults: &mut Faults) -> Option<Endpoints> {
    let mut endpoint = |text: &Option<Located<String>>| match text {
        Some(text) => urls::secure(text, faults).map(Some),
        None => Some(None),
    };
    let authorization_endpoint = endpoint(&file.authorization_endpoint);
    let token_endpoint = endpoint(&file.token_endpoint);
    let refresh_endpoint = endpoint(&file.refresh_endpoint);
    let revocation_endpoint = endpoint(&file.revocation_endpoint);
    let introspection_endpoint = endpoint(&file.introspection_endpoint);
    let pushed_authorization_request_endpoint = endpoint(&file.pushed_authorization_request_endpoint);
    let device_authorization_endpoint = endpoint(&file.device_authorization_endpoint);
    let registration_endpoint = endpoint(&file.registration_endpoint);
    let userinfo_endpoint = endpoint(&file.userinfo_endpoint);
    let jwks_uri = endpoint(&file.jwks_uri);
    Some(Endpoints {
        authorization_endpoint: authorization_endpoint?,
        token_endpoint: token_endpoint?,
        refresh_endpoint: refresh_endpoint?,
        revocation_endpoint: revocation_endpoint?,
        introspection_endpoint: introspection_endpoint?,
        pushed_authorization_request_endpoint: pushed_authorization_request_endpoint?,
        device_authorization_endpoint: device_authorization_endpoint?,
        registration_endpoint: registration_endpoint?,
        userinfo_endpoint: userinfo_endpoint?,
        jwks_uri: jwks_uri?,
    })
}
