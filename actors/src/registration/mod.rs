//! What we are to one authorization server: a checked profile, without its strategies.

pub mod authorization;
pub mod credential;
pub mod dynamic;
pub mod outbound;
pub mod policy;
mod provider;
pub mod quirks;
pub mod settings;
pub mod signing_keys;

use std::time::Duration;

use url::Url;

use crate::protocol::identifiers::{ProfileId, Subject};
use crate::protocol::scope::ScopeSet;
use crate::protocol::secret::Secret;
use crate::protocol::signing_key::SignatureAlgorithm;
use crate::protocol::template::{CallContext, Template, TemplateError};
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

/// One checked profile: a provider, and what we ask of it.
#[derive(Clone, Debug)]
pub struct ClientRegistration {
    /// Its key in the configuration.
    pub profile: ProfileId,
    /// The authorization server.
    pub provider: ProviderDetails,
    /// Names the whole of what token requests are made of ([`credential::CredentialDigest`]): a token
    /// that a profile without a person obtained with another is not used any more.
    pub credential: String,
    /// What is asked for.
    pub scopes: ScopeSet,
    /// The redirection endpoint registered with the provider (RFC 6749 section 3.1.2).
    pub redirect_uri: Url,
    /// How a person is asked.
    pub authorization: AuthorizationOptions,
    /// Further parameters of the authorization request, the profile's and its provider's; they know of
    /// no call but its subject.
    pub authorize_params: Vec<(String, Template)>,
    /// Further parameters of token requests that are no refresh, the profile's and its provider's.
    pub token_params: Vec<(String, Template)>,
    /// Further parameters of refresh requests, likewise.
    pub refresh_params: Vec<(String, Template)>,
    /// PKCE method.
    pub pkce: Pkce,
    /// What new tokens' proofs of possession are signed with, if they are to be bound to a key
    /// (RFC 9449).
    pub dpop: Option<SignatureAlgorithm>,
    /// Signature algorithm that ID tokens must have; otherwise metadata's, without `none`.
    pub id_token_signing_alg: Option<String>,
    /// Lifetime of a token whose answer has no `expires_in`.
    pub default_token_lifetime: Option<Duration>,
    /// How long a refresh token lives, if that is known: no answer says so.
    pub default_refresh_token_lifetime: Option<Duration>,
    /// Whether the provider is asked how long a token lives of which nothing else is known
    /// (RFC 7662): one more request a token.
    pub introspect_expiry: bool,
    /// When to refresh.
    pub refresh: RefreshPolicy,
    /// When to try again.
    pub retry: RetryPolicy,
    /// How long a signing key of the gateway's own signs, before the next one does.
    pub signing_key_lifetime: Duration,
}

impl ClientRegistration {
    /// The further parameters of an authorization request for `subject`. What asks for more of a call
    /// is left out; the configuration lets none in.
    pub fn authorize_params_for(&self, subject: &Subject) -> Vec<(String, String)> {
        let none = CallContext::default();
        let value = |template: &Template| Some(template.render(subject, &none).ok()?.expose().to_owned());
        let params = self.authorize_params.iter();
        params.filter_map(|(name, template)| Some((name.clone(), value(template)?))).collect()
    }

    /// The further parameters of a token request, or of a refresh.
    pub fn further_params(&self, refresh: bool) -> &[(String, Template)] {
        if refresh { &self.refresh_params } else { &self.token_params }
    }

    /// The further parameters of a token request for `subject`, filled in from `call`.
    ///
    /// # Errors
    /// [`TemplateError::Missing`].
    pub fn render_params(
        &self,
        refresh: bool,
        subject: &Subject,
        call: &CallContext,
    ) -> Result<Vec<(String, Secret)>, TemplateError> {
        let params = self.further_params(refresh).iter();
        params.map(|(name, template)| Ok((name.clone(), template.render(subject, call)?))).collect()
    }
}
