//! Checks where a provider departs from the RFCs.

use std::collections::BTreeMap;

use claviger_actors::protocol::token_error::CodeMeaning;
use claviger_actors::proxy::headers::may_carry_token;
use claviger_actors::registration::quirks::{
    AssertionAudience, MemberPath, Presentation, Quirks, RequestFormat, ResponseMembers,
};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::error::{Faults, suggestion};
use super::file::{ProviderFile, ResponseFile};
use super::reader::Located;
use super::variables::Values;

/// Headers of a token request that the gateway writes itself, or that belong to the connection.
const OWN_HEADERS: [&str; 9] = [
    "authorization",
    "connection",
    "content-length",
    "content-type",
    "cookie",
    "host",
    "te",
    "transfer-encoding",
    "upgrade",
];
/// Parameters that keep their name (RFC 6749 section 4.1).
const FIXED_PARAMETERS: [&str; 8] = [
    "response_type",
    "redirect_uri",
    "state",
    "code",
    "grant_type",
    "refresh_token",
    "code_challenge",
    "code_verifier",
];
/// What the callback is always read for (RFC 6749 section 4.1.2, RFC 9207).
const OWN_CALLBACK_PARAMS: [&str; 4] = ["code", "state", "iss", "error"];

/// Reads all quirks, so that every fault is told.
pub(super) fn quirks(file: &ProviderFile, values: &Values, faults: &mut Faults) -> Option<Quirks> {
    let scope_separator = optional(&file.scope_separator, faults, separator);
    let scope_parameter = optional(&file.scope_parameter, faults, parameter);
    let token_request_format = optional(&file.token_request_format, faults, |text| match text {
        "form" => Ok(RequestFormat::Form),
        "json" => Ok(RequestFormat::Json),
        _ => Err("must be \"form\" or \"json\"".to_owned()),
    });
    let token_request_headers = headers(file.token_request_headers.as_ref(), faults);
    let raw_basic_credentials = optional(&file.basic_credentials, faults, |text| match text {
        "encoded" => Ok(false),
        "raw" => Ok(true),
        _ => Err("must be \"raw\", or \"encoded\" as RFC 6749 has it".to_owned()),
    });
    let client_id_parameter = optional(&file.client_id_parameter, faults, parameter);
    let client_secret_parameter = optional(&file.client_secret_parameter, faults, parameter);
    let response = response(file.response.as_ref(), faults);
    let token_types = names(&file.token_types, &[], faults);
    let error_meanings = error_meanings(file.error_meanings.as_ref(), faults);
    let callback_params = names(&file.callback_params, &OWN_CALLBACK_PARAMS, faults);
    let header = optional(&file.access_token_header, faults, token_header);
    let scheme = optional(&file.access_token_scheme, faults, scheme);
    let assertion_audience = match &file.assertion_audience {
        Some(text) => values.fill(text, false, faults).map(|text| Some(text.value)),
        None => Some(None),
    };
    let client_assertion_audience = client_assertion_audience(file, values, faults);
    Some(Quirks {
        scope_separator: scope_separator?,
        scope_parameter: scope_parameter?,
        token_request_format: token_request_format?.unwrap_or_default(),
        token_request_headers: token_request_headers?,
        raw_basic_credentials: raw_basic_credentials?.unwrap_or_default(),
        client_id_parameter: client_id_parameter?,
        client_secret_parameter: client_secret_parameter?,
        response: response?,
        token_types: token_types?,
        error_meanings: error_meanings?,
        callback_params: callback_params?,
        presentation: Presentation { header: header?, scheme: scheme? },
        assertion_audience: assertion_audience?,
        client_assertion_audience: client_assertion_audience?,
    })
}

/// `Some(None)` if not given, `None` if at fault.
fn optional<T>(
    text: &Option<Located<String>>,
    faults: &mut Faults,
    read: impl FnOnce(&str) -> Result<T, String>,
) -> Option<Option<T>> {
    match text {
        None => Some(None),
        Some(text) => faults.note(&text.at, read(&text.value)).map(Some),
    }
}

fn separator(text: &str) -> Result<char, String> {
    let mut chars = text.chars();
    match (chars.next(), chars.next()) {
        (Some(one), None) if one.is_ascii_punctuation() || one == ' ' => Ok(one),
        _ => Err("must be one character that is no letter or digit, such as \",\"".to_owned()),
    }
}

fn parameter(text: &str) -> Result<String, String> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte)) {
        return Err("must be a parameter's name: letters, digits, `_`, `-` and `.`".to_owned());
    }
    if FIXED_PARAMETERS.contains(&text) {
        return Err("is the name of another parameter".to_owned());
    }
    Ok(text.to_owned())
}

