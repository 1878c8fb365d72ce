//! Whatever a caller sends: its credential stays here, its bytes go upstream as they are or not at
//! all, and no upstream sees them as two requests.

use std::time::Duration;

use tokio::time::sleep;

use crate::support::gateway::Gateway;
use crate::support::gateway_config::PASSWORD;
use crate::support::http;
use crate::support::raw_upstream::RawUpstream;
use crate::support::scene::in_front_of;

const EMPTY: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

/// Sends a head whose first line and further fields are given, with `billing`'s credential.
async fn raw(gateway: &Gateway, start: &str, fields: &str, body: &str) -> String {
    let credential = http::basic("billing", PASSWORD);
    let host = if fields.starts_with("Host:") { "" } else { "Host: gateway\r\n" };
    let text = format!("{start} HTTP/1.1\r\n{host}Authorization: {credential}\r\n{fields}\r\n{body}");
    http::raw(gateway.config.proxy, text.as_bytes()).await
}

fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
}

/// The request heads that reached the upstream, in lower case.
fn heads(upstream: &RawUpstream) -> String {
    upstream.received().to_lowercase()
}

#[tokio::test(flavor = "multi_thread")]
async fn dot_segments_in_any_spelling_are_refused() {
    let upstream = RawUpstream::answering(EMPTY, false).await;
    let (_server, gateway) = in_front_of(&upstream).await;
    for path in [
        "/calendar/../secret",
        "/calendar/a/../../secret",
        "/calendar/%2e%2e/secret",
        "/calendar/%2E./secret",
        "/calendar/.%2e/secret",
        "/calendar/..;/secret",
        "/calendar/..;x=1/secret",
        "/calendar/..%2fsecret",
        "/calendar/..%5csecret",
        "/calendar/..\\secret",
        "/calendar/a\\..\\b",
        "/calendar/./x",
        "/calendar/%2e/x",
        "/calendar/..",
        "/calendar/a%00b",
        "/calendar/a%0d%0ab",
        "/calendar/a%0ab",
        "//evil.example/calendar/x",
        "/calendar//evil.example/..",
    ] {
        let answer = raw(&gateway, &format!("GET {path}"), "", "").await;
        let refused = matches!(status(&answer), 400 | 404);
        assert!(refused, "{path}: {answer}");
        if path.starts_with("/calendar/") {
            assert!(answer.contains("bad_path"), "{path}: {answer}");
        }
    }
    assert_eq!(upstream.connections(), 0, "{}", upstream.received());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_other_path_goes_upstream_byte_for_byte() {
    let upstream = RawUpstream::answering(EMPTY, false).await;
    let (_server, gateway) = in_front_of(&upstream).await;
    for (path, there) in [
        ("/calendar", "/api"),
        ("/calendar/", "/api/"),
        ("/calendar/a%2Fb", "/api/a%2Fb"),
        ("/calendar/a%2fb;v=1,2/@:!$&'()*+=", "/api/a%2fb;v=1,2/@:!$&'()*+="),
        ("/calendar/%C3%A4?q=%2e%2e/&r=a+b", "/api/%C3%A4?q=%2e%2e/&r=a+b"),
        ("/calendar/x...y/..z/z..", "/api/x...y/..z/z.."),
        ("/calendar?", "/api?"),
        ("/calendar/x?a=?&b=//c", "/api/x?a=?&b=//c"),
    ] {
        let answer = raw(&gateway, &format!("GET {path}"), "", "").await;
        assert_eq!(status(&answer), 200, "{path}: {answer}");
        let line = format!("GET {there} HTTP/1.1\r\n");
        assert!(upstream.received().contains(&line), "{line} is not in {}", upstream.received());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn routes_end_on_segment_boundaries() {
    let upstream = RawUpstream::answering(EMPTY, false).await;
    let (_server, gateway) = in_front_of(&upstream).await;
    for path in ["/calendars", "/calenda", "/", "/Calendar/x"] {
        let answer = raw(&gateway, &format!("GET {path}"), "", "").await;
        assert!(status(&answer) == 404 && answer.contains("route_not_found"), "{path}: {answer}");
    }
    assert_eq!(upstream.connections(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_internal_and_nothing_of_this_hop_is_forwarded() {
    let upstream = RawUpstream::answering(EMPTY, false).await;
    let (_server, gateway) = in_front_of(&upstream).await;
    let fields = "Connection: keep-alive, AuThOrIzAtIoN, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nTE: trailers\r\n\
        Proxy-Authorization: Basic eA==\r\nProxy-Connection: keep-alive\r\nClaviger-Trace: 1\r\n\
        X-Api-Key: k\r\nX-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Host: evil.example\r\nForwarded: for=6.6.6.6\r\n\
        X-Kept: yes\r\n";
    assert_eq!(status(&raw(&gateway, "GET /calendar/x", fields, "").await), 200);
    let sent = heads(&upstream);
    let field =
        |name: &str| sent.lines().find(|line| line.starts_with(&format!("{name}:"))).map(str::to_owned);
    assert_eq!(field("authorization").as_deref(), Some("authorization: bearer planted-access-1"), "{sent}");
    assert_eq!(sent.matches("\nauthorization:").count(), 1, "{sent}");
    for name in [
        "x-hop",
        "keep-alive",
        "te",
        "proxy-authorization",
        "proxy-connection",
        "claviger-trace",
        "x-api-key",
    ] {
        assert_eq!(field(name), None, "{sent}");
    }
    assert!(!sent.contains("6.6.6.6") && !sent.contains("evil.example"), "trusted: {sent}");
    assert!(field("x-forwarded-for").is_some_and(|line| line.contains("127.0.0.1")), "{sent}");
    assert!(field("via").is_some() && field("x-kept").is_some(), "{sent}");
    assert_eq!(field("host"), Some(format!("host: {}", upstream.address)), "{sent}");
}

#[tokio::test(flavor = "multi_thread")]
async fn expect_is_answered_here_and_no_body_swallows_the_next_request() {
    let upstream = RawUpstream::start(|mut peer| async move {
        while let Some(head) = peer.head().await {
            if head.starts_with("POST") {
                let body = peer.body(11).await.unwrap_or_default();
                let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
                peer.say(answer).await;
            } else {
                peer.say(EMPTY).await;
            }
        }
    })
    .await;
    let (_server, gateway) = in_front_of(&upstream).await;
    let answer =
        raw(&gateway, "POST /calendar/a", "Expect: 100-continue\r\nContent-Length: 11\r\n", "the-body-xx")
            .await;
    assert!(answer.ends_with("the-body-xx") && answer.contains(" 200 "), "{answer}");
    assert_eq!(status(&raw(&gateway, "GET /calendar/b", "", "").await), 200);
    assert!(!heads(&upstream).contains("\nexpect:"), "{}", upstream.received());

    let other = raw(&gateway, "POST /calendar/a", "Expect: a-miracle\r\nContent-Length: 0\r\n", "").await;
    assert_eq!(status(&other), 417, "{other}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_promised_body_that_never_comes_takes_no_bytes_of_another_caller() {
    // The upstream refuses at once and then reads what it was promised.
    let upstream = RawUpstream::start(|mut peer| async move {
        while let Some(head) = peer.head().await {
            peer.say("HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n").await;
            if head.starts_with("POST") {
                peer.body(140).await;
            }
        }
    })
    .await;
    let (_server, gateway) = in_front_of(&upstream).await;
    let promise = "Expect: 100-continue\r\nContent-Length: 140\r\n";
    raw(&gateway, "POST /calendar/a", promise, "").await;
    for _ in 0..3 {
        // Read as the rest of the first body, it would not be answered.
        let url = gateway.proxy_url("/calendar/b");
        http::get(&url).basic("payroll", PASSWORD).send().await.expect_status(403);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_with_two_readings_is_refused() {
    let upstream = RawUpstream::answering(EMPTY, false).await;
    let (_server, gateway) = in_front_of(&upstream).await;
    let inner = "0\r\n\r\nGET /calendar/smuggled HTTP/1.1\r\nHost: x\r\n\r\n";
    for fields in [
        "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
        "Content-Length: 4\r\nContent-Length: 5\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Content-Length: +4\r\n",
        "Host: gateway\r\nHost: evil.example\r\n",
    ] {
        let answer = raw(&gateway, "POST /calendar/a", fields, inner).await;
        assert!((400..500).contains(&status(&answer)) || answer.is_empty(), "{fields}: {answer}");
    }
    assert!(!upstream.received().contains("smuggled"), "{}", upstream.received());
}

#[tokio::test(flavor = "multi_thread")]
async fn tunnels_and_upgrades_open_no_way_around_the_gateway() {
    let upstream = RawUpstream::answering(EMPTY, false).await;
    let (_server, gateway) = in_front_of(&upstream).await;
    let trailing = "GET /calendar/smuggled HTTP/1.1\r\nHost: x\r\n\r\n";
    for fields in
        ["Upgrade: websocket\r\n", "Upgrade: websocket\r\nConnection: upgrade\r\n", "Upgrade: h2c\r\n"]
    {
        raw(&gateway, "GET /calendar/a", fields, trailing).await;
    }
    raw(&gateway, "CONNECT gateway:443", "", trailing).await;
    raw(&gateway, "TRACE /calendar/a", "", "").await;
    let received = heads(&upstream);
    assert!(!received.contains("smuggled"), "{received}");
    assert!(
        !received.contains("\nupgrade:") && !received.contains("connect ") && !received.contains("trace "),
        "{received}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn two_credentials_are_no_credential() {
    let upstream = RawUpstream::answering(EMPTY, false).await;
    let (_server, gateway) = in_front_of(&upstream).await;
    let second = format!("Authorization: {}\r\n", http::basic("payroll", PASSWORD));
    let answer = raw(&gateway, "GET /calendar/a", &second, "").await;
    assert!(matches!(status(&answer), 400 | 401), "{answer}");
    let url = gateway.proxy_url("/calendar/a");
    http::get(&url).bearer("planted-access-1").send().await.expect_problem(401, "caller_unauthenticated");
    assert_eq!(upstream.connections(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_streams_and_arrives_whole() {
    let upstream = RawUpstream::start(|mut peer| async move {
        peer.head().await;
        let Some(seen) = peer.until("\r\n0\r\n\r\n").await else { return };
        let length = seen.matches('x').count().to_string();
        peer.say(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{length}", length.len())).await;
        peer.head().await;
    })
    .await;
    let (_server, gateway) = in_front_of(&upstream).await;
    let chunk = format!("{:x}\r\n{}\r\n", 20_000, "x".repeat(20_000));
    let body = format!("{}0\r\n\r\n", chunk.repeat(10));
    let answer = raw(&gateway, "POST /calendar/a", "Transfer-Encoding: chunked\r\n", &body).await;
    assert!(answer.ends_with("200000"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_goes_away_during_a_token_request_costs_nobody_else() {
    use crate::support::scripted_as::Answer;
    let upstream = RawUpstream::answering(EMPTY, false).await;
    let (server, gateway) = in_front_of(&upstream).await;
    let late = Answer::After(Duration::from_millis(1500), Box::new(Answer::token("late", 3600)));
    server.next(late);
    let gone = tokio::spawn(gateway.request("GET", "/calendar/a").send());
    crate::support::eventually("the token is asked for", async || server.count() == 1).await;
    gone.abort();
    sleep(Duration::from_millis(100)).await;
    gateway.call("/calendar/b").await.expect_status(200);
    assert_eq!(server.count(), 1, "the token request was cut off with its caller");
}
