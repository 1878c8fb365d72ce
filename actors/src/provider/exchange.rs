//! Obtaining and refreshing: one flight's work, from a fresh read of the record to a durable write.
//!
//! Order is everything here. The intent is journalled before the token request is sent; the answer
//! is saved before anything else is done with it; only then is it published and used. Every write
//! is a compare-and-swap on the revision that was read, so that nobody overwrites a newer token set
//! and nobody's `invalid_grant` ends a newer grant.

use std::sync::Arc;
use std::time::Duration;

use super::context::ProviderContext;
use super::error::TokenError;
use super::flights::Flight;
use super::{grant_request, save};
use crate::clock::Timestamp;
use crate::connection::{
    Connection, ConnectionRecord, ConnectionState, Failure, FailureClass, Freshness, Held, InFlight, Reason,
};
use crate::protocol::identifiers::Subject;
use crate::protocol::token::{Expiry, ExpiryBasis, TokenFingerprint};
use crate::store::{Expected, Revision, StoreError};
use crate::token_store::messages::StoredConnection;

/// Token requests within one flight while callers wait.
const ATTEMPTS: u32 = 3;

/// Races lost to other writers before we give up.
const RACES: u32 = 8;

/// How long a fresh token set that followed an upstream's refusal is not replaced again, as long as
/// no upstream takes it.
const REJECTION_PAUSE: Duration = Duration::from_secs(5);

/// How often another process's mark is looked at.
const FOREIGN_MARK_POLL: Duration = Duration::from_millis(200);

/// What a flight is to achieve.
#[derive(Clone, Debug)]
pub(super) enum Want {
    /// A token that may be sent to `origin` now, and is not `rejected`.
    Usable { origin: Arc<str>, rejected: Option<TokenFingerprint> },
    /// A younger token, while the old one is still good.
    Ahead,
    /// A token younger than the one with this fingerprint.
    Other(Option<TokenFingerprint>),
}

impl Want {
    fn rejected(&self) -> Option<TokenFingerprint> {
        match self {
            Self::Usable { rejected, .. } => *rejected,
            _ => None,
        }
    }

    /// Whether `connection` already is what is wanted.
    pub(super) fn is_met(&self, connection: &Connection, now: Timestamp) -> bool {
        let freshness = connection.freshness(now);
        match self {
            Self::Usable { origin, rejected } => {
                let refused = rejected.is_some() && connection.fingerprint() == *rejected;
                let just_replaced = connection.is_doubtful()
                    && connection
                        .state
                        .tokens()
                        .is_some_and(|tokens| now.since(tokens.obtained_at) < REJECTION_PAUSE);
                freshness != Freshness::Ended
                    && connection.origins.allows(origin)
                    && (!refused || just_replaced)
            }
            Self::Ahead => {
                freshness == Freshness::Fresh || (freshness != Freshness::Ended && !connection.renewable)
            }
            Self::Other(before) => freshness != Freshness::Ended && connection.fingerprint() != *before,
        }
    }
}

/// Why one attempt gave no token set.
enum Setback {
    /// Somebody else changed the record: look again.
    Raced,
    /// The provider failed in a way that a moment may mend.
    Passing { error: TokenError, delay: Duration },
    /// There will be no token now.
    Final(TokenError),
}

/// What is certain without a look into the store or a request to the provider: a dead grant is not
/// tried again by every call, and trouble is not made worse.
pub(super) fn settled_error(
    context: &ProviderContext,
    connection: &Connection,
    want: &Want,
    now: Timestamp,
) -> Option<TokenError> {
    let needs_person = context.profile.grant.needs_person();
    let required = |reason| Some(TokenError::AuthorizationRequired { id: connection.id.clone(), reason });
    match &connection.state {
        ConnectionState::NeedsConsent { reason, .. } if needs_person => return required(*reason),
        ConnectionState::Unsaved { .. } => return Some(context.unsaved_error(&connection.id.subject)),
        _ => {}
    }
    if let Want::Usable { origin, .. } = want
        && needs_person
        && !connection.origins.allows(origin)
    {
        return required(Reason::UpstreamChanged);
    }
    if !connection.renewable && want.rejected().is_none() {
        return required(Reason::NoRefreshToken);
    }
    let trouble = connection.state.trouble()?;
    let held_back =
        trouble.holds_for(now).is_some_and(|wait| wait > context.profile.registration.retry.patience);
    (held_back && !matches!(want, Want::Other(_)))
        .then(|| context.trouble_error(&connection.state, trouble, now))
}

