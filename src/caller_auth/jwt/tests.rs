#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use actix_web::http::header::HeaderValue;
use aws_lc_rs::hmac;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use claviger_actors::protocol::identifiers::CallerId;
use claviger_actors::testing::{Answer, ScriptedTransport};
use parking_lot::Mutex;
use serde_json::json;

use super::super::CallerDirectory;
use super::*;

const NOW: u64 = 1_800_000_000;
const ISSUER: &str = "https://id.example";

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_secs(seconds)
}

/// For directories that need none.
pub(crate) fn no_transport() -> Arc<dyn Transport> {
    ScriptedTransport::new(|_| Answer::json(500, json!({})))
}

/// An issuer with one key at a time, behind a URL.
struct Idp {
    key: Arc<Mutex<(String, Ed25519KeyPair)>>,
    down: Arc<AtomicBool>,
    server: Arc<ScriptedTransport>,
}

impl Idp {
    fn new() -> Self {
        let key = Arc::new(Mutex::new(("k1".to_owned(), Ed25519KeyPair::generate().unwrap())));
        let down = Arc::new(AtomicBool::new(false));
        let (shown, broken) = (key.clone(), down.clone());
        let server = ScriptedTransport::new(move |_| {
            let status = if broken.load(Ordering::SeqCst) { 500 } else { 200 };
            Answer::json(status, json!({ "keys": [jwk(&shown.lock())] }))
        });
        Self { key, down, server }
    }

    fn rotate(&self, kid: &str) {
        *self.key.lock() = (kid.to_owned(), Ed25519KeyPair::generate().unwrap());
    }

    fn sign(&self, header: Value, claims: &Value) -> String {
        let (kid, pair) = &*self.key.lock();
        let mut full = json!({ "alg": "EdDSA", "kid": kid });
        full.as_object_mut().unwrap().extend(header.as_object().unwrap().clone());
        let message = message(&full, claims);
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(pair.sign(message.as_bytes())))
    }

    fn token(&self, claims: &Value) -> String {
        self.sign(json!({}), claims)
    }

    fn directory(&self, callers: impl IntoIterator<Item = ConfiguredCaller>) -> CallerDirectory {
        let transport: Arc<dyn Transport> = self.server.clone();
        CallerDirectory::new(callers, &transport)
    }
}

fn jwk((kid, pair): &(String, Ed25519KeyPair)) -> Value {
    let x = URL_SAFE_NO_PAD.encode(pair.public_key());
    json!({ "kty": "OKP", "crv": "Ed25519", "kid": kid, "x": x })
}

