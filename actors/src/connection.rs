//! The life of a token set, as one explicit state machine.
//!
//! [`ConnectionState`] says what is held, why, since when, what happens next and who must act.
//! Its transitions are pure: [`ConnectionState::obtained`], [`ConnectionState::failed`],
//! [`ConnectionState::unsaved`]. The `ProviderActor` applies them, the store keeps what must last,
//! and the admin API and `/debug/actors` show [`ConnectionView`].

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use http::header::AUTHORIZATION;
use http::{HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::protocol::identifiers::ConnectionId;
use crate::protocol::scope::ScopeSet;
use crate::protocol::token::{TokenFingerprint, TokenSet, TokenType};
use crate::registration::policy::{RefreshPolicy, RetryPolicy};
use crate::registration::quirks::Presentation;
use crate::store::Revision;

mod bound_token;
mod record;
mod view;

pub use bound_token::BoundToken;
pub use record::{ConnectionRecord, Held, InFlight, MovingTo, UncheckedIdToken};
pub use view::ConnectionView;

/// The upstream origins (`scheme://host:port`) that a token set may be sent to. They are part of
/// the sealed record's associated data, so no edited configuration can send a token elsewhere.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OriginSet(Arc<BTreeSet<String>>);

impl OriginSet {
    /// Gathers origins in their ASCII serialization.
    pub fn new(origins: impl IntoIterator<Item = String>) -> Self {
        Self(Arc::new(origins.into_iter().collect()))
    }

    /// Whether a token bound to this set may be sent to `origin`.
    pub fn allows(&self, origin: &str) -> bool {
        self.0.contains(origin)
    }

    /// The origins, in order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

/// Why a connection is in its state: a code that stays stable for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Reason {
    /// A token set was obtained.
    Granted,
    /// Nobody has connected this subject yet.
    NeverConnected,
    /// The authorization server said `invalid_grant`: revoked, expired or used elsewhere.
    GrantRevoked,
    /// The access token ended, and no refresh token was given, or the one that was has ended, too.
    NoRefreshToken,
    /// The profile names another authorization server than the one that issued the token set.
    ProviderChanged,
    /// A route now leads to an upstream that this token set was not obtained for.
    UpstreamChanged,
    /// A route needs scopes that were not granted.
    ScopeMissing,
    /// The ID token of a refresh named another subject.
    SubjectChanged,
    /// A refresh was cut off between request and answer, and its refresh token is now refused.
    InterruptedRefresh,
    /// No connection to the provider.
    ProviderUnreachable,
    /// The provider did not answer in time.
    ProviderTimeout,
    /// The provider answered with a server error.
    ProviderError,
    /// The provider throttles us (429).
    ProviderThrottled,
    /// The provider's answer could not be understood.
    MalformedAnswer,
    /// The provider refuses the client itself (`invalid_client`, `unauthorized_client`).
    ClientRefused,
    /// The provider refuses what the profile asks for (`invalid_scope`, `invalid_request`, …).
    RequestRefused,
    /// The new token set could not be saved.
    StoreUnavailable,
    /// A fault of our own.
    InternalError,
}

/// Who must act before the connection is well again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Actor {
    /// Nobody: it is well, or mends itself.
    Nobody,
    /// The person whose token it is: give consent again.
    Person,
    /// Whoever runs the gateway: mend configuration or store.
    Operator,
    /// Whoever runs the provider.
    Provider,
}

/// The classes of failure of a token request. Only the first ends a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureClass {
    /// The grant is dead; only the person can give a new one.
    GrantDead,
    /// The provider refuses our client or what it asks for; never drops a token.
    ClientMisconfigured,
    /// The provider is down, slow, throttles or answers nonsense; the old token serves on.
    ProviderUnavailable,
    /// Our own fault.
    Internal,
    /// The call does not bring along what the request needs. Nothing was asked of the provider, and
    /// nothing is wrong with the connection: another call may well succeed.
    Call,
}

