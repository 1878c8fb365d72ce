//! The admin listener: what it shows, what it does, and for whom.

use serde_json::{Value, json};

use crate::support::gateway::assert_no_secret;
use crate::support::http;
use crate::support::scene::{Scene, ScriptedScene};

#[tokio::test]
async fn without_a_token_only_health_is_served() {
    let mut scene = ScriptedScene::machine().await;
    scene.config.admin_token("planted-admin-token");
    let gateway = scene.config.start().await;
    for path in ["/debug/actors", "/api/profiles", "/api/routes", "/api/connections"] {
        gateway.admin("GET", path).send().await.expect_status(401);
        gateway.admin("GET", path).bearer("planted-admin-tokem").send().await.expect_status(401);
        gateway.admin("GET", path).basic("x", "planted-admin-token").send().await.expect_status(401);
        gateway.admin("GET", path).bearer("planted-admin-token").send().await.expect_status(200);
    }
    gateway.admin("GET", "/healthz").send().await.expect_status(200);
    gateway.assert_no_secret_in_log(&[]);
}

#[tokio::test]
async fn beyond_loopback_a_token_is_demanded_before_anything_starts() {
    let mut scene = ScriptedScene::machine().await;
    scene.config.section("listeners.admin", &format!("bind = \"0.0.0.0:{}\"", scene.config.admin.port()));
    let finished = scene.config.run("check").await;
    assert_eq!(finished.status.code(), Some(1), "{finished:?}");
    assert!(finished.text().contains("listeners.admin"), "{}", finished.text());
    assert!(finished.text().contains("token"), "{}", finished.text());
}

#[tokio::test]
async fn a_page_of_another_origin_cannot_drive_it() {
    let scene = ScriptedScene::machine().await;
    let gateway = scene.config.start().await;
    gateway.token_used().await;
    let refresh = || gateway.admin("POST", "/api/connections/calendar/billing/refresh");
    let own = format!("http://{}", gateway.config.admin);

    let foreign = refresh().header("Origin", "http://evil.example").send().await;
    foreign.expect_problem(403, "origin_forbidden");
    let opaque = refresh().header("Origin", "null").send().await;
    opaque.expect_problem(403, "origin_forbidden");
    let rebound = gateway.admin("GET", "/api/connections").header("Host", "evil.example").send().await;
    assert!(matches!(rebound.status, 403 | 421), "{}", rebound.status);
    assert_eq!(scene.server.count(), 1, "a stranger had a token refreshed");
    refresh().header("Origin", &own).send().await.expect_status(200);
}

#[tokio::test]
async fn every_actor_is_shown() {
    let scene = Scene::person().await;
    let gateway = scene.config.start().await;
    let link = gateway.authorization_url("/calendar/events").await;
    crate::support::browser::Browser::new().open(&link).await.response.expect_status(302);

    let report = gateway.admin("GET", "/debug/actors").send().await.expect_status(200).json();
    let actors = report["actors"].as_array().unwrap();
    for kind in ["provider", "token_store", "flow", "proxy"] {
        assert!(actors.iter().any(|actor| actor["kind"] == kind), "no {kind} in {report}");
    }
    for actor in actors {
        assert!(actor["id"].is_string() && actor["state"].is_string(), "{actor}");
        for number in ["uptime_s", "restarts", "mailbox", "processed"] {
            assert!(actor[number].is_u64(), "{number}: {actor}");
        }
        assert!(actor.get("last_error").is_some() && actor.get("detail").is_some(), "{actor}");
    }
    assert_eq!(actors.iter().filter(|actor| actor["kind"] == "proxy").count(), 2, "one a worker");
    assert_no_secret(&report.to_string(), &gateway.config.secrets);
}

#[tokio::test]
async fn a_flow_is_shown_for_every_pending_authorization_and_no_other() {
    let scene = ScriptedScene::person().await;
    let gateway = scene.config.start().await;
    assert_eq!(gateway.actors("flow").await.len(), 0);
    let mut browsers = Vec::new();
    for pending in 1..=3 {
        let link = gateway.authorization_url("/calendar/events").await;
        let mut browser = crate::support::browser::Browser::new();
        browser.open(&link).await.response.expect_status(302);
        browsers.push(browser);
        assert_eq!(gateway.actors("flow").await.len(), pending);
    }
}

#[tokio::test]
async fn what_was_never_connected_cannot_be_refreshed() {
    let scene = ScriptedScene::person().await;
    let gateway = scene.config.start().await;
    let path = "/api/connections/calendar/nobody";
    gateway.admin("GET", path).send().await.expect_problem(404, "not_found");
    gateway.admin("POST", &format!("{path}/refresh")).send().await.expect_problem(404, "not_found");
    gateway.admin("DELETE", path).send().await.expect_problem(404, "not_found");
}

#[tokio::test]
async fn profiles_and_routes_are_listed_without_secrets() {
    let scene = Scene::person().await;
    let gateway = scene.config.start().await;
    for path in ["/api/profiles", "/api/routes"] {
        let answer = gateway.admin("GET", path).send().await.expect_status(200);
        assert!(answer.text().contains("calendar"), "{}", answer.text());
        assert_no_secret(&answer.text(), &gateway.config.secrets);
    }
}

