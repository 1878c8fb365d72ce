//! When to refresh, and when to try again.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::protocol::token::TokenSet;

/// When an access token is refreshed: always a share of its own lifetime, never a fixed margin,
/// so that a token of a minute works as well as one of a day.
#[derive(Clone, Debug, PartialEq)]
pub struct RefreshPolicy {
    /// Share of the lifetime after which a call in need of the token also refreshes it.
    pub ahead_share: f64,
    /// The share is moved earlier by up to this much, differently for each token.
    pub jitter_share: f64,
    /// Share of the lifetime, at its end, in which the token is no longer used.
    pub margin_share: f64,
    /// The margin is never longer than this.
    pub longest_margin: Duration,
}

impl Default for RefreshPolicy {
    fn default() -> Self {
        Self {
            ahead_share: 0.85,
            jitter_share: 0.15,
            margin_share: 0.05,
            longest_margin: Duration::from_secs(10),
        }
    }
}

impl RefreshPolicy {
    /// The moment from which `tokens` are no longer used.
    pub fn usable_until(&self, tokens: &TokenSet) -> Timestamp {
        let margin = tokens.lifetime().mul_f64(self.margin_share).min(self.longest_margin);
        tokens.expiry.at().before(margin)
    }

    /// The moment from which a call that uses `tokens` also has them refreshed. The jitter is
    /// drawn from the token itself, so that every reader and replica agrees on it.
    pub fn refresh_from(&self, tokens: &TokenSet) -> Timestamp {
        let jitter = self.jitter_share * tokens.access_token.fingerprint().fraction();
        let share = (self.ahead_share - jitter).clamp(0.0, 1.0);
        tokens.obtained_at.after(tokens.lifetime().mul_f64(share))
    }
}

/// When a failed token request is tried again.
#[derive(Clone, Debug, PartialEq)]
pub struct RetryPolicy {
    /// Delay after the first failure; doubles with each further one.
    pub first_delay: Duration,
    /// The delay never grows beyond this.
    pub longest_delay: Duration,
    /// A provider's `Retry-After` is honoured up to this.
    pub longest_wait: Duration,
    /// Total time of one request to the provider.
    pub request_timeout: Duration,
    /// Failures in a row, over all connections of a profile, that open its breaker.
    pub breaker_threshold: u32,
    /// A call waits for an attempt that is due within this.
    pub patience: Duration,
    /// Token requests for one call, while they fail in a way that a moment may mend.
    pub attempts: u32,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            first_delay: Duration::from_millis(500),
            longest_delay: Duration::from_secs(60),
            longest_wait: Duration::from_secs(3600),
            request_timeout: Duration::from_secs(10),
            breaker_threshold: 5,
            patience: Duration::from_secs(1),
            attempts: 3,
        }
    }
}

impl RetryPolicy {
    /// Delay before attempt `attempts + 1`: exponential, with the upper half jittered.
    pub fn backoff(&self, attempts: u32, jitter: f64) -> Duration {
        let doublings = attempts.saturating_sub(1).min(16);
        let full = self.first_delay.saturating_mul(1 << doublings).min(self.longest_delay);
        full.mul_f64(0.5 + 0.5 * jitter.clamp(0.0, 1.0))
    }
}
