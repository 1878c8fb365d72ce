//! Several engines over one store.

use std::time::Duration;

use crate::world::*;

#[test]
fn calls_on_two_replicas_make_one_token_request() {
    run(async {
        let world = World::new().shared();
        world.server.delay(Duration::from_secs(5));
        let (one, two) = (world.connected(0).await, world.start().await);
        let (first, second) = (alice(), alice());
        let (first, second) = tokio::join!(call(&one, &first), call(&two, &second));
        assert_eq!(access_token(&first.unwrap()), "access-1");
        assert_eq!(access_token(&second.unwrap()), "access-1");
        assert_eq!(world.token_requests(), 1);
    });
}

#[test]
fn a_losers_invalid_grant_cannot_end_a_newer_grant() {
    run(async {
        let world = World::new().shared();
        let gateway = world.connected(0).await;
        world.server.plan(Answer::json(400, r#"{"error":"invalid_grant"}"#).delayed(Duration::from_secs(5)));
        let calling = gateway.clone();
        let loser = actix_rt::spawn(async move { call(&calling, &alice()).await });
        pass(1.0).await;
        let other = world.start().await;
        other.import_connection(&alice(), world.tokens(3600)).await.unwrap();
        assert!(loser.await.unwrap().is_ok(), "the newer grant is what counts");
        assert!(call(&other, &alice()).await.is_ok());
        assert_eq!(shown(&other, &alice()).await.0, "active");
        assert_eq!(world.token_requests(), 1);
    });
}

#[test]
fn a_rotated_refresh_token_wins_over_a_replica_that_only_meant_to_use_the_old_one() {
    run(async {
        let world = World::new().shared();
        let one = world.connected(0).await;
        world.server.delay(Duration::from_secs(1));
        let calling = one.clone();
        let first = actix_rt::spawn(async move { call(&calling, &alice()).await });
        pass(0.5).await;
        // The answer comes, and cannot be saved for longer than the mark lasts.
        world.faults.fail_next_commits(1_000_000);
        pass(40.0).await;
        assert!(first.await.unwrap().is_err());
        world.server.delay(Duration::from_secs(9));
        world.faults.fail_next_commits(0);
        let two = world.start().await;
        let late = call(&two, &alice()).await;
        assert_eq!(access_token(&late.unwrap()), "access-1");
        assert_eq!(access_token(&call(&one, &alice()).await.unwrap()), "access-1");
    });
}

#[test]
fn consent_given_on_one_replica_is_seen_by_the_other() {
    run(async {
        let world = World::new().shared();
        let (one, two) = (world.start().await, world.start().await);
        assert_eq!(needs_consent(&call(&two, &alice()).await), Some(Reason::NeverConnected));
        one.import_connection(&alice(), world.tokens(0)).await.unwrap();
        assert!(call(&two, &alice()).await.is_ok());
        world.server.revoke();
        let ended = one.refresh_connection(&alice()).await;
        assert!(ended.is_err());
        pass(3600.0).await;
        assert_eq!(needs_consent(&call(&two, &alice()).await), Some(Reason::GrantRevoked));
        one.import_connection(&alice(), world.tokens(3600)).await.unwrap();
        assert!(call(&two, &alice()).await.is_ok());
        assert_eq!(shown(&two, &alice()).await.0, "active");
        assert!(one.delete_connection(&alice()).await.unwrap());
        assert!(two.connection(&alice()).await.unwrap().is_none(), "deleted for all");
    });
}

#[test]
fn a_failed_refresh_does_not_look_like_one_under_way() {
    run(async {
        let world = World::new().shared();
        let (one, two) = (world.connected(0).await, world.start().await);
        world.server.plan(Answer::json(400, r#"{"error":"invalid_client"}"#));
        assert!(call(&one, &alice()).await.is_err());
        let begun = tokio::time::Instant::now();
        assert!(call(&two, &alice()).await.is_ok());
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    });
}
