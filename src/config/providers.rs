//! Checks `[providers]` and the catalogue's entries.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use claviger_actors::client_auth;
use claviger_actors::protocol::scope::ScopeSet;
use claviger_actors::proxy::templated::{HostPattern, UpstreamTemplate};
use claviger_actors::registration::outbound::Outbound;
use claviger_actors::registration::{Endpoints, Pkce, ProviderDetails};

use super::error::{Faults, suggestion};
use super::file::{ProbeFile, ProviderFile};
use super::params::{self, Params};
use super::quirks;
use super::reader::Located;
use super::urls;
use super::variables::{self, Values};

const CONFIDENCES: [&str; 3] = ["high", "medium", "low"];

/// A provider as checked.
#[derive(Debug)]
pub(super) struct CheckedProvider {
    /// Where it is, and where it departs from the RFCs.
    pub(super) details: ProviderDetails,
    /// What its profiles get unless they say otherwise.
    pub(super) defaults: Defaults,
}

/// What profiles of a provider get unless they say otherwise.
#[derive(Clone, Debug, Default)]
pub(super) struct Defaults {
    /// Grants that the provider supports; `None` if it does not say.
    pub(super) grants: Option<Vec<String>>,
    /// How clients authenticate.
    pub(super) client_auth: Option<String>,
    /// PKCE method.
    pub(super) pkce: Option<Pkce>,
    /// Scopes asked for.
    pub(super) scopes: Option<ScopeSet>,
    /// Further parameters of the authorization request.
    pub(super) authorize_params: Params,
    /// Further parameters of token requests that are no refresh.
    pub(super) token_params: Params,
    /// Further parameters of refresh requests.
    pub(super) refresh_params: Params,
    /// Lifetime of a token whose answer has no `expires_in`.
    pub(super) default_token_lifetime: Option<Duration>,
    /// Lifetime of a refresh token.
    pub(super) default_refresh_token_lifetime: Option<Duration>,
}

/// Checks a provider that no profile fills in, with samples for its variables.
pub(super) fn provider(name: &str, file: &ProviderFile, faults: &mut Faults) -> Option<CheckedProvider> {
    variables::declared(file, faults);
    filled(name, file, &Values::samples(file), faults)
}

/// Checks a provider with `values` for its variables.
pub(super) fn filled(
    name: &str,
    file: &ProviderFile,
    values: &Values,
    faults: &mut Faults,
) -> Option<CheckedProvider> {
    // RFC 8414 section 2: no query. It is compared byte for byte, so the text itself is kept.
    let issuer = file.issuer.as_ref().map(|text| {
        let text = values.fill(text, false, faults)?;
        urls::secure_base(&text, faults)?;
        Some(text.value)
    });
    let endpoints = endpoints(file, values, faults);
    let quirks = quirks::quirks(file, values, faults);
    let defaults = defaults(file, values, faults);
    descriptive(file, values, faults);
    if file.issuer.is_none() && file.token_endpoint.is_none() {
        if !faults.noted(&file.at.join("issuer")) && !faults.noted(&file.at.join("token_endpoint")) {
            faults.push(&file.at, "needs an `issuer` to discover its endpoints from, or a `token_endpoint`");
        }
        return None;
    }
    let issuer = match issuer {
        Some(issuer) => Some(issuer?),
        None => None,
    };
    Some(CheckedProvider {
        details: ProviderDetails {
            name: name.to_owned(),
            issuer,
            grants_given: file.grants.is_some(),
            endpoints: endpoints?,
            outbound: Arc::new(Outbound::default()),
            quirks: Arc::new(quirks?),
        },
        defaults: defaults?,
    })
}

