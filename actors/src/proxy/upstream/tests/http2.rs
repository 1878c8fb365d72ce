use std::cell::RefCell;

use bytes::Bytes;
use futures_util::StreamExt as _;
use h2::Reason;
use http::HeaderMap;
use http_body::Frame;
use tokio::sync::Notify;

use super::fetch::*;
use super::*;
use crate::proxy::body::BodyLimits;

const BOTH: Option<&[&str]> = Some(&["h2", "http/1.1"]);
const OLD: Option<&[&str]> = Some(&["http/1.1"]);

fn pool() -> Rc<UpstreamPool> {
    UpstreamPool::new(Arc::new(settings(true)))
}

fn at(server: &Server, tls: bool) -> Arc<UpstreamOrigin> {
    origin(tls, "localhost", server.port)
}

fn http2<'a>(origin: &'a Arc<UpstreamOrigin>, body: &'a BodySource) -> Exchange<'a> {
    Exchange { protocol: UpstreamProtocol::Http2, ..exchange(origin, body) }
}

/// A handler that answers nobody before `all` are there.
fn all_at_once(all: usize) -> (Handle, Rc<Cell<usize>>) {
    let (arrived, complete) = (Rc::new(Cell::new(0)), Rc::new(Notify::new()));
    let count = arrived.clone();
    let handle = handle(move |_, respond| {
        let (arrived, complete) = (arrived.clone(), complete.clone());
        async move {
            arrived.set(arrived.get() + 1);
            if arrived.get() == all {
                complete.notify_waiters();
            } else {
                complete.notified().await;
            }
            reply(respond, "ok");
        }
    });
    (handle, count)
}

#[tokio::test]
async fn a_hundred_requests_at_once_share_one_connection() {
    local(async {
        for protocols in [None, BOTH] {
            let (handle, arrived) = all_at_once(100);
            let server = Server::start(protocols, 100, handle).await;
            let (pool, origin, body) = (pool(), at(&server, protocols.is_some()), BodySource::empty());
            let exchange = match protocols {
                None => http2(&origin, &body),
                Some(_) => exchange(&origin, &body),
            };
            let calls = futures_util::future::join_all((0..100).map(|_| fetch(&pool, &exchange))).await;
            for fetched in calls {
                assert_eq!(fetched.unwrap().body, b"ok");
            }
            assert_eq!((arrived.get(), pool.opened_connections(), pool.idle_connections()), (100, 1, 1));
        }
    })
    .await;
}