/// Runs a flight and lands it.
pub(super) async fn run(context: Arc<ProviderContext>, subject: Subject, want: Want, flight: Flight) {
    let (mut attempts, mut races) = (0, 0);
    let outcome = loop {
        let setback = match attempt(&context, &subject, &want, &flight).await {
            Ok(connection) => break Ok(connection),
            Err(setback) => setback,
        };
        match setback {
            Setback::Raced if races < RACES => races += 1,
            Setback::Raced => break Err(context.aborted(&subject)),
            Setback::Final(error) => break Err(error),
            Setback::Passing { error, delay } => {
                attempts += 1;
                let patience = context.profile.registration.retry.patience;
                if attempts >= ATTEMPTS || delay > patience || matches!(want, Want::Ahead) {
                    break Err(error);
                }
                tokio::time::sleep(delay).await;
            }
        }
    };
    flight.land(outcome);
}

async fn attempt(
    context: &ProviderContext,
    subject: &Subject,
    want: &Want,
    flight: &Flight,
) -> Result<Arc<Connection>, Setback> {
    let id = context.id(subject);
    let stored =
        context.records.load(&id).await.map_err(|e| Setback::Final(context.store_error(subject, &e)))?;
    let now = context.now();
    let needs_person = context.profile.grant.needs_person();

    let (mut record, revision, connection) = match stored {
        None if needs_person => {
            let absent = context.publish(context.never_connected(subject));
            return Err(Setback::Final(authorization_required(&absent, Reason::NeverConnected)));
        }
        None => (context.new_record(), None, None),
        Some(stored) => {
            await_foreign_mark(context, &stored, now).await?;
            let connection = context.present(&stored);
            if want.is_met(&connection, now) {
                return Ok(context.publish(connection));
            }
            let StoredConnection { revision, record, .. } = stored;
            (record, Some(revision), Some(connection))
        }
    };

    if let Some(connection) = &connection {
        hold_back(context, connection, want, now).await?;
    }
    let bound = match want {
        Want::Usable { origin, .. } => record.origins.allows(origin),
        _ => true,
    };
    if let (true, Some(connection)) = (needs_person, connection) {
        check_consent(context, connection, bound, want, &record, now).await?;
    } else if !bound {
        // Nobody's consent is at stake: a token set for the upstreams of today.
        record = context.new_record();
    }

    if let Err(wait) = context.breaker.admit(now, context.profile.registration.retry.request_timeout) {
        return Err(Setback::Final(breaker_error(context, wait)));
    }
    exchange(context, subject, want, record, revision, flight).await
}

/// Another process is at it, or was: waits for a live mark, ignores a dead one.
async fn await_foreign_mark(
    context: &ProviderContext,
    stored: &StoredConnection,
    now: Timestamp,
) -> Result<(), Setback> {
    let live = stored.record.in_flight.as_ref().is_some_and(|mark| {
        mark.owner != *context.owner && !context.exclusive_store && now < mark.expires_at
    });
    if live {
        tokio::time::sleep(FOREIGN_MARK_POLL).await;
        let again = context.records.load(&stored.id).await;
        if !matches!(&again, Ok(Some(after)) if after.revision == stored.revision) {
            return Err(Setback::Raced);
        }
        let error = TokenError::ProviderUnavailable {
            profile: stored.id.profile.clone(),
            reason: Reason::ProviderTimeout,
            detail: "another replica is refreshing this connection".to_owned(),
            retry_after: Some(FOREIGN_MARK_POLL),
        };
        return Err(Setback::Passing { error, delay: FOREIGN_MARK_POLL });
    }
    Ok(())
}

