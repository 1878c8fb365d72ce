//! No caller ever gets what was meant for another, whatever an upstream does.

use std::time::Duration;

use tokio::time::sleep;

use crate::caller::{Caller, End, basic};
use crate::engine::Setup;
use crate::upstream::Upstream;

fn head(name: &str, marker: &str) -> String {
    format!("GET /api/{marker} HTTP/1.1\r\nHost: gw.test\r\n{}\r\n", basic(name))
}

#[actix_web::test]
async fn interim_answers_are_never_taken_for_final_ones() {
    let upstream = Upstream::run(|mut line| async move {
        while let Some(head) = line.head().await {
            line.say("HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n").await;
            line.say("HTTP/1.1 100 Continue\r\n\r\n").await;
            sleep(Duration::from_millis(400)).await;
            let marker = head.split(' ').nth(1).unwrap().to_owned();
            let token = head.lines().find(|l| l.starts_with("authorization")).unwrap().to_owned();
            line.ok(&format!("{marker} {token}")).await;
        }
    })
    .await;
    let gateway = Setup::to(upstream.address).start().await;
    let (mut first, mut second) =
        (Caller::connect(gateway.address).await, Caller::connect(gateway.address).await);
    for round in 0..3 {
        first.send(head("billing", &format!("a{round}"))).await;
        sleep(Duration::from_millis(150)).await;
        second.send(head("crm", &format!("b{round}"))).await;
        let (a, b) = (first.answer().await, second.answer().await);
        assert_eq!(
            (a.status, a.text()),
            (200, &*format!("/v1/a{round} authorization: Bearer token-billing"))
        );
        assert_eq!((b.status, b.text()), (200, &*format!("/v1/b{round} authorization: Bearer token-crm")));
    }
}

#[actix_web::test]
async fn an_unfinished_request_never_swallows_the_next_callers() {
    let upstream = Upstream::run(|mut line| async move {
        let head = line.head().await.unwrap();
        if head.starts_with("POST") {
            line.say("HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n").await;
            let body = line.until_quiet(Duration::from_millis(800)).await;
            assert!(body.len() < 140, "only what the caller itself sent");
        } else {
            line.ok("second").await;
        }
    })
    .await;
    let gateway = Setup::to(upstream.address).start().await;
    let mut first = Caller::connect(gateway.address).await;
    let lines = basic("billing");
    first
        .send(format!(
            "POST /api/store HTTP/1.1\r\nHost: gw.test\r\n{lines}Expect: 100-continue\r\nContent-Length: 140\r\n\r\n"
        ))
        .await;
    assert_eq!(first.answer().await.status, 100, "answered by the gateway itself");
    first.send("first-").await;
    assert_eq!(first.answer().await.status, 401);

    let mut second = Caller::connect(gateway.address).await;
    second.send(head("crm", "x")).await;
    let answer = second.answer().await;
    assert_eq!((answer.status, answer.text()), (200, "second"));
    assert_eq!(upstream.connections(), 2, "the unfinished connection is not used again");
    assert!(!upstream.seen().to_ascii_lowercase().contains("expect"));
}

#[actix_web::test]
async fn an_answer_nobody_waits_for_any_more_reaches_nobody() {
    let upstream = Upstream::run(|mut line| async move {
        while let Some(head) = line.head().await {
            if head.starts_with("GET /v1/slow") {
                sleep(Duration::from_millis(300)).await;
            }
            line.ok(head.split(' ').nth(1).unwrap()).await;
        }
    })
    .await;
    let gateway = Setup::to(upstream.address).start().await;
    let mut gone = Caller::connect(gateway.address).await;
    gone.send(head("billing", "slow")).await;
    sleep(Duration::from_millis(50)).await;
    drop(gone);
    for n in 0..3 {
        let mut other = Caller::connect(gateway.address).await;
        other.send(head("crm", &format!("fast{n}"))).await;
        assert_eq!(other.answer().await.text(), format!("/v1/fast{n}"));
        sleep(Duration::from_millis(150)).await;
    }
}

#[actix_web::test]
async fn bytes_after_an_answer_are_not_the_next_answer() {
    let upstream = Upstream::run(|mut line| async move {
        while line.head().await.is_some() {
            let stray = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nstray";
            line.say(format!("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood{stray}")).await;
        }
    })
    .await;
    let gateway = Setup::to(upstream.address).start().await;
    let mut caller = Caller::connect(gateway.address).await;
    for _ in 0..3 {
        let answer = caller.get("/api/x").await;
        assert_eq!((answer.text(), answer.end), ("good", End::Clean));
    }
    assert_eq!(upstream.connections(), 3);
}

#[actix_web::test]
async fn a_clean_connection_is_used_again_and_a_stale_one_replaced() {
    let upstream = Upstream::run(|mut line| async move {
        // Each connection serves three requests, and is then closed without a word.
        for _ in 0..3 {
            if line.head().await.is_none() {
                return;
            }
            line.ok("x").await;
        }
    })
    .await;
    let gateway = Setup::to(upstream.address).start().await;
    let mut caller = Caller::connect(gateway.address).await;
    for _ in 0..9 {
        assert_eq!(caller.get("/api/x").await.status, 200);
    }
    assert_eq!(upstream.connections(), 3);
}

#[actix_web::test]
async fn a_request_that_may_have_been_seen_is_repeated_only_if_that_is_harmless() {
    for (method, lines, connections) in [
        ("GET", "", 2),
        ("PUT", "Content-Length: 0\r\n", 2),
        ("POST", "Content-Length: 0\r\n", 1),
        ("PATCH", "Content-Length: 0\r\n", 1),
    ] {
        let upstream = Upstream::run(|mut line| async move {
            line.head().await;
            line.ok("x").await;
            // The first connection breaks when it is used again.
            line.head().await;
            line.reset();
        })
        .await;
        let gateway = Setup::to(upstream.address).start().await;
        let mut caller = Caller::connect(gateway.address).await;
        assert_eq!(caller.get("/api/x").await.status, 200);
        let answer = caller.request(method, "/api/x", lines).await;
        assert_eq!(upstream.connections(), connections, "{method}");
        match connections {
            2 => assert_eq!((answer.status, answer.text()), (200, "x"), "{method}"),
            _ => assert_eq!((answer.status, &*answer.code()), (502, "upstream_unreachable"), "{method}"),
        }
    }
}
