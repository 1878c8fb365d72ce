//! HTTP/2 with prior knowledge: the same calls, by the same rules.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty, Full, StreamBody, combinators::BoxBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::caller::{Caller, End, PATIENCE};
use crate::engine::{Gateway, Setup};
use crate::upstream::Upstream;

type Body = BoxBody<Bytes, std::convert::Infallible>;

async fn connect(gateway: &Gateway) -> SendRequest<Body> {
    let stream = TcpStream::connect(gateway.address).await.unwrap();
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (sender, connection) = handshake.await.unwrap();
    tokio::spawn(connection);
    sender
}

fn to(method: Method, path: &str) -> http::request::Builder {
    let credential = format!("Basic {}", STANDARD.encode("billing:billing"));
    Request::builder().method(method).uri(format!("http://gw.test{path}")).header("authorization", credential)
}

fn nothing() -> Body {
    Empty::new().boxed()
}

async fn send(sender: &mut SendRequest<Body>, request: Request<Body>) -> Response<Incoming> {
    timeout(PATIENCE, sender.send_request(request)).await.expect("an answer in time").unwrap()
}

async fn text(response: Response<Incoming>) -> String {
    let whole = timeout(PATIENCE, response.into_body().collect()).await.expect("a body in time").unwrap();
    String::from_utf8(whole.to_bytes().to_vec()).unwrap()
}

async fn code(response: Response<Incoming>) -> String {
    let problem: serde_json::Value = serde_json::from_str(&text(response).await).unwrap();
    problem["code"].as_str().unwrap().to_owned()
}

#[actix_web::test]
async fn a_call_is_forwarded_as_over_http_1() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(upstream.address).start().await;
    let mut sender = connect(&gateway).await;
    let request = to(Method::GET, "/api/events?a=%2F")
        .header("cookie", "a=1")
        .header("cookie", "claviger_browser=x")
        .header("cookie", "b=2")
        .header("te", "trailers")
        .header("x-forwarded-for", "6.6.6.6")
        .body(nothing())
        .unwrap();
    let response = send(&mut sender, request).await;
    assert_eq!(response.status(), StatusCode::OK);
    let seen = text(response).await.to_ascii_lowercase();
    assert!(seen.starts_with("get /v1/events?a=%2f http/1.1\r\n"), "{seen}");
    for line in [
        "authorization: bearer token-billing",
        "cookie: a=1; b=2",
        "x-forwarded-host: gw.test",
        "x-forwarded-proto: http",
        "x-forwarded-for: 127.0.0.1",
    ] {
        assert!(seen.contains(&format!("{line}\r\n")), "{line} in {seen}");
    }
    for name in ["\r\nte:", "transfer-encoding", "content-length", "6.6.6.6", "basic", "claviger_browser"] {
        assert!(!seen.contains(name), "{name} in {seen}");
    }
    // The same listener still takes HTTP/1.1.
    let answer = Caller::connect(gateway.address).await.get("/api/x").await;
    assert_eq!((answer.status, answer.end), (200, End::Clean));
}

#[actix_web::test]
async fn many_calls_share_a_connection() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(upstream.address).start().await;
    let sender = connect(&gateway).await;
    let calls = (0..100).map(|n| {
        let mut sender = sender.clone();
        async move {
            let request = to(Method::GET, &format!("/api/{n}/end")).body(nothing()).unwrap();
            let seen = text(send(&mut sender, request).await).await;
            assert!(seen.starts_with(&format!("GET /v1/{n}/end ")), "{seen}");
        }
    });
    futures_util::future::join_all(calls).await;
}

#[actix_web::test]
async fn bodies_pass_with_and_without_a_length() {
    let upstream = Upstream::run(|mut line| async move {
        while let Some(head) = line.head().await {
            let head = head.to_ascii_lowercase();
            if head.contains("content-length: 11\r\n") {
                assert_eq!(line.body(11).await, b"hello world");
            } else {
                assert!(head.contains("transfer-encoding: chunked"), "{head}");
                assert_eq!(line.body(21).await, b"5\r\nhello\r\n1\r\n \r\n0\r\n\r\n");
            }
            line.ok("done").await;
        }
    })
    .await;
    let gateway = Setup::to(upstream.address).start().await;
    let mut sender = connect(&gateway).await;
    let whole = Full::new(Bytes::from_static(b"hello world")).boxed();
    let response = send(&mut sender, to(Method::POST, "/api/x").body(whole).unwrap()).await;
    assert_eq!(text(response).await, "done");

    let chunks = ["hello", " "].map(|chunk| Ok(Frame::data(Bytes::from_static(chunk.as_bytes()))));
    let streamed = StreamBody::new(futures_util::stream::iter(chunks)).boxed();
    let response = send(&mut sender, to(Method::POST, "/api/x").body(streamed).unwrap()).await;
    assert_eq!(text(response).await, "done");
}

