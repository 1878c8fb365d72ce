//! An upstream's answer on its way to the caller, whatever the version of HTTP.

use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use claviger_actors::proxy::actor::{InFlight, Worker};
use claviger_actors::proxy::error::UpstreamError;
use claviger_actors::proxy::response::{ResponseBody, UpstreamResponse};
use claviger_actors::proxy::route::Route;

/// An answer that passes.
pub(super) struct Passing {
    pub(super) upstream: UpstreamResponse,
    pub(super) route: Arc<Route>,
    /// Whether it answers a `HEAD`.
    pub(super) to_head: bool,
    pub(super) worker: Rc<Worker>,
    pub(super) in_flight: InFlight,
}

/// An upstream's body.
#[derive(Debug)]
pub(super) struct ForwardedBody {
    body: ResponseBody,
    worker: Rc<Worker>,
    _in_flight: InFlight,
}

impl ForwardedBody {
    pub(super) fn new(body: ResponseBody, worker: Rc<Worker>, in_flight: InFlight) -> Self {
        Self { body, worker, _in_flight: in_flight }
    }

    /// The next bytes; an error if the body broke off.
    pub(super) fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, UpstreamError>>> {
        let next = self.body.poll_data(cx);
        if let Poll::Ready(Some(Err(error))) = &next {
            self.worker.note_failure(error);
        }
        next
    }

    /// Whether nothing more will come.
    pub(super) fn is_at_end(&self) -> bool {
        self.body.is_at_end()
    }
}
