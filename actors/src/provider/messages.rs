//! What a `ProviderActor` is asked.

use std::sync::Arc;
use std::time::Duration;

use actix::Message;
use url::Url;

use super::error::TokenError;
use crate::connection::Connection;
use crate::grants::Redemption;
use crate::protocol::authorization_request::AuthorizationParams;
use crate::protocol::device_authorization::DeviceAuthorization;
use crate::protocol::identifiers::Subject;
use crate::protocol::secret::Secret;
use crate::protocol::template::CallContext;
use crate::protocol::token::{TokenFingerprint, TokenSet};

/// Asks for a connection whose token may be sent to `origin`; joins the request in flight, or
/// starts one, if none is fresh.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<Arc<Connection>, TokenError>")]
pub struct GetAccessToken {
    /// Whose token.
    pub subject: Subject,
    /// Where it will be sent.
    pub origin: Arc<str>,
    /// An access token that the upstream refused: anything but this one is wanted.
    pub rejected: Option<TokenFingerprint>,
    /// What the call brings along.
    pub call: Arc<CallContext>,
}

/// Refreshes a token that is in use before it ends. May be dropped; the next call asks again.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct RefreshAhead {
    /// Whose token.
    pub subject: Subject,
    /// What the call brings along.
    pub call: Arc<CallContext>,
}

/// Refreshes now, whatever the token's age (the admin API's `refresh`).
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<Arc<Connection>, TokenError>")]
pub struct RefreshNow {
    /// Whose token.
    pub subject: Subject,
}

/// Turns an authorization code into a token set. Sent once: a code is single-use.
#[derive(Debug, Message)]
#[rtype(result = "Result<Arc<Connection>, TokenError>")]
pub struct RedeemAuthorizationCode {
    /// Whose token set it will be.
    pub subject: Subject,
    /// Code, verifier and redirection endpoint.
    pub redemption: Redemption,
    /// The nonce that the ID token must bring back.
    pub nonce: Option<Secret>,
}

/// Turns an authorization request into the URL to send a browser to: the parameters in its query
/// (RFC 6749 section 4.1.1), or pushed before (RFC 9126). Metadata is discovered if need be.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<AuthorizationTarget, TokenError>")]
pub struct PrepareAuthorization {
    /// What is asked.
    pub params: AuthorizationParams,
}

/// Where to send a browser.
#[derive(Clone, Debug)]
pub struct AuthorizationTarget {
    /// The authorization endpoint, with what is asked.
    pub url: Url,
    /// The issuer, for RFC 9207's comparison.
    pub issuer: Option<String>,
    /// Whether metadata announces `iss` in responses (RFC 9207 section 3).
    pub iss_announced: bool,
}

/// Asks for the codes with which a person consents on another device (RFC 8628 section 3.1).
#[derive(Clone, Message)]
#[rtype(result = "Result<DeviceAuthorization, TokenError>")]
pub struct AuthorizeDevice {
    /// The parameters of the request.
    pub params: Vec<(String, String)>,
}

/// Asks once whether the person has consented on the other device, and saves the token set if so.
#[derive(Debug, Message)]
#[rtype(result = "Result<DevicePoll, TokenError>")]
pub struct PollDevice {
    /// Whose token set it will be.
    pub subject: Subject,
    /// The device code, and what was asked for.
    pub redemption: Redemption,
}

/// What came of asking once. Anything that ends the flow otherwise is an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DevicePoll {
    /// The token set is saved.
    Connected,
    /// The person has not decided yet.
    Pending,
    /// Nor have they, and from now on we must ask less often.
    SlowDown,
    /// The person said no.
    Denied,
    /// The codes have ended.
    Expired,
    /// The provider failed; ask again.
    Later {
        /// The provider's own wish.
        after: Option<Duration>,
        /// What was wrong, in words.
        detail: String,
    },
}

/// Reads a connection as it stands, from snapshot or store, starting nothing.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<Option<Arc<Connection>>, TokenError>")]
pub struct GetConnection {
    /// Whose.
    pub subject: Subject,
}

/// Revokes at the provider (RFC 7009) and forgets the connection. `Ok(false)` if there was none.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<bool, TokenError>")]
pub struct RevokeConnection {
    /// Whose.
    pub subject: Subject,
}

/// Takes in a token set obtained elsewhere.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<Arc<Connection>, TokenError>")]
pub struct ImportConnection {
    /// Whose.
    pub subject: Subject,
    /// What to keep.
    pub tokens: TokenSet,
}
