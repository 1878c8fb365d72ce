//! Checks `[callers]`.

use std::collections::{BTreeMap, BTreeSet};

use claviger_actors::protocol::identifiers::{CallerId, RouteId};

use super::error::{Faults, Place, suggestion};
use super::file::{BasicFile, CallerFile, RouteFile};
use super::secret_source::Secrets;
use crate::caller_auth::{BasicCredential, Caller, ConfiguredCaller, check_password_hash};

/// Checks every caller.
pub(super) fn callers(
    files: &BTreeMap<String, CallerFile>,
    routes: &BTreeMap<String, RouteFile>,
    whole: &Place,
    secrets: &Secrets<'_>,
    faults: &mut Faults,
) -> Vec<ConfiguredCaller> {
    let mut usernames: BTreeMap<String, &str> = BTreeMap::new();
    let mut checked = Vec::new();
    for (name, file) in files {
        let caller = caller(name, file, routes, whole, faults);
        let basic = match &file.basic {
            Some(file) => basic(file, secrets, faults),
            None => {
                let problem = "is missing, and the caller has no other credential; add \
                               `basic = { username, password_hash }`";
                faults.unless_noted(&file.at.join("basic"), problem);
                None
            }
        };
        if let (Some(basic), Some(file)) = (&basic, &file.basic)
            && let Some(other) = usernames.insert(basic.username.clone(), name)
        {
            faults.push(&file.at.join("username"), format!("is also that of callers.{other}"));
        }
        checked.extend(caller.map(|caller| ConfiguredCaller { caller, basic }));
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
    Some(Caller { id: id?, routes, may_name_subject })
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
