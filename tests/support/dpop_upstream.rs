//! An API that takes DPoP-bound tokens only, and looks closely at every proof (RFC 9449 sections 4.3, 7.1
//! and 9), with another library than the gateway's.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{Jwk, ThumbprintHash};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::io::{AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;

use super::http::{self, Message, Side};

/// A running API. Ends when it is dropped.
pub struct DpopUpstream {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Default)]
struct State {
    address: String,
    /// Where a token's binding is asked for.
    side: String,
    nonce: Option<String>,
    seen: BTreeSet<String>,
    challenges: usize,
    faults: Vec<String>,
    /// Thumbprints of the keys of calls that were served, in order.
    keys: Vec<String>,
    refused: BTreeSet<String>,
}

impl DpopUpstream {
    /// Starts it. `side` says what each token is bound to.
    pub async fn start(side: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let state = State { address: address.to_string(), side: side.to_owned(), ..State::default() };
        let state = Arc::new(Mutex::new(state));
        let shared = Arc::clone(&state);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let shared = Arc::clone(&shared);
                tokio::spawn(async move {
                    let mut stream = BufReader::new(stream);
                    while let Ok(Some(request)) = http::read_message(&mut stream, Side::Server).await {
                        let bytes = answer(&request, &shared).await;
                        if stream.write_all(&bytes).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Self { address, state, task }
    }

    /// Its base URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Demands this nonce from now on.
    pub fn demand(&self, nonce: &str) {
        self.state.lock().nonce = Some(nonce.to_owned());
    }

    /// Answers 401 to this token from now on.
    pub fn refuse(&self, token: &str) {
        self.state.lock().refused.insert(token.to_owned());
    }

    /// How often a nonce was asked for.
    pub fn challenges(&self) -> usize {
        self.state.lock().challenges
    }

    /// The thumbprints of the keys of all calls served, in order.
    pub fn keys(&self) -> Vec<String> {
        self.state.lock().keys.clone()
    }

    /// Fails the test if any proof was at fault.
    pub fn assert_no_fault(&self) {
        let faults = self.state.lock().faults.clone();
        assert!(faults.is_empty(), "{faults:?}");
    }
}

impl Drop for DpopUpstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

enum Verdict {
    Good { key: String, token: String },
    Nonce(String),
    Refused,
    Bad(String),
}

async fn answer(request: &Message, state: &Mutex<State>) -> Vec<u8> {
    match verdict(request, state).await {
        Verdict::Good { key, token } => {
            state.lock().keys.push(key);
            let echo = json!({
                "target": request.target(),
                "token": token,
                "proof": request.headers.get("dpop"),
                "body": String::from_utf8_lossy(&request.body),
            });
            http::response_bytes(200, &[("Content-Type", "application/json")], echo.to_string().as_bytes())
        }
        Verdict::Nonce(nonce) => {
            state.lock().challenges += 1;
            let challenge = "DPoP error=\"use_dpop_nonce\", error_description=\"a nonce is needed\"";
            http::response_bytes(401, &[("WWW-Authenticate", challenge), ("DPoP-Nonce", &nonce)], b"{}")
        }
        Verdict::Refused => {
            let challenge = ("WWW-Authenticate", "DPoP error=\"invalid_token\", algs=\"ES256\"");
            http::response_bytes(401, &[challenge], b"{}")
        }
        Verdict::Bad(fault) => {
            state.lock().faults.push(fault.clone());
            let challenge = ("WWW-Authenticate", "DPoP error=\"invalid_dpop_proof\", algs=\"ES256\"");
            http::response_bytes(400, &[challenge], fault.as_bytes())
        }
    }
}

async fn verdict(request: &Message, state: &Mutex<State>) -> Verdict {
    let (url, side) = {
        let state = state.lock();
        (format!("http://{}{}", state.address, request.path()), state.side.clone())
    };
    let (key, claims, token) = match check(request, &url) {
        Ok(checked) => checked,
        Err(fault) => return Verdict::Bad(fault),
    };
    let query = url::form_urlencoded::Serializer::new(String::new()).append_pair("value", &token).finish();
    let told = http::get(&format!("{side}/test/token?{query}")).send().await.json();
    let mut state = state.lock();
    if !state.seen.insert(claims["jti"].to_string()) {
        return Verdict::Bad("the proof was seen before".to_owned());
    }
    if let Some(nonce) = &state.nonce
        && claims["nonce"] != nonce.as_str()
    {
        return Verdict::Nonce(nonce.clone());
    }
    match told["jkt"].as_str() {
        _ if told["live"] != true || state.refused.contains(&token) => Verdict::Refused,
        Some(bound) if bound == key => Verdict::Good { key, token },
        bound => Verdict::Bad(format!("the token is bound to {bound:?}, the proof is of {key}")),
    }
}

/// The key's thumbprint, the claims and the token of a request whose proof is sound in itself.
fn check(request: &Message, url: &str) -> Result<(String, Value, String), String> {
    let one = |name: &str| match request.headers.all(name).collect::<Vec<_>>()[..] {
        [value] => Ok(value.to_owned()),
        ref values => Err(format!("{} fields {name}", values.len())),
    };
    let (proof, authorization) = (one("dpop")?, one("authorization")?);
    let token = authorization.strip_prefix("DPoP ").ok_or("the scheme is not DPoP")?.to_owned();
    let header = decode_header(&proof).map_err(|error| error.to_string())?;
    if header.typ.as_deref() != Some("dpop+jwt") || header.alg != Algorithm::ES256 {
        return Err(format!("typ {:?}, alg {:?}", header.typ, header.alg));
    }
    let jwk: Jwk = header.jwk.ok_or("no jwk")?;
    let mut validation = Validation::new(Algorithm::ES256);
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    let key = DecodingKey::from_jwk(&jwk).map_err(|error| error.to_string())?;
    let claims = decode::<Value>(&proof, &key, &validation).map_err(|error| error.to_string())?.claims;
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, token.as_bytes());
    let expected = [
        ("htm", request.method().to_owned()),
        ("htu", url.to_owned()),
        ("ath", URL_SAFE_NO_PAD.encode(hash)),
    ];
    for (name, value) in expected {
        if claims[name] != value.as_str() {
            return Err(format!("{name} is {}, not {value}", claims[name]));
        }
    }
    #[expect(clippy::disallowed_methods, reason = "the server's own clock, as the gateway's is real too")]
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let age = claims["iat"].as_u64().map(|iat| now.abs_diff(iat));
    if age.is_none_or(|age| age > 30) {
        return Err(format!("iat is {}", claims["iat"]));
    }
    let thumbprint = jwk.thumbprint(ThumbprintHash::SHA256).map_err(|error| error.to_string())?;
    Ok((thumbprint, claims, token))
}
