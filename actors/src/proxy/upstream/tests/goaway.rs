//! What becomes of requests when a connection or a stream ends early.

use bytes::Bytes;
use http_body::Frame;

use super::fetch::*;
use super::raw::*;
use super::*;
use crate::proxy::body::LARGEST_KEPT;

async fn listen() -> (TcpListener, Arc<UpstreamOrigin>, Rc<UpstreamPool>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = origin(false, "127.0.0.1", listener.local_addr().unwrap().port());
    (listener, origin, UpstreamPool::new(Arc::new(settings(true))))
}

/// A POST that may be sent once only, unless it was not looked at.
fn once<'a>(origin: &'a Arc<UpstreamOrigin>, body: &'a BodySource) -> Exchange<'a> {
    let protocol = UpstreamProtocol::Http2;
    Exchange { protocol, idempotent: false, make: &post, ..exchange(origin, body) }
}

fn small() -> BodySource {
    body_of(vec![Frame::data(Bytes::from_static(b"small"))])
}

#[tokio::test]
async fn what_came_after_the_last_stream_of_goaway_is_sent_again_and_the_rest_is_answered() {
    local(async {
        let (listener, origin, pool) = listen().await;
        let (first, second, third) = (small(), small(), small());
        let exchanges = [once(&origin, &first), once(&origin, &second), once(&origin, &third)];
        let server = async {
            let mut old = Peer::accept(&listener).await;
            let streams = [old.request().await, old.request().await];
            old.go_away(streams[0], NO_ERROR).await;
            let mut new = Peer::accept(&listener).await;
            let again = new.request().await;
            new.answer(again).await;
            let third = new.request().await;
            new.answer(third).await;
            // The stream that was looked at goes on to its end.
            old.answer(streams[0]).await;
            (old, new)
        };
        let calls = async {
            let again = tokio::sync::Notify::new();
            let told = |n: usize| {
                let (exchange, pool, again) = (&exchanges[n], &pool, &again);
                async move {
                    let fetched = fetch(pool, exchange).await;
                    again.notify_one();
                    fetched
                }
            };
            // Once the one that was sent again is answered.
            let third = async {
                again.notified().await;
                fetch(&pool, &exchanges[2]).await
            };
            let (first, second, third) = tokio::join!(told(0), told(1), third);
            for fetched in [first, second, third] {
                assert_eq!(fetched.unwrap().body, b"ok");
            }
        };
        tokio::join!(server, calls);
        assert_eq!(pool.opened_connections(), 2);
    })
    .await;
}

#[tokio::test]
async fn a_refused_stream_is_tried_again_but_not_for_ever() {
    local(async {
        let (listener, origin, pool) = listen().await;
        let body = small();
        let exchange = once(&origin, &body);
        let server = async {
            let mut peer = Peer::accept(&listener).await;
            for _ in 0..2 {
                let stream = peer.request().await;
                peer.reset(stream, REFUSED_STREAM).await;
            }
            let stream = peer.request().await;
            peer.answer(stream).await;
            peer
        };
        let (mut peer, fetched) = tokio::join!(server, fetch(&pool, &exchange));
        assert_eq!(fetched.unwrap().body, b"ok");

        let body = small();
        let exchange = once(&origin, &body);
        let refused = Cell::new(0);
        let server = async {
            loop {
                let stream = peer.request().await;
                peer.reset(stream, REFUSED_STREAM).await;
                refused.set(refused.get() + 1);
            }
        };
        let error = tokio::select! {
            () = server => panic!("never ends"),
            fetched = fetch(&pool, &exchange) => fetched.unwrap_err(),
        };
        assert!(matches!(error, UpstreamError::Broken { .. }), "{error:?}");
        assert_eq!((refused.get(), pool.opened_connections()), (MOST_REFUSALS + 1, 1));
    })
    .await;
}

#[tokio::test]
async fn a_refused_stream_whose_body_is_gone_is_a_failure() {
    local(async {
        let (listener, origin, pool) = listen().await;
        let quarter = || Frame::data(Bytes::from(vec![0; usize::try_from(LARGEST_KEPT / 4).unwrap()]));
        let body = body_of((0..5).map(|_| quarter()).collect());
        let exchange = once(&origin, &body);
        let server = async {
            let mut peer = Peer::accept(&listener).await;
            let mut received = peer.receive().await.unwrap();
            while received.kind != HEADERS {
                received = peer.receive().await.unwrap();
            }
            // It is more than is kept, once the window is full of it.
            until(|| !body.is_replayable()).await;
            peer.reset(received.stream, REFUSED_STREAM).await;
            peer
        };
        let (_peer, fetched) = tokio::join!(server, fetch(&pool, &exchange));
        assert!(matches!(fetched, Err(UpstreamError::Broken { .. })), "{fetched:?}");
        assert_eq!(pool.opened_connections(), 1);
    })
    .await;
}

#[tokio::test]
async fn an_answer_that_is_reset_half_way_is_no_clean_end() {
    local(async {
        for reason in [NO_ERROR, INTERNAL_ERROR, CANCEL, REFUSED_STREAM] {
            let (listener, origin, pool) = listen().await;
            let body = small();
            let exchange = once(&origin, &body);
            let server = async {
                let mut peer = Peer::accept(&listener).await;
                let stream = peer.request().await;
                peer.head(stream).await;
                peer.send(DATA, 0, stream, b"half").await;
                peer.reset(stream, reason).await;
                peer
            };
            let (mut peer, response) = tokio::join!(server, pool.send(&exchange));
            let mut body = response.unwrap().body;
            assert_eq!(next(&mut body).await.unwrap().unwrap().into_data().unwrap(), "half", "{reason}");
            let end = next(&mut body).await;
            assert!(matches!(end, Some(Err(UpstreamError::Broken { .. }))), "{reason}: {end:?}");
            // The connection is as good as before.
            let again = small();
            let exchange = once(&origin, &again);
            let server = async {
                let stream = peer.request().await;
                peer.answer(stream).await;
            };
            assert_eq!(tokio::join!(fetch(&pool, &exchange), server).0.unwrap().body, b"ok");
            assert_eq!(pool.opened_connections(), 1);
        }
    })
    .await;
}

