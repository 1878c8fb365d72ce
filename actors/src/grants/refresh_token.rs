//! Refreshing an access token (RFC 6749 section 6). Not in [`GRANTS`](super::GRANTS): no profile
//! names it, it follows from holding a refresh token.

use super::{Grant, GrantContext, GrantError};
use crate::protocol::token::RefreshToken;
use crate::protocol::token_request::TokenRequest;

/// The request for a new access token. It names no scope: that of the grant stays (section 6), and
/// some servers narrow it when one is named.
pub fn refresh_request(refresh_token: &RefreshToken) -> TokenRequest {
    let mut request = TokenRequest::new("refresh_token");
    request.param("refresh_token", refresh_token.expose());
    request
}

/// [`refresh_request`] as a grant.
#[derive(Clone, Copy, Debug)]
pub struct RefreshTokenGrant;

impl Grant for RefreshTokenGrant {
    fn needs_person(&self) -> bool {
        false
    }

    fn token_request(&self, context: &GrantContext<'_>) -> Result<TokenRequest, GrantError> {
        let missing = GrantError::Missing { grant: "refresh_token", what: "a refresh token" };
        context.refresh_token.map(refresh_request).ok_or(missing)
    }
}
