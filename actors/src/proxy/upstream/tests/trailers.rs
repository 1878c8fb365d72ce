use std::cell::RefCell;

use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;

use super::fetch::*;
use super::*;

fn map(lines: &[(&'static str, &'static str)]) -> HeaderMap {
    let line = |(name, value): &(&'static str, &'static str)| {
        (HeaderName::from_static(name), HeaderValue::from_static(value))
    };
    lines.iter().map(line).collect()
}

fn with_trailers() -> BodySource {
    let forged = map(&[("x-checksum", "1"), ("authorization", "Bearer forged"), ("host", "elsewhere")]);
    body_of(vec![Frame::data(Bytes::from_static(b"ab")), Frame::trailers(forged)])
}

#[tokio::test]
async fn they_pass_both_ways_over_http2() {
    local(async {
        let seen = Rc::new(RefCell::new(None));
        let came = seen.clone();
        let handle = handle(move |request, mut respond| {
            let came = came.clone();
            async move {
                let (_, trailers) = take(&mut request.into_body()).await.unwrap();
                *came.borrow_mut() = trailers;
                let mut send = respond.send_response(Response::new(()), false).unwrap();
                send.send_data(Bytes::from_static(b"cd"), false).unwrap();
                send.send_trailers(map(&[("grpc-status", "0"), ("set-cookie", "a=1")])).unwrap();
            }
        });
        let server = Server::start(None, 100, handle).await;
        let pool = UpstreamPool::new(Arc::new(settings(true)));
        let (origin, body) = (origin(false, "localhost", server.port), with_trailers());
        let protocol = UpstreamProtocol::Http2;
        let fetched = fetch(&pool, &Exchange { protocol, make: &post, ..exchange(&origin, &body) }).await;
        let fetched = fetched.unwrap();
        assert_eq!(seen.take(), Some(map(&[("x-checksum", "1")])));
        assert_eq!(fetched.body, b"cd");
        assert_eq!(fetched.trailers, Some(map(&[("grpc-status", "0")])));
    })
    .await;
}

#[tokio::test]
async fn an_answer_of_a_head_alone_has_ended_before_it_is_read() {
    local(async {
        let handle = handle(|_, mut respond| async move {
            let head = Response::builder().header("grpc-status", "5").body(()).unwrap();
            respond.send_response(head, true).unwrap();
        });
        let server = Server::start(None, 100, handle).await;
        let pool = UpstreamPool::new(Arc::new(settings(true)));
        let (origin, body) = (origin(false, "localhost", server.port), BodySource::empty());
        let exchange = Exchange { protocol: UpstreamProtocol::Http2, ..exchange(&origin, &body) };
        let response = pool.send(&exchange).await.unwrap();
        assert!(response.body.is_end());
        assert_eq!(response.parts.headers["grpc-status"], "5");
    })
    .await;
}

/// Answers one request with `answer`, and gives what was asked.
async fn http1(listener: &TcpListener, answer: &str) -> String {
    let (mut stream, _) = listener.accept().await.unwrap();
    let (mut seen, mut chunk) = (Vec::new(), [0; 4096]);
    while !seen.windows(5).any(|window| window == b"\r\n0\r\n") || !seen.ends_with(b"\r\n\r\n") {
        let read = stream.read(&mut chunk).await.unwrap();
        assert_ne!(read, 0, "{}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&chunk[..read]);
    }
    stream.write_all(answer.as_bytes()).await.unwrap();
    let end = stream.read(&mut chunk).await;
    assert!(matches!(end, Ok(0) | Err(_)), "the connection is closed with its pool");
    String::from_utf8(seen).unwrap()
}

#[tokio::test]
async fn they_pass_both_ways_over_http1_if_they_are_announced() {
    local(async {
        for announced in [true, false] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let origin = origin(false, "127.0.0.1", listener.local_addr().unwrap().port());
            let body = with_trailers();
            let make = |body| {
                let mut request = post(body)?;
                if announced {
                    request.headers_mut().insert("trailer", HeaderValue::from_static("x-checksum"));
                }
                Ok(request)
            };
            let exchange = Exchange { make: &make, ..exchange(&origin, &body) };
            let answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n\
                          2\r\ncd\r\n0\r\nX-Sum: 7\r\nContent-Length: 9\r\n\r\n";
            let call = async {
                let pool = UpstreamPool::new(Arc::new(settings(true)));
                let fetched = fetch(&pool, &exchange).await.unwrap();
                assert_eq!(pool.idle_connections(), 1);
                fetched
            };
            let (seen, fetched) = tokio::join!(http1(&listener, answer), call);
            let end = if announced { "0\r\nx-checksum: 1\r\n\r\n" } else { "0\r\n\r\n" };
            assert!(seen.to_ascii_lowercase().ends_with(&format!("\r\n2\r\nab\r\n{end}")), "{seen}");
            assert_eq!(
                (fetched.body.as_slice(), fetched.trailers),
                (b"cd".as_slice(), Some(map(&[("x-sum", "7")])))
            );
        }
    })
    .await;
}
