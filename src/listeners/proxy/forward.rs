//! Sends an admitted call upstream.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use actix_web::HttpResponse;
use bytes::BytesMut;
use claviger_actors::connection::Connection;
use claviger_actors::proxy::body::{BodyLimits, BodySource, Incoming, RequestBody};
use claviger_actors::proxy::connect::host_header;
use claviger_actors::proxy::error::UpstreamError;
use claviger_actors::proxy::headers::{Additions, HeaderError, RequestLength, request_headers};
use claviger_actors::proxy::path::{PathError, append_target};
use claviger_actors::proxy::response::UpstreamResponse;
use claviger_actors::proxy::route::{Route, UpstreamOrigin};
use claviger_actors::proxy::upstream::Exchange;
use http::uri::PathAndQuery;
use http::{HeaderValue, Method, Request, StatusCode, Uri};

use super::answer::Passing;
use super::asked::{Asked, Refusal};
use super::call::Call;
use super::gateway::ProxyGateway;
use super::request_id::RequestId;
use super::{Desk, consent, possession, token};
use crate::listeners::problem::Problem;

/// Sends the call with the connection's token; after an upstream's 401 once more with a new one, if
/// there is one and the body can be sent again. A 401 for a grant that turns out to be dead asks for
/// consent; any other passes through.
pub(super) async fn forward<G: ProxyGateway>(
    desk: &Rc<Desk<G>>,
    asked: &Asked<'_>,
    call: &Call,
    connection: Arc<Connection>,
    body: impl FnOnce() -> Incoming,
    id: &RequestId,
) -> Result<Passing, HttpResponse> {
    let in_flight = desk.worker.begin();
    let errand = Errand {
        method: Method::from_bytes(asked.method().as_str().as_bytes()).unwrap_or_default(),
        body: body_source(desk, asked, call, body),
        desk,
        asked,
        call,
        id,
    };
    let place = errand.place(&connection).map_err(|response| *response)?;
    let sent = errand.send(&connection, &place).await;
    let (mut response, is_verdict) = sent.map_err(|error| errand.failed(&error))?;
    if response.parts.status == StatusCode::UNAUTHORIZED
        && is_verdict
        && let Some(rejected) = connection.fingerprint()
    {
        match Box::pin(token::obtain(desk, call, Some(rejected))).await {
            Ok(renewed) if renewed.fingerprint() != Some(rejected) && errand.body.is_replayable() => {
                drop(response);
                let place = errand.place(&renewed).map_err(|response| *response)?;
                let sent = Box::pin(errand.send(&renewed, &place)).await;
                let (again, is_verdict) = sent.map_err(|error| errand.failed(&error))?;
                response = again;
                match response.parts.status {
                    StatusCode::UNAUTHORIZED if is_verdict => renewed.was_refused(),
                    StatusCode::UNAUTHORIZED => {}
                    _ => renewed.was_taken(),
                }
            }
            // The upstream is right: only the person can mend it, so say how.
            Err(fault) if fault.is_dead_grant() => {
                return Err(Box::pin(consent::refuse(desk, asked, call, fault, id)).await);
            }
            // Whatever was obtained is for the next call; this one hears what the upstream said.
            Ok(_) | Err(_) => {}
        }
    } else if is_verdict {
        connection.was_taken();
    }
    Ok(Passing {
        upstream: response,
        route: call.route.clone(),
        to_head: errand.method == Method::HEAD,
        worker: desk.worker.clone(),
        in_flight,
    })
}

/// Where a call goes with one connection's token.
struct Place {
    origin: Arc<UpstreamOrigin>,
    target: PathAndQuery,
}

struct Errand<'a, G: ProxyGateway> {
    desk: &'a Rc<Desk<G>>,
    asked: &'a Asked<'a>,
    call: &'a Call,
    id: &'a RequestId,
    method: Method,
    body: BodySource,
}

