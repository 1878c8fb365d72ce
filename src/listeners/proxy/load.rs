//! What a call must fit into: what is under way, and what its caller and its route may do per time.

use std::future::Future as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use actix_web::dev::RequestHead;
use actix_web::http::StatusCode;
use claviger_actors::proxy::actor::InFlight;
use claviger_actors::proxy::endpoints::Passage;
use claviger_actors::proxy::error::UpstreamError;
use claviger_actors::proxy::in_flight::{InFlightLimit, Occupied};
use claviger_actors::proxy::rate_limit::RateLimit;
use claviger_actors::proxy::route::Route;
use tokio::time::{Instant, Sleep, sleep_until};

use super::request_id::RequestId;
use crate::caller_auth::Caller;
use crate::config::Limits;
use crate::listeners::problem::{Problem, ProblemCode};

/// A call that was refused for what is under way may come back after this, in seconds.
const COME_BACK: u64 = 1;

/// Limits of the listener as a whole, shared by its workers.
#[derive(Clone, Debug)]
pub struct Load {
    in_flight: Arc<InFlightLimit>,
    /// In bytes, if it is less than the server library has by itself.
    max_head: Option<usize>,
}

impl Default for Load {
    fn default() -> Self {
        Self::new(&Limits::default())
    }
}

impl Load {
    /// The limits that are configured.
    pub fn new(limits: &Limits) -> Self {
        let usual = Limits::default().max_request_head;
        Self {
            in_flight: InFlightLimit::new(limits.max_in_flight),
            max_head: Some(limits.max_request_head).filter(|max| *max < usual),
        }
    }

    /// Lets a call in, if there is room for it and its head is not too large.
    pub(super) fn enter(&self, head: &RequestHead, id: &RequestId) -> Result<Occupied, Box<Problem>> {
        let Some(occupied) = self.in_flight.enter() else {
            let detail = "as many calls are under way as the gateway takes at once; try again in a moment";
            return Err(Box::new(Problem::new(ProblemCode::Overloaded, detail, id).retry_after(COME_BACK)));
        };
        if let Some(max) = self.max_head.filter(|max| size_of(head) > *max) {
            let detail = format!("the request line and headers are larger than {max} bytes");
            let problem = Problem::new(ProblemCode::BadRequest, detail, id);
            return Err(Box::new(problem.status(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE)));
        }
        Ok(occupied)
    }
}

/// Bytes of a head as HTTP/1.1 writes it (RFC 9112 section 2.1).
fn size_of(head: &RequestHead) -> usize {
    let target = head.uri.path_and_query().map_or(1, |target| target.as_str().len());
    let fields = head.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4);
    head.method.as_str().len() + target + 12 + fields.sum::<usize>()
}

/// Takes a call of `caller` out of what it and the route may do, and counts it on the route if that
/// has a limit.
pub(super) fn admit(
    caller: &Caller,
    route: &Route,
    id: &RequestId,
) -> Result<Option<Occupied>, Box<Problem>> {
    take(caller.rate.as_deref(), "caller", caller.id.as_str(), id)?;
    take(route.resilience.rate.as_deref(), "route", route.id.as_str(), id)?;
    let Some(limit) = &route.resilience.in_flight else { return Ok(None) };
    limit.enter().map(Some).ok_or_else(|| {
        let detail = format!("route {} takes no more than {} calls at once", route.id, limit.max());
        Box::new(Problem::new(ProblemCode::Overloaded, detail, id).retry_after(COME_BACK))
    })
}

fn take(rate: Option<&RateLimit>, of: &'static str, name: &str, id: &RequestId) -> Result<(), Box<Problem>> {
    let Some(Err(over)) = rate.map(RateLimit::take) else { return Ok(()) };
    Err(Box::new(Problem::over_rate(of, name, over, id)))
}

/// What a call holds until its answer has ended.
#[derive(Debug)]
pub(super) struct UnderWay {
    pub(super) _worker: InFlight,
    pub(super) _process: Occupied,
    pub(super) _route: Option<Occupied>,
    pub(super) _passage: Option<Passage>,
    pub(super) end: Option<TotalTime>,
}

impl UnderWay {
    /// Ready once the time of the whole exchange is up, if it has an end.
    pub(super) fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<UpstreamError> {
        self.end.as_mut().map_or(Poll::Pending, |end| end.poll_over(cx))
    }
}

/// When a whole exchange must be over.
#[derive(Debug)]
pub(super) struct TotalTime {
    origin: Arc<str>,
    after: Duration,
    until: Instant,
    /// Made once there is something to wait for.
    sleep: Option<Pin<Box<Sleep>>>,
}

impl TotalTime {
    pub(super) fn new(after: Duration, until: Instant, origin: Arc<str>) -> Self {
        Self { origin, after, until, sleep: None }
    }

    fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<UpstreamError> {
        let until = self.until;
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(until)));
        sleep.as_mut().poll(cx).map(|()| self.error())
    }

    fn error(&self) -> UpstreamError {
        UpstreamError::TotalTimeout { origin: self.origin.clone(), after: self.after }
    }
}
