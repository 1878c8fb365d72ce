#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;

use http::header::WWW_AUTHENTICATE;
use jsonwebtoken::jwk::{Jwk, ThumbprintHash};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde_json::Value;

use super::*;
use crate::clock::SystemEntropy;

/// RFC 9449 figure 2: the proof of a token request.
const TOKEN_REQUEST: &str = "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDI\
     iwieCI6Imw4dEZyaHgtMzR0VjNoUklDUkRZOXpDa0RscEJoRjQyVVFVZldWQVdCRnMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY\
     3VOSmFqSG10NnY5VERWclUwQ2R2R1JEQSIsImNydiI6IlAtMjU2In19.eyJqdGkiOiItQndDM0VTYzZhY2MybFRjIiwiaHRtIjoiU\
     E9TVCIsImh0dSI6Imh0dHBzOi8vc2VydmVyLmV4YW1wbGUuY29tL3Rva2VuIiwiaWF0IjoxNTYyMjYyNjE2fQ.2-GxA6T8lP4vfrg\
     8v-FdWP0A0zdrj8igiMLvqRMUvwnQg4PtFLbdLXiOSsX0x7NVY-FNyJK70nfbV37xRZT3Lg";
/// RFC 9449 figure 12: the proof of a request with an access token.
const RESOURCE_REQUEST: &str = "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6Ik\
     VDIiwieCI6Imw4dEZyaHgtMzR0VjNoUklDUkRZOXpDa0RscEJoRjQyVVFVZldWQVdCRnMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFR\
     sY3VOSmFqSG10NnY5VERWclUwQ2R2R1JEQSIsImNydiI6IlAtMjU2In19.eyJqdGkiOiJlMWozVl9iS2ljOC1MQUVCIiwiaHRtIjo\
     iR0VUIiwiaHR1IjoiaHR0cHM6Ly9yZXNvdXJjZS5leGFtcGxlLm9yZy9wcm90ZWN0ZWRyZXNvdXJjZSIsImlhdCI6MTU2MjI2MjYx\
     OCwiYXRoIjoiZlVIeU8ycjJaM0RaNTNFc05yV0JiMHhXWG9hTnk1OUlpS0NBcWtzbVFFbyJ9.2oW9RP35yRqzhrtNP86L-Ey71EOp\
     txRimPPToA1plemAgR6pxHF8y6-yqyVnmcw6Fy1dqd-jfxSYoMxhAJpLjA";
const ACCESS_TOKEN: &str = "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU";
/// RFC 9449 figure 5.
const THUMBPRINT: &str = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I";

/// What a server does with a proof, by another library than ours: its claims and its key's thumbprint.
fn verified(proof: &str) -> (Value, String) {
    let header = decode_header(proof).unwrap();
    assert_eq!(header.typ.as_deref(), Some("dpop+jwt"));
    let jwk: Jwk = header.jwk.unwrap();
    let mut validation = Validation::new(header.alg);
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    let claims = decode::<Value>(proof, &DecodingKey::from_jwk(&jwk).unwrap(), &validation).unwrap().claims;
    (claims, jwk.thumbprint(ThumbprintHash::SHA256).unwrap())
}

fn proof<'a>() -> Proof<'a> {
    Proof { method: "POST", url: "https://server.example.com/token", nonce: None, access_token: None }
}

fn prove(key: &DpopKey, proof: Proof<'_>) -> String {
    let value = key.prove(proof, Timestamp::from_secs(1_562_262_616), &SystemEntropy).unwrap();
    assert!(value.is_sensitive());
    value.to_str().unwrap().to_owned()
}

#[test]
fn the_proofs_of_the_rfc_verify_and_ours_are_made_like_them() {
    let (mut theirs, thumbprint) = verified(TOKEN_REQUEST);
    assert_eq!(thumbprint, THUMBPRINT);
    let key = DpopKey::generate(SignatureAlgorithm::Es256).unwrap();
    let (mut ours, thumbprint) = verified(&prove(&key, proof()));
    assert_eq!(thumbprint, key.thumbprint());
    let jti = ours["jti"].take();
    assert!(jti.as_str().unwrap().len() >= 16, "section 4.2: 96 bits or more");
    theirs["jti"].take();
    assert_eq!(ours, theirs);

    let (mut theirs, thumbprint) = verified(RESOURCE_REQUEST);
    assert_eq!(thumbprint, THUMBPRINT);
    let hash = AccessTokenHash::of(ACCESS_TOKEN);
    let with_token = Proof {
        method: "GET",
        url: "https://resource.example.org/protectedresource",
        access_token: Some(&hash),
        nonce: None,
    };
    let (mut ours, _) = verified(&prove(&key, with_token));
    for claims in [&mut theirs, &mut ours] {
        claims["jti"].take();
        claims["iat"].take();
    }
    assert_eq!(ours, theirs);
}

#[test]
fn every_algorithm_makes_proofs_that_others_verify() {
    for algorithm in ALGORITHMS {
        let key = DpopKey::generate(algorithm).unwrap();
        let text = prove(&key, Proof { nonce: Some("eyJ7S_zG.eyJH0-Z.HX4w-7v"), ..proof() });
        let header = decode_header(&text).unwrap();
        let expected = match algorithm {
            SignatureAlgorithm::Es256 => Algorithm::ES256,
            SignatureAlgorithm::Es384 => Algorithm::ES384,
            _ => Algorithm::EdDSA,
        };
        assert_eq!(header.alg, expected);
        // The public key alone: nothing private may be in it (section 4.2).
        let jwk = serde_json::to_value(header.jwk.unwrap()).unwrap();
        assert!(jwk.get("d").is_none(), "{jwk}");
        let (claims, thumbprint) = verified(&text);
        assert_eq!(claims["nonce"], "eyJ7S_zG.eyJH0-Z.HX4w-7v");
        assert_eq!(thumbprint, key.thumbprint());
    }
}

