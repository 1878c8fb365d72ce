//! Token requests that brought no token: what the answer means (RFC 6749 section 5.2).

use std::time::{Duration, UNIX_EPOCH};

use http::HeaderMap;
use http::header::RETRY_AFTER;
use serde_json::{Map, Value};
use thiserror::Error;

use super::answer_format::{AnswerFormat, members_of};
use super::printable::{error_code, printable};
use super::strict_json;
use crate::clock::Timestamp;

/// A `Retry-After` is never taken to mean more than this.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(24 * 3600);

/// What an error code says about whose move it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodeMeaning {
    /// The grant (code, refresh token) is dead.
    GrantDead,
    /// The client itself is refused.
    ClientRefused,
    /// What the client asks for is refused.
    RequestRefused,
    /// The server is not well; the same request may succeed later.
    ServerUnwell,
}

impl CodeMeaning {
    /// The standard codes that a server's own can be said to mean.
    pub const NAMES: [(&str, Self); 5] = [
        ("invalid_grant", Self::GrantDead),
        ("invalid_client", Self::ClientRefused),
        ("invalid_request", Self::RequestRefused),
        ("invalid_scope", Self::RequestRefused),
        ("temporarily_unavailable", Self::ServerUnwell),
    ];

    /// What the standard code `name` means.
    pub fn named(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(known, _)| *known == name).map(|(_, meaning)| *meaning)
    }
}

/// Error codes with a meaning of their own: RFC 6749 sections 4.1.2.1 and 5.2, and the names that
/// widely used servers have for the same. Any other code means the request is refused.
pub const CODES: [(&str, CodeMeaning); 14] = [
    ("invalid_grant", CodeMeaning::GrantDead),
    // GitHub, in a 200.
    ("bad_refresh_token", CodeMeaning::GrantDead),
    ("bad_verification_code", CodeMeaning::GrantDead),
    // Slack, in a 200.
    ("invalid_refresh_token", CodeMeaning::GrantDead),
    ("invalid_client", CodeMeaning::ClientRefused),
    ("unauthorized_client", CodeMeaning::ClientRefused),
    // GitHub, in a 200.
    ("incorrect_client_credentials", CodeMeaning::ClientRefused),
    ("invalid_scope", CodeMeaning::RequestRefused),
    ("invalid_request", CodeMeaning::RequestRefused),
    ("unsupported_grant_type", CodeMeaning::RequestRefused),
    ("access_denied", CodeMeaning::RequestRefused),
    ("temporarily_unavailable", CodeMeaning::ServerUnwell),
    ("server_error", CodeMeaning::ServerUnwell),
    ("slow_down", CodeMeaning::ServerUnwell),
];

/// Where servers put the error code, best first. `*` stands for every entry of an array.
const PLACES: [&[&str]; 11] = [
    &["error"],
    &["error", "code"],
    &["error", "error"],
    &["error", "type"],
    &["errors", "*"],
    &["errors", "*", "code"],
    &["errors", "*", "error"],
    &["errors", "*", "errorCode"],
    &["error_code"],
    &["errorCode"],
    &["fault", "code"],
];

/// A place that holds other things too, so that only a known code counts.
const AMBIGUOUS_PLACE: &[&str] = &["code"];

/// Where servers put words about the error.
const DESCRIPTIONS: [&[&str]; 6] = [
    &["error_description"],
    &["error", "message"],
    &["error", "description"],
    &["errors", "*", "message"],
    &["errorSummary"],
    &["message"],
];

/// Entries of an array that are looked at.
const MAX_ENTRIES: usize = 8;

/// Why an answer of the token endpoint brought no token. No variant carries a token, a secret or
/// a control character.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TokenAnswerError {
    /// The server refused. The code says whose move it is: see [`TokenAnswerError::meaning`].
    #[error("refused with status {status}{}{}", after(": ", code), after(": ", description.as_deref().unwrap_or_default()))]
    Refused {
        /// The error code in the characters of RFC 6749 section 5.2, at most 64; empty if the
        /// answer has none.
        code: String,
        /// The server's own words, printable ASCII, at most 200 characters.
        description: Option<String>,
        /// HTTP status.
        status: u16,
        /// What the code means where it is the server's own.
        own: Option<CodeMeaning>,
    },
    /// Said to be a token response, and is none: the provider's fault, or a wrong `token_endpoint`.
    #[error("the answer {why}")]
    Malformed {
        /// What is wrong with it, without any of its content.
        why: String,
    },
    /// 5xx: the server failed, whatever the body says.
    #[error("the server failed with status {status}")]
    ServerError {
        /// HTTP status.
        status: u16,
        /// The server's own wish.
        retry_after: Option<Duration>,
    },
    /// 429: too many requests.
    #[error("the server throttles us (status 429)")]
    Throttled {
        /// The server's own wish.
        retry_after: Option<Duration>,
    },
    /// 3xx: never followed, since it would send the client's secret elsewhere. Mend the
    /// `token_endpoint`.
    #[error("the server redirects (status {status}), which is never followed")]
    Redirected {
        /// HTTP status.
        status: u16,
    },
}

fn after(separator: &str, text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("{separator}{text}") }
}

impl TokenAnswerError {
    /// Names the fault of an answer with another status than 2xx. The status decides first: a
    /// failing server's body is not believed, so that no grant is dropped on its word.
    pub fn of_status(status: u16, headers: &HeaderMap, body: &[u8], now: Timestamp) -> Self {
        Self::of_answer(status, headers, body, now, AnswerFormat::default())
    }

