//! What we are to one authorization server: a checked profile, without its strategies.

pub mod authorization;
pub mod outbound;
pub mod policy;
mod provider;
pub mod quirks;
pub mod settings;
pub mod signing_keys;

use std::time::Duration;

use url::Url;

use crate::protocol::identifiers::ProfileId;
use crate::protocol::scope::ScopeSet;
use crate::protocol::signing_key::SignatureAlgorithm;
use authorization::AuthorizationOptions;
use policy::{RefreshPolicy, RetryPolicy};

pub use provider::{Endpoints, ProviderDetails};

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
    /// RFC 6749 section 2.2; empty if the grant names no client (RFC 7521 section 4.1).
    pub client_id: String,
    /// What is asked for.
    pub scopes: ScopeSet,
    /// The redirection endpoint registered with the provider (RFC 6749 section 3.1.2).
    pub redirect_uri: Url,
    /// How a person is asked.
    pub authorization: AuthorizationOptions,
    /// Further parameters of the authorization request: the profile's and its provider's.
    pub authorize_params: Vec<(String, String)>,
    /// Further parameters of token requests that are no refresh: the profile's and its provider's.
    pub token_params: Vec<(String, String)>,
    /// Further parameters of refresh requests, likewise.
    pub refresh_params: Vec<(String, String)>,
    /// PKCE method.
    pub pkce: Pkce,
    /// What new tokens' proofs of possession are signed with, if they are to be bound to a key
    /// (RFC 9449).
    pub dpop: Option<SignatureAlgorithm>,
    /// Signature algorithm that ID tokens must have; otherwise metadata's, without `none`.
    pub id_token_signing_alg: Option<String>,
    /// Lifetime of a token whose answer has no `expires_in`.
    pub default_token_lifetime: Option<Duration>,
    /// When to refresh.
    pub refresh: RefreshPolicy,
    /// When to try again.
    pub retry: RetryPolicy,
}
