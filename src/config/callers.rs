//! Checks `[callers]`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use claviger_actors::protocol::identifiers::{CallerId, RouteId};
use claviger_actors::protocol::jwk::JwkSetView;

use super::error::{Faults, Place, suggestion};
use super::file::{BasicFile, CallerFile, JwtFile, MtlsFile, RouteFile};
use super::reader::Located;
use super::secret_source::Secrets;
use super::{resilience, urls};
use crate::caller_auth::{
    ApiKeyHash, BasicCredential, Caller, ConfiguredCaller, JwtCredential, KeySource, SubjectAltName,
    check_password_hash,
};

/// Checks every caller. Where `certificates` says so, the proxy listener takes client certificates.
pub(super) fn callers(
    files: &BTreeMap<String, CallerFile>,
    routes: &BTreeMap<String, RouteFile>,
    certificates: bool,
    whole: &Place,
    secrets: &Secrets<'_>,
    faults: &mut Faults,
) -> Vec<ConfiguredCaller> {
    let mut usernames: BTreeMap<String, &str> = BTreeMap::new();
    let mut keys: BTreeMap<ApiKeyHash, &str> = BTreeMap::new();
    let mut tokens: Vec<(JwtCredential, &str)> = Vec::new();
    let mut names: BTreeMap<SubjectAltName, &str> = BTreeMap::new();
    let mut checked = Vec::new();
    for (name, file) in files {
        let caller = caller(name, file, routes, whole, faults);
        let none = file.basic.is_none() && file.api_key_hash.is_none();
        if none && file.jwt.is_none() && file.mtls.is_none() {
            let problem = "is missing, and the caller has no other credential; add \
                           `basic = { username, password_hash }`, `api_key_hash`, `jwt` or `mtls`";
            faults.unless_noted(&file.at.join("basic"), problem);
        }
        let basic = file.basic.as_ref().and_then(|file| basic(file, secrets, faults));
        if let (Some(basic), Some(file)) = (&basic, &file.basic)
            && let Some(other) = usernames.insert(basic.username.clone(), name)
        {
            faults.push(&file.at.join("username"), format!("is also that of callers.{other}"));
        }
        let api_key = file.api_key_hash.as_ref().and_then(|source| {
            let text = secrets.resolve(source, faults)?;
            let hash = faults.note(&source.at, ApiKeyHash::parse(text.expose()))?;
            if let Some(other) = keys.insert(hash, name) {
                faults.push(&source.at, format!("is also that of callers.{other}"));
            }
            Some(hash)
        });
        let jwt = file.jwt.as_ref().and_then(|file| jwt(file, secrets, faults));
        if let (Some(jwt), Some(file)) = (&jwt, &file.jwt) {
            tell_apart(jwt, &tokens, &file.at, faults);
            tokens.push((jwt.clone(), name));
        }
        let mtls = file.mtls.as_ref().map(|file| mtls(file, certificates, faults)).unwrap_or_default();
        for san in &mtls {
            let other = names.insert(san.clone(), name).filter(|other| other != name);
            if let (Some(other), Some(file)) = (other, &file.mtls) {
                faults.push(&file.at.join("san"), format!("{san} is also that of callers.{other}"));
            }
        }
        checked.extend(caller.map(|caller| ConfiguredCaller { caller, basic, api_key, jwt, mtls }));
    }
    checked
}

fn caller(
    name: &str,
    file: &CallerFile,
    known: &BTreeMap<String, RouteFile>,
    whole: &Place,
    faults: &mut Faults,
) -> Option<Caller> {
    let id = faults.note(&file.at, CallerId::new(name));
    let mut routes = BTreeSet::new();
    if let Some(list) = &file.routes {
        for route in &list.value {
            if known.contains_key(route) {
                routes.extend(faults.note(&list.at, RouteId::new(route)));
            } else if !faults.noted(&whole.join("routes").join(route)) {
                let hint = suggestion(route, known.keys().map(String::as_str));
                faults.push(&list.at, format!("there is no route `{route}`{hint}"));
            }
        }
    }
    let may_name_subject = file.may_name_subject.as_ref().is_some_and(|flag| flag.value);
    let rate = match &file.rate {
        Some(file) => Some(resilience::rate(file, faults)?),
        None => None,
    };
    Some(Caller { id: id?, routes, may_name_subject, rate })
}