/// A failed token request, as the state machine sees it.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Which of the four classes.
    pub class: FailureClass,
    /// The reason code.
    pub reason: Reason,
    /// What was wrong, in words fit for logs and reports: no secret, no control character.
    pub detail: String,
    /// The provider's own `Retry-After`.
    pub retry_after: Option<Duration>,
}

/// A failure that time or an operator may mend, and when we try again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// The reason code of the last failure.
    pub reason: Reason,
    /// What was wrong, in words.
    pub detail: String,
    /// When the trouble began.
    pub since: Timestamp,
    /// Failures in a row.
    pub attempts: u32,
    /// When the last failure was met.
    pub noted_at: Timestamp,
    /// Nothing is sent for this connection before then.
    pub next_attempt: Timestamp,
}

impl Trouble {
    /// How long nothing is sent yet. A clock that was set back holds nobody up.
    pub fn holds_for(&self, now: Timestamp) -> Option<Duration> {
        (self.noted_at <= now && now < self.next_attempt).then(|| self.next_attempt.since(now))
    }
}

/// What is held for one connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConnectionState {
    /// A token set with nothing amiss. It may be due for refresh; time tells.
    Active {
        /// What is held.
        tokens: TokenSet,
    },
    /// The provider fails; what is held is used while it lives.
    Retrying {
        /// What is held; none if the first token request failed.
        tokens: Option<TokenSet>,
        /// What fails, and when we try again.
        trouble: Trouble,
    },
    /// The provider refuses the client; what is held is kept and used while it lives.
    Misconfigured {
        /// What is held; none if the first token request failed.
        tokens: Option<TokenSet>,
        /// What was refused, and when we try again.
        trouble: Trouble,
    },
    /// A new token set that is not durable yet. Nothing may use it, nobody may refresh it.
    Unsaved {
        /// The newest token set, kept in memory.
        tokens: TokenSet,
        /// When saving first failed.
        since: Timestamp,
    },
    /// Only the person can mend it.
    NeedsConsent {
        /// Why.
        reason: Reason,
        /// Since when.
        since: Timestamp,
    },
}

impl ConnectionState {
    /// The token set held, if any.
    pub fn tokens(&self) -> Option<&TokenSet> {
        match self {
            Self::Active { tokens } | Self::Unsaved { tokens, .. } => Some(tokens),
            Self::Retrying { tokens, .. } | Self::Misconfigured { tokens, .. } => tokens.as_ref(),
            Self::NeedsConsent { .. } => None,
        }
    }

    /// The trouble that delays the next attempt, if any.
    pub fn trouble(&self) -> Option<&Trouble> {
        match self {
            Self::Retrying { trouble, .. } | Self::Misconfigured { trouble, .. } => Some(trouble),
            _ => None,
        }
    }

    /// A new token set was obtained and saved.
    pub fn obtained(tokens: TokenSet) -> Self {
        Self::Active { tokens }
    }

    /// A new token set was obtained and could not be saved.
    pub fn unsaved(tokens: TokenSet, now: Timestamp) -> Self {
        Self::Unsaved { tokens, since: now }
    }

    /// A token request failed. `jitter` is drawn from `0.0..1.0`.
    ///
    /// Only [`FailureClass::GrantDead`] lets go of the tokens.
    #[must_use]
    pub fn failed(self, failure: &Failure, now: Timestamp, retry: &RetryPolicy, jitter: f64) -> Self {
        if failure.class == FailureClass::GrantDead {
            return Self::NeedsConsent { reason: failure.reason, since: now };
        }
        let settled = matches!(self, Self::NeedsConsent { .. } | Self::Unsaved { .. });
        if settled || failure.class == FailureClass::Call {
            // Nothing was asked of the provider for these; there is nothing to add.
            return self;
        }
        let (attempts, since) = self.trouble().map_or((0, now), |old| (old.attempts, old.since));
        let attempts = attempts.saturating_add(1);
        let delay = failure.retry_after.unwrap_or_default().max(retry.backoff(attempts, jitter));
        let trouble = Trouble {
            reason: failure.reason,
            detail: failure.detail.clone(),
            since,
            attempts,
            noted_at: now,
            next_attempt: now.after(delay.min(retry.longest_wait)),
        };
        let tokens = match self {
            Self::Active { tokens } => Some(tokens),
            Self::Retrying { tokens, .. } | Self::Misconfigured { tokens, .. } => tokens,
            Self::NeedsConsent { .. } | Self::Unsaved { .. } => None,
        };
        match failure.class {
            FailureClass::ClientMisconfigured => Self::Misconfigured { tokens, trouble },
            _ => Self::Retrying { tokens, trouble },
        }
    }

