#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::{App, HttpResponse, test as server};

use super::*;

const NO_TOKEN: &str = "127.0.0.1:8082";

fn rules(bind: &str, token: Option<&str>) -> GuardRules {
    GuardRules { token: token.map(Secret::new), certificates: false, bind: bind.parse().unwrap() }
}

fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in pairs {
        map.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap());
    }
    map
}

fn get(rules: &GuardRules, pairs: &[(&str, &str)]) -> Result<(), Refusal> {
    rules.check(&Method::GET, None, &headers(pairs), Channel::default())
}

#[test]
fn loopback_without_token_answers_to_loopback_names_on_its_own_port() {
    let rules = rules(NO_TOKEN, None);
    for host in ["127.0.0.1:8082", "localhost:8082", "LOCALHOST:8082", "[::1]:8082", "127.0.0.2:8082"] {
        assert_eq!(get(&rules, &[("host", host)]), Ok(()), "{host}");
    }
    for host in [
        "evil.example",
        "evil.example:8082",
        "localhost.evil.example:8082",
        "127.0.0.1.evil.example:8082",
        "127.0.0.1:80",
        "127.0.0.1:8081",
        "localhost:80820",
        "a@127.0.0.1:8082",
        "0.0.0.0:8082",
        "2130706433:8082",
        "",
        "127.0.0.1:8082/x",
    ] {
        assert_eq!(get(&rules, &[("host", host)]), Err(Refusal::Host), "{host}");
    }
    assert_eq!(get(&rules, &[]), Err(Refusal::Host));
    assert_eq!(get(&rules, &[("host", "127.0.0.1:8082"), ("host", "evil.example")]), Err(Refusal::Host));
}

#[test]
fn a_loopback_name_without_port_is_what_careless_programs_send() {
    for host in ["localhost", "127.0.0.1", "[::1]"] {
        assert_eq!(get(&rules(NO_TOKEN, None), &[("host", host)]), Ok(()), "{host}");
    }
    for host in ["evil.example", "0.0.0.0", "localhost.evil.example"] {
        assert_eq!(get(&rules(NO_TOKEN, None), &[("host", host)]), Err(Refusal::Host), "{host}");
    }
}

#[test]
fn an_absolute_target_must_agree_with_the_host() {
    let rules = rules(NO_TOKEN, None);
    let map = headers(&[("host", "127.0.0.1:8082")]);
    assert_eq!(rules.check(&Method::GET, Some("127.0.0.1:8082"), &map, Channel::default()), Ok(()));
    assert_eq!(rules.check(&Method::GET, Some("evil.example"), &map, Channel::default()), Err(Refusal::Host));
}

#[test]
fn a_token_is_needed_when_configured_and_host_names_are_then_free() {
    let rules = rules("0.0.0.0:8082", Some("right"));
    let with = |value| get(&rules, &[("host", "claviger.internal"), ("authorization", value)]);
    assert_eq!(with("Bearer right"), Ok(()));
    assert_eq!(with("bearer  right"), Ok(()));
    for value in ["Bearer wrong", "Bearer right2", "Bearer righ", "Bearer", "Basic right", "right", "Bearer "]
    {
        assert_eq!(with(value), Err(Refusal::Token), "{value}");
    }
    assert_eq!(get(&rules, &[("host", "claviger.internal")]), Err(Refusal::Token));
    let twice = [("host", "h"), ("authorization", "Bearer right"), ("authorization", "Bearer wrong")];
    assert_eq!(get(&rules, &twice), Err(Refusal::Token));
}

#[test]
fn without_a_token_nothing_but_loopback_is_served() {
    let rules = rules("0.0.0.0:8082", None);
    assert_eq!(get(&rules, &[("host", "127.0.0.1:8082")]), Err(Refusal::Token));
}

#[test]
fn pages_of_other_origins_are_refused_even_with_the_token() {
    for (bind, token) in [(NO_TOKEN, None), ("0.0.0.0:8082", Some("right"))] {
        let rules = rules(bind, token);
        let with = |name, value| {
            get(&rules, &[("host", "127.0.0.1:8082"), ("authorization", "Bearer right"), (name, value)])
        };
        assert_eq!(with("origin", "http://127.0.0.1:8082"), Ok(()));
        assert_eq!(with("sec-fetch-site", "same-origin"), Ok(()));
        assert_eq!(with("sec-fetch-site", "none"), Ok(()));
        for origin in [
            "http://evil.example",
            "https://127.0.0.1:8082",
            "http://127.0.0.1:3000",
            "http://127.0.0.1",
            "http://localhost:8082",
            "null",
            "",
        ] {
            assert_eq!(with("origin", origin), Err(Refusal::Origin), "{origin}");
        }
        for site in ["cross-site", "same-site", "Same-Origin", ""] {
            assert_eq!(with("sec-fetch-site", site), Err(Refusal::Origin), "{site}");
        }
    }
}

