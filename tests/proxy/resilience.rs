//! Limits, retries, breakers, several upstreams and total time, said byte by byte.

use std::cell::Cell;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use claviger_actors::clock::{SystemClock, SystemEntropy};
use claviger_actors::connection::OriginSet;
use claviger_actors::proxy::circuit::CircuitPolicy;
use claviger_actors::proxy::endpoints::Endpoints;
use claviger_actors::proxy::in_flight::InFlightLimit;
use claviger_actors::proxy::rate_limit::{Rate, RateLimit};
use claviger_actors::proxy::retry_budget::{RetryBudget, RetryPolicy};
use claviger_actors::proxy::route::UpstreamOrigin;
use tokio::sync::Notify;
use tokio::time::sleep;

use crate::caller::{Caller, End, basic};
use crate::engine::{Gateway, Setup, connection, route};
use crate::upstream::{Line, Upstream};

fn rate(requests: u32, per: u64) -> Arc<RateLimit> {
    let requests = NonZeroU32::new(requests).unwrap();
    let rate = Rate { requests, per: Duration::from_secs(per), burst: requests };
    Arc::new(RateLimit::new(rate, Arc::new(SystemClock)))
}

/// `/v1` of each of these.
fn endpoints(addresses: &[SocketAddr], circuit: Option<CircuitPolicy>, honors: bool) -> Arc<Endpoints> {
    let list = addresses.iter().map(|address| (route("x", "/x", *address).origin, "/v1".to_owned()));
    Arc::new(Endpoints::new(list, circuit, honors, Arc::new(SystemClock), Arc::new(SystemEntropy)))
}

fn retries(retries: u32, percent: u32, per_second: u32) -> Arc<RetryBudget> {
    let policy = RetryPolicy { retries, percent, per_second };
    Arc::new(RetryBudget::new(policy, Arc::new(SystemClock)))
}

/// An address at which nobody listens.
fn nobody() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Closes every connection once it has read a request, for so many; then answers.
async fn closing(times: u32) -> Upstream {
    let left = Rc::new(Cell::new(times));
    Upstream::run(move |mut line| {
        let left = left.clone();
        async move {
            while line.head().await.is_some() {
                if left.get() > 0 {
                    left.set(left.get() - 1);
                    return;
                }
                line.ok("fine").await;
            }
        }
    })
    .await
}

/// Requests that an upstream has seen.
fn requests(upstream: &Upstream) -> usize {
    upstream.seen().matches(" HTTP/1.1\r\n").count()
}

async fn call(gateway: &Gateway, method: &str) -> crate::caller::Answer {
    Caller::connect(gateway.address).await.request(method, "/api/x", "").await
}

#[actix_web::test]
async fn a_route_lets_through_as_many_as_it_may_and_says_when_there_is_more() {
    let upstream = Upstream::echo().await;
    let gateway =
        Setup::to(upstream.address).route(|route| route.resilience.rate = Some(rate(5, 3600))).start().await;
    let mut caller = Caller::connect(gateway.address).await;
    for _ in 0..5 {
        assert_eq!(caller.get("/api/x").await.status, 200);
    }
    for _ in 0..3 {
        let answer = caller.get("/api/x").await;
        assert_eq!((answer.status, answer.code().as_str()), (429, "rate_limited"));
        let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
        assert!((710..=720).contains(&wait), "{wait}");
        assert_eq!(answer.header("ratelimit-policy"), Some("\"route\";q=5;w=3600"));
        assert_eq!(answer.header("ratelimit"), Some(format!("\"route\";r=0;t={wait}").as_str()));
    }
    assert_eq!(requests(&upstream), 5);
}

#[actix_web::test]
async fn a_caller_has_its_own_rate_over_all_routes() {
    let upstream = Upstream::echo().await;
    let mut setup = Setup::to(upstream.address).and(route("shared", "/shared", upstream.address));
    setup.rate = Some(rate(2, 60));
    let gateway = setup.start().await;
    let mut billing = Caller::connect(gateway.address).await;
    assert_eq!(billing.get("/api/x").await.status, 200);
    assert_eq!(billing.get("/api/x").await.status, 200);
    let answer = billing.get("/shared/x").await;
    assert_eq!((answer.status, answer.code().as_str()), (429, "rate_limited"));
    assert_eq!(answer.header("ratelimit-policy"), Some("\"caller\";q=2;w=60"));
    let mut crm = Caller::connect(gateway.address).await;
    crm.send(format!("GET /api/x HTTP/1.1\r\nHost: gw.test\r\n{}\r\n", basic("crm"))).await;
    assert_eq!(crm.answer().await.status, 200);
}

