//! `kill -9` at any moment of a refresh leaves the old or the new token set whole.

use std::time::Duration;

use tokio::time::sleep;

use crate::support::gateway::Gateway;
use crate::support::scene::ScriptedScene;
use crate::support::scripted_as::Answer;

const KILLS: u64 = 50;
const REFRESH: &str = "/api/connections/calendar/billing/refresh";

/// Moments that differ from one to the next; the same in every run, though the process is not.
fn moment(round: u64) -> Duration {
    let mixed =
        (round + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    Duration::from_micros(mixed % 60_000)
}

fn number(token: &str) -> u64 {
    token
        .strip_prefix("planted-access-")
        .and_then(|number| number.parse().ok())
        .expect("a token of the script")
}

/// Refreshes and calls without pause until the process is gone.
fn keep_busy(gateway: &Gateway) -> Vec<tokio::task::JoinHandle<()>> {
    let refresh = gateway.admin("POST", REFRESH);
    let call = gateway.request("GET", "/calendar/events");
    [refresh, call]
        .into_iter()
        .map(|request| tokio::spawn(async move { while request.clone().try_send().await.is_ok() {} }))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_kills_during_refreshes_lose_nothing() {
    let scene = ScriptedScene::person().await;
    scene.server.otherwise(Answer::After(Duration::from_millis(3), Box::new(Answer::Rotate)));
    let mut gateway = scene.config.start().await;
    gateway.connect("alice").await;

    for round in 0..KILLS {
        let busy = keep_busy(&gateway);
        sleep(moment(round)).await;
        let config = gateway.kill().await;
        for task in busy {
            task.await.expect("did not panic");
        }
        let newest_used = scene.upstream.tokens().iter().map(|token| number(token)).max().unwrap_or(0);

        gateway = config.start().await;
        let shown = gateway.connection("calendar", "billing").await;
        assert_ne!(shown["state"], "needs_consent", "round {round}: {shown}");
        let kept = number(&gateway.token_used().await);
        assert!(kept >= newest_used, "round {round}: token {newest_used} was used and {kept} was kept");
        // The server takes no refresh token that is older than one it has seen used.
        let refreshed = gateway.admin("POST", REFRESH).send().await;
        assert_eq!(refreshed.status, 200, "round {round}: {}", refreshed.text());
        assert!(number(&gateway.token_used().await) > kept, "round {round}");
    }
    assert!(scene.server.generation() > KILLS, "hardly anything was refreshed");
    assert_eq!(
        scene.server.forms().iter().filter(|form| form["grant_type"] == "authorization_code").count(),
        1,
        "somebody had to consent again"
    );
}
