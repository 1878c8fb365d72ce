//! Scopes that a route needs beyond its profile's, and what is remembered of those that the provider
//! does not grant: no request is sent for them with every call.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use super::context::ProviderContext;
use super::error::TokenError;
use super::want::Want;
use crate::clock::Timestamp;
use crate::connection::{Connection, Failure, Freshness, Reason};
use crate::protocol::identifiers::Subject;
use crate::protocol::scope::ScopeSet;
use crate::protocol::token::TokenSet;

/// Subjects whose refusals are remembered. Beyond that, a request may be sent once more than needed.
const MOST: usize = 1000;

/// Requests for further scopes that the provider refused lately, by subject.
#[derive(Debug, Default)]
pub(super) struct ScopeRefusals(Mutex<BTreeMap<Subject, Refusal>>);

#[derive(Debug)]
struct Refusal {
    scopes: ScopeSet,
    detail: String,
    at: Timestamp,
    until: Timestamp,
}

impl ScopeRefusals {
    fn note(&self, subject: &Subject, refusal: Refusal) {
        let mut refusals = self.0.lock();
        if refusals.len() >= MOST {
            refusals.retain(|_, old| refusal.at < old.until);
        }
        if refusals.len() < MOST || refusals.contains_key(subject) {
            refusals.insert(subject.clone(), refusal);
        }
    }

    /// What the provider said, if it refused any of `needed` and is not asked again yet. A clock
    /// that was set back holds nobody up.
    fn of(&self, subject: &Subject, needed: &ScopeSet, now: Timestamp) -> Option<String> {
        let refusals = self.0.lock();
        let refusal = refusals.get(subject).filter(|refusal| (refusal.at..refusal.until).contains(&now))?;
        needed.covers(&refusal.scopes).then(|| refusal.detail.clone())
    }
}

/// What to say at once of scopes that `want` needs and that `connection` has not: a person must
/// allow them; where no person is in the grant, the provider was asked and did not grant them.
pub(super) fn settled(
    context: &ProviderContext,
    connection: Option<&Connection>,
    subject: &Subject,
    want: &Want,
    now: Timestamp,
) -> Option<TokenError> {
    let needed = want.scopes();
    if needed.is_empty() || connection.is_some_and(|connection| connection.covers(needed)) {
        return None;
    }
    let tokens = connection.and_then(|connection| connection.state.tokens());
    if context.profile.grant.needs_person() {
        // Without a token set there is another reason to ask the person.
        return tokens.map(|_| TokenError::AuthorizationRequired {
            id: context.id(subject),
            reason: Reason::ScopeMissing,
        });
    }
    let missing = needed.without(&tokens.and_then(|tokens| tokens.scope.clone()).unwrap_or_default());
    let ended = connection.is_none_or(|connection| connection.freshness(now) == Freshness::Ended);
    let asked = tokens.and_then(|tokens| tokens.requested_scope.as_ref());
    let detail = match context.scope_refusals.of(subject, needed, now) {
        Some(said) => format!("{missing} ({said})"),
        None if !ended && asked.is_some_and(|asked| asked.covers(needed)) => missing.to_string(),
        None => return None,
    };
    Some(TokenError::ScopesRefused { id: context.id(subject), detail })
}

/// Everything to ask for: the profile's scopes, those that `want` needs, and what was granted.
pub(super) fn to_ask(context: &ProviderContext, want: &Want, held: Option<&TokenSet>) -> ScopeSet {
    let kept = held.map(|tokens| tokens.kept_scopes()).unwrap_or_default();
    context.profile.registration.scopes.union(want.scopes()).union(&kept)
}

/// The provider refused a request that asked for more than the profile's scopes. That is nothing
/// against what the profile itself asks for: it is remembered for these scopes alone.
pub(super) fn refused(
    context: &ProviderContext,
    subject: &Subject,
    want: &Want,
    failure: &Failure,
) -> Option<TokenError> {
    let further = want.scopes().without(&context.profile.registration.scopes);
    if failure.reason != Reason::RequestRefused || further.is_empty() {
        return None;
    }
    let at = context.now();
    let until = at.after(context.profile.registration.retry.longest_delay);
    let error = TokenError::ScopesRefused {
        id: context.id(subject),
        detail: format!("{further} ({})", failure.detail),
    };
    let refusal = Refusal { scopes: further, detail: failure.detail.clone(), at, until };
    context.scope_refusals.note(subject, refusal);
    Some(error)
}
