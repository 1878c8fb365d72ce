//! HTTP/2 (RFC 9113): many exchanges at once on a connection.

use std::cell::{Cell, RefCell};
use std::error::Error as _;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use http::header::{HOST, HeaderValue, TE, TRANSFER_ENCODING};
use http::uri::{Authority, Scheme};
use http::{Request, Uri, Version};
use hyper::client::conn::http2::{Builder, Connection, SendRequest};
use hyper::rt::Executor;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use super::{Attempt, Exchange, UpstreamSettings, until_head};
use crate::proxy::body::RequestBody;
use crate::proxy::connect::{READ_BUFFER, Way, host_header};
use crate::proxy::error::UpstreamError;
use crate::proxy::headers::HeaderError;
use crate::proxy::response::Hold;
use crate::proxy::route::UpstreamOrigin;

/// Requests at once on one connection, whatever more the upstream would take: one lost packet holds up
/// all of them.
pub(super) const MOST_STREAMS: usize = 100;
/// What an upstream may send of one answer before the caller takes it.
const STREAM_WINDOW: u32 = 512 * 1024;
/// Enough for all streams, so that callers who take nothing hold up nobody else.
const CONNECTION_WINDOW: u32 = STREAM_WINDOW * MOST_STREAMS as u32;
/// What is kept of one request's body until the upstream takes it.
const SEND_BUFFER: usize = 64 * 1024;

/// Runs hyper's tasks on the worker's own thread.
#[derive(Clone, Copy)]
struct LocalExec;

impl<F> Executor<F> for LocalExec
where
    F: Future<Output = ()> + 'static,
{
    fn execute(&self, task: F) {
        tokio::task::spawn_local(task);
    }
}

/// How many streams the upstream allows.
trait Limit {
    fn most_streams(&self) -> usize;
}

impl<T> Limit for Connection<TokioIo<T>, RequestBody, LocalExec>
where
    T: AsyncRead + AsyncWrite + Unpin + 'static,
{
    fn most_streams(&self) -> usize {
        self.current_max_send_streams()
    }
}

/// One connection.
pub(in crate::proxy) struct Multiplexed {
    sender: RefCell<SendRequest<RequestBody>>,
    /// Gone once the connection has ended.
    limit: Weak<RefCell<dyn Limit>>,
    authority: Authority,
    scheme: Scheme,
    /// Which of its pool's connections it is.
    serial: u64,
    streams: Cell<usize>,
    idle_since: Cell<Instant>,
    /// Gets no more requests.
    retired: Cell<bool>,
}

impl Multiplexed {
    /// Speaks HTTP/2 on `way`, driven by a task of its own. Until the upstream says otherwise, it gets
    /// `streams` requests at once.
    pub(super) async fn start(
        way: Way,
        origin: &UpstreamOrigin,
        settings: &Arc<UpstreamSettings>,
        streams: usize,
        serial: u64,
    ) -> io::Result<Self> {
        let (sender, limit) = match way {
            Way::Plain(stream) => drive(stream, settings, streams).await?,
            Way::Tls(stream) => drive(stream, settings, streams).await?,
        };
        Ok(Self {
            sender: RefCell::new(sender),
            limit,
            authority: host_header(origin).parse().map_err(io::Error::other)?,
            scheme: if origin.tls { Scheme::HTTPS } else { Scheme::HTTP },
            serial,
            streams: Cell::new(0),
            idle_since: Cell::new(Instant::now()),
            retired: Cell::new(false),
        })
    }

    /// How many requests it takes at once; `None` if it has ended.
    pub(super) fn most_streams(&self) -> Option<usize> {
        let limit = self.limit.upgrade()?;
        // Borrowed elsewhere only while it is polled.
        let most = limit.try_borrow().map_or(MOST_STREAMS, |limit| limit.most_streams());
        Some(most.min(MOST_STREAMS))
    }

    /// Whether it takes one more request.
    pub(super) fn has_room(&self) -> bool {
        !self.retired.get() && self.most_streams().is_some_and(|most| self.streams.get() < most)
    }

    /// Whether it gets no more requests.
    pub(super) fn is_over(&self) -> bool {
        self.retired.get() || self.limit.strong_count() == 0
    }

    /// Since when it carries nothing; `None` while it carries something.
    pub(super) fn idle_for(&self) -> Option<Duration> {
        (self.streams.get() == 0).then(|| self.idle_since.get().elapsed())
    }

    pub(super) fn serial(&self) -> u64 {
        self.serial
    }

