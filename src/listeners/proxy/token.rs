//! The token for a call: from what is published, or by way of the worker's actor.

use std::sync::Arc;
use std::time::Duration;

use claviger_actors::clock::Timestamp;
use claviger_actors::connection::{Connection, Freshness, Reason};
use claviger_actors::protocol::token::TokenFingerprint;
use claviger_actors::provider::error::TokenError;
use claviger_actors::proxy::actor::PrepareForward;
use claviger_actors::supervision::AskError;

use super::Desk;
use super::call::Call;
use super::gateway::ProxyGateway;

/// A call waits no longer for a token, however patient its route is with the upstream.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// The actor itself answers in time, so that its answer says what was waited for.
const GRACE: Duration = Duration::from_millis(500);

/// Why there is no token.
pub(super) enum TokenFault {
    Token(TokenError),
    Ask(AskError),
    /// A token came, but it ended meanwhile or must not be sent to this upstream.
    Unusable,
}

impl TokenFault {
    /// Whether the authorization server has just said, or said before, that the grant is dead.
    pub(super) fn is_dead_grant(&self) -> bool {
        use Reason::{GrantRevoked, InterruptedRefresh, SubjectChanged};
        matches!(
            self,
            Self::Token(TokenError::AuthorizationRequired {
                reason: GrantRevoked | InterruptedRefresh | SubjectChanged,
                ..
            })
        )
    }
}

/// A published connection that can be used now: no mailbox, no lock that others hold.
pub(super) fn at_hand<G: ProxyGateway>(
    desk: &Desk<G>,
    call: &Call,
    now: Timestamp,
) -> Option<Arc<Connection>> {
    let connection = desk.gateway.connections().get(&call.id)?;
    let covered = connection.covers(&call.context.scopes);
    if !covered || forbidden(&connection, call).is_some() {
        return None;
    }
    match connection.freshness(now) {
        Freshness::Fresh => {}
        Freshness::RefreshDue => desk.gateway.refresh_ahead(&call.id, &call.context),
        Freshness::Ended => return None,
    }
    Some(connection)
}

/// Obtains or awaits a connection that can be used now and has not the `rejected` token.
pub(super) async fn obtain<G: ProxyGateway>(
    desk: &Desk<G>,
    call: &Call,
    rejected: Option<TokenFingerprint>,
) -> Result<Arc<Connection>, TokenFault> {
    let mut origin = &call.route.origin.serialized;
    loop {
        let connection = ask(desk, call, origin.clone(), rejected).await?;
        if connection.authorization(desk.gateway.now()).is_none() {
            return Err(TokenFault::Unusable);
        }
        match forbidden(&connection, call) {
            None => return Ok(connection),
            // It was made when the route had fewer upstreams: ask for one that fits the others, too.
            Some(other) if other != origin => origin = other,
            Some(_) => return Err(TokenFault::Unusable),
        }
    }
}

/// An upstream of the call's route that the connection's token must not be sent to.
fn forbidden<'a>(connection: &Connection, call: &'a Call) -> Option<&'a Arc<str>> {
    call.route.origins().find(|origin| !connection.origins.allows(origin))
}

async fn ask<G: ProxyGateway>(
    desk: &Desk<G>,
    call: &Call,
    origin: Arc<str>,
    rejected: Option<TokenFingerprint>,
) -> Result<Arc<Connection>, TokenFault> {
    let deadline = call.route.timeout.min(LONGEST_WAIT);
    let message =
        PrepareForward { id: call.id.clone(), origin, rejected, call: call.context.clone(), deadline };
    let asking = desk.actor.ask_idempotent(message, deadline + GRACE);
    asking.await.map_err(TokenFault::Ask)?.map_err(TokenFault::Token)
}
