//! What a restart must not lose, and what must stop a start.

use std::os::unix::fs::PermissionsExt as _;

use crate::support::browser::Browser;
use crate::support::gateway::{Finished, Gateway, assert_no_secret};
use crate::support::gateway_config::GatewayConfig;
use crate::support::scene::{Scene, ScriptedScene};

/// It does not start, says why in words that contain all of `words`, and tells no secret.
#[track_caller]
fn assert_refused(finished: &Finished, words: &[&str], config: &GatewayConfig) {
    // Not by a signal, and not by a panic.
    assert_eq!(finished.status.code(), Some(1), "{finished:?}");
    for word in words {
        assert!(finished.text().contains(word), "no {word:?} in {}", finished.text());
    }
    for trace in ["panicked", "stack backtrace", "RUST_BACKTRACE"] {
        assert!(!finished.text().contains(trace), "{}", finished.text());
    }
    assert_no_secret(&finished.text(), &config.secrets);
}

#[tokio::test]
async fn a_restart_between_redirect_and_callback_does_not_lose_the_flow() {
    let scene = Scene::person().await;
    let gateway = scene.config.start().await;
    let link = gateway.authorization_url("/calendar/events").await;
    let mut browser = Browser::new();
    let callback = browser.consent_until(&link, "alice", &gateway.config.callback()).await;

    let gateway = gateway.restart().await;
    Browser::new().open(&callback).await.response.expect_status(400);
    browser.open(&callback).await.response.expect_status(200);
    gateway.token_used().await;
    browser.open(&callback).await.response.expect_status(400);
    assert_eq!(scene.provider.count("total").await, 1);
}

#[tokio::test]
async fn a_restart_does_not_lose_a_connect_link() {
    let scene = Scene::person().await;
    let gateway = scene.config.start().await;
    let link = gateway.authorization_url("/calendar/events").await;
    let gateway = gateway.restart().await;
    Browser::new().consent(&link, "alice", &gateway.config.callback()).await.response.expect_status(200);
    gateway.token_used().await;
}

#[tokio::test]
async fn an_exchanged_client_secret_takes_effect_at_once() {
    let scene = ScriptedScene::machine().await;
    let gateway = scene.config.start().await;
    let first = gateway.token_used().await;
    let gateway = gateway.restart().await;
    assert_eq!(gateway.token_used().await, first, "nothing was changed");

    let (_, _, mut config) = gateway.stop().await;
    config.env.insert("TEST_CLIENT_SECRET".into(), "another-secret".into());
    let gateway = config.start().await;
    assert_ne!(gateway.token_used().await, first, "what the old secret obtained is left behind");
    assert_eq!(scene.server.count(), 2);
}

#[tokio::test]
async fn an_exchanged_client_secret_costs_no_consent() {
    let scene = ScriptedScene::person().await;
    let gateway = scene.config.start().await;
    gateway.connect("alice").await;
    let first = gateway.token_used().await;
    let (_, _, mut config) = gateway.stop().await;
    config.env.insert("TEST_CLIENT_SECRET".into(), "another-secret".into());
    assert_eq!(config.start().await.token_used().await, first);
}