fn headers(given: Option<&BTreeMap<String, Located<String>>>, faults: &mut Faults) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    let mut complete = true;
    for (name, value) in given.into_iter().flatten() {
        match (HeaderName::from_bytes(name.as_bytes()), visible(&value.value)) {
            (Ok(name), _) if OWN_HEADERS.contains(&name.as_str()) || name.as_str().starts_with("proxy-") => {
                faults.push(&value.at, "is written by the gateway itself; leave it out");
                complete = false;
            }
            (Ok(name), Some(value)) => drop(headers.insert(name, value)),
            (Err(_), _) => {
                faults.push(&value.at, "is no header name: letters, digits and `-`");
                complete = false;
            }
            (_, None) => {
                faults.push(&value.at, "must be visible ASCII, as header values are");
                complete = false;
            }
        }
    }
    complete.then_some(headers)
}

fn visible(text: &str) -> Option<HeaderValue> {
    HeaderValue::from_str(text).ok().filter(|value| value.to_str().is_ok())
}

fn response(file: Option<&ResponseFile>, faults: &mut Faults) -> Option<ResponseMembers> {
    let Some(file) = file else { return Some(ResponseMembers::default()) };
    let mut path = |text: &Option<Located<String>>| {
        optional(text, faults, |text| MemberPath::parse(text).map_err(|error| error.to_string()))
    };
    let (access_token, refresh_token) = (path(&file.access_token), path(&file.refresh_token));
    let (expires_in, scope, token_type) = (path(&file.expires_in), path(&file.scope), path(&file.token_type));
    let (error, error_description) = (path(&file.error), path(&file.error_description));
    Some(ResponseMembers {
        access_token: access_token?,
        refresh_token: refresh_token?,
        expires_in: expires_in?,
        scope: scope?,
        token_type: token_type?,
        error: error?,
        error_description: error_description?,
    })
}

fn names(given: &Option<Located<Vec<String>>>, own: &[&str], faults: &mut Faults) -> Option<Vec<String>> {
    let Some(given) = given else { return Some(Vec::new()) };
    for name in &given.value {
        if own.contains(&name.as_str()) {
            faults.push(&given.at, format!("`{name}` is read by the gateway itself; leave it out"));
            return None;
        }
        if name.is_empty() || !name.bytes().all(|byte| (0x20..=0x7e).contains(&byte)) {
            faults.push(&given.at, format!("{name:?} must be printable ASCII, and not empty"));
            return None;
        }
    }
    Some(given.value.clone())
}

fn error_meanings(
    given: Option<&BTreeMap<String, Located<String>>>,
    faults: &mut Faults,
) -> Option<BTreeMap<String, CodeMeaning>> {
    let mut meanings = BTreeMap::new();
    let mut complete = true;
    for (code, name) in given.into_iter().flatten() {
        if let Some(meaning) = CodeMeaning::named(&name.value) {
            meanings.insert(code.clone(), meaning);
        } else {
            let hint = suggestion(&name.value, CodeMeaning::NAMES.iter().map(|(name, _)| *name));
            faults.push(&name.at, format!("`{}` is no meaning of an error code{hint}", name.value));
            complete = false;
        }
    }
    complete.then_some(meanings)
}

fn token_header(text: &str) -> Result<HeaderName, String> {
    let name = HeaderName::from_bytes(text.as_bytes())
        .map_err(|_| "is no header name: letters, digits and `-`".to_owned())?;
    if !may_carry_token(name.as_str()) {
        return Err("is a header that the gateway or the connection needs itself".to_owned());
    }
    Ok(name)
}

/// RFC 9110 section 11.1: a token, or nothing.
fn scheme(text: &str) -> Result<String, String> {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if text.bytes().all(token) {
        return Ok(text.to_owned());
    }
    Err("must be one word, such as \"Token\", or empty".to_owned())
}

fn client_assertion_audience(
    file: &ProviderFile,
    values: &Values,
    faults: &mut Faults,
) -> Option<AssertionAudience> {
    let Some(text) = &file.client_assertion_audience else { return Some(AssertionAudience::default()) };
    match text.value.as_str() {
        "issuer" => Some(AssertionAudience::Issuer),
        "token_endpoint" => Some(AssertionAudience::TokenEndpoint),
        fixed if fixed.contains("://") => {
            values.fill(text, false, faults).map(|text| AssertionAudience::Fixed(text.value))
        }
        _ => {
            faults.push(&text.at, "must be \"issuer\", \"token_endpoint\" or a URL");
            None
        }
    }
}
