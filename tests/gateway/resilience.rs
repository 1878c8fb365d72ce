//! What a configuration says of limits, retries, breakers and several upstreams, as callers and operators
//! see it, over both workers.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use tokio::time::sleep;

use crate::support::gateway::Gateway;
use crate::support::gateway_config::{GatewayConfig, PASSWORD};
use crate::support::http;
use crate::support::ports::free_address;
use crate::support::raw_upstream::RawUpstream;
use crate::support::scene::ScriptedScene;
use crate::support::upstream::Upstream;

/// A route `calendar` to `upstream`, a value as TOML writes it, with further lines.
fn route(config: &mut GatewayConfig, upstream: &str, lines: &str) {
    let body = format!(
        "path = \"/calendar\"\nupstream = {upstream}\nprofile = \"calendar\"\nsubject = \"caller\"\n{lines}"
    );
    config.section("routes.calendar", &body);
}

fn count_by_status(answers: &[http::Response]) -> BTreeMap<u16, usize> {
    let mut counts = BTreeMap::new();
    for answer in answers {
        *counts.entry(answer.status).or_default() += 1;
    }
    counts
}

/// What `/debug/actors` says of an upstream, which is the same at every worker.
async fn shown(gateway: &Gateway, address: impl std::fmt::Display) -> Value {
    let origin = format!("http://{address}");
    let workers = gateway.actors("proxy").await;
    assert_eq!(workers.len(), 2);
    let views: Vec<Value> = workers
        .iter()
        .map(|worker| {
            let upstreams = worker["detail"]["upstreams"].as_array().unwrap();
            upstreams.iter().find(|upstream| upstream["origin"] == origin.as_str()).unwrap().clone()
        })
        .collect();
    assert_eq!(views[0]["state"], views[1]["state"]);
    views[0].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_calls_at_once_exactly_the_allowed_get_through() {
    let mut scene = ScriptedScene::machine().await;
    scene.config.extend("callers.billing", "rate = { requests = 25, per = \"1h\" }");
    let gateway = scene.config.start().await;
    let answers = gateway.call_at_once("/calendar/events", 60).await;
    assert_eq!(count_by_status(&answers), BTreeMap::from([(200, 25), (429, 35)]));
    assert_eq!(scene.upstream.calls(), 25);
    let refused = answers.into_iter().find(|answer| answer.status == 429).unwrap();
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=144).contains(&wait), "{wait}");
    assert_eq!(refused.header("ratelimit-policy"), Some("\"caller\";q=25;w=3600"));
    assert_eq!(refused.header("ratelimit"), Some(format!("\"caller\";r=0;t={wait}").as_str()));
    refused.expect_problem(429, "rate_limited");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_call_fails_of_two_upstreams_one_of_which_is_dead() {
    let mut scene = ScriptedScene::machine().await;
    let dead = free_address();
    route(&mut scene.config, &format!("[\"http://{dead}/api\", \"{}/api\"]", scene.upstream.url()), "");
    let gateway = scene.config.start().await;
    for _ in 0..30 {
        gateway.call("/calendar/events").await.expect_status(200);
    }
    assert_eq!(shown(&gateway, dead).await["state"], "open");
    let alive = shown(&gateway, scene.upstream.address).await;
    assert_eq!((&alive["state"], &alive["route"]), (&Value::from("closed"), &Value::from("calendar")));
    let routes = gateway.admin("GET", "/api/routes").send().await.expect_status(200).json();
    let listed = routes["routes"][0]["upstreams"].as_array().unwrap();
    assert_eq!(listed.len(), 2, "{routes}");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn both_of_two_upstreams_get_their_share_with_one_token() {
    let mut scene = ScriptedScene::machine().await;
    let other = Upstream::start().await;
    let list = format!("[\"{}/api\", \"{}/other\"]", scene.upstream.url(), other.url());
    route(&mut scene.config, &list, "");
    let gateway = scene.config.start().await;
    for _ in 0..60 {
        gateway.call("/calendar/events").await.expect_status(200);
    }
    let (here, there) = (scene.upstream.calls(), other.calls());
    assert_eq!(here + there, 60);
    assert!(here >= 10 && there >= 10, "{here} and {there}");
    let tokens: std::collections::BTreeSet<_> =
        scene.upstream.tokens().into_iter().chain(other.tokens()).collect();
    assert_eq!(tokens.len(), 1, "the token is bound to both");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_breaker_opens_is_seen_and_closes_once_the_upstream_is_back() {
    let mut scene = ScriptedScene::machine().await;
    let address = free_address();
    let lines = "retries = 0\nbreaker = { failures = 3, open = \"300ms\", longest_open = \"600ms\" }";
    route(&mut scene.config, &format!("\"http://{address}\""), lines);
    let gateway = scene.config.start().await;
    for _ in 0..3 {
        let answer = gateway.call("/calendar/events").await;
        assert_eq!(answer.header("retry-after"), None);
        answer.expect_problem(502, "upstream_unreachable");
    }
    let mut held_back = 0;
    for _ in 0..10 {
        let answer = gateway.call("/calendar/events").await;
        held_back += usize::from(answer.header("retry-after").is_some());
        answer.expect_problem(502, "upstream_unreachable");
    }
    assert!(held_back > 0);
    assert_ne!(shown(&gateway, address).await["state"], "closed");
    // The upstream is back: sooner or later a probe finds out.
    let listener = tokio::net::TcpListener::bind(address).await.unwrap();
    let serving = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (read, mut write) = stream.into_split();
            let mut read = tokio::io::BufReader::new(read);
            tokio::spawn(async move {
                use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _};
                let mut line = String::new();
                while read.read_line(&mut line).await.is_ok_and(|length| length > 0) {
                    if line == "\r\n" {
                        let _ = write.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
                    }
                    line.clear();
                }
            });
        }
    });
    let mut status = 0;
    for _ in 0..100 {
        status = gateway.call("/calendar/events").await.status;
        if status == 200 {
            break;
        }
        sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(status, 200);
    assert_eq!(shown(&gateway, address).await["state"], "closed");
    serving.abort();
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn overload_is_shed_and_what_is_under_way_ends_well() {
    let mut scene = ScriptedScene::machine().await;
    scene.config.section("limits", "max_in_flight = 4");
    let gateway = scene.config.start().await;
    gateway.call("/calendar/events").await.expect_status(200);
    let answers = gateway.call_at_once("/calendar/events?wait_ms=1500", 12).await;
    assert_eq!(count_by_status(&answers), BTreeMap::from([(200, 4), (503, 8)]));
    for answer in answers.into_iter().filter(|answer| answer.status == 503) {
        assert_eq!(answer.header("retry-after"), Some("1"));
        answer.expect_problem(503, "overloaded");
    }
    gateway.call("/calendar/events").await.expect_status(200);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_asks_for_a_pause_gets_one() {
    let mut scene = ScriptedScene::machine().await;
    let answer = b"HTTP/1.1 503 Busy\r\nRetry-After: 600\r\nContent-Length: 4\r\n\r\nbusy";
    let upstream = RawUpstream::answering(answer, false).await;
    route(&mut scene.config, &format!("\"http://{}\"", upstream.address), "honor_retry_after = true");
    let gateway = scene.config.start().await;
    let first = gateway.call("/calendar/events").await.expect_status(503);
    assert_eq!((first.text().as_str(), first.header("retry-after")), ("busy", Some("600")));
    for _ in 0..4 {
        let answer = gateway.call("/calendar/events").await;
        let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
        assert!((500..=600).contains(&wait), "{wait}");
        answer.expect_problem(429, "rate_limited");
    }
    assert_eq!(upstream.received().matches(" HTTP/1.1\r\n").count(), 1);
    let view = shown(&gateway, upstream.address).await;
    assert_eq!(view["state"], "held_back");
    assert!(view["retry_in_ms"].as_u64().unwrap() > 500_000, "{view}");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_takes_too_long_breaks_off() {
    let mut scene = ScriptedScene::machine().await;
    let upstream = RawUpstream::start(|mut peer| async move {
        while peer.head().await.is_some() {
            peer.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
            for _ in 0..200 {
                peer.say("5\r\nbegun\r\n").await;
                sleep(Duration::from_millis(20)).await;
            }
            peer.say("0\r\n\r\n").await;
        }
    })
    .await;
    route(&mut scene.config, &format!("\"http://{}\"", upstream.address), "total_timeout = \"500ms\"");
    let gateway = scene.config.start().await;
    let call = http::get(&gateway.proxy_url("/calendar/x")).basic("billing", PASSWORD);
    assert!(call.try_send().await.is_err(), "an end that came from us looked like the upstream's");
    gateway.stop().await;
}
