//! Where an authorization server departs from RFC 6749, as data: what the catalogue says of it.

use std::collections::BTreeMap;

use http::{HeaderMap, HeaderName};

use crate::protocol::token_error::CodeMeaning;

/// Where an authorization server departs from the RFCs. The default departs nowhere.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Quirks {
    /// Between scopes, both ways; a space if not set (RFC 6749 section 3.3).
    pub scope_separator: Option<char>,
    /// Name of the authorization request's `scope` parameter, if another.
    pub scope_parameter: Option<String>,
    /// How the body of a token request is written.
    pub token_request_format: RequestFormat,
    /// Further headers of token requests.
    pub token_request_headers: HeaderMap,
    /// Whether HTTP Basic carries identifier and secret as they are, not form-encoded first
    /// (RFC 6749 section 2.3.1 has them encoded).
    pub raw_basic_credentials: bool,
    /// Name of the `client_id` parameter, if another.
    pub client_id_parameter: Option<String>,
    /// Name of the `client_secret` parameter, if another.
    pub client_secret_parameter: Option<String>,
    /// Where members of token answers are.
    pub response: ResponseMembers,
    /// Further values of `token_type` that mean bearer, compared without case.
    pub token_types: Vec<String>,
    /// What its own error codes mean.
    pub error_meanings: BTreeMap<String, CodeMeaning>,
    /// Members of the authorization response to keep with the token set.
    pub callback_params: Vec<String>,
    /// How the API takes the access token.
    pub presentation: Presentation,
    /// The audience of assertions, if not the token endpoint.
    pub assertion_audience: Option<String>,
    /// The audience of client assertions.
    pub client_assertion_audience: AssertionAudience,
    /// Further parameters of every request to the token endpoint that is not a refresh.
    pub token_params: Vec<(String, String)>,
    /// Further parameters of refresh requests.
    pub refresh_params: Vec<(String, String)>,
    /// Further parameters of authorization requests.
    pub authorize_params: Vec<(String, String)>,
}

/// How the body of a token request is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RequestFormat {
    /// `application/x-www-form-urlencoded` (RFC 6749 section 3.2).
    #[default]
    Form,
    /// A JSON object.
    Json,
}

/// Where members of a token answer are, as paths of names; `None` for their usual place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResponseMembers {
    /// The access token.
    pub access_token: Option<MemberPath>,
    /// The refresh token.
    pub refresh_token: Option<MemberPath>,
    /// Its lifetime.
    pub expires_in: Option<MemberPath>,
    /// The scope granted.
    pub scope: Option<MemberPath>,
    /// The token's type.
    pub token_type: Option<MemberPath>,
    /// The error code.
    pub error: Option<MemberPath>,
    /// What the error is, in words.
    pub error_description: Option<MemberPath>,
}

/// Names from the outermost object inwards; in the configuration joined by dots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberPath(pub Vec<String>);

/// How an API takes the access token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Presentation {
    /// The header, if not `Authorization`.
    pub header: Option<HeaderName>,
    /// What comes before the token, if not `Bearer`; empty for nothing.
    pub scheme: Option<String>,
}

/// The audience of client assertions (RFC 7523 section 3).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AssertionAudience {
    /// The issuer identifier where it is known (as RFC 7523bis and FAPI 2.0 have it), else the token
    /// endpoint's URL.
    #[default]
    Issuer,
    /// The URL of the token endpoint, exactly as metadata or configuration gives it.
    TokenEndpoint,
    /// This one.
    Fixed(String),
}
