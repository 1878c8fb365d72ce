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
use super::grant_request::{self, Ask};
use super::introspection;
use super::rekey;
use super::save::{self, NewTokens, NotKept};
use super::scopes;
use super::want::Want;
use crate::clock::Timestamp;
use crate::connection::{
    Connection, ConnectionRecord, ConnectionState, Failure, FailureClass, Freshness, Held, InFlight, Reason,
    Trouble, UncheckedIdToken,
};
use crate::protocol::identifiers::Subject;
use crate::protocol::token::{Expiry, ExpiryBasis, RefreshToken, TokenFingerprint, TokenSet};
use crate::store::{Expected, Revision, StoreError};
use crate::token_store::messages::StoredConnection;

/// Races lost to other writers before we give up.
const RACES: u32 = 8;

/// A token that was refused at a younger age was refused for another reason than its age.
const YOUNGEST_LESSON: Duration = Duration::from_secs(60);

/// How often another process's mark is looked at.
const FOREIGN_MARK_POLL: Duration = Duration::from_millis(200);

/// Why one attempt gave no token set.
enum Setback {
    /// Somebody else changed the record: look again.
    Raced,
    /// The provider failed in a way that a moment may mend.
    Passing { error: TokenError, delay: Duration },
    /// There will be no token now.
    Final(TokenError),
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
                let retry = &context.profile.registration.retry;
                let give_up = attempts >= retry.attempts || delay > retry.patience;
                if give_up || matches!(want, Want::Ahead { .. }) {
                    break Err(error);
                }
                tokio::time::sleep(delay).await;
            }
        }
    };
    flight.land(match outcome {
        // Given up at once, as nobody waited; whoever does by now tries harder.
        Err(TokenError::ProviderUnavailable { .. }) if matches!(want, Want::Ahead { .. }) => {
            Err(context.aborted(&subject))
        }
        outcome => outcome,
    });
}

async fn attempt(
    context: &ProviderContext,
    subject: &Subject,
    want: &Want,
    flight: &Flight,
) -> Result<Arc<Connection>, Setback> {
    let id = context.id(subject);
    let needs_person = context.profile.grant.needs_person();
    let (mut record, expected, connection) = match context.records.load(&id).await {
        Ok(Some(stored)) if stored.record.moving_to.is_some() => {
            rekey::finish(context, &stored).await.map_err(Setback::Final)?;
            return Err(Setback::Raced);
        }
        // What another credential obtained, or the profile without a person, is left behind at once.
        Ok(Some(stored)) if !context.is_current(&stored.record) => {
            if needs_person {
                let absent = context.publish(context.never_connected(subject));
                return Err(Setback::Final(authorization_required(&absent, Reason::ProviderChanged)));
            }
            (context.new_record(), Expected::Revision(stored.revision), None)
        }
        Ok(Some(stored)) => {
            check_unchecked(context, &stored).await?;
            let (connection, now) = (context.present(&stored), context.now());
            if want.is_met(&connection, now) {
                return Ok(context.publish(connection));
            }
            await_foreign_mark(context, &stored, want).await?;
            (stored.record, Expected::Revision(stored.revision), Some(connection))
        }
        Ok(None) if needs_person => {
            let absent = context.publish(context.never_connected(subject));
            return Err(Setback::Final(authorization_required(&absent, Reason::NeverConnected)));
        }
        Ok(None) => (context.new_record(), Expected::Absent, None),
        // Nothing is lost with it: the grant can be used again.
        Err(StoreError::Damaged { .. }) if !needs_person => (context.new_record(), Expected::Anything, None),
        Err(error) => return Err(Setback::Final(context.store_error(subject, &error))),
    };

    if let Some(connection) = &connection {
        hold_back(context, connection, want).await?;
    }
    let now = context.now();
    let trouble = connection.as_ref().and_then(|connection| connection.state.trouble().cloned());
    let bound = match want {
        Want::Usable { origin, .. } => record.origins.allows(origin),
        _ => true,
    };
    let unmet = scopes::settled(context, connection.as_ref(), subject, want, now);
    if let (true, Some(connection)) = (needs_person, connection) {
        check_consent(context, connection, bound, want, &record, now).await?;
    } else if let Some(error) = unmet {
        return Err(Setback::Final(error));
    } else if !bound || matches!(record.held, Held::NeedsConsent { .. }) {
        // Nobody's consent is at stake: a token set for the profile and the upstreams of today.
        record = context.new_record();
    }

    if let Err(wait) = context.breaker.admit(now, context.profile.registration.retry.request_timeout) {
        return Err(Setback::Final(breaker_error(context, wait)));
    }
    exchange(context, subject, want, Start { record, expected, trouble }, flight).await
}

