//! The client credentials grant (RFC 6749 section 4.4): the client acts for itself.

use std::sync::Arc;

use super::{Grant, GrantContext, GrantError};
use crate::protocol::token_request::TokenRequest;
use crate::registration::settings::{Settings, SettingsError};

/// No person, no consent. A refresh token in the answer is not relied upon (section 4.4.3).
#[derive(Debug)]
pub struct ClientCredentials;

pub(super) fn build(_: &mut Settings) -> Result<Arc<dyn Grant>, SettingsError> {
    Ok(Arc::new(ClientCredentials))
}

impl Grant for ClientCredentials {
    fn needs_person(&self) -> bool {
        false
    }

    fn token_request(&self, context: &GrantContext<'_>) -> Result<TokenRequest, GrantError> {
        let mut request = TokenRequest::new("client_credentials");
        request.param("scope", context.scopes.to_string());
        Ok(request)
    }
}
