//! WebSockets (RFC 6455): the handshake carries the token, and then bytes pass as they are.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::{accept_hdr_async, client_async};

use crate::caller::{Caller, PATIENCE, basic};
use crate::engine::Setup;
use crate::upstream::Upstream;

const HANDSHAKE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// A real server that echoes messages, whose first message is the `Authorization` of the handshake.
async fn echo() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    actix_web::rt::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            actix_web::rt::spawn(async move {
                let mut token = String::new();
                #[allow(clippy::result_large_err)]
                let look = |request: &Request, mut response: Response| {
                    token = request.headers()["authorization"].to_str().unwrap().to_owned();
                    assert!(request.headers().get("claviger-subject").is_none());
                    response.headers_mut().insert("sec-websocket-protocol", "chat".parse().unwrap());
                    Ok(response)
                };
                let mut socket = accept_hdr_async(stream, look).await.unwrap();
                socket.send(Message::text(token)).await.unwrap();
                while let Some(Ok(message)) = socket.next().await {
                    if message.is_text() || message.is_binary() {
                        socket.send(message).await.unwrap();
                    }
                }
            });
        }
    });
    address
}

#[actix_web::test]
async fn messages_pass_both_ways_and_the_handshake_has_the_token() {
    let gateway = Setup::to(echo().await).start().await;
    let mut request = format!("ws://{}/api/socket?x=1", gateway.address).into_client_request().unwrap();
    let credential = basic("billing").trim().strip_prefix("Authorization: ").unwrap().to_owned();
    request.headers_mut().insert("authorization", credential.parse().unwrap());
    request.headers_mut().insert("sec-websocket-protocol", "chat".parse().unwrap());
    let stream = TcpStream::connect(gateway.address).await.unwrap();
    let (mut socket, response) = timeout(PATIENCE, client_async(request, stream)).await.unwrap().unwrap();
    assert_eq!(response.headers()["sec-websocket-protocol"], "chat");
    let next = async |socket: &mut tokio_tungstenite::WebSocketStream<TcpStream>| {
        timeout(PATIENCE, socket.next()).await.expect("a message in time").unwrap().unwrap()
    };
    assert_eq!(next(&mut socket).await, Message::text("Bearer token-billing"));
    for size in [1, 125, 126, 70_000, 1_000_000] {
        let message = Message::binary(vec![b'x'; size]);
        socket.send(message.clone()).await.unwrap();
        assert_eq!(next(&mut socket).await, message);
    }
    // Longer than a connection is watched before it counts as idle.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    socket.send(Message::text("still there")).await.unwrap();
    assert_eq!(next(&mut socket).await, Message::text("still there"));
    socket.close(None).await.unwrap();
    assert!(next(&mut socket).await.is_close());
    assert!(timeout(PATIENCE, socket.next()).await.expect("an end in time").is_none());
}

#[actix_web::test]
async fn the_upstreams_first_bytes_may_come_with_its_head() {
    let upstream = Upstream::run(|mut line| async move {
        let head = line.head().await.unwrap().to_ascii_lowercase();
        assert!(
            head.contains("connection: upgrade\r\n") && head.contains("upgrade: websocket\r\n"),
            "{head}"
        );
        assert!(head.contains("sec-websocket-key: dghlihnhbxbszsbub25jzq==\r\n"), "{head}");
        line.say(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello",
        )
        .await;
        assert_eq!(line.body(5).await, b"there");
        line.say("bye").await;
    })
    .await;
    let gateway = Setup::to(upstream.address).start().await;
    let mut caller = Caller::connect(gateway.address).await;
    caller.send(format!("GET /api/x HTTP/1.1\r\nHost: gw.test\r\n{}{HANDSHAKE}\r\n", basic("billing"))).await;
    let head = caller.head().await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    let head = head.to_ascii_lowercase();
    assert!(head.contains("connection: upgrade\r\n") && head.contains("upgrade: websocket\r\n"), "{head}");
    assert!(!head.contains("content-length") && !head.contains("transfer-encoding"), "{head}");
    assert_eq!(caller.bytes(5).await, b"hello");
    caller.send("there").await;
    assert_eq!(caller.bytes(3).await, b"bye");
    assert!(caller.is_closed().await, "the upstream closed, and so does the gateway");
}

#[actix_web::test]
async fn a_caller_that_leaves_takes_the_tunnel_with_it() {
    let upstream = Upstream::run(|mut line| async move {
        if line.head().await.is_some() {
            line.say("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
                .await;
            assert_eq!(line.body(1).await, b"", "the connection is closed");
            line.say("too late").await;
        }
    })
    .await;
    let gateway = Setup::to(upstream.address).start().await;
    let mut caller = Caller::connect(gateway.address).await;
    caller.send(format!("GET /api/x HTTP/1.1\r\nHost: gw.test\r\n{}{HANDSHAKE}\r\n", basic("billing"))).await;
    assert!(caller.head().await.starts_with("HTTP/1.1 101 "));
    drop(caller);
    // The next call has a connection of its own: no tunnel is ever used again.
    let mut other = Caller::connect(gateway.address).await;
    other.send(format!("GET /api/x HTTP/1.1\r\nHost: gw.test\r\n{}{HANDSHAKE}\r\n", basic("billing"))).await;
    assert!(other.head().await.starts_with("HTTP/1.1 101 "));
    assert_eq!(upstream.connections(), 2);
}

#[actix_web::test]
async fn an_upstream_that_declines_is_heard() {
    let upstream = Upstream::always("HTTP/1.1 426 Upgrade Required\r\nContent-Length: 2\r\n\r\nno").await;
    let gateway = Setup::to(upstream.address).start().await;
    let mut caller = Caller::connect(gateway.address).await;
    caller.send(format!("GET /api/x HTTP/1.1\r\nHost: gw.test\r\n{}{HANDSHAKE}\r\n", basic("billing"))).await;
    let answer = caller.answer().await;
    assert_eq!((answer.status, answer.text()), (426, "no"));
    // What follows could have been meant for the other protocol.
    assert!(caller.is_closed().await);
}

#[actix_web::test]
async fn other_protocols_and_half_handshakes_are_plain_requests() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(upstream.address).start().await;
    for lines in [
        "Connection: Upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n",
        "Connection: Upgrade\r\nUpgrade: TLS/1.0\r\n",
        "Connection: Upgrade\r\nUpgrade: websocket, h2c\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
        "Connection: Upgrade\r\nUpgrade: websocket\r\n",
        "Upgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
    ] {
        let mut caller = Caller::connect(gateway.address).await;
        let answer = caller.request("GET", "/api/x", lines).await;
        assert_eq!(answer.status, 200, "{lines}");
        let seen = answer.text().to_ascii_lowercase();
        assert!(!seen.contains("upgrade") && !seen.contains("http2-settings"), "{seen}");
    }
}

#[actix_web::test]
async fn nobody_switches_without_a_credential() {
    let upstream = Upstream::echo().await;
    let gateway = Setup::to(upstream.address).start().await;
    let mut caller = Caller::connect(gateway.address).await;
    caller.send(format!("GET /api/x HTTP/1.1\r\nHost: gw.test\r\n{HANDSHAKE}\r\n")).await;
    let answer = caller.answer().await;
    assert_eq!((answer.status, &*answer.code()), (401, "caller_unauthenticated"));
    assert!(caller.is_closed().await);
    assert_eq!(upstream.seen(), "");
}
