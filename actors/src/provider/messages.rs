//! What a `ProviderActor` is asked.

use std::sync::Arc;

use actix::Message;
use serde::Serialize;
use url::Url;

use super::error::TokenError;
use crate::connection::Connection;
use crate::grants::Redemption;
use crate::protocol::authorization_request::AuthorizationParams;
use crate::protocol::identifiers::{ConnectionId, Subject};
use crate::protocol::introspection::IntrospectionResponse;
use crate::protocol::secret::Secret;
use crate::protocol::template::CallContext;
use crate::protocol::token::{TokenFingerprint, TokenSet};
use crate::store::StoreError;

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

/// Revokes and forgets every connection of the profile, as far as it gets in its time. May be asked
/// again and again until nothing is left.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<RevocationCounts, StoreError>")]
pub struct RevokeAll;

/// What became of a profile's connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RevocationCounts {
    /// Forgotten, and revoked at the provider.
    pub revoked: u64,
    /// Not forgotten.
    pub failed: u64,
    /// Forgotten, but the provider was not told: their tokens may live on there.
    pub not_told: u64,
    /// Whether the time was up before all were seen: ask again.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
}

/// Asks the provider about a connection's access token (RFC 7662). `Ok(None)` if there is no
/// connection.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<Option<IntrospectionResponse>, TokenError>")]
pub struct IntrospectConnection {
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

/// Asks the provider who the person is (OpenID Connect Core section 5.3).
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<UserInfo, TokenError>")]
pub struct GetUserInfo {
    /// Whose.
    pub subject: Subject,
}

/// What there is to say of a person.
#[derive(Clone, Debug, PartialEq)]
pub enum UserInfo {
    /// The provider's claims, about the subject of the ID token.
    Claims(serde_json::Map<String, serde_json::Value>),
    /// There is no connection.
    NoConnection,
    /// The connection cannot tell; why.
    Unfit(&'static str),
}

/// Moves a connection under another subject.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<Rekeyed, TokenError>")]
pub struct RekeyConnection {
    /// Whose it is.
    pub subject: Subject,
    /// Whose it becomes.
    pub to: NewSubject,
    /// Whether what is there may be replaced.
    pub replace: bool,
}

/// Whose a connection becomes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NewSubject {
    /// This one's.
    Named(Subject),
    /// That of whom its ID token names.
    IdTokenSub,
}

/// What became of a wish to move a connection.
#[derive(Clone, Debug)]
pub enum Rekeyed {
    /// It was moved.
    Moved(Arc<Connection>),
    /// There is none.
    NoConnection,
    /// There is one already where it should go, and it may not be replaced.
    Taken(ConnectionId),
    /// It cannot be moved; why.
    Unfit(String),
}