#[actix_web::test]
async fn answers_without_a_body_have_none() {
    let upstream = Upstream::run(|mut line| async move {
        while let Some(head) = line.head().await {
            match head.split(' ').nth(1).unwrap() {
                "/v1/204" => line.say("HTTP/1.1 204 No Content\r\n\r\n").await,
                "/v1/304" => line.say("HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n").await,
                _ => line.say("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n").await,
            }
        }
    })
    .await;
    let gateway = Setup::to(upstream.address).start().await;
    let mut sender = connect(&gateway).await;
    for (method, path, status, length) in [
        (Method::GET, "/api/204", 204, None),
        (Method::GET, "/api/304", 304, Some("7")),
        (Method::HEAD, "/api/x", 200, Some("5")),
    ] {
        let response = send(&mut sender, to(method, path).body(nothing()).unwrap()).await;
        assert_eq!(response.status(), status);
        let stated = response.headers().get("content-length").map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(stated.as_deref(), length, "{path}");
        assert_eq!(text(response).await, "");
    }
}

#[actix_web::test]
async fn what_is_refused_over_http_1_is_refused_here() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(upstream.address).route(|route| route.max_body = Some(4)).start().await;
    let mut sender = connect(&gateway).await;
    let mut refused = async |request: http::request::Builder, body: Body| {
        let response = send(&mut sender, request.body(body).unwrap()).await;
        (response.status().as_u16(), code(response).await)
    };
    let refusal = |status: u16, code: &str| (status, code.to_owned());
    let anonymous = Request::get("http://gw.test/api/x");
    assert_eq!(refused(anonymous, nothing()).await, refusal(401, "caller_unauthenticated"));
    assert_eq!(refused(to(Method::GET, "/api/%2e%2e/x"), nothing()).await, refusal(400, "bad_path"));
    assert_eq!(refused(to(Method::GET, "/nowhere"), nothing()).await, refusal(404, "route_not_found"));
    let other_host = to(Method::GET, "/api/x").header("host", "other.test");
    assert_eq!(refused(other_host, nothing()).await, refusal(400, "bad_path"));
    assert_eq!(refused(to(Method::TRACE, "/api/x"), nothing()).await, refusal(405, "method_not_allowed"));
    let long = Full::new(Bytes::from_static(b"12345")).boxed();
    assert_eq!(refused(to(Method::POST, "/api/x"), long).await, refusal(413, "body_too_large"));
    assert_eq!(upstream.seen(), "");
}

#[actix_web::test]
async fn a_truncated_body_is_no_clean_end() {
    let upstream = Upstream::once("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort").await;
    let gateway = Setup::to(upstream.address).start().await;
    let mut sender = connect(&gateway).await;
    let response = send(&mut sender, to(Method::GET, "/api/x").body(nothing()).unwrap()).await;
    assert_eq!(response.status(), 200);
    let collected = timeout(PATIENCE, response.into_body().collect()).await.expect("an end in time");
    assert!(collected.is_err());
    // Its neighbours on the connection go on.
    let response = send(&mut sender, to(Method::GET, "/nowhere").body(nothing()).unwrap()).await;
    assert_eq!(response.status(), 404);
}

#[actix_web::test]
async fn a_caller_that_gives_up_ends_the_upstreams_work() {
    let upstream = Upstream::run(|mut line| async move {
        if line.head().await.is_some() {
            line.say("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nfirst").await;
            assert_eq!(line.body(1).await, b"", "the connection is closed");
            crate::http2::ENDED.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
    })
    .await;
    let gateway = Setup::to(upstream.address).start().await;
    let mut sender = connect(&gateway).await;
    let mut response = send(&mut sender, to(Method::GET, "/api/x").body(nothing()).unwrap()).await;
    let first = response.body_mut().frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(first, "first");
    drop(response);
    for _ in 0..100 {
        if ENDED.load(std::sync::atomic::Ordering::Relaxed) == 1 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the upstream's connection stays open");
}

static ENDED: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);

#[actix_web::test]
async fn without_the_option_the_preface_is_no_request() {
    let upstream = Upstream::echo().await;
    let mut setup = Setup::to(upstream.address);
    setup.h2c = false;
    let gateway = setup.start().await;
    let mut caller = Caller::connect(gateway.address).await;
    caller.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    assert_eq!(caller.answer().await.status, 400);
    assert!(caller.is_closed().await);
}