#[tokio::test]
async fn what_a_profile_obtained_without_a_person_is_nobodys_once_people_consent() {
    let scene = ScriptedScene::machine().await;
    let gateway = scene.config.start().await;
    gateway.token_used().await;
    let (_, _, mut config) = gateway.stop().await;
    config.profile("calendar", "script", "gateway", "authorization_code", r#"["calendar"]"#);
    config.start().await.call("/calendar/events").await.expect_status(403);
}

#[tokio::test]
async fn a_used_callback_stays_used_after_a_restart() {
    let scene = Scene::person().await;
    let gateway = scene.config.start().await;
    let link = gateway.authorization_url("/calendar/events").await;
    let mut browser = Browser::new();
    let callback = browser.consent_until(&link, "alice", &gateway.config.callback()).await;
    browser.open(&callback).await.response.expect_status(200);
    let _gateway = gateway.restart().await;
    browser.open(&callback).await.response.expect_status(400);
    assert_eq!(scene.provider.count("total").await, 1);
}

#[tokio::test]
async fn stored_tokens_survive_restarts_without_a_token_request() {
    let scene = Scene::person().await;
    let gateway = scene.config.start().await;
    gateway.connect("alice").await;
    let token = gateway.token_used().await;

    let gateway = gateway.restart().await;
    assert_eq!(gateway.token_used().await, token);
    let gateway = gateway.kill().await.start().await;
    assert_eq!(gateway.token_used().await, token);
    assert_eq!(scene.provider.count("total").await, 1, "only the code was redeemed");
}

#[tokio::test]
async fn no_token_is_readable_in_the_files_of_the_store() {
    let scene = Scene::person().await;
    let gateway = scene.config.start().await;
    gateway.connect("alice").await;
    let token = gateway.token_used().await;
    let (_, _, config) = gateway.stop().await;

    let mut files = 0;
    let mut folders = vec![config.folder().join("tokens")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            files += 1;
            let bytes = std::fs::read(&path).unwrap();
            let found = bytes.windows(token.len()).any(|window| window == token.as_bytes());
            assert!(!found, "the access token is readable in {}", path.display());
        }
    }
    assert!(files > 0);
}

#[tokio::test]
async fn a_wrong_key_stops_the_start_and_the_right_one_still_works() {
    let scene = Scene::person().await;
    let gateway = scene.config.start().await;
    gateway.connect("alice").await;
    let token = gateway.token_used().await;
    let (_, _, mut config) = gateway.stop().await;

    config.key("TEST_KEY_K1", 9);
    let finished = Gateway::spawn(config.clone()).wait_for_failure().await;
    assert_refused(&finished, &["k1", "key"], &config);

    config.key("TEST_KEY_K1", 1);
    let gateway = config.start().await;
    assert_eq!(gateway.token_used().await, token);
}

#[tokio::test]
async fn a_key_that_records_need_cannot_be_left_out() {
    let scene = Scene::person().await;
    let gateway = scene.config.start().await;
    gateway.connect("alice").await;
    let token = gateway.token_used().await;
    let (_, _, config) = gateway.stop().await;

    let mut without = config.clone();
    without.key("TEST_KEY_K2", 2);
    without.section("store.encryption", "active = \"k2\"");
    without.section("store.encryption.keys", "k2 = { env = \"TEST_KEY_K2\" }");
    let finished = Gateway::spawn(without.clone()).wait_for_failure().await;
    assert_refused(&finished, &["k1"], &without);

    let mut both = without.clone();
    both.section("store.encryption.keys", "k1 = { env = \"TEST_KEY_K1\" }\nk2 = { env = \"TEST_KEY_K2\" }");
    let gateway = both.start().await;
    assert_eq!(gateway.token_used().await, token, "an old key opens what it sealed");
}

#[tokio::test]
async fn a_missing_key_or_a_short_one_stops_the_start() {
    let scene = ScriptedScene::machine().await;
    let mut config = scene.config.clone();
    config.env.remove("TEST_KEY_K1");
    let finished = Gateway::spawn(config.clone()).wait_for_failure().await;
    assert_refused(&finished, &["TEST_KEY_K1"], &config);

    config.env.insert("TEST_KEY_K1".into(), "cGxhbnRlZC1zaG9ydC1rZXk=".into());
    config.secrets.push("cGxhbnRlZC1zaG9ydC1rZXk=".into());
    let finished = Gateway::spawn(config.clone()).wait_for_failure().await;
    assert_refused(&finished, &["k1", "32"], &config);
}

