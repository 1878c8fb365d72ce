//! Callers that lie about where a request ends, whom it is for, or what it says: for each it is stated
//! what reaches the upstream, or that nothing does.

use std::time::Duration;

use tokio::time::sleep;

use crate::caller::{Caller, basic};
use crate::engine::{Gateway, Setup};
use crate::upstream::Upstream;

/// What would be smuggled in behind a request.
const SMUGGLED: &str = "GET /api/smuggled HTTP/1.1\r\nHost: gw.test\r\n\r\n";

async fn start() -> (Gateway, Upstream) {
    let upstream = Upstream::run(|mut line| async move {
        while let Some(head) = line.head().await {
            let head = head.to_ascii_lowercase();
            if head.contains("transfer-encoding: chunked") {
                while !line.body(1).await.is_empty() {}
                return;
            }
            let length = head.split("content-length: ").nth(1).and_then(|rest| rest.split('\r').next());
            line.body(length.map_or(0, |length| length.parse().unwrap())).await;
            line.ok("reached").await;
        }
    })
    .await;
    (Setup::to(upstream.address).start().await, upstream)
}

/// Sends a request of `billing`'s, of which `lines` follow the credential and `rest` the head.
async fn send(gateway: &Gateway, start: &str, lines: &str, rest: &str) -> Caller {
    let mut caller = Caller::connect(gateway.address).await;
    caller.send(format!("{start}\r\n{}{lines}\r\n{rest}", basic("billing"))).await;
    caller
}

#[actix_web::test]
async fn a_request_whose_end_can_be_argued_about_reaches_nobody() {
    let (gateway, upstream) = start().await;
    let body = format!("5\r\nhello\r\n0\r\n\r\n{SMUGGLED}");
    for lines in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: 5\r\nContent-Length: 5\r\n",
        "Content-Length: 5, 6\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: -5\r\n",
        "Content-Length: 0x5\r\n",
        "Content-Length: 5 5\r\n",
        "Content-Length: 99999999999999999999\r\n",
        "Content-Length:\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: \"chunked\"\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Content-Length : 5\r\n",
        " Content-Length: 5\r\n",
        "Content-Length\r\n",
        "Con tent-Length: 5\r\n",
        "Content-Length\x00: 5\r\n",
        "X-Folded: a\r\n Content-Length: 5\r\n",
        "X-Folded: a\r\n\tTransfer-Encoding: chunked\r\n",
    ] {
        let mut caller = send(&gateway, "POST /api/x HTTP/1.1\r\nHost: gw.test", lines, &body).await;
        let answer = caller.answer().await;
        assert_eq!(answer.status, 400, "{lines:?}: {answer:?}");
        assert!(caller.is_closed().await, "{lines:?}: what follows is no request");
    }
    assert_eq!(upstream.seen(), "");
}

#[actix_web::test]
async fn bare_line_feeds_and_carriage_returns_end_nothing() {
    let (gateway, upstream) = start().await;
    for lines in ["X-A: a\rContent-Length: 5\r\n", "X-A: a\r\r\n", "X-A: \r\n\r"] {
        let mut caller = send(&gateway, "GET /api/x HTTP/1.1\r\nHost: gw.test", lines, "").await;
        caller.send("\r\n\r\n").await;
        assert_eq!(caller.answer().await.status, 400, "{lines:?}");
    }
    assert_eq!(upstream.seen(), "");
    // RFC 9112 section 2.2 lets a bare LF end a line; then it must end it for everybody alike: what goes
    // upstream is written anew.
    let mut caller = Caller::connect(gateway.address).await;
    let head =
        format!("GET /api/x HTTP/1.1\nHost: gw.test\n{}X-A: a\n\n", basic("billing").replace('\r', ""));
    caller.send(head).await;
    match caller.answer().await.status {
        400 => assert_eq!(upstream.seen(), ""),
        status => {
            assert_eq!(status, 200);
            assert!(upstream.seen().to_ascii_lowercase().contains("x-a: a\r\n"));
        }
    }
}

