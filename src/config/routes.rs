//! Checks `[routes]`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use claviger_actors::protocol::identifiers::{ProfileId, RouteId};
use claviger_actors::protocol::scope::ScopeSet;
use claviger_actors::protocol::template::CallContext;
use claviger_actors::proxy::path;
use claviger_actors::proxy::route::{Route, RoutingTable, SubjectSource, UpstreamTls};
use http::Method;
use url::Url;

use super::error::{Faults, Place, suggestion};
use super::file::{ProfileFile, RouteFile};
use super::reader::Located;
use super::tls::Tls;
use super::urls;

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
const LONGEST_TIMEOUT: Duration = Duration::from_secs(24 * 3600);
const SUBJECTS: [(&str, SubjectSource); 3] =
    [("caller", SubjectSource::Caller), ("header", SubjectSource::Header), ("shared", SubjectSource::Shared)];

/// Checks every route.
pub(super) fn routes(
    files: &BTreeMap<String, RouteFile>,
    profiles: &BTreeMap<String, ProfileFile>,
    tls: &Tls<'_>,
    whole: &Place,
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
        let tls = upstream_tls(file, profiles, tls, faults);
        let checked_route = route(name, file, path, profiles, whole, faults);
        checked.extend(checked_route.and_then(|route| Some(Route { tls: tls?, ..route })));
    }
    RoutingTable::new(checked)
}

fn route(
    name: &str,
    file: &RouteFile,
    path: Option<String>,
    profiles: &BTreeMap<String, ProfileFile>,
    whole: &Place,
    faults: &mut Faults,
) -> Option<Route> {
    let id = faults.note(&file.at, RouteId::new(name));
    let upstream = match &file.upstream {
        Some(text) => urls::secure_base(text, faults).filter(|url| {
            let checked = check_path_of(url);
            faults.note(&text.at, checked).is_some()
        }),
        None => {
            faults.missing(&file.at.join("upstream"), "it is the base URL of the API");
            None
        }
    };
    let profile = profile(file, profiles, whole, faults);
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
    let upstream = upstream?;
    Some(Route {
        id: id?,
        path: path?,
        origin: Arc::new(urls::origin(&upstream)?),
        tls: None,
        upstream_path: upstream.path().trim_end_matches('/').to_owned(),
        profile: profile?,
        subject: subject?,
        context: Arc::new(CallContext { scopes: scopes?, ..CallContext::default() }),
        methods: methods?,
        timeout: timeout?,
        max_body: file.max_body.as_ref().map(|size| size.value.0),
    })
}

/// TLS with the upstream, if it is another than with all of them. Tokens that are bound to the
/// profile's certificate need it shown (RFC 8705 section 3).
fn upstream_tls(
    file: &RouteFile,
    profiles: &BTreeMap<String, ProfileFile>,
    tls: &Tls<'_>,
    faults: &mut Faults,
) -> Option<Option<UpstreamTls>> {
    let profile = file.profile.as_ref().and_then(|name| profiles.get(&name.value));
    let bound =
        profile.filter(|profile| profile.certificate_bound_tokens.as_ref().is_some_and(|bound| bound.value));
    let bound = bound.and_then(|profile| profile.tls.as_ref());
    if file.tls.is_none() && bound.is_none() {
        return Some(None);
    }
    let plain = file.upstream.as_ref().filter(|upstream| upstream.value.starts_with("http://"));
    match (plain, &file.tls) {
        (Some(_), Some(own)) => {
            faults.push(&own.at, "is of no use: the upstream is not https");
            None
        }
        (Some(upstream), None) => {
            faults.push(&upstream.at, "must be https: the profile's tokens are bound to its certificate");
            None
        }
        (None, own) => tls.of_route(own.as_ref(), bound, faults),
    }
}

fn profile(
    file: &RouteFile,
    profiles: &BTreeMap<String, ProfileFile>,
    whole: &Place,
    faults: &mut Faults,
) -> Option<ProfileId> {
    let Some(name) = &file.profile else {
        faults.missing(&file.at.join("profile"), "it names the profile whose token is used");
        return None;
    };
    if !profiles.contains_key(&name.value) {
        // One that is there, but cannot be read, has been told.
        if faults.noted(&whole.join("profiles").join(&name.value)) {
            return None;
        }
        let hint = suggestion(&name.value, profiles.keys().map(String::as_str));
        faults.push(&name.at, format!("there is no profile `{}`{hint}", name.value));
        return None;
    }
    faults.note(&name.at, ProfileId::new(&name.value))
}

fn subject(text: Option<&Located<String>>, faults: &mut Faults) -> Option<SubjectSource> {
    let Some(text) = text else { return Some(SubjectSource::Caller) };
    let row = SUBJECTS.iter().find(|(name, _)| *name == text.value);
    if row.is_none() {
        let hint = suggestion(&text.value, SUBJECTS.iter().map(|(name, _)| *name));
        faults.push(&text.at, format!("`{}` is no source of a subject{hint}", text.value));
    }
    row.map(|(_, source)| *source)
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
