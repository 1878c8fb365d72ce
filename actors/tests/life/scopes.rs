//! Scopes that a route needs beyond its profile's: who is asked for them, with what else, how often.

use claviger_actors::flow::messages::{AuthorizationRedirect, Opened};
use claviger_actors::protocol::authorization_response::AuthorizationResponse;
use claviger_actors::protocol::token::TokenSet;
use serde_json::json;

use crate::world::*;

fn scopes(text: &str) -> ScopeSet {
    ScopeSet::parse(text).unwrap()
}

fn world() -> World {
    let mut world = World::with(|person| person.scopes = scopes("mail"));
    world.profiles[1].registration.scopes = scopes("mail");
    world
}

fn robot() -> claviger_actors::protocol::identifiers::ConnectionId {
    id("robot", "shared")
}

fn refused(answer: &Result<std::sync::Arc<Connection>, TokenError>) -> Option<&str> {
    match answer {
        Err(TokenError::ScopesRefused { detail, .. }) => Some(detail),
        _ => None,
    }
}

fn asked(world: &World) -> Vec<String> {
    world.transport.sent().iter().map(|request| request.param("scope").to_owned()).collect()
}

fn redirected(opened: Opened) -> AuthorizationRedirect {
    match opened {
        Opened::Redirect(redirect) => redirect,
        Opened::Device(view) => panic!("{view:?}"),
    }
}

fn scope_of(redirect: &AuthorizationRedirect) -> String {
    redirect.url.query_pairs().find(|(name, _)| name == "scope").unwrap().1.into_owned()
}

#[test]
fn a_person_is_asked_for_what_the_route_needs_with_what_was_granted() {
    run(async {
        let world = world();
        let gateway = world.start().await;
        let scope = Some(scopes("files mail urn:theirs"));
        let tokens = TokenSet { scope, requested_scope: Some(scopes("files mail")), ..world.tokens(3600) };
        gateway.import_connection(&alice(), tokens).await.unwrap();

        assert!(call(&gateway, &alice()).await.is_ok());
        assert!(call_for(&gateway, &alice(), "files").await.is_ok());
        let more = call_for(&gateway, &alice(), "calendar").await;
        assert_eq!(needs_consent(&more), Some(Reason::ScopeMissing));
        assert_eq!(world.transport.count(), 0, "a refresh would bring no further scopes");
        assert!(call(&gateway, &alice()).await.is_ok(), "other routes go on");

        let link = gateway.create_connect_link(alice(), None, scopes("calendar")).await.unwrap();
        let redirect = redirected(gateway.open_connect_link(link.token, None).await.unwrap());
        assert_eq!(scope_of(&redirect), "calendar files mail");
        let plain = gateway.create_connect_link(alice(), None, ScopeSet::default()).await.unwrap();
        let plain = redirected(gateway.open_connect_link(plain.token, None).await.unwrap());
        assert_eq!(scope_of(&plain), "mail");

        let state = redirect.url.query_pairs().find(|(name, _)| name == "state").unwrap().1.into_owned();
        let response = AuthorizationResponse::parse(&format!("code=c&state={state}")).unwrap();
        gateway.accept_authorization_response(response, Some(redirect.browser)).await.unwrap();
        // The answer says nothing of scopes: then they are as requested.
        assert_eq!(access_token(&call_for(&gateway, &alice(), "calendar").await.unwrap()), "access-1");
        let view = gateway.connection(&alice()).await.unwrap().unwrap();
        assert_eq!(view.scope.as_deref(), Some("calendar files mail"));
        assert_eq!(world.token_requests(), 1);
    });
}

#[test]
fn a_refresh_keeps_the_scopes_and_a_narrower_answer_counts() {
    run(async {
        let world = world();
        let gateway = world.start().await;
        let tokens = TokenSet { scope: Some(scopes("files mail")), ..world.tokens(0) };
        gateway.import_connection(&alice(), tokens).await.unwrap();
        assert_eq!(access_token(&call_for(&gateway, &alice(), "files").await.unwrap()), "access-1");
        world.server.answers(|_, answer| answer["scope"] = json!("mail"));
        gateway.refresh_connection(&alice()).await.unwrap();
        let narrowed = call_for(&gateway, &alice(), "files").await;
        assert_eq!(needs_consent(&narrowed), Some(Reason::ScopeMissing));
    });
}

#[test]
fn without_a_person_a_token_for_all_scopes_is_obtained_once() {
    run(async {
        let world = world();
        let gateway = world.start().await;
        assert_eq!(access_token(&call(&gateway, &robot()).await.unwrap()), "access-1");
        assert_eq!(access_token(&call_for(&gateway, &robot(), "files").await.unwrap()), "access-2");
        assert_eq!(access_token(&call_for(&gateway, &robot(), "calendar").await.unwrap()), "access-3");
        for scopes in ["files", "calendar", "mail"] {
            assert_eq!(access_token(&call_for(&gateway, &robot(), scopes).await.unwrap()), "access-3");
        }
        assert_eq!(access_token(&call(&gateway, &robot()).await.unwrap()), "access-3");
        assert_eq!(asked(&world), ["mail", "files mail", "calendar files mail"]);
        pass(3600.0).await;
        assert!(call(&gateway, &robot()).await.is_ok());
        assert_eq!(asked(&world)[3], "calendar files mail", "what was granted is not lost");
    });
}

#[test]
fn scopes_that_the_server_leaves_out_are_not_asked_for_with_every_call() {
    run(async {
        let world = world();
        world.server.answers(|_, answer| answer["scope"] = json!("mail"));
        let gateway = world.start().await;
        for _ in 0..5 {
            let answer = call_for(&gateway, &robot(), "files mail").await;
            assert_eq!(refused(&answer), Some("files"), "{answer:?}");
        }
        assert_eq!(asked(&world), ["files mail"]);
        assert!(call(&gateway, &robot()).await.is_ok(), "other routes use the token");
        // After a restart too: what was asked for is stored with the token set.
        let again = world.start().await;
        assert_eq!(refused(&call_for(&again, &robot(), "files").await), Some("files"));
        assert_eq!(world.token_requests(), 1);
    });
}

#[test]
fn scopes_that_the_server_refuses_harm_no_other_route_and_are_tried_again_later() {
    run(async {
        let world = world();
        let gateway = world.start().await;
        assert_eq!(access_token(&call(&gateway, &robot()).await.unwrap()), "access-1");
        world.server.plan(Answer::json(400, json!({ "error": "invalid_scope" })));
        for _ in 0..3 {
            let answer = call_for(&gateway, &robot(), "files").await;
            assert_eq!(
                refused(&answer),
                Some("files (refused with status 400: invalid_scope)"),
                "{answer:?}"
            );
        }
        assert_eq!(world.token_requests(), 2);
        assert_eq!(shown(&gateway, &robot()).await, ("active", Reason::Granted));
        assert_eq!(access_token(&call(&gateway, &robot()).await.unwrap()), "access-1");
        pass(61.0).await;
        assert_eq!(access_token(&call_for(&gateway, &robot(), "files").await.unwrap()), "access-2");
    });
}

#[test]
fn a_first_request_that_is_refused_for_a_routes_scopes_leaves_the_profile_usable() {
    run(async {
        let world = world();
        let gateway = world.start().await;
        world.server.plan(Answer::json(400, json!({ "error": "invalid_scope" })));
        assert!(refused(&call_for(&gateway, &robot(), "files").await).is_some());
        assert_eq!(access_token(&call(&gateway, &robot()).await.unwrap()), "access-1");
        assert_eq!(asked(&world), ["files mail", "mail"]);
    });
}
