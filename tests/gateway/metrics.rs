//! `/metrics`: what happened is in its numbers, and nobody reads them without being let in.

use crate::support::gateway::Gateway;
use crate::support::scene::ScriptedScene;
use crate::support::tools::curl;
use crate::support::{eventually, http};

async fn scraped(gateway: &Gateway) -> String {
    let answer = gateway.admin("GET", "/metrics").send().await.expect_status(200);
    assert!(answer.header("content-type").unwrap().starts_with("text/plain; version=0.0.4"));
    answer.text()
}

/// The sum of all series whose line begins so.
fn sum(text: &str, begins: &str) -> u64 {
    let lines = text.lines().filter(|line| line.starts_with(begins));
    lines.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happened_is_in_the_numbers() {
    let scene = ScriptedScene::machine().await;
    let gateway = scene.config.start().await;
    let before = scraped(&gateway).await;
    assert_eq!(sum(&before, "claviger_calls_total"), 0);
    for _ in 0..3 {
        gateway.call("/calendar/events").await.expect_status(200);
    }
    http::get(&gateway.proxy_url("/calendar/events")).send().await.expect_status(401);
    gateway.call("/nowhere").await.expect_status(404);
    let text = scraped(&gateway).await;
    assert_eq!(sum(&text, "claviger_calls_total{route=\"calendar\",status=\"2xx\"}"), 3);
    assert_eq!(sum(&text, "claviger_calls_total{route=\"\",status=\"4xx\"}"), 2);
    assert_eq!(sum(&text, "claviger_problems_total{code=\"caller_unauthenticated\"}"), 1);
    assert_eq!(sum(&text, "claviger_problems_total{code=\"route_not_found\"}"), 1);
    assert_eq!(sum(&text, "claviger_token_requests_total{profile=\"calendar\",result=\"granted\"}"), 1);
    assert_eq!(sum(&text, "claviger_published_connections "), 1);
    assert_eq!(sum(&text, "claviger_verified_credentials{method=\"basic\"}"), 1);
    assert_eq!(sum(&text, "claviger_listener_connections_total{listener=\"proxy\"}"), 5);
    assert_eq!(sum(&text, "claviger_actor_restarts_total "), 0);
    assert!(sum(&text, "claviger_upstream_connections_opened_total") >= 1);
    eventually("all callers have gone", async || {
        sum(&scraped(&gateway).await, "claviger_listener_connections_open{listener=\"proxy\"}") == 0
    })
    .await;
    gateway.assert_no_secret_in_log(&[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_that_failed_is_counted() {
    let mut scene = ScriptedScene::machine().await;
    scene.config.extend("listeners.proxy", "tls = \"self-signed\"");
    let gateway = scene.config.start().await;
    let untrusting = curl(&[&format!("https://{}/calendar/x", scene.config.proxy)]).await;
    assert!(!untrusting.status.success());
    eventually("it is counted", async || {
        sum(&scraped(&gateway).await, "claviger_listener_handshake_failures_total{listener=\"proxy\"}") == 1
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_guarded_as_the_admin_api_is() {
    let mut scene = ScriptedScene::machine().await;
    scene.config.admin_token("planted-admin-token");
    let gateway = scene.config.start().await;
    gateway.admin("GET", "/metrics").send().await.expect_status(401);
    gateway.admin("GET", "/metrics").bearer("planted-admin-token").send().await.expect_status(200);
    gateway.admin("POST", "/metrics").bearer("planted-admin-token").send().await.expect_status(405);
}
