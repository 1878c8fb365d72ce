//! How a person is asked: pushed and signed requests, what they carry, and more scopes later.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use claviger_actors::protocol::signing_key::SigningKey;
use claviger_actors::testing::keys;
use serde_json::{Value, json};

use crate::support::browser::Browser;
use crate::support::dpop_upstream::DpopUpstream;
use crate::support::gateway::{Gateway, assert_no_secret};
use crate::support::gateway_config::GatewayConfig;
use crate::support::http;
use crate::support::oidc_provider::{OidcProvider, OidcProviderBuilder};
use crate::support::scene::Scene;
use crate::support::upstream::Upstream;

/// Who the provider says the token in use belongs to.
async fn told(scene: &Scene, gateway: &Gateway) -> Value {
    scene.provider.describe_token(&gateway.token_used().await).await
}

/// A scene whose provider knows the scope `files` as well, and whose profile has these lines.
async fn scene(lines: &str, set_up: impl FnOnce(OidcProviderBuilder) -> OidcProviderBuilder) -> Scene {
    let scopes = json!(["openid", "offline_access", "calendar", "files"]);
    let mut scene = Scene::person_at(|provider| set_up(provider.scopes(scopes))).await;
    scene.config.extend("profiles.calendar", lines);
    scene
}

/// Where the connect link of a call leads.
async fn sent_to(gateway: &Gateway) -> url::Url {
    let link = gateway.authorization_url("/calendar/events").await;
    let page = Browser::new().open(&link).await;
    page.response.clone().expect_status(302);
    page.redirect().unwrap()
}

#[tokio::test]
async fn a_pushed_request_connects_and_the_browser_carries_a_reference_only() {
    let required = json!({ "pushedAuthorizationRequests": { "enabled": true, "requirePushedAuthorizationRequests": true } });
    for (lines, features) in [("par = true", json!({})), ("", required)] {
        let scene = scene(lines, |provider| provider.features(features)).await;
        let gateway = scene.config.start().await;

        let url = sent_to(&gateway).await;
        let names: Vec<_> = url.query_pairs().map(|(name, _)| name.into_owned()).collect();
        assert_eq!(names, ["client_id", "request_uri"], "{url}");
        gateway.connect("alice").await;
        assert_eq!(told(&scene, &gateway).await["account"], "alice");
        assert_eq!(scene.provider.count("pushed").await, 2);
        let asked = &scene.provider.asked().await[0];
        assert_eq!(
            (&asked["scope"], &asked["code_challenge_method"]),
            (&json!("calendar openid"), &json!("S256"))
        );
        gateway.assert_no_secret_in_log(&[]);
    }
}

#[tokio::test]
async fn a_refused_push_is_told_to_the_person_and_in_the_log() {
    let mut scene = scene("par = true", |provider| provider).await;
    scene.config.extend("profiles.calendar", "resource = [\"https://unknown.example/\"]");
    let gateway = scene.config.start().await;
    let link = gateway.authorization_url("/calendar/events").await;
    let page = Browser::new().open(&link).await.response.expect_status(502);
    assert!(page.text().contains("The provider gave no access"), "{}", page.text());
    let (_, log, config) = gateway.stop().await;
    let said = log.lines().find(|line| line.contains("pushed authorization request"));
    assert!(said.is_some_and(|line| line.contains("calendar")), "{log}");
    assert_no_secret(&log, config.secrets.iter());
}

#[tokio::test]
async fn details_and_resources_are_asked_for_and_end_up_in_the_token() {
    let details = "authorization_details = [{ type = \"account\", owner = \"{subject}\", limit = 5 }]\n";
    let lines = format!("{details}resource = [\"https://api.example/\"]");
    for par in ["", "\npar = true"] {
        let scene = scene(&format!("{lines}{par}"), |provider| {
            provider.resources(json!(["https://api.example/"])).detail_types(json!(["account"]))
        })
        .await;
        let gateway = scene.config.start().await;
        gateway.connect("alice").await;
        let told = told(&scene, &gateway).await;
        assert_eq!(told["audience"], "https://api.example/", "{told}");
        assert_eq!(told["details"], json!([{ "type": "account", "owner": "billing", "limit": 5 }]), "{told}");
        // A refresh keeps to the resource.
        gateway.admin("POST", "/api/connections/calendar/billing/refresh").send().await.expect_status(200);
        let told = scene.provider.describe_token(&gateway.token_used().await).await;
        assert_eq!(told["audience"], "https://api.example/", "{told}");
    }
}

