//! HTTP/2, frame by frame.

use tokio::net::TcpStream;

use super::*;

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const GOAWAY: u8 = 7;
pub(super) const END_STREAM: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;

pub(super) const NO_ERROR: u32 = 0;
pub(super) const INTERNAL_ERROR: u32 = 2;
pub(super) const REFUSED_STREAM: u32 = 7;
pub(super) const CANCEL: u32 = 8;

/// A server's end of a connection.
pub(super) struct Peer(TcpStream);

#[derive(Debug)]
pub(super) struct Received {
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
}

impl Peer {
    pub(super) async fn accept(listener: &TcpListener) -> Self {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut preface = [0; 24];
        stream.read_exact(&mut preface).await.unwrap();
        assert_eq!(&preface, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        let mut peer = Self(stream);
        peer.send(SETTINGS, 0, 0, &[]).await;
        peer
    }

    /// The next frame; nothing once the client has closed the connection.
    pub(super) async fn receive(&mut self) -> Option<Received> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).await.ok()?;
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let mut payload = vec![0; length];
        self.0.read_exact(&mut payload).await.ok()?;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        Some(Received { kind: head[3], flags: head[4], stream })
    }

    /// Waits for the end of a request, and says which stream it came on.
    pub(super) async fn request(&mut self) -> u32 {
        loop {
            let frame = self.receive().await.expect("a request");
            if matches!(frame.kind, HEADERS | DATA) && frame.flags & END_STREAM != 0 {
                return frame.stream;
            }
        }
    }

    pub(super) async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let mut frame = Vec::from(&u32::try_from(payload.len()).unwrap().to_be_bytes()[1..]);
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        let _ = self.0.write_all(&frame).await;
    }

    /// The head of an answer with status 200.
    pub(super) async fn head(&mut self, stream: u32) {
        self.send(HEADERS, END_HEADERS, stream, &[0x88]).await;
    }

    pub(super) async fn answer(&mut self, stream: u32) {
        self.head(stream).await;
        self.send(DATA, END_STREAM, stream, b"ok").await;
    }

    pub(super) async fn reset(&mut self, stream: u32, reason: u32) {
        self.send(RST_STREAM, 0, stream, &reason.to_be_bytes()).await;
    }

    pub(super) async fn go_away(&mut self, last: u32, reason: u32) {
        self.send(GOAWAY, 0, 0, &[last.to_be_bytes(), reason.to_be_bytes()].concat()).await;
    }
}
