//! What an authorization server granted, and until when.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderValue;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::dpop::DpopKey;
use super::scope::ScopeSet;
use super::secret::{self, Secret, wiped_bytes};
use crate::clock::Timestamp;

/// A token that cannot be carried in a header: RFC 6750 section 2.1 allows visible ASCII only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the {0} is empty, longer than 64 KiB, or has a character that no header can carry")]
pub struct TokenCharacterError(pub &'static str);

const MAX_TOKEN: usize = 64 * 1024;

fn checked(text: String, kind: &'static str) -> Result<Secret, TokenCharacterError> {
    let visible = text.bytes().all(|b| (0x21..=0x7e).contains(&b));
    if text.is_empty() || text.len() > MAX_TOKEN || !visible {
        return Err(TokenCharacterError(kind));
    }
    Ok(Secret::new(text))
}

/// An access token (RFC 6749 section 1.4).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AccessToken(#[serde(with = "secret::sealed")] Secret);

impl AccessToken {
    /// Checks that `text` can ride in an `Authorization` header.
    pub fn new(text: impl Into<String>) -> Result<Self, TokenCharacterError> {
        checked(text.into(), "access token").map(Self)
    }

    /// The token itself.
    pub fn expose(&self) -> &str {
        self.0.expose()
    }

    /// What logs and reports may say of it.
    pub fn fingerprint(&self) -> TokenFingerprint {
        TokenFingerprint::of(self.expose())
    }

    /// `Bearer …` as a header value, marked sensitive, wiped when its last clone is dropped
    /// (RFC 6750 section 2.1).
    pub fn bearer_header(&self) -> HeaderValue {
        self.header(TokenType::Bearer.scheme())
    }

    /// As [`bearer_header`](Self::bearer_header), with another scheme, or none if it is empty. An
    /// unusable scheme makes an empty value.
    pub fn header(&self, scheme: &str) -> HeaderValue {
        let space = if scheme.is_empty() { "" } else { " " };
        let bytes = wiped_bytes([scheme, space, self.expose()].concat().into_bytes());
        // `new` admitted visible ASCII only, so this cannot fail; an empty value is the safe answer.
        let mut value =
            HeaderValue::from_maybe_shared(bytes).unwrap_or_else(|_| HeaderValue::from_static(""));
        value.set_sensitive(true);
        value
    }
}

/// A refresh token (RFC 6749 section 1.5).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RefreshToken(#[serde(with = "secret::sealed")] Secret);

impl RefreshToken {
    /// Checks that `text` is visible ASCII (RFC 6749 appendix A.17).
    pub fn new(text: impl Into<String>) -> Result<Self, TokenCharacterError> {
        checked(text.into(), "refresh token").map(Self)
    }

    /// The token itself.
    pub fn expose(&self) -> &str {
        self.0.expose()
    }

    /// What logs and reports may say of it.
    pub fn fingerprint(&self) -> TokenFingerprint {
        TokenFingerprint::of(self.expose())
    }
}

/// The first 72 bits of a token's SHA-256: names it without giving it away.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TokenFingerprint([u8; 9]);

impl TokenFingerprint {
    fn of(text: &str) -> Self {
        let hash = digest::digest(&digest::SHA256, text.as_bytes());
        let mut short = [0u8; 9];
        short.copy_from_slice(&hash.as_ref()[..9]);
        Self(short)
    }

    /// A number in `0.0..1.0` that differs from token to token, for jitter.
    pub fn fraction(&self) -> f64 {
        f64::from(u16::from_le_bytes([self.0[0], self.0[1]])) / 65536.0
    }
}

impl fmt::Display for TokenFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for TokenFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// How a token is used at the resource server (RFC 6749 section 7.1). Others are refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TokenType {
    /// RFC 6750.
    #[default]
    Bearer,
    /// RFC 9449: only with a proof of the key that it is bound to.
    Dpop,
}

impl TokenType {
    /// The scheme of `Authorization` that carries it (RFC 6750 section 2.1, RFC 9449 section 7.1).
    pub fn scheme(self) -> &'static str {
        match self {
            Self::Bearer => "Bearer",
            Self::Dpop => "DPoP",
        }
    }
}

/// When an access token ends: valid and expired have a third beside them, unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Expiry {
    /// The answer had `expires_in`.
    Stated {
        /// When the token ends.
        at: Timestamp,
    },
    /// The answer had none; the token is taken to end at `at`, never "for ever".
    Presumed {
        /// When the token is taken to end.
        at: Timestamp,
        /// Why then.
        basis: ExpiryBasis,
    },
}

/// What a presumed expiry rests on, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExpiryBasis {
    /// The profile's `default_token_lifetime`.
    ProfileDefault,
    /// The access token is a JWT and has `exp`.
    JwtClaim,
    /// The provider, asked for it (RFC 7662).
    Introspection,
    /// An upstream refused an earlier token of this connection at this age.
    UpstreamRefusal,
    /// Nothing is known: one hour, then ask again.
    Guess,
}

impl Expiry {
    /// When the token ends, or is taken to.
    pub fn at(self) -> Timestamp {
        match self {
            Self::Stated { at } | Self::Presumed { at, .. } => at,
        }
    }

    /// Whether the authorization server said it itself.
    pub fn is_stated(self) -> bool {
        matches!(self, Self::Stated { .. })
    }
}

