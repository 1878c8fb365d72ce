#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod tls;
mod ways;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http::header::{AUTHORIZATION, LOCATION};
use http::{HeaderMap, Method};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use claviger_actors::proxy::connect::tls_client_config_with_roots;
use rustls::RootCertStore;

use super::*;

/// A server that reads one request whole and then does as told; keeps what it read.
struct Server {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    request: tokio::sync::oneshot::Receiver<String>,
}

async fn serve<F, Fut>(act: F) -> Server
where
    F: FnOnce(TcpStream) -> Fut + 'static,
    Fut: Future<Output = ()> + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = connections.clone();
    let (tell, request) = tokio::sync::oneshot::channel();
    actix_rt::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        counted.fetch_add(1, Ordering::SeqCst);
        let text = read_request(&mut socket).await;
        let _ = tell.send(text);
        act(socket).await;
        loop {
            let _ = listener.accept().await;
            counted.fetch_add(1, Ordering::SeqCst);
        }
    });
    Server { address, connections, request }
}

async fn answering(answer: &'static str) -> Server {
    serve(move |mut socket| async move {
        socket.write_all(answer.as_bytes()).await.unwrap();
        let _ = socket.shutdown().await;
    })
    .await
}

async fn read_request(socket: &mut TcpStream) -> String {
    let mut read = Vec::new();
    let mut buffer = [0u8; 4096];
    loop {
        let count = socket.read(&mut buffer).await.unwrap();
        read.extend_from_slice(&buffer[..count]);
        let text = String::from_utf8_lossy(&read).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok())
                .unwrap_or(0);
            if body.len() >= length {
                return text;
            }
        }
        if count == 0 {
            return text;
        }
    }
}

fn get(url: String) -> OutgoingRequest {
    OutgoingRequest {
        method: Method::GET,
        url: url.parse().unwrap(),
        headers: HeaderMap::new(),
        body: Bytes::new(),
        deadline: Duration::from_secs(5),
        max_body: 1024,
        outbound: Arc::default(),
    }
}

fn to(server: &Server) -> OutgoingRequest {
    get(format!("http://{}/token?code=QUERYSECRET", server.address))
}

async fn send(request: OutgoingRequest) -> Result<IncomingResponse, TransportError> {
    let transport = ProviderClient::new(tls_client_config_with_roots(RootCertStore::empty()).unwrap());
    let sent = transport.send(request).await;
    if let Err(error) = &sent {
        assert!(!format!("{error} {error:?}").contains("SECRET"), "{error:?}");
    }
    sent
}

#[actix_web::test]
async fn an_answer_comes_whole_and_the_request_goes_out_plain() {
    let server = answering("HTTP/1.1 200 OK\r\ncontent-length: 5\r\nx-a: 1\r\nx-a: 2\r\n\r\nhello").await;
    let mut request = to(&server);
    request.method = Method::POST;
    request.body = Bytes::from_static(b"grant_type=x");
    request.headers.insert(AUTHORIZATION, HeaderValue::from_static("Basic eA=="));
    let answer = send(request).await.unwrap();
    assert_eq!((answer.status, &answer.body[..]), (StatusCode::OK, &b"hello"[..]));
    assert_eq!(answer.headers.get_all("x-a").iter().count(), 2);

    let sent = server.request.await.unwrap();
    let lower = sent.to_lowercase();
    assert!(sent.starts_with("POST /token?code=QUERYSECRET HTTP/1.1\r\n"), "{sent}");
    assert!(sent.ends_with("\r\n\r\ngrant_type=x"), "{sent}");
    assert!(lower.contains("authorization: basic ea==\r\n"), "{sent}");
    assert!(lower.contains("connection: close\r\n"), "{sent}");
    assert!(lower.contains(&format!("host: {}\r\n", server.address)), "{sent}");
    assert!(lower.contains("user-agent: claviger/"), "{sent}");
    assert!(!lower.contains("accept-encoding"), "{sent}");
}