    /// Turns a request as HTTP/1.1 has it into one of HTTP/2 (RFC 9113 sections 8.2.2 and 8.3.1).
    fn adapt(&self, request: &mut Request<RequestBody>, takes_trailers: bool) -> Result<(), HeaderError> {
        let mut target = std::mem::take(request.uri_mut()).into_parts();
        target.scheme = Some(self.scheme.clone());
        target.authority = Some(self.authority.clone());
        *request.uri_mut() = Uri::from_parts(target).map_err(|_| HeaderError::Malformed)?;
        *request.version_mut() = Version::HTTP_2;
        let headers = request.headers_mut();
        headers.remove(HOST);
        headers.remove(TRANSFER_ENCODING);
        if takes_trailers {
            headers.insert(TE, HeaderValue::from_static("trailers"));
        }
        Ok(())
    }
}

async fn drive<T>(
    stream: T,
    settings: &UpstreamSettings,
    streams: usize,
) -> io::Result<(SendRequest<RequestBody>, Weak<RefCell<dyn Limit>>)>
where
    T: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let (sender, connection) = Builder::new(LocalExec)
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .initial_max_send_streams(streams)
        .max_header_list_size(READ_BUFFER as u32)
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(settings.ping_interval)
        .keep_alive_timeout(settings.ping_timeout)
        .keep_alive_while_idle(false)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    let connection = Rc::new(RefCell::new(connection));
    let limit: Weak<RefCell<dyn Limit>> = Rc::downgrade(&(connection.clone() as Rc<RefCell<dyn Limit>>));
    tokio::task::spawn_local(async move {
        if let Err(error) = poll_fn(|cx| Pin::new(&mut *connection.borrow_mut()).poll(cx)).await {
            tracing::debug!(%error, "upstream connection ended");
        }
    });
    Ok((sender, limit))
}

/// One exchange's place on a connection, until it is dropped.
pub(in crate::proxy) struct Slot(Rc<Multiplexed>);

impl Slot {
    pub(super) fn of(connection: Rc<Multiplexed>) -> Self {
        connection.streams.set(connection.streams.get() + 1);
        Self(connection)
    }

    pub(super) fn serial(&self) -> u64 {
        self.0.serial
    }

    /// Lets the connection have no further requests: it may be dead without knowing.
    pub(in crate::proxy) fn retire(&self) {
        self.0.retired.set(true);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let streams = self.0.streams.get().saturating_sub(1);
        self.0.streams.set(streams);
        if streams == 0 {
            self.0.idle_since.set(Instant::now());
        }
    }
}

/// Sends `request` and waits for the head of its answer.
pub(super) async fn attempt(
    slot: Slot,
    mut request: Request<RequestBody>,
    exchange: &Exchange<'_>,
) -> Attempt {
    if let Err(error) = slot.0.adapt(&mut request, exchange.takes_trailers) {
        return Attempt::Failed(error.into());
    }
    let answer = slot.0.sender.borrow_mut().try_send_request(request);
    match until_head(pin!(answer), exchange).await {
        Err(late) => {
            slot.retire();
            Attempt::Failed(late)
        }
        Ok(Ok(response)) => Attempt::Answered(response, Hold::Http2(slot)),
        Ok(Err(failure)) if failure.message().is_some() => {
            slot.retire();
            Attempt::NotSent(None)
        }
        Ok(Err(failure)) => {
            let error = failure.into_error();
            if cause(&error).is_none_or(|cause| !cause.is_reset()) {
                slot.retire();
            }
            exchange.failed(verdict(&error), &error)
        }
    }
}

/// What HTTP/2 says of a failure; `None` if it is the network's.
fn cause(error: &hyper::Error) -> Option<&h2::Error> {
    error.source().and_then(|source| source.downcast_ref())
}

/// What a failure says about the request.
fn verdict(error: &hyper::Error) -> fn(UpstreamError) -> Attempt {
    let Some(cause) = cause(error) else { return Attempt::Lost };
    let refused = cause.is_reset() && cause.reason() == Some(h2::Reason::REFUSED_STREAM);
    // A stream hears of GOAWAY only if it came after the last that was looked at (RFC 9113 section 6.8).
    if cause.is_remote() && (refused || cause.is_go_away()) {
        return Attempt::Refused;
    }
    // The upstream has answered, or what it says is not HTTP/2.
    if cause.is_reset() || cause.is_library() { Attempt::Failed } else { Attempt::Lost }
}
