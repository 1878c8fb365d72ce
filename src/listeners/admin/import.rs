//! Taking in a token set that was obtained elsewhere.

use std::collections::BTreeMap;
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use claviger_actors::clock::Timestamp;
use claviger_actors::protocol::identifiers::ConnectionId;
use claviger_actors::protocol::scope::ScopeSet;
use claviger_actors::protocol::secret::{self, Secret};
use claviger_actors::protocol::token::{AccessToken, Expiry, ExpiryBasis, RefreshToken, TokenSet, TokenType};
use serde::Deserialize;

use super::connections::{known_connection, token_problem};
use super::{AdminState, json, logged};
use crate::listeners::problem::{Problem, ProblemCode};

/// No token is believed to live longer.
const LONGEST_LIFETIME: u64 = 10 * 365 * 24 * 3600;
/// What is presumed of a token of which nothing is known.
const GUESSED_LIFETIME: Duration = Duration::from_secs(3600);

/// A token set as an operator sends it (RFC 6749 section 5.1 names).
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenSetImport {
    #[serde(with = "secret::sealed")]
    access_token: Secret,
    token_type: Option<String>,
    /// Seconds from now.
    expires_in: Option<u64>,
    expires_at: Option<ExpiresAt>,
    refresh_token: Option<Sent>,
    scope: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Sent(#[serde(with = "secret::sealed")] Secret);

/// A moment, as RFC 3339 text or as seconds since the Unix epoch.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum ExpiresAt {
    Seconds(u64),
    Text(String),
}

impl ExpiresAt {
    fn moment(&self) -> Result<Timestamp, String> {
        match self {
            Self::Seconds(seconds) => Ok(Timestamp::from_secs(*seconds)),
            Self::Text(text) => humantime::parse_rfc3339_weak(text)
                .ok()
                .and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok())
                .map(|since| Timestamp::from_secs(since.as_secs()))
                .ok_or_else(|| {
                    "expires_at must be RFC 3339 in UTC, such as 2030-01-31T12:00:00Z, or seconds since 1970"
                        .to_owned()
                }),
        }
    }
}

impl TokenSetImport {
    /// The token set, obtained now as far as anybody knows.
    fn checked(self, now: Timestamp, default_lifetime: Option<Duration>) -> Result<TokenSet, String> {
        if self.token_type.as_deref().is_some_and(|kind| !kind.eq_ignore_ascii_case("bearer")) {
            return Err("token_type must be Bearer; no other type can be used yet".to_owned());
        }
        let latest = now.after(Duration::from_secs(LONGEST_LIFETIME));
        let expiry = match (self.expires_in, &self.expires_at) {
            (Some(_), Some(_)) => return Err("give expires_in or expires_at, not both".to_owned()),
            (Some(seconds), None) => {
                Expiry::Stated { at: now.after(Duration::from_secs(seconds.min(LONGEST_LIFETIME))) }
            }
            (None, Some(at)) => Expiry::Stated { at: at.moment()?.min(latest) },
            (None, None) => match default_lifetime {
                Some(lifetime) => {
                    Expiry::Presumed { at: now.after(lifetime), basis: ExpiryBasis::ProfileDefault }
                }
                None => Expiry::Presumed { at: now.after(GUESSED_LIFETIME), basis: ExpiryBasis::Guess },
            },
        };
        let refresh_token = self.refresh_token.map(|Sent(token)| RefreshToken::new(token.expose()));
        // A scope error repeats the text, which may be a token in the wrong place.
        let scope = self.scope.as_deref().map(ScopeSet::parse).transpose();
        Ok(TokenSet {
            access_token: AccessToken::new(self.access_token.expose()).map_err(|e| e.to_string())?,
            dpop_key: None,
            token_type: TokenType::Bearer,
            obtained_at: now,
            expiry,
            refresh_token: refresh_token.transpose().map_err(|e| e.to_string())?,
            refresh_token_obtained_at: None,
            requested_scope: None,
            scope: scope.map_err(|_| "scope has a character that no scope may have".to_owned())?,
            identity: None,
            extra: BTreeMap::new(),
        })
    }
}

/// `PUT /api/connections/{profile}/{subject}`.
pub async fn import(state: web::Data<AdminState>, request: HttpRequest, body: web::Payload) -> HttpResponse {
    let (id, tokens) = match try_read(&state, &request, body).await {
        Ok(read) => read,
        Err(problem) => return logged(*problem),
    };
    match state.gateway.import_connection(&id, tokens).await {
        Ok(view) => {
            tracing::info!(connection = %id, "token set imported by an operator");
            json::answer(StatusCode::OK, &view)
        }
        Err(error) => token_problem(&state, &error),
    }
}

