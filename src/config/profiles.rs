//! Checks `[profiles]`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use claviger_actors::client_auth::{self, CLIENT_AUTH_METHODS, ClientAuthRow, ClientAuthentication};
use claviger_actors::connection::OriginSet;
use claviger_actors::grants::{self, GRANTS, GrantRow};
use claviger_actors::profile::Profile;
use claviger_actors::protocol::dpop;
use claviger_actors::protocol::identifiers::ProfileId;
use claviger_actors::protocol::scope::ScopeSet;
use claviger_actors::protocol::signing_key::SignatureAlgorithm;
use claviger_actors::proxy::route::RoutingTable;
use claviger_actors::registration::policy::{RefreshPolicy, RetryPolicy};
use claviger_actors::registration::{ClientRegistration, Pkce, ProviderDetails};
use url::Url;

use super::authorization;
use super::catalogue::Providers;
use super::error::{Faults, Place, suggestion};
use super::extension::Extension;
use super::fapi;
use super::file::ProfileFile;
use super::reader::{Located, Parameter};
use super::secret_source::Secrets;
use super::tls::Tls;
use super::{outbound, providers};

const DEFAULT_CLIENT_AUTH: &str = "client_secret_basic";
const LONGEST_LIFETIME: Duration = Duration::from_secs(366 * 24 * 3600);
/// Signature algorithms with a public key (RFC 7518 section 3.1, RFC 8037): `none` never.
const SIGNATURES: [&str; 9] =
    ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"];
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

/// What every profile is checked against.
pub(super) struct Profiles<'a> {
    /// Providers by name.
    pub(super) providers: Providers<'a>,
    /// All routes: they bind a profile's tokens to their origins.
    pub(super) routing: &'a RoutingTable,
    /// The redirection endpoint, unless `public_url` is at fault.
    pub(super) redirect_uri: Option<&'a Url>,
    /// Where secrets come from.
    pub(super) secrets: &'a Secrets<'a>,
    /// Where certificates come from.
    pub(super) tls: &'a Tls<'a>,
}

impl Profiles<'_> {
    /// Checks every profile, in order of their names.
    pub(super) fn check(&self, files: &BTreeMap<String, ProfileFile>, faults: &mut Faults) -> Vec<Profile> {
        files.iter().filter_map(|(name, file)| self.profile(name, file, faults)).collect()
    }

    fn profile(&self, name: &str, file: &ProfileFile, faults: &mut Faults) -> Option<Profile> {
        let id = faults.note(&file.at, ProfileId::new(name));
        let scopes = match &file.scopes {
            Some(scopes) => faults.note(&scopes.at, ScopeSet::from_tokens(scopes.value.iter().cloned())),
            None => Some(ScopeSet::default()),
        };
        let grant_row = grant(file, faults);
        let auth_row = client_auth(file, faults);
        let mut extension = Extension::new(&file.at, &file.settings, self.secrets);
        let grant = extension.build(grant_row.map(|row| row.build));
        let client_auth = extension.build(auth_row.map(|row| row.build));
        let documents = extension.build(Some(authorization::documents));
        extension.finish(ProfileFile::KEYS, faults);
        // Who vouches with an assertion need not be a registered client (RFC 7521 section 4.1).
        let nameless = auth_row.is_some_and(|row| row.name == "none")
            && grant.as_ref().is_none_or(|grant| !grant.needs_client_id());
        let client_id = client_id(file, nameless, faults);

        let device = grant.as_ref().is_some_and(|grant| grant.uses_device());
        let person = grant.as_ref().is_some_and(|grant| grant.needs_person());
        let identity = person && scopes.as_ref().is_some_and(|scopes| scopes.contains("openid"));
        check_certificate(file, client_auth.as_ref().zip(auth_row), faults);
        let needs = Needs { person, device, identity };
        let (provider, retry) = self
            .provider(file, faults)
            .filter(|(provider, _)| enough(provider, needs, provider_place(file), faults))
            .unzip();
        let authorize_params =
            params("authorize_params", file.authorize_params.as_ref(), &OWN_AUTHORIZE_PARAMS, faults);
        let token_params = params("token_params", file.token_params.as_ref(), &OWN_TOKEN_PARAMS, faults);
        fapi::check_file(file, faults);
        let authorization = authorization::options(file, documents.unwrap_or_default(), faults);
        let pkce = pkce(file.pkce.as_ref(), faults);
        let id_token_signing_alg = signature(file.id_token_signing_alg.as_ref(), faults);
        let dpop = dpop(file, faults);
        let default_token_lifetime = lifetime(file.default_token_lifetime.as_ref(), faults);

        let profile = id?;
        let origins = OriginSet::new(self.routing.origins_of(&profile));
        let profile = Profile {
            registration: ClientRegistration {
                profile,
                provider: provider?,
                client_id: client_id?,
                scopes: scopes?,
                redirect_uri: self.redirect_uri?.clone(),
                authorization: authorization?,
                authorize_params,
                token_params,
                pkce: pkce?,
                dpop: dpop?,
                id_token_signing_alg,
                default_token_lifetime,
                refresh: RefreshPolicy::default(),
                retry: retry?,
            },
            grant: grant?,
            grant_name: grant_row?.name,
            client_auth: client_auth?,
            client_auth_name: auth_row?.name,
            origins,
        };
        fapi::check(file, &profile, faults);
        check_iss(file, &profile, faults);
        Some(profile)
    }

    fn provider(&self, file: &ProfileFile, faults: &mut Faults) -> Option<(ProviderDetails, RetryPolicy)> {
        let Some(name) = &file.provider else {
            faults.missing(&file.at.join("provider"), "it names a provider");
            return None;
        };
        if !self.providers.names().any(|known| known == name.value) {
            let hint = suggestion(&name.value, self.providers.names());
            faults.push(&name.at, format!("there is no provider `{}`{hint}", name.value));
            return None;
        }
        // Its own faults are noted once, where the providers are checked.
        let mut noted = Faults::default();
        self.providers.with(&name.value, &mut noted, |provider, noted| {
            let outbound = outbound::of_profile(provider, file, self.secrets, self.tls, faults);
            let details = providers::provider(&name.value, provider, noted)?;
            Some((ProviderDetails { outbound: outbound?, ..details }, outbound::retry(provider)))
        })
    }
}

