//! `client_secret_jwt`: an assertion signed with the client's password (OpenID Connect Core
//! section 9, RFC 7523 section 2.2). The password itself is never sent.

use std::sync::Arc;

use super::assertion::ClientAssertion;
use super::{ClientAuthContext, ClientAuthError, ClientAuthentication, ClientSecrets};
use crate::protocol::jws::{MacAlgorithm, Signer};
use crate::protocol::token_request::TokenRequest;
use crate::registration::settings::{Settings, SettingsError};

pub(super) const NAME: &str = "client_secret_jwt";

#[derive(Debug)]
struct ClientSecretJwt {
    secrets: ClientSecrets,
    algorithm: MacAlgorithm,
    assertion: ClientAssertion,
}

pub(super) fn build(settings: &mut Settings) -> Result<Arc<dyn ClientAuthentication>, SettingsError> {
    let algorithm = match settings.take_text("signing_alg")? {
        None => MacAlgorithm::default(),
        Some(name) => name.parse().map_err(|fault| SettingsError {
            key: "signing_alg".into(),
            problem: format!("{name:?} {fault}; a key pair needs client_auth = \"private_key_jwt\""),
        })?,
    };
    let secrets = ClientSecrets::take(settings, NAME)?;
    let assertion = ClientAssertion::take(settings, NAME)?;
    Ok(Arc::new(ClientSecretJwt { secrets, algorithm, assertion }))
}

impl ClientAuthentication for ClientSecretJwt {
    fn credentials(&self) -> usize {
        self.secrets.len()
    }

    fn authenticate(
        &self,
        context: &ClientAuthContext<'_>,
        request: &mut TokenRequest,
    ) -> Result<(), ClientAuthError> {
        let signer = Signer::Secret(self.algorithm, self.secrets.of(context));
        self.assertion.add(context, signer, request)
    }
}
