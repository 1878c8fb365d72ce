#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::LazyLock;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256,
    RSA_PSS_SHA256, RsaKeyPair,
};
use aws_lc_rs::{digest, hmac};
use proptest::prelude::*;
use serde_json::json;

use super::*;

const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);
const ISSUER: &str = "https://server.example.com";
const CLIENT: &str = "s6BhdRkqt3";

static RSA: LazyLock<RsaKeyPair> = LazyLock::new(|| RsaKeyPair::generate(KeySize::Rsa2048).unwrap());
static OTHER_RSA: LazyLock<RsaKeyPair> = LazyLock::new(|| RsaKeyPair::generate(KeySize::Rsa2048).unwrap());
static EC: LazyLock<EcdsaKeyPair> =
    LazyLock::new(|| EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap());
static ED: LazyLock<Ed25519KeyPair> = LazyLock::new(|| Ed25519KeyPair::generate().unwrap());

fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn rsa_jwk(pair: &RsaKeyPair, kid: &str) -> Value {
    let key = pair.public_key();
    let (n, e) = (key.modulus(), key.exponent());
    json!({
        "kty": "RSA", "kid": kid, "use": "sig",
        "n": b64(n.big_endian_without_leading_zero()), "e": b64(e.big_endian_without_leading_zero()),
    })
}

fn ec_jwk(kid: &str) -> Value {
    let point = EC.public_key().as_ref();
    json!({"kty": "EC", "crv": "P-256", "kid": kid, "x": b64(&point[1..33]), "y": b64(&point[33..65])})
}

fn ed_jwk(kid: &str) -> Value {
    json!({"kty": "OKP", "crv": "Ed25519", "kid": kid, "x": b64(ED.public_key())})
}

fn view(keys: &[Value]) -> JwkSetView {
    JwkSetView::parse(json!({ "keys": keys }).to_string().as_bytes()).unwrap()
}

fn usual_keys() -> JwkSetView {
    view(&[rsa_jwk(&RSA, "r1"), ec_jwk("e1"), ed_jwk("d1")])
}

fn usual_claims() -> Value {
    json!({
        "iss": ISSUER, "sub": "24400320", "aud": CLIENT, "nonce": "n-0S6_WzA2Mj",
        "exp": 1_700_000_300, "iat": 1_700_000_000, "auth_time": 1_699_999_990, "name": "ignored",
    })
}

fn rsa_sign(
    pair: &RsaKeyPair,
    encoding: &'static dyn aws_lc_rs::signature::RsaEncoding,
    message: &[u8],
) -> Vec<u8> {
    let mut signature = vec![0; pair.public_modulus_len()];
    pair.sign(encoding, &SystemRandom::new(), message, &mut signature).unwrap();
    signature
}

fn signed_with(header: &Value, claims: &Value, sign: impl Fn(&[u8]) -> Vec<u8>) -> Secret {
    let message = format!("{}.{}", b64(header.to_string()), b64(claims.to_string()));
    Secret::new(format!("{message}.{}", b64(sign(message.as_bytes()))))
}

/// Signs honestly with the key that the header's `alg` asks for.
fn signed(header: &Value, claims: &Value) -> Secret {
    signed_with(header, claims, |message| match header["alg"].as_str().unwrap() {
        "RS256" => rsa_sign(&RSA, &RSA_PKCS1_SHA256, message),
        "PS256" => rsa_sign(&RSA, &RSA_PSS_SHA256, message),
        "ES256" => EC.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec(),
        "EdDSA" => ED.sign(message).as_ref().to_vec(),
        other => panic!("no key for {other}"),
    })
}

fn rs256(claims: &Value) -> Secret {
    signed(&json!({"alg": "RS256", "kid": "r1", "typ": "JWT"}), claims)
}

struct Setup {
    algs: Vec<String>,
    nonce: Option<Secret>,
    access_token: Option<AccessToken>,
    keys: JwkSetView,
}

