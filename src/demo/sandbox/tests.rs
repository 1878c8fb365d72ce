#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use actix_web::dev::{Service, ServiceResponse};
use actix_web::http::header::LOCATION;
use actix_web::{App, Error, test as server};
use claviger_actors::clock::{Clock, SystemEntropy, Timestamp};
use claviger_actors::protocol::id_token::{IdTokenChecks, verify};
use claviger_actors::protocol::jwk::JwkSetView;
use claviger_actors::protocol::metadata::AuthorizationServerMetadata;
use claviger_actors::protocol::pkce::CodeVerifier;
use claviger_actors::protocol::secret::Secret;
use claviger_actors::protocol::token::AccessToken;
use claviger_actors::testing::ManualClock;
use serde_json::Value;
use url::{Url, form_urlencoded};

use super::keys::SigningKey;
use super::state::Client;
use super::*;

const ISSUER: &str = "http://127.0.0.1:8090";
const REDIRECT: &str = "http://127.0.0.1:8081/callback";
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
const START: Timestamp = Timestamp::from_secs(1_800_000_000);

fn sandbox() -> (Arc<Sandbox>, Arc<ManualClock>) {
    let clock = ManualClock::new(START);
    let clients = vec![
        Client { id: "app".into(), secret: Secret::new("s:e c+r%t"), redirect_uri: Some(REDIRECT.into()) },
        Client { id: "robot".into(), secret: Secret::new("r"), redirect_uri: None },
    ];
    let keys = SigningKey::generate().unwrap();
    let ticking: Arc<dyn Clock> = clock.clone();
    (Arc::new(Sandbox::new(ISSUER.into(), clients, keys, ticking, Arc::new(SystemEntropy))), clock)
}

fn encoded(pairs: &[(&str, &str)]) -> String {
    form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish()
}

/// A good authorization request with some parameters replaced; an empty value leaves one out.
fn request(changed: &[(&str, &str)]) -> String {
    let mut pairs = vec![
        ("response_type", "code"),
        ("client_id", "app"),
        ("redirect_uri", REDIRECT),
        ("scope", "openid calendar.read"),
        ("state", "s1"),
        ("nonce", "n1"),
        ("code_challenge", CHALLENGE),
        ("code_challenge_method", "S256"),
    ];
    for (name, value) in changed {
        pairs.retain(|(known, _)| known != name);
        if !value.is_empty() {
            pairs.push((name, value));
        }
    }
    format!("/authorize?{}", encoded(&pairs))
}

async fn get<S>(app: &S, path: &str) -> ServiceResponse
where
    S: Service<actix_http::Request, Response = ServiceResponse, Error = Error>,
{
    server::call_service(app, server::TestRequest::get().uri(path).to_request()).await
}

async fn post<S>(app: &S, path: &str, form: &[(&str, &str)]) -> ServiceResponse
where
    S: Service<actix_http::Request, Response = ServiceResponse, Error = Error>,
{
    let request = server::TestRequest::post()
        .uri(path)
        .insert_header(("content-type", "application/x-www-form-urlencoded"))
        .set_payload(encoded(form));
    server::call_service(app, request.to_request()).await
}

async fn json(response: ServiceResponse) -> (u16, Value) {
    (response.status().as_u16(), server::read_body_json(response).await)
}

/// Logs in and decides, and gives the answer that the redirection endpoint would get.
async fn decide<S>(app: &S, user: &str, decision: &str) -> Vec<(String, String)>
where
    S: Service<actix_http::Request, Response = ServiceResponse, Error = Error>,
{
    let page = get(app, &request(&[])).await;
    assert_eq!(page.status(), 200);
    let html = String::from_utf8(server::read_body(page).await.to_vec()).unwrap();
    assert!(html.contains("not for production"));
    let name = html.split("name=\"request\" value=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    let form = [("request", name.as_str()), ("user", user), ("decision", decision)];
    let answer = post(app, "/authorize", &form).await;
    assert_eq!(answer.status(), 303);
    let answer = location(&answer).unwrap();
    assert_eq!(post(app, "/authorize", &form).await.status(), 400, "a page decides once only");
    answer
}

fn location(response: &ServiceResponse) -> Option<Vec<(String, String)>> {
    let url = Url::parse(response.headers().get(LOCATION)?.to_str().unwrap()).unwrap();
    assert_eq!(url.as_str().split('?').next().unwrap(), REDIRECT);
    Some(url.query_pairs().into_owned().collect())
}

fn parameter<'a>(answer: &'a [(String, String)], name: &str) -> Option<&'a str> {
    answer.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

const CLIENT: [(&str, &str); 2] = [("client_id", "app"), ("client_secret", "s:e c+r%t")];

async fn redeem<S>(app: &S, code: &str, changed: &[(&str, &str)]) -> (u16, Value)
where
    S: Service<actix_http::Request, Response = ServiceResponse, Error = Error>,
{
    let mut form = vec![
        ("grant_type", "authorization_code"),
        ("code", code),
        ("redirect_uri", REDIRECT),
        ("code_verifier", VERIFIER),
    ];
    form.extend(CLIENT);
    for (name, value) in changed {
        form.retain(|(known, _)| known != name);
        form.push((name, value));
    }
    json(post(app, "/token", &form).await).await
}