#[actix_web::test]
async fn a_dead_upstream_among_two_costs_no_call() {
    let alive = Upstream::echo().await;
    let both = endpoints(&[nobody(), alive.address], Some(CircuitPolicy::default()), false);
    let shared = both.clone();
    let gateway =
        Setup::to(alive.address).route(|route| route.resilience.endpoints = Some(shared)).start().await;
    for round in 0..40 {
        // Nothing was sent where nobody listens: any method may go to the other one.
        let method = if round % 2 == 0 { "GET" } else { "POST" };
        assert_eq!(call(&gateway, method).await.status, 200, "{method} {round}");
    }
    let states: Vec<_> = both.views().iter().map(|view| (view.state, view.in_flight)).collect();
    assert_eq!(states, [("open", 0), ("closed", 0)]);
    assert_eq!(requests(&alive), 40);
}

#[actix_web::test]
async fn an_idempotent_call_goes_on_to_the_other_upstream_and_no_other_is_sent_twice() {
    let (bad, good) = (closing(u32::MAX).await, Upstream::echo().await);
    let careless = CircuitPolicy { failures: 10_000, failure_percent: 100, ..CircuitPolicy::default() };
    let both = endpoints(&[bad.address, good.address], Some(careless), false);
    let gateway =
        Setup::to(good.address).route(|route| route.resilience.endpoints = Some(both)).start().await;
    for _ in 0..20 {
        assert_eq!(call(&gateway, "GET").await.status, 200);
    }
    assert!(requests(&bad) > 0 && requests(&good) == 20, "{} {}", requests(&bad), requests(&good));
    let before = requests(&bad) + requests(&good);
    let mut refused = 0;
    for _ in 0..20 {
        match call(&gateway, "POST").await.status {
            200 => {}
            status => {
                assert_eq!(status, 502);
                refused += 1;
            }
        }
    }
    assert!(refused > 0, "some went to the bad one");
    assert_eq!(requests(&bad) + requests(&good) - before, 20, "each was sent once");
}

#[actix_web::test]
async fn a_call_is_sent_again_as_often_as_its_route_says() {
    for (allowed, seen, status) in [(0, 1, 502), (1, 2, 200), (3, 2, 200)] {
        let upstream = closing(1).await;
        let gateway = Setup::to(upstream.address)
            .route(|route| route.resilience.retries = retries(allowed, 20, 10))
            .start()
            .await;
        assert_eq!(call(&gateway, "GET").await.status, status, "{allowed} retries");
        assert_eq!(requests(&upstream), seen);
    }
    let upstream = closing(u32::MAX).await;
    let gateway = Setup::to(upstream.address)
        .route(|route| route.resilience.retries = retries(3, 20, 10))
        .start()
        .await;
    let answer = call(&gateway, "GET").await;
    assert_eq!((answer.status, answer.code().as_str()), (502, "upstream_unreachable"));
    assert_eq!(requests(&upstream), 4, "once, and three times again");
    assert_eq!(call(&gateway, "POST").await.status, 502);
    assert_eq!(requests(&upstream), 5, "not again");
}

#[actix_web::test]
async fn a_pooled_connection_that_has_died_takes_one_of_the_retries() {
    // The first answer leaves a connection, which dies upon the second request, as do all others.
    let answered = Rc::new(Cell::new(false));
    let upstream = Upstream::run(move |mut line: Line| {
        let answered = answered.clone();
        async move {
            while line.head().await.is_some() {
                if answered.replace(true) {
                    return;
                }
                line.ok("fine").await;
            }
        }
    })
    .await;
    let gateway = Setup::to(upstream.address).start().await;
    assert_eq!(call(&gateway, "GET").await.status, 200);
    assert_eq!(call(&gateway, "GET").await.status, 502);
    assert_eq!(requests(&upstream), 1 + 2, "sent once, and once again");
}

#[actix_web::test]
async fn a_budget_that_is_spent_ends_all_retries() {
    let upstream = closing(u32::MAX).await;
    let gateway =
        Setup::to(upstream.address).route(|route| route.resilience.retries = retries(1, 10, 0)).start().await;
    for _ in 0..50 {
        assert_eq!(call(&gateway, "GET").await.status, 502);
    }
    assert_eq!(requests(&upstream), 55, "a tenth more");
}

