//! Another configuration while the gateway serves: no call is lost, and a bad one changes nothing.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::certificates::Authority;
use crate::support::eventually;
use crate::support::gateway::Gateway;
use crate::support::gateway_config::GatewayConfig;
use crate::support::load::Load;
use crate::support::scene::ScriptedScene;
use crate::support::scripted_as::Answer;
use crate::support::tools::curl;
use crate::support::upstream::Upstream;

fn file(config: &GatewayConfig) -> PathBuf {
    config.folder().join("gateway.toml")
}

/// As an editor does: a new file takes the place of the old one.
fn write(config: &GatewayConfig) {
    let new = config.folder().join("gateway.toml.new");
    std::fs::write(&new, config.toml()).unwrap();
    std::fs::rename(new, file(config)).unwrap();
}

async fn status(gateway: &Gateway) -> Value {
    gateway.admin("GET", "/debug/actors").send().await.expect_status(200).json()["configuration"].clone()
}

async fn until_taken(gateway: &Gateway, reloads: u64) {
    eventually("the configuration is taken", async || status(gateway).await["reloads"] == reloads).await;
}

/// The profile's secret is in this file.
fn secret_in_a_file(scene: &mut ScriptedScene, secret: &str) -> PathBuf {
    let path = scene.config.folder().join("client-secret");
    std::fs::write(&path, secret).unwrap();
    scene.config.secrets.push(secret.to_owned());
    let profile = "provider = \"script\"\nclient_id = \"gateway\"\ngrant = \"client_credentials\"\n\
                   scopes = [\"calendar\"]\nclient_secret = { file = \"client-secret\" }\n\
                   client_auth = \"client_secret_post\"";
    scene.config.section("profiles.calendar", profile);
    path
}

