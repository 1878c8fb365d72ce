//! Refreshing an access token (RFC 6749 section 6). Not in [`GRANTS`](super::GRANTS): no profile
//! names it, it follows from holding a refresh token.

use crate::protocol::token::RefreshToken;
use crate::protocol::token_request::TokenRequest;

/// The request for a new access token. It names no scope: that of the grant stays (section 6), and
/// some servers narrow it when one is named.
pub fn refresh_request(refresh_token: &RefreshToken) -> TokenRequest {
    let mut request = TokenRequest::new("refresh_token");
    request.param("refresh_token", refresh_token.expose());
    request
}