fn message(header: &Value, claims: &Value) -> String {
    format!("{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(claims.to_string()))
}

fn credential(audience: &str, claims: &[(&str, &str)]) -> JwtCredential {
    JwtCredential {
        issuer: ISSUER.into(),
        audience: audience.into(),
        keys: KeySource::Uri("https://id.example/jwks".parse().unwrap()),
        subject_claim: "sub".into(),
        claims: claims.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
    }
}

fn caller(name: &str, jwt: JwtCredential) -> ConfiguredCaller {
    let id = CallerId::new(name).unwrap();
    let caller = Caller { id, routes: BTreeSet::new(), may_name_subject: false, rate: None };
    ConfiguredCaller { jwt: Some(jwt), ..ConfiguredCaller::new(caller) }
}

/// The claims of a good token, with `others` over them; a null takes one out.
fn claims(others: Value) -> Value {
    let mut claims = json!({ "iss": ISSUER, "aud": "gateway", "sub": "alice", "exp": NOW + 300, "iat": NOW });
    for (name, value) in others.as_object().unwrap() {
        match value {
            Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
            value => claims[name] = value.clone(),
        }
    }
    claims
}

fn bearer(token: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(AUTHORIZATION, HeaderValue::from_str(&format!("bEARER {token}")).unwrap());
    headers
}

async fn ask(
    directory: &CallerDirectory,
    token: &str,
    now: u64,
) -> Result<AuthenticatedCaller, CallerAuthError> {
    directory.authenticate((&bearer(token)).into(), at(now)).await
}

async fn who(directory: &CallerDirectory, token: &str) -> Result<String, CallerAuthError> {
    ask(directory, token, NOW).await.map(|found| found.caller.id.to_string())
}

#[actix_web::test]
async fn a_good_token_names_its_caller_and_brings_its_claims() {
    let idp = Idp::new();
    let directory = idp.directory([caller("billing", credential("gateway", &[]))]);
    let token = idp.token(&claims(json!({
        "aud": ["other", "gateway"], "email": "a@acme.example", "level": 3, "staff": true,
        "groups": ["x"], "long": "x".repeat(2000), "line": "a\nb",
    })));
    for _ in 0..3 {
        let found = ask(&directory, &token, NOW).await.unwrap();
        assert_eq!(found.caller.id.as_str(), "billing");
        let token = found.token.unwrap();
        assert_eq!(token.issuer, ISSUER);
        assert_eq!(token.subject.as_ref().unwrap().as_str(), "alice");
        let claim = |name| token.claims.get(name).map(Secret::expose);
        assert_eq!(
            (claim("email"), claim("level"), claim("staff")),
            (Some("a@acme.example"), Some("3"), Some("true"))
        );
        assert_eq!((claim("groups"), claim("long"), claim("line")), (None, None, None));
    }
    assert_eq!(idp.server.count(), 1, "keys are kept");
    assert_eq!(directory.challenges(), ["Bearer realm=\"claviger\""]);
}

#[actix_web::test]
async fn another_claim_may_name_the_subject() {
    let idp = Idp::new();
    let by_email = JwtCredential { subject_claim: "email".into(), ..credential("gateway", &[]) };
    let directory = idp.directory([caller("billing", by_email)]);
    let subject = async |claims: Value| {
        let found = ask(&directory, &idp.token(&claims), NOW).await.unwrap();
        found.token.unwrap().subject.as_ref().map(ToString::to_string)
    };
    assert_eq!(
        subject(claims(json!({ "email": "a@acme.example" }))).await.as_deref(),
        Some("a@acme.example")
    );
    for none in [json!({}), json!({ "email": 7 }), json!({ "email": "" }), json!({ "email": "a\u{0}" })] {
        assert_eq!(subject(claims(none)).await, None);
    }
}

#[actix_web::test]
async fn wrong_issuers_audiences_and_times_are_refused() {
    let idp = Idp::new();
    let directory = idp.directory([caller("billing", credential("gateway", &[]))]);
    for wrong in [
        json!({ "iss": "https://id.example/" }),
        json!({ "iss": "https://evil.example" }),
        json!({ "iss": null }),
        json!({ "aud": "gatewax" }),
        json!({ "aud": ["gatewax", "GATEWAY"] }),
        json!({ "aud": [] }),
        json!({ "aud": [7, "gateway"] }),
        json!({ "aud": null }),
        json!({ "exp": NOW - 60 }),
        json!({ "exp": null }),
        json!({ "exp": "1900000000" }),
        json!({ "nbf": NOW + 61 }),
        json!({ "nbf": "now" }),
    ] {
        let verdict = who(&directory, &idp.token(&claims(wrong.clone()))).await;
        assert_eq!(verdict, Err(CallerAuthError::Refused), "{wrong}");
    }
    for right in
        [json!({ "exp": NOW - 59 }), json!({ "nbf": NOW + 60 }), json!({ "exp": NOW + 1, "nbf": null })]
    {
        let verdict = who(&directory, &idp.token(&claims(right.clone()))).await;
        assert_eq!(verdict.as_deref(), Ok("billing"), "{right}");
    }
}

#[actix_web::test]
async fn unsigned_and_forged_tokens_are_refused() {
    let idp = Idp::new();
    let directory = idp.directory([caller("billing", credential("gateway", &[]))]);
    let good = idp.token(&claims(json!({})));
    assert_eq!(who(&directory, &good).await.as_deref(), Ok("billing"));
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let public = jwk(&idp.key.lock());

    let none = message(&json!({ "alg": "none" }), &claims(json!({})));
    let hs = message(&json!({ "alg": "HS256", "kid": "k1" }), &claims(json!({})));
    // The public key as a shared secret (RFC 8725 section 2.1).
    let secret = URL_SAFE_NO_PAD.decode(public["x"].as_str().unwrap()).unwrap();
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &secret), hs.as_bytes());
    let other = Idp::new();
    let forged = [
        format!("{none}."),
        format!("{none}.{signature}"),
        format!("{hs}.{}", URL_SAFE_NO_PAD.encode(tag)),
        format!(
            "{}.{signature}",
            message(&json!({ "alg": "EdDSA", "kid": "k1" }), &claims(json!({ "sub": "bob" })))
        ),
        other.token(&claims(json!({}))),
        other.sign(json!({ "jwk": jwk(&other.key.lock()) }), &claims(json!({}))),
        idp.sign(json!({ "typ": "dpop+jwt" }), &claims(json!({}))),
        idp.sign(json!({ "typ": "logout+jwt" }), &claims(json!({}))),
        idp.sign(json!({ "crit": ["exp"] }), &claims(json!({}))),
        signed.to_owned(),
        format!("{good}.x"),
        String::new(),
        "not-a-token".to_owned(),
        idp.token(&claims(json!({ "x": "x".repeat(MAX_TOKEN) }))),
    ];
    for token in &forged {
        assert_eq!(
            who(&directory, token).await,
            Err(CallerAuthError::Refused),
            "{}",
            &token[..token.len().min(80)]
        );
    }
    let rfc_9068 = idp.sign(json!({ "typ": "at+jwt" }), &claims(json!({})));
    assert_eq!(who(&directory, &rfc_9068).await.as_deref(), Ok("billing"));
}

