//! An upstream's answer on its way to the caller, whatever the version of HTTP.

use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use claviger_actors::proxy::actor::Worker;
use claviger_actors::proxy::error::UpstreamError;
use claviger_actors::proxy::response::{ResponseBody, UpstreamResponse};
use claviger_actors::proxy::route::Route;
use http_body::Frame;

use super::load::UnderWay;

/// An answer that passes.
pub(super) struct Passing {
    pub(super) upstream: Box<UpstreamResponse>,
    pub(super) route: Arc<Route>,
    /// Whether it answers a `HEAD`.
    pub(super) to_head: bool,
    pub(super) worker: Rc<Worker>,
    pub(super) in_flight: UnderWay,
}

/// An upstream's body.
#[derive(Debug)]
pub(super) struct ForwardedBody {
    body: ResponseBody,
    worker: Rc<Worker>,
    in_flight: UnderWay,
}

impl ForwardedBody {
    pub(super) fn new(body: ResponseBody, worker: Rc<Worker>, in_flight: UnderWay) -> Self {
        Self { body, worker, in_flight }
    }

    /// The next bytes, or the trailers after the last; an error if the body broke off.
    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UpstreamError>>> {
        let next = match self.in_flight.poll_over(cx) {
            Poll::Ready(error) => Poll::Ready(Some(Err(error))),
            Poll::Pending => self.body.poll_frame(cx),
        };
        if let Poll::Ready(Some(Err(error))) = &next {
            self.worker.note_failure(error);
        }
        next
    }

    /// Whether nothing more will come.
    pub(super) fn is_at_end(&self) -> bool {
        self.body.is_end()
    }
}
