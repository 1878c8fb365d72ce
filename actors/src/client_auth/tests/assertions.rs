//! `client_secret_jwt` and `private_key_jwt`: what is asserted, and who can verify it.

use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::{Map, Value, json};

use super::*;
use crate::registration::quirks::AssertionAudience;
use crate::testing::{keys, profiles};

const SECRET: &str = "a client secret that is long enough for HS256";

fn build<const N: usize>(
    method: &str,
    given: [(&str, Setting); N],
) -> Result<Arc<dyn ClientAuthentication>, SettingsError> {
    let mut settings = Settings::default();
    for (key, setting) in given {
        settings.insert(key, setting);
    }
    let built = (find(method).unwrap().build)(&mut settings);
    if built.is_ok() {
        assert_eq!(settings.leftovers().count(), 0);
    }
    built
}

fn text(text: &str) -> Setting {
    Setting::Value(text.into())
}

fn with_key<const N: usize>(given: [(&str, Setting); N]) -> Arc<dyn ClientAuthentication> {
    let mut settings = Settings::default();
    settings.insert("signing_key", Setting::Secret(std::str::from_utf8(keys::P256).unwrap().into()));
    for (key, setting) in given {
        settings.insert(key, setting);
    }
    (find("private_key_jwt").unwrap().build)(&mut settings).unwrap()
}

fn assertion(method: &Arc<dyn ClientAuthentication>, context: &ClientAuthContext<'_>) -> Secret {
    let mut request = TokenRequest::new("client_credentials");
    method.authenticate(context, &mut request).unwrap();
    assert!(request.headers.is_empty());
    assert_eq!(request.get("client_id").unwrap().expose(), context.client_id);
    assert!(request.get("client_secret").is_none());
    let kind = request.get("client_assertion_type").unwrap().expose();
    assert_eq!(kind, "urn:ietf:params:oauth:client-assertion-type:jwt-bearer");
    request.get("client_assertion").unwrap().clone()
}

/// The claims of `jwt` once `key` has verified its signature.
fn verified(jwt: &Secret, key: &DecodingKey, algorithm: Algorithm) -> Map<String, Value> {
    let mut validation = Validation::new(algorithm);
    (validation.validate_exp, validation.validate_aud) = (false, false);
    jsonwebtoken::decode(jwt.expose(), key, &validation).unwrap().claims
}

fn p256() -> DecodingKey {
    let key = crate::protocol::signing_key::SigningKey::load(keys::P256, None, None).unwrap();
    let jwk = key.public_jwk();
    DecodingKey::from_ec_components(jwk["x"].as_str().unwrap(), jwk["y"].as_str().unwrap()).unwrap()
}

#[test]
fn the_claims_are_those_of_rfc_7523_section_3() {
    let quirks = Quirks::default();
    let context = ClientAuthContext { issuer: Some("https://as.example"), ..context(&quirks) };
    let method = with_key([]);
    let mut claims = verified(&assertion(&method, &context), &p256(), Algorithm::ES256);
    let jti = claims.remove("jti").unwrap();
    let expected = json!({ "iss": "s6BhdRkqt3", "sub": "s6BhdRkqt3", "aud": "https://as.example",
        "iat": 1_700_000_000, "exp": 1_700_000_060 });
    assert_eq!(Value::Object(claims), expected);
    let again = verified(&assertion(&method, &context), &p256(), Algorithm::ES256);
    assert_ne!(again["jti"], jti, "servers refuse an assertion that they have seen");

    let method = with_key([("client_assertion_not_before", Setting::Value(true.into()))]);
    assert_eq!(verified(&assertion(&method, &context), &p256(), Algorithm::ES256)["nbf"], 1_700_000_000);
}

