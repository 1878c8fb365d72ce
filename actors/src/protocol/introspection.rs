//! Token introspection (RFC 7662): what an authorization server says of a token.

use http::{HeaderMap, StatusCode};
use serde::Serialize;
use serde_json::Value;

use super::strict_json::{self, numeric_date};
use super::token_error::TokenAnswerError;
use crate::clock::Timestamp;

/// Longest text kept, in characters.
const MAX_TEXT: usize = 4096;

/// Audiences kept.
const MAX_AUDIENCES: usize = 64;

/// The members of RFC 7662 section 2.2 that we show. The token is not among them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct IntrospectionResponse {
    /// Whether the token lives. A server that does not know it says no.
    pub active: bool,
    /// Its scope.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// When it ends, in seconds since the epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exp: Option<u64>,
    /// When it was issued, in seconds since the epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iat: Option<u64>,
    /// Whom it stands for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sub: Option<String>,
    /// The client that it was issued to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// Its type (RFC 6749 section 7.1).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_type: Option<String>,
    /// Whom it is meant for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aud: Option<Audience>,
    /// Who issued it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iss: Option<String>,
    /// A name of whom it stands for, for people to read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
}

/// One or several, as the server has it (RFC 7519 section 4.1.3).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Audience {
    /// One.
    One(String),
    /// Several.
    Several(Vec<String>),
}

impl IntrospectionResponse {
    /// Reads an answer about `token` (RFC 7662 section 2.2), which no member may repeat. `now` is for
    /// a `Retry-After` that is a date.
    pub fn parse(
        status: StatusCode,
        headers: &HeaderMap,
        body: &[u8],
        token: &str,
        now: Timestamp,
    ) -> Result<Self, TokenAnswerError> {
        if !status.is_success() {
            return Err(TokenAnswerError::of_status(status.as_u16(), headers, body, now));
        }
        let malformed = |why: String| TokenAnswerError::Malformed { why };
        let members = strict_json::object(body).map_err(|fault| malformed(fault.to_string()))?;
        let active = members.get("active").and_then(Value::as_bool);
        let active =
            active.ok_or_else(|| malformed("does not say whether the token is active".to_owned()))?;
        if !active {
            // Nothing else that it says counts.
            return Ok(Self::default());
        }
        let text = |name| members.get(name).and_then(|value| text(value, token));
        Ok(Self {
            active,
            scope: text("scope"),
            exp: members.get("exp").and_then(numeric_date),
            iat: members.get("iat").and_then(numeric_date),
            sub: text("sub"),
            client_id: text("client_id"),
            token_type: text("token_type"),
            aud: members.get("aud").and_then(|value| audience(value, token)),
            iss: text("iss"),
            username: text("username"),
        })
    }
}

fn text(value: &Value, token: &str) -> Option<String> {
    let text = value.as_str().filter(|text| !text.contains(token))?;
    Some(text.chars().filter(|c| !c.is_control()).take(MAX_TEXT).collect())
}

fn audience(value: &Value, token: &str) -> Option<Audience> {
    match value {
        Value::Array(items) => {
            let items = items.iter().take(MAX_AUDIENCES).filter_map(|item| text(item, token));
            Some(Audience::Several(items.collect()))
        }
        one => text(one, token).map(Audience::One),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    fn parse(status: u16, body: &str) -> Result<IntrospectionResponse, TokenAnswerError> {
        let status = StatusCode::from_u16(status).unwrap();
        let now = Timestamp::from_secs(1_000);
        IntrospectionResponse::parse(status, &HeaderMap::new(), body.as_bytes(), "mF_9.B5f-4.1JqM", now)
    }

    #[test]
    fn the_answer_of_rfc_7662_section_2_2_is_read() {
        let answer = parse(
            200,
            r#"{ "active": true, "client_id": "l238j323ds-23ij4", "username": "jdoe",
                 "scope": "read write dolphin", "sub": "Z5O3upPC88QrAjx00dis",
                 "aud": "https://protected.example.net/resource", "iss": "https://server.example.com/",
                 "exp": 1419356238, "iat": 1419350238, "extension_field": "twenty-seven" }"#,
        );
        assert_eq!(
            serde_json::to_value(answer.unwrap()).unwrap(),
            json!({
                "active": true, "client_id": "l238j323ds-23ij4", "username": "jdoe",
                "scope": "read write dolphin", "sub": "Z5O3upPC88QrAjx00dis",
                "aud": "https://protected.example.net/resource", "iss": "https://server.example.com/",
                "exp": 1_419_356_238, "iat": 1_419_350_238,
            })
        );
    }

    #[test]
    fn of_a_dead_token_nothing_more_is_said() {
        let answer = parse(200, r#"{"active":false,"sub":"x","exp":5}"#).unwrap();
        assert_eq!(serde_json::to_value(answer).unwrap(), json!({ "active": false }));
    }

    #[test]
    fn no_member_repeats_the_token() {
        let answer = parse(
            200,
            r#"{"active":true,"sub":"mF_9.B5f-4.1JqM","username":"a mF_9.B5f-4.1JqM","aud":["mF_9.B5f-4.1JqM","b"]}"#,
        );
        let answer = answer.unwrap();
        assert!(!format!("{answer:?}").contains("mF_9"), "{answer:?}");
        assert_eq!(answer.aud, Some(Audience::Several(vec!["b".to_owned()])));
    }

    #[test]
    fn hostile_answers_are_faults_or_harmless() {
        for body in ["", "{}", "[]", r#"{"active":"true"}"#, r#"{"active":1}"#, "<html>"] {
            assert!(matches!(parse(200, body), Err(TokenAnswerError::Malformed { .. })), "{body}");
        }
        let odd = parse(200, r#"{"active":true,"exp":-1e300,"iat":"soon","sub":5,"aud":{}}"#).unwrap();
        assert_eq!(odd, IntrospectionResponse { active: true, ..IntrospectionResponse::default() });
        assert!(matches!(parse(503, ""), Err(TokenAnswerError::ServerError { .. })));
    }
}
