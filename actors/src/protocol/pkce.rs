//! Proof Key for Code Exchange (RFC 7636). Only `S256`; `plain` proves nothing.

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::secret::Secret;
use super::state::random_token;
use crate::clock::Entropy;

/// A code verifier (RFC 7636 section 4.1).
#[derive(Clone, Debug)]
pub struct CodeVerifier(pub Secret);

impl CodeVerifier {
    /// Draws a new one: 256 random bits as 43 characters.
    pub fn generate(entropy: &dyn Entropy) -> Self {
        Self(random_token(entropy))
    }

    /// Takes back one that was kept while the person was at the authorization server.
    pub fn from_secret(secret: Secret) -> Self {
        Self(secret)
    }

    /// The verifier itself, for the token request.
    pub fn secret(&self) -> &Secret {
        &self.0
    }

    /// The `S256` challenge (RFC 7636 section 4.2).
    pub fn challenge(&self) -> String {
        let hash = digest::digest(&digest::SHA256, self.0.expose().as_bytes());
        URL_SAFE_NO_PAD.encode(hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemEntropy;

    #[test]
    fn challenge_matches_rfc_7636_appendix_b() {
        let verifier = CodeVerifier::from_secret("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk".into());
        assert_eq!(verifier.challenge(), "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
    }

    #[test]
    fn a_new_verifier_has_43_unreserved_characters_and_is_never_the_same() {
        let (one, other) = (CodeVerifier::generate(&SystemEntropy), CodeVerifier::generate(&SystemEntropy));
        let text = one.secret().expose();
        assert_eq!(text.len(), 43);
        assert!(text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~".contains(&b)));
        assert!(one.secret() != other.secret());
    }
}
