//! An authorization server as configured: where it is, how it is reached, and its quirks.

use std::sync::Arc;

use url::Url;

use super::outbound::Outbound;
use super::quirks::Quirks;

/// An authorization server as configured (RFC 8414 names).
#[derive(Clone, Debug, Default)]
pub struct ProviderDetails {
    /// Its key in the configuration.
    pub name: String,
    /// Its issuer identifier, exactly as configured; when set, metadata is discovered from it.
    pub issuer: Option<String>,
    /// Whether the configuration says which grants it supports; then its metadata is not asked.
    pub grants_given: bool,
    /// Endpoints given by hand; they win over discovered ones.
    pub endpoints: Endpoints,
    /// How its servers are reached.
    pub outbound: Arc<Outbound>,
    /// Where it departs from the RFCs.
    pub quirks: Arc<Quirks>,
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
    /// Where tokens are refreshed, if it is another place than the token endpoint.
    pub refresh_endpoint: Option<Url>,
    /// RFC 7009.
    pub revocation_endpoint: Option<Url>,
    /// RFC 7662.
    pub introspection_endpoint: Option<Url>,
    /// RFC 9126.
    pub pushed_authorization_request_endpoint: Option<Url>,
    /// RFC 8628.
    pub device_authorization_endpoint: Option<Url>,
    /// RFC 7591.
    pub registration_endpoint: Option<Url>,
    /// OpenID Connect Core section 5.3.
    pub userinfo_endpoint: Option<Url>,
    /// RFC 7517, for ID tokens.
    pub jwks_uri: Option<Url>,
}