#[actix_web::test]
async fn a_malformed_chunk_breaks_the_request_off() {
    for body in [
        "0x5\r\nhello\r\n0\r\n\r\n",
        "+5\r\nhello\r\n0\r\n\r\n",
        "-5\r\nhello\r\n0\r\n\r\n",
        "g\r\nhello\r\n0\r\n\r\n",
        "\r\nhello\r\n0\r\n\r\n",
        "ffffffffffffffffff\r\nhello\r\n0\r\n\r\n",
        "5\r\nhelloX\r\n0\r\n\r\n",
        "5\r\nhello0\r\n\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
    ] {
        let (gateway, upstream) = start().await;
        let mut caller = send(
            &gateway,
            "POST /api/x HTTP/1.1\r\nHost: gw.test",
            "Transfer-Encoding: chunked\r\n",
            &format!("{body}{SMUGGLED}"),
        )
        .await;
        // Whether anything can still be said depends on how far the upstream had got.
        let said = caller.until_closed().await;
        assert!(!said.starts_with("HTTP/1.1 2"), "{body:?}: {said}");
        let seen = upstream.seen();
        assert!(!seen.contains("smuggled"), "{body:?}: {seen}");
        assert!(!seen.ends_with("0\r\n\r\n"), "{body:?}: no clean end: {seen}");
    }
}

