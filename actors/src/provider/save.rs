//! Makes a new token set durable before anything uses it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::context::ProviderContext;
use super::error::TokenError;
use super::flights::Flight;
use super::grant_request;
use crate::connection::{Connection, ConnectionRecord, ConnectionState, FailureClass, Held, Reason};
use crate::protocol::identifiers::Subject;
use crate::protocol::secret::Secret;
use crate::protocol::token::{IdentityClaims, TokenSet};
use crate::store::{Expected, Revision, StoreError};
use crate::token_endpoint::failure;

/// Delay between two tries to save; doubles up to [`LONGEST_DELAY`].
const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(5);

/// The revision of what is in no store yet.
const UNWRITTEN: Revision = Revision(0);

/// Another writer changed the record first.
pub(super) struct Raced;

/// Saves `tokens` and publishes them. While the store fails, the token set is kept in memory, the
/// connection stays taken, its callers get an error at once, and saving is tried again until it
/// succeeds: losing a rotated refresh token would send the person back to a consent page.
///
/// `Err(Raced)`: another writer was faster, and its token set stands.
pub(super) async fn keep(
    context: &ProviderContext,
    subject: &Subject,
    mut record: ConnectionRecord,
    expected: Expected,
    tokens: TokenSet,
    after_rejection: bool,
    flight: &Flight,
) -> Result<Arc<Connection>, Raced> {
    let id = context.id(subject);
    record.held = Held::Tokens(Box::new(tokens.clone()));
    record.in_flight = None;
    let mut delay = FIRST_DELAY;
    let mut unsaved = None;
    let written = loop {
        match context.records.save(&id, &record, expected).await {
            Ok(written) => break written,
            Err(StoreError::Conflict { .. }) => return Err(Raced),
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
    let state = ConnectionState::obtained(tokens);
    let connection = context.connection(id, written, &record, state);
    Ok(context.publish(connection.in_doubt(after_rejection)))
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
/// section 12.2). Checked after the save: the token set may be the only good one left.
pub(super) async fn check_continuity(
    context: &ProviderContext,
    connection: Arc<Connection>,
    id_token: &Secret,
    identity: Option<IdentityClaims>,
) -> Result<Arc<Connection>, TokenError> {
    let (Some(identity), Some(tokens)) = (identity, connection.state.tokens()) else { return Ok(connection) };
    let claims = match grant_request::identity(context, id_token, &tokens.access_token, None).await {
        Ok(claims) => claims,
        Err(failure) => {
            // An ID token that cannot be checked proves nothing, and takes nothing away.
            tracing::warn!(connection = %connection.id, detail = failure.detail, "the refresh's ID token is ignored");
            return Ok(connection);
        }
    };
    if claims == identity {
        return Ok(connection);
    }
    tracing::error!(connection = %connection.id, "the refresh's ID token names another subject; connection ended");
    let reason = Reason::SubjectChanged;
    let now = context.now();
    let id = connection.id.clone();
    let record = ConnectionRecord {
        created_at: connection.created_at,
        origins: connection.origins.clone(),
        held: Held::NeedsConsent { reason, since: now },
        in_flight: None,
        learned_lifetime: None,
    };
    let subject = id.subject.clone();
    let revision = context
        .records
        .save(&id, &record, Expected::Revision(connection.revision))
        .await
        .map_err(|error| context.store_error(&subject, &error))?;
    let state = ConnectionState::NeedsConsent { reason, since: now };
    let ended = context.connection(id.clone(), revision, &record, state);
    context.publish(ended);
    let failure = failure(FailureClass::GrantDead, reason, "another subject".to_owned());
    Err(context.failure_error(&subject, &failure, None))
}
