//! The resource owner password credentials grant (RFC 6749 section 4.3), against a server that says what
//! the test wants.

use serde_json::json;

use crate::support::scene::ScriptedScene;
use crate::support::scripted_as::Answer;

const REFRESH: &str = "/api/connections/calendar/billing/refresh";

/// A name and a password in which every character that a form treats in its own way stands.
const USERNAME: &str = "al&ice=+%41 ü@example.com";
const PASSWORD: &str = "planted {pass}&word=1+1%00 €\"';#?/\\";

async fn scene() -> ScriptedScene {
    let mut scene = ScriptedScene::machine().await;
    scene.config.profile("calendar", "script", "gateway", "password", r#"["calendar", "mail"]"#);
    let file = scene.config.folder().join("password.txt");
    std::fs::write(&file, format!("{PASSWORD}\n")).unwrap();
    let lines = format!("username = \"{USERNAME}\"\npassword = {{ file = {:?} }}", file.to_str().unwrap());
    scene.config.extend("profiles.calendar", &lines);
    scene.config.secrets.push(PASSWORD.to_owned());
    scene
}

#[tokio::test(flavor = "multi_thread")]
async fn no_person_is_needed_and_every_character_arrives() {
    let scene = scene().await;
    let gateway = scene.config.start().await;
    assert_eq!(gateway.token_used().await, "planted-access-1");
    assert_eq!(gateway.token_used().await, "planted-access-1");
    let forms = scene.server.forms();
    assert_eq!(forms.len(), 1);
    assert_eq!(forms[0]["grant_type"], "password");
    assert_eq!(forms[0]["username"], USERNAME);
    assert_eq!(forms[0]["password"], PASSWORD);
    assert_eq!(forms[0]["scope"], "calendar mail");
    gateway.assert_no_secret_in_log(&["planted-access-1".into(), "planted-refresh-1".into()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_token_is_used_and_a_dead_one_costs_a_new_password_request() {
    let scene = scene().await;
    let gateway = scene.config.start().await;
    gateway.token_used().await;
    gateway.admin("POST", REFRESH).send().await.expect_status(200);
    assert_eq!(gateway.token_used().await, "planted-access-2");
    scene.server.next(Answer::error(400, "invalid_grant"));
    gateway.admin("POST", REFRESH).send().await.expect_status(200);
    assert_eq!(gateway.token_used().await, "planted-access-3");
    let forms = scene.server.forms();
    let kinds: Vec<&str> = forms.iter().map(|form| form["grant_type"].as_str()).collect();
    assert_eq!(kinds, ["password", "refresh_token", "refresh_token", "password"]);
    assert_eq!(forms[3]["password"], PASSWORD);
    assert!(!forms[1].contains_key("password"), "a refresh needs no password: {:?}", forms[1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_not_tried_again_in_a_loop() {
    for code in ["invalid_grant", "invalid_request"] {
        let scene = scene().await;
        scene.server.otherwise(Answer::error(400, code));
        let gateway = scene.config.start().await;
        let answer = gateway.call("/calendar/events").await;
        assert!(matches!(answer.status, 502 | 503), "{code}: {} {}", answer.status, answer.text());
        assert_eq!(scene.server.count(), 1, "{code}: one request for one call");
        let shown = gateway.connection("calendar", "billing").await;
        assert_eq!(shown["state"], "misconfigured", "{code}: {shown}");

        // Each attempt serves all who wait for it, and the pauses between attempts grow.
        for answer in gateway.call_at_once("/calendar/events", 20).await {
            assert!(matches!(answer.status, 502 | 503), "{code}: {}", answer.text());
        }
        let asked = scene.server.count();
        assert!((2..=6).contains(&asked), "{code}: {asked} token requests for 21 calls");

        // The right one, or an account that is unlocked, helps at once when an operator says so.
        scene.server.otherwise(Answer::Rotate);
        gateway.admin("POST", REFRESH).send().await.expect_status(200);
        assert_eq!(scene.server.count(), asked + 1);
        assert_eq!(gateway.token_used().await, "planted-access-1");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_without_a_refresh_token_is_followed_by_another_password_request() {
    let scene = scene().await;
    scene.server.otherwise(Answer::ok(json!({ "access_token": "planted-1", "token_type": "Bearer" })));
    let gateway = scene.config.start().await;
    assert_eq!(gateway.token_used().await, "planted-1");
    gateway.admin("POST", REFRESH).send().await.expect_status(200);
    let forms = scene.server.forms();
    assert_eq!(forms.len(), 2);
    assert!(forms.iter().all(|form| form["grant_type"] == "password"));
}