#[actix_web::test]
async fn a_breaker_opens_probes_and_closes() {
    let upstream = closing(2).await;
    let policy = CircuitPolicy { failures: 2, open: Duration::from_millis(400), ..CircuitPolicy::default() };
    let one = endpoints(&[upstream.address], Some(policy), false);
    let shared = one.clone();
    let gateway =
        Setup::to(upstream.address).route(|route| route.resilience.endpoints = Some(shared)).start().await;
    for _ in 0..2 {
        assert_eq!(call(&gateway, "POST").await.status, 502);
    }
    assert_eq!(one.views()[0].state, "open");
    let answer = call(&gateway, "POST").await;
    assert_eq!((answer.status, answer.code().as_str()), (502, "upstream_unreachable"));
    assert_eq!(answer.header("retry-after"), Some("1"));
    assert_eq!(requests(&upstream), 2, "it was left alone");
    for _ in 0..500 {
        if one.views()[0].retry_in == Some(Duration::ZERO) {
            break;
        }
        sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(call(&gateway, "POST").await.status, 200, "any call probes if there is no other upstream");
    assert_eq!(one.views()[0].state, "closed");
    assert_eq!(call(&gateway, "POST").await.status, 200);
}

#[actix_web::test]
async fn what_an_upstream_answers_passes_even_if_it_opens_the_breaker() {
    let upstream =
        Upstream::always("HTTP/1.1 503 Busy\r\nRetry-After: 7\r\nContent-Length: 4\r\n\r\nbusy").await;
    let policy = CircuitPolicy { failures: 2, open: Duration::from_secs(60), ..CircuitPolicy::default() };
    let one = endpoints(&[upstream.address], Some(policy), false);
    let gateway =
        Setup::to(upstream.address).route(|route| route.resilience.endpoints = Some(one)).start().await;
    for _ in 0..2 {
        let answer = call(&gateway, "GET").await;
        assert_eq!((answer.status, answer.text()), (503, "busy"));
        assert_eq!(answer.header("retry-after"), Some("7"));
    }
    assert_eq!(call(&gateway, "GET").await.code(), "upstream_unreachable");
    assert_eq!(requests(&upstream), 2);
}

#[actix_web::test]
async fn an_upstreams_retry_after_is_heeded_where_that_is_wanted() {
    const ANSWER: &str = "HTTP/1.1 429 Slow Down\r\nRetry-After: 30\r\nContent-Length: 4\r\n\r\nslow";
    let upstream = Upstream::always(ANSWER).await;
    let one = endpoints(&[upstream.address], None, true);
    let gateway =
        Setup::to(upstream.address).route(|route| route.resilience.endpoints = Some(one)).start().await;
    let first = call(&gateway, "GET").await;
    assert_eq!((first.status, first.text(), first.header("retry-after")), (429, "slow", Some("30")));
    for _ in 0..3 {
        let answer = call(&gateway, "GET").await;
        assert_eq!((answer.status, answer.code().as_str()), (429, "rate_limited"));
        let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
        assert!((20..=30).contains(&wait), "{wait}");
    }
    assert_eq!(requests(&upstream), 1, "it was not troubled again");

    let upstream = Upstream::always(ANSWER).await;
    let gateway = Setup::to(upstream.address).start().await;
    for _ in 0..3 {
        assert_eq!(call(&gateway, "GET").await.text(), "slow");
    }
    assert_eq!(requests(&upstream), 3);
}

/// Answers once it may.
async fn waiting(go: &Arc<Notify>) -> Upstream {
    let go = go.clone();
    Upstream::run(move |mut line| {
        let go = go.clone();
        async move {
            while line.head().await.is_some() {
                line.say("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf").await;
                go.notified().await;
                line.say("half").await;
            }
        }
    })
    .await
}

/// Until the upstream has seen so many requests.
async fn until_seen(upstream: &Upstream, count: usize) {
    for _ in 0..500 {
        if requests(upstream) >= count {
            return;
        }
        sleep(Duration::from_millis(10)).await;
    }
    panic!("it has seen {} requests", requests(upstream));
}

async fn one_call_too_many(setup: Setup, upstream: Upstream, go: Arc<Notify>) {
    let gateway = setup.start().await;
    let mut under_way = Caller::connect(gateway.address).await;
    under_way.send(format!("GET /api/x HTTP/1.1\r\nHost: gw.test\r\n{}\r\n", basic("billing"))).await;
    until_seen(&upstream, 1).await;
    let shed = call(&gateway, "GET").await;
    assert_eq!((shed.status, shed.code().as_str()), (503, "overloaded"));
    assert_eq!(shed.header("retry-after"), Some("1"));
    go.notify_one();
    let answer = under_way.answer().await;
    assert_eq!((answer.status, answer.text(), answer.end), (200, "halfhalf", End::Clean));
    assert_eq!(requests(&upstream), 1, "what was shed never got there");
    go.notify_one();
    assert_eq!(call(&gateway, "GET").await.status, 200, "there is room again");
}

#[actix_web::test]
async fn overload_is_shed_while_what_is_under_way_ends_well() {
    let go = Arc::new(Notify::new());
    let upstream = waiting(&go).await;
    let mut setup = Setup::to(upstream.address);
    setup.limits.max_in_flight = 1;
    one_call_too_many(setup, upstream, go).await;
}

#[actix_web::test]
async fn a_route_may_have_a_limit_of_its_own_on_calls_at_once() {
    let go = Arc::new(Notify::new());
    let upstream = waiting(&go).await;
    let setup =
        Setup::to(upstream.address).route(|route| route.resilience.in_flight = Some(InFlightLimit::new(1)));
    one_call_too_many(setup, upstream, go).await;
}

#[actix_web::test]
async fn the_total_time_breaks_off_a_body_that_still_flows() {
    let upstream = Upstream::run(|mut line| async move {
        while line.head().await.is_some() {
            line.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
            for _ in 0..400 {
                line.say("2\r\nhi\r\n").await;
                sleep(Duration::from_millis(20)).await;
            }
            line.say("0\r\n\r\n").await;
        }
    })
    .await;
    let gateway = Setup::to(upstream.address)
        .route(|route| route.resilience.total_timeout = Some(Duration::from_millis(400)))
        .start()
        .await;
    let answer = call(&gateway, "GET").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.end, End::BrokenOff);
    assert!(answer.text().starts_with("hi"), "{:?}", answer.text());
}

