//! What we are to one authorization server: a checked profile, without its strategies.

pub mod policy;
pub mod settings;

use std::time::Duration;

use url::Url;

use crate::protocol::identifiers::ProfileId;
use crate::protocol::scope::ScopeSet;
use policy::{RefreshPolicy, RetryPolicy};

/// An authorization server as configured (RFC 8414 names).
#[derive(Clone, Debug)]
pub struct ProviderDetails {
    /// Its key in the configuration.
    pub name: String,
    /// Its issuer identifier, exactly as configured; when set, metadata is discovered from it.
    pub issuer: Option<String>,
    /// Endpoints given by hand; they win over discovered ones.
    pub endpoints: Endpoints,
}

impl ProviderDetails {
    /// Names the authorization server for what is stored: its issuer, and where configuration sends
    /// token requests itself, if it does. Endpoints that the issuer's metadata moves are the issuer's.
    pub fn identity(&self) -> String {
        let by_hand = self.endpoints.token_endpoint.as_ref().map(|url| url.origin().ascii_serialization());
        let parts = [self.issuer.as_deref(), by_hand.as_deref()];
        parts.into_iter().flatten().collect::<Vec<_>>().join(" ")
    }
}

/// Endpoints of an authorization server, used exactly as given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoints {
    /// RFC 6749 section 3.1.
    pub authorization_endpoint: Option<Url>,
    /// RFC 6749 section 3.2.
    pub token_endpoint: Option<Url>,
    /// RFC 7009.
    pub revocation_endpoint: Option<Url>,
    /// RFC 7517, for ID tokens.
    pub jwks_uri: Option<Url>,
}

/// Proof Key for Code Exchange (RFC 7636); `plain` is never used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pkce {
    /// Always, whatever the metadata says.
    #[default]
    S256,
    /// Only for a provider that breaks on it.
    None,
}

/// One checked profile: a provider plus one registered client.
#[derive(Clone, Debug)]
pub struct ClientRegistration {
    /// Its key in the configuration.
    pub profile: ProfileId,
    /// The authorization server.
    pub provider: ProviderDetails,
    /// RFC 6749 section 2.2.
    pub client_id: String,
    /// What is asked for.
    pub scopes: ScopeSet,
    /// The redirection endpoint registered with the provider (RFC 6749 section 3.1.2).
    pub redirect_uri: Url,
    /// Further parameters of the authorization request.
    pub authorize_params: Vec<(String, String)>,
    /// Further parameters of every token request.
    pub token_params: Vec<(String, String)>,
    /// PKCE method.
    pub pkce: Pkce,
    /// Signature algorithm that ID tokens must have; otherwise metadata's, without `none`.
    pub id_token_signing_alg: Option<String>,
    /// Lifetime of a token whose answer has no `expires_in`.
    pub default_token_lifetime: Option<Duration>,
    /// When to refresh.
    pub refresh: RefreshPolicy,
    /// When to try again.
    pub retry: RetryPolicy,
}
