//! `claviger check`: every fault at once, each with its place and a way out.

use crate::support::gateway::assert_no_secret;
use crate::support::scene::ScriptedScene;

#[tokio::test]
async fn a_good_configuration_passes() {
    let scene = ScriptedScene::machine().await;
    let finished = scene.config.run("check").await;
    assert!(finished.status.success(), "{}", finished.text());
    assert!(!scene.config.folder().join("tokens").exists(), "a check makes no store");
}

#[tokio::test]
async fn all_faults_are_told_at_once() {
    let mut scene = ScriptedScene::machine().await;
    scene.config.extend("profiles.calendar", "scoops = [\"x\"]");
    scene.config.extend("callers.billing", "may_name_subjects = true");
    scene.config.extend("routes.calendar", "upstreem = \"http://127.0.0.1:1\"");
    scene.config.extend("server", "public_urll = \"x\"");
    scene.config.env.remove("TEST_CLIENT_SECRET");
    let finished = scene.config.run("check").await;

    assert_eq!(finished.status.code(), Some(1), "{finished:?}");
    let text = finished.text();
    let file = scene.config.folder().join("gateway.toml").display().to_string();
    assert!(text.contains(&file), "{text}");
    for (wrong, right) in [
        ("profiles.calendar.scoops", "scopes"),
        ("callers.billing.may_name_subjects", "may_name_subject"),
        ("routes.calendar.upstreem", "upstream"),
        ("server.public_urll", "public_url"),
    ] {
        assert!(text.contains(wrong), "{wrong} is not named: {text}");
        assert!(text.contains(right), "{right} is not suggested: {text}");
    }
    assert!(text.contains("TEST_CLIENT_SECRET"), "{text}");
    assert_no_secret(&text, &scene.config.secrets);
}

#[tokio::test]
async fn what_refers_to_nothing_is_named() {
    let mut scene = ScriptedScene::machine().await;
    scene.config.section(
        "routes.mail",
        "path = \"/mail\"\nupstream = \"http://127.0.0.1:1\"\nprofile = \"calender\"\nsubject = \"caller\"",
    );
    scene.config.caller("payroll", "[\"calendars\"]");
    scene.config.profile("files", "acme", "x", "client_credentials", "[]");
    let finished = scene.config.run("check").await;
    assert_eq!(finished.status.code(), Some(1), "{finished:?}");
    for word in ["routes.mail", "calender", "callers.payroll", "calendars", "profiles.files", "acme"] {
        assert!(finished.text().contains(word), "no {word:?} in {}", finished.text());
    }
}

#[tokio::test]
async fn run_refuses_what_check_refuses() {
    let mut scene = ScriptedScene::machine().await;
    scene.config.extend("server", "wokers = 3");
    let finished = scene.config.run("run").await;
    assert!(!finished.status.success(), "{finished:?}");
    assert!(finished.text().contains("server.wokers"), "{}", finished.text());
    assert!(finished.text().contains("workers"), "{}", finished.text());
}

#[tokio::test]
async fn the_environment_overrides_the_file() {
    let mut scene = ScriptedScene::machine().await;
    scene.config.env.insert("CLAVIGER_SERVER__WORKERS".into(), "1".into());
    let gateway = scene.config.start().await;
    assert_eq!(gateway.actors("proxy").await.len(), 1);
    scene.config.env.insert("CLAVIGER_SERVER__WOKERS".into(), "1".into());
    let finished = scene.config.run("check").await;
    assert_eq!(finished.status.code(), Some(1), "{finished:?}");
    assert!(finished.text().contains("CLAVIGER_SERVER__WOKERS"), "{}", finished.text());
}

#[tokio::test]
async fn a_secret_in_the_wrong_place_is_not_repeated() {
    let mut scene = ScriptedScene::machine().await;
    scene.config.remove("profiles.calendar");
    scene.config.section(
        "profiles.calendar",
        "provider = \"script\"\nclient_id = \"x\"\ngrant = \"client_credentials\"\n\
         client_secret = { value = \"planted-wrong-place\" }",
    );
    let finished = scene.config.run("check").await;
    assert_eq!(finished.status.code(), Some(1), "{finished:?}");
    assert!(finished.text().contains("profiles.calendar.client_secret"), "{}", finished.text());
    assert_no_secret(&finished.text(), &["planted-wrong-place".to_owned()]);
}
