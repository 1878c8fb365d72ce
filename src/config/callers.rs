//! Checks `[callers]`.

use std::collections::{BTreeMap, BTreeSet};

use argon2::{Algorithm, Params, PasswordHash};
use claviger_actors::protocol::identifiers::{CallerId, RouteId};
use claviger_actors::protocol::secret::Secret;

use super::error::{Faults, suggestion};
use super::file::{BasicFile, CallerFile, RouteFile};
use super::secret_source::Secrets;
use super::{BasicConfig, CallerConfig};
use crate::caller_auth::Caller;

/// Most memory that verifying one password may take, in KiB.
const MAX_MEMORY: u32 = 1 << 20;
/// Most passes that verifying one password may take.
const MAX_PASSES: u32 = 64;

/// Checks every caller.
pub(super) fn callers(
    files: &BTreeMap<String, CallerFile>,
    routes: &BTreeMap<String, RouteFile>,
    secrets: &Secrets<'_>,
    faults: &mut Faults,
) -> Vec<CallerConfig> {
    let mut usernames: BTreeMap<String, &str> = BTreeMap::new();
    let mut checked = Vec::new();
    for (name, file) in files {
        let caller = caller(name, file, routes, faults);
        let basic = match &file.basic {
            Some(file) => basic(file, secrets, faults),
            None => {
                faults.push(&file.at, "has no credential; add `basic = { username, password_hash }`");
                None
            }
        };
        if let (Some(basic), Some(file)) = (&basic, &file.basic)
            && let Some(other) = usernames.insert(basic.username.clone(), name)
        {
            faults.push(&file.at.join("username"), format!("is also that of callers.{other}"));
        }
        checked.extend(caller.map(|caller| CallerConfig { caller, basic }));
    }
    checked
}

fn caller(
    name: &str,
    file: &CallerFile,
    known: &BTreeMap<String, RouteFile>,
    faults: &mut Faults,
) -> Option<Caller> {
    let id = faults.note(&file.at, CallerId::new(name));
    let mut routes = BTreeSet::new();
    if let Some(list) = &file.routes {
        for route in &list.value {
            if known.contains_key(route) {
                routes.extend(faults.note(&list.at, RouteId::new(route)));
            } else {
                let hint = suggestion(route, known.keys().map(String::as_str));
                faults.push(&list.at, format!("there is no route `{route}`{hint}"));
            }
        }
    }
    let may_name_subject = file.may_name_subject.as_ref().is_some_and(|flag| flag.value);
    Some(Caller { id: id?, routes, may_name_subject })
}

fn basic(file: &BasicFile, secrets: &Secrets<'_>, faults: &mut Faults) -> Option<BasicConfig> {
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
            let checked = check_password_hash(&hash);
            faults.note(&source.at, checked).map(|()| hash)
        }),
        None => {
            faults.missing(&file.at.join("password_hash"), MAKE_ONE);
            None
        }
    };
    Some(BasicConfig { username: username?, password_hash: password_hash? })
}

const MAKE_ONE: &str = "make one with `claviger hash-secret`";

/// Checks that `hash` is an argon2id hash that can be verified at a bounded cost.
fn check_password_hash(hash: &Secret) -> Result<(), String> {
    if !hash.expose().starts_with('$') {
        return Err(format!("must be the argon2id hash of the password, not the password; {MAKE_ONE}"));
    }
    let parsed = PasswordHash::new(hash.expose())
        .map_err(|error| format!("is not an argon2id hash in PHC form ({error}); {MAKE_ONE}"))?;
    if parsed.algorithm != Algorithm::Argon2id.ident() {
        return Err(format!("must be an argon2id hash, not {}; {MAKE_ONE}", parsed.algorithm));
    }
    if parsed.salt.is_none() || parsed.hash.is_none() {
        return Err(format!("is cut short: it has no salt or no hash; {MAKE_ONE}"));
    }
    let params = Params::try_from(&parsed)
        .map_err(|error| format!("has parameters that argon2id does not allow ({error}); {MAKE_ONE}"))?;
    if params.m_cost() > MAX_MEMORY || params.t_cost() > MAX_PASSES {
        return Err(format!("costs too much to verify: at most m={MAX_MEMORY} and t={MAX_PASSES}"));
    }
    Ok(())
}
