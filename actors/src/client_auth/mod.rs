//! How we prove ourselves at the token endpoint, one file a method, under its IANA name
//! (RFC 6749 section 2.3).
//!
//! To add a method: one new file here, one `mod` line and one row in [`CLIENT_AUTH_METHODS`].

use std::fmt;
use std::sync::Arc;

use thiserror::Error;

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
