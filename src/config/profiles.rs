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
use claviger_actors::registration::credential::CredentialDigest;
use claviger_actors::registration::policy::{RefreshPolicy, RetryPolicy};
use claviger_actors::registration::quirks::Presentation;
use claviger_actors::registration::settings::Settings;
use claviger_actors::registration::{ClientRegistration, ProviderDetails};
use url::Url;

use super::authorization;
use super::catalogue::Providers;
use super::error::{Faults, Place, suggestion};
use super::extension::Extension;
use super::fapi;
use super::file::ProfileFile;
use super::params;
use super::providers::{self, CheckedProvider, Defaults};
use super::reader::Located;
use super::secret_source::Secrets;
use super::tls::Tls;
use super::variables::Values;
use super::{outbound, registration};

const DEFAULT_CLIENT_AUTH: &str = "client_secret_basic";

/// What every profile is checked against.
pub(super) struct Profiles<'a> {
    /// Providers by name.
    pub(super) providers: Providers<'a>,
    /// All routes: they bind a profile's tokens to their origins.
    pub(super) routing: &'a RoutingTable,
    /// The redirection endpoint, unless `public_url` is at fault.
    pub(super) redirect_uri: Option<&'a Url>,
    /// How long a managed signing key signs.
    pub(super) signing_key_lifetime: Duration,
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
        let (provider, retry) = self.provider(file, faults).unzip();
        let no_defaults = Defaults::default();
        let defaults = provider.as_ref().map_or(&no_defaults, |provider| &provider.defaults);
        let scopes = match &file.scopes {
            Some(scopes) => faults.note(&scopes.at, ScopeSet::from_tokens(scopes.value.iter().cloned())),
            None => Some(defaults.scopes.clone().unwrap_or_default()),
        };
        let grant_row = grant(file, defaults, faults);
        let auth_row = client_auth(file, defaults, faults);
        let mut extension = Extension::new(&file.at, &file.settings, self.secrets);
        let credential = credential(file, &extension);
        let given = extension.settings().clone();
        let grant = extension.build(grant_row.map(|row| row.build));
        // Who vouches with an assertion need not be a registered client (RFC 7521 section 4.1).
        let nameless = auth_row.is_some_and(|row| row.name == "none")
            && grant.as_ref().is_none_or(|grant| !grant.needs_client_id());
        let client = registration::client(file, auth_row, nameless, &mut extension, self.secrets, faults);
        let documents = extension.build(Some(authorization::documents));
        extension.finish(ProfileFile::KEYS, |key| users_of(key, &given), faults);

        let device = grant.as_ref().is_some_and(|grant| grant.uses_device());
        let person = grant.as_ref().is_some_and(|grant| grant.needs_person());
        let identity = person && scopes.as_ref().is_some_and(|scopes| scopes.contains("openid"));
        let own = client.as_ref().and_then(|client| client.auth());
        check_certificate(file, own.zip(auth_row), faults);
        let needs = Needs { person, device, identity };
        if let Some(provider) = &provider {
            check_par(file, &provider.details, &needs, faults);
        }
        let fits = provider.as_ref().is_some_and(|provider| {
            enough(&provider.details, needs, provider_place(file), faults)
                && registration::can_register(&provider.details, file, faults)
        });
        // A person's browser comes back alone: of the call that sent them only its subject is known.
        let authorize_params = params::of("authorize_params", file.authorize_params.as_ref(), true, faults);
        let token_params = params::of("token_params", file.token_params.as_ref(), person, faults);
        let refresh_params = params::of("refresh_params", file.refresh_params.as_ref(), person, faults);
        fapi::check_file(file, faults);
        let authorization = authorization::options(file, documents.unwrap_or_default(), person, faults);
        let pkce = match &file.pkce {
            Some(text) => params::pkce(text, faults),
            None => Some(defaults.pkce.unwrap_or_default()),
        };
        let id_token_signing_alg = signature(file.id_token_signing_alg.as_ref(), faults);
        let dpop = dpop(file, provider.as_ref(), faults);
        let default_refresh_token_lifetime = match &file.default_refresh_token_lifetime {
            Some(given) => params::lifetime(given, faults),
            None => defaults.default_refresh_token_lifetime,
        };
        let default_token_lifetime = match &file.default_token_lifetime {
            Some(given) => params::lifetime(given, faults),
            None => defaults.default_token_lifetime,
        };

        if person {
            check_defaults(defaults, file, faults);
        }

        let profile = id?;
        let origins = OriginSet::new(self.routing.origins_of(&profile));
        let registration = ClientRegistration {
            profile,
            authorize_params: params::merged(&[&authorize_params, &defaults.authorize_params]),
            token_params: params::merged(&[&token_params, &defaults.token_params]),
            refresh_params: params::merged(&[&refresh_params, &token_params, &defaults.refresh_params]),
            provider: provider.filter(|_| fits)?.details,
            scopes: scopes?,
            credential,
            redirect_uri: self.redirect_uri?.clone(),
            authorization: authorization?,
            pkce: pkce?,
            dpop: dpop?,
            id_token_signing_alg,
            default_token_lifetime,
            default_refresh_token_lifetime,
            introspect_expiry: file.introspect_expiry.as_ref().is_some_and(|flag| flag.value),
            refresh: RefreshPolicy::default(),
            retry: retry?,
            signing_key_lifetime: self.signing_key_lifetime,
        };
        let (grant_name, client_auth_name) = (grant_row?.name, auth_row?.name);
        let profile = Profile {
            client: client?.of(&registration, grant_name, client_auth_name),
            registration,
            grant: grant?,
            grant_name,
            client_auth_name,
            origins,
            made_of: None,
        };
        check_iss(file, &profile, faults);
        fapi::check(file, &profile, faults);
        Some(profile)
    }

    fn provider(&self, file: &ProfileFile, faults: &mut Faults) -> Option<(CheckedProvider, RetryPolicy)> {
        let Some(name) = &file.provider else {
            faults.missing(&file.at.join("provider"), "it names a provider");
            return None;
        };
        if !self.providers.names().any(|known| known == name.value) {
            let hint = suggestion(&name.value, self.providers.names());
            faults.push(&name.at, format!("there is no provider `{}`{hint}", name.value));
            return None;
        }
        self.providers.with(&name.value, faults, |provider, faults| {
            let outbound = outbound::of_profile(provider, file, self.secrets, self.tls, faults);
            let values =
                Values::of_profile(&name.value, provider, file.variables.as_ref(), &file.at, faults)?;
            // Its own faults are noted once, where the providers are checked.
            let mut noted = Faults::default();
            let checked = providers::filled(&name.value, provider, &values, &mut noted);
            if checked.is_none()
                && providers::provider(&name.value, provider, &mut Faults::default()).is_some()
            {
                let problem = format!("make no usable provider: {noted}");
                faults.push(&file.at.join("variables"), problem);
            }
            let mut checked = checked?;
            if fapi::is_wanted(file) {
                fapi::settle(&mut checked.details);
            }
            checked.details.outbound = outbound?;
            Some((checked, outbound::retry(provider)))
        })
    }
}