#[tokio::test]
async fn an_answer_that_ended_before_the_reset_of_its_request_is_whole() {
    local(async {
        let (listener, origin, pool) = listen().await;
        let limits = crate::proxy::body::BodyLimits { length: None, max: None, idle: Duration::from_secs(9) };
        let body = BodySource::streaming(Box::pin(futures_util::stream::pending()), limits);
        let exchange = once(&origin, &body);
        let server = async {
            let mut peer = Peer::accept(&listener).await;
            while peer.receive().await.unwrap().kind != HEADERS {}
            peer.answer(1).await;
            peer.reset(1, NO_ERROR).await;
            peer
        };
        let (_peer, fetched) = tokio::join!(server, fetch(&pool, &exchange));
        assert_eq!(fetched.unwrap().body, b"ok");
    })
    .await;
}

#[tokio::test]
async fn an_answer_whose_connection_dies_is_no_clean_end() {
    local(async {
        let (listener, origin, pool) = listen().await;
        let body = small();
        let exchange = once(&origin, &body);
        let server = async {
            let mut peer = Peer::accept(&listener).await;
            let stream = peer.request().await;
            peer.head(stream).await;
            peer.send(DATA, 0, stream, b"half").await;
        };
        let ((), fetched) = tokio::join!(server, fetch(&pool, &exchange));
        assert!(matches!(fetched, Err(UpstreamError::Broken { .. })), "{fetched:?}");
        until(|| pool.idle_connections() == 0).await;
    })
    .await;
}

#[tokio::test]
async fn a_request_that_may_have_been_seen_is_sent_again_if_it_is_idempotent() {
    local(async {
        for (idempotent, opened) in [(true, 2), (false, 1)] {
            let (listener, origin, pool) = listen().await;
            let warm = small();
            let body = small();
            let exchange = Exchange { idempotent, ..once(&origin, &body) };
            let server = async {
                let mut peer = Peer::accept(&listener).await;
                let stream = peer.request().await;
                peer.answer(stream).await;
                peer.request().await;
                drop(peer);
                if idempotent {
                    let mut peer = Peer::accept(&listener).await;
                    let stream = peer.request().await;
                    peer.answer(stream).await;
                }
            };
            let calls = async {
                assert!(fetch(&pool, &once(&origin, &warm)).await.is_ok());
                fetch(&pool, &exchange).await
            };
            let ((), fetched) = tokio::join!(server, calls);
            assert_eq!(fetched.is_ok(), idempotent, "{fetched:?}");
            assert_eq!(pool.opened_connections(), opened);
        }
    })
    .await;
}

#[tokio::test]
async fn a_request_whose_stream_is_reset_is_not_sent_again() {
    local(async {
        let (listener, origin, pool) = listen().await;
        let (warm, body) = (small(), small());
        let exchange = Exchange { idempotent: true, ..once(&origin, &body) };
        let server = async {
            let mut peer = Peer::accept(&listener).await;
            let stream = peer.request().await;
            peer.answer(stream).await;
            let stream = peer.request().await;
            peer.reset(stream, INTERNAL_ERROR).await;
            peer
        };
        let calls = async {
            assert!(fetch(&pool, &once(&origin, &warm)).await.is_ok());
            fetch(&pool, &exchange).await
        };
        let (_peer, fetched) = tokio::join!(server, calls);
        assert!(matches!(fetched, Err(UpstreamError::Broken { .. })), "{fetched:?}");
    })
    .await;
}

#[tokio::test]
async fn an_upstream_that_closed_while_idle_is_connected_to_anew() {
    local(async {
        let (listener, origin, pool) = listen().await;
        let (first, second) = (small(), small());
        let server = async {
            for _ in 0..2 {
                let mut peer = Peer::accept(&listener).await;
                let stream = peer.request().await;
                peer.answer(stream).await;
                peer.go_away(stream, NO_ERROR).await;
                while peer.receive().await.is_some() {}
            }
        };
        let calls = async {
            assert_eq!(fetch(&pool, &once(&origin, &first)).await.unwrap().body, b"ok");
            assert_eq!(fetch(&pool, &once(&origin, &second)).await.unwrap().body, b"ok");
        };
        tokio::join!(server, calls);
        assert_eq!(pool.opened_connections(), 2);
    })
    .await;
}

#[tokio::test]
async fn a_connection_that_answers_no_ping_is_given_up() {
    local(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = origin(false, "127.0.0.1", listener.local_addr().unwrap().port());
        let (ping_interval, ping_timeout) = (Duration::from_millis(50), Duration::from_millis(50));
        let attentive = UpstreamSettings { ping_interval, ping_timeout, ..settings(true) };
        let pool = UpstreamPool::new(Arc::new(attentive));
        let body = small();
        let exchange = Exchange { timeout: Duration::from_secs(60), ..once(&origin, &body) };
        let server = async {
            let mut peer = Peer::accept(&listener).await;
            peer.request().await;
            while peer.receive().await.is_some() {}
        };
        let ((), fetched) = tokio::join!(server, fetch(&pool, &exchange));
        assert!(matches!(fetched, Err(UpstreamError::Broken { .. })), "{fetched:?}");
    })
    .await;
}