#[tokio::test]
async fn how_a_person_is_to_be_asked_is_passed_on() {
    let lines = "max_age = \"5m\"\nacr_values = \"urn:acme:mfa\"\nprompt = \"consent\"\n\
                 login_hint = \"{subject}@corp.example\"\nclaims = { id_token = { email = { essential = true } } }";
    let scene =
        scene(lines, |provider| provider.features(json!({ "claimsParameter": { "enabled": true } }))).await;
    let gateway = scene.config.start().await;
    gateway.connect("alice").await;
    let asked = scene.provider.asked().await[0].clone();
    assert_eq!(asked["max_age"].to_string().trim_matches('"'), "300", "{asked}");
    assert_eq!(asked["acr_values"], "urn:acme:mfa");
    assert_eq!(asked["prompt"], "consent");
    assert_eq!(asked["login_hint"], "billing@corp.example");
    let claims: Value = serde_json::from_str(asked["claims"].as_str().unwrap()).unwrap();
    assert_eq!(claims, json!({ "id_token": { "email": { "essential": true } } }));
    assert_eq!(told(&scene, &gateway).await["account"], "alice");
}

#[tokio::test]
async fn a_route_that_needs_more_has_the_person_asked_for_everything_once() {
    let mut scene = scene("", |provider| provider).await;
    let route = format!(
        "path = \"/files\"\nupstream = \"{}/api\"\nprofile = \"calendar\"\nsubject = \"caller\"\nscopes = [\"files\"]",
        scene.upstream.url()
    );
    scene.config.section("routes.files", &route);
    scene.config.caller("billing", "[\"calendar\", \"files\"]");
    let gateway = scene.config.start().await;

    gateway.connect("alice").await;
    let first = gateway.token_used().await;
    let view = gateway.connection("calendar", "billing").await;
    assert_eq!(view["scope"], "calendar openid", "{view}");

    let link = gateway.authorization_url("/files/x").await;
    assert_eq!(gateway.token_used().await, first, "the other route goes on");
    assert_eq!(scene.provider.count("total").await, 1, "a refresh brings no further scopes");
    Browser::new().consent(&link, "alice", &gateway.config.callback()).await.response.expect_status(200);
    assert_eq!(scene.provider.asked().await.last().unwrap()["scope"], "calendar files openid");

    let echo = gateway.call("/files/x").await.expect_status(200).json();
    let token = echo["token"].as_str().unwrap();
    assert_eq!(scene.provider.describe_token(token).await["scope"], "calendar files openid");
    assert_eq!(gateway.token_used().await, token, "one token set serves both");
    assert_eq!(scene.provider.count("total").await, 2);
}

#[tokio::test]
async fn without_a_person_a_route_that_needs_more_gets_a_wider_token() {
    let scopes = json!(["openid", "offline_access", "calendar", "files"]);
    let mut scene = Scene::machine_at(|provider| provider.scopes(scopes)).await;
    for (name, scope) in [("files", "files"), ("secret", "nobody-has-it")] {
        let route = format!(
            "path = \"/{name}\"\nupstream = \"{}/api\"\nprofile = \"calendar\"\nscopes = [\"{scope}\"]",
            scene.upstream.url()
        );
        scene.config.section(&format!("routes.{name}"), &route);
    }
    scene.config.caller("billing", "[\"calendar\", \"files\", \"secret\"]");
    let gateway = scene.config.start().await;
    assert_eq!(told(&scene, &gateway).await["scope"], "calendar");
    gateway.call("/files/x").await.expect_status(200);
    assert_eq!(told(&scene, &gateway).await["scope"], "calendar files");
    assert_eq!(scene.provider.count("total").await, 2);
    for _ in 0..3 {
        let problem = gateway.call("/secret/x").await.expect_problem(502, "token_unavailable");
        assert!(problem["detail"].as_str().unwrap().contains("nobody-has-it"), "{problem}");
    }
    assert!(scene.provider.count("total").await <= 3, "no request with every call");
    gateway.call("/files/x").await.expect_status(200);
}

