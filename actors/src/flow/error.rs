//! Why a flow did not start or did not end well.

use thiserror::Error;

use crate::protocol::identifiers::ConnectionId;
use crate::provider::error::TokenError;
use crate::registration::authorization::OptionsError;
use crate::store::StoreError;
use crate::supervision::AskError;

/// Faults of a flow. [`FlowError::Invalid`] is the browser's fault and leaves any flow unharmed.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum FlowError {
    /// State, browser binding, `iss` or link is unknown, used, expired or wrong. One error for all,
    /// so that nothing can be probed; the log has `why`.
    #[error("this link or answer is not valid, was used before, or has expired")]
    Invalid {
        /// For the log only.
        why: &'static str,
        /// Where the fault was found, when the flow is known.
        connection: Option<ConnectionId>,
    },
    /// The person, or the provider for them, said no (RFC 6749 section 4.1.2.1).
    #[error("{connection}: the authorization server answered {code}")]
    Refused {
        /// Whose token set it would have been.
        connection: ConnectionId,
        /// The error code, checked to be printable.
        code: String,
        /// Where the browser goes.
        return_to: Option<String>,
    },
    /// The profile's grant has no person in it.
    #[error("profile {0} needs no consent: its grant has no person in it")]
    NoConsentNeeded(String),
    /// A key of the profile wants something of the call, and whoever began the flow has it not.
    #[error("{connection}: {source}")]
    Call {
        /// Whose token set it would have been.
        connection: ConnectionId,
        /// What is missing.
        source: OptionsError,
    },
    /// The profile's person consents another way: on a device, or not on one.
    #[error("profile {0} asks for consent another way")]
    OtherConsent(String),
    /// No such profile.
    #[error("there is no profile {0}")]
    UnknownProfile(String),
    /// Too many pending flows.
    #[error("too many authorizations are pending; try again in a minute")]
    TooMany,
    /// The code could not be turned into a token set.
    #[error("{connection}: {source}")]
    Token {
        /// Whose token set it would have been.
        connection: ConnectionId,
        /// What went wrong.
        source: TokenError,
        /// Where the browser goes.
        return_to: Option<String>,
    },
    /// The authorization server's metadata could not be had.
    #[error(transparent)]
    Provider(TokenError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An actor did not answer.
    #[error("the gateway is busy: {0}")]
    Ask(#[from] AskError),
}
