//! Whatever a token endpoint does: a clear answer, nothing lost, no secret told.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::support::eventually;
use crate::support::gateway::Gateway;
use crate::support::http::Response;
use crate::support::scene::{Scene, ScriptedScene};
use crate::support::scripted_as::{Answer, ScriptedAs};

const REFRESH: &str = "/api/connections/calendar/billing/refresh";

/// The provider failed: 502, or 503 with a time while the gateway holds back. The profile is named.
#[track_caller]
fn assert_no_token(answer: Response) {
    let status = answer.status;
    assert!(status == 502 || answer.header("retry-after").is_some(), "{status} {:?}", answer.headers);
    assert!(matches!(status, 502 | 503), "{status}: {}", answer.text());
    let problem = answer.expect_problem(status, "token_unavailable");
    assert!(problem["detail"].as_str().unwrap().contains("calendar"), "{problem}");
}

async fn assert_nothing_restarted(gateway: &Gateway) {
    for kind in ["provider", "token_store", "proxy"] {
        for actor in gateway.actors(kind).await {
            assert_eq!(actor["restarts"], 0, "{actor}");
        }
    }
}

/// The token requests of a machine go wrong, and so do the refreshes of a person's token: an error
/// that says so, and a connection that is as good as before once the provider is well again.
async fn is_survived(bad: Answer) {
    let scene = ScriptedScene::machine().await;
    scene.server.otherwise(bad.clone());
    let gateway = scene.config.start().await;
    let start = Instant::now();
    assert_no_token(gateway.call("/calendar/events").await);
    assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
    scene.server.otherwise(Answer::Rotate);
    eventually("calls are served again", async || gateway.call("/calendar/events").await.status == 200).await;
    assert_nothing_restarted(&gateway).await;
    gateway.assert_no_secret_in_log(&["planted-in-the-answer".into(), "planted-access-1".into()]);

    let scene = ScriptedScene::person().await;
    let gateway = scene.config.start().await;
    gateway.connect("alice").await;
    let old = gateway.token_used().await;
    scene.server.otherwise(bad);
    let answer = gateway.admin("POST", REFRESH).send().await;
    assert!(matches!(answer.status, 502 | 503), "{}: {}", answer.status, answer.text());
    assert_eq!(gateway.token_used().await, old, "the old token serves while it lives");
    let shown = gateway.connection("calendar", "billing").await;
    assert!(shown["state"] == "retrying" || shown["state"] == "misconfigured", "{shown}");
    assert_eq!(shown["has_refresh_token"], true, "{shown}");
    scene.server.otherwise(Answer::Rotate);
    eventually("it is refreshed again", async || gateway.admin("POST", REFRESH).send().await.status == 200)
        .await;
    assert_ne!(gateway.token_used().await, old);
    gateway.assert_no_secret_in_log(&["planted-in-the-answer".into(), "planted-refresh-1".into()]);
}

macro_rules! bad_answers {
    ($($name:ident: $answer:expr;)*) => {
        $(#[tokio::test(flavor = "multi_thread")]
        async fn $name() {
            is_survived($answer).await;
        })*
    };
}

