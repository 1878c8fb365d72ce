//! Heads in both directions: what passes, what does not, and which paths are refused.

use crate::caller::{Caller, End, basic};
use crate::engine::{Setup, route};
use crate::upstream::Upstream;

#[actix_web::test]
async fn what_the_caller_forges_or_proves_itself_with_never_arrives() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(upstream.address).start().await;
    let mut caller = Caller::connect(gateway.address).await;
    let lines = "cOnNeCtIoN: aUtHoRiZaTiOn, x-secret, via, x-forwarded-for\r\nX-Secret: 1\r\n\
        X-Forwarded-For: 10.9.9.9\r\nX_Forwarded_For: 10.9.9.9\r\nX-Forwarded-Host: evil.test\r\nForwarded: for=evil.test\r\n\
        X-Forwarded-User: admin\r\nClaviger-Subject: alice\r\nClaviger_Subject: alice\r\nX-Api-Key: evil.test\r\nX-Request-Id: evil.test\r\n\
        TE: trailers\r\nKeep-Alive: timeout=9\r\nProxy-Authorization: Basic evil.test\r\n\
        Cookie: theme=dark; claviger_browser=evil.test\r\nX-Kept: a\r\nX-Kept: b\r\nRange: bytes=0-4\r\nAccept-Encoding: br\r\n";
    let answer = caller.request("GET", "/api/a%2Fb;v=1/~c?q=1&x=..", lines).await;
    assert_eq!(answer.status, 200);
    let seen = answer.text().to_owned();
    assert!(seen.starts_with("GET /v1/a%2Fb;v=1/~c?q=1&x=.. HTTP/1.1\r\n"), "{seen}");
    for expected in [
        "authorization: Bearer token-billing",
        "via: 1.1 claviger",
        "x-forwarded-for: 127.0.0.1",
        "x-forwarded-host: gw.test",
        "x-forwarded-proto: http",
        "cookie: theme=dark",
        "x-kept: a",
        "x-kept: b",
        "range: bytes=0-4",
        "accept-encoding: br",
        &format!("host: {}", upstream.address),
    ] {
        assert_eq!(seen.lines().filter(|line| *line == expected).count(), 1, "{expected} in {seen}");
    }
    for absent in [
        "evil.test",
        "10.9.9.9",
        "Basic",
        "claviger_browser",
        "alice",
        "x-secret",
        "admin",
        "keep-alive",
        "te:",
    ] {
        assert!(!seen.contains(absent), "{absent} in {seen}");
    }
    assert_eq!(seen.matches("authorization:").count(), 1);
    assert_eq!(seen.matches("x-request-id:").count(), 1);
}

#[actix_web::test]
async fn an_answer_passes_untouched_but_for_what_is_hop_by_hop() {
    let upstream = Upstream::always(
        "HTTP/1.1 206 Partial Content\r\nContent-Encoding: gzip\r\nContent-Range: bytes 0-2/9\r\nContent-Length: 3\r\n\
         Set-Cookie: a=1\r\nSet-Cookie: b=2\r\nSet-Cookie: claviger_browser=planted\r\nServer: old/1\r\n\
         Date: Tue, 24 Nov 2026 07:00:00 GMT\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\n\
         WWW-Authenticate: Bearer\r\nVia: 1.1 inner\r\n\r\n\x01\x02\x03",
    )
    .await;
    let gateway = Setup::to(upstream.address).start().await;
    let answer = Caller::connect(gateway.address).await.get("/api/x").await;
    assert_eq!((answer.status, &*answer.body, answer.end), (206, b"\x01\x02\x03".as_slice(), End::Clean));
    let all = |name: &str| -> Vec<_> {
        answer.headers.iter().filter(|(n, _)| n == name).map(|(_, v)| v.as_str()).collect()
    };
    assert_eq!(all("set-cookie"), ["a=1", "b=2"]);
    assert_eq!(all("via"), ["1.1 inner", "1.1 claviger"]);
    assert_eq!(all("date"), ["Tue, 24 Nov 2026 07:00:00 GMT"]);
    assert_eq!(all("server"), ["old/1"]);
    assert_eq!(all("content-encoding"), ["gzip"]);
    for absent in ["x-hop", "keep-alive", "connection", "transfer-encoding"] {
        assert!(all(absent).is_empty(), "{absent}");
    }
}

#[actix_web::test]
async fn methods_ranges_and_codings_are_between_caller_and_upstream() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(upstream.address).start().await;
    let mut caller = Caller::connect(gateway.address).await;
    let lines = "Range: bytes=0-2\r\nIf-Range: \"e\"\r\nAccept-Encoding: gzip, br;q=0.5\r\nOrigin: https://a.example\r\n";
    for method in ["GET", "OPTIONS", "DELETE", "PROPFIND", "PATCH"] {
        let answer = caller.request(method, "/api/x", lines).await;
        let seen = answer.text();
        assert!(seen.starts_with(&format!("{method} /v1/x HTTP/1.1\r\n")), "{seen}");
        for line in lines.to_ascii_lowercase().lines() {
            assert!(seen.to_ascii_lowercase().contains(&format!("{line}\r\n")), "{line} in {seen}");
        }
    }
}

