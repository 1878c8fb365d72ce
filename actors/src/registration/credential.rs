//! What names the whole of a client's credential, so that nothing obtained with an earlier one is
//! taken for something obtained with this one.

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Gathers all that a token request is made of: client, grant, secrets, parameters.
pub struct CredentialDigest(digest::Context);

impl CredentialDigest {
    /// Of nothing yet.
    pub fn new() -> Self {
        Self(digest::Context::new(&digest::SHA256))
    }

    /// Adds one part. Parts do not run into each other.
    pub fn add(&mut self, part: &[u8]) {
        self.0.update(&part.len().to_le_bytes());
        self.0.update(part);
    }

    /// The name. It is kept in sealed records only, since a weak secret could be guessed from it.
    pub fn finish(self) -> String {
        URL_SAFE_NO_PAD.encode(self.0.finish().as_ref())
    }
}

impl Default for CredentialDigest {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for CredentialDigest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CredentialDigest(***)")
    }
}