#[actix_web::test]
async fn the_total_time_before_an_answer_is_a_504_and_counts_as_a_failure() {
    let upstream = Upstream::run(|mut line| async move {
        line.head().await;
        line.until_quiet(Duration::from_secs(10)).await;
    })
    .await;
    let one = endpoints(&[upstream.address], Some(CircuitPolicy::default()), false);
    let shared = one.clone();
    let gateway = Setup::to(upstream.address)
        .route(|route| {
            route.resilience.endpoints = Some(shared);
            route.resilience.total_timeout = Some(Duration::from_millis(200));
        })
        .start()
        .await;
    let answer = call(&gateway, "GET").await;
    assert_eq!((answer.status, answer.code().as_str()), (504, "upstream_timeout"));
    assert_eq!(requests(&upstream), 1, "there is no time to try again");
    assert_eq!(one.views()[0].failures, 1);
}

#[actix_web::test]
async fn a_route_has_its_own_time_to_connect() {
    // Takes the connection and never says anything of TLS.
    let upstream = Upstream::run(|mut line| async move {
        line.until_quiet(Duration::from_secs(10)).await;
    })
    .await;
    let gateway = Setup::to(upstream.address)
        .route(|route| {
            route.origin = Arc::new(UpstreamOrigin { tls: true, ..UpstreamOrigin::clone(&route.origin) });
            route.resilience.connect_timeout = Some(Duration::from_millis(150));
        })
        .start()
        .await;
    let answer = call(&gateway, "GET").await;
    assert_eq!((answer.status, answer.code().as_str()), (504, "upstream_timeout"));
    assert!(answer.text().contains("within 150ms"), "{}", answer.text());
    assert_eq!(upstream.connections(), 1, "nobody waits twice as long for the same upstream");
}

#[actix_web::test]
async fn a_head_beyond_the_limit_is_refused() {
    let upstream = Upstream::echo().await;
    let mut setup = Setup::to(upstream.address);
    setup.limits.max_request_head = 2048;
    let gateway = setup.start().await;
    let mut caller = Caller::connect(gateway.address).await;
    let fits = format!("X-Fits: {}\r\n", "a".repeat(1500));
    assert_eq!(caller.request("GET", "/api/x", &fits).await.status, 200);
    let large = format!("X-Large: {}\r\n", "a".repeat(2048));
    let answer = caller.request("GET", "/api/x", &large).await;
    assert_eq!((answer.status, answer.code().as_str()), (431, "bad_request"));
    assert_eq!(requests(&upstream), 1);
}

#[actix_web::test]
async fn a_token_goes_only_where_it_may_though_the_route_has_got_more_upstreams() {
    let (old, new) = (Upstream::echo().await, Upstream::echo().await);
    let both = endpoints(&[old.address, new.address], None, false);
    let gateway = Setup::to(old.address).route(|route| route.resilience.endpoints = Some(both)).start().await;
    let origins = |addresses: &[SocketAddr]| {
        OriginSet::new(addresses.iter().map(|address| format!("http://{address}")))
    };
    let narrow = connection("billing", "token-of-old", &origins(&[old.address]), 3600);
    let wide = connection("billing", "token-of-both", &origins(&[old.address, new.address]), 3600);
    gateway.engine.script.lock().tokens.extend([Ok(narrow.clone()), Ok(wide)]);
    // What is published does not fit both, nor does the first that is obtained.
    gateway.engine.publish(narrow);
    let answer = call(&gateway, "GET").await;
    assert_eq!(answer.status, 200);
    assert!(answer.text().contains("token-of-both"), "{}", answer.text());
    assert_eq!(gateway.engine.script.lock().asked.len(), 2);
    assert!(!format!("{}{}", old.seen(), new.seen()).contains("token-of-old"));
}
