//! A token set goes to the upstreams it was obtained for, and nowhere else.

use std::sync::Arc;
use std::time::Duration;

use claviger_actors::connection::OriginSet;
use url::Url;

use crate::world::*;

const ELSEWHERE: &str = "https://elsewhere.example";

/// A route now leads elsewhere as well.
fn rerouted(world: &mut World) {
    for profile in &mut world.profiles {
        profile.origins = OriginSet::new([ORIGIN.to_owned(), ELSEWHERE.to_owned()]);
    }
}

async fn call_elsewhere(
    gateway: &GatewayHandle,
    id: &claviger_actors::protocol::identifiers::ConnectionId,
) -> Result<Arc<Connection>, TokenError> {
    gateway.access_token(id, Arc::from(ELSEWHERE), None, CallContext::none(), Duration::from_secs(30)).await
}

#[test]
fn a_new_upstream_needs_new_consent() {
    run(async {
        let mut world = World::new();
        world.connected(100).await;
        rerouted(&mut world);
        let gateway = world.start().await;
        assert_eq!(needs_consent(&call_elsewhere(&gateway, &alice()).await), Some(Reason::UpstreamChanged));
        assert!(call(&gateway, &alice()).await.is_ok(), "the old upstream is served");
        pass(100.0).await;
        assert!(call(&gateway, &alice()).await.is_ok(), "and refreshed");
        assert_eq!(world.token_requests(), 1);
        let refused = call_elsewhere(&gateway, &alice()).await;
        assert_eq!(needs_consent(&refused), Some(Reason::UpstreamChanged), "a refresh binds nothing anew");
        gateway.import_connection(&alice(), world.tokens(100)).await.unwrap();
        assert!(call_elsewhere(&gateway, &alice()).await.is_ok(), "the person's new word does");
    });
}

#[test]
fn a_grant_without_a_person_is_simply_used_again_for_a_new_upstream() {
    run(async {
        let mut world = World::new();
        let robot = id("robot", "robot");
        let gateway = world.start().await;
        call(&gateway, &robot).await.unwrap();
        rerouted(&mut world);
        let gateway = world.start().await;
        let connection = call_elsewhere(&gateway, &robot).await.unwrap();
        assert_eq!(access_token(&connection), "access-2");
        assert_eq!(world.token_requests(), 2);
        assert!(call(&gateway, &robot).await.is_ok());
        assert_eq!(world.token_requests(), 2);
    });
}

/// Somebody edits the provider: the same profile now names another authorization server.
fn moved(world: &mut World) {
    for profile in &mut world.profiles {
        let token_endpoint = Some(Url::parse("https://other-as.example/token").unwrap());
        profile.registration.provider.endpoints.token_endpoint = token_endpoint;
    }
}

#[test]
fn a_refresh_token_is_never_sent_to_another_authorization_server() {
    run(async {
        let mut world = World::new();
        world.connected(100).await;
        moved(&mut world);
        let gateway = world.start().await;
        assert!(call(&gateway, &alice()).await.is_ok(), "the access token serves while it lives");
        pass(100.0).await;
        assert_eq!(needs_consent(&call(&gateway, &alice()).await), Some(Reason::ProviderChanged));
        let view = gateway.connection(&alice()).await.unwrap().unwrap();
        assert_eq!((view.state, view.reason), ("needs_consent", Reason::ProviderChanged));
        assert_eq!(world.token_requests(), 0);
        gateway.delete_connection(&alice()).await.unwrap();
        assert_eq!(world.transport.count(), 0, "nor is it told to revoke what it never issued");
    });
}

#[test]
fn a_grant_without_a_person_starts_afresh_at_another_authorization_server() {
    run(async {
        let mut world = World::new();
        let robot = id("robot", "robot");
        let gateway = world.start().await;
        call(&gateway, &robot).await.unwrap();
        moved(&mut world);
        let gateway = world.start().await;
        pass(4000.0).await;
        assert!(call(&gateway, &robot).await.is_ok());
        let sent = world.transport.sent();
        assert!(sent.iter().all(|request| request.param("grant_type") == "client_credentials"));
    });
}
