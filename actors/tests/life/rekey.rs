//! A connection moves under another subject: never held twice, never lost, wherever it is cut off.

use std::time::Duration;

use claviger_actors::gateway::people::{Moved, NewSubject};
use claviger_actors::protocol::identifiers::{ConnectionId, Subject};
use claviger_actors::protocol::token::{IdentityClaims, TokenSet};

use crate::world::*;

fn anonymous() -> ConnectionId {
    id("person", "anonymous-1")
}

fn to_alice() -> NewSubject {
    NewSubject::Named(Subject::new("alice").unwrap())
}

/// An engine in which only the anonymous session is connected, with a token that has ended.
async fn with_anonymous(world: &World) -> GatewayHandle {
    let gateway = world.start().await;
    gateway.import_connection(&anonymous(), world.tokens(0)).await.unwrap();
    gateway
}

async fn rekey(gateway: &GatewayHandle, to: NewSubject, replace: bool) -> Result<Moved, TokenError> {
    gateway.rekey_connection(&anonymous(), to, replace).await
}

async fn is_there(gateway: &GatewayHandle, id: &ConnectionId) -> bool {
    gateway.connection(id).await.unwrap().is_some()
}

#[test]
fn the_token_set_is_used_under_its_new_subject_and_no_longer_under_the_old_one() {
    run(async {
        let world = World::new();
        let gateway = with_anonymous(&world).await;
        let before = call(&gateway, &anonymous()).await.unwrap();
        let Moved::Done(view) = rekey(&gateway, to_alice(), false).await.unwrap() else { panic!("moved") };
        assert_eq!((view.subject.as_str(), view.state), ("alice", "active"));
        assert_eq!(view.created_at, before.created_at.to_string());
        for gateway in [gateway, world.start().await] {
            assert_eq!(access_token(&call(&gateway, &alice()).await.unwrap()), "access-1");
            assert!(needs_consent(&call(&gateway, &anonymous()).await).is_some());
            assert!(!is_there(&gateway, &anonymous()).await);
        }
        assert_eq!(world.token_requests(), 1);
        pass(4000.0).await;
        let again = world.start().await;
        assert_eq!(access_token(&call(&again, &alice()).await.unwrap()), "access-2");
    });
}

#[test]
fn what_is_there_is_replaced_only_if_asked() {
    run(async {
        let world = World::new();
        let gateway = with_anonymous(&world).await;
        let other = TokenSet { refresh_token: None, ..world.tokens(3600) };
        gateway.import_connection(&alice(), other).await.unwrap();
        let Moved::Taken(there) = rekey(&gateway, to_alice(), false).await.unwrap() else { panic!("taken") };
        assert_eq!(there, alice());
        assert!(is_there(&gateway, &anonymous()).await);
        assert_eq!(access_token(&call(&gateway, &alice()).await.unwrap()), "access-0");
        assert_eq!(world.token_requests(), 0, "alice's own is in use yet");

        assert!(matches!(rekey(&gateway, to_alice(), true).await.unwrap(), Moved::Done(_)));
        assert!(!is_there(&gateway, &anonymous()).await);
        assert_eq!(access_token(&call(&gateway, &alice()).await.unwrap()), "access-1");
    });
}

#[test]
fn the_id_token_may_name_the_new_subject() {
    run(async {
        let world = World::new();
        let gateway = with_anonymous(&world).await;
        let Moved::Unfit(why) = rekey(&gateway, NewSubject::IdTokenSub, false).await.unwrap() else {
            panic!()
        };
        assert!(why.contains("ID token"), "{why}");
        let identity = IdentityClaims { iss: "https://as.example".into(), sub: "sub-alice".into() };
        let tokens = TokenSet { identity: Some(identity), ..world.tokens(3600) };
        gateway.import_connection(&anonymous(), tokens).await.unwrap();
        assert!(matches!(rekey(&gateway, NewSubject::IdTokenSub, false).await.unwrap(), Moved::Done(_)));
        assert!(call(&gateway, &id("person", "sub-alice")).await.is_ok());
    });
}

#[test]
fn what_cannot_be_moved_is_told() {
    run(async {
        let world = World::new();
        let gateway = world.start().await;
        assert!(matches!(rekey(&gateway, to_alice(), false).await.unwrap(), Moved::NoConnection));
        gateway.import_connection(&anonymous(), world.tokens(0)).await.unwrap();
        let same = NewSubject::Named(anonymous().subject);
        assert!(matches!(rekey(&gateway, same, true).await.unwrap(), Moved::Unfit(_)));
        world.server.revoke();
        assert!(needs_consent(&call(&gateway, &anonymous()).await).is_some());
        assert!(matches!(rekey(&gateway, to_alice(), false).await.unwrap(), Moved::Unfit(_)));
    });
}