/// Trouble met before: nothing is sent until its next attempt is due, unless an operator insists.
async fn hold_back(
    context: &ProviderContext,
    connection: &Connection,
    want: &Want,
    now: Timestamp,
) -> Result<(), Setback> {
    let Some(trouble) = connection.state.trouble() else { return Ok(()) };
    let Some(wait) = trouble.holds_for(now).filter(|_| !matches!(want, Want::Other(_))) else {
        return Ok(());
    };
    if wait > context.profile.registration.retry.patience || matches!(want, Want::Ahead) {
        return Err(Setback::Final(context.trouble_error(&connection.state, trouble, now)));
    }
    tokio::time::sleep(wait).await;
    Ok(())
}

/// What only a person can mend is said at once, without a request to the provider.
async fn check_consent(
    context: &ProviderContext,
    connection: Connection,
    bound: bool,
    want: &Want,
    record: &ConnectionRecord,
    now: Timestamp,
) -> Result<(), Setback> {
    let reason = match &connection.state {
        ConnectionState::NeedsConsent { reason, .. } => *reason,
        _ if !bound => Reason::UpstreamChanged,
        _ if !connection.renewable => Reason::NoRefreshToken,
        _ => return Ok(()),
    };
    let error = TokenError::AuthorizationRequired { id: connection.id.clone(), reason };
    if want.rejected().is_some() && reason == Reason::NoRefreshToken {
        learn_end(context, &connection, record, now).await;
    } else {
        context.publish(connection);
    }
    Err(Setback::Final(error))
}

/// A token of unknown expiry that cannot be refreshed was refused by an upstream: it is taken to
/// have ended, so that the next call asks for consent instead of meeting the same refusal.
async fn learn_end(
    context: &ProviderContext,
    connection: &Connection,
    record: &ConnectionRecord,
    now: Timestamp,
) {
    let Held::Tokens(tokens) = &record.held else { return };
    if tokens.expiry.is_stated() {
        return;
    }
    let mut tokens = tokens.clone();
    tokens.expiry = Expiry::Presumed { at: now, basis: ExpiryBasis::UpstreamRefusal };
    let record = ConnectionRecord { held: Held::Tokens(tokens), ..record.clone() };
    let expected = Expected::Revision(connection.revision);
    if let Ok(revision) = context.records.save(&connection.id, &record, expected).await {
        let stored = StoredConnection { id: connection.id.clone(), revision, record };
        context.publish(context.present(&stored));
    }
}

fn breaker_error(context: &ProviderContext, wait: Duration) -> TokenError {
    TokenError::ProviderUnavailable {
        profile: context.profile.registration.profile.clone(),
        reason: Reason::ProviderUnreachable,
        detail: format!(
            "the provider failed for every connection; last: {}",
            context.last_error().unwrap_or_else(|| "unknown".to_owned())
        ),
        retry_after: Some(wait),
    }
}

/// Journals the intent, asks the provider, saves the answer, publishes.
async fn exchange(
    context: &ProviderContext,
    subject: &Subject,
    want: &Want,
    mut record: ConnectionRecord,
    revision: Option<Revision>,
    flight: &Flight,
) -> Result<Arc<Connection>, Setback> {
    let held = match &record.held {
        Held::Tokens(tokens) => Some((**tokens).clone()),
        _ => None,
    };
    let refresh_token = held.as_ref().and_then(|tokens| tokens.refresh_token.clone());
    let cut_off = record.in_flight.as_ref().is_some_and(|mark| {
        mark.owner != *context.owner
            && mark.refresh_token == refresh_token.as_ref().map(|token| token.fingerprint())
    });
    let journalled_at = context.now();
    record.in_flight = Some(InFlight {
        owner: context.owner.to_string(),
        since: journalled_at,
        expires_at: journalled_at.after(mark_lifetime(context)),
        refresh_token: refresh_token.as_ref().map(|token| token.fingerprint()),
    });
    let id = context.id(subject);
    let expected = revision.map_or(Expected::Absent, Expected::Revision);
    let revision =
        context.records.save(&id, &record, expected).await.map_err(|e| not_saved(context, subject, &e))?;

    let mut answer = match &refresh_token {
        Some(token) => grant_request::refresh(context, token).await,
        None => grant_request::obtain(context, subject).await,
    };
    let dead = |answer: &Result<_, Failure>| matches!(answer, Err(f) if f.class == FailureClass::GrantDead);
    if dead(&answer) && !context.profile.grant.needs_person() {
        // A refresh token that is dead is no loss where the grant itself can be used again.
        answer = match refresh_token {
            Some(_) => grant_request::obtain(context, subject).await,
            None => answer,
        };
        answer = answer.map_err(refused_for_good);
    }
    let granted = match answer {
        Ok(granted) => granted,
        Err(mut failure) => {
            if cut_off && failure.class == FailureClass::GrantDead {
                failure.reason = Reason::InterruptedRefresh;
            }
            return Err(failed(context, subject, want, record, revision, failure).await);
        }
    };

    let rejected = want.rejected();
    if let (Some(refused), Some(before)) = (rejected, &held)
        && before.access_token.fingerprint() == refused
        && !before.expiry.is_stated()
    {
        let age = granted.requested_at.since(before.obtained_at);
        record.learned_lifetime = u64::try_from(age.as_millis()).ok();
    }
    let id_token = granted.response.id_token.clone();
    let tokens =
        granted.into_token_set(&context.profile.registration, held.as_ref(), record.learned_lifetime);
    let identity = tokens.identity.clone();
    let expected = Expected::Revision(revision);
    let connection = save::keep(context, subject, record, expected, tokens, rejected.is_some(), flight)
        .await
        .map_err(|save::Raced| Setback::Raced)?;
    match id_token {
        Some(token) => {
            save::check_continuity(context, connection, &token, identity).await.map_err(Setback::Final)
        }
        None => Ok(connection),
    }
}

