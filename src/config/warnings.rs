//! What is allowed in a configuration and yet most likely a slip: parts that nothing uses, and
//! variables that look like keys and are not read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use claviger_actors::profile::Profile;
use claviger_actors::protocol::signing_key::SigningKey;
use claviger_actors::registration::signing_keys::SigningKeys;

use super::environment::Environment;
use super::error::{ConfigError, KeyPath, Origin, Place};
use super::file::{
    CallerFile, GatewayFile, ListenerFile, ProfileFile, ProxyListenerFile, RouteFile, ServerFile,
};
use super::source::{PREFIX, SEPARATOR};

/// Every slip in `file` and `environment`, which are without faults.
pub(super) fn warnings(file: &GatewayFile, environment: &dyn Environment) -> Vec<ConfigError> {
    let mut warnings = unused(file);
    warnings.extend(misspelt(file, environment));
    warnings
}

fn unused(file: &GatewayFile) -> Vec<ConfigError> {
    let mut warnings = Vec::new();
    let mut warn = |place: &Place, problem: String| {
        warnings.push(ConfigError { place: place.clone(), problem });
    };
    let routes = || file.routes.iter().flatten();
    let callers = || file.callers.iter().flatten();

    let callable: BTreeSet<&String> =
        callers().filter_map(|(_, caller)| caller.routes.as_ref()).flat_map(|list| &list.value).collect();
    let used: BTreeSet<&String> =
        routes().filter_map(|(_, route)| route.profile.as_ref()).map(|name| &name.value).collect();

    for (_, caller) in callers() {
        if caller.routes.as_ref().is_none_or(|list| list.value.is_empty()) {
            warn(&caller.at.join("routes"), "is empty, so the caller may call nothing; list routes".into());
        }
    }
    for (name, profile) in file.profiles.iter().flatten().filter(|(name, _)| !used.contains(name)) {
        let problem = format!("no route uses it; add `profile = {name:?}` to a route, or remove it");
        warn(&profile.at, problem);
    }
    for (name, route) in routes() {
        if let Some(subject) = route.subject.as_ref().filter(|subject| subject.value == "jwt")
            && issuers_of(file, name).len() > 1
        {
            let problem = "takes the JWT's subject, and its callers have JWTs of several issuers, who may give \
                           one subject to several people; add the issuer: subject = \"{claim.iss} {claim.sub}\"";
            warn(&subject.at, problem.into());
        }
    }
    for (name, route) in routes().filter(|(name, _)| !callable.contains(name)) {
        let problem =
            format!("no caller may call it; add {name:?} to the `routes` of a caller, or remove it");
        warn(&route.at, problem);
    }
    warnings
}

/// The issuers of the JWTs that come to a route.
fn issuers_of<'f>(file: &'f GatewayFile, route: &String) -> BTreeSet<&'f String> {
    let callers = file.callers.iter().flatten().map(|(_, caller)| caller);
    let users =
        callers.filter(|caller| caller.routes.as_ref().is_some_and(|list| list.value.contains(route)));
    users.filter_map(|caller| Some(&caller.jwt.as_ref()?.issuer.as_ref()?.value)).collect()
}

/// Different keys under one name: a provider that fetches our key set may take one for the other.
pub(super) fn key_names(files: &BTreeMap<String, ProfileFile>, profiles: &[Profile]) -> Vec<ConfigError> {
    let mut warnings = Vec::new();
    let mut seen: Vec<(&Profile, SigningKey)> = Vec::new();
    for profile in profiles {
        for key in profile.signing_keys().flat_map(SigningKeys::published) {
            let other = seen.iter().find(|(other, known)| {
                known.kid() == key.kid()
                    && known.thumbprint() != key.thumbprint()
                    && other.registration.profile != profile.registration.profile
            });
            if let (Some((other, _)), Some(file)) = (other, files.get(profile.registration.profile.as_str()))
            {
                let (kid, name) = (key.kid(), &other.registration.profile);
                let problem =
                    format!("{kid:?} also names another key, of profile {name}; give each its own name");
                warnings.push(ConfigError { place: file.at.join("key_id"), problem });
            }
            seen.push((profile, key));
        }
    }
    warnings
}

/// Variables that name a key with single underscores. Others without a double one are no business
/// of ours: secrets are drawn from some, and orchestrators set more.
fn misspelt(file: &GatewayFile, environment: &dyn Environment) -> Vec<ConfigError> {
    let paths = paths(file);
    let mut names = environment.names();
    names.sort_unstable();
    let warning = |name: String| {
        let rest = name.strip_prefix(PREFIX).filter(|rest| !rest.contains(SEPARATOR))?;
        let path = paths.iter().find(|path| path.join("_").eq_ignore_ascii_case(rest))?;
        let right = path.join(SEPARATOR).to_uppercase();
        let problem = format!("is not read; did you mean {PREFIX}{right}?");
        let origin = Origin::Variable(Arc::from(name));
        Some(ConfigError { place: Place { origin, path: KeyPath::default() }, problem })
    };
    names.into_iter().filter_map(warning).collect()
}

/// The keys that `file` may have, without those that are secrets.
fn paths(file: &GatewayFile) -> Vec<Vec<&str>> {
    fn named<'a, T>(
        section: &'a str,
        table: &'a Option<std::collections::BTreeMap<String, T>>,
        keys: &'a [&'a str],
    ) -> impl Iterator<Item = Vec<&'a str>> {
        let names = table.iter().flat_map(|table| table.keys());
        names.flat_map(move |name| keys.iter().map(move |key| vec![section, name.as_str(), *key]))
    }
    let fixed = |outer: &'static [&'static str], keys: &'static [&'static str]| {
        keys.iter().map(move |key| [outer, &[*key][..]].concat())
    };
    fixed(&["server"], ServerFile::KEYS)
        .chain(fixed(&["listeners", "proxy"], ProxyListenerFile::KEYS))
        .chain(fixed(&["listeners", "public"], ListenerFile::KEYS))
        .chain(fixed(&["listeners", "admin"], ListenerFile::KEYS))
        .chain(fixed(&["store"], &["backend", "path"]))
        .chain(fixed(&["store", "encryption"], &["active"]))
        .chain(named("profiles", &file.profiles, ProfileFile::KEYS))
        .chain(named("callers", &file.callers, CallerFile::KEYS))
        .chain(named("routes", &file.routes, RouteFile::KEYS))
        .collect()
}
