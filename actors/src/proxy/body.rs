//! Request bodies on their way upstream.
//!
//! A body is streamed as it comes, and its trailers after it. It is also kept while it is small, so
//! that the request can be sent again after the upstream's 401 or on a new connection.

use std::cell::RefCell;
use std::error::Error;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use http::HeaderMap;
use http::header::HeaderName;
use http_body::{Body, Frame, SizeHint};
use thiserror::Error;
use tokio::time::{Instant, Sleep, sleep};

use super::headers::request_trailers;

/// Bodies up to this many bytes are kept for sending again.
pub const LARGEST_KEPT: u64 = 64 * 1024;
/// A body that brings less than this in a whole idle timeout is stalled: a caller that drips single
/// bytes must not hold a connection for ever.
pub const LEAST_PROGRESS: u64 = 1024;

/// Why a request body did not arrive whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum BodyFault {
    /// The caller's connection broke off, or its framing was wrong.
    #[error("the request body broke off")]
    BrokenOff,
    /// It is larger than the route allows.
    #[error("the request body is larger than {limit} bytes")]
    TooLarge {
        /// The route's limit, in bytes.
        limit: u64,
    },
    /// The caller sent nothing, or next to nothing, for too long.
    #[error("the request body made no progress for {after:?}")]
    Stalled {
        /// How long it was waited for.
        after: Duration,
    },
    /// The attempt that this body belonged to was given up.
    #[error("the request was given up")]
    GivenUp,
}

/// The caller's bytes as they come, and at last its trailers, if there are any (RFC 9110 section 6.5).
/// What follows them is not read.
pub type Incoming = Pin<Box<dyn Stream<Item = Result<Frame<Bytes>, BodyFault>>>>;

/// What bounds a body.
#[derive(Clone, Copy, Debug)]
pub struct BodyLimits {
    /// Its length, if the caller said it: such a body has no trailers.
    pub length: Option<u64>,
    /// The route's limit, in bytes.
    pub max: Option<u64>,
    /// How long to wait for progress.
    pub idle: Duration,
}

/// A request's body, from which each attempt to send the request draws its own [`RequestBody`].
/// Cloning shares it; without a body it costs nothing.
#[derive(Clone)]
pub struct BodySource(Option<Rc<RefCell<Source>>>);

struct Source {
    incoming: Incoming,
    limits: BodyLimits,
    received: u64,
    kept: Option<Vec<Bytes>>,
    trailers: Option<HeaderMap>,
    ended: Option<Result<(), BodyFault>>,
    attempt: u32,
    last_progress: Instant,
    watch: Option<Watch>,
    /// Who waits for the next chunk, so that giving up is noticed at once.
    waiting: Option<Waker>,
}

/// Measures how long the caller was waited for, and what it brought meanwhile. Time in which the
/// upstream takes nothing does not count. Made only once there is something to wait for.
struct Watch {
    timer: Pin<Box<Sleep>>,
    waited: Duration,
    /// Since when we wait, while we do.
    since: Option<Instant>,
    /// What had been received when the window began.
    received: u64,
}

impl BodySource {
    /// No body.
    pub fn empty() -> Self {
        Self(None)
    }

    /// The body that `incoming` brings.
    pub fn streaming(incoming: Incoming, limits: BodyLimits) -> Self {
        let small = limits.length.is_none_or(|length| length <= LARGEST_KEPT);
        Self(Some(Rc::new(RefCell::new(Source {
            incoming,
            limits,
            received: 0,
            kept: small.then(Vec::new),
            trailers: None,
            ended: None,
            attempt: 0,
            last_progress: Instant::now(),
            watch: None,
            waiting: None,
        }))))
    }

    /// The body for one more attempt, from its beginning; an earlier attempt gets no more of it. No
    /// trailer is called `token_header`, which carries the token of the attempt.
    pub fn attempt(&self, token_header: &HeaderName) -> RequestBody {
        let Some(source) = &self.0 else { return RequestBody(None) };
        let mut current = source.borrow_mut();
        current.begin_attempt();
        RequestBody(Some(Sending {
            source: source.clone(),
            attempt: current.attempt,
            sent_chunks: 0,
            token_header: token_header.clone(),
            done: false,
        }))
    }

