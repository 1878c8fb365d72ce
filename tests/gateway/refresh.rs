//! The life of a token set: refreshed in time, once, and without anyone noticing.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::support::http::Response;
use crate::support::scene::{Scene, ScriptedScene};
use crate::support::scripted_as::Answer;

#[track_caller]
fn assert_all_served(answers: &[Response]) {
    let failed: Vec<_> = answers.iter().filter(|answer| answer.status != 200).collect();
    assert!(failed.is_empty(), "{} of {} failed; first: {:?}", failed.len(), answers.len(), failed[0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn short_tokens_are_refreshed_and_rotated_without_anyone_noticing() {
    let scene = Scene::person_at(|provider| provider.access_token_seconds(3)).await;
    let gateway = scene.config.start().await;
    gateway.connect("alice").await;

    let mut tokens = BTreeSet::new();
    let end = Instant::now() + Duration::from_secs(10);
    while Instant::now() < end {
        // The upstream asks the provider of each token whether it lives.
        tokens.insert(gateway.token_used().await);
        sleep(Duration::from_millis(100)).await;
    }
    assert!(tokens.len() >= 3, "{} tokens in ten seconds", tokens.len());
    let refreshes = scene.provider.count("refresh_token").await;
    assert!((tokens.len() as u64 - 1..=tokens.len() as u64).contains(&refreshes), "{refreshes} refreshes");
    assert_eq!(scene.provider.count("authorization_code").await, 1);
    assert_eq!(scene.provider.grants().await, 1, "a refresh token was used twice");
    gateway.assert_no_secret_in_log(&tokens.into_iter().collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn in_the_steady_state_there_are_no_token_requests() {
    let scene = Scene::person().await;
    let gateway = scene.config.start().await;
    gateway.connect("alice").await;
    for _ in 0..10 {
        assert_all_served(&gateway.call_at_once("/calendar/events", 20).await);
    }
    assert_eq!(scene.provider.count("total").await, 1, "only the code was redeemed");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_calls_on_an_expired_connection_make_one_token_request() {
    let scene = Scene::person_at(|provider| provider.access_token_seconds(2)).await;
    let gateway = scene.config.start().await;
    gateway.connect("alice").await;
    scene.provider.access_token_seconds(3600).await;
    sleep(Duration::from_millis(2500)).await;

    assert_all_served(&gateway.call_at_once("/calendar/events", 200).await);

    assert_eq!(scene.provider.count("refresh_token").await, 1);
    assert_eq!(scene.provider.count("total").await, 2);
    let tokens: BTreeSet<_> = scene.upstream.tokens().into_iter().collect();
    assert_eq!(tokens.len(), 1, "all calls carried the one new token");
    assert_eq!(gateway.connection("calendar", "billing").await["state"], "active");
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_first_calls_of_a_machine_make_one_token_request() {
    let scene = Scene::machine_at(|provider| provider).await;
    let gateway = scene.config.start().await;
    assert_all_served(&gateway.call_at_once("/calendar/events", 50).await);
    assert_eq!(scene.provider.count("client_credentials").await, 1);
    assert_eq!(scene.provider.count("total").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_provider_is_waited_for_by_all_and_asked_by_one() {
    let scene = ScriptedScene::machine().await;
    let late = Duration::from_millis(1500);
    let token = Answer::token("late", 3600);
    scene.server.next(Answer::After(late, Box::new(token)));
    let gateway = scene.config.start().await;
    assert_all_served(&gateway.call_at_once("/calendar/events", 50).await);
    assert_eq!(scene.server.count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_refuses_a_token_makes_one_refresh_and_one_replay() {
    let scene = Scene::person().await;
    let gateway = scene.config.start().await;
    gateway.connect("alice").await;
    let old = gateway.token_used().await;
    scene.upstream.refuse(&old);
    let before = scene.upstream.calls();

    let call = gateway.request("POST", "/calendar/events").body("text/plain", "the body, once more");
    let echo = call.send().await.expect_status(200).json();

    assert_ne!(echo["token"], old.as_str());
    assert_eq!(echo["body"], "the body, once more");
    assert_eq!(scene.upstream.calls() - before, 2);
    assert_eq!(scene.provider.count("refresh_token").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_refused_calls_make_one_refresh() {
    let scene = Scene::person().await;
    let gateway = scene.config.start().await;
    gateway.connect("alice").await;
    let old = gateway.token_used().await;
    scene.upstream.refuse(&old);
    assert_all_served(&gateway.call_at_once("/calendar/events", 100).await);
    assert_eq!(scene.provider.count("refresh_token").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_token_that_an_upstream_took_may_be_refused_a_moment_later() {
    let scene = Scene::person().await;
    let gateway = scene.config.start().await;
    gateway.connect("alice").await;
    for round in 1..=3 {
        scene.upstream.refuse(&gateway.token_used().await);
        let call = gateway.request("POST", "/calendar/events").body("text/plain", "small");
        call.send().await.expect_status(200);
        assert_eq!(scene.provider.count("refresh_token").await, round);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_upload_is_not_sent_again_but_the_next_call_has_a_new_token() {
    let scene = Scene::person().await;
    let gateway = scene.config.start().await;
    gateway.connect("alice").await;
    let upload = vec![b'u'; 3 << 20];
    for round in 1..=2 {
        scene.upstream.refuse(&gateway.token_used().await);
        let call = gateway.request("POST", "/calendar/events").body("text/plain", upload.clone());
        call.send().await.expect_status(401);
        assert_eq!(scene.provider.count("refresh_token").await, round);
        gateway.call("/calendar/events").await.expect_status(200);
        assert_eq!(scene.provider.count("refresh_token").await, round);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_takes_no_token_makes_no_refresh_at_every_call() {
    let scene = Scene::person().await;
    let gateway = scene.config.start().await;
    gateway.connect("alice").await;
    gateway.token_used().await;
    scene.upstream.refuse_all(true);
    for _ in 0..5 {
        gateway.call("/calendar/events").await.expect_status(401);
    }
    assert_eq!(scene.provider.count("refresh_token").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_refusal_passes_through() {
    let scene = Scene::person().await;
    let gateway = scene.config.start().await;
    gateway.connect("alice").await;
    gateway.token_used().await;
    scene.upstream.refuse_all(true);
    let before = scene.upstream.calls();

    let answer = gateway.call("/calendar/events").await.expect_status(401);

    assert_eq!(answer.json()["refused"], "by the upstream");
    assert_eq!(answer.header("www-authenticate"), Some("Bearer error=\"invalid_token\""));
    assert_eq!(scene.upstream.calls() - before, 2);
    assert_eq!(scene.provider.count("refresh_token").await, 1);
    assert_eq!(gateway.connection("calendar", "billing").await["state"], "active");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_grant_asks_the_person_again_and_the_provider_no_more() {
    let scene = Scene::person().await;
    let gateway = scene.config.start().await;
    gateway.connect("alice").await;
    gateway.token_used().await;

    scene.provider.revoke_all_grants().await;
    // The upstream refuses the token, the refresh is refused too, and the upstream's word stands.
    let first = gateway.call("/calendar/events").await.status;
    assert!(matches!(first, 401 | 403), "{first}");
    gateway.call("/calendar/events").await.expect_problem(403, "authorization_required");

    let shown = gateway.connection("calendar", "billing").await;
    assert_eq!(shown["state"], "needs_consent", "{shown}");
    assert_eq!(shown["reason"], "grant_revoked", "{shown}");
    assert_eq!(shown["who_must_act"], "person", "{shown}");
    let asked = scene.provider.count("total").await;
    assert_eq!(asked, 2, "the code, and one refresh");
    for _ in 0..5 {
        gateway.call("/calendar/events").await.expect_problem(403, "authorization_required");
    }
    assert_eq!(scene.provider.count("total").await, asked, "a dead refresh token was tried again");

    gateway.connect("alice").await;
    gateway.token_used().await;
    assert_eq!(gateway.connection("calendar", "billing").await["state"], "active");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_token_serves_while_its_refresh_is_slow() {
    let scene = Scene::person_at(|provider| provider.access_token_seconds(16)).await;
    let gateway = scene.config.start().await;
    gateway.connect("alice").await;
    let old = gateway.token_used().await;
    let slow = serde_json::json!({ "times": 1, "delayMs": 1200 });
    scene.provider.fail(slow).await;

    let mut slowest = Duration::ZERO;
    let begun = Instant::now();
    loop {
        let start = Instant::now();
        let token = gateway.token_used().await;
        slowest = slowest.max(start.elapsed());
        if token != old {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "never refreshed");
        sleep(Duration::from_millis(50)).await;
    }
    assert!(slowest < Duration::from_millis(1000), "a call waited {slowest:?} for the refresh");
}
