//! Where an authorization server departs from RFC 6749, as data: what the catalogue says of it.

use std::collections::BTreeMap;

use http::{HeaderMap, HeaderName};

pub use crate::protocol::answer_format::{AnswerFormat, MemberPath, ResponseMembers};
use crate::protocol::scope::ScopeSet;
use crate::protocol::token_error::CodeMeaning;
pub use crate::protocol::token_request::RequestFormat;

/// Where an authorization server departs from the RFCs. The default departs nowhere.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Quirks {
    /// Between scopes, both ways; a space if not set (RFC 6749 section 3.3).
    pub scope_separator: Option<char>,
    /// Name of the `scope` parameter, if another.
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
}

impl Quirks {
    /// How the server's answers are read.
    pub fn answer_format(&self) -> AnswerFormat<'_> {
        AnswerFormat {
            members: Some(&self.response),
            scope_separator: self.scope_separator,
            token_types: &self.token_types,
            error_meanings: Some(&self.error_meanings),
        }
    }

    /// `scopes` as the server takes them in a request.
    pub fn scope_text(&self, scopes: &ScopeSet) -> String {
        scopes.joined(self.scope_separator.unwrap_or(' '))
    }

    /// The name of the parameter that RFC 6749 calls `name`.
    pub fn parameter<'a>(&'a self, name: &'a str) -> &'a str {
        let own = match name {
            "scope" => self.scope_parameter.as_deref(),
            "client_id" => self.client_id_parameter.as_deref(),
            "client_secret" => self.client_secret_parameter.as_deref(),
            _ => None,
        };
        own.unwrap_or(name)
    }
}

/// How an API takes the access token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Presentation {
    /// The header, if not `Authorization`.
    pub header: Option<HeaderName>,
    /// What comes before the token, if not `Bearer`; empty for nothing.
    pub scheme: Option<String>,
}

impl Presentation {
    /// The header that carries the token.
    pub fn header(&self) -> HeaderName {
        self.header.clone().unwrap_or(http::header::AUTHORIZATION)
    }

    /// What comes before the token and its space; empty for nothing.
    pub fn scheme(&self) -> &str {
        self.scheme.as_deref().unwrap_or("Bearer")
    }
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