async fn refresh<S>(app: &S, token: &str) -> (u16, Value)
where
    S: Service<actix_http::Request, Response = ServiceResponse, Error = Error>,
{
    let mut form = vec![("grant_type", "refresh_token"), ("refresh_token", token)];
    form.extend(CLIENT);
    json(post(app, "/token", &form).await).await
}

macro_rules! app {
    ($sandbox:expr) => {{
        let sandbox = Arc::clone(&$sandbox);
        server::init_service(App::new().configure(move |cfg| configure(cfg, sandbox))).await
    }};
}

#[actix_web::test]
async fn the_engine_accepts_its_metadata_keys_and_id_token() {
    let (sandbox, _) = sandbox();
    let app = app!(sandbox);
    for path in ["/.well-known/openid-configuration", "/.well-known/oauth-authorization-server"] {
        let body = server::read_body(get(&app, path).await).await;
        AuthorizationServerMetadata::parse(&body, ISSUER).unwrap();
    }
    let keys = JwkSetView::parse(&server::read_body(get(&app, "/jwks").await).await).unwrap();

    let answer = decide(&app, "alice", "allow").await;
    assert_eq!(parameter(&answer, "state"), Some("s1"));
    assert_eq!(parameter(&answer, "iss"), Some(ISSUER));
    let (status, tokens) = redeem(&app, parameter(&answer, "code").unwrap(), &[]).await;
    assert_eq!(status, 200, "{tokens}");
    assert_eq!(tokens["expires_in"], 60);
    let access = AccessToken::new(tokens["access_token"].as_str().unwrap()).unwrap();
    let nonce = Secret::new("n1");
    let checks = IdTokenChecks {
        issuer: ISSUER,
        client_id: "app",
        nonce: Some(&nonce),
        allowed_algs: &[keys::ALGORITHM.to_owned()],
        access_token: Some(&access),
        now: START,
    };
    let claims = verify(&Secret::new(tokens["id_token"].as_str().unwrap()), &keys, &checks).unwrap();
    assert_eq!(claims.identity().sub, "alice");
    assert_eq!(sandbox.introspect(access.expose()).unwrap().user, "alice");
}

#[actix_web::test]
async fn nobody_is_sent_to_an_address_that_is_not_registered() {
    let (sandbox, _) = sandbox();
    let app = app!(sandbox);
    for changed in [
        ("client_id", "stranger"),
        ("client_id", "robot"),
        ("client_id", ""),
        ("redirect_uri", "http://127.0.0.1:8081/callback/"),
        ("redirect_uri", "http://127.0.0.1:8081/callback?x=1"),
        ("redirect_uri", "https://evil.example/"),
        ("redirect_uri", ""),
    ] {
        let refused = get(&app, &request(&[changed])).await;
        assert_eq!(refused.status(), 400, "{changed:?}");
        assert!(refused.headers().get(LOCATION).is_none());
    }
    let twice = format!("{}&state=s2", request(&[]));
    assert_eq!(get(&app, &twice).await.status(), 400);
}

#[actix_web::test]
async fn other_faults_go_back_to_the_client_with_state_and_issuer() {
    let (sandbox, _) = sandbox();
    let app = app!(sandbox);
    for (changed, error) in [
        (("response_type", "token"), "unsupported_response_type"),
        (("code_challenge", ""), "invalid_request"),
        (("code_challenge", "short"), "invalid_request"),
        (("code_challenge_method", "plain"), "invalid_request"),
        (("code_challenge_method", ""), "invalid_request"),
        (("scope", "openid everything"), "invalid_scope"),
    ] {
        let answer = location(&get(&app, &request(&[changed])).await).unwrap();
        assert_eq!(parameter(&answer, "error"), Some(error), "{changed:?}");
        assert_eq!(parameter(&answer, "state"), Some("s1"));
        assert_eq!(parameter(&answer, "iss"), Some(ISSUER));
    }
    let denied = decide(&app, "alice", "deny").await;
    assert_eq!(parameter(&denied, "error"), Some("access_denied"));
    assert_eq!(parameter(&decide(&app, "mallory", "allow").await, "error"), Some("access_denied"));
}

