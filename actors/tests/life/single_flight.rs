//! One token request in flight a connection, and none in the steady state.

use claviger_actors::connection::Freshness;
use futures_util::future::join_all;

use crate::world::*;

#[test]
fn two_hundred_calls_on_one_expired_connection_make_one_token_request() {
    run(async {
        let world = World::new();
        let gateway = world.connected(0).await;
        let alice = alice();
        let answers = join_all((0..200).map(|_| call(&gateway, &alice))).await;
        for answer in answers {
            assert_eq!(access_token(&answer.unwrap()), "access-1");
        }
        assert_eq!(world.token_requests(), 1);
    });
}

#[test]
fn two_hundred_calls_share_a_failure_too() {
    run(async {
        let world = World::new();
        let gateway = world.connected(0).await;
        world.server.revoke();
        let alice = alice();
        let answers = join_all((0..200).map(|_| call(&gateway, &alice))).await;
        assert!(answers.iter().all(|answer| needs_consent(answer) == Some(Reason::GrantRevoked)));
        assert_eq!(world.token_requests(), 1);
    });
}

#[test]
fn steady_state_makes_no_token_request() {
    run(async {
        let world = World::new();
        let gateway = world.connected(3600).await;
        for _ in 0..1000 {
            let connection = call(&gateway, &alice()).await.unwrap();
            assert_eq!(connection.freshness(world.clock.now()), Freshness::Fresh);
            pass(2.0).await;
        }
        assert_eq!(world.token_requests(), 0);
        assert_eq!(world.faults.commits(), 2, "the keys' mark and the import");
    });
}

#[test]
fn a_token_of_a_minute_is_renewed_ahead_and_no_call_ever_waits() {
    run(async {
        let world = World::new();
        world.server.expires_in(60.into());
        let gateway = world.connected(60).await;
        for second in 0..600 {
            let connection = gateway.connections().get(&alice()).unwrap();
            match connection.freshness(world.clock.now()) {
                Freshness::Fresh => {}
                Freshness::RefreshDue => gateway.refresh_ahead(&alice(), &CallContext::none()),
                Freshness::Ended => panic!("a call would have to wait after {second} s"),
            }
            pass(1.0).await;
        }
        assert!((10..=15).contains(&world.token_requests()), "{}", world.token_requests());
    });
}

#[test]
fn readers_that_all_ask_for_a_refresh_ahead_do_not_flood_the_actor() {
    run(async {
        let world = World::new();
        let gateway = world.connected(60).await;
        pass(55.0).await;
        world.server.plan(Answer::json(503, "{}"));
        for _ in 0..10_000 {
            gateway.refresh_ahead(&alice(), &CallContext::none());
        }
        pass(0.9).await;
        let processed: u64 = gateway
            .inspect()
            .await
            .iter()
            .filter(|report| report.id == "person")
            .map(|report| serde_json::to_value(report).unwrap()["processed"].as_u64().unwrap())
            .sum();
        assert!(processed < 10, "{processed} messages");
    });
}

#[test]
fn a_call_that_joins_a_failed_refresh_ahead_tries_for_itself() {
    run(async {
        let world = World::new();
        let gateway = world.connected(60).await;
        pass(56.0).await;
        world.server.plan(Answer::json(503, "{}").delayed(std::time::Duration::from_secs(5)));
        gateway.refresh_ahead(&alice(), &CallContext::none());
        pass(2.0).await;
        let connection = call(&gateway, &alice()).await.unwrap();
        assert_eq!(access_token(&connection), "access-1");
        assert_eq!(world.token_requests(), 2);
    });
}

#[test]
fn a_forced_refresh_joins_the_one_that_runs() {
    run(async {
        let world = World::new();
        let gateway = world.connected(3600).await;
        let views = join_all((0..20).map(|_| {
            let gateway = gateway.clone();
            async move { gateway.refresh_connection(&alice()).await }
        }))
        .await;
        assert!(views.iter().all(Result::is_ok), "{views:?}");
        assert_eq!(world.token_requests(), 1);
    });
}

#[test]
fn a_provider_that_gives_the_same_token_again_has_refreshed_it() {
    run(async {
        let world = World::new();
        world.server.answers(|_, answer| answer["access_token"] = "access-0".into());
        let gateway = world.connected(3600).await;
        let view = gateway.refresh_connection(&alice()).await.unwrap();
        assert_eq!(view.state, "active");
        assert_eq!(world.token_requests(), 1);
    });
}
