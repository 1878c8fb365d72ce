//! When a token set ends, whatever the provider said about it.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

use crate::clock::Timestamp;
use crate::protocol::token::{AccessToken, Expiry, ExpiryBasis};

/// Taken for a token of which nothing is known.
const GUESS: Duration = Duration::from_secs(3600);

/// No token is taken to live longer.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// The expiry of a token obtained at `obtained_at`: as stated, else the profile's default, else
/// the JWT's `exp`, else what an upstream's refusal taught, else a guess. Never "for ever".
pub(super) fn expiry_of(
    token: &AccessToken,
    expires_in: Option<Duration>,
    profile_default: Option<Duration>,
    learned: Option<Duration>,
    obtained_at: Timestamp,
) -> Expiry {
    // Some servers say 0 and mean "never": believed only where a default says what to take instead.
    if let Some(stated) = expires_in.filter(|stated| !stated.is_zero() || profile_default.is_none()) {
        return Expiry::Stated { at: obtained_at.after(stated.min(LONGEST)) };
    }
    let presumed =
        |lifetime: Duration, basis| Expiry::Presumed { at: obtained_at.after(lifetime.min(LONGEST)), basis };
    if let Some(default) = profile_default {
        return presumed(default, ExpiryBasis::ProfileDefault);
    }
    if let Some(at) = jwt_expiry(token).filter(|at| *at > obtained_at) {
        return presumed(at.since(obtained_at), ExpiryBasis::JwtClaim);
    }
    if let Some(learned) = learned {
        return presumed(learned, ExpiryBasis::UpstreamRefusal);
    }
    presumed(GUESS, ExpiryBasis::Guess)
}

/// The `exp` of an access token that happens to be a JWT (RFC 7519 section 4.1.4). Read without a
/// check of the signature: it only tells us when to ask again.
fn jwt_expiry(token: &AccessToken) -> Option<Timestamp> {
    #[derive(Deserialize)]
    struct Claims {
        exp: f64,
    }
    let mut parts = token.expose().split('.');
    let payload = parts.nth(1)?;
    parts.next().filter(|_| parts.next().is_none())?;
    let claims: Claims = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()?;
    // `as` saturates, and turns NaN into zero.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturating on purpose")]
    let exp = claims.exp as u64;
    Some(Timestamp::from_secs(exp))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_000_000);

    fn jwt(claims: &str) -> AccessToken {
        let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
        AccessToken::new(format!("{}.{}.sig", part("{}"), part(claims))).unwrap()
    }

    #[test]
    fn each_source_in_its_turn() {
        let opaque = AccessToken::new("opaque").unwrap();
        let minute = Some(Duration::from_secs(60));
        let stated = expiry_of(&opaque, minute, Some(GUESS), None, NOW);
        assert_eq!(stated, Expiry::Stated { at: Timestamp::from_secs(1_000_060) });
        let with = |token: &AccessToken, default, learned| match expiry_of(token, None, default, learned, NOW)
        {
            Expiry::Presumed { at, basis } => (at.since(NOW).as_secs(), basis),
            Expiry::Stated { .. } => unreachable!(),
        };
        let zero = Some(Duration::ZERO);
        assert_eq!(expiry_of(&opaque, zero, None, None, NOW), Expiry::Stated { at: NOW });
        let default = expiry_of(&opaque, zero, minute, None, NOW);
        assert_eq!(
            default,
            Expiry::Presumed { at: Timestamp::from_secs(1_000_060), basis: ExpiryBasis::ProfileDefault }
        );
        let token = jwt(r#"{"exp":1000030.5}"#);
        assert_eq!(with(&token, minute, minute), (60, ExpiryBasis::ProfileDefault));
        assert_eq!(with(&token, None, minute), (30, ExpiryBasis::JwtClaim));
        assert_eq!(with(&opaque, None, minute), (60, ExpiryBasis::UpstreamRefusal));
        assert_eq!(with(&opaque, None, None), (3600, ExpiryBasis::Guess));
    }

    #[test]
    fn hostile_claims_neither_panic_nor_live_for_ever() {
        for exp in ["1e300", "-5", "1", "999999999999999999", "\"soon\"", "null"] {
            let token = jwt(&format!("{{\"exp\":{exp}}}"));
            let expiry = expiry_of(&token, None, None, None, NOW);
            assert!(expiry.at() <= NOW.after(LONGEST), "{exp}");
            assert!(expiry.at() > NOW, "{exp}");
        }
        let huge = expiry_of(&jwt("{}"), Some(Duration::MAX), None, None, NOW);
        assert_eq!(huge.at(), NOW.after(LONGEST));
    }
}
