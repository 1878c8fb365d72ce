//! Clients that prove themselves with a signature, at a server that verifies it; and assertions as
//! grants.

use claviger_actors::protocol::signing_key::{SignatureAlgorithm, SigningKey};
use claviger_actors::testing::keys;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::{Map, Value, json};

use crate::support::gateway::{Gateway, assert_no_secret};
use crate::support::gateway_config::GatewayConfig;
use crate::support::http;
use crate::support::oidc_provider::{CLIENT_SECRET, OidcProvider, OidcProviderBuilder};
use crate::support::scene::{Scene, ScriptedScene};
use crate::support::scripted_as::Answer;
use crate::support::upstream::Upstream;

/// Every algorithm that the server is to take; its own default leaves the HMAC ones with long secrets.
fn all_algorithms(provider: OidcProviderBuilder) -> OidcProviderBuilder {
    let names = ["HS256", "HS384", "HS512", "RS256", "PS256", "ES256", "ES384", "EdDSA"];
    provider.options(json!({
        "enabledJWA": { "clientAuthSigningAlgValues": names },
        "clientAuthMethods":
            ["client_secret_basic", "client_secret_post", "client_secret_jwt", "private_key_jwt", "none"],
    }))
}

fn client(id: &str, method: &str, further: Value) -> Value {
    let mut client = json!({
        "client_id": id, "token_endpoint_auth_method": method,
        "redirect_uris": [], "response_types": [], "grant_types": ["client_credentials"],
    });
    for (name, value) in further.as_object().unwrap() {
        client[name] = value.clone();
    }
    client
}

fn material(algorithm: SignatureAlgorithm) -> &'static [u8] {
    match algorithm.name() {
        "ES256" => keys::P256,
        "ES384" => keys::P384,
        "EdDSA" => keys::ED25519,
        _ => keys::RSA,
    }
}

/// A server that takes all algorithms, and is told the redirection endpoint before it starts. Nothing
/// has the profile `calendar` yet.
async fn scene_with(set_up: impl FnOnce(OidcProviderBuilder, &str) -> OidcProviderBuilder) -> Scene {
    let mut config = GatewayConfig::new();
    let callback = config.callback();
    let provider = set_up(all_algorithms(OidcProvider::builder(&callback)), &callback).start().await;
    let upstream = Upstream::start().await;
    upstream.check_at(&provider.issuer);
    config.section("providers.idp", &format!("issuer = \"{}\"", provider.issuer));
    config.call_through("calendar", &upstream);
    Scene { provider, upstream, config }
}

/// A file beside the configuration, as a secret in TOML.
fn file(config: &GatewayConfig, name: &str, bytes: &[u8]) -> String {
    let path = config.folder().join(name);
    std::fs::write(&path, bytes).unwrap();
    format!("{{ file = {:?} }}", path.display().to_string())
}

/// The profile `calendar` of a client that no person stands behind.
fn machine(config: &mut GatewayConfig, client: &str, method: &str, lines: &str) {
    let body = format!(
        "provider = \"idp\"\nclient_id = \"{client}\"\ngrant = \"client_credentials\"\nscopes = [\"calendar\"]\n\
         client_auth = \"{method}\"\n{lines}"
    );
    config.section("profiles.calendar", &body);
}

/// Has a new token obtained, and says with which status that was answered.
async fn obtain_anew(gateway: &Gateway) -> u16 {
    gateway.admin("POST", "/api/connections/calendar/billing/refresh").send().await.status
}

#[tokio::test]
async fn a_client_secret_signs_with_every_mac() {
    let mut scene = scene_with(|provider, _| {
        ["HS256", "HS384", "HS512"].iter().fold(provider, |provider, name| {
            let secret =
                json!({ "client_secret": CLIENT_SECRET.repeat(2), "token_endpoint_auth_signing_alg": name });
            provider.client(client(name, "client_secret_jwt", secret))
        })
    })
    .await;
    for name in ["HS256", "HS384", "HS512"] {
        let secret = CLIENT_SECRET.repeat(2);
        machine(
            &mut scene.config,
            name,
            "client_secret_jwt",
            &format!("client_secret = {secret:?}\nsigning_alg = \"{name}\""),
        );
        let gateway = scene.config.start().await;
        if name != "HS256" {
            assert_eq!(obtain_anew(&gateway).await, 200, "{name}: {}", gateway.log());
        }
        gateway.token_used().await;
        assert_eq!(http_keys(&gateway).await, [] as [Value; 0]);
        gateway.assert_no_secret_in_log(&[secret]);
        scene.config = gateway.stop().await.2;
    }
    assert_eq!(scene.provider.count("client_credentials").await, 3);
    assert_eq!(scene.provider.count("total").await, 3);
}

