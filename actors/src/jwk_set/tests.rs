#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::atomic::{AtomicU16, Ordering};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::*;
use crate::protocol::id_token::{self, IdTokenChecks, IdTokenClaims};
use crate::protocol::secret::Secret;
use crate::testing::{Answer, ScriptedTransport, profiles};

const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);
const JWKS: &str = "https://as.example/jwks";

/// A server with one key at a time, and whatever status it is told.
struct Server {
    key: Arc<Mutex<(String, Ed25519KeyPair)>>,
    status: Arc<AtomicU16>,
    scripted: Arc<ScriptedTransport>,
    transport: Arc<dyn Transport>,
}

impl Server {
    fn new() -> Self {
        let key = Arc::new(Mutex::new(("k1".to_owned(), Ed25519KeyPair::generate().unwrap())));
        let status = Arc::new(AtomicU16::new(200));
        let (shown, answered) = (key.clone(), status.clone());
        let scripted = ScriptedTransport::new(move |_| {
            let (kid, pair) = &*shown.lock();
            let x = URL_SAFE_NO_PAD.encode(pair.public_key());
            let jwk = json!({"kty": "OKP", "crv": "Ed25519", "kid": kid, "x": x});
            Answer::json(answered.load(Ordering::SeqCst), json!({ "keys": [jwk] }))
        });
        Self { key, status, transport: scripted.clone(), scripted }
    }

    fn rotate(&self, kid: &str) {
        *self.key.lock() = (kid.to_owned(), Ed25519KeyPair::generate().unwrap());
    }

