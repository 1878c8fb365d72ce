//! The token response (RFC 6749 section 5.1), tolerant of the quirks that real servers are known
//! for, each named here:
//!
//! - `expires_in` as text or with a fraction (rounded down); zero or negative means ended already;
//!   absent or unreadable means unknown; more than ten years counts as ten years
//! - `token_type` in any case; absent, null or empty means `Bearer`, any other type than that and
//!   `DPoP` is refused (section 7.1: a token of unknown type must not be used)
//! - `refresh_token` null or empty is absent
//! - `scope` as an array of texts; an unreadable one is absent (section 3.3: then as requested)
//! - `scope` with commas and no space, as GitHub and LinkedIn have it
//! - an error in a 200
//! - a form instead of JSON
//! - a byte order mark; any 2xx status; any `Content-Type`
//!
//! What only one server does is in its [`AnswerFormat`].

use std::collections::BTreeMap;
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use serde_json::{Map, Value};

pub use super::answer_format::AnswerFormat;
use super::answer_format::members_of;
use super::scope::ScopeSet;
use super::secret::Secret;
use super::strict_json;
use super::token::{AccessToken, RefreshToken, TokenType};
use super::token_error;
pub use super::token_error::TokenAnswerError;
use crate::clock::Timestamp;

/// Largest answer read, in bytes.
pub const MAX_ANSWER: usize = 256 * 1024;

const LONGEST_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// Further members that are kept of one answer, and of all since the first.
const OF_ONE_ANSWER: Bounds = Bounds { members: 32, bytes: 16 * 1024 };
const OF_ALL_ANSWERS: Bounds = Bounds { members: 64, bytes: 32 * 1024 };

/// How many members are kept, and how large they are in all.
#[derive(Clone, Copy)]
struct Bounds {
    members: usize,
    bytes: usize,
}

impl Bounds {
    /// Makes room for a member, if there is any left.
    fn take(&mut self, name: &str, value: &Value) -> bool {
        let size = name.len().saturating_add(value.to_string().len());
        let (Some(members), Some(bytes)) = (self.members.checked_sub(1), self.bytes.checked_sub(size)) else {
            return false;
        };
        *self = Self { members, bytes };
        true
    }
}

/// Members with a field of their own.
const KNOWN: [&str; 6] = ["access_token", "token_type", "expires_in", "refresh_token", "scope", "id_token"];

/// A successful answer of the token endpoint.
#[derive(Clone, Debug)]
pub struct TokenResponse {
    /// The access token.
    pub access_token: AccessToken,
    /// How to present it.
    pub token_type: TokenType,
    /// Its lifetime from now; zero if it has ended already, `None` if unknown.
    pub expires_in: Option<Duration>,
    /// A new refresh token; `None` means the old one stays (section 6).
    pub refresh_token: Option<RefreshToken>,
    /// Scope granted; `None` means as requested (section 3.3).
    pub scope: Option<ScopeSet>,
    /// The ID token, not checked yet (OpenID Connect Core section 3.1.3.3).
    pub id_token: Option<Secret>,
    /// Further members that are neither tokens nor known, such as `instance_url`.
    pub extra: BTreeMap<String, Value>,
}

/// Reads an answer of the token endpoint of a server whose answers are in `format`. `now` is for a
/// `Retry-After` that is a date.
pub fn parse_token_answer(
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
    now: Timestamp,
    format: AnswerFormat<'_>,
) -> Result<TokenResponse, TokenAnswerError> {
    if !status.is_success() {
        return Err(TokenAnswerError::of_answer(status.as_u16(), headers, body, now, format));
    }
    if body.len() > MAX_ANSWER {
        return Err(malformed(format!("is longer than {MAX_ANSWER} bytes")));
    }
    let mut members = members_of(headers, body).map_err(|fault| malformed(fault.to_string()))?;
    format.normalize(&mut members);
    let answer = read(status, &mut members, format);
    // Whatever was not moved into a secret is wiped: it may be a token.
    members.values_mut().for_each(strict_json::wipe);
    answer
}

fn malformed(why: impl Into<String>) -> TokenAnswerError {
    TokenAnswerError::Malformed { why: why.into() }
}