#[tokio::test]
async fn a_request_is_as_http2_has_it() {
    local(async {
        let seen = Rc::new(RefCell::new(Vec::new()));
        let handle = {
            let seen = seen.clone();
            handle(move |request, respond| {
                seen.borrow_mut().push(request.into_parts().0);
                async { reply(respond, "ok") }
            })
        };
        let server = Server::start(None, 100, handle).await;
        let (pool, origin) = (pool(), at(&server, false));
        for takes_trailers in [false, true] {
            let body = body_of(vec![Frame::data(Bytes::from_static(b"x"))]);
            let exchange = Exchange { takes_trailers, make: &post, ..http2(&origin, &body) };
            assert_eq!(fetch(&pool, &exchange).await.unwrap().status, StatusCode::OK);
            let parts = seen.borrow_mut().pop().unwrap();
            assert_eq!(parts.uri.to_string(), format!("http://localhost:{}/v1/things?x=1", server.port));
            assert_eq!(parts.headers["cookie"], "a=1; b=2");
            let te = parts.headers.get("te").map(HeaderValue::as_bytes);
            assert_eq!(te, takes_trailers.then_some(b"trailers".as_slice()));
            for absent in ["host", "transfer-encoding", "connection"] {
                assert!(!parts.headers.contains_key(absent), "{absent}");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn tls_chooses_the_protocol_and_a_route_may_insist() {
    local(async {
        use UpstreamProtocol::{Auto, Http1, Http2};
        // What the server offers, what the route wants, what is spoken (none: it fails).
        let table = [
            (BOTH, Auto, Some(2)),
            (BOTH, Http1, Some(1)),
            (BOTH, Http2, Some(2)),
            (OLD, Auto, Some(1)),
            (OLD, Http1, Some(1)),
            (OLD, Http2, None),
            (Some(&["h2"] as &[&str]), Auto, Some(2)),
            (Some(&["h2"]), Http1, None),
            (Some(&[]), Auto, Some(1)),
            (Some(&[]), Http2, None),
        ];
        for (offered, protocol, spoken) in table {
            let server = Server::simple(offered).await;
            let (pool, origin, body) = (pool(), at(&server, true), BodySource::empty());
            let exchange = Exchange { protocol, ..exchange(&origin, &body) };
            // At once, and one after the other on the connections that are there.
            let calls = futures_util::future::join_all((0..4).map(|_| fetch(&pool, &exchange))).await;
            let opened = pool.opened_connections();
            let calls = calls.into_iter().chain([fetch(&pool, &exchange).await]);
            let case = format!("{offered:?} {protocol:?}");
            let Some(spoken) = spoken else {
                for fetched in calls {
                    assert!(matches!(fetched, Err(UpstreamError::Connect { .. })), "{case} {fetched:?}");
                }
                continue;
            };
            for fetched in calls {
                assert_eq!(fetched.unwrap().body, b"ok", "{case}");
            }
            assert_eq!(pool.opened_connections(), opened, "{case}");
            assert_eq!(opened, if spoken == 2 { 1 } else { 4 }, "{case}");
            assert_eq!(server.connections.get().0, usize::from(spoken == 2), "{case}");
        }
    })
    .await;
}

/// Polls once.
async fn not_yet<F: Future + Unpin>(future: &mut F) -> bool {
    poll_fn(|cx| std::task::Poll::Ready(std::pin::Pin::new(&mut *future).poll(cx).is_pending())).await
}

#[tokio::test]
async fn whoever_waits_for_a_connection_gets_it_though_the_first_turned_away() {
    local(async {
        let server = Server::simple(BOTH).await;
        let (pool, origin, body) = (pool(), at(&server, true), BodySource::empty());
        let exchange = exchange(&origin, &body);
        let (mut first, mut second) = (Box::pin(fetch(&pool, &exchange)), Box::pin(fetch(&pool, &exchange)));
        for _ in 0..2 {
            assert!(not_yet(&mut first).await);
            assert!(not_yet(&mut second).await);
        }
        drop(first);
        assert_eq!(second.await.unwrap().body, b"ok");
        assert_eq!(pool.opened_connections(), 1);

        // Of one that nobody waits for any more, nothing is left that others would wait for.
        let other = UpstreamPool::new(Arc::new(settings(true)));
        let mut alone = Box::pin(fetch(&other, &exchange));
        assert!(not_yet(&mut alone).await);
        drop(alone);
        assert_eq!(fetch(&other, &exchange).await.unwrap().body, b"ok");
    })
    .await;
}

#[tokio::test]
async fn without_tls_http2_is_spoken_where_the_route_says_so_only() {
    local(async {
        let server = Server::simple(None).await;
        let (pool, origin, body) = (pool(), at(&server, false), BodySource::empty());
        assert_eq!(fetch(&pool, &http2(&origin, &body)).await.unwrap().body, b"ok");
        let hasty = Exchange { timeout: Duration::from_millis(500), ..exchange(&origin, &body) };
        assert!(fetch(&pool, &hasty).await.is_err(), "HTTP/1.1 is not what this server speaks");
        assert_eq!(pool.opened_connections(), 2);
        let old = origin_of_http1().await;
        assert!(fetch(&pool, &http2(&old, &body)).await.is_err());
        assert_eq!(fetch(&pool, &exchange(&old, &body)).await.unwrap().body, b"ok");
    })
    .await;
}

async fn origin_of_http1() -> Arc<UpstreamOrigin> {
    origin(false, "localhost", upstream(false).await)
}

#[tokio::test]
async fn further_connections_are_opened_when_the_upstreams_limit_is_reached() {
    local(async {
        let (handle, arrived) = all_at_once(31);
        let server = Server::start(None, 10, handle).await;
        let (pool, origin, body) = (pool(), at(&server, false), BodySource::empty());
        let exchange = http2(&origin, &body);
        // The first waits with all others; until the upstream has said so, nobody knows its limit.
        let first = fetch(&pool, &exchange);
        let others = async {
            until(|| arrived.get() == 1).await;
            futures_util::future::join_all((0..30).map(|_| fetch(&pool, &exchange))).await
        };
        let (first, others) = tokio::join!(first, others);
        assert!(first.is_ok() && others.iter().all(Result::is_ok));
        assert_eq!((server.connections.get().0, pool.opened_connections()), (4, 4));
    })
    .await;
}

#[tokio::test]
async fn a_burst_before_the_limit_is_known_is_answered_whole() {
    local(async {
        let (handle, _) = all_at_once(60);
        let server = Server::start(BOTH, 20, handle).await;
        let (pool, origin, body) = (pool(), at(&server, true), BodySource::empty());
        let exchange = exchange(&origin, &body);
        let calls = futures_util::future::join_all((0..60).map(|_| fetch(&pool, &exchange))).await;
        assert!(calls.iter().all(Result::is_ok), "{calls:?}");
        assert_eq!(pool.opened_connections(), 3);
    })
    .await;
}

#[tokio::test]
async fn a_connection_opened_with_one_identity_is_never_used_for_another() {
    local(async {
        let server = Server::simple(BOTH).await;
        let (origin, body) = (at(&server, true), BodySource::empty());
        let pool = UpstreamPool::new(Arc::new(settings(false)));
        let of = |shown: &'static [u8]| UpstreamTls {
            config: settings(true).tls,
            identity: TlsIdentity::of([certificate().as_ref()], [shown]),
        };
        let (ours, theirs) = (of(b"ours"), of(b"theirs"));
        for (tls, opened) in [(&ours, 1), (&theirs, 2), (&ours, 2), (&theirs, 2)] {
            let exchange = Exchange { tls: Some(tls), ..exchange(&origin, &body) };
            assert_eq!(fetch(&pool, &exchange).await.unwrap().body, b"ok");
            assert_eq!((pool.opened_connections(), server.connections.get().0), (opened, opened as usize));
        }
        // The common way trusts nobody here: a connection that is open must not help it.
        assert!(fetch(&pool, &exchange(&origin, &body)).await.is_err());
        assert_eq!(pool.idle_connections(), 2);
    })
    .await;
}

#[tokio::test]
async fn a_mebibyte_goes_either_way() {
    local(async {
        let echo = handle(|request, mut respond| async move {
            let (bytes, _) = take(&mut request.into_body()).await.unwrap();
            let mut send = respond.send_response(Response::new(()), false).unwrap();
            for chunk in bytes.chunks(10_000) {
                send_when_taken(&mut send, Bytes::copy_from_slice(chunk)).await.unwrap();
            }
            send.send_data(Bytes::new(), true).unwrap();
        });
        let server = Server::start(BOTH, 100, echo).await;
        let (pool, origin) = (pool(), at(&server, true));
        let chunk = |n: usize| Bytes::from(vec![u8::try_from(n % 251).unwrap(); 16 * 1024]);
        let body = body_of((0..64).map(|n| Frame::data(chunk(n))).collect());
        let exchange = Exchange { make: &post, ..exchange(&origin, &body) };
        let sent: Vec<u8> = (0..64).flat_map(chunk).collect();
        assert!(fetch(&pool, &exchange).await.unwrap().body == sent);
    })
    .await;
}

/// Sends no more than the other side takes.
async fn send_when_taken(send: &mut h2::SendStream<Bytes>, mut chunk: Bytes) -> Result<(), h2::Error> {
    while !chunk.is_empty() {
        send.reserve_capacity(chunk.len());
        let Some(room) = poll_fn(|cx| send.poll_capacity(cx)).await else {
            return Err(Reason::CANCEL.into());
        };
        let part = chunk.split_to(room?.min(chunk.len()));
        send.send_data(part, false)?;
    }
    Ok(())
}

#[tokio::test]
async fn a_caller_that_takes_nothing_stops_the_upstream_and_nobody_else() {
    local(async {
        const ALL: usize = 8 * 1024 * 1024;
        let sent = Rc::new(Cell::new(0));
        let count = sent.clone();
        let pour = handle(move |request, mut respond| {
            let count = count.clone();
            async move {
                if request.uri().path() != "/pour" {
                    return reply(respond, "ok");
                }
                let mut send = respond.send_response(Response::new(()), false).unwrap();
                while count.get() < ALL {
                    if send_when_taken(&mut send, Bytes::from_static(&[7; 8192])).await.is_err() {
                        return;
                    }
                    count.set(count.get() + 8192);
                }
                let _ = send.send_data(Bytes::new(), true);
            }
        });
        let server = Server::start(None, 100, pour).await;
        let (pool, origin, body) = (pool(), at(&server, false), BodySource::empty());
        let pouring = |body| {
            let mut request = Request::new(body);
            *request.uri_mut() = "/pour".parse().unwrap();
            Ok(request)
        };
        let exchange = Exchange { make: &pouring, ..http2(&origin, &body) };
        let response = pool.send(&exchange).await.unwrap();
        let window = 512 * 1024;
        until(|| sent.get() + 8192 > window).await;
        // Others share the connection, and are served while it waits.
        for _ in 0..20 {
            assert_eq!(fetch(&pool, &http2(&origin, &body)).await.unwrap().body, b"ok");
        }
        assert!(sent.get() <= window, "{} bytes were sent to a caller that took none", sent.get());
        let (bytes, _) = read(response.body).await.unwrap();
        assert_eq!((bytes.len(), sent.get(), pool.opened_connections()), (ALL, ALL, 1));
    })
    .await;
}

#[tokio::test]
async fn an_upstream_that_takes_nothing_stops_the_caller() {
    local(async {
        let taking = Rc::new(Notify::new());
        let wait = taking.clone();
        let slow = handle(move |request, respond| {
            let wait = wait.clone();
            async move {
                wait.notified().await;
                let (bytes, _) = take(&mut request.into_body()).await.unwrap();
                reply(respond, if bytes.len() == 4 * 1024 * 1024 { "all" } else { "not all" });
            }
        });
        let server = Server::start(None, 100, slow).await;
        let (pool, origin) = (pool(), at(&server, false));
        let drawn = Rc::new(Cell::new(0));
        let count = drawn.clone();
        let chunks = futures_util::stream::iter(0..256).map(move |_| {
            count.set(count.get() + 16 * 1024);
            Ok(Frame::data(Bytes::from_static(&[1; 16 * 1024])))
        });
        let limits = BodyLimits { length: None, max: None, idle: Duration::from_secs(10) };
        let body = BodySource::streaming(Box::pin(chunks), limits);
        let exchange = Exchange { make: &post, ..http2(&origin, &body) };
        let sending = fetch(&pool, &exchange);
        let watching = async {
            // The upstream's window is 64 KiB less one byte.
            until(|| drawn.get() >= 64 * 1024).await;
            let empty = BodySource::empty();
            for _ in 0..20 {
                let hasty = Exchange { timeout: Duration::from_millis(2), ..http2(&origin, &empty) };
                assert!(pool.send(&hasty).await.is_err());
            }
            let most = drawn.get();
            taking.notify_waiters();
            most
        };
        let (fetched, most) = tokio::join!(sending, watching);
        assert!(most <= 3 * 64 * 1024, "{most} bytes were drawn for an upstream that took none");
        assert_eq!(fetched.unwrap().body, b"all");
    })
    .await;
}

#[tokio::test]
async fn an_event_is_handed_on_at_once() {
    local(async {
        let seen = Rc::new(Notify::new());
        let wait = seen.clone();
        let events = handle(move |_, mut respond| {
            let wait = wait.clone();
            async move {
                let mut send = respond.send_response(Response::new(()), false).unwrap();
                for _ in 0..3 {
                    send.send_data(Bytes::new(), false).unwrap();
                    send.send_data(Bytes::from_static(b"data: x\n\n"), false).unwrap();
                    // The next comes only once this one was seen.
                    wait.notified().await;
                }
                send.send_data(Bytes::new(), true).unwrap();
            }
        });
        let server = Server::start(None, 100, events).await;
        let (pool, origin, body) = (pool(), at(&server, false), BodySource::empty());
        let mut response = pool.send(&http2(&origin, &body)).await.unwrap();
        for _ in 0..3 {
            let frame = next(&mut response.body).await.unwrap().unwrap();
            assert_eq!(frame.into_data().unwrap(), "data: x\n\n");
            seen.notify_one();
        }
        assert!(next(&mut response.body).await.is_none());
    })
    .await;
}

#[tokio::test]
async fn whoever_turns_away_cancels_the_stream_and_no_other() {
    local(async {
        let (arrived, reset) = (Rc::new(Cell::new(0)), Rc::new(RefCell::new(Vec::new())));
        let (count, seen) = (arrived.clone(), reset.clone());
        let silent = handle(move |request, mut respond| {
            let (count, seen) = (count.clone(), seen.clone());
            async move {
                count.set(count.get() + 1);
                let path = request.uri().path().to_owned();
                let _body = request.into_body();
                let reason = if path == "/head" {
                    poll_fn(|cx| respond.poll_reset(cx)).await
                } else {
                    let mut send = respond.send_response(Response::new(()), false).unwrap();
                    poll_fn(|cx| send.poll_reset(cx)).await
                };
                seen.borrow_mut().push(reason.unwrap());
            }
        });
        let server = Server::start(None, 100, silent).await;
        let (pool, origin) = (pool(), at(&server, false));
        let limits = BodyLimits { length: None, max: None, idle: Duration::from_secs(10) };
        let endless = || BodySource::streaming(Box::pin(futures_util::stream::pending()), limits);
        let to = |path: &'static str| {
            move |body| {
                let mut request = Request::new(body);
                *request.uri_mut() = path.parse().unwrap();
                Ok(request)
            }
        };
        // While the head is waited for, and later; with a body on its way, and without.
        for body in [endless(), BodySource::empty()] {
            let before = arrived.get();
            let exchange = Exchange { make: &to("/head"), ..http2(&origin, &body) };
            let waited = async { until(|| arrived.get() > before).await };
            tokio::select! {
                _ = pool.send(&exchange) => panic!("nobody answers"),
                () = waited => {}
            }
            let exchange = Exchange { make: &to("/body"), ..http2(&origin, &body) };
            drop(pool.send(&exchange).await.unwrap());
        }
        until(|| reset.borrow().len() == 4).await;
        assert_eq!(*reset.borrow(), [Reason::CANCEL; 4]);
        assert_eq!((pool.opened_connections(), pool.idle_connections()), (1, 1));
    })
    .await;
}

#[tokio::test]
async fn a_caller_whose_body_breaks_off_cancels_the_stream() {
    local(async {
        let reset = Rc::new(RefCell::new(None));
        let seen = reset.clone();
        let read = handle(move |request, _respond| {
            let seen = seen.clone();
            async move {
                let error = take(&mut request.into_body()).await.unwrap_err();
                *seen.borrow_mut() = error.reason();
            }
        });
        let server = Server::start(None, 100, read).await;
        let (pool, origin) = (pool(), at(&server, false));
        let chunks = futures_util::stream::iter([
            Ok(Frame::data(Bytes::from_static(b"half"))),
            Err(crate::proxy::body::BodyFault::BrokenOff),
        ]);
        let limits = BodyLimits { length: None, max: None, idle: Duration::from_secs(10) };
        let body = BodySource::streaming(Box::pin(chunks), limits);
        let exchange = Exchange { make: &post, ..http2(&origin, &body) };
        let error = pool.send(&exchange).await.unwrap_err();
        assert!(matches!(error, UpstreamError::RequestBody(_)), "{error:?}");
        until(|| reset.borrow().is_some()).await;
        assert_eq!(*reset.borrow(), Some(Reason::CANCEL));
    })
    .await;
}

#[tokio::test]
async fn a_connection_that_carries_nothing_is_closed_in_time() {
    local(async {
        let server = Server::simple(None).await;
        let brief = UpstreamSettings { idle_timeout: Duration::from_millis(100), ..settings(true) };
        let (pool, origin) = (UpstreamPool::new(Arc::new(brief)), at(&server, false));
        let body = BodySource::empty();
        assert!(fetch(&pool, &http2(&origin, &body)).await.is_ok());
        pool.sweep();
        assert_eq!(pool.idle_connections(), 1);
        tokio::time::sleep(Duration::from_millis(150)).await;
        pool.sweep();
        assert_eq!(pool.idle_connections(), 0);
        until(|| server.connections.get() == (1, 1)).await;
    })
    .await;
}

#[tokio::test]
async fn an_upstream_that_does_not_answer_gets_no_further_requests_there() {
    local(async {
        let silent = Rc::new(Cell::new(true));
        let quiet = silent.clone();
        let handle = handle(move |_, respond| {
            let quiet = quiet.get();
            async move {
                if quiet {
                    let _kept = respond;
                    std::future::pending::<()>().await;
                } else {
                    reply(respond, "ok");
                }
            }
        });
        let server = Server::start(None, 100, handle).await;
        let (pool, origin, body) = (pool(), at(&server, false), BodySource::empty());
        let hasty = Exchange { timeout: Duration::from_millis(100), ..http2(&origin, &body) };
        let error = fetch(&pool, &hasty).await.unwrap_err();
        assert!(matches!(error, UpstreamError::HeadTimeout { .. }), "{error:?}");
        silent.set(false);
        assert_eq!(fetch(&pool, &http2(&origin, &body)).await.unwrap().body, b"ok");
        assert_eq!(pool.opened_connections(), 2);
    })
    .await;
}

#[tokio::test]
async fn interim_answers_are_passed_over_and_large_heads_refused() {
    local(async {
        let handle = handle(|request, mut respond| async move {
            if request.uri().path() == "/large" {
                let mut response = Response::new(());
                for n in 0..40 {
                    let name = HeaderName::from_bytes(format!("x-{n}").as_bytes()).unwrap();
                    let value = HeaderValue::from_bytes(&[b'x'; 8192]).unwrap();
                    response.headers_mut().insert(name, value);
                }
                let _ = respond.send_response(response, true);
                return;
            }
            let early = Response::builder().status(103).header("link", "</a>").body(()).unwrap();
            respond.send_informational(early).unwrap();
            reply(respond, "ok");
        });
        let server = Server::start(None, 100, handle).await;
        let (pool, origin, body) = (pool(), at(&server, false), BodySource::empty());
        let fetched = fetch(&pool, &http2(&origin, &body)).await.unwrap();
        assert_eq!((fetched.status, fetched.body.as_slice()), (StatusCode::OK, b"ok".as_slice()));
        let large = |body| {
            let mut request = Request::new(body);
            *request.uri_mut() = "/large".parse().unwrap();
            Ok(request)
        };
        let exchange = Exchange { make: &large, ..http2(&origin, &body) };
        assert!(fetch(&pool, &exchange).await.is_err());
        assert_eq!(fetch(&pool, &http2(&origin, &body)).await.unwrap().headers, HeaderMap::new());
    })
    .await;
}