#[test]
fn bodies_are_json_or_refused() {
    let rules = rules(NO_TOKEN, None);
    let send = |method: Method, pairs: &[(&str, &str)]| {
        let mut all = vec![("host", "127.0.0.1:8082")];
        all.extend_from_slice(pairs);
        rules.check(&method, None, &headers(&all), Channel::default())
    };
    assert_eq!(send(Method::POST, &[]), Ok(()));
    assert_eq!(send(Method::POST, &[("content-length", "0")]), Ok(()));
    let json = ("content-type", "Application/JSON; charset=utf-8");
    assert_eq!(send(Method::PUT, &[("content-length", "2"), json]), Ok(()));
    for content_type in ["text/plain", "application/x-www-form-urlencoded", "application/json-seq", ""] {
        let pairs = [("content-length", "2"), ("content-type", content_type)];
        assert_eq!(send(Method::POST, &pairs), Err(Refusal::ContentType), "{content_type}");
    }
    assert_eq!(send(Method::PUT, &[("transfer-encoding", "chunked")]), Err(Refusal::ContentType));
    assert_eq!(send(Method::DELETE, &[("content-length", "1")]), Err(Refusal::ContentType));
}

#[actix_web::test]
async fn refusals_are_problems_and_never_reach_the_handler() {
    let app = server::init_service(
        App::new().app_data(web::Data::new(rules("0.0.0.0:8082", Some("right")))).service(
            web::scope("/api")
                .wrap(actix_web::middleware::from_fn(guard))
                .route("/x", web::get().to(|| async { HttpResponse::Ok().body("reached") })),
        ),
    )
    .await;
    let request = || server::TestRequest::get().uri("/api/x").insert_header(("host", "h"));

    let refused = server::call_service(&app, request().to_request()).await;
    assert_eq!(refused.status(), 401);
    assert!(refused.headers().get("www-authenticate").unwrap().to_str().unwrap().starts_with("Bearer"));
    let body: serde_json::Value = server::read_body_json(refused).await;
    assert_eq!(body["code"], "admin_unauthenticated");
    assert!(!body["request_id"].as_str().unwrap().is_empty());

    let foreign = request().insert_header(("origin", "http://evil.example")).to_request();
    assert_eq!(server::call_service(&app, foreign).await.status(), 403);

    let allowed = request().insert_header(("authorization", "Bearer right")).to_request();
    assert_eq!(server::read_body(server::call_service(&app, allowed).await).await, "reached");
}

#[test]
fn a_certificate_does_instead_of_the_token() {
    const PEER: (&str, &str) = ("host", "gw.internal:8082");
    let asked = |token: Option<&str>, certificates, channel, pairs: &[(&str, &str)]| {
        let rules = GuardRules { certificates, ..rules("0.0.0.0:8082", token) };
        rules.check(&Method::GET, None, &headers(pairs), channel)
    };
    let shown = Channel { https: true, certified: true };
    let bare = Channel { https: true, certified: false };
    assert_eq!(asked(None, true, shown, &[PEER]), Ok(()));
    assert_eq!(asked(None, true, bare, &[PEER]), Err(Refusal::Certificate));
    assert_eq!(asked(Some("T"), true, shown, &[PEER]), Ok(()));
    assert_eq!(asked(Some("T"), true, bare, &[PEER]), Err(Refusal::Token));
    assert_eq!(asked(Some("T"), true, bare, &[PEER, ("authorization", "Bearer T")]), Ok(()));
    assert_eq!(asked(Some("T"), false, shown, &[PEER]), Err(Refusal::Token), "nobody vouches for it");
}

#[test]
fn the_origin_of_our_own_pages_is_https_over_tls() {
    let rules = rules(NO_TOKEN, None);
    let origin = |origin, https| {
        let pairs = [("host", "127.0.0.1:8082"), ("origin", origin)];
        rules.check(&Method::GET, None, &headers(&pairs), Channel { https, certified: false })
    };
    assert_eq!(origin("https://127.0.0.1:8082", true), Ok(()));
    assert_eq!(origin("http://127.0.0.1:8082", true), Err(Refusal::Origin));
    assert_eq!(origin("https://127.0.0.1:8082", false), Err(Refusal::Origin));
    assert_eq!(origin("http://127.0.0.1:8082", false), Ok(()));
}
