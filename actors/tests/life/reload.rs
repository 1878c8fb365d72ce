//! Another configuration while the engine serves: as after a restart with it, but nothing is dropped.

use std::sync::Arc;
use std::time::Duration;

use claviger_actors::connection::OriginSet;
use claviger_actors::gateway::reload::ProfileChanges;
use claviger_actors::profile::{Profile, ProfileDigest};
use claviger_actors::protocol::identifiers::ProfileId;
use claviger_actors::proxy::route::RoutingTable;
use serde_json::json;

use crate::world::*;

const ELSEWHERE: &str = "https://elsewhere.example";

/// The world's profiles, made of `version`; `person` is at `0`, `robot` at `1`.
fn of(world: &World, version: [u8; 2]) -> Vec<Profile> {
    let numbered = world.profiles.clone().into_iter().zip(version);
    numbered.map(|(profile, n)| Profile { made_of: Some(ProfileDigest([n; 32])), ..profile }).collect()
}

async fn reload(gateway: &GatewayHandle, profiles: Vec<Profile>) -> ProfileChanges {
    let profiles = profiles.into_iter().map(Arc::new).collect();
    gateway.reload(profiles, RoutingTable::default()).await.unwrap()
}

/// Its tokens go upstream by another scheme.
fn schemed(profile: &mut Profile) {
    let quirks = Arc::make_mut(&mut profile.registration.provider.quirks);
    quirks.presentation.scheme = Some("token".to_owned());
}

fn named(name: &str) -> Vec<ProfileId> {
    vec![ProfileId::new(name).unwrap()]
}

fn robot() -> claviger_actors::protocol::identifiers::ConnectionId {
    id("robot", "robot")
}

#[test]
fn a_profile_made_of_the_same_is_left_alone() {
    run(async {
        let world = World::new();
        let gateway = world.start_with(of(&world, [0, 0])).await;
        let before = call(&gateway, &robot()).await.unwrap();
        let changes = reload(&gateway, of(&world, [1, 0])).await;
        assert_eq!(changes, ProfileChanges { changed: named("person"), ..ProfileChanges::default() });
        let published = gateway.connections().get(&robot()).expect("still published");
        assert!(Arc::ptr_eq(&before, &published));
        assert_eq!(world.token_requests(), 1);
    });
}

/// What cannot be told to be the same is not the same.
#[test]
fn a_profile_of_unknown_make_is_replaced() {
    run(async {
        let world = World::new();
        let gateway = world.start().await;
        call(&gateway, &robot()).await.unwrap();
        let changes = reload(&gateway, world.profiles.clone()).await;
        assert_eq!(changes.changed.len(), 2);
        assert!(gateway.connections().get(&robot()).is_none(), "withdrawn");
        let again = call(&gateway, &robot()).await.unwrap();
        assert_eq!(access_token(&again), "access-1", "and read again from the store");
        assert_eq!(world.token_requests(), 1);
    });
}

#[test]
fn a_rotated_client_secret_works_at_once() {
    run(async {
        let world = World::new();
        let gateway = world.start_with(of(&world, [0, 0])).await;
        world.server.plan(Answer::json(401, json!({ "error": "invalid_client" })));
        assert!(matches!(call(&gateway, &robot()).await, Err(TokenError::ClientMisconfigured { .. })));
        reload(&gateway, of(&world, [0, 1])).await;
        let begun = world.clock.now();
        assert!(call(&gateway, &robot()).await.is_ok());
        assert_eq!(world.clock.now().since(begun), Duration::from_millis(50), "nothing holds it back");
        assert_eq!(world.token_requests(), 2);
    });
}

