//! Who the person is: asked with a live token, and told only of the subject of the ID token.

use claviger_actors::gateway::people::UserInfo;
use claviger_actors::protocol::token::{IdentityClaims, TokenSet};
use serde_json::json;

use crate::world::*;

fn world() -> (World, TokenSet) {
    let world = World::with(|registration| {
        let endpoint = "https://as.example/userinfo".parse().unwrap();
        registration.provider.endpoints.userinfo_endpoint = Some(endpoint);
    });
    let identity = IdentityClaims { iss: "https://as.example".into(), sub: "sub-alice".into() };
    let tokens = TokenSet { identity: Some(identity), ..world.tokens(0) };
    (world, tokens)
}

#[test]
fn a_token_that_has_ended_is_refreshed_first() {
    run(async {
        let (world, tokens) = world();
        world.server.document("/userinfo", json!({ "sub": "sub-alice", "name": "Alice" }));
        let gateway = world.start().await;
        assert_eq!(gateway.userinfo(&alice()).await.unwrap(), UserInfo::NoConnection);
        gateway.import_connection(&alice(), tokens).await.unwrap();
        let UserInfo::Claims(claims) = gateway.userinfo(&alice()).await.unwrap() else { panic!("claims") };
        assert_eq!(claims["name"], "Alice");
        let sent = world.transport.sent().pop().unwrap();
        assert_eq!((sent.method.as_str(), sent.url.path()), ("GET", "/userinfo"));
        assert_eq!(sent.headers["authorization"], "Bearer access-1");
        // A fresh one is used as it is.
        gateway.userinfo(&alice()).await.unwrap();
        assert_eq!(world.token_requests(), 1);
    });
}

#[test]
fn another_subject_is_not_passed_off_as_the_person() {
    run(async {
        let (world, tokens) = world();
        world.server.document("/userinfo", json!({ "sub": "sub-mallory", "name": "Mallory" }));
        let gateway = world.start().await;
        gateway.import_connection(&alice(), tokens).await.unwrap();
        let refused = gateway.userinfo(&alice()).await.unwrap_err();
        assert!(refused.to_string().contains("another subject"), "{refused}");
        // The connection itself is as good as before.
        assert_eq!(shown(&gateway, &alice()).await.0, "active");
    });
}

#[test]
fn a_token_is_not_shown_to_another_server_than_the_one_that_issued_it() {
    run(async {
        let (mut world, _) = world();
        let gateway = world.start().await;
        gateway.import_connection(&alice(), world.tokens(3600)).await.unwrap();
        world.profiles[0].registration.provider.issuer = Some("https://other.example".into());
        let moved = world.start().await;
        assert!(matches!(moved.userinfo(&alice()).await.unwrap(), UserInfo::Unfit(_)));
        assert!(world.transport.sent().iter().all(|sent| sent.url.path() != "/userinfo"));
    });
}

#[test]
fn without_an_id_token_nobody_can_say_whom_it_is_about() {
    run(async {
        let (world, tokens) = world();
        let gateway = world.start().await;
        gateway.import_connection(&alice(), TokenSet { identity: None, ..tokens }).await.unwrap();
        assert!(matches!(gateway.userinfo(&alice()).await.unwrap(), UserInfo::Unfit(_)));
    });
}
