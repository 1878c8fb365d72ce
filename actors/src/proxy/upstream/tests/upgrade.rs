//! Switching protocols.

use super::fetch::*;
use super::*;

const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");

/// Answers one request with `answer`; gives what was asked, and the connection.
async fn server(listener: &TcpListener, answer: &str) -> (String, tokio::net::TcpStream) {
    let (mut stream, _) = listener.accept().await.unwrap();
    let (mut seen, mut chunk) = (Vec::new(), [0; 4096]);
    while !seen.ends_with(b"\r\n\r\n") {
        let read = stream.read(&mut chunk).await.unwrap();
        assert_ne!(read, 0);
        seen.extend_from_slice(&chunk[..read]);
    }
    stream.write_all(answer.as_bytes()).await.unwrap();
    (String::from_utf8(seen).unwrap(), stream)
}

async fn listen() -> (TcpListener, Arc<UpstreamOrigin>, Rc<UpstreamPool>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = origin(false, "127.0.0.1", listener.local_addr().unwrap().port());
    (listener, origin, UpstreamPool::new(Arc::new(settings(true))))
}

#[tokio::test]
async fn what_follows_the_head_is_the_other_protocols() {
    local(async {
        let (listener, origin, pool) = listen().await;
        let body = BodySource::empty();
        // Whatever the route speaks otherwise.
        for protocol in [UpstreamProtocol::Auto, UpstreamProtocol::Http2] {
            let exchange = Exchange { protocol, upgrade: Some(&WEBSOCKET), ..exchange(&origin, &body) };
            let answer =
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n\r\nhello";
            let ((asked, mut stream), response) =
                tokio::join!(server(&listener, answer), pool.send(&exchange));
            let asked = asked.to_ascii_lowercase();
            assert!(
                asked.contains("connection: upgrade\r\n") && asked.contains("upgrade: websocket\r\n"),
                "{asked}"
            );
            let response = response.unwrap();
            assert_eq!(response.parts.status, StatusCode::SWITCHING_PROTOCOLS);
            let mut upgraded = response.upgraded.unwrap();
            drop(response.body);
            let mut read = [0; 5];
            upgraded.read_exact(&mut read).await.unwrap();
            assert_eq!(&read, b"hello");
            upgraded.write_all(b"there").await.unwrap();
            upgraded.flush().await.unwrap();
            stream.read_exact(&mut read).await.unwrap();
            assert_eq!(&read, b"there");
            stream.write_all(b"bytes").await.unwrap();
            upgraded.read_exact(&mut read).await.unwrap();
            assert_eq!((&read, pool.idle_connections()), (b"bytes", 0));
            drop(upgraded);
            assert_eq!(stream.read(&mut read).await.unwrap(), 0, "it is closed with its user");
        }
    })
    .await;
}

#[tokio::test]
async fn only_what_was_asked_for_is_switched_to() {
    local(async {
        let body = BodySource::empty();
        for (asked, answered) in [
            (Some(&WEBSOCKET), "Connection: Upgrade\r\nUpgrade: h2c\r\n"),
            (Some(&WEBSOCKET), "Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n"),
            (Some(&WEBSOCKET), "Connection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n"),
            (Some(&WEBSOCKET), ""),
            (None, "Connection: Upgrade\r\nUpgrade: websocket\r\n"),
        ] {
            let (listener, origin, pool) = listen().await;
            let exchange = Exchange { upgrade: asked, ..exchange(&origin, &body) };
            let answer = format!("HTTP/1.1 101 Switching Protocols\r\n{answered}\r\n");
            let ((_, mut stream), response) = tokio::join!(server(&listener, &answer), pool.send(&exchange));
            assert!(matches!(response, Err(UpstreamError::Malformed { .. })), "{answered} {response:?}");
            assert_eq!(stream.read(&mut [0]).await.unwrap(), 0, "it is closed");
        }
    })
    .await;
}

#[tokio::test]
async fn an_upstream_that_declines_answers_as_usual_on_a_connection_of_its_own() {
    local(async {
        let (listener, origin, pool) = listen().await;
        let body = BodySource::empty();
        let plain = exchange(&origin, &body);
        let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
        let (held, fetched) = tokio::join!(server(&listener, answer), fetch(&pool, &plain));
        assert_eq!((fetched.unwrap().body, pool.idle_connections()), (b"ok".to_vec(), 1));

        let asking = Exchange { upgrade: Some(&WEBSOCKET), ..exchange(&origin, &body) };
        let answer = "HTTP/1.1 426 Upgrade Required\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\nno";
        let ((_, mut stream), fetched) = tokio::join!(server(&listener, answer), fetch(&pool, &asking));
        let fetched = fetched.unwrap();
        assert_eq!((fetched.status, fetched.body), (StatusCode::UPGRADE_REQUIRED, b"no".to_vec()));
        assert_eq!((pool.opened_connections(), pool.idle_connections()), (2, 1));
        assert_eq!(stream.read(&mut [0]).await.unwrap(), 0, "it is not kept");
        drop(held);
    })
    .await;
}
