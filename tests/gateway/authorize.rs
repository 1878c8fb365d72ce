//! How a person is asked: pushed requests, what they carry, and more scopes later.

use serde_json::{Value, json};

use crate::support::browser::Browser;
use crate::support::gateway::Gateway;
use crate::support::oidc_provider::OidcProviderBuilder;
use crate::support::scene::Scene;

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
    let log = gateway.log();
    assert!(log.contains("pushed authorization request") && log.contains("calendar"), "{log}");
    gateway.assert_no_secret_in_log(&[]);
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
