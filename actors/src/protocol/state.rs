//! One-time values that tie an answer to our own request.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

use super::secret::Secret;
use crate::clock::Entropy;

/// 256 random bits as 43 base64url characters.
pub fn random_token(entropy: &dyn Entropy) -> Secret {
    let mut bytes = Zeroizing::new([0u8; 32]);
    entropy.fill(bytes.as_mut_slice());
    Secret::new(URL_SAFE_NO_PAD.encode(bytes.as_slice()))
}

/// The `state` of an authorization request (RFC 6749 section 10.12).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State(pub Secret);

impl State {
    /// Draws a new one.
    pub fn generate(entropy: &dyn Entropy) -> Self {
        Self(random_token(entropy))
    }

    /// The state itself.
    pub fn secret(&self) -> &Secret {
        &self.0
    }
}

/// The `nonce` that an ID token must bring back (OpenID Connect Core section 15.5.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nonce(pub Secret);

impl Nonce {
    /// Draws a new one; 43 characters, within FAPI 2.0's bound of 64.
    pub fn generate(entropy: &dyn Entropy) -> Self {
        Self(random_token(entropy))
    }

    /// The nonce itself.
    pub fn secret(&self) -> &Secret {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemEntropy;

    #[test]
    fn states_and_nonces_are_new_each_time_and_short_enough() {
        let state = State::generate(&SystemEntropy);
        assert!(state != State::generate(&SystemEntropy));
        let nonce = Nonce::generate(&SystemEntropy);
        assert!(nonce != Nonce::generate(&SystemEntropy));
        assert!(nonce.secret().expose().len() <= 64);
    }
}
