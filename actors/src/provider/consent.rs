//! What changes a connection from outside: a person's consent, an import, a deletion. Each has the
//! connection to itself while it works.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::breaker::Breaker;
use super::context::ProviderContext;
use super::error::TokenError;
use super::flights::{Entry, Flight, Outcome};
use super::grant_request::{self, Ask, Granted};
use super::introspection;
use super::rekey;
use super::save::{self, NewTokens, NotKept};
use crate::connection::{Connection, ConnectionRecord, Failure, FailureClass, Held};
use crate::grants::Redemption;
use crate::protocol::identifiers::Subject;
use crate::protocol::secret::Secret;
use crate::protocol::token::TokenSet;
use crate::store::{Expected, StoreError};
use crate::supervision::AskError;
use crate::token_endpoint::Addressee;

/// Longest wait for a flight that has the connection.
const TURN_DEADLINE: Duration = Duration::from_secs(15);

/// Races lost to other writers before we give up.
pub(super) const RACES: u32 = 8;

/// Takes the connection for oneself, once whoever has it is done.
pub(super) async fn take_turn(context: &ProviderContext, subject: &Subject) -> Result<Flight, TokenError> {
    let wait = async {
        loop {
            match context.flights.enter(subject, context.aborted(subject)) {
                Entry::Started(flight) => return flight,
                Entry::Running(waiter) => waiter.ended().await,
            }
        }
    };
    tokio::time::timeout(TURN_DEADLINE, wait).await.map_err(|_| TokenError::Ask {
        profile: context.profile.registration.profile.clone(),
        source: AskError::TimedOut,
    })
}

/// Turns an authorization code into a saved token set. The ID token is checked before anything is
/// saved: a token set for the wrong person must not exist.
pub(super) async fn redeem(
    context: &ProviderContext,
    subject: &Subject,
    redemption: &Redemption,
    nonce: Option<&Secret>,
) -> Outcome {
    let flight = take_turn(context, subject).await?;
    let refused = |failure: Failure| context.failure_error(subject, &failure, None);
    let dpop_key = grant_request::dpop_key(context, redemption.dpop_key.as_ref()).map_err(refused)?;
    let granted = grant_request::send(context, Ask::Redeem(subject, redemption), dpop_key.as_ref())
        .await
        .map_err(refused)?;
    accept(context, subject, granted, redemption, nonce, flight).await
}

/// Checks and saves what a person's consent brought.
pub(super) async fn accept(
    context: &ProviderContext,
    subject: &Subject,
    granted: Granted,
    redemption: &Redemption,
    nonce: Option<&Secret>,
    flight: Flight,
) -> Outcome {
    let mut identity = None;
    if nonce.is_some() || redemption.scopes.contains("openid") {
        let checked =
            grant_request::identity_of_flow(context, subject, &granted, nonce, redemption.begun_at).await;
        identity = Some(checked.map_err(|failure| {
            context.note_error(&failure.detail);
            context.failure_error(subject, &failure, None)
        })?);
    }
    let mut tokens = granted.into_token_set(&context.profile.registration, None, None);
    tokens.identity = identity;
    let kept = redemption.kept.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str())));
    tokens.extra.extend(kept);
    let connection = replace(context, subject, tokens, flight).await?;
    Ok(introspection::learn_expiry(context, connection).await)
}

/// Takes in a token set obtained elsewhere.
pub(super) async fn import(context: &ProviderContext, subject: &Subject, tokens: TokenSet) -> Outcome {
    let flight = take_turn(context, subject).await?;
    replace(context, subject, tokens, flight).await
}

/// Writes `tokens` over whatever is there: the person's latest word counts.
async fn replace(context: &ProviderContext, subject: &Subject, tokens: TokenSet, flight: Flight) -> Outcome {
    let id = context.id(subject);
    for _ in 0..RACES {
        let (expected, created_at) = match context.records.load(&id).await {
            Ok(Some(stored)) => (Expected::Revision(stored.revision), stored.record.created_at),
            Ok(None) => (Expected::Absent, context.now()),
            // Unreadable, but the new token set must not be lost: it replaces what is there.
            Err(StoreError::Damaged { .. }) => (Expected::Anything, context.now()),
            // Kept, like any token set that cannot be saved, until it is known what to replace.
            Err(_) => (Expected::Absent, context.now()),
        };
        let record = ConnectionRecord { created_at, ..context.new_record() };
        let tokens = tokens.clone();
        let new = NewTokens { record, expected, tokens, replaces: None, after_rejection: false };
        match save::keep(context, subject, new, &flight).await {
            Ok(connection) => {
                flight.land(Ok(connection.clone()));
                return Ok(connection);
            }
            Err(NotKept::Raced) => {}
            Err(NotKept::Unfit(error)) => return Err(error),
        }
    }
    Err(context.aborted(subject))
}

