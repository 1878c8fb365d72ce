//! How we prove ourselves at the token endpoint, one file a method, under its IANA name
//! (RFC 6749 section 2.3).
//!
//! To add a method: one new file here, one `mod` line and one row in [`CLIENT_AUTH_METHODS`].

pub mod client_secret_basic;
pub mod client_secret_post;
pub mod none;

use std::fmt;
use std::sync::Arc;

use thiserror::Error;

use crate::protocol::secret::Secret;
use crate::protocol::token_request::TokenRequest;
use crate::registration::settings::{Settings, SettingsError};

/// What a method may draw on.
pub struct ClientAuthContext<'a> {
    /// RFC 6749 section 2.2.
    pub client_id: &'a str,
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
    ClientAuthRow { name: none::NAME, build: none::build },
];

/// The row of the method `name`.
pub fn find(name: &str) -> Option<&'static ClientAuthRow> {
    CLIENT_AUTH_METHODS.iter().find(|row| row.name == name)
}

/// Takes the setting `client_secret`, which `method` needs.
fn take_client_secret(settings: &mut Settings, method: &str) -> Result<Secret, SettingsError> {
    let secret = settings
        .take_secret("client_secret")?
        .ok_or_else(|| SettingsError::missing("client_secret", &format!("client_auth = \"{method}\"")))?;
    if secret.expose().is_empty() {
        return Err(SettingsError { key: "client_secret".into(), problem: "is empty".into() });
    }
    Ok(secret)
}

#[cfg(test)]
mod tests;