#[actix_web::test]
async fn tricks_with_paths_are_refused_before_anything_is_sent() {
    let upstream = Upstream::echo().await;
    let root = Setup::to(upstream.address).and({
        let mut root = route("shared", "", upstream.address);
        root.upstream_path = String::new();
        root
    });
    let gateway = root.start().await;
    for path in [
        "//evil/x",
        "/\\evil",
        "/api/..",
        "/api/../x",
        "/api/%2e%2e/x",
        "/api/a\\..\\b",
        "/api/a/%2e%2e/b%2fc;x/..;/d",
        "/api/..;/x",
        "/api/%zz",
        "/api/%00",
        "/api/%0d%0aX:1",
        "/api/..%2fx",
        "/api/..%5cx",
        "/api/%252e%252e/x",
        "http://evil.test/api/x",
        "http://gw.test@evil.test/api/x",
        "http://gw.test:8080/api/x",
        "*",
        "/%2fevil",
        "/api/%2",
    ] {
        let mut caller = Caller::connect(gateway.address).await;
        let answer = caller.get(path).await;
        assert_eq!((answer.status, &*answer.code()), (400, "bad_path"), "{path}");
    }
    assert_eq!(upstream.connections(), 0);
    let mut caller = Caller::connect(gateway.address).await;
    for (path, sent) in [
        ("/api", "/v1"),
        ("/api/", "/v1/"),
        ("/api?x", "/v1?x"),
        ("/api//x", "/v1//x"),
        ("/api/%2Fx", "/v1/%2Fx"),
        ("http://gw.test/api/x", "/v1/x"),
        ("/apix/y", "/apix/y"),
        ("/", "/"),
    ] {
        let answer = caller.get(path).await;
        assert!(answer.text().starts_with(&format!("GET {sent} HTTP/1.1\r\n")), "{path}: {}", answer.text());
    }
}

#[actix_web::test]
async fn methods_and_heads_that_are_not_served_are_told_so() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(upstream.address).start().await;
    for (method, target) in [("CONNECT", "evil.test:443"), ("TRACE", "/api/x"), ("trace", "/api/x")] {
        let answer = Caller::connect(gateway.address).await.request(method, target, "").await;
        assert_eq!((answer.status, &*answer.code()), (405, "method_not_allowed"), "{method}");
    }
    for (lines, status, code) in [
        ("Expect: something-else\r\n", 417, "bad_request"),
        ("Authorization: Bearer x\r\n", 400, "bad_request"),
    ] {
        let answer = Caller::connect(gateway.address).await.request("GET", "/api/x", lines).await;
        assert_eq!((answer.status, &*answer.code()), (status, code), "{lines}");
    }
    for head in [
        "Host: gw.test\r\nHost: evil.test\r\n",
        "Host: a@b/../c\r\n",
        "",
        "Host: gw.test\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n",
    ] {
        let mut caller = Caller::connect(gateway.address).await;
        caller.send(format!("GET /api/x HTTP/1.1\r\n{head}{}\r\n", basic("billing"))).await;
        assert_eq!(caller.answer().await.status, 400, "{head}");
    }
    assert_eq!(upstream.connections(), 0);
}

#[actix_web::test]
async fn an_upgrade_that_is_none_of_ours_is_forwarded_without_it_and_ends_the_connection() {
    let upstream = Upstream::run(|mut line| async move {
        while let Some(head) = line.head().await {
            let length = if head.contains("content-length: 4") { 4 } else { 0 };
            let body = line.body(length).await;
            line.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
            line.say(format!("{:x}\r\n{head}\r\n4\r\n", head.len())).await;
            line.say([body.as_slice(), &b"----"[body.len()..], b"\r\n0\r\n\r\n"].concat()).await;
        }
    })
    .await;
    let gateway = Setup::to(upstream.address).start().await;
    for (method, lines) in [
        ("GET", "Upgrade: websocket\r\nConnection: upgrade\r\n"),
        ("GET", "Upgrade: websocket\r\n"),
        (
            "GET",
            "Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
        ),
        ("POST", "Upgrade: websocket\r\nContent-Length: 4\r\n"),
    ] {
        let mut caller = Caller::connect(gateway.address).await;
        // After a WebSocket handshake, what follows is no request. After others it is one of its own.
        let smuggled = match lines.contains("websocket") {
            true => "GET /api/smuggled HTTP/1.1\r\nHost: gw.test\r\n\r\n",
            false => "",
        };
        let body = if method == "POST" { "body" } else { "" };
        let auth = basic("billing");
        caller
            .send(format!("{method} /api/x HTTP/1.1\r\nHost: gw.test\r\n{auth}{lines}\r\n{body}{smuggled}"))
            .await;
        let answer = caller.answer().await;
        assert_eq!(answer.status, 200);
        let seen = answer.text().to_ascii_lowercase();
        assert!(!seen.contains("upgrade") && !seen.contains("http2-settings:"), "{seen}");
        assert!(seen.ends_with(if method == "POST" { "\nbody" } else { "\n----" }), "{seen}");
        assert_eq!(answer.header("connection"), Some("close"), "{lines}");
        assert!(caller.is_closed().await, "{lines}");
        assert!(!upstream.seen().contains("smuggled"), "{lines}");
    }
}
