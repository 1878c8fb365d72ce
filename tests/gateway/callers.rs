//! Who calls: API keys and JWTs, the subjects of JWTs, and the exchange of a caller's JWT (RFC 8693).

use aws_lc_rs::{digest, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use claviger_actors::clock::{Clock as _, SystemClock};
use serde_json::{Value, json};

use crate::support::caller_issuer::{CallerIssuer, unsigned};
use crate::support::gateway::Gateway;
use crate::support::http::{self, Response};
use crate::support::scene::{Scene, ScriptedScene};
use crate::support::scripted_as::Answer;

const KEY: &str = "planted-api-key-of-billing";
const ISSUER: &str = "https://callers.example";

fn sha256(text: &str) -> Vec<u8> {
    digest::digest(&digest::SHA256, text.as_bytes()).as_ref().to_vec()
}

async fn with_token(gateway: &Gateway, token: &str) -> Response {
    http::get(&gateway.proxy_url("/calendar/events")).bearer(token).send().await
}

/// The machine's scene, where `billing` has `jwt` of `issuer` instead of a password.
fn by_jwt(scene: &mut ScriptedScene, issuer: &CallerIssuer) {
    let body = format!("{}\nroutes = [\"calendar\"]", issuer.caller_toml("claviger", ""));
    scene.config.section("callers.billing", &body);
}

#[tokio::test]
async fn an_api_key_lets_its_caller_in_and_goes_no_further() {
    let mut scene = ScriptedScene::machine().await;
    let hexadecimal: String = sha256(KEY).iter().map(|byte| format!("{byte:02x}")).collect();
    let in_base64 = STANDARD.encode(sha256("planted-api-key-of-crm"));
    scene.config.extend("callers.billing", &format!("api_key_hash = \"sha256:{hexadecimal}\""));
    let crm = format!("api_key_hash = \"sha256:{in_base64}\"\nroutes = [\"calendar\"]");
    scene.config.section("callers.crm", &crm);
    let gateway = scene.config.start().await;
    let call = |key: &str| http::get(&gateway.proxy_url("/calendar/events")).header("X-Api-Key", key).send();

    let echo = call(KEY).await.expect_status(200);
    assert!(!echo.text().contains(KEY), "it went upstream: {}", echo.text());
    assert_eq!(gateway.connection("calendar", "billing").await["state"], "active");
    call("planted-api-key-of-crm").await.expect_status(200);
    assert_eq!(gateway.connection("calendar", "crm").await["state"], "active");

    for wrong in ["planted-api-key-of-billinG", "", &hexadecimal] {
        let refused = call(wrong).await;
        assert_eq!(
            refused.headers.all("WWW-Authenticate").collect::<Vec<_>>(),
            ["Basic realm=\"claviger\", charset=\"UTF-8\""]
        );
        refused.expect_problem(401, "caller_unauthenticated");
    }
    let both = gateway.request("GET", "/calendar/events").header("X-Api-Key", "planted-api-key-of-crm");
    both.send().await.expect_problem(400, "bad_request");
    assert_eq!(scene.upstream.calls(), 2);
    gateway.assert_no_secret_in_log(&[KEY.to_owned(), "planted-api-key-of-crm".to_owned()]);
}

#[tokio::test]
async fn a_jwt_lets_its_caller_in_and_nothing_that_is_wrong_with_it_does() {
    let issuer = CallerIssuer::start(ISSUER).await;
    let mut scene = ScriptedScene::machine().await;
    by_jwt(&mut scene, &issuer);
    scene.config.caller("crm", r#"["calendar"]"#);
    let gateway = scene.config.start().await;

    let good = issuer.token("alice", &json!({ "aud": ["other", "claviger"] }));
    for _ in 0..3 {
        let echo = with_token(&gateway, &good).await.expect_status(200);
        assert!(!echo.text().contains(&good), "it went upstream");
    }
    assert_eq!(issuer.fetched(), 1, "keys are kept");
    assert_eq!(gateway.connection("calendar", "billing").await["state"], "active");

    let now = SystemClock.now().as_secs();
    let claims = json!({ "iss": ISSUER, "aud": "claviger", "sub": "alice", "exp": now + 300 });
    let hs256 = unsigned(&json!({ "alg": "HS256", "kid": "1" }), &claims);
    let public = issuer.key_set()["keys"][0]["x"].as_str().unwrap().to_owned();
    let shared = hmac::Key::new(hmac::HMAC_SHA256, &URL_SAFE_NO_PAD.decode(public).unwrap());
    let tag = URL_SAFE_NO_PAD.encode(hmac::sign(&shared, hs256.as_bytes()));
    let stranger = CallerIssuer::start(ISSUER).await;
    let forged = [
        issuer.token("alice", &json!({ "aud": "somebody-else" })),
        issuer.token("alice", &json!({ "iss": "https://callers.example/" })),
        issuer.token("alice", &json!({ "exp": now - 61 })),
        issuer.token("alice", &json!({ "exp": null })),
        issuer.token("alice", &json!({ "nbf": now + 200 })),
        format!("{}.", unsigned(&json!({ "alg": "none" }), &claims)),
        format!("{hs256}.{tag}"),
        stranger.token("alice", &json!({})),
        good[..good.len() - 8].to_owned(),
        "x".repeat(17_000),
    ];
    let calls = scene.upstream.calls();
    for token in &forged {
        let refused = with_token(&gateway, token).await;
        assert_eq!(
            refused.headers.all("WWW-Authenticate").collect::<Vec<_>>(),
            ["Basic realm=\"claviger\", charset=\"UTF-8\"", "Bearer realm=\"claviger\"",]
        );
        refused.expect_problem(401, "caller_unauthenticated");
    }
    assert_eq!(scene.upstream.calls(), calls, "a forged token got through");
    gateway.assert_no_secret_in_log(&[good]);
}

#[tokio::test]
async fn a_new_key_of_the_issuer_is_found_and_strangers_cause_no_more_requests() {
    let issuer = CallerIssuer::start(ISSUER).await;
    let mut scene = ScriptedScene::machine().await;
    by_jwt(&mut scene, &issuer);
    let gateway = scene.config.start().await;
    with_token(&gateway, &issuer.token("alice", &json!({}))).await.expect_status(200);
    // Keys just fetched are not fetched again at once.
    tokio::time::sleep(std::time::Duration::from_millis(5100)).await;
    issuer.rotate();
    with_token(&gateway, &issuer.token("alice", &json!({}))).await.expect_status(200);
    assert_eq!(issuer.fetched(), 2);
    let stranger = CallerIssuer::start(ISSUER).await;
    (0..5).for_each(|_| stranger.rotate());
    for n in 0..5 {
        let token = stranger.token("alice", &json!({ "jti": n }));
        with_token(&gateway, &token).await.expect_problem(401, "caller_unauthenticated");
    }
    assert_eq!(issuer.fetched(), 2);
}

#[tokio::test]
async fn callers_of_one_issuer_are_told_apart_by_a_claim() {
    let issuer = CallerIssuer::start(ISSUER).await;
    let mut scene = ScriptedScene::machine().await;
    std::fs::write(scene.config.folder().join("keys.json"), issuer.key_set().to_string()).unwrap();
    for name in ["billing", "crm"] {
        let body = format!(
            "jwt = {{ issuer = \"{ISSUER}\", audience = \"claviger\", jwks_file = \"keys.json\", claims = {{ azp = \"{name}-app\" }} }}\n\
             routes = [\"calendar\"]"
        );
        scene.config.section(&format!("callers.{name}"), &body);
    }
    let gateway = scene.config.start().await;
    for name in ["billing", "crm"] {
        let token = issuer.token("alice", &json!({ "azp": format!("{name}-app") }));
        with_token(&gateway, &token).await.expect_status(200);
        assert_eq!(gateway.connection("calendar", name).await["state"], "active");
    }
    for azp in [json!("other-app"), Value::Null] {
        let token = issuer.token("alice", &json!({ "azp": azp }));
        with_token(&gateway, &token).await.expect_problem(401, "caller_unauthenticated");
    }
    assert_eq!(issuer.fetched(), 0);
}

#[tokio::test]
async fn a_route_may_take_the_subject_of_the_callers_jwt() {
    let issuer = CallerIssuer::start(ISSUER).await;
    let mut scene = ScriptedScene::machine().await;
    let upstream = scene.upstream.url();
    let route = format!(
        "path = \"/calendar\"\nupstream = \"{upstream}/api\"\nprofile = \"calendar\"\nsubject = \"jwt\""
    );
    scene.config.section("routes.calendar", &route);
    let jwt = issuer.caller_toml("claviger", "");
    scene.config.extend("callers.billing", &jwt);
    let gateway = scene.config.start().await;
    let token = async |subject: &str| {
        let answer = with_token(&gateway, &issuer.token(subject, &json!({}))).await.expect_status(200);
        answer.json()["token"].as_str().unwrap().to_owned()
    };
    let alice = token("alice").await;
    assert_ne!(token("bob").await, alice);
    assert_eq!(token("alice").await, alice);
    assert_eq!(gateway.connection("calendar", "alice").await["state"], "active");

    let problem = gateway.call("/calendar/events").await.expect_problem(400, "subject_required");
    assert!(problem["detail"].as_str().unwrap().contains("JWT"), "{problem}");
    for nobody in [json!({ "sub": null }), json!({ "sub": 7 }), json!({ "sub": "x".repeat(300) })] {
        let token = issuer.token("alice", &nobody);
        with_token(&gateway, &token).await.expect_problem(400, "subject_required");
    }
    // A caller cannot name somebody else beside it.
    let call = http::get(&gateway.proxy_url("/calendar/events")).bearer(&issuer.token("bob", &json!({})));
    let echo = call.header("Claviger-Subject", "alice").send().await.expect_status(200).json();
    assert_ne!(echo["token"], alice.as_str());
}

#[tokio::test]
async fn a_person_consents_for_the_subject_of_the_jwt() {
    let issuer = CallerIssuer::start(ISSUER).await;
    let mut scene = Scene::person().await;
    let upstream = scene.upstream.url();
    let route = format!(
        "path = \"/calendar\"\nupstream = \"{upstream}/api\"\nprofile = \"calendar\"\nsubject = \"jwt\""
    );
    scene.config.section("routes.calendar", &route);
    scene.config.extend("callers.billing", &issuer.caller_toml("claviger", ""));
    let gateway = scene.config.start().await;
    let alice = issuer.token("alice", &json!({}));
    let problem = with_token(&gateway, &alice).await.expect_problem(403, "authorization_required");
    let link = problem["authorization_url"].as_str().unwrap();
    let callback = gateway.config.callback();
    crate::support::browser::Browser::new()
        .consent(link, "alice", &callback)
        .await
        .response
        .expect_status(200);
    with_token(&gateway, &alice).await.expect_status(200);
    let bob = issuer.token("bob", &json!({}));
    with_token(&gateway, &bob).await.expect_problem(403, "authorization_required");
}

/// A profile that exchanges callers' tokens, with `lines` of its own.
async fn exchanging(lines: &str) -> ScriptedScene {
    let mut scene = ScriptedScene::machine().await;
    scene.config.profile("calendar", "script", "gateway", "token_exchange", r#"["calendar"]"#);
    scene.config.extend("profiles.calendar", lines);
    scene
}

#[tokio::test]
async fn a_callers_jwt_is_exchanged_with_every_parameter() {
    let issuer = CallerIssuer::start(ISSUER).await;
    let mut scene = exchanging(
        "requested_token_type = \"access_token\"\naudience = \"https://api.example\"\n\
         actor_token = \"planted-actor-token\"\n\
         actor_token_type = \"access_token\"\ntoken_params = { hint = \"{subject}\", \
         resource = \"https://api.example/{claim.tenant}\" }",
    )
    .await;
    scene.config.secrets.push("planted-actor-token".into());
    scene.config.extend("callers.billing", &issuer.caller_toml("claviger", ""));
    let gateway = scene.config.start().await;
    let token = issuer.token("alice", &json!({ "tenant": "acme" }));
    with_token(&gateway, &token).await.expect_status(200);
    let form = scene.server.forms().remove(0);
    let expected = [
        ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
        ("subject_token", token.as_str()),
        ("subject_token_type", "urn:ietf:params:oauth:token-type:jwt"),
        ("requested_token_type", "urn:ietf:params:oauth:token-type:access_token"),
        ("audience", "https://api.example"),
        ("resource", "https://api.example/acme"),
        ("actor_token", "planted-actor-token"),
        ("actor_token_type", "urn:ietf:params:oauth:token-type:access_token"),
        ("scope", "calendar"),
    ];
    for (name, value) in expected {
        assert_eq!(form.get(name).map(String::as_str), Some(value), "{name}");
    }
    assert!(form["hint"].starts_with("billing~"), "{form:?}");
    assert_eq!(form.len(), expected.len() + 1, "{form:?}");

    let problem = gateway.call("/calendar/events").await.expect_problem(400, "subject_required");
    assert!(problem["detail"].as_str().unwrap().contains("{claim.tenant}"), "{problem}");
    assert_eq!(scene.server.count(), 1);
    gateway.assert_no_secret_in_log(&[token]);
}

#[tokio::test]
async fn an_exchanged_token_serves_its_own_subject_alone() {
    let (one, two) =
        (CallerIssuer::start(ISSUER).await, CallerIssuer::start("https://partners.example").await);
    let mut scene = exchanging("").await;
    scene.config.extend("callers.billing", &one.caller_toml("claviger", ""));
    scene
        .config
        .section("callers.partner", &format!("{}\nroutes = [\"calendar\"]", two.caller_toml("claviger", "")));
    let upstream = scene.upstream.url();
    let shared = |subject: &str| {
        format!(
            "path = \"/calendar\"\nupstream = \"{upstream}/api\"\nprofile = \"calendar\"\nsubject = \"{subject}\""
        )
    };
    for subject in ["shared", "jwt"] {
        scene.config.section("routes.calendar", &shared(subject));
        let gateway = scene.config.start().await;
        let used = async |token: String| {
            let answer = with_token(&gateway, &token).await.expect_status(200);
            answer.json()["token"].as_str().unwrap().to_owned()
        };
        let alice = used(one.token("alice", &json!({}))).await;
        assert_eq!(used(one.token("alice", &json!({ "jti": "another" }))).await, alice);
        assert_ne!(used(one.token("bob", &json!({}))).await, alice, "{subject}");
        assert_ne!(used(two.token("alice", &json!({}))).await, alice, "{subject}: of another issuer");
        let (_, _, config) = gateway.stop().await;
        scene.config = config;
        std::fs::remove_dir_all(scene.config.folder().join("tokens")).unwrap();
    }
}

#[tokio::test]
async fn with_one_issuer_an_exchanged_connection_is_named_by_the_subject() {
    let issuer = CallerIssuer::start(ISSUER).await;
    let mut scene = exchanging("").await;
    scene.config.extend("callers.billing", &issuer.caller_toml("claviger", ""));
    let upstream = scene.upstream.url();
    let route = format!(
        "path = \"/calendar\"\nupstream = \"{upstream}/api\"\nprofile = \"calendar\"\nsubject = \"jwt\""
    );
    scene.config.section("routes.calendar", &route);
    let gateway = scene.config.start().await;
    with_token(&gateway, &issuer.token("alice", &json!({}))).await.expect_status(200);
    assert_eq!(gateway.connection("calendar", "alice").await["state"], "active");
    // Without a JWT there is nothing to exchange.
    gateway.call("/calendar/events").await.expect_problem(400, "subject_required");
}

#[tokio::test]
async fn an_operator_cannot_exchange_what_only_a_call_brings() {
    let issuer = CallerIssuer::start(ISSUER).await;
    let mut scene = exchanging("").await;
    scene.config.extend("callers.billing", &issuer.caller_toml("claviger", ""));
    scene.server.otherwise(Answer::token("planted-exchanged", 3600));
    let upstream = scene.upstream.url();
    let route = format!(
        "path = \"/calendar\"\nupstream = \"{upstream}/api\"\nprofile = \"calendar\"\nsubject = \"jwt\""
    );
    scene.config.section("routes.calendar", &route);
    let gateway = scene.config.start().await;
    let token = issuer.token("alice", &json!({}));
    with_token(&gateway, &token).await.expect_status(200);
    let path = "/api/connections/calendar/alice";
    let problem = gateway
        .admin("POST", &format!("{path}/refresh"))
        .send()
        .await
        .expect_problem(409, "subject_required");
    assert!(problem["detail"].as_str().unwrap().contains("JWT"), "{problem}");
    // Nothing is wrong with the connection for that.
    let shown = gateway.connection("calendar", "alice").await;
    assert_eq!((&shown["state"], &shown["failures"]), (&json!("active"), &json!(0)), "{shown}");
    with_token(&gateway, &token).await.expect_status(200);
    let provider = gateway.actors("provider").await.remove(0);
    assert_eq!(provider["detail"]["token_request_failures"], 0, "{provider}");
    assert_eq!(scene.server.count(), 1);
}

#[tokio::test]
async fn a_fixed_token_is_exchanged_for_callers_with_passwords() {
    let scene =
        exchanging("subject_token = \"planted-subject-token\"\nsubject_token_type = \"access_token\"").await;
    let gateway = scene.config.start().await;
    gateway.token_used().await;
    let form = scene.server.forms().remove(0);
    assert_eq!(form["subject_token"], "planted-subject-token");
    assert_eq!(form["subject_token_type"], "urn:ietf:params:oauth:token-type:access_token");
    assert_eq!(gateway.connection("calendar", "billing").await["state"], "active");
    gateway.assert_no_secret_in_log(&["planted-subject-token".to_owned()]);
}