#[tokio::test]
async fn a_connection_is_shown_and_deleted_and_the_provider_hears_of_it() {
    let scene = Scene::person().await;
    let gateway = scene.config.start().await;
    let path = "/api/connections/calendar/billing";
    gateway.admin("GET", path).send().await.expect_status(404);
    gateway.connect("alice").await;
    let token = gateway.token_used().await;

    let shown = gateway.connection("calendar", "billing").await;
    assert_eq!(shown["state"], "active", "{shown}");
    assert_eq!(shown["who_must_act"], "nobody", "{shown}");
    assert_eq!(shown["upstreams"], json!([scene.upstream.url()]), "{shown}");
    assert_no_secret(&shown.to_string(), std::slice::from_ref(&token));

    let deleted = gateway.admin("DELETE", path).send().await;
    assert!(matches!(deleted.status, 200 | 204), "{}", deleted.text());
    assert!(scene.provider.count("revocation").await >= 1, "nothing was revoked");
    assert_eq!(scene.provider.describe_token(&token).await["live"], false);
    gateway.admin("GET", path).send().await.expect_status(404);
    gateway.admin("DELETE", path).send().await.expect_status(404);
    gateway.call("/calendar/events").await.expect_problem(403, "authorization_required");
    let gateway = gateway.restart().await;
    gateway.call("/calendar/events").await.expect_problem(403, "authorization_required");
}

#[tokio::test]
async fn a_refresh_on_demand_brings_another_token() {
    let scene = Scene::person().await;
    let gateway = scene.config.start().await;
    gateway.connect("alice").await;
    let old = gateway.token_used().await;
    let path = "/api/connections/calendar/billing/refresh";
    let shown = gateway.admin("POST", path).send().await.expect_status(200).json();
    assert_eq!(shown["state"], "active", "{shown}");
    assert_ne!(gateway.token_used().await, old);
    assert_eq!(scene.provider.count("refresh_token").await, 1);
}

#[tokio::test]
async fn an_imported_token_set_is_used_and_refreshed() {
    let scene = ScriptedScene::person().await;
    let gateway = scene.config.start().await;
    let tokens = json!({
        "access_token": "planted-import", "refresh_token": "planted-refresh-0",
        "token_type": "Bearer", "expires_in": 3600, "scope": "calendar",
    });
    let path = "/api/connections/calendar/billing";
    let shown = gateway.admin("PUT", path).json(&tokens).send().await;
    assert!(matches!(shown.status, 200 | 201), "{}", shown.text());
    assert_eq!(gateway.token_used().await, "planted-import");
    assert_eq!(scene.server.count(), 0);
    gateway.admin("POST", &format!("{path}/refresh")).send().await.expect_status(200);
    assert_eq!(gateway.token_used().await, "planted-access-1");
    let gateway = gateway.restart().await;
    assert_eq!(gateway.token_used().await, "planted-access-1");
    gateway.assert_no_secret_in_log(&["planted-import".into(), "planted-refresh-0".into()]);
}

#[tokio::test]
async fn connections_are_listed_in_pages() {
    let scene = ScriptedScene::person().await;
    let gateway = scene.config.start().await;
    let subjects: Vec<String> = (0..7).map(|n| format!("person-{n}")).collect();
    for subject in &subjects {
        let path = format!("/api/connections/calendar/{subject}");
        let tokens = json!({ "access_token": format!("planted-{subject}"), "expires_in": 3600 });
        gateway.admin("PUT", &path).json(&tokens).send().await.expect_status(200);
    }

    let mut seen = Vec::new();
    let mut cursor = String::new();
    loop {
        let path = format!("/api/connections?profile=calendar&limit=3{cursor}");
        let page = gateway.admin("GET", &path).send().await.expect_status(200).json();
        let connections = page["connections"].as_array().unwrap();
        assert!(connections.len() <= 3, "{page}");
        seen.extend(connections.iter().map(|one| one["subject"].as_str().unwrap().to_owned()));
        assert_no_secret(&page.to_string(), &["planted-".to_owned()]);
        match &page["next_cursor"] {
            Value::String(next) => {
                cursor = format!(
                    "&cursor={}",
                    url::form_urlencoded::byte_serialize(next.as_bytes()).collect::<String>()
                );
            }
            _ => break,
        }
        assert!(seen.len() <= subjects.len(), "pages without end: {seen:?}");
    }
    assert_eq!(seen, subjects);

    let one = "/api/connections?profile=calendar&subject=person-3";
    let page = gateway.admin("GET", one).send().await.expect_status(200).json();
    assert_eq!(page["connections"].as_array().unwrap().len(), 1, "{page}");
    gateway.admin("GET", "/api/connections?limit=0").send().await.expect_status(400);
    gateway.admin("GET", "/api/connections?cursor=%00").send().await.expect_status(400);
}

#[tokio::test]
async fn the_admin_api_is_on_its_own_listener_only() {
    let scene = ScriptedScene::machine().await;
    let gateway = scene.config.start().await;
    for base in [gateway.public_url(""), gateway.proxy_url("")] {
        for path in ["/debug/actors", "/api/connections", "/metrics", "/readyz"] {
            let status = http::get(&format!("{base}{path}")).send().await.status;
            assert!(matches!(status, 401 | 404), "{base}{path}: {status}");
        }
    }
}