#[tokio::test]
async fn while_a_secret_is_exchanged_the_one_that_works_is_found_and_kept() {
    let mut scene = scene_with(|provider, _| {
        let secret = json!({ "client_secret": CLIENT_SECRET });
        provider.client(client("signer", "client_secret_jwt", secret))
    })
    .await;
    let secrets = format!("client_secret = [\"not yet known to the server, but soon\", {CLIENT_SECRET:?}]");
    machine(&mut scene.config, "signer", "client_secret_jwt", &secrets);
    let gateway = scene.config.start().await;
    gateway.token_used().await;
    assert_eq!(scene.provider.count("total").await, 2, "the new one, then the old one");
    assert_eq!(obtain_anew(&gateway).await, 200);
    assert_eq!(scene.provider.count("total").await, 3, "the old one at once");
}

#[tokio::test]
async fn a_private_key_signs_with_every_kind_of_key() {
    let algorithms =
        ["RS256", "PS256", "ES256", "ES384", "EdDSA"].map(|name| name.parse::<SignatureAlgorithm>().unwrap());
    let mut scene = scene_with(|provider, _| {
        algorithms.iter().fold(provider, |provider, algorithm| {
            let jwk = SigningKey::load(material(*algorithm), None, Some(*algorithm)).unwrap().public_jwk();
            let key =
                json!({ "jwks": { "keys": [jwk] }, "token_endpoint_auth_signing_alg": algorithm.name() });
            provider.client(client(algorithm.name(), "private_key_jwt", key))
        })
    })
    .await;
    for (index, algorithm) in algorithms.iter().enumerate() {
        let key = file(&scene.config, "key.pem", material(*algorithm));
        let lines = format!("signing_key = {key}\nsigning_alg = \"{algorithm}\"");
        machine(&mut scene.config, algorithm.name(), "private_key_jwt", &lines);
        let gateway = scene.config.start().await;
        if index > 0 {
            assert_eq!(obtain_anew(&gateway).await, 200, "{algorithm}: {}", gateway.log());
        }
        gateway.token_used().await;
        scene.config = gateway.stop().await.2;
    }
    assert_eq!(scene.provider.count("client_credentials").await, 5);

    // And a key that is not the client's does not.
    let key = file(&scene.config, "key.pem", keys::RFC7515_A3);
    machine(&mut scene.config, "ES256", "private_key_jwt", &format!("signing_key = {key}"));
    let gateway = scene.config.start().await;
    assert_ne!(obtain_anew(&gateway).await, 200);
}

async fn http_keys(gateway: &Gateway) -> Vec<Value> {
    let answer = http::get(&gateway.public_url("/jwks.json")).send().await.expect_status(200);
    assert_eq!(answer.header("content-type"), Some("application/jwk-set+json"));
    assert_eq!(answer.header("cache-control"), Some("max-age=300"));
    answer.json()["keys"].as_array().unwrap().clone()
}

#[tokio::test]
async fn a_key_is_exchanged_for_another_while_both_are_published() {
    let mut scene = scene_with(|provider, callback| {
        let jwks_uri = callback.replace("/callback", "/jwks.json");
        let keys = json!({ "jwks_uri": jwks_uri, "token_endpoint_auth_signing_alg": "ES256" });
        provider.client(client("signer", "private_key_jwt", keys))
    })
    .await;
    let old = file(&scene.config, "old.pem", keys::P256);
    let new = file(&scene.config, "new.jwk", keys::RFC7515_A3);
    let never = file(&scene.config, "never.jwk", &p256_jwk());
    let thumbprint = |bytes| SigningKey::load(bytes, None, None).unwrap().thumbprint().to_owned();
    let (old_kid, new_kid) = (thumbprint(keys::P256), thumbprint(keys::RFC7515_A3));

    let steps = [
        (format!("[{old}, {new}]"), vec![&old_kid, &new_kid]),
        (format!("[{new}, {old}]"), vec![&new_kid, &old_kid]),
        (new.clone(), vec![&new_kid]),
    ];
    for (step, (key, published)) in steps.into_iter().enumerate() {
        machine(&mut scene.config, "signer", "private_key_jwt", &format!("signing_key = {key}"));
        let gateway = scene.config.start().await;
        let keys = http_keys(&gateway).await;
        assert_eq!(keys.iter().map(|key| key["kid"].as_str().unwrap()).collect::<Vec<_>>(), published);
        assert!(keys.iter().all(|key| key.get("d").is_none()), "{keys:?}");
        if step > 0 {
            assert_eq!(obtain_anew(&gateway).await, 200, "{}", gateway.log());
        }
        gateway.token_used().await;
        scene.config = gateway.stop().await.2;
    }
    // The server still has the set of the first step: a key that was never in it is refused.
    machine(&mut scene.config, "signer", "private_key_jwt", &format!("signing_key = {never}"));
    let gateway = scene.config.start().await;
    assert_ne!(obtain_anew(&gateway).await, 200);
    let head = http::request("HEAD", &gateway.public_url("/jwks.json")).send().await;
    assert_eq!(head.status, 200);
    http::request("POST", &gateway.public_url("/jwks.json")).send().await.expect_status(405);
}