#[test]
fn the_audience_is_the_profiles_else_the_providers_else_the_issuer() {
    let endpoint = profiles::url("https://as.example/token");
    let audience = |method: &Arc<dyn ClientAuthentication>, quirks: &Quirks, issuer| {
        let context = ClientAuthContext { issuer, token_endpoint: Some(&endpoint), ..context(quirks) };
        let claims = verified(&assertion(method, &context), &p256(), Algorithm::ES256);
        claims["aud"].as_str().unwrap().to_owned()
    };
    let plain = Quirks::default();
    let old = Quirks { client_assertion_audience: AssertionAudience::TokenEndpoint, ..Quirks::default() };
    let issuer = Some("https://as.example");
    let silent = with_key([]);
    assert_eq!(audience(&silent, &plain, issuer), "https://as.example");
    assert_eq!(audience(&silent, &plain, None), "https://as.example/token");
    assert_eq!(audience(&silent, &old, issuer), "https://as.example/token");
    let wish = |audience| with_key([("client_assertion_audience", text(audience))]);
    assert_eq!(audience(&wish("issuer"), &old, issuer), "https://as.example");
    assert_eq!(audience(&wish("token_endpoint"), &plain, issuer), "https://as.example/token");
    assert_eq!(audience(&wish("https://other.example"), &old, issuer), "https://other.example");

    let mut request = TokenRequest::default();
    let fault = silent.authenticate(&context(&plain), &mut request).unwrap_err().to_string();
    assert!(fault.contains("set `client_assertion_audience`"), "{fault}");
    let wrong =
        [("client_secret", Setting::Secret(SECRET.into())), ("client_assertion_audience", text("iss"))];
    let fault = build("client_secret_jwt", wrong).unwrap_err().to_string();
    assert_eq!(fault, "client_assertion_audience: must be \"issuer\", \"token_endpoint\" or a URI");
}

#[test]
fn a_secret_signs_and_each_of_several_in_its_turn() {
    let quirks = Quirks::default();
    let secrets = Setting::List(vec![Setting::Secret("new".into()), Setting::Secret(SECRET.into())]);
    let method =
        build("client_secret_jwt", [("client_secret", secrets), ("signing_alg", text("HS384"))]).unwrap();
    assert_eq!(method.credentials(), 2);
    for (credential, secret) in [(0, "new"), (1, SECRET)] {
        let context =
            ClientAuthContext { credential, issuer: Some("https://as.example"), ..context(&quirks) };
        let key = DecodingKey::from_secret(secret.as_bytes());
        assert_eq!(verified(&assertion(&method, &context), &key, Algorithm::HS384)["iss"], "s6BhdRkqt3");
    }
    let fault = build("client_secret_jwt", [("signing_alg", text("RS256"))]).unwrap_err().to_string();
    assert!(
        fault.starts_with("signing_alg: \"RS256\" is no signature algorithm with a shared secret"),
        "{fault}"
    );
}

#[test]
fn the_header_names_key_and_certificate_and_all_keys_are_published() {
    let file = |bytes| Setting::Secret(std::str::from_utf8(bytes).unwrap().into());
    let method = build(
        "private_key_jwt",
        [
            ("signing_key", Setting::List(vec![file(keys::RSA), file(keys::ED25519)])),
            ("key_id", text("2026")),
            ("signing_alg", text("PS256")),
            ("certificate", file(keys::RSA_CERTIFICATE)),
        ],
    );
    let method = method.unwrap();
    let quirks = Quirks::default();
    let context = ClientAuthContext { issuer: Some("https://as.example"), ..context(&quirks) };
    let header = jsonwebtoken::decode_header(assertion(&method, &context).expose()).unwrap();
    assert_eq!((header.alg, header.kid.as_deref()), (Algorithm::PS256, Some("2026")));
    let published = method.signing_keys();
    assert_eq!(published[0].x5t_s256(), header.x5t_s256);
    assert_eq!(published.iter().map(|key| key.algorithm().name()).collect::<Vec<_>>(), ["PS256", "EdDSA"]);

    let fault = build("private_key_jwt", []).unwrap_err().to_string();
    assert_eq!(fault, "signing_key: is missing; client_auth = \"private_key_jwt\" needs it");
}
