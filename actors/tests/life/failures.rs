//! The four classes of failure. Only a dead grant ends a connection.

use std::time::Duration;

use claviger_actors::transport::TransportError;
use http::header::RETRY_AFTER;
use serde_json::json;

use crate::world::*;

fn refused(code: &str) -> Answer {
    Answer::json(400, json!({ "error": code }))
}

#[test]
fn a_dead_refresh_token_is_not_tried_again_by_every_call() {
    run(async {
        let world = World::new();
        let gateway = world.connected(0).await;
        world.server.revoke();
        for _ in 0..50 {
            assert_eq!(needs_consent(&call(&gateway, &alice()).await), Some(Reason::GrantRevoked));
            pass(1.0).await;
        }
        assert_eq!(world.token_requests(), 1);
        let again = world.start().await;
        assert_eq!(needs_consent(&call(&again, &alice()).await), Some(Reason::GrantRevoked));
        assert_eq!(world.token_requests(), 1, "nor after a restart");
        assert_eq!(shown(&again, &alice()).await, ("needs_consent", Reason::GrantRevoked));
    });
}

#[test]
fn odd_envelopes_of_a_dead_grant_end_it_too() {
    for answer in [
        Answer::json(200, json!({ "error": "invalid_grant" })),
        Answer::json(200, json!({ "ok": false, "error": "invalid_refresh_token" })),
        Answer::json(401, json!({ "errors": [{ "code": "invalid_grant" }] })),
        Answer::json(403, json!({ "error": { "code": "invalid_grant", "message": "gone" } })),
    ] {
        run(async {
            let world = World::new();
            let gateway = world.connected(0).await;
            world.server.plan(answer);
            assert_eq!(needs_consent(&call(&gateway, &alice()).await), Some(Reason::GrantRevoked));
        });
    }
}

#[test]
fn invalid_client_never_drops_a_token() {
    for code in ["invalid_client", "unauthorized_client", "invalid_scope", "unheard_of"] {
        run(async {
            let world = World::new();
            let gateway = world.connected(100).await;
            pass(90.0).await;
            world.server.plan(refused(code));
            gateway.refresh_ahead(&alice(), &CallContext::none());
            pass(1.0).await;
            assert_eq!(shown(&gateway, &alice()).await.0, "misconfigured", "{code}");
            assert_eq!(access_token(&call(&gateway, &alice()).await.unwrap()), "access-0", "it lives yet");
            pass(60.0).await;
            assert_eq!(access_token(&call(&gateway, &alice()).await.unwrap()), "access-1", "mended");
        });
    }
}

#[test]
fn a_provider_that_is_down_leaves_the_old_token_serving() {
    run(async {
        let world = World::new();
        let gateway = world.connected(1000).await;
        pass(900.0).await;
        let down = || TransportError::Connect { authority: "as.example".into(), cause: "refused".into() };
        (0..200).for_each(|_| world.server.plan(Answer::failed(down())));
        for _ in 0..45 {
            assert_eq!(access_token(&call(&gateway, &alice()).await.unwrap()), "access-0");
            gateway.refresh_ahead(&alice(), &CallContext::none());
            pass(1.0).await;
        }
        assert_eq!(shown(&gateway, &alice()).await, ("retrying", Reason::ProviderUnreachable));
        let requests = world.token_requests();
        assert!((2..=9).contains(&requests), "{requests} requests in 45 s: no backoff");
    });
}

#[test]
fn retry_after_is_honoured_and_told_to_the_caller() {
    run(async {
        let world = World::new();
        let gateway = world.connected(0).await;
        world.server.plan(Answer::json(429, "{}").header(RETRY_AFTER, "120"));
        for _ in 0..60 {
            match call(&gateway, &alice()).await {
                Err(TokenError::ProviderUnavailable { retry_after: Some(wait), .. }) => {
                    assert!(wait <= Duration::from_secs(120));
                }
                other => panic!("{other:?}"),
            }
            pass(1.9).await;
        }
        assert_eq!(world.token_requests(), 1);
        pass(10.0).await;
        assert!(call(&gateway, &alice()).await.is_ok());
    });
}

#[test]
fn a_clock_that_is_set_back_holds_nobody_up() {
    run(async {
        let world = World::new();
        let gateway = world.connected(0).await;
        world.server.plan(Answer::json(429, "{}").header(RETRY_AFTER, "120"));
        assert!(call(&gateway, &alice()).await.is_err());
        world.clock.step(-7200);
        gateway.import_connection(&id("person", "bob"), world.tokens(0)).await.unwrap();
        assert!(call(&gateway, &alice()).await.is_ok());
    });
}

#[test]
fn a_short_failure_is_waited_out() {
    run(async {
        let world = World::new();
        let gateway = world.connected(0).await;
        world.server.plan(Answer::json(503, "{}"));
        assert_eq!(access_token(&call(&gateway, &alice()).await.unwrap()), "access-1");
        assert_eq!(world.token_requests(), 2);
    });
}

