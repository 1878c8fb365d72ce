//! The device authorization response (RFC 8628 section 3.2) and what the token endpoint says while
//! the person has not decided (section 3.5).

use std::time::Duration;

use http::{HeaderMap, StatusCode};
use serde_json::{Map, Value};
use url::Url;

use super::metadata::is_allowed_endpoint;
use super::secret::Secret;
use super::strict_json;
use super::token_error::TokenAnswerError;
use super::token_response::TokenResponse;
use crate::clock::Timestamp;

/// Section 3.2: what counts if the server does not say.
const DEFAULT_INTERVAL: Duration = Duration::from_secs(5);
const LONGEST_INTERVAL: Duration = Duration::from_secs(120);
/// Nobody looks at a page for longer.
const LONGEST_LIFETIME: Duration = Duration::from_secs(3600);
const MAX_DEVICE_CODE: usize = 8 * 1024;
const MAX_USER_CODE: usize = 64;
const MAX_URI: usize = 2048;

/// A successful device authorization response.
#[derive(Clone, Debug)]
pub struct DeviceAuthorization {
    /// What the token endpoint is asked with.
    pub device_code: Secret,
    /// What the person enters.
    pub user_code: String,
    /// Where the person enters it.
    pub verification_uri: Url,
    /// The same with the code in it.
    pub verification_uri_complete: Option<Url>,
    /// How long both codes are good from now on.
    pub expires_in: Duration,
    /// Least time between two token requests.
    pub interval: Duration,
}

/// What a token request with a device code brought.
#[derive(Clone, Debug)]
pub enum DeviceAnswer {
    /// The person said yes.
    Granted(Box<TokenResponse>),
    /// The person has not decided yet.
    Pending,
    /// As [`Pending`](Self::Pending), and from now on we must ask less often.
    SlowDown,
    /// The person said no.
    Denied,
    /// The codes have ended.
    Expired,
}

impl DeviceAnswer {
    /// Takes the codes of section 3.5 for what they are; any other error stays one.
    ///
    /// # Errors
    /// Those of the token endpoint.
    pub fn of(answer: Result<TokenResponse, TokenAnswerError>) -> Result<Self, TokenAnswerError> {
        let code = match &answer {
            Err(TokenAnswerError::Refused { code, .. }) => code.as_str(),
            _ => "",
        };
        match code {
            "authorization_pending" => Ok(Self::Pending),
            "slow_down" => Ok(Self::SlowDown),
            "access_denied" => Ok(Self::Denied),
            "expired_token" => Ok(Self::Expired),
            _ => answer.map(|response| Self::Granted(Box::new(response))),
        }
    }
}

/// Reads the answer of the device authorization endpoint. `now` is for a `Retry-After` that is a
/// date.
///
/// # Errors
/// [`TokenAnswerError`], as at the token endpoint.
pub fn parse_device_answer(
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
    now: Timestamp,
) -> Result<DeviceAuthorization, TokenAnswerError> {
    if !status.is_success() {
        return Err(TokenAnswerError::of_status(status.as_u16(), headers, body, now));
    }
    let mut members = strict_json::object(body).map_err(|fault| malformed(&fault.to_string()))?;
    let answer = read(&members);
    members.values_mut().for_each(strict_json::wipe);
    answer
}

fn malformed(why: &str) -> TokenAnswerError {
    TokenAnswerError::Malformed { why: why.to_owned() }
}

fn read(members: &Map<String, Value>) -> Result<DeviceAuthorization, TokenAnswerError> {
    let text = |name: &str| members.get(name).and_then(Value::as_str).unwrap_or_default();
    let device_code = text("device_code");
    let visible = device_code.bytes().all(|b| (0x20..=0x7e).contains(&b));
    if device_code.is_empty() || device_code.len() > MAX_DEVICE_CODE || !visible {
        return Err(malformed("has no usable device_code"));
    }
    let user_code = text("user_code");
    if user_code.is_empty() || user_code.len() > MAX_USER_CODE || user_code.chars().any(char::is_control) {
        return Err(malformed("has no usable user_code"));
    }
    // Google's name for it is from a draft.
    let verification_uri = link(text("verification_uri")).or_else(|| link(text("verification_url")));
    let seconds = |name: &str| {
        let value = members.get(name).and_then(Value::as_f64)?;
        Duration::try_from_secs_f64(value).ok().filter(|duration| !duration.is_zero())
    };
    Ok(DeviceAuthorization {
        device_code: Secret::from(device_code),
        user_code: user_code.to_owned(),
        verification_uri: verification_uri.ok_or_else(|| malformed("has no usable verification_uri"))?,
        verification_uri_complete: link(text("verification_uri_complete")),
        expires_in: seconds("expires_in")
            .ok_or_else(|| malformed("has no expires_in, or one that has passed"))?
            .min(LONGEST_LIFETIME),
        interval: seconds("interval").unwrap_or(DEFAULT_INTERVAL).min(LONGEST_INTERVAL),
    })
}

