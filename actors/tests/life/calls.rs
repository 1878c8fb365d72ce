//! A call that lacks what a token request needs is that call's trouble, and nobody else's.

use std::sync::Arc;
use std::time::Duration;

use claviger_actors::protocol::identifiers::ConnectionId;
use claviger_actors::protocol::json_template::JsonTemplate;
use serde_json::json;

use crate::world::*;

fn alices() -> ConnectionId {
    id("exchange", "alice")
}

fn with_token(token: &str) -> Arc<CallContext> {
    Arc::new(CallContext { caller_token: Some(token.into()), ..CallContext::default() })
}

async fn call_with(
    gateway: &GatewayHandle,
    context: Arc<CallContext>,
) -> Result<Arc<Connection>, TokenError> {
    gateway.access_token(&alices(), Arc::from(ORIGIN), None, context, Duration::from_secs(30)).await
}

#[test]
fn an_incomplete_call_changes_nothing_and_asks_nobody() {
    run(async {
        let world = World::exchange();
        let gateway = world.start().await;
        for _ in 0..10 {
            let refused = call_with(&gateway, CallContext::none()).await;
            assert!(matches!(refused, Err(TokenError::CallIncomplete { .. })), "{refused:?}");
        }
        assert_eq!(world.token_requests(), 0);
        assert!(gateway.connection(&alices()).await.unwrap().is_none(), "nothing is written for it");
        // Neither breaker nor backoff holds the next one up.
        assert_eq!(access_token(&call_with(&gateway, with_token("jwt")).await.unwrap()), "access-1");
    });
}

#[test]
fn what_authorization_details_lack_is_told_before_anything_is_written() {
    run(async {
        let mut world = World::new();
        let details = json!([{ "type": "account", "who": "{header.x-user}" }]);
        world.profiles[1].registration.authorization.authorization_details =
            Some(JsonTemplate::parse(details).unwrap());
        let gateway = world.start().await;
        let robot = id("robot", "app");
        let refused = call(&gateway, &robot).await;
        assert!(matches!(refused, Err(TokenError::CallIncomplete { .. })), "{refused:?}");
        assert!(gateway.connection(&robot).await.unwrap().is_none(), "nothing is written for it");
    });
}

#[test]
fn whoever_waits_with_an_incomplete_call_is_served_all_the_same() {
    run(async {
        let world = World::exchange();
        let gateway = world.start().await;
        for turn in 0..20 {
            let tokens = (0..20).map(|n| if n == turn { with_token("jwt") } else { CallContext::none() });
            let calls: Vec<_> = tokens.map(|context| call_with(&gateway, context)).collect();
            let mut answers = futures_util::future::join_all(calls).await;
            // The others get its token, or hear what they lack; it never hears of that.
            assert!(answers.remove(turn).is_ok(), "{turn}");
            pass(4000.0).await;
        }
        assert_eq!(world.token_requests(), 20);
    });
}

#[test]
fn an_operator_has_no_token_to_exchange_and_harms_none() {
    run(async {
        let world = World::exchange();
        let gateway = world.start().await;
        call_with(&gateway, with_token("jwt")).await.unwrap();
        let refused = gateway.refresh_connection(&alices()).await;
        assert!(matches!(refused, Err(TokenError::CallIncomplete { .. })), "{refused:?}");
        assert_eq!(shown(&gateway, &alices()).await.0, "active");
        assert_eq!(access_token(&call_with(&gateway, CallContext::none()).await.unwrap()), "access-1");
    });
}

#[test]
fn a_dead_refresh_token_and_an_incomplete_call_leave_the_connection_to_the_next_call() {
    run(async {
        let world = World::exchange();
        let gateway = world.start().await;
        gateway.import_connection(&alices(), world.tokens(0)).await.unwrap();
        world.server.revoke();
        let refused = call_with(&gateway, CallContext::none()).await;
        assert!(matches!(refused, Err(TokenError::CallIncomplete { .. })), "{refused:?}");
        assert_eq!(gateway.connection(&alices()).await.unwrap().unwrap().failures, 0);
        assert_eq!(access_token(&call_with(&gateway, with_token("jwt")).await.unwrap()), "access-1");
    });
}
