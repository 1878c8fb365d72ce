//! Revokes and forgets every connection of a profile.
//!
//! It goes through the store page by page, and through each page several at a time. Every connection
//! is taken for itself first, as a single revocation takes it: a call under way ends before, and
//! what it brought is revoked with the rest. What was seen stays done, so that it can be repeated
//! after a crash, or when its time is up.

use std::cell::RefCell;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;
use tokio::time::Instant;

use super::breaker::Breaker;
use super::consent::{self, Revoked};
use super::context::ProviderContext;
use super::messages::RevocationCounts;
use crate::protocol::identifiers::ConnectionId;
use crate::store::StoreError;
use crate::token_store::messages::{ConnectionPage, ListConnections};

/// Connections revoked at a time.
const AT_A_TIME: usize = 8;

/// Connections read at a time.
const PAGE: usize = 200;

/// No further connection is begun after this. With those under way it stays below a minute.
const BEGIN_WITHIN: Duration = Duration::from_secs(15);

/// Revokes what can be revoked in time. An error means that nothing is known of the rest: the store
/// cannot be read.
pub(super) async fn run(context: &ProviderContext) -> Result<RevocationCounts, StoreError> {
    let end = Instant::now() + BEGIN_WITHIN;
    // Of its own: that the provider cannot be told says little of its token endpoint.
    let breaker = Breaker::default();
    let counts = RefCell::new(RevocationCounts::default());
    let mut after = None;
    loop {
        let profile = Some(context.profile.registration.profile.clone());
        let list = ListConnections { profile, subject: None, after: after.take(), limit: PAGE };
        let ConnectionPage { connections, next, unreadable, .. } = context.records.list(list).await?;
        let ids = connections.into_iter().map(|stored| stored.id).chain(unreadable);
        stream::iter(ids).for_each_concurrent(AT_A_TIME, |id| one(context, id, &breaker, &counts, end)).await;
        if next.is_none() || counts.borrow().more {
            break;
        }
        after = next;
    }
    let counts = counts.into_inner();
    let RevocationCounts { revoked, failed, not_told, more } = counts;
    let profile = &context.profile.registration.profile;
    tracing::info!(%profile, revoked, failed, not_told, more, "connections revoked by an operator");
    Ok(counts)
}

async fn one(
    context: &ProviderContext,
    id: ConnectionId,
    breaker: &Breaker,
    counts: &RefCell<RevocationCounts>,
    end: Instant,
) {
    if Instant::now() >= end {
        counts.borrow_mut().more = true;
        return;
    }
    let revoked = consent::revoke(context, &id.subject, Some(breaker)).await;
    let mut counts = counts.borrow_mut();
    match revoked {
        Ok(Revoked::Told) => counts.revoked += 1,
        Ok(Revoked::NotTold) => counts.not_told += 1,
        // Somebody else was faster.
        Ok(Revoked::Absent) => {}
        Err(error) => {
            tracing::warn!(connection = %id, %error, "a connection could not be forgotten");
            counts.failed += 1;
        }
    }
}
