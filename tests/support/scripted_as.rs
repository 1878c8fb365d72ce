//! An authorization server whose token endpoint answers what the test says, byte for byte.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::http::{self, Message, Side};

/// What the token endpoint does with one request.
#[derive(Clone, Debug)]
pub enum Answer {
    /// A status, further fields and JSON.
    Json(u16, Vec<(&'static str, &'static str)>, Value),
    /// Any bytes, then the connection closes.
    Raw(Vec<u8>),
    /// A head and then one byte of white space every so often, without end.
    Drip(Duration),
    /// A 200 with a body of so many bytes.
    Huge(usize),
    /// Nothing, for ever.
    Hang,
    /// The connection is reset.
    Reset,
    /// The same answer, later.
    After(Duration, Box<Answer>),
    /// A new access token and a new refresh token. The refresh token last used works until one
    /// issued after it is used, as at servers that let a client repeat a request whose answer was
    /// lost; any older one is `invalid_grant`. So whoever used a token and forgot it is found out.
    Rotate,
    /// As [`Answer::Rotate`], and the answer comes so much later: whoever does not wait has lost it.
    RotateThenWait(Duration),
}

impl Answer {
    /// A 200 with this JSON.
    pub fn ok(value: Value) -> Self {
        Self::Json(200, Vec::new(), value)
    }

    /// An OAuth error (RFC 6749 section 5.2).
    pub fn error(status: u16, code: &str) -> Self {
        Self::Json(status, Vec::new(), json!({ "error": code, "error_description": "as the test wants it" }))
    }

    /// An access token.
    pub fn token(token: &str, seconds: u64) -> Self {
        Self::ok(json!({ "access_token": token, "token_type": "Bearer", "expires_in": seconds }))
    }
}

/// A running scripted authorization server. Ends when it is dropped.
pub struct ScriptedAs {
    /// Where it listens.
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
    task: tokio::task::JoinHandle<()>,
}

struct State {
    script: VecDeque<Answer>,
    otherwise: Answer,
    token_seconds: f64,
    generation: u64,
    last_used: u64,
    requests: Vec<Message>,
    callback: Vec<(String, String)>,
    asked: BTreeMap<String, String>,
    metadata: Option<Value>,
    metadata_requests: usize,
}

impl ScriptedAs {
    /// Starts it; the token endpoint answers [`Answer::Rotate`] until told otherwise.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let state = Arc::new(Mutex::new(State {
            script: VecDeque::new(),
            otherwise: Answer::Rotate,
            token_seconds: 3600.0,
            generation: 0,
            last_used: 0,
            requests: Vec::new(),
            callback: Vec::new(),
            asked: BTreeMap::new(),
            metadata: None,
            metadata_requests: 0,
        }));
        let shared = Arc::clone(&state);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&shared)));
            }
        });
        Self { address, state, task }
    }

    /// The provider table of the gateway's configuration, endpoints by hand.
    pub fn provider_toml(&self) -> String {
        let base = format!("http://{}", self.address);
        format!("authorization_endpoint = \"{base}/authorize\"\ntoken_endpoint = \"{base}/token\"\n")
    }

    /// Publishes metadata (RFC 8414) with these members beside its endpoints, and gives the provider table
    /// that has no more than the issuer.
    pub fn publish(&self, members: &Value) -> String {
        let base = format!("http://{}", self.address);
        let mut document = json!({
            "issuer": base,
            "authorization_endpoint": format!("{base}/authorize"),
            "token_endpoint": format!("{base}/token"),
            "jwks_uri": format!("{base}/jwks"),
        });
        for (name, value) in members.as_object().expect("an object") {
            document[name] = value.clone();
        }
        self.state.lock().metadata = Some(document);
        format!("issuer = \"{base}\"\n")
    }

    /// Requests for metadata so far.
    pub fn metadata_requests(&self) -> usize {
        self.state.lock().metadata_requests
    }

    /// The next token request, after those already scripted, gets this.
    pub fn next(&self, answer: Answer) {
        self.state.lock().script.push_back(answer);
    }

    /// Every token request that is not scripted gets this.
    pub fn otherwise(&self, answer: Answer) {
        self.state.lock().otherwise = answer;
    }

    /// Lifetime of the access tokens of [`Answer::Rotate`].
    pub fn token_seconds(&self, seconds: f64) {
        self.state.lock().token_seconds = seconds;
    }

    /// Token requests so far.
    pub fn count(&self) -> usize {
        self.state.lock().requests.len()
    }

    /// The forms of the token requests, in order.
    pub fn forms(&self) -> Vec<BTreeMap<String, String>> {
        self.state.lock().requests.iter().map(Message::form).collect()
    }

    /// The token requests themselves, in order.
    pub fn requests(&self) -> Vec<Message> {
        self.state.lock().requests.clone()
    }

    /// The browser comes back with these parameters beside `code` and `state`.
    pub fn callback_params(&self, params: &[(&str, &str)]) {
        let params = params.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        self.state.lock().callback = params.collect();
    }

    /// What the browser asked the authorization endpoint for, last.
    pub fn authorization_request(&self) -> BTreeMap<String, String> {
        self.state.lock().asked.clone()
    }

    /// How often [`Answer::Rotate`] rotated.
    pub fn generation(&self) -> u64 {
        self.state.lock().generation
    }

    /// The generations whose tokens [`Answer::Rotate`] still takes to be good.
    pub fn live(&self) -> std::ops::RangeInclusive<u64> {
        let state = self.state.lock();
        state.last_used..=state.generation
    }
}