#[tokio::test]
async fn a_second_process_on_the_same_store_is_refused_and_the_first_serves_on() {
    let scene = ScriptedScene::machine().await;
    let gateway = scene.config.start().await;
    gateway.token_used().await;

    let mut second = scene.config.clone();
    for listener in ["proxy", "public", "admin"] {
        let address = crate::support::ports::free_address();
        second.section(&format!("listeners.{listener}"), &format!("bind = \"{address}\""));
    }
    let store = second.folder().join("tokens").display().to_string();
    let finished = Gateway::spawn(second.clone()).wait_for_failure().await;
    assert_refused(&finished, &[&store], &second);
    gateway.token_used().await;
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let scene = ScriptedScene::machine().await;
    for listener in ["proxy", "public", "admin"] {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let mut config = scene.config.clone();
        config.section(&format!("listeners.{listener}"), &format!("bind = \"{address}\""));
        let finished = Gateway::spawn(config.clone()).wait_for_failure().await;
        assert_refused(&finished, &[&address.to_string(), listener], &config);
    }
}

#[tokio::test]
async fn a_store_that_cannot_be_written_is_named() {
    let scene = ScriptedScene::machine().await;
    let mut config = scene.config.clone();
    // Under a file no folder can be made, not even by root.
    let file = config.folder().join("a-file");
    std::fs::write(&file, "").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o400)).unwrap();
    let path = file.join("tokens").display().to_string();
    config.section("store", &format!("backend = \"sled\"\npath = {path:?}"));
    let finished = Gateway::spawn(config.clone()).wait_for_failure().await;
    assert_refused(&finished, &[&path], &config);
}

#[tokio::test]
async fn a_damaged_database_is_named_and_a_backup_helps() {
    let scene = ScriptedScene::person().await;
    let gateway = scene.config.start().await;
    gateway.connect("alice").await;
    let token = gateway.token_used().await;
    let (_, _, config) = gateway.stop().await;
    let store = config.folder().join("tokens");
    let file = store.join("db");
    let good = std::fs::read(&file).unwrap();
    type Damage = fn(&mut Vec<u8>);
    // Empty, zeroes, noise, and a changed byte in each block.
    let damages: [Damage; 4] = [
        |bytes| bytes.clear(),
        |bytes| bytes.fill(0),
        |bytes| bytes.iter_mut().enumerate().for_each(|(at, byte)| *byte = (at * 31 + 7) as u8),
        |bytes| bytes.iter_mut().step_by(512).for_each(|byte| *byte ^= 0x41),
    ];
    // sled may write to what it finds damaged, and makes its snapshots anew.
    let copy = tempfile::tempdir().unwrap();
    let copied = |from: &std::path::Path, to: &std::path::Path| {
        let done = std::process::Command::new("cp").arg("-a").arg(from.join(".")).arg(to).status();
        assert!(done.unwrap().success());
    };
    copied(&store, copy.path());
    for damage in damages {
        let mut bytes = good.clone();
        damage(&mut bytes);
        std::fs::write(&file, &bytes).unwrap();
        let finished = Gateway::spawn(config.clone()).wait_for_failure().await;
        assert_refused(&finished, &[&store.display().to_string(), "damaged", "backup"], &config);
        std::fs::remove_dir_all(&store).unwrap();
        std::fs::create_dir(&store).unwrap();
        copied(copy.path(), &store);
    }
    // What the message asks for helps.
    let gateway = config.start().await;
    assert_eq!(gateway.token_used().await, token);
    assert_eq!(scene.server.count(), 1);
}

#[tokio::test]
async fn whatever_it_writes_is_for_its_owner_alone_from_the_first_moment() {
    let scene = ScriptedScene::machine().await;
    let gateway = scene.config.start().await;
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.pid())).unwrap();
    assert!(status.lines().any(|line| line == "Umask:\t0077"), "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_waits_for_running_calls() {
    use crate::support::scripted_as::Answer;
    let scene = ScriptedScene::machine().await;
    let late = Answer::After(std::time::Duration::from_millis(800), Box::new(Answer::token("late", 60)));
    scene.server.next(late);
    let gateway = scene.config.start().await;
    let call = tokio::spawn(gateway.request("GET", "/calendar/events").send());
    crate::support::eventually("the call waits for its token", async || scene.server.count() == 1).await;
    let (status, log, _) = gateway.stop().await;
    assert_eq!(status.code(), Some(0), "{log}");
    call.await.unwrap().expect_status(200);
}
