//! Where an answer's body ends, and what is made of one that never does.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use crate::caller::{Answer, Caller, End};
use crate::engine::Setup;
use crate::upstream::Upstream;

async fn get_from(upstream: &Upstream) -> Answer {
    let gateway = Setup::to(upstream.address).start().await;
    Caller::connect(gateway.address).await.get("/api/x").await
}

#[actix_web::test]
async fn answers_without_body_do_not_hang_whatever_length_they_state() {
    for (answer, status, length) in [
        ("HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nETag: \"a\"\r\n\r\n", 304, Some("5")),
        ("HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", 204, None),
        ("HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n", 304, None),
    ] {
        let upstream = Upstream::always(answer).await;
        let gateway = Setup::to(upstream.address).start().await;
        let mut caller = Caller::connect(gateway.address).await;
        let begun = Instant::now();
        for _ in 0..3 {
            let answer = caller.get("/api/x").await;
            assert_eq!((answer.status, answer.header("content-length")), (status, length));
            assert_eq!(answer.header("transfer-encoding"), None);
        }
        assert!(begun.elapsed() < Duration::from_secs(2));
        assert_eq!(upstream.connections(), 1);
    }
}

#[actix_web::test]
async fn head_keeps_the_length_and_has_no_body() {
    let upstream = Upstream::always("HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n").await;
    let gateway = Setup::to(upstream.address).start().await;
    let mut caller = Caller::connect(gateway.address).await;
    for _ in 0..2 {
        let answer = caller.request("HEAD", "/api/x", "").await;
        assert_eq!((answer.status, answer.header("content-length")), (200, Some("1234")));
    }
    assert_eq!(upstream.connections(), 1);
}

#[actix_web::test]
async fn a_body_that_ends_with_the_connection_arrives_whole() {
    let upstream = Upstream::once("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nall of it").await;
    let answer = get_from(&upstream).await;
    assert_eq!((answer.text(), answer.end), ("all of it", End::Clean));
    let upstream = Upstream::once("HTTP/1.0 200 OK\r\n\r\nall of it").await;
    let answer = get_from(&upstream).await;
    assert_eq!((answer.text(), answer.end), ("all of it", End::Clean));
}

#[actix_web::test]
async fn a_body_that_breaks_off_never_ends_cleanly() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nbegin",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nbegin\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nbegin\r\n5\r\nmo",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nbegin\r\nxyz\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nbegin\r\n0\r\n",
    ] {
        let upstream = Upstream::run(move |mut line| async move {
            line.head().await;
            line.say(answer).await;
            sleep(Duration::from_millis(50)).await;
        })
        .await;
        assert_eq!(get_from(&upstream).await.end, End::BrokenOff, "{answer}");
    }
    let upstream = Upstream::run(|mut line| async move {
        line.head().await;
        line.say("HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nbegin").await;
        sleep(Duration::from_millis(50)).await;
        line.reset();
    })
    .await;
    assert_eq!(get_from(&upstream).await.end, End::BrokenOff, "reset in mid-body");
}

#[actix_web::test]
async fn ambiguous_or_senseless_answers_are_refused() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
        "HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\nabcde",
        "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nabcde",
        "HTTP/1.1 200 OK\r\nContent-Length : 5\r\n\r\nabcde",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        "SSH-2.0-OpenSSH_9.2\r\n",
        "HTTP/1.1 abc OK\r\n\r\n",
        "\x15\x03\x01\x00\x02\x02\x28",
        "",
    ] {
        let answer = get_from(&Upstream::once(answer).await).await;
        assert_eq!((answer.status, &*answer.code()), (502, "upstream_unreachable"));
    }
}

#[actix_web::test]
async fn redirects_and_errors_pass_through() {
    let upstream = Upstream::once(
        "HTTP/1.1 307 Temporary Redirect\r\nLocation: http://evil.test/\r\nContent-Length: 0\r\n\r\n",
    )
    .await;
    let answer = get_from(&upstream).await;
    assert_eq!((answer.status, answer.header("location")), (307, Some("http://evil.test/")));
    let upstream = Upstream::once("HTTP/1.1 503 Odd\r\nRetry-After: 7\r\nContent-Length: 2\r\n\r\nno").await;
    let answer = get_from(&upstream).await;
    assert_eq!((answer.status, answer.header("retry-after"), answer.text()), (503, Some("7"), "no"));
}