/// What is kept of a validated ID token (OpenID Connect Core section 2): who consented.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdentityClaims {
    /// The issuer that named the subject.
    pub iss: String,
    /// The subject at that issuer.
    pub sub: String,
}

/// Everything one token response gave (RFC 6749 section 5.1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenSet {
    /// The access token.
    pub access_token: AccessToken,
    /// How to present it.
    pub token_type: TokenType,
    /// When the answer came.
    pub obtained_at: Timestamp,
    /// When the access token ends.
    pub expiry: Expiry,
    /// The refresh token, carried over when an answer brings no new one (RFC 6749 section 6).
    pub refresh_token: Option<RefreshToken>,
    /// When the refresh token was obtained, if that was with an earlier answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh_token_obtained_at: Option<Timestamp>,
    /// Scope granted: what the answer said, otherwise as requested (section 3.3).
    pub scope: Option<ScopeSet>,
    /// Scope asked for, if known.
    #[serde(default)]
    pub requested_scope: Option<ScopeSet>,
    /// Who consented, from the ID token.
    pub identity: Option<IdentityClaims>,
    /// What its tokens are bound to, and every refresh is proven with (RFC 9449 section 5).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dpop_key: Option<DpopKey>,
    /// Further members of the answer that are neither tokens nor known, such as `instance_url`.
    #[serde(default)]
    pub extra: BTreeMap<String, serde_json::Value>,
}

impl TokenSet {
    /// The access token's whole lifetime, as known when it was obtained.
    pub fn lifetime(&self) -> Duration {
        self.expiry.at().since(self.obtained_at)
    }

    /// When the refresh token was obtained.
    pub fn refresh_token_since(&self) -> Timestamp {
        self.refresh_token_obtained_at.unwrap_or(self.obtained_at)
    }

    /// The refresh token, if it may be alive at `now`: such tokens live for `lifetime`, as far as that is
    /// known.
    pub fn live_refresh_token(&self, lifetime: Option<Duration>, now: Timestamp) -> Option<&RefreshToken> {
        let ends = lifetime.map(|lifetime| self.refresh_token_since().after(lifetime));
        self.refresh_token.as_ref().filter(|_| ends.is_none_or(|ends| now < ends))
    }

    /// Whether every scope of `needed` was granted. What was granted may be unknown: then none was.
    pub fn covers(&self, needed: &ScopeSet) -> bool {
        needed.is_empty() || self.scope.as_ref().is_some_and(|granted| granted.covers(needed))
    }

    /// The scopes to ask for again so that none is lost: those granted, in the words in which they
    /// were asked for. A server's own words for more may be none that can be asked for.
    pub fn kept_scopes(&self) -> ScopeSet {
        match (&self.scope, &self.requested_scope) {
            (Some(granted), Some(requested)) => granted.intersection(requested),
            (granted, _) => granted.clone().unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn the_bearer_header_is_the_one_of_rfc_6750_section_2_1_and_sensitive() {
        let header = AccessToken::new("mF_9.B5f-4.1JqM").unwrap().bearer_header();
        assert_eq!(header, "Bearer mF_9.B5f-4.1JqM");
        assert!(header.is_sensitive());
        assert!(!format!("{header:?}").contains("mF_9"));
        let token = AccessToken::new("mF_9.B5f-4.1JqM").unwrap();
        assert_eq!(token.header("Zoho-oauthtoken"), "Zoho-oauthtoken mF_9.B5f-4.1JqM");
        assert_eq!(token.header(""), "mF_9.B5f-4.1JqM");
        assert!(token.header("").is_sensitive());
        assert_eq!(token.header("a\r\nb"), "");
    }

    #[test]
    fn tokens_that_no_header_can_carry_are_refused() {
        for bad in ["", "a b", "a\r\nx", "é", "\u{7f}"] {
            assert!(AccessToken::new(bad).is_err(), "{bad:?}");
            assert!(RefreshToken::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_fingerprint_names_a_token_without_giving_it_away() {
        let token = AccessToken::new("s3cr3t").unwrap();
        assert_eq!(token.fingerprint(), RefreshToken::new("s3cr3t").unwrap().fingerprint());
        assert_ne!(token.fingerprint(), AccessToken::new("s3cr3u").unwrap().fingerprint());
        assert_eq!(token.fingerprint().to_string().len(), 12);
        assert!((0.0..1.0).contains(&token.fingerprint().fraction()));
        assert!(!format!("{token:?} {:?}", token.fingerprint()).contains("s3cr3t"));
    }

    #[test]
    fn a_lifetime_is_never_negative() {
        let set = |at: u64| TokenSet {
            access_token: AccessToken::new("a").unwrap(),
            token_type: TokenType::Bearer,
            obtained_at: Timestamp::from_secs(100),
            expiry: Expiry::Stated { at: Timestamp::from_secs(at) },
            refresh_token: None,
            refresh_token_obtained_at: None,
            scope: None,
            requested_scope: None,
            identity: None,
            dpop_key: None,
            extra: BTreeMap::new(),
        };
        assert_eq!(set(160).lifetime(), Duration::from_secs(60));
        assert_eq!(set(40).lifetime(), Duration::ZERO);
        let text = serde_json::to_string(&set(160)).unwrap();
        assert_eq!(serde_json::from_str::<TokenSet>(&text).unwrap(), set(160));
    }
}