/// What an exchange starts from.
struct Start {
    record: ConnectionRecord,
    expected: Expected,
    /// What was wrong before.
    trouble: Option<Trouble>,
}

/// Whoever saved this record may have ended before its ID token was looked at.
async fn check_unchecked(context: &ProviderContext, stored: &StoredConnection) -> Result<(), Setback> {
    let published = context.connections.get(&stored.id);
    if published.is_some_and(|connection| connection.revision == stored.revision) {
        return Ok(());
    }
    save::check_continuity(context, stored).await.map_err(setback)
}

/// Another process is at it, or was: waits for a live mark, ignores a dead one.
async fn await_foreign_mark(
    context: &ProviderContext,
    stored: &StoredConnection,
    want: &Want,
) -> Result<(), Setback> {
    let Some(mark) = stored.record.in_flight.as_ref().filter(|mark| mark.owner != *context.owner) else {
        return Ok(());
    };
    let mut waited = Duration::ZERO;
    // Bounded by what has passed as well: clocks differ, and can be set.
    while !context.exclusive_store && context.now() < mark.expires_at && waited < mark_lifetime(context) {
        if matches!(want, Want::Ahead { .. }) {
            return Err(Setback::Final(context.aborted(&stored.id.subject)));
        }
        tokio::time::sleep(FOREIGN_MARK_POLL).await;
        waited += FOREIGN_MARK_POLL;
        match context.records.load(&stored.id).await {
            Ok(Some(after)) if after.revision == stored.revision => {}
            Ok(_) => return Err(Setback::Raced),
            Err(error) => return Err(Setback::Final(context.store_error(&stored.id.subject, &error))),
        }
    }
    Ok(())
}

