//! Callers that keep calling over connections that they keep, and count what fails.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::gateway_config::PASSWORD;
use super::http::{self, Side, basic};

/// Callers at work.
pub struct Load {
    shared: Arc<Shared>,
    callers: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    /// Whether a caller goes home once its connection has ended between two calls.
    last_connection: AtomicBool,
    good: AtomicUsize,
    connections: AtomicUsize,
    told: AtomicUsize,
    failures: Mutex<Vec<String>>,
}

/// How one connection ended.
enum Ended {
    /// By the gateway, between two calls.
    Closed,
    /// We were told to stop.
    Stopped,
}

impl Load {
    /// So many callers call `path` at `address`, as caller `billing`, one call after the other.
    pub fn start(address: SocketAddr, path: &str, callers: usize) -> Self {
        let shared = Arc::new(Shared::default());
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: gateway\r\nAuthorization: {}\r\n\r\n",
            basic("billing", PASSWORD)
        );
        let one = |_| tokio::spawn(call_on_and_on(address, head.clone(), shared.clone()));
        Self { callers: (0..callers).map(one).collect(), shared }
    }

    /// Calls answered with 200 so far.
    pub fn good(&self) -> usize {
        self.shared.good.load(Ordering::SeqCst)
    }

    /// Connections opened so far.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Connections that ended because an answer said so.
    pub fn told(&self) -> usize {
        self.shared.told.load(Ordering::SeqCst)
    }

    /// From now on no caller opens another connection.
    pub fn keep_to_open_connections(&self) {
        self.shared.last_connection.store(true, Ordering::SeqCst);
    }

    /// Has all callers end; fails the test if any call failed. Gives how many were good.
    pub async fn stop(self) -> usize {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.ended().await
    }

    /// Waits until all callers went home by themselves; otherwise as [`Load::stop`].
    pub async fn ended(self) -> usize {
        for caller in self.callers {
            tokio::time::timeout(Duration::from_secs(60), caller).await.expect("it ends").expect("no panic");
        }
        let failures = self.shared.failures.lock();
        let good = self.shared.good.load(Ordering::SeqCst);
        assert!(
            failures.is_empty(),
            "{} of {good} calls failed: {:#?}",
            failures.len(),
            &failures[..failures.len().min(5)]
        );
        good
    }
}

async fn call_on_and_on(address: SocketAddr, head: String, shared: Arc<Shared>) {
    loop {
        match connection(address, &head, &shared).await {
            Ok(Ended::Stopped) => return,
            Ok(Ended::Closed) => {}
            Err(failure) => {
                shared.failures.lock().push(failure);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        if shared.stop.load(Ordering::SeqCst) || shared.last_connection.load(Ordering::SeqCst) {
            return;
        }
    }
}

async fn connection(address: SocketAddr, head: &str, shared: &Shared) -> Result<Ended, String> {
    let stream = TcpStream::connect(address).await.map_err(|error| format!("refused: {error}"))?;
    shared.connections.fetch_add(1, Ordering::SeqCst);
    let _ = stream.set_nodelay(true);
    let mut stream = BufReader::new(stream);
    loop {
        if shared.stop.load(Ordering::SeqCst) {
            return Ok(Ended::Stopped);
        }
        // Closed before anything was asked: nothing failed.
        if is_closed(stream.get_ref()) {
            return Ok(Ended::Closed);
        }
        stream.write_all(head.as_bytes()).await.map_err(|error| format!("not sent: {error}"))?;
        let answer = http::read_message(&mut stream, Side::Client { head: false }).await;
        let answer =
            answer.map_err(|error| format!("broken off: {error}"))?.ok_or("closed without an answer")?;
        if answer.target() != "200" {
            return Err(format!("{}: {}", answer.start, String::from_utf8_lossy(&answer.body)));
        }
        shared.good.fetch_add(1, Ordering::SeqCst);
        if answer.headers.get("connection").is_some_and(|value| value.eq_ignore_ascii_case("close")) {
            shared.told.fetch_add(1, Ordering::SeqCst);
            return Ok(Ended::Closed);
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn is_closed(stream: &TcpStream) -> bool {
    matches!(stream.try_read(&mut [0; 1]), Ok(0))
}