bad_answers! {
    a_huge_answer: Answer::Huge(64 * 1024 * 1024);
    an_answer_that_drips_without_end: Answer::Drip(Duration::from_millis(200));
    an_answer_that_never_comes: Answer::Hang;
    a_reset_connection: Answer::Reset;
    an_answer_that_breaks_off: Answer::Raw(
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 200\r\n\r\n\
          {\"access_token\":\"planted-in-the-answer\",".to_vec());
    an_answer_that_is_no_http: Answer::Raw(b"\x16\x03\x01\x00\x02 planted-in-the-answer\r\n\r\n".to_vec());
    an_answer_that_is_no_json: Answer::Raw(
        b"HTTP/1.1 200 OK\r\nContent-Length: 34\r\n\r\n<html>planted-in-the-answer</html>".to_vec());
    an_empty_answer: Answer::Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec());
    an_answer_that_is_a_list: Answer::ok(json!(["planted-in-the-answer"]));
    an_answer_without_an_access_token: Answer::ok(
        json!({ "token_type": "Bearer", "refresh_token": "planted-in-the-answer" }));
    a_token_that_no_header_can_carry: Answer::ok(
        json!({ "access_token": "planted-in-the-answer\r\nX-Evil: 1", "token_type": "Bearer" }));
    a_token_of_another_type: Answer::ok(json!({ "access_token": "planted-in-the-answer", "token_type": "mac" }));
    an_error_in_a_200: Answer::error(200, "temporarily_unavailable");
    a_refusal_without_a_word: Answer::Raw(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n".to_vec());
    a_server_error: Answer::error(500, "server_error");
    a_refusal_of_the_client: Answer::error(401, "invalid_client");
    a_refusal_of_the_scope: Answer::error(400, "invalid_scope");
    a_throttled_request: Answer::Json(429, vec![("Retry-After", "1")], json!({ "error": "slow_down" }));
}

/// A lifetime in any spelling is understood or presumed; the token is used either way.
async fn serves_with_expires_in(expires_in: Option<Value>, expiry: &str) {
    let scene = ScriptedScene::machine().await;
    let mut answer = json!({ "access_token": "planted-access", "token_type": "bearer" });
    if let Some(value) = expires_in {
        answer["expires_in"] = value;
    }
    scene.server.otherwise(Answer::ok(answer));
    let gateway = scene.config.start().await;
    gateway.call("/calendar/events").await.expect_status(200);
    gateway.call("/calendar/events").await.expect_status(200);
    assert_eq!(scene.server.count(), 1);
    let shown = gateway.connection("calendar", "billing").await;
    assert_eq!(shown["expiry"], expiry, "{shown}");
    assert!(shown["expires_at"].is_string(), "a token never lives for ever: {shown}");
    assert_nothing_restarted(&gateway).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn expires_in_may_be_text() {
    serves_with_expires_in(Some(json!("3600")), "stated").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn expires_in_may_have_a_fraction() {
    serves_with_expires_in(Some(json!(3599.5)), "stated").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn expires_in_may_be_absent() {
    serves_with_expires_in(None, "presumed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn expires_in_may_be_absurdly_large() {
    serves_with_expires_in(Some(json!(u64::MAX)), "stated").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_negative_expires_in_ends_no_actor_and_starts_no_storm() {
    let scene = ScriptedScene::machine().await;
    scene.server.otherwise(Answer::ok(json!({
        "access_token": "planted-access", "token_type": "Bearer", "expires_in": -1,
    })));
    let gateway = scene.config.start().await;
    for _ in 0..3 {
        let answer = gateway.call("/calendar/events").await;
        assert!(matches!(answer.status, 200 | 502 | 503), "{}: {}", answer.status, answer.text());
    }
    assert!(scene.server.count() <= 3, "{} token requests for three calls", scene.server.count());
    assert_nothing_restarted(&gateway).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_grant_in_a_200_or_an_odd_envelope_asks_the_person_again() {
    let envelopes = [
        Answer::error(200, "invalid_grant"),
        Answer::error(401, "invalid_grant"),
        Answer::Json(400, vec![], json!({ "error": { "code": "invalid_grant", "message": "x" } })),
    ];
    for answer in envelopes {
        let scene = ScriptedScene::person().await;
        let gateway = scene.config.start().await;
        gateway.connect("alice").await;
        scene.server.next(answer.clone());
        gateway.admin("POST", REFRESH).send().await;
        gateway.call("/calendar/events").await.expect_problem(403, "authorization_required");
        let shown = gateway.connection("calendar", "billing").await;
        assert_eq!(shown["state"], "needs_consent", "{answer:?}: {shown}");
        assert_eq!(scene.server.count(), 2, "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_client_loses_no_token_and_needs_the_operator() {
    let scene = ScriptedScene::person().await;
    scene.server.token_seconds(2.0);
    let gateway = scene.config.start().await;
    gateway.connect("alice").await;
    scene.server.token_seconds(3600.0);
    scene.server.otherwise(Answer::error(401, "invalid_client"));
    sleep(Duration::from_millis(2100)).await;

    assert_no_token(gateway.call("/calendar/events").await);
    let shown = gateway.connection("calendar", "billing").await;
    assert_eq!(shown["state"], "misconfigured", "{shown}");
    assert_eq!(shown["who_must_act"], "operator", "{shown}");
    assert_eq!(shown["has_refresh_token"], true, "{shown}");

    scene.server.otherwise(Answer::Rotate);
    eventually("calls are served again", async || gateway.call("/calendar/events").await.status == 200).await;
    assert_eq!(scene.server.generation(), 2, "the refresh token it had was used");
}

#[tokio::test(flavor = "multi_thread")]
async fn retry_after_is_honoured() {
    let scene = ScriptedScene::machine().await;
    scene.server.next(Answer::Json(429, vec![("Retry-After", "4")], json!({ "error": "slow_down" })));
    let gateway = scene.config.start().await;
    let start = Instant::now();
    assert_no_token(gateway.call("/calendar/events").await);

    let held_back = gateway.call("/calendar/events").await;
    let wait: u64 = held_back.header("retry-after").expect("when to try again").parse().unwrap();
    assert!((1..=4).contains(&wait), "{wait}");
    held_back.expect_problem(503, "token_unavailable");
    gateway.call_at_once("/calendar/events", 20).await;
    assert_eq!(scene.server.count(), 1, "asked again too early");

    eventually("calls are served again", async || gateway.call("/calendar/events").await.status == 200).await;
    assert!(start.elapsed() >= Duration::from_secs(4), "{:?}", start.elapsed());
    assert_eq!(scene.server.count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_is_down_is_not_stormed() {
    let scene = ScriptedScene::machine().await;
    scene.server.otherwise(Answer::error(503, "temporarily_unavailable"));
    let gateway = scene.config.start().await;
    let end = Instant::now() + Duration::from_secs(3);
    let mut calls = 0;
    while Instant::now() < end {
        let answers = gateway.call_at_once("/calendar/events", 20).await;
        calls += answers.len();
        answers.into_iter().for_each(assert_no_token);
    }
    assert!(scene.server.count() <= 8, "{} token requests for {calls} calls", scene.server.count());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_of_the_token_endpoint_is_never_followed() {
    let elsewhere = ScriptedAs::start().await;
    let location = format!("http://{}/token", elsewhere.address);
    for status in [301, 302, 307, 308] {
        let scene = ScriptedScene::machine().await;
        let head = format!("HTTP/1.1 {status} Moved\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n");
        scene.server.next(Answer::Raw(head.into_bytes()));
        let gateway = scene.config.start().await;
        assert_no_token(gateway.call("/calendar/events").await);
    }
    assert_eq!(elsewhere.count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_real_provider_fails_and_the_old_token_serves_while_it_lives() {
    let scene = Scene::person_at(|provider| provider.access_token_seconds(8)).await;
    let gateway = scene.config.start().await;
    gateway.connect("alice").await;
    scene.provider.fail(json!({ "times": 1000, "status": 503 })).await;
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(5000) {
        gateway.token_used().await;
        sleep(Duration::from_millis(100)).await;
    }
    // To the API it may have ended a moment earlier than to the gateway.
    let has_ended = async || !matches!(gateway.call("/calendar/events").await.status, 200 | 401);
    eventually("the token has ended", has_ended).await;
    assert_no_token(gateway.call("/calendar/events").await);
    assert!(scene.provider.count("injected").await <= 12, "the provider was stormed");

    scene.provider.fail(json!({ "times": 0 })).await;
    eventually("calls are served again", async || gateway.call("/calendar/events").await.status == 200).await;
    assert_eq!(scene.provider.count("authorization_code").await, 1, "nobody had to consent again");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_is_down_is_named() {
    let mut scene = ScriptedScene::machine().await;
    let nobody = crate::support::ports::free_address();
    scene.config.section(
        "routes.calendar",
        &format!("path = \"/calendar\"\nupstream = \"http://{nobody}\"\nprofile = \"calendar\"\nsubject = \"caller\""),
    );
    let gateway = scene.config.start().await;
    let problem = gateway.call("/calendar/events").await.expect_problem(502, "upstream_unreachable");
    assert!(problem["detail"].as_str().unwrap().contains("calendar"), "{problem}");
}
