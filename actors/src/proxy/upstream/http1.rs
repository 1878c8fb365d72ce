//! HTTP/1.1: one exchange at a time on a connection.

use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};

use http::header::{CONNECTION, HeaderMap, HeaderValue, UPGRADE};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Attempt, Exchange, UpstreamPool, until_head};
use crate::proxy::body::RequestBody;
use crate::proxy::connect::{Way, speak_http};
use crate::proxy::error::UpstreamError;
use crate::proxy::response::Hold;

/// Sends one request after the other.
pub(in crate::proxy) type Sender = SendRequest<RequestBody>;

/// Speaks HTTP/1.1 on `way`, driven by a task of its own.
pub(super) async fn start(way: Way, may_switch: bool) -> io::Result<Sender> {
    match way {
        Way::Plain(stream) => drive(stream, may_switch).await,
        Way::Tls(stream) => drive(stream, may_switch).await,
    }
}

async fn drive<T>(stream: T, may_switch: bool) -> io::Result<Sender>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = speak_http(stream).await.map_err(io::Error::other)?;
    tokio::task::spawn_local(async move {
        let ended = if may_switch { connection.with_upgrades().await } else { connection.await };
        if let Err(error) = ended {
            tracing::debug!(%error, "upstream connection ended");
        }
    });
    Ok(sender)
}

/// Sends `request` and waits for the head of its answer.
pub(super) async fn attempt(
    pool: &Rc<UpstreamPool>,
    mut sender: Sender,
    mut request: Request<RequestBody>,
    exchange: &Exchange<'_>,
) -> Attempt {
    if let Some(protocol) = exchange.upgrade {
        request.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        request.headers_mut().insert(UPGRADE, protocol.clone());
    }
    let answer = pin!(sender.try_send_request(request));
    match until_head(answer, exchange).await {
        Err(late) => Attempt::Failed(late),
        Ok(Ok(response)) => {
            let hold = match exchange.upgrade {
                Some(_) => Hold::Once { _sender: sender },
                None => Hold::Http1 { pool: pool.clone(), identity: exchange.identity(), sender },
            };
            Attempt::Answered(response, hold)
        }
        Ok(Err(mut failure)) => match failure.take_message() {
            Some(request) => Attempt::NotSent(Some(request)),
            None => {
                let error = failure.into_error();
                let otherwise = if error.is_parse() { Attempt::Failed } else { Attempt::Lost };
                exchange.failed(otherwise, &error)
            }
        },
    }
}

/// Whether an answer with status 101 switches to the protocol that was asked for.
pub(super) fn check_upgrade(response: &Response<Incoming>, asked: &HeaderValue) -> Result<(), &'static str> {
    let named = |headers: &HeaderMap, name| {
        let mut values = headers.get_all(name).iter();
        values.next().filter(|_| values.next().is_none()).map(|value| value.as_bytes().to_ascii_lowercase())
    };
    if named(response.headers(), UPGRADE) != Some(asked.as_bytes().to_ascii_lowercase()) {
        return Err("it switched to another protocol than was asked for");
    }
    Ok(())
}

/// The bytes that follow the head of an answer with status 101.
pub(super) async fn upgraded(
    response: &mut Response<Incoming>,
    exchange: &Exchange<'_>,
) -> Result<Upgraded, UpstreamError> {
    let upgraded = until_head(pin!(hyper::upgrade::on(response)), exchange).await?;
    let upgraded = upgraded.map_err(|error| UpstreamError::broken(exchange.origin, &error))?;
    Ok(Upgraded(TokioIo::new(upgraded)))
}

/// A connection on which another protocol is spoken now (RFC 9110 section 7.8), from the first byte after
/// the head of the answer on. Dropped, it is closed.
#[derive(Debug)]
pub struct Upgraded(TokioIo<hyper::upgrade::Upgraded>);

impl AsyncRead for Upgraded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, into)
    }
}

impl AsyncWrite for Upgraded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, from)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, from)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }
}
