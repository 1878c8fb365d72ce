//! Sends an admitted call upstream.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_web::HttpResponse;
use bytes::BytesMut;
use claviger_actors::connection::Connection;
use claviger_actors::proxy::body::{BodyLimits, BodySource, Incoming, RequestBody};
use claviger_actors::proxy::connect::host_header;
use claviger_actors::proxy::endpoints::{Passage, Tried};
use claviger_actors::proxy::error::UpstreamError;
use claviger_actors::proxy::headers::{Additions, HeaderError, RequestLength, request_headers};
use claviger_actors::proxy::in_flight::Occupied;
use claviger_actors::proxy::path::{PathError, append_target};
use claviger_actors::proxy::response::UpstreamResponse;
use claviger_actors::proxy::route::{Route, UpstreamOrigin};
use claviger_actors::proxy::upstream::Exchange;
use http::uri::PathAndQuery;
use http::{HeaderValue, Method, Request, StatusCode, Uri};
use tokio::time::{Instant, timeout_at};

use super::answer::Passing;
use super::asked::{Asked, Refusal};
use super::call::Call;
use super::gateway::ProxyGateway;
use super::load::{TotalTime, UnderWay};
use super::request_id::RequestId;
use super::{Desk, consent, possession, token};
use crate::listeners::problem::Problem;

/// The one protocol that callers may switch to (RFC 6455 section 4.1).
static WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");

/// Sends the call with the connection's token; after an upstream's 401 once more with a new one, if
/// there is one and the body can be sent again. A 401 for a grant that turns out to be dead asks for
/// consent; any other passes through.
pub(super) async fn forward<G: ProxyGateway>(
    desk: &Rc<Desk<G>>,
    asked: &Asked<'_>,
    call: &Call,
    connection: Arc<Connection>,
    body: impl FnOnce() -> Incoming,
    (on_process, on_route): (Occupied, Option<Occupied>),
    id: &RequestId,
) -> Result<Passing, HttpResponse> {
    let worker = desk.worker.begin();
    let resilience = &call.route.resilience;
    resilience.retries.request();
    let errand = Errand {
        end: resilience.total_timeout.map(|total| (total, Instant::now() + total)),
        method: Method::from_bytes(asked.method().as_str().as_bytes()).unwrap_or_default(),
        body: body_source(desk, asked, call, body),
        desk,
        asked,
        call,
        id,
    };
    let sent = errand.send(&connection).await;
    let Sent { mut response, mut place, is_verdict } = sent.map_err(|response| *response)?;
    if response.parts.status == StatusCode::UNAUTHORIZED
        && is_verdict
        && let Some(rejected) = connection.fingerprint()
    {
        match Box::pin(token::obtain(desk, call, Some(rejected))).await {
            Ok(renewed) if renewed.fingerprint() != Some(rejected) && errand.body.is_replayable() => {
                drop((response, place));
                let sent = Box::pin(errand.send(&renewed)).await;
                let again = sent.map_err(|response| *response)?;
                let is_verdict = again.is_verdict;
                (response, place) = (again.response, again.place);
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
        in_flight: UnderWay {
            _worker: worker,
            _process: on_process,
            _route: on_route,
            end: errand
                .end
                .map(|(after, until)| TotalTime::new(after, until, place.origin.serialized.clone())),
            _passage: place.passage,
        },
    })
}

/// Where a call goes with one connection's token.
struct Place {
    origin: Arc<UpstreamOrigin>,
    target: PathAndQuery,
    /// If the route looks after its upstreams.
    passage: Option<Passage>,
}

impl Place {
    /// Tells what became of a call there.
    fn tell(&self, outcome: &Result<Box<UpstreamResponse>, UpstreamError>) {
        let Some(passage) = &self.passage else { return };
        match outcome {
            Ok(response) => passage.answered(response.parts.status, &response.parts.headers),
            Err(error) if error.is_upstreams() => passage.failed(),
            Err(_) => {}
        }
    }
}

/// An answer, and where it comes from.
struct Sent {
    response: Box<UpstreamResponse>,
    place: Place,
    /// Whether it says something of the token.
    is_verdict: bool,
}

struct Errand<'a, G: ProxyGateway> {
    desk: &'a Rc<Desk<G>>,
    asked: &'a Asked<'a>,
    call: &'a Call,
    id: &'a RequestId,
    method: Method,
    body: BodySource,
    /// How long the whole exchange may take, and when it must be over.
    end: Option<(Duration, Instant)>,
}

