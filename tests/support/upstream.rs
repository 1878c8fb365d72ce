//! A real HTTP/1.1 API behind the gateway. It echoes what it got, as late as the query's `wait_ms`
//! says, and refuses tokens as told.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::json;
use tokio::io::{AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::http::{self, Message, Side};

/// A running API. Ends when it is dropped.
pub struct Upstream {
    /// Where it listens.
    pub address: SocketAddr,
    state: Arc<State>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Default)]
struct State {
    calls: AtomicUsize,
    tokens: Mutex<Vec<String>>,
    refused: Mutex<BTreeSet<String>>,
    refuse_all: Mutex<bool>,
    provider: Mutex<Option<String>>,
}

impl Upstream {
    /// Starts it.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&shared)));
            }
        });
        Self { address, state, task }
    }

    /// Its base URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Requests answered so far.
    pub fn calls(&self) -> usize {
        self.state.calls.load(Ordering::SeqCst)
    }

    /// The bearer tokens it was sent, in order.
    pub fn tokens(&self) -> Vec<String> {
        self.state.tokens.lock().clone()
    }

    /// Answers 401 to this token from now on.
    pub fn refuse(&self, token: &str) {
        self.state.refused.lock().insert(token.to_owned());
    }

    /// Answers 401 to every token from now on, or no longer.
    pub fn refuse_all(&self, refuse: bool) {
        *self.state.refuse_all.lock() = refuse;
    }

    /// Answers 401 to tokens that the provider with this issuer says are not live.
    pub fn check_at(&self, issuer: &str) {
        *self.state.provider.lock() = Some(issuer.to_owned());
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(stream: TcpStream, state: Arc<State>) {
    let _ = stream.set_nodelay(true);
    let mut stream = BufReader::new(stream);
    while let Ok(Some(request)) = http::read_message(&mut stream, Side::Server).await {
        let bytes = answer(&request, &state).await;
        if stream.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

async fn answer(request: &Message, state: &State) -> Vec<u8> {
    let token = request
        .headers
        .get("authorization")
        .and_then(|value| value.strip_prefix("Bearer "))
        .unwrap_or_default()
        .to_owned();
    state.calls.fetch_add(1, Ordering::SeqCst);
    state.tokens.lock().push(token.clone());
    if !accepts(&token, state).await {
        let challenge = ("WWW-Authenticate", "Bearer error=\"invalid_token\"");
        return http::response_bytes(401, &[challenge], b"{\"refused\":\"by the upstream\"}");
    }
    if let Some(wait) = request.query().get("wait_ms") {
        tokio::time::sleep(Duration::from_millis(wait.parse().expect("milliseconds"))).await;
    }
    let headers: Vec<_> = request.headers.0.iter().map(|(name, value)| json!([name, value])).collect();
    let echo = json!({
        "method": request.method(),
        "target": request.target(),
        "headers": headers,
        "token": token,
        "body": String::from_utf8_lossy(&request.body),
    });
    http::response_bytes(200, &[("Content-Type", "application/json")], echo.to_string().as_bytes())
}

async fn accepts(token: &str, state: &State) -> bool {
    if token.is_empty() || *state.refuse_all.lock() || state.refused.lock().contains(token) {
        return false;
    }
    let provider = state.provider.lock().clone();
    let Some(issuer) = provider else { return true };
    let query = url::form_urlencoded::Serializer::new(String::new()).append_pair("value", token).finish();
    let told = http::get(&format!("{issuer}/test/token?{query}")).send().await;
    told.json()["live"] == true
}
