//! Accepts connections for the listeners, plain or over TLS, and speaks HTTP on them: HTTP/1.1 by
//! actix, HTTP/2 by hyper where a listener has a handler for it.
//!
//! Sockets are accepted on a thread of their own and dealt out to the workers in turn; a connection
//! then stays on its worker's thread. Reading order: `connection` (what requests can know of theirs),
//! `stream`, `http1` with `parking`, `http2`.

mod application;
mod connection;
mod http1;
mod http2;
mod parking;
mod stream;

use std::fmt;
use std::io;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_http::body::{BoxBody, MessageBody};
use actix_http::{Request, Response};
use actix_server::{Server, ServerBuilder};
use actix_service::{Service, ServiceFactory, fn_factory, fn_service};
use rustls::ServerConfig;
use tokio::net::TcpStream;

use crate::counts::ListenerCounts;
pub use application::application;
pub use connection::{Busy, CallerConnection};
pub use http2::{Http2Body, Http2Handler};
use stream::Opened;

/// A request head must arrive within this, and so must the end of a TLS handshake.
const HEAD_DEADLINE: Duration = Duration::from_secs(5);

/// An idle connection is kept for this.
const KEEP_ALIVE: Duration = Duration::from_secs(75);

/// Gives the TLS configuration that new connections are to use.
#[derive(Clone)]
pub struct TlsSource(Arc<dyn Fn() -> Arc<ServerConfig> + Send + Sync>);

impl TlsSource {
    /// Asked anew for every connection.
    pub fn new(current: impl Fn() -> Arc<ServerConfig> + Send + Sync + 'static) -> Self {
        Self(Arc::new(current))
    }

    fn current(&self) -> Arc<ServerConfig> {
        (self.0)()
    }
}

impl fmt::Debug for TlsSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsSource")
    }
}

/// How a listener takes connections in.
#[derive(Debug)]
pub struct ListenerSettings {
    /// Its name, for the log.
    pub name: &'static str,
    /// Threads that serve.
    pub workers: usize,
    /// TLS, if it is spoken.
    pub tls: Option<TlsSource>,
    /// Whether HTTP/2 with prior knowledge is taken on plain connections (RFC 9113 section 3.3).
    pub h2c: bool,
    /// Time that requests under way have to end once the listener is told to stop.
    pub drain: Duration,
    /// Where its connections are counted.
    pub counts: Arc<ListenerCounts>,
}

/// What answers the requests of one worker.
pub struct Handlers<S> {
    /// HTTP/1.1, as a service of actix.
    pub http1: S,
    /// HTTP/2; without it the listener speaks HTTP/1.1 only.
    pub http2: Option<Http2Handler>,
}

impl<S> fmt::Debug for Handlers<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handlers").field("http2", &self.http2.is_some()).finish_non_exhaustive()
    }
}

/// Starts a listener on `socket`. `handlers` is called on each worker's own thread.
///
/// # Errors
/// The operating system's.
pub fn listen<S, B>(
    socket: TcpListener,
    settings: ListenerSettings,
    handlers: impl Fn() -> Handlers<S> + Send + Clone + 'static,
) -> io::Result<Server>
where
    S: ServiceFactory<Request, Config = ()> + 'static,
    S::Future: 'static,
    S::Error: Into<Response<BoxBody>>,
    S::InitError: fmt::Debug,
    S::Response: Into<Response<B>>,
    S::Service: 'static,
    <S::Service as Service<Request>>::Future: 'static,
    B: MessageBody + 'static,
{
    let builder = ServerBuilder::new()
        .workers(settings.workers)
        .disable_signals()
        .shutdown_timeout(settings.drain.as_secs());
    let stopping = builder.graceful_shutdown_signal();
    let ListenerSettings { name, tls, h2c, counts, .. } = settings;
    let factory = move || {
        let (handlers, stopping) = (handlers.clone(), stopping.clone());
        let (tls, counts) = (tls.clone(), counts.clone());
        fn_factory(move || {
            let Handlers { http1, http2 } = handlers();
            let (tls, stopping, counts) = (tls.clone(), stopping.clone(), counts.clone());
            let http1 = http1::service(http1, stopping.clone()).new_service(());
            async move {
                let worker = Rc::new(Worker { http1: http1.await?, http2, tls, h2c, counts, stopping });
                Ok::<_, ()>(fn_service(move |stream: TcpStream| {
                    let worker = worker.clone();
                    async move {
                        worker.serve(stream).await;
                        Ok::<_, ()>(())
                    }
                }))
            }
        })
    };
    Ok(builder.listen(name, socket, factory)?.run())
}

/// One worker's side of a listener.
struct Worker<H> {
    http1: H,
    http2: Option<Http2Handler>,
    tls: Option<TlsSource>,
    h2c: bool,
    counts: Arc<ListenerCounts>,
    stopping: actix_server::GracefulShutdownSignal,
}

impl<H: http1::Http1> Worker<H> {
    async fn serve(&self, socket: TcpStream) {
        let _open = self.counts.open();
        // Small writes must not wait for the acknowledgement of earlier ones.
        if socket.set_nodelay(true).is_err() {
            return;
        }
        let h2c = self.h2c && self.http2.is_some();
        let opened = match &self.tls {
            // Boxed as what is large and soon over: an idle connection is to be small.
            None => Box::pin(Opened::plain(socket, h2c)).await,
            Some(tls) => Box::pin(Opened::tls(socket, tls.current())).await,
        };
        match (opened, &self.http2) {
            (Ok(Opened::Http2(stream)), Some(handler)) => {
                Box::pin(http2::serve(stream, handler.clone(), &self.stopping)).await;
            }
            (Ok(Opened::Http1(stream)), _) => {
                Box::pin(http1::serve(&self.http1, stream, &self.stopping)).await;
            }
            (Ok(Opened::Http2(_)), None) => {}
            (Err(error), _) => {
                if self.tls.is_some() {
                    self.counts.handshake_failed();
                }
                tracing::debug!(%error, "a connection was not opened");
            }
        }
    }
}

#[cfg(test)]
mod tests;