impl Setup {
    fn new() -> Self {
        Self {
            algs: ["RS256", "PS256", "ES256", "EdDSA"].map(str::to_owned).to_vec(),
            nonce: Some("n-0S6_WzA2Mj".into()),
            access_token: None,
            keys: usual_keys(),
        }
    }

    fn verify(&self, token: &Secret) -> Result<IdTokenClaims, IdTokenError> {
        let checks = IdTokenChecks {
            issuer: ISSUER,
            client_id: CLIENT,
            nonce: self.nonce.as_ref(),
            allowed_algs: &self.algs,
            access_token: self.access_token.as_ref(),
            now: NOW,
        };
        verify(token, &self.keys, &checks)
    }
}

/// The verdict on the usual claims with `name` changed; null takes the claim out.
fn with_claim(name: &str, value: Value) -> Result<IdTokenClaims, IdTokenError> {
    let mut claims = usual_claims();
    match value {
        Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
        value => claims[name] = value,
    }
    Setup::new().verify(&rs256(&claims))
}

#[test]
fn a_good_token_is_accepted_with_every_supported_kind_of_key() {
    for (alg, kid) in [("RS256", "r1"), ("PS256", "r1"), ("ES256", "e1"), ("EdDSA", "d1")] {
        let token = signed(&json!({"alg": alg, "kid": kid}), &usual_claims());
        let claims = Setup::new().verify(&token).unwrap_or_else(|error| panic!("{alg}: {error}"));
        assert_eq!((claims.iss.as_str(), claims.sub.as_str()), (ISSUER, "24400320"));
        assert_eq!(claims.aud, [CLIENT]);
        assert_eq!(claims.exp, Timestamp::from_secs(1_700_000_300));
        assert_eq!(claims.auth_time, Some(Timestamp::from_secs(1_699_999_990)));
    }
}

#[test]
fn a_changed_claim_breaks_the_signature() {
    let token = rs256(&usual_claims());
    let mut parts: Vec<String> = token.expose().split('.').map(str::to_owned).collect();
    let mut claims = usual_claims();
    claims["sub"] = json!("somebody-else");
    parts[1] = b64(claims.to_string());
    assert_eq!(Setup::new().verify(&Secret::new(parts.join("."))), Err(IdTokenError::Signature));
}

#[test]
fn a_signature_of_another_key_is_refused() {
    let token = signed_with(&json!({"alg": "RS256", "kid": "r1"}), &usual_claims(), |message| {
        rsa_sign(&OTHER_RSA, &RSA_PKCS1_SHA256, message)
    });
    assert_eq!(Setup::new().verify(&token), Err(IdTokenError::Signature));
}

#[test]
fn none_is_refused_even_if_listed() {
    for alg in ["none", "None", "NONE", ""] {
        let mut setup = Setup::new();
        setup.algs.push(alg.to_owned());
        let token = signed_with(&json!({"alg": alg}), &usual_claims(), |_| Vec::new());
        assert_eq!(setup.verify(&token), Err(IdTokenError::Algorithm(alg.to_owned())));
    }
}

#[test]
fn a_public_key_never_serves_as_a_shared_secret() {
    let jwk = rsa_jwk(&RSA, "r1");
    let modulus = URL_SAFE_NO_PAD.decode(jwk["n"].as_str().unwrap()).unwrap();
    let der = RSA.public_key().as_ref().to_vec();
    for secret in [modulus, der, jwk.to_string().into_bytes()] {
        let mut setup = Setup::new();
        setup.algs.push("HS256".to_owned());
        // Even a set that offers the very secret is not used with it.
        setup.keys = view(&[jwk.clone(), json!({"kty": "oct", "kid": "r1", "k": b64(&secret)})]);
        let token = signed_with(&json!({"alg": "HS256", "kid": "r1"}), &usual_claims(), |message| {
            hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &secret), message).as_ref().to_vec()
        });
        assert_eq!(setup.verify(&token), Err(IdTokenError::Algorithm("HS256".to_owned())));
    }
}

