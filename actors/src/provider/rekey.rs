//! Moves a connection under another subject, such as one that began without a login to the person
//! who logged in.
//!
//! Two records change, and a crash may come between. So the old record is marked first with where it
//! goes; then the new one is written, which names the mark; then the old one is removed. Whoever meets
//! a mark finishes the move before anything else is done with the record: at no time do two records
//! hold one refresh token that somebody may use, and at no time does none.

use std::cmp::Ordering;

use super::consent::{RACES, take_turn};
use super::context::ProviderContext;
use super::error::TokenError;
use super::flights::Flight;
use super::messages::{NewSubject, Rekeyed};
use crate::connection::{ConnectionRecord, Held, MovingTo};
use crate::protocol::identifiers::Subject;
use crate::store::{Expected, Revision, StoreError};
use crate::token_store::messages::StoredConnection;

/// Moves the connection of `from` under the subject that `to` names. What is there is replaced only if
/// `replace` says so.
pub(super) async fn rekey(
    context: &ProviderContext,
    from: &Subject,
    to: &NewSubject,
    replace: bool,
) -> Result<Rekeyed, TokenError> {
    if !context.profile.call_needs().is_nothing() {
        return Ok(Rekeyed::Unfit(
            "its name says what its token was obtained with, so it keeps it".to_owned(),
        ));
    }
    let to = match target(context, from, to).await? {
        Ok(to) => to,
        Err(answer) => return Ok(answer),
    };
    let _turns = match turns(context, from, &to).await? {
        Some(turns) => turns,
        None => return Ok(Rekeyed::Unfit("it has that subject already".to_owned())),
    };
    for _ in 0..RACES {
        let stored = match load(context, from).await? {
            Some(stored) => stored,
            None => return Ok(Rekeyed::NoConnection),
        };
        if let Some(moving) = &stored.record.moving_to {
            // An earlier move was cut off.
            let same = moving.subject == to;
            if finish(context, &stored).await? && same {
                return shown(context, &to).await;
            }
            continue;
        }
        if !matches!(stored.record.held, Held::Tokens(_)) {
            return Ok(Rekeyed::Unfit("it holds no token set".to_owned()));
        }
        if is_used_elsewhere(context, &stored.record) {
            return Err(context.aborted(from));
        }
        let there = load(context, &to).await?;
        if there.is_some() && !replace {
            return Ok(Rekeyed::Taken(context.id(&to)));
        }
        let moving_to = MovingTo { subject: to.clone(), replaces: there.map(|stored| stored.revision) };
        let record = ConnectionRecord { moving_to: Some(moving_to), ..stored.record };
        let id = stored.id;
        match context.records.save(&id, &record, Expected::Revision(stored.revision)).await {
            Ok(revision) => {
                if finish(context, &StoredConnection { id, revision, record }).await? {
                    return shown(context, &to).await;
                }
            }
            Err(StoreError::Conflict { .. }) => {}
            Err(error) => return Err(context.store_error(from, &error)),
        }
    }
    Err(context.aborted(from))
}

/// The subject to move to, or why there is none.
async fn target(
    context: &ProviderContext,
    from: &Subject,
    to: &NewSubject,
) -> Result<Result<Subject, Rekeyed>, TokenError> {
    if let NewSubject::Named(subject) = to {
        return Ok(Ok(subject.clone()));
    }
    let Some(stored) = load(context, from).await? else { return Ok(Err(Rekeyed::NoConnection)) };
    let identity = match &stored.record.held {
        Held::Tokens(tokens) => tokens.identity.as_ref(),
        _ => None,
    };
    let Some(identity) = identity else {
        return Ok(Err(Rekeyed::Unfit("it has no ID token, whose sub would name it".to_owned())));
    };
    let subject = Subject::new(&identity.sub);
    Ok(subject.map_err(|error| Rekeyed::Unfit(format!("its ID token's sub {error}"))))
}

/// Both connections for oneself, in one order for all; `None` if they are one.
async fn turns(
    context: &ProviderContext,
    one: &Subject,
    other: &Subject,
) -> Result<Option<[Flight; 2]>, TokenError> {
    let (first, second) = match one.cmp(other) {
        Ordering::Less => (one, other),
        Ordering::Equal => return Ok(None),
        Ordering::Greater => (other, one),
    };
    Ok(Some([take_turn(context, first).await?, take_turn(context, second).await?]))
}

/// Whether another process is using the record's refresh token right now.
fn is_used_elsewhere(context: &ProviderContext, record: &ConnectionRecord) -> bool {
    record.in_flight.as_ref().is_some_and(|mark| {
        !context.exclusive_store && mark.owner != *context.owner && context.now() < mark.expires_at
    })
}

/// Finishes the move that the mark of `stored` began, from wherever it was cut off. `false` if somebody
/// connected the new subject meanwhile: the mark is gone then, and the old record is as it was.
pub(super) async fn finish(context: &ProviderContext, stored: &StoredConnection) -> Result<bool, TokenError> {
    let StoredConnection { id: from, revision, record } = stored;
    let Some(moving) = &record.moving_to else { return Ok(false) };
    let failed = |error: &StoreError| context.store_error(&from.subject, error);
    let to = context.id(&moving.subject);
    let moved = ConnectionRecord { moving_to: None, moved_by: Some(*revision), ..record.clone() };
    let expected = moving.replaces.map_or(Expected::Absent, Expected::Revision);
    match context.records.save(&to, &moved, expected).await {
        Ok(_) => {}
        Err(StoreError::Conflict { .. }) if was_moved(context, &moving.subject, *revision).await? => {}
        Err(StoreError::Conflict { .. }) => {
            let record = ConnectionRecord { moving_to: None, ..record.clone() };
            return match context.records.save(from, &record, Expected::Revision(*revision)).await {
                Ok(_) | Err(StoreError::Conflict { .. }) => Ok(false),
                Err(error) => Err(failed(&error)),
            };
        }
        Err(error) => return Err(failed(&error)),
    }
    match context.records.remove(from, Expected::Revision(*revision)).await {
        // Of a conflict: the old subject was connected anew, and that stands.
        Ok(()) | Err(StoreError::Conflict { .. }) => {}
        Err(error) => return Err(failed(&error)),
    }
    context.forget(from);
    context.forget(&to);
    tracing::info!(%from, %to, "connection moved");
    Ok(true)
}

/// Whether the record of `to` is the one that the mark of this revision was moved to, refreshed since
/// or not.
async fn was_moved(context: &ProviderContext, to: &Subject, mark: Revision) -> Result<bool, TokenError> {
    Ok(load(context, to).await?.is_some_and(|stored| stored.record.moved_by == Some(mark)))
}

async fn load(context: &ProviderContext, subject: &Subject) -> Result<Option<StoredConnection>, TokenError> {
    let loaded = context.records.load(&context.id(subject)).await;
    loaded.map_err(|error| context.store_error(subject, &error))
}

async fn shown(context: &ProviderContext, to: &Subject) -> Result<Rekeyed, TokenError> {
    match load(context, to).await? {
        Some(stored) => Ok(Rekeyed::Moved(context.shown(&stored))),
        // Deleted again this very moment.
        None => Ok(Rekeyed::NoConnection),
    }
}
