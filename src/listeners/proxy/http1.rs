//! Calls over HTTP/1.1: a request of actix's comes in, a response of actix's goes out.

use std::cell::Cell;
use std::convert::Infallible;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use actix_http::body::{BodySize, BoxBody, MessageBody};
use actix_http::header::{
    CONTENT_LENGTH, HeaderName, HeaderValue, TRANSFER_ENCODING, UPGRADE, map::HeaderMap,
};
use actix_http::{ConnectionType, Method, Payload, Request, RequestHead, Response, StatusCode, Version};
use actix_web::HttpResponse;
use bytes::{BufMut as _, Bytes, BytesMut};
use claviger_actors::proxy::body::BodyFault;
use claviger_actors::proxy::headers::{HeaderError, RequestLength, response_headers};
use claviger_actors::proxy::response::UpstreamResponse;
use futures_util::StreamExt as _;
use http_body::Frame;

use super::Desk;
use super::answer::{ForwardedBody, Passing};
use super::asked::{Arrival, Framing, length, names_websocket};
use super::gateway::ProxyGateway;
use super::tunnel::Tunnel;
use crate::listeners::server::{Busy, CallerConnection};

/// Answers a request.
pub(super) async fn serve<G: ProxyGateway>(
    desk: Rc<Desk<G>>,
    mut request: Request,
) -> Result<Response<Http1Body>, Infallible> {
    let payload = request.take_payload();
    let connection = request.conn_data::<Rc<CallerConnection>>().cloned().unwrap_or_default();
    let busy = connection.busy();
    let head = request.head();
    if desk.gateway.is_draining() {
        desk.gateway.note_late_request();
    }
    let id = desk.request_ids.next();
    let arrival = Arrival { head, connection: &connection, framing: Framing::Headers };
    // Taken by the call's body, or by the tunnel that its connection becomes.
    let payload = Cell::new(Some(payload));
    let body = || -> super::Incoming {
        let chunks = futures_util::stream::iter(payload.take()).flatten();
        Box::pin(chunks.map(|chunk| chunk.map(Frame::data).map_err(|_| BodyFault::BrokenOff)))
    };
    let answered = super::answer(&desk, &arrival, body, &id).await;
    let mut response = match answered {
        Ok(passing) => {
            let route = passing.route.clone();
            match pass(passing, head, payload.take(), busy) {
                Ok(response) => response,
                Err((_, busy)) => own(desk.unpassable(&route, &id), busy),
            }
        }
        Err(response) => own(response, busy),
    };
    let ends = ends_connection(head) || desk.gateway.is_draining();
    if ends && response.status() != StatusCode::SWITCHING_PROTOCOLS {
        response.head_mut().set_connection_type(ConnectionType::Close);
    }
    let keeps = [head.connection_type(), response.head().connection_type()];
    if keeps == [ConnectionType::KeepAlive; 2] && has_no_body(head) {
        connection.goes_on();
    }
    Ok(response)
}

/// Whether nothing of a request follows its head.
fn has_no_body(head: &RequestHead) -> bool {
    matches!(length(head, Framing::Headers), Ok(RequestLength::Absent | RequestLength::Exact(0)))
}

fn own(response: HttpResponse, busy: Busy) -> Response<Http1Body> {
    Response::from(response).map_body(|_, body| Http1Body { content: Content::Own(body), busy })
}