/// What became of a connection that should be revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Revoked {
    /// There was none.
    Absent,
    /// It is forgotten, and the provider was told of whatever there was to tell.
    Told,
    /// It is forgotten, and its tokens may live on at the provider.
    NotTold,
}

/// Revokes at the provider (RFC 7009), the refresh token first, and forgets the connection. What
/// the provider cannot be told is logged; the person's wish to be forgotten is carried out anyway.
/// With `breaker`, a provider that fails time and again is left alone.
pub(super) async fn revoke(
    context: &ProviderContext,
    subject: &Subject,
    breaker: Option<&Breaker>,
) -> Result<Revoked, TokenError> {
    let _flight = take_turn(context, subject).await?;
    let id = context.id(subject);
    for _ in 0..RACES {
        let stored = match context.records.load(&id).await {
            Ok(Some(stored)) => stored,
            Ok(None) => {
                context.forget(&id);
                return Ok(Revoked::Absent);
            }
            // Unreadable for us, so all that can be done is to forget it.
            Err(StoreError::Damaged { .. }) => {
                let removed = context.records.remove(&id, Expected::Anything).await;
                removed.map_err(|error| context.store_error(subject, &error))?;
                context.forget(&id);
                return Ok(Revoked::NotTold);
            }
            Err(error) => return Err(context.store_error(subject, &error)),
        };
        if stored.record.moving_to.is_some() {
            rekey::finish(context, &stored).await?;
            continue;
        }
        let told = match &stored.record.held {
            Held::Tokens(tokens) if context.issued(&stored.record) => {
                tell_provider(context, subject, tokens, breaker).await
            }
            Held::Tokens(_) => false,
            Held::Nothing | Held::NeedsConsent { .. } => true,
        };
        match context.records.remove(&id, Expected::Revision(stored.revision)).await {
            Ok(()) => {
                context.forget(&id);
                return Ok(if told { Revoked::Told } else { Revoked::NotTold });
            }
            Err(StoreError::Conflict { .. }) => {}
            Err(error) => return Err(context.store_error(subject, &error)),
        }
    }
    Err(context.aborted(subject))
}

/// Whether the provider took note of every token.
async fn tell_provider(
    context: &ProviderContext,
    subject: &Subject,
    tokens: &TokenSet,
    breaker: Option<&Breaker>,
) -> bool {
    let retry = &context.profile.registration.retry;
    if breaker.is_some_and(|breaker| breaker.admit(context.now(), retry.request_timeout).is_err()) {
        return false;
    }
    let told = revoke_tokens(context, tokens).await;
    if let Some(breaker) = breaker {
        match &told {
            Err(failure) if failure.class == FailureClass::ProviderUnavailable => {
                breaker.failed(context.now(), retry, failure.retry_after, context.jitter());
            }
            _ => breaker.succeeded(),
        }
    }
    told.unwrap_or_else(|failure| {
        context.note_error(&failure.detail);
        tracing::warn!(connection = %context.id(subject), detail = failure.detail, "not revoked at the provider");
        false
    })
}

/// Revokes the refresh token, then the access token. `Ok(false)` if the provider revokes none.
async fn revoke_tokens(context: &ProviderContext, tokens: &TokenSet) -> Result<bool, Failure> {
    let metadata = context.discovery.metadata().await?;
    let Some(endpoint) = &metadata.endpoints.revocation_endpoint else { return Ok(false) };
    let client = context.client().await?;
    let to = Addressee { profile: &context.profile, client: &client, metadata: &metadata, endpoint };
    let refresh = tokens.refresh_token.as_ref().map(|token| (token.expose(), "refresh_token"));
    let access = Some((tokens.access_token.expose(), "access_token"));
    let mut told = Ok(true);
    for (token, hint) in refresh.into_iter().chain(access) {
        if let Err(failure) = context.token_endpoint.revoke(to, token, hint, tokens.dpop_key.as_ref()).await {
            let down = failure.class == FailureClass::ProviderUnavailable;
            told = Err(failure);
            // The other token would only wait as long.
            if down {
                break;
            }
        }
    }
    told
}

/// A connection as it stands, from the snapshot or the store. Starts nothing and publishes nothing:
/// what was read may be outdated by the time it is here.
pub(super) async fn read(
    context: &ProviderContext,
    subject: &Subject,
) -> Result<Option<Arc<Connection>>, TokenError> {
    let id = context.id(subject);
    if let Some(connection) = context.connections.get(&id) {
        let read = connection.revision.as_u64() > 0;
        if connection.is_unsaved() || read && context.exclusive_store {
            return Ok(Some(connection));
        }
    }
    let stored = context.records.load(&id).await.map_err(|error| context.store_error(subject, &error))?;
    Ok(stored.map(|stored| context.shown(&stored)))
}