#[test]
fn an_algorithm_that_is_not_pinned_is_refused_though_its_key_is_known() {
    let mut setup = Setup::new();
    setup.algs = vec!["RS256".to_owned()];
    let token = signed(&json!({"alg": "ES256", "kid": "e1"}), &usual_claims());
    assert_eq!(setup.verify(&token), Err(IdTokenError::Algorithm("ES256".to_owned())));
}

#[test]
fn a_keys_own_attributes_are_respected() {
    let token = rs256(&usual_claims());
    let mut setup = Setup::new();
    for (name, value) in [
        ("alg", json!("PS256")),
        ("use", json!("enc")),
        ("key_ops", json!(["encrypt"])),
        ("kty", json!("EC")),
        ("kid", json!("r2")),
    ] {
        let mut jwk = rsa_jwk(&RSA, "r1");
        jwk[name] = value;
        setup.keys = view(&[jwk]);
        assert_eq!(setup.verify(&token), Err(IdTokenError::UnknownKey), "{name}");
    }
    let mut jwk = rsa_jwk(&RSA, "r1");
    jwk["alg"] = json!("RS256");
    jwk["key_ops"] = json!(["verify"]);
    setup.keys = view(&[jwk]);
    assert!(setup.verify(&token).is_ok());
}

#[test]
fn without_kid_every_suitable_key_is_tried() {
    let token = signed(&json!({"alg": "RS256"}), &usual_claims());
    let mut setup = Setup::new();
    setup.keys = view(&[rsa_jwk(&OTHER_RSA, "o"), ec_jwk("e1"), rsa_jwk(&RSA, "r1")]);
    assert!(setup.verify(&token).is_ok());
    // If none fits, newer ones may.
    setup.keys = view(&[rsa_jwk(&OTHER_RSA, "o")]);
    assert_eq!(setup.verify(&token), Err(IdTokenError::UnknownKey));
}

#[test]
fn keys_of_one_name_are_told_apart_by_their_attributes() {
    let mut setup = Setup::new();
    setup.keys = view(&[ec_jwk("same"), rsa_jwk(&OTHER_RSA, "same"), rsa_jwk(&RSA, "same")]);
    assert!(setup.verify(&signed(&json!({"alg": "RS256", "kid": "same"}), &usual_claims())).is_ok());
    assert!(setup.verify(&signed(&json!({"alg": "ES256", "kid": "same"}), &usual_claims())).is_ok());
}

#[test]
fn keys_offered_by_the_token_itself_are_ignored() {
    let header = json!({
        "alg": "RS256", "jwk": rsa_jwk(&OTHER_RSA, "evil"), "jku": "https://evil.example/jwks",
        "x5u": "https://evil.example/x5u", "x5c": ["AAAA"], "kid": "evil",
    });
    let token =
        signed_with(&header, &usual_claims(), |message| rsa_sign(&OTHER_RSA, &RSA_PKCS1_SHA256, message));
    assert_eq!(Setup::new().verify(&token), Err(IdTokenError::UnknownKey));
}

#[test]
fn critical_header_parameters_and_other_kinds_of_token_are_refused() {
    for (name, value) in
        [("crit", json!(["b64"])), ("typ", json!("at+jwt")), ("typ", json!("Logout+JWT")), ("kid", json!(1))]
    {
        let mut header = json!({"alg": "RS256", "kid": "r1"});
        header[name] = value;
        let verdict = Setup::new().verify(&signed(&header, &usual_claims()));
        assert!(matches!(verdict, Err(IdTokenError::Malformed(_))), "{name}: {verdict:?}");
    }
}

