//! What a profile and its provider can both say.

use std::collections::BTreeMap;
use std::time::Duration;

use claviger_actors::client_auth::CLIENT_AUTH_METHODS;
use claviger_actors::grants::GRANTS;
use claviger_actors::protocol::template::{Placeholder, Template};
use claviger_actors::registration::Pkce;

use super::error::Faults;
use super::reader::{Located, Parameter};

const LONGEST_LIFETIME: Duration = Duration::from_secs(366 * 24 * 3600);
/// Parameters that the gateway writes itself (RFC 6749 section 4.1.1, RFC 7636, OpenID Connect Core).
const OWN_AUTHORIZE_PARAMS: [&str; 10] = [
    "response_type",
    "client_id",
    "redirect_uri",
    "scope",
    "state",
    "nonce",
    "code_challenge",
    "code_challenge_method",
    "request",
    "request_uri",
];
/// Parameters that the gateway writes itself (RFC 6749 sections 2.3.1, 4.1.3, 4.4.2 and 6).
const OWN_TOKEN_PARAMS: [&str; 8] = [
    "grant_type",
    "client_id",
    "client_secret",
    "code",
    "redirect_uri",
    "code_verifier",
    "refresh_token",
    "scope",
];

/// Parameters of a request, by name.
pub(super) type Params = BTreeMap<String, Template>;

/// Checks `table`, which is `authorize_params` or one of token requests. With a `person` in the grant,
/// no call is known but its subject.
pub(super) fn of(
    table: &str,
    given: Option<&BTreeMap<String, Located<Parameter>>>,
    person: bool,
    faults: &mut Faults,
) -> Params {
    let own: &[&str] = if table == "authorize_params" { &OWN_AUTHORIZE_PARAMS } else { &OWN_TOKEN_PARAMS };
    let mut params = Params::new();
    for (name, value) in given.into_iter().flatten() {
        if own.contains(&name.as_str()) {
            faults.push(&value.at, format!("is written by the gateway itself and cannot stand in {table}"));
            continue;
        }
        let Some(template) = faults.note(&value.at, Template::parse(&value.value.0)) else { continue };
        if let Some(problem) = beyond_subject(template.placeholders()).filter(|_| person) {
            faults.push(&value.at, problem);
            continue;
        }
        params.insert(name.clone(), template);
    }
    params
}

/// `layers` over one another, the first on top. A parameter without a value is not sent (RFC 6749
/// section 3.1), and keeps those below it from being sent.
pub(super) fn merged(layers: &[&Params]) -> Vec<(String, Template)> {
    let mut all = Params::new();
    for layer in layers.iter().rev() {
        all.extend(layer.iter().map(|(name, value)| (name.clone(), value.clone())));
    }
    all.into_iter().filter(|(_, value)| !value.is_empty()).collect()
}

/// Checks `pkce`.
pub(super) fn pkce(text: &Located<String>, faults: &mut Faults) -> Option<Pkce> {
    match text.value.as_str() {
        "S256" => Some(Pkce::S256),
        "none" => Some(Pkce::None),
        _ => {
            faults.push(&text.at, "must be \"S256\", or \"none\" for a provider that breaks on it");
            None
        }
    }
}

/// Checks `default_token_lifetime` and `default_refresh_token_lifetime`.
pub(super) fn lifetime(given: &Located<Duration>, faults: &mut Faults) -> Option<Duration> {
    if given.value.is_zero() || given.value > LONGEST_LIFETIME {
        faults.push(&given.at, "must be longer than nothing, and at most a year");
        return None;
    }
    Some(given.value)
}

/// The names of all grants.
pub(super) fn grants() -> impl Iterator<Item = &'static str> {
    GRANTS.iter().map(|row| row.name)
}

/// The names of all client authentications.
pub(super) fn client_auths() -> impl Iterator<Item = &'static str> {
    CLIENT_AUTH_METHODS.iter().map(|row| row.name)
}

/// What `placeholders` take of a call beyond its subject, in words: a person's browser comes without one.
pub(super) fn beyond_subject<'p>(placeholders: impl IntoIterator<Item = &'p Placeholder>) -> Option<String> {
    let beyond = placeholders.into_iter().find(|placeholder| **placeholder != Placeholder::Subject)?;
    Some(format!(
        "takes {beyond} from a call, and a person's browser comes without one; only {{subject}} is known then"
    ))
}
