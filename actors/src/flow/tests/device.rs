//! Authorizations on other devices: when the provider is asked, and how it ends.

use super::*;
use crate::provider::messages::DevicePoll;

const PAGE: &str = "page";

/// Seconds between one poll and the next, the first counted from `begun`.
fn pauses(world: &World, begun: tokio::time::Instant) -> Vec<u64> {
    let times: Vec<_> =
        std::iter::once(begun).chain(world.device.polls().into_iter().map(|(at, _)| at)).collect();
    times.windows(2).map(|pair| (pair[1] - pair[0]).as_secs()).collect()
}

fn later(after: Option<u64>) -> Result<DevicePoll, ()> {
    Ok(DevicePoll::Later { after: after.map(Duration::from_secs), detail: "it answered 503".into() })
}

#[test]
fn it_asks_at_the_interval_until_the_person_has_decided() {
    run_paused(async {
        let world = World::new();
        world.device.polls_bring([
            Ok(DevicePoll::Pending),
            Ok(DevicePoll::Pending),
            Ok(DevicePoll::Connected),
        ]);
        let begun = tokio::time::Instant::now();
        let view = world.begin_device("alice", PAGE).await.unwrap();
        assert_eq!((view.user_code.as_str(), view.expires_in, view.interval), ("WDJB-1", 300, 5));
        assert!(view.outcome.is_none());
        let asked = world.device.devices().remove(0);
        let scope = ("scope".to_owned(), "calendar openid".to_owned());
        assert!(asked.contains(&scope), "{asked:?}");
        assert_eq!(world.store.len(), 1, "durable before it is shown");

        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(pauses(&world, begun), [5, 5, 5]);
        assert!(world.device.polls().iter().all(|(_, code)| code == "device-code-1"));
        let outcome = world.device(PAGE).await.unwrap().outcome.unwrap().unwrap();
        assert_eq!(
            (outcome.connection.subject.as_str(), outcome.return_to.as_deref()),
            ("alice", Some("/home"))
        );
        assert_eq!(world.store.len(), 0);
        tokio::time::sleep(Duration::from_secs(121)).await;
        assert!(world.device(PAGE).await.is_none());
        assert_eq!(world.flows_running().await, 0);
    });
}

#[test]
fn it_slows_down_when_told_and_backs_off_while_the_provider_fails() {
    run_paused(async {
        let world = World::new();
        world.device.polls_bring([
            Ok(DevicePoll::SlowDown),
            Ok(DevicePoll::Pending),
            later(None),
            later(None),
            later(Some(70)),
            Ok(DevicePoll::Pending),
            Ok(DevicePoll::Connected),
        ]);
        let begun = tokio::time::Instant::now();
        world.begin_device("alice", PAGE).await.unwrap();
        tokio::time::sleep(Duration::from_secs(250)).await;
        assert_eq!(pauses(&world, begun), [5, 10, 10, 20, 40, 70, 10]);
        assert!(world.device(PAGE).await.unwrap().outcome.unwrap().is_ok());
    });
}

#[test]
fn a_no_an_end_and_a_dead_code_end_it() {
    run_paused(async {
        for (answer, code) in [
            (Ok(DevicePoll::Denied), Some("access_denied")),
            (Ok(DevicePoll::Expired), Some("expired_token")),
            (Err(()), None),
        ] {
            let world = World::new();
            world.device.polls_bring([answer]);
            world.begin_device("alice", PAGE).await.unwrap();
            tokio::time::sleep(Duration::from_secs(30)).await;
            let outcome = world.device(PAGE).await.unwrap().outcome.unwrap();
            match code {
                Some(code) => {
                    assert!(matches!(&outcome, Err(FlowError::Refused { code: c, .. }) if c == code))
                }
                None => assert!(matches!(outcome, Err(FlowError::Token { .. })), "{outcome:?}"),
            }
            assert_eq!((world.device.polls().len(), world.store.len()), (1, 0));
        }
    });
}

#[test]
fn it_stops_when_the_codes_have_ended() {
    run_paused(async {
        let world = World::new();
        world.begin_device("alice", PAGE).await.unwrap();
        tokio::time::sleep(Duration::from_secs(301)).await;
        let polls = world.device.polls().len();
        assert_eq!(polls, 59);
        let outcome = world.device(PAGE).await.unwrap().outcome.unwrap();
        assert!(matches!(outcome, Err(FlowError::Refused { code, .. }) if code == "expired_token"));
        tokio::time::sleep(Duration::from_secs(300)).await;
        assert_eq!(world.device.polls().len(), polls);
        assert_eq!((world.flows_running().await, world.store.len()), (0, 0));
    });
}

#[test]
fn it_goes_on_after_a_restart_of_actor_registrar_and_process() {
    run_paused(async {
        let world = World::new();
        world.begin_device("alice", PAGE).await.unwrap();
        assert!(world.supervisor.inject_panic(ActorKind::Flow, &StateHash::of(PAGE).short()).await);
        assert!(world.supervisor.inject_panic(ActorKind::Flow, "registrar").await);
        world.settle().await;
        tokio::time::sleep(Duration::from_secs(21)).await;
        let polls = world.device.polls().len();
        assert!((3..=4).contains(&polls), "one actor polls: {polls}");

        // Another process finds the record as this one left it.
        let record = world.store.flow(StateHash::of(PAGE)).unwrap();
        world.device.polls_bring([Ok(DevicePoll::Denied)]);
        tokio::time::sleep(Duration::from_secs(5)).await;
        world.store.put(record);
        world.device.polls_bring([Ok(DevicePoll::Pending), Ok(DevicePoll::Connected)]);
        let restarted = world.replica();
        assert!(restarted.device(PAGE).await.is_some(), "at once, though it is not revived yet");
        tokio::time::sleep(Duration::from_secs(15)).await;
        let view = restarted.device(PAGE).await.unwrap();
        assert_eq!(view.user_code, "WDJB-1");
        assert!(view.outcome.unwrap().is_ok());
    });
}

#[test]
fn limits_hold_and_the_oldest_of_a_connection_gives_way() {
    run_paused(async {
        let world = World::limited(FlowLimits { pending: 7, ..FlowLimits::default() });
        for n in 0..6 {
            world.begin_device("alice", &n.to_string()).await.unwrap();
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        world.settle().await;
        assert!(world.device("0").await.is_none() && world.device("1").await.is_some());
        assert_eq!((world.flows_running().await, world.store.len()), (5, 5));
        world.begin_device("bob", "b").await.unwrap();
        world.begin("alice", None).await.unwrap();
        assert!(matches!(world.begin_device("carol", "c").await, Err(FlowError::TooMany)));
        assert!(matches!(world.begin("carol", None).await, Err(FlowError::TooMany)));
    });
}

#[test]
fn no_browser_can_finish_it_and_nothing_secret_is_shown() {
    run_paused(async {
        let world = World::new();
        world.begin_device("alice", PAGE).await.unwrap();
        assert!(is_invalid(&world.accept(code(PAGE), Some(&Secret::new(PAGE))).await));
        assert!(matches!(world.begin_at("tv", "alice", None).await, Err(FlowError::OtherConsent(_))));
        let reports = serde_json::to_string(&world.supervisor.inspect().await).unwrap();
        assert!(reports.contains("\"state\":\"polling\""), "{reports}");
        for secret in ["device-code", "WDJB"] {
            assert!(
                !reports.contains(secret)
                    && !format!("{:?}", world.device(PAGE).await).contains("device-code")
            );
        }
        assert!(world.provider.redeemed().is_empty());
    });
}