    /// As [`of_status`](Self::of_status), for a server whose answers are in `format`.
    pub fn of_answer(
        status: u16,
        headers: &HeaderMap,
        body: &[u8],
        now: Timestamp,
        format: AnswerFormat<'_>,
    ) -> Self {
        match status {
            429 => Self::Throttled { retry_after: retry_after(headers, now) },
            // 408 and 425 are the server's haste, not our request's fault.
            408 | 425 | 500.. => Self::ServerError { status, retry_after: retry_after(headers, now) },
            300..=399 => Self::Redirected { status },
            400..=499 => {
                let mut members = members_of(headers, body).unwrap_or_default();
                let refusal = Self::refused(status, &members, format);
                members.values_mut().for_each(strict_json::wipe);
                refusal
            }
            _ => Self::Malformed { why: format!("has the unexpected status {status}") },
        }
    }

    /// A refusal, with the code and the words found in `members`.
    pub(super) fn refused(status: u16, members: &Map<String, Value>, format: AnswerFormat<'_>) -> Self {
        let code = find_code(members, format).unwrap_or_default();
        let own = format.members.and_then(|at| at.error_description.as_ref()).and_then(|at| at.find(members));
        let description = own
            .and_then(Value::as_str)
            .into_iter()
            .chain(DESCRIPTIONS.iter().flat_map(|path| texts_at(members, path)))
            .map(|text| printable(text, 200))
            .find(|text| !text.is_empty());
        let own = format.own_meaning(&code);
        Self::Refused { code, description, status, own }
    }

    /// What a refusal's code says; `None` unless it is [refused](Self::Refused).
    pub fn meaning(&self) -> Option<CodeMeaning> {
        let Self::Refused { code, status, own, .. } = self else { return None };
        Some(match own.or_else(|| known(code)) {
            Some(meaning) => meaning,
            None if code.is_empty() && *status == 401 => CodeMeaning::ClientRefused,
            None => CodeMeaning::RequestRefused,
        })
    }

    /// Whether the server does not know the client, or does not take its proof (`invalid_client`).
    pub fn is_unknown_client(&self) -> bool {
        let Self::Refused { code, status, .. } = self else { return false };
        code == "invalid_client" || code.is_empty() && *status == 401
    }

    /// Leaves out code and description if they repeat one of `secrets`, as servers do that print
    /// the refresh token they refuse.
    #[must_use]
    pub fn without<'s>(mut self, secrets: impl IntoIterator<Item = &'s str>) -> Self {
        if let Self::Refused { code, description, own, .. } = &mut self {
            for secret in secrets.into_iter().filter(|secret| secret.len() >= 6) {
                // A cut description may end within the secret, so its beginning is looked for.
                let start = secret.get(..secret.len().min(12)).unwrap_or(secret);
                if own.is_none() && known(code).is_none() && code.contains(start) {
                    code.clear();
                }
                if description.as_ref().is_some_and(|text| text.contains(start)) {
                    *description = None;
                }
            }
        }
        self
    }
}

fn known(code: &str) -> Option<CodeMeaning> {
    CODES.iter().find(|(name, _)| *name == code).map(|(_, meaning)| *meaning)
}

/// The error code in `members`: a known one if there is any, otherwise the first.
pub(super) fn find_code(members: &Map<String, Value>, format: AnswerFormat<'_>) -> Option<String> {
    let at = |path: &[&str]| texts_at(members, path).into_iter().map(error_code).collect::<Vec<_>>();
    let known = |code: &str| format.own_meaning(code).or_else(|| known(code));
    // Where the server has its own place, codes may be numbers.
    let own = match format.members.and_then(|at| at.error.as_ref()).and_then(|path| path.find(members)) {
        Some(Value::String(text)) => Some(error_code(text)),
        Some(Value::Number(number)) => Some(error_code(&number.to_string())),
        _ => None,
    };
    let mut codes: Vec<String> = own
        .into_iter()
        .chain(PLACES.iter().flat_map(|path| at(path)))
        .filter(|code| !code.is_empty())
        .collect();
    codes.extend(at(AMBIGUOUS_PLACE).into_iter().filter(|code| known(code).is_some()));
    let best = codes.iter().position(|code| known(code).is_some()).unwrap_or(0);
    (!codes.is_empty()).then(|| codes.swap_remove(best))
}

fn texts_at<'m>(members: &'m Map<String, Value>, path: &[&str]) -> Vec<&'m str> {
    let Some((first, rest)) = path.split_first() else { return Vec::new() };
    let mut found: Vec<&Value> = members.get(*first).into_iter().collect();
    for step in rest {
        found = found
            .into_iter()
            .flat_map(|value| match (value, *step) {
                (Value::Array(items), "*") => items.iter().take(MAX_ENTRIES).collect(),
                (Value::Object(inner), name) => inner.get(name).into_iter().collect(),
                _ => Vec::new(),
            })
            .collect();
    }
    found.into_iter().filter_map(Value::as_str).collect()
}

/// `Retry-After` as seconds or as a date (RFC 9110 section 10.2.3); at most a day.
pub fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        Duration::from_secs(text.parse().unwrap_or(u64::MAX))
    } else {
        let at = httpdate::parse_http_date(text).ok()?.duration_since(UNIX_EPOCH).ok()?;
        Timestamp::from_secs(at.as_secs()).since(now)
    };
    Some(wait.min(LONGEST_RETRY_AFTER))
}

#[cfg(test)]
mod tests;
