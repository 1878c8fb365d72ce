//! What a caller wants of a connection, and when that is settled without any work.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use super::context::ProviderContext;
use super::error::TokenError;
use super::scopes;
use crate::clock::Timestamp;
use crate::connection::{Connection, ConnectionState, Freshness, Reason};
use crate::protocol::scope::ScopeSet;
use crate::protocol::template::CallContext;
use crate::protocol::token::TokenFingerprint;

/// How long a fresh token set that followed an upstream's refusal is not replaced again.
const REJECTION_PAUSE: Duration = Duration::from_secs(5);

/// What a flight is to achieve.
#[derive(Clone, Debug)]
pub(super) enum Want {
    /// A token that may be sent to `origin` now, and is not `rejected`.
    Usable { origin: Arc<str>, rejected: Option<TokenFingerprint>, call: Arc<CallContext> },
    /// A younger token, while the old one is still good.
    Ahead { call: Arc<CallContext> },
    /// A token younger than the one with this fingerprint.
    Other(Option<TokenFingerprint>),
}

impl Want {
    pub(super) fn rejected(&self) -> Option<TokenFingerprint> {
        match self {
            Self::Usable { rejected, .. } => *rejected,
            _ => None,
        }
    }

    /// Scopes that the token must have beyond those of the profile.
    pub(super) fn scopes(&self) -> &ScopeSet {
        &self.call().scopes
    }

    /// What the call brings along, if a call wants it.
    pub(super) fn call(&self) -> &CallContext {
        static NONE: LazyLock<CallContext> = LazyLock::new(CallContext::default);
        match self {
            Self::Usable { call, .. } | Self::Ahead { call } => call,
            Self::Other(_) => &NONE,
        }
    }

    /// Whether `connection` already is what is wanted.
    pub(super) fn is_met(&self, connection: &Connection, now: Timestamp) -> bool {
        let freshness = connection.freshness(now);
        match self {
            Self::Usable { origin, rejected, call } => {
                let refused = rejected.is_some() && connection.fingerprint() == *rejected;
                let just_replaced = connection.is_doubtful()
                    && connection
                        .state
                        .tokens()
                        .is_some_and(|tokens| is_younger(tokens.obtained_at, now, REJECTION_PAUSE));
                freshness != Freshness::Ended
                    && connection.origins.allows(origin)
                    && connection.covers(&call.scopes)
                    && (!refused || just_replaced)
            }
            Self::Ahead { .. } => {
                freshness == Freshness::Fresh
                    || (freshness != Freshness::Ended && connection.renewal.is_err())
            }
            Self::Other(before) => freshness != Freshness::Ended && connection.fingerprint() != *before,
        }
    }

    /// Whether `connection`, obtained for it just now, does: some providers give the same access
    /// token again.
    pub(super) fn is_met_by_work(&self, connection: &Connection, now: Timestamp) -> bool {
        let allowed = match self {
            Self::Usable { origin, call, .. } => {
                connection.origins.allows(origin) && connection.covers(&call.scopes)
            }
            _ => true,
        };
        allowed && connection.freshness(now) != Freshness::Ended
    }
}

/// Whether what came `at` is less than `age` old. A clock that was set back makes nothing young.
fn is_younger(at: Timestamp, now: Timestamp, age: Duration) -> bool {
    at <= now && now.since(at) < age
}

/// What is certain without a look into the store or a request to the provider: a dead grant is not
/// tried again by every call, and trouble is not made worse. Where others write to the store too,
/// only the store knows.
pub(super) fn settled_error(
    context: &ProviderContext,
    connection: &Connection,
    want: &Want,
    now: Timestamp,
) -> Option<TokenError> {
    let needs_person = context.profile.grant.needs_person();
    let required = |reason| Some(TokenError::AuthorizationRequired { id: connection.id.clone(), reason });
    match &connection.state {
        // Its flight saves it; without one, the store's word counts.
        ConnectionState::Unsaved { .. } => {
            let subject = &connection.id.subject;
            return context.flights.is_running(subject).then(|| context.unsaved_error(subject));
        }
        _ if !context.exclusive_store => return None,
        ConnectionState::NeedsConsent { reason, .. } if needs_person => return required(*reason),
        _ => {}
    }
    if let Want::Usable { origin, .. } = want
        && needs_person
        && !connection.origins.allows(origin)
    {
        return required(Reason::UpstreamChanged);
    }
    if let Some(error) = scopes::settled(context, Some(connection), &connection.id.subject, want, now) {
        return Some(error);
    }
    if let (Err(reason), None) = (connection.renewal, want.rejected()) {
        return required(reason);
    }
    let trouble = connection.state.trouble()?;
    let held_back =
        trouble.holds_for(now).is_some_and(|wait| wait > context.profile.registration.retry.patience);
    (held_back && !matches!(want, Want::Other(_)))
        .then(|| context.trouble_error(&connection.state, trouble, now))
}
