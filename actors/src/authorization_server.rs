//! An authorization server as we know it: what configuration says of it, and what it says of itself.

use std::sync::Arc;

use url::Url;

use crate::connection::{Failure, FailureClass, Reason};
use crate::protocol::metadata::AuthorizationServerMetadata;
use crate::protocol::signing_key::SignatureAlgorithm;
use crate::registration::Endpoints;

/// What is known of an authorization server, from configuration and metadata together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedMetadata {
    /// Its issuer identifier.
    pub issuer: Option<String>,
    /// Its endpoints.
    pub endpoints: Endpoints,
    /// Algorithms that may sign ID tokens: `RS256` if metadata does not say, never `none` or `HS`.
    pub id_token_algs: Vec<String>,
    /// Whether authorization responses carry `iss` (RFC 9207 section 3).
    pub iss_announced: bool,
    /// What the server says of itself, if it has a metadata document.
    pub document: Option<Arc<AuthorizationServerMetadata>>,
}

impl ResolvedMetadata {
    /// The authorization endpoint, or what to configure.
    pub fn authorization_endpoint(&self) -> Result<&Url, Failure> {
        self.endpoints.authorization_endpoint.as_ref().ok_or_else(|| unknown("authorization_endpoint"))
    }

    /// The token endpoint, or what to configure.
    pub fn token_endpoint(&self) -> Result<&Url, Failure> {
        self.endpoints.token_endpoint.as_ref().ok_or_else(|| unknown("token_endpoint"))
    }

    /// The algorithms that may sign ID tokens, given the one that a profile pins, if any.
    pub fn id_token_algs<'a>(&'a self, pinned: Option<&'a String>) -> &'a [String] {
        pinned.map_or(&self.id_token_algs, std::slice::from_ref)
    }

    /// Whether the server takes proofs of possession signed with `algorithm`, as far as it says
    /// (RFC 9449 section 5.1).
    pub fn check_dpop(&self, algorithm: SignatureAlgorithm) -> Result<(), Failure> {
        let document = self.document.as_deref();
        let taken = document.and_then(|document| document.dpop_signing_alg_values_supported.as_ref());
        match taken {
            Some(taken) if !taken.iter().any(|known| known == algorithm.name()) => Err(Failure {
                class: FailureClass::ClientMisconfigured,
                reason: Reason::RequestRefused,
                detail: format!(
                    "the provider takes no DPoP proofs signed with {}, only with {}; set dpop_signing_alg",
                    algorithm.name(),
                    taken.join(", ")
                ),
                retry_after: None,
            }),
            _ => Ok(()),
        }
    }

    /// The key set, or what to configure.
    pub fn jwks_uri(&self) -> Result<&Url, Failure> {
        self.endpoints.jwks_uri.as_ref().ok_or_else(|| unknown("jwks_uri"))
    }
}

/// What to say when `endpoint` is neither configured nor announced.
pub(crate) fn unknown(endpoint: &str) -> Failure {
    Failure {
        class: FailureClass::ClientMisconfigured,
        reason: Reason::RequestRefused,
        detail: format!("the provider's {endpoint} is unknown; configure it, or an issuer that names it"),
        retry_after: None,
    }
}
