//! `client_secret_post`: the client's password in the body (RFC 6749 section 2.3.1).

use std::sync::Arc;

use super::{ClientAuthContext, ClientAuthError, ClientAuthentication, ClientSecrets};
use crate::protocol::token_request::TokenRequest;
use crate::registration::settings::{Settings, SettingsError};

pub(super) const NAME: &str = "client_secret_post";

#[derive(Debug)]
struct ClientSecretPost {
    secrets: ClientSecrets,
}

pub(super) fn build(settings: &mut Settings) -> Result<Arc<dyn ClientAuthentication>, SettingsError> {
    Ok(Arc::new(ClientSecretPost { secrets: ClientSecrets::take(settings, NAME)? }))
}

impl ClientAuthentication for ClientSecretPost {
    fn credentials(&self) -> usize {
        self.secrets.len()
    }

    fn authenticate(
        &self,
        context: &ClientAuthContext<'_>,
        request: &mut TokenRequest,
    ) -> Result<(), ClientAuthError> {
        request.param("client_id", context.client_id);
        request.param("client_secret", self.secrets.of(context));
        Ok(())
    }
}
