//! Dynamic client registration (RFC 7591) and its management (RFC 7592): what is sent, what comes
//! back.

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde_json::{Map, Value};
use url::Url;

use super::metadata::is_allowed_endpoint;
use super::secret::{Secret, wiped_bytes};
use super::strict_json::{self, numeric_date};
use super::token_error::TokenAnswerError;
use crate::clock::Timestamp;

/// Members that follow from the rest of a profile or have a key of their own; configuration must
/// not set them among its further ones.
pub const OWN_MEMBERS: [&str; 15] = [
    "client_id",
    "client_id_issued_at",
    "client_name",
    "client_secret",
    "client_secret_expires_at",
    "contacts",
    "grant_types",
    "jwks_uri",
    "redirect_uris",
    "registration_access_token",
    "registration_client_uri",
    "response_types",
    "scope",
    "software_statement",
    "token_endpoint_auth_method",
];

/// Longest secret or identifier taken from an answer, in bytes.
const MAX_TEXT: usize = 16 * 1024;

/// What a registration request says of the client (RFC 7591 section 2).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClientMetadata {
    /// The members, but for the software statement.
    pub members: Map<String, Value>,
    /// RFC 7591 section 2.3.
    pub software_statement: Option<Secret>,
}

impl ClientMetadata {
    /// The body of a registration request (RFC 7591 section 3.1). Wiped when it is dropped.
    pub fn registration_body(&self) -> Bytes {
        let mut members = self.members.clone();
        if let Some(statement) = &self.software_statement {
            members.insert("software_statement".to_owned(), statement.expose().into());
        }
        body(members)
    }

    /// The body of an update request (RFC 7592 section 2.2). Wiped when it is dropped.
    pub fn update_body(&self, client_id: &str, client_secret: Option<&Secret>) -> Bytes {
        let mut members = self.members.clone();
        members.insert("client_id".to_owned(), client_id.into());
        if let Some(secret) = client_secret {
            members.insert("client_secret".to_owned(), secret.expose().into());
        }
        body(members)
    }
}

fn body(members: Map<String, Value>) -> Bytes {
    let mut value = Value::Object(members);
    let body = wiped_bytes(value.to_string().into_bytes());
    strict_json::wipe(&mut value);
    body
}

/// What an authorization server says of a client that it registered (RFC 7591 section 3.2.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisteredClient {
    /// RFC 6749 section 2.2.
    pub client_id: String,
    /// Its secret, if it has one.
    pub client_secret: Option<Secret>,
    /// When the secret ends; `None`, sent as zero, for never.
    pub client_secret_expires_at: Option<Timestamp>,
    /// The authentication method that the server has decided on, if it says so.
    pub token_endpoint_auth_method: Option<String>,
    /// Where and with what the registration is managed, if it can be (RFC 7592 section 3).
    pub management: Option<Management>,
}

/// Where and with what a registration is managed (RFC 7592 section 3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Management {
    /// `registration_client_uri`.
    pub uri: Url,
    /// `registration_access_token`.
    pub token: Secret,
}

impl RegisteredClient {
    /// Reads the answer to a registration (RFC 7591 section 3.2), to a read or to an update
    /// (RFC 7592 section 2). `now` is for a `Retry-After` that is a date.
    pub fn parse(
        status: StatusCode,
        headers: &HeaderMap,
        body: &[u8],
        now: Timestamp,
    ) -> Result<Self, TokenAnswerError> {
        if !status.is_success() {
            return Err(TokenAnswerError::of_status(status.as_u16(), headers, body, now));
        }
        let mut members = strict_json::object(body).map_err(|fault| malformed(fault.to_string()))?;
        let client = Self::read(&members);
        members.values_mut().for_each(strict_json::wipe);
        client
    }

    fn read(members: &Map<String, Value>) -> Result<Self, TokenAnswerError> {
        let text = |name| members.get(name).and_then(Value::as_str).filter(|text| is_visible(text));
        let client_id = text("client_id").ok_or_else(|| malformed("has no usable client_id"))?.to_owned();
        let client_secret = text("client_secret").map(Secret::from);
        if client_secret.is_none() && members.get("client_secret").is_some_and(|it| !it.is_null()) {
            return Err(malformed("has a client_secret that cannot be sent"));
        }
        let uri = text("registration_client_uri").and_then(|text| Url::parse(text).ok());
        // No secret is sent to a place that is not fit for it.
        let uri = uri.filter(is_allowed_endpoint);
        let token = text("registration_access_token").filter(|token| !token.contains(' ')).map(Secret::from);
        Ok(Self {
            client_id,
            client_secret,
            client_secret_expires_at: members
                .get("client_secret_expires_at")
                .and_then(numeric_date)
                .map(Timestamp::from_secs),
            token_endpoint_auth_method: text("token_endpoint_auth_method").map(str::to_owned),
            management: uri.zip(token).map(|(uri, token)| Management { uri, token }),
        })
    }
}

