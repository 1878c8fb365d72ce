//! An upstream that says any bytes, and remembers every byte it was sent.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A running upstream. Ends when it is dropped.
pub struct RawUpstream {
    /// Where it listens.
    pub address: SocketAddr,
    connections: Arc<AtomicUsize>,
    received: Arc<Mutex<Vec<u8>>>,
    task: JoinHandle<()>,
}

/// One connection to it.
pub struct Peer {
    /// The socket itself.
    pub stream: TcpStream,
    unread: Vec<u8>,
    received: Arc<Mutex<Vec<u8>>>,
}

impl RawUpstream {
    /// Starts it; `behave` is run for each connection and closes it by returning.
    pub async fn start<F, Fut>(behave: F) -> Self
    where
        F: Fn(Peer) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let connections = Arc::new(AtomicUsize::new(0));
        let received = Arc::new(Mutex::new(Vec::new()));
        let (counter, memory) = (Arc::clone(&connections), Arc::clone(&received));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counter.fetch_add(1, Ordering::SeqCst);
                let _ = stream.set_nodelay(true);
                let received = Arc::clone(&memory);
                tokio::spawn(behave(Peer { stream, unread: Vec::new(), received }));
            }
        });
        Self { address, connections, received, task }
    }

    /// Starts one that answers every request head with `answer`, byte for byte, and closes if told.
    pub async fn answering(answer: &'static [u8], close: bool) -> Self {
        Self::start(move |mut peer| async move {
            while peer.head().await.is_some() {
                peer.say(answer).await;
                if close {
                    return;
                }
            }
        })
        .await
    }

    /// Connections so far.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Every byte it was sent, of all connections, as text.
    pub fn received(&self) -> String {
        String::from_utf8_lossy(&self.received.lock()).into_owned()
    }
}

impl Drop for RawUpstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Peer {
    /// The next request head, or `None` once the gateway has closed.
    pub async fn head(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.unread.windows(4).position(|window| window == b"\r\n\r\n") {
                let head: Vec<u8> = self.unread.drain(..end + 4).collect();
                return Some(String::from_utf8_lossy(&head).into_owned());
            }
            self.more().await?;
        }
    }

    /// The next `length` bytes of a body.
    pub async fn body(&mut self, length: usize) -> Option<String> {
        while self.unread.len() < length {
            self.more().await?;
        }
        let body: Vec<u8> = self.unread.drain(..length).collect();
        Some(String::from_utf8_lossy(&body).into_owned())
    }

    /// Everything up to these bytes, if nothing is sent after them.
    pub async fn until(&mut self, end: &str) -> Option<String> {
        while !self.unread.ends_with(end.as_bytes()) {
            self.more().await?;
        }
        Some(String::from_utf8_lossy(&std::mem::take(&mut self.unread)).into_owned())
    }

    /// Sends these bytes; a gateway that is gone does not matter.
    pub async fn say(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref()).await;
        let _ = self.stream.flush().await;
    }

    async fn more(&mut self) -> Option<()> {
        let mut block = [0; 8192];
        let length = self.stream.read(&mut block).await.ok().filter(|length| *length > 0)?;
        self.received.lock().extend_from_slice(&block[..length]);
        self.unread.extend_from_slice(&block[..length]);
        Some(())
    }
}
