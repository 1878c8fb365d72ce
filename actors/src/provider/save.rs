//! Makes a new token set durable before anything uses it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::context::ProviderContext;
use super::error::TokenError;
use super::flights::Flight;
use super::grant_request;
use crate::connection::{Connection, ConnectionRecord, ConnectionState, FailureClass, Held, Reason};
use crate::protocol::identifiers::{ConnectionId, Subject};
use crate::protocol::token::{RefreshToken, TokenFingerprint, TokenSet};
use crate::store::{Expected, Revision, StoreError};
use crate::token_endpoint::failure;
use crate::token_store::messages::StoredConnection;

/// Delay between two tries to save; doubles up to [`LONGEST_DELAY`].
const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(5);

/// The revision of what is in no store yet.
const UNWRITTEN: Revision = Revision(0);

/// A token set that is in no store yet.
pub(super) struct NewTokens {
    /// The record that it becomes part of.
    pub(super) record: ConnectionRecord,
    /// What it was made from.
    pub(super) expected: Expected,
    pub(super) tokens: TokenSet,
    /// The refresh token that was used up for it.
    pub(super) replaces: Option<TokenFingerprint>,
    /// It was obtained because an upstream refused the one before.
    pub(super) after_rejection: bool,
}

/// Why a new token set is not the one that is used.
pub(super) enum NotKept {
    /// Another writer changed the record first, and its token set stands.
    Raced,
    /// It is durable, and nobody may use it.
    Unfit(TokenError),
}

/// Saves a token set and publishes it. While the store fails, it is kept in memory, the connection
/// stays taken, its callers get an error at once, and saving is tried again until it succeeds:
/// losing a rotated refresh token would send the person back to a consent page.
pub(super) async fn keep(
    context: &ProviderContext,
    subject: &Subject,
    new: NewTokens,
    flight: &Flight,
) -> Result<Arc<Connection>, NotKept> {
    let NewTokens { mut record, mut expected, tokens, replaces, after_rejection } = new;
    let id = context.id(subject);
    record.held = Held::Tokens(Box::new(tokens.clone()));
    record.in_flight = None;
    let mut delay = FIRST_DELAY;
    let mut unsaved = None;
    let written = loop {
        match write(context, &id, &record, &mut expected, replaces).await {
            Ok(Some(written)) => break written,
            Ok(None) => return Err(NotKept::Raced),
            Err(error) => {
                tracing::error!(connection = %id, %error, "a new token set cannot be saved; trying again");
                context.note_error(&error);
                if unsaved.is_none() {
                    unsaved = Some(UnsavedMark::new(context));
                    let state = ConnectionState::unsaved(tokens.clone(), context.now());
                    context.publish(context.connection(id.clone(), UNWRITTEN, &record, state));
                    flight.announce(Err(context.unsaved_error(subject)));
                }
            }
        }
        tokio::time::sleep(delay).await;
        delay = (delay * 2).min(LONGEST_DELAY);
    };
    drop(unsaved);
    let stored = StoredConnection { id: id.clone(), revision: written, record };
    check_continuity(context, &stored).await?;
    let connection = context.connection(id, written, &stored.record, ConnectionState::obtained(tokens));
    Ok(context.publish(connection.in_doubt(after_rejection)))
}

/// One try; `None` if another writer's token set stands.
async fn write(
    context: &ProviderContext,
    id: &ConnectionId,
    record: &ConnectionRecord,
    expected: &mut Expected,
    replaces: Option<TokenFingerprint>,
) -> Result<Option<Revision>, StoreError> {
    loop {
        match context.records.save(id, record, *expected).await {
            Err(StoreError::Conflict { .. }) => {}
            answer => return answer.map(Some),
        }
        let Some(stored) = context.records.load(id).await? else { return Ok(None) };
        if stored.record == *record {
            // An earlier try was made after all, and only its answer was lost.
            return Ok(Some(stored.revision));
        }
        let spent = replaces.is_some() && refresh_token(&stored.record) == replaces;
        if !spent {
            return Ok(None);
        }
        // Somebody means to use the refresh token that was used up for this one: ours goes on.
        *expected = Expected::Revision(stored.revision);
    }
}

fn refresh_token(record: &ConnectionRecord) -> Option<TokenFingerprint> {
    match &record.held {
        Held::Tokens(tokens) => tokens.refresh_token.as_ref().map(RefreshToken::fingerprint),
        _ => None,
    }
}

/// Counts a token set that is not durable, for readiness, until it is dropped.
struct UnsavedMark<'a>(&'a ProviderContext);

impl<'a> UnsavedMark<'a> {
    fn new(context: &'a ProviderContext) -> Self {
        context.unsaved.fetch_add(1, Ordering::Relaxed);
        Self(context)
    }
}

impl Drop for UnsavedMark<'_> {
    fn drop(&mut self) {
        self.0.unsaved.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The ID token of a refresh must name the subject of the first one (OpenID Connect Core
/// section 12.2). Looked at after the save, since the token set may be the only good one left, and
/// before anybody uses it.
pub(super) async fn check_continuity(
    context: &ProviderContext,
    stored: &StoredConnection,
) -> Result<(), NotKept> {
    let record = &stored.record;
    let (Held::Tokens(tokens), Some(id_token)) = (&record.held, &record.unchecked_id_token) else {
        return Ok(());
    };
    let Some(identity) = &tokens.identity else { return Ok(()) };
    let checked = grant_request::identity(context, &id_token.0, &tokens.access_token, tokens.obtained_at);
    match checked.await {
        Ok(claims) if claims == *identity => return Ok(()),
        Ok(_) => {}
        Err(failure) => {
            // An ID token that cannot be checked proves nothing, and takes nothing away.
            tracing::warn!(connection = %stored.id, detail = failure.detail, "the refresh's ID token is ignored");
            return Ok(());
        }
    }
    tracing::error!(connection = %stored.id, "the refresh's ID token names another subject; connection ended");
    let (reason, since) = (Reason::SubjectChanged, context.now());
    let held = Held::NeedsConsent { reason, since };
    let record = ConnectionRecord { held, in_flight: None, unchecked_id_token: None, ..record.clone() };
    let subject = &stored.id.subject;
    match context.records.save(&stored.id, &record, Expected::Revision(stored.revision)).await {
        Ok(revision) => {
            let state = ConnectionState::NeedsConsent { reason, since };
            context.publish(context.connection(stored.id.clone(), revision, &record, state));
        }
        Err(StoreError::Conflict { .. }) => return Err(NotKept::Raced),
        Err(error) => return Err(NotKept::Unfit(context.store_error(subject, &error))),
    }
    let failure = failure(FailureClass::GrantDead, reason, "another subject".to_owned());
    Err(NotKept::Unfit(context.failure_error(subject, &failure, None)))
}