#[tokio::test]
async fn a_program_takes_its_own_state_and_scopes_along() {
    let scene = scene("", |provider| provider).await;
    let gateway = scene.config.start().await;
    let wanted = json!({
        "profile": "calendar", "subject": "billing", "return_to": gateway.public_url("/welcome?a=1"),
        "scopes": ["files"], "state": { "cart": "1&2", "step": "pay" },
    });
    let session =
        gateway.admin("POST", "/api/connect-sessions").json(&wanted).send().await.expect_status(200).json();
    let url = session["url"].as_str().unwrap();
    let page = Browser::new().consent(url, "alice", &gateway.config.callback()).await;
    let back = page.redirect().unwrap();
    assert_eq!(back.as_str(), gateway.public_url("/welcome?a=1&cart=1%262&step=pay"));
    let asked = scene.provider.asked().await.remove(0);
    assert_eq!(asked["scope"], "calendar files openid");
    assert!(!asked.to_string().contains("cart") && !asked.to_string().contains("pay"), "{asked}");
    assert_eq!(told(&scene, &gateway).await["scope"], "calendar files openid");
}

#[tokio::test]
async fn a_required_issuer_that_is_missing_redeems_nothing() {
    // The metadata does not announce it, and the answer does not have it.
    let set_up = |provider: OidcProviderBuilder| {
        provider
            .omit_iss()
            .options(json!({ "discovery": { "authorization_response_iss_parameter_supported": false } }))
    };
    let scene = scene("require_iss = true", set_up).await;
    let gateway = scene.config.start().await;
    let link = gateway.authorization_url("/calendar/events").await;
    let mut browser = Browser::new();
    let callback = browser.consent_until(&link, "alice", &gateway.config.callback()).await;
    assert!(!callback.contains("iss="), "{callback}");
    browser.open(&callback).await.response.expect_status(400);
    assert_eq!(scene.provider.count("total").await, 0);
    let iss: String = url::form_urlencoded::byte_serialize(scene.provider.issuer.as_bytes()).collect();
    browser.open(&format!("{callback}&iss={iss}")).await.response.expect_status(200);
}

/// The public half of a test key, as a client registers it.
fn jwks(material: &[u8], algorithm: &str) -> Value {
    let key = SigningKey::load(material, None, Some(algorithm.parse().unwrap())).unwrap();
    json!({ "keys": [key.public_jwk()] })
}

/// A scene whose client `signer` has a key, and whose profile authenticates with it.
async fn signing_scene(
    lines: &str,
    set_up: impl FnOnce(OidcProviderBuilder) -> OidcProviderBuilder,
) -> Scene {
    let features = json!({ "requestObjects": { "enabled": true }, "dPoP": { "enabled": true } });
    let mut config = GatewayConfig::new();
    let signer = json!({
        "client_id": "signer", "redirect_uris": [config.callback()], "response_types": ["code"],
        "grant_types": ["authorization_code", "refresh_token"],
        "token_endpoint_auth_method": "private_key_jwt", "token_endpoint_auth_signing_alg": "ES256",
        "request_object_signing_alg": "ES256", "id_token_signed_response_alg": "ES256",
        "jwks": jwks(keys::P256, "ES256"),
    });
    let builder = OidcProvider::builder(&config.callback()).features(features).client(signer);
    let provider = set_up(builder).start().await;
    let upstream = Upstream::start().await;
    upstream.check_at(&provider.issuer);
    config.section("providers.idp", &format!("issuer = \"{}\"", provider.issuer));
    config.call_through("calendar", &upstream);
    let key = config.folder().join("key.pem");
    std::fs::write(&key, keys::P256).unwrap();
    let body = format!(
        "provider = \"idp\"\nclient_id = \"signer\"\ngrant = \"authorization_code\"\nscopes = [\"openid\", \"calendar\"]\n\
         client_auth = \"private_key_jwt\"\nsigning_key = {{ file = {:?} }}\n{lines}",
        key.display().to_string()
    );
    config.section("profiles.calendar", &body);
    Scene { provider, upstream, config }
}