/// Whether there is a client certificate where one is needed (RFC 8705 sections 2 and 3).
fn check_certificate(
    file: &ProfileFile,
    auth: Option<(&Arc<dyn ClientAuthentication>, &ClientAuthRow)>,
    faults: &mut Faults,
) {
    if file.tls.is_some() {
        return;
    }
    let what = "`tls = { cert = \"client.pem\", key = \"client.key\" }`";
    if let Some((_, row)) = auth.filter(|(method, _)| method.needs_certificate()) {
        let needed = format!("client_auth = \"{}\" needs {what}", row.name);
        faults.missing(&file.at.join("tls"), needed);
    } else if let Some(bound) = file.certificate_bound_tokens.as_ref().filter(|bound| bound.value) {
        faults.push(&bound.at, format!("needs the certificate that they are bound to: {what}"));
    }
}

/// `iss` is compared with the provider's issuer (RFC 9207 section 2.4), so that must be known.
fn check_iss(file: &ProfileFile, profile: &Profile, faults: &mut Faults) {
    let registration = &profile.registration;
    let comes_back = profile.grant.needs_person() && !profile.grant.uses_device();
    if registration.authorization.require_iss && comes_back && registration.provider.issuer.is_none() {
        let asked = file.require_iss.as_ref().map(|required| &required.at);
        let asked = asked.or(file.security_profile.as_ref().map(|name| &name.at)).unwrap_or(&file.at);
        let name = &registration.provider.name;
        faults.push(
            asked,
            format!("wants `iss` in responses, and provider `{name}` has no `issuer` to compare with"),
        );
    }
}

/// What a profile needs of its provider.
struct Needs {
    /// A person consents.
    person: bool,
    /// On another device.
    device: bool,
    /// ID tokens come.
    identity: bool,
}

/// Whether a provider has what a profile needs of it.
fn enough(provider: &ProviderDetails, needs: Needs, place: &Place, faults: &mut Faults) -> bool {
    let Needs { person, device, identity } = needs;
    let name = &provider.name;
    if provider.issuer.is_some() {
        return true;
    }
    let (endpoint, key) = match device {
        true => (&provider.endpoints.device_authorization_endpoint, "device_authorization_endpoint"),
        false => (&provider.endpoints.authorization_endpoint, "authorization_endpoint"),
    };
    if person && endpoint.is_none() {
        faults.push(
            place,
            format!("provider `{name}` has neither `{key}` nor `issuer`, and the grant needs one"),
        );
        return false;
    }
    if identity {
        faults.push(place, format!("provider `{name}` has no `issuer`, and scope `openid` brings ID tokens that are checked against it"));
        return false;
    }
    true
}

fn provider_place(file: &ProfileFile) -> &Place {
    file.provider.as_ref().map_or(&file.at, |name| &name.at)
}

