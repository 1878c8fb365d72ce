//! Starts the tree of actors in order, gives handles on it, inspects and drains it.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Clock, Entropy, Timestamp};
use crate::connection::{Connection, ConnectionView};
use crate::flow::error::FlowError;
use crate::flow::messages::{AuthorizationRedirect, ConnectLink, FlowOutcome};
use crate::profile::Profile;
use crate::protocol::authorization_response::AuthorizationResponse;
use crate::protocol::identifiers::{ConnectionId, ProfileId, Subject};
use crate::protocol::secret::Secret;
use crate::protocol::token::{TokenFingerprint, TokenSet};
use crate::provider::error::TokenError;
use crate::proxy::route::RoutingTable;
use crate::snapshot::Connections;
use crate::store::StoreError;
use crate::supervision::{ActorReport, SupervisorHandle};

/// The way into the engine for listeners. Cheap to clone, usable from any thread. Listeners reach
/// actors only through its methods.
#[derive(Clone, Debug)]
pub struct GatewayHandle {
    _skeleton: (),
}

/// A page of connections, as the admin API shows it.
#[derive(Clone, Debug)]
pub struct ConnectionViews {
    /// The connections, in the order of profile and subject.
    pub connections: Vec<ConnectionView>,
    /// Where the next page begins.
    pub next: Option<ConnectionId>,
}

/// Whether the gateway can do its job.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Readiness {
    /// Whether calls should be sent here.
    pub ready: bool,
    /// What is wrong, one line each.
    pub problems: Vec<String>,
}

impl GatewayHandle {
    /// All routes, as published.
    pub fn routes(&self) -> Arc<RoutingTable> {
        todo!()
    }

    /// The published connections: the hot path's source of tokens.
    pub fn connections(&self) -> &Connections {
        todo!()
    }

    /// One profile.
    pub fn profile(&self, id: &ProfileId) -> Option<Arc<Profile>> {
        let _ = id;
        todo!()
    }

    /// All profiles, in order of their names.
    pub fn profiles(&self) -> Vec<Arc<Profile>> {
        todo!()
    }

    /// The clock.
    pub fn now(&self) -> Timestamp {
        todo!()
    }

    /// The clock itself.
    pub fn clock(&self) -> Arc<dyn Clock> {
        todo!()
    }

    /// Randomness for request ids and cookies.
    pub fn entropy(&self) -> Arc<dyn Entropy> {
        todo!()
    }

    /// The supervisor, for the `ProxyActor`s that workers start.
    pub fn supervisor(&self) -> &SupervisorHandle {
        todo!()
    }

    /// Slow path of a call: obtains or awaits a usable token that may be sent to `origin`.
    pub async fn access_token(
        &self,
        id: &ConnectionId,
        origin: Arc<str>,
        rejected: Option<TokenFingerprint>,
        deadline: Duration,
    ) -> Result<Arc<Connection>, TokenError> {
        let _ = (id, origin, rejected, deadline);
        todo!()
    }

    /// Has a token that is in use refreshed before it ends; never waits.
    pub fn refresh_ahead(&self, id: &ConnectionId) {
        let _ = id;
        todo!()
    }

    /// Makes a one-time connect link. `return_to` must have been checked.
    pub async fn create_connect_link(
        &self,
        connection: ConnectionId,
        return_to: Option<String>,
    ) -> Result<ConnectLink, FlowError> {
        let _ = (connection, return_to);
        todo!()
    }

    /// Uses a connect link up and starts its flow.
    pub async fn open_connect_link(
        &self,
        token: Secret,
        browser: Option<Secret>,
    ) -> Result<AuthorizationRedirect, FlowError> {
        let _ = (token, browser);
        todo!()
    }

    /// Starts a flow without a link, for a browser that calls a route.
    pub async fn begin_authorization(
        &self,
        connection: ConnectionId,
        return_to: Option<String>,
        browser: Option<Secret>,
    ) -> Result<AuthorizationRedirect, FlowError> {
        let _ = (connection, return_to, browser);
        todo!()
    }

    /// Finishes a flow with what came to the redirection endpoint.
    pub async fn accept_authorization_response(
        &self,
        response: AuthorizationResponse,
        browser: Option<Secret>,
    ) -> Result<FlowOutcome, FlowError> {
        let _ = (response, browser);
        todo!()
    }

    /// Lists connections in the order of profile and subject.
    pub async fn list_connections(
        &self,
        profile: Option<ProfileId>,
        subject: Option<Subject>,
        after: Option<ConnectionId>,
        limit: usize,
    ) -> Result<ConnectionViews, StoreError> {
        let _ = (profile, subject, after, limit);
        todo!()
    }

    /// One connection, or `None` if it was never made.
    pub async fn connection(&self, id: &ConnectionId) -> Result<Option<ConnectionView>, TokenError> {
        let _ = id;
        todo!()
    }

    /// Refreshes now.
    pub async fn refresh_connection(&self, id: &ConnectionId) -> Result<ConnectionView, TokenError> {
        let _ = id;
        todo!()
    }

    /// Revokes at the provider and forgets. `Ok(false)` if there was none.
    pub async fn delete_connection(&self, id: &ConnectionId) -> Result<bool, TokenError> {
        let _ = id;
        todo!()
    }

    /// Takes in a token set obtained elsewhere.
    pub async fn import_connection(
        &self,
        id: &ConnectionId,
        tokens: TokenSet,
    ) -> Result<ConnectionView, TokenError> {
        let _ = (id, tokens);
        todo!()
    }

    /// One report for every actor.
    pub async fn inspect(&self) -> Vec<ActorReport> {
        todo!()
    }

    /// Whether calls should be sent here.
    pub async fn readiness(&self) -> Readiness {
        todo!()
    }
}
