//! `none`: a public client, which only names itself (RFC 6749 section 3.2.1).

use std::sync::Arc;

use super::{ClientAuthContext, ClientAuthError, ClientAuthentication};
use crate::protocol::token_request::TokenRequest;
use crate::registration::settings::{Settings, SettingsError};

pub(super) const NAME: &str = "none";

#[derive(Debug)]
struct PublicClient;

pub(super) fn build(_: &mut Settings) -> Result<Arc<dyn ClientAuthentication>, SettingsError> {
    Ok(Arc::new(PublicClient))
}

impl ClientAuthentication for PublicClient {
    fn authenticate(
        &self,
        context: &ClientAuthContext<'_>,
        request: &mut TokenRequest,
    ) -> Result<(), ClientAuthError> {
        request.param("client_id", context.client_id);
        Ok(())
    }
}
