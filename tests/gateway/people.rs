//! Who a connection is about, and under which name it is kept; what has ended and what is absent.

use serde_json::{Value, json};

use crate::support::browser::Browser;
use crate::support::gateway::{Gateway, assert_no_secret};
use crate::support::scene::{Scene, ScriptedScene};
use crate::support::scripted_as::Answer;

async fn connections(gateway: &Gateway) -> Vec<String> {
    let page = gateway.admin("GET", "/api/connections").send().await.expect_status(200).json();
    let all = page["connections"].as_array().unwrap().iter();
    all.map(|connection| connection["subject"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn the_provider_says_who_the_person_is() {
    let scene =
        Scene::person_at(|provider| provider.features(json!({ "userinfo": { "enabled": true } }))).await;
    let gateway = scene.config.start().await;
    let path = "/api/connections/calendar/billing/userinfo";
    gateway.admin("GET", path).send().await.expect_problem(404, "not_found");
    gateway.connect("alice").await;
    let claims = gateway.admin("GET", path).send().await.expect_status(200).json();
    assert_eq!(claims["sub"], "alice", "{claims}");
    let token = gateway.token_used().await;
    assert_no_secret(&claims.to_string(), std::slice::from_ref(&token));
    gateway.admin("POST", path).send().await.expect_status(405);
    gateway.assert_no_secret_in_log(&[token]);
}

#[tokio::test]
async fn what_cannot_be_asked_is_told() {
    let mut scene = ScriptedScene::person().await;
    let endpoint = format!("userinfo_endpoint = \"http://{}/userinfo\"", scene.server.address);
    scene.config.extend("providers.script", &endpoint);
    let gateway = scene.config.start().await;
    gateway.connect("alice").await;
    let path = "/api/connections/calendar/billing/userinfo";
    let problem = gateway.admin("GET", path).send().await.expect_problem(409, "bad_request");
    assert!(problem["detail"].as_str().unwrap().contains("openid"), "{problem}");
}

#[tokio::test]
async fn an_anonymous_session_becomes_the_persons_once_they_logged_in() {
    let scene = Scene::person().await;
    let gateway = scene.config.start().await;
    let session = json!({ "profile": "calendar", "subject": "session-1" });
    let link =
        gateway.admin("POST", "/api/connect-sessions").json(&session).send().await.expect_status(200).json();
    let callback = gateway.config.callback();
    let page = Browser::new().consent(link["url"].as_str().unwrap(), "billing", &callback).await;
    page.response.expect_status(200);
    assert_eq!(connections(&gateway).await, ["session-1"]);
    gateway.call("/calendar/events").await.expect_problem(403, "authorization_required");

    let path = "/api/connections/calendar/session-1/rekey";
    let moved = gateway
        .admin("POST", path)
        .json(&json!({ "to": "id_token_sub" }))
        .send()
        .await
        .expect_status(200)
        .json();
    assert_eq!((&moved["subject"], &moved["state"]), (&json!("billing"), &json!("active")), "{moved}");
    assert_eq!(connections(&gateway).await, ["billing"]);
    let token = gateway.token_used().await;
    gateway.admin("GET", "/api/connections/calendar/session-1").send().await.expect_problem(404, "not_found");
    gateway
        .admin("POST", path)
        .json(&json!({ "subject": "x" }))
        .send()
        .await
        .expect_problem(404, "not_found");

    let gateway = gateway.restart().await;
    assert_eq!(gateway.token_used().await, token);
    let refreshed = "/api/connections/calendar/billing/refresh";
    gateway.admin("POST", refreshed).send().await.expect_status(200);
    assert_eq!(scene.provider.count("authorization_code").await, 1);
    assert_eq!(connections(&gateway).await, ["billing"]);
}

#[tokio::test]
async fn a_connection_that_is_there_is_replaced_only_if_asked() {
    let scene = ScriptedScene::person().await;
    let gateway = scene.config.start().await;
    let import = async |subject: &str, token: &str| {
        let tokens = json!({ "access_token": token, "expires_in": 3600 });
        let path = format!("/api/connections/calendar/{subject}");
        gateway.admin("PUT", &path).json(&tokens).send().await.expect_status(200);
    };
    import("session-1", "planted-of-the-session").await;
    import("billing", "planted-of-billing").await;
    let rekey =
        |body: Value| gateway.admin("POST", "/api/connections/calendar/session-1/rekey").json(&body).send();
    let problem = rekey(json!({ "subject": "billing" })).await.expect_problem(409, "bad_request");
    assert!(problem["detail"].as_str().unwrap().contains("calendar/billing"), "{problem}");
    assert_eq!(gateway.token_used().await, "planted-of-billing");
    rekey(json!({ "subject": "session-1", "replace": true })).await.expect_problem(409, "bad_request");
    rekey(json!({ "to": "id_token_sub" })).await.expect_problem(409, "bad_request");
    for bad in [json!({}), json!({ "subject": "a\u{0}" }), json!({ "subject": "a", "to": "id_token_sub" })] {
        rekey(bad).await.expect_problem(400, "bad_request");
    }
    assert_eq!(connections(&gateway).await, ["billing", "session-1"]);
    rekey(json!({ "subject": "billing", "replace": true })).await.expect_status(200);
    assert_eq!(connections(&gateway).await, ["billing"]);
    assert_eq!(gateway.token_used().await, "planted-of-the-session");
}

#[tokio::test]
async fn what_has_ended_is_told_from_what_is_absent_and_can_still_be_read() {
    let scene = ScriptedScene::person().await;
    scene.server.otherwise(Answer::ok(json!({
        "access_token": "planted-short", "token_type": "Bearer", "expires_in": 1, "scope": "calendar",
    })));
    let gateway = scene.config.start().await;
    gateway.connect("alice").await;
    crate::support::eventually("the token ends", || async {
        gateway.connection("calendar", "billing").await["expired"] == json!(true)
    })
    .await;
    for gateway in [gateway.restart().await] {
        let ended = gateway.connection("calendar", "billing").await;
        assert_eq!((&ended["expired"], &ended["state"]), (&json!(true), &json!("needs_consent")), "{ended}");
        assert_eq!(
            (&ended["reason"], &ended["scope"]),
            (&json!("no_refresh_token"), &json!("calendar")),
            "{ended}"
        );
        assert!(ended["expires_at"].is_string() && ended["access_token_fingerprint"].is_string(), "{ended}");
        assert!(ended["expires_at"].as_str() <= ended["since"].as_str(), "{ended}");
        gateway
            .admin("GET", "/api/connections/calendar/nobody")
            .send()
            .await
            .expect_problem(404, "not_found");
        gateway.call("/calendar/events").await.expect_problem(403, "authorization_required");
        assert_eq!(
            gateway.connection("calendar", "billing").await["expired"],
            json!(true),
            "it is still there"
        );
    }
}
