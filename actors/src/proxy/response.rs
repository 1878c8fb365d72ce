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
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use tokio::time::{Instant, Sleep, sleep};

use super::body::{BodySource, RequestBody};
use super::error::UpstreamError;
use super::route::{TlsIdentity, UpstreamOrigin};
use super::upstream::UpstreamPool;

/// A connection in use. Dropped, it is closed; only a clean end gives it back to its pool.
pub(super) struct Lease {
    pool: Rc<UpstreamPool>,
    origin: Arc<UpstreamOrigin>,
    identity: TlsIdentity,
    sender: Option<SendRequest<RequestBody>>,
    body: BodySource,
    attempt: u32,
}

impl Lease {
    pub(super) fn new(
        pool: Rc<UpstreamPool>,
        origin: Arc<UpstreamOrigin>,
        identity: TlsIdentity,
        sender: SendRequest<RequestBody>,
        body: BodySource,
    ) -> Self {
        let attempt = body.current_attempt();
        Self { pool, origin, identity, sender: Some(sender), body, attempt }
    }

    fn give_back(mut self) {
        if self.body.is_finished()
            && let Some(sender) = self.sender.take()
        {
            self.pool.put_idle(&self.origin, self.identity, sender);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.sender.is_some() {
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
}

impl UpstreamResponse {
    pub(super) fn new(response: Response<Incoming>, lease: Lease, idle: Duration) -> Self {
        let (parts, incoming) = response.into_parts();
        let mut body = ResponseBody { incoming, lease: Some(lease), idle, watch: None };
        if body.incoming.is_end_stream() {
            body.finish();
        }
        Self { parts, body }
    }
}

/// The body of an answer. An error, or dropping it early, closes the upstream's connection.
pub struct ResponseBody {
    incoming: Incoming,
    lease: Option<Lease>,
    idle: Duration,
    watch: Option<Pin<Box<Sleep>>>,
}

impl ResponseBody {
    /// Its length, if the upstream said it.
    pub fn length(&self) -> Option<u64> {
        self.incoming.size_hint().exact()
    }

    /// Whether nothing more will come.
    pub fn is_at_end(&self) -> bool {
        self.incoming.is_end_stream()
    }

    /// The next bytes, `None` at a clean end, an error if the body broke off or stalled.
    pub fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, UpstreamError>>> {
        loop {
            match Pin::new(&mut self.incoming).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    if self.incoming.is_end_stream() {
                        self.finish();
                    }
                    if let Some(watch) = &mut self.watch {
                        watch.as_mut().reset(Instant::now() + self.idle);
                    }
                    // Trailers are not headers, and go no further (RFC 9110 section 6.5.1).
                    if let Ok(data) = frame.into_data() {
                        return Poll::Ready(Some(Ok(data)));
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
                Poll::Ready(None) => {
                    self.finish();
                    return Poll::Ready(None);
                }
                Poll::Pending => return self.poll_stalled(cx),
            }
        }
    }

    fn poll_stalled(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, UpstreamError>>> {
        let idle = self.idle;
        let watch = self.watch.get_or_insert_with(|| Box::pin(sleep(idle)));
        if watch.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        let origin = self.lease.take().map(|lease| lease.origin.serialized.clone());
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
