//! Every connection of a profile, revoked at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use claviger_actors::protocol::identifiers::{ConnectionId, ProfileId};
use claviger_actors::provider::messages::RevocationCounts;
use claviger_actors::store::{Expected, RecordKey, Table, TokenStore as _, Write};
use claviger_actors::transport::TransportError;
use futures_util::future::join_all;
use serde_json::json;

use crate::world::*;

fn counts(revoked: u64, failed: u64, not_told: u64) -> RevocationCounts {
    RevocationCounts { revoked, failed, not_told, more: false }
}

fn person() -> ProfileId {
    ProfileId::new("person").unwrap()
}

/// People with connections that end in an hour.
async fn connected(world: &World, gateway: &GatewayHandle, people: usize) -> Vec<ConnectionId> {
    let people: Vec<_> = (0..people).map(|n| id("person", &format!("p{n:04}"))).collect();
    let imports = people.iter().map(|id| gateway.import_connection(id, world.tokens(3600)));
    for imported in join_all(imports).await {
        imported.unwrap();
    }
    people
}

/// A world whose revocation endpoint answers so.
fn revoking(answer: impl Fn() -> Answer + Send + Sync + 'static) -> World {
    let mut world = World::new();
    let server = world.server.clone();
    world.transport = ScriptedTransport::new(move |request| match request.url.path() {
        "/revoke" => answer(),
        _ => Answer::json(404, json!({ "server": Arc::strong_count(&server) })),
    });
    world
}

async fn left(gateway: &GatewayHandle) -> usize {
    gateway.list_connections(None, None, None, 1000).await.unwrap().connections.len()
}

#[test]
fn all_of_a_profile_and_nothing_else() {
    run(async {
        let world = World::new();
        let gateway = world.start().await;
        let people = connected(&world, &gateway, 450).await;
        let robot = id("robot", "r");
        gateway.import_connection(&robot, world.tokens(3600)).await.unwrap();
        assert_eq!(gateway.revoke_all(&person()).await.unwrap(), counts(450, 0, 0));
        for person in &people {
            assert_eq!(needs_consent(&call(&gateway, person).await), Some(Reason::NeverConnected));
        }
        assert_eq!(left(&gateway).await, 1);
        let sent = world.transport.sent();
        assert_eq!(sent.len(), 900, "the refresh token and the access token of each");
        assert_eq!(sent[0].param("token_type_hint"), "refresh_token");
        assert_eq!(gateway.revoke_all(&person()).await.unwrap(), counts(0, 0, 0), "it can be repeated");
    });
}

#[test]
fn a_few_at_a_time() {
    run(async {
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (under_way, highest) = (now.clone(), most.clone());
        let world = revoking(move || {
            let running = under_way.fetch_add(1, Ordering::SeqCst) + 1;
            highest.fetch_max(running, Ordering::SeqCst);
            let done = under_way.clone();
            actix_rt::spawn(async move {
                pass(0.09).await;
                done.fetch_sub(1, Ordering::SeqCst);
            });
            Answer::json(200, "{}").delayed(Duration::from_millis(100))
        });
        let gateway = world.start().await;
        connected(&world, &gateway, 40).await;
        assert_eq!(gateway.revoke_all(&person()).await.unwrap(), counts(40, 0, 0));
        let most = most.load(Ordering::SeqCst);
        assert!((2..=8).contains(&most), "{most} at a time");
    });
}

#[test]
fn a_provider_that_is_down_is_asked_a_few_times_and_all_is_forgotten() {
    run(async {
        let world = revoking(|| {
            Answer::failed(TransportError::Timeout {
                authority: "as.example".into(),
                after: Duration::from_secs(10),
            })
            .delayed(Duration::from_secs(9))
        });
        let gateway = world.start().await;
        connected(&world, &gateway, 300).await;
        assert_eq!(gateway.revoke_all(&person()).await.unwrap(), counts(0, 0, 300));
        assert_eq!(left(&gateway).await, 0);
        let asked = world.transport.count();
        assert!((5..=20).contains(&asked), "{asked} requests");
    });
}

#[test]
fn what_the_time_did_not_suffice_for_is_left_for_the_next_request() {
    run(async {
        let world = revoking(|| Answer::json(200, "{}").delayed(Duration::from_secs(2)));
        let gateway = world.start().await;
        connected(&world, &gateway, 60).await;
        let begun = tokio::time::Instant::now();
        let first = gateway.revoke_all(&person()).await.unwrap();
        assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
        assert!(first.more && first.revoked > 0 && first.revoked < 60, "{first:?}");
        assert_eq!(left(&gateway).await as u64, 60 - first.revoked);
        let mut revoked = first.revoked;
        // A restart in the middle changes nothing.
        let gateway = world.start().await;
        for _ in 0..10 {
            let next = gateway.revoke_all(&person()).await.unwrap();
            revoked += next.revoked;
            if !next.more {
                break;
            }
        }
        assert_eq!((revoked, left(&gateway).await), (60, 0));
    });
}