/// Reads all of them, so that every fault is told, and gives them only if all are good.
fn endpoints(file: &ProviderFile, values: &Values, faults: &mut Faults) -> Option<Endpoints> {
    let mut endpoint = |text: &Option<Located<String>>| match text {
        Some(text) => values.fill(text, false, faults).and_then(|text| urls::secure(&text, faults)).map(Some),
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

fn defaults(file: &ProviderFile, values: &Values, faults: &mut Faults) -> Option<Defaults> {
    let grants = file.grants.as_ref().map(|list| grants(list, faults));
    let scopes = file.scopes.as_ref().map(|list| scopes(list, values, faults));
    let client_auth = file.client_auth.as_ref().map(|name| client_auth_name(name, faults));
    let pkce = file.pkce.as_ref().map(|text| params::pkce(text, faults));
    let authorize_params = params::of("authorize_params", file.authorize_params.as_ref(), true, faults);
    let token_params = params::of("token_params", file.token_params.as_ref(), false, faults);
    let refresh_params = params::of("refresh_params", file.refresh_params.as_ref(), false, faults);
    let refresh_lifetime =
        file.default_refresh_token_lifetime.as_ref().map(|given| params::lifetime(given, faults));
    let lifetime = file.default_token_lifetime.as_ref().map(|given| params::lifetime(given, faults));
    Some(Defaults {
        grants: all(grants)?,
        client_auth: all(client_auth)?,
        pkce: all(pkce)?,
        scopes: all(scopes)?,
        authorize_params,
        token_params,
        refresh_params,
        default_token_lifetime: all(lifetime)?,
        default_refresh_token_lifetime: all(refresh_lifetime)?,
    })
}

/// Nothing given, or something good; `None` for something at fault.
#[expect(clippy::option_option, reason = "given or not, and then good or not")]
fn all<T>(given: Option<Option<T>>) -> Option<Option<T>> {
    match given {
        None => Some(None),
        Some(good) => good.map(Some),
    }
}

fn scopes(list: &Located<Vec<String>>, values: &Values, faults: &mut Faults) -> Option<ScopeSet> {
    let fill = |scope: &String| {
        values
            .fill(&Located { value: scope.clone(), at: list.at.clone() }, false, faults)
            .map(|text| text.value)
    };
    let filled = list.value.iter().map(fill).collect::<Option<Vec<_>>>()?;
    faults.note(&list.at, ScopeSet::from_tokens(filled))
}

fn grants(list: &Located<Vec<String>>, faults: &mut Faults) -> Option<Vec<String>> {
    if list.value.is_empty() {
        faults.push(&list.at, "allows nothing; leave it out to allow every grant");
        return None;
    }
    let mut good = true;
    for name in list.value.iter().filter(|name| !params::grants().any(|known| known == name.as_str())) {
        let hint = suggestion(name, params::grants());
        faults.push(&list.at, format!("there is no grant `{name}`{hint}"));
        good = false;
    }
    good.then(|| list.value.clone())
}

fn client_auth_name(name: &Located<String>, faults: &mut Faults) -> Option<String> {
    if client_auth::find(&name.value).is_some() {
        return Some(name.value.clone());
    }
    let hint = suggestion(&name.value, params::client_auths());
    faults.push(&name.at, format!("there is no client authentication `{}`{hint}", name.value));
    None
}

/// What is for people, and yet must be right for what is pasted from it.
fn descriptive(file: &ProviderFile, values: &Values, faults: &mut Faults) {
    if let Some(text) = &file.documentation {
        urls::secure_page(text, faults);
    }
    if let Some(text) = file.console.as_ref().and_then(|text| values.fill(text, false, faults)) {
        urls::secure_page(&text, faults);
    }
    if let Some(confidence) = &file.confidence
        && !CONFIDENCES.contains(&confidence.value.as_str())
    {
        faults.push(&confidence.at, "must be \"high\", \"medium\" or \"low\"");
    }
    let scopes = file.scope_descriptions.iter().flatten();
    for (scope, text) in scopes {
        faults.note(&text.at, ScopeSet::from_tokens([scope.as_str()]));
    }
    if let Some(text) = &file.api
        && let Some(text) = values.fill(text, true, faults)
    {
        if UpstreamTemplate::is_one(&text.value) {
            faults.note(&text.at, UpstreamTemplate::parse(&text.value, Vec::new()));
        } else {
            urls::secure_base(&text, faults);
        }
    }
    if let Some(probe) = &file.probe {
        check_probe(probe, values, faults);
    }
    if let Some(hosts) = &file.api_hosts {
        api_hosts(hosts, values, faults);
    }
}

fn check_probe(probe: &ProbeFile, values: &Values, faults: &mut Faults) {
    match &probe.method {
        Some(method) if !["GET", "POST", "HEAD"].contains(&method.value.as_str()) => {
            faults.push(&method.at, "must be \"GET\", \"POST\" or \"HEAD\"");
        }
        _ => {}
    }
    let Some(url) = &probe.url else {
        faults.missing(&probe.at.join("url"), "it is the request's whole URL");
        return;
    };
    if let Some(filled) = values.fill(url, true, faults) {
        urls::secure(&Located { value: without_members(&filled.value), at: filled.at }, faults);
    }
}

/// A URL with samples for the members of the token answer.
fn without_members(text: &str) -> String {
    let mut sample = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{token.") {
        let (_, after) = after.split_once('}').unwrap_or((after, ""));
        sample.push_str(before);
        sample.push_str(if sample.is_empty() { "https://host.example" } else { "x" });
        rest = after;
    }
    sample + rest
}

/// The hosts that a provider's API may be at.
pub(super) fn api_hosts(
    hosts: &Located<Vec<String>>,
    values: &Values,
    faults: &mut Faults,
) -> Option<Vec<HostPattern>> {
    if hosts.value.is_empty() {
        faults.push(&hosts.at, "must name a host, such as \"*.example.com\"");
        return None;
    }
    let mut patterns = Vec::new();
    for host in &hosts.value {
        let host = values.fill(&Located { value: host.clone(), at: hosts.at.clone() }, false, faults)?;
        patterns.push(faults.note(&host.at, HostPattern::parse(&host.value))?);
    }
    Some(patterns)
}

/// A provider's own keys and values, by name.
pub(super) type ProviderFiles = BTreeMap<String, ProviderFile>;