#[actix_web::test]
async fn a_get_has_no_body() {
    let server = answering("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await;
    send(to(&server)).await.unwrap();
    let sent = server.request.await.unwrap().to_lowercase();
    assert!(!sent.contains("content-length") && !sent.contains("transfer-encoding"), "{sent}");
}

#[actix_web::test]
async fn a_redirect_is_an_answer_and_is_not_followed() {
    let target = answering("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let location = format!("http://{}/elsewhere", target.address);
    let answer =
        format!("HTTP/1.1 307 Temporary Redirect\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n");
    let server = answering(answer.leak()).await;
    let answer = send(to(&server)).await.unwrap();
    assert_eq!(answer.status, StatusCode::TEMPORARY_REDIRECT);
    assert_eq!(answer.headers[LOCATION], location.as_str());
    assert_eq!(target.connections.load(Ordering::SeqCst), 0);
}

#[actix_web::test]
async fn the_deadline_covers_a_body_that_drips() {
    let server = serve(|mut socket| async move {
        socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n").await.unwrap();
        while socket.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let mut request = to(&server);
    request.deadline = Duration::from_millis(300);
    let started = Instant::now();
    let error = send(request).await.err().unwrap();
    assert!(matches!(error, TransportError::Timeout { .. }), "{error:?}");
    assert!(started.elapsed() < Duration::from_secs(3));
    assert!(!error.never_sent());
}

#[actix_web::test]
async fn a_server_that_never_answers_hits_the_deadline() {
    let server = serve(|socket| async move {
        tokio::time::sleep(Duration::from_secs(30)).await;
        drop(socket);
    })
    .await;
    let mut request = to(&server);
    request.deadline = Duration::from_millis(100);
    assert!(matches!(send(request).await, Err(TransportError::Timeout { .. })));
}

#[actix_web::test]
async fn more_than_the_limit_is_refused_whether_announced_or_not() {
    let announced = answering("HTTP/1.1 200 OK\r\ncontent-length: 2000\r\n\r\n").await;
    let error = send(to(&announced)).await.err().unwrap();
    assert!(matches!(error, TransportError::TooLarge { limit: 1024, .. }), "{error:?}");

    let endless = serve(|mut socket| async move {
        socket.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await.unwrap();
        while socket.write_all(b"10\r\n0123456789abcdef\r\n").await.is_ok() {}
    })
    .await;
    let error = send(to(&endless)).await.err().unwrap();
    assert!(matches!(error, TransportError::TooLarge { .. }), "{error:?}");
}

#[actix_web::test]
async fn a_body_that_breaks_off_is_broken() {
    let server = answering("HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\n{\"access_token\":\"S\"").await;
    let error = send(to(&server)).await.err().unwrap();
    assert!(
        matches!(&error, TransportError::Broken { cause, .. } if cause.contains("19 of 20")),
        "{error:?}"
    );
    assert!(!error.never_sent());
}

#[actix_web::test]
async fn what_is_not_http_is_broken() {
    for answer in [
        "SECRET garbage\r\n\r\n",
        "",
        "HTTP/1.1 200 OK\r\ncontent-le",
        "HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n",
    ] {
        let server = answering(answer).await;
        let error = send(to(&server)).await.err().unwrap();
        assert!(matches!(error, TransportError::Broken { .. }), "{answer:?}: {error:?}");
        assert!(!error.never_sent());
    }
}

#[actix_web::test]
async fn an_interim_answer_is_not_the_final_one() {
    for interim in [
        "HTTP/1.1 100 Continue\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n",
        "HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n",
    ] {
        let answer = format!("{interim}HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nfinal");
        let server = answering(answer.leak()).await;
        let answer = send(to(&server)).await.unwrap();
        assert_eq!((answer.status, &answer.body[..]), (StatusCode::OK, &b"final"[..]));
        assert!(!answer.headers.contains_key("link"));
    }
    for answer in ["HTTP/1.1 101 Switching Protocols\r\n\r\n", "HTTP/1.1 103 Early Hints\r\n\r\n"] {
        let server = answering(answer).await;
        let sent = send(to(&server)).await;
        assert!(matches!(sent, Err(TransportError::Broken { .. })), "{answer:?}: {:?}", sent.err());
    }
}

#[actix_web::test]
async fn interim_answers_without_end_meet_the_deadline() {
    let server = serve(|mut socket| async move {
        while socket.write_all(b"HTTP/1.1 103 Early Hints\r\n\r\n").await.is_ok() {}
    })
    .await;
    let mut request = to(&server);
    request.deadline = Duration::from_millis(300);
    let started = Instant::now();
    let error = send(request).await.err().unwrap();
    assert!(matches!(error, TransportError::Timeout { .. }), "{error:?}");
    assert!(started.elapsed() < Duration::from_secs(3));
}

#[actix_web::test]
async fn a_head_without_end_is_broken() {
    for line in ["x-a: 0123456789abcdef\r\n", "x"] {
        let server = serve(move |mut socket| async move {
            socket.write_all(b"HTTP/1.1 200 OK\r\nx-b: ").await.unwrap();
            let many = line.repeat(1000);
            while socket.write_all(many.as_bytes()).await.is_ok() {}
        })
        .await;
        let error = send(to(&server)).await.err().unwrap();
        assert!(matches!(error, TransportError::Broken { .. }), "{error:?}");
    }
}

#[actix_web::test]
async fn a_head_that_drips_meets_the_deadline() {
    let server = serve(|mut socket| async move {
        socket.write_all(b"HTTP/1.1 200 OK\r\nx-b: ").await.unwrap();
        while socket.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let mut request = to(&server);
    request.deadline = Duration::from_millis(300);
    let error = send(request).await.err().unwrap();
    assert!(matches!(error, TransportError::Timeout { .. }), "{error:?}");
    assert!(!error.never_sent());
}

#[actix_web::test]
async fn a_given_up_request_leaves_no_connection_behind() {
    let (tell, closed) = tokio::sync::oneshot::channel();
    let server = serve(|mut socket| async move {
        // The end of the stream, or a reset: the other side has gone.
        let gone = !matches!(socket.read(&mut [0u8; 16]).await, Ok(count) if count > 0);
        let _ = tell.send(gone);
    })
    .await;
    let mut request = to(&server);
    request.deadline = Duration::from_millis(100);
    assert!(matches!(send(request).await, Err(TransportError::Timeout { .. })));
    assert!(tokio::time::timeout(Duration::from_secs(3), closed).await.unwrap().unwrap());
}

#[actix_web::test]
async fn a_chunked_body_that_breaks_off_is_broken() {
    const HEAD: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    for rest in
        ["", "7\r\n{\"a\":1}", "7\r\n{\"a\":1}\r\n", "7\r\n{\"a\":1}\r\n0\r\n", "SECRET\r\n", "-1\r\n"]
    {
        let server = answering(format!("{HEAD}{rest}").leak()).await;
        let error = send(to(&server)).await.err().unwrap();
        assert!(matches!(error, TransportError::Broken { .. }), "{rest:?}: {error:?}");
        assert!(!error.never_sent());
    }
}

#[actix_web::test]
async fn a_body_ended_by_the_connection_is_bounded_too() {
    let server = serve(|mut socket| async move {
        socket.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        while socket.write_all(&[b'x'; 300]).await.is_ok() {}
    })
    .await;
    let error = send(to(&server)).await.err().unwrap();
    assert!(matches!(error, TransportError::TooLarge { limit: 1024, .. }), "{error:?}");

    let whole = format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(1024));
    let server = answering(whole.leak()).await;
    assert_eq!(send(to(&server)).await.unwrap().body.len(), 1024);
}

#[actix_web::test]
async fn a_reset_is_broken() {
    let server = serve(|mut socket| async move {
        socket.write_all(b"HTTP/1.1 200 OK\r\n\r\n{\"access").await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        socket.set_zero_linger().unwrap();
    })
    .await;
    let error = send(to(&server)).await.err().unwrap();
    assert!(matches!(error, TransportError::Broken { .. }), "{error:?}");
}

#[actix_web::test]
async fn a_post_without_a_body_tells_its_length() {
    let server = answering("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let mut request = to(&server);
    request.method = Method::POST;
    send(request).await.unwrap();
    assert!(server.request.await.unwrap().to_lowercase().contains("content-length: 0\r\n"));
}

#[actix_web::test]
async fn an_answer_without_a_body_needs_none() {
    for answer in
        ["HTTP/1.1 304 Not Modified\r\ncontent-length: 9\r\n\r\n", "HTTP/1.1 204 No Content\r\n\r\n"]
    {
        let server = answering(answer).await;
        assert!(send(to(&server)).await.unwrap().body.is_empty());
    }
}

#[actix_web::test]
async fn a_body_may_end_with_the_connection_or_come_in_chunks() {
    for answer in [
        "HTTP/1.0 200 OK\r\n\r\n{\"a\":1}",
        "HTTP/1.1 200 OK\r\n\r\n{\"a\":1}",
        "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: application/json\r\n\r\n{\"a\":1}",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\n{\"a\r\n4\r\n\":1}\r\n0\r\n\r\n",
    ] {
        let server = answering(answer).await;
        assert_eq!(&send(to(&server)).await.unwrap().body[..], b"{\"a\":1}");
    }
}

#[actix_web::test]
async fn a_refused_port_was_surely_not_reached() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let error = send(get(format!("http://{address}/"))).await.err().unwrap();
    let authority = address.to_string();
    assert!(matches!(&error, TransportError::Connect { authority: a, .. } if *a == authority), "{error:?}");
    assert!(error.never_sent());
}

#[actix_web::test]
async fn a_server_that_speaks_no_tls_is_a_tls_error() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    actix_rt::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let _ = socket.read(&mut [0u8; 64]).await;
        let _ = socket.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    });
    let error = send(get(format!("https://{address}/"))).await.err().unwrap();
    assert!(matches!(error, TransportError::Tls { .. }), "{error:?}");
    assert!(error.never_sent());
}

#[actix_web::test]
async fn a_name_that_does_not_resolve_is_a_connect_error() {
    let error = send(get("http://claviger.invalid/".to_owned())).await.err().unwrap();
    assert!(matches!(error, TransportError::Connect { .. }), "{error:?}");
}

#[actix_web::test]
async fn an_ipv6_address_is_reached() {
    let Ok(listener) = TcpListener::bind("[::1]:0").await else { return };
    let address = listener.local_addr().unwrap();
    actix_rt::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        read_request(&mut socket).await;
        let _ = socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    });
    assert_eq!(&send(get(format!("http://{address}/"))).await.unwrap().body[..], b"ok");
}

#[actix_web::test]
async fn many_at_once_keep_their_answers_apart() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    actix_rt::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            actix_rt::spawn(async move {
                let text = read_request(&mut socket).await;
                let path = text.split(' ').nth(1).unwrap_or_default().to_owned();
                let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{path}", path.len());
                socket.write_all(answer.as_bytes()).await.unwrap();
            });
        }
    });
    let sent = (0..64).map(|i| async move {
        let answer = send(get(format!("http://{address}/{i}"))).await.unwrap();
        assert_eq!(answer.body, format!("/{i}"));
    });
    futures_util::future::join_all(sent).await;
}

#[actix_web::test]
async fn the_systems_own_roots_or_none_at_all_are_a_good_start() {
    let transport = ProviderClient::new(crate::client_tls::trusting_the_system().unwrap());
    let server = answering("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    assert_eq!(&transport.send(to(&server)).await.unwrap().body[..], b"ok");
}
