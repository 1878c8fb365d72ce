#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::sync::Arc;

use actix_web::body::MessageBody;
use actix_web::dev::{Service, ServiceResponse};
use actix_web::http::Method;
use actix_web::{App, Error, test as server};
use arc_swap::ArcSwap;
use claviger_actors::clock::Timestamp;
use serde_json::{Value, json};

use super::*;
use crate::caller_auth::CallerDirectory;
use crate::caller_auth::jwt::tests::no_transport;
use crate::counts::CallCounts;
use crate::listeners::test_support::{ACCESS_TOKEN, REFRESH_TOKEN, gateway};

const HOST: &str = "127.0.0.1:8082";

pub(super) async fn state() -> AdminState {
    AdminState {
        gateway: gateway().await.0,
        public_url: Url::parse("http://127.0.0.1:8081").unwrap(),
        token: None,
        certificates: false,
        metrics: metrics::Sources {
            calls: CallCounts::default(),
            listeners: BTreeMap::new(),
            callers: Arc::new(ArcSwap::from_pointee(CallerDirectory::new([], &no_transport()))),
        },
        bind: HOST.parse().unwrap(),
        configuration: ConfigurationStatus::new(Timestamp::from_secs(1_700_000_000)),
    }
}

macro_rules! app {
    ($state:expr) => {{
        let state = $state;
        server::init_service(App::new().configure(move |cfg| configure(cfg, state))).await
    }};
}

/// Sends a request and gives status and JSON; no answer may hold a token.
async fn call<S, B>(app: &S, method: Method, path: &str, body: Option<Value>) -> (u16, Value)
where
    S: Service<actix_http::Request, Response = ServiceResponse<B>, Error = Error>,
    B: MessageBody,
{
    let mut request = server::TestRequest::with_uri(path).method(method).insert_header(("host", HOST));
    if let Some(body) = body {
        request = request.set_json(body);
    }
    let response = server::call_service(app, request.to_request()).await;
    let status = response.status().as_u16();
    assert_eq!(response.headers().get("cache-control").unwrap(), "no-store", "{path}");
    let bytes = server::read_body(response).await;
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    for secret in [ACCESS_TOKEN, REFRESH_TOKEN, "client-secret", "imported-s3cret"] {
        assert!(!text.contains(secret), "{path} gives away {secret}");
    }
    (status, if text.is_empty() { Value::Null } else { serde_json::from_str(&text).unwrap() })
}

fn tokens() -> Value {
    json!({ "access_token": "imported-s3cret", "expires_in": 3600, "refresh_token": "imported-s3cret-r" })
}

#[actix_web::test]
async fn health_needs_no_token_and_everything_else_does() {
    let mut state = state().await;
    state.token = Some(Secret::new("right"));
    let app = app!(state);
    assert_eq!(call(&app, Method::GET, "/healthz", None).await.0, 200);
    let (status, ready) = call(&app, Method::GET, "/readyz", None).await;
    assert_eq!((status, &ready["ready"]), (200, &json!(true)), "{ready}");
    for path in ["/debug/actors", "/api/profiles", "/api/routes", "/api/connections", "/api/nothing", "/"] {
        let (status, problem) = call(&app, Method::GET, path, None).await;
        assert_eq!((status, &problem["code"]), (401, &json!("admin_unauthenticated")), "{path}");
    }
}

#[actix_web::test]
async fn what_is_configured_and_what_runs_is_shown() {
    let app = app!(state().await);
    let (_, profiles) = call(&app, Method::GET, "/api/profiles", None).await;
    assert_eq!(profiles["profiles"][0]["name"], "calendar");
    assert_eq!(profiles["profiles"][0]["grant"], "authorization_code");
    assert_eq!(profiles["profiles"][1]["needs_person"], false);
    let (status, actors) = call(&app, Method::GET, "/debug/actors", None).await;
    assert_eq!(status, 200);
    let kinds: Vec<_> = actors["actors"].as_array().unwrap().iter().map(|row| row["kind"].clone()).collect();
    assert!(kinds.contains(&json!("provider")) && kinds.contains(&json!("token_store")), "{actors}");
    assert_eq!(call(&app, Method::GET, "/api/nothing", None).await.1["code"], "not_found");
    let (status, problem) = call(&app, Method::POST, "/api/profiles", None).await;
    assert_eq!((status, &problem["code"]), (405, &json!("method_not_allowed")));
}

