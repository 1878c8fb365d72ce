#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::json;

use super::*;
use crate::clock::SystemEntropy;
use crate::testing::keys;

/// The payload of RFC 7515 appendix A.
const PAYLOAD: &[u8] = b"{\"iss\":\"joe\",\r\n \"exp\":1300819380,\r\n \"http://example.com/is_root\":true}";
const PAYLOAD_PART: &str =
    "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";

fn key(material: &[u8]) -> SigningKey {
    SigningKey::load(material, None, None).unwrap()
}

#[test]
fn hs256_is_the_example_of_rfc_7515_a_1() {
    let secret = "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow";
    // The example's key is no text, so the one thing we cannot do is to keep it in a secret.
    let octets = URL_SAFE_NO_PAD.decode(secret).unwrap();
    let message = format!("eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.{PAYLOAD_PART}");
    let mac = hmac::sign(&hmac::Key::new(MacAlgorithm::Hs256.hmac(), &octets), message.as_bytes());
    assert_eq!(URL_SAFE_NO_PAD.encode(mac), "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk");
}

#[test]
fn rs256_is_the_example_of_rfc_7515_a_2() {
    let signed = compact(b"{\"alg\":\"RS256\"}", PAYLOAD, Signer::Key(&key(keys::RFC7515_A2))).unwrap();
    let signature = "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W\
         2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L\
         07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI\
         8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw";
    assert_eq!(signed.expose(), format!("eyJhbGciOiJSUzI1NiJ9.{PAYLOAD_PART}.{signature}"));
}

#[test]
fn es256_has_the_form_of_rfc_7515_a_3() {
    let key = key(keys::RFC7515_A3);
    let signed = compact(b"{\"alg\":\"ES256\"}", PAYLOAD, Signer::Key(&key)).unwrap();
    let (message, signature) = signed.expose().rsplit_once('.').unwrap();
    assert_eq!(message, format!("eyJhbGciOiJFUzI1NiJ9.{PAYLOAD_PART}"));
    let (x, y) =
        ("f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0");
    let verifier = DecodingKey::from_ec_components(x, y).unwrap();
    let example = "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";
    for signature in [signature, example] {
        let good = jsonwebtoken::crypto::verify(signature, message.as_bytes(), &verifier, Algorithm::ES256);
        assert!(good.unwrap());
    }
}

#[test]
fn eddsa_is_the_example_of_rfc_8037_a_4() {
    let payload = b"Example of Ed25519 signing";
    let signed = compact(b"{\"alg\":\"EdDSA\"}", payload, Signer::Key(&key(keys::RFC8037_A1))).unwrap();
    assert_eq!(
        signed.expose(),
        "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIb\
         QR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"
    );
}

fn claims() -> Map<String, Value> {
    // RFC 7523 section 4.
    let claims = json!({ "iss": "https://jwt-idp.example.com", "sub": "mailto:mike@example.com",
        "aud": "https://jwt-rp.example.net", "nbf": 1300815780, "exp": 1300819380,
        "http://claims.example.com/member": true });
    claims.as_object().unwrap().clone()
}

fn validation(algorithm: Algorithm) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.validate_exp = false;
    validation.set_audience(&["https://jwt-rp.example.net"]);
    validation.set_issuer(&["https://jwt-idp.example.com"]);
    validation
}

#[test]
fn another_library_reads_the_claims_of_rfc_7523_section_4() {
    let key = key(keys::P256).with_kid("16");
    let jwk = key.public_jwk();
    let member = |name: &str| jwk[name].as_str().unwrap();
    let signed = Jwt::new(claims()).sign(Signer::Key(&key)).unwrap();
    let verifier = DecodingKey::from_ec_components(member("x"), member("y")).unwrap();
    let read =
        jsonwebtoken::decode::<Map<String, Value>>(signed.expose(), &verifier, &validation(Algorithm::ES256));
    let read = read.unwrap();
    assert_eq!(read.claims, claims());
    assert_eq!((read.header.typ.as_deref(), read.header.kid.as_deref()), (Some("JWT"), Some("16")));
}

#[test]
fn another_library_verifies_every_mac() {
    let secret = Secret::from("a client secret of some length: 0123456789 ÄÖÜ");
    for (mac, algorithm) in
        [("HS256", Algorithm::HS256), ("HS384", Algorithm::HS384), ("HS512", Algorithm::HS512)]
    {
        let signed = Jwt::new(claims()).sign(Signer::Secret(mac.parse().unwrap(), &secret)).unwrap();
        let verifier = DecodingKey::from_secret(secret.expose().as_bytes());
        let read =
            jsonwebtoken::decode::<Map<String, Value>>(signed.expose(), &verifier, &validation(algorithm));
        let read = read.unwrap();
        assert_eq!((read.claims, read.header.kid), (claims(), None));
    }
    assert_eq!("RS256".parse::<MacAlgorithm>(), Err(UnknownMac));
}

fn header(jwt: &Secret) -> Value {
    let part = jwt.expose().split('.').next().unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

#[test]
fn the_header_names_the_key_unless_it_holds_it() {
    let chain = key(keys::RSA_CHAIN);
    let named = header(&Jwt::new(claims()).sign(Signer::Key(&chain)).unwrap());
    let expected = json!({ "alg": "RS256", "typ": "JWT", "kid": chain.thumbprint(),
        "x5t": chain.x5t(), "x5t#S256": chain.x5t_s256() });
    assert_eq!(named, expected);

    let proof = Jwt::new(claims()).typ("dpop+jwt").header("jwk", chain.bare_jwk());
    let held = header(&proof.sign(Signer::Key(&chain)).unwrap());
    assert_eq!(held, json!({ "alg": "RS256", "typ": "dpop+jwt", "jwk": chain.bare_jwk() }));
}

#[test]
fn identifiers_are_not_repeated() {
    assert_ne!(unique_id(&SystemEntropy), unique_id(&SystemEntropy));
    assert_eq!(unique_id(&SystemEntropy).len(), 22);
}
