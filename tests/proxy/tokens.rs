//! Tokens: from the snapshot, by the slow path, and anew after an upstream's 401.

use std::time::Duration;

use claviger::listeners::proxy::gateway::ProxyGateway as _;
use claviger_actors::connection::{OriginSet, Reason};
use claviger_actors::protocol::identifiers::ProfileId;
use claviger_actors::provider::error::TokenError;
use claviger_actors::supervision::ActorKind;

use crate::caller::{Caller, basic};
use crate::engine::{Gateway, Setup, aged_connection, connection};
use crate::upstream::Upstream;

/// Answers 200 to `token-new` and 401 to every other token, and repeats the body.
async fn picky() -> Upstream {
    Upstream::run(|mut line| async move {
        while let Some(head) = line.head().await {
            let length = head.lines().find_map(|l| l.strip_prefix("content-length: ")).map_or(0, |n| n.parse().unwrap());
            let body = String::from_utf8(line.body(length).await).unwrap();
            if head.contains("Bearer token-new\r\n") {
                line.ok(&format!("new {body}")).await;
            } else {
                line.say("HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Bearer error=\"invalid_token\"\r\nContent-Length: 3\r\n\r\nold").await;
            }
        }
    })
    .await
}

fn origins(upstream: &Upstream) -> OriginSet {
    OriginSet::new([format!("http://{}", upstream.address)])
}

fn unavailable(retry_after: Option<Duration>) -> TokenError {
    TokenError::ProviderUnavailable {
        profile: ProfileId::new("p").unwrap(),
        reason: Reason::ProviderError,
        detail: "it answered 500".into(),
        retry_after,
    }
}

fn script(gateway: &Gateway) -> parking_lot::MutexGuard<'_, crate::engine::Script> {
    gateway.engine.script.lock()
}

#[actix_web::test]
async fn a_refused_token_is_replaced_once_and_the_request_sent_again() {
    let upstream = picky().await;
    let gateway = Setup::to(upstream.address).start().await;
    let old = connection("billing", "token-billing", &origins(&upstream), 3600).fingerprint();
    for (method, lines, body) in
        [("GET", "", ""), ("POST", "Content-Length: 11\r\n", "hello world"), ("DELETE", "", "")]
    {
        script(&gateway).tokens.push_back(Ok(connection("billing", "token-new", &origins(&upstream), 3600)));
        let mut caller = Caller::connect(gateway.address).await;
        let auth = basic("billing");
        caller.send(format!("{method} /api/x HTTP/1.1\r\nHost: gw.test\r\n{auth}{lines}\r\n{body}")).await;
        let answer = caller.answer().await;
        assert_eq!((answer.status, answer.text()), (200, &*format!("new {body}")), "{method}");
        let asked = script(&gateway).asked.pop().unwrap();
        assert_eq!((asked.id.as_str(), asked.rejected), ("p/billing", old));
        assert!(script(&gateway).asked.is_empty(), "asked once");
    }
}

#[actix_web::test]
async fn without_another_token_or_a_whole_body_the_401_passes_through() {
    let upstream = picky().await;
    let gateway = Setup::to(upstream.address).start().await;
    let mut caller = Caller::connect(gateway.address).await;
    let same = connection("billing", "token-billing", &origins(&upstream), 3600);
    let worse = connection("billing", "token-worse", &origins(&upstream), 3600);
    for answer in [Ok(same), Ok(worse), Err(unavailable(None))] {
        script(&gateway).tokens.push_back(answer);
        let answer = caller.get("/api/x").await;
        assert_eq!((answer.status, answer.text()), (401, "old"));
        assert_eq!(answer.header("www-authenticate"), Some("Bearer error=\"invalid_token\""));
        assert_eq!(script(&gateway).asked.drain(..).count(), 1);
    }
    let size = 70_000;
    caller
        .send(format!(
            "POST /api/x HTTP/1.1\r\nHost: gw.test\r\n{}Content-Length: {size}\r\n\r\n",
            basic("billing")
        ))
        .await;
    let new = connection("billing", "token-new", &origins(&upstream), 3600);
    script(&gateway).tokens.push_back(Ok(new));
    let before = upstream.seen().matches("POST /").count();
    caller.send("x".repeat(size)).await;
    assert_eq!(caller.answer().await.status, 401);
    assert_eq!(
        upstream.seen().matches("POST /").count(),
        before + 1,
        "a body that is gone is not sent again"
    );
    assert_eq!(script(&gateway).asked.drain(..).count(), 1, "the next call has a new token");
}

#[actix_web::test]
async fn other_refusals_cause_no_refresh() {
    for answer in [
        "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 400 Bad\r\nContent-Length: 0\r\n\r\n",
    ] {
        let upstream = Upstream::always(answer).await;
        let gateway = Setup::to(upstream.address).start().await;
        assert!(Caller::connect(gateway.address).await.get("/api/x").await.status >= 400);
        assert!(script(&gateway).asked.is_empty());
    }
}

