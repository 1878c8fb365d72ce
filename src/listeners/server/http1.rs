//! HTTP/1.1, by actix.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use actix_http::body::{BoxBody, MessageBody};
use actix_http::{HttpService, Request, Response};
use actix_server::GracefulShutdownSignal;
use actix_service::{Service, ServiceFactory};

use super::parking::{Ended, until_idle};
use super::stream::CallerStream;
use super::{HEAD_DEADLINE, KEEP_ALIVE};

/// A connection that ends is read from for so long, so that a caller that still sends gets to see its
/// answer.
const FAREWELL: Duration = Duration::from_secs(1);

/// Speaks HTTP/1.1 on a connection.
pub(super) trait Http1:
    Service<(CallerStream, Option<SocketAddr>), Response = (), Error = Self::Fault>
{
    /// Why a connection ended.
    type Fault: fmt::Display;
}

impl<H> Http1 for H
where
    H: Service<(CallerStream, Option<SocketAddr>), Response = ()>,
    H::Error: fmt::Display,
{
    type Fault = H::Error;
}

/// Makes what speaks HTTP/1.1 on a worker's connections and has `service` answer. Requests find their
/// [`CallerConnection`](super::CallerConnection) in their connection's data.
pub(super) fn service<S, B>(
    service: S,
    stopping: GracefulShutdownSignal,
) -> impl ServiceFactory<(CallerStream, Option<SocketAddr>), Config = (), InitError = (), Service: Http1>
where
    S: ServiceFactory<Request, Config = ()> + 'static,
    S::Future: 'static,
    S::Error: Into<Response<BoxBody>>,
    S::InitError: fmt::Debug,
    S::Response: Into<Response<B>>,
    <S::Service as Service<Request>>::Future: 'static,
    B: MessageBody + 'static,
{
    HttpService::build()
        .keep_alive(KEEP_ALIVE)
        .client_request_timeout(HEAD_DEADLINE)
        .client_disconnect_timeout(FAREWELL)
        .graceful_shutdown_signal(move || {
            let stopping = stopping.clone();
            async move { stopping.notified().await }
        })
        .on_connect_ext(|stream: &CallerStream, data| {
            data.insert(stream.connection().clone());
        })
        .h1(service)
}

/// Serves a connection until it ends. While it lies idle, only its socket is kept.
pub(super) async fn serve<H: Http1>(http1: &H, stream: CallerStream, stopping: &GracefulShutdownSignal) {
    let peer = stream.connection().peer;
    loop {
        let speaking = Box::pin(http1.call((stream.clone(), peer)));
        match until_idle(speaking, &stream).await {
            Ended::Closed(Ok(())) => return,
            Ended::Closed(Err(error)) => {
                tracing::debug!(%error, "a caller's connection ended");
                return;
            }
            Ended::Idle => {}
        }
        if !is_taken_up_again(&stream, stopping).await {
            return;
        }
    }
}

/// Waits for the next request on an idle connection.
async fn is_taken_up_again(stream: &CallerStream, stopping: &GracefulShutdownSignal) -> bool {
    tokio::select! {
        biased;
        more = tokio::time::timeout(KEEP_ALIVE, stream.has_more()) => more.unwrap_or(false),
        () = stopping.notified() => false,
    }
}
