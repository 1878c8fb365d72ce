//! Checks `[routes]`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use claviger_actors::profile::Profile;
use claviger_actors::protocol::identifiers::{ProfileId, RouteId};
use claviger_actors::protocol::scope::ScopeSet;
use claviger_actors::protocol::template::{CallContext, CallNeeds, SubjectTemplate};
use claviger_actors::proxy::endpoints::MAX_UPSTREAMS;
use claviger_actors::proxy::path;
use claviger_actors::proxy::route::{
    Route, RoutingTable, SubjectSource, UpstreamOrigin, UpstreamProtocol, UpstreamTls,
};
use claviger_actors::proxy::templated::{HostPattern, UpstreamTemplate};
use http::Method;
use url::Url;

use super::catalogue::Providers;
use super::error::{Faults, Place, suggestion};
use super::file::{ProfileFile, RouteFile};
use super::providers;
use super::reader::Located;
use super::resilience::{resilience, tell_apart};
use super::tls::Tls;
use super::urls;
use super::variables::Values;
use crate::caller_auth::ConfiguredCaller;

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
const LONGEST_TIMEOUT: Duration = Duration::from_secs(24 * 3600);
const SUBJECTS: [(&str, SubjectSource); 4] = [
    ("caller", SubjectSource::Caller),
    ("header", SubjectSource::Header),
    ("jwt", SubjectSource::Jwt),
    ("shared", SubjectSource::Shared),
];

/// Tells each route what the token requests of its profile need of a call. Profiles are checked after
/// routes, so this comes last.
pub(super) fn with_needs(
    routing: RoutingTable,
    profiles: &[Profile],
    callers: &[ConfiguredCaller],
) -> RoutingTable {
    let needs: BTreeMap<_, _> =
        profiles.iter().map(|profile| (&profile.registration.profile, profile.call_needs())).collect();
    routing.map(|route| {
        route.needs = needs.get(&route.profile).cloned().unwrap_or_default();
        let users = callers.iter().filter(|configured| configured.caller.routes.contains(&route.id));
        let issuers: BTreeSet<_> = users.filter_map(|user| Some(&user.jwt.as_ref()?.issuer)).collect();
        route.subject_names_jwt = route.subject == SubjectSource::Jwt && issuers.len() <= 1;
    })
}

/// What routes refer to by name.
pub(super) struct Named<'a> {
    /// `[profiles]`
    pub(super) profiles: &'a BTreeMap<String, ProfileFile>,
    /// Their providers.
    pub(super) providers: &'a Providers<'a>,
    /// Makes TLS of certificates and keys.
    pub(super) tls: &'a Tls<'a>,
    /// The file as a whole.
    pub(super) whole: &'a Place,
}

/// Checks every route.
pub(super) fn routes(
    files: &BTreeMap<String, RouteFile>,
    named: &Named<'_>,
    faults: &mut Faults,
) -> RoutingTable {
    let mut paths: BTreeMap<String, &str> = BTreeMap::new();
    let mut checked = Vec::new();
    for (name, file) in files {
        let path = route_path(file, faults);
        if let Some(path) = &path
            && let Some(other) = paths.insert(path.clone(), name)
        {
            faults.push(&file.at.join("path"), format!("is also that of routes.{other}"));
        }
        let tls = upstream_tls(file, named, faults);
        let checked_route = route(name, file, path, named, faults);
        checked.extend(checked_route.and_then(|route| Some(Route { tls: tls?, ..route })));
    }
    RoutingTable::new(checked)
}

fn route(
    name: &str,
    file: &RouteFile,
    path: Option<String>,
    named: &Named<'_>,
    faults: &mut Faults,
) -> Option<Route> {
    let id = faults.note(&file.at, RouteId::new(name));
    let upstreams = upstreams(file, named, faults);
    let profile = profile(file, named, faults);
    let subject = subject(file.subject.as_ref(), faults);
    let scopes = match &file.scopes {
        Some(list) => faults.note(&list.at, ScopeSet::from_tokens(list.value.iter().cloned())),
        None => Some(ScopeSet::default()),
    };
    let methods = match &file.methods {
        Some(list) => methods(list, faults).map(Some),
        None => Some(None),
    };
    let timeout = match &file.timeout {
        Some(at) if at.value.is_zero() || at.value > LONGEST_TIMEOUT => {
            faults.push(&at.at, "must be longer than nothing, and at most a day");
            None
        }
        given => Some(given.as_ref().map_or(DEFAULT_TIMEOUT, |timeout| timeout.value)),
    };
    let Upstreams { first, all } = upstreams?;
    let resilience = resilience(file, all, first.template.is_none(), faults);
    let protocol = protocol(file.protocol.as_ref(), faults);
    Some(Route {
        id: id?,
        path: path?,
        origin: first.origin,
        tls: None,
        protocol: protocol?,
        upstream_path: first.path,
        template: first.template.map(Arc::new),
        profile: profile?,
        subject: subject?,
        needs: CallNeeds::default(),
        subject_names_jwt: false,
        context: Arc::new(CallContext { scopes: scopes?, ..CallContext::default() }),
        methods: methods?,
        timeout: timeout?,
        max_body: file.max_body.as_ref().map(|size| size.value.0),
        resilience: resilience?,
    })
}