impl<G: ProxyGateway> Errand<'_, G> {
    /// The route's upstream, one of several that was not `tried` yet, or the one that the connection's
    /// token answer named.
    fn place(&self, connection: &Connection, tried: Tried) -> Result<Place, Box<HttpResponse>> {
        let route = &self.call.route;
        let target = |prefix: &str| {
            target(self.asked, self.call, prefix)
                .map_err(|error| Box::new(Refusal::Path(error).problem(self.id).response()))
        };
        if let Some(endpoints) = &route.resilience.endpoints {
            // While others work, a call that cannot be repeated is no probe.
            let passage = endpoints.choose(tried, self.method.is_idempotent() && self.body.is_replayable());
            let passage = passage.map_err(|unavailable| Box::new(self.failed(&unavailable.into())))?;
            let (origin, target) = (passage.origin().clone(), target(passage.path())?);
            return Ok(Place { origin, target, passage: Some(passage) });
        }
        let Some(template) = &route.template else {
            let (origin, target) = (route.origin.clone(), target(&route.upstream_path)?);
            return Ok(Place { origin, target, passage: None });
        };
        let members = connection.state.tokens().map(|tokens| &tokens.extra);
        let resolved = template
            .resolve(members.unwrap_or(&BTreeMap::new()))
            .map_err(|error| Box::new(self.failed(&UpstreamError::Unresolved(error))))?;
        Ok(Place { origin: resolved.origin.clone(), target: target(&resolved.path)?, passage: None })
    }

    /// Sends the call, and once more if only the nonce of its proof was missing or old.
    async fn send(&self, connection: &Connection) -> Result<Sent, Box<HttpResponse>> {
        let mut place = self.place(connection, Tried::default())?;
        let response = self.persist(connection, &mut place).await?;
        if !possession::wants_nonce(connection, &place.origin.serialized, &response) {
            return Ok(Sent { response, place, is_verdict: true });
        }
        if !self.body.is_replayable() {
            return Ok(Sent { response, place, is_verdict: false });
        }
        drop(response);
        let response = Box::pin(self.persist(connection, &mut place)).await?;
        let is_verdict = !possession::wants_nonce(connection, &place.origin.serialized, &response);
        Ok(Sent { response, place, is_verdict })
    }

    /// Sends the call to `place`, and, if it may be sent again, to another one, or there once more.
    async fn persist(
        &self,
        connection: &Connection,
        place: &mut Place,
    ) -> Result<Box<UpstreamResponse>, Box<HttpResponse>> {
        let retries = &self.call.route.resilience.retries;
        let mut left = retries.retries();
        loop {
            let outcome = self.attempt(connection, place, &mut left).await;
            place.tell(&outcome);
            let error = match outcome {
                Ok(response) => return Ok(response),
                Err(error) => error,
            };
            if left == 0 || !self.may_repeat(&error, place) || !retries.withdraw() {
                return Err(Box::new(self.failed(&error)));
            }
            left -= 1;
            tracing::debug!(request_id = self.id.as_str(), %error, "sent again");
            let tried = place.passage.as_ref().map(Passage::tried).unwrap_or_default();
            // If there is nowhere to go now, what was wrong before says more.
            let Ok(next) = self.place(connection, tried) else {
                return Err(Box::new(self.failed(&error)));
            };
            *place = next;
        }
    }

    /// Whether a call that ended so may be sent again (RFC 9110 section 9.2.2).
    fn may_repeat(&self, error: &UpstreamError, place: &Place) -> bool {
        let may = match error {
            // Whoever waited so long in vain would wait as long again.
            UpstreamError::ConnectTimeout { .. } => place.passage.as_ref().is_some_and(Passage::has_others),
            UpstreamError::Broken { .. } => self.method.is_idempotent(),
            other => other.is_before_sending(),
        };
        may && self.body.is_replayable()
    }

    /// Sends the call once, or twice if it meets a connection that has just ended, which takes one of
    /// the retries that are `left`.
    async fn attempt(
        &self,
        connection: &Connection,
        place: &Place,
        left: &mut u32,
    ) -> Result<Box<UpstreamResponse>, UpstreamError> {
        // A token that ended this very moment is sent no more; the upstream would refuse it.
        let Some(authorization) = connection.authorization(self.desk.gateway.now()) else {
            return Err(UpstreamError::TokenEnded);
        };
        let route = &self.call.route;
        let retries = &route.resilience.retries;
        let made = Cell::new(0u32);
        let exchange = Exchange {
            origin: &place.origin,
            tls: route.tls.as_ref(),
            protocol: route.protocol,
            body: &self.body,
            token_header: connection.token_header(),
            takes_trailers: self.asked.takes_trailers(),
            upgrade: self.asked.websocket.then_some(&WEBSOCKET),
            idempotent: self.method.is_idempotent() && *left > 0 && retries.has_left(),
            connect_timeout: route.resilience.connect_timeout,
            idle_timeout: route.resilience.idle_timeout,
            timeout: route.timeout,
            make: &|body| {
                made.set(made.get() + 1);
                self.request(place, connection, authorization, body)
            },
        };
        let pool = self.desk.worker.pool();
        let mut sending = pin!(pool.send(&exchange));
        let outcome = match self.end {
            None => sending.await,
            Some((after, until)) => match timeout_at(until, sending.as_mut()).await {
                Ok(outcome) => outcome,
                Err(_) => Err(UpstreamError::TotalTimeout { origin: place.origin.serialized.clone(), after }),
            },
        };
        for _ in 1..made.get() {
            *left = left.saturating_sub(1);
            retries.spend();
        }
        outcome
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
        let no_failure = match error {
            // The caller's own fault.
            UpstreamError::RequestHead(fault) => *fault != HeaderError::Unproven,
            UpstreamError::RequestBody(_) => true,
            // What failed was noted before, and nothing was sent.
            UpstreamError::CircuitOpen { .. } | UpstreamError::HeldBack { .. } => true,
            _ => false,
        };
        if no_failure {
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
    let usual = desk.worker.settings().body_idle_timeout;
    let idle = call.route.resilience.idle_timeout.unwrap_or(usual);
    let limits = BodyLimits { length, max: call.route.max_body, idle };
    BodySource::streaming(incoming(), limits)
}