fn mark_lifetime(context: &ProviderContext) -> Duration {
    context.profile.registration.retry.request_timeout * 3
}

fn not_saved(context: &ProviderContext, subject: &Subject, error: &StoreError) -> Setback {
    match error {
        StoreError::Conflict { .. } => Setback::Raced,
        other => Setback::Final(context.store_error(subject, other)),
    }
}

/// Where no person is in the grant, `invalid_grant` means that the profile itself is refused.
fn refused_for_good(failure: Failure) -> Failure {
    match failure.class {
        FailureClass::GrantDead => {
            Failure { class: FailureClass::ClientMisconfigured, reason: Reason::RequestRefused, ..failure }
        }
        _ => failure,
    }
}

/// Applies a failure to the state machine. Only a dead grant is written to the store.
async fn failed(
    context: &ProviderContext,
    subject: &Subject,
    want: &Want,
    mut record: ConnectionRecord,
    revision: Revision,
    failure: Failure,
) -> Setback {
    let id = context.id(subject);
    let now = context.now();
    let before = context.present(&StoredConnection { id: id.clone(), revision, record: record.clone() });
    let retry = &context.profile.registration.retry;
    let state = before.state.clone().failed(&failure, now, retry, context.jitter());
    let mut written = revision;
    if failure.class == FailureClass::GrantDead {
        record.held = Held::NeedsConsent { reason: failure.reason, since: now };
        record.in_flight = None;
        match context.records.save(&id, &record, Expected::Revision(revision)).await {
            Ok(revision) => written = revision,
            Err(StoreError::Conflict { .. }) => return Setback::Raced,
            // Said again by the provider at the next attempt.
            Err(error) => return Setback::Final(context.store_error(subject, &error)),
        }
    }
    let connection = context.publish(context.connection(id, written, &record, state));
    let hold = connection.state.trouble().and_then(|trouble| trouble.holds_for(now)).unwrap_or_default();
    let throttled = failure.retry_after.is_some() || context.breaker.open_until(now).is_some();
    let error = context.failure_error(subject, &failure, throttled.then_some(hold));
    let passing = matches!(
        failure.reason,
        Reason::ProviderError | Reason::ProviderUnreachable | Reason::ProviderThrottled
    );
    let usable_yet = want.rejected().is_none() && connection.freshness(now) != Freshness::Ended;
    match failure.class {
        // An upstream's refusal or an operator's wish is no reason to insist while the token lives.
        FailureClass::ProviderUnavailable if passing && !usable_yet => {
            Setback::Passing { error, delay: hold }
        }
        _ => Setback::Final(error),
    }
}

fn authorization_required(connection: &Connection, reason: Reason) -> TokenError {
    TokenError::AuthorizationRequired { id: connection.id.clone(), reason }
}
