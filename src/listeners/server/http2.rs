//! HTTP/2, by hyper (RFC 9113).

use std::cell::Cell;
use std::convert::Infallible;
use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::time::Duration;

use actix_server::GracefulShutdownSignal;
use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::http2::Builder;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::time::{Instant, sleep};

use super::KEEP_ALIVE;
use super::connection::CallerConnection;
use super::stream::CallerStream;

/// Requests at a time on one connection.
const MAX_STREAMS: u32 = 128;
/// Largest head of a request, as the list of its fields counts (RFC 9113 section 6.5.2).
const MAX_HEAD: u32 = 64 * 1024;
/// What a caller may send of one body before it is read.
const STREAM_WINDOW: u32 = 128 * 1024;
/// The same for a connection: bodies that nobody reads hold up no other.
const CONNECTION_WINDOW: u32 = STREAM_WINDOW * MAX_STREAMS;
/// Bytes of an answer that may wait for the caller.
const SEND_BUFFER: usize = 256 * 1024;
/// A silent caller with requests under way is asked whether it is still there, and has so long.
const PING_AFTER: Duration = Duration::from_secs(30);
const PONG_WITHIN: Duration = Duration::from_secs(20);
/// How often an idle connection is looked at.
const LOOK: Duration = Duration::from_secs(15);

/// The body of an answer.
pub type Http2Body = Pin<Box<dyn Body<Data = Bytes, Error = Box<dyn std::error::Error + Send + Sync>>>>;

/// Answers a request.
pub type Http2Handler =
    Rc<dyn Fn(Request<Incoming>, Rc<CallerConnection>) -> LocalBoxFuture<'static, Response<Http2Body>>>;

/// Runs tasks on the thread of the connection.
#[derive(Clone, Copy)]
struct SameThread;

impl<F: Future + 'static> Executor<F> for SameThread {
    fn execute(&self, task: F) {
        tokio::task::spawn_local(async move {
            task.await;
        });
    }
}

/// When requests were under way last.
struct Use {
    under_way: Cell<usize>,
    last: Cell<Instant>,
}

struct InUse(Rc<Use>);

impl InUse {
    fn begin(usage: &Rc<Use>) -> Self {
        usage.under_way.set(usage.under_way.get() + 1);
        Self(usage.clone())
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.0.under_way.set(self.0.under_way.get() - 1);
        self.0.last.set(Instant::now());
    }
}

/// Serves a connection until it ends, is idle for too long, or the listener stops.
pub(super) async fn serve(stream: CallerStream, handler: Http2Handler, stopping: &GracefulShutdownSignal) {
    let connection = stream.connection().clone();
    let usage = Rc::new(Use { under_way: Cell::new(0), last: Cell::new(Instant::now()) });
    let counted = usage.clone();
    let service = service_fn(move |request| {
        let in_use = InUse::begin(&counted);
        let answer = handler(request, connection.clone());
        async move {
            let answer = answer.await;
            Ok::<_, Infallible>(answer.map(|body| Counted { body, _in_use: in_use }))
        }
    });
    let speaking = Builder::new(SameThread)
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEAD)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(PING_AFTER)
        .keep_alive_timeout(PONG_WITHIN)
        .serve_connection(TokioIo::new(stream), service);
    let (mut speaking, mut stop) = (pin!(speaking), pin!(stopping.notified()));
    let mut told = false;
    loop {
        tokio::select! {
            biased;
            ended = speaking.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a caller's connection ended");
                }
                return;
            }
            () = stop.as_mut(), if !told => {
                told = true;
                speaking.as_mut().graceful_shutdown();
            }
            () = sleep(LOOK) => {
                if usage.under_way.get() == 0 && usage.last.get().elapsed() >= KEEP_ALIVE {
                    // It was told before, and does not go by itself.
                    if told {
                        return;
                    }
                    told = true;
                    speaking.as_mut().graceful_shutdown();
                }
            }
        }
    }
}

/// A body whose request is under way until it is dropped.
struct Counted {
    body: Http2Body,
    _in_use: InUse,
}

impl Body for Counted {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
        self.body.as_mut().poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}