#[test]
fn what_is_no_jwt_is_malformed() {
    let encrypted = format!("{}.a.b.c.d", b64(json!({"alg": "RSA-OAEP", "enc": "A256GCM"}).to_string()));
    let twice = format!("{}.e30.", b64(r#"{"alg":"RS256","alg":"none"}"#));
    let padded = format!("{}=.e30.AA", b64(json!({"alg": "RS256"}).to_string()));
    let long = "a".repeat(MAX_TOKEN + 1);
    for text in ["", ".", "..", "a.b.c", "e30.e30", "é.é.é", &encrypted, &twice, &padded, &long] {
        let verdict = Setup::new().verify(&text.into());
        assert!(matches!(verdict, Err(IdTokenError::Malformed(_))), "{verdict:?}");
    }
}

#[test]
fn the_issuer_is_compared_as_it_is() {
    for other in ["https://server.example.com/", "https://SERVER.example.com", "https://evil.example"] {
        assert!(matches!(with_claim("iss", json!(other)), Err(IdTokenError::Issuer { .. })), "{other}");
    }
    assert_eq!(with_claim("iss", Value::Null), Err(IdTokenError::Claim("iss")));
}

#[test]
fn the_audience_must_be_us() {
    assert_eq!(with_claim("aud", json!("another")), Err(IdTokenError::Audience));
    assert_eq!(with_claim("aud", json!([])), Err(IdTokenError::Audience));
    assert_eq!(with_claim("aud", json!([CLIENT, 1])), Err(IdTokenError::Claim("aud")));
    assert_eq!(with_claim("aud", Value::Null), Err(IdTokenError::Claim("aud")));
    assert!(with_claim("aud", json!([CLIENT])).is_ok());
}

#[test]
fn several_audiences_need_us_as_the_authorized_party() {
    let verdict = |aud: Value, azp: Value| {
        let mut claims = usual_claims();
        claims["aud"] = aud;
        claims["azp"] = azp;
        Setup::new().verify(&rs256(&claims))
    };
    let both = json!([CLIENT, "api"]);
    assert_eq!(verdict(both.clone(), Value::Null), Err(IdTokenError::AuthorizedParty));
    assert_eq!(verdict(both.clone(), json!("api")), Err(IdTokenError::AuthorizedParty));
    assert_eq!(verdict(json!(CLIENT), json!("api")), Err(IdTokenError::AuthorizedParty));
    assert!(verdict(both, json!(CLIENT)).is_ok());
    assert!(verdict(json!(CLIENT), json!(CLIENT)).is_ok());
}

#[test]
fn expiry_and_issue_allow_sixty_seconds_of_skew_and_no_more() {
    let now = NOW.as_secs();
    assert!(with_claim("exp", json!(now - 59)).is_ok());
    assert_eq!(with_claim("exp", json!(now - 60)), Err(IdTokenError::Expired));
    assert!(with_claim("iat", json!(now + 60)).is_ok());
    assert_eq!(with_claim("iat", json!(now + 61)), Err(IdTokenError::IssuedAt));
    assert!(with_claim("iat", json!(now - 86_400)).is_ok());
    assert_eq!(with_claim("iat", json!(now - 86_401)), Err(IdTokenError::IssuedAt));
    assert!(with_claim("exp", json!(1e300)).is_ok());
    assert!(with_claim("iat", json!(now as f64 + 0.5)).is_ok());
}

#[test]
fn expiry_issue_and_subject_are_needed_in_their_own_types() {
    for name in ["exp", "iat", "sub"] {
        for bad in [Value::Null, json!("1700000300"), json!(""), json!([]), json!(-1)] {
            // A number sent as text is a text, and a text is a subject.
            if name == "sub" && bad == json!("1700000300") {
                continue;
            }
            assert_eq!(with_claim(name, bad.clone()), Err(IdTokenError::Claim(name)), "{name} {bad}");
        }
    }
    assert_eq!(with_claim("sub", json!("x".repeat(256))), Err(IdTokenError::Claim("sub")));
    assert_eq!(with_claim("sub", json!("a\nb")), Err(IdTokenError::Claim("sub")));
}

#[test]
fn the_nonce_must_be_the_one_that_was_sent() {
    assert_eq!(with_claim("nonce", json!("another")), Err(IdTokenError::Nonce));
    assert_eq!(with_claim("nonce", Value::Null), Err(IdTokenError::Nonce));
    let mut setup = Setup::new();
    setup.nonce = None;
    assert!(setup.verify(&rs256(&usual_claims())).is_ok());
}

#[test]
fn at_hash_must_fit_the_access_token() {
    // OpenID Connect Core 1.0, appendix A.3: the access token and the at_hash of its ID token.
    let mut claims = usual_claims();
    claims["at_hash"] = json!("77QmUPtjPfzWtF2AnpK9RQ");
    let mut setup = Setup::new();
    setup.access_token = Some(AccessToken::new("jHkWEdUXMU1BwAsC4vtUsZwnNvTIxEl0z9K3vx5KF0Y").unwrap());
    assert!(setup.verify(&rs256(&claims)).is_ok());
    setup.access_token = Some(AccessToken::new("another").unwrap());
    assert_eq!(setup.verify(&rs256(&claims)), Err(IdTokenError::AccessTokenHash));
    claims["at_hash"] = json!(7);
    assert_eq!(setup.verify(&rs256(&claims)), Err(IdTokenError::AccessTokenHash));
    // EdDSA with Ed25519 hashes with SHA-512.
    let hash = digest::digest(&digest::SHA512, b"another");
    claims["at_hash"] = json!(b64(&hash.as_ref()[..32]));
    assert!(setup.verify(&signed(&json!({"alg": "EdDSA", "kid": "d1"}), &claims)).is_ok());
}

#[test]
fn a_key_set_is_bounded_and_broken_keys_are_left_out() {
    use crate::protocol::jwk::{JwkSetError, MAX_KEYS};
    let many = vec![ec_jwk("e"); MAX_KEYS + 1];
    let body = json!({ "keys": many }).to_string();
    assert_eq!(JwkSetView::parse(body.as_bytes()).unwrap_err(), JwkSetError::TooMany);
    assert_eq!(JwkSetView::parse(b"{}").unwrap_err(), JwkSetError::NoKeys);
    assert!(matches!(JwkSetView::parse(b"<html>").unwrap_err(), JwkSetError::Document(_)));
    let broken = [
        json!(1),
        json!({"kty": "RSA", "n": "!", "e": "AQAB"}),
        json!({"kty": "EC", "crv": "P-521", "x": "AA", "y": "AA"}),
        json!({"kty": "oct", "k": "AA"}),
        json!({"kid": "no kty"}),
    ];
    assert!(view(&broken).is_empty());
    // A key of the right form with a point that is on no curve verifies nothing, and harms nobody.
    let mut setup = Setup::new();
    setup.keys = view(&[json!({"kty": "EC", "crv": "P-256", "kid": "e1", "x": "AA", "y": "AA"})]);
    let token = signed(&json!({"alg": "ES256", "kid": "e1"}), &usual_claims());
    assert_eq!(setup.verify(&token), Err(IdTokenError::Signature));
}

proptest! {
    #[test]
    fn no_token_panics_and_only_whole_ones_pass(
        name in "iss|sub|aud|azp|exp|iat|nonce|auth_time|at_hash",
        value in prop_oneof![
            Just(Value::Null),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            ".{0,9}".prop_map(Value::from),
            proptest::collection::vec(".{0,9}", 0..3).prop_map(Value::from),
        ],
        cut in 0usize..400,
    ) {
        let mut claims = usual_claims();
        claims[&name] = value;
        let token = signed(&json!({"alg": "EdDSA", "kid": "d1"}), &claims);
        if let Ok(found) = Setup::new().verify(&token) {
            prop_assert_eq!(found.iss, ISSUER);
            prop_assert!(found.aud.iter().any(|audience| audience == CLIENT));
            prop_assert!(found.exp.after(SKEW) > NOW);
        }
        let text = token.expose();
        if cut < text.len() {
            prop_assert!(Setup::new().verify(&text[..cut].into()).is_err());
        }
    }

    #[test]
    fn no_text_and_no_key_set_panics(text in ".{0,60}(\\..{0,60}){0,4}", body in ".{0,80}") {
        prop_assert!(Setup::new().verify(&text.into()).is_err());
        let _ = JwkSetView::parse(body.as_bytes());
        let _ = JwkSetView::parse(format!("{{\"keys\":[{{\"kty\":\"RSA\",\"n\":{body:?},\"e\":\"AQAB\"}}]}}").as_bytes());
    }
}