#[actix_web::test]
async fn a_token_that_ripens_is_used_and_refreshed_meanwhile() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(upstream.address).start().await;
    let ripe = aged_connection("billing", "token-ripe", &origins(&upstream), 1000, 900);
    gateway.engine.connections().publish(ripe);
    let answer = Caller::connect(gateway.address).await.get("/api/x").await;
    assert!(answer.text().contains("Bearer token-ripe\r\n"));
    assert_eq!(script(&gateway).refreshed_ahead, ["p/billing"]);
    assert!(script(&gateway).asked.is_empty(), "nobody waited for it");
}

#[actix_web::test]
async fn a_token_that_ended_is_replaced_before_anything_is_sent() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(upstream.address).start().await;
    let ended = aged_connection("billing", "token-ended", &origins(&upstream), 1000, 2000);
    gateway.engine.connections().publish(ended);
    script(&gateway).tokens.push_back(Ok(connection("billing", "token-new", &origins(&upstream), 3600)));
    let answer = Caller::connect(gateway.address).await.get("/api/x").await;
    assert!(answer.text().contains("Bearer token-new\r\n"));
    assert_eq!(script(&gateway).asked.pop().unwrap().rejected, None);
    assert!(!upstream.seen().contains("token-ended"));
}

#[actix_web::test]
async fn a_body_that_is_still_coming_is_sent_again_whole() {
    let upstream = Upstream::run(|mut line| async move {
        let head = line.head().await.unwrap();
        let new = head.contains("Bearer token-new\r\n");
        let body = String::from_utf8(line.body(if new { 11 } else { 6 }).await).unwrap();
        match new {
            true => line.ok(&body).await,
            false => line.say("HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n").await,
        }
        line.until_quiet(Duration::from_secs(1)).await;
    })
    .await;
    let gateway = Setup::to(upstream.address).start().await;
    script(&gateway).tokens.push_back(Ok(connection("billing", "token-new", &origins(&upstream), 3600)));
    let mut caller = Caller::connect(gateway.address).await;
    let auth = basic("billing");
    caller
        .send(format!("POST /api/x HTTP/1.1\r\nHost: gw.test\r\n{auth}Content-Length: 11\r\n\r\nhello "))
        .await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    caller.send("world").await;
    let answer = caller.answer().await;
    assert_eq!((answer.status, answer.text()), (200, "hello world"));
    assert_eq!(upstream.connections(), 2);
}

#[actix_web::test]
async fn a_token_is_sent_to_no_other_upstream_than_it_was_obtained_for() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(upstream.address).start().await;
    let elsewhere = OriginSet::new(["https://elsewhere.example".to_owned()]);
    gateway.engine.connections().publish(connection("billing", "token-bound", &elsewhere, 3600));
    script(&gateway).tokens.push_back(Ok(connection("billing", "token-bound", &elsewhere, 3600)));
    let answer = Caller::connect(gateway.address).await.get("/api/x").await;
    assert_eq!((answer.status, &*answer.code()), (502, "token_unavailable"));
    assert_eq!(upstream.connections(), 0);
}

#[actix_web::test]
async fn each_reason_why_there_is_no_token_has_its_code() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(upstream.address).start().await;
    let id = connection("new", "x", &OriginSet::default(), 1).id.clone();
    let rows = [
        (unavailable(None), 502, "token_unavailable", None),
        (unavailable(Some(Duration::from_secs(7))), 503, "token_unavailable", Some("7")),
        (
            TokenError::StoreUnavailable { id, detail: "disk full".into() },
            503,
            "store_unavailable",
            Some("1"),
        ),
    ];
    for (error, status, code, retry_after) in rows {
        script(&gateway).tokens.push_back(Err(error));
        let mut caller = Caller::connect(gateway.address).await;
        caller.send(format!("GET /api/x HTTP/1.1\r\nHost: gw.test\r\n{}\r\n", basic("new"))).await;
        let answer = caller.answer().await;
        assert_eq!(
            (answer.status, &*answer.code(), answer.header("retry-after")),
            (status, code, retry_after)
        );
    }
    assert_eq!(upstream.connections(), 0);
}

#[actix_web::test]
async fn calls_go_on_while_the_workers_actor_is_started_anew() {
    let upstream = Upstream::run(|mut line| async move {
        while line.head().await.is_some() {
            tokio::time::sleep(Duration::from_millis(5)).await;
            line.ok("x").await;
        }
    })
    .await;
    let gateway = Setup::to(upstream.address).start().await;
    let (address, supervisor) = (gateway.address, gateway.engine.supervisor().clone());
    let calls = (0..8).map(|_| async move {
        let mut caller = Caller::connect(address).await;
        for _ in 0..25 {
            assert_eq!(caller.get("/api/x").await.status, 200);
        }
    });
    let crashes = async {
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_millis(30)).await;
            supervisor.inject_panic(ActorKind::Proxy, "worker-0").await;
        }
    };
    futures_util::future::join(futures_util::future::join_all(calls), crashes).await;
    let reports = supervisor.inspect().await;
    assert!(reports[0].restarts >= 1, "{reports:?}");
    assert_eq!(reports[0].detail["requests"], 200);
    assert_eq!(reports[0].detail["in_flight"], 0);
}
