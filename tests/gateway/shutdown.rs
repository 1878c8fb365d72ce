//! The end of the process: calls under way finish, new ones are not taken, nothing is lost.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::eventually;
use crate::support::gateway::Gateway;
use crate::support::gateway_config::PASSWORD;
use crate::support::http::basic;
use crate::support::load::Load;
use crate::support::scene::ScriptedScene;

/// Begins a call whose upstream answers after `wait`, and returns once the upstream has it.
async fn begin_call(
    scene: &ScriptedScene,
    gateway: &Gateway,
    wait: Duration,
) -> tokio::task::JoinHandle<std::io::Result<crate::support::http::Response>> {
    let calls = scene.upstream.calls();
    let path = format!("/calendar/events?wait_ms={}", wait.as_millis());
    let call = tokio::spawn(gateway.request("GET", &path).try_send());
    eventually("the upstream has the call", async || scene.upstream.calls() > calls).await;
    call
}

/// A connection of a caller that has made a call and may make another.
async fn kept_alive(gateway: &Gateway) -> TcpStream {
    let mut stream = TcpStream::connect(gateway.config.proxy).await.unwrap();
    let credential = basic("billing", PASSWORD);
    let head =
        format!("GET /calendar/events HTTP/1.1\r\nHost: gateway\r\nAuthorization: {credential}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut block = [0; 4096];
    let length = stream.read(&mut block).await.unwrap();
    assert!(block[..length].starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&block[..length]));
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_finishes_slow_calls_refuses_new_ones_and_closes_the_store() {
    let scene = ScriptedScene::machine().await;
    let gateway = scene.config.start().await;
    let token = gateway.token_used().await;
    let mut idle = kept_alive(&gateway).await;
    let call = begin_call(&scene, &gateway, Duration::from_secs(3)).await;

    let start = Instant::now();
    gateway.signal("TERM").await;
    eventually("new connections are refused", async || {
        TcpStream::connect(gateway.config.proxy).await.is_err()
            && TcpStream::connect(gateway.config.public).await.is_err()
    })
    .await;
    assert!(!call.is_finished(), "refused only when all was over");
    let problems = gateway.admin("GET", "/readyz").send().await.expect_status(503).json();
    assert!(problems.to_string().contains("draining"), "{problems}");
    assert_eq!(gateway.admin("GET", "/healthz").send().await.status, 200);

    call.await.unwrap().expect("not cut off").expect_status(200);
    let (status, log, config) = gateway.ended().await;
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(
        start.elapsed() < Duration::from_secs(10),
        "an idle connection held it up: {:?}",
        start.elapsed()
    );
    assert_eq!(idle.read(&mut [0; 64]).await.unwrap_or(0), 0, "the idle connection was closed");

    let gateway = config.start().await;
    assert_eq!(gateway.token_used().await, token);
    assert_eq!(scene.server.count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_it_at_once() {
    for (first, second) in [("TERM", "TERM"), ("TERM", "INT"), ("INT", "INT")] {
        let scene = ScriptedScene::machine().await;
        let gateway = scene.config.start().await;
        let token = gateway.token_used().await;
        let call = begin_call(&scene, &gateway, Duration::from_secs(30)).await;
        gateway.signal(first).await;
        eventually("it drains", async || gateway.log().contains("draining")).await;

        let start = Instant::now();
        gateway.signal(second).await;
        let (status, log, config) = gateway.ended().await;
        assert!(start.elapsed() < Duration::from_secs(3), "{first}, {second}: {:?}", start.elapsed());
        assert_eq!(status.code(), Some(1), "{first}, {second}: {log}");
        assert!(log.contains("cut off"), "{log}");
        assert!(!log.contains("panicked"), "{log}");
        call.await.unwrap().expect_err("cut off");

        let gateway = config.start().await;
        assert_eq!(gateway.token_used().await, token, "{first}, {second}");
    }
}

/// Whoever keeps calling is told with an answer that the connection ends; nobody's request is lost.
#[tokio::test(flavor = "multi_thread")]
async fn callers_that_keep_calling_lose_no_request() {
    let scene = ScriptedScene::machine().await;
    let gateway = scene.config.start().await;
    gateway.token_used().await;
    let load = Load::start(gateway.config.proxy, "/calendar/events", 16);
    eventually("all of them call", async || load.good() > 200).await;
    load.keep_to_open_connections();
    let (status, log, _) = gateway.stop().await;
    assert_eq!(status.code(), Some(0), "{log}");
    // Told with an answer, not found out by a connection that is closed under them.
    assert_eq!(load.told(), 16);
    load.ended().await;
}