/// Routes change their names and lead elsewhere, callers get other routes, the profile another secret.
#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_reloads_under_load_fail_no_call() {
    let mut scene = ScriptedScene::machine().await;
    scene.server.token_seconds(2.0);
    secret_in_a_file(&mut scene, "planted-secret-a");
    let other = Upstream::start().await;
    let one = scene.config.clone();
    let mut two = scene.config.clone();
    two.remove("routes.calendar");
    let route = format!(
        "path = \"/calendar\"\nupstream = \"{}/api\"\nprofile = \"calendar\"\nsubject = \"caller\"",
        other.url()
    );
    two.section("routes.events", &route);
    two.caller("billing", "[\"events\"]");
    two.caller("auditing", "[]");
    two.env.insert("TEST_OTHER_SECRET".into(), String::new());
    let profile = "provider = \"script\"\nclient_id = \"gateway\"\ngrant = \"client_credentials\"\n\
                   scopes = [\"calendar\"]\nclient_secret = \"planted-secret-b\"\n\
                   client_auth = \"client_secret_post\"";
    two.section("profiles.calendar", profile);
    two.section("profiles.spare", profile);

    let gateway = one.start().await;
    let load = Load::start(gateway.config.proxy, "/calendar/events", 8);
    for round in 1..=100 {
        let before = load.good();
        eventually("calls are made", async || load.good() > before + 8).await;
        write(if round % 2 == 1 { &two } else { &one });
        gateway.signal("HUP").await;
        eventually("it was taken", async || status(&gateway).await["reloads"].as_u64() >= Some(round)).await;
    }
    let good = load.stop().await;
    assert!(good > 1600, "{good}");
    assert!(scene.upstream.calls() > 0 && other.calls() > 0, "both variants were in use");
    assert!(scene.server.count() > 50, "tokens were obtained meanwhile: {}", scene.server.count());
    gateway.assert_no_secret_in_log(&["planted-secret-a".to_owned(), "planted-secret-b".to_owned()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_configuration_is_refused_and_the_old_one_serves_on() {
    let mut scene = ScriptedScene::machine().await;
    let secret = secret_in_a_file(&mut scene, "planted-secret-a");
    let gateway = scene.config.start().await;
    let token = gateway.token_used().await;

    let mut bad = scene.config.clone();
    bad.extend("server", "wrokers = 2");
    bad.extend("routes.calendar", "methods = [\"planted nonsense\"]");
    write(&bad);
    eventually("it is refused", async || status(&gateway).await["refused"] == 1).await;
    let shown = status(&gateway).await;
    let why = shown["last_error"].as_str().unwrap();
    assert!(why.contains("wrokers") && why.contains("methods"), "every fault: {why}");
    assert!(gateway.log().contains("wrokers"));
    assert_eq!(gateway.admin("GET", "/readyz").send().await.status, 200);
    assert_eq!(gateway.token_used().await, token);

    // Also a file that it names, and when asked.
    write(&scene.config);
    until_taken(&gateway, 1).await;
    assert_eq!(status(&gateway).await["last_error"], Value::Null);
    std::fs::remove_file(&secret).unwrap();
    gateway.signal("HUP").await;
    eventually("it is refused", async || status(&gateway).await["refused"] == 2).await;
    assert!(status(&gateway).await["last_error"].as_str().unwrap().contains("client-secret"));
    assert_eq!(gateway.token_used().await, token);
    std::fs::write(&secret, "planted-secret-a").unwrap();
    until_taken(&gateway, 2).await;
    assert_eq!(status(&gateway).await["last_error"], Value::Null);
    assert_eq!(scene.server.count(), 1, "nothing was obtained anew");
    gateway.assert_no_secret_in_log(&[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_secret_works_at_once() {
    let mut scene = ScriptedScene::machine().await;
    let secret = secret_in_a_file(&mut scene, "planted-secret-a");
    scene.server.otherwise(Answer::error(401, "invalid_client"));
    let gateway = scene.config.start().await;
    gateway.call("/calendar/events").await.expect_problem(502, "token_unavailable");

    // As Kubernetes does it: what the name leads to is exchanged.
    let new = scene.config.folder().join("rotated");
    std::fs::write(&new, "planted-secret-b").unwrap();
    std::fs::remove_file(&secret).unwrap();
    std::os::unix::fs::symlink(&new, &secret).unwrap();
    scene.server.otherwise(Answer::Rotate);
    until_taken(&gateway, 1).await;
    gateway.call("/calendar/events").await.expect_status(200);
    let forms = scene.server.forms();
    assert_eq!(forms.last().unwrap()["client_secret"], "planted-secret-b");
    gateway.assert_no_secret_in_log(&["planted-secret-b".to_owned()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exchanged_certificate_is_shown_to_new_connections() {
    let mut scene = ScriptedScene::machine().await;
    let folder = scene.config.folder().to_owned();
    let other = folder.join("other");
    std::fs::create_dir(&other).unwrap();
    let (one, two) = (Authority::new(&folder), Authority::new(&other));
    one.certify("server", &["127.0.0.1"]);
    two.certify("server", &["127.0.0.1"]);
    scene.config.extend("listeners.public", "tls = { cert = \"server.pem\", key = \"server.key\" }");
    let gateway = scene.config.start().await;
    let url = format!("https://{}/connect/none", gateway.config.public);
    let trusting = async |folder: &Path| {
        let ca = folder.join("ca.pem").display().to_string();
        curl(&["--cacert", &ca, &url]).await.stdout.starts_with("HTTP/")
    };
    assert!(trusting(&folder).await && !trusting(&other).await);
    // One after the other, as everybody does it.
    std::fs::copy(other.join("server.pem"), folder.join("server.pem")).unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    std::fs::copy(other.join("server.key"), folder.join("server.key")).unwrap();
    until_taken(&gateway, 1).await;
    eventually("the new certificate is shown", async || trusting(&other).await).await;
    assert!(!trusting(&folder).await);
    let shown = status(&gateway).await;
    assert_eq!((&shown["refused"], &shown["last_error"]), (&serde_json::json!(0), &Value::Null), "{shown}");
    assert_eq!(shown["needs_restart"], serde_json::json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn routes_come_and_go_and_what_must_wait_is_named() {
    let scene = ScriptedScene::machine().await;
    let gateway = scene.config.start().await;
    let token = gateway.token_used().await;

    let mut next = scene.config.clone();
    next.remove("routes.calendar");
    let route = format!(
        "path = \"/other\"\nupstream = \"{}/api\"\nprofile = \"calendar\"\nsubject = \"caller\"",
        scene.upstream.url()
    );
    next.section("routes.other", &route);
    next.caller("billing", "[\"other\"]");
    next.section("server", "public_url = \"http://127.0.0.1:9\"\nworkers = 3");
    write(&next);
    until_taken(&gateway, 1).await;
    gateway.call("/calendar/events").await.expect_problem(404, "route_not_found");
    let echo = gateway.call("/other/events").await.expect_status(200).json();
    assert_eq!(echo["token"], token, "the profile is as it was");
    assert_eq!(
        status(&gateway).await["needs_restart"],
        serde_json::json!(["server.public_url", "server.workers"])
    );
    assert!(gateway.log().contains("server.public_url, server.workers"));
    assert_eq!(scene.server.count(), 1);

    write(&scene.config);
    until_taken(&gateway, 2).await;
    assert_eq!(gateway.token_used().await, token);
    assert_eq!(status(&gateway).await["needs_restart"], serde_json::json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_configuration_fills_no_bucket() {
    let mut scene = ScriptedScene::machine().await;
    scene.config.extend("callers.billing", "rate = { requests = 2, per = \"1h\" }");
    scene.config.extend("routes.calendar", "rate = { requests = 3, per = \"1h\" }");
    let gateway = scene.config.start().await;
    for _ in 0..2 {
        gateway.call("/calendar/events").await.expect_status(200);
    }
    // The caller gets more, the route does not.
    scene.config.caller("billing", r#"["calendar"]"#);
    scene.config.extend("callers.billing", "rate = { requests = 9, per = \"1h\" }");
    write(&scene.config);
    until_taken(&gateway, 1).await;
    gateway.call("/calendar/events").await.expect_status(200);
    let refused = gateway.call("/calendar/events").await;
    assert_eq!(refused.header("ratelimit-policy"), Some("\"route\";q=3;w=3600"));
    gateway.stop().await;
}