#[actix_web::test]
async fn audiences_and_claims_tell_callers_of_one_issuer_apart() {
    let idp = Idp::new();
    let directory = idp.directory([
        caller("billing", credential("gateway", &[("azp", "billing-app")])),
        caller("crm", credential("gateway", &[("azp", "crm-app")])),
        caller("batch", credential("gateway-batch", &[])),
    ]);
    let cases = [
        (json!({ "azp": "billing-app" }), Ok("billing")),
        (json!({ "azp": "crm-app" }), Ok("crm")),
        (json!({ "aud": "gateway-batch" }), Ok("batch")),
        (json!({ "azp": "other-app" }), Err(CallerAuthError::Refused)),
        (json!({}), Err(CallerAuthError::Refused)),
        // Of two callers that it could be, neither is right.
        (json!({ "azp": "crm-app", "aud": ["gateway", "gateway-batch"] }), Err(CallerAuthError::Refused)),
    ];
    for (others, expected) in cases {
        let verdict = who(&directory, &idp.token(&claims(others.clone()))).await;
        assert_eq!(verdict, expected.map(str::to_owned), "{others}");
    }
}

#[actix_web::test]
async fn a_remembered_token_ends_with_its_exp() {
    let idp = Idp::new();
    let directory = idp.directory([caller("billing", credential("gateway", &[]))]);
    let token = idp.token(&claims(json!({ "exp": NOW + 10 })));
    assert!(ask(&directory, &token, NOW).await.is_ok());
    assert!(ask(&directory, &token, NOW + 69).await.is_ok());
    assert_eq!(ask(&directory, &token, NOW + 70).await.unwrap_err(), CallerAuthError::Refused);
}

#[actix_web::test]
async fn new_keys_are_fetched_once_and_strangers_cannot_cause_more() {
    let idp = Idp::new();
    let directory = idp.directory([caller("billing", credential("gateway", &[]))]);
    assert!(ask(&directory, &idp.token(&claims(json!({}))), NOW).await.is_ok());
    idp.rotate("k2");
    assert!(ask(&directory, &idp.token(&claims(json!({}))), NOW + 10).await.is_ok());
    assert_eq!(idp.server.count(), 2);
    let stranger = Idp::new();
    stranger.rotate("k9");
    for n in 0..20 {
        let token = stranger.token(&claims(json!({ "jti": n })));
        assert_eq!(ask(&directory, &token, NOW + 20).await.unwrap_err(), CallerAuthError::Refused);
    }
    assert_eq!(idp.server.count(), 2, "at most once a minute");
}

#[actix_web::test]
async fn while_keys_cannot_be_had_nobody_is_told_that_the_token_is_wrong() {
    let idp = Idp::new();
    let directory = idp.directory([caller("billing", credential("gateway", &[]))]);
    idp.down.store(true, Ordering::SeqCst);
    let token = idp.token(&claims(json!({})));
    assert_eq!(ask(&directory, &token, NOW).await.unwrap_err(), CallerAuthError::KeysUnavailable);
    idp.down.store(false, Ordering::SeqCst);
    assert!(ask(&directory, &token, NOW + 6).await.is_ok());
}

#[actix_web::test]
async fn keys_of_a_file_need_no_request() {
    let idp = Idp::new();
    let set = json!({ "keys": [jwk(&idp.key.lock())] }).to_string();
    let keys = Arc::new(JwkSetView::parse(set.as_bytes()).unwrap());
    let from_file =
        JwtCredential { keys: KeySource::File { path: "keys".into(), keys }, ..credential("gateway", &[]) };
    let directory = idp.directory([caller("billing", from_file)]);
    assert_eq!(who(&directory, &idp.token(&claims(json!({})))).await.as_deref(), Ok("billing"));
    assert_eq!(who(&directory, &Idp::new().token(&claims(json!({})))).await, Err(CallerAuthError::Refused));
    assert_eq!(idp.server.count(), 0);
}

#[test]
fn what_tells_callers_apart_is_known_before_any_token_comes() {
    let plain = credential("gateway", &[]);
    assert!(plain.is_ambiguous_with(&plain.clone()));
    assert!(plain.is_ambiguous_with(&credential("gateway", &[("azp", "a")])), "a token with azp fits both");
    assert!(
        credential("gateway", &[("azp", "a")]).is_ambiguous_with(&credential("gateway", &[("org", "b")]))
    );
    assert!(
        !credential("gateway", &[("azp", "a")]).is_ambiguous_with(&credential("gateway", &[("azp", "b")]))
    );
    assert!(!plain.is_ambiguous_with(&credential("other", &[])));
    let foreign = JwtCredential { issuer: "https://other.example".into(), ..plain.clone() };
    assert!(!plain.is_ambiguous_with(&foreign));
}