    fn sign(&self, now: Timestamp) -> Secret {
        let (kid, pair) = &*self.key.lock();
        let b64 = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let now = now.as_secs();
        let claims =
            json!({"iss": "https://as.example", "sub": "1", "aud": "c", "exp": now + 60, "iat": now});
        let message = format!("{}.{}", b64(json!({"alg": "EdDSA", "kid": kid})), b64(claims));
        let signature = pair.sign(message.as_bytes());
        Secret::new(format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    async fn verify(
        &self,
        cache: &JwkSetCache,
        token: &Secret,
        now: Timestamp,
    ) -> Result<IdTokenClaims, VerifyError<IdTokenError>> {
        let checks = IdTokenChecks {
            issuer: "https://as.example",
            client_id: "c",
            nonce: None,
            allowed_algs: &["EdDSA".to_owned()],
            access_token: None,
            now,
        };
        let verify = |keys: &JwkSetView| id_token::verify(token, keys, &checks);
        cache.verify(&self.transport, &profiles::url(JWKS), now, verify).await
    }
}

fn later(seconds: u64) -> Timestamp {
    NOW.after(Duration::from_secs(seconds))
}

#[tokio::test(start_paused = true)]
async fn keys_are_fetched_once_and_kept_for_an_hour() {
    let (server, cache) = (Server::new(), JwkSetCache::new());
    for seconds in [0, 1, 3599] {
        assert!(server.verify(&cache, &server.sign(later(seconds)), later(seconds)).await.is_ok());
    }
    assert_eq!(server.scripted.count(), 1);
    assert!(server.verify(&cache, &server.sign(later(3600)), later(3600)).await.is_ok());
    assert_eq!(server.scripted.count(), 2);
    let sent = &server.scripted.sent()[0];
    assert_eq!((sent.method.as_str(), sent.url.as_str(), sent.max_body), ("GET", JWKS, MAX_BODY));
}

#[tokio::test(start_paused = true)]
async fn an_unknown_key_has_the_set_fetched_anew() {
    let (server, cache) = (Server::new(), JwkSetCache::new());
    assert!(server.verify(&cache, &server.sign(NOW), NOW).await.is_ok());
    server.rotate("k2");
    assert!(server.verify(&cache, &server.sign(later(10)), later(10)).await.is_ok());
    assert_eq!(server.scripted.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn tokens_with_unknown_keys_cause_at_most_one_request_a_minute() {
    let (server, cache) = (Server::new(), JwkSetCache::new());
    assert!(server.verify(&cache, &server.sign(NOW), NOW).await.is_ok());
    let stranger = Server::new();
    stranger.rotate("stranger");
    for seconds in 10..70 {
        let verdict = server.verify(&cache, &stranger.sign(NOW), later(seconds)).await;
        assert!(matches!(verdict, Err(VerifyError::Token(IdTokenError::UnknownKey))), "{verdict:?}");
    }
    assert_eq!(server.scripted.count(), 2);
    assert!(server.verify(&cache, &stranger.sign(NOW), later(70)).await.is_err());
    assert_eq!(server.scripted.count(), 3);
}

#[tokio::test(start_paused = true)]
async fn keys_that_were_just_fetched_are_not_fetched_again() {
    let (server, stranger, cache) = (Server::new(), Server::new(), JwkSetCache::new());
    stranger.rotate("stranger");
    assert!(server.verify(&cache, &stranger.sign(NOW), NOW).await.is_err());
    assert_eq!(server.scripted.count(), 1);
    assert!(server.verify(&cache, &stranger.sign(NOW), later(5)).await.is_err());
    assert_eq!(server.scripted.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_wrong_signature_fetches_nothing() {
    let (server, cache) = (Server::new(), JwkSetCache::new());
    assert!(server.verify(&cache, &server.sign(NOW), NOW).await.is_ok());
    let forged = Server::new().sign(NOW);
    let verdict = server.verify(&cache, &forged, later(100)).await;
    assert!(matches!(verdict, Err(VerifyError::Token(IdTokenError::Signature))), "{verdict:?}");
    assert_eq!(server.scripted.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_remembered_for_five_seconds() {
    let (server, cache) = (Server::new(), JwkSetCache::new());
    server.status.store(503, Ordering::SeqCst);
    for seconds in 0..5 {
        let verdict = server.verify(&cache, &server.sign(NOW), later(seconds)).await;
        assert!(matches!(verdict, Err(VerifyError::Keys(_))), "{verdict:?}");
    }
    assert_eq!(server.scripted.count(), 1);
    server.status.store(200, Ordering::SeqCst);
    assert!(server.verify(&cache, &server.sign(NOW), later(5)).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn keys_still_believed_outlive_a_failing_fetch() {
    let (server, cache) = (Server::new(), JwkSetCache::new());
    let uri = profiles::url(JWKS);
    let keys = cache.keys(&server.transport, &uri, NOW, false).await.unwrap();
    server.status.store(500, Ordering::SeqCst);
    let same = cache.keys(&server.transport, &uri, later(100), true).await.unwrap();
    assert!(Arc::ptr_eq(&keys, &same));
    assert_eq!(server.scripted.count(), 2);
    assert!(cache.keys(&server.transport, &uri, later(3600), false).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn another_address_has_other_keys() {
    let (server, cache) = (Server::new(), JwkSetCache::new());
    cache.keys(&server.transport, &profiles::url(JWKS), NOW, false).await.unwrap();
    cache.keys(&server.transport, &profiles::url("https://as.example/other"), NOW, false).await.unwrap();
    assert_eq!(server.scripted.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn each_fault_of_the_server_is_named() {
    let uri = profiles::url(JWKS);
    for (status, body, reason) in [
        (200, "<html>".to_owned(), Reason::MalformedAnswer),
        (200, "{}".to_owned(), Reason::MalformedAnswer),
        (200, "x".repeat(MAX_BODY + 1), Reason::MalformedAnswer),
        (401, String::new(), Reason::MalformedAnswer),
        (404, String::new(), Reason::MalformedAnswer),
        (301, String::new(), Reason::MalformedAnswer),
        (500, String::new(), Reason::ProviderError),
    ] {
        let transport: Arc<dyn Transport> = ScriptedTransport::new(move |_| Answer::json(status, &body));
        let failure = JwkSetCache::new().keys(&transport, &uri, NOW, false).await.unwrap_err();
        assert_eq!((failure.class, failure.reason), (FailureClass::ProviderUnavailable, reason), "{status}");
    }
    let scripted = ScriptedTransport::new(|_| Answer::json(200, "{}"));
    let transport: Arc<dyn Transport> = scripted.clone();
    let plain = profiles::url("http://as.example/jwks");
    assert!(JwkSetCache::new().keys(&transport, &plain, NOW, false).await.is_err());
    assert_eq!(scripted.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn many_who_ask_at_once_make_one_request() {
    let scripted =
        ScriptedTransport::new(|_| Answer::json(200, json!({ "keys": [] })).delayed(Duration::from_secs(1)));
    let transport: Arc<dyn Transport> = scripted.clone();
    let (cache, uri) = (JwkSetCache::new(), profiles::url(JWKS));
    let asked = (0..50).map(|_| cache.keys(&transport, &uri, NOW, false));
    assert!(futures_util::future::join_all(asked).await.iter().all(Result::is_ok));
    assert_eq!(scripted.count(), 1);
}
