//! The bytes of a caller's connection, whatever carries them.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::HEAD_DEADLINE;
use super::connection::CallerConnection;
use crate::caller_auth::PeerCertificate;

/// What HTTP/2 connections begin with (RFC 9113 section 3.4): so much of it tells them from HTTP/1.1.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The name of HTTP/2 over TLS in ALPN (RFC 9113 section 3.2).
const H2: &[u8] = b"h2";
/// The end of a message: of a head, and of a chunked body.
const END: [u8; 4] = *b"\r\n\r\n";

/// A connection, and what is spoken on it.
pub(super) enum Opened {
    Http1(CallerStream),
    Http2(CallerStream),
}

impl Opened {
    /// A plain connection. With `h2c` its first bytes tell what is spoken.
    pub(super) async fn plain(socket: TcpStream, h2c: bool) -> io::Result<Self> {
        let http2 = h2c && timeout(HEAD_DEADLINE, begins_with_preface(&socket)).await??;
        let connection = CallerConnection::new(socket.peer_addr().ok(), false, None);
        let stream = CallerStream::new(Socket::Plain(socket), connection);
        Ok(if http2 { Self::Http2(stream) } else { Self::Http1(stream) })
    }

    /// A connection over TLS; ALPN tells what is spoken (RFC 7301).
    pub(super) async fn tls(socket: TcpStream, config: Arc<ServerConfig>) -> io::Result<Self> {
        let peer = socket.peer_addr().ok();
        let stream = timeout(HEAD_DEADLINE, TlsAcceptor::from(config).accept(socket)).await??;
        let session = stream.get_ref().1;
        let http2 = session.alpn_protocol() == Some(H2);
        let connection = CallerConnection::new(peer, true, PeerCertificate::of(session));
        let stream = CallerStream::new(Socket::Tls(Box::new(stream)), connection);
        Ok(if http2 { Self::Http2(stream) } else { Self::Http1(stream) })
    }
}

/// Whether the connection begins as HTTP/2 does. Nothing is taken from it.
async fn begins_with_preface(socket: &TcpStream) -> io::Result<bool> {
    let mut seen = [0; PREFACE.len()];
    loop {
        let length = socket.peek(&mut seen).await?;
        if length == 0 || seen[..length] != PREFACE[..length] {
            return Ok(false);
        }
        if length == PREFACE.len() {
            return Ok(true);
        }
        // Peeking does not wait for more than there is; this is rare, and has a deadline.
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

enum Socket {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// A caller's connection. Clones share it, so that it outlives whoever speaks HTTP on it.
#[derive(Clone)]
pub(super) struct CallerStream(Rc<Shared>);

struct Shared {
    socket: RefCell<Socket>,
    connection: Rc<CallerConnection>,
    io: Io,
}

/// How reading and writing went last.
#[derive(Default)]
struct Io {
    /// The last bytes read.
    tail: Cell<[u8; 4]>,
    /// Nothing more could be read.
    drained: Cell<bool>,
    /// Nothing more could be written.
    blocked: Cell<bool>,
}

impl CallerStream {
    fn new(socket: Socket, connection: CallerConnection) -> Self {
        let (socket, connection) = (RefCell::new(socket), Rc::new(connection));
        Self(Rc::new(Shared { socket, connection, io: Io::default() }))
    }

    /// The connection, as its requests know it.
    pub(super) fn connection(&self) -> &Rc<CallerConnection> {
        &self.0.connection
    }

    /// Whether it lies between messages: whoever spoke HTTP on it can be replaced and nothing is lost.
    ///
    /// All that was begun is answered, all that was written is sent, and the last bytes read ended a
    /// message. What could still lie in a buffer then are empty lines, which mean nothing before a
    /// request (RFC 9112 section 2.2): a whole message would have been begun.
    pub(super) fn is_between_messages(&self) -> bool {
        let io = &self.0.io;
        io.drained.get() && !io.blocked.get() && io.tail.get() == END
    }

    /// Waits until there is something to read; false if the caller closed the connection.
    pub(super) async fn has_more(&self) -> bool {
        std::future::poll_fn(|cx| match &mut *self.0.socket.borrow_mut() {
            Socket::Plain(socket) => {
                let mut byte = [0; 1];
                let peeked = ready!(socket.poll_peek(cx, &mut ReadBuf::new(&mut byte)));
                Poll::Ready(peeked.is_ok_and(|length| length > 0))
            }
            Socket::Tls(stream) => stream.get_ref().0.poll_read_ready(cx).map(|ready| ready.is_ok()),
        })
        .await
    }

    fn note_read(&self, bytes: &[u8]) {
        let mut tail = self.0.io.tail.get();
        if let Some(last) = bytes.last_chunk::<4>() {
            tail = *last;
        } else {
            for byte in bytes {
                tail.rotate_left(1);
                tail[3] = *byte;
            }
        }
        self.0.io.tail.set(tail);
    }

    fn with<R>(&self, act: impl FnOnce(Pin<&mut dyn Both>) -> R) -> R {
        match &mut *self.0.socket.borrow_mut() {
            Socket::Plain(socket) => act(Pin::new(socket)),
            Socket::Tls(stream) => act(Pin::new(&mut **stream)),
        }
    }

    fn note_written<T>(&self, written: Poll<T>) -> Poll<T> {
        self.0.io.blocked.set(written.is_pending());
        written
    }
}

trait Both: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Both for T {}

impl AsyncRead for CallerStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = self.with(|socket| socket.poll_read(cx, buf));
        self.0.io.drained.set(read.is_pending());
        if read.is_ready() {
            self.note_read(&buf.filled()[before..]);
        }
        read
    }
}

impl AsyncWrite for CallerStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = self.with(|socket| socket.poll_write(cx, bytes));
        self.note_written(written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = self.with(|socket| socket.poll_write_vectored(cx, bytes));
        self.note_written(written)
    }

    fn is_write_vectored(&self) -> bool {
        matches!(&*self.0.socket.borrow(), Socket::Plain(_))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = self.with(|socket| socket.poll_flush(cx));
        self.note_written(flushed)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|socket| socket.poll_shutdown(cx))
    }
}
