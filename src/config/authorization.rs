//! Checks how a profile asks a person: the keys that become parameters of its authorization
//! requests, and how these are sent.

use std::time::Duration;

use claviger_actors::protocol::identifiers::Subject;
use claviger_actors::protocol::json_template::JsonTemplate;
use claviger_actors::protocol::signing_key::{SignatureAlgorithm, SigningKey};
use claviger_actors::protocol::template::Template;
use claviger_actors::registration::authorization::AuthorizationOptions;
use claviger_actors::registration::settings::{Settings, SettingsError};
use claviger_actors::registration::signing_keys::SigningKeys;
use serde_json::Value;
use url::Url;

use super::error::Faults;
use super::fapi;
use super::file::ProfileFile;
use super::params;
use super::reader::{Located, OneOrMore};

/// Longest `max_age`; more makes no sense.
const LONGEST_AGE: Duration = Duration::from_secs(366 * 24 * 3600);

/// The keys that are tables.
#[derive(Default)]
pub(super) struct Documents {
    claims: Option<JsonTemplate>,
    authorization_details: Option<JsonTemplate>,
    request_object: Option<SigningKeys>,
}

/// Takes `claims` and `authorization_details`, whose shape is the provider's affair, and the keys of
/// request objects.
pub(super) fn documents(settings: &mut Settings) -> Result<Documents, SettingsError> {
    let mut document = |key: &str, fits: fn(&Value) -> bool, shape: &str| {
        let Some(value) = settings.take_value(key)? else { return Ok(None) };
        let fault = |problem: String| SettingsError { key: key.to_owned(), problem };
        if !fits(&value) {
            return Err(fault(format!("must be {shape}")));
        }
        JsonTemplate::parse(value).map(Some).map_err(|error| fault(error.to_string()))
    };
    let claims = document(
        "claims",
        |value| value.as_object().is_some_and(|claims| !claims.is_empty()),
        "a table, such as { id_token = { acr = { essential = true } } }",
    )?;
    let authorization_details = document(
        "authorization_details",
        |value| value.as_array().is_some_and(|list| !list.is_empty() && list.iter().all(has_type)),
        "an array of tables, each with its `type` (RFC 9396 section 2)",
    )?;
    let request_object = request_object(settings)?;
    Ok(Documents { claims, authorization_details, request_object })
}

/// Takes `request_object` and its key: `request_object_signing_key` with `request_object_signing_alg`
/// and `request_object_key_id`, or the `signing_key` that the client authenticates with.
fn request_object(settings: &mut Settings) -> Result<Option<SigningKeys>, SettingsError> {
    let wanted = settings.take_flag("request_object")?.unwrap_or_default();
    let own = settings.take_bytes("request_object_signing_key")?;
    let algorithm = settings.take_text("request_object_signing_alg")?;
    let name = settings.take_text("request_object_key_id")?;
    let fault = |key: &str, problem: String| SettingsError { key: key.to_owned(), problem };
    let further = [
        ("request_object_signing_key", own.is_some()),
        ("request_object_signing_alg", algorithm.is_some()),
        ("request_object_key_id", name.is_some()),
    ];
    if let (false, Some((key, _))) = (wanted, further.iter().find(|(_, given)| *given)) {
        return Err(fault(key, "is of no use without `request_object = true`".to_owned()));
    }
    if !wanted {
        return Ok(None);
    }
    let Some(own) = own else {
        if let Some((key, _)) = further.iter().find(|(_, given)| *given) {
            return Err(fault(key, "is of no use without `request_object_signing_key`".to_owned()));
        }
        return SigningKeys::require(settings, "`request_object`").map(Some);
    };
    let algorithm = match algorithm {
        None => None,
        Some(text) => Some(
            text.parse::<SignatureAlgorithm>()
                .map_err(|error| fault("request_object_signing_alg", format!("{text:?} {error}")))?,
        ),
    };
    let key = SigningKey::load(own.expose(), None, algorithm)
        .map_err(|error| fault("request_object_signing_key", error.to_string()))?;
    Ok(Some(SigningKeys::from(match name {
        Some(name) => key.with_kid(name.as_str()),
        None => key,
    })))
}