/// A provider's parameters may take what a call brings; where a person consents, there is none.
fn check_defaults(defaults: &Defaults, file: &ProfileFile, faults: &mut Faults) {
    let tables = [("token_params", &defaults.token_params), ("refresh_params", &defaults.refresh_params)];
    for (table, params) in tables {
        let own = |name: &String| {
            let table = if table == "token_params" { &file.token_params } else { &file.refresh_params };
            table.as_ref().is_some_and(|table| table.contains_key(name))
        };
        for (name, template) in params.iter().filter(|(name, _)| !own(name)) {
            if let Some(problem) = params::beyond_subject(template.placeholders()) {
                faults.push(provider_place(file), format!("has {table}.{name}, which {problem}"));
            }
        }
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

/// Requests can be pushed (RFC 9126) only where it is known where to.
fn check_par(file: &ProfileFile, provider: &ProviderDetails, needs: &Needs, faults: &mut Faults) {
    let Some(par) = file.par.as_ref().filter(|par| par.value) else { return };
    let known = provider.endpoints.pushed_authorization_request_endpoint.is_some();
    if needs.person && !needs.device && !known && provider.issuer.is_none() {
        let name = &provider.name;
        let key = "pushed_authorization_request_endpoint";
        faults.push(
            &par.at,
            format!("provider `{name}` has neither `{key}` nor `issuer`, and `par` needs one"),
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

/// Names all that a token request of this profile is made of.
fn credential(file: &ProfileFile, extension: &Extension<'_>) -> String {
    let mut digest = CredentialDigest::new();
    let texts = [&file.provider, &file.client_id, &file.client_auth, &file.grant];
    texts.iter().for_each(|text| digest.add(text.as_ref().map_or("", |text| &text.value).as_bytes()));
    let scopes = file.scopes.iter().flat_map(|scopes| &scopes.value);
    scopes.for_each(|scope| digest.add(scope.as_bytes()));
    for (name, value) in file.token_params.iter().flatten() {
        digest.add(name.as_bytes());
        digest.add(value.value.0.as_bytes());
    }
    extension.settings().add_to(&mut digest);
    digest.finish()
}

/// The grants and client authentications that ask for `key`, given these settings.
fn users_of(key: &str, given: &Settings) -> Vec<String> {
    let asks = |build: &dyn Fn(&mut Settings)| {
        let mut settings = given.clone();
        build(&mut settings);
        settings.asked().any(|asked| asked == key)
    };
    let methods = CLIENT_AUTH_METHODS.iter().filter(|row| asks(&|settings| drop((row.build)(settings))));
    let grants = GRANTS.iter().filter(|row| asks(&|settings| drop((row.build)(settings))));
    let methods = methods.map(|row| format!("client_auth = \"{}\"", row.name));
    methods.chain(grants.map(|row| format!("grant = \"{}\"", row.name))).collect()
}

fn grant(file: &ProfileFile, defaults: &Defaults, faults: &mut Faults) -> Option<&'static GrantRow> {
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
        return None;
    }
    if let Some(supported) = &defaults.grants
        && !supported.contains(&name.value)
    {
        let supported = supported.join(", ");
        faults.push(&name.at, format!("the provider does not support `{}`; it has: {supported}", name.value));
        return None;
    }
    row
}

fn client_auth(
    file: &ProfileFile,
    defaults: &Defaults,
    faults: &mut Faults,
) -> Option<&'static ClientAuthRow> {
    let usual = defaults.client_auth.as_deref().unwrap_or(DEFAULT_CLIENT_AUTH);
    let name = file.client_auth.as_ref().map_or(usual, |name| name.value.as_str());
    let row = client_auth::find(name);
    if row.is_none() {
        let hint = suggestion(name, CLIENT_AUTH_METHODS.iter().map(|row| row.name));
        let place =
            file.client_auth.as_ref().map_or_else(|| file.at.join("client_auth"), |name| name.at.clone());
        faults.push(&place, format!("there is no client authentication `{name}`{hint}"));
    }
    row
}

fn signature(text: Option<&Located<String>>, faults: &mut Faults) -> Option<String> {
    let text = text?;
    // Never `none`, nor with a shared secret.
    if text.value.parse::<SignatureAlgorithm>().is_err() {
        let hint = suggestion(&text.value, SignatureAlgorithm::ALL.map(SignatureAlgorithm::name));
        faults.push(&text.at, format!("`{}` is no signature algorithm with a public key{hint}", text.value));
        return None;
    }
    Some(text.value.clone())
}

/// What proofs of possession are signed with; `Some(None)` if there are none (RFC 9449).
fn dpop(
    file: &ProfileFile,
    provider: Option<&CheckedProvider>,
    faults: &mut Faults,
) -> Option<Option<SignatureAlgorithm>> {
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
    // RFC 9449 section 7.1: a bound token goes as `Authorization: DPoP`.
    if wanted
        && let Some(provider) = provider
        && provider.details.quirks.presentation != Presentation::default()
    {
        let place = file.dpop.as_ref().map(|dpop| &dpop.at);
        let place = place.or(file.security_profile.as_ref().map(|name| &name.at)).unwrap_or(&file.at);
        let problem = format!(
            "cannot go with `access_token_header` or `access_token_scheme` of provider `{}`: a token that is \
             bound to a key is sent as `Authorization: DPoP`; leave one of the two out",
            provider.details.name
        );
        faults.push(place, problem);
        return None;
    }
    Some(wanted.then_some(algorithm))
}