#[test]
fn what_cannot_be_forgotten_counts_as_failed() {
    run(async {
        let world = World::new();
        let gateway = world.start().await;
        let people = connected(&world, &gateway, 5).await;
        world.faults.fail_next_commits(1_000_000);
        let told = gateway.revoke_all(&person()).await.unwrap();
        assert_eq!((told.failed, told.revoked, told.not_told), (5, 0, 0));
        world.faults.fail_next_commits(0);
        assert_eq!(gateway.revoke_all(&person()).await.unwrap(), counts(5, 0, 0));
        assert_eq!(needs_consent(&call(&gateway, &people[0]).await), Some(Reason::NeverConnected));
    });
}

#[test]
fn tokens_that_nobody_can_be_told_of_count_as_such() {
    run(async {
        let mut world = World::new();
        world.profiles[0].registration.provider.endpoints.revocation_endpoint = None;
        let gateway = world.start().await;
        connected(&world, &gateway, 3).await;
        assert_eq!(gateway.revoke_all(&person()).await.unwrap(), counts(0, 0, 3));
        assert_eq!(world.transport.count(), 0);
    });
}

#[test]
fn a_call_under_way_leaves_no_stale_token_behind() {
    run(async {
        let world = World::new();
        world.server.delay(Duration::from_secs(3));
        let gateway = world.connected(0).await;
        let calling = gateway.clone();
        let refreshing = actix_rt::spawn(async move { call(&calling, &alice()).await });
        pass(1.0).await;
        let told = gateway.revoke_all(&person()).await.unwrap();
        assert_eq!(told, counts(1, 0, 0));
        assert!(refreshing.await.unwrap().is_ok(), "it was answered before");
        assert_eq!(needs_consent(&call(&gateway, &alice()).await), Some(Reason::NeverConnected));
        let revoked: Vec<_> = world
            .transport
            .sent()
            .into_iter()
            .filter(|request| request.url.path() == "/revoke")
            .map(|request| request.param("token").to_owned())
            .collect();
        assert_eq!(revoked, ["refresh-1", "access-1"], "what the call brought is revoked, too");
    });
}

#[test]
fn what_cannot_be_read_is_forgotten_as_well() {
    run(async {
        let world = World::new();
        let gateway = world.start().await;
        let people = connected(&world, &gateway, 3).await;
        let key = RecordKey([b"person\0", people[1].subject.as_str().as_bytes()].concat());
        let value = Some(b"no record of ours".to_vec());
        let write = Write { table: Table::Connection, key, value, expected: Expected::Anything };
        world.store.commit(vec![write]).await.unwrap();
        let gateway = world.start().await;
        assert_eq!(gateway.revoke_all(&person()).await.unwrap(), counts(2, 0, 1));
        assert_eq!(gateway.revoke_all(&person()).await.unwrap(), counts(0, 0, 0));
    });
}

#[test]
fn where_no_person_is_asked_the_next_call_gets_a_new_token() {
    run(async {
        let world = World::new();
        let gateway = world.start().await;
        let robots: Vec<_> = (0..30).map(|n| id("robot", &format!("r{n}"))).collect();
        let before = join_all(robots.iter().map(|robot| call(&gateway, robot))).await;
        let before: Vec<_> = before.iter().map(|answer| access_token(answer.as_ref().unwrap())).collect();
        let robot = ProfileId::new("robot").unwrap();
        // Calls go on all the while.
        let calls = async {
            for _ in 0..20 {
                for answer in join_all(robots.iter().map(|robot| call(&gateway, robot))).await {
                    answer.unwrap();
                }
                pass(0.01).await;
            }
        };
        let (told, ()) = tokio::join!(gateway.revoke_all(&robot), calls);
        let told = told.unwrap();
        assert!(told.revoked >= 30 && told.failed == 0 && told.not_told == 0, "{told:?}");
        let revoked: Vec<_> = world
            .transport
            .sent()
            .into_iter()
            .filter(|request| request.url.path() == "/revoke")
            .map(|request| request.param("token").to_owned())
            .collect();
        for answer in join_all(robots.iter().map(|robot| call(&gateway, robot))).await {
            let token = access_token(answer.as_ref().unwrap()).to_owned();
            assert!(!revoked.contains(&token) && !before.contains(&token.as_str()), "{token} is stale");
        }
    });
}