fn has_type(detail: &Value) -> bool {
    detail["type"].as_str().is_some_and(|name| !name.is_empty())
}

/// Checks the keys of `file`. Every fault is told. What asks a `person` knows of a call only its subject:
/// a connect link comes without one.
pub(super) fn options(
    file: &ProfileFile,
    documents: Documents,
    person: bool,
    faults: &mut Faults,
) -> Option<AuthorizationOptions> {
    let mut text = |text: &Option<Located<String>>| match text {
        None => Some(None),
        Some(text) if text.value.is_empty() => {
            faults.push(&text.at, "is empty");
            None
        }
        Some(text) => {
            let template = faults.note(&text.at, Template::parse(&text.value))?;
            if let Some(problem) = params::beyond_subject(template.placeholders()) {
                faults.push(&text.at, problem);
                return None;
            }
            Some(Some(template))
        }
    };
    let acr_values = text(&file.acr_values);
    let prompt = text(&file.prompt);
    let login_hint = text(&file.login_hint);
    for (key, document, known) in [
        ("claims", &documents.claims, false),
        ("authorization_details", &documents.authorization_details, !person),
    ] {
        let Some(document) = document.as_ref().filter(|_| !known) else { continue };
        if let Some(problem) = params::beyond_subject(&document.placeholders()) {
            faults.push(&file.at.join(key), problem);
        }
    }
    let max_age = max_age(file, faults);
    let fapi = fapi::is_wanted(file);
    let resources = file.resource.as_ref().map_or(Some(Vec::new()), |list| resources(list, faults));
    let options = AuthorizationOptions {
        pushed: file.par.as_ref().map_or(fapi, |par| par.value),
        require_iss: file.require_iss.as_ref().map_or(fapi, |required| required.value),
        request_object: documents.request_object,
        fapi_algorithms_only: fapi,
        max_age: max_age?,
        acr_values: acr_values?,
        prompt: prompt?,
        login_hint: login_hint?,
        claims: documents.claims,
        authorization_details: documents.authorization_details,
        resources: resources?,
    };
    if options.essential_acr(&Subject::shared()).is_some() && !asks_for_id_token(file) {
        let problem = "makes `acr` essential, which is checked in the ID token; add \"openid\" to `scopes`";
        faults.push(&file.at.join("claims"), problem);
    }
    Some(options)
}

fn asks_for_id_token(file: &ProfileFile) -> bool {
    file.scopes.as_ref().is_some_and(|scopes| scopes.value.iter().any(|scope| scope == "openid"))
}

/// It is checked in the ID token, so there must be one.
fn max_age(file: &ProfileFile, faults: &mut Faults) -> Option<Option<Duration>> {
    let Some(age) = &file.max_age else { return Some(None) };
    if !asks_for_id_token(file) {
        faults.push(&age.at, "is checked in the ID token; add \"openid\" to `scopes`");
        return None;
    }
    if age.value.subsec_nanos() != 0 || age.value > LONGEST_AGE {
        faults.push(&age.at, "must be whole seconds, and at most a year");
        return None;
    }
    Some(Some(age.value))
}

/// RFC 8707 section 2: absolute, without fragment. They are sent exactly as written.
fn resources(list: &Located<OneOrMore>, faults: &mut Faults) -> Option<Vec<String>> {
    let good = |text: &&String| Url::parse(text).is_ok_and(|url| url.fragment().is_none());
    for bad in list.value.0.iter().filter(|text| !good(text)) {
        faults.push(&list.at, format!("{bad:?} is no absolute URI without a fragment"));
    }
    list.value.0.iter().all(|text| good(&text)).then(|| list.value.0.clone())
}