#[actix_web::test]
async fn a_code_is_bound_used_once_and_its_reuse_revokes() {
    let (sandbox, clock) = sandbox();
    let app = app!(sandbox);
    let answer = decide(&app, "bob", "allow").await;
    let code = parameter(&answer, "code").unwrap();
    for changed in
        [("code_verifier", "wrong"), ("redirect_uri", "http://127.0.0.1:8081/callback/"), ("code", "unknown")]
    {
        let (status, body) = redeem(&app, code, &[changed]).await;
        assert_eq!((status, body["error"].as_str()), (400, Some("invalid_grant")), "{changed:?}");
    }
    let other = [("client_id", "robot"), ("client_secret", "r")];
    assert_eq!(redeem(&app, code, &other).await.1["error"], "invalid_grant");

    let (status, tokens) = redeem(&app, code, &[]).await;
    assert_eq!(status, 200);
    let access = tokens["access_token"].as_str().unwrap();
    assert!(sandbox.introspect(access).is_some());
    assert_eq!(redeem(&app, code, &[]).await.1["error"], "invalid_grant");
    assert!(sandbox.introspect(access).is_none(), "the code leaked: nothing that came of it may live");

    let late = decide(&app, "bob", "allow").await;
    clock.advance(Duration::from_secs(61));
    assert_eq!(redeem(&app, parameter(&late, "code").unwrap(), &[]).await.0, 400);
}

#[actix_web::test]
async fn refresh_tokens_rotate_and_reuse_ends_the_grant() {
    let (sandbox, clock) = sandbox();
    let app = app!(sandbox);
    let answer = decide(&app, "alice", "allow").await;
    let (_, first) = redeem(&app, parameter(&answer, "code").unwrap(), &[]).await;
    let token = |tokens: &Value, name: &str| tokens[name].as_str().unwrap().to_owned();

    clock.advance(Duration::from_secs(60));
    assert!(sandbox.introspect(&token(&first, "access_token")).is_none(), "access tokens last a minute");
    let (status, second) = refresh(&app, &token(&first, "refresh_token")).await;
    assert_eq!(status, 200);
    assert_ne!(token(&first, "refresh_token"), token(&second, "refresh_token"));
    assert!(sandbox.introspect(&token(&second, "access_token")).is_some());

    let (status, body) = refresh(&app, &token(&first, "refresh_token")).await;
    assert_eq!((status, body["error"].as_str()), (400, Some("invalid_grant")));
    assert!(sandbox.introspect(&token(&second, "access_token")).is_none());
    assert_eq!(refresh(&app, &token(&second, "refresh_token")).await.0, 400);
}

#[actix_web::test]
async fn a_client_proves_itself_in_one_way() {
    let (sandbox, _) = sandbox();
    let app = app!(sandbox);
    let send = |header: Option<&str>, form: &[(&str, &str)]| {
        let mut request = server::TestRequest::post()
            .uri("/token")
            .set_payload(format!("grant_type=client_credentials&{}", encoded(form)));
        if let Some(header) = header {
            request = request.insert_header(("authorization", header.to_owned()));
        }
        request.to_request()
    };
    let basic = |text: &str| {
        use base64::Engine as _;
        format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(text))
    };
    // RFC 6749 section 2.3.1: form-encoded, then joined.
    let right = basic("app:s%3Ae+c%2Br%25t");
    let call = async |header: Option<&str>, form: &[(&str, &str)]| {
        json(server::call_service(&app, send(header, form)).await).await
    };
    let (status, tokens) = call(Some(&right), &[("scope", "calendar.read")]).await;
    assert_eq!((status, tokens["scope"].as_str()), (200, Some("calendar.read")));
    assert_eq!(tokens.get("refresh_token"), None);
    assert_eq!(call(None, &CLIENT).await.0, 200);
    assert_eq!(call(Some(&right), &CLIENT).await.1["error"], "invalid_request");
    assert_eq!(call(Some(&right), &[("scope", "all")]).await.1["error"], "invalid_scope");
    for header in [None, Some("Bearer x"), Some("Basic !"), Some(basic("app:s:e c+r%t").as_str())] {
        let (status, body) = call(header, &[]).await;
        assert_eq!((status, body["error"].as_str()), (401, Some("invalid_client")), "{header:?}");
    }
}

#[actix_web::test]
async fn revoking_either_token_ends_both_and_needs_the_right_client() {
    let (sandbox, _) = sandbox();
    let app = app!(sandbox);
    for which in ["access_token", "refresh_token"] {
        let answer = decide(&app, "alice", "allow").await;
        let (_, tokens) = redeem(&app, parameter(&answer, "code").unwrap(), &[]).await;
        let token = tokens[which].as_str().unwrap();
        let access = tokens["access_token"].as_str().unwrap();
        let robot = [("client_id", "robot"), ("client_secret", "r"), ("token", token)];
        assert_eq!(post(&app, "/revoke", &robot).await.status(), 200);
        assert!(sandbox.introspect(access).is_some(), "another client's token is not its to revoke");
        let mut own = CLIENT.to_vec();
        own.push(("token", token));
        assert_eq!(post(&app, "/revoke", &own).await.status(), 200);
        assert!(sandbox.introspect(access).is_none());
        assert_eq!(refresh(&app, tokens["refresh_token"].as_str().unwrap()).await.0, 400);
    }
    assert_eq!(post(&app, "/revoke", &[("token", "x")]).await.status(), 401);
}

#[test]
fn the_challenge_in_these_tests_is_the_verifiers() {
    assert_eq!(CodeVerifier::from_secret(Secret::new(VERIFIER)).challenge(), CHALLENGE);
}
