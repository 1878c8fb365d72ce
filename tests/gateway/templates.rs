//! What is filled in from a call: subjects and parameters. Nobody gets the token of another call.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::caller_issuer::CallerIssuer;
use crate::support::gateway::Gateway;
use crate::support::gateway_config::PASSWORD;
use crate::support::http::{self, Request};
use crate::support::scene::ScriptedScene;
use crate::support::scripted_as::Answer;

/// The machine's scene with this `subject`; `billing` may name subjects, `crm` may not.
async fn scene_with(subject: &str, profile: &str) -> ScriptedScene {
    let mut scene = ScriptedScene::machine().await;
    let upstream = scene.upstream.url();
    let route = format!(
        "path = \"/calendar\"\nupstream = \"{upstream}/api\"\nprofile = \"calendar\"\nsubject = '{subject}'"
    );
    scene.config.section("routes.calendar", &route);
    scene.config.extend("callers.billing", "may_name_subject = true");
    scene.config.caller("crm", r#"["calendar"]"#);
    scene.config.extend("profiles.calendar", profile);
    scene
}

async fn token_of(request: Request) -> String {
    request.send().await.expect_status(200).json()["token"].as_str().unwrap().to_owned()
}

async fn subjects(gateway: &Gateway) -> Vec<String> {
    let page = gateway.admin("GET", "/api/connections").send().await.expect_status(200).json();
    let all = page["connections"].as_array().unwrap().iter();
    all.map(|connection| connection["subject"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_subject_is_put_together_from_the_call() {
    let scene = scene_with("{caller.name}/{header.X-User}/{query.tenant}", "").await;
    let gateway = scene.config.start().await;
    let call = |user: &str, tenant: &str| {
        gateway.request("GET", &format!("/calendar/events?tenant={tenant}")).header("X-User", user)
    };
    let alice = token_of(call("alice", "acme")).await;
    assert_eq!(token_of(call("alice", "acme")).await, alice);
    // The same characters, otherwise divided.
    let tokens = [
        alice,
        token_of(call("alice/acme", "x")).await,
        token_of(call("alice", "acme%2Fx")).await,
        token_of(call("alice%2Facme", "x")).await,
        token_of(call("bob", "acme")).await,
    ];
    assert_eq!(tokens.iter().collect::<BTreeSet<_>>().len(), tokens.len(), "{tokens:?}");
    let known = subjects(&gateway).await;
    for subject in
        ["billing/alice/acme", "billing/alice%2Facme/x", "billing/alice/acme%2Fx", "billing/alice%252Facme/x"]
    {
        assert!(known.iter().any(|name| name == subject), "{subject}: {known:?}");
    }
}

#[tokio::test]
async fn only_who_may_name_subjects_chooses_by_header_or_query() {
    for subject in ["{header.x-user}", "{query.user}"] {
        let scene = scene_with(subject, "").await;
        let gateway = scene.config.start().await;
        let path = gateway.proxy_url("/calendar/events?user=alice");
        let call = |caller: &str| http::get(&path).basic(caller, PASSWORD).header("X-User", "alice");
        call("crm").send().await.expect_problem(403, "route_forbidden");
        assert_eq!(scene.server.count(), 0);
        call("billing").send().await.expect_status(200);
        assert_eq!(subjects(&gateway).await, ["alice"]);
        call("crm").send().await.expect_problem(403, "route_forbidden");
    }
}

#[tokio::test]
async fn what_a_call_lacks_or_says_twice_is_told() {
    let scene = scene_with("{header.x-user}-{query.tenant}", "").await;
    let gateway = scene.config.start().await;
    let call = |query: &str| gateway.request("GET", &format!("/calendar/events{query}"));
    let long = "x".repeat(1025);
    for (request, named) in [
        (call("?tenant=acme"), "{header.x-user}"),
        (call("?tenant=acme").header("X-User", ""), "{header.x-user}"),
        (call("?tenant=acme").header("X-User", &long), "{header.x-user}"),
        (call("?tenant=acme").header("X-User", &long[..300]), "longer than 255"),
        (call("?tenant=acme").header("X-User", "a").header("x-user", "b"), "x-user was sent more than once"),
        (call("").header("X-User", "alice"), "{query.tenant}"),
        (call("?tenant=").header("X-User", "alice"), "{query.tenant}"),
        (call("?tenant=a%0Ab").header("X-User", "alice"), "{query.tenant}"),
        (call("?tenant=a&tenant=b").header("X-User", "alice"), "tenant was sent more than once"),
    ] {
        let problem = request.send().await.expect_problem(400, "subject_required");
        assert!(problem["detail"].as_str().unwrap().contains(named), "{named}: {problem}");
    }
    assert_eq!((scene.server.count(), scene.upstream.calls()), (0, 0));
}

#[tokio::test]
async fn a_claim_of_the_callers_jwt_may_name_the_subject() {
    let issuer = CallerIssuer::start("https://callers.example").await;
    let mut scene = scene_with("{claim.email}", "").await;
    scene.config.extend("callers.crm", &issuer.caller_toml("claviger", ""));
    let gateway = scene.config.start().await;
    let call =
        |claims: Value| http::get(&gateway.proxy_url("/calendar/events")).bearer(&issuer.token("1", &claims));
    call(json!({ "email": "a@acme.example" })).send().await.expect_status(200);
    assert_eq!(subjects(&gateway).await, ["a@acme.example"]);
    for claims in [json!({}), json!({ "email": ["a@acme.example"] })] {
        let problem = call(claims).send().await.expect_problem(400, "subject_required");
        assert!(problem["detail"].as_str().unwrap().contains("{claim.email}"), "{problem}");
    }
    let problem = gateway.call("/calendar/events").await.expect_problem(400, "subject_required");
    assert!(problem["detail"].as_str().unwrap().contains("JWT"), "{problem}");
}

#[tokio::test]
async fn calls_with_other_values_never_share_a_token() {
    let scene = scene_with(
        "shared",
        "token_params = { tenant = \"{header.x-tenant}\", app = \"{caller.name}\", who = \"{subject}\" }",
    )
    .await;
    let gateway = scene.config.start().await;
    let path = gateway.proxy_url("/calendar/events");
    let call =
        |caller: &str, tenant: &str| http::get(&path).basic(caller, PASSWORD).header("X-Tenant", tenant);
    let acme = token_of(call("billing", "acme")).await;
    let globex = token_of(call("billing", "globex")).await;
    let others = token_of(call("crm", "acme")).await;
    assert_eq!([&acme, &globex, &others].into_iter().collect::<BTreeSet<_>>().len(), 3);
    assert_eq!(token_of(call("billing", "acme")).await, acme);
    assert_eq!(scene.server.count(), 3);

    let known = subjects(&gateway).await;
    assert_eq!(known.len(), 3, "{known:?}");
    let forms = scene.server.forms();
    for (form, (tenant, app)) in
        forms.iter().zip([("acme", "billing"), ("globex", "billing"), ("acme", "crm")])
    {
        assert_eq!((form["tenant"].as_str(), form["app"].as_str()), (tenant, app));
        assert!(form["who"].starts_with("shared~") && known.contains(&form["who"]), "{form:?} {known:?}");
        assert!(!form["who"].contains("acme"), "the values can be read off it");
    }
    for subject in &known {
        assert_eq!(gateway.connection("calendar", subject).await["state"], "active");
    }

    // The names are the same after a restart, so tokens are used on.
    let gateway = gateway.restart().await;
    assert_eq!(token_of(http::get(&path).basic("billing", PASSWORD).header("X-Tenant", "acme")).await, acme);
    assert_eq!(subjects(&gateway).await, known);
    assert_eq!(scene.server.count(), 3);
}

#[tokio::test]
async fn values_for_a_token_request_need_no_right_to_name_subjects_and_are_shared_by_nobody() {
    let scene = scene_with("shared", "token_params = { tenant = \"{query.tenant}\" }").await;
    let gateway = scene.config.start().await;
    let call = |caller: &str, tenant: &str| {
        let path = gateway.proxy_url(&format!("/calendar/events?tenant={tenant}"));
        http::get(&path).basic(caller, PASSWORD)
    };
    let acme = token_of(call("crm", "acme")).await;
    assert_ne!(token_of(call("crm", "globex")).await, acme);
    assert_eq!(token_of(call("billing", "acme")).await, acme, "the connection is shared by all callers");
    assert_eq!(scene.server.count(), 2);
    let problem = gateway.call("/calendar/events").await.expect_problem(400, "subject_required");
    assert!(problem["detail"].as_str().unwrap().contains("{query.tenant}"), "{problem}");
    assert_eq!(scene.server.count(), 2);
}

#[tokio::test]
async fn refreshes_have_parameters_of_their_own() {
    let scene = scene_with(
        "caller",
        "token_params = { tenant = \"t\", who = \"{subject}\" }\nrefresh_params = { tenant = \"r\", only = \"here\" }",
    )
    .await;
    let gateway = scene.config.start().await;
    gateway.token_used().await;
    let path = "/api/connections/calendar/billing/refresh";
    gateway.admin("POST", path).send().await.expect_status(200);
    let forms = scene.server.forms();
    let of = |form: usize, name: &str| forms[form].get(name).map(String::as_str);
    assert_eq!(
        (of(0, "grant_type"), of(0, "tenant"), of(0, "only")),
        (Some("client_credentials"), Some("t"), None)
    );
    assert_eq!(
        (of(1, "grant_type"), of(1, "tenant"), of(1, "only")),
        (Some("refresh_token"), Some("r"), Some("here"))
    );
    assert_eq!((of(0, "who"), of(1, "who")), (Some("billing"), Some("billing")));
}

#[tokio::test]
async fn an_operators_refresh_without_the_calls_values_harms_nothing() {
    let scene = scene_with("caller", "token_params = { tenant = \"{query.tenant}\" }").await;
    scene.server.otherwise(Answer::token("planted-token", 3600));
    let gateway = scene.config.start().await;
    gateway.call("/calendar/events?tenant=acme").await.expect_status(200);
    let subject = subjects(&gateway).await.remove(0);
    for _ in 0..8 {
        let path = format!("/api/connections/calendar/{subject}/refresh");
        let problem = gateway.admin("POST", &path).send().await.expect_problem(409, "subject_required");
        assert!(problem["detail"].as_str().unwrap().contains("{query.tenant}"), "{problem}");
    }
    let shown = gateway.connection("calendar", &subject).await;
    assert_eq!((&shown["state"], &shown["failures"]), (&json!("active"), &json!(0)), "{shown}");
    let provider = gateway.actors("provider").await.remove(0);
    assert_eq!(provider["detail"]["breaker_open_until"], Value::Null, "{provider}");
    gateway.call("/calendar/events?tenant=acme").await.expect_status(200);
    gateway.call("/calendar/events?tenant=globex").await.expect_status(200);
}

#[tokio::test]
async fn an_authorization_request_names_its_subject_where_asked() {
    let mut scene = ScriptedScene::person().await;
    scene
        .config
        .extend("profiles.calendar", "authorize_params = { login_hint = \"{subject}@acme.example\" }");
    let gateway = scene.config.start().await;
    let link = gateway.authorization_url("/calendar/events").await;
    let sent = crate::support::browser::Browser::new().open(&link).await.response.expect_status(302);
    let location = url::Url::parse(sent.header("location").unwrap()).unwrap();
    let hint = location.query_pairs().find(|(name, _)| name == "login_hint").unwrap();
    assert_eq!(hint.1, "billing@acme.example");
}