/// Trouble met before: nothing is sent until its next attempt is due, unless an operator insists.
async fn hold_back(context: &ProviderContext, connection: &Connection, want: &Want) -> Result<(), Setback> {
    let Some(trouble) = connection.state.trouble() else { return Ok(()) };
    let now = context.now();
    let Some(wait) = trouble.holds_for(now).filter(|_| !matches!(want, Want::Other(_))) else {
        return Ok(());
    };
    if wait > context.profile.registration.retry.patience || matches!(want, Want::Ahead { .. }) {
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
        _ if !connection.covers(want.scopes()) => Reason::ScopeMissing,
        _ => match connection.renewal {
            Err(reason) => reason,
            Ok(()) => return Ok(()),
        },
    };
    let error = TokenError::AuthorizationRequired { id: connection.id.clone(), reason };
    if want.rejected().is_some_and(|refused| teaches(&refused, record, now))
        && reason == Reason::NoRefreshToken
    {
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
    let mut tokens = tokens.clone();
    tokens.expiry = Expiry::Presumed { at: now, basis: ExpiryBasis::UpstreamRefusal };
    let record = ConnectionRecord { held: Held::Tokens(tokens), ..record.clone() };
    let expected = Expected::Revision(connection.revision);
    if let Ok(revision) = context.records.save(&connection.id, &record, expected).await {
        let stored = StoredConnection { id: connection.id.clone(), revision, record };
        context.publish(context.present(&stored));
    }
}

/// Whether the upstream's refusal says when such tokens end: of the token that is held, of unknown
/// expiry, and too old to have been refused for another reason.
fn teaches(refused: &TokenFingerprint, record: &ConnectionRecord, now: Timestamp) -> bool {
    let Held::Tokens(tokens) = &record.held else { return false };
    tokens.access_token.fingerprint() == *refused
        && !tokens.expiry.is_stated()
        && now.since(tokens.obtained_at) >= YOUNGEST_LESSON
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
    start: Start,
    flight: &Flight,
) -> Result<Arc<Connection>, Setback> {
    let Start { mut record, expected, trouble } = start;
    if !context.issued(&record) {
        // Another authorization server's tokens are neither sent to this one nor carried over.
        record = ConnectionRecord { created_at: record.created_at, ..context.new_record() };
    }
    let held = match &record.held {
        Held::Tokens(tokens) => Some((**tokens).clone()),
        _ => None,
    };
    let dpop_key =
        grant_request::dpop_key(context, held.as_ref().and_then(|tokens| tokens.dpop_key.as_ref()))
            .map_err(|failure| Setback::Final(context.failure_error(subject, &failure, None)))?;
    let dpop_key = dpop_key.as_ref();
    // A refresh brings no further scopes (RFC 6749 section 6): they are asked for anew.
    let fits = held.as_ref().filter(|tokens| tokens.covers(want.scopes()));
    // One that has surely ended is not tried, nor carried over.
    let ended = |tokens: &&TokenSet| {
        tokens.refresh_token.is_some() && context.live_refresh_token(tokens, context.now()).is_none()
    };
    let fits = fits.filter(|tokens| !ended(tokens));
    let refresh_token = fits.and_then(|tokens| tokens.refresh_token.clone());
    grant_request::check_call(context, refresh_token.is_some(), want.call())
        .map_err(|failure| Setback::Final(context.failure_error(subject, &failure, None)))?;
    let scopes = scopes::to_ask(context, want, held.as_ref());
    let obtain = Ask::Obtain { subject, call: want.call(), scopes: &scopes };
    let spent = refresh_token.as_ref().map(RefreshToken::fingerprint);
    let journalled_at = context.now();
    let mark = InFlight {
        owner: context.owner.to_string(),
        since: journalled_at,
        expires_at: journalled_at.after(mark_lifetime(context)),
        refresh_token: spent,
        cut_off: was_cut_off(context, &record, spent, trouble.as_ref()),
    };
    let cut_off = mark.cut_off;
    record.in_flight = Some(mark);
    record.unchecked_id_token = None;
    let id = context.id(subject);
    let revision =
        context.records.save(&id, &record, expected).await.map_err(|e| not_saved(context, subject, &e))?;

    let mut before = fits;
    let mut answer = match &refresh_token {
        Some(token) => {
            grant_request::send(context, Ask::Refresh(token, subject, want.call()), dpop_key).await
        }
        None => grant_request::send(context, obtain, dpop_key).await,
    };
    let dead = |answer: &Result<_, Failure>| matches!(answer, Err(f) if f.class == FailureClass::GrantDead);
    if dead(&answer) && !context.profile.grant.needs_person() {
        // Without a person, `invalid_grant` means that the profile itself is refused.
        // A refresh token that is dead is no loss where the grant itself can be used again.
        if refresh_token.is_some() {
            before = None;
            answer = grant_request::send(context, obtain, dpop_key).await;
        }
        answer = answer.map_err(grant_request::before_any_grant);
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
    if let (Some(refused), Some(held)) = (rejected, &held)
        && teaches(&refused, &record, granted.requested_at)
    {
        let age = granted.requested_at.since(held.obtained_at);
        record.learned_lifetime = u64::try_from(age.as_millis()).ok();
    }
    let id_token = granted.response.id_token.clone();
    let tokens = granted.into_token_set(&context.profile.registration, before, record.learned_lifetime);
    record.unchecked_id_token = id_token.filter(|_| tokens.identity.is_some()).map(UncheckedIdToken);
    let new = NewTokens {
        record,
        expected: Expected::Revision(revision),
        tokens,
        replaces: spent,
        after_rejection: rejected.is_some(),
    };
    let connection = save::keep(context, subject, new, flight).await.map_err(setback)?;
    let connection = introspection::learn_expiry(context, connection).await;
    if connection.freshness(context.now()) == Freshness::Ended {
        let (held_back, error) = context.stillborn(&connection, trouble);
        context.publish(held_back);
        return Err(Setback::Final(error));
    }
    Ok(connection)
}

fn setback(not_kept: NotKept) -> Setback {
    match not_kept {
        NotKept::Raced => Setback::Raced,
        NotKept::Unfit(error) => Setback::Final(error),
    }
}

/// Whether an earlier request with the refresh token `spent` was sent, and no answer came: from a
/// process that ended, or lost on its way.
fn was_cut_off(
    context: &ProviderContext,
    record: &ConnectionRecord,
    spent: Option<TokenFingerprint>,
    trouble: Option<&Trouble>,
) -> bool {
    let lost = trouble.is_some_and(|trouble| is_unanswered(trouble.reason));
    spent.is_some()
        && record.in_flight.as_ref().is_some_and(|mark| {
            mark.refresh_token == spent && (mark.cut_off || lost || context.is_earlier_mark(mark))
        })
}

/// Whether the provider may have done what was asked although it seems to have failed.
fn is_unanswered(reason: Reason) -> bool {
    matches!(reason, Reason::ProviderTimeout | Reason::MalformedAnswer)
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
    if let Some(error) = scopes::refused(context, subject, want, &failure) {
        // What is held is as good as before.
        context.publish(before);
        return Setback::Final(error);
    }
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
    } else if !context.exclusive_store && !is_unanswered(failure.reason) {
        // Others need not wait for what was answered.
        record.in_flight = None;
        match context.records.save(&id, &record, Expected::Revision(revision)).await {
            Ok(revision) => written = revision,
            Err(StoreError::Conflict { .. }) => return Setback::Raced,
            Err(error) => context.note_error(&error),
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