/// The claims of a JWT, not verified: the server does that.
fn claims(jwt: &str) -> Value {
    let payload = URL_SAFE_NO_PAD.decode(jwt.split('.').nth(1).unwrap()).unwrap();
    serde_json::from_slice(&payload).unwrap()
}

#[tokio::test]
async fn a_signed_request_connects_carried_or_pushed() {
    for par in [false, true] {
        let lines = format!("request_object = true\nmax_age = \"10m\"\npar = {par}");
        let scene = signing_scene(&lines, |provider| provider).await;
        let gateway = scene.config.start().await;
        let url = sent_to(&gateway).await;
        let shown: std::collections::BTreeMap<_, _> = url.query_pairs().into_owned().collect();
        if par {
            assert_eq!(shown.keys().collect::<Vec<_>>(), ["client_id", "request_uri"]);
        } else {
            assert_eq!(shown.keys().collect::<Vec<_>>(), ["client_id", "request", "response_type", "scope"]);
            let claims = claims(&shown["request"]);
            assert_eq!((&claims["iss"], &claims["aud"]), (&json!("signer"), &json!(scene.provider.issuer)));
            assert_eq!((&claims["max_age"], &claims["response_type"]), (&json!(600), &json!("code")));
            let lifetime = claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap();
            assert!(
                (60..=300).contains(&lifetime) && claims["jti"].is_string() && claims["nbf"].is_u64(),
                "{claims}"
            );
        }
        gateway.connect("alice").await;
        assert_eq!(told(&scene, &gateway).await["account"], "alice");
        assert_eq!(scene.provider.count("pushed").await, if par { 2 } else { 0 });
    }
}

#[tokio::test]
async fn a_request_object_may_have_a_key_of_its_own() {
    let mut scene = signing_scene("", |provider| provider).await;
    let own = scene.config.folder().join("own.pem");
    std::fs::write(&own, keys::ED25519).unwrap();
    let lines = format!(
        "request_object = true\nrequest_object_signing_key = {{ file = {:?} }}\nrequest_object_key_id = \"own\"",
        own.display().to_string()
    );
    scene.config.extend("profiles.calendar", &lines);
    let gateway = scene.config.start().await;
    let url = sent_to(&gateway).await;
    let object = url.query_pairs().find(|(name, _)| name == "request").unwrap().1.into_owned();
    let header = URL_SAFE_NO_PAD.decode(object.split('.').next().unwrap()).unwrap();
    let header: Value = serde_json::from_slice(&header).unwrap();
    assert_eq!(header["typ"], "oauth-authz-req+jwt");
    assert_eq!((&header["alg"], &header["kid"]), (&json!("EdDSA"), &json!("own")));
    let published = http::get(&gateway.public_url("/jwks.json")).send().await.expect_status(200).json();
    assert_eq!(published["keys"].as_array().unwrap().len(), 2, "{published}");
}

#[tokio::test]
async fn one_switch_does_all_that_fapi_asks_of_a_client() {
    let mut scene = signing_scene("security_profile = \"fapi2\"", |provider| provider).await;
    let upstream = DpopUpstream::start(&scene.provider.issuer).await;
    let route =
        format!("path = \"/calendar\"\nupstream = \"{}/api\"\nprofile = \"calendar\"", upstream.url());
    scene.config.section("routes.calendar", &route);
    let gateway = scene.config.start().await;
    let url = sent_to(&gateway).await;
    let names: Vec<_> = url.query_pairs().map(|(name, _)| name.into_owned()).collect();
    assert_eq!(names, ["client_id", "request_uri"], "{url}");
    let asked = scene.provider.asked().await.remove(0);
    assert_eq!(asked["code_challenge_method"], "S256", "{asked}");
    assert!(asked["dpop_jkt"].is_string(), "{asked}");

    gateway.connect("alice").await;
    let token = gateway.token_used().await;
    let told = scene.provider.describe_token(&token).await;
    assert!(told["jkt"].is_string(), "the token is bound to a key: {told}");
    gateway.assert_no_secret_in_log(&[token]);
}