    fn who_must_act(&self) -> Actor {
        match self {
            Self::Active { .. } => Actor::Nobody,
            Self::Retrying { trouble, .. } if trouble.reason == Reason::InternalError => Actor::Operator,
            Self::Retrying { .. } => Actor::Provider,
            Self::Misconfigured { .. } | Self::Unsaved { .. } => Actor::Operator,
            Self::NeedsConsent { .. } => Actor::Person,
        }
    }
}

/// How ripe an access token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// Use it.
    Fresh,
    /// Use it, and refresh it meanwhile.
    RefreshDue,
    /// Do not use it.
    Ended,
}

/// Nothing speaks against the token set.
const SURE: u8 = 0;
/// It was obtained because an upstream refused the one before, and none has taken it yet.
const DOUBTFUL: u8 = 1;
/// An upstream that refused the one before refused it too. That another takes it changes nothing.
const REFUSED: u8 = 2;

/// A connection as readers see it: immutable, published whole, safe to hold.
#[derive(Debug)]
pub struct Connection {
    /// Profile and subject.
    pub id: ConnectionId,
    /// The stored record's revision that this was read from or written as.
    pub revision: Revision,
    /// Where its token may be sent.
    pub origins: OriginSet,
    /// When the record was first made.
    pub created_at: Timestamp,
    /// What is held.
    pub state: ConnectionState,
    /// Whether a new token set can be had without the person, and if not, why.
    pub renewal: Result<(), Reason>,
    /// One of [`SURE`], [`DOUBTFUL`] and [`REFUSED`].
    standing: AtomicU8,
    ready: Option<ReadyToken>,
    refresh_asked_at: AtomicU64,
}

/// What the hot path reads, worked out once when a connection is published.
#[derive(Debug)]
struct ReadyToken {
    header: HeaderName,
    authorization: HeaderValue,
    /// What else a token takes that is bound to a key.
    bound: Option<Box<BoundToken>>,
    fingerprint: TokenFingerprint,
    usable_until: Timestamp,
    refresh_from: Timestamp,
}

impl Connection {
    /// Makes the published form of a connection.
    pub fn new(
        id: ConnectionId,
        revision: Revision,
        origins: OriginSet,
        created_at: Timestamp,
        state: ConnectionState,
        renewal: Result<(), Reason>,
        refresh: &RefreshPolicy,
    ) -> Self {
        let ready = match &state {
            ConnectionState::Unsaved { .. } => None,
            other => other.tokens().map(|tokens| {
                let usable_until = refresh.usable_until(tokens);
                let refresh_from = refresh.refresh_from(tokens);
                let token = &tokens.access_token;
                let (authorization, bound) = match (tokens.token_type, &tokens.dpop_key) {
                    (TokenType::Dpop, Some(key)) => (
                        token.header(TokenType::Dpop.scheme()),
                        Some(Box::new(BoundToken::new(key.clone(), token))),
                    ),
                    _ => (token.bearer_header(), None),
                };
                ReadyToken {
                    header: AUTHORIZATION,
                    authorization,
                    bound,
                    fingerprint: tokens.access_token.fingerprint(),
                    usable_until,
                    refresh_from: if renewal.is_ok() { refresh_from } else { usable_until },
                }
            }),
        };
        let refresh_asked_at = AtomicU64::new(0);
        Self {
            id,
            revision,
            origins,
            created_at,
            state,
            renewal,
            standing: AtomicU8::new(SURE),
            ready,
            refresh_asked_at,
        }
    }