/// Printable ASCII (RFC 6749 appendix A.1 and A.2), not empty.
fn is_visible(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_TEXT && text.bytes().all(|b| (0x20..=0x7e).contains(&b))
}

fn malformed(why: impl Into<String>) -> TokenAnswerError {
    TokenAnswerError::Malformed { why: why.into() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_000);

    fn parse(status: u16, body: &str) -> Result<RegisteredClient, TokenAnswerError> {
        let status = StatusCode::from_u16(status).unwrap();
        RegisteredClient::parse(status, &HeaderMap::new(), body.as_bytes(), NOW)
    }

    /// RFC 7591 section 3.2.1, with the members of RFC 7592 section 3.
    const ANSWER: &str = r#"{
        "client_id": "s6BhdRkqt3",
        "client_secret": "cf136dc3c1fc93f31185e5885805d",
        "client_id_issued_at": 2893256800,
        "client_secret_expires_at": 2893276800,
        "redirect_uris": ["https://client.example.org/callback"],
        "grant_types": ["authorization_code", "refresh_token"],
        "client_name": "My Example Client",
        "token_endpoint_auth_method": "client_secret_basic",
        "jwks_uri": "https://client.example.org/my_public_keys.jwks",
        "registration_access_token": "reg-23410913-abewfq.123483",
        "registration_client_uri": "https://server.example.com/register/s6BhdRkqt3"
    }"#;

    #[test]
    fn the_answer_of_rfc_7591_section_3_2_1_is_read() {
        let client = parse(201, ANSWER).unwrap();
        assert_eq!(client.client_id, "s6BhdRkqt3");
        assert_eq!(client.client_secret.unwrap().expose(), "cf136dc3c1fc93f31185e5885805d");
        assert_eq!(client.client_secret_expires_at, Some(Timestamp::from_secs(2_893_276_800)));
        assert_eq!(client.token_endpoint_auth_method.as_deref(), Some("client_secret_basic"));
        let management = client.management.unwrap();
        assert_eq!(management.uri.as_str(), "https://server.example.com/register/s6BhdRkqt3");
        assert_eq!(management.token.expose(), "reg-23410913-abewfq.123483");
    }

    #[test]
    fn a_secret_that_expires_at_zero_never_does() {
        let client = parse(200, r#"{"client_id":"c","client_secret":"s","client_secret_expires_at":0}"#);
        assert_eq!(client.unwrap().client_secret_expires_at, None);
    }

    #[test]
    fn the_error_of_rfc_7591_section_3_2_2_keeps_its_words() {
        let refused = parse(
            400,
            r#"{"error":"invalid_redirect_uri",
                "error_description":"The redirection URI http://sketchy.example.com is not allowed"}"#,
        );
        let told = refused.unwrap_err().to_string();
        assert!(told.contains("invalid_redirect_uri"), "{told}");
        assert!(told.contains("sketchy.example.com is not allowed"), "{told}");
    }

    #[test]
    fn what_cannot_be_sent_is_not_taken() {
        for body in [
            "{}",
            r#"{"client_id":""}"#,
            r#"{"client_id":5}"#,
            r#"{"client_id":"a\nb"}"#,
            r#"{"client_id":"c","client_secret":"a\nb"}"#,
            r#"{"client_id":"c","client_secret":5}"#,
            "<html>",
        ] {
            assert!(matches!(parse(201, body), Err(TokenAnswerError::Malformed { .. })), "{body}");
        }
        let plain = r#"{"client_id":"c","registration_access_token":"t",
                        "registration_client_uri":"http://server.example/c"}"#;
        assert_eq!(parse(201, plain).unwrap().management, None, "the token would go out in clear");
    }

    #[test]
    fn bodies_hold_what_their_requests_need() {
        let members = json!({ "redirect_uris": ["https://gw.example/callback"] });
        let metadata = ClientMetadata {
            members: members.as_object().unwrap().clone(),
            software_statement: Some("a.b.c".into()),
        };
        let read = |body: Bytes| serde_json::from_slice::<Value>(&body).unwrap();
        let mut wanted = members.clone();
        wanted["software_statement"] = "a.b.c".into();
        assert_eq!(read(metadata.registration_body()), wanted);
        let mut wanted = members;
        wanted["client_id"] = "c".into();
        wanted["client_secret"] = "s".into();
        assert_eq!(read(metadata.update_body("c", Some(&"s".into()))), wanted);
    }
}
