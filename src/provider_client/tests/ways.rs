//! Through a proxy, and along redirects.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::JoinHandle;

use claviger_actors::registration::outbound::{HttpProxy, Outbound};
use http::header::LOCATION;

use super::tls::{test_roots, tls_server};
use super::{answering, get, send};
use crate::provider_client::*;

const AUTHORIZATION: &str = "Basic cHJveHk6aHVzaA==";

/// A proxy for one `CONNECT`: answers with `answer`, and joins the ways if that is a 200. Tells the
/// head it was sent.
fn connect_proxy(answer: &'static str) -> (SocketAddr, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let seen = std::thread::spawn(move || {
        let (client, _) = listener.accept().unwrap();
        let mut reader = BufReader::new(client.try_clone().unwrap());
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(reader.read_line(&mut head).unwrap() > 0, "{head}");
        }
        assert!(reader.buffer().is_empty(), "nothing is sent before the way is open");
        (&client).write_all(answer.as_bytes()).unwrap();
        if answer.starts_with("HTTP/1.1 200") {
            let target = head.split(' ').nth(1).unwrap().replace("localhost", "127.0.0.1");
            let server = TcpStream::connect(target).unwrap();
            let (mut up, mut down) = (server.try_clone().unwrap(), client.try_clone().unwrap());
            let back = std::thread::spawn(move || {
                let _ = std::io::copy(&mut up, &mut down);
                let _ = down.shutdown(std::net::Shutdown::Both);
            });
            let (mut from, mut to) = (client, server);
            let _ = std::io::copy(&mut from, &mut to);
            let _ = to.shutdown(std::net::Shutdown::Write);
            back.join().unwrap();
        }
        head
    });
    (address, seen)
}

fn through(proxy: SocketAddr, request: OutgoingRequest) -> OutgoingRequest {
    let mut authorization = HeaderValue::from_static(AUTHORIZATION);
    authorization.set_sensitive(true);
    let proxy = HttpProxy {
        host: proxy.ip().to_string(),
        port: proxy.port(),
        authorization: Some(authorization),
        is_loopback: true,
    };
    let tls = claviger_actors::proxy::connect::tls_client_config_with_roots(test_roots()).unwrap();
    let outbound = Outbound { proxy: Some(proxy), tls: Some(tls), ..Outbound::default() };
    OutgoingRequest { outbound: Arc::new(outbound), ..request }
}

#[actix_web::test]
async fn https_goes_through_a_tunnel_that_sees_neither_request_nor_answer() {
    let answer: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nsecure";
    let (server, asked) = tls_server(answer, false);
    let (proxy, seen) = connect_proxy("HTTP/1.1 200 Connection established\r\n\r\n");
    let mut request = get(format!("https://localhost:{}/token?code=QUERYSECRET", server.port()));
    request.headers.insert(http::header::AUTHORIZATION, HeaderValue::from_static("Bearer HEADSECRET"));
    let answer = send(through(proxy, request)).await.unwrap();
    assert_eq!(&answer.body[..], b"secure");
    assert!(asked.join().unwrap());
    let head = seen.join().unwrap();
    assert!(head.starts_with(&format!("CONNECT localhost:{} HTTP/1.1\r\n", server.port())), "{head}");
    assert!(
        head.to_lowercase().contains(&format!("proxy-authorization: {}\r\n", AUTHORIZATION.to_lowercase()))
    );
    assert!(!head.contains("SECRET"), "{head}");
}

#[actix_web::test]
async fn a_proxy_that_refuses_is_told_from_a_server_that_does() {
    for (answer, cause) in [
        (
            "HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n",
            "credentials (status 407)",
        ),
        ("HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n", "status 503"),
        ("HTTP/1.1 200 OK\r\n\r\nEARLY", "before the server was asked"),
        ("SSH-2.0-not-http\r\n\r\n", "proxy 127.0.0.1"),
    ] {
        let (proxy, seen) = connect_proxy(answer);
        let error = send(through(proxy, get("https://as.invalid/token".into()))).await.err();
        if !answer.ends_with("EARLY") {
            seen.join().unwrap();
        }
        match error {
            Some(TransportError::Connect { authority, cause: told }) => {
                assert_eq!(authority, "as.invalid:443");
                assert!(told.contains(cause) && told.contains(&proxy.to_string()), "{told}");
            }
            other => panic!("{answer:?}: {other:?}"),
        }
    }
}