/// TLS with the upstream, if it is another than with all of them. Tokens that are bound to the
/// profile's certificate need it shown (RFC 8705 section 3).
fn upstream_tls(file: &RouteFile, named: &Named<'_>, faults: &mut Faults) -> Option<Option<UpstreamTls>> {
    let profile = file.profile.as_ref().and_then(|name| named.profiles.get(&name.value));
    let bound =
        profile.filter(|profile| profile.certificate_bound_tokens.as_ref().is_some_and(|bound| bound.value));
    let bound = bound.and_then(|profile| profile.tls.as_ref());
    if file.tls.is_none() && bound.is_none() {
        return Some(None);
    }
    let plain = file
        .upstream
        .as_ref()
        .filter(|upstream| upstream.value.0.iter().any(|one| one.starts_with("http://")));
    match (plain, &file.tls) {
        (Some(_), Some(own)) => {
            faults.push(&own.at, "is of no use: the upstream is not https");
            None
        }
        (Some(upstream), None) => {
            faults.push(&upstream.at, "must be https: the profile's tokens are bound to its certificate");
            None
        }
        (None, own) => named.tls.of_route(own.as_ref(), bound, faults),
    }
}

/// Where a route leads.
struct Upstreams {
    first: Upstream,
    /// Each with its path prefix, the first among them.
    all: Vec<(Arc<UpstreamOrigin>, String)>,
}

struct Upstream {
    origin: Arc<UpstreamOrigin>,
    path: String,
    template: Option<UpstreamTemplate>,
}

fn upstreams(file: &RouteFile, named: &Named<'_>, faults: &mut Faults) -> Option<Upstreams> {
    let Some(given) = &file.upstream else {
        faults.missing(&file.at.join("upstream"), "it is the base URL of the API");
        return None;
    };
    let place = |index: usize| match given.value.0.len() {
        1 => given.at.clone(),
        _ => given.at.join(&index.to_string()),
    };
    let texts = given.value.0.iter().enumerate();
    let texts: Vec<_> =
        texts.map(|(index, value)| Located { value: value.clone(), at: place(index) }).collect();
    match texts.as_slice() {
        [] => {
            faults.push(&given.at, "leads nowhere; name the base URL of the API");
            None
        }
        [text] if UpstreamTemplate::is_one(&text.value) => {
            let first = templated(text, file, named, faults)?;
            Some(Upstreams { first, all: Vec::new() })
        }
        texts if texts.len() > MAX_UPSTREAMS => {
            faults.push(&given.at, format!("may be {MAX_UPSTREAMS} at most"));
            None
        }
        texts => {
            let checked: Vec<_> =
                texts.iter().map(|text| plain(text, file, texts.len() > 1, faults)).collect();
            let checked: Vec<_> = checked.into_iter().collect::<Option<_>>()?;
            let all: Vec<_> = checked
                .iter()
                .map(|upstream: &Upstream| (upstream.origin.clone(), upstream.path.clone()))
                .collect();
            tell_apart(&all, &given.at, faults);
            Some(Upstreams { first: checked.into_iter().next()?, all })
        }
    }
}

fn plain(text: &Located<String>, file: &RouteFile, several: bool, faults: &mut Faults) -> Option<Upstream> {
    if several && UpstreamTemplate::is_one(&text.value) {
        faults.push(&text.at, "has {token.NAME} in it and is one of several; give it a route of its own");
        return None;
    }
    if let Some(hosts) = &file.upstream_hosts {
        faults.push(&hosts.at, "is for an `upstream` with {token.NAME} in it; remove it");
    }
    let url = urls::secure_base(text, faults)?;
    faults.note(&text.at, check_path_of(&url))?;
    let path = url.path().trim_end_matches('/').to_owned();
    Some(Upstream { origin: Arc::new(UpstreamOrigin::of(&url)?), path, template: None })
}

/// An upstream that the token answer names: only within hosts that the route, or else the provider of
/// its profile, allows.
fn templated(
    text: &Located<String>,
    file: &RouteFile,
    named: &Named<'_>,
    faults: &mut Faults,
) -> Option<Upstream> {
    let hosts = match &file.upstream_hosts {
        Some(hosts) => providers::api_hosts(hosts, &Values::default(), faults)?,
        None => {
            let known = hosts_of_provider(file, named);
            if known.is_none() {
                let why = "no provider may choose any upstream: list the hosts that {token.NAME} may lead to, \
                           such as [\"*.example.com\"]";
                faults.missing(&file.at.join("upstream_hosts"), why);
            }
            known?
        }
    };
    let template = faults.note(&text.at, UpstreamTemplate::parse(&text.value, hosts))?;
    let path = template.path().to_owned();
    Some(Upstream { origin: Arc::new(UpstreamOrigin::templated(&template)), path, template: Some(template) })
}

