//! `client_secret_query`: the client's password in the URL's query. RFC 6749 section 2.3.1 forbids it,
//! since URLs end up in logs; it is for servers that take it in no other way.

use std::sync::Arc;

use super::{ClientAuthContext, ClientAuthError, ClientAuthentication, ClientSecrets};
use crate::protocol::token_request::TokenRequest;
use crate::registration::settings::{Settings, SettingsError};

pub(super) const NAME: &str = "client_secret_query";

#[derive(Debug)]
struct ClientSecretQuery {
    secrets: ClientSecrets,
}

pub(super) fn build(settings: &mut Settings) -> Result<Arc<dyn ClientAuthentication>, SettingsError> {
    Ok(Arc::new(ClientSecretQuery { secrets: ClientSecrets::take(settings, NAME)? }))
}

impl ClientAuthentication for ClientSecretQuery {
    fn credentials(&self) -> usize {
        self.secrets.len()
    }

    fn authenticate(
        &self,
        context: &ClientAuthContext<'_>,
        request: &mut TokenRequest,
    ) -> Result<(), ClientAuthError> {
        request.query.push(("client_id".to_owned(), context.client_id.into()));
        request.query.push(("client_secret".to_owned(), self.secrets.of(context).clone()));
        Ok(())
    }
}
