//! An upstream's answer, streamed, and what becomes of its connection afterwards.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http::response::Parts;
use http_body::{Body as _, Frame};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep};

use super::body::BodySource;
use super::error::UpstreamError;
use super::headers::response_trailers;
use super::route::{TlsIdentity, UpstreamOrigin};
use super::upstream::{Sender, Slot, Upgraded, UpstreamPool};

/// What of a connection an exchange holds.
pub(super) enum Hold {
    /// The whole, until it is given back.
    Http1 { pool: Rc<UpstreamPool>, identity: TlsIdentity, sender: Sender },
    /// The whole, and nobody uses it again.
    Once { _sender: Sender },
    /// One stream.
    Http2(Slot),
}

/// A connection in use. Dropped, an HTTP/1.1 connection is closed and an HTTP/2 stream cancelled; only a
/// clean end leaves the connection for others.
pub(super) struct Lease {
    origin: Arc<UpstreamOrigin>,
    hold: Option<Hold>,
    body: BodySource,
    attempt: u32,
}

impl Lease {
    pub(super) fn new(origin: Arc<UpstreamOrigin>, hold: Hold, body: BodySource) -> Self {
        let attempt = body.current_attempt();
        Self { origin, hold: Some(hold), body, attempt }
    }

    fn give_back(mut self) {
        if self.body.is_finished()
            && let Some(Hold::Http1 { pool, identity, sender }) = self.hold.take()
        {
            pool.put_idle(&self.origin, identity, sender);
        }
    }

    /// Gives up the exchange, and lets nobody else wait on the same connection.
    fn give_up(self) {
        if let Some(Hold::Http2(slot)) = &self.hold {
            slot.retire();
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.hold.is_some() {
            self.body.give_up(self.attempt);
        }
    }
}

/// An upstream's answer.
#[derive(Debug)]
pub struct UpstreamResponse {
    /// Status and headers, as they came.
    pub parts: Parts,
    /// The body.
    pub body: ResponseBody,
    /// The connection, if the status is 101: what was asked for is spoken on it now, and there is no body.
    pub upgraded: Option<Upgraded>,
}

impl UpstreamResponse {
    pub(super) fn new(
        response: Response<Incoming>,
        upgraded: Option<Upgraded>,
        lease: Lease,
        idle: Duration,
    ) -> Self {
        let (parts, incoming) = response.into_parts();
        let mut body = ResponseBody { incoming, lease: Some(lease), idle, watch: None };
        if body.incoming.is_end_stream() {
            body.finish();
        }
        Self { parts, body, upgraded }
    }
}

/// The body of an answer. An error, or dropping it early, closes the upstream's connection or cancels its
/// stream.
pub struct ResponseBody {
    incoming: Incoming,
    lease: Option<Lease>,
    idle: Duration,
    watch: Option<Pin<Box<Sleep>>>,
}

impl ResponseBody {
    /// Its length in bytes, if the upstream said it.
    pub fn length(&self) -> Option<u64> {
        self.incoming.size_hint().exact()
    }

    /// Whether it has ended cleanly, and there were no trailers that were not read.
    pub fn is_end(&self) -> bool {
        self.lease.is_none() && self.incoming.is_end_stream()
    }

    /// The next bytes, never none, or the trailers that follow the last, without those that may not pass; `None` at a
    /// clean end, an error if the body broke off or stalled.
    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, UpstreamError>>> {
        loop {
            match Pin::new(&mut self.incoming).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    if self.incoming.is_end_stream() {
                        self.finish();
                    }
                    // What it brings is nothing, but would be the end where chunks are written.
                    if frame.data_ref().is_some_and(Bytes::is_empty) {
                        continue;
                    }
                    if let Some(watch) = &mut self.watch {
                        watch.as_mut().reset(Instant::now() + self.idle);
                    }
                    let frame = match frame.into_trailers() {
                        Ok(trailers) => response_trailers(trailers).map(Frame::trailers),
                        Err(data) => Some(data),
                    };
                    if let Some(frame) = frame {
                        return Poll::Ready(Some(Ok(frame)));
                    }
                }
                Poll::Ready(Some(Err(error))) => {
                    let error = match &self.lease {
                        Some(lease) => UpstreamError::broken(&lease.origin, &error),
                        None => UpstreamError::AfterEnd,
                    };
                    self.lease = None;
                    return Poll::Ready(Some(Err(error)));
                }
                Poll::Ready(None) => return Poll::Ready(self.end().map(Err)),
                Poll::Pending => return self.poll_stalled(cx),
            }
        }
    }

    /// What hyper takes for the end is none if an HTTP/2 stream was reset before: the reason `NO_ERROR`
    /// excuses the end of a request only (RFC 9113 section 8.1).
    fn end(&mut self) -> Option<UpstreamError> {
        if let Some(Lease { hold: Some(Hold::Http2(_)), origin, .. }) = &self.lease
            && !self.incoming.is_end_stream()
        {
            let error = UpstreamError::cut_short(origin);
            self.lease = None;
            return Some(error);
        }
        self.finish();
        None
    }

    fn poll_stalled(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, UpstreamError>>> {
        let idle = self.idle;
        let watch = self.watch.get_or_insert_with(|| Box::pin(sleep(idle)));
        if watch.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        let origin = self.lease.take().map(|lease| {
            let origin = lease.origin.serialized.clone();
            lease.give_up();
            origin
        });
        Poll::Ready(Some(Err(UpstreamError::BodyStalled { origin: origin.unwrap_or_default(), after: idle })))
    }

    fn finish(&mut self) {
        if let Some(lease) = self.lease.take() {
            lease.give_back();
        }
    }
}

impl std::fmt::Debug for ResponseBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResponseBody").field("length", &self.length()).finish_non_exhaustive()
    }
}