#[actix_web::test]
async fn chunks_are_written_anew_whatever_else_stood_in_them() {
    let (gateway, upstream) = start().await;
    for first in ["5;a=b\r\n", "5 \r\n", "005\r\n"] {
        let rest = format!("{first}hello\r\n0\r\n\r\n");
        let start = "POST /api/x HTTP/1.1\r\nHost: gw.test";
        // The upstream here never answers a chunked request; all that counts is what it got.
        let _caller = send(&gateway, start, "Transfer-Encoding: chunked\r\n", &rest).await;
        for _ in 0..50 {
            if upstream.seen().ends_with("\r\n\r\n5\r\nhello\r\n0\r\n\r\n") {
                break;
            }
            sleep(Duration::from_millis(50)).await;
        }
        let seen = upstream.seen();
        assert!(seen.ends_with("\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), "{first:?}: {seen}");
        assert!(!seen.contains(";a=b") && !seen.contains("005"), "{seen}");
    }
}

#[actix_web::test]
async fn trailers_are_no_way_in() {
    let (gateway, upstream) = start().await;
    let rest = "5\r\nhello\r\n0\r\nAuthorization: Bearer forged\r\nX-Request-Id: forged\r\n\r\n";
    let start = "POST /api/x HTTP/1.1\r\nHost: gw.test";
    let mut caller = send(&gateway, start, "Transfer-Encoding: chunked\r\n", rest).await;
    assert!(matches!(caller.answer().await.status, 400 | 504));
    assert!(!upstream.seen().contains("forged"), "{}", upstream.seen());
}

#[actix_web::test]
async fn a_target_and_a_host_that_disagree_reach_nobody() {
    let (gateway, upstream) = start().await;
    for (start, lines) in [
        ("GET http://other.test/api/x HTTP/1.1\r\nHost: gw.test", ""),
        ("GET https://gw.test@evil.test/api/x HTTP/1.1\r\nHost: gw.test", ""),
        ("GET http://gw.test:81/api/x HTTP/1.1\r\nHost: gw.test", ""),
        ("GET //evil.test/api/x HTTP/1.1\r\nHost: gw.test", ""),
        ("GET gw.test/api/x HTTP/1.1\r\nHost: gw.test", ""),
        ("GET * HTTP/1.1\r\nHost: gw.test", ""),
        ("GET /api/x HTTP/1.1\r\nHost: gw.test/evil", ""),
        ("GET /api/x HTTP/1.1\r\nHost: user@gw.test", ""),
        ("GET /api/x HTTP/1.1\r\nHost: gw.test", "Host: evil.test\r\n"),
        ("GET /api/x HTTP/1.1\r\nHost: gw test", ""),
        ("GET /api/x HTTP/1.1\r\nX: y", ""),
    ] {
        let mut caller = send(&gateway, start, lines, "").await;
        let answer = caller.answer().await;
        assert_eq!(answer.status, 400, "{start:?} {lines:?}: {answer:?}");
    }
    assert_eq!(upstream.seen(), "");
    // One that agrees goes up as a path.
    let mut caller = send(&gateway, "GET http://gw.test/api/x?y HTTP/1.1\r\nHost: gw.test", "", "").await;
    assert_eq!(caller.answer().await.status, 200);
    assert!(upstream.seen().starts_with("GET /v1/x?y HTTP/1.1\r\n"), "{}", upstream.seen());
}

#[actix_web::test]
async fn request_lines_that_are_none_reach_nobody() {
    let (gateway, upstream) = start().await;
    for start in [
        "GET /api/x",
        "GET  /api/x HTTP/1.1",
        "GET /api/x  HTTP/1.1",
        "GET\t/api/x\tHTTP/1.1",
        "GET /api/x HTTP/2.0",
        "GET /api/x HTTP/1.2",
        "GET /api/x HTTP/1.1 x",
        "GET /api/x http/1.1",
        "G(T /api/x HTTP/1.1",
        " GET /api/x HTTP/1.1",
        "/api/x GET HTTP/1.1",
    ] {
        let mut caller = send(&gateway, &format!("{start}\r\nHost: gw.test"), "", "").await;
        assert_eq!(caller.answer().await.status, 400, "{start:?}");
        assert!(caller.is_closed().await, "{start:?}");
    }
    assert_eq!(upstream.seen(), "");
}

#[actix_web::test]
async fn values_with_control_characters_reach_nobody() {
    let (gateway, upstream) = start().await;
    for byte in (0..0x20u8).filter(|byte| !b"\t\r\n".contains(byte)).chain([0x7f]) {
        let mut caller = Caller::connect(gateway.address).await;
        let mut head =
            format!("GET /api/x HTTP/1.1\r\nHost: gw.test\r\n{}X-A: a", basic("billing")).into_bytes();
        head.push(byte);
        head.extend_from_slice(b"b\r\n\r\n");
        caller.send(head).await;
        assert_eq!(caller.answer().await.status, 400, "{byte:#x}");
    }
    assert_eq!(upstream.seen(), "");
}

#[actix_web::test]
async fn heads_have_a_limit() {
    let (gateway, upstream) = start().await;
    let long = format!("X-Long: {}\r\n", "a".repeat(256 * 1024));
    let many = (0..200).map(|n| format!("X-{n}: a\r\n")).collect::<String>();
    for lines in [long, many] {
        let mut caller = send(&gateway, "GET /api/x HTTP/1.1\r\nHost: gw.test", &lines, "").await;
        let status = caller.answer().await.status;
        assert!((400..500).contains(&status), "{status}");
        assert!(caller.is_closed().await);
    }
    let mut caller = Caller::connect(gateway.address).await;
    caller.send(format!("GET /api/{} HTTP/1.1\r\nHost: gw.test\r\n\r\n", "a".repeat(200 * 1024))).await;
    let status = caller.answer().await.status;
    assert!((400..500).contains(&status), "{status}");
    assert_eq!(upstream.seen(), "");
}

#[actix_web::test]
async fn a_head_that_never_ends_is_given_up() {
    let (gateway, upstream) = start().await;
    let mut caller = Caller::connect(gateway.address).await;
    caller.send("GET /api/x HTTP/1.1\r\n").await;
    // A drop now and then is no progress: the whole head has one deadline.
    let dripping = async {
        for number in 0..20 {
            sleep(Duration::from_millis(600)).await;
            if caller.try_send(format!("X-{number}: a\r\n")).await.is_err() {
                return true;
            }
        }
        false
    };
    let given_up = dripping.await;
    assert!(given_up || caller.is_closed().await);
    assert_eq!(upstream.seen(), "");
}

#[actix_web::test]
async fn a_body_that_comes_late_is_no_request() {
    let (gateway, upstream) = start().await;
    // Refused before the body came, and quiet for longer than an idle connection keeps its reader.
    for lines in ["Content-Length: 60\r\n", "Transfer-Encoding: chunked\r\n", "Upgrade: websocket\r\n"] {
        let mut caller = Caller::connect(gateway.address).await;
        caller.send(format!("POST /api/x HTTP/1.1\r\nHost: gw.test\r\n{lines}\r\n")).await;
        assert_eq!(caller.answer().await.status, 401, "{lines}");
        sleep(Duration::from_millis(700)).await;
        let smuggled = format!("GET /api/smuggled HTTP/1.1\r\nHost: gw.test\r\n{}\r\n", basic("billing"));
        let _ = caller.try_send(smuggled).await;
        assert!(!caller.until_closed().await.contains("HTTP/1.1"), "{lines}");
    }
    assert_eq!(upstream.seen(), "");
}