#[test]
fn no_two_proofs_are_the_same() {
    let key = DpopKey::generate(SignatureAlgorithm::Es256).unwrap();
    let ids: BTreeSet<String> =
        (0..20).map(|_| verified(&prove(&key, proof())).0["jti"].as_str().unwrap().to_owned()).collect();
    assert_eq!(ids.len(), 20);
}

#[test]
fn htu_is_the_url_as_it_is_up_to_its_query() {
    for (url, expected) in [
        ("https://as.example/token?a=b#c", "https://as.example/token"),
        ("https://as.example:8443/t%2Fa/%C3%A9", "https://as.example:8443/t%2Fa/%C3%A9"),
        ("https://as.example", "https://as.example/"),
        ("http://[::1]:80/x/", "http://[::1]/x/"),
    ] {
        assert_eq!(htu(&url.parse().unwrap()), expected);
    }
}

#[test]
fn a_key_comes_back_from_a_record_and_shows_nothing_in_a_log() {
    for algorithm in ALGORITHMS {
        let key = DpopKey::generate(algorithm).unwrap();
        let text = serde_json::to_string(&key).unwrap();
        let read: DpopKey = serde_json::from_str(&text).unwrap();
        assert_eq!((&read, read.thumbprint()), (&key, key.thumbprint()));
        assert_eq!(read.algorithm(), algorithm);
        assert_eq!(verified(&prove(&read, proof())).1, key.thumbprint());
        assert!(!format!("{key:?}").contains(&text[1..text.len() - 1]));
    }
    assert_ne!(
        DpopKey::generate(SignatureAlgorithm::Es256).unwrap(),
        DpopKey::generate(SignatureAlgorithm::Es256).unwrap()
    );
    let error = serde_json::from_str::<DpopKey>("\"SECRET\"").unwrap_err().to_string();
    assert!(error.contains("damaged") && !error.contains("SECRET"), "{error}");
}

fn answer(nonces: &[&str]) -> HeaderMap {
    nonces.iter().map(|nonce| (DPOP_NONCE, HeaderValue::from_bytes(nonce.as_bytes()).unwrap())).collect()
}

#[test]
fn the_newest_nonce_of_each_server_is_kept_and_of_few_servers() {
    let nonces = Nonces::default();
    assert!(nonces.get("https://a").is_none());
    for (origin, nonce) in [("https://a", "one"), ("https://b", "other"), ("https://a", "two")] {
        nonces.remember(origin, &answer(&[nonce]));
    }
    assert_eq!(nonces.get("https://a").as_deref(), Some("two"));
    assert_eq!(nonces.get("https://b").as_deref(), Some("other"));
    // None is no news, and what is none is not taken for one.
    for bad in [&[][..], &["x", "y"], &[""], &["a b"], &["a\"b"], &["a\\b"], &["\u{e9}"]] {
        nonces.remember("https://a", &answer(bad));
    }
    nonces.remember("https://a", &answer(&["n".repeat(MAX_NONCE + 1).as_str()]));
    assert_eq!(nonces.get("https://a").as_deref(), Some("two"));
    for number in 0..100 {
        nonces.remember(&format!("https://{number}"), &answer(&["n"]));
    }
    assert_eq!(nonces.0.lock().len(), MAX_SERVERS);
    assert!(nonces.get("https://99").is_some() && nonces.get("https://a").is_none());
}

#[test]
fn a_nonce_is_wanted_only_by_an_answer_that_brings_one_and_says_so() {
    let nonce = answer(&["n"]);
    let body = br#"{"error":"use_dpop_nonce","error_description":"nonce needed"}"#;
    assert!(wants_nonce(StatusCode::BAD_REQUEST, &nonce, body));
    assert!(wants_nonce(StatusCode::UNAUTHORIZED, &nonce, body));
    assert!(!wants_nonce(StatusCode::BAD_REQUEST, &HeaderMap::new(), body));
    assert!(!wants_nonce(StatusCode::OK, &nonce, body));
    assert!(!wants_nonce(StatusCode::BAD_REQUEST, &nonce, br#"{"error":"invalid_grant"}"#));
    assert!(!wants_nonce(StatusCode::BAD_REQUEST, &nonce, b"use_dpop_nonce"));

    let challenge = |text: &'static str| {
        let mut headers = nonce.clone();
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(text));
        headers
    };
    // Figure 14's form, and others that mean the same.
    for text in [
        r#"DPoP error="use_dpop_nonce", error_description="Resource server requires nonce in DPoP proof""#,
        "dpop error=use_dpop_nonce",
        r#"Bearer, DPoP algs="ES256", error="use_dpop_nonce""#,
    ] {
        assert!(resource_wants_nonce(StatusCode::UNAUTHORIZED, &challenge(text)), "{text}");
    }
    let wanted = challenge(r#"DPoP error="use_dpop_nonce""#);
    assert!(!resource_wants_nonce(StatusCode::FORBIDDEN, &wanted));
    let invalid = challenge(r#"DPoP error="invalid_token""#);
    assert!(!resource_wants_nonce(StatusCode::UNAUTHORIZED, &invalid));
    let mut without = wanted.clone();
    without.remove(DPOP_NONCE);
    assert!(!resource_wants_nonce(StatusCode::UNAUTHORIZED, &without));
}
