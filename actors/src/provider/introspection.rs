//! What the provider says of an access token (RFC 7662): for an operator who asks, and for a token
//! of which nobody knows when it ends.

use std::sync::Arc;
use std::time::Duration;

use super::context::ProviderContext;
use super::error::TokenError;
use crate::authorization_server::unknown;
use crate::clock::Timestamp;
use crate::connection::{Connection, Failure, Held, Reason};
use crate::protocol::identifiers::Subject;
use crate::protocol::introspection::IntrospectionResponse;
use crate::protocol::token::{AccessToken, Expiry, ExpiryBasis, TokenSet};
use crate::protocol::token_request::TokenRequest;
use crate::store::Expected;
use crate::token_endpoint::Addressee;
use crate::token_store::messages::StoredConnection;

/// Longest wait for a token's expiry: calls wait for it.
const EXPIRY_DEADLINE: Duration = Duration::from_secs(5);

/// Asks about the access token of `subject`; `None` if there is no such connection. Changes nothing,
/// whatever the provider says.
pub(super) async fn introspect(
    context: &ProviderContext,
    subject: &Subject,
) -> Result<Option<IntrospectionResponse>, TokenError> {
    let id = context.id(subject);
    let stored = match context.records.load(&id).await {
        Ok(Some(stored)) => stored,
        Ok(None) => return Ok(None),
        Err(error) => return Err(context.store_error(subject, &error)),
    };
    let required = |reason| TokenError::AuthorizationRequired { id: id.clone(), reason };
    if !context.issued(&stored.record) {
        // It is shown only to the authorization server that it is from.
        return Err(required(Reason::ProviderChanged));
    }
    let connection = context.shown(&stored);
    let Some(tokens) = connection.state.tokens() else {
        return Err(required(match &stored.record.held {
            Held::NeedsConsent { reason, .. } => *reason,
            _ => Reason::NeverConnected,
        }));
    };
    ask(context, &tokens.access_token).await.map(Some).map_err(|failure| {
        context.note_error(&failure.detail);
        context.failure_error(subject, &failure, None)
    })
}

async fn ask(context: &ProviderContext, token: &AccessToken) -> Result<IntrospectionResponse, Failure> {
    let metadata = context.discovery.metadata().await?;
    let endpoint = metadata.endpoints.introspection_endpoint.as_ref();
    let endpoint = endpoint.ok_or_else(|| unknown("introspection_endpoint"))?;
    let client = context.client().await?;
    let mut request = TokenRequest::default();
    request.param("token", token.expose());
    request.param("token_type_hint", "access_token");
    let to = Addressee { profile: &context.profile, client: &client, metadata: &metadata, endpoint };
    context
        .token_endpoint
        .ask(to, request, |answer| {
            let now = context.now();
            IntrospectionResponse::parse(answer.status, &answer.headers, &answer.body, token.expose(), now)
        })
        .await
}

/// `connection`, whose token set is durable and published, with its expiry as the provider knows it,
/// if the profile asks for that and nothing better is known. Where that fails, nothing changes.
pub(super) async fn learn_expiry(context: &ProviderContext, connection: Arc<Connection>) -> Arc<Connection> {
    if !context.profile.registration.introspect_expiry {
        return connection;
    }
    match connection.state.tokens() {
        Some(tokens) if is_guessed(tokens) => {}
        _ => return connection,
    }
    let learning = tokio::time::timeout(EXPIRY_DEADLINE, learn(context, &connection));
    match learning.await {
        Ok(Some(learned)) => learned,
        _ => {
            tracing::debug!(connection = %connection.id, "the provider did not say when the token ends");
            connection
        }
    }
}

fn is_guessed(tokens: &TokenSet) -> bool {
    let basis = match tokens.expiry {
        Expiry::Presumed { basis, .. } => basis,
        Expiry::Stated { .. } => return false,
    };
    matches!(basis, ExpiryBasis::Guess | ExpiryBasis::UpstreamRefusal)
}

async fn learn(context: &ProviderContext, connection: &Connection) -> Option<Arc<Connection>> {
    let token = &connection.state.tokens()?.access_token;
    let said = ask(context, token).await.ok()?;
    let at = Timestamp::from_secs(said.exp.filter(|_| said.active)?);
    if at <= context.now() {
        return None;
    }
    // Whoever changed the record meanwhile knows better.
    let stored = context.records.load(&connection.id).await.ok()??;
    let StoredConnection { id, revision, mut record } = stored;
    let Held::Tokens(tokens) = &mut record.held else { return None };
    if revision != connection.revision {
        return None;
    }
    tokens.expiry = Expiry::Presumed { at, basis: ExpiryBasis::Introspection };
    let revision = context.records.save(&id, &record, Expected::Revision(revision)).await.ok()?;
    let doubtful = connection.is_doubtful();
    let learned = context.present(&StoredConnection { id, revision, record }).in_doubt(doubtful);
    Some(context.publish(learned))
}
