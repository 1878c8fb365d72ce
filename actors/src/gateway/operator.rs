//! What operators do with a profile as a whole, or ask its provider.

use std::time::Duration;

use super::{ASK_DEADLINE, GatewayHandle, ask_error};
use crate::protocol::identifiers::{ConnectionId, ProfileId};
use crate::protocol::introspection::IntrospectionResponse;
use crate::provider::error::TokenError;
use crate::provider::messages::{IntrospectConnection, RevocationCounts, RevokeAll};
use crate::store::StoreError;
use crate::supervision::AskError;

/// Deadline of a revocation of all connections, which begins no more of them after a quarter of it.
const REVOKE_ALL_DEADLINE: Duration = Duration::from_secs(58);

impl GatewayHandle {
    /// Revokes and forgets every connection of `profile`, as far as it gets in its time.
    ///
    /// # Errors
    /// The store's, or that the profile's actor did not answer.
    pub async fn revoke_all(&self, profile: &ProfileId) -> Result<RevocationCounts, StoreError> {
        let gone = |error: AskError| StoreError::Unavailable(error.to_string());
        let provider = self.0.profiles.get(profile).ok_or_else(|| gone(AskError::Stopped))?;
        provider.actor.ask(RevokeAll, REVOKE_ALL_DEADLINE).await.map_err(gone)?
    }

    /// What the provider says of a connection's access token, or `None` if there is no connection.
    ///
    /// # Errors
    /// [`TokenError`].
    pub async fn introspect_connection(
        &self,
        id: &ConnectionId,
    ) -> Result<Option<IntrospectionResponse>, TokenError> {
        let provider = self.provider(&id.profile)?;
        let message = IntrospectConnection { subject: id.subject.clone() };
        let answer = provider.actor.ask_idempotent(message, ASK_DEADLINE).await;
        answer.map_err(|error| ask_error(&id.profile, error))?
    }

    /// The identifier of a profile's client, or `None` if it has not been registered yet.
    pub async fn client_id(&self, profile: &ProfileId) -> Option<String> {
        self.0.profiles.get(profile)?.current.get().client_id().await
    }
}
