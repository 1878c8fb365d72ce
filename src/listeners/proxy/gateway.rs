//! What the proxy listener needs of the engine. A trait, so that tests can run the data plane with a
//! scripted engine behind it; the compiler resolves it, so it costs the hot path nothing.

use std::sync::Arc;

use claviger_actors::clock::{Entropy, Timestamp};
use claviger_actors::flow::error::FlowError;
use claviger_actors::flow::messages::{AuthorizationRedirect, ConnectLink};
use claviger_actors::gateway::GatewayHandle;
use claviger_actors::protocol::identifiers::{ConnectionId, ProfileId};
use claviger_actors::protocol::scope::ScopeSet;
use claviger_actors::protocol::secret::Secret;
use claviger_actors::protocol::template::CallContext;
use claviger_actors::proxy::actor::TokenSource;
use claviger_actors::proxy::route::RoutingTable;
use claviger_actors::snapshot::Connections;
use claviger_actors::supervision::SupervisorHandle;
use futures_util::future::LocalBoxFuture;

/// The engine, as the proxy listener sees it.
pub trait ProxyGateway: Clone + Send + Sync + 'static {
    /// All routes, as published.
    fn routes(&self) -> Arc<RoutingTable>;

    /// The published connections.
    fn connections(&self) -> &Connections;

    /// The clock.
    fn now(&self) -> Timestamp;

    /// Randomness for request ids.
    fn entropy(&self) -> Arc<dyn Entropy>;

    /// Who supervises the workers' actors.
    fn supervisor(&self) -> &SupervisorHandle;

    /// Where the workers' actors get tokens that are not at hand.
    fn tokens(&self) -> Arc<dyn TokenSource>;

    /// Whether the gateway is about to end, so that callers should come back on another connection.
    fn is_draining(&self) -> bool {
        false
    }

    /// Counts a request that came although the gateway is about to end.
    fn note_late_request(&self) {}

    /// Has a token that is in use refreshed before it ends; never waits.
    fn refresh_ahead(&self, id: &ConnectionId, call: &Arc<CallContext>);

    /// Makes a one-time connect link that asks for `scopes` beyond the profile's.
    fn create_connect_link(
        &self,
        id: ConnectionId,
        scopes: ScopeSet,
    ) -> LocalBoxFuture<'_, Result<ConnectLink, FlowError>>;

    /// Whether people consent to this profile on another device, so that no browser is sent away.
    fn uses_device(&self, _: &ProfileId) -> bool {
        false
    }

    /// Starts a flow for the browser that asks; `call` is what it brings along.
    fn begin_authorization(
        &self,
        id: ConnectionId,
        browser: Option<Secret>,
        call: Arc<CallContext>,
    ) -> LocalBoxFuture<'_, Result<AuthorizationRedirect, FlowError>>;
}

impl ProxyGateway for GatewayHandle {
    fn routes(&self) -> Arc<RoutingTable> {
        self.routes()
    }

    fn connections(&self) -> &Connections {
        self.connections()
    }

    fn now(&self) -> Timestamp {
        self.now()
    }

    fn entropy(&self) -> Arc<dyn Entropy> {
        self.entropy()
    }

    fn supervisor(&self) -> &SupervisorHandle {
        self.supervisor()
    }

    fn tokens(&self) -> Arc<dyn TokenSource> {
        Arc::new(self.clone())
    }

    fn is_draining(&self) -> bool {
        self.is_draining()
    }

    fn note_late_request(&self) {
        self.note_late_request();
    }

    fn refresh_ahead(&self, id: &ConnectionId, call: &Arc<CallContext>) {
        self.refresh_ahead(id, call);
    }

    fn create_connect_link(
        &self,
        id: ConnectionId,
        scopes: ScopeSet,
    ) -> LocalBoxFuture<'_, Result<ConnectLink, FlowError>> {
        Box::pin(self.create_connect_link(id, None, scopes))
    }

    fn uses_device(&self, profile: &ProfileId) -> bool {
        self.uses_device(profile)
    }

    fn begin_authorization(
        &self,
        id: ConnectionId,
        browser: Option<Secret>,
        call: Arc<CallContext>,
    ) -> LocalBoxFuture<'_, Result<AuthorizationRedirect, FlowError>> {
        Box::pin(self.begin_authorization(id, None, browser, call))
    }
}