/// Cut off after so many of the three writes; what is there afterwards.
async fn cut_off_after(writes: u32, replace: bool) -> (World, GatewayHandle) {
    let world = World::new();
    let gateway = with_anonymous(&world).await;
    if replace {
        let other = TokenSet { refresh_token: None, ..world.tokens(0) };
        gateway.import_connection(&alice(), other).await.unwrap();
    }
    world.faults.delay_commits(Duration::from_secs(1));
    let moving = actix_rt::spawn(async move { rekey(&gateway, to_alice(), replace).await.map(drop) });
    pass(f64::from(writes) + 0.5).await;
    world.faults.fail_next_commits(1_000_000);
    world.faults.crash();
    assert!(moving.await.unwrap().is_err(), "it was cut off");
    world.faults.fail_next_commits(0);
    world.faults.delay_commits(Duration::ZERO);
    let again = world.start().await;
    (world, again)
}

#[test]
fn wherever_it_is_cut_off_one_of_the_two_can_be_used() {
    run(async {
        for (writes, replace) in [(0, false), (1, false), (2, false), (0, true), (1, true), (2, true)] {
            for old_first in [true, false] {
                let (world, gateway) = cut_off_after(writes, replace).await;
                let order = if old_first { [anonymous(), alice()] } else { [alice(), anonymous()] };
                for one in order.iter().chain(&order) {
                    let _ = call(&gateway, one).await;
                }
                let case = format!("cut off after {writes} writes, {order:?}");
                // Each refresh token is good once: had it been used under both names, one would be dead.
                let holder = if writes == 0 { anonymous() } else { alice() };
                assert_eq!(access_token(&call(&gateway, &holder).await.unwrap()), "access-1", "{case}");
                assert_eq!(world.token_requests(), 1, "{case}");
                let other = if writes == 0 { alice() } else { anonymous() };
                assert!(call(&gateway, &other).await.is_err(), "{case}");
                assert_eq!(is_there(&gateway, &other).await, replace && writes == 0, "{case}");
                pass(4000.0).await;
                assert_eq!(access_token(&call(&gateway, &holder).await.unwrap()), "access-2", "{case}");
            }
        }
    });
}

#[test]
fn a_move_that_was_cut_off_can_be_asked_for_again() {
    run(async {
        for (writes, replace) in [(0, false), (1, false), (2, false), (0, true), (1, true), (2, true)] {
            let (_world, gateway) = cut_off_after(writes, replace).await;
            let again = rekey(&gateway, to_alice(), replace).await.unwrap();
            assert!(matches!(again, Moved::Done(_)), "cut off after {writes} writes: {again:?}");
            assert_eq!(access_token(&call(&gateway, &alice()).await.unwrap()), "access-1");
            assert!(!is_there(&gateway, &anonymous()).await);
        }
    });
}

#[test]
fn who_connects_the_new_subject_meanwhile_is_not_overwritten() {
    run(async {
        let (world, gateway) = cut_off_after(1, false).await;
        let own = TokenSet { refresh_token: None, ..world.tokens(3600) };
        gateway.import_connection(&alice(), own).await.unwrap();
        assert!(matches!(rekey(&gateway, to_alice(), false).await.unwrap(), Moved::Taken(_)));
        assert_eq!(access_token(&call(&gateway, &alice()).await.unwrap()), "access-0");
        assert_eq!(access_token(&call(&gateway, &anonymous()).await.unwrap()), "access-1");
    });
}

#[test]
fn a_refresh_under_way_elsewhere_is_not_moved_away_from_under_it() {
    run(async {
        let world = World::new().shared();
        let one = with_anonymous(&world).await;
        let two = world.start().await;
        world.server.delay(Duration::from_secs(2));
        let calling = one.clone();
        let refresh = actix_rt::spawn(async move { call(&calling, &anonymous()).await });
        pass(1.0).await;
        assert!(matches!(rekey(&two, to_alice(), false).await, Err(TokenError::Aborted { .. })));
        assert_eq!(access_token(&refresh.await.unwrap().unwrap()), "access-1");
        assert!(matches!(rekey(&two, to_alice(), false).await.unwrap(), Moved::Done(_)));
        assert_eq!(access_token(&call(&one, &alice()).await.unwrap()), "access-1");
        // The other replica may use what it has read until it ends, and refreshes it no more.
        pass(4000.0).await;
        assert!(needs_consent(&call(&one, &anonymous()).await).is_some());
        assert_eq!(access_token(&call(&one, &alice()).await.unwrap()), "access-2");
    });
}

#[test]
fn names_that_say_what_a_token_was_obtained_with_are_kept() {
    run(async {
        let world = World::exchange();
        let gateway = world.start().await;
        let from = id("exchange", "alice~digest");
        gateway.import_connection(&from, world.tokens(3600)).await.unwrap();
        let moved = gateway.rekey_connection(&from, to_alice(), false).await.unwrap();
        assert!(matches!(moved, Moved::Unfit(_)), "{moved:?}");
    });
}