    /// Which attempt is the current one.
    pub(super) fn current_attempt(&self) -> u32 {
        self.0.as_ref().map_or(0, |source| source.borrow().attempt)
    }

    /// Ends an attempt, so that its connection is closed and not used again. An attempt that was
    /// followed by another has ended already.
    pub(super) fn give_up(&self, attempt: u32) {
        if let Some(source) = &self.0 {
            let mut source = source.borrow_mut();
            if source.attempt == attempt {
                source.begin_attempt();
            }
        }
    }

    /// Whether a further attempt can send the whole body.
    pub fn is_replayable(&self) -> bool {
        self.0.as_ref().is_none_or(|source| {
            let source = source.borrow();
            !matches!(source.ended, Some(Err(_))) && (source.kept.is_some() || source.received == 0)
        })
    }

    /// Whether the whole body was taken by the upstream connection.
    pub(super) fn is_finished(&self) -> bool {
        self.0.as_ref().is_none_or(|source| source.borrow().ended == Some(Ok(())))
    }

    /// Why the body did not arrive whole, if so.
    pub fn fault(&self) -> Option<BodyFault> {
        self.0.as_ref().and_then(|source| source.borrow().ended.and_then(Result::err))
    }

    /// When the last bytes came; `None` without a body.
    pub(super) fn last_progress(&self) -> Option<Instant> {
        self.0.as_ref().map(|source| source.borrow().last_progress)
    }
}

impl fmt::Debug for BodySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BodySource").field("present", &self.0.is_some()).finish()
    }
}

impl Source {
    /// What drew from the body until now gets no more of it.
    fn begin_attempt(&mut self) {
        self.attempt = self.attempt.wrapping_add(1);
        if let Some(waiting) = self.waiting.take() {
            waiting.wake();
        }
    }

    /// The next chunk, counted, limited and kept. Trailers are put aside.
    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyFault>>> {
        if let Some(watch) = &mut self.watch
            && let Some(since) = watch.since.take()
        {
            watch.waited += since.elapsed();
        }
        if let Some(ended) = self.ended {
            return Poll::Ready(ended.err().map(Err));
        }
        if self.limits.length.is_some_and(|length| self.received >= length) {
            self.ended = Some(Ok(()));
            return Poll::Ready(None);
        }
        let next = match self.poll_incoming(cx) {
            Poll::Ready(next) => next,
            Poll::Pending => match self.poll_stalled(cx) {
                Poll::Ready(fault) => Some(Err(fault)),
                Poll::Pending => {
                    let waker = cx.waker();
                    if self.waiting.as_ref().is_none_or(|waiting| !waiting.will_wake(waker)) {
                        self.waiting = Some(waker.clone());
                    }
                    return Poll::Pending;
                }
            },
        };
        let trailers = match next.transpose() {
            Ok(Some(frame)) => match frame.into_data() {
                Ok(chunk) => return self.take(chunk),
                Err(frame) => frame.into_trailers().ok(),
            },
            Ok(None) => None,
            Err(fault) => return self.fail(fault),
        };
        if self.limits.length.is_some() {
            return self.fail(BodyFault::BrokenOff);
        }
        self.trailers = trailers;
        self.last_progress = Instant::now();
        self.ended = Some(Ok(()));
        Poll::Ready(None)
    }

    /// The next frame that is not empty: there is no end to how many of those could be kept.
    fn poll_incoming(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        loop {
            let next = ready!(self.incoming.as_mut().poll_next(cx));
            let is_empty = |frame: &Frame<Bytes>| frame.data_ref().is_some_and(Bytes::is_empty);
            if !matches!(&next, Some(Ok(frame)) if is_empty(frame)) {
                return Poll::Ready(next);
            }
        }
    }