#[actix_web::test]
async fn a_connection_is_imported_shown_refreshed_and_deleted() {
    let app = app!(state().await);
    let path = "/api/connections/calendar/a%2Fb";
    assert_eq!(call(&app, Method::GET, path, None).await.0, 404);
    assert_eq!(call(&app, Method::DELETE, path, None).await.0, 404);
    let (status, view) = call(&app, Method::PUT, path, Some(tokens())).await;
    assert_eq!((status, &view["subject"], &view["state"]), (200, &json!("a/b"), &json!("active")), "{view}");
    let (status, shown) = call(&app, Method::GET, path, None).await;
    assert_eq!((status, &shown), (200, &view));
    let (status, refreshed) = call(&app, Method::POST, &format!("{path}/refresh"), None).await;
    assert_eq!(status, 200, "{refreshed}");
    assert_ne!(refreshed["access_token_fingerprint"], view["access_token_fingerprint"]);
    assert_eq!(call(&app, Method::DELETE, path, None).await, (204, Value::Null));
    assert_eq!(call(&app, Method::GET, path, None).await.0, 404);
}

#[actix_web::test]
async fn a_connection_that_needs_its_person_is_a_conflict() {
    let app = app!(state().await);
    let path = "/api/connections/calendar/alice";
    let tokens = json!({ "access_token": "imported-s3cret", "expires_in": 3600 });
    assert_eq!(call(&app, Method::PUT, path, Some(tokens)).await.0, 200);
    let refresh = format!("{path}/refresh");
    let (status, problem) = call(&app, Method::POST, &refresh, None).await;
    assert_eq!((status, &problem["code"]), (409, &json!("authorization_required")));
    assert_eq!(call(&app, Method::DELETE, path, None).await.0, 204);
    let (status, problem) = call(&app, Method::POST, &refresh, None).await;
    assert_eq!((status, &problem["code"]), (404, &json!("not_found")));
}

#[actix_web::test]
async fn lists_come_in_pages() {
    let app = app!(state().await);
    for subject in ["alice", "bob", "carol"] {
        let path = format!("/api/connections/calendar/{subject}");
        assert_eq!(call(&app, Method::PUT, &path, Some(tokens())).await.0, 200);
    }
    let mut subjects = Vec::new();
    let mut path = "/api/connections?limit=2".to_owned();
    loop {
        let (status, page) = call(&app, Method::GET, &path, None).await;
        assert_eq!(status, 200, "{page}");
        let page_subjects =
            page["connections"].as_array().unwrap().iter().map(|view| view["subject"].clone());
        subjects.extend(page_subjects);
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        path = format!("/api/connections?limit=2&cursor={cursor}");
    }
    assert_eq!(subjects, ["alice", "bob", "carol"]);
    let (_, one) = call(&app, Method::GET, "/api/connections?profile=calendar&subject=bob", None).await;
    assert_eq!((one["connections"].as_array().unwrap().len(), &one["next_cursor"]), (1, &Value::Null));
    assert_eq!(call(&app, Method::GET, "/api/connections?cursor=x", None).await.0, 400);
}

#[actix_web::test]
async fn unknown_profiles_and_bad_bodies_are_told_apart() {
    let app = app!(state().await);
    for (method, path) in [
        (Method::GET, "/api/connections/nothing/alice"),
        (Method::DELETE, "/api/connections/nothing/alice"),
        (Method::POST, "/api/connections/nothing/alice/refresh"),
    ] {
        assert_eq!(call(&app, method, path, None).await.0, 404);
    }
    assert_eq!(call(&app, Method::PUT, "/api/connections/nothing/alice", Some(tokens())).await.0, 404);
    let session = |profile: &str, return_to: Option<&str>| {
        Some(json!({ "profile": profile, "subject": "alice", "return_to": return_to }))
    };
    let path = "/api/connect-sessions";
    assert_eq!(call(&app, Method::POST, path, session("nothing", None)).await.0, 404);
    assert_eq!(call(&app, Method::POST, path, session("calendar", Some("//evil.example"))).await.0, 400);
    assert_eq!(call(&app, Method::POST, path, session("robot", None)).await.0, 400);
    let (status, link) = call(&app, Method::POST, path, session("calendar", None)).await;
    assert_eq!(status, 200);
    assert!(link["url"].as_str().unwrap().starts_with("http://127.0.0.1:8081/connect/"), "{link}");
    assert!(link["expires_in"].as_u64().unwrap() > 0);
}

#[actix_web::test]
async fn a_body_over_64_kib_is_refused() {
    let app = app!(state().await);
    let body = json!({ "access_token": "x".repeat(json::MAX_BODY) });
    let (status, problem) = call(&app, Method::PUT, "/api/connections/calendar/alice", Some(body)).await;
    assert_eq!((status, &problem["code"]), (413, &json!("body_too_large")));
}