/// A P-256 key that is in no set.
fn p256_jwk() -> Vec<u8> {
    let key = SigningKey::generate(SignatureAlgorithm::Es256).unwrap();
    key.to_pkcs8().unwrap().expose().to_vec()
}

#[tokio::test]
async fn a_managed_key_is_made_published_and_kept_over_a_restart() {
    let mut scene = scene_with(|provider, callback| {
        let jwks_uri = callback.replace("/callback", "/jwks.json");
        let keys = json!({ "jwks_uri": jwks_uri, "token_endpoint_auth_signing_alg": "ES256" });
        provider.client(client("signer", "private_key_jwt", keys))
    })
    .await;
    machine(&mut scene.config, "signer", "private_key_jwt", "signing_key = \"managed\"");
    let gateway = scene.config.start().await;
    gateway.token_used().await;
    let keys = http_keys(&gateway).await;
    assert_eq!((keys.len(), &keys[0]["alg"], keys[0].get("d")), (1, &json!("ES256"), None));
    let gateway = gateway.kill().await.start().await;
    assert_eq!(http_keys(&gateway).await, keys);
    assert_eq!(obtain_anew(&gateway).await, 200);
    assert_eq!(scene.provider.count("client_credentials").await, 2);
}

#[tokio::test]
async fn a_person_connects_refreshes_and_revokes_with_a_signing_client() {
    let jwk = SigningKey::load(keys::ED25519, None, None).unwrap().public_jwk();
    let mut scene = scene_with(|provider, callback| {
        provider.client(json!({
            "client_id": "signer", "token_endpoint_auth_method": "private_key_jwt", "redirect_uris": [callback],
            "response_types": ["code"], "grant_types": ["authorization_code", "refresh_token"],
            "jwks": { "keys": [jwk] }, "token_endpoint_auth_signing_alg": "EdDSA",
        }))
    })
    .await;
    let key = file(&scene.config, "key.pem", keys::ED25519);
    let profile = format!(
        "provider = \"idp\"\nclient_id = \"signer\"\ngrant = \"authorization_code\"\nscopes = [\"openid\", \"calendar\"]\n\
         client_auth = \"private_key_jwt\"\nsigning_key = {key}\nclient_assertion_audience = \"token_endpoint\""
    );
    scene.config.section("profiles.calendar", &profile);
    let gateway = scene.config.start().await;
    gateway.connect("alice").await;
    gateway.token_used().await;
    assert_eq!(obtain_anew(&gateway).await, 200);
    assert_eq!(scene.provider.count("refresh_token").await, 1);
    gateway.admin("DELETE", "/api/connections/calendar/billing").send().await.expect_status(204);
    assert!(scene.provider.count("revocation").await >= 1, "nothing was revoked");
    assert_eq!(scene.provider.grants().await, 0);
    let private = std::str::from_utf8(keys::ED25519).unwrap().lines().nth(1).unwrap().to_owned();
    assert_no_secret(&gateway.log(), &[private]);
}

/// The claims of an assertion that was sent, once the key's public half has verified it.
pub(crate) fn verified(jwt: &str, key: &SigningKey) -> Map<String, Value> {
    let jwk = key.public_jwk();
    let member = |name: &str| jwk[name].as_str().unwrap();
    let verifier = DecodingKey::from_ec_components(member("x"), member("y")).unwrap();
    let mut validation = Validation::new(Algorithm::ES256);
    validation.validate_aud = false;
    let data = jsonwebtoken::decode(jwt, &verifier, &validation).unwrap();
    assert_eq!(data.header.kid.as_deref(), Some(key.kid()));
    data.claims
}

