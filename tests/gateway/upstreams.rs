//! Whatever an upstream says: no answer reaches another caller, nothing hangs, and what broke off
//! never looks whole.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use crate::support::gateway::Gateway;
use crate::support::gateway_config::PASSWORD;
use crate::support::http::{self, Request};
use crate::support::raw_upstream::{Peer, RawUpstream};
use crate::support::scene::in_front_of;

/// `GET /calendar/NAME` as `caller`.
fn get(gateway: &Gateway, caller: &str, name: &str) -> Request {
    http::get(&gateway.proxy_url(&format!("/calendar/{name}"))).basic(caller, PASSWORD)
}

/// The last segment of the path asked for.
fn name(head: &str) -> &str {
    head.split(' ').nth(1).and_then(|path| path.rsplit('/').next()).unwrap_or_default()
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// Answers each request with its own name, after interim answers and a pause.
async fn interim_then_name(mut peer: Peer, interim: &'static str) {
    while let Some(head) = peer.head().await {
        peer.say(interim).await;
        sleep(Duration::from_millis(400)).await;
        peer.say(ok(name(&head))).await;
    }
}

async fn everybody_gets_their_own(upstream: &RawUpstream) {
    let (_server, gateway) = in_front_of(upstream).await;
    let mut calls = Vec::new();
    for round in 0..4 {
        for caller in ["billing", "payroll"] {
            let marker = format!("{caller}-{round}");
            let call = get(&gateway, caller, &marker);
            calls.push(tokio::spawn(async move { (call.send().await, marker) }));
            sleep(Duration::from_millis(150)).await;
        }
    }
    for call in calls {
        let (answer, marker) = call.await.unwrap();
        assert_eq!(answer.expect_status(200).text(), marker);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn early_hints_shift_no_answer_to_another_caller() {
    let hints = "HTTP/1.1 103 Early Hints\r\nLink: </x>; rel=preload\r\n\r\n";
    let upstream = RawUpstream::start(move |peer| interim_then_name(peer, hints)).await;
    everybody_gets_their_own(&upstream).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn several_interim_answers_shift_no_answer_to_another_caller() {
    let interim =
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n";
    let upstream = RawUpstream::start(move |peer| interim_then_name(peer, interim)).await;
    everybody_gets_their_own(&upstream).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_upstream_says_unasked_answers_nobody() {
    let upstream = RawUpstream::start(|mut peer| async move {
        while let Some(head) = peer.head().await {
            peer.say(ok(name(&head))).await;
            sleep(Duration::from_millis(20)).await;
            peer.say(ok("unasked")).await;
        }
    })
    .await;
    let (_server, gateway) = in_front_of(&upstream).await;
    for round in 0..6 {
        let marker = format!("call-{round}");
        let answer = get(&gateway, "billing", &marker).send().await;
        assert_eq!(answer.expect_status(200).text(), marker);
        sleep(Duration::from_millis(60)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_304_or_204_with_a_length_has_no_body_and_hangs_nobody() {
    for (status, answer) in [
        (304, &b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nETag: \"x\"\r\n\r\n"[..]),
        (204, b"HTTP/1.1 204 No Content\r\n\r\n"),
    ] {
        let upstream = RawUpstream::answering(answer, false).await;
        let (_server, gateway) = in_front_of(&upstream).await;
        for caller in ["billing", "payroll", "billing"] {
            let start = Instant::now();
            let got = get(&gateway, caller, "x").send().await.expect_status(status);
            assert!(got.body.is_empty(), "{:?}", got.body);
            assert!(start.elapsed() < Duration::from_millis(1500), "{:?}", start.elapsed());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_request_keeps_the_length_and_has_no_body() {
    let upstream = RawUpstream::answering(b"HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n", false).await;
    let (_server, gateway) = in_front_of(&upstream).await;
    let url = gateway.proxy_url("/calendar/x");
    let answer = http::request("HEAD", &url).basic("billing", PASSWORD).send().await.expect_status(200);
    assert_eq!(answer.header("content-length"), Some("1234"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_ends_with_the_connection_arrives_whole() {
    let answer = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nthe whole body, up to its end";
    let upstream = RawUpstream::answering(answer, true).await;
    let (_server, gateway) = in_front_of(&upstream).await;
    let got = get(&gateway, "billing", "x").send().await.expect_status(200);
    assert_eq!(got.text(), "the whole body, up to its end");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_breaks_off_breaks_off_for_the_caller() {
    for answer in [
        &b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nshort"[..],
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n50\r\nshort",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nshort\r\nZZ\r\n",
    ] {
        let upstream = RawUpstream::answering(answer, true).await;
        let (_server, gateway) = in_front_of(&upstream).await;
        match get(&gateway, "billing", "x").try_send().await {
            Err(_) => {}
            Ok(got) => assert_eq!(got.status, 502, "a whole answer of {:?}", got.text()),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_in_mid_body_breaks_off_for_the_caller() {
    let upstream = RawUpstream::start(|mut peer| async move {
        peer.head().await;
        peer.say("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\nbegun").await;
        sleep(Duration::from_millis(100)).await;
        let _ = peer.stream.set_zero_linger();
    })
    .await;
    let (_server, gateway) = in_front_of(&upstream).await;
    assert!(get(&gateway, "billing", "x").try_send().await.is_err(), "a reset looked like an end");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_passes_through_and_is_not_followed() {
    let elsewhere = RawUpstream::answering(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", false).await;
    let target = format!("http://{}/stolen", elsewhere.address);
    let location = target.clone();
    let upstream = RawUpstream::start(move |mut peer| {
        let location = location.clone();
        async move {
            while peer.head().await.is_some() {
                peer.say(format!("HTTP/1.1 307 Moved\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"))
                    .await;
            }
        }
    })
    .await;
    let (_server, gateway) = in_front_of(&upstream).await;
    let got = get(&gateway, "billing", "x").send().await.expect_status(307);
    assert_eq!(got.header("location"), Some(target.as_str()));
    assert_eq!(elsewhere.connections(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_hangs_is_given_up_in_time() {
    let upstream = RawUpstream::start(|mut peer| async move { while peer.head().await.is_some() {} }).await;
    let (_server, gateway) = in_front_of(&upstream).await;
    let start = Instant::now();
    let problem = get(&gateway, "billing", "x").send().await.expect_problem(504, "upstream_timeout");
    assert!((2..6).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
    assert!(problem["detail"].as_str().unwrap().contains("calendar"), "the route is not named: {problem}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_cannot_be_trusted_is_a_502() {
    for answer in [
        &b"complete nonsense\r\n\r\n"[..],
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 5\r\n\r\nabcde",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, identity\r\n\r\nabc",
        b"HTTP/1.1 9999 OK\r\n\r\n",
        b"",
    ] {
        let upstream = RawUpstream::answering(answer, true).await;
        let (_server, gateway) = in_front_of(&upstream).await;
        let got = get(&gateway, "billing", "x").try_send().await;
        let shown = String::from_utf8_lossy(answer);
        let got = got.unwrap_or_else(|e| panic!("{shown}: {e}"));
        assert_eq!(got.status, 502, "{shown}: {}", got.text());
        got.expect_problem(502, "upstream_unreachable");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_length_beside_chunks_is_never_passed_on() {
    let answer =
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n";
    let upstream = RawUpstream::answering(answer, true).await;
    let (_server, gateway) = in_front_of(&upstream).await;
    let got = get(&gateway, "billing", "x").send().await;
    if got.status == 200 {
        assert_eq!(got.text(), "abcde");
        let both = got.header("content-length").is_some() && got.header("transfer-encoding").is_some();
        assert!(!both, "{:?}", got.headers);
    } else {
        got.expect_status(502);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hop_by_hop_fields_of_an_answer_stay_on_their_hop() {
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\n\
        Keep-Alive: timeout=5\r\nProxy-Authenticate: Basic\r\nTrailer: X-T\r\nUpgrade: h2c\r\n\
        Set-Cookie: a=1\r\nSet-Cookie: b=2\r\nX-End: kept\r\n\r\nok";
    let upstream = RawUpstream::answering(answer, false).await;
    let (_server, gateway) = in_front_of(&upstream).await;
    let got = get(&gateway, "billing", "x").send().await.expect_status(200);
    for hop in ["x-hop", "keep-alive", "proxy-authenticate", "upgrade"] {
        assert_eq!(got.header(hop), None, "{hop}");
    }
    assert_eq!(got.headers.all("set-cookie").collect::<Vec<_>>(), ["a=1", "b=2"]);
    assert_eq!(got.header("x-end"), Some("kept"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_streams_through_before_it_is_whole() {
    let upstream = RawUpstream::start(|mut peer| async move {
        peer.head().await;
        peer.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n").await;
        sleep(Duration::from_secs(3)).await;
        peer.say("4\r\nlast\r\n0\r\n\r\n").await;
        peer.head().await;
    })
    .await;
    let (_server, gateway) = in_front_of(&upstream).await;
    let request = format!(
        "GET /calendar/x HTTP/1.1\r\nHost: x\r\nAuthorization: {}\r\n\r\n",
        http::basic("billing", PASSWORD)
    );
    // `raw` gives up after a second of silence: the first part must be there by then.
    let early =
        timeout(Duration::from_secs(3), http::raw(gateway.config.proxy, request.as_bytes())).await.unwrap();
    assert!(early.contains("first") && !early.contains("last"), "{early}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_body_goes_through_whole_in_little_memory() {
    const SIZE: usize = 64 * 1024 * 1024;
    let upstream = RawUpstream::start(|mut peer| async move {
        peer.head().await;
        peer.say(format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n")).await;
        let block = vec![b'x'; 1024 * 1024];
        for _ in 0..SIZE / block.len() {
            peer.say(&block).await;
        }
    })
    .await;
    let (_server, gateway) = in_front_of(&upstream).await;
    let got = get(&gateway, "billing", "x").send().await.expect_status(200);
    assert_eq!(got.body.len(), SIZE);
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.pid())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak: usize = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(peak < 128 * 1024, "{peak} kB at its peak");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pooled_connection_that_the_upstream_closed_is_not_felt() {
    let upstream = RawUpstream::start(|mut peer| async move {
        if let Some(head) = peer.head().await {
            peer.say(ok(name(&head))).await;
        }
    })
    .await;
    let (_server, gateway) = in_front_of(&upstream).await;
    for round in 0..10 {
        let marker = format!("call-{round}");
        assert_eq!(get(&gateway, "billing", &marker).send().await.expect_status(200).text(), marker);
        sleep(Duration::from_millis(30)).await;
    }
}