impl Drop for ScriptedAs {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(stream: TcpStream, state: Arc<Mutex<State>>) {
    let _ = stream.set_nodelay(true);
    let mut stream = BufReader::new(stream);
    while let Ok(Some(request)) = http::read_message(&mut stream, Side::Server).await {
        let go_on = match request.path() {
            "/authorize" => {
                let answer = authorize(&request, &mut state.lock());
                stream.write_all(&answer).await.is_ok()
            }
            path if path.ends_with("/token") => {
                let answer = {
                    let mut state = state.lock();
                    state.requests.push(request.clone());
                    state.script.pop_front().unwrap_or_else(|| state.otherwise.clone())
                };
                perform(&mut stream, &request, &state, answer).await
            }
            "/.well-known/openid-configuration" => {
                let metadata = {
                    let mut state = state.lock();
                    state.metadata_requests += 1;
                    state.metadata.clone()
                };
                let fields = [("Content-Type", "application/json")];
                let answer = match metadata {
                    Some(document) => http::response_bytes(200, &fields, document.to_string().as_bytes()),
                    None => http::response_bytes(404, &[], b""),
                };
                stream.write_all(&answer).await.is_ok()
            }
            _ => stream.write_all(&http::response_bytes(404, &[], b"")).await.is_ok(),
        };
        if !go_on {
            return;
        }
    }
}

/// Sends the browser straight back: this person always consents.
fn authorize(request: &Message, state: &mut State) -> Vec<u8> {
    let query = request.query();
    let mut back = url::Url::parse(&query["redirect_uri"]).expect("a redirect URI");
    back.query_pairs_mut().append_pair("code", "code-of-the-script").append_pair("state", &query["state"]);
    back.query_pairs_mut().extend_pairs(&state.callback);
    state.asked = query;
    http::response_bytes(302, &[("Location", back.as_str())], b"")
}

/// Whether the connection goes on.
async fn perform(
    stream: &mut BufReader<TcpStream>,
    request: &Message,
    state: &Mutex<State>,
    answer: Answer,
) -> bool {
    match answer {
        Answer::Json(status, headers, value) => {
            let headers = [&[("Content-Type", "application/json")], headers.as_slice()].concat();
            let bytes = http::response_bytes(status, &headers, value.to_string().as_bytes());
            stream.write_all(&bytes).await.is_ok()
        }
        Answer::Raw(bytes) => {
            let _ = stream.write_all(&bytes).await;
            let _ = stream.shutdown().await;
            false
        }
        Answer::Drip(every) => {
            let head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n";
            let mut next: &[u8] = head;
            while stream.write_all(next).await.is_ok() {
                tokio::time::sleep(every).await;
                next = b" ";
            }
            false
        }
        Answer::Huge(size) => {
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {size}\r\n\r\n"
            );
            let _ = stream.write_all(head.as_bytes()).await;
            let block = vec![b' '; 64 * 1024];
            let mut left = size;
            while left > 0 {
                let part = left.min(block.len());
                if stream.write_all(&block[..part]).await.is_err() {
                    return false;
                }
                left -= part;
            }
            true
        }
        Answer::Hang => {
            // Until the gateway gives up.
            let _ = stream.read(&mut [0; 1]).await;
            false
        }
        Answer::Reset => {
            let _ = stream.get_ref().set_zero_linger();
            false
        }
        Answer::After(delay, answer) => {
            tokio::time::sleep(delay).await;
            Box::pin(perform(stream, request, state, *answer)).await
        }
        Answer::Rotate => Box::pin(perform(stream, request, state, rotate(request, state))).await,
        Answer::RotateThenWait(wait) => {
            let later = Answer::After(wait, Box::new(rotate(request, state)));
            Box::pin(perform(stream, request, state, later)).await
        }
    }
}

fn rotate(request: &Message, state: &Mutex<State>) -> Answer {
    let (form, mut state) = (request.form(), state.lock());
    if form.get("grant_type").map(String::as_str) == Some("refresh_token") {
        let sent = form.get("refresh_token").and_then(|token| token.strip_prefix("planted-refresh-"));
        match sent.and_then(|number| number.parse::<u64>().ok()) {
            Some(number) if (state.last_used..=state.generation).contains(&number) => {
                state.last_used = number
            }
            _ => return Answer::error(400, "invalid_grant"),
        }
    }
    state.generation += 1;
    Answer::ok(json!({
        "access_token": format!("planted-access-{}", state.generation),
        "refresh_token": format!("planted-refresh-{}", state.generation),
        "token_type": "Bearer",
        "expires_in": state.token_seconds,
    }))
}