    /// The same connection, its token presented in the API's own way.
    #[must_use]
    pub fn presented_as(mut self, presentation: &Presentation) -> Self {
        if let (Some(ready), Some(tokens)) = (&mut self.ready, self.state.tokens())
            && *presentation != Presentation::default()
            // How a token that is bound to a key is shown is settled (RFC 9449 section 7.1).
            && ready.bound.is_none()
        {
            ready.header = presentation.header();
            ready.authorization = tokens.access_token.header(presentation.scheme());
        }
        self
    }

    /// Whether it is this reader's turn to have the token refreshed ahead of its end: `true` at most
    /// once a second, so that a busy connection does not flood its provider's mailbox.
    pub fn claim_refresh(&self, now: Timestamp) -> bool {
        let asked_at = self.refresh_asked_at.load(Ordering::Relaxed);
        // A clock that was set back must not keep a token from being refreshed.
        (now.as_millis() < asked_at || now.as_millis() - asked_at >= 1000)
            && self
                .refresh_asked_at
                .compare_exchange(asked_at, now.as_millis(), Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }

    /// Whether it holds a token set that is not durable yet.
    pub fn is_unsaved(&self) -> bool {
        matches!(self.state, ConnectionState::Unsaved { .. })
    }

    /// Whether the token set replaced one that an upstream refused, and none has taken it yet or one
    /// refused it as well: another one will hardly help.
    pub fn is_doubtful(&self) -> bool {
        self.standing.load(Ordering::Relaxed) != SURE
    }

    /// The same connection, in doubt or not.
    pub fn in_doubt(self, doubtful: bool) -> Self {
        Self { standing: AtomicU8::new(if doubtful { DOUBTFUL } else { SURE }), ..self }
    }

    /// An upstream took the token: if it is refused from now on, that is news.
    pub fn was_taken(&self) {
        if self.standing.load(Ordering::Relaxed) == DOUBTFUL {
            let _ = self.standing.compare_exchange(DOUBTFUL, SURE, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// A call that was sent again with this token was refused again.
    pub fn was_refused(&self) {
        self.standing.store(REFUSED, Ordering::Relaxed);
    }

    /// The header that carries the token: `Authorization`, unless the API has one of its own.
    pub fn token_header(&self) -> &HeaderName {
        self.ready.as_ref().map_or(&AUTHORIZATION, |ready| &ready.header)
    }

    /// That header's value to send upstream if the token is usable at `now`.
    pub fn authorization(&self, now: Timestamp) -> Option<&HeaderValue> {
        self.ready.as_ref().filter(|ready| now < ready.usable_until).map(|ready| &ready.authorization)
    }

    /// What else a request needs whose token is bound to a key (RFC 9449); `None` for bearer tokens.
    pub fn bound_token(&self) -> Option<&BoundToken> {
        self.ready.as_ref()?.bound.as_deref()
    }

    /// The same connection, going on with what upstreams told the one before it.
    #[must_use]
    pub fn following(mut self, before: Option<&Self>) -> Self {
        if let Some(bound) = self.ready.as_mut().and_then(|ready| ready.bound.as_mut())
            && let Some(before) = before.and_then(Self::bound_token)
        {
            bound.follow(before);
        }
        self
    }

    /// Whether every scope of `needed` was granted.
    pub fn covers(&self, needed: &ScopeSet) -> bool {
        needed.is_empty() || self.state.tokens().is_some_and(|tokens| tokens.covers(needed))
    }

    /// The fingerprint of the access token held.
    pub fn fingerprint(&self) -> Option<TokenFingerprint> {
        self.ready.as_ref().map(|ready| ready.fingerprint)
    }

    /// How ripe the access token is at `now`; `Ended` when there is none.
    pub fn freshness(&self, now: Timestamp) -> Freshness {
        match &self.ready {
            Some(ready) if now < ready.refresh_from => Freshness::Fresh,
            Some(ready) if now < ready.usable_until => Freshness::RefreshDue,
            _ => Freshness::Ended,
        }
    }
}

#[cfg(test)]
mod tests;
