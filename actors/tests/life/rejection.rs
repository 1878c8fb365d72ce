//! What an upstream's 401 does, and teaches.

use serde_json::Value;

use crate::world::*;

#[test]
fn a_refused_token_is_replaced_once_for_all_who_were_refused() {
    run(async {
        let world = World::new();
        let gateway = world.connected(3600).await;
        let alice = alice();
        let refused = call(&gateway, &alice).await.unwrap();
        let answers =
            futures_util::future::join_all((0..100).map(|_| call_again(&gateway, &alice, &refused))).await;
        assert!(answers.into_iter().all(|answer| access_token(&answer.unwrap()) == "access-1"));
        let late = call_again(&gateway, &alice, &refused).await.unwrap();
        assert_eq!(access_token(&late), "access-1");
        assert_eq!(world.token_requests(), 1);
    });
}

#[test]
fn an_upstream_that_refuses_every_token_causes_few_token_requests() {
    for clock_step in [0, -3600] {
        run(async move {
            let world = World::new();
            let gateway = world.connected(36_000).await;
            for second in 0..100 {
                if second == 50 {
                    world.clock.step(clock_step);
                }
                let refused = call(&gateway, &alice()).await.unwrap();
                call_again(&gateway, &alice(), &refused).await.unwrap();
                pass(1.0).await;
            }
            let requests = world.token_requests();
            assert!((10..=25).contains(&requests), "{requests} requests in 100 s, clock set by {clock_step}");
        });
    }
}

#[test]
fn unknown_expiry_is_learned_from_an_upstreams_refusal() {
    run(async {
        let world = World::new();
        world.server.expires_in(Value::Null);
        let gateway = world.connected(0).await;
        let first = call(&gateway, &alice()).await.unwrap();
        assert!(!first.state.tokens().unwrap().expiry.is_stated());
        pass(600.0).await;
        let second = call_again(&gateway, &alice(), &first).await.unwrap();
        let lifetime = second.state.tokens().unwrap().lifetime().as_secs();
        assert_eq!(lifetime, 600);
        let third = gateway.refresh_connection(&alice()).await.unwrap();
        assert_eq!(third.expiry, Some("presumed"));
        pass(5.0).await;
        let again = world.start().await;
        let after_restart = again.refresh_connection(&alice()).await.unwrap();
        assert_ne!(after_restart.expires_at, third.expires_at);
        let lifetime = call(&again, &alice()).await.unwrap().state.tokens().unwrap().lifetime().as_secs();
        assert_eq!(lifetime, 600, "what was learned lasts");
    });
}

#[test]
fn a_refusal_right_after_a_token_came_teaches_nothing_about_its_end() {
    run(async {
        let world = World::new();
        world.server.expires_in(Value::Null);
        let gateway = world.connected(0).await;
        let first = call(&gateway, &alice()).await.unwrap();
        // Refused for another reason, such as a missing permission.
        let second = call_again(&gateway, &alice(), &first).await.unwrap();
        assert_eq!(access_token(&second), "access-2");
        assert_eq!(second.state.tokens().unwrap().lifetime().as_secs(), 3600);
    });
}

#[test]
fn a_refused_token_that_cannot_be_renewed_asks_for_consent_once_it_is_taken_to_have_ended() {
    run(async {
        let world = World::new();
        let gateway = world.start().await;
        let mut tokens = world.tokens(3600);
        tokens.refresh_token = None;
        tokens.expiry = claviger_actors::protocol::token::Expiry::Presumed {
            at: tokens.expiry.at(),
            basis: claviger_actors::protocol::token::ExpiryBasis::Guess,
        };
        gateway.import_connection(&alice(), tokens).await.unwrap();
        let connection = call(&gateway, &alice()).await.unwrap();
        assert_eq!(
            needs_consent(&call_again(&gateway, &alice(), &connection).await),
            Some(Reason::NoRefreshToken)
        );
        assert!(call(&gateway, &alice()).await.is_ok(), "so young a token has not ended");
        pass(120.0).await;
        assert_eq!(
            needs_consent(&call_again(&gateway, &alice(), &connection).await),
            Some(Reason::NoRefreshToken)
        );
        assert_eq!(needs_consent(&call(&gateway, &alice()).await), Some(Reason::NoRefreshToken));
        assert_eq!(shown(&gateway, &alice()).await, ("needs_consent", Reason::NoRefreshToken));
        assert_eq!(world.token_requests(), 0);
    });
}

#[test]
fn a_refused_token_whose_end_was_stated_stays_where_it_cannot_be_renewed() {
    run(async {
        let world = World::new();
        let gateway = world.start().await;
        let tokens = claviger_actors::protocol::token::TokenSet { refresh_token: None, ..world.tokens(3600) };
        gateway.import_connection(&alice(), tokens).await.unwrap();
        pass(120.0).await;
        let connection = call(&gateway, &alice()).await.unwrap();
        assert!(call_again(&gateway, &alice(), &connection).await.is_err());
        assert_eq!(access_token(&call(&gateway, &alice()).await.unwrap()), "access-0");
    });
}
