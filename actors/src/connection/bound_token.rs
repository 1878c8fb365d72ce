//! An access token that is bound to a key (RFC 9449): what it takes to use it.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue};

use crate::clock::{Entropy, Timestamp};
use crate::protocol::dpop::{AccessTokenHash, DpopKey, Nonces, Proof};
use crate::protocol::signing_key::KeyError;
use crate::protocol::token::AccessToken;

/// An access token that goes nowhere without a proof.
#[derive(Debug)]
pub struct BoundToken {
    key: DpopKey,
    hash: AccessTokenHash,
    /// Of upstreams. They outlive the token: it is the key that they go with.
    nonces: Arc<Nonces>,
}

impl BoundToken {
    pub(super) fn new(key: DpopKey, token: &AccessToken) -> Self {
        Self { key, hash: AccessTokenHash::of(token.expose()), nonces: Arc::default() }
    }

    /// Goes on with the nonces that were met with the same key.
    pub(super) fn follow(&mut self, before: &Self) {
        if before.key == self.key {
            self.nonces = before.nonces.clone();
        }
    }

    /// The `DPoP` header of one request to `url`, which is without query and fragment and begins with
    /// `origin`.
    ///
    /// # Errors
    /// [`KeyError::Internal`].
    pub fn prove(
        &self,
        method: &str,
        origin: &str,
        url: &str,
        now: Timestamp,
        entropy: &dyn Entropy,
    ) -> Result<HeaderValue, KeyError> {
        let nonce = self.nonces.get(origin);
        let proof = Proof { method, url, nonce: nonce.as_deref(), access_token: Some(&self.hash) };
        self.key.prove(proof, now, entropy)
    }

    /// Keeps the nonce that an answer of `origin` brings, for the next proof (RFC 9449 section 9).
    pub fn remember_nonce(&self, origin: &str, answer: &HeaderMap) {
        self.nonces.remember(origin, answer);
    }
}