fn read(
    status: StatusCode,
    members: &mut Map<String, Value>,
    format: AnswerFormat<'_>,
) -> Result<TokenResponse, TokenAnswerError> {
    let has_token = members.get("access_token").is_some_and(|value| !is_blank(value));
    let has_error = match members.get("error") {
        Some(error) if !is_blank(error) => true,
        // Other envelopes count only where no token is: many answers carry an `error_code` of zero.
        _ => !has_token && token_error::find_code(members, format).is_some(),
    };
    if has_error {
        return Err(TokenAnswerError::refused(status.as_u16(), members, format));
    }
    if !has_token {
        return Err(malformed("has no access_token"));
    }
    let access_token = text_of(members, "access_token")?.unwrap_or_default();
    let access_token = AccessToken::new(access_token).map_err(|fault| malformed(described(fault)))?;
    let refresh_token = text_of(members, "refresh_token")?
        .map(RefreshToken::new)
        .transpose()
        .map_err(|fault| malformed(described(fault)))?;
    Ok(TokenResponse {
        access_token,
        token_type: token_type(members, format)?,
        expires_in: members.get("expires_in").and_then(lifetime),
        refresh_token,
        scope: members.get("scope").and_then(|value| scope(value, format.scope_separator)),
        // An ID token of another type is left to the ID token's own checks to miss: refusing the
        // whole answer here would lose a rotated refresh token.
        id_token: text_of(members, "id_token").ok().flatten().map(Secret::new),
        extra: extra(members, format),
    })
}

fn described(fault: impl std::fmt::Display) -> String {
    format!("is unusable: {fault}")
}

/// Null, `false`, zero, or an empty text, array or object.
fn is_blank(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.is_empty(),
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::Bool(true) => false,
    }
}

/// Moves a text out; `None` if absent, null or empty.
fn text_of(members: &mut Map<String, Value>, name: &str) -> Result<Option<String>, TokenAnswerError> {
    match members.get_mut(name).map(Value::take) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok((!text.is_empty()).then_some(text)),
        Some(mut other) => {
            strict_json::wipe(&mut other);
            Err(malformed(format!("has a member {name} that is not a text")))
        }
    }
}

fn token_type(
    members: &mut Map<String, Value>,
    format: AnswerFormat<'_>,
) -> Result<TokenType, TokenAnswerError> {
    let means_bearer = |text: &str| format.token_types.iter().any(|known| text.eq_ignore_ascii_case(known));
    match text_of(members, "token_type")? {
        None => Ok(TokenType::Bearer),
        Some(text) if text.trim().eq_ignore_ascii_case("bearer") => Ok(TokenType::Bearer),
        Some(text) if text.trim().eq_ignore_ascii_case("dpop") => Ok(TokenType::Dpop),
        Some(text) if means_bearer(text.trim()) => Ok(TokenType::Bearer),
        Some(_) => Err(malformed("has another token_type than Bearer")),
    }
}

fn lifetime(value: &Value) -> Option<Duration> {
    let seconds = match value {
        Value::Number(number) => number.as_f64()?,
        Value::String(text) => text.trim().parse::<f64>().ok()?,
        _ => return None,
    };
    if seconds.is_nan() {
        return None;
    }
    let bounded = seconds.clamp(0.0, LONGEST_LIFETIME.as_secs_f64()).floor();
    Duration::try_from_secs_f64(bounded).ok()
}

fn scope(value: &Value, separator: Option<char>) -> Option<ScopeSet> {
    let scopes = match value {
        Value::String(text) => {
            let separator = separator.unwrap_or(if text.contains(' ') { ' ' } else { ',' });
            let tokens = text.split([separator, ' ']).filter(|token| !token.is_empty());
            ScopeSet::from_tokens(tokens).ok()?
        }
        Value::Array(items) => {
            let tokens = items.iter().map(Value::as_str).collect::<Option<Vec<_>>>()?;
            ScopeSet::from_tokens(tokens).ok()?
        }
        _ => return None,
    };
    (!scopes.is_empty()).then_some(scopes)
}

/// Further members to keep: those of the newest answer, and what is left of the `earlier` ones. A server
/// that makes up new names for ever gets no more room than any other.
pub fn carried_over(
    earlier: &BTreeMap<String, Value>,
    newest: BTreeMap<String, Value>,
) -> BTreeMap<String, Value> {
    let mut room = OF_ALL_ANSWERS;
    let mut kept = newest;
    kept.retain(|name, value| room.take(name, value));
    for (name, value) in earlier {
        if !kept.contains_key(name) && room.take(name, value) {
            kept.insert(name.clone(), value.clone());
        }
    }
    kept
}

fn extra(members: &Map<String, Value>, format: AnswerFormat<'_>) -> BTreeMap<String, Value> {
    let mut room = OF_ONE_ANSWER;
    let mut kept = BTreeMap::new();
    for (name, value) in members {
        if is_secret(name) || KNOWN.contains(&name.as_str()) || format.is_envelope(name) {
            continue;
        }
        let value = without_secrets(value);
        if !value.is_null() && room.take(name, &value) {
            kept.insert(name.clone(), value);
        }
    }
    kept
}

fn is_secret(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    lower.ends_with("token") || lower.contains("secret") || lower.contains("password")
}

/// A copy of `value` without members that are secrets, however deep.
fn without_secrets(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            let kept = members.iter().filter(|(name, value)| !is_secret(name) && !value.is_null());
            Value::Object(kept.map(|(name, value)| (name.clone(), without_secrets(value))).collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(without_secrets).collect()),
        plain => plain.clone(),
    }
}

#[cfg(test)]
mod tests;