/// A URL that a person may be shown as a link.
fn link(text: &str) -> Option<Url> {
    Url::parse(text).ok().filter(|url| text.len() <= MAX_URI && is_allowed_endpoint(url))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    fn parse(status: u16, body: &Value) -> Result<DeviceAuthorization, TokenAnswerError> {
        let (status, headers) = (StatusCode::from_u16(status).unwrap(), HeaderMap::new());
        parse_device_answer(status, &headers, body.to_string().as_bytes(), Timestamp::from_secs(0))
    }

    fn example() -> Value {
        // RFC 8628 section 3.2.
        json!({
            "device_code": "GmRhmhcxhwAzkoEqiMEg_DnyEysNkuNhszIySk9eS",
            "user_code": "WDJB-MJHT",
            "verification_uri": "https://example.com/device",
            "verification_uri_complete": "https://example.com/device?user_code=WDJB-MJHT",
            "expires_in": 1800,
            "interval": 5,
        })
    }

    #[test]
    fn the_example_of_rfc_8628_section_3_2_is_read() {
        let answer = parse(200, &example()).unwrap();
        assert_eq!(answer.device_code.expose(), "GmRhmhcxhwAzkoEqiMEg_DnyEysNkuNhszIySk9eS");
        assert_eq!(answer.user_code, "WDJB-MJHT");
        assert_eq!(answer.verification_uri.as_str(), "https://example.com/device");
        assert!(answer.verification_uri_complete.unwrap().query().unwrap().contains("WDJB"));
        assert_eq!((answer.expires_in.as_secs(), answer.interval.as_secs()), (1800, 5));
        assert!(!format!("{:?}", parse(200, &example())).contains("GmRh"));
    }

    #[test]
    fn what_is_left_out_has_its_default_and_nothing_is_without_bounds() {
        let mut body = example();
        for name in ["interval", "verification_uri_complete"] {
            body.as_object_mut().unwrap().remove(name);
        }
        body["expires_in"] = json!(1e9);
        let answer = parse(200, &body).unwrap();
        assert_eq!((answer.interval, answer.expires_in), (DEFAULT_INTERVAL, LONGEST_LIFETIME));
        assert!(answer.verification_uri_complete.is_none());
        body["interval"] = json!(0);
        assert_eq!(parse(200, &body).unwrap().interval, DEFAULT_INTERVAL);
        body["interval"] = json!(1e9);
        assert_eq!(parse(200, &body).unwrap().interval, LONGEST_INTERVAL);
    }

    #[test]
    fn what_no_person_can_use_is_refused() {
        for (name, value) in [
            ("device_code", json!("")),
            ("user_code", json!("a\u{1b}[31m")),
            ("user_code", json!("x".repeat(65))),
            ("verification_uri", json!("javascript:alert(1)")),
            ("verification_uri", json!("http://example.com/")),
            ("expires_in", json!(0)),
            ("expires_in", json!(null)),
        ] {
            let mut body = example();
            body[name] = value;
            assert!(matches!(parse(200, &body), Err(TokenAnswerError::Malformed { .. })), "{name}");
        }
        let refused = parse(400, &json!({ "error": "invalid_scope" }));
        assert!(matches!(refused, Err(TokenAnswerError::Refused { .. })));
    }

    #[test]
    fn the_codes_of_section_3_5_are_no_errors() {
        let refused = |code: &str| {
            DeviceAnswer::of(Err(TokenAnswerError::Refused {
                code: code.to_owned(),
                description: None,
                own: None,
                status: 400,
            }))
        };
        assert!(matches!(refused("authorization_pending"), Ok(DeviceAnswer::Pending)));
        assert!(matches!(refused("slow_down"), Ok(DeviceAnswer::SlowDown)));
        assert!(matches!(refused("access_denied"), Ok(DeviceAnswer::Denied)));
        assert!(matches!(refused("expired_token"), Ok(DeviceAnswer::Expired)));
        assert!(refused("invalid_grant").is_err() && refused("").is_err());
    }
}
