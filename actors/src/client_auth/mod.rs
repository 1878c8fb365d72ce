//! How we prove ourselves at the token endpoint, one file a method, under its IANA name
//! (RFC 6749 section 2.3).
//!
//! To add a method: one new file here, one `mod` line and one row in [`CLIENT_AUTH_METHODS`].

mod assertion;
pub mod client_secret_basic;
pub mod client_secret_jwt;
pub mod client_secret_post;
pub mod client_secret_query;
pub mod none;
pub mod private_key_jwt;
pub mod tls_client_auth;

use std::fmt;
use std::sync::Arc;

use thiserror::Error;
use url::Url;

use crate::clock::{Entropy, Timestamp};
use crate::protocol::secret::Secret;
use crate::protocol::signing_key::SigningKey;
use crate::protocol::token_request::TokenRequest;
use crate::registration::quirks::Quirks;
use crate::registration::settings::{Settings, SettingsError};

/// What a method may draw on.
pub struct ClientAuthContext<'a> {
    /// RFC 6749 section 2.2.
    pub client_id: &'a str,
    /// Where the server departs from the RFCs.
    pub quirks: &'a Quirks,
    /// Which of the method's credentials to use, counted from 0.
    pub credential: usize,
    /// The authorization server's issuer identifier, if known.
    pub issuer: Option<&'a str>,
    /// The token endpoint, if known, exactly as metadata or configuration gives it.
    pub token_endpoint: Option<&'a Url>,
    /// Now.
    pub now: Timestamp,
    /// Randomness, for `jti`.
    pub entropy: &'a dyn Entropy,
}

/// Why a method cannot prove us.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{method} cannot authenticate the client: {problem}")]
pub struct ClientAuthError {
    /// The method.
    pub method: &'static str,
    /// What is wrong.
    pub problem: String,
}

/// A way to prove to an authorization server which client we are.
pub trait ClientAuthentication: Send + Sync + fmt::Debug {
    /// How many credentials it has. While one is refused, the next is tried, so that a credential can
    /// be exchanged at the provider without a moment in which none is right.
    fn credentials(&self) -> usize {
        1
    }

    /// The keys it signs with, the current one first: their public halves are published.
    fn signing_keys(&self) -> Vec<SigningKey> {
        Vec::new()
    }

    /// Whether the proof is a certificate that the connection shows (RFC 8705).
    fn needs_certificate(&self) -> bool {
        false
    }

    /// Adds the proof to `request`. Called anew for every attempt.
    fn authenticate(
        &self,
        context: &ClientAuthContext<'_>,
        request: &mut TokenRequest,
    ) -> Result<(), ClientAuthError>;
}

/// A row of [`CLIENT_AUTH_METHODS`].
pub struct ClientAuthRow {
    /// The value of `client_auth` in a profile.
    pub name: &'static str,
    /// Builds the method from the profile's settings, taking those that are its own.
    pub build: fn(&mut Settings) -> Result<Arc<dyn ClientAuthentication>, SettingsError>,
}

/// Every client authentication method that a profile may name.
pub static CLIENT_AUTH_METHODS: &[ClientAuthRow] = &[
    ClientAuthRow { name: client_secret_basic::NAME, build: client_secret_basic::build },
    ClientAuthRow { name: client_secret_post::NAME, build: client_secret_post::build },
    ClientAuthRow { name: client_secret_query::NAME, build: client_secret_query::build },
    ClientAuthRow { name: client_secret_jwt::NAME, build: client_secret_jwt::build },
    ClientAuthRow { name: private_key_jwt::NAME, build: private_key_jwt::build },
    ClientAuthRow { name: none::NAME, build: none::build },
    ClientAuthRow { name: tls_client_auth::PKI, build: tls_client_auth::build },
    ClientAuthRow { name: tls_client_auth::SELF_SIGNED, build: tls_client_auth::build },
];

/// The row of the method `name`.
pub fn find(name: &str) -> Option<&'static ClientAuthRow> {
    CLIENT_AUTH_METHODS.iter().find(|row| row.name == name)
}

/// The client's secrets (RFC 6749 section 2.3.1), the current one first.
#[derive(Debug)]
struct ClientSecrets(Vec<Secret>);

impl ClientSecrets {
    /// Takes the setting `client_secret`, one or several, which `method` needs.
    fn take(settings: &mut Settings, method: &str) -> Result<Self, SettingsError> {
        let secrets = settings.take_secrets("client_secret")?;
        if secrets.is_empty() {
            return Err(SettingsError::missing("client_secret", &format!("client_auth = \"{method}\"")));
        }
        if secrets.iter().any(|secret| secret.expose().is_empty()) {
            return Err(SettingsError { key: "client_secret".into(), problem: "is empty".into() });
        }
        Ok(Self(secrets))
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    /// The secret that this attempt uses.
    fn of(&self, context: &ClientAuthContext<'_>) -> &Secret {
        &self.0[context.credential % self.0.len()]
    }
}

#[cfg(test)]
mod tests;
