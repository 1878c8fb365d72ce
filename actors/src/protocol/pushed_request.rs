//! The answer to a pushed authorization request (RFC 9126 section 2.2).

use std::time::Duration;

use http::{HeaderMap, StatusCode};
use serde_json::Value;

use super::strict_json;
use super::token_error::TokenAnswerError;
use crate::clock::Timestamp;

const MAX_REQUEST_URI: usize = 2048;

/// Where the authorization server keeps what was pushed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushedRequest {
    /// The reference; used once.
    pub request_uri: String,
    /// How long it can be used from now on; never nothing.
    pub expires_in: Duration,
}

/// Reads the answer: 201, or 200 as some servers have it. `now` is for a `Retry-After` that is a
/// date.
///
/// # Errors
/// [`TokenAnswerError`], as at the token endpoint (section 2.3).
pub fn parse_pushed_answer(
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
    now: Timestamp,
) -> Result<PushedRequest, TokenAnswerError> {
    if !matches!(status.as_u16(), 200 | 201) {
        return Err(TokenAnswerError::of_status(status.as_u16(), headers, body, now));
    }
    let malformed = |why: &str| TokenAnswerError::Malformed { why: why.to_owned() };
    let members = strict_json::object(body).map_err(|fault| malformed(&fault.to_string()))?;
    let request_uri = members.get("request_uri").and_then(Value::as_str).unwrap_or_default();
    let printable = request_uri.bytes().all(|b| (0x21..=0x7e).contains(&b));
    if request_uri.is_empty() || request_uri.len() > MAX_REQUEST_URI || !printable {
        return Err(malformed("has no usable request_uri"));
    }
    let seconds = members.get("expires_in").and_then(Value::as_f64).unwrap_or_default();
    match Duration::try_from_secs_f64(seconds) {
        Ok(expires_in) if !expires_in.is_zero() => {
            Ok(PushedRequest { request_uri: request_uri.to_owned(), expires_in })
        }
        _ => Err(malformed("has no expires_in, or one that has passed")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn parse(status: u16, body: &str) -> Result<PushedRequest, TokenAnswerError> {
        let status = StatusCode::from_u16(status).unwrap();
        parse_pushed_answer(status, &HeaderMap::new(), body.as_bytes(), Timestamp::from_secs(0))
    }

    #[test]
    fn the_answer_of_rfc_9126_section_2_2_is_read() {
        let body = r#"{"request_uri": "urn:ietf:params:oauth:request_uri:6esc_11ACC5bwc014ltc14eY22c",
                       "expires_in": 60}"#;
        for status in [200, 201] {
            let pushed = parse(status, body).unwrap();
            assert_eq!(pushed.request_uri, "urn:ietf:params:oauth:request_uri:6esc_11ACC5bwc014ltc14eY22c");
            assert_eq!(pushed.expires_in, Duration::from_secs(60));
        }
        assert!(parse(202, body).is_err());
    }

    #[test]
    fn errors_are_those_of_the_token_endpoint() {
        // RFC 9126 section 2.3.
        let refused = parse(400, r#"{"error": "invalid_request", "error_description": "no redirect_uri"}"#);
        assert!(matches!(refused, Err(TokenAnswerError::Refused { code, .. }) if code == "invalid_request"));
        assert!(matches!(parse(429, ""), Err(TokenAnswerError::Throttled { .. })));
        assert!(matches!(parse(503, ""), Err(TokenAnswerError::ServerError { status: 503, .. })));
    }

    #[test]
    fn a_reference_that_cannot_be_used_is_refused() {
        for body in [
            "{}",
            "[]",
            r#"{"request_uri":"","expires_in":60}"#,
            r#"{"request_uri":"urn:a b","expires_in":60}"#,
            r#"{"request_uri":"urn:a"}"#,
            r#"{"request_uri":"urn:a","expires_in":0}"#,
            r#"{"request_uri":"urn:a","expires_in":-1}"#,
        ] {
            assert!(matches!(parse(201, body), Err(TokenAnswerError::Malformed { .. })), "{body}");
        }
    }
}