fn client_id(file: &ProfileFile, nameless: bool, faults: &mut Faults) -> Option<String> {
    match &file.client_id {
        // RFC 6749 appendix A.1.
        Some(id) if id.value.is_empty() || !id.value.bytes().all(|b| (0x20..=0x7e).contains(&b)) => {
            faults.push(&id.at, "must be printable ASCII, and not empty");
            None
        }
        Some(id) => Some(id.value.clone()),
        None if nameless => Some(String::new()),
        None => {
            faults.missing(&file.at.join("client_id"), "the provider gave it when the client was registered");
            None
        }
    }
}

fn grant(file: &ProfileFile, faults: &mut Faults) -> Option<&'static GrantRow> {
    let names = || GRANTS.iter().map(|row| row.name);
    let Some(name) = &file.grant else {
        let known: Vec<&str> = names().collect();
        faults.missing(&file.at.join("grant"), format!("known: {}", known.join(", ")));
        return None;
    };
    let row = grants::find(&name.value);
    if row.is_none() {
        let hint = suggestion(&name.value, names());
        faults.push(&name.at, format!("there is no grant `{}`{hint}", name.value));
    }
    row
}

fn client_auth(file: &ProfileFile, faults: &mut Faults) -> Option<&'static ClientAuthRow> {
    let name = file.client_auth.as_ref().map_or(DEFAULT_CLIENT_AUTH, |name| name.value.as_str());
    let row = client_auth::find(name);
    if let (None, Some(given)) = (row, &file.client_auth) {
        let hint = suggestion(name, CLIENT_AUTH_METHODS.iter().map(|row| row.name));
        faults.push(&given.at, format!("there is no client authentication `{name}`{hint}"));
    }
    row
}

fn params(
    table: &str,
    given: Option<&BTreeMap<String, Located<Parameter>>>,
    own: &[&str],
    faults: &mut Faults,
) -> Vec<(String, String)> {
    let mut params = Vec::new();
    for (name, value) in given.into_iter().flatten() {
        if own.contains(&name.as_str()) {
            faults.push(&value.at, format!("is written by the gateway itself and cannot stand in {table}"));
        } else {
            params.push((name.clone(), value.value.0.clone()));
        }
    }
    params
}

fn pkce(text: Option<&Located<String>>, faults: &mut Faults) -> Option<Pkce> {
    match text {
        None => Some(Pkce::default()),
        Some(text) => match text.value.as_str() {
            "S256" => Some(Pkce::S256),
            "none" => Some(Pkce::None),
            _ => {
                faults.push(&text.at, "must be \"S256\", or \"none\" for a provider that breaks on it");
                None
            }
        },
    }
}

fn signature(text: Option<&Located<String>>, faults: &mut Faults) -> Option<String> {
    let text = text?;
    if !SIGNATURES.contains(&text.value.as_str()) {
        let hint = suggestion(&text.value, SIGNATURES);
        faults.push(&text.at, format!("`{}` is no signature algorithm with a public key{hint}", text.value));
        return None;
    }
    Some(text.value.clone())
}

/// What proofs of possession are signed with; `Some(None)` if there are none (RFC 9449).
fn dpop(file: &ProfileFile, faults: &mut Faults) -> Option<Option<SignatureAlgorithm>> {
    let algorithm = match &file.dpop_signing_alg {
        None => dpop::ALGORITHMS[0],
        Some(name) => {
            let found = dpop::ALGORITHMS.into_iter().find(|algorithm| algorithm.name() == name.value);
            if found.is_none() {
                let hint = suggestion(&name.value, dpop::ALGORITHMS.map(SignatureAlgorithm::name));
                faults.push(&name.at, format!("`{}` signs no DPoP proofs here{hint}", name.value));
            }
            found?
        }
    };
    let by_profile = fapi::is_wanted(file) && !fapi::is_certificate_bound(file);
    let wanted = file.dpop.as_ref().map_or(by_profile, |wanted| wanted.value);
    if let (false, Some(name)) = (wanted, &file.dpop_signing_alg) {
        faults.push(&name.at, "is of no use without `dpop = true`");
    }
    Some(wanted.then_some(algorithm))
}

fn lifetime(given: Option<&Located<Duration>>, faults: &mut Faults) -> Option<Duration> {
    let given = given?;
    if given.value.is_zero() || given.value > LONGEST_LIFETIME {
        faults.push(&given.at, "must be longer than nothing, and at most a year");
        return None;
    }
    Some(given.value)
}
