//! Why there is no token.

use std::time::Duration;

use thiserror::Error;

use crate::connection::Reason;
use crate::protocol::identifiers::{ConnectionId, ProfileId};
use crate::supervision::AskError;

/// Why there is no token for a call. Shared by all who waited, hence `Clone`.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum TokenError {
    /// The person must consent (again).
    #[error("{id} needs the person's consent")]
    AuthorizationRequired {
        /// The connection.
        id: ConnectionId,
        /// Why.
        reason: Reason,
    },
    /// The provider failed, or an attempt is not due yet.
    #[error("profile {profile}: the provider gave no token: {detail}")]
    ProviderUnavailable {
        /// The profile.
        profile: ProfileId,
        /// Reason code.
        reason: Reason,
        /// What was wrong, in words.
        detail: String,
        /// When trying again may help; set while we hold back on purpose.
        retry_after: Option<Duration>,
    },
    /// The provider refuses the client or what the profile asks for; an operator must act.
    #[error("profile {profile}: the provider refuses this client: {detail}")]
    ClientMisconfigured {
        /// The profile.
        profile: ProfileId,
        /// Reason code.
        reason: Reason,
        /// What was refused, in words.
        detail: String,
        /// When we try again by ourselves.
        retry_after: Option<Duration>,
    },
    /// The call does not bring along what its token request needs.
    #[error("profile {profile}: {detail}")]
    CallIncomplete {
        /// The profile.
        profile: ProfileId,
        /// What is missing, in words.
        detail: String,
    },
    /// The provider does not grant scopes that a route needs, and no person could allow them.
    #[error(
        "{id}: the provider does not grant scopes that the route needs: {detail}; allow them for the client \
         there, or take them out of the route's `scopes`"
    )]
    ScopesRefused {
        /// The connection.
        id: ConnectionId,
        /// Which, and what the provider said.
        detail: String,
    },
    /// The store cannot be read or written, or a new token set is not durable yet.
    #[error("{id}: the token store is unavailable: {detail}")]
    StoreUnavailable {
        /// The connection.
        id: ConnectionId,
        /// What was wrong, in words.
        detail: String,
    },
    /// The exchange was cut off by a fault of our own; the next call starts afresh.
    #[error("{id}: the token request was cut off")]
    Aborted {
        /// The connection.
        id: ConnectionId,
    },
    /// The profile's actor did not answer.
    #[error("profile {profile}: {source}")]
    Ask {
        /// The profile.
        profile: ProfileId,
        /// Why not.
        source: AskError,
    },
}
