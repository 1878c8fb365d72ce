//! The authorization code grant (RFC 6749 section 4.1), with PKCE (RFC 7636 section 4.5).

use std::sync::Arc;

use url::Url;

use super::{Grant, GrantContext, GrantError};
use crate::protocol::token_request::TokenRequest;
use crate::registration::settings::{Settings, SettingsError};

/// A person consents in a browser; their code is redeemed once.
#[derive(Debug)]
pub struct AuthorizationCode;

pub(super) fn build(_: &mut Settings) -> Result<Arc<dyn Grant>, SettingsError> {
    Ok(Arc::new(AuthorizationCode))
}

impl Grant for AuthorizationCode {
    fn needs_person(&self) -> bool {
        true
    }

    fn token_request(&self, context: &GrantContext<'_>) -> Result<TokenRequest, GrantError> {
        let redemption = context.redemption.ok_or(GrantError::ConsentNeeded)?;
        let mut request = TokenRequest::new("authorization_code");
        request.param("code", &redemption.code);
        request.param("redirect_uri", redemption.redirect_uri.as_ref().map_or("", Url::as_str));
        if let Some(verifier) = &redemption.code_verifier {
            request.param("code_verifier", verifier.secret());
        }
        Ok(request)
    }
}