/// A flight that began before the reload has the connection until it lands; who comes later waits.
#[test]
fn a_refresh_under_way_is_waited_for() {
    run(async {
        let world = World::new();
        world.server.delay(Duration::from_secs(2));
        let gateway = world.start_with(of(&world, [0, 0])).await;
        gateway.import_connection(&alice(), world.tokens(10)).await.unwrap();
        pass(11.0).await;
        let (handle, connection) = (gateway.clone(), alice());
        let early = actix_rt::spawn(async move { call(&handle, &connection).await });
        pass(1.0).await;
        reload(&gateway, of(&world, [1, 1])).await;
        let late = call(&gateway, &alice()).await.unwrap();
        assert_eq!(access_token(&late), "access-1", "the refresh token was used once");
        assert_eq!(access_token(&early.await.unwrap().unwrap()), "access-1");
        assert_eq!(world.token_requests(), 1);
    });
}

/// The old secret is refused after the reload; whoever came with the new one must not hear of it.
#[test]
fn a_failure_of_the_earlier_configuration_is_not_passed_on() {
    run(async {
        let world = World::new();
        let gateway = world.start_with(of(&world, [0, 0])).await;
        let refusal = Answer::json(401, json!({ "error": "invalid_client" }));
        world.server.plan(refusal.delayed(Duration::from_secs(2)));
        let handle = gateway.clone();
        let early = actix_rt::spawn(async move { call(&handle, &robot()).await });
        pass(1.0).await;
        reload(&gateway, of(&world, [0, 1])).await;
        let late = call(&gateway, &robot()).await;
        assert!(late.is_ok(), "{late:?}");
        drop(early.await);
        assert!(call(&gateway, &robot()).await.is_ok());
        assert_eq!(world.token_requests(), 2, "one after the other");
    });
}

/// What an exchange publishes follows the rules that it began with: those must not outlive the reload.
#[test]
fn what_lands_after_the_reload_is_presented_by_todays_rules() {
    run(async {
        let world = World::new();
        world.server.delay(Duration::from_secs(2));
        let gateway = world.start_with(of(&world, [0, 0])).await;
        let handle = gateway.clone();
        let early = actix_rt::spawn(async move { call(&handle, &robot()).await });
        pass(1.0).await;
        let mut profiles = of(&world, [0, 1]);
        schemed(&mut profiles[1]);
        reload(&gateway, profiles).await;
        early.await.unwrap().unwrap();
        let connection = call(&gateway, &robot()).await.unwrap();
        let published = gateway.connections().get(&robot()).unwrap();
        for connection in [connection, published] {
            assert_eq!(connection.authorization(world.clock.now()).unwrap(), "token access-1");
        }
        assert_eq!(world.token_requests(), 1);
    });
}

#[test]
fn a_token_set_that_is_not_durable_yet_survives() {
    run(async {
        let world = World::new();
        let gateway = world.start_with(of(&world, [0, 0])).await;
        gateway.import_connection(&alice(), world.tokens(10)).await.unwrap();
        pass(11.0).await;
        let faults = world.faults.clone();
        world.server.answers(move |_, _| faults.fail_next_commits(1_000_000));
        assert!(call(&gateway, &alice()).await.is_err(), "not durable");
        reload(&gateway, of(&world, [1, 1])).await;
        let refused = call(&gateway, &alice()).await;
        assert!(matches!(refused, Err(TokenError::StoreUnavailable { .. })), "{refused:?}");
        world.faults.fail_next_commits(0);
        pass(60.0).await;
        assert_eq!(access_token(&call(&gateway, &alice()).await.unwrap()), "access-1");
        assert_eq!(world.token_requests(), 1, "the only copy of the new refresh token was kept");
    });
}