#[actix_web::test]
async fn an_upstream_that_hangs_or_refuses_is_told_apart() {
    let upstream = Upstream::run(|mut line| async move {
        line.until_quiet(Duration::from_secs(20)).await;
    })
    .await;
    let gateway = Setup::to(upstream.address).route(|r| r.timeout = Duration::from_millis(300)).start().await;
    let mut caller = Caller::connect(gateway.address).await;
    let answer = caller.get("/api/x").await;
    assert_eq!((answer.status, &*answer.code()), (504, "upstream_timeout"));

    let nobody = "127.0.0.1:1".parse().unwrap();
    let gateway = Setup::to(nobody).start().await;
    let answer = Caller::connect(gateway.address).await.get("/api/x").await;
    assert_eq!((answer.status, &*answer.code()), (502, "upstream_unreachable"));
}

#[actix_web::test]
async fn a_head_that_drips_is_bounded_by_the_routes_timeout() {
    let upstream = Upstream::run(|mut line| async move {
        line.head().await;
        line.say("HTTP/1.1 200 OK\r\n").await;
        loop {
            line.say("X-Drip: 1\r\n").await;
            sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    let gateway = Setup::to(upstream.address).route(|r| r.timeout = Duration::from_millis(400)).start().await;
    let begun = Instant::now();
    let answer = Caller::connect(gateway.address).await.get("/api/x").await;
    assert_eq!(answer.status, 504);
    assert!(begun.elapsed() < Duration::from_secs(2));
}

#[actix_web::test]
async fn a_body_that_stalls_is_broken_off_and_a_slow_one_is_not() {
    let upstream = Upstream::run(|mut line| async move {
        let head = line.head().await.unwrap();
        line.say("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n").await;
        for byte in ["1", "2", "3", "4"] {
            line.say(byte).await;
            sleep(Duration::from_millis(200)).await;
        }
        if head.starts_with("GET /v1/stall") {
            sleep(Duration::from_secs(20)).await;
        }
        line.say("5678").await;
        line.until_quiet(Duration::from_secs(1)).await;
    })
    .await;
    let idle = Duration::from_millis(500);
    for setup in [
        Setup::to(upstream.address).body_idle(idle),
        Setup::to(upstream.address).route(|route| route.resilience.idle_timeout = Some(idle)),
    ] {
        let gateway = setup.start().await;
        let mut caller = Caller::connect(gateway.address).await;
        let answer = caller.get("/api/slow").await;
        assert_eq!((answer.text(), answer.end), ("12345678", End::Clean));
        assert_eq!(caller.get("/api/stall").await.end, End::BrokenOff);
    }
}

#[actix_web::test]
async fn an_http_1_0_caller_gets_no_chunks() {
    let upstream =
        Upstream::always("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n").await;
    let gateway = Setup::to(upstream.address).start().await;
    let mut caller = Caller::connect(gateway.address).await;
    let auth = crate::caller::basic("billing");
    caller
        .send(format!("GET /api/x HTTP/1.0\r\nHost: gw.test\r\nConnection: keep-alive\r\n{auth}\r\n"))
        .await;
    let answer = caller.answer().await;
    assert_eq!((answer.header("transfer-encoding"), answer.text(), answer.end), (None, "abc", End::Close));
}

#[actix_web::test]
async fn trailers_go_no_further() {
    let upstream = Upstream::always(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n3\r\nabc\r\n0\r\nX-T: 1\r\n\r\n",
    )
    .await;
    let gateway = Setup::to(upstream.address).start().await;
    let mut caller = Caller::connect(gateway.address).await;
    for _ in 0..2 {
        let answer = caller.get("/api/x").await;
        assert_eq!((answer.text(), answer.end, answer.header("trailer")), ("abc", End::Clean, None));
    }
}
