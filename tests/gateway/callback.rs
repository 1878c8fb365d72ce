//! What comes to the redirection endpoint is a stranger's word until it is proved.

use url::Url;

use crate::support::browser::Browser;
use crate::support::gateway::Gateway;
use crate::support::scene::Scene;

/// A browser that has consented, and the callback URL that it was given and has not visited.
async fn consented(gateway: &Gateway, login: &str) -> (Browser, String) {
    let link = gateway.authorization_url("/calendar/events").await;
    let mut browser = Browser::new();
    let callback = browser.consent_until(&link, login, &gateway.config.callback()).await;
    (browser, callback)
}

/// `url` with one parameter changed, or taken out.
fn with_parameter(url: &str, name: &str, value: Option<&str>) -> String {
    let mut url = Url::parse(url).unwrap();
    let mut pairs: Vec<_> = url.query_pairs().into_owned().filter(|(n, _)| n != name).collect();
    pairs.extend(value.map(|value| (name.to_owned(), value.to_owned())));
    url.query_pairs_mut().clear().extend_pairs(pairs);
    url.into()
}

/// `refused`, opened by `browser`, is answered with 400 and redeems nothing; `good` still works.
async fn refused_and_unharmed(
    scene: &Scene,
    gateway: &Gateway,
    browser: &mut Browser,
    refused: &str,
    good: &str,
) {
    browser.clone().open(refused).await.response.expect_status(400);
    assert_eq!(scene.provider.count("total").await, 0, "a token request was made");
    browser.open(good).await.response.expect_status(200);
    assert_eq!(scene.provider.count("total").await, 1);
    gateway.token_used().await;
}

#[tokio::test]
async fn a_forged_state_redeems_nothing() {
    let scene = Scene::person().await;
    let gateway = scene.config.start().await;
    let (mut browser, callback) = consented(&gateway, "alice").await;
    let forged = with_parameter(&callback, "state", Some("forged-forged-forged-forged-forged-forged-fo"));
    refused_and_unharmed(&scene, &gateway, &mut browser, &forged, &callback).await;
}

#[tokio::test]
async fn a_missing_or_doubled_state_redeems_nothing() {
    let scene = Scene::person().await;
    let gateway = scene.config.start().await;
    let (mut browser, callback) = consented(&gateway, "alice").await;
    let missing = with_parameter(&callback, "state", None);
    browser.clone().open(&missing).await.response.expect_status(400);
    let doubled = format!("{callback}&state=other");
    refused_and_unharmed(&scene, &gateway, &mut browser, &doubled, &callback).await;
}

#[tokio::test]
async fn a_replayed_callback_redeems_nothing_and_harms_nothing() {
    let scene = Scene::person().await;
    let gateway = scene.config.start().await;
    let (mut browser, callback) = consented(&gateway, "alice").await;
    browser.open(&callback).await.response.expect_status(200);
    let token = gateway.token_used().await;

    browser.open(&callback).await.response.expect_status(400);
    assert_eq!(scene.provider.count("total").await, 1, "a token request was made");
    assert_eq!(gateway.token_used().await, token);
}

#[tokio::test]
async fn two_browsers_racing_with_one_callback_redeem_it_once() {
    let scene = Scene::person().await;
    let gateway = scene.config.start().await;
    let (browser, callback) = consented(&gateway, "alice").await;
    let racing: Vec<_> = (0..8)
        .map(|_| {
            let (mut browser, callback) = (browser.clone(), callback.clone());
            tokio::spawn(async move { browser.open(&callback).await.response.status })
        })
        .collect();
    let mut statuses = Vec::new();
    for racer in racing {
        statuses.push(racer.await.unwrap());
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 400, 400, 400, 400, 400, 400, 400]);
    assert_eq!(scene.provider.count("total").await, 1);
}

#[tokio::test]
async fn another_browsers_callback_redeems_nothing() {
    let scene = Scene::person().await;
    let gateway = scene.config.start().await;
    let (mut browser, callback) = consented(&gateway, "alice").await;

    // Without any cookie, and with the cookie of a flow of its own.
    Browser::new().open(&callback).await.response.expect_status(400);
    let (mut other, _) = consented(&gateway, "mallory").await;
    other.open(&callback).await.response.expect_status(400);

    assert_eq!(scene.provider.count("total").await, 0, "a token request was made");
    browser.open(&callback).await.response.expect_status(200);
    let told = scene.provider.describe_token(&gateway.token_used().await).await;
    assert_eq!(told["account"], "alice");
}

#[tokio::test]
async fn a_wrong_issuer_redeems_nothing() {
    let scene = Scene::person().await;
    let gateway = scene.config.start().await;
    let (mut browser, callback) = consented(&gateway, "alice").await;
    let wrong = with_parameter(&callback, "iss", Some("https://honest.example"));
    browser.clone().open(&wrong).await.response.expect_status(400);
    let nearly = with_parameter(&callback, "iss", Some(&format!("{}/", scene.provider.issuer)));
    refused_and_unharmed(&scene, &gateway, &mut browser, &nearly, &callback).await;
}

#[tokio::test]
async fn a_missing_issuer_redeems_nothing_where_the_metadata_announces_it() {
    let scene = Scene::person_at(|provider| provider.omit_iss()).await;
    let gateway = scene.config.start().await;
    let (mut browser, callback) = consented(&gateway, "alice").await;
    assert!(!callback.contains("iss="), "{callback}");
    let good = with_parameter(&callback, "iss", Some(&scene.provider.issuer));
    refused_and_unharmed(&scene, &gateway, &mut browser, &callback, &good).await;
}

#[tokio::test]
async fn a_person_who_says_no_is_told_so_and_nothing_is_connected() {
    let scene = Scene::person().await;
    let gateway = scene.config.start().await;
    let (mut browser, callback) = consented(&gateway, "alice").await;
    let denied = with_parameter(&callback, "code", None);
    let denied = with_parameter(&denied, "error", Some("access_denied"));
    let denied = with_parameter(&denied, "error_description", Some("<script>alert(1)</script>"));

    let page = browser.open(&denied).await;
    assert!((400..500).contains(&page.response.status), "{}", page.response.status);
    assert!(!page.response.text().contains("<script>alert"), "{}", page.response.text());
    assert_eq!(scene.provider.count("total").await, 0, "a token request was made");
    gateway.call("/calendar/events").await.expect_problem(403, "authorization_required");
}

#[tokio::test]
async fn no_page_of_the_public_listener_can_be_framed_cached_or_tell_the_code_to_others() {
    let scene = Scene::person().await;
    let gateway = scene.config.start().await;
    let (mut browser, callback) = consented(&gateway, "alice").await;
    for url in [with_parameter(&callback, "state", Some("forged")), callback] {
        let page = browser.open(&url).await.response;
        assert_eq!(page.header("referrer-policy"), Some("no-referrer"));
        assert!(page.header("cache-control").is_some_and(|value| value.contains("no-store")));
        let policy = page.header("content-security-policy").unwrap_or_default();
        assert!(policy.contains("frame-ancestors 'none'"), "{policy}");
        assert!(!page.text().contains("code="), "{}", page.text());
    }
}
