//! From the first refused call to the first proxied one.

use serde_json::json;

use crate::support::browser::Browser;
use crate::support::http;
use crate::support::scene::Scene;

#[tokio::test]
async fn a_person_consents_once_and_calls_carry_the_providers_token() {
    let scene = Scene::person().await;
    let gateway = scene.config.start().await;

    gateway.connect("alice").await;

    let echo = gateway.call("/calendar/events?day=1&x=%2F").await.expect_status(200).json();
    assert_eq!(echo["target"], "/api/events?day=1&x=%2F");
    let token = echo["token"].as_str().unwrap().to_owned();
    let told = scene.provider.describe_token(&token).await;
    assert_eq!(told["account"], "alice", "{told}");
    assert_eq!(told["client"], "confidential", "{told}");
    assert_eq!(scene.provider.count("total").await, 1);
    gateway.assert_no_secret_in_log(&[token]);
}

#[tokio::test]
async fn the_callers_credential_never_reaches_the_upstream() {
    let scene = Scene::person().await;
    let gateway = scene.config.start().await;
    gateway.connect("alice").await;

    let call = gateway.request("GET", "/calendar/events").header("Claviger-Trace", "internal");
    let echo = call.header("Cookie", "own=1").send().await.expect_status(200).json().to_string();
    assert!(!echo.contains("Basic "), "{echo}");
    assert!(!echo.to_lowercase().contains("claviger-"), "{echo}");
}

#[tokio::test]
async fn a_browser_is_sent_to_the_provider_at_once() {
    let scene = Scene::person().await;
    let gateway = scene.config.start().await;

    let call = gateway.request("GET", "/calendar/events").header("Accept", "text/html,*/*;q=0.8");
    let answer = call.send().await.expect_status(302);
    let location = answer.header("location").unwrap().to_owned();
    assert!(location.starts_with(&format!("{}/auth?", scene.provider.issuer)), "{location}");
    let cookie = answer.header("set-cookie").expect("the browser is bound to the flow").to_lowercase();
    assert!(cookie.contains("httponly") && cookie.contains("samesite=lax"), "{cookie}");

    let mut browser = Browser::new();
    browser.keep_cookies(&gateway.proxy_url("/").parse().unwrap(), &answer);
    let page = browser.consent(&location, "alice", &gateway.config.callback()).await;
    assert!(matches!(page.response.status, 200 | 302), "{}", page.response.text());
    gateway.token_used().await;
}

#[tokio::test]
async fn the_authorization_request_has_pkce_state_and_nonce() {
    let scene = Scene::person().await;
    let gateway = scene.config.start().await;
    let link = gateway.authorization_url("/calendar/events").await;

    let page = Browser::new().open(&link).await;
    page.response.clone().expect_status(302);
    let redirect = page.redirect().unwrap();
    let sent: std::collections::BTreeMap<_, _> = redirect.query_pairs().into_owned().collect();
    assert_eq!(sent["response_type"], "code");
    assert_eq!(sent["client_id"], "confidential");
    assert_eq!(sent["redirect_uri"], gateway.config.callback());
    assert_eq!(sent["code_challenge_method"], "S256");
    assert_eq!(sent["code_challenge"].len(), 43);
    assert!(sent["state"].len() >= 22 && sent["nonce"].len() >= 22, "{redirect}");
    assert!(!redirect.as_str().contains("verifier"), "{redirect}");
}

#[tokio::test]
async fn a_connect_session_of_the_admin_api_leads_back_to_its_page() {
    let scene = Scene::person().await;
    let gateway = scene.config.start().await;
    let return_to = gateway.public_url("/welcome?back=1");

    let wanted = json!({ "profile": "calendar", "subject": "billing", "return_to": return_to });
    let answer = gateway.admin("POST", "/api/connect-sessions").json(&wanted).send().await;
    assert!(matches!(answer.status, 200 | 201), "{}", answer.text());
    let session = answer.json();
    assert!(session["expires_in"].as_u64().unwrap() > 0, "{session}");

    let url = session["url"].as_str().unwrap();
    let page = Browser::new().consent(url, "alice", &gateway.config.callback()).await;
    page.response.clone().expect_status(302);
    assert_eq!(page.redirect().unwrap().as_str(), return_to);
    gateway.token_used().await;
}

#[tokio::test]
async fn a_connect_session_leads_back_to_web_addresses_only() {
    let scene = Scene::person().await;
    let gateway = scene.config.start().await;
    for stranger in ["/relative", "//evil.example/", "javascript:alert(1)", "https://evil@trusted.example/"] {
        let wanted = json!({ "profile": "calendar", "subject": "billing", "return_to": stranger });
        let answer = gateway.admin("POST", "/api/connect-sessions").json(&wanted).send().await;
        assert_eq!(answer.status, 400, "{stranger}: {}", answer.text());
    }
}

#[tokio::test]
async fn a_connect_link_works_once() {
    let scene = Scene::person().await;
    let gateway = scene.config.start().await;
    let link = gateway.authorization_url("/calendar/events").await;

    Browser::new().open(&link).await.response.expect_status(302);
    Browser::new().open(&link).await.response.expect_status(400);
    Browser::new().open(&gateway.public_url("/connect/made-up")).await.response.expect_status(400);
}

#[tokio::test]
async fn a_public_client_and_one_that_posts_its_secret_connect_as_well() {
    for (client, method) in [("public", "none"), ("posting", "client_secret_post")] {
        let mut scene = Scene::person().await;
        let secret = match method {
            "none" => "",
            _ => "client_secret = { env = \"TEST_CLIENT_SECRET\" }\n",
        };
        let body = format!(
            "provider = \"idp\"\nclient_id = \"{client}\"\nclient_auth = \"{method}\"\n{secret}\
             grant = \"authorization_code\"\nscopes = [\"openid\", \"calendar\"]"
        );
        scene.config.section("profiles.calendar", &body);
        let gateway = scene.config.start().await;
        gateway.connect("alice").await;
        let told = scene.provider.describe_token(&gateway.token_used().await).await;
        assert_eq!(told["client"], client, "{told}");
    }
}

#[tokio::test]
async fn each_caller_has_a_connection_of_its_own() {
    let mut scene = Scene::person().await;
    scene.config.caller("payroll", "[\"calendar\"]");
    scene.config.caller("stranger", "[]");
    let gateway = scene.config.start().await;
    gateway.connect("alice").await;

    let password = crate::support::gateway_config::PASSWORD;
    let url = gateway.proxy_url("/calendar/events");
    let as_payroll = http::get(&url).basic("payroll", password).send().await;
    as_payroll.expect_problem(403, "authorization_required");
    http::get(&url).basic("stranger", password).send().await.expect_problem(403, "route_forbidden");
    let wrong = http::get(&url).basic("billing", "wrong").send().await;
    assert!(wrong.header("www-authenticate").is_some_and(|value| value.starts_with("Basic ")));
    wrong.expect_problem(401, "caller_unauthenticated");
    http::get(&url).send().await.expect_problem(401, "caller_unauthenticated");
    gateway.token_used().await;
}