async fn try_read(
    state: &AdminState,
    request: &HttpRequest,
    body: web::Payload,
) -> Result<(ConnectionId, TokenSet), Box<Problem>> {
    let id = known_connection(state, request)?;
    let profile = state.gateway.profile(&id.profile);
    let lifetime = profile.and_then(|profile| profile.registration.default_token_lifetime);
    let tokens = json::read::<TokenSetImport>(body)
        .await?
        .checked(state.gateway.now(), lifetime)
        .map_err(|why| Problem::new(ProblemCode::BadRequest, why, state.request_id()))?;
    Ok((id, tokens))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

    fn read(body: &str) -> Result<TokenSet, String> {
        json::parse::<TokenSetImport>(body.as_bytes()).map_err(|p| p.detail)?.checked(NOW, None)
    }

    #[test]
    fn a_whole_token_set_is_taken_in() {
        let tokens = read(
            r#"{"access_token":"a1","token_type":"bearer","expires_in":60,"refresh_token":"r1","scope":"b a"}"#,
        )
        .unwrap();
        assert_eq!(tokens.access_token.expose(), "a1");
        assert_eq!(tokens.refresh_token.unwrap().expose(), "r1");
        assert_eq!(tokens.expiry, Expiry::Stated { at: NOW.after(Duration::from_secs(60)) });
        assert_eq!(tokens.scope.unwrap().to_string(), "a b");
        assert_eq!(tokens.obtained_at, NOW);
    }

    #[test]
    fn expiry_is_stated_in_either_form_or_presumed() {
        let at = |body: &str| read(&format!(r#"{{"access_token":"a"{body}}}"#)).unwrap().expiry;
        let moment = Timestamp::from_secs(1_800_000_100);
        assert_eq!(at(r#","expires_at":1800000100"#), Expiry::Stated { at: moment });
        assert_eq!(at(r#","expires_at":"2027-01-15T08:01:40Z""#), Expiry::Stated { at: moment });
        assert_eq!(
            at(""),
            Expiry::Presumed { at: NOW.after(Duration::from_secs(3600)), basis: ExpiryBasis::Guess }
        );
        let longest = NOW.after(Duration::from_secs(LONGEST_LIFETIME));
        assert_eq!(at(r#","expires_in":18446744073709551615"#), Expiry::Stated { at: longest });
        assert_eq!(at(r#","expires_at":18446744073709551615"#), Expiry::Stated { at: longest });
    }

    #[test]
    fn a_profile_default_comes_before_a_guess() {
        let import: TokenSetImport = serde_json::from_str(r#"{"access_token":"a"}"#).unwrap();
        let expiry = import.checked(NOW, Some(Duration::from_secs(5))).unwrap().expiry;
        let at = NOW.after(Duration::from_secs(5));
        assert_eq!(expiry, Expiry::Presumed { at, basis: ExpiryBasis::ProfileDefault });
    }

    #[test]
    fn what_cannot_be_used_is_refused_without_repeating_it() {
        for body in [
            "{}",
            r#"{"access_token":""}"#,
            r#"{"access_token":"s3cret token"}"#,
            r#"{"access_token":"s3cret\r\nX: y"}"#,
            r#"{"access_token":["s3cret"]}"#,
            r#"{"access_token":"s3cret","token_type":"mac"}"#,
            r#"{"access_token":"s3cret","expires_in":-1}"#,
            r#"{"access_token":"s3cret","expires_in":"s3cret"}"#,
            r#"{"access_token":"s3cret","expires_in":1,"expires_at":1}"#,
            r#"{"access_token":"s3cret","expires_at":"s3cret"}"#,
            r#"{"access_token":"s3cret","expires_at":"1960-01-01T00:00:00Z"}"#,
            r#"{"access_token":"s3cret","refresh_token":"s3cret token"}"#,
            r#"{"access_token":"s3cret","scope":"s3cret\"token"}"#,
            r#"{"access_token":"s3cret","id_token":"x"}"#,
            r#"{"access_token":"s3cret","access_token":"s3cret"}"#,
        ] {
            let why = read(body).expect_err(body);
            assert!(!why.contains("s3cret"), "{body}: {why}");
        }
    }
}
