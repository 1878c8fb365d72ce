//! What a route needs, and how a path finds its route.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use http::Method;

use crate::protocol::identifiers::{ProfileId, RouteId};

/// Whose token a call uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubjectSource {
    /// The caller's own.
    Caller,
    /// Whoever the `Claviger-Subject` header names.
    Header,
    /// One connection for all callers.
    Shared,
}

/// API Y here, API X there, and the profile whose token goes between.
#[derive(Clone, Debug)]
pub struct Route {
    /// Its key in the configuration.
    pub id: RouteId,
    /// Path prefix here, without a trailing slash (the root is empty).
    pub path: String,
    /// The upstream's scheme, host and port.
    pub origin: Arc<UpstreamOrigin>,
    /// Path prefix there, without a trailing slash.
    pub upstream_path: String,
    /// The profile whose token it uses.
    pub profile: ProfileId,
    /// Whose token it uses.
    pub subject: SubjectSource,
    /// Methods allowed; `None` for all.
    pub methods: Option<Vec<Method>>,
    /// Time until the upstream's response head, at most.
    pub timeout: Duration,
    /// Largest request body, in bytes.
    pub max_body: Option<u64>,
}

/// Where an upstream is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UpstreamOrigin {
    /// Whether TLS is spoken.
    pub tls: bool,
    /// Host name or address, as in the URL (IPv6 in brackets).
    pub host: String,
    /// Port.
    pub port: u16,
    /// ASCII serialization, `scheme://host:port` with the default port left out: what connections
    /// are bound to.
    pub serialized: Arc<str>,
}

/// All routes, by longest path prefix on segment boundaries.
#[derive(Clone, Debug, Default)]
pub struct RoutingTable {
    routes: Vec<Arc<Route>>,
}

impl RoutingTable {
    /// Gathers routes. Two routes with the same path are a configuration error found before.
    pub fn new(routes: impl IntoIterator<Item = Route>) -> Self {
        Self { routes: routes.into_iter().map(Arc::new).collect() }
    }

    /// All routes.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.routes.iter()
    }

    /// The origins of all routes that use `profile`: what its new token sets are bound to.
    pub fn origins_of(&self, profile: &ProfileId) -> BTreeSet<String> {
        self.routes
            .iter()
            .filter(|r| r.profile == *profile)
            .map(|r| r.origin.serialized.to_string())
            .collect()
    }
}
