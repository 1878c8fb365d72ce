//! Whoever issues JWTs to callers: it has one key at a time and shows it at a URL.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use claviger_actors::clock::{Clock as _, SystemClock};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::io::{AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;

use super::http::{self, Side};

/// A running issuer. Ends when it is dropped.
pub struct CallerIssuer {
    /// `iss` of its tokens.
    pub issuer: String,
    address: SocketAddr,
    key: Arc<Mutex<(u32, Ed25519KeyPair)>>,
    fetched: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl CallerIssuer {
    /// Starts it.
    pub async fn start(issuer: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let key = Arc::new(Mutex::new((1, Ed25519KeyPair::generate().expect("a key"))));
        let fetched = Arc::new(AtomicUsize::new(0));
        let (shown, counted) = (key.clone(), fetched.clone());
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let mut stream = BufReader::new(stream);
                while let Ok(Some(_)) = http::read_message(&mut stream, Side::Server).await {
                    counted.fetch_add(1, Ordering::SeqCst);
                    let set = key_set(&shown.lock()).to_string();
                    let json = [("Content-Type", "application/json")];
                    let _ = stream.write_all(&http::response_bytes(200, &json, set.as_bytes())).await;
                }
            }
        });
        Self { issuer: issuer.to_owned(), address, key, fetched, task }
    }

    /// `jwt = { … }` of a caller, with the keys at their URL and `more` keys.
    pub fn caller_toml(&self, audience: &str, more: &str) -> String {
        let (issuer, address) = (&self.issuer, self.address);
        format!(
            "jwt = {{ issuer = \"{issuer}\", audience = \"{audience}\", jwks_uri = \"http://{address}/jwks\"{more} }}"
        )
    }

    /// The key set, as JSON.
    pub fn key_set(&self) -> Value {
        key_set(&self.key.lock())
    }

    /// How often the key set was fetched.
    pub fn fetched(&self) -> usize {
        self.fetched.load(Ordering::SeqCst)
    }

    /// Signs with another key from now on, and shows only that.
    pub fn rotate(&self) {
        let mut key = self.key.lock();
        *key = (key.0 + 1, Ed25519KeyPair::generate().expect("a key"));
    }

    /// A token of audience `claviger` for `subject`, with `others` among its claims; a null takes one out.
    pub fn token(&self, subject: &str, others: &Value) -> String {
        let now = SystemClock.now().as_secs();
        let mut claims =
            json!({ "iss": self.issuer, "aud": "claviger", "sub": subject, "exp": now + 300, "iat": now });
        for (name, value) in others.as_object().expect("an object") {
            match value {
                Value::Null => drop(claims.as_object_mut().expect("an object").remove(name)),
                value => claims[name] = value.clone(),
            }
        }
        let (kid, pair) = &*self.key.lock();
        let message = unsigned(&json!({ "alg": "EdDSA", "kid": kid.to_string() }), &claims);
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(pair.sign(message.as_bytes())))
    }
}

impl Drop for CallerIssuer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Header and claims, and no signature yet.
pub fn unsigned(header: &Value, claims: &Value) -> String {
    format!("{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(claims.to_string()))
}

fn key_set((kid, pair): &(u32, Ed25519KeyPair)) -> Value {
    let x = URL_SAFE_NO_PAD.encode(pair.public_key());
    json!({ "keys": [{ "kty": "OKP", "crv": "Ed25519", "kid": kid.to_string(), "x": x }] })
}
