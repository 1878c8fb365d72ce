//! What flows are asked.

use std::sync::Arc;

use actix::Message;
use url::Url;

use super::error::FlowError;
use super::record::ConnectSession;
use crate::protocol::authorization_response::AuthorizationResponse;
use crate::protocol::identifiers::ConnectionId;
use crate::protocol::scope::ScopeSet;
use crate::protocol::secret::Secret;
use crate::protocol::template::CallContext;

/// Starts an authorization. Asked of the `FlowRegistrar`.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<AuthorizationRedirect, FlowError>")]
pub struct BeginAuthorization {
    /// Whose token set it will be.
    pub connection: ConnectionId,
    /// Where the browser goes afterwards; checked by whoever let it in.
    pub return_to: Option<String>,
    /// The binding cookie that the browser already has, to be used again.
    pub browser: Option<Secret>,
    /// What the call that starts it brings along, further scopes among it.
    pub call: Arc<CallContext>,
}

/// Where the browser is sent, and the cookie that ties the flow to it.
#[derive(Clone, Debug)]
pub struct AuthorizationRedirect {
    /// The authorization request (RFC 6749 section 4.1.1).
    pub url: Url,
    /// Value of the browser-binding cookie to set.
    pub browser: Secret,
    /// Seconds until the flow ends by itself.
    pub expires_in: u64,
}

/// Hands over what came to the redirection endpoint. Asked of the `FlowRegistrar`, which passes
/// it to the `FlowActor` of its `state`.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<FlowOutcome, FlowError>")]
pub struct AcceptAuthorizationResponse {
    /// What the browser brought.
    pub response: AuthorizationResponse,
    /// The binding cookie, if the browser sent one.
    pub browser: Option<Secret>,
}

/// How a flow ended well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowOutcome {
    /// The connection that now has a token set.
    pub connection: ConnectionId,
    /// Where the browser goes.
    pub return_to: Option<String>,
}

/// Makes a one-time connect link. Asked of the `FlowRegistrar`.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<ConnectLink, FlowError>")]
pub struct CreateConnectLink {
    /// Whose token set it will be.
    pub connection: ConnectionId,
    /// Where the browser goes afterwards.
    pub return_to: Option<String>,
    /// Scopes to ask for beyond the profile's.
    pub scopes: ScopeSet,
}

/// A one-time connect link.
#[derive(Clone, Debug)]
pub struct ConnectLink {
    /// The token of `{public_url}/connect/{token}`.
    pub token: Secret,
    /// Seconds until it ends by itself.
    pub expires_in: u64,
}

/// Uses a connect link up. Asked of the `FlowRegistrar`.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<ConnectSession, FlowError>")]
pub struct TakeConnectLink {
    /// The token from the link.
    pub token: Secret,
}

/// Starts an authorization on another device (RFC 8628). Asked of the `FlowRegistrar`.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<DeviceView, FlowError>")]
pub struct BeginDeviceAuthorization {
    /// The address of its page: the token of `{public_url}/connect/{token}`.
    pub page: Secret,
    /// Whose token set it will be.
    pub connection: ConnectionId,
    /// Where the browser goes afterwards.
    pub return_to: Option<String>,
    /// What the call that starts it brings along, further scopes among it.
    pub call: Arc<CallContext>,
}

/// Reads how an authorization on another device stands, by the address of its page; `None` if there
/// is none. Asked of the `FlowRegistrar`.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<Option<DeviceView>, FlowError>")]
pub struct FindDevice {
    /// The token from the address.
    pub page: Secret,
}

/// Reads how it stands. Asked of its `DeviceActor`.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "DeviceView")]
pub struct ReadDevice;

/// How an authorization on another device stands.
#[derive(Clone, Debug)]
pub struct DeviceView {
    /// Whose token set it will be.
    pub connection: ConnectionId,
    /// What the person enters.
    pub user_code: String,
    /// Where the person enters it.
    pub verification_uri: String,
    /// The same with the code in it.
    pub verification_uri_complete: Option<String>,
    /// Seconds until the codes end.
    pub expires_in: u64,
    /// Seconds between two token requests.
    pub interval: u64,
    /// How it ended, if it has.
    pub outcome: Option<Result<FlowOutcome, FlowError>>,
}

/// What a connect link leads to.
#[derive(Clone, Debug)]
pub enum Opened {
    /// The provider's authorization endpoint.
    Redirect(AuthorizationRedirect),
    /// A page that shows what to enter on another device.
    Device(Box<DeviceView>),
}

/// Finishes one flow with what came to the redirection endpoint. Asked of its `FlowActor`, once:
/// never repeated, since a code is single-use.
#[derive(Debug, Message)]
#[rtype(result = "Result<FlowOutcome, FlowError>")]
pub struct CompleteAuthorization {
    /// What the browser brought; its `state` is this flow's.
    pub response: AuthorizationResponse,
    /// The binding cookie, if the browser sent one.
    pub browser: Option<Secret>,
}
