//! Turns an upstream's answer into ours.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use actix_web::HttpResponse;
use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::http::header::{CONTENT_LENGTH, HeaderName, HeaderValue};
use actix_web::http::{ConnectionType, Method, StatusCode};
use bytes::{BufMut as _, Bytes, BytesMut};
use claviger_actors::proxy::actor::{InFlight, Worker};
use claviger_actors::proxy::error::UpstreamError;
use claviger_actors::proxy::headers::{HeaderError, response_headers};
use claviger_actors::proxy::response::{ResponseBody, UpstreamResponse};

use super::Desk;
use super::asked::Asked;
use super::gateway::ProxyGateway;

/// Passes an answer on: status and headers at once, the body as it comes.
pub(super) fn answer<G: ProxyGateway>(
    desk: &Desk<G>,
    asked: &Asked<'_>,
    upstream: UpstreamResponse,
    in_flight: InFlight,
) -> Result<HttpResponse, HeaderError> {
    let UpstreamResponse { parts, body, .. } = upstream;
    let status = StatusCode::from_u16(parts.status.as_u16()).map_err(|_| HeaderError::Malformed)?;
    let stated = || {
        let length = parts.headers.get(http::header::CONTENT_LENGTH);
        length.and_then(|value| value.to_str().ok()?.parse().ok())
    };
    // These have no body, whatever their headers say (RFC 9112 section 6.3).
    let size = match status {
        StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED => BodySize::None,
        _ if *asked.method() == Method::HEAD => stated().map_or(BodySize::None, BodySize::Sized),
        _ => body.length().map_or(BodySize::Stream, BodySize::Sized),
    };
    let body = ForwardedBody { body, size, worker: desk.worker.clone(), _in_flight: in_flight };
    let mut response = HttpResponse::with_body(status, BoxBody::new(body));

    let values = parts.headers.values().map(http::HeaderValue::len).sum::<usize>();
    let mut buffer = BytesMut::with_capacity(values + 16);
    let mut malformed = false;
    let headers = response.headers_mut();
    response_headers(&parts.headers, |name, value| {
        buffer.put_slice(value.as_bytes());
        let value = HeaderValue::from_maybe_shared(buffer.split().freeze());
        match (HeaderName::from_bytes(name.as_str().as_bytes()), value) {
            (Ok(name), Ok(value)) => headers.append(name, value),
            _ => malformed = true,
        }
    })?;
    if malformed {
        return Err(HeaderError::Malformed);
    }
    if status == StatusCode::NOT_MODIFIED
        && let Some(length) = stated()
    {
        // Says how long the body is that was not sent (RFC 9110 section 8.6).
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    if size == BodySize::Stream && asked.takes_no_chunks() {
        // The end of the connection is then the only end that the body can have.
        let head = response.head_mut();
        head.no_chunking(true);
        head.set_connection_type(ConnectionType::Close);
    }
    Ok(response)
}

/// An upstream's body on its way to the caller. If it breaks off, so does the answer: the server
/// closes the connection without a clean end.
struct ForwardedBody {
    body: ResponseBody,
    size: BodySize,
    worker: Rc<Worker>,
    _in_flight: InFlight,
}

impl MessageBody for ForwardedBody {
    type Error = UpstreamError;

    fn size(&self) -> BodySize {
        self.size
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, UpstreamError>>> {
        let next = self.body.poll_data(cx);
        if let Poll::Ready(Some(Err(error))) = &next {
            self.worker.note_failure(error);
        }
        next
    }
}