/// A reload ends where a restart with the same file ends.
#[test]
fn what_a_token_set_is_bound_to_counts_as_after_a_restart() {
    let outcomes = |restarts: bool, change: fn(&mut Profile), origin: &'static str| {
        let told = Arc::new(parking_lot::Mutex::new(String::new()));
        let tell = told.clone();
        run(async move {
            let world = World::new();
            let gateway = world.start_with(of(&world, [0, 0])).await;
            gateway.import_connection(&alice(), world.tokens(100)).await.unwrap();
            call(&gateway, &robot()).await.unwrap();
            let mut profiles = of(&world, [1, 1]);
            profiles.iter_mut().for_each(change);
            let gateway = if restarts {
                world.start_with(profiles).await
            } else {
                reload(&gateway, profiles).await;
                gateway
            };
            for connection in [alice(), robot()] {
                for wait in [0.0, 101.0] {
                    pass(wait).await;
                    let call = gateway.access_token(
                        &connection,
                        Arc::from(origin),
                        None,
                        CallContext::none(),
                        Duration::from_secs(30),
                    );
                    let answer = call.await.map(|connection| access_token(&connection).to_owned());
                    let shown = shown(&gateway, &connection).await;
                    *tell.lock() += &format!("{connection}: {answer:?} {shown:?}\n");
                }
            }
            *tell.lock() += &format!("{} requests", world.token_requests());
        });
        told.lock().clone()
    };
    let changes: [fn(&mut Profile); 4] = [
        |_| {},
        |profile| profile.origins = OriginSet::new([ORIGIN.to_owned(), ELSEWHERE.to_owned()]),
        |profile| profile.registration.credential = "another".to_owned(),
        |profile| {
            let url = "https://other-as.example/token".parse().unwrap();
            profile.registration.provider.endpoints.token_endpoint = Some(url);
        },
    ];
    for change in changes {
        for origin in [ORIGIN, ELSEWHERE] {
            assert_eq!(outcomes(false, change, origin), outcomes(true, change, origin));
        }
    }
}

#[test]
fn a_profile_that_is_gone_is_let_go_and_may_come_back() {
    run(async {
        let world = World::new();
        world.server.delay(Duration::from_secs(8));
        let gateway = world.start_with(of(&world, [0, 0])).await;
        let handle = gateway.clone();
        let early = actix_rt::spawn(async move { call(&handle, &robot()).await });
        pass(1.0).await;
        let changes = reload(&gateway, of(&world, [0, 0]).into_iter().take(1).collect()).await;
        assert_eq!(changes.removed, named("robot"));
        assert!(gateway.profile(&named("robot")[0]).is_none());
        assert!(gateway.inspect().await.iter().all(|report| report.id != "robot"), "not shown");
        // Back while its first exchange is still under way: no second one beside it.
        let changes = reload(&gateway, of(&world, [0, 0])).await;
        assert_eq!(changes.added, named("robot"));
        let late = call(&gateway, &robot()).await.unwrap();
        assert_eq!(access_token(&late), "access-1");
        assert!(early.await.unwrap().is_ok(), "what was under way was finished");
        assert_eq!(world.token_requests(), 1);

        reload(&gateway, of(&world, [0, 0]).into_iter().take(1).collect()).await;
        assert!(call(&gateway, &robot()).await.is_ok(), "a call that found its route just before");
        assert!(gateway.connections().get(&robot()).is_none(), "and which publishes nothing");
        pass(6.0).await;
        assert!(matches!(call(&gateway, &robot()).await, Err(TokenError::Ask { .. })));
    });
}

#[test]
fn a_consent_that_is_under_way_is_finished_by_todays_rules() {
    run(async {
        let world = World::new();
        let gateway = world.start_with(of(&world, [0, 0])).await;
        let begun = gateway.begin_authorization(alice(), None, None, CallContext::none()).await.unwrap();
        let mut profiles = of(&world, [1, 0]);
        schemed(&mut profiles[0]);
        reload(&gateway, profiles).await;
        let state = begun.url.query_pairs().find(|(name, _)| name == "state").unwrap().1.into_owned();
        let response = claviger_actors::protocol::authorization_response::AuthorizationResponse::parse(
            &format!("state={state}&code=a-code"),
        )
        .unwrap();
        gateway.accept_authorization_response(response, Some(begun.browser)).await.unwrap();
        let connection = call(&gateway, &alice()).await.unwrap();
        assert_eq!(connection.authorization(world.clock.now()).unwrap(), "token access-1");
    });
}