fn basic(file: &BasicFile, secrets: &Secrets<'_>, faults: &mut Faults) -> Option<BasicCredential> {
    let username = match &file.username {
        Some(name) if name.value.is_empty() || name.value.contains(|c: char| c == ':' || c.is_control()) => {
            faults.push(&name.at, "must not be empty, nor have a colon or control character (RFC 7617)");
            None
        }
        Some(name) => Some(name.value.clone()),
        None => {
            faults.missing(&file.at.join("username"), "HTTP Basic needs it");
            None
        }
    };
    let password_hash = match &file.password_hash {
        Some(source) => secrets.resolve(source, faults).and_then(|hash| {
            let checked = check_password_hash(hash.expose());
            faults.note(&source.at, checked).map(|()| hash)
        }),
        None => {
            faults.missing(&file.at.join("password_hash"), MAKE_ONE);
            None
        }
    };
    Some(BasicCredential { username: username?, password_hash: password_hash? })
}

const MAKE_ONE: &str = "make one with `claviger hash-secret`";

fn jwt(file: &JwtFile, secrets: &Secrets<'_>, faults: &mut Faults) -> Option<JwtCredential> {
    let mut text = |key: &str, given: &Option<Located<String>>, why: &str| match given {
        Some(text) if text.value.is_empty() => {
            faults.push(&text.at, "must not be empty");
            None
        }
        Some(text) => Some(text.value.clone()),
        None => {
            faults.missing(&file.at.join(key), why);
            None
        }
    };
    let issuer = text("issuer", &file.issuer, "tokens of this issuer are taken");
    let audience = text("audience", &file.audience, "tokens made for others must not be taken");
    let keys = match (&file.jwks_uri, &file.jwks_file) {
        (Some(uri), None) => urls::secure(uri, faults).map(KeySource::Uri),
        (None, Some(path)) => key_file(path, secrets, faults),
        (Some(_), Some(file)) => {
            faults.push(&file.at, "stands beside `jwks_uri`; keep one of them");
            None
        }
        (None, None) => {
            faults.missing(
                &file.at.join("jwks_uri"),
                "tokens are verified with the issuer's keys; or name a `jwks_file`",
            );
            None
        }
    };
    let subject_claim = file.subject_claim.as_ref().map_or("sub", |claim| claim.value.as_str()).to_owned();
    let claims = file.claims.iter().flatten().map(|(name, value)| (name.clone(), value.value.0.clone()));
    Some(JwtCredential {
        issuer: issuer?,
        audience: audience?,
        keys: keys?,
        subject_claim,
        claims: claims.collect(),
    })
}

fn mtls(file: &MtlsFile, certificates: bool, faults: &mut Faults) -> Vec<SubjectAltName> {
    if !certificates {
        let problem = "needs a proxy listener that takes client certificates; add \
                       `tls = { cert, key, client_ca }` to listeners.proxy";
        faults.push(&file.at, problem);
    }
    let Some(given) = &file.san else {
        faults.missing(&file.at.join("san"), "it is the name in the caller's certificates");
        return Vec::new();
    };
    if given.value.0.is_empty() {
        faults.push(&given.at, "must not be empty: it is the name in the caller's certificates");
    }
    let read = |text: &String| {
        let parsed = SubjectAltName::parse(text).map_err(|error| format!("{text:?} {error}"));
        faults.note(&given.at, parsed)
    };
    given.value.0.iter().filter_map(read).collect()
}

fn key_file(path: &Located<String>, secrets: &Secrets<'_>, faults: &mut Faults) -> Option<KeySource> {
    let found = secrets.directory.join(&path.value).display().to_string();
    let bytes = faults.note(&path.at, secrets.file(Path::new(&path.value), "file"))?;
    let keys = faults.note(&path.at, JwkSetView::parse(&bytes))?;
    if keys.is_empty() {
        faults.push(&path.at, "has no public key that can verify RS, PS, ES or EdDSA signatures");
        return None;
    }
    Some(KeySource::File { path: found, keys: Arc::new(keys) })
}

/// Every token must be that of one caller, and every issuer has one set of keys.
fn tell_apart(jwt: &JwtCredential, others: &[(JwtCredential, &str)], at: &Place, faults: &mut Faults) {
    for (other, name) in others.iter().filter(|(other, _)| other.issuer == jwt.issuer) {
        if !other.keys.is_same(&jwt.keys) {
            let problem =
                format!("names other keys for its issuer than callers.{name}; an issuer has one set");
            faults.push(at, problem);
        } else if jwt.is_ambiguous_with(other) {
            let problem = format!(
                "could be that of callers.{name}, too; give each its own `audience`, or `claims` that differ, \
                 such as `claims = {{ azp = \"…\" }}`"
            );
            faults.push(at, problem);
        }
    }
}
