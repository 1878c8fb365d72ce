//! `kill -9` at any moment of a refresh leaves the old or the new token set whole.

use std::time::Duration;

use tokio::time::sleep;

use crate::support::gateway::Gateway;
use crate::support::scene::ScriptedScene;
use crate::support::scripted_as::Answer;

const KILLS: u64 = 50;
const REFRESH: &str = "/api/connections/calendar/billing/refresh";

/// Spans that differ from one to the next; the same in every run, though the process is not.
fn span(round: u64, what: u64, up_to: Duration) -> Duration {
    let mixed = (2 * round + what + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = mixed.rotate_left(23).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    up_to.mul_f64((mixed >> 11) as f64 / (1u64 << 53) as f64)
}

/// Where the time of a refresh goes, so that kills fall everywhere: before the server has used the
/// refresh token up, between that and its answer, and, when it is quick, about the save.
fn server(round: u64) -> Answer {
    let long = Duration::from_millis(25);
    match round % 3 {
        0 => Answer::After(span(round, 0, long), Box::new(Answer::Rotate)),
        1 => Answer::RotateThenWait(span(round, 0, long)),
        _ => Answer::Rotate,
    }
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
    let (mut lost_answers, mut kept_answers) = (0, 0);
    let mut gateway = scene.config.start().await;
    gateway.connect("alice").await;

    for round in 0..KILLS {
        scene.server.otherwise(server(round));
        let busy = keep_busy(&gateway);
        sleep(span(round, 1, Duration::from_millis(60))).await;
        let config = gateway.kill().await;
        for task in busy {
            task.await.expect("did not panic");
        }
        // What was sent is answered though nobody listens; it is not to be mistaken for ours.
        sleep(Duration::from_millis(30)).await;
        scene.server.otherwise(Answer::Rotate);
        let issued = scene.server.generation();
        let newest_used = scene.upstream.tokens().iter().map(|token| number(token)).max().unwrap_or(0);

        gateway = config.start().await;
        let shown = gateway.connection("calendar", "billing").await;
        assert_ne!(shown["state"], "needs_consent", "round {round}: {shown}");
        let kept = number(&gateway.token_used().await);
        assert!(kept >= newest_used, "round {round}: token {newest_used} was used and {kept} was kept");
        let live = scene.server.live();
        assert!(live.contains(&kept), "round {round}: token {kept} is served, {live:?} are live");
        let side = if issued > kept { &mut lost_answers } else { &mut kept_answers };
        *side += 1;
        // The server takes no refresh token that is older than one it has seen used.
        let refreshed = gateway.admin("POST", REFRESH).send().await;
        assert_eq!(refreshed.status, 200, "round {round}: {}", refreshed.text());
        assert!(number(&gateway.token_used().await) > kept, "round {round}");
    }
    assert!(scene.server.generation() > KILLS, "hardly anything was refreshed");
    // Kills fell on both sides of the save.
    assert!(lost_answers >= 5 && kept_answers >= 5, "{lost_answers} answers lost, {kept_answers} kept");
    assert_eq!(
        scene.server.forms().iter().filter(|form| form["grant_type"] == "authorization_code").count(),
        1,
        "somebody had to consent again"
    );
}