/// Passes an upstream's answer on: status and headers at once, the body as it comes.
fn pass(
    passing: Passing,
    head: &RequestHead,
    payload: Option<Payload>,
    busy: Busy,
) -> Result<Response<Http1Body>, (HeaderError, Busy)> {
    let Passing { upstream, worker, in_flight, .. } = passing;
    let UpstreamResponse { parts, body, upgraded } = *upstream;
    let Ok(status) = StatusCode::from_u16(parts.status.as_u16()) else {
        return Err((HeaderError::Malformed, busy));
    };
    let stated = || {
        let length = parts.headers.get(http::header::CONTENT_LENGTH);
        length.and_then(|value| value.to_str().ok()?.parse().ok())
    };
    // These have no body, whatever their headers say (RFC 9112 section 6.3).
    let size = match status {
        StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED => BodySize::None,
        _ if head.method == Method::HEAD => stated().map_or(BodySize::None, BodySize::Sized),
        _ => body.length().map_or(BodySize::Stream, BodySize::Sized),
    };
    let content = match (upgraded, payload) {
        (Some(upstream), Some(caller)) => {
            Content::Tunnel(Box::new(Tunnel::open(upstream, caller, in_flight)))
        }
        _ => Content::Forwarded { body: Box::new(ForwardedBody::new(body, worker, in_flight)), size },
    };
    let is_tunnel = matches!(content, Content::Tunnel(_));
    let mut response = Response::with_body(status, Http1Body { content, busy });
    if let Err(error) = copy_headers(&parts.headers, response.headers_mut()) {
        return Err((error, response.into_body().busy));
    }
    if is_tunnel {
        response.headers_mut().insert(UPGRADE, HeaderValue::from_static("websocket"));
        response.head_mut().set_connection_type(ConnectionType::Upgrade);
    }
    if status == StatusCode::NOT_MODIFIED
        && let Some(length) = stated()
    {
        // Says how long the body is that was not sent (RFC 9110 section 8.6).
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    if size == BodySize::Stream && takes_no_chunks(head) {
        // The end of the connection is then the only end that the body can have.
        let head = response.head_mut();
        head.no_chunking(true);
        head.set_connection_type(ConnectionType::Close);
    }
    Ok(response)
}

fn copy_headers(from: &http::HeaderMap, to: &mut HeaderMap) -> Result<(), HeaderError> {
    let values = from.values().map(http::HeaderValue::len).sum::<usize>();
    let mut buffer = BytesMut::with_capacity(values + 16);
    let mut malformed = false;
    response_headers(from, |name, value| {
        buffer.put_slice(value.as_bytes());
        let value = HeaderValue::from_maybe_shared(buffer.split().freeze());
        match (HeaderName::from_bytes(name.as_str().as_bytes()), value) {
            (Ok(name), Ok(value)) => to.append(name, value),
            _ => malformed = true,
        }
    })?;
    if malformed { Err(HeaderError::Malformed) } else { Ok(()) }
}

/// Whether the server library must not announce chunks in the answer: an HTTP/1.0 caller does not know
/// them, and the library sends none after an `Upgrade`.
fn takes_no_chunks(head: &RequestHead) -> bool {
    head.version < Version::HTTP_11 || reads_to_the_end(head)
}

/// Whether the server library reads everything that follows as this request's body.
fn reads_to_the_end(head: &RequestHead) -> bool {
    head.headers.get_all(UPGRADE).any(names_websocket) && !head.headers.contains_key(TRANSFER_ENCODING)
        || head.method == Method::CONNECT
}

/// Whether nothing more can be read from the caller's connection after this request: it asked for
/// another protocol, which it does not get.
fn ends_connection(head: &RequestHead) -> bool {
    head.connection_type() == ConnectionType::Upgrade || reads_to_the_end(head)
}

/// What an answer consists of after its head. If an upstream's body breaks off, so does the answer: the
/// server closes the connection without a clean end.
#[derive(Debug)]
pub struct Http1Body {
    content: Content,
    busy: Busy,
}

#[derive(Debug)]
enum Content {
    Own(BoxBody),
    Forwarded { body: Box<ForwardedBody>, size: BodySize },
    Tunnel(Box<Tunnel>),
}

impl MessageBody for Http1Body {
    type Error = Box<dyn std::error::Error>;

    fn size(&self) -> BodySize {
        match &self.content {
            Content::Own(body) => body.size(),
            Content::Forwarded { size, .. } => *size,
            Content::Tunnel(_) => BodySize::Stream,
        }
    }

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        match &mut self.content {
            Content::Own(body) => Pin::new(body).poll_next(cx),
            Content::Forwarded { body, .. } => loop {
                // The server library writes no trailers.
                match ready!(body.poll_frame(cx)) {
                    Some(Ok(frame)) => {
                        if let Ok(data) = frame.into_data() {
                            return Poll::Ready(Some(Ok(data)));
                        }
                    }
                    Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                    None => return Poll::Ready(None),
                }
            },
            Content::Tunnel(tunnel) => tunnel.poll_next(cx).map_err(Into::into),
        }
    }
}
