//! A connection on which another protocol than HTTP is spoken now, from the caller to the upstream and
//! back (RFC 9110 section 7.8). Bytes pass as they are.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use actix_http::Payload;
use bytes::{Bytes, BytesMut};
use claviger_actors::proxy::upstream::Upgraded;
use futures_util::StreamExt as _;
use tokio::io::{AsyncRead as _, AsyncWriteExt as _, ReadBuf, ReadHalf, WriteHalf};
use tokio::task::JoinHandle;

use super::load::UnderWay;

/// Most bytes read from the upstream at a time.
const CHUNK: usize = 16 * 1024;

/// The upstream's side of a tunnel, as the body of the answer that opened it. Dropped, it is closed.
pub(super) struct Tunnel {
    from_upstream: ReadHalf<Upgraded>,
    buffer: BytesMut,
    to_upstream: JoinHandle<()>,
    in_flight: UnderWay,
}

impl Tunnel {
    /// Opens it: from now on what `caller` sends goes to `upstream`, as fast as that takes it.
    pub(super) fn open(upstream: Upgraded, caller: Payload, in_flight: UnderWay) -> Self {
        let (from_upstream, to_upstream) = tokio::io::split(upstream);
        let to_upstream = tokio::task::spawn_local(async move {
            if let Err(error) = pass_on(caller, to_upstream).await {
                tracing::debug!(%error, "a tunnel ended");
            }
        });
        Self { from_upstream, buffer: BytesMut::new(), to_upstream, in_flight }
    }

    /// The upstream's next bytes.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        if let Poll::Ready(over) = self.in_flight.poll_over(cx) {
            return Poll::Ready(Some(Err(io::Error::other(over))));
        }
        if self.buffer.len() < CHUNK {
            self.buffer.resize(CHUNK, 0);
        }
        let mut read = ReadBuf::new(&mut self.buffer);
        ready!(Pin::new(&mut self.from_upstream).poll_read(cx, &mut read))?;
        let length = read.filled().len();
        Poll::Ready((length > 0).then(|| Ok(self.buffer.split_to(length).freeze())))
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.to_upstream.abort();
    }
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tunnel")
    }
}

async fn pass_on(mut caller: Payload, mut upstream: WriteHalf<Upgraded>) -> io::Result<()> {
    while let Some(chunk) = caller.next().await {
        upstream.write_all(&chunk.map_err(io::Error::other)?).await?;
        upstream.flush().await?;
    }
    upstream.shutdown().await
}
