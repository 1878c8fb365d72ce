//! Which route a caller's request takes, and for whom.

use std::sync::Arc;

use claviger_actors::protocol::identifiers::ConnectionId;
use claviger_actors::protocol::template::CallContext;
use claviger_actors::proxy::headers::RequestLength;
use claviger_actors::proxy::route::{Route, RoutingTable};

use super::Desk;
use super::asked::Asked;
use super::gateway::ProxyGateway;
use super::gather::gather;
use super::request_id::RequestId;
use crate::caller_auth::AuthenticatedCaller;
use crate::listeners::problem::{Problem, ProblemCode};

/// A request that may be served.
pub(super) struct Call {
    pub(super) route: Arc<Route>,
    /// Whose token it uses.
    pub(super) id: ConnectionId,
    /// What the call brings along for its token.
    pub(super) context: Arc<CallContext>,
    /// Bytes of the path that the route's prefix takes.
    pub(super) prefix: usize,
}

/// Finds the route and checks that the caller may use it so.
pub(super) fn admit<G: ProxyGateway>(
    desk: &Desk<G>,
    asked: &Asked<'_>,
    caller: &AuthenticatedCaller,
    routes: &RoutingTable,
    id: &RequestId,
) -> Result<Call, Box<Problem>> {
    let Some((route, prefix)) = routes.find(asked.path) else {
        return Err(refused(ProblemCode::RouteNotFound, "no route has this path", id));
    };
    let forbidden = |what: &str| {
        let detail = format!("caller {} {what} route {}", caller.caller.id, route.id);
        refused(ProblemCode::RouteForbidden, detail, id)
    };
    if !caller.caller.routes.contains(&route.id) {
        return Err(forbidden("may not use"));
    }
    if let Some(methods) = &route.methods
        && !methods.iter().any(|method| method.as_str() == asked.method().as_str())
    {
        return Err(forbidden("may not use this method on"));
    }
    if route.takes_callers_word() && !caller.caller.may_name_subject {
        return Err(forbidden("may not name a subject, as is needed for"));
    }
    let (subject, context) = gather(desk, asked, caller, route)
        .map_err(|detail| refused(ProblemCode::SubjectRequired, detail, id))?;
    if let (RequestLength::Exact(length), Some(max)) = (asked.length, route.max_body)
        && length > max
    {
        let detail = format!("the request body is larger than {max} bytes");
        return Err(refused(ProblemCode::BodyTooLarge, detail, id));
    }
    let id = ConnectionId { profile: route.profile.clone(), subject };
    Ok(Call { route: route.clone(), id, context, prefix })
}

fn refused(code: ProblemCode, detail: impl Into<String>, id: &RequestId) -> Box<Problem> {
    Box::new(Problem::new(code, detail, id))
}