    fn take(&mut self, mut chunk: Bytes) -> Poll<Option<Result<Bytes, BodyFault>>> {
        if let Some(length) = self.limits.length {
            // What comes after the stated length is no part of this request.
            let missing = usize::try_from(length - self.received).unwrap_or(usize::MAX);
            chunk.truncate(missing);
        }
        self.received = self.received.saturating_add(chunk.len() as u64);
        if let Some(limit) = self.limits.max.filter(|limit| self.received > *limit) {
            return self.fail(BodyFault::TooLarge { limit });
        }
        self.last_progress = Instant::now();
        if self.limits.length == Some(self.received) {
            self.ended = Some(Ok(()));
        }
        if self.received > LARGEST_KEPT {
            self.kept = None;
        }
        if let Some(kept) = &mut self.kept {
            kept.push(chunk.clone());
        }
        Poll::Ready(Some(Ok(chunk)))
    }

    fn fail(&mut self, fault: BodyFault) -> Poll<Option<Result<Bytes, BodyFault>>> {
        self.ended = Some(Err(fault));
        Poll::Ready(Some(Err(fault)))
    }

    fn poll_stalled(&mut self, cx: &mut Context<'_>) -> Poll<BodyFault> {
        let (idle, now) = (self.limits.idle, Instant::now());
        let watch = self.watch.get_or_insert_with(|| Watch {
            timer: Box::pin(sleep(idle)),
            waited: Duration::ZERO,
            since: None,
            received: self.received,
        });
        if watch.waited >= idle {
            if self.received - watch.received < LEAST_PROGRESS {
                return Poll::Ready(BodyFault::Stalled { after: idle });
            }
            watch.waited = Duration::ZERO;
            watch.received = self.received;
        }
        watch.since = Some(now);
        while watch.timer.as_mut().poll(cx).is_ready() {
            watch.timer.as_mut().reset(now + (idle - watch.waited));
        }
        Poll::Pending
    }
}

/// The body of one attempt to send a request.
pub struct RequestBody(Option<Sending>);

struct Sending {
    source: Rc<RefCell<Source>>,
    attempt: u32,
    sent_chunks: usize,
    token_header: HeaderName,
    done: bool,
}

impl Sending {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        if self.done {
            return Poll::Ready(None);
        }
        let mut source = self.source.borrow_mut();
        if source.attempt != self.attempt {
            self.done = true;
            return Poll::Ready(Some(Err(BodyFault::GivenUp)));
        }
        let kept = source.kept.as_ref().and_then(|kept| kept.get(self.sent_chunks)).cloned();
        let next = match kept {
            Some(chunk) => Poll::Ready(Some(Ok(chunk))),
            None => source.poll_chunk(cx),
        };
        next.map(|next| match next {
            Some(Ok(chunk)) => {
                self.sent_chunks += 1;
                Some(Ok(Frame::data(chunk)))
            }
            Some(Err(fault)) => {
                self.done = true;
                Some(Err(fault))
            }
            None => {
                self.done = true;
                let trailers = source.trailers.as_ref()?;
                request_trailers(trailers, &self.token_header).map(|trailers| Ok(Frame::trailers(trailers)))
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        let source = self.source.borrow();
        let kept = source.kept.as_ref().map_or(0, Vec::len);
        let whole = source.ended == Some(Ok(())) && source.trailers.is_none();
        self.done || whole && self.sent_chunks >= kept
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyAborted;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyAborted>>> {
        match &mut self.0 {
            Some(sending) => sending.poll_frame(cx).map_err(BodyAborted::from),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(Sending::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let length = match &self.0 {
            None => Some(0),
            Some(sending) => sending.source.borrow().limits.length,
        };
        length.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl fmt::Debug for RequestBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestBody").field("present", &self.0.is_some()).finish()
    }
}

/// Ends a request whose body does not arrive whole. An HTTP/2 upstream hears that the request was
/// cancelled (RFC 9113 section 7), not that we failed.
#[derive(Debug)]
pub struct BodyAborted {
    /// What became of the body.
    pub fault: BodyFault,
    reason: h2::Error,
}

impl From<BodyFault> for BodyAborted {
    fn from(fault: BodyFault) -> Self {
        Self { fault, reason: h2::Reason::CANCEL.into() }
    }
}

impl fmt::Display for BodyAborted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.fault.fmt(f)
    }
}

impl Error for BodyAborted {
    /// Where hyper looks for the reason to give.
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.reason)
    }
}

#[cfg(test)]
mod tests;
