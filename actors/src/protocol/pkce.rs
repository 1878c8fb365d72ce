//! Proof Key for Code Exchange (RFC 7636).

use super::secret::Secret;

/// A code verifier (RFC 7636 section 4.1).
#[derive(Clone, Debug)]
pub struct CodeVerifier(pub Secret);