impl<G: ProxyGateway> Errand<'_, G> {
    /// The route's upstream, or the one that the connection's token answer named.
    fn place(&self, connection: &Connection) -> Result<Place, Box<HttpResponse>> {
        let route = &self.call.route;
        let target = |prefix: &str| {
            target(self.asked, self.call, prefix)
                .map_err(|error| Box::new(Refusal::Path(error).problem(self.id).response()))
        };
        let Some(template) = &route.template else {
            return Ok(Place { origin: route.origin.clone(), target: target(&route.upstream_path)? });
        };
        let members = connection.state.tokens().map(|tokens| &tokens.extra);
        let resolved = template
            .resolve(members.unwrap_or(&BTreeMap::new()))
            .map_err(|error| Box::new(self.failed(&UpstreamError::Unresolved(error))))?;
        Ok(Place { origin: resolved.origin.clone(), target: target(&resolved.path)? })
    }

    /// Sends the call, and once more if only the nonce of its proof was missing or old. Says with the
    /// answer whether it is a verdict on the token.
    async fn send(
        &self,
        connection: &Connection,
        place: &Place,
    ) -> Result<(UpstreamResponse, bool), UpstreamError> {
        let origin = &place.origin.serialized;
        let response = self.attempt(connection, place).await?;
        if !possession::wants_nonce(connection, origin, &response) {
            return Ok((response, true));
        }
        if !self.body.is_replayable() {
            return Ok((response, false));
        }
        drop(response);
        let response = Box::pin(self.attempt(connection, place)).await?;
        let is_verdict = !possession::wants_nonce(connection, origin, &response);
        Ok((response, is_verdict))
    }

    async fn attempt(
        &self,
        connection: &Connection,
        place: &Place,
    ) -> Result<UpstreamResponse, UpstreamError> {
        // A token that ended this very moment is sent no more; the upstream would refuse it.
        let Some(authorization) = connection.authorization(self.desk.gateway.now()) else {
            return Err(UpstreamError::TokenEnded);
        };
        let route = &self.call.route;
        let exchange = Exchange {
            origin: &place.origin,
            tls: route.tls.as_ref(),
            body: &self.body,
            idempotent: self.method.is_idempotent(),
            timeout: route.timeout,
            make: &|body| self.request(place, connection, authorization, body),
        };
        self.desk.worker.pool().send(&exchange).await
    }

    fn request(
        &self,
        place: &Place,
        connection: &Connection,
        authorization: &HeaderValue,
        body: RequestBody,
    ) -> Result<Request<RequestBody>, HeaderError> {
        let proof = match connection.bound_token() {
            Some(token) => {
                let origin = &place.origin.serialized;
                Some(possession::prove(self.desk, token, &self.method, origin, &place.target)?)
            }
            None => None,
        };
        let added = Additions {
            upstream_host: host_header(&place.origin),
            token_header: connection.token_header(),
            authorization,
            proof: proof.as_ref(),
            forwarded_for: self.asked.forwarded_for(),
            host: self.asked.host.as_bytes(),
            https: self.asked.is_https(),
            request_id: self.id.as_str(),
            length: self.asked.length,
        };
        let incoming =
            || self.asked.headers().iter().map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()));
        let headers = request_headers(incoming, &added, &mut BytesMut::new())?;
        let mut request = Request::new(body);
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = Uri::from(place.target.clone());
        *request.headers_mut() = headers;
        Ok(request)
    }

    fn failed(&self, error: &UpstreamError) -> HttpResponse {
        let callers_fault = match error {
            UpstreamError::RequestHead(fault) => *fault != HeaderError::Unproven,
            other => matches!(other, UpstreamError::RequestBody(_)),
        };
        if callers_fault {
            return self.desk.not_forwarded(&self.call.route, error, self.id);
        }
        self.desk.upstream_failed(&self.call.route, error, self.id)
    }
}

impl<G: ProxyGateway> Desk<G> {
    /// Answers a call whose upstream's answer cannot be passed on.
    pub(super) fn unpassable(&self, route: &Route, id: &RequestId) -> HttpResponse {
        let origin = route.origin.serialized.clone();
        let error = UpstreamError::Malformed { origin, what: "it has a header that cannot be passed on" };
        self.upstream_failed(route, &error, id)
    }

    fn upstream_failed(&self, route: &Route, error: &UpstreamError, id: &RequestId) -> HttpResponse {
        self.worker.note_failure(error);
        self.not_forwarded(route, error, id)
    }

    fn not_forwarded(&self, route: &Route, error: &UpstreamError, id: &RequestId) -> HttpResponse {
        tracing::info!(request_id = id.as_str(), route = %route.id, %error, "call not forwarded");
        Problem::from_upstream_error(&route.id, error, id).response()
    }
}

fn target(asked: &Asked<'_>, call: &Call, prefix: &str) -> Result<PathAndQuery, PathError> {
    let rest = asked.path.get(call.prefix..).unwrap_or_default();
    let query = asked.query.map_or(0, str::len);
    let mut target = BytesMut::with_capacity(prefix.len() + rest.len() + query + 2);
    append_target(&mut target, prefix, rest, asked.query)?;
    PathAndQuery::from_maybe_shared(target.freeze()).map_err(|_| PathError::NotEncoded)
}

fn body_source<G: ProxyGateway>(
    desk: &Desk<G>,
    asked: &Asked<'_>,
    call: &Call,
    incoming: impl FnOnce() -> Incoming,
) -> BodySource {
    let length = match asked.length {
        RequestLength::Absent | RequestLength::Exact(0) => return BodySource::empty(),
        RequestLength::Exact(length) => Some(length),
        RequestLength::Chunked => None,
    };
    let limits =
        BodyLimits { length, max: call.route.max_body, idle: desk.worker.settings().body_idle_timeout };
    BodySource::streaming(incoming(), limits)
}
