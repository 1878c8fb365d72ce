//! What a pending authorization remembers, sealed in the store so that a restart or another
//! replica can finish it.

use std::fmt;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::protocol::dpop::DpopKey;
use crate::protocol::identifiers::ConnectionId;
use crate::protocol::scope::ScopeSet;
use crate::protocol::secret::{self, Secret};

/// SHA-256 of a `state`, a connect token or a browser binding: names it without holding it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StateHash(pub [u8; 32]);

impl StateHash {
    /// Hashes `text`.
    pub fn of(text: &str) -> Self {
        let hash = digest::digest(&digest::SHA256, text.as_bytes());
        let mut bytes = [0u8; 32];
        bytes.copy_from_slice(hash.as_ref());
        Self(bytes)
    }

    /// Eight characters of it, for logs and the debug endpoint.
    pub fn short(&self) -> String {
        URL_SAFE_NO_PAD.encode(&self.0[..6])
    }
}

impl fmt::Debug for StateHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StateHash({})", self.short())
    }
}

/// One pending authorization.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FlowRecord {
    /// Hash of the `state` that was sent, or of the page's address; the record's key.
    pub state: StateHash,
    /// Whose token set it will be.
    pub connection: ConnectionId,
    /// PKCE verifier (RFC 7636), if a challenge was sent.
    #[serde(with = "optional_secret")]
    pub code_verifier: Option<Secret>,
    /// OpenID Connect nonce, if `openid` is asked for.
    #[serde(with = "optional_secret")]
    pub nonce: Option<Secret>,
    /// The key whose thumbprint was sent as `dpop_jkt` (RFC 9449 section 10).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dpop_key: Option<DpopKey>,
    /// What was asked for, further scopes included.
    #[serde(default)]
    pub scopes: ScopeSet,
    /// The issuer the browser was sent to (RFC 9207 compares with it).
    pub issuer: Option<String>,
    /// Whether `iss` must be in the response: the issuer's metadata announces it (RFC 9207 section
    /// 3), or the profile requires it.
    #[serde(alias = "iss_announced")]
    pub iss_required: bool,
    /// The redirection endpoint, byte for byte as sent.
    pub redirect_uri: String,
    /// Hash of the browser-binding cookie.
    pub browser: StateHash,
    /// Where the browser goes afterwards.
    pub return_to: Option<String>,
    /// The codes, if the person consents on another device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<PendingDevice>,
    /// When it began.
    pub created_at: Timestamp,
    /// When it ends by itself.
    pub expires_at: Timestamp,
}

/// What is known of an authorization on another device (RFC 8628 section 3.2).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PendingDevice {
    /// What the token endpoint is asked with.
    #[serde(with = "secret::sealed")]
    pub device_code: Secret,
    /// What the person enters.
    pub user_code: String,
    /// Where the person enters it.
    pub verification_uri: String,
    /// The same with the code in it.
    pub verification_uri_complete: Option<String>,
    /// Least time between two token requests, in seconds.
    pub interval: u64,
}

/// A one-time link that starts a flow.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ConnectSession {
    /// Hash of the link's token; the record's key.
    pub token: StateHash,
    /// Whose token set it will be.
    pub connection: ConnectionId,
    /// Where the browser goes afterwards.
    pub return_to: Option<String>,
    /// Scopes to ask for beyond the profile's.
    #[serde(default)]
    pub scopes: ScopeSet,
    /// When the link ends by itself.
    pub expires_at: Timestamp,
}

mod optional_secret {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::{Secret, secret};

    #[derive(Serialize, Deserialize)]
    struct Sealed(#[serde(with = "secret::sealed")] Secret);

    pub(super) fn serialize<S: Serializer>(value: &Option<Secret>, serializer: S) -> Result<S::Ok, S::Error> {
        value.clone().map(Sealed).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Secret>, D::Error> {
        Ok(Option::<Sealed>::deserialize(deserializer)?.map(|sealed| sealed.0))
    }
}
