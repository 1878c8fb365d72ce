//! `private_key_jwt`: an assertion signed with a key pair (OpenID Connect Core section 9, RFC 7523
//! section 2.2).

use std::sync::Arc;

use super::assertion::ClientAssertion;
use super::{ClientAuthContext, ClientAuthError, ClientAuthentication};
use crate::protocol::jws::Signer;
use crate::protocol::signing_key::SigningKey;
use crate::protocol::token_request::TokenRequest;
use crate::registration::settings::{Settings, SettingsError};
use crate::registration::signing_keys::SigningKeys;

pub(super) const NAME: &str = "private_key_jwt";

#[derive(Debug)]
struct PrivateKeyJwt {
    keys: SigningKeys,
    assertion: ClientAssertion,
}

pub(super) fn build(settings: &mut Settings) -> Result<Arc<dyn ClientAuthentication>, SettingsError> {
    let keys = SigningKeys::require(settings, "client_auth = \"private_key_jwt\"")?;
    let assertion = ClientAssertion::take(settings, NAME)?;
    Ok(Arc::new(PrivateKeyJwt { keys, assertion }))
}

impl ClientAuthentication for PrivateKeyJwt {
    fn signing_keys(&self) -> Vec<SigningKey> {
        self.keys.published()
    }

    fn authenticate(
        &self,
        context: &ClientAuthContext<'_>,
        request: &mut TokenRequest,
    ) -> Result<(), ClientAuthError> {
        self.assertion.add(context, Signer::Key(&self.keys.current()), request)
    }
}