#[tokio::test]
async fn an_assertion_vouches_for_each_subject_without_consent_and_anew_each_time() {
    let mut scene = ScriptedScene::machine().await;
    let key = file(&scene.config, "key.pem", keys::P256_SEC1);
    let profile =
        "provider = \"script\"\nclient_auth = \"none\"\ngrant = \"jwt_bearer\"\nscopes = [\"calendar\"]";
    scene.config.section("profiles.calendar", profile);
    let assertion = format!(
        "signing_key = {key}\nkey_id = \"k7\"\nissuer = \"https://idp.example\"\nsubject = \"{{subject}}@acme.example\"\n\
         lifetime = \"3m\"\nclaims = {{ team = \"blue\" }}"
    );
    scene.config.section("profiles.calendar.assertion", &assertion);
    let granted = |token: &str| {
        Answer::ok(json!({ "access_token": token, "token_type": "Bearer", "expires_in": 3600 }))
    };
    scene.server.next(granted("first"));
    scene.server.next(granted("second"));
    let gateway = scene.config.start().await;
    assert_eq!(gateway.token_used().await, "first");
    assert_eq!(obtain_anew(&gateway).await, 200);
    assert_eq!(gateway.token_used().await, "second");

    let forms = scene.server.forms();
    assert_eq!(forms.len(), 2);
    let key = SigningKey::load(keys::P256, None, None).unwrap().with_kid("k7");
    let mut identifiers = Vec::new();
    for form in &forms {
        assert_eq!(
            form.keys().collect::<Vec<_>>(),
            ["assertion", "grant_type", "scope"],
            "no client is named"
        );
        assert_eq!(form["grant_type"], "urn:ietf:params:oauth:grant-type:jwt-bearer");
        let claims = verified(&form["assertion"], &key);
        assert_eq!(
            (&claims["iss"], &claims["sub"]),
            (&json!("https://idp.example"), &json!("billing@acme.example"))
        );
        assert_eq!(claims["aud"], format!("http://{}/token", scene.server.address));
        assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), 180);
        assert_eq!(claims["team"], "blue");
        identifiers.push(claims["jti"].clone());
    }
    assert_ne!(identifiers[0], identifiers[1]);
    assert_eq!(http_keys(&gateway).await, [key.public_jwk()]);
    let assertions: Vec<String> = forms.iter().map(|form| form["assertion"].clone()).collect();
    gateway.assert_no_secret_in_log(&assertions);
}

#[tokio::test]
async fn a_certificate_that_has_ended_fails_the_check_and_keeps_no_gateway_from_starting() {
    let mut scene = ScriptedScene::machine().await;
    let key = file(&scene.config, "key.pem", keys::RSA);
    let ended = file(&scene.config, "ended.pem", keys::RSA_EXPIRED_CERTIFICATE);
    let lines = format!("signing_key = {key}\ncertificate = {ended}");
    machine(&mut scene.config, "c", "private_key_jwt", &lines);
    scene.config.section("providers.idp", &scene.server.provider_toml());
    let finished = scene.config.run("check").await;
    assert_eq!(finished.status.code(), Some(1), "{finished:?}");
    let text = finished.text();
    assert!(text.contains("profiles.calendar.certificate: the certificate of signing key "), "{text}");
    assert!(text.contains("ended at 2021-01-01T00:00:00Z; put a new one in its place"), "{text}");
    assert!(!text.contains("good"), "{text}");
    scene.config.start().await.token_used().await;
}

#[tokio::test]
async fn bad_keys_are_told_all_at_once_before_anything_starts() {
    let mut scene = ScriptedScene::machine().await;
    let small = file(&scene.config, "small.pem", keys::RSA_1024);
    let sealed = file(&scene.config, "sealed.pem", keys::RSA_ENCRYPTED);
    let lines = |key: &str| {
        format!(
            "provider = \"script\"\nclient_id = \"c\"\ngrant = \"client_credentials\"\nclient_auth = \"private_key_jwt\"\nsigning_key = {key}"
        )
    };
    scene.config.section("profiles.calendar", &lines(&small));
    scene.config.section("profiles.other", &lines(&sealed));
    let finished = Gateway::spawn(scene.config.clone()).wait_for_failure().await;
    for fault in [
        "profiles.calendar.signing_key: is an RSA key of 1024 bits; make one of at least 2048",
        "profiles.other.signing_key: is encrypted; give its password as `signing_key_password`",
    ] {
        assert!(finished.text().contains(fault), "{}", finished.text());
    }
}
