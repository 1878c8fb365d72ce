//! What comes to the redirection endpoint (RFC 6749 section 4.1.2, RFC 9207).

use super::secret::Secret;

/// A parsed authorization response. Anything unparseable, such as a repeated parameter, is refused.
#[derive(Clone, Debug)]
pub struct AuthorizationResponse {
    /// The `state`.
    pub state: Secret,
    /// The issuer, if given (RFC 9207).
    pub iss: Option<String>,
    /// Code or error.
    pub result: Result<Secret, String>,
}
