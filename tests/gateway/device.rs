//! A person consents on another device (RFC 8628).

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::browser::{Browser, Page};
use crate::support::gateway::Gateway;
use crate::support::oidc_provider::CLIENT_SECRET;
use crate::support::scene::Scene;

/// A profile whose person consents on another device, client `tv`.
async fn scene() -> Scene {
    let tv = json!({
        "client_id": "tv",
        "client_secret": CLIENT_SECRET,
        "redirect_uris": [],
        "response_types": [],
        "grant_types": ["urn:ietf:params:oauth:grant-type:device_code", "refresh_token"],
        "token_endpoint_auth_method": "client_secret_basic",
    });
    let features = json!({ "deviceFlow": { "enabled": true } });
    let mut scene = Scene::person_at(|provider| provider.features(features).client(tv)).await;
    let scopes = r#"["openid", "offline_access", "calendar"]"#;
    scene.config.profile("calendar", "idp", "tv", "device_code", scopes);
    scene
}

/// What a program is told to show.
async fn session(gateway: &Gateway, return_to: Option<&str>) -> Value {
    let mut wanted = json!({ "profile": "calendar", "subject": "billing" });
    if let Some(return_to) = return_to {
        wanted["return_to"] = return_to.into();
    }
    gateway.admin("POST", "/api/connect-sessions").json(&wanted).send().await.expect_status(200).json()
}

/// Opens `url` again and again, as its page does by itself, until `done`.
async fn page_that(url: &str, done: impl Fn(&Page) -> bool) -> Page {
    for _ in 0..120 {
        let page = Browser::new().open(url).await;
        if done(&page) {
            return page;
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    panic!("{url} did not change within half a minute");
}

fn is_waiting(page: &Page) -> bool {
    page.response.text().contains("http-equiv=\"refresh\"")
}

/// The code that a page shows.
fn user_code(page: &Page) -> String {
    let html = page.response.clone().expect_status(200).text();
    let (_, rest) = html.split_once("<p class=\"code\"><code>").expect("a code");
    rest.split_once('<').unwrap().0.to_owned()
}

/// The link to the provider that a page shows.
fn verification_link(page: &Page) -> String {
    let html = page.response.text();
    let (_, rest) = html.split_once("<a href=\"").expect("a link");
    rest.split_once('"').unwrap().0.replace("&amp;", "&")
}

#[tokio::test]
async fn a_connect_link_shows_a_code_and_changes_once_it_was_entered() {
    let scene = scene().await;
    let gateway = scene.config.start().await;
    let link = gateway.authorization_url("/calendar/events").await;

    let page = Browser::new().open(&link).await;
    assert!(is_waiting(&page), "{}", page.response.text());
    let policy = page.response.header("content-security-policy").unwrap_or_default();
    assert!(policy.contains("default-src 'none'") && !page.response.text().contains("<script"), "{policy}");
    let code = user_code(&page);
    let again = Browser::new().open(&link).await;
    assert_eq!(user_code(&again), code, "the page goes on under the link's address");
    gateway.call("/calendar/events").await.expect_problem(403, "authorization_required");

    // On the other device.
    let verification = verification_link(&page);
    assert!(verification.starts_with(&scene.provider.issuer), "{verification}");
    let end = Browser::new().consent_to_the_end(&verification, "alice").await;
    assert!(end.response.text().contains("Success"), "{}", end.response.text());

    let page = page_that(&link, |page| !is_waiting(page)).await;
    assert!(page.response.expect_status(200).text().contains("Connected"));
    let told = scene.provider.describe_token(&gateway.token_used().await).await;
    assert_eq!((&told["account"], &told["client"]), (&json!("alice"), &json!("tv")), "{told}");
    let view = gateway.connection("calendar", "billing").await;
    assert_eq!((&view["state"], &view["has_refresh_token"]), (&json!("active"), &json!(true)), "{view}");
    gateway.assert_no_secret_in_log(&[]);
}

#[tokio::test]
async fn a_program_shows_the_code_itself_and_a_restart_goes_on() {
    let scene = scene().await;
    let gateway = scene.config.start().await;
    let back = gateway.public_url("/welcome?a=1");
    let session = session(&gateway, Some(&back)).await;
    let device = &session["device"];
    assert!(session["expires_in"].as_u64().unwrap() > 60, "{session}");
    assert!(device["verification_uri"].as_str().unwrap().starts_with(&scene.provider.issuer), "{session}");
    assert!(device["interval"].as_u64().unwrap() >= 1 && device["expires_in"].is_u64(), "{session}");
    assert!(device.get("device_code").is_none(), "{session}");
    let url = session["url"].as_str().unwrap().to_owned();
    assert_eq!(user_code(&Browser::new().open(&url).await), device["user_code"].as_str().unwrap());

    let config = gateway.kill().await;
    let gateway = config.start().await;
    assert_eq!(user_code(&Browser::new().open(&url).await), device["user_code"].as_str().unwrap());
    let complete = device["verification_uri_complete"].as_str().unwrap();
    Browser::new().consent_to_the_end(complete, "alice").await.response.expect_status(200);
    let page = page_that(&url, |page| !is_waiting(page)).await;
    assert_eq!(page.redirect().unwrap().as_str(), back);
    gateway.token_used().await;
}

#[tokio::test]
async fn a_person_who_says_no_is_told_so_and_nothing_is_connected() {
    let scene = scene().await;
    let gateway = scene.config.start().await;
    let session = session(&gateway, None).await;
    let complete = session["device"]["verification_uri_complete"].as_str().unwrap();
    let mut browser = Browser::new();
    let mut page = browser.follow_until(complete, "nowhere:").await;
    while !page.response.text().contains("op.deviceConfirmForm") {
        page = browser.submit(&page, &[], "nowhere:").await;
    }
    browser.submit(&page, &[("abort", "yes")], "nowhere:").await;

    let page = page_that(session["url"].as_str().unwrap(), |page| !is_waiting(page)).await;
    assert_eq!(page.response.status, 403, "{}", page.response.text());
    assert!(page.response.text().contains("access_denied"), "{}", page.response.text());
    gateway.call("/calendar/events").await.expect_problem(403, "authorization_required");
}

#[tokio::test]
async fn a_browser_that_calls_goes_to_the_page_with_the_code() {
    let scene = scene().await;
    let gateway = scene.config.start().await;
    let call = gateway.request("GET", "/calendar/events").header("Accept", "text/html");
    let answer = call.send().await.expect_status(302);
    let location = answer.header("location").unwrap();
    assert!(location.starts_with(&gateway.public_url("/connect/")), "{location}");
    user_code(&Browser::new().open(location).await);
    let flows = gateway.actors("flow").await;
    assert_eq!(flows.len(), 1, "{flows:?}");
    assert_eq!(flows[0]["state"], "polling");
}