#[test]
fn a_token_that_had_ended_when_it_came_is_not_asked_for_by_every_call() {
    run(async {
        let world = World::new();
        world.server.expires_in(0.into());
        let gateway = world.connected(0).await;
        for _ in 0..100 {
            assert!(matches!(
                call(&gateway, &alice()).await,
                Err(TokenError::ProviderUnavailable { reason: Reason::MalformedAnswer, .. })
            ));
            pass(0.1).await;
        }
        let requests = world.token_requests();
        assert!(requests < 15, "{requests} requests in ten seconds");
        assert_eq!(shown(&gateway, &alice()).await, ("retrying", Reason::MalformedAnswer));
        world.server.expires_in(60.into());
        pass(60.0).await;
        assert!(call(&gateway, &alice()).await.is_ok(), "nothing was lost");
    });
}

#[test]
fn an_answer_without_a_refresh_token_keeps_the_old_one_and_the_scope_is_the_granted_one() {
    run(async {
        let world = World::new();
        world.server.rotate(false);
        world.server.answers(|n, answer| {
            if n == 1 {
                answer["scope"] = "calendar.readonly".into();
            }
        });
        let gateway = world.connected(0).await;
        assert_eq!(refresh_token(&call(&gateway, &alice()).await.unwrap()), "refresh-0");
        gateway.refresh_connection(&alice()).await.unwrap();
        let view = gateway.connection(&alice()).await.unwrap().unwrap();
        assert_eq!(view.scope.as_deref(), Some("calendar.readonly"), "an answer without scope changes none");
        assert_eq!(world.token_requests(), 2);
    });
}

#[test]
fn a_token_of_another_type_is_refused_and_drops_nothing() {
    run(async {
        let world = World::new();
        let gateway = world.connected(100).await;
        pass(90.0).await;
        world.server.plan(Answer::json(200, json!({ "access_token": "x", "token_type": "mac" })));
        gateway.refresh_ahead(&alice(), &CallContext::none());
        pass(0.2).await;
        assert_eq!(shown(&gateway, &alice()).await, ("retrying", Reason::MalformedAnswer));
        assert_eq!(access_token(&call(&gateway, &alice()).await.unwrap()), "access-0");
    });
}

#[test]
fn a_dead_refresh_token_of_a_grant_without_a_person_is_let_go() {
    run(async {
        let world = World::new();
        let robot = id("robot", "robot");
        let gateway = world.start().await;
        gateway.import_connection(&robot, world.tokens(0)).await.unwrap();
        world.server.revoke();
        let connection = call(&gateway, &robot).await.unwrap();
        assert_eq!(world.token_requests(), 2, "the refresh, then the grant itself");
        assert!(connection.state.tokens().unwrap().refresh_token.is_none(), "it was refused");
        gateway.refresh_connection(&robot).await.unwrap();
        assert_eq!(world.token_requests(), 3);
    });
}

#[test]
fn a_profile_that_is_refused_needs_an_operator_and_no_person() {
    run(async {
        let world = World::new();
        let gateway = world.start().await;
        world.server.plan(refused("invalid_grant"));
        let answer = call(&gateway, &id("robot", "robot")).await;
        assert!(matches!(answer, Err(TokenError::ClientMisconfigured { .. })), "{answer:?}");
        assert_eq!(shown(&gateway, &id("robot", "robot")).await, ("misconfigured", Reason::RequestRefused));
    });
}

#[test]
fn the_breaker_lets_one_of_many_connections_probe() {
    run(async {
        let world = World::new();
        let gateway = world.start().await;
        let subjects: Vec<_> = (0..20).map(|n| id("person", &format!("s{n}"))).collect();
        for subject in &subjects {
            gateway.import_connection(subject, world.tokens(0)).await.unwrap();
        }
        (0..100).for_each(|_| world.server.plan(Answer::json(500, "{}")));
        for _ in 0..3 {
            futures_util::future::join_all(subjects.iter().map(|subject| call(&gateway, subject))).await;
        }
        let before = world.token_requests();
        pass(1.0).await;
        // Held back for at least 0.5 s and at most a minute: after that, one probe.
        pass(60.0).await;
        futures_util::future::join_all(subjects.iter().map(|subject| call(&gateway, subject))).await;
        assert_eq!(world.token_requests() - before, 1);
    });
}

#[test]
fn a_call_waits_for_the_attempt_that_is_due_shortly() {
    run(async {
        let world = World::new();
        let gateway = world.connected(100).await;
        pass(94.9).await;
        world.server.plan(Answer::json(503, "{}"));
        gateway.refresh_ahead(&alice(), &CallContext::none());
        pass(0.11).await;
        let begun = tokio::time::Instant::now();
        assert!(call(&gateway, &alice()).await.is_ok());
        let waited = begun.elapsed();
        assert!(waited > Duration::from_millis(120) && waited < Duration::from_secs(1), "{waited:?}");
    });
}
