//! Request bodies: streamed, counted, limited, watched.

use std::time::Duration;

use tokio::time::sleep;

use crate::caller::{Caller, basic};
use crate::engine::Setup;
use crate::upstream::Upstream;

fn post(lines: &str) -> String {
    format!("POST /api/x HTTP/1.1\r\nHost: gw.test\r\n{}{lines}\r\n", basic("billing"))
}

#[actix_web::test]
async fn bodies_stream_in_both_directions_at_once() {
    // Answers each piece while the request is still coming.
    let upstream = Upstream::run(|mut line| async move {
        line.head().await;
        line.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
        for _ in 0..3 {
            let piece = line.body(5 + 6 + 2).await;
            line.say(format!("{:x}\r\n", piece.len())).await;
            line.say([piece.as_slice(), b"\r\n"].concat()).await;
        }
        line.say("0\r\n\r\n").await;
    })
    .await;
    let gateway = Setup::to(upstream.address).start().await;
    let mut caller = Caller::connect(gateway.address).await;
    caller.send(post("Transfer-Encoding: chunked\r\n")).await;
    for piece in ["a", "b", "c"] {
        sleep(Duration::from_millis(50)).await;
        caller.send(format!("8\r\n{}\r\n", piece.repeat(8))).await;
    }
    caller.send("0\r\n\r\n").await;
    let answer = caller.answer().await;
    for piece in ["aaaaaaaa", "bbbbbbbb", "cccccccc"] {
        assert!(answer.text().contains(piece), "{answer:?}");
    }
    assert!(upstream.seen().contains("transfer-encoding: chunked\r\n"));
}

#[actix_web::test]
async fn a_large_body_arrives_byte_for_byte() {
    const SIZE: usize = 3_000_000;
    let upstream = Upstream::run(|mut line| async move {
        while line.head().await.is_some() {
            let body = line.body(SIZE).await;
            let intact = body.iter().enumerate().all(|(n, byte)| *byte == (n % 251) as u8);
            line.ok(&format!("{} {intact}", body.len())).await;
        }
    })
    .await;
    let gateway = Setup::to(upstream.address).start().await;
    let mut caller = Caller::connect(gateway.address).await;
    let body: Vec<u8> = (0..SIZE).map(|n| (n % 251) as u8).collect();
    for _ in 0..2 {
        caller.send(post(&format!("Content-Length: {SIZE}\r\n"))).await;
        caller.send(&body).await;
        assert_eq!(caller.answer().await.text(), "3000000 true");
    }
    assert_eq!(upstream.connections(), 1);
}

#[actix_web::test]
async fn a_body_over_the_routes_limit_is_refused_before_or_while_it_comes() {
    let upstream = Upstream::run(|mut line| async move {
        line.until_quiet(Duration::from_secs(1)).await;
    })
    .await;
    let gateway = Setup::to(upstream.address).route(|r| r.max_body = Some(1000)).start().await;
    let mut caller = Caller::connect(gateway.address).await;
    caller.send(post("Content-Length: 1001\r\n")).await;
    let answer = caller.answer().await;
    assert_eq!((answer.status, &*answer.code()), (413, "body_too_large"));
    assert_eq!(upstream.connections(), 0);

    let mut caller = Caller::connect(gateway.address).await;
    caller.send(post("Transfer-Encoding: chunked\r\n")).await;
    caller.send(format!("258\r\n{}\r\n", "a".repeat(600))).await;
    sleep(Duration::from_millis(50)).await;
    caller.send(format!("258\r\n{}\r\n", "b".repeat(600))).await;
    let answer = caller.answer().await;
    assert_eq!((answer.status, &*answer.code()), (413, "body_too_large"));
    assert!(!upstream.seen().contains("0\r\n\r\n"), "the upstream saw no clean end");
}

#[actix_web::test]
async fn a_body_that_breaks_off_has_no_clean_end_upstream() {
    for framing in ["Content-Length: 10\r\n", "Transfer-Encoding: chunked\r\n"] {
        let upstream = Upstream::run(|mut line| async move {
            line.until_quiet(Duration::from_secs(3)).await;
        })
        .await;
        let gateway = Setup::to(upstream.address).start().await;
        let mut caller = Caller::connect(gateway.address).await;
        caller.send(post(framing)).await;
        caller.send(if framing.starts_with('T') { "3\r\nabc\r\n" } else { "abc" }).await;
        sleep(Duration::from_millis(100)).await;
        drop(caller);
        sleep(Duration::from_millis(100)).await;
        let seen = upstream.seen();
        let (_, body) = seen.split_once("\r\n\r\n").unwrap();
        assert!(body.contains("abc") && !body.contains("0\r\n\r\n"), "{seen}");
    }
}

#[actix_web::test]
async fn a_caller_that_drips_or_stalls_is_given_up() {
    let upstream = Upstream::run(|mut line| async move {
        line.until_quiet(Duration::from_secs(9)).await;
    })
    .await;
    let gateway = Setup::to(upstream.address).body_idle(Duration::from_millis(400)).start().await;
    let mut stalling = Caller::connect(gateway.address).await;
    stalling.send(post("Content-Length: 100\r\n")).await;
    let answer = stalling.answer().await;
    assert_eq!((answer.status, &*answer.code()), (408, "bad_request"));

    let mut dripping = Caller::connect(gateway.address).await;
    dripping.send(post("Content-Length: 100\r\n")).await;
    for _ in 0..12 {
        dripping.send("x").await;
        sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(dripping.answer().await.status, 408);
}

#[actix_web::test]
async fn an_upload_may_take_longer_than_the_upstream_may_take_to_answer() {
    let upstream = Upstream::run(|mut line| async move {
        line.head().await;
        line.body(20_000).await;
        line.ok("done").await;
    })
    .await;
    let gateway = Setup::to(upstream.address).route(|r| r.timeout = Duration::from_millis(300)).start().await;
    let mut caller = Caller::connect(gateway.address).await;
    caller.send(post("Content-Length: 20000\r\n")).await;
    for _ in 0..10 {
        sleep(Duration::from_millis(100)).await;
        caller.send("y".repeat(2000)).await;
    }
    assert_eq!(caller.answer().await.text(), "done");
}

#[actix_web::test]
async fn an_answer_that_comes_before_the_body_ended_is_passed_on() {
    let upstream = Upstream::run(|mut line| async move {
        line.head().await;
        line.say("HTTP/1.1 413 Too Large\r\nContent-Length: 4\r\nConnection: close\r\n\r\nstop").await;
        line.until_quiet(Duration::from_millis(300)).await;
    })
    .await;
    let gateway = Setup::to(upstream.address).start().await;
    let mut caller = Caller::connect(gateway.address).await;
    caller.send(post("Content-Length: 1000000\r\n")).await;
    caller.send("z".repeat(1000)).await;
    let answer = caller.answer().await;
    assert_eq!((answer.status, answer.text()), (413, "stop"));
    assert!(caller.is_closed().await, "what is left of the body is no request");
}