#[actix_web::test]
async fn http_is_asked_of_a_proxy_on_this_machine_by_its_whole_url() {
    let proxy = answering("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await;
    let request = through(proxy.address, get("http://localhost:1/a?b=c".into()));
    assert_eq!(send(request).await.unwrap().status, StatusCode::OK);
    let sent = proxy.request.await.unwrap();
    assert!(sent.starts_with("GET http://localhost:1/a?b=c HTTP/1.1\r\n"), "{sent}");
    let lower = sent.to_lowercase();
    assert!(lower.contains("host: localhost:1\r\n"), "{sent}");
    assert!(lower.contains("proxy-authorization: basic "), "{sent}");

    let mut request = through(proxy.address, get("http://localhost:1/a".into()));
    let mut outbound = (*request.outbound).clone();
    outbound.proxy.as_mut().unwrap().is_loopback = false;
    request.outbound = Arc::new(outbound);
    let error = send(request).await.err().unwrap();
    assert!(
        matches!(&error, TransportError::Connect { cause, .. } if cause.contains("this machine")),
        "{error:?}"
    );
}

/// A server that answers requests in turn, each on a connection of its own; tells their first lines.
fn in_turn(answers: Vec<String>) -> (SocketAddr, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let seen = std::thread::spawn(move || {
        let mut lines = Vec::new();
        for answer in answers {
            let (mut socket, _) = listener.accept().unwrap();
            let mut head = Vec::new();
            let mut byte = [0u8; 1];
            while !head.ends_with(b"\r\n\r\n") {
                socket.read_exact(&mut byte).unwrap();
                head.push(byte[0]);
            }
            let head = String::from_utf8(head).unwrap();
            lines.push(head.lines().next().unwrap().to_owned());
            socket.write_all(answer.as_bytes()).unwrap();
        }
        lines
    });
    (address, seen)
}

fn redirect(status: u16, location: &str) -> String {
    format!("HTTP/1.1 {status} Go\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n")
}

const FOUND: &str = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nfound";

fn following(request: OutgoingRequest) -> OutgoingRequest {
    let outbound = Outbound { redirects: true, ..Outbound::default() };
    OutgoingRequest { outbound: Arc::new(outbound), ..request }
}

#[actix_web::test]
async fn metadata_may_be_redirected_within_its_origin() {
    let (server, seen) = in_turn(vec![redirect(301, "/b?c=d"), redirect(307, "e"), FOUND.to_owned()]);
    let answer = send(following(get(format!("http://{server}/a/b")))).await.unwrap();
    assert_eq!(&answer.body[..], b"found");
    assert_eq!(seen.join().unwrap(), ["GET /a/b HTTP/1.1", "GET /b?c=d HTTP/1.1", "GET /e HTTP/1.1"]);
}

#[actix_web::test]
async fn another_origin_and_a_circle_are_not_followed() {
    for elsewhere in ["https://127.0.0.1:1/x", "http://127.0.0.1:1/", "//evil.example/x?y=QUERYSECRET"] {
        let (server, seen) = in_turn(vec![redirect(302, elsewhere)]);
        let error = send(following(get(format!("http://{server}/")))).await.err().unwrap();
        assert!(error.to_string().contains("to another origin, http"), "{error}");
        assert_eq!(seen.join().unwrap().len(), 1);
    }
    let (server, seen) = in_turn(vec![redirect(302, "/"); 4]);
    let error = send(following(get(format!("http://{server}/")))).await.err().unwrap();
    assert!(error.to_string().contains("more than 3 times"), "{error}");
    assert_eq!(seen.join().unwrap().len(), 4);
}

#[actix_web::test]
async fn what_carries_a_secret_follows_no_redirect() {
    let posted = |request: &mut OutgoingRequest| {
        request.method = Method::POST;
        request.body = Bytes::from_static(b"code=SECRET");
    };
    let proven = |request: &mut OutgoingRequest| {
        request.headers.insert(http::header::AUTHORIZATION, HeaderValue::from_static("Bearer SECRET"));
    };
    let unasked = |request: &mut OutgoingRequest| request.outbound = Arc::default();
    for change in [&posted as &dyn Fn(&mut OutgoingRequest), &proven, &unasked] {
        let (server, seen) = in_turn(vec![redirect(307, "/elsewhere")]);
        let mut request = following(get(format!("http://{server}/")));
        change(&mut request);
        let answer = send(request).await.unwrap();
        assert_eq!(
            (answer.status.as_u16(), &answer.headers[LOCATION]),
            (307, &"/elsewhere".parse().unwrap())
        );
        assert_eq!(seen.join().unwrap().len(), 1);
    }
}
