//! Calls over HTTP/2 (RFC 9113): a request of hyper's comes in, a response of hyper's goes out.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use actix_http::RequestHead;
use actix_http::header::{self, HeaderName, HeaderValue};
use actix_http::{Method, Uri, Version};
use actix_web::HttpResponse;
use actix_web::body::MessageBody as _;
use bytes::{BufMut as _, Bytes, BytesMut};
use claviger_actors::proxy::body::BodyFault;
use claviger_actors::proxy::headers::{HeaderError, response_headers};
use claviger_actors::proxy::path::PathError;
use claviger_actors::proxy::response::UpstreamResponse;
use futures_util::StreamExt as _;
use http::request::Parts;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyStream, Full};
use hyper::body::Incoming;

use super::Desk;
use super::answer::{ForwardedBody, Passing};
use super::asked::{Arrival, Framing, Refusal};
use super::gateway::ProxyGateway;
use crate::listeners::server::{CallerConnection, Http2Body};

/// Answers a request.
pub(super) async fn serve<G: ProxyGateway>(
    desk: Rc<Desk<G>>,
    request: Request<Incoming>,
    connection: Rc<CallerConnection>,
) -> Response<Http2Body> {
    let (parts, incoming) = request.into_parts();
    let id = desk.request_ids.next();
    let head = match head(&parts) {
        Ok(head) => head,
        Err(refusal) => {
            let response = refusal.problem(&id).response();
            desk.count_own(None, &response);
            return own(response);
        }
    };
    let framing = Framing::Stream { ended: incoming.is_end_stream() };
    let arrival = Arrival { head: &head, connection: &connection, framing };
    let body = || -> super::Incoming {
        Box::pin(BodyStream::new(incoming).map(|frame| frame.map_err(|_| BodyFault::BrokenOff)))
    };
    match super::answer(&desk, &arrival, body, &id).await {
        Ok(passing) => {
            let route = passing.route.clone();
            pass(passing).unwrap_or_else(|_| own(desk.unpassable(&route, &id)))
        }
        Err(response) => own(response),
    }
}

/// The head in the form that the rest of the gateway knows: `:authority` is its `Host` (section 8.3.1).
fn head(parts: &Parts) -> Result<RequestHead, Refusal> {
    let mut head = RequestHead::default();
    head.version = Version::HTTP_2;
    head.method = Method::from_bytes(parts.method.as_str().as_bytes()).map_err(|_| Refusal::Method)?;
    let target = parts.uri.path_and_query().ok_or(Refusal::Path(PathError::NotAbsolute))?;
    head.uri = Uri::try_from(target.as_str()).map_err(|_| Refusal::Path(PathError::NotEncoded))?;
    let values = parts.headers.values().map(http::HeaderValue::len).sum();
    let mut buffer = BytesMut::with_capacity(values);
    for (name, value) in &parts.headers {
        if name == http::header::COOKIE {
            continue;
        }
        buffer.put_slice(value.as_bytes());
        let name = HeaderName::from_bytes(name.as_str().as_bytes()).map_err(|_| Refusal::Header)?;
        let value = HeaderValue::from_maybe_shared(buffer.split().freeze()).map_err(|_| Refusal::Header)?;
        head.headers.append(name, value);
    }
    // In pieces for better compression; whole for everybody else (section 8.2.3).
    let crumbs: Vec<_> = parts.headers.get_all(http::header::COOKIE).iter().map(|v| v.as_bytes()).collect();
    if !crumbs.is_empty() {
        let cookie = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])).map_err(|_| Refusal::Header)?;
        head.headers.insert(header::COOKIE, cookie);
    }
    if let Some(authority) = parts.uri.authority() {
        let authority = authority.as_str().as_bytes();
        let mut hosts = parts.headers.get_all(http::header::HOST).iter();
        if hosts.any(|host| !host.as_bytes().eq_ignore_ascii_case(authority)) {
            return Err(Refusal::Path(PathError::SecondAuthority));
        }
        let host = HeaderValue::from_bytes(authority).map_err(|_| Refusal::Host)?;
        head.headers.insert(header::HOST, host);
    }
    Ok(head)
}

/// Passes an upstream's answer on: status and headers at once, the body as it comes.
fn pass(passing: Passing) -> Result<Response<Http2Body>, HeaderError> {
    let Passing { upstream, to_head, worker, in_flight, .. } = passing;
    let UpstreamResponse { parts, body, .. } = *upstream;
    let mut response = Response::new(());
    *response.status_mut() = parts.status;
    let headers = response.headers_mut();
    headers.reserve(parts.headers.len() + 2);
    response_headers(&parts.headers, |name, value| {
        headers.append(name, value.clone());
    })?;
    let stated = parts.headers.get(http::header::CONTENT_LENGTH);
    // Says how long the body is, or the one that is not sent (RFC 9110 section 8.6).
    if let Some(length) = stated.filter(|_| to_head || parts.status == http::StatusCode::NOT_MODIFIED) {
        headers.insert(http::header::CONTENT_LENGTH, length.clone());
    } else if let Some(length) = body.length().filter(|_| parts.status != http::StatusCode::NO_CONTENT) {
        headers.insert(http::header::CONTENT_LENGTH, http::HeaderValue::from(length));
    }
    let body = ForwardedBody::new(body, worker, in_flight);
    Ok(response.map(|()| -> Http2Body { Box::pin(body) }))
}

fn own(response: HttpResponse) -> Response<Http2Body> {
    let mut converted = Response::new(());
    let status = http::StatusCode::from_u16(response.status().as_u16());
    *converted.status_mut() = status.unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in response.headers() {
        let name = http::HeaderName::from_bytes(name.as_str().as_bytes());
        if let (Ok(name), Ok(value)) = (name, http::HeaderValue::from_bytes(value.as_bytes())) {
            converted.headers_mut().append(name, value);
        }
    }
    // What the gateway says itself is at hand as a whole.
    let body = Full::new(response.into_body().try_into_bytes().unwrap_or_default());
    converted
        .map(|()| -> Http2Body { Box::pin(http_body_util::BodyExt::map_err(body, |never| match never {})) })
}

impl Body for ForwardedBody {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        ForwardedBody::poll_frame(&mut self, cx).map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        self.is_at_end()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}
