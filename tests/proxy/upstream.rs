//! An upstream that answers just what it is told.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// One connection that the gateway opened.
pub struct Line {
    stream: TcpStream,
    buffer: Vec<u8>,
    seen: Arc<Mutex<Vec<u8>>>,
}

impl Line {
    async fn more(&mut self) -> bool {
        let mut chunk = [0u8; 16 * 1024];
        let read = self.stream.read(&mut chunk).await.unwrap_or(0);
        self.buffer.extend_from_slice(&chunk[..read]);
        self.seen.lock().extend_from_slice(&chunk[..read]);
        read > 0
    }

    /// The next request's head, without the empty line; `None` at the end of the connection.
    pub async fn head(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                let head: Vec<u8> = self.buffer.drain(..end + 4).take(end + 2).collect();
                return Some(String::from_utf8(head).unwrap());
            }
            if !self.more().await {
                return None;
            }
        }
    }

    /// The next `length` bytes, or fewer if the connection ends.
    pub async fn body(&mut self, length: usize) -> Vec<u8> {
        while self.buffer.len() < length && self.more().await {}
        let length = length.min(self.buffer.len());
        self.buffer.drain(..length).collect()
    }

    /// Everything until nothing comes for `quiet`.
    pub async fn until_quiet(&mut self, quiet: Duration) -> Vec<u8> {
        while let Ok(true) = timeout(quiet, self.more()).await {}
        std::mem::take(&mut self.buffer)
    }

    pub async fn say(&mut self, bytes: impl AsRef<[u8]>) {
        // The gateway may have gone away; tests see that from what it answers.
        let _ = self.stream.write_all(bytes.as_ref()).await;
        let _ = self.stream.flush().await;
    }

    /// Answers 200 with a body.
    pub async fn ok(&mut self, body: &str) {
        self.say(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())).await;
    }

    /// Ends the connection with a reset.
    pub fn reset(self) {
        self.stream.set_zero_linger().unwrap();
    }
}

/// A scripted upstream.
pub struct Upstream {
    pub address: SocketAddr,
    connections: Arc<AtomicUsize>,
    seen: Arc<Mutex<Vec<u8>>>,
}

impl Upstream {
    /// Runs `script` for each connection.
    pub async fn run<F>(script: impl Fn(Line) -> F + 'static) -> Self
    where
        F: Future<Output = ()> + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (counter, record) = (connections.clone(), seen.clone());
        actix_web::rt::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counter.fetch_add(1, Ordering::Relaxed);
                let line = Line { stream, buffer: Vec::new(), seen: record.clone() };
                actix_web::rt::spawn(script(line));
            }
        });
        Self { address, connections, seen }
    }

    /// Answers every request with its own head, as the upstream saw it.
    pub async fn echo() -> Self {
        Self::run(|mut line| async move {
            while let Some(head) = line.head().await {
                line.ok(&head).await;
            }
        })
        .await
    }

    /// Answers every request with the same bytes, and keeps the connection open.
    pub async fn always(answer: &'static str) -> Self {
        Self::run(move |mut line| async move {
            while line.head().await.is_some() {
                line.say(answer).await;
            }
        })
        .await
    }

    /// Answers one request a connection with the same bytes, and closes.
    pub async fn once(answer: &'static str) -> Self {
        Self::run(move |mut line| async move {
            if line.head().await.is_some() {
                line.say(answer).await;
            }
        })
        .await
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// All bytes received so far, on all connections.
    pub fn seen(&self) -> String {
        String::from_utf8_lossy(&self.seen.lock()).into_owned()
    }
}
