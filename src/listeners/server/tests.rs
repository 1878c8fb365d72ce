#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::cell::Cell;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use actix_http::{Request, Response};
use actix_service::fn_service;
use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

use super::parking::{Ended, until_idle};
use super::stream::Opened;
use super::*;

/// Longer than a connection that was in use lies still before it counts as idle.
const A_WHILE: Duration = Duration::from_millis(2300);

/// Two ends of a connection: ours, and the caller's.
async fn pair() -> (stream::CallerStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let caller = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let Opened::Http1(ours) = Opened::plain(listener.accept().await.unwrap().0, false).await.unwrap() else {
        panic!("it is plain");
    };
    (ours, caller)
}

/// Whether a connection counts as idle on which `sent` was read and `answered` requests were answered.
async fn is_idle(sent: &str, answered: usize, under_way: bool) -> bool {
    let (ours, mut caller) = pair().await;
    caller.write_all(sent.as_bytes()).await.unwrap();
    for _ in 0..answered {
        drop(ours.connection().busy());
        ours.connection().goes_on();
    }
    let _busy = under_way.then(|| ours.connection().busy());
    let mut reader = ours.clone();
    let reading = Box::pin(async move {
        let mut buffer = [0; 64];
        while reader.read(&mut buffer).await.is_ok_and(|length| length > 0) {}
    });
    matches!(timeout(A_WHILE, until_idle(reading, &ours)).await, Ok(Ended::Idle))
}

#[actix_web::test]
async fn a_connection_lies_idle_only_between_two_messages() {
    let whole = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let (idle, not_asked, in_use, half, after_body) = tokio::join!(
        is_idle(whole, 1, false),
        is_idle(whole, 0, false),
        is_idle(whole, 1, true),
        is_idle("GET / HTTP/1.1\r\n\r\nGET / HT", 1, false),
        is_idle("POST / HTTP/1.1\r\nContent-Length: 1\r\n\r\nx", 1, false),
    );
    assert!(idle);
    assert!(!not_asked, "a head must come in time");
    assert!(!in_use);
    assert!(!half, "half a head would be lost");
    assert!(!after_body, "nobody can tell the body from the beginning of a head");
}

/// A listener that answers with the number of the request.
fn numbered() -> SocketAddr {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let settings = ListenerSettings {
        name: "test",
        workers: 1,
        tls: None,
        h2c: false,
        drain: Duration::from_secs(5),
        counts: Arc::default(),
    };
    let server = listen(socket, settings, move || {
        let requests = Rc::new(Cell::new(0));
        let service = fn_service(move |request: Request| {
            let connection = request.conn_data::<Rc<CallerConnection>>().unwrap();
            drop(connection.busy());
            connection.goes_on();
            requests.set(requests.get() + 1);
            let answer = Bytes::from(requests.get().to_string());
            async move { Ok::<_, Infallible>(Response::ok().set_body(answer)) }
        });
        Handlers { http1: service, http2: None }
    });
    actix_web::rt::spawn(server.unwrap());
    address
}

async fn ask(caller: &mut TcpStream, request: &str) -> String {
    caller.write_all(request.as_bytes()).await.unwrap();
    let mut answer = vec![0; 4096];
    let length = timeout(Duration::from_secs(5), caller.read(&mut answer)).await.unwrap().unwrap();
    String::from_utf8_lossy(&answer[..length]).into_owned()
}

#[actix_web::test]
async fn what_lay_idle_is_taken_up_again() {
    let mut caller = TcpStream::connect(numbered()).await.unwrap();
    let request = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    assert!(ask(&mut caller, request).await.ends_with("\r\n\r\n1"));
    for number in 2..4 {
        sleep(A_WHILE).await;
        assert!(ask(&mut caller, request).await.ends_with(&format!("\r\n\r\n{number}")));
    }
    // A head that comes in two halves with a pause between them is one request.
    caller.write_all(b"GET / HTTP/1.1\r\nHo").await.unwrap();
    sleep(A_WHILE).await;
    assert!(ask(&mut caller, "st: a\r\n\r\n").await.ends_with("\r\n\r\n4"));
    // One that closes is let go, idle or not.
    sleep(A_WHILE).await;
    caller.shutdown().await.unwrap();
    let mut rest = Vec::new();
    let end = timeout(Duration::from_secs(5), caller.read_to_end(&mut rest)).await.unwrap();
    assert_eq!(end.unwrap(), 0);
}
