//! Proofs of possession on the way upstream (RFC 9449), for tokens that are bound to a key. Calls with
//! bearer tokens pay one look at an `Option`.

use claviger_actors::connection::{BoundToken, Connection};
use claviger_actors::protocol::dpop::resource_wants_nonce;
use claviger_actors::proxy::headers::HeaderError;
use claviger_actors::proxy::response::UpstreamResponse;
use http::uri::PathAndQuery;
use http::{HeaderValue, Method};

use super::Desk;
use super::gateway::ProxyGateway;

/// The `DPoP` header of one request: made anew for every attempt, as no proof may be seen twice.
pub(super) fn prove<G: ProxyGateway>(
    desk: &Desk<G>,
    token: &BoundToken,
    method: &Method,
    origin: &str,
    target: &PathAndQuery,
) -> Result<HeaderValue, HeaderError> {
    let url = [origin, target.path()].concat();
    let (now, entropy) = (desk.gateway.now(), desk.gateway.entropy());
    token.prove(method.as_str(), origin, &url, now, &*entropy).map_err(|_| HeaderError::Unproven)
}

/// Whether `answer` refuses nothing but the nonce that the proof had, or had not (section 9). The one
/// to use is kept then, and so is any other that an answer brings.
pub(super) fn wants_nonce(connection: &Connection, origin: &str, answer: &UpstreamResponse) -> bool {
    let Some(token) = connection.bound_token() else { return false };
    let (status, headers) = (answer.parts.status, &answer.parts.headers);
    token.remember_nonce(origin, headers);
    resource_wants_nonce(status, headers)
}
