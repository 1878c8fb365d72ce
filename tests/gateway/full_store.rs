//! A store that takes no writes: tokens at hand go on serving, and no token set is lost.
//!
//! The disk is a small one of the test's own, which only root can mount: for others these tests end
//! with a message.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;

use crate::support::eventually;
use crate::support::gateway::Gateway;
use crate::support::gateway_config::GatewayConfig;
use crate::support::http::Response;
use crate::support::scene::ScriptedScene;
use crate::support::scripted_as::Answer;

/// A small file system. It goes when this is dropped.
struct Disk(PathBuf);

impl Disk {
    /// Puts the gateway's store on a disk of its own, if that can be had.
    #[expect(clippy::print_stderr, reason = "whoever runs the tests must know what they do not show")]
    fn under(config: &mut GatewayConfig) -> Option<Self> {
        let path = config.folder().join("disk");
        fs::create_dir(&path).unwrap();
        let options = ["-t", "tmpfs", "-o", "size=16m,mode=0700", "tmpfs"];
        let mounted = Command::new("mount").args(options).arg(&path).output();
        if !mounted.is_ok_and(|done| done.status.success()) {
            eprintln!("skipped: only root can mount a small disk for the store");
            return None;
        }
        let store = path.join("tokens").display().to_string();
        config.section("store", &format!("backend = \"sled\"\npath = {store:?}"));
        Some(Self(path))
    }

    fn store(&self) -> String {
        self.0.join("tokens").display().to_string()
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }

    fn fill(&self) {
        let mut file = OpenOptions::new().create(true).append(true).open(self.filler()).unwrap();
        let full = loop {
            if let Err(error) = file.write_all(&[7; 4096]) {
                break error;
            }
        };
        assert_eq!(full.kind(), io::ErrorKind::StorageFull);
    }

    fn make_room(&self) {
        fs::remove_file(self.filler()).unwrap();
    }

    fn remount(&self, option: &str) {
        let done = Command::new("mount").args(["-o", &format!("remount,{option}")]).arg(&self.0).status();
        assert!(done.unwrap().success());
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: the gateway may still be at its end.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

async fn readiness(gateway: &Gateway) -> Response {
    gateway.admin("GET", "/readyz").send().await
}

async fn refresh(gateway: &Gateway, profile: &str) -> Response {
    gateway.admin("POST", &format!("/api/connections/{profile}/billing/refresh")).send().await
}

/// Uses up what little room a full disk still has within the database's files.
async fn until_nothing_is_saved(gateway: &Gateway) {
    let subjects = AtomicUsize::new(0);
    eventually("a write fails", async || {
        // Somebody new each time: links for the same subject are soon given again without a write.
        let subject = format!("nobody-{}", subjects.fetch_add(1, Ordering::Relaxed));
        let link = json!({ "profile": "calendar", "subject": subject });
        let answer = gateway.admin("POST", "/api/connect-sessions").json(&link).send().await;
        if answer.status != 200 {
            answer.clone().expect_problem(503, "store_unavailable");
        }
        answer.status != 200
    })
    .await;
}

/// Profiles `calendar`, which needs a person, and `reports`, which does not; both have a token.
async fn with_two_profiles(scene: &mut ScriptedScene) -> Gateway {
    scene.config.profile("reports", "script", "gateway", "client_credentials", "[]");
    scene.config.call_through("reports", &scene.upstream);
    scene.config.caller("billing", r#"["calendar", "reports"]"#);
    let gateway = scene.config.start().await;
    gateway.connect("alice").await;
    gateway.call("/reports/all").await.expect_status(200);
    assert_eq!(scene.server.count(), 2);
    gateway
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fills_up_in_a_refresh_costs_nothing_but_time() {
    let mut scene = ScriptedScene::person().await;
    let Some(disk) = Disk::under(&mut scene.config) else { return };
    let gateway = with_two_profiles(&mut scene).await;
    let fresh = async || gateway.call("/reports/all").await.expect_status(200).json()["token"].clone();
    let at_hand = fresh().await;

    scene.server.next(Answer::After(Duration::from_secs(3), Box::new(Answer::Rotate)));
    let refreshing = tokio::spawn(gateway.admin("POST", "/api/connections/calendar/billing/refresh").send());
    eventually("a token is asked for", async || scene.server.count() == 3).await;
    disk.fill();
    until_nothing_is_saved(&gateway).await;
    assert_eq!(scene.server.generation(), 2, "the disk was to be full before the answer came");

    // The answer comes, and cannot be saved.
    refreshing.await.unwrap().expect_problem(503, "store_unavailable");
    for answer in gateway.call_at_once("/calendar/events", 20).await {
        answer.expect_problem(503, "store_unavailable");
    }
    assert_eq!(gateway.connection("calendar", "billing").await["state"], "unsaved");
    let problems = readiness(&gateway).await.expect_status(503).json();
    assert!(problems["problems"].as_array().is_some_and(|all| !all.is_empty()), "{problems}");
    assert!(problems.to_string().contains("1 token sets are not durable"), "{problems}");

    // Others go on with what they have, and are not put at risk.
    assert_eq!(fresh().await, at_hand);
    refresh(&gateway, "reports").await.expect_problem(503, "store_unavailable");
    assert_eq!(scene.server.count(), 3, "a token was asked for that could not have been saved");
    assert_eq!(fresh().await, at_hand);

    disk.make_room();
    eventually("it is ready again", async || readiness(&gateway).await.status == 200).await;
    assert_eq!(gateway.token_used().await, "planted-access-3");
    assert_eq!(gateway.connection("calendar", "billing").await["state"], "active");
    assert_eq!(fresh().await, at_hand);

    // It is durable, and so is the refresh token: the server takes no older one.
    let gateway = gateway.kill().await.start().await;
    assert_eq!(gateway.token_used().await, "planted-access-3");
    assert_eq!(scene.server.count(), 3, "one token request, whatever the disk did");
    refresh(&gateway, "calendar").await.expect_status(200);
    assert_eq!(gateway.token_used().await, "planted-access-4");
    gateway.assert_no_secret_in_log(&["planted-access".into(), "planted-refresh".into()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_full_or_read_only_at_the_start_is_named_and_loses_nothing() {
    let mut scene = ScriptedScene::person().await;
    let Some(disk) = Disk::under(&mut scene.config) else { return };
    let (_, _, config) = with_two_profiles(&mut scene).await.stop().await;
    let refused = async |word: &str| {
        let finished = Gateway::spawn(config.clone()).wait_for_failure().await;
        assert_eq!(finished.status.code(), Some(1), "{finished:?}");
        let text = finished.text();
        assert!(text.contains(&disk.store()) && text.contains(word), "{text}");
        assert!(!text.contains("panicked") && !text.contains("damaged"), "{text}");
    };
    disk.fill();
    refused("make room on its disk").await;
    disk.make_room();
    disk.remount("ro");
    refused("Read-only").await;
    disk.remount("rw");

    let gateway = config.start().await;
    assert_eq!(gateway.token_used().await, "planted-access-1");
    assert_eq!(scene.server.count(), 2);
}