/// `api_hosts` of the provider; its faults are told where it is checked.
fn hosts_of_provider(file: &RouteFile, named: &Named<'_>) -> Option<Vec<HostPattern>> {
    let profile = named.profiles.get(&file.profile.as_ref()?.value)?;
    let provider = &profile.provider.as_ref()?.value;
    named.providers.with(provider, &mut Faults::default(), |provider_file, faults| {
        let given = profile.variables.as_ref();
        let values = Values::of_profile(provider, provider_file, given, &profile.at, faults)?;
        providers::api_hosts(provider_file.api_hosts.as_ref()?, &values, faults)
    })
}

fn profile(file: &RouteFile, named: &Named<'_>, faults: &mut Faults) -> Option<ProfileId> {
    let Some(name) = &file.profile else {
        faults.missing(&file.at.join("profile"), "it names the profile whose token is used");
        return None;
    };
    if !named.profiles.contains_key(&name.value) {
        // One that is there, but cannot be read, has been told.
        if faults.noted(&named.whole.join("profiles").join(&name.value)) {
            return None;
        }
        let hint = suggestion(&name.value, named.profiles.keys().map(String::as_str));
        faults.push(&name.at, format!("there is no profile `{}`{hint}", name.value));
        return None;
    }
    faults.note(&name.at, ProfileId::new(&name.value))
}

fn subject(text: Option<&Located<String>>, faults: &mut Faults) -> Option<SubjectSource> {
    let Some(text) = text else { return Some(SubjectSource::Caller) };
    if text.value.contains('{') {
        return faults.note(&text.at, SubjectTemplate::parse(&text.value)).map(SubjectSource::Template);
    }
    let row = SUBJECTS.iter().find(|(name, _)| *name == text.value);
    if row.is_none() {
        let hint = suggestion(&text.value, SUBJECTS.iter().map(|(name, _)| *name));
        let problem = format!(
            "`{}` is no source of a subject{hint}; a template such as \"{{claim.email}}\" is one, too",
            text.value
        );
        faults.push(&text.at, problem);
    }
    row.map(|(_, source)| source.clone())
}

fn protocol(text: Option<&Located<String>>, faults: &mut Faults) -> Option<UpstreamProtocol> {
    let Some(text) = text else { return Some(UpstreamProtocol::default()) };
    let named = UpstreamProtocol::ALL.into_iter().find(|protocol| protocol.as_str() == text.value);
    if named.is_none() {
        let hint = suggestion(&text.value, UpstreamProtocol::ALL.into_iter().map(UpstreamProtocol::as_str));
        let problem = format!("`{}` is none of \"auto\", \"http1\" and \"http2\"{hint}", text.value);
        faults.push(&text.at, problem);
    }
    named
}

fn methods(list: &Located<Vec<String>>, faults: &mut Faults) -> Option<Vec<Method>> {
    if list.value.is_empty() {
        faults.push(&list.at, "allows nothing; leave it out to allow every method");
        return None;
    }
    let mut methods = Vec::new();
    for name in &list.value {
        match Method::from_bytes(name.as_bytes()) {
            Ok(_) if name.chars().any(|c| c.is_ascii_lowercase()) => {
                faults.push(&list.at, format!("`{name}` must be in capitals: methods are case-sensitive"));
            }
            Ok(Method::CONNECT) => faults.push(&list.at, "CONNECT is not proxied"),
            Ok(method) => methods.push(method),
            Err(_) => faults.push(&list.at, format!("{name:?} is not an HTTP method")),
        }
    }
    Some(methods)
}

/// The path without a trailing slash; the root is empty.
fn route_path(file: &RouteFile, faults: &mut Faults) -> Option<String> {
    let Some(text) = &file.path else {
        faults.missing(&file.at.join("path"), "it is the path prefix here, such as \"/calendar\"");
        return None;
    };
    if text.value == "/" {
        return Some(String::new());
    }
    let checked = check_path(&text.value).map_err(str::to_owned);
    faults.note(&text.at, checked).map(|()| text.value.clone())
}

/// Every call's path is checked by the proxy's own policy; what it would refuse has no place here.
fn check_path_of(upstream: &Url) -> Result<(), String> {
    path::check_path(upstream.path().as_bytes())
        .map_err(|error| format!("has a path that is refused: {error}"))
}

fn check_path(path: &str) -> Result<(), &'static str> {
    // Plain characters only: what has two spellings would make matching ambiguous.
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._~!$&'()*+,=:@/".contains(c);
    let Some(inner) = path.strip_prefix('/') else { return Err("must start with `/`") };
    if path.ends_with('/') {
        return Err("must not end with `/`, unless it is the root");
    }
    if !path.chars().all(plain) {
        return Err("must have no percent-encoding, `;`, query, spaces or other special characters");
    }
    if inner.split('/').any(|segment| matches!(segment, "." | "..")) {
        return Err("must have no `.` or `..` segment");
    }
    if inner.split('/').any(str::is_empty) {
        return Err("must have no empty segment");
    }
    Ok(())
}
